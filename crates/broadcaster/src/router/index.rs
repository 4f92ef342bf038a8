//! Shapes in use, by what they want: finds those that a change concerns.
//!
//! A table's shapes that take every row are listed under its name. Those with a filter are found by the predicates that
//! their filters are bound to, one index for each definition of a table that is in force: so a change costs as much as it
//! has matches, whatever the number of shapes. A shape whose filter is not bound to the definition yet is told of every
//! change of it, until its sessions have bound it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use walcast_filter::{Predicate, PredicateIndex, Row};
use walcast_model::{Change, Oid, Op, Part, Relation, RelationDigest, RelationName};
use walcast_protocol::TablePattern;

use crate::shape::{Noted, Only, Shape};
use crate::wanted::{Choice, ShapeKey};

/// Counts shapes in the order in which they were made.
pub(super) type ShapeNumber = u64;

/// Shapes that name the same: to go through, and to take one out of without looking at the others.
type Shapes = BTreeMap<ShapeNumber, Arc<Shape>>;

/// The shapes of one table, one schema, or all tables.
#[derive(Debug, Default)]
struct Listeners {
    /// Those that take every row.
    whole: Shapes,
    /// Those that have a filter.
    filtered: Shapes,
}

impl Listeners {
    fn list(&mut self, is_filtered: bool) -> &mut Shapes {
        if is_filtered { &mut self.filtered } else { &mut self.whole }
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.filtered.is_empty()
    }
}

/// The shapes with a filter on a table, in the definition that its changes had last.
#[derive(Debug)]
struct Definition {
    digest: RelationDigest,
    name: RelationName,
    predicates: PredicateIndex<ShapeNumber>,
    /// Those in `predicates`.
    bound: HashMap<ShapeNumber, (Arc<Shape>, Arc<Predicate>)>,
    /// Those whose filter is not bound to the definition yet.
    unbound: Shapes,
}

impl Definition {
    fn new(relation: &Relation) -> Self {
        Self {
            digest: relation.digest(),
            name: relation.name().clone(),
            predicates: PredicateIndex::new(),
            bound: HashMap::new(),
            unbound: Shapes::new(),
        }
    }

    fn add(&mut self, number: ShapeNumber, shape: &Arc<Shape>, choice: Option<Choice>) {
        self.remove(number);
        match choice {
            Some(Choice::Nothing) => {}
            Some(Choice::Rows(predicate)) => {
                let predicate = self.predicates.insert(&predicate, number);
                self.bound.insert(number, (Arc::clone(shape), predicate));
            }
            Some(Choice::Everything) | None => drop(self.unbound.insert(number, Arc::clone(shape))),
        }
    }

    fn remove(&mut self, number: ShapeNumber) {
        self.unbound.remove(&number);
        if let Some((_, predicate)) = self.bound.remove(&number) {
            self.predicates.remove(&predicate, &number);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    shapes: HashMap<Arc<ShapeKey>, (ShapeNumber, Arc<Shape>)>,
    tables: HashMap<RelationName, Listeners>,
    schemas: HashMap<String, Listeners>,
    everywhere: Listeners,
    /// Of tables with filters, by their object id.
    definitions: HashMap<Oid, Definition>,
    /// Under which object ids `definitions` has a name.
    defined: HashMap<RelationName, Vec<Oid>>,
    made: ShapeNumber,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Whether nothing is left of any shape.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let definitions = self.definitions.values();
        let mut of_definitions =
            definitions.map(|one| one.bound.len() + one.unbound.len() + one.predicates.len());
        self.shapes.is_empty()
            && self.tables.is_empty()
            && self.schemas.is_empty()
            && self.everywhere.is_empty()
            && of_definitions.all(|count| count == 0)
    }

    pub(super) fn get(&self, key: &ShapeKey) -> Option<&Arc<Shape>> {
        self.shapes.get(key).map(|(_, shape)| shape)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Shape>> {
        self.shapes.values().map(|(_, shape)| shape)
    }

    pub(super) fn add(&mut self, shape: &Arc<Shape>) {
        let number = self.made;
        self.made += 1;
        for (pattern, selection) in &shape.key().tables {
            let listeners = match pattern {
                TablePattern::All => &mut self.everywhere,
                TablePattern::Schema(schema) => self.schemas.entry(schema.clone()).or_default(),
                TablePattern::Table(name) => self.tables.entry(name.clone()).or_default(),
            };
            listeners.list(selection.is_filtered()).insert(number, Arc::clone(shape));
        }
        if shape.wanted().is_filtered() {
            for definition in definitions_of(&self.defined, &mut self.definitions, shape.key()) {
                if shape.wanted().of(&definition.name).is_some_and(|selection| selection.is_filtered()) {
                    definition.add(number, shape, None);
                }
            }
        }
        self.shapes.insert(Arc::clone(shape.key()), (number, Arc::clone(shape)));
    }

    pub(super) fn remove(&mut self, shape: &Shape) {
        let Some((number, _)) = self.shapes.remove(shape.key()) else { return };
        for (pattern, selection) in &shape.key().tables {
            let is_filtered = selection.is_filtered();
            match pattern {
                TablePattern::All => drop(self.everywhere.list(is_filtered).remove(&number)),
                TablePattern::Schema(schema) => take_out(&mut self.schemas, schema, is_filtered, number),
                TablePattern::Table(name) => take_out(&mut self.tables, name, is_filtered, number),
            }
        }
        if shape.wanted().is_filtered() {
            for definition in definitions_of(&self.defined, &mut self.definitions, shape.key()) {
                definition.remove(number);
            }
        }
    }

    /// A shape's filter is bound to a definition of a table now.
    pub(super) fn bound(&mut self, shape: &Shape, relation: &Relation, choice: Choice) {
        let Some((number, shape)) = self.shapes.get(shape.key()) else { return };
        if let Some(definition) = self.definitions.get_mut(&relation.oid())
            && definition.digest == relation.digest()
            && definition.name == *relation.name()
        {
            definition.add(*number, shape, Some(choice));
        }
    }

    /// Tells the shapes that `part` concerns of it, and adds those that are not yet there to `woken`.
    pub(super) fn concerned(&mut self, part: &Part, woken: &mut Vec<Arc<Shape>>) {
        let mut told = Told { part, woken, matches: BTreeMap::new() };
        let mut last: Option<&Arc<Relation>> = None;
        let mut is_filtered = false;
        for (index, change) in part.changes().iter().enumerate() {
            let relation = &change.relation;
            if !last.is_some_and(|last| Arc::ptr_eq(last, relation)) {
                last = Some(relation);
                is_filtered = self.meet(relation, &mut told);
            }
            if is_filtered && let Some(definition) = self.definitions.get(&relation.oid()) {
                told.filtered(definition, u32::try_from(index).unwrap_or(u32::MAX), change);
            }
        }
        told.finish();
    }

    /// Tells those who take every row of a table. Whether others have a filter on it.
    fn meet(&mut self, relation: &Arc<Relation>, told: &mut Told<'_>) -> bool {
        let name = relation.name();
        let lists = [self.tables.get(name), self.schemas.get(&name.schema), Some(&self.everywhere)];
        let lists = lists.into_iter().flatten();
        let whole = lists.clone().flat_map(|listeners| listeners.whole.values());
        whole.for_each(|shape| told.whole(shape));
        if !lists.clone().any(|listeners| !listeners.filtered.is_empty()) {
            return false;
        }
        let known = self.definitions.get(&relation.oid());
        if known.is_some_and(|known| known.digest == relation.digest() && known.name == *name) {
            return true;
        }
        let mut definition = Definition::new(relation);
        for (number, shape) in lists.flat_map(|listeners| &listeners.filtered) {
            // A shape may have an entry that says more about the table.
            if shape.wanted().of(name).is_some_and(|selection| selection.is_filtered()) {
                definition.add(*number, shape, shape.wanted().choice(relation));
            }
        }
        let oid = relation.oid();
        if let Some(former) = self.definitions.insert(oid, definition) {
            forget(&mut self.defined, &former.name, oid);
        }
        self.defined.entry(name.clone()).or_default().push(oid);
        true
    }
}

/// The definitions of tables that a shape can want, and more.
fn definitions_of<'a>(
    defined: &HashMap<RelationName, Vec<Oid>>,
    definitions: &'a mut HashMap<Oid, Definition>,
    key: &ShapeKey,
) -> Vec<&'a mut Definition> {
    let mut oids: Vec<Oid> = Vec::new();
    for pattern in key.tables.keys() {
        match pattern {
            TablePattern::Table(name) => oids.extend(defined.get(name).into_iter().flatten()),
            TablePattern::Schema(_) | TablePattern::All => {
                let matching = defined.iter().filter(|(name, _)| pattern.matches(name));
                oids.extend(matching.flat_map(|(_, oids)| oids));
            }
        }
    }
    if let [oid] = oids[..] {
        return definitions.get_mut(&oid).into_iter().collect();
    }
    oids.sort_unstable();
    oids.dedup();
    let wanted = definitions.iter_mut().filter(|(oid, _)| oids.binary_search(oid).is_ok());
    wanted.map(|(_, definition)| definition).collect()
}

fn forget(defined: &mut HashMap<RelationName, Vec<Oid>>, name: &RelationName, oid: Oid) {
    if let Some(oids) = defined.get_mut(name) {
        oids.retain(|known| *known != oid);
        if oids.is_empty() {
            defined.remove(name);
        }
    }
}

/// Takes a shape out of the list under `name`, and the list with the last of it.
fn take_out<N: Hash + Eq>(
    lists: &mut HashMap<N, Listeners>,
    name: &N,
    is_filtered: bool,
    number: ShapeNumber,
) {
    if let Some(listeners) = lists.get_mut(name) {
        listeners.list(is_filtered).remove(&number);
        if listeners.is_empty() {
            lists.remove(name);
        }
    }
}

/// The shapes that a part concerns, while it is looked at.
struct Told<'a> {
    part: &'a Part,
    woken: &'a mut Vec<Arc<Shape>>,
    /// Shapes with a filter that some changes concern: these changes, ascending; `None` when they have to look
    /// themselves.
    matches: BTreeMap<ShapeNumber, (Arc<Shape>, Option<Vec<u32>>)>,
}

impl Told<'_> {
    fn note(&mut self, shape: &Arc<Shape>, only: Only) {
        if shape.note(self.part, only) == Noted::First {
            self.woken.push(Arc::clone(shape));
        }
    }

    fn whole(&mut self, shape: &Arc<Shape>) {
        self.note(shape, None);
    }

    fn concerns(&mut self, number: ShapeNumber, shape: &Arc<Shape>, index: u32) {
        let (_, found) = self.matches.entry(number).or_insert_with(|| (Arc::clone(shape), Some(Vec::new())));
        if let Some(found) = found
            && found.last() != Some(&index)
        {
            found.push(index);
        }
    }

    /// One change of a table on which shapes have filters.
    fn filtered(&mut self, definition: &Definition, index: u32, change: &Change) {
        for (number, shape) in &definition.unbound {
            self.matches.entry(*number).or_insert_with(|| (Arc::clone(shape), None)).1 = None;
        }
        if definition.bound.is_empty() {
            return;
        }
        if change.op == Op::Truncate {
            for (number, (shape, _)) in &definition.bound {
                self.concerns(*number, shape, index);
            }
            return;
        }
        let part = self.part;
        let before = part.old(change).or_else(|| part.key(change)).filter(|_| change.op != Op::Insert);
        let images = [part.row(change), before].into_iter().flatten();
        let images: Vec<Row<'_>> = images.map(|object| Row::new(&change.relation, object)).collect();
        let images: Vec<&Row<'_>> = images.iter().collect();
        for candidate in definition.predicates.candidates(&images) {
            // What cannot be told is told to the session, which says so.
            let concerns = |row: &&Row<'_>| candidate.predicate.evaluate_row(row).matches() != Ok(false);
            if !images.iter().any(concerns) {
                continue;
            }
            for number in candidate.ids {
                if let Some((shape, _)) = definition.bound.get(number) {
                    self.concerns(*number, shape, index);
                }
            }
        }
    }

    fn finish(mut self) {
        for (shape, only) in std::mem::take(&mut self.matches).into_values() {
            // A shape that was told already, of all of it, knows more than this.
            self.note(&shape, only.map(Arc::from));
        }
    }
}
