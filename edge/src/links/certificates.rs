//! The certificates in use, and the watch over their files.
//!
//! What is in use changes as a whole or not at all: files that do not serve leave the old ones in
//! use and raise an alarm until files that serve are there.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use standin_core::clock::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use super::hello::EdgeName;
use super::tls::{Read, Tls, TlsError, TlsFiles};
use crate::alarm::{Alarm, Alarms};

/// Left of a certificate's life when people are told; of a short life, its last fifth.
const EXPIRES_SOON_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What looking at the files again did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// They are those in use.
    Same,
    /// New connections use them from now on.
    Changed,
}

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
    files: TlsFiles,
    this: EdgeName,
    clock: Arc<dyn Clock>,
    alarms: Arc<Alarms>,
    current: ArcSwap<Tls>,
    reloads: AtomicU64,
    error: Mutex<Option<String>>,
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
        let tls = read(&files).await?.build(&this, clock.now())?;
        let certificates = Self {
            files,
            this,
            clock,
            alarms,
            current: ArcSwap::from_pointee(tls),
            reloads: AtomicU64::new(0),
            error: Mutex::default(),
        };
        certificates.alarm();
        Ok(certificates)
    }

    /// What new connections use.
    pub(super) fn current(&self) -> Arc<Tls> {
        self.current.load_full()
    }

    /// Looks at the files again.
    ///
    /// # Errors
    /// When they do not serve; what was in use still is.
    pub(super) async fn reload(&self) -> Result<Reloaded, TlsError> {
        let reloaded = self.try_reload().await;
        let error = reloaded.as_ref().err().map(ToString::to_string);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.alarm();
        reloaded
    }

    async fn try_reload(&self) -> Result<Reloaded, TlsError> {
        let read = read(&self.files).await?;
        if read.digest() == self.current().digest {
            return Ok(Reloaded::Same);
        }
        let tls = read.build(&self.this, self.clock.now())?;
        tracing::info!(not_after = %tls.not_after, "links use new certificates");
        self.current.store(Arc::new(tls));
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(Reloaded::Changed)
    }

    /// Looks at the files every so often, until `stop`.
    pub(super) async fn watch(&self, every: Duration, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            // The alarm says what is the matter.
            drop(self.reload().await);
        }
    }

    pub(super) fn status(&self) -> TlsStatus {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        TlsStatus {
            not_after: self.current().not_after.to_string(),
            reloads: self.reloads.load(Ordering::Relaxed),
            error: error.clone(),
        }
    }

    fn alarm(&self) {
        let error = self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let because = error
            .map(|error| format!("the old certificates stay in use: {error}"))
            .or_else(|| expires_soon(&self.current(), self.clock.now()));
        self.alarms.set(Alarm::Certificates, because);
    }
}

fn expires_soon(tls: &Tls, now: Timestamp) -> Option<String> {
    let life_ms = tls.not_after.millis_since(tls.not_before);
    let left_ms = tls.not_after.millis_since(now);
    let soon_ms = life_ms.checked_div(5).unwrap_or(0).min(EXPIRES_SOON_MS);
    (left_ms < soon_ms).then(|| format!("this edge's certificate ends at {}", tls.not_after))
}

async fn read(files: &TlsFiles) -> Result<Read, TlsError> {
    let ours = files.clone();
    let read = tokio::task::spawn_blocking(move || Read::of(&ours)).await;
    read.unwrap_or_else(|cancelled| {
        Err(TlsError::Read {
            file: files.ca.clone(),
            source: io::Error::other(cancelled),
        })
    })
}
