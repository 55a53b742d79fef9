-- Which Redis is the home of the trip cache; one row. The epoch is raised before another one is
-- promoted, so that nobody writes to a home of the past any more, or believes its replicas.
create table cache_home (
    only_row integer primary key check (only_row = 1),
    epoch bigint not null,
    address text not null
);
insert into cache_home (only_row, epoch, address) values (1, 0, '');
