//! `standin reconcile findings`: who looks after what was found, and what became of it.

use anyhow::bail;
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::BankId;
use standin_core::ledger::clearing::{
    Acted, CASE_ROWS_MAX, Case, CaseAction, CaseEvent, CaseFilter, CaseOrder, CaseState,
    ClearingBooks,
};
use standin_core::money::Money;
use uuid::Uuid;

use super::books::BooksArgs;
use crate::out::{say, say_json, table};

/// Lists findings, shows one, and says whose it is and what became of it.
///
/// A finding has one id in every run that makes it. It is open until somebody takes it (assigned) and
/// says that it is resolved, or that the money is given up (written off), each with a reason. When its
/// facts change afterwards, the next run opens it again. Everything done to it is in its trail and in
/// the audit.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin reconcile findings list --state open --kind over_capture
  standin reconcile findings show 018f3c1e-…
  standin reconcile findings assign 018f3c1e-… --to bea --operator ada --reason 'her bank'
  standin reconcile findings resolve 018f3c1e-… --operator bea --reason 'refunded on 3 December'
  standin reconcile findings write-off 018f3c1e-… --operator bea --reason 'below 1 USD'")]
pub(crate) struct FindingsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Assign(AssignArgs),
    Resolve(SettleArgs),
    WriteOff(SettleArgs),
}

/// Lists findings.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    books: BooksArgs,
    /// Only of this bank.
    #[arg(long, value_name = "SLUG")]
    bank: Option<BankId>,
    /// Only of this sort.
    #[arg(long)]
    kind: Option<String>,
    /// Only in this state: open, assigned, resolved, written_off.
    #[arg(long)]
    state: Option<CaseState>,
    /// Only of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// Shows a finding and everything that happened to it.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The finding.
    id: Uuid,
    #[command(flatten)]
    books: BooksArgs,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// Gives a finding to somebody. One that was settled is not any more.
#[derive(Debug, clap::Args)]
struct AssignArgs {
    /// Whose it is from now on.
    #[arg(long, value_name = "WHO")]
    to: String,
    #[command(flatten)]
    settle: SettleArgs,
}

/// Says what became of a finding.
#[derive(Debug, clap::Args)]
struct SettleArgs {
    /// The finding.
    id: Uuid,
    #[command(flatten)]
    books: BooksArgs,
    /// Who does it, for the audit.
    #[arg(long, visible_alias = "as", value_name = "WHO")]
    operator: String,
    /// Why, for the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// A finding as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: Uuid,
    kind: &'a str,
    state: CaseState,
    owner: Option<&'a str>,
    bank: Option<&'a BankId>,
    transaction_id: Option<String>,
    shopper: Option<u64>,
    subject: &'a str,
    detail: &'a str,
    at_stake: i64,
    currency: Option<String>,
    occurred_at: String,
    found_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trail: Option<&'a [CaseEvent]>,
}

// === impl FindingsArgs ===

impl FindingsArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When the ledger cannot be asked, or there is no such finding.
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::List(args) => args.run().await,
            Command::Show(args) => args.run().await,
            Command::Assign(args) => {
                let what = CaseOrder::Assign { to: args.to };
                args.settle.act(what).await
            }
            Command::Resolve(args) => args.act(CaseOrder::Resolve).await,
            Command::WriteOff(args) => args.act(CaseOrder::WriteOff).await,
        }
    }
}

// === impl ListArgs ===

impl ListArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let ledger = self.books.connect()?;
        let filter = CaseFilter {
            bank: self.bank,
            kind: self.kind,
            state: self.state,
            owner: self.owner,
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut cases: Vec<Case> = Vec::new();
        while cases.len() < limit {
            let left = limit.saturating_sub(cases.len()).min(CASE_ROWS_MAX);
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            let after = cases.last().map(|case| case.found.id);
            let page = ledger.cases(filter.clone(), after, left).await?;
            if page.is_empty() {
                break;
            }
            cases.extend(page);
        }
        if self.json {
            let shown: Vec<Shown<'_>> = cases.iter().map(|case| Shown::of(case, None)).collect();
            say_json(&shown)?;
            return Ok(0);
        }
        let mut rows = table(["finding", "sort", "state", "owner", "at stake", "what"]);
        for case in &cases {
            rows.add_row([
                case.found.id.to_string(),
                case.found.kind.clone(),
                case.state.as_str().to_owned(),
                case.owner.clone().unwrap_or_default(),
                at_stake(case),
                case.found.detail.clone(),
            ]);
        }
        say(rows);
        say(format_args!("{} findings", cases.len()));
        Ok(0)
    }
}

// === impl ShowArgs ===

impl ShowArgs {
    async fn run(self) -> anyhow::Result<u8> {
        let ledger = self.books.connect()?;
        let Some((case, trail)) = ledger.case(self.id).await? else {
            bail!("no finding {}", self.id);
        };
        if self.json {
            say_json(&Shown::of(&case, Some(&trail)))?;
            return Ok(0);
        }
        tell(&case);
        for event in &trail {
            let owner = event
                .owner
                .as_deref()
                .map(|owner| format!(", owner {owner}"));
            say(format_args!(
                "{}  {} by {}{} {}",
                event.at,
                event.action,
                event.actor,
                owner.unwrap_or_default(),
                event.reason
            ));
        }
        Ok(0)
    }
}

// === impl SettleArgs ===

impl SettleArgs {
    async fn act(self, what: CaseOrder) -> anyhow::Result<u8> {
        let ledger = self.books.connect()?;
        let action = CaseAction {
            case: self.id,
            actor: self.operator,
            at: SystemClock.now(),
            reason: self.reason,
            what,
        };
        match ledger.act_on_case(action).await? {
            Acted::Unknown => bail!("no finding {}", self.id),
            Acted::Already(state) => {
                say(format_args!("it is {} already", state.as_str()));
                Ok(0)
            }
            Acted::Done(case) => {
                if self.json {
                    say_json(&Shown::of(&case, None))?;
                } else {
                    tell(&case);
                }
                Ok(0)
            }
        }
    }
}

// === impl Shown ===

impl<'a> Shown<'a> {
    fn of(case: &'a Case, trail: Option<&'a [CaseEvent]>) -> Self {
        let found = &case.found;
        Self {
            id: found.id,
            kind: &found.kind,
            state: case.state,
            owner: case.owner.as_deref(),
            bank: found.bank.as_ref(),
            transaction_id: found.transaction_id.map(|id| id.to_string()),
            shopper: found.shopper.map(u64::from),
            subject: &found.subject,
            detail: &found.detail,
            at_stake: found.amount,
            currency: found.currency.map(String::from),
            occurred_at: found.occurred_at.to_string(),
            found_at: case.found_at.to_string(),
            trail,
        }
    }
}

fn tell(case: &Case) {
    let found = &case.found;
    say(format_args!("finding {}", found.id));
    say(format_args!(
        "{}: {} ({}, {})",
        found.kind,
        found.detail,
        found.subject,
        at_stake(case)
    ));
    say(format_args!(
        "{}{}, found {}, of {}",
        case.state.as_str(),
        case.owner
            .as_deref()
            .map(|owner| format!(", {owner}'s"))
            .unwrap_or_default(),
        case.found_at,
        found.occurred_at
    ));
}

fn at_stake(case: &Case) -> String {
    case.found.currency.map_or_else(
        || case.found.amount.to_string(),
        |currency| Money::from_minor(case.found.amount, currency).to_string(),
    )
}
