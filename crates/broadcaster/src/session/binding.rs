//! Filters and the tables that they are about: bound when the subscription begins, so that one that does not fit is refused
//! at once, and whenever a table comes in a definition that was not seen before.

use std::sync::Arc;

use walcast_filter::Schema;
use walcast_model::{Cursor, Oid, Relation, RelationName};
use walcast_protocol::StartAt;

use super::{Phase, Question, Session, Turn, Wait};
use crate::catalog::Freshness;
use crate::past::KnownTable;
use crate::refusal::Refusal;
use crate::wanted::{Choice, Origin, Selection, Unbindable};

/// What comes when the filters are bound.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The cursor is looked at.
    Resume { published: Arc<Vec<KnownTable>> },
    /// An initial sync, after so many that had to start over.
    Sync { published: Arc<Vec<KnownTable>>, relists: u32 },
}

/// Filters that are being bound.
#[derive(Debug)]
pub(super) struct Binding {
    tables: Vec<RelationName>,
    then: Then,
    freshness: Freshness,
    asked: bool,
}

impl Session {
    /// Binds the filters to the published tables as they are now, and goes on.
    pub(super) fn bind_before(&mut self, then: Then) {
        let (Then::Resume { published } | Then::Sync { published, .. }) = &then;
        let wanted = self.shape.wanted();
        let needs_definition = |table: &&KnownTable| {
            wanted.of(&table.name).is_some_and(|selection| selection.needs_definition())
        };
        let tables: Vec<_> =
            published.iter().filter(needs_definition).map(|table| table.name.clone()).collect();
        if tables.is_empty() {
            return self.proceed(then);
        }
        self.phase = Phase::Binding(Binding { tables, then, freshness: Freshness::Lately, asked: false });
    }

    fn proceed(&mut self, then: Then) {
        match then {
            Then::Resume { .. } => self.resume(),
            Then::Sync { published, relists } => self.begin_sync(&published, relists),
        }
    }

    pub(super) fn bind_tables(&mut self) -> Turn {
        let Phase::Binding(binding) = &mut self.phase else { return Turn::Again };
        if std::mem::replace(&mut binding.asked, true) {
            return Turn::Wait(Wait::Answer);
        }
        let insist = matches!(binding.then, Then::Sync { .. });
        Turn::Ask(Question::Schemas { tables: binding.tables.clone(), freshness: binding.freshness, insist })
    }

    /// The tables as filters are bound to them.
    pub(super) fn tables_defined(&mut self, schemas: Result<Vec<Arc<Schema>>, Refusal>) {
        let Phase::Binding(binding) = &mut self.phase else { return };
        let then = binding.then.clone();
        let schemas = match (schemas, &then) {
            (Ok(schemas), _) => schemas,
            // As for the list of tables: a source that is away keeps nobody from history.
            (Err(_), Then::Resume { .. }) => return self.resume(),
            (Err(refusal), Then::Sync { .. }) => return self.refuse(refusal),
        };
        let mut failed = None;
        for schema in &schemas {
            if let Err(why) = self.world.router.bind(&self.shape, schema) {
                failed = Some((schema, why));
                break;
            }
        }
        let Some((schema, why)) = failed else {
            return match schemas.iter().try_for_each(|schema| self.scan(schema)) {
                Ok(()) => {
                    self.note_given(&schemas);
                    self.proceed(then);
                }
                Err(refusal) => self.refuse(refusal),
            };
        };
        // It may be a column or a label that is new.
        let Phase::Binding(binding) = &mut self.phase else { return };
        if binding.freshness == Freshness::Lately && !matches!(why, Unbindable::Column(_)) {
            (binding.freshness, binding.asked) = (Freshness::Now, false);
            return;
        }
        self.refuse(why.into_refusal(schema.relation().name()));
    }

    /// Who resumes may have rows of tables that he is not told of before they change.
    fn note_given(&mut self, schemas: &[Arc<Schema>]) {
        if !matches!(self.start, StartAt::At(_)) {
            return;
        }
        let wanted = self.shape.wanted();
        let is_given = |relation: &&Arc<Relation>| {
            let is_pattern =
                wanted.of(relation.name()).is_some_and(|selection| selection.origin == Origin::Pattern);
            is_pattern && wanted.choice(relation).is_some_and(|choice| choice.is_given())
        };
        let mut given: Vec<Oid> = schemas
            .iter()
            .map(|schema| schema.relation())
            .filter(is_given)
            .map(|table| table.oid())
            .collect();
        given.sort_unstable();
        self.given = given.into();
    }

    /// Whether its client was given rows of a table, or can have been.
    pub(super) fn has_given(&self, relation: &Relation) -> bool {
        self.told.has(relation.name()) || self.given.binary_search(&relation.oid()).is_ok()
    }

    /// Counts what its client's filter makes of every change of a table. What the operator's policies make of it alone is not
    /// the client's.
    fn scan(&mut self, schema: &Schema) -> Result<(), Refusal> {
        let (wanted, relation) = (self.shape.wanted(), schema.relation());
        match wanted.choice(relation) {
            Some(Choice::Rows(filter))
                if wanted.of(relation.name()).is_some_and(Selection::is_asked_filtered) =>
            {
                self.scanning.replace(relation, &filter)
            }
            _ => Ok(()),
        }
    }

    /// A table of the part that is next, as filters are bound to it.
    pub(super) fn relation_defined(&mut self, schema: Result<Arc<Schema>, Refusal>) {
        let Phase::Streaming(stream) = &mut self.phase else { return };
        stream.is_binding = false;
        let after = stream.end_of_next();
        let schema = match schema {
            Ok(schema) => schema,
            Err(refusal) => return self.refuse(refusal),
        };
        if let Err(why) = self.world.router.bind(&self.shape, &schema) {
            let why = match why {
                Unbindable::Granted(_) => POLICY_UNFIT.to_owned(),
                Unbindable::Asked(_) | Unbindable::Column(_) | Unbindable::Identity { .. } => {
                    format!("the filter does not fit: {why}")
                }
            };
            return self.refuse(outlived(schema.relation().name(), after, &why));
        }
        if let Err(refusal) = self.scan(&schema) {
            self.refuse(refusal);
        }
    }
}

/// What is to be said of a definition that a policy does not fit.
pub(super) const POLICY_UNFIT: &str = "the policy for it cannot be applied to";

/// What is wanted of a table fitted it when the subscription began, or does now, and does not in a change before `after`.
pub(super) fn outlived(table: &RelationName, after: Cursor, why: &str) -> Refusal {
    let refusal = Refusal::too_old(after, after);
    Refusal { message: format!("a change of {table} before {after} has a definition that {why}"), ..refusal }
}
