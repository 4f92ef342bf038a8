//! What one client may have.

use std::collections::{BTreeMap, BTreeSet};

use walcast_filter::Filter;
use walcast_model::RelationName;
use walcast_protocol::TablePattern;

/// What may be had of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Grant {
    /// These columns; `None` for all. Those of the key come always: a row could not be told apart without.
    pub columns: Option<BTreeSet<String>>,
    /// These rows; `None` for all.
    pub rows: Option<Filter>,
}

/// What one client may have. Clients with equal rights share all work that is done for them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Rights {
    /// All that is published: the daemon runs without authentication.
    Everything,
    /// What is granted, and nothing else.
    Granted(BTreeMap<TablePattern, Grant>),
}

impl Rights {
    /// What may be had of a table, `None` for nothing. The entry that says most about it counts: its own name before its
    /// schema's, that before `*`.
    #[must_use]
    pub fn of(&self, table: &RelationName) -> Option<Grant> {
        match self {
            Self::Everything => Some(Grant { columns: None, rows: None }),
            Self::Granted(grants) => {
                let patterns = [
                    TablePattern::Table(table.clone()),
                    TablePattern::Schema(table.schema.clone()),
                    TablePattern::All,
                ];
                patterns.iter().find_map(|pattern| grants.get(pattern)).cloned()
            }
        }
    }
}
