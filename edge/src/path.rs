//! One authorization, in order. This file is the design's section 2 as code; read [`Path::answer`].
//! What happens when the log cannot commit is `path/unsettled.rs`.
//!
//! Steps 1 to 3 (accept, authenticate, understand) happen at the door; steps 4 to 11 here. Every
//! wait is under the request's [`Budget`]. A decline is an answer; a [`Refusal`] is none.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use standin_core::answer::{Answer, Reason, Rung, Verdict, Why};
use standin_core::authorization::Authorization;
use standin_core::clock::Clock;
use standin_core::decide::{
    Decision, Facts, Limits as RuleLimits, Rules, StandInUse, decide, stand_in_differs,
};
use standin_core::entry::{Entry, Proposal, StandInMode};
use standin_core::id::{BankId, Fingerprint, ShopperId, TransactionId};
use standin_core::identity::{self, DeploymentKey, Operation};
use standin_core::ledger::{Card, HoldReply, Ledger, LedgerError, Retry};
use standin_core::merchant::StoreDirectory;
use standin_core::planted::{Planted, planted};
use standin_core::policy::Policy;
use standin_core::register::Register;
use standin_core::register::{Outcome, Recall, Recalled};
use standin_core::trip::{Approval, Position, Trip, TripStatus};
use standin_core::trip_cache::TripCache;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::advices::Advices;
use crate::afterwards::Afterwards;
use crate::budget::Budget;
use crate::cards::Cards;
use crate::chance::Chance;
use crate::holds::Holds;
use crate::inflight::{Claim, Guard, InFlight};
use crate::limit::Limits;
use crate::log::Log;
use crate::metrics::{Metrics, Step};
use crate::primary::{Primary, Route};
use crate::shadow::Shadow;
use crate::told::{Proposed, Told};

mod advised;
mod reversals;
mod unsettled;

use self::advised::no_commit;
pub use self::reversals::{TakeBack, TakenBack};

/// Everything a request meets on its way.
pub struct Path {
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Uniform chance, for the breaker's ramp.
    pub chance: Chance,
    /// Makes authorization codes.
    pub key: DeploymentKey,
    /// Rules in force.
    pub policy: ArcSwap<Policy>,
    /// Rules proposed, evaluated beside them.
    pub shadow: Shadow,
    /// Our stores.
    pub stores: Arc<ArcSwap<StoreDirectory>>,
    /// Who carries which card.
    pub cards: Arc<Cards>,
    /// What the shopper has picked.
    pub cache: Arc<dyn TripCache>,
    /// The ledger of record.
    pub ledger: Arc<dyn Ledger>,
    /// What is believed of it.
    pub primary: Arc<Primary>,
    /// Banks that are given no answer without it.
    pub never_stood_in_for: HashSet<BankId>,
    /// Asks it for holds, in batches.
    pub holds: Holds,
    /// The region's log.
    pub log: Arc<Log>,
    /// This edge's own log, for what it says without the region's.
    pub advices: Arc<Advices>,
    /// Isolated approvals are given one at a time: each must see what the one before it spent.
    pub isolating: tokio::sync::Mutex<()>,
    /// What this edge told itself.
    pub told: Told,
    /// What this edge marked late: the log may take it back.
    pub marked: Told,
    /// What this edge proposed.
    pub proposed: Proposed,
    /// Payments being decided here.
    pub inflight: InFlight,
    /// Limits by bank and shopper.
    pub limits: Arc<Limits>,
    /// What happens after the answer.
    pub afterwards: Afterwards,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// An answer that may be given: it is durable. Only this module makes one, from a commit of the
/// log, from the log's applied state, or from the ledger's final row.
#[derive(Clone, PartialEq, Debug)]
pub struct Given {
    answer: Box<Answer>,
    replayed: bool,
    faulted: bool,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The transaction id belongs to a request that said something else.
    #[error("transaction id {0} was used for a request that said something else")]
    OtherFingerprint(TransactionId),
    /// The same payment is being decided, and the wait for it ran out.
    #[error("the same payment is being decided; its answer did not come in time")]
    StillDeciding,
    /// The bank asks too often, or the shopper's card does.
    #[error("too many requests")]
    Limited {
        /// When to try again.
        retry_after: Duration,
    },
    /// The primary is away and the trip is not known here.
    #[error("the shopper's trip cannot be seen")]
    TripUnseen(Why),
    /// The card is not known here, and the primary, which may know it, is away.
    #[error("whose card it is cannot be seen")]
    CardUnseen(Why),
    /// The primary is away and standing in is forbidden.
    #[error("standing in is forbidden")]
    StandInForbidden(Why),
    /// This edge's reserve for old trips is spent.
    #[error("the reserve for trips that are too old is spent")]
    ReserveSpent(Why),
    /// The log takes nothing more: it is full, busy, or the register has its declared size.
    #[error("the log takes nothing more")]
    LogFull,
    /// No time is left.
    #[error("the deadline passed before the payment was decided")]
    Deadline,
    /// This edge knows no store yet, or not what its earlier starts answered.
    #[error("this edge knows no store yet, or has not caught up with the log")]
    NotReady,
    /// No such payment of this bank's.
    #[error("the bank has no such payment")]
    NoSuchPayment,
    /// What is taken back is in another currency than what was approved.
    #[error("what is taken back is in another currency than the payment")]
    OtherCurrency,
    /// The log does not know the payment, and the primary, which may, is away.
    #[error("the payment cannot be seen")]
    PaymentUnseen(Why),
    /// Proposed, but not known to be committed: it may still become the answer.
    #[error("the answer was not durable in time")]
    Unknown,
    /// The payment's hold was released; it is never answered.
    #[error("this payment was given up")]
    Released,
    /// An entry of ours could not be made.
    #[error("the entry could not be encoded")]
    Encode,
}

/// What step 4 saw.
#[derive(Debug)]
struct Sight {
    trip: Option<Trip>,
    /// Approvals of the trip for the rules to look at.
    approvals: Vec<Approval>,
    /// Those of them that were answered (the ledger's may be holds that never are).
    answered: Vec<Approval>,
    position: Option<Position>,
    /// Age of the trip: zero when the primary gave it just now.
    age_ms: Option<u64>,
    /// Whether "no trip" is a fact rather than a gap.
    known: bool,
    /// The primary was asked for the trip and did not give it in time.
    not_reloaded: Option<Why>,
}

/// A trip whose cache never showed a heartbeat counts as ten years old.
const UNKNOWN_AGE_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;

/// Who the payment is.
#[derive(Clone, Copy)]
struct Identity {
    id: TransactionId,
    fingerprint: Fingerprint,
}

/// What the log's applied state adds to the facts.
struct Applied {
    payment: TransactionId,
    approvals: Vec<Approval>,
    stand_in: StandInUse,
    full: bool,
}

/// Both decisions, which every request gets.
struct Decisions {
    /// By what they were made: another version may be in force before the answer is given.
    policy: Arc<Policy>,
    primary: Decision,
    stand_in: Decision,
    isolated: Decision,
}

// === impl Given ===

impl Given {
    fn committed(answer: Box<Answer>) -> Self {
        Self {
            answer,
            replayed: false,
            faulted: false,
        }
    }

    fn applied(recalled: Recalled) -> Self {
        Self {
            answer: recalled.answer,
            replayed: true,
            faulted: recalled.faulted,
        }
    }

    fn advised(answer: Box<Answer>, replayed: bool) -> Self {
        Self {
            answer,
            replayed,
            faulted: false,
        }
    }

    fn booked(answer: Box<Answer>) -> Self {
        Self {
            answer,
            replayed: true,
            faulted: false,
        }
    }

    /// It was given before.
    fn again(self) -> Self {
        Self {
            replayed: true,
            ..self
        }
    }

    /// The answer.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Whether it was given before.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// Whether what replays is the 500 that we once gave instead.
    pub fn is_faulted(&self) -> bool {
        self.faulted
    }
}

// === impl Path ===

impl Path {
    /// Answers one authorization, or says why there is no answer.
    pub async fn answer(
        &self,
        mut request: Authorization,
        budget: Budget,
    ) -> Result<Given, Refusal> {
        // Without a directory every merchant would be unknown, durably: that is no answer.
        if self.stores.load().is_empty() {
            return Err(Refusal::NotReady);
        }
        // Before it is asked what is known of the payment: what is known later must not count.
        let knows_its_past = self.knows_its_past();
        let fingerprint = identity::fingerprint(&request);
        let route = self.route(&request.bank);
        let unseen = self.find_holder(&mut request, route, &budget).await;
        let looking = self.look(&request, route, &budget);
        let sight = self.step(Step::Look, looking).await;
        let payment = self.identify(&request, &sight, fingerprint);
        let recalling = self.recall(payment, &budget);
        let _guard = match self.step(Step::Recall, recalling).await? {
            Recollection::Given(given) => return Ok(given),
            Recollection::Mine(_) if !knows_its_past => return Err(Refusal::NotReady),
            Recollection::Mine(guard) => guard,
        };
        if let Some(why) = unseen {
            return Err(Refusal::CardUnseen(why));
        }
        self.limit(&request)?;
        let applied = self.applied(&request, &sight, payment.id);
        let deciding = async { self.decide(&request, &sight, &applied, true) };
        let decisions = self.step(Step::Decide, deciding).await;
        let making = Making {
            path: self,
            request: &request,
            payment,
            sight: &sight,
            applied: &applied,
            decisions: &decisions,
        };
        let asking = self.ask_primary(&making, route, &budget);
        let (proposal, held) = match self.step(Step::AskPrimary, asking).await? {
            Asked::Propose { proposal, held } => (proposal, held),
            Asked::Booked(answer) => {
                let proposal = making.on_primary();
                return self.tell_booked(proposal, answer, &budget).await;
            }
        };
        let verdict = proposal.reason.verdict();
        let is_new = self.proposed.insert(payment.id, verdict);
        let entry = Entry::Authorize(proposal);
        let writing = self.write_ahead(payment, &entry, &budget);
        let written = self.step(Step::WriteAhead, writing).await;
        let given = match (written, entry) {
            (Err(Refusal::Unknown), Entry::Authorize(proposal)) => {
                let without = self.without_the_log(&making, proposal, held, &budget);
                self.step(Step::WithoutTheLog, without).await?
            }
            (written, _) => {
                self.fate_known(payment.id, is_new.then_some(verdict), &written);
                written?
            }
        };
        self.told.insert(payment.id);
        self.afterwards.answered(&given);
        Ok(given)
    }

    /// A step of a request: a span in its trace, a duration in the metrics.
    async fn step<T>(&self, step: Step, taken: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = taken.instrument(span_of(step)).await;
        self.metrics.step(step, begun.elapsed());
        done
    }

    /// Whether a payment has its answer here, as far as can be told without waiting for anything: what
    /// [`Path::answer`] then gives costs little. (Where the bank named no key, the shopper's latest trip
    /// that the log knows stands for the one that a look would show.)
    pub fn has_answer(&self, request: &Authorization) -> bool {
        let holder = request.particulars.card.as_ref().and_then(|token| {
            self.cards.holder(&Card {
                bank: request.bank.clone(),
                token: token.clone(),
            })
        });
        let shopper = holder.unwrap_or(request.shopper);
        let id = match &request.bank_key {
            Some(key) => identity::of_key(&request.bank, Operation::Authorize, key),
            None => {
                let trip = self.log.read(|register| register.latest_trip(shopper));
                let request = Authorization {
                    shopper,
                    ..request.clone()
                };
                identity::transaction_id(&request, Operation::Authorize, trip)
            }
        };
        let fingerprint = identity::fingerprint(request);
        self.advices.keeps(id)
            || self
                .log
                .read(|register| !matches!(register.recall(id, &fingerprint), Recall::Unknown))
    }

    /// A proposal's fate is known: `new` is its verdict, if it was the first with it.
    fn fate_known(
        &self,
        id: TransactionId,
        new: Option<Verdict>,
        written: &Result<Given, Refusal>,
    ) {
        match (written, new) {
            (Err(Refusal::LogFull | Refusal::Encode), Some(verdict)) => {
                self.proposed.take_back(id, verdict);
            }
            (Err(Refusal::LogFull | Refusal::Encode), None) => {}
            (Ok(_) | Err(_), _) => self.proposed.settle(id),
        }
    }

    /// Whether what earlier starts of this edge told banks is known here. It was committed before this
    /// start asked the log for its reserve, so it is in the applied state once that is. Until then a
    /// payment that an earlier start answered could be proposed again and marked late, and what the bank
    /// was told be given back.
    pub fn knows_its_past(&self) -> bool {
        self.advices.granted().is_some()
    }

    /// Step 3 ends here: whose card it is, where the bank named a card. Says why it cannot be known; a
    /// card that nobody carries is known, and declined.
    async fn find_holder(
        &self,
        request: &mut Authorization,
        route: Route,
        budget: &Budget,
    ) -> Option<Why> {
        let token = request.particulars.card.clone()?;
        let card = Card {
            bank: request.bank.clone(),
            token,
        };
        if let Some(shopper) = self.cards.holder(&card) {
            request.shopper = shopper;
            return None;
        }
        let why = match route {
            Route::Refuse(why) | Route::StandIn(why) => return Some(why),
            Route::Ask | Route::AskOnly => {
                let asked = self.cards.ask(card);
                match self.in_time(asked, "looking a card up", budget).await {
                    Ok(Some(shopper)) => {
                        request.shopper = shopper;
                        return None;
                    }
                    Ok(None) => return None,
                    Err(error) => error.why,
                }
            }
        };
        Some(why)
    }

    /// Step 4: the trip, and how old it is. From the primary when the cache has none or an old one.
    async fn look(&self, request: &Authorization, route: Route, budget: &Budget) -> Sight {
        let mut sight = self.look_in_cache(request, budget.trip_cache()).await;
        if !self.wants_reload(&sight, route) {
            return sight;
        }
        let loading = self.ledger.open_trip(request.shopper);
        let loading = self.in_time(loading, "loading the trip", budget);
        // What is picked reaches the cache first and the ledger later, after an outage much later: a
        // look that showed no trip is tried again beside the load.
        let missing = sight.trip.is_none();
        let again = async {
            if missing {
                Some(self.look_in_cache(request, budget.postgres()).await)
            } else {
                None
            }
        };
        let (loaded, again) = tokio::join!(loading, again);
        if let Some(again) = again.filter(|again| again.trip.is_some()) {
            sight = again;
        }
        match loaded {
            Ok(open) => sight.reload(open),
            Err(error) if self.wants_reload(&sight, route) => sight.not_reloaded = Some(error.why),
            // The second look showed a trip that is fresh enough.
            Err(_) => {}
        }
        sight
    }

    async fn look_in_cache(&self, request: &Authorization, until: Instant) -> Sight {
        let looked = tokio::time::timeout_at(until, self.cache.look(request.shopper)).await;
        let now = self.clock.now();
        match looked {
            Ok(Ok(look)) => {
                let age_ms = look.age_ms(now).unwrap_or(UNKNOWN_AGE_MS);
                let fresh = age_ms <= self.policy.load().stand_in.trip_age_max_ms;
                // A fresh cache without the trip that the log saw is a cache that lost it.
                let lost = look.trip.is_none() && self.has_open_trip(request.shopper);
                Sight::cached(look.trip, age_ms.min(UNKNOWN_AGE_MS), fresh && !lost)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "trip cache gave no answer");
                Sight::nothing()
            }
            Err(_elapsed) => Sight::nothing(),
        }
    }

    /// Drawn once a request, so that it is tried wholly or not at all.
    fn route(&self, bank: &BankId) -> Route {
        let mode = match self.log.read(Register::mode) {
            mode if !self.never_stood_in_for.contains(bank) => mode,
            StandInMode::Force => return Route::Refuse(Why::Forced),
            StandInMode::Auto | StandInMode::Forbid => StandInMode::Forbid,
        };
        self.primary.route(mode, self.chance.percent())
    }

    /// Whether this bank may be answered without the primary.
    fn stands_in_for(&self, bank: &BankId) -> bool {
        let forbidden = self.log.read(Register::mode) == StandInMode::Forbid;
        !forbidden && !self.never_stood_in_for.contains(bank)
    }

    fn has_open_trip(&self, shopper: ShopperId) -> bool {
        self.log
            .read(|register| register.open_trip(shopper).is_some())
    }

    /// What the ledger says within its budget, of which the breaker hears.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, LedgerError>>,
        what: &'static str,
        budget: &Budget,
    ) -> Result<T, LedgerError> {
        let whole_budget = budget.has_whole_postgres();
        let said = tokio::time::timeout_at(budget.postgres(), asked).await;
        let said = said
            .unwrap_or_else(|_elapsed| Err(LedgerError::timeout(format!("{what} took too long"))));
        self.heard(said.as_ref().map(drop), whole_budget);
        said
    }

    /// Tells the breaker how a try went, unless it failed for a reason of ours (no time was left) or
    /// of a row's (a lock), which say nothing of the primary.
    fn heard(&self, tried: Result<(), &LedgerError>, whole_budget: bool) {
        match tried {
            Ok(()) => self.primary.heard(Ok(())),
            Err(error) if error.retry == Retry::Now => {}
            Err(error) if error.why == Why::Timeout && !whole_budget => {}
            Err(error) => self.primary.heard(Err(error.why)),
        }
    }

    fn wants_reload(&self, sight: &Sight, route: Route) -> bool {
        let asks = matches!(route, Route::Ask | Route::AskOnly);
        let age_max = self.policy.load().primary.trip_age_max_ms;
        // After a completed trip the shopper may have started another that the cache has not seen.
        let going_on = |trip: &Trip| trip.status != TripStatus::Complete;
        let fresh = sight.trip.as_ref().is_some_and(going_on)
            && sight.age_ms.is_none_or(|age| age <= age_max);
        asks && !fresh
    }

    fn identify(
        &self,
        request: &Authorization,
        sight: &Sight,
        fingerprint: Fingerprint,
    ) -> Identity {
        let seen = sight.trip.as_ref().map(|trip| trip.id);
        let latest = || {
            self.log
                .read(|register| register.latest_trip(request.shopper))
        };
        let trip = seen.or_else(latest);
        Identity {
            id: identity::transaction_id(request, Operation::Authorize, trip),
            fingerprint,
        }
    }

    /// Step 5: the answer given before, or the right to be the one who gives it.
    async fn recall(&self, payment: Identity, budget: &Budget) -> Result<Recollection, Refusal> {
        loop {
            if let Some(given) = self.recall_known(payment, budget).await? {
                return Ok(Recollection::Given(given));
            }
            match self.inflight.claim(payment.id, payment.fingerprint) {
                Claim::OtherFingerprint => return Err(Refusal::OtherFingerprint(payment.id)),
                Claim::Mine(guard) => {
                    // Another may have landed between the look and the claim.
                    return match self.recall_known(payment, budget).await? {
                        Some(given) => Ok(Recollection::Given(given)),
                        None => Ok(Recollection::Mine(guard)),
                    };
                }
                Claim::Wait(landing) => tokio::time::timeout_at(budget.deadline(), landing.wait())
                    .await
                    .map_err(|_elapsed| Refusal::StillDeciding)?,
            }
        }
    }

    async fn recall_known(
        &self,
        payment: Identity,
        budget: &Budget,
    ) -> Result<Option<Given>, Refusal> {
        let Identity { id, fingerprint } = payment;
        match self.advices.recall(id, &fingerprint) {
            Ok(None) => {}
            Ok(Some(answer)) => return Ok(Some(Given::advised(answer, true))),
            Err(_other) => return Err(Refusal::OtherFingerprint(id)),
        }
        match self.log.read(|register| register.recall(id, &fingerprint)) {
            Recall::Unknown => Ok(None),
            Recall::Known(recalled) => self.tell_again(id, recalled, budget).await.map(Some),
            Recall::OtherFingerprint => Err(Refusal::OtherFingerprint(id)),
            Recall::Tombstoned => Err(Refusal::Released),
        }
    }

    /// Step 6. A replay never comes here.
    fn limit(&self, request: &Authorization) -> Result<(), Refusal> {
        self.limits
            .bank(&request.bank)
            .and_then(|()| self.limits.shopper(request.shopper))
            .map_err(|often| Refusal::Limited {
                retry_after: often.retry_after,
            })
    }

    fn applied(&self, request: &Authorization, sight: &Sight, id: TransactionId) -> Applied {
        let trip = sight.trip.as_ref().map(|trip| trip.id);
        self.log.read(|register| {
            let mut approvals = trip
                .map(|trip| register.approvals(trip))
                .unwrap_or_default();
            approvals.retain(|approval| approval.transaction_id != id);
            Applied {
                payment: id,
                approvals,
                stand_in: register.stand_in_use(request.shopper, &request.bank),
                full: register.is_full(),
            }
        })
    }

    /// Step 7: by the primary's rules and by the stand-in rules, on every request. What other rules or a
    /// proposed policy say otherwise is `counted`, unless the bank has decided by itself: then it is no
    /// difference of ours.
    fn decide(
        &self,
        request: &Authorization,
        sight: &Sight,
        applied: &Applied,
        counted: bool,
    ) -> Decisions {
        let policy = self.policy.load_full();
        let stores = self.stores.load();
        let mut approvals = applied.approvals.clone();
        for seen in &sight.approvals {
            let own = seen.transaction_id == applied.payment;
            if !own
                && approvals
                    .iter()
                    .all(|known| known.transaction_id != seen.transaction_id)
            {
                approvals.push(*seen);
            }
        }
        let facts = Facts {
            merchant: stores.resolve_ids(
                request.particulars.network_id.as_deref(),
                request.particulars.terminal.as_deref(),
                &request.merchant,
            ),
            trip: sight.trip.as_ref(),
            trip_age_ms: sight.age_ms,
            store: sight.trip.as_ref().and_then(|trip| stores.get(trip.store)),
            position: sight.position,
            approvals: &approvals,
            stand_in: applied.stand_in,
        };
        let now = self.clock.now();
        let decisions = Decisions {
            primary: decide(request, &facts, &policy, Rules::Primary, now),
            stand_in: decide(request, &facts, &policy, Rules::StandIn, now),
            isolated: decide(request, &facts, &policy, Rules::Isolated, now),
            policy,
        };
        if !counted {
            return decisions;
        }
        if let Some(tried) = self.shadow.tried() {
            let active = [
                (Rules::Primary, &decisions.primary),
                (Rules::StandIn, &decisions.stand_in),
            ];
            tried.judge(request, &facts, active, now, &self.metrics);
        }
        if stand_in_differs(&decisions.primary, &decisions.stand_in) {
            let (given, other) = (decisions.primary.reason, decisions.stand_in.reason);
            self.metrics.shadow_differed(given, other);
        }
        decisions
    }

    /// Step 8: the primary's word wins; without it, the stand-in decision, and why.
    async fn ask_primary(
        &self,
        making: &Making<'_>,
        route: Route,
        budget: &Budget,
    ) -> Result<Asked, Refusal> {
        if making.applied.full {
            return Err(Refusal::LogFull);
        }
        if budget.is_over() {
            return Err(Refusal::Deadline);
        }
        if making.request.shopper.is_of_unknown_card() {
            // The primary has just said that nobody carries it. It claims nothing under a shopper who
            // is none: the card may be somebody's when the payment comes again.
            return Ok(Asked::Propose {
                proposal: Box::new(making.on_primary()),
                held: false,
            });
        }
        let why = match route {
            Route::Refuse(why) => return Err(Refusal::StandInForbidden(why)),
            Route::StandIn(why) => why,
            // The cache has no trip to decide from and the primary did not give it either.
            Route::Ask | Route::AskOnly if making.sight.not_reloaded.is_some() => {
                making.sight.not_reloaded.unwrap_or(Why::Timeout)
            }
            Route::Ask | Route::AskOnly => {
                let proposal = making.on_primary();
                let whole_budget = budget.has_whole_postgres();
                let held = self.holds.hold(proposal.clone(), budget.postgres()).await;
                self.heard(held.as_ref().map(drop), whole_budget);
                match held {
                    Ok(word) => return primary_said(word, proposal),
                    Err(error) => self.why_not(&error),
                }
            }
        };
        // An operator may have forbidden it while the primary was asked.
        if route == Route::AskOnly || !self.stands_in_for(&making.request.bank) {
            return Err(Refusal::StandInForbidden(why));
        }
        let proposal = making.standing_in(why)?;
        Ok(Asked::Propose {
            proposal,
            held: false,
        })
    }

    fn why_not(&self, error: &LedgerError) -> Why {
        tracing::debug!(%error, "the primary gave no answer");
        error.why
    }

    /// Step 9: the outcome of the entry, once it is durable and applied, is the answer.
    async fn write_ahead(
        &self,
        payment: Identity,
        entry: &Entry,
        budget: &Budget,
    ) -> Result<Given, Refusal> {
        if planted(Planted::AnsweredBeforeCommit)
            && !self.log.leads()
            && let Entry::Authorize(proposal) = entry
        {
            let answer = proposal.answer(proposal.reason, proposal.approved_before);
            return Ok(Given::committed(Box::new(answer)));
        }
        match self.log.propose(entry, budget.wal()).await {
            Ok(Outcome::Answered(answer)) if self.may_be_taken_back(&answer) => {
                let recalled = Recalled {
                    answer,
                    faulted: false,
                    edge: self.log.edge(),
                    heard: false,
                };
                self.tell_again(payment.id, recalled, budget).await
            }
            Ok(Outcome::Answered(answer)) => Ok(Given::committed(answer)),
            Ok(Outcome::Known(recalled)) => self.tell_again(payment.id, recalled, budget).await,
            Ok(Outcome::OtherFingerprint) => Err(Refusal::OtherFingerprint(payment.id)),
            Ok(Outcome::Tombstoned) => Err(Refusal::Released),
            Ok(Outcome::Noted | Outcome::Reversed(_)) => Err(Refusal::Unknown),
            Err(error) => Err(no_commit(&error)),
        }
    }
}

enum Recollection {
    Given(Given),
    Mine(Guard),
}

enum Asked {
    Propose {
        proposal: Box<Proposal>,
        /// The primary holds it.
        held: bool,
    },
    Booked(Box<Answer>),
}

fn primary_said(word: HoldReply, mut proposal: Proposal) -> Result<Asked, Refusal> {
    if let Some(reason) = word.decline()
        && proposal.reason.verdict() == Verdict::Approved
    {
        proposal.reason = reason;
    }
    match word {
        HoldReply::Held { approved_before } | HoldReply::CapSpent { approved_before } => {
            proposal.approved_before = approved_before;
            Ok(held(proposal))
        }
        HoldReply::NotShopping => Ok(held(proposal)),
        HoldReply::Final(answer) => Ok(Asked::Booked(answer)),
        HoldReply::OtherFingerprint => Err(Refusal::OtherFingerprint(proposal.transaction_id)),
        HoldReply::Released => Err(Refusal::Released),
    }
}

/// Of a decline the claim of its id is the hold.
fn held(proposal: Proposal) -> Asked {
    Asked::Propose {
        proposal: Box::new(proposal),
        held: true,
    }
}

/// Everything a proposal is made of.
struct Making<'a> {
    path: &'a Path,
    request: &'a Authorization,
    payment: Identity,
    sight: &'a Sight,
    applied: &'a Applied,
    decisions: &'a Decisions,
}

// === impl Making ===

impl Making<'_> {
    fn on_primary(&self) -> Proposal {
        self.propose(
            &self.decisions.primary,
            Rung::Primary,
            None,
            self.decisions.stand_in.reason,
        )
    }

    /// On `stand_in`, or on `isolated` when the trip is too old for that.
    fn standing_in(&self, why: Why) -> Result<Box<Proposal>, Refusal> {
        let shadow = self.decisions.primary.reason;
        if self.sight.known {
            let decision = &self.decisions.stand_in;
            return Ok(Box::new(self.propose(
                decision,
                Rung::StandIn,
                Some(why),
                shadow,
            )));
        }
        if self.sight.trip.is_none() {
            return Err(Refusal::TripUnseen(why));
        }
        let decision = &self.decisions.isolated;
        if let (Reason::FloorLimit, RuleLimits::Floor(limits)) = (decision.reason, decision.limits)
        {
            let used = self.applied.stand_in.reserve;
            if used.count >= limits.reserve.count || used.amount >= limits.reserve.amount {
                return Err(Refusal::ReserveSpent(why));
            }
        }
        Ok(Box::new(self.propose(
            decision,
            Rung::Isolated,
            Some(why),
            shadow,
        )))
    }

    fn propose(
        &self,
        decision: &Decision,
        rung: Rung,
        why: Option<Why>,
        shadow: Reason,
    ) -> Proposal {
        let Identity { id, fingerprint } = self.payment;
        let known = |seen: &&Approval| {
            self.applied
                .approvals
                .iter()
                .all(|known| known.transaction_id != seen.transaction_id)
        };
        let policy = &self.decisions.policy;
        let other = |seen: &&Approval| seen.transaction_id != id;
        Proposal {
            edge: self.path.log.edge(),
            start: self.path.advices.start(),
            request: self.request.clone(),
            transaction_id: id,
            fingerprint,
            code: self.path.key.code(&self.request.bank, id, &fingerprint),
            reason: decision.reason,
            rung,
            why,
            trip: self.sight.trip.clone(),
            trip_age_ms: self.sight.age_ms,
            store: decision.store,
            cap: decision.cap,
            approved_before: decision.approved_before,
            limits: decision.limits,
            seen: self
                .sight
                .answered
                .iter()
                .filter(known)
                .filter(other)
                .copied()
                .collect(),
            policy_version: policy.version,
            swipe_window_ms: policy.double_swipe.window_ms,
            shadow: Some(shadow),
            approved: (decision.amount != self.request.amount.minor()).then_some(decision.amount),
        }
    }
}

// === impl Sight ===

impl Sight {
    fn nothing() -> Self {
        Self {
            trip: None,
            approvals: Vec::new(),
            answered: Vec::new(),
            position: None,
            age_ms: None,
            known: false,
            not_reloaded: None,
        }
    }

    fn cached(
        cached: Option<standin_core::trip_cache::CachedTrip>,
        age_ms: u64,
        known: bool,
    ) -> Self {
        match cached {
            None => Self {
                known,
                age_ms: Some(age_ms),
                ..Self::nothing()
            },
            Some(cached) => Self {
                trip: Some(cached.trip),
                answered: cached.approvals.clone(),
                approvals: cached.approvals,
                position: cached.position,
                age_ms: Some(age_ms),
                known,
                not_reloaded: None,
            },
        }
    }

    /// The primary's view replaces the cache's, unless the cache holds a newer version of the same
    /// trip (what was picked is booked last); the position stays, the ledger keeps none.
    fn reload(&mut self, open: Option<standin_core::ledger::OpenTrip>) {
        self.age_ms = Some(0);
        self.known = true;
        let cached = self.trip.take();
        let Some(open) = open else {
            self.approvals.clear();
            self.answered.clear();
            return;
        };
        let booked = open.sheet.trip;
        let same = cached.filter(|cached| cached.id == booked.id);
        if same.is_none() {
            self.answered.clear();
        }
        self.approvals = open.approvals;
        self.trip = Some(
            same.filter(|cached| cached.version > booked.version)
                .unwrap_or(booked),
        );
    }
}

/// A step in the request's trace. (The macro wants a name that is written where it stands.)
fn span_of(step: Step) -> tracing::Span {
    match step {
        Step::Authenticate => info_span!(target: "standin::path", "authenticate"),
        Step::Look => info_span!(target: "standin::path", "look"),
        Step::Recall => info_span!(target: "standin::path", "recall"),
        Step::Decide => info_span!(target: "standin::path", "decide"),
        Step::AskPrimary => info_span!(target: "standin::path", "ask_primary"),
        Step::WriteAhead => info_span!(target: "standin::path", "write_ahead"),
        Step::WithoutTheLog => info_span!(target: "standin::path", "without_the_log"),
    }
}
