-- History: what was asked for, and how it went. Append-only but for a run's counters; partitioned by day on ids that
-- carry their time (UUIDv7), so that old history is dropped, not deleted.
--
-- A job has no state column. Where its row is tells: job_blocked, job_ready, job_deferred, job_lease (0005) or job_end,
-- and it is in exactly one of them. A queue that finishes rows by updating them scans its dead for ever.

create table run (
    tenant_id           text collate "C" not null,
    run_id              uuid        not null,
    pipeline_version_id uuid        not null,
    -- The process that submitted the run and waits for it.
    owner_id            uuid        not null,
    -- What was asked for: assets, partitions, force.
    request             jsonb       not null,
    state               text        not null,
    jobs                integer     not null,
    succeeded           integer     not null default 0,
    reused              integer     not null default 0,
    skipped             integer     not null default 0,
    failed              integer     not null default 0,
    cancelled           integer     not null default 0,
    created_at          timestamptz not null default now(),
    cancel_requested_at timestamptz,
    cancel_cause        text,
    finished_at         timestamptz,
    primary key (tenant_id, run_id),
    foreign key (tenant_id, pipeline_version_id) references pipeline_version,
    constraint run_state_is_known check (state in ('running', 'succeeded', 'failed', 'cancelled')),
    constraint run_finished_iff_final check ((finished_at is null) = (state = 'running')),
    constraint run_ends_when_its_jobs_have check ((state = 'running') or succeeded + skipped + failed + cancelled = jobs),
    constraint run_counts_each_job_once check (succeeded + skipped + failed + cancelled <= jobs and reused <= succeeded)
);

create index run_unfinished on run (tenant_id, run_id) where state = 'running';
create index run_being_cancelled on run (tenant_id, run_id) where state = 'running' and cancel_requested_at is not null;

create table job (
    tenant_id        text collate "C" not null,
    job_id           uuid             not null,
    run_id           uuid             not null,
    asset_version_id uuid             not null,
    partition_key    text collate "C" not null,
    -- Why the planner chose it.
    reason           text             not null,
    -- Whether an earlier result may not be used again.
    forced           boolean          not null,
    -- Its rows in job_input, and those that name it as upstream: so that a job that reads very much, or that very many
    -- wait for, is known as such before its rows are read.
    inputs           integer          not null,
    dependents       integer          not null,
    primary key (tenant_id, job_id),
    foreign key (tenant_id, run_id) references run,
    foreign key (tenant_id, asset_version_id) references asset_version
) partition by range (job_id);

-- Not with the tenant first: see 0002.
create index job_by_run on job (run_id, tenant_id, job_id);

-- What a job reads: the output of another job of its run, a materialization that was there before, or, of an optional
-- input, nothing: what was absent is part of what it was made from.
create table job_input (
    tenant_id          text collate "C" not null,
    job_id             uuid             not null,
    input              text collate "C" not null,
    position           integer          not null,
    optional           boolean          not null,
    upstream_job_id    uuid,
    materialization_id uuid,
    primary key (tenant_id, job_id, input, position),
    foreign key (tenant_id, job_id) references job,
    foreign key (tenant_id, upstream_job_id) references job,
    foreign key (tenant_id, materialization_id) references materialization,
    constraint job_input_has_one_origin
        check (num_nonnulls(upstream_job_id, materialization_id) = 1 or (optional and num_nonnulls(upstream_job_id, materialization_id) = 0))
) partition by range (job_id);

create index job_input_by_upstream on job_input (tenant_id, upstream_job_id, job_id) where upstream_job_id is not null;

-- How a job ended. The only place where a final state is, and it is written once.
create table job_end (
    tenant_id          text collate "C" not null,
    job_id             uuid        not null,
    state              text        not null,
    -- Why, when it did not succeed: the verdict's message, or the job whose failure it is.
    cause              text,
    materialization_id uuid,
    reused             boolean     not null,
    ended_at           timestamptz not null default now(),
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job,
    foreign key (tenant_id, materialization_id) references materialization,
    constraint job_end_state_is_final check (state in ('succeeded', 'skipped', 'failed', 'cancelled')),
    constraint job_end_succeeded_iff_materialized check ((state = 'succeeded') = (materialization_id is not null)),
    constraint job_end_says_why check ((state = 'succeeded') = (cause is null)),
    constraint job_end_reused_only_if_succeeded check (not reused or state = 'succeeded')
) partition by range (job_id);

create table attempt (
    tenant_id         text collate "C" not null,
    attempt_id        uuid        not null,
    job_id            uuid        not null,
    -- 1 for the first charged one; an uncharged attempt repeats its number.
    number            integer     not null,
    token             uuid        not null,
    worker_id         uuid        not null,
    verdict           text        not null,
    message           text,
    -- Whether it counts against the asset's attempts: a guest's fault does, a host's never.
    charged           boolean     not null,
    engine_id         text        not null,
    fuel_used         bigint      not null,
    memory_bytes_peak bigint      not null,
    output_bytes      bigint      not null,
    started_at        timestamptz not null,
    duration_us       bigint      not null,
    log               jsonb,
    log_dropped       bigint      not null,
    -- What was refused, each with the manifest line that would grant it.
    denials           jsonb,
    -- What was done with what was granted: capability, resource, operation, target, result, calls, bytes.
    uses              jsonb,
    primary key (tenant_id, attempt_id),
    foreign key (tenant_id, job_id) references job,
    constraint attempt_verdict_is_known check (verdict in (
        'succeeded', 'skipped', 'suspended', 'failed', 'trapped', 'out-of-fuel', 'out-of-memory', 'timed-out',
        'output-too-large', 'denied', 'cancelled', 'lost', 'conflicted')),
    constraint attempt_number_counts_from_1 check (number >= 1)
) partition by range (attempt_id);

create index attempt_by_job on attempt (tenant_id, job_id, attempt_id);

-- Makes the partitions of some days. Safe to call again, and from several processes at once.
-- Rows of other days go to the default partition: a clock that is wrong must not lose a job.
create function ensure_history_days(first_day date, days integer) returns void language plpgsql as $$
declare
    history text;
    day date;
    lower_id uuid;
    upper_id uuid;
begin
    -- Making a partition locks its table: it must not queue behind a long transaction, and everybody else behind it.
    perform set_config('lock_timeout', '500ms', true);
    perform pg_advisory_xact_lock(hashtext('flowstone.ensure_history_days'));
    foreach history in array array['job', 'job_input', 'job_end', 'attempt'] loop
        for offset_days in 0 .. days - 1 loop
            day := first_day + offset_days;
            if to_regclass(format('%s_%s', history, to_char(day, 'YYYYMMDD'))) is null then
                -- The first id of a millisecond: its 48 bits of time, and zeros.
                lower_id := (lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
                upper_id := (lpad(to_hex((extract(epoch from (day + 1)::timestamp) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
                begin
                    execute format('create table %I partition of %I for values from (%L) to (%L)',
                        history || '_' || to_char(day, 'YYYYMMDD'), history, lower_id, upper_id);
                exception when check_violation then
                    -- The default partition has rows of that day already, and keeps the day.
                    raise warning '% of % stays in the default partition', history, day;
                end;
            end if;
        end loop;
    end loop;
end
$$;

create table job_default partition of job default;
create table job_input_default partition of job_input default;
create table job_end_default partition of job_end default;
create table attempt_default partition of attempt default;
