//! Which Redis is the home of the trip cache.

use deadpool_postgres::{GenericClient, Object};

use super::super::{CacheHome, CachePromotion};
use super::decode::{Params, execute, get, nearest_time, number, query, unreadable};
use super::link::Failure;

pub(super) async fn home(client: &impl GenericClient, lock: &str) -> Result<CacheHome, Failure> {
    let sql = format!("select epoch, address from cache_home where only_row = 1 {lock}");
    let rows = query(client, &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| unreadable("cache_home"))?;
    Ok(CacheHome {
        epoch: number(row, "epoch")?,
        address: get(row, "address")?,
    })
}

/// Raises the epoch, unless it is the home already, and says in the audit who ordered it.
pub(super) async fn promote(
    client: &mut Object,
    promotion: &CachePromotion,
) -> Result<CacheHome, Failure> {
    let tx = client.transaction().await?;
    let home = promotion.on(&home(&tx, "for update").await?);
    let epoch = i64::try_from(home.epoch).map_err(|_| unreadable("epoch"))?;
    let sql = "update cache_home set epoch = $1, address = $2 where only_row = 1";
    execute(&tx, sql, &[&epoch, &home.address]).await?;
    let audit = promotion.audit(&home);
    let sql = "insert into audit (action_id, acted_at, operator, action, reason) \
         values ($1, $2, $3, $4, $5) on conflict (action_id) do nothing";
    let at = nearest_time(audit.at);
    let params: Params<'_> = &[
        &promotion.id,
        &at,
        &audit.operator,
        &audit.action,
        &audit.reason,
    ];
    execute(&tx, sql, params).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(home)
}
