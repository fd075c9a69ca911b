//! Backfills: their rows, the windows that are in flight, and what failed.
//!
//! Every change is guarded by what it was decided from: the place and the round for a release, the window's own row for its
//! count, the state for the rest. The backfill's row is locked first, then windows, then runs.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError, column,
    error::Doing as _,
    submissions::{Durable, NewRun, insert_run},
};
use crate::{
    id::{BackfillId, PipelineId, RunId},
    limit::{BACKFILL_WINDOWS_SETTLED_MAX, LIST_ROWS_MAX},
    pipeline::{backfill::WindowOutcome, ranges::IndexRanges},
};

/// A backfill on its way to the database.
#[derive(Clone, Debug)]
pub struct NewBackfill {
    /// Its id.
    pub id: BackfillId,
    /// Whose it is.
    pub tenant: String,
    /// Of what.
    pub pipeline: PipelineId,
    /// A [`crate::pipeline::backfill::BackfillSettings`] as JSON.
    pub settings: serde_json::Value,
    /// The dimensions of its assets, as JSON.
    pub dimensions: serde_json::Value,
    /// Which partitions.
    pub selected: IndexRanges,
    /// How many of them may be in flight.
    pub concurrency: u32,
    /// After how many failures nothing more is released.
    pub halt_after: Option<u32>,
}

/// A backfill as its row tells.
#[derive(Clone, Debug)]
pub struct BackfillRecord {
    /// Its id.
    pub id: BackfillId,
    /// The pipeline's name.
    pub pipeline: String,
    /// A [`crate::pipeline::backfill::BackfillSettings`] as JSON.
    pub settings: serde_json::Value,
    /// How many partitions may be in flight.
    pub concurrency: i32,
    /// After how many failures nothing more is released.
    pub halt_after: Option<i32>,
    /// `running`, `paused`, `halted`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Why it is halted.
    pub cause: Option<String>,
    /// Partitions in all.
    pub partitions: i32,
    /// Not released yet.
    pub waiting: i32,
    /// In runs whose end has not been counted.
    pub in_flight: i32,
    /// Were so before they came to be released.
    pub up_to_date: i32,
    /// Made by its runs, or found to be made.
    pub made: i32,
    /// Nothing was to be made, or it was too early.
    pub skipped: i32,
    /// Failed or cancelled, or what they need was.
    pub failed: i32,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Milliseconds since 1970.
    pub finished_at_ms: Option<i64>,
}

/// Partitions that failed, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// The first.
    pub first: i32,
    /// The last.
    pub last: i32,
    /// In which run.
    pub run: RunId,
    /// Why the first of them did.
    pub cause: String,
}

/// What a backfill's partitions are.
#[derive(Clone, Debug)]
pub struct BackfillScope {
    /// The pipeline's name.
    pub pipeline: String,
    /// A [`crate::pipeline::backfill::BackfillSettings`] as JSON.
    pub settings: serde_json::Value,
    /// The dimensions of its assets, as JSON.
    pub dimensions: serde_json::Value,
    /// Which of the partitions are released in this round.
    pub selected: IndexRanges,
    /// What time it is, in milliseconds since 1970.
    pub now_ms: i64,
}

/// Where a running backfill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackfillPlace {
    /// Which round of its partitions.
    pub round: i32,
    /// How many of the selected have been released.
    pub cursor: i32,
    /// How many are selected.
    pub selected: i32,
    /// How many may be in flight.
    pub concurrency: i32,
    /// Windows whose end has not been counted.
    pub windows: i64,
    /// Partitions whose jobs have not ended.
    pub in_flight: i64,
    /// Partitions that failed.
    pub failed: i32,
    /// Jobs that failed in windows whose end has not been counted.
    pub failing: i64,
    /// So many failures and nothing more is released.
    pub failed_max: Option<i32>,
}

/// What of a backfill's partitions is released, and what failed.
#[derive(Clone, Debug)]
pub struct BackfillRest {
    /// As in [`BackfillRecord`].
    pub state: String,
    /// Which round of its partitions.
    pub round: i32,
    /// How many of the selected have been released.
    pub cursor: i32,
    /// How many failed.
    pub failed: i32,
    /// Which are released in this round.
    pub selected: IndexRanges,
    /// Which failed.
    pub failures: IndexRanges,
    /// Whether a window is in flight.
    pub in_flight: bool,
}

/// A window that is to be released.
#[derive(Clone, Debug)]
pub struct NewWindow {
    /// Of which backfill.
    pub backfill: BackfillId,
    /// From where.
    pub place: BackfillPlace,
    /// How many partitions are released.
    pub released: i32,
    /// How many of them were up to date.
    pub up_to_date: i32,
    /// How many cannot be made yet.
    pub skipped: i32,
    /// Which of them the run makes.
    pub selected: IndexRanges,
}

/// A window whose run is over.
#[derive(Clone, Debug)]
pub struct EndedWindow {
    /// Its run.
    pub run: RunId,
    /// What it was to make.
    pub selected: IndexRanges,
    /// Whether all jobs succeeded.
    pub all_made: bool,
    /// Whether the run's record has gone.
    pub forgotten: bool,
}

/// A job of a window that made nothing.
#[derive(Clone, Debug)]
pub struct UnmadeJob {
    /// Canonical text.
    pub partition_key: String,
    /// Whether it, or what it needs, failed or was cancelled.
    pub failed: bool,
    /// Why.
    pub cause: String,
}

impl Store {
    /// Writes a backfill. Nothing of it is released yet.
    pub async fn insert_backfill(&self, new: &NewBackfill) -> Result<(), StoreError> {
        sqlx::query!(
            "with started as (
                 insert into backfill (tenant_id, backfill_id, pipeline_id, settings, dimensions, concurrency, halt_after,
                     failed_max, partitions, selected, selected_partitions)
                 values ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9::text::int4multirange, $8)
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'backfill.started', $10, jsonb_build_object('partitions', $8::int, 'request', $4::jsonb)
             from started",
            new.tenant,
            new.id.0,
            new.pipeline.0,
            new.settings,
            new.dimensions,
            new.concurrency as i32,
            new.halt_after.map(|after| after as i32),
            new.selected.len() as i32,
            multirange(&new.selected),
            new.id.to_string(),
        )
        .execute(&self.pool)
        .await
        .doing("starting a backfill")?;
        Ok(())
    }

    /// One backfill.
    pub async fn find_backfill(&self, tenant: &str, id: BackfillId) -> Result<Option<BackfillRecord>, StoreError> {
        Ok(self.select_backfills(tenant, Some(id.0), None, 1).await?.pop())
    }

    /// The newest backfills first, of one pipeline or of all.
    pub async fn list_backfills(
        &self,
        tenant: &str,
        pipeline: Option<&str>,
        limit: i64,
    ) -> Result<Vec<BackfillRecord>, StoreError> {
        self.select_backfills(tenant, None, pipeline, limit.min(LIST_ROWS_MAX)).await
    }

    async fn select_backfills(
        &self,
        tenant: &str,
        id: Option<Uuid>,
        pipeline: Option<&str>,
        limit: i64,
    ) -> Result<Vec<BackfillRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select b.backfill_id, p.name as pipeline, b.settings, b.concurrency, b.halt_after, b.state, b.cause,
                      b.partitions, b.selected_partitions - b.cursor as "waiting!",
                      coalesce((select sum(w.partitions) from backfill_window w
                          where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id), 0)::int as "in_flight!",
                      b.up_to_date, b.made, b.skipped, b.failed,
                      (extract(epoch from b.created_at) * 1000)::bigint as "created_at_ms!",
                      (extract(epoch from b.finished_at) * 1000)::bigint as finished_at_ms
               from backfill b
               join pipeline p on p.tenant_id = b.tenant_id and p.pipeline_id = b.pipeline_id
               where b.tenant_id = $1 and ($2::uuid is null or b.backfill_id = $2) and ($3::text is null or p.name = $3)
               order by b.backfill_id desc limit $4"#,
            tenant,
            id as Option<Uuid>,
            pipeline as Option<&str>,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading backfills")?;
        Ok(rows
            .into_iter()
            .map(|row| BackfillRecord {
                id: BackfillId(row.backfill_id),
                pipeline: row.pipeline,
                settings: row.settings,
                concurrency: row.concurrency,
                halt_after: row.halt_after,
                state: row.state,
                cause: row.cause,
                partitions: row.partitions,
                waiting: row.waiting,
                in_flight: row.in_flight,
                up_to_date: row.up_to_date,
                made: row.made,
                skipped: row.skipped,
                failed: row.failed,
                created_at_ms: row.created_at_ms,
                finished_at_ms: row.finished_at_ms,
            })
            .collect())
    }

    /// What failed of a backfill, as ranges in order.
    pub async fn list_backfill_failures(
        &self,
        tenant: &str,
        id: BackfillId,
        limit: i64,
    ) -> Result<Vec<FailureRecord>, StoreError> {
        let rows = sqlx::query!(
            "select first_partition, last_partition, run_id, cause from backfill_failure
             where tenant_id = $1 and backfill_id = $2 order by first_partition limit $3",
            tenant,
            id.0,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading what failed of a backfill")?;
        Ok(rows
            .into_iter()
            .map(|row| FailureRecord {
                first: row.first_partition,
                last: row.last_partition,
                run: RunId(row.run_id),
                cause: row.cause,
            })
            .collect())
    }

    /// What a backfill's partitions are.
    pub async fn find_backfill_scope(&self, tenant: &str, id: BackfillId) -> Result<Option<BackfillScope>, StoreError> {
        let row = sqlx::query!(
            r#"select p.name as pipeline, b.settings, b.dimensions, b.selected::text as "selected!",
                      (extract(epoch from now()) * 1000)::bigint as "now_ms!"
               from backfill b
               join pipeline p on p.tenant_id = b.tenant_id and p.pipeline_id = b.pipeline_id
               where b.tenant_id = $1 and b.backfill_id = $2"#,
            tenant,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reading the partitions of a backfill")?;
        row.map(|row| {
            Ok(BackfillScope {
                pipeline: row.pipeline,
                settings: row.settings,
                dimensions: row.dimensions,
                selected: read_multirange(&row.selected)?,
                now_ms: row.now_ms,
            })
        })
        .transpose()
    }

    /// Backfills that somebody has to look at, with whose they are: those that run, and those with windows in flight.
    pub async fn list_active_backfills(&self) -> Result<Vec<(String, BackfillId)>, StoreError> {
        let rows = sqlx::query!(
            r#"select tenant_id as "tenant_id!", backfill_id as "backfill_id!" from (
                   select tenant_id, backfill_id from backfill where state = 'running'
                   union select tenant_id, backfill_id from backfill_window) as active
               -- Of more than one look takes each has its turn.
               order by random() limit $1"#,
            LIST_ROWS_MAX,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for backfills")?;
        Ok(rows.into_iter().map(|row| (row.tenant_id, BackfillId(row.backfill_id))).collect())
    }

    /// Where a backfill stands; absent unless it is running.
    pub async fn find_backfill_place(&self, tenant: &str, id: BackfillId) -> Result<Option<BackfillPlace>, StoreError> {
        let row = sqlx::query!(
            r#"select b.round, b.cursor, b.selected_partitions, b.concurrency, b.failed, b.failed_max,
                      w.windows as "windows!", w.in_flight as "in_flight!", w.failing as "failing!"
               from backfill b cross join lateral (
                   select count(*) as windows, coalesce(sum(r.failed), 0)::bigint as failing,
                          coalesce(sum(least(w.partitions, r.jobs - r.succeeded - r.skipped - r.failed - r.cancelled)), 0)::bigint
                              as in_flight
                   from backfill_window w left join run r on r.tenant_id = w.tenant_id and r.run_id = w.run_id
                   where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id) w
               where b.tenant_id = $1 and b.backfill_id = $2 and b.state = 'running'"#,
            tenant,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking where a backfill stands")?;
        Ok(row.map(|row| BackfillPlace {
            round: row.round,
            cursor: row.cursor,
            selected: row.selected_partitions,
            concurrency: row.concurrency,
            windows: row.windows,
            in_flight: row.in_flight,
            failed: row.failed,
            failing: row.failing,
            failed_max: row.failed_max,
        }))
    }

    /// Moves a backfill on from a place, and writes the run of what is released, in one transaction. False: it does not
    /// stand there any more, and nothing was written. A window of which nothing is to be made has no run.
    pub async fn release_window(
        &self,
        tenant: &str,
        window: &NewWindow,
        run: Option<&NewRun>,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "releasing a window of a backfill";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let moved = sqlx::query!(
            "update backfill set cursor = cursor + $5, up_to_date = up_to_date + $6, skipped = skipped + $7
             where tenant_id = $1 and backfill_id = $2 and state = 'running' and round = $3 and cursor = $4",
            tenant,
            window.backfill.0,
            window.place.round,
            window.place.cursor,
            window.released,
            window.up_to_date,
            window.skipped,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(run) = run {
            insert_run(&mut transaction, run, "backfill", Durable::ByCommit).await?;
            sqlx::query!(
                "insert into backfill_window (tenant_id, backfill_id, run_id, selected, partitions)
                 values ($1, $2, $3, $4::text::int4multirange, $5)",
                tenant,
                window.backfill.0,
                run.id.0,
                multirange(&window.selected),
                window.selected.len() as i32,
            )
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(true)
    }

    /// Windows of a backfill whose runs are over and have not been counted.
    pub async fn list_ended_windows(&self, tenant: &str, id: BackfillId) -> Result<Vec<EndedWindow>, StoreError> {
        let rows = sqlx::query!(
            r#"select w.run_id, w.selected::text as "selected!", r.run_id is null as "forgotten!",
                      coalesce(r.succeeded = r.jobs, false) as "all_made!"
               from backfill_window w
               left join run r on r.tenant_id = w.tenant_id and r.run_id = w.run_id
               where w.tenant_id = $1 and w.backfill_id = $2 and (r.run_id is null or r.state <> 'running')
               order by w.run_id limit $3"#,
            tenant,
            id.0,
            BACKFILL_WINDOWS_SETTLED_MAX,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for ended windows")?;
        rows.into_iter()
            .map(|row| {
                Ok(EndedWindow {
                    run: RunId(row.run_id),
                    selected: read_multirange(&row.selected)?,
                    all_made: row.all_made,
                    forgotten: row.forgotten,
                })
            })
            .collect()
    }

    /// The jobs of some assets in a run that made nothing. What was skipped for an input counts as what that input did:
    /// the cause ends with it, as [`super::commit`] writes it.
    pub async fn list_unmade_of_assets(
        &self,
        tenant: &str,
        run: RunId,
        assets: &[String],
    ) -> Result<Vec<UnmadeJob>, StoreError> {
        let rows = sqlx::query!(
            r#"select j.partition_key, coalesce(e.cause, '') as "cause!",
                      (e.state <> 'skipped' or e.cause ~ '^input .* was not made: it (failed|cancelled)$') as "failed!"
               from job j
               join job_end e on e.tenant_id = j.tenant_id and e.job_id = j.job_id and e.state <> 'succeeded'
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               where j.tenant_id = $1 and j.run_id = $2 and a.name = any($3)
               order by j.job_id"#,
            tenant,
            run.0,
            assets,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading what a window left unmade")?;
        Ok(rows
            .into_iter()
            .map(|row| UnmadeJob { partition_key: row.partition_key, failed: row.failed, cause: row.cause })
            .collect())
    }

    /// Counts what became of a window. False: it has been counted.
    pub async fn settle_window(
        &self,
        tenant: &str,
        id: BackfillId,
        run: RunId,
        outcome: &WindowOutcome,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "counting a window of a backfill";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        lock_backfill(&mut transaction, tenant, id).await?;
        let removed = sqlx::query!(
            "delete from backfill_window where tenant_id = $1 and backfill_id = $2 and run_id = $3",
            tenant,
            id.0,
            run.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!(
            "update backfill set made = made + $3, skipped = skipped + $4, failed = failed + $5,
                 -- A cancelled one is over already; what it had in flight ends now.
                 finished_at = case when finished_at is not null then now() end
             where tenant_id = $1 and backfill_id = $2",
            tenant,
            id.0,
            outcome.made as i32,
            outcome.skipped as i32,
            outcome.failed as i32,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        sqlx::query!(
            "insert into backfill_failure (tenant_id, backfill_id, first_partition, last_partition, run_id, cause)
             select $1, $2, f.first_partition, f.last_partition, $3, f.cause
             from unnest($4::int[], $5::int[], $6::text[]) as f (first_partition, last_partition, cause)",
            tenant,
            id.0,
            run.0,
            &column(&outcome.failures, |range| range.first as i32),
            &column(&outcome.failures, |range| range.last as i32),
            &column(&outcome.failures, |range| range.cause.clone()),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Lets a backfill release nothing more until somebody says so. False: it does not stand there any more.
    pub async fn halt_backfill(
        &self,
        tenant: &str,
        id: BackfillId,
        place: &BackfillPlace,
        cause: &str,
    ) -> Result<bool, StoreError> {
        let halted = sqlx::query!(
            "with halted as (
                 update backfill set state = 'halted', cause = $5
                 where tenant_id = $1 and backfill_id = $2 and state = 'running' and round = $3 and cursor = $4
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'backfill', 'backfill.halted', $6, jsonb_build_object('cause', $5::text) from halted",
            tenant,
            id.0,
            place.round,
            place.cursor,
            cause,
            id.to_string(),
        )
        .execute(&self.pool)
        .await
        .doing("halting a backfill")?;
        Ok(halted.rows_affected() == 1)
    }

    /// Ends a backfill of which all is released and counted; returns its state. Absent: it is not so far, or it has ended.
    pub async fn end_backfill(&self, tenant: &str, id: BackfillId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!(
            r#"with ended as (
                 update backfill b set state = case when failed > 0 then 'failed' else 'succeeded' end, finished_at = now()
                 where tenant_id = $1 and backfill_id = $2 and state = 'running' and cursor = selected_partitions
                   and not exists (select from backfill_window w
                       where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id)
                 returning tenant_id, state, failed)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'backfill', 'backfill.' || state, $3, jsonb_build_object('failed', failed) from ended
             returning substr(action, 10) as "state!""#,
            tenant,
            id.0,
            id.to_string(),
        )
        .fetch_optional(&self.pool)
        .await
        .doing("ending a backfill")
    }

    /// Lets a backfill release nothing more for now. What is in flight goes on. False: it does not run.
    pub async fn pause_backfill(&self, tenant: &str, id: BackfillId) -> Result<bool, StoreError> {
        let paused = sqlx::query!(
            "with paused as (
                 update backfill set state = 'paused' where tenant_id = $1 and backfill_id = $2 and state = 'running'
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'backfill.paused', $3, '{}' from paused",
            tenant,
            id.0,
            id.to_string(),
        )
        .execute(&self.pool)
        .await
        .doing("pausing a backfill")?;
        Ok(paused.rows_affected() == 1)
    }

    /// Lets a paused or halted backfill go on; a halted one may fail as often again. False: it is neither.
    pub async fn resume_backfill(&self, tenant: &str, id: BackfillId) -> Result<bool, StoreError> {
        let resumed = sqlx::query!(
            "with resumed as (
                 update backfill set state = 'running', cause = null,
                     failed_max = case when state = 'halted' then failed + halt_after else failed_max end
                 where tenant_id = $1 and backfill_id = $2 and state in ('paused', 'halted')
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'backfill.resumed', $3, '{}' from resumed",
            tenant,
            id.0,
            id.to_string(),
        )
        .execute(&self.pool)
        .await
        .doing("resuming a backfill")?;
        Ok(resumed.rows_affected() == 1)
    }

    /// What of a backfill's partitions is released, and what failed; absent when it is unknown.
    pub async fn find_backfill_rest(&self, tenant: &str, id: BackfillId) -> Result<Option<BackfillRest>, StoreError> {
        let row = sqlx::query!(
            r#"select b.state, b.round, b.cursor, b.failed, b.selected::text as "selected!",
                      (select coalesce(range_agg(int4range(f.first_partition, f.last_partition, '[]')), '{}')::text
                          from backfill_failure f
                          where f.tenant_id = b.tenant_id and f.backfill_id = b.backfill_id) as "failures!",
                      exists (select from backfill_window w
                          where w.tenant_id = b.tenant_id and w.backfill_id = b.backfill_id) as "in_flight!"
               from backfill b where b.tenant_id = $1 and b.backfill_id = $2"#,
            tenant,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reading what failed of a backfill")?;
        row.map(|row| {
            Ok(BackfillRest {
                state: row.state,
                round: row.round,
                cursor: row.cursor,
                failed: row.failed,
                selected: read_multirange(&row.selected)?,
                failures: read_multirange(&row.failures)?,
                in_flight: row.in_flight,
            })
        })
        .transpose()
    }

    /// Begins a round of these partitions, and forgets what failed before. False: it is not as it was read, and nothing is
    /// changed.
    pub async fn retry_backfill(
        &self,
        tenant: &str,
        id: BackfillId,
        rest: &BackfillRest,
        selected: &IndexRanges,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "trying again what failed of a backfill";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let begun = sqlx::query!(
            "with begun as (
                 update backfill set round = round + 1, cursor = 0, selected = $6::text::int4multirange,
                     selected_partitions = $7, failed = 0, failed_max = halt_after, state = 'running', cause = null,
                     finished_at = null
                 where tenant_id = $1 and backfill_id = $2 and round = $3 and cursor = $4 and failed = $5 and state = $8
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'backfill.retried', $9, jsonb_build_object('failed', $5::int) from begun",
            tenant,
            id.0,
            rest.round,
            rest.cursor,
            rest.failed,
            multirange(selected),
            selected.len() as i32,
            rest.state,
            id.to_string(),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if begun.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!("delete from backfill_failure where tenant_id = $1 and backfill_id = $2", tenant, id.0)
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Ends a backfill by hand: nothing more is released, and the runs of what is in flight are cancelled; returns how many
    /// those are. Absent: it is unknown or over.
    pub async fn cancel_backfill(&self, tenant: &str, id: BackfillId) -> Result<Option<u64>, StoreError> {
        const DOING: &str = "cancelling a backfill";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let ended = sqlx::query!(
            "with ended as (
                 update backfill set state = 'cancelled', cause = null, finished_at = now()
                 where tenant_id = $1 and backfill_id = $2 and finished_at is null
                 returning tenant_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'backfill.cancelled', $3, '{}' from ended",
            tenant,
            id.0,
            id.to_string(),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if ended.rows_affected() == 0 {
            return Ok(None);
        }
        let runs = sqlx::query!(
            "with locked as (
                 select r.tenant_id, r.run_id from backfill_window w
                 join run r on r.tenant_id = w.tenant_id and r.run_id = w.run_id
                 where w.tenant_id = $1 and w.backfill_id = $2 and r.state = 'running' and r.cancel_requested_at is null
                 order by r.tenant_id, r.run_id for update of r),
             cancelled as (
                 update run r set cancel_requested_at = now(), cancel_cause = 'its backfill was cancelled'
                 from locked l where r.tenant_id = l.tenant_id and r.run_id = l.run_id
                 returning r.tenant_id, r.run_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'user', 'run.cancel-requested', run_id::text, jsonb_build_object('backfill', $2::uuid)
             from cancelled",
            tenant,
            id.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        self.end_waiting_jobs_of_cancelled_runs().await?;
        Ok(Some(runs.rows_affected()))
    }
}

/// Whoever changes a backfill and its windows goes by its row first.
async fn lock_backfill(connection: &mut Connection, tenant: &str, id: BackfillId) -> Result<(), StoreError> {
    sqlx::query_scalar!("select 1 from backfill where tenant_id = $1 and backfill_id = $2 for update", tenant, id.0)
        .fetch_optional(connection)
        .await
        .doing("locking a backfill")?;
    Ok(())
}

/// `{[0,3),[7,9)}`: a set as Postgres writes it.
fn multirange(set: &IndexRanges) -> String {
    let ranges: Vec<String> = set.ranges().iter().map(|range| format!("[{},{})", range.start, range.end)).collect();
    format!("{{{}}}", ranges.join(","))
}

fn read_multirange(text: &str) -> Result<IndexRanges, StoreError> {
    let unreadable = || StoreError::unreadable("ranges of partitions", text.chars().take(100).collect::<String>());
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(unreadable)?;
    let mut set = IndexRanges::default();
    let numbers: Vec<&str> = inside.split(['[', ')', ',']).filter(|number| !number.is_empty()).collect();
    for pair in numbers.chunks(2) {
        match pair {
            [from, to] => set.push(from.parse().map_err(|_| unreadable())?..to.parse().map_err(|_| unreadable())?),
            _ => return Err(unreadable()),
        }
    }
    set.normalize();
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        for ranges in [vec![], vec![(0, 1)], vec![(0, 1_000_000)], vec![(3, 4), (7, 9), (20, 21)]] {
            let mut set = IndexRanges::default();
            ranges.iter().for_each(|(from, to)| set.push(*from..*to));
            set.normalize();
            assert_eq!(read_multirange(&multirange(&set)).unwrap().ranges(), set.ranges());
        }
        for wrong in ["", "{", "{[1,2)", "{[1)}", "{[a,b)}"] {
            assert!(read_multirange(wrong).is_err(), "{wrong}");
        }
    }
}
