//! Looks at every edge while a drill runs, and keeps what was seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use standin_core::clock::{Clock, SystemClock};
use standin_reconcile::report::BacklogSample;
use standin_reconcile::report::drill::Sample;
use standin_wal::LATENCY_BOUNDS_US;
use tokio::time::Instant;

use super::bank::Bank;
use super::edges::look;
use crate::backlog::Backlog;
use crate::client::Pool;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);
/// How often the live line says something else.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// A sync that takes longer says that the disk, not Standin, was slow. One of the histogram's bounds.
pub(super) const STALL_MS: u64 = 100;

/// Looks at edges; what it saw is shared.
#[derive(Clone)]
pub(super) struct Watch {
    desks: Vec<(u64, Pool)>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    backlog: Backlog,
    samples: Vec<Sample>,
    currency: Option<String>,
    /// Slow syncs that each edge has counted since it was started.
    slow: BTreeMap<u64, u64>,
    stalls: Vec<Stall>,
}

/// A disk that was slow between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stall {
    /// When that was seen, milliseconds since 1970.
    pub(super) at: i64,
    pub(super) edge: u64,
    /// Syncs of the log that took longer than [`STALL_MS`].
    pub(super) syncs: u64,
}

/// What was seen.
pub(super) struct Looks {
    pub(super) samples: Vec<Sample>,
    pub(super) backlog: Vec<BacklogSample>,
    pub(super) currency: Option<String>,
    pub(super) stalls: Vec<Stall>,
}

// === impl Watch ===

impl Watch {
    /// Of these edges, by their numbers.
    pub(super) fn new(desks: Vec<(u64, Pool)>) -> Self {
        Self {
            desks,
            seen: Arc::default(),
        }
    }

    /// Looks until it is dropped.
    pub(super) async fn run(&self, bank: &Bank, live: &ProgressBar, words: &Mutex<String>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut said, mut told) = (Instant::now(), 0_u64);
        loop {
            ticks.tick().await;
            let (rungs, backlog) = self.look().await;
            if said.elapsed() < LINE_EVERY {
                continue;
            }
            let (all, by_rung) = bank.progress();
            let seconds = u64::try_from(said.elapsed().as_millis())
                .unwrap_or(1)
                .max(1);
            let rate = all
                .saturating_sub(told)
                .saturating_mul(1_000)
                .checked_div(seconds);
            (said, told) = (Instant::now(), all);
            let words = words.lock().unwrap_or_else(PoisonError::into_inner);
            live.set_message(format!(
                "{words}: {all} answered, {}/s on {}; edges say {}; {backlog} not in the ledger",
                rate.unwrap_or(0),
                counted(&by_rung),
                rungs.join(" "),
            ));
        }
    }

    /// Looks once; gives each edge's rung and the backlog.
    pub(super) async fn look(&self) -> (Vec<String>, u64) {
        let looks = self
            .desks
            .iter()
            .map(|(edge, desk)| async move { (*edge, look(desk).await) });
        let pages: Vec<(u64, Option<Value>)> = join_all(looks).await;
        let now = SystemClock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = merged(pages.iter().filter_map(|(_, page)| page.as_ref()));
        let backlog = seen.backlog.look(&merged, now);
        let mut rungs = Vec::new();
        for (edge, page) in pages {
            let Some(page) = page else {
                rungs.push("silent".to_owned());
                continue;
            };
            let sample = sample(now.as_millis(), edge, &page, &merged, backlog);
            seen.slow_syncs(now.as_millis(), edge, &page);
            rungs.push(sample.rung.clone());
            if seen.currency.is_none() {
                let currency = page.pointer("/exposure/currency").and_then(Value::as_str);
                seen.currency = currency.map(str::to_owned);
            }
            seen.samples.push(sample);
        }
        (rungs, backlog)
    }

    /// Everything that was seen.
    pub(super) fn take(&self) -> Looks {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Looks {
            samples: std::mem::take(&mut seen.samples),
            backlog: std::mem::take(&mut seen.backlog.samples),
            currency: seen.currency.clone(),
            stalls: std::mem::take(&mut seen.stalls),
        }
    }
}

// === impl Seen ===

impl Seen {
    fn slow_syncs(&mut self, at: i64, edge: u64, page: &Value) {
        let counts = page.pointer("/wal/counters/sync_latency/buckets");
        let counts = counts.and_then(Value::as_array).into_iter().flatten();
        // One more bucket takes what is beyond all bounds.
        let longer_than = std::iter::once(&0).chain(&LATENCY_BOUNDS_US);
        let slow = counts
            .zip(longer_than)
            .filter(|(_, bound)| **bound >= STALL_MS.saturating_mul(1_000))
            .filter_map(|(count, _)| count.as_u64())
            .fold(0, u64::saturating_add);
        let before = self.slow.insert(edge, slow).unwrap_or(slow);
        // One that was started anew counts from zero.
        let syncs = slow.saturating_sub(before);
        if syncs > 0 {
            self.stalls.push(Stall { at, edge, syncs });
        }
    }
}

/// What all edges together know of the log: it reaches as far as any of them has applied, and into the
/// ledger as far as its leader says.
pub(super) fn merged<'a>(pages: impl Iterator<Item = &'a Value> + Clone) -> Value {
    let number = |page: &Value, path: &str| page.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let most = |path: &str| {
        pages
            .clone()
            .map(|page| number(page, path))
            .max()
            .unwrap_or(0)
    };
    let leads = |page: &&Value| {
        let leader = page.pointer("/wal/leader").and_then(Value::as_u64);
        leader.is_some() && leader == page.pointer("/wal/node").and_then(Value::as_u64)
    };
    let leader = pages
        .clone()
        .filter(leads)
        .max_by_key(|page| number(page, "/wal/term"));
    let cursor = leader.map_or_else(
        || most("/drain/cursor"),
        |page| number(page, "/drain/cursor"),
    );
    json!({
        "wal": { "applied_index": most("/wal/applied_index") },
        "register": { "counts": { "answered": most("/register/counts/answered") } },
        "drain": { "cursor": cursor },
    })
}

fn sample(at: i64, edge: u64, page: &Value, merged: &Value, backlog: u64) -> Sample {
    let number = |page: &Value, path: &str| page.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let minor = |path: &str| page.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let rung = page.pointer("/rung").and_then(Value::as_str);
    Sample {
        at,
        edge,
        rung: rung.unwrap_or("unknown").to_owned(),
        mode_changes: number(page, "/breaker/changes"),
        applied: number(merged, "/wal/applied_index"),
        drained: number(merged, "/drain/cursor"),
        backlog,
        exposed_minor: minor("/exposure/approved_without_primary_minor"),
        worst_case_minor: minor("/exposure/worst_case_minor"),
    }
}

fn counted(rungs: &BTreeMap<&'static str, u64>) -> String {
    let most = rungs.iter().max_by_key(|(_, count)| **count);
    most.map_or("no rung", |(rung, _)| rung).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_sync_is_seen_once_and_not_after_a_new_start() {
        let page = |slow: u64| {
            let mut buckets = vec![7; 11];
            buckets.extend([slow, 0, 0, 1]);
            json!({ "wal": { "counters": { "sync_latency": { "buckets": buckets } } } })
        };
        let mut seen = Seen::default();
        for (at, slow) in [(1, 4), (2, 4), (3, 6), (4, 6), (5, 0), (6, 1)] {
            seen.slow_syncs(at, 9, &page(slow));
        }
        let stall = |at, syncs| Stall { at, edge: 9, syncs };
        assert_eq!(seen.stalls, [stall(3, 2), stall(6, 1)]);
    }
}
