//! What the other tests stand on stands.

use flowstone_tests::{Database, Flowstone};

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (first, second) = (Database::new().await, Database::new().await);
    sqlx::query("CREATE TABLE mine (id bigint)").execute(&first.pool().await).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'mine'";
    let count: i64 = sqlx::query_scalar(tables).fetch_one(&second.pool().await).await.unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn the_url_of_a_database_leads_to_it() {
    let database = Database::new().await;
    let pool = sqlx::PgPool::connect(&database.url()).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&pool).await.unwrap();
    assert_eq!(Some(name.as_str()), database.options().get_database());
}

#[test]
fn the_command_can_be_run_and_killed() {
    let flowstone = Flowstone::embedded();
    flowstone.run(["--version"]).expect_status(0);
    flowstone.start(["--version"]).kill();
}
