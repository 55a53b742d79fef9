use super::*;

/// Least right of a hundred texts of a class, and most that may lead to another store.
const fn floor(class: Class) -> (usize, usize) {
    match class {
        Class::Exact | Class::Capitals | Class::Abbreviated | Class::OtherNumber => (100, 0),
        Class::NumberRespelt | Class::StreetOnly | Class::StrangerNumbered => (99, 0),
        Class::Suites | Class::CutWithStreet | Class::NumberAndCity => (98, 0),
        Class::Typos => (86, 0),
        Class::CutWithArea => (87, 0),
        Class::Area => (91, 0),
        Class::CityCut => (79, 0),
        // Where a number tells branches apart and is left out, most are several.
        Class::AreaUnnumbered => (55, 0),
        // A wrong house number or postal code is another place: a digit of it may not be guessed.
        Class::WrongDigit => (32, 0),
        // Departments, at the address of a store that is ours.
        Class::StrangerExact => (98, 5),
        // Nothing tells these from the one of that name that is ours.
        Class::StrangerUnnumbered => (70, 8),
    }
}

#[test]
fn texts_lead_to_their_store_and_not_to_another() {
    for seed in [1, 2] {
        let sample = Sample::new(10_000, seed);
        let directory = StoreDirectory::new(sample.stores.clone());
        for (class, tally) in sample.judge(&directory, 10, seed) {
            let (right, wrong) = floor(class);
            let enough = tally.right * 100 >= tally.texts() * right;
            let place = format!("seed {seed}, {}: {tally:?}", class.name());
            assert!(tally.texts() > 200, "{place}");
            assert!(tally.wrong <= wrong, "too many of another store: {place}");
            assert!(enough, "too few of their own: {place}");
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_stores_and_texts() {
    let (one, other) = (Sample::new(500, 7), Sample::new(500, 7));
    assert_eq!(one.stores, other.stores);
    for class in Class::ALL {
        assert_eq!(one.texts(*class, 3, 7), other.texts(*class, 3, 7));
    }
    assert_ne!(one.stores, Sample::new(500, 8).stores);
}
