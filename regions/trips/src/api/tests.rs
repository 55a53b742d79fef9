#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code: a table of cases is long"
)]

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use standin_core::clock::Clock;
use standin_core::id::ShopperId;
use standin_core::ledger::{Card, Ledger};
use standin_core::money::Currency;
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, sign};
use standin_core::trip::TripStatus;
use uuid::Uuid;

use super::{Api, BODY_BYTES_MAX};
use crate::testing::{Mode, World, eventually};

fn secret() -> Secret {
    Secret::from_bytes(vec![7; 32]).unwrap()
}

fn api(world: &World) -> Api {
    Api::new(Arc::clone(&world.platform), vec![secret()], Currency::USD)
}

/// Signs and sends.
async fn send(world: &World, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let id = Uuid::new_v4().to_string();
    let response = send_as(world, &id, method, path, body).await;
    let value = serde_json::from_slice(response.body()).unwrap();
    (response.status(), value)
}

async fn send_as(
    world: &World,
    id: &str,
    method: Method,
    path: &str,
    body: &str,
) -> Response<Bytes> {
    let headers = headers(world, id, body);
    let uri: Uri = path.parse().unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    api(world).handle(&method, &uri, &headers, body).await
}

fn headers(world: &World, id: &str, body: &str) -> HeaderMap {
    let now = world.clock.now().as_secs();
    let signature = sign(&secret(), id, now, body.as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert(ID_HEADER, id.parse().unwrap());
    headers.insert(TIMESTAMP_HEADER, HeaderValue::from(now));
    headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers
}

async fn post(world: &World, path: &str, body: Value) -> (StatusCode, Value) {
    send(world, Method::POST, path, &body.to_string()).await
}

async fn get(world: &World, path: &str) -> (StatusCode, Value) {
    send(world, Method::GET, path, "").await
}

fn order_body(order: Uuid) -> Value {
    json!({
        "order_id": order, "customer_id": 5, "store_id": 1,
        "items": [
            {"product": 11, "category": "produce", "quantity": 2, "listed": "4.99"},
            {"product": 12, "category": "dairy", "quantity": 1, "listed": 300},
        ],
    })
}

/// A trip of shopper 123 with one order, through the API.
async fn trip(world: &World) -> (Uuid, Uuid) {
    let (order, trip) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(post(world, "/v1/orders", order_body(order)).await.0, 201);
    let claim = format!("/v1/orders/{order}/claim");
    assert_eq!(post(world, &claim, json!({"shopper_id": 123})).await.0, 200);
    let start = json!({"trip_id": trip, "shopper_id": 123, "order_ids": [order]});
    let (status, started) = post(world, "/v1/trips", start).await;
    assert_eq!(
        (status, &started["cache"]),
        (StatusCode::OK, &json!("current"))
    );
    (order, trip)
}

#[tokio::test]
async fn networks_ids_of_a_store_are_put_and_removed() {
    let world = World::at_work().await;
    let store = json!({"store_id": 4, "name": "Target", "address": "123 Main St",
        "lat": 37.7749, "lon": -122.4194, "merchant_ids": [
            {"network_id": " 445100000000123 "}, {"network_id": "abc", "terminal": "t1"}]});
    assert_eq!(post(&world, "/v1/stores", store.clone()).await.0, 200);
    let other = json!({"store_id": 5, "network_id": "ABC", "terminal": "T2"});
    assert_eq!(post(&world, "/v1/merchant-ids", other).await.0, 200);
    let known = async || {
        let ids = world.platform.ports.ledger.merchant_ids_after(None, 10);
        let ids = ids.await.unwrap().into_iter();
        let told = ids.map(|id| {
            let terminal = id.terminal.map(|terminal| terminal.to_string());
            (id.network_id.to_string(), terminal, id.store.get())
        });
        told.collect::<Vec<_>>()
    };
    let terminal = |text: &str| Some(text.to_owned());
    let first = ("445100000000123".to_owned(), None, 4);
    let all = [
        first.clone(),
        ("ABC".to_owned(), terminal("T1"), 4),
        ("ABC".to_owned(), terminal("T2"), 5),
    ];
    assert_eq!(known().await, all);
    let gone = json!({"network_id": "abc", "terminal": "T1"});
    let path = "/v1/merchant-ids/remove";
    for removed in [true, false] {
        let answer = post(&world, path, gone.clone()).await;
        assert_eq!(answer, (StatusCode::OK, json!({ "removed": removed })));
    }
    assert_eq!(known().await.len(), 2);
    for wrong in [
        json!([{"network_id": ""}]),
        json!([{"network_id": "a", "terminal": "\u{7f}"}]),
        json!([{"network_id": "a".repeat(65)}]),
        json!([{"network_id": "a", "terminl": "b"}]),
        json!(vec![json!({"network_id": "a"}); 101]),
    ] {
        let mut store = store.clone();
        store["merchant_ids"] = wrong;
        assert_eq!(post(&world, "/v1/stores", store).await.0, 400);
    }
}

#[tokio::test]
async fn an_order_goes_all_the_way_over_http() {
    let mut world = World::at_work().await;
    let store = json!({"store_id": 4, "name": "Target", "address": "123 Main St",
        "lat": 37.7749, "lon": "-122.41941234"});
    assert_eq!(post(&world, "/v1/stores", store).await.0, 200);
    let order = Uuid::new_v4();
    assert_eq!(post(&world, "/v1/orders", order_body(order)).await.0, 201);
    assert_eq!(post(&world, "/v1/orders", order_body(order)).await.0, 200);
    let (_, offers) = get(&world, "/v1/stores/1/offers?limit=5").await;
    assert_eq!(offers["offers"][0]["order_id"], json!(order));
    assert_eq!(offers["offers"][0]["items"][1]["listed"], "300.00");

    let (order, trip) = trip(&world).await;
    let events = format!("/v1/trips/{trip}/events");
    let one = json!({"shopper_id": 123, "event_id": Uuid::new_v4(), "kind": "pick",
        "order_id": order, "line": 1, "actual": 5.1});
    let (status, taken) = post(&world, &events, one.clone()).await;
    assert_eq!(
        (status, &taken["event_id"]),
        (StatusCode::ACCEPTED, &one["event_id"])
    );
    let many = json!({"shopper_id": 123, "events": [
        {"kind": "pick", "order_id": order, "line": 2, "actual": "299.99"},
        {"kind": "position", "lat": 37.7749, "lon": -122.4194},
        {"kind": "finish"},
    ]});
    let (status, taken) = post(&world, &events, many).await;
    assert_eq!(
        (status, taken),
        (StatusCode::ACCEPTED, json!({"accepted": 3}))
    );
    let complete = format!("/v1/trips/{trip}/complete");
    let (status, completed) = post(&world, &complete, json!({"shopper_id": 123})).await;
    assert_eq!(
        (status, &completed["status"]),
        (StatusCode::OK, &json!("COMPLETE"))
    );
    let (_, seen) = get(&world, &format!("/v1/trips/123/{trip}")).await;
    assert_eq!(seen["picked"], "305.09");
    assert_eq!(seen["mix"], json!({"produce": "5.10", "dairy": "299.99"}));
    assert_eq!(seen["orders"][0]["items"][0]["actual"], "5.10");
    let (_, order) = get(&world, &format!("/v1/orders/{order}")).await;
    assert_eq!(order["status"], "COMPLETE");
    world.rest().await;
}

#[tokio::test]
async fn a_batch_sent_again_under_its_signed_id_has_the_same_events() {
    let mut world = World::at_work().await;
    let (order, trip) = trip(&world).await;
    let path = format!("/v1/trips/{trip}/events");
    let body = json!({"shopper_id": 123, "events": [
        {"kind": "pick", "order_id": order, "line": 1},
        {"kind": "unpick", "order_id": order, "line": 1},
    ]})
    .to_string();
    let id = format!("msg_{}", Uuid::new_v4());
    for _ in 0..2 {
        let sent = send_as(&world, &id, Method::POST, &path, &body).await;
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
    }
    world.settled().await;
    assert_eq!(world.platform.counters().duplicates.get(), 2);
    let nameless = send_as(&world, "not-a-uuid", Method::POST, &path, &body).await;
    assert_eq!(nameless.status(), StatusCode::BAD_REQUEST);
    world.rest().await;
}

#[tokio::test]
async fn what_is_not_signed_looks_the_same_whatever_is_wrong() {
    let world = World::at_rest().await;
    let (path, body) = ("/v1/orders", order_body(Uuid::new_v4()).to_string());
    let good = headers(&world, "msg_1", &body);
    let mut cases = vec![(HeaderMap::new(), path)];
    for name in [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER] {
        let mut without = good.clone();
        without.remove(name);
        cases.push((without, path));
    }
    let mut old = good.clone();
    let long_ago = world.clock.now().as_secs() - 301;
    old.insert(TIMESTAMP_HEADER, HeaderValue::from(long_ago));
    old.insert(
        SIGNATURE_HEADER,
        sign(&secret(), "msg_1", long_ago, body.as_bytes())
            .parse()
            .unwrap(),
    );
    cases.push((old, path));
    let mut other = good.clone();
    let stranger = Secret::from_bytes(vec![8; 32]).unwrap();
    let now = world.clock.now().as_secs();
    other.insert(
        SIGNATURE_HEADER,
        sign(&stranger, "msg_1", now, body.as_bytes())
            .parse()
            .unwrap(),
    );
    cases.push((other, path));
    cases.push((HeaderMap::new(), "/no/such/path"));
    let mut answers = Vec::new();
    for (headers, path) in cases {
        let uri: Uri = path.parse().unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let response = api(&world)
            .handle(&Method::POST, &uri, &headers, body)
            .await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        answers.push((response.headers().clone(), response.into_body()));
    }
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:?}"
    );
    assert_eq!(world.platform.counters().unauthenticated.get(), 7);
}

#[tokio::test]
async fn each_problem_has_its_status_and_type() {
    let mut world = World::at_work().await;
    let (order, trip) = trip(&world).await;
    let (order, trip) = (order.to_string(), trip.to_string());
    let placed = Uuid::new_v4();
    post(&world, "/v1/orders", order_body(placed)).await;
    let mut other = order_body(placed);
    other["items"][0]["listed"] = json!("1.00");
    let mut elsewhere = order_body(Uuid::new_v4());
    elsewhere["store_id"] = json!(77);
    let mut fine = order_body(Uuid::new_v4());
    fine["items"][0]["listed"] = json!("1.005");
    let mut negative = order_body(Uuid::new_v4());
    negative["items"][0]["listed"] = json!(-1);
    let mut twice = order_body(Uuid::new_v4());
    twice["items"][0]["line"] = json!(2);
    let events = format!("/v1/trips/{trip}/events");
    let complete = format!("/v1/trips/{trip}/complete");
    let event = |more: Value| {
        let mut event = json!({"shopper_id": 123, "kind": "pick", "order_id": order, "line": 1});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let many: Vec<_> = (0..101).map(|_| json!({"kind": "finish"})).collect();
    let new = Uuid::new_v4();
    let cases = [
        (404, "not-found", "/v1/nothing".to_owned(), json!({})),
        (
            404,
            "not-found",
            "/v1/trips/1/2/3/4/5/6".to_owned(),
            json!({}),
        ),
        (405, "method", format!("/v1/orders/{order}"), json!({})),
        (
            400,
            "malformed",
            "/v1/orders".to_owned(),
            json!({"order_id": 1}),
        ),
        (400, "malformed", "/v1/orders".to_owned(), fine),
        (400, "malformed", "/v1/orders".to_owned(), negative),
        (400, "malformed", "/v1/orders".to_owned(), twice),
        (422, "order-differs", "/v1/orders".to_owned(), other),
        (422, "unknown-store", "/v1/orders".to_owned(), elsewhere),
        (
            404,
            "unknown",
            format!("/v1/orders/{new}/claim"),
            json!({"shopper_id": 1}),
        ),
        (
            409,
            "order-gone",
            format!("/v1/orders/{order}/claim"),
            json!({"shopper_id": 1}),
        ),
        (
            400,
            "malformed",
            format!("/v1/orders/{order}/claim"),
            json!({"shopper_id": 1, "order_id": new}),
        ),
        (
            409,
            "not-claimed",
            "/v1/trips".to_owned(),
            json!({"trip_id": new, "shopper_id": 9, "order_ids": [placed]}),
        ),
        (
            400,
            "malformed",
            "/v1/trips".to_owned(),
            json!({"trip_id": new, "shopper_id": 9, "order_ids": []}),
        ),
        (
            404,
            "unknown",
            format!("/v1/trips/{new}/events"),
            event(json!({})),
        ),
        (
            404,
            "unknown",
            events.clone(),
            event(json!({"shopper_id": 124})),
        ),
        (
            422,
            "currency",
            events.clone(),
            event(json!({"currency": "EUR"})),
        ),
        (
            400,
            "malformed",
            events.clone(),
            event(json!({"kind": "dance"})),
        ),
        (
            400,
            "malformed",
            events.clone(),
            event(json!({"actual": "1.001"})),
        ),
        (
            400,
            "malformed",
            events.clone(),
            event(json!({"kind": "position", "lat": 91, "lon": 0})),
        ),
        (
            400,
            "malformed",
            events.clone(),
            event(json!({"trip_id": new})),
        ),
        (
            400,
            "malformed",
            events.clone(),
            json!({"shopper_id": 123, "events": many}),
        ),
        (400, "malformed", events, json!({"shopper_id": 123})),
        (409, "still-shopping", complete, json!({"shopper_id": 123})),
    ];
    for (status, slug, path, body) in cases {
        let (got, problem) = post(&world, &path, body.clone()).await;
        let kind = format!("urn:standin:problem:{slug}");
        assert_eq!(
            (got.as_u16(), &problem["type"]),
            (status, &json!(kind)),
            "{path} {body}: {problem}"
        );
        assert_eq!(problem["status"], json!(status));
    }
    world.rest().await;
}

#[tokio::test]
async fn a_body_too_long_or_not_json_is_refused() {
    let world = World::at_rest().await;
    let long = " ".repeat(BODY_BYTES_MAX + 1);
    let response = send_as(&world, "msg_1", Method::POST, "/v1/orders", &long).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let mut headers = headers(&world, "msg_1", "{}");
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    let uri = Uri::from_static("/v1/orders");
    let body = Bytes::from_static(b"{}");
    let response = api(&world)
        .handle(&Method::POST, &uri, &headers, body)
        .await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let uri = Uri::from_static("/v1/orders/x");
    let response = send_as(&world, "msg_1", Method::POST, uri.path(), "{}").await;
    assert_eq!(response.headers()["allow"], "GET");
}

#[tokio::test]
async fn without_the_ledger_only_what_happens_on_a_trip_is_taken() {
    let mut world = World::at_work().await;
    let (order, trip) = trip(&world).await;
    world.ledger.switch.set(Mode::Away);
    let complete = format!("/v1/trips/{trip}/complete");
    let start = json!({"trip_id": Uuid::new_v4(), "shopper_id": 123, "order_ids": [order]});
    for (path, body) in [
        ("/v1/orders", order_body(Uuid::new_v4())),
        (
            &format!("/v1/orders/{order}/claim"),
            json!({"shopper_id": 123}),
        ),
        ("/v1/trips", start),
        (&complete, json!({"shopper_id": 123})),
    ] {
        let response = send_as(&world, "msg_1", Method::POST, path, &body.to_string()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    let events = format!("/v1/trips/{trip}/events");
    let body = json!({"shopper_id": 123, "kind": "pick", "order_id": order, "line": 1});
    assert_eq!(post(&world, &events, body).await.0, 202);
    eventually("the trip shows it", || async {
        get(&world, &format!("/v1/trips/123/{trip}")).await.1["picked"] == "4.99"
    })
    .await;
    // A trip that can be looked up nowhere: its events are kept for the ledger to judge, but a
    // price without a currency can not be read.
    let stray = format!("/v1/trips/{}/events", Uuid::new_v4());
    let mut body = json!({"shopper_id": 123, "kind": "pick", "order_id": order, "line": 1});
    assert_eq!(post(&world, &stray, body.clone()).await.0, 202);
    body["actual"] = json!("1.50");
    assert_eq!(post(&world, &stray, body.clone()).await.0, 503);
    body["currency"] = json!("USD");
    assert_eq!(post(&world, &stray, body).await.0, 202);
    world.ledger.switch.set(Mode::Up);
    world.settled().await;
    assert_eq!(world.platform.counters().refused.get(), 2);
    let body = json!({"shopper_id": 123, "kind": "finish"});
    assert_eq!(post(&world, &events, body).await.0, 202);
    assert_eq!(
        post(&world, &complete, json!({"shopper_id": 123})).await.0,
        200
    );
    assert_eq!(
        world.looked(123_u64.try_into().unwrap()).await.status,
        TripStatus::Complete
    );
    world.rest().await;
}

#[tokio::test]
async fn a_card_is_given_to_a_shopper_and_taken_again() {
    let world = World::at_rest().await;
    let card = || Card {
        bank: "first".parse().unwrap(),
        token: "ic_1".to_owned(),
    };
    let given = r#"{"bank":"first","token":"ic_1","shopper_id":7}"#;
    assert_eq!(send(&world, Method::POST, "/v1/cards", given).await.0, 200);
    let holder = world.ledger.card_holder(card()).await.unwrap();
    assert_eq!(holder, Some(ShopperId::try_from(7_i64).unwrap()));
    let taken = r#"{"bank":"first","token":"ic_1","shopper_id":null}"#;
    assert_eq!(send(&world, Method::POST, "/v1/cards", taken).await.0, 200);
    assert_eq!(world.ledger.card_holder(card()).await.unwrap(), None);
    for wrong in [
        r#"{"bank":"first","token":"ic_1"}"#,
        r#"{"bank":"First","token":"ic_1","shopper_id":7}"#,
        r#"{"bank":"first","token":"","shopper_id":7}"#,
        r#"{"bank":"first","token":" ic_1","shopper_id":7}"#,
        r#"{"bank":"first","token":"4111 1111 1111 1111","shopper_id":7}"#,
        r#"{"bank":"first","token":"ic_1","shopper_id":4611686018427387904}"#,
        r#"{"bank":"first","token":"ic_1","shopper_id":0}"#,
    ] {
        let (status, body) = send(&world, Method::POST, "/v1/cards", wrong).await;
        assert_eq!(status, 400, "{wrong}: {body}");
        assert!(!body.to_string().contains("4111"), "{body}");
    }
}
