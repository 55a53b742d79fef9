-- Reversals by payment, closes in an order that can be read on, and what was reversed beside what it
-- was reversed of.

-- When a trip left SHOPPING, by this server's clock, in whole milliseconds; null while it shops.
alter table trips add column closed_at timestamptz;
update trips set closed_at = date_trunc('milliseconds', now()) where status <> 'SHOPPING';
create index trips_closed on trips (closed_at, shopper_id, trip_id) where closed_at is not null;

-- What was taken back of a final approval, at most its amount: no sum need look into reversals.
alter table authorizations add column reversed bigint not null default 0;

-- A reversal may come before its payment, when nobody here knows whose card it was: its key is the
-- payment's alone. No check may reject a reversal, so amounts that take nothing back are kept too.
alter table reversals rename to reversals_v1;
create table reversals (
    transaction_id uuid not null,
    reversal_id uuid not null,
    shopper_id bigint,
    amount bigint not null,
    currency text not null,
    reason text not null,
    reversed_at timestamptz not null,
    primary key (transaction_id, reversal_id)
);
insert into reversals
    (transaction_id, reversal_id, shopper_id, amount, currency, reason, reversed_at)
    select transaction_id, reversal_id, shopper_id, amount, currency, '', reversed_at
    from reversals_v1;
drop table reversals_v1;
