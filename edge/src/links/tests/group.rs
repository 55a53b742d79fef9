//! A group of three over links with TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use standin_wal::{
    Applied, Config, Group, GroupConfig, LoadError, Replicable, StateMachine, SystemTimeSource,
};
use tokio::time::Instant;

use super::*;

/// Counts how often it was given each word.
#[derive(Default)]
struct Words(BTreeMap<String, u64>);

impl StateMachine for Words {
    type Outcome = u64;
    fn apply(&mut self, _: Applied, proposal: &[u8]) -> u64 {
        let word = String::from_utf8_lossy(proposal).into_owned();
        let count = self.0.entry(word).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

impl Replicable for Words {
    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap()
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.0 = serde_json::from_slice(bytes).map_err(|error| LoadError(error.to_string()))?;
        Ok(())
    }
    fn outcome_to_bytes(outcome: &u64) -> Vec<u8> {
        outcome.to_le_bytes().to_vec()
    }
    fn outcome_from_bytes(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl Handler for Group<Words> {
    fn handle(&self, _: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(Group::handle(self, request))
    }
    fn may_call(&self, node: NodeId) -> bool {
        node.0 < 10
    }
}

struct Keeper {
    group: Arc<Group<Words>>,
    links: Arc<Links>,
}

impl Keeper {
    async fn open(node: u64, files: &Files, listen: Option<SocketAddr>) -> Self {
        let mut config = secured(node, files);
        config.listen = listen.or(config.listen);
        let links = Links::start(config, Arc::new(SystemClock), alarms()).await;
        let links = links.unwrap();
        let log = Config {
            segment_bytes: 1 << 20,
            budget_bytes: 16 << 20,
            batch_bytes_max: 64 << 10,
            ..Config::new(
                files.0.path().join(format!("log-{node}")),
                NodeId(node),
                "group",
            )
        };
        let config = GroupConfig::new(log, Uuid::from_u128(7));
        let time = Box::new(SystemTimeSource::new());
        let group = Group::open(config, time, Words::default(), links.clone()).await;
        let group = Arc::new(group.unwrap());
        links.serve(group.clone()).unwrap();
        Self { group, links }
    }

    async fn propose(&self, word: &'static str) -> u64 {
        let deadline = Instant::now().checked_add(LONG).unwrap();
        let committed = self.group.propose(Bytes::from(word), deadline).await;
        let committed = committed.unwrap();
        self.group
            .wait_for(committed.applied().index)
            .await
            .unwrap();
        self.group
            .read(|words| words.0.get(word).copied().unwrap_or(0))
    }

    async fn stop(self) {
        self.links.stop().await;
        self.group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_commits_through_the_death_and_return_of_its_leader() {
    let files = Files::new(&authority());
    let mut keepers = BTreeMap::new();
    for node in 1..=3 {
        keepers.insert(node, Keeper::open(node, &files, None).await);
    }
    let members = |(&node, keeper): (&u64, &Keeper)| {
        let address = keeper.links.address().unwrap();
        (NodeId(node), member(address))
    };
    let members: BTreeMap<_, _> = keepers.iter().map(members).collect();
    keepers[&1].group.found(members).await.unwrap();
    for keeper in keepers.values() {
        assert!(keeper.propose("before").await >= 1);
    }
    let leader = keepers[&1].group.status().leader.unwrap();
    let killed = keepers.remove(&leader).unwrap();
    let address = killed.links.address();
    killed.stop().await;
    for keeper in keepers.values() {
        assert!(keeper.propose("meanwhile").await >= 1);
    }
    let back = Keeper::open(leader, &files, address).await;
    assert!(back.propose("after").await >= 1);
    assert!(back.group.read(|words| words.0["meanwhile"]) >= 2);
    assert!(back.group.read(|words| words.0["before"]) >= 3);
    keepers.insert(leader, back);
    for (_, keeper) in keepers {
        keeper.stop().await;
    }
}
