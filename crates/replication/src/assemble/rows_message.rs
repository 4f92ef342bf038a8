//! `walcast.rows`: rows that were there before their table was picked up, as logical messages.
//!
//! One transaction holds, for each table that it picks up, a header and then one message a row:
//!
//! ```text
//! <secret> \n H {"replace":false,"oid":16385,"schema":"public","table":"t","identity":"default","columns":[…]}
//! <secret> \n R {"id":1,"name":"x"}
//! ```
//!
//! A row is the JSON that the server printed (`to_jsonb` of each column), with the columns in the header's order.

use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity, json};

/// The table that the rows after it belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsHeader {
    /// Whether the rows replace what the feed said of this table before: it is truncated first.
    pub replace: bool,
    /// The table's object id.
    pub oid: Oid,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its replica identity.
    pub identity: ReplicaIdentity,
    /// The columns of the rows, in their order.
    pub columns: Vec<Column>,
}

impl RowsHeader {
    /// The content of the header's message.
    #[must_use]
    pub fn content(&self, secret: &str) -> String {
        // Cannot fail: strings, numbers and unit variants only.
        let header = serde_json::to_string(self).unwrap_or_default();
        format!("{secret}\nH{header}")
    }

    /// The definition that the header stands for.
    #[must_use]
    pub fn into_relation(self) -> Relation {
        Relation::new(self.oid, RelationName::new(self.schema, self.table), self.identity, self.columns)
    }
}

/// What precedes a row's JSON in the content of its message.
#[must_use]
pub fn row_prefix(secret: &str) -> String {
    format!("{secret}\nR")
}

/// One message of the prefix `walcast.rows`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RowsMessage<'a> {
    Header(RowsHeader),
    Row(&'a [u8]),
}

impl<'a> RowsMessage<'a> {
    /// `None` for what this feed did not write. Any role can write any message, but none knows the secret.
    pub(super) fn parse(content: &'a [u8], secret: &[u8]) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let (kind, rest) = content.strip_prefix(secret)?.strip_prefix(b"\n")?.split_first()?;
        match kind {
            b'H' => serde_json::from_slice(rest).ok().map(Self::Header),
            b'R' => rest.starts_with(b"{").then_some(Self::Row(rest)),
            _ => None,
        }
    }
}

/// Writes the key of a row: those of its fields that are part of it.
pub(super) fn key(relation: &Relation, row: &[u8], out: &mut Vec<u8>) -> Result<(), Infallible> {
    out.push(b'{');
    let mut first = true;
    for ((_, value), (index, column)) in json::fields(row).zip(relation.columns().iter().enumerate()) {
        if column.key {
            if !std::mem::replace(&mut first, false) {
                out.push(b',');
            }
            out.extend_from_slice(relation.column_json(index).as_bytes());
            out.extend_from_slice(value);
        }
    }
    out.push(b'}');
    Ok(())
}
