//! Components that take their workers with them. A worker that dies leaves a note for each component that it had jobs of; one
//! that has too many that count is quarantined: its jobs fail at once, until an operator lifts it.
//!
//! Who kills workers, and who was only there when somebody else did (another component, the kernel, an operator with
//! `kill -9`), looks the same in one death. Three rules tell them apart:
//!
//! - *What completes an attempt is forgiven everything.* Who really kills completes none.
//! - *Deaths count only one after the other*: when the worker took a job of the component after the death that counted before
//!   was known. A storm of kills ends a hundred workers in the time in which one is found dead, and all of them are
//!   one proof: that nothing was completed in that time. As many as convict take as many sessions that expire one after
//!   the other, about two minutes, in which no worker gets a single commit of the component through; whereas whoever kills has
//!   killed again by then. Which of its jobs it does that with, and how many it has, does not matter.
//! - *What is lost together comes back apart*: a job that had come back already waits for a random part of a growing time
//!   ([`super::workers`]). So the neighbours of a killer complete while it waits, or is held by the worker that it killed.
//!
//! Each death counts whole for each component, so that a killer needs no more of them in company than alone. Of those that
//! have as many, the one that was claimed last is quarantined: the others had run for longer without harm. The deaths
//! that it had a part in are explained then, and are held against nobody else. A worker that comes back had not died,
//! and takes its notes back.
//!
//! Not told apart: one job that kills, of a component of which other jobs are completed all the time. It is lost and comes
//! back after ever longer waits; when the others have ended, it is convicted.

use super::{Connection, Store, StoreError, column, digest, error::Doing as _};
use crate::{
    blob::Digest,
    id::{JobId, WorkerId},
    limit::{DEATHS_KEPT, QUARANTINE_DEATHS},
};

/// A job whose worker has died.
pub(super) struct LostJob {
    pub(super) tenant: String,
    pub(super) job: JobId,
    pub(super) worker: WorkerId,
    /// Since it was claimed.
    pub(super) held_us: i64,
}

/// A component that is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// Of its bytes.
    pub component: Digest,
    /// Workers that died with it, one after the other.
    pub deaths: i32,
    /// Milliseconds since 1970.
    pub quarantined_at_ms: i64,
    /// Assets of newest versions that it makes: `pipeline asset`, by name.
    pub assets: Vec<String>,
}

impl Store {
    /// Every component of a tenant that is quarantined, the newest first.
    pub async fn list_quarantine(&self, tenant: &str) -> Result<Vec<QuarantineRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select q.component_digest, q.deaths, (extract(epoch from q.quarantined_at) * 1000)::bigint as "at_ms!",
                      array(select p.name || ' ' || a.name from asset_version v
                          join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
                          join pipeline p on p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
                          where v.tenant_id = q.tenant_id and v.component_digest = q.component_digest
                            and v.pipeline_version_id = (select n.pipeline_version_id from pipeline_version n
                                where n.tenant_id = a.tenant_id and n.pipeline_id = a.pipeline_id
                                order by n.number desc limit 1)
                          order by 1) as "assets!"
               from quarantine q where q.tenant_id = $1 order by q.quarantined_at desc, q.component_digest"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing quarantined components")?;
        rows.into_iter()
            .map(|row| {
                Ok(QuarantineRecord {
                    component: digest(row.component_digest)?,
                    deaths: row.deaths,
                    quarantined_at_ms: row.at_ms,
                    assets: row.assets,
                })
            })
            .collect()
    }

    /// Lets a component run again. False when it was not quarantined.
    pub async fn lift_quarantine(&self, tenant: &str, component: Digest) -> Result<bool, StoreError> {
        let lifted = sqlx::query!(
            "with lifted as (
                 delete from quarantine where tenant_id = $1 and component_digest = $2 returning deaths)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'component.lifted', $3, jsonb_build_object('deaths', deaths) from lifted",
            tenant,
            &component.0[..],
            component.to_string(),
        )
        .execute(&self.pool)
        .await
        .doing("lifting a quarantine")?;
        Ok(lifted.rows_affected() > 0)
    }
}

/// Notes the deaths of the workers of these jobs, and quarantines the component that has most of them, if that is too
/// many: returns it. The others have their turn at the next death.
pub(super) async fn note_deaths(
    connection: &mut Connection,
    lost: &[LostJob],
) -> Result<Option<(String, Digest)>, StoreError> {
    const DOING: &str = "noting that workers died";
    if lost.is_empty() {
        return Ok(None);
    }
    // One after the other: of two that do not see each other's notes both would count.
    sqlx::query!("select pg_advisory_xact_lock(hashtext('flowstone.deaths'))")
        .fetch_one(&mut *connection)
        .await
        .doing(DOING)?;
    sqlx::query!(
        "with died as materialized (
             select v.tenant_id, v.component_digest, l.worker_id,
                    now() - min(l.held_us) * interval '1 microsecond' as claimed_at
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::bigint[]) as l (tenant_id, job_id, worker_id, held_us)
             cross join lateral (
                 select * from job where tenant_id = l.tenant_id and job_id = l.job_id offset 0) j
             join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
             group by v.tenant_id, v.component_digest, l.worker_id),
         forgotten as (delete from component_death where died_at < now() - make_interval(secs => $5))
         insert into component_death (tenant_id, component_digest, worker_id, shared_by, claimed_at, counts)
         select tenant_id, component_digest, worker_id, count(*) over (partition by worker_id), claimed_at,
                row_number() over (partition by tenant_id, component_digest order by claimed_at desc, worker_id) = 1
                and not exists (select from component_death b
                    where b.tenant_id = d.tenant_id and b.component_digest = d.component_digest
                      and b.counts and b.died_at >= d.claimed_at)
         from died d
         on conflict (tenant_id, component_digest, worker_id) do nothing",
        &column(lost, |lost| lost.tenant.clone()),
        &column(lost, |lost| lost.job.0),
        &column(lost, |lost| lost.worker.0),
        &column(lost, |lost| lost.held_us),
        DEATHS_KEPT.as_secs_f64(),
    )
    .execute(&mut *connection)
    .await
    .doing(DOING)?;
    // A statement of its own: it sees the notes.
    let guilty = sqlx::query!(
        "with guilty as materialized (
             select tenant_id, component_digest, count(*)::int as deaths from component_death where counts
             group by tenant_id, component_digest having count(*) >= $1
             order by count(*) desc, max(claimed_at) desc, component_digest limit 1),
         quarantined as (
             insert into quarantine (tenant_id, component_digest, deaths)
             select tenant_id, component_digest, deaths from guilty
             on conflict (tenant_id, component_digest) do nothing),
         explained as (
             delete from component_death d using guilty g, component_death o
             where o.tenant_id = g.tenant_id and o.component_digest = g.component_digest and d.worker_id = o.worker_id),
         audited as (
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'worker', 'component.quarantined', encode(component_digest, 'hex'),
                    jsonb_build_object('deaths', deaths) from guilty)
         select tenant_id, component_digest from guilty",
        QUARANTINE_DEATHS,
    )
    .fetch_optional(connection)
    .await
    .doing(DOING)?;
    guilty.map(|row| Ok((row.tenant_id, digest(row.component_digest)?))).transpose()
}

/// Forgives the components of these jobs: an attempt of each has completed, and its worker is alive. What another commit is
/// forgiving is left to that one.
pub(super) async fn forgive(connection: &mut Connection, tenants: &[String], jobs: &[JobId]) -> Result<(), StoreError> {
    sqlx::query!(
        "with completed as materialized (
             select distinct v.tenant_id, v.component_digest
             from unnest($1::text[], $2::uuid[]) as c (tenant_id, job_id)
             cross join lateral (
                 select * from job where tenant_id = c.tenant_id and job_id = c.job_id offset 0) j
             join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id),
         forgiven as materialized (
             select d.place from completed c cross join lateral (
                 select ctid as place from component_death
                 where tenant_id = c.tenant_id and component_digest = c.component_digest for update skip locked) d)
         delete from component_death where ctid = any(array(select place from forgiven))",
        tenants,
        &column(jobs, |job| job.0),
    )
    .execute(connection)
    .await
    .doing("forgiving components")?;
    Ok(())
}

/// Takes back the notes of a worker that was taken for dead.
pub(super) async fn take_back(connection: &mut Connection, worker: WorkerId) -> Result<(), StoreError> {
    sqlx::query!("delete from component_death where worker_id = $1", worker.0)
        .execute(connection)
        .await
        .doing("taking back what was noted of this worker")?;
    Ok(())
}
