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

/// A letter for each value of four bits.
const LETTERS: [char; 16] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'k', 'm', 'n', 'p', 'r', 's', 't', 'w',
];

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

    /// What stands for a card's number from the door on: HMAC-SHA-256 over bank and number, half of it, in
    /// 32 letters. (Of hex digits one token in five hundred reads as a card number itself, and is refused
    /// as one.) The same at every edge; without the key nobody can try numbers against it.
    pub fn card_token(&self, bank: &BankId, number: &str) -> String {
        let mac = self.mac(&[
            b"standin.card.v1",
            bank.as_str().as_bytes(),
            number.as_bytes(),
        ]);
        in_letters(half_of(mac))
    }

    /// The code of a payment: HMAC-SHA-256 over bank, transaction id and fingerprint.
    pub fn code(&self, bank: &BankId, id: TransactionId, fingerprint: &Fingerprint) -> Code {
        Code::from_mac(&self.mac(&[
            b"standin.code.v1",
            bank.as_str().as_bytes(),
            id.as_bytes(),
            fingerprint.as_bytes(),
        ]))
    }

    fn mac(&self, fields: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret())
            .expect("HMAC takes a key of any length");
        for field in fields {
            mac.update(&length_of(field));
            mac.update(field);
        }
        mac.finalize().into_bytes().into()
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
    if !request.particulars.name_nothing() {
        return fingerprint_of_more(request);
    }
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

/// Of a request that says more than our first format did. Where it names a card, the shopper is our
/// resolution of that and stays out. Whether less is taken is no part of what is asked for: a terminal
/// may say it on one try and not on the next.
fn fingerprint_of_more(request: &Authorization) -> Fingerprint {
    let more = &request.particulars;
    let shopper = request.shopper.get().to_be_bytes();
    // A card's token or a shopper's number, told apart by the label before it.
    let (holder, label) = match &more.card {
        Some(card) => (card.as_bytes(), b"card".as_slice()),
        None => (shopper.as_slice(), b"shopper".as_slice()),
    };
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let (network_id, terminal) = (text(&more.network_id), text(&more.terminal));
    Fingerprint::from_bytes(digest(&[
        b"standin.fingerprint.v2",
        request.bank.as_str().as_bytes(),
        label,
        holder,
        &request.amount.minor().to_be_bytes(),
        request.amount.currency().code().as_bytes(),
        request.merchant.name.as_bytes(),
        request.merchant.address.as_bytes(),
        network_id.as_bytes(),
        terminal.as_bytes(),
        more.adds_to
            .as_ref()
            .map_or(b"".as_slice(), |id| id.as_bytes().as_slice()),
    ]))
}

/// Identity of a payment. A bank's own key outlives the trip; without one the id names the trip,
/// so that the same amount at the same store on the next trip is another payment.
pub fn transaction_id(
    request: &Authorization,
    operation: Operation,
    trip: Option<TripId>,
) -> TransactionId {
    if let Some(key) = &request.bank_key {
        return of_key(&request.bank, operation, key);
    }
    let bank = request.bank.as_str().as_bytes();
    id_of(digest(&[
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
    ]))
}

/// Identity of the payment that a bank names by its own key.
pub fn of_key(bank: &BankId, operation: Operation, key: &str) -> TransactionId {
    id_of(digest(&[
        b"standin.key.v1",
        bank.as_str().as_bytes(),
        operation.label(),
        key.as_bytes(),
    ]))
}

/// Identity of a reversal: its first half is made from the payment and the bank's key of the reversal,
/// its second from what the bank said besides, so that a key used for something else shows.
pub fn reversal_id(
    bank: &BankId,
    payment: TransactionId,
    key: &str,
    amount: Option<i64>,
) -> uuid::Uuid {
    let bank = bank.as_str().as_bytes();
    let named = digest(&[
        b"standin.reversal.v1",
        bank,
        payment.as_bytes(),
        key.as_bytes(),
    ]);
    let amount = amount.map_or_else(Vec::new, |minor| minor.to_be_bytes().to_vec());
    let said = digest(&[b"standin.reversal.said.v1", &named, &amount]);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&named[..8]);
    id[8..].copy_from_slice(&said[..8]);
    uuid::Uuid::from_bytes(id)
}

/// Identity of a movement of money, by the bank's own key of it.
pub fn settlement_id(bank: &BankId, key: &str) -> uuid::Uuid {
    let named = digest(&[
        b"standin.settlement.v1",
        bank.as_str().as_bytes(),
        key.as_bytes(),
    ]);
    uuid::Uuid::from_bytes(half_of(named))
}

/// Whether two reversals of one payment have the same key of the bank.
pub fn same_reversal_key(one: uuid::Uuid, other: uuid::Uuid) -> bool {
    one.as_bytes().first_chunk::<8>() == other.as_bytes().first_chunk::<8>()
}

/// Identity of something that reconciliation keeps (a file, a finding, a step): a hash of what sort of
/// thing it is and of the words that name it, each with its length.
pub fn record_id(sort: &str, words: &[&[u8]]) -> uuid::Uuid {
    let mut parts: Vec<&[u8]> = vec![b"standin.record.v1", sort.as_bytes()];
    parts.extend(words);
    id_of(digest(&parts)).to_uuid()
}

/// 128 bits in 32 letters. Of random digits some read as a card number: one UUID in five hundred has
/// thirteen or more in a row that pass the check, and what holds them is refused.
pub fn in_letters(bytes: [u8; 16]) -> String {
    let nibbles = bytes.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles
        .filter_map(|nibble| LETTERS.get(usize::from(nibble)))
        .copied()
        .collect()
}

fn id_of(digest: [u8; 32]) -> TransactionId {
    TransactionId::from_bytes(half_of(digest))
}

/// 128 bits of a digest: as good as all of them where nobody looks for two that are alike.
fn half_of(digest: [u8; 32]) -> [u8; 16] {
    digest.first_chunk::<16>().copied().unwrap_or_default()
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
    use crate::authorization::{Merchant, Particulars};
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
                particulars: Particulars::default(),
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
    fn what_more_is_said_of_a_payment_is_in_its_fingerprint() {
        let plain = Authorization {
            bank: "first".parse().unwrap(),
            shopper: ShopperId::try_from(1_i64).unwrap(),
            amount: Money::from_minor(1, Currency::USD),
            merchant: Merchant {
                name: "a".to_owned(),
                address: "b".to_owned(),
            },
            bank_key: None,
            received_at: Timestamp::from_millis(0),
            particulars: Particulars::default(),
        };
        let said = |change: fn(&mut Particulars)| {
            let mut other = plain.clone();
            change(&mut other.particulars);
            other
        };
        let card = said(|more| more.card = Some("1".to_owned()));
        let all = [
            plain.clone(),
            card.clone(),
            said(|more| more.card = Some("2".to_owned())),
            said(|more| more.network_id = Some("1".to_owned())),
            said(|more| more.terminal = Some("1".to_owned())),
            said(|more| more.adds_to = Some(TransactionId::from_bytes([1; 16]))),
        ];
        let prints: HashSet<Fingerprint> = all.iter().map(fingerprint).collect();
        assert_eq!(prints.len(), all.len());
        // Whose card it is found to be is our word, and whether less is taken is no part of the payment.
        let found = Authorization {
            shopper: ShopperId::try_from(2_i64).unwrap(),
            ..card.clone()
        };
        assert_eq!(fingerprint(&found), fingerprint(&card));
        let mut takes_less = card.clone();
        takes_less.particulars.partial = true;
        assert_eq!(fingerprint(&takes_less), fingerprint(&card));
        let mut takes_less = plain.clone();
        takes_less.particulars.partial = true;
        assert_eq!(fingerprint(&takes_less), fingerprint(&plain));
    }

    #[test]
    fn a_cards_token_tells_nothing_of_its_number() {
        let (first, second) = ("first".parse().unwrap(), "second".parse().unwrap());
        let key = DeploymentKey::new(vec![1; 32]).unwrap();
        let token = key.card_token(&first, "4111111111111111");
        assert_eq!(token, key.card_token(&first, "4111111111111111"));
        assert_eq!(token.len(), 32);
        // Or it could read as a card number.
        assert!(token.bytes().all(|byte| byte.is_ascii_lowercase()));
        let other = DeploymentKey::new(vec![2; 32]).unwrap();
        for different in [
            key.card_token(&second, "4111111111111111"),
            key.card_token(&first, "4111111111111112"),
            other.card_token(&first, "4111111111111111"),
        ] {
            assert_ne!(different, token);
        }
    }

    #[test]
    fn a_reversals_key_shows_in_its_id_and_so_does_what_it_said() {
        let bank: BankId = "first".parse().unwrap();
        let payment = TransactionId::from_bytes([1; 16]);
        let id = |key: &str, amount| reversal_id(&bank, payment, key, amount);
        assert_eq!(id("r", Some(5)), id("r", Some(5)));
        assert!(same_reversal_key(id("r", Some(5)), id("r", None)));
        assert_ne!(id("r", Some(5)), id("r", None));
        assert_ne!(id("r", Some(5)), id("r", Some(6)));
        assert!(!same_reversal_key(id("r", None), id("s", None)));
    }

    #[test]
    fn a_short_deployment_key_is_refused_and_none_is_shown() {
        assert!(DeploymentKey::new(vec![7; 15]).is_none());
        let key = DeploymentKey::new(vec![7; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "DeploymentKey(..)");
    }
}
