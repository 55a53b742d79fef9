//! Counts and sums of a settlement report: each breakdown adds up to the whole, and says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use standin_core::clock::Timestamp;
use standin_core::id::ShopperId;
use standin_core::ledger::clearing::{CaseState, LineKind};
use standin_core::money::Money;

use super::file::{FileSums, KindSum};
use super::kind::{Age, DiscrepancyKind};
use super::matching::{Discrepancy, Outcome, Standing};
use crate::totals::{Sums, add};

/// Most stores, logs and shoppers that are named; the others are summed.
pub const NAMED_MAX: usize = 20;
/// Most stores and logs that are told apart while counting; further ones are counted together.
const KEYS_MAX: usize = 100_000;
/// The name of what is past a bound.
const OTHERS: &str = "others";

/// Counts and sums of everything a report covers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// Payments by where they stand; a discrepancy's word stands for its payments.
    pub payments: BTreeMap<String, PaymentSum>,
    /// Lines by how they found their payment, or by what is wrong with them.
    pub lines: BTreeMap<String, KindSum>,
    /// Lines by what happened: as the file says, if it adds up.
    pub line_kinds: BTreeMap<LineKind, KindSum>,
    /// Discrepancies by sort.
    pub kinds: BTreeMap<DiscrepancyKind, FoundSum>,
    /// Unsettled ones by age.
    pub ageing: BTreeMap<Age, KindSum>,
    /// Money at stake in unsettled ones.
    pub exposure: Exposure,
}

/// Payments in one state.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PaymentSum {
    /// How many.
    pub count: u64,
    /// Approved less reversed.
    pub authorized_minor: Sums,
    /// Charged less refunded.
    pub cleared_minor: Sums,
}

/// Discrepancies of one sort.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FoundSum {
    /// All of them.
    pub all: KindSum,
    /// Those nobody has settled.
    pub unsettled: KindSum,
    /// Those given up.
    pub written_off: KindSum,
}

/// Money at stake in discrepancies that nobody has settled, by whom and where.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Exposure {
    /// All of it.
    pub all: KindSum,
    /// By how the payment was answered; `none` where the ledger has no payment.
    pub by_rung: BTreeMap<String, KindSum>,
    /// By store, the most first.
    pub by_store: Vec<Named>,
    /// By the log that the answer came from, the most first.
    pub by_log: Vec<Named>,
    /// By shopper, the most first.
    pub by_shopper: Vec<Named>,
}

/// One store, log or shopper.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Named {
    /// Which.
    pub name: String,
    /// How much.
    pub sum: KindSum,
}

/// Counts as a scan goes on.
#[derive(Default)]
pub struct Counting {
    tally: Tally,
    stores: BTreeMap<String, KindSum>,
    logs: BTreeMap<String, KindSum>,
    shoppers: Vec<Named>,
    /// Shoppers past those named.
    shopper_others: KindSum,
    /// The shopper being counted: a scan goes shopper by shopper.
    shopper: Option<(Option<ShopperId>, KindSum)>,
}

// === impl KindSum ===

impl KindSum {
    /// Counts one.
    pub fn add(&mut self, amount: Money) {
        self.count = self.count.saturating_add(1);
        add(&mut self.minor, amount);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        for (currency, minor) in &other.minor {
            let sum = self.minor.entry(*currency).or_default();
            *sum = sum.saturating_add(*minor);
        }
    }

    /// For putting the most first; of several currencies a rough measure.
    fn weight(&self) -> i128 {
        self.minor
            .values()
            .fold(0, |sum, minor| sum.saturating_add(*minor))
    }
}

// === impl Counting ===

impl Counting {
    /// Counts a group's payments and lines.
    pub fn outcome(&mut self, outcome: &Outcome) {
        for payment in &outcome.payments {
            let word = match payment.standing {
                Standing::Fits(state) => state.as_str(),
                Standing::Off(kind) => kind.as_str(),
            };
            let sum = self.tally.payments.entry(word.to_owned()).or_default();
            sum.count = sum.count.saturating_add(1);
            add(&mut sum.authorized_minor, payment.authorized);
            add(&mut sum.cleared_minor, payment.cleared);
        }
        for line in &outcome.lines {
            let word = match line.standing {
                Standing::Fits(state) => state.as_str(),
                Standing::Off(kind) => kind.as_str(),
            };
            self.tally
                .lines
                .entry(word.to_owned())
                .or_default()
                .add(line.amount);
            self.tally
                .line_kinds
                .entry(line.kind)
                .or_default()
                .add(line.amount);
        }
    }

    /// Counts a discrepancy, as its case stands.
    pub fn found(&mut self, found: &Discrepancy, state: CaseState, as_of: Timestamp) {
        let amount = found.at_stake;
        let sum = self.tally.kinds.entry(found.kind).or_default();
        sum.all.add(amount);
        if state == CaseState::WrittenOff {
            sum.written_off.add(amount);
        }
        if state.is_settled() {
            return;
        }
        sum.unsettled.add(amount);
        let age = Age::of(found.at, as_of);
        self.tally.ageing.entry(age).or_default().add(amount);
        let row = found.row.as_ref();
        let exposure = &mut self.tally.exposure;
        exposure.all.add(amount);
        let none = || "none".to_owned();
        let rung = row.map_or_else(none, |row| row.answer.rung.to_string());
        exposure.by_rung.entry(rung).or_default().add(amount);
        let store = row.and_then(|row| row.store);
        count(
            &mut self.stores,
            store.map_or_else(none, |id| id.to_string()),
            amount,
        );
        let log = row.and_then(|row| row.log);
        count(
            &mut self.logs,
            log.map_or_else(none, |(log, _)| log.to_string()),
            amount,
        );
        self.shopper(found.shopper, amount);
    }

    fn shopper(&mut self, shopper: Option<ShopperId>, amount: Money) {
        match &mut self.shopper {
            Some((current, sum)) if *current == shopper => sum.add(amount),
            _ => {
                self.end_shopper();
                let mut sum = KindSum::default();
                sum.add(amount);
                self.shopper = Some((shopper, sum));
            }
        }
    }

    fn end_shopper(&mut self) {
        let Some((shopper, sum)) = self.shopper.take() else {
            return;
        };
        let name = shopper.map_or_else(|| "none".to_owned(), |id| id.to_string());
        if let Some(known) = self.shoppers.iter_mut().find(|known| known.name == name) {
            known.sum.merge(&sum);
        } else {
            self.shoppers.push(Named { name, sum });
        }
        if self.shoppers.len() > NAMED_MAX {
            most_first(&mut self.shoppers);
            for left in self.shoppers.split_off(NAMED_MAX) {
                self.shopper_others.merge(&left.sum);
            }
        }
    }

    /// Everything counted.
    pub fn finish(mut self) -> Tally {
        self.end_shopper();
        most_first(&mut self.shoppers);
        if self.shopper_others.count > 0 {
            self.shoppers.push(Named {
                name: OTHERS.to_owned(),
                sum: self.shopper_others,
            });
        }
        let exposure = &mut self.tally.exposure;
        exposure.by_store = named(self.stores);
        exposure.by_log = named(self.logs);
        exposure.by_shopper = self.shoppers;
        self.tally
    }
}

// === impl Tally ===

impl Tally {
    /// What does not add up, in words; empty when everything does.
    pub fn broken(&self, file: &FileSums) -> Vec<String> {
        let mut broken = Vec::new();
        let lines = sum(self.lines.values());
        if lines.count != file.lines {
            broken.push(format!(
                "the file has {} lines, {} of them were accounted for",
                file.lines, lines.count
            ));
        }
        if self.line_kinds != file.kinds {
            broken.push("lines by what happened are not those of the file".to_owned());
        }
        let records = file
            .lines
            .saturating_add(file.ignored)
            .saturating_add(file.bad);
        if records != file.records {
            broken.push("records are not lines, ignored and bad ones together".to_owned());
        }
        let exposure = &self.exposure;
        let unsettled = sum(self.kinds.values().map(|kind| &kind.unsettled));
        for (name, part) in [
            ("age", sum(self.ageing.values())),
            ("sort", unsettled),
            ("rung", sum(exposure.by_rung.values())),
            ("store", sum(exposure.by_store.iter().map(|one| &one.sum))),
            ("log", sum(exposure.by_log.iter().map(|one| &one.sum))),
            (
                "shopper",
                sum(exposure.by_shopper.iter().map(|one| &one.sum)),
            ),
        ] {
            if part != exposure.all {
                broken.push(format!("exposure by {name} is not the whole"));
            }
        }
        broken
    }

    /// All payments.
    pub fn all_payments(&self) -> u64 {
        let counts = self.payments.values().map(|sum| sum.count);
        counts.fold(0, u64::saturating_add)
    }

    /// Discrepancies that nobody has settled.
    pub fn unsettled(&self) -> u64 {
        self.exposure.all.count
    }

    /// All discrepancies.
    pub fn discrepancies(&self) -> u64 {
        let counts = self.kinds.values().map(|sum| sum.all.count);
        counts.fold(0, u64::saturating_add)
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a KindSum>) -> KindSum {
    let mut sum = KindSum::default();
    parts.for_each(|part| sum.merge(part));
    sum
}

fn count(into: &mut BTreeMap<String, KindSum>, name: String, amount: Money) {
    let name = if into.len() < KEYS_MAX || into.contains_key(&name) {
        name
    } else {
        OTHERS.to_owned()
    };
    into.entry(name).or_default().add(amount);
}

fn most_first(all: &mut [Named]) {
    all.sort_by(|one, other| {
        let weight = other.sum.weight().cmp(&one.sum.weight());
        weight.then_with(|| one.name.cmp(&other.name))
    });
}

fn named(all: BTreeMap<String, KindSum>) -> Vec<Named> {
    let mut all: Vec<Named> = all
        .into_iter()
        .map(|(name, sum)| Named { name, sum })
        .collect();
    most_first(&mut all);
    if all.len() > NAMED_MAX {
        let mut others = KindSum::default();
        for left in all.split_off(NAMED_MAX) {
            others.merge(&left.sum);
        }
        all.push(Named {
            name: OTHERS.to_owned(),
            sum: others,
        });
    }
    all
}
