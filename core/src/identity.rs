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
