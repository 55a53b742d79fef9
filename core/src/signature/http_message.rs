//! HTTP message signatures (RFC 9421, `hmac-sha256`) in one fixed form.
//!
//! The signed components and their order are fixed, and so is every character of `Signature-Input`
//! that is not a value: there is nothing to canonicalise and nothing to negotiate. What this form
//! leaves out of the RFC (other components, labels, algorithms, several signatures) is refused.
//!
//! ```text
//! Content-Digest: sha-256=:…:
//! Idempotency-Key: 8e03978e-40d5-43e8-bc93-6894a57f9324
//! Signature-Input: standin=("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key");created=1700000000;expires=1700000060;nonce="…";keyid="2026-11";alg="hmac-sha256";tag="standin-v1"
//! Signature: standin=:…:
//! ```
//!
//! The path must have no query. The nonce only makes two messages of one second differ; nothing
//! remembers it (`docs/decisions/0016-no-nonce-cache.md`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac as _;
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::{Live, Secret, SignatureError, matches, seconds, tag_of_base64};
use crate::clock::Timestamp;

/// Header with the body's digest (RFC 9530).
pub const DIGEST_HEADER: &str = "content-digest";
/// Header with the sender's key for this payment.
pub const KEY_HEADER: &str = "idempotency-key";
/// Header that says what is signed.
pub const INPUT_HEADER: &str = "signature-input";
/// Header with the signature.
pub const SIGNATURE_HEADER: &str = "signature";
/// Longest life of a signature.
pub const LIFE_MAX: Duration = Duration::from_secs(300);
/// How far a sender's clock may be off, both ways.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// A message as it came; a header that is not there exactly once is empty.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// Host and port as the sender wrote them.
    pub authority: &'a str,
    /// The path, and the query if there is one.
    pub target: &'a str,
    /// `Content-Type`.
    pub content_type: &'a str,
    /// [`DIGEST_HEADER`].
    pub content_digest: &'a str,
    /// [`KEY_HEADER`].
    pub idempotency_key: &'a str,
    /// [`INPUT_HEADER`].
    pub signature_input: &'a str,
    /// [`SIGNATURE_HEADER`].
    pub signature: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// What a signer says beside the message.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Seconds since the epoch.
    pub created: i64,
    /// Seconds since the epoch.
    pub expires: i64,
    /// 16 to 64 characters of base64url, different each time.
    pub nonce: &'a str,
    /// The key's id.
    pub keyid: &'a str,
}

const COMPONENTS: &str =
    r#"("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key")"#;
const LABEL: &str = "standin=";
const ENDING: &str = r#";alg="hmac-sha256";tag="standin-v1""#;
const NONCE_CHARS: std::ops::RangeInclusive<usize> = 16..=64;
const KEY_ID_BYTES_MAX: usize = 64;
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The value of [`DIGEST_HEADER`] for a body.
pub fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// The values of [`INPUT_HEADER`] and [`SIGNATURE_HEADER`] for a message (whose own are not looked at).
pub fn sign(secret: &Secret, message: &Signed<'_>, terms: &Terms<'_>) -> (String, String) {
    let Terms {
        created,
        expires,
        nonce,
        keyid,
    } = terms;
    let params = format!(
        "{COMPONENTS};created={created};expires={expires};nonce=\"{nonce}\";keyid=\"{keyid}\"{ENDING}"
    );
    let base = base(message, &params);
    let tag = secret.mac(&[base.as_bytes()]).finalize().into_bytes();
    let signature = format!("{LABEL}:{}:", STANDARD.encode(tag));
    (format!("{LABEL}{params}"), signature)
}

/// Checks that the live key which the message names signed it, and that it is its time.
pub fn verify(live: &Live<'_>, message: &Signed<'_>, now: Timestamp) -> Result<(), SignatureError> {
    let input = Input::read(message.signature_input);
    let tag = message
        .signature
        .strip_prefix(LABEL)
        .and_then(|rest| rest.strip_prefix(':')?.strip_suffix(':'))
        .and_then(tag_of_base64);
    let keyid = input.as_ref().map_or("", |input| input.keyid);
    let named = live.ids.iter().position(|id| *id == Some(keyid));
    // A name that nobody has costs the same.
    let secret = named.or(Some(0)).and_then(|at| live.secrets.get(at));
    let params = input.as_ref().map_or("", |input| input.params);
    let base = base(message, params);
    let secrets: &[&Secret] = secret.map_or(&[], std::slice::from_ref);
    let tags = tag.as_ref().map_or([].as_slice(), std::slice::from_ref);
    let matched = matches(secrets, &[base.as_bytes()], tags) && named.is_some();
    let digest_is_right = message.content_digest == digest(message.body);
    let input = input.ok_or(SignatureError::Form)?;
    check_message(message)?;
    input.check_time(now)?;
    if tag.is_none() {
        return Err(SignatureError::Form);
    }
    if !digest_is_right {
        return Err(SignatureError::Digest);
    }
    if matched {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

/// RFC 9421 section 2.5.
fn base(message: &Signed<'_>, params: &str) -> String {
    let Signed {
        method,
        authority,
        target,
        content_type,
        content_digest,
        idempotency_key,
        ..
    } = message;
    let authority = authority.to_ascii_lowercase();
    format!(
        "\"@method\": {method}\n\"@authority\": {authority}\n\"@path\": {target}\n\
         \"content-digest\": {content_digest}\n\"content-type\": {content_type}\n\
         \"idempotency-key\": {idempotency_key}\n\"@signature-params\": {params}"
    )
}

/// What goes into the signed text must not be able to look like another line of it.
fn check_message(message: &Signed<'_>) -> Result<(), SignatureError> {
    let key = message.idempotency_key;
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !key.bytes().all(is_visible) {
        return Err(SignatureError::Id);
    }
    let no_query = !message.target.contains(['?', '#']);
    let lines = [
        message.method,
        message.authority,
        message.target,
        message.content_type,
    ];
    let clean =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| is_visible(byte) || byte == b' ');
    if no_query && lines.iter().all(clean) {
        Ok(())
    } else {
        Err(SignatureError::Form)
    }
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

struct Input<'a> {
    /// All that stands behind the label.
    params: &'a str,
    created: &'a str,
    expires: &'a str,
    keyid: &'a str,
}

// === impl Input ===

impl<'a> Input<'a> {
    fn read(header: &'a str) -> Option<Self> {
        let params = header.strip_prefix(LABEL)?;
        let rest = params.strip_prefix(COMPONENTS)?;
        let (created, rest) = rest.strip_prefix(";created=")?.split_once(';')?;
        let (expires, rest) = rest.strip_prefix("expires=")?.split_once(';')?;
        let (nonce, rest) = rest.strip_prefix("nonce=\"")?.split_once('"')?;
        let (keyid, rest) = rest.strip_prefix(";keyid=\"")?.split_once('"')?;
        let of_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let nonce_is_good = NONCE_CHARS.contains(&nonce.len()) && nonce.bytes().all(of_base64url);
        let keyid_is_good = !keyid.is_empty() && keyid.len() <= KEY_ID_BYTES_MAX;
        (rest == ENDING && nonce_is_good && keyid_is_good).then_some(Self {
            params,
            created,
            expires,
            keyid,
        })
    }

    fn check_time(&self, now: Timestamp) -> Result<(), SignatureError> {
        let (created, expires) = (seconds(self.created)?, seconds(self.expires)?);
        let seconds_of = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let life = expires.saturating_sub(created);
        if !(1..=seconds_of(LIFE_MAX)).contains(&life) {
            return Err(SignatureError::Timestamp);
        }
        let (now, leeway) = (now.as_secs(), seconds_of(LEEWAY));
        if created > now.saturating_add(leeway) {
            Err(SignatureError::Future)
        } else if expires.saturating_add(leeway) < now {
            Err(SignatureError::Old)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
