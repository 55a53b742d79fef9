//! `standin reconcile run`: one run of the log's job.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use standin_edge::app::{Edge, Hooks, Stopped};
use standin_edge::config::Config;
use standin_reconcile::log::source::LogSource;
use standin_reconcile::reconcile::Tombstones;
use standin_reconcile::report::reconciliation::Reconciliation;

use super::source::SourceArgs;
use super::{files, shown};
use crate::out::{live_line, say, say_json};
use crate::running::RunningLog;
use crate::serve::DataDir;
use crate::tombstones::DeskTombstones;

/// Drains what is left in a log, matches every answer with the ledger, and reports.
///
/// Two ways: of an embedded `standin serve` that is stopped, name its --data folder (the ledger is
/// rebuilt from its log); with Postgres, name the database and each edge's log folder. A running
/// edge drains its own log; a second drainer is harmless, and what it writes meanwhile is the next
/// run's.
///
/// Holds that got no outcome within --stale-after seconds are released once a tombstone came first
/// for them in every log: with Postgres, name each log's running edge with --admin. Without an edge
/// to place it they are findings.
///
/// Each finding is named, a row that the ledger lost among them, and with Postgres is a case that
/// stays until somebody settles it: `standin reconcile findings`. `standin reconcile report` shows the
/// last run again.
///
/// Writes DIR/report.json, report.html and findings.csv.
///
/// Exit code: 0 clean, 2 findings, 1 could not run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin reconcile run --data ~/.local/share/standin-example
  standin reconcile run --postgres postgres://standin@db/standin --wal /var/lib/standin/wal
  standin reconcile run --postgres postgres://standin@db/standin --wal /var/lib/standin/wal \\
    --admin http://127.0.0.1:8081
  STANDIN_POSTGRES=postgres://… standin reconcile run --wal wal-1 --wal wal-2 --json")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
}

/// What is held against what, and where the report goes.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// Data folder of a stopped `standin serve`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["postgres", "wal", "admin"])]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "reconcile-out")]
    out: PathBuf,
    /// The report as JSON on standard output.
    #[arg(long)]
    json: bool,
}

// === impl RunArgs ===

impl RunArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        self.job.run().await
    }
}

// === impl JobArgs ===

impl JobArgs {
    /// Runs once, writes the report and shows it.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let live = live_line();
        live.set_message("reading the log, draining and matching");
        let report = match &self.data {
            Some(data) => self.embedded(data).await?,
            None if self.source.books.is_named() => self.source.reconcile().await?,
            None => bail!("name --data DIR, or --postgres URL and --wal DIR"),
        };
        live.finish_and_clear();
        files::write(&self.out, &report)?;
        if self.json {
            say_json(&report)?;
        } else {
            shown::show(&report);
            say(format_args!(
                "Report: {}",
                self.out.join(files::PAGE).display()
            ));
        }
        Ok(report.exit_code())
    }

    /// An edge on the folder rebuilds the ledger; it listens where nobody knows.
    async fn embedded(&self, data: &Path) -> anyhow::Result<Reconciliation> {
        if !data.join("wal").is_dir() {
            bail!("{}: no log in it", data.display());
        }
        let data = DataDir::open(Some(data.to_owned()), false)?;
        let anywhere = "127.0.0.1:0".parse()?;
        let text = toml::to_string(&data.config(&anywhere, &anywhere)?)?;
        let (config, _settings) = Config::load(Some(&text), [])?;
        let edge = Box::pin(Edge::start(config, Hooks::default())).await?;
        let log: Arc<dyn LogSource> = Arc::new(RunningLog(edge.log()));
        let tombstones: Arc<dyn Tombstones> = Arc::new(DeskTombstones(edge.desk()));
        let holds = self.source.holds;
        let report = holds
            .reconcile(edge.ledger(), vec![log], Some(tombstones))
            .await;
        if edge.stop().await != Stopped::Clean {
            bail!("the edge that rebuilt the ledger did not stop cleanly");
        }
        report
    }
}
