//! The history: reachable, of this program's version, and of this feed.

use walcast_history::{Error, FeedRecord, schema};
use walcast_postgres::Session;
use walcast_replication::START_OVER;
use walcast_replication::identity::{self, Continuity, Standing};

use super::finding::Finding;
use super::fix::Fix;
use super::slot::StoredFeed;
use super::{Target, connection_finding, size, unanswered};
use crate::app::{may_have_hole, origin};

/// What was found at the history's Postgres.
#[derive(Debug)]
pub(crate) struct HistoryFacts {
    /// It is the source database itself.
    same_database: bool,
    /// Where it is, for people; never with a password.
    place: String,
    /// With which publications the slot is read.
    publications: Vec<String>,
    answer: Result<Answer, Finding>,
}

#[derive(Debug)]
struct Answer {
    encoding: String,
    role: String,
    /// Whether the role may make the schema's tables.
    may_create: bool,
    /// Whether a schema of the name is there, of whatever version.
    has_schema: bool,
    in_recovery: bool,
    /// How the schema is; `Ok` when it is the one that this program needs.
    schema: Result<(), Error>,
    feed: Option<FeedRecord>,
    /// Whether the last change that was stored is there.
    is_whole: bool,
    bytes: u64,
    /// The slot of the feed that is there, when it is another.
    foreign: Option<Error>,
}

/// Asks the history.
pub(crate) async fn examine(target: &Target) -> HistoryFacts {
    let same_database = target.history == target.source;
    let place = if same_database { "the source database".to_owned() } else { target.history.to_string() };
    let answer = match Session::connect(&target.history, "walcast doctor").await {
        Ok(session) => ask(&session, &target.slot.name).await,
        Err(error) => {
            let mut finding = connection_finding("history", &error);
            finding.message = format!("the history: {}", finding.message);
            Err(finding)
        }
    };
    HistoryFacts { same_database, place, publications: target.publication.names(), answer }
}

async fn ask(session: &Session, slot: &str) -> Result<Answer, Finding> {
    let failed = |error: walcast_postgres::Error| unanswered("history", &error);
    let row = session
        .query_one(
            "SELECT current_setting('server_encoding'), current_user::text,
                    coalesce(s.owned, has_database_privilege(current_database(), 'CREATE')),
                    pg_is_in_recovery(), s.owned IS NOT NULL
             FROM (VALUES (1)) AS one LEFT JOIN (
                 SELECT pg_has_role(nspowner, 'USAGE') AS owned FROM pg_namespace WHERE nspname = 'walcast'
             ) AS s ON true",
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
    let is_whole = match &feed {
        // Also when it cannot be asked: that is found by what else is asked.
        Some(feed) => feed.is_whole(session).await.unwrap_or(true),
        None => true,
    };
    Ok(Answer {
        encoding: row.get(0),
        role: row.get(1),
        may_create: row.get(2),
        in_recovery: row.get(3),
        has_schema: row.get(4),
        schema,
        feed,
        is_whole,
        bytes,
        foreign,
    })
}

/// What a server is to a feed, as a finding.
fn judged(judged: Result<Continuity, walcast_replication::Error>, feed: &FeedRecord) -> Finding {
    const SERVE: &str = "start walcast serve: it continues the feed as another one, without a gap";
    let (id, position) = (&feed.id, feed.position);
    match judged {
        Ok(Continuity::Unbroken) => {
            Finding::ok("identity", format!("the source is the server that feed {id} was read from"))
        }
        Ok(Continuity::Restarted) => {
            let message = format!(
                "the source was started again since feed {id} was read from it; walcast serve compares what it has"
            );
            Finding::ok("identity", message)
        }
        Ok(Continuity::Promoted { at }) => {
            let lost = if position > at.into() { "; history has changes behind that" } else { "" };
            let message = format!(
                "the source was promoted: it left the timeline of feed {id} at {at}{lost}; clients with a cursor \
                 behind that sync again"
            );
            Finding::warning("identity", message, SERVE)
        }
        Ok(Continuity::WentBack { flushed }) => {
            let message = format!(
                "the source went back: its WAL ends at {flushed}, and feed {id} has had it up to {position}; clients \
                 with a later cursor than its slot's sync again"
            );
            Finding::warning("identity", message, SERVE)
        }
        Err(error) => {
            let fix = error.hint().unwrap_or_else(|| "connect to the right server".to_owned());
            Finding::error("identity", error.to_string(), fix)
        }
    }
}

impl HistoryFacts {
    /// The feed that it has for the slot.
    pub(crate) fn feed(&self) -> StoredFeed {
        match &self.answer {
            Ok(Answer { feed: Some(feed), .. }) => StoredFeed::To(feed.position),
            Ok(Answer { schema: Ok(()), foreign: None, .. }) => StoredFeed::None,
            // The tables of a schema of its own it would see.
            Ok(Answer { schema: Err(Error::SchemaMissing), may_create, has_schema, .. })
                if *may_create || !has_schema =>
            {
                StoredFeed::None
            }
            Ok(_) | Err(_) => StoredFeed::Unknown,
        }
    }

    /// Where its feed is stored to now: later than when it was asked before, while a walcast runs.
    pub(super) async fn feed_now(&self, target: &Target) -> StoredFeed {
        let asked = async {
            let session = Session::connect(&target.history, "walcast doctor").await.ok()?;
            FeedRecord::load(&session, &target.slot.name).await.ok()?
        };
        asked.await.map_or_else(|| self.feed(), |feed| StoredFeed::To(feed.position))
    }

    /// Whether the source has what the feed was read from. `None` without a feed.
    pub(crate) fn source_finding(&self, standing: &Standing) -> Option<Finding> {
        let feed = self.answer.as_ref().ok()?.feed.as_ref()?;
        Some(judged(identity::judge(&origin(feed), standing, feed.position), feed))
    }

    /// That changes are missing for good. `standing`: the source, where it says what it is.
    pub(super) fn hole_finding(&self, standing: Option<&Standing>) -> Option<Finding> {
        let feed = self.answer.as_ref().ok()?.feed.as_ref()?;
        let hole = feed.hole_with(&self.publications)?;
        let is_there = standing.is_none_or(|standing| may_have_hole(feed, standing));
        is_there.then(|| Finding::error("feed_hole", hole.to_string(), START_OVER))
    }

    /// What they mean. `source_is_away`: it has been said that the source cannot be connected to.
    pub(crate) fn findings(&self, source_is_away: bool) -> Vec<Finding> {
        let answer = match &self.answer {
            Ok(answer) => answer,
            // One database that is away is one finding.
            Err(_) if self.same_database && source_is_away => return Vec::new(),
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
        if !answer.is_whole {
            let message = "rows of change_history are missing that were stored: they were deleted, or a partition was \
                           dropped by hand";
            let fix = "restart walcast serve, which gives up what is before them: clients that lack any of them get \
                       cursor_too_old and sync again";
            findings.push(Finding::error("history_rows", message, fix));
        }
        if let Some(feed) = &answer.feed {
            let (id, position, bytes) = (&feed.id, feed.position, size(answer.bytes));
            let message = format!("feed {id} is stored up to {position} in {}: {bytes}", self.place);
            findings.push(Finding::ok("history_feed", message));
        } else if answer.schema.is_ok() && answer.foreign.is_none() {
            findings.push(Finding::note("history_feed", "the history has no feed yet"));
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
                let (message, statement) = if answer.has_schema {
                    let message = format!("schema walcast in {} is not of role {role}", self.place);
                    (message, format!("ALTER SCHEMA walcast OWNER TO {role};"))
                } else {
                    let message = format!(
                        "there is no schema walcast in {}, and role {role} may not create it",
                        self.place
                    );
                    (message, format!("CREATE SCHEMA walcast AUTHORIZATION {role};"))
                };
                let fix = Fix::sql(statement).then(Fix::run("walcast setup"));
                Finding::error("history_schema", message, fix)
            }
            Err(error @ Error::SchemaNewer { .. }) => {
                Finding::error("history_schema", error.to_string(), "run the newer walcast")
            }
            Err(Error::SchemaMissing) => {
                let state = if answer.has_schema { "has no tables yet" } else { "is not there yet" };
                Finding::note("history_schema", format!("schema walcast in {} {state}", self.place))
            }
            Err(error @ Error::SchemaOlder { .. }) if answer.may_create => {
                Finding::note("history_schema", error.to_string())
            }
            Err(error @ Error::SchemaOlder { .. }) => {
                let fix = Fix::from("as the role that owns schema walcast:").then(Fix::run("walcast setup"));
                Finding::error("history_schema", error.to_string(), fix)
            }
            Err(error) => Finding::error(
                "history_schema",
                error.to_string(),
                error.hint().unwrap_or_else(|| "see the message, then try again".to_owned()),
            ),
        }
    }
}
