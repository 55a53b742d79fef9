//! What becomes of a payment after its authorization, in our own format: more of it, less of it, none of it.

use serde_json::{Value, json};
use standin_cli::client::{Call, Reply, Signer};
use standin_core::id::TransactionId;
use standin_core::identity::{Operation, of_key};
use standin_core::ledger::{AuthorizationState, Ledger};
use standin_core::signature::Secret;
use standin_tests::harness::bank::{Bank, SECRET, SLUG};
use standin_tests::harness::stage::{STORE_ADDRESS, STORE_NAME};
use standin_tests::harness::{Edge, EdgeOptions, Payment, Stage};

use super::{PROGRAMS, SOON};

/// Tells the edge something of a payment that the bank names by its own key.
async fn tell(edge: &Edge, key: &str, what: &str, body: Value) -> (u16, Value) {
    let signer = Signer::new(SECRET.parse::<Secret>().unwrap());
    let path = format!("/v1/banks/{SLUG}/authorizations/key:{key}/{what}");
    let mut body = body;
    body["authorization"] = json!(format!("key:{key}"));
    let call = Call::post(path, body.to_string()).signed(&signer);
    let target = format!("http://{}", edge.address()).parse().unwrap();
    let pool = standin_cli::client::Pool::new(target, 1);
    let reply: Reply = pool.ask(call, SOON).await.unwrap();
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

async fn pay(bank: &Bank, key: &str, cents: i64) -> u16 {
    let payment = Payment::new(key, 1, cents);
    bank.pay(&payment).await.status().unwrap()
}

fn id(key: &str) -> TransactionId {
    of_key(&SLUG.parse().unwrap(), Operation::Authorize, key)
}

fn increment(key: &str, amount: &str) -> Value {
    json!({
        "shopper_id": 1, "amount": amount, "transaction_id": key,
        "merchant": {"name": STORE_NAME, "address": STORE_ADDRESS},
    })
}

/// A trip of 100 dollars; its cap is that and 10 % of it by the harness's policy.
async fn set() -> (Stage, Edge, Bank) {
    let stage = Stage::set().await;
    stage.trip(1, 10_000).await;
    let edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(4);
    (stage, edge, bank)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_can_be_spent_again_and_comes_back_once() {
    let (stage, mut edge, bank) = set().await;
    assert_eq!(pay(&bank, "p-1", 10_000).await, 200);
    assert_eq!(pay(&bank, "p-2", 5_000).await, 402);
    let part = json!({"reversal_id": "r-1", "amount": "60.00"});
    let (status, told) = tell(&edge, "p-1", "reversals", part.clone()).await;
    assert_eq!(
        (status, &told["state"]),
        (200, &json!("reversed")),
        "{told}"
    );
    assert_eq!(told["reversed"], "60.00");
    assert_eq!(tell(&edge, "p-1", "reversals", part).await, (200, told));
    let other = json!({"reversal_id": "r-1", "amount": "1.00"});
    let (status, told) = tell(&edge, "p-1", "reversals", other).await;
    assert_eq!(
        (status, &told["type"]),
        (422, &json!("urn:standin:problem:transaction-id-reused"))
    );
    let euros = json!({"reversal_id": "r-2", "amount": "1.00", "currency": "EUR"});
    assert_eq!(tell(&edge, "p-1", "reversals", euros).await.0, 400);
    // There is room again once the ledger has heard of it, and for no more than came back.
    edge.drained().await;
    assert_eq!(pay(&bank, "p-3", 6_500).await, 200);
    assert_eq!(pay(&bank, "p-4", 1_000).await, 402);
    let all = json!({"reversal_id": "r-3"});
    let (_, told) = tell(&edge, "p-1", "reversals", all).await;
    assert_eq!(told["reversed"], "40.00");
    let declined = json!({"reversal_id": "r-4"});
    let (status, told) = tell(&edge, "p-4", "reversals", declined).await;
    assert_eq!(
        (status, &told["state"]),
        (200, &json!("nothing_to_reverse"))
    );
    edge.drained().await;
    let row = stage
        .ledger
        .authorization(id("p-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.state, row.reversed),
        (AuthorizationState::Reversed, 10_000)
    );
    assert!(edge.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reversal_before_its_authorization_forbids_it() {
    let (stage, mut edge, bank) = set().await;
    let before = json!({"reversal_id": "r-1"});
    let (status, told) = tell(&edge, "p-1", "reversals", before.clone()).await;
    assert_eq!((status, &told["state"]), (200, &json!("forbidden")));
    let refused = bank.pay(&Payment::new("p-1", 1, 500)).await;
    assert_eq!(refused.status(), Some(503));
    assert_eq!(refused.json()["cause"], "released");
    assert_eq!(tell(&edge, "p-1", "reversals", before).await.0, 200);
    // An id alone may be another bank's payment: nobody may forbid that.
    let other = id("p-2").to_string();
    let body = json!({"authorization": other, "reversal_id": "r-2"});
    let path = format!("authorizations/{other}/reversals");
    assert_eq!(report(&edge, &path, body).await.0, 404);
    assert_eq!(pay(&bank, "p-2", 500).await, 200);
    edge.drained().await;
    assert!(edge.terminate().await.success());
    let rows = stage.ledger.authorizations(None, 10).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.answer.transaction_id).collect();
    assert_eq!(ids, [id("p-2")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_is_a_payment_of_its_own_on_the_same_trip() {
    let (stage, mut edge, bank) = set().await;
    assert_eq!(pay(&bank, "p-1", 5_000).await, 200);
    let (status, told) = tell(&edge, "p-1", "increments", increment("i-1", "50.00")).await;
    assert_eq!(
        (status, &told["decision"]),
        (200, &json!("approved")),
        "{told}"
    );
    let (status, _) = tell(&edge, "p-1", "increments", increment("i-2", "50.00")).await;
    assert_eq!(status, 402, "the cap holds for both together");
    let mut unnamed = increment("i-3", "1.00");
    unnamed.as_object_mut().unwrap().remove("transaction_id");
    assert_eq!(tell(&edge, "p-1", "increments", unnamed).await.0, 400);
    edge.drained().await;
    let row = stage
        .ledger
        .authorization(id("i-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.answer.amount.minor(), 5_000);
    assert!(edge.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_the_bank_did_not_wait_for_is_released_and_counted() {
    let (stage, mut edge, bank) = set().await;
    assert_eq!(pay(&bank, "p-1", 10_000).await, 200);
    let outcome = json!({"outcome": "timed_out"});
    for _ in 0..2 {
        let (status, told) = tell(&edge, "p-1", "outcomes", outcome.clone()).await;
        assert_eq!(
            (status, &told["reversed"]),
            (200, &json!("100.00")),
            "{told}"
        );
    }
    edge.drained().await;
    assert_eq!(pay(&bank, "p-2", 9_000).await, 200);
    let wrong = json!({"outcome": "perhaps"});
    assert_eq!(tell(&edge, "p-1", "outcomes", wrong).await.0, 400);
    let page = edge.status().await;
    assert_eq!(page["late"]["marked"], 1, "{}", page["late"]);
    edge.drained().await;
    let row = stage
        .ledger
        .authorization(id("p-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.state, AuthorizationState::Reversed);
    assert!(edge.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_log_remembers_comes_back_by_the_ledger() {
    let stage = Stage::set().await;
    let sheet = stage.trip(1, 10_000).await;
    // Booked by another log, as if it were older than this one's memory.
    let old = standin_tests::conformance::ledger::propose(&sheet, "old", 5_000, 11_000);
    let bank = old.request.bank.clone();
    let outcome = standin_tests::conformance::ledger::outcome(&old, 1, 0);
    let log = uuid::Uuid::new_v4();
    let step = standin_tests::conformance::ledger::step(log, 1, vec![outcome]);
    stage.ledger.book(step).await.unwrap();
    let options = EdgeOptions {
        more: format!(
            "[[banks]]\nslug = \"{bank}\"\nsecrets = [\"{SECRET}\"]\ndeadline_ms = 8000\nwal_ms = 5000"
        ),
        ..EdgeOptions::on(&stage)
    };
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let named = old.transaction_id.to_string();
    let ask = async |bank: &str, reversal: &str, amount: &str| {
        let body = json!({"authorization": named, "reversal_id": reversal, "amount": amount});
        let path = format!("/v1/banks/{bank}/authorizations/{named}/reversals");
        let signer = Signer::new(SECRET.parse::<Secret>().unwrap());
        let call = Call::post(path, body.to_string()).signed(&signer);
        let target = format!("http://{}", edge.address()).parse().unwrap();
        let pool = standin_cli::client::Pool::new(target, 1);
        pool.ask(call, SOON).await.unwrap()
    };
    let others = ask(SLUG, "r-0", "20.00").await;
    assert_eq!(
        others.status, 404,
        "another bank's payment is none of this one's"
    );
    for _ in 0..2 {
        let told = ask(bank.as_str(), "r-1", "20.00").await;
        let told: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(told["reversed"], "20.00", "{told}");
    }
    edge.drained().await;
    let row = stage
        .ledger
        .authorization(old.transaction_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.state, row.reversed),
        (AuthorizationState::Final, 2_000)
    );
    assert!(edge.terminate().await.success());
}

/// Tells the edge something that the bank did by itself.
async fn report(edge: &Edge, what: &str, body: Value) -> (u16, Value) {
    let signer = Signer::new(SECRET.parse::<Secret>().unwrap());
    let path = format!("/v1/banks/{SLUG}/{what}");
    let call = Call::post(path, body.to_string()).signed(&signer);
    let target = format!("http://{}", edge.address()).parse().unwrap();
    let pool = standin_cli::client::Pool::new(target, 1);
    let reply: Reply = pool.ask(call, SOON).await.unwrap();
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bank_approved_by_itself_counts_and_is_flagged_when_it_is_too_much() {
    let (stage, mut edge, bank) = set().await;
    let advice = |key: &str, amount: &str, decision: &str| {
        let mut body = increment(key, amount);
        body["decision"] = json!(decision);
        body
    };
    let (status, told) = report(&edge, "advices", advice("a-1", "90.00", "approved")).await;
    assert_eq!(
        (status, &told["state"]),
        (200, &json!("recorded")),
        "{told}"
    );
    assert_eq!(
        report(&edge, "advices", advice("a-1", "90.00", "approved"))
            .await
            .0,
        200
    );
    let (status, _) = report(&edge, "advices", advice("a-1", "91.00", "approved")).await;
    assert_eq!(status, 422, "the same key with another amount");
    edge.drained().await;
    assert_eq!(
        pay(&bank, "p-1", 3_000).await,
        402,
        "what the bank approved counts"
    );
    // More than the trip allows is taken all the same.
    assert_eq!(
        report(&edge, "advices", advice("a-2", "500.00", "approved"))
            .await
            .0,
        200
    );
    assert_eq!(
        report(&edge, "advices", advice("a-3", "1.00", "declined"))
            .await
            .0,
        200
    );
    for (wrong, of) in [("perhaps", "decision"), ("", "decision")] {
        let (status, told) = report(&edge, "advices", advice("a-4", "1.00", wrong)).await;
        assert_eq!((status, &told["field"]), (400, &json!(of)));
    }
    edge.drained().await;
    for (key, cents) in [("a-1", 9_000), ("a-2", 50_000)] {
        let row = stage.ledger.authorization(id(key)).await.unwrap().unwrap();
        assert_eq!(row.state, AuthorizationState::Final);
        assert_eq!(row.answer.rung.as_str(), "bank");
        assert_eq!(row.answer.amount.minor(), cents);
    }
    assert_eq!(stage.ledger.authorization(id("a-3")).await.unwrap(), None);
    // The authorization of what was advised gets the approval that the bank gave.
    let asked = bank.pay(&Payment::new("a-1", 1, 9_000)).await;
    assert_eq!((asked.status(), asked.is_replayed()), (Some(200), true));
    assert!(edge.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_that_moved_is_recorded_whatever_was_approved() {
    let (stage, mut edge, bank) = set().await;
    assert_eq!(pay(&bank, "p-1", 5_000).await, 200);
    let moved = |key: &str, kind: &str, amount: &str| json!({"settlement_id": key, "kind": kind, "amount": amount});
    let mut capture = moved("s-1", "capture", "57.50");
    capture["authorization"] = json!("key:p-1");
    let (status, told) = report(&edge, "settlements", capture.clone()).await;
    assert_eq!((status, &told["state"]), (200, &json!("recorded")));
    assert_eq!(report(&edge, "settlements", capture.clone()).await.0, 200);
    assert_eq!(
        report(&edge, "settlements", moved("s-2", "force_post", "900.00"))
            .await
            .0,
        200
    );
    assert_eq!(
        report(&edge, "settlements", moved("s-3", "refund", "7.50"))
            .await
            .0,
        200
    );
    for (wrong, field) in [
        (moved("s-4", "capture", "1.00"), "authorization"),
        (moved("s-4", "gift", "1.00"), "kind"),
        (moved("s-4", "refund", "0"), "amount"),
        (moved("", "refund", "1.00"), "settlement_id"),
    ] {
        let (status, told) = report(&edge, "settlements", wrong).await;
        assert_eq!((status, &told["field"]), (400, &json!(field)), "{told}");
    }
    // While the primary is away too: the log has it.
    stage.postgres.pause().unwrap();
    println!("injected: the primary hangs");
    assert_eq!(
        report(&edge, "settlements", moved("s-5", "refund", "2.00"))
            .await
            .0,
        200
    );
    stage.postgres.resume().unwrap();
    edge.drained().await;
    let kept = stage.ledger.settlements(None, 100).await.unwrap();
    let mut kept: Vec<_> = kept
        .iter()
        .map(|one| (one.kind.as_str(), one.amount.minor(), one.transaction_id))
        .collect();
    kept.sort_unstable();
    let expected = [
        ("capture", 5_750, Some(id("p-1"))),
        ("force_post", 90_000, None),
        ("refund", 200, None),
        ("refund", 750, None),
    ];
    assert_eq!(kept, expected);
    let row = stage
        .ledger
        .authorization(id("p-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.state, row.answer.amount.minor()),
        (AuthorizationState::Final, 5_000)
    );
    assert!(edge.terminate().await.success());
}
