//! What a client was told, and the oracle: every message is compared with the log, as it comes.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use walcast_model::{Cursor, Lsn, Snapshot, Xid};
use walcast_protocol::{Mode, ServerMessage, SnapshotRows, TransactionMessage};

use super::source::{Effect, Logged, Source};

/// Which rows of a table that it names a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Rows {
    #[default]
    Every,
    One(u32),
    Below(u32),
    Odd,
    /// By a condition that no index finds.
    Even,
}

impl Rows {
    pub(super) const ALL: [Self; 8] = [
        Self::Every,
        Self::One(2),
        Self::Below(3),
        Self::Odd,
        Self::Every,
        Self::One(4),
        Self::Even,
        Self::Below(1),
    ];

    pub(super) const fn has(self, id: u32) -> bool {
        match self {
            Self::Every => true,
            Self::One(one) => id == one,
            Self::Below(end) => id < end,
            Self::Odd => id % 2 == 1,
            Self::Even => id.is_multiple_of(2),
        }
    }

    /// As it stands in a subscription, after a comma.
    pub(super) fn filter(self) -> String {
        let condition = match self {
            Self::Every => return String::new(),
            Self::One(one) => format!("id = {one}"),
            Self::Below(end) => format!("id < {end}"),
            Self::Odd => "id IN (1, 3, 5)".to_owned(),
            Self::Even => "id <> 1 AND id <> 3 AND NOT id = 5".to_owned(),
        };
        format!(r#","where":"{condition}""#)
    }
}

/// A client's copy of the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    rows: BTreeMap<(String, u64), String>,
    /// The tables of the initial sync.
    pub(super) oids: HashMap<String, u32>,
}

/// What a client has stored: its cursor, and its copy as of then.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) cursor: Cursor,
    copy: Option<Copy>,
    open: Option<Lsn>,
}

/// The seam of an initial sync.
#[derive(Clone, Debug)]
pub(super) struct Seam {
    pub(super) snapshot: Snapshot,
    pub(super) barrier: Cursor,
    /// The tables whose rows were sent.
    pub(super) tables: Vec<(String, u32)>,
}

/// What a connection of a client was told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The tables that it asked for; `None` for all.
    names: Option<Vec<String>>,
    /// The rows of them that it asked for.
    rows: Rows,
    /// Everything of its tables before it was delivered.
    next: Cursor,
    pub(super) seam: Option<Seam>,
    is_syncing: bool,
    pub(super) copy: Option<Copy>,
    known: HashMap<String, Vec<String>>,
    /// The newest cursor.
    last: Cursor,
    open: Option<Lsn>,
    pub(super) is_subscribed: bool,
    pub(super) is_caught_up: bool,
    /// Where the WAL ended when it asked.
    asked_at: u64,
    pub(super) stored: Option<Stored>,
}

type Checked = Result<(), String>;

macro_rules! check {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

impl Told {
    /// A connection that asks for these tables, from what is stored or from nothing.
    pub(super) fn new(names: Option<Vec<String>>, rows: Rows, stored: Option<Stored>, asked_at: u64) -> Self {
        let copy = stored.as_ref().and_then(|stored| stored.copy.clone());
        let open = stored.as_ref().and_then(|stored| stored.open);
        Self {
            rows: if names.is_some() { rows } else { Rows::Every },
            names,
            next: Cursor::ZERO,
            seam: None,
            is_syncing: false,
            copy,
            known: HashMap::new(),
            last: Cursor::ZERO,
            open,
            is_subscribed: false,
            is_caught_up: false,
            asked_at,
            stored,
        }
    }

    pub(super) const fn next(&self) -> Cursor {
        self.next
    }

    pub(super) const fn rows(&self) -> Rows {
        self.rows
    }

    fn wants(&self, logged: &Logged) -> bool {
        let named =
            self.names.as_ref().is_none_or(|names| names.iter().any(|name| *name == logged.write.table.name));
        let in_rows = |seam: &Seam| {
            logged.at < seam.barrier
                && seam.snapshot.sees(Xid::new(logged.xid))
                && seam
                    .tables
                    .iter()
                    .any(|(name, oid)| *oid == logged.write.table.oid || *name == logged.write.table.name)
        };
        named && self.rows.has(logged.write.id) && !self.seam.as_ref().is_some_and(in_rows)
    }

    /// The next change that it is to be told.
    pub(super) fn expected<'a>(&self, source: &'a Source) -> Option<&'a Logged> {
        let log = source.log();
        let first = log.partition_point(|logged| logged.at < self.next);
        log.iter().skip(first).find(|logged| self.wants(logged))
    }

    /// A cursor was told: nothing before it may be missing.
    fn reach(&mut self, cursor: Cursor, source: &Source) -> Checked {
        if let Some(missing) = self.expected(source).filter(|logged| logged.at < cursor) {
            return Err(format!("the cursor {cursor} came before {} at {}", missing.words, missing.at));
        }
        check!(cursor >= self.last, "the cursor went from {} back to {cursor}", self.last);
        self.last = cursor;
        self.next = self.next.max(cursor);
        Ok(())
    }

    fn store(&mut self, store: bool) {
        if store {
            self.stored = Some(Stored { cursor: self.last, copy: self.copy.clone(), open: self.open });
        }
    }

    /// A cursor about the whole connection.
    pub(super) fn heartbeat(&mut self, cursor: Cursor, source: &Source, store: bool) -> Checked {
        check!(self.open.is_none(), "a heartbeat with {cursor} inside a transaction");
        self.reach(cursor, source)?;
        self.store(store);
        Ok(())
    }

    pub(super) fn hear(&mut self, message: ServerMessage, source: &Source, store: bool) -> Checked {
        match message {
            ServerMessage::Waiting(_) => Ok(()),
            ServerMessage::Subscribed(subscribed) => {
                self.is_subscribed = true;
                self.is_syncing = subscribed.mode == Mode::Snapshot;
                if self.is_syncing {
                    (self.copy, self.seam, self.stored) = (Some(Copy::default()), None, None);
                    check!(self.last == Cursor::ZERO, "an initial sync after the cursor {}", self.last);
                    return Ok(());
                }
                let asked = self.stored.as_ref().map_or(subscribed.cursor, |stored| stored.cursor);
                check!(subscribed.cursor == asked, "begun at {} instead of {asked}", subscribed.cursor);
                (self.last, self.next) = (asked, asked);
                Ok(())
            }
            ServerMessage::Relation(relation) => {
                let columns = relation.columns.into_iter().map(|column| column.name).collect();
                self.known.insert(relation.table.table, columns);
                Ok(())
            }
            ServerMessage::Snapshot(rows) => self.take_rows(&rows),
            ServerMessage::SnapshotComplete(complete) => {
                check!(self.open.is_none(), "the initial sync is complete inside a transaction");
                self.reach(complete.cursor, source)?;
                (self.seam, self.is_syncing) = (None, false);
                self.store(store);
                Ok(())
            }
            ServerMessage::CaughtUp(caught_up) => {
                check!(
                    !self.is_caught_up && !self.is_syncing && self.open.is_none(),
                    "caught_up out of place"
                );
                self.is_caught_up = true;
                self.reach(caught_up.cursor, source)?;
                let missing = self.expected(source).filter(|logged| logged.at.lsn().get() < self.asked_at);
                check!(missing.is_none(), "caught_up at {} before {missing:?}", caught_up.cursor);
                self.store(store);
                Ok(())
            }
            ServerMessage::Transaction(transaction) => self.transaction(&transaction, source, store),
            other => Err(format!("{other:?} was not expected")),
        }
    }

    fn take_rows(&mut self, rows: &SnapshotRows) -> Checked {
        let Some(copy) = &mut self.copy else { return Err("rows outside an initial sync".into()) };
        for row in &rows.rows {
            let key = (rows.table.table.clone(), id_of(row.get()));
            let twice = copy.rows.insert(key, row.get().to_owned()).is_some();
            check!(!twice, "the row {row} of {} came twice", rows.table.table);
        }
        Ok(())
    }

    fn transaction(&mut self, message: &TransactionMessage, source: &Source, store: bool) -> Checked {
        check!(self.is_subscribed, "a transaction before it was subscribed");
        check!(!self.is_syncing || self.seam.is_some(), "a transaction among the rows");
        check!(
            self.open.is_none_or(|open| open == message.lsn),
            "{:?} is torn by {}",
            self.open,
            message.lsn
        );
        for change in &message.changes {
            let table = &change.table.table;
            let row = change.row.as_ref().map_or("-", |row| row.get());
            let key = change.key.as_ref().map_or("-", |key| key.get());
            let words = format!("{} {} {key} {row}", change.op, change.table);
            let Some(expected) = self.expected(source) else {
                return Err(format!("{words} of {} and nothing more was expected", message.lsn));
            };
            check!(
                expected.at.lsn() == message.lsn
                    && expected.words == words
                    && expected.xid == message.xid.get(),
                "{words} of {} instead of {} at {}",
                message.lsn,
                expected.words,
                expected.at
            );
            let columns = expected.write.table.columns();
            let known = self.known.get(table);
            check!(known == Some(&columns), "{words} was told with {known:?} instead of {columns:?}");
            let expected = expected.clone();
            self.next = Cursor::new(expected.at.lsn(), expected.at.seq().plus(1));
            self.fold(&expected, row, source)?;
        }
        self.open = message.more.then_some(message.lsn);
        let torn = self.expected(source).filter(|next| !message.more && next.at.lsn() == message.lsn);
        check!(torn.is_none(), "{} ended before {torn:?}", message.lsn);
        match message.cursor {
            None => check!(self.seam.is_some(), "{} came without a cursor", message.lsn),
            Some(cursor) => {
                check!(
                    self.seam.is_none(),
                    "{} has a cursor before the initial sync is complete",
                    message.lsn
                );
                check!(cursor > self.last, "the cursor {cursor} came again");
                self.reach(cursor, source)?;
                self.store(store);
            }
        }
        Ok(())
    }

    /// Applies a change to the copy, as long as tables have the names that they had at the snapshot, and nobody but those
    /// who ask for another name was told of what was written meanwhile.
    fn fold(&mut self, logged: &Logged, row: &str, source: &Source) -> Checked {
        let table = &logged.write.table;
        let elsewhere = |other: &Logged| {
            other.write.table.oid == table.oid && other.write.table.name != table.name && other.at < logged.at
        };
        let is_same = |copy: &Copy| copy.oids.get(&table.name) == Some(&table.oid);
        self.copy = self.copy.take().filter(|copy| is_same(copy) && !source.log().iter().any(elsewhere));
        let Some(copy) = &mut self.copy else { return Ok(()) };
        let key = (table.name.clone(), u64::from(logged.write.id));
        let before = match logged.write.effect {
            Effect::Delete => copy.rows.remove(&key),
            _ => copy.rows.insert(key, row.to_owned()),
        };
        let fits = before.is_some() == (logged.write.effect != Effect::Insert);
        check!(fits, "{} does not fit the copy, which has {before:?}", logged.words);
        Ok(())
    }

    /// At the end of a run: it has everything, and its copy equals the tables. Whether there was a copy to compare.
    pub(super) fn check_end(&self, source: &Source) -> Result<bool, String> {
        check!(self.is_subscribed && !self.is_syncing && self.is_caught_up, "it never caught up: {self:?}");
        check!(self.open.is_none(), "the transaction {:?} has no end", self.open);
        let missing = self.expected(source);
        check!(missing.is_none(), "{missing:?} was never told");
        let Some(copy) = &self.copy else { return Ok(false) };
        let same = |(name, oid): (&String, &u32)| {
            source.tables().iter().any(|table| table.oid == *oid && table.name == *name)
        };
        // What was written to one of them while it had another name may have been for others.
        let elsewhere = |logged: &Logged| {
            let oid = Some(&logged.write.table.oid);
            copy.oids.iter().any(|(name, known)| oid == Some(known) && *name != logged.write.table.name)
        };
        if !copy.oids.iter().all(same) || source.log().iter().any(elsewhere) {
            return Ok(false);
        }
        for (name, oid) in &copy.oids {
            let ours = copy.rows.range((name.clone(), 0)..=(name.clone(), u64::MAX));
            // Rows keep the columns that they were sent with.
            let ours: Vec<(u64, String)> = ours.map(|((_, id), row)| (*id, value_of(row))).collect();
            let theirs = source.rows(*oid).filter(|(id, _)| self.rows.has(*id));
            let theirs = theirs.map(|(id, value)| (u64::from(id), format!("v{value}")));
            let theirs: Vec<(u64, String)> = theirs.collect();
            let differs = ours.len() != theirs.len()
                || ours
                    .iter()
                    .zip(&theirs)
                    .any(|(ours, theirs)| ours.0 != theirs.0 || (!ours.1.is_empty() && ours.1 != theirs.1));
            check!(!differs, "the copy of {name} has {ours:?} instead of {theirs:?}");
        }
        Ok(true)
    }
}

fn parse(row: &str) -> Value {
    serde_json::from_str(row).unwrap()
}

fn id_of(row: &str) -> u64 {
    parse(row)["id"].as_u64().unwrap()
}

/// The value of a row; empty when it has no column but its key.
fn value_of(row: &str) -> String {
    parse(row)["c1"].as_str().unwrap_or_default().to_owned()
}
