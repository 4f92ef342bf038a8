//! A table that needs no server.

use std::sync::Arc;

use walcast_filter::{Collation, Filter, FilterError, Predicate, Schema, TypeFact, Verdict};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

const MOOD: u32 = 70_000;
const PAIR: u32 = 70_001;

/// Names and types; the first is the key.
const COLUMNS: &[(&str, u32)] = &[
    ("id", 20),
    ("owner", 25),
    ("title", 25),
    ("tag", 25),
    ("n", 23),
    ("f", 700),
    ("num", 1700),
    ("d", 1082),
    ("at", 1184),
    ("ts", 1114),
    ("span", 1186),
    ("j", 3802),
    ("js", 114),
    ("tags", 1009),
    ("numbers", 1007),
    ("docs", 3807),
    ("flag", 16),
    ("mood", MOOD),
    ("pair", PAIR),
    ("spot", 600),
    ("code", 1042),
];

pub(crate) fn relation(identity: ReplicaIdentity) -> Arc<Relation> {
    let column = |(name, oid): &(&str, u32)| Column {
        name: (*name).into(),
        type_name: String::new(),
        type_oid: Oid::new(*oid),
        key: *name == "id",
        nullable: *name != "id",
    };
    let columns = COLUMNS.iter().map(column).collect();
    Arc::new(Relation::new(Oid::new(1), RelationName::new("public", "odd \"files\""), identity, columns))
}

/// `owner` and `code` go by bytes, `title` by a locale, `tag` by a collation that is not deterministic.
pub(crate) fn schema(relation: Arc<Relation>) -> Schema {
    let labels = vec!["sad".to_owned(), "ok".to_owned(), "happy".to_owned()];
    Schema::builder(relation)
        .with_database(Collation::Locale, true)
        .with_collation("owner", Collation::C)
        .with_collation("code", Collation::C)
        .with_collation("title", Collation::Locale)
        .with_collation("tag", Collation::NonDeterministic)
        .with_collation("tags", Collation::Locale)
        .with_type(Oid::new(MOOD), TypeFact::Enum { name: "public.mood".into(), labels })
        .with_type(Oid::new(PAIR), TypeFact::Composite)
        .build()
}

pub(crate) fn bound(text: &str) -> Result<Predicate, FilterError> {
    Filter::parse(text)?.bind(&schema(relation(ReplicaIdentity::Default)))
}

pub(crate) fn verdict(text: &str, row: &str) -> Verdict {
    bound(text).unwrap_or_else(|error| panic!("{text}: {error} ({})", error.hint())).evaluate(row.as_bytes())
}
