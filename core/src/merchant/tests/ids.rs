//! What networks call stores, before what their texts say.

use super::*;

fn id(network_id: &str, terminal: &str, store: i64) -> MerchantId {
    let read = |text: &str| text.parse::<NetworkId>().ok();
    MerchantId {
        network_id: read(network_id).unwrap(),
        terminal: read(terminal),
        store: StoreId::try_from(store).unwrap(),
    }
}

fn chain() -> StoreDirectory {
    let stores = vec![
        store(1, "Safeway #101", "9 Oak St, San Francisco, CA 94103"),
        store(2, "Safeway #102", "12 Elm St, San Jose, CA 95112"),
        store(3, "Safeway #103", "40 Main St, Oakland, CA 94607"),
        store(4, "Corner Deli", "1 High St, Oakland, CA 94607"),
    ];
    let ids = vec![
        id("ONE", "", 4),
        id("MANY", "T1", 1),
        id("MANY", "T2", 2),
        id("MANY", "T3", 99),
        id("TWO", "", 1),
        id("TWO", "9", 2),
        id("GONE", "", 99),
        id("SAME", "A", 3),
        id("SAME", "B", 3),
    ];
    StoreDirectory::with_ids(stores, ids)
}

#[track_caller]
fn check(network_id: &str, terminal: &str, name: &str, address: &str, expected: Resolution) {
    let merchant = Merchant {
        name: name.to_owned(),
        address: address.to_owned(),
    };
    let said = |text: &'static str| Some(text).filter(|text| !text.is_empty());
    let (network_id, terminal) = (network_id.to_owned().leak(), terminal.to_owned().leak());
    let found = chain().resolve_ids(said(network_id), said(terminal), &merchant);
    assert_eq!(
        found, expected,
        "{network_id} {terminal} | {name} | {address}"
    );
}

#[test]
fn a_known_id_wins_over_the_text() {
    check(
        "ONE",
        "",
        "Safeway #101",
        "9 Oak St, San Francisco, CA 94103",
        is(4),
    );
    check("one ", "", "whatever", "", is(4));
    check("ONE", "77", "whatever", "", is(4));
    check("MANY", "T2", "Safeway #101", "", is(2));
    check("SAME", "", "whatever", "", is(3));
    check("SAME", "Z", "whatever", "", is(3));
}

#[test]
fn an_id_that_leads_nowhere_says_nothing() {
    for (network_id, terminal) in [
        ("", ""),
        ("", "T1"),
        ("NEW", ""),
        ("GONE", ""),
        ("MANY", "T3"),
        // One of its stores is unknown to us: it may be that one.
        ("MANY", ""),
        ("MANY", "T9"),
        ("\u{e9}", ""),
    ] {
        check(network_id, terminal, "SAFEWAY #0103", "", is(3));
        check(network_id, terminal, "SAFEWAY", "", Resolution::Ambiguous);
        check(network_id, terminal, "Nobody", "", Resolution::Unknown);
    }
}

#[test]
fn of_several_stores_of_an_id_the_text_chooses_or_nobody() {
    check("TWO", "", "SAFEWAY", "San Jose CA", is(2));
    check("TWO", "5", "SAFEWAY #101", "", is(1));
    check("TWO", "9", "SAFEWAY", "", is(2));
    check("TWO", "", "SAFEWAY", "", Resolution::Ambiguous);
    // Store 3 is none of its stores, whatever the text says.
    check("TWO", "", "SAFEWAY #103", "", Resolution::Ambiguous);
    check("TWO", "", "Corner Deli", "1 High St", Resolution::Ambiguous);
}

#[test]
fn a_networks_id_is_printable_and_upper_case() {
    let read = |text: &str| text.parse::<NetworkId>().map(|id| id.to_string());
    assert_eq!(read("  ab 12-x "), Ok("AB 12-X".to_owned()));
    assert_eq!(read(&"x".repeat(64)), Ok("X".repeat(64)));
    for wrong in ["", "   ", "a\tb", "a\n", "\u{e9}", &"x".repeat(65)] {
        assert_eq!(read(wrong), Err(NetworkIdError), "{wrong:?}");
    }
}

#[test]
fn of_two_ids_with_one_key_the_later_holds() {
    let ids = vec![id("A", "", 1), id("A", "", 2)];
    let stores = vec![store(1, "One", ""), store(2, "Two", "")];
    let directory = StoreDirectory::with_ids(stores, ids);
    assert_eq!(directory.merchant_ids().count(), 1);
    let merchant = Merchant {
        name: "One".to_owned(),
        address: String::new(),
    };
    assert_eq!(directory.resolve_ids(Some("a"), None, &merchant), is(2));
}
