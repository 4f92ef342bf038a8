//! The demo's own copy of the shop's tables, kept as any client would keep one: so that an update can be shown as what
//! it changed.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use walcast_client::{Change, RelationMessage};

/// Rows that are remembered, over all tables. Of further ones an update is shown whole.
const ROWS_MAX: usize = 100_000;

/// Names and JSON texts of a row's columns, in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(pub(super) Vec<(String, String)>);

impl Row {
    pub(super) fn parse(json: &RawValue) -> Self {
        // Order matters to a reader, so no map; what the daemon sends is an object.
        let mut deserializer = serde_json::Deserializer::from_str(json.get());
        deserializer.deserialize_map(Columns).unwrap_or_default()
    }

    fn get(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }
}

struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = Row;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut columns = Vec::with_capacity(map.size_hint().unwrap_or(8));
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            columns.push((name, value.get().to_owned()));
        }
        Ok(Row(columns))
    }
}

/// What a change did, as far as the copy knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A new row.
    Inserted(Row),
    /// The row's key, and of each column that changed its value before (when known) and after.
    Updated { key: Row, columns: Vec<(String, Option<String>, String)> },
    /// The row that is gone: all of it when known, else its key.
    Deleted(Row),
    /// The table was emptied.
    Truncated,
}

/// Tables by name, rows by key.
#[derive(Debug, Default)]
pub(super) struct LocalCopy {
    tables: HashMap<String, Table>,
    rows: usize,
}

#[derive(Debug, Default)]
struct Table {
    key: Vec<String>,
    rows: HashMap<Vec<String>, Row>,
}

impl Table {
    fn key_of(&self, row: &Row) -> Vec<String> {
        self.key.iter().map(|name| row.get(name).unwrap_or_default().to_owned()).collect()
    }
}

impl LocalCopy {
    /// Takes note of a table's key. When it is another one, what is known of the table is forgotten.
    pub(super) fn define(&mut self, relation: &RelationMessage) {
        let key: Vec<String> =
            relation.columns.iter().filter(|column| column.key).map(|column| column.name.clone()).collect();
        let table = self.tables.entry(relation.table.to_string()).or_default();
        if table.key != key {
            self.rows -= table.rows.len();
            *table = Table { key, rows: HashMap::new() };
        }
    }

    /// Forgets everything: the initial sync starts (over).
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many rows are known.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes in a row of the initial sync.
    pub(super) fn insert(&mut self, table: &str, row: Row) {
        let known = self.tables.entry(table.to_owned()).or_default();
        if !known.key.is_empty() && self.rows < ROWS_MAX {
            let key = known.key_of(&row);
            self.rows += usize::from(known.rows.insert(key, row).is_none());
        }
    }

    fn remove(&mut self, table: &str, key: &Row) -> Option<Row> {
        let known = self.tables.get_mut(table)?;
        let removed = known.rows.remove(&known.key_of(key))?;
        self.rows -= 1;
        Some(removed)
    }

    /// Takes in a change.
    pub(super) fn apply(&mut self, change: &Change) -> Effect {
        let table = change.table.to_string();
        let parsed = |json: &Option<Box<RawValue>>| json.as_deref().map(Row::parse);
        let row = parsed(&change.row);
        let key = parsed(&change.key).or_else(|| row.clone()).unwrap_or_default();
        match (change.op.as_str(), row) {
            ("insert", Some(row)) => {
                self.insert(&table, row.clone());
                Effect::Inserted(row)
            }
            ("update", Some(row)) => {
                let before = self.remove(&table, &key).or_else(|| parsed(&change.old));
                let columns = differences(before.as_ref(), &row);
                let whole = with_unchanged(row, before.as_ref(), &change.unchanged);
                self.insert(&table, whole);
                Effect::Updated { key, columns }
            }
            ("truncate", _) => {
                if let Some(known) = self.tables.get_mut(&table) {
                    self.rows -= known.rows.len();
                    known.rows.clear();
                }
                Effect::Truncated
            }
            _ => Effect::Deleted(self.remove(&table, &key).unwrap_or(key)),
        }
    }
}

fn differences(before: Option<&Row>, after: &Row) -> Vec<(String, Option<String>, String)> {
    after
        .0
        .iter()
        .filter_map(|(name, value)| {
            let known = before.and_then(|row| row.get(name));
            // A column that was added since is null in every row that was there.
            let is_added = before.is_some() && known.is_none() && value == "null";
            let is_changed = known != Some(value) && !is_added;
            is_changed.then(|| (name.clone(), known.map(str::to_owned), value.clone()))
        })
        .collect()
}

/// Values that the WAL did not carry are those of before.
fn with_unchanged(mut row: Row, before: Option<&Row>, unchanged: &[String]) -> Row {
    for name in unchanged {
        if let Some(value) = before.and_then(|row| row.get(name)) {
            row.0.push((name.clone(), value.to_owned()));
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> RelationMessage {
        serde_json::from_str(
            r#"{"id": "demo", "table": "public.t", "replica_identity": "default", "columns": [
                {"name": "id", "type": "integer", "key": true, "nullable": false},
                {"name": "z", "type": "text", "key": false, "nullable": true},
                {"name": "a", "type": "text", "key": false, "nullable": true}]}"#,
        )
        .unwrap()
    }

    fn change(json: &str) -> Change {
        serde_json::from_str(json).unwrap()
    }

    fn row(columns: &[(&str, &str)]) -> Row {
        Row(columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn filled() -> LocalCopy {
        let mut copy = LocalCopy::default();
        copy.define(&relation());
        copy.insert("public.t", row(&[("id", "1"), ("z", "\"x\""), ("a", "\"y\"")]));
        copy
    }

    #[test]
    fn an_update_is_told_by_what_it_changed() {
        let update = change(
            r#"{"op": "update", "table": "public.t", "key": {"id": 1}, "row": {"id": 1, "z": "new"}, "unchanged": ["a"]}"#,
        );
        let mut copy = filled();
        let changed = vec![("z".to_owned(), Some("\"x\"".to_owned()), "\"new\"".to_owned())];
        assert_eq!(copy.apply(&update), Effect::Updated { key: row(&[("id", "1")]), columns: changed });
        let delete = change(r#"{"op": "delete", "table": "public.t", "key": {"id": 1}}"#);
        let gone = row(&[("id", "1"), ("z", "\"new\""), ("a", "\"y\"")]);
        assert_eq!(
            copy.apply(&delete),
            Effect::Deleted(gone),
            "with the column that the update did not carry"
        );
        assert_eq!(copy.rows(), 0);
    }

    #[test]
    fn a_changed_key_moves_the_row() {
        let mut copy = filled();
        copy.apply(&change(
            r#"{"op": "update", "table": "public.t", "key": {"id": 1}, "row": {"id": 2, "z": "x", "a": "y"}}"#,
        ));
        assert_eq!(copy.rows(), 1);
        let delete = change(r#"{"op": "delete", "table": "public.t", "key": {"id": 1}}"#);
        assert_eq!(
            copy.apply(&delete),
            Effect::Deleted(row(&[("id", "1")])),
            "nothing is known of the old key"
        );
    }

    #[test]
    fn an_update_of_an_unknown_row_is_told_whole() {
        let mut copy = LocalCopy::default();
        copy.define(&relation());
        let update =
            change(r#"{"op": "update", "table": "public.t", "key": {"id": 9}, "row": {"id": 9, "z": null}}"#);
        let whole = vec![("id".to_owned(), None, "9".to_owned()), ("z".to_owned(), None, "null".to_owned())];
        assert_eq!(copy.apply(&update), Effect::Updated { key: row(&[("id", "9")]), columns: whole });
    }

    #[test]
    fn a_column_that_was_added_is_told_once_it_has_a_value() {
        let mut copy = filled();
        let update = |a: &str, c: &str| {
            let row = format!(r#"{{"id": 1, "z": "x", "a": "{a}", "c": {c}}}"#);
            change(&format!(r#"{{"op": "update", "table": "public.t", "key": {{"id": 1}}, "row": {row}}}"#))
        };
        let told = |columns| Effect::Updated { key: row(&[("id", "1")]), columns };
        let a = vec![("a".to_owned(), Some("\"y\"".to_owned()), "\"new\"".to_owned())];
        assert_eq!(copy.apply(&update("new", "null")), told(a));
        let c = vec![("c".to_owned(), Some("null".to_owned()), "5".to_owned())];
        assert_eq!(copy.apply(&update("new", "5")), told(c));
    }

    #[test]
    fn a_truncate_empties_the_table() {
        let mut copy = filled();
        assert_eq!(copy.apply(&change(r#"{"op": "truncate", "table": "public.t"}"#)), Effect::Truncated);
        assert_eq!(copy.rows(), 0);
    }

    #[test]
    fn columns_keep_the_order_of_the_table() {
        let json = RawValue::from_string(r#"{"z": 1, "a": {"b": [2, 3.50]}}"#.to_owned()).unwrap();
        assert_eq!(Row::parse(&json), row(&[("z", "1"), ("a", r#"{"b": [2, 3.50]}"#)]));
    }
}
