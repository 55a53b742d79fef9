//! How near what a bank wrote is to one of our stores, by number, name and place.
//!
//! A store is near only where nothing speaks against it: another store number, house, suite, city,
//! state or postal code does. How near says what speaks for it.

mod addresses;

use std::cmp::Ordering;

use super::MARGIN_MIN;
use super::alike::{shortens, slips, within};
use super::normal::{Address, Name, State, completed, is_department, is_noise};
use addresses::{Area, area, on_road, other_suite, vaguely};

/// What a bank wrote, read.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: Name,
    pub(super) address: Address,
}

/// How near a store is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// Which one, by its place in the directory.
    pub(super) at: u32,
    pub(super) number: Numbered,
    pub(super) name: Named,
    pub(super) place: Placed,
}

/// What store numbers say. That they differ has no word: such a store is not near.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Numbered {
    /// Nothing: one of the two has none.
    Silent,
    /// The bank's may have lost its end, and ours goes on as it begins.
    Maybe,
    /// It is the same.
    Same,
}

/// How near the names are; later is nearer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Named {
    /// One is the other's beginning.
    Continues,
    /// Misspelt or shortened.
    Alike,
    /// The bank's was cut where fields cut names, or goes on with the store's city.
    Explained,
    /// The same.
    Same,
}

/// How near the places are; later is nearer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    /// The bank said no place.
    Unsaid,
    /// The bank said a city or postal code, and nobody told us the store's.
    Unknown,
    /// The bank said no more than the store's city.
    City,
    /// The bank said no more than the store's postal code.
    Zip,
    /// Texts without a house number that are alike by so many thousandths.
    Text(usize),
    /// The same house, the road misspelt.
    RoadAlike,
    /// And the same city or postal code.
    RoadAlikeHere,
    /// The same house, one road the other's beginning.
    RoadContinues,
    /// The same house and road; of the city or postal code, one said nothing.
    Road,
    /// The same house, road, and city or postal code.
    Here,
    /// Everything that was written is the same.
    Same,
}

// === impl Text ===

impl Text {
    pub(super) fn read(name: &str, address: &str) -> Self {
        Self {
            name: Name::read(name),
            address: Address::read(address),
        }
    }

    /// Full name and address. No word contains the separator.
    pub(super) fn key(&self) -> String {
        format!("{}|{}", self.name.full, self.address.full)
    }

    /// Whether it names a place and no road in it.
    pub(super) fn is_place_only(&self) -> bool {
        self.address.house.is_none() && self.address.road.is_empty()
    }

    /// What a store's number, 0 for none, says; `None`: it is another.
    pub(super) fn numbered(&self, number: u64) -> Option<Numbered> {
        let Some(last) = self.name.numbers.last() else {
            return Some(Numbered::Silent);
        };
        if number == 0 {
            return Some(Numbered::Silent);
        }
        if self.name.number_cut {
            let written = if *last == 0 {
                String::new()
            } else {
                last.to_string()
            };
            return number
                .to_string()
                .starts_with(&written)
                .then_some(Numbered::Maybe);
        }
        self.name
            .numbers
            .contains(&number)
            .then_some(Numbered::Same)
    }

    /// How near a store's name is by its key; `None`: not that one can see from it alone.
    pub(super) fn named(&self, key: &str) -> Option<Named> {
        let own = self.name.key.as_str();
        if own == key {
            return Some(Named::Same);
        }
        let (short, long) = if own.len() <= key.len() {
            (own, key)
        } else {
            (key, own)
        };
        if long.starts_with(short) && (short.chars().count() >= 4 || self.begins(key).is_some()) {
            return Some(Named::Continues);
        }
        within(own, key, slips(short.chars().count())).then_some(Named::Alike)
    }

    /// How near a store's name is, given all of it and where it stands.
    pub(super) fn named_at(
        &self,
        named: Option<Named>,
        name: &Name,
        store: &Address,
        number: Numbered,
    ) -> Option<Named> {
        match named {
            Some(Named::Continues) => self.continues(name, store, number),
            Some(Named::Same | Named::Explained) => named,
            Some(Named::Alike) => same_departments(&self.name, name).then_some(Named::Alike),
            None => {
                let (ours, theirs) = (&self.name.words, &name.words);
                let word = |(one, other): (&String, &String)| one == other || shortens(one, other);
                let shortened = ours.len() == theirs.len() && ours.iter().zip(theirs).all(word);
                let at_word = theirs.starts_with(ours);
                match (shortened, at_word) {
                    (_, true) => self.continues(name, store, number),
                    (true, false) => Some(Named::Alike),
                    (false, false) => None,
                }
            }
        }
    }

    /// One name begins with the other: whether what follows is explained, or makes it another's.
    fn continues(&self, name: &Name, store: &Address, number: Numbered) -> Option<Named> {
        let extra = self.begins(&name.key);
        let further = name.words.strip_prefix(self.name.words.as_slice());
        let other = extra.or(further).unwrap_or_default();
        if other.iter().any(|word| is_department(word, false)) {
            return None;
        }
        let explained = match extra {
            Some(extra) => self.explains(extra, store, number),
            None => self.name.cut && name.key.starts_with(&self.name.key),
        };
        Some(if explained {
            Named::Explained
        } else {
            Named::Continues
        })
    }

    /// The words behind the store's name, where this one begins with it.
    fn begins(&self, key: &str) -> Option<&[String]> {
        let mut left = key;
        for (at, word) in self.name.words.iter().enumerate() {
            if left.is_empty() {
                return self.name.words.get(at..);
            }
            left = left.strip_prefix(word.as_str())?;
        }
        None
    }

    /// Whether words behind a name are no more of it: noise, or where the store is.
    fn explains(&self, extra: &[String], store: &Address, number: Numbered) -> bool {
        let mut words: Vec<&str> = extra.iter().map(String::as_str).collect();
        while words.first().is_some_and(|word| is_noise(word)) {
            words.remove(0);
        }
        while let Some(last) = words.last() {
            let state = State::from_code(last);
            let same = store.state == state || store.state.is_none();
            if !(is_noise(last) || (state.is_some() && same)) {
                break;
            }
            words.pop();
        }
        let said = words.join(" ");
        if said.is_empty() {
            return true;
        }
        let is = |city: &str| said == city || (self.name.cut && self.begins_city(&words, city));
        if store.cities().iter().any(|city| is(city)) {
            return true;
        }
        // Nobody told us the store's city: that is no word against the bank's, and what follows the
        // store's number is one, if it is no department.
        let placed = number == Numbered::Same && self.address.full.is_empty();
        let part = words.iter().any(|word| is_department(word, true));
        let own = self.address.city.as_str();
        !store.has_city() && ((!own.is_empty() && is(own)) || (placed && !part))
    }

    /// Whether words at the cut end of a name are the beginning of the store's city: three letters
    /// of it, or any that the bank's address bears out.
    fn begins_city(&self, words: &[&str], city: &str) -> bool {
        let said = words.join(" ");
        if said.len() < 3 && self.address.city != city {
            return false;
        }
        let Some((last, before)) = words.split_last() else {
            return false;
        };
        let completed = completed(last).map(|word| [before, &[word]].concat().join(" "));
        completed.chain([said]).any(|said| city.starts_with(&said))
    }

    /// Whether the name itself ends with the store's city.
    fn names_city(&self, name: &Name, store: &Address) -> bool {
        let said = self.begins(&name.key).map(|extra| extra.join(" "));
        let said = said.unwrap_or_default();
        store.cities().iter().any(|city| said.starts_with(city))
    }

    /// How near a store's place is; `None`: something speaks against it.
    pub(super) fn placed(&self, name: &Name, store: &Address) -> Option<Placed> {
        let own = &self.address;
        if own.full.is_empty() {
            let city = self.names_city(name, store);
            return Some(if city { Placed::City } else { Placed::Unsaid });
        }
        if own.full == store.full {
            return Some(Placed::Same);
        }
        let states = matches!((own.state, store.state), (Some(one), Some(other)) if one != other);
        if states || other_suite(own, store) {
            return None;
        }
        let area = area(own, store);
        if self.is_place_only() {
            return match area {
                Area::Zip => Some(Placed::Zip),
                Area::City => Some(Placed::City),
                Area::Unknown if own.city.is_empty() && own.zip.is_none() => Some(Placed::Unsaid),
                Area::Unknown => Some(Placed::Unknown),
                Area::Differs | Area::Slip | Area::CityAlike => None,
            };
        }
        on_road(own, store, area).or_else(|| own.vague.then(|| vaguely(own, store)).flatten())
    }
}

// === impl Near ===

impl Near {
    /// Whether this store is near enough to be the one, if no other is.
    pub(super) fn is_enough(&self) -> bool {
        let sure = self.number == Numbered::Same;
        match self.place {
            Placed::Same | Placed::Here | Placed::Road => true,
            Placed::RoadAlikeHere => self.name >= Named::Alike,
            Placed::RoadContinues | Placed::RoadAlike | Placed::Text(_) | Placed::Zip => {
                self.name >= Named::Explained
            }
            Placed::City | Placed::Unsaid => {
                self.name >= Named::Explained && self.number != Numbered::Maybe
            }
            Placed::Unknown => self.name >= Named::Explained && sure,
        }
    }

    /// Whether it could be the one for all we know, though it is not near enough to say so.
    pub(super) fn is_possible(&self) -> bool {
        self.name >= Named::Explained
            && (self.place == Placed::Unknown || self.number == Numbered::Maybe)
    }

    /// Whether no more is known of its place than the city or postal code.
    pub(super) fn is_by_area(&self) -> bool {
        matches!(self.place, Placed::City | Placed::Zip)
    }

    /// Whether it is nearer than another in one way, and in none farther.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let ways = [
            self.number.cmp(&other.number),
            self.name.cmp(&other.name),
            self.place.nearer(other.place),
        ];
        ways.contains(&Ordering::Greater) && !ways.contains(&Ordering::Less)
    }
}

// === impl Placed ===

impl Placed {
    fn rank(self) -> u8 {
        match self {
            Self::Unsaid => 0,
            Self::Unknown => 1,
            Self::City => 2,
            Self::Zip => 3,
            Self::Text(_) => 4,
            Self::RoadAlike => 5,
            Self::RoadAlikeHere => 6,
            Self::RoadContinues => 7,
            Self::Road => 8,
            Self::Here => 9,
            Self::Same => 10,
        }
    }

    fn nearer(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) if one.abs_diff(other) < MARGIN_MIN => {
                Ordering::Equal
            }
            (Self::Text(one), Self::Text(other)) => one.cmp(&other),
            // What stands in the city, we know not in which postal code, may stand in this one.
            (Self::Zip, Self::City) | (Self::City, Self::Zip) => Ordering::Equal,
            (one, other) => one.rank().cmp(&other.rank()),
        }
    }
}

/// Whether names that are alike are of the same part of a store.
fn same_departments(one: &Name, other: &Name) -> bool {
    let has = |name: &Name, word: &String| {
        let slip = slips(word.chars().count());
        name.words.iter().any(|known| within(known, word, slip))
    };
    let all = |one: &Name, other: &Name| {
        let mut departments = one.words.iter().filter(|word| is_department(word, false));
        departments.all(|word| has(other, word))
    };
    all(one, other) && all(other, one)
}
