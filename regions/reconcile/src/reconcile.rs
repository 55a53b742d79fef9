//! The reconciliation job: makes sure that every log is drained, releases holds that never got an
//! outcome, then matches every outcome with the ledger and says what does not fit.
//!
//! It reads each log once, as it is when the run begins; what a running edge writes meanwhile is the
//! next run's. It repairs two things only: it books what was not yet drained, and it releases a hold
//! when a tombstone came first for it in every log. Everything else is a finding for somebody.

pub mod cases;
mod holds;
pub mod kept;
mod matching;
mod outages;
mod sums;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use standin_core::BoxFuture;
use standin_core::answer::Answer;
use standin_core::clock::Clock;
use standin_core::entry::LogPosition;
use standin_core::id::TransactionId;
use standin_core::ledger::{
    AuthorizationRow, ConflictRow, FindingRow, Ledger, LedgerError, ReconcileRun,
};

use crate::drain::{self, DrainError};
use crate::log::source::{LogSource, SourceError, contents};
use crate::log::{LogContents, LogRecord};
use crate::report::reconciliation::{Exposure, Finding, HoldFigures, Reconciliation, Variance};
use crate::totals::{Line, Totals, is_final};

/// Most conflicts read from the ledger.
pub const CONFLICTS_MAX: u32 = 100_000;
/// Rows asked for at once.
const PAGE_ROWS: u32 = 1_000;

/// What a run works on.
#[derive(Clone)]
pub struct Inputs {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Every region's log.
    pub logs: Vec<Arc<dyn LogSource>>,
    /// Where tombstones go; without it, stale holds are findings.
    pub tombstones: Option<Arc<dyn Tombstones>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// How a run works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The run's id in the ledger.
    pub run: Uuid,
    /// A hold older than this will get no outcome by itself. Longer than any proposal can take.
    pub stale_after: Duration,
    /// An outcome that was committed later than this after its request was read is late.
    pub answer_deadline: Duration,
    /// For each call to the ledger or for tombstones.
    pub call_deadline: Duration,
}

/// Proposes tombstones to every region's log.
pub trait Tombstones: Send + Sync {
    /// Places a tombstone for each payment, in the order given, and says what came of it once it
    /// is committed in every log.
    fn place(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<Vec<Placed>, TombstoneError>>;
}

/// What came of a tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// It is the first entry of its payment in every log: the payment is never answered.
    First,
    /// A log had answered the payment before.
    Answered,
}

/// Tombstones could not be placed; some may have been, which is harmless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tombstones: {detail}")]
pub struct TombstoneError {
    /// What went wrong; holds no payment data.
    pub detail: String,
}

/// Why a run could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A log could not be read.
    #[error(transparent)]
    Log(#[from] SourceError),
    /// A log could not be drained.
    #[error("draining: {0}")]
    Drain(#[from] DrainError),
    /// A call to the ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The report does not become JSON.
    #[error("report: {0}")]
    Report(#[from] serde_json::Error),
    /// One log was given twice.
    #[error("log {0} was given twice")]
    Twice(Uuid),
}

/// A run's facts, read once and then only compared.
struct Facts {
    logs: Vec<LogContents>,
    rows: HashMap<TransactionId, AuthorizationRow>,
    conflicts: Vec<ConflictRow>,
    /// Places of outcomes that are in `conflicts`.
    conflicting: HashSet<(Uuid, LogPosition)>,
    /// The words that advices put in the place of a log's own, by log and payment.
    reworded: HashMap<(Uuid, TransactionId), Vec<Answer>>,
}

/// Runs once, and keeps the run in the ledger.
///
/// # Errors
/// When it could not run to its end; nothing it did until then needs to be undone.
pub async fn run(inputs: &Inputs, options: Options) -> Result<Reconciliation, RunError> {
    let started_at = inputs.clock.now();
    let ledger = inputs.ledger.as_ref();
    let logs = read_logs(&inputs.logs).await?;
    let mut drains = Vec::new();
    for log in &logs {
        drains.push(drain::drain(ledger, log, options.call_deadline).await?);
    }
    let mut report = empty(started_at.to_string());
    holds::release_stale(inputs, options, started_at, &mut report).await?;
    let facts = Facts::read(ledger, logs, options.call_deadline).await?;
    let finals = || facts.rows.values().filter(|row| is_final(row));
    report.totals = Totals::of_rows(finals());
    matching::match_all(&facts, &drains, &mut report);
    outages::prove(&facts, &mut report);
    holds::count_open(&facts, &mut report.holds);
    report.late = sums::late(&facts, options.answer_deadline);
    report.variance = sums::variance(finals());
    report.exposure = sums::exposure(&facts, finals());
    sums::judge(&facts, &mut report);
    let ended_at = inputs.clock.now();
    report.ended_at = ended_at.to_string();
    let kept = ReconcileRun {
        id: options.run,
        started_at,
        ended_at,
        report: serde_json::to_value(&report)?,
        findings: report.findings.iter().map(to_row).collect(),
    };
    within(options.call_deadline, ledger.record_run(kept)).await?;
    Ok(report)
}

/// Every authorization of the ledger, in pages. The ledger's own bound is the bound.
///
/// # Errors
/// When a page cannot be read; `deadline` is for each.
pub async fn all_rows(
    ledger: &dyn Ledger,
    deadline: Duration,
) -> Result<Vec<AuthorizationRow>, LedgerError> {
    let mut rows: Vec<AuthorizationRow> = Vec::new();
    loop {
        let after = rows
            .last()
            .map(|row| (row.answer.shopper, row.answer.transaction_id));
        let page = within(deadline, ledger.authorizations(after, PAGE_ROWS)).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

/// Waits for a call to the ledger until its deadline.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    tokio::time::timeout(deadline, call)
        .await
        .unwrap_or_else(|_| Err(LedgerError::timeout("the call's deadline passed")))
}

fn reworded(logs: &[LogContents]) -> HashMap<(Uuid, TransactionId), Vec<Answer>> {
    let mut reworded: HashMap<_, Vec<Answer>> = HashMap::new();
    for log in logs {
        for rewording in log.records.iter().filter_map(LogRecord::rewording) {
            let key = (log.incarnation, rewording.answer.transaction_id);
            reworded.entry(key).or_default().push(rewording.answer);
        }
    }
    reworded
}

async fn read_logs(sources: &[Arc<dyn LogSource>]) -> Result<Vec<LogContents>, RunError> {
    let mut logs: Vec<LogContents> = Vec::new();
    for source in sources {
        let log = contents(source.as_ref()).await?;
        if logs
            .iter()
            .any(|other| other.incarnation == log.incarnation)
        {
            return Err(RunError::Twice(log.incarnation));
        }
        logs.push(log);
    }
    Ok(logs)
}

fn empty(started_at: String) -> Reconciliation {
    Reconciliation {
        ended_at: started_at.clone(),
        started_at,
        totals: Totals::default(),
        logs: Vec::new(),
        outages: Vec::new(),
        holds: HoldFigures::default(),
        late: Line::default(),
        elsewhere: 0,
        variance: Variance::default(),
        exposure: Exposure::default(),
        findings: Vec::new(),
        findings_unlisted: 0,
    }
}

fn to_row(finding: &Finding) -> FindingRow {
    FindingRow {
        kind: finding.kind.as_str().to_owned(),
        transaction_id: finding.transaction_id,
        detail: finding.detail.clone(),
        amount: finding.amount_minor,
        currency: finding.currency,
        bank: finding.bank.clone(),
    }
}

// === impl Facts ===

impl Facts {
    async fn read(
        ledger: &dyn Ledger,
        logs: Vec<LogContents>,
        deadline: Duration,
    ) -> Result<Self, LedgerError> {
        let rows = all_rows(ledger, deadline).await?;
        let conflicts = within(deadline, ledger.conflicts(CONFLICTS_MAX)).await?;
        Ok(Self {
            reworded: reworded(&logs),
            logs,
            rows: rows
                .into_iter()
                .map(|row| (row.answer.transaction_id, row))
                .collect(),
            conflicting: conflicts.iter().map(|row| (row.log, row.at)).collect(),
            conflicts,
        })
    }
}

// === impl Options ===

impl Options {
    /// The usual times, for a run with this id.
    pub const fn new(run: Uuid) -> Self {
        Self {
            run,
            stale_after: Duration::from_secs(120),
            answer_deadline: Duration::from_millis(1_000),
            call_deadline: Duration::from_secs(30),
        }
    }
}
