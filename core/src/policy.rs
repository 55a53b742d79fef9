//! The policy: how much more than the cart may be charged, and what is risked without the primary.
//!
//! A policy is a TOML file; [`Policy::parse`] is the only way to one, so a held policy is valid and
//! does not contradict itself. [`examples`] exercises one against what its author expects of it.
//! Amounts are minor units of the policy's currency, shares are basis points, times milliseconds.
//!
//! Deliberately absent: reading the file, reloading it, and any tolerance that depends on the
//! shopper.

use std::collections::BTreeMap;
use std::fmt;

use crate::clock::Timestamp;
use crate::decide::{FloorLimits, Rules, StandInLimits, Tally};
use crate::id::StoreId;
use crate::money::Currency;
use crate::trip::Trip;

pub mod examples;
pub mod promote;
mod text;
mod write;

pub use self::promote::Promotion;

#[cfg(test)]
mod tests;

/// One hundred percent.
pub const WHOLE_BP: u32 = 10_000;
/// Most threshold rules one policy may have.
pub const RULES_MAX: usize = 100_000;
/// Most steps a decay may have.
pub const DECAY_STEPS_MAX: usize = 16;
/// Most rules named in one explanation; more are counted.
const RULES_NAMED_MAX: usize = 6;

/// The example policy's text, which is also the default of the demo.
pub const EXAMPLE: &str = include_str!("../policies/example.toml");
/// What the author of [`EXAMPLE`] expects of it.
pub const EXAMPLE_EXAMPLES: &str = include_str!("../policies/example.examples.toml");

/// All that the rules need besides the facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Goes up with every change; each answer names it.
    pub version: u32,
    /// Currency of every amount here. Trips in another one are declined.
    pub currency: Currency,
    /// While the primary answers.
    pub primary: PrimaryPolicy,
    /// How far above the cart a trip may go.
    pub thresholds: Thresholds,
    /// While it does not.
    pub stand_in: StandInPolicy,
    /// When the trip is too old even for that.
    pub isolated: IsolatedPolicy,
    /// Where the shopper must be.
    pub geofence: Geofence,
    /// How often a trip may pay.
    pub velocity: Velocity,
    /// When the same amount again is taken for a mistake.
    pub double_swipe: DoubleSwipe,
    /// How far the next version may go, and what is seen of it first.
    pub promotion: Promotion,
    /// Where this version comes from, when a proposal became it.
    pub change: Option<Change>,
}

/// Who put a version in force, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Who.
    pub operator: String,
    /// Why, and what the shadow had shown.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The version before.
    pub replaces: u32,
}

/// Bounds while the primary answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrimaryPolicy {
    /// A cached trip older than this is read from the primary again.
    pub trip_age_max_ms: u64,
}

/// One tolerance. Invariant: `absolute <= ceiling`, `percent_bp <= WHOLE_BP`, nothing negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Share of what was picked, basis points.
    pub percent_bp: u32,
    /// At least this much above what was picked, minor units.
    pub absolute: i64,
    /// Never more than this for the whole trip, minor units.
    pub ceiling: i64,
}

/// Tolerances by store and category; the most specific one wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thresholds {
    default: Threshold,
    categories: BTreeMap<String, Threshold>,
    stores: BTreeMap<StoreId, StoreThresholds>,
}

/// One rule of the thresholds: for a store, a category, or a category in a store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RuleKey {
    /// `None`: in every store.
    pub store: Option<StoreId>,
    /// `None`: whatever is bought.
    pub category: Option<String>,
}

/// What one store's rules say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct StoreThresholds {
    all: Option<Threshold>,
    categories: BTreeMap<String, Threshold>,
}

/// Which rule gave a tolerance. From most to least specific.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleName<'a> {
    /// A store's rule for one category.
    StoreCategory(StoreId, &'a str),
    /// A store's rule.
    Store(StoreId),
    /// A category's rule in every store.
    Category(&'a str),
    /// No rule names it.
    Default,
}

/// A trip's cap and the rules that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cap {
    /// Minor units; never negative.
    pub amount: i64,
    /// The rules, in the order of the cart's categories, each once.
    pub rule: String,
}

/// What is risked while the primary is away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandInPolicy {
    /// A cached trip older than this is not stood in with.
    pub trip_age_max_ms: u64,
    /// The tolerance for every store and category; the tighter of this and the thresholds holds.
    pub threshold: Threshold,
    /// One approval, minor units.
    pub transaction: i64,
    /// One shopper, one outage.
    pub shopper_outage: Tally,
    /// One shopper, one hour.
    pub shopper_hour: Tally,
    /// One bank, one outage.
    pub bank_outage: Tally,
    /// One bank, one hour.
    pub bank_hour: Tally,
    /// What is left of these limits as the outage gets older.
    pub decay: Decay,
}

/// What is risked on a trip that is too old.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsolatedPolicy {
    /// One approval, minor units.
    pub floor: i64,
    /// One approval a shopper in this time.
    pub window_ms: u64,
    /// What one edge may spend.
    pub reserve: Tally,
    /// What is left of the floor as the trip gets older.
    pub decay: Decay,
}

/// A share that only shrinks with age.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decay {
    /// Ages ascend, shares do not.
    steps: Vec<DecayStep>,
    /// The share past the last step.
    after_bp: u32,
}

/// One step of a decay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DecayStep {
    /// Holds to this age, inclusive.
    until_ms: u64,
    /// Basis points.
    share_bp: u32,
}

/// Where the shopper must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geofence {
    /// Metres around the trip's store.
    pub radius_m: u32,
    /// An older position counts as missing.
    pub position_age_max_ms: u64,
    /// A position this much from the future is clock skew; more, and it counts as missing.
    pub future_skew_max_ms: u64,
    /// What a missing position means.
    pub missing: MissingPosition,
}

/// What a missing position means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingPosition {
    /// The decision goes on and its `rule` says so.
    Flag,
    /// Declined.
    Decline,
}

/// How often a trip may pay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Velocity {
    /// The window.
    pub window_ms: u64,
    /// Approvals of one trip in it.
    pub approvals_max: u32,
}

/// When the same amount again is taken for a mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoubleSwipe {
    /// The same trip and amount in this time, inclusive.
    pub window_ms: u64,
}

/// Why a text is not a policy, or not examples of one. Never worth a retry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, a key is unknown or missing, or has another type.
    #[error("{0}")]
    Syntax(String),
    /// A value that is not allowed there, or that contradicts another.
    #[error("{key} = {found}: must be {right}")]
    Value {
        /// Path of the key, as in `stand_in.shopper.hour.count`.
        key: String,
        /// What was written.
        found: String,
        /// What would be right.
        right: String,
    },
}

// === impl Policy ===

impl Policy {
    /// Reads and checks a policy; the first fault is the error.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        text::parse(text)
    }

    /// The policy in `core/policies/example.toml`.
    pub fn example() -> Self {
        Self::parse(EXAMPLE).expect("a test parses the embedded example")
    }

    /// Whether a cached trip of this age must be read from the primary before it decides.
    pub const fn must_reload(&self, trip_age_ms: u64) -> bool {
        trip_age_ms > self.primary.trip_age_max_ms
    }

    /// The rules for a trip of this age when the primary is away (`None`: read from it just now).
    pub const fn rules_without_primary(&self, trip_age_ms: Option<u64>) -> Rules {
        match trip_age_ms {
            Some(age) if age > self.stand_in.trip_age_max_ms => Rules::Isolated,
            Some(_) | None => Rules::StandIn,
        }
    }

    /// The most that `trip` may be approved for.
    pub fn cap(&self, trip: &Trip) -> Cap {
        self.thresholds.cap(trip)
    }

    /// The limits in force for one stand-in answer: those of the file, decayed, and never above the
    /// cap. Without a trip nothing may be spent on one. What was picked does not decay: only what is
    /// tolerated above it does, or an old outage would decline what is surely in the cart.
    pub fn stand_in_limits(&self, trip: Option<(&Trip, i64)>, outage_age_ms: u64) -> StandInLimits {
        let limits = &self.stand_in;
        let share = limits.decay.share_at(outage_age_ms);
        let (trip_limit, cap) = match trip {
            Some((trip, cap)) => {
                let decayed = Threshold {
                    percent_bp: part_bp(limits.threshold.percent_bp, share),
                    absolute: part(limits.threshold.absolute, share),
                    ceiling: limits.threshold.ceiling,
                };
                (decayed.over(trip.picked).min(cap), cap)
            }
            None => (0, 0),
        };
        StandInLimits {
            transaction: part(limits.transaction, share).min(cap),
            trip: trip_limit,
            shopper_outage: limits.shopper_outage.part(share),
            shopper_hour: limits.shopper_hour.part(share),
            bank_outage: limits.bank_outage.part(share),
            bank_hour: limits.bank_hour.part(share),
        }
    }

    /// The limits of one answer on a trip that is too old; the floor decays with the trip's age.
    pub fn floor_limits(&self, cap: Option<i64>, trip_age_ms: u64) -> FloorLimits {
        let limits = &self.isolated;
        let share = limits.decay.share_at(trip_age_ms);
        FloorLimits {
            floor: part(limits.floor, share).min(cap.unwrap_or(0)),
            window_ms: limits.window_ms,
            reserve: limits.reserve,
        }
    }
}

// === impl Threshold ===

impl Threshold {
    /// min(picked + max(absolute, percent of picked), ceiling), rounded down.
    fn over(&self, picked: i64) -> i64 {
        let picked = picked.max(0);
        let tolerance = part(picked, self.percent_bp).max(self.absolute);
        picked.saturating_add(tolerance).min(self.ceiling)
    }
}

// === impl Thresholds ===

impl Thresholds {
    /// The tolerance where no rule is more specific.
    pub const fn default_threshold(&self) -> Threshold {
        self.default
    }

    /// Thresholds of a default and rules; of two rules with one key the later one holds. Rules without
    /// store and category are the default's and do not count.
    pub fn of(default: Threshold, rules: impl IntoIterator<Item = (RuleKey, Threshold)>) -> Self {
        let mut thresholds = Self {
            default,
            categories: BTreeMap::new(),
            stores: BTreeMap::new(),
        };
        for (key, threshold) in rules {
            thresholds.put(key, threshold);
        }
        thresholds
    }

    /// Every rule, those of all stores first.
    pub fn rules(&self) -> impl Iterator<Item = (RuleKey, Threshold)> + '_ {
        let everywhere = self.categories.iter().map(|(category, threshold)| {
            let key = RuleKey {
                store: None,
                category: Some(category.clone()),
            };
            (key, *threshold)
        });
        let in_stores = self.stores.iter().flat_map(|(store, rules)| {
            let key = |category| RuleKey {
                store: Some(*store),
                category,
            };
            let all = rules.all.map(|threshold| (key(None), threshold));
            let categories = rules.categories.iter();
            let of_categories =
                categories.map(move |(name, threshold)| (key(Some(name.clone())), *threshold));
            all.into_iter().chain(of_categories)
        });
        everywhere.chain(in_stores)
    }

    /// Puts a rule in the place of what had its key, and gives that.
    fn put(&mut self, key: RuleKey, threshold: Threshold) -> Option<Threshold> {
        match (key.store, key.category) {
            (Some(store), Some(category)) => {
                let of_store = self.stores.entry(store).or_default();
                of_store.categories.insert(category, threshold)
            }
            (Some(store), None) => {
                let of_store = self.stores.entry(store).or_default();
                of_store.all.replace(threshold)
            }
            (None, Some(category)) => self.categories.insert(category, threshold),
            (None, None) => None,
        }
    }

    /// The tolerance of a key's store and category, whatever rule gives it.
    pub fn at(&self, key: &RuleKey) -> Threshold {
        match (key.store, &key.category) {
            (Some(store), Some(category)) => self.rule(store, category).0,
            (Some(store), None) => self.store_rule(store).0,
            (None, Some(category)) => self
                .categories
                .get(category)
                .copied()
                .unwrap_or(self.default),
            (None, None) => self.default,
        }
    }

    /// The tolerance for one category in one store, and the rule it comes from.
    pub fn rule<'a>(&self, store: StoreId, category: &'a str) -> (Threshold, RuleName<'a>) {
        let of_store = self.stores.get(&store);
        if let Some(found) = of_store.and_then(|rules| rules.categories.get(category)) {
            return (*found, RuleName::StoreCategory(store, category));
        }
        if let Some(found) = of_store.and_then(|rules| rules.all) {
            return (found, RuleName::Store(store));
        }
        match self.categories.get(category) {
            Some(found) => (*found, RuleName::Category(category)),
            None => (self.default, RuleName::Default),
        }
    }

    /// The tolerance for a cart that names no category.
    pub fn store_rule(&self, store: StoreId) -> (Threshold, RuleName<'static>) {
        match self.stores.get(&store).and_then(|rules| rules.all) {
            Some(found) => (found, RuleName::Store(store)),
            None => (self.default, RuleName::Default),
        }
    }

    /// The most that a cart of this mix may be approved for, minor units: what [`Policy::cap`] gives,
    /// without its explanation.
    pub fn cap_of(&self, store: StoreId, picked: i64, mix: &BTreeMap<String, i64>) -> i64 {
        let picked = picked.max(0);
        weigh(&self.weights(store, picked, mix, |_name| {}), picked)
    }

    fn cap(&self, trip: &Trip) -> Cap {
        let picked = trip.picked.max(0);
        let mut names: Vec<RuleName<'_>> = Vec::new();
        let weights = self.weights(trip.store, picked, &trip.mix, |name| {
            if !names.contains(&name) {
                names.push(name);
            }
        });
        Cap {
            amount: weigh(&weights, picked),
            rule: explain(&names),
        }
    }

    /// Weighs the tolerances by what was picked of each category. What the mix leaves unexplained
    /// falls under the store's rule, and a mix worth more than the cart is not believed at all.
    fn weights<'a>(
        &self,
        store: StoreId,
        picked: i64,
        mix: &'a BTreeMap<String, i64>,
        mut used: impl FnMut(RuleName<'a>),
    ) -> Vec<(Threshold, i64)> {
        let explained: i128 = mix.values().map(|sum| i128::from(*sum).max(0)).sum();
        let mut weights: Vec<(Threshold, i64)> = Vec::with_capacity(mix.len());
        let mut rest = picked;
        if explained <= i128::from(picked) {
            for (category, sum) in mix.iter().filter(|(_, sum)| **sum > 0) {
                let (threshold, name) = self.rule(store, category);
                rest = rest.saturating_sub(*sum);
                weights.push((threshold, *sum));
                used(name);
            }
        }
        if rest > 0 || weights.is_empty() {
            let (threshold, name) = self.store_rule(store);
            weights.push((threshold, rest));
            used(name);
        }
        weights
    }
}

/// min(picked + max(weighted absolute, sum of shares), weighted ceiling), each rounded down. The
/// weights sum to `picked`, so every product fits 127 bits.
fn weigh(weights: &[(Threshold, i64)], picked: i64) -> i64 {
    let sum = |value: fn(&Threshold) -> i64| -> i128 {
        weights.iter().fold(0, |sum: i128, (threshold, weight)| {
            let product = i128::from(*weight).saturating_mul(i128::from(value(threshold)));
            sum.saturating_add(product)
        })
    };
    if picked == 0 {
        return weights.first().map_or(0, |(only, _)| only.over(0));
    }
    let mean = |value| sum(value).checked_div(i128::from(picked)).unwrap_or(0);
    let shares = sum(|threshold| i64::from(threshold.percent_bp))
        .checked_div(i128::from(WHOLE_BP))
        .unwrap_or(0);
    let tolerance = mean(|threshold| threshold.absolute).max(shares);
    let cap = i128::from(picked)
        .saturating_add(tolerance)
        .min(mean(|threshold| threshold.ceiling));
    i64::try_from(cap).unwrap_or(i64::MAX)
}

fn explain(names: &[RuleName<'_>]) -> String {
    let mut text = String::new();
    for name in names.iter().take(RULES_NAMED_MAX) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&name.to_string());
    }
    let more = names.len().saturating_sub(RULES_NAMED_MAX);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

// === impl RuleName ===

impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreCategory(store, category) => write!(f, "store {store} + {category}"),
            Self::Store(store) => write!(f, "store {store}"),
            Self::Category(category) => write!(f, "category {category}"),
            Self::Default => f.write_str("default"),
        }
    }
}

// === impl Decay ===

impl Decay {
    /// The share left at this age, basis points.
    pub fn share_at(&self, age_ms: u64) -> u32 {
        self.steps
            .iter()
            .find(|step| age_ms <= step.until_ms)
            .map_or(self.after_bp, |step| step.share_bp)
    }
}

// === impl Tally ===

impl Tally {
    /// A share of a limit, rounded down; but while any share is left so is one approval, or a small
    /// count would end at the first step.
    fn part(self, share_bp: u32) -> Self {
        let count = part_bp(self.count, share_bp);
        let any = share_bp > 0 && self.count > 0;
        Self {
            amount: part(self.amount, share_bp),
            count: if any { count.max(1) } else { count },
        }
    }

    /// Whether one more approval of `amount` stays inside `limit`.
    pub fn fits(self, amount: i64, limit: Self) -> bool {
        let sum = self.amount.checked_add(amount);
        let count = self.count.checked_add(1);
        sum.is_some_and(|sum| sum <= limit.amount)
            && count.is_some_and(|count| count <= limit.count)
    }
}

/// `share_bp` of an amount, rounded down. Never more than the amount.
fn part(amount: i64, share_bp: u32) -> i64 {
    i128::from(amount)
        .saturating_mul(i128::from(share_bp))
        .checked_div(i128::from(WHOLE_BP))
        .and_then(|part| i64::try_from(part).ok())
        .unwrap_or(amount)
}

fn part_bp(value: u32, share_bp: u32) -> u32 {
    u64::from(value)
        .saturating_mul(u64::from(share_bp))
        .checked_div(u64::from(WHOLE_BP))
        .and_then(|part| u32::try_from(part).ok())
        .unwrap_or(value)
}
