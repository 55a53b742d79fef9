//! A clearing file, read line by line: each becomes a line, a bad line with a number and a reason, or
//! one that the mapping ignores. Nothing is dropped unseen, and no value is ever quoted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use standin_core::authorization::{MERCHANT_TEXT_BYTES_MAX, TOKEN_BYTES_MAX};
use standin_core::card_number::holds_card_number;
use standin_core::clock::Timestamp;
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::identity::{Operation, of_key, record_id};
use standin_core::ledger::Card;
use standin_core::ledger::clearing::{ClearingLine, LineKind, NamedBy, StagedLine};
use standin_core::money::{Currency, Money};

use super::mapping::{AmountForm, Column, Layout, Mapping, Sign, hex};
use crate::totals::{Sums, add};

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Currencies a file may have.
const CURRENCIES_MAX: usize = 200;

/// What a line came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadLine {
    /// A line.
    Line(Box<StagedLine>),
    /// One that does not read.
    Bad(BadLine),
}

/// A line that does not read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// Which column, by its name in the mapping.
    pub column: String,
    /// What is wrong with it; never what it says.
    pub reason: String,
}

/// What a file holds, once it is read to its end.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FileSums {
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Records, without header and trailer: lines, ignored and bad ones together.
    pub records: u64,
    /// Lines.
    pub lines: u64,
    /// Records that the mapping ignores.
    pub ignored: u64,
    /// Bad lines.
    pub bad: u64,
    /// Lines by what happened.
    pub kinds: BTreeMap<LineKind, KindSum>,
    /// The time of the first line by time.
    pub first_at: Option<i64>,
    /// Of the last.
    pub last_at: Option<i64>,
    /// Number of the last record's line.
    pub last_line: u64,
    /// Whether a trailer confirmed them.
    pub confirmed: bool,
}

/// Lines of one kind.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct KindSum {
    /// How many.
    pub count: u64,
    /// Their money, minor units by currency.
    pub minor: Sums,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not CSV.
    #[error("not CSV: {0}")]
    Csv(#[from] csv::Error),
    /// A column of the mapping is not in its header.
    #[error("the file has no column {0:?}")]
    NoColumn(String),
    /// The mapping has a trailer and the file none: it may have been cut.
    #[error("the file has no trailer: it may have been cut off")]
    NoTrailer,
    /// There are records after the trailer.
    #[error("line {0} comes after the trailer")]
    AfterTrailer(u64),
    /// The trailer does not read.
    #[error("the trailer's {0} does not read")]
    Trailer(&'static str),
    /// The trailer counts otherwise.
    #[error("the trailer counts {said} records, the file has {found}")]
    Count {
        /// By the trailer.
        said: u64,
        /// By us.
        found: u64,
    },
    /// The trailer sums otherwise.
    #[error("the trailer's sum is {said} minor units, that of the lines {found}")]
    Sum {
        /// By the trailer.
        said: i128,
        /// By us.
        found: i128,
    },
    /// A sum over several currencies is none.
    #[error("the trailer has a sum, and the lines several currencies")]
    Currencies,
    /// Not one line reads.
    #[error("none of {records} records reads by this mapping; line {line}: {column}: {reason}")]
    AllBad {
        /// Records.
        records: u64,
        /// The first.
        line: u64,
        /// Its column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a file.
pub struct Reader {
    csv: csv::Reader<Hashing>,
    record: ByteRecord,
    layout: Layout,
    zone: TimeZone,
    bank: BankId,
    file: Uuid,
    places: Places,
    hash: Arc<Watched>,
    sums: FileSums,
    signed: BTreeMap<Currency, i128>,
    first_bad: Option<BadLine>,
    trailer: Option<(Option<u64>, Option<String>)>,
}

/// Where the columns are, from 0.
struct Places {
    reference: Option<usize>,
    transaction_id: Option<usize>,
    key: Vec<usize>,
    shopper: Option<usize>,
    card: Option<usize>,
    kind: Option<usize>,
    amount: usize,
    currency: Option<usize>,
    time: usize,
    code: Option<usize>,
    merchant: Option<usize>,
    network_id: Option<usize>,
    terminal: Option<usize>,
    indicator: Option<usize>,
}

/// The bytes' hash, and a bound on how many make a record.
struct Watched {
    since_record: AtomicU64,
    hash: std::sync::Mutex<Sha256>,
}

struct Hashing {
    file: File,
    watched: Arc<Watched>,
}

/// What is wrong with a line: the column, and what.
type Wrong = (&'static str, &'static str);

/// An amount as the file signs it, and what it is.
struct Moved {
    amount: Money,
    kind: Option<LineKind>,
}

// === impl Reader ===

impl Reader {
    /// Opens a file. `id` is what its lines carry.
    ///
    /// # Errors
    /// When it cannot be opened, or its header lacks a column.
    pub fn open(
        path: &Path,
        mapping: &Mapping,
        bank: &BankId,
        id: Uuid,
    ) -> Result<Self, FileError> {
        let watched = Arc::new(Watched {
            since_record: AtomicU64::new(0),
            hash: std::sync::Mutex::new(Sha256::new()),
        });
        let layout = mapping.layout.clone();
        let delimiter = u8::try_from(layout.csv.delimiter).unwrap_or(b',');
        let mut csv = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(layout.csv.header)
            .flexible(true)
            .from_reader(Hashing {
                file: File::open(path)?,
                watched: Arc::clone(&watched),
            });
        let header = if layout.csv.header {
            Some(csv.byte_headers()?.clone())
        } else {
            None
        };
        Ok(Self {
            csv,
            record: ByteRecord::new(),
            places: Places::of(&layout, header.as_ref())?,
            layout,
            zone: mapping.zone.clone(),
            bank: bank.clone(),
            file: id,
            hash: watched,
            sums: FileSums::default(),
            signed: BTreeMap::new(),
            first_bad: None,
            trailer: None,
        })
    }

    /// The next line that is not ignored; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next_line(&mut self) -> Result<Option<ReadLine>, FileError> {
        loop {
            self.hash.since_record.store(0, Ordering::Relaxed);
            if !self.csv.read_byte_record(&mut self.record)? {
                return Ok(None);
            }
            let line = self.record.position().map_or(0, csv::Position::line);
            if self.trailer.is_some() {
                return Err(FileError::AfterTrailer(line));
            }
            let begins = self.record.get(0).unwrap_or_default().trim_ascii();
            if self
                .layout
                .csv
                .ignore
                .iter()
                .any(|word| begins == word.as_bytes())
            {
                continue;
            }
            if self.take_trailer()? {
                continue;
            }
            self.sums.last_line = line;
            self.sums.records = self.sums.records.saturating_add(1);
            if let Some(read) = self.read(line) {
                return Ok(Some(read));
            }
        }
    }

    /// What the file holds, confirmed by its trailer where it has one; to be asked at its end.
    ///
    /// # Errors
    /// When the trailer is missing or says something else, or when no line reads.
    pub fn finish(mut self) -> Result<FileSums, FileError> {
        let hash = self.hash.hash.lock();
        let hash = hash
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        self.sums.sha256 = hex(&hash.finalize());
        if let Some(trailer) = self.trailer.take() {
            self.confirm(trailer)?;
            self.sums.confirmed = true;
        } else if self.layout.trailer.is_some() {
            return Err(FileError::NoTrailer);
        }
        match self.first_bad {
            Some(bad) if self.sums.bad == self.sums.records => Err(FileError::AllBad {
                records: self.sums.records,
                line: bad.line,
                column: bad.column,
                reason: bad.reason,
            }),
            _ => Ok(self.sums),
        }
    }

    fn confirm(&self, (count, sum): (Option<u64>, Option<String>)) -> Result<(), FileError> {
        if let Some(said) = count
            && said != self.sums.records
        {
            let found = self.sums.records;
            return Err(FileError::Count { said, found });
        }
        let Some(text) = sum else {
            return Ok(());
        };
        let form = self.layout.amount.form;
        if form == AmountForm::Decimal && self.signed.len() > 1 {
            return Err(FileError::Currencies);
        }
        // In minor units it is a hash total: of the digits, whatever the currencies.
        let found = self
            .signed
            .values()
            .fold(0_i128, |sum, one| sum.saturating_add(*one));
        let currency = self.signed.keys().next().copied();
        let currency = currency.or(self.layout.amount.currency);
        let currency = currency.unwrap_or(Currency::USD);
        let said = amount(form, &text, currency)
            .map(|money| i128::from(money.minor()))
            .map_err(|_| FileError::Trailer("sum"))?;
        if said != found {
            return Err(FileError::Sum { said, found });
        }
        Ok(())
    }

    /// Whether the record is the trailer.
    fn take_trailer(&mut self) -> Result<bool, FileError> {
        let Some(trailer) = &self.layout.trailer else {
            return Ok(false);
        };
        let begins = self.record.get(0).unwrap_or_default().trim_ascii();
        if begins != trailer.begins.as_bytes() {
            return Ok(false);
        }
        let field = |place: Option<usize>, what| -> Result<Option<String>, FileError> {
            let Some(place) = place else {
                return Ok(None);
            };
            let field = self.record.get(place.saturating_sub(1));
            let field = field.ok_or(FileError::Trailer(what))?;
            let text = std::str::from_utf8(field).map_err(|_| FileError::Trailer(what))?;
            Ok(Some(text.trim().to_owned()))
        };
        let count = field(trailer.count, "count")?
            .map(|text| text.parse().map_err(|_| FileError::Trailer("count")))
            .transpose()?;
        self.trailer = Some((count, field(trailer.sum, "sum")?));
        Ok(true)
    }

    /// `None` of a record that the mapping ignores.
    fn read(&mut self, line: u64) -> Option<ReadLine> {
        let read = self.amount().and_then(|moved| {
            // The amount counts whatever else is wrong with the line: the trailer has counted it.
            let currency = moved.amount.currency();
            if self.signed.len() < CURRENCIES_MAX || self.signed.contains_key(&currency) {
                let sum = self.signed.entry(currency).or_default();
                *sum = sum.saturating_add(i128::from(moved.amount.minor()));
            }
            match moved.kind {
                None => Ok(None),
                Some(kind) => self.line(line, kind, moved.amount).map(Some),
            }
        });
        match read {
            Ok(None) => {
                self.sums.ignored = self.sums.ignored.saturating_add(1);
                None
            }
            Ok(Some(staged)) => {
                self.count(&staged.line);
                Some(ReadLine::Line(Box::new(staged)))
            }
            Err((column, reason)) => {
                self.sums.bad = self.sums.bad.saturating_add(1);
                let bad = BadLine {
                    line,
                    column: column.to_owned(),
                    reason: reason.to_owned(),
                };
                self.first_bad.get_or_insert_with(|| bad.clone());
                Some(ReadLine::Bad(bad))
            }
        }
    }

    fn count(&mut self, line: &ClearingLine) {
        let sums = &mut self.sums;
        sums.lines = sums.lines.saturating_add(1);
        let kind = sums.kinds.entry(line.kind).or_default();
        kind.count = kind.count.saturating_add(1);
        add(&mut kind.minor, line.amount);
        let at = line.at.as_millis();
        sums.first_at = Some(sums.first_at.map_or(at, |first| first.min(at)));
        sums.last_at = Some(sums.last_at.map_or(at, |last| last.max(at)));
    }

    /// The amount as the file signs it, and what it is.
    fn amount(&self) -> Result<Moved, Wrong> {
        let word = self.text("kind", self.places.kind)?;
        let kind = match word {
            None if self.places.kind.is_some() => return Err(("kind", "is empty")),
            None => Some(LineKind::Capture),
            Some(word) => self
                .layout
                .kinds
                .get(word)
                .ok_or(("kind", "is a word that the mapping does not know"))?
                .line(),
        };
        let currency = match self.text("currency", self.places.currency)? {
            None => self
                .layout
                .amount
                .currency
                .ok_or(("currency", "is empty"))?,
            Some(text) => Currency::of_number(text)
                .or_else(|| text.parse().ok())
                .ok_or(("currency", "is none"))?,
        };
        let text = self.text("amount", Some(self.places.amount))?;
        let text = text.ok_or(("amount", "is empty"))?;
        let amount = amount(self.layout.amount.form, text, currency)?;
        Ok(Moved { amount, kind })
    }

    /// What a sign or an indicator makes of a charge.
    fn direction(&self, kind: LineKind, amount: Money) -> Result<LineKind, Wrong> {
        if amount.minor() < 0 && self.layout.amount.sign == Sign::None {
            return Err(("amount", "is negative"));
        }
        if kind != LineKind::Capture {
            return Ok(kind);
        }
        let back = match (&self.layout.amount.indicator, self.layout.amount.sign) {
            (Some(indicator), _) => {
                let word = self.text("indicator", self.places.indicator)?;
                let word = word.ok_or(("indicator", "is empty"))?;
                if word == indicator.refund {
                    true
                } else if word == indicator.charge {
                    false
                } else {
                    return Err(("indicator", "is a word that the mapping does not know"));
                }
            }
            (None, Sign::NegativeIsRefund) => amount.minor() < 0,
            (None, Sign::NegativeIsCharge) => amount.minor() > 0,
            (None, Sign::None) => false,
        };
        Ok(if back { LineKind::Refund } else { kind })
    }

    fn line(&self, line: u64, kind: LineKind, amount: Money) -> Result<StagedLine, Wrong> {
        let kind = self.direction(kind, amount)?;
        let minor = amount
            .minor()
            .checked_abs()
            .ok_or(("amount", "is too large"))?;
        let (transaction_id, named_by) = self.payment()?;
        let shopper = match self.text("shopper", self.places.shopper)? {
            None => None,
            Some(text) => Some(
                text.parse::<ShopperId>()
                    .map_err(|_| ("shopper", "is not a number of ours"))?,
            ),
        };
        let reference = self.text("reference", self.places.reference)?.map(|text| {
            record_id(
                "clearing reference",
                &[self.bank.as_str().as_bytes(), text.as_bytes()],
            )
        });
        let line = ClearingLine {
            file: self.file,
            line,
            reference,
            kind,
            transaction_id,
            named_by,
            shopper,
            code: self.short("code", self.places.code)?,
            merchant: self.merchant()?,
            network_id: self.short("network_id", self.places.network_id)?,
            terminal: self.short("terminal", self.places.terminal)?,
            amount: Money::from_minor(minor, amount.currency()),
            at: self.time()?,
        };
        let card = self.card()?;
        Ok(StagedLine { line, card })
    }

    fn payment(&self) -> Result<(Option<TransactionId>, Option<NamedBy>), Wrong> {
        if let Some(text) = self.text("transaction_id", self.places.transaction_id)? {
            let digits: String = text.chars().filter(|letter| *letter != '-').collect();
            let id = digits.parse().map_err(|_| ("transaction_id", "is none"))?;
            return Ok((Some(id), Some(NamedBy::Id)));
        }
        let mut key = String::new();
        for (number, place) in self.places.key.iter().enumerate() {
            let Some(text) = self.text("key", Some(*place))? else {
                return Ok((None, None));
            };
            if number > 0 {
                key.push('|');
            }
            key.push_str(text);
        }
        if key.is_empty() {
            return Ok((None, None));
        }
        let id = of_key(&self.bank, Operation::Authorize, &key);
        Ok((Some(id), Some(NamedBy::Key)))
    }

    fn card(&self) -> Result<Option<Card>, Wrong> {
        let Some(token) = self.text("card", self.places.card)? else {
            return Ok(None);
        };
        if holds_card_number(token) {
            return Err(("card", "holds a card number where a token should be"));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(("card", "is too long"));
        }
        Ok(Some(Card {
            bank: self.bank.clone(),
            token: token.to_owned(),
        }))
    }

    fn merchant(&self) -> Result<Option<String>, Wrong> {
        let Some(text) = self.text("merchant", self.places.merchant)? else {
            return Ok(None);
        };
        if text.len() > MERCHANT_TEXT_BYTES_MAX {
            return Err(("merchant", "is too long"));
        }
        if holds_card_number(text) {
            return Err(("merchant", "holds a card number"));
        }
        Ok(Some(text.to_owned()))
    }

    fn short(&self, column: &'static str, place: Option<usize>) -> Result<Option<String>, Wrong> {
        match self.text(column, place)? {
            Some(text) if text.len() > TOKEN_BYTES_MAX => Err((column, "is too long")),
            text => Ok(text.map(str::to_owned)),
        }
    }

    fn time(&self) -> Result<Timestamp, Wrong> {
        let text = self.text("time", Some(self.places.time))?;
        let text = text.ok_or(("time", "is empty"))?;
        let form = self.layout.time.form.as_str();
        let time = if form == "rfc3339" {
            text.parse::<jiff::Timestamp>().ok()
        } else {
            in_zone(form, text, &self.zone)
        };
        let time = time.ok_or(("time", "does not read"))?;
        Ok(Timestamp::from_millis(time.as_millisecond()))
    }

    /// A field without the spaces around it; `None` of an empty one, or of a column that is not mapped.
    fn text(&self, column: &'static str, place: Option<usize>) -> Result<Option<&str>, Wrong> {
        let Some(place) = place else {
            return Ok(None);
        };
        let field = self.record.get(place).ok_or((column, "is not there"))?;
        let text = std::str::from_utf8(field).map_err(|_| (column, "is not UTF-8"))?;
        let text = text.trim();
        if text.contains('\0') {
            return Err((column, "has a zero byte"));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

// === impl Places ===

impl Places {
    fn of(layout: &Layout, header: Option<&ByteRecord>) -> Result<Self, FileError> {
        let place = |column: &Column| match column {
            Column::Place(place) => Ok(place.saturating_sub(1)),
            Column::Name(name) => header
                .and_then(|header| {
                    let mut names = header.iter();
                    names.position(|field| field.trim_ascii() == name.as_bytes())
                })
                .ok_or_else(|| FileError::NoColumn(name.clone())),
        };
        let maybe = |column: &Option<Column>| column.as_ref().map(place).transpose();
        let columns = &layout.columns;
        let indicator = layout.amount.indicator.as_ref();
        Ok(Self {
            reference: maybe(&columns.reference)?,
            transaction_id: maybe(&columns.transaction_id)?,
            key: columns.key.iter().map(place).collect::<Result<_, _>>()?,
            shopper: maybe(&columns.shopper)?,
            card: maybe(&columns.card)?,
            kind: maybe(&columns.kind)?,
            amount: place(&columns.amount)?,
            currency: maybe(&columns.currency)?,
            time: place(&columns.time)?,
            code: maybe(&columns.code)?,
            merchant: maybe(&columns.merchant)?,
            network_id: maybe(&columns.network_id)?,
            terminal: maybe(&columns.terminal)?,
            indicator: indicator.map(|one| place(&one.column)).transpose()?,
        })
    }
}

// === impl Hashing ===

impl Read for Hashing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        let count = u64::try_from(read).unwrap_or(u64::MAX);
        let since = self
            .watched
            .since_record
            .fetch_add(count, Ordering::Relaxed);
        if since > LINE_BYTES_MAX {
            let what = format!("a line is longer than {LINE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let hash = self.watched.hash.lock();
        let mut hash = hash.unwrap_or_else(std::sync::PoisonError::into_inner);
        hash.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A time by a pattern, in the zone unless it names an offset; a date alone is its midnight.
fn in_zone(form: &str, text: &str, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let parsed = jiff::fmt::strtime::parse(form, text).ok()?;
    if let Ok(time) = parsed.to_timestamp() {
        return Some(time);
    }
    let civil = match parsed.to_datetime() {
        Ok(civil) => civil,
        Err(_) => parsed
            .to_date()
            .ok()?
            .to_datetime(jiff::civil::Time::midnight()),
    };
    zone.to_ambiguous_timestamp(civil).compatible().ok()
}

fn amount(form: AmountForm, text: &str, currency: Currency) -> Result<Money, Wrong> {
    let text = text.strip_prefix('+').unwrap_or(text);
    match form {
        AmountForm::Decimal => {
            Money::parse(text, currency).map_err(|_| ("amount", "does not read"))
        }
        AmountForm::Minor => text
            .parse()
            .map(|minor| Money::from_minor(minor, currency))
            .map_err(|_| ("amount", "does not read")),
    }
}
