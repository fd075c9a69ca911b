//! Which logins and servers are accepted, how connections are shared, and what happens when one is lost.

use flowstone::pipeline::sql::UrlSource;
use flowstone_tests::{deadline::wait_until_database_says, proxy::Proxy};

use super::*;

/// What an attempt with this resource meets: what it is told, and what its operator is.
async fn meets(resource: &SqlResource) -> (Result<Rows, CapabilityError>, Vec<String>) {
    let mut attempt = Attempt::with(&databases(), resource, grant(resource.access));
    let answer = attempt.query("select 1", &[]).await;
    (answer, attempt.remedies())
}

#[track_caller]
fn assert_unfit((answer, remedies): (Result<Rows, CapabilityError>, Vec<String>), words: &str) {
    assert!(matches!(answer, Err(CapabilityError::Denied)), "{answer:?}");
    assert!(remedies.len() == 1 && remedies[0].contains(words), "{remedies:?}");
}

#[tokio::test]
async fn a_login_that_no_grant_can_hold_is_refused() {
    let warehouse = Warehouse::new("").await;
    let (login, role) = (warehouse.login(), warehouse.role());
    let resource = warehouse.resource(Access::Read, warehouse.url());
    meets(&resource).await.0.unwrap();
    let superuser = SqlResource {
        role: None,
        ..warehouse.resource(Access::Read, warehouse.url_in(warehouse.socket_folder(), "postgres"))
    };
    assert_unfit(meets(&superuser).await, "rights that no grant can hold, by ");
    for (change, undo, words) in [
        (format!("alter role {login} createrole"), format!("alter role {login} nocreaterole"), "rights that no grant"),
        (format!("alter role {login} bypassrls"), format!("alter role {login} nobypassrls"), "rights that no grant"),
        (
            format!("grant pg_read_server_files to {login}"),
            format!("revoke pg_read_server_files from {login}"),
            "by pg_read_server_files",
        ),
        // Through the role, too.
        (
            format!("grant pg_execute_server_program to {role}"),
            format!("revoke pg_execute_server_program from {role}"),
            "by pg_execute_server_program",
        ),
        (
            format!("create role {role}_two; grant {role}_two to {login}"),
            format!("drop role {role}_two"),
            "can also become wh_",
        ),
        (
            "create table public.job_lease (); create table public.asset_version ()".into(),
            "drop table public.job_lease".into(),
            "the database of a FlowStone",
        ),
        ("create extension dblink".into(), "drop extension dblink".into(), "may call functions of dblink"),
    ] {
        warehouse.execute(change).await;
        assert_unfit(meets(&resource).await, words);
        warehouse.execute(undo).await;
    }
    warehouse.execute(format!("revoke {role} from {login}")).await;
    let (answer, _) = meets(&resource).await;
    assert!(matches!(answer, Err(CapabilityError::Denied)), "it is not its role's: {answer:?}");
}

#[tokio::test]
async fn a_database_without_a_safe_record_cannot_be_written() {
    let warehouse = Warehouse::new("").await;
    let (login, role) = (warehouse.login(), warehouse.role());
    let resource = warehouse.resource(Access::ReadWrite, warehouse.url());
    meets(&resource).await.0.unwrap();
    for (change, undo, words) in [
        (
            format!("revoke update on public.flowstone_applied from {login}"),
            format!("grant update on public.flowstone_applied to {login}"),
            "may not select, insert and update",
        ),
        (
            format!("grant delete on public.flowstone_applied to {role}"),
            format!("revoke delete on public.flowstone_applied from {role}"),
            "its role may write to public.flowstone_applied",
        ),
        (
            "alter table public.flowstone_applied rename to other".into(),
            "alter table public.other rename to flowstone_applied".into(),
            "it has no table public.flowstone_applied",
        ),
    ] {
        warehouse.execute(change).await;
        assert_unfit(meets(&resource).await, words);
        warehouse.execute(undo).await;
    }
    warehouse.execute("drop table public.flowstone_applied").await;
    meets(&warehouse.resource(Access::Read, warehouse.url())).await.0.unwrap();
}

#[tokio::test]
async fn a_network_is_crossed_with_tls_and_a_password_only() {
    let warehouse = Warehouse::new("").await;
    let url = warehouse.network_url();
    let trusting =
        SqlResource { ca: Some(warehouse.authority().into()), ..warehouse.resource(Access::Read, url.clone()) };
    meets(&trusting).await.0.unwrap();
    let encrypted = async |resource: &SqlResource| {
        let mut attempt = Attempt::with(&databases(), resource, grant(Access::Read));
        attempt.query("select 1", &[]).await.unwrap();
        let ask = "select ssl::text from pg_stat_ssl join pg_stat_activity using (pid)
            where application_name = 'flowstone asset' and datname = current_database() and state <> 'idle'";
        warehouse.ask(ask).await
    };
    assert_eq!(encrypted(&trusting).await, ["true"]);
    let unavailable = |met: (Result<Rows, CapabilityError>, Vec<String>)| {
        assert!(met.1.is_empty(), "{:?}", met.1);
        match met.0 {
            Err(CapabilityError::Unavailable(why)) => assert_eq!(why, "the database cannot be reached"),
            other => panic!("{other:?}"),
        }
    };
    // Another authority, the usual ones, another name, another password, nobody there.
    unavailable(meets(&warehouse.resource(Access::Read, url.clone())).await);
    let of = |url: String| SqlResource { url: UrlSource::Plain(url), ..trusting.clone() };
    unavailable(meets(&of(url.replace("localhost", "127.0.0.1"))).await);
    unavailable(meets(&of(url.replace("hunter2", "hunter3"))).await);
    unavailable(meets(&of(url.replace(":hunter2", ""))).await);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    unavailable(meets(&of(format!("postgres://me:hunter2@localhost:{closed}/shop"))).await);
    // Without TLS where the operator says so in the URL.
    let plain = SqlResource { ca: None, ..of(format!("{url}?sslmode=disable")) };
    assert_eq!(encrypted(&plain).await, ["false"]);
}

#[tokio::test]
async fn a_server_that_is_none_is_unavailable_and_costs_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let warehouse = Warehouse::new("").await;
    for says in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"R\0\0\0\x08\0\0\0\0D\x7f\xff\xff\xff",
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05?",
        b"E\0\0\0\x02",
        b"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let serve = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
        });
        let resource =
            warehouse.resource(Access::Read, format!("postgres:///shop?host={}&user=me", folder.path().display()));
        let (answer, _) = meets(&resource).await;
        assert!(matches!(answer, Err(CapabilityError::Unavailable(_))), "{says:?}: {answer:?}");
        serve.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_answers_without_end_is_not_listened_to() {
    use tokio::io::AsyncWriteExt as _;
    let warehouse = Warehouse::new("").await;
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        // Rows of one field that is nothing.
        let rows = b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff".repeat(10_000);
        let mut sent = 0_u64;
        while stream.write_all(&rows).await.is_ok() {
            sent += rows.len() as u64;
        }
        sent
    });
    let resource =
        warehouse.resource(Access::Read, format!("postgres:///shop?host={}&user=me", folder.path().display()));
    let (answer, _) = meets(&resource).await;
    assert!(
        matches!(&answer, Err(CapabilityError::Unavailable(why)) if why == "the database cannot be reached"),
        "{answer:?}"
    );
    let sent = serve.await.unwrap();
    assert!(sent < 16 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_connection_that_is_lost_ends_the_attempts_transaction_and_no_other() {
    let warehouse = Warehouse::new("").await;
    let proxy = Proxy::to(&warehouse.options());
    let databases = databases();
    let resource = warehouse.resource(Access::Read, warehouse.url_in(proxy.folder(), &warehouse.login()));
    let mut attempt = Attempt::with(&databases, &resource, grant(Access::Read));
    let rows = attempt.rows("select n from generate_series(1, 100000) n", &[]).await.unwrap();
    attempt.next(rows, 1).await.unwrap();
    proxy.take_down();
    let lost = loop {
        match attempt.next(rows, 1_000).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&lost, CapabilityError::Unavailable(why) if why.contains("was lost")), "{lost:?}");
    let again = attempt.query("select 1", &[]).await.unwrap_err();
    assert!(matches!(again, CapabilityError::Unavailable(_)), "{again:?}");
    let mut during = Attempt::with(&databases, &resource, grant(Access::Read));
    assert!(matches!(during.query("select 1", &[]).await, Err(CapabilityError::Unavailable(_))));
    proxy.bring_up();
    let mut after = Attempt::with(&databases, &resource, grant(Access::Read));
    after.query("select 1", &[]).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_replaced() {
    let warehouse = Warehouse::new("").await;
    let databases = databases();
    let resource = SqlResource { connections: 1, ..warehouse.resource(Access::Read, warehouse.url()) };
    let mut pids = Vec::new();
    for _ in 0..3 {
        let mut attempt = Attempt::with(&databases, &resource, grant(Access::Read));
        pids.push(Attempt::one(attempt.query("select pg_backend_pid()", &[]).await));
        drop(attempt);
        if pids.len() == 2 {
            // It is idle when it has returned to its pool, and then it is ended.
            let pool = warehouse.pool().await;
            let ended = "select count(pg_terminate_backend(pid)) = 1 from pg_stat_activity
                where datname = current_database() and application_name = 'flowstone asset'
                  and state = 'idle' and query like 'select pg_catalog.setseed%'";
            wait_until_database_says(&pool, ended).await;
        }
    }
    assert_eq!(pids[0], pids[1]);
    assert_ne!(pids[1], pids[2]);
}

#[tokio::test]
async fn connections_of_a_process_are_bounded_and_waited_for() {
    let warehouse = Warehouse::new("").await;
    let databases = databases();
    let resource = SqlResource { connections: 2, ..warehouse.resource(Access::Read, warehouse.url()) };
    let mut attempts = Vec::new();
    for _ in 0..2 {
        let mut attempt = Attempt::with(&databases, &resource, grant(Access::Read));
        attempt.query("select 1", &[]).await.unwrap();
        attempts.push(attempt);
    }
    let mut third = Attempt::with(&databases, &resource, grant(Access::Read));
    let pool = warehouse.pool().await;
    let freed = async {
        // Nobody connects while it waits.
        let two = "select count(*) = 2 from pg_stat_activity where datname = current_database() and application_name = 'flowstone asset'";
        wait_until_database_says(&pool, two).await;
        drop(attempts);
    };
    let (answer, ()) = tokio::join!(third.query("select 1", &[]), freed);
    answer.unwrap();
    // Another tenant shares no connection, and no bound.
    let other = databases.pool("other", &resource, None).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&other, &databases.pool("default", &resource, None).unwrap()));
}

#[tokio::test]
async fn a_variable_that_is_not_there_is_named_and_its_value_is_not() {
    let urls: DatabaseUrls = [("FLOWSTONE_SQL_SHOP".to_owned(), "mysql://hunter2@db".to_owned())].into_iter().collect();
    let databases = Databases::new(urls, tokio::runtime::Handle::current());
    let warehouse = Warehouse::new("").await;
    let of = |name: &str| SqlResource {
        url: UrlSource::Environment(name.into()),
        ..warehouse.resource(Access::Read, String::new())
    };
    let mistake = databases.pool("default", &of("FLOWSTONE_SQL_OTHER"), None).unwrap_err();
    assert_eq!(mistake, "this process has no variable FLOWSTONE_SQL_OTHER, which holds its URL");
    let mistake = databases.pool("default", &of("FLOWSTONE_SQL_SHOP"), None).unwrap_err();
    assert_eq!(mistake, "the URL in FLOWSTONE_SQL_SHOP does not begin with postgres://");
}

#[tokio::test]
async fn an_asset_without_a_grant_of_that_name_is_denied_with_the_line_that_grants_it() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let denied = attempt.sql.open("payroll".into()).await.map(|database| database.rep()).map_err(guest);
    assert!(matches!(denied, Err(CapabilityError::Denied)));
    assert_eq!(attempt.remedies(), [r#"[assets.report] grants = { payroll = { access = "read" } }"#]);
}
