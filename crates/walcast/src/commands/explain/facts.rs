//! What the catalog says of a table's types and collations, for filters.

use std::sync::Arc;

use walcast_filter::{Collation, Schema, TypeFact, facts};
use walcast_model::{Oid, Relation};
use walcast_postgres::Session;

/// The facts of one table.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    collation: Collation,
    utf8: bool,
    collations: Vec<(String, Collation)>,
    types: Vec<(Oid, TypeFact)>,
}

fn first(text: &str) -> char {
    text.chars().next().unwrap_or('c')
}

impl Facts {
    /// Reads them.
    pub(super) async fn read(session: &Session, table: Oid) -> Result<Self, tokio_postgres::Error> {
        let row = session.query_one(facts::DATABASE, &[]).await?;
        let ctype: Option<&str> = row.try_get(2)?;
        let (provider, locale): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let own = Collation::classify(first(provider), locale, ctype.unwrap_or_default(), true);
        let mut found =
            Self { collation: own, utf8: row.try_get(3)?, collations: Vec::new(), types: Vec::new() };
        for row in session.query(facts::COLLATIONS, &[&table.get()]).await? {
            let collation = match first(row.try_get(1)?) {
                'd' => own,
                provider => Collation::classify(provider, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?),
            };
            found.collations.push((row.try_get(0)?, collation));
        }
        for row in session.query(facts::TYPES, &[&table.get()]).await? {
            let inner = Oid::new(row.try_get(2)?);
            let fact = match row.try_get::<_, &str>(1)? {
                "e" => TypeFact::Enum { name: row.try_get(3)?, labels: row.try_get(4)? },
                "d" => TypeFact::Domain { base: inner },
                "a" => TypeFact::Array { element: inner },
                _ => TypeFact::Composite,
            };
            found.types.push((Oid::new(row.try_get(0)?), fact));
        }
        Ok(found)
    }

    /// The schema of one definition of the table.
    pub(super) fn schema(&self, relation: &Arc<Relation>) -> Schema {
        let mut builder = Schema::builder(Arc::clone(relation)).with_database(self.collation, self.utf8);
        for (column, collation) in &self.collations {
            builder = builder.with_collation(column, *collation);
        }
        for (oid, fact) in &self.types {
            builder = builder.with_type(*oid, fact.clone());
        }
        builder.build()
    }
}
