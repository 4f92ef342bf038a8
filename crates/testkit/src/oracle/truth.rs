//! The committed sequence, and how a delivered transaction is compared with it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use walcast_model::Lsn;

use super::taken::Delivered;
use super::verdict::{Violation, ViolationKind};
use super::wal::{WalChange, WalTransaction};

/// A committed transaction.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where its commit record starts.
    pub begin: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The lower 32 bits of its transaction id.
    pub xid: u32,
    /// The number of its changes.
    pub count: usize,
    /// Its changes, until every account is past it.
    pub(crate) changes: Option<Arc<Vec<WalChange>>>,
    /// What was told of it, by the tables that were asked for; a digest.
    pub(crate) told: BTreeMap<Box<str>, u64>,
}

impl Entry {
    pub(crate) fn new(transaction: WalTransaction) -> Self {
        let WalTransaction { begin, end, xid, changes } = transaction;
        Self {
            begin,
            end,
            xid,
            count: changes.len(),
            changes: Some(Arc::new(changes)),
            told: BTreeMap::new(),
        }
    }

    /// In a line.
    pub(crate) fn describe(&self) -> String {
        const SHOWN: usize = 6;
        let changes = self.changes.as_ref().map_or_else(
            || format!("{} changes", self.count),
            |changes| {
                let mut shown: Vec<String> = changes.iter().take(SHOWN).map(ToString::to_string).collect();
                if changes.len() > SHOWN {
                    shown.push(format!("… {} in all", changes.len()));
                }
                shown.join("; ")
            },
        );
        format!("{}..{} xid {}: {changes}", self.begin, self.end, self.xid)
    }

    /// Checks that `delivered` is this transaction, as far as it concerns `shape`.
    pub(crate) fn check(&mut self, shape: &Shape, delivered: &Delivered) -> Result<(), Violation> {
        let about = || format!("transaction {} (xid {})", delivered.lsn, delivered.xid);
        #[expect(clippy::cast_possible_truncation, reason = "the WAL has the lower half")]
        if self.xid != delivered.xid as u32 {
            return Err(Violation::wrong(format!("{} has xid {} in the WAL", about(), self.xid)));
        }
        if delivered.cursor.is_some_and(|cursor| cursor != self.end.into()) {
            let text = format!("{} ends at {}, its cursor is {:?}", about(), self.end, delivered.cursor);
            return Err(Violation::wrong(text));
        }
        if let Some(changes) = &self.changes {
            let mut told = delivered.changes.iter();
            for (seq, committed) in changes.iter().filter(|change| shape.has(change.table())).enumerate() {
                let Some(told) = told.next() else {
                    let text = format!("{} ends before its change {seq}: {committed}", about());
                    return Err(Violation::new(ViolationKind::Lost, text));
                };
                committed.agrees_with(told).map_err(|difference| {
                    Violation::wrong(format!("{}, change {seq}: {difference}", about()))
                })?;
            }
            if let Some(told) = told.next() {
                let text = format!("{} has a change that was not committed: {told}", about());
                return Err(Violation::new(ViolationKind::Repeated, text));
            }
        }
        let digest = digest_of(delivered.changes.iter().map(|change| change.digest));
        let before = *self.told.entry(shape.name().into()).or_insert(digest);
        if before != digest {
            return Err(Violation::wrong(format!("{} was told in other words before", about())));
        }
        Ok(())
    }
}

/// The digest of a transaction, of those of its changes.
pub(crate) fn digest_of(changes: impl Iterator<Item = u64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for change in changes {
        change.hash(&mut hasher);
    }
    hasher.finish()
}

/// The tables that a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    tables: Vec<String>,
    name: String,
}

impl Shape {
    pub(crate) fn new(tables: &[&str]) -> Self {
        Self { tables: tables.iter().map(|table| (*table).to_owned()).collect(), name: tables.join(" ") }
    }

    pub(crate) fn everything() -> Self {
        Self::new(&["*"])
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.name == "*"
    }

    pub(crate) fn has(&self, table: &str) -> bool {
        self.tables.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => table.starts_with(start),
            None => pattern == table,
        })
    }
}
