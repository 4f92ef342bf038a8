//! What the publications publish, also by somebody else's doing: nobody carries the rows that such a table has into the
//! feed.

use std::collections::{BTreeMap, HashMap, HashSet};

use walcast_model::Oid;
use walcast_postgres::Session;

use super::PublicationSettings;
use super::facts::{Facts, PublicationFacts, TableFacts};
use super::plan::{Placement, TableStep, quoted};
use crate::error::Error;

/// What was published at the last look, or by walcast since.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The tables as the feed has them; whether their updates and deletes are published too.
    tables: HashMap<Oid, bool>,
    /// The entries of the publications.
    listed: HashSet<Listed>,
    /// Tables that were published earlier.
    left: HashSet<Oid>,
}

/// An entry of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Listed {
    /// Itself, or the partitioned table that it belongs to.
    Table(Oid),
    Schema(String),
    All,
}

/// What is new about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is new, and published by what was listed before: from its first row on.
    Covered,
    /// Somebody has listed it, or what it belongs to.
    Listed,
    /// It was published for inserts alone, and somebody has listed it for everything.
    Whole,
    /// It was published before, and was not for a while.
    Again,
}

impl Published {
    /// Takes note of what is published now, and returns what is new.
    pub(super) fn see<'a>(&mut self, facts: &'a Facts, names: &[String]) -> Vec<(&'a TableFacts, News)> {
        let mut now = Self::default();
        let mut found: BTreeMap<Oid, (&TableFacts, bool)> = BTreeMap::new();
        for publication in names.iter().filter_map(|name| facts.publication(name)) {
            let is_whole = publication.operations[1] && publication.operations[2];
            // What is listed and what there is are asked one after the other: a table may have come in between, and is told
            // with the next look.
            let known = publication.tables.iter().filter(|oid| facts.table(**oid).is_some());
            now.listed.extend(known.copied().map(Listed::Table));
            now.listed.extend(publication.schemas.iter().cloned().map(Listed::Schema));
            now.listed.extend(publication.all_tables.then_some(Listed::All));
            for table in facts.published_by(publication) {
                let was_listed =
                    listing(publication, table).iter().any(|listed| self.listed.contains(listed));
                let root = table.root.filter(|_| publication.via_root).and_then(|root| facts.table(root));
                let table = root.unwrap_or(table);
                *now.tables.entry(table.oid).or_default() |= is_whole;
                found.entry(table.oid).or_insert((table, false)).1 |= was_listed;
            }
        }
        let news = found.into_values().filter_map(|(table, was_listed)| {
            let is_whole = now.tables.get(&table.oid) == Some(&true);
            let news = match self.tables.get(&table.oid) {
                Some(false) if is_whole => News::Whole,
                Some(_) => return None,
                None if self.left.contains(&table.oid) => News::Again,
                None if was_listed => News::Covered,
                None => News::Listed,
            };
            Some((table, news))
        });
        let news = news.collect();
        now.left = self.left.iter().chain(self.tables.keys()).copied().collect();
        now.left.retain(|oid| !now.tables.contains_key(oid));
        *self = now;
        news
    }

    /// Takes note of a step of walcast's own, which has told of the table and of its rows.
    pub(super) fn take(&mut self, step: &TableStep) {
        if let Some((placement, _)) = &step.enter {
            self.tables.insert(step.oid, *placement == Placement::Whole);
            self.listed.insert(Listed::Table(step.oid));
        }
    }
}

/// Why a publication publishes a table.
fn listing(publication: &PublicationFacts, table: &TableFacts) -> Vec<Listed> {
    let tables = [Some(table.oid), table.root].into_iter().flatten();
    let mut listing: Vec<Listed> =
        tables.filter(|oid| publication.tables.contains(oid)).map(Listed::Table).collect();
    if publication.schemas.contains(&table.name.schema) {
        listing.push(Listed::Schema(table.name.schema.clone()));
    }
    if publication.all_tables {
        listing.push(Listed::All);
    }
    listing
}

/// Whether a table has rows from before it was listed, or any where that is not what counts. Where its rows may not be read,
/// or it is locked, its size on disk decides.
///
/// # Errors
/// When the session is lost.
pub(super) async fn has_old_rows(
    session: &Session,
    table: &TableFacts,
    news: News,
    settings: &PublicationSettings,
) -> Result<bool, Error> {
    let only = if table.partitioned { "" } else { "ONLY " };
    let since = match news {
        // By the transaction that has listed it: what was written after that is in the feed.
        News::Listed => {
            "SELECT coalesce(max(age(r.xmin)), 0) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname::text = ANY ($1) AND r.prrelid = ANY ($2)"
        }
        News::Whole | News::Again | News::Covered => "SELECT 0 WHERE $1::text[] IS NOT NULL AND $2::oid[] IS NOT NULL",
    };
    let by_rows = format!(
        "SELECT EXISTS (SELECT FROM {only}{} AS t WHERE age(t.xmin) > ({since}))",
        quoted(&table.name)
    );
    let oids: Vec<u32> = [Some(table.oid), table.root].into_iter().flatten().map(Oid::get).collect();
    // The tree of a table that is no partition and has none is empty.
    let by_size = "SELECT pg_relation_size(($2::oid[])[1]::regclass) > 0 OR (
                       SELECT coalesce(sum(pg_relation_size(relid)), 0) > 0
                       FROM pg_partition_tree(($2::oid[])[1]::regclass)) WHERE $1::text[] IS NOT NULL";
    for query in [by_rows.as_str(), by_size] {
        let timeout = settings.lock_timeout.as_millis().max(1);
        let begin =
            format!("BEGIN READ ONLY; SET LOCAL lock_timeout = {timeout}; SET LOCAL row_security = off");
        session.batch_execute(&begin).await?;
        let answer = session.query_one(query, &[&settings.names(), &oids]).await;
        session.batch_execute("ROLLBACK").await?;
        match answer {
            Ok(row) => return Ok(row.get(0)),
            Err(error) => {
                let error = walcast_postgres::Error::from(error);
                if error.sqlstate().is_none() || error.is_shutting_down() {
                    return Err(error.into());
                }
                tracing::debug!(table = %table.name, %error, "whether it has old rows cannot be asked");
            }
        }
    }
    // Dropped meanwhile, or locked: it is not said that nothing is missing.
    Ok(true)
}
