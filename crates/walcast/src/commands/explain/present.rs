//! The row as it is now.

use std::sync::Arc;

use serde_json::{Map, Value};
use walcast_broadcaster::key_of;
use walcast_model::{Relation, json};
use walcast_postgres::{Session, quote_identifier};

use super::access::Access;
use super::report::{Delivery, Printer, Stage};
use super::table::Table;
use crate::output::Failure;

/// A key as the feed writes it: a JSON object, byte for byte.
#[derive(Debug)]
pub(super) struct Key(pub(super) Vec<u8>);

/// Explains the row with this key as the source has it now; the key as the feed writes it.
///
/// # Errors
/// When the key is not the table's, or the source cannot be asked.
pub(super) async fn row(
    source: &Session,
    table: &Table,
    access: &Access,
    key: &Map<String, Value>,
    printer: &Printer,
) -> Result<Key, Failure> {
    let Table::Published { relation, .. } = table else {
        // Nothing tells its key columns; history may have the table from before.
        return Ok(Key(Value::Object(key.clone()).to_string().into_bytes()));
    };
    check(relation, key)?;
    let failed = |error: tokio_postgres::Error| Failure::because(&walcast_postgres::Error::from(error));
    let text = Value::Object(key.clone()).to_string();
    let name =
        format!("{}.{}", quote_identifier(&relation.name().schema), quote_identifier(&relation.name().table));
    let keys: Vec<String> = relation
        .columns()
        .iter()
        .filter(|column| column.key)
        .map(|column| quote_identifier(&column.name))
        .collect();
    let rendered = |of: &str, columns: &[String]| {
        let values = columns.iter().map(|column| format!("to_jsonb({of}.{column})::text"));
        format!("ARRAY[{}]::text[]", values.collect::<Vec<_>>().join(", "))
    };
    let of_key = format!(
        "SELECT {} FROM jsonb_populate_record(NULL::{name}, $1::text::jsonb) k",
        rendered("k", &keys)
    );
    let found = source.query_one(&of_key, &[&text]).await.map_err(failed)?;
    let names: Vec<usize> = (0..relation.columns().len())
        .filter(|index| relation.columns().get(*index).is_some_and(|column| column.key))
        .collect();
    let mut key = Key(object(relation, &names, &found.get::<_, Vec<Option<String>>>(0)));
    let columns: Vec<String> =
        relation.columns().iter().map(|column| quote_identifier(&column.name)).collect();
    let same: Vec<String> = keys.iter().map(|key| format!("t.{key} = k.{key}")).collect();
    let of_row = format!(
        "SELECT {} FROM {name} t, jsonb_populate_record(NULL::{name}, $1::text::jsonb) k WHERE {}",
        rendered("t", &columns),
        same.join(" AND ")
    );
    let (stages, sent) = match source.query_opt(&of_row, &[&text]).await.map_err(failed)? {
        None => (vec![Stage::drops("source", "the table has no such row now")], None),
        Some(found) => {
            let all: Vec<usize> = (0..columns.len()).collect();
            let row = object(relation, &all, &found.get::<_, Vec<Option<String>>>(0));
            // Equal is not the same: 1 finds 1.0, and the feed writes it as it is stored.
            key = Key(key_of(relation, &row));
            let fate = access.of_row(relation, &row);
            (fate.stages, fate.sent)
        }
    };
    let what = format!("the row {} as it is now, in an initial sync", String::from_utf8_lossy(&key.0));
    let delivered = sent.is_some();
    printer.delivery(&Delivery { of: "row", lsn: None, what, stages, delivered, sent })?;
    Ok(key)
}

fn check(relation: &Arc<Relation>, key: &Map<String, Value>) -> Result<(), Failure> {
    let keys: Vec<&str> =
        relation.columns().iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    if keys.is_empty() {
        return Err(Failure::usage(format!("{} has no key: name a transaction with --lsn", relation.name())));
    }
    let fits = key.len() == keys.len() && keys.iter().all(|name| key.contains_key(*name));
    if fits {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the key of {} is {}; --key has to name just these",
        relation.name(),
        keys.join(", ")
    )))
}

/// The columns with these values, as the feed writes an object.
fn object(relation: &Relation, columns: &[usize], values: &[Option<String>]) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for (index, value) in columns.iter().zip(values) {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend(relation.column_json(*index).as_bytes());
        out.extend(value.as_deref().unwrap_or("null").as_bytes());
    }
    out.push(b'}');
    out
}

impl Key {
    /// `"name":value,` of each of its columns, as they stand in a row with a comma after its last one.
    pub(super) fn fields(&self) -> Vec<String> {
        json::fields(&self.0)
            .map(|(name, value)| {
                format!("\"{}\":{},", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            })
            .collect()
    }
}
