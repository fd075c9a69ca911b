//! Ten thousand jobs that do nothing, each with all its records: what the queue, the runner and the commits cost.

use std::time::{Duration, Instant};

use flowstone_tests::Database;
use sqlx::{Connection as _, PgConnection};

use crate::{
    guests::{Deployed, single_thread},
    table::Row,
    watched::{memory_bytes, watch},
};

const ROUNDS: usize = 3;
const STEP: usize = 1_000;
const STEPS: usize = 10;
/// Of the yardstick.
const COMMITS: usize = 2_000;
const MEGABYTE: f64 = 1e6;

/// One run.
struct Course {
    /// Since the run was submitted, when each thousand had ended.
    ended_at: Vec<Duration>,
    /// The process' resident memory at these times.
    resident: Vec<f64>,
}

/// `flowstone run` of ten thousand partitions in one process, beside commits of one row by one client of that server.
pub fn measure() -> Vec<Row> {
    let (mut commits, mut courses) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let deployed = Deployed::new("bench");
        commits.push(commits_per_second(&deployed.database));
        let course = follow(&deployed);
        let speeds: Vec<String> = course.speeds().iter().map(|speed| format!("{speed:.0}")).collect();
        let resident: Vec<String> = course.resident.iter().map(|bytes| format!("{:.0}", bytes / MEGABYTE)).collect();
        eprintln!("round {round}: jobs/s in each thousand: {}; resident MB: {}", speeds.join(" "), resident.join(" "));
        courses.push(course);
    }
    let all = |figure: fn(&Course) -> f64| courses.iter().map(figure).collect::<Vec<f64>>();
    vec![
        Row::new("10,000 no-op jobs", "jobs/s", all(Course::speed)).against("1-row commits", commits).at_least(3_000.0),
        Row::new("its last thousand", "jobs/s", all(|course| course.speeds()[STEPS - 1]))
            .against("its first thousand", all(|course| course.speeds()[0]))
            .ratio_at_least(0.8),
        Row::new("resident at its end", "MB", all(|course| course.resident[STEPS - 1] / MEGABYTE))
            .against("after the first 1,000", all(|course| course.resident[0] / MEGABYTE))
            .ratio_at_most(1.2),
    ]
}

impl Course {
    fn speed(&self) -> f64 {
        (STEP * STEPS) as f64 / self.ended_at[STEPS - 1].as_secs_f64()
    }

    /// In each thousand.
    fn speeds(&self) -> Vec<f64> {
        let before = std::iter::once(Duration::ZERO).chain(self.ended_at.iter().copied());
        self.ended_at.iter().zip(before).map(|(end, start)| STEP as f64 / (*end - start).as_secs_f64()).collect()
    }
}

fn follow(deployed: &Deployed) -> Course {
    let (mut submitted, mut ended) = (Duration::ZERO, 0);
    let mut course = Course { ended_at: Vec::new(), resident: Vec::new() };
    watch(deployed.command("run", &["noop_partitioned", "--json"]), |line, at, pid| {
        // Not parsed: the reader shares the machine with what it measures.
        if line.starts_with(r#"{"event":"run.started""#) {
            submitted = at;
        } else if line.starts_with(r#"{"event":"job.ended""#) {
            ended += 1;
            if ended % STEP == 0 {
                course.ended_at.push(at - submitted);
                course.resident.push(memory_bytes(pid, "VmRSS:").expect("the process has not ended"));
            }
        }
    });
    assert_eq!(ended, STEP * STEPS, "the asset has so many partitions");
    course
}

/// What one client commits when each row is a transaction. The server syncs each, or this is no measure.
fn commits_per_second(database: &Database) -> f64 {
    single_thread().block_on(async {
        let mut connection = PgConnection::connect_with(&database.options()).await.expect("the server is up");
        let fsync: String =
            sqlx::query_scalar("select current_setting('fsync') || current_setting('synchronous_commit')")
                .fetch_one(&mut connection)
                .await
                .expect("settings can be read");
        assert_eq!(fsync, "onon", "the server does not sync its commits");
        let execute = sqlx::query("create table yardstick (id integer primary key, payload text)");
        execute.execute(&mut connection).await.expect("the database is ours");
        let started = Instant::now();
        for id in 0..COMMITS {
            let insert = sqlx::query("insert into yardstick values ($1, 'a row of some length, as rows have')");
            insert.bind(id as i32).execute(&mut connection).await.expect("the id is new");
        }
        COMMITS as f64 / started.elapsed().as_secs_f64()
    })
}
