//! Promise 6 when the source is not what it was: standbys that are promoted, backups that are restored, slots and rows
//! that are gone. Whoever holds a cursor either goes on without a gap or is told; nobody is ever served over a hole.

mod client;
mod lost;
mod promoted;
mod restored;
mod unpublished;

use std::process::Output;

use walcast_testkit::{
    Cluster, Daemon, DaemonBuilder, Installation, TestDatabase, TestSession, cluster_builder, eventually, run,
};

use client::Client;

/// `walcast`, for `database` at `url`.
fn walcast(database: &TestDatabase, url: &str, arguments: &[&str]) -> Output {
    let name = database.slot_name();
    run(arguments.iter().chain(&["--database-url", url, "--slot", &name, "--publication", &name]))
}

/// What the doctor finds under this name, and how bad it is.
fn finding(output: &Output, check: &str) -> Option<serde_json::Value> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let findings = lines.lines().map(|line| serde_json::from_str(line).expect("a finding"));
    findings.into_iter().find(|finding: &serde_json::Value| finding["check"] == check)
}

/// A daemon that lets its clients go at once, and stores a position soon that no row leads to.
fn daemon_of(database: &TestDatabase) -> DaemonBuilder {
    Daemon::of(database)
        .flag("--drain-max", "100ms")
        .flag("--idle-persist-interval", "50ms")
        .flag("--idle-persist-interval-max", "100ms")
}

/// A server with a table `t` in a database of its own.
async fn source(installation: &Installation) -> (Cluster, TestDatabase) {
    let cluster = cluster_builder(installation).start().await.expect("a server");
    let database = TestDatabase::create(&cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await;
    (cluster, database)
}

/// Writes past every position that anybody can have of another life of the server: some MiB, in many transactions.
async fn write_past(session: &TestSession, from: i32) {
    for id in from..from + 20 {
        let sql = format!("INSERT INTO t SELECT {id}, repeat(md5('{id}'), 4000)");
        session.batch_execute(&sql).await.expect("a row");
    }
    session.batch_execute("SELECT pg_switch_wal()").await.expect("a switch");
    session.batch_execute(&format!("INSERT INTO t VALUES ({}, 'z')", from + 20)).await.expect("a row");
}

/// The ids in the table, on this server.
async fn ids(session: &TestSession) -> Vec<i64> {
    let rows = session.query("SELECT id::int8 FROM t ORDER BY id", &[]).await.expect("the table");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until `sql` is true on this server.
async fn until(session: &TestSession, sql: &str) {
    eventually(sql, walcast_testkit::LIMIT, async || {
        (session.scalar(sql).await.as_deref() == Some("t")).then_some(())
    })
    .await;
}

/// Waits until the history at `url` has everything before the client's cursor.
async fn until_stored(url: &str, client: &Client) {
    let session = TestSession::connect(url).await;
    until(&session, &format!("SELECT position_lsn >= '{}' FROM walcast.feed", client.lsn())).await;
}
