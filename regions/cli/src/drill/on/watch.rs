//! Looks at every edge of a deployment while a drill is played on it, counts what they counted, part by
//! part, and says when it has to end before its time.
//!
//! [`Watch::look`] asks, [`Watch::hear`] counts.

#![allow(
    clippy::float_arithmetic,
    reason = "times are shown in milliseconds with decimals"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_reconcile::report::Tick;
use standin_reconcile::report::drill::PROMPT_MS;
use standin_reconcile::report::drill::deployed::{Between, Part};
use tokio::time::Instant;

use super::super::watch::merged;
use super::deployment::{Abort, EdgeName};
use super::desk::{Desk, Seen};
use crate::backlog::Backlog;
use crate::console::exposition::{Counters, Quantile, RUNGS};

/// The window in which shares are looked at for ending a drill.
const WINDOW: Duration = Duration::from_secs(5);
/// Fewer requests in it say nothing.
const WINDOW_REQUESTS_MIN: u64 = 20;
/// An edge may be silent for so long.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Steps of the timeline, milliseconds, and how many are kept: more than the longest drill has.
const TICK_MS: u64 = 1_000;
const TICKS_MAX: usize = 7_200;
/// What a fault that is played may raise; anything else ends the drill.
const EXPECTED_ALARMS: [&str; 4] = [
    "fault_played",
    "primary_away",
    "trip_cache_stale",
    "drain_stalled",
];

/// Where a drill is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    Before,
    Fault,
    After,
}

/// Whom a watch is about, and what it is to look for.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// The edges, in the order of their desks.
    pub(super) names: Vec<EdgeName>,
    /// Those of them that a fault is played on.
    pub(super) played: BTreeSet<usize>,
    pub(super) deadline_ms: u64,
    pub(super) abort: Abort,
}

/// What was seen so far.
pub(super) struct Watch {
    about: About,
    began: Instant,
    phase: Phase,
    edges: Vec<Edge>,
    /// By phase: all edges, and those that the fault is played on.
    sums: BTreeMap<Phase, [Sum; 2]>,
    /// The last seconds: when, requests, without an answer, late.
    recent: VecDeque<(Instant, [u64; 3])>,
    ticks: Vec<Step>,
    backlogs: BTreeMap<String, Backlog>,
    /// When the last look began and ended.
    looked: Instant,
    heard: Instant,
    fault: Option<Fault>,
    healed: Option<Healed>,
    pub(super) first_stand_in: Option<Between>,
    pub(super) settled_in_ms: Option<u64>,
    pub(super) drained_in_ms: Option<u64>,
    pub(super) backlog_at_heal: u64,
    pub(super) exposed_minor: i64,
    pub(super) worst_case_minor: i64,
    pub(super) currency: Option<String>,
}

/// One edge.
#[derive(Default)]
struct Edge {
    last: Option<Seen>,
    /// Since when it does not answer, and what it said last.
    silent: Option<(Instant, String)>,
    /// Times its breaker opened or closed, before the fault.
    changes_before: u64,
}

/// Counted in a part.
#[derive(Default)]
struct Sum {
    ms: u64,
    counters: Counters,
    unanswered: u64,
}

/// One step of the timeline.
#[derive(Default)]
struct Step {
    counters: Counters,
    unanswered: u64,
    backlog: u64,
    exposed_minor: i64,
}

/// When a fault was ordered, and when every edge had said that it plays it.
#[derive(Clone, Copy)]
struct Fault {
    ordered: Instant,
    begun: Instant,
}

struct Healed {
    at: Instant,
    /// How far each region's log went then.
    held: BTreeMap<String, u64>,
    /// How often each edge's breaker had opened or closed by then.
    changes: Vec<u64>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(about: About, now: Instant) -> Self {
        let edges = about.names.iter().map(|_| Edge::default()).collect();
        Self {
            about,
            began: now,
            phase: Phase::Before,
            edges,
            sums: BTreeMap::new(),
            recent: VecDeque::new(),
            ticks: Vec::new(),
            backlogs: BTreeMap::new(),
            looked: now,
            heard: now,
            fault: None,
            healed: None,
            first_stand_in: None,
            settled_in_ms: None,
            drained_in_ms: None,
            backlog_at_heal: 0,
            exposed_minor: 0,
            worst_case_minor: 0,
            currency: None,
        }
    }

    /// Looks at every edge once.
    pub(super) async fn look(&mut self, desks: &[Desk]) {
        let sent = Instant::now();
        let looks = join_all(desks.iter().map(Desk::look)).await;
        self.hear(looks, sent, Instant::now());
    }

    /// Counts what edges said between two moments.
    fn hear(&mut self, looks: Vec<anyhow::Result<Seen>>, sent: Instant, now: Instant) {
        let since = millis(now.saturating_duration_since(self.heard));
        let mut requests = [0; 3];
        for (at, look) in looks.into_iter().enumerate() {
            let counted = self.edges.get_mut(at).and_then(|edge| edge.hear(look, now));
            if let Some((counters, unanswered)) = counted {
                let late = late(&counters, self.about.deadline_ms);
                let answered = counters.answered().count;
                let more = [answered.saturating_add(unanswered), unanswered, late];
                requests = add(requests, more);
                self.count(at, &counters, unanswered, now);
            }
        }
        for sum in self.sums.entry(self.phase).or_default() {
            sum.ms = sum.ms.saturating_add(since);
        }
        self.recent.push_back((now, requests));
        while let Some((at, _)) = self.recent.front()
            && now.saturating_duration_since(*at) > WINDOW
        {
            self.recent.pop_front();
        }
        self.see_stand_in(now);
        self.see_pages(now);
        (self.looked, self.heard) = (sent, now);
    }

    fn count(&mut self, at: usize, counters: &Counters, unanswered: u64, now: Instant) {
        let is_played = self.about.played.contains(&at);
        let [all, played] = self.sums.entry(self.phase).or_default();
        for sum in std::iter::once(all).chain(is_played.then_some(played)) {
            sum.counters.add(counters);
            sum.unanswered = sum.unanswered.saturating_add(unanswered);
        }
        if let Some(step) = self.step(now) {
            step.counters.add(counters);
            step.unanswered = step.unanswered.saturating_add(unanswered);
        }
    }

    fn step(&mut self, now: Instant) -> Option<&mut Step> {
        let ms = millis(now.saturating_duration_since(self.began));
        let at = usize::try_from(ms.div_euclid(TICK_MS)).ok()?;
        if at >= TICKS_MAX {
            return None;
        }
        while self.ticks.len() <= at {
            // A step in which nobody looked is as the one before it.
            let (backlog, exposed_minor) = self
                .ticks
                .last()
                .map_or((0, 0), |last| (last.backlog, last.exposed_minor));
            self.ticks.push(Step {
                backlog,
                exposed_minor,
                ..Step::default()
            });
        }
        self.ticks.get_mut(at)
    }

    fn see_stand_in(&mut self, now: Instant) {
        let Some(fault) = self.fault.filter(|_| self.first_stand_in.is_none()) else {
            return;
        };
        let stood_in = self.sums.get(&Phase::Fault).and_then(|[_, played]| {
            let stood_in = played.counters.of("stand_in")?;
            (stood_in.count > 0).then_some(())
        });
        if stood_in.is_some() {
            self.first_stand_in = Some(Between {
                after_ms: millis(self.looked.saturating_duration_since(fault.begun)),
                by_ms: millis(now.saturating_duration_since(fault.ordered)),
            });
        }
    }

    /// Backlog, exposure, and whether all is as before.
    fn see_pages(&mut self, now: Instant) {
        let mut regions: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for (name, edge) in self.about.names.iter().zip(&self.edges) {
            let page = edge.last.as_ref().map(|seen| &seen.page);
            regions.entry(name.region.clone()).or_default().extend(page);
        }
        let (mut backlog, mut exposed, mut drained) = (0_u64, 0_i64, true);
        for (region, pages) in regions {
            let all = merged(pages.iter().copied());
            let looks = self.backlogs.entry(region.clone()).or_default();
            backlog = backlog.saturating_add(looks.look(&all, SystemClock.now()));
            let cursor = all.pointer("/drain/cursor").and_then(Value::as_u64);
            let held = self
                .healed
                .as_ref()
                .and_then(|healed| healed.held.get(&region));
            drained &= held.is_none_or(|held| cursor.is_some_and(|cursor| cursor >= *held));
            let minor = |page: &&Value, of| page.pointer(of).and_then(Value::as_i64).unwrap_or(0);
            let most = |of| pages.iter().map(|page| minor(page, of)).max().unwrap_or(0);
            exposed = exposed.saturating_add(most("/exposure/approved_without_primary_minor"));
            if self.phase == Phase::Before {
                let worst = most("/exposure/worst_case_minor");
                self.worst_case_minor = self.worst_case_minor.max(worst);
            }
            let currency = pages
                .iter()
                .find_map(|page| page.pointer("/exposure/currency")?.as_str());
            if self.currency.is_none() {
                self.currency = currency.map(str::to_owned);
            }
        }
        self.exposed_minor = self.exposed_minor.max(exposed);
        if let Some(step) = self.step(now) {
            (step.backlog, step.exposed_minor) = (backlog, exposed);
        }
        self.see_settled(backlog, drained, now);
    }

    fn see_settled(&mut self, backlog: u64, drained: bool, now: Instant) {
        let Some(healed) = &self.healed else {
            self.backlog_at_heal = backlog;
            return;
        };
        let since = millis(now.saturating_duration_since(healed.at));
        if drained {
            self.drained_in_ms.get_or_insert(since);
        }
        if drained && self.troubles().is_empty() {
            self.settled_in_ms.get_or_insert(since);
        }
    }

    /// From here on a fault is played, on the word of every edge that was asked to.
    pub(super) fn fault_began(&mut self, ordered: Instant, begun: Instant) {
        self.phase = Phase::Fault;
        self.fault = Some(Fault { ordered, begun });
        for edge in &mut self.edges {
            edge.changes_before = edge.changes();
        }
        self.recent.clear();
    }

    /// From here on none is.
    pub(super) fn fault_ended(&mut self, now: Instant) {
        self.phase = Phase::After;
        let mut held: BTreeMap<String, u64> = BTreeMap::new();
        for (name, edge) in self.about.names.iter().zip(&self.edges) {
            let applied = edge
                .last
                .as_ref()
                .map(|seen| seen.number("/wal/applied_index"));
            let most = held.entry(name.region.clone()).or_default();
            *most = applied.unwrap_or(0).max(*most);
        }
        self.healed = Some(Healed {
            at: now,
            held,
            changes: self.edges.iter().map(Edge::changes).collect(),
        });
    }

    /// What speaks against all being well, at every edge.
    pub(super) fn troubles(&self) -> Vec<String> {
        let edges = self.about.names.iter().zip(&self.edges);
        let told = edges.flat_map(|(name, edge)| {
            let troubles = match (&edge.silent, &edge.last) {
                (Some((_, why)), _) => vec![format!("does not answer: {why}")],
                (None, Some(seen)) => seen.troubles(),
                (None, None) => vec!["was not looked at".to_owned()],
            };
            troubles
                .into_iter()
                .map(move |trouble| format!("{name} {trouble}"))
        });
        told.collect()
    }

    /// Why the drill has to end now, if it has to.
    pub(super) fn cause_to_abort(&self, now: Instant) -> Option<String> {
        let sum = |sum, (_, more): &(Instant, [u64; 3])| add(sum, *more);
        let [requests, unanswered, late] = self.recent.iter().fold([0; 3], sum);
        let Abort {
            unanswered_of_10_000,
            late_of_10_000,
        } = self.about.abort;
        let past = |count: u64, may: u64| {
            requests >= WINDOW_REQUESTS_MIN
                && count.saturating_mul(10_000) > requests.saturating_mul(may)
        };
        let seconds = WINDOW.as_secs();
        if past(unanswered, unanswered_of_10_000) {
            return Some(format!(
                "{unanswered} of {requests} requests of the last {seconds} s got no answer"
            ));
        }
        if past(late, late_of_10_000) {
            return Some(format!(
                "{late} of {requests} requests of the last {seconds} s were answered late"
            ));
        }
        let edges = self.about.names.iter().zip(&self.edges);
        edges.into_iter().find_map(|(name, edge)| {
            let trouble = edge.unexpected(now)?;
            Some(format!("{name} {trouble}"))
        })
    }

    /// What was counted in a phase: by all edges, or by those that the fault is played on.
    pub(super) fn part(&self, phase: Phase, of_played: bool) -> Part {
        let nothing = Sum::default();
        let sums = self.sums.get(&phase);
        let sum = sums.map_or(
            &nothing,
            |[all, played]| if of_played { played } else { all },
        );
        let answered = sum.counters.answered();
        let rungs = RUNGS.iter().filter(|rung| **rung != "refused");
        Part {
            ms: sum.ms,
            answered: answered.count,
            unanswered: sum.unanswered,
            prompt: within(&sum.counters, PROMPT_MS),
            late: late(&sum.counters, self.about.deadline_ms),
            rungs: rungs
                .filter_map(|rung| Some(((*rung).to_owned(), sum.counters.of(rung)?.count)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            p99_ms: answered.quantile(99).map(in_ms),
        }
    }

    /// How often the breaker of an edge that was played on opened or closed in the fault; the one with most.
    pub(super) fn mode_changes(&self) -> u64 {
        let Some(healed) = &self.healed else { return 0 };
        let edges = self.edges.iter().zip(&healed.changes).enumerate();
        let played = edges.filter(|(at, _)| self.about.played.contains(at));
        let changes = played.map(|(_, (edge, then))| then.saturating_sub(edge.changes_before));
        changes.max().unwrap_or(0)
    }

    /// Milliseconds since the watch began.
    pub(super) fn since(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.began))
    }

    /// The timeline, and the exposure along it.
    pub(super) fn timeline(&self) -> (Vec<Tick>, Vec<i64>) {
        let ticks = (0_u64..).zip(&self.ticks).map(|(at, step)| {
            let mut replies = BTreeMap::new();
            let mut p99_ms = BTreeMap::new();
            for rung in RUNGS {
                let Some(counted) = step.counters.of(rung) else {
                    continue;
                };
                let count = if rung == "refused" {
                    step.unanswered
                } else {
                    counted.count
                };
                if count > 0 {
                    replies.insert(rung.to_owned(), count);
                }
                if let Some(quantile) = counted.quantile(99) {
                    p99_ms.insert(rung.to_owned(), in_ms(quantile));
                }
            }
            Tick {
                at_ms: at.saturating_mul(TICK_MS),
                replies,
                p99_ms,
                backlog: step.backlog,
            }
        });
        let exposed = self.ticks.iter().map(|step| step.exposed_minor);
        (ticks.collect(), exposed.collect())
    }
}

// === impl Edge ===

impl Edge {
    /// Gives what it counted since it was heard last. What it had counted before it was heard first says
    /// nothing.
    fn hear(&mut self, look: anyhow::Result<Seen>, now: Instant) -> Option<(Counters, u64)> {
        let seen = match look {
            Ok(seen) => seen,
            Err(error) => {
                let since = self.silent.take().map_or(now, |(since, _)| since);
                self.silent = Some((since, format!("{error:#}")));
                return None;
            }
        };
        self.silent = None;
        let counted = self.last.as_ref().map(|last| {
            let unanswered = match seen.unanswered.checked_sub(last.unanswered) {
                Some(more) => more,
                // It began anew.
                None => seen.unanswered,
            };
            (seen.counters.since(&last.counters), unanswered)
        });
        self.last = Some(seen);
        counted
    }

    fn changes(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(0, |seen| seen.number("/breaker/changes"))
    }

    /// What no fault that is played explains.
    fn unexpected(&self, now: Instant) -> Option<String> {
        if let Some((since, why)) = &self.silent
            && now.saturating_duration_since(*since) >= SILENT_MAX
        {
            return Some(format!("does not answer: {why}"));
        }
        let seen = self.last.as_ref()?;
        if !seen.ready.ok {
            let why = seen.ready.why.as_deref().unwrap_or("it does not say why");
            return Some(format!("is not ready: {why}"));
        }
        let alarms = seen.alarms();
        let other = alarms.iter().find(|alarm| !EXPECTED_ALARMS.contains(alarm));
        other.map(|alarm| format!("raises {alarm}, which no fault that is played does"))
    }
}

fn add(sum: [u64; 3], more: [u64; 3]) -> [u64; 3] {
    let [a, b, c] = sum;
    let [x, y, z] = more;
    [
        a.saturating_add(x),
        b.saturating_add(y),
        c.saturating_add(z),
    ]
}

/// Answers within so many milliseconds: a bound of the edges' histograms.
fn within(counters: &Counters, ms: u64) -> u64 {
    let answered = counters.answered();
    let bound = ms.saturating_mul(1_000);
    answered.within_us.get(&bound).copied().unwrap_or(0)
}

/// Answers that took longer. Where a histogram does not have this bound, as another build's may not, all of
/// them count, rather than none.
fn late(counters: &Counters, deadline_ms: u64) -> u64 {
    let answered = counters.answered();
    let bound = deadline_ms.saturating_mul(1_000);
    let all = answered.within_us.values().copied().max().unwrap_or(0);
    answered
        .within_us
        .get(&bound)
        .map_or(all, |within| all.saturating_sub(*within))
}

fn in_ms(quantile: Quantile) -> f64 {
    Duration::from_micros(quantile.micros()).as_secs_f64() * 1_000.0
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
