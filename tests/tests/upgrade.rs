//! Versions beside each other: several processes that bring the tables up to date at once, one that dies over it, and a
//! worker of the last version that goes on with the tables of this one.

use std::collections::BTreeSet;

use flowstone_tests::{
    Database, Flowstone,
    deadline::wait_until_database_says,
    pipeline::{Scenario, root},
};
use serde::Deserialize;
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Either, Executor as _, PgConnection, SqlSafeStr as _, Statement as _,
};

use crate::checker::{assert_sound, violations};

/// How many migrations there are.
fn migrations() -> i64 {
    std::fs::read_dir(root().join("migrations")).unwrap().count() as i64
}

async fn applied(database: &Database) -> i64 {
    let sql = "select count(*) from _sqlx_migrations where success";
    sqlx::query_scalar(sql).fetch_one(&database.pool().await).await.unwrap()
}

async fn is_empty(database: &Database) -> bool {
    let sql = "select not exists (select from pg_tables where schemaname = 'public')";
    sqlx::query_scalar(sql).fetch_one(&database.pool().await).await.unwrap()
}

#[tokio::test]
async fn of_processes_that_start_at_once_one_brings_the_tables_up_to_date_and_the_others_wait() {
    let flowstone = Flowstone::unmigrated();
    let database = flowstone.database();
    let mut lock = PgConnection::connect_with(&database.options()).await.unwrap();
    sqlx::query("select pg_advisory_lock(hashtext('flowstone.migrate'))").execute(&mut lock).await.unwrap();
    let processes: Vec<_> = (0..4).map(|_| flowstone.start(["runs"])).collect();
    let all_wait = "select count(*) = 4 from pg_locks where locktype = 'advisory' and not granted
         and database = (select oid from pg_database where datname = current_database())";
    wait_until_database_says(&database.pool().await, all_wait).await;
    assert!(is_empty(database).await, "whoever waits has changed nothing");
    lock.close().await.unwrap();
    for process in processes {
        process.wait().expect_status(0);
    }
    assert_eq!(applied(database).await, migrations());
}

#[tokio::test]
async fn a_process_that_dies_over_a_migration_leaves_nothing_half_done() {
    let flowstone = Flowstone::unmigrated();
    let database = flowstone.database();
    // A name that a late migration needs is taken, by somebody who has not said yet whether to keep it.
    let mut other = PgConnection::connect_with(&database.options()).await.unwrap();
    other.execute("begin; create table live_job ()").await.unwrap();
    let process = flowstone.start(["runs"]);
    let waits = "select exists (select from pg_stat_activity where application_name = 'flowstone'
         and datname = current_database() and wait_event_type = 'Lock')";
    wait_until_database_says(&database.pool().await, waits).await;
    process.kill();
    let gone = "select not exists (select from pg_stat_activity where application_name = 'flowstone'
         and datname = current_database() and wait_event_type is distinct from 'Lock')";
    wait_until_database_says(&database.pool().await, gone).await;
    other.execute("rollback").await.unwrap();
    let over = "select not exists (select from pg_stat_activity where application_name = 'flowstone'
         and datname = current_database())";
    wait_until_database_says(&database.pool().await, over).await;
    assert!(is_empty(database).await, "all migrations are one transaction");
    flowstone.run(["runs"]).expect_status(0);
    assert_eq!(applied(database).await, migrations());
}

/// What `scripts/keep-statements` keeps.
#[derive(Deserialize)]
struct Kept {
    commit: String,
    statements: Vec<KeptStatement>,
}

#[derive(Deserialize)]
struct KeptStatement {
    query: String,
    /// Types of parameters.
    takes: Vec<serde_json::Value>,
    /// Names and types of columns.
    returns: Vec<(String, serde_json::Value)>,
}

fn kept() -> Kept {
    let kept = std::fs::read_to_string(root().join("tests/statements/last.json")).unwrap();
    serde_json::from_str(&kept).unwrap()
}

/// Expand, then contract: what the last version reads and writes is there for one version more.
#[tokio::test]
async fn every_statement_of_the_last_version_works_with_the_tables_of_this_one() {
    let database = Database::new().await;
    let mut connection = PgConnection::connect_with(&database.options()).await.unwrap();
    let Kept { commit, statements } = kept();
    assert!(statements.len() > 100, "only {} statements were kept", statements.len());
    let mut broken = Vec::new();
    for statement in statements {
        let what = match (&mut connection).prepare(AssertSqlSafe(statement.query.clone()).into_sql_str()).await {
            Err(error) => error.to_string(),
            Ok(prepared) => {
                let takes: Vec<_> = match prepared.parameters() {
                    Some(Either::Left(types)) => types.iter().map(|of| serde_json::to_value(of).unwrap()).collect(),
                    other => panic!("{other:?}"),
                };
                let returns = |column: &sqlx::postgres::PgColumn| {
                    (column.name().to_owned(), serde_json::to_value(column.type_info()).unwrap())
                };
                let returns: Vec<_> = prepared.columns().iter().map(returns).collect();
                if (&takes, &returns) == (&statement.takes, &statement.returns) {
                    continue;
                }
                format!("it takes {takes:?} and returns {returns:?}")
            }
        };
        broken.push(format!("{what}: {}", statement.query));
    }
    assert!(broken.is_empty(), "a worker of {commit} beside this version fails:\n{}", broken.join("\n"));
}

/// A column that the last version does not know of has a default, or may be null.
#[tokio::test]
async fn what_the_last_version_writes_needs_no_column_that_it_does_not_know_of() {
    let database = Database::new().await;
    let needed: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text from information_schema.columns
         where table_schema = 'public' and is_nullable = 'NO' and column_default is null
           and is_identity = 'NO' and is_generated = 'NEVER'",
    )
    .fetch_all(&database.pool().await)
    .await
    .unwrap();
    let (mut written, mut missing) = (0, BTreeSet::new());
    for statement in kept().statements {
        for (table, columns) in inserts(&statement.query) {
            written += 1;
            for (_, column) in needed.iter().filter(|(of, _)| *of == table) {
                if !columns.contains(column) {
                    missing.insert(format!("{table}.{column}"));
                }
            }
        }
    }
    assert!(written > 30, "only {written} inserts were found");
    assert!(missing.is_empty(), "the last version does not write {missing:?}");
}

/// The tables that a statement inserts into, with the columns that it names.
fn inserts(statement: &str) -> Vec<(String, BTreeSet<String>)> {
    let after = statement.split("insert into ").skip(1);
    let lists = after.filter_map(|rest| {
        let (head, rest) = rest.split_once('(')?;
        let (columns, _) = rest.split_once(')')?;
        // `table as alias (columns)`.
        let table = head.split_whitespace().next()?.to_owned();
        Some((table, columns.split(',').map(|column| column.trim().to_owned()).collect()))
    });
    lists.collect()
}

/// A process of this version that is started again after a later one has added to the tables.
#[tokio::test]
async fn a_process_starts_beside_a_later_version_that_has_only_added_to_the_tables() {
    let scenario = Scenario::new("");
    let database = scenario.flowstone.database();
    database.execute(
        "create table of_a_later_version (); alter table job add column of_a_later_version text;
         insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of a later version', true, 'x', 1)",
    );
    scenario.run(&["numbers"], 0);
    scenario.run(&["numbers", "--force"], 0);
    assert_eq!(applied(database).await, migrations() + 1);
    assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
}

/// The migration that made the floor.
const FLOOR: i64 = 31;

/// Whether a migration takes something away that statements name.
fn takes_away(migration: &str) -> bool {
    ["drop table", "drop column", "drop function", "rename to", "rename column", "set not null"]
        .iter()
        .any(|change| migration.contains(change))
}

#[test]
fn a_migration_that_takes_something_away_raises_the_floor() {
    assert!(takes_away("alter table job drop column forced;") && !takes_away("drop index job_by_run;"));
    for migration in std::fs::read_dir(root().join("migrations")).unwrap() {
        let path = migration.unwrap().path();
        let number: i64 = path.file_name().unwrap().to_str().unwrap()[..4].parse().unwrap();
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        let raises = text.contains("update schema_floor");
        assert!(number <= FLOOR || !takes_away(&text) || raises, "{} leaves the floor as it is", path.display());
    }
}

/// As a worker of the last version leaves it: it claims, and ends the job without knowing of keys that jobs hold.
#[tokio::test]
async fn a_key_that_a_worker_of_the_last_version_left_behind_keeps_nobody_waiting() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.run(&["numbers"], 0);
    let database = flowstone.database();
    // The key of a job that has ended, with the recipe that the next one comes to.
    database.ask(
        "insert into live_job (tenant_id, asset_id, partition_key, recipe, job_id)
         select tenant_id, asset_id, partition_key, recipe, job_id from materialization returning job_id::text",
    );
    flowstone.run(["invalidate", "scenarios", "numbers", "--reason", "test"]);
    scenario.run(&["numbers", "--force"], 0);
    let pool = database.pool().await;
    let made: i64 = sqlx::query_scalar("select count(*) from materialization").fetch_one(&pool).await.unwrap();
    assert_eq!(made, 2);
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}
