//! One message for a client, as bytes.

use bytes::Bytes;
use walcast_model::{Cursor, Relation};
use walcast_protocol::{
    Column, ErrorMessage, RelationMessage, ServerMessage, SubscriptionId, encode as protocol,
};

use crate::encode::Projection;
use crate::wanted::Selection;

/// One message: UTF-8 text in two pieces, of which the second may be shared with other sessions.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) tail: Bytes,
    pub(crate) says: Says,
}

/// What a frame says, for doors that do more with it than pass it on.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// The subscription begins, or starts over.
    Subscribed(Cursor),
    /// A definition; its head names the subscription, its tail does not.
    Relation,
    /// Of a transaction; likewise.
    Transaction(Piece),
    SnapshotComplete(Cursor),
    CaughtUp(Cursor),
    Heartbeat(Option<Cursor>),
    Error(Box<ErrorMessage>),
    /// What has no cursor, by its type.
    Other(&'static str),
}

/// What of a transaction a frame has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Safe to store once it is applied.
    pub(crate) cursor: Option<Cursor>,
    /// It goes on in the next one.
    pub(crate) more: bool,
}

impl Says {
    /// The message's `type`.
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::Subscribed(_) => "subscribed",
            Self::Relation => "relation",
            Self::Transaction(_) => "transaction",
            Self::SnapshotComplete(_) => "snapshot_complete",
            Self::CaughtUp(_) => "caught_up",
            Self::Heartbeat(_) => "heartbeat",
            Self::Error(_) => "error",
            Self::Other(name) => name,
        }
    }

    /// Where a client is that has taken this and everything before it; `0/0` while it has nothing to store.
    pub(crate) const fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Subscribed(cursor) | Self::SnapshotComplete(cursor) | Self::CaughtUp(cursor) => {
                Some(*cursor)
            }
            Self::Transaction(Piece { cursor, .. }) | Self::Heartbeat(cursor) => *cursor,
            Self::Relation | Self::Error(_) | Self::Other(_) => None,
        }
    }
}

impl Frame {
    /// Length of the message in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

impl From<ServerMessage> for Frame {
    fn from(message: ServerMessage) -> Self {
        let head = message.to_json().into();
        let says = match message {
            ServerMessage::Subscribed(subscribed) => Says::Subscribed(subscribed.cursor),
            ServerMessage::SnapshotComplete(complete) => Says::SnapshotComplete(complete.cursor),
            ServerMessage::CaughtUp(caught_up) => Says::CaughtUp(caught_up.cursor),
            ServerMessage::Heartbeat(heartbeat) => Says::Heartbeat(heartbeat.cursor),
            ServerMessage::Error(error) => Says::Error(Box::new(error)),
            other => Says::Other(other.type_name()),
        };
        Self { head, tail: Bytes::new(), says }
    }
}

/// The heads of the frequent messages of one subscription, written once.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    transaction: Bytes,
    snapshot: Bytes,
}

impl Heads {
    pub(crate) fn new(id: &SubscriptionId) -> Self {
        let head = |name| {
            let mut out = Vec::new();
            protocol::head(&mut out, name, id);
            Bytes::from(out)
        };
        Self { transaction: head("transaction"), snapshot: head("snapshot") }
    }

    pub(crate) fn transaction(&self, tail: Bytes, piece: Piece) -> Frame {
        Frame { head: self.transaction.clone(), tail, says: Says::Transaction(piece) }
    }

    pub(crate) fn snapshot(&self, tail: Bytes) -> Frame {
        Frame { head: self.snapshot.clone(), tail, says: Says::Other("snapshot") }
    }
}

/// The `relation` message about a table, with the columns that the subscription receives.
pub(crate) fn relation(id: &SubscriptionId, relation: &Relation, selection: &Selection) -> Frame {
    let projection = Projection::new(relation, selection);
    let is_taken = |column: &walcast_model::Column| {
        let selected = selection.columns.as_ref().is_some_and(|columns| columns.contains(&column.name));
        projection.is_none() || column.key || selected
    };
    let message = RelationMessage {
        id: id.clone(),
        table: relation.name().clone(),
        columns: relation.columns().iter().filter(|column| is_taken(column)).map(Column::from).collect(),
        replica_identity: relation.identity(),
    };
    let mut head = Vec::new();
    protocol::head(&mut head, "relation", id);
    let mut text = Bytes::from(ServerMessage::from(message).to_json());
    let tail = text.split_off(head.len());
    Frame { head: text, tail, says: Says::Relation }
}
