//! What a proposer is told: a committed outcome, or why there is none.

/// Where and when an entry was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Term of the batch.
    pub term: u64,
    /// Index of the batch, from 1, one more for each batch.
    pub index: u64,
    /// Position of the proposal in its batch, from 0.
    pub slot: u32,
    /// Log time of the batch, ms.
    pub log_time_ms: u64,
}

/// Proof that an entry is durable on a majority of keepers. Only this crate makes one.
#[derive(Debug)]
pub struct Committed<O> {
    applied: Applied,
    outcome: O,
}

/// Why a proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The space budget is spent. Not begun; retry after a trim.
    #[error("the log has used up its space")]
    Full,
    /// The queue is full. Not begun; retry later.
    #[error("too many proposals are waiting")]
    Busy,
    /// Larger than a batch may be. Not begun; a retry will not help.
    #[error("the proposal is too large")]
    TooLarge,
    /// It may be or become an entry, or not. Retry under the same identity only.
    #[error("the fate of the proposal is unknown: {why}")]
    Unknown {
        /// What kept the answer away.
        why: Why,
    },
}

/// What keeps an answer away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The deadline passed first.
    #[error("its deadline passed")]
    Deadline,
    /// A write or a sync failed.
    #[error("the log is poisoned")]
    Poisoned,
    /// The log was stopped.
    #[error("the log has stopped")]
    Stopped,
}

/// What became of a proposal that has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not and will not be an entry.
    NotBegun,
    /// It may be an entry.
    Unknown,
}

/// What a proposer is told.
pub(crate) type Answer<O> = Result<Committed<O>, ProposeError>;

/// The log ended before what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has stopped")]
pub struct Stopped;

// === impl Committed ===

impl<O> Committed<O> {
    pub(crate) fn new(applied: Applied, outcome: O) -> Self {
        Self { applied, outcome }
    }

    /// Where and when it was applied.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// What applying it said.
    pub fn outcome(&self) -> &O {
        &self.outcome
    }

    /// Gives the outcome away.
    pub fn into_outcome(self) -> O {
        self.outcome
    }
}

// === impl ProposeError ===

impl ProposeError {
    /// Whether the proposal may have become an entry.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Full | Self::Busy | Self::TooLarge => Fate::NotBegun,
            Self::Unknown { .. } => Fate::Unknown,
        }
    }
}
