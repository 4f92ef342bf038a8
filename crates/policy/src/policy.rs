//! One policy.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use walcast_filter::{Claims, FilterError, Policy, Requirements, Schema};

use crate::rights::{Denial, Grant};

/// Where a policy stands in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which `[[policy]]`, from 1.
    pub policy: usize,
    /// The line of it, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {}, line {}", self.policy, self.line)
    }
}

/// What a policy gives of its tables, before it is known to whom.
#[derive(Clone, PartialEq, Debug)]
pub struct TablePolicy {
    pub(crate) place: Place,
    pub(crate) columns: Option<BTreeSet<String>>,
    pub(crate) rows: Option<RowPolicy>,
    pub(crate) meta: bool,
}

/// A row predicate and how it was written.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RowPolicy {
    pub(crate) text: Arc<str>,
    pub(crate) predicate: Policy,
}

impl TablePolicy {
    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The row predicate as it was written; `None` for all rows.
    #[must_use]
    pub fn predicate(&self) -> Option<&str> {
        self.rows.as_ref().map(|rows| &*rows.text)
    }

    /// The columns that it gives besides the key's; `None` for all.
    #[must_use]
    pub const fn columns(&self) -> Option<&BTreeSet<String>> {
        self.columns.as_ref()
    }

    /// What its row predicate needs of a table, whoever asks; `None` without a predicate.
    ///
    /// # Errors
    /// When the predicate cannot be bound to the table with any claims: nobody is given anything of it then.
    pub fn requirements(&self, schema: &Schema) -> Option<Result<Requirements, FilterError>> {
        self.rows.as_ref().map(|rows| rows.predicate.requirements(schema))
    }

    /// What the bearer of these claims is given; denied when a claim has a form that its place cannot take.
    pub(crate) fn grant(&self, claims: &Claims) -> Result<Grant, Denial> {
        let rows = self.rows.as_ref().map(|rows| rows.predicate.bind_claims(claims)).transpose();
        let rows = rows.map_err(|error| Denial::new(self.place, &error))?;
        Ok(Grant { columns: self.columns.clone(), rows, meta: self.meta })
    }
}
