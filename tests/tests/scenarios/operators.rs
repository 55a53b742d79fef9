//! What operators and the platform do: orders, stops, claims, commands.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use standin_cli::client::{Signer, Target};
use standin_cli::platform_client::{self, ItemIn, OrderIn, PlatformClient};
use standin_core::answer::{Rung, Why};
use standin_core::id::StoreId;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{AuthorizationState, Ledger};
use standin_core::merchant::Store;
use standin_core::policy::{EXAMPLE, EXAMPLE_EXAMPLES};
use standin_drill::process::{Process, free_port};
use standin_reconcile::history::Outcome;
use standin_tests::conformance::ledger::propose;
use standin_tests::harness::wait::until;
use standin_tests::harness::{Edge, EdgeOptions, Payment, Stage, verdict};
use uuid::Uuid;

use super::{PROGRAMS, SOON};

pub(super) fn standin(arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAMS.standin)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    println!(
        "standin {}: {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[tokio::test]
async fn operators_force_and_forbid_standing_in_and_are_audited() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    let first = bank.pay(&Payment::new("auto", 1, 10_000)).await;
    assert_eq!(first.said().rung, Rung::Primary);

    assert_eq!(edge.order("force", "ada", "drill").await.status, 200);
    let forced = bank.pay(&Payment::new("forced", 1, 10_100)).await;
    assert_eq!(forced.said().rung, Rung::StandIn);
    assert_eq!(forced.json()["why"], Why::Forced.as_str());

    assert_eq!(edge.order("forbid", "bob", "audit").await.status, 200);
    let forbidden = bank.pay(&Payment::new("forbidden", 1, 10_200)).await;
    assert_eq!(forbidden.said().rung, Rung::Primary);
    stage.postgres.pause().unwrap();
    println!("injected: standing in is forbidden and the primary hangs");
    let late = Payment::new("refused", 1, 10_300);
    let refused = bank.pay(&late).await;
    assert_eq!(refused.status(), Some(503));
    assert_eq!(refused.json()["cause"], "stand_in_forbidden");
    stage.postgres.resume().unwrap();

    assert_eq!(edge.order("auto", "cyd", "over").await.status, 200);
    // Nothing is written meanwhile: the order ends all the same.
    let timed = edge
        .order_for("force", Some(1_000), "dan", "a second")
        .await;
    assert_eq!(timed.status, 200);
    edge.status_until("an order that ended", SOON, |status| {
        let stand_in = &status["stand_in"];
        (stand_in["mode"] == "auto" && stand_in["mode_ends_in_ms"].is_null()).then_some(())
    })
    .await;
    let again = bank.pay_until_answered(&late, SOON).await;
    assert_eq!(again.status(), Some(200));
    for (mode, operator, reason) in [("auto", "", "x"), ("auto", "x", ""), ("sideways", "x", "y")] {
        let status = edge.order(mode, operator, reason).await.status;
        assert!(matches!(status, 400 | 404), "{mode} {operator}: {status}");
    }
    edge.drained().await;
    let audit = stage.ledger.audit(10).await.unwrap();
    let told: Vec<_> = audit
        .iter()
        .map(|row| {
            (
                row.operator.as_str(),
                row.action.as_str(),
                row.reason.as_str(),
            )
        })
        .collect();
    println!("audit: {told:?}");
    let expected = [
        ("ada", "stand_in.force", "drill"),
        ("bob", "stand_in.forbid", "audit"),
        ("cyd", "stand_in.auto", "over"),
        ("dan", "stand_in.force for 1000 ms", "a second"),
        (
            "standin",
            "stand_in.over",
            "the order was given for a time, which is over",
        ),
    ];
    assert_eq!(told, expected);
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test]
async fn a_bank_that_is_never_stood_in_for_gets_no_answer_without_the_primary() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let options = EdgeOptions {
        more: "stand_in = \"forbidden\"".to_owned(),
        ..EdgeOptions::on(&stage)
    };
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(2);
    let first = bank.pay(&Payment::new("first", 1, 10_000)).await;
    assert_eq!(first.said().rung, Rung::Primary);
    stage.postgres.pause().unwrap();
    println!("injected: the primary hangs");
    // The breaker opens meanwhile: for this bank that changes the cause, not the word.
    for number in 0..15 {
        let key = format!("refused-{number}");
        let refused = bank.pay(&Payment::new(&key, 1, 10_100 + number)).await;
        assert_eq!(refused.status(), Some(503), "{refused:?}");
        assert_eq!(refused.json()["cause"], "stand_in_forbidden");
    }
    assert_eq!(edge.order("force", "ada", "drill").await.status, 200);
    let forced = bank.pay(&Payment::new("forced", 1, 10_200)).await;
    assert_eq!(forced.json()["cause"], "stand_in_forbidden");
    let exposure = edge.status().await["exposure"]["parts"]["stand_in_minor"].clone();
    assert_eq!(exposure, 0, "nothing can be approved while standing in");
    stage.postgres.resume().unwrap();
    assert_eq!(edge.order("auto", "ada", "over").await.status, 200);
    let payment = Payment::new("refused-0", 1, 10_100);
    let again = bank.pay_until_answered(&payment, SOON).await;
    assert_eq!(again.said().rung, Rung::Primary);
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_answer() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, 20, 10_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(10);
    let load = bank.load("stop", 8, &shoppers);
    for stop in 0..4 {
        load.progress(80, SOON).await;
        let status = edge.terminate().await;
        assert!(status.success(), "stop {stop}: {status}\n{}", edge.log());
        edge.restart().await;
    }
    load.progress(40, SOON).await;
    for payment in load.stop().await {
        bank.pay_until_answered(&payment, SOON).await;
    }
    let attempts = stage.history.attempts();
    let broken = attempts
        .iter()
        .filter(|attempt| attempt.outcome == Outcome::NoReply);
    println!(
        "injected: 4 stops (SIGTERM) under load; {} requests, {} without a reply",
        attempts.len(),
        broken.count()
    );
    // Every payment, also one whose connection was closed, has its answer, and the ledger has it.
    let end = verdict::end(&stage, &mut edge, &[]).await;
    end.all_approved();
    let payments: std::collections::BTreeSet<_> =
        attempts.iter().map(|attempt| &attempt.payment).collect();
    assert_eq!(end.rows.len(), payments.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_shoppers_racing_for_an_order_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let [banks, operators, trips] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
    let mut command = Command::new(PROGRAMS.standin);
    command.arg("serve").arg("--data").arg(&data);
    command.args(["--listen", &banks, "--admin-listen", &operators]);
    command.args(["--trips-listen", &trips]);
    let log = folder.path().join("serve.log");
    let mut process = Process::spawn("standin serve", command, &log).unwrap();
    let secret = until("the platform's secret", SOON, || async {
        std::fs::read_to_string(data.join("platform.secret")).ok()
    });
    let secret = secret.await;
    let target: Target = trips.parse().unwrap();
    let signer = Signer::new(secret.trim().parse().unwrap());
    let client = PlatformClient::new(target, 50, signer);
    let store = Store {
        id: StoreId::try_from(7_u64).unwrap(),
        name: "Target".to_owned(),
        address: "123 Main St".to_owned(),
        lat_e6: 1,
        lon_e6: 2,
    };
    until("a store", SOON, || async {
        let call = platform_client::put_store(&store).unwrap();
        client.ask(call).await.ok()
    })
    .await;
    let order = Uuid::now_v7();
    let items = [ItemIn {
        product: 1,
        category: "GROCERY",
        quantity: 1,
        listed: "3.00".to_owned(),
    }];
    let placed = OrderIn {
        order_id: order,
        customer_id: 5,
        store_id: 7,
        items: items.to_vec(),
    };
    client
        .ask(platform_client::place(&placed).unwrap())
        .await
        .unwrap();
    let claims = (1..=50_u64).map(|shopper| {
        let call = platform_client::claim(order, shopper).unwrap();
        client.call(call)
    });
    let replies = futures_util::future::join_all(claims).await;
    let statuses: Vec<u16> = replies
        .into_iter()
        .map(|reply| reply.unwrap().status)
        .collect();
    let won = statuses.iter().filter(|status| **status == 200).count();
    println!("injected: 50 claims at once: {statuses:?}");
    assert_eq!(won, 1);
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)));
    process.terminate().unwrap();
    let status = process.ended(SOON).await.unwrap();
    assert!(status.success(), "{status} {}", process.tail());
}

#[tokio::test]
async fn reconcile_tells_clean_from_findings_from_could_not_run() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    for number in 0..5 {
        let payment = Payment::new(format!("r-{number}"), 1, 1_000 + number);
        assert_eq!(bank.pay(&payment).await.status(), Some(200));
    }
    verdict::end(&stage, &mut edge, &[]).await;
    let (url, wal) = (stage.postgres_url(), edge.wal());
    let out = stage.folder().join("report");
    let reconcile = |url: &str, wal: &Path| {
        let (wal, out) = (wal.to_str().unwrap(), out.to_str().unwrap());
        // Without a word it is `run`.
        let output = standin(&["reconcile", "--postgres", url, "--wal", wal, "--out", out]);
        output.status.code()
    };
    assert_eq!(reconcile(&url, &wal), Some(0), "clean");
    assert!(out.join("report.json").is_file() && out.join("report.html").is_file());
    println!("injected: an approval's amount was changed in the ledger");
    stage
        .sql("update authorizations set amount = amount + 1 where amount = 1003")
        .await;
    assert_eq!(reconcile(&url, &wal), Some(2), "findings");
    println!("injected: no such log; then no such primary");
    assert_eq!(reconcile(&url, &wal.join("nowhere")), Some(1), "no log");
    stage.postgres.kill().await.unwrap();
    assert_eq!(reconcile(&url, &wal), Some(1), "no primary");
}

#[tokio::test]
async fn reconcile_releases_a_stale_hold_through_the_running_edge() {
    let stage = Stage::set().await;
    let sheet = stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    assert_eq!(
        bank.pay(&Payment::new("t", 1, 1_000)).await.status(),
        Some(200)
    );
    edge.drained().await;
    let stale = propose(&sheet, "stale", 2_000, 1_000_000);
    let id = stale.transaction_id;
    stage.ledger.hold(vec![stale]).await.unwrap();
    let age = "update authorizations set held_at = now() - interval '1 hour' where state = 'held'";
    stage.sql(age).await;
    println!("injected: a hold one hour old that no log answers");
    let (url, wal) = (stage.postgres_url(), edge.wal());
    let (wal, out) = (wal.to_str().unwrap(), stage.folder().join("report"));
    let mut arguments = vec!["reconcile", "run", "--postgres", &url, "--wal", wal];
    arguments.extend(["--out", out.to_str().unwrap()]);
    let held = async || {
        let rows = stage.ledger.authorizations(None, 10).await.unwrap();
        let row = rows.iter().find(|row| row.answer.transaction_id == id);
        row.map(|row| row.state)
    };
    assert_eq!(standin(&arguments).status.code(), Some(2), "no edge named");
    assert_eq!(held().await, Some(AuthorizationState::Held));
    let admin = edge.admin_url();
    arguments.extend(["--admin", &admin]);
    assert_eq!(standin(&arguments).status.code(), Some(0), "released");
    assert_eq!(held().await, Some(AuthorizationState::Released));
    edge.drained().await;
    let audit = stage.ledger.audit(10).await.unwrap();
    let told: Vec<_> = audit.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(told, [format!("hold.tombstone {id}")]);
    edge.terminate().await;
    assert_eq!(standin(&arguments).status.code(), Some(1), "no such edge");
}

#[test]
fn policy_test_fails_on_a_broken_example() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let examples = folder.path().join("policy.examples.toml");
    std::fs::write(&policy, EXAMPLE).unwrap();
    std::fs::write(&examples, EXAMPLE_EXAMPLES).unwrap();
    let file = policy.to_str().unwrap();
    assert_eq!(standin(&["policy", "test", file]).status.code(), Some(0));
    let broken = EXAMPLE_EXAMPLES.replacen("within_cap", "over_cap", 1);
    assert_ne!(broken, EXAMPLE_EXAMPLES, "no example expects an approval");
    std::fs::write(&examples, broken).unwrap();
    println!("injected: an example that expects what the policy does not say");
    assert_eq!(standin(&["policy", "test", file]).status.code(), Some(2));
}

#[tokio::test]
async fn migrate_makes_the_tables_of_an_empty_database_and_is_harmless_again() {
    let stage = Stage::set().await;
    let edge = Edge::start(PROGRAMS, &stage).await;
    let config = edge.config();
    let config = config.to_str().unwrap();
    // The stage's own database has them already.
    assert!(edge.run(&["migrate", "--config", config]).status.success());
    let url = stage.postgres.create_database("empty").await.unwrap();
    let ledger = PostgresLedger::connect(&PostgresConfig::new(url.clone())).unwrap();
    ledger.stores().await.unwrap_err();
    let on_empty = std::fs::read_to_string(config).unwrap();
    let on_empty = on_empty.replace(&stage.postgres_url(), &url);
    let file = stage.folder().join("empty.toml");
    std::fs::write(&file, on_empty).unwrap();
    for _ in 0..2 {
        let migrated = edge.run(&["migrate", "--config", file.to_str().unwrap()]);
        assert!(migrated.status.success(), "{migrated:?}");
        assert_eq!(ledger.stores().await.unwrap(), []);
    }
    stage
        .postgres
        .execute("postgres", "drop database empty with (force)")
        .await
        .unwrap();
    let gone = edge.run(&["migrate", "--config", file.to_str().unwrap()]);
    assert_eq!(gone.status.code(), Some(1));
}

#[tokio::test]
async fn an_edge_explains_its_configuration_and_its_metrics_are_valid() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let config = edge.config();
    let checked = edge.run(&["config", "check", "--config", config.to_str().unwrap()]);
    assert!(checked.status.success());
    let page = String::from_utf8(checked.stdout).unwrap();
    assert!(page.lines().count() > 40, "{page}");
    for line in page.lines() {
        let origin = line.rsplit_once("  # ").map(|(_, origin)| origin);
        assert!(origin.is_some_and(|origin| !origin.is_empty()), "{line}");
        assert!(!line.contains("whsec_"), "a secret is shown: {line}");
        assert!(
            !line.contains("postgres://"),
            "a connection is shown: {line}"
        );
    }
    let bank = edge.bank(2);
    assert_eq!(
        bank.pay(&Payment::new("m", 1, 100)).await.status(),
        Some(200)
    );
    let metrics = edge.metrics().await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian: apt install prometheus)");
    let mut stdin = promtool.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    println!(
        "promtool: {} on {} lines",
        output.status,
        metrics.lines().count()
    );
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.is_empty() && output.stdout.is_empty(),
        "{output:?}"
    );
    verdict::end(&stage, &mut edge, &[]).await;
}
