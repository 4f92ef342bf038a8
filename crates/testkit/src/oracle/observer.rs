//! A client that is driven message by message.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walcast_model::{Cursor, Lsn};

use super::audit::{generated_columns, server_rows, stored_changes};
use super::message::Refusal;
use super::socket::{Socket, close_code, next_text, open, receive, send};
use super::subscription::Subscription;
use super::taken::{Delivered, Storing, Taken};
use crate::{LIMIT, TestDatabase, within};

/// How long nothing but heartbeats may come while something is awaited: they come every 15 s, whatever is stuck.
const QUIET_MAX: Duration = Duration::from_secs(120);

/// A subscription under observation. Everything that docs/protocol.md does not allow is a panic.
#[derive(Debug)]
pub struct Observer {
    // Boxed: it is large, and observers are moved about.
    socket: Box<Socket>,
    subscription: Subscription,
    /// What a client would have stored.
    pub cursor: Option<Cursor>,
    /// What was delivered since the last initial sync began, over reconnections.
    pub transactions: Vec<Delivered>,
    /// The kinds of messages about the subscription, in order.
    pub kinds: Vec<String>,
}

impl Observer {
    /// Subscribes to `tables`, from `cursor` or with an initial sync.
    ///
    /// # Panics
    ///
    /// When the daemon does not accept the connection.
    pub async fn subscribe(url: &str, tables: &[&str], cursor: Option<Cursor>) -> Self {
        let everything = tables == ["*"];
        let subscription = match cursor {
            Some(cursor) => Subscription::at(cursor, Storing::Transactions, everything),
            None => Subscription::new(Storing::Transactions, everything),
        };
        Self::with(url, tables, subscription).await
    }

    async fn with(url: &str, tables: &[&str], subscription: Subscription) -> Self {
        let (mut socket, _) = open(url).await;
        let cursor = subscription.cursor();
        send(&mut socket, subscribe_message(tables, cursor)).await;
        Self { socket: Box::new(socket), subscription, cursor, transactions: Vec::new(), kinds: Vec::new() }
    }

    /// Connects again and goes on where the last stored cursor is, with the copies as they were then.
    ///
    /// # Panics
    ///
    /// As [`subscribe`](Self::subscribe).
    pub async fn reconnect(self, url: &str, tables: &[&str]) -> Self {
        let Self { mut subscription, transactions, cursor, .. } = self;
        subscription.cut();
        let mut next = Self::with(url, tables, subscription).await;
        if cursor.is_some() {
            next.transactions = transactions;
        }
        next
    }

    /// Takes one message and checks it; `None` when the connection ended.
    ///
    /// # Panics
    ///
    /// When the message breaks a promise, or refuses.
    pub async fn next(&mut self) -> Option<Value> {
        let text = within("the next message of the daemon", LIMIT, next_text(&mut self.socket)).await?;
        let taken = self.subscription.take(&text).unwrap_or_else(|violation| panic!("{violation}"));
        for taken in taken {
            match taken {
                Taken::Subscribed(mode) if mode == "snapshot" => self.transactions.clear(),
                Taken::Transaction(delivered) => self.transactions.push(delivered),
                Taken::Refused(Refusal { code, message, .. }) => {
                    panic!("the daemon refused: {code}: {message}")
                }
                _ => {}
            }
        }
        self.cursor = self.subscription.cursor();
        let message: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let kind = message["type"].as_str().unwrap_or_default();
        if !matches!(kind, "status" | "heartbeat") {
            self.kinds.push(kind.to_owned());
        }
        Some(message)
    }

    /// Takes messages up to and with the first of this kind.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or as [`next`](Self::next).
    pub async fn until(&mut self, kind: &str) -> Value {
        let mut quiet_since = Instant::now();
        loop {
            let message = self.towards(&mut quiet_since, || format!("a {kind}")).await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Takes one message on the way to what is awaited.
    ///
    /// # Panics
    ///
    /// When the connection ends, as [`next`](Self::next), or after [`QUIET_MAX`] of nothing but heartbeats.
    async fn towards(&mut self, quiet_since: &mut Instant, what: impl Fn() -> String) -> Value {
        let message = self.next().await.unwrap_or_else(|| panic!("the connection ended before {}", what()));
        if !matches!(message["type"].as_str(), Some("status" | "heartbeat")) {
            *quiet_since = Instant::now();
        }
        assert!(
            quiet_since.elapsed() < QUIET_MAX,
            "nothing but heartbeats came for {QUIET_MAX:?}: no {}",
            what()
        );
        message
    }

    /// Takes messages until a transaction that ends after `position` was delivered.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or as [`next`](Self::next).
    pub async fn until_after(&mut self, position: Cursor) {
        let mut quiet_since = Instant::now();
        while self.cursor.is_none_or(|cursor| cursor <= position) {
            self.towards(&mut quiet_since, || format!("transaction after {position}")).await;
        }
    }

    /// Takes messages until `count` transactions were delivered in all.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or as [`next`](Self::next).
    pub async fn until_transactions(&mut self, count: usize) {
        let mut quiet_since = Instant::now();
        while self.transactions.len() < count {
            let seen = self.transactions.len();
            self.towards(&mut quiet_since, || format!("more than {seen} of {count} transactions")).await;
        }
    }

    /// Takes messages until `count` heartbeats came.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or as [`next`](Self::next).
    pub async fn until_heartbeats(&mut self, count: usize) {
        for _ in 0..count {
            self.until("heartbeat").await;
        }
    }

    /// The rows of a table, in the order of their JSON.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let texts = self.subscription.copies().texts(table);
        let rows = texts.iter().map(|text| {
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: a row of {table}: {text}"))
        });
        let mut rows: Vec<Value> = rows.collect();
        rows.sort_by_cached_key(Value::to_string);
        rows
    }

    /// Compares the copy of a table with what the server has now.
    ///
    /// # Panics
    ///
    /// When they differ, with what differs.
    pub async fn assert_equals(&self, database: &TestDatabase, table: &str) {
        let session = database.session().await;
        let there = server_rows(&session, table).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
        let generated = generated_columns(&session, table).await;
        let generated = generated.unwrap_or_else(|error| panic!("{table}: {error:?}"));
        match self.subscription.copies().compare(table, &there, &generated) {
            Ok(Some(_)) => {}
            Ok(None) => {
                panic!("{table}: updates and deletes are not in the feed, so there is nothing to compare")
            }
            Err(difference) => panic!("{difference}"),
        }
    }

    /// Compares `change_history` with what was delivered, change by change, from the first transaction with a cursor on;
    /// waits until it has as much.
    ///
    /// # Panics
    ///
    /// When they differ, or there was no such transaction.
    pub async fn assert_stored(&self, database: &TestDatabase) {
        let first = self.transactions.iter().find(|delivered| delivered.cursor.is_some());
        let first = first.unwrap_or_else(|| panic!("no transaction with a cursor came")).lsn;
        let delivered = self.transactions.iter().filter(|delivered| delivered.lsn >= first);
        let told = delivered.flat_map(|transaction| {
            let numbered = (0..).zip(&transaction.changes);
            numbered.map(|(seq, change)| (transaction.lsn, seq, transaction.xid.cast_signed(), change.digest))
        });
        let told: Vec<_> = told.collect();
        let end = self.transactions.iter().rev().find_map(|delivered| delivered.cursor);
        let end = end.map(Cursor::lsn).unwrap_or_default();
        database.until(&format!("SELECT position_lsn >= '{end}' FROM walcast.feed"), "t").await;
        let stored = stored_changes(&database.session().await, first).await;
        let stored = stored.unwrap_or_else(|error| panic!("change_history: {error}"));
        for (index, (told, stored)) in told.iter().zip(&stored).enumerate() {
            assert_eq!(told, stored, "change {index}: what was told, and what is stored");
        }
        assert_eq!(told.len(), stored.len(), "changes told, and stored");
    }

    /// Takes messages until the copy of a table has `count` rows.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or as [`next`](Self::next).
    pub async fn until_rows(&mut self, table: &str, count: usize) {
        let mut quiet_since = Instant::now();
        while self.rows(table).len() < count {
            self.towards(&mut quiet_since, || format!("{count} rows of {table}")).await;
        }
    }

    /// The next message that is no heartbeat, unchecked and not applied.
    ///
    /// # Panics
    ///
    /// When the connection ends, or after two minutes of nothing but heartbeats.
    pub async fn raw(&mut self) -> Value {
        let message = async {
            loop {
                let message = receive(&mut self.socket).await;
                let message = message.unwrap_or_else(|| panic!("the connection ended"));
                if message["type"] != "heartbeat" {
                    return message;
                }
            }
        };
        within("a message that is no heartbeat", QUIET_MAX, message).await
    }

    /// Reads to the end of the connection, and returns the code it was closed with.
    pub async fn close_code(&mut self) -> Option<u16> {
        close_code(&mut self.socket).await
    }

    /// For messages of the test's own.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// `subscribe` to tables, at a cursor or from nothing.
pub(crate) fn subscribe_message(tables: &[&str], cursor: Option<Cursor>) -> Value {
    let tables: Vec<Value> = tables.iter().map(|table| json!({ "table": table })).collect();
    let mut message = json!({ "type": "subscribe", "id": "observed", "tables": tables });
    if let Some(cursor) = cursor {
        message["cursor"] = json!(cursor.to_string());
    }
    message
}

/// Where the WAL is now.
///
/// # Panics
///
/// When the server does not say.
pub async fn wal_position(database: &TestDatabase) -> Cursor {
    let text = database.scalar("SELECT pg_current_wal_insert_lsn()").await.unwrap_or_default();
    let lsn: Lsn =
        text.parse().unwrap_or_else(|error| panic!("pg_current_wal_insert_lsn() is {text}: {error}"));
    lsn.into()
}
