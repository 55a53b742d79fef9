//! From what a run left behind to its report.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use standin_core::clock::Timestamp;
use standin_reconcile::history::{self, Attempt, Counts};
use standin_reconcile::report::{
    BacklogSample, DemoReport, Machine, PhaseReport, Shade, WalFigures, longest_gap_ms, timeline,
};
use tokio::time::Instant;

use super::elections::Elections;
use super::group::KEEPERS;
use super::judge::{Judgement, rungs};
use super::plan::Timing;
use super::primary::Server;
use super::{Args, Story, With};

/// What a bank waits for an answer.
pub(super) const DEADLINE_MS: u64 = 1_000;
/// Shortest outage-to-recovery share of `primary` answers that is right, percent.
const PRIMARY_SHARE_MIN: u64 = 90;

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

/// What a report needs besides the history.
pub(super) struct Facts<'a> {
    pub(super) args: &'a Args,
    pub(super) timing: Timing,
    pub(super) began: Instant,
    /// When the load began.
    pub(super) epoch: Timestamp,
    pub(super) stories: &'a BTreeMap<Story, u64>,
    pub(super) samples: &'a [BacklogSample],
    pub(super) elections: &'a Elections,
    pub(super) longest_election: Duration,
    /// The leader that was killed.
    pub(super) killed: u64,
    pub(super) platform: BTreeMap<&'static str, u64>,
    pub(super) latencies: Vec<crate::tally::Line>,
}

/// A phase, with the shares that acceptance asks for.
struct Phase {
    report: PhaseReport,
    after_first_second: BTreeMap<&'static str, u64>,
    last_third: BTreeMap<&'static str, u64>,
}

// === impl Facts ===

impl Facts<'_> {
    /// The report, and whether everything is as it should be.
    pub(super) fn outcome(
        self,
        attempts: &[Attempt],
        judged: Judgement,
        mut complaints: Vec<String>,
    ) -> anyhow::Result<Outcome> {
        let phases = self.phases(attempts);
        let Judgement {
            reconciliation,
            checks,
            wal,
            ledger,
        } = judged;
        let mut report = DemoReport {
            title: "Standin demo".to_owned(),
            started_at: self.epoch.to_string(),
            seconds: self.began.elapsed().as_secs_f64(),
            options: self.options(),
            machine: machine(),
            requests: 0,
            no_answer: 0,
            late: 0,
            wrong: 0,
            retried: 0,
            longest_gap_ms: longest_gap_ms(attempts, DEADLINE_MS),
            phases: phases.iter().map(|phase| phase.report.clone()).collect(),
            wal: WalFigures {
                members: KEEPERS,
                leader_changes: self.elections.changes(),
                longest_election_ms: millis(self.longest_election),
                ..wal
            },
            ledger,
            checks,
            timeline: timeline(attempts, self.samples, self.epoch.as_millis(), 500),
            outages: self.shades(),
            reconciliation: Some(reconciliation),
        };
        report.set_counts(Counts::of(attempts, DEADLINE_MS));
        complaints.extend(phases.iter().filter_map(Phase::complaint));
        let mut json = serde_json::to_value(&report)?;
        for (phase, shown) in phases
            .iter()
            .zip(json["phases"].as_array_mut().into_iter().flatten())
        {
            shown["rungs_after_first_second"] = serde_json::to_value(&phase.after_first_second)?;
            shown["rungs_last_third"] = serde_json::to_value(&phase.last_third)?;
        }
        json["killed_leader"] = self.killed.into();
        json["platform"] = serde_json::to_value(&self.platform)?;
        json["stories"] = serde_json::to_value(self.stories)?;
        json["latencies"] = serde_json::to_value(&self.latencies)?;
        let is_clean = report.is_clean() && complaints.is_empty();
        json["complaints"] = serde_json::to_value(&complaints)?;
        json["clean"] = is_clean.into();
        Ok(Outcome {
            json,
            report,
            latencies: self.latencies,
            is_clean,
            complaints,
        })
    }

    fn phases(&self, attempts: &[Attempt]) -> Vec<Phase> {
        let epoch = self.epoch;
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
            kill_ms,
            return_ms,
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
            shade(
                kill_ms,
                return_ms,
                &format!("edge {}, the leader, killed", self.killed),
            ),
        ]
    }

    fn options(&self) -> BTreeMap<String, String> {
        let with = |server: With, real: &str| match self.args.is_real(server) {
            Server::Real => real.to_owned(),
            Server::Embedded => "embedded".to_owned(),
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
    pub(super) fn words(self, at_ms: u64) -> &'static str {
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where this runs.
pub(crate) fn machine() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpus: u64::try_from(cpus).unwrap_or(1),
    }
}

/// Writes the reports and the history to a folder.
pub(super) fn write(out: &Path, outcome: &Outcome, history: &[Attempt]) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", out.display());
    std::fs::create_dir_all(out).with_context(place)?;
    let json = serde_json::to_vec_pretty(&outcome.json)?;
    std::fs::write(out.join("report.json"), json).with_context(place)?;
    let html = standin_reconcile::report::html::demo(&outcome.report)?;
    std::fs::write(out.join("report.html"), html).with_context(place)?;
    let file = std::fs::File::create(out.join("history.jsonl")).with_context(place)?;
    history::write(std::io::BufWriter::new(file), history).with_context(place)
}
