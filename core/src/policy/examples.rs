//! Examples kept beside a policy: what its author expects of it, checked by the rules themselves.
//!
//! A file of `[[example]]` tables. Each describes one payment with as little as it needs; what it
//! leaves out is as harmless as can be: a SHOPPING trip, a shopper in the store, the primary's rules.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::text::{Reader, wrong};
use super::{Policy, PolicyError};
use crate::answer::Reason;
use crate::authorization::{Authorization, Merchant, Particulars};
use crate::clock::Timestamp;
use crate::decide::{Facts, Rules, StandInUse, Tally, decide};
use crate::id::{BankId, ShopperId, StoreId, TransactionId, TripId};
use crate::merchant::{Resolution, Store};
use crate::money::{Currency, Money};
use crate::trip::{Approval, Position, Trip, TripStatus};

/// Most examples one file may have.
pub const EXAMPLES_MAX: usize = 10_000;
/// When every example happens.
const NOW_MS: i64 = 1_800_000_000_000;
/// Millionths of a degree of latitude in a thousand metres.
const E6_PER_KM: u64 = 8_993;

/// What one example expected and what the policy did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExampleOutcome {
    /// Its name.
    pub name: String,
    /// The reason it expects.
    pub expected: Reason,
    /// The reason the rules gave.
    pub got: Reason,
    /// The cap it expects, minor units.
    pub expected_cap: Option<i64>,
    /// The cap the rules gave, minor units; `None` without a trip.
    pub cap: Option<i64>,
    /// The rules that gave the cap.
    pub rule: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    example: Vec<ExampleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleText {
    name: String,
    amount: String,
    currency: Option<Currency>,
    store: Option<StoreId>,
    #[serde(default)]
    trip: TripText,
    #[serde(default)]
    picked: BTreeMap<String, String>,
    #[serde(default)]
    approvals: Vec<ApprovalText>,
    #[serde(default)]
    merchant: MerchantText,
    #[serde(default)]
    position: PositionText,
    #[serde(default)]
    rules: RulesText,
    trip_age_ms: Option<u64>,
    outage_age_ms: Option<u64>,
    since_floor_ms: Option<u64>,
    #[serde(default)]
    used: UsedText,
    reason: String,
    cap: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum TripText {
    #[default]
    Shopping,
    Delivering,
    Complete,
    None,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum MerchantText {
    /// The trip's store.
    #[default]
    Trip,
    /// Another store of ours.
    Other,
    Unknown,
    Ambiguous,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum RulesText {
    #[default]
    Primary,
    StandIn,
    Isolated,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PositionText {
    #[serde(default)]
    missing: bool,
    #[serde(default)]
    metres: u32,
    #[serde(default)]
    age_ms: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalText {
    amount: String,
    age_ms: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct UsedText {
    shopper_outage: Option<UsedTally>,
    shopper_hour: Option<UsedTally>,
    bank_outage: Option<UsedTally>,
    bank_hour: Option<UsedTally>,
    reserve: Option<UsedTally>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedTally {
    amount: String,
    count: u32,
}

/// Decides every example by the policy. An error is a file that cannot be read; an example that does
/// not hold is an outcome.
pub fn check_examples(policy: &Policy, text: &str) -> Result<Vec<ExampleOutcome>, PolicyError> {
    let file: File =
        toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
    let count = file.example.len();
    if !(1..=EXAMPLES_MAX).contains(&count) {
        let right = format!("1 to {EXAMPLES_MAX} examples");
        return Err(wrong("example", count, right));
    }
    let reader = Reader {
        currency: policy.currency,
    };
    file.example
        .into_iter()
        .enumerate()
        .map(|(index, example)| example.check(&format!("example[{index}]"), policy, &reader))
        .collect()
}

// === impl ExampleOutcome ===

impl ExampleOutcome {
    /// Whether the policy did what was expected.
    pub fn holds(&self) -> bool {
        self.got == self.expected && (self.expected_cap.is_none() || self.expected_cap == self.cap)
    }
}

// === impl ExampleText ===

impl ExampleText {
    fn check(
        self,
        key: &str,
        policy: &Policy,
        reader: &Reader,
    ) -> Result<ExampleOutcome, PolicyError> {
        let now = Timestamp::from_millis(NOW_MS);
        let shopper = fixed_id::<ShopperId>(1);
        let store = Store {
            id: self.store.unwrap_or_else(|| fixed_id(1)),
            name: String::new(),
            address: String::new(),
            lat_e6: 0,
            lon_e6: 0,
        };
        let expected = self.reason.parse().map_err(|_| {
            let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            wrong(
                format!("{key}.reason"),
                &self.reason,
                format!("one of {}", words.join(", ")),
            )
        })?;
        let expected_cap = match &self.cap {
            Some(cap) => Some(reader.amount(&format!("{key}.cap"), cap)?),
            None => None,
        };
        let trip = self.trip(key, policy, reader, &store, shopper)?;
        let request = Authorization {
            bank: "example".parse::<BankId>().expect("a valid slug"),
            shopper,
            amount: self.amount(key, policy)?,
            merchant: Merchant {
                name: String::new(),
                address: String::new(),
            },
            bank_key: None,
            received_at: now,
            particulars: Particulars::default(),
        };
        let approvals = self.approvals(key, reader)?;
        let facts = Facts {
            merchant: match self.merchant {
                MerchantText::Trip => Resolution::Store(store.id),
                MerchantText::Other => Resolution::Store(other_than(store.id)),
                MerchantText::Unknown => Resolution::Unknown,
                MerchantText::Ambiguous => Resolution::Ambiguous,
            },
            trip: trip.as_ref(),
            trip_age_ms: self.trip_age_ms,
            store: Some(&store),
            position: self.position.read(),
            approvals: &approvals,
            stand_in: self.stand_in(key, reader)?,
        };
        let rules = match self.rules {
            RulesText::Primary => Rules::Primary,
            RulesText::StandIn => Rules::StandIn,
            RulesText::Isolated => Rules::Isolated,
        };
        let decision = decide(&request, &facts, policy, rules, now);
        Ok(ExampleOutcome {
            name: self.name,
            expected,
            got: decision.reason,
            expected_cap,
            cap: decision.cap,
            rule: decision.rule,
        })
    }

    fn amount(&self, key: &str, policy: &Policy) -> Result<Money, PolicyError> {
        let currency = self.currency.unwrap_or(policy.currency);
        let minor = Reader { currency }.amount(&format!("{key}.amount"), &self.amount)?;
        Ok(Money::from_minor(minor, currency))
    }

    fn trip(
        &self,
        key: &str,
        policy: &Policy,
        reader: &Reader,
        store: &Store,
        shopper: ShopperId,
    ) -> Result<Option<Trip>, PolicyError> {
        let status = match self.trip {
            TripText::Shopping => TripStatus::Shopping,
            TripText::Delivering => TripStatus::Delivering,
            TripText::Complete => TripStatus::Complete,
            TripText::None => return Ok(None),
        };
        let (mut mix, mut picked) = (BTreeMap::new(), 0_i64);
        for (category, amount) in &self.picked {
            let key = format!("{key}.picked.{category}");
            let sum = reader.amount(&key, amount)?;
            picked = picked
                .checked_add(sum)
                .ok_or_else(|| wrong(key, amount, "small enough for the cart's sum"))?;
            mix.insert(category.clone(), sum);
        }
        Ok(Some(Trip {
            id: TripId(uuid::Uuid::from_u128(1)),
            shopper,
            store: store.id,
            currency: policy.currency,
            status,
            version: 1,
            picked,
            picked_listed: picked,
            mix,
            started_at: Timestamp::from_millis(NOW_MS),
        }))
    }

    fn approvals(&self, key: &str, reader: &Reader) -> Result<Vec<Approval>, PolicyError> {
        let mut approvals = Vec::with_capacity(self.approvals.len());
        for (number, approval) in (1_u128..).zip(&self.approvals) {
            let key = format!("{key}.approvals[{}].amount", number.saturating_sub(1));
            let age = i64::try_from(approval.age_ms).unwrap_or(i64::MAX);
            approvals.push(Approval {
                transaction_id: TransactionId::from_bytes(number.to_be_bytes()),
                amount: reader.amount(&key, &approval.amount)?,
                at: Timestamp::from_millis(NOW_MS.saturating_sub(age)),
            });
        }
        Ok(approvals)
    }

    fn stand_in(&self, key: &str, reader: &Reader) -> Result<StandInUse, PolicyError> {
        let tally = |name: &str, used: &Option<UsedTally>| match used {
            Some(used) => Ok(Tally {
                amount: reader.amount(&format!("{key}.used.{name}.amount"), &used.amount)?,
                count: used.count,
            }),
            None => Ok(Tally::default()),
        };
        Ok(StandInUse {
            outage_age_ms: self.outage_age_ms,
            shopper_outage: tally("shopper_outage", &self.used.shopper_outage)?,
            shopper_hour: tally("shopper_hour", &self.used.shopper_hour)?,
            bank_outage: tally("bank_outage", &self.used.bank_outage)?,
            bank_hour: tally("bank_hour", &self.used.bank_hour)?,
            since_floor_ms: self.since_floor_ms,
            reserve: tally("reserve", &self.used.reserve)?,
        })
    }
}

// === impl PositionText ===

impl PositionText {
    /// So many metres north of the store, which stands where equator and prime meridian meet.
    fn read(&self) -> Option<Position> {
        if self.missing {
            return None;
        }
        let north_e6 = u64::from(self.metres)
            .saturating_mul(E6_PER_KM)
            .checked_div(1_000)
            .and_then(|north| i32::try_from(north).ok())
            .unwrap_or(i32::MAX);
        Some(Position {
            lat_e6: north_e6,
            lon_e6: 0,
            at: Timestamp::from_millis(NOW_MS.saturating_sub(self.age_ms)),
        })
    }
}

fn fixed_id<T: TryFrom<i64>>(number: i64) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(number).expect("the number is positive")
}

fn other_than(store: StoreId) -> StoreId {
    if store.get() == 1 {
        fixed_id(2)
    } else {
        fixed_id(1)
    }
}
