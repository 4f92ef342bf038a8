//! Throwaway servers start, stop, die, come back, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use walcast_cluster::{Cluster, ClusterBuilder, Error, Installation, StopMode};

fn newest() -> ClusterBuilder {
    Cluster::builder(Installation::newest().unwrap()).reuse_initdb()
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn scalar(url: &str, sql: &str) -> String {
    let client = connect(url).await.unwrap();
    let rows = client.simple_query(sql).await.unwrap();
    rows.iter()
        .find_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap()
}

/// Waits for what the system does by itself.
fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(30), "did not come within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_cluster_answers_over_tcp_and_over_its_socket() {
    let cluster = newest().setting("max_replication_slots", 33).start().await.unwrap();
    assert_eq!(scalar(&cluster.url("postgres"), "SHOW wal_level").await, "logical");
    assert_eq!(scalar(&cluster.socket_url("postgres"), "SHOW max_replication_slots").await, "33");
    assert_eq!(scalar(&cluster.url("postgres"), "SELECT current_user").await, "postgres");
    assert_eq!(scalar(&cluster.url("template1"), "SHOW server_encoding").await, "UTF8");
    assert!(cluster.log().contains("ready to accept connections"));
}

#[tokio::test]
async fn dropping_a_cluster_ends_the_server_and_removes_its_folder() {
    let cluster = newest().start().await.unwrap();
    let (pid, folder) = (cluster.pid().unwrap(), cluster.socket_directory().to_owned());
    let _session = connect(&cluster.url("postgres")).await.unwrap();
    drop(cluster);
    assert!(!runs(pid));
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_cluster_that_was_killed_or_paused_is_removed_as_well() {
    let killed = newest().start().await.unwrap();
    killed.kill9().await.unwrap();
    let paused = newest().start().await.unwrap();
    let pid = paused.pid().unwrap();
    paused.pause().unwrap();
    let folders = [killed.socket_directory().to_owned(), paused.socket_directory().to_owned()];
    drop((killed, paused));
    assert!(!runs(pid));
    assert!(folders.iter().all(|folder| !folder.exists()));
}

#[tokio::test]
async fn every_way_to_stop_keeps_what_was_committed_and_the_port() {
    let cluster = newest().start().await.unwrap();
    let port = cluster.port();
    let url = cluster.url("postgres");
    connect(&url).await.unwrap().batch_execute("CREATE TABLE t (id int)").await.unwrap();
    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        connect(&url).await.unwrap().batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        cluster.stop(mode).await.unwrap();
        assert!(connect(&url).await.is_err());
        assert_eq!(cluster.pid(), None);
        assert!(matches!(cluster.stop(mode).await, Err(Error::WrongState(_))));
        cluster.start().await.unwrap();
    }
    cluster.kill9().await.unwrap();
    assert!(connect(&url).await.is_err());
    cluster.start().await.unwrap();
    assert!(matches!(cluster.start().await, Err(Error::WrongState(_))));
    cluster.restart(StopMode::Fast).await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(scalar(&url, "SELECT count(*) FROM t").await, "3");
    assert!(cluster.log().contains("automatic recovery in progress"), "{}", cluster.log());
}

#[tokio::test]
async fn a_kill_takes_every_backend_along() {
    let cluster = newest().start().await.unwrap();
    let session = connect(&cluster.url("postgres")).await.unwrap();
    let backend: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let backend = u32::try_from(backend).unwrap();
    assert!(runs(backend));
    cluster.kill9().await.unwrap();
    assert!(!runs(backend));
    assert!(session.simple_query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_paused_server_is_silent_until_it_goes_on() {
    let cluster = newest().start().await.unwrap();
    let session = connect(&cluster.url("postgres")).await.unwrap();
    cluster.pause().unwrap();
    let query = session.query_one("SELECT 1", &[]);
    tokio::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut query).await.is_err());
    cluster.resume().unwrap();
    assert_eq!(query.await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn a_stop_that_takes_too_long_says_so_and_goes_on() {
    let cluster = newest().start().await.unwrap();
    let session = connect(&cluster.url("postgres")).await.unwrap();
    let error = cluster.stop_within(StopMode::Smart, Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("did not stop within 100ms"), "{error}");
    drop(session);
    cluster.stop(StopMode::Smart).await.unwrap();
}

#[tokio::test]
async fn settings_take_effect_with_the_next_start() {
    let cluster = newest().start().await.unwrap();
    cluster.configure(&[("wal_level", "replica"), ("cluster_name", "it's quoted")]).unwrap();
    cluster.restart(StopMode::Fast).await.unwrap();
    assert_eq!(scalar(&cluster.url("postgres"), "SHOW wal_level").await, "replica");
    assert_eq!(scalar(&cluster.url("postgres"), "SHOW cluster_name").await, "it's quoted");
}

#[tokio::test]
async fn a_start_that_fails_shows_the_servers_log_and_leaves_nothing() {
    let error = newest().setting("shared_buffers", "no number").start().await.unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn initdb_arguments_and_fresh_identities_are_honoured() {
    let installation = Installation::newest().unwrap();
    let ascii = Cluster::builder(installation.clone()).initdb_argument("--encoding=SQL_ASCII");
    let ascii = ascii.initdb_argument("--wal-segsize=1").start().await.unwrap();
    let (one, two) = tokio::join!(newest().start(), newest().start());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(scalar(&ascii.url("postgres"), "SHOW server_encoding").await, "SQL_ASCII");
    assert_eq!(scalar(&ascii.url("postgres"), "SHOW wal_segment_size").await, "1MB");
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let of_one = scalar(&one.url("postgres"), identity).await;
    assert_eq!(of_one, scalar(&two.url("postgres"), identity).await, "both are copies of one initdb");
    assert_ne!(of_one, scalar(&ascii.url("postgres"), identity).await);
    assert_ne!(one.port(), two.port());
}

#[tokio::test]
async fn given_hba_lines_decide_about_tcp_and_leave_the_socket_open() {
    let cluster = newest().hba("host all all 127.0.0.1/32 scram-sha-256").start().await.unwrap();
    let socket = connect(&cluster.socket_url("postgres")).await.unwrap();
    socket.batch_execute("CREATE ROLE app LOGIN PASSWORD 'secret'").await.unwrap();
    assert!(connect(&cluster.url("postgres")).await.is_err(), "no password");
    let with_password = cluster.url("postgres").replace("postgres@", "app:secret@");
    assert_eq!(scalar(&with_password, "SELECT current_user").await, "app");
}

#[tokio::test]
async fn a_standby_follows_its_primary_and_a_copy_has_its_data() {
    let primary = newest().start().await.unwrap();
    primary.stop(StopMode::Fast).await.unwrap();
    let standby = newest().standby_of(&primary).start().await.unwrap();
    primary.start().await.unwrap();
    assert!(matches!(newest().copy_of(&primary).start().await, Err(Error::WrongState(_))));
    let session = connect(&primary.url("postgres")).await.unwrap();
    session.batch_execute("CREATE TABLE t AS SELECT 42 AS answer").await.unwrap();
    let lsn: String = session.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let replica = connect(&standby.url("postgres")).await.unwrap();
    let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    let started = Instant::now();
    while !replica.query_one(&replayed, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(started.elapsed() < Duration::from_secs(30), "the standby follows:\n{}", standby.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scalar(&standby.url("postgres"), "SELECT answer FROM t").await, "42");
    assert_eq!(scalar(&standby.url("postgres"), "SELECT pg_is_in_recovery()").await, "t");
    drop((session, replica));
    primary.stop(StopMode::Fast).await.unwrap();
    let copy = newest().copy_of(&primary).start().await.unwrap();
    assert_eq!(scalar(&copy.url("postgres"), "SELECT answer FROM t").await, "42");
}

#[tokio::test]
async fn two_versions_run_side_by_side() {
    let all = Installation::find_all();
    let (oldest, newest) = (all.first().unwrap().clone(), all.last().unwrap().clone());
    let (old, new) = tokio::join!(
        Cluster::builder(oldest.clone()).reuse_initdb().start(),
        Cluster::builder(newest.clone()).reuse_initdb().start()
    );
    let (old, new) = (old.unwrap(), new.unwrap());
    for (cluster, installation) in [(&old, &oldest), (&new, &newest)] {
        let version = scalar(&cluster.url("postgres"), "SHOW server_version").await;
        assert!(version.starts_with(&installation.version().to_string()), "{version}");
    }
}

/// Where the child process of the next tests writes down its cluster.
const REPORT: &str = "WALCAST_CLUSTER_TEST_REPORT";

/// Not a test of its own: the process that the next two tests kill or leave.
#[tokio::test]
async fn child_that_never_tidies_up() {
    let Some(report) = std::env::var_os(REPORT) else { return };
    let cluster = newest().start().await.unwrap();
    let text = format!("{}\n{}\n", cluster.pid().unwrap(), cluster.socket_directory().display());
    let unfinished = PathBuf::from(&report).with_extension("unfinished");
    std::fs::write(&unfinished, text).unwrap();
    std::fs::rename(unfinished, report).unwrap();
    std::future::pending::<()>().await;
}

fn read_report(report: &Path) -> (u32, PathBuf) {
    eventually("the child's report", || report.exists());
    let text = std::fs::read_to_string(report).unwrap();
    let (pid, folder) = text.trim().split_once('\n').unwrap();
    (pid.parse().unwrap(), PathBuf::from(folder))
}

fn run_child(configure: impl FnOnce(&mut Command)) -> (std::process::Child, u32, PathBuf) {
    let scratch = tempfile::tempdir().unwrap().keep();
    let report = scratch.join("report");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&scratch, Some(65534), None).unwrap();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_that_never_tidies_up", "--nocapture"]).env(REPORT, &report);
    command.stdout(Stdio::null()).stdin(Stdio::null());
    configure(&mut command);
    let child = command.spawn().unwrap();
    let (pid, folder) = read_report(&report);
    std::fs::remove_dir_all(scratch).unwrap();
    (child, pid, folder)
}

#[test]
fn a_process_that_is_killed_leaves_no_server_and_no_folder() {
    let (mut child, postmaster, folder) = run_child(|_| {});
    assert!(runs(postmaster) && folder.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the end of the server", || !runs(postmaster));
    eventually("the end of its folder", || !folder.exists());
}

#[test]
fn an_unprivileged_process_runs_its_server_itself() {
    if !nix::unistd::geteuid().is_root() {
        return; // Then all other tests of this file show it.
    }
    use std::os::unix::process::CommandExt;
    let home = tempfile::Builder::new().prefix("walcast-nobody-").tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), None).unwrap();
    // A copy of the test program: the target folder may be closed to others.
    let program = home.path().join("test");
    // By another process: a file that this one has open for writing could not be executed.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    let (mut child, postmaster, folder) = run_child(|command| {
        let mut other = Command::new(&program);
        other.args(command.get_args().map(ToOwned::to_owned).collect::<Vec<_>>());
        for (name, value) in command.get_envs() {
            other.env(name, value.unwrap());
        }
        other.env("TMPDIR", home.path()).uid(65534).gid(65534).stdout(Stdio::null()).stdin(Stdio::null());
        *command = other;
    });
    assert!(folder.starts_with(home.path()));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(format!("/proc/{postmaster}")).unwrap().uid(), 65534);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the end of the server", || !runs(postmaster));
    eventually("the end of its folder", || !folder.exists());
}
