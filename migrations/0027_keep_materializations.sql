-- Retention of materializations: of each partition the newest few keep their bytes. The facts stay, with their lineage; one
-- whose bytes retention lets go is marked like one that is invalid, because it must not be used again either.

-- False: nothing needs its bytes any more, and they go unless something else names them.
alter table invalidation add column keeps_bytes boolean not null default true;

-- As before, but for what is marked.
create or replace view named_blob as
    select tenant_id, output_digest as digest from materialization m
        where not exists (select from invalidation i
            where i.tenant_id = m.tenant_id and i.materialization_id = m.materialization_id and not i.keeps_bytes)
    union all select tenant_id, digest from component
    union all select tenant_id, digest from staged_file where digest is not null
    union all select tenant_id, digest from intended_blob;

-- What runs that go on read or have made: the inputs that they were planned with, and the ends of their jobs; and the ends
-- that joined jobs are about to take as theirs. Besides these, the row of `latest` is needed.
create view needed_materialization as
    select i.tenant_id, i.materialization_id from run r
        join job j on j.tenant_id = r.tenant_id and j.run_id = r.run_id
        join job_input i on i.tenant_id = j.tenant_id and i.job_id = j.job_id
        where r.state = 'running' and i.materialization_id is not null
    union all
    select e.tenant_id, e.materialization_id from run r
        join job j on j.tenant_id = r.tenant_id and j.run_id = r.run_id
        join job_end e on e.tenant_id = j.tenant_id and e.job_id = j.job_id
        where r.state = 'running' and e.materialization_id is not null
    union all
    select e.tenant_id, e.materialization_id from job_joined q
        join job_end e on e.tenant_id = q.tenant_id and e.job_id = q.joined_id
        where e.materialization_id is not null;

-- A result may be used again whose bytes are in the database, and until now those of one that is used could not go. False:
-- they were in the row that went; the note says so to a commit that had found them before.
alter table garbage add column stored boolean not null default true;
