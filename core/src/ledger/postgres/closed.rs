//! Which trips left SHOPPING: see the port's module of the same name for the order.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::closed::{ClosedCursor, ClosedKey, ClosedTrip};
use super::decode::{Params, get, nearest_time, number, query, time};
use super::link::Failure;
use crate::clock::Timestamp;
use crate::id::TripId;

/// Closes after a place in their order, and up to an age.
const AFTER: &str = "select shopper_id, trip_id, closed_at from trips \
     where closed_at is not null and (closed_at, shopper_id, trip_id) > ($1, $2, $3) \
     and closed_at <= now() - $4::bigint * interval '1 millisecond' \
     order by closed_at, shopper_id, trip_id limit $5";

/// A page of closes: what is new, and in the room left what has settled meanwhile.
pub(super) async fn since(
    client: &Object,
    after: Option<ClosedCursor>,
    limit: u32,
    settle: Duration,
) -> Result<Vec<ClosedTrip>, Failure> {
    let mut cursor = after.unwrap_or_else(|| ClosedCursor::since(Timestamp::from_millis(0)));
    let mut page = Vec::new();
    // A clock that went back at a failover leaves closes of a time to come: they are new too.
    for row in after_key(client, cursor.fresh, None, limit).await? {
        cursor.fresh = key(&row)?;
        page.push(closed(&row, cursor)?);
    }
    let left = limit.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX));
    for row in after_key(client, cursor.settled, Some(settle), left).await? {
        cursor.settled = key(&row)?;
        page.push(closed(&row, cursor)?);
    }
    Ok(page)
}

async fn after_key(
    client: &Object,
    key: ClosedKey,
    age: Option<Duration>,
    limit: u32,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    const HUNDRED_YEARS_MS: i64 = 3_155_760_000_000;
    let age = age.map_or(-HUNDRED_YEARS_MS, |age| {
        i64::try_from(age.as_millis()).unwrap_or(HUNDRED_YEARS_MS)
    });
    let at = nearest_time(key.at);
    let params: Params<'_> = &[&at, &key.shopper, &key.trip, &age, &i64::from(limit)];
    query(client, AFTER, params).await
}

fn key(row: &Row) -> Result<ClosedKey, Failure> {
    Ok(ClosedKey {
        at: time(row, "closed_at")?,
        shopper: get(row, "shopper_id")?,
        trip: get::<Uuid>(row, "trip_id")?,
    })
}

fn closed(row: &Row, cursor: ClosedCursor) -> Result<ClosedTrip, Failure> {
    Ok(ClosedTrip {
        cursor,
        trip: TripId(get(row, "trip_id")?),
        shopper: number(row, "shopper_id")?,
    })
}
