//! What banks write of a store.

use super::{Chance, NumberStyle, Shop};
use crate::authorization::Merchant;

/// A way in which what a bank writes differs from what we have on file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// As on file.
    Exact,
    /// In capitals, without punctuation.
    Capitals,
    /// Words shortened or written out.
    Abbreviated,
    /// A letter wrong in the name, the road or both.
    Typos,
    /// The suite written another way, or left out.
    Suites,
    /// Road and house without city and postal code.
    StreetOnly,
    /// The store's number in another spelling, with the street.
    NumberRespelt,
    /// Name with number and city in one text, no address.
    NumberAndCity,
    /// That text cut at 22 or 25 characters, with city, state and postal code.
    CutWithArea,
    /// That text cut at 22 or 25 characters, with the street.
    CutWithStreet,
    /// Name (with its number, where it has one), city, state, postal code; no street.
    Area,
    /// The same without its number.
    AreaUnnumbered,
    /// Name, the city cut at 13 characters, state; neither street nor postal code.
    CityCut,
    /// One digit of the address wrong.
    WrongDigit,
    /// Another number of the chain, everything else right: not this store.
    OtherNumber,
    /// Stores that are not ours, as on file.
    StrangerExact,
    /// Stores that are not ours, by their name and number, city, state, postal code.
    StrangerNumbered,
    /// Stores that are not ours and have no number, by name, city, state, postal code: where we have
    /// just one of that name in that place, nothing tells the two apart.
    StrangerUnnumbered,
}

// === impl Class ===

impl Class {
    /// Every class.
    pub const ALL: &'static [Self] = &[
        Self::Exact,
        Self::Capitals,
        Self::Abbreviated,
        Self::Typos,
        Self::Suites,
        Self::StreetOnly,
        Self::NumberRespelt,
        Self::NumberAndCity,
        Self::CutWithArea,
        Self::CutWithStreet,
        Self::Area,
        Self::AreaUnnumbered,
        Self::CityCut,
        Self::WrongDigit,
        Self::OtherNumber,
        Self::StrangerExact,
        Self::StrangerNumbered,
        Self::StrangerUnnumbered,
    ];

    /// What it is, for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "as on file",
            Self::Capitals => "capitals, no punctuation",
            Self::Abbreviated => "abbreviated or written out",
            Self::Typos => "a letter wrong",
            Self::Suites => "suite otherwise or left out",
            Self::StreetOnly => "street without city",
            Self::NumberRespelt => "own number in another spelling",
            Self::NumberAndCity => "name, number, city; no address",
            Self::CutWithArea => "that cut at 22 or 25; city, state, ZIP",
            Self::CutWithStreet => "that cut at 22 or 25; street",
            Self::Area => "name, city, state, ZIP",
            Self::AreaUnnumbered => "the same without the number",
            Self::CityCut => "name, city cut at 13, state",
            Self::WrongDigit => "a digit of the address wrong",
            Self::OtherNumber => "another store's number",
            Self::StrangerExact => "not ours, whole address",
            Self::StrangerNumbered => "not ours, number, city, state, ZIP",
            Self::StrangerUnnumbered => "not ours, no number, city, state, ZIP",
        }
    }

    pub(super) fn place(self) -> usize {
        Self::ALL
            .iter()
            .position(|class| *class == self)
            .unwrap_or(0)
    }

    pub(super) const fn is_of_strangers(self) -> bool {
        matches!(
            self,
            Self::StrangerExact | Self::StrangerNumbered | Self::StrangerUnnumbered
        )
    }

    /// Whether its texts are of a store of ours.
    pub const fn has_store(self) -> bool {
        !(self.is_of_strangers() || matches!(self, Self::OtherNumber))
    }

    /// What a bank writes of a store, if this class has a word for it.
    pub(super) fn text(self, shop: &Shop, chance: &mut Chance) -> Option<Merchant> {
        let name = shop.written_name();
        let (name, address) = match self {
            Self::Exact | Self::StrangerExact => (name, shop.address()),
            Self::Capitals => (capitals(&name), capitals(&shop.address())),
            Self::Abbreviated => (respelt(&name, chance), respelt(&shop.address(), chance)),
            Self::Typos => typos(shop, chance)?,
            Self::Suites => (capitals(&name), suites(shop, chance)?),
            Self::StreetOnly => (name, shop.house.map(|_| shop.street())?),
            Self::NumberRespelt => (renumbered(shop, chance)?, shop.address()),
            Self::NumberAndCity => {
                let number = renumbered(shop, chance)?;
                (capitals(&format!("{number} {}", shop.city)), String::new())
            }
            Self::CutWithArea => (cut(shop, chance), area(shop)),
            Self::CutWithStreet => (cut(shop, chance), capitals(&shop.address())),
            Self::Area => (capitals(&name), area(shop)),
            Self::AreaUnnumbered => {
                shop.number?;
                (capitals(&shop.name), area(shop))
            }
            Self::CityCut => {
                let city: String = shop.city.chars().take(13).collect();
                (capitals(&name), capitals(&format!("{city} {}", shop.state)))
            }
            Self::WrongDigit => (name, wrong_digit(shop, chance)?),
            Self::OtherNumber => (other_number(shop, chance)?, shop.address()),
            Self::StrangerNumbered => {
                shop.number?;
                (capitals(&name), area(shop))
            }
            Self::StrangerUnnumbered => match shop.number {
                Some(_) => return None,
                None => (capitals(&name), area(shop)),
            },
        };
        Some(Merchant { name, address })
    }
}

/// Capitals, without what terminals cannot print.
fn capitals(text: &str) -> String {
    let plain = text.chars().filter(|letter| !matches!(letter, '.' | ','));
    let plain = plain.map(|letter| match letter {
        'é' | 'è' => 'e',
        'ñ' => 'n',
        'í' => 'i',
        '’' => '\'',
        other => other,
    });
    plain.collect::<String>().to_uppercase()
}

fn area(shop: &Shop) -> String {
    capitals(&format!("{} {} {:05}", shop.city, shop.state, shop.zip))
}

/// Words in another of their spellings, each by chance.
fn respelt(text: &str, chance: &mut Chance) -> String {
    const SPELLINGS: &[&[&str]] = &[
        &["St", "Street", "ST.", "Str"],
        &["Ave", "Avenue", "AV", "Ave."],
        &["Blvd", "Boulevard", "BLVD.", "Boul"],
        &["Rd", "Road", "RD."],
        &["Dr", "Drive", "DR."],
        &["Ln", "Lane"],
        &["Hwy", "Highway"],
        &["Pkwy", "Parkway", "Pky"],
        &["N", "North", "N."],
        &["S", "South", "S."],
        &["E", "East", "E."],
        &["W", "West", "W."],
        &["NE", "N.E.", "Northeast"],
        &["SW", "S.W.", "Southwest"],
        &["Suite", "Ste", "#", "Unit"],
        &["1st", "First"],
        &["2nd", "Second"],
        &["3rd", "Third"],
        &["5th", "Fifth"],
        &["Saint", "St."],
        &["Fort", "Ft"],
        &["Mount", "Mt."],
        &["Market", "Mkt", "MKT"],
        &["Supermarket", "Supermkt"],
        &["Pharmacy", "Phcy", "PHARM"],
        &["Center", "Ctr", "Centre"],
        &["Restaurant", "Rest"],
        &["Grocery", "Groc"],
        &["International", "Intl"],
        &["&", "and", "AND"],
    ];
    let word = |word: &str| -> String {
        let bare = word.trim_end_matches(',');
        let comma = word.get(bare.len()..).unwrap_or("");
        let list = SPELLINGS.iter().find(|list| list.contains(&bare));
        match list {
            Some(list) => format!("{}{comma}", chance.of(list)),
            None => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn typos(shop: &Shop, chance: &mut Chance) -> Option<(String, String)> {
    let which = chance.below(3);
    let mut wrong = shop.clone();
    if which != 1 {
        wrong.name = typo(&shop.name, chance)?;
    }
    if which != 0 {
        wrong.road = typo(&shop.road, chance)?;
    }
    Some((wrong.written_name(), wrong.address()))
}

/// One letter left out, doubled, exchanged, or swapped with the next, in a word of five or more.
fn typo(text: &str, chance: &mut Chance) -> Option<String> {
    let words: Vec<&str> = text.split(' ').collect();
    let long =
        |word: &&str| word.len() >= 5 && word.chars().all(|letter| letter.is_ascii_alphabetic());
    let at: Vec<usize> = (0..words.len()).filter(|at| long(&words[*at])).collect();
    if at.is_empty() {
        return None;
    }
    let at = *chance.of(&at);
    let mut letters: Vec<char> = words[at].chars().collect();
    let place = 1 + chance.below(letters.len() - 2);
    match chance.below(4) {
        0 => {
            letters.remove(place);
        }
        1 => letters.insert(place, letters[place]),
        2 => letters[place] = *chance.of(&['a', 'e', 'o', 'r', 't', 'n']),
        _ => letters.swap(place, place + 1),
    }
    let word: String = letters.into_iter().collect();
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words[at] = word;
    Some(words.join(" "))
}

fn suites(shop: &Shop, chance: &mut Chance) -> Option<String> {
    let suite = shop.suite?;
    let bare = Shop {
        suite: None,
        ..shop.clone()
    };
    let street = capitals(&bare.street());
    let street = match chance.below(4) {
        0 => street,
        1 => format!("{street} #{suite}"),
        2 => format!("{street} STE {suite}"),
        _ => format!("{street}, UNIT {suite}"),
    };
    Some(format!("{street}, {}", area(shop)))
}

/// The name with its number in a spelling by chance.
fn renumbered(shop: &Shop, chance: &mut Chance) -> Option<String> {
    let (number, _) = shop.number?;
    let style = *chance.of(&NumberStyle::ALL);
    Some(format!("{} {}", shop.name, style.write(number)))
}

/// Name, number and city, as long as a field for names.
fn cut(shop: &Shop, chance: &mut Chance) -> String {
    let name = renumbered(shop, chance).unwrap_or_else(|| shop.name.clone());
    let text = capitals(&format!("{name} {}", shop.city));
    let length = *chance.of(&[22, 25]);
    text.chars().take(length).collect()
}

fn wrong_digit(shop: &Shop, chance: &mut Chance) -> Option<String> {
    let address = shop.address();
    let digit = |(at, letter): (usize, char)| letter.is_ascii_digit().then_some(at);
    let digits: Vec<usize> = address.char_indices().filter_map(digit).collect();
    if digits.is_empty() {
        return None;
    }
    let at = *chance.of(&digits);
    let old = address.get(at..=at)?.parse::<u32>().ok()?;
    let new = (old + chance.number(1, 9)) % 10;
    let (before, after) = address.split_at_checked(at)?;
    Some(format!("{before}{new}{}", after.get(1..).unwrap_or("")))
}

/// The number of any other branch, ours or not.
fn other_number(shop: &Shop, chance: &mut Chance) -> Option<String> {
    let (own, style) = shop.number?;
    let other = chance.number(1, 9_999);
    (other != own).then(|| format!("{} {}", shop.name, style.write(other)))
}
