//! Shapes in use, by what they want: finds those that a change concerns.
//!
//! A table's shapes that take every row are listed under its name. Those with a filter are found by the predicates that
//! their filters are bound to, one index for each definition of a table that is in force: so a change costs as much as it
//! has matches, whatever the number of shapes. A shape whose filter is not bound to the definition yet is told of every
//! change of it, until its sessions have bound it.
//!
//! A shape is listed from when its first session begins to read: by then its filters are bound, as a rule, so that those
//! who come together do not have the router tell all of them of everything meanwhile.

mod definition;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use walcast_filter::{Row, Schema};
use walcast_model::{Change, Cursor, Oid, Op, Part, Relation, RelationName};
use walcast_protocol::TablePattern;

use crate::shape::{Noted, Only, Shape};
use crate::wanted::{Choice, ShapeKey};
pub(super) use definition::Definition;

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

/// A key with its hash: of large keys it is made once, and not again whenever the table grows.
#[derive(PartialEq, Eq, Debug)]
struct Hashed {
    hash: u64,
    key: Arc<ShapeKey>,
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A shape that somebody has.
#[derive(Debug)]
struct Known {
    number: ShapeNumber,
    shape: Arc<Shape>,
    /// Whether it is told of what concerns it.
    is_listed: bool,
}

/// A definition that is not in force yet. Whoever comes, goes or is bound meanwhile does so in it too.
#[derive(Debug)]
struct Coming {
    definition: Definition,
    /// Whether all shapes are in it.
    is_complete: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    shapes: HashMap<Hashed, Known>,
    tables: HashMap<RelationName, Listeners>,
    schemas: HashMap<String, Listeners>,
    everywhere: Listeners,
    /// Of tables with filters, by their object id.
    definitions: HashMap<Oid, Definition>,
    /// Under which object ids `definitions` has a name.
    defined: HashMap<RelationName, Vec<Oid>>,
    /// That come into force with their table's next change: of many shapes they are made aside, a few shapes at a time.
    coming: Vec<Coming>,
    /// No longer in force, and not thrown away yet: that takes long.
    former: Vec<Definition>,
    made: ShapeNumber,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Distinct predicates that changes are looked up among.
    #[cfg(test)]
    pub(super) fn predicates(&self) -> usize {
        self.definitions.values().map(|definition| definition.predicates.len()).sum()
    }

    fn hashed(&self, key: &Arc<ShapeKey>) -> Hashed {
        Hashed { hash: self.hasher.hash_one(&**key), key: Arc::clone(key) }
    }

    /// How many shapes are in the definition that is being made.
    #[cfg(test)]
    pub(super) fn made_aside(&self) -> Option<usize> {
        self.coming.first().map(|coming| coming.definition.len())
    }

    /// Whether nothing is left of any shape.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let definitions = self.definitions.values();
        let mut of_definitions = definitions.map(|one| one.len() + one.predicates.len());
        self.shapes.is_empty()
            && self.tables.is_empty()
            && self.schemas.is_empty()
            && self.everywhere.is_empty()
            && of_definitions.all(|count| count == 0)
    }

    pub(super) fn get(&self, key: &Arc<ShapeKey>) -> Option<&Arc<Shape>> {
        self.shapes.get(&self.hashed(key)).map(|known| &known.shape)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Shape>> {
        self.shapes.values().map(|known| &known.shape)
    }

    pub(super) fn add(&mut self, shape: &Arc<Shape>) {
        let number = self.made;
        self.made += 1;
        let known = Known { number, shape: Arc::clone(shape), is_listed: false };
        self.shapes.insert(self.hashed(shape.key()), known);
    }

    /// Lists a shape, which is told of what concerns it from now on. Whether it was not listed before.
    pub(super) fn list(&mut self, shape: &Shape) -> bool {
        let hashed = self.hashed(shape.key());
        let Some(known) = self.shapes.get_mut(&hashed) else { return false };
        if std::mem::replace(&mut known.is_listed, true) {
            return false;
        }
        let (number, shape) = (known.number, &known.shape);
        for (pattern, selection) in shape.key().tables.iter() {
            let listeners = match pattern {
                TablePattern::All => &mut self.everywhere,
                TablePattern::Schema(schema) => self.schemas.entry(schema.clone()).or_default(),
                TablePattern::Table(name) => self.tables.entry(name.clone()).or_default(),
            };
            listeners.list(selection.is_filtered()).insert(number, Arc::clone(shape));
        }
        if shape.wanted().is_filtered() {
            let coming = self.coming.iter_mut().map(|coming| &mut coming.definition);
            let known = definitions_of(&self.defined, &mut self.definitions, shape.key());
            for definition in known.into_iter().chain(coming) {
                let wanted = shape.wanted();
                if wanted.of(definition.relation.name()).is_some_and(|selection| selection.is_filtered()) {
                    definition.add(number, shape);
                }
            }
        }
        true
    }

    pub(super) fn remove(&mut self, shape: &Shape) {
        let hashed = self.hashed(shape.key());
        let Some(Known { number, is_listed: true, .. }) = self.shapes.remove(&hashed) else { return };
        for (pattern, selection) in shape.key().tables.iter() {
            let is_filtered = selection.is_filtered();
            match pattern {
                TablePattern::All => drop(self.everywhere.list(is_filtered).remove(&number)),
                TablePattern::Schema(schema) => take_out(&mut self.schemas, schema, is_filtered, number),
                TablePattern::Table(name) => take_out(&mut self.tables, name, is_filtered, number),
            }
        }
        if shape.wanted().is_filtered() {
            let coming = self.coming.iter_mut().map(|coming| &mut coming.definition);
            let known = definitions_of(&self.defined, &mut self.definitions, shape.key());
            for definition in known.into_iter().chain(coming) {
                definition.remove(number);
            }
        }
    }

    /// A shape's filter is bound to a definition of a table now.
    pub(super) fn bound(&mut self, shape: &Shape, relation: &Arc<Relation>) {
        // While few have a filter on it, and not all at once when its first change comes.
        let selection = shape.wanted().of(relation.name());
        if selection.is_some_and(|selection| selection.is_filtered())
            && !self.definitions.contains_key(&relation.oid())
            && !self.coming.iter().any(|coming| coming.definition.is_of(relation))
        {
            self.define(relation);
        }
        let hashed = self.hashed(shape.key());
        let Some(Known { number, shape, is_listed: true }) = self.shapes.get(&hashed) else { return };
        let coming = self.coming.iter_mut().map(|coming| &mut coming.definition);
        for definition in self.definitions.get_mut(&relation.oid()).into_iter().chain(coming) {
            if definition.is_of(relation) {
                definition.add(*number, shape);
            } else if matches!(shape.wanted().choice(&definition.relation), Some(Choice::Unfit)) {
                // As long as the table was never given, it was not to be told of it.
                definition.add(*number, shape);
            }
        }
    }

    /// Whether this definition of a table, on which shapes have filters, comes into force with its next change.
    pub(super) fn is_new(&self, relation: &Relation) -> bool {
        self.lists(relation.name()).any(|listeners| !listeners.filtered.is_empty())
            && !self.is_in_force(relation)
            && !self.coming.iter().any(|coming| coming.definition.is_of(relation))
    }

    /// Begins a definition that is to come into force; it is made by [`Index::take_in`].
    pub(super) fn begin(&mut self, relation: &Arc<Relation>) {
        self.coming.push(Coming { definition: Definition::new(relation), is_complete: false });
    }

    /// Some of the shapes with a filter that may want a table: those after `last`, in their order. None: there are no more.
    pub(super) fn filtered_after(
        &self,
        name: &RelationName,
        last: Option<ShapeNumber>,
        count_max: usize,
    ) -> Vec<(ShapeNumber, Arc<Shape>)> {
        let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let lists = self.lists(name).map(|listeners| listeners.filtered.range(after).take(count_max));
        let mut some: Vec<_> = lists.flatten().map(|(number, shape)| (*number, shape)).collect();
        some.sort_unstable_by_key(|(number, _)| *number);
        some.dedup_by_key(|(number, _)| *number);
        some.truncate(count_max);
        some.into_iter().map(|(number, shape)| (number, Arc::clone(shape))).collect()
    }

    /// As [`Definition::facts`], of the one that is in force.
    pub(super) fn facts(&self, oid: Oid) -> Option<Arc<Schema>> {
        self.definitions.get(&oid)?.facts().cloned()
    }

    /// As [`Definition::extend`], of the one that is in force.
    pub(super) fn extend(&mut self, schema: &Arc<Schema>) -> bool {
        let former = self.definitions.get_mut(&schema.relation().oid());
        former.is_some_and(|former| former.extend(schema))
    }

    /// Whether this definition of a table is in force.
    pub(super) fn is_in_force(&self, relation: &Relation) -> bool {
        self.definitions.get(&relation.oid()).is_some_and(|known| known.is_of(relation))
    }

    /// Takes shapes into a definition that is to come into force, or has come into it before all were bound to it, unless they
    /// have gone meanwhile; with none it is complete.
    pub(super) fn take_in(&mut self, relation: &Relation, shapes: &[(ShapeNumber, Arc<Shape>)]) {
        let name = relation.name();
        let lists = [self.tables.get(name), self.schemas.get(&name.schema), Some(&self.everywhere)];
        let is_here = |number| {
            let mut lists = lists.iter().flatten();
            lists.any(|listeners| listeners.filtered.contains_key(number))
        };
        let coming = self.coming.iter_mut().find(|coming| coming.definition.is_of(relation));
        let definition = match coming {
            Some(coming) => {
                coming.is_complete = shapes.is_empty();
                Some(&mut coming.definition)
            }
            None => self.definitions.get_mut(&relation.oid()).filter(|known| known.is_of(relation)),
        };
        let Some(definition) = definition else { return };
        for (number, shape) in shapes.iter().filter(|(number, _)| is_here(number)) {
            // A shape may have an entry that says more about the table.
            if shape.wanted().of(name).is_some_and(|selection| selection.is_filtered()) {
                definition.add(*number, shape);
            }
        }
    }

    /// Definitions that are no longer in force, or never came into it.
    pub(super) fn take_former(&mut self) -> Vec<Definition> {
        let unused = self.coming.drain(..).map(|coming| coming.definition);
        std::mem::take(&mut self.former).into_iter().chain(unused).collect()
    }

    /// What lists shapes that may want a table.
    fn lists(&self, name: &RelationName) -> impl Iterator<Item = &Listeners> + Clone {
        let lists = [self.tables.get(name), self.schemas.get(&name.schema), Some(&self.everywhere)];
        lists.into_iter().flatten()
    }

    /// A definition of a table comes into force.
    fn define(&mut self, relation: &Arc<Relation>) {
        let (name, oid) = (relation.name(), relation.oid());
        let is_it = |coming: &Coming| coming.is_complete && coming.definition.is_of(relation);
        let definition = match self.coming.iter().position(is_it) {
            Some(place) => self.coming.swap_remove(place).definition,
            None => self.made_at_once(relation),
        };
        if let Some(former) = self.definitions.insert(oid, definition) {
            forget(&mut self.defined, former.relation.name(), oid);
            self.former.push(former);
        }
        self.defined.entry(name.clone()).or_default().push(oid);
    }

    /// While few shapes have a filter on the table.
    fn made_at_once(&self, relation: &Arc<Relation>) -> Definition {
        let name = relation.name();
        let mut definition = Definition::new(relation);
        for (number, shape) in self.lists(name).flat_map(|listeners| &listeners.filtered) {
            // A shape may have an entry that says more about the table.
            if shape.wanted().of(name).is_some_and(|selection| selection.is_filtered()) {
                definition.add(*number, shape);
            }
        }
        definition
    }

    /// Tells the shapes that `part` concerns of it, and adds those that are not yet there to `woken`.
    pub(super) fn concerned(&mut self, part: &Part, oldest: Cursor, woken: &mut Vec<Arc<Shape>>) {
        let mut told = Told { part, oldest, woken, hits: Vec::new() };
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

    /// Tells those who take every row of a table, and those whose filters may. Whether others have a filter on it.
    fn meet(&mut self, relation: &Arc<Relation>, told: &mut Told<'_>) -> bool {
        let has_filtered = {
            let mut lists = self.lists(relation.name());
            let whole = lists.clone().flat_map(|listeners| listeners.whole.values());
            whole.for_each(|shape| told.whole(shape));
            lists.any(|listeners| !listeners.filtered.is_empty())
        };
        if !has_filtered {
            return false;
        }
        if !self.is_in_force(relation) {
            self.define(relation);
        }
        let definition = self.definitions.get(&relation.oid());
        let unbound = definition.into_iter().flat_map(|definition| definition.unbound.values());
        unbound.for_each(|shape| told.whole(shape));
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
    /// What the feed still has begins here.
    oldest: Cursor,
    woken: &'a mut Vec<Arc<Shape>>,
    /// Changes by the shapes with a filter that they concern.
    hits: Vec<(ShapeNumber, u32, Arc<Shape>)>,
}

impl Told<'_> {
    fn note(&mut self, shape: &Arc<Shape>, only: Only) {
        if shape.note(self.part, only, self.oldest) == Noted::First {
            self.woken.push(Arc::clone(shape));
        }
    }

    fn whole(&mut self, shape: &Arc<Shape>) {
        self.note(shape, None);
    }

    /// One change of a table on which shapes have filters.
    fn filtered(&mut self, definition: &Definition, index: u32, change: &Change) {
        if definition.bound.is_empty() {
            return;
        }
        if change.op == Op::Truncate {
            for (number, (shape, _)) in &definition.bound {
                self.hits.push((*number, index, Arc::clone(shape)));
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
                    self.hits.push((*number, index, Arc::clone(shape)));
                }
            }
        }
    }

    fn finish(mut self) {
        let mut hits = std::mem::take(&mut self.hits);
        hits.sort_unstable_by_key(|(number, index, _)| (*number, *index));
        hits.dedup_by_key(|(number, index, _)| (*number, *index));
        for of_shape in hits.chunk_by(|(one, ..), (other, ..)| one == other) {
            let only = of_shape.iter().map(|(_, index, _)| *index).collect();
            if let Some((_, _, shape)) = of_shape.first() {
                // A shape that was told already, of all of it, knows more than this.
                self.note(shape, Some(only));
            }
        }
    }
}
