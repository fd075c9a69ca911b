//! Submitting a run: one transaction that workers see before it is on disk, and whoever submits it afterwards.

use flowstone::{
    pipeline::policy::Route,
    store::{Store, submissions::NewRun},
};
use flowstone_tests::{
    Database, Postgres,
    deadline::{DEADLINE, wait_until_database_says},
};
use sqlx::PgPool;

use crate::store::{Bench, PlannedJob, TENANT};

/// What is written of a run with a single job, at least, in bytes of the log.
const RUN_BYTES: i64 = 500;

#[tokio::test]
async fn what_was_submitted_is_on_disk_when_it_is_answered() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let in_one_statement: &[PlannedJob<'_>] = &[("a", "none", &[])];
    let in_several: &[PlannedJob<'_>] = &[("a", "none", &[]), ("b", "none", &[(0, false)])];
    for nth in 0..40 {
        let before: String = ask(&pool, "select pg_current_wal_insert_lsn()::text").await;
        bench.submit(if nth % 2 == 0 { in_one_statement } else { in_several }).await;
        let flushed: i64 = sqlx::query_scalar("select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), $1::pg_lsn)::bigint")
            .bind(&before)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert!(flushed > RUN_BYTES, "submission {nth}: {flushed} bytes of the log are on disk since before it");
    }
}

#[tokio::test]
async fn a_run_whose_lane_somebody_else_makes_at_the_same_time_is_written_once_and_in_that_lane() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let route = Route { queue: "fresh".into(), priority: 7, tags: ["big".to_owned(), "gpu".to_owned()].into() };
    let mut other = pool.begin().await.unwrap();
    let lane: i32 = sqlx::query_scalar(
        "insert into lane (tenant_id, pipeline_id, queue, priority, tags)
         select $1, pipeline_id, 'fresh', 7, '{big,gpu}' from pipeline returning lane_id",
    )
    .bind(TENANT)
    .fetch_one(&mut *other)
    .await
    .unwrap();
    let submitting = bench.submit_to(&route, &[("a", "none", &[]), ("b", "none", &[])]);
    let commit = async {
        let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%jsonb_to_recordset%')";
        wait_until_database_says(&pool, waits).await;
        other.commit().await.unwrap();
    };
    let ((run, jobs), ()) = tokio::join!(submitting, commit);
    let ready: Vec<(uuid::Uuid, i32)> =
        sqlx::query_as("select job_id, lane_id from job_ready order by job_id").fetch_all(&pool).await.unwrap();
    assert_eq!(ready, jobs.iter().map(|job| (job.0, lane)).collect::<Vec<_>>());
    let known = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((known.jobs, &*known.state), (2, "running"));
    assert_eq!(ask::<i64>(&pool, "select count(*) from audit where action = 'run.submitted'").await, 1);
}

/// Somebody waits for the standby that is not there.
const SOMEBODY_WAITS: &str = "select exists (select from pg_stat_activity where wait_event = 'SyncRep')";
const NOBODY_WAITS: &str = "select not exists (select from pg_stat_activity where wait_event = 'SyncRep')";
/// Tells whoever waits that it is safe, as the standby would.
const SAY_THAT_IT_IS_SAFE: &str = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'";

/// The server's disk cannot be made to wait; a standby that never confirms can, and the server waits for both in one place.
#[tokio::test]
async fn a_run_is_seen_before_it_is_safe_unless_it_reaches_others() {
    let server = Postgres::new().await;
    let bench = Bench::of(Database::new().await, Store::connect(server.options()).await.unwrap()).await;
    let pool = server.pool().await;
    // The lane is there: whoever makes one waits anyway.
    bench.submit(&[("a", "none", &[])]).await;
    let seen = async |run: &NewRun| -> bool {
        let found =
            sqlx::query_scalar("select exists (select from job_ready where job_id = $1)").bind(run.jobs[0].id.0);
        found.fetch_one(&pool).await.unwrap()
    };

    sqlx::query("alter system set synchronous_standby_names = 'nobody'").execute(&pool).await.unwrap();
    sqlx::query("select pg_reload_conf()").execute(&pool).await.unwrap();
    let writer = server.pool().await;
    // The server takes a moment to know it.
    let writing = tokio::spawn(async move {
        while sqlx::query("select pg_logical_emit_message(true, 'test', 'written')").execute(&writer).await.is_ok() {}
    });
    wait_until_database_says(&pool, SOMEBODY_WAITS).await;
    writing.abort();
    sqlx::query(SAY_THAT_IT_IS_SAFE).execute(&pool).await.unwrap();
    wait_until_database_says(&pool, NOBODY_WAITS).await;

    for reaches_out in [false, true] {
        let run = NewRun { reaches_out, ..bench.new_run(&Route::default(), &[("a", "none", &[])]) };
        let (store, submitted) = (bench.store.clone(), run.clone());
        let submitting = tokio::spawn(async move { store.submit_run(&submitted).await });
        wait_until_database_says(&pool, SOMEBODY_WAITS).await;
        assert_eq!(seen(&run).await, !reaches_out, "reaches out: {reaches_out}");
        assert!(!submitting.is_finished(), "whoever submits it waits in either case");
        // Of the announcement, which is no data, too.
        let confirm = async {
            while !submitting.is_finished() {
                sqlx::query(SAY_THAT_IT_IS_SAFE).execute(&pool).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, confirm).await.expect("it is answered when it is safe");
        submitting.await.unwrap().unwrap();
        assert!(seen(&run).await);
    }
}

async fn ask<T>(pool: &PgPool, question: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(question).fetch_one(pool).await.expect("the question can be asked")
}
