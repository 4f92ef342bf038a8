//! How a part is written: change by change, each of them whole or not at all.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Part;
use crate::change::{Change, Op, Transaction};
use crate::json;
use crate::last_image::ImageMark;
use crate::meta::Meta;
use crate::position::{CommitEnd, Seq};
use crate::relation::Relation;

/// A part grew past what its offsets can address (4 GiB of JSON).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a transaction part is over 4 GiB of JSON; its last row cannot be delivered")]
pub struct PartTooLarge;

/// Room for the JSON of a small transaction, in bytes.
const JSON_BYTES_MIN: usize = 256;

/// Collects the changes of one [`Part`].
#[derive(Debug)]
pub struct PartBuilder {
    transaction: Arc<Transaction>,
    meta: Option<Arc<Meta>>,
    first: Seq,
    changes: Vec<Change>,
    json: Vec<u8>,
}

impl PartBuilder {
    /// An empty part whose first change will be `first`.
    #[must_use]
    pub fn new(transaction: Arc<Transaction>, first: Seq) -> Self {
        Self { transaction, meta: None, first, changes: Vec::new(), json: Vec::with_capacity(JSON_BYTES_MIN) }
    }

    /// The same with what the transaction says about itself.
    #[must_use]
    pub fn with_meta(self, meta: Option<Arc<Meta>>) -> Self {
        Self { meta, ..self }
    }

    /// What the transaction says about itself.
    #[must_use]
    pub const fn meta(&self) -> Option<&Arc<Meta>> {
        self.meta.as_ref()
    }

    /// Whether no change was finished yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The number of changes so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.changes.len()
    }

    /// Bytes of JSON so far.
    #[must_use]
    pub const fn json_bytes(&self) -> usize {
        self.json.len()
    }

    /// The row of the last change that was finished.
    #[must_use]
    pub fn last_row(&self) -> Option<&[u8]> {
        let row = &self.changes.last()?.row;
        self.json.get(row.start as usize..row.end as usize)
    }

    /// The transaction that is being collected.
    #[must_use]
    pub const fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// The seq that the next change will have.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.first.plus(self.changes.len())
    }

    /// Starts a change; it counts when [`ChangeWriter::finish`] is called, and leaves no trace otherwise.
    pub fn change(&mut self, op: Op, relation: &Arc<Relation>) -> ChangeWriter<'_> {
        let before = self.json.len();
        if before > 0 {
            self.json.push(b',');
        }
        let start = self.json.len();
        for piece in ["{\"op\":\"", op.as_str(), "\",", relation.table_json()] {
            self.json.extend_from_slice(piece.as_bytes());
        }
        let none = || 0..0;
        ChangeWriter {
            part: self,
            before,
            start,
            op,
            relation: Arc::clone(relation),
            image: None,
            key: none(),
            row: none(),
            old: none(),
            unchanged: none(),
            finished: false,
        }
    }

    /// Closes the part: with the commit record's end for the last one of its transaction, without for the others.
    /// Call it only when it is not empty.
    #[must_use]
    pub fn finish(mut self, end: Option<CommitEnd>) -> Part {
        debug_assert!(!self.changes.is_empty(), "a part is never empty");
        // Up to half of what grew by doubling is empty, and would be held uncounted for as long as the part.
        self.changes.shrink_to_fit();
        self.json.shrink_to_fit();
        Part {
            transaction: self.transaction,
            meta: self.meta,
            first: self.first,
            end,
            changes: self.changes,
            json: Bytes::from(self.json),
        }
    }
}

/// Writes one change, its texts in the order key, row, old, unchanged; each of them at most once.
#[derive(Debug)]
pub struct ChangeWriter<'a> {
    part: &'a mut PartBuilder,
    before: usize,
    start: usize,
    op: Op,
    relation: Arc<Relation>,
    image: Option<ImageMark>,
    key: Range<usize>,
    row: Range<usize>,
    old: Range<usize>,
    unchanged: Range<usize>,
    finished: bool,
}

impl ChangeWriter<'_> {
    fn text<E>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        self.part.json.extend_from_slice(name.as_bytes());
        let start = self.part.json.len();
        write(&mut self.part.json)?;
        Ok(start..self.part.json.len())
    }

    /// The key: `write` appends one JSON object.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn key<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.key = self.text(",\"key\":", write)?;
        Ok(())
    }

    /// The new row: `write` appends one JSON object.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn row<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.row = self.text(",\"row\":", write)?;
        Ok(())
    }

    /// The new row as it was written; empty before that.
    #[must_use]
    pub fn row_json(&self) -> &[u8] {
        self.part.json.get(self.row.clone()).unwrap_or_default()
    }

    /// What the change does to last images.
    pub fn image(&mut self, mark: ImageMark) {
        self.image = Some(mark);
    }

    /// The whole old row: `write` appends one JSON object.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn old<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.old = self.text(",\"old\":", write)?;
        Ok(())
    }

    /// The names of columns that the row leaves out; nothing is written when there are none.
    pub fn unchanged<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        let write = |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
            for (index, name) in names.enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                json::write_string(out, name);
            }
            out.push(b']');
            Ok(())
        };
        let Ok(range) = self.text(",\"unchanged\":", write);
        self.unchanged = range;
    }

    /// Like [`ChangeWriter::unchanged`], from the JSON array that was stored.
    pub fn unchanged_json(&mut self, array: &[u8]) {
        let write = |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
            out.extend_from_slice(array);
            Ok(())
        };
        let Ok(range) = self.text(",\"unchanged\":", write);
        self.unchanged = range;
    }

    /// Completes the change.
    ///
    /// # Errors
    /// When the part's JSON is over 4 GiB; the change is then taken back.
    pub fn finish(mut self) -> Result<(), PartTooLarge> {
        self.part.json.push(b'}');
        let end = self.part.json.len();
        if u32::try_from(end).is_err() {
            return Err(PartTooLarge);
        }
        // Every offset is at most `end`, so none is cut.
        let narrow = |range: &Range<usize>| range.start as u32..range.end as u32;
        self.finished = true;
        let change = Change {
            op: self.op,
            relation: Arc::clone(&self.relation),
            image: self.image.take(),
            json: narrow(&(self.start..end)),
            key: narrow(&self.key),
            row: narrow(&self.row),
            old: narrow(&self.old),
            unchanged: narrow(&self.unchanged),
        };
        self.part.changes.push(change);
        Ok(())
    }
}

impl Drop for ChangeWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.part.json.truncate(self.before);
        }
    }
}
