//! Rows as the feed carries them: JSON objects of which only what is needed is looked at.

use walcast_model::json::fields;
use walcast_model::{Oid, Relation, RelationDigest};

/// A row whose columns were found once, for the many predicates that look at it.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// By the relation's columns; `None` for what the object does not have.
    values: Vec<Option<&'a [u8]>>,
    relation: Oid,
    digest: RelationDigest,
}

impl<'a> Row<'a> {
    /// Finds the columns of `relation` in a JSON object as [`Part::row`](walcast_model::Part::row),
    /// [`old`](walcast_model::Part::old) and [`key`](walcast_model::Part::key) give it.
    #[must_use]
    pub fn new(relation: &Relation, object: &'a [u8]) -> Self {
        let columns = relation.columns().len();
        let mut values = vec![None; columns];
        let mut next = 0;
        for (key, value) in fields(object) {
            // Rows are written in the order of the columns: almost always it is the next one.
            let found =
                (next..columns).chain(0..next).find(|index| name(relation.column_json(*index)) == key);
            if let Some(index) = found {
                if let Some(slot) = values.get_mut(index) {
                    *slot = Some(value);
                }
                next = index + 1;
            }
        }
        Self { values, relation: relation.oid(), digest: relation.digest() }
    }

    /// The JSON of the column at `index`; `None` when the row does not have it.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&'a [u8]> {
        self.values.get(index).copied().flatten()
    }

    pub(crate) fn is_of(&self, relation: &Relation) -> bool {
        self.relation == relation.oid() && self.digest == relation.digest()
    }
}

/// A column's name as it stands between the quotes of a key.
pub(crate) fn name(column_json: &str) -> &[u8] {
    let inner = column_json.strip_prefix('"').and_then(|rest| rest.strip_suffix("\":"));
    inner.unwrap_or_default().as_bytes()
}
