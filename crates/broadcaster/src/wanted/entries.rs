//! What is said of tables, by their patterns: as a map, and no larger than its entries. Most subscriptions have one, for
//! which a tree has room for eleven.

use std::collections::BTreeMap;

use walcast_protocol::TablePattern;

/// In the order of the patterns.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entries<T>(Box<[(TablePattern, T)]>);

impl<T> From<BTreeMap<TablePattern, T>> for Entries<T> {
    fn from(map: BTreeMap<TablePattern, T>) -> Self {
        Self(map.into_iter().collect())
    }
}

impl<T: Clone> From<&Entries<T>> for BTreeMap<TablePattern, T> {
    fn from(entries: &Entries<T>) -> Self {
        entries.0.iter().cloned().collect()
    }
}

impl<T> Entries<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TablePattern, &T)> + Clone {
        self.0.iter().map(|(pattern, entry)| (pattern, entry))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &TablePattern> {
        self.0.iter().map(|(pattern, _)| pattern)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, entry)| entry)
    }
}
