//! Subscriptions with a `where` hold exactly the rows for which Postgres says that it is true: after the initial sync, at
//! every moment after it, and when they come from history.

mod altered;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use walcast_model::Cursor;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, TestSession, for_each_version, shared_cluster, within};

use crate::observer::{Socket, open, receive, send, wal_position};

const TABLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE things (id int PRIMARY KEY, owner bigint, n numeric(20, 4), t text COLLATE \"C\", d date, ts timestamptz,
        b boolean, u uuid, tags text[], doc jsonb, m mood, f float8, big text);
    ALTER TABLE things REPLICA IDENTITY FULL";

/// Conditions of every form.
const CONDITIONS: [&str; 36] = [
    "owner = 1",
    "owner IN (2, 3)",
    "owner <> 1",
    "owner >= 2 AND owner < 4",
    "owner BETWEEN 1 AND 2 OR b",
    "NOT (owner = 1 AND b)",
    "owner IS NULL",
    "owner IS NOT NULL AND n IS NULL",
    "owner IS DISTINCT FROM 2",
    "owner IS NOT DISTINCT FROM NULL",
    "n > 0.5",
    "n <= -1 OR n = 12345.6789",
    "n = 10.50",
    "t = 'abc'",
    "t LIKE 'a%'",
    "t NOT LIKE '%c'",
    "t ILIKE 'AB_'",
    "t > 'ab' AND t <= 'b'",
    "t IN ('abc', '', 'a''b')",
    "d >= '2026-11-21'",
    "d BETWEEN '2026-01-01' AND '2026-12-31'",
    "ts < '2026-11-21 12:00:00+00'",
    "b",
    "NOT b",
    "b IS NOT TRUE",
    "u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "tags @> '{red}'",
    "'blue' = ANY (tags)",
    "doc ->> 'kind' = 'x'",
    "doc @> '{\"kind\": \"y\"}'",
    "m = 'happy'",
    "m > 'sad'",
    "f > 1.5 OR f = 'NaN'",
    "id <= 10",
    "id = 7 OR owner = 3 AND b",
    "false",
];

/// Values of each column, as SQL.
const VALUES: [(&str, &[&str]); 12] = [
    ("owner", &["1", "2", "3", "4", "NULL"]),
    ("n", &["0", "10.5", "-1", "12345.6789", "0.5001", "NULL"]),
    ("t", &["'abc'", "'ab'", "''", "'a''b'", "'ABC'", "'zc'", "NULL"]),
    ("d", &["'2026-11-21'", "'2025-12-31'", "'2026-11-20'", "'infinity'", "NULL"]),
    ("ts", &["'2026-11-21 11:59:59.999999+00'", "'2026-11-21 13:00+01'", "'-infinity'", "NULL"]),
    ("b", &["true", "false", "NULL"]),
    ("u", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000001'", "NULL"]),
    ("tags", &["'{red,blue}'", "'{}'", "'{blue,NULL}'", "'{green}'", "NULL"]),
    ("doc", &[r#"'{"kind":"x"}'"#, r#"'{"kind":"y","more":[1]}'"#, r#"'{"kind":null}'"#, "'null'", "NULL"]),
    ("m", &["'sad'", "'ok'", "'happy'", "NULL"]),
    ("f", &["1.5", "2", "'NaN'", "'-Infinity'", "NULL"]),
    ("big", &["repeat('x', 5000)", "NULL", "'small'"]),
];

/// One random statement.
fn statement(random: &mut StdRng) -> String {
    let id = random.random_range(1..=30);
    let value = |random: &mut StdRng, values: &[&str]| (*values.choose(random).expect("values")).to_owned();
    match random.random_range(0..20) {
        0..=6 => {
            let columns: Vec<&str> = VALUES.iter().map(|(column, _)| *column).collect();
            let values: Vec<String> = VALUES.iter().map(|(_, values)| value(random, values)).collect();
            format!(
                "INSERT INTO things (id, {}) VALUES ({id}, {}) ON CONFLICT (id) DO UPDATE SET owner = 2, b = NOT things.b",
                columns.join(", "),
                values.join(", ")
            )
        }
        7..=14 => {
            let (column, values) = VALUES.choose(random).expect("columns");
            let to = value(random, values);
            let span = random.random_range(0..4);
            format!("UPDATE things SET {column} = {to} WHERE id BETWEEN {id} AND {}", id + span)
        }
        15 => format!("UPDATE things SET id = id + 100 WHERE id = {id}"),
        16 => format!("UPDATE things SET id = id - 100 WHERE id = {}", id + 100),
        17 if random.random_ratio(1, 4) => "TRUNCATE things".to_owned(),
        _ => format!("DELETE FROM things WHERE id = {id}"),
    }
}

/// Some transactions of random statements; a statement that breaks a key takes its transaction back.
async fn write(session: &TestSession, random: &mut StdRng, transactions: usize) {
    for _ in 0..transactions {
        let statements: Vec<String> = (0..random.random_range(1..=4)).map(|_| statement(random)).collect();
        let all = format!("BEGIN; {}; COMMIT", statements.join("; "));
        if session.batch_execute(&all).await.is_err() {
            session.batch_execute("ROLLBACK").await.expect("a rollback");
        }
    }
}

/// The rows of each subscription, folded strictly: nothing comes twice, nothing goes that was not there.
#[derive(Default)]
struct Copies {
    rows: BTreeMap<String, BTreeMap<String, Value>>,
    /// Up to where each has everything.
    cursors: BTreeMap<String, Cursor>,
}

impl Copies {
    fn take(&mut self, message: &Value) {
        let Some(id) = message["id"].as_str() else { return };
        let rows = self.rows.entry(id.to_owned()).or_default();
        let condition = id.parse().ok().and_then(|index: usize| CONDITIONS.get(index));
        let told = || format!("{condition:?}: {message}");
        match message["type"].as_str() {
            Some("subscribed") if message["mode"] == "snapshot" => rows.clear(),
            Some("snapshot") => {
                for row in message["rows"].as_array().into_iter().flatten() {
                    assert!(rows.insert(row["id"].to_string(), row.clone()).is_none(), "{}", told());
                }
            }
            Some("transaction") => {
                for change in message["changes"].as_array().into_iter().flatten() {
                    let key = change["key"]["id"].to_string();
                    match change["op"].as_str() {
                        Some("insert") => {
                            let before = rows.insert(change["row"]["id"].to_string(), change["row"].clone());
                            assert!(before.is_none(), "inserted twice: {}", told());
                        }
                        Some("update") => {
                            assert!(rows.remove(&key).is_some(), "not there to be updated: {}", told());
                            rows.insert(change["row"]["id"].to_string(), change["row"].clone());
                        }
                        Some("delete") => {
                            assert!(rows.remove(&key).is_some(), "not there to be deleted: {}", told());
                        }
                        Some("truncate") => rows.clear(),
                        other => panic!("{other:?}"),
                    }
                }
            }
            Some("error") => panic!("{}", told()),
            _ => {}
        }
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursors.insert(id.to_owned(), cursor.parse().expect("a cursor"));
        }
    }

    /// Takes messages until every subscription has everything before `end`.
    async fn until(&mut self, socket: &mut Socket, end: Cursor) {
        loop {
            let have =
                |index: &usize| self.cursors.get(&index.to_string()).is_some_and(|cursor| *cursor >= end);
            if (0..CONDITIONS.len()).all(|index| have(&index)) {
                return;
            }
            let message = receive(socket).await.expect("the connection goes on");
            if message["type"] == "heartbeat"
                && let Some(cursor) = message["cursor"].as_str()
            {
                let cursor: Cursor = cursor.parse().expect("a cursor");
                self.cursors.values_mut().for_each(|known| *known = cursor.max(*known));
            }
            self.take(&message);
        }
    }

    async fn assert_equal(&self, session: &TestSession, what: &str) {
        for (index, condition) in CONDITIONS.iter().enumerate() {
            let sql = format!("SELECT to_jsonb(things)::text FROM things WHERE {condition}");
            let there = session.query(&sql, &[]).await.expect(condition);
            let there = there.iter().map(|row| {
                let row: Value = serde_json::from_str(row.get(0)).expect("a row");
                (row["id"].to_string(), row)
            });
            let there: BTreeMap<String, Value> = there.collect();
            let ours = self.rows.get(&index.to_string()).cloned().unwrap_or_default();
            assert_eq!(ours, there, "{what}: {condition}");
        }
    }
}

async fn subscribe(socket: &mut Socket, cursor: Option<Cursor>) {
    for (index, condition) in CONDITIONS.iter().enumerate() {
        let tables = json!([{"table": "public.things", "where": condition}]);
        let mut message = json!({"type": "subscribe", "id": index.to_string(), "tables": tables});
        if let Some(cursor) = cursor {
            message["cursor"] = json!(cursor.to_string());
        }
        send(socket, message).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_gives_the_rows_that_postgres_gives_from_the_sync_live_and_from_history() {
    for_each_version(async |cluster| {
        let seed = 20_261_127;
        let mut random = StdRng::seed_from_u64(seed);
        let database = TestDatabase::create(cluster).await;
        database.run(TABLE).await;
        let session = database.session().await;
        session.batch_execute("SET TimeZone = 'UTC'").await.expect("a setting");
        let mut daemon = Daemon::of(&database)
            .flag("--heartbeat", "200ms")
            .flag("--subscribes-per-second-max", 100_000)
            .flag("--messages-per-second-max", 100_000)
            .start()
            .await;
        let empty = wal_position(&database).await;
        // Something to sync, and writers meanwhile.
        write(&session, &mut random, 40).await;
        let (mut socket, _) = open(&daemon.ws_url()).await;
        subscribe(&mut socket, None).await;
        write(&session, &mut random, 40).await;
        let mut live = Copies::default();
        let end = wal_position(&database).await;
        live.until(&mut socket, end).await;
        live.assert_equal(&session, "after the initial sync").await;
        write(&session, &mut random, 120).await;
        let end = wal_position(&database).await;
        live.until(&mut socket, end).await;
        live.assert_equal(&session, "live").await;
        // From the beginning, when the table was empty: out of memory, and then all from history.
        for what in ["from memory", "from history"] {
            let (mut socket, _) = open(&daemon.ws_url()).await;
            subscribe(&mut socket, Some(empty)).await;
            let mut late = Copies::default();
            late.until(&mut socket, end).await;
            late.assert_equal(&session, what).await;
            daemon.terminate().await;
            daemon.restart().await;
        }
    })
    .await;
}

/// A label that is new, and a column, are found when a filter names them; a column that is dropped ends the filter.
#[tokio::test]
async fn filters_follow_the_table() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLE).await;
    database.run("CREATE TABLE plain (id int PRIMARY KEY, owner int)").await;
    let daemon = Daemon::of(&database)
        .flag("--heartbeat", "200ms")
        .flag("--subscribes-per-second-max", 100_000)
        .flag("--messages-per-second-max", 100_000)
        .start()
        .await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let subscribe = |id: &str, filter: &str| {
        let tables = json!([{"table": "public.things", "where": filter, "columns": ["m"]}]);
        json!({"type": "subscribe", "id": id, "tables": tables, "cursor": "latest"})
    };
    let until = async |socket: &mut Socket, id: &str, kind: &str| loop {
        let message = receive(socket).await.expect("the connection goes on");
        if message["id"] == id && (message["type"] == kind || message["type"] == "error") {
            return message;
        }
    };
    send(&mut socket, subscribe("old", "m <> 'sad'")).await;
    until(&mut socket, "old", "caught_up").await;
    send(&mut socket, subscribe("early", "m = 'elated'")).await;
    let refused = until(&mut socket, "early", "caught_up").await;
    assert_eq!(refused["code"], "bad_filter", "{refused}");
    database.run("ALTER TYPE mood ADD VALUE 'elated' AFTER 'happy'").await;
    send(&mut socket, subscribe("new", "m >= 'elated'")).await;
    until(&mut socket, "new", "caught_up").await;
    database.run("INSERT INTO things (id, m) VALUES (1, 'elated'), (2, 'sad'), (3, 'happy')").await;
    // In any order: they are two subscriptions.
    let mut told = BTreeMap::new();
    while told.len() < 2 {
        let message = receive(&mut socket).await.expect("the connection goes on");
        assert_ne!(message["type"], "error", "{message}");
        if message["type"] == "transaction" {
            let changes = message["changes"].as_array().expect("changes");
            let rows: Vec<Value> = changes.iter().map(|change| change["row"].clone()).collect();
            told.insert(message["id"].to_string(), rows);
        }
    }
    let (first, third) = (json!({"id": 1, "m": "elated"}), json!({"id": 3, "m": "happy"}));
    assert_eq!(told[r#""old""#], [first.clone(), third]);
    assert_eq!(told[r#""new""#], [first]);
    database.run("ALTER TABLE things ADD COLUMN extra int; UPDATE things SET extra = 5 WHERE id = 3").await;
    assert_eq!(until(&mut socket, "old", "transaction").await["changes"][0]["op"], "update");
    send(&mut socket, subscribe("extra", "extra = 5")).await;
    until(&mut socket, "extra", "caught_up").await;
    database.run("UPDATE things SET extra = 6 WHERE id = 3").await;
    assert_eq!(
        until(&mut socket, "extra", "transaction").await["changes"][0],
        json!({"op": "delete", "table": "public.things", "key": {"id": 3}})
    );
    database.run("ALTER TABLE things DROP COLUMN extra; UPDATE things SET b = true WHERE id = 3").await;
    let ended = until(&mut socket, "extra", "transaction").await;
    assert_eq!(ended["code"], "cursor_too_old", "{ended}");
    // The definition that it had a moment ago is trusted for two seconds.
    let refused = async {
        for attempt in 0.. {
            let id = format!("again {attempt}");
            send(&mut socket, subscribe(&id, "extra = 5")).await;
            let answer = until(&mut socket, &id, "caught_up").await;
            if answer["type"] == "error" {
                return answer;
            }
            send(&mut socket, json!({"type": "unsubscribe", "id": id})).await;
        }
        unreachable!("the attempts never end")
    };
    let refused = within("a filter on a column that is gone is refused", LIMIT, refused).await;
    assert_eq!(refused["code"], "bad_filter", "{refused}");
    // The identity is what a filter stands on.
    database.run("ALTER TABLE things REPLICA IDENTITY DEFAULT").await;
    send(&mut socket, json!({"type": "subscribe", "id": "identity", "tables": [{"table": "public.plain", "where": "owner = 1"}]})).await;
    let refused = until(&mut socket, "identity", "caught_up").await;
    assert_eq!(refused["code"], "identity_required", "{refused}");
    assert!(refused["hint"].as_str().expect("a hint").contains("REPLICA IDENTITY FULL"), "{refused}");
    send(&mut socket, subscribe("key", "id IN (1, 2)")).await;
    assert_eq!(until(&mut socket, "key", "caught_up").await["type"], "caught_up");
}

#[tokio::test]
async fn a_client_has_so_many_filters_that_no_index_finds_and_no_more() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLE).await;
    let daemon = Daemon::of(&database)
        .flag("--scans-per-user-max", 2)
        .flag("--subscribes-per-second-max", 1000)
        .start()
        .await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    for (id, condition, is_taken) in [
        ("a", "t LIKE '%a%'", true),
        ("b", "t LIKE '%b%'", true),
        ("c", "doc ->> 'kind' = 'x'", false),
        ("the same", "t LIKE '%a%'", true),
        ("found", "owner = 7 AND t LIKE '%c%'", true),
    ] {
        let entry = json!({"table": "public.things", "where": condition});
        send(&mut socket, json!({"type": "subscribe", "id": id, "tables": [entry]})).await;
        let told = loop {
            let message = within("an answer", LIMIT, receive(&mut socket)).await.expect("it goes on");
            if message["id"] == id && (message["type"] == "caught_up" || message["type"] == "error") {
                break message;
            }
        };
        assert_eq!(told["type"] == "caught_up", is_taken, "{told}");
        if !is_taken {
            assert_eq!(told["code"], "limit_exceeded");
            assert!(told["message"].as_str().is_some_and(|text| text.contains("scans_per_user_max")));
        }
    }
    assert_eq!(daemon.metric("walcast_filter_scans").await, Some(2.0));
    // What is given back may be had for another one.
    send(&mut socket, json!({"type": "unsubscribe", "id": "b"})).await;
    let entry = json!({"table": "public.things", "where": "doc ->> 'kind' IN ('x', 'y')"});
    send(&mut socket, json!({"type": "subscribe", "id": "d", "tables": [entry]})).await;
    loop {
        let message = within("an answer", LIMIT, receive(&mut socket)).await.expect("it goes on");
        assert_ne!(message["type"], "error", "{message}");
        if message["id"] == "d" && message["type"] == "caught_up" {
            return;
        }
    }
}
