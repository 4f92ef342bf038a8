//! What can go wrong between the slot and the feed.

use walcast_model::{Cursor, Lsn};
use walcast_pgoutput::DecodeError;
use walcast_postgres::{ErrorClass, ServerError};

use crate::assemble::AssembleError;
use crate::slot::Blocker;

/// How to begin another feed, and what that costs: the words that follow "run" or "or".
pub const START_OVER: &str = "`walcast setup --start-over`, which drops the slot and the whole history: every client \
                              syncs again, and nothing from before can be replayed";

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
    #[error("replication slot \"{slot}\" does not exist any more: changes after {position} may be missing")]
    SlotMissing {
        /// The slot.
        slot: String,
        /// Up to here the feed is complete.
        position: Cursor,
    },
    /// Postgres has removed WAL that the slot needs, or given the slot up for another reason.
    #[error("replication slot \"{slot}\" is lost ({reason}): changes after {position} are missing")]
    SlotLost {
        /// The slot.
        slot: String,
        /// `invalidation_reason` where the server has it, otherwise what its status means.
        reason: String,
        /// Up to here the feed is complete.
        position: Cursor,
    },
    /// Another connection streams from the slot.
    #[error("replication slot \"{slot}\" is in use{}", pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The server process that holds it.
        pid: Option<i32>,
    },
    /// A slot of this name serves something else.
    #[error("replication slot \"{slot}\" is not walcast's: {reason}")]
    SlotForeign {
        /// The slot.
        slot: String,
        /// What is different.
        reason: String,
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
        "the server is on a timeline {found} that does not follow the timeline {timeline} which the feed has been read from up to {position}"
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
    /// The server left out changes because a publication was missing when they were written (PG 18).
    #[error("the server left out changes because of a missing publication: {message}")]
    PublicationSkipped {
        /// The server's warning.
        message: String,
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
        match self {
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotAhead { .. }
            | Self::PublicationSkipped { .. } => true,
            // Before 18 a slot cannot go past changes that were written while a publication was missing.
            Self::Postgres(error) => error.server_error().is_some_and(is_about_a_missing_publication),
            _ => false,
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
                "run {START_OVER}; a history in another cluster does not fail over with the source, and cannot fall behind its \
                 slot so"
            )),
            Self::SlotMissing { .. } | Self::SlotLost { .. } | Self::PublicationSkipped { .. } => {
                Some(format!("run {START_OVER}"))
            }
            Self::AnotherCluster { .. } | Self::TimelineDiverged { .. } => {
                Some(format!("connect to the right server, or run {START_OVER}"))
            }
            Self::SlotInUse { pid: Some(pid), .. } => Some(format!(
                "stop the other consumer, or run SELECT pg_terminate_backend({pid}); walcast takes over as soon as \
                 the slot is free"
            )),
            Self::SlotForeign { .. } => Some("--slot chooses another name".to_owned()),
            Self::SlotBlocked { blockers, .. } => blockers.first().map(Blocker::hint),
            Self::PublicationMissing { .. } => Some("run `walcast setup`".to_owned()),
            Self::Standby => Some("connect to the primary".to_owned()),
            Self::Postgres(error) => postgres_hint(error),
            Self::SlotInUse { pid: None, .. }
            | Self::Branched { .. }
            | Self::SentDiffers { .. }
            | Self::HistoryUnknown { .. }
            | Self::Decode(_)
            | Self::Assemble(_) => None,
        }
    }
}

fn is_about_a_missing_publication(error: &ServerError) -> bool {
    // The message is translated in part; it is the walsender's only object of that kind.
    error.sqlstate == "42704" && error.message.contains("publication")
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
        "42704" if is_about_a_missing_publication(error) => Some(format!(
            "a publication was missing when changes were written, and this server version cannot go past it: \
             run {START_OVER}"
        )),
        _ => error.hint.clone(),
    }
}
