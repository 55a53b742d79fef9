//! `standin bank send`: signs and sends one request, and shows the answer.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;
use standin_core::answer::Verdict;

use super::format::{self, Format, Heard};
use super::{Door, Payment};
use crate::client::{Call, CallError, Reply};
use crate::out::{say, say_json};

/// Signs one authorization request as a bank does, sends it, and shows the answer.
///
/// --format says whose words the body is in: ours, or what Stripe, Lithic or Marqeta would send. It is
/// signed as that platform signs, unless --signature says otherwise: native and lithic as Standard
/// Webhooks has it (HMAC-SHA256 over `id.timestamp.body`, in the headers webhook-id,
/// webhook-timestamp and webhook-signature), stripe in Stripe-Signature, marqeta by user and password
/// (over TLS with a certificate). Every send is signed anew; what makes two sends the same payment is
/// its key.
///
/// Platforms name cards, not shoppers: `standin trips card` says who carries one.
///
/// Exit code: 0 approved, 3 declined, 4 refused without an answer (bad signature, other body under
/// a used key, too many requests, out of service), 1 no reply, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin bank send                                   300 at Target, by shopper 123
  standin bank send --amount 3000                     more than was picked: declined
  standin bank send --amount 12.30 --transaction-id k1
  standin bank send --format stripe --card ic_1 --amount 12.30
  standin bank send --format lithic --amount 900 --partial   less is taken, too
  standin bank send --body '{\"shopper_id\":123,\"amount\":300,\"merchant\":{\"name\":\"Target\",\"address\":\"123 Main St\"}}'
  standin bank send --body @request.json --json
  standin bank send --url https://edge:8480 --ca certs/banks-ca.pem --bank first \\
    --certificate certs/bank-first.pem --key certs/bank-first.key --signature stripe")]
pub struct Args {
    #[command(flatten)]
    door: Door,
    /// Whose words: native, stripe, lithic or marqeta.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "native",
        env = "STANDIN_FORMAT",
        value_enum
    )]
    format: Format,
    #[command(flatten)]
    payment: Payment,
    /// The whole body as it is, instead of the flags above; @FILE reads it from a file.
    #[arg(long, value_name = "JSON|@FILE")]
    body: Option<String>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    timeout_ms: u64,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    status: u16,
    replayed: bool,
    #[serde(flatten)]
    heard: Heard,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    body: serde_json::Value,
}

// === impl Args ===

impl Args {
    /// Runs it.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let key = self.payment.key(self.format);
        let body = match self.request_body(&key) {
            Ok(body) => body,
            Err(error) => {
                eprintln!("standin: {error:#}");
                return Ok(2);
            }
        };
        let signer = self.door.signer(self.format)?;
        let pool = self.door.tls.pool(&self.door.url, 1)?;
        let call = Call::post(self.door.path(), body);
        let call = match self.format {
            // The message's id is the payment's key.
            Format::Lithic => call.signed_as(&signer, &key),
            Format::Native | Format::Stripe | Format::Marqeta => call.signed(&signer),
        };
        let outcome = pool.ask(call, Duration::from_millis(self.timeout_ms)).await;
        if let Err(error @ CallError::Request(_)) = outcome {
            return Err(error.into());
        }
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => {
                eprintln!("no answer: {error}");
                return Ok(1);
            }
        };
        let heard = format::heard(self.format, &reply);
        let code = exit_code(&heard);
        self.show(&reply, heard)?;
        Ok(code)
    }

    fn request_body(&self, key: &str) -> anyhow::Result<Bytes> {
        let Some(text) = &self.body else {
            return Ok(match self.format {
                // Without a key of its own the payment is known by what it says.
                Format::Native => self.payment.body()?,
                Format::Stripe | Format::Lithic | Format::Marqeta => {
                    format::authorization(self.format, &self.payment, key)?.body
                }
            });
        };
        match text.strip_prefix('@') {
            Some(file) => Ok(std::fs::read(file)
                .with_context(|| format!("cannot read {file}"))?
                .into()),
            None => Ok(Bytes::from(text.clone())),
        }
    }

    fn show(&self, reply: &Reply, heard: Heard) -> anyhow::Result<()> {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let replayed = reply.replayed.as_deref() == Some("true");
        if self.json {
            let body = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
            return say_json(&Shown {
                status: reply.status,
                replayed,
                heard,
                retry_after: reply.retry_after.clone(),
                body,
            });
        }
        say(format_args!("{}", heard.words()));
        say(format_args!("status    {}", reply.status));
        say(format_args!("replayed  {replayed}"));
        if let Some(seconds) = &reply.retry_after {
            say(format_args!("retry     after {seconds} s"));
        }
        say(text);
        Ok(())
    }
}

fn exit_code(heard: &Heard) -> u8 {
    match heard.verdict {
        Some(Verdict::Approved) => 0,
        Some(Verdict::Declined) => 3,
        None => 4,
    }
}
