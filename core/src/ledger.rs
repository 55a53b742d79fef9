//! The ledger of record, as a port: holds, final rows, orders, trips, audit.
//!
//! Two adapters, [`postgres`] and [`memory`], pass one conformance suite (`conformance`). Every call
//! has a deadline from its caller; an error says whether the call may have taken effect.

mod cache_home;
mod cards;
pub mod clearing;
mod closed;
mod finals;
pub mod memory;
pub mod postgres;
mod rows;
pub mod sqlstate;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::BoxFuture;
use crate::answer::{Answer, Reason, Why};
use crate::clock::Timestamp;
use crate::entry::{LogPosition, Proposal, Settlement};
use crate::id::{BankId, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::merchant::{MerchantId, MerchantKey, Store};
use crate::money::Currency;
use crate::trip::{Approval, Order, TripEvent, TripSheet};
pub use cache_home::{CacheHome, CachePromotion};
pub use cards::{CARD_ROWS_MAX, Card, CardHolder};
pub use closed::{ClosedCursor, ClosedTrip};
pub use finals::{
    Advice, Advised, Booked, BookedCounts, DrainStep, ReversalRow, Rewording, SettlementRow,
};

/// Most outcomes booked in one transaction.
pub const BOOK_ROWS_MAX: usize = 1_000;
/// Most holds in one transaction.
pub const HOLD_ROWS_MAX: usize = 256;

/// Most stores or merchant ids told in one page.
pub const DIRECTORY_PAGE_MAX: u32 = 2_000;

/// The ledger of record.
///
/// Dropping a returned future abandons the wait, not the effect: what was sent may still commit.
pub trait Ledger: Send + Sync + 'static {
    // --- deciding ---

    /// Books a hold for every proposal in one transaction, or says why not, in the order given.
    ///
    /// Approvals count against the cap at once, less what was reversed of them; declines only claim
    /// their transaction id. Trips are locked in id order and their sums taken under the lock, so
    /// that concurrent holds never exceed a cap. At most [`HOLD_ROWS_MAX`].
    fn hold(&self, batch: Vec<Proposal>) -> BoxFuture<'_, Result<Vec<HoldReply>, LedgerError>>;

    /// Turns a hold into the final row of an answer that no log commits (rung `primary_only`), in
    /// a transaction of its own that is durable wherever the server makes commits durable, whatever
    /// holds wait for. The row names no log, until a log that gave the same answer is drained over it,
    /// in the log's words. Asked again it says [`Advised::Stored`].
    fn advise(&self, advice: Advice) -> BoxFuture<'_, Result<Advised, LedgerError>>;

    /// The shopper's trip that is not COMPLETE, with its approvals (held and final), each less what
    /// was reversed of it.
    fn open_trip(&self, shopper: ShopperId)
    -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>>;

    /// A commit that proves the primary takes writes.
    fn probe(&self) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Which state stores and merchant ids are in: another one after every change of either, also
    /// after a failover that lost changes. Ask before reading them, and again afterwards.
    fn directory_version(&self) -> BoxFuture<'_, Result<DirectoryVersion, LedgerError>>;

    /// Stores after `after`, by id, at most `limit` and [`DIRECTORY_PAGE_MAX`]; none: there are no
    /// more.
    fn stores_after(
        &self,
        after: Option<StoreId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Store>, LedgerError>>;

    /// What networks call stores, after `after`, by key; else as [`Self::stores_after`].
    fn merchant_ids_after(
        &self,
        after: Option<MerchantKey>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<MerchantId>, LedgerError>>;

    /// Every store, read page by page.
    fn stores(&self) -> BoxFuture<'_, Result<Vec<Store>, LedgerError>> {
        Box::pin(async move {
            let mut all: Vec<Store> = Vec::new();
            loop {
                let after = all.last().map(|store| store.id);
                let page = self.stores_after(after, DIRECTORY_PAGE_MAX).await?;
                if page.is_empty() {
                    return Ok(all);
                }
                all.extend(page);
            }
        })
    }

    /// Who carries a card: for a card that is not in the edge's copy of the table.
    fn card_holder(&self, card: Card) -> BoxFuture<'_, Result<Option<ShopperId>, LedgerError>>;

    /// The table of cards in order, from after `after` on: at most `limit` rows, and never more than
    /// [`CARD_ROWS_MAX`]. Fewer than asked for are the last.
    fn cards(
        &self,
        after: Option<Card>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<CardHolder>, LedgerError>>;

    // --- draining ---

    /// How far the log with this incarnation was drained: the index of the last batch booked.
    fn cursor(&self, log: Uuid) -> BoxFuture<'_, Result<u64, LedgerError>>;

    /// Books outcomes as `final`, reversals by their key and operators' actions into `audit`, and
    /// moves the cursor, in one transaction. When the cursor is not at `step.from`, nothing is
    /// changed and [`Booked::Raced`] says where it is.
    ///
    /// An outcome that meets a final row with the same verdict, amount, currency and code was
    /// booked before, whichever rung it was given on: so does an advice meet its original. But where the
    /// row names no log, the primary made it final by itself and the log's word stands: the outcome is
    /// written over it. One that meets another answer, or that the ledger rejects, goes whole to
    /// `conflicts`.
    ///
    /// A [`Rewording`] changes how an answer of the same log was reached, and nothing else.
    ///
    /// A movement of money is kept by its id, once; another one under the same id goes to `conflicts`.
    ///
    /// Reversals take effect on a final approval of their payment and currency, there or still to
    /// come; at its full amount it is `reversed`.
    fn book(&self, step: DrainStep) -> BoxFuture<'_, Result<Booked, LedgerError>>;

    // --- the ledger's epoch ---

    /// The highest ledger epoch that this client has seen or was told of; 0 before the first.
    fn epoch(&self) -> u64;

    /// Says that a ledger of this epoch was seen (by another edge, by this one before it started
    /// again): a server of a lower one is a primary of the past, and refused by every hold, probe,
    /// drain step and advice.
    fn require_epoch(&self, epoch: u64);

    /// Raises the server's epoch above every one that this client knows of, and gives it: for
    /// whoever promotes a standby, to be called on a ledger that knows only that server.
    fn promote_epoch(&self) -> BoxFuture<'_, Result<u64, LedgerError>>;

    // --- the trip cache's home ---

    /// Which Redis is the home of the trip cache, as its last promotion left it.
    fn cache_home(&self) -> BoxFuture<'_, Result<CacheHome, LedgerError>>;

    /// Makes another Redis the home: raises the epoch above every one known, unless it is the home
    /// already, and books the order in `audit`. Gives what is so from then on; to be told to that Redis
    /// afterwards, never before.
    fn promote_cache_home(
        &self,
        promotion: CachePromotion,
    ) -> BoxFuture<'_, Result<CacheHome, LedgerError>>;

    // --- the platform ---

    /// Adds or replaces a store.
    fn put_store(&self, store: Store) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Gives a card to a shopper, whoever had it; `None` takes it from whoever has it.
    fn set_card(
        &self,
        card: Card,
        shopper: Option<ShopperId>,
    ) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Says what a network calls a store; what had the same key is replaced. The store need not be
    /// there yet.
    fn put_merchant_id(&self, id: MerchantId) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Forgets what a network calls a store. Says whether it was there.
    fn remove_merchant_id(&self, key: MerchantKey) -> BoxFuture<'_, Result<bool, LedgerError>>;

    /// Places an order (PLACED). Placing the same order again changes nothing.
    fn place_order(&self, order: Order) -> BoxFuture<'_, Result<Placed, LedgerError>>;

    /// One order.
    fn order(&self, id: OrderId) -> BoxFuture<'_, Result<Option<Order>, LedgerError>>;

    /// Orders in status PLACED at a store, oldest first: what matching offers.
    fn offers(&self, store: StoreId, limit: u32) -> BoxFuture<'_, Result<Vec<Order>, LedgerError>>;

    /// Claims an order for a shopper. Strongly consistent: of any number of claims one wins; the
    /// winner's repeat wins again.
    fn claim(
        &self,
        order: OrderId,
        shopper: ShopperId,
    ) -> BoxFuture<'_, Result<Claim, LedgerError>>;

    /// Starts a trip with orders the shopper has claimed. The same start again gives the same trip.
    fn start_trip(&self, start: StartTrip) -> BoxFuture<'_, Result<Started, LedgerError>>;

    /// One trip of a shopper, whatever its status.
    fn trip(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>>;

    /// Books what happened on trips, in the order given, each event once (by its id). Trips' sums
    /// follow from their items; a trip's version becomes at least the one its event carries.
    fn book_events(
        &self,
        events: Vec<BookedEvent>,
    ) -> BoxFuture<'_, Result<EventsBooked, LedgerError>>;

    /// DELIVERING → COMPLETE. Completing twice changes nothing.
    fn complete(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Completed, LedgerError>>;

    /// Trips that left SHOPPING, from `after` on, at most `limit`. No such trip is missed, however
    /// late its commit became visible; most are told twice. Ask again with the last one's cursor,
    /// or with the same when there was none.
    fn closed_since(
        &self,
        after: Option<ClosedCursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<ClosedTrip>, LedgerError>>;

    // --- reconciling ---

    /// Every authorization after `after`, by (shopper, transaction id), at most `limit`.
    fn authorizations(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<AuthorizationRow>, LedgerError>>;

    /// One authorization; `None` too of a payment whose id is claimed and that has no row.
    fn authorization(
        &self,
        id: TransactionId,
    ) -> BoxFuture<'_, Result<Option<AuthorizationRow>, LedgerError>>;

    /// Holds without an outcome that were booked before `before`, at most `limit`.
    fn stale_holds(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StaleHold>, LedgerError>>;

    /// `held` → `released` for payments whose tombstone came first in every region's log. Returns
    /// how many changed.
    fn release(&self, holds: Vec<StaleHold>) -> BoxFuture<'_, Result<u64, LedgerError>>;

    /// Movements of money by id, from after `after` on, at most `limit`.
    fn settlements(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Settlement>, LedgerError>>;

    /// What could not be booked, oldest first.
    fn conflicts(&self, limit: u32) -> BoxFuture<'_, Result<Vec<ConflictRow>, LedgerError>>;

    /// What operators did, oldest first.
    fn audit(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditRow>, LedgerError>>;

    /// Keeps a reconciliation run and its findings.
    fn record_run(&self, run: ReconcileRun) -> BoxFuture<'_, Result<(), LedgerError>>;
}

/// Which state stores and merchant ids are in; says nothing but whether it is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryVersion(pub u128);

/// A trip as the ledger knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenTrip {
    /// The trip and its items.
    pub sheet: TripSheet,
    /// Held and final approvals.
    pub approvals: Vec<Approval>,
}

/// What the primary said to a hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldReply {
    /// Booked now, or found again.
    Held {
        /// Sum of the trip's other approvals, minor units.
        approved_before: i64,
    },
    /// The payment was answered before: this is its final answer.
    Final(Box<Answer>),
    /// The transaction id belongs to a request that said something else.
    OtherFingerprint,
    /// The trip's approvals leave no room.
    CapSpent {
        /// Sum of the trip's other approvals, minor units.
        approved_before: i64,
    },
    /// The trip is not SHOPPING in the ledger.
    NotShopping,
    /// The hold was released: the payment may not be answered any more.
    Released,
}

/// What became of placing an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// It is PLACED.
    Now,
    /// The same order was there.
    Before,
    /// Another order has this id.
    Differs,
    /// The store is not known.
    UnknownStore,
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The shopper has it.
    Won,
    /// Another shopper has it.
    Lost,
    /// No such order.
    UnknownOrder,
    /// The order is past claiming.
    Gone,
}

/// A trip to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartTrip {
    /// Its id, made by the caller.
    pub trip: TripId,
    /// Whose.
    pub shopper: ShopperId,
    /// The claimed orders, all of one store and currency.
    pub orders: Vec<OrderId>,
    /// When.
    pub at: Timestamp,
}

/// What became of starting a trip.
#[derive(Clone, PartialEq, Debug)]
pub enum Started {
    /// It is SHOPPING.
    Trip(Box<TripSheet>),
    /// The shopper has another trip that is not COMPLETE.
    HasTrip(TripId),
    /// An order is not claimed by this shopper (or not there).
    NotClaimed(OrderId),
    /// Orders of several stores or currencies.
    Mixed,
}

/// An event with the version the trip cache gave the trip when it applied it.
#[derive(Clone, PartialEq, Debug)]
pub struct BookedEvent {
    /// The event.
    pub event: TripEvent,
    /// The trip's version after it, when the cache changed.
    pub version: Option<u64>,
}

/// How a batch of events was booked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventsBooked {
    /// Changed something.
    pub changed: u64,
    /// Were booked before, or changed nothing.
    pub unchanged: u64,
    /// Name a trip or line that is not there, or came too late.
    pub refused: u64,
}

/// What became of completing a trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completed {
    /// It is COMPLETE.
    Now,
    /// It was.
    Before,
    /// It is still SHOPPING.
    StillShopping,
    /// No such trip.
    UnknownTrip,
}

/// The states of an authorization in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationState {
    /// Counts against the cap; not an answer.
    Held,
    /// The answer.
    Final,
    /// Never got an outcome; counts no more.
    Released,
    /// Final, then reversed.
    Reversed,
}

/// One authorization in the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorizationRow {
    /// Where it stands.
    pub state: AuthorizationState,
    /// The answer (of a hold: the one proposed).
    pub answer: Answer,
    /// The store the merchant was resolved to.
    pub store: Option<StoreId>,
    /// What was picked when it was decided.
    pub picked: Option<i64>,
    /// What was taken back of it, minor units; at most its amount.
    pub reversed: i64,
    /// When the primary first knew of it.
    pub held_at: Option<Timestamp>,
    /// Log it was drained from, and where there.
    pub log: Option<(Uuid, LogPosition)>,
    /// Log time of its outcome.
    pub final_at: Option<Timestamp>,
}

/// A hold without an outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleHold {
    /// Partition key.
    pub shopper: ShopperId,
    /// The payment.
    pub transaction_id: TransactionId,
    /// Minor units.
    pub amount: i64,
    /// When it was booked.
    pub held_at: Timestamp,
}

/// An outcome that could not be booked as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConflictRow {
    /// The payment.
    pub transaction_id: TransactionId,
    /// The log it came from.
    pub log: Uuid,
    /// Where there.
    pub at: LogPosition,
    /// What was wrong: `other_answer`, or the ledger's own word.
    pub cause: String,
    /// The outcome, whole, as JSON.
    pub outcome: serde_json::Value,
}

/// One action of an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditRow {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub operator: String,
    /// What: `stand_in.force`, `answer.clear 0123…`, ….
    pub action: String,
    /// Why.
    pub reason: String,
}

/// A reconciliation run to keep.
#[derive(Clone, PartialEq, Debug)]
pub struct ReconcileRun {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its report.
    pub report: serde_json::Value,
    /// What it found: kind, payment, detail.
    pub findings: Vec<FindingRow>,
}

/// One finding of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FindingRow {
    /// Kind of finding.
    pub kind: String,
    /// The payment, where it is about one.
    pub transaction_id: Option<TransactionId>,
    /// What was found.
    pub detail: String,
    /// Minor units at stake.
    pub amount: i64,
    /// Their currency.
    pub currency: Option<Currency>,
    /// The bank, where it is about one.
    pub bank: Option<BankId>,
}

/// Whether a failed call may have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Surely not.
    NotDone,
    /// It may have.
    Unknown,
}

/// What a caller should do after an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The same call again may succeed at once.
    Now,
    /// Later, after a wait or a failover.
    Later,
    /// Never: the call itself is wrong.
    Never,
}

/// A call to the ledger that gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ledger: {detail}")]
pub struct LedgerError {
    /// Whether it may have taken effect.
    pub fate: Fate,
    /// What to do.
    pub retry: Retry,
    /// The cause, as answers given without the primary name it.
    pub why: Why,
    /// For logs; holds no payment data.
    pub detail: String,
}

// === impl HoldReply ===

impl HoldReply {
    /// The decline that this reply forces upon an approval, if it does.
    pub const fn decline(&self) -> Option<Reason> {
        match self {
            Self::CapSpent { .. } => Some(Reason::OverCap),
            Self::NotShopping => Some(Reason::NotShopping),
            Self::Held { .. } | Self::Final(_) | Self::OtherFingerprint | Self::Released => None,
        }
    }
}

// === impl AuthorizationState ===

impl AuthorizationState {
    /// The word in rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Final => "final",
            Self::Released => "released",
            Self::Reversed => "reversed",
        }
    }
}

// === impl LedgerError ===

impl LedgerError {
    /// Nothing was sent: no connection.
    pub fn unreachable(detail: impl Into<String>) -> Self {
        Self {
            fate: Fate::NotDone,
            retry: Retry::Later,
            why: Why::Connection,
            detail: detail.into(),
        }
    }

    /// Sent, and no reply came.
    pub fn lost(detail: impl Into<String>) -> Self {
        Self {
            fate: Fate::Unknown,
            retry: Retry::Later,
            why: Why::Connection,
            detail: detail.into(),
        }
    }

    /// The server is a primary of the past: nothing was done.
    pub(crate) fn stale_epoch() -> Self {
        Self {
            fate: Fate::NotDone,
            retry: Retry::Later,
            why: Why::ApplicationError,
            detail: "the server's ledger epoch is below one seen before: an old primary".to_owned(),
        }
    }

    /// The caller's budget ran out.
    pub fn timeout(detail: impl Into<String>) -> Self {
        Self {
            fate: Fate::Unknown,
            retry: Retry::Later,
            why: Why::Timeout,
            detail: detail.into(),
        }
    }
}
