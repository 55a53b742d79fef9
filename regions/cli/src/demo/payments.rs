//! The bank's side of the demo: sends every payment at its moment and keeps what came back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use standin_core::answer::{Reason, Rung};
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_reconcile::history::{Attempt, BodyHash, Expectation, Outcome, Said};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::PaymentPlan;
use super::stories::Want;
use crate::bank::path_of;
use crate::client::{Call, CallError, Pool, Reply, Signer};
use crate::open_loop::{Fired, fire};
use crate::tally::Tally;

/// How long the bank waits for a reply before it gives up; an answer is late long before.
const PATIENCE: Duration = Duration::from_secs(5);
/// A 503 is tried again after this …
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// … while so much of the deadline of one second has not passed.
const RETRY_WITHIN: Duration = Duration::from_millis(700);
/// What the history calls the edge.
const EDGE: &str = "edge-1";

/// A bank, and somebody who would like to be one.
#[derive(Clone)]
pub(super) struct Bank {
    pub(super) id: BankId,
    pub(super) pool: Pool,
    pub(super) signer: Signer,
    pub(super) forger: Signer,
    pub(super) history: Arc<Mutex<Vec<Attempt>>>,
    pub(super) tally: Arc<Mutex<Tally>>,
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

    /// Sends a payment; on a 503 again, as banks do, while the deadline has room for it.
    async fn send(self, payment: PaymentPlan, intended: Instant, epoch: Timestamp) {
        while self.attempt(&payment, intended, epoch).await {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// One attempt; says whether there will be another.
    async fn attempt(&self, payment: &PaymentPlan, intended: Instant, epoch: Timestamp) -> bool {
        let signer = if payment.forged {
            &self.forger
        } else {
            &self.signer
        };
        let sent_at = SystemClock.now();
        let call = Call::post(path_of(self.id.as_str()), payment.body.clone()).signed(signer);
        let deadline = intended.checked_add(PATIENCE).unwrap_or(intended);
        let outcome = self.pool.call(call, deadline).await;
        let again = is_503(&outcome)
            && payment.want != Want::Refused(503)
            && intended.elapsed().saturating_add(RETRY_AFTER) < RETRY_WITHIN;
        let latency = intended.elapsed();
        let answered_at = SystemClock.now();
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(&outcome, latency);
        let outcome = outcome_of(&outcome);
        let attempt = Attempt {
            expectation: Some(if again {
                Expectation::Refused(503)
            } else {
                expectation(payment.want, &outcome)
            }),
            payment: payment.name.clone(),
            transaction_id: payment.id,
            bank: self.id.clone(),
            shopper: payment.shopper,
            body: BodyHash::of(&payment.body),
            amount: payment.amount,
            edge: EDGE.to_owned(),
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
        again
    }
}

fn is_503(outcome: &Result<Reply, CallError>) -> bool {
    matches!(outcome, Ok(reply) if reply.status == 503)
}

fn outcome_of(outcome: &Result<Reply, CallError>) -> Outcome {
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
            Some(Rung::Primary | Rung::PrimaryOnly) | None => Expectation::Approved,
        },
    }
}

/// The rung of an answer.
pub(super) fn rung_of(outcome: &Outcome) -> Option<Rung> {
    match outcome {
        Outcome::Answered { status, body, .. } => {
            Said::read(*status, body).ok().map(|said| said.rung)
        }
        Outcome::Refused { .. } | Outcome::NoReply => None,
    }
}
