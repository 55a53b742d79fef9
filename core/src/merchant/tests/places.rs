//! Texts without a street, numbers of stores, and what tells branches apart.

use super::*;

fn city() -> StoreDirectory {
    StoreDirectory::new(vec![
        store(1, "Safeway #1204", "9 Oak St, San Francisco, CA 94103"),
        store(2, "Safeway #654", "12 Elm St, San Francisco, CA 94110"),
        store(3, "Safeway #77", "1 Bay Rd, South San Francisco, CA 94080"),
        store(4, "Trader Joe's", "40 Main St, Oakland, CA 94607"),
        store(5, "Trader Joe's", "41 Main St, Oakland, CA 94609"),
        store(6, "Trader Joe's", "5 Hill Rd, Springfield, IL 62701"),
        store(7, "Trader Joe's", "5 Hill Rd, Springfield, MO 65802"),
        store(8, "Walmart #2919", "100 5th Ave San Jose CA 95112"),
        store(9, "Noodle Bar", "500 Mall Dr Suite 120, Fresno, CA 93701"),
        store(10, "Corner Books", "7 Some St"),
    ])
}

#[track_caller]
fn check(name: &str, address: &str, expected: Resolution) {
    let merchant = Merchant {
        name: name.to_owned(),
        address: address.to_owned(),
    };
    assert_eq!(city().resolve(&merchant), expected, "{name} | {address}");
}

#[test]
fn another_store_number_is_another_store() {
    for name in [
        "SAFEWAY #0654",
        "SAFEWAY 654",
        "SAFEWAY STORE 654",
        "Safeway T-0654",
    ] {
        check(name, "", is(2));
        check(name, "San Francisco CA", is(2));
        check(
            name,
            "9 Oak St, San Francisco, CA 94103",
            Resolution::Unknown,
        );
    }
    check(
        "SAFEWAY #9999",
        "9 Oak St, San Francisco, CA 94103",
        Resolution::Unknown,
    );
    check(
        "SAFEWAY #9999",
        "San Francisco CA 94103",
        Resolution::Unknown,
    );
    check("SAFEWAY #9999", "", Resolution::Unknown);
    check("WAL-MART #2919", "", is(8));
    check("WAL-MART #2919 SAN JOSE", "", is(8));
    check("WM SUPERCENTER #2919", "", Resolution::Unknown);
}

#[test]
fn a_number_that_may_be_cut_tells_nothing_alone() {
    let whole = StoreDirectory::new(vec![
        store(1, "Whole Foods Market #10", "1 A St, Reno, NV 89501"),
        store(2, "Whole Foods Market #102", "2 B St, Reno, NV 89502"),
    ]);
    let at = |name: &str, address: &str| {
        whole.resolve(&Merchant {
            name: name.to_owned(),
            address: address.to_owned(),
        })
    };
    assert_eq!(at("WHOLE FOODS MARKET #10", ""), Resolution::Ambiguous);
    assert_eq!(
        at("WHOLE FOODS MARKET #10", "Reno NV"),
        Resolution::Ambiguous
    );
    assert_eq!(at("WHOLE FOODS MARKET #10", "Reno NV 89502"), is(2));
    assert_eq!(at("WHOLE FOODS MKT #10", ""), is(1));
    assert_eq!(at("WHOLE FOODS MARKET 00102", ""), Resolution::Ambiguous);
}

#[test]
fn a_city_or_postal_code_tells_branches_apart() {
    check("SAFEWAY", "San Francisco CA 94103", is(1));
    check("SAFEWAY", "SAN FRANCISCO CA 94110-1234 US", is(2));
    check("SAFEWAY", "San Francisco, California 94110", is(2));
    check("SAFEWAY", "San Francisco CA", Resolution::Ambiguous);
    check("SAFEWAY", "SOUTH SAN FRA CA", is(3));
    check("SAFEWAY", "94080", is(3));
    check("SAFEWAY", "San Francisco CA 94199", Resolution::Unknown);
    check("SAFEWAY", "Oakland CA 94103", Resolution::Unknown);
    check("TRADER JOES", "Oakland CA", Resolution::Ambiguous);
    check("TRADER JOES", "Oakland CA 94609", is(5));
    check("TRADER JOES", "Springfield", Resolution::Ambiguous);
    check("TRADER JOES", "Springfield MO", is(7));
    check("TRADER JOES", "5 Hill Rd", Resolution::Ambiguous);
    check("TRADER JOES", "5 Hill Road, Springfield IL", is(6));
    check("TRADER JOE'S OAKLAND", "", Resolution::Ambiguous);
    check("SAFEWAY SOUTH SAN FRANCISCO", "", is(3));
    check(
        "SAFEWAY PHARMACY",
        "San Francisco CA 94103",
        Resolution::Unknown,
    );
}

#[test]
fn a_store_we_know_not_where_stands_in_the_way() {
    // There is one here for all we know.
    check("CORNER BOOKS", "Oakland CA", Resolution::Ambiguous);
    check("CORNER BOOKS", "7 Some St, Oakland CA", is(10));
}

#[test]
fn another_suite_road_or_compass_is_another_place() {
    check("NOODLE BAR", "500 Mall Dr, Fresno CA", is(9));
    check("NOODLE BAR", "500 Mall Dr #120, Fresno CA", is(9));
    check(
        "NOODLE BAR",
        "500 Mall Dr Ste 210, Fresno CA",
        Resolution::Unknown,
    );
    check("Walmart", "100 5th Ave, San Jose", is(8));
    check(
        "Walmart",
        "100 6th Ave, San Jose CA 95112",
        Resolution::Unknown,
    );
    check(
        "Walmart",
        "100 5th St, San Jose CA 95112",
        Resolution::Unknown,
    );
    check("Trader Joe's", "40 Main St, Reno NV", Resolution::Unknown);
}

#[test]
fn what_processors_write_before_a_name_is_no_part_of_it() {
    check("SQ *NOODLE BAR", "Fresno CA 93701", is(9));
    check("TST* NOODLE BAR", "Fresno CA 93701", is(9));
    check("DD *NOODLE BAR", "Fresno CA 93701", Resolution::Unknown);
}
