//! Granted HTTP origins through the real command: an HTTPS server with an authority of its own, real components, both
//! interfaces; what is recorded, and what holds across processes and attempts. The guests are those of
//! `tests/guests/http` and `tests/guests/wasi-http`.

use std::{fs, sync::Arc, time::Duration};

use flowstone::{
    id::AssetId,
    pipeline::http::Rate,
    store::{Store, StoreError},
};
use flowstone_tests::{
    Database, Flowstone, Output,
    pipeline::{ended, example, guest, root},
    web::{Web, answer},
};
use serde_json::Value;

/// A command with one component, a resource `api` at the server, and the rest of the manifest as the test says.
struct Setting {
    flowstone: Flowstone,
}

impl Setting {
    /// `resource` follows in the resource's section, `more` after it.
    fn new(component: &str, web: &Web, resource: &str, more: &str) -> Self {
        let setting = Self { flowstone: Flowstone::new() };
        setting.bind(component, web, resource, more);
        setting
    }

    fn bind(&self, component: &str, web: &Web, resource: &str, more: &str) {
        let folder = self.flowstone.folder();
        fs::write(folder.join("ca.pem"), web.ca()).unwrap();
        // What a test does not speak of has a grant that nothing uses: the guest holds more assets than one.
        let all = if component == "http" {
            &["asks", "asks_too", "asks_each", "hoards", "insists"][..]
        } else {
            &["brings_a_client"]
        };
        let idle: String = all
            .iter()
            .filter(|asset| !more.contains(&format!("[assets.{asset}]")))
            .map(|asset| format!("[assets.{asset}]\ngrants.api = {{ paths = [\"unused\"] }}\n"))
            .collect();
        let text = format!(
            "[pipeline]\nname = \"web\"\n[[components]]\npath = \"{}\"\n[resources.api]\nkind = \"http\"\n\
             url = \"https://{}/v1\"\nmethods = [\"GET\", \"POST\"]\nnetworks = [\"127.0.0.0/8\", \"::1\"]\nca = \"ca.pem\"\n\
             {resource}\n{more}\n{idle}",
            guest(component).display(),
            web.authority()
        );
        fs::write(folder.join("flowstone.toml"), text).unwrap();
    }

    fn run(&self, asset: &str) -> Output {
        self.flowstone.run(["run", "./flowstone.toml", asset, "--json"])
    }

    fn show(&self, asset: &str) -> String {
        self.flowstone.run(["show", "web", asset]).expect_status(0).stdout
    }

    /// What all attempts did.
    fn uses(&self) -> Vec<Value> {
        parsed(
            self.flowstone.database().ask("select uses::text from attempt where uses is not null order by started_at"),
        )
    }

    /// What they were not allowed to.
    fn denials(&self) -> Vec<Value> {
        parsed(self.flowstone.database().ask("select denials::text from attempt where denials is not null"))
    }
}

fn parsed(lists: Vec<String>) -> Vec<Value> {
    lists.iter().flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap()).collect()
}

/// An asset of the guest `http`, with this configuration and grant.
fn asset(name: &str, config: &str, grant: &str) -> String {
    format!(
        "[assets.{name}]\nconfig = {{ {config} }}\ngrants.api = {{ {grant} }}\nretry.base = \"10ms\"\nretry.cap = \"10ms\"\n"
    )
}

#[test]
fn the_example_reads_pages_and_posts_once() {
    let web = Web::start(|_, seen| match &*seen.line {
        "GET /v1/items?page=1" => answer(200, r#"{"items":[{"name":"tea","cents":300}],"next":2}"#),
        "GET /v1/items?page=2" => answer(200, r#"{"items":[{"name":"cup","cents":150}]}"#),
        "POST /v1/notices" => answer(201, r#"{"id":"n1"}"#),
        _ => answer(404, ""),
    });
    // A copy that names the test's server.
    let flowstone = Flowstone::new();
    let folder = flowstone.folder().join("http");
    let release = folder.join("target/wasm32-wasip2/release");
    fs::create_dir_all(&release).unwrap();
    fs::copy(example("http"), release.join("http.wasm")).unwrap();
    let text = fs::read_to_string(root().join("examples/http").join("flowstone.toml")).unwrap();
    let text =
        text.replace("https://shop.example.com/v1\"", &format!("https://{}/v1\"\nca = \"ca.pem\"", web.authority()));
    let text = text.replace("networks = []", "networks = [\"127.0.0.0/8\", \"::1\"]");
    assert!(text.contains("ca.pem") && text.contains("127.0.0.0"));
    fs::write(folder.join("flowstone.toml"), text).unwrap();
    fs::write(folder.join("ca.pem"), web.ca()).unwrap();

    let output = flowstone.run(["run", folder.to_str().unwrap(), "--json"]).expect_status(0);
    let events: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ended(&events), ["catalogue succeeded", "notice succeeded"]);
    assert_eq!(flowstone.run(["show", "http", "catalogue"]).stdout, "name,cents\ncup,150\ntea,300\n");
    assert_eq!(flowstone.run(["show", "http", "notice"]).stdout, "n1: 2 items\n");
    assert_eq!(web.lines(), ["GET /v1/items?page=1", "GET /v1/items?page=2", "POST /v1/notices"]);
    let notice = &web.requests()[2];
    assert_eq!((&*notice.body, notice.header("content-type")), ("\"2 items\"", Some("application/json")));
    assert_eq!(notice.header("idempotency-key").map(str::len), Some(64));
    // Both assets read through the shop: it is a source of both.
    let tree = flowstone.run(["lineage", "http", "notice"]).expect_status(0).stdout;
    assert_eq!(tree.matches("http `shop`").count(), 2, "{tree}");
    let sources =
        flowstone.database().ask("select kind || ' ' || items || ' ' || size_bytes from external_read order by items");
    assert_eq!(sources, ["http 1 11", "http 2 85"]);
}

#[test]
fn every_use_is_recorded_and_a_denial_names_the_line_that_would_grant_it() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let grant = "methods = [\"GET\"], paths = [\"items/*\"]";
    let more = asset("asks", "path = \"items/7\"", grant) + &asset("asks_too", "path = \"admin\"", grant);
    let setting = Setting::new("http", &web, "", &more);
    setting.run("asks").expect_status(0);
    assert_eq!(setting.show("asks"), "hello");
    setting.run("asks_too").expect_status(1);
    let uses = setting.uses();
    let said = |use_: &Value, name: &str| use_[name].as_str().unwrap_or_default().to_owned();
    let uses: Vec<_> = uses
        .iter()
        .map(|u| {
            (
                said(u, "capability"),
                said(u, "resource"),
                said(u, "operation"),
                said(u, "target"),
                said(u, "result"),
                u["bytes"].as_u64(),
            )
        })
        .collect();
    let expected =
        [("http", "api", "GET", "items/7", "ok", Some(5)), ("http", "api", "send", "GET admin", "denied", Some(0))];
    assert_eq!(uses, expected.map(|(a, b, c, d, e, f)| (a.into(), b.into(), c.into(), d.into(), e.into(), f)));
    let denials = setting.denials();
    assert_eq!(said(&denials[0], "remedy"), r#"[assets.asks_too] grants = { api = { paths = ["admin"] } }"#);
    let logs = setting.flowstone.run(["logs", "latest", "asks_too"]).expect_status(0).stdout;
    assert!(logs.contains("denied") && logs.contains(r#"paths = ["admin"]"#), "{logs}");
    assert_eq!(web.lines(), ["GET /v1/items/7"]);
    // What it said may be something else now: it is asked again.
    setting.run("asks").expect_status(0);
    assert_eq!(web.lines().len(), 2);
}

#[test]
fn the_authority_is_part_of_the_version_and_without_it_nobody_is_trusted() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let more = asset("asks", "path = \"x\"", "paths = [\"**\"], retries = 0") + "retry.max_attempts = 1\n";
    let setting = Setting::new("http", &web, "", &more);
    setting.flowstone.run(["deploy", "./flowstone.toml"]).expect_status(0);
    fs::remove_file(setting.flowstone.folder().join("ca.pem")).unwrap();
    setting.flowstone.run(["run", "web", "asks"]).expect_status(0);
    let gone = setting.flowstone.run(["check", "./flowstone.toml"]).expect_status(2);
    assert!(gone.stderr.contains("resources.api.ca: cannot read"), "{}", gone.stderr);

    // Another authority, a name that the certificate does not have, and none.
    let check = |from: &str, to: &str, ca: &str| {
        let path = setting.flowstone.folder().join("flowstone.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(from, to)).unwrap();
        fs::write(setting.flowstone.folder().join("ca.pem"), ca).unwrap();
        let failed = setting.run("asks").expect_status(1);
        assert!(failed.stdout.contains("the certificate is not accepted"), "{}", failed.stdout);
        fs::write(&path, text).unwrap();
    };
    let other = Web::start(|_, _| answer(200, ""));
    check("", "", other.ca());
    check("https://localhost:", "https://127.0.0.1:", web.ca());
    check("ca = \"ca.pem\"\n", "", web.ca());
    assert_eq!(web.lines().len(), 1, "nobody who was not trusted was asked");

    let private = format!("{}-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", web.ca());
    for (ca, mistake) in [
        ("hello", "holds no certificate"),
        (&private, "holds a private key"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "cannot be used"),
    ] {
        fs::write(setting.flowstone.folder().join("ca.pem"), ca).unwrap();
        let refused = setting.flowstone.run(["check", "./flowstone.toml"]).expect_status(2);
        assert!(refused.stderr.contains(mistake), "{}", refused.stderr);
    }
}

#[test]
fn a_private_address_is_refused_unless_its_network_is_named() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let more = asset("asks", "path = \"x\"", "paths = [\"**\"]");
    let setting = Setting::new("http", &web, "", &more);
    let path = setting.flowstone.folder().join("flowstone.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("networks = [\"127.0.0.0/8\", \"::1\"]\n", "")).unwrap();
    setting.run("asks").expect_status(1);
    assert!(web.requests().is_empty());
    let denials = setting.denials();
    let remedy = denials[0]["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("[resources.api] networks = [\"") && remedy.contains("loopback"), "{remedy}");
}

#[test]
fn an_attempt_that_is_tried_again_sends_the_same_key() {
    let web = Web::start(|number, _| if number < 2 { answer(503, "") } else { answer(200, "done") });
    let config = "method = \"POST\", path = \"orders\", body = \"one\", key = \"order\"";
    let more = asset("asks", config, "methods = [\"POST\"], paths = [\"orders\"], retries = 0");
    let setting = Setting::new("http", &web, "", &more);
    setting.run("asks").expect_status(0);
    let keys: Vec<_> = web.requests().iter().map(|seen| seen.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys.len(), 3, "three attempts, one request each");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let attempts = setting.flowstone.database().ask("select verdict from attempt order by number");
    assert_eq!(attempts, ["failed", "failed", "succeeded"]);
    // Another job is another order.
    setting.flowstone.run(["run", "./flowstone.toml", "asks", "--force"]).expect_status(0);
    assert_ne!(web.requests()[3].header("idempotency-key").unwrap(), keys[0]);
}

#[test]
fn a_result_that_is_used_again_keeps_its_source() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let with = |path: &str| asset("asks", &format!("path = \"{path}\""), "paths = [\"**\"]") + "fresh_for = \"1h\"\n";
    let setting = Setting::new("http", &web, "", &with("a"));
    let run = || {
        let output = setting.run("asks").expect_status(0);
        ended(&output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>())
    };
    assert_eq!(run(), ["asks succeeded"]);
    assert_eq!(run(), [] as [&str; 0], "it is fresh");
    setting.bind("http", &web, "", &with("b"));
    assert_eq!(run(), ["asks succeeded"]);
    setting.bind("http", &web, "", &with("a"));
    assert_eq!(run(), ["asks succeeded, reused"]);
    assert_eq!(web.lines(), ["GET /v1/a", "GET /v1/b"]);
    let tree = setting.flowstone.run(["lineage", "web", "asks"]).expect_status(0).stdout;
    assert!(tree.contains("http `api`") && tree.contains("1 answer, 5 B"), "{tree}");
}

#[test]
fn an_attempt_that_waits_for_the_outside_ends_at_its_deadline() {
    // Answers when the test is over.
    let (over, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = std::sync::Mutex::new(waiting);
    let web = Web::start(move |_, _| {
        let _over = waiting.lock().unwrap().recv();
        answer(200, "late")
    });
    let more = asset("asks", "path = \"x\"", "paths = [\"**\"]")
        + "limits = { timeout = \"500ms\" }\nretry.max_attempts = 1\n";
    let setting = Setting::new("http", &web, "", &more);
    setting.run("asks").expect_status(1);
    let attempt =
        setting.flowstone.database().ask("select verdict || ' ' || (duration_us < 2000000)::text from attempt");
    assert_eq!(attempt, ["timed-out true"]);
    drop(over);
}

#[test]
fn guests_that_hoard_or_insist_stay_within_their_bounds() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let more =
        asset("hoards", "", "paths = [\"items/*\"], in_flight = 3") + &asset("insists", "", "paths = [\"items/*\"]");
    let setting = Setting::new("http", &web, "", &more);
    setting.run("hoards").expect_status(0);
    let said = setting.show("hoards");
    assert!(said.starts_with("3 open: ") && said.ends_with("limit reached: 3 requests at once"), "{said}");
    setting.run("insists").expect_status(0);
    assert_eq!(setting.show("insists"), "20000 times");
    assert_eq!(web.lines().len(), 3, "none of what was denied arrived");
    let calls: u64 =
        setting.uses().iter().filter(|u| u["result"] == "denied").map(|u| u["calls"].as_u64().unwrap()).sum();
    assert_eq!(calls, 20_000, "each is counted");
    let bounded = setting.flowstone.database().ask(
        "select (octet_length(uses::text) < 100000 and jsonb_array_length(denials) <= 64)::text from attempt
         where denials is not null",
    );
    assert_eq!(bounded, ["true"], "and none is stored without bound");
}

#[test]
fn a_rate_holds_for_two_processes_together() {
    let web = Arc::new(Web::start(|_, _| answer(200, "x")));
    let resource = "rate = \"20/s\"\nburst = 5\n";
    let more = asset("asks", "path = \"a\", times = 15", "paths = [\"**\"]")
        + &asset("asks_too", "path = \"b\", times = 15", "paths = [\"**\"]");
    let setting = Setting::new("http", &web, resource, &more);
    setting.flowstone.run(["deploy", "./flowstone.toml"]).expect_status(0);
    let [first, second] = ["asks", "asks_too"].map(|name| setting.flowstone.start(["run", "web", name]));
    first.wait().expect_status(0);
    second.wait().expect_status(0);
    let requests = web.requests();
    assert_eq!(requests.len(), 30);
    let line = |line: &str| requests.iter().filter(|seen| seen.line.ends_with(line)).count();
    assert_eq!((line("/a"), line("/b")), (15, 15));
    // Five at once, and one every 50 ms after: whichever stretch is looked at.
    for from in 0..requests.len() {
        for to in from..requests.len() {
            let took = requests[to].at - requests[from].at;
            // Connections take their own time: a request may be late, and the next one not.
            let allowed = 5.0 + (took + Duration::from_millis(500)).as_secs_f64() * 20.0;
            assert!(((to - from + 1) as f64) <= allowed, "{} requests in {took:?}", to - from + 1);
        }
    }
    assert!(requests[29].at - requests[0].at >= Duration::from_millis(1_100), "25 of them waited");
}

/// A pipeline with one asset, for rates without a worker.
async fn stored() -> (Database, Store, AssetId) {
    let database = Database::new().await;
    let store = Store::connect(database.options()).await.unwrap();
    for statement in [
        "insert into pipeline (tenant_id, pipeline_id, name) values ('default', '00000000-0000-0000-0000-000000000001', 'p')",
        "insert into asset (tenant_id, asset_id, pipeline_id, name) values
             ('default', '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001', 'a')",
    ] {
        sqlx::raw_sql(statement).execute(&database.pool().await).await.unwrap();
    }
    (database, store, AssetId(uuid::Uuid::from_u128(2)))
}

#[tokio::test]
async fn scenario_118_the_sixth_of_five_in_a_second_waits() -> Result<(), StoreError> {
    let (_database, store, asset) = stored().await;
    // A thousandth of the pace: how fast this machine asks must not matter.
    let rate = Rate { permits: 5, period_ms: 1_000_000, burst: 5 };
    let hour = Duration::from_secs(3_600);
    let reserve =
        async |resource: &str, within| store.reserve_permit("default", asset, resource, false, rate, within).await;
    for _ in 0..5 {
        assert_eq!(reserve("api", hour).await?, Some(Duration::ZERO));
    }
    let sixth = reserve("api", hour).await?.unwrap();
    assert!((Duration::from_secs(100)..=Duration::from_secs(200)).contains(&sixth), "{sixth:?}");
    assert_eq!(reserve("api", Duration::from_millis(1)).await?, None, "not in time, and not taken");
    let seventh = reserve("api", hour).await?.unwrap();
    assert!(seventh > sixth && seventh <= Duration::from_secs(400), "{seventh:?}");
    assert_eq!(reserve("other", Duration::ZERO).await?, Some(Duration::ZERO), "another resource has its own");
    Ok(())
}

#[tokio::test]
async fn permits_are_not_given_twice_however_many_ask_at_once() {
    let (_database, store, asset) = stored().await;
    let rate = Rate { permits: 1, period_ms: 60_000, burst: 10 };
    let asking = (0..50).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store.reserve_permit("default", asset, "api", false, rate, Duration::ZERO).await.unwrap()
        })
    });
    let mut given = 0;
    for asked in asking.collect::<Vec<_>>() {
        given += u32::from(asked.await.unwrap().is_some());
    }
    assert_eq!(given, 10);
}

#[test]
fn a_guest_with_its_own_client_is_under_the_same_rules() {
    let web = Web::start(|_, seen| match &*seen.line {
        "GET /v1/moved" => "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "GET /v1/large" => answer(200, &"x".repeat(2_000)),
        _ => answer(200, &format!("{} bytes", seen.body.len())),
    });
    let authority = web.authority();
    let config = format!(
        "authority = \"{authority}\", paths = [\"/v1/items/7?a=b\", \"/v1/moved\", \"/v1/admin\", \"/elsewhere\", \"/v1/large\", \"/v1/items/%2e%2e\", \"/v1//items\"]"
    );
    let grant = "paths = [\"items/*\", \"moved\", \"large\"], response_bytes = \"1000B\"";
    let setting = Setting::new("wasi-http", &web, "", &asset("brings_a_client", &config, grant));
    setting.run("brings_a_client").expect_status(0);
    assert_eq!(
        setting.show("brings_a_client"),
        "/v1/items/7?a=b: 200 0 bytes\n\
         /v1/moved: 302 \n\
         /v1/admin: ErrorCode::HttpRequestDenied\n\
         /elsewhere: ErrorCode::HttpRequestDenied\n\
         /v1/large: cut off\n\
         /v1/items/%2e%2e: ErrorCode::HttpRequestUriInvalid\n\
         /v1//items: ErrorCode::HttpRequestUriInvalid\n"
    );
    assert_eq!(web.lines(), ["GET /v1/items/7?a=b", "GET /v1/moved", "GET /v1/large"]);
    let uses = setting.uses();
    assert!(uses.iter().all(|u| u["capability"] == "http"), "{uses:?}");
    assert_eq!(setting.denials().len(), 2);
    let sources = setting.flowstone.database().ask("select resource || ' ' || kind || ' ' || items from external_read");
    assert_eq!(sources, ["api http 3"]);

    let body = "y".repeat(100_000);
    let config = format!("authority = \"{authority}\", paths = [\"/v1/items/7\"], body = \"{}\"", &body[..60_000]);
    let grant = "methods = [\"POST\"], paths = [\"items/*\"]";
    setting.bind("wasi-http", &web, "", &asset("brings_a_client", &config, grant));
    setting.run("brings_a_client").expect_status(0);
    assert_eq!(setting.show("brings_a_client"), "/v1/items/7: 200 60000 bytes\n");
    let grant = "methods = [\"POST\"], paths = [\"items/*\"], request_bytes = \"50000B\"";
    setting.bind("wasi-http", &web, "", &asset("brings_a_client", &config, grant));
    setting.run("brings_a_client").expect_status(0);
    assert!(
        setting.show("brings_a_client").contains("HttpRequestBodySize(Some(50000))"),
        "{}",
        setting.show("brings_a_client")
    );
}

#[test]
fn a_client_without_a_grant_ends_at_its_first_request_and_hoarding_ends_too() {
    let web = Web::start(|_, _| answer(200, ""));
    let more = asset("brings_a_client", "authority = \"x\", paths = []", "paths = [\"**\"]")
        + "[assets.hoards_fields]\nretry.max_attempts = 1\n[assets.hoards_bodies]\nretry.max_attempts = 1\n";
    let setting = Setting::new("wasi-http", &web, "", &more);
    setting.run("has_no_grant").expect_status(1);
    let verdicts = || {
        setting.flowstone.database().ask(
            "select name || ' ' || verdict from attempt join job using (tenant_id, job_id)
             join asset_version using (tenant_id, asset_version_id) join asset using (tenant_id, asset_id)
             order by name",
        )
    };
    assert_eq!(verdicts(), ["has_no_grant denied"]);
    let denials = setting.denials();
    assert_eq!((&denials[0]["resource"], &denials[0]["operation"]), (&"example.com".into(), &"handle".into()));
    for hoarder in ["hoards_fields", "hoards_bodies"] {
        setting.run(hoarder).expect_status(1);
    }
    assert_eq!(verdicts(), ["has_no_grant denied", "hoards_bodies trapped", "hoards_fields trapped"]);
}

#[test]
fn imports_of_wasi_http_are_the_capability_http() {
    let flowstone = Flowstone::new();
    let shown = flowstone.run(["inspect", guest("wasi-http").to_str().unwrap()]).expect_status(0).stdout;
    assert!(shown.contains("wasi:http/outgoing-handler"), "{shown}");
    let json = flowstone.run(["inspect", guest("wasi-http").to_str().unwrap(), "--json"]).expect_status(0).stdout;
    assert!(json.contains("\"http\""), "{json}");
    // A requirement that nothing grants stops the deploy, with the lines that would grant it.
    let text = format!("[pipeline]\nname = \"web\"\n[[components]]\npath = \"{}\"\n", guest("wasi-http").display());
    fs::write(flowstone.folder().join("flowstone.toml"), text).unwrap();
    let refused = flowstone.run(["check", "./flowstone.toml"]).expect_status(2);
    for words in
        ["needs the http `api`", "grants.api = { methods = [\"GET\"], paths = [\"**\"] }", "url = \"https://...\""]
    {
        assert!(refused.stderr.contains(words), "{words} is not in {}", refused.stderr);
    }
}

const KEY: &str = "correct-horse-battery-staple";
const WITH_KEY: &str = "credentials = [{ secret = \"api_key\", header = \"authorization\", prefix = \"Bearer \" }]\n";
const KEY_RESOURCE: &str = "[resources.api_key]\nkind = \"secret\"\nenv = \"FLOWSTONE_SECRET_API_KEY\"\n";

impl Setting {
    fn run_with_key(&self, status: i32) -> Output {
        let mut command = self.flowstone.command(["run", "./flowstone.toml", "asks", "--json"]);
        command.env("FLOWSTONE_SECRET_API_KEY", KEY);
        Output::of(&mut command).expect_status(status)
    }

    /// Takes the resources out of the manifest, and registers them as an operator.
    fn register_resources(&self) {
        let folder = self.flowstone.folder();
        let text = fs::read_to_string(folder.join("flowstone.toml")).unwrap();
        let (from, to) = (text.find("[resources.").unwrap(), text.find("[assets.").unwrap());
        fs::write(folder.join("operator.toml"), &text[from..to]).unwrap();
        fs::write(folder.join("flowstone.toml"), format!("{}{}", &text[..from], &text[to..])).unwrap();
        self.flowstone.run(["resource", "add", "./operator.toml"]).expect_status(0);
    }
}

#[test]
fn a_secret_is_used_at_the_edge_by_an_asset_that_was_not_granted_it() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let more = asset("asks", "path = \"items/1\"", "paths = [\"items/*\"]");
    let setting = Setting::new("http", &web, &format!("{WITH_KEY}{KEY_RESOURCE}"), &more);
    setting.run_with_key(0);
    let sent = format!("Bearer {KEY}");
    assert_eq!(web.requests()[0].header("authorization"), Some(&*sent));
    let rows = "select query_to_xml(format('select t::text as row from %I t', tablename), true, false, '')::text
         from pg_tables where schemaname = 'public'";
    assert!(!setting.flowstone.database().ask(rows).concat().contains(KEY));
    let unset = setting.run("asks").expect_status(1);
    assert!(unset.stdout.contains("the worker has no variable FLOWSTONE_SECRET_API_KEY"), "{}", unset.stdout);
    assert_eq!(web.requests().len(), 1, "without it nothing is sent");

    // All of it an operator's: the pipeline only grants.
    setting.register_resources();
    setting.run_with_key(0);
    assert_eq!(web.requests()[1].header("authorization"), Some(&*sent));
}

#[test]
fn a_pipeline_cannot_send_an_operators_secret_where_it_likes() {
    let web = Web::start(|_, _| answer(200, "hello"));
    let more = asset("asks", "path = \"items/1\"", "paths = [\"items/*\"]");
    let setting = Setting::new("http", &web, WITH_KEY, &more);
    let folder = setting.flowstone.folder();
    fs::write(folder.join("operator.toml"), KEY_RESOURCE).unwrap();
    setting.flowstone.run(["resource", "add", "./operator.toml"]).expect_status(0);
    let refused = setting.run_with_key(2);
    assert!(refused.stderr.contains("there is no secret `api_key`"), "{}", refused.stderr);
    assert!(web.requests().is_empty());
}

#[test]
fn a_resource_that_was_moved_since_the_deploy_refuses_its_grants() {
    let (web, elsewhere) = (Web::start(|_, _| answer(200, "hello")), Web::start(|_, _| answer(200, "moved")));
    let more = asset("asks", "path = \"items/1\"", "paths = [\"items/*\"]");
    let setting = Setting::new("http", &web, "", &more);
    setting.register_resources();
    setting.run("asks").expect_status(0);
    let folder = setting.flowstone.folder();
    let text = fs::read_to_string(folder.join("operator.toml")).unwrap();
    fs::write(folder.join("operator.toml"), text.replace(&web.authority(), &elsewhere.authority())).unwrap();
    setting.flowstone.run(["resource", "add", "./operator.toml"]).expect_status(0);
    let refused = setting.flowstone.run(["run", "web", "asks"]).expect_status(1);
    assert!(refused.stderr.contains("deploy the pipeline again"), "{}", refused.stderr);
    assert!(elsewhere.requests().is_empty());
}
