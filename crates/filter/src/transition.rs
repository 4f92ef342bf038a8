//! What an update is to those who see a part of the table.

use walcast_model::{Change, Op, Part, Relation, ReplicaIdentity};

use crate::predicate::{Predicate, Verdict};

/// A verdict that the row does not give: the column that would have to be known, as an index of the relation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Undecided {
    /// The column.
    pub column: usize,
}

impl Verdict {
    /// Whether the row is in the filter.
    ///
    /// # Errors
    /// When a column that decides is not known.
    pub const fn matches(self) -> Result<bool, Undecided> {
        match self {
            Self::True => Ok(true),
            Self::False | Self::Null | Self::NotTrue => Ok(false),
            Self::Unknown(column) => Err(Undecided { column }),
        }
    }
}

/// What an update is for a filter, by whether it held the row before and holds it now: `None` for nothing.
#[must_use]
pub const fn transition(before: bool, after: bool) -> Option<Op> {
    match (before, after) {
        (false, true) => Some(Op::Insert),
        (true, true) => Some(Op::Update),
        (true, false) => Some(Op::Delete),
        (false, false) => None,
    }
}

/// What a filter needs of a table so that deletes, and updates into and out of it, can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirements {
    /// Columns that the filter looks at and that the replica identity does not have, by name, in the table's order.
    pub missing: Vec<String>,
    /// The one statement that mends it; `None` when nothing is missing.
    pub remedy: Option<String>,
}

impl Requirements {
    /// Those of a filter that looks at these columns of a table, as indexes into the relation's, ascending.
    pub(crate) fn of(relation: &Relation, columns: impl Iterator<Item = usize>) -> Self {
        let missing = columns.filter(|index| !in_identity(relation, *index));
        let missing = missing.filter_map(|index| relation.columns().get(index));
        let missing: Vec<String> = missing.map(|column| column.name.clone()).collect();
        let remedy = (!missing.is_empty()).then(|| {
            let name = relation.name();
            format!("ALTER TABLE {}.{} REPLICA IDENTITY FULL;", quoted(&name.schema), quoted(&name.table))
        });
        Self { missing, remedy }
    }

    /// Nothing is missing.
    #[must_use]
    pub const fn are_met(&self) -> bool {
        self.missing.is_empty()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn in_identity(relation: &Relation, index: usize) -> bool {
    match relation.identity() {
        ReplicaIdentity::Full => true,
        ReplicaIdentity::Nothing => false,
        ReplicaIdentity::Default | ReplicaIdentity::Index => {
            relation.columns().get(index).is_some_and(|column| column.key)
        }
    }
}

impl Predicate {
    /// What it needs of its table: every column that it looks at must be in the replica identity, for the WAL carries no
    /// other old values.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        Requirements::of(self.relation(), self.columns())
    }

    /// What a change is for this filter: the operation to deliver, or `None` for nothing. Truncates concern everybody.
    ///
    /// The before-image is `old` where the change has it, else `key`; a delivered delete that was an update has no row.
    ///
    /// # Errors
    /// When a column that decides is in neither image; [`Predicate::requirements`] tells beforehand.
    pub fn decide(&self, part: &Part, change: &Change) -> Result<Option<Op>, Undecided> {
        let side = |object: Option<&[u8]>| self.evaluate(object.unwrap_or(b"{}")).matches();
        let before = || side(part.old(change).or_else(|| part.key(change)));
        match change.op {
            Op::Truncate => Ok(Some(Op::Truncate)),
            Op::Insert => Ok(side(part.row(change))?.then_some(Op::Insert)),
            Op::Delete => Ok(before()?.then_some(Op::Delete)),
            Op::Update => Ok(transition(before()?, side(part.row(change))?)),
        }
    }
}
