//! One message for a client, as bytes.

use bytes::Bytes;
use walcast_model::Relation;
use walcast_protocol::{Column, RelationMessage, ServerMessage, SubscriptionId, encode as protocol};

use crate::encode::Projection;
use crate::wanted::Selection;

/// One message: UTF-8 text in two pieces, of which the second may be shared with other sessions.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) tail: Bytes,
}

impl Frame {
    /// Length of the message in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

impl From<ServerMessage> for Frame {
    fn from(message: ServerMessage) -> Self {
        Self { head: message.to_json().into(), tail: Bytes::new() }
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

    pub(crate) fn transaction(&self, tail: Bytes) -> Frame {
        Frame { head: self.transaction.clone(), tail }
    }

    pub(crate) fn snapshot(&self, tail: Bytes) -> Frame {
        Frame { head: self.snapshot.clone(), tail }
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
    ServerMessage::from(message).into()
}
