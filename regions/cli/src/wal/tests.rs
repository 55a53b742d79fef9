#![allow(clippy::arithmetic_side_effects, reason = "test code")]
//! Against edges of this process and their folders.

use std::collections::BTreeMap;

use clap::Parser;
use serde_json::Value;
use standin_core::answer::{Code, Reason, Rung, Why};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::decide::Limits;
use standin_core::entry::{Entry, Proposal};
use standin_core::id::{Fingerprint, TransactionId, TripId};
use standin_core::money::{Currency, Money};
use standin_core::trip::{Trip, TripStatus};
use standin_edge::app::{Edge, Hooks, StartError, Stopped};
use standin_edge::config::Config;
use standin_wal::inspect;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::rebuild::Refused;
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: super::Args,
}

fn parse<'a>(line: impl IntoIterator<Item = &'a str>) -> super::Args {
    Line::parse_from(["wal"].into_iter().chain(line)).args
}

async fn run<'a>(line: impl IntoIterator<Item = &'a str>) -> u8 {
    Box::pin(parse(line).run()).await.unwrap()
}

/// Where an edge's link listens: an address of this process's own, on which nobody else listens.
fn link(edge: u64) -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{edge}:8490", 64 + high % 64)
}

/// `keepers`: of a group of three, or alone.
async fn start(edge: u64, dir: &Path, keepers: bool) -> Result<Edge, StartError> {
    let founders: Vec<String> = (1..=3).map(|it| format!("\"{it}={}\"", link(it))).collect();
    let section = if keepers {
        format!(
            "[keepers]\nlisten = \"{}\"\nfounders = [{}]",
            link(edge),
            founders.join(", ")
        )
    } else {
        String::new()
    };
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        edge_id = {edge}
        deployment_key = "c3RhbmRpbi1leGFtcGxlLWRlcGxveW1lbnQta2V5ISE="
        [wal]
        dir = "{}"
        segment_bytes = 4194304
        budget_bytes = 67108864
        {section}
        [[banks]]
        slug = "first"
        secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        "#,
        dir.display()
    );
    let (config, _settings) = Config::load(Some(&text), []).unwrap();
    Box::pin(Edge::start(config, Hooks::default())).await
}

fn admin(edge: &Edge) -> String {
    format!("http://{}", edge.admin_address())
}

fn soon() -> Instant {
    Instant::now() + std::time::Duration::from_secs(30)
}

/// An approval whose merchant, cart and place must not be shown.
fn proposal(id: u8) -> Entry {
    Entry::Authorize(Box::new(Proposal {
        edge: 1,
        start: 1,
        request: Authorization {
            bank: "first".parse().unwrap(),
            shopper: "123".parse().unwrap(),
            amount: Money::from_minor(30_000, Currency::USD),
            merchant: Merchant {
                name: "CARD 4111111111111111".into(),
                address: "HIDDEN STREET".into(),
            },
            bank_key: Some("HIDDEN KEY".into()),
            received_at: Timestamp::from_millis(5),
            particulars: Particulars::default(),
        },
        transaction_id: TransactionId::from_bytes([id; 16]),
        fingerprint: Fingerprint::from_bytes([5; 32]),
        code: Code::from_mac(&[6; 32]),
        reason: Reason::WithinCap,
        rung: Rung::StandIn,
        why: Some(Why::Timeout),
        trip: Some(Trip {
            id: TripId(Uuid::from_u128(2)),
            shopper: "123".parse().unwrap(),
            store: "7".parse().unwrap(),
            currency: Currency::USD,
            status: TripStatus::Shopping,
            version: 3,
            picked: 398,
            picked_listed: 400,
            mix: BTreeMap::from([("HIDDEN CATEGORY".to_owned(), 398)]),
            started_at: Timestamp::from_millis(1),
        }),
        trip_age_ms: Some(9),
        store: Some("7".parse().unwrap()),
        cap: Some(50_000),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 1,
        swipe_window_ms: 0,
        shadow: None,
        approved: None,
    }))
}

/// The folder of an edge that was alone, answered three payments, and stopped.
async fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(1, dir.path(), false).await.unwrap();
    for id in 1..=3 {
        edge.log().propose(&proposal(id), soon()).await.unwrap();
    }
    assert_eq!(edge.stop().await, Stopped::Clean);
    dir
}

fn dumped(dir: &Path, more: &[&str]) -> (u8, Vec<Value>) {
    let dir = dir.to_str().unwrap();
    let line = ["dump", "--dir", dir].into_iter();
    let Command::Dump(args) = parse(line.chain(more.iter().copied())).command else {
        panic!("dump")
    };
    let mut lines = Vec::new();
    let code = args.lines(&mut |line| {
        lines.push(serde_json::to_value(line)?);
        Ok(())
    });
    (code.unwrap(), lines)
}

/// Flips a bit of the first frame, with others behind it.
fn damage(dir: &Path) {
    let report = inspect::examine(dir).unwrap();
    let segment = &report.segments[0];
    assert!(segment.frames > 2, "{segment:?}");
    let file = dir.join(&segment.file);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4_096 + 60] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_verified_in_use_whole_damaged_and_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let verify = ["verify", "--json", "--dir", path];
    assert_eq!(run(verify).await, 2, "there is no log");
    let edge = start(1, dir.path(), false).await.unwrap();
    edge.log().propose(&proposal(1), soon()).await.unwrap();
    assert_eq!(run(verify).await, 0, "in use");
    assert_eq!(run(["status", "--dir", path]).await, 0);
    assert_eq!(edge.stop().await, Stopped::Clean);
    let whole = verify::verify(dir.path());
    assert_eq!(whole.logs.len(), 2, "the region's, and the edge's own");
    assert_eq!(run(verify).await, 0);

    damage(dir.path());
    assert_eq!(run(verify).await, 1);
    let damaged = verify::verify(dir.path());
    assert_eq!(damaged.verdict, verify::Verdict::Damaged);
    let verdicts: Vec<_> = damaged.logs.iter().map(|log| log.verdict).collect();
    assert_eq!(
        verdicts,
        [verify::Verdict::Damaged, verify::Verdict::Whole],
        "only one of them"
    );
    let report = damaged.logs[0].report.as_ref().unwrap();
    let first = &report.segments[0].file;
    assert_eq!(&report.damage[0].file, first);
    assert!(verify::troubles(report)[0].starts_with(&format!("DAMAGED: {first} at byte ")));
    assert_eq!(
        run(["status", "--dir", path]).await,
        0,
        "damaged, and shown"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_shows_payments_and_nothing_of_card_cart_or_place() {
    let dir = folder().await;
    let (code, all) = dumped(dir.path(), &[]);
    assert_eq!(code, 0);
    let kinds: Vec<_> = all
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    for kind in ["members", "founded", "authorize"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let text = serde_json::to_string(&all).unwrap();
    for secret in ["4111", "HIDDEN", "398"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let (code, payments) = dumped(dir.path(), &["--payments"]);
    assert_eq!((code, payments.len()), (0, 3));
    for (line, id) in payments.iter().zip(1_u8..) {
        assert_eq!(line["transaction_id"], hex(id));
        assert_eq!(line["amount_minor"], 30_000);
        assert_eq!(line["proposed"], "approved");
        assert_eq!(line["rung"], "stand_in");
    }
    let second = payments[1]["index"].as_u64().unwrap().to_string();
    let range = ["--from", &second, "--to", &second, "--payments"];
    assert_eq!(dumped(dir.path(), &range).1, payments[1..2]);

    damage(dir.path());
    let (code, until) = dumped(dir.path(), &[]);
    assert_eq!(code, 1);
    assert!(until.len() < all.len());
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(dumped(nothing.path(), &[]).0, 2);
}

fn hex(id: u8) -> String {
    TransactionId::from_bytes([id; 16]).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_appends_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let length = std::time::Duration::from_millis(300);
    let measured = bench::measure(dir.path(), 4, length).await.unwrap();
    assert_eq!(measured.writers, 4);
    assert!(measured.appends >= 4, "{measured:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(bench::measure(dir.path(), 0, length).await.is_err());
}

fn rebuild(dir: &Path, old: u64, new: u64, admin: &str) -> rebuild::Args {
    let (old, new) = (old.to_string(), new.to_string());
    let line = [
        "rebuild",
        "--dir",
        dir.to_str().unwrap(),
        "--old",
        &old,
        "--new",
        &new,
        "--admin",
        admin,
        "--operator",
        "ada",
        "--reason",
        "segment 1 is damaged",
    ];
    let Command::Rebuild(args) = parse(line).command else {
        panic!("rebuild")
    };
    *args
}

async fn refused(args: rebuild::Args) -> String {
    let error = args.rebuild(&mut |line| panic!("{line}")).await;
    error.unwrap_err().downcast::<Refused>().unwrap().0
}

/// Edges 1 to 3, which keep a log together that has three payments, and where their disks are.
async fn group() -> (TempDir, [Edge; 3]) {
    let disks = tempfile::tempdir().unwrap();
    let start = |edge: u64| {
        let disk = disks.path().join(edge.to_string());
        async move { start(edge, &disk, true).await.unwrap() }
    };
    let (one, two, three) = tokio::join!(start(1), start(2), start(3));
    for id in 1..=3 {
        one.log().propose(&proposal(id), soon()).await.unwrap();
    }
    (disks, [one, two, three])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_keeper_is_rebuilt_by_one_command() {
    let (disks, [one, two, three]) = Box::pin(group()).await;
    let disk = disks.path().join("3");
    assert_eq!(three.stop().await, Stopped::Clean);
    damage(&disk);
    let again = start(3, &disk, true).await.map(drop);
    assert!(matches!(again, Err(StartError::Log(_))), "{again:?}");

    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let args = rebuild(&disk, 3, 4, &admin(&two));
    let mut tell = move |line: String| told.send(line).unwrap();
    // The service manager starts the newcomer once it is told to, in the folder's old place.
    let manager = async {
        let mut lines = Vec::new();
        while let Some(line) = hears.recv().await {
            let go = line.starts_with("start edge 4 now");
            lines.push(line);
            if go {
                break;
            }
        }
        (start(4, &disk, true).await.unwrap(), lines)
    };
    let (rebuilt, (four, lines)) = tokio::join!(args.rebuild(&mut tell), manager);
    let rebuilt = rebuilt.unwrap();
    assert!(
        lines[0].starts_with("the folder of edge 3 is set aside"),
        "{lines:?}"
    );
    let aside = rebuilt.set_aside.unwrap();
    let node = inspect::examine(&aside).unwrap().node;
    assert_eq!(node, 3, "renamed, not deleted");
    assert!(!rebuilt.advices_may_be_lost);
    assert!(rebuilt.added.changed && rebuilt.removed.changed);
    assert_eq!(rebuilt.removed.keepers, [1, 2, 4].into());

    // Run again it finds everything done.
    let again = rebuild(&disk, 3, 4, &admin(&two));
    let again = again.rebuild(&mut |_line| {}).await.unwrap();
    assert_eq!(again.set_aside, None);
    assert!(!again.added.changed && !again.removed.changed);

    // It has what the others had, and the audit is in the log.
    let committed = four.log().commit(&proposal(4), soon()).await.unwrap();
    let applied = committed.applied().index;
    four.log().wait_for(applied).await.unwrap();
    let known = |id| TransactionId::from_bytes([id; 16]);
    let knows = |id| four.log().read(|register| register.knows(known(id)));
    assert!((1..=4).all(knows));
    let (_, lines) = dumped(&disk, &[]);
    let orders: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] == "operator")
        .map(|line| line["order"].as_str().unwrap())
        .collect();
    let once = ["keeper.add 4", "keeper.remove 3"];
    assert_eq!(orders, [once, once].concat());
    for edge in [one, two, four] {
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_rebuilt_that_is_in_use_or_another_edges() {
    let (disks, [one, two, three]) = Box::pin(group()).await;
    let disk = disks.path().join("3");
    for (args, expected) in [
        (rebuild(&disk, 3, 4, &admin(&two)), "in use: stop edge 3"),
        (
            rebuild(&disk, 3, 4, &admin(&three)),
            "edge 3 itself answers",
        ),
        (rebuild(&disk, 3, 3, &admin(&two)), "another number"),
        (
            rebuild(&disk, 2, 4, &admin(&one)),
            "is of edge 3, not of edge 2",
        ),
    ] {
        let why = refused(args).await;
        assert!(why.contains(expected), "{why}");
    }
    assert!(inspect::examine(&disk).is_ok(), "it is where it was");
    for edge in [one, two, three] {
        edge.stop().await;
    }
    let alone = tempfile::tempdir().unwrap();
    let edge = start(5, alone.path(), false).await.unwrap();
    let why = refused(rebuild(&disk, 5, 6, &admin(&edge))).await;
    assert!(why.contains("edge 5 itself answers"), "{why}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_changed_by_hand_and_shown() {
    let (_disks, [one, two, three]) = Box::pin(group()).await;
    let member = async |what, node, at: &Edge| {
        let at = admin(at);
        let line = ["member", what, node, "--admin", &at];
        let signed = ["--operator", "ada", "--reason", "drill", "--json"];
        run(line.into_iter().chain(signed)).await
    };
    assert_eq!(member("add", "9", &two).await, 4, "nobody knows it");
    assert_eq!(member("add", "2", &two).await, 0, "it is one already");
    assert_eq!(member("remove", "2", &two).await, 4, "itself");
    assert_eq!(member("remove", "2", &one).await, 0);
    assert_eq!(two.stop().await, Stopped::Clean);
    let at = admin(&three);
    assert_eq!(run(["status", "--admin", &at]).await, 0);
    let page = three.status().await;
    let members: Vec<_> = status::members_of(&page);
    let first = |row: &[String; 6]| row[0].clone();
    assert_eq!(
        members.iter().map(first).collect::<Vec<_>>(),
        ["1", "3 (asked)"]
    );
    let lines = status::of_edge(&page).join("\n");
    for part in [
        "log: term",
        "drain:",
        "of 67108864 bytes",
        "exposure of the region, USD",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    for edge in [one, three] {
        edge.stop().await;
    }
    let gone = parse(["status", "--admin", &at]).run();
    assert!(Box::pin(gone).await.is_err(), "no reply");
}
