#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::inconsistent_digit_grouping,
    reason = "test code; amounts are written in cents"
)]
use super::examples::check_examples;
use super::promote::{Place, PromoteError};
use super::*;

#[test]
fn the_example_does_what_its_examples_expect() {
    let outcomes = check_examples(&Policy::example(), EXAMPLE_EXAMPLES).unwrap();
    for outcome in outcomes {
        assert!(outcome.holds(), "{outcome:?}");
    }
}

/// The example with `from` (which must be there) replaced by `to`.
fn edited(from: &str, to: &str) -> Result<Policy, PolicyError> {
    assert!(EXAMPLE.contains(from), "the example has no {from:?}");
    Policy::parse(&EXAMPLE.replacen(from, to, 1))
}

#[track_caller]
fn check_refused(from: &str, to: &str, key: &str) {
    match edited(from, to) {
        Err(PolicyError::Value { key: found, .. }) => assert_eq!(found, key),
        other => panic!("{to:?} should be refused for {key}, got {other:?}"),
    }
}

#[test]
fn thresholds_that_contradict_are_refused_by_key() {
    // The first match is the default threshold's unless more of the line is given.
    check_refused("version = 1", "version = 0", "version");
    check_refused(
        r#"percent = "10""#,
        r#"percent = "100.01""#,
        "thresholds.default.percent",
    );
    check_refused(
        r#"percent = "10""#,
        r#"percent = "1.001""#,
        "thresholds.default.percent",
    );
    check_refused(
        r#"percent = "10""#,
        r#"percent = "-1""#,
        "thresholds.default.percent",
    );
    check_refused(
        r#"absolute = "5.00""#,
        r#"absolute = "5.001""#,
        "thresholds.default.absolute",
    );
    check_refused(
        r#"absolute = "5.00""#,
        r#"absolute = "-5.00""#,
        "thresholds.default.absolute",
    );
    check_refused(
        r#"ceiling = "2500.00""#,
        r#"ceiling = "4.99""#,
        "thresholds.default.ceiling",
    );
    check_refused(
        r#"category = "MEAT""#,
        r#"category = "PRODUCE""#,
        "thresholds.rule[1]",
    );
    check_refused(r#"category = "MEAT""#, "", "thresholds.rule[1]");
    check_refused(
        r#"category = "MEAT""#,
        r#"category = """#,
        "thresholds.rule[1].category",
    );
}

#[test]
fn stand_in_limits_that_contradict_are_refused_by_key() {
    check_refused(
        r#"percent = "8""#,
        r#"percent = "10.01""#,
        "stand_in.percent",
    );
    check_refused(
        r#"absolute = "4.00""#,
        r#"absolute = "5.01""#,
        "stand_in.absolute",
    );
    check_refused(
        r#"ceiling = "1500.00""#,
        r#"ceiling = "2500.01""#,
        "stand_in.ceiling",
    );
    check_refused(
        r#"transaction = "1000.00""#,
        r#"transaction = "1500.01""#,
        "stand_in.transaction",
    );
    check_refused(
        r#"amount = "2000.00""#,
        r#"amount = "999.99""#,
        "stand_in.shopper.outage.amount",
    );
    check_refused("count = 12", "count = 0", "stand_in.shopper.outage.count");
    check_refused(
        "count = 1_500_000",
        "count = 11",
        "stand_in.bank.outage.count",
    );
    check_refused(
        "until_ms = 3_600_000",
        "until_ms = 900_000",
        "stand_in.decay[1].until_ms",
    );
    check_refused(
        r#"percent = "25""#,
        r#"percent = "50.01""#,
        "stand_in.decay[2].percent",
    );
    check_refused("until_ms = 900_000\n", "", "stand_in.decay[1]");
}

#[test]
fn other_sections_that_contradict_are_refused_by_key() {
    check_refused(
        r#"floor = "75.00""#,
        r#"floor = "1000.01""#,
        "isolated.floor",
    );
    check_refused(
        r#"amount = "10000.00""#,
        r#"amount = "74.99""#,
        "isolated.reserve.amount",
    );
    check_refused(
        "trip_age_max_ms = 2_000",
        "trip_age_max_ms = 60_001",
        "primary.trip_age_max_ms",
    );
    check_refused(
        "window_ms = 90_000",
        "window_ms = 0",
        "double_swipe.window_ms",
    );
    check_refused(
        "window_ms = 300_000",
        "window_ms = 86_400_001",
        "velocity.window_ms",
    );
    check_refused(
        "approvals_max = 6",
        "approvals_max = 0",
        "velocity.approvals_max",
    );
    check_refused("radius_m = 800", "radius_m = 0", "geofence.radius_m");
}

#[test]
fn an_error_says_what_would_be_right() {
    let error = edited(r#"percent = "8""#, r#"percent = "12""#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stand_in.percent = 12: must be no looser than thresholds.default.percent"
    );
}

#[test]
fn unknown_and_missing_keys_and_other_types_are_refused() {
    for (from, to, word) in [
        ("radius_m", "radius", "radius"),
        (
            "[velocity]\nwindow_ms = 300_000\napprovals_max = 6\n",
            "",
            "velocity",
        ),
        ("version = 1", "version = -1", "version"),
        (r#"percent = "10""#, "percent = 10.0", "percent"),
        (r#"missing = "flag""#, r#"missing = "ignore""#, "ignore"),
        (r#"currency = "USD""#, r#"currency = "XXY""#, "currency"),
    ] {
        match edited(from, to) {
            Err(PolicyError::Syntax(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{to:?} should be refused, got {other:?}"),
        }
    }
}

#[test]
fn an_example_that_does_not_hold_is_told() {
    let expecting = |reason: &str, cap: &str| {
        let text = format!(
            "[[example]]\nname = \"x\"\npicked = {{ GROCERY = \"99.50\" }}\namount = \"100.20\"\n\
             reason = \"{reason}\"\ncap = \"{cap}\""
        );
        check_examples(&Policy::example(), &text)
    };
    assert!(expecting("within_cap", "109.45").unwrap()[0].holds());
    assert!(!expecting("over_cap", "109.45").unwrap()[0].holds());
    assert!(!expecting("within_cap", "109.46").unwrap()[0].holds());
    for (reason, cap) in [("over_the_cap", "1"), ("over_cap", "one")] {
        assert!(matches!(
            expecting(reason, cap),
            Err(PolicyError::Value { .. })
        ));
    }
    assert!(matches!(
        check_examples(&Policy::example(), ""),
        Err(PolicyError::Syntax(_))
    ));
    assert!(matches!(
        check_examples(&Policy::example(), "example = []"),
        Err(PolicyError::Value { .. })
    ));
}

#[test]
fn a_looser_policy_breaks_its_examples() {
    let looser = edited(r#"percent = "10""#, r#"percent = "30""#).unwrap();
    let outcomes = check_examples(&looser, EXAMPLE_EXAMPLES).unwrap();
    assert!(outcomes.iter().any(|outcome| !outcome.holds()));
}

#[test]
fn the_age_of_a_trip_chooses_the_rules() {
    let policy = Policy::example();
    assert!(!policy.must_reload(2_000));
    assert!(policy.must_reload(2_001));
    assert_eq!(policy.rules_without_primary(None), Rules::StandIn);
    assert_eq!(policy.rules_without_primary(Some(60_000)), Rules::StandIn);
    assert_eq!(policy.rules_without_primary(Some(60_001)), Rules::Isolated);
}

#[test]
fn the_rules_that_applied_are_named_once_each() {
    let policy = Policy::example();
    let of = |store: i64, mix: &[(&str, i64)]| policy.cap(&trip(store, mix, 0)).rule;
    assert_eq!(of(42, &[]), "default");
    assert_eq!(of(900_001, &[]), "store 900001");
    assert_eq!(
        of(42, &[("GROCERY", 1), ("PRODUCE", 1), ("TOYS", 1)]),
        "default; category PRODUCE"
    );
    assert_eq!(
        of(900_001, &[("PRODUCE", 1), ("TOYS", 1)]),
        "store 900001 + PRODUCE; store 900001"
    );
    let names: Vec<String> = (0..9).map(|number| format!("c{number}")).collect();
    let rules: Vec<RuleName<'_>> = names.iter().map(|name| RuleName::Category(name)).collect();
    assert_eq!(
        explain(&rules),
        "category c0; category c1; category c2; category c3; category c4; category c5; and 3 more"
    );
}

#[test]
fn what_the_mix_leaves_out_falls_under_the_stores_rule() {
    let policy = Policy::example();
    let half_known = trip(42, &[("PRODUCE", 50_00)], 50_00);
    assert_eq!(policy.cap(&half_known).amount, 115_00);
    let mut overstated = trip(42, &[("PRODUCE", 50_00)], 0);
    overstated.picked = 40_00;
    assert_eq!(policy.cap(&overstated).amount, 45_00);
}

#[test]
fn a_small_count_does_not_decay_to_none() {
    let limit = Tally {
        amount: 10_00,
        count: 2,
    };
    assert_eq!(
        limit.part(2_500),
        Tally {
            amount: 2_50,
            count: 1
        }
    );
    assert_eq!(limit.part(0), Tally::default());
}

fn trip(store: i64, mix: &[(&str, i64)], unexplained: i64) -> Trip {
    let picked = mix.iter().map(|(_, sum)| sum).sum::<i64>() + unexplained;
    Trip {
        id: crate::id::TripId(uuid::Uuid::from_u128(7)),
        shopper: crate::id::ShopperId::try_from(123_i64).unwrap(),
        store: StoreId::try_from(store).unwrap(),
        currency: Currency::USD,
        status: crate::trip::TripStatus::Shopping,
        version: 1,
        picked,
        picked_listed: picked,
        mix: mix
            .iter()
            .map(|(name, sum)| ((*name).to_owned(), *sum))
            .collect(),
        started_at: crate::clock::Timestamp::from_millis(0),
    }
}

mod properties {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static POLICY: LazyLock<Policy> = LazyLock::new(Policy::example);

    /// (percent, absolute, ceiling) of the example file, read off by hand, most specific first.
    fn naive_rule(store: i64, category: &str) -> (u128, u128, u128) {
        if store == 900_001 && category == "PRODUCE" {
            return (12_50, 3_00, 1_000_00);
        }
        if store == 900_001 {
            return (4_00, 3_00, 1_000_00);
        }
        match category {
            "PRODUCE" => (20_00, 5_00, 2_500_00),
            "MEAT" => (15_00, 8_00, 2_500_00),
            _ => (10_00, 5_00, 2_500_00),
        }
    }

    /// The formula, written down anew: over one common denominator, floored by each term.
    fn naive_cap(store: i64, mix: &[(&str, i64)]) -> u128 {
        let picked: u128 = mix.iter().map(|(_, sum)| *sum as u128).sum();
        if picked == 0 {
            let (_, absolute, ceiling) = naive_rule(store, "");
            return absolute.min(ceiling);
        }
        let (mut percent, mut absolute, mut ceiling) = (0, 0, 0);
        for (category, sum) in mix {
            let (p, a, c) = naive_rule(store, category);
            percent += *sum as u128 * p;
            absolute += *sum as u128 * a;
            ceiling += *sum as u128 * c;
        }
        let tolerance = (percent / 10_000).max(absolute / picked);
        (picked + tolerance).min(ceiling / picked)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_cap_is_what_the_formula_says(
            store in prop::sample::select(vec![42_i64, 900_001]),
            sums in prop::collection::vec(0_i64..2_000_00, 4),
        ) {
            let mix: Vec<(&str, i64)> =
                ["PRODUCE", "MEAT", "GROCERY", "DELI"].into_iter().zip(sums).collect();
            let cap = POLICY.cap(&trip(store, &mix, 0)).amount;
            prop_assert_eq!(cap as u128, naive_cap(store, &mix));
        }

        #[test]
        fn more_of_the_same_never_lowers_the_cap(sum in 0_i64..5_000_00, more in 0_i64..5_000_00) {
            let cap = |sum| POLICY.cap(&trip(42, &[("PRODUCE", sum)], 0)).amount;
            prop_assert!(cap(sum + more) >= cap(sum));
            prop_assert!(cap(sum) >= sum.min(2_500_00));
        }

        #[test]
        fn limits_only_shrink_with_age(age in 0_u64..5_000_000, more in 0_u64..5_000_000) {
            let decay = &POLICY.stand_in.decay;
            prop_assert!(decay.share_at(age + more) <= decay.share_at(age));
            let trip = trip(42, &[("GROCERY", 400_00)], 0);
            let cap = POLICY.cap(&trip).amount;
            let young = POLICY.stand_in_limits(Some((&trip, cap)), age);
            let old = POLICY.stand_in_limits(Some((&trip, cap)), age + more);
            prop_assert!(old.transaction <= young.transaction && old.trip <= young.trip);
            for (old, young) in [
                (old.shopper_outage, young.shopper_outage), (old.shopper_hour, young.shopper_hour),
                (old.bank_outage, young.bank_outage), (old.bank_hour, young.bank_hour),
            ] {
                prop_assert!(old.amount <= young.amount && old.count <= young.count);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", from in 0_usize..2_000, length in 0_usize..40) {
            drop(Policy::parse(&text));
            let (start, end) = (from.min(EXAMPLE.len()), (from + length).min(EXAMPLE.len()));
            if EXAMPLE.is_char_boundary(start) && EXAMPLE.is_char_boundary(end) {
                drop(Policy::parse(&format!("{}{text}{}", &EXAMPLE[..start], &EXAMPLE[end..])));
            }
        }
    }
}

fn change() -> Change {
    Change {
        operator: "ada \"the\" \\ first".to_owned(),
        reason: "shadow:\n1,000 judged".to_owned(),
        at: Timestamp::from_millis(1_800_000_000_123),
        replaces: 1,
    }
}

#[test]
fn a_policy_written_reads_back_the_same() {
    let mut policy = Policy::example();
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    policy.version = 2;
    policy.change = Some(change());
    let odd = RuleKey {
        store: None,
        category: Some("a \"b\" \\ \u{7}ü".to_owned()),
    };
    let threshold = policy.thresholds.default_threshold();
    let rules: Vec<_> = policy
        .thresholds
        .rules()
        .chain([(odd, threshold)])
        .collect();
    assert_eq!(rules.len(), 5);
    policy.thresholds = Thresholds::of(threshold, rules);
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
}

#[test]
fn a_change_must_say_who_and_why_and_come_later() {
    let with = |from: &str, to: &str| {
        let mut policy = Policy::example();
        policy.version = 2;
        policy.change = Some(change());
        let text = policy.to_toml();
        assert!(text.contains(from), "no {from} in {text}");
        match Policy::parse(&text.replacen(from, to, 1)) {
            Err(PolicyError::Value { key, .. }) => key,
            other => panic!("{to:?} should be refused, got {other:?}"),
        }
    };
    assert_eq!(with("replaces = 1", "replaces = 2"), "change.replaces");
    assert_eq!(
        with("reason = \"shadow:", "reason = \"\" # "),
        "change.reason"
    );
    assert_eq!(
        with("max_step_percent = \"5\"", "max_step_percent = \"101\""),
        "promotion.max_step_percent"
    );
}

/// The example as its next version, with other tolerances.
fn proposed(default: Threshold, rules: Vec<(RuleKey, Threshold)>) -> Policy {
    let mut next = Policy::example();
    next.version = 2;
    next.thresholds = Thresholds::of(default, rules);
    next.stand_in.threshold = Threshold {
        percent_bp: next.stand_in.threshold.percent_bp.min(default.percent_bp),
        absolute: next.stand_in.threshold.absolute.min(default.absolute),
        ceiling: next.stand_in.threshold.ceiling.min(default.ceiling),
    };
    next
}

fn category(name: &str) -> RuleKey {
    RuleKey {
        store: None,
        category: Some(name.to_owned()),
    }
}

#[test]
fn a_step_beyond_the_limit_is_refused_up_and_down() {
    let active = Policy::example();
    let default = active.thresholds.default_threshold();
    let rules: Vec<_> = active.thresholds.rules().collect();
    let check = |threshold: Threshold, beyond: bool| {
        let next = proposed(threshold, rules.clone());
        match active.promoted(&next, change()) {
            Ok(next) => assert!(!beyond && next.version == 2 && next.change.is_some()),
            Err(PromoteError::Beyond { beyond: steps }) => {
                assert!(beyond && steps.iter().any(|step| step.place == Place::Default));
            }
            Err(other) => panic!("{other}"),
        }
    };
    for (percent_bp, beyond) in [(1_500, false), (1_501, true), (500, false), (499, true)] {
        check(
            Threshold {
                percent_bp,
                ..default
            },
            beyond,
        );
    }
    for (absolute, beyond) in [(10_00, false), (10_01, true), (0, false)] {
        check(
            Threshold {
                absolute,
                ..default
            },
            beyond,
        );
    }
    for (ceiling, beyond) in [(3_000_00, false), (3_000_01, true), (1_999_99, true)] {
        check(Threshold { ceiling, ..default }, beyond);
    }
}

#[test]
fn what_is_dropped_with_a_rule_is_a_step_too() {
    let active = Policy::example();
    let default = active.thresholds.default_threshold();
    // Without the store's rule its carts fall under the category's and the default's.
    let everywhere: Vec<_> = active
        .thresholds
        .rules()
        .filter(|(key, _)| key.store.is_none())
        .collect();
    let steps = active.steps_to(&proposed(default, everywhere)).unwrap();
    let named: Vec<String> = steps.iter().map(|step| step.place.to_string()).collect();
    assert_eq!(
        named,
        [
            "store 900001",
            "store 900001 + MEAT",
            "store 900001 + PRODUCE"
        ]
    );
    assert!(steps.iter().all(|step| step.loosens() && !step.tightens()));
}

#[test]
fn only_tolerances_are_promoted_and_only_forwards() {
    let active = Policy::example();
    let mut next = active.clone();
    let refused = |next: &Policy| active.promoted(next, change()).unwrap_err();
    assert!(matches!(
        refused(&next),
        PromoteError::Version { from: 1, to: 1 }
    ));
    next.version = 2;
    assert_eq!(refused(&next), PromoteError::Nothing);
    next.isolated.floor += 1;
    assert_eq!(refused(&next), PromoteError::Other("isolated"));
    // A proposal that widens its own step.
    let mut next = active.clone();
    next.version = 2;
    next.promotion.max_step_percent_bp = WHOLE_BP;
    assert_eq!(refused(&next), PromoteError::Other("promotion"));
    let mut next = active.clone();
    next.version = 2;
    next.stand_in.transaction -= 1;
    assert!(matches!(refused(&next), PromoteError::Other(name) if name.starts_with("stand_in")));
}

mod stepping {
    use proptest::prelude::*;

    use super::*;

    fn threshold() -> impl Strategy<Value = Threshold> {
        (0..=3_000_u32, 0..=30_00_i64, 1_500_00..=4_000_00_i64).prop_map(
            |(percent_bp, absolute, ceiling)| Threshold {
                percent_bp,
                absolute,
                ceiling,
            },
        )
    }

    proptest! {
        #[test]
        fn goes_all_the_way_in_allowed_steps(
            default in threshold(),
            produce in threshold(),
            deli in proptest::option::of(threshold()),
        ) {
            let mut rules = vec![(category("PRODUCE"), produce)];
            rules.extend(deli.map(|deli| (category("DELI"), deli)));
            let mut goal = proposed(default, rules);
            let mut active = Policy::example();
            // Without its store: where rules of stores go, one step may be more than one.
            let everywhere: Vec<_> = active.thresholds.rules().filter(|(key, _)| key.store.is_none()).collect();
            active.thresholds = Thresholds::of(active.thresholds.default_threshold(), everywhere);
            for _ in 0..100 {
                match active.promoted(&goal, change()) {
                    Ok(_) => return Ok(()),
                    Err(PromoteError::Nothing) => return Ok(()),
                    Err(PromoteError::Beyond { .. }) => {}
                    Err(other) => prop_assert!(false, "{other}"),
                }
                let next = active.stepped(&goal, Change { replaces: active.version, ..change() }).unwrap();
                for step in active.steps_to(&next).unwrap() {
                    prop_assert!(active.promotion.allows(&step), "{step}");
                }
                prop_assert_eq!(&Policy::parse(&next.to_toml()).unwrap(), &next);
                active = next;
                goal.version = active.version + 1;
            }
            prop_assert!(false, "a hundred steps did not get there");
        }
    }
}
