//! The JSON that the API answers with. Money is decimal text in major units.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use standin_core::id::{BankId, CustomerId, OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::money::{Currency, Money};
use standin_core::trip::{Approval, Item, ItemStatus, Order, OrderStatus, TripSheet, TripStatus};
use uuid::Uuid;

use crate::flow::Shown;

#[derive(Serialize)]
pub(super) struct StorePut {
    pub(super) store_id: StoreId,
}

#[derive(Serialize)]
pub(super) struct CardSet {
    pub(super) bank: BankId,
    pub(super) token: String,
    pub(super) shopper_id: Option<ShopperId>,
}

#[derive(Serialize)]
pub(super) struct MerchantIdRemoved {
    pub(super) removed: bool,
}

#[derive(Serialize)]
pub(super) struct OrderPlaced {
    pub(super) order_id: OrderId,
}

#[derive(Serialize)]
pub(super) struct Claimed {
    pub(super) order_id: OrderId,
    pub(super) shopper_id: ShopperId,
}

#[derive(Serialize)]
pub(super) struct TripCompleted {
    pub(super) trip_id: TripId,
    pub(super) status: &'static str,
    pub(super) cache: &'static str,
}

/// The ids under which events were taken.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Taken {
    One { event_id: Uuid },
    Many { accepted: usize },
}

#[derive(Serialize)]
pub(super) struct Offers<'a> {
    pub(super) offers: Vec<OrderOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct OrderOut<'a> {
    order_id: OrderId,
    customer_id: CustomerId,
    store_id: StoreId,
    currency: Currency,
    status: OrderStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    shopper_id: Option<ShopperId>,
    items: Vec<ItemOut<'a>>,
}

#[derive(Serialize)]
struct ItemOut<'a> {
    line: u32,
    product: i64,
    category: &'a str,
    quantity: u32,
    listed: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Decimal>,
    status: ItemStatus,
}

#[derive(Serialize)]
pub(super) struct TripOut<'a> {
    trip_id: TripId,
    shopper_id: ShopperId,
    store_id: StoreId,
    currency: Currency,
    status: TripStatus,
    version: u64,
    picked: Decimal,
    picked_listed: Decimal,
    mix: BTreeMap<&'a str, Decimal>,
    started_at: String,
    approved: Decimal,
    approvals: Vec<ApprovalOut>,
    orders: Vec<TripOrderOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
}

#[derive(Serialize)]
struct TripOrderOut<'a> {
    order_id: OrderId,
    items: Vec<ItemOut<'a>>,
}

#[derive(Serialize)]
struct ApprovalOut {
    transaction_id: String,
    amount: Decimal,
    at: String,
}

/// An amount, written as decimal text.
struct Decimal(Money);

// === impls ===

/// Whether the trip cache shows it already, as a word.
pub(super) const fn cache_word(shown: Shown) -> &'static str {
    match shown {
        Shown::Current => "current",
        Shown::Behind => "behind",
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_decimal())
    }
}

impl<'a> From<&'a Order> for OrderOut<'a> {
    fn from(order: &'a Order) -> Self {
        Self {
            order_id: order.id,
            customer_id: order.customer,
            store_id: order.store,
            currency: order.currency,
            status: order.status,
            shopper_id: order.shopper,
            items: items(&order.items, order.currency),
        }
    }
}

impl<'a> TripOut<'a> {
    pub(super) fn new(sheet: &'a TripSheet, approvals: &[Approval], shown: Option<Shown>) -> Self {
        let trip = &sheet.trip;
        let decimal = |minor| Decimal(Money::from_minor(minor, trip.currency));
        let approved = approvals
            .iter()
            .fold(0_i64, |sum, approval| sum.saturating_add(approval.amount));
        let approval = |approval: &Approval| ApprovalOut {
            transaction_id: TransactionId::to_string(&approval.transaction_id),
            amount: decimal(approval.amount),
            at: approval.at.to_string(),
        };
        let order = |(order_id, lines): (&OrderId, &'a Vec<Item>)| TripOrderOut {
            order_id: *order_id,
            items: items(lines, trip.currency),
        };
        let mix = trip.mix.iter();
        Self {
            trip_id: trip.id,
            shopper_id: trip.shopper,
            store_id: trip.store,
            currency: trip.currency,
            status: trip.status,
            version: trip.version,
            picked: decimal(trip.picked),
            picked_listed: decimal(trip.picked_listed),
            mix: mix
                .map(|(name, sum)| (name.as_str(), decimal(*sum)))
                .collect(),
            started_at: trip.started_at.to_string(),
            approved: decimal(approved),
            approvals: approvals.iter().map(approval).collect(),
            orders: sheet.items.iter().map(order).collect(),
            cache: shown.map(cache_word),
        }
    }
}

fn items(lines: &[Item], currency: Currency) -> Vec<ItemOut<'_>> {
    lines.iter().map(|item| item_out(item, currency)).collect()
}

fn item_out(item: &Item, currency: Currency) -> ItemOut<'_> {
    let decimal = |minor| Decimal(Money::from_minor(minor, currency));
    let Item {
        line,
        product,
        category,
        quantity,
        listed,
        actual,
        status,
    } = item;
    ItemOut {
        line: *line,
        product: *product,
        category,
        quantity: *quantity,
        listed: decimal(*listed),
        actual: actual.map(decimal),
        status: *status,
    }
}
