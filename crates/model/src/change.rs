//! What happened: one change of one transaction. Its texts are in the [`Part`](crate::Part) that holds it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::last_image::ImageMark;
use crate::position::CommitStart;
use crate::relation::Relation;
use crate::timestamp::Timestamp;
use crate::xid::Xid;

/// What a change does to its row, or to its whole table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A new row.
    Insert,
    /// A row with new content; its key may change too.
    Update,
    /// A row that is gone.
    Delete,
    /// All rows of the table are gone.
    Truncate,
}

impl Op {
    /// The word on the wire and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "insert" => Ok(Self::Insert),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            "truncate" => Ok(Self::Truncate),
            other => Err(format!("{other:?} is not an operation")),
        }
    }
}

/// A committed source transaction, without its changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Where its commit record starts: its place in the feed.
    pub start: CommitStart,
    /// Its top-level transaction id.
    pub xid: Xid,
    /// When it committed, by the source server's clock.
    pub committed_at: Timestamp,
}

/// One change of a [`Part`](crate::Part): what it is about, and where its texts are in the part's buffer.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it does.
    pub op: Op,
    /// The table as it was when the change was written.
    pub relation: Arc<Relation>,
    /// What it does to last images; `None` where none are kept, and in what history gives back.
    pub image: Option<ImageMark>,
    pub(crate) json: Range<u32>,
    pub(crate) key: Range<u32>,
    pub(crate) row: Range<u32>,
    pub(crate) old: Range<u32>,
    pub(crate) unchanged: Range<u32>,
}
