//! S14: once the log has heard that a trip is closed, no approval of the log's own is for that trip.

use std::collections::HashSet;

use standin_core::answer::{Rung, Verdict};
use standin_core::entry::{Entry, PlatformEvent};
use standin_core::id::TripId;
use standin_core::trip::{TripChange, TripStatus};

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::log::LogContents;

pub(super) fn check(evidence: &Evidence<'_>, _index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut closes = 0_usize;
    for log in evidence.logs {
        closes = closes.saturating_add(look(log, &mut offences));
    }
    let closes = u64::try_from(closes).unwrap_or(u64::MAX);
    let seen = plural(closes, "closed trip", "closed trips");
    offences.into_check("S14", seen)
}

fn look(log: &LogContents, offences: &mut Offences) -> usize {
    let mut closed: HashSet<TripId> = HashSet::new();
    for record in &log.records {
        let proposal = match &record.entry {
            Entry::Authorize(proposal) => proposal,
            entry => {
                closed.extend(closes(entry));
                continue;
            }
        };
        let Some(trip) = &proposal.trip else { continue };
        if trip.status != TripStatus::Shopping {
            closed.insert(trip.id);
        }
        let approved = record.first_answer().filter(|answer| {
            answer.verdict == Verdict::Approved
                && matches!(answer.rung, Rung::Primary | Rung::StandIn)
        });
        if let Some(answer) = approved.filter(|_| closed.contains(&trip.id)) {
            offences.add(answer.transaction_id, "was approved after its trip closed");
        }
    }
    closed.len()
}

/// The trip that an entry closes.
fn closes(entry: &Entry) -> Option<TripId> {
    match entry {
        Entry::TripClosed(trip) => Some(*trip),
        Entry::Platform(PlatformEvent::TripCompleted { trip, .. }) => Some(*trip),
        Entry::Platform(PlatformEvent::TripChanged(event)) => {
            (event.what == TripChange::Finish).then_some(event.trip)
        }
        _ => None,
    }
}
