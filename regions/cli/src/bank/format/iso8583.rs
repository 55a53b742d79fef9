//! ISO 8583:1987: what a switch sends, and what its answers say.
//!
//! The table of fields and the bytes are the edge's own codec; what stands in the fields is written
//! here, and read here, as a bank's side has it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use serde::{Serialize, Serializer};
use serde_json::Value;
use standin_core::card_number::holds_card_number;
use standin_core::clock::{Clock, SystemClock};
use standin_core::money::{Currency, Money};
use standin_edge::iso8583::{CardAcceptorLayout, Encoding, Message, Mti, Original, Undecoded};

use super::super::{Charged, Payment};
use super::Heard;

/// Approved.
pub const APPROVED: &str = "00";
/// Approved for less.
pub const APPROVED_IN_PART: &str = "10";
/// No answer now; the same message may be sent again.
pub const INOPERATIVE: &str = "91";
/// Who sends, at every bank that is played here (field 32).
const ACQUIRER: &str = "123456";
/// Purchase; and the question whether a card is good.
const PURCHASE: &str = "000000";
const VERIFICATION: &str = "380000";
/// Test of the line (field 70).
const ECHO: &str = "301";
/// Grocery stores (field 18), chip (22), normal (25).
const PLACE: [(u8, &str); 3] = [(18, "5411"), (22, "051"), (25, "00")];
const TERMINAL: &str = "TERM0001";
/// What the networks publish for tests; the sandbox's first shopper carries it.
const TEST_NUMBER: &str = "4111111111111111";
const TEST_SHOPPER: u64 = 123;
/// Digits that no issuer's numbers begin with: 9 stands for numbers that a country gives away, and behind
/// it stands no country's code (ISO/IEC 7812-1, ISO 3166-1).
const SHOPPERS: &str = "9999";
const NOBODYS: &str = "9998";

/// How a bank and its edge have agreed to write messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::Args)]
pub struct Agreed {
    /// For iso8583: ascii, or ascii-binary (bitmaps and binary fields as bytes).
    #[arg(long, value_name = "ENCODING", default_value = "ascii", env = "STANDIN_ENCODING",
          value_parser = encoding)]
    pub encoding: Encoding,
    /// For iso8583: whose layout field 43 has, visa or mastercard.
    #[arg(long, value_name = "LAYOUT", default_value = "visa", env = "STANDIN_CARD_ACCEPTOR",
          value_parser = layout)]
    pub card_acceptor: CardAcceptorLayout,
}

/// What names a message at its sender: when it was sent, in UTC, and its trace number (fields 7 and
/// 11). Written `MMDDhhmmss-NNNNNN`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    transmitted: String,
    stan: String,
}

/// A message as it is shown: what names card or holder, or could, is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    mti: &'static str,
    fields: Vec<(u8, String)>,
}

/// Why bytes are no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// They are no message.
    #[error("what came is no message in this encoding: {0}")]
    Unread(#[from] Undecoded),
    /// They are one that answers another.
    #[error("a message of type {got} came that does not answer this {asked}")]
    Other {
        /// Its type.
        got: Mti,
        /// What was asked.
        asked: Mti,
    },
}

/// Asks for a payment: 0100, or 0101 when it is said again.
///
/// # Errors
/// When the payment does not fit its fields.
pub fn authorization(
    mti: Mti,
    payment: &Payment,
    name: &Name,
    layout: CardAcceptorLayout,
) -> anyhow::Result<Message> {
    let money = payment.money()?;
    ensure!(
        money.minor() >= 0,
        "{} is no amount of a payment",
        payment.amount
    );
    let charged = &payment.charged;
    let mut message = Message::new(mti);
    let kind = match money.minor() {
        0 => VERIFICATION,
        _ => PURCHASE,
    };
    message.set(2, charged.number())?;
    for (field, value) in PLACE {
        message.set(field, value)?;
    }
    message.set(3, kind)?;
    message.set(4, format!("{:012}", money.minor()))?;
    name.put_into(&mut message)?;
    message.set(32, ACQUIRER)?;
    message.set(37, name.reference())?;
    let terminal = charged.terminal_id.as_deref().unwrap_or(TERMINAL);
    message.set(41, format!("{terminal:<8}"))?;
    message.set(42, format!("{:<15}", charged.network_id()))?;
    message.set(43, place(charged, layout))?;
    message.set(49, number_of(money.currency())?)?;
    Ok(message)
}

/// Takes a payment back that was asked for under `asked`, but for what is to be `left` of it: 0400 and
/// 0420, or those said again. `name` is the reversal's own.
///
/// # Errors
/// As [`authorization`].
pub fn reversal(
    mti: Mti,
    payment: &Payment,
    asked: &Name,
    name: &Name,
    left: Option<Money>,
    layout: CardAcceptorLayout,
) -> anyhow::Result<Message> {
    let mut message = authorization(mti, payment, asked, layout)?;
    name.put_into(&mut message)?;
    let original = Original {
        mti: Mti::AuthorizationRequest.digits().to_owned(),
        stan: asked.stan.clone(),
        transmitted: asked.transmitted.clone(),
        acquirer: format!("{ACQUIRER:0>11}"),
        forwarder: "0".repeat(11),
    };
    message.set(90, original.to_field())?;
    if let Some(left) = left {
        message.set(95, format!("{:012}{:030}", left.minor(), 0))?;
    }
    Ok(message)
}

/// Asks whether the other end is there: 0800.
///
/// # Errors
/// Never: its fields always fit.
pub fn echo(name: &Name) -> anyhow::Result<Message> {
    let mut message = Message::new(Mti::NetworkRequest);
    name.put_into(&mut message)?;
    message.set(70, ECHO)?;
    Ok(message)
}

/// A message as JSON has it, and pyiso8583: `t` and the numbers of fields to text, of binary fields hex.
///
/// # Errors
/// When it is none. No value is in the error.
pub fn of_json(text: &str) -> anyhow::Result<Message> {
    // serde_json's own errors would show what was there instead.
    let fields: serde_json::Map<String, Value> = serde_json::from_str(text)
        .ok()
        .context("a message is a JSON object, as {\"t\":\"0800\",\"11\":\"000001\"}")?;
    let mti = fields.get("t").and_then(Value::as_str).and_then(Mti::of);
    let mut message = Message::new(mti.context("t: a message type that is known, as 0100")?);
    for (field, value) in fields.iter().filter(|(field, _)| *field != "t") {
        let number: u8 = field
            .parse()
            .ok()
            .context("the keys are t and the numbers of fields")?;
        let Some(value) = value.as_str() else {
            bail!("field {number} must be a text");
        };
        match number {
            52 | 55 | 64 | 96 | 128 => {
                let bytes = of_hex(value);
                let bytes = bytes.with_context(|| format!("field {number} must be hex"))?;
                message.set(number, bytes)?;
            }
            _ => message.set(number, value)?,
        }
    }
    Ok(message)
}

/// Reads the answer to a message.
///
/// # Errors
/// When the bytes are no message, or one that answers another.
pub fn answer(asked: &Message, bytes: &[u8], agreed: Agreed) -> Result<Message, AnswerError> {
    let reply = Message::decode(bytes, agreed.encoding)?;
    let same = |field| asked.text(field) == reply.text(field);
    if asked.mti().response() != Some(reply.mti()) || !same(7) || !same(11) {
        return Err(AnswerError::Other {
            got: reply.mti(),
            asked: asked.mti(),
        });
    }
    Ok(reply)
}

/// What an answer says.
pub fn heard(reply: &Message) -> Heard {
    let Some(code) = reply.text(39) else {
        return Heard::default();
    };
    let decides = reply.mti() == Mti::AuthorizationResponse;
    let reason = match meaning(code) {
        Some(_) if code == APPROVED && !decides => format!("{code} done"),
        Some(meaning) => format!("{code} {meaning}"),
        None => code.to_owned(),
    };
    if !decides || is_no_answer(code) {
        return Heard {
            reason: Some(reason),
            ..Heard::default()
        };
    }
    let approved = matches!(code, APPROVED | APPROVED_IN_PART);
    let amount = money(reply).filter(|_| approved).map(Money::to_decimal);
    Heard::of(approved, Some(reason), amount)
}

/// For people: the verdict and why, or, where nothing was decided, the code alone.
pub fn words(heard: &Heard) -> String {
    match (&heard.verdict, &heard.reason) {
        (None, Some(reason)) => reason.clone(),
        _ => heard.words(),
    }
}

/// What an answer's amount is (field 4), in its currency (49).
pub fn money(reply: &Message) -> Option<Money> {
    let currency = Currency::of_number(reply.currency()?)?;
    Some(Money::from_minor(reply.amount(4)?, currency))
}

/// The number of a test card: that of a shopper of `standin bank listen`.
pub fn test_number(shopper: u64) -> String {
    if shopper == TEST_SHOPPER {
        return TEST_NUMBER.to_owned();
    }
    checked(&format!("{SHOPPERS}{shopper:011}"))
}

/// The number of a card that nobody carries, another each time.
pub fn nobodys_number() -> String {
    let [bytes @ .., _, _, _, _, _, _, _, _] = uuid::Uuid::new_v4().into_bytes();
    let fresh = u64::from_be_bytes(bytes) % 100_000_000_000;
    checked(&format!("{NOBODYS}{fresh:011}"))
}

/// With the check digit behind it.
fn checked(digits: &str) -> String {
    let mut all = ('0'..='9').map(|last| format!("{digits}{last}"));
    all.find(|number| holds_card_number(number))
        .unwrap_or_default()
}

/// Neither approved nor declined: it was not decided.
fn is_no_answer(code: &str) -> bool {
    matches!(code, "12" | "30" | INOPERATIVE | "96")
}

/// Of the codes that an edge answers.
fn meaning(code: &str) -> Option<&'static str> {
    Some(match code {
        APPROVED => "approved",
        "03" => "not the trip's store",
        APPROVED_IN_PART => "approved in part",
        "12" => "not a kind of transaction that is answered",
        "13" => "another currency, or no amount",
        "14" => "nobody carries the card",
        "30" => "format error",
        "57" => "no trip, or not shopping",
        "59" => "not at the store",
        "61" => "more than may be",
        "65" => "too often",
        INOPERATIVE => "no answer now",
        "94" => "duplicate",
        "96" => "something failed there",
        _ => return None,
    })
}

/// Field 43, each part cut to what it may have, as networks do.
fn place(charged: &Charged, layout: CardAcceptorLayout) -> String {
    let (name, city) = (&charged.merchant_name, &charged.merchant_city);
    match layout {
        CardAcceptorLayout::Visa => format!("{name:<25.25}{city:<13.13}US"),
        // In the USA the state stands for the country.
        CardAcceptorLayout::Mastercard => {
            format!(
                "{name:<22.22} {city:<13.13} {:<3.3}",
                charged.merchant_state
            )
        }
    }
}

/// The currency's number, three digits.
fn number_of(currency: Currency) -> anyhow::Result<String> {
    let mut all = (0..1_000).map(|number| format!("{number:03}"));
    all.find(|number| Currency::of_number(number) == Some(currency))
        .with_context(|| format!("{} has no number", currency.code()))
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let pairs = digits?;
    let pairs = pairs.chunks(2).map(|pair| match pair {
        [high, low] => Some((high << 4) | low),
        _ => None,
    });
    pairs.collect()
}

fn encoding(text: &str) -> Result<Encoding, &'static str> {
    match text {
        "ascii" => Ok(Encoding::Ascii),
        "ascii-binary" => Ok(Encoding::AsciiBinary),
        _ => Err("one of ascii, ascii-binary"),
    }
}

fn layout(text: &str) -> Result<CardAcceptorLayout, &'static str> {
    match text {
        "visa" => Ok(CardAcceptorLayout::Visa),
        "mastercard" => Ok(CardAcceptorLayout::Mastercard),
        _ => Err("one of visa, mastercard"),
    }
}

// === impl Agreed ===

impl Agreed {
    /// The encoding's word in configurations.
    pub const fn encoding(self) -> &'static str {
        match self.encoding {
            Encoding::Ascii => "ascii",
            Encoding::AsciiBinary => "ascii-binary",
        }
    }

    /// The layout's word in configurations.
    pub const fn card_acceptor(self) -> &'static str {
        match self.card_acceptor {
            CardAcceptorLayout::Visa => "visa",
            CardAcceptorLayout::Mastercard => "mastercard",
        }
    }
}

// === impl Name ===

impl Name {
    /// Of a message that is sent now.
    pub fn fresh() -> Self {
        let now = jiff::Timestamp::from_millisecond(SystemClock.now().as_millis());
        let transmitted = now.unwrap_or_default().strftime("%m%d%H%M%S").to_string();
        let [byte, other, another, ..] = uuid::Uuid::new_v4().into_bytes();
        let stan = u32::from_be_bytes([0, byte, other, another]) % 999_999;
        Self {
            transmitted,
            stan: format!("{:06}", stan.saturating_add(1)),
        }
    }

    /// The retrieval reference number of the payment that has this name (field 37).
    fn reference(&self) -> String {
        format!("{:.6}{}", self.transmitted, self.stan)
    }

    fn put_into(&self, message: &mut Message) -> anyhow::Result<()> {
        message.set(7, &self.transmitted)?;
        message.set(11, &self.stan)?;
        Ok(())
    }
}

impl FromStr for Name {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let digits = |text: &str, many: usize| {
            text.len() == many && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        match text.split_once('-') {
            Some((transmitted, stan)) if digits(transmitted, 10) && digits(stan, 6) => Ok(Self {
                transmitted: transmitted.to_owned(),
                stan: stan.to_owned(),
            }),
            _ => bail!(
                "the key of an ISO 8583 payment is MMDDhhmmss-NNNNNN: its transmission and its trace number"
            ),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transmitted, self.stan)
    }
}

// === impl Shown ===

impl Shown {
    /// What may be shown of a message.
    pub fn of(message: &Message) -> Self {
        let show = |field| (field, message.text(field).unwrap_or("…").to_owned());
        Self {
            mti: message.mti().digits(),
            fields: message.fields().map(show).collect(),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mti = ("t".to_owned(), self.mti);
        let fields = self.fields.iter();
        let fields = fields.map(|(field, text)| (field.to_string(), text.as_str()));
        serializer.collect_map(std::iter::once(mti).chain(fields))
    }
}

impl fmt::Display for Shown {
    /// On one line; blanks that pad are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mti)?;
        for (field, text) in &self.fields {
            let text = text.trim_end();
            if text.contains(' ') {
                write!(f, " {field}={text:?}")?;
            } else {
                write!(f, " {field}={text}")?;
            }
        }
        Ok(())
    }
}

// === impl Charged ===

impl Charged {
    /// The number of the card that is charged.
    fn number(&self) -> String {
        let given = self.card.clone();
        given.unwrap_or_else(|| test_number(self.shopper))
    }
}

#[cfg(test)]
mod tests;
