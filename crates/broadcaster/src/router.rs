//! Who is concerned by what: looks at each new part once and wakes the shapes that it concerns, and nobody else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Feed, Read};
use walcast_model::{Cursor, Part, RelationName};
use walcast_protocol::TablePattern;

use crate::encode::Encoded;
use crate::limits::Limits;
use crate::metrics as names;
use crate::request::ShapeKey;
use crate::shape::{KeptBytes, Noted, Shape};

/// JSON that is looked at between two looks at the lock, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// What an entry in the list of kept frames costs, whether or not the frames are still there, in bytes.
const KEPT_FIXED_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct Router {
    feed: Feed,
    limits: Limits,
    // Short synchronous sections: the router looks up the tables of a batch of parts, subscribers come and go.
    index: Mutex<Index>,
    /// Everything before it was looked at.
    seen: watch::Sender<Cursor>,
    // Locked after a shape, never before.
    kept: Mutex<KeptList>,
    kept_bytes: KeptBytes,
    hot: names::Hot,
}

/// Shapes in use, by what they name.
#[derive(Debug, Default)]
struct Index {
    shapes: HashMap<ShapeKey, (ShapeNumber, Arc<Shape>)>,
    tables: HashMap<RelationName, Shapes>,
    schemas: HashMap<String, Shapes>,
    everywhere: Shapes,
    made: ShapeNumber,
}

/// Counts shapes in the order in which they were made.
type ShapeNumber = u64;

/// Shapes that name the same: to go through, and to take one out of without looking at the others.
type Shapes = BTreeMap<ShapeNumber, Arc<Shape>>;

/// Where frames were kept for several sessions, oldest first. Those that a shape let go of since are still listed.
type KeptList = VecDeque<(Weak<Shape>, Cursor)>;

/// A session's hold on a shape; the shape is forgotten with the last of them.
#[derive(Debug)]
pub(crate) struct ShapeHandle {
    shape: Arc<Shape>,
    router: Arc<Router>,
}

impl Deref for ShapeHandle {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl ShapeHandle {
    /// The frames of a whole part of the feed, kept for others if there are any.
    pub(crate) fn frames(&self, part: &Part) -> Arc<Encoded> {
        let shared = self.shape.sessions.load(Ordering::Relaxed) > 1;
        let (encoded, kept) = self.shape.encoded(part, shared.then_some(&self.router.kept_bytes));
        self.router.hot.encoded.increment(1);
        if kept {
            self.router.kept(&self.shape, part.cursor());
        }
        encoded
    }

    /// Counts frames that were there already.
    pub(crate) fn count_shared(&self) {
        self.router.hot.shared.increment(1);
    }
}

impl Drop for ShapeHandle {
    fn drop(&mut self) {
        // Under the lock that new sessions take, so that none joins a shape that is being forgotten.
        let mut index = self.router.index();
        if self.shape.sessions.fetch_sub(1, Ordering::Relaxed) == 1 {
            index.remove(&self.shape);
            gauge!(names::SHAPES).set(index.shapes.len() as f64);
        }
    }
}

impl Router {
    pub(crate) fn new(feed: Feed, limits: Limits) -> Arc<Self> {
        // What was there before has no session to concern.
        let seen = watch::Sender::new(feed.head());
        let (index, kept, kept_bytes) = (Mutex::default(), Mutex::default(), KeptBytes::default());
        Arc::new(Self { feed, limits, index, seen, kept, kept_bytes, hot: names::Hot::new() })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shape for a key; the router tells it of everything from now on.
    pub(crate) fn shape(self: &Arc<Self>, key: ShapeKey) -> ShapeHandle {
        let mut index = self.index();
        let shape = match index.shapes.get(&key) {
            Some((_, shape)) => Arc::clone(shape),
            None => {
                // In the lock in which `seen` moves: no part falls between.
                let shape = Arc::new(Shape::new(key, self.seen(), self.limits.shape_hits_max));
                index.add(&shape);
                gauge!(names::SHAPES).set(index.shapes.len() as f64);
                shape
            }
        };
        shape.sessions.fetch_add(1, Ordering::Relaxed);
        drop(index);
        ShapeHandle { shape, router: Arc::clone(self) }
    }

    /// Everything before it was looked at.
    pub(crate) fn seen(&self) -> Cursor {
        *self.seen.borrow()
    }

    pub(crate) fn watch_seen(&self) -> watch::Receiver<Cursor> {
        self.seen.subscribe()
    }

    /// Follows the feed until it is cancelled, also when that never ends. Without it, no session hears of anything new.
    pub(crate) async fn follow(&self, cancel: CancellationToken) {
        let mut head = self.feed.watch_head();
        while !cancel.is_cancelled() {
            head.mark_unchanged();
            let from = self.seen();
            match self.feed.read(from, BATCH_BYTES) {
                Read::Parts { parts, next } => self.route(&parts, next),
                Read::AtHead { head } if head > from => self.route(&[], head),
                Read::Behind { oldest } => self.overtaken(oldest),
                Read::AtHead { .. } => {
                    // Both are cancel-safe.
                    tokio::select! {
                        changed = head.changed() => if changed.is_err() { return },
                        () = cancel.cancelled() => return,
                    }
                    continue;
                }
            }
            // Sessions want the processor too.
            tokio::task::consume_budget().await;
        }
    }

    /// Looks at parts; everything before `next` is then seen.
    pub(crate) fn route(&self, parts: &[Arc<Part>], next: Cursor) {
        let mut woken: Vec<Arc<Shape>> = Vec::new();
        {
            let index = self.index();
            for part in parts {
                index.concerned(part, &mut woken);
            }
            self.seen.send_replace(next);
        }
        for shape in woken {
            shape.wake(next);
        }
    }

    pub(crate) fn overtaken(&self, oldest: Cursor) {
        counter!(names::OVERTAKEN).increment(1);
        let index = self.index();
        for (_, shape) in index.shapes.values() {
            shape.overtaken(oldest);
        }
        self.seen.send_replace(oldest);
    }

    /// Notes that a shape keeps the frames of the part at `cursor`, and forgets the oldest while there are too many.
    fn kept(&self, shape: &Arc<Shape>, cursor: Cursor) {
        let mut new = Some((Arc::downgrade(shape), cursor));
        loop {
            let oldest = {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(new.take());
                let bytes = self.kept_bytes.load(Ordering::Relaxed) + kept.len() * KEPT_FIXED_BYTES;
                gauge!(names::ENCODED_BYTES).set(bytes as f64);
                if bytes <= self.limits.encoded_bytes_max {
                    return;
                }
                kept.pop_front()
            };
            let Some((shape, cursor)) = oldest else { return };
            if let Some(shape) = shape.upgrade() {
                shape.forget(cursor);
            }
        }
    }
}

impl Index {
    fn add(&mut self, shape: &Arc<Shape>) {
        let number = self.made;
        self.made += 1;
        for pattern in shape.key().tables.keys() {
            let list = match pattern {
                TablePattern::All => &mut self.everywhere,
                TablePattern::Schema(schema) => self.schemas.entry(schema.clone()).or_default(),
                TablePattern::Table(name) => self.tables.entry(name.clone()).or_default(),
            };
            list.insert(number, Arc::clone(shape));
        }
        self.shapes.insert(shape.key().clone(), (number, Arc::clone(shape)));
    }

    fn remove(&mut self, shape: &Shape) {
        let Some((number, _)) = self.shapes.remove(shape.key()) else { return };
        for pattern in shape.key().tables.keys() {
            match pattern {
                TablePattern::All => drop(self.everywhere.remove(&number)),
                TablePattern::Schema(schema) => take_out(&mut self.schemas, schema, number),
                TablePattern::Table(name) => take_out(&mut self.tables, name, number),
            }
        }
    }

    /// Tells the shapes that `part` concerns of it, and adds those that are not yet there to `woken`.
    fn concerned(&self, part: &Part, woken: &mut Vec<Arc<Shape>>) {
        let mut note = |shape: &Arc<Shape>| {
            if shape.note(part) == Noted::First {
                woken.push(Arc::clone(shape));
            }
        };
        let mut last: Option<&RelationName> = None;
        for change in part.changes() {
            let name = change.relation.name();
            if last.is_some_and(|last| std::ptr::eq(last, name) || last == name) {
                continue;
            }
            last = Some(name);
            let lists = [self.tables.get(name), self.schemas.get(&name.schema), Some(&self.everywhere)];
            lists.into_iter().flatten().flat_map(BTreeMap::values).for_each(&mut note);
        }
    }
}

/// Takes a shape out of the list under `name`, and the list with the last of it.
fn take_out<N: Hash + Eq>(lists: &mut HashMap<N, Shapes>, name: &N, number: ShapeNumber) {
    if let Some(list) = lists.get_mut(name) {
        list.remove(&number);
        if list.is_empty() {
            lists.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
