//! What a bank's columns mean, as a TOML file says. The example layouts under `docs/clearing/` are
//! read by the tests.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use standin_core::id::BankId;
use standin_core::ledger::clearing::LineKind;
use standin_core::money::Currency;

use super::rules::Rules;

/// Largest mapping, in bytes.
pub const MAPPING_BYTES_MAX: usize = 64 * 1024;

/// How a bank's clearing file is read.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// What the file says.
    pub layout: Layout,
    /// The time zone of its times, and of the report.
    pub zone: TimeZone,
    /// SHA-256 of the text it was read from, hexadecimal.
    pub digest: String,
}

/// The mapping as TOML has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// What the layout is called, for people.
    pub layout: String,
    /// Whose files; `--bank` says another.
    pub bank: Option<BankId>,
    /// How lines are cut into fields.
    #[serde(default)]
    pub csv: Csv,
    /// Which column is what.
    pub columns: Columns,
    /// How amounts are written.
    pub amount: Amount,
    /// How times are written.
    pub time: Time,
    /// Which word of the column `kind` means what; absent: every line is a capture.
    #[serde(default)]
    pub kinds: BTreeMap<String, Kind>,
    /// A last line that counts and sums the others.
    pub trailer: Option<Trailer>,
    /// How near is near enough, and how late is late.
    #[serde(default)]
    pub rules: Rules,
}

/// How lines are cut into fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csv {
    /// Between fields; one ASCII character.
    pub delimiter: char,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Lines that begin with this in their first field are neither read nor bad (a file's own
    /// header record).
    pub ignore: Vec<String>,
}

/// A column: by the name in the header, or by its place from 1.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Its place, from 1.
    Place(usize),
    /// Its name.
    Name(String),
}

/// Which column is what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The bank's own reference of the line: a line told again has the same.
    pub reference: Option<Column>,
    /// Our transaction id.
    pub transaction_id: Option<Column>,
    /// The key the bank asked under; of several columns, joined by `|` as ISO 8583 keys are.
    #[serde(default)]
    pub key: Vec<Column>,
    /// Whose card: our number of the shopper.
    pub shopper: Option<Column>,
    /// Whose card: the bank's token of it.
    pub card: Option<Column>,
    /// What happened, in the words of `kinds`.
    pub kind: Option<Column>,
    /// How much.
    pub amount: Column,
    /// Its currency, by letters or by number.
    pub currency: Option<Column>,
    /// When.
    pub time: Column,
    /// The approval code.
    pub code: Option<Column>,
    /// The merchant's name.
    pub merchant: Option<Column>,
    /// The merchant's id in the network.
    pub network_id: Option<Column>,
    /// The terminal's.
    pub terminal: Option<Column>,
}

/// How amounts are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// As decimals of the major unit, or in minor units.
    pub form: AmountForm,
    /// What a sign means.
    #[serde(default)]
    pub sign: Sign,
    /// The currency of every line, where no column names it.
    pub currency: Option<Currency>,
    /// The column that says whether money comes or goes.
    pub indicator: Option<Indicator>,
}

/// How amounts are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountForm {
    /// `12.34`.
    Decimal,
    /// `1234`: minor units of the currency, leading zeros allowed.
    Minor,
}

/// What a sign means.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// None is expected: a negative amount is a bad line.
    #[default]
    None,
    /// A negative amount is a refund of a positive one.
    NegativeIsRefund,
    /// A negative amount is a charge (money leaving the account); a positive one is a refund.
    NegativeIsCharge,
}

/// The column that says whether money comes or goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Indicator {
    /// Which.
    pub column: Column,
    /// Its word for a charge.
    pub charge: String,
    /// Its word for a refund.
    pub refund: String,
}

/// How times are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// `rfc3339`, or a pattern of strftime: `%Y%m%d%H%M%S`, `%m/%d/%Y`.
    pub form: String,
    /// IANA name of the zone of times that name none: `America/New_York`. A date alone is its
    /// midnight there.
    pub zone: String,
}

/// What a word of the column `kind` means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As [`LineKind`].
    Capture,
    /// As [`LineKind`].
    ForcePost,
    /// As [`LineKind`].
    Refund,
    /// As [`LineKind`].
    Reversal,
    /// As [`LineKind`].
    Declined,
    /// Of no interest: a fee, a note.
    Ignore,
}

/// A last line that counts and sums the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// What its first field is.
    pub begins: String,
    /// The place (from 1) of the number of lines, ignored ones included.
    pub count: Option<usize>,
    /// The place of the sum of all amounts as the file signs them, in the form of `amount`.
    pub sum: Option<usize>,
}

/// Why a text is not a mapping.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Not TOML of this shape.
    #[error("mapping: {0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// Too long.
    #[error("a mapping has at most {MAPPING_BYTES_MAX} bytes")]
    Large,
    /// The zone is not known here.
    #[error("time zone {name}: {source}")]
    Zone {
        /// The zone.
        name: String,
        /// Why.
        source: jiff::Error,
    },
    /// The pattern is none.
    #[error("time form {form}: {source}")]
    Form {
        /// The pattern.
        form: String,
        /// Why.
        source: jiff::Error,
    },
    /// Something that no file could be read by.
    #[error("mapping: {0}")]
    Wrong(&'static str),
}

// === impl Mapping ===

impl Mapping {
    /// Reads a mapping.
    ///
    /// # Errors
    /// When it is none, or no file could be read by it.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        if text.len() > MAPPING_BYTES_MAX {
            return Err(MappingError::Large);
        }
        let layout: Layout = toml::from_str(text).map_err(Box::new)?;
        layout.check()?;
        let name = &layout.time.zone;
        let zone = TimeZone::get(name).map_err(|source| MappingError::Zone {
            name: name.clone(),
            source,
        })?;
        let digest = hex(&Sha256::digest(text.as_bytes()));
        Ok(Self {
            layout,
            zone,
            digest,
        })
    }
}

// === impl Layout ===

impl Layout {
    fn check(&self) -> Result<(), MappingError> {
        let wrong = |what| Err(MappingError::Wrong(what));
        if !self.csv.delimiter.is_ascii() {
            return wrong("the delimiter is one ASCII character");
        }
        let names = self
            .columns
            .all()
            .any(|column| matches!(column, Column::Name(_)));
        if names && !self.csv.header {
            return wrong("columns are named and the file has no header");
        }
        if self.columns.all().any(|column| *column == Column::Place(0)) {
            return wrong("columns are counted from 1");
        }
        if self.columns.currency.is_none() && self.amount.currency.is_none() {
            return wrong("neither a column nor the mapping names the currency");
        }
        if self.columns.kind.is_some() == self.kinds.is_empty() {
            return wrong("the column kind and the table kinds go together");
        }
        if self.amount.sign != Sign::None && self.amount.indicator.is_some() {
            return wrong("either a sign or an indicator tells refunds");
        }
        if self.time.form != "rfc3339"
            && let Err(source) = jiff::fmt::strtime::format(
                &self.time.form,
                &jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC),
            )
        {
            let form = self.time.form.clone();
            return Err(MappingError::Form { form, source });
        }
        self.rules.check().map_err(MappingError::Wrong)
    }
}

// === impl Columns ===

impl Columns {
    fn all(&self) -> impl Iterator<Item = &Column> {
        let Self {
            reference,
            transaction_id,
            key,
            shopper,
            card,
            kind,
            amount,
            currency,
            time,
            code,
            merchant,
            network_id,
            terminal,
        } = self;
        [
            reference,
            transaction_id,
            shopper,
            card,
            kind,
            currency,
            code,
            merchant,
            network_id,
            terminal,
        ]
        .into_iter()
        .flatten()
        .chain([amount, time])
        .chain(key)
    }
}

// === impl Csv ===

impl Default for Csv {
    fn default() -> Self {
        Self {
            delimiter: ',',
            header: true,
            ignore: Vec::new(),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// What happened; `None` of what is of no interest.
    pub const fn line(self) -> Option<LineKind> {
        match self {
            Self::Capture => Some(LineKind::Capture),
            Self::ForcePost => Some(LineKind::ForcePost),
            Self::Refund => Some(LineKind::Refund),
            Self::Reversal => Some(LineKind::Reversal),
            Self::Declined => Some(LineKind::Declined),
            Self::Ignore => None,
        }
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
