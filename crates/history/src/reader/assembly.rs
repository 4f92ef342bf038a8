//! Rows of `change_history` become parts again.

use std::sync::Arc;

use tokio_postgres::Row;
use walcast_model::{
    BadMeta, CommitEnd, CommitStart, Cursor, Lsn, Meta, Part, PartBuilder, Relation, Seq, Transaction, Xid,
};

use super::Page;
use crate::Error;
use crate::column::{Raw, get, lsn, optional_lsn, timestamp};

/// Collects the rows of a page, and sees to it that none is missing.
pub(super) struct Assembly {
    part_bytes_max: usize,
    parts: Vec<Part>,
    open: Option<PartBuilder>,
    /// Everything before it was seen. Inside a transaction, its next change is exactly here.
    next: Cursor,
    /// Whether `next` is inside a transaction of which more must follow.
    is_inside: bool,
}

impl Assembly {
    pub(super) fn new(from: Cursor, part_bytes_max: usize) -> Self {
        Self { part_bytes_max, parts: Vec::new(), open: None, next: from, is_inside: from.seq() > Seq::FIRST }
    }

    /// Takes the next row of `walcast.page`.
    pub(super) fn push(&mut self, row: &Row, relation: &Arc<Relation>) -> Result<(), Error> {
        let (start, seq) = (lsn(row, 0)?, Seq::new(get(row, 1)?));
        let end = optional_lsn(row, 5)?.map(CommitEnd::new);
        self.expect(Cursor::new(start, seq))?;
        let meta = get::<Option<&str>>(row, 11)?;
        let mut part = match self.open.take() {
            Some(part) if part.json_bytes() < self.part_bytes_max && said(&part) == meta => part,
            full => {
                let continued = full.map(|full| {
                    let transaction = Arc::clone(full.transaction());
                    self.parts.push(full.finish(None));
                    transaction
                });
                let transaction = match continued {
                    Some(transaction) => transaction,
                    None => Arc::new(read_transaction(row, start)?),
                };
                PartBuilder::new(transaction, seq).with_meta(meta.map(read_meta).transpose()?)
            }
        };
        push_change(&mut part, row, relation)?;
        if let Some(end) = end {
            self.parts.push(part.finish(Some(end)));
            (self.next, self.is_inside) = (Cursor::after(end), false);
        } else {
            self.open = Some(part);
            (self.next, self.is_inside) = (Cursor::new(start, seq.plus(1)), true);
        }
        Ok(())
    }

    /// Whether a change at `at` may follow what was seen.
    fn expect(&self, at: Cursor) -> Result<(), Error> {
        let begins = at.seq() <= Seq::FIRST && at >= self.next;
        // A cursor with a seq need not be inside a transaction: a client may have made it up.
        let made_up = self.parts.is_empty() && self.open.is_none() && begins && at.lsn() > self.next.lsn();
        let follows = if self.is_inside { at == self.next || made_up } else { begins };
        if follows { Ok(()) } else { Err(Error::Hole { at: self.next }) }
    }

    /// The page. `exhausted`: nothing more is before this end of the range.
    pub(super) fn finish(mut self, exhausted: Option<Cursor>) -> Result<Page, Error> {
        let is_open = self.open.is_some();
        if let Some(open) = self.open.take() {
            self.parts.push(open.finish(None));
        }
        let next = match exhausted {
            // More of the transaction must be stored before the end of the range.
            Some(to) if is_open && self.next < to => return Err(Error::Hole { at: self.next }),
            Some(to) => to,
            None => self.next,
        };
        Ok(Page { parts: self.parts, next })
    }
}

fn said(part: &PartBuilder) -> Option<&str> {
    part.meta().map(|meta| meta.json())
}

fn read_meta(text: &str) -> Result<Arc<Meta>, Error> {
    let unreadable = |error: BadMeta| Error::Unreadable { what: "meta", problem: error.to_string() };
    Meta::parse(text.as_bytes()).map(Arc::new).map_err(unreadable)
}

fn read_transaction(row: &Row, start: Lsn) -> Result<Transaction, Error> {
    let xid: i64 = get(row, 2)?;
    Ok(Transaction {
        start: CommitStart::new(start),
        xid: Xid::new(xid.cast_unsigned()),
        committed_at: timestamp(row, 3)?,
    })
}

fn push_change(part: &mut PartBuilder, row: &Row, relation: &Arc<Relation>) -> Result<(), Error> {
    let op = get::<&str>(row, 6)?;
    let op = op.parse().map_err(|problem| Error::Unreadable { what: "operation", problem })?;
    let put = |text: Raw<'_>, out: &mut Vec<u8>| -> Result<(), Error> {
        out.extend_from_slice(text.0);
        Ok(())
    };
    let mut change = part.change(op, relation);
    if let Some(text) = get(row, 7)? {
        change.key(|out| put(text, out))?;
    }
    if let Some(text) = get(row, 8)? {
        change.row(|out| put(text, out))?;
    }
    if let Some(text) = get(row, 9)? {
        change.old(|out| put(text, out))?;
    }
    if let Some(Raw(text)) = get(row, 10)? {
        change.unchanged_json(text);
    }
    change.finish().map_err(|error| Error::Unreadable { what: "change", problem: error.to_string() })
}
