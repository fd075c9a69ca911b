-- Retention: what is old goes. History goes by the day, audit by a rule of its own, and bytes when nothing names them.
--
-- Whatever a collection removes, it has written down before that it will: from then on nobody reads or repairs it, and a
-- collection that dies half-way is finished by the next one.

-- An id carries its time (UUIDv7): the first one of an instant, and the instant of one.
create function first_id_of(instant timestamptz) returns uuid immutable strict parallel safe language sql as $$
    select (lpad(to_hex(floor(extract(epoch from instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
create function instant_of_id(id uuid) returns timestamptz immutable strict parallel safe language sql as $$
    select to_timestamp(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
$$;

-- One row. Whoever collects holds it by a lease, so that two never do at once; a lease that is not renewed runs out.
create table retention (
    is_only      boolean     primary key default true,
    -- Runs and jobs with smaller ids, and all that belongs to them, are gone or going.
    history_from uuid        not null default '00000000-0000-0000-0000-000000000000',
    -- Audit from before it is gone or going.
    audit_from   timestamptz not null default '-infinity',
    held_by      uuid,
    held_until   timestamptz not null default '-infinity',
    constraint retention_is_one_row check (is_only)
);

insert into retention default values;

-- Blobs that were found to be named by nothing. The row is written, and the blob's own goes, in one transaction, before
-- the bytes are touched; when they are gone the row says so, and stays until no attempt is left that began before.
-- A commit looks here for what it stored in the blob store, after it has locked or written the blob's row: what was
-- condemned, and not yet deleted when the attempt was claimed, may be gone, and the attempt is made again.
create table garbage (
    tenant_id    text collate "C" not null,
    digest       bytea       not null,
    size_bytes   bigint      not null,
    condemned_at timestamptz not null default now(),
    deleted_at   timestamptz,
    primary key (tenant_id, digest),
    constraint garbage_digest_is_sha256 check (octet_length(digest) = 32)
);

-- What keeps a blob: each kind of row that names one, and what an attempt is about to commit (0010).
create view intended_blob as
    select tenant_id, decode(made->'materialization'->>'digest', 'hex') as digest from sql_intent
    union all
    select tenant_id, decode(jsonb_path_query(made, '$.materialization.staged_files[*].content[0]') #>> '{}', 'hex')
    from sql_intent;
create view named_blob as
    select tenant_id, output_digest as digest from materialization
    union all select tenant_id, digest from component
    union all select tenant_id, digest from staged_file where digest is not null
    union all select tenant_id, digest from intended_blob;

-- Removing a row that others refer to looks for them, in each of the tables that might; for these there is no index, and
-- must be none on what each commit writes. Both ends of each are written in one transaction, or from a row that is locked.
-- Dropping a day of jobs would read all inputs there are, while everybody waits:
alter table job_input   drop constraint job_input_tenant_id_job_id_fkey;
alter table job_input   drop constraint job_input_tenant_id_upstream_job_id_fkey;
alter table job_release drop constraint job_release_tenant_id_job_id_fkey;
-- Removing a blob would read all materializations. The commit locks the blobs that it names, as the constraint did.
alter table materialization drop constraint materialization_tenant_id_output_digest_fkey;

-- Drops one day of one table of history, unless a run of that time goes on: false then. It gives up when it does not have
-- the locks at once: whoever works queues up behind it. First the whole table's, in the order in which all others take them.
create function drop_history_day(history text, day date) returns boolean language plpgsql as $$
declare
    part text := history || '_' || to_char(day, 'YYYYMMDD');
begin
    if history not in ('job', 'job_input', 'job_end', 'attempt') then
        raise exception '% is no history', history;
    end if;
    perform set_config('lock_timeout', '100ms', true);
    execute format('lock table only %I in access exclusive mode', history);
    execute format('lock table %I in access exclusive mode', part);
    -- From here on nobody writes there, and whoever has is seen. A clock that is wrong makes old ids.
    if exists (select from run where state = 'running'
            and run_id < first_id_of((day + 1)::timestamp at time zone 'utc' + interval '1 hour')) then
        return false;
    end if;
    execute format('drop table %I', part);
    return true;
end
$$;

-- Audit stays append-only, except that what is older than retention has written down goes, a batch at a time.
create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    -- Only the trigger of a row has an old one.
    if tg_op = 'DELETE' then
        if old.created_at < (select audit_from from retention) then
            return old;
        end if;
    end if;
    raise exception 'audit is append-only' using errcode = 'insufficient_privilege';
end
$$;
