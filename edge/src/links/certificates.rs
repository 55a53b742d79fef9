//! The certificates in use, and the watch over their files.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use standin_core::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::hello::EdgeName;
use super::tls::{Keeper, Tls, TlsFiles};
use crate::alarm::{Alarm, Alarms};
use crate::tls::TlsError;
use crate::watched::{Reloaded, Watched};

/// Certificates, for pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsStatus {
    /// Until when this edge's certificate is good.
    pub not_after: String,
    /// Times that other files were taken into use, since the start.
    pub reloads: u64,
    /// Why the files that are there are not in use.
    pub error: Option<String>,
}

pub(super) struct Certificates {
    watched: Watched<Keeper>,
    clock: Arc<dyn Clock>,
    alarms: Arc<Alarms>,
}

// === impl Certificates ===

impl Certificates {
    /// Takes the files into use.
    ///
    /// # Errors
    /// When they do not serve.
    pub(super) async fn open(
        files: TlsFiles,
        this: EdgeName,
        clock: Arc<dyn Clock>,
        alarms: Arc<Alarms>,
    ) -> Result<Self, TlsError> {
        let certificates = Self {
            watched: Watched::open(Keeper { files, this }, clock.now()).await?,
            clock,
            alarms,
        };
        certificates.alarm();
        Ok(certificates)
    }

    /// What new connections use.
    pub(super) fn current(&self) -> Arc<Tls> {
        self.watched.current()
    }

    /// Takes the files as they are now.
    ///
    /// # Errors
    /// When they do not serve; what was in use still is.
    pub(super) async fn reload(&self) -> Result<Reloaded, TlsError> {
        self.told(self.watched.reload(self.clock.now()).await)
    }

    fn told(&self, reloaded: Result<Reloaded, TlsError>) -> Result<Reloaded, TlsError> {
        if matches!(reloaded, Ok(Reloaded::Changed)) {
            let not_after = self.current().life.not_after;
            tracing::info!(%not_after, "links use new certificates");
        }
        self.alarm();
        reloaded
    }

    /// Looks at the files every so often, until `stop`.
    pub(super) async fn watch(&self, every: Duration, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            // The alarm says what is the matter.
            drop(self.told(self.watched.look(self.clock.now()).await));
        }
    }

    pub(super) fn status(&self) -> TlsStatus {
        TlsStatus {
            not_after: self.current().life.not_after.to_string(),
            reloads: self.watched.reloads(),
            error: self.watched.error(),
        }
    }

    fn alarm(&self) {
        let problem = self.watched.problem(self.clock.now());
        self.alarms.set(Alarm::Certificates, problem);
    }
}
