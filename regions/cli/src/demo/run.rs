//! One run of the demo, from starting the world to the report.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_core::signature::Secret;
use standin_edge::app::Hooks;
use standin_edge::config::Config;
use standin_reconcile::history::{self, Attempt, Counts};
use standin_reconcile::report::{BacklogSample, DemoReport, Machine, PhaseReport, Shade, timeline};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::judge::{Judgement, await_drain, backlog, judge_all, rungs};
use super::payments::Bank;
use super::plan::{Plan, Timing};
use super::primary::{Primary, Servers};
use super::shoppers::Shoppers;
use super::{Args, With};
use crate::client::{Pool, Signer, Target};
use crate::out::live_line;
use crate::platform_client::{self, PlatformClient};
use crate::world::{Setup, World};
use crate::{baskets, secret};

/// The bank's name.
const BANK: &str = "demo-bank";
/// Connections of the bank, and of the platform's clients.
const CONNECTIONS: usize = 64;
/// What a bank waits for an answer.
const DEADLINE_MS: u64 = 1_000;
/// Shortest outage-to-recovery share of `primary` answers that is right, percent.
const PRIMARY_SHARE_MIN: u64 = 90;
/// The load begins so long after everything is prepared.
const RUN_UP: Duration = Duration::from_millis(500);
/// How long shoppers may take to end their trips after the load.
const WIND_DOWN: Duration = Duration::from_secs(30);
/// How often the backlog is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What `report.json` holds.
    pub json: serde_json::Value,
    /// The same, typed.
    pub report: DemoReport,
    /// Latencies by how requests were answered.
    pub latencies: Vec<crate::tally::Line>,
    /// Whether everything is as it should be.
    pub is_clean: bool,
    /// What is not.
    pub complaints: Vec<String>,
}

/// A run under way.
struct Running {
    world: World,
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
    live.set_message("starting the edge");
    let folder = tempfile::Builder::new().prefix("standin-demo-").tempdir()?;
    let servers = Servers::start(args.is_real(With::Postgres), args.is_real(With::Redis)).await?;
    let secrets = Secrets::new()?;
    let world = world(args, &servers, folder.path(), &secrets).await?;
    let platform = Target::from(world.trips_address());
    let shoppers = Shoppers {
        client: PlatformClient::new(platform, CONNECTIONS, Signer::new(secrets.platform)),
        counts: Arc::default(),
        timing: plan.timing,
    };
    open_stores(&world, &shoppers.client, &plan).await?;
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
    let bank = Bank {
        pool: Pool::new(Target::from(world.edge().address()), CONNECTIONS),
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
        let faults = tokio::spawn({
            let (servers, start) = (Arc::clone(&self.servers), self.start);
            async move { Primary::fail(&servers.primary, timing, start).await }
        });
        let samples = Arc::new(Mutex::new(Vec::new()));
        let expected = plan.payments.len();
        let load = self
            .bank
            .send_all(plan.payments, self.start, self.epoch, &stop);
        let fired = tokio::select! {
            fired = load => fired,
            () = self.watch(&samples, timing, expected) => bail!("the watch ended by itself"),
            () = self.world.edge().poisoned() => bail!("the write-ahead log is poisoned"),
        };
        self.live.set_message("shoppers end their trips");
        tasks.close();
        let ended = tokio::time::timeout(WIND_DOWN, tasks.wait()).await;
        faults.await.context("the fault's task broke")??;
        let drained = await_drain(self.world.edge(), |left| {
            self.sample(&samples, left);
            self.live
                .set_message(format!("draining: {left} answers left"));
        })
        .await;
        self.live.set_message("reconciling and judging");
        let attempts = std::mem::take(&mut *locked(&self.bank.history));
        let judged = judge_all(self.world.edge(), &attempts).await?;
        let mut complaints = Vec::new();
        let mut complain = |is_so: bool, what: &str| {
            if is_so {
                complaints.push(what.to_owned());
            }
        };
        complain(
            fired.unsent > 0,
            "some requests were not sent: too many were under way",
        );
        complain(ended.is_err(), "some trips did not end in time");
        complain(!drained, "the log did not drain in time");
        let samples = std::mem::take(&mut *locked(&samples));
        let facts = Facts {
            args,
            timing,
            began,
            stories: &plan.stories,
            samples: &samples,
        };
        let outcome = self.outcome(&facts, &attempts, judged, complaints)?;
        self.close().await?;
        Ok((outcome, attempts))
    }

    async fn close(self) -> anyhow::Result<()> {
        self.live.set_message("stopping");
        self.bank.pool.close().await;
        self.shoppers.client.close().await;
        self.world.stop().await?;
        if let Some(servers) = Arc::into_inner(self.servers) {
            servers.stop().await?;
        }
        self.live.finish_and_clear();
        Ok(())
    }

    /// Keeps the live line and the backlog's samples; never ends.
    async fn watch(&self, samples: &Mutex<Vec<BacklogSample>>, timing: Timing, expected: usize) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            let status = self.world.edge().status().await;
            let left = backlog(&status);
            self.sample(samples, left);
            let at = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let answered = locked(&self.bank.tally).answered();
            let rung = status
                .get("rung")
                .and_then(serde_json::Value::as_str)
                .unwrap_or("");
            self.live.set_message(format!(
                "{}: rung {rung}, {answered} of {expected} answered, {left} in the log not booked",
                timing.words(at),
            ));
        }
    }

    fn sample(&self, samples: &Mutex<Vec<BacklogSample>>, backlog: u64) {
        let at = SystemClock.now().as_millis();
        locked(samples).push(BacklogSample { at, backlog });
    }

    fn outcome(
        &self,
        facts: &Facts<'_>,
        attempts: &[Attempt],
        judged: Judgement,
        mut complaints: Vec<String>,
    ) -> anyhow::Result<Outcome> {
        let phases = facts.phases(self.epoch, attempts);
        let Judgement {
            reconciliation,
            checks,
            wal,
            ledger,
        } = judged;
        let mut report = DemoReport {
            title: "Standin demo".to_owned(),
            started_at: self.epoch.to_string(),
            seconds: facts.began.elapsed().as_secs_f64(),
            options: facts.options(),
            machine: machine(),
            requests: 0,
            no_answer: 0,
            late: 0,
            wrong: 0,
            retried: 0,
            phases: phases.iter().map(|phase| phase.report.clone()).collect(),
            wal,
            ledger,
            checks,
            timeline: timeline(attempts, facts.samples, self.epoch.as_millis(), 500),
            outages: facts.shades(),
            reconciliation: Some(reconciliation),
        };
        report.set_counts(Counts::of(attempts, DEADLINE_MS));
        complaints.extend(phases.iter().filter_map(Phase::complaint));
        let counts = &self.shoppers.counts;
        complaints.extend(counts.words());
        let mut json = serde_json::to_value(&report)?;
        for (phase, shown) in phases
            .iter()
            .zip(json["phases"].as_array_mut().into_iter().flatten())
        {
            shown["rungs_after_first_second"] = serde_json::to_value(&phase.after_first_second)?;
            shown["rungs_last_third"] = serde_json::to_value(&phase.last_third)?;
        }
        json["platform"] = serde_json::to_value(counts.figures())?;
        json["stories"] = serde_json::to_value(facts.stories)?;
        let latencies = locked(&self.bank.tally).lines();
        json["latencies"] = serde_json::to_value(&latencies)?;
        let is_clean = report.is_clean() && complaints.is_empty();
        json["complaints"] = serde_json::to_value(&complaints)?;
        json["clean"] = is_clean.into();
        Ok(Outcome {
            json,
            report,
            latencies,
            is_clean,
            complaints,
        })
    }
}

/// What a report needs besides the history.
struct Facts<'a> {
    args: &'a Args,
    timing: Timing,
    began: Instant,
    stories: &'a BTreeMap<super::Story, u64>,
    samples: &'a [BacklogSample],
}

/// A phase, with the shares that acceptance asks for.
struct Phase {
    report: PhaseReport,
    after_first_second: BTreeMap<&'static str, u64>,
    last_third: BTreeMap<&'static str, u64>,
}

// === impl Facts ===

impl Facts<'_> {
    fn phases(&self, epoch: Timestamp, attempts: &[Attempt]) -> Vec<Phase> {
        let Timing {
            hang_ms,
            back_ms,
            end_ms,
            ..
        } = self.timing;
        [
            ("primary", 0, hang_ms),
            ("stand_in", hang_ms, back_ms),
            ("recovered", back_ms, end_ms),
        ]
        .into_iter()
        .map(|(name, from, to)| {
            let between = move |from: u64, to: u64| {
                attempts.iter().filter(move |attempt| {
                    let at = Timestamp::from_millis(attempt.intended_at);
                    let since = at.millis_since(epoch);
                    at >= epoch && (from..to).contains(&since)
                })
            };
            let third = to.saturating_sub(from).checked_div(3).unwrap_or(0);
            Phase {
                report: PhaseReport::of(name, between(from, to)),
                after_first_second: rungs(between(from.saturating_add(1_000), to)),
                last_third: rungs(between(to.saturating_sub(third), to)),
            }
        })
        .collect()
    }

    fn shades(&self) -> Vec<Shade> {
        let Timing {
            hang_ms,
            gone_ms,
            back_ms,
            ..
        } = self.timing;
        let shade = |from_ms, until_ms, label: &str| Shade {
            from_ms,
            until_ms,
            label: label.to_owned(),
        };
        vec![
            shade(hang_ms, gone_ms, "primary hangs"),
            shade(gone_ms, back_ms, "primary gone"),
        ]
    }

    fn options(&self) -> BTreeMap<String, String> {
        let with = |server: With, real: &str| match self.args.with.contains(&server) {
            true => real.to_owned(),
            false => "embedded".to_owned(),
        };
        let baskets = match &self.args.baskets {
            // The file's name only: where it lies is nobody's business.
            Some(file) => file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            None => "built-in sample".to_owned(),
        };
        BTreeMap::from([
            ("Baskets".to_owned(), baskets),
            (
                "Ledger".to_owned(),
                with(With::Postgres, "Postgres, stopped and killed"),
            ),
            (
                "Load".to_owned(),
                format!(
                    "{} requests/s for {} s",
                    self.args.rate(),
                    self.args.seconds
                ),
            ),
            ("Seed".to_owned(), self.args.seed.to_string()),
            ("Trip cache".to_owned(), with(With::Redis, "Redis")),
        ])
    }
}

// === impl Phase ===

impl Phase {
    /// What is wrong with the rungs of this phase; requests that were to be refused do not count.
    fn complaint(&self) -> Option<String> {
        let share = |rungs: &BTreeMap<&'static str, u64>, rung: &str| {
            let answered = rungs.iter().filter(|(name, _)| **name != "refused");
            let all = answered.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
            let of = rungs.get(rung).copied().unwrap_or(0);
            (of.saturating_mul(100), all)
        };
        let whole: BTreeMap<&'static str, u64> = standin_core::answer::Rung::ALL
            .into_iter()
            .filter_map(|rung| Some((rung.as_str(), *self.report.rungs.get(rung.as_str())?)))
            .collect();
        let (rungs, rung, least) = match self.report.name.as_str() {
            "stand_in" => (&self.after_first_second, "stand_in", 100),
            "primary" => (&whole, "primary", PRIMARY_SHARE_MIN),
            _ => (&self.last_third, "primary", PRIMARY_SHARE_MIN),
        };
        let (hundredfold, all) = share(rungs, rung);
        let is_right = hundredfold >= all.saturating_mul(least);
        (!is_right).then(|| {
            format!(
                "phase {}: fewer than {least} % on rung {rung}: {rungs:?}",
                self.report.name
            )
        })
    }
}

// === impl Timing ===

impl Timing {
    fn words(self, at_ms: u64) -> &'static str {
        if at_ms < self.hang_ms {
            "primary up"
        } else if at_ms < self.gone_ms {
            "primary hangs"
        } else if at_ms < self.back_ms {
            "primary gone"
        } else {
            "primary back"
        }
    }
}

async fn world(
    args: &Args,
    servers: &Servers,
    folder: &Path,
    secrets: &Secrets,
) -> anyhow::Result<World> {
    let mut text = toml::Table::new();
    let mut set = |section: &str, key: &str, value: toml::Value| {
        let table = text
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), value);
        }
    };
    set(
        "wal",
        "dir",
        folder.join("wal").display().to_string().into(),
    );
    if let Some(url) = &servers.postgres_url {
        set("ledger", "postgres", url.clone().into());
        // After the outage, customers order while what it left is booked.
        set("ledger", "background_connections", 24.into());
    }
    if let Some(url) = &servers.cache_url {
        set("trip_cache", "redis", vec![url.clone()].into());
    }
    // Everybody is on one address here, and the load is the one asked for.
    set("limits", "address_failures_per_minute", 100_000.into());
    set("limits", "shopper_per_minute", 600.into());
    // A short run has a short way back too; half a minute has half-second steps.
    let step = i64::try_from(args.seconds)?
        .saturating_mul(1_000)
        .div_euclid(60);
    set("breaker", "ramp_step_ms", step.clamp(100, 1_000).into());
    let rate = i64::try_from(args.rate())?.saturating_mul(4);
    let bank = toml::toml! {
        slug = "demo-bank"
        currency = "USD"
    };
    let mut bank = bank;
    bank.insert("secrets".to_owned(), vec![secrets.bank_text.clone()].into());
    bank.insert("requests_per_second".to_owned(), rate.into());
    bank.insert("burst".to_owned(), rate.into());
    text.insert("banks".to_owned(), vec![toml::Value::Table(bank)].into());
    text.insert("listen".to_owned(), "127.0.0.1:0".into());
    text.insert("admin_listen".to_owned(), "127.0.0.1:0".into());
    text.insert("deployment_key".to_owned(), secret::fresh_key().into());
    let (edge, _settings) = Config::load(Some(&toml::to_string(&text)?), [])?;
    let hooks = match &servers.primary {
        Primary::Embedded(switch) => {
            let switch = switch.clone();
            Hooks {
                wrap_ledger: Some(Box::new(move |ledger| switch.wrap(ledger))),
                ..Hooks::default()
            }
        }
        Primary::Real(_) => Hooks::default(),
    };
    let setup = Setup {
        edge,
        hooks,
        trips_listen: "127.0.0.1:0".parse()?,
        platform_secret: secrets.platform.clone(),
        queue: servers.queue_url.clone(),
    };
    Box::pin(World::start(setup)).await
}

/// Adds the stores through the platform, and waits until the edge knows them.
async fn open_stores(world: &World, client: &PlatformClient, plan: &Plan) -> anyhow::Result<()> {
    let until = Instant::now()
        .checked_add(Duration::from_secs(20))
        .context("the clock is at its end")?;
    for store in &plan.stores {
        client
            .insist(platform_client::put_store(store)?, until)
            .await?;
    }
    let wanted = u64::try_from(plan.stores.len())?;
    while world.edge().status().await["stores"].as_u64() != Some(wanted) {
        anyhow::ensure!(Instant::now() < until, "the edge does not know the stores");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn machine() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpus: u64::try_from(cpus).unwrap_or(1),
    }
}

fn write(out: &Path, outcome: &Outcome, history: &[Attempt]) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", out.display());
    std::fs::create_dir_all(out).with_context(place)?;
    let json = serde_json::to_vec_pretty(&outcome.json)?;
    std::fs::write(out.join("report.json"), json).with_context(place)?;
    let html = standin_reconcile::report::html::demo(&outcome.report)?;
    std::fs::write(out.join("report.html"), html).with_context(place)?;
    let file = std::fs::File::create(out.join("history.jsonl")).with_context(place)?;
    history::write(std::io::BufWriter::new(file), history).with_context(place)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
