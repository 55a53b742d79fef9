//! The register: what a region's log has made of every payment.
//!
//! It is the state machine under the log: [`Register::apply`] is deterministic and total (no clock,
//! no I/O, no float, no iteration in hash order), and it alone says what the final answer is:
//!
//! - the first entry of a transaction id wins; a later one gets the same answer, or, if it says
//!   something else, [`Outcome::OtherFingerprint`];
//! - an approval stands only if the trip's approvals (the log's and those the entry saw) fit the
//!   cap of the trip's highest version, the trip is not closed, and the limits the entry names
//!   hold; otherwise it becomes a decline;
//! - an advice, which was given already, always stands (`corrections`).
//!
//! What was approved while standing in counts by hour and by outage; an outage that comes back within
//! an hour goes on counting, so that a flapping primary does not renew the limits.
//!
//! Answers are kept for the idempotency window (24 h of log time) and at least until they are
//! drained. Memory is bounded by [`RegisterConfig::answers_max`]: past it the register says it is
//! full ([`Register::is_full`]) and the edge refuses new payments rather than forget one.

mod authorize;
mod corrections;
mod payments;
mod saved;
mod tally;
#[cfg(test)]
mod tests;
mod trips;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::answer::{Answer, Why};
use crate::decide::{StandInUse, Tally};
use crate::entry::{Advice, Entry, LogPosition, OperatorOrder, PlatformEvent, StandInMode};
use crate::id::{BankId, Fingerprint, ShopperId, TransactionId, TripId};
use crate::planted::{Planted, planted};
use crate::trip::{Approval, TripChange, TripEvent};

pub use self::authorize::{fits_floor, fits_stand_in};
use self::corrections::Corrections;
pub use self::corrections::{Conflict, Granted};
use self::payments::{Flag, Payments, Record};
pub use self::saved::LoadError;
use self::tally::StandInTallies;
use self::trips::Trips;

/// How long a payment's answer is replayed, in log time.
pub const WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Without standing in for so long, in log time, what counts by outage starts from nothing again.
/// An outage that comes back sooner (a flapping primary, an edge that restarts) goes on counting.
pub const OUTAGE_FORGOTTEN_MS: u64 = 60 * 60 * 1_000;
/// Outages kept for the status page and the drain proof.
const OUTAGES_MAX: usize = 64;

/// Sizes of a register.
#[derive(Clone, Copy, Debug)]
pub struct RegisterConfig {
    /// Most answers held; about 470 bytes each, their trips included (measured by
    /// `cargo run --release -p standin-core --example register_memory`).
    pub answers_max: usize,
}

/// What a region's log has made of every payment.
#[derive(Clone, Debug)]
pub struct Register {
    config: RegisterConfig,
    payments: Payments,
    trips: Trips,
    tallies: StandInTallies,
    corrections: Corrections,
    outages: VecDeque<Outage>,
    /// The edges that have lost the primary.
    cut_off: BTreeMap<u64, Why>,
    mode: StandInMode,
    /// When that order ends, in log time, if it was given for a time.
    mode_until_ms: Option<u64>,
    /// What the edges may approve while they are cut off.
    grants: BTreeMap<u64, Granted>,
    /// The log's name for the ledger.
    incarnation: Option<Uuid>,
    ledger_epoch: u64,
    /// Everything up to this batch is in the ledger.
    drained: u64,
    log_time_ms: u64,
    counts: Counts,
}

/// One outage of the primary, in log time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outage {
    /// Log index at which it was agreed.
    pub from_index: u64,
    /// Log time at which it was agreed.
    pub from_ms: u64,
    /// Its first cause.
    pub why: Why,
    /// Log index and time of its end.
    pub until: Option<(u64, u64)>,
}

/// Running totals since the log began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Payments answered.
    pub answered: u64,
    /// Of them approved.
    pub approved: u64,
    /// Entries that met an answer given before.
    pub repeated: u64,
    /// Approvals that became declines when applied.
    pub turned: u64,
    /// Minor units approved on `stand_in` and `isolated` in the present outage.
    pub exposed_minor: i64,
    /// Answers given without the log that it took afterwards.
    pub advised: u64,
    /// Of them approvals beyond what the trip allowed.
    pub advised_over: u64,
    /// Advices that met another answer.
    pub conflicts: u64,
    /// Payments that an edge marked late.
    pub late: u64,
    /// Late approvals that were given back.
    pub released: u64,
    /// Reversals applied, those included.
    pub reversed: u64,
}

/// What applying an entry came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The payment's answer is this one, now.
    Answered(Box<Answer>),
    /// The payment's answer was given before: this one.
    Known(Recalled),
    /// The payment's id belongs to a request that said something else.
    OtherFingerprint,
    /// The payment's hold was released: it is never answered.
    Tombstoned,
    /// So much came back to the trip, minor units.
    Reversed(i64),
    /// Applied; there is nothing to answer.
    Noted,
}

/// A payment's stored answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recalled {
    /// The answer committed.
    pub answer: Box<Answer>,
    /// We failed after the commit: what replays is a 500, until an operator clears it.
    pub faulted: bool,
    /// The edge whose entry it was: another edge that tells it has the log hear of that first
    /// ([`Entry::Heard`]), unless it has.
    pub edge: u64,
    /// The log has heard that the bank was told again.
    pub heard: bool,
}

/// What the applied state knows of a transaction id.
#[derive(Clone, PartialEq, Debug)]
pub enum Recall {
    /// Nothing.
    Unknown,
    /// Its answer.
    Known(Recalled),
    /// It belongs to a request that said something else.
    OtherFingerprint,
    /// It is never answered.
    Tombstoned,
}

// === impl Register ===

impl Register {
    /// An empty register.
    pub fn new(config: RegisterConfig) -> Self {
        Self {
            config,
            payments: Payments::default(),
            trips: Trips::default(),
            tallies: StandInTallies::default(),
            corrections: Corrections::default(),
            outages: VecDeque::new(),
            cut_off: BTreeMap::new(),
            mode: StandInMode::Auto,
            mode_until_ms: None,
            grants: BTreeMap::new(),
            incarnation: None,
            ledger_epoch: 0,
            drained: 0,
            log_time_ms: 0,
            counts: Counts::default(),
        }
    }

    /// Applies one entry, in log order.
    pub fn apply(&mut self, at: LogPosition, log_time_ms: u64, entry: &Entry) -> Outcome {
        self.log_time_ms = log_time_ms;
        self.forget();
        match entry {
            Entry::Authorize(proposal) => return self.authorize(at, proposal),
            Entry::Tombstone(id) => return self.tombstone(at, *id),
            Entry::Advice(advice) => return self.advise(at, advice),
            Entry::Reverse(reversal) => return self.reverse(at, reversal),
            Entry::Heard(id) => return self.hear_again(*id),
            Entry::Operator(action) => match &action.what {
                OperatorOrder::Tombstone(id) => return self.tombstone(at, *id),
                OperatorOrder::StandIn(mode) => self.set_mode(*mode, None),
                OperatorOrder::StandInFor { mode, for_ms } => {
                    let until = self.log_time_ms.saturating_add(*for_ms);
                    self.set_mode(*mode, Some(until));
                }
                OperatorOrder::StandInOver { until_ms } => {
                    if self.mode_until_ms == Some(*until_ms) {
                        self.set_mode(StandInMode::Auto, None);
                    }
                }
                OperatorOrder::ClearAnswer(id) => {
                    self.payments.set(*id, Flag::Faulted, false);
                }
                OperatorOrder::AddKeeper { .. }
                | OperatorOrder::RemoveKeeper { .. }
                | OperatorOrder::Policy { .. } => {}
            },
            Entry::Late(mark) => self.mark_late(mark),
            Entry::Told(id) => self.told(at, *id),
            Entry::TripClosed(trip) => self.trips.close(*trip, self.log_time_ms),
            Entry::OutageStarted { edge, why } => self.start_outage(at, *edge, *why),
            Entry::OutageEnded { edge } => self.end_outage(at, *edge),
            Entry::Drained(index) => self.drained = self.drained.max(*index),
            Entry::Faulted(id) => {
                self.payments.set(*id, Flag::Faulted, true);
            }
            Entry::Platform(event) => self.hear(event),
            Entry::Grant(grant) => {
                self.grants.insert(grant.edge, Granted::from(grant));
            }
            Entry::Founded(incarnation) => {
                self.incarnation.get_or_insert(*incarnation);
            }
            // The ledger's business.
            Entry::Settled(_) => {}
            Entry::LedgerEpoch(epoch) => self.ledger_epoch = self.ledger_epoch.max(*epoch),
        }
        Outcome::Noted
    }

    /// What is known of a payment.
    pub fn recall(&self, id: TransactionId, fingerprint: &Fingerprint) -> Recall {
        let Some(record) = self.payments.get(id) else {
            return Recall::Unknown;
        };
        if record.is(Flag::Released) {
            return Recall::Tombstoned;
        }
        match record.answer() {
            None => Recall::Tombstoned,
            Some(answer) if answer.fingerprint != *fingerprint => Recall::OtherFingerprint,
            Some(answer) => Recall::Known(recalled(record, answer)),
        }
    }

    /// The answer that the entry at `at` gave its payment: what the drain books. `None` when an
    /// earlier entry had answered it.
    pub fn answer_at(&self, id: TransactionId, at: LogPosition) -> Option<Answer> {
        if let Some(superseded) = self.corrections.superseded(id, at) {
            return Some(superseded.clone());
        }
        let record = self.payments.get(id).filter(|record| record.at == at)?;
        record.answer()
    }

    /// Whether the advice at `at` has put its words in the place of those that an earlier entry gave its
    /// payment: the bank holds the advice's bytes, and the ledger says them, too.
    pub fn is_reworded(&self, advice: &Advice, at: LogPosition) -> bool {
        let record = self.payments.get(advice.answer.transaction_id);
        record.is_some_and(|record| {
            record.at < at
                && record
                    .answer()
                    .is_some_and(|stored| stored == advice.answer)
        })
    }

    /// A payment's stored answer, whoever asks; `None` of a tombstone.
    pub fn answer(&self, id: TransactionId) -> Option<Answer> {
        self.payments.get(id)?.answer()
    }

    /// What a reversal took back, minor units; `None` when it took nothing from an approval.
    pub fn reversal(&self, payment: TransactionId, reversal: Uuid) -> Option<i64> {
        let answer = self.payments.get(payment)?.answer()?;
        self.trips.get(answer.trip?)?.reversal(payment, reversal)
    }

    /// Whether what replays for a payment is a stored 500.
    pub fn is_faulted(&self, id: TransactionId) -> bool {
        self.payments
            .get(id)
            .is_some_and(|record| record.is(Flag::Faulted))
    }

    /// How many payments a stored 500 replays for.
    pub fn faulted(&self) -> u64 {
        self.payments.faulted()
    }

    /// What is spent of the reserve for trips that are too old.
    pub fn reserve_used(&self) -> Tally {
        self.tallies.reserve()
    }

    /// Whether a payment's answer is known, whatever it was.
    pub fn knows(&self, id: TransactionId) -> bool {
        self.payments.get(id).is_some()
    }

    /// The latest trip that the log knows of a shopper.
    pub fn latest_trip(&self, shopper: ShopperId) -> Option<TripId> {
        self.trips.latest(shopper)
    }

    /// The latest trip that the log knows of a shopper, if it has not heard of its close.
    pub fn open_trip(&self, shopper: ShopperId) -> Option<TripId> {
        let latest = self.latest_trip(shopper)?;
        let closed = self.trips.get(latest).is_none_or(|trip| trip.closed);
        if closed { None } else { Some(latest) }
    }

    /// Whether the log has heard that a trip takes no more approvals.
    pub fn is_closed(&self, trip: TripId) -> bool {
        self.trips.get(trip).is_some_and(|trip| trip.closed)
    }

    /// Every approval of a trip that the log knows, by transaction id, after reversals.
    pub fn approvals(&self, trip: TripId) -> Vec<Approval> {
        let trip = self.trips.get(trip);
        trip.map(trips::TripRecord::approvals).unwrap_or_default()
    }

    /// What was approved while standing in, for the rules to look at before they propose.
    pub fn stand_in_use(&self, shopper: ShopperId, bank: &BankId) -> StandInUse {
        let mut used = self.tallies.of(shopper, bank, self.log_time_ms);
        used.outage_age_ms = self
            .outage()
            .map(|outage| self.log_time_ms.saturating_sub(outage.from_ms));
        used
    }

    /// The outage that is on.
    pub fn outage(&self) -> Option<&Outage> {
        self.outages.back().filter(|outage| outage.until.is_none())
    }

    /// Why an edge has lost the primary, as the log knows it.
    pub fn cut_off(&self, edge: u64) -> Option<Why> {
        self.cut_off.get(&edge).copied()
    }

    /// Every edge that has lost the primary, as the log knows it.
    pub fn edges_cut_off(&self) -> Vec<u64> {
        self.cut_off.keys().copied().collect()
    }

    /// Recent outages, oldest first.
    pub fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.outages.iter()
    }

    /// What operators have ordered last.
    pub fn mode(&self) -> StandInMode {
        self.mode
    }

    /// When that order ends, in log time. It ends by an entry, which somebody has to propose: no time
    /// passes here between two entries.
    pub fn mode_until_ms(&self) -> Option<u64> {
        self.mode_until_ms
    }

    fn set_mode(&mut self, mode: StandInMode, until_ms: Option<u64>) {
        (self.mode, self.mode_until_ms) = (mode, until_ms);
    }

    /// The name of this log in the ledger, once the group has agreed on it.
    pub fn incarnation(&self) -> Option<Uuid> {
        self.incarnation
    }

    /// The highest epoch of the ledger that an edge has met; 0 before the first.
    pub fn ledger_epoch(&self) -> u64 {
        self.ledger_epoch
    }

    /// Everything up to this batch is in the ledger, as the log has heard.
    pub fn drained(&self) -> u64 {
        self.drained
    }

    /// Running totals.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many answers are held.
    pub fn len(&self) -> usize {
        self.payments.len()
    }

    /// Whether no answer is held.
    pub fn is_empty(&self) -> bool {
        self.payments.len() == 0
    }

    /// Whether the declared size is reached: nothing new may be proposed.
    pub fn is_full(&self) -> bool {
        self.payments.len() >= self.config.answers_max
    }

    /// Log time of the last entry applied.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// Embedded mode: what the platform did to a trip is in the same log.
    fn hear(&mut self, event: &PlatformEvent) {
        match event {
            PlatformEvent::TripChanged(TripEvent {
                trip,
                what: TripChange::Finish,
                ..
            })
            | PlatformEvent::TripCompleted { trip, .. } => {
                self.trips.close(*trip, self.log_time_ms)
            }
            PlatformEvent::TripChanged(_)
            | PlatformEvent::StorePut(_)
            | PlatformEvent::CardSet { .. }
            | PlatformEvent::OrderPlaced(_)
            | PlatformEvent::OrderClaimed { .. }
            | PlatformEvent::TripStarted { .. }
            | PlatformEvent::MerchantIdPut(_)
            | PlatformEvent::MerchantIdRemoved(_) => {}
        }
    }

    fn start_outage(&mut self, at: LogPosition, edge: u64, why: Why) {
        self.cut_off.insert(edge, why);
        if self.outage().is_some() {
            return;
        }
        if self.outages.len() >= OUTAGES_MAX {
            self.outages.pop_front();
        }
        let from_ms = self.log_time_ms;
        self.outages.push_back(Outage {
            from_index: at.index,
            from_ms,
            why,
            until: None,
        });
    }

    fn end_outage(&mut self, at: LogPosition, edge: u64) {
        self.cut_off.remove(&edge);
        if !self.cut_off.is_empty() {
            return;
        }
        let log_time_ms = self.log_time_ms;
        if let Some(outage) = self
            .outages
            .back_mut()
            .filter(|outage| outage.until.is_none())
        {
            outage.until = Some((at.index, log_time_ms));
        }
    }

    fn tombstone(&mut self, at: LogPosition, id: TransactionId) -> Outcome {
        let Some(record) = self.payments.get(id) else {
            if planted(Planted::TombstoneIgnored) {
                return Outcome::Tombstoned;
            }
            let record = Record::tombstoned(at);
            self.payments.insert(id, record, self.log_time_ms);
            return Outcome::Tombstoned;
        };
        match record.answer() {
            Some(answer) if !record.is(Flag::Released) => Outcome::Known(recalled(record, answer)),
            Some(_) | None => Outcome::Tombstoned,
        }
    }

    /// Forgets answers whose window has passed and that are drained, and trips closed as long ago.
    fn forget(&mut self) {
        // What is exactly as old as the window still counts.
        if let Some(horizon_ms) = self.log_time_ms.checked_sub(WINDOW_MS) {
            self.forget_before(horizon_ms);
        }
        self.tallies.forget(self.log_time_ms);
        let on = self.outage().is_some();
        if !on && self.tallies.idle_ms(self.log_time_ms) > OUTAGE_FORGOTTEN_MS {
            self.tallies.forget_outage();
            self.counts.exposed_minor = 0;
        }
    }

    fn forget_before(&mut self, horizon_ms: u64) {
        while let Some((id, record)) = self.payments.forget(horizon_ms, self.drained) {
            self.corrections.forget(id);
            if let Some(trip) = record.answer().and_then(|answer| answer.trip) {
                self.trips.forget_idle(trip, horizon_ms);
            }
        }
        self.trips.forget_closed(horizon_ms);
        self.corrections.forget_late(horizon_ms);
    }
}

fn recalled(record: &Record, answer: Answer) -> Recalled {
    Recalled {
        answer: Box::new(answer),
        faulted: record.is(Flag::Faulted),
        edge: record.edge,
        heard: record.is(Flag::Heard),
    }
}
