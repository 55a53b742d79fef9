//! What a drill on a deployment came to: judged by what its edges counted of the traffic that was there.
//!
//! There is no bank of its own and no end of the load, so that what a bank saw, the logs and the ledger are
//! not looked at: the promises S1 to S19 are not judged here, and a report says so ([`NOT_JUDGED`]). What
//! an edge counts begins with the head of a request and ends with its answer; a request without an answer
//! may have had one at another edge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Injection, Limits, ON_PRIMARY_PERCENT, PROMPT_MS, STEADY_PERCENT, check, injected, percent,
};
use crate::checker::Check;
use crate::report::{Shade, Tick};

/// What only a drill on one machine can judge.
pub const NOT_JUDGED: &str = "Not judged here: the promises S1 to S19, of which L3 is made, and wrong answers. They need \
     every bank's history, every log and the ledger of a world that stands still: `standin drill run` judges them on one \
     machine, reconciliation judges what a ledger and its logs hold.";
/// Fewer payments than this are due within a limit, and it cannot be told whether it was kept.
const TELLING: u64 = 5;

/// One drill on a deployment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeployedReport {
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
    /// The deployment's name.
    pub deployment: String,
    /// How it was asked for.
    pub options: BTreeMap<String, String>,
    /// What was done to it.
    pub injection: Injection,
    /// Why it was ended before its time, if it was.
    pub aborted: Option<String>,
    /// What was counted.
    pub figures: Counted,
    /// One for each expectation: `injected`, `steady`, `restored`, `L1`, …
    pub verdicts: Vec<Check>,
    /// Step by step, over all edges.
    pub timeline: Vec<Tick>,
    /// Money approved without the primary, minor units, at the end of each step of the timeline.
    pub exposure: Vec<i64>,
    /// What that money is in.
    pub currency: String,
    /// When the fault was played.
    pub shades: Vec<Shade>,
    /// What else is worth a line.
    pub notes: Vec<String>,
}

/// What edges counted in one part of a drill.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// How long it was, milliseconds.
    pub ms: u64,
    /// Answers given for the first time.
    pub answered: u64,
    /// Requests that got none for a reason of ours.
    pub unanswered: u64,
    /// Answers within [`PROMPT_MS`].
    pub prompt: u64,
    /// Answers past the deadline.
    pub late: u64,
    /// Answers by rung.
    pub rungs: BTreeMap<String, u64>,
    /// 99th percentile, milliseconds, from the edges' histograms; `None` of nothing.
    pub p99_ms: Option<f64>,
}

/// A moment that lies between two looks, milliseconds after the fault was ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Between {
    /// It was not so yet, as late as this.
    pub after_ms: u64,
    /// It was so by then.
    pub by_ms: u64,
}

/// What was counted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// By all edges, before the fault.
    pub before: Part,
    /// While it was played.
    pub fault: Part,
    /// Afterwards.
    pub after: Part,
    /// Before it, by the edges that it was played on.
    pub played_before: Part,
    /// While it was played, by these.
    pub played: Part,
    /// When the first stand-in answer at one of these was counted.
    pub first_stand_in: Option<Between>,
    /// How often the breaker of one of these opened or closed in the fault; the edge with most.
    pub mode_changes: u64,
    /// Minutes that the fault lasted, begun ones included.
    pub fault_minutes: u64,
    /// Answers in the logs that were not in the ledger when the fault was ended.
    pub backlog: u64,
    /// How long until they were.
    pub drained_in_ms: Option<u64>,
    /// How long until every edge was as before: ready, breaker closed, no alarm.
    pub settled_in_ms: Option<u64>,
    /// How long was waited for that.
    pub settle_ms: u64,
    /// The most money approved without the primary, minor units.
    pub exposed_minor: i64,
    /// What was known in advance to be the most that could be.
    pub worst_case_minor: i64,
}

// === impl DeployedReport ===

impl DeployedReport {
    /// Whether every expectation was kept, and there were some.
    pub fn passed(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.iter().all(|check| check.ok)
    }

    /// What was not as expected.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.verdicts.iter().filter(|check| !check.ok)
    }
}

// === impl Part ===

impl Part {
    /// Requests that were answered, or got no answer for a reason of ours.
    pub const fn requests(&self) -> u64 {
        self.answered.saturating_add(self.unanswered)
    }

    /// Answers in time, of a hundred requests.
    fn in_time_percent(&self) -> f64 {
        percent(self.answered.saturating_sub(self.late), self.requests())
    }

    fn rung(&self, rung: &str) -> u64 {
        self.rungs.get(rung).copied().unwrap_or(0)
    }

    /// How many requests come in so long, at the pace of this part.
    fn due_in(&self, ms: u64) -> u64 {
        let due = self.requests().saturating_mul(ms);
        due.checked_div(self.ms).unwrap_or(0)
    }
}

/// Holds what was counted against what was expected. `may_be_late`: of ten thousand answers.
pub fn verdicts(
    counted: &Counted,
    limits: &Limits,
    may_be_late: u64,
    injection: &Injection,
    aborted: Option<&str>,
) -> Vec<Check> {
    let mut all = vec![injected(injection), steady(&counted.before)];
    all.push(restored(injection));
    all.push(answered(counted, limits, may_be_late));
    all.extend(
        limits
            .first_stand_in_ms
            .map(|most| stands_in(counted, most)),
    );
    all.push(drains(counted, limits));
    all.push(settles(counted));
    all.extend(limits.mode_changes_per_minute.map(|most| {
        let (changes, minutes) = (counted.mode_changes, counted.fault_minutes.max(1));
        check(
            "L6",
            changes <= most.saturating_mul(minutes),
            format!("at most {changes} mode changes at an edge in {minutes} begun minutes; {most} a minute are allowed"),
        )
    }));
    if !limits.rungs.is_empty() {
        all.push(on_rungs(counted, limits));
    }
    all.extend(aborted.map(|why| check("whole", false, format!("ended before its time: {why}"))));
    all
}

fn steady(before: &Part) -> Check {
    let in_time = before.in_time_percent();
    let on_primary = percent(before.rung("primary"), before.answered);
    check(
        "steady",
        in_time >= STEADY_PERCENT && on_primary >= ON_PRIMARY_PERCENT,
        format!(
            "before the fault every edge was ready, asked the primary and raised no alarm; of {} requests \
             {in_time:.2} % were answered in time, {on_primary:.1} % of the answers on primary",
            before.requests()
        ),
    )
}

fn restored(injection: &Injection) -> Check {
    let words = if injection.restored {
        "no edge plays a fault any more; each said so"
    } else {
        "not every edge said that it plays no fault any more"
    };
    check("restored", injection.restored, words.to_owned())
}

fn answered(counted: &Counted, limits: &Limits, may_be_late: u64) -> Check {
    let parts = [&counted.before, &counted.fault, &counted.after];
    let sum = |of: fn(&Part) -> u64| {
        parts
            .iter()
            .fold(0_u64, |sum, part| sum.saturating_add(of(part)))
    };
    let (requests, prompt) = (sum(Part::requests), sum(|part| part.prompt));
    let (late, unanswered) = (sum(|part| part.late), sum(|part| part.unanswered));
    let of_10_000 = |may: u64| requests.saturating_mul(may).div_euclid(10_000);
    let (late_max, unanswered_max) = (
        of_10_000(may_be_late),
        of_10_000(limits.unanswered_of_10_000),
    );
    let prompt_percent = percent(prompt, requests);
    let enough = limits
        .prompt_percent
        .is_none_or(|least| prompt_percent >= least);
    let wanted = limits
        .prompt_percent
        .map_or(String::new(), |least| format!(" ({least} % are expected)"));
    check(
        "L1",
        requests > 0 && enough && late <= late_max && unanswered <= unanswered_max,
        format!(
            "{prompt_percent:.3} % of {requests} answered within {PROMPT_MS} ms{wanted}; {late} after the deadline \
             ({late_max} may be), {unanswered} without an answer ({unanswered_max} may be), as the edges count"
        ),
    )
}

/// Broken only where looks show that it was: an edge counts answers, not when each was given.
fn stands_in(counted: &Counted, most: u64) -> Check {
    let due = counted.played_before.due_in(most);
    if due < TELLING {
        let words = format!(
            "cannot be told: some {due} payments come in {most} ms at the edges that the fault was played on"
        );
        return check("L2", true, words);
    }
    let Some(Between { after_ms, by_ms }) = counted.first_stand_in else {
        return check("L2", false, "no stand-in answer came".to_owned());
    };
    check(
        "L2",
        after_ms <= most,
        format!(
            "the first stand-in answer between {after_ms} and {by_ms} ms after the fault was ordered; {most} ms are allowed"
        ),
    )
}

fn drains(counted: &Counted, limits: &Limits) -> Check {
    let backlog = counted.backlog;
    let within = limits.drain.map(|limits| {
        let of_20_000 = limits
            .within_ms_per_20_000
            .saturating_mul(backlog.max(20_000));
        of_20_000.div_euclid(20_000)
    });
    let within = within.unwrap_or(counted.settle_ms);
    let took = counted
        .drained_in_ms
        .map_or("not drained".to_owned(), |ms| format!("drained in {ms} ms"));
    check(
        "L4",
        counted.drained_in_ms.is_some_and(|ms| ms <= within),
        format!("a backlog of {backlog} answers, {took} ({within} ms are allowed)"),
    )
}

fn settles(counted: &Counted) -> Check {
    let settle = counted.settle_ms;
    let words = counted.settled_in_ms.map_or_else(
        || format!("not every edge was as before {settle} ms after the fault"),
        |ms| format!("every edge ready, its breaker closed, no alarm, {ms} ms after the fault ({settle} ms are allowed)"),
    );
    check("settled", counted.settled_in_ms.is_some(), words)
}

fn on_rungs(counted: &Counted, limits: &Limits) -> Check {
    let seen = &counted.played.rungs;
    let missing: Vec<&str> = limits
        .rungs
        .iter()
        .map(|rung| rung.as_str())
        .filter(|rung| counted.played.rung(rung) == 0)
        .collect();
    let counts: Vec<String> = seen.iter().map(|(rung, n)| format!("{n} {rung}")).collect();
    let words = if missing.is_empty() {
        String::new()
    } else {
        format!("; never on {}", missing.join(", "))
    };
    check(
        "rungs",
        missing.is_empty(),
        format!(
            "in the fault, where it was played: {}{words}",
            counts.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests;
