//! ISO 8583:1987 messages: what they ask for, and what field 39 answers.
//!
//! | message | meaning |
//! |---|---|
//! | 0100, 0101 | may the card be charged? A repeat is the same payment |
//! | 0120, 0121 | the bank approved by itself: taken in any case |
//! | 0400, 0401, 0420, 0421 | an approval is taken back: whole, or down to field 95 |
//! | 0800 | sign-on, sign-off, echo: answered, and nothing else |
//!
//! A payment's key is what names its message at its sender: acquirer (32), trace number (11), time of
//! transmission (7), terminal (41) and merchant (42); a reversal names it by its field 90, and by its own
//! fields where it has none. The card's number becomes a token before anything else sees it.

use secrecy::ExposeSecret as _;
use standin_core::answer::{Answer, Reason, Verdict};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::card_number::holds_card_number;
use standin_core::clock::Timestamp;
use standin_core::entry::ReversalCause;
use standin_core::identity::{DeploymentKey, Operation, of_key};
use standin_core::money::{Currency, Money};

use super::not_looked_up;
use crate::config::BankConfig;
use crate::iso8583::{Message, Mti, Outcome, ReplyError};
use crate::path::TakeBack;
use crate::problem::Problem;

/// Approved.
pub const APPROVED: &str = "00";
/// Approved for less.
pub const APPROVED_IN_PART: &str = "10";
/// A transaction of a kind that is not answered here.
pub const INVALID_TRANSACTION: &str = "12";
/// An amount that is none, or in another currency.
pub const INVALID_AMOUNT: &str = "13";
/// No such card.
pub const INVALID_CARD: &str = "14";
/// The message is not as agreed.
pub const FORMAT_ERROR: &str = "30";
/// No answer can be given now.
pub const INOPERATIVE: &str = "91";
/// The same key with something else.
pub const DUPLICATE: &str = "94";
/// Something failed here.
pub const MALFUNCTION: &str = "96";

/// What a message asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// May the card be charged?
    Authorization(Box<Authorization>),
    /// It was, by the bank's own word.
    Advice(Box<Authorization>),
    /// Money comes back.
    TakeBack(TakeBack),
    /// Nothing that is decided: a sign-on, an echo, an advice of a decline.
    Notice,
    /// It is an answer itself.
    Answer,
}

// === impl Asked ===

impl Asked {
    /// In the words of all formats; an answer asks for nothing.
    pub fn in_common(&self) -> Option<super::Asked> {
        Some(match self {
            Self::Authorization(asked) => super::Asked::Authorization(asked.clone()),
            Self::Advice(asked) => super::Asked::Advice(asked.clone()),
            Self::TakeBack(asked) => super::Asked::TakeBack(asked.clone()),
            Self::Notice => super::Asked::Notice,
            Self::Answer => return None,
        })
    }
}

/// Reads a message of a bank; an error is the response code that says why not.
pub fn understand(
    bank: &BankConfig,
    key: &DeploymentKey,
    message: &Message,
    at: Timestamp,
) -> Result<Asked, &'static str> {
    match message.mti() {
        Mti::AuthorizationRequest | Mti::AuthorizationRepeat => {
            let asked = authorization(bank, key, message, at)?;
            Ok(Asked::Authorization(Box::new(asked)))
        }
        Mti::AuthorizationAdvice | Mti::AuthorizationAdviceRepeat => match message.text(39) {
            // Without a code it is an approval: declines say why.
            None | Some(APPROVED | APPROVED_IN_PART) => {
                let asked = authorization(bank, key, message, at)?;
                Ok(Asked::Advice(Box::new(asked)))
            }
            Some(_declined) => Ok(Asked::Notice),
        },
        Mti::ReversalRequest
        | Mti::ReversalRepeat
        | Mti::ReversalAdvice
        | Mti::ReversalAdviceRepeat => take_back(bank, message),
        Mti::NetworkRequest => Ok(Asked::Notice),
        Mti::AuthorizationResponse
        | Mti::AuthorizationAdviceResponse
        | Mti::ReversalResponse
        | Mti::ReversalAdviceResponse
        | Mti::NetworkResponse => Ok(Asked::Answer),
    }
}

/// The response code of an answer.
pub const fn response_code(reason: Reason) -> &'static str {
    match reason {
        Reason::WithinCap
        | Reason::WithinStandInLimits
        | Reason::WithinFloorLimit
        | Reason::ApprovedByBank => APPROVED,
        Reason::OverCap | Reason::StandInLimit | Reason::FloorLimit => "61",
        Reason::NoTrip | Reason::NotShopping => "57",
        Reason::UnknownMerchant | Reason::AmbiguousMerchant | Reason::WrongStore => "03",
        Reason::FarFromStore | Reason::PositionMissing => "59",
        Reason::Velocity => "65",
        Reason::DoubleSwipe => DUPLICATE,
        Reason::CurrencyMismatch => INVALID_AMOUNT,
        Reason::UnknownCard => INVALID_CARD,
    }
}

/// The response code of a request without an answer.
pub const fn problem_code(problem: &Problem) -> &'static str {
    match problem {
        Problem::OtherFingerprint { .. } => DUPLICATE,
        Problem::Malformed { .. } | Problem::Field { .. } | Problem::CardNumber => FORMAT_ERROR,
        Problem::Unavailable { .. } | Problem::TooManyRequests { .. } => INOPERATIVE,
        Problem::NotFound => INVALID_TRANSACTION,
        _ => MALFUNCTION,
    }
}

/// The answer to an authorization.
pub fn render(message: &Message, answer: &Answer, asked: Money) -> Result<Message, ReplyError> {
    let approved = answer.verdict == Verdict::Approved;
    let part = approved && answer.amount != asked;
    let balance = if approved && is_inquiry(message) {
        balance(message, answer)
    } else {
        None
    };
    message.reply(&Outcome {
        response_code: if part {
            APPROVED_IN_PART
        } else {
            response_code(answer.reason)
        },
        approval_code: approved.then(|| answer.code.as_str()),
        amount: part.then(|| answer.amount.minor()),
        additional_amounts: balance.as_deref(),
    })
}

/// An answer that says nothing but a code.
pub fn plain(message: &Message, response_code: &str) -> Result<Message, ReplyError> {
    message.reply(&Outcome {
        response_code,
        approval_code: None,
        amount: None,
        additional_amounts: None,
    })
}

// === reading ===

/// The kind of transaction: the first two digits of field 3.
fn kind(message: &Message) -> Option<&str> {
    message.text(3)?.get(..2)
}

/// 30 and 31 ask for a balance.
fn is_inquiry(message: &Message) -> bool {
    matches!(kind(message), Some("30" | "31"))
}

fn authorization(
    bank: &BankConfig,
    key: &DeploymentKey,
    message: &Message,
    at: Timestamp,
) -> Result<Authorization, &'static str> {
    let currency = message.currency().ok_or(FORMAT_ERROR)?;
    let currency = Currency::of_number(currency).ok_or(INVALID_AMOUNT)?;
    let amount = match kind(message).ok_or(FORMAT_ERROR)? {
        // Goods and services, with cash back or without.
        "00" | "09" => message.amount(4).ok_or(INVALID_AMOUNT)?,
        // Inquiries, and a verification of the card.
        "30" | "31" | "38" => 0,
        _ => return Err(INVALID_TRANSACTION),
    };
    let token = key.card_token(&bank.slug, &card_number(message).ok_or(INVALID_CARD)?);
    let text = |field| {
        let text = message.text(field).unwrap_or_default().trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let merchant = match message.card_acceptor(bank.card_acceptor) {
        None => Merchant {
            name: String::new(),
            address: String::new(),
        },
        Some(place) => Merchant {
            name: place.name.to_owned(),
            address: place.city.to_owned(),
        },
    };
    if holds_card_number(&merchant.name) || holds_card_number(&merchant.address) {
        return Err(FORMAT_ERROR);
    }
    Ok(Authorization {
        bank: bank.slug.clone(),
        shopper: not_looked_up(&bank.slug, &token),
        amount: Money::from_minor(amount, currency),
        merchant,
        bank_key: Some(own_key(message).ok_or(FORMAT_ERROR)?),
        received_at: at,
        particulars: Particulars {
            card: Some(token),
            network_id: text(42),
            terminal: text(41),
            adds_to: None,
            partial: bank.partial_approvals,
        },
    })
}

fn take_back(bank: &BankConfig, message: &Message) -> Result<Asked, &'static str> {
    let own = own_key(message).ok_or(FORMAT_ERROR)?;
    let payment = match message.original() {
        Some(original) => key_of(
            message,
            &original.acquirer,
            &original.stan,
            &original.transmitted,
        ),
        None => own.clone(),
    };
    let amount = match message.replacement() {
        None => None,
        Some(left) => {
            let currency = message.currency().and_then(Currency::of_number);
            let whole = message.amount(4).ok_or(FORMAT_ERROR)?;
            let back = whole.checked_sub(left).filter(|back| *back > 0);
            let back = back.ok_or(INVALID_AMOUNT)?;
            Some(Money::from_minor(back, currency.ok_or(INVALID_AMOUNT)?))
        }
    };
    Ok(Asked::TakeBack(TakeBack {
        bank: bank.slug.clone(),
        payment: of_key(&bank.slug, Operation::Authorize, &payment),
        key: own,
        amount,
        cause: ReversalCause::Bank,
        by_key: true,
    }))
}

/// The card's number, of field 2 or else of track 2 (field 35), where a separator ends it.
fn card_number(message: &Message) -> Option<String> {
    let secret = message.secret(2).or_else(|| message.secret(35))?;
    let digits = secret.expose_secret().iter().copied();
    let digits: Vec<u8> = digits.take_while(u8::is_ascii_digit).collect();
    // Ten digits at least name an issuer and an account (ISO/IEC 7812-1).
    let number = String::from_utf8(digits).ok()?;
    (number.len() >= 10).then_some(number)
}

/// The key of this message; `None` without a trace number or a time of transmission.
fn own_key(message: &Message) -> Option<String> {
    let acquirer = message.text(32).unwrap_or_default();
    Some(key_of(
        message,
        acquirer,
        message.text(11)?,
        message.text(7)?,
    ))
}

/// Field 90 has zeros before the acquirer, field 32 has not.
fn key_of(message: &Message, acquirer: &str, stan: &str, transmitted: &str) -> String {
    let text = |field| message.text(field).unwrap_or_default().trim();
    let acquirer = acquirer.trim_start_matches('0');
    format!("{acquirer}|{stan}|{transmitted}|{}|{}", text(41), text(42))
}

/// Field 54: the account of field 3, "available", currency, sign and twelve digits.
fn balance(message: &Message, answer: &Answer) -> Option<String> {
    let account = message.text(3)?.get(2..4)?;
    let currency = message.currency()?;
    let left = answer.cap?.saturating_sub(answer.approved_before).max(0);
    Some(format!(
        "{account}02{currency}C{:012}",
        left.min(999_999_999_999)
    ))
}

#[cfg(test)]
mod tests;
