//! S11: the same payment asked for with the same body gets the same bytes; with another body, 422
//! and no change; what never began executing (401, 422, 429, 503) is never stored.
//!
//! Where S2 lets two edges that could not hear each other say it in other words (an advice, another
//! region), the bytes may differ as far as S2 does.

use std::collections::{HashMap, HashSet};

use standin_core::id::BankId;

use super::index::{Index, Reading};
use super::{Check, Evidence, Offences, plural};
use crate::history::{Attempt, BodyHash, Outcome, Said};

/// All attempts at one payment.
#[derive(Default)]
struct Payment<'a> {
    attempts: Vec<(&'a Attempt, &'a Reading)>,
}

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut payments: HashMap<(&BankId, &str), Payment<'_>> = HashMap::new();
    for (attempt, reading) in evidence.history.iter().zip(&index.readings) {
        payments
            .entry((&attempt.bank, &attempt.payment))
            .or_default()
            .attempts
            .push((attempt, reading));
    }
    let mut repeated = 0_u64;
    for ((_, name), payment) in &payments {
        let attempts = u64::try_from(payment.attempts.len()).unwrap_or(u64::MAX);
        repeated = repeated.saturating_add(attempts.saturating_sub(1));
        let id = payment
            .attempts
            .first()
            .and_then(|(first, _)| index.id_of(first));
        let who = id.map_or_else(|| (*name).to_owned(), |id| id.to_string());
        payment.same_bytes(&who, index, &mut offences);
        payment.nothing_refused_is_stored(&who, &mut offences);
        payment.other_bodies_change_nothing(&who, index, &mut offences);
    }
    let seen = format!(
        "{}, {} among them",
        plural(
            u64::try_from(payments.len()).unwrap_or(u64::MAX),
            "payment",
            "payments"
        ),
        plural(repeated, "repeated request", "repeated requests"),
    );
    offences.into_check("S11", seen)
}

// === impl Payment ===

impl Payment<'_> {
    /// What an attempt was told.
    fn said(&self, of: &Attempt) -> Option<&Said> {
        let found = self
            .attempts
            .iter()
            .find(|(attempt, _)| std::ptr::eq(*attempt, of));
        match found {
            Some((_, Reading::Said(said))) => Some(said),
            _ => None,
        }
    }

    /// Whether two edges said the same, each in its own words, and may.
    fn in_other_words(&self, index: &Index<'_>, one: &Attempt, other: &Attempt) -> bool {
        let both = self.said(one).zip(self.said(other));
        both.is_some_and(|(one, other)| {
            index.advised.contains(&one.transaction_id) && index.say_the_same(one, other)
        })
    }

    /// Answers, with their status, body and moment of reply; a stored 500 is not compared.
    fn answered(&self) -> impl Iterator<Item = (&Attempt, u16, &str, bool)> {
        self.attempts
            .iter()
            .filter_map(|(attempt, _)| match &attempt.outcome {
                Outcome::Answered {
                    status,
                    body,
                    replayed,
                } if *status != 500 => Some((*attempt, *status, body.as_str(), *replayed)),
                Outcome::Answered { .. } | Outcome::Refused { .. } | Outcome::NoReply => None,
            })
    }

    fn same_bytes(&self, who: &str, index: &Index<'_>, offences: &mut Offences) {
        let Some((first, status, bytes, _)) = self
            .answered()
            .min_by_key(|(attempt, ..)| attempt.answered_at)
        else {
            return;
        };
        for (attempt, other_status, other, replayed) in self.answered() {
            let allowed = self.in_other_words(index, first, attempt);
            let differs = (status, bytes) != (other_status, other);
            if attempt.body == first.body && differs && !allowed {
                offences.add(who, "got other bytes for the same request");
            }
            if attempt.sent_at > first.answered_at && !replayed && !allowed {
                offences.add(who, "was answered anew after it had an answer");
            }
        }
    }

    fn nothing_refused_is_stored(&self, who: &str, offences: &mut Offences) {
        for (attempt, _) in &self.attempts {
            if let Outcome::Refused {
                status,
                replayed: true,
                ..
            } = attempt.outcome
            {
                offences.add(who, format_args!("got a stored {status}"));
            }
        }
    }

    fn other_bodies_change_nothing(&self, who: &str, index: &Index<'_>, offences: &mut Offences) {
        let answered: HashSet<BodyHash> =
            self.answered().map(|(attempt, ..)| attempt.body).collect();
        if answered.len() > 1 {
            offences.add(who, "was answered for two different bodies");
            return;
        }
        for (attempt, _) in &self.attempts {
            if !matches!(attempt.outcome, Outcome::Refused { status: 422, .. }) {
                continue;
            }
            let alone = self
                .attempts
                .iter()
                .all(|(other, _)| other.body == attempt.body);
            if answered.contains(&attempt.body) || alone {
                offences.add(who, "got 422 for its own body");
                continue;
            }
            let winner = self.answered().next().map(|(first, ..)| first.amount);
            let row = index.id_of(attempt).and_then(|id| index.rows.get(&id));
            let booked = row.map(|rows| rows.first.answer.amount);
            if winner != Some(attempt.amount) && booked == Some(attempt.amount) {
                offences.add(who, "was changed by a request that got 422");
            }
        }
    }
}
