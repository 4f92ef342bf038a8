//! What the caller has acknowledged of a subscription with a `client_id`.
//!
//! The daemon takes a subscription at its word: whoever begins at a cursor has acknowledged everything before it. So a
//! subscription that acknowledges begins, on another connection too, where the caller has acknowledged, and not where the
//! caller was given something: what lies between would be lost with the program. What comes again for that is left out.

use walcast_model::{Cursor, FeedId};
use walcast_protocol::{ErrorCode, ErrorMessage};

use crate::cursor_store::StoredCursor;

/// Where a subscription that acknowledges begins.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// Where the caller was given everything up to: nothing of it waits to be acknowledged.
    Given,
    /// Where the caller acknowledged.
    At(StoredCursor),
    /// With an initial sync: the rows of the last one were not acknowledged.
    Anew,
}

#[derive(Debug, Default)]
pub(super) struct Acknowledging {
    /// Everything before it is acknowledged by the caller.
    stored: Option<StoredCursor>,
    /// After the newest change or row that the caller was given.
    given: Cursor,
    /// After what came last on the present connection; the daemon takes no cursor that is after it.
    sent: Cursor,
    /// What the daemon was told on the present connection.
    told: Cursor,
    /// The caller was given everything before it on an earlier connection.
    again: Cursor,
}

impl Acknowledging {
    /// Of a subscription that goes on from what a [`crate::CursorStore`] has.
    pub(super) fn new(stored: Option<StoredCursor>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Where to begin on a connection to `feed`.
    ///
    /// # Errors
    /// When that is not known any more: only the cursor that the caller was given last tells whether another feed
    /// continues what it has.
    pub(super) fn begin(&self, feed: Option<&FeedId>) -> Result<Begin, Box<ErrorMessage>> {
        match &self.stored {
            stored if self.given <= stored.as_ref().map_or(Cursor::ZERO, |stored| stored.cursor) => {
                Ok(Begin::Given)
            }
            None => Ok(Begin::Anew),
            Some(stored) if feed.is_none_or(|feed| *feed == stored.feed) => Ok(Begin::At(stored.clone())),
            Some(stored) => {
                let message = format!(
                    "the feed {} is another one by now, and changes of it wait to be acknowledged after {}",
                    stored.feed, stored.cursor
                );
                let hint = "discard the copy, and subscribe without a cursor for an initial sync";
                let error = ErrorMessage::new(ErrorCode::FeedChanged, message);
                Err(Box::new(ErrorMessage { hint: Some(hint.to_owned()), ..error }))
            }
        }
    }

    /// It begins at `cursor` of `feed`; the caller has everything before `resume`, if that is later.
    pub(super) fn begun(&mut self, feed: FeedId, cursor: Cursor, resume: Option<&StoredCursor>) {
        self.sent = cursor;
        self.told = cursor;
        self.again = resume.filter(|resume| resume.feed == feed).map_or(Cursor::ZERO, |resume| resume.cursor);
        let newer = self.stored.take().filter(|stored| stored.feed == feed && stored.cursor > cursor);
        self.stored = Some(newer.unwrap_or(StoredCursor::new(feed, cursor)));
    }

    /// An initial sync begins: nothing is acknowledged.
    pub(super) fn begun_anew(&mut self) {
        *self = Self::default();
    }

    /// The daemon has sent everything before `cursor`.
    pub(super) fn sent(&mut self, cursor: Cursor) {
        self.sent = self.sent.max(cursor);
    }

    /// Whether the caller was given everything before `cursor` on an earlier connection.
    pub(super) fn had(&self, cursor: Cursor) -> bool {
        cursor <= self.again
    }

    /// The caller is given changes or rows that end at `cursor`.
    pub(super) fn given(&mut self, cursor: Cursor) {
        self.given = self.given.max(cursor);
    }

    /// The caller has stored everything before `cursor`.
    pub(super) fn acknowledge(&mut self, feed: FeedId, cursor: Cursor) {
        if self.stored.as_ref().is_none_or(|stored| stored.cursor < cursor) {
            self.stored = Some(StoredCursor::new(feed, cursor));
        }
    }

    /// What the daemon is still to be told.
    pub(super) fn untold(&self) -> Option<Cursor> {
        self.stored.as_ref().map(|stored| stored.cursor).filter(|cursor| *cursor > self.told)
    }

    /// What the daemon can be told now; it counts as told.
    pub(super) fn tell(&mut self) -> Option<Cursor> {
        let cursor = self.untold().filter(|cursor| *cursor <= self.sent)?;
        self.told = cursor;
        Some(cursor)
    }

    /// The connection is lost, or the daemon has ended the subscription.
    pub(super) fn disconnect(&mut self) {
        // Nothing can be told until it has begun again.
        self.sent = Cursor::ZERO;
    }
}
