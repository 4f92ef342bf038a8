//! What clients have acknowledged, as the history has it.

use std::fmt;

use serde::Serialize;
use walcast_history::{ClientName, KnownClient};
use walcast_model::Cursor;

use crate::commands::doctor::size;

/// One subscription of a client.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClientStatus {
    /// The subject of its token; empty without authentication.
    pub(crate) user: String,
    /// What it calls itself.
    pub(crate) client_id: String,
    /// What it calls the subscription.
    pub(crate) id: String,
    /// What it subscribed to.
    pub(crate) tables: String,
    /// The feed that `cursor` is of.
    pub(crate) feed: String,
    /// What it has acknowledged; 0/0 since an initial sync began.
    pub(crate) cursor: Cursor,
    /// WAL between that and what is stored, in bytes. Not all of it is for the client.
    pub(crate) lag_bytes: u64,
    /// When it was last known to be there.
    pub(crate) seen_at: String,
    /// Whether it is in `keep_clients`.
    pub(crate) kept: bool,
}

impl ClientStatus {
    pub(super) fn new(client: &KnownClient, keep: &[ClientName], stored: Cursor) -> Self {
        let name = &client.key.name;
        Self {
            user: name.user.clone(),
            client_id: name.client_id.clone(),
            id: client.key.subscription.clone(),
            tables: client.tables.clone(),
            feed: client.feed.to_string(),
            cursor: client.cursor,
            lag_bytes: stored.lsn().bytes_since(client.cursor.lsn()),
            seen_at: client.seen_at.to_string(),
            kept: keep.contains(name),
        }
    }
}

/// A time without what is below a millisecond.
fn to_millis(at: &str) -> String {
    match at.split_once('.') {
        Some((seconds, rest)) => format!("{seconds}.{}Z", rest.get(..3).unwrap_or("000")),
        None => at.to_owned(),
    }
}

impl fmt::Display for ClientStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ClientName { user: self.user.clone(), client_id: self.client_id.clone() };
        let (id, cursor, lag, seen) = (&self.id, self.cursor, size(self.lag_bytes), to_millis(&self.seen_at));
        let kept = if self.kept { ", kept" } else { "" };
        // What clients call themselves has no control characters.
        write!(f, "{name} {id} at {cursor}, {lag} behind, seen {seen}{kept}: {}", self.tables)
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::Timestamp;

    use super::to_millis;

    #[test]
    fn a_client_was_seen_at_a_millisecond() {
        let at: Timestamp = "2026-11-21T01:02:03.456789Z".parse().unwrap();
        assert_eq!(to_millis(&at.to_string()), "2026-11-21T01:02:03.456Z");
    }
}
