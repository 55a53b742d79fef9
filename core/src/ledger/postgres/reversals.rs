//! Reversals: kept by key, and counted on the final approvals they belong to, there or still to come.
//!
//! A reversal and the outcome it belongs to may come from two regions' logs at once, and neither
//! transaction would see the other's row. So a step with reversals has the epoch's row to itself,
//! which every other step shares; an advice and it meet at the authorization's row, which a hold
//! made before.

use deadpool_postgres::{GenericClient, Transaction};
use uuid::Uuid;

use super::super::ReversalRow;
use super::super::rows::without_nul;
use super::decode::{Params, execute, nearest_time, query};
use super::link::Failure;
use crate::id::{ShopperId, TransactionId};

/// Counts what is reversed of payments that are final. Locks nothing that its caller has not written
/// or locked.
///
/// What is reversed is looked up first, by itself: mostly it is nothing, and then the rows of the
/// payments need not be looked at.
pub(super) const APPLY: &str = "with sums as materialized ( \
     select r.transaction_id, r.currency, \
     least(sum(r.amount), 9223372036854775807)::bigint as reversed \
     from unnest($1::uuid[]) as u (id) join reversals r on r.transaction_id = u.id \
     where r.amount > 0 group by r.transaction_id, r.currency) \
     update authorizations set reversed = least(authorizations.amount, s.reversed), \
     state = case when s.reversed >= authorizations.amount then 'reversed' \
     else authorizations.state end \
     from sums s join transactions x on x.transaction_id = s.transaction_id \
     where authorizations.shopper_id = x.shopper_id \
     and authorizations.transaction_id = s.transaction_id \
     and authorizations.currency = s.currency \
     and authorizations.verdict = 'approved' and authorizations.state in ('final', 'reversed')";

/// Locks the rows of payments in id order, before anything of the step is written to them.
pub(super) async fn lock(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<(), Failure> {
    let sql = "select a.transaction_id from unnest($1::uuid[]) as u (id) \
         join transactions x on x.transaction_id = u.id \
         join authorizations a on a.shopper_id = x.shopper_id \
         and a.transaction_id = x.transaction_id \
         order by a.transaction_id for update of a";
    query(tx, sql, &[&ids]).await?;
    Ok(())
}

/// Keeps reversals; one that is there stays as it is.
pub(super) async fn keep(tx: &Transaction<'_>, rows: &[ReversalRow]) -> Result<(), Failure> {
    let ids: Vec<Uuid> = rows.iter().map(|r| r.transaction_id.to_uuid()).collect();
    let keys: Vec<Uuid> = rows.iter().map(|r| r.reversal_id).collect();
    let shoppers: Vec<Option<i64>> = rows.iter().map(|r| r.shopper.map(ShopperId::get)).collect();
    let amounts: Vec<i64> = rows.iter().map(|r| r.amount).collect();
    let currencies: Vec<String> = rows.iter().map(|r| r.currency.into()).collect();
    // No word of a bank may stop the drain.
    let reasons: Vec<String> = rows.iter().map(|r| without_nul(&r.reason)).collect();
    let times: Vec<jiff::Timestamp> = rows.iter().map(|r| nearest_time(r.at)).collect();
    let sql = "insert into reversals (transaction_id, reversal_id, shopper_id, amount, currency, \
         reason, reversed_at) \
         select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], \
         $6::text[], $7::timestamptz[]) \
         on conflict (transaction_id, reversal_id) do nothing";
    let params: Params<'_> = &[
        &ids,
        &keys,
        &shoppers,
        &amounts,
        &currencies,
        &reasons,
        &times,
    ];
    execute(tx, sql, params).await?;
    Ok(())
}

/// Counts what is reversed of these payments.
pub(super) async fn apply(client: &impl GenericClient, ids: &[Uuid]) -> Result<(), Failure> {
    execute(client, APPLY, &[&ids]).await?;
    Ok(())
}

/// The payments of a step's reversals.
pub(super) fn ids(rows: &[ReversalRow]) -> impl Iterator<Item = Uuid> + '_ {
    rows.iter()
        .map(|row| TransactionId::to_uuid(row.transaction_id))
}
