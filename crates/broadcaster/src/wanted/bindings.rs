//! How the filters of a shape are bound to the definitions of their tables.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use walcast_filter::{Predicate, Schema};
use walcast_model::{Oid, Relation, RelationDigest};

/// Definitions of one table that are remembered: the one that is in force, those of somebody who is behind, and all that can
/// be in one part.
pub(crate) const DEFINITIONS_MAX: usize = 64;

/// What is taken of a table in one definition.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// No row, whatever it holds.
    Nothing,
    /// What is granted does not fit: no row can be told, and none may be passed over.
    Unfit,
    /// Every row.
    Everything,
    /// Rows for which it is true.
    Rows(Arc<Predicate>),
}

/// What is taken of a table in one definition, and what was known of it when that was found out.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) choice: Choice,
    pub(crate) schema: Arc<Schema>,
}

/// Of one table, oldest first.
type Definitions = Vec<(RelationDigest, Binding)>;

/// What is taken of each table, by its definitions.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    // Short synchronous sections.
    by_table: RwLock<HashMap<Oid, Definitions>>,
}

impl Bindings {
    /// A part of what is known of a definition.
    pub(crate) fn get<T>(&self, relation: &Relation, part: impl FnOnce(&Binding) -> T) -> Option<T> {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.get(&relation.oid())?;
        let digest = relation.digest();
        definitions.iter().find(|(known, _)| *known == digest).map(|(_, binding)| part(binding))
    }

    pub(crate) fn latest(&self, oid: Oid) -> Option<Choice> {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        by_table.get(&oid)?.last().map(|(_, binding)| binding.choice.clone())
    }

    pub(crate) fn set(&self, binding: Binding) {
        let relation = Arc::clone(binding.schema.relation());
        let mut by_table = self.by_table.write().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.entry(relation.oid()).or_default();
        definitions.retain(|(known, _)| *known != relation.digest());
        if definitions.len() == DEFINITIONS_MAX {
            definitions.remove(0);
        }
        // Mostly there is one, and there may be many shapes.
        definitions.reserve_exact(1);
        definitions.push((relation.digest(), binding));
    }

    pub(crate) fn forget(&self, relation: &Relation) {
        let mut by_table = self.by_table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(definitions) = by_table.get_mut(&relation.oid()) {
            definitions.retain(|(known, _)| *known != relation.digest());
        }
    }
}
