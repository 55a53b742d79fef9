//! Edges of one log, each with a ledger of its own: what the platform does at one, the other knows.

use tokio::net::TcpListener;

use super::*;

/// An address of this machine that nobody else uses.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn member(dir: &std::path::Path, edge: u64, listen: SocketAddr, keeper: SocketAddr) -> Config {
    let mut config = config(&dir.join(format!("edge-{edge}")));
    config.edge_id = edge;
    config.keepers = Some(crate::config::KeepersConfig {
        listen,
        address: None,
        founders: [(standin_wal::NodeId(1), keeper.to_string())].into(),
        tls: None,
    });
    config
}

async fn trip_shows(edge: &Edge) {
    let shopper: ShopperId = "123".parse().unwrap();
    until("the trip is in the cache", async || {
        let look = edge.cache().look(shopper).await.unwrap();
        look.trip.is_some_and(|seen| seen.trip.picked == 29_900)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_edge_follows_what_another_edges_platform_did() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (free().await, free().await);
    let keeper = Edge::start(member(dir.path(), 1, one, one), Hooks::default());
    let keeper = keeper.await.unwrap();
    let platform = Edge::start(member(dir.path(), 2, two, one), Hooks::default());
    let platform = platform.await.unwrap();
    shop(&platform).await;
    trip_shows(&keeper).await;
    stores_known(&keeper).await;
    let (status, _, body) = post(&keeper, SEED).await;
    assert_eq!(status, 200, "{body}");
    // What was answered at one edge is booked by each, in its own ledger.
    for edge in [&keeper, &platform] {
        until("the answer is booked", async || {
            edge.ledger().authorizations(None, 10).await.unwrap().len() == 1
        })
        .await;
    }
    // What it did itself it meets in the log again, and it stays as it was.
    trip_shows(&platform).await;
    assert_eq!(platform.stop().await, Stopped::Clean);
    assert_eq!(keeper.stop().await, Stopped::Clean);
}
