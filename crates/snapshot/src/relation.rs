//! The definition of a table as the stream has it, from the catalog alone.

use std::sync::Arc;

use walcast_model::{Oid, Relation};
use walcast_pgoutput::json::Types;
use walcast_postgres::{Session, catalog};

use crate::error::Error;
use crate::published::PublishedTable;

/// The relation that the replicator makes of the WAL's definition and the catalog, equal to the last digit of its
/// digest: the published columns in their order. With the types of its columns.
///
/// The caller holds a lock on the table, so its definition cannot change meanwhile.
pub(crate) async fn define(
    session: &Session,
    table: &PublishedTable,
) -> Result<(Arc<Relation>, Types), Error> {
    let found = catalog::relation(session, table.oid).await?;
    let found = found.ok_or_else(|| Error::UnknownTable { table: table.name.clone() })?;
    let mut columns = Vec::with_capacity(table.columns.len());
    for name in &table.columns {
        let column = found
            .column(name)
            .ok_or_else(|| Error::UnknownColumn { table: table.name.clone(), column: name.clone() })?;
        columns.push(column.definition(found.identity));
    }
    let oids: Vec<Oid> = columns.iter().map(|column| column.type_oid).collect();
    let mut types = Types::new();
    catalog::types(session, &oids, &mut types).await?;
    Ok((Arc::new(Relation::new(found.oid, found.name, found.identity, columns)), types))
}
