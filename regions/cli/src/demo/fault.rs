//! A primary that can hang and go away: a decorator around any ledger.
//!
//! Hung, calls that arrive never return, and of calls under way the effect happens but the reply
//! does not come: what a frozen server does. Gone, calls fail at once, and what hung fails with a
//! lost connection.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_core::clock::Timestamp;
use standin_core::entry::{Proposal, Settlement};
use standin_core::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::{
    Advice, Advised, AuditRow, AuthorizationRow, Booked, BookedEvent, Card, CardHolder, Claim,
    ClosedCursor, ClosedTrip, Completed, ConflictRow, DirectoryVersion, DrainStep, EventsBooked,
    HoldReply, Ledger, LedgerError, OpenTrip, Placed, ReconcileRun, StaleHold, StartTrip, Started,
};
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::trip::Order;
use tokio::sync::watch;
use uuid::Uuid;

/// How the primary is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It answers.
    Up,
    /// Calls never return.
    Hung,
    /// Calls fail at once.
    Gone,
}

/// Says how the primary is.
#[derive(Clone, Debug)]
pub struct Switch(Arc<watch::Sender<State>>);

/// A ledger that does what its [`Switch`] says.
pub struct FaultyLedger {
    inner: Arc<dyn Ledger>,
    state: watch::Receiver<State>,
}

// === impl Switch ===

impl Switch {
    /// A switch of a primary that is up.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::Up)))
    }

    /// From now on the primary is so.
    pub fn set(&self, state: State) {
        self.0.send_replace(state);
    }

    /// Puts the switch before a ledger.
    pub fn wrap(&self, inner: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        Arc::new(FaultyLedger {
            inner,
            state: self.0.subscribe(),
        })
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

// === impl FaultyLedger ===

impl FaultyLedger {
    /// Runs a call as far as the primary's state lets it.
    async fn pass<'a, T, F>(&'a self, call: F) -> Result<T, LedgerError>
    where
        F: FnOnce(&'a dyn Ledger) -> BoxFuture<'a, Result<T, LedgerError>>,
    {
        self.before().await?;
        let reply = call(self.inner.as_ref()).await;
        self.after().await?;
        reply
    }

    async fn before(&self) -> Result<(), LedgerError> {
        let mut state = self.state.clone();
        let found = *state.borrow_and_update();
        match found {
            State::Up => Ok(()),
            State::Gone => Err(LedgerError::unreachable("the primary is gone")),
            State::Hung => Err(until_cut(state).await),
        }
    }

    async fn after(&self) -> Result<(), LedgerError> {
        let mut state = self.state.clone();
        let found = *state.borrow_and_update();
        match found {
            State::Up => Ok(()),
            State::Gone => Err(LedgerError::lost("the primary went away")),
            State::Hung => Err(until_cut(state).await),
        }
    }
}

/// Waits while the primary hangs; what hung is never answered, whatever comes next.
async fn until_cut(mut state: watch::Receiver<State>) -> LedgerError {
    // The switch outlives every call: it is held by whoever drives the faults.
    drop(state.wait_for(|now| *now != State::Hung).await);
    LedgerError::lost("the primary went away")
}

macro_rules! pass {
    ($(fn $name:ident(&self $(, $arg:ident: $kind:ty)*) -> $reply:ty;)*) => {
        impl Ledger for FaultyLedger {
            $(fn $name(&self $(, $arg: $kind)*) -> BoxFuture<'_, Result<$reply, LedgerError>> {
                Box::pin(self.pass(move |inner| inner.$name($($arg),*)))
            })*

            fn epoch(&self) -> u64 {
                self.inner.epoch()
            }

            fn require_epoch(&self, epoch: u64) {
                self.inner.require_epoch(epoch);
            }
        }
    };
}

pass! {
    fn advise(&self, advice: Advice) -> Advised;
    fn promote_epoch(&self) -> u64;
    fn cache_home(&self) -> standin_core::ledger::CacheHome;
    fn promote_cache_home(&self, promotion: standin_core::ledger::CachePromotion) -> standin_core::ledger::CacheHome;
    fn closed_since(&self, after: Option<ClosedCursor>, limit: u32) -> Vec<ClosedTrip>;
    fn hold(&self, batch: Vec<Proposal>) -> Vec<HoldReply>;
    fn open_trip(&self, shopper: ShopperId) -> Option<OpenTrip>;
    fn probe(&self) -> ();
    fn directory_version(&self) -> DirectoryVersion;
    fn stores_after(&self, after: Option<StoreId>, limit: u32) -> Vec<Store>;
    fn merchant_ids_after(&self, after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId>;
    fn cursor(&self, log: Uuid) -> u64;
    fn book(&self, step: DrainStep) -> Booked;
    fn put_store(&self, store: Store) -> ();
    fn set_card(&self, card: Card, shopper: Option<ShopperId>) -> ();
    fn card_holder(&self, card: Card) -> Option<ShopperId>;
    fn cards(&self, after: Option<Card>, limit: u32) -> Vec<CardHolder>;
    fn put_merchant_id(&self, id: MerchantId) -> ();
    fn remove_merchant_id(&self, key: MerchantKey) -> bool;
    fn place_order(&self, order: Order) -> Placed;
    fn order(&self, id: OrderId) -> Option<Order>;
    fn offers(&self, store: StoreId, limit: u32) -> Vec<Order>;
    fn claim(&self, order: OrderId, shopper: ShopperId) -> Claim;
    fn start_trip(&self, start: StartTrip) -> Started;
    fn trip(&self, shopper: ShopperId, trip: TripId) -> Option<OpenTrip>;
    fn book_events(&self, events: Vec<BookedEvent>) -> EventsBooked;
    fn complete(&self, shopper: ShopperId, trip: TripId) -> Completed;
    fn authorizations(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32
    ) -> Vec<AuthorizationRow>;
    fn authorization(&self, id: TransactionId) -> Option<AuthorizationRow>;
    fn settlements(&self, after: Option<Uuid>, limit: u32) -> Vec<Settlement>;
    fn stale_holds(&self, before: Timestamp, limit: u32) -> Vec<StaleHold>;
    fn release(&self, holds: Vec<StaleHold>) -> u64;
    fn conflicts(&self, limit: u32) -> Vec<ConflictRow>;
    fn audit(&self, limit: u32) -> Vec<AuditRow>;
    fn record_run(&self, run: ReconcileRun) -> ();
}

#[cfg(test)]
mod tests {
    use super::*;
    use standin_core::clock::SystemClock;
    use standin_core::ledger::Fate;
    use standin_core::ledger::memory::MemoryLedger;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn hung_calls_never_return_and_fail_once_the_primary_is_gone() {
        let switch = Switch::new();
        let ledger = switch.wrap(Arc::new(MemoryLedger::new(Arc::new(SystemClock), None)));
        assert!(ledger.probe().await.is_ok());
        switch.set(State::Hung);
        let mut hung = ledger.probe();
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, &mut hung).await.is_err());
        switch.set(State::Gone);
        assert_eq!(hung.await.unwrap_err().fate, Fate::Unknown);
        assert_eq!(ledger.probe().await.unwrap_err().fate, Fate::NotDone);
        switch.set(State::Up);
        assert!(ledger.probe().await.is_ok());
    }
}
