//! `standin policy`: validates a policy file, tries it on the examples kept beside it, and takes it from
//! one version to the next.

mod change;

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use standin_core::answer::Reason;
use standin_core::money::Money;
use standin_core::policy::examples::{ExampleOutcome, check_examples};
use standin_core::policy::{Policy, PolicyError};

use crate::out::{say, say_json, table};

/// Validates policy files, tries them out, proposes and promotes versions.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Test(TestArgs),
    Propose(change::ProposeArgs),
    Withdraw(change::WithdrawArgs),
    Shadow(change::ShadowArgs),
    Promote(change::PromoteArgs),
}

/// Validates a policy: every key known, every value allowed, nothing contradictory.
///
/// Nothing is decided; `standin policy test` does that.
///
/// Exit code: 0 valid, 2 not valid, 1 could not read it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin policy check core/policies/example.toml")]
struct CheckArgs {
    /// The policy, a TOML file.
    file: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Decides the examples kept beside a policy, and says where it does not do what was expected.
///
/// For `NAME.toml` the examples are in `NAME.examples.toml`. Each describes one payment: the trip,
/// what was picked, what was approved before, the merchant, where the shopper is; and the reason
/// (and cap) its author expects. The rules that decide here are the ones that decide at the edge.
///
/// Exit code: 0 every example holds, 2 one does not or a file is not valid, 1 could not read them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin policy test core/policies/example.toml
  standin policy test new.toml --examples core/policies/example.examples.toml --json")]
struct TestArgs {
    /// The policy, a TOML file.
    file: PathBuf,
    /// The examples; left out, the file beside the policy.
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// What was found in a file.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tested {
    examples: usize,
    failed: usize,
    outcomes: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    holds: bool,
    expected: Reason,
    got: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_cap: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap: Option<String>,
    rule: String,
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or an edge does not reply.
    pub async fn run(self) -> anyhow::Result<u8> {
        let done = match self.command {
            Command::Check(args) => args.run(),
            Command::Test(args) => args.run(),
            Command::Propose(args) => args.run(),
            Command::Withdraw(args) => args.run(),
            Command::Shadow(args) => args.run().await,
            Command::Promote(args) => args.run().await,
        };
        match done {
            Err(error) if error.is::<change::Refused>() => {
                eprintln!("refused: {error}");
                Ok(2)
            }
            done => done,
        }
    }
}

// === impl CheckArgs ===

impl CheckArgs {
    fn run(self) -> anyhow::Result<u8> {
        let parsed = Policy::parse(&read(&self.file)?);
        if self.json {
            say_json(&Checked {
                file: self.file.clone(),
                valid: parsed.is_ok(),
                version: parsed.as_ref().ok().map(|policy| policy.version),
                error: parsed.as_ref().err().map(ToString::to_string),
            })?;
            return Ok(if parsed.is_ok() { 0 } else { 2 });
        }
        match parsed {
            Ok(policy) => {
                say(format_args!(
                    "{}: valid, version {}, in {}",
                    self.file.display(),
                    policy.version,
                    policy.currency
                ));
                Ok(0)
            }
            Err(error) => Ok(refuse(&self.file, &error)),
        }
    }
}

// === impl TestArgs ===

impl TestArgs {
    fn run(self) -> anyhow::Result<u8> {
        let beside = self.file.with_extension("examples.toml");
        let examples = self.examples.clone().unwrap_or(beside);
        let policy = match Policy::parse(&read(&self.file)?) {
            Ok(policy) => policy,
            Err(error) => return Ok(refuse(&self.file, &error)),
        };
        let outcomes = match check_examples(&policy, &read(&examples)?) {
            Ok(outcomes) => outcomes,
            Err(error) => return Ok(refuse(&examples, &error)),
        };
        let tested = Tested::new(&policy, &outcomes);
        if self.json {
            say_json(&tested)?;
        } else {
            tested.show();
        }
        Ok(if tested.failed == 0 { 0 } else { 2 })
    }
}

// === impl Tested ===

impl Tested {
    fn new(policy: &Policy, outcomes: &[ExampleOutcome]) -> Self {
        let money = |minor: i64| Money::from_minor(minor, policy.currency).to_decimal();
        let shown = outcomes.iter().map(|outcome| Shown {
            name: outcome.name.clone(),
            holds: outcome.holds(),
            expected: outcome.expected,
            got: outcome.got,
            expected_cap: outcome.expected_cap.map(money),
            cap: outcome.cap.map(money),
            rule: outcome.rule.clone(),
        });
        Self {
            examples: outcomes.len(),
            failed: outcomes.iter().filter(|outcome| !outcome.holds()).count(),
            outcomes: shown.collect(),
        }
    }

    fn show(&self) {
        let mut rows = table(["", "example", "expected", "got", "cap", "rule"]);
        for outcome in &self.outcomes {
            let with_cap = |reason: Reason, cap: &Option<String>| match cap {
                Some(cap) => format!("{reason}, cap {cap}"),
                None => reason.to_string(),
            };
            rows.add_row([
                if outcome.holds { "ok" } else { "FAILS" }.to_owned(),
                outcome.name.clone(),
                with_cap(outcome.expected, &outcome.expected_cap),
                outcome.got.to_string(),
                outcome.cap.clone().unwrap_or_default(),
                outcome.rule.clone(),
            ]);
        }
        say(rows);
        say(format_args!(
            "{} examples, {} fail",
            self.examples, self.failed
        ));
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn refuse(file: &Path, error: &PolicyError) -> u8 {
    eprintln!("{}: {error}", file.display());
    2
}
