//! Made-up stores that look like real ones, and what banks would write of them: for measuring how
//! often a text leads to its store, to another one, or to none.
//!
//! Everything follows from a seed. The stores: chains with store numbers and without, branches of
//! one chain in one city, departments at the address and number of their store, independents of few
//! names in many cities, malls whose tenants differ by suite, the same roads in all cities.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "made-up data; every index is of a list that is not empty"
)]

#[cfg(test)]
mod tests;
mod texts;
mod visits;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use super::{Resolution, Store, StoreDirectory};
use crate::authorization::Merchant;
use crate::id::StoreId;
use visits::{cities, visit};

pub use texts::Class;

/// Stores that a directory knows, and some that it does not.
#[derive(Debug)]
pub struct Sample {
    /// Those it knows.
    pub stores: Vec<Store>,
    known: Vec<Shop>,
    /// One of them in twenty more.
    strangers: Vec<Shop>,
}

/// How often texts of one class led where.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// To the store they are of; of stores that are not ours: to none.
    pub right: usize,
    /// To another store.
    pub wrong: usize,
    /// To several.
    pub ambiguous: usize,
    /// To none, though the store is ours.
    pub unknown: usize,
}

/// A store in parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Shop {
    id: i64,
    /// Without its number.
    name: String,
    number: Option<(u32, NumberStyle)>,
    house: Option<u32>,
    road: String,
    suite: Option<u32>,
    city: String,
    state: &'static str,
    zip: u32,
    lat_e6: i32,
    lon_e6: i32,
    layout: Layout,
}

/// How a chain writes its numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum NumberStyle {
    Hash,
    Lettered,
    Padded,
    Announced,
}

/// How much of an address we have on file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Layout {
    Commas,
    Blanks,
    NoZip,
    StreetOnly,
}

/// A source of numbers: the same seed, the same numbers.
#[derive(Clone, Debug)]
struct Chance(u64);

// === impl Sample ===

impl Sample {
    /// So many known stores, and one in twenty more that are not.
    pub fn new(stores: usize, seed: u64) -> Self {
        let mut chance = Chance(seed);
        let cities = cities(stores, &mut chance);
        let wanted = stores + stores / 20;
        let mut shops = BTreeSet::new();
        let mut texts = BTreeSet::new();
        let mut numbers = BTreeMap::new();
        while shops.len() < wanted {
            for mut shop in visit(&cities, &mut numbers, &mut chance) {
                if shops.len() < wanted && texts.insert((shop.written_name(), shop.address())) {
                    shop.id = i64::try_from(shops.len()).unwrap_or(0) + 1;
                    shops.insert(shop);
                }
            }
        }
        let mut known: Vec<Shop> = shops.into_iter().collect();
        // Strangers are of every kind: chosen by chance, a whole twentieth.
        for at in (1..known.len()).rev() {
            let other = chance.below(at + 1);
            known.swap(at, other);
        }
        let strangers = known.split_off(stores);
        known.sort_unstable_by_key(|shop| shop.id);
        Self {
            stores: known.iter().map(Shop::store).collect(),
            known,
            strangers,
        }
    }

    /// What became of each class' texts, of every `step`th store.
    pub fn judge(&self, directory: &StoreDirectory, step: usize, seed: u64) -> Vec<(Class, Tally)> {
        let of = |class: &Class| {
            let mut tally = Tally::default();
            for (text, store) in self.texts(*class, step, seed) {
                tally.add(directory.resolve(&text), store);
            }
            (*class, tally)
        };
        Class::ALL.iter().map(of).collect()
    }

    /// Texts of one class, each with the store it is of if that is ours.
    pub fn texts(&self, class: Class, step: usize, seed: u64) -> Vec<(Merchant, Option<StoreId>)> {
        let mut chance = Chance(seed ^ (u64::try_from(class.place()).unwrap_or(0) << 32));
        let shops = if class.is_of_strangers() {
            &self.strangers
        } else {
            &self.known
        };
        let ours = |shop: &Shop| {
            StoreId::try_from(shop.id)
                .ok()
                .filter(|_| class.has_store())
        };
        shops
            .iter()
            .step_by(if class.is_of_strangers() { 1 } else { step })
            .filter_map(|shop| Some((class.text(shop, &mut chance)?, ours(shop))))
            .collect()
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, found: Resolution, store: Option<StoreId>) {
        let count = match (found, store) {
            (Resolution::Store(found), Some(store)) if found == store => &mut self.right,
            (Resolution::Store(_), _) => &mut self.wrong,
            (Resolution::Ambiguous, _) => &mut self.ambiguous,
            (Resolution::Unknown, Some(_)) => &mut self.unknown,
            (Resolution::Unknown, None) => &mut self.right,
        };
        *count += 1;
    }

    /// All of them.
    pub fn texts(&self) -> usize {
        self.right + self.wrong + self.ambiguous + self.unknown
    }
}

// === impl Shop ===

impl Shop {
    fn store(&self) -> Store {
        Store {
            id: StoreId::try_from(self.id).expect("numbered from 1"),
            name: self.written_name(),
            address: self.address(),
            lat_e6: self.lat_e6,
            lon_e6: self.lon_e6,
        }
    }

    fn written_name(&self) -> String {
        match self.number {
            Some((number, style)) => format!("{} {}", self.name, style.write(number)),
            None => self.name.clone(),
        }
    }

    fn street(&self) -> String {
        let mut street = match self.house {
            Some(house) => format!("{house} {}", self.road),
            None => self.road.clone(),
        };
        if let Some(suite) = self.suite {
            street.push_str(&format!(" Suite {suite}"));
        }
        street
    }

    fn address(&self) -> String {
        let Self {
            city, state, zip, ..
        } = self;
        let street = self.street();
        match self.layout {
            Layout::Commas => format!("{street}, {city}, {state} {zip:05}"),
            Layout::Blanks => format!("{street} {city} {state} {zip:05}"),
            Layout::NoZip => format!("{street}, {city}, {state}"),
            Layout::StreetOnly => street,
        }
    }
}

// === impl NumberStyle ===

impl NumberStyle {
    const ALL: [Self; 4] = [Self::Hash, Self::Lettered, Self::Padded, Self::Announced];

    fn write(self, number: u32) -> String {
        match self {
            Self::Hash => format!("#{number}"),
            Self::Lettered => format!("T-{number:04}"),
            Self::Padded => format!("{number:05}"),
            Self::Announced => format!("Store {number}"),
        }
    }
}

// === impl Chance ===

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 up to but not `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn number(&mut self, from: u32, to: u32) -> u32 {
        let span = u64::from(to - from) + 1;
        from + u32::try_from(self.next() % span).unwrap_or(0)
    }

    fn signed(&mut self, from: i32, span: u32) -> i32 {
        from.saturating_add_unsigned(self.number(0, span))
    }

    fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
