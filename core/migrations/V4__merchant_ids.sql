-- What card networks call stores, and which state stores and these are in.

-- The empty terminal stands for none. Shards by network_id. No foreign key: an id may be told before
-- its store.
create table merchant_ids (
    network_id text not null,
    terminal text not null,
    store_id bigint not null,
    primary key (network_id, terminal)
);

-- A change of a store or merchant id writes a new token, in the same transaction, into one of some
-- rows: what all say together tells an edge that nothing has changed, and several writers do not
-- wait for each other. Tokens are never used twice, so that a failover that loses changes is one.
create table directory_changes (
    slot integer primary key,
    token uuid not null
);
