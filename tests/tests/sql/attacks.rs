//! What a guest tries that was granted a database, and what it meets.

use super::*;

#[track_caller]
fn denied(result: &Result<impl std::fmt::Debug, CapabilityError>, what: &str) {
    assert!(matches!(result, Err(CapabilityError::Denied)), "{what}: {result:?}");
}

#[tokio::test]
async fn statements_of_other_kinds_are_never_sent() {
    let warehouse = Warehouse::new("create table shop.orders (id int)").await;
    for access in [Access::Read, Access::ReadWrite] {
        let mut attempt = Attempt::new(&warehouse, access);
        for statement in [
            "begin",
            "commit",
            "/* select */ commit",
            "rollback",
            "abort",
            "end",
            "savepoint a",
            "prepare transaction 'a'",
            "set role postgres",
            "SET SESSION AUTHORIZATION postgres",
            "reset role",
            "reset all",
            "discard all",
            "copy orders to program 'true'",
            "copy orders to stdout",
            "listen x",
            "notify x",
            "prepare a as select 1",
            "execute a",
            "deallocate all",
            "declare c cursor for select 1",
            "fetch all from r0",
            "move all in r0",
            "close r0",
            "do $$ begin end $$",
            "call something()",
            "explain analyze select 1",
            "create table shop.mine (id int)",
            "create temporary table mine (id int)",
            "drop table orders",
            "truncate orders",
            "grant all on orders to public",
            "lock table orders",
            "vacuum",
            "load 'x'",
            "",
            ";",
            "--select\n",
        ] {
            denied(&attempt.query(statement, &[]).await, statement);
            denied(&attempt.execute(statement, &[]).await, statement);
        }
        assert!(attempt.remedies().iter().all(|remedy| remedy.starts_with("none: ") || remedy.contains("read-write")));
        // None of it has cost the attempt its transaction.
        attempt.query("select 1", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn one_call_carries_one_statement() {
    let warehouse = Warehouse::new("create table shop.orders (id int)").await;
    for statement in ["select 1; select 2", "select 1; commit", "insert into orders values (1); commit"] {
        let mut attempt = Attempt::new(&warehouse, Access::ReadWrite);
        let refused = attempt.query(statement, &[]).await.unwrap_err();
        assert!(matches!(&refused, CapabilityError::Invalid(why) if why.contains("multiple commands")), "{refused:?}");
        let again = attempt.query("select 1", &[]).await.unwrap_err();
        assert_eq!(format!("{again:?}"), format!("{refused:?}"), "the transaction is over");
        assert!(attempt.sql.finish().spoiled.is_some());
    }
    assert_eq!(warehouse.ask("select id::text from shop.orders").await, [""; 0]);
}

#[tokio::test]
async fn a_grant_that_reads_does_not_write_whatever_way_is_taken() {
    let warehouse = Warehouse::new(
        "create table shop.orders (id int); create sequence shop.numbers; grant update on shop.numbers to {role};
         create function shop.sneaky() returns int language plpgsql as
             $$ begin insert into shop.orders values (1); return 1; end $$;
         create function shop.dynamic(statement text) returns text language plpgsql as
             $$ begin execute statement; return 'done'; end $$",
    )
    .await;
    for statement in [
        "insert into orders values (1)",
        "with a as (insert into orders values (1) returning id) select * from a",
        "select sneaky()",
        "select nextval('numbers')",
        "select setval('numbers', 7)",
        "select id from orders for update",
        "select dynamic('update shop.orders set id = 2')",
        "select dynamic('create table shop.mine (id int)')",
        "select dynamic('create temporary table mine (id int)')",
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        denied(&attempt.query(statement, &[]).await, statement);
        let line = r#"[assets.report] grants = { shop = { access = "read-write" } }"#;
        assert_eq!(attempt.remedies(), [line], "{statement}");
        // What was never sent has cost nothing; what was has cost the transaction.
        let again = attempt.query("select 1", &[]).await;
        assert_eq!(again.is_ok(), statement.starts_with("insert"), "{statement}: {again:?}");
    }
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    denied(&attempt.execute("insert into orders values (1)", &[]).await, "execute");
    attempt.query("select 1", &[]).await.unwrap();
    assert_eq!(warehouse.ask("select count(*)::text from shop.orders").await, ["0"]);
    assert_eq!(warehouse.ask("select is_called::text from shop.numbers").await, ["false"]);
}

#[tokio::test]
async fn a_transaction_that_reads_cannot_be_made_one_that_writes() {
    let warehouse = Warehouse::new(
        "create table shop.orders (id int);
         create function shop.dynamic(statement text) returns text language plpgsql as
             $$ begin execute statement; return 'done'; end $$",
    )
    .await;
    for statement in [
        "select set_config('transaction_read_only', 'off', false)",
        "select set_config('transaction_read_only', 'off', true)",
        "select dynamic('set transaction read write')",
        "select dynamic('commit')",
        "select dynamic('rollback')",
        "select dynamic('begin')",
        "select query_to_xml('insert into shop.orders values (1)', true, true, '')",
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        let refused = attempt.query(statement, &[]).await;
        assert!(refused.is_err(), "{statement}: {refused:?}");
        let insert = attempt.query("with a as (insert into orders values (1) returning id) select * from a", &[]).await;
        assert!(insert.is_err(), "{statement}");
    }
    assert_eq!(warehouse.ask("select count(*)::text from shop.orders").await, ["0"]);
}

#[tokio::test]
async fn a_statement_that_changes_what_is_pinned_ends_the_transaction() {
    let warehouse = Warehouse::new(
        "create function shop.dynamic(statement text) returns text language plpgsql as
             $$ begin execute statement; return 'done'; end $$",
    )
    .await;
    let login = warehouse.login();
    for (statement, changed) in [
        ("select set_config('role', 'none', false)".to_owned(), "role"),
        ("select set_config('role', 'none', true)".to_owned(), "role"),
        (format!("select set_config('role', '{login}', true)"), "role"),
        ("select dynamic('reset role')".to_owned(), "role"),
        ("select set_config('search_path', 'private', true)".to_owned(), "search_path"),
        ("select dynamic('set search_path = public')".to_owned(), "search_path"),
        ("select set_config('statement_timeout', '0', true)".to_owned(), "statement_timeout"),
        ("select set_config('lock_timeout', '0', true)".to_owned(), "lock_timeout"),
        ("select set_config('DateStyle', 'German', true)".to_owned(), "DateStyle"),
        ("select set_config('bytea_output', 'escape', true)".to_owned(), "bytea_output"),
        ("select set_config('client_encoding', 'LATIN1', true)".to_owned(), "client_encoding"),
        ("select set_config('work_mem', '100GB', true)".to_owned(), "work_mem"),
        ("select set_config('hash_mem_multiplier', '1000', true)".to_owned(), "hash_mem_multiplier"),
        ("select set_config('temp_buffers', '100GB', true)".to_owned(), "temp_buffers"),
        ("select set_config('synchronous_commit', 'off', true)".to_owned(), "synchronous_commit"),
        ("select set_config('application_name', 'somebody else', true)".to_owned(), "application_name"),
        ("select dynamic('set local row_security = off')".to_owned(), "row_security"),
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::ReadWrite);
        denied(&attempt.query(&statement, &[]).await, &statement);
        assert_eq!(
            attempt.remedies(),
            [format!("none: a statement changed {changed}, which is pinned")],
            "{statement}"
        );
        denied(&attempt.query("select 1", &[]).await, "the transaction is over");
        assert!(attempt.sql.finish().spoiled.is_some());
    }
    // What changes others sees nobody.
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    attempt.query("select set_config('my.setting', 'x', false)", &[]).await.unwrap();
    let mut next = Attempt::new(&warehouse, Access::Read);
    assert_eq!(Attempt::one(next.query("select current_setting('my.setting', true)", &[]).await), "Value::Null");
}

#[tokio::test]
async fn rows_that_came_after_a_setting_changed_are_not_believed() {
    let warehouse = Warehouse::new("").await;
    // The first row changes how the others are written; all of them are fetched together.
    for statement in [
        "select set_config('bytea_output', 'escape', true), '\\x01'::bytea from generate_series(1, 3)",
        "select set_config('DateStyle', 'German', true)::text, date '2024-01-31' from generate_series(1, 3)",
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        denied(&attempt.query(statement, &[]).await, statement);
    }
}

#[tokio::test]
async fn the_role_holds_within_one_statement_too() {
    let warehouse = Warehouse::new("").await;
    let login = warehouse.login();
    for statement in [
        "select word from private.secret".to_owned(),
        // Becoming another and asking as that, in one go: the login can read no more than its role.
        "select set_config('role', 'none', true), query_to_xml('select word from private.secret', true, true, '')"
            .to_owned(),
        format!("select set_config('role', '{login}', true), query_to_xml('table private.secret', true, true, '')"),
        "select set_config('role', 'postgres', true)".to_owned(),
        "select set_config('session_authorization', 'postgres', true)".to_owned(),
        "select pg_read_file('/etc/passwd')".to_owned(),
        "select lo_import('/etc/passwd')".to_owned(),
        "select pg_ls_dir('/')".to_owned(),
        "select pg_reload_conf()".to_owned(),
        "select rolpassword from pg_authid".to_owned(),
        "table public.flowstone_applied".to_owned(),
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::ReadWrite);
        let refused = attempt.query(&statement, &[]).await;
        let is_refused = matches!(refused, Err(CapabilityError::Denied | CapabilityError::Invalid(_)));
        assert!(is_refused, "{statement}: {refused:?}");
        assert!(!format!("{refused:?}").contains("hidden"), "{statement}");
    }
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    denied(&attempt.query("select word from private.secret", &[]).await, "another schema");
    let remedy = &attempt.remedies()[0];
    assert!(remedy.contains("grant it to the role (permission denied for schema private)"), "{remedy}");
}

/// The login may write the record, so an asset that becomes the login within one statement, and its role again before
/// anybody looks, may too.
#[tokio::test]
async fn an_asset_that_writes_the_record_of_what_was_applied_is_undone() {
    let warehouse = Warehouse::new(
        "create function shop.dynamic(statement text) returns text language plpgsql as
             $$ begin execute statement; return 'done'; end $$;
         create function shop.caught(statement text) returns text language plpgsql as
             $$ begin begin execute statement; exception when others then raise; end; return 'done'; end $$;
         insert into public.flowstone_applied values (gen_random_uuid(), 'none', gen_random_uuid())",
    )
    .await;
    let before = warehouse.ask("select flowstone_applied::text from flowstone_applied").await;
    for function in ["dynamic", "caught"] {
        for write in [
            "update public.flowstone_applied set attempt_id = gen_random_uuid()",
            "insert into public.flowstone_applied values (gen_random_uuid(), ''none'', gen_random_uuid())",
        ] {
            let mut attempt = Attempt::new(&warehouse, Access::ReadWrite);
            let role = warehouse.role();
            let statement = format!(
                "select set_config('role', 'none', true), {function}('{write}'), set_config('role', '{role}', true)"
            );
            denied(&attempt.query(&statement, &[]).await, &statement);
            let remedy = "none: a statement changed the record of what was applied, which is pinned";
            assert_eq!(attempt.remedies(), [remedy], "{statement}");
            assert!(attempt.sql.finish().spoiled.is_some());
        }
    }
    assert_eq!(warehouse.ask("select flowstone_applied::text from flowstone_applied").await, before);
}

#[tokio::test]
async fn the_session_of_another_attempt_is_not_its_roles_to_end() {
    let warehouse = Warehouse::new("").await;
    let databases = databases();
    let resource = warehouse.resource(Access::Read, warehouse.url());
    let mut victim = Attempt::with(&databases, &resource, grant(Access::Read));
    let pid = "select pg_backend_pid()";
    let Value::Integer(pid) = victim.query(pid, &[]).await.unwrap()[0][0] else { panic!() };
    for function in ["pg_terminate_backend", "pg_cancel_backend"] {
        let mut attacker = Attempt::with(&databases, &resource, grant(Access::Read));
        denied(&attacker.query(&format!("select {function}($1::int)"), &[Value::Integer(pid)]).await, function);
    }
    victim.query("select 1", &[]).await.unwrap();
    // As their login, it is: whoever is that for one statement is found out, and the other is told.
    let mut attacker = Attempt::with(&databases, &resource, grant(Access::Read));
    let statement = "select set_config('role', 'none', true), pg_terminate_backend($1::int)";
    denied(&attacker.query(statement, &[Value::Integer(pid)]).await, statement);
    assert_eq!(attacker.remedies(), ["none: a statement changed role, which is pinned"]);
    let lost = victim.query("select 1", &[]).await;
    assert!(matches!(&lost, Err(CapabilityError::Unavailable(why)) if why.contains("was lost")), "{lost:?}");
    drop((attacker, victim));
    let mut next = Attempt::with(&databases, &resource, grant(Access::Read));
    next.query("select 1", &[]).await.unwrap();
}

#[tokio::test]
async fn names_that_the_host_uses_mislead_nobody() {
    let warehouse = Warehouse::new(
        "create function shop.dynamic(statement text) returns text language plpgsql as
             $$ begin execute statement; return 'done'; end $$;
         create function shop.cursor(name text) returns text language plpgsql as
             $$ declare c refcursor := name; begin open c for select 666; return 'done'; end $$",
    )
    .await;
    for statement in [
        "select cursor('r1')",
        "select cursor('r2')",
        "select cursor('')",
        "select dynamic('prepare s as select 666')",
        "select dynamic('prepare t as select 666')",
        "select dynamic('deallocate s')",
        "select dynamic('deallocate all')",
        "select dynamic('close r0')",
        "select dynamic('move all in r0')",
    ] {
        let mut attempt = Attempt::new(&warehouse, Access::Read);
        let kept = attempt.rows("select n from generate_series(1, 100) n", &[]).await.unwrap();
        let tried = attempt.query(statement, &[]).await;
        for _ in 0..3 {
            let seen = attempt.query("select 1", &[]).await;
            assert!(seen.is_err() || Attempt::one(seen) == "Value::Integer(1)", "{statement}, {tried:?}");
        }
        if let Ok(rows) = attempt.next(kept, 100).await {
            assert!(rows.iter().enumerate().all(|(at, row)| matches!(row[0], Value::Integer(n) if n == at as i64 + 1)));
        }
    }
}

#[tokio::test]
async fn what_a_statement_holds_steers_no_terminal_and_hides_no_other() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let nul = attempt.query("select 1\0; commit", &[]).await;
    assert!(matches!(&nul, Err(CapabilityError::Invalid(why)) if why.contains("NUL")), "{nul:?}");
    denied(&attempt.query("\u{1b}]0;title\u{7} commit", &[]).await, "an escape");
    denied(&attempt.query("vacuum \u{1b}[2J\u{202e}", &[]).await, "an escape");
    let denials = attempt.sql.take_denials();
    assert_eq!(denials.len(), 2);
    attempt.query("select '\u{1b}[2J\u{202e}'", &[]).await.unwrap();
    let told: Vec<String> = denials
        .iter()
        .flat_map(|denial| [denial.target.clone(), denial.remedy.clone()])
        .chain(attempt.sql.take_uses().into_iter().map(|used| used.target))
        .collect();
    assert!(
        told.len() > 5 && told.iter().all(|text| !text.contains(['\u{1b}', '\u{7}', '\u{202e}', '\0'])),
        "{told:?}"
    );
}

#[tokio::test]
async fn nobody_elses_function_stands_before_the_servers() {
    // `public` belongs to everybody here, as in a database that has grown up.
    let warehouse = Warehouse::new(
        "grant create on schema public to public;
         create function public.lower(varchar) returns text language sql as $$ select 'evil' $$;
         create function public.now() returns text language sql as $$ select 'evil' $$;
         create table public.orders as select 'evil' as word;
         create table shop.orders as select 'good' as word",
    )
    .await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    for statement in [
        "select lower('GOOD'::varchar)",
        "select word from orders",
        "select left(replace(now()::text, '2', 'good'), 4)",
    ] {
        assert_eq!(Attempt::one(attempt.query(statement, &[]).await), r#"Value::Text("good")"#, "{statement}");
    }
    // A temporary table does not either: the schema of those comes last.
    let mut attempt = Attempt::new(&warehouse, Access::ReadWrite);
    attempt.execute("select 'evil' as word into temporary orders", &[]).await.unwrap();
    assert_eq!(Attempt::one(attempt.query("select word from orders", &[]).await), r#"Value::Text("good")"#);
}

#[tokio::test]
async fn nothing_is_left_behind_for_the_next_attempt() {
    let warehouse = Warehouse::new("create table shop.orders (id int)").await;
    let databases = databases();
    let resource = SqlResource { connections: 1, ..warehouse.resource(Access::ReadWrite, warehouse.url()) };
    let mut first = Attempt::with(&databases, &resource, grant(Access::ReadWrite));
    let pid = Attempt::one(first.query("select pg_backend_pid()", &[]).await);
    first.execute("select 1 as id into temporary mine", &[]).await.unwrap();
    first.execute("insert into orders values (1)", &[]).await.unwrap();
    for statement in [
        "select pg_advisory_lock(7)",
        "select pg_advisory_xact_lock(8)",
        "select set_config('my.setting', 'x', false)",
        "select lo_create(4711)",
        "select pg_notify('channel', 'x')",
    ] {
        first.query(statement, &[]).await.unwrap();
    }
    drop(first);
    let mut second = Attempt::with(&databases, &resource, grant(Access::ReadWrite));
    assert_eq!(Attempt::one(second.query("select pg_backend_pid()", &[]).await), pid, "it is the same session");
    assert_eq!(
        Attempt::one(second.query("select current_setting('my.setting', true)", &[]).await),
        r#"Value::Text("")"#
    );
    for (nothing, what) in [
        (
            "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
            "locks",
        ),
        ("select count(*) from orders", "rows"),
        ("select count(*) from pg_class where relpersistence = 't' and relkind = 'r'", "tables"),
        ("select count(*) from pg_largeobject_metadata", "objects"),
        ("select count(*) from pg_prepared_statements where name <> 's'", "statements"),
    ] {
        assert_eq!(Attempt::one(second.query(nothing, &[]).await), "Value::Integer(0)", "{what}");
    }
}

#[tokio::test]
async fn the_random_numbers_of_the_next_attempt_are_nobodys_choice() {
    let warehouse = Warehouse::new("").await;
    let databases = databases();
    let resource = SqlResource { connections: 1, ..warehouse.resource(Access::Read, warehouse.url()) };
    let mut seen = Vec::new();
    for asked in ["select setseed(0.5)::text, random()", "select '', random()", "select '', random()"] {
        let mut attempt = Attempt::with(&databases, &resource, grant(Access::Read));
        let rows = attempt.query(&format!("{asked}, pg_backend_pid()"), &[]).await.unwrap();
        seen.push(rows[0][1..].iter().map(|value| format!("{value:?}")).collect::<Vec<_>>());
    }
    assert!(seen.iter().all(|row| row[1] == seen[0][1]), "it is the same session");
    let chosen = warehouse.ask("select random()::text from (select setseed(0.5)) s, generate_series(1, 3)").await;
    let follows = |at: usize| seen[at][0] == format!("Value::Float({})", chosen[at]);
    assert!(follows(0), "{seen:?}, {chosen:?}");
    assert!(!follows(1) && !follows(2), "{seen:?}, {chosen:?}");
}

#[tokio::test]
async fn errors_are_neutral_and_short() {
    let warehouse = Warehouse::new(
        "create function shop.shout(word text) returns int language plpgsql as
             $$ begin raise exception using errcode = 'P0001', message = word; end $$",
    )
    .await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let word = format!("\u{1b}[2J\n{}", "x".repeat(1 << 20));
    let refused = attempt.query("select shout($1)", &[text(&word)]).await.unwrap_err();
    let CapabilityError::Invalid(why) = refused else { panic!("{refused:?}") };
    assert!(why.starts_with("P0001: \u{241b}[2J") && why.len() < 2_000 && !why.contains('\n'), "{}", why.len());
    // A function may raise what it likes: it does not make a host's fault of it.
    let warehouse_too = Warehouse::new(
        "create function shop.lie(code text) returns int language plpgsql as
             $$ begin raise exception using errcode = code, message = 'a lie'; end $$",
    )
    .await;
    for (code, expected) in
        [("57P01", "Unavailable"), ("40001", "Conflict"), ("42501", "Denied"), ("57014", "LimitReached")]
    {
        let mut attempt = Attempt::new(&warehouse_too, Access::Read);
        let refused = attempt.query("select lie($1)", &[text(code)]).await.unwrap_err();
        assert!(format!("{refused:?}").contains(expected), "{code}: {refused:?}");
    }
}

#[tokio::test]
async fn deep_statements_cost_the_server_an_error_and_no_more() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let deep = format!("select {}1{}", "(".repeat(30_000), ")".repeat(30_000));
    let refused = attempt.query(&deep, &[]).await.unwrap_err();
    assert!(matches!(&refused, CapabilityError::LimitReached(_) | CapabilityError::Invalid(_)), "{refused:?}");
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    attempt.query("select 1", &[]).await.unwrap();
}
