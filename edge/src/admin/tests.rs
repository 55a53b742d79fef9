use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

#[derive(Default)]
struct Edge(Mutex<Vec<String>>);

impl Control for Edge {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Readiness {
        Readiness {
            ok: false,
            why: Some("starting".to_owned()),
            decide: false,
            write_ahead: true,
            fresh_trips: true,
            stopping: false,
        }
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { json!({"rung": "primary"}) })
    }

    fn stand_in(
        &self,
        mode: StandInMode,
        lasts: Option<Duration>,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>> {
        let lasts = lasts.map_or(String::new(), |lasts| format!(" {lasts:?}"));
        let Order { operator, reason } = order;
        let did = format!("{} {operator} {reason}{lasts}", mode.as_str());
        self.0.lock().unwrap().push(did);
        Box::pin(async move { Ok(json!({"mode": mode.as_str()})) })
    }

    fn clear_answer(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>> {
        self.0
            .lock()
            .unwrap()
            .push(format!("{id} {}", order.operator));
        Box::pin(async {
            Err(Problem::Conflict {
                detail: "not faulted".into(),
            })
        })
    }

    fn tombstone(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<TombstonePlaced, Problem>> {
        let mut did = self.0.lock().unwrap();
        let first = did.is_empty();
        did.push(format!("{id} {} {}", order.operator, order.reason));
        Box::pin(async move {
            Ok(if first {
                TombstonePlaced::First
            } else {
                TombstonePlaced::Answered
            })
        })
    }

    fn change_members(&self, order: MemberOrder) -> BoxFuture<'_, Result<MembersChanged, Problem>> {
        let MemberOrder {
            change,
            node,
            force,
            order,
        } = order;
        let did = format!(
            "{change:?} {node} {force} {} {}",
            order.operator, order.reason
        );
        self.0.lock().unwrap().push(did);
        Box::pin(async move {
            Ok(MembersChanged {
                change,
                node,
                changed: true,
                forced: force,
                keepers: [1, 2, 3].into(),
                tolerates: 1,
            })
        })
    }

    fn scrub(&self, order: Order) -> BoxFuture<'_, Result<Value, Problem>> {
        self.0
            .lock()
            .unwrap()
            .push(format!("scrub {}", order.operator));
        Box::pin(async { Ok(json!({"segments": 2})) })
    }

    fn begin_fault(&self, order: PlayOrder) -> Result<Shown, Problem> {
        let PlayOrder {
            fault,
            lasts,
            order,
        } = order;
        let did = format!("{fault:?} {lasts:?} {} {}", order.operator, order.reason);
        self.0.lock().unwrap().push(did);
        Err(Problem::Forbidden {
            detail: "no consent",
        })
    }

    fn end_fault(&self, number: Option<u64>, order: Order) -> Result<Shown, Problem> {
        let did = format!("end {number:?} {}", order.operator);
        self.0.lock().unwrap().push(did);
        Err(Problem::Conflict {
            detail: "no fault is played".into(),
        })
    }
}

const ORDER: &str = r#"{"operator":"ada","reason":"drill"}"#;
const ID: &str = "abababababababababababababababab";

async fn ask(edge: &Arc<Edge>, method: &str, path: &str, body: &str) -> (u16, String) {
    let control: Arc<dyn Control> = edge.clone();
    let admin = Admin::new(control, Arc::new(Metrics::new().unwrap()));
    let request = http::Request::builder().method(method).uri(path);
    let request = request
        .header(CONTENT_TYPE, "application/json")
        .body(())
        .unwrap();
    let response = admin
        .handle(Request {
            parts: request.into_parts().0,
            body: Bytes::copy_from_slice(body.as_bytes()),
            peer: "127.0.0.1:1".parse().unwrap(),
            peer_name: None,
            received: Instant::now(),
            complete: Instant::now(),
            vouch: crate::server::Vouch::default(),
        })
        .await;
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), text)
}

#[tokio::test]
async fn every_page_is_there_and_nothing_else() {
    let edge = Arc::new(Edge::default());
    assert_eq!(
        ask(&edge, "GET", "/livez", "").await,
        (200, r#"{"ok":true}"#.into())
    );
    let (status, body) = ask(&edge, "GET", "/readyz", "").await;
    assert_eq!(
        (status, body.as_str()),
        (
            503,
            r#"{"decide":false,"fresh_trips":true,"ok":false,"stopping":false,"why":"starting","write_ahead":true}"#
        )
    );
    assert_eq!(ask(&edge, "GET", "/statusz", "").await.0, 200);
    assert_eq!(ask(&edge, "HEAD", "/livez", "").await, (200, String::new()));
    assert_eq!(ask(&edge, "GET", "/metrics", "").await.0, 200);
    for path in ["/", "/livez/", "/stand-in", "/answers/x", "/debug"] {
        assert_eq!(ask(&edge, "GET", path, "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn an_order_names_its_operator_and_its_reason() {
    let edge = Arc::new(Edge::default());
    for mode in ["auto", "force", "forbid"] {
        let done = ask(&edge, "POST", &format!("/stand-in/{mode}"), ORDER).await;
        assert_eq!(done, (200, format!(r#"{{"mode":"{mode}"}}"#)));
    }
    let timed = r#"{"operator":"ada","reason":"drill","for_ms":90000}"#;
    assert_eq!(ask(&edge, "POST", "/stand-in/force", timed).await.0, 200);
    assert_eq!(
        ask(&edge, "POST", &format!("/answers/{ID}/clear"), ORDER)
            .await
            .0,
        409
    );
    let done = edge.0.lock().unwrap().clone();
    let clear = format!("{ID} ada");
    assert_eq!(
        done,
        [
            "auto ada drill",
            "force ada drill",
            "forbid ada drill",
            "force ada drill 90s",
            clear.as_str()
        ]
    );
}

#[tokio::test]
async fn a_tombstone_says_whether_it_came_first() {
    let edge = Arc::new(Edge::default());
    let path = format!("/holds/{ID}/tombstone");
    for placed in ["first", "answered"] {
        let done = ask(&edge, "POST", &path, ORDER).await;
        assert_eq!(done, (200, format!(r#"{{"placed":"{placed}"}}"#)));
    }
    let did = edge.0.lock().unwrap().clone();
    assert_eq!(did, [format!("{ID} ada drill"), format!("{ID} ada drill")]);
}

#[tokio::test]
async fn members_are_changed_by_number_and_by_force_only_when_asked_to() {
    let edge = Arc::new(Edge::default());
    let plain = r#"{"node":4,"operator":"ada","reason":"disk lost"}"#;
    let forced = r#"{"node":3,"operator":"ada","reason":"disk lost","force":true}"#;
    let (status, body) = ask(&edge, "POST", "/wal/members/add", plain).await;
    assert_eq!(
        (status, body.as_str()),
        (
            200,
            r#"{"change":"add","changed":true,"forced":false,"keepers":[1,2,3],"node":4,"tolerates":1}"#
        )
    );
    let (status, _) = ask(&edge, "POST", "/wal/members/remove", forced).await;
    assert_eq!(status, 200);
    let scrubbed = ask(&edge, "POST", "/wal/scrub", ORDER).await;
    assert_eq!(scrubbed, (200, r#"{"segments":2}"#.into()));
    let did = edge.0.lock().unwrap().clone();
    let expected = [
        "Add 4 false ada disk lost",
        "Remove 3 true ada disk lost",
        "scrub ada",
    ];
    assert_eq!(did, expected);
}

#[tokio::test]
async fn an_order_is_given_for_a_second_to_a_week_and_auto_for_no_time() {
    let edge = Arc::new(Edge::default());
    for (mode, for_ms, expected) in [
        ("auto", "60000", 400),
        ("force", "999", 400),
        ("force", "1000", 200),
        ("forbid", "604800000", 200),
        ("forbid", "604800001", 400),
        ("force", "-1", 400),
        ("force", "\"1h\"", 400),
        ("force", "null", 200),
    ] {
        let body = format!(r#"{{"operator":"ada","reason":"x","for_ms":{for_ms}}}"#);
        let (status, said) = ask(&edge, "POST", &format!("/stand-in/{mode}"), &body).await;
        assert_eq!(status, expected, "{mode} {for_ms}: {said}");
    }
    assert_eq!(edge.0.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_fault_is_ordered_by_its_word_with_numbers_in_range_and_for_a_bounded_time() {
    let edge = Arc::new(Edge::default());
    for (fault, for_ms, status) in [
        (r#""primary_unreachable""#, "1000", 403),
        (r#""primary_hanging""#, "600000", 403),
        (r#""primary_hanging""#, "600001", 400),
        (r#""primary_hanging""#, "999", 400),
        (r#""primary_hanging""#, "null", 400),
        (r#""primary_slow","delay_ms":300"#, "5000", 403),
        (r#""primary_slow","delay_ms":300,"percent":10"#, "5000", 403),
        (r#""primary_slow""#, "5000", 400),
        (r#""primary_slow","delay_ms":0"#, "5000", 400),
        (r#""primary_slow","delay_ms":60001"#, "5000", 400),
        (
            r#""primary_slow","delay_ms":300,"percent":101"#,
            "5000",
            400,
        ),
        (r#""primary_failing","percent":0"#, "5000", 400),
        (r#""primary_failing","percent":25"#, "5000", 403),
        (r#""trip_cache_slow","delay_ms":15"#, "5000", 403),
        (r#""disk_full""#, "5000", 400),
    ] {
        let body =
            format!(r#"{{"operator":"ada","reason":"x","fault":{fault},"for_ms":{for_ms}}}"#);
        let (got, said) = ask(&edge, "POST", "/drill/begin", &body).await;
        assert_eq!(got, status, "{body}: {said}");
    }
    for body in [
        ORDER,
        r#"{"operator":"ada","reason":"x","number":7}"#,
        r#"{"operator":"ada","reason":"x","number":-7}"#,
    ] {
        ask(&edge, "POST", "/drill/end", body).await;
    }
    let unsigned = r#"{"fault":"primary_hanging","for_ms":5000,"operator":"ada"}"#;
    for (method, path, body, status) in [
        ("GET", "/drill/begin", ORDER, 405),
        ("GET", "/drill/end", ORDER, 405),
        ("POST", "/drill", ORDER, 404),
        ("POST", "/drill/begin", ORDER, 400),
        ("POST", "/drill/begin", unsigned, 400),
        ("POST", "/drill/end", "{}", 400),
    ] {
        let (got, said) = ask(&edge, method, path, body).await;
        assert_eq!(got, status, "{method} {path} {body}: {said}");
    }
    let did = edge.0.lock().unwrap().clone();
    let expected = [
        "PrimaryUnreachable 1s ada x",
        "PrimaryHanging 600s ada x",
        "PrimarySlow { delay_ms: 300, percent: 100 } 5s ada x",
        "PrimarySlow { delay_ms: 300, percent: 10 } 5s ada x",
        "PrimaryFailing { percent: 25 } 5s ada x",
        "TripCacheSlow { delay_ms: 15 } 5s ada x",
        "end None ada",
        "end Some(7) ada",
    ];
    assert_eq!(did, expected);
}

#[tokio::test]
async fn an_order_that_is_not_whole_does_nothing() {
    let edge = Arc::new(Edge::default());
    let clear = format!("/answers/{ID}/clear");
    let tombstone = format!("/holds/{ID}/tombstone");
    for (method, path, body, status) in [
        ("GET", "/stand-in/force", ORDER, 405),
        ("PUT", "/stand-in/force", ORDER, 405),
        ("GET", clear.as_str(), ORDER, 405),
        ("POST", "/livez", ORDER, 405),
        ("POST", "/statusz", ORDER, 405),
        ("POST", "/stand-in/on", ORDER, 404),
        ("POST", "/answers/7/clear", ORDER, 404),
        ("GET", tombstone.as_str(), ORDER, 405),
        ("POST", "/holds/7/tombstone", ORDER, 404),
        ("POST", tombstone.as_str(), "{}", 400),
        (
            "POST",
            tombstone.as_str(),
            r#"{"operator":"ada","reason":""}"#,
            400,
        ),
        ("GET", "/wal/scrub", ORDER, 405),
        ("POST", "/wal/scrub", "{}", 400),
        ("GET", "/wal/members/add", ORDER, 405),
        ("POST", "/wal/members", ORDER, 404),
        ("POST", "/wal/members/promote", ORDER, 404),
        ("POST", "/wal/members/add", ORDER, 400),
        (
            "POST",
            "/wal/members/remove",
            r#"{"node":-1,"operator":"ada","reason":"x"}"#,
            400,
        ),
        (
            "POST",
            "/wal/members/remove",
            r#"{"node":3,"operator":"ada","reason":" ","force":true}"#,
            400,
        ),
        ("POST", "/stand-in/force", "", 400),
        ("POST", "/stand-in/force", "{}", 400),
        ("POST", "/stand-in/force", r#"{"operator":"ada"}"#, 400),
        (
            "POST",
            "/stand-in/force",
            r#"{"operator":"","reason":"x"}"#,
            400,
        ),
        (
            "POST",
            clear.as_str(),
            r#"{"operator":"ada","reason":" "}"#,
            400,
        ),
    ] {
        assert_eq!(
            ask(&edge, method, path, body).await.0,
            status,
            "{method} {path} {body}"
        );
    }
    assert!(edge.0.lock().unwrap().is_empty());
}
