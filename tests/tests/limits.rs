//! Limits that jobs share: pools never let more through than their size, whoever asks at the same time and whoever dies,
//! and what waits for a permit costs no worker. The guest of the last tests is `asks_each` of `tests/guests/http`.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use flowstone::{
    id::{JobId, RunId},
    store::{
        commit::{Counts, Ending, FinishedJob},
        permits::{Admission, Applicant},
        pools::{NewPool, PoolRecord},
        queue::Claim,
    },
};
use flowstone_tests::{
    Flowstone, Running,
    deadline::{wait_until, wait_until_database_says},
    pipeline::{Scenario, guest},
    web::{Web, answer},
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT, version},
};

/// A bench whose asset `a` is in these pools, each of which an operator has set.
async fn bench(pools: &[(&str, i32)]) -> Bench {
    let mut bench = Bench::new().await;
    for (name, size) in pools {
        bench.store.set_pool(TENANT, name, *size).await.unwrap();
    }
    let mut limited = version("p", 2);
    limited.assets[0].pools = pools.iter().map(|(name, _)| (*name).to_owned()).collect();
    bench.store.deploy(&limited).await.unwrap();
    bench.pipeline = bench.store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
    bench
}

/// Claims so many jobs of `a` in one run, all of which are ready.
async fn claimed(bench: &Bench, jobs: usize) -> (RunId, Vec<Claim>) {
    let keys: Vec<String> = (0..jobs).map(|n| format!("key=static:k{n}")).collect();
    let planned: Vec<_> = keys.iter().map(|key| ("a", key.as_str(), &[][..])).collect();
    let (run, _) = bench.submit(&planned).await;
    let claims = bench.claim(jobs as i64).await;
    assert_eq!(claims.len(), jobs);
    (run, claims)
}

/// As a worker asks, which reads what the jobs need permits of.
async fn admit(bench: &Bench, claims: &[Claim]) -> Admission {
    let applicant = |claim: &Claim| Applicant { claim: claim.clone(), pools: bench.known(claim).asset.pools.clone() };
    let applicants: Vec<Applicant> = claims.iter().map(applicant).collect();
    assert!(applicants.iter().all(|applicant| !applicant.pools.is_empty()), "each is in a pool");
    bench.store.admit_jobs(&applicants).await.unwrap()
}

fn admitted<'a>(claims: &'a [Claim], admission: &Admission) -> Vec<&'a Claim> {
    claims.iter().filter(|claim| admission.admitted.contains(&claim.job)).collect()
}

/// Who runs and who waits.
async fn counts(bench: &Bench, pool: &str) -> (i64, i64) {
    let pools = bench.store.list_pools(TENANT).await.unwrap();
    let PoolRecord { running, waiting, .. } = pools.into_iter().find(|known| known.name == pool).unwrap();
    (running, waiting)
}

async fn end(bench: &Bench, claim: &Claim, run: RunId, ending: Ending) -> usize {
    let finished = bench.finished(claim.clone(), run, ending);
    let committed = bench.store.commit_finished_jobs(&[finished]).await.unwrap();
    assert!(committed.fenced.is_empty(), "the lease was its own");
    committed.released
}

fn skipped() -> Ending {
    Ending::Skipped("nothing today".to_owned())
}

async fn sound(bench: &Bench) {
    let nowhere = tempfile::tempdir().unwrap();
    let found = violations(&bench.database.pool().await, nowhere.path()).await;
    // The bench's attempts are its own.
    let about = |line: &&String| line.contains("pool") || line.contains("permit") || line.contains("exactly one place");
    assert_sound(&found.iter().filter(about).cloned().collect::<Vec<_>>());
}

#[tokio::test]
async fn of_many_that_ask_at_once_as_many_run_as_the_pool_has_permits() {
    let bench = bench(&[("db", 3)]).await;
    let (run, claims) = claimed(&bench, 40).await;
    let asked = claims.chunks(5).map(|some| admit(&bench, some));
    let mut running: Vec<JobId> = Vec::new();
    for admission in futures(asked.collect()).await {
        running.extend(admission.admitted);
        assert!(admission.limited.values().all(|pool| pool == "db"));
    }
    assert_eq!((running.len(), counts(&bench, "db").await), (3, (3, 37)));
    assert_eq!(bench.count("job_lease").await, 3, "who waits holds no lease");
    let shown = bench.store.list_jobs(TENANT, run, None, 100).await.unwrap();
    let limited: Vec<_> = shown.iter().filter(|job| job.state == "limited").collect();
    assert_eq!(limited.len(), 37);
    assert!(limited.iter().all(|job| job.cause.as_deref() == Some("the pool `db` is full") && job.attempts == 0));

    // Each that ends lets the next one go on, until all have.
    let mut held: Vec<Claim> = claims.into_iter().filter(|claim| running.contains(&claim.job)).collect();
    let mut ended = 0;
    while let Some(claim) = held.pop() {
        let left = counts(&bench, "db").await.1;
        assert_eq!(end(&bench, &claim, run, skipped()).await, usize::from(left > 0));
        ended += 1;
        let next = bench.claim(10).await;
        if !next.is_empty() {
            let admission = admit(&bench, &next).await;
            held.extend(admitted(&next, &admission).into_iter().cloned());
        }
        assert!(counts(&bench, "db").await.0 <= 3);
    }
    assert_eq!((ended, counts(&bench, "db").await), (40, (0, 0)));
    assert_eq!(bench.store.find_run(TENANT, run).await.unwrap().unwrap().state, "succeeded");
    sound(&bench).await;
}

/// All of them at once.
async fn futures<T>(asked: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut asked: Vec<_> = asked.into_iter().map(Box::pin).collect();
    let mut answers: Vec<Option<T>> = asked.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (place, one) in asked.iter_mut().enumerate() {
            if answers[place].is_none()
                && let std::task::Poll::Ready(answer) = one.as_mut().poll(context)
            {
                answers[place] = Some(answer);
            }
        }
        if answers.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_permit_goes_with_its_lease_however_that_goes() {
    let endings = [
        skipped(),
        Ending::Failed("no".to_owned()),
        Ending::Cancelled("by hand".to_owned()),
        Ending::Released,
        Ending::Deferred { wait_ms: 3_600_000, cause: "busy".to_owned(), counts: Counts::Charged },
    ];
    for ending in endings {
        let bench = bench(&[("db", 1)]).await;
        let (run, claims) = claimed(&bench, 2).await;
        let admission = admit(&bench, &claims).await;
        let [holder] = admitted(&claims, &admission)[..] else { panic!("one has the permit") };
        assert_eq!(holder.job, claims[0].job, "the one that was submitted first");
        let is_released = matches!(ending, Ending::Released);
        assert_eq!(end(&bench, holder, run, ending).await, 1 + usize::from(is_released), "the other one is next");
        assert_eq!(counts(&bench, "db").await, (0, 0));
        sound(&bench).await;
    }
    // Of a worker that died nobody is told: any process finds it.
    let bench = bench(&[("db", 1)]).await;
    let (_, claims) = claimed(&bench, 2).await;
    admit(&bench, &claims).await;
    assert_eq!(bench.store.wake_limited_jobs().await.unwrap(), 0, "the pool is full");
    bench.store.expire_all_sessions().await.unwrap();
    assert_eq!(bench.store.rescue_lost_jobs().await.unwrap().jobs, 1);
    assert_eq!(counts(&bench, "db").await, (0, 1));
    assert_eq!(bench.store.wake_limited_jobs().await.unwrap(), 1);
    assert_eq!(bench.count("job_ready").await, 2);
    sound(&bench).await;
}

#[tokio::test]
async fn who_takes_a_pool_for_full_while_a_permit_is_being_freed_is_woken_by_that_commit() {
    let bench = bench(&[("db", 1)]).await;
    let (run, claims) = claimed(&bench, 2).await;
    let admission = admit(&bench, &claims[..1]).await;
    assert_eq!(admission.admitted, BTreeSet::from([claims[0].job]));
    // As another process asks, step by step: it holds the pool, and sees the permit that the commit has not yet freed.
    let mut other = PgConnection::connect_with(&bench.database.options()).await.unwrap();
    let mut asking = other.begin().await.unwrap();
    sqlx::query("select from pool order by pool_id for update").execute(&mut *asking).await.unwrap();
    let pool = bench.database.pool().await;
    let freeing = end(&bench, &claims[0], run, skipped());
    let waits = async {
        let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock'
             and datname = current_database() and query like '%pool%for share%')";
        wait_until_database_says(&pool, waits).await;
        let limit = "with gone as (delete from job_lease where permits is null returning *)
             insert into job_limited (tenant_id, job_id, pool_id, priority, charged, released, lane_id)
             select tenant_id, job_id, (select pool_id from pool), 0, charged, released, lane_id from gone";
        assert_eq!(sqlx::query(limit).execute(&mut *asking).await.unwrap().rows_affected(), 1);
        asking.commit().await.unwrap();
    };
    let (released, ()) = tokio::join!(freeing, waits);
    assert_eq!((released, counts(&bench, "db").await), (1, (0, 0)), "nobody waits for a permit that is free");
}

#[tokio::test]
async fn a_pool_that_shrinks_stops_nobody_and_one_that_grows_lets_more_go_on() {
    let bench = bench(&[("db", 3)]).await;
    let (run, claims) = claimed(&bench, 6).await;
    let admission = admit(&bench, &claims).await;
    assert_eq!(counts(&bench, "db").await, (3, 3));
    bench.store.set_pool(TENANT, "db", 1).await.unwrap();
    let running: Vec<Claim> = admitted(&claims, &admission).into_iter().cloned().collect();
    for (claim, left) in running[..2].iter().zip([2, 1]) {
        end(&bench, claim, run, skipped()).await;
        // Whoever is woken by it comes too early.
        let next = bench.claim(10).await;
        let refused = admit(&bench, &next).await;
        assert!(refused.admitted.is_empty());
        assert_eq!(counts(&bench, "db").await, (left, 3));
        assert_eq!(bench.store.wake_limited_jobs().await.unwrap(), 0);
    }
    bench.store.set_pool(TENANT, "db", 4).await.unwrap();
    let next = bench.claim(10).await;
    let admission = admit(&bench, &next).await;
    assert_eq!((admission.admitted.len(), counts(&bench, "db").await), (3, (4, 0)));
    sound(&bench).await;
}

#[tokio::test]
async fn jobs_of_several_pools_take_all_permits_or_none_and_never_wait_for_each_other() {
    let bench = bench(&[("left", 2), ("right", 1)]).await;
    let (run, claims) = claimed(&bench, 24).await;
    let mut waiting: Vec<Claim> = claims;
    let mut ended = 0;
    while ended < 24 {
        let admissions = futures(waiting.chunks(3).map(|some| admit(&bench, some)).collect()).await;
        let running: Vec<&Claim> = admissions.iter().flat_map(|admission| admitted(&waiting, admission)).collect();
        assert_eq!(running.len(), 1, "the narrower one decides");
        assert_eq!((counts(&bench, "left").await.0, counts(&bench, "right").await.0), (1, 1));
        end(&bench, running[0], run, skipped()).await;
        ended += 1;
        waiting = bench.claim(24).await;
    }
    assert_eq!((counts(&bench, "left").await, counts(&bench, "right").await), ((0, 0), (0, 0)));
    sound(&bench).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_can_be_asked_for_again() {
    let bench = bench(&[("db", 1)]).await;
    let (_, claims) = claimed(&bench, 2).await;
    let first = admit(&bench, &claims).await;
    let again = admit(&bench, &claims).await;
    assert_eq!(first.admitted, again.admitted, "a job does not stand in its own way");
    assert!(again.limited.is_empty(), "the other one's claim is over");
    assert_eq!(counts(&bench, "db").await, (1, 1));
    sound(&bench).await;
}

#[tokio::test]
async fn the_more_important_job_is_woken_first() {
    let bench = bench(&[("db", 1)]).await;
    let (run, claims) = claimed(&bench, 3).await;
    admit(&bench, &claims).await;
    let sql = "update job_limited set priority = 5 where job_id = $1";
    sqlx::query(sql).bind(claims[2].job.0).execute(&bench.database.pool().await).await.unwrap();
    end(&bench, &claims[0], run, skipped()).await;
    assert_eq!(bench.claim_one().await.job, claims[2].job);
}

#[tokio::test]
async fn a_pool_that_is_removed_holds_nobody_back_and_neither_does_one_that_a_manifest_no_longer_has() {
    let bench = bench(&[("db", 1)]).await;
    let (_, claims) = claimed(&bench, 3).await;
    admit(&bench, &claims).await;
    assert_eq!(bench.store.remove_pool("other", "db").await.unwrap(), None, "it is another tenant's");
    assert_eq!(bench.store.remove_pool(TENANT, "db").await.unwrap(), Some(2));
    assert_eq!((bench.count("job_ready").await, bench.count("job_limited").await), (2, 0));
    let next = bench.claim(10).await;
    assert!(next.iter().all(|claim| bench.known(claim).asset.pools.is_empty()));

    let mut declaring = version("p", 3);
    declaring.pools = vec![NewPool { name: "pipeline:p".to_owned(), size: 1 }];
    declaring.assets.iter_mut().for_each(|asset| asset.pools = vec!["pipeline:p".to_owned()]);
    bench.store.deploy(&declaring).await.unwrap();
    let pools = bench.store.list_pools(TENANT).await.unwrap();
    assert_eq!(pools[0].pipeline.as_deref(), Some("p"));
    assert_eq!(bench.store.remove_pool(TENANT, "pipeline:p").await.unwrap(), None, "the manifest says it");
    declaring.digest.0[0] = 4;
    declaring.pools[0].size = 7;
    bench.store.deploy(&declaring).await.unwrap();
    assert_eq!(bench.store.list_pools(TENANT).await.unwrap()[0].size, 7);
    declaring.digest.0[0] = 5;
    declaring.pools.clear();
    bench.store.deploy(&declaring).await.unwrap();
    assert!(bench.store.list_pools(TENANT).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cancelled_run_does_not_wait_for_its_permits() {
    let bench = bench(&[("db", 1)]).await;
    let (run, claims) = claimed(&bench, 3).await;
    admit(&bench, &claims).await;
    assert!(bench.store.cancel_run(TENANT, run, "by hand").await.unwrap());
    let mut states = bench.states(run).await;
    states.sort();
    assert_eq!(states, ["cancelled", "cancelled", "running"]);
    assert_eq!(counts(&bench, "db").await, (1, 0));
    sound(&bench).await;
}

/// Counts who is in it at the same time.
#[derive(Clone, Default)]
struct Gauge(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    now: BTreeSet<usize>,
    most: usize,
}

impl Gauge {
    /// A server whose answers take this long.
    fn web(&self, takes: Duration) -> Web {
        let gauge = self.clone();
        Web::start(move |number, _| {
            {
                let mut inside = gauge.0.lock().unwrap();
                inside.now.insert(number);
                inside.most = inside.most.max(inside.now.len());
            }
            thread::sleep(takes);
            gauge.0.lock().unwrap().now.remove(&number);
            answer(200, "made")
        })
    }

    fn now(&self) -> BTreeSet<usize> {
        self.0.lock().unwrap().now.clone()
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }
}

/// The manifest of the guest `http`, whose asset `asks_each` asks this server; `more` follows in its section.
fn asking(flowstone: &Flowstone, web: &Web, pipeline: &str, more: &str) {
    fs::write(flowstone.folder().join("ca.pem"), web.ca()).unwrap();
    let idle: String = ["asks", "asks_too", "hoards", "insists"]
        .map(|asset| format!("[assets.{asset}]\ngrants.api = {{ paths = [\"unused\"] }}\n"))
        .concat();
    let text = format!(
        "[pipeline]\nname = \"web\"\n{pipeline}\n[[components]]\npath = \"{}\"\n[resources.api]\nkind = \"http\"\n\
         url = \"https://{}/v1\"\nmethods = [\"GET\"]\nnetworks = [\"127.0.0.0/8\", \"::1\"]\nca = \"ca.pem\"\n\
         {idle}[assets.asks_each]\nconfig = {{ path = \"items\" }}\ngrants.api = {{ paths = [\"items/*\"] }}\n{more}\n",
        guest("http").display(),
        web.authority()
    );
    fs::write(flowstone.folder().join("flowstone.toml"), text).unwrap();
}

fn detach(flowstone: &Flowstone, hours: &str) -> String {
    let arguments = ["run", "./flowstone.toml", "asks_each", "--partition", hours, "--detach"];
    flowstone.run(arguments).expect_status(0).stdout.trim_end().to_owned()
}

fn work(flowstone: &Flowstone) -> Running {
    flowstone.start(["work", "-j", "4"])
}

async fn assert_all_sound(flowstone: &Flowstone) {
    let pool = flowstone.database().pool().await;
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}

#[tokio::test]
async fn four_workers_that_are_killed_again_and_again_never_have_more_guests_in_a_pool_than_its_size() {
    const SIZE: usize = 3;
    let gauge = Gauge::default();
    let web = gauge.web(Duration::from_millis(40));
    let flowstone = Flowstone::new();
    flowstone.run(["pool", "set", "resource:api", "3"]).expect_status(0);
    asking(&flowstone, &web, "", "");
    let run = detach(&flowstone, "2024-01-01T00..2024-01-05T23");
    let pool = flowstone.database().pool().await;
    let mut workers: Vec<Running> = (0..4).map(|_| work(&flowstone)).collect();
    let most_permits = "select coalesce(max(permits), 0) from (select count(*) as permits from job_lease
         cross join unnest(permits) as h (pool_id) group by pool_id) as h";
    let mut kills = 0;
    for round in 0_usize.. {
        let permits: i64 = sqlx::query_scalar(most_permits).fetch_one(&pool).await.unwrap();
        assert!(permits <= SIZE as i64, "{permits} permits");
        assert!(gauge.most() <= SIZE, "{} guests at once", gauge.most());
        let over: bool = sqlx::query_scalar("select state <> 'running' from run").fetch_one(&pool).await.unwrap();
        if over {
            break;
        }
        let asking = gauge.now();
        if asking.is_empty() || round % 7 != 0 || kills == 12 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let killed = std::mem::replace(&mut workers[kills % 4], work(&flowstone));
        let pid = killed.pid();
        killed.kill();
        kills += 1;
        // What it had asked for goes on in the server, as it would not after its session's time.
        wait_until("what it asked for is over", || gauge.now().is_disjoint(&asking));
        sqlx::query("update worker set beat_at = '-infinity' where pid = $1")
            .bind(pid as i32)
            .execute(&pool)
            .await
            .unwrap();
    }
    flowstone.run(["watch", &run]).expect_status(0);
    assert_eq!(gauge.most(), SIZE, "they did run side by side");
    let lost: i64 =
        sqlx::query_scalar("select count(*) from attempt where verdict = 'lost'").fetch_one(&pool).await.unwrap();
    println!("{kills} kills, {lost} attempts lost");
    assert!(kills >= 4 && lost > 0, "{kills} kills met {lost} attempts");
    let pools: Value =
        serde_json::from_str(&flowstone.run(["pool", "list", "--json"]).expect_status(0).stdout).unwrap();
    assert_eq!(
        (&pools[0]["pool"], &pools[0]["running"], &pools[0]["waiting"]),
        (&"resource:api".into(), &0.into(), &0.into())
    );
    for worker in workers {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    assert_all_sound(&flowstone).await;
}

#[tokio::test]
async fn a_manifest_bounds_an_asset_and_what_waits_for_it_costs_no_worker() {
    let scenario = Scenario::new("[assets.daily]\nmax_concurrent = 1\n[assets.after_waits]\npools = [\"narrow\"]\n");
    let flowstone = &scenario.flowstone;
    let refused = scenario.command("deploy", &[]).expect_status(2);
    assert!(refused.stderr.contains("there is no pool `narrow`"), "{}", refused.stderr);
    assert!(refused.stderr.contains("flowstone pool set narrow SIZE"), "{}", refused.stderr);
    flowstone.run(["pool", "set", "narrow", "1"]).expect_status(0);
    flowstone.run(["pool", "set", "resource:counter", "1"]).expect_status(0);
    scenario.command("deploy", &[]).expect_status(0);
    let listed = flowstone.run(["pool", "list"]).expect_status(0).stdout;
    assert!(listed.contains("the manifest of scenarios"), "{listed}");

    // `waits`, which is older, holds the permit of the resource until it is told to go on; `writes` needs it too.
    scenario.command("run", &["waits", "--detach"]).expect_status(0);
    let mut run = flowstone.start(["run", scenario.manifest(), "writes", "keyed", "daily", "--json", "-j", "2"]);
    // One of `daily` may be told of before.
    let limited = loop {
        let limited = run.event("job.limited");
        if limited["asset"] == "writes" {
            break limited;
        }
    };
    assert_eq!(
        (&limited["cause"], &limited["asset"]),
        (&"the pool `resource:counter` is full".into(), &"writes".into())
    );
    let states = || {
        let shown = flowstone.run(["status", "latest", "--json"]).expect_status(0).stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let jobs = shown["job_list"].as_array().unwrap().clone();
        jobs.iter().map(|job| format!("{} {}", job["asset"], job["state"]).replace('"', "")).collect::<Vec<_>>()
    };
    wait_until("all but what the resource holds back has been made by the other slot", || {
        let states = states();
        let count = |state: &str| states.iter().filter(|job| *job == state).count();
        count("daily succeeded") == 5 && count("keyed succeeded") == 4 && count("writes limited") == 4
    });
    let shown = flowstone.run(["status", "latest"]).expect_status(0).stdout;
    assert!(shown.contains("limited:\n  writes[a] and 3 more: the pool `resource:counter` is full"), "{shown}");
    assert_all_sound(flowstone).await;
    scenario.go("on");
    run.wait().expect_status(0);
    assert_eq!(flowstone.database().ask("select count(*)::text from attempt where not charged"), ["0"]);
    assert_all_sound(flowstone).await;
    let removed = flowstone.run(["pool", "remove", "resource:counter"]).expect_status(0);
    assert!(removed.stderr.contains("0 jobs"), "{}", removed.stderr);
    for (name, told) in [("resource:countr", "there is no pool"), ("asset:scenarios/daily", "max_concurrent")] {
        let refused = flowstone.run(["pool", "remove", name]).expect_status(2);
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    let refused = flowstone.run(["pool", "set", "narrow", "0"]).expect_status(2);
    assert!(refused.stderr.contains("from 1 to"), "{}", refused.stderr);
}

#[test]
fn a_pipeline_and_a_tenant_have_bounds_of_their_own() {
    for tenants in [false, true] {
        let gauge = Gauge::default();
        let web = gauge.web(Duration::from_millis(20));
        let flowstone = Flowstone::new();
        asking(&flowstone, &web, if tenants { "" } else { "max_concurrent = 2" }, "");
        if tenants {
            flowstone.run(["pool", "set", "tenant", "2"]).expect_status(0);
        }
        let hours = "2024-01-01T00..2024-01-02T05";
        flowstone.run(["run", "./flowstone.toml", "asks_each", "--partition", hours, "-j", "8"]).expect_status(0);
        assert_eq!((gauge.most(), web.requests().len()), (2, 30));
    }
}

/// What is used of a quota, and how many jobs wait for it.
async fn used(bench: &Bench) -> (i64, i64) {
    let quota = bench.store.list_quotas(TENANT).await.unwrap().remove(0);
    (quota.used, quota.waiting)
}

#[tokio::test]
async fn who_has_used_up_a_quota_waits_for_the_next_period_or_for_a_greater_quota() {
    let bench = bench(&[("db", 100)]).await;
    let (run, claims) = claimed(&bench, 6).await;
    // An attempt of the bench uses one unit of fuel and three bytes; what ends before there is a quota is not counted.
    end(&bench, &claims[0], run, skipped()).await;
    bench.store.set_quota(TENANT, "fuel", 2, "hour").await.unwrap();
    end(&bench, &claims[1], run, skipped()).await;
    assert_eq!(used(&bench).await, (1, 0));
    assert!(bench.store.limit_by_quota(&claims[2..3]).await.unwrap().is_empty(), "there is one unit left");
    end(&bench, &claims[2], run, skipped()).await;
    end(&bench, &claims[3], run, skipped()).await;
    assert_eq!(used(&bench).await, (3, 0), "what crosses the line is committed all the same");
    assert!(claims.iter().all(|claim| !bench.known(claim).asset.over_quota));
    let back = |claim: &Claim| FinishedJob { attempt: None, ..bench.finished(claim.clone(), run, Ending::Released) };
    bench.store.commit_finished_jobs(&claims[4..].iter().map(back).collect::<Vec<_>>()).await.unwrap();
    let claims = bench.claim(10).await;
    assert!(claims.iter().all(|claim| bench.known(claim).asset.over_quota));
    let limited = bench.store.limit_by_quota(&claims).await.unwrap();
    assert_eq!((limited.len(), &*limited[0].1, used(&bench).await), (2, "fuel", (3, 2)));
    let shown = bench.store.list_jobs(TENANT, run, None, 10).await.unwrap();
    let cause = "the tenant's quota of fuel is used up until its next period begins";
    assert_eq!(shown.iter().filter(|job| job.state == "limited" && job.cause.as_deref() == Some(cause)).count(), 2);
    assert_eq!(bench.store.wake_jobs_of_new_periods().await.unwrap(), 0);
    assert_eq!(bench.store.wake_limited_jobs().await.unwrap(), 0);

    // An hour passes.
    let sql = "with q as (update quota set period_start = period_start - interval '1 hour' returning 1)
         update job_limited set due_at = due_at - interval '1 hour'";
    sqlx::query(sql).execute(&bench.database.pool().await).await.unwrap();
    assert_eq!(used(&bench).await, (0, 2));
    assert_eq!(bench.store.wake_jobs_of_new_periods().await.unwrap(), 2);
    let claims = bench.claim(10).await;
    assert!(claims.iter().all(|claim| !bench.known(claim).asset.over_quota));
    assert!(bench.store.limit_by_quota(&claims).await.unwrap().is_empty());
    end(&bench, &claims[0], run, skipped()).await;
    assert_eq!(used(&bench).await, (1, 0), "of this hour");

    bench.store.set_quota(TENANT, "fuel", 1, "hour").await.unwrap();
    assert_eq!(used(&bench).await.0, 1, "what is used stays used");
    assert_eq!(bench.store.limit_by_quota(&claims[1..]).await.unwrap().len(), 1);
    bench.store.set_quota(TENANT, "fuel", 9, "hour").await.unwrap();
    assert_eq!(bench.count("job_ready").await, 1);
    let last = bench.claim_one().await;
    bench.store.set_quota(TENANT, "bytes", 1, "month").await.unwrap();
    end(&bench, &last, run, skipped()).await;
    let used: Vec<(String, i64)> =
        bench.store.list_quotas(TENANT).await.unwrap().into_iter().map(|q| (q.measure, q.used)).collect();
    assert_eq!(used, [("fuel".to_owned(), 2), ("bytes".to_owned(), 3)]);
    assert_eq!(bench.store.remove_quota("other", "fuel").await.unwrap(), None);
    assert_eq!(bench.store.remove_quota(TENANT, "fuel").await.unwrap(), Some(0));
}

#[tokio::test]
async fn commits_of_several_workers_count_all_that_was_used() {
    let bench = bench(&[("db", 100)]).await;
    bench.store.set_quota(TENANT, "fuel", 1_000, "day").await.unwrap();
    let (run, claims) = claimed(&bench, 32).await;
    futures(claims.iter().map(|claim| end(&bench, claim, run, skipped())).collect()).await;
    assert_eq!(used(&bench).await, (32, 0));
}

#[tokio::test]
async fn a_run_over_its_quota_goes_on_when_there_is_more() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    flowstone.run(["quota", "set", "fuel", "1", "--per", "month"]).expect_status(0);
    let refused = flowstone.run(["quota", "set", "bytes", "10T", "--per", "day"]).expect_status(2);
    assert!(refused.stderr.contains("is no amount of bytes"), "{}", refused.stderr);
    let mut run = flowstone.start(["run", scenario.manifest(), "sum", "keyed", "--json", "-j", "1"]);
    let limited = run.event("job.limited");
    assert!(limited["cause"].as_str().unwrap().contains("quota of fuel"), "{limited}");
    let waiting = "select exists (select from job_limited) and not exists (select from job_ready)
         and not exists (select from job_lease)";
    let pool = flowstone.database().pool().await;
    wait_until_database_says(&pool, waiting).await;
    let status = flowstone.run(["status", "latest"]).expect_status(0).stdout;
    assert!(status.contains("limited:\n") && status.contains("quota of fuel is used up"), "{status}");
    let list = flowstone.run(["quota", "list"]).expect_status(0).stdout;
    assert!(list.contains("fuel") && list.contains("month"), "{list}");
    assert_all_sound(flowstone).await;
    let removed = flowstone.run(["quota", "remove", "fuel"]).expect_status(0);
    assert!(removed.stderr.contains("can be claimed"), "{}", removed.stderr);
    run.wait().expect_status(0);
    flowstone.run(["quota", "remove", "fuel"]).expect_status(2);
    let counted: Vec<String> = flowstone.database().ask("select count(*)::text from attempt where not charged");
    assert_eq!(counted, ["0"]);
    assert_all_sound(flowstone).await;
}
