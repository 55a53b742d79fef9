//! Two regions behind one address: a router and two regions in namespaces, BIRD on each, an edge and
//! an announcer in each region, and a bank that asks on a new connection each time.
//!
//! The two keep logs of their own. What makes a bank's retry at the other one harmless is the ledger
//! that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use standin_cli::client::{Call, CallError, Pool};
use standin_core::ledger::AuthorizationState;
use standin_drill::bird::Bird;
use standin_drill::network::{End, Network, Service};
use standin_drill::process::{Process, free_port};
use standin_drill::proxy::Proxy;
use standin_reconcile::history::{Attempt, Outcome, Said};
use standin_reconcile::reconcile::all_rows;
use standin_tests::harness::bank::{Bank, History, Payment};
use standin_tests::harness::group::lay_network;
use standin_tests::harness::wait::until;
use standin_tests::harness::{Edge, EdgeOptions, Stage};
use standin_topology::announce::{Health, Why};
use standin_topology::derived::bird_config;
use standin_topology::read::Read;
use standin_topology::region::Topology;
use standin_topology::watch::Report;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{PROGRAMS, SOON};

/// The promises that the announcement makes.
const SILENT_LINK_MAX: Duration = Duration::from_millis(500);
const HUNG_EDGE_MAX: Duration = Duration::from_secs(2);
/// How long a bank waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(3);
const WORKERS: usize = 8;
const SHOPPERS: u64 = 20;
const ROUTER: u8 = 3;
const ANNOUNCERS: u16 = 8_495;
const NAMES: [&str; 2] = ["east", "west"];

/// One region: its edge, its BIRD, its announcer.
struct Place {
    host: u8,
    edge: Edge,
    bird: Bird,
    announcer: Option<Process>,
    /// Asks the announcer how it is.
    asked: Pool,
}

struct Scene {
    stage: Stage,
    network: Arc<Network>,
    topology: Topology,
    folder: PathBuf,
    address: SocketAddr,
    places: Vec<Place>,
    _router: Bird,
    _services: Vec<Proxy>,
}

/// What a bank saw that opens a connection for each try.
struct Traffic {
    stop: CancellationToken,
    workers: JoinSet<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Tries that found nobody listening.
    turned_away: AtomicU64,
    /// Tries without a reply: when each began, and why.
    lost: Mutex<Vec<(Instant, CallError)>>,
}

// === impl Seen ===

impl Seen {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn lost(&self) -> usize {
        self.lost.lock().unwrap().len()
    }

    /// Tries without a reply from the `first` on that began after a moment: those whose connection
    /// broke or never was, and all of them.
    fn lost_after(&self, first: usize, moment: Instant) -> (usize, usize) {
        let lost = self.lost.lock().unwrap();
        let after = lost.iter().skip(first).filter(|(began, _)| *began > moment);
        let after: Vec<&CallError> = after.map(|(_, why)| why).collect();
        for why in &after {
            println!("    after that: {why}");
        }
        let broken = after
            .iter()
            .filter(|why| !matches!(why, CallError::Timeout));
        (broken.count(), after.len())
    }
}

// === impl Traffic ===

impl Traffic {
    fn start(address: SocketAddr, history: &History, shoppers: &[u64]) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::<Seen>::default());
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let (stop, seen, history) = (stop.clone(), Arc::clone(&seen), history.clone());
            let shoppers = shoppers.to_vec();
            workers.spawn(async move {
                for (number, shopper) in (0_i64..).zip(shoppers.iter().cycle().skip(worker)) {
                    if stop.is_cancelled() {
                        return;
                    }
                    let key = format!("any-{worker}-{number}");
                    let payment = Payment::new(key, *shopper, 100 + number % 400);
                    while !seen.try_once(address, &history, &payment).await {}
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            stop,
            workers,
            seen,
        }
    }

    async fn progress(&self, more: u64) {
        let goal = self.seen.answered() + more;
        until("more answers", SOON * 2, || async {
            (self.seen.answered() >= goal).then_some(())
        })
        .await;
    }

    /// Ends when every payment that was begun has its answer.
    async fn stop(mut self) -> Arc<Seen> {
        self.stop.cancel();
        while let Some(worker) = self.workers.join_next().await {
            worker.unwrap();
        }
        self.seen
    }
}

impl Seen {
    /// Whether a payment was answered on a connection of its own.
    async fn try_once(&self, address: SocketAddr, history: &History, payment: &Payment) -> bool {
        let began = Instant::now();
        let bank = Bank::new(address, "anycast", 1, history.clone()).patient_for(PATIENCE);
        let told = bank.pay(payment).await;
        let is_answer = told.is_answer();
        if let Err(why) = told.0 {
            if matches!(why, CallError::Connect { .. }) {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            self.lost.lock().unwrap().push((began, why));
        }
        is_answer
    }
}

// === impl Scene ===

impl Scene {
    async fn set() -> Self {
        let stage = Stage::set().await;
        let mut options = EdgeOptions {
            budgets_ms: [2_500, 300, 500, 1_200],
            leave_ms: 3_000,
            ..EdgeOptions::on(&stage)
        };
        let (network, services) = lay_network(&stage, 3, &mut options).await;
        let [_, second, third, _] = network.address(End::Service(Service::Clients)).octets();
        // A network for measuring (RFC 2544), and nobody else's here.
        let announced = Ipv4Addr::new(198, 18, second, third);
        let address = SocketAddr::from((announced, free_port().unwrap()));
        network.make_router(ROUTER).unwrap();
        network.route_by(ROUTER, announced).unwrap();
        // BIRD takes a way out of the kernel before it puts another in. What comes between the two is
        // dropped and sent again, as on a router that changes its table at once it would wait; an
        // answer that there is no way would end connections that no region has lost.
        let mut ip = network.command(ROUTER, std::path::Path::new("ip"));
        ip.args([
            "route",
            "add",
            "blackhole",
            &format!("{announced}/32"),
            "metric",
            "1000",
        ]);
        assert!(ip.status().unwrap().success());
        let mut edges = Vec::new();
        for (host, name) in (1..).zip(NAMES) {
            network.add_address(host, announced).unwrap();
            let own = EdgeOptions {
                region: name.to_owned(),
                folder: Some(stage.folder().join(name)),
                host: Some((Arc::clone(&network), host)),
                listen: Some(address),
                ..options.clone()
            };
            edges.push(Edge::set_up(PROGRAMS, &stage, &own));
        }
        let folder = stage.folder().join("regions");
        std::fs::create_dir(&folder).unwrap();
        let topology = write_topology(&folder, &network, address, &edges);
        let birds = stage.folder();
        let router = Bird::start(&network, ROUTER, &router_config(&network, announced), birds);
        let places = (1..).zip(edges).map(|(host, edge)| {
            let name = format!("{}-1", NAMES[usize::from(host) - 1]);
            let config = bird_config(&topology, &name).unwrap();
            let own = SocketAddr::from((network.address(End::Host(host)), ANNOUNCERS));
            Place {
                host,
                edge,
                bird: Bird::start(&network, host, &config, birds).unwrap(),
                announcer: None,
                asked: Pool::new(own.into(), 2),
            }
        });
        let places = places.collect();
        Self {
            topology,
            folder,
            address,
            places,
            _router: router.unwrap(),
            _services: services,
            network,
            stage,
        }
    }

    fn announced(&self) -> Ipv4Addr {
        match self.address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => unreachable!("it is an IPv4 address"),
        }
    }

    fn place(&mut self, name: &str) -> &mut Place {
        let at = NAMES.iter().position(|other| *other == name).unwrap();
        &mut self.places[at]
    }

    fn announce(&mut self, name: &str) {
        let (folder, network) = (self.folder.clone(), Arc::clone(&self.network));
        let log = self.stage.folder().join(format!("announcer-{name}.log"));
        let place = self.place(name);
        // On a machine of its own nobody would keep it waiting.
        let mut command = network.command(place.host, std::path::Path::new("nice"));
        command.args(["-n", "-20", PROGRAMS.standin]);
        command.args([
            "announce",
            &format!("{name}-1"),
            "--rise-s",
            "1",
            "--rises",
            "1000",
        ]);
        command
            .arg("--dir")
            .arg(folder)
            .arg("--bird")
            .arg(place.bird.socket());
        place.announcer = Some(Process::spawn("announcer", command, &log).unwrap());
    }

    /// Waits until the router sends to these regions and no others; gives the moment that it was seen.
    async fn ways(&self, names: &[&str], within: Duration) -> Instant {
        let wanted: BTreeSet<Ipv4Addr> = NAMES
            .iter()
            .zip(1..)
            .filter(|(name, _)| names.contains(name))
            .map(|(_, host)| self.network.address(End::Host(host)))
            .collect();
        until(&format!("ways to {names:?}"), within, || async {
            let ways = self.network.ways(ROUTER, self.announced()).unwrap();
            let ways: BTreeSet<Ipv4Addr> = ways.into_iter().collect();
            (ways == wanted).then(Instant::now)
        })
        .await
    }

    /// Waits until an announcer says something of itself.
    async fn says(&self, name: &str, what: &str, is: impl Fn(&Report) -> bool) -> Report {
        let at = NAMES.iter().position(|other| *other == name).unwrap();
        let asked = &self.places[at].asked;
        until(&format!("{name}: {what}"), SOON, || async {
            let reply = asked.ask(Call::get("/announcez"), PATIENCE).await.ok()?;
            serde_json::from_slice::<Report>(&reply.body)
                .ok()
                .filter(|report| is(report))
        })
        .await
    }

    async fn both_well(&self) {
        for name in NAMES {
            self.says(name, "well", |report| {
                report.announced && report.why == Why::Well
            })
            .await;
        }
        self.ways(&NAMES, SOON).await;
    }
}

/// A file a region, as an operator would write it.
fn write_topology(
    folder: &std::path::Path,
    network: &Network,
    address: SocketAddr,
    edges: &[Edge],
) -> Topology {
    let router = network.address(End::Host(ROUTER));
    let mut files = Vec::new();
    for ((host, name), edge) in (1..).zip(NAMES).zip(edges) {
        let own = network.address(End::Host(host));
        let (_, admin) = edge
            .admin_url()
            .rsplit_once(':')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let text = format!(
            r#"
name = "{name}"
trial = true
banks = ["first"]
[anycast]
prefixes = ["{}/32"]
as = {}
routers = ["{router}=64500"]
[[edges]]
id = 1
name = "{name}-1"
listen = "{address}"
admin = "127.0.0.1:{admin}"
link = "{own}:8490"
announcer = "{own}:{ANNOUNCERS}"
failure_domain = "{name}"
"#,
            address.ip(),
            64_510 + u32::from(host),
        );
        let file = format!("{name}.toml");
        std::fs::write(folder.join(&file), &text).unwrap();
        files.push((file, text));
    }
    let read = Read::files(
        files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    read.topology
        .unwrap_or_else(|| panic!("{:#?}", read.findings))
}

/// A router of the bank's provider: it takes the address from both regions, and spreads over them.
fn router_config(network: &Network, announced: Ipv4Addr) -> String {
    let mut page = format!(
        "log syslog all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n\
         protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; \
         idle tx interval 300 ms; multiplier 3; }}; }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n",
        network.address(End::Host(ROUTER))
    );
    for host in [1, 2] {
        page.push_str(&format!(
            "protocol bgp region_{host} {{ local as 64500; neighbor {} as {}; hold time 9; \
             keepalive time 3; connect delay time 1; connect retry time 2; error wait time 1, 4; \
             bfd on; ipv4 {{ import where net = {announced}/32; export none; }}; }}\n",
            network.address(End::Host(host)),
            64_510 + u32::from(host),
        ));
    }
    page
}

/// What one fault cost: figures for the document.
struct Cost<'a> {
    what: &'a str,
    seen: &'a Seen,
    before: usize,
    answered: u64,
}

// === impl Cost ===

impl<'a> Cost<'a> {
    fn of(what: &'a str, seen: &'a Seen) -> Self {
        Self {
            what,
            seen,
            before: seen.lost(),
            answered: seen.answered(),
        }
    }

    /// Prints what it was; `injected` and `left` are when the fault began and when the router had
    /// left. Gives how many connections were lost that were opened after that: those that broke, and
    /// all without a reply.
    fn left(&self, injected: Instant, left: Instant) -> (usize, usize) {
        let late = left.saturating_duration_since(injected).as_millis();
        self.tell(&format!("left after {late} ms"));
        let after = self.seen.lost_after(self.before, left);
        println!("    {} of those tries began after that", after.1);
        after
    }

    fn tell(&self, how: &str) {
        println!(
            "injected: {}: {how}; {} payments answered meanwhile, {} tries had no reply",
            self.what,
            self.seen.answered() - self.answered,
            self.seen.lost() - self.before,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_withdraw_a_dead_daemon_a_silent_link_a_hung_edge_and_both_regions_sick() {
    let mut scene = Scene::set().await;
    let shoppers = scene.stage.trips(1, SHOPPERS, 100_000_000).await;
    for name in NAMES {
        scene.place(name).edge.restart().await;
        scene.announce(name);
    }
    scene.both_well().await;
    retry_at_the_other_region(&scene, shoppers[0]).await;
    let traffic = Traffic::start(scene.address, &scene.stage.history, &shoppers);
    let seen = Arc::clone(&traffic.seen);
    traffic.progress(200).await;
    for place in &scene.places {
        let answered = place.edge.metric("standin_answers_total", &[]).await;
        println!("edge {} has answered {answered}", place.host);
        assert!(answered > 0, "the router spreads connections over both");
    }

    // Withdraw: the announcer is told to end.
    let cost = Cost::of("withdraw", &seen);
    let began = Instant::now();
    let mut announcer = scene.place("west").announcer.take().unwrap();
    announcer.terminate().unwrap();
    let left = scene.ways(&["east"], SOON).await;
    traffic.progress(100).await;
    let status = announcer.ended(SOON).await.unwrap();
    assert!(status.success(), "{status}: {}", announcer.tail());
    assert!(
        announcer.tail().contains("withdrawn, and settled"),
        "{}",
        announcer.tail()
    );
    assert_eq!(cost.left(began, left), (0, 0));
    scene.announce("west");
    scene.both_well().await;

    // BIRD is killed. Its announcer says so, and BIRD announces again when it is back.
    let cost = Cost::of("the routing daemon dies", &seen);
    let began = Instant::now();
    let bird = scene.place("west").bird.process();
    bird.kill().unwrap();
    bird.ended(SOON).await.unwrap();
    let left = scene.ways(&["east"], SOON).await;
    traffic.progress(100).await;
    assert_eq!(cost.left(began, left), (0, 0));
    scene
        .says("west", "a problem", |report| report.problem.is_some())
        .await;
    let config = bird_config(&scene.topology, "west-1").unwrap();
    let bird = Bird::start(&scene.network, 2, &config, scene.stage.folder()).unwrap();
    scene.place("west").bird = bird;
    scene.both_well().await;

    silent_link(&scene, &traffic).await;
    hung_edge(&mut scene, &traffic).await;
    stopping_edge(&mut scene, &traffic).await;
    lost_primary(&scene, &traffic).await;
    both_sick(&mut scene, &traffic).await;

    let seen = traffic.stop().await;
    assert_eq!(
        seen.turned_away.load(Ordering::Relaxed),
        0,
        "nobody listened where it was announced"
    );
    judge(&mut scene, &seen).await;
}

/// West commits an answer whose reply is lost; the bank asks again, on a connection that the router
/// gives to east.
async fn retry_at_the_other_region(scene: &Scene, shopper: u64) {
    let west = &scene.places[1].edge;
    let answered = || west.metric("standin_answers_total", &[]);
    let clients = End::Service(Service::Clients);
    let fresh = || Bank::new(scene.address, "again", 1, scene.stage.history.clone());
    let mut turn = 0_u64;
    let (payment, again) = loop {
        let kept = connection_to_west(scene, shopper, turn).await;
        let committed = answered().await + 1;
        scene.network.cut(End::Host(2), clients).unwrap();
        let payment = Payment::new(format!("asked-again-{turn}"), shopper, 12_345);
        let lost = kept.patient_for(Duration::from_secs(1)).pay(&payment).await;
        // Only east can reply.
        let again = until("an answer in the other region", SOON, || async {
            let told = fresh()
                .patient_for(Duration::from_millis(500))
                .pay(&payment)
                .await;
            told.is_answer().then_some(told)
        })
        .await;
        scene.network.heal(End::Host(2), clients).unwrap();
        // A client's kernel that hears nothing sends again under another hash, which may lead to the
        // other region, where nobody knows the connection: that ends it too.
        let own = until("west's own answer", SOON, || async {
            (answered().await >= committed).then_some(())
        });
        let west_answered = tokio::time::timeout(SOON / 6, own).await.is_ok();
        if lost.0.is_err() && west_answered {
            println!("west's reply was lost: {:?}", lost.0);
            break (payment, again);
        }
        turn += 1;
        assert!(turn < 5, "nothing that west answers is lost: {lost:?}");
    };
    let first = again.said();
    println!(
        "injected: west's reply was lost; east said {} {} on {:?}, replayed: {}",
        first.verdict.as_str(),
        first.amount.to_decimal(),
        first.rung,
        again.is_replayed(),
    );
    for _ in 0..20 {
        let told = fresh()
            .patient_for(PATIENCE)
            .pay_until_answered(&payment, SOON)
            .await;
        let said = told.said();
        assert_eq!(
            (said.verdict, said.amount, said.code),
            (first.verdict, first.amount, first.code)
        );
    }
}

/// A bank whose one connection goes to west. Nobody else asks meanwhile.
async fn connection_to_west(scene: &Scene, shopper: u64, turn: u64) -> Bank {
    let west = &scene.places[1].edge;
    for number in 0..64 {
        let before = west.metric("standin_answers_total", &[]).await;
        let history = scene.stage.history.clone();
        let bank = Bank::new(scene.address, "west", 1, history).patient_for(PATIENCE);
        let payment = Payment::new(format!("find-{turn}-{number}"), shopper, 100);
        bank.pay_until_answered(&payment, SOON).await;
        if west.metric("standin_answers_total", &[]).await > before {
            return bank;
        }
    }
    panic!("a connection of 64 goes to west")
}

async fn silent_link(scene: &Scene, traffic: &Traffic) {
    let cost = Cost::of("a link carries nothing", &traffic.seen);
    let ends = [End::Host(ROUTER), End::Service(Service::Clients)];
    let east = End::Host(1);
    // From then on the router hears nothing. Packets of banks come by it, too: theirs go the same way.
    scene.network.cut(east, ends[0]).unwrap();
    let began = Instant::now();
    for end in ends {
        scene.network.cut(end, east).unwrap();
    }
    scene.network.cut(east, ends[1]).unwrap();
    let left = scene.ways(&["west"], SOON).await;
    traffic.progress(100).await;
    let dropped = scene.network.dropped(1).unwrap();
    for end in ends {
        scene.network.heal(end, east).unwrap();
        scene.network.heal(east, end).unwrap();
    }
    assert!(dropped > 0, "the cut dropped nothing");
    assert_eq!(cost.left(began, left), (0, 0));
    let silent = left.saturating_duration_since(began);
    assert!(
        silent <= SILENT_LINK_MAX,
        "a silent link is left after {silent:?}"
    );
    scene.both_well().await;
}

async fn hung_edge(scene: &mut Scene, traffic: &Traffic) {
    let cost = Cost::of("an edge hangs", &traffic.seen);
    let began = Instant::now();
    scene.place("west").edge.process().pause().unwrap();
    let left = scene.ways(&["east"], SOON).await;
    let hung = left.saturating_duration_since(began);
    // Payments that were sent to it are asked for again by now, and answered in the other region.
    traffic.progress(100).await;
    until("what waited for it was asked for again", SOON, || async {
        (began.elapsed() > PATIENCE).then_some(())
    })
    .await;
    let report = scene
        .says("west", "withdrawn", |report| !report.announced)
        .await;
    assert_eq!((report.why, report.health), (Why::Sick, Health::Dead));
    assert_eq!(cost.left(began, left), (0, 0));
    scene.place("west").edge.process().resume().unwrap();
    assert!(
        hung <= HUNG_EDGE_MAX,
        "a hung edge is withdrawn after {hung:?}"
    );
    scene.both_well().await;
}

async fn stopping_edge(scene: &mut Scene, traffic: &Traffic) {
    let cost = Cost::of("an edge is stopped", &traffic.seen);
    let began = Instant::now();
    scene.place("east").edge.process().terminate().unwrap();
    scene
        .says("east", "stopping", |report| report.why == Why::Stopping)
        .await;
    let left = scene.ways(&["west"], SOON).await;
    let status = scene.place("east").edge.ends(SOON).await;
    assert!(status.success(), "the edge ended with {status}");
    traffic.progress(100).await;
    assert_eq!(cost.left(began, left), (0, 0));
    scene.place("east").edge.restart().await;
    scene.both_well().await;
}

/// Standing in for Postgres is what edges are for: nobody is withdrawn.
async fn lost_primary(scene: &Scene, traffic: &Traffic) {
    let cost = Cost::of("the primary dies", &traffic.seen);
    scene.stage.postgres.kill().await.unwrap();
    traffic.progress(200).await;
    for place in &scene.places {
        place.edge.on_rung("stand_in", SOON).await;
    }
    traffic.progress(100).await;
    scene.both_well().await;
    cost.tell("both stay announced");
    scene.stage.postgres.restart().await.unwrap();
    for place in &scene.places {
        place.edge.on_rung("primary", SOON * 2).await;
    }
}

async fn both_sick(scene: &mut Scene, traffic: &Traffic) {
    // Both hang: whoever knocks may as well wait where it is.
    let cost = Cost::of("both edges hang", &traffic.seen);
    for name in NAMES {
        scene.place(name).edge.process().pause().unwrap();
    }
    for name in NAMES {
        let report = scene
            .says(name, "the last one", |report| report.why == Why::LastOne)
            .await;
        assert!(
            report.announced && report.health == Health::Dead,
            "{report:?}"
        );
    }
    scene.ways(&NAMES, SOON).await;
    for name in NAMES {
        scene.place(name).edge.process().resume().unwrap();
    }
    scene.both_well().await;
    traffic.progress(100).await;
    cost.tell("both stay announced");
    // What they share is gone: both limp, both stay, and banks get their answers.
    let cost = Cost::of("both regions see no trips", &traffic.seen);
    scene.stage.redis.kill().await.unwrap();
    for name in NAMES {
        let report = scene
            .says(name, "the last one", |report| report.why == Why::LastOne)
            .await;
        assert!(
            report.announced && report.health == Health::Limps,
            "{report:?}"
        );
    }
    scene.ways(&NAMES, SOON).await;
    traffic.progress(100).await;
    cost.tell("both stay announced");
    scene.stage.redis.restart().await.unwrap();
    scene.both_well().await;
}

/// Every payment was answered once, whatever region was asked again.
async fn judge(scene: &mut Scene, seen: &Seen) {
    for place in &mut scene.places {
        place.edge.drained().await;
        let announcer = place.announcer.as_mut().unwrap();
        announcer.terminate().unwrap();
    }
    for place in &mut scene.places {
        let status = place.announcer.as_mut().unwrap().ended(SOON).await.unwrap();
        // Whoever is last says that it stays.
        assert!(matches!(status.code(), Some(0 | 3)), "{status}");
        let status = place.edge.terminate().await;
        assert!(status.success(), "{status}");
    }
    let rows = all_rows(scene.stage.ledger.as_ref(), SOON).await.unwrap();
    let mut by_id = BTreeMap::new();
    for row in &rows {
        assert_eq!(row.state, AuthorizationState::Final);
        assert!(by_id.insert(row.answer.transaction_id, row).is_none());
    }
    let attempts = scene.stage.history.attempts();
    let mut payments: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in &attempts {
        payments
            .entry(attempt.payment.as_str())
            .or_default()
            .push(attempt);
    }
    let mut again = 0_u64;
    for (payment, tries) in &payments {
        let said: Vec<Said> = tries.iter().filter_map(|attempt| answer(attempt)).collect();
        let what = |said: &Said| (said.verdict, said.amount, said.code);
        assert!(!said.is_empty(), "{payment} was never answered");
        assert!(
            said.iter().all(|other| what(other) == what(&said[0])),
            "{payment}: {said:#?}"
        );
        again += u64::from(tries.len() > 1);
        let row = by_id.remove(&said[0].transaction_id);
        let row = row.unwrap_or_else(|| panic!("{payment} is not booked"));
        let booked = (row.answer.verdict, row.answer.amount);
        assert_eq!(booked, (said[0].verdict, said[0].amount), "{payment}");
    }
    assert!(by_id.is_empty(), "booked and never answered: {by_id:#?}");
    let (_, _, conflicts) = scene.stage.ledger_counts().await;
    println!(
        "{} payments, each answered and booked once; {again} were asked for again; {} tries had no \
         reply; {conflicts} conflicts",
        payments.len(),
        seen.lost(),
    );
    assert_eq!(conflicts, 0);
    assert!(again > 0, "no payment was asked for again");
}

fn answer(attempt: &Attempt) -> Option<Said> {
    match &attempt.outcome {
        Outcome::Answered { status, body, .. } => Said::read(*status, body).ok(),
        _ => None,
    }
}
