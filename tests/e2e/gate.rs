//! Promise 4: nobody is served before everything committed before is there.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use walcast_model::Cursor;
use walcast_testkit::{
    Cluster, Daemon, Installation, LIMIT, TestDatabase, cluster_builder, eventually, for_each_version,
    installations, own_cluster, shared_cluster, undisturbed, within,
};

use crate::observer::{Observer, open, receive, send, wal_position};
use crate::upkeep::readyz;

/// A server on which nobody flushes WAL but who commits, for 10 s: what is written otherwise is in its WAL and not sent yet.
async fn lazy_cluster(installation: &Installation) -> Cluster {
    let builder = cluster_builder(installation).setting("wal_writer_delay", "10s");
    builder.start().await.expect("a server")
}

/// A database of such a server, and a daemon that has started once. Its history is elsewhere, so that no commit of its own
/// flushes the WAL of the source.
struct Lazy {
    database: TestDatabase,
    _history: TestDatabase,
    daemon: Daemon,
    observer: Observer,
}

impl Lazy {
    async fn start(cluster: &Cluster) -> Self {
        let (database, history) =
            (TestDatabase::create(cluster).await, TestDatabase::create(shared_cluster().await).await);
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).flag("--history-url", history.url()).start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        Self { database, _history: history, daemon, observer }
    }
}

/// Case 59. A gate at the end of the WAL as it is flushed lets clients in without it, or waits there for whoever flushes more.
#[tokio::test]
async fn what_was_committed_asynchronously_before_the_start_is_there_when_the_gate_opens() {
    undisturbed(Duration::from_secs(1), asynchronous_commits_are_there).await;
}

async fn asynchronous_commits_are_there() {
    for installation in installations() {
        let cluster = lazy_cluster(&installation).await;
        let Lazy { database, _history, mut daemon, observer } = Lazy::start(&cluster).await;
        daemon.terminate().await;
        database.run("SET synchronous_commit = off; INSERT INTO t SELECT generate_series(1, 100)").await;
        let committed = end_of_wal(&database, "insert").await;
        let flushed = end_of_wal(&database, "flush").await;
        assert!(flushed < committed, "all is flushed: {flushed}");
        restart(&mut daemon).await;
        let head = head_when_ready(&daemon).await;
        assert!(head >= committed, "ready at {head}, before {committed}");
        let mut observer = observer.reconnect(&daemon.ws_url(), &["public.t"]).await;
        observer.until("caught_up").await;
        assert_eq!(observer.rows("public.t").len(), 100);
    }
}

#[tokio::test]
async fn an_open_transaction_does_not_hold_the_gate() {
    // Case 60, first half: the slot is there, so nothing has to wait for writers.
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).start().await;
    daemon.terminate().await;
    let writer = database.session().await;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    daemon.restart().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    assert_eq!(observer.rows("public.t").len(), 0);
    writer.batch_execute("COMMIT").await.unwrap();
    observer.until_transactions(1).await;
    assert_eq!(observer.rows("public.t").len(), 1);
}

#[tokio::test]
async fn a_missing_synchronous_standby_does_not_hold_the_gate_and_the_initial_sync_is_exact() {
    // Case 60, second half, and the sync-rep wait of case 62: a transaction whose commit is in the WAL and that no
    // snapshot sees yet must come by the stream.
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)").await;
        let mut daemon = Daemon::of(&database).start().await;
        daemon.terminate().await;
        database.set_for_server("synchronous_standby_names", "nobody").await;
        let writer = database.session().await;
        let hanging =
            tokio::spawn(async move { writer.batch_execute("UPDATE t SET v = 1 WHERE id = 1").await });
        database.until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1").await;
        daemon.restart().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let row = observer.rows("public.t").into_iter().find(|row| row["id"] == 1).unwrap();
        assert_eq!(row["v"], 1, "the snapshot does not see it, so the stream must have brought it");
        database.set_for_server("synchronous_standby_names", "").await;
        within("the writer", LIMIT, hanging).await.unwrap().unwrap();
        observer.assert_equals(&database, "public.t").await;
    }
}

#[tokio::test]
async fn clients_that_come_before_the_initial_poll_is_done_are_told_waiting_and_served_later() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let mut daemon = Daemon::of(&database).start().await;
    daemon.terminate().await;
    // What the daemon has to poll first, with a history that cannot take it yet.
    database.run("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 2000) g").await;
    let lock = database.session().await;
    lock.batch_execute("BEGIN; LOCK TABLE walcast.change_history IN EXCLUSIVE MODE").await.unwrap();
    daemon.restart_without_waiting();
    let url = daemon.ws_url();
    let (mut socket, _) = eventually("the door opens", LIMIT, async || {
        let listening = daemon.get("/livez").await.is_some_and(|answer| answer.status == 200);
        if listening && tokio_tungstenite::connect_async(&url).await.is_ok() {
            Some(open(&url).await)
        } else {
            None
        }
    })
    .await;
    send(
        &mut socket,
        json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}], "cursor": "0/0"}),
    )
    .await;
    loop {
        let message = receive(&mut socket).await.expect("a message");
        match message["type"].as_str() {
            Some("waiting") => break,
            Some("status" | "heartbeat") => {}
            _ => panic!("served before the initial poll was done: {message}"),
        }
    }
    assert_eq!(daemon.get("/readyz").await.unwrap().status, 503);
    lock.batch_execute("ROLLBACK").await.unwrap();
    loop {
        let message = receive(&mut socket).await.expect("a message");
        if message["type"] == "caught_up" {
            break;
        }
    }
    assert_eq!(daemon.get("/readyz").await.unwrap().status, 200);
}

/// Where the feed is, by a daemon that says that it is ready.
async fn head_when_ready(daemon: &Daemon) -> Cursor {
    let health = readyz(daemon).await;
    assert_eq!(health["ready"], true, "{health}");
    health["feed"]["head"].as_str().and_then(|head| head.parse().ok()).unwrap_or_else(|| panic!("{health}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_is_there_when_the_gate_opens_and_what_is_open_holds_nothing() {
    const ROWS: usize = 60_000;
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
        let mut daemon = Daemon::of(&database).flag("--feed-memory", "1MiB").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        daemon.terminate().await;
        let insert = |from: usize| {
            let to = from + ROWS - 1;
            format!("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series({from}, {to}) g")
        };
        let open = database.session().await;
        open.batch_execute(&format!("BEGIN; {}", insert(ROWS + 1))).await.unwrap();
        database.run(&insert(1)).await;
        let committed = wal_position(&database).await;
        daemon.restart().await;
        let head = head_when_ready(&daemon).await;
        assert!(head >= committed, "ready at {head}, before {committed}");
        let mut observer = observer.reconnect(&daemon.ws_url(), &["public.t"]).await;
        observer.until("caught_up").await;
        let sizes: Vec<usize> =
            observer.transactions.iter().map(|delivered| delivered.changes.len()).collect();
        assert_eq!(sizes, [ROWS]);
        open.batch_execute("COMMIT").await.unwrap();
        observer.until_transactions(2).await;
        observer.assert_equals(&database, "public.t").await;
    })
    .await;
}

/// Starts it again, on a server that writes or flushes by itself after 10 and 15 s.
async fn restart(daemon: &mut Daemon) {
    within("the gate", Duration::from_secs(6), daemon.restart()).await;
}

/// Until where the WAL is `insert`ed, or `flush`ed.
async fn end_of_wal(database: &TestDatabase, which: &str) -> Cursor {
    let end = database.scalar(&format!("SELECT pg_current_wal_{which}_lsn()::text")).await;
    end.and_then(|end| end.parse().ok()).expect("a position")
}

/// A gate that waits until the feed stands still is held for as long as they write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_another_database_do_not_hold_the_gate() {
    for installation in installations() {
        let cluster = lazy_cluster(&installation).await;
        let Lazy { database, _history, mut daemon, observer } = Lazy::start(&cluster).await;
        daemon.terminate().await;
        let other = TestDatabase::create(&cluster).await;
        other.run("CREATE TABLE b (id int, filler text)").await;
        let (writer, stop) = (other.session().await, CancellationToken::new());
        let writing = tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let sql = "INSERT INTO b SELECT g, repeat('x', 200) FROM generate_series(1, 200) g";
                writer.batch_execute(sql).await.expect("it writes");
            }
        }));
        database.run("INSERT INTO t SELECT generate_series(1, 100)").await;
        let committed = wal_position(&database).await;
        // For as long as the daemon starts, and its client catches up.
        daemon.restart().await;
        let head = head_when_ready(&daemon).await;
        assert!(head >= committed, "ready at {head}, before {committed}");
        let mut observer = observer.reconnect(&daemon.ws_url(), &["public.t"]).await;
        observer.until("caught_up").await;
        assert_eq!(observer.rows("public.t").len(), 100);
        assert!(!writing.is_finished(), "the other database writes");
        stop.cancel();
        assert!(within("the writer", LIMIT, writing).await.unwrap().is_none());
    }
}

/// A gate at the end of the WAL as it is inserted waits there until somebody else writes.
#[tokio::test]
async fn an_idle_end_of_the_wal_does_not_hold_the_gate() {
    undisturbed(Duration::from_secs(1), idle_ends_hold_nothing).await;
}

async fn idle_ends_hold_nothing() {
    for installation in installations() {
        let cluster = lazy_cluster(&installation).await;
        let Lazy { database, _history, mut daemon, mut observer } = Lazy::start(&cluster).await;
        // The end is in the middle of a page; where a segment begins, of which nothing is written yet; and in what a
        // transaction has written that is open and of which nothing is flushed.
        let open = database.session().await;
        for (rows, is_flushed, tail) in [
            (1, true, "SELECT 1"),
            (2, false, "SELECT pg_switch_wal()"),
            (3, false, "BEGIN; INSERT INTO t VALUES (1000)"),
        ] {
            daemon.terminate().await;
            database.run(&format!("INSERT INTO t VALUES ({rows})")).await;
            open.batch_execute(tail).await.expect("a tail");
            let (inserted, flushed) =
                (end_of_wal(&database, "insert").await, end_of_wal(&database, "flush").await);
            assert_eq!(inserted == flushed, is_flushed, "{tail}: {inserted}, {flushed}");
            restart(&mut daemon).await;
            observer = observer.reconnect(&daemon.ws_url(), &["public.t"]).await;
            observer.until("caught_up").await;
            assert_eq!(observer.rows("public.t").len(), rows, "after {tail}");
        }
    }
}

/// A walsender of Postgres 16 and later can overlook what is flushed while it goes to sleep, and wakes when it hears from us.
/// Without that, some of so many subscriptions wait for 10 s.
#[tokio::test]
async fn a_commit_that_the_walsender_overlooks_is_sent_all_the_same() {
    undisturbed(Duration::from_secs(1), overlooked_commits_are_sent).await;
}

async fn overlooked_commits_are_sent() {
    // Whatever another test wrote would wake it.
    let cluster = own_cluster(shared_cluster().await.installation()).await;
    let database = TestDatabase::create(&cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database)
        .flag("--subscribes-per-second-max", 100_000)
        .flag("--messages-per-second-max", 100_000)
        .start()
        .await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let tables = json!([{"table": "public.t"}]);
    for attempt in 0..800 {
        let id = attempt.to_string();
        let subscribe = json!({"type": "subscribe", "id": id, "tables": tables, "cursor": "latest"});
        send(&mut socket, subscribe).await;
        let caught_up = async {
            loop {
                let message = receive(&mut socket).await.expect("the connection goes on");
                assert_ne!(message["type"], "error", "{message}");
                if message["id"] == id && message["type"] == "caught_up" {
                    return;
                }
            }
        };
        within("the barrier of a subscription on a quiet server", Duration::from_secs(5), caught_up).await;
        send(&mut socket, json!({"type": "unsubscribe", "id": id})).await;
    }
}
