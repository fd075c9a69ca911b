//! Watching a worker from outside, over HTTP: that its metrics are what the database has, that its health is the truth, and
//! that whoever asks costs it nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use flowstone::store::Store;
use flowstone_tests::{
    Database, Flowstone, Running,
    deadline::{DEADLINE, wait_until},
    pipeline::{Scenario, root},
    proxy::Proxy,
};
use serde_json::{Value, json};
use yaml_rust2::YamlLoader;

/// A run that goes on until the test says so, and its port.
struct Worker {
    scenario: Scenario,
    run: Running,
    address: SocketAddr,
}

/// Status and body.
type Answer = (u16, String);

impl Worker {
    fn start(scenario: Scenario, assets: &[&str]) -> Self {
        let settings = ["--json", "--metrics", "127.0.0.1:0", "-j", "2", "--grace", "1m"];
        let arguments = [&["run", scenario.manifest()], assets, &settings].concat();
        let mut run = scenario.flowstone.start(arguments);
        let line = run.said("metrics and health: http://");
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
        Self { scenario, run, address }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.address, &format!("GET {path} HTTP/1.1\r\nhost: flowstone\r\n\r\n"))
    }

    fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    fn ready(&self) -> (u16, Value) {
        let (status, body) = self.get("/health/ready");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Waits until it is not ready because of this check alone: why.
    fn not_ready(&self, check: &str) -> String {
        let mut why = String::new();
        wait_until(&format!("it is not ready: {check}"), || {
            let (status, report) = self.ready();
            let failed: Vec<&String> = report["checks"]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, one)| one["ok"] != true)
                .map(|(n, _)| n)
                .collect();
            why = report["checks"][check]["why"].as_str().unwrap_or_default().to_owned();
            assert_eq!(status == 200, failed.is_empty(), "{report}");
            assert_eq!(report["ready"], status == 200, "{report}");
            failed == [check]
        });
        assert_eq!(self.get("/health/live").0, 200, "a restart would mend nothing");
        why
    }

    fn is_ready_again(&self) {
        wait_until("it is ready again", || self.ready().0 == 200);
    }

    fn end(self) {
        self.scenario.go("on");
        self.run.wait().expect_status(0);
    }
}

/// One request, and what comes until the connection is closed.
fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What was printed: the value of each series by its whole name, labels included, and the type of each name.
struct Metrics {
    values: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let (mut values, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is described twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no series: {line:?}"));
                assert!(values.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} is there twice");
            }
        }
        Self { values, types }
    }

    fn find(&self, series: &str) -> Option<f64> {
        self.values.get(series).copied()
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("{series} is not among {:?}", self.values.keys()))
    }

    fn sum(&self, name: &str) -> f64 {
        self.values.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }
}

#[test]
fn a_worker_that_finds_nothing_asks_now_and_then() {
    let mut worker = Worker::start(Scenario::new(""), &["sum", "waits"]);
    for _ in 0..3 {
        worker.run.event("job.ended");
    }
    let asked = |worker: &Worker| worker.metrics().value("flowstone_claim_statements_total");
    let before = asked(&worker);
    worker.scenario.flowstone.database().ask("select pg_sleep(2)::text");
    let asked = asked(&worker) - before;
    // At first every few milliseconds, soon four times a second.
    assert!(asked < 50.0, "{asked} claims in two seconds");
    worker.end();
}

#[test]
fn what_is_counted_is_what_the_database_has() {
    let mut worker = Worker::start(
        Scenario::new(""),
        &["sum", "broken", "nothing_to_make", "flaky", "keyed", "waits", "after_waits"],
    );
    let database = worker.scenario.flowstone.database();
    // numbers, doubled, sum, broken, nothing_to_make, flaky, four of keyed.
    for _ in 0..10 {
        worker.run.event("job.ended");
    }
    let attempts: f64 = database.ask("select count(*)::text from attempt")[0].parse().unwrap();
    wait_until("the last commit is counted", || worker.metrics().sum("flowstone_attempts_total") == attempts);
    let metrics = worker.metrics();

    let by_verdict = database.ask(
        "select format('flowstone_attempts_total{verdict=\"%s\",charged=\"%s\"}', verdict,
                    case when charged then 'true' else 'false' end) || ' ' || count(*)
         from attempt group by verdict, charged",
    );
    assert!(by_verdict.len() >= 3, "{by_verdict:?}");
    for counted in by_verdict {
        let (series, count) = counted.rsplit_once(' ').unwrap();
        assert_eq!(metrics.value(series).to_string(), count, "{series}");
    }
    let ask = |question| database.ask(question)[0].parse::<f64>().unwrap();
    assert_eq!(metrics.value("flowstone_fuel_total"), ask("select sum(fuel_used)::text from attempt"));
    for histogram in ["flowstone_attempt_memory_peak_bytes", "flowstone_attempt_duration_seconds"] {
        assert_eq!(metrics.value(&format!("{histogram}_count")), attempts);
        assert_eq!(metrics.value(&format!("{histogram}_bucket{{le=\"+Inf\"}}")), attempts);
    }
    let peaks = ask("select sum(memory_bytes_peak)::text from attempt");
    assert_eq!(metrics.value("flowstone_attempt_memory_peak_bytes_sum"), peaks);
    let seconds = ask("select (sum(duration_us) / 1e6)::text from attempt");
    assert!((metrics.value("flowstone_attempt_duration_seconds_sum") - seconds).abs() < 1e-6);
    // Nothing was reused: each attempt is a job of a commit, and `waits` was claimed besides.
    assert_eq!(metrics.value("flowstone_committed_jobs_total"), attempts);
    assert_eq!(metrics.value("flowstone_claimed_jobs_total"), attempts + 1.0);
    assert_eq!(metrics.value("flowstone_commit_batch_jobs_sum"), attempts);
    assert_eq!(metrics.value("flowstone_commit_batch_jobs_count"), metrics.value("flowstone_commits_total"));
    assert!(metrics.value("flowstone_claim_statements_total") >= 3.0);
    assert_eq!(metrics.sum("flowstone_lease_losses_total") + metrics.value("flowstone_rescued_jobs_total"), 0.0);

    for (state, jobs) in
        [("ready", 0.0), ("deferred", 0.0), ("running", 1.0), ("blocked", 1.0), ("paused", 0.0), ("limited", 0.0)]
    {
        assert_eq!(metrics.value(&format!("flowstone_queue_jobs{{state=\"{state}\"}}")), jobs, "{state}");
        assert_eq!(metrics.value(&format!("flowstone_queue_jobs_is_estimate{{state=\"{state}\"}}")), 0.0);
    }
    assert_eq!(metrics.value("flowstone_queue_oldest_ready_age_seconds"), 0.0);
    assert_eq!((metrics.value("flowstone_slots"), metrics.value("flowstone_slots_in_use")), (2.0, 1.0));
    assert_eq!(metrics.value("flowstone_engine_pool_in_use{kind=\"component_instance\"}"), 1.0, "the one that waits");
    assert!(metrics.sum("flowstone_database_connections") >= 1.0);
    assert!(metrics.value("flowstone_heartbeat_age_seconds") < 15.0);
    // Compiled at deploy, and taken from memory since.
    assert_eq!(metrics.value("flowstone_compiled_cache_misses_total"), 1.0);
    assert_eq!(metrics.value("flowstone_compilations_total{result=\"succeeded\"}"), 1.0);
    assert!(metrics.value("flowstone_compiled_cache_memory_hits_total") >= 1.0);
    assert_eq!(metrics.sum("flowstone_build_info"), 1.0);

    let Worker { scenario, run, address } = worker;
    scenario.go("on");
    run.wait().expect_status(1);
    assert!(TcpStream::connect(address).is_err(), "nobody listens when it has ended");
}

#[test]
fn nothing_that_a_tenant_makes_up_is_a_label() {
    let worker = Worker::start(Scenario::new(""), &["keyed", "waits"]);
    let known = ["le", "state", "verdict", "charged", "cause", "kind", "result", "version", "engine", "arch"];
    let series = worker.metrics().values;
    let labels = series.keys().filter_map(|series| series.split_once('{'));
    for label in labels.flat_map(|(_, labels)| labels.trim_end_matches('}').split("\",")) {
        let (name, value) = label.split_once("=\"").unwrap();
        assert!(known.contains(&name), "{label}");
        assert!(!value.contains("keyed") && !value.contains("p1"), "{label}");
    }
    assert!(series.len() < 200, "{} series", series.len());
    worker.end();
}

/// Every expression of the dashboard and of the alert rules, with where it is.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let dashboard = fs::read_to_string(root().join("deploy/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            found.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    let panels = found.len();
    let alerts = fs::read_to_string(root().join("deploy/alerts.yml")).unwrap();
    let alerts = YamlLoader::load_from_str(&alerts).unwrap();
    for group in alerts[0]["groups"].as_vec().unwrap() {
        for rule in group["rules"].as_vec().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            for said in ["summary", "description"] {
                assert!(rule["annotations"][said].as_str().is_some(), "{name} has no {said}");
            }
            found.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(panels > 20 && found.len() - panels > 5, "{panels} of {} are of panels", found.len());
    found
}

/// Label, operator, value.
type Matcher<'e> = (&'e str, &'e str, &'e str);

/// The names of metrics in an expression, each with its matchers.
fn selectors(expression: &str) -> Vec<(&str, Vec<Matcher<'_>>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("flowstone_").filter(|(at, _)| !expression[..*at].ends_with(is_name));
    starts
        .map(|(at, _)| {
            let rest = &expression[at..];
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let matchers = rest[end..].strip_prefix('{').map_or("", |inside| inside.split('}').next().unwrap());
            let matchers = matchers.split(',').filter(|matcher| !matcher.is_empty()).map(|matcher| {
                let label = &matcher[..matcher.find(['=', '!']).unwrap()];
                let (operator, value) = matcher[label.len()..].split_once('"').unwrap();
                (label, operator, value.trim_end_matches('"'))
            });
            (&rest[..end], matchers.collect())
        })
        .collect()
}

#[test]
fn the_dashboard_the_alerts_and_the_document_know_what_is_printed_and_nothing_else() {
    let worker = Worker::start(Scenario::new(""), &["waits"]);
    let metrics = worker.metrics();
    let mut labels: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for series in metrics.values.keys() {
        let (name, of) = series.split_once('{').unwrap_or((series, ""));
        labels.entry(name).or_default().extend(of.trim_end_matches('}').split(',').map(str::to_owned));
    }
    let mut checked = 0;
    for (place, expression) in expressions() {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty(), "{place} asks for nothing: {expression}");
        for (name, matchers) in selectors {
            let known = labels.get(name).unwrap_or_else(|| panic!("{place} asks for {name}, which is not printed"));
            for (label, operator, value) in matchers {
                let values: Vec<&str> = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
                for value in values {
                    let wanted = format!("{label}=\"{value}\"");
                    assert!(known.contains(&wanted), "{place} asks for {name} with {wanted}, of {known:?}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 8, "only {checked} matchers were found");

    let document = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, table) = document.split_once("### Metrics").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `flowstone_"));
    let documented: BTreeMap<&str, BTreeSet<&str>> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (cells[1].split('`').nth(1).unwrap(), cells[2].split('`').skip(1).step_by(2).collect())
        })
        .collect();
    let printed: BTreeMap<&str, BTreeSet<&str>> = metrics
        .types
        .iter()
        .map(|(name, kind)| {
            let series = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            let of = labels.get(&*series).unwrap_or_else(|| panic!("{name} is described, and has no series"));
            (&**name, of.iter().filter_map(|label| Some(label.split_once('=')?.0)).collect())
        })
        .collect();
    assert_eq!(documented, printed, "docs/operations.md has every metric and its labels");
    for (name, kind) in &metrics.types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    worker.end();
}

#[test]
fn readiness_names_what_is_missing_and_life_goes_on() {
    let mut worker = Worker::start(Scenario::new(""), &["waits"]);
    worker.run.event("job.started");
    let all = ["accepting", "heartbeat", "database", "migrations", "blobs"];
    let checks: Value = all.iter().map(|check| ((*check).to_owned(), json!({"ok": true}))).collect();
    assert_eq!(worker.ready(), (200, json!({"ready": true, "checks": checks})));
    let live = json!({"live": true, "checks": {"claim_loop": {"ok": true}, "heartbeat_loop": {"ok": true}}});
    assert_eq!(serde_json::from_str::<Value>(&worker.get("/health/live").1).unwrap(), live);
    let database = worker.scenario.flowstone.database();

    let temporary = worker.scenario.flowstone.state_dir().join("blobs/tmp");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "what was written is removed");
    fs::remove_dir(&temporary).unwrap();
    assert!(worker.not_ready("blobs").contains("cannot write a blob to"));
    fs::create_dir(&temporary).unwrap();
    worker.is_ready_again();

    database.execute("update _sqlx_migrations set success = false where version = 11");
    assert!(worker.not_ready("migrations").contains("migration 0011 detached runs is missing"));
    database.execute("update _sqlx_migrations set success = true where version = 11");
    // Of a later version that works beside this one.
    database.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of the future', true, '', 0)",
    );
    worker.is_ready_again();

    database.execute(
        "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$",
    );
    let reconnect = "select pg_terminate_backend(pid)::text from pg_stat_activity
         where datname = current_database() and application_name = 'flowstone'";
    database.ask(reconnect);
    assert!(worker.not_ready("database").contains("its transactions only read"));
    database.execute(
        "begin read write;
         do $$ begin execute format('alter database %I reset default_transaction_read_only', current_database()); end $$;
         commit",
    );
    database.ask(reconnect);
    worker.is_ready_again();

    worker.run.signal("TERM");
    assert!(worker.not_ready("accepting").contains("takes no more jobs"));
    let Worker { scenario, run, .. } = worker;
    scenario.go("on");
    run.wait().expect_status(0);
}

#[test]
fn without_its_database_a_worker_lives_and_says_that_it_is_not_ready() {
    let mut flowstone = Flowstone::new();
    let proxy = Proxy::new(flowstone.database());
    flowstone.use_database(proxy.url());
    let mut worker = Worker::start(Scenario::with(flowstone, ""), &["waits"]);
    worker.run.event("job.started");
    assert_eq!(worker.metrics().value("flowstone_queue_jobs{state=\"running\"}"), 1.0);
    proxy.take_down();
    wait_until("it is not ready", || {
        let (status, report) = worker.ready();
        status == 503 && report["checks"]["database"]["ok"] == false && report["checks"]["blobs"]["ok"] == true
    });
    assert_eq!(worker.get("/health/live").0, 200);
    wait_until("what is not known is not told", || {
        let metrics = worker.metrics();
        metrics.find("flowstone_queue_jobs{state=\"running\"}").is_none()
            && metrics.find("flowstone_queue_oldest_ready_age_seconds").is_none()
            && metrics.value("flowstone_queue_read_failures_total") >= 1.0
            && metrics.value("flowstone_slots_in_use") == 1.0
    });
    proxy.bring_up();
    worker.is_ready_again();
    wait_until("it is told again", || worker.metrics().find("flowstone_queue_jobs{state=\"running\"}") == Some(1.0));
    worker.end();
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let worker = Worker::start(Scenario::new(""), &["waits"]);
    let mut silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(worker.address).unwrap()).collect();
    for stream in &mut silent[50..] {
        // Half a request; the other side may have closed it already.
        drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nx-slow: "));
    }
    let asked = Instant::now();
    assert_eq!(worker.get("/health/live").0, 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // The first to come was the first to go...
    silent[0].set_read_timeout(Some(DEADLINE)).unwrap();
    let closed = silent[0].read(&mut [0; 16]);
    assert!(matches!(&closed, Ok(0) | Err(_)) && asked.elapsed() < Duration::from_secs(5), "{closed:?}");
    // ...and the last has its time, and no more.
    silent[99].set_read_timeout(Some(DEADLINE)).unwrap();
    let closed = silent[99].read_to_end(&mut Vec::new());
    assert!(asked.elapsed() > Duration::from_secs(5) && asked.elapsed() < Duration::from_secs(30), "{closed:?}");
    worker.end();
}

#[test]
fn a_request_is_small_and_only_asks() {
    let worker = Worker::start(Scenario::new(""), &["waits"]);
    let ask = |request: &str| ask(worker.address, request);
    assert_eq!(worker.get("/").0, 404);
    assert_eq!(worker.get("/metrics?of=all").0, 200);
    assert_eq!(ask("HEAD /metrics HTTP/1.1\r\n\r\n"), (200, String::new()));
    assert_eq!(ask("POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\r\n").0, 405);
    assert_eq!(ask("GET /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\n").0, 413);
    assert_eq!(ask("GET /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").0, 413);
    let headers: String = (0..65).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(ask(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n")).0, 431);
    let header = "y".repeat(8 << 10);
    assert_eq!(ask(&format!("GET /metrics HTTP/1.1\r\nx: {header}\r\n\r\n")).0, 431);
    assert_eq!(worker.get("/metrics").0, 200);
    worker.end();
}

#[test]
fn an_address_of_others_or_of_somebody_else_is_refused_before_anything_is_done() {
    let scenario = Scenario::new("");
    let refused = scenario.command("run", &["numbers", "--metrics", "0.0.0.0:9464"]).expect_status(2);
    assert!(refused.stderr.contains("take 127.0.0.1:9464 or [::1]:9464"), "{}", refused.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = scenario.command("run", &["numbers", "--metrics", &address]).expect_status(3);
    assert!(refused.stderr.contains("choose another address with --metrics"), "{}", refused.stderr);
    let database = scenario.flowstone.database();
    assert_eq!(database.ask("select count(*)::text from pipeline"), ["0"], "nothing was deployed");
}

/// Fills the queue without the jobs that the rows are of: the depth is that of the tables.
const FILL: &str = "insert into job_ready (tenant_id, job_id, ready_at)
        select 'default', gen_random_uuid(), now() - interval '100 seconds' from generate_series(1, 25000);
    insert into job_deferred (tenant_id, job_id, due_at, cause, charged, released)
        select 'default', gen_random_uuid(), now(), '', 0, 0 from generate_series(1, 9999);
    insert into job_blocked (tenant_id, job_id, remaining)
        select 'default', gen_random_uuid(), 1 from generate_series(1, 10000)";

#[tokio::test]
async fn a_deep_queue_is_estimated_and_a_locked_one_is_not_waited_for() {
    let database = Database::new_blocking();
    database.execute(FILL);
    let store = Store::connect(database.options()).await.unwrap();
    let ended = Instant::now() + DEADLINE;
    let depth = loop {
        let depth = store.queue_depth().await.unwrap();
        // The server adds up its sessions' counts within a second or so.
        if depth.ready.jobs > 10_000 {
            break depth;
        }
        assert!(depth.ready.is_estimate && Instant::now() < ended, "{depth:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((depth.ready.jobs, depth.ready.is_estimate), (25_000, true));
    assert_eq!((depth.deferred.jobs, depth.deferred.is_estimate), (9_999, false));
    assert_eq!((depth.blocked.jobs, depth.blocked.is_estimate), (10_000, true));
    assert_eq!((depth.running.jobs, depth.running.is_estimate), (0, false));
    assert!((100.0..200.0).contains(&depth.oldest_ready_seconds), "{depth:?}");

    let pool = database.pool().await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table job_ready in access exclusive mode").execute(&mut *lock).await.unwrap();
    let asked = Instant::now();
    store.queue_depth().await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    lock.rollback().await.unwrap();
    assert_eq!(store.queue_depth().await.unwrap().ready.jobs, 25_000, "its connection is as it was");
    store.close(Duration::from_secs(5)).await;
}
