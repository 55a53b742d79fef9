//! What carries an announcement out: BIRD on a machine of its own, a readiness switch in Kubernetes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::bird::BirdError;

/// What is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InForce {
    /// Every prefix is announced.
    Announced,
    /// Every prefix is, and there is no router that hears it.
    Unheard,
    /// None is.
    Withdrawn,
    /// Some are.
    Mixed,
}

/// Announces and withdraws. Each order may be repeated; what is in force can be asked for.
pub trait Announcer: Send {
    /// What is in force here now.
    fn in_force(&mut self) -> BoxFuture<'_, Result<InForce, AnnounceError>>;

    /// Announces every prefix.
    fn announce(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>>;

    /// Withdraws every prefix.
    fn withdraw(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>>;
}

/// Why an order was not carried out, or what is in force is not known.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// BIRD.
    #[error(transparent)]
    Bird(#[from] BirdError),
}

/// A readiness switch: on means announced. Whatever announces for a cluster (Cilium, MetalLB with
/// `externalTrafficPolicy: Local`) sends traffic where pods are ready, and a probe of the pod's asks
/// the switch. Clones are one switch.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<AtomicBool>);

// === impl Switch ===

impl Switch {
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, on: bool) {
        self.0.store(on, Ordering::Release);
    }
}

impl Announcer for Switch {
    fn in_force(&mut self) -> BoxFuture<'_, Result<InForce, AnnounceError>> {
        Box::pin(async {
            Ok(match self.is_on() {
                true => InForce::Announced,
                false => InForce::Withdrawn,
            })
        })
    }

    fn announce(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>> {
        Box::pin(async {
            self.set(true);
            Ok(())
        })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<(), AnnounceError>> {
        Box::pin(async {
            self.set(false);
            Ok(())
        })
    }
}
