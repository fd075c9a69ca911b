-- What attempts that still run have said so far: for whoever follows them, and for the record when their worker dies.
-- A row goes with the lease that it was said under, and what it said goes into the attempt.

create table running_log (
    tenant_id  text collate "C" not null,
    run_id     uuid        not null,
    job_id     uuid        not null,
    -- The claim's: another attempt at the job says things of its own.
    token      uuid        not null,
    -- How many lines the attempt had said before these.
    first_line integer     not null,
    -- As in attempt.log.
    lines      jsonb       not null,
    primary key (tenant_id, run_id, job_id, token, first_line),
    constraint running_log_counts_from_0 check (first_line >= 0),
    -- A rescue joins them as texts.
    constraint running_log_is_lines check (jsonb_typeof(lines) = 'array' and lines <> '[]')
);
