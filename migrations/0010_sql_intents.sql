-- What attempts that write to an operator's database will have made, from before that database commits until ours does.
--
-- Two databases have no common commit. The operator's commits first, and keeps which attempt was the last to be applied
-- to each partition; when ours does not follow, because the process dies in between, the next job of the same recipe
-- finds here what that attempt made, and ends with it instead of applying it again. A row whose attempt is not the one
-- that the operator's database names was never applied; the next commit of its partition removes it.

create table sql_intent (
    tenant_id     text collate "C" not null,
    attempt_id    uuid             not null,
    asset_id      uuid             not null,
    partition_key text collate "C" not null,
    recipe        bytea            not null,
    -- The materialization and the attempt, as the commit is going to write them.
    made          jsonb            not null,
    created_at    timestamptz      not null default now(),
    primary key (tenant_id, attempt_id),
    foreign key (tenant_id, asset_id) references asset,
    constraint sql_intent_recipe_is_sha256 check (octet_length(recipe) = 32)
);

-- Not with the tenant first: see 0002.
create index sql_intent_by_partition on sql_intent (asset_id, tenant_id, partition_key);
