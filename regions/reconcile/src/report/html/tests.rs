#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "test code"
)]

use std::collections::BTreeMap;

use uuid::Uuid;

use standin_core::answer::{Reason, Rung, Why};
use standin_core::money::{Currency, Money};

use super::*;
use crate::report::drill::deployed::{Between, Counted, DeployedReport, Part};
use crate::report::drill::{DrillReport, Figures, Injection};
use crate::report::reconciliation::*;
use crate::report::{LedgerFigures, Machine, Shade, Tick, WalFigures};

fn line_of(approved: u32, declined: u32) -> Line {
    let mut line = Line::default();
    for n in 0..approved {
        line.add(
            Verdict::Approved,
            Money::from_minor(8_000 + i64::from(n), Currency::USD),
        );
    }
    for _ in 0..declined {
        line.add(Verdict::Declined, Money::from_minor(20_000, Currency::USD));
    }
    line
}

fn run() -> Reconciliation {
    let totals = Totals {
        all: line_of(4_100, 300),
        by_rung: BTreeMap::from([
            (Rung::Primary, line_of(2_000, 200)),
            (Rung::StandIn, line_of(2_100, 100)),
        ]),
        by_reason: BTreeMap::from([
            (Reason::WithinCap, line_of(2_000, 0)),
            (Reason::WithinStandInLimits, line_of(2_100, 0)),
            (Reason::OverCap, line_of(0, 200)),
            (Reason::AmbiguousMerchant, line_of(0, 100)),
        ]),
        by_bank: BTreeMap::from([("acme".parse().unwrap(), line_of(4_100, 300))]),
    };
    Reconciliation {
        started_at: "2026-11-23T08:00:00.000Z".to_owned(),
        ended_at: "2026-11-23T08:00:01.000Z".to_owned(),
        totals,
        logs: vec![LogMatch {
            log: Uuid::from_u128(0xabcd_ef01_2345),
            first_index: 1,
            last_index: 3_812,
            cursor: 3_812,
            entries: 4_412,
            outcomes: 4_400,
            matched: 4_400,
            missing: 0,
            differing: 0,
            conflicts: 0,
            drained_here: 0,
            extra: 0,
        }],
        outages: vec![OutageProof {
            log: Uuid::from_u128(5),
            why: Why::Timeout,
            from: "2026-11-23T07:59:10.000Z".to_owned(),
            until: Some("2026-11-23T07:59:20.000Z".to_owned()),
            lasted_ms: 10_040,
            entries: 2_212,
            drained: 2_200,
            already: 11,
            conflicts: 0,
            missing: 0,
            unanswered: 0,
            other: 1,
            sums: line_of(2_100, 100),
            drained_sums: line_of(2_100, 100),
        }],
        holds: HoldFigures::default(),
        late: Line::default(),
        elsewhere: 0,
        variance: Variance::default(),
        exposure: Exposure {
            stand_in: line_of(2_100, 100),
            ..Exposure::default()
        },
        findings: Vec::new(),
        findings_unlisted: 0,
    }
}

fn phase(name: &str, rung: &str) -> PhaseReport {
    PhaseReport {
        name: name.to_owned(),
        requests: 2_000,
        p50_ms: 2.14,
        p99_ms: 8.71,
        max_ms: 101.3,
        rungs: BTreeMap::from([(rung.to_owned(), 1_990), ("isolated".to_owned(), 10)]),
        approved: 1_900,
        declined: BTreeMap::from([(Reason::OverCap, 60), (Reason::WrongStore, 40)]),
    }
}

fn tick(second: u32) -> Tick {
    let out = (10..20).contains(&second);
    let rung = if out { "stand_in" } else { "primary" }.to_owned();
    let backlog = match second {
        10..20 => (second - 9) * 200,
        20..23 => 2_000 - (second - 19) * 600,
        _ => 0,
    };
    let slow = if second == 10 {
        101.0
    } else {
        4.0 + f64::from(second % 4)
    };
    Tick {
        at_ms: u64::from(second) * 1_000,
        replies: BTreeMap::from([(rung.clone(), u64::from(195 + second % 7))]),
        p99_ms: BTreeMap::from([(rung, slow)]),
        backlog: u64::from(backlog),
    }
}

fn report() -> DemoReport {
    DemoReport {
        title: "Standin demo".to_owned(),
        started_at: "2026-11-23T07:59:00.000Z".to_owned(),
        seconds: 30.4,
        options: BTreeMap::from([
            ("Rate".to_owned(), "200 a second".to_owned()),
            ("Baskets".to_owned(), "the committed sample".to_owned()),
        ]),
        machine: Machine {
            os: "linux x86_64".to_owned(),
            cpus: 2,
        },
        requests: 6_000,
        no_answer: 0,
        late: 0,
        wrong: 0,
        retried: 0,
        longest_gap_ms: 12,
        phases: vec![
            phase("primary", "primary"),
            phase("stand_in", "stand_in"),
            phase("recovered", "primary"),
        ],
        wal: WalFigures {
            entries: 4_400,
            drained: 4_400,
            backlog: 0,
            members: 3,
            leader_changes: 1,
            longest_election_ms: 480,
        },
        ledger: LedgerFigures {
            authorizations: 4_400,
        },
        checks: PROMISES
            .iter()
            .map(|(id, _)| Check {
                id: (*id).to_owned(),
                ok: true,
                detail: format!("4,100 things looked at for {id}"),
            })
            .collect(),
        timeline: (0..30).map(tick).collect(),
        outages: vec![
            Shade {
                from_ms: 10_000,
                until_ms: 12_000,
                label: "primary hangs".to_owned(),
            },
            Shade {
                from_ms: 12_000,
                until_ms: 20_000,
                label: "primary gone".to_owned(),
            },
        ],
        reconciliation: Some(run()),
    }
}

/// For looking at in a browser: `STANDIN_HTML_OUT=dir cargo test …`.
fn keep(name: &str, html: &str) {
    if let Some(dir) = std::env::var_os("STANDIN_HTML_OUT") {
        std::fs::write(std::path::Path::new(&dir).join(name), html).unwrap();
    }
}

#[test]
fn the_demo_page_says_all_of_its_report() {
    let html = demo(&report()).unwrap();
    keep("demo.html", &html);
    for words in [
        "Held: 6,000 requests answered in time and rightly",
        "primary hangs from 10.0 s to 12.0 s; primary gone from 12.0 s to 20.0 s",
        "At most 2000, back to 0 at 23 s; 0 at the end.",
        "stand_in 101.0 ms",
        "<th>recovered</th>",
        "<th>stand_in</th>",
        "✓ S15",
        "2,212 entries",
        "It adds up.",
        "within_stand_in_limits",
        "2026-11-23T07:59:10.000Z",
        "prefers-color-scheme: dark",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for outside in [
        "http://", "https://", "<script", "<link", "<img", "@import", "url(",
    ] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(
        html.matches("<svg").count(),
        6,
        "three charts, wide and narrow"
    );
}

#[test]
fn a_broken_run_says_so_first() {
    let mut report = report();
    report.wrong = 3;
    report.wal.backlog = 7;
    report.checks[3].ok = false;
    report.checks[3].detail = "1 breach of: <rows>".to_owned();
    let run = report.reconciliation.as_mut().unwrap();
    run.outages[0].drained -= 1;
    run.find(Finding {
        kind: FindingKind::Conflict,
        transaction_id: Some("0123456789abcdef0123456789abcdef".parse().unwrap()),
        detail: "other_answer".to_owned(),
        amount_minor: 1_250,
        currency: Some(Currency::USD),
        bank: Some("acme".parse().unwrap()),
    });
    let html = demo(&report).unwrap();
    keep("broken.html", &html);
    for words in [
        "Not held: 3 wrong; 7 left in the log; broken: S4; 1 finding in reconciliation.",
        "✗ S4",
        "&#60;rows&#62;",
        "It does not add up.",
        "0123456789abcdef0123456789abcdef",
        "12.50 USD",
    ] {
        assert!(html.contains(words), "{words}");
    }
    assert!(!report.is_clean());
}

#[test]
fn the_reconciliation_page_stands_alone() {
    let html = reconciliation(&run()).unwrap();
    keep("reconcile.html", &html);
    for words in [
        "Clean: every answer",
        "4,400",
        "by bank",
        "Exposure",
        "2,212 entries",
    ] {
        assert!(html.contains(words), "{words}");
    }
    assert!(!html.contains("<svg"));
}

#[test]
fn the_json_has_the_names_that_programs_read() {
    let json = serde_json::to_value(report()).unwrap();
    for name in ["requests", "no_answer", "late", "wrong"] {
        assert!(json[name].is_u64(), "{name}");
    }
    let phase = &json["phases"][1];
    assert_eq!(phase["name"], "stand_in");
    assert_eq!(phase["rungs"]["stand_in"], 1_990);
    assert_eq!(phase["declined"]["over_cap"], 60);
    for name in ["requests", "p50_ms", "p99_ms", "max_ms", "approved"] {
        assert!(phase[name].is_number(), "{name}");
    }
    assert_eq!(json["wal"]["backlog"], 0);
    assert_eq!(json["ledger"]["authorizations"], 4_400);
    assert_eq!(json["checks"][0]["id"], "S1");
    let back: DemoReport = serde_json::from_value(json).unwrap();
    assert_eq!(back, report());
}

fn a_drill() -> DrillReport {
    let ticks = (0..80).map(|step: u64| Tick {
        at_ms: step * 500,
        replies: BTreeMap::from([
            (
                "primary".to_owned(),
                if (20..50).contains(&step) { 3 } else { 490 },
            ),
            (
                "primary_only".to_owned(),
                if (20..50).contains(&step) { 480 } else { 0 },
            ),
        ]),
        p99_ms: BTreeMap::from([("primary".to_owned(), 21.5)]),
        backlog: step,
    });
    let check = |id: &str, ok| Check {
        id: id.to_owned(),
        ok,
        detail: "1 of: <rows>".to_owned(),
    };
    DrillReport {
        name: "primary-killed".to_owned(),
        title: "The Postgres primary is killed".to_owned(),
        hypothesis: "Every edge stands in.".to_owned(),
        steady_state: "1000 payments a second.".to_owned(),
        started_at: "2026-11-30T20:00:00.000Z".to_owned(),
        seconds: 61.5,
        options: BTreeMap::from([("Seed".to_owned(), "1".to_owned())]),
        machine: Machine {
            os: "linux x86_64".to_owned(),
            cpus: 2,
        },
        injection: Injection {
            what: "The Postgres primary is killed".to_owned(),
            proofs: Vec::new(),
            restored: true,
        },
        figures: Figures {
            payments: 40_000,
            prompt_percent: 99.98,
            exposed_minor: 123_456,
            ..Figures::default()
        },
        verdicts: vec![
            check("injected", true),
            check("L1", true),
            check("L2", true),
        ],
        checks: vec![check("S1", true), check("S2", true)],
        phases: Vec::new(),
        timeline: ticks.collect(),
        exposure: (0..80).map(|step| step * 100).collect(),
        currency: "USD".to_owned(),
        shades: vec![Shade {
            from_ms: 10_000,
            until_ms: 25_000,
            label: "the primary is gone".to_owned(),
        }],
        notes: vec!["A note <b>".to_owned()],
    }
}

#[test]
fn a_drills_page_says_its_verdict_in_words_and_loads_nothing() {
    let mut report = a_drill();
    let html = drill(&report).unwrap();
    keep("drill.html", &html);
    for words in [
        "Passed: 40,000 payments, every expectation and every promise kept.",
        "Every edge stands in.",
        "✓ L2",
        "standing in begins at once",
        "one payment never has two answers",
        "the primary is gone from 10.0 s to 25.0 s",
        "Money approved without the primary",
        "1,234 USD",
        "At most 79 USD.",
        "A note &#60;b&#62;",
        "primary_only",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for loads in ["http://", "https://", "<script", "<link", "url("] {
        assert!(!html.contains(loads), "{loads}");
    }
    report.verdicts[2].ok = false;
    report.checks[1].ok = false;
    let html = drill(&report).unwrap();
    assert!(html.contains("Failed. Not kept: L2, S2."), "{html}");
    report.verdicts.clear();
    assert!(!report.passed());
}

#[test]
fn a_deployed_drills_page_says_where_what_was_counted_and_what_is_not_judged() {
    let local = a_drill();
    let part = Part {
        ms: 10_000,
        answered: 12_000,
        prompt: 11_990,
        rungs: BTreeMap::from([("stand_in".to_owned(), 12_000)]),
        p99_ms: Some(34.5),
        ..Part::default()
    };
    let mut report = DeployedReport {
        name: local.name,
        title: local.title,
        hypothesis: local.hypothesis,
        steady_state: local.steady_state,
        started_at: local.started_at,
        seconds: local.seconds,
        deployment: "staging-eu".to_owned(),
        options: BTreeMap::from([("Played on".to_owned(), "near/1, near/2".to_owned())]),
        injection: local.injection,
        aborted: None,
        figures: Counted {
            fault: part.clone(),
            played: part,
            first_stand_in: Some(Between {
                after_ms: 10,
                by_ms: 110,
            }),
            ..Counted::default()
        },
        verdicts: local.verdicts,
        timeline: local.timeline,
        exposure: local.exposure,
        currency: local.currency,
        shades: local.shades,
        notes: local.notes,
    };
    let html = deployed(&report).unwrap();
    keep("deployed.html", &html);
    for words in [
        "The Postgres primary is killed, on staging-eu",
        "Passed: every expectation that can be judged on a deployment was kept.",
        "near/1, near/2",
        "Not judged here: the promises S1 to S19",
        "in it, where it was played",
        "stand_in 12,000",
        "11,990",
        "34.5",
        "Money approved without the primary",
        "A note &#60;b&#62;",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for loads in ["http://", "https://", "<script", "<link", "url("] {
        assert!(!html.contains(loads), "{loads}");
    }
    let json = serde_json::to_value(&report).unwrap();
    let back: DeployedReport = serde_json::from_value(json).unwrap();
    assert_eq!(back, report);
    report.verdicts[2].ok = false;
    let html = deployed(&report).unwrap();
    assert!(html.contains("Failed. Not kept: L2."), "{html}");
    report.verdicts.clear();
    assert!(!report.passed(), "nothing was judged");
}

#[test]
fn a_list_of_drills_links_to_each_and_says_which_failed() {
    let mut failed = a_drill();
    failed.verdicts[1].ok = false;
    let links = ["a/drill.html".to_owned(), "b/drill.html".to_owned()];
    let html = drills(&[a_drill(), failed], &links).unwrap();
    keep("drills.html", &html);
    for words in ["1 of 2 drills passed.", "a/drill.html", "99.980 %", "L1"] {
        assert!(html.contains(words), "{words}");
    }
    assert!(
        drills(&[a_drill()], &links)
            .unwrap()
            .contains("All 1 drills passed.")
    );
    assert!(!drills(&[], &[]).unwrap().contains("All"));
    let json = serde_json::to_value(a_drill()).unwrap();
    let back: DrillReport = serde_json::from_value(json).unwrap();
    assert_eq!(back, a_drill());
}
