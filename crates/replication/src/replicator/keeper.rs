//! Who keeps the feed's record and history, as the replicator needs them.

use futures_util::future::BoxFuture;
use walcast_model::{Lsn, Transaction};

use crate::identity::Origin;

/// Why the feed cannot go on as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeedEnd {
    /// The source has another life: what the feed has delivered may not have happened in it.
    Branched,
    /// The source sends other transactions than it sent before.
    Differs {
        /// From here on. What it sent again before that is what it was.
        at: Lsn,
    },
    /// Changes are missing, or may be.
    Hole,
    /// Before this process had the slot somebody else had it: the feed is not where its record was when that was read.
    Overtaken,
}

/// Changes that are missing for good, which nothing but the slot's stream shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastingHole {
    /// Up to here the feed is complete.
    pub complete_to: Lsn,
    /// The publication that was missing when they were written.
    pub publication: String,
    /// Why: what follows "changes are missing: ".
    pub reason: String,
}

/// Whose the feed is now, as its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tenure {
    /// This process's.
    Own,
    /// It is being set up by another process, which may give it up for another feed.
    BeingSetUp,
    /// The history has another feed by now, or another process has claimed this one.
    Over,
}

/// What history has of what the source has sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTransactions {
    /// Transactions with changes, in order.
    pub transactions: Vec<Transaction>,
    /// What began before it was stored and is not there any more: retention has dropped it, or it was given up.
    pub oldest: Lsn,
}

/// Keeps the feed's record and history, for the replicator to ask and to tell. Errors are texts for people.
pub trait Keeper: Send + Sync {
    /// Records that the feed goes on in this life of the source. When it fails, the feed goes on all the same: only the
    /// next start then has to prove what is proven now.
    fn adopt(&self, origin: Origin) -> BoxFuture<'static, Result<(), String>>;

    /// The last `count_max` stored transactions with changes that begin at or after `from` and before `to`, and none that
    /// begins before [`oldest`](StoredTransactions::oldest).
    fn transactions(
        &self,
        from: Lsn,
        to: Lsn,
        count_max: u32,
    ) -> BoxFuture<'static, Result<StoredTransactions, String>>;

    /// The slot is this process's: nobody else reads from it now. Told once, the first time.
    fn holds_slot(&self);

    /// Keeps a hole for all who do not read the slot, once; until it is done it is asked for again.
    fn keep_hole(&self, hole: LastingHole) -> BoxFuture<'static, Result<(), String>>;

    /// Asks whose the feed is. A slot that is gone or ahead is a hole only for who has the feed.
    fn tenure(&self) -> BoxFuture<'static, Result<Tenure, String>>;

    /// The feed cannot go on as it is. The replicator tries again all the same, until it is stopped.
    fn ended(&self, end: FeedEnd);
}
