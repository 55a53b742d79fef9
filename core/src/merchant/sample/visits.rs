//! Stores, place by place.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{CHAINS, CITIES, FIRST, LAST, MALLS, ROADS, STYLES, TOWN_STATES, TOWNS};
use super::{Chance, Layout, NumberStyle, Shop};

/// A city and its postal codes.
pub(super) struct City {
    name: String,
    state: &'static str,
    zips: Vec<u32>,
    lat_e6: i32,
    lon_e6: i32,
}

pub(super) fn cities(stores: usize, chance: &mut Chance) -> Vec<City> {
    let mut cities: Vec<City> = CITIES
        .iter()
        .map(|(name, state, prefix)| City {
            name: (*name).to_owned(),
            state,
            zips: (0..12)
                .map(|_| prefix * 100 + chance.number(1, 99))
                .collect(),
            lat_e6: chance.signed(30_000_000, 10_000_000),
            lon_e6: chance.signed(-120_000_000, 40_000_000),
        })
        .collect();
    // A state has no two cities of one name.
    let named = |city: &City| (city.name.clone(), city.state);
    let mut names: BTreeSet<_> = cities.iter().map(named).collect();
    for _ in 0..stores / 80 {
        let (front, back) = (chance.of(&TOWNS.0), chance.of(&TOWNS.1));
        let (state, prefix) = chance.of(TOWN_STATES);
        let city = City {
            name: format!("{front}{back}"),
            state,
            zips: (0..1 + chance.below(3))
                .map(|_| (prefix + chance.number(0, 9)) * 100 + chance.number(1, 99))
                .collect(),
            lat_e6: chance.signed(30_000_000, 10_000_000),
            lon_e6: chance.signed(-120_000_000, 40_000_000),
        };
        if names.insert(named(&city)) {
            cities.push(city);
        }
    }
    cities
}

/// Some stores of one place: a mall, a branch with its departments, or an independent.
pub(super) fn visit(
    cities: &[City],
    numbers: &mut BTreeMap<&'static str, BTreeSet<u32>>,
    chance: &mut Chance,
) -> Vec<Shop> {
    // Half of all stores are in the cities that are listed, which are the large ones.
    let city = if chance.percent(50) {
        &cities[chance.below(CITIES.len())]
    } else {
        chance.of(cities)
    };
    let layout = match chance.below(100) {
        0..75 => Layout::Commas,
        75..85 => Layout::Blanks,
        85..95 => Layout::NoZip,
        _ => Layout::StreetOnly,
    };
    let place = Shop {
        id: 0,
        name: String::new(),
        number: None,
        house: Some(house(chance)),
        road: road(chance),
        suite: None,
        city: city.name.clone(),
        state: city.state,
        zip: *chance.of(&city.zips),
        lat_e6: city.lat_e6 + chance.signed(0, 200_000),
        lon_e6: city.lon_e6 + chance.signed(0, 200_000),
        layout,
    };
    match chance.below(100) {
        0..2 => mall(&place, numbers, chance),
        2..60 => branch(&place, numbers, chance),
        _ => vec![Shop {
            name: independent(chance),
            suite: chance.percent(10).then(|| chance.number(1, 40)),
            ..place
        }],
    }
}

fn house(chance: &mut Chance) -> u32 {
    match chance.below(4) {
        0 => chance.number(1, 99),
        1 => chance.number(1, 99) * 100,
        _ => chance.number(100, 9_999),
    }
}

fn road(chance: &mut Chance) -> String {
    let road = *chance.of(ROADS);
    match chance.below(100) {
        0..12 => format!("{} {road}", chance.of(&["N", "S", "E", "W"])),
        12..15 => format!("{road} {}", chance.of(&["NE", "NW", "SE", "SW"])),
        _ => road.to_owned(),
    }
}

fn independent(chance: &mut Chance) -> String {
    let last = chance.of(LAST);
    match chance.below(10) {
        0 => format!("The {} {last}", chance.of(FIRST)),
        1 => format!("{} & {} {last}", chance.of(FIRST), chance.of(FIRST)),
        2 => format!("{} {last} LLC", chance.of(FIRST)),
        _ => format!("{} {last}", chance.of(FIRST)),
    }
}

/// A store of a chain and, at some, its departments.
fn branch(
    place: &Shop,
    numbers: &mut BTreeMap<&'static str, BTreeSet<u32>>,
    chance: &mut Chance,
) -> Vec<Shop> {
    // A few chains are large.
    let end = if chance.percent(60) {
        CHAINS.len() / 5
    } else {
        CHAINS.len()
    };
    let at = chance.below(end);
    let (name, numbered, departments) = CHAINS[at];
    let style = NumberStyle::ALL[STYLES[at % STYLES.len()]];
    let number = numbered.then(|| {
        let taken = numbers.entry(name).or_default();
        loop {
            let number = chance.number(1, 9_999);
            if taken.insert(number) {
                return (number, style);
            }
            if taken.len() > 9_000 {
                return (chance.number(10_000, 99_999), style);
            }
        }
    });
    let store = Shop {
        name: name.to_owned(),
        number,
        ..place.clone()
    };
    let mut all = vec![store.clone()];
    for department in departments {
        if chance.percent(40) {
            all.push(Shop {
                name: format!("{name} {department}"),
                ..store.clone()
            });
        }
    }
    all
}

/// A mall: one address, many tenants, told apart by suite.
fn mall(
    place: &Shop,
    numbers: &mut BTreeMap<&'static str, BTreeSet<u32>>,
    chance: &mut Chance,
) -> Vec<Shop> {
    let mut place = place.clone();
    if chance.percent(25) {
        place.house = None;
        place.road = format!("{} {}", chance.of(FIRST), chance.of(MALLS));
    }
    let mut all = Vec::new();
    for at in 0..chance.number(6, 30) {
        place.suite = Some(100 + at * 10 + chance.number(0, 9));
        if chance.percent(50) {
            all.extend(branch(&place, numbers, chance).into_iter().take(1));
        } else {
            all.push(Shop {
                name: independent(chance),
                ..place.clone()
            });
        }
    }
    all
}
