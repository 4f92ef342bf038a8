//! What a table is like at one place of the feed, and what changes may look like there.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::change::{Fields, Op, Told};

/// A column as a `relation` message defines it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DefinitionColumn {
    /// Its name.
    pub name: String,
    /// Its type, as `format_type` prints it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it is part of `key`.
    pub key: bool,
}

/// A table's definition at one place of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// In the order of a row.
    pub columns: Vec<DefinitionColumn>,
    /// `default`, `index`, `full` or `nothing`.
    pub replica_identity: String,
}

impl Definition {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.key).map(|column| column.name.as_str())
    }

    pub(crate) fn has_key(&self) -> bool {
        self.columns.iter().any(|column| column.key)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.replica_identity == "full"
    }

    /// Whether updates and deletes of the table are in the feed.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_full() || (self.replica_identity != "nothing" && self.has_key())
    }

    pub(crate) fn column(&self, name: &str) -> Option<&DefinitionColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Checks that a change has exactly the parts and columns that it must have under this definition.
    pub(crate) fn allows(&self, change: &Told) -> Result<(), String> {
        let all = || self.columns.iter().map(|column| column.name.as_str());
        let is_all = |fields: &Option<Fields>| fields.as_ref().is_some_and(|row| row.names().eq(all()));
        let needs = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        if change.op != Op::Truncate {
            match &change.key {
                Some(key) => {
                    needs(key.names().eq(self.keys()), "the key does not have the columns of the key")?
                }
                None => needs(!self.has_key(), "it has no key, and the relation says that there is one")?,
            }
        }
        let unchanged: BTreeSet<&str> = change.unchanged.iter().map(String::as_str).collect();
        let is_written = || {
            let written = all().filter(|name| !unchanged.contains(name));
            change.row.as_ref().is_some_and(|row| row.names().eq(written))
        };
        match change.op {
            // With `unchanged` where an update brought the row into the publication's row filter.
            Op::Insert => {
                needs(is_written(), "row and unchanged together do not have the columns of the relation")?;
                needs(
                    !self.keys().any(|key| unchanged.contains(key)),
                    "an insert without a value of its key",
                )?;
                needs(!self.is_full() || unchanged.is_empty(), "unchanged columns under FULL")?;
                needs(change.old.is_none(), "an insert has no old row")
            }
            Op::Update => {
                needs(
                    is_written(),
                    "row and unchanged together do not have the columns of the relation, in their order",
                )?;
                needs(
                    unchanged.iter().all(|name| self.column(name).is_some()),
                    "an unchanged column is none",
                )?;
                needs(self.is_whole(), "an update of a table that is published for inserts only")?;
                // Elsewhere it is there where a last image was known, as the WAL cannot say.
                needs(!self.is_full() || change.old.is_some(), "old is there under FULL")?;
                needs(change.old.is_none() || is_all(&change.old), "the old row is not whole")?;
                needs(!self.is_full() || unchanged.is_empty(), "unchanged columns under FULL")
            }
            Op::Delete => {
                needs(
                    change.row.is_none() && unchanged.is_empty(),
                    "a delete has neither row nor unchanged",
                )?;
                needs(self.is_whole(), "a delete of a table that is published for inserts only")?;
                // Elsewhere it is there where a last image was known, as the WAL cannot say.
                needs(!self.is_full() || change.old.is_some(), "old is there under FULL")?;
                needs(change.old.is_none() || is_all(&change.old), "the old row is not whole")
            }
            Op::Truncate => {
                needs(change.key.is_none() && change.row.is_none(), "a truncate has neither key nor row")
            }
        }
    }
}
