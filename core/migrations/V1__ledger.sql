-- The ledger of record.
--
-- Money is minor units (bigint) with its ISO 4217 code beside it. Every key contains the column its
-- table is partitioned by, so that the schema shards. Authorizations have no foreign keys: a row that
-- was answered must be bookable whatever else is missing. No shopper's position is kept here.
-- Only portable SQL: no triggers, sequences, exclusion or deferrable constraints, advisory locks.

create table customers (
    customer_id bigint primary key,
    created_at timestamptz not null default now()
);

create table shoppers (
    shopper_id bigint primary key,
    created_at timestamptz not null default now()
);

create table stores (
    store_id bigint primary key,
    name text not null,
    address text not null,
    lat_e6 integer not null,
    lon_e6 integer not null
);

create table orders (
    order_id uuid not null,
    customer_id bigint not null,
    store_id bigint not null,
    currency text not null,
    status text not null
        check (status in ('PLACED', 'CLAIMED', 'SHOPPING', 'DELIVERING', 'COMPLETE')),
    shopper_id bigint,
    placed_at timestamptz not null default now(),
    primary key (order_id)
) partition by hash (order_id);

-- What matching offers: oldest first.
create index orders_placed on orders (store_id, placed_at, order_id) where status = 'PLACED';

create table items (
    order_id uuid not null,
    line integer not null,
    product bigint not null,
    category text not null,
    quantity bigint not null,
    listed bigint not null,
    actual bigint,
    status text not null check (status in ('WANTED', 'PICKED', 'OUT_OF_STOCK')),
    primary key (order_id, line)
) partition by hash (order_id);

create table trips (
    shopper_id bigint not null,
    trip_id uuid not null,
    store_id bigint not null,
    currency text not null,
    status text not null check (status in ('SHOPPING', 'DELIVERING', 'COMPLETE')),
    version bigint not null,
    picked bigint not null,
    picked_listed bigint not null,
    mix jsonb not null,
    started_at timestamptz not null,
    primary key (shopper_id, trip_id)
) partition by hash (shopper_id);

-- At most one trip of a shopper is not COMPLETE.
create unique index trips_open on trips (shopper_id) where status <> 'COMPLETE';

create table trip_orders (
    shopper_id bigint not null,
    trip_id uuid not null,
    order_id uuid not null,
    primary key (shopper_id, trip_id, order_id)
);

-- Ids of the events a trip has seen; those of a completed trip are dropped.
create table trip_events (
    shopper_id bigint not null,
    trip_id uuid not null,
    event_id uuid not null,
    primary key (shopper_id, trip_id, event_id)
) partition by hash (shopper_id);

-- Every transaction id that was ever claimed, and by which request.
create table transactions (
    transaction_id uuid not null,
    shopper_id bigint not null,
    fingerprint bytea not null,
    claimed_at timestamptz not null default now(),
    primary key (transaction_id)
) partition by hash (transaction_id);

create table authorizations (
    shopper_id bigint not null,
    transaction_id uuid not null,
    state text not null check (state in ('held', 'final', 'released', 'reversed')),
    -- the answer (of a hold: the one proposed)
    fingerprint bytea not null,
    bank text not null,
    verdict text not null check (verdict in ('approved', 'declined')),
    reason text not null,
    code text not null,
    amount bigint not null check (amount > 0),
    currency text not null,
    rung text not null,
    why text,
    cap bigint,
    approved_before bigint not null,
    trip_id uuid,
    trip_age_ms bigint,
    policy_version bigint not null,
    -- what the variance analysis needs, filled when it becomes final
    exposed boolean not null,
    store_id bigint,
    picked bigint,
    picked_listed bigint,
    mix jsonb,
    trip_version bigint,
    shadow text,
    merchant_name text,
    merchant_address text,
    -- where it comes from
    held_at timestamptz,
    log uuid,
    log_index bigint,
    log_slot bigint,
    final_at timestamptz,
    primary key (shopper_id, transaction_id)
) partition by hash (shopper_id);

create index authorizations_trip on authorizations (shopper_id, trip_id);
create index authorizations_held on authorizations (held_at) where state = 'held';

create table reversals (
    shopper_id bigint not null,
    transaction_id uuid not null,
    reversal_id uuid not null,
    amount bigint not null check (amount > 0),
    currency text not null,
    reversed_at timestamptz not null,
    primary key (shopper_id, transaction_id, reversal_id)
);

create table thresholds (
    threshold_id uuid primary key,
    policy_version bigint not null,
    store_id bigint,
    category text,
    absolute bigint not null,
    percent_bp bigint not null,
    ceiling bigint not null,
    currency text not null,
    valid_from timestamptz not null
);

-- How far each log was drained.
create table wal_cursor (
    log uuid primary key,
    log_index bigint not null,
    moved_at timestamptz not null default now()
);

-- Outcomes that could not be booked as they are. The outcome is JSON kept as text, because it may
-- be here for the very reason that a stricter type rejects it.
create table conflicts (
    log uuid not null,
    log_index bigint not null,
    log_slot bigint not null,
    transaction_id uuid not null,
    cause text not null,
    outcome text not null,
    found_at timestamptz not null default now(),
    primary key (log, log_index, log_slot)
);

create table settlements (
    settlement_id uuid primary key,
    bank text not null,
    shopper_id bigint,
    transaction_id uuid,
    amount bigint not null,
    currency text not null,
    settled_at timestamptz not null
);

create table reconcile_runs (
    run_id uuid primary key,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    report text not null
);

create table findings (
    run_id uuid not null,
    finding bigint not null,
    kind text not null,
    transaction_id uuid,
    detail text not null,
    amount bigint not null,
    currency text,
    bank text,
    primary key (run_id, finding)
);

create table audit (
    action_id uuid primary key,
    acted_at timestamptz not null,
    operator text not null,
    action text not null,
    reason text not null
);

-- Raised when a standby is promoted; one row.
create table ledger_epoch (
    only_row integer primary key check (only_row = 1),
    epoch bigint not null
);
insert into ledger_epoch (only_row, epoch) values (1, 1);

-- Writes that prove the primary takes writes, one row a prober.
create table probes (
    prober text primary key,
    probed_at timestamptz not null default now()
);

-- Partitions.
create table orders_p0 partition of orders for values with (modulus 8, remainder 0);
create table orders_p1 partition of orders for values with (modulus 8, remainder 1);
create table orders_p2 partition of orders for values with (modulus 8, remainder 2);
create table orders_p3 partition of orders for values with (modulus 8, remainder 3);
create table orders_p4 partition of orders for values with (modulus 8, remainder 4);
create table orders_p5 partition of orders for values with (modulus 8, remainder 5);
create table orders_p6 partition of orders for values with (modulus 8, remainder 6);
create table orders_p7 partition of orders for values with (modulus 8, remainder 7);
create table items_p0 partition of items for values with (modulus 8, remainder 0);
create table items_p1 partition of items for values with (modulus 8, remainder 1);
create table items_p2 partition of items for values with (modulus 8, remainder 2);
create table items_p3 partition of items for values with (modulus 8, remainder 3);
create table items_p4 partition of items for values with (modulus 8, remainder 4);
create table items_p5 partition of items for values with (modulus 8, remainder 5);
create table items_p6 partition of items for values with (modulus 8, remainder 6);
create table items_p7 partition of items for values with (modulus 8, remainder 7);
create table trips_p0 partition of trips for values with (modulus 8, remainder 0);
create table trips_p1 partition of trips for values with (modulus 8, remainder 1);
create table trips_p2 partition of trips for values with (modulus 8, remainder 2);
create table trips_p3 partition of trips for values with (modulus 8, remainder 3);
create table trips_p4 partition of trips for values with (modulus 8, remainder 4);
create table trips_p5 partition of trips for values with (modulus 8, remainder 5);
create table trips_p6 partition of trips for values with (modulus 8, remainder 6);
create table trips_p7 partition of trips for values with (modulus 8, remainder 7);
create table trip_events_p0 partition of trip_events for values with (modulus 8, remainder 0);
create table trip_events_p1 partition of trip_events for values with (modulus 8, remainder 1);
create table trip_events_p2 partition of trip_events for values with (modulus 8, remainder 2);
create table trip_events_p3 partition of trip_events for values with (modulus 8, remainder 3);
create table trip_events_p4 partition of trip_events for values with (modulus 8, remainder 4);
create table trip_events_p5 partition of trip_events for values with (modulus 8, remainder 5);
create table trip_events_p6 partition of trip_events for values with (modulus 8, remainder 6);
create table trip_events_p7 partition of trip_events for values with (modulus 8, remainder 7);
create table transactions_p0 partition of transactions for values with (modulus 8, remainder 0);
create table transactions_p1 partition of transactions for values with (modulus 8, remainder 1);
create table transactions_p2 partition of transactions for values with (modulus 8, remainder 2);
create table transactions_p3 partition of transactions for values with (modulus 8, remainder 3);
create table transactions_p4 partition of transactions for values with (modulus 8, remainder 4);
create table transactions_p5 partition of transactions for values with (modulus 8, remainder 5);
create table transactions_p6 partition of transactions for values with (modulus 8, remainder 6);
create table transactions_p7 partition of transactions for values with (modulus 8, remainder 7);
create table authorizations_p0 partition of authorizations for values with (modulus 8, remainder 0);
create table authorizations_p1 partition of authorizations for values with (modulus 8, remainder 1);
create table authorizations_p2 partition of authorizations for values with (modulus 8, remainder 2);
create table authorizations_p3 partition of authorizations for values with (modulus 8, remainder 3);
create table authorizations_p4 partition of authorizations for values with (modulus 8, remainder 4);
create table authorizations_p5 partition of authorizations for values with (modulus 8, remainder 5);
create table authorizations_p6 partition of authorizations for values with (modulus 8, remainder 6);
create table authorizations_p7 partition of authorizations for values with (modulus 8, remainder 7);
