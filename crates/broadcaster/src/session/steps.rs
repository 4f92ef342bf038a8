//! What a session and the one who drives it say to each other.

use std::sync::Arc;

use walcast_filter::Schema;
use walcast_history::Page;
use walcast_model::{Cursor, Relation, RelationName, Snapshot};
use walcast_snapshot::SnapshotEvent;

use super::compacted::Folded;
use crate::acks::Position;
use crate::catalog::Freshness;
use crate::encode::Frame;
use crate::past::KnownTable;
use crate::reach::Reached;
use crate::refusal::Refusal;

/// What a session does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write this.
    Frame(Frame),
    /// Find this out, and hand in the answer. Until then it may be asked for its next step, and waits.
    Ask(Question),
    /// Begin an initial sync of these tables, and hand in its events, one by one, as [`Answer::Sync`].
    Sync(Vec<RelationName>),
    /// Nothing to do before this happens.
    Wait(Wait),
    /// Over: its last frame said why.
    Over,
}

/// What a session cannot find out by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// What its client has acknowledged.
    Acked,
    /// The published tables: as they are now, or as they were lately if that has all that the shape names.
    Tables { now: bool },
    /// How far history reaches back.
    Oldest,
    /// A page of history.
    Page { from: Cursor, to: Cursor },
    /// The net effect of transactions of history.
    Latest { from: Cursor, to: Cursor },
    /// The first transaction in history that a snapshot does not see.
    FirstInvisible { snapshot: Snapshot, before: Cursor },
    /// Tables as filters are bound to them, in the definition that they have now.
    /// Without `insist` it is asked once: a source that is away keeps nobody from history.
    Schemas { tables: Vec<RelationName>, freshness: Freshness, insist: bool },
    /// A table as filters are bound to it, in this definition.
    Schema { relation: Arc<Relation>, freshness: Freshness },
    /// From where on its shape can be served, at `from` or later.
    Reach { from: Cursor },
}

/// The answer to a [`Question`]. Failures that pass by themselves are not among them: the driver asks again.
#[derive(Debug)]
pub(crate) enum Answer {
    Acked(Result<Option<Position>, Refusal>),
    Tables(Result<Arc<Vec<KnownTable>>, Refusal>),
    Oldest(Result<Cursor, Refusal>),
    Page(Result<Page, Refusal>),
    Latest(Result<Folded, Refusal>),
    FirstInvisible(Result<Option<Cursor>, Refusal>),
    Sync(Result<SnapshotEvent, Refusal>),
    /// Those that are published.
    Schemas(Result<Vec<Arc<Schema>>, Refusal>),
    Schema(Result<Arc<Schema>, Refusal>),
    Reach(Result<Reached, Refusal>),
}

/// What a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The gate opens.
    Gate,
    /// The answer to its question.
    Answer,
    /// The next event of its initial sync.
    Sync,
    /// Its barrier comes back, or the feed's head reaches the cursor.
    Head(Cursor),
    /// Its shape is concerned by something at or after the cursor.
    Shape(Cursor),
    /// The router has seen something after the cursor.
    Seen(Cursor),
}
