//! Subscriptions whose rights changed while their client was away.
//!
//! Changes from a cursor on are judged by the rights of now. A copy that was made under others holds what its client may no
//! longer have, and is not told of its deletes, or lacks what it may have since. So it begins again from nothing: on the same
//! connection, because the others go on.

use walcast_protocol::{
    ClientMessage, ErrorCode, Mode, ServerMessage, StartAt, Subscribed, SubscriptionId, Unsubscribe,
};

use super::{Session, State, Step};
use crate::cursor_store::StoredCursor;
use walcast_model::{Cursor, FeedId};

impl Session {
    /// Whether `message` is of a subscription as it was before it was started over. The daemon answers in order: what comes
    /// before the next `subscribed` was on its way.
    pub(super) fn is_stale(&self, message: &ServerMessage) -> bool {
        let stale = |id: &SubscriptionId| self.subscriptions.get(id).is_some_and(|state| state.stale);
        match message {
            ServerMessage::Relation(relation) => stale(&relation.id),
            ServerMessage::Snapshot(rows) => stale(&rows.id),
            ServerMessage::SnapshotComplete(done) => stale(&done.id),
            ServerMessage::Transaction(part) => stale(&part.id),
            ServerMessage::CaughtUp(caught_up) => stale(&caught_up.id),
            ServerMessage::Acked(acked) => stale(&acked.id),
            // About the cursor that is asked for no more.
            ServerMessage::Error(error) => {
                let is_of_cursor = matches!(
                    error.code,
                    ErrorCode::CursorTooOld | ErrorCode::CursorAhead | ErrorCode::FeedChanged
                );
                is_of_cursor && error.id.as_ref().is_some_and(stale)
            }
            _ => false,
        }
    }
}

impl State {
    /// The place after which the caller goes on, under the rights that it has.
    pub(super) fn at(&self, feed: FeedId, cursor: Cursor) -> StoredCursor {
        StoredCursor { feed, cursor, rights: self.rights.clone().flatten() }
    }

    /// Whether it goes on from what was made under other rights than it has now.
    pub(super) fn has_other_rights(&self, subscribed: &Subscribed) -> bool {
        subscribed.mode != Mode::Snapshot && self.rights.as_ref().is_some_and(|had| *had != subscribed.rights)
    }

    /// Begins from nothing, in place of what the daemon has just begun.
    pub(super) fn start_over(&mut self) -> Step {
        self.disconnect();
        (self.resume, self.rights) = (None, None);
        (self.anew, self.stale) = (true, true);
        if let Some(acknowledging) = &mut self.acknowledging {
            acknowledging.begun_anew();
        }
        let id = self.subscription.id().clone();
        let mut request = self.subscription.request.clone();
        (request.cursor, request.feed) = (StartAt::Snapshot, None);
        let messages: [ClientMessage; 2] = [Unsubscribe { id: id.clone() }.into(), request.into()];
        Step::StartOver { id, messages: Box::new(messages) }
    }
}
