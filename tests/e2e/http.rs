//! The feed over plain HTTP is the feed: pages, server-sent events and rows by key, against the real daemon.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use walcast_cluster::Cluster;
use walcast_model::Cursor;
use walcast_testkit::{
    Daemon, LIMIT, TestDatabase, for_each_version, installations, own_cluster, shared_cluster, within,
};

use crate::observer::{open, receive, send, wal_position};
use crate::rights::{SECRET, token};

/// Asks by HTTP/1.0, so that the answer comes as it is and ends with the connection.
pub(crate) async fn begin(daemon: &Daemon, line: &str, headers: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", daemon.port())).await.expect("a connection");
    let request = format!(
        "{line} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.expect("the request is written");
    socket
}

/// Status and body.
pub(crate) async fn ask(daemon: &Daemon, line: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut socket = begin(daemon, line, headers, body).await;
    let mut text = String::new();
    within("an answer", LIMIT, socket.read_to_string(&mut text)).await.expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn page(daemon: &Daemon, query: &str) -> Value {
    let (status, page) = ask(daemon, &format!("GET /v1/changes?{query}"), "", "").await;
    assert_eq!(status, 200, "{page}");
    page
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Server-sent events.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(daemon: &Daemon, query: &str, headers: &str) -> Self {
        let headers = format!("Accept: text/event-stream\r\n{headers}");
        let mut events =
            Self(BufReader::new(begin(daemon, &format!("GET /v1/changes?{query}"), &headers, "").await));
        let status = events.line().await;
        assert!(status.contains("200"), "{status}");
        while !events.line().await.is_empty() {}
        events
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line", LIMIT, self.0.read_line(&mut line)).await.expect("a line");
        assert!(read > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next event of this type: its id and its data.
    async fn until(&mut self, wanted: &str) -> (String, Value) {
        let (mut event, mut id) = (String::new(), String::new());
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some(("event", name)) => (event, id) = (name.to_owned(), String::new()),
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("data", data)) if event == wanted => {
                    return (id, serde_json::from_str(data).expect("JSON"));
                }
                _ => {}
            }
        }
    }
}

/// Everything that a WebSocket is told of the tables from a cursor on, up to another one.
async fn by_websocket(daemon: &Daemon, tables: &Value, from: &str, to: Cursor) -> Vec<Value> {
    let (mut socket, _) = open(&daemon.ws_url()).await;
    send(&mut socket, json!({"type": "subscribe", "id": "s", "tables": tables, "cursor": from})).await;
    let mut transactions = Vec::new();
    loop {
        let mut message = receive(&mut socket).await.expect("a message");
        match message["type"].as_str() {
            Some("transaction") => {
                let fields = message.as_object_mut().expect("an object");
                fields.remove("type");
                fields.remove("id");
                transactions.push(message);
            }
            Some("caught_up") => {
                assert!(text(&message["cursor"]).parse::<Cursor>().expect("a cursor") >= to);
                return transactions;
            }
            _ => {}
        }
    }
}

async fn pages_are_the_feed(cluster: &Cluster) {
    let database = TestDatabase::create(cluster).await;
    let session = database.session().await;
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, n numeric(10,2), t text); CREATE TABLE other (id int PRIMARY KEY);
                  ALTER TABLE orders REPLICA IDENTITY FULL";
    session.batch_execute(tables).await.expect("tables");
    let daemon =
        Daemon::of(&database).flag("--part-bytes", "2KiB").flag("--poll-bytes-max", "8KiB").start().await;
    let from = wal_position(&database).await.to_string();
    for n in 1..=40 {
        let statement = format!(
            "BEGIN; INSERT INTO orders VALUES ({n}, {n}.5, repeat('x', {n})); INSERT INTO other VALUES ({n});
             UPDATE orders SET n = n + 1 WHERE id = {n} / 2; DELETE FROM orders WHERE id = {n} - 7; COMMIT"
        );
        session.batch_execute(&statement).await.expect("a transaction");
    }
    // One that takes several pages by itself.
    let large = "INSERT INTO orders SELECT n, n, repeat('y', 100) FROM generate_series(1000, 1400) n";
    session.batch_execute(large).await.expect("a transaction");
    let to = wal_position(&database).await;
    for (query, entries) in [
        ("tables=public.orders,public.other", json!([{"table": "public.orders"}, {"table": "public.other"}])),
        (
            "tables=public.orders&where=n+%3E+20&columns=n",
            json!([{"table": "public.orders", "where": "n > 20", "columns": ["n"]}]),
        ),
    ] {
        let expected = by_websocket(&daemon, &entries, &from, to).await;
        let (mut cursor, mut found, mut pages, mut split) = (from.clone(), Vec::new(), 0, 0);
        loop {
            let page = page(&daemon, &format!("{query}&cursor={cursor}&limit=9")).await;
            let transactions = page["transactions"].as_array().expect("transactions").clone();
            assert!(transactions.len() <= 9 || transactions.iter().any(|one| one["more"] == true));
            if let Some(last) = transactions.last().filter(|last| last["more"] == true) {
                split += 1;
                assert_eq!(last["cursor"], page["cursor"], "the cursor is inside it");
            }
            found.extend(transactions);
            pages += 1;
            text(&page["cursor"]).clone_into(&mut cursor);
            if page["more"] == false {
                break;
            }
        }
        assert!(pages > 5 && split > 1, "{pages} pages, {split} inside a transaction");
        assert_eq!(found, expected);
        assert!(cursor.parse::<Cursor>().expect("a cursor") >= to);
    }
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn paging_through_a_history_gives_what_a_websocket_is_told() {
    for_each_version(pages_are_the_feed).await;
}

#[tokio::test]
async fn a_page_that_waits_comes_moments_after_a_commit() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database).start().await;
    let session = database.session().await;
    let mut cursor = text(&page(&daemon, "tables=public.t&cursor=latest").await["cursor"]);
    for id in 1..=3 {
        // Longer than anybody waits here for an answer.
        let query = format!("tables=public.t&cursor={cursor}&wait=50s");
        let (page, ()) = tokio::join!(page(&daemon, &query), async {
            daemon.until_metric("walcast_polls", 1.0).await;
            session.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.expect("a row");
        });
        assert_eq!(page["transactions"][0]["changes"][0]["row"]["id"], id, "{page}");
        text(&page["cursor"]).clone_into(&mut cursor);
    }
    // What was committed before a page was asked for is in it, without waiting.
    for id in 4..=20 {
        session.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.expect("a row");
        let page = page(&daemon, &format!("tables=public.t&cursor={cursor}")).await;
        assert_eq!(page["transactions"][0]["changes"][0]["row"]["id"], id, "{page}");
        text(&page["cursor"]).clone_into(&mut cursor);
    }
    let (status, error) = ask(&daemon, "GET /v1/changes?tables=public.t&cursor=7FFFFFFF/0", "", "").await;
    assert_eq!((status, &error["code"]), (409, &json!("cursor_ahead")), "{error}");
    let (status, error) = ask(&daemon, "GET /v1/changes?tables=public.t&cursor=0/1", "", "").await;
    assert_eq!((status, &error["code"]), (410, &json!("cursor_too_old")), "{error}");
    assert!(text(&error["oldest"]).parse::<Cursor>().is_ok());
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn events_go_on_after_a_cut_and_a_restart_where_the_last_one_was() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    let mut daemon = Daemon::of(&database).start().await;
    let mut events = Events::open(&daemon, "tables=public.t", "").await;
    let (id, subscribed) = events.until("subscribed").await;
    assert_eq!((id.as_str(), &subscribed["mode"]), ("0/0", &json!("snapshot")));
    assert_eq!(events.until("snapshot").await.1["rows"], json!([{"id": 1}, {"id": 2}]));
    let (mut last, complete) = events.until("snapshot_complete").await;
    assert!(last.ends_with(&format!("@{}", text(&complete["cursor"]))), "{last}");
    for id in 3..=20 {
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        let (next, transaction) = events.until("transaction").await;
        assert_eq!(transaction["changes"][0]["row"]["id"], id);
        last = next;
        if id % 5 == 0 {
            drop(events);
            if id == 10 {
                daemon.kill9().await;
                daemon.restart().await;
            }
            // The URL is the one of an initial sync, as a browser keeps it.
            events = Events::open(&daemon, "tables=public.t", &format!("Last-Event-ID: {last}\r\n")).await;
            assert_eq!(events.until("subscribed").await.0, last);
        }
    }
}

#[tokio::test]
async fn what_is_known_to_be_wrong_before_the_first_row_is_no_stream_of_events() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database
        .run(
            "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); ALTER TABLE t REPLICA IDENTITY FULL",
        )
        .await;
    let daemon = Daemon::of(&database).start().await;
    let is_refused = async |query: &str, headers: &str, expected: (u16, &str)| {
        let headers = format!("Accept: text/event-stream\r\n{headers}");
        let (status, error) = ask(&daemon, &format!("GET /v1/changes?{query}"), &headers, "").await;
        assert_eq!((status, error["code"].as_str()), (expected.0, Some(expected.1)), "{query}: {error}");
    };
    for table in ["nope", "scratch", "parts"] {
        is_refused(&format!("tables=public.{table}"), "", (404, "unknown_table")).await;
    }
    // Whether a row had matched before is not in the WAL of what was written under another identity.
    let query = "tables=public.t&where=n%20%3E%205";
    let mut events = Events::open(&daemon, &format!("{query}&cursor=latest"), "").await;
    let (id, _) = events.until("subscribed").await;
    drop(events);
    database.run("ALTER TABLE t REPLICA IDENTITY DEFAULT; INSERT INTO t VALUES (1, 9)").await;
    database.run("UPDATE t SET n = 1; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 7").await;
    is_refused(query, &format!("Last-Event-ID: {id}\r\n"), (410, "cursor_too_old")).await;
    // Nothing is to come here, and it is a stream all the same.
    Events::open(&daemon, "tables=public.t&cursor=latest", "").await.until("caught_up").await;
}

#[tokio::test]
async fn rows_by_key_are_given_as_far_as_the_policies_go() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database
        .run(
            "CREATE TYPE mood AS ENUM ('ok', 'sad');
             CREATE TABLE docs (id bigint PRIMARY KEY, owner text, secret text, n numeric(30, 2), d jsonb, m mood);
             ALTER TABLE docs REPLICA IDENTITY FULL;
             INSERT INTO docs VALUES (1, 'ada', 's1', 12345678901234567890.10, '{\"b\": 1, \"a\": 2}', 'sad'),
                 (2, 'bob', 's2', 2, null, null), (3, 'ada', E'tab\\there', null, '[]', 'ok');
             CREATE TABLE vault (id int PRIMARY KEY);
             CREATE TABLE pairs (a text, b varchar(4), v int, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES ('x', 'y', 7)",
        )
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policies.toml");
    let policies = "[[policy]]\nrole = 'app'\ntable = 'public.docs'\nwhere = 'owner = claims.sub'\n\
                    columns = ['owner', 'n', 'd', 'm']\n[[policy]]\nrole = 'app'\ntable = 'public.pairs'\n\
                    [[policy]]\nrole = 'admin'\ntable = '*'\n";
    std::fs::write(&path, policies).expect("a file");
    let daemon =
        Daemon::of(&database).flag("--policies", path.display()).flag("--jwt-secret", SECRET).start().await;
    let bearer = |role: &str| format!("Authorization: Bearer {}\r\n", token("ada", role));
    let (app, admin) = (bearer("app"), bearer("admin"));
    let rows = async |token: &str, body: &str| ask(&daemon, "POST /v1/rows", token, body).await;

    let body =
        r#"{"table":"public.docs","keys":[{"id":3},{"id":2},{"id":"1"},{"id":99},{"id":null},{"id":3}]}"#;
    let (status, answer) = rows(&app, body).await;
    assert_eq!(status, 200, "{answer}");
    let third = json!({"id": 3, "owner": "ada", "n": null, "d": [], "m": "ok"});
    // One that is not ours is as one that is not there.
    assert_eq!(answer["rows"][0], third);
    assert_eq!(answer["rows"][1], Value::Null);
    let first = r#"{"id":1,"owner":"ada","n":12345678901234567890.10,"d":{"a": 2, "b": 1},"m":"sad"}"#;
    assert_eq!(answer["rows"][2], serde_json::from_str::<Value>(first).expect("JSON"));
    assert_eq!(
        (&answer["rows"][3], &answer["rows"][4], &answer["rows"][5]),
        (&Value::Null, &Value::Null, &third)
    );
    let (cursor, reached): (Cursor, Cursor) = (
        text(&answer["cursor"]).parse().expect("a cursor"),
        text(&answer["reached"]).parse().expect("a cursor"),
    );
    assert!(cursor <= reached, "{answer}");

    for body in [
        r#"{"table":"public.vault","keys":[{"id":1}]}"#,
        r#"{"table":"public.nothing","keys":[{"id":1}]}"#,
        r#"{"table":"public.docs","keys":[{"id":1}],"columns":["secret"]}"#,
        r#"{"table":"public.docs","keys":[{"id":1}],"columns":["nothing"]}"#,
    ] {
        let (status, answer) = rows(&app, body).await;
        assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{body}: {answer}");
    }
    for (body, code, words) in [
        (r#"{"table":"public.docs","keys":[{"id":"x'; DROP TABLE docs; --"}]}"#, 400, "column's type"),
        (r#"{"table":"public.docs","keys":[{"owner":"ada"}]}"#, 400, "and the key of public.docs is id"),
        (
            r#"{"table":"public.docs","keys":[{"id":1,"owner":"ada"}]}"#,
            400,
            "and the key of public.docs is id",
        ),
        (r#"{"table":"public.docs"}"#, 400, "keys"),
        (r#"{"table":"public.nothing","keys":[]}"#, 404, "public.nothing"),
        (r#"{"table":"public.docs","keys":[],"columns":["nothing"]}"#, 400, "nothing"),
    ] {
        let (status, answer) = rows(&admin, body).await;
        assert!(status == code && text(&answer["message"]).contains(words), "{body}: {status} {answer}");
    }
    // The hint is what to write, and no word is of a WebSocket.
    let body = r#"{"table":"public.pairs","keys":[{"a":"x","b":"y"},{"A":"x"}]}"#;
    let (_, answer) = rows(&admin, body).await;
    let expected = json!({"code": "bad_message", "hint": r#"write each key as {"a": …, "b": …}"#,
        "message": "failed to look rows of public.pairs up by key: key 2 has A, and the key of public.pairs is a, b"});
    assert_eq!(answer, expected);
    let many: Vec<Value> = (0..1001).map(|id| json!({"id": id})).collect();
    let (status, answer) = rows(&admin, &json!({"table": "public.docs", "keys": many}).to_string()).await;
    assert_eq!((status, &answer["code"]), (400, &json!("limit_exceeded")), "{answer}");
    // A value that would be cut to fit is another one.
    let body =
        r#"{"table":"public.pairs","keys":[{"a":"x","b":"y"},{"a":"x","b":"yyyyyyy"},{"b":"y","a":"y"}]}"#;
    let (status, answer) = rows(&app, body).await;
    assert_eq!(
        (status, &answer["rows"]),
        (200, &json!([{"a": "x", "b": "y", "v": 7}, null, null])),
        "{answer}"
    );
    assert_eq!(ask(&daemon, "POST /v1/rows", "", body).await.0, 401);
    assert_eq!(database.scalar("SELECT count(*)::text FROM docs").await.as_deref(), Some("3"));
}

/// A transaction that is committed in the log and not seen by the rows is still to come from their cursor on.
#[tokio::test]
async fn a_stream_from_the_cursor_of_rows_misses_nothing_that_is_newer() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, n bigint); INSERT INTO t SELECT n, 0 FROM generate_series(1, 4) n").await;
    let daemon = Daemon::of(&database).flag("--requests-per-second-max", "1000").start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = Vec::new();
    for id in 1..=4 {
        let (session, stop) = (database.session().await, stop.clone());
        writers.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                session
                    .batch_execute(&format!("UPDATE t SET n = n + 1 WHERE id = {id}"))
                    .await
                    .expect("a write");
            }
        }));
    }
    let body = r#"{"table":"public.t","keys":[{"id":1},{"id":2},{"id":3},{"id":4}]}"#;
    let mut looked = Vec::new();
    for _ in 0..40 {
        let (status, answer) = ask(&daemon, "POST /v1/rows", "", body).await;
        assert_eq!(status, 200, "{answer}");
        looked.push(answer);
    }
    stop.cancel();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let from = text(&looked[0]["cursor"]);
    let to = wal_position(&database).await;
    let transactions = by_websocket(&daemon, &json!([{"table": "public.t"}]), &from, to).await;
    let written = |change: &Value| (change["row"]["id"].as_u64(), change["row"]["n"].as_u64());
    let log: Vec<(Cursor, Option<u64>, Option<u64>)> = transactions
        .iter()
        .map(|transaction| {
            let (id, n) = written(&transaction["changes"][0]);
            (text(&transaction["lsn"]).parse().expect("a position"), id, n)
        })
        .collect();
    for answer in &looked {
        let place = |name: &str| text(&answer[name]).parse::<Cursor>().expect("a cursor");
        let (cursor, reached) = (place("cursor"), place("reached"));
        for row in answer["rows"].as_array().expect("rows") {
            let (id, n) = (row["id"].as_u64(), row["n"].as_u64());
            for (at, of, value) in log.iter().filter(|(_, of, _)| *of == id) {
                assert!(
                    *value <= n || *at >= cursor,
                    "{of:?} became {value:?} at {at}, which {answer} lacks"
                );
                assert!(*value > n || *at < reached, "{of:?} became {value:?} at {at}, which {answer} has");
            }
        }
    }
}

#[tokio::test]
async fn a_commit_that_is_in_the_log_and_not_yet_seen_is_at_or_after_the_cursor_of_rows() {
    let installation = installations().pop().expect("at least one");
    let cluster = own_cluster(&installation).await;
    let database = TestDatabase::create(&cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)").await;
    let daemon = Daemon::of(&database).start().await;
    database.set_for_server("synchronous_standby_names", "nobody").await;
    let writer = database.session().await;
    let hanging = tokio::spawn(async move { writer.batch_execute("UPDATE t SET v = 1 WHERE id = 1").await });
    database.until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1").await;
    database.run("SET synchronous_commit = local; UPDATE t SET v = 2 WHERE id = 2").await;
    let body = r#"{"table":"public.t","keys":[{"id":1},{"id":2}]}"#;
    let (status, answer) = ask(&daemon, "POST /v1/rows", "", body).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([{"id": 1, "v": 0}, {"id": 2, "v": 2}])), "{answer}");
    let place = |name: &str| text(&answer[name]).parse::<Cursor>().expect("a cursor");
    assert!(place("cursor") < place("reached"), "{answer}");
    let transactions =
        by_websocket(&daemon, &json!([{"table": "public.t"}]), &text(&answer["cursor"]), place("reached"))
            .await;
    assert_eq!(transactions.first().expect("one")["changes"][0]["row"], json!({"id": 1, "v": 1}));
    database.set_for_server("synchronous_standby_names", "").await;
    within("the writer", LIMIT, hanging).await.expect("the writer").expect("a commit");
}

#[tokio::test]
async fn a_browser_is_told_which_pages_may_ask() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).flag("--allowed-origins", "https://app.example").start().await;
    for (origin, status) in [("https://app.example", "204"), ("https://evil.example", "403")] {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
        let mut socket = begin(&daemon, "OPTIONS /v1/rows", &headers, "").await;
        let mut answer = String::new();
        within("an answer", LIMIT, socket.read_to_string(&mut answer)).await.expect("an answer");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
        assert_eq!(answer.contains(&format!("access-control-allow-origin: {origin}")), status == "204");
        assert!(!answer.contains("allow-credentials"));
    }
}

#[tokio::test]
async fn who_does_not_read_its_events_costs_no_memory() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, x text)").await;
    let daemon =
        Daemon::of(&database).flag("--feed-memory", "4MiB").flag("--heartbeat", "500ms").start().await;
    // Warm: everything that grows once has grown.
    let fill = async |from: u32| {
        for n in 0..20 {
            let first = from + n * 1000;
            let rows = format!(
                "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series({first}, {}) n",
                first + 999
            );
            database.run(&rows).await;
        }
    };
    fill(0).await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().split(' ').next()?;
        line.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    };
    let before = resident();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut events = Events::open(&daemon, "tables=public.t&cursor=latest", "").await;
        events.until("caught_up").await;
        stalled.push(events);
    }
    fill(100_000).await;
    daemon.until_metric("walcast_event_streams", 20.0).await;
    if let (Some(before), Some(after)) = (before, resident()) {
        // 20 MB of rows for each of them; what waits for one is a batch, a frame and what the kernel has.
        let grown = after.saturating_sub(before) >> 20;
        assert!(grown < 120, "{grown} MiB more");
    }
    // And none of them has missed anything.
    for mut events in stalled.into_iter().take(2) {
        let mut ids = Vec::new();
        while ids.len() < 20_000 {
            let (_, transaction) = events.until("transaction").await;
            let changes = transaction["changes"].as_array().expect("changes");
            ids.extend(changes.iter().filter_map(|change| change["row"]["id"].as_u64()));
        }
        assert_eq!(ids, (100_000..120_000).collect::<Vec<_>>());
    }
}
