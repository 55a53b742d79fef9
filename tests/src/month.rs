//! A made-up month of card payments: a ledger and a bank's clearing file that agree, but for so many
//! planted discrepancies of every sort, each known beforehand.
//!
//! Every shopper has a story of one or two payments. Chance only says who has which: the same seed and
//! size give the same month.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use jiff::tz::TimeZone;
use standin_core::id::{BankId, TransactionId};
use standin_core::identity::{Operation, of_key};
use standin_reconcile::clearing::kind::DiscrepancyKind;
use uuid::Uuid;

pub use tables::Tables;

/// The mapping that reads the file.
pub const MAPPING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/clearing/processor-like.toml"
);
/// Ages are counted up to here: every clearing that has not come is late.
pub const AS_OF: &str = "2026-12-20T06:00:00Z";
/// The bank.
pub const BANK: &str = "acme";
/// Stores.
const STORES: u64 = 50;
/// Millisecond at which the month begins in Chicago.
const BEGIN_MS: i64 = 1_793_509_200_000;
const HOUR_MS: i64 = 3_600_000;
/// Orphan lines name shoppers nobody knows, or none.
const STRANGER: u64 = 900_000_000;

/// What happens to a shopper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Story {
    /// Approved and charged alike.
    Plain,
    /// Charged 30 minor units more: a tip.
    Tipped,
    /// Charged in two parts.
    Split,
    /// Declined.
    Declined,
    /// Charged by a line without a key.
    Near,
    /// One of these.
    Planted(DiscrepancyKind),
    /// The same, of a payment that nobody knows.
    Orphan(DiscrepancyKind),
}

/// What was planted, and what a report of it must say.
#[derive(Clone, Default, Debug)]
pub struct Expected {
    /// Discrepancies, by sort: payment, or line where there is none.
    pub found: BTreeMap<DiscrepancyKind, BTreeSet<String>>,
    /// Lines of the file.
    pub lines: u64,
    /// Of them bad, by number.
    pub bad: BTreeSet<u64>,
    /// Payments in the ledger.
    pub payments: u64,
}

/// Makes a month.
pub struct Month {
    bank: BankId,
    zone: TimeZone,
    stories: HashMap<u64, Story>,
    lines_wanted: u64,
    file: std::io::BufWriter<std::fs::File>,
    tables: Tables,
    expected: Expected,
    /// Number of the next line of the file.
    next_line: u64,
    /// Sum of all amounts, as the trailer has it.
    sum: i64,
}

/// A payment of the ledger.
#[derive(Clone)]
struct Payment {
    shopper: u64,
    trip: Uuid,
    id: TransactionId,
    key: [String; 5],
    code: String,
    at: i64,
    amount: i64,
    store: u64,
}

/// How a payment stands in the ledger.
struct Booked<'a> {
    state: &'a str,
    verdict: &'a str,
    reversed: i64,
    cap: i64,
    rung: &'a str,
}

/// A line of the file.
struct Line<'a> {
    sort: &'static str,
    key: Option<&'a [String; 5]>,
    reference: String,
    amount: i64,
    currency: &'static str,
    at: i64,
    code: &'a str,
    shopper: Option<u64>,
    store: u64,
}

/// How many shoppers of each planted sort a month of so many lines has: each sort its own number.
fn planted(lines: u64) -> Vec<(Story, u64)> {
    let base = (lines / 20_000).clamp(1, 40);
    let kinds = DiscrepancyKind::ALL.iter().copied();
    let mut all: Vec<(Story, u64)> = kinds
        .zip(3..)
        .map(|(kind, more)| {
            let only_orphans = matches!(
                kind,
                DiscrepancyKind::MissingAtUs | DiscrepancyKind::ForcePost
            );
            let story = if only_orphans {
                Story::Orphan(kind)
            } else {
                Story::Planted(kind)
            };
            (story, base + more)
        })
        .collect();
    for kind in [
        DiscrepancyKind::RefundUnmatched,
        DiscrepancyKind::ReversalUnmatched,
        DiscrepancyKind::RepeatedLine,
    ] {
        all.push((Story::Orphan(kind), base + 2));
    }
    // A charge that names a payment nobody knows, of a shopper whom the ledger knows.
    all.push((Story::Planted(DiscrepancyKind::MissingAtUs), base + 4));
    all
}

// === impl Month ===

impl Month {
    /// Writes a month of so many lines: `clearing.csv` and one file a table, to be copied into the
    /// ledger, in a folder.
    pub fn write(folder: &Path, lines: u64, seed: u64) -> (Expected, Tables) {
        let file = std::fs::File::create(folder.join("clearing.csv")).unwrap();
        let mut month = Self {
            bank: BANK.parse().unwrap(),
            zone: TimeZone::get("America/Chicago").unwrap(),
            stories: stories(lines, seed),
            lines_wanted: lines,
            file: std::io::BufWriter::new(file),
            tables: Tables::create(folder),
            expected: Expected::default(),
            next_line: 1,
            sum: 0,
        };
        month.tables.stores(STORES);
        month.put("HDR;ACME PROCESSING;20261201");
        let mut shopper = 0;
        while month.expected.lines < month.lines_wanted {
            shopper += 1;
            month.tell(shopper);
        }
        let trailer = format!("TRL;{};{}", month.expected.lines, month.sum);
        month.put(&trailer);
        month.file.flush().unwrap();
        month.tables.flush();
        (month.expected, month.tables)
    }

    /// One shopper's story.
    fn tell(&mut self, shopper: u64) {
        let everyday = match shopper % 100 {
            3 | 13 | 23 => Story::Tipped,
            37 => Story::Split,
            50 | 54 => Story::Declined,
            61 => Story::Near,
            _ => Story::Plain,
        };
        let story = self.stories.get(&shopper).copied().unwrap_or(everyday);
        let payment = self.payment(shopper, 0);
        match story {
            Story::Plain => self.approve_and_charge(&payment, payment.amount),
            Story::Tipped => self.approve_and_charge(&payment, payment.amount + 30),
            Story::Split => {
                self.approve(&payment);
                let first = payment.amount / 3;
                self.charge(&payment, first, 20);
                self.charge(&payment, payment.amount - first, 44);
            }
            Story::Declined => self.row(&payment, "final", "declined", 0),
            Story::Near => {
                self.approve(&payment);
                self.line(&Line {
                    key: None,
                    ..line_of(&payment, payment.amount + 20, 20)
                });
            }
            Story::Planted(kind) => self.plant(kind, &payment),
            Story::Orphan(kind) => self.orphan(kind, shopper),
        }
        if shopper.is_multiple_of(9_973) || shopper == 77 {
            self.bad_line(&payment, shopper);
        }
    }

    fn plant(&mut self, kind: DiscrepancyKind, payment: &Payment) {
        use DiscrepancyKind as K;
        let amount = payment.amount;
        match kind {
            K::ClearedDeclined => {
                self.row(payment, "final", "declined", 0);
                self.charge(payment, amount, 20);
            }
            K::ClearedUnanswered => {
                self.row(payment, "released", "approved", 0);
                self.charge(payment, amount, 20);
            }
            K::ClearedAfterReversal => {
                self.row(payment, "reversed", "approved", amount);
                self.charge(payment, amount, 20);
            }
            K::Conflicted => {
                self.approve_and_charge(payment, amount);
                self.tables.conflict(payment.id);
            }
            K::DuplicateClearing => {
                self.approve_and_charge(payment, amount);
                self.charge(payment, amount, 30);
            }
            K::OverCapture => self.approve_and_charge(payment, amount + amount / 2),
            K::UnderCapture => self.approve_and_charge(payment, amount / 2),
            K::LateClearing => {
                self.approve(payment);
                self.charge(payment, amount, 24 * 9);
            }
            K::NoClearing => self.approve(payment),
            _ => return self.plant_more(kind, payment),
        }
        self.expect(kind, &payment.id.to_string());
    }

    fn plant_more(&mut self, kind: DiscrepancyKind, payment: &Payment) {
        use DiscrepancyKind as K;
        let amount = payment.amount;
        match kind {
            K::CurrencyMismatch => {
                self.approve(payment);
                self.line(&Line {
                    currency: "978",
                    ..line_of(payment, amount, 20)
                });
            }
            K::ShopperMismatch => {
                self.approve(payment);
                self.line(&Line {
                    shopper: Some(STRANGER + payment.shopper),
                    ..line_of(payment, amount, 20)
                });
            }
            K::BankDisagrees => {
                self.approve_and_charge(payment, amount);
                self.tables
                    .settlement(payment.id, payment.shopper, amount - 100, payment.at);
            }
            K::RefundUnmatched => {
                self.approve_and_charge(payment, amount);
                self.line(&Line {
                    sort: "06",
                    reference: format!("r-{}-back", payment.id),
                    ..line_of(payment, amount + 500, 50)
                });
            }
            K::ReversalUnmatched | K::MissingAtBank => {
                self.approve(payment);
                let sort = if kind == K::MissingAtBank { "99" } else { "25" };
                self.line(&Line {
                    sort,
                    ..line_of(payment, amount, 2)
                });
            }
            _ => return self.plant_trips(kind, payment),
        }
        self.expect(kind, &payment.id.to_string());
    }

    fn plant_trips(&mut self, kind: DiscrepancyKind, payment: &Payment) {
        use DiscrepancyKind as K;
        let amount = payment.amount;
        match kind {
            K::OverCap => {
                self.tables
                    .authorization(payment, &Booked::approved(amount - 300, "isolated"));
                self.tables.trip(payment, amount);
                self.charge(payment, amount, 20);
            }
            K::OverReceipt | K::UnderReceipt => {
                let picked = if kind == K::OverReceipt {
                    amount / 2
                } else {
                    amount * 2
                };
                self.tables
                    .authorization(payment, &Booked::approved(amount, "primary"));
                self.tables.trip(payment, picked);
                self.charge(payment, amount, 20);
            }
            K::DuplicateApproval => {
                let mut twin = self.payment(payment.shopper, 1);
                (twin.trip, twin.at) = (payment.trip, payment.at + 45_000);
                for one in [payment, &twin] {
                    self.tables
                        .authorization(one, &Booked::approved(amount * 2, "primary"));
                    self.charge(one, amount, 20);
                }
                self.tables.trip(payment, amount * 2);
                // Of the two the later is the one too many.
                return self.expect(kind, &twin.id.to_string());
            }
            K::Ambiguous => return self.plant_ambiguous(payment),
            K::RepeatedLine => {
                self.approve_and_charge(payment, amount);
                let again = self.charge(payment, amount, 20);
                return self.expect(kind, &again.to_string());
            }
            K::MissingAtUs => {
                self.approve_and_charge(payment, amount);
                let stranger = self.payment(payment.shopper, 7);
                let line = self.charge(&stranger, amount, 21);
                return self.expect(kind, &line.to_string());
            }
            other => panic!("{other:?} is not planted"),
        }
        self.expect(kind, &payment.id.to_string());
    }

    /// Two payments of one amount at one store, and a charge that may be either's.
    fn plant_ambiguous(&mut self, payment: &Payment) {
        let mut other = self.payment(payment.shopper, 1);
        other.at = payment.at + 2 * HOUR_MS;
        for one in [payment, &other] {
            self.approve(one);
            self.expect(DiscrepancyKind::NoClearing, &one.id.to_string());
        }
        let line = self.line(&Line {
            key: None,
            code: "",
            ..line_of(payment, payment.amount, 20)
        });
        self.expect(DiscrepancyKind::Ambiguous, &line.to_string());
    }

    /// Lines of a payment that nobody knows.
    fn orphan(&mut self, kind: DiscrepancyKind, shopper: u64) {
        use DiscrepancyKind as K;
        let payment = self.payment(shopper, 9);
        let sort = match kind {
            K::RefundUnmatched => "06",
            K::ReversalUnmatched => "25",
            K::ForcePost => "35",
            _ => "05",
        };
        let one = |shopper| Line {
            sort,
            shopper,
            ..line_of(&payment, payment.amount, 20)
        };
        let named = shopper.is_multiple_of(2).then_some(STRANGER + shopper);
        let line = self.line(&one(named));
        if kind == K::RepeatedLine {
            self.expect(K::MissingAtUs, &line.to_string());
            let again = self.line(&one(named));
            return self.expect(kind, &again.to_string());
        }
        self.expect(kind, &line.to_string());
    }

    fn approve_and_charge(&mut self, payment: &Payment, charged: i64) {
        self.approve(payment);
        self.charge(payment, charged, 20);
    }

    fn approve(&mut self, payment: &Payment) {
        self.row(payment, "final", "approved", 0);
    }

    fn row(&mut self, payment: &Payment, state: &str, verdict: &str, reversed: i64) {
        let rung = if payment.shopper.is_multiple_of(20) {
            "stand_in"
        } else {
            "primary"
        };
        let cap = payment.amount + 1_000;
        let booked = Booked {
            state,
            verdict,
            reversed,
            cap,
            rung,
        };
        self.tables.authorization(payment, &booked);
        self.tables.trip(payment, payment.amount);
        self.expected.payments = self.tables.payments();
    }

    /// A charge so many hours after the payment; gives its line's number.
    fn charge(&mut self, payment: &Payment, amount: i64, hours: i64) -> u64 {
        self.line(&line_of(payment, amount, hours))
    }

    fn payment(&self, shopper: u64, number: u64) -> Payment {
        let signed = i64::try_from(shopper).unwrap();
        let at = BEGIN_MS + HOUR_MS + signed * 7_919 % (27 * 24 * 3_600) * 1_000;
        let key = [
            "123456".to_owned(),
            format!("{:06}", (shopper * 10 + number) % 1_000_000),
            self.local(at, "%m%d%H%M%S"),
            format!("T{:07}", shopper % 10_000_000),
            store_id(1 + shopper % STORES),
        ];
        let id = of_key(&self.bank, Operation::Authorize, &key.join("|"));
        let base = u128::from(shopper) << 64;
        Payment {
            shopper,
            trip: Uuid::from_u128(base | u128::from(number)),
            id,
            code: code_of(shopper * 16 + number),
            key,
            at,
            amount: 2_000 + signed * 37 % 9_000,
            store: 1 + shopper % STORES,
        }
    }

    fn local(&self, at: i64, form: &str) -> String {
        let time = jiff::Timestamp::from_millisecond(at).unwrap();
        let zoned = time.to_zoned(self.zone.clone());
        zoned.strftime(form).to_string()
    }

    fn line(&mut self, line: &Line<'_>) -> u64 {
        let mut text = format!("DTL;{};", line.reference);
        match line.key {
            Some(key) => write!(text, "{}", key.join(";")).unwrap(),
            None => write!(text, ";;;;{}", store_id(line.store)).unwrap(),
        }
        let shopper = line.shopper.map(|id| id.to_string()).unwrap_or_default();
        let mark = if line.sort == "06" { "C" } else { "D" };
        let at = self.local(line.at, "%Y%m%d%H%M%S");
        write!(
            text,
            ";STORE {:03};{:012};{};{mark};{};{at};{};{shopper}",
            line.store, line.amount, line.currency, line.sort, line.code
        )
        .unwrap();
        self.sum += line.amount;
        self.expected.lines += 1;
        self.put(&text)
    }

    /// A line that does not read; its amount does, and the trailer counts it.
    fn bad_line(&mut self, payment: &Payment, number: u64) {
        let broken = Line {
            currency: "840",
            sort: if number == 77 { "77" } else { "05" },
            ..line_of(payment, 100, 20)
        };
        let mut text = format!("DTL;bad-{number};{}", broken.key.unwrap().join(";"));
        write!(text, ";X;100;840;D;{};2026-13-45;;", broken.sort).unwrap();
        // An unknown word hides the amount from us, so that the trailer must not count it.
        if number == 77 {
            text = text.replace(";100;840", ";0;840");
        } else {
            self.sum += 100;
        }
        self.expected.lines += 1;
        let line = self.put(&text);
        self.expected.bad.insert(line);
    }

    fn put(&mut self, text: &str) -> u64 {
        writeln!(self.file, "{text}").unwrap();
        self.next_line += 1;
        self.next_line - 1
    }

    fn expect(&mut self, kind: DiscrepancyKind, what: &str) {
        let planted = self.expected.found.entry(kind).or_default();
        assert!(planted.insert(what.to_owned()), "{kind:?} {what} twice");
    }
}

// === impl Booked ===

impl<'a> Booked<'a> {
    fn approved(cap: i64, rung: &'a str) -> Self {
        Self {
            state: "final",
            verdict: "approved",
            reversed: 0,
            cap,
            rung,
        }
    }
}

/// A charge of a payment, so many hours later.
fn line_of(payment: &Payment, amount: i64, hours: i64) -> Line<'_> {
    Line {
        sort: "05",
        key: Some(&payment.key),
        reference: format!("r-{}-{hours}-{amount}", payment.id),
        amount,
        currency: "840",
        at: payment.at + hours * HOUR_MS,
        code: &payment.code,
        shopper: Some(payment.shopper),
        store: payment.store,
    }
}

/// Who has which planted story.
fn stories(lines: u64, seed: u64) -> HashMap<u64, Story> {
    let mut state = seed;
    let mut next = move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut stories = HashMap::new();
    for (story, count) in planted(lines) {
        let mut left = count;
        while left > 0 {
            let shopper = 100 + next() % (lines * 3 / 4);
            if let std::collections::hash_map::Entry::Vacant(place) = stories.entry(shopper) {
                place.insert(story);
                left -= 1;
            }
        }
    }
    stories
}

/// A merchant id of 15 characters that no card number is.
fn store_id(store: u64) -> String {
    format!("MERCHANT{store:07}")
}

/// Six characters of the code's alphabet.
fn code_of(number: u64) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let letter = |at: u32| {
        let place = usize::try_from((number >> (5 * at)) & 31).unwrap();
        char::from(LETTERS[place])
    };
    (0..6).map(letter).collect()
}
