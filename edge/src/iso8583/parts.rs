//! What stands inside fields: amounts, currency, original data, place.

use super::Message;

/// Which message another one is about (field 90): type, trace number and transmission of the original,
/// and the institutions it came through, in this order and with these widths (ISO 8583:1987; 42 digits).
///
/// The original's own is [`Original::of`] it; the two are equal when they are the same message.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Original {
    /// Its type: 4 digits, not always one of [`Mti`](super::Mti).
    pub mti: String,
    /// Its system trace audit number, field 11: 6 digits.
    pub stan: String,
    /// When it was transmitted, field 7: MMDDhhmmss in UTC.
    pub transmitted: String,
    /// Its acquirer, field 32: 11 digits, zeros in front, all zeros if it had none.
    pub acquirer: String,
    /// Its forwarder, field 33: as the acquirer.
    pub forwarder: String,
}

/// Who took the card (field 43), without the blanks around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CardAcceptor<'a> {
    /// The shop.
    pub name: &'a str,
    /// The city; online, often a telephone number or address.
    pub city: &'a str,
    /// Country, or state, as the layout says.
    pub country: &'a str,
}

/// Where the parts of field 43 stand. The standard leaves it to networks
/// (both: docs.thredd.com, "`Merch_Name_DE43` Field in Authorisations").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CardAcceptorLayout {
    /// Visa: name 1 to 25, city 26 to 38, country 39 to 40 (ISO 3166, two letters).
    Visa,
    /// Mastercard: name 1 to 22, city 24 to 36, 38 to 40 country (three letters), or state where that
    /// is the USA or Canada.
    Mastercard,
}

// === impl Message ===

impl Message {
    /// An amount in minor units of its currency: field 4, 5 or 6; `None` for others.
    pub fn amount(&self, field: u8) -> Option<i64> {
        match field {
            4..=6 => self.text(field)?.parse().ok(),
            _ => None,
        }
    }

    /// What the amount is after a partial reversal, in minor units of the transaction's currency:
    /// the first 12 digits of field 95.
    pub fn replacement(&self) -> Option<i64> {
        self.text(95)?.get(..12)?.parse().ok()
    }

    /// The transaction's currency: three digits of ISO 4217, field 49.
    pub fn currency(&self) -> Option<&str> {
        self.text(49)
    }

    /// Which message this one is about: field 90.
    pub fn original(&self) -> Option<Original> {
        let mut rest = self.text(90)?;
        let mut next = |width| {
            let (part, after) = rest.split_at_checked(width)?;
            rest = after;
            Some(part.to_owned())
        };
        Some(Original {
            mti: next(4)?,
            stan: next(6)?,
            transmitted: next(10)?,
            acquirer: next(11)?,
            forwarder: next(11)?,
        })
    }

    /// Who took the card: field 43.
    pub fn card_acceptor(&self, layout: CardAcceptorLayout) -> Option<CardAcceptor<'_>> {
        let text = self.text(43)?;
        let (name, city, country) = match layout {
            CardAcceptorLayout::Visa => (0..25, 25..38, 38..40),
            CardAcceptorLayout::Mastercard => (0..22, 23..36, 37..40),
        };
        Some(CardAcceptor {
            name: text.get(name)?.trim(),
            city: text.get(city)?.trim(),
            country: text.get(country)?.trim(),
        })
    }
}

// === impl Original ===

impl Original {
    /// What field 90 says of a message; `None` if it has no trace number or no time of transmission.
    pub fn of(message: &Message) -> Option<Self> {
        let institution = |field| format!("{:0>11}", message.text(field).unwrap_or_default());
        Some(Self {
            mti: message.mti().digits().to_owned(),
            stan: message.text(11)?.to_owned(),
            transmitted: message.text(7)?.to_owned(),
            acquirer: institution(32),
            forwarder: institution(33),
        })
    }

    /// The value of field 90.
    pub fn to_field(&self) -> String {
        let Self {
            mti,
            stan,
            transmitted,
            acquirer,
            forwarder,
        } = self;
        [mti, stan, transmitted, acquirer, forwarder]
            .map(String::as_str)
            .concat()
    }
}
