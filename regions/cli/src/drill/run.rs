//! One drill, from building its world to its report.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_core::signature::Secret;
use standin_reconcile::history::Attempt;
use standin_reconcile::report::drill::{
    DrillReport, Figures, Injection, Load, Marks, Proof, figures, verdicts,
};
use standin_reconcile::report::{PhaseReport, Shade, Tick, timeline};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::bank::{Bank, DEADLINE, Stretch};
use super::catalogue::{Drill, Span};
use super::edges::BANK;
use super::faults::Broken;
use super::judge::{judge, settled};
use super::seed::Seed;
use super::watch::{Looks, STALL_MS, Watch};
use super::world::World;
use crate::client::Signer;
use crate::demo::outcome::machine;
use crate::open_loop::Fired;

/// Load before the drill's own beginning: connections are made, and edges come to speed.
const WARM_UP: Duration = Duration::from_secs(4);
/// The load begins so long after everything is prepared.
const RUN_UP: Duration = Duration::from_millis(300);
/// How long the drain may take after the load.
const DRAIN_WITHIN: Duration = Duration::from_secs(240);
/// Slow disks that are told one by one.
const STALLS_TOLD: usize = 8;
/// Steps of the timeline, milliseconds.
const TICK_MS: u64 = 500;

/// How drills are run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Payments a second.
    pub(super) rate: u64,
    /// The same number makes the same payments and the same chances.
    pub(super) seed: u64,
    /// Answers that wait for the ledger at the end of a long outage.
    pub(super) backlog: u64,
    /// Everything in a quarter of its time.
    pub(super) quick: bool,
}

/// When the parts of a drill begin and end, from the beginning of its load.
#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Duration,
    heal: Duration,
    end: Duration,
}

/// What was done to the world, and when.
struct Done {
    injection: Injection,
    fault_ms: u64,
    healed_ms: u64,
    /// Why it could not be done, if it could not.
    failed: Option<anyhow::Error>,
}

/// Everything that a report is made of.
struct Seen {
    began: Instant,
    epoch: Timestamp,
    plan: Plan,
    done: Done,
    fired: Fired,
    looks: Looks,
    history: Vec<Attempt>,
}

// === impl Settings ===

impl Settings {
    /// The same for a drill: where everything goes through namespaces and proxies, which have no more
    /// cores than the rest, half as many payments come.
    fn of(self, drill: &Drill) -> Self {
        let rate = if drill.shape.hosts {
            self.rate.div_euclid(2).max(1)
        } else {
            self.rate
        };
        Self { rate, ..self }
    }

    fn plan(&self, drill: &Drill) -> Plan {
        let pace = if self.quick {
            drill.pace.quick()
        } else {
            drill.pace
        };
        let lasts = match pace.fault {
            Span::For(time) => time,
            Span::UntilBacklog => {
                // Some more, for what the primary still took at its beginning.
                let ms = self.backlog.saturating_mul(1_050);
                Duration::from_millis(ms.checked_div(self.rate).unwrap_or(ms))
            }
        };
        let fault = WARM_UP.saturating_add(pace.steady);
        let heal = fault.saturating_add(lasts);
        Plan {
            fault,
            heal,
            end: heal.saturating_add(pace.after),
        }
    }
}

impl Plan {
    /// The schedule of the load.
    fn stretches(&self, drill: &Drill, rate: u64) -> [Stretch; 3] {
        let usual = |from, until| Stretch {
            from,
            until,
            rate,
            copies: 1,
        };
        [
            usual(Duration::ZERO, self.fault),
            Stretch {
                rate: rate.saturating_mul(drill.storm.rate),
                copies: drill.storm.copies,
                ..usual(self.fault, self.heal)
            },
            usual(self.heal, self.end),
        ]
    }
}

/// Runs a drill in a world of its own; gives its report and the history it was judged by.
pub(super) async fn run(
    drill: &Drill,
    seed: &Seed,
    settings: Settings,
    live: &ProgressBar,
) -> anyhow::Result<(DrillReport, Vec<Attempt>)> {
    let began = Instant::now();
    let settings = settings.of(drill);
    live.set_message(format!("{}: building its world", drill.name));
    let mut world = Box::pin(World::start(drill.shape, seed)).await?;
    let bank = open_bank(&world, seed)?;
    // Of the region that is broken: its log is the one whose backlog is told.
    let desks = world.edges.iter().map(|edge| (edge.id, edge.desk()));
    let watch = Watch::new(desks.collect());
    let plan = settings.plan(drill);
    let payments = bank.plan(&plan.stretches(drill, settings.rate), settings.seed);
    let start = Instant::now().checked_add(RUN_UP).unwrap_or(began);
    let epoch = SystemClock.now().plus(RUN_UP);
    let mut broken = Broken::new(settings.seed);
    let words = Mutex::new(format!("{}: warming up", drill.name));
    let stop = CancellationToken::new();
    let (fired, done) = {
        // A task of its own: what breaks things blocks for a moment now and then.
        let load = bank.clone().pay_all(payments, start, epoch, stop.clone());
        let load = AbortOnDropHandle::new(tokio::spawn(load));
        let breaking = drive(
            drill,
            &mut world,
            &bank,
            &mut broken,
            Drive {
                start,
                plan,
                rate: settings.rate,
                words: &words,
            },
        );
        tokio::select! {
            (fired, done) = async { tokio::join!(load, breaking) } => {
                (fired.context("the load's task broke")?, done)
            }
            () = watch.run(&bank, live, &words) => anyhow::bail!("the watch ended by itself"),
        }
    };
    if let Some(error) = done.failed {
        return Err(error.context(format!("{} could not be carried out", drill.name)));
    }
    live.set_message(format!("{}: draining", drill.name));
    let applied = settled(&world, &watch, DRAIN_WITHIN).await?;
    live.set_message(format!("{}: judging", drill.name));
    let seen = Seen {
        began,
        epoch: epoch.plus(WARM_UP),
        plan,
        done,
        fired,
        looks: watch.take(),
        history: bank.take_history(),
    };
    let checks = judge(&mut world, &seen.history, &broken, applied).await?;
    let report = report(drill, settings, &seen, broken, checks);
    Ok((report, seen.history))
}

fn open_bank(world: &World, seed: &Seed) -> anyhow::Result<Bank> {
    let id: BankId = BANK.parse()?;
    let secret: Secret = world.common.papers.secret.parse()?;
    let near = world.edges.iter().map(|edge| (edge, false));
    let far = world.far.iter().map(|edge| (edge, true));
    let doors = near
        .chain(far)
        .map(|(edge, far)| (format!("edge-{}", edge.id), edge.door.clone(), far));
    let shoppers = seed.trips.iter().map(|sheet| sheet.trip.shopper);
    Ok(Bank::new(
        id,
        Signer::new(secret),
        doors.collect(),
        shoppers.collect(),
    ))
}

/// What breaking needs to know.
struct Drive<'a> {
    start: Instant,
    plan: Plan,
    rate: u64,
    words: &'a Mutex<String>,
}

// === impl Drive ===

impl Drive<'_> {
    fn say(&self, words: String) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    async fn until(&self, at: Duration) {
        tokio::time::sleep_until(self.start.checked_add(at).unwrap_or(self.start)).await;
    }

    /// Milliseconds since the drill's own beginning.
    fn now_ms(&self) -> u64 {
        let since = self.start.elapsed().saturating_sub(WARM_UP);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Breaks what is to be broken, looks whether it is, and puts it right: always, also when something
/// failed on the way.
async fn drive(
    drill: &Drill,
    world: &mut World,
    bank: &Bank,
    broken: &mut Broken,
    by: Drive<'_>,
) -> Done {
    by.until(WARM_UP).await;
    by.say(format!("{}: all is well", drill.name));
    by.until(by.plan.fault).await;
    by.say(format!("{}: broken", drill.name));
    let fault_ms = by.now_ms();
    let mut failed = None;
    let mut begun = 0_usize;
    for fault in &drill.faults {
        begun = begun.saturating_add(1);
        if let Err(error) = fault.inject(world, bank, broken).await {
            failed = Some(error.context(format!("injecting {fault:?}")));
            break;
        }
    }
    if failed.is_none() {
        by.until(by.plan.heal).await;
        let lasted = by.plan.heal.saturating_sub(by.plan.fault);
        for fault in &drill.faults {
            let proved = fault.prove(world, bank, (by.rate, lasted), broken).await;
            if let Err(error) = proved {
                broken.proofs.push(Proof {
                    seen: format!("{fault:?}: {error:#}"),
                    ok: false,
                });
            }
        }
    }
    by.say(format!("{}: healing", drill.name));
    let mut restored = true;
    for fault in drill.faults.iter().take(begun).rev() {
        if let Err(error) = fault.heal(world, broken).await {
            restored = false;
            failed.get_or_insert_with(|| error.context(format!("healing {fault:?}")));
        }
    }
    by.say(format!("{}: afterwards", drill.name));
    Done {
        injection: Injection {
            what: drill.title.to_owned(),
            proofs: std::mem::take(&mut broken.proofs),
            restored,
        },
        fault_ms,
        healed_ms: by.now_ms(),
        failed,
    }
}

fn report(
    drill: &Drill,
    settings: Settings,
    seen: &Seen,
    broken: Broken,
    checks: Vec<standin_reconcile::checker::Check>,
) -> DrillReport {
    let marks = Marks {
        epoch: seen.epoch.as_millis(),
        fault_ms: seen.done.fault_ms,
        healed_ms: seen.done.healed_ms,
        end_ms: u64::try_from(seen.plan.end.saturating_sub(WARM_UP).as_millis())
            .unwrap_or(u64::MAX),
    };
    let load = Load {
        rate: settings.rate,
        unsent: seen.fired.unsent,
        deadline_ms: u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX),
    };
    let figures: Figures = figures(&seen.history, &seen.looks.samples, &marks, load);
    let mut limits = drill.limits.clone();
    if let (Some(drain), Span::UntilBacklog) = (&mut limits.drain, drill.pace.fault) {
        drain.backlog_min = settings.backlog.saturating_mul(9) / 10;
    }
    let timeline = timeline(&seen.history, &seen.looks.backlog, marks.epoch, TICK_MS);
    DrillReport {
        name: drill.name.to_owned(),
        title: drill.title.to_owned(),
        hypothesis: drill.hypothesis.to_owned(),
        steady_state: format!(
            "{} payments a second at three edges, 99 % of them answered in time.",
            settings.rate
        ),
        started_at: seen.epoch.to_string(),
        seconds: seen.began.elapsed().as_secs_f64(),
        options: options(settings),
        machine: machine(),
        verdicts: verdicts(&figures, &limits, &seen.done.injection, &checks),
        injection: seen.done.injection.clone(),
        checks,
        phases: phases(&seen.history, &marks),
        exposure: exposure(&timeline, seen),
        timeline,
        figures,
        currency: seen
            .looks
            .currency
            .clone()
            .unwrap_or_else(|| "USD".to_owned()),
        shades: vec![Shade {
            from_ms: marks.fault_ms,
            until_ms: marks.healed_ms,
            label: drill.title.to_owned(),
        }],
        notes: broken.notes.into_iter().chain(stalls(seen)).collect(),
    }
}

/// What there is to say of slow disks: they explain late answers that no fault does.
fn stalls(seen: &Seen) -> Vec<String> {
    let told = seen.looks.stalls.iter().take(STALLS_TOLD);
    let mut notes: Vec<String> = told
        .map(|stall| {
            let since = stall.at.saturating_sub(seen.epoch.as_millis());
            format!(
                "By {since} ms the disk had taken longer than {STALL_MS} ms for {} of edge {}'s syncs.",
                stall.syncs, stall.edge
            )
        })
        .collect();
    let more = seen.looks.stalls.len().saturating_sub(STALLS_TOLD);
    if more > 0 {
        notes.push(format!("Slow syncs were seen {more} times more."));
    }
    notes
}

fn options(settings: Settings) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([
        (
            "Load".to_owned(),
            format!("{} payments/s, open loop", settings.rate),
        ),
        ("Seed".to_owned(), settings.seed.to_string()),
        (
            "World".to_owned(),
            "three edges, TLS to banks and between edges, Postgres with a standby, Redis with two \
             replicas"
                .to_owned(),
        ),
    ]);
    if settings.quick {
        options.insert("Pace".to_owned(), "quick".to_owned());
    }
    options
}

fn phases(history: &[Attempt], marks: &Marks) -> Vec<PhaseReport> {
    let between = |from: u64, until: u64| {
        history.iter().filter(move |attempt| {
            let since = attempt.intended_at.saturating_sub(marks.epoch);
            u64::try_from(since).is_ok_and(|since| (from..until).contains(&since))
        })
    };
    [
        ("before", 0, marks.fault_ms),
        ("in the fault", marks.fault_ms, marks.healed_ms),
        ("after it", marks.healed_ms, marks.end_ms),
    ]
    .into_iter()
    .map(|(name, from, until)| PhaseReport::of(name, between(from, until)))
    .collect()
}

/// Money approved without the primary at the end of each tick.
fn exposure(timeline: &[Tick], seen: &Seen) -> Vec<i64> {
    let mut samples = seen.looks.samples.iter().peekable();
    let mut shown = 0;
    timeline
        .iter()
        .map(|tick| {
            let end = seen
                .epoch
                .as_millis()
                .saturating_add_unsigned(tick.at_ms.saturating_add(TICK_MS));
            while let Some(sample) = samples.next_if(|sample| sample.at < end) {
                shown = sample.exposed_minor.max(shown);
            }
            shown
        })
        .collect()
}
