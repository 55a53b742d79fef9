//! Stripe's signature: HMAC-SHA-256 over `timestamp.body`, in lower-case hex, in one header
//! `t=1700000000,v1=…`.
//!
//! Facts: <https://docs.stripe.com/webhooks?verify=verify-manually>. The key is the endpoint's secret as
//! it is written, its prefix with it. Signatures of other versions (`v0`) are ignored. Stripe's own
//! libraries look for old messages only; here one from the future is refused too.

use std::borrow::Borrow;
use std::time::Duration;

use hmac::Mac as _;

use super::{SIGNATURES_MAX, Secret, SignatureError, check_time, matches, seconds};
use crate::clock::Timestamp;

/// The header.
pub const SIGNATURE_HEADER: &str = "stripe-signature";

/// The header's value for a body sent at `timestamp` (seconds since the epoch).
pub fn sign(secret: &Secret, timestamp: i64, body: &[u8]) -> String {
    let time = timestamp.to_string();
    let tag = secret.mac(&signed(&time, body)).finalize().into_bytes();
    let mut header = format!("t={time},v1=");
    for byte in tag {
        header.push(char::from(HEX[usize::from(byte >> 4)]));
        header.push(char::from(HEX[usize::from(byte & 15)]));
    }
    header
}

/// Checks that one of `secrets` signed the body within `tolerance` of `now`.
pub fn verify<S: Borrow<Secret>>(
    secrets: &[S],
    header: &str,
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let read = read(header);
    let (time, tags) = match &read {
        Ok(read) => (read.time, read.tags.as_slice()),
        Err(_) => ("", [].as_slice()),
    };
    let matched = matches(secrets, &signed(time, body), tags);
    let Read { time, tags } = read?;
    check_time(seconds(time)?, now, tolerance)?;
    if tags.is_empty() {
        Err(SignatureError::Form)
    } else if matched {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

struct Read<'a> {
    time: &'a str,
    tags: Vec<[u8; 32]>,
}

fn signed<'a>(time: &'a str, body: &'a [u8]) -> [&'a [u8]; 3] {
    [time.as_bytes(), b".", body]
}

fn read(header: &str) -> Result<Read<'_>, SignatureError> {
    let (mut time, mut tags) = (None, Vec::new());
    for (at, part) in header.split(',').enumerate() {
        if at > SIGNATURES_MAX {
            return Err(SignatureError::Form);
        }
        match part.split_once('=') {
            // Two times would leave open which one was signed.
            Some(("t", _)) if time.is_some() => return Err(SignatureError::Timestamp),
            Some(("t", text)) => time = Some(text),
            Some(("v1", hex)) => tags.extend(tag_of_hex(hex)),
            Some(_) | None => {}
        }
    }
    let time = time.ok_or(SignatureError::Timestamp)?;
    Ok(Read { time, tags })
}

/// 64 digits, lower case: that is how it is sent, and one tag has one text.
fn tag_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut tag = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != tag.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in tag.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(tag)
}

fn digit(byte: u8) -> Option<u8> {
    let at = HEX.iter().position(|digit| *digit == byte)?;
    u8::try_from(at).ok()
}

#[cfg(test)]
mod tests;
