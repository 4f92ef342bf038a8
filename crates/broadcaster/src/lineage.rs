//! The feeds that this one continues, and how far their cursors are good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use walcast_model::{Cursor, FeedId};

use crate::refusal::Refusal;

/// Earlier feeds, each with the last of its cursors that means the same in this one. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    // Locked for a look-up; written once or twice, before the gate is open.
    ancestors: Arc<Mutex<HashMap<FeedId, Cursor>>>,
}

impl Lineage {
    /// Of a feed that continues these.
    #[must_use]
    pub fn new(ancestors: impl IntoIterator<Item = (FeedId, Cursor)>) -> Self {
        Self { ancestors: Arc::new(Mutex::new(ancestors.into_iter().collect())) }
    }

    /// Makes the cursors of all of them good up to `valid_to` at most. To be done before the gate is opened: those who
    /// were let in stay.
    pub fn narrow(&self, valid_to: Cursor) {
        let mut ancestors = self.ancestors.lock().unwrap_or_else(PoisonError::into_inner);
        for limit in ancestors.values_mut() {
            *limit = valid_to.min(*limit);
        }
    }

    /// Whether a cursor of `feed` can be resumed at in `ours`.
    pub(crate) fn check(&self, feed: &FeedId, cursor: Cursor, ours: &FeedId) -> Result<(), Refusal> {
        if feed == ours {
            return Ok(());
        }
        let ancestors = self.ancestors.lock().unwrap_or_else(PoisonError::into_inner);
        match ancestors.get(feed) {
            Some(valid_to) if cursor <= *valid_to => Ok(()),
            Some(valid_to) => Err(Refusal::beyond_branch(cursor, feed, *valid_to)),
            None => Err(Refusal::other_feed(feed, ours)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lineage;

    #[test]
    fn a_cursor_of_an_earlier_feed_is_good_up_to_where_that_ended() {
        let (a, b, c) = ("a".parse().unwrap(), "b".parse().unwrap(), "c".parse().unwrap());
        let at = |text: &str| text.parse().unwrap();
        let lineage = Lineage::new([("a".parse().unwrap(), at("0/50")), ("b".parse().unwrap(), at("0/80"))]);
        assert!(lineage.check(&c, at("0/FF"), &c).is_ok());
        assert!(lineage.check(&a, at("0/50"), &c).is_ok());
        let refused = lineage.check(&a, at("0/50:1"), &c).unwrap_err();
        assert_eq!(refused.code, walcast_protocol::ErrorCode::FeedChanged);
        assert!(lineage.check(&b, at("0/80"), &c).is_ok());
        lineage.narrow(at("0/60"));
        assert!(lineage.check(&b, at("0/80"), &c).is_err());
        assert!(lineage.check(&b, at("0/60"), &c).is_ok());
        assert!(lineage.check(&a, at("0/51"), &c).is_err());
        assert!(lineage.check(&"d".parse().unwrap(), at("0/1"), &c).is_err());
    }
}
