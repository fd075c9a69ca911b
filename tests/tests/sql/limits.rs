//! Allowed up to the bound, refused past it: rows, bytes, statements, time, memory of the host.

use flowstone::limit::{
    SQL_BUFFER_BYTES_MAX, SQL_MESSAGE_BYTES_MAX, SQL_PARAMETERS_MAX, SQL_ROWS_OPEN_MAX, SQL_STATEMENT_BYTES_MAX,
};

use super::*;

fn bounded(warehouse: &Warehouse, bound: impl FnOnce(&mut SqlGrant)) -> Attempt {
    let mut grant = grant(Access::Read);
    bound(&mut grant);
    Attempt::with(&databases(), &warehouse.resource(Access::Read, warehouse.url()), grant)
}

#[track_caller]
fn reached(result: Result<Rows, CapabilityError>, expected: &str) {
    match result {
        Err(CapabilityError::LimitReached(which)) => assert!(which.contains(expected), "{which}"),
        other => panic!("{:?}", other.map(|rows| rows.len())),
    }
}

#[tokio::test]
async fn rows_are_counted_over_all_answers_of_an_attempt() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = bounded(&warehouse, |grant| grant.rows = 100);
    assert_eq!(attempt.query("select n from generate_series(1, 40) n", &[]).await.unwrap().len(), 40);
    assert_eq!(attempt.query("select n from generate_series(1, 60) n", &[]).await.unwrap().len(), 60);
    reached(attempt.query("select 1", &[]).await, "100 rows of one attempt");
    // It is over: nothing is asked any more.
    reached(attempt.query("select 1 where false", &[]).await, "100 rows");
    let uses = attempt.sql.take_uses();
    assert!(uses.iter().any(|u| u.operation == "next" && u.result == "limit-reached"), "{uses:?}");
}

#[tokio::test]
async fn an_endless_answer_ends_at_the_bound_and_leaves_no_statement_behind() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = bounded(&warehouse, |grant| grant.rows = 1_000);
    let began = Instant::now();
    reached(attempt.query("select generate_series(1, 1000000000000)", &[]).await, "1000 rows");
    assert!(began.elapsed() < Duration::from_secs(5));
    wait_until_nothing_runs(&warehouse).await;
}

/// No session of the login does anything, or is left.
async fn wait_until_nothing_runs(warehouse: &Warehouse) {
    flowstone_tests::deadline::wait_until_database_says(
        &warehouse.pool().await,
        "select not exists (select from pg_stat_activity where datname = current_database()
             and application_name = 'flowstone asset' and state <> 'idle')",
    )
    .await;
}

#[tokio::test]
async fn bytes_are_counted_in_both_directions() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = bounded(&warehouse, |grant| grant.bytes = 10_000);
    attempt.query("select length($1)", &[text(&"x".repeat(4_000))]).await.unwrap();
    attempt.query("select repeat('x', 4000)", &[]).await.unwrap();
    reached(attempt.query("select repeat('x', 4000)", &[]).await, "10000 bytes of one attempt");
    let mut attempt = bounded(&warehouse, |grant| grant.bytes = 10_000);
    reached(attempt.query("select length($1)", &[text(&"x".repeat(10_001))]).await, "10000 bytes");
}

#[tokio::test]
async fn statements_are_counted() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = bounded(&warehouse, |grant| grant.statements = 3);
    for _ in 0..3 {
        attempt.query("select 1", &[]).await.unwrap();
    }
    reached(attempt.query("select 1", &[]).await, "3 statements of one attempt");
}

#[tokio::test]
async fn a_statement_ends_at_its_time_also_one_that_tells_the_server_not_to() {
    let warehouse = Warehouse::new(
        "create function shop.stubborn() returns int language plpgsql as $$ begin
             perform set_config('statement_timeout', '0', false);
             loop
                 begin
                     perform pg_sleep(60);
                 -- What a statement that is cancelled meets.
                 exception when query_canceled then null;
                 end;
             end loop;
         end $$",
    )
    .await;
    for statement in [
        "select pg_sleep(60)",
        "select set_config('statement_timeout', '0', false), pg_sleep(60)",
        "select count(*) from generate_series(1, 1000000000000)",
        "with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r",
        "select stubborn()",
    ] {
        let mut attempt = bounded(&warehouse, |grant| grant.statement_timeout_ms = 200);
        let began = Instant::now();
        reached(attempt.query(statement, &[]).await, "a statement may take 200 ms");
        assert!(began.elapsed() < Duration::from_secs(5), "{statement}: {:?}", began.elapsed());
        reached(attempt.query("select 1", &[]).await, "200 ms");
    }
}

/// A commit has no time limit in Postgres, and what runs in it is whatever the database's owner has put off until then.
#[tokio::test]
async fn what_is_put_off_until_the_commit_has_the_time_of_a_statement() {
    let warehouse = Warehouse::new(
        "create table shop.orders (word text);
         create function shop.late() returns trigger language plpgsql as $$ begin
             case new.word
                 when 'sleep' then perform pg_sleep(60);
                 when 'stubborn' then
                     loop
                         begin perform pg_sleep(60); exception when query_canceled then null; end;
                     end loop;
                 when 'lie' then raise exception using errcode = '57P01', message = 'a lie';
                 when 'role' then perform set_config('role', 'none', true);
                 else null;
             end case;
             return null;
         end $$;
         create constraint trigger late after insert on shop.orders deferrable initially deferred
             for each row execute function shop.late()",
    )
    .await;
    for (word, expected) in [
        ("nothing", "Ok(())"),
        ("sleep", "57014"),
        ("stubborn", "Slow"),
        ("lie", "Refused(ServerError { code: \"57P01\""),
        ("role", "Unpinned(Unpinned(\"role\"))"),
    ] {
        let mut grant = grant(Access::ReadWrite);
        grant.statement_timeout_ms = 200;
        let resource = warehouse.resource(Access::ReadWrite, warehouse.url());
        let mut attempt = Attempt::with(&databases(), &resource, grant);
        attempt.execute("insert into orders values ($1)", &[text(word)]).await.unwrap();
        let left = attempt.sql.finish();
        assert!(left.uncommitted.is_some());
        let began = Instant::now();
        let finished = format!("{:?}", left.uncommitted.finish().await);
        assert!(finished.contains(expected), "{word}: {finished}");
        assert!(began.elapsed() < Duration::from_secs(5), "{word}: {:?}", began.elapsed());
        assert_eq!(left.uncommitted.is_some(), word == "nothing", "what failed is undone");
    }
    assert_eq!(warehouse.ask("select word from shop.orders").await, [""; 0]);
    wait_until_nothing_runs(&warehouse).await;
}

#[tokio::test]
async fn an_attempt_that_is_dropped_in_the_middle_has_its_statement_cancelled() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let pool = warehouse.pool().await;
    {
        let asking = attempt.query("select pg_sleep(600)", &[]);
        let seen = flowstone_tests::deadline::wait_until_database_says(
            &pool,
            "select exists (select from pg_stat_activity where datname = current_database()
                 and application_name = 'flowstone asset' and wait_event = 'PgSleep')",
        );
        tokio::select! {
            _ = asking => panic!("it sleeps for ten minutes"),
            () = seen => {}
        }
    }
    drop(attempt);
    let gone = "select not exists (select from pg_stat_activity where datname = current_database()
         and application_name = 'flowstone asset')";
    flowstone_tests::deadline::wait_until_database_says(&pool, gone).await;
}

#[tokio::test]
async fn one_row_is_no_larger_than_the_host_takes_in() {
    let warehouse = Warehouse::new("").await;
    let most = SQL_MESSAGE_BYTES_MAX - 100;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let rows = attempt.query("select repeat('x', $1)", &[Value::Integer(most as i64)]).await.unwrap();
    assert!(matches!(&rows[0][0], Value::Text(text) if text.len() == most));
    for statement in ["select repeat('x', 500000000)", "select array_fill(7, array[10000000])"] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        reached(attempt.query(statement, &[]).await, "one row has more than 4194304 bytes");
    }
}

#[tokio::test]
async fn one_call_returns_about_a_mebibyte_and_a_thousand_rows() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let rows = attempt.rows("select repeat('x', 100000) from generate_series(1, 100)", &[]).await.unwrap();
    let page = attempt.next(rows, u32::MAX).await.unwrap().len();
    assert!((10..20).contains(&page), "{page}");
    let rows = attempt.rows("select 1 from generate_series(1, 5000)", &[]).await.unwrap();
    assert_eq!(attempt.next(rows, u32::MAX).await.unwrap().len(), 1_000);
    assert!(matches!(attempt.next(rows, 0).await, Err(CapabilityError::Invalid(_))));
}

#[tokio::test]
async fn what_waits_to_be_read_is_bounded() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    // Rows of which the first are small: many are fetched at a time, and then they are large.
    let statement = "select repeat('x', case when n < 200 then 1 else 4000000 end) from generate_series(1, 1000) n";
    let rows = attempt.rows(statement, &[]).await.unwrap();
    attempt.next(rows, 190).await.unwrap();
    reached(attempt.query("select 1", &[]).await, &format!("more than {SQL_BUFFER_BYTES_MAX} bytes of rows wait"));

    // What was fetched counts, whether anybody took it or not.
    let mut attempt = bounded(&warehouse, |grant| grant.bytes = 64 << 20);
    let rows = attempt.rows(statement, &[]).await.unwrap();
    attempt.next(rows, 190).await.unwrap();
    attempt.drop_rows(rows).await;
    reached(attempt.query("select 1", &[]).await, "67108864 bytes of one attempt");

    // Read to its end, the same answer is no trouble.
    let mut attempt = bounded(&warehouse, |grant| grant.bytes = 1 << 40);
    assert_eq!(attempt.query(statement, &[]).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn notices_are_not_read_without_end() {
    let warehouse = Warehouse::new(
        "create function shop.chatter(loud boolean) returns int language plpgsql as $$ begin
             if loud then perform set_config('client_min_messages', 'notice', true); end if;
             for n in 1..1000000 loop raise notice '%', repeat('x', 1000); end loop;
             return 1;
         end $$",
    )
    .await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    assert_eq!(Attempt::one(attempt.query("select chatter(false)", &[]).await), "Value::Integer(1)");
    reached(attempt.query("select chatter(true)", &[]).await, "more than 1000 notices");
}

#[tokio::test]
async fn statements_and_parameters_have_bounds_of_their_own() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let long = format!("select '{}'", "x".repeat(10 << 20));
    let refused = attempt.query(&long, &[]).await.unwrap_err();
    assert!(matches!(&refused, CapabilityError::Invalid(why) if why.contains("more than 65536")), "{refused:?}");
    let fits = format!("select '{}'", "x".repeat(SQL_STATEMENT_BYTES_MAX - 9));
    attempt.query(&fits, &[]).await.unwrap();
    let refused = attempt.query("select 1", &vec![Value::Null; 70_000]).await.unwrap_err();
    assert!(matches!(&refused, CapabilityError::Invalid(why) if why.contains("more than 65535")), "{refused:?}");
    // All that the protocol can count, in a statement that says where they go by fewer words.
    let refused = attempt.query("select $65535::int", &vec![Value::Null; SQL_PARAMETERS_MAX]).await.unwrap_err();
    assert!(matches!(&refused, CapabilityError::Invalid(why) if why.starts_with("42P18")), "{refused:?}");
}

#[tokio::test]
async fn answers_that_are_open_are_bounded_and_databases_are_not() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    for _ in 0..1_000 {
        assert_eq!(attempt.sql.open("shop".into()).await.unwrap().rep(), 0);
    }
    let mut open = Vec::new();
    for _ in 0..SQL_ROWS_OPEN_MAX {
        open.push(attempt.rows("select 1", &[]).await.unwrap());
    }
    reached(attempt.query("select 1", &[]).await, "64 answers are open");
    attempt.drop_rows(open[0]).await;
    attempt.query("select 1", &[]).await.unwrap();
    assert!(matches!(attempt.next(open[0], 1).await, Err(CapabilityError::Invalid(_))), "it is closed");
    assert!(matches!(attempt.next(9_999, 1).await, Err(CapabilityError::Invalid(_))));
    assert_eq!(attempt.next(open[1], 9).await.unwrap().len(), 1);
}
