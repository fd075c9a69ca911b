//! PgBouncer in transaction mode between FlowStone and its database: no session lasts longer than a transaction.

use std::time::Duration;

use flowstone_tests::{Flowstone, Pooler, Postgres, pipeline::Scenario};

use crate::{
    chaos::{assert_ended_as_it_must, deployed, is_in_full, work},
    checker::{assert_sound, violations},
};

#[tokio::test]
async fn behind_a_pooler_everything_works_from_the_first_migration_to_the_last_commit() {
    let server = Postgres::new().await;
    let pooler = Pooler::to(&server).await;
    let mut flowstone = Flowstone::embedded();
    flowstone.use_database(pooler.url());
    let flowstone = deployed(flowstone);
    let (hours, jobs) = match is_in_full() {
        true => ("2024-01-01T00..2024-07-27T07", 20_000),
        false => ("2024-01-01T00..2024-01-10T23", 960),
    };
    flowstone.run(["run", "chaos", "--partition", hours, "--detach"]).expect_status(0);
    let mut workers = [work(&flowstone), work(&flowstone), work(&flowstone)];
    workers.iter_mut().for_each(|worker| drop(worker.said("takes jobs")));
    let pool = server.pool().await;
    // The pooler loses connections to the server too, and gives clients others.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sql = "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
             where application_name = 'flowstone' order by random() limit 1) a";
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    flowstone.run(["watch", "latest"]).expect_status(1);
    for worker in workers {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    assert_ended_as_it_must(&flowstone, &pool, jobs).await;
}

#[tokio::test]
async fn every_kind_of_row_is_written_and_read_behind_a_pooler() {
    let server = Postgres::new().await;
    let pooler = Pooler::to(&server).await;
    let mut flowstone = Flowstone::embedded();
    flowstone.use_database(pooler.url());
    let scenario = Scenario::with(flowstone, "");
    let assets = ["sum", "early_and_late", "listing", "unique", "after_large", "flaky", "after_tallies"];
    scenario.run(&assets, 0);
    assert!(!scenario.show("sum", None).is_empty());
    scenario.flowstone.run(["lineage", "scenarios", "sum"]).expect_status(0);
    scenario.flowstone.run(["runs"]).expect_status(0);
    assert_sound(&violations(&server.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
}

#[tokio::test]
async fn whoever_does_not_say_that_there_is_a_pooler_is_told_how() {
    let server = Postgres::new().await;
    let pooler = Pooler::to(&server).await;
    let mut flowstone = Flowstone::embedded();
    flowstone.use_database(pooler.url());
    flowstone.run(["runs"]).expect_status(0);
    flowstone.use_database(format!("{}&pooler=sometimes", pooler.plain_url()));
    let refused = flowstone.run(["runs"]).expect_status(2);
    assert!(refused.stderr.contains("pooler=transaction"), "{}", refused.stderr);
}
