//! What can go wrong with the history, and how to react to it.

use walcast_model::{Cursor, FeedId};
use walcast_postgres::ErrorClass;

/// The SQLSTATE that `walcast.advance` raises when the position is not where the caller believes it to be, or another
/// process has claimed the feed.
pub(crate) const FENCED_SQLSTATE: &str = "WC001";
/// The SQLSTATE that `walcast.advance` raises when the last change that was stored is not there any more.
pub(crate) const MISSING_SQLSTATE: &str = "WC002";
/// `lock_not_available`: a lock was not had within `lock_timeout`.
pub(crate) const LOCKED_SQLSTATE: &str = "55P03";

/// What failed, and what to do. [`Error::class`] says how to react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The history's Postgres could not be reached or reported an error.
    #[error("the history could not {doing}: {source}")]
    Postgres {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        source: walcast_postgres::Error,
    },
    /// There is no schema `walcast`.
    #[error("the history's database has no schema walcast of walcast's making: run `walcast setup`")]
    SchemaMissing,
    /// The schema is older than this program needs.
    #[error("the history's schema has version {found} and this walcast needs {needed}: run `walcast setup`")]
    SchemaOlder {
        /// The version that was found.
        found: u32,
        /// The version of this program.
        needed: u32,
    },
    /// The schema was made by a newer walcast.
    #[error(
        "the history's schema has version {found}, of a newer walcast than this one (which knows {known}): run that one"
    )]
    SchemaNewer {
        /// The version that was found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The history already belongs to a feed of another slot.
    #[error(
        "the history holds the feed of slot {slot:?}, and a history holds one feed: use that slot, another --history-url, \
         or `walcast teardown` first"
    )]
    SlotDiffers {
        /// The slot of the feed that is there.
        slot: String,
    },
    /// The feed's record is not there any more: the history was removed or started over.
    #[error("the history no longer knows feed {feed}: it was removed or started over; restart walcast")]
    FeedGone {
        /// The feed that was being stored.
        feed: FeedId,
    },
    /// Another process has claimed the feed since this one had.
    #[error("another walcast has taken over feed {feed}{}; stop one of the two", moved(.expected, .found, "this one had brought it to"))]
    Fenced {
        /// The feed.
        feed: FeedId,
        /// Where this process left it.
        expected: Cursor,
        /// Where it is.
        found: Cursor,
    },
    /// The feed's record is not as it was when this process began with it: a predecessor's last commit came, or another
    /// process has claimed the feed and is gone again.
    #[error(
        "the record of feed {feed} is not as it was when it was read{}; it has to be read again",
        moved(.expected, .found, "then it stood at")
    )]
    MovedOn {
        /// The feed.
        feed: FeedId,
        /// Where it was.
        expected: Cursor,
        /// Where it is.
        found: Cursor,
    },
    /// The history stands before where this process has brought it.
    #[error(
        "the history of feed {feed} went back from {expected} to {found}: its Postgres lost commits, because it was \
         restored or a standby took over; restart walcast, which finds out what that means for the feed"
    )]
    WentBack {
        /// The feed.
        feed: FeedId,
        /// Where this process left it.
        expected: Cursor,
        /// Where it is.
        found: Cursor,
    },
    /// Stored changes are not there any more, and retention has not dropped them.
    #[error(
        "rows of change_history are missing that were stored in feed {feed}: they were deleted, or a partition was dropped \
         by hand; restart walcast, which gives up what is before them: clients that lack any of them get cursor_too_old \
         and sync again"
    )]
    Missing {
        /// The feed.
        feed: FeedId,
    },
    /// The feed no longer holds what follows the stored position.
    #[error("the feed begins at {oldest}, after the stored position {position}")]
    FeedAhead {
        /// The stored position.
        position: Cursor,
        /// The oldest position in the feed.
        oldest: Cursor,
    },
    /// Retention has dropped what follows the cursor.
    #[error("history begins at {oldest}, after the cursor {cursor}")]
    TooOld {
        /// The cursor that was asked for.
        cursor: Cursor,
        /// The oldest that can be served.
        oldest: Cursor,
    },
    /// Retention has dropped transactions that a snapshot of the source may not see.
    #[error(
        "history no longer has all that was committed since the snapshot {snapshot} was taken; take another one, and \
         if that happens again raise history_retention or history_bytes_max"
    )]
    SnapshotTooOld {
        /// The snapshot.
        snapshot: String,
    },
    /// Stored changes do not follow each other as they were written.
    #[error(
        "the history has a hole at {at}: it was changed by hand or its Postgres lost data; restore it, or \
         start over: stop walcast first, then run `walcast setup --start-over --yes`, which drops the slot and the history"
    )]
    Hole {
        /// Where something is missing.
        at: Cursor,
    },
    /// A stored value is not what walcast stores.
    #[error("the history holds an unreadable {what}: {problem}")]
    Unreadable {
        /// What it is.
        what: &'static str,
        /// Why it cannot be read; no row values.
        problem: String,
    },
}

/// Where the history of a feed stands that somebody else may have moved; `before` says what stood at `expected`.
fn moved(expected: &Cursor, found: &Cursor, before: &str) -> String {
    if expected == found {
        return format!(": another process has claimed it, and its history still stands at {found}");
    }
    format!(": its history stands at {found}, and {before} {expected}")
}

impl Error {
    /// How to react: try again, have a person act, or report a bug.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Postgres { source, .. } => source.class(),
            Self::SchemaMissing
            | Self::SchemaOlder { .. }
            | Self::SchemaNewer { .. }
            | Self::SlotDiffers { .. }
            | Self::FeedGone { .. }
            | Self::Fenced { .. }
            | Self::WentBack { .. }
            | Self::TooOld { .. }
            | Self::SnapshotTooOld { .. }
            | Self::Missing { .. }
            | Self::Hole { .. } => ErrorClass::Operator,
            Self::MovedOn { .. } => ErrorClass::Transient,
            Self::FeedAhead { .. } | Self::Unreadable { .. } => ErrorClass::Bug,
        }
    }

    /// What is in the way, without what it kept from being done: the same for all that it keeps.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Postgres { source, .. } => source.to_string(),
            error => error.to_string(),
        }
    }

    /// What a person can do about it; `None` where the message says it, or nothing is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Postgres { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Whether storing this feed is over for this process, so that trying again is of no use.
    #[must_use]
    pub const fn ends_the_feed(&self) -> bool {
        matches!(
            self,
            Self::Fenced { .. }
                | Self::MovedOn { .. }
                | Self::WentBack { .. }
                | Self::FeedGone { .. }
                | Self::Missing { .. }
                | Self::FeedAhead { .. }
                | Self::SchemaNewer { .. }
        )
    }

    /// The SQLSTATE the server reported, when it reported one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres { source, .. } => source.sqlstate(),
            _ => None,
        }
    }
}

/// Says what was being done when Postgres failed.
pub(crate) trait Doing<T> {
    /// `doing` completes "the history could not …".
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<walcast_postgres::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Postgres { doing, source: source.into() })
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn};

    use super::Error;

    #[test]
    fn a_position_is_compared_only_with_another_one() {
        let at = |lsn| Cursor::from(Lsn::new(lsn));
        let feed = || "f".parse().unwrap();
        let fenced = |found| Error::Fenced { feed: feed(), expected: at(1), found }.to_string();
        assert!(
            fenced(at(2)).contains(": its history stands at 0/2, and this one had brought it to 0/1; stop")
        );
        let same = ": another process has claimed it, and its history still stands at 0/1; ";
        assert!(fenced(at(1)).contains(same), "{}", fenced(at(1)));
        let moved_on = |found| Error::MovedOn { feed: feed(), expected: at(1), found }.to_string();
        assert!(moved_on(at(2)).contains(": its history stands at 0/2, and then it stood at 0/1; "));
        assert!(moved_on(at(1)).contains(same));
    }
}
