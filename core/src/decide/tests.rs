#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]
use std::collections::BTreeMap;

use super::*;
use crate::authorization::Merchant;
use crate::id::{ShopperId, TransactionId, TripId};
use crate::money::{Currency, Money};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// One payment, and everything known about it.
#[derive(Clone, Debug)]
struct Case {
    policy: Policy,
    amount: &'static str,
    currency: Currency,
    merchant: Resolution,
    trip: Option<Trip>,
    trip_age_ms: Option<u64>,
    store: Option<Store>,
    position: Option<Position>,
    approvals: Vec<Approval>,
    stand_in: StandInUse,
    rules: Rules,
}

fn store_id(number: i64) -> StoreId {
    StoreId::try_from(number).unwrap()
}

fn approval(number: u8, minor: i64, age_ms: i64) -> Approval {
    Approval {
        transaction_id: TransactionId::from_bytes([number; 16]),
        amount: minor,
        at: Timestamp::from_millis(NOW.as_millis() - age_ms),
    }
}

/// Shopper 123 stands in store 42 with `picked` in the cart.
fn shopping(picked: &str) -> Case {
    let picked = Money::parse(picked, Currency::USD).unwrap().minor();
    Case {
        policy: Policy::example(),
        amount: "1.00",
        currency: Currency::USD,
        merchant: Resolution::Store(store_id(42)),
        trip: Some(Trip {
            id: TripId(uuid::Uuid::from_u128(7)),
            shopper: ShopperId::try_from(123_i64).unwrap(),
            store: store_id(42),
            currency: Currency::USD,
            status: TripStatus::Shopping,
            version: 3,
            picked,
            picked_listed: picked,
            mix: BTreeMap::from([("GROCERY".to_owned(), picked)]),
            started_at: NOW,
        }),
        trip_age_ms: Some(50),
        store: Some(Store {
            id: store_id(42),
            name: "Target".to_owned(),
            address: "123 Main St".to_owned(),
            lat_e6: 37_774_900,
            lon_e6: -122_419_400,
        }),
        position: Some(Position {
            lat_e6: 37_775_000,
            lon_e6: -122_419_000,
            at: NOW,
        }),
        approvals: Vec::new(),
        stand_in: StandInUse::default(),
        rules: Rules::Primary,
    }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn trip(self, change: impl FnOnce(&mut Trip)) -> Self {
        self.with(|case| change(case.trip.as_mut().unwrap()))
    }

    fn pays(self, amount: &'static str) -> Self {
        self.with(|case| case.amount = amount)
    }

    fn decide(&self) -> Decision {
        self.decide_minor(Money::parse(self.amount, self.currency).unwrap().minor())
    }

    fn decide_minor(&self, minor: i64) -> Decision {
        let request = Authorization {
            bank: "acme".parse().unwrap(),
            shopper: ShopperId::try_from(123_i64).unwrap(),
            amount: Money::from_minor(minor, self.currency),
            merchant: Merchant {
                name: "Target".to_owned(),
                address: "123 Main St".to_owned(),
            },
            bank_key: None,
            received_at: NOW,
        };
        let facts = Facts {
            merchant: self.merchant,
            trip: self.trip.as_ref(),
            trip_age_ms: self.trip_age_ms,
            store: self.store.as_ref(),
            position: self.position,
            approvals: &self.approvals,
            stand_in: self.stand_in,
        };
        decide(&request, &facts, &self.policy, self.rules, NOW)
    }
}

#[track_caller]
fn check(case: &Case, expected: Reason) {
    assert_eq!(case.decide().reason, expected, "{case:?}");
}

#[test]
fn a_cart_of_99_50_pays_100_20() {
    let case = shopping("99.50").pays("100.2");
    check(&case, Reason::WithinCap);
    assert_eq!(case.decide().cap, Some(109_45));
    assert_eq!(case.decide().rule, "default");
}

#[test]
fn shopper_123_pays_300_and_not_3000() {
    check(&shopping("290.00").pays("300"), Reason::WithinCap);
    check(&shopping("290.00").pays("3000"), Reason::OverCap);
}

#[test]
fn the_cap_itself_may_be_spent_and_not_a_cent_more() {
    check(&shopping("99.50").pays("109.45"), Reason::WithinCap);
    check(&shopping("99.50").pays("109.46"), Reason::OverCap);
    let paid_before = |amount| {
        shopping("99.50")
            .pays(amount)
            .with(|case| case.approvals = vec![approval(1, 100_00, 600_000)])
    };
    check(&paid_before("9.45"), Reason::WithinCap);
    check(&paid_before("9.46"), Reason::OverCap);
}
