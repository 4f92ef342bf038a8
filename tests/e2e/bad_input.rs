//! What bad input gets: a clear error with a code, and the daemon and the other clients go on.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use walcast_testkit::{Daemon, TestDatabase, cluster_builder, installations, shared_cluster};

use crate::observer::{Observer, open, receive, send};

async fn error_for(url: &str, message: Value) -> Value {
    let (mut socket, _) = open(url).await;
    let asked = message.to_string();
    send(&mut socket, message).await;
    loop {
        let message = receive(&mut socket).await.expect("an answer");
        match message["type"].as_str() {
            Some("error") => return message,
            Some("heartbeat" | "status" | "waiting" | "subscribed") => {}
            _ => panic!("no error for {asked} but {message}"),
        }
    }
}

fn subscribe(table: &str, cursor: &str) -> Value {
    json!({"type": "subscribe", "id": "a", "tables": [{"table": table}], "cursor": cursor})
}

#[tokio::test]
async fn every_mistake_of_a_client_gets_its_code_and_harms_nobody_else() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database).start().await;
    let url = daemon.ws_url();
    let mut other = Observer::subscribe(&url, &["public.t"], None).await;
    other.until("caught_up").await;

    for (message, code) in [
        (subscribe("public.nothing", "0/0"), "unknown_table"),
        (subscribe("no_dot", "0/0"), "bad_message"),
        (subscribe("public.t", "yesterday"), "bad_message"),
        (subscribe("public.t", "FFFFFFFF/0"), "cursor_ahead"),
        (subscribe("public.t", "0/1"), "cursor_too_old"),
        (json!({"type": "dance"}), "bad_message"),
        (json!({"type": "subscribe"}), "bad_message"),
        (json!({"type": "subscribe", "id": "a", "tables": []}), "bad_message"),
        (json!([1, 2]), "bad_message"),
        (
            json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t", "columns": ["none"]}]}),
            "bad_message",
        ),
        (
            json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}], "cursor": "0/1", "feed": "another"}),
            "feed_changed",
        ),
        (json!({"type": "unsubscribe", "id": "never"}), "bad_message"),
    ] {
        let error = error_for(&url, message.clone()).await;
        assert_eq!(error["code"], code, "{message} got {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{error}");
    }

    // On one connection: malformed JSON, a binary frame and a second subscription with one id leave the first at work.
    let mut mine = Observer::subscribe(&url, &["public.t"], None).await;
    mine.until("caught_up").await;
    for frame in [Message::text("{not json"), Message::binary(vec![1, 2, 3])] {
        mine.socket().send(frame).await.unwrap();
        assert_eq!(mine.raw().await["code"], "bad_message");
    }
    let again = json!({"type": "subscribe", "id": "observed", "tables": [{"table": "public.t"}]});
    mine.socket().send(Message::text(again.to_string())).await.unwrap();
    assert_eq!(mine.raw().await["code"], "bad_message");
    database.run("INSERT INTO t VALUES (1)").await;
    mine.until_transactions(1).await;

    // A frame over the limit closes its own connection with 1009.
    let (mut socket, _) = open(&url).await;
    let _ = socket.send(Message::text("x".repeat(1 << 20))).await;
    assert_eq!(crate::observer::close_code(&mut socket).await, Some(1009));

    other.until_transactions(1).await;
    other.assert_equals(&database, "public.t").await;
}

/// Runs a daemon that must end by itself, and returns what it said.
async fn refused(builder: walcast_testkit::DaemonBuilder) -> String {
    let mut daemon = builder.spawn();
    let status = daemon.until_exit().await;
    assert!(!status.success(), "it ended well: {:?}", daemon.log());
    daemon.log().join("\n")
}

#[tokio::test]
async fn mistakes_in_the_configuration_end_the_daemon_with_what_to_do() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let said = refused(Daemon::of(&database).flag("--database-url", "postgres://h:notaport/x")).await;
    assert!(said.contains("--database-url"), "{said}");
    // All mistakes in one run.
    let said =
        refused(Daemon::of(&database).flag("--feed-memory", "lots").flag("--discover-interval", "soon"))
            .await;
    assert!(said.contains("--feed-memory") && said.contains("--discover-interval"), "{said}");
    let missing = database.url().replace(database.name(), "no_such_database");
    let said = refused(Daemon::of(&database).flag("--database-url", missing)).await;
    assert!(said.contains("no_such_database"), "{said}");
}

#[tokio::test]
async fn wal_level_replica_is_named_with_its_remedy() {
    let installation = installations().pop().expect("a Postgres");
    let cluster = cluster_builder(&installation).setting("wal_level", "replica").start().await.unwrap();
    let database = TestDatabase::create(&cluster).await;
    let said = refused(Daemon::of(&database)).await;
    assert!(said.contains("wal_level"), "{said}");
}

#[tokio::test]
async fn a_role_without_privileges_is_told_what_an_administrator_must_run() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let role = database.unique("plain");
    database.run(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY)")).await;
    let said = refused(Daemon::of(&database).flag("--database-url", database.url_as(&role))).await;
    assert!(said.contains("REPLICATION") && said.contains("CREATE SCHEMA"), "{said}");
    database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_slot_in_use_is_waited_for_and_taken_over_when_it_is_free() {
    // Case 55.
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut first = Daemon::of(&database).start().await;
    let second = Daemon::of(&database).spawn();
    second.until_log("in use").await;
    assert_ne!(second.get("/readyz").await.map(|answer| answer.status), Some(200));
    database.run("INSERT INTO t VALUES (1)").await;
    first.kill9().await;
    second.until_ready().await;
    let mut observer = Observer::subscribe(&second.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    observer.assert_equals(&database, "public.t").await;
}

#[tokio::test]
async fn a_slot_that_is_gone_is_never_continued_over() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).start().await;
    daemon.terminate().await;
    database.drop_slot(&database.slot_name()).await;
    database.run("INSERT INTO t VALUES (1)").await;
    let said = refused(Daemon::of(&database)).await;
    assert!(said.contains("--start-over"), "{said}");
}
