//! The loop of an announcer: asks its edge and the other announcers, decides, acts, and sees to it
//! that what was decided stays in force.
//!
//! It is a process of its own, because one inside the edge would hang with it. When it dies, what it
//! announced stays: whoever starts it again goes on from what is in force.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::BoxFuture;
use crate::announce::{Act, Announcement, Health, Probe, Rules, Why, Word};
use crate::announcer::{AnnounceError, Announcer, InForce};

/// What was seen and not yet decided on; more waits at who saw it.
const EVENTS_MAX: usize = 64;

/// Asks the edge how it is.
pub trait Edge: Send + Sync + 'static {
    /// Asks once. It may take longer than it should: who asks sets the limit.
    fn probe(&self) -> BoxFuture<'_, Probe>;
}

/// Asks another announcer how it is.
pub trait Other: Send + Sync + 'static {
    /// Asks once; `None` when there is no answer.
    fn ask(&self) -> BoxFuture<'_, Option<Word>>;
}

/// How often is looked, and how long waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Between probes, from one's beginning to the next one's.
    pub every: Duration,
    /// For one probe.
    pub deadline: Duration,
    /// Between looks at each other announcer, and for one.
    pub others: Duration,
    /// Between looks at what is in force.
    pub confirm: Duration,
    /// For routers to hear of a withdrawal, when the announcer ends.
    pub settle: Duration,
    /// For a withdrawal to be in force, when the announcer ends.
    pub end_within: Duration,
}

/// Whom an announcer asks, and by which rules it decides.
pub struct Setup {
    /// The rules.
    pub rules: Rules,
    /// The times.
    pub timing: Timing,
    /// Its edge.
    pub edge: Arc<dyn Edge>,
    /// The others.
    pub others: Vec<Arc<dyn Other>>,
}

/// How it is, for who asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// It is to be announced.
    pub announced: bool,
    /// As the last probe found the edge.
    pub health: Health,
    /// Why it is, or is not.
    pub why: Why,
    /// What is in force, if that is known.
    pub in_force: Option<InForce>,
    /// Announcements and withdrawals so far.
    pub changes: u64,
    /// Why what was decided is not in force.
    pub problem: Option<String>,
}

/// How an announcer ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It is withdrawn, and routers had time to hear of it.
    Withdrawn,
    /// It stays announced: too few others are.
    LeftAnnounced,
    /// What is in force is not known.
    Unknown(String),
}

enum Event {
    Probed {
        probe: Probe,
        asked: Duration,
    },
    Heard {
        other: usize,
        word: Word,
        asked: Duration,
    },
}

struct Loop<A> {
    timing: Timing,
    announcement: Announcement,
    announcer: A,
    report: watch::Sender<Report>,
    began: Instant,
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        // A hung edge is withdrawn 250 + 2 × 600 ms after it hung, and what BIRD takes.
        Self {
            every: Duration::from_millis(250),
            deadline: Duration::from_millis(600),
            others: Duration::from_millis(250),
            confirm: Duration::from_secs(1),
            settle: Duration::from_secs(1),
            end_within: Duration::from_secs(3),
        }
    }
}

// === impl Report ===

impl Report {
    /// Before anything is known.
    pub const fn new() -> Self {
        Self {
            announced: false,
            health: Health::Dead,
            why: Why::Rising,
            in_force: None,
            changes: 0,
            problem: None,
        }
    }

    /// What others are told: what is only decided helps nobody.
    pub fn word(&self) -> Word {
        Word {
            announced: self.announced && self.in_force == Some(InForce::Announced),
            health: self.health,
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks after one edge until `stop` ends.
pub async fn run<A: Announcer>(
    setup: Setup,
    mut announcer: A,
    report: watch::Sender<Report>,
    stop: impl Future<Output = ()>,
) -> Ended {
    let Setup {
        rules,
        timing,
        edge,
        others,
    } = setup;
    let mut stop = std::pin::pin!(stop);
    let known = tokio::select! {
        known = in_force_at_first(&mut announcer, timing, &report) => known,
        () = stop.as_mut() => return Ended::Unknown("it never was".to_owned()),
    };
    let began = Instant::now();
    let (events, mut seen) = mpsc::channel(EVENTS_MAX);
    let mut looking = JoinSet::new();
    let count = others.len();
    looking.spawn(probe_edge(edge, timing, began, events.clone()));
    for (number, other) in others.into_iter().enumerate() {
        looking.spawn(ask_other((number, other), timing, began, events.clone()));
    }
    drop(events);
    let announced = known != InForce::Withdrawn;
    let mut looped = Loop {
        timing,
        announcement: Announcement::new(rules, announced, count, Duration::ZERO),
        announcer,
        report,
        began,
    };
    looped.tell(|report| report.in_force = Some(known));
    let mut confirm = interval(timing.confirm);
    confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.as_mut() => return looped.end().await,
            event = seen.recv() => match event {
                Some(event) => looped.see(event).await,
                // Who looks never ends before it is told to.
                None => return Ended::Unknown("nobody looks any more".to_owned()),
            },
            _ = confirm.tick() => looped.confirm().await,
        }
    }
}

/// What is in force before anything is decided: an announcer that was started again changes nothing.
async fn in_force_at_first(
    announcer: &mut impl Announcer,
    timing: Timing,
    report: &watch::Sender<Report>,
) -> InForce {
    let mut pause = interval(timing.confirm);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        match announcer.in_force().await {
            Ok(known) => return known,
            Err(error) => {
                tracing::warn!(%error, "what is announced is not known");
                report.send_modify(|report| report.problem = Some(error.to_string()));
            }
        }
    }
}

async fn probe_edge(
    edge: Arc<dyn Edge>,
    timing: Timing,
    began: Instant,
    events: mpsc::Sender<Event>,
) {
    let mut turn = interval(timing.every);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let asked = began.elapsed();
        let probed = timeout(timing.deadline, edge.probe()).await;
        let probe = probed.unwrap_or(Probe::TimedOut);
        if events.send(Event::Probed { probe, asked }).await.is_err() {
            return;
        }
        if probe == Probe::TimedOut {
            // It has waited long enough: the next one is asked for at once.
            turn.reset_immediately();
        }
    }
}

async fn ask_other(
    (other, whom): (usize, Arc<dyn Other>),
    timing: Timing,
    began: Instant,
    events: mpsc::Sender<Event>,
) {
    let mut turn = interval(timing.others);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let asked = began.elapsed();
        let Ok(Some(word)) = timeout(timing.others, whom.ask()).await else {
            continue;
        };
        let heard = Event::Heard { other, word, asked };
        if events.send(heard).await.is_err() {
            return;
        }
    }
}

// === impl Loop ===

impl<A: Announcer> Loop<A> {
    async fn see(&mut self, event: Event) {
        let now = self.began.elapsed();
        let act = match event {
            Event::Probed { probe, asked } => self.announcement.probed(probe, asked, now),
            Event::Heard { other, word, asked } => self.announcement.heard(other, word, asked, now),
        };
        self.carry_out(act).await;
    }

    /// Sees to it that what was decided is in force: BIRD may have been started again, or an
    /// operator have switched it.
    async fn confirm(&mut self) {
        let act = self.announcement.decide(self.began.elapsed());
        self.carry_out(act).await;
        let known = match self.announcer.in_force().await {
            Ok(known) => known,
            Err(error) => return self.fault(&error),
        };
        let (is_right, again) = if self.announcement.is_announced() {
            let on = matches!(known, InForce::Announced | InForce::Unheard);
            (on, Act::Announce)
        } else {
            (known == InForce::Withdrawn, Act::Withdraw)
        };
        if is_right {
            self.tell(|report| {
                report.in_force = Some(known);
                report.problem = None;
            });
        } else {
            tracing::warn!(?known, ?again, "what is in force is not what was decided");
            self.act(again).await;
        }
    }

    async fn carry_out(&mut self, act: Option<Act>) {
        if let Some(act) = act {
            let why = self.announcement.why();
            tracing::warn!(?act, ?why, "the announcement changes");
            self.tell(|report| report.changes = report.changes.saturating_add(1));
            self.act(act).await;
        } else {
            self.tell(|_| {});
        }
    }

    async fn act(&mut self, act: Act) {
        let done = match act {
            Act::Announce => self.announcer.announce().await.map(|()| InForce::Announced),
            Act::Withdraw => self.announcer.withdraw().await.map(|()| InForce::Withdrawn),
        };
        match done {
            Ok(known) => self.tell(|report| {
                report.in_force = Some(known);
                report.problem = None;
            }),
            Err(error) => self.fault(&error),
        }
    }

    fn fault(&self, error: &AnnounceError) {
        tracing::error!(%error, "what was decided may not be in force");
        self.tell(|report| {
            report.in_force = None;
            report.problem = Some(error.to_string());
        });
    }

    fn tell(&self, more: impl FnOnce(&mut Report)) {
        let Word { announced, health } = self.announcement.word();
        let why = self.announcement.why();
        self.report.send_modify(|report| {
            (report.announced, report.health, report.why) = (announced, health, why);
            more(report);
        });
    }

    async fn end(mut self) -> Ended {
        let was = self.announcement.is_announced();
        if !self.announcement.end(self.began.elapsed()) {
            self.tell(|_| {});
            return Ended::LeftAnnounced;
        }
        self.tell(|_| {});
        match timeout(self.timing.end_within, self.withdrawn()).await {
            Err(_elapsed) => return Ended::Unknown("the withdrawal took too long".to_owned()),
            Ok(Err(error)) => return Ended::Unknown(error.to_string()),
            Ok(Ok(())) => {}
        }
        if was {
            tokio::time::sleep(self.timing.settle).await;
        }
        Ended::Withdrawn
    }

    async fn withdrawn(&mut self) -> Result<(), AnnounceError> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        self.announcer.withdraw().await?;
        while self.announcer.in_force().await? != InForce::Withdrawn {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
