//! A client that believes nothing: it folds the feed into copies of the tables, over a plain WebSocket and not over
//! the SDK, and checks at every message what protocol.md promises of it.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use walcast_model::{Cursor, Lsn};
use walcast_testkit::{LIMIT, TestDatabase, within};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a connection and takes the `welcome`.
pub(crate) async fn open(url: &str) -> (Socket, Value) {
    let (mut socket, _) =
        Box::pin(tokio_tungstenite::connect_async(url)).await.expect("the daemon accepts a WebSocket");
    let welcome = receive(&mut socket).await.expect("a welcome");
    assert_eq!(welcome["type"], "welcome");
    (socket, welcome)
}

/// The next message; `None` when the connection ended.
pub(crate) async fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        match within("the next message of the daemon", LIMIT, socket.next()).await {
            Some(Ok(Message::Text(text))) => {
                return Some(serde_json::from_str(&text).expect("a JSON message"));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_) | Err(_)) | None => return None,
        }
    }
}

/// Reads to the end of a connection, and returns the code it was closed with.
pub(crate) async fn close_code(socket: &mut Socket) -> Option<u16> {
    loop {
        match within("the end of the connection", LIMIT, socket.next()).await {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

pub(crate) async fn send(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.expect("the daemon reads");
}

/// One transaction as it was delivered, its parts joined.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) lsn: Lsn,
    pub(crate) xid: String,
    /// The cursor after it; none before `snapshot_complete`.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) changes: Vec<Value>,
    /// Messages it came in.
    pub(crate) parts: usize,
}

/// Copies of tables: table -> key as JSON text -> row.
pub(crate) type Tables = BTreeMap<String, BTreeMap<String, Value>>;

/// A subscription under observation.
pub(crate) struct Observer {
    // Boxed: it is large, and observers are moved about.
    socket: Box<Socket>,
    pub(crate) tables: Tables,
    /// What a client would have stored.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) transactions: Vec<Delivered>,
    /// The kinds of messages about the subscription, in order.
    pub(crate) kinds: Vec<String>,
    pub(crate) subscribed: Option<Value>,
    keys: BTreeMap<String, Vec<String>>,
    open: Option<Delivered>,
    last_lsn: Option<Lsn>,
}

impl Observer {
    /// Subscribes to `tables`, from `cursor` or with an initial sync.
    pub(crate) async fn subscribe(url: &str, tables: &[&str], cursor: Option<Cursor>) -> Self {
        let mut observer = Self::resume(url, Tables::new(), cursor).await;
        let tables: Vec<Value> = tables.iter().map(|table| json!({ "table": table })).collect();
        let mut message = json!({ "type": "subscribe", "id": "observed", "tables": tables });
        if let Some(cursor) = cursor {
            message["cursor"] = json!(cursor.to_string());
        }
        send(&mut observer.socket, message).await;
        observer
    }

    async fn resume(url: &str, tables: Tables, cursor: Option<Cursor>) -> Self {
        let (socket, _) = open(url).await;
        Self {
            socket: Box::new(socket),
            tables,
            cursor,
            transactions: Vec::new(),
            kinds: Vec::new(),
            subscribed: None,
            keys: BTreeMap::new(),
            open: None,
            last_lsn: None,
        }
    }

    /// Connects again and goes on where the last stored cursor is, with the copies as they were then.
    pub(crate) async fn reconnect(self, url: &str, tables: &[&str]) -> Self {
        let cursor = self.cursor;
        let mut next = Self::subscribe(url, tables, cursor).await;
        if cursor.is_some() {
            next.tables = self.tables;
            next.transactions = self.transactions;
            next.last_lsn = next.transactions.last().map(|delivered| delivered.lsn);
        }
        next
    }

    /// Takes one message and checks it; `None` when the connection ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let message = receive(&mut self.socket).await?;
        let kind = message["type"].as_str().expect("a type").to_owned();
        match kind.as_str() {
            "heartbeat" => {
                if let Some(cursor) = message.get("cursor") {
                    assert!(
                        self.open.is_none(),
                        "a cursor to store in the middle of a transaction: {message}"
                    );
                    assert!(
                        self.cursor.is_none_or(|stored| stored <= parse(cursor)),
                        "it leads back: {message}"
                    );
                    self.store(cursor);
                }
                return Some(message);
            }
            "subscribed" => self.on_subscribed(&message),
            "relation" => self.on_relation(&message),
            "snapshot" => self.on_snapshot(&message),
            "transaction" => self.on_transaction(&message),
            "snapshot_complete" => self.store(&message["cursor"]),
            "caught_up" | "waiting" => {
                assert!(self.open.is_none(), "in the middle of a transaction: {message}");
            }
            "status" => {}
            "error" => panic!("the daemon refused: {message}"),
            other => panic!("unexpected {other}: {message}"),
        }
        if kind != "status" {
            self.kinds.push(kind);
        }
        Some(message)
    }

    /// Takes messages up to and with the first of this kind.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("the connection ended before a {kind}"));
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Takes messages until a transaction that ends after `position` was delivered.
    pub(crate) async fn until_after(&mut self, position: Cursor) {
        while self.cursor.is_none_or(|cursor| cursor <= position) {
            self.next().await.unwrap_or_else(|| panic!("the connection ended before {position}"));
        }
    }

    /// Takes messages until `count` transactions were delivered in all.
    pub(crate) async fn until_transactions(&mut self, count: usize) {
        while self.transactions.len() < count {
            let seen = self.transactions.len();
            self.next()
                .await
                .unwrap_or_else(|| panic!("the connection ended after {seen} of {count} transactions"));
        }
    }

    fn on_subscribed(&mut self, message: &Value) {
        if message["mode"] == "snapshot" {
            // Also said when an initial sync starts over: what came of it is void.
            self.tables.clear();
            self.transactions.clear();
            self.cursor = None;
            self.last_lsn = None;
        }
        self.subscribed = Some(message.clone());
    }

    fn on_relation(&mut self, message: &Value) {
        let table = message["table"].as_str().expect("a table").to_owned();
        let columns = message["columns"].as_array().expect("columns");
        let keys = columns.iter().filter(|column| column["key"] == true);
        let names = keys.map(|column| column["name"].as_str().expect("a name").to_owned());
        self.keys.insert(table, names.collect());
    }

    fn key_of(&self, table: &str, row: &Value) -> String {
        let names = self.keys.get(table).unwrap_or_else(|| panic!("rows of {table} before its relation"));
        if names.is_empty() {
            return row.to_string();
        }
        let key: BTreeMap<&str, &Value> = names.iter().map(|name| (name.as_str(), &row[name])).collect();
        json!(key).to_string()
    }

    fn on_snapshot(&mut self, message: &Value) {
        assert!(self.cursor.is_none(), "snapshot rows after a cursor to store");
        let table = message["table"].as_str().expect("a table").to_owned();
        for row in message["rows"].as_array().expect("rows") {
            let key = self.key_of(&table, row);
            let before = self.tables.entry(table.clone()).or_default().insert(key, row.clone());
            assert!(before.is_none(), "a row came twice in the snapshot: {row}");
        }
    }

    fn on_transaction(&mut self, message: &Value) {
        let lsn: Lsn = message["lsn"].as_str().expect("an lsn").parse().expect("an lsn");
        let xid = message["xid"].to_string();
        let changes = message["changes"].as_array().expect("changes").clone();
        assert!(!changes.is_empty(), "an empty transaction: {message}");
        let mut delivered = self.open.take().unwrap_or_else(|| {
            assert!(self.last_lsn.is_none_or(|last| last < lsn), "{lsn} after {:?}", self.last_lsn);
            Delivered { lsn, xid: xid.clone(), cursor: None, changes: Vec::new(), parts: 0 }
        });
        assert_eq!((delivered.lsn, &delivered.xid), (lsn, &xid), "parts of two transactions are mixed");
        delivered.changes.extend(changes);
        delivered.parts += 1;
        delivered.cursor = message.get("cursor").map(parse);
        if let (Some(before), Some(after)) = (self.cursor, delivered.cursor) {
            assert!(before < after, "the cursor went from {before} to {after}");
        }
        if message["more"] == true {
            self.open = Some(delivered);
            return;
        }
        for change in &delivered.changes.clone() {
            self.apply(change);
        }
        self.last_lsn = Some(lsn);
        self.cursor = delivered.cursor.or(self.cursor);
        self.transactions.push(delivered);
    }

    fn store(&mut self, cursor: &Value) {
        self.cursor = Some(parse(cursor));
    }

    fn apply(&mut self, change: &Value) {
        let name = change["table"].as_str().expect("a table").to_owned();
        let op = change["op"].as_str().expect("an op");
        if op == "truncate" {
            self.tables.entry(name).or_default().clear();
            return;
        }
        let old_key = change.get("key").map(|key| {
            let sorted: BTreeMap<String, Value> = serde_json::from_value(key.clone()).expect("a key object");
            json!(sorted).to_string()
        });
        let old_key = old_key.or_else(|| change.get("old").map(Value::to_string));
        let new_key = change.get("row").map(|row| self.key_of(&name, row));
        let table = self.tables.entry(name).or_default();
        match op {
            "insert" => {
                let before = table.insert(new_key.expect("a row"), change["row"].clone());
                assert!(before.is_none(), "inserted twice: {change}");
            }
            "update" => {
                let before = table.remove(&old_key.expect("a key"));
                let mut row =
                    before.unwrap_or_else(|| panic!("an update of a row that is not there: {change}"));
                let new = change["row"].as_object().expect("a row");
                let fields = row.as_object_mut().expect("a row");
                fields.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
                let key = new_key.expect("a row");
                assert!(table.insert(key, row).is_none(), "an update onto another row: {change}");
            }
            "delete" => {
                let before = table.remove(&old_key.expect("a key"));
                assert!(before.is_some(), "a delete of a row that is not there: {change}");
            }
            other => panic!("unknown op {other}"),
        }
    }

    /// The rows of a table, in the order of their JSON.
    pub(crate) fn rows(&self, table: &str) -> Vec<Value> {
        sorted(self.tables.get(table).into_iter().flat_map(|rows| rows.values().cloned()).collect())
    }

    /// Panics unless the copy equals what the server has now.
    pub(crate) async fn assert_equals(&self, database: &TestDatabase, table: &str) {
        let here = self.rows(table);
        let there = server_rows(database, table).await;
        if here == there {
            return;
        }
        let missing: Vec<_> = there.iter().filter(|row| !here.contains(row)).take(3).collect();
        let extra: Vec<_> = here.iter().filter(|row| !there.contains(row)).take(3).collect();
        panic!(
            "{table}: {} rows here, {} on the server; missing {missing:?}, extra {extra:?}",
            here.len(),
            there.len()
        );
    }

    /// The next message that is no heartbeat, unchecked and not applied.
    pub(crate) async fn raw(&mut self) -> Value {
        loop {
            let message = receive(&mut self.socket).await.expect("the connection goes on");
            if message["type"] != "heartbeat" {
                return message;
            }
        }
    }

    /// Takes messages until `count` heartbeats came.
    pub(crate) async fn until_heartbeats(&mut self, count: usize) {
        for _ in 0..count {
            while self.next().await.expect("a message")["type"] != "heartbeat" {}
        }
    }

    /// Reads to the end of the connection, and returns the code it was closed with.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        close_code(&mut self.socket).await
    }

    /// For messages of the test's own.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

fn parse(cursor: &Value) -> Cursor {
    cursor.as_str().expect("a cursor").parse().expect("a cursor")
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(Value::to_string);
    rows
}

/// What the server has in `table` now, as `to_jsonb` prints it.
pub(crate) async fn server_rows(database: &TestDatabase, table: &str) -> Vec<Value> {
    let session = database.session().await;
    session.batch_execute("SET TimeZone = 'UTC'; SET extra_float_digits = 3").await.expect("settings");
    let sql = format!("SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')::text FROM ONLY {table} AS t");
    let text = session.scalar(&sql).await.expect("an aggregate");
    sorted(serde_json::from_str(&text).expect("rows"))
}

/// Where the WAL is now.
pub(crate) async fn wal_position(database: &TestDatabase) -> Cursor {
    let text = database.scalar("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    text.parse().expect("a position")
}
