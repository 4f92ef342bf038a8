//! `walcast.last_image`: the newest full row of each key, of tables that were chosen for it.
//!
//! What it says is exactly as of the stored position: it is written in the transaction that moves that. All images of a
//! table are of one definition and one storage ([`walcast_model::last_image`]), which `walcast.imaged_table` names; a
//! change under another one removes them first, and so does a change without a mark.

mod fold;
mod reader;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use walcast_model::last_image::StorageId;
use walcast_model::{Oid, RelationDigest, RelationName};
use walcast_postgres::Session;

use crate::Error;
use crate::column::{get, parameter};
use crate::error::Doing;
use crate::metrics::IMAGES_TABLES_DROPPED;
pub(crate) use fold::Fold;
pub use reader::{ImageReader, WantedImage};

const DOING: &str = "keep last images";

/// Forgets all images. Part of every transaction after which history does not go on where it stood: an image is good only
/// when every change since is known.
pub(crate) const FORGET_ALL: &str = "DELETE FROM walcast.last_image; DELETE FROM walcast.imaged_table";

/// The tables of which last images are kept.
#[derive(Clone)]
pub struct ImagedTables(Arc<dyn Fn(&RelationName) -> bool + Send + Sync>);

impl ImagedTables {
    /// Those of which `is_chosen` says so.
    pub fn new(is_chosen: impl Fn(&RelationName) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_chosen))
    }
}

impl Default for ImagedTables {
    /// None.
    fn default() -> Self {
        Self::new(|_| false)
    }
}

impl fmt::Debug for ImagedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImagedTables")
    }
}

/// What the images of a table are good for.
type Definition = (RelationDigest, StorageId);

/// The writer's side.
#[derive(Debug, Default)]
pub(crate) struct ImageWriter {
    /// What `walcast.imaged_table` holds.
    tables: HashMap<Oid, Definition>,
    statements: Option<Statements>,
}

#[derive(Debug)]
struct Statements {
    delete: Statement,
    upsert: Statement,
}

impl ImageWriter {
    /// Reads which tables have images.
    pub(crate) async fn load(session: &Session) -> Result<Self, Error> {
        let sql = "SELECT relation, digest, storage FROM walcast.imaged_table";
        let mut tables = HashMap::new();
        for row in session.query(sql, &[]).await.doing(DOING)? {
            let definition = (RelationDigest::new(get(&row, 1)?), StorageId::new(get(&row, 2)?));
            tables.insert(Oid::new(get(&row, 0)?), definition);
        }
        Ok(Self { tables, statements: None })
    }

    /// Removes the images of tables that are not chosen any more: their changes will not touch them. To be called by
    /// who has claimed the feed, before anything is stored.
    pub(crate) async fn retain(&mut self, session: &Session, chosen: &ImagedTables) -> Result<(), Error> {
        let sql = "SELECT relation, schema_name, table_name FROM walcast.imaged_table";
        for row in session.query(sql, &[]).await.doing(DOING)? {
            let name = RelationName::new(get::<String>(&row, 1)?, get::<String>(&row, 2)?);
            if !(chosen.0)(&name) {
                let relation: u32 = get(&row, 0)?;
                tracing::info!(table = %name, "last images are not kept any more; those that are there are dropped");
                session.batch_execute(&clear_sql(relation, true)).await.doing(DOING)?;
                self.tables.remove(&Oid::new(relation));
            }
        }
        Ok(())
    }

    /// Whether no table has images: then a change without a mark changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Writes what a batch comes to, inside its transaction. When that fails, this is not to be used again.
    pub(crate) async fn write(&mut self, session: &Session, fold: &Fold<'_>) -> Result<(), Error> {
        for (oid, table) in &fold.tables {
            let relation = oid.get();
            if table.is_cleared {
                if self.tables.contains_key(oid) {
                    metrics::counter!(IMAGES_TABLES_DROPPED).increment(1);
                }
                session.batch_execute(&clear_sql(relation, table.definition.is_none())).await.doing(DOING)?;
            }
            let Some(imaged) = &table.definition else {
                self.tables.remove(oid);
                continue;
            };
            if self.tables.get(oid) != Some(&imaged.definition) {
                let sql = "INSERT INTO walcast.imaged_table VALUES ($1, $2, $3, $4, $5, $6) \
                           ON CONFLICT (relation) DO UPDATE SET digest = excluded.digest, storage = excluded.storage, \
                           since = excluded.since, schema_name = excluded.schema_name, table_name = excluded.table_name";
                let (digest, storage) = imaged.definition;
                let (digest, storage, since) = (digest.get(), storage.get(), parameter(imaged.since));
                let name = imaged.name;
                let parameters: [&(dyn ToSql + Sync); 6] =
                    [&relation, &digest, &storage, &since, &name.schema, &name.table];
                session.execute(sql, &parameters).await.doing(DOING)?;
                self.tables.insert(*oid, imaged.definition);
            }
            self.write_rows(session, relation, table).await?;
        }
        Ok(())
    }

    async fn write_rows(
        &mut self,
        session: &Session,
        relation: u32,
        table: &fold::TableFold<'_>,
    ) -> Result<(), Error> {
        let (mut gone, mut keys, mut rows, mut lsns, mut seqs) = (vec![], vec![], vec![], vec![], vec![]);
        for (key, row) in &table.rows {
            // Keys and rows are text that walcast wrote; where that is not UTF-8 no images are kept.
            let Ok(key) = std::str::from_utf8(key) else { continue };
            match row {
                None => gone.push(key),
                Some((row, at)) => {
                    let Ok(row) = std::str::from_utf8(row) else { continue };
                    keys.push(key);
                    rows.push(row);
                    lsns.push(parameter(at.lsn()));
                    seqs.push(at.seq().get());
                }
            }
        }
        if gone.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let statements = match &self.statements {
            Some(statements) => statements,
            None => {
                let delete = "DELETE FROM walcast.last_image WHERE relation = $1 AND key = ANY ($2::text[])";
                let upsert = "INSERT INTO walcast.last_image AS i \
                    SELECT $1, v.key, v.image, v.lsn, v.seq \
                    FROM unnest($2::text[], $3::text[], $4::pg_lsn[], $5::int8[]) AS v (key, image, lsn, seq) \
                    ON CONFLICT (relation, key) DO UPDATE SET \"row\" = excluded.\"row\", lsn = excluded.lsn, seq = excluded.seq";
                let delete = session.prepare(delete).await.doing(DOING)?;
                let upsert = session.prepare(upsert).await.doing(DOING)?;
                self.statements.insert(Statements { delete, upsert })
            }
        };
        if !gone.is_empty() && !table.is_cleared {
            session.execute(&statements.delete, &[&relation, &gone]).await.doing(DOING)?;
        }
        if !keys.is_empty() {
            let parameters: [&(dyn ToSql + Sync); 5] = [&relation, &keys, &rows, &lsns, &seqs];
            session.execute(&statements.upsert, &parameters).await.doing(DOING)?;
        }
        Ok(())
    }
}

/// Removes the images of a table, and that it has any.
fn clear_sql(relation: u32, is_gone: bool) -> String {
    let mut sql = format!("DELETE FROM walcast.last_image WHERE relation = {relation}");
    if is_gone {
        sql.push_str(&format!("; DELETE FROM walcast.imaged_table WHERE relation = {relation}"));
    }
    sql
}
