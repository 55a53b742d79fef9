use std::io::Write as _;
use std::process::{Command, Stdio};

use standin_core::entry::StandInMode;
use standin_core::signature::SignatureError;

use super::*;
use crate::problem::Unavailable;

fn everything() -> Metrics {
    let metrics = Metrics::new().unwrap();
    let ms = Duration::from_millis(7);
    metrics.answered(&Answered {
        bank: &"first".parse().unwrap(),
        rung: Rung::StandIn,
        verdict: Verdict::Approved,
        reason: Reason::WithinStandInLimits,
        why: Some(Why::Timeout),
        took: ms,
        trip_age_ms: Some(120),
    });
    metrics.replayed();
    metrics.refused(&Problem::Unavailable {
        cause: Unavailable::LogFull,
        retry_after: ms,
    });
    metrics.shed(Shed::Waited);
    metrics.authentication_failed(SignatureError::Old.into());
    metrics.shadow_differed(Reason::WithinCap, Reason::StandInLimit);
    metrics.proposal_judged();
    metrics.proposal_differed(
        &"first".parse().unwrap(),
        "primary",
        Reason::OverCap,
        Reason::WithinCap,
    );
    metrics.step(Step::Look, ms);
    metrics.begun();
    metrics.held(3, ms);
    metrics.committed(ms);
    metrics.wal_space(1, 2);
    metrics.wal_place(&LogPlace {
        keepers: 3,
        learners: 1,
        led: true,
        leads: false,
        term: 4,
        last_index: 9,
        applied_index: 8,
        drained_index: 7,
        behind_max: 2,
    });
    metrics.advices_waiting(6);
    metrics.corrections(1, 2, 3);
    metrics.breaker(BreakerState::Open);
    metrics.stand_in_mode(StandInMode::Force);
    metrics.drain_backlog(5);
    metrics.drained(DrainResult::Finalized, 4);
    metrics.exposure(Exposure::WorstCase, 50_000, Currency::USD);
    metrics.alarm("wal_full", true);
    let clock = Arc::new(standin_core::clock::SystemClock);
    let alarms = crate::alarm::Alarms::new(Arc::new(Metrics::new().unwrap()), clock.clone());
    metrics.watch_plays(Arc::new(Plays::new(clock, Arc::new(alarms))));
    metrics
}

#[test]
fn what_was_recorded_is_on_the_page() {
    let page = everything().render().unwrap();
    for line in [
        r#"standin_answers_total{bank="first",reason="within_stand_in_limits",rung="stand_in",verdict="approved"} 1"#,
        r#"standin_answer_duration_seconds_bucket{rung="stand_in",le="0.01"} 1"#,
        r#"standin_replays_total 1"#,
        r#"standin_refusals_total{cause="log_full",problem="unavailable"} 1"#,
        r#"standin_shed_total{cause="waited"} 1"#,
        r#"standin_authentication_failures_total{cause="old"} 1"#,
        r#"standin_without_primary_total{why="timeout"} 1"#,
        r#"standin_shadow_differences_total{given="within_cap",other="stand_in_limit"} 1"#,
        r#"standin_proposed_policy_judged_total 1"#,
        r#"standin_proposed_policy_differences_total{active="over_cap",bank="first",proposed="within_cap",rules="primary"} 1"#,
        r#"standin_in_flight 1"#,
        r#"standin_hold_batch_size_sum 3"#,
        r#"standin_wal_used_bytes 1"#,
        r#"standin_wal_budget_bytes 2"#,
        r#"standin_wal_members{role="keeper"} 3"#,
        r#"standin_wal_members{role="learner"} 1"#,
        r#"standin_wal_led{by="group"} 1"#,
        r#"standin_wal_led{by="this_edge"} 0"#,
        r#"standin_wal_term 4"#,
        r#"standin_wal_index{of="last"} 9"#,
        r#"standin_wal_index{of="applied"} 8"#,
        r#"standin_wal_index{of="drained"} 7"#,
        r#"standin_wal_behind 2"#,
        r#"standin_advices_waiting 6"#,
        r#"standin_corrections{kind="released"} 3"#,
        r#"standin_breaker_state{state="open"} 1"#,
        r#"standin_breaker_state{state="closed"} 0"#,
        r#"standin_stand_in_mode{mode="force"} 1"#,
        r#"standin_drain_backlog 5"#,
        r#"standin_drained_total{result="finalized"} 4"#,
        r#"standin_exposure_minor_units{currency="USD",kind="worst_case"} 50000"#,
        r#"standin_alarm{name="wal_full"} 1"#,
        r#"standin_played_fault{fault="trip_cache_slow"} 0"#,
        r#"standin_played_fault_ends_at_seconds 0"#,
        r#"standin_played_fault_calls_total{calls="payments",fault="primary_slow"} 0"#,
    ] {
        assert!(
            page.lines().any(|have| have == line),
            "no {line} in\n{page}"
        );
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let page = everything().render().unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian package prometheus)");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}\n{page}",
        String::from_utf8_lossy(&said)
    );
}
