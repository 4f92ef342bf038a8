//! The transaction that is being read.

use std::sync::Arc;

use walcast_model::{
    CommitEnd, Cursor, DatabaseMessage, Meta, Part, PartBuilder, Relation, Seq, Transaction, Xid,
};
use walcast_pgoutput::Begin;

/// A transaction between its `Begin` and its `Commit`: holds one part at most.
#[derive(Debug)]
pub(super) struct Open {
    /// The part that is being filled.
    pub(super) builder: PartBuilder,
    /// Barriers that were read in it.
    pub(super) barriers: Vec<String>,
    /// What it says to channels, when it commits.
    pub(super) messages: Vec<DatabaseMessage>,
    pub(super) messages_bytes: usize,
    /// What it says about itself from here on.
    pub(super) meta: Option<Arc<Meta>>,
    /// The table that the `walcast.rows` messages from here on are about.
    pub(super) rows_of: Option<Arc<Relation>>,
    /// The number that the next change has, rendered or not.
    next: i64,
    /// The first change that the feed does not have.
    first: i64,
}

impl Open {
    /// A transaction of which the feed has what lies before `position`.
    pub(super) fn new(begin: &Begin, xid: Xid, position: Cursor) -> Self {
        let start = begin.start.lsn();
        // Skipped is exactly what is before the position: (start, seq) < position.
        let first = match start.cmp(&position.lsn()) {
            std::cmp::Ordering::Less => i64::MAX,
            std::cmp::Ordering::Equal => position.seq().get().max(0),
            std::cmp::Ordering::Greater => 0,
        };
        let transaction = Transaction { start: begin.start, xid, committed_at: begin.committed_at };
        Self {
            builder: PartBuilder::new(Arc::new(transaction), Seq::new(first)),
            barriers: Vec::new(),
            messages: Vec::new(),
            messages_bytes: 0,
            meta: None,
            rows_of: None,
            next: 0,
            first,
        }
    }

    /// Whether the next change is to be rendered.
    pub(super) const fn wants_next(&self) -> bool {
        self.next >= self.first
    }

    /// Whether the feed has all of it: it was sent again.
    pub(super) const fn is_past(&self) -> bool {
        self.first == i64::MAX
    }

    /// Counts a change and makes room for it, closing the part when it is full: whether it is to be rendered.
    pub(super) fn next_change(&mut self, part_bytes_max: usize, parts: &mut Vec<Part>) -> bool {
        let wanted = self.wants_next();
        self.next += 1;
        if !wanted {
            return false;
        }
        let says_another = self.builder.meta() != self.meta.as_ref();
        if says_another || self.builder.json_bytes() >= part_bytes_max {
            let next = PartBuilder::new(Arc::clone(self.builder.transaction()), self.builder.next_seq())
                .with_meta(self.meta.clone());
            let full = std::mem::replace(&mut self.builder, next);
            if !full.is_empty() {
                parts.push(full.finish(None));
            }
        }
        true
    }

    /// The transaction, when it has changes and the feed has them all.
    pub(super) fn sent_again(&self) -> Option<Transaction> {
        (self.first == i64::MAX && self.next > 0).then(|| Transaction::clone(self.builder.transaction()))
    }

    /// The last part, if the transaction holds any change that the feed does not have, and the barriers.
    pub(super) fn commit(self, end: CommitEnd) -> (Option<Part>, Vec<String>) {
        let part = (!self.builder.is_empty()).then(|| self.builder.finish(Some(end)));
        (part, self.barriers)
    }
}
