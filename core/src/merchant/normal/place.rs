//! States and postal codes, as they end an address.

use super::short;

/// A state, district, territory or province, by its place in [`STATES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::merchant) struct State(u8);

/// A postal code: five digits of a ZIP, or the six characters of a Canadian one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::merchant) struct Zip(u32);

/// A word as it was written, and how many commas stood before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) group: usize,
}

/// What a text's end says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Tail {
    pub(super) state: Option<State>,
    pub(super) zip: Option<Zip>,
}

/// Code, name, first digits of its ZIPs (none in Canada).
const STATES: &[(&str, &str, &str)] = &[
    ("al", "alabama", "3"),
    ("ak", "alaska", "9"),
    ("az", "arizona", "8"),
    ("ar", "arkansas", "7"),
    ("ca", "california", "9"),
    ("co", "colorado", "8"),
    ("ct", "connecticut", "0"),
    ("de", "delaware", "1"),
    ("dc", "district of columbia", "2"),
    ("fl", "florida", "3"),
    ("ga", "georgia", "3"),
    ("gu", "guam", "9"),
    ("hi", "hawaii", "9"),
    ("id", "idaho", "8"),
    ("il", "illinois", "6"),
    ("in", "indiana", "4"),
    ("ia", "iowa", "5"),
    ("ks", "kansas", "6"),
    ("ky", "kentucky", "4"),
    ("la", "louisiana", "7"),
    ("me", "maine", "0"),
    ("md", "maryland", "2"),
    ("ma", "massachusetts", "0"),
    ("mi", "michigan", "4"),
    ("mn", "minnesota", "5"),
    ("ms", "mississippi", "3"),
    ("mo", "missouri", "6"),
    ("mt", "montana", "5"),
    ("ne", "nebraska", "6"),
    ("nv", "nevada", "8"),
    ("nh", "new hampshire", "0"),
    ("nj", "new jersey", "0"),
    ("nm", "new mexico", "8"),
    ("ny", "new york", "01"),
    ("nc", "north carolina", "2"),
    ("nd", "north dakota", "5"),
    ("oh", "ohio", "4"),
    ("ok", "oklahoma", "7"),
    ("or", "oregon", "9"),
    ("pa", "pennsylvania", "1"),
    ("pr", "puerto rico", "0"),
    ("ri", "rhode island", "0"),
    ("sc", "south carolina", "2"),
    ("sd", "south dakota", "5"),
    ("tn", "tennessee", "3"),
    ("tx", "texas", "78"),
    ("ut", "utah", "8"),
    ("vt", "vermont", "0"),
    ("vi", "virgin islands", "0"),
    ("va", "virginia", "2"),
    ("wa", "washington", "9"),
    ("wv", "west virginia", "2"),
    ("wi", "wisconsin", "5"),
    ("wy", "wyoming", "8"),
    ("ab", "alberta", ""),
    ("bc", "british columbia", ""),
    ("mb", "manitoba", ""),
    ("nb", "new brunswick", ""),
    ("nl", "newfoundland and labrador", ""),
    ("ns", "nova scotia", ""),
    ("on", "ontario", ""),
    ("pe", "prince edward island", ""),
    ("qc", "quebec", ""),
    ("sk", "saskatchewan", ""),
];

/// Codes that end a street as well: Court, Floor, North East, Alley, Lane, ….
const DOUBTFUL: &[&str] = &["ct", "fl", "ne", "al", "la", "mt", "co", "pr", "de", "on"];

/// Words before a number that make it no postal code.
const NUMBERED: &[&str] = &["ste", "apt", "rm", "spc", "bldg", "box", "hwy", "rte", "no"];

// === impl State ===

impl State {
    /// From its two letters, lower case.
    pub(in crate::merchant) fn from_code(code: &str) -> Option<Self> {
        Self::find(|(known, _, _)| *known == code)
    }

    /// A number that no other has, above 0.
    pub(in crate::merchant) const fn number(self) -> u8 {
        self.0
    }

    fn find(is: impl Fn(&(&str, &str, &str)) -> bool) -> Option<Self> {
        let at = STATES.iter().position(is)?;
        u8::try_from(at.saturating_add(1)).ok().map(Self)
    }

    fn has(self, zip: Zip) -> bool {
        let at = usize::from(self.0).checked_sub(1);
        let firsts = at.and_then(|at| STATES.get(at)).map_or("", |state| state.2);
        match zip.first_digit() {
            Some(digit) => firsts.contains(digit),
            None => firsts.is_empty(),
        }
    }
}

// === impl Zip ===

impl Zip {
    /// The five digits, or a number above them.
    pub(in crate::merchant) const fn number(self) -> u32 {
        self.0
    }

    fn digits(text: &str) -> Option<Self> {
        let five = text.get(..5)?;
        let all = text.bytes().all(|byte| byte.is_ascii_digit());
        let long = matches!(text.len(), 5 | 9);
        (all && long).then_some(())?;
        five.parse().ok().map(Self)
    }

    /// Letter, digit, letter, digit, letter, digit.
    fn canadian(text: &str) -> Option<Self> {
        let shape = text.len() == 6
            && text.bytes().enumerate().all(|(at, byte)| {
                let letter = matches!(at, 0 | 2 | 4);
                letter == byte.is_ascii_lowercase() && letter != byte.is_ascii_digit()
            });
        if !shape {
            return None;
        }
        let number = text.bytes().try_fold(0_u32, |sum, byte| {
            let digit = char::from(byte).to_digit(36)?;
            sum.checked_mul(36)?.checked_add(digit)
        });
        number
            .and_then(|number| number.checked_add(100_000))
            .map(Self)
    }

    fn first_digit(self) -> Option<char> {
        let first = self.0.checked_div(10_000)?;
        (self.0 < 100_000)
            .then(|| char::from_digit(first, 10))
            .flatten()
    }
}

// === impl Tail ===

impl Tail {
    /// Takes country, postal code and state off the end.
    pub(super) fn take(words: &mut Vec<Word>) -> Self {
        take_country(words);
        let zip = take_zip(words);
        take_country(words);
        let state = take_state(words, zip);
        Self { state, zip }
    }
}

fn take_country(words: &mut Vec<Word>) {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let count = match texts.as_slice() {
        [_, .., "united", "states"] => 2,
        [_, .., "us" | "usa" | "canada"] => 1,
        _ => 0,
    };
    words.truncate(words.len().saturating_sub(count));
}

fn take_zip(words: &mut Vec<Word>) -> Option<Zip> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let four = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (zip, count) = match texts.as_slice() {
        [.., five, rest] if five.len() == 5 && four(rest) && Zip::digits(five).is_some() => {
            (Zip::digits(five), 2)
        }
        [.., last] if Zip::digits(last).is_some() => (Zip::digits(last), 1),
        [.., one, other] if one.len() == 3 && other.len() == 3 => {
            (Zip::canadian(&format!("{one}{other}")), 2)
        }
        [.., last] => (Zip::canadian(last), 1),
        [] => (None, 0),
    };
    zip?;
    let before = texts.len().saturating_sub(count).checked_sub(1);
    let before = before
        .and_then(|at| texts.get(at))
        .map(|word| (*word).to_owned());
    let announced = before.is_some_and(|word| {
        short(vec![word])
            .iter()
            .any(|word| NUMBERED.contains(&word.as_str()))
    });
    if announced {
        return None;
    }
    words.truncate(words.len().saturating_sub(count));
    zip
}

fn take_state(words: &mut Vec<Word>, zip: Option<Zip>) -> Option<State> {
    let (state, count) = state_by_code(words, zip).or_else(|| state_by_name(words, zip))?;
    words.truncate(words.len().saturating_sub(count));
    Some(state)
}

fn state_by_code(words: &[Word], zip: Option<Zip>) -> Option<(State, usize)> {
    let code = words.last()?.text.as_str();
    let state = State::from_code(code)?;
    let fits = match zip {
        Some(zip) => state.has(zip),
        None => !DOUBTFUL.contains(&code) || is_apart(words, 1) || is_houseless(words),
    };
    fits.then_some((state, 1))
}

fn state_by_name(words: &[Word], zip: Option<Zip>) -> Option<(State, usize)> {
    let groups = words.last()?.group.saturating_add(1);
    (1..=3_usize).find_map(|count| {
        // Something has to be left: New York alone is the city.
        let at = words.len().checked_sub(count).filter(|at| *at > 0)?;
        let name: Vec<&str> = words
            .iter()
            .skip(at)
            .map(|word| word.text.as_str())
            .collect();
        let name = name.join(" ");
        let state = State::find(|(_, known, _)| *known == name)?;
        // Washington and New York are cities as well.
        let apart = is_apart(words, count) && (groups >= 3 || is_houseless(words));
        let fits = zip.map_or(apart, |zip| state.has(zip));
        fits.then_some((state, count))
    })
}

/// Whether a comma stands right before the last `count` words.
fn is_apart(words: &[Word], count: usize) -> bool {
    let at = words.len().checked_sub(count);
    let first = at.and_then(|at| words.get(at));
    let before = at
        .and_then(|at| at.checked_sub(1))
        .and_then(|at| words.get(at));
    matches!((before, first), (Some(before), Some(first)) if before.group < first.group)
}

fn is_houseless(words: &[Word]) -> bool {
    let digit = |word: &Word| word.text.starts_with(|first: char| first.is_ascii_digit());
    !words.iter().any(digit)
}
