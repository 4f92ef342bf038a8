//! A filter that is bound to a table.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use walcast_model::json::fields;
use walcast_model::{Relation, RelationDigest};

use crate::evaluate::{Answers, answers};
use crate::node::Node;
use crate::row::{Row, name};

/// Columns that are looked up without asking for memory.
const SLOTS: usize = 8;

/// A column that a predicate looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ColumnUse {
    pub(crate) index: usize,
    /// As it stands between the quotes of a key.
    key: Box<[u8]>,
}

impl ColumnUse {
    pub(crate) fn new(relation: &Relation, index: usize) -> Self {
        Self { index, key: name(relation.column_json(index)).into() }
    }
}

/// What a predicate says of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The row is in the filter.
    True,
    /// It is not.
    False,
    /// It is not: NULL, which is neither true nor false.
    Null,
    /// It is not, and JSON does not tell whether the answer is false or NULL (for a jsonb column that is NULL or holds
    /// `null`). Only where it makes no difference; otherwise the filter was refused.
    NotTrue,
    /// The row does not have the column at this index of the relation (an unchanged TOAST value, a before-image that has
    /// the key alone), or its value is not one of the column's type, and the rest does not decide.
    Unknown(usize),
}

/// A filter that is bound to a table: immutable, cheap to share, equal to every other that means the same whatever its
/// spacing, letter case, parentheses, order of conditions and spelling of literals.
///
/// Valid for rows of exactly the [`Relation`] it was bound to: bind the [`Filter`](crate::Filter) again when a change
/// comes with another one.
#[derive(Clone, Debug)]
pub struct Predicate {
    relation: Arc<Relation>,
    columns: Vec<ColumnUse>,
    root: Node,
}

impl PartialEq for Predicate {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.columns == other.columns && self.root == other.root
    }
}

impl Eq for Predicate {}

impl Hash for Predicate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
        self.columns.hash(state);
        self.root.hash(state);
    }
}

impl Predicate {
    pub(crate) fn new(relation: Arc<Relation>, columns: Vec<ColumnUse>, root: Node) -> Self {
        Self { relation, columns, root }
    }

    /// Two tables can be defined alike.
    fn identity(&self) -> (u32, RelationDigest) {
        (self.relation.oid().get(), self.relation.digest())
    }

    /// The table that it is bound to.
    #[must_use]
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The columns that it looks at, as indexes into the relation's, ascending.
    pub fn columns(&self) -> impl Iterator<Item = usize> + use<'_> {
        self.columns.iter().map(|column| column.index)
    }

    pub(crate) const fn root(&self) -> &Node {
        &self.root
    }

    /// The verdict that is the same for every row, if there is one (`FALSE`, or a claim that is not there).
    #[must_use]
    pub const fn constant(&self) -> Option<Verdict> {
        match self.root {
            Node::Constant(Some(true)) => Some(Verdict::True),
            Node::Constant(Some(false)) => Some(Verdict::False),
            Node::Constant(None) => Some(Verdict::Null),
            _ => None,
        }
    }

    /// Evaluates one row, given as the JSON object that the feed carries. Looks at the needed columns alone, stops after
    /// the last of them, and asks for no memory unless more than eight columns are named or a string that `LIKE` looks at
    /// has escapes. Where several predicates look at one row, [`Predicate::evaluate_row`] saves the search.
    #[must_use]
    pub fn evaluate(&self, object: &[u8]) -> Verdict {
        let mut few: [Option<&[u8]>; SLOTS] = [None; SLOTS];
        let mut many = Vec::new();
        let slots = match few.get_mut(..self.columns.len()) {
            Some(slots) => slots,
            None => {
                many.resize(self.columns.len(), None);
                many.as_mut_slice()
            }
        };
        let (mut left, mut next) = (self.columns.len(), 0);
        let mut rest = fields(object);
        while left > 0 {
            let Some((key, value)) = rest.next() else { break };
            let is = |place: &usize| self.columns.get(*place).is_some_and(|column| *column.key == *key);
            // Rows are in the order of the columns: almost always it is the next one.
            let Some(place) = (next..self.columns.len()).chain(0..next).find(is) else { continue };
            if let Some(slot) = slots.get_mut(place) {
                *slot = Some(value);
            }
            (left, next) = (left - 1, place + 1);
        }
        self.verdict(answers(&self.root, slots))
    }

    /// Evaluates a row whose columns were found already. A row of another relation is unknown.
    #[must_use]
    pub fn evaluate_row(&self, row: &Row<'_>) -> Verdict {
        if !row.is_of(&self.relation) {
            return Verdict::Unknown(self.columns.first().map_or(0, |column| column.index));
        }
        let mut few: [Option<&[u8]>; SLOTS] = [None; SLOTS];
        let Some(slots) = few.get_mut(..self.columns.len()) else {
            let many: Vec<_> = self.columns().map(|index| row.value(index)).collect();
            return self.verdict(answers(&self.root, &many));
        };
        for (slot, column) in slots.iter_mut().zip(&self.columns) {
            *slot = row.value(column.index);
        }
        self.verdict(answers(&self.root, slots))
    }

    fn verdict(&self, answers: Answers) -> Verdict {
        match answers.only() {
            Some(Some(true)) => Verdict::True,
            Some(Some(false)) => Verdict::False,
            Some(None) => Verdict::Null,
            None if !answers.can_be_true() => Verdict::NotTrue,
            None => {
                let column = answers.missing().and_then(|place| self.columns.get(place));
                Verdict::Unknown(column.map_or(0, |column| column.index))
            }
        }
    }

    /// The predicate as SQL: generated from the bound form, never the client's text. Names are quoted and every literal
    /// is `'…'` with a cast to a type of `pg_catalog` (or the enum's qualified name), so that it means the same under
    /// every setting of the session but a `search_path` that puts other operators before those of `pg_catalog`.
    #[must_use]
    pub fn to_sql(&self) -> String {
        crate::sql::node_sql(&self.root)
    }
}
