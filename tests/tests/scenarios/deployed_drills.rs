//! Drills on a deployment: `standin drill on`, on edges that play the faults on themselves.
//!
//! What a busy machine decides (how soon, how promptly) is not what passes or fails here: the deployment's
//! file leaves room for it. That the fault was played, felt, proved and ended is.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use standin_core::answer::Rung;
use standin_drill::process::{Process, free_port};
use standin_tests::harness::{Edge, EdgeOptions, Group, GroupOptions, Payment, Stage, verdict};

use super::keepers::settle;
use super::{PROGRAMS, SOON};

const CONSENT: &str = "[drills]\nconsent = \"yes\"\n";
/// A driver that has more to wait for than a drill in a quarter of its time has failed.
const DRIVEN_WITHIN: Duration = Duration::from_secs(120);
const WORKERS: usize = 6;
/// Nothing that a busy machine brings about ends a drill, or makes it fail.
const ROOM: &str = "\
consent = true
abort = { unanswered_of_10_000 = 10000, late_of_10_000 = 10000 }
limits = { deadline_ms = 2000, late_of_10_000 = 10000, settle_s = 60, prompt_percent = 1, first_stand_in_ms = 3000 }
";

/// A driver at work.
struct Driver {
    process: Process,
    out: PathBuf,
    log: PathBuf,
}

/// A file that names a deployment of edges at these admin listeners.
fn name(stage: &Stage, more: &str, admins: &[String]) -> PathBuf {
    let file = stage.folder().join("deployment.toml");
    let edges: String = admins
        .iter()
        .map(|admin| format!("[[edges]]\nadmin = \"{admin}\"\n"))
        .collect();
    let text = format!("name = \"here\"\noperator = \"ada\"\n{more}\n{edges}");
    std::fs::write(&file, text).unwrap();
    file
}

fn admins(group: &Group) -> Vec<String> {
    group.edges.iter().map(Edge::admin_url).collect()
}

impl Driver {
    fn start(stage: &Stage, more: &str, admins: &[String], drill: &[&str]) -> Self {
        let file = name(stage, more, admins);
        let out = stage.folder().join("drills");
        let log = stage
            .folder()
            .join(format!("driver-{}.log", free_port().unwrap()));
        let mut command = Command::new(PROGRAMS.standin);
        command.args(["drill", "on"]).arg(file).args(drill);
        command.args(["--quick", "--out"]).arg(&out);
        let process = Process::spawn("standin", command, &log).unwrap();
        Self { process, out, log }
    }

    /// Waits until it has ended; gives its exit code and what it said.
    async fn ended(mut self) -> (Option<i32>, String) {
        let status = self.process.ended(DRIVEN_WITHIN).await;
        let said = std::fs::read_to_string(&self.log).unwrap();
        println!("{said}");
        (status.unwrap().code(), said)
    }

    fn report(out: &std::path::Path, drill: &str) -> Value {
        let text = std::fs::read(out.join(drill).join("drill.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// Waits until an edge plays a fault, and says which.
async fn plays(edge: &Edge) -> String {
    edge.status_until("a fault that is played", SOON, |page| {
        let fault = page["drills"]["playing"]["fault"].as_str()?;
        Some(fault.to_owned())
    })
    .await
}

/// Waits until an edge plays no fault, and gives the last one.
async fn is_over(edge: &Edge) -> Value {
    edge.status_until("a fault that is over", SOON, |page| {
        let drills = &page["drills"];
        drills["playing"].is_null().then(|| drills["last"].clone())
    })
    .await
}

fn verdict_of<'a>(report: &'a Value, id: &str) -> &'a Value {
    let verdicts = report["verdicts"].as_array().unwrap();
    let found = verdicts.iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("{id} was not judged: {verdicts:?}"))
}

async fn consenting(stage: &Stage) -> Group {
    let mut options = GroupOptions::on(stage);
    options.edge.more = CONSENT.to_owned();
    Group::start(PROGRAMS, stage, options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_on_a_deployment_passes_with_proof_and_leaves_all_as_it_was() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, 20, 10_000_000).await;
    let mut group = consenting(&stage).await;
    let banks = group.banks(WORKERS);
    let load = banks.load("deployed", WORKERS, &shoppers);
    load.progress(20, SOON).await;
    let meant = ["primary-killed", "--i-mean", "here"];
    let driver = Driver::start(&stage, ROOM, &admins(&group), &meant);
    assert_eq!(plays(&group.edges[0]).await, "primary_unreachable");
    group.edges[0].alarm("fault_played", true, SOON).await;
    let out = driver.out.clone();
    let (code, said) = driver.ended().await;
    assert_eq!(code, Some(0), "{said}");

    let report = Driver::report(&out, "primary-killed");
    let injected = verdict_of(&report, "injected")["detail"].as_str().unwrap();
    println!("injected: {injected}");
    assert!(injected.contains("test/1 counts") && injected.contains("test/2 counts"));
    assert!(!injected.contains("test/3"), "one is left alone");
    for id in [
        "steady", "restored", "L1", "L2", "L4", "settled", "L6", "rungs",
    ] {
        assert_eq!(verdict_of(&report, id)["ok"], true, "{id}");
    }
    assert!(
        report["figures"]["played"]["rungs"]["stand_in"]
            .as_u64()
            .unwrap()
            > 0
    );
    let page = std::fs::read_to_string(out.join("primary-killed/drill.html")).unwrap();
    assert!(page.contains("S1 to S19") && page.contains("test/1, test/2"));
    for edge in &group.edges {
        let last = is_over(edge).await;
        if edge.id() == 3 {
            assert_eq!(last, Value::Null);
            continue;
        }
        assert_eq!(
            (&last["over"], &last["operator"]),
            (&"ordered".into(), &"ada".into())
        );
        assert!(last["calls"]["payments"].as_u64().unwrap() > 0);
        let hit = [r#"fault="primary_unreachable""#, r#"calls="payments""#];
        assert!(edge.metric("standin_played_fault_calls_total", &hit).await > 0);
        assert!(edge.log().contains("a drill begins"));
    }
    settle(&banks, load).await;
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_end_when_a_drill_is_aborted_told_to_end_or_killed() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, 20, 10_000_000).await;
    let mut group = consenting(&stage).await;
    let banks = group.banks(WORKERS);
    let load = banks.load("ended", WORKERS, &shoppers);
    load.progress(20, SOON).await;
    let meant = ["primary-hung", "--i-mean", "here"];

    // A hung primary costs a second a request here, and half of one is late.
    let strict = ROOM
        .replace("late_of_10_000 = 10000 }\n", "late_of_10_000 = 0 }\n")
        .replace("deadline_ms = 2000", "deadline_ms = 500");
    assert_ne!(strict, ROOM);
    let driver = Driver::start(&stage, &strict, &admins(&group), &meant);
    let out = driver.out.clone();
    let (code, said) = driver.ended().await;
    assert_eq!(code, Some(2), "{said}");
    let report = Driver::report(&out, "primary-hung");
    let whole = verdict_of(&report, "whole");
    assert_eq!(whole["ok"], false, "{whole}");
    let why = report["aborted"].as_str().unwrap();
    assert!(why.contains("answered late"), "{why}");
    assert_eq!(verdict_of(&report, "restored")["ok"], true);
    assert_eq!(is_over(&group.edges[0]).await["over"], "ordered");

    let driver = Driver::start(&stage, ROOM, &admins(&group), &meant);
    plays(&group.edges[0]).await;
    driver.process.terminate().unwrap();
    let (code, said) = driver.ended().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("every fault that was played is ended"),
        "{said}"
    );
    for edge in &group.edges[..2] {
        assert_eq!(is_over(edge).await["over"], "ordered");
        edge.on_rung("primary", SOON).await;
    }
    assert!(
        !out.join("primary-hung/drill.json").exists(),
        "it was not carried out"
    );

    // All is as before in the log too, before the next one begins.
    group.edges[0].alarm("primary_away", false, SOON).await;
    let mut driver = Driver::start(&stage, ROOM, &admins(&group), &meant);
    plays(&group.edges[0]).await;
    plays(&group.edges[1]).await;
    driver.process.kill().unwrap();
    driver.process.ended(SOON).await.unwrap();
    println!("injected: the driver is killed while two edges play a fault");
    for edge in &group.edges[..2] {
        let last = is_over(edge).await;
        assert_eq!(last["over"], "time", "{last}");
        assert!(last["calls"]["payments"].as_u64().unwrap() > 0);
        edge.alarm("fault_played", false, SOON).await;
        edge.on_rung("primary", SOON).await;
    }
    settle(&banks, load).await;
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_played_without_consent_on_both_sides_traffic_and_a_steady_state() {
    let stage = Stage::set().await;
    stage.trips(1, 1, 10_000_000).await;
    let with = |more: &str| EdgeOptions {
        more: more.to_owned(),
        ..EdgeOptions::on(&stage)
    };
    let edge = Edge::start_with(PROGRAMS, &stage, with(CONSENT)).await;
    let unwilling = Edge::start_with(PROGRAMS, &stage, with("")).await;
    let alone = format!("{ROOM}edges_at_once = 1\nwhole_regions = true\n");
    let no_consent = alone.replace("consent = true", "consent = false");
    let nobody = format!("http://127.0.0.1:{}", free_port().unwrap());
    let meant = ["primary-killed", "--i-mean", "here"];
    let cases: [(&str, &str, &[&str], &str); 8] = [
        // The file's word comes first: nobody is asked anything.
        (&no_consent, &nobody, &meant, "its file does not say"),
        (
            &alone,
            &nobody,
            &["primary-killed"],
            "say which deployment you mean",
        ),
        (
            &alone,
            &nobody,
            &["primary-killed", "--i-mean", "there"],
            "there is meant",
        ),
        (
            &alone,
            &nobody,
            &["leader-killed", "--i-mean", "here"],
            "cannot be played on a deployment",
        ),
        (&alone, &nobody, &meant, &nobody),
        (
            ROOM,
            &edge.admin_url(),
            &meant,
            "no fault may be played on any edge",
        ),
        (
            &alone,
            &unwilling.admin_url(),
            &meant,
            "drills.consent is not \"yes\"",
        ),
        (
            &alone,
            &edge.admin_url(),
            &meant,
            "there is no traffic to judge it by",
        ),
    ];
    for (file, admin, drill, says) in cases {
        let driver = Driver::start(&stage, file, &[admin.to_owned()], drill);
        let (code, said) = driver.ended().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }
    assert_eq!(
        edge.order("force", "bob", "something real").await.status,
        200
    );
    let driver = Driver::start(&stage, &alone, &[edge.admin_url()], &meant);
    let (code, said) = driver.ended().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("all is not well") && said.contains("an operator ordered force"));
    for edge in [&edge, &unwilling] {
        let page = edge.status().await;
        assert_eq!(page["drills"]["last"], Value::Null);
        assert!(!edge.log().contains("a drill begins"));
    }
    let paid = unwilling.bank(1).pay(&Payment::new("after", 1, 100)).await;
    assert_eq!(paid.said().rung, Rung::Primary);
}
