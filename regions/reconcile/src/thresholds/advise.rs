//! Advice as a whole: learn from the first three quarters of the time, make a policy of it, judge it on
//! the last quarter. Nothing of the last quarter is looked at before the policy is made.

use serde::Serialize;
use standin_core::clock::Timestamp;
use standin_core::money::Currency;
use standin_core::policy::{Policy, RuleKey, Threshold, Thresholds};

use super::fit::{Aim, Fitted, Group, fit, known};
use super::judge::{Band, Judged, Row, bands, category, judge, judge_stand_in, round, rows};
use super::simulate::{Point, candidate, curve};
use super::{AdviseError, Trip};

/// A span of trips.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Span {
    /// The first one's time, RFC 3339.
    pub from: String,
    /// The last one's.
    pub until: String,
    /// How many.
    pub trips: usize,
}

/// A rule of the advice, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Advised {
    /// `default`, `category PRODUCE`, `store 367`.
    pub name: String,
    /// Percent of picked, basis points.
    pub percent_bp: u32,
    /// At least so much, minor units.
    pub absolute: i64,
    /// Never more for a trip, minor units.
    pub ceiling: i64,
    /// Trips behind it.
    pub trips: usize,
    /// How much wider than what stands above it, basis points.
    pub factor_bp: i64,
    /// Whether they were enough for a bound; if not it may only widen.
    pub bounded: bool,
}

/// All that is advised, why, and how it did.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Advice {
    /// What was aimed at.
    pub aim: Aim,
    /// Of all amounts.
    pub currency: Currency,
    /// What was learnt from.
    pub learnt: Span,
    /// What it was judged on.
    pub last: Span,
    /// Version of the policy that it is made from.
    pub base_version: u32,
    /// What all rules were scaled by in the end, basis points.
    pub level_bp: i64,
    /// The rules, the default first; stores' copies of categories' rules are left out.
    pub rules: Vec<Advised>,
    /// Rules of the base that the trips say nothing about, and that stay.
    pub kept: Vec<String>,
    /// How it did on the last quarter.
    pub judged: Judged,
    /// How the base did there.
    pub base: Judged,
    /// How its stand-in tolerance did there, the primary being away.
    pub stand_in: Judged,
    /// By what was picked.
    pub bands: Vec<Row>,
    /// By what most of the cart is of.
    pub categories: Vec<Row>,
    /// By store.
    pub stores: Vec<Row>,
    /// Approval rate against exposure.
    pub curve: Vec<Point>,
    /// The base, the advice, and whatever else was to be shown.
    pub policies: Vec<Point>,
    /// The proposed policy.
    #[serde(skip)]
    pub policy: Policy,
}

/// Trips before and in the last quarter of their time, each in the order of time.
pub fn in_time(trips: &[Trip]) -> (Vec<&Trip>, Vec<&Trip>) {
    let mut all: Vec<&Trip> = trips.iter().collect();
    all.sort_by_key(|trip| trip.at);
    let times = all.first().zip(all.last());
    let cut = times.map_or(0, |(first, last)| {
        let whole = last.at.as_millis().saturating_sub(first.at.as_millis());
        let quarter = whole.checked_div(4).unwrap_or(0);
        last.at.as_millis().saturating_sub(quarter)
    });
    let at = all.partition_point(|trip| trip.at < Timestamp::from_millis(cut));
    let last = all.split_off(at);
    (all, last)
}

/// Advises.
///
/// `others` are further policies to show on the curve, by name.
///
/// # Errors
/// [`AdviseError`].
pub fn advise(
    trips: &[Trip],
    base: &Policy,
    aim: Aim,
    others: &[(String, Policy)],
) -> Result<Advice, AdviseError> {
    let (learnt, last) = in_time(trips);
    let fitted = fit(&learnt, aim)?;
    let policy = with_thresholds(base, &fitted, &learnt, ceiling(&learnt, base))?;
    if last.is_empty() {
        return Err(AdviseError::NothingToJudge);
    }
    let thresholds = &policy.thresholds;
    let both = (learnt.as_slice(), last.as_slice());
    let bands = bands(&learnt);
    let band = |trip: &Trip| bands.iter().position(|band| band.holds(trip));
    let mut stores = rows(
        both,
        thresholds,
        aim,
        |trip| Some(trip.store),
        |store| format!("store {store}"),
    );
    stores.sort_by_key(|row| std::cmp::Reverse(row.trips));
    let mut categories = rows(both, thresholds, aim, category, Clone::clone);
    categories.sort_by_key(|row| std::cmp::Reverse(row.trips));
    let mut policies = vec![
        candidate(format!("active (version {})", base.version), base, &last),
        candidate("advised", &policy, &last),
    ];
    policies.extend(
        others
            .iter()
            .map(|(name, policy)| candidate(name, policy, &last)),
    );
    Ok(Advice {
        aim,
        currency: base.currency,
        learnt: span(&learnt),
        last: span(&last),
        base_version: base.version,
        level_bp: fitted.level_bp,
        rules: advised(&fitted, thresholds, learnt.len()),
        kept: kept(base, &learnt).map(|(key, _)| name(&key)).collect(),
        judged: judge(thresholds, last.iter().copied()),
        base: judge(&base.thresholds, last.iter().copied()),
        stand_in: judge_stand_in(&policy, last.iter().copied()),
        bands: rows(both, thresholds, aim, band, |at| {
            band_name(&bands, *at, base.currency)
        }),
        categories,
        stores,
        curve: curve(&learnt, &last, base, aim)?,
        policies,
        policy,
    })
}

/// A bound on harm rather than on variance: half as much again as the largest trip that was charged, at a
/// round amount, but never above the base's ceiling nor below what it stands in for.
pub(super) fn ceiling(learnt: &[&Trip], base: &Policy) -> i64 {
    let most = learnt
        .iter()
        .map(|trip| trip.charged.max(trip.picked))
        .max();
    let roomy = most
        .unwrap_or(0)
        .saturating_mul(3)
        .checked_div(2)
        .unwrap_or(0);
    round(roomy)
        .min(base.thresholds.default_threshold().ceiling)
        .max(base.stand_in.threshold.ceiling)
}

/// The base with fitted rules, as its next version. Rules of stores and categories that no trip tells of
/// stay; the tolerance of standing in is no looser than the default's.
pub(super) fn with_thresholds(
    base: &Policy,
    fitted: &Fitted,
    learnt: &[&Trip],
    ceiling: i64,
) -> Result<Policy, AdviseError> {
    let under = |threshold: Threshold| Threshold {
        absolute: threshold.absolute.min(ceiling),
        ceiling,
        ..threshold
    };
    let default = under(fitted.thresholds.default_threshold());
    let fitted = fitted.thresholds.rules();
    let rules = kept(base, learnt).chain(fitted.map(|(key, rule)| (key, under(rule))));
    let mut next = base.clone();
    next.version = base.version.saturating_add(1);
    next.change = None;
    next.thresholds = Thresholds::of(default, rules);
    let stand_in = &mut next.stand_in.threshold;
    stand_in.percent_bp = stand_in.percent_bp.min(default.percent_bp);
    stand_in.absolute = stand_in.absolute.min(default.absolute);
    stand_in.ceiling = stand_in.ceiling.min(default.ceiling);
    // Whatever it is made of, only what reads as a policy is one.
    Ok(Policy::parse(&next.to_toml())?)
}

fn kept(base: &Policy, learnt: &[&Trip]) -> impl Iterator<Item = (RuleKey, Threshold)> {
    let (categories, stores) = known(learnt);
    base.thresholds.rules().filter(move |(key, _)| {
        let told = key.store.is_none_or(|store| stores.contains(&store));
        let bought = key
            .category
            .as_ref()
            .is_none_or(|name| categories.contains(name));
        !told || (key.store.is_none() && !bought)
    })
}

fn advised(fitted: &Fitted, thresholds: &Thresholds, trips: usize) -> Vec<Advised> {
    let rule = |name: String, threshold: Threshold, group: Option<&Group>| Advised {
        name,
        percent_bp: threshold.percent_bp,
        absolute: threshold.absolute,
        ceiling: threshold.ceiling,
        trips: group.map_or(trips, |group| group.trips),
        factor_bp: group.map_or(super::WHOLE, |group| group.factor_bp),
        bounded: group.is_none_or(|group| group.bounded),
    };
    let default = rule("default".to_owned(), thresholds.default_threshold(), None);
    let groups = fitted.groups.iter().map(|group| {
        let threshold = thresholds.at(&group.key);
        rule(name(&group.key), threshold, Some(group))
    });
    std::iter::once(default).chain(groups).collect()
}

fn name(key: &RuleKey) -> String {
    standin_core::policy::promote::Place::Rule(key.clone()).to_string()
}

fn span(trips: &[&Trip]) -> Span {
    let time = |trip: Option<&&Trip>| trip.map_or_else(String::new, |trip| trip.at.to_string());
    Span {
        from: time(trips.first()),
        until: time(trips.last()),
        trips: trips.len(),
    }
}

fn band_name(bands: &[Band], at: usize, currency: Currency) -> String {
    let money = |minor| standin_core::money::Money::from_minor(minor, currency).to_decimal();
    match bands.get(at) {
        Some(Band {
            from: 0,
            below: Some(below),
        }) => format!("below {}", money(*below)),
        Some(Band {
            from,
            below: Some(below),
        }) => format!("{} to {}", money(*from), money(*below)),
        Some(Band { from, below: None }) => format!("{} and more", money(*from)),
        None => String::new(),
    }
}
