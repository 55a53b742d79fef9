//! From one version to the next: how far each tolerance goes, and how far it may.
//!
//! A proposal may change tolerances only: thresholds, and the tolerance of standing in. The limit is
//! the *active* version's, so that no proposal widens its own step.

use std::collections::BTreeSet;

use super::{Change, Policy, RuleKey, Threshold, Thresholds, WHOLE_BP};
use crate::id::StoreId;

/// Most places (a store's category) at which two versions are compared.
pub const PLACES_MAX: usize = 1_000_000;

/// How far the next version may go from this one, and what is seen of it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promotion {
    /// Of a percent, up or down, basis points.
    pub max_step_percent_bp: u32,
    /// Of an absolute tolerance, up or down, minor units.
    pub max_step_absolute: i64,
    /// Of a ceiling, up or down, minor units.
    pub max_step_ceiling: i64,
    /// Requests that edges must have judged by the proposal, beside this version.
    pub min_shadow: u64,
}

/// Where a tolerance holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// Where no rule names it.
    Default,
    /// A store, a category, or both.
    Rule(RuleKey),
    /// While standing in, everywhere.
    StandIn,
}

/// One tolerance in both versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where.
    pub place: Place,
    /// In the active version.
    pub from: Threshold,
    /// In the proposed one.
    pub to: Threshold,
}

/// Why a proposal may not take the place of the active version as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PromoteError {
    /// Its version is not a later one.
    #[error("the proposal's version {to} is not above the active {from}")]
    Version {
        /// Active.
        from: u32,
        /// Proposed.
        to: u32,
    },
    /// It changes more than tolerances.
    #[error(
        "the proposal changes {0}: only thresholds and the tolerance of standing in may be promoted"
    )]
    Other(&'static str),
    /// It changes nothing.
    #[error("the proposal's tolerances are those of the active version")]
    Nothing,
    /// Too many rules of stores and categories.
    #[error("more than {PLACES_MAX} tolerances to compare")]
    TooMany,
    /// Some tolerances go further than one step may.
    #[error("{} of its steps go beyond what the active version allows, the first at {}", beyond.len(), first(beyond))]
    Beyond {
        /// Those that do; at least one.
        beyond: Vec<Step>,
    },
}

fn first(beyond: &[Step]) -> String {
    beyond.first().map_or_else(String::new, Step::to_string)
}

// === impl Promotion ===

impl Default for Promotion {
    /// Of a policy that does not say: five percent, five and five hundred units of two decimals, and a
    /// thousand requests.
    fn default() -> Self {
        Self {
            max_step_percent_bp: 500,
            max_step_absolute: 500,
            max_step_ceiling: 50_000,
            min_shadow: 1_000,
        }
    }
}

impl Promotion {
    /// Whether a step stays inside.
    pub fn allows(&self, step: &Step) -> bool {
        let Step { from, to, .. } = step;
        from.percent_bp.abs_diff(to.percent_bp) <= self.max_step_percent_bp
            && within(from.absolute, to.absolute, self.max_step_absolute)
            && within(from.ceiling, to.ceiling, self.max_step_ceiling)
    }

    /// As far from `from` towards `to` as one step may go.
    fn toward(&self, from: Threshold, to: Threshold) -> Threshold {
        let percent = clamped(
            i64::from(from.percent_bp),
            i64::from(to.percent_bp),
            i64::from(self.max_step_percent_bp),
        );
        let ceiling = clamped(from.ceiling, to.ceiling, self.max_step_ceiling);
        Threshold {
            percent_bp: u32::try_from(percent).unwrap_or(WHOLE_BP).min(WHOLE_BP),
            absolute: clamped(from.absolute, to.absolute, self.max_step_absolute).min(ceiling),
            ceiling,
        }
    }
}

fn within(from: i64, to: i64, most: i64) -> bool {
    from.abs_diff(to) <= most.unsigned_abs()
}

fn clamped(from: i64, to: i64, most: i64) -> i64 {
    to.clamp(from.saturating_sub(most), from.saturating_add(most))
}

// === impl Step ===

impl Step {
    /// Whether anything is tolerated that was not.
    pub const fn loosens(&self) -> bool {
        self.to.percent_bp > self.from.percent_bp
            || self.to.absolute > self.from.absolute
            || self.to.ceiling > self.from.ceiling
    }

    /// Whether anything is tolerated no more.
    pub const fn tightens(&self) -> bool {
        self.to.percent_bp < self.from.percent_bp
            || self.to.absolute < self.from.absolute
            || self.to.ceiling < self.from.ceiling
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, from, to } = self;
        write!(
            f,
            "{place}: {} % to {} %, absolute {} to {}, ceiling {} to {} (minor units)",
            super::write::percent(from.percent_bp),
            super::write::percent(to.percent_bp),
            from.absolute,
            to.absolute,
            from.ceiling,
            to.ceiling
        )
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::StandIn => f.write_str("stand_in"),
            Self::Rule(key) => match (key.store, &key.category) {
                (Some(store), Some(category)) => write!(f, "store {store} + {category}"),
                (Some(store), None) => write!(f, "store {store}"),
                (None, Some(category)) => write!(f, "category {category}"),
                (None, None) => f.write_str("default"),
            },
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Every tolerance in which `proposed` differs from this version, by place. A place is a rule of
    /// either, and each store's share of each category where both have rules: dropping a store's rule
    /// changes what its categories get.
    ///
    /// # Errors
    /// [`PromoteError::Version`], [`PromoteError::Other`], [`PromoteError::Nothing`] and
    /// [`PromoteError::TooMany`].
    pub fn steps_to(&self, proposed: &Self) -> Result<Vec<Step>, PromoteError> {
        if proposed.version <= self.version {
            return Err(PromoteError::Version {
                from: self.version,
                to: proposed.version,
            });
        }
        if let Some(other) = self.differs_elsewhere(proposed) {
            return Err(PromoteError::Other(other));
        }
        let step = |place, from, to| Step { place, from, to };
        let (from, to) = (&self.thresholds, &proposed.thresholds);
        let mut steps = vec![step(Place::Default, from.default, to.default)];
        for key in places(from, to)? {
            let (from, to) = (from.at(&key), to.at(&key));
            steps.push(step(Place::Rule(key), from, to));
        }
        let (from, to) = (self.stand_in.threshold, proposed.stand_in.threshold);
        steps.push(step(Place::StandIn, from, to));
        steps.retain(|step| step.from != step.to);
        if steps.is_empty() {
            return Err(PromoteError::Nothing);
        }
        Ok(steps)
    }

    /// What this version becomes when `proposed` is promoted whole: the proposal, with who did it.
    ///
    /// # Errors
    /// As [`Policy::steps_to`], and [`PromoteError::Beyond`] when a step is larger than this version
    /// allows.
    pub fn promoted(&self, proposed: &Self, change: Change) -> Result<Self, PromoteError> {
        let mut beyond = self.steps_to(proposed)?;
        beyond.retain(|step| !self.promotion.allows(step));
        if !beyond.is_empty() {
            return Err(PromoteError::Beyond { beyond });
        }
        Ok(Self {
            change: Some(change),
            ..proposed.clone()
        })
    }

    /// As far towards `proposed` as this version allows in one step: every tolerance goes its whole
    /// way or the largest step. The rest stays proposed, as the version after it.
    ///
    /// # Errors
    /// As [`Policy::promoted`]: where a store's rule is dropped or comes, one step of the rules may be
    /// more than one of what its categories get.
    pub fn stepped(&self, proposed: &Self, change: Change) -> Result<Self, PromoteError> {
        self.steps_to(proposed)?;
        let (from, to) = (&self.thresholds, &proposed.thresholds);
        let keys: BTreeSet<RuleKey> = from.rules().chain(to.rules()).map(|(key, _)| key).collect();
        let limit = &self.promotion;
        let rules = keys.into_iter().map(|key| {
            let threshold = limit.toward(from.at(&key), to.at(&key));
            (key, threshold)
        });
        let thresholds = Thresholds::of(limit.toward(from.default, to.default), rules);
        let mut next = Self {
            thresholds,
            change: None,
            ..self.clone()
        };
        next.version = proposed.version;
        let stand_in = limit.toward(self.stand_in.threshold, proposed.stand_in.threshold);
        next.stand_in.threshold = stand_in;
        self.promoted(&next, change)
    }

    /// A part other than the tolerances in which `proposed` differs.
    fn differs_elsewhere(&self, proposed: &Self) -> Option<&'static str> {
        let mut stand_in = proposed.stand_in.clone();
        stand_in.threshold = self.stand_in.threshold;
        [
            ("currency", self.currency == proposed.currency),
            ("primary", self.primary == proposed.primary),
            ("stand_in beside its tolerance", self.stand_in == stand_in),
            ("isolated", self.isolated == proposed.isolated),
            ("geofence", self.geofence == proposed.geofence),
            ("velocity", self.velocity == proposed.velocity),
            ("double_swipe", self.double_swipe == proposed.double_swipe),
            ("promotion", self.promotion == proposed.promotion),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }
}

fn places(from: &Thresholds, to: &Thresholds) -> Result<BTreeSet<RuleKey>, PromoteError> {
    let mut places: BTreeSet<RuleKey> =
        from.rules().chain(to.rules()).map(|(key, _)| key).collect();
    let stores: BTreeSet<StoreId> = places.iter().filter_map(|key| key.store).collect();
    let categories: BTreeSet<String> = places
        .iter()
        .filter_map(|key| key.category.clone())
        .collect();
    if stores.len().saturating_mul(categories.len()) > PLACES_MAX {
        return Err(PromoteError::TooMany);
    }
    for store in stores {
        for category in &categories {
            places.insert(RuleKey {
                store: Some(store),
                category: Some(category.clone()),
            });
        }
        places.insert(RuleKey {
            store: Some(store),
            category: None,
        });
    }
    Ok(places)
}
