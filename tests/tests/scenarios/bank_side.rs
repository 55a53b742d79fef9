//! What banks do to an edge: dying, repeating, forging, sending nonsense.

use standin_cli::client::{Call, Pool};
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::BankId;
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, sign};
use standin_tests::harness::bank::{SECRET, SLUG};
use standin_tests::harness::{Bank, Edge, Payment, Stage, Told, verdict};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{PROGRAMS, SOON};

/// A trip of shopper 1 with 10,000.00 picked, and an edge.
async fn set() -> (Stage, Edge, Bank) {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(64);
    (stage, edge, bank)
}

/// Sends a payment over a connection of its own, and gives the connection.
async fn send_only(edge: &Edge, bank: &Bank, payment: &Payment) -> TcpStream {
    let mut stream = TcpStream::connect(edge.address()).await.unwrap();
    stream.write_all(&bank.raw(payment)).await.unwrap();
    stream
}

#[tokio::test]
async fn b1_a_bank_that_died_after_sending_gets_the_same_answer_again() {
    let (stage, mut edge, bank) = set().await;
    let payment = Payment::new("b1", 1, 30_000);
    let (sent_at, began) = (SystemClock.now().as_millis(), Instant::now());
    drop(send_only(&edge, &bank, &payment).await);
    bank.record_no_reply(&payment, sent_at, began);
    println!("injected: the bank closed its connection right after sending");
    let first = bank.pay_until_answered(&payment, SOON).await;
    let again = bank.pay(&payment).await;
    assert_eq!(first.status(), Some(200));
    assert_eq!(first.reply().body, again.reply().body);
    assert!(again.is_replayed());
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.approved(), 1);
}

#[tokio::test]
async fn b2_fifty_concurrent_requests_for_one_payment_are_one_execution() {
    let (stage, mut edge, bank) = set().await;
    let payment = Payment::new("b2", 1, 30_000);
    let asking = (0..50).map(|_| bank.pay(&payment));
    let told: Vec<Told> = futures_util::future::join_all(asking).await;
    let first = told[0].reply();
    assert!(told.iter().all(|told| told.reply().body == first.body));
    assert!(told.iter().all(|told| told.status() == Some(200)));
    let fresh = told.iter().filter(|told| !told.is_replayed()).count();
    println!("injected: 50 requests at once, {fresh} of them executed");
    assert_eq!(fresh, 1);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.rows.len(), 1);
    let entries = end
        .log
        .records
        .iter()
        .filter(|record| record.booking().is_some());
    assert_eq!(entries.count(), 1);
}

#[tokio::test]
async fn b3_the_same_key_with_another_body_is_refused_and_changes_nothing() {
    let (stage, mut edge, bank) = set().await;
    let first = bank.pay(&Payment::new("b3", 1, 30_000)).await;
    assert_eq!(first.status(), Some(200));
    edge.drained().await;
    let before = stage.ledger_counts().await;
    let index = edge.status().await["wal"]["last_index"].clone();
    let other = Payment::new("b3", 1, 31_234);
    let elsewhere = Payment {
        store: "Other Store",
        ..Payment::new("b3", 1, 30_000)
    };
    for payment in [&other, &elsewhere] {
        let told = bank.pay(payment).await;
        assert_eq!(told.status(), Some(422), "{payment:?}");
        assert!(!told.is_replayed());
        assert_eq!(
            told.json()["type"],
            "urn:standin:problem:transaction-id-reused"
        );
    }
    println!("injected: two other bodies under the key of an answered payment");
    assert_eq!(stage.ledger_counts().await, before);
    assert_eq!(edge.status().await["wal"]["last_index"], index);
    assert!(
        !edge.log().contains("Other Store") && !edge.log().contains("312.34"),
        "a body was logged"
    );
    let replayed = bank.pay(&Payment::new("b3", 1, 30_000)).await;
    assert_eq!(replayed.reply().body, first.reply().body);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.rows.len(), 1);
    assert_eq!(end.rows[0].answer.amount.minor(), 30_000);
}

/// One forged request: what is wrong, and its headers.
struct Forgery {
    what: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
}

fn forgeries(body: &[u8]) -> Vec<Forgery> {
    let right: Secret = SECRET.parse().unwrap();
    let other = Secret::from_bytes(vec![9; 32]).unwrap();
    let now = SystemClock.now().as_secs();
    let signed = |secret: &Secret, id: &str, at: i64, body: &[u8]| {
        vec![
            (ID_HEADER, id.to_owned()),
            (TIMESTAMP_HEADER, at.to_string()),
            (SIGNATURE_HEADER, sign(secret, id, at, body)),
        ]
    };
    let good = signed(&right, "m", now, body);
    let with = |name: &'static str, value: String| {
        let mut headers = good.clone();
        headers.retain(|(header, _)| *header != name);
        headers.push((name, value));
        headers
    };
    let without = |name: &str| {
        let mut headers = good.clone();
        headers.retain(|(header, _)| *header != name);
        headers
    };
    let signature = good[2].1.clone();
    let flipped = {
        let at = signature.len() / 2;
        let other = if &signature[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &signature[..at], &signature[at + 1..])
    };
    let twice = [good.clone(), vec![(SIGNATURE_HEADER, signature.clone())]].concat();
    let many = vec![sign(&other, "m", now, body); 8].join(" ") + " " + &signature;
    let mut table = vec![
        ("wrong secret", signed(&other, "m", now, body)),
        ("another body signed", signed(&right, "m", now, b"{}")),
        ("another id signed", with(ID_HEADER, "n".to_owned())),
        (
            "another time signed",
            with(TIMESTAMP_HEADER, (now - 1).to_string()),
        ),
        ("one letter changed", with(SIGNATURE_HEADER, flipped)),
        (
            "truncated signature",
            with(SIGNATURE_HEADER, signature[..24].to_owned()),
        ),
        ("empty signature", with(SIGNATURE_HEADER, String::new())),
        (
            "unknown version",
            with(SIGNATURE_HEADER, signature.replace("v1,", "v9,")),
        ),
        (
            "no version",
            with(SIGNATURE_HEADER, signature.replace("v1,", "")),
        ),
        ("the right one after eight", with(SIGNATURE_HEADER, many)),
        ("two signature headers", twice),
        ("too old", signed(&right, "m", now - 330, body)),
        ("from the future", signed(&right, "m", now + 330, body)),
        ("time is a word", with(TIMESTAMP_HEADER, "now".to_owned())),
        ("negative time", with(TIMESTAMP_HEADER, "-1".to_owned())),
        ("id with a dot", signed(&right, "a.b", now, body)),
        ("empty id", signed(&right, "", now, body)),
        ("no id", without(ID_HEADER)),
        ("no time", without(TIMESTAMP_HEADER)),
        ("no signature", without(SIGNATURE_HEADER)),
        ("no headers at all", Vec::new()),
    ]
    .into_iter()
    .map(|(what, headers)| Forgery {
        what,
        path: Bank::path(),
        headers,
    })
    .collect::<Vec<_>>();
    table.push(Forgery {
        what: "a bank nobody knows",
        path: "/v1/banks/nobody/authorizations".to_owned(),
        headers: good,
    });
    table
}

#[tokio::test]
async fn b6_every_bad_signature_gets_the_same_401_and_leaves_no_trace() {
    let (stage, mut edge, bank) = set().await;
    let body = Payment::new("b6", 1, 30_000).body();
    let before = stage.ledger_counts().await;
    let index = edge.status().await["wal"]["last_index"].clone();
    let mut bodies = std::collections::BTreeSet::new();
    let table = forgeries(&body);
    for Forgery {
        what,
        path,
        headers,
    } in &table
    {
        let mut call = Call::post(path.clone(), body.clone());
        call.headers.extend(headers.iter().cloned());
        let told = bank.call(call).await;
        assert_eq!(told.status(), Some(401), "{what}");
        assert_eq!(told.reply().replayed, None, "{what}");
        bodies.insert(told.reply().body.clone());
    }
    println!("injected: {} forged requests", table.len());
    assert_eq!(bodies.len(), 1, "the 401s differ: {bodies:?}");
    assert_eq!(stage.ledger_counts().await, before);
    assert_eq!(edge.status().await["wal"]["last_index"], index);
    let counted = edge.metric("standin_authentication_failures", &[]).await;
    assert_eq!(counted, table.len() as u64);
    // The control: the same body, signed well, is answered.
    let told = bank.pay(&Payment::new("b6", 1, 30_000)).await;
    assert_eq!(told.status(), Some(200));
    verdict::end(&stage, &mut edge, &[]).await;
}

/// Bodies that are no request, each with the status it gets.
fn nonsense() -> Vec<(&'static str, Vec<u8>, u16)> {
    let with = |amount: &str| {
        format!(r#"{{"shopper_id":1,"amount":{amount},"merchant":{{"name":"Target"}}}}"#)
            .into_bytes()
    };
    let merchant = |merchant: &str| {
        format!(r#"{{"shopper_id":1,"amount":3,"merchant":{merchant}}}"#).into_bytes()
    };
    let shopper = |shopper: &str| {
        format!(r#"{{"shopper_id":{shopper},"amount":3,"merchant":{{"name":"Target"}}}}"#)
            .into_bytes()
    };
    let keyed = |key: &str| {
        format!(
            r#"{{"shopper_id":1,"amount":3,"merchant":{{"name":"T"}},"transaction_id":"{key}"}}"#
        )
        .into_bytes()
    };
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)).into_bytes();
    vec![
        ("nothing", Vec::new(), 400),
        ("a word", b"hello".to_vec(), 400),
        ("an array", b"[]".to_vec(), 400),
        ("half an object", br#"{"shopper_id":1"#.to_vec(), 400),
        (
            "more after the object",
            [with("3"), b"{}".to_vec()].concat(),
            400,
        ),
        (
            "not UTF-8",
            b"{\"shopper_id\":1,\"\xff\xfe\":2}".to_vec(),
            400,
        ),
        (
            "a key twice",
            br#"{"shopper_id":1,"shopper_id":2,"amount":3,"merchant":{"name":"T"}}"#.to_vec(),
            400,
        ),
        (
            "a key twice inside",
            merchant(r#"{"name":"T","name":"U"}"#),
            400,
        ),
        (
            "a key twice by escape",
            br#"{"amount":1,"\u0061mount":2,"shopper_id":1,"merchant":{"name":"T"}}"#.to_vec(),
            400,
        ),
        ("5,000 levels deep", deep, 400),
        ("an amount of 10^400", with("1e400"), 400),
        ("an amount of 400 digits", with(&"9".repeat(400)), 400),
        ("an amount past 64 bits", with("92233720368547758.08"), 400),
        ("a tenth of a cent", with("0.001"), 400),
        ("less than nothing, of nothing", with("-0"), 400),
        ("less than nothing", with("-3"), 400),
        ("not a number", with("NaN"), 400),
        ("an amount in words", with(r#""three""#), 400),
        ("an amount that is true", with("true"), 400),
        ("an amount that is null", with("null"), 400),
        ("an amount in a list", with("[3]"), 400),
        ("shopper nought", shopper("0"), 400),
        ("half a shopper", shopper("1.5"), 400),
        (
            "a shopper past 64 bits",
            shopper("9223372036854775808"),
            400,
        ),
        ("a merchant that is text", merchant(r#""Target""#), 400),
        ("a merchant without a name", merchant("{}"), 400),
        (
            "NUL in the merchant",
            merchant(r#"{"name":"Tar\u0000get"}"#),
            400,
        ),
        (
            "a merchant of 10,000 letters",
            merchant(&format!(r#"{{"name":"{}"}}"#, "T".repeat(10_000))),
            400,
        ),
        ("NUL in the key", keyed(r"a\u0000b"), 400),
        ("a key of 300 letters", keyed(&"k".repeat(300)), 400),
        ("an empty key", keyed(""), 400),
        ("a body of 64 KiB", vec![b' '; 65_536], 413),
    ]
}

#[tokio::test]
async fn b7_nonsense_is_refused_before_it_changes_anything() {
    let (stage, mut edge, bank) = set().await;
    let before = stage.ledger_counts().await;
    let index = edge.status().await["wal"]["last_index"].clone();
    // Once around first: what an edge needs for a request at all is not what is measured.
    let mut sent = 0;
    let mut memory = None;
    for round in 0..10 {
        for (what, body, status) in nonsense() {
            let told = bank.call(bank.signed(body)).await;
            assert_eq!(told.status(), Some(status), "{what}");
            assert_eq!(told.reply().replayed, None, "{what}");
            sent += 1;
        }
        if round == 0 {
            memory = Some(edge.memory_kib());
        }
    }
    let grown = edge.memory_kib().saturating_sub(memory.unwrap());
    println!("injected: {sent} requests of nonsense; memory grew by {grown} KiB");
    assert!(grown < 8 * 1_024, "{grown} KiB more");
    let mut wide = bank.signed("{}");
    wide.headers.push(("x-wide", "w".repeat(60_000)));
    let told = Pool::new(edge.address().into(), 1)
        .ask(wide, SOON)
        .await
        .map(|reply| reply.status);
    assert!(matches!(told, Ok(431)), "60,000 bytes of header: {told:?}");
    let mut text = bank.signed("{}");
    text.headers[0].1 = "text/plain".to_owned();
    assert_eq!(bank.call(text).await.status(), Some(415));
    let missing: BankId = SLUG.parse().unwrap();
    let get = Call::get(format!("/v1/banks/{missing}/authorizations"));
    assert_eq!(bank.call(get).await.status(), Some(405));
    assert_eq!(stage.ledger_counts().await, before);
    assert_eq!(edge.status().await["wal"]["last_index"], index);
    let told = bank.pay(&Payment::new("b7", 1, 30_000)).await;
    assert_eq!(told.status(), Some(200));
    verdict::end(&stage, &mut edge, &[]).await;
}

#[tokio::test]
async fn b11_a_decision_outlives_the_connection_that_asked_for_it() {
    let (stage, mut edge, bank) = set().await;
    let payment = Payment::new("b11", 1, 30_000);
    // The primary makes the request wait, so that the bank leaves in the middle of it.
    stage.postgres.pause().unwrap();
    let (sent_at, began) = (SystemClock.now().as_millis(), Instant::now());
    let stream = send_only(&edge, &bank, &payment).await;
    edge.status_until("a request in flight", SOON, |status| {
        (status["register"]["in_flight"] == 1).then_some(())
    })
    .await;
    drop(stream);
    bank.record_no_reply(&payment, sent_at, began);
    println!("injected: the bank disconnected while its request was in flight");
    // No retry: the decision alone must finish.
    edge.status_until("the decision", SOON, |status| {
        (status["register"]["answers"] == 1 && status["register"]["in_flight"] == 0).then_some(())
    })
    .await;
    stage.postgres.resume().unwrap();
    let told = bank.pay(&payment).await;
    assert_eq!(told.status(), Some(200));
    assert!(told.is_replayed(), "a retry finds the outcome");
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.approved(), 1);
}
