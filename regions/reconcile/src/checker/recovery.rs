//! S8: what was acknowledged is there after a crash, with the same bytes; and every answer a bank
//! received is in a log, or below a log's trim point in the ledger.

use std::collections::{HashMap, HashSet};

use super::index::Index;
use super::{Check, Evidence, Offences, plural};

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut acked = 0_u64;
    for recovery in evidence.recoveries {
        let found: HashMap<_, _> = recovery.recovered.iter().copied().collect();
        for (at, digest) in &recovery.acked {
            acked = acked.saturating_add(1);
            let place = format!("{} {}/{}", recovery.moment, at.index, at.slot);
            match found.get(at) {
                None => offences.add(place, "was acknowledged and is gone"),
                Some(other) if other != digest => {
                    offences.add(place, "was acknowledged with other bytes");
                }
                Some(_) => {}
            }
        }
    }
    let mut answered = HashSet::new();
    for (_, said) in index.answers(evidence) {
        let id = said.transaction_id;
        if !answered.insert(id) || index.outcomes.contains_key(&id) {
            continue;
        }
        if !below_trim_point(evidence, index, id) {
            offences.add(id, "was answered and is in no log");
        }
    }
    let seen = format!(
        "{}, {}, {} found in the logs",
        plural(
            u64::try_from(evidence.recoveries.len()).unwrap_or(u64::MAX),
            "crash",
            "crashes"
        ),
        plural(acked, "acknowledged entry", "acknowledged entries"),
        plural(
            u64::try_from(answered.len()).unwrap_or(u64::MAX),
            "answered payment",
            "answered payments"
        ),
    );
    offences.into_check("S8", seen)
}

/// Whether a payment's row names a place in a log that was trimmed away since.
fn below_trim_point(
    evidence: &Evidence<'_>,
    index: &Index<'_>,
    id: standin_core::id::TransactionId,
) -> bool {
    let place = index.rows.get(&id).and_then(|rows| rows.first.log);
    place.is_some_and(|(name, at)| {
        evidence
            .logs
            .iter()
            .any(|log| log.incarnation == name && at.index < log.first_index)
    })
}
