//! A client of the trips API: signed calls, and repeats while the ledger is away.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use standin_core::merchant::Store;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Call, CallError, Pool, Reply, Signer, Target};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Rest before a call that may succeed later is made again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A client of the trips API.
#[derive(Clone, Debug)]
pub struct PlatformClient {
    pool: Pool,
    signer: Signer,
}

/// Why a call did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No reply.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A problem.
    #[error("status {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem's own words.
        detail: String,
    },
    /// The reply does not read.
    #[error("unexpected reply: {0}")]
    Reply(#[from] serde_json::Error),
}

/// A store, as it is put.
#[derive(Clone, Debug, Serialize)]
pub struct StoreIn<'a> {
    /// Its number.
    pub store_id: i64,
    /// Its name on receipts.
    pub name: &'a str,
    /// Its street address.
    pub address: &'a str,
    /// Degrees.
    pub lat: &'a str,
    /// Degrees.
    pub lon: &'a str,
    /// What networks call it.
    pub merchant_ids: &'a [MerchantIdIn],
}

/// What a network calls a store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MerchantIdIn {
    /// Id of the merchant.
    pub network_id: String,
    /// Id of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
}

/// One line of an order, as it is placed.
#[derive(Clone, Debug, Serialize)]
pub struct ItemIn<'a> {
    /// Product number.
    pub product: i64,
    /// Category.
    pub category: &'a str,
    /// Units.
    pub quantity: u32,
    /// Listed price of the line, major units.
    pub listed: String,
}

/// An order, as it is placed.
#[derive(Clone, Debug, Serialize)]
pub struct OrderIn<'a> {
    /// Its id.
    pub order_id: Uuid,
    /// Who orders.
    pub customer_id: i64,
    /// Where.
    pub store_id: i64,
    /// Lines, numbered from 1 in this order.
    pub items: Vec<ItemIn<'a>>,
}

/// Something that happened on a trip.
#[derive(Clone, Debug, Serialize)]
pub struct EventIn {
    /// The same on every retry.
    pub event_id: Uuid,
    /// `pick`, `unpick`, `out_of_stock`, `position`, `finish`.
    pub kind: &'static str,
    /// The order of a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Uuid>,
    /// The line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Price on the shelf, major units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// Degrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<String>,
    /// Degrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<String>,
}

/// What a trip looks like to whoever asks.
#[derive(Clone, Debug, Deserialize)]
pub struct TripOut {
    /// `SHOPPING`, `DELIVERING`, `COMPLETE`.
    pub status: String,
    /// What is in the cart, major units.
    pub picked: String,
}

// === impl EventIn ===

impl EventIn {
    /// An event without a line.
    pub fn of(kind: &'static str, event_id: Uuid) -> Self {
        Self {
            event_id,
            kind,
            order_id: None,
            line: None,
            actual: None,
            lat: None,
            lon: None,
        }
    }

    /// Where the shopper is, millionths of a degree.
    pub fn position(event_id: Uuid, lat_e6: i32, lon_e6: i32) -> Self {
        Self {
            lat: Some(degrees(lat_e6)),
            lon: Some(degrees(lon_e6)),
            ..Self::of("position", event_id)
        }
    }
}

/// Millionths of a degree as decimal text.
pub fn degrees(e6: i32) -> String {
    let sign = if e6 < 0 { "-" } else { "" };
    let digits = format!("{:07}", e6.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(6));
    format!("{sign}{whole}.{fraction}")
}

// === impl PlatformClient ===

impl PlatformClient {
    /// A client with at most so many connections.
    pub fn new(target: Target, connections: usize, signer: Signer) -> Self {
        Self {
            pool: Pool::new(target, connections),
            signer,
        }
    }

    /// Makes one call; any status is a reply.
    ///
    /// # Errors
    /// When no reply came.
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        self.pool.ask(call.signed(&self.signer), CALL_MAX).await
    }

    /// Makes one call and reads what it says.
    ///
    /// # Errors
    /// When no reply came or it is a problem.
    pub async fn ask(&self, call: Call) -> Result<Value, PlatformError> {
        let reply = self.call(call).await?;
        if (200..300).contains(&reply.status) {
            return Ok(serde_json::from_slice(&reply.body)?);
        }
        Err(refusal(&reply))
    }

    /// As [`PlatformClient::ask`], and again while the platform says that it may succeed later.
    ///
    /// # Errors
    /// The last one, once `until` has passed or when it says never.
    pub async fn insist(&self, call: Call, until: Instant) -> Result<Value, PlatformError> {
        loop {
            let error = match self.ask(call.clone()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match &error {
                PlatformError::Refused { status, .. } => *status == 503,
                PlatformError::Call(_) => true,
                PlatformError::Reply(_) => false,
            };
            if !again || Instant::now() >= until {
                return Err(error);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

fn refusal(reply: &Reply) -> PlatformError {
    let parsed: Option<Value> = serde_json::from_slice(&reply.body).ok();
    let text = |name: &str| parsed.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let detail = text("detail").or_else(|| text("title"));
    PlatformError::Refused {
        status: reply.status,
        detail: detail.unwrap_or_else(|| String::from_utf8_lossy(&reply.body).into_owned()),
    }
}

fn post(path: String, body: &impl Serialize) -> Result<Call, serde_json::Error> {
    Ok(Call::post(path, Bytes::from(serde_json::to_vec(body)?)))
}

/// Adds or replaces a store.
///
/// # Errors
/// Never for texts, which have a JSON form; the same holds below.
pub fn put_store(store: &Store) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({
        "store_id": store.id,
        "name": store.name,
        "address": store.address,
        "lat": degrees(store.lat_e6),
        "lon": degrees(store.lon_e6),
    });
    post("/v1/stores".to_owned(), &body)
}

/// Gives a card to a shopper; `None` takes it from whoever has it.
///
/// # Errors
/// As [`put_store`].
pub fn set_card(bank: &str, token: &str, shopper: Option<u64>) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({ "bank": bank, "token": token, "shopper_id": shopper });
    post("/v1/cards".to_owned(), &body)
}

/// Adds or replaces a store, and says what networks call it.
///
/// # Errors
/// As [`put_store`].
pub fn put_store_with_ids(store: &StoreIn<'_>) -> Result<Call, serde_json::Error> {
    post("/v1/stores".to_owned(), store)
}

/// Says what a network calls a store.
///
/// # Errors
/// As [`put_store`].
pub fn put_merchant_id(store: i64, id: &MerchantIdIn) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({
        "store_id": store, "network_id": id.network_id, "terminal": id.terminal,
    });
    post("/v1/merchant-ids".to_owned(), &body)
}

/// Forgets what a network calls a store.
///
/// # Errors
/// As [`put_store`].
pub fn remove_merchant_id(id: &MerchantIdIn) -> Result<Call, serde_json::Error> {
    post("/v1/merchant-ids/remove".to_owned(), id)
}

/// Places an order.
///
/// # Errors
/// As [`put_store`].
pub fn place(order: &OrderIn<'_>) -> Result<Call, serde_json::Error> {
    post("/v1/orders".to_owned(), order)
}

/// What a shopper at a store may claim.
pub fn offers(store: i64, limit: u32) -> Call {
    Call::get(format!("/v1/stores/{store}/offers?limit={limit}"))
}

/// Claims an order.
///
/// # Errors
/// As [`put_store`].
pub fn claim(order: Uuid, shopper: u64) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({ "shopper_id": shopper, "order_id": order });
    post(format!("/v1/orders/{order}/claim"), &body)
}

/// Starts a trip.
///
/// # Errors
/// As [`put_store`].
pub fn start(trip: Uuid, shopper: u64, orders: &[Uuid]) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({ "trip_id": trip, "shopper_id": shopper, "order_ids": orders });
    post("/v1/trips".to_owned(), &body)
}

/// Tells what happened on a trip.
///
/// # Errors
/// As [`put_store`].
pub fn events(trip: Uuid, shopper: u64, events: &[EventIn]) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({
        "shopper_id": shopper, "trip_id": trip, "currency": "USD", "events": events,
    });
    post(format!("/v1/trips/{trip}/events"), &body)
}

/// Completes a trip.
///
/// # Errors
/// As [`put_store`].
pub fn complete(trip: Uuid, shopper: u64) -> Result<Call, serde_json::Error> {
    let body = serde_json::json!({ "shopper_id": shopper, "trip_id": trip });
    post(format!("/v1/trips/{trip}/complete"), &body)
}

/// Shows a trip.
pub fn trip(shopper: u64, trip: Uuid) -> Call {
    Call::get(format!("/v1/trips/{shopper}/{trip}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_decimal_text() {
        assert_eq!(degrees(39_000_000), "39.000000");
        assert_eq!(degrees(-84_050_000), "-84.050000");
        assert_eq!(degrees(-5), "-0.000005");
    }
}
