//! What the formats' tests share.

use serde_json::Value;
use standin_core::answer::{Answer, Code, Reason, Rung, Verdict};
use standin_core::authorization::Authorization;
use standin_core::clock::Timestamp;
use standin_core::id::{Fingerprint, ShopperId, TransactionId, TripId};
use standin_core::money::{Currency, Money};

use super::{Adapter, Asked, Format, Message, Rendered, Resource, ShopperBy, Understood};
use crate::config::BankConfig;
use crate::problem::Problem;

/// An approval of 300 dollars on the primary.
pub(super) fn answer() -> Answer {
    Answer {
        transaction_id: TransactionId::from_bytes([0xab; 16]),
        fingerprint: Fingerprint::from_bytes([1; 32]),
        bank: "first".parse().unwrap(),
        shopper: ShopperId::try_from(123_u64).unwrap(),
        verdict: Verdict::Approved,
        reason: Reason::WithinCap,
        code: Code::from_mac(&[0; 32]),
        amount: Money::from_minor(30_000, Currency::USD),
        rung: Rung::Primary,
        why: None,
        cap: Some(34_550),
        approved_before: 0,
        trip: Some(TripId(uuid::Uuid::from_bytes([2; 16]))),
        trip_age_ms: Some(12),
        policy_version: 3,
    }
}

/// The same payment declined.
pub(super) fn declined(reason: Reason) -> Answer {
    Answer {
        verdict: Verdict::Declined,
        reason,
        ..answer()
    }
}

/// A bank whose shoppers go by their cardholders, and that takes less than it asks for.
pub(super) fn bank() -> BankConfig {
    BankConfig {
        shopper_by: ShopperBy::Cardholder,
        partial_approvals: true,
        ..BankConfig::for_tests("first", Currency::USD)
    }
}

/// Reads a message of that bank, named `msg_1` where the scheme names messages.
pub(super) fn understand(format: Format, body: &Value) -> Result<Understood, Problem> {
    understand_text(format, &body.to_string())
}

pub(super) fn understand_text(format: Format, body: &str) -> Result<Understood, Problem> {
    let bank = bank();
    format.understand(&Message {
        bank: &bank,
        id: Some("msg_1"),
        resource: Resource::Authorizations,
        body: body.as_bytes(),
        at: Timestamp::from_millis(7),
    })
}

/// The authorization that a message asks for.
pub(super) fn authorization(understood: &Understood) -> Authorization {
    match &understood.asked {
        Asked::Authorization(asked) => asked.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

/// The status and body of a reply.
pub(super) fn text(rendered: &Rendered) -> (u16, String) {
    let body = String::from_utf8(rendered.body.to_vec()).unwrap();
    (rendered.status.as_u16(), body)
}

/// The field that is told to be wrong once `pointer` (as in RFC 6901) holds `value`.
pub(super) fn wrong_field(format: Format, body: &Value, pointer: &str, value: Value) -> String {
    let mut body = body.clone();
    *body.pointer_mut(pointer).unwrap() = value;
    match understand(format, &body) {
        Err(Problem::Field { field, .. }) => field.to_owned(),
        Err(problem) => problem.slug().to_owned(),
        Ok(understood) => panic!("{pointer} is taken: {:?}", understood.asked),
    }
}
