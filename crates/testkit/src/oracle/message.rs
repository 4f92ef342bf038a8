//! Messages of the daemon.

use std::sync::Arc;

use serde::Deserialize;
use walcast_model::{Cursor, Lsn};

use super::change::{Fields, Told};
use super::definition::{Definition, DefinitionColumn};
use super::verdict::Violation;

/// A message about a subscription or its connection.
#[derive(Debug)]
pub(crate) enum Message {
    Subscribed {
        mode: String,
        cursor: Cursor,
    },
    Relation {
        table: String,
        definition: Arc<Definition>,
    },
    Snapshot {
        table: String,
        rows: Vec<Fields>,
    },
    SnapshotComplete {
        cursor: Cursor,
    },
    Transaction(Part),
    CaughtUp {
        cursor: Cursor,
    },
    Heartbeat {
        cursor: Option<Cursor>,
    },
    Error(Refusal),
    /// `welcome`, `waiting`, `status`, and what may come to be.
    Other(String),
}

/// A `transaction` message.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    pub(crate) lsn: Lsn,
    pub(crate) xid: u64,
    pub(crate) cursor: Option<Cursor>,
    #[serde(default)]
    pub(crate) more: bool,
    pub(crate) changes: Vec<Told>,
}

/// An `error` message.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    /// What it is about.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the connection ends.
    pub fatal: bool,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Subscribed {
    mode: String,
    cursor: Cursor,
}

#[derive(Deserialize)]
struct Relation {
    table: String,
    columns: Vec<DefinitionColumn>,
    replica_identity: String,
}

#[derive(Deserialize)]
struct Snapshot {
    table: String,
    rows: Vec<Fields>,
}

#[derive(Deserialize)]
struct At {
    cursor: Option<Cursor>,
}

impl Message {
    pub(crate) fn parse(text: &str) -> Result<Self, Violation> {
        Self::read(text).map_err(|error| {
            Violation::wrong(format!("{error} in the message {}", super::change::shortened(text)))
        })
    }

    fn read(text: &str) -> Result<Self, serde_json::Error> {
        let Kind { kind } = serde_json::from_str(text)?;
        let cursor = || -> Result<Cursor, serde_json::Error> {
            let at: At = serde_json::from_str(text)?;
            at.cursor.ok_or_else(|| serde::de::Error::missing_field("cursor"))
        };
        Ok(match kind.as_str() {
            "subscribed" => {
                let Subscribed { mode, cursor } = serde_json::from_str(text)?;
                Self::Subscribed { mode, cursor }
            }
            "relation" => {
                let Relation { table, columns, replica_identity } = serde_json::from_str(text)?;
                Self::Relation { table, definition: Arc::new(Definition { columns, replica_identity }) }
            }
            "snapshot" => {
                let Snapshot { table, rows } = serde_json::from_str(text)?;
                Self::Snapshot { table, rows }
            }
            "snapshot_complete" => Self::SnapshotComplete { cursor: cursor()? },
            "transaction" => Self::Transaction(serde_json::from_str(text)?),
            "caught_up" => Self::CaughtUp { cursor: cursor()? },
            "heartbeat" => {
                let At { cursor } = serde_json::from_str(text)?;
                Self::Heartbeat { cursor }
            }
            "error" => Self::Error(serde_json::from_str(text)?),
            _ => Self::Other(kind),
        })
    }
}
