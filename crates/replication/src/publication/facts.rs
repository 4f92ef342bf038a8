//! What the catalog says about tables and publications.

use std::collections::BTreeSet;

use walcast_model::{Oid, RelationName};
use walcast_postgres::{Session, quote_identifier};

use crate::assemble::OWN_SCHEMA;
use crate::error::Error;

/// The state of a database as far as publishing is concerned, read in one go.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Ordinary and partitioned tables of users, walcast's own too.
    pub tables: Vec<TableFacts>,
    /// All publications of the database.
    pub publications: Vec<PublicationFacts>,
    /// What the role may do.
    pub role: RoleFacts,
    /// The database's name.
    pub database: String,
    /// The server is a standby: nothing can be changed.
    pub standby: bool,
}

/// What the connected role may do.
#[derive(Debug, Clone, Default)]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// Everything.
    pub superuser: bool,
    /// Stream from slots, create and drop them.
    pub replication: bool,
    /// Create publications and schemas in this database.
    pub create: bool,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its object id.
    pub oid: Oid,
    /// Its name.
    pub name: RelationName,
    /// Whether it is partitioned, and so holds no rows itself.
    pub partitioned: bool,
    /// The topmost partitioned table that it is a partition of.
    pub root: Option<Oid>,
    /// Neither temporary nor unlogged.
    pub permanent: bool,
    /// Belongs to an extension.
    pub extension: bool,
    /// The role may publish it: it owns it, or is a superuser.
    pub owned: bool,
    /// The role may use its schema.
    pub usage: bool,
    /// The role may read it, as an initial sync does.
    pub select: bool,
    /// Whether UPDATE and DELETE may be published.
    pub identity: IdentityFacts,
}

/// Whether a table's rows can be told apart in the WAL, by the rule that Postgres itself applies to the application's
/// UPDATE and DELETE (`CheckCmdReplicaIdentity`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityFacts {
    /// A valid and immediate primary key or identity index, or FULL.
    Usable,
    /// REPLICA IDENTITY NOTHING; the primary key would do if there is a usable one.
    Nothing {
        /// There is a valid, immediate primary key.
        primary_key: bool,
    },
    /// REPLICA IDENTITY USING INDEX, and the index is gone or not valid.
    IndexGone {
        /// There is a valid, immediate primary key.
        primary_key: bool,
    },
    /// The primary key is deferrable.
    Deferrable,
    /// No primary key; perhaps a unique index over NOT NULL columns that could be the identity.
    NoKey {
        /// That index.
        unique_index: Option<String>,
    },
}

/// One publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationFacts {
    /// Its name.
    pub name: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// The operations it publishes: insert, update, delete, truncate.
    pub operations: [bool; 4],
    /// Publishes partitions as their root.
    pub via_root: bool,
    /// The role may alter it.
    pub owned: bool,
    /// The tables listed in it.
    pub tables: BTreeSet<Oid>,
    /// Tables with a row filter or a column list.
    pub restricted: BTreeSet<Oid>,
    /// Whether it lists schemas (FOR TABLES IN SCHEMA).
    pub schemas: BTreeSet<String>,
}

impl TableFacts {
    /// What lets `role`, walcast's, read the table; `None` when it may.
    #[must_use]
    pub fn grant_to(&self, role: &str) -> Option<String> {
        let (schema, role) = (quote_identifier(&self.name.schema), quote_identifier(role));
        let usage = (!self.usage).then(|| format!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
        let table = quote_identifier(&self.name.table);
        let select = (!self.select).then(|| format!("GRANT SELECT ON {schema}.{table} TO {role};"));
        let grants: Vec<String> = usage.into_iter().chain(select).collect();
        (!grants.is_empty()).then(|| grants.join(" "))
    }
}

impl Facts {
    /// The table with this id.
    #[must_use]
    pub fn table(&self, oid: Oid) -> Option<&TableFacts> {
        // Read in the order of oids.
        self.tables
            .binary_search_by_key(&oid, |table| table.oid)
            .ok()
            .and_then(|index| self.tables.get(index))
    }

    /// The publication with this name.
    #[must_use]
    pub fn publication(&self, name: &str) -> Option<&PublicationFacts> {
        self.publications.iter().find(|publication| publication.name == name)
    }

    /// The tables of which a publication publishes rows: for a partitioned one its partitions. walcast's own are not among
    /// them.
    pub(super) fn published_by<'a>(
        &'a self,
        publication: &'a PublicationFacts,
    ) -> impl Iterator<Item = &'a TableFacts> {
        self.tables.iter().filter(|table| {
            let listed = |oid| publication.tables.contains(oid);
            let covered = publication.all_tables
                || publication.schemas.contains(&table.name.schema)
                || listed(&table.oid)
                || table.root.as_ref().is_some_and(listed);
            covered && table.permanent && !table.partitioned && table.name.schema != OWN_SCHEMA
        })
    }

    /// Reads the facts. Costs some milliseconds for a thousand tables.
    ///
    /// # Errors
    /// Those of the session.
    pub async fn read(session: &Session) -> Result<Self, Error> {
        let role = session.query_one(ROLE, &[]).await?;
        let superuser: bool = role.get(1);
        let tables = session.query(TABLES, &[]).await?;
        let publications =
            if session.server_version() >= 150_000 { PUBLICATIONS_15 } else { PUBLICATIONS_14 };
        let publications = session.query(publications, &[]).await?;
        Ok(Self {
            tables: tables.iter().map(table).collect(),
            publications: publications.iter().map(publication).collect(),
            role: RoleFacts {
                name: role.get(0),
                superuser,
                replication: superuser || role.get::<_, bool>(2),
                create: role.get(3),
            },
            database: role.get(4),
            standby: role.get(5),
        })
    }
}

const ROLE: &str = "
SELECT rolname::text, rolsuper, rolreplication, has_database_privilege(current_database(), 'CREATE'),
       current_database()::text, pg_is_in_recovery()
FROM pg_roles WHERE rolname = current_user";

/// A usable index is one that is unique, valid, immediate and not partial (`RelationGetIndexList`).
const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p',
       CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END,
       c.relpersistence = 'p',
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
       pg_has_role(c.relowner, 'USAGE'),
       c.relreplident::text,
       coalesce(i.primary_usable, false), coalesce(i.primary_any, false), coalesce(i.identity_usable, false),
       CASE WHEN c.relreplident = 'd' AND NOT coalesce(i.primary_any, false) THEN (
           SELECT min(x.relname::text) FROM pg_index u JOIN pg_class x ON x.oid = u.indexrelid
           WHERE u.indrelid = c.oid AND u.indisunique AND u.indisvalid AND u.indimmediate AND u.indpred IS NULL
             AND u.indexprs IS NULL AND NOT EXISTS (
                 SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attnotnull
                   AND a.attnum = ANY ((u.indkey::int2[])[0:u.indnkeyatts - 1])))
       END,
       -- NULL of what was dropped since this statement began.
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_table_privilege(c.oid, 'SELECT'), false)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT bool_or(x.indisprimary AND x.indisvalid AND x.indimmediate) AS primary_usable,
           bool_or(x.indisprimary) AS primary_any,
           bool_or(x.indisreplident AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL)
               AS identity_usable
    FROM pg_index x WHERE x.indrelid = c.oid AND (x.indisprimary OR x.indisreplident)) i ON true
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY c.oid";

const PUBLICATIONS_14: &str = "
SELECT p.pubname::text, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
       pg_has_role(p.pubowner, 'USAGE'),
       ARRAY(SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid),
       '{}'::oid[], '{}'::text[]
FROM pg_publication p ORDER BY p.pubname";

const PUBLICATIONS_15: &str = "
SELECT p.pubname::text, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
       pg_has_role(p.pubowner, 'USAGE'),
       ARRAY(SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid),
       ARRAY(SELECT r.prrelid FROM pg_publication_rel r
             WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)),
       ARRAY(SELECT n.nspname::text FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid
             WHERE s.pnpubid = p.oid)
FROM pg_publication p ORDER BY p.pubname";

fn table(row: &tokio_postgres::Row) -> TableFacts {
    let (kind, primary_key): (&str, bool) = (row.get(8), row.get(9));
    let (primary_any, identity_usable): (bool, bool) = (row.get(10), row.get(11));
    let identity = match kind {
        "f" => IdentityFacts::Usable,
        "n" => IdentityFacts::Nothing { primary_key },
        "i" if identity_usable => IdentityFacts::Usable,
        "i" => IdentityFacts::IndexGone { primary_key },
        _ if primary_key => IdentityFacts::Usable,
        _ if primary_any => IdentityFacts::Deferrable,
        _ => IdentityFacts::NoKey { unique_index: row.get(12) },
    };
    TableFacts {
        oid: Oid::new(row.get(0)),
        name: RelationName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        partitioned: row.get(3),
        root: row.get::<_, Option<u32>>(4).map(Oid::new),
        permanent: row.get(5),
        extension: row.get(6),
        owned: row.get(7),
        usage: row.get(13),
        select: row.get(14),
        identity,
    }
}

fn oids(list: Vec<u32>) -> BTreeSet<Oid> {
    list.into_iter().map(Oid::new).collect()
}

fn publication(row: &tokio_postgres::Row) -> PublicationFacts {
    PublicationFacts {
        name: row.get(0),
        all_tables: row.get(1),
        operations: [row.get(2), row.get(3), row.get(4), row.get(5)],
        via_root: row.get(6),
        owned: row.get(7),
        tables: oids(row.get(8)),
        restricted: oids(row.get(9)),
        schemas: row.get::<_, Vec<String>>(10).into_iter().collect(),
    }
}
