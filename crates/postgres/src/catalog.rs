//! What the catalog says, now, about tables and types.
//!
//! "Now" can be later than the WAL that is being read: a table may have been altered or dropped since.

mod relation;
mod types;

pub use relation::{CatalogColumn, CatalogRelation, RelationKind, relation, relation_by_name};
pub use types::{TypeReader, types};
