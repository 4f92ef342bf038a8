//! A table that needs no server, and what a client may have of it.

use std::sync::Arc;

use walcast_filter::{Claims, Collation, FilterError, Predicate, Schema};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};
use walcast_policy::{Policies, Rights};

pub(crate) fn policies(text: &str) -> Policies {
    Policies::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

pub(crate) fn claims(json: &str) -> Claims {
    Claims::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

pub(crate) fn name(text: &str) -> RelationName {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// `public.orders (id bigint primary key, customer_id bigint, owner text, tags text[], data jsonb)`.
pub(crate) fn orders() -> Schema {
    let columns = [("id", 20), ("customer_id", 20), ("owner", 25), ("tags", 1009), ("data", 3802)];
    let column = |(name, oid): (&str, u32)| Column {
        name: name.into(),
        type_name: String::new(),
        type_oid: Oid::new(oid),
        key: name == "id",
        nullable: name != "id",
    };
    let columns = columns.map(column).to_vec();
    let relation = Relation::new(Oid::new(1), name("public.orders"), ReplicaIdentity::Full, columns);
    Schema::builder(Arc::new(relation))
        .with_database(Collation::C, true)
        .with_collation("owner", Collation::C)
        .with_collation("tags", Collation::C)
        .build()
}

/// The predicate of `public.orders` that is in force: `None` when all rows may be had.
pub(crate) fn predicate(rights: &Rights) -> Option<Result<Predicate, FilterError>> {
    let grant = rights.of(&name("public.orders")).expect("a grant");
    grant.rows.map(|rows| rows.bind(&orders()))
}
