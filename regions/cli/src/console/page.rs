//! The page: one document, made of parts that are also sent one by one when they change.
//!
//! Everything is made here, on the server; the script only puts parts in place. So the page reads the
//! same without it, and text of edges and reports is escaped in one place. Style and script stand in
//! the page, under a content security policy that names them by their hashes and allows nothing else.

#![allow(
    clippy::float_arithmetic,
    reason = "rates and durations as they are shown; money stays in minor units"
)]

use std::sync::Arc;

use askama::Template;
use base64::Engine as _;
use sha2::{Digest, Sha256};
use standin_reconcile::report::chart::{Chart, recent};
use standin_reconcile::totals::{grouped, in_words};

use super::reports::Reports;
use super::state::{Edge, Exposure, Level, Rate, Region, RungRate, State, Traffic, clock};

const STYLE: &str = include_str!("../../templates/console/console.css");
const SCRIPT: &str = include_str!("../../templates/console/console.js");

/// A part of the page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its name; its element is `part-NAME`.
    pub name: &'static str,
    /// What is in it.
    pub html: Arc<str>,
}

/// The page at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// When, as people read it.
    pub at: String,
    /// Its parts, from top to bottom.
    pub parts: Vec<Part>,
}

#[derive(Template)]
#[template(path = "console/page.html")]
struct Whole<'a> {
    style: &'static str,
    script: &'static str,
    at: &'a str,
    parts: &'a [Part],
}

#[derive(Template)]
#[template(path = "console/verdict.html")]
struct VerdictPart<'a> {
    level: Level,
    text: &'a str,
}

#[derive(Template)]
#[template(path = "console/facts.html")]
struct FactsPart<'a> {
    outages: &'a [String],
    now: String,
    worst: String,
    not_current: String,
    drill: Option<String>,
}

#[derive(Template)]
#[template(path = "console/tiles.html")]
struct TilesPart {
    tiles: Vec<Tile>,
}

/// One figure at the top.
struct Tile {
    value: String,
    label: &'static str,
}

#[derive(Template)]
#[template(path = "console/regions.html")]
struct RegionsPart<'a> {
    regions: Vec<RegionView<'a>>,
}

struct RegionView<'a> {
    name: &'a str,
    rows: Vec<EdgeRow<'a>>,
}

/// An edge, as the table has it.
struct EdgeRow<'a> {
    name: &'a str,
    heard: String,
    heard_class: &'static str,
    rung: String,
    rung_class: &'static str,
    breaker: String,
    traffic: Vec<String>,
    log: String,
    backlog: String,
    trip_age: String,
    alarms: String,
    alarms_class: &'static str,
}

#[derive(Template)]
#[template(path = "console/traffic.html")]
struct TrafficPart {
    rows: Vec<RungRow>,
}

struct RungRow {
    rung: &'static str,
    rate: String,
    p99: String,
}

#[derive(Template)]
#[template(path = "console/charts.html")]
struct ChartsPart {
    has_gaps: bool,
    charts: Vec<Chart>,
}

#[derive(Template)]
#[template(path = "console/exposure.html")]
struct ExposurePart {
    rows: Vec<ExposureRow>,
}

struct ExposureRow {
    name: String,
    is_whole: bool,
    is_old: bool,
    now: String,
    worst: String,
    stand_in: String,
    old_trips: String,
    reserves: String,
}

#[derive(Template)]
#[template(path = "console/alarms.html")]
struct AlarmsPart<'a> {
    rows: Vec<AlarmRow<'a>>,
    not_heard: bool,
}

struct AlarmRow<'a> {
    name: &'a str,
    edge: &'a str,
    since: String,
    detail: &'a str,
}

#[derive(Template)]
#[template(path = "console/reports.html")]
struct ReportsPart<'a> {
    reports: Option<&'a Reports>,
}

// === impl Page ===

impl Page {
    /// Of a state.
    ///
    /// # Errors
    /// When a template cannot be rendered, which a test rules out for every part.
    pub fn of(state: &State) -> Result<Self, askama::Error> {
        let part = |name, html: Result<String, askama::Error>| {
            Ok(Part {
                name,
                html: html?.into(),
            })
        };
        let parts: Result<Vec<Part>, askama::Error> = [
            part("verdict", verdict(state).render()),
            part("facts", facts(state).render()),
            part("tiles", tiles(state).render()),
            part("regions", regions(state).render()),
            part("traffic", traffic(&state.traffic).render()),
            part("charts", charts(state).render()),
            part("exposure", exposure(state).render()),
            part("alarms", alarms(state).render()),
            part(
                "reports",
                ReportsPart {
                    reports: state.reports.as_ref(),
                }
                .render(),
            ),
        ]
        .into_iter()
        .collect();
        Ok(Self {
            at: clock(&state.at),
            parts: parts?,
        })
    }

    /// The whole document.
    ///
    /// # Errors
    /// As [`Page::of`].
    pub fn html(&self) -> Result<String, askama::Error> {
        Whole {
            style: STYLE,
            script: SCRIPT,
            at: &self.at,
            parts: &self.parts,
        }
        .render()
    }
}

/// What the page may load and run: its own style and script, its icon, its stream of events.
pub fn policy() -> String {
    let hash = |text: &str| {
        let digest = Sha256::digest(text.as_bytes());
        base64::engine::general_purpose::STANDARD.encode(digest)
    };
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn verdict(state: &State) -> VerdictPart<'_> {
    VerdictPart {
        level: state.verdict.level,
        text: &state.verdict.text,
    }
}

fn facts(state: &State) -> FactsPart<'_> {
    let drill = state
        .reports
        .as_ref()
        .and_then(|reports| reports.drill.as_ref());
    let drill = drill.filter(|drill| drill.runs()).map(|drill| {
        if drill.doing.is_empty() {
            drill.name.clone()
        } else {
            format!("{}, {}", drill.name, drill.doing)
        }
    });
    FactsPart {
        outages: &state.outages,
        now: in_words(&state.exposure.now),
        worst: in_words(&state.exposure.worst),
        not_current: state.exposure.not_current.join(", "),
        drill,
    }
}

fn tiles(state: &State) -> TilesPart {
    let tile = |value, label| Tile { value, label };
    let edges = || state.regions.iter().flat_map(|region| &region.edges);
    let heard = edges().filter(|edge| edge.heard).count();
    let findings = state.reports.as_ref().and_then(|reports| {
        let run = reports.reconciliation.as_ref()?;
        Some(grouped(&run.findings_all.to_string()))
    });
    TilesPart {
        tiles: vec![
            tile(format!("{heard} of {}", edges().count()), "edges heard"),
            tile(per_second(&state.traffic.answered), "answers a second"),
            tile(p99(&state.traffic.answered), "ms, p99 of answers"),
            tile(in_words(&state.exposure.now), "exposure now"),
            tile(in_words(&state.exposure.worst), "exposure at worst"),
            tile(grouped(&state.backlog.to_string()), "still to drain"),
            tile(
                state.trip_age_ms.map_or_else(|| "–".to_owned(), age),
                "oldest trip cache",
            ),
            tile(
                findings.unwrap_or_else(|| "–".to_owned()),
                "findings, last reconciliation",
            ),
        ],
    }
}

fn regions(state: &State) -> RegionsPart<'_> {
    RegionsPart {
        regions: state.regions.iter().map(RegionView::of).collect(),
    }
}

fn traffic(traffic: &Traffic) -> TrafficPart {
    let rows = traffic.by_rung.iter().map(|of| RungRow {
        rung: of.rung,
        rate: per_second(&of.rate),
        p99: p99(&of.rate),
    });
    TrafficPart {
        rows: rows.collect(),
    }
}

fn charts(state: &State) -> ChartsPart {
    ChartsPart {
        has_gaps: !state.gaps.is_empty(),
        charts: recent(&state.timeline, &state.gaps),
    }
}

fn exposure(state: &State) -> ExposurePart {
    let row = |name: &str, exposure: &Exposure| ExposureRow {
        name: name.to_owned(),
        is_whole: false,
        is_old: !exposure.not_current.is_empty(),
        now: in_words(&exposure.now),
        worst: in_words(&exposure.worst),
        stand_in: in_words(&exposure.stand_in),
        old_trips: in_words(&exposure.old_trips),
        reserves: in_words(&exposure.reserves),
    };
    let mut rows: Vec<ExposureRow> = state
        .regions
        .iter()
        .map(|region| row(&region.name, &region.exposure))
        .collect();
    rows.push(ExposureRow {
        is_whole: true,
        ..row("all", &state.exposure)
    });
    ExposurePart { rows }
}

fn alarms(state: &State) -> AlarmsPart<'_> {
    let edges = || state.regions.iter().flat_map(|region| &region.edges);
    let rows = edges().filter(|edge| edge.heard).flat_map(|edge| {
        edge.alarms.iter().map(|alarm| AlarmRow {
            name: &alarm.name,
            edge: &edge.name,
            since: clock(&alarm.since),
            detail: &alarm.detail,
        })
    });
    AlarmsPart {
        rows: rows.collect(),
        not_heard: edges().any(|edge| !edge.heard),
    }
}

// === impl RegionView ===

impl<'a> RegionView<'a> {
    fn of(region: &'a Region) -> Self {
        Self {
            name: &region.name,
            rows: region.edges.iter().map(EdgeRow::of).collect(),
        }
    }
}

// === impl EdgeRow ===

impl<'a> EdgeRow<'a> {
    fn of(edge: &'a Edge) -> Self {
        let (heard, heard_class) = heard(edge);
        // What an edge said that is not heard any more is in the past tense.
        let told = |text: String| match (edge.heard, &edge.heard_at) {
            (true, _) => text,
            (false, Some(_)) => format!("was {text}"),
            (false, None) => "–".to_owned(),
        };
        let alarms = edge.alarms.len();
        Self {
            name: &edge.name,
            heard,
            heard_class,
            rung: told(rung(edge)),
            rung_class: if edge.rung == "primary" || !edge.heard {
                ""
            } else {
                "warn"
            },
            breaker: told(breaker(edge)),
            traffic: lines(edge),
            log: told(log(edge)),
            backlog: told(grouped(&edge.backlog.to_string())),
            trip_age: told(edge.trip_age_ms.map_or_else(|| "unknown".to_owned(), age)),
            alarms: told(if alarms == 0 {
                "none".to_owned()
            } else {
                alarms.to_string()
            }),
            alarms_class: if alarms == 0 || !edge.heard {
                ""
            } else {
                "warn"
            },
        }
    }
}

fn heard(edge: &Edge) -> (String, &'static str) {
    let why = edge.silent.as_deref().unwrap_or("no reply yet");
    match (edge.heard, &edge.heard_at, &edge.unready) {
        (true, _, None) => ("✓ yes, and takes payments".to_owned(), "good"),
        (true, _, Some(why)) => (format!("✗ takes no payments: {why}"), "bad"),
        (false, Some(at), _) => (
            format!("✗ not heard from since {}: {why}", clock(at)),
            "bad",
        ),
        (false, None, _) => (format!("✗ not heard from yet: {why}"), "bad"),
    }
}

fn rung(edge: &Edge) -> String {
    match (edge.rung.as_str(), edge.mode.as_str()) {
        ("primary", "auto") => "primary".to_owned(),
        (rung, "auto") => match &edge.why {
            Some(why) => format!("! {rung}, cause {why}"),
            None => format!("! {rung}"),
        },
        (rung, mode) => format!("! {rung}, by order: {mode}"),
    }
}

fn breaker(edge: &Edge) -> String {
    match edge.breaker.as_str() {
        "ramp" => format!("ramp, {} %", edge.admits_percent),
        state => state.to_owned(),
    }
}

/// Rates by rung, a line each.
fn lines(edge: &Edge) -> Vec<String> {
    if !edge.heard {
        return vec!["–".to_owned()];
    }
    let rates = edge.traffic.by_rung.iter();
    let lines: Vec<String> = rates
        .map(|RungRate { rung, rate }| match rate.p99_ms {
            Some(_) => format!("{rung} {}, {} ms", per_second(rate), p99(rate)),
            None => format!("{rung} {}", per_second(rate)),
        })
        .collect();
    if lines.is_empty() {
        vec!["none".to_owned()]
    } else {
        lines
    }
}

fn log(edge: &Edge) -> String {
    let wal = &edge.wal;
    let mut text = format!(
        "{}, term {}, entry {}, {}\u{a0}% full",
        wal.role,
        wal.term,
        grouped(&wal.last_index.to_string()),
        wal.used_percent
    );
    if edge.advices_waiting > 0 {
        text.push_str(&format!(", {} advices wait", edge.advices_waiting));
    }
    text
}

fn per_second(rate: &Rate) -> String {
    format!("{:.1}", rate.per_second)
}

fn p99(rate: &Rate) -> String {
    match rate.p99_ms {
        None => "–".to_owned(),
        Some(ms) if rate.p99_is_over => format!("over {ms:.0}"),
        Some(ms) => format!("{ms:.1}"),
    }
}

/// A duration in the unit that suits it.
fn age(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms.div_euclid(1_000)),
        _ => format!("{} min", ms.div_euclid(60_000)),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests;
