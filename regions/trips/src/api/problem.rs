//! What the API says when it does not do what was asked (RFC 9457).

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde::Serialize;
use standin_core::id::{OrderId, TripId};

use super::{allow, response};
use crate::flow::FlowError;

/// A problem, with a stable type of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The signature is missing, wrong or too old.
    Unauthenticated,
    /// The body is longer than [`super::BODY_BYTES_MAX`].
    TooLarge,
    /// The path leads nowhere.
    NoSuchPath,
    /// The path wants this method.
    Method(Method),
    /// The body is not declared as JSON.
    NotJson,
    /// The request does not say what it must; which field, and what is right.
    Malformed(String),
    /// There is none with this id.
    NoSuch(&'static str),
    /// Another order has this id.
    OrderDiffers,
    /// The order's store is not known.
    UnknownStore,
    /// Another shopper has the order.
    ClaimedByAnother,
    /// The order is past claiming.
    OrderGone,
    /// The shopper has another trip.
    HasOpenTrip(TripId),
    /// The shopper has not claimed this order.
    NotClaimed(OrderId),
    /// Orders of several stores or currencies.
    MixedOrders,
    /// The trip was not finished.
    StillShopping,
    /// The trip's amounts are in another currency.
    OtherCurrency,
    /// Prices were given, and no currency to read them in could be found.
    CurrencyNeeded,
    /// The ledger gave no answer.
    LedgerAway,
    /// The queue or the journal gave no answer.
    QueueAway,
    /// The queue is at its bound.
    QueueFull,
    /// We failed.
    Internal,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

// === impl Problem ===

impl Problem {
    /// Status, slug and title.
    const fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "Signature refused"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::NoSuchPath => (S::NOT_FOUND, "not-found", "No such path"),
            Self::Method(_) => (S::METHOD_NOT_ALLOWED, "method", "Method not allowed"),
            Self::NotJson => (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "Body is not JSON"),
            Self::Malformed(_) => (S::BAD_REQUEST, "malformed", "Request not understood"),
            Self::NoSuch(_) => (S::NOT_FOUND, "unknown", "Nothing has this id"),
            Self::OrderDiffers => (S::UNPROCESSABLE_ENTITY, "order-differs", "Id used before"),
            Self::UnknownStore => (S::UNPROCESSABLE_ENTITY, "unknown-store", "Unknown store"),
            Self::ClaimedByAnother => (S::CONFLICT, "claimed-by-another", "Order is taken"),
            Self::OrderGone => (S::CONFLICT, "order-gone", "Order is past claiming"),
            Self::HasOpenTrip(_) => (S::CONFLICT, "has-open-trip", "Another trip is open"),
            Self::NotClaimed(_) => (S::CONFLICT, "not-claimed", "Order is not claimed"),
            Self::MixedOrders => (S::UNPROCESSABLE_ENTITY, "mixed-orders", "Orders do not mix"),
            Self::StillShopping => (S::CONFLICT, "still-shopping", "Trip is not finished"),
            Self::OtherCurrency => (S::UNPROCESSABLE_ENTITY, "currency", "Other currency"),
            Self::CurrencyNeeded | Self::LedgerAway => {
                (S::SERVICE_UNAVAILABLE, "ledger-away", "The ledger is away")
            }
            Self::QueueAway => (S::SERVICE_UNAVAILABLE, "queue-away", "The queue is away"),
            Self::QueueFull => (S::SERVICE_UNAVAILABLE, "queue-full", "The queue is full"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "We failed"),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Malformed(detail) => Some(detail.clone()),
            Self::NoSuch(what) => Some(format!("no such {what}")),
            Self::OrderDiffers => Some("another order was placed under this order_id".into()),
            Self::HasOpenTrip(trip) => Some(format!("trip {trip} is not complete")),
            Self::NotClaimed(order) => Some(format!("order {order} is not the shopper's")),
            Self::MixedOrders => Some("a trip has one store and one currency".into()),
            Self::StillShopping => Some("send a finish event first".into()),
            Self::OtherCurrency => Some("the trip's amounts are in another currency".into()),
            Self::CurrencyNeeded => {
                Some("the trip can not be looked up now; name the currency of its prices".into())
            }
            Self::LedgerAway => {
                Some("it may have been done; send the same again with the same ids".into())
            }
            Self::QueueAway => {
                Some("the events may be in it; send the same again with the same ids".into())
            }
            Self::QueueFull => Some("nothing was taken".into()),
            Self::Unauthenticated
            | Self::TooLarge
            | Self::NoSuchPath
            | Self::Method(_)
            | Self::NotJson
            | Self::UnknownStore
            | Self::ClaimedByAnother
            | Self::OrderGone
            | Self::Internal => None,
        }
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let (status, slug, title) = self.parts();
        let body = Body {
            r#type: format!("urn:standin:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: self.detail(),
        };
        // Strings and a number always serialize; an empty body would still carry the status.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = response(status, "application/problem+json", body);
        if let Self::Method(method) = self {
            let (name, value) = allow(&method);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        use standin_core::queue::QueueError;
        match &error {
            _ if !error.may_retry() => {
                tracing::error!(%error, "a call can never succeed");
                Self::Internal
            }
            FlowError::Ledger(_) | FlowError::Blind(_) => Self::LedgerAway,
            FlowError::Queue(QueueError::Full) => Self::QueueFull,
            FlowError::Queue(QueueError::NotDurable(_) | QueueError::Cache(_))
            | FlowError::Journal(_) => Self::QueueAway,
        }
    }
}
