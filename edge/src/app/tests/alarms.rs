//! Alarms of a whole edge, and orders through its admin listener.

use super::*;

/// Waits until exactly these alarms are raised, on the status page and as gauges.
async fn raised(edge: &Edge, expected: &[&str]) {
    let desk = edge.desk();
    until(&format!("{expected:?}"), async || {
        let page = desk.statusz().await;
        let names = page["alarms"].as_array().unwrap().iter();
        names
            .map(|alarm| alarm["name"].as_str().unwrap())
            .eq(expected.iter().copied())
    })
    .await;
    let (status, metrics) = admin(edge, "GET", "/metrics", "").await;
    assert_eq!(status, 200);
    for alarm in crate::alarm::Alarm::ALL {
        let name = alarm.as_str();
        let value = u8::from(expected.contains(&name));
        let line = format!("standin_alarm{{name=\"{name}\"}} {value}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

/// Asks the admin listener; gives status and body.
pub(super) async fn admin(edge: &Edge, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(edge.admin_address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

const ORDER: &str = r#"{"operator":"ada","reason":"drill"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forcing_to_stand_in_is_alarmed_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    raised(&edge, &[]).await;
    let (status, body) = admin(&edge, "POST", "/stand-in/force", ORDER).await;
    assert_eq!(status, 200, "{body}");
    raised(&edge, &["primary_away", "stand_in_overridden"]).await;
    let (status, body) = admin(&edge, "POST", "/stand-in/auto", ORDER).await;
    assert_eq!(status, 200, "{body}");
    raised(&edge, &[]).await;
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_500_is_alarmed_until_it_is_cleared_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let adapter: Arc<dyn Adapter> = Arc::new(Clumsy(Arc::default()));
    let hooks = Hooks {
        adapter: Some(adapter),
        ..Hooks::default()
    };
    let edge = Edge::start(config(dir.path()), hooks).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let (status, _, first) = post(&edge, SEED).await;
    assert_eq!(status, 500, "{first}");
    raised(&edge, &["faulted"]).await;
    assert_eq!(edge.stop().await, Stopped::Clean);

    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    raised(&edge, &["faulted"]).await;
    let problem: serde_json::Value = serde_json::from_str(&first).unwrap();
    let id = problem["transaction_id"].as_str().unwrap();
    let (status, body) = admin(&edge, "POST", &format!("/answers/{id}/clear"), ORDER).await;
    assert_eq!(status, 200, "{body}");
    let page = edge.status().await;
    assert_eq!(page["alarms"], serde_json::json!([]), "at once");
    raised(&edge, &[]).await;
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_ordered_over_http_says_whether_it_came_first() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let (status, _, answer) = post(&edge, SEED).await;
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let answered = answer["transaction_id"].as_str().unwrap();
    let strange = "abababababababababababababababab";
    for (id, placed) in [
        (answered, "answered"),
        (strange, "first"),
        (strange, "first"),
    ] {
        let (status, body) = admin(&edge, "POST", &format!("/holds/{id}/tombstone"), ORDER).await;
        assert_eq!((status, body), (200, format!(r#"{{"placed":"{placed}"}}"#)));
    }
    let (status, replayed, _) = post(&edge, SEED).await;
    assert_eq!((status, replayed), (200, true), "an answer stands");
    assert_eq!(edge.stop().await, Stopped::Clean);
}
