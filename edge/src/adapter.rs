//! Between a bank's bytes and our words: one file a format, chosen by the bank's configuration.
//!
//! Reading is strict where a mistake could be money (amounts, currencies, duplicate keys, wrong types,
//! texts that some later part would cut or refuse) and lenient where it cannot be (unknown fields). A
//! reply is a function of the request's own words and the [`Answer`], so that a replay has the same
//! bytes.
//!
//! The formats of platforms are JSON over the same door as our own; ISO 8583 comes over a door of its own
//! and shares what a request is.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use standin_core::answer::Answer;
use standin_core::authorization::Authorization;
use standin_core::clock::Timestamp;
use standin_core::entry::Settlement;
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::money::Money;
use standin_core::signature::Scheme;

use crate::cards;
use crate::config::BankConfig;
use crate::path::{TakeBack, TakenBack};
use crate::problem::Problem;

pub mod iso8583;
mod json;
pub mod lithic;
pub mod marqeta;
pub mod native;
pub mod stripe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::json::{AMOUNT_BYTES_MAX, DEPTH_MAX};

/// A format that banks speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Ours.
    Native,
    /// Stripe Issuing's `issuing_authorization.request`.
    Stripe,
    /// Lithic's Auth Stream Access.
    Lithic,
    /// Marqeta's Gateway JIT Funding.
    Marqeta,
    /// ISO 8583:1987, over TCP.
    Iso8583,
}

/// By which of a platform's names a shopper is found in the table of cards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShopperBy {
    /// The card's token.
    Card,
    /// The token of its holder.
    Cardholder,
}

/// What of a bank's is written to. Platforms write to the first alone, whatever they say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource<'a> {
    /// `…/authorizations`
    Authorizations,
    /// `…/authorizations/{payment}/increments`
    Increments(&'a str),
    /// `…/authorizations/{payment}/reversals`
    Reversals(&'a str),
    /// `…/authorizations/{payment}/outcomes`
    Outcomes(&'a str),
    /// `…/advices`
    Advices,
    /// `…/settlements`
    Settlements,
}

/// A message whose signature was right.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Whose.
    pub bank: &'a BankConfig,
    /// The sender's own name of it, if its scheme signs one.
    pub id: Option<&'a str>,
    /// What it was sent to.
    pub resource: Resource<'a>,
    /// Its bytes.
    pub body: &'a [u8],
    /// When the edge had read it.
    pub at: Timestamp,
}

/// What a message asks for, and how it is replied to.
#[derive(Debug)]
pub struct Understood {
    /// What it asks for.
    pub asked: Asked,
    /// How it is replied to.
    pub reply: Box<dyn Reply>,
}

/// What a message can ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// May the card be charged?
    Authorization(Box<Authorization>),
    /// It was charged, by the bank's own word.
    Advice(Box<Authorization>),
    /// The bank declined something by itself.
    Notice,
    /// Money comes back.
    TakeBack(TakeBack),
    /// Money moved.
    Settlement(Box<Settlement>),
}

/// How one request is replied to.
pub trait Reply: fmt::Debug + Send + Sync {
    /// Writes an answer to what was asked. Equal answers to equal requests give equal bytes.
    fn answer(&self, answer: &Answer, asked: Money) -> Rendered;

    /// Writes what came of taking a payment back; of a format that takes none back it is not asked.
    fn taken_back(&self, _payment: TransactionId, _taken: &TakenBack) -> Rendered {
        Rendered::json(StatusCode::OK, &serde_json::json!({}))
    }

    /// Writes that what the bank did by itself is recorded; of a format that tells of nothing it is not
    /// asked.
    fn recorded(&self) -> Rendered {
        Rendered::json(StatusCode::OK, &serde_json::json!({}))
    }

    /// Writes a problem in the format's own words; `None` where it has none and a status says enough.
    fn problem(&self, _problem: &Problem) -> Option<Rendered> {
        None
    }
}

/// A response to a bank, before transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// The status by which the format tells approvals from declines, if it does.
    pub status: StatusCode,
    /// JSON.
    pub body: Bytes,
    /// A header that the format asks for.
    pub header: Option<(HeaderName, HeaderValue)>,
}

/// Reads the messages of one format.
pub trait Adapter: Send + Sync + 'static {
    /// Reads a message whose signature was right.
    fn understand(&self, message: &Message<'_>) -> Result<Understood, Problem>;
}

/// Requires `Content-Type: application/json`, with or without parameters.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().ok().and_then(|text| text.split(';').next()),
        _ => None,
    };
    match essence {
        Some(essence) if essence.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::UnsupportedMediaType),
    }
}

/// Stands for the shopper of a card until the table of cards has been asked.
pub fn not_looked_up(bank: &BankId, token: &str) -> ShopperId {
    let digest = cards::digest(bank, token);
    let first = digest.first_chunk::<8>().copied().unwrap_or_default();
    ShopperId::of_unknown_card(u64::from_be_bytes(first))
}

// === impl Format ===

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::Native,
        Self::Stripe,
        Self::Lithic,
        Self::Marqeta,
        Self::Iso8583,
    ];

    /// The word in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Stripe => "stripe",
            Self::Lithic => "lithic",
            Self::Marqeta => "marqeta",
            Self::Iso8583 => "iso8583",
        }
    }

    /// How its platform signs. (ISO 8583 signs nothing: there the certificate alone says who it is.)
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Native | Self::Lithic | Self::Iso8583 => Scheme::StandardWebhooks,
            Self::Stripe => Scheme::Stripe,
            Self::Marqeta => Scheme::Basic,
        }
    }
}

impl FromStr for Format {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.as_str() == word).ok_or(())
    }
}

impl Adapter for Format {
    fn understand(&self, message: &Message<'_>) -> Result<Understood, Problem> {
        if *self != Self::Native && message.resource != Resource::Authorizations {
            return Err(Problem::NotFound);
        }
        match self {
            Self::Native => native::understand(message),
            Self::Stripe => stripe::understand(message),
            Self::Lithic => lithic::understand(message),
            Self::Marqeta => marqeta::understand(message),
            // It is not spoken over HTTP.
            Self::Iso8583 => Err(Problem::NotFound),
        }
    }
}

// === impl ShopperBy ===

impl FromStr for ShopperBy {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "card" => Ok(Self::Card),
            "cardholder" => Ok(Self::Cardholder),
            _ => Err(()),
        }
    }
}

// === impl Rendered ===

impl Rendered {
    /// JSON of anything that always serialises.
    fn json(status: StatusCode, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("a reply is plain text and numbers");
        Self {
            status,
            body: body.into(),
            header: None,
        }
    }
}
