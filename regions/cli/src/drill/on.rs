//! `standin drill on`: drills on a deployment that is named, by faults that its edges play on themselves.
//!
//! Read in this order: `deployment` (the file), `plays` (which drills, and what an edge plays), `desk`
//! (an edge's admin listener), `watch` (looks and counts), `run`. What is a pass is decided in
//! [`standin_reconcile::report::drill::deployed`]. Whoever names a deployment consents three times: in the
//! file, by typing its name, and in each edge's configuration. Everything is looked at before anything is
//! played.

mod deployment;
mod desk;
pub(super) mod plays;
mod run;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use futures_util::future::join_all;
use standin_reconcile::report::drill::deployed::DeployedReport;
use standin_reconcile::report::html;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::deployment::{Deployment, EdgeName};
use self::desk::{Desk, Seen};
use self::plays::Play;
use self::run::Driver;
use super::{HTML, JSON};
use crate::out::{align_right, live_line, say, say_json, table};

/// Plays drills on a deployment, on the traffic that is there.
///
/// FILE names its edges' admin listeners, who orders, and consent; docs/drills.md has an example. Nothing is
/// broken: each edge plays the fault on itself, and only if its own configuration consents. First every
/// edge has to be well. Then some of them, one fewer than all and never a whole region unless FILE says so,
/// play the fault; all are looked at meanwhile. When too many requests get no answer, or late ones, or an
/// edge is not well for another reason, the faults end at once. They end in any case, also when this command
/// is interrupted; and by the edges' own time when it is killed.
///
/// Judged from the edges' own counts: that the fault hit payments, answers in time, standing in, the drain,
/// no flapping. The promises S1 to S19 are not: `standin drill run` judges those.
///
/// Writes DIR/NAME/drill.json and drill.html for each.
///
/// Exit code: 0 every drill passed, 2 one did not, 1 one could not be run, or there was no traffic.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin drill on staging.toml primary-killed --i-mean staging-eu
  standin drill on staging.toml all --i-mean staging-eu --out drills")]
pub(super) struct OnArgs {
    /// Names the deployment.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Names of drills, or `all`; `standin drill list` says which can be played on a deployment.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The deployment's name once more: this is the one that is meant.
    #[arg(long, value_name = "DEPLOYMENT")]
    i_mean: Option<String>,
    /// Why, for the edges' log lines.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Everything in a quarter of its time. Less is shown.
    #[arg(long)]
    quick: bool,
    /// Where the reports go; drill-DEPLOYMENT if it is not said.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The reports as JSON on standard output, instead of a table.
    #[arg(long)]
    json: bool,
}

// === impl OnArgs ===

impl OnArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When it is refused, or a drill could not be run.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let deployment = Deployment::read(&self.file)?;
        self.consented(&deployment)?;
        let plays = self.plays()?;
        let stop = CancellationToken::new();
        let _heard = AbortOnDropHandle::new(tokio::spawn(end_when_told(stop.clone())));
        let (names, played) = chosen(&deployment).await?;
        let live = live_line();
        let driver = Driver {
            names,
            played,
            reason: self.reason.clone(),
            quick: self.quick,
            stop: &stop,
            live: &live,
            deployment: &deployment,
        };
        let out = self.out.clone();
        let out = out.unwrap_or_else(|| PathBuf::from(format!("drill-{}", deployment.name)));
        let mut reports = Vec::new();
        let mut failed = None;
        for play in plays {
            let folder = out.join(play.name);
            super::begin(&folder, play.name, play.title)?;
            match Box::pin(driver.run(&play)).await {
                Ok(report) => {
                    write(&folder, &report)?;
                    live.suspend(|| eprintln!("{}", line(&report)));
                    reports.push(report);
                }
                // What keeps one from being run keeps the next one, and nobody plays on where all is not
                // well.
                Err(error) => {
                    drop(std::fs::remove_file(folder.join(JSON)));
                    failed = Some(error.context(format!("{} was not carried out", play.name)));
                    break;
                }
            }
        }
        live.finish_and_clear();
        let code = shown(&reports, self.json)?;
        failed.map_or(Ok(code), Err)
    }

    /// Nothing is asked of a deployment whose file or whose operator does not say so.
    fn consented(&self, deployment: &Deployment) -> anyhow::Result<()> {
        let name = &deployment.name;
        ensure!(
            deployment.consent,
            "{name} does not consent to drills: its file does not say `consent = true`"
        );
        match self.i_mean.as_deref() {
            None => bail!("say which deployment you mean: --i-mean {name}"),
            Some(meant) => ensure!(
                meant == name,
                "the file names {name}, and {meant} is meant; nothing was done"
            ),
        }
        Ok(())
    }

    fn plays(&self) -> anyhow::Result<Vec<Play>> {
        let mut plays = Vec::new();
        for name in &self.names {
            if name == "all" {
                plays.extend(plays::all());
                continue;
            }
            let play = Play::named(name).with_context(|| {
                format!("\"{name}\" cannot be played on a deployment; `standin drill list` says what can")
            })?;
            plays.push(play);
        }
        Ok(plays)
    }
}

/// Asks every edge who it is; gives their names and those that faults are played on. Each of them has to
/// consent.
async fn chosen(deployment: &Deployment) -> anyhow::Result<(Vec<EdgeName>, Vec<usize>)> {
    let looks = join_all(deployment.desks.iter().map(Desk::look)).await;
    let seen: Vec<Seen> = looks.into_iter().collect::<anyhow::Result<_>>()?;
    let names: Vec<EdgeName> = seen.iter().map(Seen::name).collect::<anyhow::Result<_>>()?;
    let mut known = BTreeSet::new();
    for (name, desk) in names.iter().zip(&deployment.desks) {
        ensure!(
            known.insert(name),
            "{} is {name}, which is named twice",
            desk.at
        );
    }
    let played = deployment.pick(&names);
    ensure!(
        !played.is_empty(),
        "no fault may be played on any edge: every region has one only; edges_at_once and whole_regions say otherwise"
    );
    for at in &played {
        let consent = seen.get(*at).is_some_and(|seen| seen.drills.consent);
        let name = names.get(*at).map(EdgeName::to_string);
        ensure!(
            consent,
            "{} does not consent to drills: drills.consent is not \"yes\" in its configuration; nothing was done",
            name.unwrap_or_default()
        );
    }
    Ok((names, played))
}

/// The first signal ends a drill in order, faults first; the second ends the process where it stands, and
/// faults end by the edges' own time.
async fn end_when_told(stop: CancellationToken) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    for _ in 0..2 {
        tokio::select! {
            heard = tokio::signal::ctrl_c() => {
                if heard.is_err() {
                    return;
                }
            }
            _ = terminate.recv() => {}
        }
        if stop.is_cancelled() {
            eprintln!("ended where it stood; faults end by the edges' own time");
            std::process::exit(1);
        }
        eprintln!("told to end: faults are ended first");
        stop.cancel();
    }
}

fn write(folder: &Path, report: &DeployedReport) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(place)?;
    std::fs::write(folder.join(JSON), serde_json::to_vec_pretty(report)?).with_context(place)?;
    write_page(folder, report)
}

/// Makes a drill's page from its report.
pub(super) fn write_page(folder: &Path, report: &DeployedReport) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::write(folder.join(HTML), html::deployed(report)?).with_context(place)
}

/// Shows drills; gives the exit code.
pub(super) fn shown(reports: &[DeployedReport], json: bool) -> anyhow::Result<u8> {
    if json {
        say_json(&reports)?;
    } else if !reports.is_empty() {
        say(summary(reports));
    }
    let all = reports.iter().all(DeployedReport::passed);
    Ok(if all { 0 } else { 2 })
}

/// One drill in a line.
fn line(report: &DeployedReport) -> String {
    let word = if report.passed() { "passed" } else { "FAILED" };
    let broken: Vec<String> = report
        .failures()
        .map(|check| format!("; {}: {}", check.id, check.detail))
        .collect();
    format!(
        "{} on {}: {word} in {:.0} s{}",
        report.name,
        report.deployment,
        report.seconds,
        broken.concat()
    )
}

/// All drills as a table for people.
fn summary(reports: &[DeployedReport]) -> String {
    let mut rows = table([
        "drill",
        "verdict",
        "requests",
        "late",
        "no answer",
        "stood in by ms",
        "settled ms",
        "not kept",
    ]);
    for report in reports {
        let counted = &report.figures;
        let parts = [&counted.before, &counted.fault, &counted.after];
        let sum = |counts: [u64; 3]| counts.into_iter().fold(0, u64::saturating_add).to_string();
        let known = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| ms.to_string());
        let failures: Vec<&str> = report.failures().map(|check| check.id.as_str()).collect();
        rows.add_row([
            report.name.clone(),
            if report.passed() { "passed" } else { "FAILED" }.to_owned(),
            sum(parts.map(|part| part.requests())),
            sum(parts.map(|part| part.late)),
            sum(parts.map(|part| part.unanswered)),
            known(counted.first_stand_in.map(|between| between.by_ms)),
            known(counted.settled_in_ms),
            failures.join(", "),
        ]);
    }
    align_right(&mut rows, 2..7);
    let passed = reports.iter().filter(|report| report.passed()).count();
    format!(
        "{rows}\n{passed} of {} drills passed. The promises S1 to S19 are not judged on a deployment.",
        reports.len()
    )
}
