//! Postgres's own output plugin, read by other code than walcast's: what was really committed.
//!
//! Messages of pgoutput, protocol version 1, as `pg_logical_slot_peek_binary_changes` returns them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use serde::Deserialize;
use walcast_model::Lsn;

use super::change::{Fields, Op, Told, shortened};

/// A table as the WAL had it at a change.
#[derive(Debug)]
pub(crate) struct WalRelation {
    /// Quoted as the feed quotes it.
    pub(crate) table: Box<str>,
    columns: Vec<(Box<str>, u32)>,
}

/// One column of a tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// Large, not written, and not in the WAL.
    Unchanged,
    Text(Bytes),
}

/// A change as it was committed.
#[derive(Debug)]
pub struct WalChange {
    /// What happened.
    pub op: Op,
    relation: Arc<WalRelation>,
    old: Option<Vec<Cell>>,
    new: Option<Vec<Cell>>,
    /// A row that walcast picked up with its table, as the JSON of the message that carries it.
    picked_up: Option<Fields>,
}

/// A committed transaction with its changes.
#[derive(Debug)]
pub(crate) struct WalTransaction {
    pub(crate) begin: Lsn,
    pub(crate) end: Lsn,
    pub(crate) xid: u32,
    pub(crate) changes: Vec<WalChange>,
}

impl WalChange {
    /// The table, quoted as the feed quotes it.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.relation.table
    }

    /// Checks that a client was told exactly this.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn agrees_with(&self, told: &Told) -> Result<(), String> {
        if (self.op, self.table()) != (told.op, &*told.table) {
            return Err(format!("told is {told}, committed was {self}"));
        }
        if let Some(row) = &self.picked_up {
            return if told.row.as_ref() == Some(row) {
                Ok(())
            } else {
                Err(format!("told is {told}, picked up was {}", row.text()))
            };
        }
        let key = told.key.as_ref();
        for (index, (name, kind)) in self.relation.columns.iter().enumerate() {
            let cell =
                |tuple: &'_ Option<Vec<Cell>>| tuple.as_ref().and_then(|tuple| tuple.get(index)).cloned();
            let (old, new) = (cell(&self.old), cell(&self.new));
            let differs = |what: &str, expected: &Cell, got: Option<&str>| {
                let expected = shortened(&format!("{expected:?}"));
                let got = got.map(shortened);
                Err(format!("{what} of column {name} is {got:?}, committed was {expected}; {told}"))
            };
            if let Some(new) = new {
                let carried = told.row.as_ref().and_then(|row| row.get(name));
                let is_unchanged = told.unchanged.iter().any(|unchanged| **unchanged == **name);
                // What the new tuple does not have, the old one may. (A key alone has NULL for all other columns.)
                let expected = match (&new, &old) {
                    (Cell::Unchanged, Some(Cell::Text(_))) => old.clone().unwrap_or(new),
                    _ => new,
                };
                let right = match (&expected, carried) {
                    (Cell::Unchanged, None) => is_unchanged,
                    (Cell::Null | Cell::Text(_), Some(json)) => expected.is(*kind, json) && !is_unchanged,
                    _ => false,
                };
                if !right {
                    return differs("the value", &expected, carried);
                }
                if let (Some(json), None) = (key.and_then(|key| key.get(name)), &self.old)
                    && expected != Cell::Unchanged
                    && !expected.is(*kind, json)
                {
                    return differs("the key", &expected, Some(json));
                }
            }
            if let Some(old) = old {
                if let Some(json) = key.and_then(|key| key.get(name))
                    && !old.is(*kind, json)
                {
                    return differs("the key", &old, Some(json));
                }
                if let Some(json) = told.old.as_ref().and_then(|row| row.get(name))
                    && !old.is(*kind, json)
                {
                    return differs("the old value", &old, Some(json));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for WalChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.name(), self.table())?;
        for (name, tuple) in [("old", &self.old), ("new", &self.new)] {
            let Some(tuple) = tuple else { continue };
            let cells: Vec<String> = tuple
                .iter()
                .zip(&self.relation.columns)
                .map(|(cell, (column, _))| match cell {
                    Cell::Null => format!("{column}=null"),
                    Cell::Unchanged => format!("{column}=unchanged"),
                    Cell::Text(text) => format!("{column}={}", String::from_utf8_lossy(text)),
                })
                .collect();
            write!(f, " {name} ({})", shortened(&cells.join(", ")))?;
        }
        if let Some(row) = &self.picked_up {
            write!(f, " picked up {}", shortened(&row.text()))?;
        }
        Ok(())
    }
}

impl Cell {
    /// Whether `json` is what this is in JSON. Of types whose JSON is not their text, only NULL is told from the rest:
    /// the copies are compared with `to_jsonb` in the end.
    fn is(&self, kind: u32, json: &str) -> bool {
        const BOOL: u32 = 16;
        const JSONB: u32 = 3802;
        const NUMERIC: u32 = 1700;
        const INTEGERS: [u32; 3] = [20, 21, 23];
        // bytea, name, text, bpchar, varchar, date, time, interval, uuid, inet
        const TEXTS: [u32; 10] = [17, 19, 25, 1042, 1043, 1082, 1083, 1186, 2950, 869];
        let Self::Text(bytes) = self else { return *self == Self::Null && json == "null" };
        let Ok(text) = std::str::from_utf8(bytes) else { return json != "null" };
        let is_string = || serde_json::from_str::<String>(json).is_ok_and(|decoded| decoded == text);
        match kind {
            BOOL => json == if text == "t" { "true" } else { "false" },
            JSONB => json == text,
            NUMERIC => json == text || is_string(),
            _ if INTEGERS.contains(&kind) => json == text,
            _ if TEXTS.contains(&kind) => is_string(),
            _ => json != "null",
        }
    }
}

/// Hexadecimal digits with which walcast's own messages begin.
const SECRET_BYTES: usize = 64;

/// Puts messages together; begun anew for every read of the slot, as the plugin is.
#[derive(Debug, Default)]
pub(crate) struct WalReader {
    relations: HashMap<u32, Arc<WalRelation>>,
    open: Option<WalTransaction>,
    /// The table whose rows are being picked up.
    pickup: Option<Arc<WalRelation>>,
}

#[derive(Deserialize)]
struct PickupHeader {
    replace: bool,
    schema: String,
    table: String,
}

impl WalReader {
    /// Takes a message; gives a transaction when it is its end.
    pub(crate) fn take(&mut self, mut message: Bytes) -> Option<WalTransaction> {
        let kind = message.get_u8();
        match kind {
            b'B' => {
                let begin = Lsn::new(message.get_u64());
                message.advance(8);
                let xid = message.get_u32();
                self.open = Some(WalTransaction { begin, end: Lsn::ZERO, xid, changes: Vec::new() });
                self.pickup = None;
            }
            b'C' => {
                message.advance(1 + 8);
                let mut transaction = self.open.take().unwrap_or_else(|| panic!("a commit without a begin"));
                transaction.end = Lsn::new(message.get_u64());
                return Some(transaction);
            }
            b'R' => {
                let (oid, relation) = read_relation(&mut message);
                self.relations.insert(oid, Arc::new(relation));
            }
            b'I' | b'U' | b'D' => {
                let relation = self.relation(message.get_u32());
                let (mut old, mut new) = (None, None);
                while message.has_remaining() {
                    let place = match message.get_u8() {
                        b'N' => &mut new,
                        _ => &mut old,
                    };
                    *place = Some(read_tuple(&mut message));
                }
                let op = match kind {
                    b'I' => Op::Insert,
                    b'U' => Op::Update,
                    _ => Op::Delete,
                };
                self.push(WalChange { op, relation, old, new, picked_up: None });
            }
            b'T' => {
                let count = message.get_u32();
                message.advance(1);
                for _ in 0..count {
                    let relation = self.relation(message.get_u32());
                    self.push(WalChange {
                        op: Op::Truncate,
                        relation,
                        old: None,
                        new: None,
                        picked_up: None,
                    });
                }
            }
            b'M' => self.message(message),
            _ => {}
        }
        None
    }

    fn relation(&self, oid: u32) -> Arc<WalRelation> {
        Arc::clone(self.relations.get(&oid).unwrap_or_else(|| panic!("relation {oid} was not defined")))
    }

    fn push(&mut self, change: WalChange) {
        if let Some(open) = &mut self.open {
            open.changes.push(change);
        }
    }

    /// Rows that walcast picks up with a table: a header with the table, then a message for each.
    fn message(&mut self, mut message: Bytes) {
        let is_transactional = message.get_u8() == 1;
        message.advance(8);
        let prefix = read_text(&mut message);
        message.advance(4);
        if !is_transactional || &*prefix != "walcast.rows" {
            return;
        }
        // A secret that the oracle does not know, a line's end, and the kind. What the workloads forge begins otherwise.
        let is_secret = |start: &[u8]| start.iter().all(u8::is_ascii_hexdigit);
        if message.get(SECRET_BYTES) != Some(&b'\n') || !is_secret(&message[..SECRET_BYTES]) {
            return;
        }
        message.advance(SECRET_BYTES + 1);
        match message.get_u8() {
            b'H' => {
                let header: PickupHeader =
                    serde_json::from_slice(&message).unwrap_or_else(|error| panic!("a pickup: {error}"));
                let table = table_name(&header.schema, &header.table).into();
                let relation = Arc::new(WalRelation { table, columns: Vec::new() });
                self.pickup = Some(Arc::clone(&relation));
                if header.replace {
                    self.push(WalChange {
                        op: Op::Truncate,
                        relation,
                        old: None,
                        new: None,
                        picked_up: None,
                    });
                }
            }
            _ => {
                let relation =
                    self.pickup.clone().unwrap_or_else(|| panic!("a row that was picked up without a table"));
                let text = String::from_utf8_lossy(&message);
                let row = Fields::parse(&text)
                    .unwrap_or_else(|error| panic!("a row that was picked up: {error}: {text}"));
                self.push(WalChange { op: Op::Insert, relation, old: None, new: None, picked_up: Some(row) });
            }
        }
    }
}

fn read_text(message: &mut Bytes) -> Box<str> {
    let end = message.iter().position(|byte| *byte == 0).unwrap_or(message.len());
    let text = message.split_to(end);
    message.advance(1);
    String::from_utf8_lossy(&text).into()
}

fn read_relation(message: &mut Bytes) -> (u32, WalRelation) {
    let oid = message.get_u32();
    let (schema, name) = (read_text(message), read_text(message));
    message.advance(1);
    let columns = (0..message.get_u16()).map(|_| {
        message.advance(1);
        let column = (read_text(message), message.get_u32());
        message.advance(4);
        column
    });
    let columns = columns.collect();
    (oid, WalRelation { table: table_name(&schema, &name).into(), columns })
}

fn read_tuple(message: &mut Bytes) -> Vec<Cell> {
    let count = message.get_u16();
    let cells = (0..count).map(|_| match message.get_u8() {
        b'n' => Cell::Null,
        b'u' => Cell::Unchanged,
        _ => {
            let length = message.get_u32();
            Cell::Text(message.split_to(length as usize))
        }
    });
    cells.collect()
}

/// A table's name as the feed writes it.
pub(crate) fn table_name(schema: &str, table: &str) -> String {
    let quoted = |name: &str| {
        if name.is_empty() || name.contains(['.', '"', '*']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.to_owned()
        }
    };
    format!("{}.{}", quoted(schema), quoted(table))
}
