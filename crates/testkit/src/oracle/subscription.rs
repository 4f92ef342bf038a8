//! One subscription, message by message, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use walcast_model::{Cursor, Lsn};

use super::change::{Op, Told};
use super::copies::Copies;
use super::definition::Definition;
use super::message::{Message, Part};
use super::sums::Sums;
use super::taken::{Delivered, Storing, Taken};
use super::verdict::{Violation, ViolationKind};

/// A transaction that is coming in.
#[derive(Clone, Debug)]
struct Open {
    delivered: Delivered,
    /// It was cut, and nothing of it came since.
    resumed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not accepted yet.
    Asked,
    /// In an initial sync.
    Syncing,
    Streaming,
}

/// What was stored at some time, to go back to.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    copies: Copies,
    cursor: Cursor,
    sums: Option<Sums>,
}

/// A subscription; see the module.
#[derive(Debug)]
pub struct Subscription {
    storing: Storing,
    /// Subscribed to everything, so that a part's `seq` counts the changes that came.
    everything: bool,
    copies: Copies,
    cursor: Option<Cursor>,
    phase: Phase,
    caught_up: bool,
    relations: BTreeMap<String, Arc<Definition>>,
    open: Option<Open>,
    last: Option<Lsn>,
    /// Kept once an initial sync had pgbench's tables.
    sums: Option<Sums>,
}

fn torn(part: &Part, what: &str) -> Violation {
    Violation::torn(format!("{what}: a part of {} (xid {}), more: {}", part.lsn, part.xid, part.more))
}

impl Subscription {
    /// A subscription that has nothing; `everything` when it is of `*`.
    #[must_use]
    pub fn new(storing: Storing, everything: bool) -> Self {
        Self {
            storing,
            everything,
            copies: Copies::default(),
            cursor: None,
            phase: Phase::Asked,
            caught_up: false,
            relations: BTreeMap::new(),
            open: None,
            last: None,
            sums: None,
        }
    }

    /// One that resumes at `cursor`, with copies that began there.
    #[must_use]
    pub fn at(cursor: Cursor, storing: Storing, everything: bool) -> Self {
        // Inside a transaction, what came of it before is not known here.
        let everything = everything && cursor.seq().get() == 0;
        Self { cursor: Some(cursor), ..Self::new(storing, everything) }
    }

    /// What a client would have stored; the cursor to resume at.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The copies as they are.
    #[must_use]
    pub fn copies(&self) -> &Copies {
        &self.copies
    }

    /// Whether no transaction is coming in.
    #[must_use]
    pub fn is_between_transactions(&self) -> bool {
        self.open.is_none()
    }

    /// The connection is gone: what was not stored is forgotten. An initial sync begins again.
    pub fn cut(&mut self) {
        self.relations.clear();
        self.phase = Phase::Asked;
        self.caught_up = false;
        if self.cursor.is_none() {
            self.begin_anew();
        } else if self.storing == Storing::Transactions {
            self.open = None;
        } else if let Some(open) = &mut self.open {
            open.resumed = true;
        }
    }

    /// Forgets everything: the next subscription has an initial sync.
    pub fn begin_anew(&mut self) {
        self.copies.clear();
        self.cursor = None;
        self.open = None;
        self.last = None;
        self.sums = None;
    }

    /// What is stored, to [go back](Self::go_back) to; `None` inside a transaction and before the first cursor.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let cursor = self.cursor.filter(|_| self.open.is_none())?;
        Some(Checkpoint { copies: self.copies.clone(), cursor, sums: self.sums.clone() })
    }

    /// As [`cut`](Self::cut), with what was stored earlier, as a client that is restored from a backup.
    pub fn go_back(&mut self, checkpoint: Checkpoint) {
        self.cut();
        self.open = None;
        self.last = None;
        self.copies = checkpoint.copies;
        self.cursor = Some(checkpoint.cursor);
        self.sums = checkpoint.sums;
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// When the protocol does not allow it here.
    pub fn take(&mut self, text: &str) -> Result<Vec<Taken>, Violation> {
        let message = Message::parse(text)?;
        let mut taken = Vec::new();
        match message {
            Message::Subscribed { mode, cursor } => taken.push(self.subscribed(mode, cursor)?),
            Message::Relation { table, definition } => {
                self.copies.define(&table, &definition);
                self.relations.insert(table, definition);
                taken.push(Taken::Other("relation"));
            }
            Message::Snapshot { table, rows } => {
                if self.phase != Phase::Syncing {
                    return Err(Violation::wrong(format!("rows of {table} outside of an initial sync")));
                }
                for row in &rows {
                    self.copies.load(&table, row).map_err(Violation::wrong)?;
                }
                taken.push(Taken::Other("snapshot"));
            }
            Message::SnapshotComplete { cursor } => {
                self.between("snapshot_complete")?;
                if self.phase != Phase::Syncing {
                    return Err(Violation::wrong("snapshot_complete without an initial sync"));
                }
                self.phase = Phase::Streaming;
                self.cursor = Some(cursor);
                self.sums = Sums::of(&self.copies);
                self.check_sums("the end of the initial sync")?;
                taken.push(Taken::Synced(cursor));
            }
            Message::Transaction(part) => self.part(part, &mut taken)?,
            Message::CaughtUp { cursor } => {
                self.pass(cursor, "caught_up", &mut taken)?;
                if std::mem::replace(&mut self.caught_up, true) {
                    return Err(Violation::wrong("caught_up twice"));
                }
                taken.push(Taken::CaughtUp(cursor));
            }
            Message::Heartbeat { cursor: Some(cursor) } => {
                self.pass(cursor, "heartbeat", &mut taken)?;
                taken.push(Taken::Passed(cursor));
            }
            Message::Heartbeat { cursor: None } => taken.push(Taken::Other("heartbeat")),
            Message::Error(refusal) => taken.push(Taken::Refused(refusal)),
            Message::Other(kind) => taken.push(Taken::Other(match kind.as_str() {
                "status" => "status",
                "waiting" => "waiting",
                "welcome" => "welcome",
                _ => return Err(Violation::wrong(format!("a message of the unknown type {kind}"))),
            })),
        }
        Ok(taken)
    }

    fn subscribed(&mut self, mode: String, cursor: Cursor) -> Result<Taken, Violation> {
        let allowed = match (self.phase, mode.as_str()) {
            (Phase::Asked, "snapshot") => self.cursor.is_none(),
            (Phase::Asked, "catchup" | "live") => self.cursor == Some(cursor),
            (Phase::Syncing, "snapshot") => true,
            _ => false,
        };
        if !allowed {
            let (phase, asked) = (self.phase, self.cursor);
            return Err(Violation::wrong(format!(
                "subscribed with mode {mode} at {cursor}, asked at {asked:?}, {phase:?}"
            )));
        }
        if mode == "snapshot" {
            // Also said when an initial sync starts over: what came of it is void.
            self.begin_anew();
            self.relations.clear();
            self.phase = Phase::Syncing;
        } else {
            self.phase = Phase::Streaming;
        }
        Ok(Taken::Subscribed(mode))
    }

    fn between(&self, kind: &str) -> Result<(), Violation> {
        match &self.open {
            Some(open) if !open.resumed => {
                Err(Violation::torn(format!("{kind} in the middle of transaction {}", open.delivered.lsn)))
            }
            _ => Ok(()),
        }
    }

    /// A cursor that may be stored because everything before it has come.
    fn pass(&mut self, cursor: Cursor, kind: &str, taken: &mut Vec<Taken>) -> Result<(), Violation> {
        self.between(kind)?;
        if self.phase != Phase::Streaming {
            return Err(Violation::wrong(format!("{kind} with cursor {cursor} while {:?}", self.phase)));
        }
        if self.cursor.is_some_and(|stored| cursor < stored) {
            let stored = self.cursor;
            return Err(Violation::wrong(format!("{kind} leads back from {stored:?} to {cursor}")));
        }
        if self.open.as_ref().is_some_and(|open| cursor.lsn() > open.delivered.lsn) {
            taken.extend(self.close()?);
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    fn part(&mut self, part: Part, taken: &mut Vec<Taken>) -> Result<(), Violation> {
        if self.phase == Phase::Asked {
            return Err(Violation::wrong(format!("transaction {} before subscribed", part.lsn)));
        }
        if self.open.as_ref().is_some_and(|open| open.resumed && open.delivered.lsn != part.lsn) {
            taken.extend(self.close()?);
        }
        let mut open = match self.open.take() {
            Some(open) if (open.delivered.lsn, open.delivered.xid) == (part.lsn, part.xid) => open,
            Some(open) => {
                return Err(torn(&part, &format!("transaction {} is not finished", open.delivered.lsn)));
            }
            None => {
                if let Some(last) = self.last.filter(|last| *last >= part.lsn) {
                    let kind =
                        if last == part.lsn { ViolationKind::Repeated } else { ViolationKind::Reordered };
                    return Err(Violation::new(
                        kind,
                        format!("transaction {} (xid {}) after {last}", part.lsn, part.xid),
                    ));
                }
                if part.changes.is_empty() {
                    return Err(torn(&part, "a transaction without changes"));
                }
                let delivered =
                    Delivered { lsn: part.lsn, xid: part.xid, cursor: None, changes: Vec::new(), parts: 0 };
                Open { delivered, resumed: false }
            }
        };
        open.resumed = false;
        open.delivered.parts += 1;
        self.check_cursor(&part, &open.delivered)?;
        let applied_before = open.delivered.changes.len();
        for change in &part.changes {
            let definition = self
                .relations
                .get(&*change.table)
                .ok_or_else(|| Violation::wrong(format!("{} before its relation: {change}", change.table)))?;
            let allowed = definition.allows(change);
            allowed.map_err(|what| Violation::wrong(format!("{what}: {change} in {}", part.lsn)))?;
        }
        open.delivered.changes.extend(part.changes);
        open.delivered.cursor = part.cursor;
        if self.storing == Storing::Parts {
            for change in &open.delivered.changes[applied_before..] {
                self.apply(change, part.lsn)?;
            }
        }
        if part.more {
            if self.storing == Storing::Parts {
                self.cursor = part.cursor.or(self.cursor);
            }
            self.open = Some(open);
            taken.push(Taken::Other("part"));
            return Ok(());
        }
        self.open = Some(open);
        self.cursor = part.cursor.or(self.cursor);
        taken.extend(self.close()?);
        Ok(())
    }

    /// The transaction that is coming in is complete.
    fn close(&mut self) -> Result<Option<Taken>, Violation> {
        let Some(Open { mut delivered, resumed }) = self.open.take() else { return Ok(None) };
        if resumed {
            // That of its last part, which is not the transaction's end.
            delivered.cursor = None;
        }
        if self.storing == Storing::Transactions {
            for change in &delivered.changes {
                self.apply(change, delivered.lsn)?;
            }
        }
        self.last = Some(delivered.lsn);
        self.check_sums(&format!("transaction {}", delivered.lsn))?;
        Ok(Some(Taken::Transaction(delivered)))
    }

    fn check_sums(&self, place: &str) -> Result<(), Violation> {
        match self.sums.as_ref().and_then(Sums::disagree) {
            Some(sums) => Err(Violation::torn(format!("after {place} pgbench's sums disagree: {sums}"))),
            None => Ok(()),
        }
    }

    fn check_cursor(&self, part: &Part, before: &Delivered) -> Result<(), Violation> {
        let Some(cursor) = part.cursor else {
            return if self.phase == Phase::Syncing {
                Ok(())
            } else {
                Err(torn(part, "no cursor after the initial sync"))
            };
        };
        if self.phase == Phase::Syncing {
            return Err(torn(part, "a cursor to store before the end of the initial sync"));
        }
        let last = self.cursor.max(before.cursor);
        if last.is_some_and(|last| last >= cursor) {
            return Err(torn(part, &format!("the cursor goes from {last:?} to {cursor}")));
        }
        let fits = if part.more {
            let seq = usize::try_from(cursor.seq().get()).unwrap_or(0);
            let counts = seq == before.changes.len() + part.changes.len() || !self.everything;
            cursor.lsn() == part.lsn && seq > 0 && counts
        } else {
            cursor.lsn() > part.lsn && cursor.seq().get() == 0
        };
        if !fits {
            return Err(torn(part, &format!("the cursor {cursor} does not follow its changes")));
        }
        Ok(())
    }

    fn apply(&mut self, change: &Told, lsn: Lsn) -> Result<(), Violation> {
        let applied = self.copies.apply(change).map_err(|what| {
            let kind = match change.op {
                Op::Insert => ViolationKind::Repeated,
                Op::Update | Op::Delete => ViolationKind::Lost,
                Op::Truncate => ViolationKind::Wrong,
            };
            Violation::new(kind, format!("in {lsn}, {change}: {what}"))
        })?;
        if let (Some(sums), Some(applied)) = (&mut self.sums, &applied) {
            sums.apply(&change.table, applied);
        }
        Ok(())
    }
}
