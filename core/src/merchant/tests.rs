#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::inconsistent_digit_grouping,
    reason = "test code; amounts are written in cents"
)]
use super::*;
use crate::authorization::Merchant;

mod ids;
mod places;

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

#[test]
fn stores_are_known_by_id() {
    let town = town();
    assert_eq!(town.len(), 8);
    let id = StoreId::try_from(3_i64).unwrap();
    assert_eq!(
        town.get(id).map(|store| store.name.as_str()),
        Some("Trader Joe's")
    );
    assert_eq!(town.get(StoreId::try_from(9_i64).unwrap()), None);
    let twice = StoreDirectory::new(vec![store(1, "Old", "1 A St"), store(1, "New", "1 A St")]);
    assert_eq!((twice.len(), twice.is_empty()), (1, false));
    let merchant = |name: &str| Merchant {
        name: name.to_owned(),
        address: "1 A St".to_owned(),
    };
    assert_eq!(twice.resolve(&merchant("New")), is(1));
    assert_eq!(twice.resolve(&merchant("Old")), Resolution::Unknown);
}

#[test]
fn a_rival_within_the_margin_makes_it_ambiguous() {
    let malls = StoreDirectory::new(vec![
        store(1, "Fresh Market", "Harbour Mall North Wing"),
        store(2, "Fresh Market", "Harbour Mall South Wing"),
        store(3, "Fresh Market", "Riverside Mall"),
    ]);
    let at = |address: &str| {
        malls.resolve(&Merchant {
            name: "Fresh Market".to_owned(),
            address: address.to_owned(),
        })
    };
    assert_eq!(at("Harbour Mall N. Wing"), is(1));
    assert_eq!(at("Harbour Mall North Wng"), Resolution::Ambiguous);
    assert_eq!(at("Harbour Mall"), Resolution::Ambiguous);
    assert_eq!(at("River Side Mall"), is(3));
    assert_eq!(at("Airport"), Resolution::Unknown);
}

#[test]
fn more_candidates_than_the_bound_are_ambiguous() {
    let chain = (1..=10_001).map(|id| store(id, "Kwik Shop", &format!("1 Road {id}x")));
    let chain = StoreDirectory::new(chain.collect());
    let merchant = Merchant {
        name: "Kwik Shoppe".to_owned(),
        address: "1 Road".to_owned(),
    };
    assert_eq!(chain.resolve(&merchant), Resolution::Ambiguous);
}

/// Stores of 60 chains in 400 towns with 1,000 streets each.
fn country(stores: usize) -> Vec<Store> {
    let syllables = [
        "ka", "lo", "min", "tar", "ve", "rus", "pon", "di", "shel", "gra",
    ];
    let word = |mut number: usize, parts: usize| {
        let mut word = String::new();
        for _ in 0..parts {
            word.push_str(syllables[number % 10]);
            number /= 10;
        }
        word
    };
    (0..stores)
        .map(|at| {
            let mixed = at.wrapping_mul(2_654_435_761) % 1_000_003;
            let address = format!(
                "{} {} {}, {}",
                mixed % 2_999 + 1,
                word(mixed % 1_000, 3),
                ["Street", "Ave", "Blvd", "Rd"][mixed % 4],
                word(mixed % 400 + 1_000, 4),
            );
            store(at as i64 + 1, &word(at % 60 + 100, 3), &address)
        })
        .collect()
}

#[test]
fn among_many_stores_each_text_finds_its_own_or_is_ambiguous() {
    let stores = country(10_000);
    let directory = StoreDirectory::new(stores.clone());
    let mut found = 0;
    for store in stores.iter().step_by(23) {
        let cut: String = store.name.chars().take(store.name.len() - 1).collect();
        let merchant = Merchant {
            name: format!("{} #77", cut.to_uppercase()),
            address: store.address.replace("Street", "St."),
        };
        match directory.resolve(&merchant) {
            Resolution::Store(id) => {
                let other = directory.get(id).unwrap();
                assert_eq!((&other.name, &other.address), (&store.name, &store.address));
                found += 1;
            }
            Resolution::Ambiguous => {}
            Resolution::Unknown => panic!("{merchant:?} is unknown"),
        }
    }
    assert!(found > 400, "{found}");
}

#[test]
#[ignore = "prints how long a resolution takes; run it with --release"]
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn how_long_a_resolution_takes_among_a_hundred_thousand() {
    let stores = country(100_000);
    let directory = StoreDirectory::new(stores.clone());
    let texts = |change: fn(&Store) -> Merchant| -> Vec<Merchant> {
        stores.iter().step_by(101).map(change).collect()
    };
    for (kind, texts) in [
        (
            "own text",
            texts(|store| Merchant {
                name: store.name.clone(),
                address: store.address.clone(),
            }),
        ),
        (
            "cut name",
            texts(|store| Merchant {
                name: store.name[..store.name.len() - 2].to_owned(),
                address: store.address.clone(),
            }),
        ),
        (
            "no house number",
            texts(|store| Merchant {
                name: format!("{}x", store.name),
                address: store.address.split_once(' ').unwrap().1.to_owned(),
            }),
        ),
        (
            "name only, misspelt",
            texts(|store| Merchant {
                name: format!("{}x", store.name),
                address: String::new(),
            }),
        ),
    ] {
        let mut micros: Vec<u128> = texts
            .iter()
            .map(|merchant| {
                let start = std::time::Instant::now();
                std::hint::black_box(directory.resolve(merchant));
                start.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        let at = |share: usize| micros[(micros.len() - 1) * share / 100];
        println!(
            "{kind}: p50 {} µs, p99 {} µs, max {} µs",
            at(50),
            at(99),
            at(100)
        );
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        let written = "[A-Za-z]{1,8}( [A-Za-z'&.-]{1,8}){0,2}( (#|T-)?[0-9]{1,5})?";
        prop_oneof![4 => written, 1 => "\\PC{0,20}"]
    }

    fn address() -> impl Strategy<Value = String> {
        let written = "[0-9]{1,3} ([NSEW] )?(Oak|Elm|Main|Saint Mary) (Street|Avenue|Road|Boulevard)(, [A-Z][a-z]{2,6})?";
        prop_oneof![6 => written, 1 => "\\PC{0,30}", 1 => Just(String::new())]
    }

    fn stores() -> impl Strategy<Value = Vec<Store>> {
        prop::collection::vec((text(), address()), 1..25).prop_map(|texts| {
            (1..)
                .zip(texts)
                .map(|(id, (name, address))| store(id, &name, &address))
                .collect()
        })
    }

    fn shortened(text: &str) -> String {
        [
            ("Street", "St."),
            ("Avenue", "AVE"),
            ("Road", "rd"),
            ("Boulevard", "Blvd"),
            ("Saint", "St"),
            (" N ", " North "),
            (" S ", " SOUTH "),
            (" E ", " east "),
            (" W ", " West "),
        ]
        .iter()
        .fold(text.to_owned(), |text, (long, short)| {
            text.replace(long, short)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_stores_own_text_gives_that_store(stores in stores()) {
            let directory = StoreDirectory::new(stores.clone());
            for store in &stores {
                let merchant = Merchant { name: store.name.clone(), address: store.address.clone() };
                let own = Resolution::Store(store.id);
                match directory.resolve(&merchant) {
                    Resolution::Unknown => prop_assert!(!store.name.chars().any(char::is_alphanumeric)),
                    Resolution::Ambiguous => {
                        let key = |other: &Store| {
                            (normal::Name::read(&other.name).full, normal::Address::read(&other.address).full)
                        };
                        let same = stores.iter().filter(|other| key(other) == key(store)).count();
                        prop_assert!(same > 1, "{:?}", store);
                    }
                    found @ Resolution::Store(_) => prop_assert_eq!(found, own),
                }
            }
        }

        #[test]
        fn abbreviations_change_nothing(stores in stores(), text in text(), address in address()) {
            let directory = StoreDirectory::new(stores.clone());
            let texts = stores.iter().map(|store| (&store.name, &store.address));
            for (name, address) in texts.chain([(&text, &address)]) {
                let written = Merchant { name: name.clone(), address: address.clone() };
                let short = Merchant { name: name.clone(), address: shortened(address) };
                let loud = Merchant { name: name.to_uppercase(), address: format!(" {} ", address.to_uppercase()) };
                let found = directory.resolve(&written);
                prop_assert_eq!(found, directory.resolve(&short));
                if name.is_ascii() && address.is_ascii() {
                    prop_assert_eq!(found, directory.resolve(&loud));
                }
            }
        }

        #[test]
        fn the_order_of_stores_changes_nothing(stores in stores(), text in text(), address in address()) {
            let merchant = Merchant { name: text, address };
            let mut turned = stores.clone();
            turned.reverse();
            prop_assert_eq!(
                StoreDirectory::new(stores).resolve(&merchant),
                StoreDirectory::new(turned).resolve(&merchant)
            );
        }

        #[test]
        fn normal_forms_are_normal(text in "\\PC{0,40}") {
            let once = normal::Address::read(&text).full;
            prop_assert_eq!(&normal::Address::read(&once).full, &once);
        }
    }
}
