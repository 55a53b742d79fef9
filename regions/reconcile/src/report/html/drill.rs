//! `drill.html`: one drill, on one machine or on a deployment, and the list of several.

use askama::Template;

use super::super::chart::{self, Chart};
use super::super::drill::deployed::{Counted, DeployedReport, NOT_JUDGED, Part};
use super::super::drill::{DrillReport, Figures};
use super::{Tile, grouped, promise, told};
use crate::checker::Check;
use crate::report::PhaseReport;

#[derive(Template)]
#[template(path = "drill.html")]
struct Page<'a> {
    title: &'a str,
    ok: bool,
    verdict: String,
    hypothesis: &'a str,
    steady_state: &'a str,
    what: &'a str,
    about: Vec<(String, String)>,
    tiles: Vec<Tile>,
    verdicts: &'a [Check],
    notes: &'a [String],
    charts: Vec<Chart>,
    shades: Vec<String>,
    phases: &'a [PhaseReport],
    checks: &'a [Check],
}

#[derive(Template)]
#[template(path = "drills.html")]
struct List {
    ok: bool,
    verdict: String,
    drills: Vec<Row>,
}

#[derive(Template)]
#[template(path = "deployed.html")]
struct DeployedPage<'a> {
    deployment: &'a str,
    title: &'a str,
    ok: bool,
    verdict: String,
    hypothesis: &'a str,
    steady_state: &'a str,
    what: &'a str,
    about: Vec<(String, String)>,
    tiles: Vec<Tile>,
    verdicts: &'a [Check],
    not_judged: &'static str,
    notes: &'a [String],
    charts: Vec<Chart>,
    shades: Vec<String>,
    phases: Vec<PartRow>,
}

/// One part of a drill on a deployment.
struct PartRow {
    name: &'static str,
    cells: [(&'static str, String); 6],
    rungs: String,
}

/// One drill in the list.
struct Row {
    link: String,
    title: String,
    ok: bool,
    payments: String,
    prompt: String,
    late: String,
    unanswered: String,
    p99: String,
    failures: String,
}

/// The page of one drill.
///
/// # Errors
/// When the template cannot be rendered, which a test rules out for every part of it.
pub fn drill(report: &DrillReport) -> Result<String, askama::Error> {
    let mut about = vec![
        ("Started".to_owned(), report.started_at.clone()),
        ("Took".to_owned(), format!("{:.1} s", report.seconds)),
        (
            "Machine".to_owned(),
            format!("{}, {} processors", report.machine.os, report.machine.cpus),
        ),
    ];
    about.extend(report.options.clone());
    let mut charts = chart::charts(&report.timeline, &report.shades);
    charts.extend(chart::exposure(
        &report.timeline,
        &report.exposure,
        &report.currency,
        &report.shades,
    ));
    Page {
        title: &report.title,
        ok: report.passed(),
        verdict: verdict(report),
        hypothesis: &report.hypothesis,
        steady_state: &report.steady_state,
        what: &report.injection.what,
        about,
        tiles: tiles(&report.figures, &report.currency),
        verdicts: &report.verdicts,
        notes: &report.notes,
        charts,
        shades: told(&report.shades),
        phases: &report.phases,
        checks: &report.checks,
    }
    .render()
}

/// The page of one drill on a deployment.
///
/// # Errors
/// As [`drill`].
pub fn deployed(report: &DeployedReport) -> Result<String, askama::Error> {
    let mut about = vec![
        ("Started".to_owned(), report.started_at.clone()),
        ("Took".to_owned(), format!("{:.1} s", report.seconds)),
    ];
    about.extend(report.options.clone());
    let mut charts = chart::charts(&report.timeline, &report.shades);
    charts.extend(chart::exposure(
        &report.timeline,
        &report.exposure,
        &report.currency,
        &report.shades,
    ));
    let failures: Vec<&str> = report.failures().map(|check| check.id.as_str()).collect();
    let figures = &report.figures;
    DeployedPage {
        deployment: &report.deployment,
        title: &report.title,
        ok: report.passed(),
        verdict: match failures.is_empty() {
            true => {
                "Passed: every expectation that can be judged on a deployment was kept.".to_owned()
            }
            false => format!("Failed. Not kept: {}.", failures.join(", ")),
        },
        hypothesis: &report.hypothesis,
        steady_state: &report.steady_state,
        what: &report.injection.what,
        about,
        tiles: deployed_tiles(figures, &report.currency),
        verdicts: &report.verdicts,
        not_judged: NOT_JUDGED,
        notes: &report.notes,
        charts,
        shades: told(&report.shades),
        phases: vec![
            PartRow::of("before", &figures.before),
            PartRow::of("in the fault", &figures.fault),
            PartRow::of("in it, where it was played", &figures.played),
            PartRow::of("after it", &figures.after),
        ],
    }
    .render()
}

impl PartRow {
    fn of(name: &'static str, part: &Part) -> Self {
        let p99 = part.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let rungs = part.rungs.iter();
        let rungs: Vec<String> = rungs
            .map(|(rung, n)| format!("{rung} {}", count(*n)))
            .collect();
        Self {
            name,
            cells: [
                ("requests", count(part.requests())),
                ("answered", count(part.answered)),
                ("within 300 ms", count(part.prompt)),
                ("late", count(part.late)),
                ("no answer", count(part.unanswered)),
                ("p99 ms", p99),
            ],
            rungs: rungs.join(", "),
        }
    }
}

/// The list of several drills; `links` are to their pages, in the same order.
///
/// # Errors
/// As [`drill`].
pub fn drills(reports: &[DrillReport], links: &[String]) -> Result<String, askama::Error> {
    let passed = reports.iter().filter(|report| report.passed()).count();
    let ok = passed == reports.len() && !reports.is_empty();
    let rows = reports.iter().zip(links).map(|(report, link)| {
        let figures = &report.figures;
        Row {
            link: link.clone(),
            title: report.title.clone(),
            ok: report.passed(),
            payments: count(figures.payments),
            prompt: format!("{:.3} %", figures.prompt_percent),
            late: count(figures.late),
            unanswered: count(figures.unanswered),
            p99: format!(
                "{:.0}, {:.0}, {:.0}",
                figures.p99_steady_ms, figures.p99_fault_ms, figures.p99_after_ms
            ),
            failures: failures(report),
        }
    });
    List {
        ok,
        verdict: if ok {
            format!("All {passed} drills passed.")
        } else {
            format!("{passed} of {} drills passed.", reports.len())
        },
        drills: rows.collect(),
    }
    .render()
}

fn verdict(report: &DrillReport) -> String {
    if report.passed() {
        return format!(
            "Passed: {} payments, every expectation and every promise kept.",
            count(report.figures.payments)
        );
    }
    match failures(report) {
        none if none.is_empty() => "Failed: nothing was judged.".to_owned(),
        some => format!("Failed. Not kept: {some}."),
    }
}

fn failures(report: &DrillReport) -> String {
    let names: Vec<&str> = report.failures().map(|check| check.id.as_str()).collect();
    names.join(", ")
}

fn tiles(figures: &Figures, currency: &str) -> Vec<Tile> {
    let tile = |value: String, label, ok| Tile { value, label, ok };
    let plain = |value: String, label| tile(value, label, true);
    let ms = |ms: f64| format!("{ms:.1}");
    let money = |minor: i64| format!("{} {currency}", grouped(&minor.div_euclid(100).to_string()));
    let stand_in = figures.first_stand_in_ms.map_or("none".to_owned(), count);
    let drained = figures.drained_in_ms.map_or("never".to_owned(), count);
    vec![
        plain(count(figures.payments), "payments"),
        plain(
            format!("{:.3} %", figures.prompt_percent),
            "answered within 300 ms",
        ),
        tile(count(figures.late), "answered late", figures.late == 0),
        plain(count(figures.unanswered), "without an answer"),
        tile(count(figures.wrong), "wrong answers", figures.wrong == 0),
        plain(ms(figures.p99_steady_ms), "ms, p99 before"),
        plain(ms(figures.p99_fault_ms), "ms, p99 in the fault"),
        plain(ms(figures.p99_after_ms), "ms, p99 after it"),
        plain(stand_in, "ms to the first stand-in answer"),
        plain(count(figures.longest_gap_ms), "ms, the longest pause"),
        plain(count(figures.backlog), "answers to drain at its end"),
        plain(drained, "ms until they were drained"),
        plain(money(figures.exposed_minor), "approved without the primary"),
        plain(
            money(figures.worst_case_minor),
            "the worst case, known before",
        ),
    ]
}

fn deployed_tiles(counted: &Counted, currency: &str) -> Vec<Tile> {
    let tile = |value: String, label, ok| Tile { value, label, ok };
    let plain = |value: String, label| tile(value, label, true);
    let money = |minor: i64| format!("{} {currency}", grouped(&minor.div_euclid(100).to_string()));
    let parts = [&counted.before, &counted.fault, &counted.after];
    let sum = |of: fn(&Part) -> u64| {
        let parts = parts.iter().map(|part| of(part));
        parts.fold(0, u64::saturating_add)
    };
    let late = sum(|part| part.late);
    let stand_in = counted.first_stand_in.map(|between| between.by_ms);
    vec![
        plain(count(sum(Part::requests)), "requests"),
        plain(count(sum(|part| part.prompt)), "answered within 300 ms"),
        tile(count(late), "answered late", late == 0),
        plain(count(sum(|part| part.unanswered)), "without an answer"),
        plain(
            stand_in.map_or("none".to_owned(), count),
            "ms, by when one had stood in",
        ),
        plain(count(counted.backlog), "answers to drain at its end"),
        plain(
            counted.drained_in_ms.map_or("never".to_owned(), count),
            "ms until they were drained",
        ),
        plain(
            counted.settled_in_ms.map_or("never".to_owned(), count),
            "ms until all was as before",
        ),
        plain(money(counted.exposed_minor), "approved without the primary"),
        plain(
            money(counted.worst_case_minor),
            "the worst case, known before",
        ),
    ]
}

/// What an expectation says, in a few words.
fn expectation(id: &str) -> &'static str {
    match id {
        "injected" => "the fault is proved to have happened",
        "steady" => "all was well before",
        "restored" => "what was broken was put right",
        "L1" => "banks are answered promptly, and none after the deadline",
        "L2" => "standing in begins at once",
        "L3" => "nothing told is lost, doubled or wrong",
        "L4" => "the backlog drains without hurting live traffic",
        "L5" => "goodput holds, and returns by itself",
        "L6" => "no flapping",
        "settled" => "everything is as before, by itself",
        "whole" => "nobody and nothing ended it before its time",
        "rungs" => "answers are given on the rungs that the fault leaves",
        _ => "",
    }
}

fn count(count: u64) -> String {
    grouped(&count.to_string())
}
