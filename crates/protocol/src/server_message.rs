//! From server to client.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use walcast_model::{Cursor, FeedId, Lsn, Op, RelationName, ReplicaIdentity, Timestamp, Xid};

use crate::channel::{ChannelMessage, Dropped, Joined, Presence};
use crate::code::ErrorCode;
use crate::decode::messages;
#[cfg(test)]
use crate::schema;
use crate::subscription_id::SubscriptionId;

messages! {
    /// A frame from the server.
    #[non_exhaustive]
    ServerMessage {
        /// Nothing is served before a token comes.
        "auth_required" => AuthRequired(AuthRequired),
        /// The first message of a connection that is let in.
        "welcome" => Welcome(Welcome),
        /// The subscription cannot start yet.
        "waiting" => Waiting(Waiting),
        /// The subscription is accepted, or starts its initial sync over.
        "subscribed" => Subscribed(Subscribed),
        /// A table's definition.
        "relation" => Relation(RelationMessage),
        /// Rows of the initial sync.
        "snapshot" => Snapshot(SnapshotRows),
        /// The initial sync is done.
        "snapshot_complete" => SnapshotComplete(SnapshotComplete),
        /// A transaction, or a part of one.
        "transaction" => Transaction(TransactionMessage),
        /// Everything committed before the subscription was asked for has been delivered.
        "caught_up" => CaughtUp(CaughtUp),
        /// What the client acknowledged is durable.
        "acked" => Acked(Acked),
        /// What the clients of a user have acknowledged.
        "clients" => Clients(ClientList),
        /// The connection is alive.
        "heartbeat" => Heartbeat(Heartbeat),
        /// How the source is doing.
        "status" => Status(Status),
        /// This client is in a channel.
        "joined" => Joined(Joined),
        /// Something that was said in a channel.
        "message" => Message(ChannelMessage),
        /// Who is shown in a channel.
        "presence" => Presence(Presence),
        /// Messages of a channel that were not sent.
        "dropped" => Dropped(Dropped),
        /// What was wrong and what to do.
        "error" => Error(ErrorMessage),
    }
}

/// `auth_required`: the client came without a token, and is told nothing else until it has sent one with `auth`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuthRequired {
    /// For people: one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How long the daemon waits for the token, in milliseconds; then it closes with 4401.
    pub within_ms: u64,
}

/// `welcome`: the first message of a connection that is let in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The version of the contract, [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The feed that all cursors of this connection belong to.
    #[cfg_attr(test, schemars(with = "schema::FeedIdText"))]
    pub feed: FeedId,
    /// How far the feed has come.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
    /// The oldest cursor that can be resumed at.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub oldest: Cursor,
    /// Program and version, for people: `walcast/0.1.0`.
    pub server: String,
    /// A frame comes at least this often, in milliseconds; a client that hears nothing for 2.5 times as long
    /// reconnects.
    pub heartbeat_ms: u64,
    /// What the daemon accepts from this client.
    pub limits: Limits,
}

/// `welcome.limits`: what the daemon accepts from one connection. More is answered with `limit_exceeded`, an oversize
/// frame with close code 1009.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// The largest frame of the client, in bytes.
    pub message_bytes_max: u64,
    /// Subscriptions at the same time.
    pub subscriptions_max: u32,
    /// Entries of `tables` in one subscription.
    pub tables_max: u32,
    /// What it accepts about channels; absent where an older daemon does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<ChannelLimits>,
}

/// `welcome.limits.channels`: what the daemon accepts about channels from one connection. More is answered with
/// `limit_exceeded`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChannelLimits {
    /// Channels at the same time.
    pub channels_per_connection_max: u32,
    /// The longest name of a channel, in bytes.
    pub channel_name_bytes_max: u32,
    /// The largest payload, in bytes.
    pub payload_bytes_max: u64,
    /// The largest state, in bytes.
    pub state_bytes_max: u64,
    /// Messages and states in a second; four times as many at once.
    pub publishes_per_second_max: u32,
}

/// `waiting`: the subscription was understood and starts, or goes on, by itself as soon as it can.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Waiting {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// What is waited for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The place of its initial sync in the queue, 1 for the next one. It may grow when others come, since everybody is
    /// served in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
}

/// How a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// With an initial sync.
    Snapshot,
    /// With what history holds from the cursor on.
    Catchup,
    /// With what the feed holds in memory.
    Live,
}

/// `subscribed`: the subscription is accepted. A second one with mode `snapshot` for the same id means that the initial
/// sync starts over: discard what came of it so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Subscribed {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// How it begins.
    pub mode: Mode,
    /// Where it begins; `0/0` for an initial sync.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
    /// Where policies are in force: which rights it has of what it asks for, opaque. Stored with the cursor; when a
    /// subscription that is resumed has another one, what the client has does not fit its rights, and it starts over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<String>,
}

/// `relation`: a table's definition, before its first rows and whenever it changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RelationMessage {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// The table.
    #[cfg_attr(test, schemars(with = "schema::TableText"))]
    pub table: RelationName,
    /// The columns that the subscription receives, in the order of a row.
    pub columns: Vec<Column>,
    /// Which old columns its updates and deletes carry.
    #[cfg_attr(test, schemars(with = "schema::IdentityText"))]
    pub replica_identity: ReplicaIdentity,
}

/// A column of a `relation`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Column {
    /// The name, as the catalog spells it.
    pub name: String,
    /// The type as SQL spells it: `numeric(10,2)`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Part of the key by which a change names its row.
    pub key: bool,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

impl From<&walcast_model::Column> for Column {
    fn from(column: &walcast_model::Column) -> Self {
        Self {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            key: column.key,
            nullable: column.nullable,
        }
    }
}

/// `snapshot`: rows of the initial sync.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotRows {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// The table.
    #[cfg_attr(test, schemars(with = "schema::TableText"))]
    pub table: RelationName,
    /// One JSON object for each row, as the server wrote it.
    #[cfg_attr(test, schemars(with = "Vec<schema::Object>"))]
    pub rows: Vec<Box<RawValue>>,
    /// How far the initial sync is.
    pub progress: Progress,
}

/// How far an initial sync is, over all tables of the subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Progress {
    /// Rows sent, with those of this message.
    pub done: u64,
    /// Rows expected in all, by the planner's statistics; may be wrong either way. Absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
}

/// `snapshot_complete`: the rows so far, with the transactions so far, equal the tables at `cursor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotComplete {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// The first cursor that is safe to store.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
}

/// `transaction`: changes of one transaction, all of them unless `more`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransactionMessage {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// Safe to store once the changes are applied. Absent before `snapshot_complete`: there is nothing to store yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::CursorText>"))]
    pub cursor: Option<Cursor>,
    /// Where the transaction's commit record starts: its place in the feed.
    #[cfg_attr(test, schemars(with = "schema::LsnText"))]
    pub lsn: Lsn,
    /// Its 64-bit transaction id.
    #[serde(with = "xid")]
    #[cfg_attr(test, schemars(with = "schema::XidNumber"))]
    pub xid: Xid,
    /// When it committed, by the source server's clock.
    #[cfg_attr(test, schemars(with = "schema::TimestampText"))]
    pub committed_at: Timestamp,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What its writer said about it before these changes, with `pg_logical_emit_message(true, 'walcast', …)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Object>"))]
    pub meta: Option<Box<RawValue>>,
    /// The transaction goes on in the subscription's next `transaction` message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The changes are not those of one transaction but the net effect of all of them up to this one, for each row that
    /// they touched: a row is to be written whether it is there or not, and deleted whether it is there or not. Only
    /// after the last message, the one with a cursor and without `more`, do the copies equal the tables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compacted: bool,
}

/// One change. Its texts are as the server wrote them: numbers with all their digits, columns in the relation's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// What it does.
    #[cfg_attr(test, schemars(with = "schema::OpText"))]
    pub op: Op,
    /// The table.
    #[cfg_attr(test, schemars(with = "schema::TableText"))]
    pub table: RelationName,
    /// The columns that find the row as it was before the change; absent for `truncate` and where there is no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Object>"))]
    pub key: Option<Box<RawValue>>,
    /// The key after the change, where that is another one; only with `"payload": "key"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Object>"))]
    pub new_key: Option<Box<RawValue>>,
    /// The row after the change, without the columns in `unchanged`; for `insert` and `update`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Object>"))]
    pub row: Option<Box<RawValue>>,
    /// The whole row before the change, of `update` and `delete`: under `REPLICA IDENTITY FULL`, or where the row's last
    /// image is kept and known for certain. Of the same table one change may have it and the next one not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Object>"))]
    pub old: Option<Box<RawValue>>,
    /// Columns that `row` leaves out because they were not written and the WAL does not carry them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<String>,
}

/// `caught_up`: everything committed before the subscription was asked for has been delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaughtUp {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// Safe to store.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
}

/// `heartbeat`: the connection is alive, and where it is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heartbeat {
    /// Safe to store for every subscription of this connection, in place of what was stored before: everything before
    /// it that concerns any of them was sent before this message, and no cursor that one of them was told is after it.
    /// Absent while there is no such cursor: before the first `subscribed`, while one of them is in its initial sync, and
    /// while they are too far apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::CursorText>"))]
    pub cursor: Option<Cursor>,
    /// The daemon's clock.
    #[cfg_attr(test, schemars(with = "schema::TimestampText"))]
    pub time: Timestamp,
    /// When this connection's token expires: send another one with `auth` before. Absent when it has none, or one that
    /// never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::TimestampText>"))]
    pub token_expires_at: Option<Timestamp>,
}

/// `status`: how the daemon's connection to its source is doing; after `welcome` and whenever it changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// What it is.
    #[cfg_attr(test, schemars(with = "schema::SourceStatusText"))]
    pub state: SourceStatus,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What an operator can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What `status` says. Subscriptions go on in every one of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SourceStatus {
    /// The daemon has started and its slot does not stream yet.
    Starting,
    /// Changes arrive.
    Streaming,
    /// The connection is lost or refused; the daemon retries for ever.
    Interrupted,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// `acked`: what the client acknowledged is durable with the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Acked {
    /// Which subscription.
    #[cfg_attr(test, schemars(with = "schema::SubscriptionIdText"))]
    pub id: SubscriptionId,
    /// The newest cursor that is durable.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
}

/// `clients`: what the clients of a user have acknowledged, those that were seen last first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientList {
    /// At most 1,000.
    pub clients: Vec<ClientState>,
}

/// One subscription of a client, in `clients`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientState {
    /// What the client calls itself.
    pub client_id: String,
    /// What it calls the subscription.
    pub id: String,
    /// What it is over, for people.
    pub tables: String,
    /// The feed that `cursor` is of.
    #[cfg_attr(test, schemars(with = "schema::FeedIdText"))]
    pub feed: FeedId,
    /// What it has acknowledged; `0/0` since an initial sync began.
    #[cfg_attr(test, schemars(with = "schema::CursorText"))]
    pub cursor: Cursor,
    /// When it was last known to be there.
    #[cfg_attr(test, schemars(with = "schema::TimestampText"))]
    pub seen_at: Timestamp,
    /// WAL between `cursor` and how far the feed has come, in bytes; not all of it is for this client.
    pub lag_bytes: u64,
}

/// `error`: what was wrong and what to do. With `id` and not fatal, that subscription is refused or over and the others
/// go on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorMessage {
    /// For programs.
    #[cfg_attr(test, schemars(with = "schema::ErrorCodeText"))]
    pub code: ErrorCode,
    /// For people: one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The subscription that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::SubscriptionIdText>"))]
    pub id: Option<SubscriptionId>,
    /// The channel that the client is not, or no longer, in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The `ref` of the message that was refused.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// With `cursor_too_old`: the first cursor at which a subscription like this one can be resumed; `None` while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::CursorText>"))]
    pub oldest: Option<Cursor>,
    /// Whether the connection is closed after it.
    #[serde(default)]
    pub fatal: bool,
}

impl ErrorMessage {
    /// An error that leaves the connection open.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            id: None,
            channel: None,
            reference: None,
            oldest: None,
            fatal: false,
        }
    }
}

/// A transaction id is a number on the wire.
mod xid {
    use serde::{Deserialize, Deserializer, Serializer};
    use walcast_model::Xid;

    pub(super) fn serialize<S: Serializer>(xid: &Xid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(xid.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Xid, D::Error> {
        u64::deserialize(deserializer).map(Xid::new)
    }
}
