//! `standin reconcile`: makes sure that everything was drained, and says what does not fit.
//!
//! Read in this order: `source` (a ledger, its logs, and one run on them), `run`, `files` (where
//! reports go), `shown` (what people read), `watch` (run after run), `report` (the last run again),
//! `findings`, `settlement`.

mod books;
mod files;
mod findings;
mod report;
mod run;
mod settlement;
mod shown;
mod source;
mod watch;

pub(crate) use books::BooksArgs;

/// Holds logs and banks' clearing files against the ledger, and keeps what does not fit.
///
/// `run` drains what is left in a log, matches every answer with the ledger, and reports; `watch` does
/// so on a schedule and when the primary is back; `report` shows the last run again; `findings` says
/// who looks after what was found; `settlement` matches a bank's file.
///
/// Without one of these words it is `run`, with the options of `run`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_long_help = "\
Examples:
  standin reconcile run --data ~/.local/share/standin-example
  export STANDIN_POSTGRES=postgres://standin@db/standin
  standin reconcile run --wal /var/lib/standin/wal --admin http://127.0.0.1:8081
  standin reconcile watch --every 1h --wal /var/lib/standin/wal --edge http://127.0.0.1:8081
  standin reconcile report
  standin reconcile findings list --state open")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    job: run::JobArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Watch(Box<watch::WatchArgs>),
    Report(report::ReportArgs),
    Findings(Box<findings::FindingsArgs>),
    Settlement(Box<settlement::SettlementArgs>),
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When it could not run.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Some(Command::Run(args)) => Box::pin(args.run()).await,
            Some(Command::Watch(args)) => Box::pin(args.run()).await,
            Some(Command::Report(args)) => args.run().await,
            Some(Command::Findings(args)) => Box::pin(args.run()).await,
            Some(Command::Settlement(args)) => Box::pin(args.run()).await,
            None => Box::pin(self.job.run()).await,
        }
    }
}
