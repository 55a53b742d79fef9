//! A bank: signs, sends, retries, and remembers every attempt for the checker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use standin_cli::client::{Call, CallError, Pool, Reply, Signer};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::identity::{self, Operation};
use standin_core::money::{Currency, Money};
use standin_core::signature::Secret;
use standin_reconcile::history::{Attempt, BodyHash, Outcome, Said};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wait::until;

/// The bank's slug at every edge of the harness.
pub const SLUG: &str = "first";
/// Its secret there.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Longer than any deadline of an edge here: what is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause of a load worker whose connection broke, so that it does not spin while an edge is down.
const BACK_OFF: Duration = Duration::from_millis(5);

/// One bank at one edge. Clones share connections and history.
#[derive(Clone, Debug)]
pub struct Bank {
    slug: BankId,
    signer: Signer,
    pool: Pool,
    edge: String,
    patience: Duration,
    history: History,
}

/// One bank that knows several edges: it asks each in turn, and another one when it got no answer.
#[derive(Clone, Debug)]
pub struct Banks(pub Vec<Bank>);

/// Every attempt of every bank of a scenario.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Vec<Attempt>>>);

/// A payment as a bank means it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payment {
    /// The bank's own key; sent as `transaction_id`.
    pub key: String,
    /// Whose card.
    pub shopper: u64,
    /// Minor units of USD.
    pub cents: i64,
    /// Merchant's name.
    pub store: &'static str,
}

/// What a bank heard.
#[derive(Debug)]
pub struct Told(pub Result<Reply, CallError>);

/// Load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    workers: JoinSet<Option<Payment>>,
    answered: Arc<AtomicU64>,
}

// === impl Payment ===

impl Payment {
    /// At the store of the stage.
    pub fn new(key: impl Into<String>, shopper: u64, cents: i64) -> Self {
        Self {
            key: key.into(),
            shopper,
            cents,
            store: super::stage::STORE_NAME,
        }
    }

    /// The bytes sent; equal payments give equal bytes.
    pub fn body(&self) -> Bytes {
        let body = serde_json::json!({
            "shopper_id": self.shopper,
            "amount": self.amount().to_decimal(),
            "merchant": {"name": self.store, "address": super::stage::STORE_ADDRESS},
            "transaction_id": self.key,
        });
        Bytes::from(body.to_string())
    }

    /// The amount asked for.
    pub fn amount(&self) -> Money {
        Money::from_minor(self.cents, Currency::USD)
    }

    /// Identity of the payment at `bank`.
    pub fn transaction_id(&self, bank: &BankId) -> TransactionId {
        let request = Authorization {
            bank: bank.clone(),
            shopper: self.shopper_id(),
            amount: self.amount(),
            merchant: Merchant {
                name: self.store.to_owned(),
                address: super::stage::STORE_ADDRESS.to_owned(),
            },
            bank_key: Some(self.key.clone()),
            received_at: SystemClock.now(),
            particulars: Particulars::default(),
        };
        identity::transaction_id(&request, Operation::Authorize, None)
    }

    fn shopper_id(&self) -> ShopperId {
        self.shopper.try_into().unwrap()
    }
}

// === impl Told ===

impl Told {
    /// The status; `None` when nothing came.
    pub fn status(&self) -> Option<u16> {
        self.0.as_ref().ok().map(|reply| reply.status)
    }

    /// The reply; fails the test when nothing came.
    pub fn reply(&self) -> &Reply {
        match &self.0 {
            Ok(reply) => reply,
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Whether it was marked as a replay.
    pub fn is_replayed(&self) -> bool {
        self.reply().replayed.as_deref() == Some("true")
    }

    /// The answer in it; fails the test when it is none.
    pub fn said(&self) -> Said {
        let reply = self.reply();
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        Said::read(reply.status, &body)
            .unwrap_or_else(|error| panic!("{} {body}: {error}", reply.status))
    }

    /// Whether it is an answer: approved or declined.
    pub fn is_answer(&self) -> bool {
        matches!(self.status(), Some(200 | 402))
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.reply().body).unwrap()
    }
}

// === impl History ===

impl History {
    /// What was recorded so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().clone()
    }

    /// Adds an attempt that was not sent by [`Bank::pay`].
    pub fn push(&self, attempt: Attempt) {
        self.lock().push(attempt);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bank ===

impl Bank {
    /// The bank of the harness at `address`, with at most `connections` connections.
    pub fn new(
        address: std::net::SocketAddr,
        edge: &str,
        connections: usize,
        history: History,
    ) -> Self {
        let secret: Secret = SECRET.parse().unwrap();
        Self {
            slug: SLUG.parse().unwrap(),
            signer: Signer::new(secret),
            pool: Pool::new(address.into(), connections),
            edge: edge.to_owned(),
            patience: PATIENCE,
            history,
        }
    }

    /// The same bank, which waits for a reply no longer than this.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Its slug.
    pub fn id(&self) -> &BankId {
        &self.slug
    }

    /// What was recorded so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Where its requests go.
    pub fn path() -> String {
        format!("/v1/banks/{SLUG}/authorizations")
    }

    /// Sends one request and records what came of it.
    pub async fn pay(&self, payment: &Payment) -> Told {
        let body = payment.body();
        let call = Call::post(Self::path(), body.clone()).signed(&self.signer);
        let (sent_at, began) = (SystemClock.now().as_millis(), Instant::now());
        let told = self.pool.ask(call, self.patience).await;
        let outcome = match &told {
            Ok(reply) => Outcome::of_reply(reply.status, &reply.body, reply.replayed.as_deref()),
            // Nothing was sent: that is no attempt.
            Err(CallError::Connect { .. }) => return Told(told),
            Err(_) => Outcome::NoReply,
        };
        self.record(payment, outcome, sent_at, began);
        Told(told)
    }

    /// The bytes of one signed request, for clients that do not wait for its reply.
    pub fn raw(&self, payment: &Payment) -> Vec<u8> {
        let body = payment.body();
        let call = Call::post(Self::path(), body.clone()).signed(&self.signer);
        let mut head = format!("POST {} HTTP/1.1\r\nhost: edge\r\n", call.path);
        for (name, value) in &call.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        [head.as_bytes(), &body].concat()
    }

    /// Records that a request was sent at `began` and its reply never read.
    pub fn record_no_reply(&self, payment: &Payment, sent_at: i64, began: Instant) {
        self.record(payment, Outcome::NoReply, sent_at, began);
    }

    /// One call that is not a payment as [`Bank::pay`] makes it; not recorded.
    pub async fn call(&self, call: Call) -> Told {
        Told(self.pool.ask(call, PATIENCE).await)
    }

    /// A POST of these bytes to the bank's path, signed with its secret.
    pub fn signed(&self, body: impl Into<Bytes>) -> Call {
        Call::post(Self::path(), body).signed(&self.signer)
    }

    fn record(&self, payment: &Payment, outcome: Outcome, sent_at: i64, began: Instant) {
        self.history.push(Attempt {
            payment: payment.key.clone(),
            transaction_id: Some(payment.transaction_id(&self.slug)),
            bank: self.slug.clone(),
            shopper: payment.shopper_id(),
            body: BodyHash::of(&payment.body()),
            amount: payment.amount(),
            edge: self.edge.clone(),
            verified: true,
            intended_at: sent_at,
            sent_at,
            answered_at: SystemClock.now().as_millis(),
            latency_us: u64::try_from(began.elapsed().as_micros()).unwrap(),
            outcome,
            expectation: None,
        });
    }

    /// Repeats a payment until it is answered, as a bank does; fails the test after `within`.
    pub async fn pay_until_answered(&self, payment: &Payment, within: Duration) -> Told {
        until(&format!("an answer to {}", payment.key), within, || async {
            let told = self.pay(payment).await;
            told.is_answer().then_some(told)
        })
        .await
    }

    /// Keeps `workers` requests in flight, each a new payment of one of `shoppers`, repeated until
    /// it is answered.
    pub fn load(&self, name: &str, workers: usize, shoppers: &[u64]) -> Load {
        Banks(vec![self.clone()]).load(name, workers, shoppers)
    }
}

// === impl Banks ===

impl Banks {
    /// Asks the edge whose turn it is, then the next one, until one answers; fails the test after
    /// `within`.
    pub async fn pay_until_answered(
        &self,
        payment: &Payment,
        first: usize,
        within: Duration,
    ) -> Told {
        let tries = AtomicUsize::new(first);
        until(&format!("an answer to {}", payment.key), within, || async {
            let told = self.nth(tries.fetch_add(1, Ordering::Relaxed)).pay(payment);
            let told = told.await;
            told.is_answer().then_some(told)
        })
        .await
    }

    /// [`Bank::load`] over all edges, each worker and payment beginning at another one.
    pub fn load(&self, name: &str, workers: usize, shoppers: &[u64]) -> Load {
        let (stop, answered) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let mut set = JoinSet::new();
        for worker in 0..workers {
            let (banks, stop, answered) = (self.clone(), stop.clone(), Arc::clone(&answered));
            let (name, shoppers) = (name.to_owned(), shoppers.to_vec());
            set.spawn(async move {
                let mut turn = worker;
                for (number, shopper) in (0_i64..).zip(shoppers.iter().cycle().skip(worker)) {
                    if stop.is_cancelled() {
                        break;
                    }
                    let key = format!("{name}-{worker}-{number}");
                    let payment = Payment::new(key, *shopper, 100_i64.saturating_add(number % 400));
                    turn = turn.wrapping_add(1);
                    while !banks.nth(turn).pay(&payment).await.is_answer() {
                        if stop.is_cancelled() {
                            return Some(payment);
                        }
                        turn = turn.wrapping_add(1);
                        tokio::time::sleep(BACK_OFF).await;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                None
            });
        }
        Load {
            stop,
            workers: set,
            answered,
        }
    }

    fn nth(&self, turn: usize) -> &Bank {
        let at = turn.checked_rem(self.0.len()).unwrap_or(0);
        self.0.get(at).expect("a bank knows an edge")
    }
}

// === impl Load ===

impl Load {
    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were answered.
    pub async fn progress(&self, more: u64, within: Duration) {
        let goal = self.answered().saturating_add(more);
        super::wait::until_true(&format!("{more} more answers"), within, || {
            self.answered() >= goal
        })
        .await;
    }

    /// Stops after the requests in flight; gives the payments that have no answer yet.
    pub async fn stop(mut self) -> Vec<Payment> {
        self.stop.cancel();
        let mut unanswered = Vec::new();
        while let Some(done) = self.workers.join_next().await {
            unanswered.extend(done.unwrap());
        }
        unanswered
    }
}
