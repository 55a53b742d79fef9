//! `report.html`: one file with everything in it, made from the same structs as `report.json`.

use askama::Template;

mod drill;

pub use drill::{deployed, drill, drills};

use standin_core::answer::Verdict;
use standin_core::ledger::AuthorizationState;

use super::chart::{Chart, charts};
use super::reconciliation::{LogMatch, OutageProof, Reconciliation};
use super::{DemoReport, PhaseReport, Shade};
use crate::checker::{Check, MAJORITY, PROMISES};
use crate::totals::{Line, Totals, grouped, in_words};

/// Everything the page shows.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: &'a str,
    ok: bool,
    verdict: String,
    about: Vec<(String, String)>,
    tiles: Vec<Tile>,
    charts: Vec<Chart>,
    shades: Vec<String>,
    phases: &'a [PhaseReport],
    checks: &'a [Check],
    reconciliation: Option<&'a Reconciliation>,
}

/// One figure at the top.
struct Tile {
    value: String,
    label: &'static str,
    /// Whether it is what it should be.
    ok: bool,
}

/// The page of a demo run.
///
/// # Errors
/// When the template cannot be rendered, which a test rules out for every part of it.
pub fn demo(report: &DemoReport) -> Result<String, askama::Error> {
    let tile = |count: u64, label| Tile {
        value: grouped(&count.to_string()),
        label,
        ok: count == 0,
    };
    let plain = |count: u64, label| Tile {
        ok: true,
        ..tile(count, label)
    };
    let mut about = vec![
        ("Started".to_owned(), report.started_at.clone()),
        ("Took".to_owned(), format!("{:.1} s", report.seconds)),
        (
            "Machine".to_owned(),
            format!("{}, {} processors", report.machine.os, report.machine.cpus),
        ),
    ];
    about.extend(report.options.clone());
    Page {
        title: &report.title,
        ok: report.is_clean(),
        verdict: demo_verdict(report),
        about,
        tiles: vec![
            plain(report.requests, "requests"),
            Tile {
                ok: report.is_answered(),
                ..tile(report.no_answer, "without an answer")
            },
            tile(report.late, "late"),
            tile(report.wrong, "wrong"),
            Tile {
                ok: report.is_steady(),
                ..tile(report.longest_gap_ms, "ms, the longest pause")
            },
            plain(report.wal.longest_election_ms, "ms, the longest election"),
            plain(report.wal.entries, "answers in the log"),
            plain(report.wal.drained, "of them in the ledger"),
            tile(report.wal.backlog, "still to drain"),
        ],
        charts: charts(&report.timeline, &report.outages),
        shades: told(&report.outages),
        phases: &report.phases,
        checks: &report.checks,
        reconciliation: report.reconciliation.as_ref(),
    }
    .render()
}

/// The page of a reconciliation run.
///
/// # Errors
/// As [`demo`].
pub fn reconciliation(report: &Reconciliation) -> Result<String, askama::Error> {
    let findings = report.all_findings();
    let tile = |value: String, label, ok| Tile { value, label, ok };
    Page {
        title: "Standin reconciliation",
        ok: findings == 0,
        verdict: match findings {
            0 => {
                "Clean: every answer in the logs is in the ledger, and the sums add up.".to_owned()
            }
            1 => "1 finding needs attention.".to_owned(),
            more => format!("{} findings need attention.", grouped(&more.to_string())),
        },
        about: vec![
            ("Started".to_owned(), report.started_at.clone()),
            ("Ended".to_owned(), report.ended_at.clone()),
        ],
        tiles: vec![
            tile(
                grouped(&report.totals.all.count().to_string()),
                "final answers",
                true,
            ),
            tile(
                grouped(&report.totals.all.approved.to_string()),
                "approved",
                true,
            ),
            tile(
                grouped(&report.totals.all.declined.to_string()),
                "declined",
                true,
            ),
            tile(
                in_words(&report.totals.all.approved_minor),
                "approved money",
                true,
            ),
            tile(grouped(&findings.to_string()), "findings", findings == 0),
        ],
        charts: Vec::new(),
        shades: Vec::new(),
        phases: &[],
        checks: &[],
        reconciliation: Some(report),
    }
    .render()
}

fn demo_verdict(report: &DemoReport) -> String {
    let broken: Vec<&str> = report
        .checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| check.id.as_str())
        .collect();
    let unanswered = if report.is_answered() {
        0
    } else {
        report.no_answer
    };
    let mut wrong: Vec<String> = [
        (unanswered, "without an answer"),
        (report.late, "late"),
        (report.wrong, "wrong"),
        (report.wal.backlog, "left in the log"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", grouped(&count.to_string())))
    .collect();
    if !report.is_steady() {
        wrong.push(format!("answers paused for {} ms", report.longest_gap_ms));
    }
    if report.checks.is_empty() {
        wrong.push("nothing was checked".to_owned());
    }
    if !broken.is_empty() {
        wrong.push(format!("broken: {}", broken.join(", ")));
    }
    let findings = report
        .reconciliation
        .as_ref()
        .map_or(0, Reconciliation::all_findings);
    if findings > 0 {
        let word = if findings == 1 { "finding" } else { "findings" };
        wrong.push(format!("{findings} {word} in reconciliation"));
    }
    if wrong.is_empty() {
        format!(
            "Held: {} requests answered in time and rightly, nothing lost, nothing doubled.",
            grouped(&report.requests.to_string())
        )
    } else {
        format!("Not held: {}.", wrong.join("; "))
    }
}

/// What the shades of a timeline are, in words.
fn told(shades: &[Shade]) -> Vec<String> {
    let words = |shade: &Shade| {
        let (from, until) = (tenths(shade.from_ms), tenths(shade.until_ms));
        format!("{} from {from} s to {until} s", shade.label)
    };
    shades.iter().map(words).collect()
}

/// Milliseconds as seconds with one decimal.
fn tenths(ms: u64) -> String {
    let tenths = ms.div_euclid(100);
    format!("{}.{}", tenths.div_euclid(10), tenths.rem_euclid(10))
}

/// What a promise says, in a few words.
fn promise(id: &str) -> &'static str {
    PROMISES
        .iter()
        .chain([&MAJORITY])
        .find(|(known, _)| *known == id)
        .map_or("", |(_, words)| *words)
}

/// One row of a table of totals.
struct TotalsRow {
    name: String,
    approved: String,
    approved_money: String,
    declined: String,
    declined_money: String,
}

/// A breakdown: its name and its rows, the last of which is the whole.
fn breakdowns(totals: &Totals) -> Vec<(&'static str, Vec<TotalsRow>)> {
    let table = |mut rows: Vec<TotalsRow>| {
        rows.push(row("all".to_owned(), &totals.all));
        rows
    };
    let by_rung = totals
        .by_rung
        .iter()
        .map(|(rung, line)| row(rung.to_string(), line));
    let by_reason = totals
        .by_reason
        .iter()
        .map(|(reason, line)| row(reason.to_string(), line));
    let by_bank = totals
        .by_bank
        .iter()
        .map(|(bank, line)| row(bank.to_string(), line));
    vec![
        ("rung", table(by_rung.collect())),
        ("reason", table(by_reason.collect())),
        ("bank", table(by_bank.collect())),
    ]
}

fn row(name: String, line: &Line) -> TotalsRow {
    TotalsRow {
        name,
        approved: grouped(&line.approved.to_string()),
        approved_money: in_words(&line.approved_minor),
        declined: grouped(&line.declined.to_string()),
        declined_money: in_words(&line.declined_minor),
    }
}

/// How many answers of which sort: `12 approved (1,200.00 USD), 3 declined`.
fn line(line: &Line) -> String {
    let (approved, declined) = (line.approved, line.declined);
    format!(
        "{} {} ({}), {} {}",
        grouped(&approved.to_string()),
        Verdict::Approved,
        in_words(&line.approved_minor),
        grouped(&declined.to_string()),
        Verdict::Declined,
    )
}

/// Where an outage's entries went, as terms of a sum.
fn terms(proof: &OutageProof) -> Vec<(&'static str, u64)> {
    vec![
        ("drained", proof.drained),
        ("already booked", proof.already),
        ("in conflict", proof.conflicts),
        ("missing", proof.missing),
        ("without an answer", proof.unanswered),
        ("not payments", proof.other),
    ]
}

/// Heads of the table of logs, in the order of [`log_cells`].
const LOG_COLUMNS: [&str; 10] = [
    "last batch",
    "drained to",
    "entries",
    "payments",
    "matched",
    "missing",
    "differing",
    "conflicts",
    "extra",
    "drained now",
];

/// Cells of a log's row.
fn log_cells(log: &LogMatch) -> Vec<String> {
    [
        log.last_index,
        log.cursor,
        log.entries,
        log.outcomes,
        log.matched,
        log.missing,
        log.differing,
        log.conflicts,
        log.extra,
        log.drained_here,
    ]
    .into_iter()
    .map(|count| grouped(&count.to_string()))
    .collect()
}

/// The word of an open hold.
const HELD: &str = AuthorizationState::Held.as_str();

#[cfg(test)]
mod tests;
