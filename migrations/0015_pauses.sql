-- What an operator wants to wait: a pipeline, or one of its assets. What runs goes on to its end; what becomes ready is
-- parked by the worker that claims it, so that the table of ready jobs need not know of pipelines and assets.

create table pause (
    tenant_id   text collate "C" not null,
    pipeline_id uuid             not null,
    -- Zeros for the whole pipeline.
    asset_id    uuid             not null,
    paused_at   timestamptz      not null default now(),
    primary key (tenant_id, pipeline_id, asset_id),
    foreign key (tenant_id, pipeline_id) references pipeline
);

-- Waits for the end of a pause. Parking holds a share of the pause's row, ending it takes the row: nothing can be parked
-- that nobody takes out again.
create table job_paused (
    tenant_id   text collate "C" not null,
    job_id      uuid             not null,
    pipeline_id uuid             not null,
    asset_id    uuid             not null,
    charged     smallint         not null,
    released    smallint         not null,
    primary key (tenant_id, job_id),
    foreign key (tenant_id, job_id) references job
);

-- Not with the tenant first: see 0002.
create index job_paused_by_asset on job_paused (pipeline_id, tenant_id, asset_id);
