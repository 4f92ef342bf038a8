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

/// Tables of its patterns of which the client of a session can have rows from before its cursor.
#[derive(Debug, Default)]
pub(super) enum Given {
    /// It has none: it begins with an initial sync or with what is new, or nothing fits.
    #[default]
    None,
    /// Those that fitted when it resumed. Sorted.
    These(Vec<Oid>),
    /// The source could not be asked.
    Any,
}

impl Given {
    fn has(&self, oid: Oid) -> bool {
        matches!(self, Self::These(tables) if tables.binary_search(&oid).is_ok())
    }

    fn extend(&mut self, more: impl Iterator<Item = Oid>) {
        let mut tables = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::These(tables) => tables,
            Self::Any => return *self = Self::Any,
        };
        tables.extend(more);
        if !tables.is_empty() {
            tables.sort_unstable();
            tables.shrink_to_fit();
            *self = Self::These(tables);
        }
    }
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
            (Err(_), Then::Resume { .. }) => return self.resume_unbound(),
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
                Ok(()) if self.note_given(&schemas) => self.proceed(then),
                Ok(()) => {}
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

    /// Who resumes may have rows of tables that he is not told of before they change. Whether all is known of them: where
    /// one does not fit, it has to be asked for as it is now.
    fn note_given(&mut self, schemas: &[Arc<Schema>]) -> bool {
        if !matches!(self.start, StartAt::At(_)) {
            return true;
        }
        let wanted = self.shape.wanted();
        let is_pattern = |relation: &&Arc<Relation>| {
            wanted.of(relation.name()).is_some_and(|selection| selection.origin == Origin::Pattern)
        };
        let relations = schemas.iter().map(|schema| schema.relation()).filter(is_pattern);
        let is_given =
            |relation: &&Arc<Relation>| wanted.choice(relation).is_some_and(|choice| choice.is_given());
        let is_unfit =
            |relation: &&Arc<Relation>| wanted.choice(relation).is_some_and(|choice| !choice.fits());
        let given = relations.clone().filter(is_given).map(|table| table.oid());
        let unfit: Vec<_> = relations.filter(is_unfit).map(|table| table.name().clone()).collect();
        self.given.extend(given);
        match &mut self.phase {
            Phase::Binding(binding) if !unfit.is_empty() && binding.freshness == Freshness::Lately => {
                (binding.tables, binding.freshness, binding.asked) = (unfit, Freshness::Now, false);
                false
            }
            _ => true,
        }
    }

    /// Goes on without the source: of which tables there are rows cannot be said.
    pub(super) fn resume_unbound(&mut self) {
        let wanted = self.shape.wanted();
        if matches!(self.start, StartAt::At(_)) && wanted.is_filtered() && wanted.key().has_wildcard() {
            self.given = Given::Any;
        }
        self.resume();
    }

    /// Whether its client was given rows of a table, or can have been.
    pub(super) fn has_given(&self, relation: &Relation) -> bool {
        matches!(self.given, Given::Any) || self.has_surely_given(relation)
    }

    fn has_surely_given(&self, relation: &Relation) -> bool {
        self.told.has(relation.name()) || self.given.has(relation.oid())
    }

    /// Whether its client, who is to be given rows of a table, can have some of which it was not told what became: it had
    /// them before its cursor, and changes in another definition were passed over since.
    pub(super) fn can_have_missed(&self, relation: &Relation) -> bool {
        let wanted = self.shape.wanted();
        matches!(self.start, StartAt::At(_))
            && wanted.is_filtered()
            && !self.has_surely_given(relation)
            && wanted
                .of(relation.name())
                .is_some_and(|selection| selection.is_filtered() && selection.origin == Origin::Pattern)
            && wanted.misfits_some(relation.oid())
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

/// Rows of a table are given again, after changes before `after` that may have been passed over.
pub(super) fn missed(table: &RelationName, after: Cursor) -> Refusal {
    let refusal = Refusal::too_old(after, after);
    let message = format!(
        "rows of {table} are given again; changes of it before {after} can have had a definition that {POLICY_UNFIT}"
    );
    Refusal { message, ..refusal }
}
