//! A job that very many wait for: its commit leaves them to transactions of their own, and nobody else waits for those.

use flowstone::{
    id::{JobId, RunId},
    limit::{RELEASE_BATCH_MAX, RELEASE_INLINE_MAX},
    store::{
        Store,
        commit::{Committed, Ending, FinishedJob},
        queue::{Claim, ClaimedJob},
    },
};
use flowstone_tests::{
    Database, Flowstone,
    deadline::wait_until_database_says,
    fault::{self, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When, let_sessions_expire},
    pipeline::root,
};

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT},
};

/// More than two batches.
const WIDTH: usize = 10_000;
const BATCHES: usize = WIDTH.div_ceil(RELEASE_BATCH_MAX as usize);

/// A run of one `a` and many `b` that read it, and a `c` that reads the last `b`.
async fn submit_fan(bench: &Bench, width: usize) -> (RunId, Vec<JobId>) {
    let keys: Vec<String> = (0..width).map(|n| format!("k=static:{n}")).collect();
    let mut jobs = vec![("a", "none", &[][..])];
    jobs.extend(keys.iter().map(|key| ("b", &**key, &[(0, false)][..])));
    let last = [(width, false)];
    jobs.push(("c", "none", &last));
    bench.submit(&jobs).await
}

/// Ends the one job that is ready.
async fn end_first(bench: &Bench, run: RunId, ending: Ending) -> Committed {
    let job = bench.claim_jobs(1).await.pop().expect("a job is ready");
    commit_wide(bench, job, run, ending).await
}

/// Ends a job as a worker would: with how many wait for it.
async fn commit_wide(bench: &Bench, job: ClaimedJob, run: RunId, ending: Ending) -> Committed {
    let finished = FinishedJob { dependents: job.dependents, ..bench.finished(job.claim, run, ending) };
    bench.store.commit_finished_jobs(&[finished]).await.unwrap()
}

#[tokio::test]
async fn few_dependents_are_released_by_the_commit_and_many_are_not() {
    for (width, put_off) in [(RELEASE_INLINE_MAX as usize, 0), (RELEASE_INLINE_MAX as usize + 1, 1)] {
        let bench = Bench::new().await;
        let (run, _) = submit_fan(&bench, width).await;
        let committed = end_first(&bench, run, bench.made("a", "none", b"a", vec![])).await;
        assert_eq!((committed.put_off, committed.released), (put_off, if put_off == 0 { width } else { 0 }));
        assert_eq!(bench.count("job_release").await, put_off as i64);
        if put_off > 0 {
            let released = bench.store.release_next_dependents().await.unwrap().unwrap();
            assert_eq!((released.released, released.ended.len()), (width, 0));
        }
        assert!(bench.store.release_next_dependents().await.unwrap().is_none());
        assert_eq!(bench.count("job_ready").await, width as i64);
    }
}

#[tokio::test]
async fn a_fan_is_released_batch_by_batch_and_another_run_does_not_wait_for_it() {
    let bench = Bench::new().await;
    let (run, _) = submit_fan(&bench, WIDTH).await;
    let committed = end_first(&bench, run, bench.made("a", "none", b"a", vec![])).await;
    assert_eq!((committed.ended.len(), committed.released, committed.put_off), (1, 0, 1), "nothing in the commit");
    assert_eq!(bench.count("job_blocked").await, WIDTH as i64 + 1);

    let mut batches = Vec::new();
    loop {
        // Between any two batches another run's job is claimed, before what the batch released, and committed.
        let (other, _) = bench.submit(&[("a", "k=static:other", &[])]).await;
        let made = bench.made("a", "k=static:other", b"other", vec![]);
        let claimed = bench.claim_jobs(WIDTH as i64 + 1).await;
        let (mut theirs, claims): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|job| job.run == other);
        let theirs = theirs.pop().expect("it is ready").claim;
        let claims: Vec<Claim> = claims.into_iter().map(|job| job.claim).collect();
        let committed = bench.store.commit_finished_jobs(&[bench.finished(theirs, other, made)]).await.unwrap();
        assert_eq!(committed.ended.len(), 1);
        assert_eq!(bench.store.find_run(TENANT, other).await.unwrap().unwrap().state, "succeeded");
        for claims in claims.chunks(500) {
            let finished = |claim: &Claim| {
                let made = bench.made("b", &format!("k=static:{}", claim.job), b"b", vec![]);
                bench.finished(claim.clone(), run, made)
            };
            let batch: Vec<_> = claims.iter().map(finished).collect();
            bench.store.commit_finished_jobs(&batch).await.unwrap();
        }
        let state = bench.store.find_run(TENANT, run).await.unwrap().unwrap().state;
        assert_eq!(state, "running", "a run is not over while dependents are to be released");
        let Some(released) = bench.store.release_next_dependents().await.unwrap() else { break };
        batches.push(released.released);
    }
    assert_eq!(batches.len(), BATCHES);
    assert!(batches.iter().all(|released| *released <= RELEASE_BATCH_MAX as usize), "{batches:?}");
    assert_eq!(batches.iter().sum::<usize>(), WIDTH);

    let last = bench.made("c", "none", b"c", vec![]);
    end_first(&bench, run, last).await;
    let record = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((record.state.as_str(), record.succeeded as usize), ("succeeded", WIDTH + 2));
}

#[tokio::test]
async fn a_wide_failure_skips_its_dependents_batch_by_batch() {
    let bench = Bench::new().await;
    let (run, jobs) = submit_fan(&bench, WIDTH).await;
    let committed = end_first(&bench, run, Ending::Failed("no".to_owned())).await;
    assert_eq!((committed.ended.len(), committed.put_off), (1, 1));
    let mut ended = Vec::new();
    while let Some(released) = bench.store.release_next_dependents().await.unwrap() {
        assert!(released.ended.len() <= RELEASE_BATCH_MAX as usize + 1);
        assert_eq!(released.released, 0);
        ended.extend(released.ended);
    }
    assert_eq!(ended.len(), WIDTH + 1);
    assert!(ended.iter().all(|end| end.cause.as_deref() == Some("input a was not made: it failed")));
    assert!(ended.iter().any(|end| end.job == jobs[WIDTH + 1]), "what needs what was skipped is skipped too");
    let record = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((record.state.as_str(), record.failed, record.skipped as usize), ("failed", 1, WIDTH + 1));
    assert_eq!(bench.count("job_blocked").await, 0);
}

#[tokio::test]
async fn cancelling_ends_what_is_still_to_be_released() {
    let bench = Bench::new().await;
    let (run, _) = submit_fan(&bench, WIDTH).await;
    end_first(&bench, run, bench.made("a", "none", b"a", vec![])).await;
    assert!(bench.store.release_next_dependents().await.unwrap().is_some());
    assert!(bench.store.cancel_run(TENANT, run, "by hand").await.unwrap());
    let record = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((record.state.as_str(), record.cancelled as usize), ("cancelled", WIDTH + 1));
    while let Some(released) = bench.store.release_next_dependents().await.unwrap() {
        assert_eq!((released.released, released.ended.len()), (0, 0));
    }
    let left = [bench.count("job_release").await, bench.count("job_ready").await, bench.count("job_blocked").await];
    assert_eq!(left, [0, 0, 0]);
}

#[tokio::test]
async fn several_processes_release_each_dependent_once() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        submit_fan(&bench, WIDTH / 2).await;
    }
    for job in bench.claim_jobs(3).await {
        let made = bench.made("a", "none", b"a", vec![]);
        let run = job.run;
        commit_wide(&bench, job, run, made).await;
    }
    let processes: Vec<_> = (0..3)
        .map(|_| {
            let options = bench.database.options();
            tokio::spawn(async move {
                let store = Store::connect(options).await.unwrap();
                let mut released = 0;
                while let Some(batch) = store.release_next_dependents().await.unwrap() {
                    released += batch.released;
                }
                released
            })
        })
        .collect();
    let mut released = 0;
    for process in processes {
        released += process.await.unwrap();
    }
    // Whoever found all of them taken has ended early; nobody has taken one twice.
    while let Some(batch) = bench.store.release_next_dependents().await.unwrap() {
        released += batch.released;
    }
    assert_eq!(released, 3 * (WIDTH / 2));
    assert_eq!(bench.count("job_ready").await, released as i64);
}

/// The whole of it: a process is killed within a batch, when one batch before it is through; the next process makes
/// what is missing.
#[tokio::test]
async fn a_process_that_is_killed_while_it_releases_loses_nothing_and_repeats_nothing() {
    let database = Database::new().await;
    let flowstone = Flowstone::on(&database);
    let pool = database.pool().await;
    let blobs = flowstone.state_dir().join("blobs");
    let manifest = root().join("tests/guests/bench");
    let run = || ["run".to_owned(), manifest.display().to_string(), "noop_fan".to_owned(), "--json".to_owned()];

    let gate = Gate::close(&database).await;
    let second = "old.released_through <> '00000000-0000-0000-0000-000000000000'";
    let step = Step { table: "job_release", operation: "update", only: second };
    step.inject(&pool, When::After, Fault::Gated).await;
    let running = flowstone.start(run());
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    running.kill();
    gate.open().await;
    let_sessions_expire(&pool).await;
    fault::remove(&pool).await;
    assert_sound(&violations(&pool, &blobs).await);
    let blocked: i64 = sqlx::query_scalar("select count(*) from job_blocked").fetch_one(&pool).await.unwrap();
    assert_eq!(blocked, WIDTH as i64 - RELEASE_BATCH_MAX, "one batch is through, and the second is undone");

    flowstone.run(run()).expect_status(0);
    assert_sound(&violations(&pool, &blobs).await);
    let made: i64 = sqlx::query_scalar("select count(*) from materialization").fetch_one(&pool).await.unwrap();
    assert_eq!(made, WIDTH as i64 + 1, "each is made once");
    let left = "select (select count(*) from job_release) + (select count(*) from job_blocked)";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}
