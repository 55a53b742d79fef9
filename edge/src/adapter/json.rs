//! Strict reading of JSON: known keys once, amounts from their digits, texts within their bounds.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use standin_core::authorization::{BANK_KEY_BYTES_MAX, MERCHANT_TEXT_BYTES_MAX, TOKEN_BYTES_MAX};
use standin_core::card_number::holds_card_number;
use standin_core::money::{Currency, Money, MoneyError};

use crate::problem::Problem;

/// Deepest nesting of objects and arrays in a body.
pub const DEPTH_MAX: usize = 16;
/// Longest amount, in bytes as written.
pub const AMOUNT_BYTES_MAX: usize = 40;

/// The raw values of the known keys of one object; `null` counts as absent.
pub(super) struct Fields<'a, const N: usize>(pub(super) [Option<&'a RawValue>; N]);

struct FieldsOf<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for FieldsOf<N> {
    type Value = Fields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        // Bounded by the body's limit: a key takes four bytes at least.
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = self.0.iter().position(|name| *name == key);
            if !seen.insert(key) {
                return Err(serde::de::Error::custom(DUPLICATE));
            }
            match known.and_then(|at| values.get_mut(at)) {
                Some(value) => {
                    let raw = map.next_value::<&RawValue>()?;
                    *value = (raw.get() != "null").then_some(raw);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Fields(values))
    }
}

const DUPLICATE: &str = "duplicate key";

/// The text of a body, if it is not nested too deeply.
pub(super) fn text_of(body: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::Malformed {
        detail: "the body is not UTF-8",
    })?;
    check_depth(text)?;
    Ok(text)
}

/// The known keys of an object.
pub(super) fn fields<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json
        .deserialize_map(FieldsOf(names))
        .and_then(|fields| json.end().map(|()| fields));
    fields.map_err(|error| Problem::Malformed {
        detail: match error.classify() {
            serde_json::error::Category::Data if error.to_string().starts_with(DUPLICATE) => {
                "a key appears twice"
            }
            serde_json::error::Category::Data => "the body is not a JSON object",
            serde_json::error::Category::Eof => "the body ends in the middle of its JSON",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                "the body is not valid JSON"
            }
        },
    })
}

/// Refuses deep nesting before any recursive code sees it.
fn check_depth(text: &str) -> Result<(), Problem> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Problem::Malformed {
                detail: "the body is nested too deeply",
            });
        }
    }
    Ok(())
}

/// What a field must be.
pub(super) const fn wrong(field: &'static str, detail: &'static str) -> Problem {
    Problem::Field { field, detail }
}

/// A field that must be there.
pub(super) fn required<'a>(
    raw: Option<&'a RawValue>,
    field: &'static str,
) -> Result<&'a RawValue, Problem> {
    raw.ok_or(wrong(field, "is required"))
}

/// The known keys of an object that is a field.
pub(super) fn object<'a, const N: usize>(
    raw: &'a RawValue,
    field: &'static str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, Problem> {
    if !raw.get().starts_with('{') {
        return Err(wrong(field, "must be an object"));
    }
    fields(raw.get(), names)
}

/// As [`object`], where the field may be missing: then all its keys are.
pub(super) fn optional_object<'a, const N: usize>(
    raw: Option<&'a RawValue>,
    field: &'static str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, Problem> {
    match raw {
        Some(raw) => object(raw, field, names),
        None => Ok(Fields([None; N])),
    }
}

/// A text of any kind, for a known word.
pub(super) fn word(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    serde_json::from_str(raw.get()).map_err(|_| wrong(field, "must be text"))
}

/// `true` or `false`; missing is `false`.
pub(super) fn flag(raw: Option<&RawValue>, field: &'static str) -> Result<bool, Problem> {
    match raw.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(wrong(field, "must be true or false")),
    }
}

/// A text about a merchant, as it was written.
pub(super) fn merchant_text(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    let text: String = word(raw, field)?;
    if text.len() > MERCHANT_TEXT_BYTES_MAX {
        return Err(wrong(field, "is longer than 200 bytes"));
    }
    if text.contains('\0') {
        // Postgres cannot hold it.
        return Err(wrong(field, "must not contain NUL"));
    }
    if holds_card_number(&text) {
        return Err(Problem::CardNumber);
    }
    Ok(text)
}

/// The parts of an address that are there, as one text.
pub(super) fn address<const N: usize>(
    parts: [(Option<&RawValue>, &'static str); N],
) -> Result<String, Problem> {
    let mut address = String::new();
    for (raw, field) in parts {
        let Some(raw) = raw else { continue };
        let part = merchant_text(raw, field)?;
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        if address.len().saturating_add(part.len()) >= MERCHANT_TEXT_BYTES_MAX {
            return Err(wrong(field, "makes the address longer than 200 bytes"));
        }
        if !address.is_empty() {
            address.push(' ');
        }
        address.push_str(part);
    }
    Ok(address)
}

/// A bank's own key of something.
pub(super) fn key(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    let key: String = word(raw, field)?;
    if key.is_empty() || key.len() > BANK_KEY_BYTES_MAX {
        return Err(wrong(field, "must have 1 to 255 bytes"));
    }
    if key.chars().any(char::is_control) {
        return Err(wrong(field, "must not contain control characters"));
    }
    Ok(key)
}

/// A platform's name of something: a card, its holder, a request. What reads as a card's number is
/// refused, for it would be kept.
pub(super) fn token(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    let token = id(raw, field)?;
    if holds_card_number(&token) {
        return Err(Problem::CardNumber);
    }
    Ok(token)
}

/// As [`token`], where it may be missing; an empty one counts as missing.
pub(super) fn optional_token(
    raw: Option<&RawValue>,
    field: &'static str,
) -> Result<Option<String>, Problem> {
    match optional_id(raw, field)? {
        Some(token) if holds_card_number(&token) => Err(Problem::CardNumber),
        token => Ok(token),
    }
}

/// An id that the card network gave a merchant or a terminal. Many are long numbers, and of those every
/// tenth reads as a card's: they are not held against it.
pub(super) fn optional_id(
    raw: Option<&RawValue>,
    field: &'static str,
) -> Result<Option<String>, Problem> {
    match raw {
        Some(raw) if word(raw, field)?.trim().is_empty() => Ok(None),
        Some(raw) => id(raw, field).map(Some),
        None => Ok(None),
    }
}

fn id(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    let id: String = word(raw, field)?;
    let id = id.trim();
    if id.is_empty() || id.len() > TOKEN_BYTES_MAX {
        return Err(wrong(field, "must have 1 to 64 bytes"));
    }
    if id.chars().any(char::is_control) {
        return Err(wrong(field, "must not contain control characters"));
    }
    Ok(id.to_owned())
}

/// An ISO 4217 code, in either case.
pub(super) fn currency(raw: &RawValue, field: &'static str) -> Result<Currency, Problem> {
    let code: String = word(raw, field)?;
    let code = code.to_ascii_uppercase().parse();
    code.map_err(|_| wrong(field, "must be an ISO 4217 code"))
}

/// An amount of minor units, not negative.
pub(super) fn minor_units(
    raw: &RawValue,
    field: &'static str,
    currency: Currency,
) -> Result<Money, Problem> {
    let minor = serde_json::from_str::<i64>(raw.get()).ok();
    match minor {
        Some(minor) if minor >= 0 => Ok(Money::from_minor(minor, currency)),
        Some(_) | None => Err(wrong(
            field,
            "must be a whole number of minor units, 0 or more",
        )),
    }
}

/// An amount in major units, not negative, from the digits as they were written: no float is ever
/// made of them.
pub(super) fn major_units(
    raw: &RawValue,
    field: &'static str,
    currency: Currency,
) -> Result<Money, Problem> {
    let decimal = "must be a decimal number in major units";
    let text = raw.get();
    if text.len() > AMOUNT_BYTES_MAX {
        return Err(wrong(field, "is too long"));
    }
    let quoted: String;
    let digits = match text.bytes().next() {
        Some(b'"') => {
            quoted = serde_json::from_str(text).map_err(|_| wrong(field, decimal))?;
            &quoted
        }
        Some(b'-' | b'0'..=b'9') => text,
        _ => return Err(wrong(field, decimal)),
    };
    match Money::parse(digits, currency) {
        Ok(_) if digits.starts_with('-') => Err(wrong(field, "must not be negative")),
        Ok(money) => Ok(money),
        Err(MoneyError::Syntax | MoneyError::UnknownCurrency) => Err(wrong(field, decimal)),
        Err(MoneyError::TooPrecise { .. }) => {
            Err(wrong(field, "has more decimals than its currency has"))
        }
        Err(MoneyError::TooLarge) => Err(wrong(field, "is too large")),
    }
}
