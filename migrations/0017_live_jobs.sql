-- At most one live job makes one recipe of one partition; what another run wants of it joins that job, and a submission
-- that is repeated under its key is the first one.
--
-- The key of a recipe was held by a lease (0005, inflight), so that a job that waited for its next attempt held none, and
-- whoever wanted the same looked again from time to time. It is held by the job now, from the claim that works the recipe
-- out until the job's end, whatever becomes of leases in between. A worker of the version before goes on with inflight:
-- the two kinds do not see each other's keys, and at worst make the same twice, as two runs one after the other would.

-- Goes in the transaction of the job's end, or when the job's recipe has become another one.
create table live_job (
    tenant_id     text collate "C" not null,
    asset_id      uuid             not null,
    partition_key text collate "C" not null,
    recipe        bytea            not null,
    job_id        uuid             not null,
    primary key (tenant_id, asset_id, partition_key, recipe),
    constraint live_job_recipe_is_sha256 check (octet_length(recipe) = 32)
);

-- Not with the tenant first: see 0002. For the same reason whoever looks a job up here compares the tenant with
-- `is not distinct from`, which no index serves: the primary key with the tenant alone would do, while the table is empty.
create index live_job_by_job on live_job (job_id, tenant_id);

-- Waits for the live job of its recipe, and takes what that one comes to. It holds no lease and no key of its own, so
-- that nobody can come to wait for himself. `charged` and `released` travel with it, in case that it has to run after all.
create table job_joined (
    tenant_id text collate "C" not null,
    job_id    uuid     not null,
    -- The live job.
    joined_id uuid     not null,
    -- What is wanted of it.
    recipe    bytea    not null,
    charged   smallint not null,
    released  smallint not null,
    lane_id   integer  not null,
    primary key (tenant_id, job_id),
    constraint job_joined_is_another check (job_id <> joined_id)
);

-- As live_job_by_job.
create index job_joined_by_live_job on job_joined (joined_id, job_id, tenant_id);

-- Which run a submission made, by the key that its client gave it: the same key again is that run. It lives as long as
-- the run's row, and goes with it.
create table submission (
    tenant_id       text collate "C" not null references tenant,
    idempotency_key text collate "C" not null,
    -- Of what was asked for: another request under the same key is a mistake.
    request_digest  bytea            not null,
    run_id          uuid             not null,
    submitted_at    timestamptz      not null default now(),
    primary key (tenant_id, idempotency_key),
    -- Written before the run's row: of two submissions at once the second waits here, before it writes thousands of jobs.
    foreign key (tenant_id, run_id) references run on delete cascade deferrable initially deferred,
    constraint submission_key_is_bounded check (octet_length(idempotency_key) between 1 and 255),
    constraint submission_request_is_sha256 check (octet_length(request_digest) = 32)
);

create index submission_by_run on submission (run_id, tenant_id);
create index submission_by_time on submission (submitted_at);
