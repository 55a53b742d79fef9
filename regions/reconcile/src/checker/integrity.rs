//! S9: a log has no gap from its first kept batch to its last durable one, what was drained from it
//! is still in it, log time never goes back, and damage is reported by whoever owns it.

use std::collections::HashMap;

use uuid::Uuid;

use standin_core::entry::LogPosition;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::log::{LogContents, LogRecord};

pub(super) fn check(evidence: &Evidence<'_>, _index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut batches = 0_u64;
    for log in evidence.logs {
        let kept = log
            .last_index
            .saturating_add(1)
            .saturating_sub(log.first_index);
        batches = batches.saturating_add(kept);
        no_gap(log, &mut offences);
        for damage in log.damage.iter().filter(|damage| !damage.reported) {
            offences.add(&damage.place, "is damaged and was not reported");
        }
        let drain = evidence
            .drains
            .iter()
            .find(|drain| drain.log == log.incarnation);
        if let Some(drain) = drain.filter(|drain| drain.cursor > log.last_index) {
            let (cursor, last) = (drain.cursor, log.last_index);
            offences.add(
                log.incarnation,
                format_args!("ends at {last}, below its drain cursor {cursor}: it was cut"),
            );
        }
    }
    rows_are_in_their_logs(evidence, &mut offences);
    let logs = u64::try_from(evidence.logs.len()).unwrap_or(u64::MAX);
    let seen = format!(
        "{} in {}, without a gap",
        plural(batches, "batch", "batches"),
        plural(logs, "log", "logs"),
    );
    offences.into_check("S9", seen)
}

pub(super) fn no_gap(log: &LogContents, offences: &mut Offences) {
    // Batches without an entry hold no place.
    let from = |mut index: u64| {
        while log.blank.contains(&index) {
            index = index.saturating_add(1);
        }
        index
    };
    let mut expected = LogPosition {
        index: from(log.first_index),
        slot: 0,
    };
    let mut log_time_ms = 0;
    for record in &log.records {
        let at = record.at;
        let next_batch =
            at.slot == 0 && at.index == from(expected.index.saturating_add(1)) && expected.slot > 0;
        if at != expected && !next_batch {
            let place = format!("{} {}/{}", log.incarnation, at.index, at.slot);
            offences.add(
                place,
                format_args!("stands where {}/{} should", expected.index, expected.slot),
            );
        }
        if record.log_time_ms < log_time_ms {
            let place = format!("{} {}/{}", log.incarnation, at.index, at.slot);
            offences.add(place, "has a log time before its predecessor's");
        }
        log_time_ms = log_time_ms.max(record.log_time_ms);
        expected = LogPosition {
            index: at.index,
            slot: at.slot.saturating_add(1),
        };
    }
    let read_to = log.records.last().map_or(0, |record| record.at.index);
    let read_to = read_to.max(log.blank.last().copied().unwrap_or(0));
    if read_to < log.last_index {
        let last = log.last_index;
        offences.add(
            log.incarnation,
            format_args!("was durable to batch {last} and reads to {read_to}"),
        );
    }
}

/// A row names where in a log it was drained from; that place must hold its payment.
fn rows_are_in_their_logs(evidence: &Evidence<'_>, offences: &mut Offences) {
    let mut places: HashMap<(Uuid, LogPosition), &LogRecord> = HashMap::new();
    for log in evidence.logs {
        for record in &log.records {
            places.insert((log.incarnation, record.at), record);
        }
    }
    for row in evidence.rows {
        let Some((name, at)) = row.log else { continue };
        let Some(log) = evidence.logs.iter().find(|log| log.incarnation == name) else {
            continue;
        };
        if at.index < log.first_index {
            continue;
        }
        let id = row.answer.transaction_id;
        let held = places.get(&(name, at)).and_then(|record| record.answer());
        if held.is_none_or(|answer| answer.transaction_id != id) {
            offences.add(
                id,
                format_args!(
                    "was drained from {}/{}, which does not hold it",
                    at.index, at.slot
                ),
            );
        }
    }
}
