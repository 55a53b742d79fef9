//! Groups of nodes in one process: real clocks and elections, disks and links in memory.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Change, EnrollError, Group, GroupConfig};
use crate::disk::recording::{Failing, RecordingDisk};
use crate::inspect;
use crate::raft::network::{Transport, TransportError};
use crate::raft::tests::Notes;
use crate::raft::{LoadError, Member, Replicable};
use crate::tests::lab::{config, random};
use crate::time::SystemTimeSource;
use crate::wal::{Applied, Config, NodeId, ProposeError, StateMachine, Why};

/// Long enough for a few elections on a busy machine.
const SOON: Duration = Duration::from_secs(20);

static STARTED: AtomicU64 = AtomicU64::new(1);

/// Nodes that reach each other, unless a way is cut.
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<u64, Arc<Group<Notes>>>>,
    cuts: Mutex<BTreeSet<(u64, u64)>>,
}

/// One node's way to the others.
struct Way(Arc<Net>, u64);

impl Net {
    fn cut(&self, from: u64, to: u64) {
        self.cuts.lock().unwrap().insert((from, to));
    }

    fn isolate(&self, node: u64, others: &[u64]) {
        for other in others {
            self.cut(node, *other);
            self.cut(*other, node);
        }
    }

    fn heal(&self) {
        self.cuts.lock().unwrap().clear();
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.lock().unwrap().contains(&(from, to))
    }
}

impl Transport for Way {
    fn call(
        &self,
        to: NodeId,
        _member: &Member,
        request: Bytes,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>> {
        Box::pin(async move {
            let Self(net, from) = self;
            let node = net.nodes.lock().unwrap().get(&to.0).cloned();
            let Some(node) = node else {
                return Err(TransportError::Unreachable("nobody is there".to_owned()));
            };
            let silence = || async {
                tokio::time::sleep(patience).await;
                Err(TransportError::NoReply("silence".to_owned()))
            };
            if net.is_cut(*from, to.0) {
                return silence().await;
            }
            let reply = tokio::time::timeout(patience, node.handle(request)).await;
            if net.is_cut(to.0, *from) {
                return silence().await;
            }
            reply.map_err(|_| TransportError::NoReply("too slow".to_owned()))
        })
    }
}

fn member() -> Member {
    Member {
        address: "memory".to_owned(),
        log: Uuid::nil(),
    }
}

async fn start(net: &Arc<Net>, node: u64, disk: &RecordingDisk) -> Arc<Group<Notes>> {
    start_with(net, node, disk, false).await
}

async fn start_with(
    net: &Arc<Net>,
    node: u64,
    disk: &RecordingDisk,
    enrolls: bool,
) -> Arc<Group<Notes>> {
    start_as(net, node, disk, enrolls, config()).await
}

async fn start_as(
    net: &Arc<Net>,
    node: u64,
    disk: &RecordingDisk,
    enrolls: bool,
    log: Config,
) -> Arc<Group<Notes>> {
    let log = Config {
        node: NodeId(node),
        ..log
    };
    let config = GroupConfig {
        enrolls,
        ..GroupConfig::new(log, Uuid::from_u128(7))
    };
    // No two logs are made with the same bits.
    let bits = random(STARTED.fetch_add(1, Ordering::Relaxed));
    let group = Group::open_on(
        Arc::new(disk.clone()),
        config,
        Box::new(SystemTimeSource::new()),
        Notes::default(),
        Arc::new(Way(Arc::clone(net), node)),
        bits,
    );
    let group = Arc::new(group.await.unwrap());
    net.nodes.lock().unwrap().insert(node, Arc::clone(&group));
    group
}

/// A founded group of keepers, by node, and their disks.
async fn keepers(count: u64) -> (Arc<Net>, Vec<Arc<Group<Notes>>>, Vec<RecordingDisk>) {
    let net = Arc::new(Net::default());
    let (mut groups, mut disks) = (Vec::new(), Vec::new());
    for node in 1..=count {
        let disk = RecordingDisk::default();
        groups.push(start(&net, node, &disk).await);
        disks.push(disk);
    }
    let all: BTreeMap<_, _> = (1..=count).map(|node| (NodeId(node), member())).collect();
    groups[0].found(all).await.unwrap();
    (net, groups, disks)
}

async fn leader(groups: &[Arc<Group<Notes>>]) -> u64 {
    let until = Instant::now() + SOON;
    loop {
        let leaders: BTreeSet<_> = groups
            .iter()
            .filter_map(|group| {
                let status = group.status();
                (status.leader == Some(status.node)).then_some(status.node)
            })
            .collect();
        if let (1, Some(leader)) = (leaders.len(), leaders.first()) {
            return *leader;
        }
        assert!(Instant::now() < until, "no leader, or several: {leaders:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn propose(group: &Group<Notes>, text: &str) -> Result<u64, ProposeError> {
    let proposal = Bytes::from(text.to_owned());
    let committed = group.propose(proposal, Instant::now() + SOON).await?;
    Ok(committed.applied().index)
}

fn notes(group: &Group<Notes>) -> Vec<String> {
    let text = |note: &Vec<u8>| String::from_utf8(note.clone()).unwrap();
    group.read(|notes| notes.0.iter().map(text).collect())
}

/// Waits until every node has applied as far as the one that is furthest.
async fn settle(groups: &[Arc<Group<Notes>>]) {
    let furthest = groups.iter().map(|group| group.status().applied_index);
    let furthest = furthest.max().unwrap();
    for group in groups {
        let waited = tokio::time::timeout(SOON, group.wait_for(furthest)).await;
        waited
            .unwrap_or_else(|_| panic!("{group:?} stays behind {furthest}: {:?}", group.status()))
            .unwrap();
    }
}

async fn stop(groups: &[Arc<Group<Notes>>]) {
    for group in groups {
        group.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_at_any_node_is_applied_at_all_in_one_order() {
    let (_net, groups, _disks) = keepers(3).await;
    let mut proposing = Vec::new();
    for number in 0..60 {
        let group = Arc::clone(&groups[number % 3]);
        proposing.push(tokio::spawn(async move {
            propose(&group, &format!("note {number}")).await.unwrap()
        }));
    }
    for proposed in proposing {
        proposed.await.unwrap();
    }
    settle(&groups).await;
    let first = notes(&groups[0]);
    let all: BTreeSet<_> = first.iter().cloned().collect();
    assert_eq!((first.len(), all.len()), (60, 60), "none lost, none twice");
    for group in &groups {
        assert_eq!(notes(group), first);
        assert_eq!(group.status().keepers, BTreeSet::from([1, 2, 3]));
    }
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_leader_loses_nothing_and_it_comes_back_with_its_disk() {
    let (net, groups, disks) = keepers(3).await;
    for number in 0..10 {
        propose(&groups[number % 3], &format!("before {number}"))
            .await
            .unwrap();
    }
    let dead = leader(&groups).await;
    let place = usize::try_from(dead).unwrap() - 1;
    net.nodes.lock().unwrap().remove(&dead);
    net.isolate(dead, &[1, 2, 3]);
    let alive: Vec<_> = groups
        .iter()
        .filter(|group| group.status().node != dead)
        .cloned()
        .collect();
    for number in 0..10 {
        propose(&alive[number % 2], &format!("after {number}"))
            .await
            .unwrap();
    }
    // What it had not been told is lost with it, what is on its disk is not.
    groups[place].stop().await;
    net.heal();
    let again = start(&net, dead, &disks[place]).await;
    let now: Vec<_> = alive.iter().cloned().chain([Arc::clone(&again)]).collect();
    propose(&again, "from the one that was dead").await.unwrap();
    settle(&now).await;
    let kept: BTreeSet<_> = notes(&again).into_iter().collect();
    for number in 0..10 {
        assert!(kept.contains(&format!("before {number}")));
        assert!(kept.contains(&format!("after {number}")));
    }
    for group in &now {
        assert_eq!(notes(group), notes(&again));
        let batches = group.read_batches(0, usize::MAX).await.unwrap();
        assert!(batches.len() > 20 && batches.is_sorted_by_key(|batch| batch.log_time_ms));
        // Read in two parts it is the same.
        let half = batches[batches.len() / 2].index;
        let rest = group.read_batches(half, usize::MAX).await.unwrap();
        assert!(batches.ends_with(&rest));
    }
    stop(&now).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_commits_nothing() {
    let (net, groups, _disks) = keepers(3).await;
    propose(&groups[0], "first").await.unwrap();
    let cut_off = leader(&groups).await;
    let place = usize::try_from(cut_off).unwrap() - 1;
    let others: Vec<u64> = (1..=3).filter(|node| *node != cut_off).collect();
    net.isolate(cut_off, &others);
    let soon = Instant::now() + Duration::from_millis(400);
    let proposal = Bytes::from_static(b"by the minority");
    let refused = groups[place].propose(proposal, soon).await.unwrap_err();
    assert_eq!(refused, ProposeError::Unknown { why: Why::Deadline });
    assert!(!notes(&groups[place]).contains(&"by the minority".to_owned()));
    // The majority goes on, and what the minority wrote and never committed gives way.
    let other = usize::try_from(others[0]).unwrap() - 1;
    propose(&groups[other], "by the majority").await.unwrap();
    net.heal();
    propose(&groups[place], "after").await.unwrap();
    settle(&groups).await;
    for group in &groups {
        assert_eq!(notes(group), notes(&groups[0]));
        assert!(notes(group).contains(&"by the majority".to_owned()));
    }
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lacks_the_log_gets_a_snapshot_and_may_become_a_keeper() {
    let (net, groups, _disks) = keepers(1).await;
    for number in 0..40 {
        propose(&groups[0], &format!("note {number}"))
            .await
            .unwrap();
    }
    let upto = groups[0].status().applied_index;
    groups[0].compact(upto).await.unwrap();
    assert_eq!(groups[0].status().first_index, upto);
    let disk = RecordingDisk::default();
    let learner = start(&net, 2, &disk).await;
    groups[0].add_learner(NodeId(2), member()).await.unwrap();
    propose(&learner, "from the learner").await.unwrap();
    let both = vec![Arc::clone(&groups[0]), Arc::clone(&learner)];
    settle(&both).await;
    assert_eq!(notes(&learner), notes(&groups[0]));
    assert_eq!(notes(&learner).len(), 41);
    assert_eq!(learner.status().learners, BTreeSet::from([2]));
    groups[0].add_keeper(NodeId(2)).await.unwrap();
    settle(&both).await;
    assert_eq!(learner.status().keepers, BTreeSet::from([1, 2]));
    // The snapshot and the log behind it are what it starts from again.
    let before = notes(&learner);
    learner.stop().await;
    let again = start(&net, 2, &disk).await;
    settle(&[Arc::clone(&groups[0]), Arc::clone(&again)]).await;
    assert_eq!(notes(&again), before);
    stop(&[Arc::clone(&groups[0]), again]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_founded_once() {
    let (_net, groups, _disks) = keepers(1).await;
    propose(&groups[0], "first").await.unwrap();
    let again = groups[0]
        .found(BTreeMap::from([(NodeId(1), member())]))
        .await;
    assert!(
        matches!(again, Err(super::MemberError::Founded)),
        "{again:?}"
    );
    stop(&groups).await;
}

/// Three keepers that may use so many segments.
async fn with_budgets(segments: [u64; 3]) -> (Vec<Arc<Group<Notes>>>, Vec<RecordingDisk>) {
    let net = Arc::new(Net::default());
    let (mut groups, mut disks) = (Vec::new(), Vec::new());
    for (node, segments) in (1..=3).zip(segments) {
        let disk = RecordingDisk::default();
        let log = Config {
            budget_bytes: segments * 64 * 1024,
            ..config()
        };
        groups.push(start_as(&net, node, &disk, false, log).await);
        disks.push(disk);
    }
    let all: BTreeMap<_, _> = (1..=3).map(|node| (NodeId(node), member())).collect();
    groups[0].found(all).await.unwrap();
    (groups, disks)
}

/// Proposes at the first node until one of the nodes has been left behind.
async fn until_left_behind(groups: &[Arc<Group<Notes>>], node: usize) -> usize {
    let until = Instant::now() + SOON;
    for number in 0.. {
        let text = format!("{number:05} {}", "x".repeat(9_000));
        // A leader that is full says so; another one is found by asking again.
        let soon = Instant::now() + Duration::from_secs(1);
        drop(groups[0].propose(text.into(), soon).await);
        let last = |group: &Arc<Group<Notes>>| group.status().last_index;
        if last(&groups[0]) > last(&groups[node]) + 20 {
            return number;
        }
        assert!(Instant::now() < until, "nobody was left behind");
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_costs_its_vote_and_not_its_life() {
    let (groups, _disks) = with_budgets([64, 64, 4]).await;
    until_left_behind(&groups, 2).await;
    let small = &groups[2];
    let status = small.status();
    assert!(!status.poisoned, "{status:?}");
    assert!(status.bytes_used <= status.budget_bytes);
    propose(&groups[1], "the others go on").await.unwrap();
    // What it has applied goes into a snapshot, and then there is room again.
    let upto = small.status().applied_index;
    small.compact(upto).await.unwrap();
    while small.status().last_index < groups[0].status().last_index {
        let upto = small.status().applied_index;
        small.compact(upto).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settle(&groups).await;
    assert_eq!(notes(small), notes(&groups[0]));
    assert!(!small.status().poisoned);
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_too_full_for_a_spare_segment_is_met_before_an_append_and_not_in_it() {
    let (groups, disks) = with_budgets([64; 3]).await;
    propose(&groups[0], "first").await.unwrap();
    settle(&groups).await;
    disks[1].fail(Failing::Create, 0, std::io::ErrorKind::StorageFull);
    until_left_behind(&groups[..2], 1).await;
    let full = groups[1].status();
    assert!(!full.poisoned, "{full:?}");
    disks[1].heal();
    for group in &groups[..2] {
        let upto = group.status().applied_index;
        group.compact(upto).await.unwrap();
    }
    let two = [Arc::clone(&groups[0]), Arc::clone(&groups[1])];
    settle(&two).await;
    assert_eq!(notes(&groups[1]), notes(&groups[0]));
    assert!(!groups[1].status().poisoned);
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_makes_way_for_a_keeper_that_has_room() {
    let (groups, disks) = with_budgets([64; 3]).await;
    propose(&groups[0], "first").await.unwrap();
    settle(&groups).await;
    let leader = groups[0].status().leader.unwrap();
    let full = &groups[usize::try_from(leader - 1).unwrap()];
    let fill_until = async |done: &dyn Fn() -> bool| {
        let until = Instant::now() + SOON;
        for number in 0.. {
            if done() {
                return;
            }
            assert!(Instant::now() < until, "{:?}", full.status());
            let text = format!("{number:05} {}", "x".repeat(9_000));
            let soon = Instant::now() + Duration::from_secs(1);
            drop(full.propose(text.into(), soon).await);
        }
    };
    fill_until(&|| full.status().spares > 0).await;
    let disk = &disks[usize::try_from(leader - 1).unwrap()];
    disk.fail(Failing::Create, 0, std::io::ErrorKind::StorageFull);
    fill_until(&|| full.status().leader != Some(leader)).await;
    // Through the node that is full, too: it carries what it cannot keep.
    propose(full, "the others go on").await.unwrap();
    let status = full.status();
    assert!(!status.poisoned, "{status:?}");
    disk.heal();
    for group in &groups {
        let upto = group.status().applied_index;
        group.compact(upto).await.unwrap();
    }
    settle(&groups).await;
    assert_eq!(notes(&groups[0]), notes(&groups[1]));
    assert_eq!(notes(&groups[0]), notes(&groups[2]));
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_takes_what_makes_room_and_then_more() {
    let (groups, _disks) = with_budgets([8; 3]).await;
    propose(&groups[0], "first").await.unwrap();
    let leader = groups[0].status().leader.unwrap();
    let leader = &groups[usize::try_from(leader - 1).unwrap()];
    let until = Instant::now() + SOON;
    let full = loop {
        assert!(Instant::now() < until, "{:?}", leader.status());
        let soon = Instant::now() + Duration::from_secs(1);
        let text = "x".repeat(9_000);
        if let Err(error) = leader.propose(text.into(), soon).await {
            break error;
        }
    };
    assert_eq!(full, ProposeError::Full);
    let soon = Instant::now() + SOON;
    let told = leader.propose_to_make_room("drained".into(), soon).await;
    told.unwrap();
    settle(&groups).await;
    for group in &groups {
        let upto = group.status().applied_index;
        group.compact(upto).await.unwrap();
    }
    propose(leader, "there is room again").await.unwrap();
    settle(&groups).await;
    assert_eq!(notes(&groups[0]), notes(&groups[1]));
    assert_eq!(notes(&groups[0]), notes(&groups[2]));
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_finds_rot_in_a_closed_segment_and_in_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let log = Config {
        dir: dir.path().to_owned(),
        ..config()
    };
    let way = Arc::new(Way(Arc::new(Net::default()), 7));
    let time = Box::new(SystemTimeSource::new());
    let config = GroupConfig::new(log, Uuid::from_u128(7));
    let group = Group::open(config, time, Notes::default(), way);
    let group = Arc::new(group.await.unwrap());
    let keepers = BTreeMap::from([(NodeId(7), member())]);
    group.found(keepers).await.unwrap();
    for number in 0..12 {
        let text = format!("{number} {}", "x".repeat(9_000));
        propose(&group, &text).await.unwrap();
    }
    group.compact(3).await.unwrap();
    let clean = group.scrub(1 << 30).await.unwrap();
    assert!(clean.damage.is_empty() && clean.segments >= 1, "{clean:?}");
    for (name, byte) in [("segment-0000000001.wal", 30_000), ("snapshot", 200)] {
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[byte] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    }
    let rotten = group.scrub(1 << 30).await.unwrap();
    let files: Vec<_> = rotten.damage.iter().map(|one| one.file.as_str()).collect();
    assert_eq!(files, ["segment-0000000001.wal", "snapshot"]);
    group.damaged().await;
    assert_eq!(group.status().damage.as_ref(), rotten.damage.first());
    let report = inspect::examine(dir.path()).unwrap();
    assert_eq!(report.damage.len(), 2, "{report:?}");
    stop(&[group]).await;
}

/// Becomes bytes only once something was applied meanwhile.
struct Frozen(Notes, Arc<tokio::sync::Semaphore>);

impl StateMachine for Frozen {
    type Outcome = usize;
    fn apply(&mut self, at: Applied, proposal: &[u8]) -> usize {
        self.1.add_permits(1);
        self.0.apply(at, proposal)
    }
}

impl Replicable for Frozen {
    fn save(&self) -> Vec<u8> {
        self.0.save()
    }
    fn freeze(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let (bytes, applied) = (self.0.save(), Arc::clone(&self.1));
        // Only what is applied from now on counts.
        applied.forget_permits(usize::MAX);
        Box::new(move || {
            let runtime = tokio::runtime::Handle::current();
            let waited = runtime.block_on(tokio::time::timeout(SOON, applied.acquire()));
            drop(waited.expect("applying waits for a snapshot").unwrap());
            bytes
        })
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.0.load(bytes)
    }
    fn outcome_to_bytes(outcome: &usize) -> Vec<u8> {
        Notes::outcome_to_bytes(outcome)
    }
    fn outcome_from_bytes(bytes: &[u8]) -> Option<usize> {
        Notes::outcome_from_bytes(bytes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_goes_on_while_a_frozen_state_becomes_bytes() {
    let net = Arc::new(Net::default());
    let machine = Frozen(Notes::default(), Arc::new(tokio::sync::Semaphore::new(0)));
    let group = Group::open_on(
        Arc::new(RecordingDisk::default()),
        GroupConfig::new(config(), Uuid::from_u128(7)),
        Box::new(SystemTimeSource::new()),
        machine,
        Arc::new(Way(net, 7)),
        random(7),
    );
    let group = Arc::new(group.await.unwrap());
    let keepers = BTreeMap::from([(NodeId(7), member())]);
    group.found(keepers).await.unwrap();
    let propose = async |text: &'static str| {
        let proposal = Bytes::from_static(text.as_bytes());
        group
            .propose(proposal, Instant::now() + SOON)
            .await
            .unwrap()
    };
    let first = propose("first").await.applied().index;
    let compacting = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.compact(first).await }
    });
    // The snapshot waits for one of these, and these for nothing.
    while !compacting.is_finished() {
        propose("more").await;
    }
    compacting.await.unwrap().unwrap();
    assert_eq!(group.status().first_index, first);
    group.stop().await;
}

/// A node that comes by itself, and what came of it.
async fn enroll(
    net: &Arc<Net>,
    node: u64,
    disk: &RecordingDisk,
) -> (Arc<Group<Notes>>, Result<(), EnrollError>) {
    let group = start_with(net, node, disk, true).await;
    let founders: BTreeMap<_, _> = (1..=3)
        .map(|node| (NodeId(node), "memory".into()))
        .collect();
    let enrolled = group
        .enroll(&founders, "memory", Instant::now() + SOON)
        .await;
    (group, enrolled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_find_each_other_and_whoever_comes_later_learns() {
    let net = Arc::new(Net::default());
    let disks: Vec<_> = (0..4).map(|_| RecordingDisk::default()).collect();
    let (one, two) = tokio::join!(enroll(&net, 1, &disks[0]), async {
        // The first of them waits for the last.
        while net.nodes.lock().unwrap().get(&1).is_none() {
            tokio::task::yield_now().await;
        }
        tokio::join!(enroll(&net, 2, &disks[1]), enroll(&net, 3, &disks[2]))
    });
    let (two, three) = two;
    let mut groups = Vec::new();
    for (group, enrolled) in [one, two, three] {
        enrolled.unwrap();
        groups.push(group);
    }
    propose(&groups[2], "first").await.unwrap();
    let (four, enrolled) = enroll(&net, 4, &disks[3]).await;
    enrolled.unwrap();
    groups.push(four);
    propose(&groups[3], "from the newcomer").await.unwrap();
    settle(&groups).await;
    for group in &groups {
        assert_eq!(notes(group), ["first", "from the newcomer"]);
        assert_eq!(group.status().keepers, BTreeSet::from([1, 2, 3]));
        assert_eq!(group.status().learners, BTreeSet::from([4]));
    }
    // It may get a vote, whoever is asked; and it leaves again.
    let soon = || Instant::now() + SOON;
    groups[3]
        .change(Change::AddKeeper { node: 4 }, soon())
        .await
        .unwrap();
    groups[0]
        .change(Change::Remove { node: 4 }, soon())
        .await
        .unwrap();
    propose(&groups[0], "by three").await.unwrap();
    settle(&groups[..3]).await;
    assert_eq!(groups[0].members().len(), 3);
    stop(&groups).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_lost_its_disk_may_not_come_back_under_its_number() {
    let net = Arc::new(Net::default());
    let mut disks: Vec<_> = (0..4).map(|_| RecordingDisk::default()).collect();
    let (one, two, three) = tokio::join!(
        enroll(&net, 1, &disks[0]),
        enroll(&net, 2, &disks[1]),
        enroll(&net, 3, &disks[2])
    );
    let groups: Vec<_> = [one, two, three]
        .into_iter()
        .map(|(group, enrolled)| {
            enrolled.unwrap();
            group
        })
        .collect();
    propose(&groups[0], "kept").await.unwrap();
    groups[2].stop().await;
    disks[2] = RecordingDisk::default();
    let (wiped, enrolled) = enroll(&net, 3, &disks[2]).await;
    assert_eq!(enrolled, Err(EnrollError::Lost { node: 3 }));
    wiped.stop().await;
    net.nodes.lock().unwrap().remove(&3);
    // Under a number that was never used it is built anew from the others, and gets the vote.
    let (four, enrolled) = enroll(&net, 4, &disks[3]).await;
    enrolled.unwrap();
    let soon = || Instant::now() + SOON;
    for change in [Change::AddKeeper { node: 4 }, Change::Remove { node: 3 }] {
        groups[0].change(change, soon()).await.unwrap();
    }
    let now = [Arc::clone(&groups[0]), Arc::clone(&groups[1]), four];
    propose(&now[2], "by the new three").await.unwrap();
    settle(&now).await;
    for group in &now {
        assert_eq!(notes(group), ["kept", "by the new three"]);
        assert_eq!(group.status().keepers, BTreeSet::from([1, 2, 4]));
    }
    // An older copy of its disk has forgotten what it had told: it may not come back either.
    let older = RecordingDisk::with(disks[1].files());
    for number in 0..20 {
        propose(&now[2], &format!("since {number}")).await.unwrap();
    }
    settle(&now).await;
    // With its disk a keeper takes its place again.
    now[1].stop().await;
    let (forgot, enrolled) = enroll(&net, 2, &older).await;
    let refused = enrolled.unwrap_err();
    assert!(
        matches!(refused, EnrollError::Older { node: 2, .. }),
        "{refused:?}"
    );
    forgot.stop().await;
    let (again, enrolled) = enroll(&net, 2, &disks[1]).await;
    enrolled.unwrap();
    settle(&[Arc::clone(&now[0]), Arc::clone(&again)]).await;
    stop(&[Arc::clone(&now[0]), again, Arc::clone(&now[2])]).await;
}
