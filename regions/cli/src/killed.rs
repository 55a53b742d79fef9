//! An edge that was killed, and what its disk gave back (S8).

use std::collections::BTreeSet;

use standin_core::clock::Timestamp;
use standin_reconcile::checker::{Recovery, digest};
use standin_reconcile::history::{Attempt, Outcome, Said};
use standin_reconcile::log::{LogContents, LogRecord};

/// An edge that was killed.
#[derive(Debug)]
pub(crate) struct Killed {
    pub(crate) node: u64,
    /// The last moment before.
    pub(crate) at: Timestamp,
    /// What its disk held then.
    pub(crate) log: LogContents,
}

/// What a killed edge's disk held of answers that banks had received by then, and what it holds after
/// its return.
pub(crate) fn recovery(killed: &Killed, after: &LogContents, history: &[Attempt]) -> Recovery {
    let told: BTreeSet<_> = history
        .iter()
        .filter(|attempt| attempt.answered_at <= killed.at.as_millis())
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Answered { status, body, .. } => Said::read(*status, body).ok(),
            Outcome::Refused { .. } | Outcome::NoReply => None,
        })
        .map(|said| said.transaction_id)
        .collect();
    let was_told = |record: &&LogRecord| {
        let answer = record.first_answer();
        answer.is_some_and(|answer| told.contains(&answer.transaction_id))
    };
    let place = |record: &LogRecord| (record.at, digest(&record.entry));
    Recovery {
        moment: format!("edge-{} killed", killed.node),
        acked: killed
            .log
            .records
            .iter()
            .filter(was_told)
            .map(place)
            .collect(),
        recovered: after.records.iter().map(place).collect(),
    }
}
