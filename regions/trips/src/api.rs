//! The platform's HTTP API: one request in, one response out.
//!
//! Every request is signed with a platform secret as Standard Webhooks does (headers `webhook-id`,
//! `webhook-timestamp`, `webhook-signature`; a GET signs its empty body); anything wrong with that is
//! the same 401, before a byte is parsed. Money is decimal text or a JSON number in major units, read
//! exactly. Errors are `application/problem+json` with a `type` of `urn:standin:problem:<slug>`.
//!
//! Ids come from the sender, so that every request may be sent again: a repeat changes nothing and
//! is told what holds. The signature does not cover the path; a body that names its `order_id` or
//! `trip_id` is bound to it.
//!
//! Deliberately absent: accepting connections, timeouts of reading, rate limits: the server's.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use serde::Serialize;
use standin_core::clock::Timestamp;
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::{Claim, Completed, Placed, StartTrip, Started};
use standin_core::money::Currency;
use standin_core::signature::{
    ID_HEADER, SIGNATURE_HEADER, Secret, Signed, TIMESTAMP_HEADER, TOLERANCE, verify,
};
use standin_core::trip::ORDERS_PER_TRIP_MAX;

use crate::flow::{OFFERS_MAX, Platform};

mod problem;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use problem::Problem;

/// Longest body taken: an order of the most items, with room.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Orders offered when the request does not say how many.
const OFFERS_DEFAULT: u32 = 20;
/// After how many seconds to try again.
const RETRY_AFTER_SECS: u16 = 1;

/// The API's face of a [`Platform`].
pub struct Api {
    platform: Arc<Platform>,
    secrets: Vec<Secret>,
    /// Currency of orders that do not name one.
    currency: Currency,
}

/// Where a path leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'a> {
    Stores,
    Cards,
    MerchantIds,
    RemoveMerchantId,
    Offers(&'a str),
    Orders,
    Order(&'a str),
    Claim(&'a str),
    Trips,
    Trip(&'a str, &'a str),
    Events(&'a str),
    Complete(&'a str),
}

/// A request that passed the door.
struct Call<'a> {
    uri: &'a Uri,
    /// The signed `webhook-id`.
    id: &'a str,
    body: &'a [u8],
    now: Timestamp,
}

type Answer = Result<Response<Bytes>, Problem>;

// === impl Api ===

impl Api {
    /// An API on `platform`, for senders that sign with one of `secrets` (two while one is being
    /// replaced). Orders without a currency are in `currency`.
    pub fn new(platform: Arc<Platform>, secrets: Vec<Secret>, currency: Currency) -> Self {
        Self {
            platform,
            secrets,
            currency,
        }
    }

    /// Answers one request. Never fails: what goes wrong is a problem response.
    pub async fn handle(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response<Bytes> {
        let answer = self.answer(method, uri, headers, &body).await;
        answer.unwrap_or_else(Problem::into_response)
    }

    async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Answer {
        if body.len() > BODY_BYTES_MAX {
            return Err(Problem::TooLarge);
        }
        let now = self.platform.ports.clock.now();
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let id = header(ID_HEADER).unwrap_or("");
        let signed = Signed {
            id,
            timestamp: header(TIMESTAMP_HEADER).unwrap_or(""),
            signature: header(SIGNATURE_HEADER).unwrap_or(""),
            body,
        };
        if verify(&self.secrets, &signed, now, TOLERANCE).is_err() {
            self.platform.counters.unauthenticated.add(1);
            return Err(Problem::Unauthenticated);
        }
        let route = Route::of(uri.path()).ok_or(Problem::NoSuchPath)?;
        if *method != route.method() {
            return Err(Problem::Method(route.method()));
        }
        if *method == Method::POST && !is_json(headers) {
            return Err(Problem::NotJson);
        }
        let call = Call { uri, id, body, now };
        self.dispatch(route, &call).await
    }

    async fn dispatch(&self, route: Route<'_>, call: &Call<'_>) -> Answer {
        match route {
            Route::Stores => self.put_store(call).await,
            Route::Cards => self.set_card(call).await,
            Route::MerchantIds => self.put_merchant_id(call).await,
            Route::RemoveMerchantId => self.remove_merchant_id(call).await,
            Route::Offers(store) => self.offers(read::id(store, "store")?, call).await,
            Route::Orders => self.place(call).await,
            Route::Order(order) => self.order(read::id(order, "order")?).await,
            Route::Claim(order) => self.claim(read::id(order, "order")?, call).await,
            Route::Trips => self.start(call).await,
            Route::Trip(shopper, trip) => {
                let shopper = read::id(shopper, "shopper")?;
                self.trip(shopper, read::id(trip, "trip")?).await
            }
            Route::Events(trip) => self.events(read::id(trip, "trip")?, call).await,
            Route::Complete(trip) => self.complete(read::id(trip, "trip")?, call).await,
        }
    }

    async fn put_store(&self, call: &Call<'_>) -> Answer {
        let (store, ids) = read::store(call.body)?;
        let answer = write::StorePut { store_id: store.id };
        self.platform.put_store(store).await?;
        for id in ids {
            self.platform.put_merchant_id(id).await?;
        }
        json(StatusCode::OK, &answer)
    }

    async fn set_card(&self, call: &Call<'_>) -> Answer {
        let (card, shopper) = read::card(call.body)?;
        let answer = write::CardSet {
            bank: card.bank.clone(),
            token: card.token.clone(),
            shopper_id: shopper,
        };
        self.platform.set_card(card, shopper).await?;
        json(StatusCode::OK, &answer)
    }

    async fn put_merchant_id(&self, call: &Call<'_>) -> Answer {
        let id = read::merchant_id(call.body)?;
        let answer = write::StorePut { store_id: id.store };
        self.platform.put_merchant_id(id).await?;
        json(StatusCode::OK, &answer)
    }

    async fn remove_merchant_id(&self, call: &Call<'_>) -> Answer {
        let key = read::merchant_key(call.body)?;
        let removed = self.platform.remove_merchant_id(key).await?;
        json(StatusCode::OK, &write::MerchantIdRemoved { removed })
    }

    async fn place(&self, call: &Call<'_>) -> Answer {
        let order = read::order(call.body, self.currency)?;
        let order_id = order.id;
        let status = match self.platform.place(order).await? {
            Placed::Now => StatusCode::CREATED,
            Placed::Before => StatusCode::OK,
            Placed::Differs => return Err(Problem::OrderDiffers),
            Placed::UnknownStore => return Err(Problem::UnknownStore),
        };
        json(status, &write::OrderPlaced { order_id })
    }

    async fn order(&self, id: OrderId) -> Answer {
        let order = self.platform.order(id).await?;
        let order = order.ok_or(Problem::NoSuch("order"))?;
        json(StatusCode::OK, &write::OrderOut::from(&order))
    }

    async fn offers(&self, store: StoreId, call: &Call<'_>) -> Answer {
        let limit = read::limit(call.uri.query())?.unwrap_or(OFFERS_DEFAULT);
        let orders = self
            .platform
            .offers(store, limit.clamp(1, OFFERS_MAX))
            .await?;
        let offers = orders.iter().map(write::OrderOut::from).collect();
        json(StatusCode::OK, &write::Offers { offers })
    }

    async fn claim(&self, order_id: OrderId, call: &Call<'_>) -> Answer {
        let shopper_id = read::shopper(call.body, &read::Names::Order(order_id))?;
        match self.platform.claim(order_id, shopper_id).await? {
            Claim::Won => json(
                StatusCode::OK,
                &write::Claimed {
                    order_id,
                    shopper_id,
                },
            ),
            Claim::Lost => Err(Problem::ClaimedByAnother),
            Claim::UnknownOrder => Err(Problem::NoSuch("order")),
            Claim::Gone => Err(Problem::OrderGone),
        }
    }

    async fn start(&self, call: &Call<'_>) -> Answer {
        let read::StartIn {
            trip_id,
            shopper_id,
            order_ids,
        } = read::body(call.body)?;
        let fits = (1..=ORDERS_PER_TRIP_MAX).contains(&order_ids.len());
        let distinct: std::collections::BTreeSet<_> = order_ids.iter().collect();
        if !fits || distinct.len() != order_ids.len() {
            let detail = format!("order_ids: 1 to {ORDERS_PER_TRIP_MAX} different orders");
            return Err(Problem::Malformed(detail));
        }
        let start = StartTrip {
            trip: trip_id,
            shopper: shopper_id,
            orders: order_ids,
            at: call.now,
        };
        let (started, shown) = self.platform.start(start).await?;
        match started {
            Started::Trip(sheet) => {
                let trip = write::TripOut::new(&sheet, &[], Some(shown));
                json(StatusCode::OK, &trip)
            }
            Started::HasTrip(trip) => Err(Problem::HasOpenTrip(trip)),
            Started::NotClaimed(order) => Err(Problem::NotClaimed(order)),
            Started::Mixed => Err(Problem::MixedOrders),
        }
    }

    async fn trip(&self, shopper: ShopperId, trip: TripId) -> Answer {
        let view = self.platform.trip(shopper, trip).await?;
        let view = view.ok_or(Problem::NoSuch("trip"))?;
        let trip = write::TripOut::new(&view.sheet, &view.approvals, None);
        json(StatusCode::OK, &trip)
    }

    /// Takes events without asking the ledger; only a trip never seen here is looked up, so that a
    /// wrong id or currency is told at once where it can be.
    async fn events(&self, trip: TripId, call: &Call<'_>) -> Answer {
        let events = read::EventsIn::parse(call.body, trip)?;
        let currency = match self.platform.known(events.shopper_id, trip).await {
            Ok(Some(known)) if known.shopper == events.shopper_id => {
                events.agree(known.currency)?;
                Some(known.currency)
            }
            Ok(_) => return Err(Problem::NoSuch("trip")),
            // Nobody can be asked. What the sender says has to do: the feeder checks the trip later.
            Err(_) => events.currency,
        };
        let Some(currency) = currency.or_else(|| events.priceless()) else {
            return Err(Problem::CurrencyNeeded);
        };
        let (ids, events) = events.into_events(trip, currency, call)?;
        self.platform.append(events).await?;
        json(StatusCode::ACCEPTED, &ids)
    }

    async fn complete(&self, trip_id: TripId, call: &Call<'_>) -> Answer {
        let shopper = read::shopper(call.body, &read::Names::Trip(trip_id))?;
        let (completed, shown) = self.platform.complete(shopper, trip_id).await?;
        match completed {
            Completed::Now | Completed::Before => {
                let cache = write::cache_word(shown);
                json(
                    StatusCode::OK,
                    &write::TripCompleted {
                        trip_id,
                        status: "COMPLETE",
                        cache,
                    },
                )
            }
            Completed::StillShopping => Err(Problem::StillShopping),
            Completed::UnknownTrip => Err(Problem::NoSuch("trip")),
        }
    }
}

// === impl Route ===

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        // No path has more than six parts; a longer one matches nothing.
        let mut parts = [""; 7];
        for (slot, part) in parts.iter_mut().zip(path.split('/')) {
            *slot = part;
        }
        let count = path.split('/').count();
        match parts.get(..count)? {
            ["", "v1", "stores"] => Some(Self::Stores),
            ["", "v1", "cards"] => Some(Self::Cards),
            ["", "v1", "merchant-ids"] => Some(Self::MerchantIds),
            ["", "v1", "merchant-ids", "remove"] => Some(Self::RemoveMerchantId),
            ["", "v1", "stores", store, "offers"] => Some(Self::Offers(store)),
            ["", "v1", "orders"] => Some(Self::Orders),
            ["", "v1", "orders", order] => Some(Self::Order(order)),
            ["", "v1", "orders", order, "claim"] => Some(Self::Claim(order)),
            ["", "v1", "trips"] => Some(Self::Trips),
            ["", "v1", "trips", trip, "events"] => Some(Self::Events(trip)),
            ["", "v1", "trips", trip, "complete"] => Some(Self::Complete(trip)),
            ["", "v1", "trips", shopper, trip] => Some(Self::Trip(shopper, trip)),
            _ => None,
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Offers(_) | Self::Order(_) | Self::Trip(..) => Method::GET,
            Self::Stores
            | Self::Cards
            | Self::MerchantIds
            | Self::RemoveMerchantId
            | Self::Orders
            | Self::Claim(_)
            | Self::Trips
            | Self::Events(_)
            | Self::Complete(_) => Method::POST,
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|_| Problem::Internal)?;
    Ok(response(status, "application/json", body))
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
    }
    response
}

fn allow(method: &Method) -> (http::HeaderName, HeaderValue) {
    let value = HeaderValue::from_static(if *method == Method::GET {
        "GET"
    } else {
        "POST"
    });
    (ALLOW, value)
}
