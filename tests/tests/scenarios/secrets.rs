//! What must be nowhere: in ledger and log what nobody signed, in anything that people read what is secret.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use standin_cli::client::{Call, Reply};
use standin_core::answer::Verdict;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_core::trip::Position;
use standin_core::trip_cache::TripCache;
use standin_tests::harness::bank::{SECRET, SLUG};
use standin_tests::harness::edge::CANARIES;
use standin_tests::harness::{Edge, EdgeOptions, Payment, Stage};

use super::PROGRAMS;
use super::door::{Certificates, drive};
use super::platforms::{lithic, marqeta, stripe};

/// Every secret that this file's edges are given.
const SECRETS: [(&str, &str); 4] = [
    ("second", "whsec_5PgFv1X0dC3hJ2kQm8rTyUzL"),
    ("third", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
    ("fourth", "marqeta:sesame-street"),
    (SLUG, SECRET),
];

fn options(stage: &Stage, certificates: &Certificates, level: &str) -> EdgeOptions {
    let bank = |slug: &str, adapter: &str, more: &str| {
        let (_, secret) = SECRETS.iter().find(|(of, _)| *of == slug).unwrap();
        format!(
            "\n[[banks]]\nslug = \"{slug}\"\nadapter = \"{adapter}\"\nsecrets = [\"{secret}\"]\n\
             deadline_ms = 8000\nwal_ms = 5000\n{more}\n"
        )
    };
    let cardholder = "shopper_by = \"cardholder\"";
    let certified = "client_certificate = \"required\"\nshopper_by = \"cardholder\"";
    let banks = [
        bank("second", "stripe", cardholder),
        bank("third", "lithic", ""),
        bank("fourth", "marqeta", certified),
    ];
    EdgeOptions {
        log_level: level.to_owned(),
        more: format!("{}\n{}", banks.concat(), certificates.tls()),
        ..EdgeOptions::on(stage)
    }
}

/// A request to a bank, as `drive.py` is asked for it.
fn request(certificates: &Certificates, edge: &Edge, slug: &str, body: Value) -> Value {
    let (_, secret) = SECRETS.iter().find(|(of, _)| *of == slug).unwrap();
    let scheme = match slug {
        "second" => "stripe",
        "fourth" => "basic",
        _ => "standard-webhooks",
    };
    let file = |name: String| certificates.file(&name).display().to_string();
    let text = match body {
        Value::String(text) => text,
        other => other.to_string(),
    };
    json!({
        "url": format!("https://{}/v1/banks/{slug}/authorizations", edge.address()),
        "scheme": scheme, "secret": secret, "body": text, "ca": file("banks-ca.pem".to_owned()),
        "certificate": file(format!("bank-{slug}.pem")), "key": file(format!("bank-{slug}.key")),
    })
}

fn with(mut request: Value, change: Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// Every byte of a folder's files.
fn bytes_of(folder: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(bytes_of(&path));
        } else {
            bytes.extend(std::fs::read(&path).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_what_nobody_signed_is_in_neither_ledger_nor_log() {
    let stage = Stage::set().await;
    stage.trips(1, 2, 1_000_000).await;
    let certificates = Certificates::new(&stage);
    let options = options(&stage, &certificates, "info");
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    // Each body carries a mark that would be found wherever it were kept.
    let body_of = |slug: &str, mark: &str| match slug {
        "second" => stripe(mark, mark, 500, &[]),
        "third" => lithic(mark, 500, mark, "AUTHORIZATION"),
        "fourth" => marqeta(mark, "pgfs.authorization", "5", None),
        _ => {
            let payment = Payment::new(mark, 1, 500);
            let text = String::from_utf8(payment.body().to_vec()).unwrap();
            serde_json::from_str(&text.replace(standin_tests::harness::stage::STORE_NAME, mark))
                .unwrap()
        }
    };
    let mut forged = Vec::new();
    let mut marks = Vec::new();
    for (slug, _) in SECRETS {
        let mut mark = |what: &str| {
            let mark = format!("mark-{slug}-{what}");
            marks.push(mark.clone());
            request(&certificates, &edge, slug, body_of(slug, &mark))
        };
        let other = if slug == "second" { "third" } else { "second" };
        let file = |kind: &str| {
            let name = format!("bank-{other}.{kind}");
            certificates.file(&name).display().to_string()
        };
        let others = json!({"certificate": file("pem"), "key": file("key")});
        let wrong = match slug {
            "fourth" => "marqeta:guess",
            _ => "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3",
        };
        forged.push(with(mark("secret"), json!({"secret": wrong})));
        forged.push(with(mark("certificate"), others));
        if slug != "fourth" {
            forged.push(with(mark("stale"), json!({"age": 400})));
            forged.push(with(mark("future"), json!({"age": -400})));
            let signed = mark("signed");
            let sent = mark("sent")["body"].clone();
            forged.push(with(signed, json!({"sent_body": sent})));
        }
    }
    let told = drive(&forged);
    for (request, told) in forged.iter().zip(&told) {
        assert_eq!(told.status, 401, "{request}: {told:?}");
        assert!(!told.body.contains("mark-"), "{told:?}");
    }
    // One that is good, so that both have something in them.
    let good = Payment::new("mark-good", 1, 500);
    let text = String::from_utf8(good.body().to_vec()).unwrap();
    let told = drive(&[request(&certificates, &edge, SLUG, json!(text))]);
    assert_eq!(told[0].status, 200, "{told:?}");
    edge.drained().await;
    assert!(edge.terminate().await.success());
    let rows = stage.ledger.authorizations(None, 100).await.unwrap();
    let verdicts: Vec<_> = rows.iter().map(|row| row.answer.verdict).collect();
    assert_eq!(verdicts, [Verdict::Approved]);
    let (claims, _, conflicts) = stage.ledger_counts().await;
    assert_eq!((claims, conflicts), (1, 0));
    let log = bytes_of(&edge.wal());
    assert!(holds(&log, "mark-good"), "what is looked for can be found");
    for mark in marks {
        assert!(!holds(&log, &mark), "{mark} is in the log");
    }
}

async fn page(edge: &Edge, path: &str) -> String {
    let reply: Reply = edge.admin(Call::get(path.to_owned())).await;
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_no_secret_card_number_or_position_is_in_anything_that_people_read() {
    let stage = Stage::set().await;
    let sheet = stage.trip(1, 1_000_000).await;
    let position = Position {
        lat_e6: 44_970_000,
        lon_e6: -93_270_000,
        at: SystemClock.now(),
    };
    let shopper = sheet.trip.shopper;
    stage.cache.moved(shopper, position).await.unwrap();
    let certificates = Certificates::new(&stage);
    // Everything that an edge can be made to say.
    let options = options(&stage, &certificates, "trace");
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let pay = |key: &str| {
        let payment = Payment::new(key, 1, 700);
        String::from_utf8(payment.body().to_vec()).unwrap()
    };
    let at = |slug: &str, body: &str| request(&certificates, &edge, slug, json!(body));
    let number = pay("n-2").replace("n-2", "4111111111111111");
    let track = stripe("iauth_1", "4111 1111 1111 1111", 500, &[]).to_string();
    let told = drive(&[
        at(SLUG, &pay("n-1")),
        at(SLUG, &pay("n-1").replace("7.00", "7.01")),
        at(SLUG, &number),
        at(SLUG, "{\"broken\": 4111111111111111"),
        at("second", &track),
        at(
            "fourth",
            &marqeta("5555555555554444", "pgfs.authorization", "5", None).to_string(),
        ),
        with(
            at(SLUG, &pay("n-3")),
            json!({"secret": "whsec_5PgFv1X0dC3hJ2kQm8rTyUzL"}),
        ),
        with(
            at("fourth", "{}"),
            json!({"secret": "marqeta:wrong-sesame-street"}),
        ),
    ]);
    let statuses: Vec<u16> = told.iter().map(|told| told.status).collect();
    let expected = [200, 422, 422, 422, 422, 422, 401, 401];
    assert_eq!(statuses, expected, "{told:#?}");
    let mut read: Vec<(String, String)> = told
        .iter()
        .enumerate()
        .map(|(number, told)| (format!("reply {number}"), told.body.clone()))
        .collect();
    edge.drained().await;
    for path in ["/statusz", "/metrics", "/healthz", "/readyz", "/"] {
        read.push((path.to_owned(), page(&edge, path).await));
    }
    let checked = edge.run(&[
        "config",
        "check",
        "--config",
        edge.config().to_str().unwrap(),
    ]);
    read.push(said("config check", &checked));
    assert!(edge.terminate().await.success());
    read.push(("the log file".to_owned(), edge.log()));
    let (wal, url) = (edge.wal(), stage.postgres_url());
    let out = stage.folder().join("report");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    for arguments in [
        vec!["wal".into(), "dump".into(), text(&wal)],
        vec!["wal".into(), "dump".into(), text(&wal), "--json".into()],
        vec!["wal".into(), "verify".into(), text(&wal)],
        vec![
            "reconcile".into(),
            "--postgres".into(),
            url,
            "--wal".into(),
            text(&wal),
            "--out".into(),
            text(&out),
        ],
    ] {
        let output = Command::new(PROGRAMS.standin)
            .args(&arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        read.push(said(&arguments.join(" "), &output));
    }
    for name in ["report.json", "report.html"] {
        read.push((
            name.to_owned(),
            std::fs::read_to_string(out.join(name)).unwrap(),
        ));
    }
    let secrets = SECRETS
        .iter()
        .map(|(_, secret)| secret.trim_start_matches("whsec_"));
    let passwords = ["sesame-street"];
    for (what, text) in &read {
        assert!(!text.is_empty(), "{what} says nothing");
        for canary in CANARIES.into_iter().chain(secrets.clone()).chain(passwords) {
            assert!(!text.contains(canary), "{canary} stands in {what}:\n{text}");
        }
    }
    // What an edge keeps for good holds none of them either.
    let kept = bytes_of(&wal);
    for canary in ["4111111111111111", "4111 1111 1111 1111", "sesame-street"] {
        assert!(!holds(&kept, canary), "{canary} is in the log");
    }
}

fn said(what: &str, output: &std::process::Output) -> (String, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (what.to_owned(), String::from_utf8_lossy(&text).into_owned())
}
