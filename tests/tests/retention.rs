//! What is old goes, what nothing names goes, and nothing else does: whatever works meanwhile, and wherever a collection
//! dies. Real processes, a real Postgres, directories and a real object store; the checker reads everything afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use flowstone::{
    blob::{Digest, Listed},
    limit::{HOST_FAULT_WAIT_BASE, INLINE_OUTPUT_BYTES_MAX, KEEP_UNNAMED},
    store::{
        SESSION_SETTINGS, Store, StoreError,
        commit::{Ending, FinishedJob},
        retention::PartitionPlace,
    },
};
use flowstone_tests::{
    Database, Flowstone,
    deadline::wait_until_database_says,
    object_server::Bucket,
    pipeline::{Scenario, ended, guest},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    checker::{assert_sound, violations},
    keep_newest::expire_first,
    store::{Bench, TENANT, statement_of},
    support::Draws,
};

/// Together they write every kind of row of history, and end in every way.
const ASSETS: &[&str] = &["sum", "after_large", "after_broken", "despite_broken", "unique", "flaky", "after_tallies"];

/// Lets everything that is in the database have happened so many days ago: ids, which carry their time, and instants.
async fn age(pool: &PgPool, days: u32) {
    let sql = format!(
        "alter table audit disable trigger user;
         alter table job drop constraint job_tenant_id_run_id_fkey;
         alter table submission drop constraint submission_tenant_id_run_id_fkey;
         alter table schedule_fire drop constraint schedule_fire_tenant_id_run_id_fkey;
         create function pg_temp.aged(id uuid) returns uuid language sql as $$
             select (lpad(to_hex(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint - {days}::bigint * 86400000),
                 12, '0') || substr(replace(id::text, '-', ''), 13))::uuid $$;
         select ensure_history_days((now() at time zone 'utc')::date - {days} - 1, 3);
         create temp table old_id as
             select run_id as id from run union select job_id from job union select attempt_id from attempt;
         do $$ declare old record; begin
             for old in select id from old_id loop
                 update audit set details = replace(details::text, old.id::text, pg_temp.aged(old.id)::text)::jsonb,
                     subject = replace(subject, old.id::text, pg_temp.aged(old.id)::text);
                 update outbox set payload = replace(payload::text, old.id::text, pg_temp.aged(old.id)::text)::jsonb;
             end loop;
         end $$;
         update run set run_id = pg_temp.aged(run_id), created_at = created_at - interval '{days} days',
             finished_at = finished_at - interval '{days} days';
         update job set job_id = pg_temp.aged(job_id), run_id = pg_temp.aged(run_id);
         update job_input set job_id = pg_temp.aged(job_id), upstream_job_id = pg_temp.aged(upstream_job_id);
         update job_end set job_id = pg_temp.aged(job_id), ended_at = ended_at - interval '{days} days';
         update attempt set attempt_id = pg_temp.aged(attempt_id), job_id = pg_temp.aged(job_id),
             started_at = started_at - interval '{days} days';
         update job_ready set job_id = pg_temp.aged(job_id);
         update job_blocked set job_id = pg_temp.aged(job_id);
         update materialization set run_id = pg_temp.aged(run_id), job_id = pg_temp.aged(job_id),
             attempt_id = pg_temp.aged(attempt_id), created_at = created_at - interval '{days} days';
         update latest set made_at = made_at - interval '{days} days';
         update submission set run_id = pg_temp.aged(run_id);
         update schedule_fire set run_id = pg_temp.aged(run_id);
         update audit set created_at = created_at - interval '{days} days';
         update outbox set created_at = created_at - interval '{days} days';
         update blob set created_at = created_at - interval '{days} days';
         alter table job add foreign key (tenant_id, run_id) references run;
         alter table submission add foreign key (tenant_id, run_id) references run on delete cascade
             deferrable initially deferred;
         alter table schedule_fire add foreign key (tenant_id, run_id) references run on delete cascade;
         alter table audit enable trigger user"
    );
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// A file of the blob store whose writer died so long ago.
fn age_file(path: &Path, ago: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

const LONG: Duration = Duration::from_secs(KEEP_UNNAMED.as_secs() + 60);

fn blobs(flowstone: &Flowstone) -> PathBuf {
    flowstone.state_dir().join("blobs")
}

fn file_of(blobs: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    blobs.join(TENANT).join(&name[..2]).join(name)
}

/// Bytes that an attempt stored whose commit never came.
fn leave_orphan(blobs: &Path, bytes: &[u8], ago: Duration) -> PathBuf {
    let path = file_of(blobs, Digest::of(bytes));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    age_file(&path, ago);
    path
}

#[track_caller]
fn gc(flowstone: &Flowstone, arguments: &[&str]) -> Value {
    let output = flowstone.run([&["gc", "--json"], arguments].concat()).expect_status(0);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Every row of every table of the database, but for sessions and the lease of a collection.
async fn everything(pool: &PgPool) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
             and relname not in ('worker', 'retention') order by relname",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut rows = Vec::new();
    for table in tables {
        let sql = format!("select coalesce(string_agg(t::text, '\\n' order by t::text), '') from {table} t");
        rows.push((table, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()));
    }
    rows
}

async fn count(pool: &PgPool, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(pool).await.unwrap()
}

async fn assert_sound_in(flowstone: &Flowstone, pool: &PgPool) {
    assert_sound(&violations(pool, &blobs(flowstone)).await);
}

#[tokio::test]
async fn old_history_goes_by_the_day_and_what_was_made_stays() {
    let scenario = Scenario::new("[schedules.yearly]\ncron = \"@yearly\"\nassets = [\"numbers\"]\n");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(ASSETS, 1);
    flowstone.run(["run", "scenarios", "numbers", "--idempotency-key", "old"]).expect_status(0);
    flowstone.run(["schedule", "run-now", "scenarios", "yearly"]).expect_status(0);
    age(&pool, 40).await;
    assert_sound_in(flowstone, &pool).await;
    scenario.run(&["numbers", "--force"], 0);
    let orphan = leave_orphan(&blobs(flowstone), b"nobody names this", LONG);
    let young = leave_orphan(&blobs(flowstone), b"nobody names this yet", Duration::ZERO);
    let unfinished = blobs(flowstone).join("tmp/.tmpkilled");
    fs::write(&unfinished, b"half").unwrap();
    age_file(&unfinished, LONG);
    let (before, files) = (everything(&pool).await, files_below(&blobs(flowstone)));

    let would = gc(flowstone, &["--dry-run"]);
    assert_eq!(everything(&pool).await, before, "a dry run changes nothing");
    assert_eq!(files_below(&blobs(flowstone)), files);
    let text = flowstone.run(["gc", "--dry-run"]).expect_status(0).stdout;
    assert!(text.contains("would be removed") && text.contains("stored blobs that nothing names"), "{text}");

    let did = gc(flowstone, &[]);
    let sizeless = |told: &Value| {
        let mut told = told.clone();
        // The server tidies its tables up meanwhile.
        for kind in ["history", "outbox"] {
            told[kind].as_object_mut().unwrap().remove("bytes").unwrap();
        }
        told
    };
    assert!(would["history"]["bytes"].as_u64().unwrap() > 0);
    let (would, did) = (sizeless(&would), sizeless(&did));
    assert_eq!((&would["dry_run"], &did["dry_run"]), (&true.into(), &false.into()));
    for kind in ["history", "outbox", "audit", "blobs", "inline_blobs", "unfinished"] {
        assert_eq!(would[kind], did[kind], "what would go is what went");
    }
    assert_eq!(did["history"]["runs"], 3);
    // Three days of four tables each.
    assert_eq!(did["history"]["tables"], 12, "{did}");
    assert!(did["history"]["jobs"].as_i64().unwrap() > 10 && did["outbox"]["count"].as_i64().unwrap() > 5, "{did}");
    // What `unique` staged has been shown.
    assert!(did["blobs"]["count"].as_i64().unwrap() >= 1 && !orphan.exists() && young.exists(), "{did}");
    assert!(did["unfinished"]["count"] == 1 && !unfinished.exists());
    assert_eq!(count(&pool, "select count(*) from run").await, 1);
    assert_eq!(count(&pool, "select count(*) from submission").await, 0, "the key goes with its run");
    assert_eq!(count(&pool, "select count(*) from job where job_id < first_id_of(now() - interval '1 day')").await, 0);
    assert!(count(&pool, "select count(*) from audit where action = 'job.succeeded'").await > 1, "audit stays");
    assert_sound_in(flowstone, &pool).await;

    // What was made is used again, and its lineage is there.
    let again = ended(&scenario.run(&["sum", "after_large"], 0));
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(scenario.show("sum", None), "30");
    let lineage = flowstone.run(["lineage", "scenarios", "sum"]).expect_status(0).stdout;
    assert!(lineage.contains("doubled") && lineage.contains("numbers"), "{lineage}");
    let empty = gc(flowstone, &[]);
    assert_eq!((&empty["history"]["tables"], &empty["blobs"]["count"]), (&0.into(), &0.into()), "{empty}");
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_day_stays_while_a_run_of_it_goes_on_and_its_time_is_not_over_since() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["sum"], 0);
    age(&pool, 5).await;
    scenario.command("run", &["despite_broken", "--detach"]).expect_status(0);
    age(&pool, 40).await;
    let output = flowstone.run(["gc"]).expect_status(0);
    let run: String =
        sqlx::query_scalar("select run_id::text from run where state = 'running'").fetch_one(&pool).await.unwrap();
    assert!(output.stderr.contains(&run) && output.stderr.contains("flowstone cancel"), "{}", output.stderr);
    assert_eq!(count(&pool, "select count(*) from run").await, 1, "the run before it is gone");
    assert_eq!(count(&pool, "select count(*) from job join run using (run_id) where state = 'running'").await, 2);
    assert_sound_in(flowstone, &pool).await;

    flowstone.run(["cancel", &run]).expect_status(0);
    gc(flowstone, &[]);
    assert_eq!(count(&pool, "select count(*) from run").await, 1, "it ended just now");
    sqlx::query("update run set finished_at = now() - interval '31 days' where state = 'cancelled'")
        .execute(&pool)
        .await
        .unwrap();
    gc(flowstone, &["--keep-history", "forever"]);
    assert_eq!(count(&pool, "select count(*) from run").await, 1);
    gc(flowstone, &[]);
    assert_eq!(count(&pool, "select count(*) from run").await, 0);
    assert_sound_in(flowstone, &pool).await;
}

#[tokio::test]
async fn audit_goes_by_its_own_rule_and_nobody_else_can_remove_any() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["sum"], 0);
    age(&pool, 40).await;
    scenario.run(&["sum", "--force"], 0);
    let all = count(&pool, "select count(*) from audit").await;
    let old = count(&pool, "select count(*) from audit where created_at < now() - interval '30 days'").await;
    for refused in ["delete from audit", "truncate audit", "update audit set actor = 'nobody'"] {
        let error = sqlx::query(refused).execute(&pool).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{refused}: {error}");
    }
    let kept = gc(flowstone, &["--keep-history", "forever"]);
    assert_eq!(kept["audit"]["count"], 0, "by default it stays");
    let would = gc(flowstone, &["--keep-history", "forever", "--keep-audit", "30d", "--dry-run"]);
    assert_eq!(would["audit"]["count"], old);
    let did = gc(flowstone, &["--keep-history", "forever", "--keep-audit", "30d"]);
    assert_eq!(did["audit"]["count"], would["audit"]["count"]);
    assert_eq!(count(&pool, "select count(*) from audit where action <> 'audit.removed'").await, all - old);
    assert_eq!(count(&pool, "select count(*) from audit where action = 'audit.removed'").await, 1);
    assert!(sqlx::query("delete from audit").execute(&pool).await.is_err(), "what is kept stays append-only");
    assert_sound_in(flowstone, &pool).await;
}

/// `tests/guests/chaos`, deployed, and some hours of which one of four outputs is large.
fn large_hours(flowstone: &Flowstone, hours: usize) -> Vec<String> {
    let component = guest("chaos");
    let text = format!("[pipeline]\nname = \"chaos\"\n[[components]]\npath = \"{}\"\n", component.display());
    fs::write(flowstone.folder().join("flowstone.toml"), text).unwrap();
    flowstone.run(["deploy", "./flowstone.toml"]).expect_status(0);
    let mut arguments = vec!["run".to_owned(), "chaos".to_owned(), "--detach".to_owned()];
    arguments.extend((1..=hours).flat_map(|day| ["--partition".to_owned(), format!("2024-01-{day:02}T05")]));
    arguments
}

/// The collector is told to leave nothing alone, however young: it takes what attempts are about to commit.
#[tokio::test]
async fn nothing_is_lost_when_workers_commit_while_collections_run_and_are_killed() {
    let flowstone = Flowstone::new();
    let pool = flowstone.database().pool().await;
    let run = large_hours(&flowstone, 28);
    flowstone.run(&run).expect_status(0);
    let mut draws = Draws(11);
    let workers = [flowstone.start(["work", "-j", "2"]), flowstone.start(["work", "-j", "2"])];
    let (mut collected, mut killed) = (0, 0);
    let is_over = "select not exists (select from run where state = 'running')";
    for round in 0.. {
        let mut collecting = flowstone.start(["gc", "--json", "--keep-unnamed", "0s"]);
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(50).mul_f64(1.0 + 6.0 * draws.fraction())).await;
            killed += u32::from(!collecting.has_ended());
            collecting.kill();
            // As if its time were over.
            sqlx::query("update retention set held_until = '-infinity'").execute(&pool).await.unwrap();
        } else {
            let did: Value = serde_json::from_str(&collecting.wait().expect_status(0).stdout).unwrap();
            collected += did["blobs"]["count"].as_u64().unwrap();
        }
        assert_sound_in(&flowstone, &pool).await;
        if round > 8 && sqlx::query_scalar::<_, bool>(is_over).fetch_one(&pool).await.unwrap() {
            break;
        }
        // From here on the attempts may get through.
        if round > 30 {
            wait_until_database_says(&pool, is_over).await;
        }
    }
    flowstone.run(["watch", "latest"]).expect_status(0);
    for worker in workers {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    let refused = count(&pool, "select count(*) from attempt where message like '%collected as garbage%'").await;
    println!("{killed} collections killed, {collected} blobs collected, {refused} attempts made again");
    assert!(killed > 0);
    assert_eq!(count(&pool, "select count(*) from materialization").await, 4 * 28);
    assert_eq!(count(&pool, "select count(*) from attempt where charged and verdict <> 'succeeded'").await, 0);
    gc(&flowstone, &["--keep-unnamed", "0s"]);
    assert_sound_in(&flowstone, &pool).await;
    let stored = count(&pool, "select count(*) from blob where bytes is null").await;
    let files = files_below(&blobs(&flowstone)).len() as i64;
    assert_eq!(files, stored, "every file is named");
}

#[tokio::test]
async fn several_collections_at_once_are_one_after_the_other_and_one_of_a_dead_process_is_finished() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(ASSETS, 1);
    age(&pool, 40).await;
    let orphans: Vec<PathBuf> = (0..50_u8).map(|n| leave_orphan(&blobs(flowstone), &[n; 100], LONG)).collect();
    let running = [(); 3].map(|()| flowstone.start(["gc", "--json"]));
    let did = running.map(|one| serde_json::from_str::<Value>(&one.wait().expect_status(0).stdout).unwrap());
    let sum = |at: &str, field: &str| did.iter().map(|one| one[at][field].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum("history", "tables"), 12, "{did:?}");
    assert!(sum("blobs", "count") >= 50 && orphans.iter().all(|path| !path.exists()), "{did:?}");
    assert_sound_in(flowstone, &pool).await;
}

#[tokio::test]
async fn a_day_that_is_in_use_is_left_for_another_time_and_nobody_waits_for_it() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["sum"], 0);
    age(&pool, 40).await;
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("select count(*) from job").fetch_one(&mut *reader).await.unwrap();
    let collecting = flowstone.start(["gc", "--json"]);
    wait_until_database_says(
        &pool,
        "select exists (select from pg_locks where mode = 'AccessExclusiveLock' and not granted)",
    )
    .await;
    // It works on while the collector tries again and again.
    assert_eq!(ended(&scenario.run(&["parity"], 0)), ["parity succeeded"]);
    let did: Value = serde_json::from_str(&collecting.wait().expect_status(0).stdout).unwrap();
    let in_use = did["history"]["in_use"].as_array().unwrap();
    assert!(!in_use.is_empty() && in_use.iter().all(|day| day["table"] == "job"), "{did}");
    assert_sound_in(flowstone, &pool).await;
    reader.rollback().await.unwrap();
    assert_eq!(gc(flowstone, &[])["history"]["tables"], in_use.len());
    assert_sound_in(flowstone, &pool).await;
}

#[tokio::test]
async fn ended_backfills_and_fires_without_a_run_go_with_history_and_old_deaths_are_forgotten() {
    let scenario = Scenario::new("[schedules.yearly]\ncron = \"@yearly\"\nassets = [\"numbers\"]\n");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.command("deploy", &[]).expect_status(0);
    flowstone
        .run(["backfill", "start", "scenarios", "daily", "--partition", "2024-01-01..2024-01-05"])
        .expect_status(0);
    let up = flowstone.start(["up"]);
    wait_until_database_says(&pool, "select exists (select from backfill where state = 'succeeded')").await;
    up.interrupt();
    up.wait().expect_status(0);
    let failures =
        "insert into backfill_failure (tenant_id, backfill_id, first_partition, last_partition, run_id, cause)
         select tenant_id, backfill_id, 0, 0, gen_random_uuid(), 'simulated' from backfill";
    let fires = "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, error, missed_from)
         select tenant_id, schedule_id, now() - n * interval '1 hour', 'clock', case n % 2 when 0 then 'failed' else 'missed' end,
             case n % 2 when 0 then 'simulated' end, case n % 2 when 1 then now() - interval '30 days' end
         from schedule, generate_series(1, 10) n";
    let deaths = "insert into component_death (tenant_id, component_digest, worker_id, shared_by, died_at)
         select tenant_id, digest, gen_random_uuid(), 1, now() - n * interval '3 days' from component, generate_series(1, 4) n";
    for sql in [failures, fires, deaths] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    age(&pool, 40).await;
    let rows = "select (select count(*) from backfill) + (select count(*) from backfill_failure)
         + (select count(*) from schedule_fire)";
    // Their runs are old, and they are not: a backfill that ended now, and a fire that was decided on now.
    let young = gc(flowstone, &[]);
    assert_eq!((&young["history"]["backfills"], &young["history"]["fires"]), (&0.into(), &0.into()), "{young}");
    assert_eq!(count(&pool, rows).await, 12);
    assert_eq!(count(&pool, "select count(*) from run").await, 0);
    assert_eq!(count(&pool, "select count(*) from component_death").await, 2, "of a week");

    for sql in [
        "update backfill set created_at = created_at - interval '40 days', finished_at = finished_at - interval '40 days'",
        "update schedule_fire set decided_at = decided_at - interval '40 days'",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    scenario.run(&["numbers"], 0);
    let did = gc(flowstone, &[]);
    assert_eq!((&did["history"]["backfills"], &did["history"]["fires"]), (&1.into(), &10.into()), "{did}");
    assert_eq!(count(&pool, rows).await, 0);
    assert_sound_in(flowstone, &pool).await;
}

#[tokio::test]
async fn a_process_that_is_up_collects() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["sum"], 0);
    age(&pool, 40).await;
    let up = flowstone.start(["up", "--keep-history", "39d"]);
    wait_until_database_says(&pool, "select not exists (select from run)").await;
    up.interrupt();
    up.wait().expect_status(0);
    assert_sound_in(flowstone, &pool).await;
}

#[test]
fn in_a_bucket_nothing_goes_but_what_nothing_names() {
    let bucket = Bucket::new();
    let database = Database::new_blocking();
    let mut flowstone = Flowstone::on(&database);
    flowstone.set(bucket.variables(&bucket.endpoint()));
    let scenario = Scenario::with(flowstone, "");
    scenario.run(&["after_large"], 0);
    let named = bucket.keys();
    let orphan = Digest::of(b"nobody names this").to_string();
    bucket.put(&format!("prefix/default/{}/{orphan}", &orphan[..2]), b"nobody names this");
    bucket.put("prefix/default/notes.txt", b"this is no blob");
    let young = gc(&scenario.flowstone, &[]);
    assert_eq!(young["blobs"]["count"], 0, "it may belong to an attempt");
    let would = gc(&scenario.flowstone, &["--keep-unnamed", "0s", "--dry-run"]);
    assert_eq!((&would["blobs"]["count"], &would["blobs"]["bytes"]), (&1.into(), &17.into()));
    let did = gc(&scenario.flowstone, &["--keep-unnamed", "0s"]);
    assert_eq!(did["blobs"], would["blobs"]);
    let mut left = bucket.keys();
    left.retain(|key| !key.ends_with("notes.txt"));
    assert_eq!(left, named);
    assert!(!scenario.show("large", None).is_empty());
}

/// The protocol of a commit and a collection, step by step.
#[tokio::test]
async fn what_was_condemned_after_it_was_stored_is_made_again_and_what_is_stored_after_that_stays() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let bytes = vec![7; INLINE_OUTPUT_BYTES_MAX + 1];
    let stored = |claim, run| -> FinishedJob {
        let mut finished = bench.finished(claim, run, bench.made("a", "none", &bytes, vec![]));
        let Ending::Materialized(new) = &mut finished.ending else { unreachable!() };
        new.inline = None;
        finished
    };
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    // The attempt has stored its bytes, and the collector takes them for those of another one that died.
    let listed = Listed { digest: Digest::of(&bytes), size: bytes.len() as u64, age: LONG };
    let collector = store.begin_collecting().await.unwrap().unwrap();
    assert_eq!(store.begin_collecting().await.unwrap(), None, "one at a time");
    assert_eq!(store.find_unknown(TENANT, &[listed]).await.unwrap(), [listed]);
    assert_eq!(store.condemn_unknown(collector, TENANT, &[listed]).await.unwrap().count, 1);
    assert_eq!(store.find_unknown(TENANT, &[listed]).await.unwrap(), [], "it is known to go");

    let committed = store.commit_finished_jobs(&[stored(claim, run)]).await.unwrap();
    assert_eq!((committed.ended.len(), committed.deferred.len()), (0, 1), "its bytes are about to go");
    assert_eq!(bench.count("materialization").await, 0);
    assert_eq!(committed.attempts[0].verdict, "lost");
    assert!(!committed.attempts[0].charged && committed.deferred[0].wait_ms >= HOST_FAULT_WAIT_BASE.as_millis() as u64);
    assert_eq!(bench.states(run).await, ["deferred"]);

    // Claimed before the bytes are deleted: what it stores may be deleted with them.
    let reclaim = async || {
        let sql = "update job_deferred set due_at = now()";
        sqlx::query(sql).execute(&bench.database.pool().await).await.unwrap();
        store.promote_due_jobs(10).await.unwrap();
        bench.claim_one().await
    };
    let early = reclaim().await;
    let condemned = store.list_condemned().await.unwrap();
    assert_eq!(condemned.len(), 1);
    store.record_deleted(collector, &condemned).await.unwrap();
    let committed = store.commit_finished_jobs(&[stored(early, run)]).await.unwrap();
    assert_eq!((committed.ended.len(), committed.deferred.len()), (0, 1));

    let late = reclaim().await;
    store.forget_deleted(collector).await.unwrap();
    let committed = store.commit_finished_jobs(&[stored(late, run)]).await.unwrap();
    assert_eq!((committed.ended.len(), committed.deferred.len()), (1, 0));
    assert!(store.list_condemned().await.unwrap().is_empty());
    assert_eq!(store.condemn_unknown(collector, TENANT, &[listed]).await.unwrap().count, 0, "it is named");
    let unnamed = store.condemn_unnamed(collector, Duration::ZERO).await.unwrap();
    assert_eq!(unnamed.stored.count, 0);
    store.end_collecting(collector).await.unwrap();
    assert!(matches!(store.forget_deleted(collector).await, Err(StoreError::CollectorReplaced)));
}

/// Whoever stood still for longer than its lease, and wakes up: nothing that it goes on with changes anything.
#[tokio::test]
async fn a_collector_that_was_replaced_changes_nothing_by_any_of_its_steps() {
    let scenario = Scenario::new("");
    let pool = scenario.flowstone.database().pool().await;
    scenario.run(ASSETS, 1);
    scenario.run(&["numbers", "--force"], 0);
    let deaths = "insert into component_death (tenant_id, component_digest, worker_id, shared_by, died_at)
         select tenant_id, digest, gen_random_uuid(), 1, '-infinity' from component";
    sqlx::query(deaths).execute(&pool).await.unwrap();
    sqlx::query("insert into blob (tenant_id, digest, size_bytes, bytes) values ('default', sha256('x'), 1, 'x')")
        .execute(&pool)
        .await
        .unwrap();
    age(&pool, 400).await;
    let store = Store::connect(scenario.flowstone.database().options()).await.unwrap();
    let before = store.find_history_end(30).await.unwrap().unwrap();
    let slow = store.begin_collecting().await.unwrap().unwrap();
    sqlx::query("update retention set held_until = now() - interval '1 second'").execute(&pool).await.unwrap();
    let other = store.begin_collecting().await.unwrap().expect("its time is over");
    store.move_history_horizon(other, &before).await.unwrap();
    store.move_audit_horizon(other, 30).await.unwrap();
    let day = store.list_history_days(None).await.unwrap().swap_remove(0);
    let listed = Listed { digest: Digest::of(b"y"), size: 1, age: LONG };
    let condemned = store.list_condemned().await.unwrap();
    let all = everything(&pool).await;
    let answers = [
        store.renew_collecting(slow).await.err(),
        store.move_history_horizon(slow, "2100-01-01").await.err(),
        store.drop_history_day(slow, &day).await.err(),
        store.delete_old_runs(slow, 30).await.err(),
        store.delete_stray_history(slow).await.err(),
        store.delete_old_backfills(slow).await.err(),
        store.delete_old_fires(slow).await.err(),
        store.delete_old_outbox(slow).await.err(),
        store.move_audit_horizon(slow, 1).await.err(),
        store.delete_old_audit(slow).await.err(),
        store.expire_materializations(slow, 1, PartitionPlace::start()).await.err(),
        store.forget_old_deaths(slow).await.err(),
        store.condemn_unnamed(slow, Duration::ZERO).await.err(),
        store.condemn_unknown(slow, TENANT, &[listed]).await.err(),
        store.record_deleted(slow, &condemned).await.err(),
        store.forget_deleted(slow).await.err(),
    ];
    for (step, answer) in answers.iter().enumerate() {
        assert!(matches!(answer, Some(StoreError::CollectorReplaced)), "step {step}: {answer:?}");
    }
    assert_eq!(everything(&pool).await, all);
    store.end_collecting(slow).await.unwrap();
    assert!(store.begin_collecting().await.unwrap().is_none(), "it gives back nothing but its own right");
    // The same steps of whoever has the right do change something.
    assert!(store.drop_history_day(other, &day).await.unwrap());
    assert!(store.delete_old_outbox(other).await.unwrap().count > 0);
    assert!(store.delete_old_audit(other).await.unwrap().count > 0);
    assert_eq!(expire_first(&store, other).await.count, 1);
    assert!(store.forget_old_deaths(other).await.unwrap().count > 0);
    assert!(store.condemn_unnamed(other, Duration::ZERO).await.unwrap().inline.count > 0);
    assert_eq!(store.condemn_unknown(other, TENANT, &[listed]).await.unwrap().count, 1);
}

/// Between the blob's row and what names it, a commit stands still: the collector passes the row over.
#[tokio::test]
async fn a_blob_that_a_commit_is_about_to_name_is_passed_over() {
    use flowstone_tests::fault::{Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When};
    let bench = Bench::new().await;
    let store = &bench.store;
    let pool = bench.database.pool().await;
    sqlx::query(
        "insert into blob (tenant_id, digest, size_bytes, bytes, created_at)
         values ('default', sha256('x'), 1, 'x', now() - interval '9 days')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    let finished = bench.finished(claim, run, bench.made("a", "none", b"x", vec![]));
    let step = Step { operation: "insert", table: "materialization", only: "true" };
    step.inject(&pool, When::Before, Fault::Gated).await;
    let gate = Gate::close(&bench.database).await;
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit_finished_jobs(&[finished]).await }
    });
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    let collector = store.begin_collecting().await.unwrap().unwrap();
    let unnamed = store.condemn_unnamed(collector, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(unnamed.inline.count, 0, "its row is held");
    gate.open().await;
    assert_eq!(committing.await.unwrap().unwrap().ended.len(), 1);
    assert_eq!(count(&pool, "select count(*) from blob where digest = sha256('x')").await, 1);
    assert_eq!(store.condemn_unnamed(collector, Duration::ZERO).await.unwrap().inline.count, 0, "it is named");
}

/// Pages that one claim of twenty jobs reads and writes, when rows that nobody can see are gone.
async fn pages_of_a_claim(bench: &Bench) -> u64 {
    let mut connection = bench.database.pool().await.acquire().await.unwrap().detach();
    for setting in
        ["vacuum (analyze) job_ready", "vacuum (analyze) job_lease", "vacuum (analyze) lane", SESSION_SETTINGS]
    {
        sqlx::raw_sql(setting).execute(&mut connection).await.unwrap();
    }
    let claim = AssertSqlSafe(format!(
        "prepare claim (uuid, uuid, int[], bigint[], float8[], uuid[], int[], int[], bigint, text[], text[], text) as {}",
        statement_of(&["delete from job_ready", "insert into job_lease"])
    ));
    sqlx::raw_sql(claim).execute(&mut connection).await.unwrap();
    let explain = AssertSqlSafe(format!(
        "explain (analyze, buffers, format json) execute claim (
             '{}', gen_random_uuid(), '{{}}', '{{}}', '{{}}', '{{}}', '{{-1}}', '{{2147483647}}', 20, null, '{{}}', 'tenant')",
        bench.worker
    ));
    let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut connection).await.unwrap();
    let top = &plan[0]["Plan"];
    assert!(top["Actual Rows"].as_f64().unwrap() >= 20.0, "{plan}");
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|kind| top[kind].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_claim_reads_no_more_beside_a_long_history_than_in_a_fresh_database() {
    let (fresh, old) = (Bench::new().await, Bench::new().await);
    let history = format!(
        "select ensure_history_days((now() at time zone 'utc')::date - 11, 12);
         insert into run (tenant_id, run_id, pipeline_version_id, request, jobs, succeeded, state, finished_at)
         values ('{TENANT}', first_id_of(now() - interval '10 days'), '{version}', '{{}}', 200000, 200000, 'succeeded', now());
         create temp table ended as
             select (left(first_id_of(now() - n % 10 * interval '1 day')::text, 24) || lpad(to_hex(n), 12, '0'))::uuid as id
             from generate_series(1, 200000) n;
         insert into job (tenant_id, job_id, run_id, asset_version_id, partition_key, reason, forced, inputs, dependents)
             select '{TENANT}', id, first_id_of(now() - interval '10 days'), '{asset}', 'none', 'forced', true, 0, 0 from ended;
         insert into job_end (tenant_id, job_id, state, materialization_id, reused)
             select '{TENANT}', id, 'succeeded', id, false from ended;
         insert into attempt (tenant_id, attempt_id, job_id, number, token, worker_id, verdict, charged, engine_id, fuel_used,
                 memory_bytes_peak, output_bytes, started_at, duration_us, log_dropped)
             select '{TENANT}', id, id, 1, id, id, 'succeeded', true, '', 0, 0, 0, now(), 0, 0 from ended",
        version = old.pipeline.id,
        asset = old.asset("a").id,
    );
    // `now()` is one instant for all of it.
    let mut transaction = old.database.pool().await.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(history)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let mut pages = Vec::new();
    for bench in [&fresh, &old] {
        let keys: Vec<String> = (0..200).map(|n| format!("k=static:{n}")).collect();
        let jobs: Vec<_> = keys.iter().map(|key| ("a", &**key, &[][..])).collect();
        bench.submit(&jobs).await;
        pages.push(pages_of_a_claim(bench).await);
    }
    println!("pages of a claim: {pages:?}");
    // Each of the twenty is looked up in an index that may have two more levels; what reads history reads thousands.
    assert!(pages[1] <= pages[0] * 5 / 4 + 2 * 20, "fresh, and beside 200,000 jobs that have ended: {pages:?}");
}
