//! The evidence, looked up by payment.

use std::collections::{HashMap, HashSet};

use standin_core::answer::{Answer, Verdict};
use standin_core::entry::Entry;
use standin_core::id::{BankId, TransactionId};
use standin_core::ledger::AuthorizationRow;

use super::Evidence;
use crate::history::{Attempt, Outcome, Said};
use crate::log::{LogContents, LogRecord};

/// The evidence, looked up by payment.
#[derive(Debug)]
pub(super) struct Index<'a> {
    /// What each attempt's reply says, in the order of the history.
    pub(super) readings: Vec<Reading>,
    /// Rows by payment.
    pub(super) rows: HashMap<TransactionId, Rows<'a>>,
    /// The first answer each log gave a payment, by payment; the first log wins.
    pub(super) outcomes: HashMap<TransactionId, (&'a LogContents, &'a LogRecord, &'a Answer)>,
    /// Payments that an edge answered without the log, too, or another region in a log of its own: what
    /// is said of them may differ in how it was reached, never in what.
    pub(super) advised: HashSet<TransactionId>,
    /// Every answer that a log gave a payment, or that an advice in it gave.
    worded: HashMap<TransactionId, Vec<&'a Answer>>,
    /// The identity of every payment that has one, by who asked and the client's name for it.
    pub(super) named: HashMap<(&'a BankId, &'a str), TransactionId>,
}

/// What a reply says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// Nothing: no reply, or a refusal.
    Nothing,
    /// The 500 that is stored for the payment.
    Faulted,
    /// An answer's status with a body that is none.
    Unreadable(String),
    /// An answer.
    Said(Said),
}

/// The rows of one payment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) first: &'a AuthorizationRow,
    pub(super) count: u32,
}

// === impl Index ===

impl<'a> Index<'a> {
    pub(super) fn of(evidence: &Evidence<'a>) -> Self {
        let readings: Vec<Reading> = evidence.history.iter().map(Reading::of).collect();
        let mut rows: HashMap<TransactionId, Rows<'a>> =
            HashMap::with_capacity(evidence.rows.len());
        for row in evidence.rows {
            rows.entry(row.answer.transaction_id)
                .and_modify(|rows| rows.count = rows.count.saturating_add(1))
                .or_insert(Rows {
                    first: row,
                    count: 1,
                });
        }
        let mut outcomes = HashMap::new();
        let mut advised = HashSet::new();
        let mut worded: HashMap<TransactionId, Vec<&Answer>> = HashMap::new();
        for log in evidence.logs {
            for record in &log.records {
                if let Entry::Advice(advice) = &record.entry {
                    advised.insert(advice.answer.transaction_id);
                    let words = worded.entry(advice.answer.transaction_id);
                    words.or_default().push(&advice.answer);
                }
                if let Some(answer) = record.first_answer() {
                    let words = worded.entry(answer.transaction_id);
                    words.or_default().push(answer);
                    let first: &mut (&LogContents, &LogRecord, &Answer) = outcomes
                        .entry(answer.transaction_id)
                        .or_insert((log, record, answer));
                    if first.0.incarnation != log.incarnation {
                        advised.insert(answer.transaction_id);
                    }
                }
            }
        }
        let mut named = HashMap::new();
        for (attempt, reading) in evidence.history.iter().zip(&readings) {
            let id = match reading {
                Reading::Said(said) => Some(said.transaction_id),
                Reading::Nothing | Reading::Faulted | Reading::Unreadable(_) => {
                    attempt.transaction_id
                }
            };
            if let Some(id) = id {
                named
                    .entry((&attempt.bank, attempt.payment.as_str()))
                    .or_insert(id);
            }
        }
        Self {
            readings,
            rows,
            outcomes,
            advised,
            worded,
            named,
        }
    }

    /// Every answer in the history, with the attempt that got it.
    pub(super) fn answers(
        &self,
        evidence: &Evidence<'a>,
    ) -> impl Iterator<Item = (&'a Attempt, &Said)> {
        evidence
            .history
            .iter()
            .zip(&self.readings)
            .filter_map(|(attempt, reading)| match reading {
                Reading::Said(said) => Some((attempt, said)),
                Reading::Nothing | Reading::Faulted | Reading::Unreadable(_) => None,
            })
    }

    /// Where what a bank was told differs from an answer, as a word; `None` when it does not.
    pub(super) fn difference(&self, said: &Said, answer: &Answer) -> Option<&'static str> {
        difference(said, answer, self.advised.contains(&said.transaction_id))
    }

    /// Whether two answers of the logs to one payment are one.
    pub(super) fn are_one(&self, one: &Answer, other: &Answer) -> bool {
        let said = |answer: &Answer| {
            let Answer {
                fingerprint,
                verdict,
                code,
                amount,
                ..
            } = answer;
            (*fingerprint, *verdict, *code, *amount)
        };
        one == other || (self.advised.contains(&one.transaction_id) && said(one) == said(other))
    }

    /// Whether a log holds an answer in these very words.
    pub(super) fn is_worded(&self, answer: &Answer) -> bool {
        let words = self.worded.get(&answer.transaction_id);
        words.is_some_and(|words| words.contains(&answer))
    }

    /// Whether two replies to one payment are one.
    pub(super) fn say_the_same(&self, one: &Said, other: &Said) -> bool {
        let said = |said: &Said| (said.verdict, said.code, said.amount);
        one == other || (self.advised.contains(&one.transaction_id) && said(one) == said(other))
    }

    /// The identity of an attempt's payment, where any attempt at it revealed one.
    pub(super) fn id_of(&self, attempt: &Attempt) -> Option<TransactionId> {
        self.named
            .get(&(&attempt.bank, attempt.payment.as_str()))
            .copied()
            .or(attempt.transaction_id)
    }
}

// === impl Reading ===

impl Reading {
    fn of(attempt: &Attempt) -> Self {
        match &attempt.outcome {
            Outcome::NoReply | Outcome::Refused { .. } => Self::Nothing,
            Outcome::Answered { status: 500, .. } => Self::Faulted,
            Outcome::Answered { status, body, .. } => match Said::read(*status, body) {
                Ok(said) => Self::Said(said),
                Err(error) => Self::Unreadable(error.to_string()),
            },
        }
    }
}

fn difference(said: &Said, answer: &Answer, advised: bool) -> Option<&'static str> {
    let shown_code = match answer.verdict {
        Verdict::Approved => Some(answer.code),
        Verdict::Declined => None,
    };
    [
        (said.verdict != answer.verdict, "decision"),
        (!advised && said.reason != answer.reason, "reason"),
        (said.amount != answer.amount, "amount"),
        (said.code != shown_code, "code"),
        (!advised && said.rung != answer.rung, "rung"),
    ]
    .into_iter()
    .find_map(|(differs, word)| differs.then_some(word))
}
