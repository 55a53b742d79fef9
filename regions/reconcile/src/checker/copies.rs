//! What the logs of all keepers show: S7, and what they add to S2 and S9.

use std::collections::{HashMap, HashSet};

use standin_core::answer::Rung;
use standin_core::entry::LogPosition;

use super::index::Index;
use super::{Check, Copy, Evidence, Offences, integrity, plural};
use crate::log::LogRecord;

/// S2: no keeper's log answers a payment in another way.
pub(super) fn agree(check: Check, index: &Index<'_>, copies: &[Copy<'_>]) -> Check {
    let mut offences = Offences::default();
    for copy in copies {
        for record in &copy.log.records {
            let Some(answer) = record.first_answer() else {
                continue;
            };
            let first = index.outcomes.get(&answer.transaction_id);
            if first.is_some_and(|(.., first)| *first != answer) {
                let keeper = &copy.keeper;
                offences.add(
                    answer.transaction_id,
                    format_args!("has another answer in the log of {keeper}"),
                );
            }
        }
    }
    offences.into_more_of(check, &logs_of(copies))
}

/// S7: whatever a bank was told on the log's word lies at the same place in the logs of so many
/// keepers that they are a majority.
pub(super) fn on_a_majority(
    evidence: &Evidence<'_>,
    index: &Index<'_>,
    copies: &[Copy<'_>],
) -> Check {
    let mut offences = Offences::default();
    let majority = copies.len().div_euclid(2).saturating_add(1);
    let mut held: HashMap<LogPosition, Vec<&LogRecord>> = HashMap::new();
    for record in copies.iter().flat_map(|copy| &copy.log.records) {
        held.entry(record.at).or_default().push(record);
    }
    let mut told = HashSet::new();
    for (_, said) in index.answers(evidence) {
        let on_its_word = matches!(said.rung, Rung::Primary | Rung::StandIn);
        if !on_its_word || !told.insert(said.transaction_id) {
            continue;
        }
        let Some((_, record, _)) = index.outcomes.get(&said.transaction_id) else {
            offences.add(said.transaction_id, "was answered and is in no log");
            continue;
        };
        let there = held.get(&record.at).into_iter().flatten();
        let same = there.filter(|other| other.entry == record.entry).count();
        if same < majority {
            offences.add(
                said.transaction_id,
                format_args!("lies on {same} of {} disks", copies.len()),
            );
        }
    }
    let told = u64::try_from(told.len()).unwrap_or(u64::MAX);
    let seen = format!(
        "{}, each on {majority} of {} disks at least",
        plural(told, "answer of the log", "answers of the log"),
        copies.len(),
    );
    offences.into_check("S7", seen)
}

/// S9: no keeper's log has a gap, and each is what was committed, as far as both reach; a majority
/// reaches to the end of it.
pub(super) fn are_one_log(check: Check, evidence: &Evidence<'_>, copies: &[Copy<'_>]) -> Check {
    let mut offences = Offences::default();
    let Some(committed) = evidence.logs.first() else {
        return check;
    };
    let mut whole = 0_usize;
    for copy in copies {
        integrity::no_gap(copy.log, &mut offences);
        for record in &copy.log.records {
            let at = record.at;
            if at.index <= committed.last_index && committed.at(at) != Some(record) {
                offences.add(
                    format_args!("{} {}/{}", copy.keeper, at.index, at.slot),
                    "is not what was committed",
                );
            }
        }
        let reaches = copy.log.last_index >= committed.last_index;
        let begins = copy.log.first_index <= committed.first_index;
        whole = whole.saturating_add(usize::from(reaches && begins));
    }
    let majority = copies.len().div_euclid(2).saturating_add(1);
    if whole < majority {
        offences.add(
            format_args!("{whole} of {} keepers", copies.len()),
            "hold the whole of the log",
        );
    }
    offences.into_more_of(check, &logs_of(copies))
}

fn logs_of(copies: &[Copy<'_>]) -> String {
    let keepers = u64::try_from(copies.len()).unwrap_or(u64::MAX);
    format!("the logs of {}", plural(keepers, "keeper", "keepers"))
}
