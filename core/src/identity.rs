//! Transaction id, fingerprint and code: pure hashes over one canonical encoding.
//!
//! The encoding of a field is its length as eight big-endian bytes, then its bytes; of a message, a
//! domain label and its fields in a fixed order. No two different messages share an encoding.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

use crate::answer::Code;
use crate::authorization::Authorization;
use crate::id::{BankId, Fingerprint, TransactionId, TripId};

/// The key under which a deployment makes its authorization codes.
#[derive(Clone)]
pub struct DeploymentKey(SecretSlice<u8>);

/// What a transaction id was made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Approve a payment.
    Authorize,
}

// === impl DeploymentKey ===

impl DeploymentKey {
    /// Wraps key material; 16 bytes at least.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() < 16 {
            None
        } else {
            Some(Self(SecretSlice::from(bytes)))
        }
    }

    /// The code of a payment: HMAC-SHA-256 over bank, transaction id and fingerprint.
    pub fn code(&self, bank: &BankId, id: TransactionId, fingerprint: &Fingerprint) -> Code {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret())
            .expect("HMAC takes a key of any length");
        for field in [
            b"standin.code.v1".as_slice(),
            bank.as_str().as_bytes(),
            id.as_bytes(),
            fingerprint.as_bytes(),
        ] {
            mac.update(&length_of(field));
            mac.update(field);
        }
        Code::from_mac(&mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for DeploymentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeploymentKey(..)")
    }
}

// === impl Operation ===

impl Operation {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Authorize => b"authorize",
        }
    }
}

/// Hash of the bank's semantic fields: who, whose card, how much, where. Never our resolution of
/// them, never a time.
pub fn fingerprint(request: &Authorization) -> Fingerprint {
    Fingerprint::from_bytes(digest(&[
        b"standin.fingerprint.v1",
        request.bank.as_str().as_bytes(),
        &request.shopper.get().to_be_bytes(),
        &request.amount.minor().to_be_bytes(),
        request.amount.currency().code().as_bytes(),
        request.merchant.name.as_bytes(),
        request.merchant.address.as_bytes(),
    ]))
}

/// Identity of a payment. A bank's own key outlives the trip; without one the id names the trip,
/// so that the same amount at the same store on the next trip is another payment.
pub fn transaction_id(
    request: &Authorization,
    operation: Operation,
    trip: Option<TripId>,
) -> TransactionId {
    let bank = request.bank.as_str().as_bytes();
    let digest = match &request.bank_key {
        Some(key) => digest(&[b"standin.key.v1", bank, operation.label(), key.as_bytes()]),
        None => digest(&[
            b"standin.derived.v1",
            bank,
            operation.label(),
            trip.as_ref()
                .map_or(b"".as_slice(), |trip| trip.0.as_bytes().as_slice()),
            &request.shopper.get().to_be_bytes(),
            request.merchant.name.as_bytes(),
            request.merchant.address.as_bytes(),
            &request.amount.minor().to_be_bytes(),
            request.amount.currency().code().as_bytes(),
        ]),
    };
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    TransactionId::from_bytes(id)
}

fn digest(fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update(length_of(field));
        hash.update(field);
    }
    hash.finalize().into()
}

fn length_of(field: &[u8]) -> [u8; 8] {
    u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::authorization::Merchant;
    use crate::clock::Timestamp;
    use crate::id::ShopperId;
    use crate::money::{Currency, Money};

    prop_compose! {
        fn request()(
            bank in "[a-z]{1,4}", shopper in 1_i64..5, minor in 1_i64..5,
            name in "[ab]{0,3}", address in "[ab]{0,3}",
            bank_key in prop::option::of("[ab]{1,3}"), received in any::<i64>(),
        ) -> Authorization {
            Authorization {
                bank: bank.parse().unwrap(),
                shopper: ShopperId::try_from(shopper).unwrap(),
                amount: Money::from_minor(minor, Currency::USD),
                merchant: Merchant { name, address },
                bank_key,
                received_at: Timestamp::from_millis(received),
            }
        }
    }

    fn id(request: &Authorization, trip: u128) -> TransactionId {
        let trip = TripId(uuid::Uuid::from_u128(trip));
        transaction_id(request, Operation::Authorize, Some(trip))
    }

    /// The request and every way in which the bank can have asked for something else.
    fn variants(request: &Authorization) -> Vec<Authorization> {
        let change = |change: fn(&mut Authorization)| {
            let mut other = request.clone();
            change(&mut other);
            other
        };
        let letters = format!("{}{}x", request.merchant.name, request.merchant.address);
        let cut_at = |at: usize| {
            let (name, address) = letters.split_at(at);
            let (name, address) = (name.to_owned(), address.to_owned());
            Authorization {
                merchant: Merchant { name, address },
                ..request.clone()
            }
        };
        vec![
            request.clone(),
            change(|other| other.bank = "other".parse().unwrap()),
            change(|other| other.shopper = ShopperId::try_from(9_i64).unwrap()),
            change(|other| other.amount = Money::from_minor(9, Currency::USD)),
            change(|other| {
                let minor = other.amount.minor();
                other.amount = Money::from_minor(minor, "EUR".parse().unwrap());
            }),
            // The same letters, cut at different places.
            cut_at(0),
            cut_at(letters.len()),
        ]
    }

    proptest! {
        #[test]
        fn every_field_of_the_bank_changes_the_fingerprint(request in request()) {
            let variants = variants(&request);
            let prints: HashSet<Fingerprint> = variants.iter().map(fingerprint).collect();
            prop_assert_eq!(prints.len(), variants.len());
        }

        #[test]
        fn neither_time_nor_key_changes_the_fingerprint(request in request(), at in any::<i64>()) {
            let again = Authorization {
                received_at: Timestamp::from_millis(at),
                bank_key: Some("another".to_owned()),
                ..request.clone()
            };
            prop_assert_eq!(fingerprint(&again), fingerprint(&request));
        }

        #[test]
        fn a_derived_id_names_its_trip_and_every_field(request in request(), at in any::<i64>()) {
            let derived = Authorization { bank_key: None, ..request };
            let later = Authorization {
                received_at: Timestamp::from_millis(at),
                ..derived.clone()
            };
            prop_assert_eq!(id(&derived, 1), id(&later, 1));
            prop_assert_ne!(id(&derived, 1), id(&derived, 2));
            let variants = variants(&derived);
            let ids: HashSet<TransactionId> = variants.iter().map(|other| id(other, 1)).collect();
            prop_assert_eq!(ids.len(), variants.len());
        }

        #[test]
        fn a_banks_own_key_outlives_trip_and_body(request in request()) {
            let keyed = Authorization { bank_key: Some("key".to_owned()), ..request };
            for other in variants(&keyed) {
                prop_assert_eq!(id(&other, 2) == id(&keyed, 1), other.bank == keyed.bank);
            }
            let derived = Authorization { bank_key: None, ..keyed.clone() };
            prop_assert_ne!(id(&derived, 1), id(&keyed, 1));
        }

        #[test]
        fn the_code_depends_on_all_it_is_made_from(request in request()) {
            let key = DeploymentKey::new(vec![1; 32]).unwrap();
            let (id, print) = (id(&request, 1), fingerprint(&request));
            let code = key.code(&request.bank, id, &print);
            prop_assert_eq!(code, key.code(&request.bank, id, &print));
            let other_key = DeploymentKey::new(vec![2; 32]).unwrap();
            let other_id = TransactionId::from_bytes([0; 16]);
            let other_print = Fingerprint::from_bytes([0; 32]);
            // Thirty bits may collide, but not in a few hundred tries.
            for other in [
                other_key.code(&request.bank, id, &print),
                key.code(&"other".parse().unwrap(), id, &print),
                key.code(&request.bank, other_id, &print),
                key.code(&request.bank, id, &other_print),
            ] {
                prop_assert_ne!(other, code);
            }
        }
    }

    #[test]
    fn a_short_deployment_key_is_refused_and_none_is_shown() {
        assert!(DeploymentKey::new(vec![7; 15]).is_none());
        let key = DeploymentKey::new(vec![7; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "DeploymentKey(..)");
    }
}
