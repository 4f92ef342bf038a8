//! What filters have to know of a table and only the server has: collations, and types that are not built in.

use std::collections::HashMap;
use std::sync::Arc;

use walcast_filter::{Collation, Schema, TypeFact, facts as queries};
use walcast_model::{Oid, Relation};
use walcast_postgres::Session;

use crate::error::Error;

/// Collations and types of one table's columns, as the catalog has them at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    default_collation: Collation,
    utf8: bool,
    collations: HashMap<String, Collation>,
    types: HashMap<Oid, TypeFact>,
}

impl Facts {
    /// The table as filters are bound to it, in the definition that `relation` is. Of a column that the table does not have
    /// now nothing is known, and most filters on it are refused.
    #[must_use]
    pub fn schema(&self, relation: Arc<Relation>) -> Schema {
        let mut schema = Schema::builder(relation).with_database(self.default_collation, self.utf8);
        for (column, collation) in &self.collations {
            schema = schema.with_collation(column.clone(), *collation);
        }
        for (oid, fact) in &self.types {
            schema = schema.with_type(*oid, fact.clone());
        }
        schema.build()
    }
}

/// Reads them for the table `oid`; one that does not exist any more has none.
///
/// # Errors
/// Those of the session.
pub async fn facts(session: &Session, oid: Oid) -> Result<Facts, Error> {
    let row = session.query_one(queries::DATABASE, &[]).await?;
    let provider = first(&row.try_get::<_, String>(0)?);
    let (locale, ctype): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let default_collation = Collation::classify(provider, &locale, &ctype, true);
    let utf8 = row.try_get(3)?;
    let mut collations = HashMap::new();
    for row in session.query(queries::COLLATIONS, &[&oid.get()]).await? {
        let provider = first(&row.try_get::<_, String>(1)?);
        let collation = match provider {
            'd' => default_collation,
            _ => {
                let (locale, ctype): (String, String) = (row.try_get(2)?, row.try_get(3)?);
                Collation::classify(provider, &locale, &ctype, row.try_get(4)?)
            }
        };
        collations.insert(row.try_get(0)?, collation);
    }
    let mut types = HashMap::new();
    for row in session.query(queries::TYPES, &[&oid.get()]).await? {
        let inner = Oid::new(row.try_get(2)?);
        let fact = match row.try_get::<_, String>(1)?.as_str() {
            "e" => TypeFact::Enum { name: row.try_get(3)?, labels: row.try_get(4)? },
            "d" => TypeFact::Domain { base: inner },
            "a" => TypeFact::Array { element: inner },
            _ => TypeFact::Composite,
        };
        types.insert(Oid::new(row.try_get(0)?), fact);
    }
    Ok(Facts { default_collation, utf8, collations, types })
}

fn first(text: &str) -> char {
    text.chars().next().unwrap_or('c')
}
