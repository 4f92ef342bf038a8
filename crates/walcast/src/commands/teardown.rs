//! `walcast teardown`: takes back what `walcast setup` made, after saying what that is.

use serde::Serialize;
use walcast_history::{FeedRecord, schema};
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::publication::{Facts, Selection};
use walcast_replication::slot;

use super::doctor::size;
use super::setup::{Note, SetupError, Target, can_be_ours, require_free_slot, sessions};

const APPLICATION_NAME: &str = "walcast teardown";
/// What an administrator runs where the role may not drop the history.
const DROP_SCHEMA: &str = "DROP SCHEMA walcast CASCADE;";

/// What there is to be dropped.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Belongings {
    /// The slot, when it is there.
    pub(crate) slot: Option<String>,
    /// WAL that it keeps, in bytes.
    pub(crate) retained_bytes: u64,
    /// The publications that are there.
    pub(crate) publications: Vec<String>,
    /// Whether schema `walcast` is there.
    pub(crate) schema: bool,
    /// The feed whose history is in it.
    pub(crate) feed: Option<String>,
    /// What of that walcast's role may not drop: each with the database that an administrator has to run it in.
    pub(crate) administrator: Vec<Statement>,
    /// What has one of the names and is not walcast's, so it stays.
    pub(crate) foreign: Vec<String>,
}

/// Something for an administrator to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Statement {
    pub(crate) database: String,
    pub(crate) sql: String,
}

impl Statement {
    fn text(&self) -> String {
        format!("-- in database {}\n{}", self.database, self.sql)
    }
}

impl Belongings {
    /// Looks for them.
    ///
    /// # Errors
    /// When a database cannot be asked, and when the history belongs to the feed of another slot.
    pub(crate) async fn find(target: &Target) -> Result<Self, SetupError> {
        let mut found = Self::default();
        let (history, source) = sessions(target).await?;
        let facts = Facts::read(&source).await?;
        found.find_slot(&source, &target.slot.name, &facts.database).await?;
        found.find_publications(target, &facts);
        if schema::version(&history).await?.is_some() {
            found.schema = true;
            let sql = "SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'walcast'";
            let owned = history.query_opt(sql, &[]).await?.map(|row| row.try_get(0)).transpose()?;
            if owned == Some(false) {
                found.for_administrator(target.history.database(), DROP_SCHEMA.to_owned());
            }
            found.feed = FeedRecord::load(&history, &target.slot.name).await?.map(|feed| feed.id.to_string());
        }
        Ok(found)
    }

    async fn find_slot(&mut self, source: &Session, name: &str, database: &str) -> Result<(), SetupError> {
        let Some(facts) = slot::inspect(source, name).await? else { return Ok(()) };
        if !can_be_ours(&facts, database) {
            self.foreign.push(format!("slot {name:?} (another plugin or database)"));
            return Ok(());
        }
        self.slot = Some(name.to_owned());
        self.retained_bytes =
            facts.retained_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        Ok(())
    }

    fn find_publications(&mut self, target: &Target, facts: &Facts) {
        let all_tables_wanted = target.publication.selection == Selection::ForAllTables;
        for name in target.publication.names() {
            let Some(publication) = facts.publication(&name) else { continue };
            let foreign = publication.all_tables != all_tables_wanted || !publication.schemas.is_empty();
            if !target.publication.manage || foreign {
                self.foreign.push(format!("publication {name:?} (not made by walcast)"));
                continue;
            }
            if !publication.owned {
                let sql = format!("DROP PUBLICATION IF EXISTS {};", quote_identifier(&name));
                self.for_administrator(&facts.database, sql);
            }
            self.publications.push(name);
        }
    }

    fn for_administrator(&mut self, database: &str, sql: String) {
        self.administrator.push(Statement { database: database.to_owned(), sql });
    }

    fn may_drop(&self, sql: &str) -> bool {
        self.administrator.iter().all(|statement| statement.sql != sql)
    }

    /// Whether there is nothing to drop.
    pub(crate) fn is_empty(&self) -> bool {
        self.slot.is_none() && self.publications.is_empty() && !self.schema
    }

    /// What is said of each, for people; at last what stays.
    pub(crate) fn lines(&self) -> Vec<String> {
        let slot = self.slot.iter().map(|slot| {
            format!(
                "replication slot {slot:?} (the {} of WAL that it keeps are released)",
                size(self.retained_bytes)
            )
        });
        let publications = self.publications.iter().map(|publication| format!("publication {publication:?}"));
        let feed = self.feed.as_deref().map_or_else(String::new, |feed| format!(" of feed {feed}"));
        let schema = self.schema.then(|| format!("schema walcast, with the whole change_history{feed}"));
        let kept = self.foreign.iter().map(|foreign| format!("kept: {foreign}"));
        let administrator = self.administrator.iter().map(|statement| {
            let Statement { database, sql } = statement;
            format!("for an administrator, as this role may not, in database {database}:\n  SQL: {sql}")
        });
        slot.chain(publications).chain(schema).chain(kept).chain(administrator).collect()
    }

    /// Drops them: the slot first, since a slot without its publications cannot be read and still keeps WAL.
    ///
    /// # Errors
    /// While somebody streams from the slot, before anything is dropped. After a failure what was dropped until then is
    /// gone, and the next run goes on. What the role may not drop stays, and the error has the statements for who may.
    pub(crate) async fn remove(
        &self,
        target: &Target,
        say: &mut (dyn FnMut(Note) + Send),
    ) -> Result<(), SetupError> {
        require_free_slot(target).await?;
        let source = Session::connect(&target.source, APPLICATION_NAME).await?;
        if let Some(name) = &self.slot {
            slot::drop(&source, name).await?;
            say(Note::changed("slot", format!("slot {name:?} is dropped")));
        }
        for name in &self.publications {
            let statement = format!("DROP PUBLICATION IF EXISTS {};", quote_identifier(name));
            if self.may_drop(&statement) {
                source.batch_execute(&statement).await?;
                say(Note::changed("publication", format!("publication {name:?} is dropped")));
            }
        }
        if self.schema && self.may_drop(DROP_SCHEMA) {
            let mut history = Session::connect(&target.history, APPLICATION_NAME).await?;
            schema::remove(&mut history).await?;
            say(Note::changed("schema", "schema walcast is dropped"));
        }
        if self.administrator.is_empty() {
            return Ok(());
        }
        let statements = self.administrator.iter().map(Statement::text).collect();
        Err(SetupError::LeftOver { statements })
    }
}
