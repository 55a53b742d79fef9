//! `standin reconcile settlement`: a bank's clearing file against the ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use standin_core::clock::{SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_core::ledger::postgres::PostgresLedger;
use standin_core::ledger::{DIRECTORY_PAGE_MAX, Ledger};
use standin_core::merchant::{MerchantId, StoreDirectory};
use standin_reconcile::clearing::job::{Inputs, Options, Progress, Ran, run};
use standin_reconcile::clearing::mapping::Mapping;
use standin_reconcile::clearing::report::files::ReportFiles;
use standin_reconcile::totals::in_words;

use super::books::BooksArgs;
use crate::out::{align_right, live_line, say, say_json, table};

/// Discrepancies named on the terminal; `findings.csv` has all.
const SHOWN: usize = 20;
/// For each call to the ledger.
const CALL_DEADLINE: Duration = Duration::from_secs(90);

/// Matches a bank's clearing file with the ledger, and keeps what does not fit as findings.
///
/// Four things are held against each other: what we answered, what the bank told an edge of it, what
/// the file says was charged, and what the shopper's cart came to. A mapping (TOML) says what the
/// file's columns mean; docs/clearing/ has two. Where a mapping has a trailer, a file that its trailer
/// does not confirm is refused. Bad lines are counted and named, never dropped.
///
/// The file is staged in the ledger in batches. The command may be stopped anywhere and run again, or
/// run twice at once: it ends with the same report, and finds nothing twice.
///
/// Writes DIR/settlement.json, settlement.html, findings.csv and bad-lines.csv. People work on the
/// findings with `standin reconcile findings`.
///
/// Exit code: 0 clean, 2 findings or bad lines, 1 could not run or the file is refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  export STANDIN_POSTGRES=postgres://standin@db/standin
  standin reconcile settlement clearing-2026-11.csv --mapping docs/clearing/marqeta-like.toml \\
    --bank acme
  standin reconcile settlement TC33.txt --mapping docs/clearing/processor-like.toml --bank acme \\
    --from 2026-11-01 --until 2026-12-01 --out november
  standin reconcile findings list --state open")]
pub(crate) struct SettlementArgs {
    /// The bank's file, CSV.
    file: PathBuf,
    /// What its columns mean.
    #[arg(long, value_name = "FILE")]
    mapping: PathBuf,
    /// Whose file it is; by default the mapping's `bank`.
    #[arg(long, value_name = "SLUG")]
    bank: Option<BankId>,
    #[command(flatten)]
    books: BooksArgs,
    /// First day of the period, in the mapping's zone; by default the first line's.
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// The day after its last; by default the one after the last line's.
    #[arg(long, value_name = "DATE")]
    until: Option<Date>,
    /// Ages are counted up to this moment, RFC 3339; by default to when the file was first read.
    #[arg(long, value_name = "TIME")]
    as_of: Option<jiff::Timestamp>,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "settlement-out")]
    out: PathBuf,
    /// The report as JSON on standard output.
    #[arg(long)]
    json: bool,
}

// === impl SettlementArgs ===

impl SettlementArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When it could not run.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let text = std::fs::read_to_string(&self.mapping);
        let text = text.with_context(|| self.mapping.display().to_string())?;
        let mapping = Mapping::parse(&text);
        let mapping = mapping.with_context(|| self.mapping.display().to_string())?;
        let bank = self.bank.clone().or_else(|| mapping.layout.bank.clone());
        let bank = bank.context("name the bank with --bank, or in the mapping")?;
        let ledger = self.books.connect()?;
        let directory = directory(&ledger).await?;
        let inputs = Inputs {
            books: Arc::new(ledger),
            directory: Arc::new(directory),
            clock: Arc::new(SystemClock),
            path: self.file.clone(),
            options: Options {
                from: start_of(self.from, &mapping.zone)?,
                until: start_of(self.until, &mapping.zone)?,
                as_of: self
                    .as_of
                    .map(|at| Timestamp::from_millis(at.as_millisecond())),
                call_deadline: CALL_DEADLINE,
            },
            mapping: Arc::new(mapping),
            bank,
        };
        let ran = self.settle(&inputs).await?;
        if self.json {
            say_json(&ran.report)?;
        } else {
            show(&ran, &self.out);
        }
        Ok(ran.report.exit_code())
    }

    async fn settle(&self, inputs: &Inputs) -> anyhow::Result<Ran> {
        let place = || format!("cannot write to {}", self.out.display());
        let mut files = ReportFiles::create(&self.out).with_context(place)?;
        let live = live_line();
        let progress = |step: Progress| {
            live.set_message(match step {
                Progress::Checked(records) => format!("checked {records} records"),
                Progress::Staged(line) => format!("staged up to line {line}"),
                Progress::Matched(payments) => format!("matched {payments} payments"),
            });
        };
        let ran = run(inputs, &mut files, &progress).await;
        live.finish_and_clear();
        match ran {
            Ok(ran) => {
                files.finish(&ran.report).with_context(place)?;
                Ok(ran)
            }
            Err(error) => {
                files.abandon();
                let file = self.file.display().to_string();
                Err(anyhow::Error::new(error).context(file))
            }
        }
    }
}

/// The stores, and what networks call them.
async fn directory(ledger: &PostgresLedger) -> anyhow::Result<StoreDirectory> {
    let stores = ledger.stores().await?;
    let mut ids: Vec<MerchantId> = Vec::new();
    loop {
        let after = ids.last().map(MerchantId::key);
        let page = ledger.merchant_ids_after(after, DIRECTORY_PAGE_MAX).await?;
        if page.is_empty() {
            return Ok(StoreDirectory::with_ids(stores, ids));
        }
        ids.extend(page);
    }
}

/// Midnight of a day in a zone.
fn start_of(day: Option<Date>, zone: &TimeZone) -> anyhow::Result<Option<Timestamp>> {
    let Some(day) = day else {
        return Ok(None);
    };
    let midnight = day.to_datetime(jiff::civil::Time::midnight());
    let start = zone.to_ambiguous_timestamp(midnight).compatible()?;
    Ok(Some(Timestamp::from_millis(start.as_millisecond())))
}

fn show(ran: &Ran, out: &Path) {
    let report = &ran.report;
    let mut kinds = table(["discrepancy", "found", "to settle", "at stake"]);
    for (kind, sum) in &report.tally.kinds {
        kinds.add_row([
            kind.as_str().to_owned(),
            sum.all.count.to_string(),
            sum.unsettled.count.to_string(),
            in_words(&sum.unsettled.minor),
        ]);
    }
    align_right(&mut kinds, 1..4);
    if !report.tally.kinds.is_empty() {
        say(kinds);
    }
    say(format_args!(
        "{}: {} lines, {} ignored, {} bad; {} payments; staged now {}, findings new {}, changed {}, \
         open again {}",
        report.file,
        report.sums.lines,
        report.sums.ignored,
        report.sums.bad,
        report.tally.all_payments(),
        ran.did.staged,
        ran.did.new,
        ran.did.changed,
        ran.did.reopened
    ));
    for bad in report.bad_lines.iter().take(SHOWN) {
        say(format_args!(
            "bad line {}: {} {}",
            bad.line, bad.column, bad.reason
        ));
    }
    for finding in report.findings.iter().take(SHOWN) {
        say(format_args!(
            "finding {} {}: {}",
            finding.id,
            finding.kind.as_str(),
            finding.detail
        ));
    }
    for broken in &report.broken {
        say(format_args!("does not add up: {broken}"));
    }
    say(format_args!(
        "{} to settle, {} at stake. Report: {}",
        report.tally.unsettled(),
        in_words(&report.tally.exposure.all.minor),
        out.join("settlement.html").display()
    ));
}
