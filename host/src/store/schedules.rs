//! Schedules and their fires: what is declared, what is due, and the one run of each fire.
//!
//! What fires, and what was missed, arrives as a value; instants are whole seconds since 1970, by the database's clock.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    error::Doing as _,
    submissions::{Durable, NewRun, insert_run},
};
use crate::{
    id::{RunId, ScheduleId, WorkerId},
    limit::{LIST_ROWS_MAX, SCHEDULES_DECIDED_MAX},
};

/// A schedule that a version declares.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Its name.
    pub name: String,
    /// A [`crate::pipeline::schedule::Schedule`] as JSON.
    pub settings: serde_json::Value,
    /// Its first fire time, should it be new or fire at other times than before.
    pub next_fire_s: Option<i64>,
}

/// A schedule as its row tells.
#[derive(Clone, Debug)]
pub struct ScheduleRecord {
    /// Its id.
    pub id: ScheduleId,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its name.
    pub name: String,
    /// A [`crate::pipeline::schedule::Schedule`] as JSON.
    pub settings: serde_json::Value,
    /// Whether it fires by itself.
    pub enabled: bool,
    /// The last fire, whatever became of it.
    pub last: Option<FireRecord>,
}

/// A fire as its row tells.
#[derive(Clone, Debug)]
pub struct FireRecord {
    /// Milliseconds since 1970.
    pub fire_at_ms: i64,
    /// `clock` or `hand`.
    pub cause: String,
    /// `due`, `submitted`, `failed` or `missed`.
    pub state: String,
    /// What was submitted.
    pub run: Option<RunId>,
    /// Why nothing was.
    pub error: Option<String>,
}

/// A schedule that somebody has to decide about.
#[derive(Clone, Debug)]
pub struct DueSchedule {
    /// Whose it is.
    pub tenant: String,
    /// Its id.
    pub id: ScheduleId,
    /// A [`crate::pipeline::schedule::Schedule`] as JSON.
    pub settings: serde_json::Value,
    /// Fires before it are decided.
    pub next_fire_s: i64,
    /// What time it is, in milliseconds since 1970.
    pub now_ms: i64,
}

/// What was decided about a due schedule.
#[derive(Clone, Debug, Default)]
pub struct DecidedFires {
    /// Those that run.
    pub run: Vec<i64>,
    /// The first and the last of those that do not.
    pub missed: Option<(i64, i64)>,
    /// When to look again.
    pub next_fire_s: Option<i64>,
}

/// A fire that this process is to submit the run of.
#[derive(Clone, Debug)]
pub struct TakenFire {
    /// Whose it is.
    pub tenant: String,
    /// Of which schedule.
    pub schedule: ScheduleId,
    /// When.
    pub fire_s: i64,
    /// The schedule's name.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// A [`crate::pipeline::schedule::Schedule`] as JSON.
    pub settings: serde_json::Value,
    /// How often it has been taken, this time included.
    pub tries: i32,
    /// What time it is, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Store {
    /// What time it is for the database, in milliseconds since 1970.
    pub async fn tell_time(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar!(r#"select (extract(epoch from now()) * 1000)::bigint as "now_ms!""#)
            .fetch_one(&self.pool)
            .await
            .doing("asking for the time")
    }

    /// The schedules of one pipeline or of all, by pipeline and name.
    pub async fn list_schedules(
        &self,
        tenant: &str,
        pipeline: Option<&str>,
    ) -> Result<Vec<ScheduleRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select s.schedule_id, p.name as pipeline, s.name, s.settings, s.enabled,
                      (extract(epoch from f.fire_at) * 1000)::bigint as fire_at_ms, f.cause as "cause?",
                      f.state as "state?", f.run_id, f.error
               from schedule s
               join pipeline p on p.tenant_id = s.tenant_id and p.pipeline_id = s.pipeline_id
               left join lateral (
                   select * from schedule_fire l where l.tenant_id = s.tenant_id and l.schedule_id = s.schedule_id
                   order by l.fire_at desc limit 1) f on true
               where s.tenant_id = $1 and ($2::text is null or p.name = $2) and s.removed_at is null
               order by p.name, s.name limit $3"#,
            tenant,
            pipeline as Option<&str>,
            LIST_ROWS_MAX,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing schedules")?;
        let record = |fire_at_ms, cause, state, run: Option<Uuid>, error| {
            Some(FireRecord { fire_at_ms: fire_at_ms?, cause: cause?, state: state?, run: run.map(RunId), error })
        };
        Ok(rows
            .into_iter()
            .map(|row| ScheduleRecord {
                id: ScheduleId(row.schedule_id),
                pipeline: row.pipeline,
                name: row.name,
                settings: row.settings,
                enabled: row.enabled,
                last: record(row.fire_at_ms, row.cause, row.state, row.run_id, row.error),
            })
            .collect())
    }

    /// Lets a schedule fire from its next fire time on. What it would have done meanwhile counts as never asked for.
    pub async fn enable_schedule(
        &self,
        tenant: &str,
        schedule: ScheduleId,
        next_fire_s: Option<i64>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "with changed as (
                 update schedule set enabled = true, next_fire_at = to_timestamp($3::bigint)
                 where tenant_id = $1 and schedule_id = $2 and not enabled and removed_at is null
                 returning tenant_id, name)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'schedule.enabled', name, '{}' from changed",
            tenant,
            schedule.0,
            next_fire_s as Option<i64>,
        )
        .execute(&self.pool)
        .await
        .doing("enabling a schedule")?;
        Ok(())
    }

    /// Keeps a schedule from firing. Fires whose run has not been submitted yet are missed.
    pub async fn disable_schedule(&self, tenant: &str, schedule: ScheduleId) -> Result<(), StoreError> {
        const DOING: &str = "disabling a schedule";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        sqlx::query!(
            "with changed as (
                 update schedule set enabled = false, next_fire_at = null
                 where tenant_id = $1 and schedule_id = $2 and enabled
                 returning tenant_id, name)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'schedule.disabled', name, '{}' from changed",
            tenant,
            schedule.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        give_up_due_fires(&mut transaction, tenant, &[schedule.0]).await?;
        transaction.commit().await.doing(DOING)
    }

    /// Schedules that are due, those that wait longest first. One whose last fires have no run yet waits for those.
    pub async fn list_due_schedules(&self) -> Result<Vec<DueSchedule>, StoreError> {
        let rows = sqlx::query!(
            r#"select s.tenant_id, s.schedule_id, s.settings,
                      extract(epoch from s.next_fire_at)::bigint as "next_fire_s!",
                      (extract(epoch from now()) * 1000)::bigint as "now_ms!"
               from schedule s
               where s.next_fire_at <= now()
                 and not exists (select from schedule_fire f
                     where f.tenant_id = s.tenant_id and f.schedule_id = s.schedule_id and f.state = 'due')
               order by s.next_fire_at limit $1"#,
            SCHEDULES_DECIDED_MAX,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for due schedules")?;
        Ok(rows
            .into_iter()
            .map(|row| DueSchedule {
                tenant: row.tenant_id,
                id: ScheduleId(row.schedule_id),
                settings: row.settings,
                next_fire_s: row.next_fire_s,
                now_ms: row.now_ms,
            })
            .collect())
    }

    /// Writes what was decided about a due schedule. False: it is no longer as it was, and somebody else decides.
    pub async fn record_fires(&self, due: &DueSchedule, decided: &DecidedFires) -> Result<bool, StoreError> {
        const DOING: &str = "recording the fires of a schedule";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let moved = sqlx::query!(
            "update schedule set next_fire_at = to_timestamp($5::bigint)
             where tenant_id = $1 and schedule_id = $2 and next_fire_at = to_timestamp($3::bigint) and settings = $4",
            due.tenant,
            due.id.0,
            due.next_fire_s,
            due.settings,
            decided.next_fire_s as Option<i64>,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!(
            "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state)
             select $1, $2, to_timestamp(fire_s), 'clock', 'due' from unnest($3::bigint[]) as fire_s
             on conflict do nothing",
            due.tenant,
            due.id.0,
            &decided.run,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if let Some((first, last)) = decided.missed {
            sqlx::query!(
                "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, missed_from)
                 values ($1, $2, to_timestamp($4::bigint), 'clock', 'missed', to_timestamp($3::bigint))
                 on conflict do nothing",
                due.tenant,
                due.id.0,
                first,
                last,
            )
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Takes a due fire, the least tried and then the longest due, for this worker alone as long as its session lasts. Of
    /// one schedule only the first can be taken: its runs are submitted in the order of their times.
    pub async fn take_due_fire(&self, worker: WorkerId) -> Result<Option<TakenFire>, StoreError> {
        let row = sqlx::query!(
            r#"with next as (
                   select f.tenant_id, f.schedule_id, f.fire_at, f.cause from schedule_fire f
                   where f.state = 'due' and (f.taken_by is null or f.taken_by = $1)
                     and not exists (select from schedule_fire e
                         where e.tenant_id = f.tenant_id and e.schedule_id = f.schedule_id and e.state = 'due'
                           and e.fire_at < f.fire_at)
                   order by f.tries, f.fire_at limit 1 for update skip locked),
               taken as (
                   update schedule_fire f set taken_by = w.worker_id, tries = f.tries + 1 from next n, worker w
                   where f.tenant_id = n.tenant_id and f.schedule_id = n.schedule_id and f.fire_at = n.fire_at
                     and f.cause = n.cause and w.worker_id = $1
                   returning f.tenant_id, f.schedule_id, f.fire_at, f.tries)
               select t.tenant_id, t.schedule_id, extract(epoch from t.fire_at)::bigint as "fire_s!", s.name,
                      p.name as pipeline, s.settings, t.tries,
                      (extract(epoch from now()) * 1000)::bigint as "now_ms!"
               from taken t
               join schedule s on s.tenant_id = t.tenant_id and s.schedule_id = t.schedule_id
               join pipeline p on p.tenant_id = s.tenant_id and p.pipeline_id = s.pipeline_id"#,
            worker.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("taking a due fire")?;
        Ok(row.map(|row| TakenFire {
            tenant: row.tenant_id,
            schedule: ScheduleId(row.schedule_id),
            fire_s: row.fire_s,
            name: row.name,
            pipeline: row.pipeline,
            settings: row.settings,
            tries: row.tries,
            now_ms: row.now_ms,
        }))
    }

    /// Submits the run of a due fire, with the end of the fire in one transaction. False: it is due no longer, and nothing
    /// was written.
    pub async fn submit_fire(&self, fire: &TakenFire, run: &NewRun) -> Result<bool, StoreError> {
        const DOING: &str = "submitting the run of a schedule";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let due = sqlx::query_scalar!(
            "select 1 from schedule_fire
             where tenant_id = $1 and schedule_id = $2 and fire_at = to_timestamp($3::bigint) and cause = 'clock'
               and state = 'due' for update",
            fire.tenant,
            fire.schedule.0,
            fire.fire_s,
        )
        .fetch_optional(&mut *transaction)
        .await
        .doing(DOING)?;
        if due.is_none() {
            return Ok(false);
        }
        insert_run(&mut transaction, run, "schedule", Durable::ByCommit).await?;
        sqlx::query!(
            "update schedule_fire set state = 'submitted', run_id = $4, taken_by = null, decided_at = now()
             where tenant_id = $1 and schedule_id = $2 and fire_at = to_timestamp($3::bigint) and cause = 'clock'",
            fire.tenant,
            fire.schedule.0,
            fire.fire_s,
            run.id.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(true)
    }

    /// Ends a due fire of which no run can be made. False: it was due no longer.
    pub async fn fail_fire(&self, fire: &TakenFire, error: &str) -> Result<bool, StoreError> {
        let failed = sqlx::query!(
            "with failed as (
                 update schedule_fire set state = 'failed', error = $4, taken_by = null, decided_at = now()
                 where tenant_id = $1 and schedule_id = $2 and fire_at = to_timestamp($3::bigint) and cause = 'clock'
                   and state = 'due'
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'schedule', 'schedule.failed', $5, jsonb_build_object('error', $4::text) from failed",
            fire.tenant,
            fire.schedule.0,
            fire.fire_s,
            error,
            fire.name,
        )
        .execute(&self.pool)
        .await
        .doing("recording that a schedule failed")?;
        Ok(failed.rows_affected() == 1)
    }

    /// Submits the run of a schedule that somebody fires by hand, with the record of that.
    pub async fn submit_by_hand(&self, schedule: ScheduleId, run: &NewRun) -> Result<(), StoreError> {
        const DOING: &str = "submitting the run of a schedule";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        insert_run(&mut transaction, run, "user", Durable::ByCommit).await?;
        sqlx::query!(
            "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, run_id)
             values ($1, $2, clock_timestamp(), 'hand', 'submitted', $3)",
            run.tenant,
            schedule.0,
            run.id.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(())
    }
}

/// Makes a pipeline's schedules those that its newest version declares. The pipeline's row is locked.
pub(super) async fn declare_schedules(
    connection: &mut Connection,
    tenant: &str,
    pipeline: Uuid,
    schedules: &[NewSchedule],
) -> Result<(), StoreError> {
    const DOING: &str = "deploying schedules";
    let names: Vec<String> = schedules.iter().map(|schedule| schedule.name.clone()).collect();
    let removed = sqlx::query_scalar!(
        "update schedule set removed_at = now(), next_fire_at = null
         where tenant_id = $1 and pipeline_id = $2 and removed_at is null and name <> all($3)
         returning schedule_id",
        tenant,
        pipeline,
        &names,
    )
    .fetch_all(&mut *connection)
    .await
    .doing(DOING)?;
    give_up_due_fires(connection, tenant, &removed).await?;
    let ids: Vec<Uuid> = schedules.iter().map(|_| ScheduleId::new().0).collect();
    let settings: Vec<serde_json::Value> = schedules.iter().map(|schedule| schedule.settings.clone()).collect();
    let next: Vec<Option<i64>> = schedules.iter().map(|schedule| schedule.next_fire_s).collect();
    // What fires at the same times as before goes on where it was: a fire that is due and not decided is not lost.
    sqlx::query!(
        "insert into schedule as s (tenant_id, pipeline_id, schedule_id, name, settings, next_fire_at)
         select $1, $2, n.schedule_id, n.name, n.settings, to_timestamp(n.next_fire_s)
         from unnest($3::uuid[], $4::text[], $5::jsonb[], $6::bigint[]) as n (schedule_id, name, settings, next_fire_s)
         on conflict on constraint schedule_name_is_unique do update set settings = excluded.settings, removed_at = null,
             next_fire_at = case
                 when not s.enabled then null
                 when s.removed_at is null and s.settings->'cron' = excluded.settings->'cron'
                     and s.settings->'time_zone' = excluded.settings->'time_zone' then s.next_fire_at
                 else excluded.next_fire_at end",
        tenant,
        pipeline,
        &ids,
        &names,
        &settings,
        &next as &[Option<i64>],
    )
    .execute(connection)
    .await
    .doing(DOING)?;
    Ok(())
}

/// Fires of schedules that are to fire no more are missed, unless their run has been submitted.
async fn give_up_due_fires(connection: &mut Connection, tenant: &str, schedules: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "update schedule_fire set state = 'missed', missed_from = fire_at, taken_by = null, decided_at = now()
         where tenant_id = $1 and schedule_id = any($2) and state = 'due'",
        tenant,
        schedules,
    )
    .execute(connection)
    .await
    .doing("giving up the due fires of a schedule")?;
    Ok(())
}
