//! `standin bank send`: signs and sends one request, and shows the answer.

mod message;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;
use standin_core::answer::Verdict;

use super::format::iso8583::Agreed;
use super::format::{self, Format, Heard, Words};
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
/// --format iso8583 sends a message of ISO 8583:1987 over TCP, with two bytes of length before it. It is
/// not signed: over iso8583s:// the certificate says who sends. 0100 asks for the amount; --body takes
/// any other message as JSON, `t` for its type and the fields by their numbers. What is shown of message
/// and answer leaves out the card's number and whatever else may name card or holder.
///
/// Exit code: 0 approved (or, where nothing is decided, 00), 3 declined, 4 refused without an answer
/// (bad signature, other body under a used key, too many requests, out of service), 1 no reply, 2 wrong
/// usage.
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
  standin bank send --format iso8583 --amount 12.30              to iso8583://127.0.0.1:8583
  standin bank send --format iso8583 --body '{\"t\":\"0800\",\"7\":\"1130101112\",\"11\":\"000001\",\"70\":\"301\"}'
  standin bank send --format iso8583 --url iso8583s://edge:8583 --ca certs/banks-ca.pem \\
    --certificate certs/bank-acme.pem --key certs/bank-acme.key --encoding ascii-binary
  standin bank send --url https://edge:8480 --ca certs/banks-ca.pem --bank first \\
    --certificate certs/bank-first.pem --key certs/bank-first.key --signature stripe")]
pub struct Args {
    #[command(flatten)]
    door: Door,
    /// Whose words: native, stripe, lithic, marqeta or iso8583.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "native",
        env = "STANDIN_FORMAT",
        value_enum
    )]
    format: Words,
    #[command(flatten)]
    agreed: Agreed,
    #[command(flatten)]
    payment: Payment,
    /// The whole body as it is, instead of the flags above; @FILE reads it from a file. iso8583: the
    /// message's fields.
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
        match self.format {
            Words::Http(format) => self.request(format).await,
            Words::Iso8583 => message::send(&self).await,
        }
    }

    async fn request(&self, format: Format) -> anyhow::Result<u8> {
        let key = self.payment.key(format);
        let made = self.request_body(format, &key);
        let (target, body) = match self.door.http().and_then(|target| Ok((target, made?))) {
            Ok(made) => made,
            Err(error) => return Ok(wrong_usage(&error)),
        };
        let signer = self.door.signer(format, &target)?;
        let pool = self.door.tls.pool(&target, 1)?;
        let call = Call::post(self.door.path(), body);
        let call = match format {
            // The message's id is the payment's key.
            Format::Lithic => call.signed_as(&signer, &key),
            Format::Native | Format::Stripe | Format::Marqeta => call.signed(&signer),
        };
        let outcome = pool.ask(call, self.patience()).await;
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
        let heard = format::heard(format, &reply);
        let code = exit_code(&heard);
        self.show(&reply, heard)?;
        Ok(code)
    }

    fn request_body(&self, format: Format, key: &str) -> anyhow::Result<Bytes> {
        let Some(given) = self.given()? else {
            return Ok(match format {
                // Without a key of its own the payment is known by what it says.
                Format::Native => self.payment.body()?,
                Format::Stripe | Format::Lithic | Format::Marqeta => {
                    format::authorization(format, &self.payment, key)?.body
                }
            });
        };
        Ok(given.into())
    }

    /// What --body says, or the file that it names.
    fn given(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(text) = &self.body else {
            return Ok(None);
        };
        Ok(Some(match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).with_context(|| format!("cannot read {file}"))?,
            None => text.clone().into_bytes(),
        }))
    }

    const fn patience(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
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

fn wrong_usage(error: &anyhow::Error) -> u8 {
    eprintln!("standin: {error:#}");
    2
}

fn exit_code(heard: &Heard) -> u8 {
    match heard.verdict {
        Some(Verdict::Approved) => 0,
        Some(Verdict::Declined) => 3,
        None => 4,
    }
}
