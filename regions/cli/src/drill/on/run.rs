//! One drill on a deployment, from its steady state to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::future::join_all;
use indicatif::ProgressBar;
use standin_core::clock::{Clock, SystemClock};
use standin_edge::played::{Over, Shown};
use standin_reconcile::report::Shade;
use standin_reconcile::report::drill::deployed::{Counted, DeployedReport, verdicts};
use standin_reconcile::report::drill::{Injection, Proof};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::super::catalogue::Pace;
use super::deployment::{Deployment, EdgeName};
use super::desk::Signed;
use super::plays::Play;
use super::watch::{About, Phase, Watch};

/// A fault is ordered for so much longer than it is played: when whoever drives the drill is gone, it ends
/// by itself so long after it should have.
pub(super) const MARGIN: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A fault that an edge could not be told to end is over by its own time: it is asked for so long after
/// that.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// Fewer requests while all is well are no traffic that could be judged.
const TRAFFIC_MIN: u64 = 10;

/// What drills are run with.
pub(super) struct Driver<'a> {
    pub(super) deployment: &'a Deployment,
    /// The edges, in the order of their desks.
    pub(super) names: Vec<EdgeName>,
    /// Those that a fault is played on.
    pub(super) played: Vec<usize>,
    /// Why, for the edges' log lines.
    pub(super) reason: Option<String>,
    pub(super) quick: bool,
    /// Cancelled when somebody wants it to end.
    pub(super) stop: &'a CancellationToken,
    pub(super) live: &'a ProgressBar,
}

/// How a stretch of a drill ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ended {
    /// Its time was over.
    InTime,
    /// It was no good to go on.
    Aborted(String),
    /// Somebody wants it to end.
    Stopped,
}

/// A fault that an edge was asked to play.
struct Begun {
    at: usize,
    /// `None`: it did not say so, and may play it all the same.
    shown: Option<Shown>,
}

/// What became of the fault.
struct Played {
    ended: Ended,
    /// By edge, as it was at its end; `None` where that was not heard.
    faults: Vec<(usize, Option<Shown>)>,
    restored: bool,
    fault_ms: u64,
    healed_ms: u64,
    notes: Vec<String>,
}

// === impl Driver ===

impl Driver<'_> {
    /// Runs a drill. Whatever happens on the way, every edge is told to end its fault.
    ///
    /// # Errors
    /// When it was not carried out: all is not well before it, there is no traffic, an edge refuses, or it
    /// was told to stop.
    pub(super) async fn run(&self, play: &Play) -> anyhow::Result<DeployedReport> {
        let began = Instant::now();
        let started_at = SystemClock.now().to_string();
        let pace = if self.quick {
            play.pace.quick()
        } else {
            play.pace
        };
        let mut watch = Watch::new(self.about(), began);
        watch.look(&self.deployment.desks).await;
        all_is_well(&watch)?;
        self.say(play, "all is well, and is looked at");
        let ended = self.watch_for(&mut watch, pace.steady, Phase::Before).await;
        self.go_on(&ended)?;
        all_is_well(&watch)?;
        self.traffic(&watch)?;
        let played = self.play(play, pace, &mut watch).await?;
        self.say(play, "ended; waiting until everything is as before");
        self.settle(&mut watch, pace.after).await;
        ensure!(
            played.ended != Ended::Stopped && !self.stop.is_cancelled(),
            "told to end; every fault that was played is ended"
        );
        Ok(self.report(play, (started_at, began), &watch, played))
    }

    fn about(&self) -> About {
        About {
            names: self.names.clone(),
            played: self.played.iter().copied().collect(),
            deadline_ms: self.deployment.expected.deadline_ms,
            abort: self.deployment.abort,
        }
    }

    fn say(&self, play: &Play, what: &str) {
        let line = format!("{} on {}: {what}", play.name, self.deployment.name);
        self.live.set_message(line.clone());
        self.live.suspend(|| eprintln!("{line}"));
    }

    /// An error where a drill may not go on, while nothing is played.
    fn go_on(&self, ended: &Ended) -> anyhow::Result<()> {
        match ended {
            Ended::InTime => Ok(()),
            Ended::Aborted(why) => bail!("before anything was played: {why}"),
            Ended::Stopped => bail!("told to end, before anything was played"),
        }
    }

    /// The drill is judged by the traffic that is there: without any it shows nothing.
    fn traffic(&self, watch: &Watch) -> anyhow::Result<()> {
        let seen = watch.part(Phase::Before, true).requests();
        ensure!(
            seen >= TRAFFIC_MIN,
            "there is no traffic to judge it by: {seen} requests in {} s at the edges that the fault is to be played on, {TRAFFIC_MIN} are needed",
            Duration::from_millis(watch.part(Phase::Before, true).ms).as_secs()
        );
        Ok(())
    }

    /// Looks for so long, unless it has to end before.
    async fn watch_for(&self, watch: &mut Watch, lasts: Duration, phase: Phase) -> Ended {
        let began = Instant::now();
        let over = began.checked_add(lasts).unwrap_or(began);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Stopped,
                _ = ticks.tick() => {}
            }
            watch.look(&self.deployment.desks).await;
            let now = Instant::now();
            if let Some(why) = watch.cause_to_abort(now) {
                return Ended::Aborted(why);
            }
            if now >= over {
                return Ended::InTime;
            }
            self.tell(watch, phase);
        }
    }

    fn tell(&self, watch: &Watch, phase: Phase) {
        let part = watch.part(phase, false);
        let rungs: Vec<String> = part
            .rungs
            .iter()
            .map(|(rung, n)| format!("{n} {rung}"))
            .collect();
        self.live.set_message(format!(
            "{}: {} answered ({}), {} late, {} without an answer",
            match phase {
                Phase::Before => "all is well",
                Phase::Fault => "the fault is played",
                Phase::After => "afterwards",
            },
            part.answered,
            rungs.join(", "),
            part.late,
            part.unanswered,
        ));
    }

    /// Has the fault played, looks at it, and has it ended: always, and without leaving in between.
    async fn play(&self, play: &Play, pace: Pace, watch: &mut Watch) -> anyhow::Result<Played> {
        let lasts = play.lasts(pace);
        let reason = self.reason.clone();
        let reason =
            reason.unwrap_or_else(|| format!("drill {} on {}", play.name, self.deployment.name));
        let by = Signed {
            operator: &self.deployment.operator,
            reason: &reason,
        };
        let ordered = Instant::now();
        let for_time = lasts.saturating_add(MARGIN);
        let (begun, refused) = self.begin(play, for_time, by).await;
        let all_begun = Instant::now();
        watch.fault_began(ordered, all_begun);
        let ended = match &refused {
            None => {
                let where_played = self.words(begun.iter().map(|begun| begun.at));
                self.say(
                    play,
                    &format!("{} is played on {where_played}", play.fault.as_str()),
                );
                self.watch_for(watch, lasts, Phase::Fault).await
            }
            Some(_) => Ended::Stopped,
        };
        if let Ended::Aborted(why) = &ended {
            self.say(play, &format!("aborted: {why}"));
        }
        let own_end = all_begun.checked_add(for_time.saturating_add(HEARD_WITHIN));
        let (faults, restored) = self.end(begun, by, own_end.unwrap_or(all_begun)).await;
        // What was counted until here belongs to the fault.
        watch.look(&self.deployment.desks).await;
        let now = Instant::now();
        watch.fault_ended(now);
        if let Some(error) = refused {
            let words = if restored {
                "every fault that had begun is ended"
            } else {
                "NOT every fault that had begun is known to be ended"
            };
            return Err(error.context(words));
        }
        Ok(Played {
            ended,
            notes: own_time(&self.names, &faults),
            faults,
            restored,
            fault_ms: watch.since(ordered),
            healed_ms: watch.since(now),
        })
    }

    /// Asks all at once; gives whom it asked, and the first that refused.
    async fn begin(
        &self,
        play: &Play,
        lasts: Duration,
        by: Signed<'_>,
    ) -> (Vec<Begun>, Option<anyhow::Error>) {
        let desks = self
            .played
            .iter()
            .filter_map(|at| Some((*at, self.deployment.desks.get(*at)?)));
        let asked =
            desks.map(|(at, desk)| async move { (at, desk.begin(play.fault, lasts, by).await) });
        let mut refused = None;
        let mut begun = Vec::new();
        for (at, asked) in join_all(asked).await {
            let shown = asked
                .map_err(|error| refused.get_or_insert(error).to_string())
                .ok();
            begun.push(Begun { at, shown });
        }
        (begun, refused)
    }

    /// Has every fault ended; says of each how it was at its end, and whether all are known to be.
    async fn end(
        &self,
        begun: Vec<Begun>,
        by: Signed<'_>,
        deadline: Instant,
    ) -> (Vec<(usize, Option<Shown>)>, bool) {
        let ending = begun.into_iter().map(|Begun { at, shown }| async move {
            let desk = self.deployment.desks.get(at);
            let number = shown.map(|shown| shown.number);
            let ended = match desk {
                Some(desk) => desk.end(number, by, deadline).await,
                None => Ok(None),
            };
            (at, ended)
        });
        let mut faults = Vec::new();
        let mut restored = true;
        for (at, ended) in join_all(ending).await {
            if let Err(error) = &ended {
                restored = false;
                let name = self.words([at].into_iter());
                self.live
                    .suspend(|| eprintln!("{name} has not said that its fault is over: {error:#}"));
            }
            faults.push((at, ended.ok().flatten()));
        }
        (faults, restored)
    }

    /// Looks until everything is as before, but not for ever.
    async fn settle(&self, watch: &mut Watch, least: Duration) {
        let began = Instant::now();
        let most = Duration::from_secs(self.deployment.expected.settle_s);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            watch.look(&self.deployment.desks).await;
            let passed = began.elapsed();
            if passed >= most || (passed >= least && watch.settled_in_ms.is_some()) {
                return;
            }
            self.tell(watch, Phase::After);
        }
    }

    /// The names of edges.
    fn words(&self, edges: impl Iterator<Item = usize>) -> String {
        let names = edges.filter_map(|at| self.names.get(at));
        let names: Vec<String> = names.map(EdgeName::to_string).collect();
        names.join(", ")
    }

    fn report(
        &self,
        play: &Play,
        began: (String, Instant),
        watch: &Watch,
        played: Played,
    ) -> DeployedReport {
        let deployment = self.deployment;
        let (started_at, began) = began;
        let lasted = played.healed_ms.saturating_sub(played.fault_ms);
        let counted = Counted {
            before: watch.part(Phase::Before, false),
            fault: watch.part(Phase::Fault, false),
            after: watch.part(Phase::After, false),
            played_before: watch.part(Phase::Before, true),
            played: watch.part(Phase::Fault, true),
            first_stand_in: watch.first_stand_in,
            mode_changes: watch.mode_changes(),
            fault_minutes: lasted.div_ceil(60_000),
            backlog: watch.backlog_at_heal,
            drained_in_ms: watch.drained_in_ms,
            settled_in_ms: watch.settled_in_ms,
            settle_ms: deployment.expected.settle_s.saturating_mul(1_000),
            exposed_minor: watch.exposed_minor,
            worst_case_minor: watch.worst_case_minor,
        };
        let mut notes = played.notes;
        if counted.settled_in_ms.is_none() {
            notes.extend(
                watch
                    .troubles()
                    .into_iter()
                    .map(|trouble| format!("At the end: {trouble}.")),
            );
        }
        let injection = Injection {
            what: format!(
                "{}, on {}",
                play.title,
                self.words(self.played.iter().copied())
            ),
            proofs: proofs(&self.names, &played.faults),
            restored: played.restored,
        };
        let aborted = match played.ended {
            Ended::Aborted(why) => Some(why),
            Ended::InTime | Ended::Stopped => None,
        };
        let limits = deployment.expected.of(&play.limits);
        let may_be_late = deployment.expected.late_of_10_000;
        let (timeline, exposure) = watch.timeline();
        DeployedReport {
            name: play.name.to_owned(),
            title: play.title.to_owned(),
            hypothesis: play.hypothesis.to_owned(),
            steady_state: "Every edge is ready, its breaker closed, no alarm raised, no fault played; 99 % of requests are \
                           answered in time."
                .to_owned(),
            started_at,
            seconds: began.elapsed().as_secs_f64(),
            deployment: deployment.name.clone(),
            options: self.options(play),
            verdicts: verdicts(&counted, &limits, may_be_late, &injection, aborted.as_deref()),
            injection,
            aborted,
            figures: counted,
            timeline,
            exposure,
            currency: watch.currency.clone().unwrap_or_else(|| "USD".to_owned()),
            shades: vec![Shade {
                from_ms: played.fault_ms,
                until_ms: played.healed_ms,
                label: play.title.to_owned(),
            }],
            notes,
        }
    }

    fn options(&self, play: &Play) -> BTreeMap<String, String> {
        let played: BTreeSet<usize> = self.played.iter().copied().collect();
        let alone = (0..self.names.len()).filter(|at| !played.contains(at));
        let mut options = BTreeMap::from([
            ("Deployment".to_owned(), self.deployment.name.clone()),
            ("Fault".to_owned(), play.fault.as_str().to_owned()),
            (
                "Played on".to_owned(),
                self.words(self.played.iter().copied()),
            ),
            ("Left alone".to_owned(), self.words(alone)),
            ("Operator".to_owned(), self.deployment.operator.clone()),
        ]);
        options.retain(|_, words| !words.is_empty());
        if self.quick {
            options.insert("Pace".to_owned(), "quick".to_owned());
        }
        options
    }
}

/// All has to be well at every edge before anything is played.
pub(super) fn all_is_well(watch: &Watch) -> anyhow::Result<()> {
    let troubles = watch.troubles();
    ensure!(
        troubles.is_empty(),
        "all is not well, so that nothing is played: {}",
        troubles.join("; ")
    );
    Ok(())
}

/// Each edge's own count of the calls that its fault hit.
fn proofs(names: &[EdgeName], faults: &[(usize, Option<Shown>)]) -> Vec<Proof> {
    let told = faults
        .iter()
        .filter_map(|(at, shown)| Some((names.get(*at)?, shown)));
    told.map(|(name, shown)| match shown {
        None => Proof {
            seen: format!("{name} did not say what its fault hit"),
            ok: false,
        },
        Some(shown) => {
            let (fault, calls) = (shown.fault.as_str(), shown.calls);
            Proof {
                seen: format!(
                    "{name} counts that {fault} hit {} calls of payments, {} probes, {} of the drain, {} others",
                    calls.payments, calls.probes, calls.drain, calls.others
                ),
                ok: calls.payments > 0,
            }
        }
    })
    .collect()
}

/// Edges whose fault ended by its own time.
fn own_time(names: &[EdgeName], faults: &[(usize, Option<Shown>)]) -> Vec<String> {
    let by_time = |(at, shown): &(usize, Option<Shown>)| {
        let over = shown.as_ref()?.over?;
        let name = names.get(*at)?;
        (over != Over::Ordered)
            .then(|| format!("The fault of {name} ended by itself: it was not reached before."))
    };
    faults.iter().filter_map(by_time).collect()
}

#[cfg(test)]
mod tests {
    use standin_edge::played::{Fault, Hits};

    use super::*;

    fn shown(payments: u64, over: Over) -> Shown {
        Shown {
            number: 1,
            fault: Fault::PrimaryHanging,
            began_at: "t".to_owned(),
            ends_at: "u".to_owned(),
            ends_in_ms: 0,
            operator: "ada".to_owned(),
            reason: "x".to_owned(),
            calls: Hits {
                payments,
                probes: 7,
                ..Hits::default()
            },
            over: Some(over),
        }
    }

    #[test]
    fn only_payments_that_a_fault_hit_prove_it_at_every_edge() {
        let names: Vec<EdgeName> = (1..=3)
            .map(|edge| EdgeName {
                region: "near".to_owned(),
                edge,
            })
            .collect();
        let faults = [
            (0, Some(shown(4, Over::Ordered))),
            (1, Some(shown(0, Over::Time))),
            (2, None),
        ];
        let ok: Vec<bool> = proofs(&names, &faults)
            .iter()
            .map(|proof| proof.ok)
            .collect();
        assert_eq!(ok, [true, false, false]);
        let notes = own_time(&names, &faults);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("near/2"), "{notes:?}");
    }
}
