//! What becomes of the rows of one table.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use walcast_model::{Change, Oid, Op, Part, Relation, json};

use super::Unfoldable;

/// Memory of an entry beside its texts, in bytes.
const ENTRY_BYTES: usize = 192;

/// A row, and the names of columns that no change has brought.
type Texts = (Box<[u8]>, Option<Box<[u8]>>);

/// A change as it is given out.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) order: u64,
    pub(super) op: Op,
    pub(super) relation: Arc<Relation>,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) row: Option<Box<[u8]>>,
    pub(super) old: Option<Box<[u8]>>,
    pub(super) unchanged: Option<Box<[u8]>>,
}

impl Entry {
    /// The change as it is.
    fn of(part: &Part, change: &Change, order: u64) -> Self {
        let copy = |text: Option<&[u8]>| text.map(Box::from);
        Self {
            order,
            op: change.op,
            relation: Arc::clone(&change.relation),
            key: copy(part.key(change)),
            row: copy(part.row(change)),
            old: copy(part.old(change)),
            unchanged: copy(part.unchanged(change)),
        }
    }

    fn bytes(&self) -> usize {
        let length = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        ENTRY_BYTES + 2 * length(&self.key) + length(&self.row) + length(&self.old) + length(&self.unchanged)
    }
}

/// What became of the row with a key.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// Whether there was one with this key before all that was folded.
    existed: bool,
    order: u64,
    relation: Arc<Relation>,
    /// The row as it is now, and the names of columns that no change has brought; `None` when there is none.
    now: Option<Texts>,
}

/// How to go back behind a transaction that cannot be folded.
#[derive(Debug)]
pub(super) enum Undo {
    /// The table was not touched before.
    NewTable(Oid),
    /// The table was another one: it was truncated since.
    Table(Oid, Table),
    Step {
        oid: Oid,
        step: Step,
    },
}

/// One step within a table.
#[derive(Debug)]
pub(super) enum Step {
    /// A key was touched.
    Net(Box<[u8]>, Option<Net>),
    /// A change was listed.
    Listed,
}

#[derive(Debug)]
pub(super) struct Table {
    /// Of the first change; name and key columns stay the same.
    relation: Arc<Relation>,
    /// The last truncate, before everything else.
    truncated: Option<Entry>,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    /// By the text of the key.
    Keyed(HashMap<Box<[u8]>, Net>),
    /// A table without a key: all changes.
    Listed(Vec<Entry>),
}

impl Table {
    pub(super) fn new(relation: &Arc<Relation>) -> Self {
        let has_key = relation.columns().iter().any(|column| column.key);
        let rows = if has_key { Rows::Keyed(HashMap::new()) } else { Rows::Listed(Vec::new()) };
        Self { relation: Arc::clone(relation), truncated: None, rows }
    }

    /// Whether a definition tells rows apart as the first one does.
    pub(super) fn is_of(&self, other: &Arc<Relation>) -> bool {
        let ours = &self.relation;
        if Arc::ptr_eq(ours, other) || ours.digest() == other.digest() {
            return true;
        }
        let keys = |relation: &Relation| -> Vec<(String, Oid, String)> {
            let keys = relation.columns().iter().filter(|column| column.key);
            keys.map(|column| (column.name.clone(), column.type_oid, column.type_name.clone())).collect()
        };
        ours.name() == other.name() && keys(ours) == keys(other)
    }

    pub(super) fn fold(
        &mut self,
        part: &Part,
        change: &Change,
        order: u64,
        bytes: &mut usize,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Unfoldable> {
        if change.op == Op::Truncate {
            self.truncate(Entry::of(part, change, order), bytes, undo);
            return Ok(());
        }
        let oid = self.relation.oid();
        let is_truncated = self.truncated.is_some();
        match &mut self.rows {
            Rows::Listed(list) => {
                let entry = Entry::of(part, change, order);
                *bytes += entry.bytes();
                list.push(entry);
                undo.push(Undo::Step { oid, step: Step::Listed });
                Ok(())
            }
            Rows::Keyed(rows) => Touch { rows, is_truncated, part, change, order, bytes, undo }.fold(),
        }
    }

    /// Nothing of what was before is left.
    fn truncate(&mut self, entry: Entry, bytes: &mut usize, undo: &mut Vec<Undo>) {
        let held: usize = match &self.rows {
            Rows::Keyed(rows) => rows.iter().map(|(key, net)| net_bytes(key, net)).sum(),
            Rows::Listed(list) => list.iter().map(Entry::bytes).sum(),
        };
        *bytes = bytes.saturating_sub(held) + entry.bytes();
        let mut empty = Self::new(&entry.relation);
        empty.truncated = Some(entry);
        let before = std::mem::replace(self, empty);
        undo.push(Undo::Table(before.relation.oid(), before));
    }

    pub(super) fn take_back(&mut self, step: Step) {
        match (step, &mut self.rows) {
            (Step::Net(key, Some(net)), Rows::Keyed(rows)) => {
                rows.insert(key, net);
            }
            (Step::Net(key, None), Rows::Keyed(rows)) => {
                rows.remove(&key);
            }
            (Step::Listed, Rows::Listed(list)) => {
                list.pop();
            }
            // Steps are taken back on what they were done to.
            _ => {}
        }
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let entries: Vec<Entry> = match self.rows {
            Rows::Listed(list) => list,
            Rows::Keyed(rows) => rows.into_iter().filter_map(entry).collect(),
        };
        self.truncated.into_iter().chain(entries)
    }
}

/// What is said of a key; nothing when there was no row and there is none.
fn entry((key, net): (Box<[u8]>, Net)) -> Option<Entry> {
    let op = match (net.existed, &net.now) {
        (false, None) => return None,
        (true, None) => Op::Delete,
        (false, Some(_)) => Op::Insert,
        (true, Some(_)) => Op::Update,
    };
    let (row, unchanged) = net.now.map_or((None, None), |(row, unchanged)| (Some(row), unchanged));
    Some(Entry { order: net.order, op, relation: net.relation, key: Some(key), row, old: None, unchanged })
}

fn net_bytes(key: &[u8], net: &Net) -> usize {
    let length = |(row, unchanged): &Texts| row.len() + unchanged.as_ref().map_or(0, |u| u.len());
    ENTRY_BYTES + 2 * key.len() + net.now.as_ref().map_or(0, length)
}

/// One change of a table with a key.
struct Touch<'a> {
    rows: &'a mut HashMap<Box<[u8]>, Net>,
    is_truncated: bool,
    part: &'a Part,
    change: &'a Change,
    order: u64,
    bytes: &'a mut usize,
    undo: &'a mut Vec<Undo>,
}

impl Touch<'_> {
    fn fold(mut self) -> Result<(), Unfoldable> {
        let (part, change) = (self.part, self.change);
        let key: Box<[u8]> = part.key(change).ok_or(Unfoldable::Ambiguous)?.into();
        let row = part.row(change);
        let before = self.rows.get(&key);
        let is_there = before.map(|net| net.now.is_some());
        match change.op {
            Op::Insert => {
                if is_there == Some(true) {
                    return Err(Unfoldable::Ambiguous);
                }
                // What it leaves out need not be what was there before: nobody told what happened in between.
                if part.unchanged(change).is_some() && before.is_some_and(|net| net.existed) {
                    return Err(Unfoldable::ReturnedValue);
                }
                let row = row.ok_or(Unfoldable::Ambiguous)?.into();
                self.set(key, Some((row, part.unchanged(change).map(Box::from))), false);
            }
            Op::Delete => {
                self.require(is_there)?;
                self.check_old(before)?;
                self.set(key, None, true);
            }
            Op::Update => {
                self.require(is_there)?;
                self.check_old(before)?;
                let row = row.ok_or(Unfoldable::Ambiguous)?;
                let now = match part.unchanged(change) {
                    None => (row.into(), None),
                    Some(names) => filled(&change.relation, row, names, before),
                };
                let new_key = key_of(&change.relation, row).ok_or(Unfoldable::Ambiguous)?;
                if *new_key == *key {
                    self.set(key, Some(now), true);
                    return Ok(());
                }
                if now.1.is_some() {
                    return Err(Unfoldable::MovedValue);
                }
                if self.rows.get(&new_key).is_some_and(|net| net.now.is_some()) {
                    return Err(Unfoldable::Ambiguous);
                }
                self.set(key, None, true);
                self.set(new_key, Some(now), false);
            }
            // Folded by the table.
            Op::Truncate => {}
        }
        Ok(())
    }

    /// A row that is changed must be there, as far as is known.
    fn require(&self, is_there: Option<bool>) -> Result<(), Unfoldable> {
        if is_there.unwrap_or(!self.is_truncated) { Ok(()) } else { Err(Unfoldable::Ambiguous) }
    }

    /// Under FULL the row before the change is known twice: from the change, and from those before it.
    fn check_old(&self, before: Option<&Net>) -> Result<(), Unfoldable> {
        let Some(old) = self.part.old(self.change) else { return Ok(()) };
        let Some(Net { now: Some((row, None)), relation, .. }) = before else { return Ok(()) };
        let is_other = relation.digest() == self.change.relation.digest() && **row != *old;
        if is_other { Err(Unfoldable::Ambiguous) } else { Ok(()) }
    }

    /// `by_default`: whether a row with this key was there before, when this is the first that is heard of it.
    fn set(&mut self, key: Box<[u8]>, now: Option<Texts>, by_default: bool) {
        let existed = self.rows.get(&key).map_or(by_default && !self.is_truncated, |net| net.existed);
        let net = Net { existed, order: self.order, relation: Arc::clone(&self.change.relation), now };
        *self.bytes += net_bytes(&key, &net);
        let before = self.rows.insert(key.clone(), net);
        if let Some(before) = &before {
            *self.bytes = self.bytes.saturating_sub(net_bytes(&key, before));
        }
        let oid = self.change.relation.oid();
        self.undo.push(Undo::Step { oid, step: Step::Net(key, before) });
    }
}

/// The key in a row, as a change has it; `None` when the row lacks a part of it.
fn key_of(relation: &Relation, row: &[u8]) -> Option<Box<[u8]>> {
    let mut out = vec![b'{'];
    let mut fields = json::fields(row);
    for (index, _) in relation.columns().iter().enumerate().filter(|(_, column)| column.key) {
        let name = relation.column_json(index);
        // Fields stand in the order of the columns.
        let (_, value) = fields.find(|(key, _)| is_named(name, key))?;
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    out.push(b'}');
    Some(out.into())
}

/// Whether `"name":` names the field `key`, which stands without its quotes.
fn is_named(name: &str, key: &[u8]) -> bool {
    name.as_bytes().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\":")) == Some(key)
}

/// A row with those of the columns that it leaves out that an earlier change has brought, and the names of the others.
fn filled(relation: &Relation, row: &[u8], names: &[u8], before: Option<&Net>) -> Texts {
    // walcast's own array, so reading it does not fail.
    let missing: Vec<&RawValue> = serde_json::from_slice(names).unwrap_or_default();
    let known = before.and_then(|net| net.now.as_ref()).map(|(row, _)| &**row).unwrap_or_default();
    let (mut out, mut left) = (vec![b'{'], Vec::new());
    for index in 0..relation.columns().len() {
        let name = relation.column_json(index);
        let find = |object| json::fields(object).find(|(key, _)| is_named(name, key)).map(|(_, value)| value);
        let is_missing = missing.iter().find(|missing| name.strip_suffix(':') == Some(missing.get()));
        let value = match is_missing {
            None => find(row),
            Some(_) => find(known),
        };
        match (value, is_missing) {
            (Some(value), _) => {
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(value);
            }
            (None, Some(name)) => {
                left.push(if left.is_empty() { b'[' } else { b',' });
                left.extend_from_slice(name.get().as_bytes());
            }
            (None, None) => {}
        }
    }
    out.push(b'}');
    if !left.is_empty() {
        left.push(b']');
    }
    (out.into(), (!left.is_empty()).then(|| left.into()))
}
