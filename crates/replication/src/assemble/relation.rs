//! Tables as the WAL defines them, completed from the catalog.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use walcast_model::last_image::{Storage, StorageId};
use walcast_model::{Column, Lsn, Oid, Relation, RelationDigest, RelationName, ReplicaIdentity, Xid};
use walcast_pgoutput::json::{Types, ValueError, ValueWriter};
use walcast_pgoutput::{RelationDefinition, Tuple};

use super::AssembleError;

/// What `format_type` prints for a type that is gone.
const UNKNOWN_TYPE: &str = "???";

/// What the WAL does not say about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogQuestion {
    /// The table: its NOT NULL columns and its primary key are wanted.
    pub relation: Oid,
    /// The transaction whose changes come next. It may have made what is asked about, and the stream may be ahead of
    /// the moment from which others see it (reference 1.8).
    pub transaction: Option<Xid>,
    /// The names of the table's columns.
    pub columns: Vec<String>,
    /// Types to add to [`super::Assembler::types_mut`], with all that they are made of.
    pub types: Vec<Oid>,
    /// For types of columns that are domains over built-in types, and may be gone: the name of the base type.
    pub domain_bases: Vec<(Oid, String)>,
    /// Whether last images may be kept of the table: then its storage is wanted.
    pub storage: bool,
    /// The types whose names are wanted, as `format_type(type, modifier)` prints them; one for each column.
    pub type_names: Vec<(Oid, i32)>,
}

/// The answer to a [`CatalogQuestion`].
#[derive(Debug, Clone, Default)]
pub struct CatalogAnswer {
    /// What the catalog says *now*, which may be later than the WAL: `None` when the table is gone.
    pub relation: Option<RelationFacts>,
    /// The names asked for, in their order; `???` for a type that is gone.
    pub type_names: Vec<String>,
    /// How the table is kept and published, where that was asked for.
    pub storage: StorageFacts,
}

/// What the catalog says of how a table is kept and published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StorageFacts {
    /// No image of the table can be good.
    #[default]
    None,
    /// It is this.
    Seen(Storage),
    /// The transaction that was asked about may have made it another one, and is not seen yet. The storage before it.
    Unseen(Option<Storage>),
}

impl StorageFacts {
    pub(super) const fn known(self) -> Option<Storage> {
        match self {
            Self::None => None,
            Self::Seen(storage) => Some(storage),
            Self::Unseen(before) => before,
        }
    }
}

/// What the images of a table are good for.
pub(super) type Definition = (RelationDigest, StorageId);

/// What the catalog says of a table.
#[derive(Debug, Clone, Default)]
pub struct RelationFacts {
    /// Its columns, without dropped ones, in the table's order.
    pub columns: Vec<ColumnFacts>,
}

/// What the catalog says of a column.
#[derive(Debug, Clone)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// Whether it is NOT NULL.
    pub not_null: bool,
    /// Whether it is part of the primary key.
    pub primary_key: bool,
}

impl RelationFacts {
    /// The facts of each column of `definition`. By name; and where the catalog is of another time and does not know
    /// all the names, by place, if the types say that these are the same columns under other names.
    fn matching<'a>(&'a self, definition: &RelationDefinition) -> Vec<Option<&'a ColumnFacts>> {
        let by_name = |name: &str| self.columns.iter().find(|column| column.name == name);
        let columns = &definition.columns;
        let named: Vec<_> = columns.iter().map(|column| by_name(&column.name.to_string_lossy())).collect();
        let same_types = self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(|(facts, column)| facts.type_oid == column.type_oid);
        if same_types && named.iter().any(Option::is_none) {
            self.columns.iter().map(Some).collect()
        } else {
            named
        }
    }
}

impl CatalogQuestion {
    pub(super) fn new(
        definition: &RelationDefinition,
        transaction: Option<Xid>,
        types: &Types,
        domain_bases: &HashMap<Oid, String>,
        storage: bool,
    ) -> Self {
        let columns = &definition.columns;
        let base = |oid: &Oid| domain_bases.get(oid).map(|base| (*oid, base.clone()));
        Self {
            relation: definition.oid,
            transaction,
            columns: columns.iter().map(|column| column.name.to_string()).collect(),
            types: types.missing(columns.iter().map(|column| column.type_oid)),
            domain_bases: columns.iter().filter_map(|column| base(&column.type_oid)).collect(),
            storage,
            type_names: columns.iter().map(|column| (column.type_oid, column.type_modifier)).collect(),
        }
    }
}

/// What is known of a relation id.
#[derive(Debug)]
pub(super) enum Entry {
    /// A table of walcast's own schema: its changes do not count.
    Own,
    /// A table of the feed.
    Known(Known),
}

/// A table with all that is needed to render its rows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) relation: Arc<Relation>,
    pub(super) columns: Vec<KnownColumn>,
    /// Whether any column is part of the key.
    pub(super) has_key: bool,
    /// Whether the server has to convert values of any column.
    pub(super) is_converted: bool,
    /// The types of the columns were read when everything before this position was committed.
    pub(super) read_at: Lsn,
    /// [`Types::revision`] of the writers.
    revision: u64,
    /// Whether any column is of a type that users can alter.
    is_alterable: bool,
    /// `None` where no last images are kept.
    pub(super) storage: Option<Arc<Storage>>,
    /// The transaction at which the storage was asked for last and not seen: it may be another one already, so images are
    /// neither looked for nor kept.
    pub(super) unseen: Option<Xid>,
    /// Whether there can be images of such a table.
    has_images: bool,
}

#[derive(Debug)]
pub(super) struct KnownColumn {
    pub(super) writer: ValueWriter,
    /// Part of the key of changes.
    pub(super) key: bool,
    /// Part of the replica identity: an old key carries it.
    pub(super) identity: bool,
    /// Of a type that no user can alter: what was written of a value once is what would be written of it now.
    pub(super) is_lasting: bool,
    warned: Cell<bool>,
}

impl Known {
    /// Keeps `before` when nothing is different from it: definitions are sent again after ANALYZE and much else. It also
    /// says what the catalog does not know any more, because the table or the column is gone already.
    pub(super) fn new(
        definition: &RelationDefinition,
        answer: &CatalogAnswer,
        types: &Types,
        before: Option<&Arc<Relation>>,
    ) -> Self {
        let facts = answer.relation.as_ref().map(|facts| facts.matching(definition)).unwrap_or_default();
        let full = definition.identity == ReplicaIdentity::Full;
        let model = definition.columns.iter().enumerate().map(|(index, column)| {
            let (facts, name) = (facts.get(index).copied().flatten(), column.name.to_string());
            let mut earlier = before.iter().flat_map(|relation| relation.columns());
            let earlier = earlier.find(|earlier| earlier.name == name && earlier.type_oid == column.type_oid);
            let primary_key = facts.map(|facts| facts.primary_key).or(earlier.map(|column| column.key));
            let nullable = facts.map(|facts| !facts.not_null).or(earlier.map(|column| column.nullable));
            let type_name = answer.type_names.get(index).filter(|name| *name != UNKNOWN_TYPE);
            let type_name = type_name.or(earlier.map(|column| &column.type_name));
            Column {
                name,
                type_name: type_name.cloned().unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
                type_oid: column.type_oid,
                // Under FULL every column is flagged, so the primary key is the catalog's.
                key: if full { primary_key.unwrap_or(false) } else { column.identity },
                nullable: nullable.unwrap_or(true),
            }
        });
        let model: Vec<Column> = model.collect();
        let columns = definition.columns.iter().zip(&model).map(|(column, model)| KnownColumn {
            writer: types.writer(column.type_oid),
            key: model.key,
            identity: column.identity,
            is_lasting: types.alterable([column.type_oid]).is_empty(),
            warned: Cell::new(false),
        });
        let columns: Vec<KnownColumn> = columns.collect();
        let schema = if definition.schema.as_bytes().is_empty() {
            "pg_catalog".into()
        } else {
            definition.schema.to_string()
        };
        let name = RelationName::new(schema, definition.name.to_string());
        let relation = Relation::new(definition.oid, name, definition.identity, model);
        let relation = match before {
            Some(before) if **before == relation => Arc::clone(before),
            _ => Arc::new(relation),
        };
        let lasting_key = columns.iter().filter(|column| column.key).all(|column| column.is_lasting);
        let has_key = columns.iter().any(|column| column.key);
        // Under FULL the WAL says more than images do; a key is looked up by what was written of it.
        let has_images = has_key && lasting_key && relation.identity() != ReplicaIdentity::Full;
        Self {
            storage: answer.storage.known().filter(|_| has_images).map(Arc::new),
            unseen: None,
            has_images,
            has_key,
            is_converted: columns.iter().any(|column| column.writer.is_converted()),
            is_alterable: !types
                .alterable(relation.columns().iter().map(|column| column.type_oid))
                .is_empty(),
            read_at: Lsn::ZERO,
            revision: types.revision(),
            relation,
            columns,
        }
    }

    /// What images of the table are good for; `None` where none are kept.
    pub(super) fn definition(&self) -> Option<Definition> {
        self.storage.as_ref().map(|storage| (self.relation.digest(), storage.id))
    }

    /// Takes what the catalog says of the storage at this transaction.
    pub(super) fn keep_storage(&mut self, facts: StorageFacts, asked_at: Option<Xid>) {
        self.storage = facts.known().filter(|_| self.has_images).map(Arc::new);
        let is_unseen = self.has_images && matches!(facts, StorageFacts::Unseen(_));
        self.unseen = is_unseen.then(|| asked_at.unwrap_or(Xid::new(0)));
    }

    /// Whether any column is of a type that users can alter.
    pub(super) const fn is_alterable(&self) -> bool {
        self.is_alterable
    }

    /// The types of the columns.
    pub(super) fn type_oids(&self) -> impl Iterator<Item = Oid> {
        self.relation.columns().iter().map(|column| column.type_oid)
    }

    /// Takes over what `types` says now, by a reading that saw everything before `read_at`.
    pub(super) fn refresh(&mut self, types: &Types, read_at: Lsn) {
        self.read_at = read_at;
        if self.revision != types.revision() {
            self.revision = types.revision();
            for (known, column) in self.columns.iter_mut().zip(self.relation.columns()) {
                known.writer = types.writer(column.type_oid);
            }
            self.is_converted = self.columns.iter().any(|column| column.writer.is_converted());
        }
    }

    pub(super) fn check(&self, tuple: &Tuple) -> Result<(), AssembleError> {
        if tuple.len() == self.columns.len() {
            return Ok(());
        }
        let relation = self.relation.name().to_string();
        Err(AssembleError::ColumnCount { relation, want: self.columns.len(), got: tuple.len() })
    }

    /// Says once for each definition that values of this column are not what `to_jsonb` prints.
    pub(super) fn warn_once(&self, index: usize, reason: &ValueError) {
        let (Some(column), Some(known)) = (self.relation.columns().get(index), self.columns.get(index))
        else {
            return;
        };
        if known.warned.replace(true) {
            return;
        }
        let (table, column, kind) = (self.relation.name(), &column.name, &column.type_name);
        let form = if *reason == ValueError::NotUtf8 { "with U+FFFD" } else { "as a string of its text" };
        tracing::warn!(%table, column, r#type = kind, %reason, "a value is sent {form}, not as to_jsonb prints it");
    }
}
