//! Latencies by how a request was answered: HDR histograms, and the table and JSON made of them.

#![allow(
    clippy::float_arithmetic,
    reason = "latencies are shown in milliseconds with decimals"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use standin_core::answer::{Reason, Rung, Verdict};

use crate::client::{CallError, Reply};

/// Longest latency told apart, microseconds; a longer one counts as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// How one request was answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// On a rung, with a verdict.
    Answered(Rung, &'static str),
    /// Another status.
    Status(u16),
    /// Nothing came.
    NoReply(&'static str),
}

/// The part of an answer's body that a bank's client looks at.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Said {
    /// Approve or decline.
    pub decision: Verdict,
    /// Why.
    pub reason: Reason,
    /// How it was reached.
    pub rung: Rung,
}

/// Latencies of every kind of answer.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: BTreeMap<Kind, Histogram<u64>>,
    reasons: BTreeMap<Reason, u64>,
}

/// One line of the table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// Rung and verdict, status, or why nothing came.
    pub kind: String,
    /// Requests.
    pub count: u64,
    /// Median latency.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

// === impl Kind ===

impl Kind {
    /// What a call came to.
    pub fn of(outcome: &Result<Reply, CallError>) -> Self {
        match outcome {
            Ok(reply) => match Said::read(reply) {
                Some(said) => Self::Answered(said.rung, said.decision.as_str()),
                None => Self::Status(reply.status),
            },
            Err(CallError::AllInUse) => Self::NoReply("no free connection"),
            Err(CallError::Timeout) => Self::NoReply("timeout"),
            Err(CallError::Connect { .. }) => Self::NoReply("no connection"),
            Err(CallError::Http(_) | CallError::Body(_)) => Self::NoReply("broken exchange"),
            Err(CallError::Request(_)) => Self::NoReply("not sendable"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(rung, verdict) => write!(f, "{rung} {verdict}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NoReply(why) => f.write_str(why),
        }
    }
}

// === impl Said ===

impl Said {
    /// Reads an answer; `None` when the reply is none.
    pub fn read(reply: &Reply) -> Option<Self> {
        if !matches!(reply.status, 200 | 402) {
            return None;
        }
        serde_json::from_slice(&reply.body).ok()
    }
}

// === impl Tally ===

impl Tally {
    /// Counts one request.
    pub fn record(&mut self, outcome: &Result<Reply, CallError>, latency: Duration) {
        if let Ok(reply) = outcome
            && let Some(said) = Said::read(reply)
        {
            let count = self.reasons.entry(said.reason).or_default();
            *count = count.saturating_add(1);
        }
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.kinds
            .entry(Kind::of(outcome))
            .or_insert_with(histogram)
            .saturating_record(micros);
    }

    /// Requests counted.
    pub fn count(&self) -> u64 {
        self.kinds
            .values()
            .fold(0, |sum, histogram| sum.saturating_add(histogram.len()))
    }

    /// Requests that were answered, on whatever rung.
    pub fn answered(&self) -> u64 {
        self.kinds
            .iter()
            .filter(|(kind, _)| matches!(kind, Kind::Answered(..)))
            .fold(0, |sum, (_, histogram)| sum.saturating_add(histogram.len()))
    }

    /// Answers by reason.
    pub fn reasons(&self) -> &BTreeMap<Reason, u64> {
        &self.reasons
    }

    /// A line for each kind, and one for all.
    pub fn lines(&self) -> Vec<Line> {
        let mut all = histogram();
        let mut lines = Vec::new();
        for (kind, histogram) in &self.kinds {
            all.add(histogram)
                .expect("both have the same constant bounds");
            lines.push(Line::of(kind.to_string(), histogram));
        }
        lines.push(Line::of("all".to_owned(), &all));
        lines
    }
}

// === impl Line ===

impl Line {
    fn of(kind: String, histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| millis(histogram.value_at_quantile(quantile));
        Self {
            kind,
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: millis(histogram.max()),
        }
    }
}

/// The lines as a table for people.
pub fn table(lines: &[Line]) -> comfy_table::Table {
    let mut table = crate::out::table(["answer", "count", "p50 ms", "p90", "p99", "p99.9", "max"]);
    for line in lines {
        let ms = |value: f64| format!("{value:.2}");
        table.add_row([
            line.kind.clone(),
            line.count.to_string(),
            ms(line.p50_ms),
            ms(line.p90_ms),
            ms(line.p99_ms),
            ms(line.p999_ms),
            ms(line.max_ms),
        ]);
    }
    crate::out::align_right(&mut table, 1..7);
    table
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants that fit")
}

fn millis(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn reply(status: u16, body: &'static str) -> Result<Reply, CallError> {
        let body = Bytes::from_static(body.as_bytes());
        Ok(Reply {
            status,
            replayed: None,
            retry_after: None,
            stripe_version: None,
            body,
        })
    }

    #[test]
    fn requests_are_told_apart_by_rung_verdict_and_status() {
        let mut tally = Tally::default();
        let approved = r#"{"decision":"approved","reason":"within_cap","rung":"primary"}"#;
        for ms in 1..=100 {
            tally.record(&reply(200, approved), Duration::from_millis(ms));
        }
        tally.record(&reply(503, "{}"), Duration::from_millis(1));
        tally.record(&Err(CallError::Timeout), Duration::from_secs(5));
        let lines = tally.lines();
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| (line.kind.as_str(), line.count))
            .collect();
        let expected = [
            ("primary approved", 100),
            ("status 503", 1),
            ("timeout", 1),
            ("all", 102),
        ];
        assert_eq!(kinds, expected);
        assert_eq!((tally.count(), tally.answered()), (102, 100));
        assert!((lines[0].p50_ms - 50.0).abs() < 0.2, "{}", lines[0].p50_ms);
        assert!((lines[0].p99_ms - 99.0).abs() < 0.2, "{}", lines[0].p99_ms);
    }
}
