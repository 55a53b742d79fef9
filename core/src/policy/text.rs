//! The policy file: its shape, and the checks that turn it into a [`Policy`].

use std::fmt::Display;

use serde::Deserialize;

use super::{
    Change, DECAY_STEPS_MAX, Decay, DecayStep, DoubleSwipe, Geofence, IsolatedPolicy,
    MissingPosition, Policy, PolicyError, PrimaryPolicy, Promotion, RULES_MAX, RuleKey,
    StandInPolicy, Threshold, Thresholds, Velocity, WHOLE_BP,
};
use crate::clock::Timestamp;
use crate::decide::Tally;
use crate::id::StoreId;
use crate::money::{Currency, Money};
use crate::trip::CATEGORY_BYTES_MAX;

/// Longest window or age a policy may name: a day, for which the register keeps payments.
const MILLIS_MAX: u64 = 86_400_000;
/// Largest geofence.
const RADIUS_M_MAX: u32 = 100_000;
/// Longest name and reason of a change, in bytes.
const CHANGE_BYTES_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    currency: Currency,
    primary: PrimaryText,
    thresholds: ThresholdsText,
    stand_in: StandInText,
    isolated: IsolatedText,
    geofence: GeofenceText,
    velocity: VelocityText,
    double_swipe: DoubleSwipeText,
    promotion: Option<PromotionText>,
    change: Option<ChangeText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromotionText {
    max_step_percent: String,
    max_step_absolute: String,
    max_step_ceiling: String,
    min_shadow: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeText {
    operator: String,
    reason: String,
    at: jiff::Timestamp,
    replaces: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrimaryText {
    trip_age_max_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThresholdsText {
    default: ThresholdText,
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThresholdText {
    percent: String,
    absolute: String,
    ceiling: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    store: Option<StoreId>,
    category: Option<String>,
    percent: String,
    absolute: String,
    ceiling: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StandInText {
    trip_age_max_ms: u64,
    percent: String,
    absolute: String,
    ceiling: String,
    transaction: String,
    shopper: PartyText,
    bank: PartyText,
    decay: Vec<DecayText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartyText {
    outage: TallyText,
    hour: TallyText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TallyText {
    amount: String,
    count: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecayText {
    until_ms: Option<u64>,
    percent: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IsolatedText {
    floor: String,
    window_ms: u64,
    reserve: TallyText,
    decay: Vec<DecayText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeofenceText {
    radius_m: u32,
    position_age_max_ms: u64,
    future_skew_max_ms: u64,
    missing: MissingText,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum MissingText {
    Flag,
    Decline,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VelocityText {
    window_ms: u64,
    approvals_max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoubleSwipeText {
    window_ms: u64,
}

/// Reads and checks a policy file.
pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let File {
        version,
        currency,
        primary,
        thresholds,
        stand_in,
        isolated,
        geofence,
        velocity,
        double_swipe,
        promotion,
        change,
    } = toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
    require(version >= 1, "version", version, || "1 or more")?;
    let reader = Reader { currency };
    let thresholds = reader.thresholds(thresholds)?;
    let stand_in = reader.stand_in(stand_in, thresholds.default)?;
    let isolated = reader.isolated(isolated, &stand_in)?;
    let reload_ms = millis("primary.trip_age_max_ms", primary.trip_age_max_ms)?;
    require(
        reload_ms <= stand_in.trip_age_max_ms,
        "primary.trip_age_max_ms",
        reload_ms,
        || {
            let stand_in_ms = stand_in.trip_age_max_ms;
            format!("at most stand_in.trip_age_max_ms ({stand_in_ms})")
        },
    )?;
    let geofence = geofence.read()?;
    require(
        velocity.approvals_max >= 1,
        "velocity.approvals_max",
        velocity.approvals_max,
        || "1 or more",
    )?;
    Ok(Policy {
        version,
        currency,
        primary: PrimaryPolicy {
            trip_age_max_ms: reload_ms,
        },
        thresholds,
        stand_in,
        isolated,
        geofence,
        velocity: Velocity {
            window_ms: millis("velocity.window_ms", velocity.window_ms)?,
            approvals_max: velocity.approvals_max,
        },
        double_swipe: DoubleSwipe {
            window_ms: millis("double_swipe.window_ms", double_swipe.window_ms)?,
        },
        promotion: match promotion {
            Some(text) => reader.promotion(&text)?,
            None => Promotion::default(),
        },
        change: change.map(|text| text.read(version)).transpose()?,
    })
}

/// Reads amounts in the policy's currency.
pub(super) struct Reader {
    pub(super) currency: Currency,
}

// === impl GeofenceText ===

impl GeofenceText {
    fn read(self) -> Result<Geofence, PolicyError> {
        require(
            (1..=RADIUS_M_MAX).contains(&self.radius_m),
            "geofence.radius_m",
            self.radius_m,
            || format!("1 to {RADIUS_M_MAX} metres"),
        )?;
        Ok(Geofence {
            radius_m: self.radius_m,
            position_age_max_ms: millis("geofence.position_age_max_ms", self.position_age_max_ms)?,
            future_skew_max_ms: millis("geofence.future_skew_max_ms", self.future_skew_max_ms)?,
            missing: match self.missing {
                MissingText::Flag => MissingPosition::Flag,
                MissingText::Decline => MissingPosition::Decline,
            },
        })
    }
}

// === impl ChangeText ===

impl ChangeText {
    fn read(self, version: u32) -> Result<Change, PolicyError> {
        for (key, text) in [("operator", &self.operator), ("reason", &self.reason)] {
            let fits = (1..=CHANGE_BYTES_MAX).contains(&text.len());
            require(fits, format!("change.{key}"), text, || {
                format!("1 to {CHANGE_BYTES_MAX} bytes")
            })?;
        }
        require(
            self.replaces < version,
            "change.replaces",
            self.replaces,
            || format!("below version ({version})"),
        )?;
        Ok(Change {
            operator: self.operator,
            reason: self.reason,
            at: Timestamp::from_millis(self.at.as_millisecond()),
            replaces: self.replaces,
        })
    }
}

// === impl Reader ===

impl Reader {
    fn promotion(&self, text: &PromotionText) -> Result<Promotion, PolicyError> {
        Ok(Promotion {
            max_step_percent_bp: basis_points(
                "promotion.max_step_percent",
                &text.max_step_percent,
            )?,
            max_step_absolute: self
                .amount("promotion.max_step_absolute", &text.max_step_absolute)?,
            max_step_ceiling: self.amount("promotion.max_step_ceiling", &text.max_step_ceiling)?,
            min_shadow: text.min_shadow,
        })
    }

    fn thresholds(&self, text: ThresholdsText) -> Result<Thresholds, PolicyError> {
        let default = &text.default;
        let default = self.threshold(
            "thresholds.default",
            &default.percent,
            &default.absolute,
            &default.ceiling,
        )?;
        require(
            text.rule.len() <= RULES_MAX,
            "thresholds.rule",
            text.rule.len(),
            || format!("at most {RULES_MAX} rules"),
        )?;
        let mut thresholds = Thresholds::of(default, []);
        for (index, rule) in text.rule.into_iter().enumerate() {
            let key = format!("thresholds.rule[{index}]");
            let threshold = self.threshold(&key, &rule.percent, &rule.absolute, &rule.ceiling)?;
            if let Some(category) = &rule.category {
                let fits = (1..=CATEGORY_BYTES_MAX).contains(&category.len());
                require(fits, format!("{key}.category"), category, || {
                    format!("1 to {CATEGORY_BYTES_MAX} bytes")
                })?;
            }
            if rule.store.is_none() && rule.category.is_none() {
                return Err(wrong(
                    key,
                    "a rule without store and category",
                    "for a store, a category or both; what holds for all is thresholds.default",
                ));
            }
            let of = RuleKey {
                store: rule.store,
                category: rule.category,
            };
            let earlier = thresholds.put(of, threshold);
            require(
                earlier.is_none(),
                key,
                "a second rule",
                || "the only rule for its store and category",
            )?;
        }
        Ok(thresholds)
    }

    fn stand_in(
        &self,
        text: StandInText,
        primary: Threshold,
    ) -> Result<StandInPolicy, PolicyError> {
        let threshold = self.threshold("stand_in", &text.percent, &text.absolute, &text.ceiling)?;
        let tighter = "no looser than thresholds.default";
        for (key, found, fits) in [
            (
                "percent",
                &text.percent,
                threshold.percent_bp <= primary.percent_bp,
            ),
            (
                "absolute",
                &text.absolute,
                threshold.absolute <= primary.absolute,
            ),
            (
                "ceiling",
                &text.ceiling,
                threshold.ceiling <= primary.ceiling,
            ),
        ] {
            require(fits, format!("stand_in.{key}"), found, || {
                format!("{tighter}.{key}")
            })?;
        }
        let transaction = self.amount("stand_in.transaction", &text.transaction)?;
        require(
            (1..=threshold.ceiling).contains(&transaction),
            "stand_in.transaction",
            &text.transaction,
            || format!("above zero and at most stand_in.ceiling ({})", text.ceiling),
        )?;
        let one = Tally {
            amount: transaction,
            count: 1,
        };
        let PartyText { outage, hour } = &text.shopper;
        let least = ("stand_in.transaction", one);
        let shopper_outage = self.tally_above("stand_in.shopper.outage", outage, least)?;
        let shopper_hour = self.tally_above("stand_in.shopper.hour", hour, least)?;
        let PartyText { outage, hour } = &text.bank;
        let least = ("stand_in.shopper.outage", shopper_outage);
        let bank_outage = self.tally_above("stand_in.bank.outage", outage, least)?;
        let least = ("stand_in.shopper.hour", shopper_hour);
        let bank_hour = self.tally_above("stand_in.bank.hour", hour, least)?;
        Ok(StandInPolicy {
            trip_age_max_ms: millis("stand_in.trip_age_max_ms", text.trip_age_max_ms)?,
            threshold,
            transaction,
            shopper_outage,
            shopper_hour,
            bank_outage,
            bank_hour,
            decay: decay("stand_in.decay", &text.decay)?,
        })
    }

    fn isolated(
        &self,
        text: IsolatedText,
        stand_in: &StandInPolicy,
    ) -> Result<IsolatedPolicy, PolicyError> {
        let floor = self.amount("isolated.floor", &text.floor)?;
        require(
            floor <= stand_in.transaction,
            "isolated.floor",
            &text.floor,
            || "at most stand_in.transaction",
        )?;
        let reserve = self.tally("isolated.reserve", &text.reserve)?;
        require(
            reserve.amount >= floor,
            "isolated.reserve.amount",
            &text.reserve.amount,
            || format!("at least isolated.floor ({})", text.floor),
        )?;
        Ok(IsolatedPolicy {
            floor,
            window_ms: millis("isolated.window_ms", text.window_ms)?,
            reserve,
            decay: decay("isolated.decay", &text.decay)?,
        })
    }

    fn threshold(
        &self,
        key: &str,
        percent: &str,
        absolute: &str,
        ceiling: &str,
    ) -> Result<Threshold, PolicyError> {
        let threshold = Threshold {
            percent_bp: basis_points(&format!("{key}.percent"), percent)?,
            absolute: self.amount(&format!("{key}.absolute"), absolute)?,
            ceiling: self.amount(&format!("{key}.ceiling"), ceiling)?,
        };
        let fits = threshold.ceiling >= threshold.absolute && threshold.ceiling > 0;
        require(fits, format!("{key}.ceiling"), ceiling, || {
            format!("above zero and at least {key}.absolute ({absolute})")
        })?;
        Ok(threshold)
    }

    fn tally(&self, key: &str, text: &TallyText) -> Result<Tally, PolicyError> {
        Ok(Tally {
            amount: self.amount(&format!("{key}.amount"), &text.amount)?,
            count: text.count,
        })
    }

    /// A tally that is no smaller than the `least` one, which goes by the key given with it.
    fn tally_above(
        &self,
        key: &str,
        text: &TallyText,
        (least_key, least): (&str, Tally),
    ) -> Result<Tally, PolicyError> {
        let tally = self.tally(key, text)?;
        require(
            tally.amount >= least.amount,
            format!("{key}.amount"),
            &text.amount,
            || {
                let least = Money::from_minor(least.amount, self.currency).to_decimal();
                format!("at least {least}, as {least_key} allows")
            },
        )?;
        require(
            tally.count >= least.count,
            format!("{key}.count"),
            text.count,
            || format!("at least {}, as {least_key} allows", least.count),
        )?;
        Ok(tally)
    }

    /// An amount in major units, not negative, in minor units.
    pub(super) fn amount(&self, key: &str, text: &str) -> Result<i64, PolicyError> {
        match Money::parse(text, self.currency) {
            Ok(money) if money.minor() >= 0 => Ok(money.minor()),
            Ok(_) => Err(wrong(key, text, "zero or more")),
            Err(error) => Err(wrong(
                key,
                text,
                format!("an amount of {} in major units ({error})", self.currency),
            )),
        }
    }
}

/// A percent from 0 to 100 with at most two decimals, in basis points.
fn basis_points(key: &str, text: &str) -> Result<u32, PolicyError> {
    // A percent with two decimals reads like dollars with cents.
    Money::parse(text, Currency::USD)
        .ok()
        .and_then(|percent| u32::try_from(percent.minor()).ok())
        .filter(|share| *share <= WHOLE_BP)
        .ok_or_else(|| wrong(key, text, "a percent from 0 to 100, at most two decimals"))
}

fn decay(key: &str, text: &[DecayText]) -> Result<Decay, PolicyError> {
    let count = text.len();
    require((1..=DECAY_STEPS_MAX).contains(&count), key, count, || {
        format!("1 to {DECAY_STEPS_MAX} steps")
    })?;
    let (mut steps, mut after_bp): (Vec<DecayStep>, Option<u32>) = (Vec::new(), None);
    let (mut age, mut share) = (0, WHOLE_BP);
    for (index, step) in text.iter().enumerate() {
        let key = format!("{key}[{index}]");
        require(
            after_bp.is_none(),
            &key,
            "a step after the last",
            || "before the one step without until_ms",
        )?;
        let share_bp = basis_points(&format!("{key}.percent"), &step.percent)?;
        require(
            share_bp <= share,
            format!("{key}.percent"),
            &step.percent,
            || "no more than the step before",
        )?;
        share = share_bp;
        let Some(until_ms) = step.until_ms else {
            after_bp = Some(share_bp);
            continue;
        };
        require(until_ms > age, format!("{key}.until_ms"), until_ms, || {
            format!("more than {age}")
        })?;
        age = until_ms;
        steps.push(DecayStep { until_ms, share_bp });
    }
    let Some(after_bp) = after_bp else {
        return Err(wrong(
            key,
            "steps that all end",
            "closed by a step without until_ms",
        ));
    };
    Ok(Decay { steps, after_bp })
}

fn millis(key: &str, value: u64) -> Result<u64, PolicyError> {
    require((1..=MILLIS_MAX).contains(&value), key, value, || {
        format!("1 to {MILLIS_MAX} ms")
    })?;
    Ok(value)
}

/// The error for a value that is not what would be `right`.
pub(super) fn wrong(
    key: impl Into<String>,
    found: impl Display,
    right: impl Into<String>,
) -> PolicyError {
    PolicyError::Value {
        key: key.into(),
        found: found.to_string(),
        right: right.into(),
    }
}

fn require<R: Into<String>>(
    fits: bool,
    key: impl Into<String>,
    found: impl Display,
    right: impl FnOnce() -> R,
) -> Result<(), PolicyError> {
    if fits {
        Ok(())
    } else {
        Err(wrong(key, found, right()))
    }
}
