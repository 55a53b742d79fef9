//! Where two addresses agree and where they differ.

use super::super::ADDRESS_MIN;
use super::super::alike::{likeness, slips, within};
use super::super::normal::{Address, is_compass, is_type};
use super::Placed;

/// What city and postal code say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Area {
    Differs,
    /// The same city, another postal code.
    Slip,
    Unknown,
    /// The city is misspelt.
    CityAlike,
    City,
    Zip,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Road {
    Far,
    Alike,
    Continues,
    Same,
    /// And so is the city, which one of the two wrote without a comma.
    SameWithCity,
}

pub(super) fn other_suite(one: &Address, other: &Address) -> bool {
    match (&one.suite, &other.suite) {
        (Some(one), Some(other)) => {
            !(one.ends_with(other.as_str()) || other.ends_with(one.as_str()))
        }
        (Some(_) | None, _) => false,
    }
}

pub(super) fn area(own: &Address, store: &Address) -> Area {
    let city = city(own, store);
    match (own.zip, store.zip) {
        (Some(one), Some(other)) if one == other => match city {
            Area::Differs => Area::Differs,
            _ => Area::Zip,
        },
        (Some(_), Some(_)) if city == Area::City => Area::Slip,
        (Some(_), Some(_)) => Area::Differs,
        (Some(_) | None, _) => city,
    }
}

fn city(own: &Address, store: &Address) -> Area {
    let (said, known) = (own.city.as_str(), store.city.as_str());
    let (says, knows) = (own.cities(), store.cities());
    if says.is_empty() || knows.is_empty() {
        return Area::Unknown;
    }
    let cut = |city: &String| own.city_cut && !said.is_empty() && city.starts_with(said);
    let same = match (own.city_guessed, store.city_guessed) {
        // The roads' comparison will tell.
        (true, true) => said == known,
        (true, false) => says.iter().any(|city| knows.contains(city)),
        (false, _) => knows.iter().any(|city| city == said || cut(city)),
    };
    if same {
        return Area::City;
    }
    let guesses = own.city_guessed && store.city_guessed;
    if guesses || !own.has_city() || !store.has_city() {
        return Area::Unknown;
    }
    let begins = known.starts_with(said);
    let slip = said.len() >= 6 && within(said, known, 1);
    if slip || (begins && said.len() >= 4) {
        Area::CityAlike
    } else {
        Area::Differs
    }
}

pub(super) fn on_road(own: &Address, store: &Address, area: Area) -> Option<Placed> {
    if let (Some(one), Some(other)) = (&own.house, &store.house) {
        if one != other {
            return None;
        }
        return match (road(own, store), area) {
            (Road::SameWithCity, _) => Some(Placed::Here),
            (Road::Same, Area::Unknown) => Some(Placed::Road),
            (Road::Same, Area::Slip | Area::CityAlike | Area::City | Area::Zip) => {
                Some(Placed::Here)
            }
            (Road::Continues, Area::Unknown | Area::CityAlike | Area::City | Area::Zip) => {
                Some(Placed::RoadContinues)
            }
            (Road::Alike, Area::CityAlike | Area::City | Area::Zip) => Some(Placed::RoadAlikeHere),
            (Road::Alike, Area::Unknown) => Some(Placed::RoadAlike),
            (Road::Same | Road::Continues | Road::Alike | Road::Far, _) => None,
        };
    }
    let here = matches!(area, Area::CityAlike | Area::City | Area::Zip);
    // Where one of the two has a house number, a road alone says too little.
    let houseless = own.house.is_none() && store.house.is_none();
    if !here && (area != Area::Unknown || !houseless) {
        return None;
    }
    let text = |address: &Address| {
        let house = address.house.iter().map(String::as_str);
        let road = address.road.iter().map(String::as_str);
        house.chain(road).collect::<Vec<_>>().join(" ")
    };
    let likeness = likeness(&text(own), &text(store));
    // The mean of the name's, which has to be the same, and the address'.
    let mean = likeness.saturating_add(1_000).checked_div(2).unwrap_or(0);
    (likeness >= ADDRESS_MIN).then_some(Placed::Text(mean))
}

/// One text that may be a city.
pub(super) fn vaguely(own: &Address, store: &Address) -> Option<Placed> {
    let said = own.road.join(" ");
    let zips = matches!((own.zip, store.zip), (Some(one), Some(other)) if one != other);
    if store.city.is_empty() || zips {
        return None;
    }
    (said == store.city).then_some(match (own.zip, store.zip) {
        (Some(_), Some(_)) => Placed::Zip,
        (Some(_) | None, _) => Placed::City,
    })
}

fn road(own: &Address, store: &Address) -> Road {
    let (one, other) = (own.road.join(" "), store.road.join(" "));
    if one == other || one.replace(' ', "") == other.replace(' ', "") {
        return Road::Same;
    }
    if own.road_and_city() == store.road_and_city() {
        return Road::SameWithCity;
    }
    if let Some(rest) = rest(&own.road, &store.road) {
        return continued(&rest, &store.city);
    }
    if let Some(rest) = rest(&store.road, &own.road) {
        return continued(&rest, &own.city);
    }
    if one.len() >= 6 && other.starts_with(&one) {
        return Road::Continues;
    }
    if alike(&own.road, &store.road) {
        Road::Alike
    } else {
        Road::Far
    }
}

/// What `long` has behind `short`, if it begins with it.
fn rest(long: &[String], short: &[String]) -> Option<Vec<String>> {
    if short.is_empty() {
        return None;
    }
    long.strip_prefix(short).map(<[String]>::to_vec)
}

/// A road that goes on: with the other's city, with a building or floor, or with what the other did
/// not say.
fn continued(rest: &[String], city: &str) -> Road {
    let said = rest.join(" ");
    let inside = rest
        .first()
        .is_some_and(|word| matches!(word.as_str(), "bldg" | "fl" | "lot") || is_numbered(word));
    if city.is_empty() || inside {
        Road::Continues
    } else if said == city || (said.len() >= 3 && city.starts_with(&said)) {
        Road::SameWithCity
    } else {
        Road::Far
    }
}

/// The same road misspelt: numbers, compass and type say the same or are left out.
fn alike(one: &[String], other: &[String]) -> bool {
    let numbers = |road: &[String]| -> Vec<String> {
        road.iter()
            .filter(|word| is_numbered(word))
            .cloned()
            .collect()
    };
    let one_of = |road: &[String], kind: fn(&str) -> bool| -> Vec<String> {
        road.iter()
            .skip(1)
            .filter(|word| kind(word))
            .cloned()
            .collect()
    };
    let agree = |kind: fn(&str) -> bool| {
        let (one, other) = (one_of(one, kind), one_of(other, kind));
        one == other || one.is_empty() || other.is_empty()
    };
    let compass = |road: &[String]| -> Vec<String> {
        road.iter()
            .filter(|word| is_compass(word))
            .cloned()
            .collect()
    };
    let (heading, other_heading) = (compass(one), compass(other));
    let headings = heading == other_heading || heading.is_empty() || other_heading.is_empty();
    if numbers(one) != numbers(other) || !agree(is_type) || !headings {
        return false;
    }
    let core = |road: &[String]| -> String {
        let told =
            |(at, word): &(usize, &String)| !(is_compass(word) || (*at > 0 && is_type(word)));
        road.iter()
            .enumerate()
            .filter(told)
            .map(|(_, word)| word.as_str())
            .collect()
    };
    let (one, other) = (core(one), core(other));
    let letters = one.chars().count().max(other.chars().count());
    !one.is_empty() && within(&one, &other, slips(letters))
}

fn is_numbered(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}
