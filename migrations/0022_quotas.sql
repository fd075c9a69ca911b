-- Quotas: how much fuel and how many bytes of output the attempts of a tenant may use in an hour, a day or a month. Who is
-- over it waits for the next period.

create table quota (
    tenant_id    text collate "C" not null references tenant,
    measure      text collate "C" not null,
    amount       bigint           not null,
    period       text             not null,
    -- What attempts that were committed in the period from here on have used. Of an earlier period it counts for nothing.
    period_start timestamptz      not null,
    used         bigint           not null default 0,
    primary key (tenant_id, measure),
    constraint quota_measure_is_known check (measure in ('fuel', 'bytes')),
    constraint quota_period_is_known check (period in ('hour', 'day', 'month')),
    constraint quota_allows_something check (amount >= 1),
    constraint quota_used_is_not_negative check (used >= 0)
);

-- A limited job waits for a permit of a pool, or for the next period of a quota.
alter table job_limited alter pool_id drop not null;
alter table job_limited add quota text collate "C";
alter table job_limited add due_at timestamptz;
alter table job_limited add constraint job_limited_waits_for_one_thing
    check (num_nonnulls(pool_id, quota) = 1 and (quota is null) = (due_at is null));

create index job_limited_until on job_limited (due_at) where due_at is not null;
