//! A line for each request, for people or for programs.
//!
//! What a sender wrote is shown quoted, so that it cannot play with the terminal, and not at all where
//! it reads as a card number.

use serde_json::{Value, json};
use standin_core::authorization::Authorization;
use standin_core::card_number::holds_card_number;
use standin_core::clock::{Clock, SystemClock};
use standin_core::money::Money;
use standin_core::signature::SignatureError;
use standin_edge::adapter::Asked;
use standin_edge::authenticate::AuthenticationError;
use standin_edge::observer::{Observer, Seen, Told};
use standin_edge::path::{TakeBack, TakenBack};

use crate::out::say;

/// Prints what is seen.
pub(super) struct Shown {
    pub(super) json: bool,
}

impl Observer for Shown {
    fn saw(&self, seen: &Seen) {
        let at = SystemClock.now().to_string();
        if self.json {
            say(as_json(&at, seen));
        } else {
            say(in_words(&at, seen));
        }
    }
}

fn in_words(at: &str, seen: &Seen) -> String {
    let mut line = format!("{at}  ");
    match &seen.authentic {
        None => line.push_str("not asked whether authentic"),
        Some(Ok(())) => line.push_str("authentic"),
        Some(Err(error)) => line.push_str(&format!("NOT authentic: {error} ({})", hint(*error))),
    }
    match &seen.asked {
        None => {}
        Some(Asked::Authorization(asked)) => {
            line.push_str("  asks ");
            line.push_str(&authorization(asked));
        }
        Some(Asked::Advice(asked)) => {
            line.push_str("  approved by itself ");
            line.push_str(&authorization(asked));
        }
        Some(Asked::Notice) => line.push_str("  asks for no decision"),
        Some(Asked::TakeBack(asked)) => {
            line.push_str("  takes back ");
            line.push_str(&take_back(asked));
        }
        Some(Asked::Settlement(moved)) => {
            line.push_str(&format!(
                "  moved {} ({})",
                money(moved.amount),
                moved.kind.as_str()
            ));
        }
    }
    line.push_str("  -> ");
    line.push_str(&told(&seen.told));
    line
}

fn authorization(asked: &Authorization) -> String {
    let more = &asked.particulars;
    let mut text = money(asked.amount);
    if let Some(card) = &more.card {
        text.push_str(&format!(" by card {}", quoted(card)));
    } else {
        text.push_str(&format!(" by shopper {}", asked.shopper));
    }
    text.push_str(&format!(" at {}", quoted(&asked.merchant.name)));
    if !asked.merchant.address.is_empty() {
        text.push_str(&format!(", {}", quoted(&asked.merchant.address)));
    }
    for (name, value) in [
        ("network id", &more.network_id),
        ("terminal", &more.terminal),
        ("key", &asked.bank_key),
    ] {
        if let Some(value) = value {
            text.push_str(&format!(", {name} {}", quoted(value)));
        }
    }
    if let Some(first) = more.adds_to {
        text.push_str(&format!(", on top of {first}"));
    }
    if more.partial {
        text.push_str(", or less");
    }
    text
}

fn take_back(asked: &TakeBack) -> String {
    let amount = asked.amount.map_or_else(|| "all".to_owned(), money);
    format!("{amount} of {}, key {}", asked.payment, quoted(&asked.key))
}

fn told(told: &Told) -> String {
    match told {
        Told::Nothing => "nothing".to_owned(),
        Told::Answer(answer, replayed) => {
            let mut text = format!(
                "{} {}: {} on rung {}",
                answer.verdict,
                money(answer.amount),
                answer.reason,
                answer.rung
            );
            if let Some(cap) = answer.cap {
                let cap = Money::from_minor(cap, answer.amount.currency());
                let before = Money::from_minor(answer.approved_before, answer.amount.currency());
                text.push_str(&format!(
                    ", cap {}, {} before",
                    cap.to_decimal(),
                    before.to_decimal()
                ));
            }
            if !answer.shopper.is_of_unknown_card() {
                text.push_str(&format!(", shopper {}", answer.shopper));
            }
            if *replayed {
                text.push_str(", replayed");
            }
            text
        }
        Told::Recorded => "recorded".to_owned(),
        Told::TakenBack(TakenBack::Money(back)) => format!("{} back", money(*back)),
        Told::TakenBack(TakenBack::Nothing) => "nothing to take back".to_owned(),
        Told::TakenBack(TakenBack::Forbidden) => "not answered yet, and never will be".to_owned(),
        Told::Problem(problem) => {
            let body: Value = serde_json::from_slice(&problem.to_bytes()).unwrap_or_default();
            let mut text = format!("{} {}", problem.status().as_u16(), problem.slug());
            for name in ["cause", "field", "detail"] {
                if let Some(said) = body.get(name).and_then(Value::as_str) {
                    text.push_str(&format!(" {said}"));
                }
            }
            text
        }
    }
}

fn as_json(at: &str, seen: &Seen) -> Value {
    let asked = seen.asked.as_ref().map(asked_json);
    let told = match &seen.told {
        Told::Nothing => Value::Null,
        Told::Answer(answer, replayed) => json!({
            "verdict": answer.verdict,
            "reason": answer.reason,
            "rung": answer.rung,
            "amount": answer.amount.to_decimal(),
            "transaction_id": answer.transaction_id.to_string(),
            "replayed": replayed,
        }),
        Told::Recorded => json!({ "state": "recorded" }),
        Told::TakenBack(TakenBack::Money(back)) => json!({ "back": back.to_decimal() }),
        Told::TakenBack(TakenBack::Nothing) => json!({ "back": "nothing" }),
        Told::TakenBack(TakenBack::Forbidden) => json!({ "back": "forbidden" }),
        Told::Problem(problem) => serde_json::from_slice(&problem.to_bytes()).unwrap_or_default(),
    };
    let authentic = seen.authentic.map(|authentic| authentic.is_ok());
    let why_not = seen.authentic.and_then(Result::err);
    json!({
        "at": at,
        "path": seen.path.as_deref().map(plain),
        "authentic": authentic,
        "why_not": why_not.map(AuthenticationError::as_str),
        "asked": asked,
        "told": told,
    })
}

fn asked_json(asked: &Asked) -> Value {
    match asked {
        Asked::Authorization(asked) => authorization_json(asked),
        Asked::Advice(asked) => json!({ "advice": authorization_json(asked) }),
        Asked::Notice => json!({ "notice": true }),
        Asked::TakeBack(asked) => json!({
            "takes_back": asked.payment.to_string(),
            "amount": asked.amount.map(Money::to_decimal),
            "key": plain(&asked.key),
        }),
        Asked::Settlement(moved) => json!({
            "settlement": moved.kind.as_str(),
            "amount": moved.amount.to_decimal(),
            "currency": moved.amount.currency().code(),
        }),
    }
}

fn authorization_json(asked: &Authorization) -> Value {
    let more = &asked.particulars;
    json!({
        "amount": asked.amount.to_decimal(),
        "currency": asked.amount.currency().code(),
        "shopper": more.card.is_none().then(|| asked.shopper.to_string()),
        "card": more.card.as_deref().map(plain),
        "merchant": plain(&asked.merchant.name),
        "address": plain(&asked.merchant.address),
        "network_id": more.network_id.as_deref().map(plain),
        "terminal": more.terminal.as_deref().map(plain),
        "key": asked.bank_key.as_deref().map(plain),
        "adds_to": more.adds_to.map(|id| id.to_string()),
        "partial": more.partial,
    })
}

/// Where to look.
const fn hint(error: AuthenticationError) -> &'static str {
    match error {
        AuthenticationError::UnknownBank => "the path names a bank that this edge does not know",
        AuthenticationError::Header => "each header of the signature is there once, in ASCII",
        AuthenticationError::Certificate => {
            "the connection must show the certificate standin://bank/SLUG of the path's bank"
        }
        AuthenticationError::KeyMissing => "come again",
        AuthenticationError::Signature(error) => match error {
            SignatureError::Id => "an id has 1 to 255 visible characters, and no dot",
            SignatureError::Timestamp => "whole seconds since 1970, not milliseconds",
            SignatureError::Old | SignatureError::Future => {
                "the clock may be off by 300 seconds; each send is signed anew"
            }
            SignatureError::Form => "the header does not have the scheme's form",
            SignatureError::Digest => "the digest is of other bytes than the body",
            SignatureError::Mismatch => {
                "another secret, or other bytes than were sent: sign the body as it goes out"
            }
        },
    }
}

fn money(money: Money) -> String {
    format!("{} {}", money.to_decimal(), money.currency().code())
}

fn quoted(text: &str) -> String {
    format!("{:?}", plain(text))
}

/// A text of the sender's.
fn plain(text: &str) -> &str {
    if holds_card_number(text) {
        "(reads as a card number)"
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
