//! A client that keeps what protocol.md says: rows, cursor and feed together, and sends the last two back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::observer::{open, receive, send};

/// A client of table `t`, between two connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) feed: Value,
    cursor: Option<String>,
    pub(super) ids: BTreeSet<i64>,
}

impl Client {
    /// A client that has everything that the table has now.
    pub(super) async fn sync(url: &str) -> Self {
        let mut client = Self { feed: Value::Null, cursor: None, ids: BTreeSet::new() };
        client.catch_up(url).await.expect("an initial sync");
        client
    }

    /// Where it is in the WAL.
    pub(super) fn lsn(&self) -> &str {
        let cursor = self.cursor.as_deref().expect("a cursor");
        cursor.split(':').next().expect("a position")
    }

    /// Connects, goes on where it was, and leaves when it has everything; or is told why it cannot, with the code.
    pub(super) async fn catch_up(&mut self, url: &str) -> Result<(), String> {
        let (mut socket, welcome) = open(url).await;
        let mut request = json!({"type": "subscribe", "id": "t", "tables": [{"table": "public.t"}]});
        if let Some(cursor) = &self.cursor {
            request["cursor"] = json!(cursor);
            request["feed"] = self.feed.clone();
        }
        send(&mut socket, request).await;
        loop {
            let message = receive(&mut socket).await.expect("the connection goes on");
            match message["type"].as_str().expect("a type") {
                "error" => return Err(message["code"].as_str().expect("a code").to_owned()),
                "subscribed" => {
                    let is_snapshot = message["mode"] == "snapshot";
                    assert_eq!(is_snapshot, self.cursor.is_none(), "a cursor is resumed at: {message}");
                    self.feed = welcome["feed"].clone();
                }
                "snapshot" => {
                    for row in message["rows"].as_array().expect("rows") {
                        assert!(self.ids.insert(id(row)), "twice: {row}");
                    }
                }
                "transaction" => self.apply(&message),
                "snapshot_complete" | "heartbeat" => self.store(&message),
                "caught_up" => {
                    self.store(&message);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, message: &Value) {
        for change in message["changes"].as_array().expect("changes") {
            match change["op"].as_str().expect("an op") {
                "insert" => assert!(self.ids.insert(id(&change["row"])), "twice: {change}"),
                "delete" => assert!(self.ids.remove(&id(&change["key"])), "not there: {change}"),
                "truncate" => self.ids.clear(),
                other => panic!("unexpected {other}"),
            }
        }
        self.store(message);
    }

    fn store(&mut self, message: &Value) {
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    /// What it has, in order.
    pub(super) fn ids(&self) -> Vec<i64> {
        self.ids.iter().copied().collect()
    }
}

fn id(row: &Value) -> i64 {
    row["id"].as_i64().expect("an id")
}
