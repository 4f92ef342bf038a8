//! `walcast setup`: has everything there that the feed stands on, and says what it did.
//!
//! ```text
//! schema walcast (history) ► publications (source) ► slot ► feed record
//! ```
//!
//! In this order, because a slot that is older than its publications cannot be read (reference 1.7), and because the
//! feed begins where the slot does. Each step finds out first whether it is done already. What the role may not do is
//! collected over all steps, so that an administrator has to act once. Single tables that it may not publish do not
//! stop the others: they are said with the statement that adds them.

mod print;
mod publications;
#[cfg(test)]
mod tests;
mod wal_limit;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use walcast_history::{FeedRecord, NewFeed, schema};
use walcast_postgres::{ConnectionConfig, ErrorClass, Session, quote_identifier};
use walcast_replication::metrics::ENDED_TOTAL;
use walcast_replication::publication::PublicationSettings;
use walcast_replication::slot::{self, Ensured, SlotFacts, SlotSettings};
use walcast_replication::{ReplicationConnection, ReplicationSettings};

pub(crate) use print::print;
pub(crate) use publications::published;
pub(crate) use wal_limit::wal_limit_note;

use super::doctor::{Severity, TableAccess, access_findings};

/// The name of setup's sessions in `pg_stat_activity`.
const APPLICATION_NAME: &str = "walcast setup";
/// How long open transactions are waited for before the slot is given up, each try of which is bounded by
/// [`SlotSettings::lock_timeout`].
const SLOT_WAIT_MAX: Duration = Duration::from_secs(60);

/// What is set up, looked at and torn down.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The source.
    pub(crate) source: ConnectionConfig,
    /// The history's Postgres; the source itself when not said otherwise.
    pub(crate) history: ConnectionConfig,
    /// Which tables are published, and how.
    pub(crate) publication: PublicationSettings,
    /// The slot.
    pub(crate) slot: SlotSettings,
}

/// One thing that was done, or found done, or that a person should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Note {
    /// `schema`, `publication`, `table`, `slot`, `feed`.
    pub(crate) subject: &'static str,
    /// Whether anything was changed.
    pub(crate) changed: bool,
    /// What, for people.
    pub(crate) message: String,
    /// The statement that mends it, where something should be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Note {
    pub(crate) fn changed(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, changed: true, message: message.into(), fix: None }
    }

    pub(crate) fn unchanged(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, changed: false, message: message.into(), fix: None }
    }
}

/// Why the feed's foundations are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// An administrator has to run these first; then setup goes on.
    #[error("an administrator must run these statements first, then run walcast setup again:\n{}", statements.join("\n"))]
    Administrator {
        /// Each with the database it belongs to, as a comment.
        statements: Vec<String>,
    },
    /// The server's WAL cannot be decoded.
    #[error("the source has wal_level = {found}, and not logical")]
    WalLevel {
        /// What is set.
        found: String,
    },
    /// Torn down, but for what the role may not drop.
    #[error("the rest is dropped; an administrator must run:\n{}", statements.join("\n"))]
    LeftOver {
        /// Each with the database it belongs to, as a comment.
        statements: Vec<String>,
    },
    /// The feed that is there comes from another cluster.
    #[error("the history's feed comes from cluster {expected}, and the source is cluster {found}")]
    AnotherCluster {
        /// The feed's.
        expected: String,
        /// The source's.
        found: String,
    },
    /// A Postgres cannot be reached or refused.
    #[error("{0}")]
    Postgres(#[from] walcast_postgres::Error),
    /// Slot or publications.
    #[error("{0}")]
    Replication(#[from] walcast_replication::Error),
    /// The history.
    #[error("{0}")]
    History(#[from] walcast_history::Error),
}

impl From<tokio_postgres::Error> for SetupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl SetupError {
    /// How to react.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Administrator { .. }
            | Self::LeftOver { .. }
            | Self::WalLevel { .. }
            | Self::AnotherCluster { .. } => ErrorClass::Operator,
            Self::Postgres(error) => error.class(),
            Self::Replication(error) => error.class(),
            Self::History(error) => error.class(),
        }
    }

    /// Whether nothing is in the way but another consumer of the slot.
    pub(crate) const fn is_slot_in_use(&self) -> bool {
        matches!(self, Self::Replication(walcast_replication::Error::SlotInUse { .. }))
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::AnotherCluster { .. } => Some(
                "connect to the right server, or run walcast setup --start-over: clients sync again"
                    .to_owned(),
            ),
            Self::WalLevel { .. } => {
                Some("run ALTER SYSTEM SET wal_level = logical; and restart Postgres".to_owned())
            }
            Self::Replication(error) => error.hint(),
            Self::Postgres(error) => error.server_error().and_then(|error| error.hint.clone()),
            Self::Administrator { .. } | Self::LeftOver { .. } | Self::History(_) => None,
        }
    }
}

/// Whether an earlier feed is given up: its slot and history are dropped, and clients sync again.
#[derive(Clone, Copy)]
pub(crate) enum StartOver<'a> {
    /// It goes on, or what is in the way is said.
    Never,
    /// Whatever its state; a slot that no feed is known for goes too.
    Always,
    /// If it has a hole: its slot shows that, or this says of the feed that is there that one was found in it.
    OnHole(&'a (dyn Fn(&FeedRecord) -> bool + Sync)),
}

/// Has schema, publications, slot and feed there. What `start_over` decides, it decides of the feed that is there while
/// nobody else sets one up. `say` is told of each step when it is done.
///
/// # Errors
/// What is in the way; what was done until then stays, and the next run goes on from there.
pub(crate) async fn prepare(
    target: &Target,
    start_over: StartOver<'_>,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<FeedRecord, SetupError> {
    let mut administrator = Vec::new();
    let mut history = Session::connect(&target.history, APPLICATION_NAME).await?;
    let has_schema = apply_schema(&mut history, &mut administrator, say).await?;
    // One setup of a history at a time, until its session ends: two would take each other's slot for a left-over.
    history.execute("SELECT pg_advisory_lock(hashtext('walcast'), hashtext('setup'))", &[]).await?;
    let feed = if has_schema { FeedRecord::load(&history, &target.slot.name).await? } else { None };
    let is_over = match start_over {
        StartOver::Never => false,
        StartOver::Always => true,
        StartOver::OnHole(was_found) => feed.as_ref().is_some_and(was_found),
    };
    let feed = feed.filter(|_| !is_over);

    let source = Session::connect(&target.source, APPLICATION_NAME).await?;
    require_logical(&source).await?;
    let identity = identify(&target.source, &mut administrator).await?;
    if let (Some(feed), Some(identity)) = (&feed, &identity)
        && feed.system_identifier != identity.system_identifier
    {
        let (expected, found) = (feed.system_identifier.clone(), identity.system_identifier.clone());
        return Err(SetupError::AnotherCluster { expected, found });
    }
    let secret = feed.as_ref().map(|feed| feed.secret.reveal());
    let database =
        publications::prepare(&source, &target.publication, secret, &mut administrator, say).await?;
    let Some(identity) = identity.filter(|_| administrator.is_empty()) else {
        return Err(SetupError::Administrator { statements: administrator });
    };
    say_unreadable(&source, &target.publication, say).await?;
    let mut gives_up = is_over;
    if let Some(feed) = feed {
        match go_on(&history, &source, feed, &database, say).await {
            Err(SetupError::Replication(error))
                if error.is_hole() && matches!(start_over, StartOver::OnHole(_)) =>
            {
                tracing::error!(%error, "changes are missing, or may be");
                gives_up = true;
            }
            gone_on => return gone_on,
        }
    }
    if gives_up {
        if matches!(start_over, StartOver::OnHole(_)) {
            tracing::error!("the feed is started over: clients get feed_changed, and its history is dropped");
            metrics::counter!(ENDED_TOTAL, "reason" => "start_over").increment(1);
        }
        drop_slot(&source, &target.slot.name, &database, say).await?;
    }
    if FeedRecord::is_slot_planned(&history, &target.slot.name).await? {
        // Left by a setup that was interrupted before the feed's record: nobody has read from it.
        drop_slot(&source, &target.slot.name, &database, say).await?;
    } else if slot::inspect(&source, &target.slot.name).await?.is_some() {
        // Refused before it is planned: what is planned may be dropped.
        let reason =
            "it exists, and this history has no feed for it; run `walcast setup --start-over` to drop it";
        let slot = target.slot.name.clone();
        return Err(walcast_replication::Error::SlotForeign { slot, reason: reason.to_owned() }.into());
    }
    FeedRecord::plan_slot(&history, &target.slot.name).await?;
    let created = match ensure_slot(&source, &target.slot, &database, say).await? {
        Ensured::Created(at) => at,
        // Not returned without a feed.
        Ensured::Existing => Default::default(),
    };
    say(Note::changed("slot", format!("slot {:?} is created at {created}", target.slot.name)));
    let new = NewFeed {
        slot: target.slot.name.clone(),
        database,
        system_identifier: identity.system_identifier,
        timeline: identity.timeline.into(),
        position: created,
    };
    match FeedRecord::create(&mut history, &new).await {
        Ok(feed) => {
            say(Note::changed("feed", format!("feed {} begins at {created}", feed.id)));
            Ok(feed)
        }
        Err(error) => {
            // A slot without a feed only keeps WAL; when it cannot be dropped either, the first error says more.
            let _ = slot::drop(&source, &target.slot.name).await;
            Err(error.into())
        }
    }
}

/// Goes on with a feed that is there, as far as its slot has all that it lacks.
async fn go_on(
    history: &Session,
    source: &Session,
    feed: FeedRecord,
    database: &str,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<FeedRecord, SetupError> {
    // The slot first, and then the position once more: a walcast that runs stores what it acknowledges before it does,
    // so what the slot says is never past what is read after it.
    let facts = slot::inspect(source, &feed.slot).await?;
    let gone = walcast_history::Error::FeedGone { feed: feed.id.clone() };
    let feed = FeedRecord::load(history, &feed.slot).await?.filter(|now| now.id == feed.id).ok_or(gone)?;
    slot::check(facts.as_ref(), &feed.slot, database, feed.position)?;
    say(Note::unchanged("slot", format!("slot {:?} is there", feed.slot)));
    say(Note::unchanged("feed", format!("feed {} goes on from {}", feed.id, feed.position)));
    Ok(feed)
}

/// Before anything is prepared to be served: only when nobody streams from the slot any more is the feed where the one
/// who takes over has to go on.
///
/// # Errors
/// [`walcast_replication::Error::SlotInUse`] while somebody streams from the slot.
pub(crate) async fn require_free_slot(target: &Target) -> Result<(), SetupError> {
    let source = Session::connect(&target.source, APPLICATION_NAME).await?;
    let slot = &target.slot.name;
    // A slot of another kind will never do, which is said by what looks at it next.
    let facts =
        slot::inspect(&source, slot).await?.filter(|facts| can_be_ours(facts, target.source.database()));
    match facts.and_then(|facts| facts.active_pid) {
        Some(pid) => Err(walcast_replication::Error::SlotInUse { slot: slot.clone(), pid: Some(pid) }.into()),
        None => Ok(()),
    }
}

/// Says which published tables the role cannot read: their changes are in the feed, an initial sync is not to be had.
async fn say_unreadable(
    source: &Session,
    publication: &PublicationSettings,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<(), SetupError> {
    let role: String = source.query_one("SELECT current_user::text", &[]).await?.try_get(0)?;
    let access = match TableAccess::gather(source, &publication.names()).await {
        Ok(access) => access,
        Err(walcast_snapshot::Error::Source(error)) => return Err(error.into()),
        Err(error) => {
            say(Note::unchanged("publication", error.to_string()));
            return Ok(());
        }
    };
    for finding in access_findings(&access, &role).into_iter().filter(|found| found.severity != Severity::Ok)
    {
        say(Note { fix: finding.fix, ..Note::unchanged("table", finding.message) });
    }
    Ok(())
}

/// Drops the slot of the old feed, if there is one and it can have been walcast's.
async fn drop_slot(
    source: &Session,
    name: &str,
    database: &str,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<(), SetupError> {
    let Some(facts) = slot::inspect(source, name).await? else { return Ok(()) };
    if !can_be_ours(&facts, database) {
        let reason = "it has another plugin or database, so it stays".to_owned();
        return Err(walcast_replication::Error::SlotForeign { slot: name.to_owned(), reason }.into());
    }
    slot::drop(source, name).await?;
    say(Note::changed("slot", format!("slot {name:?} of an earlier feed is dropped")));
    Ok(())
}

/// Whether a slot is of the kind that walcast makes in this database: only such a one is ever dropped.
pub(crate) fn can_be_ours(facts: &SlotFacts, database: &str) -> bool {
    facts.plugin.as_deref() == Some("pgoutput") && facts.database.as_deref() == Some(database)
}

async fn require_logical(source: &Session) -> Result<(), SetupError> {
    let found: String = source.query_one("SELECT current_setting('wal_level')", &[]).await?.try_get(0)?;
    if found == "logical" { Ok(()) } else { Err(SetupError::WalLevel { found }) }
}

/// Returns whether the schema is there; what is missing for it is added to `administrator`.
async fn apply_schema(
    history: &mut Session,
    administrator: &mut Vec<String>,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<bool, SetupError> {
    match schema::apply(history).await {
        Ok(applied) if applied.is_empty() => {
            say(Note::unchanged("schema", format!("schema walcast is at version {}", schema::LATEST)));
            Ok(true)
        }
        Ok(applied) => {
            let versions: Vec<String> = applied.iter().map(ToString::to_string).collect();
            say(Note::changed("schema", format!("schema walcast: applied version {}", versions.join(", "))));
            Ok(true)
        }
        Err(error) if error.sqlstate() == Some("42501") => {
            let (database, statement) = print::schema_statement(history).await?;
            administrator.push(format!("-- in database {database}\n{statement}"));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Which cluster the source is, asked by a replication connection: the same log-in as the replicator's. `None` when
/// the role may not have one; what it lacks is added to `administrator`.
async fn identify(
    source: &ConnectionConfig,
    administrator: &mut Vec<String>,
) -> Result<Option<walcast_replication::SystemIdentity>, SetupError> {
    let settings = ReplicationSettings::default();
    match ReplicationConnection::connect(source, APPLICATION_NAME, &settings).await {
        Ok(mut connection) => Ok(Some(connection.identify_system().await?)),
        // An SQL session was had with the same password, so it is the role's attribute or pg_hba.conf.
        Err(error) if matches!(error.sqlstate(), Some("42501" | "28000")) => {
            let role = quote_identifier(source.user());
            administrator.push(format!(
                "-- {error}\nALTER ROLE {role} REPLICATION; -- on RDS: GRANT rds_replication TO {role};\n\
                 -- and let pg_hba.conf have a line for database {} and this role",
                source.database()
            ));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn ensure_slot(
    source: &Session,
    settings: &SlotSettings,
    database: &str,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<Ensured, SetupError> {
    let end = Instant::now() + SLOT_WAIT_MAX;
    loop {
        match slot::ensure(source, settings, database, None).await {
            Ok(ensured) => return Ok(ensured),
            Err(error @ walcast_replication::Error::SlotBlocked { .. }) if Instant::now() < end => {
                let mut note = Note::unchanged("slot", error.to_string());
                note.fix = error.hint();
                say(note);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
