//! Rewordings: a final row says what the bank holds of an advice, in the place of the words that the
//! same log gave the payment before.
//!
//! Only how the answer was reached changes. Its money, its place in the log and what was reversed of it
//! stay, so that a row is the same whether the drain came before the advice or after it.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::super::Rewording;
use super::decode::{Params, execute};
use super::link::Failure;
use crate::answer::{Rung, Why};
use crate::id::TransactionId;

const REWORD: &str = "update authorizations set reason = p.reason, rung = p.rung, why = p.why, \
     cap = p.cap, approved_before = p.before, trip_id = p.trip_id, trip_age_ms = p.age, \
     policy_version = p.policy, exposed = p.exposed \
     from unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::text[], $6::text[], $7::bigint[], \
     $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::uuid[], \
     $15::bigint[], $16::bigint[], $17::boolean[], $18::bigint[], $19::bigint[]) \
     as p (shopper_id, transaction_id, fingerprint, verdict, code, amount, currency, reason, rung, \
     why, cap, before, trip_id, age, policy, exposed, log_index, log_slot) \
     where authorizations.shopper_id = p.shopper_id \
     and authorizations.transaction_id = p.transaction_id \
     and authorizations.state in ('final', 'reversed') \
     and authorizations.log = $1 \
     and (authorizations.log_index, authorizations.log_slot) < (p.log_index, p.log_slot) \
     and authorizations.fingerprint = p.fingerprint and authorizations.verdict = p.verdict \
     and authorizations.code = p.code and authorizations.amount = p.amount \
     and authorizations.currency = p.currency";

/// Gives rows of this log their other words. Their rows are locked.
pub(super) async fn reword(
    tx: &Transaction<'_>,
    log: Uuid,
    rewordings: &[Rewording],
) -> Result<(), Failure> {
    // The last of a payment: an update joined with two takes any of them.
    let last: BTreeMap<TransactionId, &Rewording> = rewordings
        .iter()
        .map(|one| (one.answer.transaction_id, one))
        .collect();
    let answers = || last.values().map(|one| &one.answer);
    let shoppers: Vec<i64> = answers().map(|a| a.shopper.get()).collect();
    let ids: Vec<Uuid> = last.keys().map(|id| id.to_uuid()).collect();
    let prints: Vec<&[u8]> = answers()
        .map(|a| a.fingerprint.as_bytes().as_slice())
        .collect();
    let verdicts: Vec<&str> = answers().map(|a| a.verdict.as_str()).collect();
    let codes: Vec<&str> = answers().map(|a| a.code.as_str()).collect();
    let amounts: Vec<i64> = answers().map(|a| a.amount.minor()).collect();
    let currencies: Vec<String> = answers()
        .map(|a| a.amount.currency().code().to_owned())
        .collect();
    let reasons: Vec<&str> = answers().map(|a| a.reason.as_str()).collect();
    let rungs: Vec<&str> = answers().map(|a| a.rung.as_str()).collect();
    let whys: Vec<Option<&str>> = answers().map(|a| a.why.map(Why::as_str)).collect();
    let caps: Vec<Option<i64>> = answers().map(|a| a.cap).collect();
    let befores: Vec<i64> = answers().map(|a| a.approved_before).collect();
    let trips: Vec<Option<Uuid>> = answers().map(|a| a.trip.map(|trip| trip.0)).collect();
    let ages: Vec<Option<i64>> = answers().map(|a| a.trip_age_ms.map(most)).collect();
    let policies: Vec<i64> = answers().map(|a| i64::from(a.policy_version)).collect();
    let exposed: Vec<bool> = answers().map(|a| a.rung == Rung::Isolated).collect();
    let indexes: Vec<i64> = last.values().map(|one| most(one.at.index)).collect();
    let slots: Vec<i64> = last.values().map(|one| i64::from(one.at.slot)).collect();
    let params: Params<'_> = &[
        &log,
        &shoppers,
        &ids,
        &prints,
        &verdicts,
        &codes,
        &amounts,
        &currencies,
        &reasons,
        &rungs,
        &whys,
        &caps,
        &befores,
        &trips,
        &ages,
        &policies,
        &exposed,
        &indexes,
        &slots,
    ];
    execute(tx, REWORD, params).await?;
    Ok(())
}

/// The payments of a step's rewordings.
pub(super) fn ids(rewordings: &[Rewording]) -> impl Iterator<Item = Uuid> + '_ {
    rewordings
        .iter()
        .map(|one| one.answer.transaction_id.to_uuid())
}

fn most(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
