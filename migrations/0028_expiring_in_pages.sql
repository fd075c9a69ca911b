-- What expires when each partition keeps so many materializations, of some partitions after a place: what a dry run counts
-- and a collection marks cannot come apart. What is marked already is looked up one by one, because it grows for ever; what
-- is needed is sorted or hashed by `except`, where a join might compare each with all, and read only if anything is old.
create function expiring_materialization(
    kept bigint, after_tenant text, after_asset uuid, after_partition text, partitions bigint)
returns table (tenant_id text, materialization_id uuid) language sql stable as $$
    with page as materialized (
        select l.tenant_id, l.asset_id, l.partition_key, l.materialization_id from latest l
        where (l.tenant_id, l.asset_id, l.partition_key) > (after_tenant, after_asset, after_partition)
        order by l.tenant_id, l.asset_id, l.partition_key limit partitions),
    old as materialized (
        select m.tenant_id, m.materialization_id from page p
        cross join lateral (
            select m.tenant_id, m.materialization_id from materialization m
            where m.asset_id = p.asset_id and m.partition_key = p.partition_key
            order by m.sequence desc offset kept) m
        left join lateral (
            select true as is_marked from invalidation i
            where i.tenant_id = m.tenant_id and i.materialization_id = m.materialization_id and not i.keeps_bytes
            offset 0) i on true
        where m.tenant_id = p.tenant_id and m.materialization_id <> p.materialization_id and i.is_marked is null)
    select o.tenant_id, o.materialization_id from old o
    except
    select n.tenant_id, n.materialization_id from needed_materialization n where exists (select from old)
$$;
