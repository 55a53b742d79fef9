//! One measurement: one server, one load, one window, with the CPU time of everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep_until;

use super::children::Child;
use super::cpu::{Snapshot, Usage};
use super::load::{self, Load, Numbers, Tally, Window, Work};
use super::wire::{Dial, Speech};

/// What one measurement found.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Whom.
    pub program: String,
    /// Under what.
    pub load: String,
    /// From 1.
    pub round: u32,
    /// How long the window was.
    pub seconds: f64,
    /// Good responses in the window, a second.
    pub per_second: f64,
    /// Requests by what became of them.
    pub kinds: BTreeMap<String, u64>,
    /// Latency of all of them.
    pub latency: Latency,
    /// Busy cores.
    pub cpu: Usage,
    /// What the server says of itself, and whatever belongs to this measurement only.
    pub details: BTreeMap<String, f64>,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

/// What is measured with.
#[derive(Clone)]
pub struct Bench {
    /// Uncounted load before a window.
    pub warm: Duration,
    /// Length of a window.
    pub counted: Duration,
    /// Numbers requests.
    pub numbers: Arc<Numbers>,
    /// How servers are spoken to.
    pub speech: Speech,
}

// === impl Load ===

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Saturation { connections } => write!(f, "saturation, {connections} connections"),
            Self::Fresh { connections } => {
                write!(f, "a connection each, {connections} at once")
            }
            Self::Rate { per_second, .. } => write!(f, "{per_second}/s"),
        }
    }
}

// === impl Bench ===

impl Bench {
    /// Puts `load` of `work` on `child`; `others` are the further servers under way.
    pub async fn measure(
        &self,
        child: &Child,
        others: &[&Child],
        (label, round): (&str, u32),
        load: Load,
        work: Arc<dyn Work>,
    ) -> anyhow::Result<Measurement> {
        let names: BTreeMap<u32, String> = others
            .iter()
            .copied()
            .chain([child])
            .map(|child| (child.id(), child.name.to_owned()))
            .collect();
        let window = Window::of(self.warm, self.counted);
        let to = Dial {
            address: child.address,
            speech: self.speech.clone(),
        };
        let running = load::run(&to, load, work, Arc::clone(&self.numbers), window);
        let watching = async {
            sleep_until(window.from).await;
            let before = Snapshot::take(&names);
            let said_before = said(child).await;
            sleep_until(window.end).await;
            let usage = before.until(&Snapshot::take(&names));
            (usage, said_before, said(child).await)
        };
        let (tally, (cpu, before, after)) = tokio::join!(running, watching);
        let details = details(&before, &after);
        Ok(Measurement {
            program: label.to_owned(),
            load: load.to_string(),
            round,
            seconds: self.counted.as_secs_f64(),
            per_second: good(&tally.inside) as f64 / self.counted.as_secs_f64(),
            latency: Latency::of(&tally),
            kinds: tally.kinds,
            cpu,
            details,
        })
    }
}

/// Counters of an edge; nothing from others, which have none.
async fn said(child: &Child) -> BTreeMap<String, f64> {
    if child.admin.is_none() {
        return BTreeMap::new();
    }
    // A page that does not come leaves a hole in the details, not in the figures.
    let mut said = child.metrics().await.unwrap_or_default();
    if let Ok(status) = child.get("/statusz").await {
        for (name, path) in [
            ("wal proposals", "/wal/counters/proposals"),
            ("wal batches", "/wal/counters/batches"),
            ("wal written bytes", "/wal/counters/written_bytes"),
            ("wal syncs", "/wal/counters/syncs"),
            ("wal sync us", "/wal/counters/sync_latency/sum_us"),
            ("drain backlog", "/drain/backlog"),
            ("drain finalized", "/drain/finalized"),
            ("breaker changes", "/breaker/changes"),
        ] {
            if let Some(value) = status.pointer(path).and_then(serde_json::Value::as_f64) {
                said.insert(name.to_owned(), value);
            }
        }
    }
    said
}

/// Means over the window of what the edge counts.
fn details(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let grown = |name: &str| {
        let now = after.get(name)?;
        Some(now - before.get(name).copied().unwrap_or(0.0))
    };
    let mut details = BTreeMap::new();
    for (name, sum, count) in [
        (
            "holds a transaction",
            "standin_hold_batch_size_sum",
            "standin_hold_batch_size_count",
        ),
        (
            "ms a transaction of holds",
            "standin_hold_batch_duration_seconds_sum",
            "standin_hold_batch_duration_seconds_count",
        ),
        (
            "ms a commit of the log",
            "standin_wal_commit_duration_seconds_sum",
            "standin_wal_commit_duration_seconds_count",
        ),
        ("entries a batch of the log", "wal proposals", "wal batches"),
        (
            "bytes written an entry",
            "wal written bytes",
            "wal proposals",
        ),
        ("ms a sync of the log", "wal sync us", "wal syncs"),
    ] {
        if let (Some(sum), Some(count)) = (grown(sum), grown(count))
            && count > 0.0
        {
            let scale = match (name.starts_with("ms"), name.ends_with("sync of the log")) {
                (true, true) => 0.001,
                (true, false) => 1_000.0,
                (false, _) => 1.0,
            };
            details.insert(name.to_owned(), sum / count * scale);
        }
    }
    for name in ["drain finalized", "breaker changes", "wal syncs"] {
        if let Some(more) = grown(name) {
            details.insert(name.to_owned(), more);
        }
    }
    // By cause: what was refused, and why the primary was not asked.
    for name in after.keys() {
        let named = name.strip_prefix("standin_refusals_total");
        let named = named.or_else(|| name.strip_prefix("standin_without_primary_total"));
        if let (Some(labels), Some(more)) = (named, grown(name))
            && more > 0.0
        {
            details.insert(labels.replace('"', ""), more);
        }
    }
    if let Some(backlog) = after.get("drain backlog") {
        details.insert("drain backlog at the end".to_owned(), *backlog);
    }
    details
}

/// Responses that are what was asked for.
pub fn good(kinds: &BTreeMap<String, u64>) -> u64 {
    let is_good = |kind: &str| kind.starts_with("approved") || kind == "accepted";
    kinds
        .iter()
        .filter(|(kind, _)| is_good(kind))
        .map(|(_, count)| count)
        .sum()
}

// === impl Latency ===

impl Latency {
    fn of(tally: &Tally) -> Self {
        let at = |quantile: f64| tally.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: tally.latency.max() as f64 / 1_000.0,
        }
    }
}
