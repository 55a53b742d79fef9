-- Autovacuum passes over small partitions less often.
--
-- A pass over one partition has every connection plan every statement of that table anew. A new ledger
-- grows by a tenth within seconds, so that autovacuum came to all of its partitions at once, each
-- minute: payments waited for planning for two seconds (docs/decisions/0024-rarer-autovacuum.md). A table of less than this
-- loses nothing without a pass: every statement of the path finds its rows by a key. Larger ones are
-- governed by the factors as before.
do $$
declare
    part regclass;
begin
    for part in
        select i.inhrelid::regclass
        from pg_inherits i join pg_class parent on parent.oid = i.inhparent
        where parent.relkind = 'p' and parent.relnamespace = current_schema()::regnamespace
        order by 1
    loop
        execute format(
            'alter table %s set (autovacuum_vacuum_threshold = 50000, '
            'autovacuum_vacuum_insert_threshold = 50000, autovacuum_analyze_threshold = 50000)',
            part
        );
    end loop;
end
$$;
