-- More of what every job pays for, and needs less of. Measured on 2 cores: these three checks were a third of the server's
-- time for a job with one input, because each is a query of its own for each row.

-- A materialization is never deleted, and what a job read was looked up by whoever writes its edges.
alter table lineage_edge drop constraint lineage_edge_tenant_id_upstream_materialization_id_fkey;

-- The rescue takes the leases of workers that are not there, too: of one that was taken for dead while its claim was on
-- the way.
alter table job_lease drop constraint job_lease_worker_id_fkey;

-- A worker from before 0017 has its keys here, and counts on their going with the lease. It is looked once for each
-- statement that ends leases, not for each lease; and what a key that came too late left behind goes with the next one.
alter table inflight drop constraint inflight_tenant_id_job_id_fkey;

create function free_inflight() returns trigger language plpgsql as $$
begin
    if exists (select from inflight) then
        delete from inflight i
        where not exists (select from job_lease l where l.tenant_id = i.tenant_id and l.job_id = i.job_id);
    end if;
    return null;
end
$$;

create trigger job_lease_frees_inflight after delete on job_lease
    for each statement execute function free_inflight();

-- A regular expression for each row, where the shape says as much.
alter table materialization drop constraint materialization_partition_key_is_typed;
alter table materialization add constraint materialization_partition_key_is_typed
    check (partition_key = 'none' or partition_key like '_%=_%:%') not valid;

-- One line tells of hundreds of jobs. The newer way to compress it takes a third of the time, where the server has it.
do $$
begin
    alter table audit alter column details set compression lz4;
    alter table outbox alter column payload set compression lz4;
exception when feature_not_supported then
    null;
end
$$;
