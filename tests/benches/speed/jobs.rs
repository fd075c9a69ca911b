//! Ten thousand jobs that do nothing, each with all its records: what the queue, the runner and the commits cost.

use std::time::Instant;

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
    /// Seconds since the run was submitted, when each thousand had ended, by the clock of the database: what the events
    /// say comes later, and at the end all at once.
    ended_at: Vec<f64>,
    /// The process' resident memory at these times.
    resident: Vec<f64>,
}

/// `flowstone run` of ten thousand partitions in one process, beside commits of one row by one client of that server.
pub fn measure() -> Vec<Row> {
    let (mut commits, mut courses, mut using) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let deployed = Deployed::new("bench");
        commits.push(commits_per_second(&deployed.database));
        let course = follow(&deployed, "noop_partitioned");
        let speeds: Vec<String> = course.speeds().iter().map(|speed| format!("{speed:.0}")).collect();
        let resident: Vec<String> = course.resident.iter().map(|bytes| format!("{:.0}", bytes / MEGABYTE)).collect();
        eprintln!("round {round}: jobs/s in each thousand: {}; resident MB: {}", speeds.join(" "), resident.join(" "));
        courses.push(course);
        using.push(follow(&Deployed::new("bench"), "clock_partitioned").speed());
    }
    let all = |figure: fn(&Course) -> f64| courses.iter().map(figure).collect::<Vec<f64>>();
    vec![
        Row::new("10,000 no-op jobs", "jobs/s", all(Course::speed)).against("1-row commits", commits).at_least(3_000.0),
        Row::new("its last thousand", "jobs/s", all(|course| course.speeds()[STEPS - 1]))
            // The first one holds the submission of all.
            .against("its second thousand", all(|course| course.speeds()[1]))
            .ratio_at_least(0.8),
        Row::new("resident at its end", "MB", all(|course| course.resident[STEPS - 1] / MEGABYTE))
            .against("after the first 1,000", all(|course| course.resident[0] / MEGABYTE))
            .ratio_at_most(1.2),
        // Each of them records a use.
        Row::new("10,000 that read a clock", "jobs/s", using)
            .against("10,000 no-op jobs", all(Course::speed))
            .ratio_at_least(0.95),
    ]
}

impl Course {
    fn speed(&self) -> f64 {
        (STEP * STEPS) as f64 / self.ended_at[STEPS - 1]
    }

    /// In each thousand.
    fn speeds(&self) -> Vec<f64> {
        let before = std::iter::once(0.0).chain(self.ended_at.iter().copied());
        self.ended_at.iter().zip(before).map(|(end, start)| STEP as f64 / (end - start)).collect()
    }
}

fn follow(deployed: &Deployed, asset: &str) -> Course {
    let (mut ended, mut resident) = (0, Vec::new());
    watch(deployed.command("run", &[asset, "--json"]), |line, _, pid| {
        // Not parsed: the reader shares the machine with what it measures.
        if line.starts_with(r#"{"event":"job.ended""#) {
            ended += 1;
            if ended % STEP == 0 {
                resident.push(memory_bytes(pid, "VmRSS:").expect("the process has not ended"));
            }
        }
    });
    assert_eq!(ended, STEP * STEPS, "the asset has so many partitions");
    Course { ended_at: ends_of_thousands(&deployed.database), resident }
}

/// A commit's jobs all end when it begins, so a step is as fine as a batch; the last end is when the run had finished.
fn ends_of_thousands(database: &Database) -> Vec<f64> {
    let ends: Vec<f64> = single_thread().block_on(async {
        let mut connection = PgConnection::connect_with(&database.options()).await.expect("the server is up");
        sqlx::query_scalar(
            "select extract(epoch from case when place = jobs then finished_at else ended_at end - created_at)::float8
             from run, (select ended_at, row_number() over (order by ended_at) as place from job_end) as e
             where place % $1 = 0 order by place",
        )
        .bind(STEP as i64)
        .fetch_all(&mut connection)
        .await
        .expect("the run is recorded")
    });
    assert_eq!(ends.len(), STEPS, "each job has ended");
    ends
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
