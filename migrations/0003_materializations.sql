-- Facts: what was made, from what. They outlive the history of how it was made (0004), so they name runs, jobs and
-- attempts by id without a foreign key; history points at facts, never the other way.

create table materialization (
    tenant_id          text collate "C" not null,
    materialization_id uuid             not null,
    -- "Latest" is an order by this: clocks of several workers disagree, a sequence does not.
    sequence           bigint           generated always as identity,
    asset_id           uuid             not null,
    asset_version_id   uuid             not null,
    -- Canonical and typed; `none` for an unpartitioned asset.
    partition_key      text collate "C" not null,
    run_id             uuid             not null,
    job_id             uuid             not null,
    attempt_id         uuid             not null,
    output_digest      bytea            not null,
    size_bytes         bigint           not null,
    media_type         text             not null,
    metadata           jsonb            not null,
    -- Of all that a consumer can see: the bytes, the media type, the metadata. What its recipe holds of this input.
    version_digest     bytea            not null,
    recipe             bytea            not null,
    -- The directories that the grants reach, as they were; and each input, in the order of the definition.
    sources_digest     bytea            not null,
    -- Digests of 32 bytes, one after the other.
    input_digests      bytea            not null,
    engine_id          text             not null,
    -- Set when nothing ran: the result that was made from the same recipe and is used again. Never one reused itself.
    reused_from        uuid,
    created_at         timestamptz      not null default now(),
    primary key (tenant_id, materialization_id),
    foreign key (tenant_id, asset_id) references asset,
    foreign key (tenant_id, asset_version_id) references asset_version,
    foreign key (tenant_id, output_digest) references blob,
    foreign key (tenant_id, reused_from) references materialization,
    constraint materialization_once_per_job unique (job_id, tenant_id),
    constraint materialization_recipe_is_sha256 check (octet_length(recipe) = 32),
    constraint materialization_partition_key_is_typed check (partition_key = 'none' or partition_key ~ '^[a-z][a-z0-9_]*=[a-z]+:')
);

-- Not with the tenant first: see 0002.
create index materialization_by_partition on materialization (asset_id, tenant_id, partition_key, sequence desc);
create index materialization_by_recipe on materialization (asset_id, tenant_id, recipe, sequence desc);

-- The newest valid materialization of each partition, with what a plan compares of it. A copy of facts that the commit
-- and the invalidation keep true, so that a plan reads one row for each partition however long its history is. A page has
-- room for another version of each of its rows: what is made again leaves no dead entry in the index.
create table latest (
    tenant_id          text collate "C" not null,
    asset_id           uuid             not null,
    partition_key      text collate "C" not null,
    materialization_id uuid             not null,
    sequence           bigint           not null,
    asset_version_id   uuid             not null,
    version_digest     bytea            not null,
    sources_digest     bytea            not null,
    input_digests      bytea            not null,
    -- The output's digest when the blob store has its bytes, so that a plan can look whether they are still there.
    stored_digest      bytea,
    -- When it was really made: of a result that is used again, when its origin was.
    made_at            timestamptz      not null,
    primary key (tenant_id, asset_id, partition_key),
    foreign key (tenant_id, materialization_id) references materialization,
    constraint latest_input_digests_are_whole check (octet_length(input_digests) % 32 = 0)
) with (fillfactor = 50);

-- A materialization that must not be used again. The record of it stays.
create table invalidation (
    tenant_id          text collate "C" not null,
    materialization_id uuid        not null,
    actor              text        not null,
    created_at         timestamptz not null default now(),
    primary key (tenant_id, materialization_id),
    foreign key (tenant_id, materialization_id) references materialization
);

-- From a materialization to each one that was handed to the guest, opened or not: it could not have read another.
create table lineage_edge (
    tenant_id                   text collate "C" not null,
    materialization_id          uuid             not null,
    input                       text collate "C" not null,
    position                    integer          not null,
    upstream_materialization_id uuid             not null,
    bytes_read                  bigint           not null,
    primary key (tenant_id, materialization_id, input, position),
    foreign key (tenant_id, materialization_id) references materialization,
    foreign key (tenant_id, upstream_materialization_id) references materialization,
    constraint lineage_edge_is_not_a_loop check (materialization_id <> upstream_materialization_id),
    constraint lineage_edge_bytes_are_counted check (bytes_read >= 0)
);

create index lineage_edge_by_upstream on lineage_edge (upstream_materialization_id, tenant_id);

-- What came from outside: a granted directory as it was when the attempt read it, or what was read of something else.
create table external_read (
    tenant_id          text collate "C" not null,
    materialization_id uuid             not null,
    resource           text collate "C" not null,
    kind               text collate "C" not null,
    digest             bytea            not null,
    -- Files of a directory; answers, keys or rows of other kinds.
    items              bigint           not null,
    size_bytes         bigint           not null,
    primary key (tenant_id, materialization_id, resource),
    foreign key (tenant_id, materialization_id) references materialization
);

-- Writes and removals that a commit decided on and the directory has yet to show. The row goes when it does.
create table staged_file (
    tenant_id          text collate "C" not null,
    materialization_id uuid             not null,
    resource           text collate "C" not null,
    path               text collate "C" not null,
    -- The new contents; null removes the file.
    digest             bytea,
    primary key (tenant_id, materialization_id, resource, path),
    foreign key (tenant_id, materialization_id) references materialization,
    foreign key (tenant_id, digest) references blob
);
