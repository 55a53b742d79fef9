//! What each field looks like.
//!
//! Types and lengths are those of ISO 8583:1987 as jPOS's `ISO87APackager` and moov-io/iso8583's
//! `Spec87ASCII` have them; where lengths differ, pyiso8583's default specs decide, whose bytes are
//! ours: 44 has 25 characters at most (moov 99), 54 has 240 (the standard 120), 55 is EMV data, 255 bytes
//! (the standard has text). Currency codes are digits (the standard allows letters too).
//!
//! Fields that only occur in messages that are not ours (settlement 66 to 69, 71 to 89, 97, 98; files 91 to
//! 93) are not here, and 65 would be a third bitmap.

use std::fmt;

/// What a field may hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// `n`: 0 to 9.
    Digits,
    /// `x+n`: C (credit) or D (debit), then digits.
    SignedDigits,
    /// `an`: letters and digits, with blanks at the end where they pad.
    Alphanumeric,
    /// `ans`: what ASCII can print, and the blank.
    Printable,
    /// `z`: tracks 2 and 3 without sentinels (ISO/IEC 7813): digits and `:;<=>?`, or D as separator.
    Track,
    /// Replacement amounts: 12 digits of the actual amount, the rest as networks have it: letters,
    /// digits, blanks.
    Replacement,
    /// `b`: any bytes.
    Binary,
}

/// How long a field is: characters, or bytes if it is binary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Length {
    /// Always this long.
    Fixed(usize),
    /// `LL`: 1 to this many, said in two digits before.
    UpTo99(usize),
    /// `LLL`: 1 to this many, said in three digits before.
    UpTo999(usize),
}

/// Why a value is none of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldError {
    /// The table has no such field, so nobody knows where it ends.
    #[error("field {field} is not known")]
    Unknown {
        /// Its number.
        field: u8,
    },
    /// Too short or too long.
    #[error("field {field} has a length of {found}, it should be {expected}")]
    Length {
        /// Its number.
        field: u8,
        /// How long it is.
        found: usize,
        /// How long it may be.
        expected: Length,
    },
    /// A character that the field may not hold.
    #[error("field {field} should be {expected}")]
    Characters {
        /// Its number.
        field: u8,
        /// What it may hold.
        expected: Class,
    },
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spec {
    pub(super) class: Class,
    pub(super) length: Length,
    kept: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    Open,
    Secret,
}

/// The last field.
pub(super) const FIELD_MAX: u8 = 128;

/// Longest message that can be made of the table, in either encoding.
pub const MESSAGE_BYTES_MAX: usize = longest();

const _: () = assert!(
    MESSAGE_BYTES_MAX <= 65_535,
    "the frame's length has two bytes"
);

/// The row of a field.
pub(super) const fn spec(field: u8) -> Option<Spec> {
    use Class::{Alphanumeric, Binary, Digits, Printable, Replacement, SignedDigits, Track};
    use Length::{Fixed, UpTo99, UpTo999};
    Some(match field {
        2 => secret(Digits, UpTo99(19)),              // card number
        3 => open(Digits, Fixed(6)),                  // processing code
        4..=6 => open(Digits, Fixed(12)),             // amounts: transaction, settlement, billing
        7 => open(Digits, Fixed(10)),                 // transmission, MMDDhhmmss, UTC
        8..=10 => open(Digits, Fixed(8)),             // billing fee, conversion rates
        11 => open(Digits, Fixed(6)),                 // system trace audit number
        12 => open(Digits, Fixed(6)),                 // local time, hhmmss
        13 => open(Digits, Fixed(4)),                 // local date, MMDD
        14 => secret(Digits, Fixed(4)),               // expiry, YYMM
        15..=17 => open(Digits, Fixed(4)),            // dates: settlement, conversion, capture
        18 => open(Digits, Fixed(4)),                 // merchant type (MCC)
        19..=21 => open(Digits, Fixed(3)),            // countries: acquirer, card, forwarder
        22..=24 => open(Digits, Fixed(3)),            // entry mode, card sequence, network
        25 | 26 => open(Digits, Fixed(2)),            // condition, PIN capture
        27 => open(Digits, Fixed(1)),                 // length of 38
        28..=31 => open(SignedDigits, Fixed(9)),      // fees
        32 | 33 => open(Digits, UpTo99(11)),          // acquirer, forwarder
        34 => secret(Printable, UpTo99(28)),          // extended card number
        35 => secret(Track, UpTo99(37)),              // track 2
        36 => secret(Track, UpTo999(104)),            // track 3
        37 => open(Alphanumeric, Fixed(12)),          // retrieval reference number
        38 => open(Alphanumeric, Fixed(6)),           // approval code
        39 => open(Alphanumeric, Fixed(2)),           // response code
        40 => open(Alphanumeric, Fixed(3)),           // service restriction
        41 => open(Printable, Fixed(8)),              // terminal
        42 => open(Printable, Fixed(15)),             // card acceptor's id
        43 => open(Printable, Fixed(40)),             // card acceptor's name and place
        44 => open(Printable, UpTo99(25)),            // additional response data
        45 => secret(Printable, UpTo99(76)),          // track 1
        46..=48 => secret(Printable, UpTo999(999)),   // additional data
        49..=51 => open(Digits, Fixed(3)),            // currencies of 4 to 6
        52 => secret(Binary, Fixed(8)),               // PIN block
        53 => secret(Digits, Fixed(16)),              // security control
        54 => open(Printable, UpTo999(240)),          // additional amounts
        55 => secret(Binary, UpTo999(255)),           // EMV data
        56..=63 => secret(Printable, UpTo999(999)),   // reserved
        64 => secret(Binary, Fixed(8)),               // MAC
        70 => open(Digits, Fixed(3)),                 // network management code
        90 => open(Digits, Fixed(42)),                // original data elements
        94 => open(Alphanumeric, Fixed(7)),           // service indicator
        95 => open(Replacement, Fixed(42)),           // replacement amounts
        96 => secret(Binary, Fixed(8)),               // message security code
        99 | 100 => open(Digits, UpTo99(11)),         // settlement institution, receiver
        101 => open(Printable, UpTo99(17)),           // file name
        102 | 103 => secret(Printable, UpTo99(28)),   // accounts
        104 => secret(Printable, UpTo999(100)),       // transaction description
        105..=127 => secret(Printable, UpTo999(999)), // reserved
        128 => secret(Binary, Fixed(8)),              // MAC
        _ => return None,
    })
}

const fn open(class: Class, length: Length) -> Spec {
    Spec {
        class,
        length,
        kept: Kept::Open,
    }
}

const fn secret(class: Class, length: Length) -> Spec {
    Spec {
        class,
        length,
        kept: Kept::Secret,
    }
}

/// Checks that a value is one of the field.
///
/// # Errors
/// When it is not.
pub(super) fn check(field: u8, value: &[u8]) -> Result<(), FieldError> {
    let spec = spec(field).ok_or(FieldError::Unknown { field })?;
    spec.check_length(field, value.len())?;
    if !spec.class.allows(value) {
        return Err(FieldError::Characters {
            field,
            expected: spec.class,
        });
    }
    Ok(())
}

/// Type, two bitmaps in hex, and every field at its longest, binary ones in hex.
const fn longest() -> usize {
    let mut bytes = 4_usize.saturating_add(32);
    let mut field = 2;
    while field <= FIELD_MAX {
        if let Some(spec) = spec(field) {
            let width = if matches!(spec.class, Class::Binary) {
                2
            } else {
                1
            };
            bytes = bytes
                .saturating_add(spec.length.digits())
                .saturating_add(spec.length.max().saturating_mul(width));
        }
        field = field.saturating_add(1);
    }
    bytes
}

// === impl Spec ===

impl Spec {
    pub(super) const fn is_secret(self) -> bool {
        matches!(self.kept, Kept::Secret)
    }

    /// Checks a length before anything of that length is looked at.
    pub(super) fn check_length(self, field: u8, found: usize) -> Result<(), FieldError> {
        let fits = match self.length {
            Length::Fixed(length) => found == length,
            Length::UpTo99(max) | Length::UpTo999(max) => (1..=max).contains(&found),
        };
        if fits {
            return Ok(());
        }
        Err(FieldError::Length {
            field,
            found,
            expected: self.length,
        })
    }
}

// === impl Length ===

impl Length {
    /// Digits of the length before a field.
    pub(super) const fn digits(self) -> usize {
        match self {
            Self::Fixed(_) => 0,
            Self::UpTo99(_) => 2,
            Self::UpTo999(_) => 3,
        }
    }

    pub(super) const fn max(self) -> usize {
        match self {
            Self::Fixed(max) | Self::UpTo99(max) | Self::UpTo999(max) => max,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::UpTo99(max) | Self::UpTo999(max) => write!(f, "1 to {max}"),
        }
    }
}

// === impl Class ===

impl Class {
    fn allows(self, value: &[u8]) -> bool {
        let all = |allowed: fn(&u8) -> bool| value.iter().all(allowed);
        match self {
            Self::Digits => all(u8::is_ascii_digit),
            Self::SignedDigits => match value.split_first() {
                Some((b'C' | b'D', digits)) => digits.iter().all(u8::is_ascii_digit),
                _ => false,
            },
            Self::Alphanumeric => {
                let blanks_cut = value.trim_ascii_end();
                blanks_cut.iter().all(u8::is_ascii_alphanumeric) && all(is_printable)
            }
            Self::Printable => all(is_printable),
            Self::Track => all(|byte| matches!(byte, b'0'..=b'?' | b'D')),
            Self::Replacement => match value.split_first_chunk::<12>() {
                Some((amount, rest)) => {
                    let is_free = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b' ';
                    amount.iter().all(u8::is_ascii_digit) && rest.iter().all(is_free)
                }
                None => false,
            },
            Self::Binary => true,
        }
    }
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~')
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digits => "digits",
            Self::SignedDigits => "C or D, and digits",
            Self::Alphanumeric => "letters and digits, with blanks at the end only",
            Self::Printable => "printable ASCII",
            Self::Track => "track characters",
            Self::Replacement => "twelve digits, and letters, digits or blanks",
            Self::Binary => "bytes",
        })
    }
}
