//! What attempts that still run have said so far.
//!
//! The worker adds it as it comes, for whoever follows the run, and the job's commit takes it out: the attempt's record, if it
//! has one, has the whole log. When the worker dies, what was told until then goes into the record of the lost attempt.

use serde_json::Value;

use super::{Connection, Store, StoreError, column, error::Doing as _, queue::Claim};
use crate::id::{ClaimToken, JobId, RunId};

/// Lines that an attempt said one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct NewLines {
    /// The lease that they were said under.
    pub claim: Claim,
    /// The job's run.
    pub run: RunId,
    /// How many lines came before.
    pub first_line: usize,
    /// A JSON array of lines.
    pub lines: Value,
}

impl NewLines {
    /// How many lines came before those that are still to come.
    pub fn through(&self) -> usize {
        self.first_line + self.lines.as_array().map_or(0, Vec::len)
    }
}

/// An attempt that runs and has told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingAttempt {
    /// Whose it is.
    pub job: JobId,
    /// Its claim.
    pub token: ClaimToken,
    /// What is being made.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// 1 for the first charged one.
    pub number: i32,
    /// When the job was claimed, in milliseconds since 1970.
    pub claimed_at_ms: i64,
    /// How many lines came before the last that it told together.
    pub last_line: i32,
}

impl TellingAttempt {
    /// What tells it from every other attempt.
    pub fn key(&self) -> (JobId, ClaimToken) {
        (self.job, self.token)
    }
}

/// Lines that an attempt told.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldLines {
    /// Whose it is, and its claim.
    pub attempt: (JobId, ClaimToken),
    /// How many lines came before.
    pub first_line: i32,
    /// A JSON array of lines.
    pub lines: Value,
}

impl Store {
    /// Adds what attempts have said since; of those whose lease is gone, or about to be, nothing. Returns whose lines were
    /// added. Lines that an earlier try added, whose answer was lost, are replaced by what there is of them now.
    ///
    /// The leases are held until the lines are there, so that whoever ends one finds them; one that is being ended is
    /// passed over, so that no other end waits for this.
    pub async fn add_running_lines(&self, told: &[NewLines]) -> Result<Vec<(JobId, ClaimToken)>, StoreError> {
        let added = sqlx::query!(
            r#"with told as materialized (
                 select * from unnest((select $1::text[]), $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::jsonb[])
                     as t (tenant_id, run_id, job_id, token, first_line, lines)),
             held as materialized (
                 select t.* from told t cross join lateral (
                     select from job_lease l where l.tenant_id = t.tenant_id and l.job_id = t.job_id
                         and l.token = t.token for key share skip locked) l)
             insert into running_log (tenant_id, run_id, job_id, token, first_line, lines)
             select tenant_id, run_id, job_id, token, first_line, lines from held
             on conflict (tenant_id, run_id, job_id, token, first_line) do update set lines = excluded.lines
             returning job_id, token"#,
            &column(told, |new| &*new.claim.tenant) as &[&str],
            &column(told, |new| new.run.0),
            &column(told, |new| new.claim.job.0),
            &column(told, |new| new.claim.token.0),
            &column(told, |new| new.first_line as i32),
            &column(told, |new| &new.lines) as &[&Value],
        )
        .fetch_all(&self.pool)
        .await
        .doing("telling what attempts say")?;
        Ok(added.into_iter().map(|row| (JobId(row.job_id), ClaimToken(row.token))).collect())
    }

    /// The running attempts of a run that have told something, of one asset and partition or of all. However much each
    /// has told, it is one look.
    pub async fn list_telling_attempts(
        &self,
        tenant: &str,
        run: RunId,
        asset: Option<&str>,
        partition_key: Option<&str>,
    ) -> Result<Vec<TellingAttempt>, StoreError> {
        sqlx::query_as!(
            TellingAttempt,
            r#"select l.job_id as "job: JobId", l.token as "token: ClaimToken", a.name as asset, j.partition_key,
                      l.charged + 1 as "number!", (extract(epoch from l.claimed_at) * 1000)::bigint as "claimed_at_ms!",
                      r.first_line as last_line
               from job_lease l
               cross join lateral (
                   select first_line from running_log
                   where tenant_id = $1 and run_id = $2 and job_id = l.job_id and token = l.token
                   order by first_line desc limit 1) r
               cross join lateral (
                   select asset_version_id, partition_key from job
                   where tenant_id = $1 and job_id = l.job_id offset 0) j
               join asset_version v on v.tenant_id = $1 and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = $1 and a.asset_id = v.asset_id
               where l.tenant_id = $1
                 and (select exists (select from running_log where tenant_id = $1 and run_id = $2))
                 and ($3::text is null or a.name = $3) and ($4::text is null or j.partition_key = $4)
               order by l.claimed_at, l.job_id"#,
            tenant,
            run.0,
            asset,
            partition_key,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for what attempts say")
    }

    /// What these attempts told after the first so many lines, in their order; one that has ended meanwhile has it in its
    /// record.
    pub async fn read_told_lines(
        &self,
        tenant: &str,
        run: RunId,
        attempts: &[((JobId, ClaimToken), i32)],
    ) -> Result<Vec<ToldLines>, StoreError> {
        let rows = sqlx::query!(
            r#"select p.job_id as "job!: JobId", p.token as "token!: ClaimToken", r.first_line, r.lines
               from unnest($3::uuid[], $4::uuid[], $5::int[]) with ordinality as p (job_id, token, after, place)
               cross join lateral (
                   select first_line, lines from running_log
                   where tenant_id = $1 and run_id = $2 and job_id = p.job_id and token = p.token
                     and first_line >= p.after
                   order by first_line) r
               order by p.place, r.first_line"#,
            tenant,
            run.0,
            &column(attempts, |((job, _), _)| job.0),
            &column(attempts, |((_, token), _)| token.0),
            &column(attempts, |(_, after)| *after),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading what attempts say")?;
        let told = rows.into_iter().map(|row| ToldLines {
            attempt: (row.job, row.token),
            first_line: row.first_line,
            lines: row.lines,
        });
        Ok(told.collect())
    }

    /// Removes what was told under leases that are gone, as when a process of an earlier version rescued them.
    pub async fn remove_stray_lines(&self) -> Result<u64, StoreError> {
        let removed = sqlx::query!(
            "delete from running_log r where not exists (
                 select from job_lease l where l.tenant_id = r.tenant_id and l.job_id = r.job_id and l.token = r.token)"
        )
        .execute(&self.pool)
        .await
        .doing("removing what ended attempts said")?;
        Ok(removed.rows_affected())
    }
}

/// Removes what these attempts have told.
pub(super) async fn remove_told_lines(
    connection: &mut Connection,
    attempts: &[(&Claim, RunId)],
) -> Result<(), StoreError> {
    if attempts.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from running_log r
         using unnest((select $1::text[]), $2::uuid[], $3::uuid[], $4::uuid[]) as t (tenant_id, run_id, job_id, token)
         where r.tenant_id = t.tenant_id and r.run_id = t.run_id and r.job_id = t.job_id and r.token = t.token",
        &column(attempts, |(claim, _)| &*claim.tenant) as &[&str],
        &column(attempts, |(_, run)| run.0),
        &column(attempts, |(claim, _)| claim.job.0),
        &column(attempts, |(claim, _)| claim.token.0),
    )
    .execute(connection)
    .await
    .doing("removing what ended attempts said")?;
    Ok(())
}
