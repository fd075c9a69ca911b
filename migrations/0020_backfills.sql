-- Backfills: partitions that somebody wants made, released as runs in windows.
--
-- A backfill is one row whatever its size: a set of partitions as ranges, and how many of them have been released. What
-- is in flight has a row for each window, as many as fit its concurrency; a window that has ended is counted into the
-- backfill's row, and only what failed of it stays, as ranges. A window is released by the transaction that moves the
-- place on from where its plan began, and counted by the one that takes its row away: each happens once, whoever does it.

create table backfill (
    tenant_id   text collate "C" not null,
    backfill_id uuid             not null,
    pipeline_id uuid             not null,
    -- What it makes, every default filled in.
    settings    jsonb            not null,
    -- Of its assets when it was started: what the numbers of partitions count in.
    dimensions  jsonb            not null,
    -- How many partitions may be in flight.
    concurrency integer          not null,
    -- Releases nothing more once so many have failed; goes on whatever fails where it is null.
    halt_after  integer,
    -- The same from now on: whoever lets a halted one go on allows as many again.
    failed_max  integer,
    -- How many it is about in all.
    partitions  integer          not null,
    -- What is released in this round: all of them, or what was tried again.
    round       integer          not null default 1,
    selected    int4multirange   not null,
    selected_partitions integer  not null,
    -- How many of the selected have been released, in its order.
    cursor      integer          not null default 0,
    -- What became of partitions that are not in flight any more.
    up_to_date  integer          not null default 0,
    made        integer          not null default 0,
    skipped     integer          not null default 0,
    failed      integer          not null default 0,
    state       text             not null default 'running',
    -- Why it is halted.
    cause       text,
    created_at  timestamptz      not null default now(),
    finished_at timestamptz,
    primary key (tenant_id, backfill_id),
    foreign key (tenant_id, pipeline_id) references pipeline,
    constraint backfill_state_is_known
        check (state in ('running', 'paused', 'halted', 'succeeded', 'failed', 'cancelled')),
    constraint backfill_finished_iff_final check ((finished_at is null) = (state in ('running', 'paused', 'halted'))),
    constraint backfill_says_why_it_is_halted check ((cause is not null) = (state = 'halted')),
    constraint backfill_place_is_in_it check (cursor between 0 and selected_partitions),
    constraint backfill_counts_no_more_than_it_has
        check (up_to_date >= 0 and made >= 0 and skipped >= 0 and failed >= 0
            and up_to_date + made + skipped + failed + selected_partitions - cursor <= partitions),
    constraint backfill_succeeded_iff_nothing_failed
        check (state not in ('succeeded', 'failed') or (cursor = selected_partitions and (state = 'failed') = (failed > 0))),
    constraint backfill_bounds_are_positive check (partitions > 0 and concurrency > 0 and halt_after > 0)
);

create index backfill_running on backfill (tenant_id, backfill_id) where state = 'running';

-- A window in flight: what its run is to make. Empty where only inputs are made, for partitions that are too early.
create table backfill_window (
    tenant_id   text collate "C" not null,
    backfill_id uuid             not null,
    run_id      uuid             not null,
    selected    int4multirange   not null,
    partitions  integer          not null,
    primary key (tenant_id, backfill_id, run_id),
    foreign key (tenant_id, backfill_id) references backfill
);

-- What failed, as ranges with both ends included. The run is no foreign key: history may go before somebody tries again.
create table backfill_failure (
    tenant_id       text collate "C" not null,
    backfill_id     uuid             not null,
    first_partition integer          not null,
    last_partition  integer          not null,
    run_id          uuid             not null,
    -- Why the first of them did.
    cause           text             not null,
    primary key (tenant_id, backfill_id, first_partition),
    foreign key (tenant_id, backfill_id) references backfill,
    constraint backfill_failure_is_a_range check (first_partition between 0 and last_partition)
);

-- Whose window a run is.
alter table run add backfill_id uuid;
alter table run add constraint run_of_backfill foreign key (tenant_id, backfill_id) references backfill;
create index run_by_backfill on run (backfill_id, tenant_id, run_id) where backfill_id is not null;
