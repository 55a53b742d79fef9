//! A name, apart from the numbers that chains put behind it.

use super::words;

/// From so many characters on a name may have lost its end: fields for it have 22 or 25, and a blank
/// or two there are gone.
const CUT_MIN: usize = 20;
/// From so many on its last number may have: it ends where the field does.
const NUMBER_CUT_MIN: usize = 22;
/// What payment processors write before a name, up to a `*`.
const PROCESSORS: &[&str] = &[
    "sq", "tst", "sp", "py", "pp", "paypal", "cke", "ezc", "fsp", "bt", "wpy", "par", "lvl", "spo",
];
/// Words that say nothing at a name's end.
const NOISE: &[&str] = &[
    "inc", "llc", "ltd", "corp", "co", "lp", "llp", "store", "stores", "the", "usa", "us",
];

/// Words that name a part of a store, with a till and often an id of its own.
const DEPARTMENTS: &[&str] = &[
    "pharmacy", "fuel", "gas", "gasoline", "optical", "vision", "liquor", "liquors", "spirits",
    "photo", "grooming", "salon", "clinic", "tire", "tires", "auto", "lube", "garden", "carwash",
    "atm", "bank", "kiosk", "cafe",
];

/// A name in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::merchant) struct Name {
    /// Everything that was written.
    pub(in crate::merchant) full: String,
    /// Without numbers, `and`, `the` and legal forms, unless nothing else would be left.
    pub(in crate::merchant) words: Vec<String>,
    /// Those words as one: blanks come and go.
    pub(in crate::merchant) key: String,
    /// Store numbers, without leading zeros; of our own stores the first one counts.
    pub(in crate::merchant) numbers: Vec<u64>,
    /// The name's end may be missing: it is as long as the fields that cut names.
    pub(in crate::merchant) cut: bool,
    /// The missing end may be that of the last number.
    pub(in crate::merchant) number_cut: bool,
}

/// One blank-separated part of a name.
struct Part<'a> {
    text: &'a str,
    /// Its letters and digits, lower case.
    plain: String,
}

// === impl Name ===

impl Name {
    pub(in crate::merchant) fn read(text: &str) -> Self {
        let full = words(text).join(" ");
        let named = without_processor(text);
        let parts = parts(&named);
        let (kept, numbers, number_last) = numbers(&parts);
        let mut left = telling(words(&kept));
        if left.is_empty() {
            left = words(text);
        }
        let letters = text.trim().chars().count();
        Self {
            full,
            key: left.concat(),
            words: left,
            numbers,
            cut: letters >= CUT_MIN && !number_last,
            number_cut: letters >= NUMBER_CUT_MIN && number_last,
        }
    }
}

/// `SQ *NAME` and the like.
fn without_processor(text: &str) -> String {
    match text.split_once('*') {
        Some((processor, name))
            if PROCESSORS.contains(&plain(processor).as_str())
                && name.chars().any(char::is_alphanumeric) =>
        {
            name.to_owned()
        }
        Some(_) | None => text.to_owned(),
    }
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Split at blanks, and before `#`.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for written in text.split_whitespace() {
        let (before, hashed) = match written.find('#').filter(|at| *at > 0) {
            Some(at) => written.split_at_checked(at).unwrap_or((written, "")),
            None => (written, ""),
        };
        for text in [before, hashed] {
            if !text.is_empty() {
                parts.push(Part {
                    text,
                    plain: plain(text),
                });
            }
        }
    }
    parts
}

/// Takes out `T-1234`, `#12`, `Store 12`, `No. 12`, and numbers of three digits or more that are
/// not first. Says what is kept, the numbers, and whether one of them was last.
fn numbers(parts: &[Part<'_>]) -> (String, Vec<u64>, bool) {
    let mut kept: Vec<&str> = Vec::with_capacity(parts.len());
    let mut numbers = Vec::new();
    let mut last = false;
    for (at, part) in parts.iter().enumerate() {
        let digits = part
            .plain
            .trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
        let letters = part.plain.len().saturating_sub(digits.len());
        let number = all_digits(digits);
        let before = at.checked_sub(1).and_then(|before| parts.get(before));
        let announced = before.is_some_and(announces);
        let hashed = part.text.starts_with('#');
        let long = digits.len() >= 3 && letters <= 2 && at > 0;
        last = number && (long || (letters == 0 && (announced || hashed)));
        if !last {
            kept.push(part.text);
            continue;
        }
        let single =
            before.is_some_and(|before| at > 1 && matches!(before.plain.as_str(), "t" | "f"));
        if letters == 0 && !hashed && (announced || single) {
            // `Store 12`, `T 1234`
            kept.pop();
        }
        if let Ok(number) = digits.parse() {
            numbers.push(number);
        }
    }
    (kept.join(" "), numbers, last)
}

fn announces(part: &Part<'_>) -> bool {
    part.text == "#"
        || matches!(
            part.plain.as_str(),
            "store" | "no" | "nr" | "num" | "number"
        )
}

/// The words that tell one name from another.
fn telling(words: Vec<String>) -> Vec<String> {
    let mut left: Vec<String> = words.into_iter().filter(|word| word != "and").collect();
    if left.len() > 1 && left.first().is_some_and(|word| word == "the") {
        left.remove(0);
    }
    while left.len() > 1 && left.last().is_some_and(|word| is_noise(word)) {
        left.pop();
    }
    left
}

/// Whether a word is a department's, or its beginning.
pub(in crate::merchant) fn is_department(word: &str, beginning: bool) -> bool {
    let cut = |known: &&str| beginning && word.len() >= 3 && known.starts_with(word);
    DEPARTMENTS.iter().any(|known| *known == word || cut(known))
}

pub(in crate::merchant) fn is_noise(word: &str) -> bool {
    NOISE.contains(&word)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
