//! When the job runs: by a schedule, once the primary is back, and again after it could not.
//!
//! Pure: who asks says what time it is and what was seen of the edges. The primary is back for an edge
//! when an outage that was not over before is over, and everything that its log held then is drained.
//! An outage that began and ended between two looks counts as well: an edge tells of the last that is
//! over.

use std::time::Duration;

use serde::Serialize;

/// How runs follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// From the end of a run to the next one.
    pub every: Duration,
    /// How long a run waits, once a primary is back, for the backlog to be drained.
    pub drained_within: Duration,
    /// The rest after a run that failed; twice as long after each further one.
    pub retry_first: Duration,
    /// The longest of these rests.
    pub retry_most: Duration,
}

/// What an edge says of the primary and of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Whether an outage is on.
    pub outage: bool,
    /// Where in the log the last outage began that is over.
    pub over: Option<u64>,
    /// The log's last batch.
    pub last_index: u64,
    /// Everything up to this batch is in the ledger.
    pub cursor: u64,
}

/// Why a run is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing ran yet: what happened before may not be reconciled.
    Started,
    /// It is time.
    Schedule,
    /// The primary is back, and the backlog is drained.
    Returned,
    /// The primary is back, and the backlog was not seen drained in time.
    ReturnedUndrained,
    /// The last run failed.
    Retry,
}

/// Decides when to run.
#[derive(Clone, Debug)]
pub struct Turns {
    rules: Rules,
    edges: Vec<Edge>,
    /// Since when a primary is back and no run began.
    back_since: Option<Duration>,
    /// When the next run is due by itself, and why.
    next: (Duration, Cause),
    failures: u32,
}

/// What is known of an edge.
#[derive(Clone, Copy, Default, Debug)]
struct Edge {
    /// The last outage that was over, once the edge was heard.
    known: Option<Option<u64>>,
    outage: bool,
    back: Option<Back>,
}

/// An edge whose primary is back.
#[derive(Clone, Copy, Debug)]
struct Back {
    /// The end of its log when that was seen.
    mark: u64,
    drained: bool,
}

// === impl Cause ===

impl Cause {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "nothing ran yet",
            Self::Schedule => "it is time",
            Self::Returned => "the primary is back and the backlog is drained",
            Self::ReturnedUndrained => {
                "the primary is back; the backlog was not seen drained in time"
            }
            Self::Retry => "the last run failed",
        }
    }
}

// === impl Turns ===

impl Turns {
    /// Of so many edges. A run is due at once.
    pub fn new(rules: Rules, edges: usize) -> Self {
        Self {
            rules,
            edges: vec![Edge::default(); edges],
            back_since: None,
            next: (Duration::ZERO, Cause::Started),
            failures: 0,
        }
    }

    /// Takes what was seen of every edge, in their order; `None`: nothing was heard of it. Times are
    /// counted from when the watch began.
    pub fn hear(&mut self, now: Duration, seen: &[Option<Heard>]) {
        for (edge, heard) in self.edges.iter_mut().zip(seen) {
            if let Some(heard) = heard {
                edge.hear(*heard);
            }
        }
        if self.edges.iter().all(|edge| edge.back.is_none()) {
            self.back_since = None;
        } else {
            self.back_since.get_or_insert(now);
        }
    }

    /// Why a run is due, if one is.
    pub fn due(&self, now: Duration) -> Option<Cause> {
        if let Some(since) = self.back_since {
            if self.edges.iter().all(Edge::is_settled) {
                return Some(Cause::Returned);
            }
            if now.saturating_sub(since) >= self.rules.drained_within {
                return Some(Cause::ReturnedUndrained);
            }
        }
        let (at, cause) = self.next;
        (now >= at).then_some(cause)
    }

    /// A run begins: it is the run of every primary that was seen back until now.
    pub fn began(&mut self) {
        self.back_since = None;
        for edge in &mut self.edges {
            edge.back = None;
        }
    }

    /// The run ended, and came to a report or not. Gives how long it is to the next one, if nothing
    /// happens before.
    pub fn ended(&mut self, now: Duration, reported: bool) -> Duration {
        let Rules {
            every,
            retry_first,
            retry_most,
            ..
        } = self.rules;
        let (rest, cause) = if reported {
            self.failures = 0;
            (every, Cause::Schedule)
        } else {
            let doubled = 2_u32.saturating_pow(self.failures);
            self.failures = self.failures.saturating_add(1);
            let rest = retry_first.saturating_mul(doubled).min(retry_most);
            (rest.min(every), Cause::Retry)
        };
        self.next = (now.saturating_add(rest), cause);
        rest
    }
}

// === impl Edge ===

impl Edge {
    fn hear(&mut self, heard: Heard) {
        // What was over before it was first heard is the first run's.
        let known = *self.known.get_or_insert(heard.over);
        self.known = Some(heard.over);
        self.outage = heard.outage;
        if heard.outage {
            self.back = None;
        } else if heard.over.is_some() && heard.over != known {
            self.back = Some(Back {
                mark: heard.last_index,
                drained: false,
            });
        }
        if let Some(back) = &mut self.back {
            back.drained |= heard.cursor >= back.mark;
        }
    }

    /// It has its primary, and nothing that was written without it waits.
    fn is_settled(&self) -> bool {
        !self.outage && self.back.is_none_or(|back| back.drained)
    }
}

#[cfg(test)]
mod tests;
