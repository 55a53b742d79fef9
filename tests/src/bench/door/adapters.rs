//! What each format costs, in this process: understanding a message whose signature was right, and
//! rendering its answer.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;
use standin_core::answer::{Answer, Code, Reason, Rung, Verdict};
use standin_core::authorization::Authorization;
use standin_core::clock::Timestamp;
use standin_core::id::{Fingerprint, TransactionId, TripId};
use standin_core::identity::DeploymentKey;
use standin_edge::adapter::{self, Adapter, Asked, Format, Message, Resource};
use standin_edge::config::{BankConfig, Config};
use standin_edge::iso8583;
use tokio::time::Instant;
use uuid::Uuid;

/// How long one figure is measured, and how often.
const TRIAL: Duration = Duration::from_millis(200);
const TRIALS: usize = 5;
/// Messages between two looks at the clock.
const AT_ONCE: u32 = 256;

/// As the platforms document them.
const NATIVE: &str = r#"{"shopper_id":123,"amount":300.00,"merchant":{"name":"Target","address":"123 Main St"},"transaction_id":"0123456789abcdef0123456789abcdef"}"#;
const STRIPE: &str = include_str!("stripe.json");
const LITHIC: &str = include_str!("lithic.json");
const MARQETA: &str = include_str!("marqeta.json");
/// A purchase, all in ASCII.
const ISO8583: &[u8] = include_bytes!("../../../data/door-corpus/iso8583/00-ascii");

/// A bank of each format. The files of certificates are named and never read.
const BANKS: &str = r#"
deployment_key = "c3RhbmRpbi1iZW5jaC1kZXBsb3ltZW50LWtleSEhISE="
[tls]
certificate = "door.pem"
key = "door.key"
banks_ca = "banks-ca.pem"
[[banks]]
slug = "native"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
[[banks]]
slug = "stripe"
adapter = "stripe"
secrets = ["whsec_5PgFv1X0dC3hJ2kQm8rTyUzL"]
[[banks]]
slug = "lithic"
adapter = "lithic"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
[[banks]]
slug = "marqeta"
adapter = "marqeta"
client_certificate = "required"
secrets = ["marqeta:sesame-street"]
[iso8583]
listen = "127.0.0.1:8583"
[[banks]]
slug = "iso8583"
adapter = "iso8583"
client_certificate = "required"
"#;

/// What one format costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The format.
    pub format: &'static str,
    /// Length of the message.
    pub bytes: usize,
    /// Nanoseconds to understand it: median, least, most.
    pub understand_ns: [f64; 3],
    /// Nanoseconds to render its answer.
    pub render_ns: [f64; 3],
}

// === impl Cost ===

impl Cost {
    /// As a row of a table.
    pub fn row(&self) -> String {
        let [[a, b, c], [d, e, f]] = [self.understand_ns, self.render_ns];
        format!(
            "| {} | {} | {a:.0} ({b:.0}-{c:.0}) | {d:.0} ({e:.0}-{f:.0}) |\n",
            self.format, self.bytes
        )
    }
}

/// Measures every format.
///
/// # Errors
/// When one does not understand its own message.
pub fn measure() -> anyhow::Result<Vec<Cost>> {
    let (config, _) = Config::load(Some(BANKS), []).map_err(|errors| anyhow!("{errors}"))?;
    let formats = Format::ALL.into_iter().map(|format| {
        let bank = config
            .bank(format.as_str())
            .context("a bank of each format")?;
        match body(format) {
            Some(body) => cost(format, bank, body),
            None => iso8583_cost(bank),
        }
    });
    formats.collect()
}

/// A message of a format that is spoken over HTTP.
const fn body(format: Format) -> Option<&'static str> {
    match format {
        Format::Native => Some(NATIVE),
        Format::Stripe => Some(STRIPE),
        Format::Lithic => Some(LITHIC),
        Format::Marqeta => Some(MARQETA),
        Format::Iso8583 => None,
    }
}

/// Reading its bytes and making the card's token are part of understanding it, writing them of rendering.
fn iso8583_cost(bank: &BankConfig) -> anyhow::Result<Cost> {
    let key = DeploymentKey::new(vec![7; 32]).context("a deployment key")?;
    let at = Timestamp::from_millis(1_700_000_000_000);
    let read = || iso8583::Message::decode(ISO8583, bank.encoding);
    let message = read()?;
    let asked = adapter::iso8583::understand(bank, &key, &message, at);
    let Ok(adapter::iso8583::Asked::Authorization(asked)) = asked else {
        anyhow::bail!("iso8583: not an authorization: {asked:?}");
    };
    let answer = answer(&asked);
    let understanding = || {
        if let Ok(message) = black_box(read()) {
            let asked = adapter::iso8583::understand(bank, &key, &message, at);
            drop(black_box(asked));
        }
    };
    let rendering = || {
        let reply = adapter::iso8583::render(&message, black_box(&answer), asked.amount);
        drop(black_box(reply.map(|reply| reply.encode(bank.encoding))));
    };
    Ok(Cost {
        format: Format::Iso8583.as_str(),
        bytes: ISO8583.len(),
        understand_ns: nanos(understanding),
        render_ns: nanos(rendering),
    })
}

/// A message to a bank that speaks its format.
fn message<'a>(bank: &'a BankConfig, body: &'a str) -> Message<'a> {
    Message {
        bank,
        id: Some("msg_1"),
        resource: Resource::Authorizations,
        body: body.as_bytes(),
        at: Timestamp::from_millis(1_700_000_000_000),
    }
}

fn cost(format: Format, bank: &BankConfig, body: &str) -> anyhow::Result<Cost> {
    let message = message(bank, body);
    let understood = format
        .understand(&message)
        .map_err(|problem| anyhow!("{}: {problem:?}", format.as_str()))?;
    let Asked::Authorization(asked) = &understood.asked else {
        anyhow::bail!("{}: not an authorization", format.as_str());
    };
    let answer = answer(asked);
    let understanding = || drop(black_box(format.understand(black_box(&message))));
    let rendering = || {
        drop(black_box(
            understood.reply.answer(black_box(&answer), asked.amount),
        ))
    };
    Ok(Cost {
        format: format.as_str(),
        bytes: message.body.len(),
        understand_ns: nanos(understanding),
        render_ns: nanos(rendering),
    })
}

/// An approval of what was asked.
fn answer(asked: &Authorization) -> Answer {
    Answer {
        transaction_id: TransactionId::from_bytes([0xab; 16]),
        fingerprint: Fingerprint::from_bytes([1; 32]),
        bank: asked.bank.clone(),
        shopper: asked.shopper,
        verdict: Verdict::Approved,
        reason: Reason::WithinCap,
        code: Code::from_mac(&[0; 32]),
        amount: asked.amount,
        rung: Rung::Primary,
        why: None,
        cap: Some(34_550),
        approved_before: 0,
        trip: Some(TripId(Uuid::from_bytes([2; 16]))),
        trip_age_ms: Some(12),
        policy_version: 3,
    }
}

/// Nanoseconds a call: median, least and most of some trials.
fn nanos(call: impl Fn()) -> [f64; 3] {
    let mut trials: Vec<f64> = (0..TRIALS)
        .map(|_| {
            let begun = Instant::now();
            let mut calls = 0_u64;
            while begun.elapsed() < TRIAL {
                for _ in 0..AT_ONCE {
                    call();
                }
                calls += u64::from(AT_ONCE);
            }
            begun.elapsed().as_secs_f64() * 1_000_000_000.0 / calls.max(1) as f64
        })
        .collect();
    trials.sort_by(f64::total_cmp);
    let at = |index: usize| trials.get(index).copied().unwrap_or(0.0);
    [at(TRIALS / 2), at(0), at(TRIALS - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_understands_the_message_it_is_measured_with() {
        let (config, _) = Config::load(Some(BANKS), []).unwrap();
        for format in Format::ALL {
            let bank = config.bank(format.as_str()).unwrap();
            let Some(body) = body(format) else {
                assert!(iso8583_cost(bank).is_ok());
                continue;
            };
            let understood = format.understand(&message(bank, body)).unwrap();
            assert!(matches!(understood.asked, Asked::Authorization(_)));
        }
    }
}
