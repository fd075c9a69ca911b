-- Pools: how many jobs may run at once, whatever worker runs them. A permit is no row of its own but a mark on the lease,
-- so that it goes when the lease does, by a commit, a rescue or a cancel, and cannot be left behind by any of them, nor
-- by a worker of the version before.

create table pool (
    -- Small, unlike other ids: it stands in leases, and permits are taken in its order.
    pool_id     integer generated always as identity primary key,
    tenant_id   text collate "C" not null references tenant,
    name        text collate "C" not null,
    -- Permits.
    size        integer          not null,
    -- Whose newest manifest says the size; null where an operator does.
    pipeline_id uuid,
    -- Not with the tenant first: see 0002.
    constraint pool_name_is_unique unique (name, tenant_id),
    constraint pool_has_a_permit check (size >= 1),
    foreign key (tenant_id, pipeline_id) references pipeline
);

-- By name, because a pool may be made and removed while a version stays what it is. Of versions from before: what is
-- granted to them.
alter table asset_version add pools text[] collate "C" not null default '{}';
update asset_version v
set pools = array(select distinct 'resource:' || (g->>'resource') from jsonb_array_elements(v.settings->'grants') as g order by 1)
where jsonb_typeof(v.settings->'grants') = 'array' and v.settings->'grants' <> '[]';

-- The pools of which it holds a permit. Null where it needs none, which costs nothing.
alter table job_lease add permits integer[];

-- Permits are counted; of leases without any nothing is in it.
create index job_lease_with_permits on job_lease (job_id) where permits is not null;

-- Was claimed while a pool of it was full, and waits for a permit, without a lease or a slot.
create table job_limited (
    tenant_id  text collate "C" not null,
    job_id     uuid        not null,
    pool_id    integer     not null references pool,
    -- That of its lane: whose turn it is.
    priority   smallint    not null,
    limited_at timestamptz not null default now(),
    charged    smallint    not null,
    released   smallint    not null,
    lane_id    integer     not null,
    primary key (tenant_id, job_id)
);

-- The oldest job of the highest priority first: ids are in the order of their submission.
create index job_limited_in_turn on job_limited (pool_id, priority desc, job_id);
