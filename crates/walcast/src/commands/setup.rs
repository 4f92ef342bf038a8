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

mod error;
mod loss;
mod missing;
mod print;
mod publications;
#[cfg(test)]
mod tests;
mod wal_limit;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use walcast_history::{FeedRecord, NewFeed, schema, setup_lock};
use walcast_postgres::{ConnectionConfig, Session};
use walcast_replication::identity::Standing;
use walcast_replication::metrics::ENDED_TOTAL;
use walcast_replication::publication::PublicationSettings;
use walcast_replication::slot::{self, Ensured, SlotFacts, SlotSettings};
use walcast_replication::{ReplicationConnection, ReplicationSettings};

pub(crate) use error::SetupError;
pub(crate) use loss::Loss;
pub(crate) use missing::{look, sessions};
pub(crate) use print::print;
pub(crate) use publications::published;
pub(crate) use wal_limit::wal_limit_note;

use super::doctor::Finding;
use crate::app::may_have_hole;
use crate::settings::ServeSettings;

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

impl Target {
    /// As the settings say.
    pub(crate) fn of(settings: &ServeSettings) -> Self {
        Self {
            source: settings.database.clone(),
            history: settings.history.clone(),
            publication: settings.publication.clone(),
            slot: settings.slot.clone(),
        }
    }
}

/// One thing that was done, or found done, or that a person should know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
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
    /// A daemon that looks at the publications says it itself, once for as long as it is so.
    #[serde(skip)]
    pub(crate) is_standing: bool,
}

impl Note {
    pub(crate) fn changed(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, changed: true, message: message.into(), fix: None, is_standing: false }
    }

    pub(crate) fn unchanged(subject: &'static str, message: impl Into<String>) -> Self {
        Self { changed: false, ..Self::changed(subject, message) }
    }
}

/// Whether an earlier feed is given up: its slot and history are dropped, and clients sync again.
#[derive(Clone, Copy)]
pub(crate) enum StartOver<'a> {
    /// It goes on, or what is in the way is said.
    Never,
    /// The same, for who is to read the slot: a hole that is recorded is for him to judge, who finds out whether it is of the
    /// life that the source lives now.
    Unread,
    /// Whatever its state; a slot that no feed is known for goes too.
    Always,
    /// As [`Unread`](Self::Unread), but given up if it has a hole: its slot shows that, or this says of the feed that is there
    /// that one was found in it.
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
    let mut missing = Vec::new();
    let (mut history, source) = sessions(target).await?;
    if !matches!(start_over, StartOver::Always) {
        // In a database that is not the history nothing is left behind.
        require_feed_or_no_slot(target, &history, &source).await?;
    }
    let has_schema = apply_schema(&mut history, &mut missing, say).await?;
    setup_lock::take(&history).await?;
    let feed = if has_schema { FeedRecord::load(&history, &target.slot.name).await? } else { None };
    let is_over = match start_over {
        StartOver::Never | StartOver::Unread => false,
        StartOver::Always => true,
        StartOver::OnHole(was_found) => feed.as_ref().is_some_and(was_found),
    };
    let feed = feed.filter(|_| !is_over);

    let identity = missing::of_source(&source, target, &mut missing).await?;
    if let (Some(feed), Some(identity)) = (&feed, &identity)
        && feed.system_identifier != identity.system_identifier
    {
        let (expected, found) = (feed.system_identifier.clone(), identity.system_identifier.clone());
        return Err(SetupError::AnotherCluster { expected, found });
    }
    let secret = feed.as_ref().map(|feed| feed.secret.reveal());
    let database = publications::prepare(&source, &target.publication, secret, &mut missing, say).await?;
    let may_log_in = identity.is_some();
    let Some(identity) = identity.filter(|_| missing.is_empty()) else {
        missing.extend(missing::of_tables(&source, &target.publication).await?);
        if let Some(feed) = feed.filter(|_| may_log_in) {
            missing.extend(missing::of_feed(&feed, target, start_over).await?);
        }
        return Err(SetupError::Missing(missing));
    };
    say_unreadable(&source, &target.publication, say).await?;
    let mut gives_up = is_over;
    if let Some(feed) = feed {
        let is_judged = matches!(start_over, StartOver::Never);
        match go_on(target, &history, &source, feed, is_judged, &database, say).await {
            Err(error) if error.is_hole() && matches!(start_over, StartOver::OnHole(_)) => {
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
    } else if let Some(facts) = slot::inspect(&source, &target.slot.name).await? {
        // Refused before it is planned: what is planned may be dropped.
        return Err(slot::without_feed(&facts, &target.slot.name, &database).into());
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

/// Goes on with a feed that is there, as far as its slot has all that it lacks; if that `is_judged`, as far as its record
/// has no hole.
async fn go_on(
    target: &Target,
    history: &Session,
    source: &Session,
    feed: FeedRecord,
    is_judged: bool,
    database: &str,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<FeedRecord, SetupError> {
    // The slot first, and then the position once more: a walcast that runs stores what it acknowledges before it does,
    // so what the slot says is never past what is read after it.
    let facts = slot::inspect(source, &feed.slot).await?;
    let gone = walcast_history::Error::FeedGone { feed: feed.id.clone() };
    let feed = FeedRecord::load(history, &feed.slot).await?.filter(|now| now.id == feed.id).ok_or(gone)?;
    slot::check(facts.as_ref(), &feed.slot, database, feed.position)?;
    if let Some(hole) = feed.hole_with(&target.publication.names()).filter(|_| is_judged)
        && may_have_hole(&feed, &standing(target).await?)
    {
        return Err(SetupError::Hole(hole.clone()));
    }
    say(Note::unchanged("slot", format!("slot {:?} is there", feed.slot)));
    say(Note::unchanged("feed", format!("feed {} goes on from {}", feed.id, feed.position)));
    Ok(feed)
}

/// What the source is, asked as the replicator asks.
async fn standing(target: &Target) -> Result<Standing, SetupError> {
    let settings = ReplicationSettings::default();
    let connecting = ReplicationConnection::connect(&target.source, APPLICATION_NAME, &settings);
    Ok(Box::pin(connecting).await?.standing().await?)
}

/// Before anything is prepared to be served: only when nobody streams from the slot any more is the feed where the one
/// who takes over has to go on.
///
/// # Errors
/// [`walcast_replication::Error::SlotInUse`] while somebody streams from the slot.
pub(crate) async fn require_free_slot(target: &Target) -> Result<(), SetupError> {
    let source = match Session::connect(&target.source, APPLICATION_NAME).await {
        Ok(source) => source,
        // A spare asks the source alone, again and again; what is wrong with the history is said with it.
        Err(error) => return Err(sessions(target).await.err().unwrap_or_else(|| error.into())),
    };
    let slot = &target.slot.name;
    // A slot of another kind will never do, which is said by what looks at it next.
    let facts =
        slot::inspect(&source, slot).await?.filter(|facts| can_be_ours(facts, target.source.database()));
    let holder = match facts {
        Some(_) => slot::holder(&source, slot).await?,
        None => None,
    };
    match holder {
        Some(_) => Err(walcast_replication::Error::SlotInUse { slot: slot.clone(), holder }.into()),
        None => Ok(()),
    }
}

/// Before anything is made: a slot is not taken for new where the history cannot have its feed, as that is elsewhere.
async fn require_feed_or_no_slot(
    target: &Target,
    history: &Session,
    source: &Session,
) -> Result<(), SetupError> {
    let name = &target.slot.name;
    // The slot first: who sets up at the same time makes it after the schema.
    let Some(facts) = slot::inspect(source, name).await? else { return Ok(()) };
    let may_have_feed = match schema::version(history).await {
        Ok(None) => false,
        // What is planned first: it is so until its feed is there.
        Ok(Some(schema::LATEST)) => {
            FeedRecord::is_slot_planned(history, name).await?
                || !matches!(FeedRecord::load(history, name).await, Ok(None))
        }
        // An older one is to be brought up to date first, and what else is wrong is said there.
        Ok(Some(_)) | Err(_) => true,
    };
    if may_have_feed {
        return Ok(());
    }
    Err(slot::without_feed(&facts, name, target.source.database()).into())
}

/// Says which published tables the role cannot read: their changes are in the feed, an initial sync is not to be had.
async fn say_unreadable(
    source: &Session,
    publication: &PublicationSettings,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<(), SetupError> {
    for finding in missing::of_tables(source, publication).await? {
        let subject = if finding.check == "publication" { "publication" } else { "table" };
        say(Note { fix: finding.fix, ..Note::unchanged(subject, finding.message) });
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

/// Returns whether the schema is there; what is missing for it is added to `missing`.
async fn apply_schema(
    history: &mut Session,
    missing: &mut Vec<Finding>,
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
            let (database, role, statement) = print::schema_statement(history).await?;
            missing.push(missing::schema(&database, &role, statement));
            Ok(false)
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
