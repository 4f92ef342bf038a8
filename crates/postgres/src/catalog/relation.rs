//! Tables as the catalog has them.

use tokio_postgres::Row;
use walcast_model::{Column, Oid, RelationName, ReplicaIdentity};

use crate::{Error, Session};

/// `pg_class.relkind`, as far as it can hold rows of its own or stand for tables that do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// A partitioned table, which holds no rows itself.
    PartitionedTable,
    /// A view, a sequence, an index, a foreign table, …: never in a publication.
    Other,
}

/// One column that is not dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogColumn {
    /// `pg_attribute.attnum`.
    pub number: i16,
    /// The name.
    pub name: String,
    /// The type's object id.
    pub type_oid: Oid,
    /// The type as `format_type` spells it with its modifier, qualified unless it is built in.
    pub type_name: String,
    /// `NOT NULL`, directly or through a domain that is so.
    pub not_null: bool,
    /// `GENERATED ALWAYS AS (…)`: pgoutput leaves it out, unless a publication of PostgreSQL 18 says otherwise.
    pub generated: bool,
    /// Part of the primary key.
    pub primary_key: bool,
    /// Part of what UPDATE and DELETE carry to name the old row, by the table's replica identity as it is now.
    pub replica_identity: bool,
}

impl CatalogColumn {
    /// The column as the feed defines it, its table having this replica identity. The key is what pgoutput flags; under
    /// FULL, where that is every column, the primary key.
    #[must_use]
    pub fn definition(&self, identity: ReplicaIdentity) -> Column {
        let full = identity == ReplicaIdentity::Full;
        Column {
            name: self.name.clone(),
            type_name: self.type_name.clone(),
            type_oid: self.type_oid,
            key: if full { self.primary_key } else { self.replica_identity },
            nullable: !self.not_null,
        }
    }
}

/// A table as the catalog has it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogRelation {
    /// `pg_class.oid`.
    pub oid: Oid,
    /// Schema and name.
    pub name: RelationName,
    /// What kind of relation it is.
    pub kind: RelationKind,
    /// `LOGGED`, and not temporary: written to the WAL.
    pub permanent: bool,
    /// `pg_class.relreplident`.
    pub identity: ReplicaIdentity,
    /// UPDATE and DELETE can be published without making the application's own statements fail: there is a primary
    /// key that is not deferrable, an identity index, or the whole old row.
    pub identity_usable: bool,
    /// The columns, in the order of `number`.
    pub columns: Vec<CatalogColumn>,
}

impl CatalogRelation {
    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns of the primary key, in the order of the table; empty without one.
    pub fn primary_key(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| column.primary_key)
    }
}

/// One row a column, the table's own facts repeated on each. A table without columns has one row with NULLs.
const RELATION: &str = "\
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident,
       a.attnum, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
       a.attnotnull OR EXISTS (
           WITH RECURSIVE domain AS (
               SELECT t.typnotnull, t.typbasetype, t.typtype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
               UNION ALL
               SELECT t.typnotnull, t.typbasetype, t.typtype
               FROM domain d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd'
           )
           SELECT FROM domain WHERE typtype = 'd' AND typnotnull
       ) AS not_null,
       a.attgenerated <> '' AS generated,
       coalesce(a.attnum = ANY ((p.indkey::int2[])[0:p.indnkeyatts - 1]), false) AS primary_key,
       CASE c.relreplident
           WHEN 'f' THEN true
           WHEN 'd' THEN coalesce(a.attnum = ANY ((p.indkey::int2[])[0:p.indnkeyatts - 1]) AND p.indimmediate, false)
           WHEN 'i' THEN coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false)
           ELSE false
       END AS replica_identity,
       CASE c.relreplident
           WHEN 'f' THEN true
           WHEN 'd' THEN coalesce(p.indimmediate, false)
           WHEN 'i' THEN i.indexrelid IS NOT NULL
           ELSE false
       END AS identity_usable
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index p ON p.indrelid = c.oid AND p.indisprimary
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisreplident
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped";

/// Reads one relation by its object id; `None` when there is none (any more).
///
/// # Errors
/// When the session fails.
pub async fn relation(session: &Session, oid: Oid) -> Result<Option<CatalogRelation>, Error> {
    let query = format!("{RELATION} WHERE c.oid = $1 ORDER BY a.attnum");
    assemble(&session.query(&query, &[&oid.get()]).await?)
}

/// Reads one relation by its name; `None` when there is none.
///
/// # Errors
/// When the session fails.
pub async fn relation_by_name(
    session: &Session,
    name: &RelationName,
) -> Result<Option<CatalogRelation>, Error> {
    let query = format!("{RELATION} WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum");
    assemble(&session.query(&query, &[&name.schema, &name.table]).await?)
}

fn assemble(rows: &[Row]) -> Result<Option<CatalogRelation>, Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let letter = |name: &str| first.try_get::<_, i8>(name).map(|letter| letter.cast_unsigned());
    let columns: Result<Vec<_>, Error> = rows.iter().filter_map(|row| column(row).transpose()).collect();
    Ok(Some(CatalogRelation {
        oid: Oid::new(first.try_get("oid")?),
        name: RelationName::new(
            first.try_get::<_, String>("nspname")?,
            first.try_get::<_, String>("relname")?,
        ),
        kind: match letter("relkind")? {
            b'r' => RelationKind::Table,
            b'p' => RelationKind::PartitionedTable,
            _ => RelationKind::Other,
        },
        permanent: letter("relpersistence")? == b'p',
        identity: match letter("relreplident")? {
            b'd' => ReplicaIdentity::Default,
            b'i' => ReplicaIdentity::Index,
            b'f' => ReplicaIdentity::Full,
            _ => ReplicaIdentity::Nothing,
        },
        identity_usable: first.try_get("identity_usable")?,
        columns: columns?,
    }))
}

fn column(row: &Row) -> Result<Option<CatalogColumn>, Error> {
    let Some(number) = row.try_get::<_, Option<i16>>("attnum")? else { return Ok(None) };
    Ok(Some(CatalogColumn {
        number,
        name: row.try_get("attname")?,
        type_oid: Oid::new(row.try_get("atttypid")?),
        type_name: row.try_get("type_name")?,
        not_null: row.try_get("not_null")?,
        generated: row.try_get("generated")?,
        primary_key: row.try_get("primary_key")?,
        replica_identity: row.try_get("replica_identity")?,
    }))
}
