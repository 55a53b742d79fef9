//! From trips to rules.
//!
//! 1. **Shape.** A policy tolerates max(absolute, percent of picked): the absolute part is for small
//!    carts, the percent for large ones. For each percent there is one absolute amount that covers the
//!    share; the pair that tolerates least in all is the shape.
//! 2. **Groups.** A category (of carts that are mostly of it) or a store varies more or less than all:
//!    its *factor* is the upper bound of (charged - picked) / tolerance in it, by order statistics at
//!    the stated confidence. It is shrunk towards what stands above it (store to its categories,
//!    category to all) by n / (n + needed), and of too few trips to bound anything it may only widen.
//! 3. **Level.** Rules that were chosen on trips flatter themselves on them. So five times the rules are
//!    made without a fifth of the trips and tried on it, and the upper bound of how far those trips went,
//!    at the stated confidence, scales all rules ("cross-conformal": Vovk 2015; Barber et al. 2021).
//!
//! A chain of stores is not known to a policy, so nothing is shrunk to one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use standin_core::id::StoreId;
use standin_core::policy::{RuleKey, Threshold, Thresholds};

use super::quantile::{needed, rank, upper_rank, value};
use super::{AdviseError, Share, Split, Trip, WHOLE};

/// Percents that are tried for the shape go up by this much, basis points, ...
const SHAPE_STEP_BP: u32 = 250;
/// ... to this.
const SHAPE_MAX_BP: u32 = 5_000;
/// Trips are left out by so many turns.
const FOLDS: usize = 5;
/// Of a category with fewer trips nothing is said.
const GROUP_MIN: usize = 20;
/// A factor this close to one makes no rule of its own, basis points.
const FACTOR_SAME: i64 = 500;
/// Advised percents are multiples of this, basis points: a tenth of a percent.
const PERCENT_STEP_BP: i64 = 10;
/// Advised amounts are multiples of this, minor units.
const ABSOLUTE_STEP: i64 = 5;
/// No tolerance of ours meets it: ceilings are put on afterwards.
const NO_CEILING: i64 = i64::MAX / 4;

/// What to fit, and how sure to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Aim {
    /// Of all trips this share shall be covered.
    pub cover: Share,
    /// Of the bounds.
    pub confidence: Share,
    /// Who gets rules of their own.
    pub split: Split,
}

/// A category or store with a rule of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// What the rule is for.
    pub key: RuleKey,
    /// Trips it was made from.
    pub trips: usize,
    /// How much wider than what stands above it, basis points of that.
    pub factor_bp: i64,
    /// Whether there were enough trips for a bound at the stated confidence.
    pub bounded: bool,
}

/// Rules made from trips, ceilings left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fitted {
    /// The rules.
    pub thresholds: Thresholds,
    /// Why those that are not the default are there.
    pub groups: Vec<Group>,
    /// What all were scaled by in the end, basis points.
    pub level_bp: i64,
}

/// Makes rules from trips.
///
/// # Errors
/// [`AdviseError::TooFew`].
pub fn fit(trips: &[&Trip], aim: Aim) -> Result<Fitted, AdviseError> {
    let too_few = || AdviseError::TooFew {
        have: trips.len(),
        need: needed(aim.cover, aim.confidence),
    };
    let rank = upper_rank(trips.len(), aim.cover, aim.confidence).ok_or_else(too_few)?;
    let mut scores = Vec::with_capacity(trips.len());
    for fold in 0..FOLDS {
        let (left_out, rest) = parted(trips, fold);
        let (rules, _groups) = rules(&rest, aim);
        scores.extend(left_out.iter().map(|trip| score(&rules, trip)));
    }
    let level_bp = value(&mut scores, rank).ok_or_else(too_few)?.max(0);
    let (unscaled, groups) = rules(trips, aim);
    let scale = |threshold| scaled(threshold, level_bp, Rounding::Up);
    let rules = unscaled.rules().map(|(key, rule)| (key, scale(rule)));
    let thresholds = Thresholds::of(scale(unscaled.default_threshold()), rules);
    Ok(Fitted {
        thresholds,
        groups,
        level_bp,
    })
}

/// Every so-many-th trip, and the others. Trips are in the order of time, so each part is of all of it.
fn parted<'a>(trips: &[&'a Trip], fold: usize) -> (Vec<&'a Trip>, Vec<&'a Trip>) {
    let (mut left_out, mut rest) = (Vec::new(), Vec::new());
    for (at, trip) in trips.iter().enumerate() {
        if at.checked_rem(FOLDS) == Some(fold) {
            left_out.push(*trip);
        } else {
            rest.push(*trip);
        }
    }
    (left_out, rest)
}

/// Steps 1 and 2.
fn rules(trips: &[&Trip], aim: Aim) -> (Thresholds, Vec<Group>) {
    let shape = shape(trips, aim.cover);
    let mut thresholds = Thresholds::of(shape, []);
    let mut groups = Vec::new();
    if matches!(aim.split, Split::Category | Split::Both) {
        add_categories(&mut thresholds, &mut groups, trips, aim);
    }
    if matches!(aim.split, Split::Store | Split::Both) {
        add_stores(&mut thresholds, &mut groups, trips, aim);
    }
    (thresholds, groups)
}

/// The cheapest of the pairs that cover the share.
fn shape(trips: &[&Trip], cover: Share) -> Threshold {
    let at = rank(trips.len(), cover);
    let mut best: Option<(i128, Threshold)> = None;
    let steps = SHAPE_MAX_BP.checked_div(SHAPE_STEP_BP).unwrap_or(0);
    let mut wanted = Vec::with_capacity(trips.len());
    for step in 0..=steps {
        let percent_bp = step.saturating_mul(SHAPE_STEP_BP);
        wanted.clear();
        wanted.extend(trips.iter().map(|trip| {
            let over = over(trip);
            if over > part(trip.picked, percent_bp) {
                over
            } else {
                0
            }
        }));
        let threshold = Threshold {
            percent_bp,
            // Not nothing: the level scales it, and nothing would stay nothing.
            absolute: value(&mut wanted, at).unwrap_or(0).max(ABSOLUTE_STEP),
            ceiling: NO_CEILING,
        };
        let tolerated = trips.iter().fold(0_i128, |sum, trip| {
            let most = threshold.absolute.max(part(trip.picked, percent_bp));
            sum.saturating_add(i128::from(most))
        });
        if best.is_none_or(|(least, _)| tolerated < least) {
            best = Some((tolerated, threshold));
        }
    }
    best.map_or(
        Threshold {
            percent_bp: 0,
            absolute: 0,
            ceiling: NO_CEILING,
        },
        |(_, threshold)| threshold,
    )
}

fn add_categories(thresholds: &mut Thresholds, groups: &mut Vec<Group>, trips: &[&Trip], aim: Aim) {
    let mut scores: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for trip in trips {
        if let Some(category) = mostly(trip) {
            scores
                .entry(category)
                .or_default()
                .push(score(thresholds, trip));
        }
    }
    let shape = thresholds.default_threshold();
    let mut rules = Vec::new();
    for (category, mut scores) in scores {
        let Some((factor_bp, bounded)) = factor(&mut scores, aim) else {
            continue;
        };
        let key = RuleKey {
            store: None,
            category: Some(category.to_owned()),
        };
        rules.push((key.clone(), scaled(shape, factor_bp, Rounding::None)));
        groups.push(Group {
            key,
            trips: scores.len(),
            factor_bp,
            bounded,
        });
    }
    *thresholds = Thresholds::of(shape, rules);
}

/// A store's rule hides those of categories, so each of them gets one in the store too.
fn add_stores(thresholds: &mut Thresholds, groups: &mut Vec<Group>, trips: &[&Trip], aim: Aim) {
    let mut scores: BTreeMap<StoreId, Vec<i64>> = BTreeMap::new();
    for trip in trips {
        let of_store = scores.entry(trip.store).or_default();
        of_store.push(score(thresholds, trip));
    }
    let above: Vec<(RuleKey, Threshold)> = thresholds.rules().collect();
    let default = thresholds.default_threshold();
    let mut rules = above.clone();
    for (store, mut scores) in scores {
        let Some((factor_bp, bounded)) = factor(&mut scores, aim) else {
            continue;
        };
        let key = |category: Option<String>| RuleKey {
            store: Some(store),
            category,
        };
        rules.push((key(None), scaled(default, factor_bp, Rounding::None)));
        for (of, threshold) in &above {
            let threshold = scaled(*threshold, factor_bp, Rounding::None);
            rules.push((key(of.category.clone()), threshold));
        }
        groups.push(Group {
            key: key(None),
            trips: scores.len(),
            factor_bp,
            bounded,
        });
    }
    *thresholds = Thresholds::of(default, rules);
}

/// How much wider a group must be than what stands above it, and whether that is a bound; `None` when
/// it is as good as the same, or nothing can be said.
pub(super) fn factor(scores: &mut [i64], aim: Aim) -> Option<(i64, bool)> {
    let n = scores.len();
    if n < GROUP_MIN {
        return None;
    }
    let rank = upper_rank(n, aim.cover, aim.confidence);
    // Too few for a bound: the largest, as far as they weigh, and only if it widens.
    let own = value(scores, rank.unwrap_or(n))?;
    let own = if rank.is_some() {
        own.max(0)
    } else {
        own.max(WHOLE)
    };
    let weight = i128::try_from(n).ok()?;
    let above = i128::try_from(needed(aim.cover, aim.confidence)).ok()?;
    let sum = i128::from(own)
        .saturating_mul(weight)
        .saturating_add(i128::from(WHOLE).saturating_mul(above));
    let mixed = sum.checked_div(weight.saturating_add(above))?;
    let mixed = i64::try_from(mixed).ok()?;
    let same = mixed.abs_diff(WHOLE) <= FACTOR_SAME.unsigned_abs();
    (!same).then_some((mixed, rank.is_some()))
}

/// The category that more than half of a cart is of.
pub(super) fn mostly(trip: &Trip) -> Option<&str> {
    trip.mix
        .iter()
        .find(|(_, sum)| sum.saturating_mul(2) > trip.picked && **sum > 0)
        .map(|(category, _)| category.as_str())
}

/// What was charged above what was picked.
pub(super) const fn over(trip: &Trip) -> i64 {
    trip.charged.saturating_sub(trip.picked)
}

/// How much of its tolerance a trip needed, basis points: at most [`WHOLE`] is covered.
fn score(thresholds: &Thresholds, trip: &Trip) -> i64 {
    let over = over(trip);
    if over <= 0 {
        return 0;
    }
    let cap = thresholds.cap_of(trip.store, trip.picked, &trip.mix);
    let tolerated = cap.saturating_sub(trip.picked.max(0));
    // Rounded up: a score of the level is covered by the level.
    let needed = i128::from(over).saturating_mul(i128::from(WHOLE));
    let tolerated = i128::from(tolerated);
    let score = needed
        .saturating_add(tolerated.saturating_sub(1).max(0))
        .checked_div(tolerated);
    score
        .and_then(|score| i64::try_from(score).ok())
        .unwrap_or(i64::MAX)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    None,
    /// To the advised steps.
    Up,
}

fn scaled(threshold: Threshold, factor_bp: i64, rounding: Rounding) -> Threshold {
    let by = |amount: i64, step: i64| {
        let product = i128::from(amount).saturating_mul(i128::from(factor_bp));
        let whole = i128::from(WHOLE);
        let amount = product
            .saturating_add(whole.saturating_sub(1))
            .checked_div(whole)
            .and_then(|amount| i64::try_from(amount).ok())
            .unwrap_or(NO_CEILING)
            .clamp(0, NO_CEILING);
        match rounding {
            Rounding::None => amount,
            Rounding::Up => amount
                .saturating_add(step.saturating_sub(1))
                .checked_div(step)
                .unwrap_or(amount)
                .saturating_mul(step),
        }
    };
    let percent = by(i64::from(threshold.percent_bp), PERCENT_STEP_BP).clamp(0, WHOLE);
    Threshold {
        percent_bp: u32::try_from(percent).unwrap_or(0),
        absolute: by(threshold.absolute, ABSOLUTE_STEP),
        ceiling: threshold.ceiling,
    }
}

fn part(picked: i64, percent_bp: u32) -> i64 {
    let product = i128::from(picked.max(0)).saturating_mul(i128::from(percent_bp));
    product
        .checked_div(i128::from(WHOLE))
        .and_then(|part| i64::try_from(part).ok())
        .unwrap_or(0)
}

/// The categories and stores that trips tell of.
pub(super) fn known(trips: &[&Trip]) -> (BTreeSet<String>, BTreeSet<StoreId>) {
    let categories = trips.iter().flat_map(|trip| trip.mix.keys().cloned());
    let stores = trips.iter().map(|trip| trip.store);
    (categories.collect(), stores.collect())
}
