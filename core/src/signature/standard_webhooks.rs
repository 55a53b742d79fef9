//! Standard Webhooks: HMAC-SHA-256 over `id.timestamp.body`, in base64. Lithic signs this way.
//!
//! Facts: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//! Signatures of other versions (`v1a`) are ignored.

use std::borrow::Borrow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac as _;

use super::{SIGNATURES_MAX, Secret, SignatureError, check_time, matches, seconds, tag_of_base64};
use crate::clock::Timestamp;

/// Header with the sender's id of the message.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of sending, in seconds since the epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with one or more signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// Longest message id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

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

/// The signature of a message sent at `timestamp` (seconds since the epoch): `v1,<base64>`.
pub fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let time = timestamp.to_string();
    let tag = secret.mac(&signed(id, &time, body)).finalize();
    format!("v1,{}", STANDARD.encode(tag.into_bytes()))
}

/// Checks that one of `secrets` signed the message within `tolerance` of `now`. No secrets at all is a
/// mismatch.
pub fn verify<S: Borrow<Secret>>(
    secrets: &[S],
    message: &Signed<'_>,
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let tags = tags_of(message.signature);
    let parts = signed(message.id, message.timestamp, message.body);
    let matched = matches(secrets, &parts, tags.as_deref().unwrap_or_default());
    check_id(message.id)?;
    check_time(seconds(message.timestamp)?, now, tolerance)?;
    match tags {
        None => Err(SignatureError::Form),
        Some(tags) if tags.is_empty() => Err(SignatureError::Form),
        Some(_) if matched => Ok(()),
        Some(_) => Err(SignatureError::Mismatch),
    }
}

fn signed<'a>(id: &'a str, time: &'a str, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", time.as_bytes(), b".", body]
}

fn check_id(id: &str) -> Result<(), SignatureError> {
    // A dot would let one signed text be read as two different messages.
    let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(usable) {
        return Err(SignatureError::Id);
    }
    Ok(())
}

/// The 32-byte tags of the `v1` signatures; `None` when there are more than we look at.
fn tags_of(header: &str) -> Option<Vec<[u8; 32]>> {
    let mut tags = Vec::new();
    for (at, part) in header.split(' ').enumerate() {
        if at >= SIGNATURES_MAX {
            return None;
        }
        tags.extend(part.strip_prefix("v1,").and_then(tag_of_base64));
    }
    Some(tags)
}

#[cfg(test)]
mod tests;
