//! Counts and sums of answers, by rung, reason and bank. Each breakdown adds up to the whole, and a
//! reader of a report can check that it does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use standin_core::answer::{Answer, Reason, Rung, Verdict};
use standin_core::id::BankId;
use standin_core::ledger::{AuthorizationRow, AuthorizationState};
use standin_core::money::{Currency, Money};

/// Sums by currency, minor units. Wider than an amount, so that no sum of 64-bit amounts overflows.
pub type Sums = BTreeMap<Currency, i128>;

/// Counts and sums of some answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// Approvals.
    pub approved: u64,
    /// Declines.
    pub declined: u64,
    /// Money approved, minor units by currency.
    pub approved_minor: Sums,
    /// Money declined, minor units by currency.
    pub declined_minor: Sums,
}

/// Counts and sums of all answers, and three ways to break them down.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// All of them.
    pub all: Line,
    /// By how they were reached.
    pub by_rung: BTreeMap<Rung, Line>,
    /// By why.
    pub by_reason: BTreeMap<Reason, Line>,
    /// By who asked.
    pub by_bank: BTreeMap<BankId, Line>,
}

// === impl Line ===

impl Line {
    /// Counts one answer.
    pub fn add(&mut self, verdict: Verdict, amount: Money) {
        let (count, sums) = match verdict {
            Verdict::Approved => (&mut self.approved, &mut self.approved_minor),
            Verdict::Declined => (&mut self.declined, &mut self.declined_minor),
        };
        *count = count.saturating_add(1);
        add(sums, amount);
    }

    /// Adds another line to this one.
    pub fn merge(&mut self, other: &Self) {
        self.approved = self.approved.saturating_add(other.approved);
        self.declined = self.declined.saturating_add(other.declined);
        for (into, from) in [
            (&mut self.approved_minor, &other.approved_minor),
            (&mut self.declined_minor, &other.declined_minor),
        ] {
            for (currency, minor) in from {
                let sum = into.entry(*currency).or_default();
                *sum = sum.saturating_add(*minor);
            }
        }
    }

    /// Answers counted.
    pub fn count(&self) -> u64 {
        self.approved.saturating_add(self.declined)
    }
}

// === impl Totals ===

impl Totals {
    /// Of the ledger's final answers; holds and released holds are not answers.
    pub fn of_rows<'a>(rows: impl IntoIterator<Item = &'a AuthorizationRow>) -> Self {
        Self::of_answers(
            rows.into_iter()
                .filter(|row| is_final(row))
                .map(|row| &row.answer),
        )
    }

    /// Of these answers.
    pub fn of_answers<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let mut totals = Self::default();
        for answer in answers {
            totals.add(answer);
        }
        totals
    }

    /// Counts one answer.
    pub fn add(&mut self, answer: &Answer) {
        let (verdict, amount) = (answer.verdict, answer.amount);
        self.all.add(verdict, amount);
        let rung = self.by_rung.entry(answer.rung).or_default();
        rung.add(verdict, amount);
        let reason = self.by_reason.entry(answer.reason).or_default();
        reason.add(verdict, amount);
        // A clone of a bank's id is a reference count, not a copy.
        let bank = self.by_bank.entry(answer.bank.clone()).or_default();
        bank.add(verdict, amount);
    }

    /// Which breakdowns do not add up to the whole.
    pub fn broken(&self) -> Vec<&'static str> {
        fn sum<'a>(lines: impl Iterator<Item = &'a Line>) -> Line {
            let mut sum = Line::default();
            lines.for_each(|line| sum.merge(line));
            sum
        }
        [
            ("rung", sum(self.by_rung.values())),
            ("reason", sum(self.by_reason.values())),
            ("bank", sum(self.by_bank.values())),
        ]
        .into_iter()
        .filter(|(_, sum)| *sum != self.all)
        .map(|(name, _)| name)
        .collect()
    }
}

/// Whether a row is an answer: final, or final and then reversed.
pub fn is_final(row: &AuthorizationRow) -> bool {
    match row.state {
        AuthorizationState::Final | AuthorizationState::Reversed => true,
        AuthorizationState::Held | AuthorizationState::Released => false,
    }
}

/// Adds an amount to its currency's sum.
pub fn add(sums: &mut Sums, amount: Money) {
    let sum = sums.entry(amount.currency()).or_default();
    *sum = sum.saturating_add(i128::from(amount.minor()));
}

/// Sums as people read them: `1,234.50 USD + 20 JPY`; `0` when there is none.
pub fn in_words(sums: &Sums) -> String {
    let words: Vec<String> = sums
        .iter()
        .filter(|(_, minor)| **minor != 0)
        .map(|(currency, minor)| match i64::try_from(*minor) {
            Ok(minor) => {
                let text = Money::from_minor(minor, *currency).to_decimal();
                format!("{} {currency}", grouped(&text))
            }
            Err(_) => format!("{minor} minor units {currency}"),
        })
        .collect();
    if words.is_empty() {
        "0".to_owned()
    } else {
        words.join(" + ")
    }
}

/// A decimal number with its thousands apart: `1234567.50` → `1,234,567.50`.
pub fn grouped(text: &str) -> String {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len().saturating_sub(at);
        if at > 0 && left.is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (text, expected) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-1234567.50", "-1,234,567.50"),
            ("100.20", "100.20"),
        ] {
            assert_eq!(grouped(text), expected);
        }
    }

    #[test]
    fn sums_of_several_currencies_are_never_mixed() {
        let mut line = Line::default();
        line.add(
            Verdict::Approved,
            Money::from_minor(i64::MAX, Currency::USD),
        );
        line.add(
            Verdict::Approved,
            Money::from_minor(i64::MAX, Currency::USD),
        );
        line.add(
            Verdict::Approved,
            Money::from_minor(20, "JPY".parse().unwrap()),
        );
        assert_eq!(
            line.approved_minor[&Currency::USD],
            i128::from(i64::MAX).checked_mul(2).unwrap()
        );
        assert_eq!(
            in_words(&Sums::from([(Currency::USD, 123_450)])),
            "1,234.50 USD"
        );
        assert!(in_words(&line.approved_minor).contains("20 JPY"));
        assert_eq!(in_words(&Sums::new()), "0");
    }

    #[test]
    fn a_breakdown_that_lost_one_answer_is_named() {
        let mut totals = Totals::default();
        totals
            .all
            .add(Verdict::Approved, Money::from_minor(5, Currency::USD));
        for line in [
            totals.by_rung.entry(Rung::Primary).or_default(),
            totals.by_reason.entry(Reason::WithinCap).or_default(),
        ] {
            line.add(Verdict::Approved, Money::from_minor(5, Currency::USD));
        }
        assert_eq!(totals.broken(), ["bank"]);
    }
}
