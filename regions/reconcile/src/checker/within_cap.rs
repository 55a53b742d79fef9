//! S6: whenever an approval is applied, the trip's approvals fit the cap that the log knows.
//!
//! Counted again from the entries alone: the cap of the trip's highest version, every approval of the
//! trip in the log and those that entries saw, less what came back. `isolated` answers and advices are
//! exempt: they are bounded by reserves.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use standin_core::answer::{Rung, Verdict};
use standin_core::entry::{Entry, Proposal};
use standin_core::id::{TransactionId, TripId};
use standin_core::register::Outcome;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::log::LogContents;

/// What the entries so far say of one trip.
#[derive(Default)]
struct Spent {
    version: u64,
    cap: i64,
    approved: HashMap<TransactionId, i64>,
}

pub(super) fn check(evidence: &Evidence<'_>, _index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut approvals = 0_u64;
    // A log that was trimmed does not say all that counts.
    for log in evidence.logs.iter().filter(|log| log.is_whole()) {
        approvals = approvals.saturating_add(look(log, &mut offences));
    }
    let seen = plural(
        approvals,
        "approval held against its cap",
        "approvals held against their caps",
    );
    offences.into_check("S6", seen)
}

fn look(log: &LogContents, offences: &mut Offences) -> u64 {
    let mut trips: HashMap<TripId, Spent> = HashMap::new();
    let mut back: HashMap<TransactionId, i64> = HashMap::new();
    let mut reversed: HashSet<(TransactionId, Uuid)> = HashSet::new();
    let mut approvals = 0_u64;
    for record in &log.records {
        let (proposal, is_advice) = match (&record.entry, &record.outcome) {
            (Entry::Reverse(reversal), Outcome::Reversed(amount)) => {
                if reversed.insert((reversal.transaction_id, reversal.id)) {
                    let sum = back.entry(reversal.transaction_id).or_default();
                    *sum = sum.saturating_add(*amount);
                }
                continue;
            }
            (Entry::Authorize(proposal), _) => (proposal.as_ref(), false),
            (Entry::Advice(advice), _) => (&advice.proposal, true),
            _ => continue,
        };
        let Some((answer, trip)) = record.first_answer().zip(proposal.trip.as_ref()) else {
            continue;
        };
        let spent = trips.entry(trip.id).or_default();
        spent.see(proposal, trip.version);
        if answer.verdict == Verdict::Declined {
            continue;
        }
        let amount = answer.amount.minor();
        spent.approved.insert(answer.transaction_id, amount);
        if is_advice || answer.rung == Rung::Isolated {
            continue;
        }
        approvals = approvals.saturating_add(1);
        let left = |(id, amount): (&TransactionId, &i64)| {
            let back = back.get(id).copied().unwrap_or(0);
            amount.saturating_sub(back).max(0)
        };
        let sum = spent.approved.iter().map(left);
        let sum = sum.fold(0_i64, i64::saturating_add);
        if sum > spent.cap {
            offences.add(
                answer.transaction_id,
                format_args!("brings its trip to {sum} of {}", spent.cap),
            );
        }
    }
    approvals
}

// === impl Spent ===

impl Spent {
    fn see(&mut self, proposal: &Proposal, version: u64) {
        if let Some(cap) = proposal.cap.filter(|_| version >= self.version) {
            (self.version, self.cap) = (version, cap);
        }
        for seen in &proposal.seen {
            self.approved
                .entry(seen.transaction_id)
                .or_insert(seen.amount);
        }
    }
}
