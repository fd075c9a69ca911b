//! The `sql` capability against a real server: what it gives, what it refuses, and what it leaves behind.
//!
//! Most tests call the host functions as a guest would, without a guest; `apply` goes through the command.

mod apply;
mod attacks;
mod connections;
mod limits;
mod values;

use std::time::{Duration, Instant};

use flowstone::{
    bindings::flowstone::asset::{
        sql::{self, Host as _, HostDatabase as _, HostRows as _, Value},
        types::CapabilityError,
    },
    capability::{
        Interrupt, Refusal,
        sql::{Database, DatabaseUrls, Databases, Sql},
    },
    pipeline::{
        resource::Access,
        sql::{SqlGrant, SqlResource},
    },
};
use flowstone_tests::{Warehouse, warehouse::grant};
use tokio_util::sync::CancellationToken;
use wasmtime::component::Resource;

/// One attempt and its database `shop`.
struct Attempt {
    sql: Sql,
}

type Rows = Vec<Vec<Value>>;

/// The pools of a process.
fn databases() -> Databases {
    Databases::new(DatabaseUrls::default(), tokio::runtime::Handle::current())
}

impl Attempt {
    /// In the shop of a warehouse, over its socket.
    fn new(warehouse: &Warehouse, access: Access) -> Self {
        Self::with(&databases(), &warehouse.resource(access, warehouse.url()), grant(access))
    }

    fn with(databases: &Databases, resource: &SqlResource, grant: SqlGrant) -> Self {
        let pool = databases.pool("default", resource, None).unwrap();
        let interrupt = Interrupt::new(Instant::now() + Duration::from_secs(600), CancellationToken::new());
        Self { sql: Sql::new("report".into(), vec![Database { pool, grant }], interrupt) }
    }

    fn shop() -> Resource<sql::Database> {
        Resource::new_borrow(0)
    }

    async fn rows(&mut self, statement: &str, parameters: &[Value]) -> Result<u32, CapabilityError> {
        let rows = self.sql.query(Self::shop(), statement.into(), parameters.to_vec()).await;
        rows.map(|rows| rows.rep()).map_err(guest)
    }

    async fn next(&mut self, rows: u32, max: u32) -> Result<Rows, CapabilityError> {
        self.sql.next(Resource::new_borrow(rows), max).await.map_err(guest)
    }

    async fn drop_rows(&mut self, rows: u32) {
        sql::HostRows::drop(&mut self.sql, Resource::new_own(rows)).await.unwrap();
    }

    /// All rows of a query.
    async fn query(&mut self, statement: &str, parameters: &[Value]) -> Result<Rows, CapabilityError> {
        let rows = self.rows(statement, parameters).await?;
        let mut all = Vec::new();
        let ended = loop {
            match self.next(rows, 1_000).await {
                Ok(page) if page.is_empty() => break Ok(all),
                Ok(page) => all.extend(page),
                Err(error) => break Err(error),
            }
        };
        self.drop_rows(rows).await;
        ended
    }

    async fn execute(&mut self, statement: &str, parameters: &[Value]) -> Result<u64, CapabilityError> {
        self.sql.execute(Self::shop(), statement.into(), parameters.to_vec()).await.map_err(guest)
    }

    /// The only value of the only row.
    #[track_caller]
    fn one(rows: Result<Rows, CapabilityError>) -> String {
        let rows = rows.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((rows.len(), rows[0].len()), (1, 1));
        format!("{:?}", rows[0][0])
    }

    /// The remedies of what was denied.
    fn remedies(&mut self) -> Vec<String> {
        self.sql.take_denials().into_iter().map(|denial| denial.remedy).collect()
    }
}

fn guest(refusal: Refusal) -> CapabilityError {
    match refusal {
        Refusal::Guest(error) => error,
        Refusal::Abort(abort) => panic!("{abort:?}"),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn what_is_granted_is_read_and_recorded() {
    let warehouse =
        Warehouse::new("create table shop.orders as select n as id, n * 1.5 as total from generate_series(1, 2500) n")
            .await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    assert!(matches!(attempt.sql.open("shop".into()).await, Ok(database) if database.rep() == 0));
    let statement = "select id, total from orders where id <= $1 order by id";
    let rows = attempt.query(statement, &[Value::Integer(2000)]).await.unwrap();
    assert_eq!(rows.len(), 2000);
    assert_eq!(format!("{:?}", rows[1999]), r#"[Value::Integer(2000), Value::Decimal("3000.0")]"#);
    let uses = attempt.sql.take_uses();
    let seen: Vec<_> = uses.iter().map(|u| (&*u.operation, &*u.result, u.calls)).collect();
    assert_eq!(seen, [("query", "ok", 1), ("next", "ok", 3)]);
    assert!(uses[0].target.ends_with(statement) && !uses[0].target.contains("2000"), "{}", uses[0].target);
    let reads = attempt.sql.take_reads();
    assert_eq!((&*reads[0].resource, reads[0].items, reads.len()), ("shop", 2000, 1));

    // The same questions and answers are the same read, and others are not.
    let mut digests = Vec::new();
    for most in [2000, 2000, 1999] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        attempt.query(statement, &[Value::Integer(most)]).await.unwrap();
        digests.push(attempt.sql.take_reads()[0].digest);
    }
    assert_eq!(digests[0], reads[0].digest);
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);
    let mut silent = Attempt::new(&warehouse, Access::Read);
    assert!(silent.sql.take_reads().is_empty(), "nothing was asked");
}

#[tokio::test]
async fn an_attempt_sees_the_database_as_it_was_when_it_first_asked() {
    let warehouse = Warehouse::new("create table shop.orders (id int); insert into shop.orders values (1)").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let count = "select count(*) from orders";
    assert_eq!(Attempt::one(attempt.query(count, &[]).await), "Value::Integer(1)");
    warehouse.execute("insert into shop.orders values (2)").await;
    assert_eq!(Attempt::one(attempt.query(count, &[]).await), "Value::Integer(1)");
    let mut later = Attempt::new(&warehouse, Access::Read);
    assert_eq!(Attempt::one(later.query(count, &[]).await), "Value::Integer(2)");
}

#[tokio::test]
async fn answers_can_be_read_side_by_side() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let [one, other] = [
        attempt.rows("select n from generate_series(1, 1000) n", &[]).await.unwrap(),
        attempt.rows("select -n from generate_series(1, 1000) n", &[]).await.unwrap(),
    ];
    let mut sums = [0, 0];
    for step in 0..2000 {
        let at = step % 2;
        let rows = attempt.next([one, other][at], 1).await.unwrap();
        let [Value::Integer(number)] = rows[0][..] else { panic!("{rows:?}") };
        sums[at] += number;
    }
    assert_eq!(sums, [500_500, -500_500]);
    assert!(attempt.next(one, 1).await.unwrap().is_empty());
    assert!(attempt.next(one, 1).await.unwrap().is_empty(), "the end stays the end");
    // One that is dropped in the middle is in nobody's way.
    let third = attempt.rows("select n from generate_series(1, 1000) n", &[]).await.unwrap();
    attempt.next(third, 3).await.unwrap();
    attempt.drop_rows(third).await;
    assert_eq!(Attempt::one(attempt.query("select 7", &[]).await), "Value::Integer(7)");
    assert!(attempt.next(other, 1).await.unwrap().is_empty());
}
