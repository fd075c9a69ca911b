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
    store::{commit::Ending, pipelines::NewAssetVersion, queue::Claim, workers::Rescued},
};
use flowstone_tests::{
    Flowstone,
    pipeline::guest,
    signal,
    web::{Web, answer},
};
use serde_json::Value;

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT, version},
};

/// Of which nothing completes, and which nobody shares, until one is quarantined.
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

/// A new worker takes all that is ready.
async fn take(bench: &mut Bench) -> Vec<Claim> {
    bench.worker = WorkerId::new();
    bench.store.register_worker(bench.worker, "here").await.unwrap();
    bench.claim(100).await
}

/// It dies, and others notice.
async fn die(bench: &Bench) -> Rescued {
    bench.store.expire_all_sessions().await.unwrap();
    bench.store.rescue_lost_jobs().await.unwrap()
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
    assert_eq!(bench.store.load_claimed_jobs(claims).await.unwrap()[0].quarantined, None);
    assert_eq!(die(&bench).await.quarantined, Some((TENANT.to_owned(), component(0))));
    assert_eq!(quarantined(&bench).await, [(component(0), DEATHS)]);
    let assets = bench.store.list_quarantine(TENANT).await.unwrap().remove(0).assets;
    assert_eq!(assets, ["p a0"]);
    submit(&bench, &[1]).await;
    let claims = take(&mut bench).await;
    let loaded = bench.store.load_claimed_jobs(claims).await.unwrap();
    let mut told: Vec<_> = loaded.iter().map(|job| (&*job.asset, job.quarantined)).collect();
    told.sort();
    assert_eq!(told, [("a0", Some(component(0))), ("a1", None)]);
    assert!(!bench.store.lift_quarantine("other", component(0)).await.unwrap());
    assert!(bench.store.lift_quarantine(TENANT, component(0)).await.unwrap());
    assert!(!bench.store.lift_quarantine(TENANT, component(0)).await.unwrap(), "once");
    assert_eq!(bench.count("component_death").await, 0, "it begins anew");
}

#[tokio::test]
async fn what_completes_an_attempt_is_forgiven_and_only_who_never_does_is_quarantined() {
    let mut bench = bench(2).await;
    submit(&bench, &[0]).await;
    let mut deaths = 0;
    loop {
        // Both are in each worker that dies; one has completed another job just before.
        let run = submit(&bench, &[1, 1]).await;
        let claims = take(&mut bench).await;
        let innocent = claims.iter().find(|claim| claim.job.0 > claims[0].job.0).unwrap();
        let jobs = bench.store.load_claimed_jobs(vec![innocent.clone()]).await.unwrap();
        assert_eq!(jobs[0].asset, "a1");
        let made = Ending::Skipped("nothing today".to_owned());
        bench.store.commit_finished_jobs(&[bench.finished(innocent.clone(), jobs[0].run, made)]).await.unwrap();
        let rescued = die(&bench).await;
        deaths += 1;
        bench.store.cancel_run(TENANT, run, "by hand").await.unwrap();
        if let Some((_, found)) = rescued.quarantined {
            assert_eq!((found, deaths), (component(0), 2 * DEATHS), "each death is shared by two");
            break;
        }
        assert!(deaths < 2 * DEATHS);
    }
    assert_eq!(quarantined(&bench).await, [(component(0), 2 * DEATHS)]);
}

#[tokio::test]
async fn of_eight_that_die_together_none_bears_the_whole_death_and_one_explains_it_for_all() {
    let mut bench = bench(8).await;
    submit(&bench, &(0..8).collect::<Vec<_>>()).await;
    for _ in 1..8 * DEATHS {
        assert_eq!(take(&mut bench).await.len(), 8);
        assert_eq!(die(&bench).await.quarantined, None);
    }
    take(&mut bench).await;
    assert!(die(&bench).await.quarantined.is_some(), "as many whole deaths");
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
        bench.store.register_worker(bench.worker, "here").await.unwrap();
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
