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
        if self.pending_bytes() > 0 {
            // What is on its way shows well enough that the connection is alive.
            if !took_something {
                for subscription in &mut self.subscriptions {
                    subscription.session().let_go();
                }
            }
            return;
        }
        self.moved = true;
        let cursor = common_cursor(&mut self.subscriptions);
        self.push(Heartbeat { cursor, time: Timestamp::now() });
    }
}

fn common_cursor(subscriptions: &mut [Subscription]) -> Option<Cursor> {
    let mut reached: Option<Cursor> = None;
    let mut told = Cursor::ZERO;
    for subscription in subscriptions.iter_mut() {
        let position = subscription.session().position()?;
        reached = Some(reached.map_or(position, |reached| reached.min(position)));
        told = told.max(subscription.session().last_cursor());
    }
    let cursor = reached.filter(|cursor| *cursor >= told)?;
    for subscription in subscriptions {
        subscription.session().cursor_told(cursor);
    }
    Some(cursor)
}
