//! A policy's next version, by the commands, on a running edge: tried, seen, promoted in steps, audited.

use std::path::Path;

use standin_core::ledger::Ledger;
use standin_core::policy::Policy;
use standin_tests::harness::browser::file_url;
use standin_tests::harness::stage::WIDE_POLICY;
use standin_tests::harness::{Browser, Edge, EdgeOptions, Payment, Stage, verdict};

use super::operators::standin;
use super::{PROGRAMS, SOON};

/// Runs a command on the edge's policy file; gives its exit code.
fn policy(active: &Path, arguments: &[&str]) -> Option<i32> {
    let file = active.to_str().unwrap();
    let arguments = [&["policy"], arguments, &["--policy", file]].concat();
    standin(&arguments).status.code()
}

#[tokio::test]
async fn thresholds_are_advised_from_what_the_ledger_has_booked() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, 20, 10_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    // Carts of 100.00, whose cap is 110.00; one is charged more than that, and declined.
    for (number, shopper) in shoppers.iter().enumerate() {
        let over = i64::try_from(number * 7 % 20).unwrap() * 50;
        let amount = if number == 5 { 15_000 } else { 10_000 + over };
        let told = bank
            .pay(&Payment::new(format!("paid {number}"), *shopper, amount))
            .await;
        assert_eq!(told.status(), Some(if number == 5 { 402 } else { 200 }));
    }
    verdict::end(&stage, &mut edge, &[]).await;
    // An hour apart: what is learnt from must not depend on how fast this machine is.
    let hours = "update authorizations set final_at = '2026-01-01Z'::timestamptz + shopper_id * interval '1 hour'";
    stage.sql(hours).await;
    let url = stage.postgres_url();
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        "thresholds",
        "advise",
        "--from-ledger",
        &url,
        "--cover",
        "80",
        "--json",
        "--out",
        out.path().to_str().unwrap(),
    ];
    let advised = standin(&arguments);
    assert_eq!(advised.status.code(), Some(0));
    let advice: serde_json::Value = serde_json::from_slice(&advised.stdout).unwrap();
    let counts = ["learnt", "last"].map(|part| advice[part]["trips"].as_u64().unwrap());
    assert_eq!(counts, [15, 5]);
    // The 80 percent point of fifteen is bounded by none but their largest: the declined one.
    let default = &advice["rules"][0];
    let tolerated = default["absolute"].as_i64().unwrap();
    let percent_bp = default["percent_bp"].as_i64().unwrap();
    assert!(tolerated.max(percent_bp) >= 5_000, "{default}");
    assert_eq!(advice["judged"]["covered"], 5);
    let words = [
        "Approval rate against exposure",
        "Advised rules",
        "Charged above picked",
    ];
    let page = file_url(&out.path().join("advice.html"));
    Browser::start().check("thresholds", &page, &words).await;
    // At 99 percent so few are too few, and it says how many it takes.
    let refused = standin(&["thresholds", "advise", "--from-ledger", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("at least 299"));
}

#[tokio::test]
async fn a_proposal_is_tried_by_a_running_edge_and_promoted_in_steps() {
    let stage = Stage::set().await;
    stage.trip(1, 10_000).await;
    let limits = "\n[promotion]\nmax_step_percent = \"8\"\nmax_step_absolute = \"5.00\"\nmax_step_ceiling = \"0.00\"\nmin_shadow = 2\n";
    let options = EdgeOptions {
        policy: format!("{WIDE_POLICY}{limits}"),
        ..EdgeOptions::on(&stage)
    };
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let active = edge.folder().join("policy.toml");
    let bank = edge.bank(2);
    let admin = edge.admin_url();
    let signed = ["--operator", "ada", "--reason", "June", "--admin", &admin];
    let promote = |more: &[&str]| policy(&active, &[&["promote"], &signed[..], more].concat());

    // The cart is 100.00; the active cap 110.00, the proposed one 120.00.
    let mut next = Policy::parse(&std::fs::read_to_string(&active).unwrap()).unwrap();
    next.version = 2;
    // Standing in as well: what this is about does not depend on a primary that is slow for a moment.
    let text = next
        .to_toml()
        .replace("percent = \"10\"", "percent = \"20\"");
    let file = edge.folder().join("next.toml");
    std::fs::write(&file, text).unwrap();
    assert_eq!(promote(&[]), Some(2), "nothing is proposed");
    assert_eq!(
        policy(&active, &["propose", file.to_str().unwrap()]),
        Some(0)
    );
    edge.status_until("the proposal is tried", SOON, |page| {
        (page["proposed_policy"]["version"] == 2).then_some(())
    })
    .await;
    let told = bank.pay(&Payment::new("between", 1, 11_500)).await;
    assert_eq!(told.status(), Some(402), "the active version answers");
    assert_eq!(promote(&[]), Some(2), "one request is not two");
    assert_eq!(
        bank.pay(&Payment::new("inside", 1, 100)).await.status(),
        Some(200)
    );
    let shown = standin(&["policy", "shadow", "--admin", &admin, "--json"]);
    assert_eq!(shown.status.code(), Some(0));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["judged"], &shown["differences"][0]["count"]),
        (&2.into(), &1.into())
    );

    // Ten percent at once are more than the active version allows: eight, and then the other two.
    assert_eq!(promote(&[]), Some(2), "further than one step");
    assert_eq!(promote(&["--step"]), Some(0));
    edge.status_until("the step is in force", SOON, |page| {
        (page["policy_version"] == 2 && page["proposed_policy"]["version"] == 3).then_some(())
    })
    .await;
    let told = bank.pay(&Payment::new("more", 1, 11_600)).await;
    assert_eq!(told.status(), Some(200), "{}", told.json());
    assert_eq!(told.json()["policy_version"], 2);
    assert_eq!(promote(&[]), Some(2), "the rest has been judged once");
    bank.pay(&Payment::new("once", 1, 50)).await;
    assert_eq!(promote(&[]), Some(0));
    edge.status_until("the rest is in force", SOON, |page| {
        (page["policy_version"] == 3 && page["proposed_policy"].is_null()).then_some(())
    })
    .await;
    edge.drained().await;
    let audit = stage.ledger.audit(10).await.unwrap();
    let told: Vec<String> = audit
        .iter()
        .map(|row| format!("{}: {}: {}", row.operator, row.action, row.reason))
        .collect();
    let expected = [
        "ada: policy.take 2 (was 1): June (shadow: 2 judged, 1 more approved, 0 more declined)",
        "ada: policy.take 3 (was 2): June (shadow: 2 judged, 0 more approved, 0 more declined)",
    ];
    assert_eq!(told, expected);
    verdict::end(&stage, &mut edge, &[]).await;
}
