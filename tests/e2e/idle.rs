//! The slot on quiet databases, and feeds that must not feed themselves.

use std::time::Duration;

use walcast_testkit::{Daemon, TestDatabase, eventually, for_each_version, installations, own_cluster};

use crate::observer::Observer;

/// Writes while a client listens to everything, until what the history's own commits caused would have come.
async fn nothing_of_walcast_s_own_comes(database: &TestDatabase, daemon: &Daemon) {
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
    observer.until("caught_up").await;
    database.run("INSERT INTO t VALUES (1)").await;
    database.run("INSERT INTO t VALUES (2)").await;
    observer.until_transactions(2).await;
    // A marker: when it is delivered, whatever the history's own commits caused would have come before it.
    database.until("SELECT count(*) FROM walcast.change_history", "2").await;
    database.run("INSERT INTO t VALUES (3)").await;
    observer.until_transactions(3).await;
    database.until("SELECT count(*) FROM walcast.change_history", "3").await;
    let tables =
        "SELECT string_agg(DISTINCT schema_name || '.' || table_name, ' ') FROM walcast.change_history";
    assert_eq!(database.scalar(tables).await.as_deref(), Some("public.t"));
    let told = observer.transactions.iter().flat_map(|delivered| &delivered.changes);
    assert!(told.map(|change| &*change.table).eq(["public.t"; 3]), "{:?}", observer.transactions);
}

#[tokio::test]
async fn for_all_tables_does_not_feed_walcast_s_own_tables_back() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).arg("--all-tables").start().await;
        nothing_of_walcast_s_own_comes(&database, &daemon).await;
        daemon.assert_quiet(&["FOR ALL TABLES"]);
    })
    .await;
}

#[tokio::test]
async fn a_published_schema_walcast_does_not_feed_itself_back() {
    for_each_version(async |cluster| {
        if cluster.installation().version().major < 15 {
            return;
        }
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut daemon = Daemon::of(&database).start().await;
        daemon.terminate().await;
        let publication = database.slot_name();
        database.run(&format!("ALTER PUBLICATION {publication} ADD TABLES IN SCHEMA walcast, public")).await;
        daemon.restart().await;
        // It is published, and stays so.
        let own = format!(
            "SELECT count(*) > 0 FROM pg_publication_tables WHERE pubname = '{publication}' AND schemaname = 'walcast'"
        );
        assert_eq!(database.scalar(&own).await.as_deref(), Some("t"));
        nothing_of_walcast_s_own_comes(&database, &daemon).await;
        assert_eq!(database.scalar(&own).await.as_deref(), Some("t"));
    })
    .await;
}

#[tokio::test]
async fn the_slot_of_an_idle_database_follows_the_wal_of_another_one() {
    // Case 56, short.
    for_each_version(async |cluster| {
        let (idle, busy) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
        idle.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        busy.run("CREATE TABLE b (id int, filler text)").await;
        let _daemon = Daemon::of(&idle).flag("--idle-persist-interval", "200ms").start().await;
        busy.run("INSERT INTO b SELECT g, repeat('x', 200) FROM generate_series(1, 100000) g").await;
        let mark = busy.scalar("SELECT pg_current_wal_flush_lsn()").await.unwrap();
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{mark}' FROM pg_replication_slots WHERE slot_name = '{}'",
            idle.slot_name()
        );
        // What was sent with the last keepalive is what counts; the server's own records move it on.
        eventually(
            "the idle slot moves past the other database's WAL",
            Duration::from_secs(30),
            async || {
                busy.run("INSERT INTO b VALUES (0, '')").await;
                (idle.scalar(&sql).await.as_deref() == Some("t")).then_some(())
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn an_idle_system_makes_no_wal_of_its_own() {
    no_wal_of_its_own(&[]).await;
}

#[tokio::test]
async fn an_idle_system_with_all_tables_makes_no_wal_of_its_own() {
    no_wal_of_its_own(&["--all-tables"]).await;
}

async fn no_wal_of_its_own(arguments: &[&str]) {
    // Case 69, short: with the usual intervals nothing is written for seconds.
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).flag("--heartbeat", "6s");
        let daemon = arguments.iter().fold(daemon, |daemon, argument| daemon.arg(argument)).start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
        observer.until("caught_up").await;
        // Another one for each update. The server's counters would do too, but they come late.
        let version = "SELECT xmin FROM walcast.feed";
        let before = database.scalar(version).await;
        // Heartbeats are the clock here: in two of them an idle position could be persisted.
        observer.until_heartbeats(2).await;
        assert_eq!(database.scalar(version).await, before);
        assert_eq!(
            database.scalar("SELECT count(*) FROM walcast.change_history").await.as_deref(),
            Some("0")
        );
    }
}
