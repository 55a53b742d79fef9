//! Bytes into messages and back.
//!
//! ```text
//! type      4 digits
//! bitmap    64 bits, field 1 first; bit 1: another 64 follow
//! fields    in order; where a field has no fixed length, two or three digits of length before it
//! ```

use std::fmt;

use super::table::{self, Class, FIELD_MAX, FieldError, MESSAGE_BYTES_MAX, Spec};
use super::{Encoding, Message, Mti};

const MTI_BYTES: usize = 4;
const BITMAP_BYTES: usize = 8;
/// The bits of a byte, in the order of their fields.
const BITS: [u8; 8] = [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01];
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A place in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The message type.
    Mti,
    /// One of the bitmaps.
    Bitmap,
    /// This field, or the length before it.
    Field(u8),
}

/// Why bytes are no message. Says where, and shows no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any message can be.
    #[error("{bytes} bytes, a message has {MESSAGE_BYTES_MAX} at most")]
    TooLarge {
        /// How many came.
        bytes: usize,
    },
    /// The bytes end before the message does.
    #[error("the message ends inside {inside}")]
    Ended {
        /// Where.
        inside: Part,
    },
    /// The message type is not four digits.
    #[error("the message type is not four digits")]
    Mti,
    /// The message type is well formed, and none of ours.
    #[error("message type {digits} is not known")]
    UnknownMti {
        /// Its four digits.
        digits: String,
    },
    /// A bitmap is not upper-case hex.
    #[error("a bitmap is not upper-case hex")]
    Bitmap,
    /// There is a second bitmap, and it is empty.
    #[error("the second bitmap is empty")]
    EmptyBitmap,
    /// The length before a field is not digits.
    #[error("the length of field {field} is not digits")]
    Prefix {
        /// The field.
        field: u8,
    },
    /// A binary field is not pairs of upper-case hex digits.
    #[error("field {field} is not pairs of upper-case hex digits")]
    Hex {
        /// The field.
        field: u8,
    },
    /// A field is not what the table says.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Bytes are left over.
    #[error("{bytes} bytes follow the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Bytes that are no message, and what could be read of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Undecoded {
    /// What is wrong.
    pub error: DecodeError,
    /// The fields before that, to answer with: `None` where type or bitmap were wrong.
    pub read: Option<Box<Message>>,
}

struct Reader<'a> {
    rest: &'a [u8],
    encoding: Encoding,
}

pub(super) fn decode(bytes: &[u8], encoding: Encoding) -> Result<Message, Undecoded> {
    let mut reader = Reader {
        rest: bytes,
        encoding,
    };
    let head = reader.head();
    let (mti, present) = head.map_err(|error| Undecoded { error, read: None })?;
    let mut message = Message::new(mti);
    match reader.fields(&present, &mut message) {
        Ok(()) => Ok(message),
        Err(error) => Err(Undecoded {
            error,
            read: Some(Box::new(message)),
        }),
    }
}

pub(super) fn encode(message: &Message, encoding: Encoding) -> Vec<u8> {
    let mut bytes = message.mti.digits().as_bytes().to_vec();
    for bitmap in bitmaps(message) {
        push_binary(&mut bytes, &bitmap, encoding);
    }
    for (field, value) in message.values() {
        // Always: a message holds only fields of the table.
        if let Some(spec) = table::spec(field) {
            let mut written = Vec::with_capacity(value.len());
            match spec.class {
                Class::Binary => push_binary(&mut written, value, encoding),
                _ => written.extend_from_slice(value),
            }
            let width = spec.length.digits();
            if width > 0 {
                bytes.extend_from_slice(format!("{:0width$}", written.len()).as_bytes());
            }
            bytes.append(&mut written);
        }
    }
    bytes
}

/// The first bitmap, and the second if a field needs it.
fn bitmaps(message: &Message) -> Vec<[u8; BITMAP_BYTES]> {
    let second = message.fields().any(|field| field > 64);
    let mut fields = 1..=FIELD_MAX;
    let mut next = || {
        let mut bitmap = [0_u8; BITMAP_BYTES];
        for byte in &mut bitmap {
            for (bit, field) in BITS.iter().zip(&mut fields) {
                if message.fields.contains_key(&field) || (field == 1 && second) {
                    *byte |= bit;
                }
            }
        }
        bitmap
    };
    let first = next();
    if second {
        vec![first, next()]
    } else {
        vec![first]
    }
}

fn push_binary(bytes: &mut Vec<u8>, value: &[u8], encoding: Encoding) {
    match encoding {
        Encoding::AsciiBinary => bytes.extend_from_slice(value),
        Encoding::Ascii => bytes.extend(value.iter().flat_map(|byte| {
            [byte >> 4, byte & 0x0F]
                .map(|digit| HEX.get(usize::from(digit)).copied().unwrap_or_default())
        })),
    }
}

/// The bytes that pairs of upper-case hex digits stand for.
fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'A'..=b'F' => digit
            .checked_sub(b'A')
            .and_then(|value| value.checked_add(10)),
        _ => None,
    };
    // At its final size from the start: growing would leave copies of a secret behind.
    let mut bytes = Vec::with_capacity(digits.len().div_ceil(2));
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push((value(*high)? << 4) | value(*low)?);
    }
    Some(bytes)
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The type, and which fields follow.
    fn head(&mut self) -> Result<(Mti, Vec<u8>), DecodeError> {
        let bytes = self.rest.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge { bytes });
        }
        let digits = self.take(MTI_BYTES, Part::Mti)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(DecodeError::Mti);
        }
        let digits = String::from_utf8_lossy(digits);
        let mti = Mti::of(&digits).ok_or_else(|| DecodeError::UnknownMti {
            digits: digits.into_owned(),
        })?;
        let mut bitmap = self.bitmap()?;
        let second = bitmap.first().is_some_and(|byte| byte & 0x80 != 0);
        if second {
            let more = self.bitmap()?;
            if more.iter().all(|byte| *byte == 0) {
                return Err(DecodeError::EmptyBitmap);
            }
            bitmap.extend(more);
        }
        let bits = bitmap
            .iter()
            .flat_map(|byte| BITS.iter().map(move |bit| byte & bit != 0));
        let present = bits
            .zip(1..=FIELD_MAX)
            .filter_map(|(is_set, field)| (is_set && field > 1).then_some(field))
            .collect();
        Ok((mti, present))
    }

    fn bitmap(&mut self) -> Result<Vec<u8>, DecodeError> {
        match self.encoding {
            Encoding::AsciiBinary => Ok(self.take(BITMAP_BYTES, Part::Bitmap)?.to_vec()),
            Encoding::Ascii => {
                let digits = self.take(BITMAP_BYTES.saturating_mul(2), Part::Bitmap)?;
                from_hex(digits).ok_or(DecodeError::Bitmap)
            }
        }
    }

    fn fields(&mut self, present: &[u8], message: &mut Message) -> Result<(), DecodeError> {
        for field in present.iter().copied() {
            let spec = table::spec(field).ok_or(FieldError::Unknown { field })?;
            match spec.class {
                Class::Binary => message.put(field, self.binary(field, spec)?.into())?,
                _ => message.set(field, self.text(field, spec)?)?,
            }
        }
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    fn text(&mut self, field: u8, spec: Spec) -> Result<&'a [u8], DecodeError> {
        let length = match self.prefix(field, spec)? {
            Some(length) => length,
            None => spec.length.max(),
        };
        spec.check_length(field, length)?;
        self.take(length, Part::Field(field))
    }

    fn binary(&mut self, field: u8, spec: Spec) -> Result<Vec<u8>, DecodeError> {
        let prefix = self.prefix(field, spec)?;
        match self.encoding {
            Encoding::AsciiBinary => {
                let length = prefix.unwrap_or(spec.length.max());
                spec.check_length(field, length)?;
                Ok(self.take(length, Part::Field(field))?.to_vec())
            }
            Encoding::Ascii => {
                let digits = prefix.unwrap_or(spec.length.max().saturating_mul(2));
                spec.check_length(field, digits.div_ceil(2))?;
                let digits = self.take(digits, Part::Field(field))?;
                from_hex(digits).ok_or(DecodeError::Hex { field })
            }
        }
    }

    /// The length before a field, if it has one there.
    fn prefix(&mut self, field: u8, spec: Spec) -> Result<Option<usize>, DecodeError> {
        let width = spec.length.digits();
        if width == 0 {
            return Ok(None);
        }
        let digits = self.take(width, Part::Field(field))?;
        // Not `parse` alone: it takes a sign.
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(DecodeError::Prefix { field });
        }
        let length = String::from_utf8_lossy(digits).parse();
        length.map(Some).map_err(|_| DecodeError::Prefix { field })
    }

    fn take(&mut self, bytes: usize, inside: Part) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(DecodeError::Ended { inside })?;
        self.rest = rest;
        Ok(taken)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mti => f.write_str("the message type"),
            Self::Bitmap => f.write_str("a bitmap"),
            Self::Field(field) => write!(f, "field {field}"),
        }
    }
}
