//! The ledger in memory: what embedded mode and the simulator use instead of Postgres.
//!
//! All state is under one mutex that is never held over an await. With a [`Journal`] every change of
//! the platform's tables is in the log before its call returns; at start the log is read back
//! through [`MemoryLedger::replay`], and final rows come back by draining the log again from 0.
//! Holds are not journalled: a hold is not an answer.
//!
//! Bounds: [`ORDERS_MAX`] orders, [`CARDS_MAX`] cards, [`MERCHANT_IDS_MAX`] merchant ids, [`PAYMENTS_MAX`]
//! payments, reversals and movements each, [`RUNS_MAX`] reconciliation runs (the oldest is dropped); past
//! the others a call is refused and may be tried later. Trips and their
//! events are bounded by orders (event ids of a completed trip are dropped), conflicts and audit
//! rows by the log they came from, whose space is budgeted.

mod clearing;
mod directory;
mod payments;
mod platform;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use uuid::Uuid;

use super::clearing::{
    Acted, Beside, BesideAsk, CLEARING_ROWS_MAX, Case, CaseAction, CaseFilter, CaseStanding,
    CaseTrail, ClearingBooks, ClearingFile, ClearingLine, FoundCase, KeptRun, RunPlace, StageStep,
};
use super::{
    Advice, Advised, AuditRow, AuthorizationRow, Booked, BookedEvent, CacheHome, CachePromotion,
    Card, CardHolder, Claim, ClosedCursor, ClosedTrip, Completed, ConflictRow, DirectoryVersion,
    DrainStep, EventsBooked, Fate, HOLD_ROWS_MAX, HoldReply, Ledger, LedgerError, OpenTrip, Placed,
    ReconcileRun, Retry, StaleHold, StartTrip, Started, rows,
};
use crate::BoxFuture;
use crate::answer::Why;
use crate::clock::{Clock, Timestamp};
use crate::entry::{PlatformEvent, Proposal, Settlement};
use crate::id::{BankId, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::merchant::{MerchantId, MerchantKey, Store};
use crate::trip::{Applied, Order, TripChange};
use clearing::Clearing;
use payments::Payments;
use platform::Platform;

/// Most orders kept.
pub const ORDERS_MAX: usize = 1_000_000;
/// Most cards kept.
pub const CARDS_MAX: usize = 1_000_000;
/// Most merchant ids kept.
pub const MERCHANT_IDS_MAX: usize = 1_000_000;
/// Most payments kept.
pub const PAYMENTS_MAX: usize = 4_000_000;
/// Most reconciliation runs kept.
pub const RUNS_MAX: usize = 100;

/// Where the memory ledger makes the platform's changes durable.
pub trait Journal: Send + Sync + 'static {
    /// Records one change; resolves once it is durable.
    ///
    /// The first poll takes the event's place in the journal's order: the ledger polls once under
    /// its lock, so that events are journalled in the order in which they were applied.
    fn record(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), LedgerError>>;
}

/// The ledger in memory.
pub struct MemoryLedger {
    clock: Arc<dyn Clock>,
    journal: Option<Arc<dyn Journal>>,
    state: Mutex<State>,
}

/// Everything the ledger keeps.
#[derive(Clone, Default)]
struct State {
    platform: Platform,
    payments: Payments,
    clearing: Clearing,
    epochs: Epochs,
    cache_home: CacheHome,
}

/// Which epoch this ledger is of, and the highest that was seen.
#[derive(Clone)]
struct Epochs {
    own: u64,
    seen: u64,
}

/// A journal entry on its way: its place is taken.
type Recording<'a> = BoxFuture<'a, Result<(), LedgerError>>;

// === impl MemoryLedger ===

impl MemoryLedger {
    /// An empty ledger; `journal` is where changes of the platform's tables go before they are
    /// acknowledged.
    pub fn new(clock: Arc<dyn Clock>, journal: Option<Arc<dyn Journal>>) -> Self {
        Self {
            clock,
            journal,
            state: Mutex::default(),
        }
    }

    /// A ledger of its own that holds what this one holds now, without a journal: a standby.
    pub fn copy(&self) -> Self {
        Self {
            clock: Arc::clone(&self.clock),
            journal: None,
            state: Mutex::new(self.lock().clone()),
        }
    }

    /// Applies a change read back from the log. A second time it changes nothing;
    /// [`Applied::Refused`] means that the log holds a change that does not fit what came before.
    pub fn replay(&self, event: &PlatformEvent) -> Applied {
        let now = self.clock.now();
        self.lock().platform.replay(event, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug; what was applied before it stays readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the events' places in the journal; called under the lock.
    fn record(&self, events: Vec<PlatformEvent>) -> Vec<Recording<'_>> {
        let Some(journal) = &self.journal else {
            return Vec::new();
        };
        events
            .into_iter()
            .map(|event| {
                let mut recording = journal.record(event);
                match recording
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                {
                    Poll::Ready(result) => Box::pin(std::future::ready(result)),
                    Poll::Pending => recording,
                }
            })
            .collect()
    }

    /// Applies a change under the lock and waits for its journal entries. Repeats that change
    /// nothing are journalled again, so that a repeat after a failed journal is durable.
    fn change<'a, T: Send + 'a>(
        &'a self,
        apply: impl FnOnce(&mut State) -> Result<(T, Vec<PlatformEvent>), LedgerError>,
    ) -> BoxFuture<'a, Result<T, LedgerError>> {
        let mut state = self.lock();
        let applied = apply(&mut state).map(|(result, events)| (result, self.record(events)));
        drop(state);
        Box::pin(async move {
            let (result, recordings) = applied?;
            for recording in recordings {
                recording.await?;
            }
            Ok(result)
        })
    }

    /// Reads or changes what is not journalled.
    fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, LedgerError>,
    ) -> BoxFuture<'_, Result<T, LedgerError>> {
        let result = act(&mut self.lock());
        Box::pin(std::future::ready(result))
    }
}

impl std::fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLedger")
            .field("journalled", &self.journal.is_some())
            .finish_non_exhaustive()
    }
}

impl Ledger for MemoryLedger {
    fn hold(&self, batch: Vec<Proposal>) -> BoxFuture<'_, Result<Vec<HoldReply>, LedgerError>> {
        let now = self.clock.now();
        self.with(|state| {
            let State {
                platform,
                payments,
                epochs,
                ..
            } = state;
            if batch.len() > HOLD_ROWS_MAX {
                return Err(rows::wrong("too many proposals in one batch"));
            }
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            epochs.check()?;
            payments.room(batch.len())?;
            let hold = |proposal| payments.hold(platform, proposal, now);
            Ok(batch.iter().map(hold).collect())
        })
    }

    fn advise(&self, advice: Advice) -> BoxFuture<'_, Result<Advised, LedgerError>> {
        self.with(|state| {
            state.epochs.check()?;
            state.payments.advise(&advice)
        })
    }

    fn open_trip(
        &self,
        shopper: ShopperId,
    ) -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>> {
        self.with(|state| {
            let State {
                platform, payments, ..
            } = state;
            let open = platform.open(shopper);
            Ok(open.map(|sheet| payments.with_approvals(sheet)))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.with(|state| state.epochs.check())
    }

    fn directory_version(&self) -> BoxFuture<'_, Result<DirectoryVersion, LedgerError>> {
        self.with(|state| Ok(state.platform.directory.version()))
    }

    fn stores_after(
        &self,
        after: Option<StoreId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Store>, LedgerError>> {
        self.with(|state| Ok(state.platform.directory.stores_after(after, limit)))
    }

    fn merchant_ids_after(
        &self,
        after: Option<MerchantKey>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<MerchantId>, LedgerError>> {
        self.with(|state| Ok(state.platform.directory.ids_after(after, limit)))
    }

    fn card_holder(&self, card: Card) -> BoxFuture<'_, Result<Option<ShopperId>, LedgerError>> {
        self.with(|state| Ok(state.platform.card_holder(&card)))
    }

    fn cards(
        &self,
        after: Option<Card>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<CardHolder>, LedgerError>> {
        self.with(|state| Ok(state.platform.cards(after.as_ref(), limit)))
    }

    fn cursor(&self, log: Uuid) -> BoxFuture<'_, Result<u64, LedgerError>> {
        self.with(|state| Ok(state.payments.cursor(log)))
    }

    fn book(&self, step: DrainStep) -> BoxFuture<'_, Result<Booked, LedgerError>> {
        self.with(|state| {
            if !step.fits() {
                return Err(rows::wrong("too many rows in one step"));
            }
            state.epochs.check()?;
            state.payments.room(step.outcomes.len())?;
            state.payments.room_for_reversals(step.reversals.len())?;
            state
                .payments
                .room_for_settlements(step.settlements.len())?;
            Ok(state.payments.book(&step))
        })
    }

    fn epoch(&self) -> u64 {
        self.lock().epochs.seen
    }

    fn require_epoch(&self, epoch: u64) {
        let mut state = self.lock();
        state.epochs.seen = state.epochs.seen.max(epoch);
    }

    fn promote_epoch(&self) -> BoxFuture<'_, Result<u64, LedgerError>> {
        self.with(|state| {
            let epochs = &mut state.epochs;
            epochs.own = epochs.own.max(epochs.seen).saturating_add(1);
            epochs.seen = epochs.own;
            Ok(epochs.own)
        })
    }

    fn cache_home(&self) -> BoxFuture<'_, Result<CacheHome, LedgerError>> {
        self.with(|state| Ok(state.cache_home.clone()))
    }

    fn promote_cache_home(
        &self,
        promotion: CachePromotion,
    ) -> BoxFuture<'_, Result<CacheHome, LedgerError>> {
        self.with(|state| {
            state.cache_home = promotion.on(&state.cache_home);
            let audited = promotion.audit(&state.cache_home);
            state.payments.audit_action(Some(audited));
            Ok(state.cache_home.clone())
        })
    }

    fn put_store(&self, store: Store) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.change(|state| {
            state.platform.directory.put_store(store.clone());
            Ok(((), vec![PlatformEvent::StorePut(store)]))
        })
    }

    fn set_card(
        &self,
        card: Card,
        shopper: Option<ShopperId>,
    ) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.change(|state| {
            state.platform.set_card(card.clone(), shopper)?;
            Ok(((), vec![PlatformEvent::CardSet { card, shopper }]))
        })
    }

    fn put_merchant_id(&self, id: MerchantId) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.change(|state| {
            state.platform.directory.put_id(id.clone())?;
            Ok(((), vec![PlatformEvent::MerchantIdPut(id)]))
        })
    }

    fn remove_merchant_id(&self, key: MerchantKey) -> BoxFuture<'_, Result<bool, LedgerError>> {
        self.change(|state| {
            let removed = state.platform.directory.remove_id(&key);
            Ok((removed, vec![PlatformEvent::MerchantIdRemoved(key)]))
        })
    }

    fn place_order(&self, order: Order) -> BoxFuture<'_, Result<Placed, LedgerError>> {
        self.change(|state| {
            let order = rows::as_placed(order)?;
            let placed = state.platform.place(order.clone())?;
            let events = match placed {
                Placed::Now | Placed::Before => vec![PlatformEvent::OrderPlaced(order)],
                Placed::Differs | Placed::UnknownStore => Vec::new(),
            };
            Ok((placed, events))
        })
    }

    fn order(&self, id: OrderId) -> BoxFuture<'_, Result<Option<Order>, LedgerError>> {
        self.with(|state| Ok(state.platform.order(id)))
    }

    fn offers(&self, store: StoreId, limit: u32) -> BoxFuture<'_, Result<Vec<Order>, LedgerError>> {
        self.with(|state| Ok(state.platform.offers(store, limit)))
    }

    fn claim(
        &self,
        order: OrderId,
        shopper: ShopperId,
    ) -> BoxFuture<'_, Result<Claim, LedgerError>> {
        self.change(|state| {
            let claim = state.platform.claim(order, shopper);
            let events = match claim {
                Claim::Won => vec![PlatformEvent::OrderClaimed { order, shopper }],
                Claim::Lost | Claim::UnknownOrder | Claim::Gone => Vec::new(),
            };
            Ok((claim, events))
        })
    }

    fn start_trip(&self, start: StartTrip) -> BoxFuture<'_, Result<Started, LedgerError>> {
        self.change(|state| {
            let started = state.platform.start(&start)?;
            let StartTrip {
                trip,
                shopper,
                orders,
                at,
            } = start;
            let events = match started {
                Started::Trip(_) => vec![PlatformEvent::TripStarted {
                    trip,
                    shopper,
                    orders,
                    at,
                }],
                Started::HasTrip(_) | Started::NotClaimed(_) | Started::Mixed => Vec::new(),
            };
            Ok((started, events))
        })
    }

    fn trip(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Option<OpenTrip>, LedgerError>> {
        self.with(|state| {
            let State {
                platform, payments, ..
            } = state;
            let sheet = platform.trip(shopper, trip);
            Ok(sheet.map(|sheet| payments.with_approvals(sheet)))
        })
    }

    fn book_events(
        &self,
        events: Vec<BookedEvent>,
    ) -> BoxFuture<'_, Result<EventsBooked, LedgerError>> {
        let now = self.clock.now();
        self.change(|state| {
            let mut counts = EventsBooked::default();
            let mut journalled = Vec::new();
            for BookedEvent { event, version } in events {
                let applied = state.platform.book_event(&event, version, now);
                let count = match applied {
                    Applied::Changed => &mut counts.changed,
                    Applied::Unchanged => &mut counts.unchanged,
                    Applied::Refused => &mut counts.refused,
                };
                *count = count.saturating_add(1);
                // Positions are not kept in the ledger, nor in its journal.
                let moved = matches!(event.what, TripChange::Moved { .. });
                if applied != Applied::Refused && !moved {
                    journalled.push(PlatformEvent::TripChanged(event));
                }
            }
            Ok((counts, journalled))
        })
    }

    fn complete(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> BoxFuture<'_, Result<Completed, LedgerError>> {
        self.change(|state| {
            let completed = state.platform.complete(shopper, trip);
            let events = match completed {
                Completed::Now | Completed::Before => {
                    vec![PlatformEvent::TripCompleted { trip, shopper }]
                }
                Completed::StillShopping | Completed::UnknownTrip => Vec::new(),
            };
            Ok((completed, events))
        })
    }

    fn closed_since(
        &self,
        after: Option<ClosedCursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<ClosedTrip>, LedgerError>> {
        self.with(|state| Ok(state.platform.closed_since(after, limit)))
    }

    fn authorizations(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<AuthorizationRow>, LedgerError>> {
        self.with(|state| Ok(state.payments.rows_after(after, limit)))
    }

    fn authorization(
        &self,
        id: TransactionId,
    ) -> BoxFuture<'_, Result<Option<AuthorizationRow>, LedgerError>> {
        self.with(|state| Ok(state.payments.row(id)))
    }

    fn stale_holds(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StaleHold>, LedgerError>> {
        self.with(|state| Ok(state.payments.stale_holds(before, limit)))
    }

    fn release(&self, holds: Vec<StaleHold>) -> BoxFuture<'_, Result<u64, LedgerError>> {
        self.with(|state| Ok(state.payments.release(&holds)))
    }

    fn settlements(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Settlement>, LedgerError>> {
        self.with(|state| Ok(state.payments.settlements(after, limit)))
    }

    fn conflicts(&self, limit: u32) -> BoxFuture<'_, Result<Vec<ConflictRow>, LedgerError>> {
        self.with(|state| Ok(state.payments.conflicts(limit)))
    }

    fn audit(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditRow>, LedgerError>> {
        self.with(|state| Ok(state.payments.audit(limit)))
    }

    fn record_run(&self, run: ReconcileRun) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.with(|state| {
            state.payments.record_run(run);
            Ok(())
        })
    }
}

impl ClearingBooks for MemoryLedger {
    fn open_file(&self, file: ClearingFile) -> BoxFuture<'_, Result<ClearingFile, LedgerError>> {
        self.with(|state| Ok(state.clearing.open_file(file)))
    }

    fn stage(&self, step: StageStep) -> BoxFuture<'_, Result<u64, LedgerError>> {
        self.with(|state| {
            let State {
                platform, clearing, ..
            } = state;
            clearing.stage(step, |card| platform.card_holder(card))
        })
    }

    fn complete_file(&self, file: Uuid) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.with(|state| state.clearing.complete_file(file))
    }

    fn clearing_files(
        &self,
        bank: BankId,
    ) -> BoxFuture<'_, Result<Vec<ClearingFile>, LedgerError>> {
        self.with(|state| Ok(state.clearing.files(&bank)))
    }

    fn beside(&self, ask: BesideAsk) -> BoxFuture<'_, Result<Beside, LedgerError>> {
        self.with(|state| {
            let State {
                platform,
                payments,
                clearing,
                ..
            } = state;
            let most = ask.payments.len().max(ask.shoppers.len());
            if most.max(ask.trips.len()) > CLEARING_ROWS_MAX {
                return Err(rows::wrong("too much asked about at once"));
            }
            let receipts = ask.trips.iter();
            Ok(Beside {
                lines: clearing.lines_beside(&ask.payments, &ask.shoppers),
                movements: payments.movements_of(&ask.payments),
                conflicted: payments.conflicted_among(&ask.payments),
                receipts: receipts
                    .filter_map(|(shopper, trip)| platform.receipt(*shopper, *trip))
                    .collect(),
            })
        })
    }

    fn lines_at(
        &self,
        file: Uuid,
        lines: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<ClearingLine>, LedgerError>> {
        self.with(|state| state.clearing.lines_at(file, &lines))
    }

    fn known_payments(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<BTreeSet<TransactionId>, LedgerError>> {
        self.with(|state| {
            let known = |id: &TransactionId| state.payments.row(*id).is_some();
            Ok(payments.into_iter().filter(known).collect())
        })
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<(Uuid, u64)>, LedgerError>> {
        self.with(|state| Ok(state.payments.cursors()))
    }

    fn keep_cases(
        &self,
        found: Vec<FoundCase>,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<CaseStanding>, LedgerError>> {
        self.with(|state| state.clearing.keep_cases(&found, at))
    }

    fn cases(
        &self,
        filter: CaseFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Case>, LedgerError>> {
        self.with(|state| Ok(state.clearing.cases(&filter, after, limit)))
    }

    fn case(&self, id: Uuid) -> BoxFuture<'_, Result<Option<CaseTrail>, LedgerError>> {
        self.with(|state| Ok(state.clearing.case(id)))
    }

    fn act_on_case(&self, action: CaseAction) -> BoxFuture<'_, Result<Acted, LedgerError>> {
        self.with(|state| {
            let (acted, audit) = state.clearing.act(&action)?;
            state.payments.audit_action(audit);
            Ok(acted)
        })
    }

    fn runs(
        &self,
        before: Option<RunPlace>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<KeptRun>, LedgerError>> {
        self.with(|state| Ok(state.payments.runs(before, limit)))
    }
}

// === impl Epochs ===

impl Epochs {
    fn check(&mut self) -> Result<(), LedgerError> {
        if self.own < self.seen {
            return Err(LedgerError::stale_epoch());
        }
        self.seen = self.own;
        Ok(())
    }
}

impl Default for Epochs {
    /// As migrations leave it; nothing was seen yet.
    fn default() -> Self {
        Self { own: 1, seen: 0 }
    }
}

/// Refuses what would not fit.
fn full(what: &'static str) -> LedgerError {
    LedgerError {
        fate: Fate::NotDone,
        retry: Retry::Later,
        why: Why::ApplicationError,
        detail: format!("the memory ledger is full: no room for more {what}"),
    }
}

#[cfg(test)]
mod tests;
