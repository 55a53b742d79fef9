//! What leads from a text to the stores it may mean, in some thirty bytes a store and no text but
//! one copy of every name and city.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::super::near::{Numbered, Text};
use super::super::{CANDIDATES_MAX, Store};

/// Most names that a cut one may be the beginning of.
const NAMES_MAX: usize = 256;

/// The ways to stores. A store is its place in the directory.
#[derive(Debug)]
pub(super) struct Index {
    marks: Vec<Marks>,
    /// Every name's key, in order, and the stores that have it.
    names: Vec<Box<str>>,
    of_name: Groups,
    /// Every city, in order.
    cities: Vec<Box<str>>,
    /// By house number.
    houses: Vec<(u32, u32)>,
    /// By the whole text.
    texts: Vec<(u64, u32)>,
}

/// What tells a store from others at a glance; 0 where it has none.
#[derive(Clone, Copy, Debug)]
struct Marks {
    /// In its name.
    number: u64,
    name: u32,
    /// Hash of its house number.
    house: u32,
    /// Hash of its road.
    road: u32,
    zip: u32,
    /// Place in `cities`, from 1.
    city: u32,
    state: u8,
}

/// Lists of stores, one behind the other.
#[derive(Debug)]
struct Groups {
    starts: Vec<u32>,
    members: Vec<u32>,
}

/// A text, and what of it the index knows.
#[derive(Debug)]
pub(super) struct Sought<'a> {
    pub(super) text: &'a Text,
    house: u32,
    road: u32,
    zip: u32,
    /// Cities, from 1, that it may name; empty where there is none such.
    cities: Range<u32>,
    state: u8,
}

// === impl Index ===

impl Index {
    pub(super) fn new(stores: &[Store]) -> Self {
        let mut names = Words::default();
        let mut cities = Words::default();
        // Addresses without a comma: where the city begins, other stores' cities say.
        let mut guessed = Vec::new();
        let mut marks = Vec::with_capacity(stores.len());
        let mut houses = Vec::new();
        let mut texts = Vec::with_capacity(stores.len());
        for (at, store) in (0_u32..).zip(stores) {
            let text = Text::read(&store.name, &store.address);
            let named = !text.name.full.is_empty();
            let address = &text.address;
            let mark = Marks {
                number: text.name.numbers.first().copied().unwrap_or(0),
                name: names.number(&text.name.key),
                house: house(&text),
                road: road(&text),
                zip: address.zip.map_or(0, |zip| zip.number()),
                city: match address.city_guessed {
                    true => 0,
                    false => cities.number(&address.city),
                },
                state: address.state.map_or(0, |state| state.number()),
            };
            if address.city_guessed {
                guessed.push((at, address.road_and_city()));
            }
            if named && mark.house != 0 {
                houses.push((mark.house, at));
            }
            if named {
                texts.push((hash(&text.key()), at));
            }
            marks.push(mark);
        }
        for (at, text) in guessed {
            let mark = usize::try_from(at).ok().and_then(|at| marks.get_mut(at));
            if let Some(mark) = mark {
                mark.city = cities.ending(&text);
            }
        }
        houses.sort_unstable();
        houses.shrink_to_fit();
        texts.sort_unstable();
        let (names, new_names) = names.sorted();
        let (cities, new_cities) = cities.sorted();
        for mark in &mut marks {
            mark.name = renumbered(&new_names, mark.name);
            mark.city = renumbered(&new_cities, mark.city);
        }
        let of_name = Groups::new(names.len(), &marks);
        Self {
            marks,
            names,
            of_name,
            cities,
            houses,
            texts,
        }
    }

    /// What the index knows of a text.
    pub(super) fn sought<'a>(&self, text: &'a Text) -> Sought<'a> {
        let address = &text.address;
        Sought {
            text,
            house: house(text),
            road: road(text),
            zip: address.zip.map_or(0, |zip| zip.number()),
            cities: self.cities_like(&address.city, address.city_cut),
            state: address.state.map_or(0, |state| state.number()),
        }
    }

    /// Stores whose text has the same hash: look whether it is the same.
    pub(super) fn with_text(&self, key: &str) -> impl Iterator<Item = u32> + '_ {
        let key = hash(key);
        let from = self.texts.partition_point(|(known, _)| *known < key);
        let found = self.texts.iter().skip(from);
        found
            .take_while(move |(known, _)| *known == key)
            .map(|(_, at)| *at)
    }

    /// Those of some stores that may be near.
    pub(super) fn of(&self, sought: &Sought<'_>, among: &[u32]) -> Vec<u32> {
        let fits = |at: &u32| self.mark(*at).is_some_and(|mark| self.fits(sought, mark));
        among.iter().copied().filter(fits).collect()
    }

    /// Every store that may be near, or `None` where that cannot be said within bounds.
    pub(super) fn near(&self, sought: &Sought<'_>) -> Option<Vec<u32>> {
        let mut found = self.at_house(sought);
        for name in self.names_like(sought.text)? {
            for at in self.of_name.members(name) {
                let Some(mark) = self.mark(*at) else { continue };
                // Those with a house number were looked for by it.
                let other = sought.house != 0 && mark.house != 0;
                if !other && self.fits(sought, mark) {
                    found.push(*at);
                }
            }
            if found.len() > CANDIDATES_MAX {
                return None;
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// What the store's number says to the text.
    pub(super) fn numbered(&self, sought: &Sought<'_>, at: u32) -> Option<Numbered> {
        sought.text.numbered(self.mark(at)?.number)
    }

    /// Stores at the house number with a name or road that is near.
    fn at_house(&self, sought: &Sought<'_>) -> Vec<u32> {
        if sought.house == 0 {
            return Vec::new();
        }
        let from = self
            .houses
            .partition_point(|(house, _)| *house < sought.house);
        let here = self.houses.iter().skip(from);
        let here = here.take_while(|(house, _)| *house == sought.house);
        let near = |at: &u32| {
            self.mark(*at).is_some_and(|mark| {
                self.fits(sought, mark)
                    && (mark.road == sought.road
                        || sought.text.named(self.name(mark.name)).is_some())
            })
        };
        here.map(|(_, at)| *at).filter(near).collect()
    }

    /// Whether nothing that can be seen at a glance speaks against the store.
    fn fits(&self, sought: &Sought<'_>, mark: &Marks) -> bool {
        let differ = |one: u32, other: u32| one != 0 && other != 0 && one != other;
        if differ(u32::from(sought.state), u32::from(mark.state))
            || sought.text.numbered(mark.number).is_none()
        {
            return false;
        }
        let other_city = mark.city != 0 && !sought.cities.contains(&mark.city);
        let said_city = !sought.text.address.city.is_empty();
        if differ(sought.zip, mark.zip) {
            // A slip in the postal code is one only in the same city, on a road.
            return !sought.text.is_place_only() && said_city && !other_city;
        }
        let by_city = sought.text.is_place_only() && (sought.zip == 0 || mark.zip == 0);
        !(by_city && said_city && other_city)
    }

    /// The names that the text's is, goes on, or is cut from; `None` where they are too many.
    fn names_like(&self, text: &Text) -> Option<Vec<usize>> {
        let mut found = Vec::new();
        let mut begun = String::with_capacity(text.name.key.len());
        for word in &text.name.words {
            begun.push_str(word);
            found.extend(self.names.binary_search_by(|name| (**name).cmp(&begun)));
        }
        if text.name.cut && text.name.key.len() >= 4 {
            let key = text.name.key.as_str();
            let from = self.names.partition_point(|name| &**name < key);
            let rest = self.names.iter().skip(from);
            let cut = rest.take_while(|name| name.starts_with(key)).count();
            if cut > NAMES_MAX {
                return None;
            }
            found.extend(from..from.saturating_add(cut));
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    fn cities_like(&self, city: &str, cut: bool) -> Range<u32> {
        let from = self.cities.partition_point(|known| &**known < city);
        let rest = self.cities.iter().skip(from);
        let like = |known: &str| {
            if cut {
                known.starts_with(city)
            } else {
                known == city
            }
        };
        let count = if city.is_empty() {
            0
        } else {
            rest.take_while(|known| like(known)).count()
        };
        let number = |at: usize| u32::try_from(at.saturating_add(1)).unwrap_or(u32::MAX);
        number(from)..number(from.saturating_add(count))
    }

    fn mark(&self, at: u32) -> Option<&Marks> {
        usize::try_from(at).ok().and_then(|at| self.marks.get(at))
    }

    fn name(&self, number: u32) -> &str {
        let at = usize::try_from(number)
            .ok()
            .and_then(|at| at.checked_sub(1));
        at.and_then(|at| self.names.get(at)).map_or("", |name| name)
    }
}

fn house(text: &Text) -> u32 {
    text.address.house.as_deref().map_or(0, short_hash)
}

fn road(text: &Text) -> u32 {
    if text.address.road.is_empty() {
        0
    } else {
        short_hash(&text.address.road.join(" "))
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Never 0.
fn short_hash(text: &str) -> u32 {
    let [a, b, c, d, ..] = hash(text).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

// === impl Groups ===

impl Groups {
    /// Stores by name, of marks whose names are numbered from 1.
    fn new(names: usize, marks: &[Marks]) -> Self {
        let mut pairs: Vec<(u32, u32)> = (0_u32..)
            .zip(marks)
            .map(|(at, mark)| (mark.name, at))
            .collect();
        pairs.sort_unstable();
        let mut starts = Vec::with_capacity(names.saturating_add(1));
        for name in 1..=names.saturating_add(1) {
            let name = u32::try_from(name).unwrap_or(u32::MAX);
            let start = pairs.partition_point(|(known, _)| *known < name);
            starts.push(u32::try_from(start).unwrap_or(u32::MAX));
        }
        Self {
            starts,
            members: pairs.into_iter().map(|(_, at)| at).collect(),
        }
    }

    fn members(&self, name: usize) -> &[u32] {
        let start = |at: usize| {
            let start = self.starts.get(at).copied()?;
            usize::try_from(start).ok()
        };
        let range = start(name).zip(start(name.saturating_add(1)));
        range
            .and_then(|(from, to)| self.members.get(from..to))
            .unwrap_or_default()
    }
}

// === impl Words ===

/// Different texts, numbered from 1 as they came; the empty one is 0.
#[derive(Default)]
struct Words(HashMap<Box<str>, u32>);

impl Words {
    fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let number = u32::try_from(self.0.len().saturating_add(1)).unwrap_or(u32::MAX);
        self.0.insert(text.into(), number);
        number
    }

    /// The number of the longest that a text ends with, or 0.
    fn ending(&self, text: &str) -> u32 {
        let behind = text
            .match_indices(' ')
            .filter_map(|(at, _)| text.get(at.saturating_add(1)..));
        let mut endings = [text].into_iter().chain(behind);
        endings
            .find_map(|ending| self.0.get(ending).copied())
            .unwrap_or(0)
    }

    /// The texts in order, and every old number's new one.
    fn sorted(self) -> (Vec<Box<str>>, Vec<u32>) {
        let mut all: Vec<(Box<str>, u32)> = self.0.into_iter().collect();
        all.sort_unstable();
        let mut new = vec![0; all.len().saturating_add(1)];
        for (number, (_, old)) in (1_u32..).zip(&all) {
            let place = usize::try_from(*old).ok().and_then(|old| new.get_mut(old));
            if let Some(place) = place {
                *place = number;
            }
        }
        (all.into_iter().map(|(text, _)| text).collect(), new)
    }
}

fn renumbered(new: &[u32], old: u32) -> u32 {
    usize::try_from(old)
        .ok()
        .and_then(|old| new.get(old))
        .copied()
        .unwrap_or(0)
}
