//! When the log does not commit in its budget.
//!
//! The proposal may still commit later, so from then on only the same verdict may be given, on one of
//! two rungs, or none: on `primary_only` Postgres turns the hold final by itself; on `isolated` this
//! edge answers out of its reserve. Either way an advice is durable on this edge's own disk before
//! the bank hears of it. Else the bank hears nothing, and a late mark says so to the log, which gives
//! the money back if the bank does not ask again.
//!
//! What was told once stands: an edge that tells another edge's approval again has the log hear of it
//! first, so that no late mark takes the money back afterwards.

use std::time::Duration;

use standin_core::answer::{Answer, Reason, Rung, Verdict, Why};
use standin_core::decide::Limits;
use standin_core::entry::{Advice, Entry, LateMark, Proposal};
use standin_core::id::TransactionId;
use standin_core::ledger::{self, Advised};
use standin_core::planted::{Planted, planted};
use standin_core::register::{Outcome, Recalled};
use tokio::time::Instant;

use super::{Given, Making, Path, Refusal};
use crate::budget::Budget;
use crate::log::soon;

/// Kept back for making an advice durable once Postgres has spoken.
const KEEP_MARGIN: Duration = Duration::from_millis(30);
/// How long a late mark may take: the bank waits no more.
const MARK_WITHIN: Duration = Duration::from_millis(500);

// === impl Path ===

impl Path {
    /// The same verdict without the log, or none.
    pub(super) async fn without_the_log(
        &self,
        making: &Making<'_>,
        proposal: Box<Proposal>,
        held: bool,
        budget: &Budget,
    ) -> Result<Given, Refusal> {
        let transaction_id = proposal.transaction_id;
        // This edge told the bank before, and its applied state has not heard of it yet: that stands,
        // so nothing else may be said of it, and no mark either.
        if self.told.contains(transaction_id) {
            return Err(Refusal::Unknown);
        }
        // Asked before, it proposed the other verdict: which of the two the log takes, it alone knows.
        let is_open = self.proposed.is_open(transaction_id);
        if held
            && !is_open
            && let Some(given) = self.on_primary_only(&proposal, budget).await?
        {
            return Ok(given);
        }
        let stands_in = self.stands_in_for(&making.request.bank);
        if !is_open
            && stands_in
            && let Some(given) = self.on_isolated(making, proposal, budget).await
        {
            return Ok(given);
        }
        self.marked.insert(transaction_id);
        let mark = Entry::Late(LateMark {
            transaction_id,
            edge: self.log.edge(),
        });
        if let Err(error) = self.advices.keep(&mark, soon(MARK_WITHIN)).await {
            tracing::error!(transaction = %transaction_id, %error, "a late mark is not durable");
        }
        Err(Refusal::Unknown)
    }

    /// Postgres holds the payment: it turns the hold final by itself.
    async fn on_primary_only(
        &self,
        proposal: &Proposal,
        budget: &Budget,
    ) -> Result<Option<Given>, Refusal> {
        let proposal = Proposal {
            rung: Rung::PrimaryOnly,
            ..proposal.clone()
        };
        let answer = proposal.answer(proposal.reason, proposal.approved_before);
        let advice = ledger::Advice {
            proposal: proposal.clone(),
            answer: answer.clone(),
            at: self.clock.now(),
        };
        let until = budget
            .postgres()
            .min(before(budget.deadline(), KEEP_MARGIN));
        let advised = tokio::time::timeout_at(until, self.ledger.advise(advice)).await;
        match advised {
            Ok(Ok(Advised::Final)) => Ok(self.tell(proposal, answer, budget).await),
            Ok(Ok(Advised::Stored(answer))) => {
                self.tell_booked(proposal, answer, budget).await.map(Some)
            }
            Ok(Ok(Advised::OtherFingerprint)) => {
                Err(Refusal::OtherFingerprint(answer.transaction_id))
            }
            Ok(Ok(Advised::Released)) => Err(Refusal::Released),
            Ok(Ok(Advised::NoHold)) | Err(_) => Ok(None),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the primary did not take an advice");
                Ok(None)
            }
        }
    }

    /// Out of this edge's reserve.
    async fn on_isolated(
        &self,
        making: &Making<'_>,
        mut proposal: Box<Proposal>,
        budget: &Budget,
    ) -> Option<Given> {
        proposal.rung = Rung::Isolated;
        // The log is what is missing; whatever kept the primary away is said first.
        proposal.why = Some(proposal.why.unwrap_or(Why::Timeout));
        if proposal.reason.verdict() == Verdict::Declined {
            let answer = proposal.answer(proposal.reason, proposal.approved_before);
            return self.tell(*proposal, answer, budget).await;
        }
        if planted(Planted::DecidedAnew) {
            let answer = proposal.answer(Reason::FloorLimit, proposal.approved_before);
            return self.tell(*proposal, answer, budget).await;
        }
        let decision = &making.decisions.isolated;
        let Limits::Floor(limits) = decision.limits else {
            return None;
        };
        // The log may still commit what was proposed: an approval of another amount would be another answer.
        if decision.reason.verdict() == Verdict::Declined
            || decision.amount != proposal.amount().minor()
        {
            return None;
        }
        proposal.reason = decision.reason;
        proposal.limits = decision.limits;
        let one_by_one = tokio::time::timeout_at(budget.deadline(), self.isolating.lock());
        let _one = one_by_one.await.ok()?;
        let now_ms = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        let amount = proposal.amount().minor();
        let fits = self
            .advices
            .fits(proposal.request.shopper, amount, &limits, now_ms);
        if let Err(why) = fits {
            tracing::debug!(%why, "no isolated approval");
            return None;
        }
        let answer = proposal.answer(proposal.reason, decision.approved_before);
        self.tell(*proposal, answer, budget).await
    }

    /// Makes an answer durable on this edge's disk, which is when the bank may hear of it.
    async fn tell(&self, proposal: Proposal, answer: Answer, budget: &Budget) -> Option<Given> {
        // An edge that stood still finds its waits done and its time over: nobody listens any more.
        if budget.is_over() {
            tracing::warn!("no answer without the log: the deadline has passed");
            return None;
        }
        let advice = Entry::Advice(Box::new(Advice {
            proposal,
            answer: answer.clone(),
            given_at: self.clock.now(),
        }));
        match self.advices.keep(&advice, budget.deadline()).await {
            Ok(()) => Some(Given::advised(Box::new(answer), false)),
            Err(error) => {
                tracing::warn!(%error, "an advice is not durable");
                None
            }
        }
    }

    /// Whether an approval of this edge's is one that it has marked late: the mark may come to the log
    /// before it or after it, and gives the money back unless the log has heard that the bank was told.
    pub(super) fn may_be_taken_back(&self, answer: &Answer) -> bool {
        let id = answer.transaction_id;
        answer.verdict == Verdict::Approved
            && (self.marked.contains(id)
                || self.advices.has_marked(id)
                // What was committed just now may not be applied here yet: the mark before it is.
                || self
                    .log
                    .read(|register| register.is_marked(id, self.log.edge())))
    }

    /// The ledger's final row, after the log has heard that the bank is told it: an edge may have
    /// marked it late. What the primary turned final by itself, the log may never have heard of: whoever
    /// was to advise it may have lost its disk first. So this edge advises it, too.
    pub(super) async fn tell_booked(
        &self,
        proposal: Proposal,
        answer: Box<Answer>,
        budget: &Budget,
    ) -> Result<Given, Refusal> {
        let id = answer.transaction_id;
        if answer.rung == Rung::PrimaryOnly {
            let proposal = Proposal {
                rung: answer.rung,
                reason: answer.reason,
                approved_before: answer.approved_before,
                ..proposal
            };
            let told = self.tell(proposal, *answer, budget).await;
            return told.map(Given::again).ok_or(Refusal::Unknown);
        }
        if answer.verdict == Verdict::Approved {
            // Of what the log does not know, it takes nothing back.
            self.hear(id, budget).await?;
        }
        Ok(Given::booked(answer))
    }

    /// A stored answer, after the log has heard that the bank is told it again.
    pub(super) async fn tell_again(
        &self,
        id: TransactionId,
        recalled: Recalled,
        budget: &Budget,
    ) -> Result<Given, Refusal> {
        let ours = recalled.edge == self.log.edge()
            && self.told.contains(id)
            && !self.may_be_taken_back(&recalled.answer);
        if ours || recalled.heard || recalled.answer.verdict == Verdict::Declined {
            return Ok(Given::applied(recalled));
        }
        match self.hear(id, budget).await? {
            Heard::Known(recalled) => Ok(Given::applied(recalled)),
            Heard::Kept => Ok(Given::applied(recalled)),
            Heard::NotKnown => Err(Refusal::Unknown),
        }
    }

    /// Has the log hear that a bank is told an answer again, or keeps here that it was.
    async fn hear(&self, id: TransactionId, budget: &Budget) -> Result<Heard, Refusal> {
        match self.log.propose(&Entry::Heard(id), budget.wal()).await {
            Ok(Outcome::Known(recalled)) => Ok(Heard::Known(recalled)),
            Ok(Outcome::Noted) => Ok(Heard::NotKnown),
            Ok(Outcome::Tombstoned) => Err(Refusal::Released),
            Ok(_) => Err(Refusal::Unknown),
            Err(error) => {
                tracing::debug!(%error, "the log has not heard that an answer is told again");
                let kept = self.advices.keep(&Entry::Told(id), budget.deadline()).await;
                kept.map_err(|_not_durable| Refusal::Unknown)?;
                Ok(Heard::Kept)
            }
        }
    }
}

/// Where it is durable that a bank is told an answer again.
enum Heard {
    /// In the log, which says what the answer is.
    Known(Recalled),
    /// Nowhere: the log knows no answer of the payment.
    NotKnown,
    /// On this edge's disk; the log was not reached.
    Kept,
}

fn before(deadline: Instant, margin: Duration) -> Instant {
    deadline.checked_sub(margin).unwrap_or(deadline)
}
