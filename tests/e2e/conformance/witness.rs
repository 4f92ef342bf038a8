//! A client that writes down what it is told, value for value as the text that came.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use walcast_model::{Cursor, Lsn};
use walcast_testkit::{LIMIT, within};

use crate::observer::{Socket, open, send};

type Fields = BTreeMap<String, Box<RawValue>>;

/// One thing that a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// `public.t: id integer key, v text`, and `(full)` or another identity than the default.
    Relation(String),
    /// A row of an initial sync.
    Row(String),
    /// `update public.t key {…} row {…} old {…} unchanged […]`.
    Change { lsn: Lsn, seq: i64, text: String },
    /// The end of a transaction, and the cursor to store.
    Commit { lsn: Lsn, cursor: Cursor },
}

impl Told {
    /// As it stands in the cases: `relation …`, the change, `commit`.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Relation(text) => format!("relation {text}"),
            Self::Row(text) => format!("row {text}"),
            Self::Change { text, .. } => text.clone(),
            Self::Commit { .. } => "commit".to_owned(),
        }
    }
}

/// A subscription and everything that it was told.
pub(crate) struct Witness {
    socket: Socket,
    pub(crate) log: Vec<Told>,
    /// What it would have stored.
    pub(crate) cursor: Cursor,
    pub(crate) heartbeats: Vec<Cursor>,
    /// Definitions that another connection was told, and that this one will be told again.
    known: Vec<Told>,
    /// The transaction that is coming in, and how many of its changes came.
    open: Option<(Lsn, i64)>,
}

impl Witness {
    /// Subscribes to everything, at a cursor, `latest` or `0/0`; returns when that was accepted.
    pub(crate) async fn at(url: &str, cursor: &str) -> Self {
        let (mut socket, _) = open(url).await;
        let tables = json!([{ "table": "*" }]);
        send(&mut socket, json!({"type": "subscribe", "id": "w", "tables": tables, "cursor": cursor})).await;
        let mut witness = Self {
            socket,
            log: Vec::new(),
            cursor: Cursor::ZERO,
            heartbeats: Vec::new(),
            known: Vec::new(),
            open: None,
        };
        let subscribed = witness.until("subscribed").await;
        witness.cursor = cursor_in(&subscribed["cursor"]);
        witness
    }

    /// Goes on at its cursor on another connection.
    pub(crate) async fn reconnect(&mut self, url: &str) {
        assert!(self.open.is_none(), "only between transactions");
        self.socket = Self::at(url, &self.cursor.to_string()).await.socket;
        self.known = self.log.iter().filter(|told| matches!(told, Told::Relation(_))).cloned().collect();
    }

    /// Takes messages up to and with the first of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.take().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Takes messages until its cursor is at `position` or after it.
    pub(crate) async fn until_at(&mut self, position: Cursor) {
        while self.cursor < position {
            self.take().await;
        }
    }

    async fn take(&mut self) -> Value {
        let text = loop {
            match within("the next message of the daemon", LIMIT, self.socket.next()).await {
                Some(Ok(Message::Text(text))) => break text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("the connection ended: {other:?}"),
            }
        };
        let message: Value = serde_json::from_str(&text).expect("a JSON message");
        match message["type"].as_str().expect("a type") {
            "relation" => {
                let told = Told::Relation(relation(&message));
                match self.known.iter().position(|known| *known == told) {
                    Some(at) => drop(self.known.swap_remove(at)),
                    None => self.log.push(told),
                }
            }
            "snapshot" => {
                let fields: Fields = serde_json::from_str(&text).expect("an object");
                let rows: Vec<Box<RawValue>> = serde_json::from_str(fields["rows"].get()).expect("rows");
                self.log.extend(rows.iter().map(|row| Told::Row(row.get().to_owned())));
            }
            "snapshot_complete" => self.cursor = cursor_in(&message["cursor"]),
            // Without a cursor where there is none that every subscription could store.
            "heartbeat" if message["cursor"].is_null() => {}
            "heartbeat" => {
                let cursor = cursor_in(&message["cursor"]);
                let last = self.heartbeats.last().copied().unwrap_or(Cursor::ZERO);
                assert!(last <= cursor, "the heartbeat went from {last} back to {cursor}");
                self.heartbeats.push(cursor);
            }
            "transaction" => self.transaction(&text, &message),
            "error" => panic!("the daemon refused: {message}"),
            _ => {}
        }
        message
    }

    fn transaction(&mut self, text: &str, message: &Value) {
        let lsn: Lsn = message["lsn"].as_str().expect("an lsn").parse().expect("an lsn");
        let (open, mut seq) = self.open.take().unwrap_or((lsn, 0));
        assert_eq!(open, lsn, "parts of two transactions are mixed");
        let fields: Fields = serde_json::from_str(text).expect("an object");
        let changes: Vec<Fields> = serde_json::from_str(fields["changes"].get()).expect("changes");
        for change in &changes {
            self.log.push(Told::Change { lsn, seq, text: describe(change) });
            seq += 1;
        }
        if message["more"] == true {
            self.open = Some((lsn, seq));
            return;
        }
        // None before the end of an initial sync.
        if let Some(cursor) = message.get("cursor").map(cursor_in) {
            assert!(self.cursor < cursor, "the cursor went from {} to {cursor}", self.cursor);
            self.cursor = cursor;
        }
        self.log.push(Told::Commit { lsn, cursor: self.cursor });
    }
}

fn cursor_in(value: &Value) -> Cursor {
    value.as_str().expect("a cursor").parse().expect("a cursor")
}

fn describe(change: &Fields) -> String {
    let text = |name: &str| -> String { serde_json::from_str(change[name].get()).expect("a string") };
    let mut out = format!("{} {}", text("op"), text("table"));
    for name in ["key", "row", "old", "unchanged"] {
        if let Some(value) = change.get(name) {
            out.push_str(&format!(" {name} {}", value.get()));
        }
    }
    out
}

fn relation(message: &Value) -> String {
    let columns = message["columns"].as_array().expect("columns").iter().map(|column| {
        let key = if column["key"] == true { " key" } else { "" };
        format!(
            "{} {}{key}",
            column["name"].as_str().expect("a name"),
            column["type"].as_str().expect("a type")
        )
    });
    let table = message["table"].as_str().expect("a table");
    let identity = message["replica_identity"].as_str().filter(|identity| *identity != "default");
    let identity = identity.map(|identity| format!(" ({identity})")).unwrap_or_default();
    format!("{table}: {}{identity}", columns.collect::<Vec<_>>().join(", "))
}
