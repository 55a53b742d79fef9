//! Drills, as anybody runs them: short and at a low rate, two of them chosen by the commit.
//!
//! What a busy machine decides (how many answers came promptly) is not looked at; that the fault was
//! proved, that everything was put right, and that every promise was kept, is.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use standin_tests::harness::Browser;
use standin_tests::harness::browser::file_url;

const PROGRAM: &str = env!("CARGO_BIN_EXE_standin-under-test");
/// Drills that a test runs, one of each row.
const CHOICES: [[&str; 4]; 2] = [
    [
        "primary-killed",
        "primary-hung",
        "promotion-with-losses",
        "primary-and-leader",
    ],
    [
        "leader-killed",
        "replica-stale",
        "primary-blackholed",
        "replica-wiped",
    ],
];

fn drill(args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("drill")
        .args(args)
        .output()
        .unwrap()
}

/// A number that is another one with each commit; `STANDIN_TEST_SEED` decides instead when it is there.
fn choice() -> u64 {
    let given = std::env::var("STANDIN_TEST_SEED").ok();
    let number = given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let head = Command::new("git")
            .args(["rev-parse", "--short=8", "HEAD"])
            .output();
        let text = head.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        u64::from_str_radix(text.trim(), 16).unwrap_or(0)
    });
    println!("STANDIN_TEST_SEED={number}");
    number
}

fn check<'a>(report: &'a Value, kind: &str, id: &str) -> &'a Value {
    let checks = report[kind].as_array().unwrap();
    let found = checks.iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("{id} was not judged: {checks:?}"))
}

fn ran(name: &str, out: &Path) -> Value {
    let folder = out.to_str().unwrap();
    let output = drill(&["run", name, "--quick", "--rate", "60", "--out", folder]);
    let told = String::from_utf8_lossy(&output.stderr);
    println!("{told}");
    let json = std::fs::read(out.join(name).join("drill.json")).unwrap_or_else(|error| {
        panic!("{error}: {told}");
    });
    let report: Value = serde_json::from_slice(&json).unwrap();
    // 0 and 2 both say that it was run and judged.
    assert!(matches!(output.status.code(), Some(0 | 2)), "{told}");
    report
}

fn keeps_its_promises(report: &Value) {
    for id in ["injected", "restored", "L3"] {
        let check = check(report, "verdicts", id);
        assert_eq!(check["ok"], true, "{check}");
    }
    let promises = report["checks"].as_array().unwrap();
    assert!(promises.len() >= 13, "{promises:?}");
    for check in promises {
        assert_eq!(check["ok"], true, "{check}");
    }
    assert!(report["figures"]["payments"].as_u64().unwrap() > 400);
}

async fn one_of(row: usize) {
    let choices = CHOICES[row];
    let at = usize::try_from(choice()).unwrap_or(0) % choices.len();
    let (name, out) = (choices[at], tempfile::tempdir().unwrap());
    let report = ran(name, out.path());
    keeps_its_promises(&report);
    let page = std::fs::read_to_string(out.path().join(name).join("drill.html")).unwrap();
    let title = report["title"].as_str().unwrap().replace('\'', "&#39;");
    assert!(page.contains(&title), "{title}");
    let words = [
        report["title"].as_str().unwrap(),
        "Money approved without the primary",
        "kept",
        "S15",
    ];
    let url = file_url(&out.path().join(name).join("drill.html"));
    Browser::start().check("drill", &url, &words).await;
    // The pages are made again from what was measured.
    let index = out.path().join("index.html");
    std::fs::remove_file(&index).unwrap();
    let again = drill(&["report", out.path().to_str().unwrap(), "--json"]);
    let reports: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(reports[0], report);
    assert!(std::fs::read_to_string(&index).unwrap().contains(name));
    Browser::start()
        .check("drills", &file_url(&index), &[words[0]])
        .await;
}

#[tokio::test]
async fn a_drill_of_the_primary_keeps_every_promise() {
    one_of(0).await;
}

#[tokio::test]
async fn a_drill_of_edges_links_or_trip_cache_keeps_every_promise() {
    one_of(1).await;
}

#[test]
fn drills_are_listed_with_what_they_need_and_unknown_ones_refused() {
    let listed = drill(&["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let listed = listed.as_array().unwrap();
    let named = |name: &str| listed.iter().find(|drill| drill["name"] == name).unwrap();
    assert_eq!(named("leader-cut")["needs_root"], true);
    assert_eq!(named("primary-killed")["needs_root"], false);
    for name in CHOICES.iter().flatten() {
        assert!(!named(name)["hypothesis"].as_str().unwrap().is_empty());
    }
    let unknown = drill(&["run", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8_lossy(&unknown.stderr);
    assert!(told.contains("standin drill list"), "{told}");
    let empty = tempfile::tempdir().unwrap();
    let nothing = drill(&["report", empty.path().to_str().unwrap()]);
    assert_eq!(nothing.status.code(), Some(1));
}
