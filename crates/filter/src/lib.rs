//! Row filters: an SQL condition that is read once, bound to a table, and then evaluated on rows as the feed carries
//! them, with the answer that Postgres gives for every row, or refused.
//!
//! ```
//! use std::sync::Arc;
//! use walcast_filter::{Collation, Filter, Schema, Verdict};
//! use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};
//!
//! let column = |name: &str, type_oid| Column {
//!     name: name.into(), type_name: String::new(), type_oid: Oid::new(type_oid), key: name == "id", nullable: true,
//! };
//! let columns = vec![column("id", 20), column("owner", 25)];
//! let name = RelationName::new("public", "files");
//! let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, columns));
//! let schema = Schema::builder(relation)
//!     .with_database(Collation::Locale, true)
//!     .with_collation("owner", Collation::Locale)
//!     .build();
//!
//! let predicate = Filter::parse("owner = 'ann' AND id > 5")?.bind(&schema)?;
//! assert_eq!(predicate.evaluate(br#"{"id":6,"owner":"ann"}"#), Verdict::True);
//! assert_eq!(predicate.evaluate(br#"{"id":6,"owner":null}"#), Verdict::Null);
//! assert_eq!(predicate.evaluate(br#"{"id":6}"#), Verdict::Unknown(1));
//! assert_eq!(predicate.to_sql(), "((\"id\" > '5'::pg_catalog.int8) AND (\"owner\" = 'ann'::pg_catalog.text))");
//! # Ok::<(), walcast_filter::FilterError>(())
//! ```
//!
//! # The way of a filter
//!
//! 1. [`Filter::parse`]: the client's text, within the [`limits`]. For a policy of the configuration [`Policy::parse`],
//!    once, and [`Policy::bind_claims`] for each session; [`Filter::all`] joins them.
//! 2. [`Filter::bind`] with the [`Schema`] of the table: names become columns, literals values. A refusal says what to
//!    do instead ([`FilterError::hint`]) and where ([`FilterError::position`]).
//! 3. [`Predicate::requirements`]: which columns the replica identity lacks, and the statement that mends it.
//! 4. [`Predicate::to_sql`] for the initial sync.
//! 5. [`PredicateIndex`]: all predicates of one relation, by what they compare. For each change: a [`Row`] for each image,
//!    [`PredicateIndex::candidates`] of both, and [`Predicate::decide`] (or [`Predicate::evaluate_row`] and
//!    [`transition`]) once for each distinct predicate.
//!
//! A predicate is bound to one definition of a table. When a change comes with another [`Relation`](walcast_model::Relation), by its digest, build
//! a schema and bind the filter again; when it no longer binds, the subscription cannot go on.
//!
//! # Facts that only the server has
//!
//! [`Schema::builder`] takes collations and types from the caller; [`facts`] has the queries that give them.
//!
//! # What is refused, and why
//!
//! What the feed does not tell: array bounds (so no `=` between arrays), the text of `json`, whether a jsonb column is
//! NULL or holds `null` where that matters. What only the server knows: the order of strings under a locale, equality
//! under a collation that is not deterministic, upper and lower case beyond ASCII. What depends on the session: times
//! without a zone, `now`. What can fail on some row: casts of columns, functions.

mod bind;
mod claims;
mod error;
mod evaluate;
pub mod facts;
mod filter;
mod fitness;
mod index;
pub mod limits;
mod literal;
mod node;
mod pattern;
mod predicate;
mod row;
mod schema;
mod sql;
mod syntax;
mod transition;
mod types;
mod value;

pub use claims::{Claims, Policy};
pub use error::{FilterError, Refusal};
pub use filter::Filter;
pub use index::{Candidate, PredicateIndex, Scan};
pub use predicate::{Predicate, Verdict};
pub use row::Row;
pub use schema::{Collation, Schema, SchemaBuilder, TypeFact};
pub use transition::{Requirements, Undecided, transition};
