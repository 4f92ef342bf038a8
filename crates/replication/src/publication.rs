//! Which tables the slot publishes, without ever breaking the application.
//!
//! Postgres refuses UPDATE and DELETE on a table whose publication publishes them and whose rows cannot be told
//! apart in the WAL. So there are two publications:
//!
//! ```text
//! <name>          tables with a usable replica identity: everything
//! <name>_inserts  the others: insert and truncate only
//! ```
//!
//! Partitions are published as themselves (`publish_via_partition_root = false`). The topmost partitioned table is
//! listed, so that a new partition is covered from its first row; each partition is listed too, so that one that is
//! detached stays covered. A partitioned table whose partitions cannot all be published whole is itself listed for
//! inserts, and its usable partitions whole.
//!
//! [`Facts`] are read, a [`Plan`] is made from them without I/O, and its steps are applied one short transaction
//! each. [`Reconciler`] repeats this while walcast runs: tables come, lose their key, get one.

mod apply;
mod facts;
mod pickup;
mod plan;
mod published;
mod reconcile;

#[cfg(test)]
mod tests;

use std::time::Duration;

use walcast_model::RelationName;

pub use apply::{Applied, apply};
pub use facts::{Facts, IdentityFacts, PublicationFacts, RoleFacts, TableFacts};
pub use plan::{Action, Finding, FindingKind, Pickup, Placement, Plan, PlanStep, TableStep};
pub use reconcile::Reconciler;

/// Which tables are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// Every permanent user table of the database but walcast's own and those of extensions.
    #[default]
    UserTables,
    /// These; a partitioned table stands for its partitions.
    Listed(Vec<RelationName>),
    /// One publication `FOR ALL TABLES`. Needs a superuser, and makes the application's UPDATE and DELETE fail on
    /// tables without a usable replica identity: only when asked for.
    ForAllTables,
}

/// How publishing is done.
#[derive(Debug, Clone)]
pub struct PublicationSettings {
    /// The publication's name; the second one's is this and `_inserts`.
    pub name: String,
    /// Whether walcast creates and alters them. When not, the publication `name` is used as it is.
    pub manage: bool,
    /// The tables.
    pub selection: Selection,
    /// How long a statement may wait for a lock, and so make others wait behind it. Default 200 ms. Beyond it the
    /// table is tried again later.
    pub lock_timeout: Duration,
    /// How often tables are looked for. Default 5 s.
    pub discover_interval: Duration,
    /// The longest time between two tries for the lock of one table. Default 60 s.
    pub retry_interval_max: Duration,
    /// Size of a table (its main fork and TOAST, in bytes) up to which the rows that were there before it was picked
    /// up are carried into a running feed. Default 64 MiB. A larger table is published without them, which is said by
    /// a warning and a metric.
    pub pickup_bytes_max: u64,
}

impl PublicationSettings {
    /// The defaults, under this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            manage: true,
            selection: Selection::default(),
            lock_timeout: Duration::from_millis(200),
            discover_interval: Duration::from_secs(5),
            retry_interval_max: Duration::from_secs(60),
            pickup_bytes_max: 64 << 20,
        }
    }

    /// The name of the publication of tables without a usable replica identity.
    #[must_use]
    pub fn inserts_name(&self) -> String {
        format!("{}_inserts", self.name)
    }

    /// Whether there is a second publication.
    #[must_use]
    pub fn has_inserts(&self) -> bool {
        self.manage && self.selection != Selection::ForAllTables
    }

    /// The publications that the slot reads.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        if self.has_inserts() {
            names.push(self.inserts_name());
        }
        names
    }
}
