//! How many there are of each.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts, by key; keys with none are forgotten. Cheap to clone.
#[derive(Debug)]
pub(super) struct Tally<K> {
    // Held for one look-up.
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

/// One that is counted; until dropped.
#[derive(Debug)]
pub(super) struct Counted<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
    amount: usize,
}

impl<K: Hash + Eq> Counted<K> {
    pub(super) const fn key(&self) -> &K {
        &self.key
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { counts: Arc::default() }
    }
}

impl<K> Clone for Tally<K> {
    fn clone(&self) -> Self {
        Self { counts: Arc::clone(&self.counts) }
    }
}

impl<K: Hash + Eq + Clone> Tally<K> {
    /// Counts one more, unless there are `max` already.
    pub(super) fn enter(&self, key: K, max: usize) -> Option<Counted<K>> {
        self.add(key, 1, max)
    }

    /// Counts so many more, unless there would be more than `max` with those that are there already.
    pub(super) fn add(&self, key: K, amount: usize, max: usize) -> Option<Counted<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or_default();
        let more = count.saturating_add(amount);
        if more > max {
            return None;
        }
        counts.insert(key.clone(), more);
        Some(Counted { counts: Arc::clone(&self.counts), key, amount })
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= self.amount;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_key_is_counted_up_to_its_bound_and_forgotten_after_its_last() {
        let tally = Tally::default();
        let (one, two) = (tally.enter("a", 2), tally.enter("a", 2));
        assert!(one.is_some() && two.is_some() && tally.enter("a", 2).is_none());
        assert!(tally.enter("b", 2).is_some());
        drop(one);
        assert!(tally.enter("a", 2).is_some());
        drop(two);
        assert!(tally.counts.lock().unwrap().is_empty());
    }
}
