//! One spelling for the many ways to write a store's name and address.
//!
//! Lower case, no diacritics, no punctuation, single spaces; long forms give way to the abbreviation
//! and not the other way round: `St` may be Street or Saint, and the short form need not know which.
//! Scripts without Latin letters keep their characters. The result is for comparing, not for people.

use crate::authorization::MERCHANT_TEXT_BYTES_MAX;

/// Long form to the one that is compared.
const SHORT: &[(&str, &str)] = &[
    // street types
    ("street", "st"),
    ("saint", "st"),
    ("str", "st"),
    ("avenue", "ave"),
    ("av", "ave"),
    ("boulevard", "blvd"),
    ("boul", "blvd"),
    ("road", "rd"),
    ("drive", "dr"),
    ("doctor", "dr"),
    ("lane", "ln"),
    ("court", "ct"),
    ("place", "pl"),
    ("plaza", "plz"),
    ("square", "sq"),
    ("highway", "hwy"),
    ("parkway", "pkwy"),
    ("pky", "pkwy"),
    ("freeway", "fwy"),
    ("expressway", "expy"),
    ("turnpike", "tpke"),
    ("terrace", "ter"),
    ("circle", "cir"),
    ("trail", "trl"),
    ("crossing", "xing"),
    ("center", "ctr"),
    ("centre", "ctr"),
    ("route", "rte"),
    ("mount", "mt"),
    ("mountain", "mtn"),
    ("fort", "ft"),
    ("suite", "ste"),
    ("unit", "ste"),
    ("building", "bldg"),
    ("floor", "fl"),
    // compass
    ("north", "n"),
    ("south", "s"),
    ("east", "e"),
    ("west", "w"),
    ("northeast", "ne"),
    ("northwest", "nw"),
    ("southeast", "se"),
    ("southwest", "sw"),
    // ordinals
    ("first", "1st"),
    ("second", "2nd"),
    ("third", "3rd"),
    ("fourth", "4th"),
    ("fifth", "5th"),
    ("sixth", "6th"),
    ("seventh", "7th"),
    ("eighth", "8th"),
    ("ninth", "9th"),
    ("tenth", "10th"),
    // names
    ("market", "mkt"),
    ("markets", "mkt"),
    ("supermarket", "supermkt"),
    ("company", "co"),
    ("incorporated", "inc"),
    ("corporation", "corp"),
];

/// Letters with marks, by what they become. Marks that stand alone (U+0300 to U+036F) are dropped.
const FOLDED: &[(&str, &str)] = &[
    ("a", "àáâãäåāăą"),
    ("c", "çćĉċč"),
    ("d", "ďđð"),
    ("e", "èéêëēĕėęě"),
    ("g", "ĝğġģ"),
    ("h", "ĥħ"),
    ("i", "ìíîïĩīĭįı"),
    ("j", "ĵ"),
    ("k", "ķ"),
    ("l", "ĺļľŀł"),
    ("n", "ñńņňŉ"),
    ("o", "òóôõöøōŏő"),
    ("r", "ŕŗř"),
    ("s", "śŝşšș"),
    ("t", "ţťŧț"),
    ("u", "ùúûüũūŭůűų"),
    ("w", "ŵ"),
    ("y", "ýÿŷ"),
    ("z", "źżž"),
    ("ae", "æ"),
    ("oe", "œ"),
    ("ss", "ß"),
    ("th", "þ"),
];

/// A name with and without the numbers that chains put behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    /// Everything that was written.
    pub(super) full: String,
    /// Without a store number, unless nothing else would be left.
    pub(super) bare: String,
}

/// An address and the number of its house.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// Everything that was written.
    pub(super) full: String,
    /// The first word that begins with a digit and is no ordinal.
    pub(super) house: Option<String>,
    /// What follows the house number, or everything when there is none.
    pub(super) street: String,
}

// === impl Name ===

impl Name {
    pub(super) fn read(text: &str) -> Self {
        let full = words(text).join(" ");
        let bare = words(&without_store_number(text)).join(" ");
        let bare = if bare.is_empty() { full.clone() } else { bare };
        Self { full, bare }
    }
}

// === impl Address ===

impl Address {
    pub(super) fn read(text: &str) -> Self {
        let words = words(text);
        let house = words.iter().position(|word| is_house_number(word));
        let after = house.map_or(0, |at| at.saturating_add(1));
        Self {
            full: words.join(" "),
            house: house.and_then(|at| words.get(at)).cloned(),
            street: words.get(after..).unwrap_or_default().join(" "),
        }
    }
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

/// Drops `T-1234`, `#12`, `Store 12`, `No. 12` and a number of three digits or more at the end.
fn without_store_number(text: &str) -> String {
    let written: Vec<&str> = text.split_whitespace().collect();
    let plain = |word: &str| -> String {
        word.chars()
            .filter(|letter| letter.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let announces = |word: &str| {
        matches!(
            plain(word).as_str(),
            "store" | "no" | "nr" | "num" | "number"
        )
    };
    let mut kept: Vec<&str> = Vec::with_capacity(written.len());
    for (at, word) in written.iter().enumerate() {
        let bare = plain(word);
        let announced = at.checked_sub(1).and_then(|before| written.get(before));
        let number = all_digits(&bare);
        if number && announced.is_some_and(|before| announces(before)) {
            kept.pop();
            continue;
        }
        let hashed = word.starts_with('#') && number;
        let last = at.saturating_add(1) == written.len();
        let trailing = last && number && bare.len() >= 3 && at > 0;
        if !(hashed || trailing || is_lettered_number(&bare)) {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// One or two letters, then three digits or more: `t1234`.
fn is_lettered_number(word: &str) -> bool {
    let digits = word.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let letters = word.len().saturating_sub(digits.len());
    (1..=2).contains(&letters) && digits.len() >= 3 && all_digits(digits)
}

/// The words of a text, folded, shortened, and `n w` written as `nw`.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in split(text) {
        let word = SHORT
            .iter()
            .find(|(long, _)| *long == word)
            .map_or(word, |(_, short)| (*short).to_owned());
        match words.last_mut() {
            Some(before)
                if matches!(before.as_str(), "n" | "s") && matches!(word.as_str(), "e" | "w") =>
            {
                before.push_str(&word);
            }
            Some(_) | None => words.push(word),
        }
    }
    words
}

/// Splits at everything that is no letter or digit. Apostrophes vanish (`Joe's`), `&` is `and`, and
/// the dots of initials do not split (`N.W.`).
fn split(text: &str) -> Vec<String> {
    let letters: Vec<char> = text
        .chars()
        .take(MERCHANT_TEXT_BYTES_MAX)
        .flat_map(char::to_lowercase)
        .collect();
    let at = |index: usize| letters.get(index).copied().unwrap_or(' ');
    let mut words = Vec::new();
    let mut word = String::new();
    let mut finish = |word: &mut String| {
        if !word.is_empty() {
            words.push(std::mem::take(word));
        }
    };
    // How many letters of the word stood alone before a dot.
    let mut initials = 0_usize;
    for (index, letter) in letters.iter().enumerate() {
        match letter {
            '\'' | '\u{2019}' | '`' | '\u{0300}'..='\u{036f}' => {}
            '&' => {
                finish(&mut word);
                words_and(&mut finish);
                initials = 0;
            }
            '.' if word.chars().count() == initials.saturating_add(1)
                && at(index.saturating_add(1)).is_alphabetic()
                && !at(index.saturating_add(2)).is_alphanumeric() =>
            {
                initials = initials.saturating_add(1);
            }
            letter if letter.is_alphanumeric() => fold(*letter, &mut word),
            _ => {
                finish(&mut word);
                initials = 0;
            }
        }
    }
    finish(&mut word);
    words
}

fn words_and(finish: &mut impl FnMut(&mut String)) {
    finish(&mut "and".to_owned());
}

fn fold(letter: char, word: &mut String) {
    if letter.is_ascii() {
        word.push(letter);
        return;
    }
    match FOLDED.iter().find(|(_, marked)| marked.contains(letter)) {
        Some((plain, _)) => word.push_str(plain),
        None => word.push(letter),
    }
}
