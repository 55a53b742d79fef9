#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::inconsistent_digit_grouping,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test code; amounts are written in cents"
)]
use standin_core::policy::{Policy, RuleKey};

use super::advise::{advise, in_time};
use super::fit::{Aim, factor, fit};
use super::judge::{judge, round};
use super::quantile::{interval, needed, rank, upper_rank, value};
use super::*;

fn share(bp: u32) -> Share {
    Share::from_bp(bp).unwrap()
}

pub(crate) fn aim(cover: u32, split: Split) -> Aim {
    Aim {
        cover: share(cover),
        confidence: share(9_500),
        split,
    }
}

/// Numbers that look random and are the same at each run; a failure names its seed.
struct Chance(u64);

impl Chance {
    /// Uniform in [0, 1).
    fn next(&mut self) -> f64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Trips over eight weeks of three categories: what is charged is off by an exponential share of the
/// cart, whose mean is given by category, in half of the trips above and in half below.
pub(crate) fn trips(count: u32, means: &[(&str, f64)], seed: u64) -> Vec<Trip> {
    let mut chance = Chance(seed);
    let minute = 8 * 7 * 24 * 60 / i64::from(count).max(1) + 1;
    (0..i64::from(count))
        .map(|number| {
            let (category, mean) = means[(chance.next() * means.len() as f64) as usize];
            let picked = 200 + (chance.next() * 80_00.0) as i64;
            let off = -(1.0 - chance.next()).ln() * mean * picked as f64;
            let sign = if chance.next() < 0.5 { 1.0 } else { -1.0 };
            Trip {
                at: Timestamp::from_millis(1_700_000_000_000 + number * minute * 60_000),
                store: (1 + number % 7).try_into().unwrap(),
                picked,
                charged: (picked as f64 + sign * off).max(1.0) as i64,
                mix: [(category.to_owned(), picked)].into(),
            }
        })
        .collect()
}

#[test]
fn the_largest_of_59_bounds_95_percent_and_of_299_bounds_99() {
    let confidence = share(9_500);
    for (bp, n) in [(9_500, 59), (9_900, 299), (5_000, 5)] {
        assert_eq!(needed(share(bp), confidence), n);
        assert_eq!(upper_rank(n, share(bp), confidence), Some(n));
        assert_eq!(upper_rank(n - 1, share(bp), confidence), None);
    }
    assert_eq!(upper_rank(0, confidence, confidence), None);
    // From the tables of order statistics: two of 93 may lie above the 95 % point.
    assert_eq!(upper_rank(93, share(9_500), confidence), Some(92));
}

/// P(Bin(n, q) <= r - 1) for each r from 0 to n, each term by itself.
fn surely_above(n: usize, q: f64) -> Vec<f64> {
    let mut ln_factorials = vec![0.0];
    for i in 1..=n {
        ln_factorials.push(ln_factorials[i - 1] + (i as f64).ln());
    }
    let mut sums = vec![0.0];
    for k in 0..n {
        let ways = ln_factorials[n] - ln_factorials[k] - ln_factorials[n - k];
        let exactly = ways + k as f64 * q.ln() + (n - k) as f64 * (1.0 - q).ln();
        sums.push(sums[k] + exactly.exp());
    }
    sums
}

#[test]
fn the_rank_is_the_first_that_is_sure_enough() {
    for n in [5, 59, 60, 100, 137, 299, 300] {
        for bp in [5_000, 8_000, 9_000, 9_500, 9_900] {
            let sure_of = surely_above(n, share(bp).fraction());
            for sure in [9_000, 9_500, 9_900] {
                let enough = |r: &usize| sure_of[*r] >= share(sure).fraction() - 1e-12;
                let first = (1..=n).find(enough);
                assert_eq!(
                    upper_rank(n, share(bp), share(sure)),
                    first,
                    "{n} {bp} {sure}"
                );
            }
        }
    }
}

#[test]
fn a_bound_needs_more_of_the_sample_the_thinner_it_is() {
    let confidence = share(9_500);
    for bp in [9_000, 9_500, 9_900] {
        let least = needed(share(bp), confidence);
        let parts: Vec<f64> = [1, 2, 5, 20, 100]
            .map(|times| {
                let n = least * times;
                upper_rank(n, share(bp), confidence).unwrap() as f64 / n as f64
            })
            .to_vec();
        assert!(
            parts.is_sorted_by(|thin, thick| thin > thick),
            "{bp}: {parts:?}"
        );
        assert!(parts.iter().all(|part| *part > share(bp).fraction()));
    }
}

#[test]
fn the_bound_holds_as_often_as_it_says() {
    let (cover, confidence) = (share(9_500), share(9_500));
    for n in [59, 150, 600] {
        let seed = 0x5EED_0000 + n as u64;
        let mut chance = Chance(seed);
        let at = upper_rank(n, cover, confidence).unwrap();
        let repeats = 4_000;
        let held = (0..repeats)
            .filter(|_| {
                // Of uniform numbers the 95 % point is 0.95, whatever made them.
                let mut sample: Vec<u64> = (0..n).map(|_| (chance.next() * 1e9) as u64).collect();
                value(&mut sample, at).unwrap() >= 950_000_000
            })
            .count();
        let share_held = f64::from(held as u32) / f64::from(repeats);
        // Sure of at least 0.95; four standard errors of 4,000 repeats are 0.014. And not idly sure:
        // one rank lower would not do.
        let (exact, below) = (surely_above(n, 0.95)[at], surely_above(n, 0.95)[at - 1]);
        println!("seed {seed:#x}: held {share_held:.3}, exactly {exact:.3}");
        assert!((share_held - exact).abs() < 0.014 && exact >= 0.95);
        assert!(below < 0.95);
    }
}

#[test]
fn ranks_are_monotonic() {
    let confidence = share(9_500);
    for n in [60, 299, 1_000, 5_000] {
        let of = |bp| (rank(n, share(bp)), upper_rank(n, share(bp), confidence));
        for bp in (100..9_500).step_by(100) {
            let (low, high) = (of(bp), of(bp + 100));
            assert!(
                low.0 <= high.0 && low.1 <= high.1 || high.1.is_none(),
                "{n} {bp}"
            );
            assert!(low.1.is_none_or(|upper| upper >= low.0));
        }
    }
    assert_eq!(
        [
            rank(0, confidence),
            rank(100, confidence),
            rank(101, confidence)
        ],
        [0, 95, 96]
    );
    assert_eq!(value(&mut [3, 1, 2], 2), Some(2));
    assert_eq!(value(&mut [3, 1, 2], 9), Some(3));
    assert_eq!(value::<i64>(&mut [], 1), None);
}

#[test]
fn an_interval_is_around_what_was_seen() {
    // Wilson's, as R's binom.confint(95, 100, method = "wilson") gives it.
    let seen = interval(95, 100);
    assert_eq!((seen.low_bp, seen.high_bp), (8_882, 9_785));
    assert_eq!((interval(0, 0).low_bp, interval(0, 0).high_bp), (0, WHOLE));
}

#[test]
fn costs_give_the_share() {
    assert_eq!(Share::from_costs(99, 1), Share::from_bp(9_900));
    assert_eq!(Share::from_costs(1, 1), Share::from_bp(5_000));
    assert_eq!(Share::from_costs(2, 1), Share::from_bp(6_667));
    for (decline, over) in [(0, 1), (1, 0), (0, 0), (1, 1_000_000)] {
        assert_eq!(Share::from_costs(decline, over), None);
    }
    assert_eq!(
        [percent(9_850), percent(9_999), percent(-50)],
        ["98.5 %", "99.99 %", "-0.5 %"]
    );
}

#[test]
fn round_amounts_are_not_below() {
    for (amount, expected) in [
        (0, 10),
        (10, 10),
        (518, 750),
        (1_346, 1_500),
        (75_01, 100_00),
    ] {
        assert_eq!(round(amount), expected);
    }
    assert_eq!(round(i64::MAX), i64::MAX);
}

/// Three standard errors of a share seen on so many trips, basis points.
fn chance_of(cover: u32, trips: usize) -> i64 {
    let q = f64::from(cover) / 10_000.0;
    (3.0 * (q * (1.0 - q) / trips as f64).sqrt() * 10_000.0) as i64
}

#[test]
fn what_is_advised_covers_the_share_of_trips_not_seen() {
    let means = [("GROCERY", 0.02), ("PRODUCE", 0.08), ("FLORAL", 0.20)];
    for seed in [1, 2, 3] {
        let trips = trips(16_000, &means, seed);
        let (learnt, last) = in_time(&trips);
        for (cover, split) in [
            (9_000, Split::None),
            (9_500, Split::Category),
            (9_900, Split::Category),
            (9_500, Split::Both),
        ] {
            let fitted = fit(&learnt, aim(cover, split)).unwrap();
            let judged = judge(&fitted.thresholds, last.iter().copied());
            let off = judged.covered_bp - i64::from(cover);
            // What 4,000 trips can tell, and what the bound's confidence adds of 12,000.
            let most = chance_of(cover, last.len()) + chance_of(cover, learnt.len());
            println!("seed {seed}, {cover} {split:?}: off by {off} bp of at most {most}");
            assert!(off.abs() <= most);
        }
    }
}

#[test]
fn a_category_that_varies_more_gets_more_and_pays_for_less_elsewhere() {
    let trips = trips(12_000, &[("GROCERY", 0.02), ("FLORAL", 0.20)], 4);
    let (learnt, last) = in_time(&trips);
    let of = |split| fit(&learnt, aim(9_500, split)).unwrap();
    let (one, by_category) = (of(Split::None), of(Split::Category));
    let rule = |name: &str| {
        by_category.thresholds.at(&RuleKey {
            store: None,
            category: Some(name.to_owned()),
        })
    };
    assert!(rule("FLORAL").percent_bp > 2 * rule("GROCERY").percent_bp);
    let [one, split] =
        [one, by_category].map(|rules| judge(&rules.thresholds, last.iter().copied()));
    assert!(split.tolerated < one.tolerated, "{split:?} {one:?}");
    // And each category is covered by itself, which one rule for all cannot do.
    let floral = |rules: &standin_core::policy::Thresholds| {
        let trips = last
            .iter()
            .copied()
            .filter(|trip| trip.mix.contains_key("FLORAL"));
        judge(rules, trips).covered_bp
    };
    assert!((floral(&of(Split::Category).thresholds) - 9_500).abs() < 200);
    assert!(floral(&of(Split::None).thresholds) < 9_200);
}

#[test]
fn a_group_of_too_few_trips_may_widen_and_never_narrows() {
    let aim = aim(9_900, Split::Category);
    let least = needed(aim.cover, aim.confidence);
    for n in [20, 100, least - 1] {
        let wide = factor(&mut vec![3 * WHOLE; n], aim).unwrap();
        assert!(
            wide.0 > WHOLE && wide.0 < 3 * WHOLE && !wide.1,
            "{n}: {wide:?}"
        );
        assert_eq!(factor(&mut vec![WHOLE / 4; n], aim), None, "{n}");
    }
    // The more trips the less is borrowed.
    let factors: Vec<i64> = [20, 100, least, 10 * least, 100 * least]
        .map(|n| factor(&mut vec![3 * WHOLE; n], aim).unwrap().0)
        .to_vec();
    assert!(
        factors.is_sorted_by(|thin, thick| thin < thick),
        "{factors:?}"
    );
    let (narrow, bounded) = factor(&mut vec![WHOLE / 4; 10 * least], aim).unwrap();
    assert!(narrow < WHOLE && narrow > WHOLE / 4 && bounded);
    assert_eq!(factor(&mut [3 * WHOLE; 19], aim), None);
}

#[test]
fn a_share_just_beyond_what_needs_no_tolerance_is_covered_too() {
    // Half of the trips are charged no more than was picked.
    let trips = trips(8_000, &[("GROCERY", 0.05)], 9);
    let (learnt, last) = in_time(&trips);
    for cover in [4_000, 4_950, 5_000, 5_050, 5_500] {
        let fitted = fit(&learnt, aim(cover, Split::None)).unwrap();
        let judged = judge(&fitted.thresholds, last.iter().copied());
        let least = i64::from(cover) - chance_of(cover, last.len());
        println!("{cover}: {judged:?}");
        assert!(
            judged.covered_bp >= least && judged.covered_bp <= i64::from(cover).max(5_000) + 700
        );
    }
}

#[test]
fn too_few_trips_get_no_advice_and_are_told_how_many_it_takes() {
    let trips = trips(300, &[("GROCERY", 0.05)], 5);
    let refused = advise(&trips, &Policy::example(), aim(9_900, Split::None), &[]);
    let Err(AdviseError::TooFew { have, need }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((have, need), (225, 299));
    let refused = advise(&[], &Policy::example(), aim(9_900, Split::None), &[]);
    assert!(matches!(refused, Err(AdviseError::TooFew { have: 0, .. })));
}

#[test]
fn the_last_quarter_is_not_learnt_from() {
    let mut trips = trips(4_000, &[("GROCERY", 0.05), ("PRODUCE", 0.1)], 6);
    let of = |trips: &[Trip]| {
        let advice = advise(trips, &Policy::example(), aim(9_500, Split::Both), &[]).unwrap();
        (advice.policy.to_toml(), advice.rules, advice.judged)
    };
    let (policy, rules, judged) = of(&trips);
    assert_eq!(of(&trips), (policy.clone(), rules.clone(), judged));
    let cut = in_time(&trips).0.len();
    for trip in trips.iter_mut().skip(cut) {
        trip.charged = trip.picked * 9;
    }
    let (same_policy, same_rules, other) = of(&trips);
    assert_eq!((same_policy, same_rules), (policy, rules));
    assert_eq!(other.covered, 0);
}

#[test]
fn the_advice_is_a_valid_next_version_that_keeps_what_nothing_is_known_of() {
    let base = Policy::example();
    let trips = trips(4_000, &[("GROCERY", 0.02), ("PRODUCE", 0.08)], 7);
    let advice = advise(&trips, &base, aim(9_500, Split::Category), &[]).unwrap();
    let next = &advice.policy;
    assert_eq!(
        (next.version, advice.base_version),
        (base.version + 1, base.version)
    );
    assert_eq!(Policy::parse(&next.to_toml()).unwrap(), *next);
    // Nobody bought meat, and nobody was in store 900001.
    assert_eq!(
        advice.kept,
        ["category MEAT", "store 900001", "store 900001 + PRODUCE"]
    );
    let default = next.thresholds.default_threshold();
    assert!(next.stand_in.threshold.percent_bp <= default.percent_bp);
    assert!(next.stand_in.threshold.absolute <= default.absolute);
    assert!(base.steps_to(next).unwrap().len() > 1);
    // More coverage is more exposure, all along the curve.
    let curve: Vec<(usize, i64)> = advice
        .curve
        .iter()
        .map(|point| (point.judged.covered, point.judged.tolerated))
        .collect();
    assert!(curve.len() > 10 && curve.is_sorted());
    let on_it = advice
        .policies
        .iter()
        .map(|point| point.name.as_deref().unwrap());
    assert_eq!(on_it.collect::<Vec<_>>(), ["active (version 1)", "advised"]);
    // Every trip is in one band and one category.
    for rows in [&advice.bands, &advice.categories, &advice.stores] {
        let learnt: usize = rows.iter().map(|row| row.trips).sum();
        let last: usize = rows.iter().map(|row| row.judged.trips).sum();
        assert_eq!((learnt, last), (advice.learnt.trips, advice.last.trips));
    }
}
