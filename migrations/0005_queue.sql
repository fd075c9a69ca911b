-- The queue, split by lifetime: each row is inserted once, deleted once, never updated (but for counters of blocked
-- jobs and a worker's heartbeat), and the table that is scanned for work holds nothing but work.

-- Worker processes serve all tenants, so this is the one table whose key is not a tenant's.
create table worker (
    worker_id  uuid primary key,
    host       text        not null,
    pid        integer     not null,
    version    text        not null,
    started_at timestamptz not null default now(),
    beat_at    timestamptz not null default now()
) with (fillfactor = 50);

-- Waits for other jobs of its run.
create table job_blocked (
    tenant_id text collate "C" not null,
    job_id    uuid    not null,
    -- Inputs that have not come yet.
    remaining integer not null,
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job,
    constraint job_blocked_remaining_is_not_negative check (remaining >= 0)
) with (fillfactor = 70);

-- Can be claimed now. `charged` and `released` travel with the job: attempts that counted, and returns that did not.
create table job_ready (
    tenant_id text collate "C" not null,
    job_id    uuid        not null,
    ready_at  timestamptz not null default now(),
    charged   smallint    not null default 0,
    released  smallint    not null default 0,
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job
);

create index job_ready_in_order on job_ready (ready_at, job_id);

-- Can be claimed later.
create table job_deferred (
    tenant_id text collate "C" not null,
    job_id    uuid        not null,
    due_at    timestamptz not null,
    cause     text        not null,
    charged   smallint    not null,
    released  smallint    not null,
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job
);

create index job_deferred_in_order on job_deferred (due_at, job_id);

-- Is being worked on. Whoever has the token may finish the job; when the row is gone, nobody may.
create table job_lease (
    tenant_id  text collate "C" not null,
    job_id     uuid        not null,
    token      uuid        not null,
    worker_id  uuid        not null references worker,
    charged    smallint    not null,
    released   smallint    not null,
    claimed_at timestamptz not null default now(),
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job
);

create index job_lease_by_worker on job_lease (worker_id);

-- At most one live job makes one recipe of one partition. Goes with its lease, however that goes.
create table inflight (
    tenant_id     text collate "C" not null,
    asset_id      uuid             not null,
    partition_key text collate "C" not null,
    recipe        bytea            not null,
    job_id        uuid             not null,
    primary key (tenant_id, asset_id, partition_key, recipe),
    foreign key (tenant_id, asset_id) references asset,
    foreign key (tenant_id, job_id) references job_lease on delete cascade
);

create index inflight_by_job on inflight (tenant_id, job_id);

-- A job that has ended, and what waits for it is more than its commit released: it is released afterwards, a batch at
-- a time, in the order of the waiting jobs' ids. The row goes with the last batch.
create table job_release (
    tenant_id        text collate "C" not null,
    job_id           uuid        not null,
    -- Why jobs that cannot do without it are skipped; null when it was made.
    cause            text,
    -- Everybody up to here has been released.
    released_through uuid        not null default '00000000-0000-0000-0000-000000000000',
    -- Whose turn is next: one very wide job must not keep the others waiting.
    released_at      timestamptz not null default clock_timestamp(),
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job_end
);
