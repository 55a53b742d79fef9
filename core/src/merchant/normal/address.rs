//! The parts of an address: house, road, suite, city, state, postal code.

use super::place::{State, Tail, Word, Zip};
use super::{short, split, words};

/// From so many characters on a city may have lost its end: card messages give it 13.
const CITY_CUT_MIN: usize = 12;

/// Words that end a road's name.
const TYPES: &[&str] = &[
    "st", "ave", "blvd", "rd", "dr", "ln", "ct", "pl", "plz", "sq", "hwy", "pkwy", "fwy", "expy",
    "tpke", "ter", "cir", "trl", "xing", "rte", "way", "aly", "loop",
];
const COMPASS: &[&str] = &["n", "s", "e", "w", "ne", "nw", "se", "sw"];
/// Words, as written, whose next word is the number of a suite.
const SUITES: &[&str] = &["suite", "ste", "unit", "space", "spc", "room", "rm", "apt"];

/// An address in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::merchant) struct Address {
    /// Everything that was written.
    pub(in crate::merchant) full: String,
    /// The first word that begins with a digit and is no ordinal, suite or postal code.
    pub(in crate::merchant) house: Option<String>,
    /// Suite, unit or space in the house.
    pub(in crate::merchant) suite: Option<String>,
    /// What is neither of the others.
    pub(in crate::merchant) road: Vec<String>,
    /// Empty where none was found.
    pub(in crate::merchant) city: String,
    /// No comma stood before the city: it may begin earlier or later in `road`.
    pub(in crate::merchant) city_guessed: bool,
    /// The city's end may be missing.
    pub(in crate::merchant) city_cut: bool,
    /// State or province.
    pub(in crate::merchant) state: Option<State>,
    /// Postal code.
    pub(in crate::merchant) zip: Option<Zip>,
    /// `road` may be a city as well.
    pub(in crate::merchant) vague: bool,
}

// === impl Address ===

impl Address {
    pub(in crate::merchant) fn read(text: &str) -> Self {
        let mut left = written(text);
        let Tail { state, zip } = Tail::take(&mut left);
        let suite = take_suite(&mut left);
        let house = left.iter().position(|word| is_house_number(&word.text));
        let (before, after) = match house {
            Some(at) => {
                let (before, rest) = left.split_at(at);
                (before, rest.get(1..).unwrap_or_default())
            }
            None => (left.get(..0).unwrap_or_default(), left.as_slice()),
        };
        let start = house.and_then(|at| left.get(at)).or(after.first());
        let start = start.map_or(0, |word| word.group);
        let placed = state.is_some() || zip.is_some();
        let (mut road, city) = road_and_city(after, start, house.is_none() && placed);
        if road.is_empty() && house.is_some() {
            road = short(texts(before));
        }
        let one_group = left.last().is_none_or(|last| last.group == start);
        let guessed = one_group && !(road.is_empty() && house.is_none());
        let vague = house.is_none() && one_group && !road.is_empty() && city.is_empty();
        let city = texts(city);
        let letters: usize = city.iter().map(|word| word.chars().count()).sum();
        let blanks = city.len().saturating_sub(1);
        Self {
            full: words(text).join(" "),
            house: house
                .and_then(|at| left.get(at))
                .map(|word| word.text.clone()),
            suite,
            road,
            city_guessed: guessed,
            city_cut: letters.saturating_add(blanks) >= CITY_CUT_MIN,
            city: short(city).join(" "),
            state,
            zip,
            vague,
        }
    }

    /// Whether a city was found for sure: without a comma, state or postal code, what looks like one
    /// may be the road's.
    pub(in crate::merchant) fn has_city(&self) -> bool {
        let placed = self.state.is_some() || self.zip.is_some();
        !self.city.is_empty() && (placed || !self.city_guessed)
    }

    /// What the city may be: where no comma stands before it, every ending of road and city.
    pub(in crate::merchant) fn cities(&self) -> Vec<String> {
        if !self.city_guessed {
            let city = Some(self.city.clone());
            return city.into_iter().filter(|city| !city.is_empty()).collect();
        }
        let ends_in_road =
            self.city.is_empty() && self.road.last().is_none_or(|last| is_type(last));
        if ends_in_road {
            return Vec::new();
        }
        let all = self.road_and_city();
        let behind = all
            .match_indices(' ')
            .filter_map(|(at, _)| all.get(at.saturating_add(1)..));
        behind.map(str::to_owned).collect()
    }

    /// Road and city as one text, for texts without a comma between them.
    pub(in crate::merchant) fn road_and_city(&self) -> String {
        let mut all = self.road.join(" ");
        if !all.is_empty() && !self.city.is_empty() {
            all.push(' ');
        }
        all.push_str(&self.city);
        all
    }
}

/// The words of every part between commas; `#` announces a suite.
fn written(text: &str) -> Vec<Word> {
    let text = text.replace('#', " ste ");
    let parts = text.split([',', ';', '\n']);
    let filled = parts.map(split).filter(|words| !words.is_empty());
    let words = filled.enumerate().flat_map(|(group, words)| {
        let word = move |text| Word { text, group };
        words.into_iter().map(word)
    });
    words.collect()
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

/// Takes `Suite 12`, `#12`, `Unit B-12` out.
fn take_suite(words: &mut Vec<Word>) -> Option<String> {
    let value_at = |words: &[Word], at: usize| -> Option<(String, usize)> {
        let next = &words.get(at.saturating_add(1))?.text;
        if SUITES.contains(&next.as_str()) {
            // `Suite #12`
            return None;
        }
        let lettered = next.len() == 1 && next.bytes().all(|byte| byte.is_ascii_alphabetic());
        let after = words
            .get(at.saturating_add(2))
            .map(|word| word.text.as_str());
        match after {
            Some(digits) if lettered && digits.len() <= 4 && all_digits(digits) => {
                Some((format!("{next}{digits}"), 3))
            }
            Some(_) | None if lettered || next.bytes().any(|byte| byte.is_ascii_digit()) => {
                Some((next.clone(), 2))
            }
            Some(_) | None => None,
        }
    };
    let announced = |word: &Word| SUITES.contains(&word.text.as_str());
    let mut found = None;
    for at in 0..words.len() {
        if !words.get(at).is_some_and(announced) {
            continue;
        }
        if let Some((value, count)) = value_at(words, at) {
            let end = at.saturating_add(count).min(words.len());
            words.drain(at..end);
            // It parts road and city as well as a comma does.
            for word in words.iter_mut().skip(at) {
                word.group = word.group.saturating_add(1);
            }
            found = Some(value);
            break;
        }
    }
    if found.is_some() {
        // What is left of `Suite #12`.
        words.retain(|word| !matches!(word.text.as_str(), "suite" | "ste" | "unit"));
    }
    found
}

/// Where the road ends and the city begins: at the last comma, else behind the road's type.
fn road_and_city(words: &[Word], start: usize, placed: bool) -> (Vec<String>, &[Word]) {
    let last = words.last().map_or(start, |word| word.group);
    if last > start {
        let at = words.iter().position(|word| word.group == last);
        let (road, city) = words.split_at(at.unwrap_or(words.len()));
        let city_words = short(texts(city));
        let typed = city_words.iter().skip(1).any(|word| is_type(word));
        if !typed && !city_words.first().is_some_and(|word| is_house_number(word)) {
            return (short(texts(road)), city);
        }
        return (short(texts(words)), &[]);
    }
    let typed = words
        .iter()
        .enumerate()
        .skip(1)
        .find(|(_, word)| is_type(&shortened(&word.text)));
    let Some((at, _)) = typed else {
        if placed {
            return (Vec::new(), words);
        }
        return (short(texts(words)), &[]);
    };
    let mut end = at.saturating_add(1);
    while words
        .get(end)
        .is_some_and(|word| is_type(&shortened(&word.text)))
    {
        end = end.saturating_add(1);
    }
    let compass = words
        .get(end)
        .is_some_and(|word| is_compass(&shortened(&word.text)));
    if compass && end.saturating_add(1) < words.len() {
        end = end.saturating_add(1);
    }
    let (road, city) = words.split_at(end.min(words.len()));
    let numbered = city
        .iter()
        .any(|word| word.text.bytes().any(|byte| byte.is_ascii_digit()));
    if city.len() == 1 && compass || numbered {
        return (short(texts(words)), &[]);
    }
    (short(texts(road)), city)
}

fn shortened(word: &str) -> String {
    short(vec![word.to_owned()]).join(" ")
}

pub(in crate::merchant) fn is_type(word: &str) -> bool {
    TYPES.contains(&word)
}

pub(in crate::merchant) fn is_compass(word: &str) -> bool {
    COMPASS.contains(&word)
}

fn is_house_number(word: &str) -> bool {
    let ordinal = ["st", "nd", "rd", "th"]
        .iter()
        .any(|suffix| word.strip_suffix(suffix).is_some_and(all_digits));
    word.starts_with(|first: char| first.is_ascii_digit()) && !ordinal
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
