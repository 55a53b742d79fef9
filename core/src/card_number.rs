//! Finds payment card numbers in text, so that they can be refused before anything keeps them.
//!
//! A card number has 13 to 19 digits, the last of which is the Luhn check digit of the others
//! (ISO/IEC 7812-1), and is written in one piece or in groups as on the card. One in ten of the other
//! numbers of that length passes the check too and is taken for one: those who ask are told to send
//! another name for the card, so a false find costs a request and a missed one a leak.

/// Fewest and most digits.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// How cards group their digits.
const GROUPS: [&[usize]; 4] = [&[4, 4, 4, 4], &[4, 4, 4, 4, 3], &[4, 6, 5], &[4, 6, 4]];

/// Groups that are remembered before the next one: the longest layout has one more.
const GROUPS_MAX: usize = 4;

/// Whether a card number stands anywhere in the text. JSON's escapes of digits (`\u0034`) are digits.
pub fn holds_card_number(text: &str) -> bool {
    let mut runs = Runs::of(text);
    let mut groups: Vec<Run> = Vec::new();
    while let Some(run) = runs.next_run() {
        if is_card_number(&run.digits) {
            return true;
        }
        // Groups go on while the separator stays the same; another one may begin with the last group.
        let keep = match groups.last() {
            Some(last) if run.separator.is_some() => {
                if groups.len() == 1 || run.separator == last.separator {
                    GROUPS_MAX
                } else {
                    1
                }
            }
            _ => 0,
        };
        groups.drain(..groups.len().saturating_sub(keep));
        groups.push(run);
        if ends_grouped(&groups) {
            return true;
        }
    }
    false
}

/// Whether the last groups are laid out as on a card, and pass the check.
fn ends_grouped(groups: &[Run]) -> bool {
    GROUPS.iter().any(|layout| {
        let Some(from) = groups.len().checked_sub(layout.len()) else {
            return false;
        };
        let last = groups.get(from..).unwrap_or_default();
        let fits = last
            .iter()
            .zip(*layout)
            .all(|(run, size)| run.digits.len() == *size);
        fits && is_card_number(
            &last
                .iter()
                .flat_map(|run| run.digits.clone())
                .collect::<Vec<_>>(),
        )
    })
}

fn is_card_number(digits: &[u8]) -> bool {
    DIGITS.contains(&digits.len()) && digits.iter().any(|digit| *digit != 0) && passes(digits)
}

/// The Luhn check: every second digit from the right counts twice, its digits summed.
fn passes(digits: &[u8]) -> bool {
    let sum = digits
        .iter()
        .rev()
        .enumerate()
        .fold(0_u32, |sum, (at, digit)| {
            let digit = u32::from(*digit);
            let twice = digit.saturating_mul(2);
            let counted = match at % 2 {
                0 => digit,
                _ if twice > 9 => twice.saturating_sub(9),
                _ => twice,
            };
            sum.saturating_add(counted)
        });
    sum % 10 == 0
}

/// Digits in one piece, and what stood between them and the piece before, if that was one separator.
#[derive(Clone, Debug)]
struct Run {
    digits: Vec<u8>,
    separator: Option<u8>,
}

struct Runs<'a> {
    rest: &'a [u8],
    /// What came since the last piece, if it is one byte.
    gap: Option<u8>,
    begun: bool,
}

// === impl Runs ===

impl<'a> Runs<'a> {
    const fn of(text: &'a str) -> Self {
        Self {
            rest: text.as_bytes(),
            gap: None,
            begun: false,
        }
    }

    fn next_run(&mut self) -> Option<Run> {
        let mut gap_bytes = 0_usize;
        let mut digits = Vec::new();
        loop {
            if let Some((digit, after)) = digit(self.rest) {
                digits.push(digit);
                self.rest = after;
            } else if digits.is_empty() {
                let (byte, after) = self.rest.split_first()?;
                gap_bytes = gap_bytes.saturating_add(1);
                self.gap = (gap_bytes == 1).then_some(*byte);
                self.rest = after;
            } else {
                break;
            }
        }
        let between = self.gap.take().filter(|byte| matches!(byte, b' ' | b'-'));
        let separator = if self.begun { between } else { None };
        self.begun = true;
        Some(Run { digits, separator })
    }
}

/// The digit that the bytes begin with, and what is behind it.
fn digit(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let value = |byte: u8| byte.checked_sub(b'0').filter(|digit| *digit <= 9);
    if let [b'\\', b'u' | b'U', b'0', b'0', b'3', last, after @ ..] = bytes {
        return Some((value(*last)?, after));
    }
    let (first, after) = bytes.split_first()?;
    Some((value(*first)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_found_wherever_they_stand() {
        // Numbers that the networks publish for tests.
        for number in [
            "4111111111111111",
            "4222222222222",
            "5555555555554444",
            "378282246310005",
            "6011111111111117",
            "30569309025904",
            "6304000000000000000",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "3782 822463 10005",
            "3056-930902-5904",
            "\\u0034111111111111111",
            "\\u0034\\u0031\\u0031\\u0031111111111111",
        ] {
            for text in [
                number.to_owned(),
                format!("{{\"note\":\"{number}\"}}"),
                format!("{{\"shopper_id\":{number},\"amount\":1}}"),
                format!("card {number}."),
                format!("a{number}b"),
                format!("12 {number}"),
                format!("x-{number}-y"),
            ] {
                assert!(holds_card_number(&text), "{text}");
            }
        }
    }

    #[test]
    fn other_numbers_are_not() {
        for text in [
            "",
            "4111111111111112",
            "411111111111",
            "41111111111111111111",
            "0000000000000000",
            "4111 1111 1111 1112",
            "4111 1111-1111 1111",
            "4111  1111  1111  1111",
            "4111.1111.1111.1111",
            "411 11111 1111 1111",
            "+1 415 555 0100",
            "2026-11-27 22:05:22",
            r#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target","address":"123 Main St"}}"#,
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(!holds_card_number(text), "{text}");
        }
    }
}
