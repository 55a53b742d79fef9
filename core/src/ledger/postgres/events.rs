//! What happens on trips: each event once, by its id; the trip follows from its lines by the rule
//! every other place uses ([`TripSheet::apply`]).

use std::collections::{BTreeSet, HashMap, HashSet};

use deadpool_postgres::{Object, Transaction};
use uuid::Uuid;

use super::super::rows::wrong;
use super::super::{BookedEvent, EventsBooked};
use super::decode::{Params, execute, get, query, trip_word};
use super::link::Failure;
use super::{orders, trips};
use crate::id::{OrderId, ShopperId, TripId};
use crate::trip::{Applied, Item, OrderStatus, TripChange, TripSheet, TripStatus};

/// Most events booked in one transaction; a longer list takes several.
const EVENTS_PER_COMMIT: usize = 1_000;

type Key = (ShopperId, TripId);

/// Books events. When a later part fails, the parts before it stay booked: a repeat finds them.
pub(super) async fn book(
    client: &mut Object,
    events: &[BookedEvent],
) -> Result<EventsBooked, Failure> {
    let mut all = EventsBooked::default();
    for part in events.chunks(EVENTS_PER_COMMIT) {
        let counts = book_part(client, part).await?;
        all.changed = all.changed.saturating_add(counts.changed);
        all.unchanged = all.unchanged.saturating_add(counts.unchanged);
        all.refused = all.refused.saturating_add(counts.refused);
    }
    Ok(all)
}

async fn book_part(client: &mut Object, events: &[BookedEvent]) -> Result<EventsBooked, Failure> {
    let tx = client.transaction().await?;
    let keys: BTreeSet<Key> = events.iter().map(key).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let before = trips::locked(&tx, &keys).await?;
    let mut known = known_events(&tx, events).await?;
    let mut sheets: HashMap<Key, TripSheet> = before
        .iter()
        .map(|sheet| (key_of(sheet), sheet.clone()))
        .collect();
    let mut counts = EventsBooked::default();
    let mut seen: Vec<(Key, Uuid)> = Vec::new();
    let mut finished: Vec<OrderId> = Vec::new();
    for booked in events {
        let applied = match sheets.get_mut(&key(booked)) {
            Some(sheet) => apply(sheet, booked, &mut known, &mut seen),
            None => Applied::Refused,
        };
        if applied == Applied::Changed && booked.event.what == TripChange::Finish {
            let sheet = sheets.get(&key(booked));
            finished.extend(sheet.iter().flat_map(|sheet| sheet.items.keys().copied()));
        }
        let count = match applied {
            Applied::Changed => &mut counts.changed,
            Applied::Unchanged => &mut counts.unchanged,
            Applied::Refused => &mut counts.refused,
        };
        *count = count.saturating_add(1);
    }
    let changed: Vec<&TripSheet> = before
        .iter()
        .filter_map(|old| sheets.get(&key_of(old)).filter(|new| *new != old))
        .collect();
    write_trips(&tx, &changed).await?;
    orders::update_items(&tx, &changed_items(&before, &sheets)).await?;
    trips::set_orders(&tx, &finished, OrderStatus::Delivering).await?;
    write_events(&tx, &seen).await?;
    tx.commit().await.map_err(Failure::committing)?;
    Ok(counts)
}

fn key(booked: &BookedEvent) -> Key {
    (booked.event.shopper, booked.event.trip)
}

fn key_of(sheet: &TripSheet) -> Key {
    (sheet.trip.shopper, sheet.trip.id)
}

/// Applies one event to a trip that is there, unless the trip has seen it.
fn apply(
    sheet: &mut TripSheet,
    booked: &BookedEvent,
    known: &mut HashSet<(Key, Uuid)>,
    seen: &mut Vec<(Key, Uuid)>,
) -> Applied {
    let id = (key(booked), booked.event.id);
    let applied = if known.contains(&id) {
        Applied::Unchanged
    } else {
        sheet.apply(&booked.event.what)
    };
    if applied == Applied::Refused {
        return applied;
    }
    sheet.trip.version = sheet.trip.version.max(booked.version.unwrap_or(0));
    // A position changes nothing however often it comes, so its id need not be kept.
    let moved = matches!(booked.event.what, TripChange::Moved { .. });
    if !moved && sheet.trip.status != TripStatus::Complete && known.insert(id) {
        seen.push(id);
    }
    applied
}

async fn known_events(
    tx: &Transaction<'_>,
    events: &[BookedEvent],
) -> Result<HashSet<(Key, Uuid)>, Failure> {
    let owners: Vec<i64> = events.iter().map(|b| b.event.shopper.get()).collect();
    let trips: Vec<Uuid> = events.iter().map(|b| b.event.trip.0).collect();
    let ids: Vec<Uuid> = events.iter().map(|b| b.event.id).collect();
    let sql = "select e.trip_id, e.event_id from trip_events e \
         where (e.shopper_id, e.trip_id, e.event_id) in \
         (select * from unnest($1::bigint[], $2::uuid[], $3::uuid[]))";
    let mut there: HashSet<(Uuid, Uuid)> = HashSet::new();
    for row in query(tx, sql, &[&owners, &trips, &ids]).await? {
        there.insert((get(&row, "trip_id")?, get(&row, "event_id")?));
    }
    let id = |booked: &BookedEvent| (key(booked), booked.event.id);
    let known = |((_, trip), event): &(Key, Uuid)| there.contains(&(trip.0, *event));
    Ok(events.iter().map(id).filter(known).collect())
}

fn changed_items(before: &[TripSheet], sheets: &HashMap<Key, TripSheet>) -> Vec<(OrderId, Item)> {
    let mut changed = Vec::new();
    for old in before {
        let Some(new) = sheets.get(&key_of(old)) else {
            continue;
        };
        for (order, items) in &new.items {
            let was = old.items.get(order).into_iter().flatten();
            let pairs = items.iter().zip(was);
            changed.extend(
                pairs
                    .filter(|(is, was)| is != was)
                    .map(|(is, _)| (*order, is.clone())),
            );
        }
    }
    changed
}

async fn write_trips(tx: &Transaction<'_>, changed: &[&TripSheet]) -> Result<(), Failure> {
    if changed.is_empty() {
        return Ok(());
    }
    let trips: Vec<_> = changed.iter().map(|sheet| &sheet.trip).collect();
    let owners: Vec<i64> = trips.iter().map(|trip| trip.shopper.get()).collect();
    let ids: Vec<Uuid> = trips.iter().map(|trip| trip.id.0).collect();
    let statuses: Vec<&str> = trips.iter().map(|trip| trip_word(trip.status)).collect();
    let versions = trips
        .iter()
        .map(|trip| i64::try_from(trip.version).map_err(|_| wrong("a version past 2^63")))
        .collect::<Result<Vec<i64>, _>>()?;
    let picked: Vec<i64> = trips.iter().map(|trip| trip.picked).collect();
    let listed: Vec<i64> = trips.iter().map(|trip| trip.picked_listed).collect();
    let mixes: Vec<serde_json::Value> = trips
        .iter()
        .map(|trip| serde_json::json!(trip.mix))
        .collect();
    let sql = "update trips set status = p.status, version = greatest(trips.version, p.version), \
         picked = p.picked, picked_listed = p.listed, mix = p.mix, \
         closed_at = case when p.status = 'SHOPPING' then trips.closed_at else \
         coalesce(trips.closed_at, date_trunc('milliseconds', clock_timestamp())) end \
         from unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], \
         $6::bigint[], $7::jsonb[]) \
         as p (shopper_id, trip_id, status, version, picked, listed, mix) \
         where trips.shopper_id = p.shopper_id and trips.trip_id = p.trip_id";
    let params: Params<'_> = &[
        &owners, &ids, &statuses, &versions, &picked, &listed, &mixes,
    ];
    execute(tx, sql, params).await?;
    Ok(())
}

async fn write_events(tx: &Transaction<'_>, seen: &[(Key, Uuid)]) -> Result<(), Failure> {
    if seen.is_empty() {
        return Ok(());
    }
    let owners: Vec<i64> = seen.iter().map(|((shopper, _), _)| shopper.get()).collect();
    let trips: Vec<Uuid> = seen.iter().map(|((_, trip), _)| trip.0).collect();
    let ids: Vec<Uuid> = seen.iter().map(|(_, id)| *id).collect();
    let sql = "insert into trip_events (shopper_id, trip_id, event_id) \
         select * from unnest($1::bigint[], $2::uuid[], $3::uuid[]) \
         on conflict (shopper_id, trip_id, event_id) do nothing";
    execute(tx, sql, &[&owners, &trips, &ids]).await?;
    Ok(())
}
