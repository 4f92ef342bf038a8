//! The shapes with a filter on one table, in one definition of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use walcast_filter::{Predicate, PredicateIndex, Schema};
use walcast_model::Relation;

use super::{ShapeNumber, Shapes};
use crate::shape::Shape;
use crate::wanted::{Binding, Choice};

/// The shapes with a filter on a table, in the definition that its changes had last.
#[derive(Debug)]
pub(in crate::router) struct Definition {
    pub(super) relation: Arc<Relation>,
    pub(super) predicates: PredicateIndex<ShapeNumber>,
    /// Those in `predicates`.
    pub(super) bound: HashMap<ShapeNumber, (Arc<Shape>, Arc<Predicate>)>,
    /// Those whose filter is not bound to the definition yet, or leaves nothing out: they are told of every part.
    pub(super) unbound: Shapes,
    /// Those that take nothing of the table in this definition.
    idle: HashSet<ShapeNumber>,
    facts: Facts,
}

/// What was known of a table when filters were bound to a definition of it.
#[derive(Debug)]
enum Facts {
    /// None was bound.
    Unknown,
    /// The same for all of them.
    Same(Arc<Schema>),
    /// Something was altered meanwhile that is no part of a definition.
    Mixed,
}

impl Facts {
    fn note(&mut self, schema: &Arc<Schema>) {
        match self {
            Self::Unknown => *self = Self::Same(Arc::clone(schema)),
            Self::Same(known) if Arc::ptr_eq(known, schema) || schema.extends(known) => {}
            Self::Same(_) | Self::Mixed => *self = Self::Mixed,
        }
    }
}

impl Definition {
    pub(super) fn new(relation: &Arc<Relation>) -> Self {
        Self {
            relation: Arc::clone(relation),
            predicates: PredicateIndex::new(),
            bound: HashMap::new(),
            unbound: Shapes::new(),
            idle: HashSet::new(),
            facts: Facts::Unknown,
        }
    }

    pub(super) fn is_of(&self, relation: &Relation) -> bool {
        self.relation.digest() == relation.digest() && self.relation.name() == relation.name()
    }

    /// Takes a shape with a filter on the table in, as it is bound to the definition by now.
    pub(super) fn add(&mut self, number: ShapeNumber, shape: &Arc<Shape>) {
        self.remove(number);
        let binding = shape.wanted().binding(&self.relation);
        if let Some(Binding { schema: Some(schema), .. }) = &binding {
            self.facts.note(schema);
        }
        match binding.map(|binding| binding.choice) {
            Some(Choice::Nothing | Choice::Withheld) => drop(self.idle.insert(number)),
            // Its sessions have to be told of every change, and end with the first that concerns them.
            Some(Choice::Unfit) => drop(self.unbound.insert(number, Arc::clone(shape))),
            Some(Choice::Rows(predicate)) => {
                let predicate = self.predicates.insert(&predicate, number);
                self.bound.insert(number, (Arc::clone(shape), predicate));
            }
            Some(Choice::Everything) | None => drop(self.unbound.insert(number, Arc::clone(shape))),
        }
    }

    pub(super) fn remove(&mut self, number: ShapeNumber) {
        self.unbound.remove(&number);
        self.idle.remove(&number);
        if let Some((_, predicate)) = self.bound.remove(&number) {
            self.predicates.remove(&predicate, &number);
        }
    }

    /// What was known of the table when filters were bound; `None` where that does not tell how they are bound to the next
    /// definition.
    pub(super) fn facts(&self) -> Option<&Arc<Schema>> {
        match &self.facts {
            Facts::Same(schema) if self.idle.is_empty() => Some(schema),
            Facts::Same(_) | Facts::Unknown | Facts::Mixed => None,
        }
    }

    /// Becomes another definition, that extends this one: the filters are filed as they would be under it. Until each is
    /// bound to it, its shape is told of all that its lookup finds. Answers whether that could be done.
    pub(super) fn extend(&mut self, schema: &Arc<Schema>) -> bool {
        let extends = self.facts().is_some_and(|former| schema.extends(former));
        if extends {
            self.relation = Arc::clone(schema.relation());
            self.facts = Facts::Same(Arc::clone(schema));
        }
        extends
    }

    /// How many shapes are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bound.len() + self.unbound.len() + self.idle.len()
    }
}
