//! What one client may have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use walcast_filter::{Filter, FilterError};
use walcast_model::{Column, RelationName};
use walcast_protocol::TablePattern;

use crate::policy::Place;

/// What may be had of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Grant {
    /// These columns; `None` for all. Those of the key come always: a row could not be told apart without.
    pub columns: Option<BTreeSet<String>>,
    /// These rows; `None` for all.
    pub rows: Option<Filter>,
    /// What transactions that change such rows say about themselves.
    pub meta: bool,
}

impl Grant {
    /// All that there is.
    #[must_use]
    pub const fn everything() -> Self {
        Self { columns: None, rows: None, meta: true }
    }

    /// Whether the client may have this column, and so may also ask by it: a client that could filter by a column that it
    /// may not have would learn its values by asking.
    #[must_use]
    pub fn shows(&self, column: &Column) -> bool {
        column.key || self.columns.as_ref().is_none_or(|columns| columns.contains(&column.name))
    }
}

/// Why nothing may be had of tables that a policy is about: a claim has a form that its place cannot take.
///
/// For people, and for the operator rather than the client. What is denied is denied alike, so denials are equal
/// whatever the reason.
#[derive(Clone, Debug)]
pub struct Denial {
    place: Place,
    message: String,
    hint: String,
}

impl Denial {
    pub(crate) fn new(place: Place, error: &FilterError) -> Self {
        Self { place, message: error.to_string(), hint: error.hint().to_owned() }
    }

    /// The policy.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl PartialEq for Denial {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Denial {}

impl Hash for Denial {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What one client may have. Clients with equal rights share all work that is done for them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Rights {
    /// All that is published: the daemon runs without authentication.
    Everything,
    /// What is granted, and nothing else. A denial hides what wider patterns grant, as a grant would.
    Granted(BTreeMap<TablePattern, Result<Grant, Denial>>),
}

impl Rights {
    /// Whether there are no policies.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    /// What may be had of a table, `None` for nothing. The entry that says most about it counts
    /// ([`TablePattern::most_telling`]).
    #[must_use]
    pub fn of(&self, table: &RelationName) -> Option<Grant> {
        match self {
            Self::Everything => Some(Grant::everything()),
            Self::Granted(_) => self.entry(table)?.as_ref().ok().cloned(),
        }
    }

    /// Why nothing may be had of a table that a policy is about; `None` when something is, or when no policy is about it.
    #[must_use]
    pub fn denied(&self, table: &RelationName) -> Option<&Denial> {
        self.entry(table)?.as_ref().err()
    }

    fn entry(&self, table: &RelationName) -> Option<&Result<Grant, Denial>> {
        let Self::Granted(entries) = self else { return None };
        let about = entries.iter().filter(|(pattern, _)| pattern.matches(table));
        TablePattern::most_telling(about).map(|(_, entry)| entry)
    }
}
