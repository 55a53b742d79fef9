//! What the console shows: a pure function of what was last seen, and the present.

#![allow(
    clippy::float_arithmetic,
    reason = "rates and durations as they are shown; money stays in minor units"
)]

mod verdict;

use std::collections::BTreeMap;

use serde::Serialize;
use standin_core::clock::Timestamp;
use standin_core::money::Currency;
use standin_reconcile::report::{Shade, Tick};
use standin_reconcile::totals::Sums;

use super::edge_page::{Alarm, EdgePage};
use super::exposition::{Counted, Counters, Quantile, RUNGS};
use super::history::{STEP_MS, STEPS_MAX, per_second_e3};
use super::reports::Reports;
use super::watch::{Looked, Seen};

pub(crate) use verdict::clock;
pub use verdict::{Level, Verdict};

/// Where an edge stands that has never told its region.
pub const NOWHERE: &str = "not heard from yet";

/// Everything on the page, and in `/state.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct State {
    /// When, RFC 3339.
    pub at: String,
    /// How it is, in a sentence.
    pub verdict: Verdict,
    /// Outages of the primary, by region, in words; none when empty.
    pub outages: Vec<String>,
    /// Answers of all edges together, lately.
    pub traffic: Traffic,
    /// The regions and their edges.
    pub regions: Vec<Region>,
    /// Money at risk, over all regions.
    pub exposure: Exposure,
    /// Committed entries that the ledger does not have, over all regions.
    pub backlog: u64,
    /// The oldest trip cache of an edge that is heard.
    pub trip_age_ms: Option<u64>,
    /// What lies in the folder of reports; absent when none was named.
    pub reports: Option<Reports>,
    /// The last ten minutes of all edges together.
    #[serde(skip)]
    pub timeline: Vec<Tick>,
    /// Parts of it in which not every edge was heard.
    #[serde(skip)]
    pub gaps: Vec<Shade>,
}

/// Answers lately.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Traffic {
    /// On every rung but `refused`.
    pub answered: Rate,
    /// By rung, those that there were any of.
    pub by_rung: Vec<RungRate>,
}

/// Answers of one rung.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct RungRate {
    /// Which.
    pub rung: &'static str,
    /// How many, and how long they took.
    #[serde(flatten)]
    pub rate: Rate,
}

/// How many, and how long they took.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Rate {
    /// A second.
    pub per_second: f64,
    /// The duration that 99 of a hundred did not exceed, estimated from buckets, milliseconds.
    pub p99_ms: Option<f64>,
    /// It may be more: it lies past the last bucket's bound.
    pub p99_is_over: bool,
}

/// A region.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its edges.
    pub edges: Vec<Edge>,
    /// Money at risk.
    pub exposure: Exposure,
}

/// Money at risk, minor units by currency.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Exposure {
    /// Approved beyond what a healthy ledger would have allowed.
    pub now: Sums,
    /// The most that one outage can come to.
    pub worst: Sums,
    /// Of that: the banks' limits while standing in.
    pub stand_in: Sums,
    /// Of that: for trips that are too old.
    pub old_trips: Sums,
    /// Of that: granted to edges for when they are cut off.
    pub reserves: Sums,
    /// Edges or regions that cannot be asked for it now: it was so when they were last heard, or is not
    /// known at all.
    pub not_current: Vec<String>,
}

/// An edge.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Edge {
    /// What people call it.
    pub name: String,
    /// Its admin listener.
    pub admin: String,
    /// It gave its pages when it was last asked; if not, what is below is what it said last.
    pub heard: bool,
    /// When it last gave them, RFC 3339.
    pub heard_at: Option<String>,
    /// Why it does not.
    pub silent: Option<String>,
    /// Why banks should not be sent there.
    pub unready: Option<String>,
    /// The rung that its next request is likely answered on.
    pub rung: String,
    /// Who decides about standing in: `auto`, `force`, `forbid`.
    pub mode: String,
    /// `closed`, `open`, `ramp`.
    pub breaker: String,
    /// On what share of requests the primary is asked.
    pub admits_percent: u64,
    /// Why the breaker is open.
    pub why: Option<String>,
    /// Answers lately.
    pub traffic: Traffic,
    /// The log.
    pub wal: Wal,
    /// Committed entries that the ledger does not have.
    pub backlog: u64,
    /// Answers given without the log that it does not have yet.
    pub advices_waiting: u64,
    /// How old the trip cache is.
    pub trip_age_ms: Option<u64>,
    /// What somebody should know of.
    pub alarms: Vec<Alarm>,
}

/// The log at an edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Wal {
    /// `leads`, `follows`, `learns`; `no leader`.
    pub role: &'static str,
    /// The term it knows of.
    pub term: u64,
    /// Its last entry.
    pub last_index: u64,
    /// The last one applied.
    pub applied_index: u64,
    /// The last one in the ledger.
    pub drained_index: u64,
    /// Percent of its space in use.
    pub used_percent: u64,
}

// === impl State ===

impl State {
    /// Of what was last seen of every edge, `now_ms` on the clock of their histories.
    pub fn of(looked: &[Looked], reports: Option<Reports>, at: Timestamp, now_ms: u64) -> Self {
        let mut by_region: BTreeMap<&str, Vec<&Looked>> = BTreeMap::new();
        for edge in looked {
            by_region.entry(edge.region()).or_default().push(edge);
        }
        let regions: Vec<Region> = by_region
            .iter()
            .map(|(name, looked)| Region {
                name: (*name).to_owned(),
                edges: looked.iter().map(|edge| Edge::of(edge, now_ms)).collect(),
                exposure: Exposure::of_region(looked),
            })
            .collect();
        let mut exposure = Exposure::default();
        for region in &regions {
            exposure.add(&region.exposure);
        }
        let heard = || {
            regions
                .iter()
                .flat_map(|region| &region.edges)
                .filter(|edge| edge.heard)
        };
        let timeline = timeline(looked, now_ms);
        Self {
            at: at.to_string(),
            verdict: Verdict::of(&regions, reports.as_ref()),
            outages: by_region
                .iter()
                .filter_map(|(name, looked)| outage(name, looked))
                .collect(),
            traffic: Traffic::of(
                looked
                    .iter()
                    .filter_map(|edge| edge.seen.history.now(now_ms)),
            ),
            exposure,
            backlog: by_region
                .values()
                .map(|looked| backlog(looked))
                .fold(0, u64::saturating_add),
            trip_age_ms: heard().filter_map(|edge| edge.trip_age_ms).max(),
            regions,
            reports,
            gaps: gaps(looked, now_ms),
            timeline,
        }
    }
}

// === impl Looked ===

impl Looked {
    /// Its region: as the file says, else as it says itself.
    fn region(&self) -> &str {
        match &self.named.region {
            Some(region) => region,
            None if self.seen.page.region.is_empty() => NOWHERE,
            None => &self.seen.page.region,
        }
    }
}

// === impl Seen ===

impl Seen {
    /// It gave its pages when it was last asked.
    fn is_heard(&self) -> bool {
        self.silent.is_none() && self.heard_at.is_some()
    }
}

// === impl Traffic ===

impl Traffic {
    /// Of what some edges counted, each in its own time.
    fn of(counted: impl Iterator<Item = (u64, Counters)>) -> Self {
        let mut per_second_e3_of = BTreeMap::<&str, u64>::new();
        let mut all = Counters::default();
        for (covers_ms, counters) in counted {
            for rung in RUNGS {
                if let Some(counted) = counters.of(rung).filter(|counted| counted.count > 0) {
                    let sum = per_second_e3_of.entry(rung).or_default();
                    *sum = sum.saturating_add(per_second_e3(counted.count, covers_ms));
                }
            }
            all.add(&counters);
        }
        let rate = |e3, counted: &Counted| Rate::new(e3, counted.quantile(99));
        let rungs = RUNGS.into_iter().filter_map(|rung| {
            let e3 = per_second_e3_of.get(rung)?;
            let rate = rate(*e3, all.of(rung)?);
            Some(RungRate { rung, rate })
        });
        let answered_e3 = per_second_e3_of
            .iter()
            .filter(|(rung, _)| **rung != "refused")
            .fold(0_u64, |sum, (_, e3)| sum.saturating_add(*e3));
        Self {
            by_rung: rungs.collect(),
            answered: rate(answered_e3, &all.answered()),
        }
    }
}

// === impl Rate ===

impl Rate {
    fn new(per_second_e3: u64, p99: Option<Quantile>) -> Self {
        Self {
            per_second: thousandths(per_second_e3),
            p99_ms: p99.map(|p99| thousandths(p99.micros())),
            p99_is_over: matches!(p99, Some(Quantile::Over(_))),
        }
    }
}

// === impl Exposure ===

impl Exposure {
    /// A region's money at risk is in its log, so that any edge can say it: the one that has applied
    /// most does, of those that are heard, else of all. A region that has several logs has the sum.
    fn of_region(looked: &[&Looked]) -> Self {
        let mut exposure = Self::default();
        let mut by_log: BTreeMap<&str, Vec<&Looked>> = BTreeMap::new();
        for edge in looked {
            if edge.seen.heard_at.is_none() {
                exposure.not_current.push(edge.named.name.clone());
                continue;
            }
            let log = edge.seen.page.wal.incarnation.as_str();
            by_log.entry(log).or_default().push(edge);
        }
        if !by_log.is_empty() && looked.iter().any(|edge| edge.seen.is_heard()) {
            // Others of the region speak for it.
            exposure.not_current.clear();
        }
        for edges in by_log.values() {
            let Some(edge) = speaker(edges) else { continue };
            if !edge.seen.is_heard() {
                exposure.not_current.push(edge.named.name.clone());
            }
            exposure.take(&edge.seen.page);
        }
        exposure
    }

    fn take(&mut self, page: &EdgePage) {
        let Ok(currency) = page.exposure.currency.parse::<Currency>() else {
            return;
        };
        let said = &page.exposure;
        for (sums, minor) in [
            (&mut self.now, said.approved_without_primary_minor),
            (&mut self.worst, said.worst_case_minor),
            (&mut self.stand_in, said.parts.stand_in_minor),
            (&mut self.old_trips, said.parts.old_trips_minor),
            (&mut self.reserves, said.parts.reserves_minor),
        ] {
            let sum = sums.entry(currency).or_default();
            *sum = sum.saturating_add(i128::from(minor));
        }
    }

    fn add(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.now, &other.now),
            (&mut self.worst, &other.worst),
            (&mut self.stand_in, &other.stand_in),
            (&mut self.old_trips, &other.old_trips),
            (&mut self.reserves, &other.reserves),
        ] {
            for (currency, minor) in theirs {
                let sum = ours.entry(*currency).or_default();
                *sum = sum.saturating_add(*minor);
            }
        }
        self.not_current.extend_from_slice(&other.not_current);
    }
}

// === impl Edge ===

impl Edge {
    fn of(looked: &Looked, now_ms: u64) -> Self {
        let Looked { named, seen } = looked;
        let page = &seen.page;
        let position = &page.breaker.position;
        Self {
            name: named.name.clone(),
            admin: named.admin.to_string(),
            heard: seen.is_heard(),
            heard_at: seen.heard_at.map(|at| at.to_string()),
            silent: seen.silent.clone(),
            unready: seen.unready.clone(),
            rung: page.rung.clone(),
            mode: page.stand_in.mode.clone(),
            breaker: position.state.clone(),
            admits_percent: position.admits_percent,
            why: position.why.clone(),
            traffic: Traffic::of(seen.history.now(now_ms).into_iter()),
            wal: Wal::of(page),
            backlog: page.drain.backlog,
            advices_waiting: page.advices.waiting,
            trip_age_ms: page.trip_cache.age_ms,
            alarms: page.alarms.clone(),
        }
    }
}

// === impl Wal ===

impl Wal {
    fn of(page: &EdgePage) -> Self {
        let wal = &page.wal;
        let role = if wal.leader.is_none() {
            "no leader"
        } else if wal.leader == Some(wal.node) {
            "leads"
        } else if wal.learners.contains(&wal.node) {
            "learns"
        } else {
            "follows"
        };
        let used = wal.bytes_used.saturating_mul(100);
        Self {
            role,
            term: wal.term,
            last_index: wal.last_index,
            applied_index: wal.applied_index,
            drained_index: page.drain.cursor,
            used_percent: used.checked_div(wal.budget_bytes).unwrap_or(0),
        }
    }
}

/// Who speaks for a log: who is heard and has applied most.
fn speaker<'a>(edges: &[&'a Looked]) -> Option<&'a Looked> {
    let knows = |edge: &&&Looked| (edge.seen.is_heard(), edge.seen.page.wal.applied_index);
    edges.iter().max_by_key(knows).copied()
}

/// Entries of a region's log that the ledger does not have.
fn backlog(looked: &[&Looked]) -> u64 {
    speaker(looked).map_or(0, |edge| edge.seen.page.drain.backlog)
}

/// The outage that a region's log knows of, in words. The log says why; since when, the alarm of an
/// edge: log time stands still while there is nothing to log.
fn outage(region: &str, looked: &[&Looked]) -> Option<String> {
    let edge = speaker(looked).filter(|edge| edge.seen.is_heard())?;
    let outage = edge.seen.page.stand_in.outage.as_ref()?;
    let heard = looked.iter().filter(|edge| edge.seen.is_heard());
    let alarms = heard.flat_map(|edge| &edge.seen.page.alarms);
    let of_it = alarms.filter(|alarm| verdict::OF_THE_RUNG.contains(&alarm.name.as_str()));
    let since = of_it.map(|alarm| clock(&alarm.since)).min();
    let since = since.map_or_else(String::new, |since| format!("since {since}, "));
    Some(format!("{region}: {since}cause {}", outage.why))
}

/// All edges together, by steps that are over.
fn timeline(looked: &[Looked], now_ms: u64) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for (at_ms, index) in steps(now_ms) {
        let mut tick = Tick {
            at_ms,
            replies: BTreeMap::new(),
            p99_ms: BTreeMap::new(),
            backlog: 0,
        };
        let mut all = Counters::default();
        for step in looked
            .iter()
            .filter_map(|edge| edge.seen.history.step(index))
        {
            all.add(&step.counted);
            for rung in RUNGS {
                let counted = step.counted.of(rung).map_or(0, |counted| counted.count);
                let half = step.covers_ms.div_euclid(2);
                let in_step = counted.saturating_mul(STEP_MS).saturating_add(half);
                let in_step = in_step.checked_div(step.covers_ms);
                if let Some(count) = in_step.filter(|count| *count > 0) {
                    let sum = tick.replies.entry(rung.to_owned()).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
        }
        for rung in RUNGS {
            let p99 = all.of(rung).and_then(|counted| counted.quantile(99));
            if let Some(p99) = p99 {
                tick.p99_ms
                    .insert(rung.to_owned(), thousandths(p99.micros()));
            }
        }
        ticks.push(tick);
    }
    ticks
}

/// Stretches of the timeline in which not every edge was heard.
fn gaps(looked: &[Looked], now_ms: u64) -> Vec<Shade> {
    let first = looked
        .iter()
        .filter_map(|edge| edge.seen.history.first())
        .min();
    let mut gaps: Vec<Shade> = Vec::new();
    // Before anybody was heard there is nothing to compare with.
    for (at_ms, index) in
        steps(now_ms).filter(|(_, index)| first.is_some_and(|first| first <= *index))
    {
        let heard = |edge: &Looked| edge.seen.history.step(index).is_some();
        if looked.iter().all(heard) {
            continue;
        }
        let until_ms = at_ms.saturating_add(STEP_MS);
        match gaps.last_mut().filter(|gap| gap.until_ms == at_ms) {
            Some(gap) => gap.until_ms = until_ms,
            None => gaps.push(Shade {
                from_ms: at_ms,
                until_ms,
                label: "not every edge heard".to_owned(),
            }),
        }
    }
    gaps
}

/// The steps that are over, the oldest first: milliseconds since the first, and index.
fn steps(now_ms: u64) -> impl Iterator<Item = (u64, u64)> {
    let over = now_ms.div_euclid(STEP_MS);
    let first = over.saturating_sub(STEPS_MAX);
    (first..over).map(move |index| (index.saturating_sub(first).saturating_mul(STEP_MS), index))
}

/// Exact up to 4,294,967 of them, which no rate or duration here comes to.
fn thousandths(e3: u64) -> f64 {
    f64::from(u32::try_from(e3).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests;
