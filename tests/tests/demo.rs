//! The demo, small, as anybody runs it: three edges in processes of their own, an outage, and the
//! death of the log's leader in its middle.

#![allow(clippy::unwrap_used, clippy::large_futures, reason = "test code")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use standin_tests::harness::Browser;
use standin_tests::harness::browser::file_url;

const PROGRAM: &str = env!("CARGO_BIN_EXE_standin-under-test");

fn demo(out: &Path, more: &[&str]) -> (Output, Value) {
    let output = Command::new(PROGRAM)
        .args(["demo", "--seconds", "12", "--rate", "20", "--out"])
        .arg(out)
        .args(more)
        .output()
        .unwrap();
    let report = std::fs::read(out.join("report.json")).unwrap_or_else(|error| {
        let told = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {told}");
    });
    (output, serde_json::from_slice(&report).unwrap())
}

/// Everything but how long things took, which a busy machine decides.
fn keeps_every_promise(report: &Value) {
    let checks = report["checks"].as_array().unwrap();
    let ids: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["id"].as_str())
        .collect();
    let judged = [
        "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S11", "S14", "S15", "S16",
    ];
    assert_eq!(ids, judged);
    for check in checks {
        assert_eq!(check["ok"], true, "{check}");
    }
    assert_eq!(report["wal"]["members"], 3);
    assert_eq!(report["wal"]["backlog"], 0);
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
    assert!(number("/wal/leader_changes") >= 1, "{}", report["wal"]);
    assert!(number("/wal/longest_election_ms") > 0);
    assert!(number("/longest_gap_ms") > 0);
    let rungs = &report["phases"][1]["rungs"];
    assert!(
        rungs["stand_in"].as_u64().is_some_and(|some| some > 0),
        "{rungs}"
    );
    let crashes = checks.iter().find(|check| check["id"] == "S8").unwrap();
    let detail = crashes["detail"].as_str().unwrap();
    assert!(detail.starts_with("1 crash, "), "{detail}");
}

#[tokio::test]
async fn a_leader_that_is_killed_in_an_outage_costs_no_promise() {
    let out = tempfile::tempdir().unwrap();
    let (_output, report) = demo(out.path(), &[]);
    keeps_every_promise(&report);
    assert_eq!(report["reconciliation"]["findings"], Value::Array(vec![]));
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("the leader, killed"));
    let words = ["requests", "Outages", "Exposure", "It adds up.", "S1"];
    let url = file_url(&out.path().join("report.html"));
    Browser::start().check("demo", &url, &words).await;
}

#[test]
fn an_edge_of_the_demo_is_for_the_demo() {
    let output = Command::new(PROGRAM)
        .arg("demo-edge")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("standin demo"), "{told}");
}
