//! Links are cut, one way or both: each edge on a host of its own, packets dropped in silence.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use standin_core::answer::Rung;
use standin_core::clock::{Clock, SystemClock};
use standin_drill::network::{End, Service};
use standin_edge::issue::{Authority, Whose};
use standin_reconcile::history::Outcome;
use standin_tests::harness::bank::Load;
use standin_tests::harness::group::{end, issue};
use standin_tests::harness::{Banks, Group, GroupOptions, Stage, verdict};

use super::keepers::{on_rung, settle};
use super::{PROGRAMS, SOON};

const SHOPPERS: u64 = 20;
const WORKERS: usize = 6;

/// Which way packets are lost, seen from the end that is cut off.
const WAYS: [(&str, bool, bool); 3] = [
    ("out of", true, false),
    ("into", false, true),
    ("out of and into", true, true),
];

struct Scene {
    stage: Stage,
    group: Group,
    banks: Banks,
    load: Load,
}

// === impl Scene ===

impl Scene {
    async fn set(name: &str, budgets_ms: [u64; 4]) -> Self {
        let stage = Stage::set().await;
        let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
        let mut options = GroupOptions::on(&stage);
        options.hosts = true;
        options.edge.budgets_ms = budgets_ms;
        let group = Group::start(PROGRAMS, &stage, options).await;
        let banks = group.banks(WORKERS);
        let load = banks.load(name, WORKERS, &shoppers);
        load.progress(30, SOON).await;
        Self {
            stage,
            group,
            banks,
            load,
        }
    }

    fn dropped(&self) -> u64 {
        let hosts = self.group.edges.iter();
        hosts
            .map(|edge| {
                let host = u8::try_from(edge.id()).unwrap();
                self.group.network().dropped(host).unwrap()
            })
            .sum()
    }

    /// Cuts, lets `meanwhile` more answers come, heals, and waits until all edges agree again.
    async fn cut(&self, this: End, others: &[End], way: (&str, bool, bool), meanwhile: u64) {
        let (word, out, into) = way;
        let before = self.dropped();
        self.group.cut(this, others, out, into);
        let attempts = self.stage.history.attempts().len();
        self.load.progress(meanwhile, SOON).await;
        let asked = self.stage.history.attempts().len() - attempts;
        self.group.heal(this, others, out, into);
        let dropped = self.dropped() - before;
        println!(
            "injected: packets {word} {this:?} from or to {others:?}: {dropped} dropped, {asked} requests meanwhile"
        );
        assert!(dropped > 0, "the cut dropped nothing");
        self.load.progress(20, SOON).await;
    }

    async fn finish(mut self) -> verdict::End {
        settle(&self.banks, self.load).await;
        verdict::end_of_group(&self.stage, &mut self.group).await
    }
}

/// Long enough for an election and a retry at another edge, short for a bank.
const BUDGETS_MS: [u64; 4] = [3_000, 300, 500, 2_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_keeper_or_the_leader_cut_off_from_the_others_one_way_or_both() {
    let scene = Scene::set("p4", BUDGETS_MS).await;
    // Without Postgres the log alone can commit: whoever is cut off may say nothing.
    scene.stage.postgres.kill().await.unwrap();
    for way in WAYS {
        let leader = scene.group.led(SOON).await;
        let others = scene.group.others(leader);
        scene.cut(end(leader), &others, way, 80).await;
        let leader = scene.group.led(SOON).await;
        let follower = leader % 3 + 1;
        let others = scene.group.others(follower);
        scene.cut(end(follower), &others, way, 80).await;
    }
    scene.stage.postgres.restart().await.unwrap();
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_link_between_two_keepers_that_carries_one_way_only() {
    let scene = Scene::set("p4l", BUDGETS_MS).await;
    // Without Postgres the log alone can commit: whoever is cut off may say nothing.
    scene.stage.postgres.kill().await.unwrap();
    for way in WAYS {
        let leader = scene.group.led(SOON).await;
        scene
            .cut(end(leader), &[end(leader % 3 + 1)], way, 80)
            .await;
        let leader = scene.group.led(SOON).await;
        let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        // Two followers have little to say to each other: one of them asks for votes soon.
        scene.group.cut(end(one), &[end(leader)], false, true);
        scene.cut(end(one), &[end(other)], way, 80).await;
        scene.group.heal(end(one), &[end(leader)], false, true);
    }
    scene.stage.postgres.restart().await.unwrap();
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_one_edge_or_all_cut_off_from_postgres_or_redis() {
    let scene = Scene::set("p1", BUDGETS_MS).await;
    let postgres = [End::Service(Service::Postgres)];
    let redis = [End::Service(Service::Redis)];
    for way in WAYS {
        let leader = scene.group.led(SOON).await;
        let before = scene.stage.history.attempts().len();
        scene.cut(end(leader), &postgres, way, 80).await;
        let attempts = scene.stage.history.attempts();
        assert!(
            on_rung(&attempts[before..], Rung::StandIn) > 0,
            "nobody stood in"
        );
        scene.cut(end(leader % 3 + 1), &redis, way, 100).await;
    }
    let before = scene.stage.history.attempts().len();
    for edge in &scene.group.edges {
        scene.group.cut(end(edge.id()), &postgres, true, true);
    }
    scene.load.progress(200, SOON).await;
    assert!(scene.dropped() > 0);
    for edge in &scene.group.edges {
        scene.group.heal(end(edge.id()), &postgres, true, true);
    }
    let attempts = scene.stage.history.attempts();
    let stood_in = on_rung(&attempts[before..], Rung::StandIn);
    println!("injected: all three cut off from Postgres: {stood_in} answers on stand_in");
    assert!(stood_in >= 100, "{stood_in}");
    for edge in &scene.group.edges {
        edge.on_rung("primary", SOON * 2).await;
    }
    scene.load.progress(50, SOON).await;
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_keepers_that_all_lose_each_other_approve_through_postgres_only() {
    let scene = Scene::set("p2n", [2_500, 300, 500, 1_200]).await;
    let leader = scene.group.led(SOON).await;
    let follower = leader % 3 + 1;
    scene
        .group
        .cut(end(leader), &scene.group.others(leader), true, true);
    let third = 6 - leader - follower;
    scene.group.cut(end(follower), &[end(third)], true, true);
    let cut_at = SystemClock.now().as_millis();
    scene.load.progress(30, SOON * 2).await;
    let mut during = scene.stage.history.attempts();
    // What was committed before the cut, and whose reply the cut took, is told again on its own rung.
    let is_again = |outcome: &Outcome| matches!(outcome, Outcome::Answered { replayed: true, .. });
    during.retain(|attempt| attempt.sent_at > cut_at && !is_again(&attempt.outcome));
    let during = during.as_slice();
    let (stood_in, by_postgres) = (
        on_rung(during, Rung::StandIn),
        on_rung(during, Rung::PrimaryOnly),
    );
    println!(
        "injected: no two keepers hear each other: {} requests, {stood_in} on stand_in, {by_postgres} on primary_only",
        during.len()
    );
    assert!(scene.dropped() > 0);
    assert_eq!((stood_in, on_rung(during, Rung::Primary)), (0, 0));
    assert!(by_postgres > 0);
    scene
        .group
        .heal(end(leader), &scene.group.others(leader), true, true);
    scene.group.heal(end(follower), &[end(third)], true, true);
    scene.group.led(SOON).await;
    scene.load.progress(50, SOON).await;
    scene.finish().await;
}

/// Says something to a link as `openssl` would.
fn forge(link: SocketAddr, certificate: Option<[PathBuf; 3]>) {
    let mut command = Command::new("timeout");
    command.args(["5", "openssl", "s_client", "-quiet", "-connect"]);
    command.arg(link.to_string());
    if let Some([ca, certificate, key]) = certificate {
        command.arg("-CAfile").arg(ca);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_forged_peer_is_turned_away_and_changes_nothing() {
    let scene = Scene::set("p6", BUDGETS_MS).await;
    let folder = scene.stage.folder();
    let stranger = Authority::new(Whose::Keepers, 2, SystemClock.now()).unwrap();
    let turned_away = |page: serde_json::Value| page["links"]["turned_away"].as_u64().unwrap();
    for (edge, link) in scene.group.edges.iter().zip(&scene.group.links) {
        let mut before = turned_away(edge.status().await);
        let other_authority = issue(&stranger, folder, "test", 1 + edge.id() % 3);
        let attempts = [
            ("without a certificate", None),
            (
                "with another authority's certificate",
                Some(other_authority),
            ),
        ];
        for (what, certificate) in attempts {
            forge(*link, certificate);
            let more = |page: &serde_json::Value| {
                page["links"]["turned_away"]
                    .as_u64()
                    .filter(|now| *now > before)
            };
            before = edge.status_until("turned away", SOON, more).await;
            let why = edge.status().await["links"]["last_turned_away"].clone();
            println!(
                "injected: a peer {what} at edge {}: turned away, {why}",
                edge.id()
            );
        }
        let mut socket = std::net::TcpStream::connect(link).unwrap();
        let bytes = [0x16_u8, 3, 1, 255, 255, 1, 2, 3, 4, 5, 6, 7];
        socket.write_all(&bytes.repeat(100)).unwrap();
        drop(socket);
        let more = |page: &serde_json::Value| {
            page["links"]["turned_away"]
                .as_u64()
                .filter(|now| *now > before)
        };
        edge.status_until("turned away", SOON, more).await;
        println!(
            "injected: {} bytes of noise at edge {}",
            bytes.len() * 100,
            edge.id()
        );
    }
    scene.load.progress(100, SOON).await;
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn z1_the_primary_dies_the_leader_is_cut_off_and_the_drainer_dies_while_it_drains() {
    let mut scene = Scene::set("z1", BUDGETS_MS).await;
    scene.stage.postgres.kill().await.unwrap();
    scene.load.progress(150, SOON * 2).await;
    let leader = scene.group.led(SOON).await;
    let others = scene.group.others(leader);
    scene.cut(end(leader), &others, WAYS[2], 80).await;
    scene.load.progress(300, SOON * 2).await;
    scene.stage.postgres.restart().await.unwrap();
    let mut drainers = 0;
    for _ in 0..3 {
        let leader = scene.group.led(SOON).await;
        let page = scene.group.edge(leader).status().await;
        let backlog = page["drain"]["backlog"].as_u64().unwrap_or(0);
        scene.group.edge(leader).kill().await;
        println!("injected: the drainer, edge {leader}, died with {backlog} entries to drain");
        drainers += u64::from(backlog > 0);
        scene.group.led_by(SOON, |id| id != leader).await;
        scene.load.progress(20, SOON).await;
        scene.group.edge(leader).restart().await;
    }
    assert!(drainers > 0, "no drainer had anything to drain");
    scene.finish().await;
}
