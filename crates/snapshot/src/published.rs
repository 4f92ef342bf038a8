//! Which tables the feed's publications publish, and which of their rows and columns.

use std::collections::BTreeMap;

use walcast_model::{Oid, RelationName};
use walcast_postgres::{Session, quote_identifier};

use crate::error::Error;

/// A table as the feed has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedTable {
    /// The name under which the stream has it: a partition's own, or that of the partitioned table where a
    /// publication says `publish_via_partition_root`.
    pub name: RelationName,
    /// Its object id.
    pub oid: Oid,
    /// The published columns, in the order of the stream. Without generated ones, unless the publication says so.
    pub columns: Vec<String>,
    /// The condition that a row must meet to be published (Postgres 15 and later), as SQL; not always read.
    row_filter: Option<String>,
    /// Whether it is a partitioned table, whose rows are those of its partitions.
    pub partitioned: bool,
}

impl PublishedTable {
    /// The statement that prints these `expressions` of the published rows in the text format of COPY, of those for which
    /// `condition` holds.
    pub(crate) fn copy_statement(&self, expressions: &[String], condition: Option<&str>) -> String {
        format!("COPY (SELECT {}{}) TO STDOUT", expressions.join(", "), self.source(condition))
    }

    /// The statement whose plan tells how many such rows there are.
    pub(crate) fn estimate_statement(&self, condition: Option<&str>) -> String {
        format!("EXPLAIN (FORMAT JSON) SELECT{}", self.source(condition))
    }

    /// From where, and which rows: ` FROM … WHERE …`.
    pub(crate) fn source(&self, condition: Option<&str>) -> String {
        // Children by inheritance are published by themselves; only partitions have their rows in the root.
        let only = if self.partitioned { "" } else { "ONLY " };
        let conditions = [self.row_filter.as_deref(), condition];
        let conditions: Vec<String> =
            conditions.into_iter().flatten().map(|condition| format!("({condition})")).collect();
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        format!(" FROM {only}{}{filter}", sql_name(&self.name))
    }
}

/// A table's name as SQL text.
pub(crate) fn sql_name(name: &RelationName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.table))
}

/// A table in one publication.
struct Membership {
    name: RelationName,
    oid: Oid,
    partitioned: bool,
    columns: Vec<String>,
    row_filter: Option<String>,
}

/// The parts of the query in which versions differ: schemas, row filters and column lists came with 15, generated
/// columns on request with 18.
struct Dialect {
    schemas: &'static str,
    row_filter: &'static str,
    column_list: &'static str,
    /// Which generated columns a publication has, as `pg_publication.pubgencols` says it: none, or stored ones.
    generated: &'static str,
}

impl Dialect {
    const fn of(server_version: u32) -> Self {
        Self {
            schemas: if server_version >= 150_000 {
                "UNION SELECT p.oid, c.oid FROM publication p
                     JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
                     JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid"
            } else {
                ""
            },
            row_filter: if server_version >= 150_000 {
                "CASE WHEN NOT p.puballtables AND NOT EXISTS (
                     SELECT FROM pg_catalog.pg_publication_namespace s
                     WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)
                 THEN pg_catalog.pg_get_expr(r.prqual, r.prrelid) END"
            } else {
                "NULL::text"
            },
            column_list: if server_version >= 150_000 {
                "p.puballtables OR r.prattrs IS NULL OR a.attnum = ANY (r.prattrs::int2[]) OR EXISTS (
                     SELECT FROM pg_catalog.pg_publication_namespace s
                     WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)"
            } else {
                "true"
            },
            generated: if server_version >= 180_000 {
                "a.attgenerated = '' OR a.attgenerated = 's' AND (p.pubgencols = 's' OR r.prattrs IS NOT NULL)"
            } else {
                "a.attgenerated = ''"
            },
        }
    }
}

/// The tables that these publications of the session's database publish, in the order of their names.
///
/// # Errors
/// When two publications list different columns of one table, and those of the session.
pub async fn published_tables(
    session: &Session,
    publications: &[String],
) -> Result<Vec<PublishedTable>, Error> {
    read(session, publications, None, RowFilters::Unread).await
}

/// Whether the row filters of the publications are read. From 17 on that waits for whoever has a table locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowFilters {
    Read,
    Unread,
}

/// Reads the tables that the publications publish, all of them or those among `names`; in the order of their names.
///
/// Not from the view `pg_publication_tables`, which waits for every published table that somebody has locked: one
/// long `ALTER TABLE` would stop the initial syncs of all others.
///
/// # Errors
/// When two publications list different columns of one table, and those of the session.
pub(crate) async fn read(
    session: &Session,
    publications: &[String],
    names: Option<&[RelationName]>,
    row_filters: RowFilters,
) -> Result<Vec<PublishedTable>, Error> {
    let query = statement(&Dialect::of(session.server_version()), row_filters);
    let schemas: Option<Vec<&str>> =
        names.map(|names| names.iter().map(|name| name.schema.as_str()).collect());
    let tables: Option<Vec<&str>> = names.map(|names| names.iter().map(|name| name.table.as_str()).collect());
    let rows = session.query(&query, &[&publications, &schemas, &tables]).await?;
    let mut memberships = Vec::with_capacity(rows.len());
    for row in rows {
        memberships.push(Membership {
            oid: Oid::new(row.try_get(0)?),
            name: RelationName::new(row.try_get::<_, String>(1)?, row.try_get::<_, String>(2)?),
            partitioned: row.try_get(3)?,
            columns: row.try_get::<_, Option<Vec<String>>>(4)?.unwrap_or_default(),
            row_filter: row.try_get(5)?,
        });
    }
    merge(memberships)
        .map_err(|table| Error::ColumnListsDiffer { table, publications: publications.join(", ") })
}

/// What is publishable: `is_publishable_class` (pg_publication.c). What a publication does with partitions:
/// `pg_get_publication_tables`. Under which name the stream has a partition that several publications have:
/// `get_rel_sync_entry` (pgoutput.c).
fn statement(dialect: &Dialect, row_filters: RowFilters) -> String {
    let Dialect { schemas, row_filter, column_list, generated } = dialect;
    let row_filter = match row_filters {
        RowFilters::Read => row_filter,
        RowFilters::Unread => "NULL::text",
    };
    format!(
        "WITH RECURSIVE publication AS (SELECT * FROM pg_catalog.pg_publication WHERE pubname = ANY ($1)),
         listed (publication, relation) AS (
             (SELECT p.oid, r.prrelid FROM publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
              UNION SELECT p.oid, c.oid FROM publication p, pg_catalog.pg_class c
                  WHERE p.puballtables AND c.relkind IN ('r', 'p') AND c.oid >= 16384
              {schemas})
             UNION
             SELECT l.publication, i.inhrelid FROM listed l
                 JOIN pg_catalog.pg_inherits i ON i.inhparent = l.relation
                 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition),
         member AS (
             SELECT p.oid AS publication, c.oid AS relation, c.relkind = 'p' AS partitioned, c.relispartition
             FROM listed l JOIN publication p ON p.oid = l.publication JOIN pg_catalog.pg_class c ON c.oid = l.relation
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
               AND CASE WHEN p.pubviaroot
                   THEN NOT c.relispartition OR NOT EXISTS (
                       SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a JOIN listed above ON above.relation = a.relid
                       WHERE a.relid <> c.oid AND above.publication = p.oid)
                   ELSE c.relkind = 'r' END),
         root AS (SELECT DISTINCT relation FROM member WHERE partitioned)
         SELECT c.oid, n.nspname::text, c.relname::text, m.partitioned,
                ARRAY (SELECT a.attname::text FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                         AND ({generated}) AND ({column_list}) ORDER BY a.attnum),
                {row_filter}
         FROM member m
         JOIN publication p ON p.oid = m.publication
         JOIN pg_catalog.pg_class c ON c.oid = m.relation
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
         WHERE n.nspname <> 'walcast'
           AND ($2::text[] IS NULL OR (n.nspname::text, c.relname::text) IN (
               SELECT * FROM unnest($2::text[], $3::text[])))
           AND NOT (m.relispartition AND EXISTS (
               SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a JOIN root ON root.relation = a.relid
               WHERE a.relid <> c.oid))"
    )
}

/// Makes one table of its memberships: a row is published when any publication publishes it, so one without a
/// filter publishes them all. Fails with the table whose column lists differ.
fn merge(memberships: Vec<Membership>) -> Result<Vec<PublishedTable>, RelationName> {
    let mut tables: BTreeMap<RelationName, (PublishedTable, Vec<Option<String>>)> = BTreeMap::new();
    for membership in memberships {
        let Membership { name, oid, partitioned, columns, row_filter } = membership;
        let (table, filters) = tables.entry(name.clone()).or_insert_with(|| {
            (
                PublishedTable { name, oid, columns: columns.clone(), row_filter: None, partitioned },
                Vec::new(),
            )
        });
        if table.columns != columns {
            return Err(table.name.clone());
        }
        filters.push(row_filter);
    }
    let merged = tables.into_values().map(|(mut table, filters)| {
        // `None` as soon as one publication has no filter.
        let all: Option<Vec<String>> = filters.into_iter().collect();
        table.row_filter = all.map(|filters| {
            let filters: Vec<String> = filters.into_iter().map(|filter| format!("({filter})")).collect();
            filters.join(" OR ")
        });
        table
    });
    Ok(merged.collect())
}

#[cfg(test)]
mod tests {
    use walcast_model::{Oid, RelationName};

    use super::{Membership, merge};

    fn membership(table: &str, columns: &[&str], filter: Option<&str>) -> Membership {
        Membership {
            name: RelationName::new("public", table),
            oid: Oid::new(1),
            partitioned: false,
            columns: columns.iter().map(ToString::to_string).collect(),
            row_filter: filter.map(str::to_owned),
        }
    }

    #[test]
    fn a_row_is_published_when_any_publication_publishes_it() {
        let filter = |filters: &[Option<&str>]| {
            let memberships = filters.iter().map(|filter| membership("t", &["a"], *filter)).collect();
            merge(memberships).unwrap().remove(0).row_filter
        };
        assert_eq!(filter(&[Some("(a > 1)"), Some("(b)")]).as_deref(), Some("((a > 1)) OR ((b))"));
        assert_eq!(filter(&[Some("(a > 1)"), None]), None);
    }

    #[test]
    fn column_lists_that_differ_are_refused() {
        let differ = vec![membership("t", &["a"], None), membership("t", &["a", "b"], None)];
        assert_eq!(merge(differ), Err(RelationName::new("public", "t")));
    }

    #[test]
    fn names_are_quoted_and_children_left_to_themselves() {
        let mut table = merge(vec![membership("T\"x", &["a"], Some("(a > 1)"))]).unwrap().remove(0);
        let expected =
            "COPY (SELECT \"a\", \"b c\" FROM ONLY \"public\".\"T\"\"x\" WHERE (((a > 1)))) TO STDOUT";
        assert_eq!(table.copy_statement(&["\"a\"".into(), "\"b c\"".into()], None), expected);
        let expected =
            "COPY (SELECT \"a\" FROM ONLY \"public\".\"T\"\"x\" WHERE (((a > 1))) AND (b = 2)) TO STDOUT";
        assert_eq!(table.copy_statement(&["\"a\"".into()], Some("b = 2")), expected);
        table.partitioned = true;
        table.row_filter = None;
        assert_eq!(
            table.copy_statement(&["\"a\"".into()], None),
            "COPY (SELECT \"a\" FROM \"public\".\"T\"\"x\") TO STDOUT"
        );
    }
}
