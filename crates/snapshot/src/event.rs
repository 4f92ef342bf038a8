//! What an initial sync tells its consumer.

use std::sync::Arc;

use bytes::Bytes;
use walcast_filter::Filter;
use walcast_model::{Cursor, Relation, RelationName, Snapshot};

/// A table of an initial sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotTable {
    /// The table, by the name under which the feed has it.
    pub name: RelationName,
    /// The columns that its rows shall have; `None` for all published ones. Their order is the relation's.
    pub columns: Option<Vec<String>>,
    /// Only rows for which it holds. The server evaluates it, as SQL that is written from what it was read as.
    pub rows: Option<Filter>,
}

impl From<RelationName> for SnapshotTable {
    fn from(name: RelationName) -> Self {
        Self { name, columns: None, rows: None }
    }
}

/// A step of an initial sync. For each table one `Relation`, then its `Rows` (none when it is empty), each of them
/// after a `Progress`; `Done` comes last, and `Restarted` takes back everything before it.
#[derive(Clone, Debug)]
pub enum SnapshotEvent {
    /// The session to the source ended: what came so far is to be discarded, and everything comes again.
    Restarted,
    /// The table that follows, as the stream has it (the same digest).
    Relation(Arc<Relation>),
    /// How far the initial sync is with the `Rows` that follow, over all its tables.
    Progress {
        /// Rows sent.
        done: u64,
        /// Rows that there probably are, as the planner estimates; never below `done`.
        estimate: u64,
    },
    /// Rows of a table.
    Rows {
        /// The table.
        relation: Arc<Relation>,
        /// The rows as JSON objects, separated by commas: the form of `row` in a change.
        json: Bytes,
        /// How many there are, at least one.
        count: usize,
    },
    /// All rows are sent. The feed has everything that they can contain before `barrier`: deliver the transactions
    /// before it that `snapshot` does not see, and everything from it on.
    Done {
        /// What the rows contain.
        snapshot: Snapshot,
        /// A position of the feed, which has reached it.
        barrier: Cursor,
    },
}
