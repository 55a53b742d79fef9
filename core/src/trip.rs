//! Orders, items and trips, and what happens to them: the platform's side of the vocabulary.
//!
//! [`TripSheet::apply`] is the rule by which an event changes a trip; the trip cache and both
//! ledgers follow it, so that a pick means the same wherever it arrives first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{CustomerId, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::money::Currency;

/// Longest category name kept.
pub const CATEGORY_BYTES_MAX: usize = 64;
/// Most items one order may hold.
pub const ITEMS_PER_ORDER_MAX: usize = 500;
/// Most orders one trip may serve.
pub const ORDERS_PER_TRIP_MAX: usize = 16;

/// Where an order stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// The customer has ordered; nobody has claimed it.
    Placed,
    /// One shopper has it.
    Claimed,
    /// Its trip has started.
    Shopping,
    /// On its way to the customer.
    Delivering,
    /// Delivered.
    Complete,
}

/// Where a trip stands. Only a SHOPPING trip is authorized against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TripStatus {
    /// In the store; payments are expected.
    Shopping,
    /// Finished in the store: no more authorizations.
    Delivering,
    /// Over.
    Complete,
}

/// Where an item stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ItemStatus {
    /// Not in the cart (yet, or put back).
    Wanted,
    /// In the cart.
    Picked,
    /// The store has none.
    OutOfStock,
}

/// One line of an order. Amounts are minor units of the order's currency, for the whole line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Position in the order, from 1.
    pub line: u32,
    /// The platform's product number.
    pub product: i64,
    /// Product category; thresholds go by it.
    pub category: String,
    /// Units.
    pub quantity: u32,
    /// Listed price of the line.
    pub listed: i64,
    /// Price seen on the shelf when picked, if the shopper entered one.
    pub actual: Option<i64>,
    /// Where it stands.
    pub status: ItemStatus,
}

/// A customer's order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Its id, made by the platform before it is sent: placing it twice changes nothing.
    pub id: OrderId,
    /// Who ordered.
    pub customer: CustomerId,
    /// From which store.
    pub store: StoreId,
    /// Currency of all its amounts.
    pub currency: Currency,
    /// Where it stands.
    pub status: OrderStatus,
    /// Who claimed it.
    pub shopper: Option<ShopperId>,
    /// Its lines.
    pub items: Vec<Item>,
}

/// One shopper shopping one or more orders at one store: what the edge decides from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trip {
    /// Its id.
    pub id: TripId,
    /// Who shops.
    pub shopper: ShopperId,
    /// Where.
    pub store: StoreId,
    /// Currency of all its amounts.
    pub currency: Currency,
    /// Where it stands.
    pub status: TripStatus,
    /// Bumped by every change; the higher version is the newer truth.
    pub version: u64,
    /// Sum of what is in the cart, at actual prices where known, else listed (minor units).
    pub picked: i64,
    /// The same cart at listed prices only (minor units).
    pub picked_listed: i64,
    /// `picked` by category; sums to `picked`.
    pub mix: BTreeMap<String, i64>,
    /// When the trip started.
    pub started_at: Timestamp,
}

/// A trip with the orders it serves: what the trip cache holds beside the [`Trip`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TripSheet {
    /// The summary the edge reads.
    pub trip: Trip,
    /// The orders' lines, by order.
    pub items: BTreeMap<OrderId, Vec<Item>>,
}

/// A shopper's position. Never logged: `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Latitude in millionths of a degree.
    pub lat_e6: i32,
    /// Longitude in millionths of a degree.
    pub lon_e6: i32,
    /// When it was measured.
    pub at: Timestamp,
}

/// An approval that counts against a trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// The payment.
    pub transaction_id: TransactionId,
    /// Minor units of the trip's currency, after reversals.
    pub amount: i64,
    /// When it was answered.
    pub at: Timestamp,
}

/// Something a shopper did on a trip. Arrives at least once; applying it twice changes nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TripEvent {
    /// Made by the sender; the same on every retry.
    pub id: Uuid,
    /// The trip.
    pub trip: TripId,
    /// Whose trip (partition key).
    pub shopper: ShopperId,
    /// When the platform accepted it.
    pub at: Timestamp,
    /// What happened.
    pub what: TripChange,
}

/// What a [`TripEvent`] says. Not internally tagged: entries of the log hold it in a format that is
/// not self-describing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TripChange {
    /// A line went into the cart.
    Pick {
        /// The order.
        order: OrderId,
        /// The line.
        line: u32,
        /// The price on the shelf for the line, minor units, if it differs or is known.
        actual: Option<i64>,
    },
    /// A line was put back.
    Unpick {
        /// The order.
        order: OrderId,
        /// The line.
        line: u32,
    },
    /// The store has none of it.
    OutOfStock {
        /// The order.
        order: OrderId,
        /// The line.
        line: u32,
    },
    /// The shopper's phone reported where it is.
    Moved {
        /// Where.
        position: Position,
    },
    /// Shopping is over: the trip is DELIVERING and nothing more is authorized.
    Finish,
}

/// What applying an event did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The trip changed and its version was bumped.
    Changed,
    /// It was so already, or it says nothing about the cart (a position).
    Unchanged,
    /// It names a line the trip does not have, or comes too late for the trip's status.
    Refused,
}

// === impl Item ===

impl Item {
    /// What the line adds to the cart: nothing unless picked, else actual where known, else listed.
    pub fn in_cart(&self) -> i64 {
        match self.status {
            ItemStatus::Picked => self.actual.unwrap_or(self.listed),
            ItemStatus::Wanted | ItemStatus::OutOfStock => 0,
        }
    }
}

// === impl TripSheet ===

impl TripSheet {
    /// A trip that starts now with `orders`, nothing picked yet.
    pub fn start(
        id: TripId,
        shopper: ShopperId,
        orders: Vec<Order>,
        now: Timestamp,
    ) -> Option<Self> {
        let first = orders.first()?;
        let trip = Trip {
            id,
            shopper,
            store: first.store,
            currency: first.currency,
            status: TripStatus::Shopping,
            version: 1,
            picked: 0,
            picked_listed: 0,
            mix: BTreeMap::new(),
            started_at: now,
        };
        let items = orders
            .into_iter()
            .map(|order| (order.id, order.items))
            .collect();
        let mut sheet = Self { trip, items };
        sheet.total();
        Some(sheet)
    }

    /// Applies one event. Idempotent: a second time it is [`Applied::Unchanged`].
    pub fn apply(&mut self, change: &TripChange) -> Applied {
        let applied = self.step(change);
        if applied == Applied::Changed {
            self.total();
        }
        applied
    }

    /// Applies events in their order, as [`TripSheet::apply`] would one by one, and says of each
    /// what it did. The cart is summed up once.
    pub fn apply_all<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a TripChange>,
    ) -> Vec<Applied> {
        let steps = changes.into_iter().map(|change| self.step(change));
        let applied: Vec<Applied> = steps.collect();
        if applied.contains(&Applied::Changed) {
            self.total();
        }
        applied
    }

    /// Everything [`TripSheet::apply`] does but summing up the cart.
    fn step(&mut self, change: &TripChange) -> Applied {
        let applied = match change {
            TripChange::Moved { .. } => return Applied::Unchanged,
            TripChange::Finish => match self.trip.status {
                TripStatus::Shopping => {
                    self.trip.status = TripStatus::Delivering;
                    Applied::Changed
                }
                TripStatus::Delivering | TripStatus::Complete => Applied::Unchanged,
            },
            TripChange::Pick {
                order,
                line,
                actual,
            } => self.set(*order, *line, ItemStatus::Picked, *actual),
            TripChange::Unpick { order, line } => self.set(*order, *line, ItemStatus::Wanted, None),
            TripChange::OutOfStock { order, line } => {
                self.set(*order, *line, ItemStatus::OutOfStock, None)
            }
        };
        if applied == Applied::Changed {
            self.trip.version = self.trip.version.saturating_add(1);
        }
        applied
    }

    fn set(
        &mut self,
        order: OrderId,
        line: u32,
        status: ItemStatus,
        actual: Option<i64>,
    ) -> Applied {
        if self.trip.status != TripStatus::Shopping {
            return Applied::Refused;
        }
        let found = self.items.get_mut(&order);
        let Some(item) = found.and_then(|items| items.iter_mut().find(|item| item.line == line))
        else {
            return Applied::Refused;
        };
        if item.status == status && item.actual == actual {
            return Applied::Unchanged;
        }
        item.status = status;
        item.actual = actual;
        Applied::Changed
    }

    /// Recomputes the cart's sums from the lines. Sums saturate: a cart worth 2^63 is a bug upstream.
    fn total(&mut self) {
        let (mut picked, mut listed, mut mix) = (0_i64, 0_i64, BTreeMap::<String, i64>::new());
        for item in self
            .items
            .values()
            .flatten()
            .filter(|item| item.status == ItemStatus::Picked)
        {
            picked = picked.saturating_add(item.in_cart());
            listed = listed.saturating_add(item.listed);
            // Looked up first, so that a category is copied once and not for every line.
            match mix.get_mut(&item.category) {
                Some(sum) => *sum = i64::saturating_add(*sum, item.in_cart()),
                None => drop(mix.insert(item.category.clone(), item.in_cart())),
            }
        }
        self.trip.picked = picked;
        self.trip.picked_listed = listed;
        self.trip.mix = mix;
    }
}

// === impl Position ===

impl std::fmt::Debug for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Position(..)")
    }
}
