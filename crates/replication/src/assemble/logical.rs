//! Logical messages: barriers, what transactions say about themselves and to channels, and rows that were there before their table was picked up.

use std::sync::Arc;

use tokio::time::Instant;
use walcast_feed::LogPace;
use walcast_model::{Cursor, DatabaseMessage, Lsn, Meta, Op};
use walcast_pgoutput::LogicalMessage;

use super::relation::Entry;
use super::rows_message::{self, RowsMessage};
use super::{AssembleError, Assembler, BARRIER_PREFIX, MESSAGE_PREFIX, META_PREFIX, ROWS_PREFIX, infallible};
use crate::metrics::MESSAGES_IGNORED_TOTAL;

/// A barrier's id is 32 characters; what is longer than this many bytes is none.
const BARRIER_BYTES_MAX: usize = 64;
/// Barriers of one transaction that are remembered until its commit. walcast writes one per transaction; any role
/// may write as many as it likes, and those beyond the limit are counted and forgotten.
const BARRIERS_PER_TRANSACTION_MAX: usize = 1024;

/// What one transaction says to channels, in bytes, which is held until its commit; more by one message. Those beyond it
/// are counted and not told.
const MESSAGES_PER_TRANSACTION_BYTES_MAX: usize = 1 << 20;

/// When it is logged again what messages are wrong: any role of the database can write as many as it likes.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    meta: LogPace,
    message: LogPace,
    rows: LogPace,
}

impl Assembler {
    pub(super) fn logical(&mut self, message: &LogicalMessage) -> Result<(), AssembleError> {
        if !message.transactional {
            self.not_transactional(message);
            return Ok(());
        }
        let open = self.transaction.as_mut().ok_or(AssembleError::Misplaced { message: "a message" })?;
        match message.prefix.as_bytes() {
            prefix if prefix == BARRIER_PREFIX.as_bytes() => {
                let id = (message.content.len() <= BARRIER_BYTES_MAX)
                    .then(|| std::str::from_utf8(&message.content).ok())
                    .flatten();
                match id {
                    None => ignored("malformed"),
                    Some(_) if open.barriers.len() >= BARRIERS_PER_TRANSACTION_MAX => ignored("too_many"),
                    Some(id) => open.barriers.push(id.to_owned()),
                }
                Ok(())
            }
            prefix if prefix == META_PREFIX.as_bytes() => {
                let meta = Meta::parse(&message.content).inspect_err(|problem| {
                    ignored("bad_meta");
                    if let Some(unlogged) = self.complaints.meta.due(Instant::now()) {
                        let xid = open.builder.transaction().xid;
                        tracing::warn!(%xid, %problem, unlogged, "left out what a transaction says about itself");
                    }
                });
                // What it said before holds no longer: this was to replace it.
                open.meta = meta.ok().map(Arc::new);
                Ok(())
            }
            prefix if prefix == MESSAGE_PREFIX.as_bytes() => {
                // What was sent again was told before, or to nobody.
                if open.is_past() {
                    return Ok(());
                }
                let lsn = open.builder.transaction().start.lsn();
                if open.messages_bytes >= MESSAGES_PER_TRANSACTION_BYTES_MAX {
                    ignored("too_many");
                } else if let Some(said) = parse(lsn, &message.content, &mut self.complaints) {
                    open.messages_bytes += said.memory_bytes();
                    open.messages.push(said);
                }
                Ok(())
            }
            prefix if prefix == ROWS_PREFIX.as_bytes() => self.rows(&message.content),
            _ => {
                ignored("other_prefix");
                Ok(())
            }
        }
    }

    /// What is said in no transaction, or whatever becomes of the one that it was said in: only to channels. There is nothing
    /// else that the prefix of transactions could mean here.
    fn not_transactional(&mut self, message: &LogicalMessage) {
        let prefix = message.prefix.as_bytes();
        if prefix != MESSAGE_PREFIX.as_bytes() && prefix != META_PREFIX.as_bytes() {
            ignored("not_transactional");
        } else if message.lsn <= self.said_to {
            ignored("told_before");
        } else {
            self.said_to = message.lsn;
            let said = parse(message.lsn, &message.content, &mut self.complaints);
            self.output.messages.extend(said);
        }
    }

    /// Rows that were there before their table was picked up: they stand in the WAL right before its first changes.
    fn rows(&mut self, content: &[u8]) -> Result<(), AssembleError> {
        let Some(open) = self.transaction.as_mut() else { return Ok(()) };
        let Some(message) = RowsMessage::parse(content, self.settings.secret.as_bytes()) else {
            ignored("unknown_secret");
            if let Some(unlogged) = self.complaints.rows.due(Instant::now()) {
                tracing::warn!(unlogged, "ignored a {ROWS_PREFIX} message that this feed did not write");
            }
            return Ok(());
        };
        let (op, relation, row) = match message {
            RowsMessage::Header(header) => {
                let replace = header.replace;
                let relation = header.into_relation();
                let relation = match self.relations.get(&relation.oid()) {
                    Some(Entry::Known(known)) if *known.relation == relation => known.relation.clone(),
                    _ => relation.into(),
                };
                open.rows_of = Some(relation.clone());
                if !replace {
                    return Ok(());
                }
                (Op::Truncate, relation, None)
            }
            RowsMessage::Row(row) => match &open.rows_of {
                Some(relation) => (Op::Insert, relation.clone(), Some(row)),
                None => {
                    ignored("malformed");
                    return Ok(());
                }
            },
        };
        if !open.next_change(self.settings.part_bytes_max, &mut self.output.parts) {
            return Ok(());
        }
        // Such rows have no mark, and so the table has no images after them.
        if let Some(images) = &mut self.images {
            let at = Cursor::new(open.builder.transaction().start.lsn(), open.builder.next_seq());
            images.clear(relation.oid(), at);
        }
        let mut change = open.builder.change(op, &relation);
        if let Some(row) = row {
            if relation.columns().iter().any(|column| column.key) {
                infallible(change.key(|out| rows_message::key(&relation, row, out)));
            }
            infallible(change.row(|out| {
                out.extend_from_slice(row);
                Ok(())
            }));
        }
        change.finish().map_err(|_| AssembleError::TooLarge { relation: relation.name().to_string() })
    }
}

fn parse(lsn: Lsn, content: &[u8], complaints: &mut Complaints) -> Option<DatabaseMessage> {
    let parsed = DatabaseMessage::parse(lsn, content);
    parsed
        .inspect_err(|problem| {
            ignored("bad_message");
            if let Some(unlogged) = complaints.message.due(Instant::now()) {
                tracing::warn!(%lsn, %problem, unlogged, "left out a message to a channel");
            }
        })
        .ok()
}

fn ignored(reason: &'static str) {
    metrics::counter!(MESSAGES_IGNORED_TOTAL, "reason" => reason).increment(1);
}
