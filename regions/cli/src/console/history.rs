//! How an edge's counters moved in the last ten minutes: a bounded row of steps.

use std::collections::VecDeque;

use super::exposition::Counters;

/// Milliseconds of a step.
pub const STEP_MS: u64 = 5_000;
/// Steps kept: ten minutes.
pub const STEPS_MAX: u64 = 120;
/// What was counted between two looks further apart cannot be placed in time, and is left out.
const APART_MAX_MS: u64 = 15_000;
/// The present is what was counted in the last steps that cover at least so much.
const NOW_MS: u64 = 10_000;

/// The last ten minutes of one edge. Times are milliseconds of one monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct History {
    last: Option<(u64, Counters)>,
    steps: VecDeque<Step>,
}

/// What was counted within a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which: its begin is `index * STEP_MS`.
    pub index: u64,
    /// For how long of it, or a little more, somebody looked.
    pub covers_ms: u64,
    /// What.
    pub counted: Counters,
}

// === impl History ===

impl History {
    /// Hears what an edge's counters are at a moment, not before the one heard last.
    pub fn hear(&mut self, at_ms: u64, counters: Counters) {
        let heard = self.last.take();
        if let Some((before_ms, before)) = heard {
            let apart_ms = at_ms.saturating_sub(before_ms);
            if apart_ms > 0 && apart_ms <= APART_MAX_MS {
                self.place(at_ms, apart_ms, &counters.since(&before));
            }
        }
        self.last = Some((at_ms, counters));
    }

    fn place(&mut self, at_ms: u64, covers_ms: u64, counted: &Counters) {
        let index = at_ms.div_euclid(STEP_MS);
        match self.steps.back_mut().filter(|step| step.index == index) {
            Some(step) => {
                step.covers_ms = step.covers_ms.saturating_add(covers_ms);
                step.counted.add(counted);
            }
            None => self.steps.push_back(Step {
                index,
                covers_ms,
                counted: counted.clone(),
            }),
        }
        let oldest = index.saturating_sub(STEPS_MAX);
        while self.steps.front().is_some_and(|step| step.index < oldest) {
            self.steps.pop_front();
        }
    }

    /// A step, if anything was heard in it.
    pub fn step(&self, index: u64) -> Option<&Step> {
        let at = self.steps.binary_search_by_key(&index, |step| step.index);
        self.steps.get(at.ok()?)
    }

    /// The oldest step kept.
    pub fn first(&self) -> Option<u64> {
        self.steps.front().map(|step| step.index)
    }

    /// What was counted lately, and in how many milliseconds; `None` when there are no two looks of late.
    pub fn now(&self, now_ms: u64) -> Option<(u64, Counters)> {
        let oldest = now_ms.saturating_sub(APART_MAX_MS).div_euclid(STEP_MS);
        let mut covers_ms = 0_u64;
        let mut counted = Counters::default();
        for step in self.steps.iter().rev() {
            if step.index < oldest || covers_ms >= NOW_MS {
                break;
            }
            covers_ms = covers_ms.saturating_add(step.covers_ms);
            counted.add(&step.counted);
        }
        (covers_ms > 0).then_some((covers_ms, counted))
    }
}

/// So many in so many milliseconds, as thousandths a second.
pub fn per_second_e3(count: u64, covers_ms: u64) -> u64 {
    let e6 = count.saturating_mul(1_000_000);
    e6.checked_div(covers_ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(count: u64) -> Counters {
        Counters::read(&format!("standin_refusals_total {count}"))
    }

    fn refused(counters: &Counters) -> u64 {
        counters.of("refused").map_or(0, |counted| counted.count)
    }

    #[test]
    fn what_is_counted_between_two_looks_lies_in_the_step_of_the_later() {
        let mut history = History::default();
        history.hear(1_000, refusals(100));
        assert_eq!(history.now(1_000), None);
        history.hear(2_000, refusals(110));
        history.hear(4_000, refusals(130));
        history.hear(6_000, refusals(136));
        let first = history.step(0).unwrap();
        assert_eq!((first.covers_ms, refused(&first.counted)), (3_000, 30));
        let second = history.step(1).unwrap();
        assert_eq!((second.covers_ms, refused(&second.counted)), (2_000, 6));
        let (covers_ms, counted) = history.now(6_000).unwrap();
        assert_eq!((covers_ms, refused(&counted)), (5_000, 36));
        assert_eq!(per_second_e3(refused(&counted), covers_ms), 7_200);
    }

    #[test]
    fn a_restart_in_between_counts_what_came_after_it() {
        let mut history = History::default();
        history.hear(0, refusals(1_000));
        history.hear(1_000, refusals(4));
        assert_eq!(refused(&history.now(1_000).unwrap().1), 4);
    }

    #[test]
    fn after_a_long_silence_nothing_is_made_up() {
        let mut history = History::default();
        history.hear(0, refusals(0));
        history.hear(1_000, refusals(5));
        history.hear(61_000, refusals(6_000));
        assert_eq!(history.now(61_000), None);
        assert_eq!(history.step(12), None);
        history.hear(62_000, refusals(6_001));
        assert_eq!(refused(&history.now(62_000).unwrap().1), 1);
        // Nor is what was heard long ago the present.
        assert_eq!(history.now(90_000), None);
    }

    #[test]
    fn the_row_of_steps_is_bounded() {
        let mut history = History::default();
        for second in 0..3_600_u64 {
            history.hear(second.saturating_mul(1_000), refusals(second));
        }
        assert_eq!(history.steps.len(), 121);
        let (covers_ms, counted) = history.now(3_599_000).unwrap();
        assert_eq!(covers_ms, 10_000);
        assert_eq!(refused(&counted), 10);
        assert_eq!(history.step(0), None);
    }
}
