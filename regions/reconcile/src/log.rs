//! What a region's log holds, with the outcome of every entry, as the register replays it.

pub mod source;

use std::collections::{BTreeSet, HashSet};

use uuid::Uuid;

use standin_core::answer::Answer;
use standin_core::entry::{Booking, Entry, LogPosition};
use standin_core::id::TransactionId;
use standin_core::ledger::{ReversalRow, Rewording};
use standin_core::register::{Outcome, Register, RegisterConfig};

/// One batch as a log gives it.
#[derive(Clone, PartialEq, Debug)]
pub struct LogBatch {
    /// Its index, from 1.
    pub index: u64,
    /// Log time, milliseconds since the epoch.
    pub log_time_ms: u64,
    /// Its entries, in order.
    pub entries: Vec<Entry>,
}

/// One entry and what applying it came to.
#[derive(Clone, PartialEq, Debug)]
pub struct LogRecord {
    /// Where it is.
    pub at: LogPosition,
    /// Log time of its batch.
    pub log_time_ms: u64,
    /// What was proposed.
    pub entry: Entry,
    /// What came of it.
    pub outcome: Outcome,
}

/// What one log holds.
#[derive(Clone, PartialEq, Debug)]
pub struct LogContents {
    /// Which log.
    pub incarnation: Uuid,
    /// Index of the oldest batch kept; 1 when nothing was trimmed.
    pub first_index: u64,
    /// Index of the last durable batch; 0 when the log is empty.
    pub last_index: u64,
    /// Every entry kept, in log order.
    pub records: Vec<LogRecord>,
    /// What reversals took back, by where they are, in log order.
    pub reversals: Vec<(LogPosition, ReversalRow)>,
    /// Batches without an entry: a group's log has some of its own.
    pub blank: BTreeSet<u64>,
    /// What the reader found damaged.
    pub damage: Vec<Damage>,
}

/// Damaged bytes in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where, as the reader names it.
    pub place: String,
    /// Whether the keeper that owns the log said so itself.
    pub reported: bool,
}

/// Replays batches through a register, in log order.
///
/// A log that was trimmed is replayed from its first kept batch: an entry that repeats a payment
/// answered below the trim point then looks like the first of its payment. The ledger holds the
/// earlier answer, so the match with the ledger shows it.
#[derive(Debug)]
pub struct Replay {
    register: Register,
}

// === impl LogRecord ===

impl LogRecord {
    /// The answer this entry gave its payment; `None` when it repeated one or answers nothing.
    pub fn first_answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Known(_)
            | Outcome::OtherFingerprint
            | Outcome::Tombstoned
            | Outcome::Reversed(_)
            | Outcome::Noted => None,
        }
    }

    /// The answer this entry came to, whether it gave or repeated it.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Known(recalled) => Some(&recalled.answer),
            Outcome::OtherFingerprint
            | Outcome::Tombstoned
            | Outcome::Reversed(_)
            | Outcome::Noted => None,
        }
    }

    /// What the ledger books of this entry.
    pub fn booking(&self) -> Option<Booking> {
        let proposal = match &self.entry {
            Entry::Authorize(proposal) => proposal.as_ref(),
            Entry::Advice(advice) => &advice.proposal,
            _ => return None,
        };
        Some(Booking {
            answer: self.first_answer()?.clone(),
            proposal: proposal.clone(),
            at: self.at,
            log_time_ms: self.log_time_ms,
        })
    }

    /// The words of an advice that took the place of the words of an earlier answer.
    pub fn rewording(&self) -> Option<Rewording> {
        match (&self.entry, &self.outcome) {
            (Entry::Advice(advice), Outcome::Known(known)) if *known.answer == advice.answer => {
                Some(Rewording {
                    answer: advice.answer.clone(),
                    at: self.at,
                })
            }
            _ => None,
        }
    }

    /// Whether draining this entry writes something: an answer or its words, a reversal or an operator's
    /// action.
    pub fn is_booked(&self) -> bool {
        self.first_answer().is_some()
            || self.rewording().is_some()
            || matches!(self.entry, Entry::Operator(_))
            || matches!(self.outcome, Outcome::Reversed(amount) if amount > 0)
    }
}

// === impl LogContents ===

impl LogContents {
    /// Replays a whole log that was read without damage. Its name is what its entries say it is, else
    /// `incarnation`.
    pub fn replay(incarnation: Uuid, batches: impl IntoIterator<Item = LogBatch>) -> Self {
        let mut replay = Replay::new();
        let mut contents = Self {
            incarnation,
            first_index: 1,
            last_index: 0,
            records: Vec::new(),
            reversals: Vec::new(),
            blank: BTreeSet::new(),
            damage: Vec::new(),
        };
        for batch in batches {
            if contents.last_index == 0 {
                contents.first_index = batch.index;
            }
            contents.last_index = batch.index;
            if batch.entries.is_empty() {
                contents.blank.insert(batch.index);
            }
            for record in replay.apply(batch) {
                if let Entry::Reverse(reversal) = &record.entry {
                    let row = ReversalRow::of(&replay.register, reversal, record.log_time_ms);
                    contents.reversals.extend(row.map(|row| (record.at, row)));
                }
                contents.records.push(record);
            }
        }
        contents.incarnation = replay.register.incarnation().unwrap_or(incarnation);
        contents
    }

    /// Whether the log still begins at its first batch.
    pub fn is_whole(&self) -> bool {
        self.first_index <= 1
    }

    /// Entries above `cursor` that draining would book.
    pub fn undrained(&self, cursor: u64) -> u64 {
        let booked = |record: &&LogRecord| record.at.index > cursor && record.is_booked();
        u64::try_from(self.records.iter().filter(booked).count()).unwrap_or(u64::MAX)
    }

    /// The entry at a place.
    pub fn at(&self, at: LogPosition) -> Option<&LogRecord> {
        let found = self.records.binary_search_by_key(&at, |record| record.at);
        found.ok().and_then(|place| self.records.get(place))
    }

    /// Every payment this log answered.
    pub fn answered(&self) -> HashSet<TransactionId> {
        self.records
            .iter()
            .filter_map(LogRecord::first_answer)
            .map(|answer| answer.transaction_id)
            .collect()
    }
}

// === impl Replay ===

impl Replay {
    /// An empty register without a bound: what is replayed was admitted under one.
    pub fn new() -> Self {
        Self {
            register: Register::new(RegisterConfig {
                answers_max: usize::MAX,
            }),
        }
    }

    /// Applies one batch.
    pub fn apply(&mut self, batch: LogBatch) -> Vec<LogRecord> {
        let LogBatch {
            index,
            log_time_ms,
            entries,
        } = batch;
        (0_u32..)
            .zip(entries)
            .map(|(slot, entry)| {
                let at = LogPosition { index, slot };
                let outcome = self.register.apply(at, log_time_ms, &entry);
                LogRecord {
                    at,
                    log_time_ms,
                    entry,
                    outcome,
                }
            })
            .collect()
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}
