//! The catalog's answers to what the WAL does not say.

use std::time::{Duration, Instant};

use walcast_model::{Lsn, Oid};
use walcast_pgoutput::json::{TypeKind, Types};
use walcast_postgres::Session;
use walcast_postgres::catalog::{self, TypeReader};

use crate::assemble::{
    CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts, StorageFacts, TypesQuestion,
};
use crate::error::Error;
use crate::metrics::TYPE_READINGS_TOTAL;

const NAMES: &str = "SELECT format_type(t.oid, t.modifier) \
                     FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS t(oid, modifier, place) ORDER BY t.place";

/// How long a definition waits for the transaction that made it to be seen by others. A walsender sends a transaction
/// once its commit is written, which is a moment before others see it; one that waits for a synchronous standby is seen
/// much later, and must not hold up the feed for that long.
const UNSEEN_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two looks.
const UNSEEN_WAIT: Duration = Duration::from_millis(2);

/// Whether the catalog has all that is asked about, or the transaction is one that it has already seen.
const SEEN: &str = "
SELECT pg_visible_in_snapshot($1::text::xid8, pg_current_snapshot())
    OR NOT EXISTS (SELECT unnest($2::oid[]) EXCEPT SELECT oid FROM pg_type)
   AND NOT EXISTS (SELECT * FROM unnest($3::text[], $4::oid[]) EXCEPT
                   SELECT attname::text, atttypid FROM pg_attribute WHERE attrelid = $5 AND NOT attisdropped)";

/// Waits until the catalog can know what is asked about. Without this a type would be taken for one that is gone, and
/// a table for one without a primary key, when they are used in the transaction that made them.
async fn until_seen(session: &Session, question: &CatalogQuestion) -> Result<(), Error> {
    let Some(transaction) = question.transaction else { return Ok(()) };
    let oids = |oids: &mut dyn Iterator<Item = &Oid>| -> Vec<u32> { oids.map(|oid| oid.get()).collect() };
    let types = oids(&mut question.types.iter());
    let column_types = oids(&mut question.type_names.iter().map(|(oid, _)| oid));
    let (xid, relation) = (transaction.to_string(), question.relation.get());
    let started = Instant::now();
    loop {
        let row =
            session.query_one(SEEN, &[&xid, &types, &question.columns, &column_types, &relation]).await?;
        if row.get(0) {
            return Ok(());
        }
        if started.elapsed() > UNSEEN_WAIT_MAX {
            tracing::warn!(
                xid,
                relation,
                "a transaction that defines a table is not visible yet, as when it waits for a synchronous standby; \
                 its rows go out without what the catalog will say of it"
            );
            return Ok(());
        }
        tokio::time::sleep(UNSEEN_WAIT).await;
    }
}

/// Asks the catalog, and adds the types to `types`.
pub(super) async fn answer(
    session: &Session,
    reader: &mut TypeReader,
    question: &CatalogQuestion,
    types: &mut Types,
) -> Result<CatalogAnswer, Error> {
    until_seen(session, question).await?;
    if !question.types.is_empty() {
        reader.complete(session, &question.types, types).await?;
    }
    for (domain, base) in &question.domain_bases {
        if types.is_dropped(*domain) {
            const BUILT_IN: &str =
                "SELECT oid FROM pg_type WHERE typname = $1 AND typnamespace = 'pg_catalog'::regnamespace";
            if let Some(row) = session.query_opt(BUILT_IN, &[base]).await? {
                types.insert(*domain, TypeKind::Domain { base: Oid::new(row.try_get(0)?) });
            }
        }
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
    Ok(CatalogAnswer { relation, type_names, storage: StorageFacts::None })
}

/// How often types are read again when no change asks for it.
pub(super) const TYPES_INTERVAL: Duration = Duration::from_secs(1);

/// Reads types again into `types`: the position that the reading was at.
pub(super) async fn refresh(
    session: &Session,
    reader: &mut TypeReader,
    question: &TypesQuestion,
    types: &mut Types,
) -> Result<Lsn, Error> {
    let started = Instant::now();
    loop {
        let transaction = (started.elapsed() < UNSEEN_WAIT_MAX).then_some(question.transaction);
        metrics::counter!(TYPE_READINGS_TOTAL).increment(1);
        if let Some(position) = reader.refresh(session, &question.types, transaction, types).await? {
            if transaction.is_none() {
                tracing::warn!(
                    xid = %question.transaction,
                    "a transaction that may alter a type is not visible yet, as when it waits for a synchronous \
                     standby; its rows go out with the type as it was"
                );
            }
            return Ok(position);
        }
        tokio::time::sleep(UNSEEN_WAIT).await;
    }
}

/// Reads all types again that may have been altered. What no change waits for needs no certainty.
pub(super) async fn look_at_types(
    session: &Session,
    reader: &mut TypeReader,
    oids: &[Oid],
    types: &mut Types,
) -> Result<(), Error> {
    if !oids.is_empty() {
        metrics::counter!(TYPE_READINGS_TOTAL).increment(1);
        reader.refresh(session, oids, None, types).await?;
    }
    Ok(())
}
