//! `standin reconcile report`: the last run that the ledger keeps, again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use standin_reconcile::reconcile::kept;
use standin_reconcile::report::{csv, html};

use super::books::BooksArgs;
use super::shown;
use crate::out::{say, say_json};

/// For each call to the ledger.
const CALL_DEADLINE: Duration = Duration::from_secs(90);

/// Shows the last run again, as the ledger keeps it, whoever made it and wherever.
///
/// It reads and changes nothing. Runs of an embedded `standin serve` are not kept: their report is
/// where `standin reconcile run --out` put it. What banks' clearing files came to is kept apart.
///
/// Exit code: as the run's: 0 clean, 2 findings; 1 there was no run yet, or it could not be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  export STANDIN_POSTGRES=postgres://standin@db/standin
  standin reconcile report
  standin reconcile report --html report.html
  standin reconcile report --csv > findings.csv
  standin reconcile report --json | jq .outages")]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    books: BooksArgs,
    /// The report as JSON on standard output.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Its findings as CSV on standard output, a line each.
    #[arg(long)]
    csv: bool,
    /// Writes the page to a file as well.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

// === impl ReportArgs ===

impl ReportArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When the ledger cannot be asked, or there was no run yet.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let ledger = self.books.connect()?;
        let last = kept::last(&ledger, CALL_DEADLINE).await?;
        let report = last.context(
            "the ledger keeps no run yet: make one with `standin reconcile run` or `watch`",
        )?;
        if let Some(file) = &self.html {
            let written = std::fs::write(file, html::reconciliation(&report)?);
            written.with_context(|| format!("cannot write to {}", file.display()))?;
        }
        if self.json {
            say_json(&report)?;
        } else if self.csv {
            say(csv::findings(&report)?.trim_end());
        } else {
            say(format_args!(
                "The run that began at {} and ended at {}:",
                report.started_at, report.ended_at
            ));
            shown::show(&report);
            if let Some(file) = &self.html {
                say(format_args!("Report: {}", file.display()));
            }
        }
        Ok(report.exit_code())
    }
}
