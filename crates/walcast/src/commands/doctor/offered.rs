//! The tables that clients may ask for, by the names that the feed has.

use std::collections::BTreeMap;

use walcast_model::RelationName;
use walcast_postgres::Session;
use walcast_protocol::TablePattern;
use walcast_replication::publication::{Facts, PublicationSettings};
use walcast_snapshot::{PublishedTable, published_tables};

use super::finding::Finding;
use crate::output::{count, listed};

const CHECK: &str = "tables";
/// Tables that are named; of more their number is said.
const NAMED_MAX: usize = 30;

/// Names them, where there are any. That publications contradict one another is said where they are looked at.
pub(super) async fn findings(
    session: &Session,
    facts: &Facts,
    settings: &PublicationSettings,
) -> Vec<Finding> {
    match published_tables(session, &settings.names()).await {
        Ok(tables) if !tables.is_empty() => of_tables(&tables, facts, settings),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn of_tables(tables: &[PublishedTable], facts: &Facts, settings: &PublicationSettings) -> Vec<Finding> {
    let named = tables.iter().take(NAMED_MAX).map(|table| match operations(table, facts, settings) {
        Some(operations) => format!("{} ({operations})", table.name),
        None => table.name.to_string(),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match tables.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more: the view pg_publication_tables has all"),
    };
    let message = format!("clients can ask for {}: {named}{more}", count(tables.len() as u64, "table"));
    let mut findings = vec![Finding::ok(CHECK, message)];
    findings.extend(by_partitions(tables, facts));
    findings.extend(by_roots(tables));
    findings
}

/// What is published of a table, where that is not everything.
fn operations(table: &PublishedTable, facts: &Facts, settings: &PublicationSettings) -> Option<&'static str> {
    let root = facts.table(table.oid).and_then(|table| table.root);
    let names = settings.names();
    let publications = names.iter().filter_map(|name| facts.publication(name));
    let schema = &table.name.schema;
    let mut publishing = publications.filter(|publication| {
        let lists = |oid| publication.tables.contains(oid);
        publication.all_tables
            || publication.schemas.contains(schema)
            || lists(&table.oid)
            || root.as_ref().is_some_and(lists)
    });
    let has_updates = publishing.any(|publication| publication.operations[1] && publication.operations[2]);
    (!has_updates).then_some("no updates and deletes")
}

/// Partitioned tables of which the feed has the partitions.
fn by_partitions(tables: &[PublishedTable], facts: &Facts) -> Option<Finding> {
    let mut roots: BTreeMap<&RelationName, Vec<&RelationName>> = BTreeMap::new();
    for table in tables {
        let root = facts.table(table.oid).and_then(|table| facts.table(table.root?));
        roots.entry(root.map_or(&table.name, |root| &root.name)).or_default().push(&table.name);
    }
    roots.retain(|root, partitions| !partitions.contains(root));
    let each: Vec<String> =
        roots.iter().map(|(root, partitions)| format!("{root} ({})", listed(partitions))).collect();
    let first = roots.keys().next()?;
    let message = format!(
        "partitioned tables are in the feed as their partitions: clients ask for those, not for {}; {} has \
         those of the future too",
        listed(&each),
        TablePattern::Schema(first.schema.clone())
    );
    Some(Finding::ok(CHECK, message))
}

/// Partitioned tables that the feed has as themselves.
fn by_roots(tables: &[PublishedTable]) -> Option<Finding> {
    let roots: Vec<&RelationName> =
        tables.iter().filter(|table| table.partitioned).map(|table| &table.name).collect();
    (!roots.is_empty()).then(|| {
        let message = format!(
            "partitioned tables that the publication publishes as their root (publish_via_partition_root): clients ask \
             for {}, not for partitions",
            listed(&roots)
        );
        Finding::ok(CHECK, message)
    })
}
