//! Retention of materializations: of each partition the newest keep their bytes, the facts of all stay, and nobody who is
//! about to use a result loses it. Real processes; the steps that meet are also taken one by one.

use std::{fs, time::Duration};

use flowstone::{
    blob::Digest,
    id::{JobId, MaterializationId, RunId},
    limit::COLLECT_PARTITIONS_MAX,
    pipeline::policy::Route,
    store::{
        Store, StoreError,
        commit::{Ending, FinishedJob},
        retention::{Amount, Collector, PartitionPlace},
        submissions::{InputOrigin, NewJob, NewJobInput, NewRun},
    },
};
use flowstone_tests::{
    Flowstone,
    pipeline::{Scenario, ended},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT},
    support::Draws,
};

/// At once, because a test does not wait for a day.
#[track_caller]
fn gc(flowstone: &Flowstone, arguments: &[&str]) -> Value {
    let output = flowstone.run([&["gc", "--json", "--keep-unnamed", "0s"], arguments].concat()).expect_status(0);
    serde_json::from_str(&output.stdout).unwrap()
}

async fn assert_sound_in(flowstone: &Flowstone, pool: &PgPool) {
    assert_sound(&violations(pool, &flowstone.state_dir().join("blobs")).await);
}

async fn count(pool: &PgPool, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(pool).await.unwrap()
}

/// So many files of long names: a listing of them is more than a row holds.
fn put_on_shelf(scenario: &Scenario, more: usize) {
    let shelf = scenario.folder().join("shelf");
    fs::remove_dir_all(&shelf).unwrap();
    fs::create_dir(&shelf).unwrap();
    for n in 0..300 + more {
        fs::write(shelf.join(format!("{n:060}.txt")), "").unwrap();
    }
}

const EXPIRED: &str = "select count(*) from invalidation where not keeps_bytes";

#[tokio::test]
async fn of_each_partition_the_newest_keep_their_bytes_and_the_others_their_facts() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    for more in 1..=4 {
        put_on_shelf(&scenario, more);
        scenario.run(&["listing", "large"], 0);
    }
    let stored = "select count(*) from blob where bytes is null and size_bytes between 16385 and 100000";
    assert_eq!(count(&pool, stored).await, 4);
    let kept = gc(flowstone, &[]);
    assert_eq!(kept["materializations"]["count"], 0, "by default all are kept");

    let would = gc(flowstone, &["--keep-materializations", "2", "--dry-run"]);
    assert_eq!(would["materializations"]["count"], 2, "{would}");
    assert_eq!(count(&pool, EXPIRED).await, 0, "a dry run changes nothing");
    let did = gc(flowstone, &["--keep-materializations", "2"]);
    assert_eq!((&did["materializations"], &did["blobs"]["count"]), (&would["materializations"], &2.into()), "{did}");
    assert_eq!(count(&pool, stored).await, 2);
    assert_eq!(count(&pool, "select count(*) from materialization").await, 5, "facts stay");
    assert_eq!(scenario.show("listing", None).lines().count(), 304);
    let again = gc(flowstone, &["--keep-materializations", "2"]);
    assert_eq!((&again["materializations"]["count"], &again["blobs"]["count"]), (&0.into(), &0.into()));
    assert_sound_in(flowstone, &pool).await;

    // What is kept is used again, and what is not runs again.
    put_on_shelf(&scenario, 3);
    assert_eq!(ended(&scenario.run(&["listing"], 0)), ["listing succeeded, reused"]);
    put_on_shelf(&scenario, 1);
    assert_eq!(ended(&scenario.run(&["listing"], 0)), ["listing succeeded"]);
    assert_eq!(scenario.show("listing", None).lines().count(), 301);
    assert_sound_in(flowstone, &pool).await;

    for refused in ["0", "-1", "all", "1000001"] {
        let told = flowstone.run(["gc", &format!("--keep-materializations={refused}")]).expect_status(2).stderr;
        assert!(told.contains("1000000") && told.contains("forever"), "{told}");
    }
}

fn with_factor(factor: u32) -> String {
    format!("[assets.doubled]\nconfig = {{ factor = {factor} }}\n")
}

#[tokio::test]
async fn lineage_tells_of_what_expired_and_what_was_made_of_it_is_used_on() {
    let scenario = Scenario::new(&with_factor(2));
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["verdict"], 0);
    scenario.bind(&with_factor(4));
    // Its verdict is of the parity that came out the same.
    let events = ended(&scenario.run(&["verdict"], 0));
    assert_eq!(events[..2], ["doubled succeeded", "parity succeeded"]);
    gc(flowstone, &["--keep-materializations", "1"]);
    assert_eq!(count(&pool, "select count(*) from blob where bytes = '[2,4,6,8,10]'").await, 0);
    let made_from_old = count(
        &pool,
        "select count(*) from lineage_edge e join invalidation i
             on i.materialization_id = e.upstream_materialization_id and not i.keeps_bytes
         join latest l on l.materialization_id = e.materialization_id",
    )
    .await;
    let lineage = flowstone.run(["lineage", "scenarios", "verdict"]).expect_status(0).stdout;
    assert_eq!(lineage.contains("its bytes were let go"), made_from_old > 0, "{lineage}");
    assert!(lineage.contains("doubled") && lineage.contains("numbers"), "{lineage}");
    assert_eq!(ended(&scenario.run(&["verdict", "sum"], 0)), ["sum succeeded"]);
    assert_eq!(scenario.show("sum", None), "60");
    assert_sound_in(flowstone, &pool).await;
}

/// Results come back that were let go, over and over, in the database and beside it, while a collector lets them go.
#[tokio::test]
async fn nothing_is_lost_when_results_are_used_again_while_collections_let_them_go_and_are_killed() {
    let scenario = Scenario::new(&with_factor(2));
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    let mut draws = Draws(5);
    let (mut killed, mut expired) = (0, 0);
    let wanted = ["sum", "verdict", "early_and_late", "listing"];
    for round in 0..14 {
        let factor = 2 + round % 3;
        scenario.bind(&with_factor(factor));
        put_on_shelf(&scenario, round as usize % 3);
        let arguments = ["gc", "--json", "--keep-unnamed", "0s", "--keep-materializations", "1"];
        let mut collecting = flowstone.start(arguments);
        let running = flowstone.start([&["run", scenario.manifest()], &wanted[..]].concat());
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(150).mul_f64(draws.fraction())).await;
            killed += u32::from(!collecting.has_ended());
            collecting.kill();
            // As if its time were over.
            sqlx::query("update retention set held_until = '-infinity'").execute(&pool).await.unwrap();
        } else {
            let did: Value = serde_json::from_str(&collecting.wait().expect_status(0).stdout).unwrap();
            expired += did["materializations"]["count"].as_u64().unwrap();
        }
        running.wait().expect_status(0);
        assert_eq!(scenario.show("sum", None), (15 * factor).to_string());
        assert_eq!(scenario.show("listing", None).lines().count(), 300 + round as usize % 3);
        assert_sound_in(flowstone, &pool).await;
    }
    println!("{killed} collections killed, {expired} materializations expired by those that were not");
    assert!(killed > 0 && expired > 0);
    assert_eq!(count(&pool, "select count(*) from attempt where charged and verdict <> 'succeeded'").await, 0);
}

/// Two materializations of one partition, of runs that are over: the older first.
async fn made_twice(bench: &Bench) -> [MaterializationId; 2] {
    [made(bench, b"one").await, made(bench, b"two").await]
}

async fn made(bench: &Bench, bytes: &[u8]) -> MaterializationId {
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    let ending = bench.made("a", "none", bytes, vec![]);
    let Ending::Materialized(new) = &ending else { unreachable!() };
    let id = new.id;
    let committed = bench.store.commit_finished_jobs(&[bench.finished(claim, run, ending)]).await.unwrap();
    assert_eq!(committed.ended.len(), 1);
    id
}

/// Of the first partitions; each keeps one.
pub async fn expire_first(store: &Store, collector: Collector) -> Amount {
    store.expire_materializations(collector, 1, PartitionPlace::start()).await.unwrap().0
}

/// A job that was claimed, and has found the result before it was let go.
async fn claimed(bench: &Bench, ending: impl FnOnce(&Bench) -> Ending) -> FinishedJob {
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    FinishedJob { attempt: None, ..bench.finished(claim, run, ending(bench)) }
}

#[tokio::test]
async fn a_job_that_was_about_to_use_what_expired_runs_again_uncharged() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let old = made(&bench, b"one").await;
    let up_to_date = claimed(&bench, |_| Ending::UpToDate(old)).await;
    let reused = claimed(&bench, |bench| {
        let Ending::Materialized(mut new) = bench.made("a", "none", b"one", vec![]) else { unreachable!() };
        new.inline = None;
        new.reused_from = Some(old);
        Ending::Materialized(new)
    })
    .await;
    // Meanwhile another one is the newest, and the bytes of the old one go with their row.
    made(&bench, b"two").await;
    let collector = store.begin_collecting().await.unwrap().unwrap();
    assert_eq!(expire_first(store, collector).await.count, 1);
    assert_eq!(store.condemn_unnamed(collector, Duration::ZERO).await.unwrap().inline.count, 1);
    let mut ends = Vec::new();
    for job in [up_to_date, reused] {
        let committed = store.commit_finished_jobs(&[job]).await.unwrap();
        ends.push((committed.ended.len(), committed.deferred.len()));
    }
    assert_eq!(ends, [(0, 1), (0, 1)]);
    assert_eq!(bench.count("materialization").await, 2);
    // And once it is known that they are gone, whoever makes the same is recorded.
    assert_eq!(store.condemn_unnamed(collector, Duration::ZERO).await.unwrap().inline.count, 0);
    made(&bench, b"one").await;
}

#[tokio::test]
async fn partitions_are_looked_through_page_by_page() {
    let bench = Bench::new().await;
    let (store, pool) = (&bench.store, bench.database.pool().await);
    made(&bench, b"one").await;
    // Two pages and a bit, and in every hundredth partition an older one.
    let partitions = COLLECT_PARTITIONS_MAX * 2 + 500;
    let make = |every: i64| {
        AssertSqlSafe(format!(
            "insert into materialization (tenant_id, materialization_id, asset_id, asset_version_id, partition_key, run_id,
                 job_id, attempt_id, output_digest, size_bytes, media_type, metadata, version_digest, recipe, sources_digest,
                 input_digests, engine_id)
             select tenant_id, gen_random_uuid(), asset_id, asset_version_id, 'k=static:' || n, run_id, job_id, attempt_id,
                 output_digest, 7, media_type, metadata, version_digest, recipe, sources_digest, input_digests, engine_id
             from materialization, generate_series(1, {partitions}) n where partition_key = 'none' and n % {every} = 0"
        ))
    };
    sqlx::raw_sql(make(100)).execute(&pool).await.unwrap();
    sqlx::raw_sql(make(1)).execute(&pool).await.unwrap();
    sqlx::raw_sql(
        "insert into latest (tenant_id, asset_id, partition_key, materialization_id, sequence, asset_version_id,
             version_digest, sources_digest, input_digests, made_at)
         select distinct on (partition_key) tenant_id, asset_id, partition_key, materialization_id, sequence,
             asset_version_id, version_digest, sources_digest, input_digests, created_at
         from materialization where partition_key <> 'none' order by partition_key, sequence desc",
    )
    .execute(&pool)
    .await
    .unwrap();
    let expected = (partitions / 100) as u64;
    let counted = store.count_expiring(1).await.unwrap();
    assert_eq!((counted.count, counted.bytes), (expected, expected * 7));
    let collector = store.begin_collecting().await.unwrap().unwrap();
    let (mut each, mut next) = (Vec::new(), Some(PartitionPlace::start()));
    while let Some(after) = next {
        let expired;
        (expired, next) = store.expire_materializations(collector, 1, after).await.unwrap();
        each.push(expired.count);
    }
    assert_eq!(each.iter().sum::<u64>(), expected);
    assert_eq!((each.len(), each.iter().filter(|count| **count > 0).count()), (3, 3), "{each:?}");
    assert_eq!(store.count_expiring(1).await.unwrap().count, 0);
}

/// A run that reads this.
fn reading(bench: &Bench, upstream: MaterializationId) -> NewRun {
    let input = NewJobInput {
        input: "in".to_owned(),
        position: 0,
        optional: false,
        origin: InputOrigin::Materialization(upstream),
    };
    let job = NewJob {
        id: JobId::new(),
        asset_version: bench.asset("b").id,
        partition_key: "none".to_owned(),
        reason: "never materialized".to_owned(),
        route: Route::default(),
        forced: false,
        inputs: vec![input],
    };
    NewRun {
        id: RunId::new(),
        tenant: TENANT.to_owned(),
        pipeline: bench.pipeline.pipeline,
        pipeline_version: bench.pipeline.id,
        owner: Some(bench.worker),
        backfill: None,
        request: json!({}),
        reaches_out: false,
        jobs: vec![job],
    }
}

#[tokio::test]
async fn what_a_run_was_planned_with_stays_until_it_ends_and_what_expired_is_planned_anew() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let pool = bench.database.pool().await;
    let [old, newest] = made_twice(&bench).await;
    let collector = store.begin_collecting().await.unwrap().unwrap();
    // A submission that is not through has locked what it reads.
    let mut submitting = pool.begin().await.unwrap();
    sqlx::query("select from materialization where materialization_id = $1 for key share")
        .bind(old.0)
        .execute(&mut *submitting)
        .await
        .unwrap();
    assert_eq!(expire_first(store, collector).await.count, 0, "somebody may be about to need it");
    submitting.rollback().await.unwrap();

    let run = reading(&bench, old);
    store.submit_run(&run).await.unwrap();
    assert_eq!(store.count_expiring(1).await.unwrap().count, 0);
    assert_eq!(expire_first(store, collector).await.count, 0, "a run needs it");
    assert!(store.cancel_run(TENANT, run.id, "enough").await.unwrap());
    assert_eq!(store.count_expiring(1).await.unwrap().count, 1);
    assert_eq!(expire_first(store, collector).await.count, 1);

    let refused = store.submit_run(&reading(&bench, old)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Expired) && refused.is_transient(), "{refused}");
    store.submit_run(&reading(&bench, newest)).await.unwrap();
    let found = store.find_by_recipe(TENANT, &[(bench.asset("a").asset, "none".to_owned(), Digest::of(b"none"))]).await;
    assert_eq!(found.unwrap().iter().map(|result| result.id).collect::<Vec<_>>(), [newest]);
    // An invalidation of the newest does not bring it back.
    store.invalidate(TENANT, "p", "a", None).await.unwrap();
    assert!(store.find_latest(TENANT, "p", "a", "none").await.unwrap().is_none());
}
