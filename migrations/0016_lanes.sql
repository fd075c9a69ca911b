-- Whose turn it is: ready jobs stand in lanes, one for each (tenant, pipeline, queue, priority, tags), and whoever claims
-- goes round the lanes. Of one table in one order, a tenant with a million jobs would keep everybody behind them waiting.

create table lane (
    lane_id     integer generated always as identity primary key,
    tenant_id   text collate "C" not null,
    pipeline_id uuid             not null,
    -- Which workers serve it, and what an operator pauses.
    queue       text collate "C" not null,
    -- Greater goes first, among the lanes of its tenant.
    priority    smallint         not null,
    -- What a worker must have, sorted.
    tags        text[] collate "C" not null,
    constraint lane_is_one unique (tenant_id, pipeline_id, queue, priority, tags)
);

-- Of jobs that were submitted before there were lanes, and of those that a worker of that version puts back: it belongs
-- to nobody, which is why a lane's tenant and pipeline are no foreign keys.
insert into lane (lane_id, tenant_id, pipeline_id, queue, priority, tags) overriding system value
values (0, '', '00000000-0000-0000-0000-000000000000', 'default', 0, '{}');

-- The lane travels with the job. A worker of the last version does not know of it, and puts what it had in lane 0.
alter table job_blocked  add lane_id integer not null default 0;
alter table job_ready    add lane_id integer not null default 0;
alter table job_deferred add lane_id integer not null default 0;
alter table job_lease    add lane_id integer not null default 0;
alter table job_paused   add lane_id integer not null default 0;

create index job_ready_by_lane on job_ready (lane_id, ready_at, job_id);
drop index job_ready_in_order;

-- Nobody claims from a queue of a tenant that is paused; its jobs stay where they are.
create table queue_pause (
    tenant_id text collate "C" not null references tenant,
    queue     text collate "C" not null,
    paused_at timestamptz      not null default now(),
    primary key (tenant_id, queue)
);
