//! What happened: changes, in parts of transactions, as JSON that is written once.
//!
//! A [`Part`] holds the wire form of its changes in one buffer:
//!
//! ```text
//! {"op":"insert","table":"public.t","key":{"id":1},"row":{"id":1}},{"op":"delete",…
//! └──────────────────────── Change::json ────────────────────────┘
//!                                   └ key ─┘       └ row ─┘
//! ```
//!
//! The same bytes go to history (key, row, old by themselves) and to every client (the whole change).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::last_image::ImageMark;
use crate::meta::Meta;
use crate::position::{CommitEnd, CommitStart, Cursor, Seq};
use crate::relation::Relation;
use crate::timestamp::Timestamp;
use crate::xid::Xid;

/// What a change does to its row, or to its whole table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A new row.
    Insert,
    /// A row with new content; its key may change too.
    Update,
    /// A row that is gone.
    Delete,
    /// All rows of the table are gone.
    Truncate,
}

impl Op {
    /// The word on the wire and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "insert" => Ok(Self::Insert),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            "truncate" => Ok(Self::Truncate),
            other => Err(format!("{other:?} is not an operation")),
        }
    }
}

/// A committed source transaction, without its changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Where its commit record starts: its place in the feed.
    pub start: CommitStart,
    /// Its top-level transaction id.
    pub xid: Xid,
    /// When it committed, by the source server's clock.
    pub committed_at: Timestamp,
}

/// One change of a [`Part`]: what it is about, and where its texts are in the part's buffer.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it does.
    pub op: Op,
    /// The table as it was when the change was written.
    pub relation: Arc<Relation>,
    /// What it does to last images; `None` where none are kept, and in what history gives back.
    pub image: Option<ImageMark>,
    json: Range<u32>,
    key: Range<u32>,
    row: Range<u32>,
    old: Range<u32>,
    unchanged: Range<u32>,
}

/// A run of consecutive changes of one transaction; a transaction that fits is one part.
///
/// Never empty. Only the last part knows where the commit record ends. What the transaction says about itself holds for
/// all of its changes.
#[derive(Clone, Debug)]
pub struct Part {
    transaction: Arc<Transaction>,
    meta: Option<Arc<Meta>>,
    first: Seq,
    end: Option<CommitEnd>,
    changes: Vec<Change>,
    json: Bytes,
}

impl Part {
    /// The transaction that it is a part of.
    #[must_use]
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// What the transaction had said about itself before these changes.
    #[must_use]
    pub const fn meta(&self) -> Option<&Arc<Meta>> {
        self.meta.as_ref()
    }

    /// The seq of its first change; the others follow without a gap.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// Where the transaction's commit record ends; `None` while more parts follow.
    #[must_use]
    pub const fn end(&self) -> Option<CommitEnd> {
        self.end
    }

    /// The changes in their order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The cursor before its first change.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.transaction.start.lsn(), self.first)
    }

    /// The cursor after its last change.
    #[must_use]
    pub fn next_cursor(&self) -> Cursor {
        let inside = || Cursor::new(self.transaction.start.lsn(), self.first.plus(self.changes.len()));
        self.end.map_or_else(inside, Cursor::after)
    }

    /// All changes as the client protocol has them, separated by commas.
    #[must_use]
    pub const fn json(&self) -> &Bytes {
        &self.json
    }

    /// Memory that the part holds, in bytes, near enough to budget by.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Transaction>()
            + self
                .meta
                .as_ref()
                .map_or(0, |meta| size_of::<Meta>() + meta.json().len() + meta.origin().map_or(0, str::len))
            + self.json.len()
            + self.changes.len() * size_of::<Change>()
    }

    fn text(&self, range: &Range<u32>) -> &[u8] {
        self.json.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    fn optional(&self, range: &Range<u32>) -> Option<&[u8]> {
        (!range.is_empty()).then(|| self.text(range))
    }

    /// The whole change as the client protocol has it.
    #[must_use]
    pub fn change_json(&self, change: &Change) -> &[u8] {
        self.text(&change.json)
    }

    /// The columns by which a client finds the row *as it was before the change*: a JSON object. `None` for
    /// `truncate`, and where the table has neither primary key nor index as replica identity.
    #[must_use]
    pub fn key(&self, change: &Change) -> Option<&[u8]> {
        self.optional(&change.key)
    }

    /// The row after the change: a JSON object of all columns but the unchanged ones; `None` for `delete`
    /// and `truncate`.
    #[must_use]
    pub fn row(&self, change: &Change) -> Option<&[u8]> {
        self.optional(&change.row)
    }

    /// The whole row before the change: a JSON object; under `REPLICA IDENTITY FULL`, or where a last image was kept.
    #[must_use]
    pub fn old(&self, change: &Change) -> Option<&[u8]> {
        self.optional(&change.old)
    }

    /// Columns of the row that were not written and that the WAL did not carry: a JSON array of names.
    #[must_use]
    pub fn unchanged(&self, change: &Change) -> Option<&[u8]> {
        self.optional(&change.unchanged)
    }
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Op, PartBuilder, Transaction};
    use crate::{
        CommitEnd, CommitStart, Cursor, Lsn, Oid, Relation, RelationName, ReplicaIdentity, Seq, Timestamp,
        Xid,
    };

    fn builder(first: i64) -> PartBuilder {
        let transaction = Transaction {
            start: CommitStart::new(Lsn::new(100)),
            xid: Xid::new(7),
            committed_at: Timestamp::default(),
        };
        PartBuilder::new(Arc::new(transaction), Seq::new(first))
    }

    fn relation() -> Arc<Relation> {
        let name = RelationName::new("public", "t");
        Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, Vec::new()))
    }

    fn put(text: &'static str) -> impl FnOnce(&mut Vec<u8>) -> Result<(), String> {
        move |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    #[test]
    fn a_part_keeps_wire_form_and_pieces_in_one_buffer() {
        let (mut builder, relation) = (builder(0), relation());
        let mut change = builder.change(Op::Update, &relation);
        change.key(put(r#"{"id":1}"#)).unwrap();
        change.row(put(r#"{"id":2}"#)).unwrap();
        change.unchanged(["big", "q\""]);
        change.finish().unwrap();
        builder.change(Op::Truncate, &relation).finish().unwrap();
        let part = builder.finish(Some(CommitEnd::new(Lsn::new(120))));
        let [update, truncate] = part.changes() else { panic!("two changes") };
        let wire =
            r#"{"op":"update","table":"public.t","key":{"id":1},"row":{"id":2},"unchanged":["big","q\""]}"#;
        assert_eq!(part.change_json(update), wire.as_bytes());
        assert_eq!(part.key(update), Some(br#"{"id":1}"#.as_slice()));
        assert_eq!(part.row(update), Some(br#"{"id":2}"#.as_slice()));
        assert_eq!(part.old(update), None);
        assert_eq!(part.unchanged(update), Some(br#"["big","q\""]"#.as_slice()));
        assert_eq!(part.change_json(truncate), br#"{"op":"truncate","table":"public.t"}"#);
        assert_eq!(part.json().as_ref(), [wire.as_bytes(), part.change_json(truncate)].join(&b','));
        assert_eq!((part.cursor(), part.next_cursor()), (Lsn::new(100).into(), Lsn::new(120).into()));
    }

    #[test]
    fn an_unfinished_change_leaves_no_trace() {
        let (mut builder, relation) = (builder(5), relation());
        builder.change(Op::Truncate, &relation).finish().unwrap();
        let mut change = builder.change(Op::Insert, &relation);
        assert!(change.row(|_| Err("bad value")).is_err());
        drop(change);
        let part = builder.finish(None);
        assert_eq!(part.json().as_ref(), br#"{"op":"truncate","table":"public.t"}"#);
        assert_eq!(part.next_cursor(), Cursor::new(Lsn::new(100), Seq::new(6)));
    }
}
