//! Through the command: what an asset wrote is there when it succeeded, once, whatever dies between the two commits.

use std::{fs, path::PathBuf};

use flowstone::limit::{DENIALS_MAX, USES_MAX};
use flowstone_tests::{
    Database as FlowstoneDatabase, Flowstone,
    deadline::wait_until_database_says,
    fault::{self, COMMIT_STEPS, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, When, let_sessions_expire},
    pipeline::{ended, example, guest, root},
    proxy::{Cut, Proxy},
};
use serde_json::Value as Json;
use sqlx::{Connection as _, PgConnection};

use super::*;
use crate::checker::{assert_sound, violations};

const TABLES: &str = "create table shop.guides (id int primary key);
    create table shop.visits (id bigint generated always as identity, who text,
        guide int references shop.guides deferrable initially deferred);";

/// A pipeline over a warehouse.
struct Shop {
    warehouse: Warehouse,
    flowstone: Flowstone,
    manifest: PathBuf,
    url: String,
}

impl Shop {
    async fn new() -> Self {
        let warehouse = Warehouse::new(TABLES).await;
        let url = warehouse.url();
        let database = FlowstoneDatabase::new().await;
        let flowstone = Flowstone::owning(database);
        let manifest = flowstone.folder().join("flowstone.toml");
        let component = guest("sql");
        let mut text = format!(
            "[pipeline]\nname = \"shop\"\n[[components]]\npath = \"{}\"\n[resources.shop]\nkind = \"sql\"\n\
             url_env = \"FLOWSTONE_SQL_SHOP\"\nrole = \"{}\"\nsearch_path = [\"shop\"]\naccess = \"read-write\"\n",
            component.display(),
            warehouse.role(),
        );
        for asset in [
            "visit",
            "visit_and_fail",
            "visit_and_skip",
            "visit_and_ignore",
            "visit_nobody",
            "visit_and_wait",
            "visit_and_leave",
        ] {
            text += &format!("[assets.{asset}]\ngrants = {{ shop = {{ access = \"read-write\" }} }}\n");
        }
        for asset in ["count", "count_and_write", "ask_on", "send_much"] {
            text += &format!("[assets.{asset}]\ngrants = {{ shop = {{}} }}\n");
        }
        fs::write(&manifest, text).unwrap();
        Self { warehouse, flowstone, manifest, url }
    }

    fn start(&self, assets: &[&str]) -> flowstone_tests::Running {
        let manifest = self.manifest.to_str().unwrap();
        let variables = [("FLOWSTONE_SQL_SHOP", self.url.as_str())];
        self.flowstone.start_with([&["run", manifest, "--json"], assets].concat(), variables)
    }

    /// Runs to the end, which must have this status: what ended how.
    #[track_caller]
    fn run(&self, assets: &[&str], status: i32) -> Vec<String> {
        ended(&self.events(assets, status))
    }

    #[track_caller]
    fn events(&self, assets: &[&str], status: i32) -> Vec<Json> {
        let output = self.start(assets).wait().expect_status(status);
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Why the asset failed.
    #[track_caller]
    fn cause(&self, asset: &str) -> String {
        let events = self.events(&[asset], 1);
        let end = events.iter().find(|event| event["event"] == "job.ended").unwrap();
        end["cause"].as_str().unwrap().to_owned()
    }

    /// How many visits each asset has written.
    async fn visits(&self) -> Vec<String> {
        self.warehouse.ask("select who || ' ' || count(*) from shop.visits group by who order by who").await
    }

    async fn pool(&self) -> sqlx::PgPool {
        self.flowstone.database().pool().await
    }

    async fn assert_sound(&self) {
        assert_sound(&violations(&self.pool().await, &self.flowstone.state_dir().join("blobs")).await);
    }

    /// Attempts by verdict and charge.
    async fn attempts(&self) -> Vec<String> {
        let sql = "select verdict || case when charged then '' else ', uncharged' end from attempt order by 1";
        sqlx::query_scalar(sql).fetch_all(&self.pool().await).await.unwrap()
    }

    async fn count_of(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool().await).await.unwrap()
    }

    /// What was written and what was recorded are one.
    async fn assert_once(&self, visits: i64, where_: &str) {
        let made = self.count_of("select count(*) from materialization").await;
        let written = self.visits().await;
        assert_eq!((written, made), (vec![format!("visit {visits}")], visits), "{where_}");
        assert_eq!(self.count_of("select count(*) from sql_intent").await, 0, "{where_}");
        self.assert_sound().await;
    }
}

#[tokio::test]
async fn what_an_asset_wrote_is_there_once_for_each_time_it_was_made() {
    let shop = Shop::new().await;
    for time in 1..=3 {
        assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
        shop.assert_once(time, "undisturbed").await;
        let shown = shop.flowstone.run(["show", "shop", "visit"]).expect_status(0).stdout;
        assert_eq!(shown, format!("visit {time}"));
    }
    assert_eq!(shop.warehouse.ask("select count(*)::text from flowstone_applied").await, ["1"]);
    assert_eq!(shop.run(&["count"], 0), ["count succeeded"]);
    assert_eq!(shop.flowstone.run(["show", "shop", "count"]).expect_status(0).stdout, "3");
    let lineage = shop.flowstone.run(["lineage", "shop", "count"]).expect_status(0).stdout;
    assert!(lineage.contains("sql `shop`") && lineage.contains("1 row,"), "{lineage}");
    // What was used is in the record, and no parameter is.
    let uses = shop.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    assert!(uses.contains("select count(*) from visits where who like $1") && !uses.contains("visit%"), "{uses}");
}

#[tokio::test]
async fn what_an_asset_wrote_that_made_nothing_is_undone() {
    let shop = Shop::new().await;
    assert_eq!(shop.cause("visit_and_fail"), "as its name says");
    assert_eq!(shop.run(&["visit_and_skip"], 0), ["visit_and_skip skipped"]);
    let cause = shop.cause("visit_and_ignore");
    assert_eq!(cause, "it succeeded although its transaction had failed: 22012: division by zero");
    let cause = shop.cause("visit_nobody");
    assert!(cause.starts_with("the database did not commit what it wrote: 23503: "), "{cause}");
    let cause = shop.cause("count_and_write");
    assert!(cause.ends_with("denied"), "{cause}");
    let logs = shop.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    assert!(logs.contains(r#"[assets.count_and_write] grants = { shop = { access = \"read-write\" } }"#), "{logs}");
    assert_eq!(shop.visits().await, [""; 0]);
    assert_eq!(shop.warehouse.ask("select count(*)::text from flowstone_applied").await, ["0"]);
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_process_that_dies_between_the_two_commits_applies_once() {
    let shop = Shop::new().await;
    let pool = shop.pool().await;
    for time in 1..=2 {
        let gate = Gate::close(shop.flowstone.database()).await;
        COMMIT_STEPS[0].inject(&pool, When::Before, Fault::Gated).await;
        let running = shop.start(&["visit"]);
        wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        assert_eq!(shop.visits().await, [format!("visit {time}")], "the other database has committed");
        assert_eq!(shop.count_of("select count(*) from materialization").await, time - 1);
        assert_eq!(shop.count_of("select count(*) from sql_intent").await, 1);
        running.kill();
        gate.open().await;
        let_sessions_expire(&pool).await;
        fault::remove(&pool).await;
        shop.assert_sound().await;

        assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
        shop.assert_once(time, "killed between the commits").await;
        let shown = shop.flowstone.run(["show", "shop", "visit"]).expect_status(0).stdout;
        assert_eq!(shown, format!("visit {time}"), "it is what the attempt made that was applied");
    }
    let messages = "select count(*) from attempt where message like 'it was applied to its database before%'";
    assert_eq!(shop.count_of(messages).await, 2);
}

#[tokio::test]
async fn a_process_that_dies_before_the_first_commit_applies_nothing() {
    let shop = Shop::new().await;
    shop.warehouse
        .execute(
            "create function public.wait() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;
             create trigger waits before insert on public.flowstone_applied for each row execute function public.wait()",
        )
        .await;
    let mut lock = PgConnection::connect_with(&shop.warehouse.options()).await.unwrap();
    sqlx::query("select pg_advisory_lock(1)").execute(&mut lock).await.unwrap();
    let running = shop.start(&["visit"]);
    let theirs = shop.warehouse.pool().await;
    wait_until_database_says(&theirs, SOMEBODY_WAITS_AT_THE_GATE).await;
    assert_eq!(shop.count_of("select count(*) from sql_intent").await, 1, "the intent comes first");
    running.kill();
    lock.close().await.unwrap();
    let gone = "select not exists (select from pg_stat_activity where datname = current_database() and application_name = 'flowstone asset')";
    wait_until_database_says(&theirs, gone).await;
    assert_eq!(shop.visits().await, [""; 0]);
    let_sessions_expire(&shop.pool().await).await;
    assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
    shop.assert_once(1, "killed before the first commit").await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up_and_not_repeated() {
    for cut in [Cut::BeforeCommit, Cut::BeforeAnswer] {
        let mut shop = Shop::new().await;
        let proxy = Proxy::to(&shop.warehouse.options());
        shop.url = shop.warehouse.url_in(proxy.folder(), &shop.warehouse.login());
        proxy.cut_at(cut, 1);
        assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
        assert!(proxy.has_cut());
        shop.assert_once(1, &format!("{cut:?}")).await;
        assert_eq!(shop.attempts().await, ["lost, uncharged", "succeeded"], "{cut:?}");
        assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
        shop.assert_once(2, &format!("after {cut:?}")).await;
    }
}

#[tokio::test]
async fn a_fault_at_any_step_of_our_commit_repeats_nothing_there() {
    let mut shop = Shop::new().await;
    for step in COMMIT_STEPS {
        for (when, fault) in [(When::Before, Fault::Refused), (When::After, Fault::Disconnected)] {
            // Some steps are also those of a submission, once jobs have ended.
            shop.flowstone.own(FlowstoneDatabase::new().await);
            shop.warehouse.execute("truncate shop.visits, public.flowstone_applied").await;
            let pool = shop.pool().await;
            step.inject(&pool, when, fault).await;
            assert_eq!(shop.run(&["visit"], 0), ["visit succeeded"]);
            fault::remove(&pool).await;
            shop.assert_once(1, &format!("{fault:?} {when:?} {step:?}")).await;
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_what_was_written_and_what_was_recorded_the_same() {
    let shop = Shop::new().await;
    let pool = shop.pool().await;
    let began = Instant::now();
    shop.run(&["visit"], 0);
    let whole = began.elapsed();
    for part in 0..25_u32 {
        let running = shop.start(&["visit"]);
        // The sleep is not there to wait for anything: it is the fault.
        std::thread::sleep(whole.mul_f64(0.2 + 0.8 * f64::from(part) / 25.0));
        running.kill();
        let_sessions_expire(&pool).await;
        shop.run(&["visit"], 0);
        let made = shop.count_of("select count(*) from materialization").await;
        shop.assert_once(made, &format!("killed at part {part} of {whole:?}")).await;
    }
}

#[tokio::test]
async fn an_attempt_that_was_overtaken_is_undone_and_runs_again_without_charge() {
    let shop = Shop::new().await;
    let mut lock = PgConnection::connect_with(&shop.warehouse.options()).await.unwrap();
    sqlx::query("select pg_advisory_lock(1)").execute(&mut lock).await.unwrap();
    let running = shop.start(&["visit_and_wait"]);
    wait_until_database_says(&shop.warehouse.pool().await, SOMEBODY_WAITS_AT_THE_GATE).await;
    // What a worker does that comes late, or that took the job over; or somebody who forges its record.
    let asset: String = sqlx::query_scalar("select asset_id::text from asset where name = 'visit_and_wait'")
        .fetch_one(&shop.pool().await)
        .await
        .unwrap();
    let applied = format!("insert into flowstone_applied values ('{asset}', 'none', gen_random_uuid())");
    shop.warehouse.execute(applied).await;
    lock.close().await.unwrap();
    running.wait().expect_status(0);
    assert_eq!(shop.attempts().await, ["lost, uncharged", "succeeded"]);
    assert_eq!(shop.visits().await, ["visit_and_wait 1"]);
    assert_eq!(shop.count_of("select count(*) from sql_intent").await, 0);
}

#[tokio::test]
async fn a_guest_that_asks_leaves_or_sends_too_much_costs_its_own_attempt_only() {
    let shop = Shop::new().await;
    let assets = ["ask_on", "visit_and_leave", "send_much", "visit"];
    shop.run(&assets, 0);
    let shown = |asset| shop.flowstone.run(["show", "shop", asset]).expect_status(0).stdout;
    assert_eq!(shown("ask_on"), "50000");
    assert_eq!(shown("visit_and_leave"), "left 8");
    assert_eq!(shown("send_much"), "Some(65519), true, true");
    assert_eq!(shop.visits().await, ["visit 1", "visit_and_leave 1"]);
    // However often and however variously it asked, the record of it has a bound.
    let logs = shop.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    let attempts: Vec<Json> = serde_json::from_str(&logs).unwrap();
    let of = |asset: &str| attempts.iter().find(|attempt| attempt["asset"] == asset).unwrap();
    let denials = of("ask_on")["denials"].as_array().unwrap();
    assert_eq!(denials.len(), DENIALS_MAX);
    assert!(of("ask_on")["uses"].as_array().unwrap().len() <= USES_MAX + 1);
    shop.assert_sound().await;
}

#[tokio::test]
async fn an_asset_without_any_database_ends_at_its_first_word_to_one() {
    let shop = Shop::new().await;
    let cause = shop.cause("ask_ungranted");
    assert!(cause.starts_with("it called an interface of which it was granted nothing"), "{cause}");
    assert_eq!(shop.attempts().await, ["denied"]);
    let logs = shop.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    assert!(logs.contains(r#"[assets.ask_ungranted] grants = { shop = { access = \"read\" } }"#), "{logs}");
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_without_charge() {
    let mut shop = Shop::new().await;
    let proxy = Proxy::to(&shop.warehouse.options());
    shop.url = shop.warehouse.url_in(proxy.folder(), &shop.warehouse.login());
    proxy.take_down();
    let mut running = shop.start(&["visit"]);
    running.event("trouble");
    proxy.bring_up();
    running.wait().expect_status(0);
    shop.assert_once(1, "when it was back").await;
    assert_eq!(shop.attempts().await, ["succeeded"]);
}

#[tokio::test]
async fn a_cancelled_attempt_leaves_no_statement_and_no_row() {
    let shop = Shop::new().await;
    let mut lock = PgConnection::connect_with(&shop.warehouse.options()).await.unwrap();
    sqlx::query("select pg_advisory_lock(1)").execute(&mut lock).await.unwrap();
    let running = shop.start(&["visit_and_wait"]);
    let theirs = shop.warehouse.pool().await;
    wait_until_database_says(&theirs, SOMEBODY_WAITS_AT_THE_GATE).await;
    shop.flowstone.run(["cancel", "latest"]).expect_status(0);
    running.wait().expect_status(1);
    let gone = "select not exists (select from pg_stat_activity where datname = current_database() and application_name = 'flowstone asset')";
    wait_until_database_says(&theirs, gone).await;
    assert_eq!(shop.visits().await, [""; 0]);
    assert_eq!(shop.attempts().await, ["cancelled, uncharged"]);
}

#[tokio::test]
async fn a_process_without_the_variable_fails_the_job_and_says_which() {
    let shop = Shop::new().await;
    let manifest = shop.manifest.to_str().unwrap();
    let output = shop.flowstone.run(["run", manifest, "count"]).expect_status(1);
    let words = "resource `shop` cannot be used: this process has no variable FLOWSTONE_SQL_SHOP, which holds its URL";
    assert!(output.stdout.contains(words), "{}", output.stdout);
    // A login that holds nobody is found out before anything runs.
    let mut shop = shop;
    shop.url = shop.warehouse.url_in(shop.warehouse.socket_folder(), "postgres");
    let cause = shop.cause("visit");
    assert!(cause.contains("rights that no grant can hold"), "{cause}");
    assert_eq!(shop.attempts().await, [""; 0]);
}

#[tokio::test]
async fn no_url_and_no_password_is_ever_stored() {
    let mut shop = Shop::new().await;
    shop.url = format!("{}&password=hunter2", shop.warehouse.url());
    shop.run(&["visit"], 0);
    shop.cause("visit_and_fail");
    let pool = shop.pool().await;
    let tables: Vec<String> = sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert!(tables.len() > 20);
    for table in tables {
        let sql = format!(
            "select count(*) from {table} t where t::text like '%hunter2%' or t::text like '%{}%'",
            shop.warehouse.login()
        );
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
}

/// The example, over its own `setup.sql`, with names of this test's for its roles: they are the server's, not the database's.
#[tokio::test]
async fn the_example_reads_orders_and_writes_their_sums_once() {
    let folder = root().join("examples/sql");
    let warehouse = Warehouse::new("drop schema shop; drop table public.flowstone_applied;").await;
    let own = |text: String| {
        text.replace("shop_reader", &warehouse.role().replace("role", "r"))
            .replace("shop_writer", &warehouse.role().replace("role", "w"))
    };
    warehouse.execute(own(fs::read_to_string(folder.join("setup.sql")).unwrap())).await;
    let flowstone = Flowstone::owning(FlowstoneDatabase::new().await);
    let manifest = flowstone.folder().join("flowstone.toml");
    let text = own(fs::read_to_string(folder.join("flowstone.toml")).unwrap());
    let component = example("sql").display().to_string();
    fs::write(&manifest, text.replace("target/wasm32-wasip2/release/sql.wasm", &component)).unwrap();
    let logins = ["r_login", "w_login"]
        .map(|login| warehouse.url_in(warehouse.socket_folder(), &warehouse.role().replace("role", login)));
    let variables = [("FLOWSTONE_SQL_SHOP", &*logins[0]), ("FLOWSTONE_SQL_SHOP_WRITER", &*logins[1])];
    for _ in 0..2 {
        flowstone.start_with(["run", manifest.to_str().unwrap()], variables).wait().expect_status(0);
    }
    let shown = flowstone.run(["show", "sql", "daily_sums", "--partition", "2024-01-02"]).expect_status(0).stdout;
    let sums = warehouse.ask("select day || ' ' || orders || ' ' || total from shop.sums order by day").await;
    let asked = warehouse
        .ask("select day || ' ' || count(*) || ' ' || sum(total) from shop.orders group by day order by day")
        .await;
    assert_eq!(sums, asked);
    assert!(sums[1].ends_with(&format!(" {shown}")), "{sums:?}, {shown}");
    let roles = format!(
        "drop owned by {0}r, {0}w, {0}r_login, {0}w_login; drop role {0}r, {0}w, {0}r_login, {0}w_login",
        warehouse.role().replace("role", "")
    );
    warehouse.execute(roles).await;
}
