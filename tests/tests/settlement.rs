//! A bank's clearing file of a made-up month against a real ledger, by the command itself: it finds
//! what was planted and nothing else, in bounded memory, and ends with the same report wherever it was
//! killed.
//!
//! `STANDIN_SETTLEMENT_LINES=2000000 cargo nextest run -p standin-tests -E 'test(/^settlement::/)'
//! --no-capture` is the month of docs/verification.md.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_drill::proxy::{Direction, Proxy, Tap, Verdict};
use standin_drill::servers::{Postgres, PostgresOptions};
use standin_tests::harness::Browser;
use standin_tests::harness::browser::file_url;
use standin_tests::month::{AS_OF, BANK, Expected, MAPPING, Month};
use tokio::sync::Notify;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_standin-under-test");
/// Lines of the month, unless the environment says otherwise.
const LINES: u64 = 20_000;
/// Of the month in whose reconciliation the command is killed.
const LINES_KILLED: u64 = 12_000;
const KILLS: usize = 20;
/// Kills before the command is let run to its end. Of a month that the environment asks for, all of
/// them are in one run, each in the next twentieth of what it sends.
const KILLS_A_LIFE: usize = 4;
/// What its page shows.
const WORDS: [&str; 6] = [
    "Proof",
    "the sums add up",
    "Findings, one by one",
    "more, in findings.csv",
    "Bad lines",
    "what is wrong",
];
/// Most memory of the command, whatever the size of the file.
const PEAK_KIB_MAX: u64 = 256 * 1024;
/// Longest run of the command.
const RUN_MAX: Duration = Duration::from_secs(3_000);

/// A month in a ledger, and its file.
struct World {
    server: Postgres,
    folder: tempfile::TempDir,
    expected: Expected,
}

/// What a run of the command left.
#[derive(PartialEq, Eq, Debug)]
struct Report {
    json: String,
    findings: String,
    bad_lines: String,
}

/// How a run ended.
enum Ended {
    Whole { peak_kib: u64 },
    Killed,
}

// === impl World ===

impl World {
    async fn new(lines: u64) -> Self {
        let seed = 20_261_101;
        eprintln!("seed {seed}, {lines} lines");
        let settings = [
            ("max_wal_size", "4GB"),
            ("maintenance_work_mem", "128MB"),
            ("shared_buffers", "256MB"),
        ];
        let server = Postgres::start_with(PostgresOptions {
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..PostgresOptions::default()
        });
        let server = server.await.unwrap();
        let url = server.create_database("month").await.unwrap();
        let ledger = PostgresLedger::connect(&PostgresConfig::new(url.clone())).unwrap();
        ledger.migrate().await.unwrap();
        drop(ledger);
        let folder = tempfile::tempdir().unwrap();
        let (expected, tables) = Month::write(folder.path(), lines, seed);
        tables.copy(&url).await;
        Self {
            server,
            folder,
            expected,
        }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, database: &str, port: u16, out: &Path) -> Command {
        let url = self.server.url(database);
        let url = url.replace(&self.server.port().to_string(), &port.to_string());
        let mut command = Command::new(PROGRAM);
        command
            .args(["reconcile", "settlement"])
            .arg(self.folder.path().join("clearing.csv"))
            .args(["--mapping", MAPPING, "--bank", BANK, "--as-of", AS_OF])
            .arg("--out")
            .arg(out)
            .env("STANDIN_POSTGRES", url)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Runs the command to its end.
    async fn run(&self, database: &str, name: &str) -> (Report, u64) {
        let out = self.out(name);
        let command = self.command(database, self.server.port(), &out);
        match run(command, None).await {
            Ended::Whole { peak_kib } => (Report::read(&out), peak_kib),
            Ended::Killed => panic!("nobody killed it"),
        }
    }

    /// A copy of the month in a database of its own.
    async fn copy(&self, database: &str) {
        let sql = format!("create database {database} template month");
        self.server.execute("postgres", &sql).await.unwrap();
    }

    async fn ask(&self, database: &str, sql: &str) -> String {
        let said = self.server.ask_in(database, sql).await.unwrap();
        said.unwrap_or_default()
    }
}

// === impl Report ===

impl Report {
    fn read(out: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        Self {
            json: read("settlement.json"),
            findings: read("findings.csv"),
            bad_lines: read("bad-lines.csv"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.json).unwrap()
    }

    /// What was found, by sort: the payment, or the line where the sort is about a line.
    fn found(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut lines = self.findings.lines();
        let head: Vec<&str> = lines.next().unwrap().split(',').collect();
        let place = |name| head.iter().position(|column| *column == name).unwrap();
        let (kind, payment, line) = (place("kind"), place("transaction_id"), place("line"));
        let trip = place("rung");
        for row in lines {
            let cells: Vec<&str> = row.split(',').collect();
            // One that is about a payment of the ledger has a rung.
            let what = if cells[trip].is_empty() {
                cells[line]
            } else {
                cells[payment]
            };
            let told = found.entry(cells[kind].to_owned()).or_default();
            assert!(told.insert(what.to_owned()), "twice: {row}");
        }
        found
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().unwrap())
}

/// Runs a command to its end, or until it is told to be killed.
async fn run(mut command: Command, kill: Option<Arc<Notify>>) -> Ended {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + RUN_MAX;
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let mut peak_kib = 0;
    loop {
        let killed = async {
            match &kill {
                Some(kill) => kill.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = killed => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Ended::Killed;
            }
            _ = look.tick() => {}
        }
        peak_kib = peak(&status).unwrap_or(peak_kib).max(peak_kib);
        if let Some(ended) = child.try_wait().unwrap() {
            assert_eq!(ended.code(), Some(2), "a month with findings");
            return Ended::Whole { peak_kib };
        }
        assert!(Instant::now() < deadline, "it still runs");
    }
}

/// The most memory a process has had, KiB.
fn peak(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_with_every_discrepancy_planted_finds_exactly_those() {
    let world = World::new(number("STANDIN_SETTLEMENT_LINES").unwrap_or(LINES)).await;
    let began = Instant::now();
    let (report, peak_kib) = world.run("month", "first").await;
    let took = began.elapsed().as_secs_f64();
    finds_what_was_planted(&report, &world.expected);
    eprintln!(
        "{} lines, {} payments, found what was planted: {took:.1} s, peak {} MiB",
        world.expected.lines,
        world.expected.payments,
        peak_kib / 1_024
    );
    assert!(peak_kib > 0 && peak_kib < PEAK_KIB_MAX, "{peak_kib} KiB");
    let page = file_url(&world.out("first").join("settlement.html"));
    Browser::start().check("settlement", &page, &WORDS).await;

    // The same file again changes nothing.
    let rows = "select (select count(*) from clearing_lines) || ' ' || \
         (select count(*) from finding_cases) || ' ' || (select count(*) from finding_events) || \
         ' ' || (select count(*) from reconcile_runs)";
    let before = world.ask("month", rows).await;
    let (again, _) = world.run("month", "again").await;
    assert_eq!(again, report);
    assert_eq!(world.ask("month", rows).await, before);
}

fn finds_what_was_planted(report: &Report, expected: &Expected) {
    let json = report.json();
    assert_eq!(json["broken"], Value::Array(Vec::new()));
    assert_eq!(json["sums"]["records"], expected.lines);
    assert_eq!(json["sums"]["confirmed"], true);
    let found = report.found();
    let planted: BTreeMap<String, BTreeSet<String>> = expected
        .found
        .iter()
        .map(|(kind, which)| (kind.as_str().to_owned(), which.clone()))
        .collect();
    for (kind, which) in &planted {
        assert_eq!(found.get(kind), Some(which), "{kind}");
    }
    assert_eq!(found.len(), planted.len(), "{:?}", found.keys());
    assert!(planted.len() >= 12);
    for (kind, which) in &planted {
        let counted = &json["tally"]["kinds"][kind]["all"]["count"];
        assert_eq!(*counted, which.len(), "{kind}");
    }
    let bad = report.bad_lines.lines().skip(1);
    let bad: BTreeSet<u64> = bad
        .map(|row| row.split(',').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(bad, expected.bad);
}

/// Counts what goes to the server, and rings at a byte.
struct Meter {
    bytes: Arc<AtomicU64>,
    ring_at: Arc<AtomicU64>,
    bell: Arc<Notify>,
}

impl Tap for Meter {
    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        if direction == Direction::ToServer {
            let more = u64::try_from(bytes.len()).unwrap();
            let before = self.bytes.fetch_add(more, Ordering::SeqCst);
            let ring_at = self.ring_at.load(Ordering::SeqCst);
            if before <= ring_at && ring_at < before + more {
                self.bell.notify_one();
            }
        }
        Verdict::Pass
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_twenty_random_points_it_ends_with_the_same_report() {
    let asked = number("STANDIN_SETTLEMENT_LINES");
    let a_life = asked.map_or(KILLS_A_LIFE, |_| KILLS);
    let world = World::new(asked.unwrap_or(LINES_KILLED)).await;
    let (bytes, ring_at) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(u64::MAX)),
    );
    let bell = Arc::new(Notify::new());
    let shared = (Arc::clone(&bytes), Arc::clone(&ring_at), Arc::clone(&bell));
    let tap = move || -> Box<dyn Tap> {
        let (bytes, ring_at, bell) = shared.clone();
        Box::new(Meter {
            bytes,
            ring_at,
            bell,
        })
    };
    let proxy = Proxy::start_with(world.server.port(), Box::new(tap));
    let proxy = proxy.await.unwrap();
    world.copy("whole").await;
    let command = world.command("whole", proxy.port(), &world.out("whole"));
    assert!(matches!(run(command, None).await, Ended::Whole { .. }));
    let whole = Report::read(&world.out("whole"));
    finds_what_was_planted(&whole, &world.expected);
    let total = bytes.load(Ordering::SeqCst);

    let seed = number("STANDIN_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("STANDIN_TEST_SEED={seed}; a run sends {total} bytes");
    let mut chance = seed;
    let (mut kills, mut life) = (0, 0);
    while kills < KILLS {
        life += 1;
        let database = format!("life_{life}");
        world.copy(&database).await;
        let parts = asked.map_or(1, |_| u64::try_from(KILLS).unwrap());
        let mut most = total / parts;
        let mut killed = 0;
        while killed < a_life && kills < KILLS && most > 0 {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.store(0, Ordering::SeqCst);
            ring_at.store((chance >> 33) % most, Ordering::SeqCst);
            let out = world.out(&database);
            let command = world.command(&database, proxy.port(), &out);
            match run(command, Some(Arc::clone(&bell))).await {
                Ended::Killed => (kills, killed) = (kills + 1, killed + 1),
                Ended::Whole { .. } => {
                    // What was done before need not be sent again.
                    assert_eq!(Report::read(&out), whole, "life {life}");
                    most = bytes.load(Ordering::SeqCst);
                }
            }
        }
        let (report, _) = world.run(&database, &database).await;
        assert_eq!(report, whole, "life {life}");
        let events = "select count(*) - count(distinct case_id) from finding_events";
        assert_eq!(world.ask(&database, events).await, "0", "life {life}");
    }
    eprintln!("{kills} kills in {life} lives");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_find_the_same_and_nothing_twice() {
    let world = World::new(LINES_KILLED).await;
    let port = world.server.port();
    let one = run(world.command("month", port, &world.out("one")), None);
    let two = run(world.command("month", port, &world.out("two")), None);
    let (one, two) = tokio::join!(one, two);
    assert!(matches!(
        (one, two),
        (Ended::Whole { .. }, Ended::Whole { .. })
    ));
    let report = Report::read(&world.out("one"));
    assert_eq!(report, Report::read(&world.out("two")));
    finds_what_was_planted(&report, &world.expected);
    let staged = world
        .ask("month", "select count(*) from clearing_lines")
        .await;
    let lines = world.expected.lines - u64::try_from(world.expected.bad.len()).unwrap();
    assert_eq!(staged, lines.to_string());
    let events = "select count(*) - count(distinct case_id) from finding_events";
    assert_eq!(world.ask("month", events).await, "0");
    people_settle_findings(&world, &report).await;
    a_file_that_was_cut_is_refused(&world).await;
}

/// What somebody resolved stays resolved when it is found again.
async fn people_settle_findings(world: &World, report: &Report) {
    let first = report.json()["findings"][0].clone();
    let id = first["id"].as_str().unwrap();
    let findings = |words: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(["reconcile", "findings"])
            .args(words)
            .env("STANDIN_POSTGRES", world.server.url("month"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    };
    let ada = ["--operator", "ada", "--reason", "her bank"];
    findings(&[&["assign", id, "--to", "bea"], ada.as_slice()].concat());
    let bea = ["--as", "bea", "--reason", "refunded"];
    findings(&[&["resolve", id], bea.as_slice()].concat());
    let shown: Value = serde_json::from_str(&findings(&["show", id, "--json"])).unwrap();
    assert_eq!(shown["state"], "resolved");
    let trail: Vec<&str> = shown["trail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(trail, ["found", "assigned", "resolved"]);
    let listed = findings(&["list", "--state", "resolved", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let (again, _) = world.run("month", "settled").await;
    let settled = again.json();
    assert_eq!(settled["findings"][0]["state"], "resolved");
    assert_eq!(settled["findings"][0]["owner"], "bea");
    let exposure = |json: &Value| json["tally"]["exposure"]["all"]["minor"]["USD"].as_i64();
    let stake = first["at_stake"].as_i64().unwrap();
    assert_eq!(
        exposure(&settled).unwrap(),
        exposure(&report.json()).unwrap() - stake
    );
    assert_eq!(settled["broken"], Value::Array(Vec::new()));
}

/// A file without its end is refused, and leaves nothing behind.
async fn a_file_that_was_cut_is_refused(world: &World) {
    let whole = std::fs::read_to_string(world.folder.path().join("clearing.csv")).unwrap();
    let cut = whole.len() / 2;
    std::fs::write(world.folder.path().join("clearing.csv"), &whole[..cut]).unwrap();
    let out = world.out("cut");
    let mut command = world.command("month", world.server.port(), &out);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("trailer"), "{told}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    let files = "select count(*) from clearing_files";
    assert_eq!(world.ask("month", files).await, "1");
}
