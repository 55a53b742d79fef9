//! S5: a payment has one row, everything is drained, and draining again changes nothing.

use super::index::Index;
use super::{Check, Evidence, Offences, plural};

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    for (id, rows) in &index.rows {
        if rows.count != 1 {
            offences.add(id, format_args!("has {} rows", rows.count));
        }
    }
    let mut again = 0_u64;
    for log in evidence.logs {
        let name = log.incarnation;
        let Some(drain) = evidence.drains.iter().find(|drain| drain.log == name) else {
            offences.add(name, "was not drained twice");
            continue;
        };
        let left = log.undrained(drain.cursor);
        if left > 0 {
            let left = plural(left, "outcome", "outcomes");
            offences.add(name, format_args!("has {left} above its drain cursor"));
        }
        if drain.again.finalized > 0 || drain.again.conflicts > 0 {
            let (new, odd) = (drain.again.finalized, drain.again.conflicts);
            offences.add(
                name,
                format_args!("booked {new} rows and {odd} conflicts when drained again"),
            );
        }
        if drain.rows_before != drain.rows_after {
            offences.add(name, "changed rows when drained again");
        }
        again = again.saturating_add(drain.again.already);
    }
    let seen = format!(
        "{}; {} changed nothing",
        plural(
            u64::try_from(index.rows.len()).unwrap_or(u64::MAX),
            "payment with one row",
            "payments with one row each"
        ),
        plural(again, "outcome drained again", "outcomes drained again"),
    );
    offences.into_check("S5", seen)
}
