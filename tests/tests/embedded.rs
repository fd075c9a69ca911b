//! The private cluster (DESIGN section 12): how it starts, whom it lets in, and what it survives.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use flowstone::embedded::{Cluster, EmbeddedError, Reached, attach, reach};
use flowstone_tests::{Mount, StateFolder};
use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};

async fn ask(options: &PgConnectOptions, question: &'static str) -> sqlx::Result<String> {
    let mut connection = PgConnection::connect_with(options).await?;
    let answer = sqlx::query_scalar(question).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

async fn keep_something(cluster: &Cluster) {
    let mut connection = PgConnection::connect_with(&cluster.options()).await.unwrap();
    connection.execute("CREATE TABLE kept AS SELECT 'yes' AS answer").await.unwrap();
    connection.close().await.unwrap();
}

async fn has_kept_it(options: &PgConnectOptions) -> bool {
    ask(options, "SELECT answer FROM kept").await.unwrap() == "yes"
}

/// Returns when it is so. The bound is only there to fail with a message.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn is_root() -> bool {
    // `/proc/self` belongs to the effective user.
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// A second process that owns a cluster. Dropped, it stops as it should.
struct Owner(Child);

impl Owner {
    fn start(state_dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_own-cluster"));
        Self(command.arg(state_dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn ready(mut self) -> Self {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_cluster_keeps_its_data_from_one_owner_to_the_next() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    cluster.stop().await.unwrap();
    assert_eq!(StateFolder::postmaster(&state.path()), None);

    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn commits_are_durable_and_there_is_no_network() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    for (setting, expected) in [
        ("SHOW fsync", "on"),
        ("SHOW synchronous_commit", "on"),
        ("SHOW full_page_writes", "on"),
        ("SHOW data_checksums", "on"),
        ("SHOW listen_addresses", ""),
        ("SHOW jit", "off"),
        ("SHOW server_encoding", "UTF8"),
        ("SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user", "false"),
    ] {
        assert_eq!(ask(&cluster.options(), setting).await.unwrap(), expected, "{setting}");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_first_ones_process_id() {
    let state = StateFolder::new();
    let owner = Owner::start(&state.path()).ready();
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse { pid: Some(pid), .. } if pid == owner.0.id()), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", owner.0.id())), "{error}");
    assert!(error.to_string().contains("--state"), "{error}");
}

#[tokio::test]
async fn a_client_attaches_to_a_live_owner_and_to_nothing_else() {
    let state = StateFolder::new();
    assert!(attach(&state.path()).await.unwrap().is_none());
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    let options = attach(&state.path()).await.unwrap().unwrap();
    assert!(has_kept_it(&options).await);
    cluster.stop().await.unwrap();
    assert!(attach(&state.path()).await.unwrap().is_none());
}

#[tokio::test]
async fn reach_owns_what_nobody_owns_and_attaches_otherwise() {
    let state = StateFolder::new();
    let first = reach(&state.path()).await.unwrap();
    assert!(matches!(first, Reached::Owned(_)));
    let second = reach(&state.path()).await.unwrap();
    assert!(matches!(second, Reached::Attached(_)));
    assert_eq!(ask(&second.options(), "SELECT 'there'").await.unwrap(), "there");
    second.stop().await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test]
async fn reach_waits_for_an_owner_that_is_making_its_cluster() {
    let state = StateFolder::new();
    let owner = Owner::start(&state.path());
    wait_until("the owner has begun", || state.path().join("postgres").exists());
    let reached = reach(&state.path()).await.unwrap();
    assert!(matches!(reached, Reached::Attached(_)));
    drop(owner);
}

#[tokio::test]
async fn the_server_ends_when_its_owner_is_killed() {
    let state = StateFolder::new();
    let owner = Owner::start(&state.path()).ready();
    let server = StateFolder::postmaster(&state.path()).unwrap();
    owner.kill();
    wait_until("the server has ended", || !is_alive(server));

    let cluster = Cluster::own(&state.path()).await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn an_owner_takes_over_at_once_from_one_that_was_killed() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    cluster.stop().await.unwrap();
    for _ in 0..5 {
        Owner::start(&state.path()).ready().kill();
        let cluster = Cluster::own(&state.path()).await.unwrap();
        assert!(has_kept_it(&cluster.options()).await);
        cluster.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_orphan_whose_guardian_was_killed_too_is_ended_by_the_next_owner() {
    let state = StateFolder::new();
    let owner = Owner::start(&state.path()).ready();
    let server = StateFolder::postmaster(&state.path()).unwrap();
    kill_9(guardian_of(server));
    owner.kill();
    assert!(is_alive(server));

    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert_ne!(StateFolder::postmaster(&state.path()), Some(server));
    cluster.stop().await.unwrap();
}

fn guardian_of(server: u32) -> u32 {
    let arguments = format!("flowstone-guardian\0{server}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut guardians = processes.filter(|process| {
        fs::read(process.path().join("cmdline")).is_ok_and(|line| line.ends_with(arguments.as_bytes()))
    });
    guardians.next().unwrap().file_name().to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_half_made_cluster_is_made_anew() {
    let state = StateFolder::new();
    let owner = Owner::start(&state.path());
    let home = state.path().join("postgres");
    let is_half_made = |entry: fs::DirEntry| entry.path().join("base").exists() && !home.join("data").exists();
    wait_until("initdb is at work", || fs::read_dir(&home).is_ok_and(|home| home.flatten().any(is_half_made)));
    owner.kill();
    assert!(!home.join("data").exists());

    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert_eq!(ask(&cluster.options(), "SELECT 'whole'").await.unwrap(), "whole");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_brought_back_with_what_was_committed() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    let server = StateFolder::postmaster(&state.path()).unwrap();
    kill_9(server);
    let started = Instant::now();
    let answer = loop {
        match ask(&cluster.options(), "SELECT answer FROM kept").await {
            Ok(answer) => break answer,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(answer, "yes");
    assert_ne!(StateFolder::postmaster(&state.path()), Some(server));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_process_id_of_somebody_else_is_no_server() {
    let state = StateFolder::new();
    Cluster::own(&state.path()).await.unwrap().stop().await.unwrap();
    let file = state.path().join("postgres/data/postmaster.pid");
    fs::write(&file, format!("{}\n{}\n", std::process::id(), file.parent().unwrap().display())).unwrap();
    assert!(attach(&state.path()).await.unwrap().is_none());
    let cluster = Cluster::own(&state.path()).await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_cluster_stops_and_can_be_owned_again() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    drop(cluster);
    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn an_interrupt_at_the_terminal_does_not_reach_the_server() {
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    let group = |process: &str| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // After the name in brackets: state, parent, process group.
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned()
    };
    let server = StateFolder::postmaster(&state.path()).unwrap();
    assert_ne!(group("self"), group(&server.to_string()));
    assert_ne!(group("self"), group(&guardian_of(server).to_string()));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_deep_state_directory_has_its_socket_in_a_private_folder_elsewhere() {
    let state = StateFolder::new();
    let deep = state.deep_path();
    let cluster = Cluster::own(&deep).await.unwrap();
    let folder = cluster.options().get_socket().unwrap().clone();
    assert!(folder.starts_with("/tmp"), "{}", folder.display());
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let attached = attach(&deep).await.unwrap().unwrap();
    assert_eq!(ask(&attached, "SELECT 'deep'").await.unwrap(), "deep");
    cluster.stop().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn as_root_below_a_closed_folder_the_cluster_lives_elsewhere() {
    let state = StateFolder::with_mode(0o700);
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    assert_eq!(fs::read_link(state.path().join("postgres")).is_ok(), is_root());
    assert!(has_kept_it(&attach(&state.path()).await.unwrap().unwrap()).await);
    cluster.stop().await.unwrap();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_a_state_directory_does_not_share_its_cluster_and_a_moved_one_keeps_it() {
    if !is_root() {
        return eprintln!("not tested: only root's clusters live elsewhere");
    }
    let state = StateFolder::with_mode(0o700);
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    let copy = state.folder().join("copy");
    fs::create_dir(&copy).unwrap();
    std::os::unix::fs::symlink(fs::read_link(state.path().join("postgres")).unwrap(), copy.join("postgres")).unwrap();
    let error = Cluster::own(&copy).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Copied { .. }), "{error}");
    assert!(attach(&copy).await.is_err());
    // The first one's server has not been taken for a leftover.
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();

    let moved = state.folder().join("moved");
    fs::rename(state.path(), &moved).unwrap();
    let cluster = Cluster::own(&moved).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
    // Back again, where the folder's end finds it.
    fs::rename(&moved, state.path()).unwrap();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_elsewhere_that_is_gone_is_not_replaced_in_silence() {
    let state = StateFolder::new();
    fs::create_dir(state.path()).unwrap();
    std::os::unix::fs::symlink("/var/lib/flowstone/gone", state.path().join("postgres")).unwrap();
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn only_the_owners_account_is_let_in() {
    if !is_root() {
        return eprintln!("not tested: only root can be somebody else");
    }
    let state = StateFolder::new();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    let socket = cluster.options().get_socket().unwrap().clone();
    let server = StateFolder::postmaster(&state.path()).unwrap();
    let server = fs::metadata(format!("/proc/{server}")).unwrap();
    let connect = |uid: u32, gid: u32| {
        let mut psql = Command::new("psql");
        psql.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").uid(uid).gid(gid);
        psql.args(["-X", "-U", "flowstone", "-d", "flowstone", "-c", "SELECT 1", "-h"]).arg(&socket);
        let output = psql.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(connect(0, 0).0);
    let (let_in, said) = connect(65_534, 65_534);
    assert!(!let_in && said.contains("Permission denied"), "{said}");
    let (let_in, said) = connect(server.uid(), server.gid());
    assert!(!let_in && said.contains("Peer authentication failed"), "{said}");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let state = StateFolder::new();
    let mount = Mount::new(state.folder(), 8);
    match &mount {
        Some(mount) => mount.remount("remount,ro"),
        None if is_root() => return,
        None => fs::set_permissions(state.folder(), fs::Permissions::from_mode(0o500)).unwrap(),
    }
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(&error, EmbeddedError::NotWritable { path, .. } if *path == state.path()), "{error}");
}

#[tokio::test]
async fn a_cluster_that_has_become_read_only_is_named() {
    let state = StateFolder::new();
    let Some(mount) = Mount::new(state.folder(), 200) else { return };
    Cluster::own(&state.path()).await.unwrap().stop().await.unwrap();
    mount.remount("remount,ro");
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotWritable { .. }), "{error}");
    mount.remount("remount,rw");
    Cluster::own(&state.path()).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_disk_too_small_for_a_cluster_is_said_to_be_full() {
    let state = StateFolder::new();
    let Some(_mount) = Mount::new(state.folder(), 8) else { return };
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::DiskFull { .. }), "{error}");
}

#[tokio::test]
async fn a_full_disk_stops_a_start_and_room_mends_it() {
    let state = StateFolder::new();
    let Some(_mount) = Mount::new(state.folder(), 200) else { return };
    let cluster = Cluster::own(&state.path()).await.unwrap();
    keep_something(&cluster).await;
    cluster.stop().await.unwrap();
    let filler = state.folder().join("filler");
    assert!(fs::write(&filler, vec![1; 300 << 20]).is_err());

    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::DiskFull { .. }), "{error}");

    fs::remove_file(filler).unwrap();
    let cluster = Cluster::own(&state.path()).await.unwrap();
    assert!(has_kept_it(&cluster.options()).await);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_is_named_with_what_to_install() {
    let state = StateFolder::new();
    Cluster::own(&state.path()).await.unwrap().stop().await.unwrap();
    fs::write(state.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::OtherVersion { major: 9, .. }), "{error}");
    assert!(error.to_string().contains("apt-get install postgresql-9"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let state = StateFolder::new();
    Cluster::own(&state.path()).await.unwrap().stop().await.unwrap();
    fs::remove_file(state.path().join("postgres/data/global/pg_control")).unwrap();
    let error = Cluster::own(&state.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("pg_control"), "{error}");
}
