//! Against real servers.

use std::time::Duration;

use walcast_model::Lsn;
use walcast_pgoutput::{Decoder, Message};
use walcast_postgres::{ConnectionConfig, ErrorClass};
use walcast_testkit::{
    Cluster, TestDatabase, TestSession, eventually, for_each_version, installations, own_cluster,
    shared_cluster, undisturbed, within,
};

use super::{ReplicationConnection, ReplicationSettings, ReplicationStream, SlotOptions, StreamFrame};

mod ending;

const LIMIT: Duration = Duration::from_secs(30);

/// For how long this process may not run where a server's patience of a second or two is what is tested.
const STILL_MAX: Duration = Duration::from_millis(300);

fn config(url: &str) -> ConnectionConfig {
    ConnectionConfig::parse(url, &|_| None).unwrap()
}

async fn connect(url: &str) -> ReplicationConnection {
    connect_with(url, &ReplicationSettings::default()).await
}

async fn connect_with(url: &str, settings: &ReplicationSettings) -> ReplicationConnection {
    ReplicationConnection::connect(&config(url), "walcast test", settings).await.unwrap()
}

/// A stream of all tables from a fresh slot named like its database.
async fn stream(database: &TestDatabase, settings: &ReplicationSettings) -> ReplicationStream {
    let session = database.session().await;
    session
        .batch_execute("CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE t (id int PRIMARY KEY, v text)")
        .await
        .unwrap();
    let mut connection = connect_with(database.url(), settings).await;
    let created = connection.create_slot(database.name(), &SlotOptions::default()).await.unwrap();
    connection.start(database.name(), created.consistent_point, &["p"]).await.unwrap()
}

/// Reads until the transaction that follows has been committed; its messages and its end.
async fn transaction(stream: &mut ReplicationStream) -> (Vec<Message>, Lsn) {
    let (mut decoder, mut messages, mut frames) = (Decoder::new(), Vec::new(), Vec::new());
    loop {
        within("a frame", LIMIT, stream.next(&mut frames)).await.unwrap();
        for frame in frames.drain(..) {
            let StreamFrame::XLogData { data, .. } = frame else { continue };
            match decoder.decode(data).unwrap() {
                Message::Commit(commit) => return (messages, commit.end.lsn()),
                message => messages.push(message),
            }
        }
    }
}

fn inserts(messages: &[Message]) -> usize {
    messages.iter().filter(|message| matches!(message, Message::Insert(_))).count()
}

#[tokio::test]
async fn the_walsender_says_who_it_is_and_has_the_pinned_settings() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let name = database.name();
        let hostile = ["DateStyle = 'German, DMY'", "TimeZone = 'Asia/Tokyo'", "idle_session_timeout = '1h'"];
        for setting in hostile.into_iter().chain(["extra_float_digits = 0", "wal_sender_timeout = '5s'"]) {
            database
                .session()
                .await
                .batch_execute(&format!("ALTER DATABASE {name} SET {setting}"))
                .await
                .unwrap();
        }
        let settings = ReplicationSettings { decoding_work_bytes: Some(128 << 20), ..Default::default() };
        let mut connection = connect_with(database.url(), &settings).await;
        let identity = connection.identify_system().await.unwrap();
        let expected = database.scalar("SELECT system_identifier FROM pg_control_system()").await.unwrap();
        assert_eq!(
            (identity.system_identifier, identity.timeline, identity.database.as_str()),
            (expected, 1, name)
        );
        assert!(identity.flushed > Lsn::ZERO);
        for (setting, value) in [
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("IntervalStyle", "postgres"),
            ("extra_float_digits", "3"),
            ("idle_session_timeout", "0"),
            ("client_encoding", "UTF8"),
            ("wal_sender_timeout", "1min"),
            ("logical_decoding_work_mem", "128MB"),
            ("search_path", "pg_catalog"),
        ] {
            assert_eq!(connection.show(setting).await.unwrap(), value, "{setting}");
        }
        let number = connection.show("server_version_num").await.unwrap();
        assert_eq!(connection.server_version().to_string(), number);
        if connection.server_version() >= 170_000 {
            assert_eq!(connection.show("transaction_timeout").await.unwrap(), "0");
        }
        assert_eq!(connection.timeline_history(1).await.unwrap(), []);
        connection.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_error_leaves_the_connection_good_and_keeps_its_sqlstate() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut connection = connect(database.url()).await;
    assert_eq!(connection.show("no_such_setting").await.unwrap_err().sqlstate(), Some("42704"));
    assert_eq!(connection.drop_slot("no_such_slot", false).await.unwrap_err().sqlstate(), Some("42704"));
    let name = "Bad Name!";
    assert_eq!(
        connection.create_slot(name, &SlotOptions::default()).await.unwrap_err().sqlstate(),
        Some("42602")
    );
    let rows = connection.query("SELECT 1, NULL, 'a' UNION ALL SELECT 2, 'x', 'b' ORDER BY 1").await.unwrap();
    assert_eq!(rows[0], [Some("1".into()), None, Some("a".into())]);
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_slot_is_created_and_dropped_on_every_version() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut connection = connect(database.url()).await;
        let name = database.name();
        let created = connection.create_slot(name, &SlotOptions::default()).await.unwrap();
        assert_eq!(created.name, name);
        assert_eq!(created.snapshot, None);
        let confirmed =
            format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'");
        assert_eq!(database.scalar(&confirmed).await, Some(created.consistent_point.to_string()));
        let again = connection.create_slot(name, &SlotOptions::default()).await.unwrap_err();
        assert_eq!(again.sqlstate(), Some("42710"));
        connection.drop_slot(name, false).await.unwrap();
        assert_eq!(database.scalar(&confirmed).await, None);
        let options =
            SlotOptions { temporary: true, snapshot: super::SlotSnapshot::Export, ..Default::default() };
        assert!(connection.create_slot(name, &options).await.unwrap().snapshot.is_some());
        let failover = SlotOptions { failover: true, ..Default::default() };
        let with_failover = connection.create_slot(&format!("{name}_f"), &failover).await;
        assert_eq!(with_failover.is_ok(), connection.server_version() >= 170_000, "{with_failover:?}");
        connection.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn creating_a_slot_gives_up_on_an_open_transaction_after_its_limit() {
    // Of its own: a slot waits for the transactions of the whole server, so this one's would hold up the slots of other
    // tests.
    let cluster = own_cluster(shared_cluster().await.installation()).await;
    let database = TestDatabase::create(&cluster).await;
    let writer = database.session().await;
    writer.batch_execute("BEGIN; CREATE TABLE held (id int)").await.unwrap();
    let mut connection = connect(database.url()).await;
    let options = SlotOptions { lock_timeout: Duration::from_millis(300), ..Default::default() };
    let error =
        within("the limit", LIMIT, connection.create_slot(database.name(), &options)).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("55P03"), ErrorClass::Transient));
    writer.batch_execute("ROLLBACK").await.unwrap();
    connection.create_slot(database.name(), &SlotOptions::default()).await.unwrap();
    assert_eq!(connection.show("lock_timeout").await.unwrap(), "0");
}

#[tokio::test]
async fn changes_stream_and_acknowledgements_reach_the_slot() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut stream = stream(&database, &ReplicationSettings::default()).await;
        let session = database.session().await;
        session.batch_execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i").await.unwrap();
        let (messages, end) = transaction(&mut stream).await;
        assert_eq!(inserts(&messages), 500);
        let feedback = stream.feedback();
        // Far above what was received: clamped, or changes would vanish. A keepalive may have told of the WAL of other tests.
        feedback.acknowledge(Lsn::MAX);
        let written = database.scalar("SELECT pg_current_wal_insert_lsn()").await.unwrap();
        let acknowledged = feedback.acknowledged();
        assert!((end..=written.parse().unwrap()).contains(&acknowledged), "{acknowledged} after {end}");
        let name = database.name();
        eventually("the slot's confirmed position", LIMIT, async || {
            let sql =
                format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'");
            let confirmed: Lsn = database.scalar(&sql).await?.parse().ok()?;
            (confirmed >= end).then_some(())
        })
        .await;
        session.batch_execute("INSERT INTO t VALUES (501, repeat('y', 3000000))").await.unwrap();
        let (messages, _) = transaction(&mut stream).await;
        assert_eq!(inserts(&messages), 1, "the change after it, larger than the buffer");
    })
    .await;
}

#[tokio::test]
async fn a_logical_message_and_a_keepalive_come_through() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut stream = stream(&database, &ReplicationSettings::default()).await;
    let session = database.session().await;
    session.batch_execute("SELECT pg_logical_emit_message(true, 'walcast.barrier', 'id')").await.unwrap();
    let (messages, _) = transaction(&mut stream).await;
    assert!(messages.iter().any(|message| matches!(message, Message::LogicalMessage(_))), "{messages:?}");
    // WAL without anything published: the server tells how far it has read.
    let before: Lsn = database.scalar("SELECT pg_current_wal_insert_lsn()").await.unwrap().parse().unwrap();
    session.batch_execute("CREATE TABLE other (id int)").await.unwrap();
    let mut frames = Vec::new();
    while !frames
        .iter()
        .any(|frame| matches!(frame, StreamFrame::Keepalive { wal_end, .. } if *wal_end > before))
    {
        within("a keepalive", LIMIT, stream.next(&mut frames)).await.unwrap();
    }
}

#[tokio::test]
async fn a_consumer_slower_than_the_timeout_keeps_its_connection() {
    for_each_version(async |cluster| {
        undisturbed(STILL_MAX, async || slower_than_the_timeout(cluster).await).await
    })
    .await;
}

async fn slower_than_the_timeout(cluster: &Cluster) {
    let database = TestDatabase::create(cluster).await;
    let timeout = Duration::from_secs(2);
    let settings = ReplicationSettings { wal_sender_timeout: timeout, ..Default::default() };
    let mut stream = stream(&database, &settings).await;
    let session = database.session().await;
    // More than fits into all buffers on the way, so that the server waits for us in mid-transaction.
    session
        .batch_execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 60000) i")
        .await
        .unwrap();
    // Not a synchronisation but the thing itself: reading nothing for longer than the server's patience.
    tokio::time::sleep(timeout * 3).await;
    let (messages, _) = transaction(&mut stream).await;
    assert_eq!(inserts(&messages), 60_000);
}

#[tokio::test]
async fn an_idle_connection_survives_the_timeout() {
    undisturbed(STILL_MAX, idle_for_longer_than_the_timeout).await;
}

async fn idle_for_longer_than_the_timeout() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let settings = ReplicationSettings { wal_sender_timeout: Duration::from_secs(1), ..Default::default() };
    let mut stream = stream(&database, &settings).await;
    let mut frames = Vec::new();
    // The end would come within this time; nothing else is to be seen.
    let reading = async { while stream.next(&mut frames).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(4), reading).await.is_err(), "the stream ended");
    database.session().await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(inserts(&transaction(&mut stream).await.0), 1);
}

#[tokio::test]
async fn dropping_the_reader_at_any_moment_loses_nothing() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut stream = stream(&database, &ReplicationSettings::default()).await;
    database
        .session()
        .await
        .batch_execute("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i")
        .await
        .unwrap();
    let (mut decoder, mut frames, mut count) = (Decoder::new(), Vec::new(), 0);
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        // Cut off again and again, mostly before anything has come.
        let _ = tokio::time::timeout(Duration::from_micros(50), stream.next(&mut frames)).await;
        let mut done = false;
        for frame in frames.drain(..) {
            let StreamFrame::XLogData { data, .. } = frame else { continue };
            match decoder.decode(data).unwrap() {
                Message::Insert(_) => count += 1,
                Message::Commit(_) => done = true,
                _ => {}
            }
        }
        if done {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {count} inserts came");
    }
    assert_eq!(count, 20_000);
}

#[tokio::test]
async fn a_slot_in_use_names_the_process_that_holds_it() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let first = stream(&database, &ReplicationSettings::default()).await;
    let second = connect(database.url()).await;
    let error = second.start(database.name(), Lsn::ZERO, &["p"]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("55006"), ErrorClass::Transient));
    assert!(error.to_string().contains(&format!("PID {}", first.process_id())), "{error}");
    let mut third = connect(database.url()).await;
    assert_eq!(third.drop_slot(database.name(), false).await.unwrap_err().sqlstate(), Some("55006"));
    drop(first);
    within("the slot", LIMIT, third.drop_slot(database.name(), true)).await.unwrap();
}

#[tokio::test]
async fn bytes_of_an_sql_ascii_database_do_not_stop_the_slot() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let admin = TestSession::connect(&cluster.url("postgres")).await;
    admin
        .batch_execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
        .await
        .unwrap();
    let session = TestSession::connect(&cluster.url("ascii")).await;
    session
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR ALL TABLES")
        .await
        .unwrap();
    let mut connection = connect(&cluster.url("ascii")).await;
    assert_eq!(connection.show("client_encoding").await.unwrap(), "SQL_ASCII");
    let created = connection.create_slot("ascii", &SlotOptions::default()).await.unwrap();
    let mut stream = connection.start("ascii", created.consistent_point, &["p"]).await.unwrap();
    session.batch_execute(r"INSERT INTO t VALUES (1, E'a\xff\xfeb')").await.unwrap();
    let (messages, _) = transaction(&mut stream).await;
    let text = format!("{messages:?}");
    assert_eq!(inserts(&messages), 1, "{text}");
}

#[tokio::test]
async fn without_privilege_or_logical_wal_the_reason_is_kept() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let role = format!("{}_r", database.name());
    database.session().await.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let settings = ReplicationSettings::default();
    let plain = config(database.url()).with_user(&role);
    let error = ReplicationConnection::connect(&plain, "walcast test", &settings).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("42501"), ErrorClass::Operator), "{error}");
    let cluster =
        walcast_testkit::cluster_builder(&installations().pop().unwrap()).setting("wal_level", "replica");
    let cluster = cluster.start().await.unwrap();
    let mut connection = connect(&cluster.url("postgres")).await;
    let error = connection.create_slot("s", &SlotOptions::default()).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("55000"), ErrorClass::Operator), "{error}");
}
