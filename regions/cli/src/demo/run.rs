//! One run of the demo, from starting the world to the report.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_core::signature::Secret;
use standin_edge::app::Hooks;
use standin_reconcile::history::Attempt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::State;
use super::group::{Group, KEEPERS, Place, Positions};
use super::judge::judge_all;
use super::outcome::{Facts, Outcome, write};
use super::payments::{Bank, Door};
use super::plan::{Plan, Timing};
use super::primary::{Primary, Servers};
use super::settings::Settings;
use super::shoppers::Shoppers;
use super::{Args, With};
use crate::backlog::Backlog;
use crate::client::{Pool, Signer, Target};
use crate::killed::Killed;
use crate::out::live_line;
use crate::platform_client::{self, PlatformClient};
use crate::world::{Setup, World};
use crate::{baskets, secret};

/// The bank's name.
const BANK: &str = "demo-bank";
/// Connections of the bank to each edge, and of the platform's clients.
const CONNECTIONS: usize = 64;
/// While an election lasts, what arrives waits on the edges that are left.
const BANK_CONNECTIONS: usize = 256;
/// The load begins so long after everything is prepared.
const RUN_UP: Duration = Duration::from_millis(500);
/// How long shoppers may take to end their trips after the load.
const WIND_DOWN: Duration = Duration::from_secs(30);
/// How often the backlog is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How long the edges may take to know what the platform knows, before the load.
const KNOW_WITHIN: Duration = Duration::from_secs(60);
/// How long the drain may take after the load.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// A run under way.
struct Running {
    world: World,
    group: Arc<Group>,
    servers: Arc<Servers>,
    shoppers: Shoppers,
    bank: Bank,
    live: ProgressBar,
    start: Instant,
    epoch: Timestamp,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let live = live_line();
    live.set_message("reading baskets");
    let baskets = match &args.baskets {
        Some(file) => baskets::open(file).with_context(|| file.display().to_string())?,
        None => baskets::sample()?,
    };
    let bank_id: BankId = BANK.parse()?;
    let plan = Plan::make(
        &baskets,
        Timing::new(args.rate(), args.seconds),
        &bank_id,
        args.seed,
    );
    live.set_message("starting the edges");
    let folder = tempfile::Builder::new().prefix("standin-demo-").tempdir()?;
    let servers = Servers::start(args.is_real(With::Postgres), args.is_real(With::Redis)).await?;
    let secrets = Secrets::new()?;
    let (group, world) = edges(args, &servers, folder.path(), &secrets).await?;
    let platform = Target::from(world.trips_address());
    let shoppers = Shoppers {
        client: PlatformClient::new(platform, CONNECTIONS, Signer::new(secrets.platform)),
        counts: Arc::default(),
        timing: plan.timing,
    };
    open_stores(&shoppers.client, &plan).await?;
    let early = plan
        .trips
        .iter()
        .filter(|trip| trip.open_at.is_none())
        .count();
    shoppers
        .prepare(&plan, |done| {
            live.set_message(format!("opening trips: {done} of {early}"))
        })
        .await;
    live.set_message("waiting until every edge knows the trips");
    all_know(&group, &world, plan.stores.len()).await?;
    let doors = group.places().map(|place| Door {
        node: place.node,
        pool: Pool::new(Target::from(place.address), BANK_CONNECTIONS),
    });
    let bank = Bank {
        doors: Arc::new(doors.collect()),
        group: Arc::clone(&group),
        turn: Arc::default(),
        id: bank_id,
        signer: Signer::new(secrets.bank),
        forger: Signer::new(secrets.forger),
        history: Arc::default(),
        tally: Arc::default(),
    };
    let start = Instant::now().checked_add(RUN_UP).unwrap_or(began);
    let epoch = SystemClock.now().plus(RUN_UP);
    let running = Running {
        world,
        group,
        servers: Arc::new(servers),
        shoppers,
        bank,
        live,
        start,
        epoch,
    };
    let outcome = running.drive(args, plan, began).await?;
    write(&args.out, &outcome.0, &outcome.1)?;
    Ok(outcome.0)
}

struct Secrets {
    bank: Secret,
    forger: Secret,
    platform: Secret,
    bank_text: String,
}

// === impl Secrets ===

impl Secrets {
    /// Fresh ones for this run.
    fn new() -> anyhow::Result<Self> {
        let bank_text = secret::fresh();
        Ok(Self {
            bank: bank_text.parse()?,
            forger: secret::fresh().parse()?,
            platform: secret::fresh().parse()?,
            bank_text,
        })
    }
}

// === impl Running ===

impl Running {
    async fn drive(
        self,
        args: &Args,
        plan: Plan,
        began: Instant,
    ) -> anyhow::Result<(Outcome, Vec<Attempt>)> {
        let timing = plan.timing;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let first_store = plan.stores.first().map_or(1, |store| store.id.get());
        for trip in plan.trips {
            tasks.spawn(self.shoppers.clone().live(trip, self.start));
        }
        tasks.spawn(
            self.shoppers
                .clone()
                .order_during_outage(first_store, self.start),
        );
        self.group.begin();
        let faults = tokio::spawn({
            let (servers, group) = (Arc::clone(&self.servers), Arc::clone(&self.group));
            let start = self.start;
            async move { servers.primary.fail(&group, timing, start).await }
        });
        let backlog = Mutex::new(Backlog::default());
        let expected = plan.payments.len();
        let load = self
            .bank
            .send_all(plan.payments, self.start, self.epoch, &stop);
        let fired = tokio::select! {
            fired = load => fired,
            () = self.watch(&backlog, timing, expected) => bail!("the watch ended by itself"),
            () = self.world.edge().poisoned() => bail!("the write-ahead log is poisoned"),
        };
        let elections = self.group.elections();
        let longest_election = elections.longest(Instant::now());
        self.live.set_message("shoppers end their trips");
        tasks.close();
        let ended = tokio::time::timeout(WIND_DOWN, tasks.wait()).await;
        let killed = faults.await.context("the fault's task broke")??;
        let drained = self.await_drain(&backlog).await;
        let complaints = [
            (
                fired.unsent > 0,
                "some requests were not sent: too many were under way",
            ),
            (ended.is_err(), "some trips did not end in time"),
            (!drained, "the log did not drain in time"),
            (
                elections.changes() == 0,
                "the leader was killed, and nobody else came to lead",
            ),
        ];
        let complaints = complaints
            .into_iter()
            .filter(|(is_so, _)| *is_so)
            .map(|(_, what)| what.to_owned());
        let samples = std::mem::take(&mut locked(&backlog).samples);
        let facts = Facts {
            args,
            timing,
            began,
            epoch: self.epoch,
            stories: &plan.stories,
            samples: &samples,
            elections: &elections,
            longest_election,
            killed: killed.node,
            platform: self.shoppers.counts.figures(),
            latencies: locked(&self.bank.tally).lines(),
        };
        let judged = self.judge(facts, &killed, complaints.collect()).await?;
        self.close().await?;
        Ok(judged)
    }

    async fn judge(
        &self,
        facts: Facts<'_>,
        killed: &Killed,
        mut complaints: Vec<String>,
    ) -> anyhow::Result<(Outcome, Vec<Attempt>)> {
        self.live.set_message("reconciling and judging");
        let attempts = std::mem::take(&mut *locked(&self.bank.history));
        let ledgers = match &self.servers.primary {
            Primary::Embedded(_) => self.group.ledgers().await.context("the edges' ledgers")?,
            Primary::Real(_) => Vec::new(),
        };
        let judged = judge_all(self.world.edge(), &self.group, killed, &ledgers, &attempts);
        let judged = judged.await?;
        complaints.extend(judged.complaints);
        complaints.extend(self.shoppers.counts.words());
        let outcome = facts.outcome(&attempts, judged.judgement, complaints)?;
        Ok((outcome, attempts))
    }

    async fn close(self) -> anyhow::Result<()> {
        self.live.set_message("stopping");
        self.bank.close().await;
        self.shoppers.client.close().await;
        self.world.stop().await?;
        self.group.stop().await?;
        if let Some(servers) = Arc::into_inner(self.servers) {
            servers.stop().await?;
        }
        self.live.finish_and_clear();
        Ok(())
    }

    /// Keeps the live line and the backlog's samples; never ends.
    async fn watch(&self, backlog: &Mutex<Backlog>, timing: Timing, expected: usize) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            let status = self.world.edge().status().await;
            let left = locked(backlog).look(&status, SystemClock.now());
            let at = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let answered = locked(&self.bank.tally).answered();
            let leads = match self.group.elections().leader() {
                Some(node) => format!("edge {node} leads the log"),
                None => "nobody leads the log".to_owned(),
            };
            self.live.set_message(format!(
                "{}, {leads}: {answered} of {expected} answered, {left} in the log not booked",
                timing.words(at),
            ));
        }
    }

    /// Waits until everything in the log is booked, at every edge; says whether.
    async fn await_drain(&self, backlog: &Mutex<Backlog>) -> bool {
        let until = Instant::now().checked_add(DRAIN_MAX);
        loop {
            let status = self.world.edge().status().await;
            let left = locked(backlog).look(&status, SystemClock.now());
            self.live
                .set_message(format!("draining: {left} answers left"));
            let batches = |status: &serde_json::Value| {
                let batches = status.pointer("/drain/backlog");
                batches.and_then(serde_json::Value::as_u64)
            };
            let pages = self.group.statuses().await;
            let everywhere =
                pages.is_ok_and(|pages| pages.iter().all(|page| batches(page) == Some(0)));
            if everywhere && batches(&status) == Some(0) {
                return true;
            }
            if until.is_none_or(|until| Instant::now() >= until) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Starts the keepers, then the platform on an edge of its own that learns what they agree on.
async fn edges(
    args: &Args,
    servers: &Servers,
    folder: &Path,
    secrets: &Secrets,
) -> anyhow::Result<(Arc<Group>, World)> {
    let settings = Settings {
        bank: BANK,
        bank_secret: secrets.bank_text.clone(),
        deployment_key: secret::fresh_key(),
        rate: args.rate(),
        seconds: args.seconds,
        postgres_url: servers.postgres_url.clone(),
        cache_url: servers.cache_url.clone(),
    };
    let keepers = (1..=KEEPERS)
        .map(|node| Place::free(node, folder))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let platform = Place::free(KEEPERS + 1, folder)?;
    let edge = settings.platform(&platform.wal, platform.link, &keepers)?;
    let (hooks, primary) = match &servers.primary {
        Primary::Embedded(switch) => {
            let switch = switch.clone();
            let hooks = Hooks {
                wrap_ledger: Some(Box::new(move |ledger| switch.wrap(ledger))),
                ..Hooks::default()
            };
            (hooks, Some(State::Up))
        }
        Primary::Real(_) => (Hooks::default(), None),
    };
    let group = Group::start(keepers, &settings, primary).await?;
    let told = Arc::clone(&group);
    let setup = Setup {
        edge,
        hooks,
        trips_listen: "127.0.0.1:0".parse()?,
        platform_secret: secrets.platform.clone(),
        queue: servers.queue_url.clone(),
        wrap_cache: servers.cache_url.is_none().then(|| {
            let wrap: crate::world::WrapCache = Box::new(move |cache| {
                Arc::new(Positions {
                    cache,
                    keepers: told,
                })
            });
            wrap
        }),
    };
    let world = Box::pin(World::start(setup)).await?;
    Ok((group, world))
}

/// Adds the stores through the platform.
async fn open_stores(client: &PlatformClient, plan: &Plan) -> anyhow::Result<()> {
    let until = Instant::now()
        .checked_add(Duration::from_secs(20))
        .context("the clock is at its end")?;
    for store in &plan.stores {
        client
            .insist(platform_client::put_store(store)?, until)
            .await?;
    }
    Ok(())
}

/// Waits until every keeper knows the stores, and has applied everything that is in the log now.
async fn all_know(group: &Group, world: &World, stores: usize) -> anyhow::Result<()> {
    let until = Instant::now().checked_add(KNOW_WITHIN);
    let (stores, last) = (
        u64::try_from(stores)?,
        world.edge().log().status().last_index,
    );
    loop {
        let pages = group.statuses().await?;
        let knows = |page: &serde_json::Value| {
            let number = |path: &str| page.pointer(path).and_then(serde_json::Value::as_u64);
            number("/stores") == Some(stores)
                && number("/wal/applied_index").is_some_and(|applied| applied >= last)
        };
        if pages.iter().all(knows) {
            return Ok(());
        }
        anyhow::ensure!(
            until.is_some_and(|until| Instant::now() < until),
            "not every edge knows the stores and the trips"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
