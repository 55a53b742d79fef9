//! `standin thresholds`: advice on thresholds from what trips were charged, and what candidates would
//! have approved and risked.

mod history;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use standin_core::money::{Currency, Money};
use standin_core::policy::Policy;
use standin_reconcile::report::thresholds as page;
use standin_reconcile::thresholds::advise::{Advice, Advised, advise, in_time};
use standin_reconcile::thresholds::fit::Aim;
use standin_reconcile::thresholds::simulate::{Point, candidate, curve};
use standin_reconcile::thresholds::{Share, Split, percent};

use self::history::HistoryArgs;
use crate::out::{align_right, live_line, say, say_json, table};

/// Rules named on the terminal; the files have all.
const RULES_SHOWN: usize = 25;
/// Most policies shown on a curve, beside the base: each has a letter.
const POLICIES_MAX: usize = 25;

/// Advises thresholds from what trips were really charged, and simulates candidates.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Advise(Box<AdviseArgs>),
    Simulate(Box<SimulateArgs>),
}

/// Says how far above the cart trips must be allowed to go, as a proposed policy.
///
/// Learns from the first three quarters of the time span and judges what it learnt on the last quarter,
/// which it has not seen. How: docs/verification.md, "Thresholds". The share of trips to cover is stated
/// (--cover), or follows from what a false decline costs against an over-approval: decline / (decline +
/// over).
///
/// Nothing is put in force: `standin policy propose` takes the proposal to the edges, which evaluate it
/// beside the active policy, and `standin policy promote` makes it the active one, in steps.
///
/// With --out writes DIR/advice.json, DIR/advice.html and DIR/proposed.toml.
///
/// Exit code: 0 advised, 2 advised, but on the last quarter it missed the share by more than half a point
/// and more than chance explains, 1 could not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin thresholds advise --baskets baskets.csv.gz --cover 99 --out advice
  standin thresholds advise --from-ledger postgres://standin@db/standin --split both --base policy.toml
  standin thresholds advise --baskets baskets.csv.gz --cost-decline 12.00 --cost-over 0.30 --json
  standin policy test advice/proposed.toml --examples policy.examples.toml")]
struct AdviseArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Percent of trips to cover.
    #[arg(long, value_name = "PERCENT", value_parser = share, conflicts_with = "cost_decline")]
    cover: Option<Share>,
    /// What a false decline costs, major units.
    #[arg(long, value_name = "AMOUNT", requires = "cost_over")]
    cost_decline: Option<String>,
    /// What an over-approval costs, major units.
    #[arg(long, value_name = "AMOUNT", requires = "cost_decline")]
    cost_over: Option<String>,
    #[command(flatten)]
    fit: FitArgs,
    /// Where advice.json, advice.html and proposed.toml go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The advice as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Draws approval rate against exposure, and where policies are on it.
///
/// The curve is of thresholds fitted to shares from 50 to 99.8 percent on the first three quarters of the
/// time span, each judged on the last. Exposure is what is tolerated above the carts.
///
/// With --out writes DIR/simulation.json and DIR/simulation.html.
///
/// Exit code: 0 simulated, 1 could not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin thresholds simulate --baskets baskets.csv.gz --out curve
  standin thresholds simulate --baskets baskets.csv.gz --policy policy.toml --policy tight.toml --json")]
struct SimulateArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    fit: FitArgs,
    /// A policy to show on the curve; may be given 25 times.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Where simulation.json and simulation.html go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The curve as JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// How to fit.
#[derive(Debug, clap::Args)]
struct FitArgs {
    /// How sure to be that at least the share is covered, percent.
    #[arg(long, value_name = "PERCENT", default_value = "95", value_parser = share)]
    confidence: Share,
    /// Who gets rules of their own.
    #[arg(long, value_enum, default_value_t = SplitArg::Category)]
    split: SplitArg,
    /// The policy that the advice is made from; left out, the built-in example.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum SplitArg {
    /// One rule for all.
    None,
    /// Categories.
    Category,
    /// Stores.
    Store,
    /// Categories, and stores beneath them.
    Both,
}

/// What a simulation writes.
#[derive(Debug, Serialize)]
struct Simulated {
    currency: Currency,
    learnt: usize,
    judged: usize,
    curve: Vec<Point>,
    policies: Vec<Point>,
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds too few trips.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Advise(args) => args.run().await,
            Command::Simulate(args) => args.run().await,
        }
    }
}

// === impl AdviseArgs ===

impl AdviseArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let base = self.fit.base()?;
        let aim = self.fit.aim(self.share(base.currency)?);
        let live = live_line();
        live.set_message("reading");
        let trips = self.history.trips(base.currency).await?;
        live.set_message("fitting, and judging on the last quarter");
        let advice = advise(&trips, &base, aim, &[])?;
        live.finish_and_clear();
        if let Some(dir) = &self.out {
            write_all(
                dir,
                &[
                    ("advice.json", serde_json::to_string_pretty(&advice)?),
                    ("advice.html", page::advice(&advice)?),
                    ("proposed.toml", proposed_text(&advice)),
                ],
            )?;
        }
        if self.json {
            say_json(&advice)?;
        } else {
            show(&advice, self.out.as_deref());
        }
        Ok(if page::holds(&advice) { 0 } else { 2 })
    }

    fn share(&self, currency: Currency) -> anyhow::Result<Share> {
        let (Some(decline), Some(over)) = (&self.cost_decline, &self.cost_over) else {
            return Ok(self.cover.unwrap_or(DEFAULT_COVER));
        };
        let cost = |text: &str| {
            Money::parse(text, currency)
                .with_context(|| format!("{text} is no amount of {currency}"))
                .map(Money::minor)
        };
        let share = Share::from_costs(cost(decline)?, cost(over)?);
        share
            .context("the costs ask for none or all of the trips: give both, neither beside itself")
    }
}

/// What is covered when nobody says: one trip in a hundred is looked at by a person.
const DEFAULT_COVER: Share = match Share::from_bp(9_900) {
    Some(share) => share,
    None => panic!("a share"),
};

// === impl SimulateArgs ===

impl SimulateArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let base = self.fit.base()?;
        if self.policy.len() > POLICIES_MAX {
            bail!("more than {POLICIES_MAX} policies are too many for one curve");
        }
        let mut others = Vec::new();
        for file in &self.policy {
            let policy = read_policy(file)?;
            if policy.currency != base.currency {
                bail!(
                    "{}: is in {}, not {}",
                    file.display(),
                    policy.currency,
                    base.currency
                );
            }
            others.push((file.display().to_string(), policy));
        }
        let live = live_line();
        live.set_message("reading");
        let trips = self.history.trips(base.currency).await?;
        live.set_message("fitting each share");
        let (learnt, last) = in_time(&trips);
        let curve = curve(&learnt, &last, &base, self.fit.aim(DEFAULT_COVER))?;
        live.finish_and_clear();
        if curve.is_empty() || last.is_empty() {
            bail!("{} trips are too few for any share", trips.len());
        }
        let base_name = format!("base (version {})", base.version);
        let policies = std::iter::once((base_name, base.clone()))
            .chain(others)
            .map(|(name, policy)| candidate(name, &policy, &last))
            .collect();
        let simulated = Simulated {
            currency: base.currency,
            learnt: learnt.len(),
            judged: last.len(),
            curve,
            policies,
        };
        if let Some(dir) = &self.out {
            let about = simulated.about();
            let html = page::simulation(
                about,
                &simulated.curve,
                &simulated.policies,
                simulated.currency,
            )?;
            let json = serde_json::to_string_pretty(&simulated)?;
            write_all(dir, &[("simulation.json", json), ("simulation.html", html)])?;
        }
        if self.json {
            say_json(&simulated)?;
        } else {
            show_points(&simulated.policies, &simulated.curve, simulated.currency);
            say_where(self.out.as_deref(), "simulation.html");
        }
        Ok(0)
    }
}

// === impl Simulated ===

impl Simulated {
    fn about(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Learnt from", format!("{} trips", self.learnt)),
            (
                "Judged on",
                format!("{} trips of the last quarter", self.judged),
            ),
            ("Currency", self.currency.to_string()),
        ]
    }
}

// === impl FitArgs ===

impl FitArgs {
    fn aim(&self, cover: Share) -> Aim {
        let split = match self.split {
            SplitArg::None => Split::None,
            SplitArg::Category => Split::Category,
            SplitArg::Store => Split::Store,
            SplitArg::Both => Split::Both,
        };
        Aim {
            cover,
            confidence: self.confidence,
            split,
        }
    }

    fn base(&self) -> anyhow::Result<Policy> {
        match &self.base {
            Some(file) => read_policy(file),
            None => Ok(Policy::example()),
        }
    }
}

fn read_policy(file: &Path) -> anyhow::Result<Policy> {
    let place = || format!("{}", file.display());
    let text = std::fs::read_to_string(file).with_context(place)?;
    Policy::parse(&text).with_context(place)
}

/// A percent above 0 and below 100 with at most two decimals.
fn share(text: &str) -> Result<Share, String> {
    // A percent with two decimals reads like dollars with cents.
    Money::parse(text, Currency::USD)
        .ok()
        .and_then(|percent| u32::try_from(percent.minor()).ok())
        .and_then(Share::from_bp)
        .ok_or_else(|| "a percent above 0 and below 100, at most two decimals".to_owned())
}

/// The proposal as a file for people: where it comes from stands above it.
fn proposed_text(advice: &Advice) -> String {
    let Advice {
        learnt, last, aim, ..
    } = advice;
    format!(
        "# Proposed from version {}, by `standin thresholds advise`: {} of trips, learnt from {} trips from {} to {}.\n\
         # On {} trips of the last quarter it covers {}. Take it to the edges with `standin policy propose`.\n\n{}",
        advice.base_version,
        aim.cover,
        learnt.trips,
        learnt.from,
        learnt.until,
        last.trips,
        percent(advice.judged.covered_bp),
        advice.policy.to_toml()
    )
}

fn write_all(dir: &Path, files: &[(&str, String)]) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", dir.display());
    std::fs::create_dir_all(dir).with_context(place)?;
    for (name, text) in files {
        std::fs::write(dir.join(name), text).with_context(place)?;
    }
    Ok(())
}

fn show(advice: &Advice, out: Option<&Path>) {
    let money = |minor| Money::from_minor(minor, advice.currency).to_decimal();
    let mut rules = table(["rule", "percent", "absolute", "ceiling", "trips", ""]);
    for rule in advice.rules.iter().take(RULES_SHOWN) {
        let Advised {
            name,
            percent_bp,
            absolute,
            ceiling,
            trips,
            factor_bp: _,
            bounded,
        } = rule;
        rules.add_row([
            name.clone(),
            percent(i64::from(*percent_bp)),
            money(*absolute),
            money(*ceiling),
            trips.to_string(),
            if *bounded {
                ""
            } else {
                "too few trips for a bound: only wider"
            }
            .to_owned(),
        ]);
    }
    align_right(&mut rules, 1..5);
    say(rules);
    let more = advice.rules.len().saturating_sub(RULES_SHOWN);
    if more > 0 {
        say(format_args!("and {more} more rules"));
    }
    show_points(&advice.policies, &advice.curve, advice.currency);
    say(page::verdict(advice));
    say_where(out, "advice.html");
}

fn show_points(policies: &[Point], curve: &[Point], currency: Currency) {
    let mut rows = table([
        "thresholds",
        "approved",
        "tolerated, of picked",
        "tolerated, a trip",
    ]);
    for point in policies.iter().chain(curve) {
        let fitted = || point.cover.map(|cover| format!("fitted to {cover}"));
        rows.add_row([
            point.name.clone().or_else(fitted).unwrap_or_default(),
            percent(point.judged.covered_bp),
            percent(point.judged.tolerated_bp),
            Money::from_minor(point.judged.tolerated_mean, currency).to_decimal(),
        ]);
    }
    align_right(&mut rows, 1..4);
    say(rows);
}

fn say_where(out: Option<&Path>, name: &str) {
    if let Some(dir) = out {
        say(format_args!("Report: {}", dir.join(name).display()));
    }
}

#[cfg(test)]
mod tests;
