//! Test databases on shared clusters of every version.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use walcast_testkit::{LIMIT, TestDatabase, TestSession, for_each_version, shared_cluster};

#[tokio::test]
async fn every_version_gives_a_database_ready_for_logical_decoding() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let version = database.scalar("SHOW server_version_num").await.unwrap();
        assert_eq!(version.parse::<u32>().unwrap() / 10_000, cluster.installation().version().major);
        assert_eq!(database.scalar("SHOW wal_level").await.as_deref(), Some("logical"));
        assert_eq!(database.scalar("SELECT current_database()").await.as_deref(), Some(database.name()));
        assert!(database.scalar("SHOW max_replication_slots").await.unwrap().parse::<u32>().unwrap() >= 50);
        assert!(database.scalar("SHOW max_wal_senders").await.unwrap().parse::<u32>().unwrap() >= 50);
        let socket = TestSession::connect(database.socket_url()).await;
        assert_eq!(socket.scalar("SELECT inet_client_addr() IS NULL").await.as_deref(), Some("t"));
        database.close().await;
    })
    .await;
}

async fn leave_things_behind(database: &TestDatabase) {
    let session = database.session().await;
    let slot = database.slot_name();
    session
        .batch_execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
        .await
        .unwrap();
    let role = database.unique("reader");
    session
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (); GRANT SELECT ON t TO {role}"))
        .await
        .unwrap();
    session
        .batch_execute(&format!(
            "BEGIN; CREATE TABLE p (); PREPARE TRANSACTION '{}'",
            database.unique("prepared")
        ))
        .await
        .unwrap();
}

async fn what_is_left_of(name: &str) -> Option<String> {
    let cluster = shared_cluster().await;
    let session = TestSession::connect(&cluster.url("postgres")).await;
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_database WHERE datname = '{name}')
              + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}')
              + (SELECT count(*) FROM pg_prepared_xacts WHERE database = '{name}')
              + (SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{name}_'))"
    );
    session.scalar(&sql).await
}

#[tokio::test]
async fn a_database_that_is_closed_takes_its_slots_roles_and_prepared_transactions_along() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let name = database.name().to_owned();
    leave_things_behind(&database).await;
    assert_eq!(what_is_left_of(&name).await.as_deref(), Some("4"));
    database.close().await;
    assert_eq!(what_is_left_of(&name).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_database_that_is_dropped_takes_everything_along_too() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let name = database.name().to_owned();
    leave_things_behind(&database).await;
    let busy = database.session().await;
    busy.batch_execute("BEGIN; SELECT 1").await.unwrap();
    drop(database);
    assert_eq!(what_is_left_of(&name).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_role_connects_under_its_own_name() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let role = database.unique("app");
    database.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let session = TestSession::connect(&database.url_as(&role)).await;
    assert_eq!(session.scalar("SELECT current_user").await, Some(role));
}

#[tokio::test]
async fn waiting_for_a_state_ends_when_it_is_there() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int)").await;
    let waiting = database.until("SELECT count(*) FROM t", "1");
    let (_, ()) = tokio::join!(waiting, database.run("INSERT INTO t VALUES (1)"));
    assert_eq!(LIMIT.as_secs(), 30);
}

#[tokio::test]
#[should_panic(expected = "did not come within 50ms: pigs that fly")]
async fn what_did_not_come_is_named() {
    walcast_testkit::eventually("pigs that fly", std::time::Duration::from_millis(50), async || None::<()>)
        .await;
}
