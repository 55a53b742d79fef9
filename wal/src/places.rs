//! Where entries are on disk: one place for every so many indexes, and one wherever indexes go on at
//! another place than behind the entry before (a new segment, a truncation).
//!
//! From the place at or below an index, reading forward comes to that index before the next place's:
//! what a truncation took away is never read again.

use std::collections::BTreeMap;

/// Every so many entries, the place of one is remembered.
const EVERY: u64 = 32;

/// A frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of its segment.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// The places of a log.
#[derive(Debug, Default)]
pub(crate) struct Places {
    noted: BTreeMap<u64, Place>,
    /// The segment of the last entry noted or passed.
    segment: u64,
    /// The next entry begins a run of its own.
    anew: bool,
}

/// Where to begin to read for an index, and for how long that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The index whose frame is at `place`.
    pub(crate) index: u64,
    pub(crate) place: Place,
    /// From this index on another place counts.
    pub(crate) until: u64,
}

// === impl Places ===

impl Places {
    /// An entry is at a place; they come in the order in which they were written.
    pub(crate) fn note(&mut self, index: u64, place: Place) {
        let new_segment = place.segment != self.segment;
        if new_segment || self.anew || index.is_multiple_of(EVERY) {
            self.noted.insert(index, place);
        }
        self.segment = place.segment;
        self.anew = false;
    }

    /// The entries from `from` on are no more.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.noted.split_off(&from);
        self.anew = true;
    }

    /// The entries below `index` are not read any more. The place that `index` is reached from stays.
    pub(crate) fn trim(&mut self, index: u64) {
        if let Some((first, _)) = self.noted.range(..=index).next_back() {
            self.noted = self.noted.split_off(&first.clone());
        }
    }

    /// Where to begin to read for `index`; `None` when nothing at or below it is known.
    pub(crate) fn find(&self, index: u64) -> Option<Run> {
        let (first, place) = self.noted.range(..=index).next_back()?;
        let next = index
            .checked_add(1)
            .and_then(|after| self.noted.range(after..).next());
        Some(Run {
            index: *first,
            place: *place,
            until: next.map_or(u64::MAX, |(next, _)| *next),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64, offset: u64) -> Place {
        Place { segment, offset }
    }

    #[test]
    fn what_was_truncated_is_never_found_again() {
        let mut places = Places::default();
        for index in 1..=100 {
            places.note(index, at(1, index * 10));
        }
        places.truncate(40);
        for index in 40..=70 {
            places.note(index, at(2, index));
        }
        let run = |index| places.find(index).unwrap();
        assert_eq!(
            run(39),
            Run {
                index: 32,
                place: at(1, 320),
                until: 40
            }
        );
        assert_eq!(run(40).place, at(2, 40));
        assert_eq!(
            run(63),
            Run {
                index: 40,
                place: at(2, 40),
                until: 64
            }
        );
        assert_eq!(run(70).index, 64);
        assert_eq!(run(5).index, 1);
        assert_eq!(places.find(0), None);
    }

    #[test]
    fn trimming_keeps_the_way_to_the_first_entry_that_is_left() {
        let mut places = Places::default();
        for index in 1..=100 {
            places.note(index, at(1, index));
        }
        places.trim(50);
        assert_eq!(places.find(50).unwrap().index, 32);
        assert_eq!(places.find(31), None);
    }
}
