//! Finds the few predicates that a row can be in, among a hundred thousand.
//!
//! A predicate that is true has a part that is true: one comparison of a conjunction, one of each branch of a disjunction.
//! The index files each predicate under such parts (its lookup): equality and `IN` under the bytes of their values in a
//! hash table, ranges in a tree of intervals, everything else in a list. A row is read once for each distinct operand, and
//! finds what is filed under its value.

mod group;
mod intervals;
mod key;
mod lookup;
mod places;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use group::{Group, GroupKey};
use lookup::{Access, Lookup};
use places::Places;

use crate::predicate::Predicate;
use crate::row::Row;

/// A distinct predicate that a row can be in, and who asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a, Id> {
    /// The predicate, still to be evaluated.
    pub predicate: &'a Arc<Predicate>,
    /// Those for whom it was inserted; at least one.
    pub ids: &'a HashSet<Id>,
}

/// Work that a predicate makes of every row, whatever the row's values: its own evaluation where no lookup finds it, else
/// each path into a column under which it is found. Equal for predicates that share it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scan(Scanned);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Scanned {
    Predicate(Arc<Predicate>),
    Path(GroupKey),
}

impl Scan {
    /// The work that a predicate makes. Empty where it is found by the values of whole columns.
    #[must_use]
    pub fn of(predicate: &Arc<Predicate>) -> Vec<Self> {
        let accesses = match Lookup::of(predicate) {
            Lookup::Everything => return vec![Self(Scanned::Predicate(Arc::clone(predicate)))],
            Lookup::Accesses(accesses) => accesses,
        };
        let paths: HashSet<&GroupKey> =
            accesses.iter().map(Access::group).filter(|group| !group.operand.path.is_empty()).collect();
        paths.into_iter().map(|group| Self(Scanned::Path(group.clone()))).collect()
    }
}

#[derive(Clone, Debug)]
struct Entry<Id> {
    predicate: Arc<Predicate>,
    ids: HashSet<Id>,
}

/// The predicates of one relation by what they compare. Inserting and removing takes O(log n) for each value that a
/// predicate compares with; a row takes one lookup for each distinct column or path that is compared, whatever the number
/// of predicates, and one evaluation for each candidate.
///
/// Predicates that are equal are kept once. All of them have to be bound to one relation; keep an index for each.
#[derive(Clone, Debug)]
pub struct PredicateIndex<Id> {
    entries: Vec<Option<Entry<Id>>>,
    free: Vec<usize>,
    hasher: RandomState,
    /// By their hash, which is made once of each: not again whenever the table grows.
    by_hash: HashMap<u64, Places>,
    groups: HashMap<GroupKey, Group>,
    /// Predicates that can be true for any row.
    rest: BTreeSet<usize>,
}

impl<Id> Default for PredicateIndex<Id> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            hasher: RandomState::new(),
            by_hash: HashMap::new(),
            groups: HashMap::new(),
            rest: BTreeSet::new(),
        }
    }
}

impl<Id: Eq + Hash> PredicateIndex<Id> {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Distinct predicates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Distinct predicates that no lookup finds, so that each row evaluates them.
    #[must_use]
    pub fn unindexed(&self) -> usize {
        self.rest.len()
    }

    fn find(&self, hash: u64, predicate: &Predicate) -> Option<usize> {
        let is_it = |place: usize| {
            let entry = self.entries.get(place).and_then(Option::as_ref);
            entry.is_some_and(|entry| *entry.predicate == *predicate)
        };
        self.by_hash.get(&hash)?.find(is_it)
    }

    /// Adds `id` to those of a predicate. Answers the predicate as it is kept: one for all that are equal.
    pub fn insert(&mut self, predicate: &Arc<Predicate>, id: Id) -> Arc<Predicate> {
        let hash = self.hasher.hash_one(&**predicate);
        if let Some(place) = self.find(hash, predicate)
            && let Some(Some(entry)) = self.entries.get_mut(place)
        {
            entry.ids.insert(id);
            return Arc::clone(&entry.predicate);
        }
        let entry = Entry { predicate: Arc::clone(predicate), ids: HashSet::from([id]) };
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        match Lookup::of(predicate) {
            Lookup::Everything => {
                self.rest.insert(place);
            }
            Lookup::Accesses(accesses) => {
                for access in &accesses {
                    let group = self.groups.entry(access.group().clone()).or_default();
                    match access {
                        Access::Points { keys, .. } => keys.iter().for_each(|key| group.add(key, place)),
                        Access::Range { low, high, .. } => {
                            group.ranges.insert(low.as_deref(), high.as_deref(), place);
                        }
                    }
                }
            }
        }
        match self.by_hash.get_mut(&hash) {
            Some(places) => places.add(place),
            None => drop(self.by_hash.insert(hash, Places::One(place))),
        }
        if let Some(slot) = self.entries.get_mut(place) {
            *slot = Some(entry);
        }
        Arc::clone(predicate)
    }

    /// Takes `id` from those of a predicate, and the predicate away with the last of them. Answers whether it was there.
    pub fn remove(&mut self, predicate: &Predicate, id: &Id) -> bool {
        let hash = self.hasher.hash_one(predicate);
        let Some(place) = self.find(hash, predicate) else { return false };
        let Some(slot) = self.entries.get_mut(place) else { return false };
        let Some(entry) = slot.as_mut() else { return false };
        if !entry.ids.remove(id) {
            return false;
        }
        if !entry.ids.is_empty() {
            return true;
        }
        *slot = None;
        if self.by_hash.get_mut(&hash).is_some_and(|places| places.take(place)) {
            self.by_hash.remove(&hash);
        }
        self.free.push(place);
        // Found out again rather than kept: it is as large as the predicate.
        match Lookup::of(predicate) {
            Lookup::Everything => {
                self.rest.remove(&place);
            }
            Lookup::Accesses(accesses) => {
                for access in &accesses {
                    let Some(group) = self.groups.get_mut(access.group()) else { continue };
                    match access {
                        Access::Points { keys, .. } => keys.iter().for_each(|key| group.take(key, place)),
                        Access::Range { low, .. } => group.ranges.remove(low.as_deref(), place),
                    }
                    if group.is_empty() {
                        self.groups.remove(access.group());
                    }
                }
            }
        }
        true
    }

    /// The distinct predicates that one of these rows can be in: all that are true for one of them or unknown, and few
    /// others. Give both images of an update at once, so that rows that leave are found too.
    pub fn candidates<'a>(
        &'a self,
        rows: &[&Row<'_>],
    ) -> impl Iterator<Item = Candidate<'a, Id>> + use<'a, Id> {
        let mut places: Vec<usize> = self.rest.iter().copied().collect();
        let mut buffer = Vec::new();
        for (key, group) in &self.groups {
            for row in rows {
                group.find(key, row.value(key.column), &mut buffer, &mut places);
            }
        }
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| {
            let entry = self.entries.get(place)?.as_ref()?;
            Some(Candidate { predicate: &entry.predicate, ids: &entry.ids })
        })
    }
}
