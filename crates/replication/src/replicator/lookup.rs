//! The catalog's answers to what the WAL does not say.

use walcast_pgoutput::json::Types;
use walcast_postgres::{Session, catalog};

use crate::assemble::{CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts};
use crate::error::Error;

const NAMES: &str = "SELECT format_type(t.oid, t.modifier) \
                     FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS t(oid, modifier, place) ORDER BY t.place";

/// Asks the catalog, and adds the types to `types`.
pub(super) async fn answer(
    session: &Session,
    question: &CatalogQuestion,
    types: &mut Types,
) -> Result<CatalogAnswer, Error> {
    if !question.types.is_empty() {
        catalog::types(session, &question.types, types).await?;
    }
    let oids: Vec<u32> = question.type_names.iter().map(|(oid, _)| oid.get()).collect();
    let modifiers: Vec<i32> = question.type_names.iter().map(|(_, modifier)| *modifier).collect();
    // Together on the wire: two answers in one round trip.
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&oids, &modifiers];
    let (names, relation) =
        tokio::try_join!(async { session.query(NAMES, &parameters).await.map_err(Error::from) }, async {
            catalog::relation(session, question.relation).await.map_err(Error::from)
        },)?;
    let relation = relation.map(|relation| RelationFacts {
        columns: relation
            .columns
            .into_iter()
            .map(|column| ColumnFacts {
                name: column.name,
                type_oid: column.type_oid,
                not_null: column.not_null,
                primary_key: column.primary_key,
            })
            .collect(),
    });
    let unknown = || "???".to_owned();
    let type_names =
        names.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(unknown)).collect();
    Ok(CatalogAnswer { relation, type_names })
}
