//! What was approved while standing in: by shopper and by bank, this outage and the last hour.
//!
//! The hour is kept in sixty one-minute buckets of log time, so that memory does not grow with the
//! number of approvals; a bucket counts until it is wholly older than an hour, which errs on the
//! side of declining.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::decide::{StandInUse, Tally};
use crate::id::{BankId, ShopperId};

const MINUTE_MS: u64 = 60_000;
const HOUR_MINUTES: u64 = 60;

/// Counters of the stand-in rungs.
#[derive(Clone, Debug, Default)]
pub(super) struct StandInTallies {
    shoppers: HashMap<ShopperId, Use>,
    banks: BTreeMap<BankId, Use>,
    /// When each shopper was last approved on a floor limit.
    floor: HashMap<ShopperId, u64>,
    reserve: Tally,
    /// Log time of the last approval without the primary.
    last_ms: u64,
    /// Minute in which idle shoppers were last forgotten.
    swept_minute: u64,
}

/// Everything, for a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedTallies {
    shoppers: Vec<(ShopperId, Use)>,
    banks: BTreeMap<BankId, Use>,
    floor: Vec<(ShopperId, u64)>,
    reserve: Tally,
    last_ms: u64,
    swept_minute: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Use {
    outage: Tally,
    /// (minute of log time, sum), oldest first.
    minutes: VecDeque<(u64, Tally)>,
}

// === impl StandInTallies ===

impl StandInTallies {
    pub(super) fn of(&self, shopper: ShopperId, bank: &BankId, now_ms: u64) -> StandInUse {
        let by_shopper = self.shoppers.get(&shopper);
        let by_bank = self.banks.get(bank);
        let hour = |used: Option<&Use>| used.map(|used| used.hour(now_ms)).unwrap_or_default();
        StandInUse {
            outage_age_ms: None,
            shopper_outage: by_shopper.map(|used| used.outage).unwrap_or_default(),
            shopper_hour: hour(by_shopper),
            bank_outage: by_bank.map(|used| used.outage).unwrap_or_default(),
            bank_hour: hour(by_bank),
            since_floor_ms: self
                .floor
                .get(&shopper)
                .map(|last| now_ms.saturating_sub(*last)),
            reserve: self.reserve,
        }
    }

    pub(super) fn reserve(&self) -> Tally {
        self.reserve
    }

    pub(super) fn stood_in(&mut self, shopper: ShopperId, bank: &BankId, amount: i64, now_ms: u64) {
        self.last_ms = now_ms;
        self.shoppers
            .entry(shopper)
            .or_default()
            .add(amount, now_ms);
        self.banks
            .entry(bank.clone())
            .or_default()
            .add(amount, now_ms);
    }

    pub(super) fn on_floor(&mut self, shopper: ShopperId, amount: i64, now_ms: u64) {
        self.last_ms = now_ms;
        self.floor.insert(shopper, now_ms);
        self.reserve = plus(self.reserve, amount);
    }

    /// Log time since anything was approved without the primary.
    pub(super) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }

    /// What counts by outage starts from nothing, and the reserve is granted anew.
    pub(super) fn forget_outage(&mut self) {
        for used in self.shoppers.values_mut().chain(self.banks.values_mut()) {
            used.outage = Tally::default();
        }
        self.reserve = Tally::default();
    }

    /// Once a minute, forgets shoppers that count nowhere any more. What is forgotten follows from
    /// log time alone, so every keeper forgets the same.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if minute == self.swept_minute {
            return;
        }
        self.swept_minute = minute;
        self.shoppers.retain(|_, used| {
            used.outage != Tally::default() || used.hour(now_ms) != Tally::default()
        });
        self.floor
            .retain(|_, last| now_ms.saturating_sub(*last) < crate::register::WINDOW_MS);
    }
}

impl StandInTallies {
    pub(super) fn save(&self) -> SavedTallies {
        let mut shoppers: Vec<_> = self
            .shoppers
            .iter()
            .map(|(shopper, used)| (*shopper, used.clone()))
            .collect();
        shoppers.sort_unstable_by_key(|(shopper, _)| *shopper);
        let mut floor: Vec<_> = self
            .floor
            .iter()
            .map(|(shopper, last)| (*shopper, *last))
            .collect();
        floor.sort_unstable();
        SavedTallies {
            shoppers,
            banks: self.banks.clone(),
            floor,
            reserve: self.reserve,
            last_ms: self.last_ms,
            swept_minute: self.swept_minute,
        }
    }

    pub(super) fn load(saved: SavedTallies) -> Self {
        Self {
            shoppers: saved.shoppers.into_iter().collect(),
            banks: saved.banks,
            floor: saved.floor.into_iter().collect(),
            reserve: saved.reserve,
            last_ms: saved.last_ms,
            swept_minute: saved.swept_minute,
        }
    }
}

// === impl Use ===

impl Use {
    fn add(&mut self, amount: i64, now_ms: u64) {
        self.outage = plus(self.outage, amount);
        let minute = now_ms.div_euclid(MINUTE_MS);
        while self
            .minutes
            .front()
            .is_some_and(|(made, _)| !within_hour(*made, minute))
        {
            self.minutes.pop_front();
        }
        match self.minutes.back_mut() {
            Some((made, sum)) if *made == minute => *sum = plus(*sum, amount),
            Some(_) | None => self
                .minutes
                .push_back((minute, plus(Tally::default(), amount))),
        }
    }

    fn hour(&self, now_ms: u64) -> Tally {
        let minute = now_ms.div_euclid(MINUTE_MS);
        self.minutes
            .iter()
            .filter(|(made, _)| within_hour(*made, minute))
            .fold(Tally::default(), |sum, (_, part)| Tally {
                amount: sum.amount.saturating_add(part.amount),
                count: sum.count.saturating_add(part.count),
            })
    }
}

fn within_hour(made: u64, minute: u64) -> bool {
    minute.saturating_sub(made) <= HOUR_MINUTES
}

fn plus(sum: Tally, amount: i64) -> Tally {
    Tally {
        amount: sum.amount.saturating_add(amount),
        count: sum.count.saturating_add(1),
    }
}
