//! How the filters of a shape are bound to the definitions of their tables.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use walcast_filter::Predicate;
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

    const fn is_unfit(&self) -> bool {
        matches!(self, Self::Unfit)
    }
}

/// Of one table, oldest first.
type Definitions = Vec<(RelationDigest, Choice)>;

/// What is taken of each table, by its definitions.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    // Short synchronous sections.
    by_table: RwLock<HashMap<Oid, Definitions>>,
}

impl Bindings {
    pub(crate) fn get(&self, relation: &Relation) -> Option<Choice> {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.get(&relation.oid())?;
        let digest = relation.digest();
        definitions.iter().find(|(known, _)| *known == digest).map(|(_, choice)| choice.clone())
    }

    /// Whether rows of the table were or are given in some definition.
    pub(crate) fn gives(&self, oid: Oid) -> bool {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.get(&oid);
        definitions
            .is_some_and(|known| known.iter().any(|(_, choice)| choice.is_given() || choice.is_unfit()))
    }

    pub(crate) fn latest(&self, oid: Oid) -> Option<Choice> {
        let by_table = self.by_table.read().unwrap_or_else(PoisonError::into_inner);
        by_table.get(&oid)?.last().map(|(_, choice)| choice.clone())
    }

    pub(crate) fn set(&self, relation: &Relation, choice: Choice) {
        let mut by_table = self.by_table.write().unwrap_or_else(PoisonError::into_inner);
        let definitions = by_table.entry(relation.oid()).or_default();
        definitions.retain(|(known, _)| *known != relation.digest());
        if choice.is_given() {
            // From now on there are those who have rows of it.
            let withheld = definitions.iter_mut().filter(|(_, choice)| matches!(choice, Choice::Withheld));
            withheld.for_each(|(_, choice)| *choice = Choice::Unfit);
        }
        if definitions.len() == DEFINITIONS_MAX {
            definitions.remove(0);
        }
        // Mostly there is one, and there may be many shapes.
        definitions.reserve_exact(1);
        definitions.push((relation.digest(), choice));
    }

    pub(crate) fn forget(&self, relation: &Relation) {
        let mut by_table = self.by_table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(definitions) = by_table.get_mut(&relation.oid()) {
            definitions.retain(|(known, _)| *known != relation.digest());
        }
    }
}
