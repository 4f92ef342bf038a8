//! What is checked before a transaction is opened, because the answer then names the statement that mends it.

use walcast_model::RelationName;
use walcast_postgres::{Session, quote_identifier};

use crate::error::Error;
use crate::event::SnapshotTable;
use crate::published::{self, RowFilters, sql_name};

/// A standby's `pg_current_snapshot()` does not list what is open on the primary, so the seam with the stream could
/// not be told.
pub(crate) async fn require_primary(session: &Session) -> Result<(), Error> {
    let row = session.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?;
    if row.try_get(0)? { Err(Error::Standby) } else { Ok(()) }
}

/// Every table is there, in the feed under this name, and the session's role sees all its rows.
pub(crate) async fn require_readable(
    session: &Session,
    publications: &[String],
    tables: &[SnapshotTable],
) -> Result<(), Error> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.table.as_str()).collect();
    let rows = session
        .query(
            "SELECT c.oid IS NOT NULL,
                    coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false),
                    coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
                    coalesce(pg_catalog.row_security_active(c.oid), false),
                    current_user::text
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (schema, name, place)
             LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
             LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
             ORDER BY place",
            &[&schemas, &names],
        )
        .await?;
    let wanted: Vec<RelationName> = tables.iter().map(|table| table.name.clone()).collect();
    let published = published::read(session, publications, Some(&wanted), RowFilters::Unread).await?;
    for (row, name) in rows.iter().zip(wanted) {
        let [exists, usage, select, row_security] = [0, 1, 2, 3].map(|index| row.try_get(index));
        let role: String = row.try_get(4)?;
        if !exists? {
            return Err(Error::UnknownTable { table: name });
        }
        if !published.iter().any(|table| table.name == name) {
            return Err(not_published(session, publications, name).await?);
        }
        let quoted = quote_identifier(&role);
        let mut grants = Vec::new();
        if !usage? {
            grants.push(format!("GRANT USAGE ON SCHEMA {} TO {quoted};", quote_identifier(&name.schema)));
        }
        if !select? {
            grants.push(format!("GRANT SELECT ON {} TO {quoted};", sql_name(&name)));
        }
        if !grants.is_empty() {
            return Err(Error::Forbidden { table: name, role, statement: grants.join(" ") });
        }
        if row_security? {
            let statement = format!("ALTER ROLE {quoted} BYPASSRLS;");
            return Err(Error::RowSecurity { table: name, role, statement });
        }
    }
    Ok(())
}

/// Why a table that exists is not in the feed under this name.
async fn not_published(
    session: &Session,
    publications: &[String],
    table: RelationName,
) -> Result<Error, Error> {
    let published = published::published_tables(session, publications).await?;
    let oids: Vec<u32> = published.iter().map(|table| table.oid.get()).collect();
    let row = session
        .query_opt(
            "WITH wanted AS (
                 SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $2 AND c.relname = $3)
             SELECT other.place, other.oid IN (
                 SELECT a.relid FROM wanted, pg_catalog.pg_partition_ancestors(wanted.oid) a) AS root
             FROM unnest($1::oid[]) WITH ORDINALITY AS other (oid, place), wanted
             WHERE other.oid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(wanted.oid) a)
                OR wanted.oid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(other.oid) a)
             ORDER BY place LIMIT 1",
            &[&oids, &table.schema, &table.table],
        )
        .await?;
    if let Some(row) = row {
        let place: i64 = row.try_get(0)?;
        let relative = usize::try_from(place - 1).ok().and_then(|index| published.into_iter().nth(index));
        if let Some(relative) = relative {
            let relative = relative.name;
            let root: bool = row.try_get(1)?;
            return Ok(match root {
                true => Error::Partition { table, root: relative },
                false => Error::Partitioned { table, partition: relative },
            });
        }
    }
    Ok(Error::NotPublished { table, publications: publications.join(", ") })
}
