//! Late answers, variance, exposure, and whether the sums agree.

use std::collections::HashMap;
use std::time::Duration;

use standin_core::answer::{Answer, Rung, Verdict};
use standin_core::entry::Entry;
use standin_core::id::TripId;
use standin_core::ledger::AuthorizationRow;
use standin_core::money::{Currency, Money};

use super::Facts;
use super::matching::{Fate, fate};
use crate::report::reconciliation::{
    Bucket, Exposure, Finding, FindingKind, Reconciliation, Variance,
};
use crate::totals::{Line, add, in_words, is_final};

/// Upper bounds of the buckets, percent of picked; the last bucket has none.
const BUCKETS: [i128; 7] = [50, 75, 90, 100, 105, 110, 120];

/// A trip's final approvals.
struct Charged {
    currency: Currency,
    last: (Option<i64>, Option<i64>),
    last_at: Option<i64>,
    cap_max: Option<i64>,
    charged: i64,
}

/// Outcomes that were committed later than the deadline after their request was read.
pub(super) fn late(facts: &Facts, deadline: Duration) -> Line {
    let deadline_ms = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    let mut late = Line::default();
    for record in facts.logs.iter().flat_map(|log| &log.records) {
        let (Entry::Authorize(proposal), Some(answer)) = (&record.entry, record.first_answer())
        else {
            continue;
        };
        let committed = i64::try_from(record.log_time_ms).unwrap_or(i64::MAX);
        let read = proposal.request.received_at.as_millis();
        if committed.saturating_sub(read) > deadline_ms {
            late.add(answer.verdict, answer.amount);
        }
    }
    late
}

/// Between cap, picked and charged.
pub(super) fn variance<'a>(finals: impl Iterator<Item = &'a AuthorizationRow>) -> Variance {
    let mut variance = Variance::default();
    let mut buckets = [0_u64; BUCKETS.len() + 1];
    for trip in trips(finals).into_values() {
        let (Some(picked), cap) = trip.last else {
            continue;
        };
        let money = |minor| Money::from_minor(minor, trip.currency);
        variance.trips = variance.trips.saturating_add(1);
        add(&mut variance.picked_minor, money(picked));
        add(&mut variance.charged_minor, money(trip.charged));
        if let Some(cap) = cap {
            add(&mut variance.cap_minor, money(cap));
        }
        let over = trip.charged.saturating_sub(picked);
        if over > 0 {
            variance.over_picked = variance.over_picked.saturating_add(1);
            add(&mut variance.over_picked_minor, money(over));
        } else if over < 0 {
            variance.under_picked = variance.under_picked.saturating_add(1);
            add(
                &mut variance.under_picked_minor,
                money(over.saturating_neg()),
            );
        }
        if let Some(count) = buckets.get_mut(bucket(trip.charged, picked)) {
            *count = count.saturating_add(1);
        }
    }
    variance.charged_of_picked = (0..buckets.len())
        .zip(buckets)
        .map(|(at, trips)| Bucket {
            share: bucket_name(at),
            trips,
        })
        .collect();
    variance
}

/// Money approved without the primary, and trips over their caps.
pub(super) fn exposure<'a>(
    facts: &Facts,
    finals: impl Iterator<Item = &'a AuthorizationRow> + Clone,
) -> Exposure {
    let mut exposure = Exposure::default();
    for row in finals.clone() {
        let answer = &row.answer;
        let line = match answer.rung {
            Rung::Primary | Rung::PrimaryOnly | Rung::Bank => continue,
            Rung::StandIn => &mut exposure.stand_in,
            Rung::Isolated => &mut exposure.isolated,
        };
        line.add(answer.verdict, answer.amount);
    }
    for record in facts.logs.iter().flat_map(|log| &log.records) {
        let (Entry::Authorize(proposal), Some(answer)) = (&record.entry, record.first_answer())
        else {
            continue;
        };
        let declined = proposal
            .shadow
            .is_some_and(|reason| reason.verdict() == Verdict::Declined);
        if answer.rung != Rung::Primary && answer.verdict == Verdict::Approved && declined {
            exposure.beyond_primary.add(answer.verdict, answer.amount);
        }
    }
    for trip in trips(finals).into_values() {
        let over = trip.cap_max.map(|cap| trip.charged.saturating_sub(cap));
        if let Some(over) = over.filter(|over| *over > 0) {
            exposure.over_cap_trips = exposure.over_cap_trips.saturating_add(1);
            add(
                &mut exposure.over_cap_minor,
                Money::from_minor(over, trip.currency),
            );
        }
    }
    exposure
}

/// Finds what does not add up.
pub(super) fn judge(facts: &Facts, report: &mut Reconciliation) {
    let mut broken: Vec<String> = report
        .totals
        .broken()
        .into_iter()
        .map(|name| format!("the totals do not add up by {name}"))
        .collect();
    for proof in report.outages.iter().filter(|proof| !proof.adds_up()) {
        broken.push(format!("the outage of {} does not add up", proof.from));
    }
    for log in &facts.logs {
        let (mut logged, mut booked) = (Line::default(), Line::default());
        for record in &log.records {
            let Some(answer) = record.first_answer() else {
                continue;
            };
            if fate(facts, log.incarnation, record, answer) == Fate::Matched {
                logged.add(answer.verdict, answer.amount);
            }
        }
        for answer in booked_from(facts, log.incarnation, log.first_index..=log.last_index) {
            booked.add(answer.verdict, answer.amount);
        }
        if logged != booked {
            broken.push(format!(
                "log {} has {} approved and matched, the ledger {} drained from it",
                log.incarnation,
                in_words(&logged.approved_minor),
                in_words(&booked.approved_minor)
            ));
        }
    }
    for detail in broken {
        report.find(Finding {
            kind: FindingKind::Sums,
            transaction_id: None,
            detail,
            amount_minor: 0,
            currency: None,
            bank: None,
        });
    }
}

fn booked_from(
    facts: &Facts,
    log: uuid::Uuid,
    kept: std::ops::RangeInclusive<u64>,
) -> impl Iterator<Item = &Answer> {
    facts
        .rows
        .values()
        .filter(move |row| {
            let from = row.log.filter(|(name, _)| *name == log);
            is_final(row) && from.is_some_and(|(_, at)| kept.contains(&at.index))
        })
        .map(|row| &row.answer)
}

fn trips<'a>(finals: impl Iterator<Item = &'a AuthorizationRow>) -> HashMap<TripId, Charged> {
    let mut trips: HashMap<TripId, Charged> = HashMap::new();
    for row in finals {
        let answer = &row.answer;
        let (Verdict::Approved, Some(id)) = (answer.verdict, answer.trip) else {
            continue;
        };
        let trip = trips.entry(id).or_insert(Charged {
            currency: answer.amount.currency(),
            last: (None, None),
            last_at: None,
            cap_max: None,
            charged: 0,
        });
        let at = row.final_at.map(|at| at.as_millis());
        if trip.last_at.is_none() || at >= trip.last_at {
            trip.last_at = at;
            trip.last = (row.picked, answer.cap);
        }
        trip.cap_max = trip.cap_max.max(answer.cap);
        trip.charged = trip.charged.saturating_add(answer.amount.minor());
    }
    trips
}

fn bucket(charged: i64, picked: i64) -> usize {
    let charged_percent = i128::from(charged).saturating_mul(100);
    BUCKETS
        .iter()
        .position(|bound| charged_percent <= i128::from(picked).saturating_mul(*bound))
        .unwrap_or(BUCKETS.len())
}

fn bucket_name(at: usize) -> String {
    let below = at.checked_sub(1).and_then(|before| BUCKETS.get(before));
    match (below, BUCKETS.get(at)) {
        (None, Some(bound)) => format!("up to {bound} %"),
        (Some(below), Some(bound)) => format!("{below}-{bound} %"),
        (Some(below), None) => format!("over {below} %"),
        (None, None) => "all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::Sums;

    #[test]
    fn a_share_on_a_bound_is_in_the_lower_bucket() {
        for (charged, picked, name) in [
            (50, 100, "up to 50 %"),
            (100, 100, "90-100 %"),
            (101, 100, "100-105 %"),
            (121, 100, "over 120 %"),
            (1, 0, "over 120 %"),
            (0, 0, "up to 50 %"),
        ] {
            assert_eq!(
                bucket_name(bucket(charged, picked)),
                name,
                "{charged}/{picked}"
            );
        }
    }

    #[test]
    fn sums_start_at_nothing() {
        assert_eq!(variance(std::iter::empty()).picked_minor, Sums::new());
    }
}
