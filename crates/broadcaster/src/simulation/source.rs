//! Postgres: transactions that run side by side, the order of their commit records, and when others see them.
//!
//! A transaction holds its locks until others see it, which is later than its commit record, and not in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walcast_model::{Cursor, Lsn, Seq, Snapshot};

use super::wire;

/// A table as it is at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Definition {
    pub(super) oid: u32,
    pub(super) name: String,
    /// Columns beside the key.
    pub(super) width: usize,
}

impl Definition {
    pub(super) fn columns(&self) -> Vec<String> {
        ["id".to_owned()].into_iter().chain((1..=self.width).map(|column| format!("c{column}"))).collect()
    }

    /// A row as JSON.
    pub(super) fn row(&self, id: u32, value: u32) -> String {
        let rest: String = (1..=self.width).map(|column| format!(r#","c{column}":"v{value}""#)).collect();
        format!(r#"{{"id":{id}{rest}}}"#)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Insert,
    Update,
    Delete,
}

/// A change of one row.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) table: Arc<Definition>,
    pub(super) effect: Effect,
    pub(super) id: u32,
    pub(super) value: u32,
}

impl Write {
    pub(super) fn cells(&self) -> Vec<String> {
        let rest = (0..self.table.width).map(|_| format!("v{}", self.value));
        [self.id.to_string()].into_iter().chain(rest).collect()
    }

    /// The change as a client has it: operation, table, key and row.
    pub(super) fn words(&self) -> String {
        let op = match self.effect {
            Effect::Insert => "insert",
            Effect::Update => "update",
            Effect::Delete => "delete",
        };
        let row = match self.effect {
            Effect::Delete => "-".to_owned(),
            _ => self.table.row(self.id, self.value),
        };
        format!(r#"{op} public.{} {{"id":{}}} {row}"#, self.table.name, self.id)
    }
}

/// A change with its place in the log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) at: Cursor,
    pub(super) xid: u64,
    pub(super) write: Write,
    pub(super) words: String,
}

#[derive(Clone, Debug, Default)]
struct Open {
    xid: u64,
    writes: Vec<Write>,
    defined: BTreeMap<u32, Arc<Definition>>,
    rows: BTreeMap<(u32, u32), Option<u32>>,
}

impl Open {
    fn touches(&self, oid: u32) -> bool {
        self.defined.contains_key(&oid) || self.rows.keys().any(|(table, _)| *table == oid)
    }
}

/// A transaction in the WAL.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) xid: u64,
    pub(super) barrier: Option<String>,
    writes: Vec<Write>,
}

impl Committed {
    /// What the server sends, to a connection that was told these definitions.
    pub(super) fn messages(&self, told: &mut BTreeMap<u32, Arc<Definition>>) -> Vec<Vec<u8>> {
        let mut messages = vec![wire::begin(self.start, self.xid)];
        for (index, write) in self.writes.iter().enumerate() {
            let before = told.insert(write.table.oid, Arc::clone(&write.table));
            // Now and then it is sent again, as after ANALYZE.
            if before.as_ref() != Some(&write.table) || (self.start as usize + index).is_multiple_of(11) {
                messages.push(wire::relation(&write.table));
            }
            messages.push(wire::change(write));
        }
        messages.extend(self.barrier.iter().map(|id| wire::barrier(self.start, id)));
        messages.push(wire::commit(self.start, self.end));
        messages
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Source {
    tables: Vec<Arc<Definition>>,
    rows: BTreeMap<(u32, u32), u32>,
    next_xid: u64,
    next_value: u32,
    next_oid: u32,
    open: Vec<Open>,
    /// Committed, and not yet seen by others.
    unseen: Vec<Open>,
    committed: Vec<Committed>,
    log: Vec<Logged>,
    pub(super) wal_end: u64,
    /// What the slot was told is durable, each time.
    pub(super) confirmed: Vec<u64>,
}

/// Names that tables may have.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Source {
    pub(super) fn new() -> Self {
        let table = |(index, name): (usize, &&str)| Definition {
            oid: 16_400 + index as u32,
            name: (*name).to_owned(),
            width: index,
        };
        Self {
            tables: NAMES[..3].iter().enumerate().map(table).map(Arc::new).collect(),
            rows: BTreeMap::new(),
            // Close to where 32 bits begin again.
            next_xid: (7 << 32) - 10,
            next_value: 1,
            next_oid: 16_500,
            open: Vec::new(),
            unseen: Vec::new(),
            committed: Vec::new(),
            log: Vec::new(),
            wal_end: 100,
            confirmed: vec![100],
        }
    }

    pub(super) const fn next_xid(&self) -> u64 {
        self.next_xid
    }

    /// The tables that others see now.
    pub(super) fn tables(&self) -> &[Arc<Definition>] {
        &self.tables
    }

    /// The rows that others see now.
    pub(super) fn rows(&self, oid: u32) -> impl Iterator<Item = (u32, u32)> {
        self.rows.range((oid, 0)..=(oid, u32::MAX)).map(|((_, id), value)| (*id, *value))
    }

    /// Every change in the WAL, in the order of the log.
    pub(super) fn log(&self) -> &[Logged] {
        &self.log
    }

    /// The first transaction whose commit record starts at `from` or later.
    pub(super) fn committed_from(&self, from: u64) -> Option<&Committed> {
        self.committed.get(self.committed.partition_point(|one| one.start < from))
    }

    pub(super) fn begin(&mut self) -> bool {
        if self.open.len() > 3 {
            return false;
        }
        self.open.push(Open { xid: self.next_xid, ..Open::default() });
        self.next_xid += 1;
        true
    }

    fn others(&self, index: usize) -> impl Iterator<Item = &Open> {
        let open = self.open.iter().enumerate().filter(move |(other, _)| *other != index);
        open.map(|(_, other)| other).chain(&self.unseen)
    }

    pub(super) fn write(&mut self, a: u32, b: u32) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let index = a as usize % self.open.len();
        let place = b as usize % self.tables.len();
        let (oid, id) = (self.tables[place].oid, b / 8 % 6);
        let locked = |other: &Open| other.defined.contains_key(&oid) || other.rows.contains_key(&(oid, id));
        if self.others(index).any(locked) {
            return false;
        }
        let tables = &self.tables;
        let open = &mut self.open[index];
        let table = Arc::clone(open.defined.get(&oid).unwrap_or(&tables[place]));
        let exists = open.rows.get(&(oid, id)).map_or(self.rows.contains_key(&(oid, id)), Option::is_some);
        let effect = match (exists, b / 64 % 2) {
            (false, _) => Effect::Insert,
            (true, 0) => Effect::Update,
            (true, _) => Effect::Delete,
        };
        let value = self.next_value;
        self.next_value += 1;
        open.rows.insert((oid, id), (effect != Effect::Delete).then_some(value));
        open.writes.push(Write { table, effect, id, value });
        true
    }

    /// Adds a column, renames a table, has two of them change names, or makes one: in a transaction that is open, or in
    /// one of its own that everybody sees at once.
    pub(super) fn define(&mut self, a: u32, b: u32) -> bool {
        if a.is_multiple_of(3) {
            return !self.open.is_empty() && self.define_in(a as usize % self.open.len(), b);
        }
        let last = self.open.len();
        self.open.push(Open { xid: self.next_xid, ..Open::default() });
        self.next_xid += 1;
        if !self.define_in(last, b) {
            self.open.truncate(last);
            return false;
        }
        let own = self.open.remove(last);
        self.log_commit(own, None, b);
        let place = self.unseen.len() - 1;
        self.appear(place as u32)
    }

    fn define_in(&mut self, index: usize, b: u32) -> bool {
        let place = b as usize % self.tables.len();
        let other_place = (place + 1 + b as usize / 8 % (self.tables.len() - 1)) % self.tables.len();
        let oids = [self.tables[place].oid, self.tables[other_place].oid];
        let swaps = b / 32 % 4 == 2;
        let locked = |oid: u32| self.others(index).any(|other| other.touches(oid));
        if locked(oids[0]) || (swaps && locked(oids[1])) {
            return false;
        }
        let current = |place: usize| {
            let visible = &self.tables[place];
            Definition::clone(self.open[index].defined.get(&visible.oid).unwrap_or(visible))
        };
        let (mut table, mut other) = (current(place), current(other_place));
        match b / 32 % 4 {
            0 => table.width = (table.width + 1) % 4,
            2 => std::mem::swap(&mut table.name, &mut other.name),
            makes_or_renames => {
                let pending = self.open.iter().chain(&self.unseen).flat_map(|one| one.defined.values());
                let taken: BTreeSet<&str> =
                    self.tables.iter().chain(pending).map(|table| table.name.as_str()).collect();
                let Some(free) = NAMES.iter().find(|name| !taken.contains(*name)) else { return false };
                table.name = (*free).to_owned();
                if makes_or_renames == 3 {
                    table.oid = self.next_oid;
                    self.next_oid += 1;
                }
            }
        }
        let defined = &mut self.open[index].defined;
        defined.insert(table.oid, Arc::new(table));
        if swaps {
            defined.insert(other.oid, Arc::new(other));
        }
        true
    }

    pub(super) fn abort(&mut self, a: u32) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.open.remove(a as usize % self.open.len());
        true
    }

    pub(super) fn commit(&mut self, a: u32, b: u32) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let open = self.open.remove(a as usize % self.open.len());
        self.log_commit(open, None, b);
        true
    }

    /// A transaction that holds nothing but a barrier.
    pub(super) fn barrier(&mut self, id: String) {
        let open = Open { xid: self.next_xid, ..Open::default() };
        self.next_xid += 1;
        self.log_commit(open, Some(id), 0);
    }

    fn log_commit(&mut self, open: Open, barrier: Option<String>, b: u32) {
        // Often a commit record starts where the one before ended.
        let start = self.wal_end + u64::from(if b.is_multiple_of(3) { b % 40 } else { 0 });
        let end = start + 8 + u64::from(b % 16);
        self.wal_end = end;
        for (seq, write) in open.writes.iter().enumerate() {
            let at = Cursor::new(Lsn::new(start), Seq::new(seq as i64));
            self.log.push(Logged { at, xid: open.xid, words: write.words(), write: write.clone() });
        }
        let (xid, writes) = (open.xid, open.writes.clone());
        self.committed.push(Committed { start, end, xid, barrier, writes });
        self.unseen.push(open);
    }

    /// Others see a transaction that is committed.
    pub(super) fn appear(&mut self, a: u32) -> bool {
        if self.unseen.is_empty() {
            return false;
        }
        let open = self.unseen.remove(a as usize % self.unseen.len());
        for (key, value) in open.rows {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        for defined in open.defined.into_values() {
            match self.tables.iter_mut().find(|table| table.oid == defined.oid) {
                Some(table) => *table = defined,
                None => self.tables.push(defined),
            }
        }
        true
    }

    pub(super) fn idle(&mut self, a: u32) {
        self.wal_end += u64::from(1 + a % 50);
    }

    /// `pg_current_snapshot()`.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut running: Vec<u64> = self.open.iter().chain(&self.unseen).map(|open| open.xid).collect();
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(self.next_xid);
        let list: Vec<String> = running.iter().map(u64::to_string).collect();
        format!("{xmin}:{}:{}", self.next_xid, list.join(",")).parse().unwrap()
    }
}
