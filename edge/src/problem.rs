//! Errors as a client reads them: `application/problem+json` (RFC 9457), each kind with a stable
//! `type`. A decline is not here: it is an answer.
//!
//! A problem never repeats what the client sent, and says of a failed authentication only that it
//! failed.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use standin_core::id::TransactionId;

/// Media type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";
/// ISO 8583 response code of "issuer or switch inoperative", sent with every 503.
pub const ISO8583_INOPERATIVE: &str = "91";

/// Why a request got no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// 400: not HTTP or JSON that we can read.
    Malformed {
        /// What is wrong.
        detail: &'static str,
    },
    /// 400: one field is missing or wrong.
    Field {
        /// Its path, as `merchant.name`.
        field: &'static str,
        /// What it should be.
        detail: &'static str,
    },
    /// 401: not a known sender, or not its signature. Says no more on purpose.
    Unauthorized,
    /// 403: nobody may order that here.
    Forbidden {
        /// Why not, and what would have to be so.
        detail: &'static str,
    },
    /// 404: no such resource.
    NotFound,
    /// 405: the resource has other methods.
    MethodNotAllowed {
        /// Which, as the `Allow` header lists them.
        allow: &'static str,
    },
    /// 408: the body did not arrive in time.
    RequestTimeout,
    /// 413: the body is too large.
    TooLarge {
        /// The most we read, in bytes.
        limit_bytes: usize,
    },
    /// 415: not `application/json`.
    UnsupportedMediaType,
    /// 422: the body holds a payment card number, which nothing here may keep.
    CardNumber,
    /// 422: the transaction id was used for a request that said something else.
    OtherFingerprint {
        /// The payment.
        transaction_id: TransactionId,
    },
    /// 409: an operator's order that does not fit the present state.
    Conflict {
        /// Why not.
        detail: Cow<'static, str>,
    },
    /// 429: too many requests.
    TooManyRequests {
        /// When to try again.
        retry_after: Duration,
    },
    /// 500: our fault, before anything was committed.
    Internal,
    /// 500: our fault after a commit; the same request gets this same problem until an operator
    /// clears it.
    Faulted {
        /// The payment.
        transaction_id: TransactionId,
    },
    /// 503: no answer can be given. What became of the payment is unknown to the sender.
    Unavailable {
        /// Why.
        cause: Unavailable,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unavailable {
    /// The deadline of the request passed.
    Deadline,
    /// The same payment is being answered; its answer did not come in time.
    InFlight,
    /// The write-ahead log did not commit in its budget.
    LogTimeout,
    /// The write-ahead log is at its budget of space.
    LogFull,
    /// The write-ahead log failed; this edge is going down.
    LogFailed,
    /// The reserve for answers on stale data is spent.
    ReserveSpent,
    /// The primary is away and an operator forbade standing in.
    StandInForbidden,
    /// More requests are in progress than this edge takes on.
    Overloaded,
    /// The hold of this payment was released; it may not be answered any more.
    Released,
    /// The primary, which this operation needs, is away.
    PrimaryAway,
    /// This edge is starting or stopping.
    NotReady,
    /// The bank has a key that this edge was not given: it cannot tell whose request this is.
    KeyMissing,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iso8583_response_code: Option<&'a str>,
}

// === impl Unavailable ===

impl Unavailable {
    /// The word in bodies and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::InFlight => "in_flight",
            Self::LogTimeout => "log_timeout",
            Self::LogFull => "log_full",
            Self::LogFailed => "log_failed",
            Self::ReserveSpent => "reserve_spent",
            Self::StandInForbidden => "stand_in_forbidden",
            Self::Overloaded => "overloaded",
            Self::Released => "released",
            Self::PrimaryAway => "primary_away",
            Self::NotReady => "not_ready",
            Self::KeyMissing => "key_missing",
        }
    }
}

// === impl Problem ===

impl Problem {
    /// No answer for now: the same request may come again in a second.
    pub const fn unavailable(cause: Unavailable) -> Self {
        Self::Unavailable {
            cause,
            retry_after: Duration::from_secs(1),
        }
    }

    /// The last part of the `type`, also the word in metrics.
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Field { .. } => "invalid-field",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed { .. } => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::TooLarge { .. } => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::CardNumber => "card-number",
            Self::OtherFingerprint { .. } => "transaction-id-reused",
            Self::Conflict { .. } => "conflict",
            Self::TooManyRequests { .. } => "too-many-requests",
            Self::Internal => "internal",
            Self::Faulted { .. } => "faulted",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } | Self::Field { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::CardNumber | Self::OtherFingerprint { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal | Self::Faulted { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The same words for every problem of this kind.
    pub const fn title(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "The request cannot be read",
            Self::Field { .. } => "A field is missing or wrong",
            Self::Unauthorized => "The request is not authenticated",
            Self::Forbidden { .. } => "The order is not allowed here",
            Self::NotFound => "There is nothing here",
            Self::MethodNotAllowed { .. } => "The method does not fit the resource",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::TooLarge { .. } => "The body is too large",
            Self::UnsupportedMediaType => "The body must be application/json",
            Self::CardNumber => {
                "The body holds what reads as a card number; send a token of ours or yours"
            }
            Self::OtherFingerprint { .. } => "The transaction id was used for another request",
            Self::Conflict { .. } => "The order does not fit the present state",
            Self::TooManyRequests { .. } => "Too many requests",
            Self::Internal => "Something failed here before the payment was decided",
            Self::Faulted { .. } => "Something failed here after the payment was decided",
            Self::Unavailable { .. } => "No answer can be given now",
        }
    }

    /// What a client should wait before it tries again, in whole seconds, at least one.
    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after } | Self::Unavailable { retry_after, .. } => {
                let up = u64::from(retry_after.subsec_nanos() > 0);
                Some(retry_after.as_secs().saturating_add(up).max(1))
            }
            _ => None,
        }
    }

    fn body(&self) -> Body<'_> {
        let mut body = Body {
            r#type: format!("urn:standin:problem:{}", self.slug()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: None,
            field: None,
            transaction_id: None,
            cause: None,
            limit_bytes: None,
            retry_after: self.retry_after_secs(),
            iso8583_response_code: None,
        };
        match self {
            Self::Malformed { detail } | Self::Forbidden { detail } => body.detail = Some(detail),
            Self::Conflict { detail } => body.detail = Some(detail),
            Self::Field { field, detail } => {
                body.field = Some(field);
                body.detail = Some(detail);
            }
            Self::TooLarge { limit_bytes } => body.limit_bytes = Some(*limit_bytes),
            Self::OtherFingerprint { transaction_id } | Self::Faulted { transaction_id } => {
                body.transaction_id = Some(transaction_id.to_string());
            }
            Self::Unavailable { cause, .. } => {
                body.cause = Some(cause.as_str());
                body.iso8583_response_code = Some(ISO8583_INOPERATIVE);
            }
            Self::Unauthorized
            | Self::CardNumber
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::RequestTimeout
            | Self::UnsupportedMediaType
            | Self::TooManyRequests { .. }
            | Self::Internal => {}
        }
        body
    }

    /// The body's bytes; the same for equal problems.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(&self.body())
            .expect("a problem is plain text and numbers")
            .into()
    }

    /// The whole response.
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.to_bytes());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        if let Some(secs) = self.retry_after_secs() {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        match self {
            Self::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Unauthorized => {
                let scheme = HeaderValue::from_static("StandardWebhooks");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_its_own_type_and_the_status_it_claims() {
        let id = TransactionId::from_bytes([7; 16]);
        let wait = Duration::from_millis(1_200);
        let all = [
            (Problem::Malformed { detail: "x" }, 400),
            (
                Problem::Field {
                    field: "amount",
                    detail: "x",
                },
                400,
            ),
            (Problem::Unauthorized, 401),
            (Problem::Forbidden { detail: "x" }, 403),
            (Problem::NotFound, 404),
            (Problem::MethodNotAllowed { allow: "POST" }, 405),
            (Problem::RequestTimeout, 408),
            (Problem::Conflict { detail: "x".into() }, 409),
            (
                Problem::TooLarge {
                    limit_bytes: 16_384,
                },
                413,
            ),
            (Problem::UnsupportedMediaType, 415),
            (Problem::CardNumber, 422),
            (Problem::OtherFingerprint { transaction_id: id }, 422),
            (Problem::TooManyRequests { retry_after: wait }, 429),
            (Problem::Internal, 500),
            (Problem::Faulted { transaction_id: id }, 500),
            (
                Problem::Unavailable {
                    cause: Unavailable::Deadline,
                    retry_after: wait,
                },
                503,
            ),
        ];
        let mut types = std::collections::BTreeSet::new();
        for (problem, status) in all {
            let response = problem.to_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["status"], status);
            assert!(
                types.insert(body["type"].as_str().unwrap().to_owned()),
                "{body}"
            );
            let retry = response
                .headers()
                .get(RETRY_AFTER)
                .map(|v| v.to_str().unwrap().to_owned());
            let expected = (status == 429 || status == 503).then(|| "2".to_owned());
            assert_eq!(retry, expected, "{status}");
            assert_eq!(response.headers().contains_key(ALLOW), status == 405);
        }
    }

    #[test]
    fn a_503_reads_like_this() {
        let problem = Problem::Unavailable {
            cause: Unavailable::LogFull,
            retry_after: Duration::from_secs(5),
        };
        let expected = r#"{"type":"urn:standin:problem:unavailable","title":"No answer can be given now","status":503,"cause":"log_full","retry_after":5,"iso8583_response_code":"91"}"#;
        assert_eq!(problem.to_bytes(), expected);
    }
}
