//! The net effect of many transactions: for each row that they touched, what became of it. No I/O.
//!
//! A client that is far behind may ask for this instead of every change (docs/protocol.md, "Compacted catch-up"). What is
//! folded are whole transactions, so what comes out leads from one transaction boundary to another, and applying it is
//! the same as applying the transactions one by one.
//!
//! Rows are told apart by table and key. Tables without a key are not folded: all their changes come, in their order.
//! Where the net effect cannot be told by key alone, the transaction is not folded ([`Unfoldable`]): everything before
//! it is given out, and the transaction itself as it is.

mod table;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use walcast_model::{CommitEnd, Oid, Op, Part, PartBuilder, RelationName, Seq, Transaction};

use table::{Entry, Table, Undo};

/// Why a transaction is to be given out as it is: applied by key alone, it could lead somewhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfoldable {
    /// A table's name or key is another one than in the transactions before.
    Definition,
    /// A row with a large value that the WAL does not carry got another key, and the value is in no change before.
    MovedValue,
    /// A row was taken out and came back with a large value that the WAL does not carry (a publication's row filter).
    ReturnedValue,
    /// A row is written over one that is there, or one is changed that is not: keys that are not unique at each moment
    /// (a deferrable constraint) or columns that the publication leaves out.
    Ambiguous,
}

/// Collects the net effect of transactions.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    tables: HashMap<Oid, Table>,
    /// Counts what was folded, so that what comes out is in the order of the last touch.
    order: u64,
    bytes: usize,
    last: Option<(Arc<Transaction>, CommitEnd)>,
}

impl Fold {
    /// Memory that it holds, in bytes, near enough to budget by.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Folds a transaction, given by all its parts, as far as it is about tables that are wanted.
    ///
    /// # Errors
    /// When it has to be given out as it is; nothing of it is folded then.
    pub(crate) fn transaction(
        &mut self,
        parts: &[Part],
        wants: impl Fn(&RelationName) -> bool,
    ) -> Result<(), Unfoldable> {
        let Some((part, end)) = parts.last().and_then(|part| Some((part, part.end()?))) else {
            return Ok(());
        };
        let (mut undo, bytes, order) = (Vec::new(), self.bytes, self.order);
        for part in parts {
            for change in part.changes().iter().filter(|change| wants(change.relation.name())) {
                self.order += 1;
                let mut folded = Ok(());
                let table = match self.tables.entry(change.relation.oid()) {
                    std::collections::hash_map::Entry::Occupied(table) => {
                        if !table.get().is_of(&change.relation) {
                            folded = Err(Unfoldable::Definition);
                        }
                        table.into_mut()
                    }
                    std::collections::hash_map::Entry::Vacant(place) => {
                        undo.push(Undo::NewTable(change.relation.oid()));
                        place.insert(Table::new(&change.relation))
                    }
                };
                let folded =
                    folded.and_then(|()| table.fold(part, change, self.order, &mut self.bytes, &mut undo));
                if let Err(reason) = folded {
                    self.take_back(undo);
                    (self.bytes, self.order) = (bytes, order);
                    return Err(reason);
                }
            }
        }
        self.last = Some((Arc::clone(part.transaction()), end));
        Ok(())
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::NewTable(oid) => {
                    self.tables.remove(&oid);
                }
                Undo::Table(oid, table) => {
                    self.tables.insert(oid, table);
                }
                Undo::Step { oid, step } => {
                    if let Some(table) = self.tables.get_mut(&oid) {
                        table.take_back(step);
                    }
                }
            }
        }
    }

    /// The net effect, as parts of the last transaction that was folded. Only the last of them has the commit's end, and
    /// only the cursor after that one means anything. None when nothing is left of the changes.
    pub(crate) fn finish(self, part_bytes_max: usize) -> Vec<Part> {
        let Some((transaction, end)) = self.last else { return Vec::new() };
        let mut entries: Vec<Entry> = self.tables.into_values().flat_map(Table::into_entries).collect();
        entries.sort_unstable_by_key(|entry| entry.order);
        let mut parts = Vec::new();
        let mut part = PartBuilder::new(Arc::clone(&transaction), Seq::FIRST);
        for entry in entries {
            if !part.is_empty() && part.json_bytes() >= part_bytes_max {
                let next = PartBuilder::new(Arc::clone(&transaction), part.next_seq());
                parts.push(std::mem::replace(&mut part, next).finish(None));
            }
            if !write(&mut part, &entry) {
                // Over 4 GiB in one part: it was left out, and fits into an empty one as it did before.
                let next = PartBuilder::new(Arc::clone(&transaction), part.next_seq());
                parts.push(std::mem::replace(&mut part, next).finish(None));
                write(&mut part, &entry);
            }
        }
        if !part.is_empty() {
            parts.push(part.finish(Some(end)));
        }
        parts
    }
}

/// Whether the part had room for it.
fn write(part: &mut PartBuilder, entry: &Entry) -> bool {
    let put = |text: &[u8], out: &mut Vec<u8>| -> Result<(), Infallible> {
        out.extend_from_slice(text);
        Ok(())
    };
    let mut change = part.change(entry.op, &entry.relation);
    if let Some(text) = entry.key.as_deref().filter(|_| entry.op != Op::Truncate) {
        let Ok(()) = change.key(|out| put(text, out));
    }
    if let Some(text) = &entry.row {
        let Ok(()) = change.row(|out| put(text, out));
    }
    if let Some(text) = &entry.old {
        let Ok(()) = change.old(|out| put(text, out));
    }
    if let Some(text) = &entry.unchanged {
        change.unchanged_json(text);
    }
    change.finish().is_ok()
}

#[cfg(test)]
mod tests;
