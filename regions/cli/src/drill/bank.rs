//! The bank of a drill: a fixed schedule of payments that waits for nobody, each sent to the edges in
//! turn and, without an answer, to the next one too, until its deadline; everything is remembered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::identity::{self, Operation};
use standin_core::money::{Currency, Money};
use standin_reconcile::history::{Attempt, BodyHash, Expectation, Outcome};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::seed::{STORE_ADDRESS, STORE_NAME};
use crate::bank::format::native;
use crate::bank::{Charged, path_of};
use crate::chance::Chance;
use crate::client::{Call, CallError, Pool, Reply, Signer};
use crate::demo::payments::{outcome_of, rung_of};
use crate::open_loop::{Fired, fire, moment};

/// When a bank stops waiting.
pub(super) const DEADLINE: Duration = Duration::from_millis(1_000);
/// Without a reply from one edge for so long the next one is asked too.
const ASK_ANOTHER_AFTER: Duration = Duration::from_millis(250);
/// After a refusal that may be tried again.
const REST: Duration = Duration::from_millis(50);
/// What an attempt needs to be worth its while.
const LEFT_MIN: Duration = Duration::from_millis(30);
const ATTEMPTS_MAX: usize = 12;
/// A bank asks again for one payment in so many, and for so many at once on top: without such a bound
/// its retries alone would keep edges overloaded that were so for a moment.
const PAYMENTS_A_RETRY: u64 = 5;
const RETRIES_SAVED_MAX: u64 = 300;
/// An edge that was slow, or gave no reply, is not asked first for so long.
const DOWN_FOR_MS: u64 = 1_000;
/// Of a hundred payments, so many are for far more than was picked, so many at a store we do not know,
/// and so many are sent twice at once.
const OVER_THE_CAP: u64 = 5;
const ELSEWHERE: u64 = 2;
const TWICE: u64 = 3;
/// Amounts that follow each other on a trip.
const AMOUNTS: i64 = 400;
/// Far more than is picked, minor units.
const FAR_TOO_MUCH: i64 = 5_000_000;

/// A stretch of the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    /// When it begins and ends.
    pub(super) from: Duration,
    pub(super) until: Duration,
    /// Payments a second.
    pub(super) rate: u64,
    /// How often each is sent at once, by an impatient bank.
    pub(super) copies: u8,
}

/// The bank. Clones share everything.
#[derive(Clone)]
pub(super) struct Bank(Arc<Shared>);

struct Shared {
    id: BankId,
    path: String,
    signer: Signer,
    doors: Vec<Door>,
    turn: AtomicUsize,
    shoppers: Vec<ShopperId>,
    history: Mutex<Vec<Attempt>>,
    sent: AtomicU64,
    told: AtomicU64,
    rungs: Mutex<BTreeMap<&'static str, u64>>,
    /// Retries that may be made, in parts of [`PAYMENTS_A_RETRY`].
    saved: AtomicU64,
    began: Instant,
}

/// One edge, as the bank reaches it.
struct Door {
    name: String,
    pool: Pool,
    /// Of another region: asked when none of the near ones replies.
    far: bool,
    /// Milliseconds since the bank began until which others are asked first: it was slow.
    slow_until: AtomicU64,
    /// The same, and it is asked last: nothing came from it, or it took no signature.
    down_until: AtomicU64,
}

/// One payment, and what it is made to get.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    key: String,
    id: TransactionId,
    shopper: ShopperId,
    amount: Money,
    body: Bytes,
    want: Expectation,
    /// When it is due, from the beginning of the load.
    at: Duration,
    copies: u8,
}

// === impl Bank ===

impl Bank {
    /// A bank that knows these edges (name, connections, and whether they are far) and pays for these
    /// shoppers.
    pub(super) fn new(
        id: BankId,
        signer: Signer,
        doors: Vec<(String, Pool, bool)>,
        shoppers: Vec<ShopperId>,
    ) -> Self {
        let doors = doors.into_iter().map(|(name, pool, far)| Door {
            name,
            pool,
            far,
            slow_until: AtomicU64::new(0),
            down_until: AtomicU64::new(0),
        });
        Self(Arc::new(Shared {
            path: path_of(id.as_str()),
            id,
            signer,
            doors: doors.collect(),
            turn: AtomicUsize::new(0),
            shoppers,
            history: Mutex::default(),
            sent: AtomicU64::new(0),
            told: AtomicU64::new(0),
            rungs: Mutex::default(),
            saved: AtomicU64::new(RETRIES_SAVED_MAX.saturating_mul(PAYMENTS_A_RETRY)),
            began: Instant::now(),
        }))
    }

    /// Makes every payment of a schedule, each with its moment.
    pub(super) fn plan(&self, stretches: &[Stretch], seed: u64) -> Vec<(Duration, Payment)> {
        let mut chance = Chance::new(seed);
        // The same amount twice on one trip would be a double swipe: each has the next one.
        let mut made: BTreeMap<ShopperId, i64> = BTreeMap::new();
        let moments = stretches.iter().flat_map(|stretch| {
            let length = stretch.until.saturating_sub(stretch.from);
            (0_u64..)
                .map(|index| moment(index, stretch.rate))
                .take_while(move |at| *at < length)
                .map(move |at| (stretch.from.saturating_add(at), stretch.copies))
        });
        let payments = (0_u64..).zip(moments).filter_map(|(number, (at, copies))| {
            let shopper = self.shopper(&mut chance)?;
            let before = made.entry(shopper).or_default();
            *before = before.saturating_add(1);
            let cents = before.rem_euclid(AMOUNTS);
            let chosen = (shopper, cents, chance.below(100));
            Some((at, self.payment(number, (at, copies), chosen)))
        });
        payments.collect()
    }

    /// Sends everything; `start` and `epoch` are the same moment on two clocks.
    pub(super) async fn pay_all(
        self,
        payments: Vec<(Duration, Payment)>,
        start: Instant,
        epoch: Timestamp,
        stop: CancellationToken,
    ) -> Fired {
        fire(start, payments, &stop, |payment, intended| {
            let bank = self.clone();
            async move {
                let due = epoch.plus(payment.at);
                let copies = (0..payment.copies.max(1)).map(|_| bank.pay(&payment, due, intended));
                futures_util::future::join_all(copies).await;
            }
        })
        .await
    }

    /// Everything that was attempted so far; the bank forgets it.
    pub(super) fn take_history(&self) -> Vec<Attempt> {
        std::mem::take(&mut *locked(&self.0.history))
    }

    /// Requests sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Answers received so far, and how many on each rung since it was asked last.
    pub(super) fn progress(&self) -> (u64, BTreeMap<&'static str, u64>) {
        let rungs = std::mem::take(&mut *locked(&self.0.rungs));
        (self.0.told.load(Ordering::Relaxed), rungs)
    }

    fn shopper(&self, chance: &mut Chance) -> Option<ShopperId> {
        let shoppers = &self.0.shoppers;
        let bound = u64::try_from(shoppers.len().max(1)).unwrap_or(1);
        let place = usize::try_from(chance.below(bound)).unwrap_or(0);
        shoppers.get(place).copied()
    }

    fn payment(
        &self,
        number: u64,
        (at, copies): (Duration, u8),
        (shopper, cents, kind): (ShopperId, i64, u64),
    ) -> Payment {
        let over = kind < OVER_THE_CAP;
        let elsewhere = !over && kind < OVER_THE_CAP.saturating_add(ELSEWHERE);
        let twice = kind >= 100_u64.saturating_sub(TWICE);
        let minor = if over { FAR_TOO_MUCH } else { 100 };
        let amount = Money::from_minor(minor.saturating_add(cents), Currency::USD);
        let store = if elsewhere {
            "Nowhere Mart"
        } else {
            STORE_NAME
        };
        let want = if over || elsewhere {
            Expectation::Declined(Vec::new())
        } else {
            Expectation::Approved
        };
        let key = format!("pay-{number}");
        Payment {
            id: self.id_of(&key, shopper, amount),
            shopper,
            amount,
            body: body(&key, shopper, amount, store),
            want,
            at,
            copies: if twice { copies.max(2) } else { copies },
            key,
        }
    }

    /// Asks one edge after the other until there is an answer or no time for another try. An edge that
    /// is slow is not waited for: the next one is asked beside it, and the first answer is taken.
    async fn pay(&self, payment: &Payment, due_at: Timestamp, intended: Instant) {
        let deadline = intended.checked_add(DEADLINE).unwrap_or(intended);
        let last_call = deadline.checked_sub(LEFT_MIN).unwrap_or(intended);
        let mut turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let mut under_way = FuturesUnordered::new();
        let mut ended: Vec<Attempt> = Vec::new();
        let mut begun = 0;
        // The edge that was asked last.
        let mut asked: Option<&Door> = None;
        self.save();
        // When another edge is asked; `None`: no other is.
        let mut next = Some(intended);
        loop {
            let due = next.filter(|at| begun < ATTEMPTS_MAX && *at < last_call);
            tokio::select! {
                () = tokio::time::sleep_until(due.unwrap_or(deadline)), if due.is_some() => {
                    let Some(door) = self.door(turn) else { break };
                    if begun > 0 && !self.spend() {
                        next = None;
                        continue;
                    }
                    if let Some(slow) = asked.replace(door) && ended.len() < begun {
                        self.rests(&slow.slow_until);
                    }
                    under_way.push(self.attempt(door, payment, due_at, (intended, deadline)));
                    (turn, begun) = (turn.wrapping_add(1), begun.saturating_add(1));
                    next = Instant::now().checked_add(ASK_ANOTHER_AFTER);
                }
                Some(attempt) = under_way.next(), if !under_way.is_empty() => {
                    let now = Instant::now();
                    next = match &attempt.outcome {
                        Outcome::NoReply | Outcome::Refused { status: 401, .. } => {
                            next.map(|at| at.min(now))
                        }
                        Outcome::Refused { status: 409 | 429 | 503, .. } => {
                            next.and_then(|at| Some(at.min(now.checked_add(REST)?)))
                        }
                        Outcome::Answered { .. } | Outcome::Refused { .. } => None,
                    };
                    ended.push(attempt);
                }
                else => break,
            }
        }
        self.remember(payment, ended);
    }

    /// The edge whose turn it is of those that replied promptly of late, near ones before far ones; else
    /// of those that are slow, and only then of those from which nothing comes.
    fn door(&self, turn: usize) -> Option<&Door> {
        let now = self.now_ms();
        let doors = &self.0.doors;
        let at = |turn: usize| doors.get(turn.checked_rem(doors.len())?);
        let turns = || (0..doors.len()).filter_map(|more| at(turn.wrapping_add(more)));
        let over = |until: &AtomicU64| until.load(Ordering::Relaxed) <= now;
        let alive = |door: &&Door| over(&door.down_until);
        let prompt = |door: &&Door| alive(door) && over(&door.slow_until);
        let near = turns().filter(prompt).find(|door| !door.far);
        near.or_else(|| turns().find(prompt))
            .or_else(|| turns().find(alive))
            .or_else(|| at(turn))
    }

    async fn attempt(
        &self,
        door: &Door,
        payment: &Payment,
        due: Timestamp,
        (intended, deadline): (Instant, Instant),
    ) -> Attempt {
        let sent_at = SystemClock.now();
        let call = Call::post(self.0.path.clone(), payment.body.clone()).signed(&self.0.signer);
        self.0.sent.fetch_add(1, Ordering::Relaxed);
        let outcome = door.pool.call(call, deadline).await;
        match &outcome {
            Err(CallError::AllInUse) => self.rests(&door.slow_until),
            // One that does not take a signature that others take is of no more use than one that is gone.
            Ok(Reply { status: 401, .. }) | Err(_) => self.rests(&door.down_until),
            Ok(_) => {}
        }
        let outcome = outcome_of(&outcome);
        if let Some(rung) = rung_of(&outcome) {
            self.0.told.fetch_add(1, Ordering::Relaxed);
            let mut rungs = locked(&self.0.rungs);
            let count: &mut u64 = rungs.entry(rung.as_str()).or_default();
            *count = count.saturating_add(1);
        }
        Attempt {
            expectation: Some(payment.want.clone()),
            payment: payment.key.clone(),
            transaction_id: Some(payment.id),
            bank: self.0.id.clone(),
            shopper: payment.shopper,
            body: BodyHash::of(&payment.body),
            amount: payment.amount,
            edge: door.name.clone(),
            verified: true,
            intended_at: due.as_millis(),
            sent_at: sent_at.as_millis(),
            answered_at: SystemClock.now().as_millis(),
            latency_us: u64::try_from(intended.elapsed().as_micros()).unwrap_or(u64::MAX),
            outcome,
        }
    }

    /// An edge that does not reply, is slow to, or takes no signature, is not asked first for a while.
    fn rests(&self, until: &AtomicU64) {
        let end = self.now_ms().saturating_add(DOWN_FOR_MS);
        until.store(end, Ordering::Relaxed);
    }

    /// Keeps the attempts at a payment. Those without an answer were asked again elsewhere, but for the
    /// last one when nobody answered.
    fn remember(&self, payment: &Payment, mut attempts: Vec<Attempt>) {
        let is_answer = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Answered { .. });
        let answered = attempts.iter().any(is_answer);
        let last = attempts.len().saturating_sub(1);
        for (at, attempt) in attempts.iter_mut().enumerate() {
            let asked_again = !is_answer(attempt) && (answered || at < last);
            attempt.expectation = Some(if asked_again {
                Expectation::AskedAgain
            } else {
                payment.want.clone()
            });
        }
        locked(&self.0.history).extend(attempts);
    }

    fn id_of(&self, key: &str, shopper: ShopperId, amount: Money) -> TransactionId {
        let request = Authorization {
            bank: self.0.id.clone(),
            shopper,
            amount,
            merchant: Merchant {
                name: String::new(),
                address: String::new(),
            },
            bank_key: Some(key.to_owned()),
            received_at: SystemClock.now(),
            particulars: Particulars::default(),
        };
        identity::transaction_id(&request, Operation::Authorize, None)
    }

    /// A payment is made: a part of a retry is earned.
    fn save(&self) {
        let most = RETRIES_SAVED_MAX.saturating_mul(PAYMENTS_A_RETRY);
        let more = |saved: u64| Some(saved.saturating_add(1).min(most));
        let order = Ordering::Relaxed;
        // Never an error: there is always a next value.
        self.0.saved.fetch_update(order, order, more).ok();
    }

    /// Takes a whole retry, if there is one.
    fn spend(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(PAYMENTS_A_RETRY);
        let order = Ordering::Relaxed;
        self.0.saved.fetch_update(order, order, less).is_ok()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn body(key: &str, shopper: ShopperId, amount: Money, store: &str) -> Bytes {
    let payment = crate::bank::Payment {
        charged: Charged {
            shopper: shopper.into(),
            merchant_name: store.to_owned(),
            merchant_address: STORE_ADDRESS.to_owned(),
            ..Charged::default()
        },
        amount: amount.to_decimal(),
        ..crate::bank::Payment::default()
    };
    native::body(&payment, Some(key)).unwrap_or_default()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
