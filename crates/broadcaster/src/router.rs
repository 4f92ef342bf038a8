//! Who is concerned by what: looks at each new part once and wakes the shapes that it concerns, and nobody else.

mod altered;
mod index;

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::task::{consume_budget, spawn_blocking, yield_now};
use tokio_util::sync::CancellationToken;
use walcast_feed::{Feed, Read};
use walcast_filter::Schema;
use walcast_model::{Cursor, Part};

use crate::catalog::Catalog;
use crate::encode::Encoded;
use crate::limits::Limits;
use crate::metrics as names;
use crate::shape::{Ear, KeptBytes, Shape};
use crate::wanted::{ShapeKey, Unbindable};
use index::{Definition, Index};

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
    counted: names::Encoded,
}

/// Where frames were kept for several sessions, oldest first. Those that a shape let go of since are still listed.
type KeptList = VecDeque<(Weak<Shape>, Cursor)>;

/// A session's hold on a shape; the shape is forgotten with the last of them.
#[derive(Debug)]
pub(crate) struct ShapeHandle {
    shape: Arc<Shape>,
    router: Arc<Router>,
    ear: Ear,
}

impl Deref for ShapeHandle {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl ShapeHandle {
    /// The shape, without a hold on it.
    pub(crate) fn shape(&self) -> Arc<Shape> {
        Arc::clone(&self.shape)
    }

    /// The frames of a whole part of the feed, kept for others if there are any.
    pub(crate) fn frames(&self, part: &Part) -> Arc<Encoded> {
        let shared = self.shape.sessions.load(Ordering::Relaxed) > 1;
        let (encoded, kept) = self.shape.encoded(part, shared.then_some(&self.router.kept_bytes));
        self.router.counted.encoded.increment(1);
        if kept {
            self.router.kept(&self.shape, part.cursor());
        }
        encoded
    }

    /// Ready when something after `cursor` may concern the shape; whoever asks is woken then.
    pub(crate) fn poll_concerned(&self, cursor: Cursor, cx: &Context<'_>) -> Poll<()> {
        self.shape.poll_concerned(self.ear, cursor, cx)
    }

    /// Counts frames that were there already.
    pub(crate) fn count_shared(&self) {
        self.router.counted.shared.increment(1);
    }
}

impl Drop for ShapeHandle {
    fn drop(&mut self) {
        self.shape.take_back(self.ear);
        // Under the lock that new sessions take, so that none joins a shape that is being forgotten.
        let mut index = self.router.index();
        if self.shape.sessions.fetch_sub(1, Ordering::Relaxed) == 1 {
            index.remove(&self.shape);
            gauge!(names::SHAPES).set(index.len() as f64);
        }
    }
}

impl Router {
    pub(crate) fn new(feed: Feed, limits: Limits) -> Arc<Self> {
        // What was there before has no session to concern.
        let seen = watch::Sender::new(feed.head());
        let (index, kept, kept_bytes) = (Mutex::default(), Mutex::default(), KeptBytes::default());
        Arc::new(Self { feed, limits, index, seen, kept, kept_bytes, counted: names::Encoded::new() })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shape for a key. The router tells it of nothing before [`Router::listen`].
    pub(crate) fn shape(self: &Arc<Self>, key: ShapeKey) -> ShapeHandle {
        let key = Arc::new(key);
        let mut index = self.index();
        let shape = match index.get(&key) {
            Some(shape) => Arc::clone(shape),
            None => {
                let shape = Arc::new(Shape::new(key, self.seen(), self.limits.shape_hits_max));
                index.add(&shape);
                gauge!(names::SHAPES).set(index.len() as f64);
                shape
            }
        };
        shape.sessions.fetch_add(1, Ordering::Relaxed);
        drop(index);
        let ear = shape.lend_ear();
        ShapeHandle { shape, router: Arc::clone(self), ear }
    }

    /// Tells a shape of everything from now on, unless it is told already.
    pub(crate) fn listen(&self, shape: &Shape) {
        let mut index = self.index();
        if index.list(shape) {
            // In the lock in which `seen` moves: no part falls between.
            shape.begin(self.seen());
        }
    }

    /// Binds a shape's filter to a definition of its table: from now on it is told of changes that can concern it only.
    ///
    /// # Errors
    /// When it does not fit.
    pub(crate) fn bind(&self, shape: &Shape, schema: &Arc<Schema>) -> Result<(), Unbindable> {
        shape.wanted().bind(schema)?;
        self.index().bound(shape, schema.relation());
        Ok(())
    }

    /// Everything before it was looked at.
    pub(crate) fn seen(&self) -> Cursor {
        *self.seen.borrow()
    }

    pub(crate) fn watch_seen(&self) -> watch::Receiver<Cursor> {
        self.seen.subscribe()
    }

    /// Follows the feed until it is cancelled, also when that never ends. Without it, no session hears of anything new.
    pub(crate) async fn follow(&self, catalog: &Catalog, cancel: CancellationToken) {
        let mut head = self.feed.watch_head();
        let (mut met, mut rebinding) = (None, VecDeque::new());
        while !cancel.is_cancelled() {
            // Beside what comes, and not before it.
            self.rebind_some(&mut rebinding);
            head.mark_unchanged();
            let from = self.seen();
            match self.feed.read(from, BATCH_BYTES) {
                Read::Parts { parts, next } => {
                    let mut routed = 0;
                    for (place, part) in parts.iter().enumerate() {
                        let new = self.new_definitions(part, &mut met);
                        if new.is_empty() {
                            continue;
                        }
                        // What comes before does not wait for it.
                        if let Some(before @ [.., last]) = parts.get(routed..place) {
                            self.route_on(before, last.next_cursor());
                        }
                        routed = place;
                        for relation in new {
                            rebinding.extend(self.meet(&relation, part, catalog).await);
                        }
                    }
                    self.route_on(parts.get(routed..).unwrap_or_default(), next);
                }
                Read::AtHead { head } if head > from => self.route(&[], head),
                Read::Behind { oldest } => self.overtaken(oldest),
                Read::AtHead { .. } if !rebinding.is_empty() => yield_now().await,
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
            consume_budget().await;
        }
    }

    /// As [`Router::route`]; what is no longer in force is thrown away elsewhere.
    fn route_on(&self, parts: &[Arc<Part>], next: Cursor) {
        let former = self.look_at(parts, next);
        if !former.is_empty() {
            drop(spawn_blocking(move || drop(former)));
        }
    }

    /// Looks at parts; everything before `next` is then seen.
    pub(crate) fn route(&self, parts: &[Arc<Part>], next: Cursor) {
        drop(self.look_at(parts, next));
    }

    fn look_at(&self, parts: &[Arc<Part>], next: Cursor) -> Vec<Definition> {
        let mut woken: Vec<Arc<Shape>> = Vec::new();
        let oldest = self.feed.oldest();
        let former = {
            let mut index = self.index();
            for part in parts {
                index.concerned(part, oldest, &mut woken);
            }
            self.seen.send_replace(next);
            index.take_former()
        };
        for shape in woken {
            shape.wake(next);
        }
        former
    }

    pub(crate) fn overtaken(&self, oldest: Cursor) {
        counter!(names::OVERTAKEN).increment(1);
        let index = self.index();
        for shape in index.all() {
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

#[cfg(test)]
mod tests;
