#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::inconsistent_digit_grouping,
    reason = "test code; amounts are written in cents"
)]
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::*;
use crate::authorization::{Merchant, Particulars};
use crate::id::{ShopperId, TransactionId, TripId};
use crate::money::{Currency, Money};

static EXAMPLE: LazyLock<Policy> = LazyLock::new(Policy::example);
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
    shopper: ShopperId,
    particulars: Particulars,
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
        policy: EXAMPLE.clone(),
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
        shopper: ShopperId::try_from(123_i64).unwrap(),
        particulars: Particulars::default(),
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
            shopper: self.shopper,
            amount: Money::from_minor(minor, self.currency),
            merchant: Merchant {
                name: "Target".to_owned(),
                address: "123 Main St".to_owned(),
            },
            bank_key: None,
            received_at: NOW,
            particulars: self.particulars.clone(),
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

/// The same shopper by the stand-in rules: 8 % are tolerated, 4.00 at least.
fn standing_in(picked: &str) -> Case {
    shopping(picked).with(|case| case.rules = Rules::StandIn)
}

fn isolated(picked: &str) -> Case {
    shopping(picked).with(|case| case.rules = Rules::Isolated)
}

fn positions_are_required(case: &mut Case) {
    case.policy.geofence.missing = MissingPosition::Decline;
}

/// One case for each reason.
fn one_case_each() -> Vec<(Reason, Case)> {
    let spent = |tally: &mut Tally| tally.amount = i64::MAX;
    let plain = || shopping("99.50").pays("50");
    vec![
        (Reason::WithinCap, plain()),
        (Reason::WithinStandInLimits, standing_in("99.50").pays("50")),
        (Reason::WithinFloorLimit, isolated("99.50").pays("50")),
        (Reason::OverCap, shopping("99.50").pays("200")),
        (Reason::NoTrip, plain().with(|case| case.trip = None)),
        (
            Reason::UnknownCard,
            plain().with(|case| case.shopper = ShopperId::of_unknown_card(7)),
        ),
        (
            Reason::NotShopping,
            plain().trip(|trip| trip.status = TripStatus::Delivering),
        ),
        (
            Reason::UnknownMerchant,
            plain().with(|case| case.merchant = Resolution::Unknown),
        ),
        (
            Reason::AmbiguousMerchant,
            plain().with(|case| case.merchant = Resolution::Ambiguous),
        ),
        (
            Reason::WrongStore,
            plain().with(|case| case.merchant = Resolution::Store(store_id(43))),
        ),
        (
            Reason::FarFromStore,
            plain().with(|case| case.position.as_mut().unwrap().lat_e6 += 10_000),
        ),
        (
            Reason::PositionMissing,
            plain()
                .with(positions_are_required)
                .with(|case| case.position = None),
        ),
        (
            Reason::Velocity,
            plain().with(|case| {
                case.approvals = (1..=6).map(|at| approval(at, 1_00, 100_000)).collect();
            }),
        ),
        (
            Reason::DoubleSwipe,
            plain().with(|case| case.approvals = vec![approval(1, 50_00, 90_000)]),
        ),
        (
            Reason::CurrencyMismatch,
            plain().with(|case| case.currency = "EUR".parse().unwrap()),
        ),
        (
            Reason::StandInLimit,
            standing_in("99.50")
                .pays("50")
                .with(|case| spent(&mut case.stand_in.bank_hour)),
        ),
        (Reason::FloorLimit, isolated("99.50").pays("75.01")),
    ]
}

#[test]
fn every_reason_has_a_payment_that_gets_it() {
    let cases = one_case_each();
    for (reason, case) in &cases {
        check(case, *reason);
    }
    // The rules never say what the bank says by itself.
    let by_rule = |reason: &Reason| *reason != Reason::ApprovedByBank;
    for reason in Reason::ALL.into_iter().filter(by_rule) {
        assert!(cases.iter().any(|(got, _)| *got == reason), "{reason}");
    }
}

#[test]
fn the_first_rule_that_speaks_gives_the_reason() {
    // Each fault is added to those before it, from the last rule to the first.
    let mut case = standing_in("99.50").pays("200");
    case.stand_in.bank_hour.amount = i64::MAX;
    check(&case, Reason::OverCap);
    case.approvals = (1..=6).map(|at| approval(at, 1_00, 100_000)).collect();
    check(&case, Reason::Velocity);
    case.approvals.push(approval(7, 200_00, 1_000));
    check(&case, Reason::DoubleSwipe);
    case.position.as_mut().unwrap().lon_e6 += 20_000;
    check(&case, Reason::FarFromStore);
    case.merchant = Resolution::Store(store_id(43));
    check(&case, Reason::WrongStore);
    case.merchant = Resolution::Unknown;
    check(&case, Reason::UnknownMerchant);
    case.trip.as_mut().unwrap().status = TripStatus::Complete;
    check(&case, Reason::NotShopping);
    case.currency = "EUR".parse().unwrap();
    check(&case, Reason::CurrencyMismatch);
    case.trip = None;
    check(&case, Reason::NoTrip);
    assert_eq!(case.decide().cap, None);
    case.shopper = ShopperId::of_unknown_card(7);
    check(&case, Reason::UnknownCard);
}

#[test]
fn less_is_approved_only_where_less_is_taken() {
    // A cap of 114.43 for 99.50: what fits is approved, to the cent.
    let cap = shopping("99.50").decide().cap.unwrap();
    let case = shopping("99.50").pays("200");
    check(&case, Reason::OverCap);
    let case = case.with(|case| case.particulars.partial = true);
    let decision = case.decide();
    assert_eq!((decision.reason, decision.amount), (Reason::WithinCap, cap));
    let spent = case
        .clone()
        .with(|case| case.approvals = vec![approval(1, cap - 5, 100_000)]);
    let decision = spent.decide();
    assert_eq!((decision.reason, decision.amount), (Reason::WithinCap, 5));
    let gone = case.with(|case| case.approvals = vec![approval(1, cap, 100_000)]);
    let decision = gone.decide();
    assert_eq!(
        (decision.reason, decision.amount),
        (Reason::OverCap, 200_00)
    );
    // Standing in and on the floor the tighter limits say how much.
    for case in [standing_in("99.50"), isolated("99.50")] {
        let case = case
            .pays("200")
            .with(|case| case.particulars.partial = true);
        let part = case.decide();
        assert_eq!(part.reason.verdict(), Verdict::Approved, "{case:?}");
        assert!(part.amount > 0 && part.amount < cap, "{case:?}");
        let whole = case.clone().with(|case| case.particulars.partial = false);
        assert_eq!(whole.decide_minor(part.amount).amount, part.amount);
        assert_eq!(whole.decide_minor(part.amount).reason, part.reason);
        let more = whole.decide_minor(part.amount + 1);
        assert_eq!(more.reason.verdict(), Verdict::Declined, "{case:?}");
    }
}

#[test]
fn nothing_else_than_room_makes_a_part() {
    for (reason, case) in one_case_each() {
        let fits_not = matches!(
            reason,
            Reason::OverCap | Reason::StandInLimit | Reason::FloorLimit
        );
        if reason.verdict() == Verdict::Approved || fits_not {
            continue;
        }
        check(&case.with(|case| case.particulars.partial = true), reason);
    }
}

#[test]
fn a_payment_of_nothing_asks_whether_the_card_is_good() {
    for (case, reason) in [
        (shopping("99.50"), Reason::WithinCap),
        (standing_in("99.50"), Reason::WithinStandInLimits),
        (isolated("99.50"), Reason::WithinFloorLimit),
    ] {
        // However often and however much was spent.
        let cap = case.decide().cap.unwrap();
        let case = case.pays("0").with(|case| {
            case.approvals = (1..=6).map(|at| approval(at, cap / 6, 1_000)).collect();
            case.stand_in.reserve = Tally {
                amount: i64::MAX,
                count: u32::MAX,
            };
            case.stand_in.bank_hour = Tally {
                amount: i64::MAX,
                count: u32::MAX,
            };
        });
        check(&case, reason);
        check(&case.clone().with(|case| case.trip = None), Reason::NoTrip);
        let elsewhere = Resolution::Store(store_id(43));
        check(
            &case.with(|case| case.merchant = elsewhere),
            Reason::WrongStore,
        );
    }
}

#[test]
fn what_adds_to_a_payment_is_no_double_swipe() {
    let twice = shopping("99.50")
        .pays("10")
        .with(|case| case.approvals = vec![approval(1, 10_00, 1_000)]);
    check(&twice, Reason::DoubleSwipe);
    let first = TransactionId::from_bytes([1; 16]);
    let adds = twice.with(|case| case.particulars.adds_to = Some(first));
    check(&adds, Reason::WithinCap);
}

#[test]
fn a_trip_of_somebody_else_is_no_trip() {
    let case = shopping("99.50")
        .pays("50")
        .trip(|trip| trip.shopper = ShopperId::try_from(124_i64).unwrap());
    check(&case, Reason::NoTrip);
    assert_eq!(case.decide().cap, None);
}

#[test]
fn a_trip_in_another_currency_than_the_policy_is_declined() {
    let euro: Currency = "EUR".parse().unwrap();
    let case = shopping("99.50")
        .pays("50")
        .with(|case| case.currency = euro)
        .trip(|trip| trip.currency = euro);
    check(&case, Reason::CurrencyMismatch);
}

#[test]
fn a_position_counts_while_it_is_recent() {
    let at = |age_ms: i64| {
        shopping("99.50")
            .pays("50")
            .with(positions_are_required)
            .with(|case| {
                case.position.as_mut().unwrap().at =
                    Timestamp::from_millis(NOW.as_millis() - age_ms);
            })
    };
    check(&at(600_000), Reason::WithinCap);
    check(&at(600_001), Reason::PositionMissing);
    check(&at(-5_000), Reason::WithinCap);
    check(&at(-5_001), Reason::PositionMissing);
}

#[test]
fn a_missing_position_is_flagged_where_policy_says_so() {
    let case = shopping("99.50")
        .pays("50")
        .with(|case| case.position = None);
    check(&case, Reason::WithinCap);
    assert_eq!(case.decide().rule, "default; position missing");
    // A position cannot be held against a store that is not the trip's.
    let elsewhere = shopping("99.50").pays("50").with(positions_are_required);
    let elsewhere = elsewhere.with(|case| case.store.as_mut().unwrap().id = store_id(43));
    check(&elsewhere, Reason::PositionMissing);
}

#[test]
fn the_same_amount_again_waits_for_its_window() {
    let again_after = |age_ms| {
        shopping("99.50")
            .pays("20")
            .with(|case| case.approvals = vec![approval(1, 20_00, age_ms)])
    };
    check(&again_after(0), Reason::DoubleSwipe);
    check(&again_after(-3_000), Reason::DoubleSwipe);
    check(&again_after(90_000), Reason::DoubleSwipe);
    check(&again_after(90_001), Reason::WithinCap);
}

#[test]
fn velocity_counts_approvals_in_its_window() {
    let after = |count: u8, age_ms| {
        shopping("99.50").pays("20").with(|case| {
            case.approvals = (1..=count).map(|at| approval(at, 1_00, age_ms)).collect();
        })
    };
    check(&after(5, 300_000), Reason::WithinCap);
    check(&after(6, 300_000), Reason::Velocity);
    check(&after(6, 300_001), Reason::WithinCap);
}

#[test]
fn approvals_past_the_largest_amount_fit_no_cap() {
    let case = shopping("99.50").pays("0.01").with(|case| {
        case.approvals = vec![
            approval(1, i64::MAX, 900_000),
            approval(2, i64::MAX, 900_000),
        ];
    });
    check(&case, Reason::OverCap);
    assert_eq!(case.decide().approved_before, i64::MAX);
}

#[test]
fn standing_in_tolerates_less() {
    check(
        &standing_in("99.50").pays("107.46"),
        Reason::WithinStandInLimits,
    );
    check(&standing_in("99.50").pays("107.47"), Reason::StandInLimit);
    check(&standing_in("99.50").pays("109.46"), Reason::OverCap);
    check(
        &standing_in("1200").pays("1000"),
        Reason::WithinStandInLimits,
    );
    check(&standing_in("1200").pays("1000.01"), Reason::StandInLimit);
}

#[test]
fn each_stand_in_tally_limits_amount_and_count() {
    type Pick = fn(&mut StandInUse) -> &mut Tally;
    let tallies: [(Pick, i64, u32); 4] = [
        (|used| &mut used.shopper_outage, 2_000_00, 12),
        (|used| &mut used.shopper_hour, 2_000_00, 12),
        (|used| &mut used.bank_outage, 60_000_000_00, 1_500_000),
        (|used| &mut used.bank_hour, 60_000_000_00, 1_500_000),
    ];
    for (tally, amount, count) in tallies {
        let used = |amount, count| {
            standing_in("99.50").pays("50").with(|case| {
                *tally(&mut case.stand_in) = Tally { amount, count };
            })
        };
        check(
            &used(amount - 50_00, count - 1),
            Reason::WithinStandInLimits,
        );
        check(&used(amount - 49_99, count - 1), Reason::StandInLimit);
        check(&used(amount - 50_00, count), Reason::StandInLimit);
    }
}

#[test]
fn stand_in_limits_decay_with_the_outage() {
    let at = |outage_age_ms, amount| {
        standing_in("1000")
            .pays(amount)
            .with(|case| case.stand_in.outage_age_ms = Some(outage_age_ms))
    };
    check(&at(900_000, "1000"), Reason::WithinStandInLimits);
    check(&at(900_001, "500.01"), Reason::StandInLimit);
    check(&at(900_001, "500"), Reason::WithinStandInLimits);
    check(&at(3_600_001, "250"), Reason::WithinStandInLimits);
    check(&at(3_600_001, "250.01"), Reason::StandInLimit);
}

#[test]
fn what_was_picked_does_not_decay() {
    let case = standing_in("100").with(|case| case.stand_in.outage_age_ms = Some(3_600_001));
    check(&case.clone().pays("102"), Reason::WithinStandInLimits);
    check(&case.pays("102.01"), Reason::StandInLimit);
}

#[test]
fn the_floor_is_paid_once_a_window_from_the_reserve() {
    check(&isolated("99.50").pays("75"), Reason::WithinFloorLimit);
    let since = |ms| {
        isolated("99.50")
            .pays("75")
            .with(|case| case.stand_in.since_floor_ms = Some(ms))
    };
    check(&since(3_599_999), Reason::FloorLimit);
    check(&since(3_600_000), Reason::WithinFloorLimit);
    let spent = |amount, count| {
        isolated("99.50")
            .pays("75")
            .with(|case| case.stand_in.reserve = Tally { amount, count })
    };
    check(&spent(9_925_00, 199), Reason::WithinFloorLimit);
    check(&spent(9_925_01, 199), Reason::FloorLimit);
    check(&spent(9_925_00, 200), Reason::FloorLimit);
    let aged = |ms| {
        isolated("99.50")
            .pays("37.51")
            .with(|case| case.trip_age_ms = Some(ms))
    };
    check(&aged(600_000), Reason::WithinFloorLimit);
    check(&aged(600_001), Reason::FloorLimit);
    check(&isolated("10").pays("15.01"), Reason::OverCap);
}

#[test]
fn limits_travel_with_the_decision() {
    assert_eq!(shopping("99.50").decide().limits, Limits::Cap);
    let Limits::StandIn(limits) = standing_in("99.50").decide().limits else {
        panic!("standing in has its own limits");
    };
    assert_eq!((limits.transaction, limits.trip), (109_45, 107_46));
    assert_eq!(limits.shopper_hour.count, 12);
    let Limits::Floor(limits) = isolated("10").decide().limits else {
        panic!("the floor has its own limits");
    };
    assert_eq!((limits.floor, limits.reserve.count), (15_00, 200));
}

#[test]
fn the_difference_between_the_rules_is_one_of_verdicts() {
    let both = |amount| {
        let primary = shopping("99.50").pays(amount).decide();
        stand_in_differs(&primary, &standing_in("99.50").pays(amount).decide())
    };
    assert!(!both("50"));
    assert!(both("109"));
    assert!(!both("200"));
}

mod properties {
    use proptest::prelude::*;

    use super::*;
    use crate::answer::Verdict;

    fn tally() -> impl Strategy<Value = Tally> {
        (0_i64..3_000_00, 0_u32..20).prop_map(|(amount, count)| Tally { amount, count })
    }

    fn position() -> impl Strategy<Value = Option<Position>> {
        let near = (
            -12_000_i32..12_000,
            -12_000_i32..12_000,
            -8_000_i64..700_000,
        );
        prop::option::weighted(
            0.9,
            near.prop_map(|(north, east, age_ms)| Position {
                lat_e6: 37_774_900 + north / 3,
                lon_e6: -122_419_400 + east / 3,
                at: Timestamp::from_millis(NOW.as_millis() - age_ms),
            }),
        )
    }

    prop_compose! {
        fn any_stand_in()(
            outage_age_ms in prop::option::of(0_u64..5_000_000),
            shopper_outage in tally(), shopper_hour in tally(),
            bank_outage in tally(), bank_hour in tally(),
            since_floor_ms in prop::option::of(0_u64..5_000_000),
            reserve in tally(),
        ) -> StandInUse {
            StandInUse {
                outage_age_ms, shopper_outage, shopper_hour, bank_outage, bank_hour,
                since_floor_ms, reserve,
            }
        }
    }

    prop_compose! {
        /// Mostly payments that one rule at most speaks against.
        fn any_case()(
            mix in prop::collection::btree_map(
                prop::sample::select(vec!["PRODUCE", "MEAT", "GROCERY", "DELI"]),
                0_i64..900_00, 0..4,
            ),
            store in prop::sample::select(vec![42_i64, 900_001]),
            status in prop::sample::select(vec![
                TripStatus::Shopping, TripStatus::Shopping, TripStatus::Shopping,
                TripStatus::Shopping, TripStatus::Delivering,
            ]),
            merchant in 0_u8..12,
            has_trip in prop::bool::weighted(0.95),
            trip_age_ms in prop::option::of(0_u64..5_000_000),
            position in position(),
            missing in prop::bool::ANY,
            approvals in prop::collection::vec((0_i64..300_00, -5_000_i64..900_000), 0..8),
            stand_in in any_stand_in(),
        ) -> Case {
            let mut case = shopping("0").with(|case| {
                case.merchant = match merchant {
                    0 => Resolution::Unknown,
                    1 => Resolution::Ambiguous,
                    2 => Resolution::Store(store_id(43)),
                    _ => Resolution::Store(store_id(store)),
                };
                case.trip_age_ms = trip_age_ms;
                case.store.as_mut().unwrap().id = store_id(store);
                case.position = position;
                case.stand_in = stand_in;
                case.approvals = (1_u8..)
                    .zip(approvals)
                    .map(|(at, (amount, age))| approval(at, amount, age))
                    .collect();
                if missing {
                    case.policy.geofence.missing = MissingPosition::Decline;
                }
            }).trip(|trip| {
                trip.store = store_id(store);
                trip.status = status;
                trip.picked = mix.values().sum();
                trip.mix = mix.iter().map(|(name, sum)| ((*name).to_owned(), *sum)).collect();
            });
            if !has_trip {
                case.trip = None;
            }
            case
        }
    }

    fn rules() -> impl Strategy<Value = Rules> {
        prop::sample::select(vec![Rules::Primary, Rules::StandIn, Rules::Isolated])
    }

    fn approves(decision: &Decision) -> bool {
        decision.reason.verdict() == Verdict::Approved
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            max_global_rejects: 50_000,
            ..ProptestConfig::default()
        })]

        #[test]
        fn nothing_is_approved_over_the_cap(
            case in any_case(), rules in rules(), amount in -10_i64..1_500_00,
        ) {
            let case = case.with(|case| case.rules = rules);
            let decision = case.decide_minor(amount);
            if approves(&decision) {
                let before: i64 = case.approvals.iter().map(|approval| approval.amount).sum();
                prop_assert_eq!(decision.approved_before, before);
                prop_assert!(amount > 0);
                prop_assert!(before + amount <= decision.cap.unwrap());
            }
        }

        #[test]
        fn exactly_what_is_left_is_the_most_that_is_approved(
            case in any_case(),
        ) {
            let case = case.with(|case| case.rules = Rules::Primary);
            let first = case.decide_minor(1);
            let left = first.cap.unwrap_or(0) - first.approved_before;
            prop_assume!(approves(&first) && left > 0);
            prop_assume!(case.approvals.iter().all(|approval| approval.amount != left));
            prop_assert!(approves(&case.decide_minor(left)));
            prop_assert!(!approves(&case.decide_minor(left + 1)));
        }

        #[test]
        fn what_is_approved_is_approved_for_less_too(
            case in any_case(), rules in rules(), amount in 2_i64..900_00, share in 1_i64..1_000,
        ) {
            let case = case.with(|case| case.rules = rules);
            let less = (amount * share / 1_000).max(1);
            let smaller = case.decide_minor(less);
            if approves(&case.decide_minor(amount)) && smaller.reason != Reason::DoubleSwipe {
                prop_assert!(approves(&smaller), "{:?}", smaller);
            }
        }

        #[test]
        fn the_other_rules_never_approve_what_the_primary_declines(
            case in any_case(), amount in 1_i64..900_00,
        ) {
            let primary = case.clone().with(|case| case.rules = Rules::Primary).decide_minor(amount);
            for rules in [Rules::StandIn, Rules::Isolated] {
                let other = case.clone().with(|case| case.rules = rules).decide_minor(amount);
                if !approves(&primary) {
                    prop_assert_eq!(primary.reason, other.reason);
                }
                prop_assert_eq!(primary.cap, other.cap);
            }
        }

        #[test]
        fn an_older_outage_never_approves_more(
            case in any_case(), amount in 1_i64..900_00, age in 0_u64..5_000_000, more in 0_u64..5_000_000,
        ) {
            let at = |age| case.clone().with(|case| {
                case.rules = Rules::StandIn;
                case.stand_in.outage_age_ms = Some(age);
            }).decide_minor(amount);
            if approves(&at(age + more)) {
                prop_assert!(approves(&at(age)));
            }
        }

        #[test]
        fn limits_are_never_above_the_cap(case in any_case(), rules in rules()) {
            let decision = case.with(|case| case.rules = rules).decide_minor(1);
            let cap = decision.cap.unwrap_or(0);
            match decision.limits {
                Limits::Cap => {}
                Limits::StandIn(limits) => {
                    prop_assert!(limits.trip <= cap && limits.transaction <= cap);
                }
                Limits::Floor(limits) => prop_assert!(limits.floor <= cap),
            }
        }

        #[test]
        fn the_same_inputs_give_the_same_decision(
            case in any_case(), rules in rules(), amount in any::<i64>(),
        ) {
            let case = case.with(|case| case.rules = rules);
            prop_assert_eq!(case.decide_minor(amount), case.clone().decide_minor(amount));
        }

        #[test]
        fn no_extreme_panics(
            picked in any::<i64>(), parts in prop::collection::vec(any::<i64>(), 0..4),
            approved in prop::collection::vec(any::<i64>(), 0..4), amount in any::<i64>(),
            lat in any::<i32>(), lon in any::<i32>(), at in any::<i64>(), rules in rules(),
        ) {
            let case = shopping("0").trip(|trip| {
                trip.picked = picked;
                trip.mix = ["PRODUCE", "MEAT", "GROCERY", "DELI"].iter().zip(parts)
                    .map(|(name, sum)| ((*name).to_owned(), sum)).collect();
            }).with(|case| {
                case.rules = rules;
                case.position = Some(Position { lat_e6: lat, lon_e6: lon, at: Timestamp::from_millis(at) });
                case.approvals = approved.iter().map(|minor| approval(1, *minor, 0)).collect();
            });
            let decision = case.decide_minor(amount);
            if approves(&decision) {
                prop_assert!(amount > 0 && amount <= decision.cap.unwrap());
            }
        }
    }
}
