//! Filters, when their table comes in a new definition.
//!
//! Where the table has got columns and nothing else, the filters are filed already as they would be under the new definition:
//! it comes into force at once, and they are bound to it beside what comes. Otherwise changes of the table wait until all are
//! bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;
use walcast_filter::Schema;
use walcast_model::{Part, Relation};

use super::Router;
use super::index::ShapeNumber;
use crate::catalog::{Catalog, Freshness};
use crate::shape::Shape;

/// How long the router waits for what filters have to know of a new definition of a table. Without an answer each session
/// asks when it comes to a change of it.
const DEFINITION_MAX: Duration = Duration::from_millis(500);

/// Shapes that are taken into a new definition in one hold of the lock.
const SLICE: usize = 128;

/// A definition that has come into force before all filters were bound to it.
pub(super) struct Rebinding {
    schema: Arc<Schema>,
    last: Option<ShapeNumber>,
}

impl Router {
    /// The definitions with which a part is the first to come, of tables on which shapes have filters.
    pub(super) fn new_definitions(&self, part: &Part, met: &mut Option<Arc<Relation>>) -> Vec<Arc<Relation>> {
        let mut new: Vec<Arc<Relation>> = Vec::new();
        for change in part.changes() {
            let relation = &change.relation;
            if met.as_ref().is_some_and(|met| Arc::ptr_eq(met, relation)) {
                continue;
            }
            *met = Some(Arc::clone(relation));
            let is_it =
                |known: &Arc<Relation>| known.oid() == relation.oid() && known.digest() == relation.digest();
            if !new.iter().any(is_it) && self.index().is_new(relation) {
                new.push(Arc::clone(relation));
            }
        }
        new
    }

    /// Lets a new definition, of which `part` is the first to have changes, come into force: with the next of them, or at
    /// once, and then its filters have to be bound yet.
    pub(super) async fn meet(
        &self,
        relation: &Arc<Relation>,
        part: &Part,
        catalog: &Catalog,
    ) -> Option<Rebinding> {
        let former = self.index().facts(relation.oid());
        let may_extend =
            former.is_some_and(|former| relation.columns().starts_with(former.relation().columns()));
        let mut schema = None;
        // Changes in two definitions need both.
        if may_extend && is_only_one(relation, part) {
            let known = schema_of(relation, catalog).await;
            if let Some(schema) = &known
                && self.index().extend(schema)
            {
                return Some(Rebinding { schema: Arc::clone(schema), last: None });
            }
            schema = Some(known);
        }
        self.make(relation, catalog, schema).await;
        None
    }

    /// Binds some more filters to definitions that are in force.
    pub(super) fn rebind_some(&self, rebinding: &mut VecDeque<Rebinding>) {
        let Some(Rebinding { schema, last }) = rebinding.front_mut() else { return };
        let relation = schema.relation();
        let shapes = {
            let index = self.index();
            // Another one may have come after it.
            if index.is_in_force(relation) {
                index.filtered_after(relation.name(), *last, SLICE)
            } else {
                Vec::new()
            }
        };
        shapes.iter().for_each(|(_, shape)| bind(shape, schema));
        self.index().take_in(relation, &shapes);
        match shapes.last() {
            Some((number, _)) => *last = Some(*number),
            None => drop(rebinding.pop_front()),
        }
    }

    /// Binds filters to a new definition, and makes the index of them, before its first change is looked at. Otherwise
    /// every session would find out by itself, all at once, and would have to look at every change until it has. The lock
    /// is let go of again and again meanwhile, and sessions have their turn. `schema`: what filters have to know of it, where
    /// that was asked already.
    async fn make(
        &self,
        relation: &Arc<Relation>,
        catalog: &Catalog,
        mut schema: Option<Option<Arc<Schema>>>,
    ) {
        self.index().begin(relation);
        let mut last = None;
        loop {
            let shapes = self.index().filtered_after(relation.name(), last, SLICE);
            for (_, shape) in &shapes {
                if shape.wanted().choice(relation).is_some() {
                    continue;
                }
                if schema.is_none() {
                    schema = Some(schema_of(relation, catalog).await);
                }
                if let Some(Some(schema)) = &schema {
                    bind(shape, schema);
                }
            }
            self.index().take_in(relation, &shapes);
            yield_now().await;
            match shapes.last() {
                Some((number, _)) => last = Some(*number),
                None => return,
            }
        }
    }
}

/// Whether all changes of a table in a part have this definition.
fn is_only_one(relation: &Relation, part: &Part) -> bool {
    let of_it = part.changes().iter().filter(|change| change.relation.oid() == relation.oid());
    of_it.map(|change| change.relation.digest()).all(|digest| digest == relation.digest())
}

/// What filters have to know of a definition, if that can be said soon.
async fn schema_of(relation: &Arc<Relation>, catalog: &Catalog) -> Option<Arc<Schema>> {
    timeout(DEFINITION_MAX, catalog.schema_of(relation, Freshness::Lately)).await.ok()?.ok()
}

/// Where it does not fit, its session finds out, and says so.
fn bind(shape: &Shape, schema: &Arc<Schema>) {
    if shape.wanted().choice(schema.relation()).is_none() {
        drop(shape.wanted().bind(schema));
    }
}
