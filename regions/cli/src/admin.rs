//! Operators' commands: `status`, `stand-in`, `answer clear`, through an edge's admin listener.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Call, Reply, Target, TlsArgs};
use crate::out::{say, say_json, table};

/// How long an edge may take to answer its operator.
const PATIENCE: Duration = Duration::from_secs(5);

/// An edge's admin listener.
#[derive(Debug, clap::Args)]
pub struct Desk {
    /// The edge's admin listener.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8081",
        env = "STANDIN_ADMIN"
    )]
    pub(crate) admin: Target,
    #[command(flatten)]
    tls: TlsArgs,
    /// JSON on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who orders, and why: both are kept in the audit.
#[derive(Debug, clap::Args)]
pub struct Signature {
    /// Who orders it.
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: String,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

/// Shows how an edge is: rung, breaker, log, drain, exposure, alarms.
///
/// Exit code: 0 shown, 1 no reply.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin status
  standin status --admin http://127.0.0.1:8481 --json")]
pub struct StatusArgs {
    #[command(flatten)]
    desk: Desk,
}

/// Orders who decides whether to stand in for the primary.
///
/// auto: the breaker and each request's budget. force: the primary is not asked. forbid: without
/// the primary there is no answer. The order is durable in the log and audited. With --for it ends by
/// itself, which is audited too: what is forgotten at night is over in the morning.
///
/// Exit code: 0 in force, 4 refused, 1 no reply.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin stand-in force --operator ada --reason 'primary is being moved'
  standin stand-in force --for 2h --operator ada --reason 'primary is being moved'
  standin stand-in auto  --operator ada --reason 'move is done'")]
pub struct StandInArgs {
    /// Who decides.
    #[arg(value_enum)]
    mode: Mode,
    /// Not auto: how long, from a second to seven days, as 90s, 45m, 2h 30m or 1d; left out, until
    /// another order.
    #[arg(long = "for", value_name = "TIME", value_parser = lasts)]
    lasts: Option<Duration>,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    desk: Desk,
}

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// The breaker and each request's budget.
    Auto,
    /// Always stand in.
    Force,
    /// Never stand in.
    Forbid,
}

/// Orders about stored answers.
#[derive(Debug, clap::Args)]
pub struct AnswerArgs {
    #[command(subcommand)]
    command: AnswerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AnswerCommand {
    Clear(ClearArgs),
}

/// Lets the answer that was committed replay, instead of the 500 that was stored for it.
///
/// A 500 whose cause is ours after a commit is stored and replays, so that a bank never gets two
/// different replies; this ends it, audited.
///
/// Exit code: 0 cleared, 4 refused (nothing is stored under this id), 1 no reply.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin answer clear 0123456789abcdef0123456789abcdef --operator ada --reason 'fixed in 1.2.3'")]
struct ClearArgs {
    /// The payment: 32 hexadecimal digits.
    id: standin_core::id::TransactionId,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    desk: Desk,
}

// === impl StatusArgs ===

impl StatusArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no reply, or none that reads.
    pub async fn run(self) -> anyhow::Result<u8> {
        let reply = self.desk.ask(Call::get("/statusz")).await?;
        let status: Value = serde_json::from_slice(&reply.body)?;
        if self.desk.json {
            say_json(&status)?;
            return Ok(0);
        }
        let mut rows = table(["", ""]);
        flatten("", &status, &mut |name, value| {
            rows.add_row([name, &value]);
        });
        say(rows);
        Ok(0)
    }
}

// === impl StandInArgs ===

impl StandInArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn run(self) -> anyhow::Result<u8> {
        let mode = match self.mode {
            Mode::Auto => "auto",
            Mode::Force => "force",
            Mode::Forbid => "forbid",
        };
        let for_ms = self.lasts.map(|lasts| lasts.as_millis());
        self.desk
            .order(
                format!("/stand-in/{mode}"),
                &self.signature,
                json!({ "for_ms": for_ms }),
            )
            .await
    }
}

/// A day is 24 hours here.
pub(crate) fn lasts(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text
        .parse()
        .map_err(|_| "a time, as 90s, 45m, 2h 30m or 1d".to_owned())?;
    let lasts = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let lasts = lasts.map_err(|error| error.to_string())?;
    Duration::try_from(lasts).map_err(|_| "a time that has not gone by".to_owned())
}

// === impl AnswerArgs ===

impl AnswerArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn run(self) -> anyhow::Result<u8> {
        let AnswerCommand::Clear(args) = self.command;
        args.desk
            .order(
                format!("/answers/{}/clear", args.id),
                &args.signature,
                json!({}),
            )
            .await
    }
}

// === impl Desk ===

impl Desk {
    /// `more` is an object: what the body says beside who and why.
    async fn order(
        &self,
        path: String,
        signature: &Signature,
        mut more: Value,
    ) -> anyhow::Result<u8> {
        let Signature { operator, reason } = signature;
        more["operator"] = json!(operator);
        more["reason"] = json!(reason);
        let body = serde_json::to_vec(&more)?;
        let reply = self.ask(Call::post(path, body)).await?;
        let done = (200..300).contains(&reply.status);
        let value: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        if self.json {
            say_json(&value)?;
        } else if done {
            say("done, and audited");
        } else {
            eprintln!("refused ({}): {}", reply.status, why_not(&value));
        }
        Ok(if done { 0 } else { 4 })
    }

    pub(crate) async fn ask(&self, call: Call) -> anyhow::Result<Reply> {
        self.ask_within(call, PATIENCE).await
    }

    /// What takes longer than a page.
    pub(crate) async fn ask_within(&self, call: Call, patience: Duration) -> anyhow::Result<Reply> {
        let pool = self.tls.pool(&self.admin, 1)?;
        Ok(pool.ask(call, patience).await?)
    }
}

/// Why an order was refused, from the problem that was replied.
pub(crate) fn why_not(problem: &Value) -> &str {
    let detail = problem.get("detail").or_else(|| problem.get("title"));
    detail.and_then(Value::as_str).unwrap_or("no reason given")
}

/// Every leaf of a document with its dotted name.
fn flatten(name: &str, value: &Value, row: &mut impl FnMut(&str, String)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{key}"), value, row);
            }
        }
        Value::String(text) => row(name, text.clone()),
        Value::Null => row(name, "-".to_owned()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            row(name, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
