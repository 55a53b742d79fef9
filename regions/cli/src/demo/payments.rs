//! The bank's side of the demo: sends every payment at its moment and keeps what came back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use standin_core::answer::{Reason, Rung};
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_reconcile::history::{Attempt, BodyHash, Expectation, Outcome, Said};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::plan::PaymentPlan;
use super::stories::Want;
use crate::bank::path_of;
use crate::client::{Call, CallError, Pool, Reply, Signer};
use crate::open_loop::{Fired, fire};
use crate::tally::Tally;

/// How long the bank waits for a reply before it gives up; an answer is late long before.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a 503 the next edge is asked after this; after no reply at all it is asked at once …
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// … while so much of the deadline of one second has not passed …
const RETRY_WITHIN: Duration = Duration::from_millis(950);
/// … and not more often than this.
const ATTEMPTS_MAX: usize = 8;

/// A bank, and somebody who would like to be one.
#[derive(Clone)]
pub(super) struct Bank {
    pub(super) id: BankId,
    pub(super) doors: Arc<Vec<Door>>,
    /// Says which edges serve.
    pub(super) group: Arc<Group>,
    /// Payments begin at each edge in turn.
    pub(super) turn: Arc<AtomicUsize>,
    pub(super) signer: Signer,
    pub(super) forger: Signer,
    pub(super) history: Arc<Mutex<Vec<Attempt>>>,
    pub(super) tally: Arc<Mutex<Tally>>,
}

/// One edge, as the bank reaches it.
pub(super) struct Door {
    pub(super) node: u64,
    pub(super) pool: Pool,
}

// === impl Bank ===

impl Bank {
    /// Sends everything; `start` and `epoch` are the same moment on two clocks.
    pub(super) async fn send_all(
        &self,
        payments: Vec<PaymentPlan>,
        start: Instant,
        epoch: Timestamp,
        stop: &CancellationToken,
    ) -> Fired {
        let arrivals = payments.into_iter().map(|payment| (payment.at, payment));
        fire(start, arrivals, stop, |payment, intended| {
            let bank = self.clone();
            async move { bank.send(payment, intended, epoch).await }
        })
        .await
    }

    /// Closes its connections.
    pub(super) async fn close(&self) {
        for door in self.doors.iter() {
            door.pool.clone().close().await;
        }
    }

    /// Sends a payment; without an answer to the next edge, as banks do, while the deadline has room
    /// for it. It is the same request each time, so that it is paid once.
    async fn send(self, payment: PaymentPlan, intended: Instant, epoch: Timestamp) {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut turn = first;
        for attempt in 1..=ATTEMPTS_MAX {
            let Some((door, next)) = self.door(turn) else {
                return;
            };
            turn = next;
            let last = attempt == ATTEMPTS_MAX;
            match self.attempt(door, &payment, intended, epoch, last).await {
                Next::Done => return,
                Next::AtOnce => {}
                Next::AfterRest => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
    }

    /// The edge whose turn it is, and whose turn is next. One that comes back is left out until it
    /// serves; one that is dead is asked, and does not reply.
    fn door(&self, turn: usize) -> Option<(&Door, usize)> {
        let at = |turn: usize| self.doors.get(turn.checked_rem(self.doors.len())?);
        let turns = (0..self.doors.len()).map(|more| turn.wrapping_add(more));
        let serves = |turn: &usize| at(*turn).is_some_and(|door| self.group.serves(door.node));
        let turn = turns.into_iter().find(serves).unwrap_or(turn);
        at(turn).map(|door| (door, turn.wrapping_add(1)))
    }

    async fn attempt(
        &self,
        door: &Door,
        payment: &PaymentPlan,
        intended: Instant,
        epoch: Timestamp,
        last: bool,
    ) -> Next {
        let signer = if payment.forged {
            &self.forger
        } else {
            &self.signer
        };
        let sent_at = SystemClock.now();
        let call = Call::post(path_of(self.id.as_str()), payment.body.clone()).signed(signer);
        let deadline = intended.checked_add(PATIENCE).unwrap_or(intended);
        let outcome = door.pool.call(call, deadline).await;
        let next = match &outcome {
            Ok(reply) if reply.status == 503 && payment.want != Want::Refused(503) => {
                Next::AfterRest
            }
            Ok(_) => Next::Done,
            Err(_) => Next::AtOnce,
        };
        let rest = match next {
            Next::AfterRest => RETRY_AFTER,
            Next::AtOnce | Next::Done => Duration::ZERO,
        };
        let has_time = intended.elapsed().saturating_add(rest) < RETRY_WITHIN;
        let next = if has_time && !last { next } else { Next::Done };
        let latency = intended.elapsed();
        let answered_at = SystemClock.now();
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(&outcome, latency);
        let outcome = outcome_of(&outcome);
        let attempt = Attempt {
            expectation: Some(match next {
                Next::Done => expectation(payment.want, &outcome),
                Next::AtOnce | Next::AfterRest => Expectation::AskedAgain,
            }),
            payment: payment.name.clone(),
            transaction_id: payment.id,
            bank: self.id.clone(),
            shopper: payment.shopper,
            body: BodyHash::of(&payment.body),
            amount: payment.amount,
            edge: format!("edge-{}", door.node),
            verified: !payment.forged,
            intended_at: epoch.plus(payment.at).as_millis(),
            sent_at: sent_at.as_millis(),
            answered_at: answered_at.as_millis(),
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            outcome,
        };
        self.history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(attempt);
        next
    }
}

/// What a bank does after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Done,
    /// Asks the next edge.
    AtOnce,
    /// The same, a moment later.
    AfterRest,
}

/// What an attempt came to.
pub(crate) fn outcome_of(outcome: &Result<Reply, CallError>) -> Outcome {
    match outcome {
        Ok(reply) => Outcome::of_reply(reply.status, &reply.body, reply.replayed.as_deref()),
        Err(_) => Outcome::NoReply,
    }
}

/// What the payment was made to get, on the rung that answered it.
fn expectation(want: Want, outcome: &Outcome) -> Expectation {
    match want {
        Want::Approved => Expectation::Approved,
        Want::Declined(reason) => Expectation::Declined(vec![reason]),
        Want::Refused(status) => Expectation::Refused(status),
        Want::ApprovedOnPrimary => match rung_of(outcome) {
            Some(Rung::StandIn | Rung::Isolated) => {
                Expectation::Declined(vec![Reason::StandInLimit])
            }
            Some(Rung::Primary | Rung::PrimaryOnly | Rung::Bank) | None => Expectation::Approved,
        },
    }
}

/// The rung of an answer.
pub(crate) fn rung_of(outcome: &Outcome) -> Option<Rung> {
    match outcome {
        Outcome::Answered { status, body, .. } => {
            Said::read(*status, body).ok().map(|said| said.rung)
        }
        Outcome::Refused { .. } | Outcome::NoReply => None,
    }
}
