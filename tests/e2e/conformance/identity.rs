//! Cases 52 and 54: a feed that cannot go on says so, and what begins after it is another one. Cases 66 and 70, servers
//! that are promoted or restored, are in `failover`.

use serde_json::{Value, json};
use walcast_model::Cursor;
use walcast_testkit::{Daemon, TestDatabase, cluster_builder, installations, run};

use super::trial::daemon_of;
use crate::observer::{Observer, open, receive, send};

/// `walcast setup --start-over --yes` for the daemon of a database.
fn start_over(database: &TestDatabase) {
    let (url, name) = (database.url(), database.slot_name());
    let output = run([
        "setup",
        "--start-over",
        "--yes",
        "--database-url",
        url,
        "--slot",
        &name,
        "--publication",
        &name,
    ]);
    assert!(output.status.success(), "{output:?}");
}

/// The id of the feed, and what a client gets that asks for one at a cursor.
async fn ask(daemon: &Daemon, feed: &Value, cursor: Cursor) -> Value {
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let message = json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}],
                         "feed": feed, "cursor": cursor.to_string()});
    send(&mut socket, message).await;
    loop {
        let message = receive(&mut socket).await.expect("an answer");
        if !matches!(message["type"].as_str(), Some("heartbeat" | "status" | "waiting" | "subscribed")) {
            return message;
        }
    }
}

/// The feed is at an end: a person starts it over, old clients are told, and new ones have what the table has.
async fn another_feed(database: &TestDatabase, daemon: &mut Daemon, feed: &Value, cursor: Cursor) -> Value {
    daemon.terminate().await;
    start_over(database);
    daemon.restart().await;
    let answer = ask(daemon, feed, cursor).await;
    assert_eq!(answer["code"], "feed_changed", "{answer}");
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    database.run("INSERT INTO t SELECT max(id) + 1 FROM t").await;
    observer.until_transactions(1).await;
    observer.assert_equals(database, "public.t").await;
    let (_, welcome) = open(&daemon.ws_url()).await;
    assert_ne!(&welcome["feed"], feed);
    welcome["feed"].clone()
}

#[tokio::test]
async fn case_52_54_a_feed_with_a_hole_stops_and_clients_are_told_before_and_after() {
    for installation in installations() {
        let builder = cluster_builder(&installation).setting("max_slot_wal_keep_size", "16MB");
        let cluster = builder.start().await.unwrap();
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        let mut daemon = daemon_of(&database).start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let (_, welcome) = open(&daemon.ws_url()).await;
        let feed = welcome["feed"].clone();
        let cursor = observer.cursor.expect("a cursor");

        // Case 52: the publication is gone for a while in which nobody looks.
        daemon.terminate().await;
        let name = database.slot_name();
        database.run(&format!("DROP PUBLICATION {name}")).await;
        database.run("INSERT INTO t VALUES (2)").await;
        database.run(&format!("CREATE PUBLICATION {name} FOR TABLE t")).await;
        database.run("INSERT INTO t VALUES (3)").await;
        daemon.restart_without_waiting();
        daemon.until_log("--start-over").await;
        assert_eq!(daemon.get("/readyz").await.map(|answer| answer.status), Some(503));
        let feed = another_feed(&database, &mut daemon, &feed, cursor).await;

        // Case 54: the WAL that the slot needs is removed while it streams.
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let cursor = observer.cursor.expect("a cursor");
        daemon.pause();
        let writer = database.session().await;
        for id in 100..105 {
            writer
                .batch_execute(&format!("INSERT INTO t VALUES ({id}); SELECT pg_switch_wal()"))
                .await
                .unwrap();
        }
        writer.batch_execute("CHECKPOINT").await.unwrap();
        let lost = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{name}'");
        database.until(&lost, "lost").await;
        daemon.resume();
        loop {
            let status = observer.until("status").await;
            if status["hint"].as_str().is_some_and(|hint| hint.contains("--start-over")) {
                assert_eq!(status["state"], "interrupted");
                break;
            }
        }
        another_feed(&database, &mut daemon, &feed, cursor).await;
    }
}
