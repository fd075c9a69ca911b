//! What must hold of a database and its blobs at every moment, whatever broke: read as a whole, and told as a list of
//! what does not hold.
//!
//! It knows nothing of how rows come to be. Each rule is one question to the database that answers with a line for
//! each violation, all of one snapshot; the bytes are read after it, because they are there before their rows.

use std::{fs, path::Path};

use flowstone::blob::Digest;
use flowstone_tests::{Database, Flowstone, deadline::wait_until_database_says, pipeline::Scenario};
use sqlx::{PgConnection, PgPool, Row as _};

/// Asserts that everything holds.
#[track_caller]
pub fn assert_sound(violations: &[String]) {
    assert!(violations.is_empty(), "the database is not sound:\n{}", violations.join("\n"));
}

/// Everything that does not hold.
pub async fn violations(pool: &PgPool, blobs: &Path) -> Vec<String> {
    let mut snapshot = pool.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *snapshot).await.unwrap();
    let found = violations_in(&mut snapshot, blobs).await;
    // Dropped, it would end when its task next runs: too late for a test that goes on to wait for a process.
    snapshot.rollback().await.unwrap();
    found
}

/// What retention has let go, or is removing, is no history any more: the rules see what is kept. A run from before the
/// horizon may have jobs from after it, and they go with it.
const KEPT_HISTORY: &str = "
    create temp view run as select r.* from public.run r where r.run_id >= (select history_from from retention);
    create temp view job as select j.* from public.job j
        where least(j.job_id, j.run_id) >= (select history_from from retention);
    create temp view gone_job as select j.tenant_id, j.job_id from public.job j
        where j.run_id < (select history_from from retention);
    create temp view job_input as select i.* from public.job_input i
        where i.job_id >= (select history_from from retention)
          and not exists (select from gone_job g where g.tenant_id = i.tenant_id and g.job_id = i.job_id);
    create temp view job_end as select e.* from public.job_end e
        where e.job_id >= (select history_from from retention)
          and not exists (select from gone_job g where g.tenant_id = e.tenant_id and g.job_id = e.job_id);
    create temp view attempt as select t.* from public.attempt t
        where t.job_id >= (select history_from from retention)
          and not exists (select from gone_job g where g.tenant_id = t.tenant_id and g.job_id = t.job_id);
    create temp view schedule_fire as select f.* from public.schedule_fire f
        where f.run_id is null or f.run_id >= (select history_from from retention)";

async fn violations_in(snapshot: &mut PgConnection, blobs: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let goes = "select history_from <> '00000000-0000-0000-0000-000000000000' from retention";
    if sqlx::query_scalar(goes).fetch_one(&mut *snapshot).await.unwrap() {
        sqlx::raw_sql(KEPT_HISTORY).execute(&mut *snapshot).await.unwrap();
    }
    for (rule, question) in RULES {
        let violations: Vec<String> = sqlx::query_scalar(*question)
            .fetch_all(&mut *snapshot)
            .await
            .unwrap_or_else(|error| panic!("the rule `{rule}` cannot be asked: {error}"));
        found.extend(violations.into_iter().map(|what| format!("{rule}: {what}")));
    }
    for (rule, question) in FILES {
        for row in sqlx::query(question).fetch_all(&mut *snapshot).await.unwrap() {
            let (tenant, digest, size): (String, Vec<u8>, i64) = (row.get(0), row.get(1), row.get(2));
            let digest = Digest(digest.try_into().unwrap());
            found.extend(wrong_file(blobs, &tenant, digest, size).map(|what| format!("{rule}: {what}")));
        }
    }
    found
}

/// Whose bytes must be in the blob store.
const FILES: [(&str, &str); 2] = [
    ("a stored blob is its file", "select tenant_id, digest, size_bytes from blob where bytes is null"),
    // The next job may end with it without running anything.
    (
        "what an intent made is stored",
        "select tenant_id, decode(made->'materialization'->>'digest', 'hex'),
                (made->'materialization'->>'size_bytes')::bigint
         from sql_intent where made->'materialization'->'inline' = 'null'",
    ),
];

fn wrong_file(blobs: &Path, tenant: &str, digest: Digest, size: i64) -> Option<String> {
    let name = digest.to_string();
    match fs::read(blobs.join(tenant).join(&name[..2]).join(&name)) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(bytes) if bytes.len() as i64 != size => Some(format!("{name} has {} bytes, not {size}", bytes.len())),
        Ok(bytes) if Digest::of(&bytes) != digest => Some(format!("{name} has other bytes")),
        Ok(_) => None,
    }
}

const RULES: &[(&str, &str)] = &[
    (
        "a job is in exactly one place",
        "select format('job %s is in %s', job_id, places) from (
             select j.job_id, array_remove(array[
                 case when exists (select from job_blocked p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'blocked' end,
                 case when exists (select from job_ready p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'ready' end,
                 case when exists (select from job_deferred p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'deferred' end,
                 case when exists (select from job_paused p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'paused' end,
                 case when exists (select from job_joined p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'joined' end,
                 case when exists (select from job_limited p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'limited' end,
                 case when exists (select from job_lease p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'lease' end,
                 case when exists (select from job_end p where p.tenant_id = j.tenant_id and p.job_id = j.job_id) then 'end' end
             ], null) as places from job j) as places_of_jobs
         where cardinality(places) <> 1",
    ),
    (
        "a job makes at most one materialization",
        "select format('job %s made %s', job_id, count(*)) from materialization group by tenant_id, job_id having count(*) > 1",
    ),
    (
        "what is pure is made once, unless it is forced or invalidated",
        "select format('%s of %s was made again by job %s', m.partition_key, a.name, m.job_id)
         from (
             select o.*, min(o.sequence) filter (where i.materialization_id is null)
                 over (partition by o.tenant_id, o.asset_id, o.partition_key, o.recipe) as first_valid
             from materialization o left join invalidation i using (tenant_id, materialization_id)) m
         join asset a using (tenant_id, asset_id)
         join asset_version v using (tenant_id, asset_version_id)
         left join job j on j.tenant_id = m.tenant_id and j.job_id = m.job_id
         where m.first_valid < m.sequence
           and m.reused_from is null and (v.settings->>'pure')::boolean and j.forced is not true
           and least(m.job_id, m.run_id) >= (select history_from from retention)",
    ),
    (
        "a job that succeeded has its materialization",
        "select format('job %s (%s of %s): materialization %s', j.job_id, j.partition_key, v.asset_id, e.materialization_id)
         from job_end e
         join job j using (tenant_id, job_id)
         join asset_version v using (tenant_id, asset_version_id)
         left join materialization m
             on m.tenant_id = e.tenant_id and m.materialization_id = e.materialization_id
             and m.asset_id = v.asset_id and m.partition_key = j.partition_key
         where e.state = 'succeeded' and (m.materialization_id is null
             -- Its own, or one that was there before it ended.
             or not case when m.job_id = e.job_id then m.run_id = j.run_id and e.reused = (m.reused_from is not null)
                         else e.reused and m.created_at <= e.ended_at end)",
    ),
    (
        "a materialization has a job that ended with it",
        "select format('%s, of job %s', m.materialization_id, m.job_id) from materialization m
         where not exists (select from job_end e where e.tenant_id = m.tenant_id and e.job_id = m.job_id
             and e.materialization_id = m.materialization_id and e.state = 'succeeded')
           and least(m.job_id, m.run_id) >= (select history_from from retention)",
    ),
    (
        "what is used again has the output and the recipe of what was made",
        "select m.materialization_id::text from materialization m
         left join materialization o on o.tenant_id = m.tenant_id and o.materialization_id = m.reused_from
         where m.reused_from is not null and (o.output_digest, o.recipe, o.asset_id, o.partition_key)
             is distinct from (m.output_digest, m.recipe, m.asset_id, m.partition_key)",
    ),
    (
        "lineage is what the job was given",
        "with given as (
             select m.tenant_id, m.materialization_id, i.input, i.position,
                    coalesce(i.materialization_id, e.materialization_id) as upstream
             from materialization m
             join job_input i on i.tenant_id = m.tenant_id and i.job_id = m.job_id
             left join job_end e on e.tenant_id = i.tenant_id and e.job_id = i.upstream_job_id
             where coalesce(i.materialization_id, e.materialization_id) is not null),
         drawn as (
             select l.tenant_id, l.materialization_id, l.input, l.position, l.upstream_materialization_id as upstream
             from lineage_edge l left join materialization m using (tenant_id, materialization_id)
             where m.materialization_id is null
                or least(m.job_id, m.run_id) >= (select history_from from retention))
         select format('%s was given %s, and no edge says so', materialization_id, input)
         from (select * from given except select * from drawn) as missing
         union all
         select format('%s has an edge %s that it was not given', materialization_id, input)
         from (select * from drawn except select * from given) as invented",
    ),
    (
        "an edge joins materializations that exist",
        "select format('%s -> %s', l.materialization_id, l.upstream_materialization_id) from lineage_edge l
         left join materialization m on m.tenant_id = l.tenant_id and m.materialization_id = l.materialization_id
         left join materialization u on u.tenant_id = l.tenant_id and u.materialization_id = l.upstream_materialization_id
         where m.materialization_id is null or u.materialization_id is null or u.sequence >= m.sequence",
    ),
    (
        "an output is a blob of its size",
        "select format('%s of %s', encode(m.output_digest, 'hex'), m.materialization_id) from materialization m
         left join blob b on b.tenant_id = m.tenant_id and b.digest = m.output_digest
         where b.size_bytes is distinct from m.size_bytes
           -- Retention let it go.
           and not (b.digest is null and exists (select from invalidation i where i.tenant_id = m.tenant_id
               and i.materialization_id = m.materialization_id and not i.keeps_bytes))",
    ),
    (
        "what expired is neither the newest nor needed by a run that goes on",
        "select i.materialization_id::text from invalidation i
         where not i.keeps_bytes
           and (exists (select from latest l where l.tenant_id = i.tenant_id
                   and l.materialization_id = i.materialization_id)
               or exists (select from needed_materialization n where n.tenant_id = i.tenant_id
                   and n.materialization_id = i.materialization_id))",
    ),
    (
        "an inline blob has its digest and its size",
        "select encode(digest, 'hex') from blob
         where bytes is not null and (sha256(bytes) <> digest or octet_length(bytes) <> size_bytes)",
    ),
    (
        "a run counts what ended",
        "select format('run %s says %s, and its jobs say %s', r.run_id,
             (r.jobs, r.succeeded, r.reused, r.skipped, r.failed, r.cancelled),
             (c.jobs, c.succeeded, c.reused, c.skipped, c.failed, c.cancelled))
         from run r cross join lateral (
             select count(*) as jobs, count(*) filter (where e.state = 'succeeded') as succeeded,
                 count(*) filter (where e.reused) as reused, count(*) filter (where e.state = 'skipped') as skipped,
                 count(*) filter (where e.state = 'failed') as failed,
                 count(*) filter (where e.state = 'cancelled') as cancelled
             from job j left join job_end e using (tenant_id, job_id)
             where j.tenant_id = r.tenant_id and j.run_id = r.run_id) as c
         where (r.jobs, r.succeeded, r.reused, r.skipped, r.failed, r.cancelled)
             <> (c.jobs, c.succeeded, c.reused, c.skipped, c.failed, c.cancelled)",
    ),
    (
        "a run is over when its jobs are",
        "select format('run %s is %s', r.run_id, r.state) from run r
         where (r.state = 'running') <> exists (select from job j where j.tenant_id = r.tenant_id and j.run_id = r.run_id
             and not exists (select from job_end e where e.tenant_id = j.tenant_id and e.job_id = j.job_id))",
    ),
    (
        "only a guest's verdict is charged",
        "select format('attempt %s of job %s: %s', attempt_id, job_id, verdict) from attempt
         where charged and verdict not in ('succeeded', 'skipped', 'suspended', 'failed', 'trapped', 'out-of-fuel',
             'out-of-memory', 'timed-out', 'output-too-large', 'denied')",
    ),
    (
        "a job carries the count of its charged attempts",
        "select format('job %s carries %s', p.job_id, p.charged) from (
             select tenant_id, job_id, charged from job_ready
             union all select tenant_id, job_id, charged from job_deferred
             union all select tenant_id, job_id, charged from job_paused
             union all select tenant_id, job_id, charged from job_joined
             union all select tenant_id, job_id, charged from job_limited
             union all select tenant_id, job_id, charged from job_lease) as p
         where p.charged <> (select count(*) from attempt t
             where t.tenant_id = p.tenant_id and t.job_id = p.job_id and t.charged)",
    ),
    (
        "a success that counts and a new materialization are the same",
        "select format('job %s: attempt %s, materialization %s', coalesce(t.job_id, m.job_id), t.attempt_id, m.materialization_id)
         from (select * from attempt where verdict = 'succeeded' and charged) as t
         full join (select * from materialization
                 where reused_from is null and least(job_id, run_id) >= (select history_from from retention)) as m
             on m.tenant_id = t.tenant_id and m.attempt_id = t.attempt_id and m.job_id = t.job_id
         where t.attempt_id is null or m.materialization_id is null",
    ),
    (
        "the key of a recipe belongs to a live job that has been claimed, and waits for no other",
        "select format('of job %s', k.job_id) from live_job k
         where exists (select from job_end e where e.tenant_id = k.tenant_id and e.job_id = k.job_id)
            or exists (select from job_blocked b where b.tenant_id = k.tenant_id and b.job_id = k.job_id)
            or exists (select from job_joined q where q.tenant_id = k.tenant_id and q.job_id = k.job_id)",
    ),
    (
        "what is told of an attempt is of one that runs",
        "select format('job %s', r.job_id) from running_log r
         where not exists (select from job_lease l join job j on j.tenant_id = l.tenant_id and j.job_id = l.job_id
             where l.tenant_id = r.tenant_id and l.job_id = r.job_id and l.token = r.token and j.run_id = r.run_id)",
    ),
    (
        "a joined job waits for the live job of its recipe",
        "select format('job %s', q.job_id) from job_joined q
         where not exists (select from live_job k where k.tenant_id = q.tenant_id and k.job_id = q.joined_id
             and k.recipe = q.recipe)",
    ),
    (
        "a parked job waits for a pause",
        "select format('job %s', j.job_id) from job_paused j
         where not exists (select from pause p where p.tenant_id = j.tenant_id and p.pipeline_id = j.pipeline_id
             and p.asset_id in ('00000000-0000-0000-0000-000000000000', j.asset_id))",
    ),
    (
        "no pool has given more permits than its size",
        "select format('pool %s of %s has given %s', p.name, p.size, h.permits) from pool p
         join (select pool_id, count(*) as permits from job_lease cross join unnest(permits) as h (pool_id)
             group by pool_id) as h using (pool_id)
         where h.permits > p.size",
    ),
    (
        "permits are of a tenant's own pools, and each once",
        "select format('job %s holds %s', l.job_id, l.permits) from job_lease l
         where l.permits = '{}' or cardinality(l.permits) <> (select count(distinct h) from unnest(l.permits) as h)
            or exists (select from unnest(l.permits) as h (pool_id) join pool p using (pool_id)
                where p.tenant_id <> l.tenant_id)",
    ),
    (
        "a limited job waits for a pool of its tenant",
        "select format('job %s', q.job_id) from job_limited q
         where q.quota is null and not exists (select from pool p where p.pool_id = q.pool_id and p.tenant_id = q.tenant_id)",
    ),
    (
        "a limited job waits for a quota of its tenant, or a period that has begun",
        "select format('job %s', q.job_id) from job_limited q
         where q.quota is not null and q.due_at > now()
           and not exists (select from quota o where o.tenant_id = q.tenant_id and o.measure = q.quota)",
    ),
    (
        "a blocked job counts the inputs that are to come",
        "select format('job %s waits for %s, and %s are to come', b.job_id, b.remaining, c.to_come)
         from job_blocked b cross join lateral (
             select count(*) as to_come from job_input i
             where i.tenant_id = b.tenant_id and i.job_id = b.job_id and i.upstream_job_id is not null
               and (not exists (select from job_end e where e.tenant_id = i.tenant_id and e.job_id = i.upstream_job_id)
                   or exists (select from job_release r where r.tenant_id = i.tenant_id and r.job_id = i.upstream_job_id
                       and r.released_through < i.job_id))) as c
         where b.remaining <> c.to_come or b.remaining = 0",
    ),
    (
        "what can be claimed waits for nothing",
        "select format('job %s', p.job_id) from (
             select tenant_id, job_id from job_ready
             union all select tenant_id, job_id from job_deferred
             union all select tenant_id, job_id from job_paused
             union all select tenant_id, job_id from job_joined
             union all select tenant_id, job_id from job_limited
             union all select tenant_id, job_id from job_lease) as p
         join job_input i using (tenant_id, job_id)
         where i.upstream_job_id is not null
           and (not exists (select from job_end e where e.tenant_id = i.tenant_id and e.job_id = i.upstream_job_id)
               or exists (select from job_release r where r.tenant_id = i.tenant_id and r.job_id = i.upstream_job_id
                   and r.released_through < i.job_id))",
    ),
    (
        "what is put off waits for a job that has ended",
        "select format('the dependents of job %s', r.job_id) from job_release r
         left join job_end e using (tenant_id, job_id)
         where e.job_id is null or (r.cause is null) <> (e.state = 'succeeded')",
    ),
    (
        "a job counts what it reads and what reads it",
        "select format('job %s says %s and %s', j.job_id, j.inputs, j.dependents) from job j
         where j.inputs <> (select count(*) from job_input i where i.tenant_id = j.tenant_id and i.job_id = j.job_id)
            or j.dependents <> (select count(*) from job_input i
                where i.tenant_id = j.tenant_id and i.upstream_job_id = j.job_id)",
    ),
    (
        "the latest of a partition is its newest valid materialization",
        "with newest as (
             select distinct on (m.tenant_id, m.asset_id, m.partition_key) m.tenant_id, m.asset_id, m.partition_key,
                 m.materialization_id, m.sequence, m.asset_version_id, m.version_digest, m.sources_digest,
                 m.input_digests, case when b.bytes is null then m.output_digest end as stored_digest,
                 coalesce(o.created_at, m.created_at) as made_at
             from materialization m
             left join blob b on b.tenant_id = m.tenant_id and b.digest = m.output_digest
             left join materialization o on o.tenant_id = m.tenant_id and o.materialization_id = m.reused_from
             where not exists (select from invalidation i
                 where i.tenant_id = m.tenant_id and i.materialization_id = m.materialization_id)
             order by m.tenant_id, m.asset_id, m.partition_key, m.sequence desc),
         told as (
             select tenant_id, asset_id, partition_key, materialization_id, sequence, asset_version_id, version_digest,
                 sources_digest, input_digests, stored_digest, made_at
             from latest)
         select format('%s of %s is not %s', partition_key, asset_id, materialization_id)
         from (select * from told except select * from newest) as untrue
         union all
         select format('%s of %s is %s, and is not told', partition_key, asset_id, materialization_id)
         from (select * from newest except select * from told) as untold",
    ),
    (
        "a staged file belongs to a materialization that an attempt made",
        "select format('%s of %s', s.path, s.materialization_id) from staged_file s
         left join materialization m using (tenant_id, materialization_id)
         left join blob b on b.tenant_id = s.tenant_id and b.digest = s.digest
         where m.materialization_id is null or m.reused_from is not null or (s.digest is not null and b.digest is null)",
    ),
    (
        "an intent goes with the commit that follows it",
        "select format('of attempt %s', i.attempt_id) from sql_intent i
         join materialization m using (tenant_id, attempt_id)",
    ),
    (
        "an intent is of its attempt, which succeeded",
        "select format('of attempt %s', attempt_id) from sql_intent
         where (made->'materialization'->>'attempt', made->'attempt'->>'id', made->'materialization'->>'asset',
                made->'materialization'->>'partition_key', made->'materialization'->>'recipe', made->'attempt'->>'verdict',
                made->'materialization'->>'applied')
             is distinct from (attempt_id::text, attempt_id::text, asset_id::text, partition_key, encode(recipe, 'hex'),
                'succeeded', 'true')",
    ),
    (
        "a bucket counts what it holds",
        "select format('bucket %s says %s keys of %s bytes, and holds %s of %s', b.name, b.keys, b.bytes, c.keys, c.bytes)
         from bucket b cross join lateral (
             select count(*) as keys, coalesce(sum(octet_length(e.key) + octet_length(e.value)), 0) as bytes
             from bucket_entry e where e.tenant_id = b.tenant_id and e.owner_id = b.owner_id and e.bucket = b.name) as c
         where (b.keys, b.bytes) <> (c.keys, c.bytes)",
    ),
    (
        "a bucket belongs to a pipeline or to all of them",
        "select format('bucket %s of %s', b.name, b.owner_id) from bucket b
         where b.owner_id <> '00000000-0000-0000-0000-000000000000'
           and not exists (select from pipeline p where p.tenant_id = b.tenant_id and p.pipeline_id = b.owner_id)",
    ),
    (
        "versions in buckets were drawn, and each once",
        "select format('version %s is there %s times, and %s was drawn last', version, count(*), min(drawn))
         from (select keys_version as version from bucket where keys_version <> 0
             union all select version from bucket_entry) as versions,
             (select case when is_called then last_value else 0 end as drawn from bucket_version) as drawn
         group by version having count(*) > 1 or version > min(drawn) or version <= 0",
    ),
    (
        "what met another commit is not charged and made nothing",
        "select format('attempt %s of job %s', t.attempt_id, t.job_id) from attempt t
         where t.verdict = 'conflicted' and (t.charged or exists (select from materialization m
             where m.tenant_id = t.tenant_id and m.attempt_id = t.attempt_id))",
    ),
    (
        "each end is told once, in audit and outbox",
        "select format('job %s ended %s, and is told as %s', coalesce(e.job_id::text, t.job), e.state, t.told)
         from job_end e
         full join (
             select job, array_agg(told order by told) as told from (
                 select one->>'job' as job, 'audit ' || action as told
                     from audit, jsonb_array_elements(details->'jobs') as one where action like 'job.%'
                 union all select one->>'job', 'outbox ' || topic
                     from outbox, jsonb_array_elements(payload->'jobs') as one where topic like 'job.%') as each
             where job::uuid >= (select history_from from retention)
               and not exists (select from public.job g where g.job_id = each.job::uuid
                   and g.run_id < (select history_from from retention))
             group by job) as t on t.job = e.job_id::text
         where t.told is distinct from array['audit job.' || e.state, 'outbox job.' || e.state]
           -- Audit has a horizon of its own.
           and not (e.ended_at < (select audit_from from retention) and t.told = array['outbox job.' || e.state])",
    ),
    (
        "what is left of a job is of a job that is left",
        "select format('%s of job %s', what, job_id) from (
             select 'an input' as what, tenant_id, job_id from job_input
             union all select 'what is read by an input', tenant_id, upstream_job_id from job_input
                 where upstream_job_id is not null
             union all select 'the end', tenant_id, job_id from job_end
             union all select 'an attempt', tenant_id, job_id from attempt
             union all select 'followers', tenant_id, job_id from job_release
             union all select 'a place in the queue', tenant_id, job_id from (
                 select tenant_id, job_id from job_blocked
                 union all select tenant_id, job_id from job_ready
                 union all select tenant_id, job_id from job_deferred
                 union all select tenant_id, job_id from job_paused
                 union all select tenant_id, job_id from job_joined
                 union all select tenant_id, job_id from job_limited
                 union all select tenant_id, job_id from job_lease) as queue) as each
         where not exists (select from job j where j.tenant_id = each.tenant_id and j.job_id = each.job_id)",
    ),
    (
        "nothing knows a blob whose bytes are being deleted",
        "select encode(g.digest, 'hex') from garbage g where g.deleted_at is null
           and (exists (select from blob b where b.tenant_id = g.tenant_id and b.digest = g.digest)
             or exists (select from named_blob n where n.tenant_id = g.tenant_id and n.digest = g.digest))",
    ),
    (
        "what names a blob names one that is there",
        "select encode(n.digest, 'hex') from named_blob n
         where n.digest is not null
           and not exists (select from intended_blob i where i.tenant_id = n.tenant_id and i.digest = n.digest)
           and not exists (select from blob b where b.tenant_id = n.tenant_id and b.digest = n.digest)",
    ),
    (
        "the end of a run is told once",
        "select format('run %s is %s, and is told as %s', r.run_id, r.state, t.told)
         from run r
         left join (select payload->>'run' as run, array_agg(topic) as told from outbox where topic like 'run.%'
             group by payload->>'run') as t on t.run = r.run_id::text
         where r.jobs > 0
           and t.told is distinct from case when r.state <> 'running' then array['run.' || r.state] end",
    ),
    (
        "a fire and the run that it asked for name each other",
        "select format('schedule %s of %s: run %s', s.name, f.fire_at, r.run_id)
         from (select * from run where request ? 'schedule') as r
         full join (select * from schedule_fire where run_id is not null) as f using (tenant_id, run_id)
         left join schedule s using (tenant_id, schedule_id)
         where r.run_id is null or f.run_id is null or s.name is distinct from r.request->>'schedule'
            or (f.cause = 'clock' and extract(epoch from f.fire_at) * 1000 <> (r.request->>'fire_at_ms')::bigint)
         union all
         select format('run %s is that of %s fires', run_id, count(*)) from schedule_fire
         where run_id is not null group by run_id having count(*) > 1",
    ),
    (
        "what a schedule has decided lies before its next fire time",
        "select format('schedule %s of %s', s.name, f.fire_at) from schedule s join schedule_fire f using (tenant_id, schedule_id)
         where f.cause = 'clock' and f.fire_at >= s.next_fire_at",
    ),
    (
        "a fire that was missed was not made as well",
        "select format('schedule %s from %s to %s', m.schedule_id, m.missed_from, m.fire_at)
         from schedule_fire m join schedule_fire f using (tenant_id, schedule_id, cause)
         where m.state = 'missed' and f.fire_at <> m.fire_at and f.fire_at between m.missed_from and m.fire_at",
    ),
    (
        "what is due is of a schedule that fires",
        "select format('schedule %s of %s', s.name, f.fire_at) from schedule s join schedule_fire f using (tenant_id, schedule_id)
         where f.state = 'due' and (not s.enabled or s.removed_at is not null or f.cause <> 'clock')",
    ),
    (
        "a backfill counts each of its partitions once",
        "select format('backfill %s of %s: %s to come, %s in flight, %s counted', b.backfill_id, b.partitions,
             b.selected_partitions - b.cursor, w.in_flight, b.up_to_date + b.made + b.skipped + b.failed)
         from backfill b cross join lateral (
             select coalesce(sum(partitions), 0) as in_flight from backfill_window w
             where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id) as w
         where b.partitions <> b.selected_partitions - b.cursor + w.in_flight + b.up_to_date + b.made + b.skipped + b.failed
            or b.selected_partitions <> (select sum(upper(s) - lower(s)) from unnest(b.selected) as s)",
    ),
    (
        "a window in flight is what its run makes",
        "select format('run %s of backfill %s', w.run_id, w.backfill_id) from backfill_window w
         join backfill b using (tenant_id, backfill_id)
         left join run r on r.tenant_id = w.tenant_id and r.run_id = w.run_id and r.backfill_id = w.backfill_id
         where r.run_id is null
            or w.partitions <> (select coalesce(sum(upper(s) - lower(s)), 0) from unnest(w.selected) as s)
            or w.partitions <> (select count(distinct j.partition_key) from job j
                join asset_version v using (tenant_id, asset_version_id) join asset a using (tenant_id, asset_id)
                where j.tenant_id = w.tenant_id and j.run_id = w.run_id and b.settings->'assets' ? a.name)",
    ),
    (
        "a run of a backfill is in flight until it is over",
        "select format('run %s', r.run_id) from run r
         where (r.request ? 'backfill') <> (r.backfill_id is not null)
            or r.request->>'backfill' <> r.backfill_id::text
            or (r.backfill_id is not null and r.state = 'running' and not exists (select from backfill_window w
                where w.tenant_id = r.tenant_id and w.backfill_id = r.backfill_id and w.run_id = r.run_id))",
    ),
    (
        "a partition of a backfill is released once in a round",
        "select format('%s of %s by backfill %s: %s jobs', j.partition_key, a.name, r.backfill_id, count(*))
         from job j
         join run r on r.tenant_id = j.tenant_id and r.run_id = j.run_id
         join backfill b on b.tenant_id = r.tenant_id and b.backfill_id = r.backfill_id
         join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
         join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
         where b.settings->'assets' ? a.name
         group by r.backfill_id, b.round, a.name, j.partition_key having count(*) > b.round",
    ),
    (
        "what failed of a backfill is told as ranges that are apart",
        "select format('backfill %s: %s failed, and ranges tell of %s', b.backfill_id, b.failed, f.told)
         from backfill b cross join lateral (
             select coalesce(sum(last_partition - first_partition + 1), 0) as told from backfill_failure f
             where f.tenant_id = b.tenant_id and f.backfill_id = b.backfill_id) as f
         where b.failed <> f.told
         union all
         select format('%s of backfill %s is there twice', one.what, one.backfill_id) from (
             select tenant_id, backfill_id, first_partition::text as what,
                 int4multirange(int4range(first_partition, last_partition + 1)) as held from backfill_failure
             union all select tenant_id, backfill_id, run_id::text, selected from backfill_window) as one
         join (
             select tenant_id, backfill_id, first_partition::text as what,
                 int4multirange(int4range(first_partition, last_partition + 1)) as held from backfill_failure
             union all select tenant_id, backfill_id, run_id::text, selected from backfill_window) as other
             using (tenant_id, backfill_id)
         where one.what < other.what and one.held && other.held",
    ),
    (
        "a backfill that has ended has nothing in flight",
        "select format('backfill %s is %s', b.backfill_id, b.state) from backfill b
         where (b.state in ('succeeded', 'failed') and exists (select from backfill_window w
                 where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id))
            or (b.state in ('succeeded', 'failed') and b.cursor < b.selected_partitions)
            or (b.state = 'succeeded' and b.failed > 0) or (b.state = 'failed' and b.failed = 0)",
    ),
];

#[tokio::test]
async fn the_checker_finds_what_is_wrong() {
    let database = Database::new().await;
    let schedule = "[schedules.yearly]\ncron = \"@yearly\"\nassets = [\"numbers\"]\n";
    let scenario = Scenario::with(Flowstone::on(&database), schedule);
    scenario.run(&["sum", "after_large", "despite_broken", "unique", "tallies"], 1);
    scenario.flowstone.run(["schedule", "run-now", "scenarios", "yearly"]).expect_status(0);
    let blobs = scenario.flowstone.state_dir().join("blobs");
    let pool = database.pool().await;
    scenario.flowstone.run(["backfill", "start", "scenarios", "daily"]).expect_status(0);
    let up = scenario.flowstone.start(["up", "-j", "2"]);
    wait_until_database_says(&pool, "select state = 'succeeded' from backfill").await;
    up.interrupt();
    up.wait().expect_status(0);
    assert_sound(&violations(&pool, &blobs).await);

    for (breakage, rule) in BREAKAGES {
        let mut undone = pool.begin().await.unwrap();
        sqlx::raw_sql(WITHOUT_CONSTRAINTS).execute(&mut *undone).await.unwrap();
        sqlx::raw_sql(*breakage).execute(&mut *undone).await.unwrap_or_else(|error| panic!("{breakage}: {error}"));
        let found = violations_in(&mut undone, &blobs).await;
        assert!(found.iter().any(|line| line.starts_with(rule)), "{breakage}\nbreaks `{rule}`, found {found:#?}");
        undone.rollback().await.unwrap();
    }
    let known: Vec<&str> = BREAKAGES.iter().map(|(_, rule)| *rule).collect();
    for (rule, _) in RULES.iter().chain(&FILES[1..]) {
        assert!(known.contains(rule), "no breakage proves the rule `{rule}`");
    }

    let stored: Vec<u8> =
        sqlx::query_scalar("select digest from blob where size_bytes = 800000").fetch_one(&pool).await.unwrap();
    let name = Digest(stored.try_into().unwrap()).to_string();
    let file = blobs.join("default").join(&name[..2]).join(&name);
    let bytes = fs::read(&file).unwrap();
    for broken in [&bytes[1..], &[&[1], &bytes[1..]].concat()] {
        fs::write(&file, broken).unwrap();
        assert_eq!(violations(&pool, &blobs).await.len(), 1);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(violations(&pool, &blobs).await.len(), 1);
}

const WITHOUT_CONSTRAINTS: &str = "do $$
declare found record;
begin
    for found in select conrelid::regclass as owner, conname from pg_constraint
        join pg_namespace on pg_namespace.oid = connamespace
        where nspname = 'public' and contype in ('c', 'f', 'u') and conparentid = 0 and coninhcount = 0
    loop
        execute format('alter table %s drop constraint %I cascade', found.owner, found.conname);
    end loop;
    drop trigger audit_is_append_only on audit;
end $$";

/// A change, and the rule that it breaks.
const BREAKAGES: &[(&str, &str)] = &[
    ("insert into job_ready (tenant_id, job_id) select tenant_id, job_id from job_end limit 1", "a job is in exactly one place"),
    ("delete from job_end where state = 'failed'", "a job is in exactly one place"),
    (
        "update materialization m set job_id = (select min(o.job_id::text)::uuid from materialization o)",
        "a job makes at most one materialization",
    ),
    (
        "update materialization m set recipe = o.recipe, asset_id = o.asset_id, asset_version_id = o.asset_version_id
         from materialization o where o.sequence = 1 and m.reused_from is null",
        "what is pure is made once, unless it is forced or invalidated",
    ),
    (
        "update materialization set partition_key = 'key=static:p1' where sequence = 1",
        "a job that succeeded has its materialization",
    ),
    (
        "update job_end set reused = true where state = 'succeeded'",
        "a job that succeeded has its materialization",
    ),
    (
        "update job_end set state = 'failed', materialization_id = null, cause = 'broken' where state = 'succeeded'",
        "a materialization has a job that ended with it",
    ),
    (
        "update materialization m set reused_from = o.materialization_id from materialization o
         where o.sequence = 1 and m.sequence <> 1",
        "what is used again has the output and the recipe of what was made",
    ),
    ("delete from lineage_edge", "lineage is what the job was given"),
    (
        "insert into lineage_edge select tenant_id, materialization_id, 'other', 0, upstream_materialization_id, 0
         from lineage_edge",
        "lineage is what the job was given",
    ),
    ("update lineage_edge set upstream_materialization_id = gen_random_uuid()", "an edge joins materializations that exist"),
    ("update lineage_edge set upstream_materialization_id = materialization_id", "an edge joins materializations that exist"),
    ("update materialization set size_bytes = size_bytes + 1", "an output is a blob of its size"),
    ("update blob set bytes = bytes || '\\x00' where bytes is not null", "an inline blob has its digest and its size"),
    ("update run set succeeded = succeeded - 1", "a run counts what ended"),
    ("update run set state = 'running', finished_at = null", "a run is over when its jobs are"),
    ("update attempt set verdict = 'lost' where charged", "only a guest's verdict is charged"),
    (
        "insert into job_ready (tenant_id, job_id, charged) select tenant_id, job_id, 2 from job_end limit 1",
        "a job carries the count of its charged attempts",
    ),
    ("delete from attempt where verdict = 'succeeded'", "a success that counts and a new materialization are the same"),
    (
        "update attempt set verdict = 'succeeded' where verdict = 'failed'",
        "a success that counts and a new materialization are the same",
    ),
    (
        "insert into live_job select tenant_id, asset_id, partition_key, recipe, job_id from materialization limit 1",
        "the key of a recipe belongs to a live job that has been claimed, and waits for no other",
    ),
    (
        "insert into running_log select tenant_id, run_id, job_id, gen_random_uuid(), 0, '[]' from job limit 1",
        "what is told of an attempt is of one that runs",
    ),
    (
        "insert into job_joined select m.tenant_id, m.job_id, (select j.job_id from job j where j.job_id <> m.job_id limit 1),
             m.recipe, 0, 0, 0 from materialization m limit 1",
        "a joined job waits for the live job of its recipe",
    ),
    (
        "insert into job_paused select tenant_id, job_id, gen_random_uuid(), gen_random_uuid(), 0, 0 from job_end limit 1",
        "a parked job waits for a pause",
    ),
    (
        "insert into pool (tenant_id, name, size) values ('default', 'narrow', 1);
         insert into job_lease (tenant_id, job_id, token, worker_id, charged, released, permits)
         select tenant_id, job_id, gen_random_uuid(), gen_random_uuid(), 0, 0, array[(select max(pool_id) from pool)]
         from job_end limit 2",
        "no pool has given more permits than its size",
    ),
    (
        "insert into job_lease (tenant_id, job_id, token, worker_id, charged, released, permits)
         select tenant_id, job_id, gen_random_uuid(), gen_random_uuid(), 0, 0, array[7, 7] from job_end limit 1",
        "permits are of a tenant's own pools, and each once",
    ),
    (
        "insert into job_limited (tenant_id, job_id, pool_id, priority, charged, released, lane_id)
         select tenant_id, job_id, 7, 0, 0, 0, 0 from job_end limit 1",
        "a limited job waits for a pool of its tenant",
    ),
    (
        "insert into job_limited (tenant_id, job_id, quota, due_at, priority, charged, released, lane_id)
         select tenant_id, job_id, 'fuel', now() + interval '1 hour', 0, 0, 0, 0 from job_end limit 1",
        "a limited job waits for a quota of its tenant, or a period that has begun",
    ),
    (
        "insert into job_blocked select tenant_id, job_id, 1 from job_end limit 1",
        "a blocked job counts the inputs that are to come",
    ),
    (
        "insert into job_ready (tenant_id, job_id) select tenant_id, job_id from job_input where upstream_job_id is not null;
         delete from job_end",
        "what can be claimed waits for nothing",
    ),
    (
        "insert into job_release (tenant_id, job_id) select tenant_id, upstream_job_id from job_input
         where upstream_job_id is not null;
         insert into job_ready (tenant_id, job_id) select tenant_id, job_id from job_input
         where upstream_job_id is not null",
        "what can be claimed waits for nothing",
    ),
    (
        "insert into job_release (tenant_id, job_id) values ('default', gen_random_uuid())",
        "what is put off waits for a job that has ended",
    ),
    (
        "insert into job_release (tenant_id, job_id) select tenant_id, job_id from job_end where state = 'failed'",
        "what is put off waits for a job that has ended",
    ),
    ("update job set dependents = dependents + 1", "a job counts what it reads and what reads it"),
    ("update job set inputs = inputs + 1", "a job counts what it reads and what reads it"),
    ("delete from latest", "the latest of a partition is its newest valid materialization"),
    (
        "update latest set stored_digest = null where stored_digest is not null",
        "the latest of a partition is its newest valid materialization",
    ),
    (
        "insert into invalidation (tenant_id, materialization_id, actor)
         select tenant_id, materialization_id, 'user' from materialization",
        "the latest of a partition is its newest valid materialization",
    ),
    (
        "insert into invalidation (tenant_id, materialization_id, actor, keeps_bytes)
         select tenant_id, materialization_id, 'retention', false from latest",
        "what expired is neither the newest nor needed by a run that goes on",
    ),
    (
        "insert into staged_file select tenant_id, gen_random_uuid(), 'counter', 'count', digest from blob limit 1",
        "a staged file belongs to a materialization that an attempt made",
    ),
    (
        "insert into sql_intent (tenant_id, attempt_id, asset_id, partition_key, recipe, made)
         select tenant_id, attempt_id, asset_id, partition_key, recipe, '{}' from materialization
         where reused_from is null",
        "an intent goes with the commit that follows it",
    ),
    (
        "insert into sql_intent (tenant_id, attempt_id, asset_id, partition_key, recipe, made)
         select tenant_id, gen_random_uuid(), asset_id, partition_key, recipe, '{}' from materialization",
        "an intent is of its attempt, which succeeded",
    ),
    (
        "insert into sql_intent (tenant_id, attempt_id, asset_id, partition_key, recipe, made)
         select tenant_id, gen_random_uuid(), asset_id, partition_key, recipe, jsonb_build_object('materialization',
             jsonb_build_object('digest', encode(recipe, 'hex'), 'size_bytes', 7, 'inline', null))
         from materialization",
        "what an intent made is stored",
    ),
    ("update bucket set keys = keys + 1", "a bucket counts what it holds"),
    ("update bucket_entry set value = value || '\\x00'", "a bucket counts what it holds"),
    ("delete from bucket_entry where key = 'made'", "a bucket counts what it holds"),
    ("update bucket set owner_id = gen_random_uuid()", "a bucket belongs to a pipeline or to all of them"),
    ("update bucket_entry set version = 1", "versions in buckets were drawn, and each once"),
    ("update bucket_entry set version = version + 1000", "versions in buckets were drawn, and each once"),
    (
        "update attempt t set verdict = 'conflicted' where verdict = 'succeeded'",
        "what met another commit is not charged and made nothing",
    ),
    ("update audit set action = 'job.failed' where action = 'job.succeeded'", "each end is told once, in audit and outbox"),
    ("delete from outbox where topic = 'job.succeeded'", "each end is told once, in audit and outbox"),
    (
        "insert into audit (tenant_id, actor, action, subject, details)
         select tenant_id, actor, action, subject, details from audit where action like 'job.%'",
        "each end is told once, in audit and outbox",
    ),
    ("update attempt set job_id = gen_random_uuid()", "what is left of a job is of a job that is left"),
    ("update job_input set upstream_job_id = gen_random_uuid()", "what is left of a job is of a job that is left"),
    (
        "insert into garbage (tenant_id, digest, size_bytes) select tenant_id, digest, size_bytes from blob limit 1",
        "nothing knows a blob whose bytes are being deleted",
    ),
    ("delete from blob where bytes is not null", "what names a blob names one that is there"),
    ("delete from outbox where topic like 'run.%'", "the end of a run is told once"),
    ("delete from schedule_fire", "a fire and the run that it asked for name each other"),
    ("update schedule set name = 'other'", "a fire and the run that it asked for name each other"),
    ("update schedule_fire set cause = 'clock'", "a fire and the run that it asked for name each other"),
    (
        "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, run_id)
         select tenant_id, schedule_id, fire_at + interval '1 s', cause, state, run_id from schedule_fire",
        "a fire and the run that it asked for name each other",
    ),
    (
        "update schedule_fire set cause = 'clock'; update schedule set next_fire_at = now() - interval '1 day'",
        "what a schedule has decided lies before its next fire time",
    ),
    (
        "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, missed_from)
         select tenant_id, schedule_id, fire_at + interval '1 s', cause, 'missed', fire_at from schedule_fire",
        "a fire that was missed was not made as well",
    ),
    (
        "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state)
         select tenant_id, schedule_id, fire_at, 'clock', 'due' from schedule_fire;
         update schedule set enabled = false",
        "what is due is of a schedule that fires",
    ),
    ("update backfill set made = made + 1", "a backfill counts each of its partitions once"),
    ("update backfill set selected = '{[0,3)}'", "a backfill counts each of its partitions once"),
    (
        "insert into backfill_window select tenant_id, backfill_id, run_id, '{[0,1)}', 1 from run where backfill_id is not null",
        "a window in flight is what its run makes",
    ),
    (
        "insert into backfill_window select tenant_id, backfill_id, gen_random_uuid(), '{}', 0 from backfill",
        "a window in flight is what its run makes",
    ),
    (
        "update run set state = 'running', finished_at = null where backfill_id is not null",
        "a run of a backfill is in flight until it is over",
    ),
    ("update run set backfill_id = null", "a run of a backfill is in flight until it is over"),
    (
        "insert into job (tenant_id, job_id, run_id, asset_version_id, partition_key, reason, forced, inputs, dependents)
         select j.tenant_id, gen_random_uuid(), j.run_id, j.asset_version_id, j.partition_key, j.reason, j.forced, j.inputs,
             j.dependents
         from job j join run r using (tenant_id, run_id) where r.backfill_id is not null",
        "a partition of a backfill is released once in a round",
    ),
    ("update backfill set failed = failed + 1", "what failed of a backfill is told as ranges that are apart"),
    (
        "insert into backfill_failure select tenant_id, backfill_id, one, 3, gen_random_uuid(), 'broken'
         from backfill, generate_series(2, 3) as one;
         update backfill set failed = 3",
        "what failed of a backfill is told as ranges that are apart",
    ),
    (
        "insert into backfill_window select tenant_id, backfill_id, run_id, '{[0,5)}', 5 from run where backfill_id is not null",
        "a backfill that has ended has nothing in flight",
    ),
    ("update backfill set state = 'failed'", "a backfill that has ended has nothing in flight"),
];
