//! How alike two texts are.

/// Dice's coefficient of two texts' trigrams, thousandths; nothing is like nothing.
pub(super) fn likeness(one: &str, other: &str) -> usize {
    let (one, other) = (grams(one), grams(other));
    let (mut left, mut right, mut shared) = (&one[..], &other[..], 0_usize);
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

/// Whether at most `max` letters were left out, put in, exchanged or swapped with their neighbour.
pub(super) fn within(one: &str, other: &str, max: usize) -> bool {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    if one.len().abs_diff(other.len()) > max || unshared(&one, &other) > max.saturating_mul(2) {
        return false;
    }
    distance(&one, &other) <= max
}

/// How many slips of the pen a text of so many letters may have.
pub(super) const fn slips(letters: usize) -> usize {
    match letters {
        0..=3 => 0,
        4..=7 => 1,
        8..=13 => 2,
        _ => 3,
    }
}

/// Whether one word shortens the other: the same first letter, the rest in order.
pub(super) fn shortens(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() {
        (one, other)
    } else {
        (other, one)
    };
    if short.len() < 2 || short.chars().next() != long.chars().next() {
        return short == long;
    }
    let mut rest = long.chars();
    short
        .chars()
        .all(|letter| rest.any(|other| other == letter))
}

/// The set of trigrams of a text's words, each word with two blanks before and one behind it; sorted.
fn grams(text: &str) -> Vec<u64> {
    let mut grams = Vec::with_capacity(text.len().saturating_mul(2));
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

/// How many letters, of 32 kinds, only one of the two has: a cheap look before the dear one.
fn unshared(one: &[char], other: &[char]) -> usize {
    let kinds = |text: &[char]| {
        let bit = |letter: &char| 1_u32 << (u32::from(*letter) % 32);
        text.iter().map(bit).fold(0, |all, bit| all | bit)
    };
    let apart = (kinds(one) ^ kinds(other)).count_ones();
    usize::try_from(apart).unwrap_or(usize::MAX)
}

/// Optimal string alignment.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut earlier: Option<char> = None;
    for (row, letter) in one.iter().enumerate() {
        let mut next = Vec::with_capacity(last.len());
        let mut left = row.saturating_add(1);
        next.push(left);
        let mut beside: Option<char> = None;
        for (column, facing) in other.iter().enumerate() {
            let at =
                |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX);
            let exchanged = at(&last, column).saturating_add(usize::from(letter != facing));
            let dropped = at(&last, column.saturating_add(1)).saturating_add(1);
            let mut best = exchanged.min(dropped).min(left.saturating_add(1));
            if earlier == Some(*facing)
                && beside == Some(*letter)
                && let Some(column) = column.checked_sub(1)
            {
                best = best.min(at(&before, column).saturating_add(1));
            }
            next.push(best);
            left = best;
            beside = Some(*facing);
        }
        before = last;
        last = next;
        earlier = Some(*letter);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_counted() {
        for (one, other, apart) in [
            ("target", "target", 0),
            ("target", "tarjet", 1),
            ("target", "tagret", 1),
            ("target", "targt", 1),
            ("target", "ttarget", 1),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert!(within(one, other, apart), "{one} {other}");
            assert!(within(other, one, apart), "{other} {one}");
            assert!(apart == 0 || !within(one, other, apart.saturating_sub(1)));
        }
    }

    #[test]
    fn a_word_shortens_another() {
        assert!(shortens("mkt", "market") && shortens("phcy", "pharmacy"));
        assert!(!shortens("mkt", "tarket") && !shortens("m", "market"));
        assert!(shortens("a", "a"));
    }

    #[test]
    fn likeness_is_of_trigrams() {
        assert_eq!(likeness("harbour mall", "harbour mall"), 1_000);
        assert_eq!(likeness("abc", "xyz"), 0);
        assert_eq!(likeness("", ""), 0);
    }
}
