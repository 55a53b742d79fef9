//! Judges recorded facts by the promises of the design, one pure function a promise.
//!
//! The facts are an [`Evidence`]: the history of every client, the ledger's rows at the end, every
//! log, what draining again did, what recovery gave back, and the numbers that were reported. The
//! checker trusts none of them; it only compares them. It looks at each fact a fixed number of
//! times, so its time is linear in their number.
//!
//! Absent on purpose: any repair. What is found here is reported, never put right.

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
pub const PROMISES: [(&str, &str); 9] = [
    ("S1", "every approval a bank received is booked once"),
    ("S2", "one payment never has two answers"),
    ("S3", "the answer equals the final row"),
    ("S4", "nothing is booked that nobody asked for"),
    ("S5", "draining again changes nothing"),
    ("S8", "recovery gives back what was acknowledged"),
    ("S9", "no committed byte is cut; damage is reported"),
    ("S11", "same request, same bytes; refusals are not stored"),
    ("S15", "sums add up"),
];

/// Judges the evidence: one [`Check`] a promise, in the order of [`PROMISES`].
pub fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let index = Index::of(evidence);
    vec![
        durable::check(evidence, &index),
        one_answer::check(evidence, &index),
        row_is_answer::check(evidence, &index),
        no_phantom::check(evidence, &index),
        exactly_once::check(evidence, &index),
        recovery::check(evidence, &index),
        integrity::check(evidence, &index),
        idempotency::check(evidence, &index),
        sums::check(evidence, &index),
    ]
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
