//! Attempts that have ended, with their logs.

use super::{Store, StoreError, column, error::Doing as _};
use crate::{
    id::{AttemptId, ClaimToken, JobId, RunId},
    limit::LIST_ROWS_MAX,
};

/// An attempt with its log.
#[derive(Clone, Debug)]
pub struct AttemptLog {
    /// Its id.
    pub id: AttemptId,
    /// The job's.
    pub job: JobId,
    /// Of the claim that it was made under.
    pub token: ClaimToken,
    /// What was being made.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// 1 for the first charged one.
    pub number: i32,
    /// How it ended.
    pub verdict: String,
    /// In words.
    pub message: Option<String>,
    /// Whether it counts.
    pub charged: bool,
    /// Units.
    pub fuel_used: i64,
    /// Summed over all memories.
    pub memory_bytes_peak: i64,
    /// From claim to verdict.
    pub duration_us: i64,
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    /// A JSON array of lines.
    pub log: Option<serde_json::Value>,
    /// Lines past the limit.
    pub log_dropped: i64,
    /// A JSON array.
    pub denials: Option<serde_json::Value>,
    /// A JSON array.
    pub uses: Option<serde_json::Value>,
}

impl Store {
    /// The attempts of the jobs with these ids, oldest first.
    pub async fn list_attempts_of(&self, tenant: &str, jobs: &[JobId]) -> Result<Vec<AttemptLog>, StoreError> {
        sqlx::query_as!(
            AttemptLog,
            r#"select t.attempt_id as "id: AttemptId", t.job_id as "job: JobId", t.token as "token: ClaimToken", a.name as asset, j.partition_key, t.number, t.verdict, t.message,
                      t.charged, t.fuel_used, t.memory_bytes_peak, t.duration_us,
                      (extract(epoch from t.started_at) * 1000)::bigint as "started_at_ms!",
                      t.log, t.log_dropped, t.denials, t.uses
               from unnest($2::uuid[]) as c (job_id)
               cross join lateral (select * from job where tenant_id = $1 and job_id = c.job_id offset 0) j
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               cross join lateral (select * from attempt where tenant_id = $1 and job_id = j.job_id offset 0) t
               order by t.started_at, t.attempt_id"#,
            tenant,
            &column(jobs, |job| job.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading logs")
    }

    /// The attempts of a run with their logs, oldest first, of one asset and partition or of all.
    pub async fn list_attempts(
        &self,
        tenant: &str,
        run: RunId,
        asset: Option<&str>,
        partition_key: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AttemptLog>, StoreError> {
        sqlx::query_as!(
            AttemptLog,
            r#"select t.attempt_id as "id: AttemptId", t.job_id as "job: JobId", t.token as "token: ClaimToken", a.name as asset, j.partition_key, t.number, t.verdict, t.message,
                      t.charged, t.fuel_used, t.memory_bytes_peak, t.duration_us,
                      (extract(epoch from t.started_at) * 1000)::bigint as "started_at_ms!",
                      t.log, t.log_dropped, t.denials, t.uses
               from job j
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               join attempt t on t.tenant_id = j.tenant_id and t.job_id = j.job_id
               where j.tenant_id = $1 and j.run_id = $2 and ($3::text is null or a.name = $3)
                 and ($4::text is null or j.partition_key = $4)
               order by t.started_at, t.attempt_id limit $5"#,
            tenant,
            run.0,
            asset as Option<&str>,
            partition_key as Option<&str>,
            limit.min(LIST_ROWS_MAX),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading logs")
    }
}
