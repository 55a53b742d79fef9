//! The formats of card platforms on a running edge, over TLS, signed by the platforms' own libraries.

use serde_json::{Value, json};
use standin_core::answer::{Reason, Verdict};
use standin_core::id::{ShopperId, TransactionId};
use standin_core::identity::{Operation, of_key};
use standin_core::ledger::{AuthorizationRow, AuthorizationState, Card, Ledger};
use standin_core::merchant::MerchantId;
use standin_tests::harness::stage::{STORE, STORE_ADDRESS, STORE_NAME};
use standin_tests::harness::{Edge, EdgeOptions, Stage};

use super::PROGRAMS;
use super::door::{Certificates, Told, drive};

/// What the card network calls the store.
const NETWORK_ID: &str = "998877665544";
const STRIPE: &str = "second";
const LITHIC: &str = "third";
const MARQETA: &str = "fourth";
const STRIPE_SECRET: &str = "whsec_5PgFv1X0dC3hJ2kQm8rTyUzL";
const LITHIC_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const CREDENTIALS: &str = "marqeta:sesame-street";

/// An edge with a bank of each format, and what plays the platforms.
struct Platforms {
    stage: Stage,
    certificates: Certificates,
    edge: Edge,
}

impl Platforms {
    async fn new() -> Self {
        let stage = Stage::set().await;
        let known = MerchantId {
            network_id: NETWORK_ID.parse().unwrap(),
            terminal: None,
            store: STORE.try_into().unwrap(),
        };
        stage.ledger.put_merchant_id(known).await.unwrap();
        // A trip each, of 400 dollars.
        stage.trips(1, 3, 40_000).await;
        let certificates = Certificates::new(&stage);
        let budgets = "deadline_ms = 8000\nwal_ms = 5000";
        let more = format!(
            r#"
[[banks]]
slug = "{STRIPE}"
adapter = "stripe"
shopper_by = "cardholder"
partial_approvals = "taken"
secrets = ["{STRIPE_SECRET}"]
{budgets}

[[banks]]
slug = "{LITHIC}"
adapter = "lithic"
secrets = ["{LITHIC_SECRET}"]
{budgets}

[[banks]]
slug = "{MARQETA}"
adapter = "marqeta"
shopper_by = "cardholder"
client_certificate = "required"
secrets = ["{CREDENTIALS}"]
{budgets}

{}"#,
            certificates.tls()
        );
        let options = EdgeOptions {
            more,
            ..EdgeOptions::on(&stage)
        };
        let edge = Edge::start_with(PROGRAMS, &stage, options).await;
        Self {
            stage,
            certificates,
            edge,
        }
    }

    async fn give(&self, bank: &str, token: &str, shopper: i64) {
        let card = Card {
            bank: bank.parse().unwrap(),
            token: token.to_owned(),
        };
        let shopper = ShopperId::try_from(shopper).unwrap();
        let given = self.stage.ledger.set_card(card, Some(shopper)).await;
        given.unwrap();
    }

    /// One request of a bank, as `drive.py` is asked for it; `more` may say more.
    fn request(&self, bank: &str, body: Value, more: &Value) -> Value {
        let (scheme, secret) = match bank {
            STRIPE => ("stripe", STRIPE_SECRET),
            LITHIC => ("lithic", LITHIC_SECRET),
            _ => ("basic", CREDENTIALS),
        };
        let file = |name: String| self.certificates.file(&name).display().to_string();
        let mut request = json!({
            "url": format!("https://{}/v1/banks/{bank}/authorizations", self.edge.address()),
            "scheme": scheme,
            "secret": secret,
            "body": if bank == STRIPE { body } else { body.to_string().into() },
            "ca": file("banks-ca.pem".to_owned()),
            "certificate": file(format!("bank-{bank}.pem")),
            "key": file(format!("bank-{bank}.key")),
        });
        for (name, value) in more.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    }

    async fn row(&self, bank: &str, key: &str) -> Option<AuthorizationRow> {
        self.stage
            .ledger
            .authorization(id(bank, key))
            .await
            .unwrap()
    }

    /// Every row is final, or reversed where it says so, and nothing is in conflict.
    async fn end(mut self, expected: &[(TransactionId, Reason, i64, i64)]) {
        self.edge.drained().await;
        assert!(self.edge.terminate().await.success());
        let rows = self.stage.ledger.authorizations(None, 1_000).await.unwrap();
        assert_eq!(self.stage.ledger.conflicts(10).await.unwrap().len(), 0);
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let answer = &row.answer;
                let whole = row.reversed > 0 && row.reversed == answer.amount.minor();
                let state = if whole {
                    AuthorizationState::Reversed
                } else {
                    AuthorizationState::Final
                };
                assert_eq!(row.state, state, "{row:?}");
                let (id, amount) = (answer.transaction_id, answer.amount.minor());
                (id, answer.reason, amount, row.reversed)
            })
            .collect();
        let mut expected = expected.to_vec();
        rows.sort_unstable_by_key(|row| row.0);
        expected.sort_unstable_by_key(|row| row.0);
        assert_eq!(rows, expected);
    }
}

fn id(bank: &str, key: &str) -> TransactionId {
    of_key(&bank.parse().unwrap(), Operation::Authorize, key)
}

fn body(told: &Told) -> Value {
    serde_json::from_str(&told.body).unwrap()
}

pub(super) fn stripe(authorization: &str, cardholder: &str, cents: i64, earlier: &[i64]) -> Value {
    let history: Vec<_> = earlier
        .iter()
        .map(|amount| json!({"amount": amount, "approved": true, "reason": "webhook_approved"}))
        .collect();
    json!({
        "id": format!("evt_{authorization}_{}", earlier.len()), "object": "event",
        "api_version": "2025-03-31.basil", "created": 1_700_000_000, "livemode": false,
        "pending_webhooks": 1, "type": "issuing_authorization.request",
        "data": {"object": {
            "id": authorization, "object": "issuing.authorization",
            "amount": earlier.iter().sum::<i64>(), "currency": "usd", "approved": false,
            "status": "pending", "card": {"id": "ic_1", "object": "issuing.card", "last4": "4242"},
            "cardholder": cardholder,
            "merchant_data": {"category": "grocery_stores_supermarkets", "name": STORE_NAME,
                "city": null, "country": "US", "network_id": "1234567890", "terminal_id": null},
            "pending_request": {"amount": cents, "currency": "usd",
                "is_amount_controllable": cents > 30_000},
            "request_history": history,
        }},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_issuing_is_answered_as_its_own_library_asks() {
    let platforms = Platforms::new().await;
    platforms.give(STRIPE, "ich_1", 1).await;
    let ask = |body: Value, more: Value| platforms.request(STRIPE, body, &more);
    let first = stripe("iauth_1", "ich_1", 12_300, &[]);
    let text = first.to_string();
    let requests = [
        ask(first.clone(), json!({})),
        ask(first, json!({})),
        ask(stripe("iauth_1", "ich_1", 12_301, &[]), json!({})),
        ask(stripe("iauth_1", "ich_1", 1_000, &[12_300]), json!({})),
        ask(stripe("iauth_2", "ich_nobody", 500, &[]), json!({})),
        ask(stripe("iauth_3", "ich_1", 90_000, &[]), json!({})),
        ask(
            stripe("iauth_4", "ich_1", 500, &[]),
            json!({"sent_body": text}),
        ),
        ask(stripe("iauth_4", "ich_1", 500, &[]), json!({"age": 400})),
        ask(stripe("iauth_5", "ich_1", -5, &[]), json!({})),
    ];
    let told = drive(&requests);
    let statuses: Vec<u16> = told.iter().map(|told| told.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 401, 401, 400]);
    let approved: Vec<_> = told[..6]
        .iter()
        .map(|told| body(told)["approved"].clone())
        .collect();
    assert_eq!(approved, [true, true, false, true, false, true]);
    assert_eq!(
        told[0].body, told[1].body,
        "a redelivery gets the same bytes"
    );
    assert_eq!((told[0].replayed, told[1].replayed), (false, true));
    let reason = |told: &Told| body(told)["metadata"]["standin_reason"].clone();
    assert_eq!(reason(&told[2]), "transaction-id-reused");
    assert_eq!(reason(&told[4]), "unknown_card");
    // The cap is picked and some; what is left of it is approved where less is taken.
    let part = body(&told[5])["amount"].as_i64().unwrap();
    assert!(part > 0 && part < 90_000, "{part}");
    let code = body(&told[0])["metadata"]["standin_code"].clone();
    platforms.edge.drained().await;
    let row = platforms.row(STRIPE, "iauth_1/0").await.unwrap();
    assert_eq!(json!(row.answer.code), code);

    // A card that is given to somebody works at once.
    platforms.give(STRIPE, "ich_new", 2).await;
    let told = drive(&[ask(stripe("iauth_6", "ich_new", 700, &[]), json!({}))]);
    assert_eq!(body(&told[0])["approved"], true, "{told:?}");
    // What the network calls a store says which it is, whatever the text says.
    let mut named = stripe("iauth_7", "ich_new", 800, &[]);
    named["data"]["object"]["merchant_data"]["name"] = json!("SQ *SOMETHING ELSE");
    let mut unnamed = named.clone();
    named["data"]["object"]["merchant_data"]["network_id"] = json!(NETWORK_ID);
    unnamed["data"]["object"]["id"] = json!("iauth_8");
    let told = drive(&[ask(named, json!({})), ask(unnamed, json!({}))]);
    assert_eq!(body(&told[0])["approved"], true, "{told:?}");
    assert_eq!(reason(&told[1]), "unknown_merchant");
    let within = Reason::WithinCap;
    let expected = [
        (id(STRIPE, "iauth_1/0"), within, 12_300, 0),
        (id(STRIPE, "iauth_1/1"), within, 1_000, 0),
        (id(STRIPE, "iauth_2/0"), Reason::UnknownCard, 500, 0),
        (id(STRIPE, "iauth_3/0"), within, part, 0),
        (id(STRIPE, "iauth_6/0"), within, 700, 0),
        (id(STRIPE, "iauth_7/0"), within, 800, 0),
        (id(STRIPE, "iauth_8/0"), Reason::UnknownMerchant, 800, 0),
    ];
    platforms.end(&expected).await;
}

pub(super) fn lithic(card: &str, cents: i64, merchant: &str, status: &str) -> Value {
    json!({
        "event_type": "card_authorization.approval_request",
        "token": "a7f5e1b2-0000-4000-8000-000000000001", "status": status,
        "created": "2026-11-30T10:00:00Z",
        "amounts": {"cardholder": {"amount": cents, "conversion_rate": "1.0", "currency": "USD"},
            "hold": null, "merchant": {"amount": cents, "currency": "USD"}},
        "card": {"token": card, "last_four": "1234", "state": "OPEN", "type": "VIRTUAL"},
        "merchant": {"acceptor_id": "333301802529120", "city": null, "country": "USA",
            "descriptor": merchant, "mcc": "5411", "street_address": STORE_ADDRESS},
        "pos": {"terminal": {"partial_approval_capable": true}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lithic_is_answered_as_its_own_library_signs() {
    let platforms = Platforms::new().await;
    let card = "c0ffee00-0000-4000-8000-000000000002";
    platforms.give(LITHIC, card, 1).await;
    let asked = |cents, merchant: &str| lithic(card, cents, merchant, "AUTHORIZATION");
    let ask =
        |message: &str, body: Value| platforms.request(LITHIC, body, &json!({"message": message}));
    let mut tampered = ask("msg_5", asked(700, STORE_NAME));
    tampered["sent_body"] = asked(7, STORE_NAME).to_string().into();
    let inquiry = lithic(card, 0, STORE_NAME, "BALANCE_INQUIRY");
    let requests = [
        ask("msg_1", asked(12_300, STORE_NAME)),
        ask("msg_1", asked(12_300, STORE_NAME)),
        ask("msg_1", asked(12_400, STORE_NAME)),
        ask("msg_2", asked(500, "Zebra Jewellery")),
        ask("msg_3", inquiry),
        ask("msg_4", asked(90_000, STORE_NAME)),
        tampered,
        ask(
            "msg_6",
            lithic(card, 500, STORE_NAME, "CREDIT_AUTHORIZATION"),
        ),
    ];
    let told = drive(&requests);
    let statuses: Vec<u16> = told.iter().map(|told| told.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 401, 400]);
    let results: Vec<_> = told[..6]
        .iter()
        .map(|told| body(told)["result"].clone())
        .collect();
    let expected = [
        "APPROVED",
        "APPROVED",
        "VELOCITY_EXCEEDED",
        "UNAUTHORIZED_MERCHANT",
        "APPROVED",
        // This bank takes no part of what it asks for.
        "INSUFFICIENT_FUNDS",
    ];
    assert_eq!(results, expected);
    assert_eq!(told[0].body, told[1].body);
    assert!(told[1].replayed);
    let left = body(&told[4])["balance"]["available"].as_i64().unwrap();
    assert!(left > 0, "{}", told[4].body);
    let within = Reason::WithinCap;
    let expected = [
        (id(LITHIC, "msg_1"), within, 12_300, 0),
        (id(LITHIC, "msg_2"), Reason::UnknownMerchant, 500, 0),
        (id(LITHIC, "msg_3"), within, 0, 0),
        (id(LITHIC, "msg_4"), Reason::OverCap, 90_000, 0),
    ];
    platforms.end(&expected).await;
}

pub(super) fn marqeta(token: &str, method: &str, amount: &str, original: Option<&str>) -> Value {
    json!({
        "type": "authorization", "state": "PENDING", "token": format!("tx-{token}"),
        "user_token": "user-1", "card_token": "card-1", "currency_code": "USD",
        "gpa_order": {"token": "order-1", "currency_code": "USD",
            "jit_funding": {"token": token, "method": method, "user_token": "user-1",
                "acting_user_token": "user-1", "amount": serde_json::from_str::<Value>(amount).unwrap(),
                "original_jit_funding_token": original}},
        "card_acceptor": {"mid": "123456890", "mcc": "5411", "name": STORE_NAME,
            "address": STORE_ADDRESS},
        "pos": {"terminal_id": "TR100000", "partial_approval_capable": true},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marqeta_is_funded_reversed_and_declined() {
    let platforms = Platforms::new().await;
    platforms.give(MARQETA, "user-1", 1).await;
    let ask = |token: &str, method: &str, amount: &str, original: Option<&str>| {
        let body = marqeta(token, method, amount, original);
        platforms.request(MARQETA, body, &json!({}))
    };
    let (pay, back) = ("pgfs.authorization", "pgfs.authorization.reversal");
    let mut stranger = ask("jit-9", pay, "5", None);
    stranger["secret"] = json!("marqeta:guess");
    let requests = [
        ask("jit-1", pay, "123.45", None),
        ask("jit-1", pay, "123.45", None),
        ask("jit-1", pay, "123.46", None),
        ask("jit-2", pay, "900.01", None),
        ask(
            "jit-3",
            "pgfs.authorization.incremental",
            "10.5",
            Some("jit-1"),
        ),
        ask("jit-4", back, "100.00", Some("jit-1")),
        ask("jit-4", back, "100.00", Some("jit-1")),
        ask("jit-4", back, "1.00", Some("jit-1")),
        ask("jit-5", back, "500.00", Some("jit-3")),
        // Before its authorization: that is never funded.
        ask("jit-6", back, "20.00", Some("jit-7")),
        ask("jit-7", pay, "20.00", None),
        ask("jit-8", "pgfs.balanceinquiry", "0", None),
        stranger,
    ];
    let told = drive(&requests);
    let statuses: Vec<u16> = told.iter().map(|told| told.status).collect();
    let expected = [
        200, 200, 402, 402, 200, 200, 200, 402, 200, 200, 503, 200, 401,
    ];
    assert_eq!(statuses, expected, "{told:#?}");
    let funding = |at: usize| body(&told[at])["jit_funding"].clone();
    assert_eq!(funding(0)["amount"], json!(123.45));
    assert_eq!(told[0].body, told[1].body);
    assert_eq!(funding(2)["decline_reason"], "DUPLICATE_TRANSACTION");
    assert_eq!(funding(3)["decline_reason"], "AMOUNT_LIMIT_EXCEEDED");
    assert_eq!(funding(4)["original_jit_funding_token"], "jit-1");
    assert_eq!(funding(5)["amount"], json!(100.0));
    assert_eq!(told[5].body, told[6].body);
    assert_eq!(funding(7)["decline_reason"], "DUPLICATE_TRANSACTION");
    // No more comes back than was approved.
    assert_eq!(funding(8)["amount"], json!(10.5));
    let within = Reason::WithinCap;
    assert_eq!(within.verdict(), Verdict::Approved);
    let expected = [
        (id(MARQETA, "jit-1"), within, 12_345, 10_000),
        (id(MARQETA, "jit-2"), Reason::OverCap, 90_001, 0),
        (id(MARQETA, "jit-3"), within, 1_050, 1_050),
        (id(MARQETA, "jit-8"), within, 0, 0),
    ];
    platforms.end(&expected).await;
}

const ISO: &str = "third";
const PAN: &str = "4111111111111111";

/// A purchase, or what is said of one: its type, trace number and amount, and further fields.
fn message(mti: &str, stan: &str, cents: i64, more: &Value) -> Value {
    let place = format!("{STORE_NAME:<25}{:<13}US", "");
    let mut message = json!({
        "t": mti, "2": PAN, "3": "000000", "4": format!("{cents:012}"), "7": "1130101112",
        "11": stan, "32": "123456", "37": "433510000123", "41": "TERM0001",
        "42": "123456789012345", "43": place, "49": "840",
    });
    for (field, value) in more.as_object().unwrap() {
        message[field] = value.clone();
    }
    message
}

fn original(stan: &str) -> String {
    format!("0100{stan}11301011120000012345600000000000")
}

struct Line {
    stage: Stage,
    certificates: Certificates,
    edge: Edge,
    address: std::net::SocketAddr,
    spec: &'static str,
}

impl Line {
    /// An edge with one bank that speaks ISO 8583 in an encoding, and pyiso8583's name of it.
    async fn new(encoding: &str, spec: &'static str) -> Self {
        let stage = Stage::set().await;
        stage.trips(1, 1, 40_000).await;
        let certificates = Certificates::new(&stage);
        let port = standin_drill::process::free_port().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let more = format!(
            r#"
[[banks]]
slug = "{ISO}"
adapter = "iso8583"
client_certificate = "required"
encoding = "{encoding}"
deadline_ms = 8000
wal_ms = 5000

[iso8583]
listen = "{address}"

{}"#,
            certificates.tls()
        );
        let options = EdgeOptions {
            more,
            ..EdgeOptions::on(&stage)
        };
        let edge = Edge::start_with(PROGRAMS, &stage, options).await;
        let key = standin_tests::harness::edge::deployment_key();
        let card = Card {
            bank: ISO.parse().unwrap(),
            token: key.card_token(&ISO.parse().unwrap(), PAN),
        };
        let shopper = ShopperId::try_from(1_i64).unwrap();
        stage.ledger.set_card(card, Some(shopper)).await.unwrap();
        Self {
            stage,
            certificates,
            edge,
            address,
            spec,
        }
    }

    /// Sends messages on one connection of a bank, and gives the replies by trace number.
    fn speak(&self, bank: &str, messages: &[Value], replies: usize) -> Vec<Value> {
        let file = |name: String| self.certificates.file(&name).display().to_string();
        let plan = json!({
            "address": [self.address.ip().to_string(), self.address.port()],
            "spec": self.spec,
            "messages": messages,
            "raw": messages.iter().any(Value::is_string),
            "replies": replies,
            "ca": file("banks-ca.pem".to_owned()),
            "certificate": file(format!("bank-{bank}.pem")),
            "key": file(format!("bank-{bank}.key")),
        });
        let told = super::door::python("line.py", &plan.to_string());
        let mut told: Vec<Value> = serde_json::from_str(&told).unwrap();
        told.sort_by_key(|reply| reply["11"].as_str().unwrap_or_default().to_owned());
        told
    }

    async fn pays_and_reverses(mut self) {
        let none = json!({});
        let first = message("0100", "000001", 12_300, &none);
        let told = self.speak(ISO, &[first], 1);
        assert_eq!(
            (&told[0]["t"], &told[0]["39"]),
            (&json!("0110"), &json!("00")),
            "{told:?}"
        );
        let echoed = ["2", "3", "4", "7", "11", "32", "37", "41", "42", "49"];
        let asked = message("0100", "000001", 12_300, &none);
        for field in echoed {
            assert_eq!(told[0][field], asked[field], "{field}");
        }
        let code = told[0]["38"].clone();
        // A repeat, the same with another amount, one over the cap, an unknown card, an echo, all at once.
        let messages = [
            message("0101", "000001", 12_300, &none),
            message("0100", "000002", 90_000, &none),
            message("0100", "000003", 500, &json!({"2": "5555555555554444"})),
            message("0100", "000004", 0, &json!({"3": "310000"})),
            message("0100", "000005", 500, &json!({"3": "010000"})),
            json!({"t": "0800", "7": "1130101112", "11": "000006", "70": "301"}),
        ];
        let told = self.speak(ISO, &messages, messages.len());
        let codes: Vec<_> = told.iter().map(|reply| reply["39"].clone()).collect();
        assert_eq!(codes, ["00", "61", "14", "00", "12", "00"], "{told:#?}");
        assert_eq!(told[0]["38"], code, "a repeat gets the same code");
        assert!(
            told[3]["54"].as_str().unwrap().starts_with("0002840C"),
            "{told:?}"
        );
        assert_eq!(told[5]["t"], "0810");
        let reused = message("0100", "000001", 12_400, &none);
        assert_eq!(self.speak(ISO, &[reused], 1)[0]["39"], "94");

        // Back in part, then whole; before its authorization; by the bank's own word.
        let part = json!({"90": original("000001"), "95": format!("{:012}{:030}", 2_300, 0)});
        let messages = [message("0400", "000011", 12_300, &part)];
        assert_eq!(self.speak(ISO, &messages, 1)[0]["39"], "00");
        let messages = [
            message("0420", "000012", 500, &json!({"90": original("000021")})),
            message("0120", "000013", 700, &json!({"39": "00"})),
            message("0120", "000014", 700, &json!({"39": "51"})),
        ];
        let told = self.speak(ISO, &messages, messages.len());
        let replies: Vec<_> = told
            .iter()
            .map(|reply| (&reply["t"], &reply["39"]))
            .collect();
        let (advice, reversal) = (json!("0130"), json!("0430"));
        let good = json!("00");
        assert_eq!(
            replies,
            [(&reversal, &good), (&advice, &good), (&advice, &good)]
        );
        let never = message("0100", "000021", 500, &none);
        assert_eq!(self.speak(ISO, &[never], 1)[0]["39"], "91");
        self.end().await;
    }

    async fn end(&mut self) {
        self.edge.drained().await;
        assert!(self.edge.terminate().await.success());
        let rows = self.stage.ledger.authorizations(None, 100).await.unwrap();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let answer = &row.answer;
                (
                    answer.transaction_id,
                    answer.reason,
                    answer.amount.minor(),
                    row.reversed,
                )
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.0);
        let id = |stan: &str| {
            id(
                ISO,
                &format!("123456|{stan}|1130101112|TERM0001|123456789012345"),
            )
        };
        let mut expected = vec![
            (id("000001"), Reason::WithinCap, 12_300, 10_000),
            (id("000002"), Reason::OverCap, 90_000, 0),
            (id("000003"), Reason::UnknownCard, 500, 0),
            (id("000004"), Reason::WithinCap, 0, 0),
            (id("000013"), Reason::ApprovedByBank, 700, 0),
        ];
        expected.sort_unstable_by_key(|row| row.0);
        assert_eq!(rows, expected);
        assert_eq!(self.stage.ledger.conflicts(10).await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iso_8583_in_ascii_is_answered_as_pyiso8583_reads_it() {
    let line = Line::new("ascii", "default_ascii").await;
    // Another bank's certificate, and what is no message: the first is not spoken with, the second not
    // answered or told of its format.
    let other = message("0100", "000009", 500, &json!({}));
    assert_eq!(line.speak("second", &[other], 1), Vec::<Value>::new());
    let broken = hex(b"0100F000000000000000");
    let cut = hex(b"01004000000000000000164111111111");
    let told = line.speak(ISO, &[json!(broken), json!(cut)], 1);
    assert_eq!(told[0]["39"], "30", "{told:?}");
    line.pays_and_reverses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iso_8583_with_binary_bitmaps_is_answered_as_pyiso8583_reads_it() {
    Line::new("ascii-binary", "default")
        .await
        .pays_and_reverses()
        .await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
