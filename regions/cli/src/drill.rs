//! `standin drill`: rehearses failures on this machine, on real processes, or on a deployment that is named
//! (`on`), and says what they cost.
//!
//! Read in this order: `catalogue` (what is believed, broken and expected), `seed` and `world` (what it
//! happens to), `edges`, `bank` (the load), `faults` (break, prove, heal), `watch`, `judge`, `run`. What
//! is a pass is decided in [`standin_reconcile::report::drill`].

mod bank;
mod catalogue;
mod clock;
mod edges;
mod faults;
mod judge;
mod on;
mod run;
mod seed;
mod watch;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock};
use standin_edge::app::Hooks;
use standin_reconcile::history::{self, Attempt};
use standin_reconcile::report::drill::DrillReport;
use standin_reconcile::report::drill::deployed::DeployedReport;
use standin_reconcile::report::html;
use tokio::signal::unix::{SignalKind, signal};

use crate::out::{align_right, live_line, say, say_json, table};
use catalogue::Drill;
use clock::SteppedClock;
use run::Settings;
use seed::Seed;

/// Files of a drill's folder.
const JSON: &str = "drill.json";
const HTML: &str = "drill.html";
const HISTORY: &str = "history.jsonl";
/// The list beside several folders.
const INDEX: &str = "index.html";
/// Trips that payments are spread over, for each payment a second, and within these bounds.
const TRIPS_PER_RATE: u64 = 4;
const TRIPS_MIN: u64 = 200;
const TRIPS_MAX: u64 = 4_000;

/// Rehearses failures, and says what they cost.
///
/// A drill builds a world of its own on this machine: three edges that keep one log together, each a
/// process, with TLS to the bank and between them; a Postgres with a standby; a Redis with two replicas.
/// A bank pays at a fixed rate and asks another edge when one does not answer. Something is broken while
/// it pays, shown to be broken, and put right. Then everything drains, and a checker judges what the bank
/// was told against every edge's log and the ledger.
///
/// Needs Postgres 15 and Redis 7 or newer installed (Debian: apt install postgresql redis-server);
/// nothing has to run. Drills that cut links between edges or fill a disk need root; `list` says which.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin drill list
  standin drill run primary-killed
  standin drill run primary-killed leader-killed --rate 500 --out /tmp/drills
  standin drill run all --out drills          half an hour; open drills/index.html
  standin drill report drills                 the pages once more, from what was measured
  standin drill on staging.toml primary-killed --i-mean staging-eu")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Run(RunArgs),
    On(on::OnArgs),
    Report(ReportArgs),
}

/// Says which drills there are, what each believes, what it needs, and where it can be run.
///
/// Exit code: 0.
#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    /// JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs drills, one after the other; writes a page for each.
///
/// Writes DIR/NAME/drill.json, drill.html (open it in a browser) and history.jsonl for each, and
/// DIR/index.html. An interrupted drill ends everything it started.
///
/// Exit code: 0 every drill passed, 2 one did not, 1 one could not be run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin drill run primary-killed
  standin drill run long-outage --backlog 100000
  standin drill run all --quick --rate 200     a look at all of them in some ten minutes")]
struct RunArgs {
    /// Names of drills, or `all`. As one that is not root, `all` leaves out what needs root.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Payments a second, over all edges; half of it where edges run in network namespaces.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    rate: u64,
    /// Answers that are to wait for the ledger at the end of a long outage.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=500_000))]
    backlog: u64,
    /// Everything in a quarter of its time. Less is shown.
    #[arg(long)]
    quick: bool,
    /// The same number makes the same payments and the same chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "drill-out")]
    out: PathBuf,
    /// The reports as JSON on standard output, instead of a table.
    #[arg(long)]
    json: bool,
}

/// Makes the pages of drills once more, from their drill.json.
///
/// Exit code: 0 every drill had passed, 2 one had not, 1 there is nothing to make them from.
#[derive(Clone, Debug, clap::Args)]
struct ReportArgs {
    /// The folder given to `run` as --out, or that of one drill.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The reports as JSON on standard output, instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs one edge on a configuration file: for `standin drill`, which starts it.
#[derive(Clone, Debug, clap::Args)]
pub struct EdgeArgs {
    /// The edge's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Holds how many milliseconds the edge's clock is ahead of the machine's (-N: behind); may change at
    /// any time.
    #[arg(long, value_name = "FILE")]
    clock: Option<PathBuf>,
}

/// A drill, for programs.
#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    title: &'static str,
    hypothesis: &'static str,
    needs_root: bool,
    /// By `run`.
    on_machine: bool,
    /// By `on`.
    on_deployment: bool,
}

/// The report of a drill that has ended.
enum Kept {
    /// On one machine.
    Here(Box<DrillReport>),
    /// On a deployment.
    Deployed(Box<DeployedReport>),
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When a drill could not be run, or there is nothing to report.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::List(args) => args.run(),
            Command::Run(args) => Box::pin(args.run()).await,
            Command::On(args) => Box::pin(args.run()).await,
            Command::Report(args) => args.run(),
        }
    }
}

// === impl EdgeArgs ===

impl EdgeArgs {
    /// Runs until a signal; gives the edge's exit code.
    pub async fn run(self) -> u8 {
        let stepped = |file| -> Arc<dyn Clock> { Arc::new(SteppedClock::new(file)) };
        let hooks = Hooks {
            clock: self.clock.map(stepped),
            ..Hooks::default()
        };
        standin_edge::command::serve_file(&self.config, hooks).await
    }
}

// === impl ListArgs ===

impl ListArgs {
    fn run(self) -> anyhow::Result<u8> {
        let drills = catalogue::all();
        let deployed = on::plays::only_deployed();
        let listed = drills.iter().map(Listed::of);
        let listed: Vec<Listed> = listed.chain(deployed.iter().map(Listed::of_play)).collect();
        if self.json {
            say_json(&listed)?;
            return Ok(0);
        }
        let mut rows = table(["drill", "run", "on a deployment", "what is believed"]);
        for drill in listed {
            let here = match (drill.on_machine, drill.needs_root) {
                (true, true) => "as root",
                (true, false) => "yes",
                (false, _) => "no",
            };
            let there = if drill.on_deployment { "yes" } else { "no" };
            let words = format!("{}. {}", drill.title, drill.hypothesis);
            rows.add_row([drill.name, here, there, &words]);
        }
        say(rows);
        Ok(0)
    }
}

impl Listed {
    fn of(drill: &Drill) -> Self {
        Self {
            name: drill.name,
            title: drill.title,
            hypothesis: drill.hypothesis,
            needs_root: drill.shape.needs_root(),
            on_machine: true,
            on_deployment: on::plays::is_playable(drill.name),
        }
    }

    fn of_play(play: &on::plays::Play) -> Self {
        Self {
            name: play.name,
            title: play.title,
            hypothesis: play.hypothesis,
            needs_root: false,
            on_machine: false,
            on_deployment: true,
        }
    }
}

// === impl RunArgs ===

impl RunArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let drills = self.drills()?;
        let work = Box::pin(self.all(drills));
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends it early, its world goes with it: nothing that was broken stays behind.
        let reports = tokio::select! {
            reports = work => reports?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("waiting for an interrupt")?;
                bail!("interrupted; everything that was started is ended");
            }
            _ = terminate.recv() => bail!("told to end; everything that was started is ended"),
        };
        finish(&self.out, &reports, self.json)
    }

    fn drills(&self) -> anyhow::Result<Vec<Drill>> {
        let is_root = rustix::process::geteuid().is_root();
        let mut drills = Vec::new();
        for name in &self.names {
            if name == "all" {
                let all = catalogue::all().into_iter();
                drills.extend(all.filter(|drill| is_root || !drill.shape.needs_root()));
                continue;
            }
            let drill = Drill::named(name);
            let drill = drill.with_context(|| {
                format!("there is no drill \"{name}\"; `standin drill list` says which there are")
            })?;
            ensure!(
                is_root || !drill.shape.needs_root(),
                "{name} needs root: it cuts links between edges or fills a disk"
            );
            drills.push(drill);
        }
        Ok(drills)
    }

    async fn all(&self, drills: Vec<Drill>) -> anyhow::Result<Vec<DrillReport>> {
        let live = live_line();
        live.set_message("making trips, once for all drills");
        let trips = self.rate.saturating_mul(TRIPS_PER_RATE);
        let seed = Seed::make(trips.clamp(TRIPS_MIN, TRIPS_MAX)).await?;
        let settings = Settings {
            rate: self.rate,
            seed: self.seed,
            backlog: self.backlog,
            quick: self.quick,
        };
        let mut reports = Vec::new();
        let mut not_done = Vec::new();
        for drill in drills {
            let folder = self.out.join(drill.name);
            begin(&folder, drill.name, drill.title)?;
            let ran = Box::pin(run::run(&drill, &seed, settings, &live)).await;
            match ran {
                Ok((report, history)) => {
                    write(&folder, &report, &history)?;
                    live.suspend(|| eprintln!("{}", line(&report)));
                    reports.push(report);
                }
                // The others are worth running all the same.
                Err(error) => {
                    drop(std::fs::remove_file(folder.join(JSON)));
                    live.suspend(|| eprintln!("{}: not done: {error:#}", drill.name));
                    not_done.push(drill.name);
                }
            }
        }
        live.finish_and_clear();
        if !not_done.is_empty() {
            if !reports.is_empty() {
                finish(&self.out, &reports, self.json)?;
            }
            bail!("could not be run: {}", not_done.join(", "));
        }
        Ok(reports)
    }
}

// === impl ReportArgs ===

impl ReportArgs {
    fn run(self) -> anyhow::Result<u8> {
        let own = self.dir.join(JSON);
        if own.is_file() {
            return match read(&own)?
                .context("the drill has not ended, or was ended from outside")?
            {
                Kept::Here(report) => {
                    write_page(&self.dir, &report)?;
                    shown(&[*report], self.json)
                }
                Kept::Deployed(report) => {
                    on::write_page(&self.dir, &report)?;
                    on::shown(&[*report], self.json)
                }
            };
        }
        let entries = std::fs::read_dir(&self.dir)
            .with_context(|| format!("cannot read {}", self.dir.display()))?;
        let (mut reports, mut deployed) = (Vec::new(), Vec::new());
        for entry in entries {
            let folder = entry?.path();
            if !folder.join(JSON).is_file() {
                continue;
            }
            match read(&folder.join(JSON))? {
                None => eprintln!("{}: has not ended, left out", folder.display()),
                Some(Kept::Here(report)) => {
                    write_page(&folder, &report)?;
                    reports.push(*report);
                }
                Some(Kept::Deployed(report)) => {
                    on::write_page(&folder, &report)?;
                    deployed.push(*report);
                }
            }
        }
        let place = self.dir.display();
        ensure!(
            !reports.is_empty() || !deployed.is_empty(),
            "{place} holds no {JSON}"
        );
        ensure!(
            reports.is_empty() || deployed.is_empty(),
            "{place} holds drills on one machine and drills on a deployment: their pages are made; show them apart"
        );
        if reports.is_empty() {
            return on::shown(&deployed, self.json);
        }
        let order: Vec<&str> = catalogue::all().iter().map(|drill| drill.name).collect();
        reports.sort_by_key(|report| order.iter().position(|name| *name == report.name));
        finish(&self.dir, &reports, self.json)
    }
}

/// Writes the list and shows it; gives the exit code.
fn finish(out: &Path, reports: &[DrillReport], json: bool) -> anyhow::Result<u8> {
    let links: Vec<String> = reports
        .iter()
        .map(|report| format!("{}/{HTML}", report.name))
        .collect();
    let place = || format!("cannot write to {}", out.display());
    std::fs::create_dir_all(out).with_context(place)?;
    std::fs::write(out.join(INDEX), html::drills(reports, &links)?).with_context(place)?;
    shown(reports, json)
}

fn shown(reports: &[DrillReport], json: bool) -> anyhow::Result<u8> {
    if json {
        say_json(&reports)?;
    } else {
        say(summary(reports));
    }
    let all = reports.iter().all(DrillReport::passed);
    Ok(if all { 0 } else { 2 })
}

/// Says that a drill is under way, for the console; its report takes the place of that.
fn begin(folder: &Path, name: &str, title: &str) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(place)?;
    let begun = serde_json::to_vec_pretty(&serde_json::json!({
        "name": name,
        "title": title,
        "started_at": SystemClock.now().to_string(),
        "phase": "under way",
    }))?;
    std::fs::write(folder.join(JSON), begun).with_context(place)
}

fn write(folder: &Path, report: &DrillReport, attempts: &[Attempt]) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(place)?;
    let json = serde_json::to_vec_pretty(report)?;
    std::fs::write(folder.join(JSON), json).with_context(place)?;
    let file = std::fs::File::create(folder.join(HISTORY)).with_context(place)?;
    history::write(std::io::BufWriter::new(file), attempts).with_context(place)?;
    write_page(folder, report)
}

fn write_page(folder: &Path, report: &DrillReport) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::write(folder.join(HTML), html::drill(report)?).with_context(place)
}

/// A drill's report; `None` while there is none yet.
fn read(file: &Path) -> anyhow::Result<Option<Kept>> {
    let place = || format!("cannot read {}", file.display());
    let text = std::fs::read(file).with_context(place)?;
    let value: serde_json::Value = serde_json::from_slice(&text).with_context(place)?;
    if value.get("phase").is_some() {
        return Ok(None);
    }
    let kept = if value.get("deployment").is_some() {
        serde_json::from_value(value).map(Kept::Deployed)
    } else {
        serde_json::from_value(value).map(Kept::Here)
    };
    kept.map(Some).with_context(place)
}

/// One drill in a line.
fn line(report: &DrillReport) -> String {
    let word = if report.passed() { "passed" } else { "FAILED" };
    let broken: Vec<String> = report
        .failures()
        .map(|check| format!("{}: {}", check.id, check.detail))
        .collect();
    let broken = if broken.is_empty() {
        String::new()
    } else {
        format!("; {}", broken.join("; "))
    };
    let figures = &report.figures;
    format!(
        "{}: {word} in {:.0} s: {} payments, {:.3} % within 300 ms{broken}",
        report.name, report.seconds, figures.payments, figures.prompt_percent
    )
}

/// All drills as a table for people.
fn summary(reports: &[DrillReport]) -> String {
    let mut rows = table([
        "drill",
        "verdict",
        "payments",
        "within 300 ms",
        "late",
        "no answer",
        "first stand-in ms",
        "p99 ms before, in, after",
        "not kept",
    ]);
    for report in reports {
        let figures = &report.figures;
        let stand_in = figures.first_stand_in_ms;
        let failures: Vec<&str> = report.failures().map(|check| check.id.as_str()).collect();
        rows.add_row([
            report.name.clone(),
            if report.passed() { "passed" } else { "FAILED" }.to_owned(),
            figures.payments.to_string(),
            format!("{:.3} %", figures.prompt_percent),
            figures.late.to_string(),
            figures.unanswered.to_string(),
            stand_in.map_or("none".to_owned(), |ms| ms.to_string()),
            format!(
                "{:.0}, {:.0}, {:.0}",
                figures.p99_steady_ms, figures.p99_fault_ms, figures.p99_after_ms
            ),
            failures.join(", "),
        ]);
    }
    align_right(&mut rows, 2..7);
    let passed = reports.iter().filter(|report| report.passed()).count();
    format!("{rows}\n{passed} of {} drills passed.", reports.len())
}
