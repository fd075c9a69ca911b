-- Schedules: when a pipeline's assets run by themselves, and what became of each fire.
--
-- A deploy declares schedules; whether one is enabled is an operator's, and stays through deploys. Of what is due, one
-- process decides which fires run and which were missed: it moves next_fire_at on and writes the fires' rows in one
-- transaction, which the old next_fire_at guards. The run of a fire is written in the transaction in which the fire stops
-- being due. A process that dies at any moment loses no fire, and no two make two runs of one.

create table schedule (
    tenant_id    text collate "C" not null,
    schedule_id  uuid             not null,
    pipeline_id  uuid             not null,
    name         text collate "C" not null,
    -- The schedule as the newest version declares it, every default filled in.
    settings     jsonb            not null,
    enabled      boolean          not null default true,
    -- Fires before it are decided. Null while none is to come.
    next_fire_at timestamptz,
    -- Since when no version declares it: its fires stay, and so does whether it is enabled should it come back.
    removed_at   timestamptz,
    primary key (tenant_id, schedule_id),
    foreign key (tenant_id, pipeline_id) references pipeline,
    -- Not with the tenant first: see 0002.
    constraint schedule_name_is_unique unique (pipeline_id, tenant_id, name),
    constraint schedule_fires_while_it_stands check (next_fire_at is null or (enabled and removed_at is null))
);

create index schedule_in_order on schedule (next_fire_at) where next_fire_at is not null;

create table schedule_fire (
    tenant_id   text collate "C" not null,
    schedule_id uuid        not null,
    fire_at     timestamptz not null,
    -- What made it fire: the clock, or somebody's hand.
    cause       text        not null,
    state       text        not null,
    run_id      uuid,
    -- Why no run could be submitted.
    error       text,
    -- A row may stand for many missed fires: from this one to its own.
    missed_from timestamptz,
    -- Whoever plans its run. It goes with the worker's session, and then others may.
    taken_by    uuid        references worker on delete set null,
    -- How often it was taken: what cannot be submitted must not stand before what can.
    tries       integer     not null default 0,
    decided_at  timestamptz not null default now(),
    primary key (tenant_id, schedule_id, fire_at, cause),
    foreign key (tenant_id, schedule_id) references schedule,
    -- History goes with history.
    foreign key (tenant_id, run_id) references run on delete cascade,
    constraint schedule_fire_cause_is_known check (cause in ('clock', 'hand')),
    constraint schedule_fire_state_is_known check (state in ('due', 'submitted', 'failed', 'missed')),
    constraint schedule_fire_has_its_run check ((run_id is not null) = (state = 'submitted')),
    constraint schedule_fire_says_why check ((error is not null) = (state = 'failed')),
    constraint schedule_fire_counts_missed_ones
        check ((missed_from is not null) = (state = 'missed') and (missed_from is null or missed_from <= fire_at)),
    constraint schedule_fire_is_taken_while_due check (taken_by is null or state = 'due')
);

-- What waits for its run, in order: few rows, and none for long.
create index schedule_fire_due on schedule_fire (tenant_id, schedule_id, fire_at) where state = 'due';
create index schedule_fire_taken on schedule_fire (taken_by) where taken_by is not null;
create index schedule_fire_by_run on schedule_fire (run_id, tenant_id) where run_id is not null;
