//! Is this request a bank's? Nothing of the body is parsed before this says yes.
//!
//! A bank we do not know costs as much and looks the same as a wrong signature: the check is made
//! with a secret nobody has. What was wrong goes to a counter only.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use standin_core::clock::Timestamp;
use standin_core::id::BankId;
use standin_core::signature::{
    Key, Keys, Live, Scheme, Secret, SignatureError, TOLERANCE, basic, http_message,
    standard_webhooks, stripe,
};
use uuid::Uuid;

use crate::config::BankConfig;
use crate::problem::{Problem, Unavailable};
use crate::secrets::BankSecrets;

/// Knows the banks and their secrets.
pub struct Authenticator {
    banks: Vec<BankConfig>,
    secrets: Arc<BankSecrets>,
    nobody: Keys,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The bank that its path names.
    pub slug: &'a str,
    /// Method, target and headers.
    pub parts: &'a Parts,
    /// The raw body.
    pub body: &'a [u8],
    /// Whom the certificate of its connection names.
    pub peer_name: Option<&'a str>,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The bank.
    pub bank: &'a BankConfig,
    /// The sender's own name of the message, if its scheme signs one.
    pub message_id: Option<&'a str>,
}

/// Why a request is not taken for a bank's, for counters and logs; the client is told [`Problem`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// No such bank.
    #[error("unknown bank")]
    UnknownBank,
    /// A header is missing, there twice, or not text.
    #[error("a signature header is missing or not usable")]
    Header,
    /// The connection shows no certificate where the bank must, or that of another.
    #[error("the client's certificate is missing or not this bank's")]
    Certificate,
    /// The signature check failed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It may be by a key that this edge was not given: it cannot tell.
    #[error("the bank has a key that this edge was not given")]
    KeyMissing,
}

/// The name that a bank's certificate carries, as its one alternative name of kind URI.
pub fn certificate_name(bank: &BankId) -> String {
    format!("standin://bank/{bank}")
}

// === impl AuthenticationError ===

impl AuthenticationError {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownBank => "unknown_bank",
            Self::Header => "header",
            Self::Certificate => "certificate",
            Self::Signature(error) => error.as_str(),
            Self::KeyMissing => "key_missing",
        }
    }
}

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::KeyMissing => Self::unavailable(Unavailable::KeyMissing),
            AuthenticationError::UnknownBank
            | AuthenticationError::Header
            | AuthenticationError::Certificate
            | AuthenticationError::Signature(_) => Self::Unauthorized,
        }
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Knows these banks; `secrets` has theirs, in the same order.
    pub fn new(banks: Vec<BankConfig>, secrets: Arc<BankSecrets>) -> Self {
        let nobody = || {
            let bytes = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            Key::lasting(Secret::from_bytes(bytes).expect("32 bytes are a secret"))
        };
        Self {
            banks,
            secrets,
            nobody: Keys::of(vec![nobody(), nobody()]).expect("two keys may be good at once"),
        }
    }

    /// Every bank.
    pub fn banks(&self) -> &[BankConfig] {
        &self.banks
    }

    /// The bank that the path names, if the request is signed with one of its secrets and comes over
    /// a connection that is its own.
    pub fn authenticate<'a>(
        &'a self,
        request: &Presented<'a>,
        now: Timestamp,
    ) -> Result<Sender<'a>, AuthenticationError> {
        let mut banks = self.banks.iter().enumerate();
        let found = banks.find(|(_, bank)| bank.slug.as_str() == request.slug);
        let keys = found.and_then(|(number, _)| self.secrets.keys(number));
        let live = keys.as_deref().unwrap_or(&self.nobody).live(now);
        let scheme = found.map_or(Scheme::StandardWebhooks, |(_, bank)| bank.secrets.scheme);
        let verified = verify(scheme, &live, request, now);
        let (_, bank) = found.ok_or(AuthenticationError::UnknownBank)?;
        let own = certificate_name(&bank.slug);
        match request.peer_name {
            Some(name) if name == own => {}
            None if !bank.mutual_tls => {}
            Some(_) | None => return Err(AuthenticationError::Certificate),
        }
        match verified {
            Ok(message_id) => Ok(Sender { bank, message_id }),
            Err(AuthenticationError::Signature(SignatureError::Mismatch)) if live.missing => {
                Err(AuthenticationError::KeyMissing)
            }
            Err(error) => Err(error),
        }
    }
}

/// Checks a request by its scheme; the message's id, if the scheme signs one.
fn verify<'a>(
    scheme: Scheme,
    live: &Live<'_>,
    request: &Presented<'a>,
    now: Timestamp,
) -> Result<Option<&'a str>, AuthenticationError> {
    let mut headers = Headers {
        headers: &request.parts.headers,
        missing: false,
    };
    let body = request.body;
    let (verified, id) = match scheme {
        Scheme::StandardWebhooks => {
            let message = standard_webhooks::Signed {
                id: headers.one(standard_webhooks::ID_HEADER),
                timestamp: headers.one(standard_webhooks::TIMESTAMP_HEADER),
                signature: headers.one(standard_webhooks::SIGNATURE_HEADER),
                body,
            };
            let verified = standard_webhooks::verify(&live.secrets, &message, now, TOLERANCE);
            (verified, Some(message.id))
        }
        Scheme::Stripe => {
            let header = headers.one(stripe::SIGNATURE_HEADER);
            let verified = stripe::verify(&live.secrets, header, body, now, TOLERANCE);
            (verified, None)
        }
        Scheme::HttpMessage => {
            let uri = &request.parts.uri;
            let message = http_message::Signed {
                method: request.parts.method.as_str(),
                // HTTP/2 has it in the target, HTTP/1.1 in a header.
                authority: match uri.authority() {
                    Some(authority) => authority.as_str(),
                    None => headers.one(HOST.as_str()),
                },
                target: uri.path_and_query().map_or("", |target| target.as_str()),
                content_type: headers.one(CONTENT_TYPE.as_str()),
                content_digest: headers.one(http_message::DIGEST_HEADER),
                idempotency_key: headers.one(http_message::KEY_HEADER),
                signature_input: headers.one(http_message::INPUT_HEADER),
                signature: headers.one(http_message::SIGNATURE_HEADER),
                body,
            };
            let verified = http_message::verify(live, &message, now);
            (verified, Some(message.idempotency_key))
        }
        Scheme::Basic => {
            let header = headers.one(basic::HEADER);
            (basic::verify(&live.secrets, header), None)
        }
    };
    if headers.missing {
        return Err(AuthenticationError::Header);
    }
    verified?;
    Ok(id)
}

struct Headers<'a> {
    headers: &'a HeaderMap,
    /// One that was asked for is not there exactly once, or is not text.
    missing: bool,
}

// === impl Headers ===

impl<'a> Headers<'a> {
    /// The value of a header that is there exactly once: two readers of a doubled one could differ.
    fn one(&mut self, name: &str) -> &'a str {
        let mut values = self.headers.get_all(name).iter();
        let value = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        };
        self.missing |= value.is_none();
        value.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
