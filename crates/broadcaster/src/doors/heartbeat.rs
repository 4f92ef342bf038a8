//! Heartbeats, and the cursor in them.
//!
//! A heartbeat is about the whole connection: its cursor may be stored for every subscription, in place of what was
//! stored before. So it is at or before the position of each (nothing before it is missing anywhere), and not before
//! any cursor that one of them was told (storing it never leads back to what was applied already). While the
//! subscriptions are too far apart for such a cursor to exist, or one of them has none, the heartbeat comes without.

use tokio::io::{AsyncRead, AsyncWrite};
use walcast_model::{Cursor, Timestamp};
use walcast_protocol::Heartbeat;

use super::connection::Connection;
use crate::subscription::Subscription;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The time has come for a heartbeat.
    pub(super) fn heartbeat(&mut self) {
        let took_something = std::mem::take(&mut self.moved);
        if !self.is_clear() {
            // What is on its way shows well enough that the connection is alive.
            if !took_something {
                self.subscriptions.iter_mut().for_each(Subscription::let_go);
            }
            return;
        }
        self.moved = true;
        self.tell_places();
        self.push_heartbeat();
    }

    /// A heartbeat, whatever is on its way.
    pub(super) fn push_heartbeat(&mut self) {
        let sessions = self.subscriptions.iter_mut().map(Subscription::session);
        let cursor = common_cursor(sessions.map(|session| (session.position(), session.last_cursor())));
        if let Some(cursor) = cursor {
            self.subscriptions.iter_mut().for_each(|subscription| subscription.session().cursor_told(cursor));
        }
        let token_expires_at = self.pass.expires_at().map(Timestamp::from);
        self.push(Heartbeat { cursor, time: Timestamp::now(), token_expires_at });
    }
}

/// The cursor for subscriptions with these positions, and these newest cursors that they were told.
fn common_cursor(subscriptions: impl Iterator<Item = (Option<Cursor>, Cursor)>) -> Option<Cursor> {
    let mut common: Option<Cursor> = None;
    let mut newest = Cursor::ZERO;
    for (position, told) in subscriptions {
        let position = position?;
        common = Some(common.map_or(position, |common| common.min(position)));
        newest = newest.max(told);
    }
    common.filter(|cursor| *cursor >= newest)
}

#[cfg(test)]
mod tests {
    use super::common_cursor;
    use crate::testing::at;

    #[test]
    fn the_cursor_is_safe_for_the_one_behind_and_takes_nobody_back() {
        let common = |subscriptions: &[(Option<u64>, u64)]| {
            common_cursor(subscriptions.iter().map(|(position, told)| (position.map(at), at(*told))))
        };
        assert_eq!(common(&[]), None);
        assert_eq!(common(&[(Some(40), 30)]), Some(at(40)));
        assert_eq!(common(&[(Some(40), 20), (Some(30), 10)]), Some(at(30)));
        assert_eq!(common(&[(Some(40), 35), (Some(30), 10)]), None);
        assert_eq!(common(&[(Some(40), 0), (None, 0)]), None);
    }
}
