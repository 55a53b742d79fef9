//! What the console reads of an edge's `/metrics`: answers and how long they took, by rung.
//!
//! The text is Prometheus' exposition format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Only the counters named here are
//! read, and only rungs that are known; everything else may come and go.

use std::collections::BTreeMap;
use std::time::Duration;

/// Rungs, in the order in which they are shown; `refused` is a request without an answer.
pub const RUNGS: [&str; 6] = [
    "primary",
    "stand_in",
    "primary_only",
    "isolated",
    "bank",
    "refused",
];
/// The last of them.
const REFUSED: &str = "refused";
/// Of a histogram, more buckets are not read.
const BUCKETS_MAX: usize = 64;
/// Of a label, more values are not read.
const VALUES_MAX: usize = 64;
/// The bound of the bucket that has none.
pub const UNBOUNDED: u64 = u64::MAX;

const ANSWERS: &str = "standin_answers_total";
const REFUSALS: &str = "standin_refusals_total";
const BUCKET: &str = "standin_answer_duration_seconds_bucket";

/// What an edge has counted since its process began, or between two moments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters(BTreeMap<&'static str, Counted>);

/// Of one rung.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Answers, or refusals.
    pub count: u64,
    /// Answers that took at most so many microseconds, by that bound.
    pub within_us: BTreeMap<u64, u64>,
}

/// Where a quantile lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantile {
    /// At so many microseconds, estimated within its bucket.
    At(u64),
    /// Past the last bound there is, in microseconds.
    Over(u64),
}

// === impl Counters ===

impl Counters {
    /// Reads the text of `/metrics`. Lines that do not read as one of the counters are passed over.
    pub fn read(text: &str) -> Self {
        let mut counters = Self::default();
        for line in text.lines() {
            let Some((name, labels, value)) = sample(line) else {
                continue;
            };
            let rung = match name {
                ANSWERS | BUCKET => known(label(labels, "rung")),
                REFUSALS => Some(REFUSED),
                _ => None,
            };
            let Some(rung) = rung else { continue };
            let counted = counters.0.entry(rung).or_default();
            if name != BUCKET {
                counted.count = counted.count.saturating_add(value);
                continue;
            }
            let bound = label(labels, "le").and_then(micros);
            if let Some(bound) = bound.filter(|_| counted.within_us.len() < BUCKETS_MAX) {
                counted.within_us.insert(bound, value);
            }
        }
        counters
    }

    /// What was counted since `earlier`. Something that is less than it was says that the process began
    /// anew: then everything was.
    pub fn since(&self, earlier: &Self) -> Self {
        let has_shrunk = earlier.0.iter().any(|(rung, before)| {
            let now = self.0.get(rung);
            now.is_none_or(|now| now.is_less_than(before))
        });
        if has_shrunk {
            return self.clone();
        }
        let nothing = Counted::default();
        let since = self.0.iter().map(|(rung, now)| {
            let before = earlier.0.get(rung).unwrap_or(&nothing);
            (*rung, now.since(before))
        });
        Self(since.collect())
    }

    /// Adds what was counted elsewhere, or at another time.
    pub fn add(&mut self, other: &Self) {
        for (rung, theirs) in &other.0 {
            let ours = self.0.entry(rung).or_default();
            ours.count = ours.count.saturating_add(theirs.count);
            for (bound, count) in &theirs.within_us {
                let sum = ours.within_us.entry(*bound).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }

    /// Of a rung.
    pub fn of(&self, rung: &str) -> Option<&Counted> {
        self.0.get(rung)
    }

    /// Of all rungs together, refusals left out.
    pub fn answered(&self) -> Counted {
        let mut all = Self::default();
        for (rung, counted) in self.0.iter().filter(|(rung, _)| **rung != REFUSED) {
            let one = Self(BTreeMap::from([(*rung, counted.clone())]));
            let renamed = one.0.into_values().map(|counted| ("", counted));
            all.add(&Self(renamed.collect()));
        }
        all.0.remove("").unwrap_or_default()
    }
}

// === impl Counted ===

impl Counted {
    fn is_less_than(&self, before: &Self) -> bool {
        let shrunk = |(bound, count): (&u64, &u64)| {
            let now = self.within_us.get(bound).copied().unwrap_or(0);
            now < *count
        };
        self.count < before.count || before.within_us.iter().any(shrunk)
    }

    fn since(&self, before: &Self) -> Self {
        let within = self.within_us.iter().map(|(bound, count)| {
            let had = before.within_us.get(bound).copied().unwrap_or(0);
            (*bound, count.saturating_sub(had))
        });
        Self {
            count: self.count.saturating_sub(before.count),
            within_us: within.collect(),
        }
    }

    /// The duration that `percent` of the answers did not exceed; `None` of nothing.
    ///
    /// The bucket that the answer of this rank lies in is known; within it the answers are taken to be
    /// spread evenly, as Prometheus' `histogram_quantile` has it.
    pub fn quantile(&self, percent: u64) -> Option<Quantile> {
        let all = self.within_us.values().copied().max()?;
        let rank = all.saturating_mul(percent).div_ceil(100);
        if rank == 0 {
            return None;
        }
        let (mut below, mut lower) = (0_u64, 0_u64);
        for (bound, within) in &self.within_us {
            if *within >= rank {
                if *bound == UNBOUNDED {
                    return Some(Quantile::Over(lower));
                }
                let inside = within.saturating_sub(below).max(1);
                let width = bound.saturating_sub(lower);
                let part = width.saturating_mul(rank.saturating_sub(below));
                let past = part.checked_div(inside).unwrap_or(0);
                return Some(Quantile::At(lower.saturating_add(past)));
            }
            below = *within;
            lower = *bound;
        }
        None
    }
}

// === impl Quantile ===

impl Quantile {
    /// Microseconds, of which it may be more when it lies past the last bound.
    pub const fn micros(self) -> u64 {
        match self {
            Self::At(micros) | Self::Over(micros) => micros,
        }
    }
}

/// A counter's sums, by the values that one of its labels has; at most 64 of them.
pub fn sums(text: &str, counter: &str, by: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let Some((_, labels, value)) = sample(line).filter(|(name, ..)| *name == counter) else {
            continue;
        };
        let of = label(labels, by).unwrap_or_default();
        if sums.len() < VALUES_MAX || sums.contains_key(of) {
            let sum: &mut u64 = sums.entry(of.to_owned()).or_default();
            *sum = sum.saturating_add(value);
        }
    }
    sums
}

/// Name, labels and value of a sample whose value is a whole number.
fn sample(line: &str) -> Option<(&str, &str, u64)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    Some((name, labels, value.parse().ok()?))
}

/// The value of a label. Values with quotes or commas in them are not told apart: those looked for
/// here have none.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

fn known(rung: Option<&str>) -> Option<&'static str> {
    let rung = rung?;
    RUNGS.into_iter().find(|known| *known == rung)
}

/// A bound in seconds, as microseconds.
fn micros(le: &str) -> Option<u64> {
    if le == "+Inf" {
        return Some(UNBOUNDED);
    }
    let seconds = Duration::try_from_secs_f64(le.parse().ok()?).ok()?;
    u64::try_from(seconds.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(primary: u64, buckets: [u64; 4]) -> String {
        let [a, b, c, d] = buckets;
        format!(
            r#"# HELP standin_answers_total Answers given, by bank, rung, verdict and reason.
# TYPE standin_answers_total counter
standin_answers_total{{bank="a",reason="within_cap",rung="primary",verdict="approved"}} {primary}
standin_answers_total{{bank="a",reason="over_cap",rung="primary",verdict="declined"}} 1
standin_answers_total{{bank="a",reason="x",rung="sideways",verdict="declined"}} 9
standin_answer_duration_seconds_bucket{{rung="primary",le="0.0005"}} {a}
standin_answer_duration_seconds_bucket{{rung="primary",le="0.01"}} {b}
standin_answer_duration_seconds_bucket{{rung="primary",le="0.02"}} {c}
standin_answer_duration_seconds_bucket{{rung="primary",le="+Inf"}} {d}
standin_answer_duration_seconds_sum{{rung="primary"}} 0.25
standin_refusals_total{{cause="log_full",problem="unavailable"}} 2
standin_refusals_total{{cause="",problem="unauthorized"}} 3
standin_exposure_minor_units{{currency="USD",kind="now"}} -5
standin_in_flight 1
not a sample
"#
        )
    }

    #[test]
    fn counters_are_summed_by_rung_and_what_is_unknown_is_passed_over() {
        let read = Counters::read(&page(99, [0, 50, 100, 100]));
        let primary = read.of("primary").unwrap();
        assert_eq!(primary.count, 100);
        let bounds: Vec<u64> = primary.within_us.keys().copied().collect();
        assert_eq!(bounds, [500, 10_000, 20_000, UNBOUNDED]);
        assert_eq!(read.of("refused").unwrap().count, 5);
        assert_eq!(read.of("sideways"), None);
        assert_eq!(read.answered().count, 100);
        assert_eq!(Counters::read("").answered(), Counted::default());
    }

    #[test]
    fn a_process_that_began_anew_counts_from_nothing() {
        let before = Counters::read(&page(99, [0, 50, 100, 100]));
        let later = Counters::read(&page(109, [0, 55, 110, 110]));
        let since = later.since(&before);
        assert_eq!(since.of("primary").unwrap().count, 10);
        assert_eq!(since.of("primary").unwrap().within_us[&10_000], 5);
        assert_eq!(since.of("refused").unwrap().count, 0);
        let anew = Counters::read(&page(6, [0, 7, 7, 7]));
        assert_eq!(anew.since(&later), anew);
        // Nothing of a rung that was there before: it began anew, too.
        let refusals_only = Counters::read("standin_refusals_total 7");
        assert_eq!(refusals_only.since(&later), refusals_only);
        // A rung that was not there before did not.
        let first = Counters::read("standin_refusals_total 7");
        let more = Counters::read(&format!(
            "standin_refusals_total 9\n{}",
            page(1, [0, 2, 2, 2])
        ));
        assert_eq!(more.since(&first).of("primary").unwrap().count, 2);
        assert_eq!(more.since(&first).of("refused").unwrap().count, 7);
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_of_its_rank() {
        let check = |buckets: [u64; 4], percent, expected| {
            let read = Counters::read(&page(0, buckets));
            let got = read.of("primary").unwrap().quantile(percent);
            assert_eq!(got, expected, "{buckets:?} {percent}");
        };
        check([0, 0, 0, 0], 99, None);
        // All between 0.5 and 10 ms: the last but one of a hundred, 99/100 of the way.
        check([0, 100, 100, 100], 99, Some(Quantile::At(9_905)));
        check([0, 100, 100, 100], 50, Some(Quantile::At(5_250)));
        check([100, 100, 100, 100], 99, Some(Quantile::At(495)));
        check([0, 98, 100, 100], 99, Some(Quantile::At(15_000)));
        check([0, 0, 0, 1], 99, Some(Quantile::Over(20_000)));
        check([0, 1, 1, 1], 99, Some(Quantile::At(10_000)));
        assert_eq!(Quantile::Over(20_000).micros(), 20_000);
    }

    #[test]
    fn a_counter_is_summed_by_the_values_of_a_label() {
        let page = page(99, [0, 50, 100, 100]);
        let expected = [
            ("unauthorized".to_owned(), 3),
            ("unavailable".to_owned(), 2),
        ];
        let sums = |name, by| super::sums(&page, name, by);
        assert_eq!(sums("standin_refusals_total", "problem"), expected.into());
        assert_eq!(sums("standin_in_flight", "x"), [(String::new(), 1)].into());
        assert_eq!(sums("standin_refusals", "problem"), [].into());
        let many: String = (0..100).map(|n| format!("a{{b=\"{n}\"}} 1\n")).collect();
        assert_eq!(super::sums(&many, "a", "b").len(), VALUES_MAX);
    }

    #[test]
    fn edges_are_added_bucket_by_bucket() {
        let mut sum = Counters::read(&page(9, [0, 10, 10, 10]));
        sum.add(&Counters::read(&page(89, [0, 0, 90, 90])));
        let primary = sum.of("primary").unwrap();
        assert_eq!((primary.count, primary.within_us[&20_000]), (100, 100));
        assert_eq!(primary.quantile(5), Some(Quantile::At(5_250)));
        assert_eq!(sum.answered(), primary.clone());
    }
}
