//! Waiting for something to become so: by looking again and again, never by sleeping for as long as it should take.

use std::time::{Duration, Instant};

/// After this, what is waited for will not come. Only there to fail with a message: nothing takes as long.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Returns when it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Returns when this query, which asks whether something is so, says yes.
pub async fn wait_until_database_says(pool: &sqlx::PgPool, question: &'static str) {
    let started = Instant::now();
    while !sqlx::query_scalar::<_, bool>(question).fetch_one(pool).await.expect("the question can be asked") {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {question}");
        tokio::time::sleep(LOOK).await;
    }
}
