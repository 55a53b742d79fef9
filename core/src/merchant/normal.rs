//! One spelling for the many ways to write a store's name and address.
//!
//! Lower case, no diacritics, no punctuation, single spaces. In addresses long forms give way to the
//! abbreviation: `St` may be Street or Saint, and the short form need not know which.
//! Scripts without Latin letters keep their characters. The result is for comparing, not for people.

use crate::authorization::MERCHANT_TEXT_BYTES_MAX;

mod address;
mod name;
mod place;

pub(super) use address::{Address, is_compass, is_type};
pub(super) use name::{Name, is_department, is_noise};
pub(super) use place::State;

/// One form to the one that is compared.
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
    // in names, where a cut word has to begin like the whole one
    ("mkt", "market"),
    ("mkts", "market"),
    ("markets", "market"),
    ("supermkt", "supermarket"),
    ("supermarkets", "supermarket"),
    ("spmkt", "supermarket"),
    ("superctr", "supercenter"),
    ("spctr", "supercenter"),
    ("ctr", "center"),
    ("centre", "center"),
    ("phcy", "pharmacy"),
    ("phmcy", "pharmacy"),
    ("pharm", "pharmacy"),
    ("rest", "restaurant"),
    ("groc", "grocery"),
    ("groceries", "grocery"),
    ("whse", "wholesale"),
    ("whsle", "wholesale"),
    ("warehouse", "wholesale"),
    ("intl", "international"),
    ("brothers", "bros"),
    ("hdwe", "hardware"),
    ("hdw", "hardware"),
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

/// The words of a text, folded, shortened, and `n w` written as `nw`.
fn words(text: &str) -> Vec<String> {
    short(split(text))
}

fn short(written: Vec<String>) -> Vec<String> {
    let mut words: Vec<String> = Vec::with_capacity(written.len());
    for word in written {
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

/// What a word may have been shortened to if its end is missing: `Nor` of `North` is `n`.
pub(super) fn completed(word: &str) -> impl Iterator<Item = &'static str> {
    let long = SHORT.iter().filter(move |(long, _)| long.starts_with(word));
    long.map(|(_, short)| *short)
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
