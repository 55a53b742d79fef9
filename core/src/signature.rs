//! Is a message its sender's? Four schemes, a file each; every check is pure, the time comes in.
//!
//! A check costs the same number of MACs whether the time, the form or the signature is wrong; which
//! it was is for counters only and must not reach the sender. Comparisons take constant time, base64
//! and hex are read strictly. Absent on purpose: asymmetric signatures, and remembering messages: a
//! repeat inside the tolerance is recognised by its transaction id and can only fetch the answer that
//! its first sender got.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::clock::Timestamp;

pub mod basic;
pub mod http_message;
mod keys;
#[cfg(test)]
mod mutations;
pub mod standard_webhooks;
pub mod stripe;

pub use keys::{Key, Keys, KeysError, LIVE_MAX, Live};
pub use standard_webhooks::{
    ID_BYTES_MAX, ID_HEADER, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER, sign, verify,
};

/// How far a sender's clock may be off, both ways.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Most signatures looked at in one header; a header with more is refused.
pub const SIGNATURES_MAX: usize = 8;
/// Fewest and most bytes of a secret that is given in base64.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Fewest and most bytes of a secret that is used as it is written.
pub const SECRET_TEXT_BYTES: std::ops::RangeInclusive<usize> = 16..=255;

const PREFIX: &str = "whsec_";

/// How a sender proves that a message is its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`: HMAC over `id.timestamp.body`.
    StandardWebhooks,
    /// `Stripe-Signature`: HMAC over `timestamp.body`.
    Stripe,
    /// `Signature` and `Signature-Input` (RFC 9421), in one fixed form.
    HttpMessage,
    /// `Authorization: Basic`; only where the connection itself proves who sends.
    Basic,
}

/// A shared secret. Never printed; wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

/// Why a text is not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a secret begins with whsec_")]
    Prefix,
    /// The rest is not padded standard base64.
    #[error(
        "a secret is written in padded standard base64 (after whsec_, where that belongs to it)"
    )]
    Encoding,
    /// Too short to be safe, or longer than anybody uses.
    #[error("a secret has {} to {} bytes, this one has {bytes}", within.0, within.1)]
    Length {
        /// How many it has.
        bytes: usize,
        /// Fewest and most.
        within: (usize, usize),
    },
    /// Not visible ASCII.
    #[error("a secret is visible ASCII")]
    Character,
    /// Not a user and a password.
    #[error("a user and a password are written as user:password")]
    UserPassword,
}

/// Why a message is not taken for the sender's. For counters: the sender is told nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SignatureError {
    /// The message's id is empty, too long, or has characters that it must not have.
    #[error("message id missing or not usable")]
    Id,
    /// The timestamp is not a whole number of seconds.
    #[error("timestamp is not a number of seconds")]
    Timestamp,
    /// Sent too long ago.
    #[error("timestamp is too old")]
    Old,
    /// Sent in the future.
    #[error("timestamp is in the future")]
    Future,
    /// No signature in the scheme's form, or too many.
    #[error("no usable signature")]
    Form,
    /// The signed digest is not that of the body.
    #[error("the digest is not the body's")]
    Digest,
    /// None of the signatures is right.
    #[error("signature does not match")]
    Mismatch,
}

// === impl Scheme ===

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 4] = [
        Self::StandardWebhooks,
        Self::Stripe,
        Self::HttpMessage,
        Self::Basic,
    ];

    /// The word in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::Stripe => "stripe",
            Self::HttpMessage => "http-message",
            Self::Basic => "basic",
        }
    }

    /// Whether what is signed holds an id of the message.
    pub const fn signs_id(self) -> bool {
        match self {
            Self::StandardWebhooks | Self::HttpMessage => true,
            Self::Stripe | Self::Basic => false,
        }
    }

    /// Reads a secret as senders of this scheme are given it.
    pub fn secret(self, text: &str) -> Result<Secret, SecretError> {
        match self {
            Self::StandardWebhooks => text.parse(),
            Self::HttpMessage => Secret::from_base64(text.strip_prefix(PREFIX).unwrap_or(text)),
            // The prefix is part of the key.
            Self::Stripe => Secret::from_text(text),
            Self::Basic => match text.split_once(':') {
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    Secret::from_text(text)
                }
                _ => Err(SecretError::UserPassword),
            },
        }
    }
}

impl FromStr for Scheme {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::ALL.into_iter().find(|scheme| scheme.as_str() == text);
        found.ok_or(())
    }
}

// === impl Secret ===

impl Secret {
    /// Wraps key material of 24 to 64 bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SecretError> {
        Self::within(bytes, &SECRET_BYTES)
    }

    fn from_base64(text: &str) -> Result<Self, SecretError> {
        let bytes = STANDARD.decode(text).map_err(|_| SecretError::Encoding)?;
        Self::from_bytes(bytes)
    }

    fn from_text(text: &str) -> Result<Self, SecretError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Character);
        }
        Self::within(text.as_bytes().to_vec(), &SECRET_TEXT_BYTES)
    }

    fn within(
        bytes: Vec<u8>,
        within: &std::ops::RangeInclusive<usize>,
    ) -> Result<Self, SecretError> {
        if within.contains(&bytes.len()) {
            return Ok(Self(SecretSlice::from(bytes)));
        }
        Err(SecretError::Length {
            bytes: bytes.len(),
            within: (*within.start(), *within.end()),
        })
    }

    fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The MAC under this secret of these parts, one after the other.
    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

/// A Standard Webhooks secret: `whsec_` and 24 to 64 bytes in base64.
impl FromStr for Secret {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_base64(text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

// === impl SignatureError ===

impl SignatureError {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Id,
        Self::Timestamp,
        Self::Old,
        Self::Future,
        Self::Form,
        Self::Digest,
        Self::Mismatch,
    ];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Timestamp => "timestamp",
            Self::Old => "old",
            Self::Future => "future",
            Self::Form => "form",
            Self::Digest => "digest",
            Self::Mismatch => "mismatch",
        }
    }
}

// === checks that the schemes share ===

/// Whether one of `secrets` made one of `tags` over `parts`. Every tag is compared under every secret,
/// in constant time and without stopping at the first match; one secret costs as much as two.
fn matches<S: Borrow<Secret>>(secrets: &[S], parts: &[&[u8]], tags: &[[u8; 32]]) -> bool {
    let rounds = secrets.len().max(LIVE_MAX);
    let mut matched = false;
    for secret in secrets.iter().cycle().take(rounds) {
        let mac = secret.borrow().mac(parts);
        for tag in tags {
            matched |= mac.clone().verify_slice(tag).is_ok();
        }
    }
    matched
}

/// A number of seconds, written in the one way that a number is.
fn seconds(text: &str) -> Result<i64, SignatureError> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(SignatureError::Timestamp);
    }
    text.parse().map_err(|_| SignatureError::Timestamp)
}

fn check_time(sent: i64, now: Timestamp, tolerance: Duration) -> Result<(), SignatureError> {
    let off = now.as_secs().saturating_sub(sent);
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    if off > tolerance {
        Err(SignatureError::Old)
    } else if off < tolerance.saturating_neg() {
        Err(SignatureError::Future)
    } else {
        Ok(())
    }
}

fn tag_of_base64(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
