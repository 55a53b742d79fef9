//! Trips: started from claimed orders, read with their approvals, completed.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::rows::wrong;
use super::super::{Completed, OpenTrip, StartTrip, Started};
use super::decode::{
    Params, execute, from_sql_time, get, number, order_word, query, sql_time, time, trip_status,
    trip_word, unreadable, word,
};
use super::link::Failure;
use super::orders;
use crate::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::trip::{Approval, ORDERS_PER_TRIP_MAX, Order, OrderStatus, Trip, TripSheet, TripStatus};

const TRIP: &str = "t.shopper_id, t.trip_id, t.store_id, t.currency, t.status, t.version, \
     t.picked, t.picked_listed, t.mix, t.started_at";

/// The shopper's trip that is not COMPLETE.
pub(super) async fn open(client: &Object, shopper: ShopperId) -> Result<Option<OpenTrip>, Failure> {
    let sql =
        format!("select {TRIP} from trips t where t.shopper_id = $1 and t.status <> 'COMPLETE'");
    let rows = query(client, &sql, &[&shopper.get()]).await?;
    with_approvals(client, rows).await
}

/// One trip.
pub(super) async fn trip(
    client: &Object,
    shopper: ShopperId,
    trip: TripId,
) -> Result<Option<OpenTrip>, Failure> {
    let sql = format!("select {TRIP} from trips t where t.shopper_id = $1 and t.trip_id = $2");
    let rows = query(client, &sql, &[&shopper.get(), &trip.0]).await?;
    with_approvals(client, rows).await
}

async fn with_approvals(client: &Object, rows: Vec<Row>) -> Result<Option<OpenTrip>, Failure> {
    let Some(sheet) = sheets(client, &rows).await?.pop() else {
        return Ok(None);
    };
    let sql = "select transaction_id, amount - reversed as amount, coalesce(final_at, held_at) as at \
         from authorizations where shopper_id = $1 and trip_id = $2 \
         and verdict = 'approved' and state in ('held', 'final') and amount > reversed order by transaction_id";
    let approval = |row: &Row| -> Result<Approval, Failure> {
        Ok(Approval {
            transaction_id: TransactionId::from_uuid(get(row, "transaction_id")?),
            amount: get(row, "amount")?,
            at: from_sql_time(get(row, "at")?),
        })
    };
    let rows = query(client, sql, &[&sheet.trip.shopper.get(), &sheet.trip.id.0]).await?;
    let approvals = rows.iter().map(approval).collect::<Result<_, _>>()?;
    Ok(Some(OpenTrip { sheet, approvals }))
}

/// Locks trips in id order and reads them whole.
pub(super) async fn locked(
    tx: &Transaction<'_>,
    keys: &[(ShopperId, TripId)],
) -> Result<Vec<TripSheet>, Failure> {
    let owners: Vec<i64> = keys.iter().map(|(shopper, _)| shopper.get()).collect();
    let trips: Vec<Uuid> = keys.iter().map(|(_, trip)| trip.0).collect();
    let sql = format!(
        "select {TRIP} from trips t \
         where (t.shopper_id, t.trip_id) in (select * from unnest($1::bigint[], $2::uuid[])) \
         order by t.trip_id for update"
    );
    let rows = query(tx, &sql, &[&owners, &trips]).await?;
    sheets(tx, &rows).await
}

/// Trips from their rows, with the lines of their orders.
async fn sheets(client: &impl GenericClient, rows: &[Row]) -> Result<Vec<TripSheet>, Failure> {
    let trips = rows.iter().map(read_trip).collect::<Result<Vec<_>, _>>()?;
    if trips.is_empty() {
        return Ok(Vec::new());
    }
    let owners: Vec<i64> = trips.iter().map(|trip| trip.shopper.get()).collect();
    let ids: Vec<Uuid> = trips.iter().map(|trip| trip.id.0).collect();
    let sql = "select trip_id, order_id from trip_orders \
         where (shopper_id, trip_id) in (select * from unnest($1::bigint[], $2::uuid[]))";
    let mut served: HashMap<TripId, Vec<OrderId>> = HashMap::new();
    let mut all = Vec::new();
    for row in query(client, sql, &[&owners, &ids]).await? {
        let order = OrderId(get(&row, "order_id")?);
        served
            .entry(TripId(get(&row, "trip_id")?))
            .or_default()
            .push(order);
        all.push(order);
    }
    let mut items = orders::items(client, &all).await?;
    let sheet = |trip: Trip| {
        let orders = served.remove(&trip.id).unwrap_or_default();
        let items = orders
            .into_iter()
            .map(|order| (order, items.remove(&order).unwrap_or_default()))
            .collect();
        TripSheet { trip, items }
    };
    Ok(trips.into_iter().map(sheet).collect())
}

fn read_trip(row: &Row) -> Result<Trip, Failure> {
    let mix: serde_json::Value = get(row, "mix")?;
    let mix: BTreeMap<String, i64> = serde_json::from_value(mix).map_err(|_| unreadable("mix"))?;
    Ok(Trip {
        id: TripId(get(row, "trip_id")?),
        shopper: number::<ShopperId>(row, "shopper_id")?,
        store: number::<StoreId>(row, "store_id")?,
        currency: word(row, "currency")?,
        status: trip_status(row)?,
        version: number(row, "version")?,
        picked: get(row, "picked")?,
        picked_listed: get(row, "picked_listed")?,
        mix,
        started_at: time(row, "started_at")?,
    })
}

/// Starts a trip, or says why not.
pub(super) async fn start(client: &mut Object, start: &StartTrip) -> Result<Started, Failure> {
    let mut ids = start.orders.clone();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() || ids.len() > ORDERS_PER_TRIP_MAX {
        return Err(wrong("a trip has 1 to 16 orders").into());
    }
    let tx = client.transaction().await?;
    // The orders are locked first: a repeat of this start that runs beside it waits here.
    let orders = locked_orders(&tx, &ids).await?;
    if let Some(before) = locked(&tx, &[(start.shopper, start.trip)]).await?.pop() {
        return Ok(if before.items.keys().eq(&ids) {
            Started::Trip(Box::new(before))
        } else {
            Started::HasTrip(start.trip)
        });
    }
    if let Some(open) = open_id(&tx, start.shopper).await? {
        return Ok(Started::HasTrip(open));
    }
    for id in &ids {
        let claimed = orders.iter().any(|order| {
            order.id == *id
                && order.status == OrderStatus::Claimed
                && order.shopper == Some(start.shopper)
        });
        if !claimed {
            return Ok(Started::NotClaimed(*id));
        }
    }
    let mixed = orders.windows(2).any(|pair| {
        let [one, other] = pair else { return false };
        one.store != other.store || one.currency != other.currency
    });
    if mixed {
        return Ok(Started::Mixed);
    }
    let Some(sheet) = TripSheet::start(start.trip, start.shopper, orders, start.at) else {
        return Err(wrong("a trip has 1 to 16 orders").into());
    };
    if !insert(&tx, &sheet, &ids).await? {
        // Another start of this shopper, with other orders, won since we looked.
        let open = open_id(&tx, start.shopper).await?;
        return Ok(Started::HasTrip(open.unwrap_or(start.trip)));
    }
    tx.commit().await.map_err(Failure::committing)?;
    Ok(Started::Trip(Box::new(sheet)))
}

async fn locked_orders(tx: &Transaction<'_>, ids: &[OrderId]) -> Result<Vec<Order>, Failure> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let sql = "select order_id, customer_id, store_id, currency, status, shopper_id \
         from orders where order_id = any($1::uuid[]) order by order_id for update";
    let rows = query(tx, sql, &[&ids]).await?;
    orders::with_items(tx, &rows).await
}

async fn open_id(tx: &Transaction<'_>, shopper: ShopperId) -> Result<Option<TripId>, Failure> {
    let sql = "select trip_id from trips where shopper_id = $1 and status <> 'COMPLETE'";
    let rows = query(tx, sql, &[&shopper.get()]).await?;
    rows.first()
        .map(|row| get(row, "trip_id").map(TripId))
        .transpose()
}

/// Inserts a trip and moves its orders to SHOPPING; false when the shopper has a trip.
async fn insert(tx: &Transaction<'_>, sheet: &TripSheet, ids: &[OrderId]) -> Result<bool, Failure> {
    let trip = &sheet.trip;
    let shopper = trip.shopper.get();
    let known = "insert into shoppers (shopper_id) values ($1) on conflict (shopper_id) do nothing";
    execute(tx, known, &[&shopper]).await?;
    let sql = "insert into trips (shopper_id, trip_id, store_id, currency, status, version, \
         picked, picked_listed, mix, started_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing";
    let version = i64::try_from(trip.version).map_err(|_| wrong("a version past 2^63"))?;
    let started_at = sql_time(trip.started_at).ok_or_else(|| wrong("an impossible start time"))?;
    let (store, currency) = (trip.store.get(), trip.currency.code());
    let mix = serde_json::json!(trip.mix);
    let status = trip_word(trip.status);
    let params: Params<'_> = &[
        &shopper,
        &trip.id.0,
        &store,
        &currency,
        &status,
        &version,
        &trip.picked,
        &trip.picked_listed,
        &mix,
        &started_at,
    ];
    if execute(tx, sql, params).await? == 0 {
        return Ok(false);
    }
    let orders: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let serves = "insert into trip_orders (shopper_id, trip_id, order_id) \
         select $1, $2, u.order_id from unnest($3::uuid[]) as u (order_id)";
    execute(tx, serves, &[&shopper, &trip.id.0, &orders]).await?;
    set_orders(tx, ids, OrderStatus::Shopping).await?;
    Ok(true)
}

/// Moves orders on.
pub(super) async fn set_orders(
    tx: &Transaction<'_>,
    ids: &[OrderId],
    status: OrderStatus,
) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let sql = "update orders set status = $2 where order_id = any($1::uuid[])";
    execute(tx, sql, &[&ids, &order_word(status)]).await?;
    Ok(())
}

/// DELIVERING → COMPLETE.
pub(super) async fn complete(
    client: &mut Object,
    shopper: ShopperId,
    trip: TripId,
) -> Result<Completed, Failure> {
    let tx = client.transaction().await?;
    let Some(sheet) = locked(&tx, &[(shopper, trip)]).await?.pop() else {
        return Ok(Completed::UnknownTrip);
    };
    match sheet.trip.status {
        TripStatus::Shopping => return Ok(Completed::StillShopping),
        TripStatus::Complete => return Ok(Completed::Before),
        TripStatus::Delivering => {}
    }
    let key: Params<'_> = &[&shopper.get(), &trip.0];
    let sql = "update trips set status = 'COMPLETE', version = version + 1, \
         closed_at = coalesce(closed_at, date_trunc('milliseconds', clock_timestamp())) \
         where shopper_id = $1 and trip_id = $2";
    execute(&tx, sql, key).await?;
    // Whatever still comes for this trip is too late: its events need not be told apart.
    let sql = "delete from trip_events where shopper_id = $1 and trip_id = $2";
    execute(&tx, sql, key).await?;
    let ids: Vec<OrderId> = sheet.items.keys().copied().collect();
    set_orders(&tx, &ids, OrderStatus::Complete).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(Completed::Now)
}
