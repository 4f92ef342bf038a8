//! Rows that were there before their table was picked up, as messages in the transaction that picks it up.

use walcast_model::{Oid, RelationName};
use walcast_postgres::catalog::{self, CatalogRelation};
use walcast_postgres::{Session, quote_literal};

use super::plan::{Pickup, TableStep, quoted};
use crate::assemble::{ROWS_PREFIX, RowsHeader, row_prefix};
use crate::error::Error;

/// What became of the rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This many were written.
    Rows(u64),
    /// None were, and why.
    Without(String),
}

/// The tables that hold the step's rows: the table itself, or those partitions that are not published yet. To be asked
/// before the publications are altered.
pub(super) async fn holders(
    session: &Session,
    step: &TableStep,
    publications: &[String],
) -> Result<Vec<Oid>, Error> {
    if !step.partitioned {
        return Ok(vec![step.oid]);
    }
    const UNLISTED: &str = "
SELECT c.oid FROM pg_partition_tree($1::oid::regclass) t JOIN pg_class c ON c.oid = t.relid
WHERE t.isleaf AND c.relkind = 'r' AND NOT EXISTS (
    SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE r.prrelid = c.oid AND p.pubname::text = ANY ($2))
ORDER BY c.oid";
    let rows = session.query(UNLISTED, &[&step.oid.get(), &publications]).await?;
    Ok(rows.iter().map(|row| Oid::new(row.get(0))).collect())
}

/// Writes the rows of `table`, which the caller has locked. A failure leaves the transaction as it was before.
pub(super) async fn carry(
    session: &Session,
    table: Oid,
    pickup: Pickup,
    bytes_max: u64,
    secret: &str,
) -> Result<Option<(RelationName, Outcome)>, Error> {
    let Some(relation) = catalog::relation(session, table).await? else { return Ok(None) };
    let size = session.query_one("SELECT pg_table_size($1::oid::regclass)", &[&table.get()]).await?;
    let size: i64 = size.get(0);
    let name = relation.name.clone();
    if u64::try_from(size).unwrap_or(0) > bytes_max {
        let reason = format!("its {size} bytes are more than the setting pickup_bytes ({bytes_max}) allows");
        return Ok(Some((name, Outcome::Without(reason))));
    }
    session.batch_execute("SAVEPOINT walcast_rows").await?;
    let outcome = match write(session, &relation, pickup, secret).await {
        Ok(rows) => {
            session.batch_execute("RELEASE SAVEPOINT walcast_rows").await?;
            Outcome::Rows(rows)
        }
        // Row-level security that hides rows, a row over 1 GB, bytes that are no UTF-8: the table matters more.
        Err(error) if error.sqlstate().is_some() && !error.is_shutting_down() => {
            session.batch_execute("ROLLBACK TO SAVEPOINT walcast_rows").await?;
            Outcome::Without(error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some((name, outcome)))
}

async fn write(
    session: &Session,
    relation: &CatalogRelation,
    pickup: Pickup,
    secret: &str,
) -> Result<u64, walcast_postgres::Error> {
    let header = header(relation, pickup == Pickup::Replace);
    let emit = format!("SELECT pg_logical_emit_message(true, '{ROWS_PREFIX}', convert_to($1::text, 'UTF8'))");
    session.execute(&emit, &[&header.content(secret)]).await?;
    let rows = session.query_one(&rows_statement(&header), &[&row_prefix(secret)]).await?;
    Ok(u64::try_from(rows.get::<_, i64>(0)).unwrap_or(0))
}

/// The definition as the WAL will give it: without generated columns, which our publications leave out.
fn header(relation: &CatalogRelation, replace: bool) -> RowsHeader {
    let columns = relation.columns.iter().filter(|column| !column.generated);
    RowsHeader {
        replace,
        oid: relation.oid,
        schema: relation.name.schema.clone(),
        table: relation.name.table.clone(),
        identity: relation.identity,
        columns: columns.map(|column| column.definition(relation.identity)).collect(),
    }
}

/// One message a row, with the JSON that the server itself prints for each column, and their number.
///
/// Messages are not converted to the client encoding, so they are written in UTF8. What precedes the row holds the
/// secret, and so is a parameter: statements are seen in `pg_stat_activity`.
fn rows_statement(header: &RowsHeader) -> String {
    let mut row = "$1::text || '{'".to_owned();
    for (index, column) in header.columns.iter().enumerate() {
        let mut field = if index == 0 { Vec::new() } else { b",".to_vec() };
        walcast_model::json::write_string(&mut field, &column.name);
        field.push(b':');
        let field = quote_literal(&String::from_utf8_lossy(&field));
        let value = walcast_postgres::quote_identifier(&column.name);
        row.push_str(&format!(" || {field} || coalesce(to_jsonb(t.{value})::text, 'null')"));
    }
    row.push_str(" || '}'");
    let table = quoted(&RelationName::new(&header.schema, &header.table));
    format!(
        "SELECT count(pg_logical_emit_message(true, '{ROWS_PREFIX}', convert_to({row}, 'UTF8'))) FROM ONLY {table} AS t"
    )
}
