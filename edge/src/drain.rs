//! The drain: copies what the log holds into the ledger, exactly once, in log order.
//!
//! One step books the outcomes of some batches as final rows and moves the cursor by
//! compare-and-set in the same transaction, so that a second drainer is harmless and a step whose
//! commit is unknown is simply tried again. The node that leads the log drains; the others look how
//! far it is. (An embedded ledger is each edge's own, and each edge drains into it.) A leader that came
//! by a snapshot may not have what is to be drained: where the cursor stands still though there is
//! something to book, the others do it. It yields to live traffic: after each step it rests (see
//! `drain/pace.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use standin_core::entry::{Advice, Booking, Entry, EntryError, LogPosition, Proposal, Reversal};
use standin_core::ledger::{
    BOOK_ROWS_MAX, Booked, BookedCounts, DrainStep, Ledger, LedgerError, ReversalRow, Rewording,
    SettlementRow,
};
use standin_core::register::{Register, WINDOW_MS};
use standin_wal::{Batch, ReadError, Stopped};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Alarms};
use crate::breaker;
use crate::log::{Log, soon};
use crate::metrics::{DrainResult, Metrics};
use crate::primary::Primary;

mod pace;

use self::pace::Pace;

/// Kept beyond the window.
const TRIM_MARGIN_MS: u64 = 10 * 60 * 1_000;
/// How often a node that has nothing to drain looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Batches after which a log whose budget is half spent hears of the cursor.
const TELL_SOON: u64 = 64;
/// So long may the cursor stand still before a node that does not lead drains.
const STANDS_MAX: Duration = Duration::from_secs(3);
/// So long may a leader's log not fit what is to be drained before an operator hears of it.
const MISSING_MAX: Duration = Duration::from_secs(15);

/// How the drain behaves.
#[derive(Clone, Copy, Debug)]
pub struct DrainConfig {
    /// Outcomes booked in one transaction, at most [`BOOK_ROWS_MAX`].
    pub rows_max: usize,
    /// Bytes of entries looked at in one step.
    pub step_bytes: usize,
    /// How long one step may take.
    pub step_max: Duration,
    /// Rest after a step that failed.
    pub retry_after: Duration,
    /// The ledger is rebuilt from the log at start.
    pub embedded: bool,
    /// How often segments that are drained and outside the window are given up.
    pub trim_every: Duration,
    /// The log hears of the cursor each time it has moved by so many batches.
    pub tell_every: u64,
}

/// How far the drain is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Batches up to here are in the ledger.
    pub cursor: AtomicU64,
    /// Rows booked by this process.
    pub finalized: AtomicU64,
    /// Rows that were booked before.
    pub already: AtomicU64,
    /// Rows that went to `conflicts`.
    pub conflicts: AtomicU64,
}

/// Drains one log.
pub struct Drain {
    /// What is drained.
    pub log: Arc<Log>,
    /// Into what.
    pub ledger: Arc<dyn Ledger>,
    /// Whether trying makes sense.
    pub primary: Arc<Primary>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Conflicts are alarmed.
    pub alarms: Arc<Alarms>,
    /// How it behaves.
    pub config: DrainConfig,
}

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The ledger did not take it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The log could not be read.
    #[error("reading the log: {0}")]
    Read(#[from] ReadError),
    /// The ledger is ahead of the log: this log is an old copy of itself.
    #[error("the cursor is at {cursor}, the log ends at {last}")]
    AheadOfLog {
        /// Where the ledger's cursor is.
        cursor: u64,
        /// The log's last batch.
        last: u64,
    },
    /// The register does not know a payment of the log any more: it cannot be booked.
    #[error("batch {index} holds a payment that was forgotten before it was drained")]
    Forgotten {
        /// Its batch.
        index: u64,
    },
    /// The group has not agreed on a name for its log yet.
    #[error("the log has no name yet")]
    NoName,
    /// The log has stopped.
    #[error(transparent)]
    Stopped(Stopped),
    /// The log holds an entry that this build cannot read.
    #[error("batch {index}: {source}")]
    Entry {
        /// Its batch.
        index: u64,
        /// Why.
        source: EntryError,
    },
}

/// An entry that a payment is answered by.
enum Paying {
    Authorize(Box<Proposal>),
    Advice(Box<Advice>),
}

/// What a node has to do with the drain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It leads, or the ledger is its own: it drains.
    Leads,
    /// Nobody has moved the cursor for long: it drains.
    StandsIn,
    /// It looks how far the drain is.
    Looks,
}

/// How far this node knows the drain to be.
struct Place {
    /// Where the cursor is, if this node moved it last.
    cursor: Option<u64>,
    /// What the log was told of it.
    told: u64,
    pace: Pace,
    seen: Seen,
    amiss: Amiss,
}

/// Since when the log here does not fit the ledger's cursor. A follower lags behind batches that the
/// leader has drained already, a leader that was deposed does not know it yet, and what is trimmed here
/// another may have: each is over by itself, and an operator need not hear of it.
#[derive(Debug, Default)]
struct Amiss {
    since: Option<Instant>,
}

/// Where the cursor was seen, and since when it stands there.
struct Seen {
    cursor: u64,
    since: Instant,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            rows_max: BOOK_ROWS_MAX,
            step_bytes: 512 * 1024,
            step_max: Duration::from_secs(5),
            retry_after: Duration::from_millis(250),
            embedded: false,
            trim_every: Duration::from_secs(10 * 60),
            tell_every: 20_000,
        }
    }
}

// === impl Amiss ===

impl Amiss {
    /// It is so once more; whether that has lasted too long on a leader.
    fn lasts(&mut self, role: Role, now: Instant) -> bool {
        if role != Role::Leads {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= MISSING_MAX
    }
}

// === impl Seen ===

impl Seen {
    fn at(cursor: u64) -> Self {
        Self {
            cursor,
            since: Instant::now(),
        }
    }

    fn see(&mut self, cursor: u64) {
        if cursor != self.cursor {
            *self = Self::at(cursor);
        }
    }

    fn stands(&self) -> bool {
        self.since.elapsed() >= STANDS_MAX
    }
}

// === impl Paying ===

impl Paying {
    fn proposal(&self) -> &Proposal {
        match self {
            Self::Authorize(proposal) => proposal,
            Self::Advice(advice) => &advice.proposal,
        }
    }

    fn into_proposal(self) -> Proposal {
        match self {
            Self::Authorize(proposal) => *proposal,
            Self::Advice(advice) => advice.proposal,
        }
    }

    /// The words of an advice, where they are the payment's now.
    fn rewording(self, register: &Register, at: LogPosition) -> Option<Rewording> {
        match self {
            Self::Advice(advice) if register.is_reworded(&advice, at) => Some(Rewording {
                answer: advice.answer,
                at,
            }),
            Self::Authorize(_) | Self::Advice(_) => None,
        }
    }
}

// === impl Drain ===

impl Drain {
    /// Drains until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut place = Place {
            cursor: None,
            told: 0,
            pace: Pace::default(),
            seen: Seen::at(0),
            amiss: Amiss::default(),
        };
        let mut trimmed_at = Instant::now();
        loop {
            let began = Instant::now();
            let role = self.role(&place.seen);
            let turned = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                turned = self.turn(role, &mut place) => turned,
            };
            if turned.is_ok() {
                place.amiss = Amiss::default();
            }
            let rest = match (turned, role) {
                (Ok(now_at), Role::Leads) => {
                    place.seen.see(now_at);
                    place.cursor = Some(now_at);
                    place.told = self.tell(place.told, now_at).await;
                    place.pace.rest(began.elapsed(), self.left())
                }
                (Ok(now_at), _) => {
                    let left = self.log.status().applied_index > now_at;
                    match role {
                        // It stays this node's until somebody else moves it.
                        Role::StandsIn if left => {
                            place.seen.cursor = now_at;
                            place.pace.rest(began.elapsed(), self.left())
                        }
                        _ if left => LOOK_AGAIN,
                        _ => {
                            place.seen = Seen::at(now_at);
                            LOOK_AGAIN
                        }
                    }
                }
                (Err(error), _) => self.failed(&error, role, &mut place),
            };
            if trimmed_at.elapsed() >= self.config.trim_every {
                trimmed_at = Instant::now();
                self.trim().await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn role(&self, seen: &Seen) -> Role {
        if self.config.embedded || self.log.leads() {
            Role::Leads
        } else if seen.stands() {
            Role::StandsIn
        } else {
            Role::Looks
        }
    }

    /// One step, or one look; says where the cursor is now.
    async fn turn(&self, role: Role, place: &mut Place) -> Result<u64, DrainError> {
        let from = match place.cursor.take().filter(|_| role == Role::Leads) {
            Some(cursor) => cursor,
            None => self.find_cursor().await?,
        };
        place.seen.see(from);
        let drains = match role {
            Role::Leads => true,
            // Somebody else may have moved it.
            Role::StandsIn => place.seen.stands(),
            Role::Looks => false,
        };
        if !drains {
            return Ok(from);
        }
        let next = self.log.wait_for(from.saturating_add(1));
        // Who leads may change while there is nothing to drain.
        match tokio::time::timeout(LOOK_AGAIN, next).await {
            Ok(there) => there.map_err(DrainError::Stopped)?,
            // A primary that failed over may have lost what was drained last.
            Err(_nothing) => return self.find_cursor().await,
        }
        self.step(from, place.pace.bytes(self.config.step_bytes))
            .await
    }

    /// How long to rest after a turn that failed.
    fn failed(&self, error: &DrainError, role: Role, place: &mut Place) -> Duration {
        let amiss = matches!(
            error,
            DrainError::Read(ReadError::Trimmed { .. }) | DrainError::AheadOfLog { .. }
        );
        if !amiss || place.amiss.lasts(role, Instant::now()) {
            self.complain(error);
        }
        if role != Role::Leads {
            place.seen = Seen::at(place.seen.cursor);
        }
        self.config.retry_after
    }

    /// A ledger that is away is the breaker's news; everything else needs an operator.
    fn complain(&self, error: &DrainError) {
        match error {
            DrainError::Ledger(_) | DrainError::Stopped(_) | DrainError::NoName => {
                tracing::debug!(%error, "drain waits")
            }
            DrainError::AheadOfLog { .. }
            | DrainError::Forgotten { .. }
            | DrainError::Read(_)
            | DrainError::Entry { .. } => {
                self.alarms.raise(Alarm::DrainStuck, error.to_string());
            }
        }
    }

    fn left(&self) -> u64 {
        Self::backlog(&self.log, &self.progress)
    }

    /// Batches that are not in the ledger yet.
    pub fn backlog(log: &Log, progress: &Progress) -> u64 {
        log.status()
            .last_index
            .saturating_sub(progress.cursor.load(Ordering::Relaxed))
    }

    async fn find_cursor(&self) -> Result<u64, DrainError> {
        if let breaker::Position::Open(why) = self.primary.position() {
            let detail = format!("the breaker is open: {why}");
            return Err(LedgerError {
                why,
                ..LedgerError::unreachable(detail)
            }
            .into());
        }
        let log = self.log.incarnation().ok_or(DrainError::NoName)?;
        let cursor = within(self.config.step_max, self.ledger.cursor(log)).await?;
        let last = self.log.status().last_index;
        if cursor > last {
            return Err(DrainError::AheadOfLog { cursor, last });
        }
        self.progress.cursor.store(cursor, Ordering::Relaxed);
        Ok(cursor)
    }

    /// Books what follows `from`, of so many bytes; says where the cursor is now.
    async fn step(&self, from: u64, bytes: usize) -> Result<u64, DrainError> {
        let log = self.log.incarnation().ok_or(DrainError::NoName)?;
        let next = from.saturating_add(1);
        let batches = self.log.read_batches(next, bytes).await?;
        let empty = DrainStep {
            log,
            from,
            to: from,
            ..DrainStep::default()
        };
        let step = self.collect(empty, &batches)?;
        let to = step.to;
        if to == from {
            return Ok(from);
        }
        let cursor = match within(self.config.step_max, self.ledger.book(step)).await? {
            Booked::Moved(counts) => {
                self.count(counts);
                to
            }
            Booked::Raced { cursor } => cursor,
        };
        self.progress.cursor.store(cursor, Ordering::Relaxed);
        self.metrics.drain_backlog(self.left());
        Ok(cursor)
    }

    /// Collects whole batches while they fit one transaction of the ledger.
    fn collect(&self, mut step: DrainStep, batches: &[Batch]) -> Result<DrainStep, DrainError> {
        for batch in batches {
            let room = self.config.rows_max.saturating_sub(step.rows());
            if batch.proposals.len() > room && step.to > step.from {
                break;
            }
            self.gather(batch, &mut step)?;
            step.to = batch.index;
        }
        Ok(step)
    }

    fn gather(&self, batch: &Batch, step: &mut DrainStep) -> Result<(), DrainError> {
        let index = batch.index;
        let mut payments: Vec<(LogPosition, Paying)> = Vec::new();
        let mut reversals: Vec<Reversal> = Vec::new();
        for (slot, bytes) in (0_u32..).zip(&batch.proposals) {
            match Entry::decode(bytes).map_err(|source| DrainError::Entry { index, source })? {
                Entry::Authorize(proposal) => {
                    payments.push((LogPosition { index, slot }, Paying::Authorize(proposal)));
                }
                Entry::Advice(advice) => {
                    payments.push((LogPosition { index, slot }, Paying::Advice(advice)));
                }
                Entry::Reverse(reversal) => reversals.push(reversal),
                Entry::Settled(settlement) => step.settlements.push(SettlementRow {
                    settlement: *settlement,
                    at: LogPosition { index, slot },
                }),
                Entry::Operator(action) => step.actions.push(action),
                Entry::TripClosed(_)
                | Entry::OutageStarted { .. }
                | Entry::OutageEnded { .. }
                | Entry::Tombstone(_)
                | Entry::Drained(_)
                | Entry::Faulted(_)
                | Entry::Platform(_)
                | Entry::Late(_)
                | Entry::Heard(_)
                | Entry::Told(_)
                | Entry::Grant(_)
                | Entry::Founded(_)
                | Entry::LedgerEpoch(_) => {}
            }
        }
        self.log.read(|register| {
            let rows = reversals
                .iter()
                .filter_map(|one| ReversalRow::of(register, one, batch.log_time_ms));
            step.reversals.extend(rows);
            for (at, entry) in payments {
                let id = entry.proposal().transaction_id;
                match register.answer_at(id, at) {
                    Some(answer) => step.outcomes.push(Booking {
                        answer,
                        proposal: entry.into_proposal(),
                        at,
                        log_time_ms: batch.log_time_ms,
                    }),
                    // An entry that met an earlier answer has none of its own to book, but may have had
                    // its words put in the place of the earlier ones.
                    None if register.knows(id) => {
                        step.rewordings.extend(entry.rewording(register, at));
                    }
                    None => return Err(DrainError::Forgotten { index }),
                }
            }
            Ok(())
        })
    }

    fn count(&self, counts: BookedCounts) {
        self.metrics
            .drained(DrainResult::Finalized, counts.finalized);
        self.metrics.drained(DrainResult::Already, counts.already);
        self.metrics
            .drained(DrainResult::Conflict, counts.conflicts);
        self.progress
            .finalized
            .fetch_add(counts.finalized, Ordering::Relaxed);
        self.progress
            .already
            .fetch_add(counts.already, Ordering::Relaxed);
        if counts.conflicts > 0 {
            self.progress
                .conflicts
                .fetch_add(counts.conflicts, Ordering::Relaxed);
            self.alarms.raise(
                Alarm::Conflict,
                "outcomes met other rows in the ledger: see `conflicts`",
            );
        }
    }

    /// Gives up what lies below the drained batch that the log has heard of, and outside the window.
    /// Every node does so by itself. Never in embedded mode, and never while the primary is away: a
    /// snapshot holds no entries, so it may be ahead of the ledger by what is under way, not more.
    async fn trim(&self) {
        let away = self.primary.position() != breaker::Position::Closed
            || self.log.read(|register| register.outage().is_some());
        // A snapshot stalls the leader's answers while the register is copied, a follower's nobody's: a
        // leader puts it off while its log has room.
        let status = self.log.status();
        let has_room = status.bytes_used < status.budget_bytes.div_euclid(2);
        if self.config.embedded || away || (self.log.leads() && has_room) {
            return;
        }
        let drained = self.log.read(Register::drained);
        match self.first_inside_window(drained).await {
            Ok(index) => {
                if let Err(error) = self.log.compact(index).await {
                    tracing::warn!(%error, index, "the log is not trimmed");
                }
            }
            Err(error) => tracing::warn!(%error, "the log is not trimmed"),
        }
    }

    /// The first batch up to `end` that is younger than the window; by halving, since log time grows.
    async fn first_inside_window(&self, end: u64) -> Result<u64, ReadError> {
        let status = self.log.status();
        let horizon = status
            .log_time_ms
            .saturating_sub(WINDOW_MS.saturating_add(TRIM_MARGIN_MS));
        let (mut low, mut high) = (status.first_index, end);
        while low < high {
            let middle = low.midpoint(high);
            let batches = self.log.read_batches(middle, 1).await?;
            match batches.first() {
                Some(batch) if batch.log_time_ms < horizon => low = middle.saturating_add(1),
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// A log that runs full must hear sooner what it may give up; not of each batch, each word of it is
    /// a batch.
    fn must_tell_soon(&self, moved: u64) -> bool {
        moved >= TELL_SOON && {
            let status = self.log.status();
            status.bytes_used > status.budget_bytes.div_euclid(2)
        }
    }

    /// Tells the log now and then how far it was drained, as the ledger says it again after a commit
    /// that is durable, so that answers may be forgotten and entries given up. Never in embedded mode:
    /// there the ledger is rebuilt from the log, all of it.
    async fn tell(&self, told: u64, cursor: u64) -> u64 {
        let moved = cursor.saturating_sub(told);
        if self.config.embedded || !(moved >= self.config.tell_every || self.must_tell_soon(moved))
        {
            return told;
        }
        let Some(log) = self.log.incarnation() else {
            return told;
        };
        let confirming = async {
            within(self.config.step_max, self.ledger.probe()).await?;
            within(self.config.step_max, self.ledger.cursor(log)).await
        };
        let confirmed = match confirming.await {
            Ok(confirmed) => confirmed.min(cursor),
            Err(error) => {
                tracing::debug!(%error, "the cursor was not confirmed");
                return told;
            }
        };
        let by = soon(self.config.step_max);
        match self.log.tell_drained(confirmed, by).await {
            Ok(()) => confirmed,
            Err(error) => {
                tracing::debug!(%error, "the log has not heard of the cursor");
                told
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(LedgerError::timeout("the drain's step took too long")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_does_not_fit_is_an_operators_business_when_a_leader_has_it_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut amiss = Amiss::default();
        for second in 0..60 {
            assert!(!amiss.lasts(Role::Looks, at(second)), "a follower lags");
            assert!(!amiss.lasts(Role::StandsIn, at(second)));
        }
        // From the moment it leads.
        assert!(!amiss.lasts(Role::Leads, at(60)));
        assert!(!amiss.lasts(Role::Leads, at(74)));
        assert!(amiss.lasts(Role::Leads, at(75)));
        // It was well in between, or another led.
        amiss = Amiss::default();
        assert!(!amiss.lasts(Role::Leads, at(80)));
        assert!(!amiss.lasts(Role::Looks, at(90)));
        assert!(!amiss.lasts(Role::Leads, at(96)));
    }
}
