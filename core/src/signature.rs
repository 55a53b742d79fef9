//! Signed requests, as Standard Webhooks has it: HMAC-SHA-256 over `id.timestamp.body`.
//!
//! Pure: the time comes in as an argument. A check costs the same number of MACs whether the id, the
//! time or the signature is wrong; which it was is for counters only and must not reach the sender.
//! Absent on purpose: asymmetric signatures (`v1a`), which are ignored like any unknown version, and
//! remembering ids: a repeat inside the tolerance is recognised by its transaction id.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::clock::Timestamp;

/// Header with the sender's id of the message.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of sending, in seconds since the epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with one or more signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How far a sender's clock may be off, both ways.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Longest message id, in bytes.
pub const ID_BYTES_MAX: usize = 255;
/// Most signatures looked at in one header; a header with more is refused.
pub const SIGNATURES_MAX: usize = 8;
/// Fewest and most bytes of a secret.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

const PREFIX: &str = "whsec_";
/// Live secrets a sender may have; every check costs this many MACs at least.
const SECRETS_LIVE: usize = 2;

/// A shared secret: `whsec_` and 24 to 64 bytes in base64. Never printed.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

/// Why a text is not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a secret begins with whsec_")]
    Prefix,
    /// The rest is not padded standard base64.
    #[error("after whsec_ comes padded standard base64")]
    Encoding,
    /// Too short to be safe, or longer than anybody uses.
    #[error("a secret has 24 to 64 bytes, this one has {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
}

/// A message as it came.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// Value of [`ID_HEADER`].
    pub id: &'a str,
    /// Value of [`TIMESTAMP_HEADER`].
    pub timestamp: &'a str,
    /// Value of [`SIGNATURE_HEADER`].
    pub signature: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// Why a message is not taken for the sender's. For counters: the sender is told nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SignatureError {
    /// The id is empty, too long, or has characters other than visible ASCII without `.`.
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
    /// No `v1,` signature in strict base64 of the right length, or too many signatures.
    #[error("no usable v1 signature")]
    Form,
    /// None of the signatures is right.
    #[error("signature does not match")]
    Mismatch,
}

// === impl Secret ===

impl Secret {
    /// Wraps key material of 24 to 64 bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SecretError> {
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self(SecretSlice::from(bytes)))
        } else {
            Err(SecretError::Length { bytes: bytes.len() })
        }
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret())
            .expect("HMAC takes a key of any length");
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl FromStr for Secret {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| SecretError::Encoding)?;
        Self::from_bytes(bytes)
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
    pub const ALL: [Self; 6] = [
        Self::Id,
        Self::Timestamp,
        Self::Old,
        Self::Future,
        Self::Form,
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
            Self::Mismatch => "mismatch",
        }
    }
}

/// The signature of a message sent at `timestamp` (seconds since the epoch): `v1,<base64>`.
pub fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let tag = secret
        .mac(id, &timestamp.to_string(), body)
        .finalize()
        .into_bytes();
    format!("v1,{}", STANDARD.encode(tag))
}

/// Checks that one of `secrets` signed the message within `tolerance` of `now`.
///
/// Every given signature is compared with every secret, in constant time and without stopping at the
/// first match. No secrets at all is a mismatch.
pub fn verify(
    secrets: &[Secret],
    message: &Signed<'_>,
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let tags = tags_of(message.signature);
    let mut matched = false;
    let rounds = secrets.len().max(SECRETS_LIVE);
    for secret in secrets.iter().cycle().take(rounds) {
        let mac = secret.mac(message.id, message.timestamp, message.body);
        for tag in tags.iter().flatten() {
            matched |= mac.clone().verify_slice(tag).is_ok();
        }
    }
    check_id(message.id)?;
    check_time(message.timestamp, now, tolerance)?;
    match tags {
        None => Err(SignatureError::Form),
        Some(tags) if tags.is_empty() => Err(SignatureError::Form),
        Some(_) if matched => Ok(()),
        Some(_) => Err(SignatureError::Mismatch),
    }
}

fn check_id(id: &str) -> Result<(), SignatureError> {
    // A dot would let one signed text be read as two different messages.
    let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(usable) {
        return Err(SignatureError::Id);
    }
    Ok(())
}

fn check_time(text: &str, now: Timestamp, tolerance: Duration) -> Result<(), SignatureError> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(SignatureError::Timestamp);
    }
    let sent: i64 = text.parse().map_err(|_| SignatureError::Timestamp)?;
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

/// The 32-byte tags of the `v1` signatures; `None` when there are more than we look at.
fn tags_of(header: &str) -> Option<Vec<[u8; 32]>> {
    let mut tags = Vec::new();
    for (at, part) in header.split(' ').enumerate() {
        if at >= SIGNATURES_MAX {
            return None;
        }
        let tag = part
            .strip_prefix("v1,")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        tags.extend(tag);
    }
    Some(tags)
}

#[cfg(test)]
mod tests;
