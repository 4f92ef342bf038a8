//! From the request to the place where the session starts.

use std::sync::Arc;

use walcast_model::Cursor;
use walcast_protocol::{Mode, StartAt};

use super::binding::{Given, Then};
use super::streaming::Stream;
use super::syncing::Sync;
use super::{Phase, Question, Session, Turn, Wait, unknown_table};
use crate::acks::Position;
use crate::past::KnownTable;
use crate::refusal::Refusal;
use crate::wanted::Origin;

impl Session {
    pub(super) fn pass_gate(&mut self) -> Turn {
        if self.world.gate.is_open() {
            self.phase = match self.start {
                StartAt::Acked => Phase::Acked { asked: false },
                _ => Phase::Tables { asked: false },
            };
            // Once more: what the initial poll brought may have shown where an earlier feed really ended.
            if let (Some(feed), StartAt::At(cursor)) = (&self.feed, self.start)
                && let Err(refusal) = self.world.lineage.check(feed, cursor, &self.world.feed_id)
            {
                self.refuse(refusal);
            }
            return Turn::Again;
        }
        self.waiting("the daemon has not yet read everything that was committed before it started");
        if self.frames.is_empty() { Turn::Wait(Wait::Gate) } else { Turn::Again }
    }

    pub(super) const fn ask_acked(&mut self) -> Turn {
        let Phase::Acked { asked } = &mut self.phase else { return Turn::Again };
        if *asked {
            return Turn::Wait(Wait::Answer);
        }
        *asked = true;
        Turn::Ask(Question::Acked)
    }

    /// Goes on where the client has acknowledged, as if it had said so itself.
    pub(super) fn acked(&mut self, acked: Option<Position>) {
        if !matches!(self.phase, Phase::Acked { .. }) {
            return;
        }
        self.start = match acked {
            None => StartAt::Snapshot,
            // What changes from there on tell neither of rows that it may no longer have nor of those that it may have since.
            Some(Position { rights, .. }) if rights.as_deref() != self.rights().as_deref() => {
                tracing::debug!(id = %self.id, "a subscription starts over: its client acknowledged under other rights");
                StartAt::Snapshot
            }
            Some(Position { feed, cursor, .. }) => {
                if let Some(feed) = &feed
                    && let Err(refusal) = self.world.lineage.check(feed, cursor, &self.world.feed_id)
                {
                    return self.refuse(refusal);
                }
                StartAt::At(cursor)
            }
        };
        self.phase = Phase::Tables { asked: false };
    }

    pub(super) const fn ask_tables(&mut self) -> Turn {
        let Phase::Tables { asked } = &mut self.phase else { return Turn::Again };
        if *asked {
            return Turn::Wait(Wait::Answer);
        }
        *asked = true;
        Turn::Ask(Question::Tables { now: matches!(self.start, StartAt::Snapshot) })
    }

    /// The published tables, asked for at the start or after the rows of an initial sync.
    pub(super) fn tables(&mut self, tables: Result<Arc<Vec<KnownTable>>, Refusal>) {
        match (&self.phase, tables) {
            (Phase::Syncing(_), tables) => self.relisted(tables),
            (Phase::Tables { .. }, tables) => match (self.start, tables) {
                (StartAt::Snapshot, Err(refusal)) => self.refuse(refusal),
                (StartAt::Snapshot, Ok(tables)) => {
                    // What is unknown is left to the initial sync, which can say more about it; what it does not look at
                    // is not.
                    let known = self.knows_all_named(&tables);
                    match self.check(&tables) {
                        Err(refusal) if known => self.refuse(refusal),
                        _ => self.bind_before(Then::Sync { published: tables, relists: 0 }),
                    }
                }
                (_, Ok(tables)) => match self.check(&tables) {
                    Ok(()) => self.bind_before(Then::Resume { published: tables }),
                    Err(refusal) => self.refuse(refusal),
                },
                // A source that is away must not keep anybody from history. What filters need is asked for when they do.
                (_, Err(_)) => self.resume_unbound(),
            },
            // Nobody asked.
            _ => {}
        }
    }

    fn knows_all_named(&self, tables: &[KnownTable]) -> bool {
        self.shape.key().named().all(|(name, _)| tables.iter().any(|table| table.name == *name))
    }

    /// Whether what the subscription names exists, as far as its client may know.
    fn check(&self, tables: &[KnownTable]) -> Result<(), Refusal> {
        for (name, selection) in self.shape.key().named() {
            let table = tables.iter().find(|table| table.name == *name).ok_or_else(|| unknown_table(name))?;
            let Origin::Named { columns } = &selection.origin else { continue };
            let mut columns = columns.iter().filter(|column| selection.may_know(column));
            if let Some(unknown) = columns.find(|column| !table.columns.contains(column)) {
                let message = format!("{name} has no published column {unknown:?}");
                let known = table.columns.iter().filter(|column| selection.may_know(column));
                let known: Vec<&str> = known.map(String::as_str).collect();
                return Err(Refusal::bad(message).hint(format!("published are {}", known.join(", "))));
            }
        }
        Ok(())
    }

    pub(super) fn begin_sync(&mut self, tables: &[KnownTable], relists: u32) {
        let wanted = Sync::tables_of(&self.shape, tables);
        self.phase = Phase::Syncing(Sync::new(wanted, relists));
        self.subscribed(Mode::Snapshot, Cursor::ZERO);
    }

    pub(super) fn resume(&mut self) {
        let cursor = match self.start {
            StartAt::At(cursor) => cursor,
            // The head may be inside a transaction: start with the whole of it.
            _ => self.world.feed.head().lsn().into(),
        };
        self.phase = Phase::Place { cursor, asked: false };
    }

    /// Whether the cursor is one that can be served.
    pub(super) fn place(&mut self) -> Turn {
        let Phase::Place { cursor, asked } = self.phase else { return Turn::Again };
        if asked {
            return Turn::Wait(Wait::Answer);
        }
        let feed = &self.world.feed;
        if cursor > feed.head() {
            // Every position that anybody can have read is before the barrier that was written after it was asked
            // for; a feed that has just started may still have to read up to both.
            if let Some(barrier) = self.barrier.filter(|barrier| *barrier < cursor) {
                self.refuse(Refusal::ahead(cursor, barrier));
                return Turn::Again;
            }
            self.waiting("the cursor is ahead of what the daemon has read from its slot so far");
            return if self.frames.is_empty() { Turn::Wait(Wait::Head(cursor)) } else { Turn::Again };
        }
        if cursor >= feed.oldest() {
            self.placed(None);
            return Turn::Again;
        }
        self.phase = Phase::Place { cursor, asked: true };
        Turn::Ask(Question::Oldest)
    }

    /// Starts at the cursor, unless history, which is needed when `oldest` is given, does not reach back to it.
    pub(super) fn placed(&mut self, oldest: Option<Cursor>) {
        let Phase::Place { cursor, .. } = self.phase else { return };
        if let Some(oldest) = oldest.filter(|oldest| cursor < *oldest) {
            return self.refuse(Refusal::too_old(cursor, oldest));
        }
        self.world.router.listen(&self.shape);
        let mut stream = Stream::resume(cursor);
        if !matches!(self.given, Given::None) {
            stream.alone_until = self.world.router.seen();
        }
        self.phase = Phase::Streaming(stream);
        self.first_cursor = cursor;
        self.subscribed(if oldest.is_none() { Mode::Live } else { Mode::Catchup }, cursor);
    }
}
