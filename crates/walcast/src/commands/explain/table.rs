//! The table: whether the feed has it, how much of it, and its definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use walcast_model::{Relation, RelationName, ReplicaIdentity};
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::publication::{
    self, Action, IdentityFacts, Pickup, Placement, Plan, PublicationFacts, PublicationSettings, Selection,
    TableFacts, TableStep,
};
use walcast_snapshot::{Facts, PublishedTable, facts, published_tables};

use super::report::Stage;
use crate::output::{Failure, listed};
use crate::settings::suggestion;

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
        let mut published_names = BTreeSet::new();
        for publication in settings.names() {
            let Some(found) = catalog.publication(&publication) else { continue };
            let tables = published_tables(session, &[publication]).await;
            let tables = tables.map_err(|error| Failure::because(&error))?;
            published_names.extend(tables.iter().map(|table| table.name.clone()));
            publishing
                .extend(tables.into_iter().find(|table| table.name == *name).map(|table| (found, table)));
        }
        let unpublished = || Ok(Self::Unpublished(unpublished(&catalog, settings, name, &published_names)));
        let Some((_, table)) = publishing.first() else { return unpublished() };
        let found = walcast_postgres::catalog::relation(session, table.oid)
            .await
            .map_err(|error| Failure::because(&error))?;
        let Some(found) = found else { return unpublished() };
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

/// Why the feed does not have it. `published`: what it has.
fn unpublished(
    facts: &publication::Facts,
    settings: &PublicationSettings,
    name: &RelationName,
    published: &BTreeSet<RelationName>,
) -> Stage {
    let names = settings.names().join(" and ");
    let Some(table) = facts.tables.iter().find(|table| table.name == *name) else {
        return Stage::drops("publication", format!("there is no table {name}")).hint(meant(name, published));
    };
    let partition = facts.tables.iter().find(|other| table.partitioned && other.root == Some(table.oid));
    if let Some(partition) = partition {
        let message = format!("{name} is partitioned, and the feed has its partitions under their own names");
        return Stage::drops("publication", message).hint(format!("ask for one, such as {}", partition.name));
    }
    let root = facts.tables.iter().find(|other| table.root == Some(other.oid));
    if let Some(root) = root.filter(|root| published.contains(&root.name)) {
        let message =
            format!("{name} is a partition, and the feed has its rows under the name {}", root.name);
        return Stage::drops("publication", message).hint(format!("ask for {}", root.name));
    }
    Stage::drops("publication", format!("{name} exists, and is not in the publications ({names})"))
        .hint(publishes(facts, settings, table))
}

/// Tables that are named; there may be hundreds.
const NAMED_MAX: usize = 3;

/// Which of the published tables may be meant.
fn meant(name: &RelationName, published: &BTreeSet<RelationName>) -> String {
    let is_same = |other: &&RelationName| {
        other.table.eq_ignore_ascii_case(&name.table)
            || other.to_string().eq_ignore_ascii_case(&name.to_string())
    };
    let mut near: Vec<String> = published.iter().filter(is_same).map(ToString::to_string).collect();
    if near.is_empty() {
        let names: Vec<String> = published.iter().map(ToString::to_string).collect();
        near.extend(suggestion(&name.to_string(), names.iter().map(String::as_str)).map(str::to_owned));
    }
    if near.is_empty() {
        // In whatever schema.
        let word = suggestion(&name.table, published.iter().map(|other| other.table.as_str()));
        near.extend(
            published.iter().filter(|other| Some(other.table.as_str()) == word).map(ToString::to_string),
        );
    }
    let spelled = "as the catalog spells it: schema.table, case counts";
    if !near.is_empty() {
        near.truncate(NAMED_MAX);
        return format!("did you mean {}? Write it {spelled}", near.join(" or "));
    }
    if published.is_empty() {
        return "nothing is published yet: run walcast setup".to_owned();
    }
    let published: Vec<&RelationName> = published.iter().collect();
    format!("write it {spelled}; published are {}", listed(&published))
}

/// What publishes a table that is there.
fn publishes(facts: &publication::Facts, settings: &PublicationSettings, table: &TableFacts) -> String {
    let name = &table.name;
    let plan = Plan::by_hand(facts, settings);
    let is_it = |action: &Action| matches!(action, Action::Table(step) if step.oid == table.oid);
    if let Some(step) = plan.steps.iter().find(|step| is_it(&step.action)) {
        let statements = step.action.statements().join(" ");
        return match step.allowed {
            true => format!("walcast setup, or walcast serve while it runs, does it: {statements}"),
            false => format!("an administrator has to run it: {statements}"),
        };
    }
    if !table.permanent {
        let quoted = format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.table));
        return format!(
            "it is unlogged or temporary, so its changes are in no WAL: ALTER TABLE {quoted} SET LOGGED;"
        );
    }
    if settings.manage {
        return match settings.selection {
            Selection::Listed(_) => format!("add {name} to the setting tables: walcast publishes it then"),
            _ if table.extension => {
                format!(
                    "it belongs to an extension: walcast publishes it only where the setting tables names {name}"
                )
            }
            _ => "walcast doctor says why".to_owned(),
        };
    }
    let enter = Some((Placement::Whole, settings.name.clone()));
    let (oid, partitioned, pickup) = (table.oid, table.partitioned, Pickup::None);
    let step = TableStep { oid, name: name.clone(), partitioned, enter, leave: Vec::new(), pickup };
    let statements = step.statements().join(" ");
    if table.identity == IdentityFacts::Usable {
        return format!("the publications are not managed (no_manage); this publishes it: {statements}");
    }
    format!(
        "the publications are not managed (no_manage); give it a primary key or a replica identity, without which its UPDATE \
         and DELETE would fail, then this publishes it: {statements}"
    )
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

#[cfg(test)]
mod tests {
    use walcast_model::RelationName;

    use super::meant;

    #[test]
    fn the_nearest_tables_that_are_published_are_named() {
        let said = |name: &str, published: &[&str]| {
            let name: RelationName = name.parse().unwrap();
            meant(&name, &published.iter().map(|name| name.parse().unwrap()).collect())
        };
        let published = ["public.orders", "public.customers", "shop.products", "shop.prices", "public.Lines"];
        for (name, near) in [
            ("public.order", "public.orders"),
            ("public.products", "shop.products"),
            ("public.product", "shop.products"),
            ("public.lines", "public.Lines"),
            ("PUBLIC.ORDERS", "public.orders"),
        ] {
            let told = said(name, &published);
            assert!(told.starts_with(&format!("did you mean {near}? ")), "{told}");
        }
        let told = said("public.files", &["a.files", "b.files", "c.files", "d.files"]);
        assert!(told.starts_with("did you mean a.files or b.files or c.files? "), "{told}");
        let told = said("public.nosuch", &published);
        assert!(
            told.ends_with("published are public.Lines, public.customers, public.orders and 2 more"),
            "{told}"
        );
        assert!(said("public.nosuch", &[]).contains("run walcast setup"));
    }
}
