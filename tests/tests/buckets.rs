//! Buckets in the store: what a commit lets through, what it sends back, and what it writes together or not at all.

use flowstone::{
    id::RunId,
    limit::CONFLICTS_MAX,
    pipeline::key_value::{BucketBounds, KeyWrite},
    store::{
        buckets::{BucketEffects, BucketName},
        commit::{Committed, Ending, FinishedJob},
        queue::Claim,
    },
};
use uuid::Uuid;

use crate::store::{Bench, PlannedJob, TENANT};

/// A bench, and what it holds in buckets.
struct Buckets {
    bench: Bench,
}

fn name(bucket: &str) -> BucketName {
    BucketName { tenant: TENANT.to_owned(), owner: Uuid::from_u128(7), name: bucket.to_owned() }
}

const BOUNDS: BucketBounds = BucketBounds { keys: 100, value_bytes: 1_000, bytes: 10_000 };

/// What an attempt did in the bucket of this name: nothing yet.
fn in_bucket(bucket: &str) -> BucketEffects {
    BucketEffects {
        bucket: name(bucket),
        resource: bucket.to_owned(),
        bounds: BOUNDS,
        reads: vec![],
        listed: None,
        writes: vec![],
    }
}

fn set(key: &str, value: &str) -> (String, KeyWrite) {
    (key.to_owned(), KeyWrite::Set(value.as_bytes().to_vec()))
}

fn remove(key: &str) -> (String, KeyWrite) {
    (key.to_owned(), KeyWrite::Remove)
}

fn add(key: &str, delta: i64) -> (String, KeyWrite) {
    (key.to_owned(), KeyWrite::Add { delta, shown: key.to_owned() })
}

/// How a commit ended its jobs, in the order of the batch: the states and causes of those that ended, and the others'
/// causes to be tried again.
fn told(committed: &Committed, batch: &[FinishedJob]) -> Vec<String> {
    let of = |item: &FinishedJob| {
        let job = item.claim.job;
        let ended = committed.ended.iter().find(|end| end.job == job);
        let deferred = committed.deferred.iter().find(|deferred| deferred.job == job);
        match (ended, deferred) {
            (Some(end), None) => {
                [Some(end.state), end.cause.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(": ")
            }
            (None, Some(deferred)) => format!("again: {}", deferred.cause),
            other => panic!("a job is in one place: {other:?}"),
        }
    };
    batch.iter().map(of).collect()
}

const CONFLICT: &str = "again: keys of bucket `b` changed while the attempt used them";

impl Buckets {
    async fn new() -> Self {
        Self { bench: Bench::new().await }
    }

    /// Claims of this many jobs of one run.
    async fn claims(&self, count: usize) -> (RunId, Vec<Claim>) {
        let keys: Vec<String> = (0..count).map(|n| format!("k=static:{n}")).collect();
        let jobs: Vec<PlannedJob<'_>> = keys.iter().map(|key| ("a", &**key, &[][..])).collect();
        let (run, _) = self.bench.submit(&jobs).await;
        (run, self.bench.claim(count as i64).await)
    }

    /// Jobs that succeeded, each with what it did.
    async fn succeeded(&self, effects: Vec<Vec<BucketEffects>>) -> Vec<FinishedJob> {
        let (run, claims) = self.claims(effects.len()).await;
        let jobs = claims.into_iter().zip(effects).enumerate();
        jobs.map(|(n, (claim, buckets))| {
            let ending = self.bench.made("a", &format!("k=static:{n}"), b"made", vec![]);
            FinishedJob { buckets, ..self.bench.finished(claim, run, ending) }
        })
        .collect()
    }

    /// Commits them as one batch.
    async fn commit(&self, effects: Vec<Vec<BucketEffects>>) -> Vec<String> {
        let batch = self.succeeded(effects).await;
        told(&self.bench.store.commit_finished_jobs(&batch).await.unwrap(), &batch)
    }

    /// Commits one that only writes.
    async fn write(&self, bucket: &str, writes: Vec<(String, KeyWrite)>) -> String {
        self.commit(vec![vec![BucketEffects { writes, ..in_bucket(bucket) }]]).await.remove(0)
    }

    /// What is there now, as an attempt reads it.
    async fn read(&self, bucket: &str, key: &str) -> (String, Option<i64>) {
        let found = self.bench.store.find_bucket_value(&name(bucket), key).await.unwrap();
        (key.to_owned(), found.map(|(_, version)| version))
    }

    async fn value(&self, bucket: &str, key: &str) -> Option<String> {
        let found = self.bench.store.find_bucket_value(&name(bucket), key).await.unwrap();
        found.map(|(value, _)| String::from_utf8(value).unwrap())
    }

    async fn listed(&self, bucket: &str) -> Option<i64> {
        Some(self.bench.store.list_bucket_keys(&name(bucket), "", true, 10).await.unwrap().1)
    }

    async fn verdicts(&self) -> Vec<String> {
        let sql = "select verdict || case when charged then '' else ', uncharged' end from attempt order by verdict";
        sqlx::query_scalar(sql).fetch_all(&self.bench.database.pool().await).await.unwrap()
    }
}

#[tokio::test]
async fn writes_land_with_the_commit_and_count_what_the_bucket_holds() {
    let buckets = Buckets::new().await;
    assert_eq!(buckets.write("b", vec![set("one", "1"), set("two", "22"), add("n", -5)]).await, "succeeded");
    assert_eq!(buckets.value("b", "one").await.as_deref(), Some("1"));
    assert_eq!(buckets.value("b", "n").await.as_deref(), Some("-5"));
    assert_eq!(buckets.value("other", "one").await, None);
    assert_eq!(
        buckets.write("b", vec![remove("one"), remove("absent"), set("two", ""), add("n", 7)]).await,
        "succeeded"
    );
    assert_eq!(buckets.value("b", "one").await, None);
    assert_eq!(buckets.value("b", "two").await.as_deref(), Some(""));
    assert_eq!(buckets.value("b", "n").await.as_deref(), Some("2"));
    let held = "select keys || ' ' || bytes from bucket where name = 'b'";
    let held: String = sqlx::query_scalar(held).fetch_one(&buckets.bench.database.pool().await).await.unwrap();
    assert_eq!(held, "2 5", "keys `two` and `n`, and one byte of a value");
}

#[tokio::test]
async fn of_one_batch_the_first_reader_of_a_key_wins_and_the_others_run_again_uncharged() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("k", "0")]).await;
    let read = buckets.read("b", "k").await;
    let reads_and_writes = |value: &str| {
        vec![BucketEffects { reads: vec![read.clone()], writes: vec![set("k", value)], ..in_bucket("b") }]
    };
    let told = buckets.commit(["1", "2", "3"].map(reads_and_writes).into()).await;
    assert_eq!(told, ["succeeded", CONFLICT, CONFLICT]);
    assert_eq!(buckets.value("b", "k").await.as_deref(), Some("1"));
    assert_eq!(buckets.verdicts().await, ["conflicted, uncharged", "conflicted, uncharged", "succeeded", "succeeded"]);
    let made = "select count(*) from materialization";
    let made: i64 = sqlx::query_scalar(made).fetch_one(&buckets.bench.database.pool().await).await.unwrap();
    assert_eq!(made, 2, "what ran again made nothing");
}

#[tokio::test]
async fn readers_of_a_key_that_nobody_writes_all_pass() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("k", "0")]).await;
    let (read, absent) = (buckets.read("b", "k").await, buckets.read("b", "absent").await);
    let reads = vec![BucketEffects { reads: vec![read, absent], listed: buckets.listed("b").await, ..in_bucket("b") }];
    assert_eq!(buckets.commit(vec![reads; 3]).await, ["succeeded"; 3]);
}

#[tokio::test]
async fn a_value_that_is_the_same_again_is_another_one() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("k", "same")]).await;
    let (read, absent) = (buckets.read("b", "k").await, buckets.read("b", "absent").await);
    buckets.write("b", vec![remove("k"), set("absent", "")]).await;
    buckets.write("b", vec![set("k", "same"), remove("absent")]).await;
    let effects = |read: &(String, Option<i64>)| vec![BucketEffects { reads: vec![read.clone()], ..in_bucket("b") }];
    assert_eq!(buckets.commit(vec![effects(&read)]).await, [CONFLICT]);
    assert_eq!(buckets.commit(vec![effects(&absent)]).await, ["succeeded"], "an absence is what it was");
}

#[tokio::test]
async fn a_listing_holds_until_a_key_comes_or_goes() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("k", "1")]).await;
    let listed = buckets.listed("b").await;
    let lists = || vec![BucketEffects { listed, ..in_bucket("b") }];
    buckets.write("b", vec![set("k", "2"), remove("absent")]).await;
    assert_eq!(buckets.commit(vec![lists()]).await, ["succeeded"], "a value is no key");
    let adds = vec![BucketEffects { writes: vec![set("new", "")], ..in_bucket("b") }];
    assert_eq!(buckets.commit(vec![adds, lists()]).await, ["succeeded", CONFLICT]);
    assert_eq!(buckets.commit(vec![lists()]).await, [CONFLICT]);
    // Of a bucket that nobody has written to.
    let listed = buckets.listed("empty").await;
    let lists = || vec![BucketEffects { listed, ..in_bucket("empty") }];
    assert_eq!(buckets.commit(vec![lists()]).await, ["succeeded"]);
    buckets.write("empty", vec![set("k", "")]).await;
    assert_eq!(
        buckets.commit(vec![lists()]).await,
        ["again: keys of bucket `empty` changed while the attempt used them"]
    );
}

#[tokio::test]
async fn jobs_that_count_without_reading_never_meet() {
    let buckets = Buckets::new().await;
    let counts = vec![BucketEffects { writes: vec![add("n", 3)], ..in_bucket("b") }];
    assert_eq!(buckets.commit(vec![counts; 20]).await, ["succeeded"; 20]);
    assert_eq!(buckets.value("b", "n").await.as_deref(), Some("60"));
}

#[tokio::test]
async fn a_failure_that_follows_from_what_is_not_so_any_more_does_not_count() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("k", "1")]).await;
    let read = buckets.read("b", "k").await;
    buckets.write("b", vec![set("k", "2")]).await;
    let (run, mut claims) = buckets.claims(2).await;
    let fails = |ending: Ending, claim: Claim, read: &(String, Option<i64>)| {
        let effects = BucketEffects { reads: vec![read.clone()], writes: vec![set("k", "3")], ..in_bucket("b") };
        FinishedJob { buckets: vec![effects], ..buckets.bench.finished(claim, run, ending) }
    };
    let now = buckets.read("b", "k").await;
    let batch = [
        fails(Ending::Failed("it read 1".to_owned()), claims.remove(0), &read),
        fails(Ending::Skipped("it read 2".to_owned()), claims.remove(0), &now),
    ];
    let committed = buckets.bench.store.commit_finished_jobs(&batch).await.unwrap();
    assert_eq!(told(&committed, &batch), [CONFLICT, "skipped: it read 2"]);
    assert_eq!(buckets.value("b", "k").await.as_deref(), Some("2"), "only what is made writes");
}

#[tokio::test]
async fn a_job_that_always_conflicts_fails_in_the_end() {
    let buckets = Buckets::new().await;
    let (run, mut claims) = buckets.claims(1).await;
    let pool = buckets.bench.database.pool().await;
    // A version that never was.
    let effects = BucketEffects { reads: vec![("k".to_owned(), Some(-1))], ..in_bucket("b") };
    for time in 0..=CONFLICTS_MAX {
        let claim = claims.pop().expect("it came back");
        assert_eq!((claim.charged, i64::from(claim.released)), (0, time));
        let made = buckets.bench.made("a", "k=static:0", b"made", vec![]);
        let batch = [FinishedJob { buckets: vec![effects.clone()], ..buckets.bench.finished(claim, run, made) }];
        let committed = buckets.bench.store.commit_finished_jobs(&batch).await.unwrap();
        if time == CONFLICTS_MAX {
            let cause = format!("failed: keys of bucket `b` changed while the attempt used them, {} times", time + 1);
            assert_eq!(told(&committed, &batch), [cause]);
            break;
        }
        assert_eq!(told(&committed, &batch), [CONFLICT]);
        sqlx::query("update job_deferred set due_at = now()").execute(&pool).await.unwrap();
        assert_eq!(buckets.bench.store.promote_due_jobs(10).await.unwrap(), 1);
        claims = buckets.bench.claim(1).await;
    }
    assert_eq!(buckets.verdicts().await, vec!["conflicted, uncharged"; CONFLICTS_MAX as usize + 1]);
}

#[tokio::test]
async fn what_a_bucket_cannot_hold_fails_its_job_and_no_other() {
    let buckets = Buckets::new().await;
    let many = |prefix: &str, count: usize| (0..count).map(|n| set(&format!("{prefix}{n}"), "")).collect::<Vec<_>>();
    let writes = |writes: Vec<(String, KeyWrite)>| vec![BucketEffects { writes, ..in_bucket("b") }];
    // In two buckets: of a job that fails in one, nothing is in the other.
    let mut in_two = writes(many("x", 51));
    in_two.insert(0, BucketEffects { writes: vec![set("k", "")], ..in_bucket("a") });
    let told = buckets.commit(vec![writes(many("k", 50)), in_two, writes(many("y", 50))]).await;
    let too_many = "failed: bucket `b` would hold 101 keys, more than its bound of 100";
    assert_eq!(told, ["succeeded", too_many, "succeeded"]);
    assert_eq!(buckets.value("a", "k").await, None);
    assert_eq!(buckets.verdicts().await, ["failed", "succeeded", "succeeded"], "and it counts");

    let large = "x".repeat(9_000);
    assert_eq!(buckets.write("c", vec![set("k", &large)]).await, "succeeded");
    let told = buckets.write("c", vec![set("other", &"x".repeat(995))]).await;
    assert_eq!(told, "failed: bucket `c` would hold 10001 bytes, more than its bound of 10000");
    assert_eq!(buckets.write("c", vec![set("other", &"x".repeat(994))]).await, "succeeded");

    // One that holds more than it may by now can still shrink.
    let lowered = BucketBounds { keys: 10, bytes: 10, ..BOUNDS };
    let shrink = |writes| vec![BucketEffects { bounds: lowered, writes, ..in_bucket("c") }];
    assert_eq!(buckets.commit(vec![shrink(vec![set("k", "less")])]).await, ["succeeded"]);
    let told = buckets.commit(vec![shrink(vec![set("k", "a little more")])]).await;
    assert!(told[0].starts_with("failed: bucket `c` would hold "), "{told:?}");
    assert_eq!(buckets.commit(vec![shrink(vec![remove("other")])]).await, ["succeeded"]);
}

#[tokio::test]
async fn what_is_no_counter_cannot_be_added_to() {
    let buckets = Buckets::new().await;
    buckets.write("b", vec![set("word", "one"), set("most", &i64::MAX.to_string())]).await;
    let why = "the decimal text of a 64-bit integer";
    assert_eq!(
        buckets.write("b", vec![set("k", ""), add("word", 1)]).await,
        format!("failed: key `word` of bucket `b`: its value is not {why}")
    );
    assert_eq!(
        buckets.write("b", vec![add("most", 1)]).await,
        "failed: key `most` of bucket `b`: the sum is out of the range of a 64-bit integer"
    );
    assert_eq!(buckets.value("b", "k").await, None);
    assert_eq!(buckets.write("b", vec![add("most", -1)]).await, "succeeded");
}

#[tokio::test]
async fn commits_that_use_the_same_buckets_wait_for_each_other_and_not_for_ever() {
    const JOBS: usize = 24;
    let buckets = Buckets::new().await;
    // Every second one names them the other way round, and reads what the others write; none exists before.
    let effects = (0..JOBS).map(|n| {
        let (one, other) = if n % 2 == 0 { ("b", "c") } else { ("c", "b") };
        let count = BucketEffects { writes: vec![add("n", 1)], ..in_bucket(one) };
        let read = BucketEffects { reads: vec![("absent".to_owned(), None)], ..in_bucket(other) };
        vec![count, read]
    });
    let jobs = buckets.succeeded(effects.collect()).await;
    let commits: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let store = buckets.bench.store.clone();
            tokio::spawn(async move { store.commit_finished_jobs(&[job]).await.unwrap().ended.len() })
        })
        .collect();
    for commit in commits {
        assert_eq!(commit.await.unwrap(), 1);
    }
    for bucket in ["b", "c"] {
        assert_eq!(buckets.value(bucket, "n").await, Some((JOBS / 2).to_string()));
    }
}

#[tokio::test]
async fn a_job_that_is_no_longer_its_workers_writes_nothing() {
    let buckets = Buckets::new().await;
    let batch = buckets.succeeded(vec![vec![BucketEffects { writes: vec![add("n", 1)], ..in_bucket("b") }]]).await;
    buckets.bench.store.commit_finished_jobs(&batch).await.unwrap();
    // The answer was lost, and the commit is tried again.
    let again = buckets.bench.store.commit_finished_jobs(&batch).await.unwrap();
    assert_eq!(again.fenced.len(), 1);
    assert_eq!(buckets.value("b", "n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn keys_are_listed_bytewise_from_a_place_on() {
    let buckets = Buckets::new().await;
    let keys = ["a", "B", "a/2", "a/10", "ä", "z", "a\u{1}"];
    buckets.write("b", keys.iter().map(|key| set(key, "")).collect()).await;
    let list = async |from: &str, is_included: bool, limit: i64| {
        buckets.bench.store.list_bucket_keys(&name("b"), from, is_included, limit).await.unwrap().0
    };
    assert_eq!(list("", true, 10).await, ["B", "a", "a\u{1}", "a/10", "a/2", "z", "ä"]);
    assert_eq!(list("a", true, 2).await, ["a", "a\u{1}"]);
    assert_eq!(list("a", false, 2).await, ["a\u{1}", "a/10"]);
    assert_eq!(list("ä", false, 2).await, [""; 0]);
}
