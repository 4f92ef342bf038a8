//! The history: reachable, of this program's version, and of this feed.

use walcast_history::{Error, FeedRecord, schema};
use walcast_model::Cursor;
use walcast_postgres::Session;

use super::finding::Finding;
use super::{Target, connection_finding, size, unanswered};

/// What was found at the history's Postgres.
#[derive(Debug)]
pub(crate) struct HistoryFacts {
    /// It is the source database itself.
    same_database: bool,
    /// Where it is, for people; never with a password.
    place: String,
    answer: Result<Answer, Finding>,
}

#[derive(Debug)]
struct Answer {
    encoding: String,
    role: String,
    may_create: bool,
    in_recovery: bool,
    /// How the schema is; `Ok` when it is the one that this program needs.
    schema: Result<(), Error>,
    feed: Option<FeedRecord>,
    bytes: u64,
    /// The slot of the feed that is there, when it is another.
    foreign: Option<Error>,
}

/// Asks the history; also where its feed stands, when it has one for this slot.
pub(crate) async fn examine(target: &Target) -> (HistoryFacts, Option<Cursor>) {
    let same_database = target.history == target.source;
    let place = if same_database { "the source database".to_owned() } else { target.history.to_string() };
    let answer = match Session::connect(&target.history, "walcast doctor").await {
        Ok(session) => ask(&session, &target.slot.name).await,
        Err(error) => Err(connection_finding("history", &error)),
    };
    let position = answer.as_ref().ok().and_then(|answer| Some(answer.feed.as_ref()?.position));
    (HistoryFacts { same_database, place, answer }, position)
}

/// Up to where the feed is stored now; `None` when there is no feed, or the history cannot be asked.
pub(super) async fn position(target: &Target) -> Option<Cursor> {
    let session = Session::connect(&target.history, "walcast doctor").await.ok()?;
    FeedRecord::load(&session, &target.slot.name).await.ok()?.map(|feed| feed.position)
}

async fn ask(session: &Session, slot: &str) -> Result<Answer, Finding> {
    let failed = |error: walcast_postgres::Error| unanswered("history", &error);
    let row = session
        .query_one(
            "SELECT current_setting('server_encoding'), current_user::text,
                    has_database_privilege(current_database(), 'CREATE'), pg_is_in_recovery()",
            &[],
        )
        .await
        .map_err(|error| failed(error.into()))?;
    let schema = schema::check(session).await;
    let (mut feed, mut foreign, mut bytes) = (None, None, 0);
    if schema.is_ok() {
        match FeedRecord::load(session, slot).await {
            Ok(found) => feed = found,
            Err(error) => foreign = Some(error),
        }
        let sql = "SELECT coalesce(sum(pg_total_relation_size(oid::oid)), 0)::int8 FROM walcast.partition";
        let row = session.query_one(sql, &[]).await.map_err(|error| failed(error.into()))?;
        bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    }
    Ok(Answer {
        encoding: row.get(0),
        role: row.get(1),
        may_create: row.get(2),
        in_recovery: row.get(3),
        schema,
        feed,
        bytes,
        foreign,
    })
}

impl HistoryFacts {
    /// Whether the feed comes from another cluster than the source.
    pub(crate) fn cluster_finding(&self, system_identifier: &str) -> Option<Finding> {
        let feed = self.answer.as_ref().ok()?.feed.as_ref()?;
        (feed.system_identifier != system_identifier).then(|| {
            let message = format!(
                "the source is cluster {system_identifier}, and the history's feed comes from {}",
                feed.system_identifier
            );
            let fix = "let --database-url name the cluster of the feed, or: walcast setup --start-over";
            Finding::error("cluster", message, fix)
        })
    }

    /// What they mean.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let answer = match &self.answer {
            Ok(answer) => answer,
            Err(finding) => return vec![finding.clone()],
        };
        let mut findings = Vec::new();
        if answer.in_recovery && !self.same_database {
            let message = "the history's Postgres is a standby: nothing can be stored";
            findings.push(Finding::error("history", message, "let --history-url name a primary"));
        }
        if answer.encoding != "UTF8" {
            let message = format!("the encoding of the history's database is {}, not UTF8", answer.encoding);
            findings.push(Finding::error(
                "history_encoding",
                message,
                "let --history-url name a UTF8 database",
            ));
        }
        findings.push(self.schema_finding(answer));
        findings.extend(answer.foreign.as_ref().map(|error| {
            Finding::error(
                "history_feed",
                error.to_string(),
                "choose that slot with --slot, or another --history-url",
            )
        }));
        if let Some(feed) = &answer.feed {
            let (id, position, bytes) = (&feed.id, feed.position, size(answer.bytes));
            let message = format!("feed {id} is stored up to {position} in {}: {bytes}", self.place);
            findings.push(Finding::ok("history_feed", message));
        } else if answer.schema.is_ok() && answer.foreign.is_none() {
            findings.push(Finding::error("history_feed", "the history has no feed yet", "walcast setup"));
        }
        findings
    }

    fn schema_finding(&self, answer: &Answer) -> Finding {
        match &answer.schema {
            Ok(()) => {
                Finding::ok("history_schema", format!("schema walcast is at version {}", schema::LATEST))
            }
            Err(Error::SchemaMissing) if !answer.may_create => {
                let role = walcast_postgres::quote_identifier(&answer.role);
                let message = format!(
                    "there is no schema walcast in {}, and role {role} may not create it",
                    self.place
                );
                let fix = format!("CREATE SCHEMA walcast AUTHORIZATION {role}; then walcast setup");
                Finding::error("history_schema", message, fix)
            }
            Err(error @ Error::SchemaNewer { .. }) => {
                Finding::error("history_schema", error.to_string(), "run the newer walcast")
            }
            Err(Error::SchemaMissing) => {
                let message = format!("there is no schema walcast in {} yet", self.place);
                Finding::error("history_schema", message, "walcast setup")
            }
            Err(error) => Finding::error("history_schema", error.to_string(), "walcast setup"),
        }
    }
}
