//! From client to server.

use serde::{Deserialize, Serialize};
use walcast_model::{Cursor, FeedId};

use crate::channel::{JoinChannel, LeaveChannel, PublishMessage, SetPresence};
use crate::decode::messages;
#[cfg(test)]
use crate::schema;
use crate::start_at::StartAt;
use crate::subscription_id::SubscriptionId;
use crate::table_pattern::TablePattern;

messages! {
    /// A frame from a client.
    ClientMessage {
        /// Sets or refreshes the token.
        "auth" => Auth(Auth),
        /// Opens one ordered stream over some tables.
        "subscribe" => Subscribe(Subscribe),
        /// Tells the server what this client has stored.
        "ack" => Ack(Ack),
        /// Asks which clients of the same user have acknowledged what.
        "clients" => Clients(ListClients),
        /// Ends a subscription.
        "unsubscribe" => Unsubscribe(Unsubscribe),
        /// Asks for what is said in a channel.
        "join" => Join(JoinChannel),
        /// Ends that.
        "leave" => Leave(LeaveChannel),
        /// Says something in a channel.
        "publish" => Publish(PublishMessage),
        /// Sets what the others in a channel are told of this client.
        "presence" => Presence(SetPresence),
    }
}

impl ClientMessage {
    /// What a message of this `type` looks like, for people: the least that it needs.
    #[must_use]
    pub fn example(name: &str) -> Option<&'static str> {
        Some(match name {
            "auth" => r#"{"type":"auth","token":"eyJhbGciOi…"}"#,
            "subscribe" => r#"{"type":"subscribe","id":"orders","tables":[{"table":"public.orders"}]}"#,
            "ack" => r#"{"type":"ack","id":"orders","cursor":"16/B374D848"}"#,
            "clients" => r#"{"type":"clients"}"#,
            "unsubscribe" => r#"{"type":"unsubscribe","id":"orders"}"#,
            "join" => r#"{"type":"join","channel":"room:7"}"#,
            "leave" => r#"{"type":"leave","channel":"room:7"}"#,
            "publish" => r#"{"type":"publish","channel":"room:7","payload":{"text":"hello"}}"#,
            "presence" => r#"{"type":"presence","channel":"room:7","state":{"device":"phone"}}"#,
            _ => return None,
        })
    }
}

/// `auth`: sets or refreshes the JWT.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Auth {
    /// The token. Never logged.
    pub token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth { token: … }")
    }
}

/// `subscribe`: opens one ordered stream over `tables`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Subscribe {
    /// The client's name for it, unique in the connection.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// What it is over. At least one entry.
    pub tables: Vec<TableSelection>,
    /// Where it starts; without it, an initial sync.
    #[serde(default, skip_serializing_if = "is_default")]
    #[cfg_attr(test, schemars(with = "schema::StartAtText"))]
    pub cursor: StartAt,
    /// The feed that `cursor` belongs to; another one is answered with `feed_changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::FeedIdText>"))]
    pub feed: Option<FeedId>,
    /// Who acknowledges, across connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Transactions that carry this origin are not sent back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What a change carries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub payload: Payload,
    /// What a client that is behind the daemon's memory is sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catchup: Catchup,
}

impl Subscribe {
    /// A subscription to whole rows of `tables`, from an initial sync.
    #[must_use]
    pub fn new(id: SubscriptionId, tables: Vec<TablePattern>) -> Self {
        let tables = tables.into_iter().map(TableSelection::from).collect();
        Self {
            id,
            tables,
            cursor: StartAt::Snapshot,
            feed: None,
            client_id: None,
            origin: None,
            payload: Payload::Row,
            catchup: Catchup::All,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One entry of `subscribe.tables`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(expecting = "an object such as {\"table\": \"public.orders\"}")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableSelection {
    /// Which tables.
    #[cfg_attr(test, schemars(with = "schema::TablePatternText"))]
    pub table: TablePattern,
    /// Which of their rows: a condition as in SQL.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Which of their columns, beside the key's, which always come; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

impl From<TablePattern> for TableSelection {
    /// All rows, all columns.
    fn from(table: TablePattern) -> Self {
        Self { table, filter: None, columns: None }
    }
}

/// What a change carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Keys and rows.
    #[default]
    Row,
    /// Keys without rows.
    Key,
}

/// What a client that is behind the daemon's memory is sent until it has caught up; `subscribe.catchup`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Catchup {
    /// Every change of every transaction.
    #[default]
    All,
    /// What became of each row that was changed, over many transactions: messages with `compacted`.
    Latest,
}

/// `ack`: what this client has stored of a subscription that has a `client_id`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ack {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// Everything before it is stored by the client.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
}

/// `clients`: asks which clients of the same user have acknowledged what.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListClients {}

/// `unsubscribe`: ends a subscription. Frames of it that were on their way may still arrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unsubscribe {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
}
