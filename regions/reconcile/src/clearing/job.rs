//! The job: reads a file, stages its lines, walks through the ledger shopper by shopper, and keeps
//! what does not fit as cases.
//!
//! It may be killed anywhere and started again, and run beside itself: staging moves by
//! compare-and-set, findings are kept by ids that follow from what they are about, and everything
//! else is read only. Bounds: a batch of lines, a page of payments, one bit for each line of the
//! file, and the counts of a report.

mod scan;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use uuid::Uuid;

use standin_core::clock::{Clock, Timestamp};
use standin_core::id::BankId;
use standin_core::identity::record_id;
use standin_core::ledger::clearing::{
    CASE_ROWS_MAX, CaseStanding, ClearingBooks, ClearingFile, FoundCase, Kept,
};
use standin_core::ledger::{LedgerError, ReconcileRun};
use standin_core::merchant::StoreDirectory;

use super::file::{FileError, FileSums};
use super::kind::Age;
use super::mapping::Mapping;
use super::matching::{Discrepancy, Scope, answered_at};
use super::report::files::Sink;
use super::report::{FindingLine, LISTED_MAX, OtherFile, Period, SettlementReport, Watermark};
use super::tally::Counting;
use crate::reconcile::within;

/// What a run works on.
#[derive(Clone)]
pub struct Inputs {
    /// The ledger.
    pub books: Arc<dyn ClearingBooks>,
    /// Its stores, by which merchants on lines without an id are told.
    pub directory: Arc<StoreDirectory>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The file.
    pub path: PathBuf,
    /// How it is read.
    pub mapping: Arc<Mapping>,
    /// Whose it is.
    pub bank: BankId,
    /// How a run works.
    pub options: Options,
}

/// How a run works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The period's beginning; by default the first line's day.
    pub from: Option<Timestamp>,
    /// Its end; by default that of the last line's day.
    pub until: Option<Timestamp>,
    /// Ages are counted up to here; by default to when the file was first read.
    pub as_of: Option<Timestamp>,
    /// For each call to the ledger.
    pub call_deadline: Duration,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// The report: the same whenever the same is read.
    pub report: SettlementReport,
    /// What this run itself did.
    pub did: Did,
}

/// What a run itself did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Did {
    /// Lines it staged.
    pub staged: u64,
    /// Cases that are new.
    pub new: u64,
    /// Cases whose facts are others now.
    pub changed: u64,
    /// Settled cases that are open again.
    pub reopened: u64,
}

/// How far a run is, for whoever watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Records read, and found to be as the trailer says.
    Checked(u64),
    /// Lines staged, up to this one.
    Staged(u64),
    /// Payments matched.
    Matched(u64),
}

/// Why a run could not run. What it staged until then stays staged, and does not count.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file is refused; nothing of it counts.
    #[error("the file is refused: {0}")]
    File(#[from] FileError),
    /// It was another file when it was read again.
    #[error("the file changed while it was read")]
    FileChanged,
    /// A call to the ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The report cannot be written.
    #[error("report: {0}")]
    Report(#[from] std::io::Error),
    /// The report does not become JSON.
    #[error("report: {0}")]
    Json(#[from] serde_json::Error),
    /// The period is none.
    #[error("the period ends before it begins")]
    Period,
    /// The reader of the file was stopped.
    #[error("the reader of the file was stopped")]
    Stopped,
}

/// A run under way.
struct Job<'a> {
    inputs: &'a Inputs,
    sink: &'a mut dyn Sink,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    did: Did,
    counting: Counting,
    /// Discrepancies on their way to the ledger.
    pending: Vec<Discrepancy>,
    listed: Vec<FindingLine>,
    unlisted: u64,
}

/// Runs once. Discrepancies and bad lines go to `sink` as they are found.
///
/// # Errors
/// When it could not run to its end; running it again goes on from there.
pub async fn run(
    inputs: &Inputs,
    sink: &mut dyn Sink,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Ran, JobError> {
    let mut job = Job {
        inputs,
        sink,
        progress,
        did: Did::default(),
        counting: Counting::default(),
        pending: Vec::new(),
        listed: Vec::new(),
        unlisted: 0,
    };
    let started_at = inputs.clock.now();
    let (sums, bad_lines) = job.check_file().await?;
    let file = job.stage(&sums).await?;
    let scope = job.scope(&file, &sums)?;
    let files = job
        .call(inputs.books.clearing_files(inputs.bank.clone()))
        .await?;
    let watermark = job.call(inputs.books.cursors()).await?;
    job.scan(&scope, &files, sums.last_line).await?;
    let report = job.report(&scope, sums, &files, watermark);
    let mut report = report;
    report.bad_lines_unlisted = report
        .sums
        .bad
        .saturating_sub(u64::try_from(bad_lines.len()).unwrap_or(u64::MAX));
    report.bad_lines = bad_lines;
    let ran = Ran {
        did: job.did,
        report,
    };
    let kept = record(&ran.report, &file, started_at, inputs.clock.now())?;
    job.call(inputs.books.record_run(kept)).await?;
    Ok(ran)
}

/// The run as the ledger keeps it: under the same id whenever it says the same.
fn record(
    report: &SettlementReport,
    file: &ClearingFile,
    started_at: Timestamp,
    ended_at: Timestamp,
) -> Result<ReconcileRun, JobError> {
    let mut said = report.clone();
    // Every finding is a case of its own.
    said.findings.clear();
    said.bad_lines.clear();
    let json = serde_json::to_value(&said)?;
    let text = json.to_string();
    Ok(ReconcileRun {
        id: record_id("settlement run", &[file.id.as_bytes(), text.as_bytes()]),
        started_at,
        ended_at,
        report: json,
        findings: Vec::new(),
    })
}

// === impl Job ===

impl Job<'_> {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        within(self.inputs.options.call_deadline, call).await
    }

    fn scope(&self, file: &ClearingFile, sums: &FileSums) -> Result<Scope, JobError> {
        let options = &self.inputs.options;
        let as_of = options.as_of.unwrap_or(file.opened_at);
        let zone = &self.inputs.mapping.zone;
        let day = |at: Option<i64>, days: i64| {
            at.map_or(as_of, |at| midnight(Timestamp::from_millis(at), zone, days))
        };
        let from = options.from.unwrap_or_else(|| day(sums.first_at, 0));
        let until = options.until.unwrap_or_else(|| day(sums.last_at, 1));
        // Of what was answered after the file was read it can say nothing.
        let until = until.min(as_of);
        if from > until {
            return Err(JobError::Period);
        }
        Ok(Scope {
            file: file.id,
            sha256: file.sha256.clone(),
            bank: file.bank.clone(),
            from,
            until,
            as_of,
            rules: self.inputs.mapping.layout.rules,
        })
    }

    /// Takes what was found; it goes to the ledger in batches.
    async fn found(&mut self, found: Vec<Discrepancy>, scope: &Scope) -> Result<(), JobError> {
        self.pending.extend(found);
        while self.pending.len() >= CASE_ROWS_MAX {
            let rest = self.pending.split_off(CASE_ROWS_MAX);
            let batch = std::mem::replace(&mut self.pending, rest);
            self.keep(batch, scope).await?;
        }
        Ok(())
    }

    /// Keeps what is still on its way.
    async fn flush(&mut self, scope: &Scope) -> Result<(), JobError> {
        let batch = std::mem::take(&mut self.pending);
        self.keep(batch, scope).await
    }

    async fn keep(&mut self, batch: Vec<Discrepancy>, scope: &Scope) -> Result<(), JobError> {
        if batch.is_empty() {
            return Ok(());
        }
        let cases: Vec<FoundCase> = batch.iter().map(|found| case_of(found, scope)).collect();
        let ids: Vec<Uuid> = cases.iter().map(|case| case.id).collect();
        let kept = self.inputs.books.keep_cases(cases, scope.as_of);
        let standings = self.call(kept).await?;
        for ((found, id), standing) in batch.iter().zip(ids).zip(standings) {
            let did = match standing.kept {
                Kept::New => Some(&mut self.did.new),
                Kept::Changed => Some(&mut self.did.changed),
                Kept::Reopened => Some(&mut self.did.reopened),
                Kept::Known => None,
            };
            if let Some(count) = did {
                *count = count.saturating_add(1);
            }
            self.counting.found(found, standing.state, scope.as_of);
            let line = finding_line(found, id, standing, scope);
            self.sink.finding(&line)?;
            if self.listed.len() < LISTED_MAX {
                self.listed.push(line);
            } else {
                self.unlisted = self.unlisted.saturating_add(1);
            }
        }
        Ok(())
    }

    fn report(
        &mut self,
        scope: &Scope,
        sums: FileSums,
        files: &[ClearingFile],
        watermark: Vec<(Uuid, u64)>,
    ) -> SettlementReport {
        let tally = std::mem::take(&mut self.counting).finish();
        let mapping = &self.inputs.mapping;
        let own = files.iter().find(|file| file.id == scope.file);
        let others = files.iter().filter(|file| file.id != scope.file);
        SettlementReport {
            bank: scope.bank.clone(),
            layout: mapping.layout.layout.clone(),
            file: own.map(|file| file.name.clone()).unwrap_or_default(),
            mapping_sha256: mapping.digest.clone(),
            other_files: others
                .map(|file| OtherFile {
                    name: file.name.clone(),
                    sha256: file.sha256.clone(),
                })
                .collect(),
            period: Period {
                from: in_zone(scope.from, &mapping.zone),
                until: in_zone(scope.until, &mapping.zone),
                as_of: in_zone(scope.as_of, &mapping.zone),
                zone: mapping.layout.time.zone.clone(),
            },
            watermark: watermark
                .into_iter()
                .map(|(log, index)| Watermark { log, index })
                .collect(),
            rules: scope.rules,
            broken: tally.broken(&sums),
            tally,
            sums,
            findings: std::mem::take(&mut self.listed),
            findings_unlisted: self.unlisted,
            bad_lines: Vec::new(),
            bad_lines_unlisted: 0,
        }
    }
}

/// The case of a discrepancy: its id follows from what it is about, its facts from what would make it
/// another.
fn case_of(found: &Discrepancy, scope: &Scope) -> FoundCase {
    let kind = found.kind.as_str();
    let words = [scope.bank.as_str(), kind, &found.subject];
    let number = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let facts = [
        number(found.authorized),
        number(found.cleared),
        number(found.receipt),
        found.at_stake.minor().to_string(),
        found.at_stake.currency().to_string(),
    ];
    FoundCase {
        id: record_id("finding", &words.map(str::as_bytes)),
        kind: kind.to_owned(),
        bank: Some(scope.bank.clone()),
        transaction_id: found.transaction_id,
        shopper: found.shopper,
        subject: found.subject.clone(),
        detail: found.detail.clone(),
        amount: found.at_stake.minor(),
        currency: Some(found.at_stake.currency()),
        occurred_at: found.at,
        facts: facts.join("|"),
    }
}

fn finding_line(
    found: &Discrepancy,
    id: Uuid,
    standing: CaseStanding,
    scope: &Scope,
) -> FindingLine {
    let row = found.row.as_ref();
    let answer = row.map(|row| &row.answer);
    let at = row.and_then(|row| row.log);
    FindingLine {
        id,
        kind: found.kind,
        state: standing.state,
        owner: standing.owner,
        age: Age::of(found.at, scope.as_of),
        at: row.map_or(found.at, answered_at).to_string(),
        transaction_id: found.transaction_id,
        line: found.line,
        shopper: found.shopper,
        trip: answer.and_then(|answer| answer.trip),
        store: row.and_then(|row| row.store),
        rung: answer.map(|answer| answer.rung),
        why: answer.and_then(|answer| answer.why),
        log: at.map(|(log, _)| log),
        log_index: at.map(|(_, place)| place.index),
        log_slot: at.map(|(_, place)| place.slot),
        currency: found.at_stake.currency(),
        picked: row.and_then(|row| row.picked),
        cap: answer.and_then(|answer| answer.cap),
        authorized: found.authorized,
        cleared: found.cleared,
        receipt: found.receipt,
        at_stake: found.at_stake.minor(),
        detail: found.detail.clone(),
    }
}

/// Midnight of a moment's day in a zone, so many days on.
fn midnight(at: Timestamp, zone: &TimeZone, days: i64) -> Timestamp {
    let Ok(time) = jiff::Timestamp::from_millisecond(at.as_millis()) else {
        return at;
    };
    let day = zone.to_datetime(time).date();
    let day = day.checked_add(jiff::Span::new().days(days)).unwrap_or(day);
    let start = day.to_datetime(jiff::civil::Time::midnight());
    match zone.to_ambiguous_timestamp(start).compatible() {
        Ok(start) => Timestamp::from_millis(start.as_millisecond()),
        Err(_) => at,
    }
}

fn in_zone(at: Timestamp, zone: &TimeZone) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(
        |_| at.to_string(),
        |time| {
            let offset = zone.to_offset(time);
            time.display_with_offset(offset).to_string()
        },
    )
}

/// The places of files in the order in which they were opened.
fn order_of(files: &[ClearingFile]) -> BTreeMap<Uuid, usize> {
    files
        .iter()
        .enumerate()
        .map(|(place, file)| (file.id, place))
        .collect()
}
