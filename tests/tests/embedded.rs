//! The private cluster (DESIGN section 12): how it starts, whom it lets in, and what it survives.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use flowstone::embedded::{Cluster, EmbeddedError, Reached, attach, reach};
use flowstone_tests::StateFolder;
use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};

async fn ask(options: &PgConnectOptions, question: &'static str) -> sqlx::Result<String> {
    let mut connection = PgConnection::connect_with(options).await?;
    let answer = sqlx::query_scalar(question).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

async fn write(options: &PgConnectOptions, statement: &'static str) {
    let mut connection = PgConnection::connect_with(options).await.unwrap();
    connection.execute(statement).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_cluster_keeps_its_data_from_one_owner_to_the_next() {
    let state = StateFolder::new();
    let at = Instant::now();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    eprintln!("first start: {:?}", at.elapsed());
    write(&cluster.options(), "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let at = Instant::now();
    cluster.stop().await.unwrap();
    eprintln!("stop: {:?}", at.elapsed());

    let at = Instant::now();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    eprintln!("start: {:?}", at.elapsed());
    assert_eq!(ask(&cluster.options(), "SELECT answer FROM kept").await.unwrap(), "yes");
    cluster.stop().await.unwrap();
}
