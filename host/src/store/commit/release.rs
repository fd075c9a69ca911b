//! Release: what becomes of the jobs that waited for one that has ended.
//!
//! The commit that ends a job counts its dependents down and lets those go that wait for nothing more, as long as they
//! are few. Of a job that many wait for it only notes that they are to be released (`job_release`), and any process does
//! that afterwards, a batch to a transaction that moves the note on: a crash between two batches loses nothing, and one
//! within a batch undoes it. Until its last input is counted a dependent stays blocked, so that its run goes on, and
//! cancelling the run ends it there.

use uuid::Uuid;

use super::{
    ends::{End, finish_release},
    values::{Committed, job_name},
};
use crate::{
    id::{JobId, RunId},
    limit::{RELEASE_BATCH_MAX, RELEASE_INLINE_MAX, RELEASE_NOTES_MAX},
    store::{Connection, Store, StoreError, column, error::Doing as _},
};

/// A job that has ended, and those of its dependents that one transaction deals with.
struct Arrival {
    tenant: String,
    job: Uuid,
    /// Why dependents that cannot do without it are skipped; none when it was made.
    cause: Option<String>,
    /// Dependents past this one...
    after: Uuid,
    /// ...up to this one.
    through: Uuid,
}

/// What one transaction releases.
#[derive(Default)]
pub(super) struct Release {
    arrivals: Vec<Arrival>,
    /// How many of them have had their wave.
    waved: usize,
    /// How many inputs they count down.
    inputs: i64,
    /// How many jobs were left to later transactions.
    pub(super) put_off: usize,
}

impl Store {
    /// Releases the next batch of what was put off; none when nothing was, or others are at it. Every process may call
    /// it at any time: a batch is one transaction, and who comes second leaves it to the first.
    pub async fn release_next_dependents(&self) -> Result<Option<Committed>, StoreError> {
        const DOING: &str = "releasing dependents";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let mut release = Release::default();
        for (mut arrival, dependents) in lock_notes(&mut transaction).await? {
            let inputs = release.inputs + i64::from(dependents);
            if inputs > RELEASE_BATCH_MAX && release.inputs > 0 {
                break;
            }
            release.inputs = inputs;
            if inputs > RELEASE_BATCH_MAX
                && let Some(last) = find_last_of_batch(&mut transaction, &arrival).await?
            {
                arrival.through = last;
            }
            release.arrivals.push(arrival);
        }
        let (done, begun): (Vec<&Arrival>, Vec<&Arrival>) =
            release.arrivals.iter().partition(|arrival| arrival.through == Uuid::max());
        remove_notes(&mut transaction, &done).await?;
        for arrival in begun {
            move_note_on(&mut transaction, arrival).await?;
        }
        if release.arrivals.is_empty() {
            return Ok(None);
        }
        let committed = finish_release(&mut transaction, release, Vec::new()).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(Some(committed))
    }
}

impl Release {
    /// Takes the dependents of these ends in, or puts them off where they are many.
    pub(super) async fn add(&mut self, connection: &mut Connection, ends: &[End]) -> Result<(), StoreError> {
        let mut put_off = Vec::new();
        for end in ends.iter().filter(|end| end.dependents > 0) {
            let cause = match (&end.materialization, &end.first_cause) {
                (Some(_), _) => None,
                (None, Some(cause)) => Some(cause.clone()),
                (None, None) => Some(format!("input {} was not made: it {}", end.name, end.state)),
            };
            let (tenant, job) = (end.tenant.clone(), end.job.0);
            let arrival = Arrival { tenant, job, cause, after: Uuid::nil(), through: Uuid::max() };
            let inputs = self.inputs + i64::from(end.dependents);
            if end.dependents > RELEASE_INLINE_MAX || inputs > RELEASE_BATCH_MAX {
                put_off.push(arrival);
            } else {
                self.inputs = inputs;
                self.arrivals.push(arrival);
            }
        }
        self.put_off += put_off.len();
        write_notes(connection, &put_off).await
    }

    /// Ends what cannot do without the arrivals that were added since the last wave.
    pub(super) async fn skip_next_wave(&mut self, connection: &mut Connection) -> Result<Vec<End>, StoreError> {
        let new = &self.arrivals[self.waved..];
        let wave: Vec<&Arrival> = new.iter().filter(|arrival| arrival.cause.is_some()).collect();
        let skipped = if wave.is_empty() { Vec::new() } else { skip_dependents(connection, &wave).await? };
        self.waved = self.arrivals.len();
        Ok(skipped)
    }

    /// Counts the arrivals down for whoever waits on; returns how many are ready.
    pub(super) async fn count_down(&self, connection: &mut Connection) -> Result<usize, StoreError> {
        if self.arrivals.is_empty() { Ok(0) } else { release_dependents(connection, &self.arrivals).await }
    }
}

async fn write_notes(connection: &mut Connection, arrivals: &[Arrival]) -> Result<(), StoreError> {
    if arrivals.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into job_release (tenant_id, job_id, cause) select * from unnest($1::text[], $2::uuid[], $3::text[])",
        &column(arrivals, |arrival| arrival.tenant.clone()),
        &column(arrivals, |arrival| arrival.job),
        &column(arrivals, |arrival| arrival.cause.clone()) as &[Option<String>],
    )
    .execute(connection)
    .await
    .doing("putting off a release")?;
    Ok(())
}

/// Those whose turn it is, and that nobody else is at, each with how many inputs wait for it.
async fn lock_notes(connection: &mut Connection) -> Result<Vec<(Arrival, i32)>, StoreError> {
    let rows = sqlx::query!(
        r#"select r.tenant_id, r.job_id, r.cause, r.released_through, (select j.dependents from job j
               where j.tenant_id = r.tenant_id and j.job_id = r.job_id) as "dependents!"
           from job_release r order by r.released_at, r.job_id limit $1 for update of r skip locked"#,
        RELEASE_NOTES_MAX,
    )
    .fetch_all(connection)
    .await
    .doing("looking for dependents to release")?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (tenant, job, after) = (row.tenant_id, row.job_id, row.released_through);
            (Arrival { tenant, job, cause: row.cause, after, through: Uuid::max() }, row.dependents)
        })
        .collect())
}

/// Where a batch ends; none when it is the last. What one dependent reads stays together.
async fn find_last_of_batch(connection: &mut Connection, next: &Arrival) -> Result<Option<Uuid>, StoreError> {
    sqlx::query_scalar!(
        "select job_id from job_input where tenant_id = $1 and upstream_job_id = $2 and job_id > $3
         order by job_id offset $4::bigint - 1 limit 1",
        next.tenant,
        next.job,
        next.after,
        RELEASE_BATCH_MAX,
    )
    .fetch_optional(connection)
    .await
    .doing("looking for dependents to release")
}

async fn move_note_on(connection: &mut Connection, arrival: &Arrival) -> Result<(), StoreError> {
    sqlx::query!(
        "update job_release set released_through = $3, released_at = clock_timestamp()
         where tenant_id = $1 and job_id = $2",
        arrival.tenant,
        arrival.job,
        arrival.through,
    )
    .execute(connection)
    .await
    .doing("moving a release on")?;
    Ok(())
}

async fn remove_notes(connection: &mut Connection, arrivals: &[&Arrival]) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from job_release r using unnest($1::text[], $2::uuid[]) as d (tenant_id, job_id)
         where r.tenant_id = d.tenant_id and r.job_id = d.job_id",
        &column(arrivals, |arrival| arrival.tenant.clone()),
        &column(arrivals, |arrival| arrival.job),
    )
    .execute(connection)
    .await
    .doing("ending releases")?;
    Ok(())
}

async fn skip_dependents(connection: &mut Connection, wave: &[&Arrival]) -> Result<Vec<End>, StoreError> {
    let rows = sqlx::query!(
        r#"with hit as (
               select distinct on (i.tenant_id, i.job_id) i.tenant_id, i.job_id, w.cause
               from unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
                   as w (tenant_id, job_id, after, through, cause)
               cross join lateral (
                   select * from job_input where tenant_id = w.tenant_id and upstream_job_id = w.job_id
                       and job_id > w.after and job_id <= w.through offset 0) i
               where not i.optional order by i.tenant_id, i.job_id),
           waiting as (
               select w.tenant_id, w.job_id, hit.cause from hit cross join lateral (
                   select b.tenant_id, b.job_id from job_blocked b
                   where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
           gone as (
               delete from job_blocked b using waiting
               where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               returning b.tenant_id, b.job_id, waiting.cause),
           ended as (
               insert into job_end (tenant_id, job_id, state, cause, reused)
               select tenant_id, job_id, 'skipped', cause, false from gone)
           select gone.tenant_id, gone.job_id, gone.cause as "cause!", j.run_id, j.dependents, a.name, j.partition_key
           from gone cross join lateral (
               select * from job where tenant_id = gone.tenant_id and job_id = gone.job_id offset 0) j
           join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
           join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id"#,
        &column(wave, |arrival| arrival.tenant.clone()),
        &column(wave, |arrival| arrival.job),
        &column(wave, |arrival| arrival.after),
        &column(wave, |arrival| arrival.through),
        &column(wave, |arrival| arrival.cause.clone()) as &[Option<String>],
    )
    .fetch_all(connection)
    .await
    .doing("skipping what cannot run")?;
    Ok(rows
        .into_iter()
        .map(|row| End {
            tenant: row.tenant_id,
            job: JobId(row.job_id),
            run: RunId(row.run_id),
            name: job_name(&row.name, &row.partition_key),
            state: "skipped",
            first_cause: Some(row.cause.clone()),
            cause: Some(row.cause),
            materialization: None,
            reused: false,
            dependents: row.dependents,
            needs_key: None,
        })
        .collect())
}

/// Counts arrivals down, and moves to the ready table whoever waits for nothing more. Rows are locked in one order.
async fn release_dependents(connection: &mut Connection, arrivals: &[Arrival]) -> Result<usize, StoreError> {
    let released = sqlx::query!(
        "with hit as (
             select i.tenant_id, i.job_id, count(*)::int as arrived
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[]) as e (tenant_id, job_id, after, through)
             cross join lateral (
                 select * from job_input where tenant_id = e.tenant_id and upstream_job_id = e.job_id
                     and job_id > e.after and job_id <= e.through offset 0) i
             group by i.tenant_id, i.job_id order by i.tenant_id, i.job_id),
         waiting as (
             select w.tenant_id, w.job_id, w.remaining, hit.arrived from hit cross join lateral (
                 select b.tenant_id, b.job_id, b.remaining from job_blocked b
                 where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
         counted as (
             update job_blocked b set remaining = waiting.remaining - waiting.arrived from waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining > waiting.arrived),
         freed as (
             delete from job_blocked b using waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining <= waiting.arrived
             returning b.tenant_id, b.job_id, b.lane_id)
         insert into job_ready (tenant_id, job_id, lane_id) select tenant_id, job_id, lane_id from freed",
        &column(arrivals, |arrival| arrival.tenant.clone()),
        &column(arrivals, |arrival| arrival.job),
        &column(arrivals, |arrival| arrival.after),
        &column(arrivals, |arrival| arrival.through),
    )
    .execute(connection)
    .await
    .doing("releasing dependents")?;
    Ok(released.rows_affected() as usize)
}
