//! How rules do on trips: which of them they would have approved, and what they tolerate for it.

use std::collections::BTreeMap;

use serde::Serialize;
use standin_core::policy::{Policy, Thresholds};

use super::quantile::{Interval, interval, rank, upper_rank, value};
use super::{Trip, WHOLE, share_of};
use crate::thresholds::fit::{Aim, mostly, over};

/// Bands of what was picked end at these shares of trips, basis points, at a round amount above.
const BAND_ENDS_BP: [usize; 4] = [2_500, 5_000, 7_500, 9_000];

/// What rules did on some trips.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Judged {
    /// Trips.
    pub trips: usize,
    /// Of them, charged no more than their cap.
    pub covered: usize,
    /// The same, basis points rounded down; zero of none.
    pub covered_bp: i64,
    /// Where the true share is, with 95 % confidence.
    pub covered_95: Interval,
    /// Sum of what was picked, minor units.
    pub picked: i64,
    /// Sum of what was tolerated above that: the most that could be approved beyond the carts.
    pub tolerated: i64,
    /// The same, basis points of what was picked.
    pub tolerated_bp: i64,
    /// The same, a trip, minor units.
    pub tolerated_mean: i64,
    /// Sum of what was charged above the caps: what was declined although it was bought.
    pub beyond: i64,
}

/// How carts of one sort vary, and how rules did on them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// `PRODUCE`, `store 367`, `5.00 to 20.00` (minor units).
    pub name: String,
    /// Trips that were learnt from.
    pub trips: usize,
    /// The stated quantile of charged - picked among them, minor units.
    pub quantile: i64,
    /// Its upper bound at the stated confidence; `None`: too few trips.
    pub bound: Option<i64>,
    /// The same of (charged - picked) / picked, basis points.
    pub bound_bp: Option<i64>,
    /// How the advice did on the trips it had not seen.
    pub judged: Judged,
}

/// A band of what was picked: from here, to below there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Band {
    pub(super) from: i64,
    pub(super) below: Option<i64>,
}

/// Judges thresholds.
pub fn judge<'a>(thresholds: &Thresholds, trips: impl IntoIterator<Item = &'a Trip>) -> Judged {
    tally(trips, |trip| {
        thresholds.cap_of(trip.store, trip.picked, &trip.mix)
    })
}

/// Judges what a policy tolerates while it stands in for the primary, before it decays.
pub fn judge_stand_in<'a>(policy: &Policy, trips: impl IntoIterator<Item = &'a Trip>) -> Judged {
    let stand_in = Thresholds::of(policy.stand_in.threshold, []);
    tally(trips, |trip| {
        let tighter = stand_in.cap_of(trip.store, trip.picked, &trip.mix);
        let cap = policy.thresholds.cap_of(trip.store, trip.picked, &trip.mix);
        tighter.min(cap)
    })
}

fn tally<'a>(trips: impl IntoIterator<Item = &'a Trip>, cap: impl Fn(&Trip) -> i64) -> Judged {
    let (mut count, mut covered) = (0_usize, 0_usize);
    let (mut picked, mut tolerated, mut beyond) = (0_i64, 0_i64, 0_i64);
    for trip in trips {
        let cap = cap(trip);
        count = count.saturating_add(1);
        picked = picked.saturating_add(trip.picked);
        tolerated = tolerated.saturating_add(cap.saturating_sub(trip.picked).max(0));
        if trip.charged <= cap {
            covered = covered.saturating_add(1);
        } else {
            beyond = beyond.saturating_add(trip.charged.saturating_sub(cap));
        }
    }
    let of = |part: usize| i128::try_from(part).unwrap_or(i128::MAX);
    let mean = i128::from(tolerated).checked_div(of(count)).unwrap_or(0);
    Judged {
        trips: count,
        covered,
        covered_bp: share_of(of(covered), of(count)),
        covered_95: interval(covered, count),
        picked,
        tolerated,
        tolerated_bp: share_of(i128::from(tolerated), i128::from(picked)),
        tolerated_mean: i64::try_from(mean).unwrap_or(i64::MAX),
        beyond,
    }
}

/// A row for each sort of carts, in the order of the names' keys: `of` says of which sort one is.
pub(super) fn rows<'a, K: Ord>(
    (learnt, last): (&[&'a Trip], &[&'a Trip]),
    thresholds: &Thresholds,
    aim: Aim,
    of: impl Fn(&'a Trip) -> Option<K>,
    name: impl Fn(&K) -> String,
) -> Vec<Row> {
    let mut sorts: BTreeMap<K, (Vec<&Trip>, Vec<&Trip>)> = BTreeMap::new();
    for trip in learnt {
        if let Some(key) = of(trip) {
            sorts.entry(key).or_default().0.push(trip);
        }
    }
    for trip in last {
        if let Some(key) = of(trip) {
            sorts.entry(key).or_default().1.push(trip);
        }
    }
    sorts
        .into_iter()
        .map(|(key, (learnt, last))| {
            let mut overs: Vec<i64> = learnt.iter().map(|trip| over(trip)).collect();
            let mut shares: Vec<i64> = learnt.iter().map(|trip| over_bp(trip)).collect();
            let upper = upper_rank(learnt.len(), aim.cover, aim.confidence);
            Row {
                name: name(&key),
                trips: learnt.len(),
                quantile: value(&mut overs, rank(learnt.len(), aim.cover)).unwrap_or(0),
                bound: upper.and_then(|rank| value(&mut overs, rank)),
                bound_bp: upper.and_then(|rank| value(&mut shares, rank)),
                judged: judge(thresholds, last),
            }
        })
        .collect()
}

/// The category that most of a cart is of; what is of none is `mixed`.
pub(super) fn category(trip: &Trip) -> Option<String> {
    Some(mostly(trip).unwrap_or("mixed").to_owned())
}

fn over_bp(trip: &Trip) -> i64 {
    match share_of(i128::from(over(trip)), i128::from(trip.picked)) {
        0 if trip.picked <= 0 && over(trip) > 0 => WHOLE,
        bp => bp,
    }
}

/// Bands of what was picked, made from these trips.
pub(super) fn bands(trips: &[&Trip]) -> Vec<Band> {
    let mut picked: Vec<i64> = trips.iter().map(|trip| trip.picked).collect();
    let mut ends: Vec<i64> = BAND_ENDS_BP
        .iter()
        .filter_map(|bp| {
            let at = picked.len().saturating_mul(*bp).div_ceil(10_000);
            value(&mut picked, at).map(round)
        })
        .collect();
    ends.dedup();
    let froms = std::iter::once(0).chain(ends.iter().copied());
    let belows = ends.iter().copied().map(Some).chain([None]);
    froms
        .zip(belows)
        .map(|(from, below)| Band { from, below })
        .collect()
}

/// The next of 1, 1.5, 2, 3, 5, 7.5 and 10 times a power of ten that is not less.
pub(super) fn round(amount: i64) -> i64 {
    let mut power = 10_i64;
    loop {
        for (times, of) in [(1, 1), (3, 2), (2, 1), (3, 1), (5, 1), (15, 2), (10, 1)] {
            let step = power.saturating_mul(times).checked_div(of).unwrap_or(power);
            if step >= amount {
                return step;
            }
        }
        let Some(next) = power.checked_mul(10) else {
            return i64::MAX;
        };
        power = next;
    }
}

// === impl Band ===

impl Band {
    pub(super) fn holds(self, trip: &Trip) -> bool {
        trip.picked >= self.from && self.below.is_none_or(|below| trip.picked < below)
    }
}
