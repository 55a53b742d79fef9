//! Orders and trips in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use uuid::Uuid;

use super::super::clearing::Receipt;
use super::super::closed::{ClosedCursor, ClosedKey, ClosedTrip};
use super::super::{
    CARD_ROWS_MAX, Card, CardHolder, Claim, Completed, LedgerError, Placed, StartTrip, Started,
    rows,
};
use super::directory::Directory;
use super::{CARDS_MAX, ORDERS_MAX, full};
use crate::clock::Timestamp;
use crate::entry::PlatformEvent;
use crate::id::{OrderId, ShopperId, StoreId, TripId};
use crate::money::Money;
use crate::trip::{
    Applied, ORDERS_PER_TRIP_MAX, Order, OrderStatus, TripChange, TripEvent, TripSheet, TripStatus,
};

/// The platform's tables.
#[derive(Clone, Default)]
pub(super) struct Platform {
    pub(super) directory: Directory,
    cards: BTreeMap<Card, ShopperId>,
    orders: HashMap<OrderId, Order>,
    /// PLACED orders by store and age.
    placed: BTreeMap<(StoreId, u64), OrderId>,
    ages: HashMap<OrderId, u64>,
    /// The trip that serves an order; its sheet then holds the order's lines.
    serving: HashMap<OrderId, (ShopperId, TripId)>,
    trips: HashMap<(ShopperId, TripId), TripRecord>,
    /// The trip of a shopper that is not COMPLETE.
    open: HashMap<ShopperId, TripId>,
    /// Trips that left SHOPPING, each later than the one before: under one lock none comes late.
    closed: BTreeMap<Timestamp, (ShopperId, TripId)>,
}

/// A trip and the events it has seen.
#[derive(Clone)]
struct TripRecord {
    sheet: TripSheet,
    events: HashSet<Uuid>,
}

// === impl Platform ===

impl Platform {
    pub(super) fn set_card(
        &mut self,
        card: Card,
        shopper: Option<ShopperId>,
    ) -> Result<(), LedgerError> {
        match shopper {
            None => drop(self.cards.remove(&card)),
            Some(_) if self.cards.len() >= CARDS_MAX && !self.cards.contains_key(&card) => {
                return Err(full("cards"));
            }
            Some(shopper) => drop(self.cards.insert(card, shopper)),
        }
        Ok(())
    }

    pub(super) fn card_holder(&self, card: &Card) -> Option<ShopperId> {
        self.cards.get(card).copied()
    }

    pub(super) fn cards(&self, after: Option<&Card>, limit: u32) -> Vec<CardHolder> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let limit = usize::try_from(limit.min(CARD_ROWS_MAX)).unwrap_or(usize::MAX);
        self.cards
            .range::<Card, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(card, shopper)| CardHolder {
                card: card.clone(),
                shopper: *shopper,
            })
            .collect()
    }

    /// Places an order that [`rows::as_placed`] made.
    pub(super) fn place(&mut self, order: Order) -> Result<Placed, LedgerError> {
        if let Some(there) = self.orders.get(&order.id) {
            return Ok(if rows::same_order(there, &order) {
                Placed::Before
            } else {
                Placed::Differs
            });
        }
        if !self.directory.has_store(order.store) {
            return Ok(Placed::UnknownStore);
        }
        if self.orders.len() >= ORDERS_MAX {
            return Err(full("orders"));
        }
        let age = u64::try_from(self.orders.len()).unwrap_or(u64::MAX);
        self.placed.insert((order.store, age), order.id);
        self.ages.insert(order.id, age);
        self.orders.insert(order.id, order);
        Ok(Placed::Now)
    }

    pub(super) fn order(&self, id: OrderId) -> Option<Order> {
        let mut order = self.orders.get(&id)?.clone();
        let on_trip = self.serving.get(&id).and_then(|key| self.trips.get(key));
        if let Some(items) = on_trip.and_then(|record| record.sheet.items.get(&id)) {
            order.items.clone_from(items);
        }
        Some(order)
    }

    pub(super) fn offers(&self, store: StoreId, limit: u32) -> Vec<Order> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.placed
            .range((store, 0)..=(store, u64::MAX))
            .filter_map(|(_, id)| self.orders.get(id).cloned())
            .take(limit)
            .collect()
    }

    pub(super) fn claim(&mut self, id: OrderId, shopper: ShopperId) -> Claim {
        let Some(order) = self.orders.get_mut(&id) else {
            return Claim::UnknownOrder;
        };
        match (order.status, order.shopper) {
            (OrderStatus::Placed, _) => {
                order.status = OrderStatus::Claimed;
                order.shopper = Some(shopper);
                let age = self.ages.get(&id).copied().unwrap_or(u64::MAX);
                self.placed.remove(&(order.store, age));
                Claim::Won
            }
            (_, Some(winner)) if winner == shopper => Claim::Won,
            (OrderStatus::Claimed, _) => Claim::Lost,
            (OrderStatus::Shopping | OrderStatus::Delivering | OrderStatus::Complete, _) => {
                Claim::Gone
            }
        }
    }

    pub(super) fn start(&mut self, start: &StartTrip) -> Result<Started, LedgerError> {
        let mut ids = start.orders.clone();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() || ids.len() > ORDERS_PER_TRIP_MAX {
            return Err(rows::wrong("a trip has 1 to 16 orders"));
        }
        if let Some(record) = self.trips.get(&(start.shopper, start.trip)) {
            return Ok(if record.sheet.items.keys().eq(&ids) {
                Started::Trip(Box::new(record.sheet.clone()))
            } else {
                Started::HasTrip(start.trip)
            });
        }
        if let Some(open) = self.open.get(&start.shopper) {
            return Ok(Started::HasTrip(*open));
        }
        let mut orders = Vec::with_capacity(ids.len());
        for id in &ids {
            match self.orders.get(id) {
                Some(order)
                    if order.status == OrderStatus::Claimed
                        && order.shopper == Some(start.shopper) =>
                {
                    orders.push(order.clone());
                }
                Some(_) | None => return Ok(Started::NotClaimed(*id)),
            }
        }
        let mixed = orders.windows(2).any(|pair| {
            let [one, other] = pair else { return false };
            one.store != other.store || one.currency != other.currency
        });
        if mixed {
            return Ok(Started::Mixed);
        }
        let Some(sheet) = TripSheet::start(start.trip, start.shopper, orders, start.at) else {
            return Err(rows::wrong("a trip has 1 to 16 orders"));
        };
        self.set_orders(&ids, OrderStatus::Shopping);
        for id in ids {
            self.serving.insert(id, (start.shopper, start.trip));
        }
        self.open.insert(start.shopper, start.trip);
        let record = TripRecord {
            sheet: sheet.clone(),
            events: HashSet::new(),
        };
        self.trips.insert((start.shopper, start.trip), record);
        Ok(Started::Trip(Box::new(sheet)))
    }

    fn set_orders(&mut self, ids: &[OrderId], status: OrderStatus) {
        for id in ids {
            if let Some(order) = self.orders.get_mut(id) {
                order.status = status;
            }
        }
    }

    pub(super) fn open(&self, shopper: ShopperId) -> Option<TripSheet> {
        self.trip(shopper, *self.open.get(&shopper)?)
    }

    pub(super) fn trip(&self, shopper: ShopperId, trip: TripId) -> Option<TripSheet> {
        self.trips
            .get(&(shopper, trip))
            .map(|record| record.sheet.clone())
    }

    /// What a trip's cart came to.
    pub(super) fn receipt(&self, shopper: ShopperId, trip: TripId) -> Option<Receipt> {
        let trip = &self.trips.get(&(shopper, trip))?.sheet.trip;
        Some(Receipt {
            trip: trip.id,
            picked: Money::from_minor(trip.picked, trip.currency),
            closed: trip.status != TripStatus::Shopping,
        })
    }

    /// Where a trip stands.
    pub(super) fn status(&self, shopper: ShopperId, trip: TripId) -> Option<TripStatus> {
        self.trips
            .get(&(shopper, trip))
            .map(|record| record.sheet.trip.status)
    }

    pub(super) fn book_event(
        &mut self,
        event: &TripEvent,
        version: Option<u64>,
        now: Timestamp,
    ) -> Applied {
        let Some(record) = self.trips.get_mut(&(event.shopper, event.trip)) else {
            return Applied::Refused;
        };
        let applied = if record.events.contains(&event.id) {
            Applied::Unchanged
        } else {
            record.sheet.apply(&event.what)
        };
        if applied == Applied::Refused {
            return applied;
        }
        let trip = &mut record.sheet.trip;
        trip.version = trip.version.max(version.unwrap_or(0));
        // A position changes nothing however often it comes, so its id need not be kept.
        if !matches!(event.what, TripChange::Moved { .. }) && trip.status != TripStatus::Complete {
            record.events.insert(event.id);
        }
        if applied == Applied::Changed && event.what == TripChange::Finish {
            let ids: Vec<_> = record.sheet.items.keys().copied().collect();
            self.set_orders(&ids, OrderStatus::Delivering);
            self.close(event.shopper, event.trip, now);
        }
        applied
    }

    fn close(&mut self, shopper: ShopperId, trip: TripId, now: Timestamp) {
        let last = self.closed.last_key_value().map(|(at, _)| *at);
        let next = last.map(|last| last.plus(Duration::from_millis(1)));
        let at = next.map_or(now, |next| next.max(now));
        self.closed.insert(at, (shopper, trip));
    }

    pub(super) fn closed_since(&self, after: Option<ClosedCursor>, limit: u32) -> Vec<ClosedTrip> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match after.map(|cursor| cursor.fresh) {
            None => Unbounded,
            // A place in time rather than behind a trip.
            Some(key) if key.trip.is_nil() => Included(key.at),
            Some(key) => Excluded(key.at),
        };
        let told = self.closed.range((from, Unbounded));
        told.take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|(at, (shopper, trip))| {
                let key = ClosedKey {
                    at: *at,
                    shopper: shopper.get(),
                    trip: trip.0,
                };
                ClosedTrip {
                    cursor: ClosedCursor {
                        fresh: key,
                        settled: key,
                    },
                    trip: *trip,
                    shopper: *shopper,
                }
            })
            .collect()
    }

    pub(super) fn complete(&mut self, shopper: ShopperId, trip: TripId) -> Completed {
        let Some(record) = self.trips.get_mut(&(shopper, trip)) else {
            return Completed::UnknownTrip;
        };
        match record.sheet.trip.status {
            TripStatus::Shopping => return Completed::StillShopping,
            TripStatus::Complete => return Completed::Before,
            TripStatus::Delivering => {}
        }
        record.sheet.trip.status = TripStatus::Complete;
        record.sheet.trip.version = record.sheet.trip.version.saturating_add(1);
        record.events = HashSet::new();
        let ids: Vec<_> = record.sheet.items.keys().copied().collect();
        self.set_orders(&ids, OrderStatus::Complete);
        self.open.remove(&shopper);
        Completed::Now
    }

    /// Applies a change read back from the log.
    pub(super) fn replay(&mut self, event: &PlatformEvent, now: Timestamp) -> Applied {
        match event {
            PlatformEvent::StorePut(store) => changed(self.directory.put_store(store.clone())),
            PlatformEvent::MerchantIdPut(id) => match self.directory.put_id(id.clone()) {
                Ok(put) => changed(put),
                Err(_) => Applied::Refused,
            },
            PlatformEvent::MerchantIdRemoved(key) => changed(self.directory.remove_id(key)),
            PlatformEvent::CardSet { card, shopper } => {
                let before = self.card_holder(card);
                match self.set_card(card.clone(), *shopper) {
                    Ok(()) if before == *shopper => Applied::Unchanged,
                    Ok(()) => Applied::Changed,
                    Err(_) => Applied::Refused,
                }
            }
            PlatformEvent::OrderPlaced(order) => {
                let placed = rows::as_placed(order.clone()).and_then(|order| self.place(order));
                match placed {
                    Ok(Placed::Now) => Applied::Changed,
                    Ok(Placed::Before) => Applied::Unchanged,
                    Ok(Placed::Differs | Placed::UnknownStore) | Err(_) => Applied::Refused,
                }
            }
            PlatformEvent::OrderClaimed { order, shopper } => {
                let free = self.orders.get(order).map(|order| order.status);
                match (free, self.claim(*order, *shopper)) {
                    (Some(OrderStatus::Placed), Claim::Won) => Applied::Changed,
                    (_, Claim::Won) => Applied::Unchanged,
                    (_, Claim::Lost | Claim::UnknownOrder | Claim::Gone) => Applied::Refused,
                }
            }
            PlatformEvent::TripStarted {
                trip,
                shopper,
                orders,
                at,
            } => {
                let known = self.trips.contains_key(&(*shopper, *trip));
                let start = StartTrip {
                    trip: *trip,
                    shopper: *shopper,
                    orders: orders.clone(),
                    at: *at,
                };
                match self.start(&start) {
                    Ok(Started::Trip(_)) if known => Applied::Unchanged,
                    Ok(Started::Trip(_)) => Applied::Changed,
                    Ok(Started::HasTrip(_) | Started::NotClaimed(_) | Started::Mixed) | Err(_) => {
                        Applied::Refused
                    }
                }
            }
            PlatformEvent::TripChanged(event) => self.book_event(event, None, now),
            PlatformEvent::TripCompleted { trip, shopper } => {
                match self.complete(*shopper, *trip) {
                    Completed::Now => Applied::Changed,
                    Completed::Before => Applied::Unchanged,
                    Completed::StillShopping | Completed::UnknownTrip => Applied::Refused,
                }
            }
        }
    }
}

fn changed(changed: bool) -> Applied {
    if changed {
        Applied::Changed
    } else {
        Applied::Unchanged
    }
}
