//! Reconciliation that goes on by itself: on a schedule, and when the primary is back.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use standin_core::ledger::Ledger;
use standin_drill::process::Process;
use standin_reconcile::report::reconciliation::{OutageProof, Reconciliation};
use standin_tests::harness::wait::until;
use standin_tests::harness::{Edge, Payment, Stage, verdict};

use super::operators::standin;
use super::{PROGRAMS, SOON};

/// `standin reconcile watch` that runs.
struct Watching {
    process: Process,
    log: PathBuf,
}

// === impl Watching ===

impl Watching {
    fn start(stage: &Stage, edge: &Edge, name: &str, more: &[&str]) -> Self {
        let mut command = Command::new(PROGRAMS.standin);
        command.args(["reconcile", "watch", "--json", "--wal"]);
        command.arg(edge.wal());
        command.args(["--edge", &edge.admin_url()]).args(more);
        command.env("STANDIN_POSTGRES", stage.postgres_url());
        let log = stage.folder().join(format!("{name}.log"));
        let process = Process::spawn("standin reconcile watch", command, &log).unwrap();
        Self { process, log }
    }

    /// What it told so far of an event.
    fn told(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line["event"] == event)
            .collect()
    }

    /// Waits until it tells of so many events that fit; gives the last of them.
    async fn tells(&self, event: &str, count: usize, fits: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{count} times {event}");
        let found = until(&what, SOON * 4, || {
            let mut told = self.told(event);
            told.retain(&fits);
            let last = told.get(count - 1).cloned();
            async move { last }
        });
        let found = tokio::time::timeout(SOON * 2, found).await;
        found.unwrap_or_else(|_| panic!("not {what}:\n{}", self.process.tail()))
    }

    async fn stops(mut self) {
        self.process.terminate().unwrap();
        let status = self.process.ended(SOON).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.process.tail());
        assert_eq!(self.told("stopped").len(), 1, "{}", self.process.tail());
    }
}

fn because(cause: &str) -> impl Fn(&Value) -> bool {
    move |told| told["because"] == cause
}

fn report_of(told: &Value) -> Reconciliation {
    let folder = Path::new(told["report"].as_str().unwrap());
    assert!(folder.join("report.html").is_file() && folder.join("findings.csv").is_file());
    let json = std::fs::read(folder.join("report.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn folders(shelf: &Path) -> usize {
    std::fs::read_dir(shelf).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primarys_return_leads_to_a_run_and_two_watches_are_harmless() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    let first = bank.pay(&Payment::new("before", 1, 1_000)).await;
    assert_eq!(first.status(), Some(200));
    edge.drained().await;
    let shelf = stage.folder().join("runs");
    let out = shelf.to_str().unwrap();
    // The schedule has no part in this.
    let more = ["--every", "1d", "--drained-within", "60s", "--out", out];
    let watches = ["one", "two"].map(|name| Watching::start(&stage, &edge, name, &more));
    for watch in &watches {
        let told = watch.tells("ran", 1, because("started")).await;
        assert_eq!(told["findings"], 0);
    }
    stage.postgres.kill().await.unwrap();
    println!("injected: the primary was killed while two watches look on");
    let mut sent = 0;
    let mut standing_in = 0;
    while standing_in < 5 {
        // Once the log knows of it, what is written belongs to it.
        let stands_in = edge.status().await["stand_in"]["outage"].is_object();
        let payment = Payment::new(format!("away-{sent}"), 1, 2_000 + sent);
        bank.pay_until_answered(&payment, SOON).await;
        sent += 1;
        standing_in += i32::from(stands_in);
        assert!(sent < 1_000, "the edge does not stand in");
    }
    // A slow machine may have had a short outage of its own: this is the one with payments in it.
    let is_proved = |told: &Value| {
        let outages = report_of(told).outages;
        let proved = outages
            .iter()
            .find(|outage| outage.until.is_some() && outage.drained >= 5);
        told["because"] == "returned" && proved.is_some_and(OutageProof::adds_up)
    };
    stage.postgres.restart().await.unwrap();
    for watch in &watches {
        let told = watch.tells("ran", 1, is_proved).await;
        assert_eq!(report_of(&told).findings, []);
    }
    let ran = watches.iter().map(|watch| watch.told("ran").len());
    let ran: usize = ran.sum();
    for watch in watches {
        watch.stops().await;
    }
    assert!(folders(&shelf) >= ran, "each run has its report: {ran} ran");
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_leads_to_runs_that_name_what_is_lost_and_a_failed_one_is_tried_again() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    for number in 0..5 {
        let payment = Payment::new(format!("s-{number}"), 1, 1_000 + number);
        assert_eq!(bank.pay(&payment).await.status(), Some(200));
    }
    edge.drained().await;
    verdict::end(&stage, &mut edge, &[]).await;
    let url = stage.postgres_url();
    let books = ["--postgres", &url];
    let none = standin(&[&["reconcile", "report"], &books[..]].concat());
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no run yet"));
    let shelf = stage.folder().join("runs");
    let more = [
        "--every",
        "1s",
        "--keep",
        "2",
        "--out",
        shelf.to_str().unwrap(),
    ];
    let watch = Watching::start(&stage, &edge, "watch", &more);
    let told = watch.tells("ran", 3, because("schedule")).await;
    assert_eq!(told["findings"], 0);

    let rows = stage.ledger.authorizations(None, 10).await.unwrap();
    let lost = rows.iter().find(|row| row.answer.amount.minor() == 1_003);
    let lost = lost.unwrap().answer.transaction_id.to_string();
    println!("injected: the final row of {lost} is lost");
    stage
        .sql("delete from authorizations where amount = 1003")
        .await;
    let told = watch.tells("ran", 1, |told| told["findings"] != 0).await;
    let report = report_of(&told);
    let missing = report
        .findings
        .iter()
        .filter(|found| found.kind.as_str() == "missing");
    let named: Vec<_> = missing
        .map(|found| found.transaction_id.unwrap().to_string())
        .collect();
    assert_eq!(named, [&*lost], "by its id");

    stage.postgres.kill().await.unwrap();
    println!("injected: the primary is gone");
    let failed = watch.tells("failed", 2, |_| true).await;
    assert!(!failed["why"].as_str().unwrap().is_empty());
    let before = watch.told("ran").len();
    stage.postgres.restart().await.unwrap();
    watch.tells("ran", before + 1, |_| true).await;
    watch.stops().await;
    assert_eq!(folders(&shelf), 2, "only the last stay");
    is_told_again(&stage, &books, &lost);
}

/// The last run again, in every form, and its findings as cases: one each, after many runs.
fn is_told_again(stage: &Stage, books: &[&str], lost: &str) {
    let page = stage.folder().join("page.html");
    let report = |more: &[&str]| {
        let output = standin(&[&["reconcile", "report"], books, more].concat());
        assert_eq!(output.status.code(), Some(2), "as the run's");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = report(&["--html", page.to_str().unwrap()]);
    assert!(said.contains(lost), "{said}");
    assert!(std::fs::read_to_string(&page).unwrap().contains(lost));
    let json: Reconciliation = serde_json::from_str(&report(&["--json"])).unwrap();
    assert!(json.all_findings() > 0);
    let csv = report(&["--csv"]);
    let lines = csv.lines().filter(|line| line.contains(lost));
    assert_eq!(lines.count(), 1, "{csv}");
    let list = [
        "reconcile",
        "findings",
        "list",
        "--kind",
        "missing",
        "--json",
    ];
    let listed = standin(&[&list[..], books].concat());
    let cases: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 1, "{cases:?}");
    assert_eq!(cases[0]["transaction_id"], lost);
    assert_eq!(cases[0]["state"], "open");
}
