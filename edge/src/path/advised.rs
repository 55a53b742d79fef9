//! What a bank did by itself: what it approved is always taken, counted, and flagged when it is more than
//! the trip allows; money that it moved is always recorded.

use standin_core::answer::{Reason, Rung, Verdict};
use standin_core::authorization::Authorization;
use standin_core::decide::Limits;
use standin_core::entry::{Advice, Entry, Settlement};
use standin_core::identity;
use standin_core::register::{Outcome, Recall};
use standin_wal::Fate;

use super::{Making, Path, Refusal};
use crate::budget::Budget;
use crate::log::LogError;

impl Path {
    /// Books a movement of money. The same again changes nothing.
    pub async fn settle(&self, settlement: Settlement, budget: &Budget) -> Result<(), Refusal> {
        let entry = Entry::Settled(Box::new(settlement));
        match self.log.propose(&entry, budget.wal()).await {
            Ok(_noted) => Ok(()),
            Err(error) => Err(no_commit(&error)),
        }
    }

    /// Books what a bank approved without asking us. The same again changes nothing.
    pub async fn take_advice(
        &self,
        mut request: Authorization,
        budget: Budget,
    ) -> Result<(), Refusal> {
        let fingerprint = identity::fingerprint(&request);
        let route = self.route(&request.bank);
        if let Some(why) = self.find_holder(&mut request, route, &budget).await {
            return Err(Refusal::CardUnseen(why));
        }
        let sight = self.look(&request, route, &budget).await;
        let payment = self.identify(&request, &sight, fingerprint);
        match self
            .log
            .read(|register| register.recall(payment.id, &fingerprint))
        {
            Recall::Known(known) if known.answer.verdict == Verdict::Approved => return Ok(()),
            Recall::OtherFingerprint => return Err(Refusal::OtherFingerprint(payment.id)),
            Recall::Known(_) | Recall::Unknown | Recall::Tombstoned => {}
        }
        let applied = self.applied(&request, &sight, payment.id);
        let decisions = self.decide(&request, &sight, &applied, false);
        let making = Making {
            path: self,
            request: &request,
            payment,
            sight: &sight,
            applied: &applied,
            decisions: &decisions,
        };
        let mut proposal = making.on_primary();
        proposal.reason = Reason::ApprovedByBank;
        proposal.rung = Rung::Bank;
        proposal.limits = Limits::Cap;
        // What was asked for is what the bank approved, and no start of an edge told it.
        (proposal.approved, proposal.start) = (None, 0);
        let answer = proposal.answer(proposal.reason, proposal.approved_before);
        let entry = Entry::Advice(Box::new(Advice {
            proposal,
            answer,
            given_at: request.received_at,
        }));
        match self.log.propose(&entry, budget.wal()).await {
            Ok(Outcome::OtherFingerprint) => Err(Refusal::OtherFingerprint(payment.id)),
            Ok(_taken) => Ok(()),
            Err(error) => Err(no_commit(&error)),
        }
    }
}

/// Why a word of a bank is not known to be durable: it may say it again.
pub(super) fn no_commit(error: &LogError) -> Refusal {
    if let LogError::Encode(error) = error {
        tracing::error!(%error, "entry does not encode");
        return Refusal::Encode;
    }
    match error.fate() {
        Fate::NotBegun => Refusal::LogFull,
        Fate::Unknown => Refusal::Unknown,
    }
}
