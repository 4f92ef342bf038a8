//! Changes in parts of transactions, as JSON that is written once.
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

mod builder;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::{Change, Transaction};
use crate::meta::Meta;
use crate::position::{CommitEnd, Cursor, Seq};
pub use builder::{ChangeWriter, PartBuilder, PartTooLarge};

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::PartBuilder;
    use crate::{
        CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Relation, RelationName, ReplicaIdentity, Seq,
        Timestamp, Transaction, Xid,
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
