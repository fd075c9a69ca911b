-- What was deployed. A deploy writes rows and never changes any, so that whatever a job names by id can be cached,
-- and is the same on every worker.
--
-- Here and in what follows: where foreign keys refer to a table, only its primary key begins with the tenant. While the
-- table is small, any index that begins with it seems as good for finding a row by its key; the check of a foreign key
-- keeps the plan that it made then, and would soon read all of the tenant's rows for each row that it checks.

create table component (
    tenant_id  text collate "C" not null,
    digest     bytea       not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, digest),
    foreign key (tenant_id, digest) references blob
);

create table pipeline (
    tenant_id   text collate "C" not null references tenant,
    pipeline_id uuid             not null,
    name        text collate "C" not null,
    created_at  timestamptz      not null default now(),
    primary key (tenant_id, pipeline_id),
    constraint pipeline_name_is_unique unique (name, tenant_id)
);

create table pipeline_version (
    tenant_id           text collate "C" not null,
    pipeline_version_id uuid        not null,
    pipeline_id         uuid        not null,
    number              integer     not null,
    -- Of all that the version binds: deploying the same again is not a new version.
    digest              bytea       not null,
    manifest            text        not null,
    created_at          timestamptz not null default now(),
    primary key (tenant_id, pipeline_version_id),
    foreign key (tenant_id, pipeline_id) references pipeline,
    constraint pipeline_version_number_is_unique unique (pipeline_id, tenant_id, number),
    constraint pipeline_version_number_counts_from_1 check (number >= 1)
);

create table resource (
    tenant_id           text collate "C" not null,
    pipeline_version_id uuid             not null,
    name                text collate "C" not null,
    kind                text             not null,
    settings            jsonb            not null,
    primary key (tenant_id, pipeline_version_id, name),
    foreign key (tenant_id, pipeline_version_id) references pipeline_version,
    constraint resource_kind_is_known check (kind in ('directory', 'http', 'key-value', 'sql', 'secret', 'clock', 'random'))
);

-- The asset whatever its version: materializations belong to it, so that a new deploy keeps the history.
create table asset (
    tenant_id   text collate "C" not null,
    asset_id    uuid             not null,
    pipeline_id uuid             not null,
    name        text collate "C" not null,
    primary key (tenant_id, asset_id),
    foreign key (tenant_id, pipeline_id) references pipeline,
    constraint asset_name_is_unique unique (pipeline_id, tenant_id, name)
);

create table asset_version (
    tenant_id           text collate "C" not null,
    asset_version_id    uuid    not null,
    pipeline_version_id uuid    not null,
    asset_id            uuid    not null,
    -- The place in topological order.
    ordinal             integer not null,
    component_digest    bytea   not null,
    -- With the component's, what a recipe holds of the version: so that a plan can say what changed.
    config_digest       bytea   not null,
    grants_digest       bytea   not null,
    -- The asset as the component describes it and the manifest binds it, every default filled in.
    settings            jsonb   not null,
    primary key (tenant_id, asset_version_id),
    foreign key (tenant_id, pipeline_version_id) references pipeline_version,
    foreign key (tenant_id, asset_id) references asset,
    foreign key (tenant_id, component_digest) references component,
    constraint asset_version_is_bound_once unique (pipeline_version_id, tenant_id, asset_id)
);
