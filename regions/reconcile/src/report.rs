//! What people and programs read: the demo's report and its parts. `report.json` is these structs
//! as they are; `report.html` is made from the same structs, so the two cannot disagree.
//!
//! A report holds counts, sums, times and payments' ids; never a secret, a card number, a merchant
//! or a position.

#![allow(
    clippy::float_arithmetic,
    reason = "times are shown in milliseconds with decimals; no money is computed here"
)]

pub mod chart;
pub mod csv;
pub mod drill;
pub mod html;
pub mod reconciliation;
pub mod thresholds;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use standin_core::answer::{Reason, Rung, Verdict};

use crate::checker::Check;
use crate::history::{Attempt, Counts, Expectation, Outcome, Said};
use crate::report::reconciliation::Reconciliation;

/// The rung of a request that got no answer.
const REFUSED: &str = "refused";
/// One payment in so many may get no answer: an edge that is killed takes what it was about to say
/// with it, and what is left of the deadline must suffice for another.
const UNANSWERED_ONE_IN: u64 = 1_000;
/// Answers may pause so much longer than the log is without a leader, milliseconds.
const GAP_BEYOND_ELECTION_MS: u64 = 200;

/// What a demo run came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DemoReport {
    /// What was run.
    pub title: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took.
    pub seconds: f64,
    /// How it was asked for: rate, servers, data, seed.
    pub options: BTreeMap<String, String>,
    /// Where it ran.
    pub machine: Machine,
    /// Requests sent.
    pub requests: u64,
    /// Payments without the answer or the refusal they were made to get by their deadline, the bank's
    /// retries at other edges included.
    pub no_answer: u64,
    /// Answers after the deadline.
    pub late: u64,
    /// Replies that differ from what the payment was made to get.
    pub wrong: u64,
    /// Attempts without an answer (a 503, or an edge that is gone) after which the bank asked again
    /// within the deadline; they are requests too.
    #[serde(default)]
    pub retried: u64,
    /// The longest time in which payments were due and nobody answered any ([`longest_gap_ms`]).
    #[serde(default)]
    pub longest_gap_ms: u64,
    /// How it went, part by part.
    pub phases: Vec<PhaseReport>,
    /// The log.
    pub wal: WalFigures,
    /// The ledger.
    pub ledger: LedgerFigures,
    /// The promises, judged.
    pub checks: Vec<Check>,
    /// Second by second.
    pub timeline: Vec<Tick>,
    /// When the primary was away.
    pub outages: Vec<Shade>,
    /// What reconciliation said.
    pub reconciliation: Option<Reconciliation>,
}

/// The machine a report was made on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub os: String,
    /// Processors available.
    pub cpus: u64,
}

/// One part of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PhaseReport {
    /// `primary`, `stand_in`, `recovered`.
    pub name: String,
    /// Requests sent in it.
    pub requests: u64,
    /// Median latency from the intended moment, over replies of any kind.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// Requests by the rung they were answered on; `refused` for those that got no answer.
    pub rungs: BTreeMap<String, u64>,
    /// Approvals.
    pub approved: u64,
    /// Declines by reason.
    pub declined: BTreeMap<Reason, u64>,
}

/// The log in figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalFigures {
    /// Answers it gave.
    pub entries: u64,
    /// Of them booked.
    pub drained: u64,
    /// Of them not yet booked.
    pub backlog: u64,
    /// Keepers of the group that holds it.
    #[serde(default)]
    pub members: u64,
    /// How often another keeper came to lead, while the load lasted.
    #[serde(default)]
    pub leader_changes: u64,
    /// The longest time without a leader, while the load lasted: from the moment before the leader was
    /// killed, or from when whoever watches the keepers heard that it leads no more, until a keeper
    /// that lives leads and a majority of the keepers has named it. Each keeper says whom it sees
    /// leading within a few milliseconds.
    #[serde(default)]
    pub longest_election_ms: u64,
}

/// The ledger in figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerFigures {
    /// Final authorizations.
    pub authorizations: u64,
}

/// One step of the timeline.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tick {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// Replies in this step, by rung.
    pub replies: BTreeMap<String, u64>,
    /// 99th percentile of their latency, by rung.
    pub p99_ms: BTreeMap<String, f64>,
    /// Answers in the log that were not yet booked, at the end of this step.
    pub backlog: u64,
}

/// A stretch of the timeline to shade.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shade {
    /// Milliseconds since the start.
    pub from_ms: u64,
    /// The same.
    pub until_ms: u64,
    /// What it was: `primary hangs`, `primary gone`.
    pub label: String,
}

/// How many answers were not yet booked at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BacklogSample {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Answers in the log that were not booked.
    pub backlog: u64,
}

// === impl DemoReport ===

impl DemoReport {
    /// Whether everything was answered in time and rightly (one payment in a thousand may get no
    /// answer), answers paused no longer than an election and a moment, nothing is left in the log,
    /// every promise holds and reconciliation found nothing.
    pub fn is_clean(&self) -> bool {
        self.is_answered()
            && self.is_steady()
            && self.late == 0
            && self.wrong == 0
            && self.wal.backlog == 0
            && self.checks.iter().all(|check| check.ok)
            && !self.checks.is_empty()
            && self
                .reconciliation
                .as_ref()
                .is_none_or(|report| report.all_findings() == 0)
    }

    /// Whether no more payments are without an answer than may be.
    pub fn is_answered(&self) -> bool {
        self.no_answer.saturating_mul(UNANSWERED_ONE_IN) <= self.requests
    }

    /// Whether answers paused no longer than an election and a moment.
    pub fn is_steady(&self) -> bool {
        let most = self.wal.longest_election_ms;
        self.longest_gap_ms <= most.saturating_add(GAP_BEYOND_ELECTION_MS)
    }

    /// Puts a history's counts where they belong.
    pub fn set_counts(&mut self, counts: Counts) {
        let Counts {
            requests,
            no_answer,
            late,
            wrong,
            retried,
        } = counts;
        self.requests = requests;
        self.no_answer = no_answer;
        self.late = late;
        self.wrong = wrong;
        self.retried = retried;
    }
}

// === impl PhaseReport ===

impl PhaseReport {
    /// Of the attempts whose intended moment lies in the phase.
    pub fn of<'a>(
        name: impl Into<String>,
        attempts: impl IntoIterator<Item = &'a Attempt>,
    ) -> Self {
        let mut phase = Self {
            name: name.into(),
            requests: 0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            rungs: BTreeMap::new(),
            approved: 0,
            declined: BTreeMap::new(),
        };
        let mut latencies = Vec::new();
        for attempt in attempts {
            bump(&mut phase.requests);
            latencies.push(attempt.latency_us);
            let said = said(attempt);
            bump(
                phase
                    .rungs
                    .entry(rung_word(said.as_ref()).to_owned())
                    .or_default(),
            );
            match said {
                Some(said) if said.verdict == Verdict::Approved => bump(&mut phase.approved),
                Some(said) => bump(phase.declined.entry(said.reason).or_default()),
                None => {}
            }
        }
        latencies.sort_unstable();
        phase.p50_ms = percentile_ms(&latencies, 50);
        phase.p99_ms = percentile_ms(&latencies, 99);
        phase.max_ms = percentile_ms(&latencies, 100);
        phase
    }
}

/// The timeline of a history: one [`Tick`] every `tick_ms` from `start` (milliseconds since the
/// epoch), by the moment of the reply.
///
/// `backlog` is in time order; a tick shows the last sample not after its end. Attempts that ended
/// before `start` are left out. At most 100,000 ticks are made.
pub fn timeline(
    history: &[Attempt],
    backlog: &[BacklogSample],
    start: i64,
    tick_ms: u64,
) -> Vec<Tick> {
    const TICKS_MAX: u64 = 100_000;
    let tick_ms = tick_ms.max(1);
    let since = |at: i64| u64::try_from(at.saturating_sub(start)).ok();
    let slot = |at: i64| since(at).and_then(|ms| ms.checked_div(tick_ms));
    let mut latencies: BTreeMap<u64, BTreeMap<&'static str, Vec<u64>>> = BTreeMap::new();
    for attempt in history {
        let Some(slot) = slot(attempt.answered_at).filter(|slot| *slot < TICKS_MAX) else {
            continue;
        };
        let rung = rung_word(said(attempt).as_ref());
        let rungs = latencies.entry(slot).or_default();
        rungs.entry(rung).or_default().push(attempt.latency_us);
    }
    let last_sample = backlog.last().and_then(|sample| slot(sample.at));
    let last = latencies.keys().next_back().copied().max(last_sample);
    let Some(last) = last else {
        return Vec::new();
    };
    let mut samples = backlog.iter().peekable();
    let mut shown = 0;
    (0..=last.min(TICKS_MAX))
        .map(|slot_now| {
            while let Some(sample) = samples.next_if(|s| slot(s.at).is_none_or(|at| at <= slot_now))
            {
                shown = sample.backlog;
            }
            let mut tick = Tick {
                at_ms: slot_now.saturating_mul(tick_ms),
                replies: BTreeMap::new(),
                p99_ms: BTreeMap::new(),
                backlog: shown,
            };
            for (rung, mut times) in latencies.remove(&slot_now).unwrap_or_default() {
                times.sort_unstable();
                let count = u64::try_from(times.len()).unwrap_or(u64::MAX);
                tick.replies.insert(rung.to_owned(), count);
                tick.p99_ms
                    .insert(rung.to_owned(), percentile_ms(&times, 99));
            }
            tick
        })
        .collect()
}

/// The longest time, milliseconds, in which payments were due and no answer came from any edge.
///
/// An answer is one that was given then: a replay is none, as the log need not be asked for it. A
/// pause begins with an answer, or with a payment when none was due before it, and ends with the next
/// answer, or when no payment is due any more. A payment is due from its intended moment until its
/// first answer or its refusal, for `deadline_ms` at most. What comes after the last answer does not
/// count: it is in the history as payments without one.
pub fn longest_gap_ms(history: &[Attempt], deadline_ms: u64) -> u64 {
    let deadline = i64::try_from(deadline_ms).unwrap_or(i64::MAX);
    let mut answers = Vec::new();
    // By payment: from when, and until when it is due.
    let mut due: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    for attempt in history {
        let from = attempt.intended_at;
        let given_up = from.saturating_add(deadline);
        let settled = match &attempt.outcome {
            Outcome::Answered { replayed, .. } => {
                if !replayed {
                    answers.push(attempt.answered_at);
                }
                attempt.answered_at.min(given_up)
            }
            _ if matches!(attempt.expectation, Some(Expectation::Refused(_))) => {
                attempt.answered_at.min(given_up)
            }
            Outcome::Refused { .. } | Outcome::NoReply => given_up,
        };
        let until = due.entry((from, &attempt.payment)).or_insert(settled);
        *until = (*until).min(settled);
    }
    answers.sort_unstable();
    let due = due.into_iter().map(|((from, _), until)| (from, until));
    let mut due = due.peekable();
    // Until when any of those looked at is due.
    let mut due_until = i64::MIN;
    let mut longest = 0;
    for pair in answers.windows(2) {
        let [before, after] = pair else { continue };
        // From when payments are due without a break; what is due by then began before.
        let mut begin = *before;
        while let Some((from, until)) = due.next_if(|(from, _)| from < after) {
            if from > due_until.max(begin) {
                longest = longest.max(due_until.saturating_sub(begin));
                begin = from;
            }
            due_until = due_until.max(until);
        }
        longest = longest.max(due_until.min(*after).saturating_sub(begin));
    }
    u64::try_from(longest).unwrap_or(0)
}

/// The nearest-rank percentile of sorted microseconds, in milliseconds; 0 of nothing.
fn percentile_ms(sorted_us: &[u64], percent: usize) -> f64 {
    let rank = sorted_us
        .len()
        .saturating_mul(percent)
        .div_ceil(100)
        .saturating_sub(1);
    let micros = sorted_us.get(rank).copied().unwrap_or(0);
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1_000.0
}

fn said(attempt: &Attempt) -> Option<Said> {
    match &attempt.outcome {
        Outcome::Answered { status, body, .. } => Said::read(*status, body).ok(),
        Outcome::Refused { .. } | Outcome::NoReply => None,
    }
}

fn rung_word(said: Option<&Said>) -> &'static str {
    said.map_or(REFUSED, |said| Rung::as_str(said.rung))
}

fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests;
