//! Is this request a bank's? Nothing of the body is parsed before this says yes.
//!
//! A bank we do not know costs as much and looks the same as a wrong signature: the check is made
//! with a secret nobody has. What was wrong goes to a counter only.

use http::HeaderMap;
use standin_core::clock::Timestamp;
use standin_core::signature::{
    ID_HEADER, SIGNATURE_HEADER, Secret, SignatureError, Signed, TIMESTAMP_HEADER, TOLERANCE,
    verify,
};
use uuid::Uuid;

use crate::config::BankConfig;
use crate::problem::Problem;

/// Knows the banks and their secrets.
#[derive(Debug)]
pub struct Authenticator {
    banks: Vec<BankConfig>,
    nobody: [Secret; 2],
}

/// Why a request is not a bank's, for counters and logs; the client is told [`Problem`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// No such bank.
    #[error("unknown bank")]
    UnknownBank,
    /// A header is missing, there twice, or not text.
    #[error("a signature header is missing or not usable")]
    Header,
    /// The signature check failed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

// === impl AuthenticationError ===

impl AuthenticationError {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownBank => "unknown_bank",
            Self::Header => "header",
            Self::Signature(error) => error.as_str(),
        }
    }
}

impl From<AuthenticationError> for Problem {
    fn from(_: AuthenticationError) -> Self {
        Self::Unauthorized
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Knows these banks.
    pub fn new(banks: Vec<BankConfig>) -> Self {
        let nobody = || {
            let bytes = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            Secret::from_bytes(bytes).expect("32 bytes are a secret")
        };
        Self {
            banks,
            nobody: [nobody(), nobody()],
        }
    }

    /// Every bank.
    pub fn banks(&self) -> &[BankConfig] {
        &self.banks
    }

    /// The bank named `slug`, if the request is signed with one of its secrets.
    pub fn authenticate(
        &self,
        slug: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<&BankConfig, AuthenticationError> {
        let bank = self.banks.iter().find(|bank| bank.slug.as_str() == slug);
        let secrets = bank.map_or(self.nobody.as_slice(), |bank| bank.secrets.as_slice());
        let (id, timestamp, signature) = (
            one_header(headers, ID_HEADER),
            one_header(headers, TIMESTAMP_HEADER),
            one_header(headers, SIGNATURE_HEADER),
        );
        let message = Signed {
            id: id.unwrap_or_default(),
            timestamp: timestamp.unwrap_or_default(),
            signature: signature.unwrap_or_default(),
            body,
        };
        let verified = verify(secrets, &message, now, TOLERANCE);
        let bank = bank.ok_or(AuthenticationError::UnknownBank)?;
        if id.is_none() || timestamp.is_none() || signature.is_none() {
            return Err(AuthenticationError::Header);
        }
        verified?;
        Ok(bank)
    }
}

/// The value of a header that is there exactly once: two readers of a doubled one could differ.
fn one_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use standin_core::money::Currency;
    use standin_core::signature::sign;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn authenticator() -> Authenticator {
        Authenticator::new(vec![BankConfig::for_tests("first", Currency::USD)])
    }

    fn headers(body: &[u8]) -> HeaderMap {
        let bank = BankConfig::for_tests("first", Currency::USD);
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, "msg_1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, NOW.as_secs().into());
        let signature = sign(&bank.secrets[0], "msg_1", NOW.as_secs(), body);
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers
    }

    #[test]
    fn a_signed_request_of_a_known_bank_passes() {
        let known = authenticator();
        let bank = known.authenticate("first", &headers(b"{}"), b"{}", NOW);
        assert_eq!(bank.map(|bank| bank.slug.as_str()), Ok("first"));
    }

    #[test]
    fn whatever_is_wrong_looks_the_same_outside_and_is_counted_apart() {
        let known = authenticator();
        let good = headers(b"{}");
        let without = |name: &'static str| {
            let mut headers = good.clone();
            headers.remove(name);
            headers
        };
        let twice = |name: &'static str| {
            let mut headers = good.clone();
            headers.append(name, good[name].clone());
            headers
        };
        let later = NOW.plus(std::time::Duration::from_secs(301));
        let mut answers = std::collections::BTreeSet::new();
        for (slug, headers, body, now, cause) in [
            ("second", good.clone(), "{}", NOW, "unknown_bank"),
            ("", good.clone(), "{}", NOW, "unknown_bank"),
            ("First", good.clone(), "{}", NOW, "unknown_bank"),
            ("first", good.clone(), "{ }", NOW, "mismatch"),
            ("first", good.clone(), "{}", later, "old"),
            ("first", without(ID_HEADER), "{}", NOW, "header"),
            ("first", without(TIMESTAMP_HEADER), "{}", NOW, "header"),
            ("first", without(SIGNATURE_HEADER), "{}", NOW, "header"),
            ("first", twice(ID_HEADER), "{}", NOW, "header"),
            ("first", twice(SIGNATURE_HEADER), "{}", NOW, "header"),
            ("second", HeaderMap::new(), "", NOW, "unknown_bank"),
        ] {
            let error = known
                .authenticate(slug, &headers, body.as_bytes(), now)
                .unwrap_err();
            assert_eq!(error.as_str(), cause);
            let response = Problem::from(error).to_response();
            answers.insert(format!("{response:?}"));
        }
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn a_request_signed_for_one_bank_is_not_anothers() {
        let mut other = BankConfig::for_tests("second", Currency::USD);
        other.secrets = vec![Secret::from_bytes(vec![8; 32]).unwrap()];
        let known = Authenticator::new(vec![BankConfig::for_tests("first", Currency::USD), other]);
        let error = known
            .authenticate("second", &headers(b"{}"), b"{}", NOW)
            .unwrap_err();
        assert_eq!(error.as_str(), "mismatch");
    }
}
