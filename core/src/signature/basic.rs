//! HTTP Basic (RFC 7617): a user and a password in base64. Marqeta's gateway authenticates this way.
//!
//! It signs nothing, neither body nor time, so it is taken only over a connection that proves who
//! sends (mutual TLS).

use std::borrow::Borrow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac as _;

use super::{SECRET_TEXT_BYTES, Secret, SignatureError, matches};

/// The header.
pub const HEADER: &str = "authorization";

/// The header's value for this user and password.
pub fn credentials(secret: &Secret) -> String {
    format!("Basic {}", STANDARD.encode(secret.bytes()))
}

/// Checks that the header carries one of `secrets`.
pub fn verify<S: Borrow<Secret>>(secrets: &[S], header: &str) -> Result<(), SignatureError> {
    let given = read(header);
    // Equal texts have equal MACs under any key; those are what constant time compares.
    let key = Secret::from_text(LABEL).map_err(|_| SignatureError::Form)?;
    let tags: Vec<[u8; 32]> = secrets
        .iter()
        .map(|secret| {
            key.mac(&[secret.borrow().bytes()])
                .finalize()
                .into_bytes()
                .into()
        })
        .collect();
    let text = given.as_deref().unwrap_or_default();
    let matched = matches(std::slice::from_ref(&key), &[text], &tags);
    match given {
        None => Err(SignatureError::Form),
        Some(_) if matched => Ok(()),
        Some(_) => Err(SignatureError::Mismatch),
    }
}

const LABEL: &str = "standin.basic.comparison.v1";

fn read(header: &str) -> Option<Vec<u8>> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // A text that is no secret is not decoded at all.
    let longest = SECRET_TEXT_BYTES.end().div_ceil(3).saturating_mul(4);
    if encoded.len() > longest {
        return None;
    }
    STANDARD.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    fn secret(text: &str) -> Secret {
        Scheme::Basic.secret(text).unwrap()
    }

    #[test]
    fn one_of_the_live_secrets_and_nothing_else() {
        let (first, second) = (
            secret("marqeta:sesame-street"),
            secret("marqeta:open-sesame"),
        );
        let both = [first.clone(), second.clone()];
        for good in both.iter().map(credentials) {
            assert_eq!(verify(&both, &good), Ok(()), "{good}");
            assert_eq!(verify(&both, &good.replacen("Basic", "basic", 1)), Ok(()));
        }
        let good = credentials(&first);
        let encode = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (header, error) in [
            (String::new(), SignatureError::Form),
            ("Basic".to_owned(), SignatureError::Form),
            ("Basic ".to_owned(), SignatureError::Mismatch),
            (good.replacen("Basic", "Bearer", 1), SignatureError::Form),
            (good.replacen(' ', "  ", 1), SignatureError::Form),
            (format!("{good} "), SignatureError::Form),
            (format!("{good}="), SignatureError::Form),
            (
                good.trim_end_matches('=').to_owned() + "!",
                SignatureError::Form,
            ),
            (encode("marqeta:sesame-stree"), SignatureError::Mismatch),
            (encode("marqeta:sesame-street\0"), SignatureError::Mismatch),
            (encode("Marqeta:sesame-street"), SignatureError::Mismatch),
            (encode("marqeta"), SignatureError::Mismatch),
            (encode(&"x".repeat(400)), SignatureError::Form),
            (encode("other:somewhere-else"), SignatureError::Mismatch),
        ] {
            assert_eq!(verify(&both, &header), Err(error), "{header:?}");
        }
        assert_eq!(verify(&[second], &good), Err(SignatureError::Mismatch));
        assert_eq!(verify::<Secret>(&[], &good), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_user_and_a_password_are_needed() {
        use super::super::SecretError;
        for text in ["", "user", ":password-of-nobody", "user-of-no-password:"] {
            let read = Scheme::Basic.secret(text).map(drop);
            assert_eq!(read, Err(SecretError::UserPassword), "{text:?}");
        }
        let short = Scheme::Basic.secret("user:pass").map(drop);
        assert!(matches!(short, Err(SecretError::Length { bytes: 9, .. })));
    }
}
