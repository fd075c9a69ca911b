//! Components that take their workers with them: who is quarantined, who is not, and how it is lifted. The guest of the
//! last test is `asks` of `tests/guests/http`.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use flowstone::{
    blob::{Digest, Stored},
    id::{RunId, WorkerId},
    limit::QUARANTINE_DEATHS,
    store::{
        commit::Ending,
        pipelines::NewAssetVersion,
        queue::{Claim, Served},
        workers::Rescued,
    },
};
use flowstone_tests::{
    Flowstone,
    deadline::wait_until_database_says,
    pipeline::guest,
    signal,
    web::{Web, answer},
};
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT, version},
};

/// One after the other, until one is quarantined of which nothing completes meanwhile.
const DEATHS: i32 = QUARANTINE_DEATHS as i32;

fn component(n: usize) -> Digest {
    Digest([n as u8 + 1; 32])
}

/// A bench with so many assets, each of a component of its own.
async fn bench(assets: usize) -> Bench {
    let mut bench = Bench::new().await;
    let mut new = version("p", 2);
    let one = new.assets[0].clone();
    let asset = |n| NewAssetVersion { name: format!("a{n}"), component: component(n), ..one.clone() };
    new.assets = (0..assets).map(asset).collect();
    new.components = (0..assets).map(|n| Stored { digest: component(n), size: 9 }).collect();
    bench.store.deploy(&new).await.unwrap();
    bench.pipeline = bench.store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
    bench
}

/// A job of each of these assets, all ready, in one run.
async fn submit(bench: &Bench, assets: &[usize]) -> RunId {
    let names: Vec<String> = assets.iter().map(|n| format!("a{n}")).collect();
    let jobs: Vec<_> = names.iter().map(|name| (name.as_str(), "none", &[][..])).collect();
    bench.submit(&jobs).await.0
}

/// A new worker takes all that is or will be ready.
async fn take(bench: &mut Bench) -> Vec<Claim> {
    bench.database.execute("update job_deferred set due_at = now()");
    bench.store.promote_due_jobs(100).await.unwrap();
    start(bench).await;
    bench.claim(100).await
}

/// A new worker.
async fn start(bench: &mut Bench) {
    bench.worker = WorkerId::new();
    bench.store.register_worker(bench.worker, "here", &Served::default()).await.unwrap();
}

/// It dies, and others notice.
async fn die(bench: &Bench) -> Rescued {
    bench.store.expire_all_sessions().await.unwrap();
    bench.store.rescue_lost_jobs().await.unwrap()
}

/// One of several dies.
async fn expire(pool: &PgPool, worker: WorkerId) {
    let sql = "update worker set beat_at = '-infinity' where worker_id = $1";
    sqlx::query(sql).bind(worker.0).execute(pool).await.unwrap();
}

/// The asset of a claim.
fn asset(bench: &Bench, claim: &Claim) -> (String, RunId) {
    let job = bench.known(claim);
    (job.asset.name.clone(), job.run)
}

/// It has nothing to make.
async fn complete(bench: &Bench, claim: Claim, run: RunId) {
    let made = Ending::Skipped("nothing today".to_owned());
    bench.store.commit_finished_jobs(&[bench.finished(claim, run, made)]).await.unwrap();
}

async fn quarantined(bench: &Bench) -> Vec<(Digest, i32)> {
    let records = bench.store.list_quarantine(TENANT).await.unwrap();
    records.into_iter().map(|record| (record.component, record.deaths)).collect()
}

#[tokio::test]
async fn a_component_that_workers_keep_dying_with_is_quarantined() {
    let mut bench = bench(2).await;
    submit(&bench, &[0]).await;
    for _ in 1..DEATHS {
        take(&mut bench).await;
        assert_eq!(die(&bench).await.quarantined, None);
    }
    let claims = take(&mut bench).await;
    assert_eq!(bench.known(&claims[0]).asset.quarantined, None);
    assert_eq!(die(&bench).await.quarantined, Some((TENANT.to_owned(), component(0))));
    assert_eq!(quarantined(&bench).await, [(component(0), DEATHS)]);
    let assets = bench.store.list_quarantine(TENANT).await.unwrap().remove(0).assets;
    assert_eq!(assets, ["p a0"]);
    submit(&bench, &[1]).await;
    let claims = take(&mut bench).await;
    let known = claims.iter().map(|claim| bench.known(claim).asset);
    let mut told: Vec<_> = known.map(|asset| (asset.name.clone(), asset.quarantined)).collect();
    told.sort();
    assert_eq!(told, [("a0".to_owned(), Some(component(0))), ("a1".to_owned(), None)]);
    assert!(!bench.store.lift_quarantine("other", component(0)).await.unwrap());
    assert!(bench.store.lift_quarantine(TENANT, component(0)).await.unwrap());
    assert!(!bench.store.lift_quarantine(TENANT, component(0)).await.unwrap(), "once");
    assert_eq!(bench.count("component_death").await, 0, "it begins anew");
}

#[tokio::test]
async fn what_completes_an_attempt_is_forgiven_and_only_who_never_does_is_quarantined() {
    let mut bench = bench(2).await;
    submit(&bench, &[0]).await;
    for death in 1..=DEATHS {
        // Both are in each worker that dies; one has completed another job just before.
        let run = submit(&bench, &[1, 1]).await;
        let claims = take(&mut bench).await;
        let innocent = claims.iter().find(|claim| claim.job.0 > claims[0].job.0).unwrap().clone();
        assert_eq!(asset(&bench, &innocent).0, "a1");
        complete(&bench, innocent, run).await;
        let found = die(&bench).await.quarantined;
        bench.store.cancel_run(TENANT, run, "by hand").await.unwrap();
        assert_eq!(found, (death == DEATHS).then(|| (TENANT.to_owned(), component(0))));
    }
    assert_eq!(quarantined(&bench).await, [(component(0), DEATHS)]);
}

#[tokio::test]
async fn a_storm_of_kills_is_one_death_however_many_workers_it_ends() {
    let mut bench = bench(1).await;
    let pool = bench.database.pool().await;
    for storm in 1..DEATHS {
        submit(&bench, &[0; 40]).await;
        bench.database.execute("update job_deferred set due_at = now()");
        bench.store.promote_due_jobs(1_000).await.unwrap();
        let mut workers = Vec::new();
        for _ in 0..4 * DEATHS {
            start(&mut bench).await;
            assert!(!bench.claim(1).await.is_empty());
            workers.push(bench.worker);
        }
        // Each is found dead by itself, and all took their jobs before the first was found.
        for worker in workers {
            expire(&pool, worker).await;
            let rescued = bench.store.rescue_lost_jobs().await.unwrap();
            assert_eq!(rescued, Rescued { jobs: 1, quarantined: None }, "in storm {storm}");
        }
    }
    // With nothing completed in so many of them, it is no storm any more.
    take(&mut bench).await;
    assert_eq!(die(&bench).await.quarantined, Some((TENANT.to_owned(), component(0))));
    assert_eq!(quarantined(&bench).await, [(component(0), DEATHS)]);
}

#[tokio::test]
async fn deaths_that_two_processes_find_at_once_count_as_one() {
    let mut bench = bench(1).await;
    submit(&bench, &[0; 2]).await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        start(&mut bench).await;
        assert_eq!(bench.claim(1).await.len(), 1);
        workers.push(bench.worker);
    }
    // Neither can end before both have noted what they note.
    let pool = bench.database.pool().await;
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("lock table attempt in share mode").execute(&mut *blocker).await.unwrap();
    let mut rescues = Vec::new();
    let waits = [
        "select count(distinct pid) = 1 from pg_locks where not granted",
        "select count(distinct pid) = 2 from pg_locks where not granted",
    ];
    for (waits, worker) in waits.into_iter().zip(workers) {
        expire(&pool, worker).await;
        let store = bench.store.clone();
        rescues.push(tokio::spawn(async move { store.rescue_lost_jobs().await }));
        wait_until_database_says(&pool, waits).await;
    }
    blocker.rollback().await.unwrap();
    for rescue in rescues {
        assert_eq!(rescue.await.unwrap().unwrap().jobs, 1);
    }
    let notes = "select count(*)::text || ' ' || count(*) filter (where counts) from component_death";
    assert_eq!(bench.database.ask(notes), ["2 1"]);
}

#[tokio::test]
async fn beside_seven_others_a_killer_is_found_as_soon_and_alone() {
    let mut bench = bench(8).await;
    submit(&bench, &(0..8).collect::<Vec<_>>()).await;
    // Whoever has them all dies at once.
    for _ in 0..2 {
        assert_eq!(take(&mut bench).await.len(), 8);
        assert_eq!(die(&bench).await.quarantined, None);
    }
    // They come back one by one, and not all at the end of their time.
    let apart = "select (count(*) = 8 and count(distinct due_at) = 8 and max(due_at) - min(due_at) > interval '10 ms'
         and max(due_at) < now() + interval '1 second')::text from job_deferred";
    assert_eq!(bench.database.ask(apart), ["true"]);
    let (mut deaths, mut completed) = (2, 0);
    while quarantined(&bench).await.is_empty() {
        bench.database.execute(
            "update job_deferred set due_at = now() where job_id = (select job_id from job_deferred order by due_at limit 1)",
        );
        bench.store.promote_due_jobs(1).await.unwrap();
        start(&mut bench).await;
        let claim = bench.claim_one().await;
        match asset(&bench, &claim) {
            (asset, run) if asset != "a3" => {
                complete(&bench, claim, run).await;
                completed += 1;
            }
            _ => {
                die(&bench).await;
                deaths += 1;
            }
        }
    }
    assert_eq!((quarantined(&bench).await, deaths, completed), (vec![(component(3), DEATHS)], DEATHS, 7));
    assert_eq!(bench.count("component_death").await, 0);
}

#[tokio::test]
async fn of_those_that_have_as_many_deaths_the_last_claimed_is_quarantined_and_explains_the_others() {
    let mut bench = bench(8).await;
    for death in 1..=DEATHS {
        // Seven that run for long; whoever is claimed with them kills.
        let run = submit(&bench, &[0, 1, 2, 4, 5, 6, 7]).await;
        assert_eq!(take(&mut bench).await.len(), 7);
        let killer = submit(&bench, &[3]).await;
        assert_eq!(bench.claim(100).await.len(), 1);
        let found = die(&bench).await.quarantined;
        assert_eq!(found, (death == DEATHS).then(|| (TENANT.to_owned(), component(3))));
        for run in [run, killer] {
            bench.store.cancel_run(TENANT, run, "by hand").await.unwrap();
        }
        bench.store.end_waiting_jobs_of_cancelled_runs().await.unwrap();
    }
    assert_eq!((quarantined(&bench).await.len(), bench.count("component_death").await), (1, 0));
}

#[tokio::test]
async fn a_worker_that_comes_back_had_not_died() {
    let mut bench = bench(1).await;
    submit(&bench, &[0]).await;
    for _ in 0..2 * DEATHS {
        take(&mut bench).await;
        assert_eq!(die(&bench).await.quarantined, None);
        assert!(!bench.store.renew_session(bench.worker).await.unwrap());
        bench.store.register_worker(bench.worker, "here", &Served::default()).await.unwrap();
        assert_eq!(bench.count("component_death").await, 0);
    }
    assert!(quarantined(&bench).await.is_empty());
}

#[tokio::test]
async fn a_guest_that_kills_its_worker_is_quarantined_until_it_is_lifted() {
    // Who is killed when the guest asks; before the test knows its worker, the guest waits.
    let victim: Arc<Mutex<Option<u32>>> = Arc::default();
    let mended: Arc<AtomicBool> = Arc::default();
    let (killing, is_mended) = (victim.clone(), mended.clone());
    let web = Web::start(move |_, _| {
        while !is_mended.load(Ordering::Acquire) {
            if let Some(pid) = killing.lock().unwrap().take() {
                signal(pid, "KILL");
                return String::new();
            }
            thread::sleep(Duration::from_millis(1));
        }
        answer(200, "mended")
    });
    let flowstone = Flowstone::new();
    fs::write(flowstone.folder().join("ca.pem"), web.ca()).unwrap();
    let idle: String = ["asks_too", "asks_each", "hoards", "insists"]
        .map(|asset| format!("[assets.{asset}]\ngrants.api = {{ paths = [\"unused\"] }}\n"))
        .concat();
    let text = format!(
        "[pipeline]\nname = \"web\"\n[[components]]\npath = \"{}\"\n[[components]]\npath = \"{}\"\n[resources.api]\n\
         kind = \"http\"\nurl = \"https://{}/v1\"\nmethods = [\"GET\"]\nnetworks = [\"127.0.0.0/8\", \"::1\"]\n\
         ca = \"ca.pem\"\n{idle}[assets.asks]\nconfig = {{ path = \"items/1\" }}\ngrants.api = {{ paths = [\"items/*\"] }}\n",
        guest("http").display(),
        guest("chaos").display(),
        web.authority()
    );
    fs::write(flowstone.folder().join("flowstone.toml"), text).unwrap();
    flowstone.run(["run", "./flowstone.toml", "asks", "--detach"]).expect_status(0);
    let pool = flowstone.database().pool().await;
    for _ in 0..DEATHS {
        let worker = flowstone.start(["work", "-j", "1"]);
        let pid = worker.pid();
        *victim.lock().unwrap() = Some(pid);
        drop(worker.wait());
        sqlx::query("update worker set beat_at = '-infinity' where pid = $1")
            .bind(pid as i32)
            .execute(&pool)
            .await
            .unwrap();
    }
    // Its next worker lives, does not run it, and runs what others made.
    let mut worker = flowstone.start(["work", "-j", "1"]);
    flowstone.run(["watch", "latest"]).expect_status(1);
    assert_eq!((web.requests().len() as i32, worker.has_ended()), (DEATHS, false));
    let status = flowstone.run(["status", "latest"]).expect_status(0).stdout;
    assert!(status.contains("is quarantined") && status.contains("`flowstone quarantine lift "), "{status}");
    let hours = "2024-01-01T00..2024-01-01T05";
    flowstone.run(["run", "web", "first", "--partition", hours, "--detach"]).expect_status(0);
    flowstone.run(["watch", "latest"]).expect_status(0);
    let list = flowstone.run(["quarantine", "list", "--json"]).expect_status(0).stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["deaths"]), (1, &DEATHS.into()));
    let digest = list[0]["component"].as_str().unwrap();
    assert!(status.contains(&digest[..16]), "{status}");
    assert!(flowstone.run(["quarantine", "list"]).expect_status(0).stdout.contains("web asks"));
    flowstone.run(["quarantine", "lift", "0123456789"]).expect_status(2);
    flowstone.run(["quarantine", "lift", &digest[..16]]).expect_status(0);
    mended.store(true, Ordering::Release);
    flowstone.run(["run", "web", "asks", "--detach"]).expect_status(0);
    flowstone.run(["watch", "latest"]).expect_status(0);
    assert_eq!(flowstone.run(["show", "web", "asks"]).expect_status(0).stdout, "mended");
    let lost = "select count(*)::text || ' ' || count(*) filter (where charged) from attempt where verdict = 'lost'";
    assert_eq!(flowstone.database().ask(lost), [format!("{DEATHS} 0")]);
    let told = "select action from audit where action like 'component.%' order by sequence";
    assert_eq!(flowstone.database().ask(told), ["component.quarantined", "component.lifted"]);
    worker.interrupt();
    worker.wait().expect_status(0);
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}
