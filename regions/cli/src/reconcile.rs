//! `standin reconcile`: makes sure that everything was drained, and says what does not fit.

mod books;
mod findings;
mod settlement;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use standin_core::authorities::Authorities;
use standin_core::clock::SystemClock;
use standin_core::ledger::Ledger;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_edge::app::{Edge, Hooks, Stopped};
use standin_edge::config::Config;
use standin_reconcile::log::source::{DirectoryLog, LogSource, contents};
use standin_reconcile::reconcile::{Inputs, Options, Tombstones, run};
use standin_reconcile::report::html;
use standin_reconcile::report::reconciliation::Reconciliation;
use uuid::Uuid;

use crate::client::{Target, TlsArgs};
use crate::out::{align_right, live_line, say, say_json, table};
use crate::running::RunningLog;
use crate::serve::DataDir;
use crate::tombstones::{AdminTombstones, DeskTombstones};

/// Findings named on the terminal; the report has all.
const FINDINGS_SHOWN: usize = 20;

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
/// Writes DIR/report.json and DIR/report.html.
///
/// Exit code: 0 clean, 2 findings, 1 could not run.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
Examples:
  standin reconcile --data ~/.local/share/standin-example
  standin reconcile --postgres postgres://standin@db/standin --wal /var/lib/standin/wal
  standin reconcile --postgres postgres://standin@db/standin --wal /var/lib/standin/wal \\
    --admin http://127.0.0.1:8081
  STANDIN_POSTGRES=postgres://… standin reconcile --wal wal-1 --wal wal-2 --json")]
pub struct Args {
    #[command(subcommand)]
    more: Option<More>,
    /// Data folder of a stopped `standin serve`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["postgres", "wal"])]
    data: Option<PathBuf>,
    /// The ledger of record. Others on this machine may see a command line: prefer the variable.
    #[arg(
        long,
        value_name = "URL",
        env = "STANDIN_POSTGRES",
        hide_env_values = true
    )]
    postgres: Option<String>,
    /// With --postgres: TLS, to a server whose certificate is of an authority in this PEM file.
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_ca: Option<PathBuf>,
    /// Folder of an edge's write-ahead log; once for each edge.
    #[arg(long, value_name = "DIR")]
    wal: Vec<PathBuf>,
    /// Admin listener of the running edge that writes a log; once for each --wal.
    #[arg(long, value_name = "URL", requires = "wal", conflicts_with = "data")]
    admin: Vec<Target>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Age at which a hold without an outcome is given up, seconds.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..))]
    stale_after: u64,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "reconcile-out")]
    out: PathBuf,
    /// The report as JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum More {
    Settlement(Box<settlement::SettlementArgs>),
    Findings(Box<findings::FindingsArgs>),
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When it could not run.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.more {
            Some(More::Settlement(args)) => return Box::pin(args.run()).await,
            Some(More::Findings(args)) => return Box::pin(args.run()).await,
            None => {}
        }
        let live = live_line();
        live.set_message("reading the log, draining and matching");
        let report = match (&self.data, &self.postgres) {
            (Some(data), _) => self.embedded(data).await?,
            (None, Some(url)) => self.with_postgres(url).await?,
            (None, None) => bail!("name --data DIR, or --postgres URL and --wal DIR"),
        };
        live.finish_and_clear();
        self.write(&report)?;
        if self.json {
            say_json(&report)?;
        } else {
            show(&report, &self.out);
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
        let report = self
            .reconcile(edge.ledger(), vec![log], Some(tombstones))
            .await;
        if edge.stop().await != Stopped::Clean {
            bail!("the edge that rebuilt the ledger did not stop cleanly");
        }
        report
    }

    async fn with_postgres(&self, url: &str) -> anyhow::Result<Reconciliation> {
        if self.wal.is_empty() {
            bail!("name the folder of at least one log with --wal");
        }
        let tombstones = self.tombstones().await?;
        let mut postgres = PostgresConfig::new(url.to_owned());
        if let Some(ca) = &self.postgres_ca {
            postgres.authorities = Some(Authorities::read(ca)?);
        }
        let ledger = PostgresLedger::connect(&postgres)?;
        let logs = self
            .wal
            .iter()
            .map(|dir| -> Arc<dyn LogSource> { Arc::new(DirectoryLog::new(dir.clone())) });
        self.reconcile(Arc::new(ledger), logs.collect(), tombstones)
            .await
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
        let reason = format!("no outcome within {} s", self.stale_after);
        let tombstones = AdminTombstones::connect(&self.admin, &self.tls, &logs, &reason).await?;
        Ok(Some(Arc::new(tombstones)))
    }

    async fn reconcile(
        &self,
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
        let options = Options {
            stale_after: Duration::from_secs(self.stale_after),
            ..Options::new(Uuid::now_v7())
        };
        Ok(run(&inputs, options).await?)
    }

    fn write(&self, report: &Reconciliation) -> anyhow::Result<()> {
        let place = || format!("cannot write to {}", self.out.display());
        std::fs::create_dir_all(&self.out).with_context(place)?;
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(self.out.join("report.json"), json).with_context(place)?;
        std::fs::write(self.out.join("report.html"), html::reconciliation(report)?)
            .with_context(place)
    }
}

fn show(report: &Reconciliation, out: &Path) {
    let mut rungs = table(["rung", "approved", "declined"]);
    for (rung, line) in &report.totals.by_rung {
        rungs.add_row([
            rung.to_string(),
            line.approved.to_string(),
            line.declined.to_string(),
        ]);
    }
    align_right(&mut rungs, 1..3);
    say(rungs);
    for log in &report.logs {
        say(format_args!(
            "log {}: {} entries, {} answers, {} matched, {} drained here",
            log.log, log.entries, log.outcomes, log.matched, log.drained_here
        ));
    }
    for finding in report.findings.iter().take(FINDINGS_SHOWN) {
        say(format_args!(
            "finding {}: {}",
            finding.kind.as_str(),
            finding.detail
        ));
    }
    say(format_args!(
        "{} findings. Report: {}",
        report.all_findings(),
        out.join("report.html").display()
    ));
}
