//! Channels: what clients say to one another. None of it is stored, and none of it has a cursor.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use walcast_model::Lsn;

#[cfg(test)]
use crate::schema;

/// `join`: from now on this client is sent what is said in a channel, until it leaves or disconnects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JoinChannel {
    /// Which one.
    pub channel: String,
    /// What the others are told of this client, any JSON but `null`; without it, it is there and not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::AnyJson>"))]
    pub state: Option<Box<RawValue>>,
    /// What this client calls itself, such as the device's UUID. Its own word, shown beside its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Comes back in the answer.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// `leave`: ends what `join` began. No answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeaveChannel {
    /// Which one.
    pub channel: String,
    /// Comes back in the error, if there is one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// `publish`: says something in a channel that was joined; never stored, never replayed. Answered only when it is refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublishMessage {
    /// Where.
    pub channel: String,
    /// Any JSON, passed on as it is.
    #[cfg_attr(test, schemars(with = "schema::AnyJson"))]
    pub payload: Box<RawValue>,
    /// Whether it is sent back to this connection too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub echo: bool,
    /// Comes back in the error, if there is one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// `presence`: what the others are told of this client from now on, in a channel that was joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetPresence {
    /// Where.
    pub channel: String,
    /// Any JSON; `null`, or none, to be shown no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::AnyJson>"))]
    pub state: Option<Box<RawValue>>,
    /// Comes back in the error, if there is one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// `joined`: this client is in the channel. What is said there follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Joined {
    /// Which one.
    pub channel: String,
    /// What this connection is called in it.
    pub member: String,
    /// The `ref` of the `join`.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Who is in a channel: one connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sender {
    /// The connection's name in the channel, given by the daemon; another one each time that it joins.
    pub member: String,
    /// The subject of its token. Absent where nobody knows, and for those who may not see who is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it calls itself. Absent when it does not say, and for those who may not see who is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Who is shown in a channel, and what it says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Member {
    /// Who.
    #[serde(flatten)]
    pub who: Sender,
    /// What it says.
    #[cfg_attr(test, schemars(with = "schema::AnyJson"))]
    pub state: Box<RawValue>,
}

/// `message`: something that was said in a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChannelMessage {
    /// Where.
    pub channel: String,
    /// Any JSON, as it was said.
    #[cfg_attr(test, schemars(with = "schema::AnyJson"))]
    pub payload: Box<RawValue>,
    /// Which client said it, as the daemon knows it; absent when the database did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sender>,
    /// Where it is in the WAL, when the database said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::LsnText>"))]
    pub lsn: Option<Lsn>,
}

/// `presence`: who is shown in a channel. With `members` everybody, in place of what was told before; else what changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Presence {
    /// Where.
    pub channel: String,
    /// All who are shown now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    /// Those who are shown no more; to be applied before `joined`.
    #[serde(default)]
    pub left: Vec<Sender>,
    /// Those who came, or say something else now; to be written over what there is under the same `member`.
    #[serde(default)]
    pub joined: Vec<Member>,
}

/// `dropped`: messages of a channel that this client was not sent, because it did not read what was there for it. They do
/// not come again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dropped {
    /// Where.
    pub channel: String,
    /// How many.
    pub count: u64,
}
