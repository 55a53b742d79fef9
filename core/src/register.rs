//! The register: what a region's log has made of every payment.
//!
//! It is the state machine under the log: [`Register::apply`] is deterministic and total (no clock,
//! no I/O, no float, no iteration in hash order), and it alone says what the final answer is:
//!
//! - the first entry of a transaction id wins; a later one gets the same answer, or, if it says
//!   something else, [`Outcome::OtherFingerprint`];
//! - an approval stands only if the trip's approvals (the log's and those the entry saw) fit the
//!   cap of the trip's highest version, the trip is not closed, and the limits the entry names
//!   hold; otherwise it becomes a decline.
//!
//! What was approved while standing in counts by hour and by outage; an outage that comes back within
//! an hour goes on counting, so that a flapping primary does not renew the limits.
//!
//! Answers are kept for the idempotency window (24 h of log time) and at least until they are
//! drained. Memory is bounded by [`RegisterConfig::answers_max`]: past it the register says it is
//! full ([`Register::is_full`]) and the edge refuses new payments rather than forget one.

mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::answer::{Answer, Reason, Rung, Verdict, Why};
use crate::clock::Timestamp;
use crate::decide::{FloorLimits, Limits, StandInLimits, StandInUse, Tally};
use crate::entry::{Entry, LogPosition, OperatorOrder, PlatformEvent, Proposal, StandInMode};
use crate::id::{BankId, Fingerprint, ShopperId, TransactionId, TripId};
use crate::trip::{Approval, TripChange, TripEvent, TripStatus};

use self::tally::StandInTallies;

/// How long a payment's answer is replayed, in log time.
pub const WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long a closed trip is remembered, in log time.
const CLOSED_TRIP_KEPT_MS: u64 = WINDOW_MS;
/// Without standing in for so long, in log time, what counts by outage starts from nothing again.
/// An outage that comes back sooner (a flapping primary, an edge that restarts) goes on counting.
pub const OUTAGE_FORGOTTEN_MS: u64 = 60 * 60 * 1_000;
/// Outages kept for the status page and the drain proof.
const OUTAGES_MAX: usize = 64;

/// Sizes of a register.
#[derive(Clone, Copy, Debug)]
pub struct RegisterConfig {
    /// Most answers held; about 600 bytes each.
    pub answers_max: usize,
}

/// What a region's log has made of every payment.
#[derive(Debug)]
pub struct Register {
    config: RegisterConfig,
    answers: HashMap<TransactionId, Record>,
    /// Answers in log order, for forgetting them.
    order: VecDeque<(u64, LogPosition, TransactionId)>,
    trips: HashMap<TripId, TripRecord>,
    /// Closed trips in log order, for forgetting them.
    closed: VecDeque<(u64, TripId)>,
    /// The latest trip known of each shopper.
    latest: HashMap<ShopperId, TripId>,
    tallies: StandInTallies,
    outages: VecDeque<Outage>,
    mode: StandInMode,
    /// Everything up to this batch is in the ledger.
    drained: u64,
    log_time_ms: u64,
    counts: Counts,
    /// Answers held whose stored 500 replays.
    faulted: u64,
}

/// What the register holds of one payment.
#[derive(Clone, Debug)]
struct Record {
    fate: PaymentFate,
    at: LogPosition,
}

#[derive(Clone, Debug)]
enum PaymentFate {
    Answered { answer: Box<Answer>, faulted: bool },
    Tombstoned,
}

/// What the register holds of one trip.
#[derive(Debug, Default)]
struct TripRecord {
    /// Unknown while the log has only heard of its close.
    shopper: Option<ShopperId>,
    version: u64,
    cap: i64,
    approvals: BTreeMap<TransactionId, Approval>,
    closed: bool,
    /// Log time of the last payment.
    touched_ms: u64,
}

/// One outage of the primary, in log time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
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
}

/// What applying an entry came to.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The payment's answer is this one, now.
    Answered(Box<Answer>),
    /// The payment's answer was given before: this one.
    Known(Recalled),
    /// The payment's id belongs to a request that said something else.
    OtherFingerprint,
    /// The payment's hold was released: it is never answered.
    Tombstoned,
    /// Applied; there is nothing to answer.
    Noted,
}

/// A payment's stored answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Recalled {
    /// The answer committed.
    pub answer: Box<Answer>,
    /// We failed after the commit: what replays is a 500, until an operator clears it.
    pub faulted: bool,
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
            answers: HashMap::new(),
            order: VecDeque::new(),
            trips: HashMap::new(),
            closed: VecDeque::new(),
            latest: HashMap::new(),
            tallies: StandInTallies::default(),
            outages: VecDeque::new(),
            mode: StandInMode::Auto,
            drained: 0,
            log_time_ms: 0,
            counts: Counts::default(),
            faulted: 0,
        }
    }

    /// Applies one entry, in log order.
    pub fn apply(&mut self, at: LogPosition, log_time_ms: u64, entry: &Entry) -> Outcome {
        self.log_time_ms = log_time_ms;
        self.forget();
        match entry {
            Entry::Authorize(proposal) => self.authorize(at, proposal),
            Entry::TripClosed(trip) => {
                self.close(*trip);
                Outcome::Noted
            }
            Entry::OutageStarted(why) => {
                self.start_outage(at, *why);
                Outcome::Noted
            }
            Entry::OutageEnded => {
                self.end_outage(at);
                Outcome::Noted
            }
            Entry::Tombstone(id) => self.tombstone(at, *id),
            Entry::Drained(index) => {
                self.drained = self.drained.max(*index);
                Outcome::Noted
            }
            Entry::Faulted(id) => {
                self.set_faulted(*id, Faulted::Yes);
                Outcome::Noted
            }
            Entry::Operator(action) => match &action.what {
                OperatorOrder::StandIn(mode) => {
                    self.mode = *mode;
                    Outcome::Noted
                }
                OperatorOrder::ClearAnswer(id) => {
                    self.set_faulted(*id, Faulted::No);
                    Outcome::Noted
                }
                OperatorOrder::Tombstone(id) => self.tombstone(at, *id),
            },
            Entry::Platform(event) => {
                self.hear(event);
                Outcome::Noted
            }
        }
    }

    /// What is known of a payment.
    pub fn recall(&self, id: TransactionId, fingerprint: &Fingerprint) -> Recall {
        match self.answers.get(&id).map(|record| &record.fate) {
            None => Recall::Unknown,
            Some(PaymentFate::Tombstoned) => Recall::Tombstoned,
            Some(PaymentFate::Answered { answer, .. }) if answer.fingerprint != *fingerprint => {
                Recall::OtherFingerprint
            }
            Some(PaymentFate::Answered { answer, faulted }) => Recall::Known(Recalled {
                answer: answer.clone(),
                faulted: *faulted,
            }),
        }
    }

    /// The answer that the entry at `at` gave its payment: what the drain books. `None` when an
    /// earlier entry had answered it.
    pub fn answer_at(&self, id: TransactionId, at: LogPosition) -> Option<&Answer> {
        let record = self.answers.get(&id).filter(|record| record.at == at)?;
        match &record.fate {
            PaymentFate::Answered { answer, .. } => Some(answer),
            PaymentFate::Tombstoned => None,
        }
    }

    /// Whether what replays for a payment is a stored 500.
    pub fn is_faulted(&self, id: TransactionId) -> bool {
        let fate = self.answers.get(&id).map(|record| &record.fate);
        matches!(fate, Some(PaymentFate::Answered { faulted: true, .. }))
    }

    /// How many payments a stored 500 replays for.
    pub fn faulted(&self) -> u64 {
        self.faulted
    }

    /// What is spent of the reserve for trips that are too old.
    pub fn reserve_used(&self) -> Tally {
        self.tallies.reserve()
    }

    /// Whether a payment's answer is known, whatever it was.
    pub fn knows(&self, id: TransactionId) -> bool {
        self.answers.contains_key(&id)
    }

    /// The latest trip that the log knows of a shopper.
    pub fn latest_trip(&self, shopper: ShopperId) -> Option<TripId> {
        self.latest.get(&shopper).copied()
    }

    /// The latest trip that the log knows of a shopper, if it has not heard of its close.
    pub fn open_trip(&self, shopper: ShopperId) -> Option<TripId> {
        let latest = self.latest_trip(shopper)?;
        let closed = self.trips.get(&latest).is_none_or(|trip| trip.closed);
        if closed { None } else { Some(latest) }
    }

    /// Every approval of a trip that the log knows, by transaction id.
    pub fn approvals(&self, trip: TripId) -> Vec<Approval> {
        self.trips
            .get(&trip)
            .map(|trip| trip.approvals.values().copied().collect())
            .unwrap_or_default()
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

    /// Recent outages, oldest first.
    pub fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.outages.iter()
    }

    /// What operators have ordered last.
    pub fn mode(&self) -> StandInMode {
        self.mode
    }

    /// Running totals.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many answers are held.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether no answer is held.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether the declared size is reached: nothing new may be proposed.
    pub fn is_full(&self) -> bool {
        self.answers.len() >= self.config.answers_max
    }

    /// Log time of the last entry applied.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    fn authorize(&mut self, at: LogPosition, proposal: &Proposal) -> Outcome {
        match self.recall(proposal.transaction_id, &proposal.fingerprint) {
            Recall::Unknown => {}
            Recall::Known(recalled) => {
                self.counts.repeated = self.counts.repeated.saturating_add(1);
                return Outcome::Known(recalled);
            }
            Recall::OtherFingerprint => return Outcome::OtherFingerprint,
            Recall::Tombstoned => return Outcome::Tombstoned,
        }
        let (reason, approved_before) = self.judge(proposal);
        // The primary sees other regions: what it said was spent is what the bank is told.
        let approved_before = match (proposal.reason, proposal.rung) {
            (Reason::OverCap, Rung::Primary) => approved_before.max(proposal.approved_before),
            _ => approved_before,
        };
        let answer = Answer {
            transaction_id: proposal.transaction_id,
            fingerprint: proposal.fingerprint,
            bank: proposal.request.bank.clone(),
            shopper: proposal.request.shopper,
            verdict: reason.verdict(),
            reason,
            code: proposal.code,
            amount: proposal.request.amount,
            rung: proposal.rung,
            why: proposal.why,
            cap: held_against(proposal),
            approved_before,
            trip: proposal.trip.as_ref().map(|trip| trip.id),
            trip_age_ms: proposal.trip_age_ms,
            policy_version: proposal.policy_version,
        };
        self.count(proposal, &answer);
        self.order
            .push_back((self.log_time_ms, at, answer.transaction_id));
        let fate = PaymentFate::Answered {
            answer: Box::new(answer.clone()),
            faulted: false,
        };
        self.answers
            .insert(answer.transaction_id, Record { fate, at });
        Outcome::Answered(Box::new(answer))
    }

    /// The final reason, and the trip's approvals before this payment.
    fn judge(&mut self, proposal: &Proposal) -> (Reason, i64) {
        let Some(trip) = &proposal.trip else {
            return (proposal.reason, proposal.approved_before);
        };
        let record = self.trips.entry(trip.id).or_default();
        record.shopper = Some(trip.shopper);
        self.latest.insert(trip.shopper, trip.id);
        if let Some(cap) = proposal.cap.filter(|_| trip.version >= record.version) {
            record.version = trip.version;
            record.cap = cap;
        }
        if trip.status != TripStatus::Shopping && !record.closed {
            record.closed = true;
            self.closed.push_back((self.log_time_ms, trip.id));
        }
        record.touched_ms = self.log_time_ms;
        for seen in &proposal.seen {
            record.approvals.entry(seen.transaction_id).or_insert(*seen);
        }
        let before = record.sum_without(proposal.transaction_id);
        if proposal.reason.verdict() == Verdict::Declined {
            return (proposal.reason, before);
        }
        let amount = proposal.request.amount.minor();
        let log_time_ms = self.log_time_ms;
        let reason = match before.checked_add(amount) {
            _ if record.closed => Reason::NotShopping,
            _ if record.is_double_swipe(proposal, log_time_ms) => Reason::DoubleSwipe,
            None => Reason::OverCap,
            Some(sum) if sum > record.cap => Reason::OverCap,
            Some(sum) => match &proposal.limits {
                Limits::Cap => proposal.reason,
                Limits::StandIn(limits) => {
                    let used = self
                        .tallies
                        .of(trip.shopper, &proposal.request.bank, log_time_ms);
                    if fits_stand_in(limits, &used, sum, amount) {
                        proposal.reason
                    } else {
                        Reason::StandInLimit
                    }
                }
                Limits::Floor(limits) => {
                    let used = self
                        .tallies
                        .of(trip.shopper, &proposal.request.bank, log_time_ms);
                    if fits_floor(limits, &used, amount) {
                        proposal.reason
                    } else {
                        Reason::FloorLimit
                    }
                }
            },
        };
        if reason.verdict() == Verdict::Approved {
            let at = i64::try_from(log_time_ms)
                .map_or(Timestamp::from_millis(i64::MAX), Timestamp::from_millis);
            let approval = Approval {
                transaction_id: proposal.transaction_id,
                amount,
                at,
            };
            record.approvals.insert(proposal.transaction_id, approval);
        }
        (reason, before)
    }

    fn count(&mut self, proposal: &Proposal, answer: &Answer) {
        self.counts.answered = self.counts.answered.saturating_add(1);
        if answer.verdict == Verdict::Declined {
            if proposal.reason.verdict() == Verdict::Approved {
                self.counts.turned = self.counts.turned.saturating_add(1);
            }
            return;
        }
        self.counts.approved = self.counts.approved.saturating_add(1);
        let amount = answer.amount.minor();
        match answer.rung {
            Rung::Primary | Rung::PrimaryOnly => return,
            Rung::StandIn => {
                self.tallies
                    .stood_in(answer.shopper, &answer.bank, amount, self.log_time_ms)
            }
            Rung::Isolated => self
                .tallies
                .on_floor(answer.shopper, amount, self.log_time_ms),
        }
        self.counts.exposed_minor = self.counts.exposed_minor.saturating_add(amount);
    }

    /// Embedded mode: what the platform did to a trip is in the same log.
    fn hear(&mut self, event: &PlatformEvent) {
        match event {
            PlatformEvent::TripChanged(TripEvent {
                trip,
                what: TripChange::Finish,
                ..
            })
            | PlatformEvent::TripCompleted { trip, .. } => self.close(*trip),
            PlatformEvent::TripChanged(_)
            | PlatformEvent::StorePut(_)
            | PlatformEvent::OrderPlaced(_)
            | PlatformEvent::OrderClaimed { .. }
            | PlatformEvent::TripStarted { .. } => {}
        }
    }

    fn close(&mut self, trip: TripId) {
        let log_time_ms = self.log_time_ms;
        // A close may come before any payment: it is kept, so that none is approved after it.
        let record = self.trips.entry(trip).or_default();
        if !record.closed {
            record.closed = true;
            self.closed.push_back((log_time_ms, trip));
        }
    }

    fn start_outage(&mut self, at: LogPosition, why: Why) {
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

    fn end_outage(&mut self, at: LogPosition) {
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
        if let Some(record) = self.answers.get(&id) {
            return match &record.fate {
                PaymentFate::Tombstoned => Outcome::Tombstoned,
                PaymentFate::Answered { answer, faulted } => Outcome::Known(Recalled {
                    answer: answer.clone(),
                    faulted: *faulted,
                }),
            };
        }
        self.order.push_back((self.log_time_ms, at, id));
        self.answers.insert(
            id,
            Record {
                fate: PaymentFate::Tombstoned,
                at,
            },
        );
        Outcome::Tombstoned
    }

    fn set_faulted(&mut self, id: TransactionId, now: Faulted) {
        let Some(Record {
            fate: PaymentFate::Answered { faulted, .. },
            ..
        }) = self.answers.get_mut(&id)
        else {
            return;
        };
        match (std::mem::replace(faulted, now == Faulted::Yes), now) {
            (false, Faulted::Yes) => self.faulted = self.faulted.saturating_add(1),
            (true, Faulted::No) => self.faulted = self.faulted.saturating_sub(1),
            (true, Faulted::Yes) | (false, Faulted::No) => {}
        }
    }

    /// Forgets answers whose window has passed and that are drained, and trips closed as long ago.
    fn forget(&mut self) {
        while let Some((made_ms, at, id)) = self.order.front().copied() {
            let past = self.log_time_ms.saturating_sub(made_ms) > WINDOW_MS;
            if !past || at.index > self.drained {
                break;
            }
            self.order.pop_front();
            let forgotten = self.answers.remove(&id);
            self.forget_trip_of(forgotten);
        }
        while let Some((closed_ms, id)) = self.closed.front().copied() {
            if self.log_time_ms.saturating_sub(closed_ms) <= CLOSED_TRIP_KEPT_MS {
                break;
            }
            self.closed.pop_front();
            self.remove_trip(id);
        }
        self.tallies.forget(self.log_time_ms);
        let on = self.outage().is_some();
        if !on && self.tallies.idle_ms(self.log_time_ms) > OUTAGE_FORGOTTEN_MS {
            self.tallies.forget_outage();
            self.counts.exposed_minor = 0;
        }
    }

    /// A trip that never closes goes with the last answer that names it.
    fn forget_trip_of(&mut self, forgotten: Option<Record>) {
        let Some(Record {
            fate: PaymentFate::Answered { answer, faulted },
            ..
        }) = forgotten
        else {
            return;
        };
        self.faulted = self.faulted.saturating_sub(u64::from(faulted));
        let Some(id) = answer.trip else { return };
        let idle = self.trips.get(&id).is_some_and(|trip| {
            !trip.closed && self.log_time_ms.saturating_sub(trip.touched_ms) > WINDOW_MS
        });
        if idle {
            self.remove_trip(id);
        }
    }

    fn remove_trip(&mut self, id: TripId) {
        let shopper = self.trips.remove(&id).and_then(|trip| trip.shopper);
        if let Some(shopper) = shopper.filter(|shopper| self.latest.get(shopper) == Some(&id)) {
            self.latest.remove(&shopper);
        }
    }
}

/// The cap an answer was held against: while standing in, the tighter one.
fn held_against(proposal: &Proposal) -> Option<i64> {
    match &proposal.limits {
        Limits::Cap => proposal.cap,
        Limits::StandIn(limits) => proposal.cap.map(|cap| cap.min(limits.trip)),
        Limits::Floor(limits) => proposal.cap.map(|cap| cap.min(limits.floor)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Faulted {
    Yes,
    No,
}

// === impl TripRecord ===

impl TripRecord {
    /// Whether the same amount was approved moments ago under another key. The rules looked already;
    /// two that were decided at the same time meet here.
    fn is_double_swipe(&self, proposal: &Proposal, log_time_ms: u64) -> bool {
        let now = i64::try_from(log_time_ms).unwrap_or(i64::MAX);
        self.approvals.values().any(|approval| {
            approval.transaction_id != proposal.transaction_id
                && approval.amount == proposal.request.amount.minor()
                && now.abs_diff(approval.at.as_millis()) < proposal.swipe_window_ms
        })
    }

    /// Sum of the trip's approvals but one; saturates, which only ever declines more.
    fn sum_without(&self, id: TransactionId) -> i64 {
        self.approvals
            .values()
            .filter(|approval| approval.transaction_id != id)
            .fold(0, |sum, approval| sum.saturating_add(approval.amount))
    }
}

/// Whether an approval of `amount` that makes the trip's sum `sum` fits the stand-in limits.
pub fn fits_stand_in(limits: &StandInLimits, used: &StandInUse, sum: i64, amount: i64) -> bool {
    let fits = |limit: Tally, used: Tally| {
        used.amount
            .checked_add(amount)
            .is_some_and(|total| total <= limit.amount)
            && used.count < limit.count
    };
    amount <= limits.transaction
        && sum <= limits.trip
        && fits(limits.shopper_outage, used.shopper_outage)
        && fits(limits.shopper_hour, used.shopper_hour)
        && fits(limits.bank_outage, used.bank_outage)
        && fits(limits.bank_hour, used.bank_hour)
}

/// Whether an approval of `amount` fits the floor limit, its window and the reserve.
pub fn fits_floor(limits: &FloorLimits, used: &StandInUse, amount: i64) -> bool {
    amount <= limits.floor
        && used
            .since_floor_ms
            .is_none_or(|since| since >= limits.window_ms)
        && used
            .reserve
            .amount
            .checked_add(amount)
            .is_some_and(|sum| sum <= limits.reserve.amount)
        && used.reserve.count < limits.reserve.count
}
