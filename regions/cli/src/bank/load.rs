//! `standin bank load`: open-loop load, free of coordinated omission.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::format::Format;
use super::{Door, Payment, key_in_letters};
use crate::client::Call;
use crate::open_loop::{Fired, fire, moment};
use crate::out::{live_line, say, say_json};
use crate::tally::{Line, Tally, table};

/// Most payments read from one file.
const PAYMENTS_MAX: usize = 1_000_000;

/// Sends signed requests on a fixed schedule and measures every answer.
///
/// Open loop: arrivals have intended moments, a slow answer delays none of them, and latency is
/// counted from the intended moment, so that a stall shows in every request it delayed (no
/// coordinated omission). Moments are met to about a millisecond, which is part of the figure. A
/// request waits for one of --connections; that wait counts too.
///
/// Every request is a payment of its own: it gets a fresh transaction_id, unless --replay or its
/// line of --payments has one.
///
/// Exit code: 0 every request was answered, 1 some were not, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin bank load --rate 200 --seconds 10
  standin bank load --rate 2500 --seconds 60 --connections 128 --payments bodies.jsonl --json
  standin bank load --replay --transaction-id k1       one payment, again and again")]
pub struct Args {
    #[command(flatten)]
    door: Door,
    #[command(flatten)]
    payment: Payment,
    /// Requests a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Most connections open at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Bodies to send in turn, one JSON object a line, instead of the payment the flags say.
    #[arg(long, value_name = "FILE")]
    payments: Option<PathBuf>,
    /// Sends the payment as it is every time, without a fresh transaction_id.
    #[arg(long)]
    replay: bool,
    /// After so long a request counts as not answered.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    timeout_ms: u64,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// What a load came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Requests a second asked for.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests not sent because too many were under way.
    pub unsent: u64,
    /// Requests that got an answer.
    pub answered: u64,
    /// Latencies, by how the request was answered.
    pub answers: Vec<Line>,
    /// Answers by reason.
    pub reasons: std::collections::BTreeMap<standin_core::answer::Reason, u64>,
}

// === impl Args ===

impl Args {
    /// Runs it.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let report = self.load().await?;
        if self.json {
            say_json(&report)?;
        } else {
            say(table(&report.answers));
            for (reason, count) in &report.reasons {
                say(format_args!("{reason:<24}{count:>9}"));
            }
            if report.unsent > 0 {
                say(format_args!(
                    "{} were not sent: too many under way",
                    report.unsent
                ));
            }
        }
        Ok(u8::from(report.unsent > 0 || report.answered < report.sent))
    }

    async fn load(&self) -> anyhow::Result<Report> {
        let bodies = self.bodies()?;
        let target = self.door.http()?;
        let signer = self.door.signer(Format::Native, &target)?;
        let connections = usize::try_from(self.connections)?;
        let pool = self.door.tls.pool(&target, connections)?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let path = self.door.path();
        let count = self.rate.saturating_mul(self.seconds);
        let arrivals = (0..count).zip(bodies.iter().cycle());
        let arrivals = arrivals.map(|(index, body)| (moment(index, self.rate), body.clone()));
        let patience = Duration::from_millis(self.timeout_ms);
        let (stop, live) = (stop_on_interrupt(), live_line());
        let fired = fire(Instant::now(), arrivals, &stop, |body, intended| {
            let (pool, tally, live) = (pool.clone(), Arc::clone(&tally), live.clone());
            let call = Call::post(path.clone(), body.fresh()).signed(&signer);
            async move {
                let deadline = intended.checked_add(patience).unwrap_or(intended);
                let outcome = pool.call(call, deadline).await;
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.record(&outcome, intended.elapsed());
                live.set_message(format!(
                    "{} done, {} answered",
                    tally.count(),
                    tally.answered()
                ));
            }
        })
        .await;
        live.finish_and_clear();
        pool.close().await;
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.report(fired, &tally))
    }

    fn report(&self, fired: Fired, tally: &Tally) -> Report {
        Report {
            rate: self.rate,
            seconds: self.seconds,
            sent: fired.sent,
            unsent: fired.unsent,
            answered: tally.answered(),
            answers: tally.lines(),
            reasons: tally.reasons().clone(),
        }
    }

    fn bodies(&self) -> anyhow::Result<Vec<Template>> {
        let Some(file) = &self.payments else {
            return Ok(vec![Template::new(&self.payment.body()?, self.replay)?]);
        };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let mut bodies = Vec::new();
        for (index, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            if index >= PAYMENTS_MAX {
                bail!("{}: more than {PAYMENTS_MAX} lines", file.display());
            }
            let place = || format!("{} line {}", file.display(), index.saturating_add(1));
            bodies.push(Template::new(line.as_bytes(), self.replay).with_context(place)?);
        }
        if bodies.is_empty() {
            bail!("{}: no payments in it", file.display());
        }
        Ok(bodies)
    }
}

/// A body that may want a transaction id of its own each time.
#[derive(Clone, Debug)]
struct Template {
    /// Up to where the id goes.
    head: Bytes,
    wants_id: bool,
}

// === impl Template ===

impl Template {
    fn new(body: &[u8], replay: bool) -> anyhow::Result<Self> {
        let parsed: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).context("not a JSON object")?;
        let wants_id = !replay && !parsed.contains_key("transaction_id") && !parsed.is_empty();
        let body = body.trim_ascii_end();
        let head = if wants_id {
            body.strip_suffix(b"}").unwrap_or(body)
        } else {
            body
        };
        Ok(Self {
            head: Bytes::copy_from_slice(head),
            wants_id,
        })
    }

    fn fresh(&self) -> Bytes {
        if !self.wants_id {
            return self.head.clone();
        }
        let mut body = self.head.to_vec();
        let id = format!(",\"transaction_id\":\"{}\"}}", key_in_letters());
        body.extend_from_slice(id.as_bytes());
        body.into()
    }
}

/// A token that the first interrupt cancels; what was sent until then is still waited for.
fn stop_on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let guard = stop.clone();
    // Ends with the process at the latest; it holds nothing but the token.
    drop(tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            guard.cancel();
        }
    }));
    stop
}

#[cfg(test)]
mod tests {
    use standin_core::card_number::holds_card_number;

    use super::*;

    #[test]
    fn no_fresh_id_reads_as_a_card_number() {
        let template = Template::new(br#"{"shopper_id":1}"#, false).unwrap();
        for _ in 0..20_000 {
            let body = template.fresh();
            let text = std::str::from_utf8(&body).unwrap();
            assert!(!holds_card_number(text), "{text}");
        }
    }

    #[test]
    fn each_request_is_a_payment_of_its_own_unless_replayed() {
        let body = br#"{"shopper_id":1,"amount":2.50,"merchant":{"name":"a","address":"b"}}"#;
        let template = Template::new(body, false).unwrap();
        let (one, two) = (template.fresh(), template.fresh());
        assert_ne!(one, two);
        let parsed: serde_json::Value = serde_json::from_slice(&one).unwrap();
        assert!(parsed["transaction_id"].is_string());
        assert!(one.starts_with(&body[..body.len().saturating_sub(1)]));
        assert_eq!(
            Template::new(body, true).unwrap().fresh().as_ref(),
            body.as_slice()
        );
        let keyed = br#"{"transaction_id":"k"}"#;
        assert_eq!(
            Template::new(keyed, false).unwrap().fresh().as_ref(),
            keyed.as_slice()
        );
        assert!(Template::new(b"[]", false).is_err());
    }
}
