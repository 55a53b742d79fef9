//! A ledger in Postgres and the logs that are held against it, and one run on them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_reconcile::log::source::{DirectoryLog, LogSource, contents};
use standin_reconcile::reconcile::{Inputs, Options, Tombstones, cases, run};
use standin_reconcile::report::reconciliation::Reconciliation;
use uuid::Uuid;

use super::books::BooksArgs;
use crate::client::{Target, TlsArgs};
use crate::tombstones::AdminTombstones;

/// A ledger and its logs.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) books: BooksArgs,
    /// Folder of an edge's write-ahead log; once for each edge, or for one keeper of each region.
    #[arg(long, value_name = "DIR")]
    wal: Vec<PathBuf>,
    /// Admin listener of the running edge that writes a log; once for each --wal.
    #[arg(long, value_name = "URL", requires = "wal")]
    admin: Vec<Target>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) holds: HoldArgs,
}

/// What becomes of holds.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct HoldArgs {
    /// Age at which a hold without an outcome is given up, seconds.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..))]
    stale_after: u64,
}

// === impl SourceArgs ===

impl SourceArgs {
    /// Whether there is enough to run on.
    ///
    /// # Errors
    /// When there is not; it says what is missing.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.books.is_named() {
            bail!("name the ledger with --postgres URL, or in STANDIN_POSTGRES");
        }
        if self.wal.is_empty() {
            bail!("name the folder of at least one log with --wal");
        }
        Ok(())
    }

    /// Runs once, and keeps what was found as cases.
    ///
    /// # Errors
    /// When it could not run to its end; running again is harmless.
    pub(crate) async fn reconcile(&self) -> anyhow::Result<Reconciliation> {
        self.check()?;
        let tombstones = self.tombstones().await?;
        let ledger = Arc::new(self.books.connect()?);
        let logs = self
            .wal
            .iter()
            .map(|dir| -> Arc<dyn LogSource> { Arc::new(DirectoryLog::new(dir.clone())) });
        let books: Arc<dyn Ledger> = ledger.clone();
        let report = self.holds.reconcile(books, logs.collect(), tombstones);
        let report = report.await?;
        let filed = cases::file(
            ledger.as_ref(),
            &report,
            SystemClock.now(),
            self.holds.options().call_deadline,
        );
        filed.await.context("findings were not kept as cases")?;
        Ok(report)
    }

    /// Where tombstones go, when edges were named.
    async fn tombstones(&self) -> anyhow::Result<Option<Arc<dyn Tombstones>>> {
        if self.admin.is_empty() {
            return Ok(None);
        }
        let mut logs = BTreeSet::new();
        for dir in &self.wal {
            let log = contents(&DirectoryLog::new(dir)).await?;
            logs.insert(log.incarnation);
        }
        let reason = format!("no outcome within {} s", self.holds.stale_after);
        let tombstones = AdminTombstones::connect(&self.admin, &self.tls, &logs, &reason).await?;
        Ok(Some(Arc::new(tombstones)))
    }
}

// === impl HoldArgs ===

impl HoldArgs {
    /// One run.
    ///
    /// # Errors
    /// When it could not run to its end.
    pub(crate) async fn reconcile(
        self,
        ledger: Arc<dyn Ledger>,
        logs: Vec<Arc<dyn LogSource>>,
        tombstones: Option<Arc<dyn Tombstones>>,
    ) -> anyhow::Result<Reconciliation> {
        let inputs = Inputs {
            ledger,
            logs,
            tombstones,
            clock: Arc::new(SystemClock),
        };
        Ok(run(&inputs, self.options()).await?)
    }

    fn options(self) -> Options {
        Options {
            stale_after: Duration::from_secs(self.stale_after),
            ..Options::new(Uuid::now_v7())
        }
    }
}
