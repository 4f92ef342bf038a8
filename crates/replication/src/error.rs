//! What can go wrong between the slot and the feed.

use walcast_model::{Cursor, Lsn};
use walcast_pgoutput::DecodeError;
use walcast_postgres::{ErrorClass, ServerError};

use crate::assemble::AssembleError;
use crate::replicator::LastingHole;
use crate::slot::{Blocker, Holder};

/// How to begin another feed, and what that costs: a clause that may follow "or".
pub const START_OVER: &str = "stop walcast first, then run `walcast setup --start-over --yes`, which drops the slot and the \
                              whole history: every client syncs again, and nothing from before can be replayed";

/// Why the slot does not stream, or a publication or slot is not as it should be. [`Error::class`] says how to
/// react, [`Error::hint`] what a person can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Postgres, or the way there.
    #[error(transparent)]
    Postgres(#[from] walcast_postgres::Error),
    /// Bytes of the stream are not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The stream's messages do not fit together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The feed's slot is gone.
    #[error("replication slot \"{slot}\" does not exist any more: changes{} may be missing", after(position))]
    SlotMissing {
        /// The slot.
        slot: String,
        /// Up to here the feed is complete.
        position: Cursor,
    },
    /// Postgres has removed WAL that the slot needs, or given the slot up for another reason.
    #[error("replication slot \"{slot}\" is lost ({reason}): changes{} are missing", after(position))]
    SlotLost {
        /// The slot.
        slot: String,
        /// `invalidation_reason` where the server has it, otherwise what its status means.
        reason: String,
        /// Up to here the feed is complete.
        position: Cursor,
    },
    /// Another connection streams from the slot.
    #[error("replication slot \"{slot}\" is in use{}", holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default())]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The server process that holds it.
        holder: Option<Holder>,
    },
    /// A slot of this name serves something else.
    #[error("replication slot \"{slot}\" is not walcast's: {reason}")]
    SlotForeign {
        /// The slot.
        slot: String,
        /// What is different.
        reason: String,
    },
    /// The slot is there, and the history that was named has no feed for it: what it was acknowledged for is not known.
    #[error("replication slot \"{slot}\" exists, and this history has no feed for it")]
    SlotWithoutFeed {
        /// The slot.
        slot: String,
    },
    /// The slot stands past what the feed has: somebody else acknowledged or advanced it, or the history is not where it
    /// was. walcast itself acknowledges only what is in history.
    #[error(
        "replication slot \"{slot}\" is at {confirmed}, past what history has: changes from {position} on are missing. \
         Somebody else advanced it, or the history went back: it was restored, or failed over together with the source \
         and lost its last commit"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// `confirmed_flush_lsn`.
        confirmed: Lsn,
        /// Up to here the feed is complete.
        position: Cursor,
    },
    /// The slot cannot be created while transactions are open.
    #[error("replication slot \"{slot}\" waits for open transactions: {}", list(blockers))]
    SlotBlocked {
        /// The slot.
        slot: String,
        /// Who holds a transaction open, oldest first; empty when they ended meanwhile.
        blockers: Vec<Blocker>,
    },
    /// The server is not the one that the feed was made from.
    #[error("this Postgres cluster has system identifier {found}, the feed comes from {expected}")]
    AnotherCluster {
        /// The feed's.
        expected: String,
        /// The server's.
        found: String,
    },
    /// The server's timeline has never been on the feed's: the old primary after a failover, or another standby that was
    /// promoted too.
    #[error(
        "the server is on {} timeline {found} that does not follow the timeline {timeline} which the feed has been read from up to {position}",
        // Two standbys that were promoted apart from each other call their timelines the same.
        if found == timeline { "another" } else { "a" }
    )]
    TimelineDiverged {
        /// The timeline the feed was on.
        timeline: u32,
        /// The server's.
        found: u32,
        /// What the feed has reached.
        position: Cursor,
    },
    /// What the feed has delivered may not have happened at the server as it is now: the feed has to be continued by
    /// another one.
    #[error("{why}")]
    Branched {
        /// What was found.
        why: String,
    },
    /// The slot sends other transactions than it sent before.
    #[error(
        "the server sends other transactions from {at} on than those that the feed has had of it up to {position}: it was \
         restored from a backup"
    )]
    SentDiffers {
        /// The first that differs.
        at: Lsn,
        /// Up to here the feed has transactions.
        position: Cursor,
    },
    /// The history does not say what it has of a server that was started again, so that server cannot be compared with it.
    #[error(
        "the server was started again, and history does not say what it has of it, so the two cannot be compared: {reason}"
    )]
    HistoryUnknown {
        /// Why, for people.
        reason: String,
    },
    /// A publication was missing when changes were written. The server looks it up in the catalog of then, so that it is
    /// there again helps nothing: before 18 the slot cannot be read past them, from 18 on they are left out.
    #[error("changes are missing: {}", unpublished(message))]
    Unpublished {
        /// The publication.
        publication: String,
        /// The server's words.
        message: String,
    },
    /// The feed is another one by now, or another process's: nothing that its slot shows concerns this process.
    #[error(
        "the feed of replication slot \"{slot}\" was started over, or another walcast has it: its record is read again"
    )]
    Overtaken {
        /// The slot.
        slot: String,
    },
    /// Another process sets the feed up, and may be about to begin another one.
    #[error(
        "the feed of replication slot \"{slot}\" is being set up by another walcast, which is waited for"
    )]
    BeingSetUp {
        /// The slot.
        slot: String,
    },
    /// A publication that the slot is to read does not exist.
    #[error("publication \"{publication}\" does not exist")]
    PublicationMissing {
        /// The publication.
        publication: String,
    },
    /// Nothing can be set up on a standby.
    #[error("the server is a standby: publications and slots are managed on its primary")]
    Standby,
}

/// From where on, as far as a position is known at all.
fn after(position: &Cursor) -> String {
    if *position == Cursor::MAX { String::new() } else { format!(" after {position}") }
}

fn unpublished(message: &str) -> String {
    format!("a publication was missing when they were written ({message})")
}

fn list(blockers: &[Blocker]) -> String {
    if blockers.is_empty() {
        return "they have ended meanwhile".to_owned();
    }
    blockers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl Error {
    /// How to react. Nothing here ends the daemon: also what needs a person is tried again, as that person may have
    /// acted.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Postgres(error) => error.class(),
            Self::SlotInUse { .. }
            | Self::SlotBlocked { .. }
            | Self::Branched { .. }
            | Self::SentDiffers { .. }
            | Self::Overtaken { .. }
            | Self::BeingSetUp { .. }
            | Self::HistoryUnknown { .. } => ErrorClass::Transient,
            Self::Decode(_) | Self::Assemble(_) => ErrorClass::Bug,
            _ => ErrorClass::Operator,
        }
    }

    /// What the server reported, when it reported anything.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Changes are missing, or may be, and no later try brings them: only another feed can go on.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        matches!(
            self,
            Self::SlotMissing { .. }
                | Self::SlotLost { .. }
                | Self::SlotAhead { .. }
                | Self::Unpublished { .. }
        )
    }

    /// What is missing, where that is so whatever server is read and however often, and where nobody sees it but who reads
    /// the slot. Slots are seen by all, and may be there on another server.
    pub(crate) fn lasting_hole(&self, complete_to: Lsn) -> Option<LastingHole> {
        match self {
            Self::Unpublished { publication, message } => Some(LastingHole {
                complete_to,
                publication: publication.clone(),
                reason: unpublished(message),
            }),
            _ => None,
        }
    }

    /// The server is going down or not up yet: connections to it are to be given up at once.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.is_shutting_down())
    }

    /// What a person can do about it: one sentence, with the command or statement.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SlotAhead { .. } => Some(format!(
                "{START_OVER}; a history in another cluster does not fail over with the source, and cannot fall behind its \
                 slot so"
            )),
            Self::SlotMissing { .. } | Self::SlotLost { .. } | Self::Unpublished { .. } => {
                Some(START_OVER.to_owned())
            }
            Self::AnotherCluster { .. } | Self::TimelineDiverged { .. } => {
                Some(format!("connect to the right server, or {START_OVER}"))
            }
            Self::SlotInUse { holder: Some(holder), .. } => Some(holder.hint()),
            Self::SlotForeign { .. } => Some("--slot chooses another name".to_owned()),
            // The feed may be a healthy one: what ends it comes last.
            Self::SlotWithoutFeed { .. } => Some(format!(
                "name the history that has its feed with --history-url (it may be in another database or cluster), or choose \
                 another slot with --slot; only if that feed is to be given up: {START_OVER}"
            )),
            Self::SlotBlocked { blockers, .. } => blockers.first().map(Blocker::hint),
            Self::PublicationMissing { .. } => Some("run `walcast setup`".to_owned()),
            Self::Standby => Some("connect to the primary".to_owned()),
            Self::Postgres(error) => postgres_hint(error),
            Self::SlotInUse { holder: None, .. }
            | Self::Overtaken { .. }
            | Self::BeingSetUp { .. }
            | Self::Branched { .. }
            | Self::SentDiffers { .. }
            | Self::HistoryUnknown { .. }
            | Self::Decode(_)
            | Self::Assemble(_) => None,
        }
    }
}

fn postgres_hint(error: &walcast_postgres::Error) -> Option<String> {
    error.server_error().and_then(slot_hint).or_else(|| error.hint())
}

/// What the server says of slots and publications, and of what walcast asks of it.
fn slot_hint(error: &ServerError) -> Option<String> {
    let message = error.message.as_str();
    match error.sqlstate.as_str() {
        // The message is translated, the setting's name is not.
        "55000" if message.contains("wal_level") => {
            Some("ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres".to_owned())
        }
        "53400" if message.contains("slot") => {
            Some("raise max_replication_slots and restart Postgres, or drop a slot nobody uses".to_owned())
        }
        "42501" => {
            Some("run `walcast setup --print` and have an administrator run what it prints".to_owned())
        }
        _ => error.hint.clone(),
    }
}
