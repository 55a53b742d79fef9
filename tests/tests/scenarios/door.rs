//! The door as banks meet it: TLS, certificates, rotating secrets, and clients that we did not write.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};
use standin_cli::client::{Call, CallError, ClientTls, Pool, Reply, Signer, Target};
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_core::signature::Secret;
use standin_edge::issue::Authority;
use standin_reconcile::history::{Attempt, BodyHash, Outcome};
use standin_tests::harness::bank::{SECRET, SLUG};
use standin_tests::harness::wait::until;
use standin_tests::harness::{Edge, EdgeOptions, Payment, Stage, verdict};

use super::{PROGRAMS, SOON};

const SECOND: &str = "second";
const STRIPE_SECRET: &str = "whsec_5PgFv1X0dC3hJ2kQm8rTyUzL";
const NEW_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const MESSAGE_SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const CREDENTIALS: &str = "marqeta:sesame-street";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Certificates that `standin certs` made.
pub(super) struct Certificates(PathBuf);

impl Certificates {
    pub(super) fn new(stage: &Stage) -> Self {
        let dir = stage.folder().join("certs");
        let made = Command::new(PROGRAMS.standin)
            .args(["certs", "--banks", "first,second,third,fourth"])
            .args(["--hosts", "127.0.0.1", "--out"])
            .arg(&dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let certificates = Self(dir);
        certificates.revoke(&[]);
        certificates
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    fn revoke(&self, certificates: &[&str]) {
        let (ca, key) = (self.read("banks-ca.pem"), self.read("banks-ca.key"));
        let authority = Authority::from_pem(&ca, &key).unwrap();
        let certificates: Vec<_> = certificates.iter().map(|name| self.read(name)).collect();
        let certificates: Vec<_> = certificates.iter().map(String::as_str).collect();
        let list = authority
            .revoke(&certificates, 2, SystemClock.now())
            .unwrap();
        std::fs::write(self.file("banks.crl"), list).unwrap();
    }

    /// What is said behind the keys of bank `first`: those first, then another bank, then tables.
    fn options(&self, stage: &Stage, of_first: &str) -> EdgeOptions {
        EdgeOptions {
            more: format!(
                r#"
{of_first}

[[banks]]
slug = "{SECOND}"
signature = "stripe"
secrets = ["{STRIPE_SECRET}"]
deadline_ms = 8000
wal_ms = 5000

[[banks]]
slug = "third"
signature = "http-message"
secrets = ["{MESSAGE_SECRET} id=2026-11"]
deadline_ms = 8000
wal_ms = 5000

[[banks]]
slug = "fourth"
signature = "basic"
client_certificate = "required"
secrets = ["{CREDENTIALS}"]
deadline_ms = 8000
wal_ms = 5000

{}"#,
                self.tls()
            ),
            ..EdgeOptions::on(stage)
        }
    }

    /// The table that makes it the door's.
    pub(super) fn tls(&self) -> String {
        let at = |name: &str| self.file(name);
        format!(
            r#"[tls]
certificate = {:?}
key = {:?}
banks_ca = {:?}
banks_crl = {:?}
"#,
            at("door.pem"),
            at("door.key"),
            at("banks-ca.pem"),
            at("banks.crl")
        )
    }

    /// A pool of the bank's connections, each with its certificate.
    fn pool(&self, edge: &Edge, bank: &str) -> Pool {
        let target: Target = format!("https://{}", edge.address()).parse().unwrap();
        let shown = [format!("bank-{bank}.pem"), format!("bank-{bank}.key")];
        let [certificate, key] = shown.map(|name| self.file(&name));
        let tls = ClientTls::read(&self.file("banks-ca.pem"), Some((&certificate, &key)));
        Pool::over_tls(target, 1, tls.unwrap())
    }
}

/// What `drive.py` says of one request.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) replayed: bool,
    pub(super) body: String,
}

/// Runs a program of `tests/clients` on this input, and gives what it printed.
pub(super) fn python(program: &str, input: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../target/clients/bin/python");
    assert!(
        python.exists(),
        "{} is missing: tests/run installs it",
        python.display()
    );
    let mut child = Command::new(python)
        .arg(root.join("clients").join(program))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// Has the platforms' own libraries sign and send these requests.
pub(super) fn drive(requests: &[Value]) -> Vec<Told> {
    let lines = python("drive.py", &serde_json::to_string(requests).unwrap());
    let told: Vec<Told> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), requests.len());
    told
}

/// Keeps what a client of others was told of a payment, for the checker.
fn keep(stage: &Stage, slug: &str, payment: &Payment, told: &Told) {
    let bank = slug.parse().unwrap();
    let now = SystemClock.now().as_millis();
    let replayed = told.replayed.then_some("true");
    stage.history.push(Attempt {
        payment: payment.key.clone(),
        transaction_id: Some(payment.transaction_id(&bank)),
        bank,
        shopper: payment.shopper.try_into().unwrap(),
        body: BodyHash::of(&payment.body()),
        amount: payment.amount(),
        edge: "edge-1".to_owned(),
        verified: true,
        intended_at: now,
        sent_at: now,
        answered_at: now,
        latency_us: 0,
        outcome: Outcome::of_reply(told.status, told.body.as_bytes(), replayed),
        expectation: None,
    });
}

/// Each case of one bank: what is asked for, and the status it must get.
fn cases(
    certificates: &Certificates,
    url: &str,
    slug: &str,
    secret: &str,
) -> Vec<(&'static str, Payment, Value, u16)> {
    let (scheme, header, wrong, not_certified) = match slug {
        SLUG => ("standard-webhooks", "webhook-signature", NEW_SECRET, 401),
        _ => ("stripe", "Stripe-Signature", "whsec_of_somebody_else", 200),
    };
    let other = if slug == SLUG { SECOND } else { SLUG };
    let file = |name: String| certificates.file(&name).display().to_string();
    let of = |payment: &Payment, change: Value| {
        let mut request = json!({
            "url": format!("{url}/v1/banks/{slug}/authorizations"),
            "scheme": scheme,
            "secret": secret,
            "body": String::from_utf8(payment.body().to_vec()).unwrap(),
            "ca": file("banks-ca.pem".to_owned()),
            "certificate": file(format!("bank-{slug}.pem")),
            "key": file(format!("bank-{slug}.key")),
        });
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                request.as_object_mut().unwrap().remove(name);
            } else {
                request[name] = value.clone();
            }
        }
        request
    };
    let shopper = if slug == SLUG { 1 } else { 2 };
    let payment = |what: &str, cents| Payment::new(format!("{slug}-{what}"), shopper, cents);
    let first = payment("first", 12_300);
    let more = payment("first", 12_301);
    let large = payment("large", 90_000_000);
    let never = payment("never", 100);
    let plain = payment("plain", 200);
    let text = |payment: &Payment| String::from_utf8(payment.body().to_vec()).unwrap();
    let no_certificate = json!({"certificate": null, "key": null});
    let of_other = json!({
        "certificate": file(format!("bank-{other}.pem")),
        "key": file(format!("bank-{other}.key")),
    });
    vec![
        ("approval", first.clone(), of(&first, json!({})), 200),
        ("retry", first.clone(), of(&first, json!({})), 200),
        (
            "other body, same key",
            more.clone(),
            of(&more, json!({})),
            422,
        ),
        ("decline", large.clone(), of(&large, json!({})), 402),
        (
            "tampered body",
            never.clone(),
            of(&never, json!({"sent_body": text(&payment("never", 900))})),
            401,
        ),
        ("stale", never.clone(), of(&never, json!({"age": 302})), 401),
        (
            "future",
            never.clone(),
            of(&never, json!({"age": -400})),
            401,
        ),
        (
            "no signature",
            never.clone(),
            of(&never, json!({"drop": header})),
            401,
        ),
        (
            "wrong secret",
            never.clone(),
            of(&never, json!({"secret": wrong})),
            401,
        ),
        (
            "another bank's certificate",
            never.clone(),
            of(&never, of_other),
            401,
        ),
        (
            "no certificate",
            plain.clone(),
            of(&plain, no_certificate),
            not_certified,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_others_wrote_agree_with_us_over_tls() {
    let stage = Stage::set().await;
    stage.trips(1, 2, 10_000_000).await;
    let certificates = Certificates::new(&stage);
    let options = certificates.options(&stage, "client_certificate = \"required\"");
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let url = format!("https://{}", edge.address());
    let mut approved = Vec::new();
    for (slug, secret) in [(SLUG, SECRET), (SECOND, STRIPE_SECRET)] {
        let cases = cases(&certificates, &url, slug, secret);
        let requests: Vec<_> = cases
            .iter()
            .map(|(_, _, request, _)| request.clone())
            .collect();
        let told = drive(&requests);
        for ((case, payment, _, status), told) in cases.iter().zip(&told) {
            println!("{slug}, {case}: {} {}", told.status, told.body);
            assert_eq!(told.status, *status, "{slug}, {case}: {told:?}");
            assert_eq!(told.replayed, *case == "retry", "{slug}, {case}");
            if *status != 401 {
                keep(&stage, slug, payment, told);
            }
        }
        assert_eq!(told[0].body, told[1].body, "a retry gets the same bytes");
        approved.push(told[0].status);
    }
    assert_eq!(approved, [200, 200]);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    // Per bank an approval and a decline, and what `second` may send without a certificate.
    assert_eq!(end.rows.len(), 5);
}

fn call(payment: &Payment, secret: &str) -> Call {
    let signer = Signer::new(secret.parse::<Secret>().unwrap());
    Call::post(format!("/v1/banks/{SLUG}/authorizations"), payment.body()).signed(&signer)
}

async fn ask(pool: &Pool, payment: &Payment, secret: &str) -> Result<Reply, CallError> {
    pool.ask(call(payment, secret), PATIENCE).await
}

fn kept(reply: &Reply) -> Told {
    Told {
        status: reply.status,
        replayed: reply.replayed.is_some(),
        body: String::from_utf8(reply.body.to_vec()).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_secrets_are_rotated_without_a_restart_and_an_edge_behind_says_come_again() {
    let stage = Stage::set().await;
    stage.trips(1, 1, 10_000_000).await;
    let certificates = Certificates::new(&stage);
    let file = stage.folder().join("first.secrets");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    // The bank has two keys; this edge was given the one in its configuration.
    write("- id=next\n");
    let options = certificates.options(&stage, &format!("secrets_file = {file:?}"));
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let pool = certificates.pool(&edge, SLUG);
    let numbers = AtomicI64::new(0);
    let pay = async |secret: &str| {
        let number = 1 + numbers.fetch_add(1, Ordering::SeqCst);
        let payment = Payment::new(format!("k2-{number}"), 1, 100 + number);
        let reply = ask(&pool, &payment, secret).await.unwrap();
        if reply.status == 200 {
            keep(&stage, SLUG, &payment, &kept(&reply));
        }
        reply
    };
    let behind = pay(NEW_SECRET).await;
    let cause: Value = serde_json::from_slice(&behind.body).unwrap();
    assert_eq!(
        (behind.status, &cause["cause"]),
        (503, &json!("key_missing"))
    );
    assert_eq!(pay(SECRET).await.status, 200);
    println!("injected: an edge without the bank's newer key");

    write(&format!("{NEW_SECRET} id=next\n"));
    until("the new key", SOON, || async {
        (pay(NEW_SECRET).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        pay(SECRET).await.status,
        200,
        "both are good while they overlap"
    );
    assert_eq!(
        pay("whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3").await.status,
        401
    );

    write("nonsense\n");
    edge.alarm("bank_secrets", true, SOON).await;
    assert_eq!(pay(NEW_SECRET).await.status, 200, "what was in use stays");
    println!("injected: a file of secrets that holds none");
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_a_revoked_certificate_is_refused_and_a_bad_list_changes_nothing() {
    let stage = Stage::set().await;
    stage.trips(1, 1, 10_000_000).await;
    let certificates = Certificates::new(&stage);
    let options = certificates.options(&stage, "client_certificate = \"required\"");
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let payment = Payment::new("k1", 1, 5_000);
    // A pool a request: a connection that is open stays.
    let once = async || {
        let pool = certificates.pool(&edge, SLUG);
        ask(&pool, &payment, SECRET).await
    };
    let first = once().await.unwrap();
    keep(&stage, SLUG, &payment, &kept(&first));
    assert_eq!(first.status, 200);
    let open = certificates.pool(&edge, SLUG);
    assert_eq!(ask(&open, &payment, SECRET).await.unwrap().body, first.body);

    std::fs::write(certificates.file("banks.crl"), "nonsense").unwrap();
    edge.alarm("door_certificates", true, SOON).await;
    assert_eq!(once().await.unwrap().body, first.body);
    println!("injected: a revocation list that is none");

    certificates.revoke(&["bank-first.pem"]);
    until("the refusal", SOON, || async {
        once().await.is_err().then_some(())
    })
    .await;
    println!("injected: the bank's certificate is revoked");
    let told = ask(&open, &payment, SECRET).await.unwrap();
    assert_eq!(told.body, first.body, "a connection that is open stays");
    certificates.revoke(&[]);
    until("the way back", SOON, || async {
        once().await.is_ok().then_some(())
    })
    .await;
    edge.drained().await;
    assert_eq!(stage.ledger.conflicts(10).await.unwrap().len(), 0);
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_client_signs_in_every_way() {
    let stage = Stage::set().await;
    stage.trips(1, 4, 10_000_000).await;
    let certificates = Certificates::new(&stage);
    let mut edge = Edge::start_with(PROGRAMS, &stage, certificates.options(&stage, "")).await;
    let mut shopper = 0;
    let other_message = MESSAGE_SECRET.replacen("AAEC", "AAED", 1);
    for (slug, scheme, secret, wrong) in [
        (SLUG, "standard-webhooks", SECRET, NEW_SECRET),
        (SECOND, "stripe", STRIPE_SECRET, "whsec_of_somebody_else"),
        (
            "third",
            "http-message",
            MESSAGE_SECRET,
            other_message.as_str(),
        ),
        ("fourth", "basic", CREDENTIALS, "marqeta:open-sesame"),
    ] {
        shopper += 1;
        let payment = Payment::new(format!("own-{slug}"), shopper, 1_500);
        let body = payment.body();
        let text = std::str::from_utf8(&body).unwrap();
        let send = |secret: &str| {
            let file = |name: String| certificates.file(&name).display().to_string();
            Command::new(PROGRAMS.standin)
                .args([
                    "bank",
                    "send",
                    "--json",
                    "--bank",
                    slug,
                    "--signature",
                    scheme,
                ])
                .args(["--url", &format!("https://{}", edge.address())])
                .args(["--ca", &file("banks-ca.pem".to_owned())])
                .args(["--certificate", &file(format!("bank-{slug}.pem"))])
                .args(["--key", &file(format!("bank-{slug}.key"))])
                .args(["--secret", secret, "--key-id", "2026-11"])
                .args(["--body", text])
                .stdin(Stdio::null())
                .output()
                .unwrap()
        };
        let sent = send(secret);
        let shown: Value = serde_json::from_slice(&sent.stdout).unwrap();
        assert_eq!(
            (sent.status.code(), &shown["status"]),
            (Some(0), &json!(200)),
            "{shown}"
        );
        let told = Told {
            status: 200,
            replayed: false,
            body: shown["body"].to_string(),
        };
        keep(&stage, slug, &payment, &told);
        let shown: Value = serde_json::from_slice(&send(wrong).stdout).unwrap();
        assert_eq!(shown["status"], 401, "{slug}");
    }
    edge.drained().await;
    let rows = stage.ledger_counts().await;
    println!("{rows:?}");
    assert!(edge.terminate().await.success());
}

/// The relay that signs, until it is dropped.
struct Relay(std::process::Child, u16);

impl Relay {
    fn start(edge: &Edge) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(root.join("../target/clients/bin/python"))
            .arg(root.join("clients/sign.py"))
            .args([edge.address().to_string(), SECRET.to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_is_as_its_contract_says() {
    let stage = Stage::set().await;
    stage.trips(1, 3, 10_000_000).await;
    let edge = Edge::start(PROGRAMS, &stage).await;
    let relay = Relay::start(&edge);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seed = super::seed() % 1_000_000;
    // Any bank's slug would nearly always be nobody's.
    let contract = std::fs::read_to_string(root.join("../edge/openapi.yaml")).unwrap();
    let any = r#"pattern: "^[a-z0-9-]{1,32}$""#;
    assert!(contract.contains(any));
    let file = stage.folder().join("openapi.yaml");
    let ours = contract.replace(any, &format!("enum: [{SLUG}]"));
    std::fs::write(&file, ours).unwrap();
    let ran = Command::new(root.join("../target/clients/bin/schemathesis"))
        .arg("run")
        .arg(&file)
        // It keeps files of its own where it runs.
        .current_dir(stage.folder())
        .args(["--url", &format!("http://127.0.0.1:{}", relay.1)])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "150",
        ])
        .args(["--seed", &seed.to_string(), "--no-color"])
        // What is valid may be declined, and a request is signed for whoever asks.
        .args([
            "--exclude-checks",
            "positive_data_acceptance,ignored_auth,missing_required_header",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}", ran.status);
    let answered = edge.metric("standin_answers_total", &[]).await;
    let refused = edge.metric("standin_refusals_total", &[]).await;
    println!("{answered} answers, {refused} refusals");
    assert!(answered >= 10 && refused >= 10);
}
