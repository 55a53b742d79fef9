//! From bytes to what the platform's operations take; a held value is valid.

use std::borrow::Cow;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use standin_core::authorization::TOKEN_BYTES_MAX;
use standin_core::card_number::holds_card_number;
use standin_core::clock::Timestamp;
use standin_core::id::{BankId, CustomerId, OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::Card;
use standin_core::merchant::{MerchantId, MerchantKey, NetworkId, Store};
use standin_core::money::{Currency, Money};
use standin_core::trip::{
    CATEGORY_BYTES_MAX, ITEMS_PER_ORDER_MAX, Item, ItemStatus, Order, OrderStatus, Position,
    TripChange, TripEvent,
};
use uuid::Uuid;

use super::write::Taken;
use super::{Call, Problem};
use crate::flow::EVENTS_PER_CALL_MAX;

/// Most minor units of one line: far above any price, far below where sums overflow.
const LINE_MINOR_MAX: i64 = 1_000_000_000_000;
/// Longest name or address of a store.
const TEXT_BYTES_MAX: usize = 200;
/// Most ids of networks that come with one store; further ones come one by one.
const MERCHANT_IDS_MAX: usize = 100;
/// Most units of one line.
const QUANTITY_MAX: u32 = 10_000;
/// A degree in millionths.
const DEGREE_E6: i64 = 1_000_000;

/// What a path names, for bodies that name it too.
pub(super) enum Names {
    Order(OrderId),
    Trip(TripId),
}

#[derive(Deserialize)]
struct ShopperIn {
    shopper_id: ShopperId,
    order_id: Option<OrderId>,
    trip_id: Option<TripId>,
}

#[derive(Deserialize)]
struct StoreIn<'a> {
    store_id: StoreId,
    name: String,
    address: String,
    #[serde(borrow)]
    lat: &'a RawValue,
    #[serde(borrow)]
    lon: &'a RawValue,
    #[serde(default)]
    merchant_ids: Vec<MerchantKeyIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MerchantKeyIn {
    network_id: NetworkId,
    terminal: Option<NetworkId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MerchantIdIn {
    store_id: StoreId,
    network_id: NetworkId,
    terminal: Option<NetworkId>,
}

#[derive(Deserialize)]
struct CardIn {
    bank: BankId,
    token: String,
    /// `null` takes the card from whoever has it; it is never left out.
    #[serde(deserialize_with = "given")]
    shopper_id: Option<ShopperId>,
}

#[derive(Deserialize)]
struct OrderIn<'a> {
    order_id: OrderId,
    customer_id: CustomerId,
    store_id: StoreId,
    currency: Option<Currency>,
    #[serde(borrow)]
    items: Vec<ItemIn<'a>>,
}

#[derive(Deserialize)]
struct ItemIn<'a> {
    line: Option<u32>,
    product: i64,
    category: String,
    quantity: u32,
    #[serde(borrow)]
    listed: &'a RawValue,
}

#[derive(Deserialize)]
pub(super) struct StartIn {
    pub(super) trip_id: TripId,
    pub(super) shopper_id: ShopperId,
    pub(super) order_ids: Vec<OrderId>,
}

/// One event or a batch, as it came.
#[derive(Deserialize)]
struct EventsBody<'a> {
    shopper_id: ShopperId,
    trip_id: Option<TripId>,
    currency: Option<Currency>,
    #[serde(borrow)]
    events: Option<Vec<EventIn<'a>>>,
    // A single event's fields. Not flattened: that would lose the prices' text.
    event_id: Option<Uuid>,
    kind: Option<String>,
    order_id: Option<OrderId>,
    line: Option<u32>,
    #[serde(borrow)]
    actual: Option<&'a RawValue>,
    #[serde(borrow)]
    lat: Option<&'a RawValue>,
    #[serde(borrow)]
    lon: Option<&'a RawValue>,
    measured_at_ms: Option<i64>,
}

#[derive(Deserialize)]
struct EventIn<'a> {
    event_id: Option<Uuid>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    order_id: Option<OrderId>,
    line: Option<u32>,
    #[serde(borrow)]
    actual: Option<&'a RawValue>,
    #[serde(borrow)]
    lat: Option<&'a RawValue>,
    #[serde(borrow)]
    lon: Option<&'a RawValue>,
    measured_at_ms: Option<i64>,
}

/// Events of one trip, their prices still text.
pub(super) struct EventsIn<'a> {
    pub(super) shopper_id: ShopperId,
    pub(super) currency: Option<Currency>,
    batch: Batch<'a>,
}

enum Batch<'a> {
    One(EventIn<'a>),
    Many(Vec<EventIn<'a>>),
}

// === impl EventsIn ===

impl<'a> EventsIn<'a> {
    /// `{"shopper_id", "kind", …}` or `{"shopper_id", "events": [{"kind", …}, …]}`.
    pub(super) fn parse(bytes: &'a [u8], trip: TripId) -> Result<Self, Problem> {
        let read: EventsBody<'a> = body(bytes)?;
        if read.trip_id.is_some_and(|named| named != trip) {
            let detail = "the body names another id than the path";
            return Err(malformed(detail.to_owned()));
        }
        let batch = match (read.events, read.kind) {
            (Some(events), None) if (1..=EVENTS_PER_CALL_MAX).contains(&events.len()) => {
                Batch::Many(events)
            }
            (Some(_), None) => {
                return Err(malformed(format!("events: 1 to {EVENTS_PER_CALL_MAX}")));
            }
            (None, Some(kind)) => Batch::One(EventIn {
                event_id: read.event_id,
                kind: Cow::Owned(kind),
                order_id: read.order_id,
                line: read.line,
                actual: read.actual,
                lat: read.lat,
                lon: read.lon,
                measured_at_ms: read.measured_at_ms,
            }),
            (Some(_), Some(_)) | (None, None) => {
                return Err(malformed("either kind or events".to_owned()));
            }
        };
        Ok(Self {
            shopper_id: read.shopper_id,
            currency: read.currency,
            batch,
        })
    }

    /// Refuses prices in another currency than the trip's.
    pub(super) fn agree(&self, trips: Currency) -> Result<(), Problem> {
        match self.currency {
            Some(named) if named != trips => Err(Problem::OtherCurrency),
            Some(_) | None => Ok(()),
        }
    }

    /// Any currency, when there is no price to read in one.
    pub(super) fn priceless(&self) -> Option<Currency> {
        let priced = self.each().iter().any(|event| event.actual.is_some());
        (!priced).then_some(Currency::USD)
    }

    pub(super) fn into_events(
        self,
        trip: TripId,
        currency: Currency,
        call: &Call<'_>,
    ) -> Result<(Taken, Vec<TripEvent>), Problem> {
        let shopper = self.shopper_id;
        let mut events = Vec::with_capacity(self.each().len());
        for (at, event) in self.each().iter().enumerate() {
            events.push(TripEvent {
                id: event.id(call.id, at)?,
                trip,
                shopper,
                at: call.now,
                what: event.what(currency, call.now)?,
            });
        }
        let taken = match (&self.batch, events.first()) {
            (Batch::One(_), Some(event)) => Taken::One { event_id: event.id },
            (Batch::One(_) | Batch::Many(_), _) => Taken::Many {
                accepted: events.len(),
            },
        };
        Ok((taken, events))
    }

    fn each(&self) -> &[EventIn<'a>] {
        match &self.batch {
            Batch::One(event) => std::slice::from_ref(event),
            Batch::Many(events) => events,
        }
    }
}

// === impl EventIn ===

impl EventIn<'_> {
    /// Its own id, else one that follows from the request's signed id and its place: the same when
    /// the request is sent again.
    fn id(&self, call_id: &str, at: usize) -> Result<Uuid, Problem> {
        if let Some(id) = self.event_id {
            return Ok(id);
        }
        let base = call_id.strip_prefix("msg_").unwrap_or(call_id);
        let base = Uuid::parse_str(base).map_err(|_| {
            malformed("event_id: name one, or send a UUID as webhook-id".to_owned())
        })?;
        let place = u128::try_from(at).unwrap_or(u128::MAX);
        Ok(Uuid::from_u128(base.as_u128().wrapping_add(place)))
    }

    fn what(&self, currency: Currency, now: Timestamp) -> Result<TripChange, Problem> {
        match self.kind.as_ref() {
            "pick" => {
                let (order, line) = self.order_line()?;
                let actual = self.actual.map(|text| amount(text, currency, "actual"));
                let actual = actual.transpose()?;
                Ok(TripChange::Pick {
                    order,
                    line,
                    actual,
                })
            }
            "unpick" => {
                let (order, line) = self.order_line()?;
                Ok(TripChange::Unpick { order, line })
            }
            "out_of_stock" => {
                let (order, line) = self.order_line()?;
                Ok(TripChange::OutOfStock { order, line })
            }
            "position" => self.position(now),
            "finish" => Ok(TripChange::Finish),
            _ => Err(malformed(
                "kind: pick, unpick, out_of_stock, position or finish".to_owned(),
            )),
        }
    }

    fn order_line(&self) -> Result<(OrderId, u32), Problem> {
        match (self.order_id, self.line) {
            (Some(order), Some(line)) => Ok((order, line)),
            (None, _) => Err(malformed("order_id is missing".to_owned())),
            (_, None) => Err(malformed("line is missing".to_owned())),
        }
    }

    fn position(&self, now: Timestamp) -> Result<TripChange, Problem> {
        let (Some(lat), Some(lon)) = (self.lat, self.lon) else {
            return Err(malformed("lat and lon are needed".to_owned()));
        };
        // A time ahead of ours would shut out every later report.
        let measured = self.measured_at_ms.map(Timestamp::from_millis);
        let at = measured.filter(|at| *at <= now).unwrap_or(now);
        Ok(TripChange::Moved {
            position: Position {
                lat_e6: degrees(lat, 90, "lat")?,
                lon_e6: degrees(lon, 180, "lon")?,
                at,
            },
        })
    }
}

// === reading ===

/// Reads a JSON body.
pub(super) fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))
}

/// Reads an id from a path.
pub(super) fn id<T: FromStr>(text: &str, what: &'static str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::NoSuch(what))
}

/// Reads `limit` from a query.
pub(super) fn limit(query: Option<&str>) -> Result<Option<u32>, Problem> {
    let mut pairs = query.unwrap_or("").split('&');
    let Some(text) = pairs.find_map(|pair| pair.strip_prefix("limit=")) else {
        return Ok(None);
    };
    let wrong = |_| malformed("limit: a whole number".to_owned());
    text.parse().map(Some).map_err(wrong)
}

/// The shopper a body names; what else it names has to be what the path names.
pub(super) fn shopper(bytes: &[u8], path: &Names) -> Result<ShopperId, Problem> {
    let ShopperIn {
        shopper_id,
        order_id,
        trip_id,
    } = body(bytes)?;
    let agrees = match path {
        Names::Order(order) => order_id.is_none_or(|named| named == *order),
        Names::Trip(trip) => trip_id.is_none_or(|named| named == *trip),
    };
    if agrees {
        Ok(shopper_id)
    } else {
        Err(malformed(
            "the body names another id than the path".to_owned(),
        ))
    }
}

/// A card, and who carries it from now on.
pub(super) fn card(bytes: &[u8]) -> Result<(Card, Option<ShopperId>), Problem> {
    let CardIn {
        bank,
        token,
        shopper_id,
    } = body(bytes)?;
    let plain = !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX
        && token.trim() == token
        && !token.chars().any(char::is_control);
    if !plain {
        return Err(malformed(format!(
            "token: 1 to {TOKEN_BYTES_MAX} bytes, no control characters, no blanks around it"
        )));
    }
    if holds_card_number(&token) {
        return Err(malformed(
            "token: reads as a card number; a token of it is wanted".to_owned(),
        ));
    }
    if shopper_id.is_some_and(ShopperId::is_of_unknown_card) {
        return Err(malformed("shopper_id: is nobody's number".to_owned()));
    }
    Ok((Card { bank, token }, shopper_id))
}

/// A field that may be `null` and must be there.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ShopperId>, D::Error> {
    Option::deserialize(from)
}

/// A store, and what networks call it.
pub(super) fn store(bytes: &[u8]) -> Result<(Store, Vec<MerchantId>), Problem> {
    let StoreIn {
        store_id,
        name,
        address,
        lat,
        lon,
        merchant_ids,
    } = body(bytes)?;
    if merchant_ids.len() > MERCHANT_IDS_MAX {
        let detail = format!("merchant_ids: at most {MERCHANT_IDS_MAX}");
        return Err(malformed(detail));
    }
    let store = Store {
        id: store_id,
        name: text(name, TEXT_BYTES_MAX, "name")?,
        address: text(address, TEXT_BYTES_MAX, "address")?,
        lat_e6: degrees(lat, 90, "lat")?,
        lon_e6: degrees(lon, 180, "lon")?,
    };
    let id = |key: MerchantKeyIn| MerchantId {
        network_id: key.network_id,
        terminal: key.terminal,
        store: store_id,
    };
    Ok((store, merchant_ids.into_iter().map(id).collect()))
}

pub(super) fn merchant_id(bytes: &[u8]) -> Result<MerchantId, Problem> {
    let MerchantIdIn {
        store_id,
        network_id,
        terminal,
    } = body(bytes)?;
    Ok(MerchantId {
        network_id,
        terminal,
        store: store_id,
    })
}

pub(super) fn merchant_key(bytes: &[u8]) -> Result<MerchantKey, Problem> {
    let MerchantKeyIn {
        network_id,
        terminal,
    } = body(bytes)?;
    Ok(MerchantKey {
        network_id,
        terminal,
    })
}

pub(super) fn order(bytes: &[u8], currency: Currency) -> Result<Order, Problem> {
    let OrderIn {
        order_id,
        customer_id,
        store_id,
        currency: named,
        items,
    } = body(bytes)?;
    let currency = named.unwrap_or(currency);
    if !(1..=ITEMS_PER_ORDER_MAX).contains(&items.len()) {
        return Err(malformed(format!("items: 1 to {ITEMS_PER_ORDER_MAX}")));
    }
    let numbered = (1_u32..).zip(items);
    let items: Vec<Item> = numbered
        .map(|(place, read)| item(place, read, currency))
        .collect::<Result<_, _>>()?;
    let lines: std::collections::BTreeSet<u32> = items.iter().map(|item| item.line).collect();
    if lines.len() != items.len() || lines.contains(&0) {
        return Err(malformed("line: different numbers from 1".to_owned()));
    }
    Ok(Order {
        id: order_id,
        customer: customer_id,
        store: store_id,
        currency,
        status: OrderStatus::Placed,
        shopper: None,
        items,
    })
}

fn item(place: u32, read: ItemIn<'_>, currency: Currency) -> Result<Item, Problem> {
    if !(1..=QUANTITY_MAX).contains(&read.quantity) {
        return Err(malformed(format!("quantity: 1 to {QUANTITY_MAX}")));
    }
    Ok(Item {
        line: read.line.unwrap_or(place),
        product: read.product,
        category: text(read.category, CATEGORY_BYTES_MAX, "category")?,
        quantity: read.quantity,
        listed: amount(read.listed, currency, "listed")?,
        actual: None,
        status: ItemStatus::Wanted,
    })
}

fn text(text: String, max: usize, field: &str) -> Result<String, Problem> {
    // Postgres can not hold a NUL, and none belongs here.
    if text.is_empty() || text.len() > max || text.contains('\0') {
        return Err(malformed(format!("{field}: 1 to {max} bytes of text")));
    }
    Ok(text)
}

/// A price in major units, as a JSON number or its text in a string, to minor units.
fn amount(raw: &RawValue, currency: Currency, field: &str) -> Result<i64, Problem> {
    let read = Money::parse(decimal_text(raw), currency);
    let money = read.map_err(|error| malformed(format!("{field}: {error}")))?;
    if (0..=LINE_MINOR_MAX).contains(&money.minor()) {
        Ok(money.minor())
    } else {
        Err(malformed(format!("{field}: zero or more, and believable")))
    }
}

/// Degrees in decimal text to millionths; further decimals (a finger's breadth) are dropped.
fn degrees(raw: &RawValue, max: i64, field: &str) -> Result<i32, Problem> {
    let wrong = || malformed(format!("{field}: decimal degrees up to {max}"));
    let text = decimal_text(raw);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 3 {
        return Err(wrong());
    }
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let whole: i64 = whole.parse().map_err(|_| wrong())?;
    let fraction: i64 = fraction.parse().map_err(|_| wrong())?;
    let e6 = whole.saturating_mul(DEGREE_E6).saturating_add(fraction);
    if e6 > max.saturating_mul(DEGREE_E6) {
        return Err(wrong());
    }
    let signed = if negative { e6.saturating_neg() } else { e6 };
    i32::try_from(signed).map_err(|_| wrong())
}

/// The text of a number, or of a string that holds one.
fn decimal_text(raw: &RawValue) -> &str {
    let text = raw.get();
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(text)
}

fn malformed(detail: String) -> Problem {
    Problem::Malformed(detail)
}
