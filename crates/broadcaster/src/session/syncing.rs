//! The initial sync, and its seam with the stream.
//!
//! The rows come as of a snapshot, and with a barrier `b` that was written after it. Every transaction that the
//! snapshot sees has its commit record before `b`, so of the transactions before `b` those that it does not see are
//! still to be sent, and from `b` on all are (reference, section 4).
//!
//! # Tables come, go, and change their names
//!
//! With `schema.*` and `*` the tables are listed before the snapshot is taken, and asked for by name. The rows say
//! which tables they are of, by name and object id, and listing again afterwards finds out whether the shape now
//! stands for others: one that was published in between, that was renamed, or that was made again under its name.
//! Then the initial sync starts over. So it does when a table of the list, which nobody named, is gone before it
//! could be read.
//!
//! Of the transactions that the snapshot sees, a change is left out when its table is one whose rows were sent
//! (whatever it was called at the time), and when its table had the name of one (then it lost the name before the
//! snapshot was taken: two tables changed names, or one was dropped and made again). Changes of a table that the
//! snapshot does not have under either are not filtered at all: what is published later is in the stream from its
//! first row on. A table that was dropped before the snapshot may appear by that, as it does to those who were there.

use std::collections::HashMap;
use std::sync::Arc;

use walcast_model::{Cursor, Oid, RelationName, Snapshot};
use walcast_protocol::{ErrorCode, Mode, Progress, SnapshotComplete, encode as protocol};
use walcast_snapshot::SnapshotEvent;

use super::binding::Then;
use super::streaming::Stream;
use super::{Phase, Question, Session, Turn, Wait};
use crate::encode::{Projection, Synced, project_rows};
use crate::past::KnownTable;
use crate::refusal::Refusal;
use crate::router::ShapeHandle;

/// How often an initial sync starts over because its tables are others meanwhile, before the client is told to come
/// again.
const RELISTS_MAX: u32 = 5;

/// An initial sync that is under way.
#[derive(Debug)]
pub(super) struct Sync {
    /// What is asked for. Sorted.
    tables: Vec<RelationName>,
    /// The tables whose rows came.
    synced: HashMap<Oid, RelationName>,
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
    /// Entered when the rows are here; left when it is asked whether the tables are others meanwhile.
    Listing { snapshot: Snapshot, barrier: Cursor, asked: bool },
    /// Entered when a table of the list could not be read; left when it is asked whether it still is one.
    Doubting { refusal: Refusal, asked: bool },
    /// Entered when they are not; left when it is known where the seam begins. `before` is where the search ends, once
    /// it was asked for.
    Searching { snapshot: Snapshot, barrier: Cursor, before: Option<Cursor> },
}

impl Sync {
    pub(super) fn new(tables: Vec<RelationName>, relists: u32) -> Self {
        let progress = Progress { done: 0, estimate: None };
        Self { tables, synced: HashMap::new(), step: SyncStep::Start, progress, relists }
    }

    /// The tables of a shape: those that it names, and those that exist of the others. Sorted.
    pub(super) fn tables_of(shape: &ShapeHandle, published: &[KnownTable]) -> Vec<RelationName> {
        let named = shape.key().named().map(|(name, _)| name.clone());
        let matching = matching(shape, published).map(|table| table.name.clone());
        let mut tables: Vec<RelationName> = named.chain(matching).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// A published table that the shape stands for and whose rows did not come under its name.
    fn missing<'a>(&self, shape: &ShapeHandle, published: &'a [KnownTable]) -> Option<&'a RelationName> {
        let is_missing = |table: &&KnownTable| self.synced.get(&table.oid) != Some(&table.name);
        matching(shape, published).find(is_missing).map(|table| &table.name)
    }
}

/// The published tables that a shape stands for, without those of which a policy gives nothing.
fn matching<'a>(shape: &ShapeHandle, published: &'a [KnownTable]) -> impl Iterator<Item = &'a KnownTable> {
    let wanted = shape.wanted();
    published.iter().filter(|table| wanted.of(&table.name).is_some() && !wanted.takes_nothing_of(table.oid))
}

impl Session {
    pub(super) fn sync(&mut self) -> Turn {
        let Phase::Syncing(sync) = &mut self.phase else { return Turn::Again };
        match &mut sync.step {
            SyncStep::Start => {
                sync.step = SyncStep::Rows;
                Turn::Sync(sync.tables.clone())
            }
            SyncStep::Rows => Turn::Wait(Wait::Sync),
            SyncStep::Listing { asked: asked @ false, .. }
            | SyncStep::Doubting { asked: asked @ false, .. } => {
                *asked = true;
                Turn::Ask(Question::Tables { now: true })
            }
            SyncStep::Searching { snapshot, barrier, before: asked @ None } => {
                // What history does not have yet need not be searched: it is looked through anyway.
                let before = (*barrier).min(self.world.feed.stored());
                *asked = Some(before);
                Turn::Ask(Question::FirstInvisible { snapshot: snapshot.clone(), before })
            }
            SyncStep::Listing { .. } | SyncStep::Doubting { .. } | SyncStep::Searching { .. } => {
                Turn::Wait(Wait::Answer)
            }
        }
    }

    /// The next event of the initial sync.
    pub(super) fn event(&mut self, event: SnapshotEvent) {
        let has_wildcard = self.shape.key().has_wildcard();
        let Phase::Syncing(sync) = &mut self.phase else { return };
        match event {
            SnapshotEvent::Restarted => {
                sync.progress = Progress { done: 0, estimate: None };
                sync.synced.clear();
                self.told.clear();
                self.subscribed(Mode::Snapshot, Cursor::ZERO);
            }
            SnapshotEvent::Relation(relation) => {
                sync.synced.insert(relation.oid(), relation.name().clone());
                self.tell_relation(&relation);
            }
            SnapshotEvent::Progress { done, estimate } => {
                // The planner's numbers are about everybody's rows.
                let is_told = !self.shape.wanted().is_restricted();
                sync.progress = Progress { done, estimate: is_told.then_some(estimate) };
            }
            SnapshotEvent::Rows { relation, json, .. } => {
                // Rows of what is not wanted are not asked for.
                let Some(selection) = self.shape.wanted().of(relation.name()) else { return };
                let projection = Projection::new(&relation, selection);
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

    /// The initial sync cannot be had. With a pattern that may be because a table of the list is gone.
    pub(super) fn sync_refused(&mut self, refusal: Refusal) {
        let has_wildcard = self.shape.key().has_wildcard();
        match &mut self.phase {
            Phase::Syncing(sync) if has_wildcard && refusal.code == ErrorCode::UnknownTable => {
                sync.step = SyncStep::Doubting { refusal, asked: false };
            }
            _ => self.refuse(refusal),
        }
    }

    /// The published tables as they are after the rows were read, or could not be.
    pub(super) fn relisted(&mut self, tables: Result<Arc<Vec<KnownTable>>, Refusal>) {
        let tables = match tables {
            Ok(tables) => tables,
            Err(refusal) => return self.refuse(refusal),
        };
        let Phase::Syncing(sync) = &mut self.phase else { return };
        match &sync.step {
            SyncStep::Doubting { refusal, .. } => {
                let refusal = refusal.clone();
                let wanted = Sync::tables_of(&self.shape, &tables);
                if wanted == sync.tables {
                    return self.refuse(refusal);
                }
                self.start_over(tables, "a table is gone that was listed");
            }
            SyncStep::Listing { snapshot, barrier, .. } => {
                let Some(missing) = sync.missing(&self.shape, &tables) else {
                    sync.step =
                        SyncStep::Searching { snapshot: snapshot.clone(), barrier: *barrier, before: None };
                    return;
                };
                let why = format!("{missing} appeared, or is another table now");
                self.start_over(tables, &why);
            }
            // Nobody asked.
            _ => {}
        }
    }

    /// Begins the initial sync again, of other tables, unless that was done too often.
    fn start_over(&mut self, published: Arc<Vec<KnownTable>>, why: &str) {
        let Phase::Syncing(sync) = &self.phase else { return };
        if sync.relists == RELISTS_MAX {
            let message = format!("tables keep changing during the initial sync: {why}");
            let hint = "ask again when that is over, or name the tables one by one";
            return self.refuse(Refusal::new(ErrorCode::NotReady, message).hint(hint));
        }
        tracing::info!(id = %self.id, why, "an initial sync starts over");
        let relists = sync.relists + 1;
        self.told.clear();
        self.bind_before(Then::Sync { published, relists });
    }

    /// Begins the seam at the first transaction that the snapshot does not see.
    pub(super) fn seam(&mut self, first: Option<Cursor>) {
        let Phase::Syncing(sync) = &mut self.phase else { return };
        let SyncStep::Searching { snapshot, barrier, before: Some(before) } = &sync.step else { return };
        let (barrier, from) = (*barrier, first.unwrap_or(*before));
        let oids = sync.synced.keys().copied().collect();
        let names = sync.synced.values().cloned().collect();
        let synced = Synced { snapshot: snapshot.clone(), oids, names };
        // The barrier of the initial sync was written after the subscription was asked for, too.
        self.barrier = Some(self.barrier.map_or(barrier, |own| own.min(barrier)));
        self.world.router.listen(&self.shape);
        self.phase = Phase::Streaming(Stream::seam(from, synced, barrier));
    }

    /// The end of the seam: from here on everything is sent, with cursors.
    pub(super) fn complete(&mut self, cursor: Cursor) {
        let id = self.id.clone();
        self.send(SnapshotComplete { id, cursor });
        // The copy that had its own transactions was there until now.
        self.echo_from = self.world.feed.head();
        self.first_cursor = cursor;
        self.last_cursor = self.last_cursor.max(cursor);
    }
}
