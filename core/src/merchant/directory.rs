//! All stores, indexed for resolution.

use std::collections::{BTreeMap, HashMap};

use super::normal::{Address, Name};
use super::{CANDIDATES_MAX, MARGIN_MIN, PART_MIN, Resolution, SIMILARITY_MIN, Store};
use crate::authorization::Merchant;
use crate::id::StoreId;

/// Every store, and the ways to find one from what a bank wrote.
///
/// Resolution goes from sure to less sure: the same normalised name and address; a name that
/// continues the other at the same house number of the same street; likeness by trigrams. Whatever
/// finds more than one store says [`Resolution::Ambiguous`].
#[derive(Debug)]
pub struct StoreDirectory {
    stores: Vec<Indexed>,
    ids: HashMap<StoreId, u32>,
    /// By full, then by bare name, each with the address.
    exact: [HashMap<String, Found>; 2],
    /// By bare name alone, for banks that send no address.
    names: HashMap<String, Found>,
    houses: HashMap<String, Vec<u32>>,
    /// Trigrams of name and address together.
    grams: HashMap<u64, Vec<u32>>,
    /// How many stores have no house number.
    houseless: usize,
}

#[derive(Debug)]
struct Indexed {
    store: Store,
    text: Compared,
}

/// A name and address in their one spelling.
#[derive(Debug)]
struct Text {
    name: Name,
    address: Address,
}

/// A name and address, ready to be compared by likeness.
#[derive(Debug)]
struct Compared {
    text: Text,
    name_grams: Vec<u64>,
    address_grams: Vec<u64>,
}

/// Which stores a key leads to.
#[derive(Clone, Copy, Debug)]
enum Found {
    One(u32),
    Several,
}

/// A store that is near enough.
#[derive(Clone, Copy, Debug)]
struct Near {
    at: u32,
    /// Thousandths.
    likeness: usize,
    /// Name and street continue each other.
    continues: bool,
}

// === impl StoreDirectory ===

impl StoreDirectory {
    /// Indexes the stores. Of two with the same id the later holds; one whose name has no letter and
    /// no digit is known by id but never resolved to.
    pub fn new(stores: Vec<Store>) -> Self {
        let by_id: BTreeMap<StoreId, Store> =
            stores.into_iter().map(|store| (store.id, store)).collect();
        let mut directory = Self {
            stores: Vec::with_capacity(by_id.len()),
            ids: HashMap::with_capacity(by_id.len()),
            exact: [HashMap::new(), HashMap::new()],
            names: HashMap::new(),
            houses: HashMap::new(),
            grams: HashMap::new(),
            houseless: 0,
        };
        for (at, store) in (0_u32..).zip(by_id.into_values()) {
            directory.add(at, store);
        }
        directory
    }

    /// The store with this id.
    pub fn get(&self, id: StoreId) -> Option<&Store> {
        self.ids
            .get(&id)
            .and_then(|at| self.at(*at))
            .map(|found| &found.store)
    }

    /// Every store, by id.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.stores.iter().map(|known| &known.store)
    }

    /// How many stores there are.
    pub fn len(&self) -> usize {
        self.stores.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    /// Which store the bank means.
    pub fn resolve(&self, merchant: &Merchant) -> Resolution {
        let text = Text::read(&merchant.name, &merchant.address);
        if text.name.full.is_empty() {
            return Resolution::Unknown;
        }
        for (keys, index) in text.keys().iter().zip(&self.exact) {
            if let Some(found) = index.get(keys) {
                return self.answer(*found);
            }
        }
        if text.address.full.is_empty()
            && let Some(found) = self.names.get(&text.name.bare)
        {
            return self.answer(*found);
        }
        let text = Compared::from(text);
        match self.candidates(&text) {
            Some(candidates) => self.nearest(&text, &candidates),
            None => Resolution::Ambiguous,
        }
    }

    fn add(&mut self, at: u32, store: Store) {
        let text = Text::read(&store.name, &store.address);
        self.ids.insert(store.id, at);
        if !text.name.full.is_empty() {
            for (key, index) in text.keys().into_iter().zip(&mut self.exact) {
                note(index, key, at);
            }
            note(&mut self.names, text.name.bare.clone(), at);
            match &text.address.house {
                Some(house) => self.houses.entry(house.clone()).or_default().push(at),
                None => self.houseless = self.houseless.saturating_add(1),
            }
        }
        let named = !text.name.full.is_empty();
        let text = Compared::from(text);
        if named {
            for gram in text.all_grams() {
                self.grams.entry(gram).or_default().push(at);
            }
        }
        self.stores.push(Indexed { store, text });
    }

    fn at(&self, at: u32) -> Option<&Indexed> {
        usize::try_from(at).ok().and_then(|at| self.stores.get(at))
    }

    fn answer(&self, found: Found) -> Resolution {
        match found {
            Found::One(at) => self.at(at).map_or(Resolution::Unknown, |found| {
                Resolution::Store(found.store.id)
            }),
            Found::Several => Resolution::Ambiguous,
        }
    }

    /// Every store that may be near, or `None` when there are more than [`CANDIDATES_MAX`].
    fn candidates(&self, text: &Compared) -> Option<Vec<u32>> {
        let mut candidates = Vec::new();
        if let Some(house) = &text.address.house {
            // At another house number it is another store.
            candidates.extend_from_slice(self.houses.get(house).map_or(&[], Vec::as_slice));
        }
        if text.address.house.is_none() || self.houseless > 0 {
            candidates.extend(self.sharing_grams(text)?);
        }
        candidates.sort_unstable();
        candidates.dedup();
        (candidates.len() <= CANDIDATES_MAX).then_some(candidates)
    }

    /// Stores that share enough trigrams to be near. Sharing `s` of `q` means sharing one of any
    /// `q - s + 1`, so the most common `s - 1` need not be looked up.
    fn sharing_grams(&self, text: &Compared) -> Option<Vec<u32>> {
        let grams = text.all_grams();
        // A likeness of m thousandths needs m / (2000 - m) of the query's trigrams.
        let share = |count: usize| {
            count
                .saturating_mul(PART_MIN)
                .div_ceil(2_000_usize.saturating_sub(PART_MIN))
        };
        let needed = if text.address.full.is_empty() {
            share(text.name_grams.len())
        } else {
            share(text.name_grams.len()).saturating_add(share(text.address_grams.len()))
        };
        let mut lists: Vec<&[u32]> = grams
            .iter()
            .map(|gram| self.grams.get(gram).map_or(&[][..], Vec::as_slice))
            .collect();
        lists.sort_unstable_by_key(|list| list.len());
        let looked_up = lists.len().saturating_sub(needed.saturating_sub(1));
        let mut found = Vec::new();
        for list in lists.iter().take(looked_up) {
            for at in *list {
                let house = self
                    .at(*at)
                    .and_then(|found| found.text.address.house.as_ref());
                if text.address.house.is_none() || house.is_none() {
                    found.push(*at);
                }
            }
            if found.len() > CANDIDATES_MAX.saturating_mul(4) {
                found.sort_unstable();
                found.dedup();
                if found.len() > CANDIDATES_MAX {
                    return None;
                }
            }
        }
        Some(found)
    }

    /// The candidate that stands out, if one does.
    fn nearest(&self, text: &Compared, candidates: &[u32]) -> Resolution {
        let mut near: Vec<Near> = candidates
            .iter()
            .filter_map(|at| self.at(*at).and_then(|found| text.near(&found.text, *at)))
            .collect();
        near.sort_unstable_by_key(|near| (!near.continues, std::cmp::Reverse(near.likeness)));
        let Some(best) = near.first() else {
            return Resolution::Unknown;
        };
        // One that continues the other needs no margin, but no rival of its own kind and none that is liker.
        let rivalled = near.iter().skip(1).any(|rival| {
            if best.continues {
                rival.continues || rival.likeness >= best.likeness
            } else {
                rival.likeness.saturating_add(MARGIN_MIN) > best.likeness
            }
        });
        if rivalled {
            return Resolution::Ambiguous;
        }
        self.answer(Found::One(best.at))
    }
}

fn note(index: &mut HashMap<String, Found>, key: String, at: u32) {
    index
        .entry(key)
        .and_modify(|found| *found = Found::Several)
        .or_insert(Found::One(at));
}

// === impl Text ===

impl Text {
    fn read(name: &str, address: &str) -> Self {
        Self {
            name: Name::read(name),
            address: Address::read(address),
        }
    }

    /// Full and bare name, each with the address. No word contains the separator.
    fn keys(&self) -> [String; 2] {
        let key = |name: &str| format!("{name}|{}", self.address.full);
        [key(&self.name.full), key(&self.name.bare)]
    }
}

// === impl Compared ===

impl From<Text> for Compared {
    fn from(text: Text) -> Self {
        Self {
            name_grams: grams(&text.name.bare),
            address_grams: grams(&text.address.full),
            text,
        }
    }
}

impl std::ops::Deref for Compared {
    type Target = Text;
    fn deref(&self) -> &Text {
        &self.text
    }
}

impl Compared {
    fn all_grams(&self) -> Vec<u64> {
        let mut all = self.name_grams.clone();
        all.extend_from_slice(&self.address_grams);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How near `store` is, if it is at all.
    fn near(&self, store: &Self, at: u32) -> Option<Near> {
        let houses = (&self.address.house, &store.address.house);
        if let (Some(ours), Some(theirs)) = houses
            && ours != theirs
        {
            return None;
        }
        let name = likeness(&self.name_grams, &store.name_grams);
        let street = likeness(&self.address_grams, &store.address_grams);
        let (both, likeness) = if self.address.full.is_empty() || store.address.full.is_empty() {
            (name >= PART_MIN, name)
        } else {
            let mean = name.saturating_add(street).checked_div(2).unwrap_or(0);
            (name >= PART_MIN && street >= PART_MIN, mean)
        };
        let same_house = houses.0.is_some() && houses.0 == houses.1;
        let continues = same_house
            && continues(&self.name.bare, &store.name.bare)
            && continues(&self.address.street, &store.address.street);
        (continues || (both && likeness >= SIMILARITY_MIN)).then_some(Near {
            at,
            likeness,
            continues,
        })
    }
}

/// Whether one text is the other's beginning: banks cut names short and append cities. A text cut
/// inside a word counts from four characters on.
fn continues(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    match long.strip_prefix(short) {
        Some(rest) if short.is_empty() => rest.is_empty(),
        Some(rest) => rest.is_empty() || rest.starts_with(' ') || short.chars().count() >= 4,
        None => false,
    }
}

/// Dice's coefficient of two sorted sets, thousandths; nothing is like nothing.
fn likeness(one: &[u64], other: &[u64]) -> usize {
    let (mut left, mut right, mut shared) = (one, other, 0_usize);
    while let (Some((a, lefter)), Some((b, righter))) = (left.split_first(), right.split_first()) {
        if a == b {
            shared = shared.saturating_add(1);
        }
        if a <= b {
            left = lefter;
        }
        if b <= a {
            right = righter;
        }
    }
    shared
        .saturating_mul(2_000)
        .checked_div(one.len().saturating_add(other.len()))
        .unwrap_or(0)
}

/// The set of trigrams of a text's words, each word with two blanks before and one behind it; sorted.
fn grams(text: &str) -> Vec<u64> {
    let mut grams = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (mut first, mut second) = (u64::from(u32::from(' ')), u64::from(u32::from(' ')));
        for letter in word.chars().chain([' ']) {
            let third = u64::from(u32::from(letter));
            // A character has 21 bits.
            grams.push((first << 42) | (second << 21) | third);
            (first, second) = (second, third);
        }
    }
    grams.sort_unstable();
    grams.dedup();
    grams
}
