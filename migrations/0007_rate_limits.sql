-- How often a resource may be asked: a promise to whoever is behind it, so it must hold for all workers together, and
-- the only place that all of them share is this database.

-- One row for each resource that has a rate: when the next permit of an endless series is due (the "theoretical arrival
-- time" of the generic cell rate algorithm, ITU-T I.371). A row exists once a permit was taken.
create table rate_limit (
    tenant_id text collate "C" not null references tenant,
    -- The pipeline whose resource it is; zeros for one that an operator registered, which all pipelines share.
    owner_id  uuid             not null,
    resource  text collate "C" not null,
    due_at    timestamptz      not null,
    primary key (tenant_id, owner_id, resource)
);
