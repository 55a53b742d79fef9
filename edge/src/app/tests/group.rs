//! Whole edges that keep one log together, over links on loopback: members come and go by order, and
//! one whose disk is damaged goes by itself.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use standin_core::entry::{Entry, OperatorAction, OperatorOrder, StandInMode};
use standin_core::ledger::memory::MemoryLedger;
use standin_core::policy::Policy;
use standin_wal::EnrollError;
use tempfile::TempDir;

use super::alarms::admin;
use super::*;

/// A region: the ledger that all its edges share, and where the edges' disks are.
struct Region {
    ledger: Arc<dyn Ledger>,
    away: Arc<AtomicBool>,
    disks: TempDir,
}

impl Region {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self {
            ledger: Arc::new(MemoryLedger::new(clock, None)),
            away: Arc::default(),
            disks: tempfile::tempdir().unwrap(),
        }
    }

    fn disk(&self, edge: u64) -> std::path::PathBuf {
        self.disks.path().join(edge.to_string())
    }

    async fn start(&self, edge: u64) -> Result<Edge, StartError> {
        let (inner, away) = (Arc::clone(&self.ledger), Arc::clone(&self.away));
        let wrap: WrapLedger = Box::new(move |_own| Arc::new(Away { inner, away }));
        let hooks = Hooks {
            wrap_ledger: Some(wrap),
            ..Hooks::default()
        };
        Edge::start(keeper(edge, &self.disk(edge)), hooks).await
    }

    /// Edges 1 to 3, which found the group, and a shopper with a cart.
    async fn founded(&self) -> [Edge; 3] {
        let (one, two, three) = tokio::join!(self.start(1), self.start(2), self.start(3));
        let edges = [one.unwrap(), two.unwrap(), three.unwrap()];
        shop(&edges[0]).await;
        for edge in &edges {
            stores_known(edge).await;
        }
        edges
    }

    /// The actions on keepers that are in the audit, oldest first, with their reasons.
    async fn audited(&self) -> Vec<String> {
        let audit = self.ledger.audit(100).await.unwrap();
        let mut of_keepers: Vec<_> = audit
            .iter()
            .filter(|row| row.action.starts_with("keeper."))
            .map(|row| format!("{} by {}: {}", row.action, row.operator, row.reason))
            .collect();
        of_keepers.sort();
        of_keepers
    }
}

/// Where an edge's link listens: an address of this process's own, on which nobody else listens.
fn link(edge: u64) -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{edge}:8490", 64 + high % 64)
}

fn keeper(edge: u64, disk: &Path) -> Config {
    let founders: Vec<String> = (1..=3).map(|it| format!("\"{it}={}\"", link(it))).collect();
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
        [keepers]
        listen = "{}"
        founders = [{}]
        [[banks]]
        slug = "first"
        secrets = ["{SECRET}"]
        "#,
        disk.display(),
        link(edge),
        founders.join(", ")
    );
    Config::load(Some(&text), []).unwrap().0
}

/// Orders a change at an edge; gives status and body.
async fn order(edge: &Edge, change: &str, node: u64, force: bool) -> (u16, Value) {
    let body =
        json!({ "node": node, "operator": "ada", "reason": "its disk is lost", "force": force });
    let path = format!("/wal/members/{change}");
    let (status, body) = admin(edge, "POST", &path, &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap())
}

/// Has the shopper pay so many dollars; the amount makes it another payment. A bank asks again when
/// it gets no answer.
async fn pay(edge: &Edge, dollars: u32) {
    let body = SEED.replace("300", &dollars.to_string());
    until("answered", async || {
        let (status, _, answer) = post(edge, &body).await;
        assert!(status == 200 || status == 503, "{answer}");
        status == 200
    })
    .await;
}

fn nodes(page: &Value) -> BTreeSet<u64> {
    let nodes = page.as_array().unwrap().iter();
    nodes.map(|node| node.as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_lost_its_disk_is_replaced_while_payments_go_on() {
    let region = Region::new();
    let [one, two, three] = Box::pin(region.founded()).await;
    pay(&one, 20).await;
    pay(&three, 21).await;

    assert_eq!(three.stop().await, Stopped::Clean);
    std::fs::remove_dir_all(region.disk(3)).unwrap();
    let wiped = region.start(3).await.map(drop).unwrap_err();
    let lost = EnrollError::Lost { node: 3 };
    assert!(
        matches!(&wiped, StartError::Enroll(error) if *error == lost),
        "{wiped}"
    );
    pay(&two, 22).await;

    let (status, refused) = order(&two, "add", 4, true).await;
    assert_eq!(status, 409, "not by force either: {refused}");
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("start it with edge_id = 4")
    );
    let four = region.start(4).await.unwrap();
    stores_known(&four).await;
    pay(&four, 23).await;
    let page = four.status().await;
    assert_eq!(nodes(&page["wal"]["keepers"]), [1, 2, 3].into());
    assert_eq!(nodes(&page["wal"]["learners"]), [4].into());

    let (status, added) = order(&two, "add", 4, false).await;
    assert_eq!(status, 200, "{added}");
    assert_eq!(nodes(&added["keepers"]), [1, 2, 3, 4].into());
    let (status, refused) = order(&four, "remove", 4, true).await;
    assert_eq!(status, 409, "{refused}");
    let (status, removed) = order(&four, "remove", 3, false).await;
    assert_eq!(status, 200, "{removed}");
    assert_eq!(
        removed,
        json!({
            "change": "remove", "node": 3, "changed": true, "forced": false,
            "keepers": [1, 2, 4], "tolerates": 1,
        })
    );
    // Ordered again, nothing changes; it is audited again.
    let (status, again) = order(&one, "remove", 3, false).await;
    assert_eq!((status, &again["changed"]), (200, &json!(false)), "{again}");
    let (status, refused) = order(&one, "remove", 9, false).await;
    assert_eq!(status, 409, "it never was one: {refused}");

    // The newcomer's vote counts: without edge 2 the two others are a majority.
    assert_eq!(two.stop().await, Stopped::Clean);
    until("ready", async || {
        one.desk().can_serve().is_ok() && four.desk().can_serve().is_ok()
    })
    .await;
    pay(&one, 24).await;
    pay(&four, 25).await;
    let audited = [
        "keeper.add 4 by ada: its disk is lost",
        "keeper.remove 3 by ada: its disk is lost",
        "keeper.remove 3 by ada: its disk is lost",
    ];
    until("audited", async || region.audited().await == audited).await;
    let rows = region.ledger.authorizations(None, 100).await.unwrap();
    assert_eq!(rows.len(), 6, "each payment once, whoever was asked");
    assert_eq!(four.stop().await, Stopped::Clean);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_members_change_by_force_only_and_without_a_leader_nobody_is_ready() {
    let region = Region::new();
    let [one, two, three] = Box::pin(region.founded()).await;
    region.away.store(true, Ordering::SeqCst);
    let mut dollars = 1;
    while one.status().await["breaker"]["position"]["state"] != "open" {
        // Whether it is approved does not matter here.
        post(&one, &SEED.replace("300", &dollars.to_string())).await;
        dollars += 1;
        assert!(dollars < 1_000, "the breaker never opened");
    }
    let (status, refused) = order(&one, "remove", 3, false).await;
    assert_eq!(status, 409, "{refused}");
    let why = refused["detail"].as_str().unwrap();
    assert!(
        why.contains("the breaker is open") && why.contains("can be forced"),
        "{why}"
    );
    assert_eq!(
        nodes(&one.status().await["wal"]["keepers"]),
        [1, 2, 3].into()
    );
    assert_eq!(three.stop().await, Stopped::Clean);
    let (status, removed) = order(&one, "remove", 3, true).await;
    assert_eq!(
        (status, &removed["forced"]),
        (200, &json!(true)),
        "{removed}"
    );
    assert_eq!(nodes(&removed["keepers"]), [1, 2].into());
    region.away.store(false, Ordering::SeqCst);
    let audited = ["keeper.remove 3 (forced) by ada: its disk is lost"];
    until("audited", async || region.audited().await == audited).await;

    until("ready", async || one.desk().can_serve().is_ok()).await;
    two.stop().await;
    until("not ready", async || {
        let (status, body) = admin(&one, "GET", "/readyz", "").await;
        status == 503 && body.contains("the write-ahead log has no leader")
    })
    .await;
    let (_, metrics) = admin(&one, "GET", "/metrics", "").await;
    assert!(
        metrics.contains("standin_wal_led{by=\"group\"} 0"),
        "{metrics}"
    );
    // Not even by force, and said at once: what is left could not commit it.
    let (status, _) = order(&one, "remove", 1, true).await;
    assert_eq!(status, 409);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_shows_the_group_and_what_the_region_risks() {
    let region = Region::new();
    let edges = Box::pin(region.founded()).await;
    for edge in &edges {
        until("granted", async || {
            let page = edge.status().await;
            page["exposure"]["reserves"].as_array().unwrap().len() == 3
                && page["advices"]["granted"] != Value::Null
        })
        .await;
    }
    let policy = Policy::example();
    let (stand_in, reserve) = (policy.stand_in.bank_outage.amount, policy.isolated.reserve);
    assert!(stand_in > 0 && reserve.amount > 0);
    let mut leaders = BTreeSet::new();
    for (edge, number) in edges.iter().zip(1_u64..) {
        let page = edge.status().await;
        let parts = json!({
            "stand_in_minor": stand_in,
            "old_trips_minor": reserve.amount,
            "reserves_minor": 3 * reserve.amount,
        });
        let exposure = &page["exposure"];
        assert_eq!(exposure["parts"], parts);
        assert_eq!(exposure["worst_case_minor"], stand_in + 4 * reserve.amount);
        assert_eq!(exposure["currency"], "USD");
        let advices = json!({
            "waiting": 0, "granted": reserve, "spent": { "amount": 0, "count": 0 },
        });
        assert_eq!(page["advices"], advices);
        assert_eq!(page["conflicts"], json!([]));
        assert_eq!(page["late"], json!({ "marked": 0, "released": 0 }));

        leaders.insert(page["wal"]["leader"].as_u64().unwrap());
        let members = page["wal"]["members"].as_array().unwrap();
        assert_eq!(members.len(), 3);
        for (member, node) in members.iter().zip(1_u64..) {
            assert_eq!(member["node"], node);
            assert_eq!(member["role"], "keeper");
            assert_eq!(member["address"], link(node));
            assert_eq!(member["is_this"], node == number);
        }
        let leads = page["wal"]["leader"] == number;
        let lags = members.iter().filter(|member| member["lag"].is_u64());
        assert_eq!(
            lags.count(),
            if leads { 3 } else { 0 },
            "who leads knows: {page}"
        );
        // Who leads speaks with both others.
        let links = members
            .iter()
            .filter(|member| member["link"]["connected"] == true);
        assert!(!leads || links.count() == 2, "{page}");
        let (_, metrics) = admin(edge, "GET", "/metrics", "").await;
        for line in [
            "standin_wal_members{role=\"keeper\"} 3\n".to_owned(),
            "standin_wal_led{by=\"group\"} 1\n".to_owned(),
            format!("standin_wal_led{{by=\"this_edge\"}} {}\n", u8::from(leads)),
            "standin_advices_waiting 0\n".to_owned(),
            format!(
                "standin_exposure_minor_units{{currency=\"USD\",kind=\"worst_case\"}} {}\n",
                stand_in + 4 * reserve.amount
            ),
        ] {
            assert!(metrics.contains(&line), "{line} in {metrics}");
        }
    }
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_finds_its_disk_damaged_goes() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    // Enough that the first segment is closed: only those are read again.
    for n in 0..30 {
        let action = OperatorAction {
            id: Uuid::from_u128(n),
            operator: "ada".into(),
            reason: "x".repeat(200_000),
            at: Timestamp::from_millis(0),
            what: OperatorOrder::StandIn(StandInMode::Auto),
        };
        let soon = crate::log::soon(Duration::from_secs(30));
        let taken = edge.log().propose(&Entry::Operator(action), soon).await;
        taken.unwrap();
    }
    const ORDER: &str = r#"{"operator":"ada","reason":"monthly"}"#;
    let scrub = async || {
        let (status, report) = admin(&edge, "POST", "/wal/scrub", ORDER).await;
        assert_eq!(status, 200, "{report}");
        serde_json::from_str::<Value>(&report).unwrap()
    };
    let whole = scrub().await;
    assert!(whole["segments"].as_u64() >= Some(1), "{whole}");
    assert_eq!(whole["damage"], json!([]));
    assert!(!edge.log().is_poisoned());

    let report = standin_wal::inspect::examine(dir.path()).unwrap();
    let file = &report.segments[0].file;
    let segment = dir.path().join(file);
    let segment = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&segment, b"rot", 100_000).unwrap();
    let damaged = scrub().await;
    assert_eq!(damaged["damage"][0]["file"], *file);
    edge.poisoned().await;
    let (status, ready) = admin(&edge, "GET", "/readyz", "").await;
    assert_eq!(status, 503, "{ready}");
    assert_eq!(admin(&edge, "GET", "/livez", "").await.0, 503);
    assert_eq!(edge.stop().await, Stopped::Poisoned);
    let again = Edge::start(config(dir.path()), Hooks::default()).await;
    assert!(
        matches!(again.map(drop), Err(StartError::Log(_))),
        "nothing is cut"
    );
}
