#![allow(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    reason = "test code"
)]

use serde_json::{Value, json};

use super::super::edges::Named;
use super::super::reports::{FindingLine, LastRun};
use super::*;

const NOW_MS: u64 = 600_000;
const AT: Timestamp = Timestamp::from_millis(1_764_533_643_123);

/// A status page as an edge writes it, in what the console reads.
fn page(region: &str, applied: u64) -> Value {
    json!({
        "region": region, "edge": 1, "rung": "primary",
        "stand_in": {"mode": "auto", "outage": null},
        "breaker": {"position": {"state": "closed", "admits_percent": 100}, "changes": 0},
        "wal": {"incarnation": region, "node": 1, "term": 3, "leader": 1, "keepers": [1, 2, 3],
                "learners": [], "last_index": applied, "applied_index": applied,
                "bytes_used": 25, "budget_bytes": 100},
        "drain": {"cursor": 7, "backlog": 2},
        "exposure": {"currency": "USD", "approved_without_primary_minor": 1_250,
                     "worst_case_minor": 500_000,
                     "parts": {"stand_in_minor": 400_000, "old_trips_minor": 60_000,
                               "reserves_minor": 40_000}},
        "trip_cache": {"age_ms": 40}, "alarms": [],
    })
}

fn looked(name: &str, page: &Value) -> Looked {
    Looked {
        named: format!("{name}=http://127.0.0.1:1")
            .parse::<Named>()
            .unwrap(),
        seen: Seen {
            heard_at: Some(AT),
            page: EdgePage::read(page.to_string().as_bytes()).unwrap(),
            ..Seen::default()
        },
    }
}

fn never_heard(name: &str) -> Looked {
    let mut edge = looked(name, &json!({}));
    edge.seen.heard_at = None;
    edge.seen.silent = Some("cannot connect".to_owned());
    edge
}

fn state(edges: &[Looked]) -> State {
    State::of(edges, None, AT, NOW_MS)
}

fn hear(edge: &mut Looked, at_ms: u64, answers: u64) {
    let text = format!(
        "standin_answers_total{{rung=\"primary\"}} {answers}
standin_answer_duration_seconds_bucket{{rung=\"primary\",le=\"0.01\"}} {answers}
standin_answer_duration_seconds_bucket{{rung=\"primary\",le=\"+Inf\"}} {answers}"
    );
    edge.seen.history.hear(at_ms, Counters::read(&text));
}

#[test]
fn a_healthy_region_is_well_and_says_its_figures() {
    let [mut one, mut two] = ["one", "two"].map(|name| looked(name, &page("east", 9)));
    for second in 0..=20_u64 {
        hear(&mut one, 580_000 + second * 1_000, second * 10);
        hear(&mut two, 580_000 + second * 1_000, second * 5);
    }
    let state = state(&[one, two]);
    assert_eq!(state.verdict.level, Level::Well);
    assert_eq!(
        state.verdict.text,
        "Well: 2 edges in 1 region answer on the primary."
    );
    // Both edges speak of the same log: its money counts once.
    assert_eq!(state.exposure.now, Sums::from([(Currency::USD, 1_250)]));
    assert_eq!(state.exposure.worst, Sums::from([(Currency::USD, 500_000)]));
    assert!(state.exposure.not_current.is_empty());
    assert_eq!((state.backlog, state.trip_age_ms), (2, Some(40)));
    assert!((state.traffic.answered.per_second - 15.0).abs() < 0.01);
    assert!((state.traffic.answered.p99_ms.unwrap() - 9.9).abs() < 0.11);
    let edge = &state.regions[0].edges[1];
    assert!((edge.traffic.by_rung[0].rate.per_second - 5.0).abs() < 0.01);
    assert_eq!((edge.wal.role, edge.wal.used_percent), ("leads", 25));
    // 580 s to 600 s are the last four steps; the one that begins now is not over.
    assert_eq!(state.timeline.len(), 120);
    let replies: Vec<u64> = state.timeline[115..]
        .iter()
        .map(|tick| tick.replies.get("primary").copied().unwrap_or(0))
        .collect();
    assert_eq!(replies, [0, 75, 75, 75, 75]);
    assert!(state.gaps.is_empty());
}

#[test]
fn an_edge_that_is_not_heard_is_trouble_and_speaks_for_nobody() {
    let mut stale = looked("stale", &page("east", 99));
    stale.seen.page.exposure.approved_without_primary_minor = 77;
    stale.seen.silent = Some("no reply within 2 s".to_owned());
    let fresh = looked("fresh", &page("east", 9));
    let state = state(&[stale.clone(), fresh]);
    assert_eq!(state.verdict.level, Level::Trouble);
    assert_eq!(
        state.verdict.text,
        "Trouble: stale not heard from since 20:14:03 UTC."
    );
    assert_eq!(state.exposure.now, Sums::from([(Currency::USD, 1_250)]));
    assert!(state.exposure.not_current.is_empty());

    // Alone, its last word is all there is, and is called so.
    let state = super::tests::state(&[stale]);
    assert_eq!(state.exposure.now, Sums::from([(Currency::USD, 77)]));
    assert_eq!(state.exposure.not_current, ["stale"]);
    assert_eq!(state.trip_age_ms, None);
    assert!(state.outages.is_empty());
}

#[test]
fn an_edge_never_heard_leaves_the_exposure_open() {
    let state = state(&[looked("a", &page("east", 1)), never_heard("b")]);
    assert_eq!(state.regions[1].name, NOWHERE);
    assert_eq!(state.exposure.not_current, ["b"]);
    assert_eq!(state.verdict.text, "Trouble: b not heard from yet.");
    let mut asked = never_heard("c");
    asked.seen.silent = None;
    let state = super::tests::state(&[asked]);
    assert_eq!(state.verdict.text, "Attention: c is being asked.");
}

#[test]
fn money_of_several_regions_and_logs_is_added() {
    let mut other_log = page("east", 1);
    other_log["wal"]["incarnation"] = json!("another");
    let mut yen = page("west", 1);
    yen["exposure"]["currency"] = json!("JPY");
    let edges = [
        looked("a", &page("east", 1)),
        looked("b", &other_log),
        looked("c", &yen),
    ];
    let state = state(&edges);
    let jpy: Currency = "JPY".parse().unwrap();
    let expected = Sums::from([(Currency::USD, 1_000_000), (jpy, 500_000)]);
    assert_eq!(state.exposure.worst, expected);
    assert_eq!(state.backlog, 4);
}

#[test]
fn standing_in_is_attention_with_its_cause_and_outage() {
    let mut away = page("east", 1);
    away["rung"] = json!("stand_in");
    away["stand_in"]["outage"] = json!({"why": "timeout", "age_ms": 34_500});
    away["breaker"]["position"] = json!({"state": "open", "admits_percent": 0, "why": "timeout"});
    away["alarms"] = json!([
        {"name": "primary_away", "since": "2025-11-30T20:13:00.000Z", "detail": "x"},
        {"name": "reserve_low", "since": "2025-11-30T20:13:00.000Z", "detail": "y"},
    ]);
    let state = state(&[looked("a", &away)]);
    assert_eq!(
        state.verdict.text,
        "Attention: a answers on stand_in (timeout); a: alarm reserve_low."
    );
    assert_eq!(state.outages, ["east: since 20:13:00 UTC, cause timeout"]);
}

#[test]
fn what_is_worst_is_said_first_and_the_rest_is_counted() {
    let mut poisoned = looked("p", &page("east", 1));
    poisoned.seen.unready = Some("the write-ahead log is poisoned".to_owned());
    let mut ramp = page("east", 1);
    ramp["breaker"]["position"] = json!({"state": "ramp", "admits_percent": 10});
    let mut refused = page("east", 1);
    refused["rung"] = json!("refused");
    refused["alarms"] = json!([{"name": "overloaded"}, {"name": "conflict"}]);
    let findings = Reports {
        reconciliation: Some(LastRun {
            findings: vec![FindingLine::default()],
            findings_all: 1,
            ..LastRun::default()
        }),
        ..Reports::default()
    };
    let edges = [looked("r", &ramp), poisoned, looked("f", &refused)];
    let state = State::of(&edges, Some(findings), AT, NOW_MS);
    assert_eq!(
        state.verdict.text,
        "Trouble: p takes no payments: the write-ahead log is poisoned; f gives no answers (ordered); \
         f: alarm conflict; r asks the primary for 10 %; and 2 more."
    );
}

#[test]
fn a_stretch_in_which_an_edge_was_silent_is_a_gap() {
    let [mut one, mut two] = ["one", "two"].map(|name| looked(name, &page("east", 9)));
    for second in 0..=40_u64 {
        hear(&mut one, 560_000 + second * 1_000, second);
        if !(11..=24).contains(&second) {
            hear(&mut two, 560_000 + second * 1_000, second);
        }
    }
    let state = state(&[one, two]);
    let gaps: Vec<_> = state
        .gaps
        .iter()
        .map(|gap| (gap.from_ms, gap.until_ms))
        .collect();
    // What was counted from 570 s to 585 s lies in the step that begins then.
    assert_eq!(gaps, [(575_000, 585_000)]);
}

#[test]
fn state_json_has_the_names_that_programs_read() {
    let state = json!(state(&[looked("a", &page("east", 1))]));
    assert_eq!(state["verdict"]["level"], "well");
    assert_eq!(state["exposure"]["now"]["USD"], 1_250);
    assert_eq!(state["regions"][0]["edges"][0]["rung"], "primary");
    assert_eq!(state["regions"][0]["edges"][0]["wal"]["role"], "leads");
    assert_eq!(state["reports"], Value::Null);
}
