//! How it is, in one sentence: the worst that there is to say, and what it is.

use serde::Serialize;

use super::super::reports::Reports;
use super::{Edge, Region};

/// Things named in the sentence; further ones are counted.
const NAMED_MAX: usize = 4;
/// Alarms that do not wait for the morning.
const GRAVE: [&str; 5] = [
    "wal_poisoned",
    "drain_stuck",
    "conflict",
    "faulted",
    "wal_nearly_full",
];
/// What the sentence says of the rung already.
pub(super) const OF_THE_RUNG: [&str; 2] = ["primary_away", "stand_in_overridden"];

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Well,
    /// Payments are answered, and somebody should know of something.
    Attention,
    /// Payments may go without an answer, or money may be wrong.
    Trouble,
}

/// How it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// How bad.
    pub level: Level,
    /// In a sentence.
    pub text: String,
}

// === impl Level ===

impl Level {
    /// The word on the page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "Well",
            Self::Attention => "Attention",
            Self::Trouble => "Trouble",
        }
    }

    /// Beside the word, for who looks from afar.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Well => "✓",
            Self::Attention => "!",
            Self::Trouble => "✗",
        }
    }

    /// Its class on the page.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Well => "good",
            Self::Attention => "warn",
            Self::Trouble => "bad",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn of(regions: &[Region], reports: Option<&Reports>) -> Self {
        let edges = || regions.iter().flat_map(|region| &region.edges);
        let mut said: Vec<(Level, String)> = edges().filter_map(silence).collect();
        said.extend(edges().filter(|edge| edge.heard).flat_map(troubles));
        let run = reports.and_then(|reports| reports.reconciliation.as_ref());
        if let Some(run) = run.filter(|run| run.findings_all > 0) {
            let word = if run.findings_all == 1 {
                "finding"
            } else {
                "findings"
            };
            let text = format!("{} {word} in the last reconciliation", run.findings_all);
            said.push((Level::Attention, text));
        }
        // The worst first, otherwise in their order.
        said.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        let level = said.first().map_or(Level::Well, |(level, _)| *level);
        let mut words: Vec<String> = said.into_iter().map(|(_, text)| text).collect();
        let more = words.len().saturating_sub(NAMED_MAX);
        words.truncate(NAMED_MAX);
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        if words.is_empty() {
            let heard = count(edges().count(), "edge");
            let places = count(regions.len(), "region");
            words.push(format!("{heard} in {places} answer on the primary"));
        }
        Self {
            level,
            text: format!("{}: {}.", level.as_str(), words.join("; ")),
        }
    }
}

fn count(number: usize, word: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {word}{s}")
}

fn silence(edge: &Edge) -> Option<(Level, String)> {
    if edge.heard {
        return None;
    }
    let text = match (&edge.heard_at, &edge.silent) {
        (Some(at), _) => format!("{} not heard from since {}", edge.name, clock(at)),
        (None, Some(_)) => format!("{} not heard from yet", edge.name),
        (None, None) => return Some((Level::Attention, format!("{} is being asked", edge.name))),
    };
    Some((Level::Trouble, text))
}

/// What there is to say of an edge that is heard.
fn troubles(edge: &Edge) -> Vec<(Level, String)> {
    let name = &edge.name;
    let mut said = Vec::new();
    if let Some(why) = &edge.unready {
        said.push((Level::Trouble, format!("{name} takes no payments: {why}")));
    }
    let why = edge.why.as_deref().unwrap_or("ordered");
    match edge.rung.as_str() {
        "primary" if edge.breaker == "ramp" => {
            let text = format!("{name} asks the primary for {} %", edge.admits_percent);
            said.push((Level::Attention, text));
        }
        "primary" => {}
        "refused" => said.push((Level::Trouble, format!("{name} gives no answers ({why})"))),
        rung => said.push((
            Level::Attention,
            format!("{name} answers on {rung} ({why})"),
        )),
    }
    for alarm in &edge.alarms {
        if OF_THE_RUNG.contains(&alarm.name.as_str()) && edge.rung != "primary" {
            continue;
        }
        let level = if GRAVE.contains(&alarm.name.as_str()) {
            Level::Trouble
        } else {
            Level::Attention
        };
        said.push((level, format!("{name}: alarm {}", alarm.name)));
    }
    said
}

/// The time of day of an RFC 3339 time in UTC; all of it if it is none.
pub(crate) fn clock(at: &str) -> String {
    match (at.get(10..11), at.get(11..19)) {
        (Some("T"), Some(time)) => format!("{time} UTC"),
        _ => at.to_owned(),
    }
}
