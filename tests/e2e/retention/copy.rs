//! A client's copies of tables that takes compacted messages as docs/protocol.md says: a row is written whether it is
//! there or not, and deleted whether it is there or not. Everything else it takes strictly.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use walcast_model::Cursor;
use walcast_testkit::TestDatabase;

/// Rows by the text of their key, or by their place where the table has none.
type Rows = BTreeMap<String, Map<String, Value>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    pub(super) cursor: Option<Cursor>,
    /// Compacted messages so far.
    pub(super) compacted: usize,
    tables: BTreeMap<String, Rows>,
    keys: BTreeMap<String, Vec<String>>,
    /// What was stored with the cursor: tables without a key have nothing to tell a line that comes again from another.
    stored: BTreeMap<String, Rows>,
    lines: usize,
    /// Only looks at what it is told.
    has_rows: bool,
}

impl Copy {
    /// One that has nothing, and begins at a cursor.
    pub(super) fn without_rows(cursor: Cursor) -> Self {
        Self { cursor: Some(cursor), has_rows: true, ..Self::default() }
    }

    /// The connection is gone: what was applied without a cursor stays where rows have keys.
    pub(super) fn cut(&mut self) {
        for (table, rows) in &mut self.tables {
            if self.keys.get(table).is_some_and(Vec::is_empty) {
                *rows = self.stored.get(table).cloned().unwrap_or_default();
            }
        }
    }

    /// Takes a message, and says what it is.
    pub(super) fn take(&mut self, message: &Value) -> String {
        let kind = message["type"].as_str().expect("a type").to_owned();
        match kind.as_str() {
            "relation" => {
                let columns = message["columns"].as_array().expect("columns").iter();
                let keys = columns.filter(|column| column["key"] == true);
                let names = keys.map(|column| column["name"].as_str().expect("a name").to_owned()).collect();
                self.keys.insert(message["table"].as_str().expect("a table").to_owned(), names);
            }
            "snapshot" => {
                for row in message["rows"].as_array().expect("rows") {
                    self.write(message["table"].as_str().expect("a table"), object(row), None);
                }
            }
            "transaction" => self.transaction(message),
            "error" => panic!("refused: {message}"),
            _ => {}
        }
        if let Some(cursor) = message.get("cursor").filter(|_| kind != "heartbeat" && kind != "subscribed") {
            let cursor: Cursor = cursor.as_str().expect("a cursor").parse().expect("a cursor");
            assert!(
                self.cursor.is_none_or(|before| before <= cursor),
                "back from {:?}: {message}",
                self.cursor
            );
            self.cursor = Some(cursor);
            self.stored.clone_from(&self.tables);
        }
        kind
    }

    fn transaction(&mut self, message: &Value) {
        let is_compacted = message["compacted"] == true;
        self.compacted += usize::from(is_compacted);
        if is_compacted {
            assert!(
                message["more"] != true || message.get("cursor").is_none(),
                "a cursor too soon: {message}"
            );
        }
        if self.has_rows {
            return;
        }
        for change in message["changes"].as_array().expect("changes") {
            let table = change["table"].as_str().expect("a table");
            assert!(!is_compacted || change.get("old").is_none() || change.get("key").is_none(), "{change}");
            if change["op"] == "truncate" {
                self.tables.entry(table.to_owned()).or_default().clear();
                continue;
            }
            let before = change.get("key").and_then(|key| {
                let key = key_text(key.as_object().expect("a key"));
                self.tables.entry(table.to_owned()).or_default().remove(&key)
            });
            let expects_row = change["op"] != "insert" && change.get("key").is_some();
            assert!(is_compacted || before.is_some() == expects_row, "{change} of {before:?}");
            if let Some(row) = change.get("row") {
                let unchanged = change["unchanged"].as_array().cloned().unwrap_or_default();
                assert!(unchanged.is_empty() || before.is_some(), "no row to keep a value of: {change}");
                self.write(table, object(row), before);
            } else if change.get("key").is_none() {
                // A table without a key tells a row by all of it.
                let old = object(&change["old"]);
                let rows = self.tables.entry(table.to_owned()).or_default();
                let place = rows.iter().find(|(_, row)| **row == old).map(|(place, _)| place.clone());
                rows.remove(&place.expect("the old row"));
            }
            if change["op"] == "update" && change.get("key").is_none() {
                let old = object(&change["old"]);
                let rows = self.tables.entry(table.to_owned()).or_default();
                let place = rows.iter().find(|(_, row)| **row == old).map(|(place, _)| place.clone());
                rows.remove(&place.expect("the old row"));
            }
        }
    }

    fn write(&mut self, table: &str, row: Map<String, Value>, before: Option<Map<String, Value>>) {
        let names = self.keys.get(table).unwrap_or_else(|| panic!("rows of {table} before its relation"));
        let key = if names.is_empty() {
            self.lines += 1;
            format!("{:09}", self.lines)
        } else {
            key_text(&names.iter().map(|name| (name.clone(), row[name].clone())).collect())
        };
        let mut now = before.unwrap_or_default();
        now.extend(row);
        self.tables.entry(table.to_owned()).or_default().insert(key, now);
    }

    /// The rows of a table, in the order of their JSON.
    pub(super) fn rows(&self, table: &str) -> Vec<Value> {
        let rows = self.tables.get(table).into_iter().flatten();
        let mut rows: Vec<Value> = rows.map(|(_, row)| json!(row)).collect();
        rows.sort_by_cached_key(Value::to_string);
        rows
    }
}

/// What the server has in a table now, in the order of the JSON.
pub(super) async fn server_rows(database: &TestDatabase, table: &str) -> Vec<Value> {
    let sql = format!("SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')::text FROM ONLY {table} AS t");
    let text = database.scalar(&sql).await.expect("an aggregate");
    let mut rows: Vec<Value> = serde_json::from_str(&text).expect("rows");
    rows.sort_by_cached_key(Value::to_string);
    rows
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn key_text(key: &Map<String, Value>) -> String {
    let sorted: BTreeMap<&String, &Value> = key.iter().collect();
    json!(sorted).to_string()
}
