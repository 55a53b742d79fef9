//! What a drill came to: figures from what the bank saw and the edges said, and a verdict on each
//! expectation.
//!
//! [`figures`] counts, [`verdicts`] holds what was counted against [`Limits`]: both are pure. A drill
//! whose fault is not proved, or whose steady state was none, fails whatever its figures are: it has
//! shown nothing. `drill.json` is a [`DrillReport`] as it is. One on a deployment, where there is no bank to
//! see anything, is [`deployed`].

pub mod deployed;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use standin_core::answer::Rung;

use super::{Machine, PhaseReport, Shade, Tick, longest_gap_ms, percentile_ms, said};
use crate::checker::Check;
use crate::history::{Attempt, Counts, Outcome};

/// A good answer comes within this, from the moment its payment was due.
pub const PROMPT_MS: u64 = 300;
/// Of the payments that are due while all is well, so many percent are answered in time, or the drill
/// has no steady state to disturb.
pub const STEADY_PERCENT: f64 = 99.0;
/// And so many percent of them on rung `primary`: who stands in already shows nothing by standing in.
pub const ON_PRIMARY_PERCENT: f64 = 90.0;
/// Goodput is back so long after the fault has ended.
pub const BACK_WITHIN_MS: u64 = 10_000;

/// One drill: what was expected, what was done, what was seen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DrillReport {
    /// What it is called on the command line.
    pub name: String,
    /// The same in a few words.
    pub title: String,
    /// What is believed to happen.
    pub hypothesis: String,
    /// What is so before and must be so again.
    pub steady_state: String,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long all of it took.
    pub seconds: f64,
    /// How it was asked for.
    pub options: BTreeMap<String, String>,
    /// Where it ran.
    pub machine: Machine,
    /// What was done to the world.
    pub injection: Injection,
    /// What was seen.
    pub figures: Figures,
    /// One for each expectation: `injected`, `steady`, `restored`, `L1`, …
    pub verdicts: Vec<Check>,
    /// The promises, judged from the history, the logs and the ledger.
    pub checks: Vec<Check>,
    /// Before, during and after.
    pub phases: Vec<PhaseReport>,
    /// Step by step.
    pub timeline: Vec<Tick>,
    /// Money approved without the primary, minor units, at the end of each step of the timeline.
    pub exposure: Vec<i64>,
    /// What that money is in.
    pub currency: String,
    /// When something was broken.
    pub shades: Vec<Shade>,
    /// What else is worth a line.
    pub notes: Vec<String>,
}

/// What was done to the world, and how that is known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Injection {
    /// In words.
    pub what: String,
    /// Each sign that it happened; without one that is ok it is not proved.
    pub proofs: Vec<Proof>,
    /// Whether everything broken was put right again.
    pub restored: bool,
}

/// A sign that a fault happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// What was looked at, and what was seen.
    pub seen: String,
    /// Whether that is the fault.
    pub ok: bool,
}

/// The moments of a drill, milliseconds from the beginning of its load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    /// The beginning itself, milliseconds since the epoch.
    pub epoch: i64,
    /// The fault is about to be injected.
    pub fault_ms: u64,
    /// It has been taken back.
    pub healed_ms: u64,
    /// The last payment is due before.
    pub end_ms: u64,
}

/// What an edge said of itself at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Which edge.
    pub edge: u64,
    /// The rung that its next answer is likely given on.
    pub rung: String,
    /// How often its breaker opened or closed since it started.
    pub mode_changes: u64,
    /// Batches of the log that it has applied.
    pub applied: u64,
    /// Batches of the log that are in the ledger.
    pub drained: u64,
    /// Answers in the log that are not in the ledger.
    pub backlog: u64,
    /// Money approved without the primary, minor units.
    pub exposed_minor: i64,
    /// The most that could be, minor units.
    pub worst_case_minor: i64,
}

/// What the load was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Payments a second, asked for while nothing is broken.
    pub rate: u64,
    /// Payments that were due and not sent: too many were under way.
    pub unsent: u64,
    /// When the bank stops waiting, milliseconds.
    pub deadline_ms: u64,
}

/// What was seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Payments that were due.
    pub payments: u64,
    /// Requests for them, retries included.
    pub requests: u64,
    /// Payments a second that were asked for while nothing was broken, and that were sent.
    pub rate_asked: u64,
    /// The same, as it was held.
    pub rate_held: f64,
    /// Payments that were not sent: too many were under way.
    pub unsent: u64,
    /// Payments with an answer from any edge within [`PROMPT_MS`].
    pub prompt: u64,
    /// Of a hundred.
    pub prompt_percent: f64,
    /// Payments whose first answer came after the deadline.
    pub late: u64,
    /// Payments without any answer.
    pub unanswered: u64,
    /// Of the payments due before the fault, so many percent were answered in time.
    pub steady_percent: f64,
    /// Of the same, so many percent were answered on rung `primary`.
    #[serde(default)]
    pub on_primary_percent: f64,
    /// Replies that differ from what the payment was made to get.
    pub wrong: u64,
    /// 99th percentile from the due moment to the first answer before the fault; a payment without one
    /// counts with the deadline.
    pub p99_steady_ms: f64,
    /// The same from the fault until it was taken back.
    pub p99_fault_ms: f64,
    /// The same afterwards.
    pub p99_after_ms: f64,
    /// From the fault to the first answer on rung `stand_in`.
    pub first_stand_in_ms: Option<u64>,
    /// 99th percentile of answers on rung `stand_in` that were due in the fault.
    pub p99_stand_in_ms: f64,
    /// The longest time in which payments were due and nobody answered any.
    pub longest_gap_ms: u64,
    /// Answers in the log that were not in the ledger when the fault was taken back.
    pub backlog: u64,
    /// How long until they were.
    pub drained_in_ms: Option<u64>,
    /// 99th percentile of payments due meanwhile.
    pub p99_draining_ms: f64,
    /// Payments a second answered in time before the fault, …
    pub goodput_steady: f64,
    /// … from it until it was taken back …
    pub goodput_fault: f64,
    /// … and from [`BACK_WITHIN_MS`] after that on.
    pub goodput_after: f64,
    /// How often the breaker of an edge opened or closed in the fault; the edge with most.
    pub mode_changes: u64,
    /// Minutes that the fault lasted, begun ones included.
    pub fault_minutes: u64,
    /// Answers by rung from the fault until it was taken back.
    pub rungs_in_fault: BTreeMap<String, u64>,
    /// Requests that were refused meanwhile, by status and cause; `no reply` are those that got none.
    #[serde(default)]
    pub refusals_in_fault: BTreeMap<String, u64>,
    /// The most money approved without the primary, minor units, in the whole drill.
    pub exposed_minor: i64,
    /// What was known in advance to be the most that could be.
    pub worst_case_minor: i64,
}

/// What is expected.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// L1: so many percent of all payments are answered within [`PROMPT_MS`].
    pub prompt_percent: Option<f64>,
    /// Payments of ten thousand that may be without an answer by the deadline.
    pub unanswered_of_10_000: u64,
    /// L2: the first stand-in answer comes so soon after the fault.
    pub first_stand_in_ms: Option<u64>,
    /// L4: how fast the backlog goes, and what live traffic may feel of it.
    pub drain: Option<DrainLimits>,
    /// L5: goodput.
    pub goodput: Option<GoodputLimits>,
    /// L6: mode changes a minute at each edge.
    pub mode_changes_per_minute: Option<u64>,
    /// The rungs that must be seen in the fault.
    pub rungs: Vec<Rung>,
}

/// L4.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct DrainLimits {
    /// The backlog is so large at least, or nothing is shown.
    pub backlog_min: u64,
    /// Milliseconds until it is in the ledger, for each 20,000 answers.
    pub within_ms_per_20_000: u64,
    /// The 99th percentile meanwhile, as a multiple of that before the fault.
    pub p99_ratio: f64,
}

/// L5, in percent of what was answered in time before.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct GoodputLimits {
    /// While it lasts.
    pub during: f64,
    /// [`BACK_WITHIN_MS`] after it.
    pub after: f64,
}

/// All attempts at one payment, as one.
#[derive(Clone, Copy, Debug)]
struct Paid {
    due: i64,
    requests: u64,
    /// Latency (microseconds), moment and rung of its first answer.
    answer: Option<(u64, i64, Rung)>,
}

/// Every payment, to be looked at by when it was due.
struct Due {
    paid: Vec<Paid>,
    epoch: i64,
    deadline_ms: u64,
}

// === impl DrillReport ===

impl DrillReport {
    /// Whether every expectation and every promise was kept, and there were some.
    pub fn passed(&self) -> bool {
        let all = |checks: &[Check]| !checks.is_empty() && checks.iter().all(|check| check.ok);
        all(&self.verdicts) && all(&self.checks)
    }

    /// What was not as expected, by name.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        let checks = self.verdicts.iter().chain(&self.checks);
        checks.filter(|check| !check.ok)
    }
}

// === impl Injection ===

impl Injection {
    /// Whether it is known to have happened.
    pub fn is_proved(&self) -> bool {
        !self.proofs.is_empty() && self.proofs.iter().all(|proof| proof.ok)
    }
}

// === impl Paid ===

impl Paid {
    fn is_within(&self, ms: u64) -> bool {
        let limit = ms.saturating_mul(1_000);
        self.answer.is_some_and(|(latency, ..)| latency <= limit)
    }
}

// === impl Due ===

impl Due {
    /// Those due in these milliseconds of the drill.
    fn between(&self, from: u64, until: u64) -> impl Iterator<Item = &Paid> {
        let since = move |paid: &&Paid| {
            let at = paid.due.saturating_sub(self.epoch);
            u64::try_from(at).is_ok_and(|at| (from..until).contains(&at))
        };
        self.paid.iter().filter(since)
    }

    fn p99(&self, from: u64, until: u64) -> f64 {
        p99_ms(self.between(from, until), self.deadline_ms)
    }

    /// How many of them were answered in time.
    fn in_time(&self, from: u64, until: u64) -> u64 {
        let within = |paid: &&Paid| paid.is_within(self.deadline_ms);
        count(self.between(from, until).filter(within))
    }

    fn goodput(&self, from: u64, until: u64) -> f64 {
        per_second(self.in_time(from, until), until.saturating_sub(from))
    }

    /// How many were answered first on which rung; `refused`: on none.
    fn rungs(&self, from: u64, until: u64) -> BTreeMap<String, u64> {
        let mut rungs = BTreeMap::new();
        for paid in self.between(from, until) {
            let word = paid.answer.map_or("refused", |(.., rung)| rung.as_str());
            let count: &mut u64 = rungs.entry(word.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        rungs
    }
}

/// Counts. Payments that were due before the load's beginning do not count.
pub fn figures(history: &[Attempt], samples: &[Sample], marks: &Marks, load: Load) -> Figures {
    // What came while the edges warmed up says nothing.
    let history: Vec<Attempt> = history
        .iter()
        .filter(|attempt| attempt.intended_at >= marks.epoch)
        .cloned()
        .collect();
    let due = Due {
        paid: payments(&history),
        epoch: marks.epoch,
        deadline_ms: load.deadline_ms,
    };
    let (fault, healed, end) = (marks.fault_ms, marks.healed_ms, marks.end_ms);
    let (backlog, drained_in_ms) = drained(samples, marks);
    let drained_at = drained_in_ms.map_or(end, |ms| healed.saturating_add(ms));
    let back = healed.saturating_add(BACK_WITHIN_MS);
    // A short drill has a short way back too.
    let back = if back < end {
        back
    } else {
        midway(healed, end)
    };
    let steady = count(due.between(0, fault));
    let total = count(due.paid.iter());
    let prompt = count(due.paid.iter().filter(|paid| paid.is_within(PROMPT_MS)));
    let answered = count(due.paid.iter().filter(|paid| paid.answer.is_some()));
    let in_time = due
        .paid
        .iter()
        .filter(|paid| paid.is_within(due.deadline_ms));
    let stood_in = |paid: &&Paid| matches!(paid.answer, Some((.., Rung::StandIn)));
    let on_primary = |paid: &&Paid| matches!(paid.answer, Some((.., Rung::Primary)));
    let on_primary = count(due.between(0, fault).filter(on_primary));
    let exposed = samples.iter().map(|sample| sample.exposed_minor);
    Figures {
        payments: total,
        requests: due
            .paid
            .iter()
            .fold(0, |sum, paid| sum.saturating_add(paid.requests)),
        rate_asked: load.rate,
        rate_held: per_second(steady, fault),
        unsent: load.unsent,
        prompt,
        prompt_percent: percent(prompt, total),
        late: answered.saturating_sub(count(in_time)),
        unanswered: total.saturating_sub(answered),
        steady_percent: percent(due.in_time(0, fault), steady),
        on_primary_percent: percent(on_primary, steady),
        wrong: Counts::of(&history, load.deadline_ms).wrong,
        p99_steady_ms: due.p99(0, fault),
        p99_fault_ms: due.p99(fault, healed),
        p99_after_ms: due.p99(healed, end),
        first_stand_in_ms: first_stand_in(&history, marks),
        p99_stand_in_ms: p99_ms(
            due.between(fault, healed).filter(stood_in),
            load.deadline_ms,
        ),
        longest_gap_ms: longest_gap_ms(&history, load.deadline_ms),
        backlog,
        drained_in_ms,
        p99_draining_ms: due.p99(healed, drained_at.min(end)),
        goodput_steady: due.goodput(0, fault),
        goodput_fault: due.goodput(fault, healed),
        goodput_after: due.goodput(back, end),
        mode_changes: mode_changes(samples, marks),
        fault_minutes: healed.saturating_sub(fault).div_ceil(60_000),
        rungs_in_fault: due.rungs(fault, healed),
        refusals_in_fault: refusals(&history, marks),
        exposed_minor: exposed.max().unwrap_or(0),
        worst_case_minor: samples.first().map_or(0, |sample| sample.worst_case_minor),
    }
}

/// Holds what was counted against what was expected. The promises' checks are their own verdicts; of
/// them L3 is made.
pub fn verdicts(
    figures: &Figures,
    limits: &Limits,
    injection: &Injection,
    checks: &[Check],
) -> Vec<Check> {
    let mut all = vec![injected(injection), steady(figures), restored(injection)];
    all.push(prompt(figures, limits));
    all.extend(limits.first_stand_in_ms.map(|most| {
        let seen = figures.first_stand_in_ms;
        let words = seen.map_or("no stand-in answer came".to_owned(), |ms| {
            format!("the first stand-in answer {ms} ms after the fault")
        });
        let p99 = figures.p99_stand_in_ms;
        check(
            "L2",
            seen.is_some_and(|ms| ms <= most),
            format!("{words}; {most} ms are allowed. Their p99: {p99:.1} ms"),
        )
    }));
    all.push(lossless(figures, checks));
    all.extend(limits.drain.map(|limits| drains(figures, limits)));
    all.extend(limits.goodput.map(|limits| goodput(figures, limits)));
    all.extend(limits.mode_changes_per_minute.map(|most| {
        let (changes, minutes) = (figures.mode_changes, figures.fault_minutes.max(1));
        check(
            "L6",
            changes <= most.saturating_mul(minutes),
            format!("at most {changes} mode changes at an edge in {minutes} begun minutes; {most} a minute are allowed"),
        )
    }));
    if !limits.rungs.is_empty() {
        all.push(rungs(figures, &limits.rungs));
    }
    all
}

fn injected(injection: &Injection) -> Check {
    let mut seen: Vec<&str> = injection.proofs.iter().map(|p| p.seen.as_str()).collect();
    if seen.is_empty() {
        seen.push("nothing shows that the fault happened");
    }
    check("injected", injection.is_proved(), seen.join("; "))
}

fn steady(figures: &Figures) -> Check {
    let Figures {
        steady_percent,
        on_primary_percent,
        rate_held,
        rate_asked,
        unsent,
        ..
    } = figures;
    let held = *rate_held >= f64_of(*rate_asked) * 0.95;
    check(
        "steady",
        *steady_percent >= STEADY_PERCENT
            && *on_primary_percent >= ON_PRIMARY_PERCENT
            && *unsent == 0
            && held,
        format!(
            "before the fault {rate_held:.0} of {rate_asked} payments/s, {steady_percent:.2} % answered in \
             time, {on_primary_percent:.1} % on primary, p99 {:.1} ms; {unsent} not sent",
            figures.p99_steady_ms
        ),
    )
}

fn restored(injection: &Injection) -> Check {
    let words = if injection.restored {
        "everything broken was put right"
    } else {
        "not everything broken was put right"
    };
    check("restored", injection.restored, words.to_owned())
}

fn prompt(figures: &Figures, limits: &Limits) -> Check {
    let Figures {
        prompt_percent,
        late,
        unanswered,
        payments,
        ..
    } = figures;
    let enough = limits
        .prompt_percent
        .is_none_or(|least| *prompt_percent >= least);
    let may = payments.saturating_mul(limits.unanswered_of_10_000) / 10_000;
    let wanted = limits
        .prompt_percent
        .map_or(String::new(), |least| format!(" ({least} % are expected)"));
    check(
        "L1",
        enough && *late == 0 && *unanswered <= may,
        format!(
            "{prompt_percent:.3} % of {payments} answered within {PROMPT_MS} ms{wanted}; {late} after the \
             deadline, {unanswered} without an answer ({may} may be)"
        ),
    )
}

/// What was received is there, once, and as it was told.
fn lossless(figures: &Figures, checks: &[Check]) -> Check {
    let promises = ["S1", "S2", "S3"];
    let found: Vec<&Check> = promises
        .iter()
        .filter_map(|id| checks.iter().find(|check| check.id == *id))
        .collect();
    let broken: Vec<&str> = found
        .iter()
        .filter(|check| !check.ok)
        .map(|check| check.id.as_str())
        .collect();
    let whole = found.len() == promises.len();
    let words = match (whole, broken.is_empty()) {
        (false, _) => "the promises were not judged".to_owned(),
        (true, true) => "nothing lost, nothing twice".to_owned(),
        (true, false) => format!("broken: {}", broken.join(", ")),
    };
    check(
        "L3",
        whole && broken.is_empty() && figures.wrong == 0,
        format!("{words}; {} wrong answers", figures.wrong),
    )
}

fn drains(figures: &Figures, limits: DrainLimits) -> Check {
    let DrainLimits {
        backlog_min,
        within_ms_per_20_000,
        p99_ratio,
    } = limits;
    let backlog = figures.backlog;
    let within = within_ms_per_20_000.saturating_mul(backlog.max(20_000)) / 20_000;
    let ratio = ratio(figures.p99_draining_ms, figures.p99_steady_ms);
    let in_time = figures.drained_in_ms.is_some_and(|ms| ms <= within);
    let took = figures
        .drained_in_ms
        .map_or("not drained".to_owned(), |ms| format!("drained in {ms} ms"));
    check(
        "L4",
        backlog >= backlog_min && in_time && ratio <= p99_ratio,
        format!(
            "a backlog of {backlog} answers ({backlog_min} are needed), {took} ({within} ms are allowed); p99 \
             meanwhile {:.1} ms, {ratio:.2} times that of before ({p99_ratio} are allowed)",
            figures.p99_draining_ms
        ),
    )
}

fn goodput(figures: &Figures, limits: GoodputLimits) -> Check {
    let base = figures.goodput_steady;
    let during = ratio(figures.goodput_fault, base) * 100.0;
    let after = ratio(figures.goodput_after, base) * 100.0;
    check(
        "L5",
        base > 0.0 && during >= limits.during && after >= limits.after,
        format!(
            "answered in time a second: {base:.0} before, {:.0} meanwhile ({during:.0} %, {} % are expected), \
             {:.0} from {} s after it on ({after:.0} %, {} % are expected)",
            figures.goodput_fault,
            limits.during,
            figures.goodput_after,
            BACK_WITHIN_MS / 1_000,
            limits.after
        ),
    )
}

fn refusals(history: &[Attempt], marks: &Marks) -> BTreeMap<String, u64> {
    let at = |ms: u64| marks.epoch.saturating_add_unsigned(ms);
    let fault = at(marks.fault_ms)..at(marks.healed_ms);
    let mut refusals = BTreeMap::new();
    for attempt in history
        .iter()
        .filter(|attempt| fault.contains(&attempt.intended_at))
    {
        let word = match &attempt.outcome {
            Outcome::Answered { .. } => continue,
            Outcome::NoReply => "no reply".to_owned(),
            Outcome::Refused { status, cause, .. } => match cause {
                Some(cause) => format!("{status} {cause}"),
                None => status.to_string(),
            },
        };
        let count: &mut u64 = refusals.entry(word).or_default();
        *count = count.saturating_add(1);
    }
    refusals
}

fn rungs(figures: &Figures, wanted: &[Rung]) -> Check {
    let seen = &figures.rungs_in_fault;
    let missing: Vec<&str> = wanted
        .iter()
        .map(|rung| rung.as_str())
        .filter(|rung| !seen.contains_key(*rung))
        .collect();
    let counts: Vec<String> = seen.iter().map(|(rung, n)| format!("{n} {rung}")).collect();
    let words = if missing.is_empty() {
        String::new()
    } else {
        format!("; never on {}", missing.join(", "))
    };
    let refusals: Vec<String> = figures
        .refusals_in_fault
        .iter()
        .map(|(why, n)| format!("{n} {why}"))
        .collect();
    let refused = if refusals.is_empty() {
        String::new()
    } else {
        format!("; requests without an answer: {}", refusals.join(", "))
    };
    check(
        "rungs",
        missing.is_empty(),
        format!("in the fault: {}{words}{refused}", counts.join(", ")),
    )
}

fn check(id: &str, ok: bool, detail: String) -> Check {
    Check {
        id: id.to_owned(),
        ok,
        detail,
    }
}

fn payments(history: &[Attempt]) -> Vec<Paid> {
    let mut paid: HashMap<&str, Paid> = HashMap::new();
    for attempt in history {
        let of_it = paid.entry(&attempt.payment).or_insert(Paid {
            due: attempt.intended_at,
            requests: 0,
            answer: None,
        });
        of_it.requests = of_it.requests.saturating_add(1);
        of_it.due = of_it.due.min(attempt.intended_at);
        let Some(said) = said(attempt) else { continue };
        let answer = (attempt.latency_us, attempt.answered_at, said.rung);
        let is_first = of_it.answer.is_none_or(|(first, ..)| answer.0 < first);
        if is_first {
            of_it.answer = Some(answer);
        }
    }
    paid.into_values().collect()
}

fn first_stand_in(history: &[Attempt], marks: &Marks) -> Option<u64> {
    let fault = marks.epoch.saturating_add_unsigned(marks.fault_ms);
    let after = history.iter().filter(|attempt| {
        attempt.answered_at >= fault && matches!(attempt.outcome, Outcome::Answered { .. })
    });
    let stood_in =
        after.filter(|attempt| said(attempt).is_some_and(|said| said.rung == Rung::StandIn));
    let first = stood_in.map(|attempt| attempt.answered_at).min()?;
    u64::try_from(first.saturating_sub(fault)).ok()
}

/// The backlog when the fault was taken back, and how long it took until what the log held then was in
/// the ledger.
fn drained(samples: &[Sample], marks: &Marks) -> (u64, Option<u64>) {
    let healed = marks.epoch.saturating_add_unsigned(marks.healed_ms);
    let before = samples.iter().rev().find(|sample| sample.at <= healed);
    let Some(before) = before else {
        return (0, None);
    };
    let behind = samples.iter().filter(|sample| sample.at <= healed);
    let held = behind.map(|sample| sample.applied).max().unwrap_or(0);
    let mut after = samples.iter().filter(|sample| sample.at >= healed);
    let there = after.find(|sample| sample.drained >= held);
    let took = there.and_then(|sample| u64::try_from(sample.at.saturating_sub(healed)).ok());
    (before.backlog, took)
}

/// Of each edge the changes between the last look before the fault and the last before its end; an edge
/// that started again meanwhile counts from nothing.
fn mode_changes(samples: &[Sample], marks: &Marks) -> u64 {
    let at = |ms: u64| marks.epoch.saturating_add_unsigned(ms);
    let (fault, healed) = (at(marks.fault_ms), at(marks.healed_ms));
    let mut changes: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.at <= healed) {
        let now = sample.mode_changes;
        let (last, sum) = changes.entry(sample.edge).or_insert((now, 0));
        let more = if now >= *last {
            now.saturating_sub(*last)
        } else {
            now
        };
        if sample.at > fault {
            *sum = sum.saturating_add(more);
        }
        *last = now;
    }
    changes.values().map(|(_, sum)| *sum).max().unwrap_or(0)
}

fn p99_ms<'a>(paid: impl Iterator<Item = &'a Paid>, deadline_ms: u64) -> f64 {
    let never = deadline_ms.saturating_mul(1_000);
    let mut latencies: Vec<u64> = paid
        .map(|paid| paid.answer.map_or(never, |(latency, ..)| latency))
        .collect();
    latencies.sort_unstable();
    percentile_ms(&latencies, 99)
}

fn count<'a>(paid: impl Iterator<Item = &'a Paid>) -> u64 {
    u64::try_from(paid.count()).unwrap_or(u64::MAX)
}

const fn midway(from: u64, until: u64) -> u64 {
    from.saturating_add(until.saturating_sub(from) / 2)
}

fn per_second(count: u64, ms: u64) -> f64 {
    ratio(f64_of(count) * 1_000.0, f64_of(ms))
}

fn percent(part: u64, whole: u64) -> f64 {
    ratio(f64_of(part) * 100.0, f64_of(whole))
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Exact up to 2^32, which no count here passes.
fn f64_of(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
