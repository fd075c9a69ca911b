-- What belongs to operators, not to any pipeline: resources that they registered, and secrets that they gave to the
-- database to keep. A pipeline's manifest can grant them to its assets; it cannot change them.

-- The settings are those of now: taking a right away takes effect with the next attempt, whatever was deployed before.
create table registered_resource (
    tenant_id     text collate "C" not null references tenant,
    name          text collate "C" not null,
    kind          text             not null,
    settings      jsonb            not null,
    registered_at timestamptz      not null default now(),
    primary key (tenant_id, name),
    constraint registered_resource_kind_is_known
        check (kind in ('directory', 'http', 'key-value', 'sql', 'secret', 'clock', 'random'))
);

-- Sealed by the host under a key that the database never sees.
create table sealed_secret (
    tenant_id text collate "C" not null references tenant,
    name      text collate "C" not null,
    -- The nonce, then what is sealed.
    sealed    bytea            not null,
    -- Which key opens it: so that a wrong one is named, not guessed.
    key_id    text             not null,
    set_at    timestamptz      not null default now(),
    primary key (tenant_id, name)
);
