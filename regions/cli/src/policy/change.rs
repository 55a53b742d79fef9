//! `standin policy propose`, `withdraw`, `shadow` and `promote`: from one version of a policy to the next.
//!
//! A policy is a file that edges read, and its proposal a file beside it; edges notice changes of both.
//! So these commands write files, whole or not at all, wherever they are kept for the edges. What edges
//! then take into use goes to the audit of the ledger by them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock};
use standin_core::money::{Currency, Money};
use standin_core::policy::promote::{PromoteError, Step};
use standin_core::policy::{Change, Policy, Threshold};
use standin_edge::policies::proposed_beside;
use standin_edge::shadow::{Difference, Shown};
use standin_reconcile::thresholds::percent;

use super::read;
use crate::client::{Call, Target, TlsArgs};
use crate::out::{align_right, say, say_json, table};

/// How long an edge may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Steps named on the terminal; JSON has all.
const STEPS_SHOWN: usize = 40;

/// Proposes a version of a policy: edges evaluate it beside the active one, and answer by the active one.
///
/// Writes NAME.proposed.toml beside the active NAME.toml, where edges look for it every two seconds. Only
/// thresholds and the tolerance of standing in may differ. Says each tolerance that changes, and which of
/// them go further than one promotion may.
///
/// Exit code: 0 proposed, 2 refused, 1 could not read or write.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin thresholds advise --baskets baskets.csv.gz --base policy.toml --out advice
  standin policy propose advice/proposed.toml --policy policy.toml
  standin policy shadow --admin http://edge-1:8081 --admin http://edge-2:8081")]
pub(super) struct ProposeArgs {
    /// The proposed policy, a TOML file.
    file: PathBuf,
    #[command(flatten)]
    active: ActiveArgs,
    /// Take the place of another proposal that is there.
    #[arg(long)]
    replace: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Withdraws a proposal: edges try it no more.
///
/// Exit code: 0 withdrawn, 2 there is none, 1 could not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin policy withdraw --policy policy.toml")]
pub(super) struct WithdrawArgs {
    #[command(flatten)]
    active: ActiveArgs,
}

/// Shows what a proposed policy said differently from the active one, as edges counted it.
///
/// An edge counts since it started or first saw the proposal, whichever is later.
///
/// Exit code: 0 shown, 2 an edge tries no proposal or another one than the first, 1 no reply.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin policy shadow
  standin policy shadow --admin http://edge-1:8081 --admin http://edge-2:8081 --json")]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    edges: EdgesArgs,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Makes a proposed policy the active one.
///
/// Refused while the edges named with --admin have judged fewer requests by it than the active policy
/// asks for (promotion.min_shadow), and when any tolerance goes further, up or down, than the active policy
/// allows (promotion.max_step_...). With --step every tolerance goes as far as that, and the rest stays
/// proposed, as the version after. Nothing is ever loosened by itself: this command does it, and it wants a
/// name and a reason.
///
/// Keeps the version before as NAME.vN.toml, with the comments that the new file has not. Edges notice within some seconds and write who and why to the
/// audit.
///
/// Exit code: 0 promoted, 2 refused, 1 could not read or write, or no reply.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin policy promote --policy policy.toml --admin http://edge-1:8081 --operator ada --reason 'June data'
  standin policy promote --policy policy.toml --unseen --step --operator ada --reason 'new market, no traffic yet'")]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    active: ActiveArgs,
    #[command(flatten)]
    signature: crate::admin::Signature,
    /// The running edges that try the proposal; once for each.
    #[arg(long, value_name = "URL", required_unless_present = "unseen")]
    admin: Vec<Target>,
    #[command(flatten)]
    tls: TlsArgs,
    /// No edge needs to have tried it; the audit says so.
    #[arg(long, conflicts_with = "admin")]
    unseen: bool,
    /// Go as far as one step may.
    #[arg(long)]
    step: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The active policy.
#[derive(Debug, clap::Args)]
struct ActiveArgs {
    /// The active policy's file, where edges read it.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

/// Running edges.
#[derive(Debug, clap::Args)]
struct EdgesArgs {
    /// An edge's admin listener; once for each.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8081",
        env = "STANDIN_ADMIN"
    )]
    admin: Vec<Target>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Tolerances that change.
#[derive(Debug, Serialize)]
struct Proposed {
    active_version: u32,
    version: u32,
    fingerprint: String,
    steps: Vec<StepShown>,
}

#[derive(Debug, Serialize)]
struct StepShown {
    place: String,
    from: String,
    to: String,
    /// Further than one promotion may go.
    beyond: bool,
}

/// What all edges counted.
#[derive(Debug, Serialize)]
struct Shadowed {
    edges: usize,
    judged: u64,
    version: Option<u32>,
    fingerprint: Option<String>,
    /// Edges that try nothing, or another proposal than the first.
    apart: Vec<String>,
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Promoted {
    version: u32,
    replaces: u32,
    /// Where the version before is kept.
    kept: PathBuf,
    /// What stays proposed, if it was a step.
    still_proposed: Option<u32>,
}

/// What an operator is told; exit code 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A file holds no policy.
    #[error("{}: {source}", path.display())]
    Policy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: standin_core::policy::PolicyError,
    },
    /// The two versions do not fit.
    #[error(transparent)]
    Promote(#[from] PromoteError),
    /// Another one is proposed.
    #[error("{}: another version is proposed; --replace takes its place", .0.display())]
    Other(PathBuf),
    /// Nothing is proposed.
    #[error("{}: nothing is proposed", .0.display())]
    Nothing(PathBuf),
    /// Edges try something else.
    #[error("not every edge tries this proposal: {0}")]
    Apart(String),
    /// Edges have not seen enough of it.
    #[error("the edges have judged {judged} requests by it; the active policy asks for {least}")]
    Unseen {
        /// Requests judged.
        judged: u64,
        /// Requests asked for.
        least: u64,
    },
}

// === impl ProposeArgs ===

impl ProposeArgs {
    pub(super) fn run(&self) -> anyhow::Result<u8> {
        let active = self.active.active()?;
        let proposed = policy(&self.file)?;
        let steps = active.steps_to(&proposed).map_err(Refused::from)?;
        let place = proposed_beside(&self.active.policy);
        if !self.replace && place.exists() && read(&place)? != read(&self.file)? {
            return Err(Refused::Other(place).into());
        }
        write(&place, &read(&self.file)?)?;
        let shown = Proposed {
            active_version: active.version,
            version: proposed.version,
            fingerprint: proposed.fingerprint(),
            steps: steps
                .iter()
                .map(|step| StepShown::new(step, &active))
                .collect(),
        };
        if self.json {
            say_json(&shown)?;
        } else {
            shown.show(&place);
        }
        Ok(0)
    }
}

// === impl WithdrawArgs ===

impl WithdrawArgs {
    pub(super) fn run(&self) -> anyhow::Result<u8> {
        let place = proposed_beside(&self.active.policy);
        if !place.exists() {
            return Err(Refused::Nothing(place).into());
        }
        std::fs::remove_file(&place).with_context(|| format!("{}", place.display()))?;
        say("withdrawn");
        Ok(0)
    }
}

// === impl ShadowArgs ===

impl ShadowArgs {
    pub(super) async fn run(&self) -> anyhow::Result<u8> {
        let shadowed = Shadowed::ask(&self.edges.admin, &self.edges.tls).await?;
        if self.json {
            say_json(&shadowed)?;
        } else {
            shadowed.show();
        }
        Ok(if shadowed.apart.is_empty() { 0 } else { 2 })
    }
}

// === impl PromoteArgs ===

impl PromoteArgs {
    pub(super) async fn run(&self) -> anyhow::Result<u8> {
        let active = self.active.active()?;
        let place = proposed_beside(&self.active.policy);
        if !place.exists() {
            return Err(Refused::Nothing(place).into());
        }
        let proposed = policy(&place)?;
        // What is wrong with the proposal itself comes before what edges have seen of it.
        let steps = active.steps_to(&proposed).map_err(Refused::from)?;
        let seen = self.seen(&active, &proposed).await?;
        let change = Change {
            operator: self.signature.operator.clone(),
            reason: format!("{} ({seen})", self.signature.reason),
            at: SystemClock.now(),
            replaces: active.version,
        };
        let next = if self.step {
            active.stepped(&proposed, change)
        } else {
            active.promoted(&proposed, change)
        };
        let next = match next {
            Ok(next) => next,
            Err(error @ PromoteError::Beyond { .. }) if !self.step => {
                Proposed::of(&active, &proposed, &steps).show_beyond();
                return Err(Refused::from(error).into());
            }
            Err(error) => return Err(Refused::from(error).into()),
        };
        let promoted = self.put(&active, &next, &proposed)?;
        if self.json {
            say_json(&promoted)?;
        } else {
            promoted.show();
        }
        Ok(0)
    }

    /// What the edges have seen of the proposal, for the audit.
    async fn seen(&self, active: &Policy, proposed: &Policy) -> anyhow::Result<String> {
        if self.unseen {
            return Ok("no edge has tried it".to_owned());
        }
        let shadowed = Shadowed::ask(&self.admin, &self.tls).await?;
        let fingerprint = proposed.fingerprint();
        if shadowed.fingerprint.as_ref() != Some(&fingerprint) {
            let found = shadowed.fingerprint.unwrap_or_else(|| "nothing".to_owned());
            return Err(Refused::Apart(format!("{found} instead of {fingerprint}")).into());
        }
        if !shadowed.apart.is_empty() {
            return Err(Refused::Apart(shadowed.apart.join(", ")).into());
        }
        let least = active.promotion.min_shadow;
        if shadowed.judged < least {
            let judged = shadowed.judged;
            return Err(Refused::Unseen { judged, least }.into());
        }
        let of = |loosens: bool| {
            let of_primary = shadowed
                .differences
                .iter()
                .filter(|one| one.rules == "primary");
            of_primary
                .filter(|one| one.loosens == loosens)
                .fold(0_u64, |sum, one| sum.saturating_add(one.count))
        };
        Ok(format!(
            "shadow: {} judged, {} more approved, {} more declined",
            shadowed.judged,
            of(true),
            of(false)
        ))
    }

    /// The version before is kept first; then the active file is replaced, which is the moment; then what
    /// is left of the proposal. A crash in between leaves a proposal that is not later than what is active:
    /// edges do not try it and say so.
    fn put(&self, active: &Policy, next: &Policy, proposed: &Policy) -> anyhow::Result<Promoted> {
        // What does not read back must not get to the edges.
        Policy::parse(&next.to_toml())?;
        let file = &self.active.policy;
        let kept = file.with_extension(format!("v{}.toml", active.version));
        write(&kept, &read(file)?)?;
        write(file, &next.to_toml())?;
        let rest = Policy {
            version: next.version.saturating_add(1),
            change: None,
            ..proposed.clone()
        };
        let place = proposed_beside(file);
        let still_proposed = if self.step && next.steps_to(&rest).is_ok() {
            write(&place, &rest.to_toml())?;
            Some(rest.version)
        } else {
            std::fs::remove_file(&place).with_context(|| format!("{}", place.display()))?;
            None
        };
        Ok(Promoted {
            version: next.version,
            replaces: active.version,
            kept,
            still_proposed,
        })
    }
}

// === impl ActiveArgs ===

impl ActiveArgs {
    fn active(&self) -> anyhow::Result<Policy> {
        policy(&self.policy)
    }
}

// === impl Proposed ===

impl Proposed {
    fn of(active: &Policy, proposed: &Policy, steps: &[Step]) -> Self {
        Self {
            active_version: active.version,
            version: proposed.version,
            fingerprint: proposed.fingerprint(),
            steps: steps
                .iter()
                .map(|step| StepShown::new(step, active))
                .collect(),
        }
    }

    fn table(&self, shown: impl Fn(&StepShown) -> bool) -> comfy_table::Table {
        let mut rows = table(["tolerance", "active", "proposed", ""]);
        for step in self
            .steps
            .iter()
            .filter(|step| shown(step))
            .take(STEPS_SHOWN)
        {
            rows.add_row([
                step.place.clone(),
                step.from.clone(),
                step.to.clone(),
                if step.beyond {
                    "more than one step"
                } else {
                    ""
                }
                .to_owned(),
            ]);
        }
        rows
    }

    fn show(&self, place: &Path) {
        say(self.table(|_| true));
        let beyond = self.steps.iter().filter(|step| step.beyond).count();
        say(format_args!(
            "proposed: version {} beside the active {}; {} tolerances change, {beyond} by more than one step. \
             Edges try it as soon as they see {}",
            self.version,
            self.active_version,
            self.steps.len(),
            place.display()
        ));
    }

    fn show_beyond(&self) {
        eprintln!("{}", self.table(|step| step.beyond));
    }
}

// === impl StepShown ===

impl StepShown {
    fn new(step: &Step, active: &Policy) -> Self {
        Self {
            place: step.place.to_string(),
            from: words(step.from, active.currency),
            to: words(step.to, active.currency),
            beyond: !active.promotion.allows(step),
        }
    }
}

fn words(threshold: Threshold, currency: Currency) -> String {
    let money = |minor| Money::from_minor(minor, currency).to_decimal();
    format!(
        "{} or {}, at most {}",
        percent(i64::from(threshold.percent_bp)),
        money(threshold.absolute),
        money(threshold.ceiling)
    )
}

// === impl Shadowed ===

impl Shadowed {
    async fn ask(edges: &[Target], tls: &TlsArgs) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for edge in edges {
            let pool = tls.pool(edge, 1)?;
            let reply = pool.ask(Call::get("/statusz"), PATIENCE).await;
            let reply = reply.with_context(|| format!("{edge}"))?;
            let status: serde_json::Value = serde_json::from_slice(&reply.body)
                .with_context(|| format!("{edge}: its status does not read"))?;
            let Some(proposed) = status.get("proposed_policy") else {
                bail!("{edge}: an edge that knows of no proposals");
            };
            let shown: Option<Shown> = serde_json::from_value(proposed.clone())?;
            all.push((edge.to_string(), shown));
        }
        Ok(Self::sum(&all))
    }

    fn sum(edges: &[(String, Option<Shown>)]) -> Self {
        let first = edges.iter().find_map(|(_, shown)| shown.as_ref());
        let same =
            |shown: &Shown| first.is_some_and(|first| shown.fingerprint == first.fingerprint);
        let (mut judged, mut apart) = (0_u64, Vec::new());
        let mut sums: BTreeMap<[String; 4], Difference> = BTreeMap::new();
        for (edge, shown) in edges {
            let Some(shown) = shown.as_ref().filter(|shown| same(shown)) else {
                apart.push(edge.clone());
                continue;
            };
            judged = judged.saturating_add(shown.judged);
            for one in &shown.differences {
                let key = [&one.bank, &one.rules, &one.active, &one.proposed].map(Clone::clone);
                let sum = sums.entry(key).or_insert_with(|| Difference {
                    count: 0,
                    amount_minor: 0,
                    ..one.clone()
                });
                sum.count = sum.count.saturating_add(one.count);
                sum.amount_minor = sum.amount_minor.saturating_add(one.amount_minor);
            }
        }
        Self {
            edges: edges.len(),
            judged,
            version: first.map(|first| first.version),
            fingerprint: first.map(|first| first.fingerprint.clone()),
            apart,
            differences: sums.into_values().collect(),
        }
    }

    fn show(&self) {
        let mut rows = table([
            "bank",
            "rules",
            "active says",
            "proposed says",
            "requests",
            "minor units",
        ]);
        for one in &self.differences {
            rows.add_row([
                one.bank.clone(),
                one.rules.clone(),
                one.active.clone(),
                one.proposed.clone(),
                one.count.to_string(),
                one.amount_minor.to_string(),
            ]);
        }
        align_right(&mut rows, 4..6);
        say(rows);
        let version = self
            .version
            .map_or_else(|| "none".to_owned(), |version| version.to_string());
        say(format_args!(
            "proposed version: {version}; {} requests judged by it on {} edges",
            self.judged, self.edges
        ));
        for edge in &self.apart {
            say(format_args!("{edge} does not try it"));
        }
    }
}

// === impl Promoted ===

impl Promoted {
    fn show(&self) {
        say(format_args!(
            "promoted: version {} takes the place of {}, which is kept as {}",
            self.version,
            self.replaces,
            self.kept.display()
        ));
        if let Some(version) = self.still_proposed {
            say(format_args!("the rest is proposed as version {version}"));
        }
    }
}

fn policy(path: &Path) -> anyhow::Result<Policy> {
    let text = read(path)?;
    let parsed = Policy::parse(&text);
    Ok(parsed.map_err(|source| Refused::Policy {
        path: path.to_owned(),
        source,
    })?)
}

/// Replaces a file whole: a crash leaves the old one or the new one.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let place = || format!("cannot write {}", path.display());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut fresh =
        tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new("."))).with_context(place)?;
    fresh.write_all(text.as_bytes()).with_context(place)?;
    fresh.as_file().sync_all().with_context(place)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fresh
        .as_file()
        .set_permissions(readable)
        .with_context(place)?;
    fresh.persist(path).with_context(place)?;
    Ok(())
}

#[cfg(test)]
mod tests;
