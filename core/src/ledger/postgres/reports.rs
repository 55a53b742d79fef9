//! What reconciliation and operators read, the release of stale holds, and the canary write.

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::clearing::{KeptRun, RUN_ROWS_MAX, RunPlace};
use super::super::rows::without_nul;
use super::super::{AuditRow, AuthorizationRow, ConflictRow, ReconcileRun, StaleHold};
use super::decode::{
    AUTHORIZATION, Params, authorization, execute, get, nearest_time, number, query, time,
    unreadable,
};
use super::epoch::{Epoch, guard};
use super::link::Failure;
use crate::clock::Timestamp;
use crate::entry::LogPosition;
use crate::id::{BankId, ShopperId, TransactionId};

/// A commit that proves the primary takes writes.
pub(super) async fn probe(client: &Object, prober: &str, epoch: &Epoch) -> Result<(), Failure> {
    let sql = concat!(
        "insert into probes (prober, probed_at) select $1, now() where ",
        guard!("$2"),
        " on conflict (prober) do update set probed_at = excluded.probed_at"
    );
    execute(client, sql, &[&prober, &epoch.least()])
        .await
        .map_err(Failure::committing)?;
    Ok(())
}

/// Authorizations after a key, in key order.
pub(super) async fn authorizations(
    client: &Object,
    after: Option<(ShopperId, TransactionId)>,
    limit: u32,
) -> Result<Vec<AuthorizationRow>, Failure> {
    // Shoppers are numbered from 1, so that (0, nil) is before every key.
    let (shopper, id) = after.map_or((0, Uuid::nil()), |(shopper, id)| {
        (shopper.get(), id.to_uuid())
    });
    let sql = format!(
        "select {AUTHORIZATION} from authorizations a \
         where (a.shopper_id, a.transaction_id) > ($1, $2) \
         order by a.shopper_id, a.transaction_id limit $3"
    );
    let rows = query(client, &sql, &[&shopper, &id, &i64::from(limit)]).await?;
    rows.iter().map(authorization).collect()
}

/// One authorization.
pub(super) async fn one(
    client: &Object,
    id: TransactionId,
) -> Result<Option<AuthorizationRow>, Failure> {
    let sql = format!(
        "select {AUTHORIZATION} from transactions x join authorizations a \
         on a.shopper_id = x.shopper_id and a.transaction_id = x.transaction_id \
         where x.transaction_id = $1"
    );
    let rows = query(client, &sql, &[&id.to_uuid()]).await?;
    rows.first().map(authorization).transpose()
}

/// Holds without an outcome, oldest first.
pub(super) async fn stale_holds(
    client: &Object,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<StaleHold>, Failure> {
    let sql = "select shopper_id, transaction_id, amount, held_at from authorizations \
         where state = 'held' and held_at < $1 order by held_at, shopper_id, transaction_id \
         limit $2";
    let hold = |row: &Row| -> Result<StaleHold, Failure> {
        Ok(StaleHold {
            shopper: number(row, "shopper_id")?,
            transaction_id: TransactionId::from_uuid(get(row, "transaction_id")?),
            amount: get(row, "amount")?,
            held_at: time(row, "held_at")?,
        })
    };
    let rows = query(client, sql, &[&nearest_time(before), &i64::from(limit)]).await?;
    rows.iter().map(hold).collect()
}

/// `held` → `released`, only of what is still held.
pub(super) async fn release(client: &mut Object, holds: &[StaleHold]) -> Result<u64, Failure> {
    let owners: Vec<i64> = holds.iter().map(|hold| hold.shopper.get()).collect();
    let ids: Vec<Uuid> = holds
        .iter()
        .map(|hold| hold.transaction_id.to_uuid())
        .collect();
    let keys: Params<'_> = &[&owners, &ids];
    let tx = client.transaction().await?;
    // Locked in id order first, as the drain does, so that the two never wait in a circle.
    let lock = "select transaction_id from authorizations \
         where (shopper_id, transaction_id) in (select * from unnest($1::bigint[], $2::uuid[])) \
         order by transaction_id for update";
    query(&tx, lock, keys).await?;
    let sql = "update authorizations set state = 'released' \
         where (shopper_id, transaction_id) in (select * from unnest($1::bigint[], $2::uuid[])) \
         and state = 'held'";
    let released = execute(&tx, sql, keys).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(released)
}

/// What could not be booked, oldest first.
pub(super) async fn conflicts(client: &Object, limit: u32) -> Result<Vec<ConflictRow>, Failure> {
    let sql = "select transaction_id, log, log_index, log_slot, cause, outcome from conflicts \
         order by found_at, log, log_index, log_slot limit $1";
    let conflict = |row: &Row| -> Result<ConflictRow, Failure> {
        let outcome = serde_json::from_str(get(row, "outcome")?);
        Ok(ConflictRow {
            transaction_id: TransactionId::from_uuid(get(row, "transaction_id")?),
            log: get(row, "log")?,
            at: LogPosition {
                index: number(row, "log_index")?,
                slot: number(row, "log_slot")?,
            },
            cause: get(row, "cause")?,
            outcome: outcome.map_err(|_| unreadable("outcome"))?,
        })
    };
    let rows = query(client, sql, &[&i64::from(limit)]).await?;
    rows.iter().map(conflict).collect()
}

/// What operators did, oldest first.
pub(super) async fn audit(client: &Object, limit: u32) -> Result<Vec<AuditRow>, Failure> {
    let sql = "select acted_at, operator, action, reason from audit \
         order by acted_at, action_id limit $1";
    let row = |row: &Row| -> Result<AuditRow, Failure> {
        Ok(AuditRow {
            at: time(row, "acted_at")?,
            operator: get(row, "operator")?,
            action: get(row, "action")?,
            reason: get(row, "reason")?,
        })
    };
    let rows = query(client, sql, &[&i64::from(limit)]).await?;
    rows.iter().map(row).collect()
}

/// Runs that were kept, the last that ended first.
pub(super) async fn runs(
    client: &Object,
    before: Option<RunPlace>,
    limit: u32,
) -> Result<Vec<KeptRun>, Failure> {
    let (ended_at, id) = before.unzip();
    let sql = "select run_id, started_at, ended_at, report from reconcile_runs \
         where $1::timestamptz is null or (ended_at, run_id) < ($1, $2::uuid) \
         order by ended_at desc, run_id desc limit $3";
    let run = |row: &Row| -> Result<KeptRun, Failure> {
        let report = serde_json::from_str(get(row, "report")?);
        Ok(KeptRun {
            id: get(row, "run_id")?,
            started_at: time(row, "started_at")?,
            ended_at: time(row, "ended_at")?,
            report: report.map_err(|_| unreadable("report"))?,
        })
    };
    let most = u32::try_from(RUN_ROWS_MAX).unwrap_or(u32::MAX);
    let params: Params<'_> = &[
        &ended_at.map(nearest_time),
        &id,
        &i64::from(limit.min(most)),
    ];
    let rows = query(client, sql, params).await?;
    rows.iter().map(run).collect()
}

/// Keeps a run and its findings; a run that is there stays as it is.
pub(super) async fn record_run(client: &mut Object, run: &ReconcileRun) -> Result<(), Failure> {
    let tx = client.transaction().await?;
    let sql = "insert into reconcile_runs (run_id, started_at, ended_at, report) \
         values ($1, $2, $3, $4) on conflict (run_id) do nothing";
    let (from, to) = (nearest_time(run.started_at), nearest_time(run.ended_at));
    let report = run.report.to_string();
    if execute(&tx, sql, &[&run.id, &from, &to, &report]).await? == 0 {
        return Ok(());
    }
    let findings = &run.findings;
    let numbers: Vec<i64> = (1_i64..).take(findings.len()).collect();
    let kinds: Vec<String> = findings.iter().map(|f| without_nul(&f.kind)).collect();
    let ids: Vec<Option<Uuid>> = findings
        .iter()
        .map(|f| f.transaction_id.map(TransactionId::to_uuid))
        .collect();
    let details: Vec<String> = findings.iter().map(|f| without_nul(&f.detail)).collect();
    let amounts: Vec<i64> = findings.iter().map(|f| f.amount).collect();
    let currencies: Vec<Option<String>> = findings
        .iter()
        .map(|f| f.currency.map(String::from))
        .collect();
    let banks: Vec<Option<&str>> = findings
        .iter()
        .map(|f| f.bank.as_ref().map(BankId::as_str))
        .collect();
    let sql = "insert into findings (run_id, finding, kind, transaction_id, detail, amount, \
         currency, bank) \
         select $1, p.finding, p.kind, p.transaction_id, p.detail, p.amount, p.currency, p.bank \
         from unnest($2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::text[], \
         $8::text[]) \
         as p (finding, kind, transaction_id, detail, amount, currency, bank)";
    let params: Params<'_> = &[
        &run.id,
        &numbers,
        &kinds,
        &ids,
        &details,
        &amounts,
        &currencies,
        &banks,
    ];
    execute(&tx, sql, params).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(())
}
