//! The ledger, as it looks while a fault of the primary is played.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_core::answer::Why;
use standin_core::clock::Timestamp;
use standin_core::entry::{Proposal, Settlement};
use standin_core::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::{
    Advice, Advised, AuditRow, AuthorizationRow, Booked, BookedEvent, CacheHome, CachePromotion,
    Card, CardHolder, Claim, ClosedCursor, ClosedTrip, Completed, ConflictRow, DirectoryVersion,
    DrainStep, EventsBooked, Fate as Done, HoldReply, Ledger, LedgerError, OpenTrip, Placed,
    ReconcileRun, Retry, StaleHold, StartTrip, Started,
};
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::trip::Order;
use uuid::Uuid;

use super::fault::{Caller, Fate, Port};
use super::{HANG_MAX, Plays};

/// See the module.
pub(super) struct PlayedLedger {
    pub(super) inner: Arc<dyn Ledger>,
    pub(super) plays: Arc<Plays>,
}

macro_rules! ledger_calls {
    ($($caller:ident: $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl Ledger for PlayedLedger {
            $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, Result<$out, LedgerError>> {
                let Some((play, fate)) = self.plays.hit(Port::Primary, Caller::$caller) else {
                    return self.inner.$name($($arg),*);
                };
                Box::pin(async move {
                    match fate {
                        Fate::NobodyThere => return Err(LedgerError::unreachable("a drill plays it")),
                        Fate::Refused => return Err(refused()),
                        Fate::Late(delay) => {
                            play.over_within(delay).await;
                        }
                        Fate::Hangs => {
                            if !play.over_within(HANG_MAX).await {
                                return Err(LedgerError::timeout("a drill plays it"));
                            }
                        }
                    }
                    self.inner.$name($($arg),*).await
                })
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

ledger_calls! {
    Payments: hold(batch: Vec<Proposal>) -> Vec<HoldReply>;
    Payments: advise(advice: Advice) -> Advised;
    Payments: open_trip(shopper: ShopperId) -> Option<OpenTrip>;
    Payments: card_holder(card: Card) -> Option<ShopperId>;
    Probes: probe() -> ();
    Drain: cursor(log: Uuid) -> u64;
    Drain: book(step: DrainStep) -> Booked;
    Others: cache_home() -> CacheHome;
    Others: promote_cache_home(promotion: CachePromotion) -> CacheHome;
    Others: directory_version() -> DirectoryVersion;
    Others: stores_after(after: Option<StoreId>, limit: u32) -> Vec<Store>;
    Others: merchant_ids_after(after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId>;
    Others: cards(after: Option<Card>, limit: u32) -> Vec<CardHolder>;
    Others: promote_epoch() -> u64;
    Others: put_store(store: Store) -> ();
    Others: set_card(card: Card, shopper: Option<ShopperId>) -> ();
    Others: put_merchant_id(id: MerchantId) -> ();
    Others: remove_merchant_id(key: MerchantKey) -> bool;
    Others: place_order(order: Order) -> Placed;
    Others: order(id: OrderId) -> Option<Order>;
    Others: offers(store: StoreId, limit: u32) -> Vec<Order>;
    Others: claim(order: OrderId, shopper: ShopperId) -> Claim;
    Others: start_trip(start: StartTrip) -> Started;
    Others: trip(shopper: ShopperId, trip: TripId) -> Option<OpenTrip>;
    Others: book_events(events: Vec<BookedEvent>) -> EventsBooked;
    Others: complete(shopper: ShopperId, trip: TripId) -> Completed;
    Others: closed_since(after: Option<ClosedCursor>, limit: u32) -> Vec<ClosedTrip>;
    Others: authorizations(after: Option<(ShopperId, TransactionId)>, limit: u32) -> Vec<AuthorizationRow>;
    Others: authorization(id: TransactionId) -> Option<AuthorizationRow>;
    Others: settlements(after: Option<Uuid>, limit: u32) -> Vec<Settlement>;
    Others: stale_holds(before: Timestamp, limit: u32) -> Vec<StaleHold>;
    Others: release(holds: Vec<StaleHold>) -> u64;
    Others: conflicts(limit: u32) -> Vec<ConflictRow>;
    Others: audit(limit: u32) -> Vec<AuditRow>;
    Others: record_run(run: ReconcileRun) -> ();
}

/// The server's word that it does not do it.
fn refused() -> LedgerError {
    LedgerError {
        fate: Done::NotDone,
        retry: Retry::Later,
        why: Why::ApplicationError,
        detail: "a drill plays it".to_owned(),
    }
}
