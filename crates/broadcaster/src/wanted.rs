//! What a subscription gets: what its client asks for, as far as it may have it, table by table, and bound to each
//! definition that a table has had.

mod bindings;
mod entries;
mod selection;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use metrics::counter;

use sha2::{Digest as _, Sha256};
use walcast_filter::Schema;
use walcast_model::{Oid, Relation, RelationName};
use walcast_policy::{Grant, Rights};
use walcast_protocol::TablePattern;

use crate::metrics as names;
use crate::refusal::Refusal;
use crate::request::Asked;
use bindings::Bindings;
pub(crate) use bindings::{Binding, Choice, DEFINITIONS_MAX};
pub(crate) use entries::Entries;
pub(crate) use selection::{Origin, Selection, Unbindable};

/// From so many entries on, names are looked up in a table instead of one by one.
const ENTRIES_FEW: usize = 8;

/// What makes two subscriptions the same for everything but their id and position.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ShapeKey {
    pub(crate) tables: Entries<Arc<Selection>>,
    /// Narrower than one of `tables`, and nothing is given of them, not even their definition.
    except: BTreeSet<TablePattern>,
}

impl ShapeKey {
    /// What `asked` comes to for a client with these rights.
    ///
    /// # Errors
    /// When a table that is named may not be had, whether or not it exists; and when nothing may be had.
    pub(crate) fn resolve(asked: &BTreeMap<TablePattern, Asked>, rights: &Rights) -> Result<Self, Refusal> {
        let (mut tables, mut except) = (BTreeMap::new(), BTreeSet::new());
        for pattern in meets(asked, rights) {
            let Some((entry, asked)) = most_of(asked, &pattern) else { continue };
            match granted(rights, &pattern) {
                Some(grant) => drop(tables.insert(pattern, Arc::new(Selection::new(entry, asked, grant)))),
                None => drop(except.insert(pattern)),
            }
        }
        except.retain(|denied| tables.keys().any(|pattern| pattern.covers(denied)));
        let named = asked.keys().filter(|entry| matches!(entry, TablePattern::Table(_)));
        if let Some(refused) = named.into_iter().find(|entry| !tables.contains_key(*entry)) {
            return Err(Refusal::forbidden(format!("{refused} may not be had with this token")));
        }
        if tables.is_empty() {
            let entries: Vec<String> = asked.keys().map(ToString::to_string).collect();
            let message = format!("nothing of {} may be had with this token", entries.join(", "));
            return Err(Refusal::forbidden(message));
        }
        Ok(Self { tables: tables.into(), except })
    }

    /// What it wants of a table, `None` for nothing.
    fn wants(&self, name: &RelationName) -> Option<&Arc<Selection>> {
        let given = self.tables.iter().map(|(pattern, selection)| (pattern, Some(selection)));
        let entries = given.chain(self.except.iter().map(|pattern| (pattern, None)));
        TablePattern::most_telling(entries.filter(|(pattern, _)| pattern.matches(name)))?.1
    }

    /// A name for what is granted of what is asked for: the same for as long as that is, also by another daemon.
    pub(crate) fn rights(&self) -> String {
        let mut granted: Vec<String> = self
            .tables
            .iter()
            .map(|(pattern, selection)| format!("{pattern} {}\n", selection.granted()))
            .chain(self.except.iter().map(|pattern| format!("{pattern} nothing\n")))
            .collect();
        granted.sort_unstable();
        let digest = Sha256::digest(granted.concat());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether tables that do not exist yet can be part of it.
    pub(crate) fn has_wildcard(&self) -> bool {
        self.tables.values().any(|selection| selection.origin == Origin::Pattern)
    }

    /// The tables that the client names one by one.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&RelationName, &Selection)> {
        self.tables.iter().filter_map(|(pattern, selection)| match (pattern, &selection.origin) {
            (TablePattern::Table(name), Origin::Named { .. }) => Some((name, &**selection)),
            _ => None,
        })
    }
}

/// The patterns at which what is asked for and what is granted meet: of each pair with tables in common, the one that
/// says more. Of any table, the most that one of these says is the most that both sides say of it.
fn meets(asked: &BTreeMap<TablePattern, Asked>, rights: &Rights) -> BTreeSet<TablePattern> {
    let Rights::Granted(grants) = rights else { return asked.keys().cloned().collect() };
    let pairs = asked.keys().flat_map(|entry| grants.keys().map(move |grant| (entry, grant)));
    let meet = |(entry, grant): (&TablePattern, &TablePattern)| {
        let narrower = if entry.covers(grant) { Some(grant) } else { None };
        narrower.or_else(|| grant.covers(entry).then_some(entry)).cloned()
    };
    pairs.filter_map(meet).collect()
}

/// The entry that says most about all of a pattern's tables.
fn most_of<'a, T>(
    entries: &'a BTreeMap<TablePattern, T>,
    of: &TablePattern,
) -> Option<(&'a TablePattern, &'a T)> {
    TablePattern::most_telling(entries.iter().filter(|(pattern, _)| pattern.covers(of)))
}

fn granted(rights: &Rights, of: &TablePattern) -> Option<Grant> {
    match rights {
        Rights::Everything => Some(Grant::everything()),
        Rights::Granted(grants) => most_of(grants, of)?.1.clone().ok(),
    }
}

/// What a shape wants, looked up by the name of a table and by its definition.
#[derive(Debug)]
pub(crate) struct Wanted {
    key: Arc<ShapeKey>,
    /// The answer of [`ShapeKey::wants`] for names that are listed, where going through all would take long.
    listed: HashMap<RelationName, Arc<Selection>>,
    is_filtered: bool,
    bindings: Bindings,
}

impl Wanted {
    pub(crate) fn new(key: Arc<ShapeKey>) -> Self {
        let mut listed = HashMap::new();
        if key.tables.len() > ENTRIES_FEW {
            listed.extend(key.tables.iter().filter_map(|(pattern, selection)| match pattern {
                TablePattern::Table(name) => Some((name.clone(), Arc::clone(selection))),
                _ => None,
            }));
        }
        let is_filtered = key.tables.values().any(|selection| selection.is_filtered());
        Self { key, listed, is_filtered, bindings: Bindings::default() }
    }

    pub(crate) const fn key(&self) -> &Arc<ShapeKey> {
        &self.key
    }

    /// What it wants of a table; of which rows, only the binding to its definition tells.
    pub(crate) fn of(&self, name: &RelationName) -> Option<&Selection> {
        if let Some(selection) = self.listed.get(name) {
            return Some(selection);
        }
        self.key.wants(name).map(|selection| &**selection)
    }

    /// Whether it does not take every row of every table that it wants.
    pub(crate) const fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    /// Whether there are rows that its clients may not know of.
    pub(crate) fn is_restricted(&self) -> bool {
        self.key.tables.values().any(|selection| selection.is_restricted())
    }

    /// What it takes of a table in this definition; `None` when it has a filter that is not bound to it yet.
    pub(crate) fn choice(&self, relation: &Relation) -> Option<Choice> {
        match self.of(relation.name()) {
            None => Some(Choice::Nothing),
            Some(selection) if selection.is_filtered() => {
                self.bindings.get(relation, |binding| binding.choice.clone())
            }
            Some(_) => Some(Choice::Everything),
        }
    }

    /// How its filter is bound to this definition of a table, if it is.
    pub(crate) fn binding(&self, relation: &Relation) -> Option<Binding> {
        self.bindings.get(relation, Binding::clone)
    }

    /// Whether it is known to take nothing of the table as it was last.
    pub(crate) fn takes_nothing_of(&self, oid: Oid) -> bool {
        self.bindings.latest(oid).is_some_and(|choice| !choice.is_given())
    }

    /// Whether it does not fit a definition that the table has or had.
    pub(crate) fn misfits_some(&self, oid: Oid) -> bool {
        self.bindings.misfits_some(oid)
    }

    /// Binds it to a definition of a table.
    ///
    /// # Errors
    /// When the filter of a table that is named cannot be bound.
    pub(crate) fn bind(&self, schema: &Arc<Schema>) -> Result<(), Unbindable> {
        let relation = schema.relation();
        let Some(selection) = self.of(relation.name()) else { return Ok(()) };
        let choice = match (selection.bind(schema), &selection.origin) {
            (Ok(choice), _) => choice,
            (Err(why), Origin::Named { .. }) => return Err(why),
            (Err(why), Origin::Pattern) => {
                let table = relation.name();
                // For each shape: not a line of the log for all to see.
                tracing::debug!(%table, %why, "what is granted does not fit a table");
                counter!(names::UNFIT).increment(1);
                // What was never given is not given. What was cannot just stay away.
                if self.bindings.gives(relation.oid()) { Choice::Unfit } else { Choice::Withheld }
            }
        };
        self.bindings.set(schema, choice);
        Ok(())
    }

    /// What it takes of a table in this definition, whether or not it is bound to it; `None` when it does not fit.
    pub(crate) fn trial(&self, schema: &Schema) -> Option<Choice> {
        let selection = self.of(schema.relation().name());
        selection.map_or(Some(Choice::Nothing), |selection| selection.bind(schema).ok())
    }

    /// Forgets how it is bound to a definition.
    pub(crate) fn unbind(&self, relation: &Relation) {
        self.bindings.forget(relation);
    }
}

#[cfg(test)]
mod tests;
