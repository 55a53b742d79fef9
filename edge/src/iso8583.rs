//! ISO 8583:1987 messages: bytes into a [`Message`] and back. Pure; no socket is known here.
//!
//! A message is its type ([`Mti`], four digits), a bitmap of 64 bits, a second one if a field above 64
//! is there (bit 1 says so), and the fields in the order of their numbers. What each field looks like is
//! in `table`, what bytes become is an [`Encoding`], what stands around a message on TCP is [`frame`].
//!
//! Promises: what is read has one way to be written, so `encode` of what `decode` took gives the same
//! bytes; a message holds only fields as the table has them; nothing panics, and memory is taken for
//! what has arrived, never for what is announced. No value of a field is in any error or in `Debug`; all
//! are wiped when they are dropped, and card data is shown only to who asks by the word
//! [`secret`](Message::secret).
//!
//! Absent on purpose: BCD and EBCDIC, headers of networks, the insides of private fields
//! (`docs/decisions/0017-iso8583-codec.md`).

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretSlice};

pub mod frame;
mod mti;
mod parts;
mod reply;
mod table;
mod wire;

#[cfg(test)]
mod tests;

pub use mti::Mti;
pub use parts::{CardAcceptor, CardAcceptorLayout, Original};
pub use reply::{Outcome, ReplyError};
pub use table::{Class, FieldError, Length, MESSAGE_BYTES_MAX};
pub use wire::{DecodeError, Part, Undecoded};

/// How a message is written. The type, lengths and texts are ASCII in both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// Bitmaps and binary fields are upper-case hex: pyiso8583's `iso8583.specs.default_ascii`. The
    /// length before a binary field counts hex digits.
    Ascii,
    /// Bitmaps and binary fields are the bytes themselves: pyiso8583's `iso8583.specs.default`. The
    /// length before a binary field counts bytes.
    AsciiBinary,
}

/// A message whose fields are all as the table has them.
#[derive(Clone)]
pub struct Message {
    mti: Mti,
    /// By number, as they are without encoding: text in ASCII, binary fields as bytes.
    fields: BTreeMap<u8, SecretSlice<u8>>,
}

// === impl Message ===

impl Message {
    /// A message without fields.
    pub const fn new(mti: Mti) -> Self {
        Self {
            mti,
            fields: BTreeMap::new(),
        }
    }

    /// Reads a message that is all of `bytes`.
    ///
    /// # Errors
    /// When it is not written as it would be here; with what was read before that, so that it can be
    /// answered.
    pub fn decode(bytes: &[u8], encoding: Encoding) -> Result<Self, Undecoded> {
        wire::decode(bytes, encoding)
    }

    /// The bytes of the message, at most [`MESSAGE_BYTES_MAX`]. They show all that it holds.
    pub fn encode(&self, encoding: Encoding) -> Vec<u8> {
        wire::encode(self, encoding)
    }

    /// What kind of message it is.
    pub const fn mti(&self) -> Mti {
        self.mti
    }

    /// The numbers of the fields that are there, in order.
    pub fn fields(&self) -> impl Iterator<Item = u8> {
        self.fields.keys().copied()
    }

    /// Puts a field in, in place of the one that was there. Nothing is padded: the value is what goes
    /// onto the wire, for a binary field its bytes.
    ///
    /// # Errors
    /// When the field is unknown, or the value is none of it.
    pub fn set(&mut self, field: u8, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        self.put(field, value.as_ref().to_vec().into())
    }

    /// Takes a field out, if it is there.
    pub fn remove(&mut self, field: u8) {
        self.fields.remove(&field);
    }

    /// The text of a field, with the blanks that pad it; `None` also for every field that is secret.
    ///
    /// Secret is what names a card or an account, what proves somebody, and what networks fill as they
    /// like: 2, 14, 34 to 36, 45 to 48, 52, 53, 55 to 64, 96, 102 to 128.
    pub fn text(&self, field: u8) -> Option<&str> {
        if table::spec(field)?.is_secret() {
            return None;
        }
        std::str::from_utf8(self.bytes(field)?).ok()
    }

    /// Any field as bytes, secret or not: ASCII, or what a binary field holds.
    pub fn secret(&self, field: u8) -> Option<&SecretSlice<u8>> {
        self.fields.get(&field)
    }

    fn put(&mut self, field: u8, value: SecretSlice<u8>) -> Result<(), FieldError> {
        table::check(field, value.expose_secret())?;
        self.fields.insert(field, value);
        Ok(())
    }

    fn bytes(&self, field: u8) -> Option<&[u8]> {
        self.fields.get(&field).map(|value| value.expose_secret())
    }

    fn values(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let values = self.fields.iter();
        values.map(|(field, value)| (*field, value.expose_secret()))
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.mti == other.mti && self.values().eq(other.values())
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    /// Which fields there are, and the value of none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<u8> = self.fields().collect();
        f.debug_struct("Message")
            .field("mti", &self.mti)
            .field("fields", &fields)
            .finish()
    }
}
