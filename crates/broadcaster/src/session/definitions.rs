//! Which definitions a client was told.

use std::sync::Arc;

use walcast_model::{Relation, RelationName};

/// The definition of each table that was told last, by the name that the client knows: two tables may have had it. No larger
/// than it has to be: most clients have one table.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// In the order of their names.
    told: Vec<Arc<Relation>>,
    /// The one that was asked for last: nearly always it is the next as well.
    latest: usize,
}

impl Definitions {
    /// Whether a definition was told under this name.
    pub(super) fn has(&self, name: &RelationName) -> bool {
        self.find(name).is_ok()
    }

    fn find(&self, name: &RelationName) -> Result<usize, usize> {
        self.told.binary_search_by(|told| told.name().cmp(name))
    }

    /// Notes that this one is told; `false` when it was the last that was told under its name already.
    pub(super) fn tell(&mut self, relation: &Arc<Relation>) -> bool {
        if self.told.get(self.latest).is_some_and(|told| Arc::ptr_eq(told, relation)) {
            return false;
        }
        let found = self.find(relation.name());
        let (Ok(place) | Err(place)) = found;
        self.latest = place;
        match self.told.get_mut(place).filter(|_| found.is_ok()) {
            Some(told) => {
                let is_new = told.digest() != relation.digest();
                *told = Arc::clone(relation);
                is_new
            }
            None => {
                if self.told.is_empty() {
                    self.told.reserve_exact(1);
                }
                self.told.insert(place, Arc::clone(relation));
                true
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    use super::Definitions;

    fn relation(oid: u32, name: &str, column: &str) -> Arc<Relation> {
        let column = Column {
            name: column.into(),
            type_name: String::new(),
            type_oid: Oid::new(23),
            key: true,
            nullable: false,
        };
        let name = RelationName::new("public", name);
        Arc::new(Relation::new(Oid::new(oid), name, ReplicaIdentity::Default, vec![column]))
    }

    #[test]
    fn a_definition_is_told_when_its_name_had_another_one_last() {
        let (a, b, other) = (relation(1, "a", "x"), relation(2, "b", "x"), relation(1, "a", "y"));
        let mut definitions = Definitions::default();
        assert!(!definitions.has(a.name()));
        assert!(definitions.tell(&b) && definitions.tell(&a));
        assert!(!definitions.tell(&a) && !definitions.tell(&b) && !definitions.tell(&a));
        // The same, read again.
        assert!(!definitions.tell(&relation(1, "a", "x")));
        assert!(definitions.tell(&other) && !definitions.tell(&other) && definitions.tell(&a));
        assert!(definitions.has(a.name()) && definitions.has(b.name()));
        definitions.clear();
        assert!(!definitions.has(a.name()) && definitions.tell(&a));
    }
}
