//! The store directory this edge resolves merchants with: refreshed from the ledger, kept on disk
//! for starting while the ledger is away.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use standin_core::ledger::Ledger;
use standin_core::merchant::{Store, StoreDirectory};
use tokio_util::sync::CancellationToken;

/// How long one refresh may take.
const REFRESH_MAX: Duration = Duration::from_secs(5);

/// Keeps the directory fresh.
pub struct Stores {
    directory: Arc<ArcSwap<StoreDirectory>>,
    ledger: Arc<dyn Ledger>,
    file: PathBuf,
    every: Duration,
}

/// The kept copy could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not parse.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

// === impl Stores ===

impl Stores {
    /// Starts from the copy kept at `file`, else from `seed`.
    pub fn open(
        ledger: Arc<dyn Ledger>,
        file: PathBuf,
        every: Duration,
        seed: Vec<Store>,
    ) -> Result<Self, StoresError> {
        let kept = read(&file)?.unwrap_or(seed);
        let directory = Arc::new(ArcSwap::from_pointee(StoreDirectory::new(kept)));
        Ok(Self {
            directory,
            ledger,
            file,
            every,
        })
    }

    /// The directory, as it is now and will be.
    pub fn directory(&self) -> Arc<ArcSwap<StoreDirectory>> {
        Arc::clone(&self.directory)
    }

    /// Asks the ledger once; says whether it answered.
    pub async fn refresh(&self) -> bool {
        let mut stores = match tokio::time::timeout(REFRESH_MAX, self.ledger.stores()).await {
            Ok(Ok(stores)) => stores,
            Ok(Err(error)) => {
                tracing::debug!(%error, "stores were not refreshed");
                return false;
            }
            Err(_elapsed) => return false,
        };
        stores.sort_by_key(|store| store.id);
        if self.directory.load().stores().eq(stores.iter()) {
            return true;
        }
        if let Err(error) = write(&self.file, &stores) {
            tracing::warn!(%error, "the copy of the store directory was not kept");
        }
        tracing::info!(stores = stores.len(), "store directory refreshed");
        self.directory.store(Arc::new(StoreDirectory::new(stores)));
        true
    }

    /// Refreshes until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
            }
            self.refresh().await;
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<Store>>, StoresError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StoresError::Parse {
                    path: path.to_owned(),
                    source,
                })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoresError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces the copy whole: a crash leaves the old one or the new one.
fn write(path: &Path, stores: &[Store]) -> Result<(), StoresError> {
    let failed = |source| StoresError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec(stores).map_err(|source| StoresError::Parse {
        path: path.to_owned(),
        source,
    })?;
    let fresh = path.with_extension("new");
    // Synced before it takes the old one's name: a power loss would else leave an empty file.
    let synced = || {
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    synced().map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}
