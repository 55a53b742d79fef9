//! The secrets a bank may sign with, each with the time in which it is good.
//!
//! As text, one key a line: the secret, then `id=`, `not_before=` and `not_after=` (RFC 3339) as
//! needed, in any order. A line that begins with `#` is a remark. A `-` in the secret's place says that
//! there is such a key and that this edge was not given it: until it is, an edge cannot tell a wrong
//! signature from one by that key, and must not say that it is wrong.

use crate::clock::Timestamp;

use super::{Scheme, Secret, SecretError};

/// Keys that may be good at one moment: one, or two while one takes the other's place.
pub const LIVE_MAX: usize = 2;
/// Keys in one list, past and future ones among them.
const KEYS_MAX: usize = 16;
/// Longest id of a key, in bytes.
const ID_BYTES_MAX: usize = 64;

/// One key of a bank.
#[derive(Clone, Debug)]
pub struct Key {
    /// How messages name it, where the scheme lets them.
    pub id: Option<String>,
    /// `None`: this edge was not given it.
    pub secret: Option<Secret>,
    /// From when it is good; `None`: it always was.
    pub not_before: Option<Timestamp>,
    /// Until when (that moment not included); `None`: without end.
    pub not_after: Option<Timestamp>,
}

/// Every key of a bank, in the order they are listed.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

/// The keys that are good at one moment.
#[derive(Clone, Debug, Default)]
pub struct Live<'a> {
    /// Those this edge has.
    pub secrets: Vec<&'a Secret>,
    /// Their ids, in the same order.
    pub ids: Vec<Option<&'a str>>,
    /// There is another, which this edge was not given.
    pub missing: bool,
}

/// Why a text is no list of keys. No part of a secret is in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysError {
    /// No key at all.
    #[error("it holds no key")]
    None,
    /// More than anybody uses.
    #[error("it holds more than {KEYS_MAX} keys")]
    TooMany,
    /// A line's secret is not one.
    #[error("line {line}: {error}")]
    Secret {
        /// From 1.
        line: usize,
        /// Why.
        error: SecretError,
    },
    /// Another word of a line is wrong.
    #[error("line {line}: {problem}")]
    Word {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two keys have one id.
    #[error("two keys have the same id")]
    SameId,
    /// Messages of this scheme name their key, and one has no name.
    #[error("line {line}: messages of this scheme name their key: it needs id=")]
    NoId {
        /// From 1.
        line: usize,
    },
    /// More keys would be good at one moment than are ever needed.
    #[error("more than {LIVE_MAX} keys are good at one moment: at {at}")]
    Overlap {
        /// A moment at which they are.
        at: Timestamp,
    },
}

// === impl Key ===

impl Key {
    /// A key without a name that is always good.
    pub const fn lasting(secret: Secret) -> Self {
        Self {
            id: None,
            secret: Some(secret),
            not_before: None,
            not_after: None,
        }
    }

    /// A key that there is and that this edge was not given.
    pub const fn not_given() -> Self {
        Self {
            id: None,
            secret: None,
            not_before: None,
            not_after: None,
        }
    }

    /// Whether it is good at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|to| now < to)
    }

    fn read(text: &str, line: usize, scheme: Scheme) -> Result<Self, KeysError> {
        let wrong = |problem| KeysError::Word { line, problem };
        let mut words = text.split_ascii_whitespace();
        let secret = match words.next() {
            None | Some("-") => None,
            Some(text) => {
                let read = scheme.secret(text);
                Some(read.map_err(|error| KeysError::Secret { line, error })?)
            }
        };
        let (mut id, mut not_before, mut not_after) = (None, None, None);
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let twice = match name {
                "id" => id.replace(read_id(value).ok_or(wrong(ID))?).is_some(),
                "not_before" => not_before
                    .replace(time(value).ok_or(wrong(TIME))?)
                    .is_some(),
                "not_after" => not_after.replace(time(value).ok_or(wrong(TIME))?).is_some(),
                _ => {
                    return Err(wrong(
                        "after the secret come id=, not_before= and not_after=",
                    ));
                }
            };
            if twice {
                return Err(wrong("the same word twice"));
            }
        }
        if let (Some(from), Some(to)) = (not_before, not_after)
            && from >= to
        {
            return Err(wrong("not_after must be later than not_before"));
        }
        if scheme == Scheme::HttpMessage && id.is_none() {
            return Err(KeysError::NoId { line });
        }
        Ok(Self {
            id,
            secret,
            not_before,
            not_after,
        })
    }
}

const ID: &str = "an id is 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'";
const TIME: &str = "a time is written as 2026-11-01T00:00:00Z";

fn read_id(text: &str) -> Option<String> {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(usable);
    good.then(|| text.to_owned())
}

fn time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

// === impl Keys ===

impl Keys {
    /// Reads a list of keys for `scheme`.
    pub fn parse(text: &str, scheme: Scheme) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), at.saturating_add(1));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if keys.len() >= KEYS_MAX {
                return Err(KeysError::TooMany);
            }
            keys.push(Key::read(line, number, scheme)?);
        }
        Self::of(keys)
    }

    /// These keys.
    ///
    /// # Errors
    /// When there are none, two share an id, or too many are good at one moment.
    pub fn of(keys: Vec<Key>) -> Result<Self, KeysError> {
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        let mut ids: Vec<&str> = keys.iter().filter_map(|key| key.id.as_deref()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(KeysError::SameId);
        }
        // The number that are good can grow only where one begins to be.
        for key in &keys {
            let at = key.not_before.unwrap_or(Timestamp::from_millis(i64::MIN));
            if keys.iter().filter(|key| key.is_live(at)).count() > LIVE_MAX {
                return Err(KeysError::Overlap { at });
            }
        }
        Ok(Self(keys))
    }

    /// Those that are good at `now`.
    pub fn live(&self, now: Timestamp) -> Live<'_> {
        let mut live = Live::default();
        for key in self.0.iter().filter(|key| key.is_live(now)) {
            match &key.secret {
                Some(secret) => {
                    live.secrets.push(secret);
                    live.ids.push(key.id.as_deref());
                }
                None => live.missing = true,
            }
        }
        live
    }

    /// Every key.
    pub fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const B: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn keys(text: &str) -> Result<Keys, KeysError> {
        Keys::parse(text, Scheme::StandardWebhooks)
    }

    fn at(text: &str) -> Timestamp {
        time(text).unwrap()
    }

    #[test]
    fn a_key_is_good_in_its_time_and_two_overlap() {
        let text = format!(
            "# rotated in November\n{A} id=2026-10 not_after=2026-11-08T00:00:00Z\n\n  {B} \
             not_before=2026-11-01T00:00:00Z id=2026-11\n"
        );
        let keys = keys(&text).unwrap();
        for (now, ids) in [
            ("1999-01-01T00:00:00Z", vec![Some("2026-10")]),
            ("2026-10-31T23:59:59.999Z", vec![Some("2026-10")]),
            (
                "2026-11-01T00:00:00Z",
                vec![Some("2026-10"), Some("2026-11")],
            ),
            (
                "2026-11-07T23:59:59.999Z",
                vec![Some("2026-10"), Some("2026-11")],
            ),
            ("2026-11-08T00:00:00Z", vec![Some("2026-11")]),
            ("2126-11-08T00:00:00Z", vec![Some("2026-11")]),
        ] {
            let live = keys.live(at(now));
            assert_eq!((live.ids, live.missing), (ids, false), "{now}");
        }
        assert!(!format!("{keys:?}").contains("MfKQ9"));
    }

    #[test]
    fn a_key_that_was_not_given_is_missing_in_its_time_only() {
        let text = format!("{A}\n- not_before=2026-11-01T00:00:00Z not_after=2026-12-01T00:00:00Z");
        let keys = keys(&text).unwrap();
        for (now, missing) in [
            ("2026-10-31T00:00:00Z", false),
            ("2026-11-15T00:00:00Z", true),
            ("2026-12-01T00:00:00Z", false),
        ] {
            let live = keys.live(at(now));
            assert_eq!((live.secrets.len(), live.missing), (1, missing), "{now}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_line_and_without_the_secret() {
        let three = format!("{A}\n{B}\n{A}");
        let many = "- not_after=2000-01-01T00:00:00Z not_before=1999-01-01T00:00:00Z\n".repeat(17);
        for (text, expected) in [
            ("", "it holds no key"),
            ("# none\n\n", "it holds no key"),
            ("hunter2", "line 1: a secret begins with whsec_"),
            (
                &format!("{A}\n{A}x"),
                "line 2: a secret is written in padded standard base64",
            ),
            (&format!("{A} once=1"), "line 1: after the secret come"),
            (&format!("{A} {B}"), "line 1: after the secret come"),
            (&format!("{A} id="), "line 1: an id is 1 to 64"),
            (&format!("{A} id=a/b"), "line 1: an id is 1 to 64"),
            (&format!("{A} id=a id=b"), "line 1: the same word twice"),
            (
                &format!("{A} not_before=2026-11-01"),
                "line 1: a time is written",
            ),
            (
                &format!("{A} not_after=tomorrow"),
                "line 1: a time is written",
            ),
            (
                &format!("{A} not_before=2026-11-02T00:00:00Z not_after=2026-11-02T00:00:00Z"),
                "line 1: not_after must be later",
            ),
            (&format!("{A} id=a\n{B} id=a"), "two keys have the same id"),
            (&three, "more than 2 keys are good at one moment"),
            (&many, "it holds more than 16 keys"),
        ] {
            let error = keys(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} for {text:?}");
            assert!(
                !error.contains("hunter2") && !error.contains("MfKQ9"),
                "{error}"
            );
        }
        let unnamed = Keys::parse(A, Scheme::HttpMessage).unwrap_err();
        assert_eq!(unnamed, KeysError::NoId { line: 1 });
    }
}
