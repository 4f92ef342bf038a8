//! What a session is like, whatever the database says.

use std::time::Duration;

use futures_util::FutureExt;
use walcast_postgres::{Pool, Session};
use walcast_testkit::{TestDatabase, TestSession, for_each_version, shared_cluster, within};

use crate::{config, connect};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn settings_are_pinned_against_the_database() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let name = database.name();
        let mut statements = String::new();
        for setting in [
            "DateStyle = 'German, DMY'",
            "IntervalStyle = 'iso_8601'",
            "TimeZone = 'Asia/Tokyo'",
            "bytea_output = 'escape'",
            "extra_float_digits = '-5'",
            "statement_timeout = '1h'",
            "lock_timeout = '1h'",
            "idle_in_transaction_session_timeout = '1h'",
            "idle_session_timeout = '1h'",
            "search_path = 'evil'",
        ] {
            statements.push_str(&format!("ALTER DATABASE {name} SET {setting};"));
        }
        database.session().await.batch_execute(&statements).await.unwrap();
        let session = connect(database.url()).await.unwrap();
        let number: String = session.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
        assert_eq!(session.server_version().to_string(), number);
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        assert_eq!(session.process_id(), pid);
        for (setting, value) in [
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "3"),
            ("search_path", "pg_catalog"),
            ("client_encoding", "UTF8"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("idle_session_timeout", "0"),
            ("application_name", "walcast test"),
        ] {
            let found: String = session.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
            assert_eq!(found, value, "{setting}");
        }
    })
    .await;
}

#[tokio::test]
async fn text_of_an_sql_ascii_database_arrives_as_it_is() {
    let options = "ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'";
    let database = TestDatabase::create_as(shared_cluster().await, options).await;
    let session = connect(database.url()).await.unwrap();
    assert!(session.is_sql_ascii());
    session.batch_execute(r"CREATE TEMP TABLE t AS SELECT E'a\xff\xfeb' AS v").await.unwrap();
    let row = session.query_one("SELECT v FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, Raw>(0).0, b"a\xff\xfeb");
    assert!(row.try_get::<_, String>(0).is_err());
    // The connection is as good as before.
    let row = session.query_one("SELECT 'ä'", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "ä");
    drop(session);
    database.close().await;
}

/// A value's bytes.
struct Raw(Vec<u8>);

impl<'a> tokio_postgres::types::FromSql<'a> for Raw {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &tokio_postgres::types::Type) -> bool {
        true
    }
}

#[tokio::test]
async fn a_server_error_keeps_what_the_server_said() {
    let session = connect(&shared_cluster().await.url("postgres")).await.unwrap();
    let statement =
        "DO $$ BEGIN RAISE EXCEPTION 'm' USING DETAIL = 'd', HINT = 'h', ERRCODE = '55000'; END $$";
    let error = walcast_postgres::Error::from(session.batch_execute(statement).await.unwrap_err());
    let server = error.server_error().unwrap();
    assert_eq!((server.message.as_str(), server.sqlstate.as_str()), ("m", "55000"));
    assert_eq!((server.detail.as_deref(), server.hint.as_deref()), (Some("d"), Some("h")));
    assert_eq!(server.severity, "ERROR");
}

#[tokio::test]
async fn copy_and_large_results_pass_through_a_session_that_was_logged_in_by_us() {
    let session = connect(&shared_cluster().await.url("postgres")).await.unwrap();
    let rows = session.query("SELECT repeat('x', 10000) FROM generate_series(1, 1000)", &[]).await.unwrap();
    assert_eq!(rows.len(), 1000);
}

#[tokio::test]
async fn a_dropped_session_ends_at_the_server() {
    let cluster = shared_cluster().await;
    let watcher = TestSession::connect(&cluster.url("postgres")).await;
    let session = connect(&cluster.url("postgres")).await.unwrap();
    let pid = session.process_id();
    drop(session);
    walcast_testkit::eventually("the end of the session", LIMIT, async || {
        let alive = watcher.scalar(&format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid}")).await;
        alive.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_lends_no_more_than_its_size_and_lends_the_same_session_again() {
    let pool = Pool::new(config(&shared_cluster().await.url("postgres")), "pool", 2);
    let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert!(pool.get().now_or_never().is_none(), "a third session");
    let (waiting_pool, pid) = (pool.clone(), first.process_id());
    let waiting = tokio::spawn(async move { waiting_pool.get().await.unwrap().process_id() });
    drop(first);
    assert_eq!(within("a place", LIMIT, waiting).await.unwrap(), pid);
    second.discard();
    pool.close();
    assert!(matches!(pool.get().await, Err(walcast_postgres::Error::PoolClosed)));
}

#[tokio::test]
async fn a_pool_throws_a_broken_session_away() {
    let cluster = shared_cluster().await;
    let pool = Pool::new(config(&cluster.url("postgres")), "pool", 1);
    let session = pool.get().await.unwrap();
    let (pid, closed) = (session.process_id(), session.closed());
    drop(session);
    let killer = Session::connect(&config(&cluster.url("postgres")), "killer").await.unwrap();
    killer.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    within("the end of the session", LIMIT, closed).await;
    let session = pool.get().await.unwrap();
    assert_ne!(session.process_id(), pid);
    session.query_one("SELECT 1", &[]).await.unwrap();
}
