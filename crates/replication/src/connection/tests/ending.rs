//! How streams end.

use walcast_model::Lsn;
use walcast_postgres::{Error, ErrorClass, Session};
use walcast_testkit::{
    Cluster, Direction, Proxy, StopMode, TestDatabase, eventually, for_each_version, installations,
    own_cluster, shared_cluster, within,
};

use super::{LIMIT, config, connect, inserts, stream, transaction};
use crate::connection::{ReplicationConnection, ReplicationSettings, ReplicationStream, StreamFrame};

/// Reads until the stream is over.
async fn end_of(stream: &mut ReplicationStream) -> Error {
    let mut frames = Vec::new();
    loop {
        match within("the end of the stream", LIMIT, stream.next(&mut frames)).await {
            Ok(()) => frames.clear(),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn the_connection_is_good_for_commands_after_copy_done_and_the_slot_for_the_next_stream() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut stream = stream(&database, &ReplicationSettings::default()).await;
        let session = database.session().await;
        session.batch_execute("INSERT INTO t SELECT i FROM generate_series(1, 5000) i").await.unwrap();
        let (_, end) = transaction(&mut stream).await;
        stream.feedback().acknowledge(end);
        session.batch_execute("INSERT INTO t VALUES (0)").await.unwrap();
        let mut connection = within("the end of the stream", LIMIT, stream.finish()).await.unwrap();
        let name = database.name();
        let slot = format!(
            "SELECT confirmed_flush_lsn, active FROM pg_replication_slots WHERE slot_name = '{name}'"
        );
        let rows = connection.query(&slot).await.unwrap();
        let confirmed: Lsn = rows[0][0].as_deref().unwrap().parse().unwrap();
        assert!(confirmed >= end, "the last acknowledgement goes out with CopyDone");
        assert_eq!(rows[0][1].as_deref(), Some("f"));
        assert!(connection.start(name, end, &["p"]).await.is_err(), "the server would end it at once");
        let mut stream = connect(database.url()).await.start(name, end, &["p"]).await.unwrap();
        assert_eq!(inserts(&transaction(&mut stream).await.0), 1);
    })
    .await;
}

#[tokio::test]
async fn a_terminated_walsender_ends_the_stream_for_good_with_57p01() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut stream = stream(&database, &ReplicationSettings::default()).await;
    let pid = stream.process_id();
    database.session().await.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    for _ in 0..3 {
        let error = end_of(&mut stream).await;
        assert_eq!(error.sqlstate(), Some("57P01"));
        assert!(error.is_shutting_down());
    }
    assert!(within("the refusal", LIMIT, stream.finish()).await.is_err());
}

/// Stops the server while `stream` is read and everything is acknowledged at once.
async fn end_at_stop(cluster: &Cluster, mut stream: ReplicationStream) -> Error {
    let feedback = stream.feedback();
    let reading = tokio::spawn(async move {
        let mut frames = Vec::new();
        loop {
            if let Err(error) = stream.next(&mut frames).await {
                return error;
            }
            for frame in frames.drain(..) {
                match frame {
                    StreamFrame::Keepalive { wal_end, .. } => feedback.acknowledge(wal_end),
                    StreamFrame::XLogData { start, .. } => feedback.acknowledge(start),
                    StreamFrame::Notice(_) => {}
                }
            }
        }
    });
    within("the stop", LIMIT, cluster.stop(StopMode::Fast)).await.unwrap();
    within("the end of the stream", LIMIT, reading).await.unwrap()
}

#[tokio::test]
async fn a_server_that_stops_ends_the_stream_at_once() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        let stream = stream(&database, &ReplicationSettings::default()).await;
        let error = end_at_stop(&cluster, stream).await;
        assert!(error.is_shutting_down(), "{error:?}");
        assert_eq!(error.class(), ErrorClass::Transient);
    }
}

#[tokio::test]
async fn a_consumer_that_cannot_acknowledge_learns_of_the_stop_from_its_session_and_lets_go() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let database = TestDatabase::create(&cluster).await;
    let mut stream = stream(&database, &ReplicationSettings::default()).await;
    let session = Session::connect(&config(database.url()), "walcast test").await.unwrap();
    database.session().await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    transaction(&mut stream).await;
    let closed = session.closed();
    let holding = tokio::spawn(async move {
        let reason = within("the session's end", LIMIT, closed).await.expect("a reason");
        assert!(reason.is_shutting_down(), "{reason}");
        // Without this the stop below would wait for ever.
        drop(stream);
    });
    within("the stop", LIMIT, cluster.stop(StopMode::Fast)).await.unwrap();
    holding.await.unwrap();
}

#[tokio::test]
async fn a_killed_server_ends_the_stream() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let database = TestDatabase::create(&cluster).await;
    let mut stream = stream(&database, &ReplicationSettings::default()).await;
    cluster.kill9().await.unwrap();
    let error = end_of(&mut stream).await;
    assert!(matches!(error, Error::Closed | Error::Io(_)), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_line_cut_anywhere_ends_the_stream_and_the_next_one_has_everything() {
    let cluster = shared_cluster().await;
    let database = TestDatabase::create(cluster).await;
    let first = stream(&database, &ReplicationSettings::default()).await;
    first.finish().await.unwrap().close().await.unwrap();
    database
        .session()
        .await
        .batch_execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i")
        .await
        .unwrap();
    let proxy = Proxy::to(cluster.port()).await;
    // In the login, in the answers to commands, in the middle of frames.
    for bytes in [1, 300, 420, 500, 777, 5_001, 20_011] {
        proxy.cut_after(Direction::ToClient, bytes);
        let settings = ReplicationSettings::default();
        let error = async {
            let config = config(&database.url_via(&proxy));
            let connection = ReplicationConnection::connect(&config, "walcast test", &settings).await?;
            let mut stream = connection.start(database.name(), Lsn::ZERO, &["p"]).await?;
            Ok(end_of(&mut stream).await)
        };
        let error = within("the cut", LIMIT, error).await.unwrap_or_else(|error: Error| error);
        assert_eq!(error.class(), ErrorClass::Transient, "{bytes}: {error:?}");
        proxy.heal();
    }
    let slot_is_free = async || {
        let sql = format!(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = '{}' AND NOT active",
            database.name()
        );
        database.scalar(&sql).await.map(|_| ())
    };
    eventually("the slot to be free", LIMIT, slot_is_free).await;
    let mut stream = connect(database.url()).await.start(database.name(), Lsn::ZERO, &["p"]).await.unwrap();
    assert_eq!(inserts(&transaction(&mut stream).await.0), 1000);
}
