//! Judges recorded facts by the promises of the design, one pure function a promise.
//!
//! The facts are an [`Evidence`]: the history of every client, the ledger's rows at the end, every
//! log, what draining again did, what recovery gave back, and the numbers that were reported. The
//! checker trusts none of them; it only compares them. It looks at each fact a fixed number of
//! times, so its time is linear in their number.
//!
//! Absent on purpose: any repair. What is found here is reported, never put right.

mod closed;
mod copies;
mod durable;
mod exactly_once;
mod idempotency;
mod index;
mod integrity;
mod no_phantom;
mod one_answer;
mod recovery;
mod row_is_answer;
mod sums;
mod unknown;
mod within_cap;

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use standin_core::entry::LogPosition;
use standin_core::ledger::{AuthorizationRow, BookedCounts};

use crate::history::Attempt;
use crate::log::LogContents;
use crate::totals::Totals;

use self::index::Index;

/// How many offenders a check names.
const NAMED_MAX: usize = 5;

/// Everything that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What every client saw.
    pub history: &'a [Attempt],
    /// The ledger's authorizations, read after the drain.
    pub rows: &'a [AuthorizationRow],
    /// Every region's log.
    pub logs: &'a [LogContents],
    /// How far each log was drained, and what draining it again did.
    pub drains: &'a [DrainEvidence],
    /// What each recovery gave back, of what had been acknowledged; empty when nothing crashed.
    pub recoveries: &'a [Recovery],
    /// The totals that a report states.
    pub reported: &'a Totals,
}

/// How far a log was drained, and what draining it again did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainEvidence {
    /// Which log.
    pub log: Uuid,
    /// Where its cursor stands.
    pub cursor: u64,
    /// What booking everything again counted.
    pub again: BookedCounts,
    /// The rows before ([`rows_digest`]).
    pub rows_before: u64,
    /// The rows after.
    pub rows_after: u64,
}

/// What one recovery gave back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// When it crashed, in the words of whoever made it crash.
    pub moment: String,
    /// Entries acknowledged before the crash: where, and a digest of the bytes.
    pub acked: Vec<(LogPosition, u64)>,
    /// Entries found after it.
    pub recovered: Vec<(LogPosition, u64)>,
}

/// A keeper's log, read when the keeper had stopped. It may end in entries that were never committed.
#[derive(Clone, Debug)]
pub struct Copy<'a> {
    /// Whose it is.
    pub keeper: String,
    /// What it holds.
    pub log: &'a LogContents,
}

/// The verdict on one promise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// The promise: `S1`, …
    pub id: String,
    /// Whether the facts keep it.
    pub ok: bool,
    /// What was counted; on a breach, how many offend and the first of them.
    pub detail: String,
}

/// The promises judged here, in order, each in a few words.
pub const PROMISES: [(&str, &str); 12] = [
    ("S1", "every approval a bank received is booked once"),
    ("S2", "one payment never has two answers"),
    ("S3", "the answer equals the final row"),
    ("S4", "nothing is booked that nobody asked for"),
    ("S5", "draining again changes nothing"),
    ("S6", "a trip's approvals fit its cap when they are applied"),
    ("S8", "recovery gives back what was acknowledged"),
    ("S9", "no committed byte is cut; damage is reported"),
    ("S11", "same request, same bytes; refusals are not stored"),
    (
        "S14",
        "nothing is approved for a trip that the log knows is closed",
    ),
    ("S15", "sums add up"),
    ("S16", "what was unknown never changes once anyone was told"),
];

/// The promise that only the logs of all keepers can show; [`judge_group`] judges it too.
pub const MAJORITY: (&str, &str) = ("S7", "an answer of the log is on a majority's disks");

/// Judges the evidence: one [`Check`] a promise, in the order of [`PROMISES`].
pub fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let index = Index::of(evidence);
    vec![
        durable::check(evidence, &index),
        one_answer::check(evidence, &index),
        row_is_answer::check(evidence, &index),
        no_phantom::check(evidence, &index),
        exactly_once::check(evidence, &index),
        within_cap::check(evidence, &index),
        recovery::check(evidence, &index),
        integrity::check(evidence, &index),
        idempotency::check(evidence, &index),
        closed::check(evidence, &index),
        sums::check(evidence, &index),
        unknown::check(evidence, &index),
    ]
}

/// Judges a group's evidence: as [`judge`] does, and the logs of all its keepers against the first of
/// the evidence's logs, which holds what was committed. S2 and S9 look at them too, and [`MAJORITY`]
/// stands in its place.
pub fn judge_group(evidence: &Evidence<'_>, copies: &[Copy<'_>]) -> Vec<Check> {
    let index = Index::of(evidence);
    let mut checks = Vec::new();
    for check in judge(evidence) {
        match check.id.as_str() {
            "S2" => checks.push(copies::agree(check, &index, copies)),
            "S8" => {
                checks.push(copies::on_a_majority(evidence, &index, copies));
                checks.push(check);
            }
            "S9" => checks.push(copies::are_one_log(check, evidence, copies)),
            _ => checks.push(check),
        }
    }
    checks
}

/// A digest of anything by its debug text, which names every field. Equal within one build; it is
/// compared, never stored.
pub fn digest(what: &impl std::fmt::Debug) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{what:?}").as_bytes());
    hasher.finish()
}

/// A digest of rows that does not depend on their order. Equal rows give equal digests within one
/// build; it is compared, never stored.
pub fn rows_digest(rows: &[AuthorizationRow]) -> u64 {
    rows.iter().fold(0, |sum, row| sum ^ row_digest(row))
}

fn row_digest(row: &AuthorizationRow) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    // Debug text of a row names every field; the digest lives as long as the process.
    hasher.write(format!("{row:?}").as_bytes());
    hasher.write(row.answer.fingerprint.as_bytes());
    hasher.finish()
}

/// What offends a promise: how many, and the first few by name.
#[derive(Debug, Default)]
struct Offences {
    count: u64,
    named: Vec<String>,
}

// === impl Offences ===

impl Offences {
    fn add(&mut self, who: impl Display, what: impl Display) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("{who} {what}"));
        }
    }

    /// Adds what offends to a check that was made before.
    fn into_more_of(self, check: Check, seen: &str) -> Check {
        let more = self.into_check(&check.id, seen.to_owned());
        Check {
            ok: check.ok && more.ok,
            detail: format!("{}; {}", check.detail, more.detail),
            id: check.id,
        }
    }

    /// `seen` says what was looked at, and is true whether or not something offends.
    fn into_check(self, id: &str, seen: String) -> Check {
        let ok = self.count == 0;
        let detail = if ok {
            seen
        } else {
            let more = match self
                .count
                .saturating_sub(u64::try_from(NAMED_MAX).unwrap_or(0))
            {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            format!(
                "{} of: {seen}. {}{more}",
                plural(self.count, "breach", "breaches"),
                self.named.join("; ")
            )
        };
        Check {
            id: id.to_owned(),
            ok,
            detail,
        }
    }
}

/// `1 row`, `2,000 rows`.
fn plural(count: u64, one: &str, many: &str) -> String {
    let word = if count == 1 { one } else { many };
    format!("{} {word}", crate::totals::grouped(&count.to_string()))
}
