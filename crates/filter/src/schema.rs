//! What binding has to know of a table beyond its [`Relation`]: collations, and the types that are not built in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use walcast_model::{Oid, Relation};

use crate::types::{EnumType, Type};

/// How deep domains and arrays may be nested before they count as unknown.
const TYPE_DEPTH_MAX: usize = 16;

/// How the server compares the strings of a column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Collation {
    /// `C` or `POSIX`: by bytes, and only ASCII has upper and lower case.
    C,
    /// By bytes too, but with the letters of Unicode: `ucs_basic`, `C.UTF-8`, `pg_c_utf8`, `pg_unicode_fast`.
    CodePoint,
    /// Any other deterministic one: equal means equal bytes, the order is the locale's.
    Locale,
    /// Not deterministic: strings of different bytes can be equal.
    NonDeterministic,
}

impl Collation {
    /// What a row of `pg_collation` stands for: its provider (`collprovider`: `b`, `c`, `i`; the default collation's is
    /// `datlocprovider`), its locale (`colllocale`, before Postgres 17 `colliculocale`, for `c` `collcollate`; for the
    /// default collation the columns of `pg_database`), for `c` also `collctype`, and `collisdeterministic`.
    #[must_use]
    pub fn classify(provider: char, locale: &str, ctype: &str, deterministic: bool) -> Self {
        let class = |locale: &str| match locale.to_ascii_lowercase().as_str() {
            "c" | "posix" => Self::C,
            "c.utf-8" | "c.utf8" | "pg_c_utf8" | "pg_unicode_fast" => Self::CodePoint,
            _ => Self::Locale,
        };
        match (deterministic, provider) {
            (false, _) => Self::NonDeterministic,
            (true, 'b') => class(locale),
            // The order is C's when the locale is, but upper and lower case follow the other setting.
            (true, 'c') => match (class(locale), class(ctype)) {
                (Self::C, Self::C) => Self::C,
                (Self::C | Self::CodePoint, _) => Self::CodePoint,
                (other, _) => other,
            },
            (true, _) => Self::Locale,
        }
    }
}

/// What a type is that is not built in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TypeFact {
    /// An enum.
    Enum {
        /// Its name as `format_type` spells it with an empty search path: `public.mood`.
        name: String,
        /// Its labels by `enumsortorder`.
        labels: Vec<String>,
    },
    /// A domain.
    Domain {
        /// `pg_type.typbasetype`.
        base: Oid,
    },
    /// An array.
    Array {
        /// `pg_type.typelem`.
        element: Oid,
    },
    /// A composite type.
    Composite,
}

/// A table as filters are bound to it.
///
/// Built once per definition of a table (a [`Relation`] with another digest is another table) and shared by all that
/// filter it. A change of an enum's labels does not change the relation: build it anew then.
#[derive(Clone, Debug)]
pub struct Schema {
    relation: Arc<Relation>,
    types: Vec<Type>,
    collations: Vec<Collation>,
    default_collation: Collation,
    utf8: bool,
    /// The columns that filters may name; `None` for all.
    visible: Option<BTreeSet<usize>>,
}

/// Collects what a [`Schema`] has to know. What is not said is taken for the worst: a string column whose collation is
/// not known is not compared at all, a type that is not known can only be asked for NULL.
#[derive(Clone, Debug)]
pub struct SchemaBuilder {
    relation: Arc<Relation>,
    types: HashMap<Oid, TypeFact>,
    collations: HashMap<String, Collation>,
    default_collation: Collation,
    utf8: bool,
}

impl SchemaBuilder {
    /// What a type is that one of the columns has, or that such a type is made of.
    #[must_use]
    pub fn with_type(mut self, oid: Oid, fact: TypeFact) -> Self {
        self.types.insert(oid, fact);
        self
    }

    /// A column's collation (`pg_attribute.attcollation`); of an array, that of its elements.
    #[must_use]
    pub fn with_collation(mut self, column: impl Into<String>, collation: Collation) -> Self {
        self.collations.insert(column.into(), collation);
        self
    }

    /// The database's own collation and encoding (`pg_database`).
    #[must_use]
    pub const fn with_database(mut self, default_collation: Collation, utf8: bool) -> Self {
        self.default_collation = default_collation;
        self.utf8 = utf8;
        self
    }

    /// The schema.
    #[must_use]
    pub fn build(self) -> Schema {
        let columns = self.relation.columns();
        let types = columns.iter().map(|column| self.resolve(column.type_oid, TYPE_DEPTH_MAX)).collect();
        let collation = |name: &str| self.collations.get(name).copied();
        let collations = columns
            .iter()
            .map(|column| collation(&column.name).unwrap_or(Collation::NonDeterministic))
            .collect();
        let (default_collation, utf8) = (self.default_collation, self.utf8);
        Schema { relation: self.relation, types, collations, default_collation, utf8, visible: None }
    }

    fn resolve(&self, oid: Oid, depth_left: usize) -> Type {
        let Some(depth_left) = depth_left.checked_sub(1) else { return Type::Other };
        if let Some(known) = Type::builtin(oid) {
            return known;
        }
        match self.types.get(&oid) {
            Some(TypeFact::Enum { name, labels }) => {
                Type::Enum(Arc::new(EnumType { name: name.clone(), labels: labels.clone() }))
            }
            Some(TypeFact::Domain { base }) => self.resolve(*base, depth_left),
            Some(TypeFact::Array { element }) => match self.resolve(*element, depth_left) {
                // An array of a domain over an array: JSON does not show where one ends and the other begins.
                Type::Array(_) | Type::Other | Type::Composite => Type::Other,
                element => Type::Array(Box::new(element)),
            },
            Some(TypeFact::Composite) => Type::Composite,
            None => Type::Other,
        }
    }
}

impl Schema {
    /// Starts with a table of which nothing but its definition is known.
    #[must_use]
    pub fn builder(relation: Arc<Relation>) -> SchemaBuilder {
        SchemaBuilder {
            relation,
            types: HashMap::new(),
            collations: HashMap::new(),
            default_collation: Collation::NonDeterministic,
            utf8: false,
        }
    }

    /// The table.
    #[must_use]
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The same table for somebody who may know of these columns and of those of the key only: a filter on another one is
    /// refused as if it did not exist.
    #[must_use]
    pub fn narrowed_to(&self, columns: &BTreeSet<String>) -> Self {
        let all = self.relation.columns().iter().enumerate();
        let visible = all.filter(|(_, column)| column.key || columns.contains(&column.name));
        Self { visible: Some(visible.map(|(index, _)| index).collect()), ..self.clone() }
    }

    /// Whether every filter that is bound to `former` is bound to this in the same way, to columns at the same places, with
    /// the same answers for the same values: the table has got columns behind those that it had, or nothing of this has
    /// changed.
    #[must_use]
    pub fn extends(&self, former: &Self) -> bool {
        let (relation, was) = (&self.relation, &former.relation);
        relation.oid() == was.oid()
            && relation.name() == was.name()
            && relation.identity() == was.identity()
            && relation.columns().starts_with(was.columns())
            && self.types.starts_with(&former.types)
            && self.collations.starts_with(&former.collations)
            && (self.default_collation, self.utf8) == (former.default_collation, former.utf8)
            && self.visible.is_none()
            && former.visible.is_none()
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let found = self.relation.columns().iter().position(|column| column.name == name);
        found.filter(|index| self.visible.as_ref().is_none_or(|visible| visible.contains(index)))
    }

    pub(crate) fn column_type(&self, index: usize) -> Type {
        self.types.get(index).cloned().unwrap_or(Type::Other)
    }

    pub(crate) fn collation(&self, index: usize) -> Collation {
        self.collations.get(index).copied().unwrap_or(Collation::NonDeterministic)
    }

    pub(crate) const fn default_collation(&self) -> Collation {
        self.default_collation
    }

    pub(crate) const fn utf8(&self) -> bool {
        self.utf8
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    use super::{Collation, Schema, TypeFact};

    const MOOD: Oid = Oid::new(70_000);

    fn column(name: &str, type_oid: Oid) -> Column {
        Column {
            name: name.into(),
            type_name: String::new(),
            type_oid,
            key: name == "id",
            nullable: name != "id",
        }
    }

    fn schema(
        columns: &[Column],
        identity: ReplicaIdentity,
        name: &str,
        labels: &[&str],
        collation: Collation,
    ) -> Schema {
        let name = RelationName::new("public", name);
        let relation = Relation::new(Oid::new(16_400), name, identity, columns.to_vec());
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Schema::builder(Arc::new(relation))
            .with_type(MOOD, TypeFact::Enum { name: "public.mood".into(), labels })
            .with_collation("title", collation)
            .with_database(Collation::C, true)
            .build()
    }

    #[test]
    fn a_definition_extends_another_one_when_columns_were_added_behind_and_nothing_else_was_altered() {
        let (id, title, mood) =
            (column("id", Oid::new(20)), column("title", Oid::new(25)), column("mood", MOOD));
        let was = [id.clone(), title.clone(), mood.clone()];
        let full = ReplicaIdentity::Full;
        let former = schema(&was, full, "files", &["sad", "glad"], Collation::C);
        let with = |columns: &[Column]| schema(columns, full, "files", &["sad", "glad"], Collation::C);
        let more = [id.clone(), title.clone(), mood.clone(), column("size", Oid::new(23))];
        assert!(with(&was).extends(&former) && with(&more).extends(&former));
        assert!(!former.extends(&with(&more)), "a column was dropped");
        let renamed = Column { name: "name".into(), ..title.clone() };
        let retyped = Column { type_oid: Oid::new(1043), ..title.clone() };
        let filled = Column { nullable: false, ..title.clone() };
        for other in [renamed, retyped, filled] {
            assert!(!with(&[id.clone(), other, mood.clone()]).extends(&former));
        }
        assert!(!with(&[title, id, mood]).extends(&former), "columns have other places");
        for other in [
            schema(&was, ReplicaIdentity::Default, "files", &["sad", "glad"], Collation::C),
            schema(&was, full, "papers", &["sad", "glad"], Collation::C),
            schema(&was, full, "files", &["sad", "so so", "glad"], Collation::C),
            schema(&was, full, "files", &["sad", "glad"], Collation::Locale),
        ] {
            assert!(!other.extends(&former), "{other:?}");
        }
    }
}
