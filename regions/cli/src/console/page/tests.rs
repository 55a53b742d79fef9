#![allow(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "test code"
)]

use serde_json::json;
use standin_core::clock::Timestamp;

use super::super::edge_page::EdgePage;
use super::super::exposition::Counters;
use super::super::reports::{Drill, FindingLine, LastRun};
use super::super::watch::{Looked, Seen};
use super::*;

fn edge(name: &str, rung: &str) -> Looked {
    let page = json!({
        "region": "east", "rung": rung, "stand_in": {"mode": "auto", "outage": null},
        "breaker": {"position": {"state": "open", "admits_percent": 0, "why": "timeout"}},
        "wal": {"leader": 1, "node": 1, "term": 4, "last_index": 1_234},
        "exposure": {"currency": "USD", "approved_without_primary_minor": 120_050,
                     "worst_case_minor": 5_000_000},
        "trip_cache": {"age_ms": 40},
        "alarms": [{"name": "conflict", "since": "2025-11-30T20:13:00.000Z",
                    "detail": "<script>alert(1)</script>"}],
    });
    let mut seen = Seen {
        heard_at: Some(Timestamp::from_millis(1_764_533_643_123)),
        page: EdgePage::read(page.to_string().as_bytes()).unwrap(),
        ..Seen::default()
    };
    for second in 0..=10_u64 {
        let text = format!(
            "standin_answers_total{{rung=\"{rung}\"}} {}
standin_answer_duration_seconds_bucket{{rung=\"{rung}\",le=\"2\"}} 0
standin_answer_duration_seconds_bucket{{rung=\"{rung}\",le=\"+Inf\"}} {}",
            second * 25,
            second * 25
        );
        seen.history
            .hear(590_000 + second * 1_000, Counters::read(&text));
    }
    Looked {
        named: format!("{name}=http://127.0.0.1:1").parse().unwrap(),
        seen,
    }
}

fn page(edges: &[Looked], reports: Option<Reports>) -> Page {
    let at = Timestamp::from_millis(1_764_533_650_000);
    Page::of(&State::of(edges, reports, at, 600_000)).unwrap()
}

fn reports() -> Reports {
    Reports {
        reconciliation: Some(LastRun {
            ended_at: "2025-11-30T20:00:00.000Z".to_owned(),
            answers: Some(4_400),
            outages: Some(1),
            findings: vec![FindingLine {
                kind: "missing".to_owned(),
                detail: "no row & no word".to_owned(),
                at_stake: "12.50 USD".to_owned(),
                ..FindingLine::default()
            }],
            findings_all: 1,
            ..LastRun::default()
        }),
        drill: Some(Drill {
            name: "primary-kill".to_owned(),
            doing: "inject".to_owned(),
            ..Drill::default()
        }),
        trouble: Some("half a file".to_owned()),
    }
}

#[test]
fn the_page_says_everything_that_there_is_to_say() {
    let mut silent = edge("two", "primary");
    silent.seen.silent = Some("no reply within 2 s".to_owned());
    let html = page(&[edge("one", "stand_in"), silent], Some(reports()))
        .html()
        .unwrap();
    for words in [
        "✗</span> Trouble: two not heard from since 20:14:03 UTC",
        "<b>Exposure</b> now 1,200.50 USD; at worst 50,000.00 USD.",
        "<b>Outage</b> none that a log knows of.",
        "<b>Drill</b> in progress: primary-kill, inject.",
        "! stand_in, cause timeout",
        "stand_in 25.0, over 2000 ms",
        "was primary",
        "✗ not heard from since 20:14:03 UTC: no reply within 2 s",
        "leads, term 4, entry 1,234, 0\u{a0}% full",
        "20:13:00 UTC",
        "! 1 finding.",
        "4,400 final answers matched, outages proved: 1.",
        "no row &#38; no word",
        "A report could not be read: half a file",
        "Snapshot of 20:14:10 UTC",
        "−10 min",
    ] {
        assert!(html.contains(words), "{words}\n{html}");
    }
}

#[test]
fn text_of_an_edge_is_never_markup() {
    let html = page(&[edge("<b>", "primary")], None).html().unwrap();
    assert!(!html.contains("<script>alert"));
    assert!(html.contains("&#60;script&#62;alert(1)"));
    assert!(!html.contains("<th scope=\"row\"><b>"));
}

#[test]
fn without_reports_the_page_says_so_and_a_clean_run_is_called_clean() {
    let none = page(&[edge("a", "primary")], None).html().unwrap();
    assert!(none.contains("No folder of reports was named"));
    let clean = Reports {
        reconciliation: Some(LastRun::default()),
        ..Reports::default()
    };
    let clean = page(&[edge("a", "primary")], Some(clean)).html().unwrap();
    assert!(clean.contains("✓ Clean: no findings."));
    assert!(clean.contains("None has written a report in the folder."));
}

#[test]
fn a_part_that_did_not_change_is_the_same_text() {
    let first = page(&[edge("a", "primary")], None);
    let again = page(&[edge("a", "primary")], None);
    assert_eq!(first, again);
    let other = page(&[edge("a", "stand_in")], None);
    let changed: Vec<_> = first
        .parts
        .iter()
        .zip(&other.parts)
        .filter(|(before, after)| before != after)
        .map(|(before, _)| before.name)
        .collect();
    assert_eq!(changed, ["verdict", "regions", "traffic", "charts"]);
}

#[test]
fn the_policy_names_what_stands_in_the_page() {
    let html = page(&[edge("a", "primary")], None).html().unwrap();
    let between = |open: &str, close: &str| {
        let (_, rest) = html.split_once(open).unwrap();
        rest.split_once(close).unwrap().0.to_owned()
    };
    let policy = policy();
    for (kind, text) in [
        ("style-src", between("<style>", "</style>")),
        ("script-src", between("<script>", "</script>")),
    ] {
        let digest = Sha256::digest(text.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(digest);
        assert!(
            policy.contains(&format!("{kind} 'sha256-{hash}'")),
            "{kind}"
        );
    }
    assert!(policy.starts_with("default-src 'none'"));
    assert!(!policy.contains("unsafe"));
    // Nothing in the page needs what the policy forbids.
    assert!(!html.contains(" style=\"") && !html.contains(" onclick"));
}
