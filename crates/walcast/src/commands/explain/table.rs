//! The table: whether the feed has it, how much of it, and its definition.

use std::sync::Arc;

use walcast_model::{Relation, RelationName, ReplicaIdentity};
use walcast_postgres::Session;
use walcast_replication::publication::{self, PublicationFacts, PublicationSettings};
use walcast_snapshot::{Facts, PublishedTable, facts, published_tables};

use super::report::Stage;
use crate::output::Failure;

/// One table of the source, as far as it is there.
#[derive(Debug)]
pub(super) enum Table {
    /// The feed does not have it, for this reason.
    Unpublished(Stage),
    /// The feed has it.
    Published {
        /// Its definition, as a change that is written now would have it.
        relation: Arc<Relation>,
        facts: Facts,
        stages: Vec<Stage>,
    },
}

impl Table {
    pub(super) async fn find(
        session: &Session,
        settings: &PublicationSettings,
        name: &RelationName,
    ) -> Result<Self, Failure> {
        let catalog = publication::Facts::read(session).await.map_err(|error| Failure::because(&error))?;
        let mut publishing: Vec<(&PublicationFacts, PublishedTable)> = Vec::new();
        for publication in settings.names() {
            let Some(found) = catalog.publication(&publication) else { continue };
            let tables = published_tables(session, &[publication]).await;
            let tables = tables.map_err(|error| Failure::because(&error))?;
            publishing
                .extend(tables.into_iter().find(|table| table.name == *name).map(|table| (found, table)));
        }
        let Some((_, table)) = publishing.first() else {
            return Ok(Self::Unpublished(unpublished(&catalog, settings, name)));
        };
        let found = walcast_postgres::catalog::relation(session, table.oid)
            .await
            .map_err(|error| Failure::because(&error))?;
        let Some(found) = found else {
            return Ok(Self::Unpublished(unpublished(&catalog, settings, name)));
        };
        let columns = table.columns.iter().filter_map(|column| found.column(column));
        let columns = columns.map(|column| column.definition(found.identity)).collect();
        let relation = Arc::new(Relation::new(found.oid, found.name.clone(), found.identity, columns));
        let own = facts(session, table.oid).await.map_err(|error| Failure::because(&error))?;
        let stages = vec![published(&publishing, &relation), identity(&relation)];
        Ok(Self::Published { relation, facts: own, stages })
    }

    pub(super) fn stages(&self) -> Vec<Stage> {
        match self {
            Self::Unpublished(stage) => vec![stage.clone()],
            Self::Published { stages, .. } => stages.clone(),
        }
    }
}

fn unpublished(facts: &publication::Facts, settings: &PublicationSettings, name: &RelationName) -> Stage {
    let names = settings.names().join(" and ");
    let Some(table) = facts.tables.iter().find(|table| table.name == *name) else {
        return Stage::drops("publication", format!("there is no table {name}"))
            .hint("write it as the catalog spells it: schema.table, case counts");
    };
    let partition = facts.tables.iter().find(|other| table.partitioned && other.root == Some(table.oid));
    if let Some(partition) = partition {
        let message = format!("{name} is partitioned, and the feed has its partitions under their own names");
        return Stage::drops("publication", message).hint(format!("ask for one, such as {}", partition.name));
    }
    Stage::drops("publication", format!("{name} is not in the publications ({names})"))
        .hint("walcast doctor says why, and what publishes it")
}

fn published(publishing: &[(&PublicationFacts, PublishedTable)], relation: &Relation) -> Stage {
    let names: Vec<&str> = publishing.iter().map(|(publication, _)| publication.name.as_str()).collect();
    let words = ["insert", "update", "delete", "truncate"];
    let published = |index: usize| {
        publishing.iter().any(|(publication, _)| publication.operations.get(index) == Some(&true))
    };
    let operations: Vec<&str> =
        words.iter().enumerate().filter(|(index, _)| published(*index)).map(|(_, word)| *word).collect();
    let names = names.join(" and ");
    let restricted =
        publishing.iter().any(|(publication, _)| publication.restricted.contains(&relation.oid()));
    let stage = if operations.len() == words.len() {
        Stage::keeps("publication", format!("{names} publishes it, every operation"))
    } else {
        let message = format!("{names} publishes of it only {}", operations.join(", "));
        Stage::keeps("publication", message)
            .hint("for updates and deletes it needs a replica identity: walcast doctor has the statement")
    };
    if restricted {
        return stage.hint("the publication has a row filter or a column list of its own; what it leaves out is not in the feed");
    }
    stage
}

fn identity(relation: &Relation) -> Stage {
    let keys: Vec<&str> =
        relation.columns().iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    let carried = if keys.is_empty() {
        "it has no key, so updates and deletes carry nothing of the old row".to_owned()
    } else {
        format!("updates and deletes carry the old {}", keys.join(", "))
    };
    let message = match relation.identity() {
        ReplicaIdentity::Default => format!("replica identity default: {carried}"),
        ReplicaIdentity::Index => format!("replica identity by an index: {carried}"),
        ReplicaIdentity::Full => {
            "replica identity full: updates and deletes carry the whole old row".to_owned()
        }
        ReplicaIdentity::Nothing => {
            "replica identity nothing: updates and deletes carry nothing of the old row".to_owned()
        }
    };
    Stage::notes("publication", message)
}
