//! What the changes of one commit come to.

use std::collections::{BTreeMap, HashMap};

use walcast_model::last_image::{ImageEffect, key_of};
use walcast_model::{Change, Cursor, Lsn, Oid, Part, RelationName};

use super::{Definition, ImageWriter};

/// The images of one table after the commit.
#[derive(Debug)]
pub(super) struct TableFold<'a> {
    /// Those that are there go first.
    pub(super) is_cleared: bool,
    /// `None` when the table has no images afterwards.
    pub(super) definition: Option<Imaged<'a>>,
    /// Each key that was touched, and its row if it has one.
    pub(super) rows: HashMap<Vec<u8>, Option<(&'a [u8], Cursor)>>,
}

/// As `walcast.imaged_table` has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Imaged<'a> {
    pub(super) definition: Definition,
    pub(super) since: Lsn,
    pub(super) name: &'a RelationName,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fold<'a> {
    pub(super) tables: BTreeMap<Oid, TableFold<'a>>,
}

impl<'a> Fold<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Adds the next change, which stands at `at`.
    pub(crate) fn add(&mut self, writer: &ImageWriter, part: &'a Part, change: &'a Change, at: Cursor) {
        let oid = change.relation.oid();
        let before = writer.tables.get(&oid);
        let Some(mark) = &change.image else {
            if before.is_some() || self.tables.contains_key(&oid) {
                let gone = TableFold { is_cleared: true, definition: None, rows: HashMap::new() };
                self.tables.insert(oid, gone);
            }
            return;
        };
        let definition = (change.relation.digest(), mark.storage.id);
        let imaged = Imaged { definition, since: mark.storage.since, name: change.relation.name() };
        let table = self.tables.entry(oid).or_insert_with(|| TableFold {
            // Also where none are known of: what a process left that was replaced is not to come back.
            is_cleared: before.is_none_or(|before| *before != definition),
            definition: Some(imaged),
            rows: HashMap::new(),
        });
        if table.definition.is_none_or(|table| table.definition != definition) {
            table.is_cleared = true;
            table.definition = Some(imaged);
            table.rows.clear();
        }
        if mark.effect == ImageEffect::Clear {
            table.is_cleared = true;
            table.rows.clear();
            return;
        }
        if let Some(key) = part.key(change) {
            table.rows.insert(key.to_vec(), None);
        }
        if let Some(row) = part.row(change)
            && let Some(key) = key_of(&change.relation, row)
        {
            let kept = (mark.effect == ImageEffect::Keep).then_some((row, at));
            table.rows.insert(key, kept);
        }
    }
}
