//! What a client is told.

use std::time::Duration;

use walcast_protocol::{
    Acked, CaughtUp, ChannelMessage, ClientList, Dropped, ErrorMessage, Heartbeat, Joined, Presence,
    RelationMessage, SnapshotComplete, SnapshotRows, Status, Subscribed, SubscriptionId, TransactionMessage,
    Waiting, Welcome,
};

/// One step of a client's stream. Order holds within a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection is open; the subscriptions are asked for next.
    Connected(Welcome),
    /// The connection is lost or could not be made. The next attempt follows by itself, for ever; subscriptions go on
    /// where they were.
    Reconnecting {
        /// The wait before the next attempt.
        delay: Duration,
        /// Attempts since the last connection that was stable, from 1.
        attempt: u32,
        /// What happened, for people.
        reason: String,
        /// Whether there was a connection, of whatever came of it. `false`: nobody listens there, or the host is not found.
        reached: bool,
        /// Whether what listens there said why, in an answer of HTTP: it is up, and `reason` is its own.
        answered: bool,
    },
    /// The daemon understood a subscription and starts it as soon as its initial poll is done.
    Waiting(Waiting),
    /// A subscription begins, or goes on after a new connection. **With mode `Snapshot` everything starts from nothing**:
    /// whatever the caller has of the subscription's tables is to be discarded, also when it comes again.
    Subscribed(Subscribed),
    /// Policies give this client other rows, columns or tables of a subscription than when it was last there, so its copy
    /// holds too much or too little, which no change would mend. It starts over: [`Event::Subscribed`] with mode `Snapshot`
    /// follows, and everything comes again. (While it is connected, the daemon itself does that, without this event.)
    RightsChanged {
        /// Which one.
        id: SubscriptionId,
    },
    /// A table's definition, before its first rows and whenever it changes. May be repeated after a reconnect.
    Relation(RelationMessage),
    /// Rows of the initial sync.
    Snapshot(SnapshotRows),
    /// The initial sync is done; its cursor is the first one to store.
    SnapshotComplete(SnapshotComplete),
    /// A transaction: all its changes, joined from as many messages as they took. With `more` it goes on in the
    /// subscription's next `Transaction` event: it was over [`crate::ClientBuilder::transaction_bytes_max`], or a table
    /// changes its definition inside it, and the `Relation` comes between.
    Transaction(TransactionMessage),
    /// Everything that was committed before the subscription was asked for has been delivered.
    CaughtUp(CaughtUp),
    /// What [`crate::Client::ack`] acknowledged is durable with the daemon. Of several only the last is confirmed.
    Acked(Acked),
    /// What [`crate::Client::ask_for_clients`] asked for.
    Clients(ClientList),
    /// The feed has come this far even if nothing matched. Its `cursor` may be stored for every subscription of this
    /// client.
    Heartbeat(Heartbeat),
    /// How the daemon's connection to its source is doing.
    Status(Status),
    /// The client is in a channel; again after each new connection.
    Joined(Joined),
    /// Something that was said in a channel.
    Message(ChannelMessage),
    /// Who is shown in a channel; [`crate::Channel::members`] has them all by then.
    Presence(Presence),
    /// So many messages of a channel are gone, since they were not read in time.
    Dropped(Dropped),
    /// A subscription is over for a reason that passes: `not_ready` or `internal`. It is asked for again by itself, for
    /// ever, from where it was; the others go on.
    Retrying {
        /// Which one.
        id: SubscriptionId,
        /// The wait before it is asked for.
        delay: Duration,
        /// How often this happened since the last event with a cursor, from 1.
        attempt: u32,
        /// Why. Its hint may hold the statement that mends it.
        error: ErrorMessage,
    },
    /// A subscription is refused or over and will not be asked for again: `cursor_too_old`, `cursor_ahead`,
    /// `feed_changed`, `unknown_table` and others, none of which a repetition would mend. The others go on. Whoever can do
    /// without what is before it may resume at the `oldest` of `cursor_too_old`, where there is one; a copy begins anew.
    Failed {
        /// Which one.
        id: SubscriptionId,
        /// Why, and what to do.
        error: ErrorMessage,
    },
    /// Something was wrong that ends neither a subscription nor the connection. With `channel`, the client is not, or no
    /// longer, in that channel.
    Error(ErrorMessage),
}
