//! What became of every payment, for the whole window.
//!
//! Answers are held packed: what a payment costs is measured by
//! `cargo run --release -p standin-core --example register_memory`.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::entry::{LogPosition, Proposal};
use crate::id::TransactionId;

/// Every payment that is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Payments {
    records: HashMap<TransactionId, Record>,
    /// Payments in log order with their log time, for forgetting them.
    order: VecDeque<(u64, TransactionId)>,
    /// Records whose stored 500 replays.
    faulted: u64,
}

/// What is remembered of one payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    fate: Fate,
    /// Where in the log.
    pub(super) at: LogPosition,
    /// The edge whose entry it was.
    pub(super) edge: u64,
    /// Which start of that edge.
    pub(super) start: u64,
    flags: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    Answered(Packed),
    /// Never answered.
    Tombstoned,
}

/// An answer as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Packed(Box<[u8]>);

/// Something that is so of a payment, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// We failed after the commit: a 500 replays.
    Faulted,
    /// The bank was told again: the answer stands.
    Heard,
    /// An approval that came too late was given back: it does not replay.
    Released,
    /// Given without the log, over what the trip allowed.
    Over,
    /// The log has taken an advice of it.
    Advised,
}

impl Flag {
    const fn bit(self) -> u8 {
        match self {
            Self::Faulted => 1,
            Self::Heard => 2,
            Self::Released => 4,
            Self::Over => 8,
            Self::Advised => 16,
        }
    }
}

// === impl Record ===

impl Record {
    pub(super) fn answered(answer: &Answer, at: LogPosition, by: &Proposal) -> Self {
        Self {
            fate: Fate::Answered(Packed::of(answer)),
            at,
            edge: by.edge,
            start: by.start,
            flags: 0,
        }
    }

    pub(super) const fn tombstoned(at: LogPosition) -> Self {
        Self {
            fate: Fate::Tombstoned,
            at,
            edge: 0,
            start: 0,
            flags: 0,
        }
    }

    /// Its answer; `None` of a tombstone.
    pub(super) fn answer(&self) -> Option<Answer> {
        match &self.fate {
            Fate::Answered(packed) => packed.answer(),
            Fate::Tombstoned => None,
        }
    }

    pub(super) const fn is(&self, flag: Flag) -> bool {
        self.flags & flag.bit() != 0
    }
}

// === impl Packed ===

impl Packed {
    fn of(answer: &Answer) -> Self {
        // Plain data: it always encodes.
        Self(postcard::to_stdvec(answer).unwrap_or_default().into())
    }

    fn answer(&self) -> Option<Answer> {
        postcard::from_bytes(&self.0).ok()
    }
}

// === impl Payments ===

impl Payments {
    pub(super) fn get(&self, id: TransactionId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// Remembers a payment that was not known.
    pub(super) fn insert(&mut self, id: TransactionId, record: Record, log_time_ms: u64) {
        self.order.push_back((log_time_ms, id));
        self.records.insert(id, record);
    }

    /// Puts another answer in the place of one that is known; where it was given stays.
    pub(super) fn replace(&mut self, id: TransactionId, answer: &Answer) {
        if let Some(record) = self.records.get_mut(&id) {
            record.fate = Fate::Answered(Packed::of(answer));
        }
    }

    /// The same, and the entry at `at` is the one that gave it.
    pub(super) fn supersede(&mut self, id: TransactionId, answer: &Answer, at: LogPosition) {
        self.replace(id, answer);
        if let Some(record) = self.records.get_mut(&id) {
            record.at = at;
        }
    }

    /// Says whether it changed.
    pub(super) fn set(&mut self, id: TransactionId, flag: Flag, now: bool) -> bool {
        let Some(record) = self.records.get_mut(&id) else {
            return false;
        };
        if record.is(flag) == now {
            return false;
        }
        record.flags ^= flag.bit();
        if flag == Flag::Faulted {
            self.faulted = if now {
                self.faulted.saturating_add(1)
            } else {
                self.faulted.saturating_sub(1)
            };
        }
        true
    }

    /// Forgets the oldest payment, if it was made before `before_ms` and lies at or below the batch
    /// `drained`; gives what was known of it.
    pub(super) fn forget(
        &mut self,
        before_ms: u64,
        drained: u64,
    ) -> Option<(TransactionId, Record)> {
        let (made_ms, id) = *self.order.front()?;
        let index = self.records.get(&id).map_or(0, |record| record.at.index);
        if made_ms >= before_ms || index > drained {
            return None;
        }
        self.order.pop_front();
        let record = self.records.remove(&id)?;
        self.faulted = self
            .faulted
            .saturating_sub(u64::from(record.is(Flag::Faulted)));
        Some((id, record))
    }

    pub(super) fn faulted(&self) -> u64 {
        self.faulted
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Everything, in log order.
    pub(super) fn save(&self) -> Vec<(u64, TransactionId, Record)> {
        let known = |(made_ms, id): &(u64, TransactionId)| {
            let record = self.records.get(id)?;
            Some((*made_ms, *id, record.clone()))
        };
        self.order.iter().filter_map(known).collect()
    }

    pub(super) fn load(saved: Vec<(u64, TransactionId, Record)>) -> Self {
        let mut payments = Self {
            records: HashMap::with_capacity(saved.len()),
            order: VecDeque::with_capacity(saved.len()),
            faulted: 0,
        };
        for (made_ms, id, record) in saved {
            let faulted = u64::from(record.is(Flag::Faulted));
            payments.faulted = payments.faulted.saturating_add(faulted);
            payments.insert(id, record, made_ms);
        }
        payments
    }
}
