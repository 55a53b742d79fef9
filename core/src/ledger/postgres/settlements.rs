//! Movements of money: kept by id, once; another one under the same id goes to `conflicts`.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::SettlementRow;
use super::super::rows::{OTHER_SETTLEMENT, payment_of, same_settlement};
use super::decode::{Params, execute, get, nearest_time, query, time, unreadable, word};
use super::link::Failure;
use crate::entry::Settlement;
use crate::id::{ShopperId, TransactionId};
use crate::money::Money;

const COLUMNS: &str = "settlement_id, bank, kind, shopper_id, transaction_id, amount, currency, \
     settled_at";

/// Keeps movements; gives how many are in conflict.
pub(super) async fn keep(
    tx: &Transaction<'_>,
    log: Uuid,
    rows: &[SettlementRow],
) -> Result<u64, Failure> {
    let mut conflicts = 0_u64;
    for row in rows {
        let settlement = &row.settlement;
        let sql = "insert into settlements (settlement_id, bank, kind, shopper_id, transaction_id, \
             amount, currency, settled_at) values ($1, $2, $3, $4, $5, $6, $7, $8) \
             on conflict (settlement_id) do nothing";
        let currency = String::from(settlement.amount.currency());
        let params: Params<'_> = &[
            &settlement.id,
            &settlement.bank.as_str(),
            &settlement.kind.as_str(),
            &settlement.shopper.map(ShopperId::get),
            &settlement.transaction_id.map(TransactionId::to_uuid),
            &settlement.amount.minor(),
            &currency,
            &nearest_time(settlement.at),
        ];
        if execute(tx, sql, params).await? == 1 {
            continue;
        }
        let there = format!("select {COLUMNS} from settlements where settlement_id = $1");
        let there = query(tx, &there, &[&settlement.id]).await?;
        let there = there.first().map(read).transpose()?;
        if there.is_some_and(|there| same_settlement(&there, settlement)) {
            continue;
        }
        conflicts = conflicts.saturating_add(1);
        conflict(tx, log, row).await?;
    }
    Ok(conflicts)
}

async fn conflict(tx: &Transaction<'_>, log: Uuid, row: &SettlementRow) -> Result<(), Failure> {
    let sql = "insert into conflicts (log, log_index, log_slot, transaction_id, cause, outcome) \
         values ($1, $2, $3, $4, $5, $6) on conflict (log, log_index, log_slot) do nothing";
    let index = i64::try_from(row.at.index).map_err(|_| unreadable("log_index"))?;
    let outcome = serde_json::json!(row.settlement).to_string();
    let params: Params<'_> = &[
        &log,
        &index,
        &i64::from(row.at.slot),
        &payment_of(&row.settlement).to_uuid(),
        &OTHER_SETTLEMENT,
        &outcome,
    ];
    execute(tx, sql, params).await?;
    Ok(())
}

/// Movements by id.
pub(super) async fn after(
    client: &Object,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Settlement>, Failure> {
    let sql = format!(
        "select {COLUMNS} from settlements where ($1::uuid is null or settlement_id > $1) \
         order by settlement_id limit $2"
    );
    let rows = query(client, &sql, &[&after, &i64::from(limit)]).await?;
    rows.iter().map(read).collect()
}

/// Movements of some payments, by id.
pub(super) async fn of(client: &Object, payments: &[Uuid]) -> Result<Vec<Settlement>, Failure> {
    let sql = format!("select {COLUMNS} from settlements where transaction_id = any($1)");
    let rows = query(client, &sql, &[&payments]).await?;
    let mut all: Vec<Settlement> = rows.iter().map(read).collect::<Result<_, _>>()?;
    all.sort_by_key(|one| one.id);
    Ok(all)
}

fn read(row: &Row) -> Result<Settlement, Failure> {
    let shopper: Option<i64> = get(row, "shopper_id")?;
    let payment: Option<Uuid> = get(row, "transaction_id")?;
    Ok(Settlement {
        id: get(row, "settlement_id")?,
        bank: word(row, "bank")?,
        kind: word(row, "kind")?,
        transaction_id: payment.map(TransactionId::from_uuid),
        shopper: shopper
            .map(|number| ShopperId::try_from(number).map_err(|_| unreadable("shopper_id")))
            .transpose()?,
        amount: Money::from_minor(get(row, "amount")?, word(row, "currency")?),
        at: time(row, "settled_at")?,
    })
}
