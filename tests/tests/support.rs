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

/// Numbers that look drawn, the same for the same seed on every machine: SplitMix64.
pub struct Draws(pub u64);

impl Draws {
    /// From 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from((drawn >> 32) as u32) / f64::from(u32::MAX)
    }
}
