//! The store directory this edge resolves merchants with: refreshed from the ledger, kept on disk
//! for starting while the ledger is away.
//!
//! A refresh asks the ledger whether stores or merchant ids have changed, and reads them, page by
//! page, only then; now and then also without, for changes that went round our code. What is read
//! while it changes is used, and read again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use standin_core::ledger::{DIRECTORY_PAGE_MAX, DirectoryVersion, Ledger, LedgerError};
use standin_core::merchant::{MerchantId, Store, StoreDirectory};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kept;

/// How long one question to the ledger may take: a version, or a page.
const ASK_MAX: Duration = Duration::from_secs(5);
/// After so long everything is read although nothing seems to have changed.
const READ_EVERY: Duration = Duration::from_secs(600);
/// Most stores, and most merchant ids, that are taken; of more, the directory stays as it is.
const ROWS_MAX: usize = 1_000_000;

/// Keeps the directory fresh.
pub struct Stores {
    directory: Arc<ArcSwap<StoreDirectory>>,
    ledger: Arc<dyn Ledger>,
    file: PathBuf,
    every: Duration,
    /// What the directory holds, and when it was read.
    read: Mutex<Option<(DirectoryVersion, Instant)>>,
}

/// The kept copy could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// It could not be read.
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

/// Why a refresh brought nothing.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the ledger did not answer in time")]
    Late,
    #[error("the ledger has more than {ROWS_MAX} stores or merchant ids")]
    TooMany,
    #[error("the directory was not built")]
    Unbuilt,
}

/// What the copy holds. Before there were merchant ids it was a list of stores.
#[derive(Deserialize)]
struct Kept {
    stores: Vec<Store>,
    #[serde(default)]
    merchant_ids: Vec<MerchantId>,
}

/// [`Kept`], as it is written: row by row, never whole in memory.
#[derive(Serialize)]
struct Keeping<'a> {
    #[serde(serialize_with = "each_store")]
    stores: &'a StoreDirectory,
    #[serde(serialize_with = "each_id")]
    merchant_ids: &'a StoreDirectory,
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
        let kept = read(&file)?.unwrap_or(Kept {
            stores: seed,
            merchant_ids: Vec::new(),
        });
        let directory = StoreDirectory::with_ids(kept.stores, kept.merchant_ids);
        Ok(Self {
            directory: Arc::new(ArcSwap::from_pointee(directory)),
            ledger,
            file,
            every,
            read: Mutex::new(None),
        })
    }

    /// The directory, as it is now and will be.
    pub fn directory(&self) -> Arc<ArcSwap<StoreDirectory>> {
        Arc::clone(&self.directory)
    }

    /// Asks the ledger once; says whether it answered.
    pub async fn refresh(&self) -> bool {
        match self.ask().await {
            Ok(()) => true,
            Err(error @ (RefreshError::Ledger(_) | RefreshError::Late)) => {
                tracing::debug!(%error, "stores were not refreshed");
                false
            }
            Err(error @ (RefreshError::TooMany | RefreshError::Unbuilt)) => {
                tracing::error!(%error, "stores were not refreshed");
                false
            }
        }
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

    async fn ask(&self) -> Result<(), RefreshError> {
        let version = in_time(self.ledger.directory_version()).await?;
        if self.is_fresh(version) {
            return Ok(());
        }
        let stores = self.stores().await?;
        let ids = self.merchant_ids().await?;
        let unchanged = in_time(self.ledger.directory_version()).await? == version;
        self.replace(stores, ids).await?;
        // What changed while it was read may be half in it: it is read again.
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) =
            unchanged.then(|| (version, Instant::now()));
        Ok(())
    }

    fn is_fresh(&self, version: DirectoryVersion) -> bool {
        let read = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.is_some_and(|(known, at)| known == version && at.elapsed() < READ_EVERY)
    }

    async fn stores(&self) -> Result<Vec<Store>, RefreshError> {
        let mut all: Vec<Store> = Vec::with_capacity(self.directory.load().len());
        loop {
            let after = all.last().map(|store| store.id);
            let page = in_time(self.ledger.stores_after(after, DIRECTORY_PAGE_MAX)).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
            if all.len() > ROWS_MAX {
                return Err(RefreshError::TooMany);
            }
        }
    }

    async fn merchant_ids(&self) -> Result<Vec<MerchantId>, RefreshError> {
        let mut all: Vec<MerchantId> = Vec::new();
        loop {
            let after = all.last().map(MerchantId::key);
            let page = self.ledger.merchant_ids_after(after, DIRECTORY_PAGE_MAX);
            let page = in_time(page).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
            if all.len() > ROWS_MAX {
                return Err(RefreshError::TooMany);
            }
        }
    }

    /// Puts what was read in the directory's place, if it is another. Indexing takes a second of
    /// many stores, and so may the disk: not on a thread that serves.
    async fn replace(&self, stores: Vec<Store>, ids: Vec<MerchantId>) -> Result<(), RefreshError> {
        let now = self.directory.load_full();
        let file = self.file.clone();
        let build = move || {
            let same = now.stores().eq(&stores) && {
                let mut known: Vec<&MerchantId> = ids.iter().collect();
                known.sort_unstable_by(|one, other| one.key_order(other));
                now.merchant_ids().eq(known)
            };
            if same {
                return None;
            }
            let fresh = StoreDirectory::with_ids(stores, ids);
            if let Err(error) = write(&file, &fresh) {
                tracing::warn!(%error, "the copy of the store directory was not kept");
            }
            Some(fresh)
        };
        let built = tokio::task::spawn_blocking(build).await;
        let Some(fresh) = built.map_err(|_| RefreshError::Unbuilt)? else {
            return Ok(());
        };
        let (stores, ids) = (fresh.len(), fresh.merchant_ids().count());
        tracing::info!(stores, ids, "store directory refreshed");
        self.directory.store(Arc::new(fresh));
        Ok(())
    }
}

async fn in_time<T>(
    asked: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, RefreshError> {
    match tokio::time::timeout(ASK_MAX, asked).await {
        Ok(answered) => Ok(answered?),
        Err(_elapsed) => Err(RefreshError::Late),
    }
}

fn each_store<S: serde::Serializer>(
    directory: &StoreDirectory,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(directory.stores())
}

fn each_id<S: serde::Serializer>(
    directory: &StoreDirectory,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(directory.merchant_ids())
}

fn read(path: &Path) -> Result<Option<Kept>, StoresError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoresError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let listed = bytes.trim_ascii_start().starts_with(b"[");
    let kept = if listed {
        serde_json::from_slice(&bytes).map(|stores| Kept {
            stores,
            merchant_ids: Vec::new(),
        })
    } else {
        serde_json::from_slice(&bytes)
    };
    kept.map(Some).map_err(|source| StoresError::Parse {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, directory: &StoreDirectory) -> io::Result<()> {
    let keeping = Keeping {
        stores: directory,
        merchant_ids: directory,
    };
    kept::replace(path, |file| Ok(serde_json::to_writer(file, &keeping)?))
}

#[cfg(test)]
mod tests;
