#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]
use super::*;
use crate::authorization::Merchant;

fn store(id: i64, name: &str, address: &str) -> Store {
    Store {
        id: StoreId::try_from(id).unwrap(),
        name: name.to_owned(),
        address: address.to_owned(),
        lat_e6: 0,
        lon_e6: 0,
    }
}

fn is(id: i64) -> Resolution {
    Resolution::Store(StoreId::try_from(id).unwrap())
}

fn town() -> StoreDirectory {
    StoreDirectory::new(vec![
        store(1, "Target", "123 Main St"),
        store(2, "Target", "500 Oak Avenue"),
        store(3, "Trader Joe's", "77 N.W. 5th Ave, Portland"),
        store(4, "Safeway #1204", "9 Saint Mary Street"),
        store(5, "Safeway #1204 Pharmacy", "9 Saint Mary Street"),
        store(6, "Bäckerei Müller", "Plaza del Sol"),
        store(7, "Corner Shop", "1 High St"),
        store(8, "CORNER SHOP", "1 High Street"),
    ])
}

#[track_caller]
fn check(name: &str, address: &str, expected: Resolution) {
    let merchant = Merchant {
        name: name.to_owned(),
        address: address.to_owned(),
    };
    assert_eq!(town().resolve(&merchant), expected, "{name} | {address}");
}

#[test]
fn spelling_does_not_matter() {
    check("Target", "123 Main St", is(1));
    check("TARGET", "123 MAIN STREET.", is(1));
    check("  target ", "123  main   street", is(1));
    check("TRADER JOES", "77 Northwest Fifth Avenue Portland", is(3));
    check("TRADER JOE’S", "77 NW 5TH AVE PORTLAND", is(3));
    check("BACKEREI MULLER", "plaza del sol", is(6));
    check("SAFEWAY", "9 St. Mary St", is(4));
}

#[test]
fn store_numbers_do_not_matter() {
    for name in [
        "TARGET T-1234",
        "TARGET #123",
        "TARGET T1234",
        "Target Store 12",
        "TARGET 00012345",
    ] {
        check(name, "123 Main St", is(1));
    }
}

#[test]
fn a_text_that_goes_on_or_is_cut_short_is_found() {
    check(
        "TARGET STORES INC",
        "123 Main St, Springfield IL 62701",
        is(1),
    );
    check("TRADER JO", "77 NW 5th Ave", is(3));
    check("Tarjet", "123 Main St", is(1));
}

#[test]
fn another_place_is_not_guessed() {
    check("Target", "124 Main St", Resolution::Unknown);
    check("Target", "123 Elm Rd", Resolution::Unknown);
    check("Starbucks", "123 Main St", Resolution::Unknown);
    check("", "123 Main St", Resolution::Unknown);
    check("!!!", "", Resolution::Unknown);
}

#[test]
fn several_equally_near_are_ambiguous() {
    check("Target", "", Resolution::Ambiguous);
    check("Corner Shop", "1 High Street", Resolution::Ambiguous);
    check(
        "Safeway #1204 Phar",
        "9 Saint Mary Street",
        Resolution::Ambiguous,
    );
}

#[test]
fn a_name_alone_is_enough_when_only_one_store_has_it() {
    check("trader joes", "", is(3));
    check("TRADER JOES #55", "", is(3));
}
