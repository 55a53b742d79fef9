//! An honest bank: a steady rate, one more try within its deadline, its certificate shown.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use standin_cli::client::{Call, CallError, ClientTls, Pool, Reply, Signer, Target};
use standin_cli::open_loop::{fire, moment};
use standin_core::signature::Secret;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bench::certs::Certificates;
use crate::bench::children::SECRET;
use crate::bench::load::Numbers;
use crate::bench::servers::Servers;
use crate::bench::work::{Payments, payments_path};

/// What a bank waits for an answer.
const DEADLINE: Duration = Duration::from_secs(1);
/// Of it, for the first try.
const FIRST_TRY: Duration = Duration::from_millis(450);
/// Before the second one.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that are kept.
const CONNECTIONS: usize = 16;
/// One payment in so many comes over a connection of its own.
const FRESH_EVERY: u64 = 10;
/// Longest latency told apart, microseconds.
const LATENCY_US_MAX: u64 = 10_000_000;

/// One bank at one edge.
pub struct HonestBank {
    target: Target,
    tls: ClientTls,
    signer: Signer,
    kept: Pool,
    payments: Payments,
    numbers: Numbers,
}

/// What a bank was told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Told {
    /// Payments.
    pub sent: u64,
    /// Answered at the first try, inside the deadline.
    pub at_first: u64,
    /// Answered at the second.
    pub at_second: u64,
    /// Not answered: the last try was refused (429, 503).
    pub refused: u64,
    /// Not answered: no response in time, or a connection that was not to be had or broke.
    pub failed: u64,
    /// Payments over connections of their own.
    pub fresh: u64,
    /// Of those, answered inside the deadline.
    pub fresh_in_time: u64,
    /// Milliseconds from the intended moment to the answer: median, 99th percentile, longest.
    pub latency_ms: [f64; 3],
    /// Last words of those without an answer, at most ten.
    pub why: Vec<String>,
}

enum Outcome {
    Answered { at_first: bool },
    Refused(String),
    Failed(String),
}

struct Tally {
    told: Told,
    latency: Histogram<u64>,
}

// === impl HonestBank ===

impl HonestBank {
    /// A bank that pays on the servers' trips.
    ///
    /// # Errors
    /// When a certificate does not serve.
    pub fn new(
        certificates: &Certificates,
        edge: SocketAddr,
        servers: &Servers,
    ) -> anyhow::Result<Self> {
        let target: Target = format!("https://{edge}").parse()?;
        let (tls, secret) = (certificates.bank()?, SECRET.parse::<Secret>()?);
        Ok(Self {
            kept: Pool::over_tls(target.clone(), CONNECTIONS, tls.clone()),
            target,
            tls,
            signer: Signer::new(secret.clone()),
            payments: Payments {
                world: Arc::clone(&servers.world),
                secret,
                run: 0x00ab_05ed,
            },
            numbers: Numbers::default(),
        })
    }

    /// Pays so often a second for so long, whatever becomes of it.
    pub async fn pay(self: &Arc<Self>, rate: u64, length: Duration) -> Told {
        let begun = Instant::now();
        let count = rate * length.as_secs();
        let arrivals = (0..count).map(|index| (moment(index, rate), self.numbers.next()));
        let tally = Arc::new(Mutex::new(Tally::new()));
        let stop = CancellationToken::new();
        let fired = fire(begun, arrivals, &stop, |number, intended| {
            let (bank, tally) = (Arc::clone(self), Arc::clone(&tally));
            async move {
                let is_fresh = number % FRESH_EVERY == 0;
                let outcome = bank.pay_one(number, intended, is_fresh).await;
                let took = intended.elapsed();
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.record(outcome, took, is_fresh);
            }
        })
        .await;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.told.sent += fired.unsent;
        tally.told.failed += fired.unsent;
        tally.finish()
    }

    async fn pay_one(&self, number: u64, intended: Instant, is_fresh: bool) -> Outcome {
        let deadline = intended + DEADLINE;
        let pool = if is_fresh {
            Pool::over_tls(self.target.clone(), 1, self.tls.clone())
        } else {
            self.kept.clone()
        };
        let call = Call::post(payments_path(), self.payments.body(number)).signed(&self.signer);
        let first = pool.call(call.clone(), intended + FIRST_TRY).await;
        if is_answer(&first) {
            return Outcome::Answered { at_first: true };
        }
        sleep_until((Instant::now() + PAUSE).min(deadline)).await;
        let second = pool.call(call, deadline).await;
        match second {
            told if is_answer(&told) => Outcome::Answered { at_first: false },
            Ok(Reply { status, .. }) => Outcome::Refused(format!("status {status}")),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

fn is_answer(told: &Result<Reply, CallError>) -> bool {
    matches!(told, Ok(reply) if matches!(reply.status, 200 | 402))
}

// === impl Told ===

impl Told {
    /// Answered inside the deadline.
    pub fn in_time(&self) -> u64 {
        self.at_first + self.at_second
    }
}

// === impl Tally ===

impl Tally {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self {
            told: Told::default(),
            latency: latency.expect("the bounds are constants that fit"),
        }
    }

    fn record(&mut self, outcome: Outcome, took: Duration, is_fresh: bool) {
        const WORDS_MAX: usize = 10;
        let told = &mut self.told;
        told.sent += 1;
        told.fresh += u64::from(is_fresh);
        match outcome {
            Outcome::Answered { at_first } if took <= DEADLINE => {
                told.at_first += u64::from(at_first);
                told.at_second += u64::from(!at_first);
                told.fresh_in_time += u64::from(is_fresh);
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros.max(1));
            }
            Outcome::Answered { .. } => told.failed += 1,
            Outcome::Refused(why) | Outcome::Failed(why) if told.why.len() < WORDS_MAX => {
                let refused = why.starts_with("status ");
                told.refused += u64::from(refused);
                told.failed += u64::from(!refused);
                told.why.push(why);
            }
            Outcome::Refused(_) => told.refused += 1,
            Outcome::Failed(_) => told.failed += 1,
        }
    }

    fn finish(&mut self) -> Told {
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        self.told.latency_ms = [at(0.5), at(0.99), at(1.0)];
        std::mem::take(&mut self.told)
    }
}
