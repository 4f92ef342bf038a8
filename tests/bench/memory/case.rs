//! What is done to a daemon.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use walcast_testkit::{Cluster, Daemon, TestDatabase};

use crate::Outcome;
use crate::client::Client;
use crate::options::Options;
use crate::resident::{Measured, Watch};

/// What a case is called, and how it is run.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(Options, &'a Cluster) -> BoxFuture<'a, Outcome<Vec<Measured>>>,
}

pub(crate) const ALL: &[Case] = &[
    Case { name: "idle", run: |options, cluster| idle(options, cluster).boxed() },
    Case { name: "transaction", run: |options, cluster| transaction(options, cluster).boxed() },
    Case { name: "row", run: |options, cluster| row(options, cluster).boxed() },
    Case { name: "clients", run: |options, cluster| clients(options, cluster).boxed() },
    Case { name: "tables", run: |options, cluster| tables(options, cluster).boxed() },
    Case { name: "stall", run: |options, cluster| stall(options, cluster).boxed() },
];

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Connections that are opened side by side.
const OPENING: usize = 64;
/// Changes that stalled clients are sent: some times what the feed keeps.
const STALLED_ROWS: u64 = 200_000;

/// Waits until history has everything that is committed now.
async fn stored(database: &TestDatabase) -> Outcome<()> {
    let end = database.scalar("SELECT pg_current_wal_flush_lsn()::text").await.ok_or("no position")?;
    let sql = format!("SELECT position_lsn >= '{end}' FROM walcast.feed");
    let began = Instant::now();
    // An idle position is stored after some seconds; a change moves it at once.
    database.run("CREATE TABLE IF NOT EXISTS moved (n int PRIMARY KEY); INSERT INTO moved SELECT count(*) FROM moved").await;
    while database.scalar(&sql).await.as_deref() != Some("t") {
        if began.elapsed() > LIMIT {
            return Err("history does not come to the end".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn started(cluster: &Cluster, setup: &str) -> (TestDatabase, Daemon) {
    let database = TestDatabase::create(cluster).await;
    database.run(setup).await;
    let daemon = Daemon::of(&database).start().await;
    (database, daemon)
}

async fn idle(_: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let (_database, daemon) = started(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let watch = Watch::start(&daemon)?;
    Client::subscribe(daemon.port(), "*", "0/0", false).await?.until("caught_up").await?;
    Ok(vec![watch.end("nothing, with one client", "")?])
}

async fn transaction(options: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let (database, daemon) = started(cluster, "CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let mut client = Client::subscribe(daemon.port(), "public.t", "0/0", false).await?;
    client.until("caught_up").await?;
    let rows = options.rows;
    let watch = Watch::start(&daemon)?;
    database
        .run(&format!("INSERT INTO t SELECT g, repeat('x', 80) FROM generate_series(1, {rows}) AS g"))
        .await;
    client.changes(rows).await?;
    stored(&database).await?;
    let live =
        watch.end(format!("a transaction of {rows} rows, with one client"), "`feed_memory` (64 MiB)")?;
    let watch = Watch::start(&daemon)?;
    let mut late = Client::subscribe(daemon.port(), "public.t", "0/0", false).await?;
    late.until("caught_up").await?;
    let sync =
        watch.end(format!("an initial sync of these {rows} rows"), "`snapshot_chunk_bytes_max` (256 KiB)")?;
    Ok(vec![live, sync])
}

async fn row(options: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let (database, daemon) = started(cluster, "CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let mib = options.row_mib;
    let start = database.scalar("SELECT pg_current_wal_flush_lsn()::text").await.ok_or("no position")?;
    let mut client = Client::subscribe(daemon.port(), "public.t", "0/0", false).await?;
    client.until("caught_up").await?;
    let watch = Watch::start(&daemon)?;
    // Nothing that compresses: 32 bytes for each of the series.
    let insert = format!(
        "INSERT INTO t SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, {mib} * 32768) AS g"
    );
    database.run(&insert).await;
    client.changes(1).await?;
    stored(&database).await?;
    let bound = "the row itself: the largest one that comes";
    let live = watch.end(format!("a row of {mib} MiB, with one client"), bound)?;
    let watch = Watch::start(&daemon)?;
    let mut late = Client::subscribe(daemon.port(), "public.t", "0/0", false).await?;
    late.until("caught_up").await?;
    let sync = watch.end(format!("an initial sync with that row of {mib} MiB"), bound)?;
    // Others come after it, so that it is in the feed no more.
    database.run("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(2, 300000) AS g").await;
    stored(&database).await?;
    let watch = Watch::start(&daemon)?;
    let mut again = Client::subscribe(daemon.port(), "public.t", &start, false).await?;
    again.changes(1).await?;
    let catchup = watch.end(format!("a catch-up from history with that row of {mib} MiB"), bound)?;
    Ok(vec![live, sync, catchup])
}

async fn clients(options: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let (database, daemon) = started(cluster, "CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let port = daemon.port();
    let watch = Watch::start(&daemon)?;
    let open = |_| async move {
        let mut client = Client::subscribe(port, "public.t", "latest", true).await?;
        client.until("caught_up").await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(client)
    };
    let opened = stream::iter(0..options.clients).map(open).buffer_unordered(OPENING);
    let stalled: Vec<Client> = opened.try_collect().await?;
    let count = stalled.len();
    let waiting = watch.end(format!("{count} clients that wait"), "`connections_max` (10,000)")?;
    let watch = Watch::start(&daemon)?;
    for first in (1..=STALLED_ROWS).step_by(1000) {
        let sql = "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series";
        database.run(&format!("{sql}({first}, {}) AS g", first + 999)).await;
    }
    stored(&database).await?;
    // What is held for a client that does not read is let go with the second heartbeat.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let what = format!("{count} clients that do not read, while 200 MB of changes come");
    let stalling = watch
        .end(what, "`connections_max`, with `batch_bytes_max` and `read_bytes_max` (64 KiB) for each")?;
    drop(stalled);
    Ok(vec![waiting, stalling])
}

async fn tables(options: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let database = TestDatabase::create(cluster).await;
    let count = options.tables;
    for first in (0..count).step_by(100) {
        let each = |number| {
            format!("CREATE TABLE t_{number} (id int PRIMARY KEY, title text, at timestamptz, n numeric);")
        };
        let batch: String = (first..(first + 100).min(count)).map(each).collect();
        database.run(&batch).await;
    }
    let daemon = Daemon::of(&database).spawn();
    let began = Instant::now();
    while daemon.get("/readyz").await.is_none_or(|answer| answer.status != 200) {
        if began.elapsed() > LIMIT {
            return Err(format!("not ready: {:?}", daemon.log().last()).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let peak = daemon.peak_memory_bytes().unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    let what = format!("{count} tables: start");
    let bound = "the number of tables: some KiB each";
    let start = Measured { what, bound, peak, seconds };
    let watch = Watch::start(&daemon)?;
    let mut client = Client::subscribe(daemon.port(), "*", "0/0", false).await?;
    client.until("caught_up").await?;
    for first in (0..count).step_by(100) {
        let each = |number| format!("INSERT INTO t_{number} VALUES (1, 'a title', now(), 1.5);");
        let batch: String = (first..(first + 100).min(count)).map(each).collect();
        database.run(&batch).await;
    }
    client.changes(count as u64).await?;
    stored(&database).await?;
    let all = watch.end(format!("{count} tables: an initial sync of all, then a change in each"), bound)?;
    Ok(vec![start, all])
}

async fn stall(options: Options, cluster: &Cluster) -> Outcome<Vec<Measured>> {
    let (database, daemon) = started(cluster, "CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let mut client = Client::subscribe(daemon.port(), "public.t", "0/0", false).await?;
    client.until("caught_up").await?;
    let lock = database.session().await;
    let watch = Watch::start(&daemon)?;
    lock.batch_execute("BEGIN; LOCK TABLE walcast.change_history IN EXCLUSIVE MODE").await?;
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < options.stall {
        let sql = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series";
        database.run(&format!("{sql}({}, {}) AS g", rows + 1, rows + 1000)).await;
        rows += 1000;
    }
    lock.batch_execute("ROLLBACK").await?;
    client.changes(rows).await?;
    stored(&database).await?;
    let what = format!("history stalled for {:.0} s, while {rows} changes come", options.stall.as_secs_f64());
    Ok(vec![watch.end(what, "`feed_memory`; the rest waits in the source's WAL (`wal_budget`)")?])
}
