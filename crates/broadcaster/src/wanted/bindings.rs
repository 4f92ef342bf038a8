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
    /// What is granted does not fit, and never did: nothing was given of the table, and nothing is.
    Withheld,
    /// What is granted does not fit, and did or does in another definition of the table: no row can be told, and none may be
    /// passed over by those who were given some.
    Unfit,
    /// Every row.
    Everything,
    /// Rows for which it is true.
    Rows(Arc<Predicate>),
}

impl Choice {
    /// Whether there may be rows of it.
    pub(crate) const fn is_given(&self) -> bool {
        matches!(self, Self::Everything | Self::Rows(_))
    }

    /// Whether what is taken can be told of its rows.
    pub(crate) const fn fits(&self) -> bool {
        !matches!(self, Self::Withheld | Self::Unfit)
    }

    const fn is_unfit(&self) -> bool {
        matches!(self, Self::Unfit)
    }
}

/// What is taken of a table in one definition.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) choice: Choice,
    /// Of rows for which a predicate is true: what was known of the table when it was bound.
    pub(crate) schema: Option<Arc<Schema>>,
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

    /// Whether rows of the table were or are given in some definition.
    pub(crate) fn gives(&self, oid: Oid) -> bool {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.get(&oid);
        let is_given = |choice: &Choice| choice.is_given() || choice.is_unfit();
        definitions.is_some_and(|known| known.iter().any(|(_, binding)| is_given(&binding.choice)))
    }

    /// Whether there is a definition of the table that does not fit.
    pub(crate) fn misfits_some(&self, oid: Oid) -> bool {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.get(&oid);
        definitions.is_some_and(|known| known.iter().any(|(_, binding)| !binding.choice.fits()))
    }

    pub(crate) fn latest(&self, oid: Oid) -> Option<Choice> {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        by_table.get(&oid)?.last().map(|(_, binding)| binding.choice.clone())
    }

    pub(crate) fn set(&self, schema: &Arc<Schema>, choice: Choice) {
        let relation = schema.relation();
        let schema = matches!(choice, Choice::Rows(_)).then(|| Arc::clone(schema));
        let binding = Binding { choice, schema };
        let mut by_table = self.by_table.write().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.entry(relation.oid()).or_default();
        definitions.retain(|(known, _)| *known != relation.digest());
        if binding.choice.is_given() {
            // From now on there are those who have rows of it.
            let choices = definitions.iter_mut().map(|(_, binding)| &mut binding.choice);
            choices
                .filter(|choice| matches!(choice, Choice::Withheld))
                .for_each(|choice| *choice = Choice::Unfit);
        }
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
