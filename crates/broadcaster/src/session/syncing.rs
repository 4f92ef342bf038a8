//! The initial sync, and its seam with the stream.
//!
//! The rows come as of a snapshot, and with a barrier `b` that was written after it. Every transaction that the
//! snapshot sees has its commit record before `b`, so of the transactions before `b` those that it does not see are
//! still to be sent, and from `b` on all are (reference, section 4).
//!
//! With `schema.*` and `*` the tables are listed before the snapshot is taken. A table that was published in between
//! is part of the snapshot and not of the list; that is found out by listing again afterwards, and mended by
//! starting over. Tables that the snapshot does not see are not filtered at the seam at all: what is published
//! later is in the stream from its first row on.

use std::sync::Arc;

use walcast_model::{Cursor, RelationName, Snapshot};
use walcast_protocol::{ErrorCode, Mode, Progress, SnapshotComplete, encode as protocol};
use walcast_snapshot::SnapshotEvent;

use super::streaming::Stream;
use super::{Phase, Question, Session, Turn, Wait};
use crate::encode::{Projection, Synced, project_rows};
use crate::past::KnownTable;
use crate::refusal::Refusal;
use crate::router::ShapeHandle;

/// How often an initial sync starts over because tables appeared, before the client is told to come again.
const RELISTS_MAX: u32 = 5;

/// An initial sync that is under way.
#[derive(Debug)]
pub(super) struct Sync {
    /// Sorted.
    tables: Vec<RelationName>,
    step: SyncStep,
    progress: Progress,
    relists: u32,
}

#[derive(Debug)]
enum SyncStep {
    /// Entered at the beginning; left when it is asked for.
    Start,
    /// Entered when it was asked for; left when its rows are here.
    Rows,
    /// Entered when the rows are here; left when it is asked whether a table appeared meanwhile.
    Listing { snapshot: Snapshot, barrier: Cursor, asked: bool },
    /// Entered when none did; left when it is known where the seam begins. `before` is where the search ends, once
    /// it was asked for.
    Searching { snapshot: Snapshot, barrier: Cursor, before: Option<Cursor> },
}

impl Sync {
    pub(super) const fn new(tables: Vec<RelationName>) -> Self {
        let progress = Progress { done: 0, estimate: None };
        Self { tables, step: SyncStep::Start, progress, relists: 0 }
    }

    /// The tables of a shape: those that it names, and those that exist of the others. Sorted.
    pub(super) fn tables_of(shape: &ShapeHandle, published: &[KnownTable]) -> Vec<RelationName> {
        let named = shape.key().named().map(|(name, _)| name.clone());
        let matching = published.iter().map(|table| &table.name).filter(|name| shape.wants(name).is_some());
        let mut tables: Vec<RelationName> = named.chain(matching.cloned()).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }
}

impl Session {
    pub(super) fn sync(&mut self) -> Turn {
        let Phase::Syncing(sync) = &mut self.phase else { return Turn::Again };
        match &mut sync.step {
            SyncStep::Start => {
                sync.step = SyncStep::Rows;
                Turn::Ask(Question::Sync(sync.tables.clone()))
            }
            SyncStep::Rows => Turn::Wait(Wait::Sync),
            SyncStep::Listing { asked: asked @ false, .. } => {
                *asked = true;
                Turn::Ask(Question::Tables { now: true })
            }
            SyncStep::Searching { snapshot, barrier, before: asked @ None } => {
                // What history does not have yet need not be searched: it is looked through anyway.
                let before = (*barrier).min(self.world.feed.stored());
                *asked = Some(before);
                Turn::Ask(Question::FirstInvisible { snapshot: snapshot.clone(), before })
            }
            SyncStep::Listing { .. } | SyncStep::Searching { .. } => Turn::Wait(Wait::Answer),
        }
    }

    /// The next event of the initial sync.
    pub(super) fn event(&mut self, event: SnapshotEvent) {
        let has_wildcard = self.shape.key().has_wildcard();
        let Phase::Syncing(sync) = &mut self.phase else { return };
        match event {
            SnapshotEvent::Restarted => {
                sync.progress = Progress { done: 0, estimate: None };
                self.told.clear();
                self.subscribed(Mode::Snapshot, Cursor::ZERO);
            }
            SnapshotEvent::Relation(relation) => self.tell_relation(&relation),
            SnapshotEvent::Progress { done, estimate } => {
                sync.progress = Progress { done, estimate: Some(estimate) };
            }
            SnapshotEvent::Rows { relation, json, .. } => {
                let selection = self.shape.wants(relation.name());
                let projection = selection.and_then(|selection| Projection::new(&relation, selection));
                let mut tail = Vec::with_capacity(json.len() + 128);
                match projection {
                    None => protocol::snapshot_tail(&mut tail, relation.name(), &json, sync.progress),
                    Some(projection) => {
                        let mut rows = Vec::with_capacity(json.len());
                        project_rows(&mut rows, &projection, &json);
                        protocol::snapshot_tail(&mut tail, relation.name(), &rows, sync.progress);
                    }
                }
                let frame = self.heads.snapshot(tail.into());
                self.frames.push_back(frame);
            }
            SnapshotEvent::Done { snapshot, barrier } if has_wildcard => {
                sync.step = SyncStep::Listing { snapshot, barrier, asked: false };
            }
            SnapshotEvent::Done { snapshot, barrier } => {
                sync.step = SyncStep::Searching { snapshot, barrier, before: None };
            }
        }
    }

    /// The published tables as they are after the rows were read.
    pub(super) fn relisted(&mut self, tables: Result<Arc<Vec<KnownTable>>, Refusal>) {
        let Phase::Syncing(sync) = &mut self.phase else { return };
        let tables = match tables {
            Ok(tables) => Sync::tables_of(&self.shape, &tables),
            Err(refusal) => return self.refuse(refusal),
        };
        let appeared = tables.iter().find(|name| sync.tables.binary_search(name).is_err());
        if let Some(appeared) = appeared {
            if sync.relists == RELISTS_MAX {
                let message = format!("tables such as {appeared} keep appearing during the initial sync");
                let hint = "subscribe again when that is over, or name the tables one by one";
                return self.refuse(Refusal::new(ErrorCode::NotReady, message).hint(hint));
            }
            tracing::info!(id = %self.id, table = %appeared, "a table appeared during an initial sync, which starts over");
            let relists = sync.relists + 1;
            self.phase = Phase::Syncing(Sync { relists, ..Sync::new(tables) });
            self.told.clear();
            return self.subscribed(Mode::Snapshot, Cursor::ZERO);
        }
        if let SyncStep::Listing { snapshot, barrier, .. } = &sync.step {
            sync.step = SyncStep::Searching { snapshot: snapshot.clone(), barrier: *barrier, before: None };
        }
    }

    /// Begins the seam at the first transaction that the snapshot does not see.
    pub(super) fn seam(&mut self, first: Option<Cursor>) {
        let Phase::Syncing(sync) = &mut self.phase else { return };
        let SyncStep::Searching { snapshot, barrier, before: Some(before) } = &sync.step else { return };
        let (barrier, from) = (*barrier, first.unwrap_or(*before));
        let synced = Synced { snapshot: snapshot.clone(), tables: std::mem::take(&mut sync.tables) };
        // The barrier of the initial sync was written after the subscription was asked for, too.
        self.barrier = Some(self.barrier.map_or(barrier, |own| own.min(barrier)));
        self.phase = Phase::Streaming(Stream::seam(from, synced, barrier));
    }

    /// The end of the seam: from here on everything is sent, with cursors.
    pub(super) fn complete(&mut self, cursor: Cursor) {
        let id = self.id.clone();
        self.send(SnapshotComplete { id, cursor });
        self.last_cursor = self.last_cursor.max(cursor);
    }
}
