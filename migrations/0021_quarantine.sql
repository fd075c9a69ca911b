-- A component whose attempts keep ending with their workers is quarantined: code that finds a hole in the sandbox, or in
-- the machine under it, must not go on taking one worker after the other.

-- A worker that died while it had jobs of the component. Goes when an attempt of the component completes.
create table component_death (
    tenant_id        text collate "C" not null,
    component_digest bytea       not null,
    worker_id        uuid        not null,
    -- How many components the worker had jobs of: each bears its part.
    shared_by        bigint      not null,
    died_at          timestamptz not null default now(),
    primary key (tenant_id, component_digest, worker_id),
    constraint component_death_is_somebodys check (shared_by >= 1)
);

create index component_death_by_worker on component_death (worker_id);

create table quarantine (
    tenant_id        text collate "C" not null,
    component_digest bytea       not null,
    deaths           integer     not null,
    quarantined_at   timestamptz not null default now(),
    primary key (tenant_id, component_digest),
    foreign key (tenant_id, component_digest) references component
);
