//! Promises 1 and 6 when things die: the daemon by `kill -9`, Postgres by crash and restart, the connection by a cut.

use walcast_testkit::{
    Daemon, LIMIT, Proxy, StopMode, TestDatabase, for_each_version, installations, own_cluster,
    shared_cluster, within,
};

use crate::observer::{Observer, wal_position};
use crate::workload::{TABLES, Workload, create};

/// Reads to the end of what was committed and compares everything: the copies with the tables, what was delivered with
/// `change_history`.
async fn settle(database: &TestDatabase, daemon: &Daemon, mut observer: Observer) {
    let end = wal_position(database).await;
    database.run("UPDATE accounts SET note = 'settled' WHERE id = 1").await;
    loop {
        observer = observer.reconnect(&daemon.ws_url(), &TABLES).await;
        observer.until("caught_up").await;
        if observer.cursor.is_some_and(|cursor| cursor > end) {
            break;
        }
    }
    for table in TABLES {
        observer.assert_equals(database, table).await;
    }
    observer.assert_stored(database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_daemon_in_mid_stream_loses_and_repeats_nothing() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database, 100).await;
        let mut daemon = Daemon::of(&database).flag("--part-bytes", "4KiB").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &TABLES, None).await;
        observer.until("caught_up").await;
        let workload = Workload::start(&database, 4, 4).await;
        for round in 0..4 {
            workload.more(30).await;
            let seen = observer.transactions.len();
            observer.until_transactions(seen + 10).await;
            database.run(&format!("INSERT INTO notes SELECT g, repeat('z', 300) FROM generate_series({round}000000, {round}000500) g")).await;
            daemon.kill9().await;
            daemon.restart().await;
            observer = observer.reconnect(&daemon.ws_url(), &TABLES).await;
        }
        workload.stop().await;
        Box::pin(settle(&database, &daemon, observer)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restarts_and_crashes_leave_clients_connected_and_complete() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        create(&database, 50).await;
        let daemon = Daemon::of(&database).start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &TABLES, None).await;
        observer.until("caught_up").await;
        for mode in [StopMode::Fast, StopMode::Immediate] {
            let workload = Workload::start(&database, 3, 5).await;
            workload.more(30).await;
            cluster.restart(mode).await.expect("a restart");
            workload.stop().await;
            // After the second restart the first one's statuses may still be on their way.
            let interrupted = async { while observer.until("status").await["state"] != "interrupted" {} };
            within("that the source is away", LIMIT, interrupted).await;
            database.run("UPDATE accounts SET balance = balance + 1").await;
            let end = wal_position(&database).await;
            database.run("UPDATE accounts SET note = 'after the restart' WHERE id = 2").await;
            observer.until_after(end).await;
            for table in TABLES {
                observer.assert_equals(&database, table).await;
            }
        }
        Box::pin(settle(&database, &daemon, observer)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_between_daemon_and_postgres_is_a_state_and_not_an_end() {
    let cluster = shared_cluster().await;
    let database = TestDatabase::create(cluster).await;
    create(&database, 50).await;
    let proxy = Proxy::to(cluster.port()).await;
    let daemon = Daemon::of(&database).flag("--database-url", database.url_via(&proxy)).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &TABLES, None).await;
    observer.until("caught_up").await;
    let workload = Workload::start(&database, 3, 6).await;
    for _ in 0..3 {
        workload.more(20).await;
        proxy.cut();
        observer.until("status").await;
    }
    workload.stop().await;
    let end = wal_position(&database).await;
    database.run("UPDATE accounts SET note = 'end' WHERE id = 1").await;
    observer.until_after(end).await;
    Box::pin(settle(&database, &daemon, observer)).await;
}

#[tokio::test]
async fn sigterm_tells_the_clients_1001_and_leaves_the_slot_acknowledged() {
    let database = TestDatabase::create(shared_cluster().await).await;
    create(&database, 5).await;
    let mut daemon = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
    observer.until("caught_up").await;
    database.run("UPDATE accounts SET balance = 7").await;
    observer.until_transactions(1).await;
    let stored = observer.cursor.expect("a cursor");
    daemon.terminate().await;
    assert_eq!(observer.close_code().await, Some(1001));
    let sql = format!(
        "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{}'",
        stored.lsn(),
        database.slot_name()
    );
    assert_eq!(database.scalar(&sql).await.as_deref(), Some("t"));
    daemon.assert_quiet(&[]);
}
