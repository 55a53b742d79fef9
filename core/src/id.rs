//! Identifiers. A held value is valid; each has one text form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A slug is 1 to 32 of `a-z`, `0-9` and `-`.
    #[error("a slug is 1 to 32 characters of a-z, 0-9 and '-'")]
    Slug,
    /// Numeric ids are 1 to 2^63-1.
    #[error("an id is a whole number from 1 to 9223372036854775807")]
    Number,
    /// Transaction ids are 32 hexadecimal digits.
    #[error("a transaction id is 32 hexadecimal digits")]
    Transaction,
    /// Orders and trips are UUIDs.
    #[error("not a UUID")]
    Uuid,
}

/// The party that asks for authorizations, by slug.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BankId(Arc<str>);

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(i64);

        impl $name {
            /// The number as Postgres keeps it: positive.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = IdError;
            fn try_from(number: i64) -> Result<Self, Self::Error> {
                if number > 0 { Ok(Self(number)) } else { Err(IdError::Number) }
            }
        }

        impl TryFrom<u64> for $name {
            type Error = IdError;
            fn try_from(number: u64) -> Result<Self, Self::Error> {
                i64::try_from(number).map_err(|_| IdError::Number).and_then(Self::try_from)
            }
        }

        impl From<$name> for u64 {
            fn from(id: $name) -> Self {
                id.0.unsigned_abs()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<i64>().map_err(|_| IdError::Number).and_then(Self::try_from)
            }
        }
    };
}

numeric_id!(
    /// A gig shopper.
    ShopperId
);
numeric_id!(
    /// A customer who places orders.
    CustomerId
);
numeric_id!(
    /// One of our stores.
    StoreId
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError::Uuid)
            }
        }
    };
}

uuid_id!(
    /// A customer's order.
    OrderId
);
uuid_id!(
    /// One shopper shopping one or more orders at one store.
    TripId
);

/// Numbers from here on are nobody's: they stand for cards that the table of cards does not know, so
/// that a decline of theirs has a place in log and ledger. A quarter of all numbers: no platform's
/// shopper is among them.
const UNKNOWN_CARDS_FROM: i64 = 1 << 62;

// === impl ShopperId ===

impl ShopperId {
    /// Stands for a card that nobody's shopper is known to have; equal cards give equal numbers.
    /// `hash` is spread evenly over its range.
    pub const fn of_unknown_card(hash: u64) -> Self {
        // Sixty-two bits of it: never negative, never zero.
        Self((hash & 0x3fff_ffff_ffff_ffff).cast_signed() | UNKNOWN_CARDS_FROM)
    }

    /// Whether this stands for a card whose shopper is not known. No bank and no platform may name
    /// such a shopper.
    pub const fn is_of_unknown_card(self) -> bool {
        self.0 >= UNKNOWN_CARDS_FROM
    }
}

/// 128-bit identity of a payment. Made by [`crate::identity`]; text form is 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransactionId([u8; 16]);

/// SHA-256 over the bank's semantic fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

// === impl BankId ===

impl BankId {
    /// The slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BankId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(valid) {
            return Err(IdError::Slug);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for BankId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BankId> for String {
    fn from(bank: BankId) -> Self {
        bank.0.as_ref().to_owned()
    }
}

impl fmt::Display for BankId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl TransactionId ===

impl TransactionId {
    /// From the first 16 bytes of a digest.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As a UUID-typed column holds it.
    pub const fn to_uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    /// From a UUID-typed column.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(*uuid.as_bytes())
    }
}

impl FromStr for TransactionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex {
            return Err(IdError::Transaction);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| IdError::Transaction)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// From a SHA-256 digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Fingerprint {
    type Error = std::array::TryFromSliceError;
    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..")
    }
}
