//! What transactions say about themselves: told, stored, and not sent back to where they come from.

use serde_json::{Value, json};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, shared_cluster, within};

use crate::observer::{Socket, open, receive, send, wal_position};
use crate::rights::{SECRET, token};
use crate::upkeep::{lines, walcast};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

async fn subscribe(daemon: &Daemon, query: &str, more: Value) -> Socket {
    let (mut socket, _) = open(&format!("{}{query}", daemon.ws_url())).await;
    let mut message = json!({"type": "subscribe", "id": "t", "tables": [{"table": "public.t"}]});
    for (name, value) in more.as_object().expect("an object") {
        message[name] = value.clone();
    }
    send(&mut socket, message).await;
    socket
}

async fn until_caught_up(socket: &mut Socket) {
    while next(socket).await["type"] != "caught_up" {}
}

async fn next(socket: &mut Socket) -> Value {
    let message = within("a message", LIMIT, receive(socket)).await.expect("the connection goes on");
    assert_ne!(message["type"], "error", "{message}");
    message
}

/// Of the transactions up to the one with row `last`: for each message the ids of its changes, its `meta`, and whether more follows.
async fn told(socket: &mut Socket, last: i64) -> Vec<(Vec<i64>, Value, bool)> {
    let mut told = Vec::new();
    loop {
        let message = next(socket).await;
        if message["type"] != "transaction" {
            continue;
        }
        let changes = message["changes"].as_array().expect("changes");
        let ids: Vec<i64> = changes.iter().filter_map(|change| change["row"]["id"].as_i64()).collect();
        let is_last = ids.contains(&last);
        told.push((ids, message["meta"].clone(), message["more"] == true));
        if is_last {
            return told;
        }
    }
}

/// Transactions of two devices and of nobody.
const TRANSACTIONS: [&str; 9] = [
    r#"BEGIN; SELECT walcast.set_meta('{"origin": "phone", "user": "ann"}');
       INSERT INTO t VALUES (1, 'a'), (2, 'b'); COMMIT"#,
    r#"BEGIN; SELECT walcast.set_meta('{"origin": "laptop", "amount": 7.10}'); INSERT INTO t VALUES (3, 'c'); COMMIT"#,
    "INSERT INTO t VALUES (4, 'd')",
    r#"BEGIN; INSERT INTO t VALUES (5, 'e'); SELECT walcast.set_meta('{"origin": "phone"}'); INSERT INTO t VALUES (6, 'f');
       SELECT walcast.set_meta('{"why": "more"}'); SELECT walcast.set_meta('{"why": "enough"}');
       INSERT INTO t VALUES (7, 'g'); SELECT walcast.set_meta('{"why": "nothing follows"}'); COMMIT"#,
    r#"BEGIN; SELECT walcast.set_meta('{"origin": "phone"}'); COMMIT"#,
    r#"BEGIN; SAVEPOINT s; SELECT walcast.set_meta('{"why": "rolled back"}'); ROLLBACK TO s;
       INSERT INTO t VALUES (8, 'h'); COMMIT"#,
    r#"BEGIN; INSERT INTO t VALUES (9, 'i'); SELECT walcast.set_meta('{"origin": "phone"}');
       DELETE FROM t WHERE id = 9; COMMIT"#,
    r#"BEGIN; SELECT pg_logical_emit_message(true, 'walcast', E'{\n\t"why":\r\n"lines"}\n'); INSERT INTO t VALUES (10, 'j'); COMMIT"#,
    r#"BEGIN; SELECT walcast.set_meta('{"why": "before"}');
       SELECT pg_logical_emit_message(true, 'walcast', '[1]'), pg_logical_emit_message(false, 'walcast', '{"a":1}');
       INSERT INTO t VALUES (99, 'z'); COMMIT"#,
];

async fn write(database: &TestDatabase) {
    for transaction in TRANSACTIONS {
        database.run(transaction).await;
    }
}

fn expected() -> Vec<(Vec<i64>, Value, bool)> {
    let none = Value::Null;
    vec![
        (vec![1, 2], json!({"origin": "phone", "user": "ann"}), false),
        (vec![3], json!({"origin": "laptop", "amount": 7.10}), false),
        (vec![4], none.clone(), false),
        (vec![5], none.clone(), true),
        (vec![6], json!({"origin": "phone"}), true),
        (vec![7], json!({"why": "enough"}), false),
        (vec![8], none.clone(), false),
        (vec![9], none.clone(), true),
        (vec![], json!({"origin": "phone"}), false),
        (vec![10], json!({"why": "lines"}), false),
        (vec![99], none, false),
    ]
}

/// What a client is sent that is `phone`. A transaction that it has begun to receive ends for it too.
fn expected_by_the_phone() -> Vec<(Vec<i64>, Value, bool)> {
    let mut expected = expected();
    expected.retain(|(_, meta, _)| meta["origin"] != "phone");
    expected.insert(6, (vec![], Value::Null, false));
    expected
}

#[tokio::test]
async fn it_is_told_and_stored_and_nobody_hears_of_his_own_again() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLE).await;
        let mut daemon = Daemon::of(&database).start().await;
        let mut everybody = subscribe(&daemon, "", json!({})).await;
        let mut phone = subscribe(&daemon, "", json!({"origin": "phone"})).await;
        for socket in [&mut everybody, &mut phone] {
            until_caught_up(socket).await;
        }
        let start = wal_position(&database).await.to_string();
        write(&database).await;
        assert_eq!(told(&mut everybody, 99).await, expected());
        assert_eq!(told(&mut phone, 99).await, expected_by_the_phone());
        daemon.until_log("left out what a transaction says about itself").await;
        assert!(daemon.get("/metrics").await.is_some_and(|page| page.body.contains("reason=\"bad_meta\"} 1")));
        // From history, also from inside of a transaction.
        daemon.terminate().await;
        daemon.restart().await;
        let mut everybody = subscribe(&daemon, "", json!({"cursor": start})).await;
        assert_eq!(told(&mut everybody, 99).await, expected());
        let mut phone = subscribe(&daemon, "", json!({"cursor": start, "origin": "phone"})).await;
        assert_eq!(told(&mut phone, 99).await, expected_by_the_phone());
        let stored = database
            .scalar("SELECT string_agg((key->>'id') || coalesce(meta->>'origin', meta->>'why', '-'), ' ' ORDER BY lsn, seq) FROM walcast.changes")
            .await;
        assert_eq!(stored.unwrap_or_default(), "1phone 2phone 3laptop 4- 5- 6phone 7enough 8- 9- 9phone 10lines 99-");
        let replayed = lines(&walcast(&database, &["replay", "--json"]));
        let metas: Vec<Value> = replayed.iter().map(|line| line["meta"].clone()).collect();
        assert_eq!(metas, expected().into_iter().map(|(_, meta, _)| meta).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn an_initial_sync_lacks_nothing_of_ones_own() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLE).await;
    let daemon = Daemon::of(&database).start().await;
    // Written by the phone while it takes initial syncs, one after the other.
    let write = async {
        for id in 0..300 {
            let insert = format!(
                "BEGIN; SELECT walcast.set_meta('{{\"origin\": \"phone\"}}'); INSERT INTO t VALUES ({id}); COMMIT"
            );
            database.run(&insert).await;
        }
    };
    let sync = async {
        for _ in 0..20 {
            let mut phone = subscribe(&daemon, "", json!({"origin": "phone"})).await;
            let mut ids = std::collections::BTreeSet::new();
            let cursor = loop {
                let message = next(&mut phone).await;
                let rows = message["rows"].as_array().into_iter().flatten().map(|row| &row["id"]);
                let changes =
                    message["changes"].as_array().into_iter().flatten().map(|change| &change["row"]["id"]);
                ids.extend(rows.chain(changes).filter_map(Value::as_i64));
                if message["type"] == "snapshot_complete" {
                    break message["cursor"].as_str().expect("a cursor").to_owned();
                }
            };
            // Everything that the copy stands for by its cursor.
            let (lsn, _) = cursor.split_once(':').unwrap_or((&cursor, ""));
            let stored = format!(
                "SELECT string_agg(key->>'id', ' ' ORDER BY lsn) FROM walcast.changes WHERE lsn < '{lsn}'"
            );
            database.until(&format!("SELECT position_lsn >= '{lsn}' FROM walcast.feed"), "t").await;
            let stored = database.scalar(&stored).await.unwrap_or_default();
            let copy: Vec<String> = ids.iter().map(ToString::to_string).collect();
            assert_eq!(copy.join(" "), stored);
        }
    };
    tokio::join!(write, sync);
}

#[tokio::test]
async fn a_policy_says_who_is_told() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLE).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policies.toml");
    let policies = "[[policy]]\nrole = \"user\"\ntable = \"public.t\"\n[[policy]]\nrole = \"auditor\"\ntable = \"public.t\"\nmeta = true\n";
    std::fs::write(&path, policies).expect("a file");
    let daemon =
        Daemon::of(&database).flag("--jwt-secret", SECRET).flag("--policies", path.display()).start().await;
    let mut sockets = Vec::new();
    for role in ["user", "auditor"] {
        let query = format!("?token={}", token("ann", role));
        let mut socket = subscribe(&daemon, &query, json!({"origin": "laptop"})).await;
        until_caught_up(&mut socket).await;
        sockets.push(socket);
    }
    write(&database).await;
    let auditor = told(&mut sockets[1], 99).await;
    assert_eq!(auditor[0], (vec![1, 2], json!({"origin": "phone", "user": "ann"}), false));
    // Without a word of it, and yet without its own.
    let user = told(&mut sockets[0], 99).await;
    assert!(user.iter().all(|(_, meta, _)| meta.is_null()), "{user:?}");
    let ids =
        |told: &[(Vec<i64>, Value, bool)]| told.iter().flat_map(|(ids, ..)| ids.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&user), [1, 2, 4, 5, 6, 7, 8, 9, 10, 99]);
    assert_eq!(ids(&user), ids(&auditor));
}

#[tokio::test]
async fn what_is_no_object_or_too_long_is_refused_where_it_is_said() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLE).await;
    let _daemon = Daemon::of(&database).start().await;
    let session = database.session().await;
    for (meta, words) in [("[1]", "is a JSON object, not array"), ("\"x\"", "is a JSON object, not string")] {
        let error = session.batch_execute(&format!("SELECT walcast.set_meta('{meta}')")).await.unwrap_err();
        assert!(format!("{error:?}").contains(words), "{error:?}");
    }
    let long = "SELECT walcast.set_meta(jsonb_build_object('a', repeat('x', 9000)))";
    let error = session.batch_execute(long).await.unwrap_err();
    assert!(format!("{error:?}").contains("8192 are the most"), "{error:?}");
}
