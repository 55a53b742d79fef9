#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]
use super::examples::check_examples;
use super::*;

#[test]
fn the_example_does_what_its_examples_expect() {
    let outcomes = check_examples(&Policy::example(), EXAMPLE_EXAMPLES).unwrap();
    for outcome in outcomes {
        assert!(outcome.holds(), "{outcome:?}");
    }
}
