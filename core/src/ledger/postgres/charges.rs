//! What trips were charged, or asked to be: what thresholds are advised from.

use std::collections::BTreeMap;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::decode::{get, number, query, time, unreadable, word};
use super::link::Failure;
use crate::answer::Verdict;
use crate::clock::Timestamp;
use crate::id::{ShopperId, StoreId, TransactionId, TripId};
use crate::money::Money;

/// One payment of a trip that was approved, or declined because it was over the cap. Both are what a till
/// charged; without the declined ones no trip would ever have been charged more than its cap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// Partition key.
    pub shopper: ShopperId,
    /// The payment.
    pub transaction_id: TransactionId,
    /// Its trip.
    pub trip: TripId,
    /// Where.
    pub store: StoreId,
    /// When it became final.
    pub at: Timestamp,
    /// What was picked when it was decided, minor units.
    pub picked: i64,
    /// The same by category.
    pub mix: BTreeMap<String, i64>,
    /// Whether it was approved.
    pub verdict: Verdict,
    /// What was asked for, less what was taken back of it.
    pub amount: Money,
    /// Sum of the trip's approvals before it, minor units.
    pub approved_before: i64,
}

/// Charges after a key, in key order: those of a shopper are neighbours.
pub(super) async fn charges(
    client: &Object,
    after: Option<(ShopperId, TransactionId)>,
    limit: u32,
) -> Result<Vec<Charge>, Failure> {
    // Shoppers are numbered from 1, so that (0, nil) is before every key.
    let (shopper, id) = after.map_or((0, Uuid::nil()), |(shopper, id)| {
        (shopper.get(), id.to_uuid())
    });
    let sql = "select shopper_id, transaction_id, trip_id, store_id, final_at, picked, mix, verdict, \
         amount - reversed as charged, currency, approved_before from authorizations \
         where (shopper_id, transaction_id) > ($1, $2) and state in ('final', 'reversed') \
         and (verdict = 'approved' or reason = 'over_cap') and trip_id is not null \
         and store_id is not null and picked is not null and mix is not null \
         and final_at is not null \
         order by shopper_id, transaction_id limit $3";
    let rows = query(client, sql, &[&shopper, &id, &i64::from(limit)]).await?;
    rows.iter().map(charge).collect()
}

fn charge(row: &Row) -> Result<Charge, Failure> {
    let mix: serde_json::Value = get(row, "mix")?;
    Ok(Charge {
        shopper: number(row, "shopper_id")?,
        transaction_id: TransactionId::from_uuid(get(row, "transaction_id")?),
        trip: TripId(get(row, "trip_id")?),
        store: number(row, "store_id")?,
        at: time(row, "final_at")?,
        picked: get(row, "picked")?,
        mix: serde_json::from_value(mix).map_err(|_| unreadable("mix"))?,
        verdict: word(row, "verdict")?,
        amount: Money::from_minor(get(row, "charged")?, word(row, "currency")?),
        approved_before: get(row, "approved_before")?,
    })
}
