//! Keys without rows: live, from history and in the initial sync, and of no row that is not to be seen.

use serde_json::{Value, json};
use walcast_testkit::{Daemon, TestDatabase, for_each_version};

use crate::observer::{Socket, open, receive, send, wal_position};

async fn subscribe(daemon: &Daemon, cursor: &str, more: Value) -> Socket {
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let mut message = json!({"type": "subscribe", "id": "k", "cursor": cursor, "payload": "key",
                             "tables": [{"table": "public.t", "where": "v < 100"}, {"table": "public.f"}]});
    message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    send(&mut socket, message).await;
    socket
}

/// Changes up to this one, without the names of tables.
async fn changes(socket: &mut Socket, last: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    while all.last() != Some(last) {
        let message = receive(socket).await.expect("a message");
        assert_ne!(message["type"], "error", "{message}");
        for change in message["changes"].as_array().into_iter().flatten() {
            let mut change = change.clone();
            change.as_object_mut().expect("an object").remove("table");
            all.push(change);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_keys_is_told_which_rows_changed_and_nothing_of_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, v int, body text); ALTER TABLE t REPLICA IDENTITY FULL;
                 CREATE TABLE f (a int, b int, v int, PRIMARY KEY (a, b));
                 INSERT INTO t VALUES (1, 1, 'secret'), (2, 200, 'secret'); INSERT INTO f VALUES (1, 1, 1)",
            )
            .await;
        let daemon = Daemon::of(&database).flag("--feed-memory", "1MiB").start().await;
        let mut live = subscribe(&daemon, "0/0", json!({})).await;
        let mut rows = Vec::new();
        loop {
            let message = receive(&mut live).await.expect("a message");
            match message["type"].as_str() {
                Some("relation") => {
                    let columns = message["columns"].as_array().unwrap();
                    assert!(columns.iter().all(|column| column["key"] == true), "{message}");
                }
                Some("snapshot") => rows.extend(message["rows"].as_array().unwrap().clone()),
                Some("caught_up") => break,
                _ => {}
            }
        }
        rows.sort_by_key(ToString::to_string);
        assert_eq!(rows, [json!({"a": 1, "b": 1}), json!({"id": 1})]);
        let start = wal_position(&database).await.to_string();
        for statement in [
            "INSERT INTO t VALUES (3, 3, 'secret')",
            "UPDATE t SET body = 'x' WHERE id = 3",
            "UPDATE t SET id = 4 WHERE id = 3",
            // Never to be seen, comes into view, leaves it.
            "UPDATE t SET body = 'y' WHERE id = 2",
            "UPDATE t SET v = 2, id = 5 WHERE id = 2",
            "UPDATE t SET v = 300 WHERE id = 5",
            "DELETE FROM t WHERE id = 4",
            "UPDATE f SET v = 2",
            "UPDATE f SET b = 9",
            "TRUNCATE t",
            "DELETE FROM f",
        ] {
            database.run(statement).await;
        }
        let last = json!({"op": "delete", "key": {"a": 1, "b": 9}});
        let expected = vec![
            json!({"op": "insert", "key": {"id": 3}}),
            json!({"op": "update", "key": {"id": 3}}),
            json!({"op": "update", "key": {"id": 3}, "new_key": {"id": 4}}),
            json!({"op": "insert", "key": {"id": 5}}),
            json!({"op": "delete", "key": {"id": 5}}),
            json!({"op": "delete", "key": {"id": 4}}),
            json!({"op": "update", "key": {"a": 1, "b": 1}}),
            json!({"op": "update", "key": {"a": 1, "b": 1}, "new_key": {"a": 1, "b": 9}}),
            json!({"op": "truncate"}),
            last.clone(),
        ];
        assert_eq!(changes(&mut live, &last).await, expected);
        // Behind memory: from history, and what became of the rows.
        database.run("CREATE TABLE filler (id int PRIMARY KEY, body text)").await;
        for _ in 0..4 {
            database
                .run("INSERT INTO filler SELECT g, repeat('x', 1000) FROM generate_series(1, 1000) g")
                .await;
            database.run("DELETE FROM filler").await;
        }
        let mut behind = subscribe(&daemon, &start, json!({})).await;
        assert_eq!(changes(&mut behind, &last).await, expected);
        let mut latest = subscribe(&daemon, &start, json!({"catchup": "latest"})).await;
        for change in changes(&mut latest, &last).await {
            assert!(
                change["row"].is_null() && change["old"].is_null() && change["unchanged"].is_null(),
                "{change}"
            );
        }
        daemon.assert_quiet(&[]);
    })
    .await;
}
