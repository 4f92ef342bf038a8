//! The byte-bounded ring of recent parts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walcast_model::{Cursor, Lsn, Part};

use crate::metrics::{MEMORY_BYTES, MEMORY_LIMIT_BYTES};
use crate::outages::Outages;
use crate::slot_wal::SlotWal;
use crate::source_state::SourceState;

/// The bounds of a feed.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Memory for recent parts, in bytes. When it is reached, what history has is evicted; while history does not
    /// have it yet, the writer waits. The last part may reach over it, so that a part of any size fits.
    pub memory_bytes_max: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { memory_bytes_max: 64 << 20 }
    }
}

#[derive(Debug)]
struct Ring {
    /// In order, without overlap; whatever of `oldest..head` is not covered by an entry holds no change.
    parts: VecDeque<Arc<Part>>,
    memory_bytes: usize,
    oldest: Cursor,
    stored: Cursor,
    head: Cursor,
}

#[derive(Debug)]
struct Shared {
    // Held for short synchronous sections only: every reader and the writer touch the ring, and the work
    // inside is a binary search and some reference counts.
    ring: Mutex<Ring>,
    head: watch::Sender<Cursor>,
    stored: watch::Sender<Cursor>,
    source: watch::Sender<SourceState>,
    slot_wal: watch::Sender<Option<SlotWal>>,
    outages: Outages,
    limits: FeedLimits,
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evict(&self, ring: &mut Ring) {
        while ring.memory_bytes >= self.limits.memory_bytes_max {
            let Some(front) = ring.parts.front() else { return };
            let next = front.next_cursor();
            if next > ring.stored {
                return;
            }
            ring.memory_bytes -= front.memory_bytes();
            ring.oldest = next;
            ring.parts.pop_front();
        }
    }
}

/// The index of the first part that reaches past `from`. Readers are near the head as a rule, and a long ring is far
/// larger than the processor's caches: looks back from the head in growing steps, and searches only the last of them.
fn first_after(parts: &VecDeque<Arc<Part>>, from: Cursor) -> usize {
    let is_before = |index: usize| parts.get(index).is_some_and(|part| part.next_cursor() <= from);
    let (mut low, mut high, mut back) = (0, parts.len(), 1);
    while back <= parts.len() {
        let index = parts.len() - back;
        if is_before(index) {
            low = index + 1;
            break;
        }
        high = index;
        back *= 2;
    }
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// What [`Feed::read`] found at a cursor.
#[derive(Debug)]
pub enum Read {
    /// Parts in order, at least one. The first may begin before the cursor that was asked for: then its
    /// changes before the cursor are not to be delivered again.
    Parts {
        /// The parts.
        parts: Vec<Arc<Part>>,
        /// Where to read next.
        next: Cursor,
    },
    /// Nothing between the cursor and the head: wait for [`Feed::watch_head`]. The head may be before the
    /// cursor, when a client knows more than a daemon that has just started.
    AtHead {
        /// The head.
        head: Cursor,
    },
    /// The feed no longer holds what follows the cursor: read history up to `oldest` first.
    Behind {
        /// From here on the feed has everything.
        oldest: Cursor,
    },
}

/// A reader's handle to the feed; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

/// The one writer's handle to the feed.
#[derive(Debug)]
pub struct FeedWriter {
    shared: Arc<Shared>,
}

impl Feed {
    /// A feed that continues at `position`: everything before it is in history.
    #[must_use]
    pub fn new(position: Cursor, limits: FeedLimits) -> (FeedWriter, Self) {
        let ring = Ring {
            parts: VecDeque::new(),
            memory_bytes: 0,
            oldest: position,
            stored: position,
            head: position,
        };
        metrics::gauge!(MEMORY_LIMIT_BYTES).set(limits.memory_bytes_max as f64);
        let shared = Arc::new(Shared {
            ring: Mutex::new(ring),
            head: watch::Sender::new(position),
            stored: watch::Sender::new(position),
            source: watch::Sender::new(SourceState::Starting),
            slot_wal: watch::Sender::new(None),
            outages: Outages::default(),
            limits,
        });
        (FeedWriter { shared: Arc::clone(&shared) }, Self { shared })
    }

    /// Reads what follows `from`, up to about `bytes_max` bytes of JSON but at least one part.
    #[must_use]
    pub fn read(&self, from: Cursor, bytes_max: usize) -> Read {
        let ring = self.shared.ring();
        if from < ring.oldest {
            return Read::Behind { oldest: ring.oldest };
        }
        let first = first_after(&ring.parts, from);
        let mut parts = Vec::new();
        let mut bytes = 0;
        for part in ring.parts.range(first..) {
            if !parts.is_empty() && bytes + part.json().len() > bytes_max {
                break;
            }
            bytes += part.json().len();
            parts.push(Arc::clone(part));
        }
        match parts.last() {
            // Having taken all there is, the reader stands at the head, past anything unpublished.
            Some(_) if first + parts.len() == ring.parts.len() => Read::Parts { parts, next: ring.head },
            Some(last) => {
                let next = last.next_cursor();
                Read::Parts { parts, next }
            }
            None => Read::AtHead { head: ring.head },
        }
    }

    /// Everything before it is in the feed or in history.
    #[must_use]
    pub fn head(&self) -> Cursor {
        *self.shared.head.borrow()
    }

    /// Sees every move of the head.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<Cursor> {
        self.shared.head.subscribe()
    }

    /// From here on the feed has everything; before it only history has.
    #[must_use]
    pub fn oldest(&self) -> Cursor {
        self.shared.ring().oldest
    }

    /// Every change before it is durable in history.
    #[must_use]
    pub fn stored(&self) -> Cursor {
        *self.shared.stored.borrow()
    }

    /// Sees every move of [`Feed::stored`].
    #[must_use]
    pub fn watch_stored(&self) -> watch::Receiver<Cursor> {
        self.shared.stored.subscribe()
    }

    /// Says that every change before `position` is durable in history; only the history's appender knows.
    /// A position that is not later than the last one changes nothing.
    pub fn mark_stored(&self, position: Cursor) {
        let memory_bytes = {
            let mut ring = self.shared.ring();
            debug_assert!(position <= ring.head, "stored {position} is past the head {}", ring.head);
            if position <= ring.stored {
                return;
            }
            ring.stored = position;
            self.shared.evict(&mut ring);
            ring.memory_bytes
        };
        metrics::gauge!(MEMORY_BYTES).set(memory_bytes as f64);
        self.shared.stored.send_replace(position);
    }

    /// Memory that the parts hold, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.shared.ring().memory_bytes
    }

    /// How the source is doing.
    #[must_use]
    pub fn source(&self) -> watch::Receiver<SourceState> {
        self.shared.source.subscribe()
    }

    /// Says that the source is interrupted, for one who knows it before the writer does.
    pub fn interrupt(&self, reason: String, hint: Option<String>) {
        self.shared.source.send_replace(SourceState::Interrupted { reason, hint });
    }

    /// What else does not work at the moment, of those that read and write this feed.
    #[must_use]
    pub fn outages(&self) -> &Outages {
        &self.shared.outages
    }

    /// What the slot keeps of the source's WAL; `None` while that is not known.
    #[must_use]
    pub fn slot_wal(&self) -> Option<SlotWal> {
        self.shared.slot_wal.borrow().clone()
    }

    /// Says what the slot keeps; only whoever watches it knows.
    pub fn set_slot_wal(&self, found: Option<SlotWal>) {
        self.shared.slot_wal.send_replace(found);
    }
}

impl FeedWriter {
    /// Appends parts in order and wakes the readers once per call, waiting for history while the feed is full.
    ///
    /// Cancel safety: when dropped while it waits, the parts before that are appended and the others are lost;
    /// the writer must then not be used again.
    pub async fn push(&mut self, parts: Vec<Part>) {
        let mut stored = self.shared.stored.subscribe();
        let mut parts = parts.into_iter();
        while !self.append(&mut parts) {
            // What is in the ring must be seen to be stored: wake the readers before waiting for one of them.
            self.publish_head();
            if stored.changed().await.is_err() {
                return;
            }
        }
        self.publish_head();
    }

    /// Appends as many parts as there is memory for: whether that was all of them.
    fn append(&self, parts: &mut std::vec::IntoIter<Part>) -> bool {
        let (memory_bytes, all) = {
            let mut ring = self.shared.ring();
            let all = loop {
                if parts.len() == 0 {
                    break true;
                }
                self.shared.evict(&mut ring);
                if ring.memory_bytes >= self.shared.limits.memory_bytes_max {
                    break false;
                }
                let Some(part) = parts.next() else { break true };
                debug_assert!(
                    part.cursor() >= ring.head,
                    "part {} is before the head {}",
                    part.cursor(),
                    ring.head
                );
                ring.memory_bytes += part.memory_bytes();
                ring.head = part.next_cursor();
                ring.parts.push_back(Arc::new(part));
            };
            (ring.memory_bytes, all)
        };
        metrics::gauge!(MEMORY_BYTES).set(memory_bytes as f64);
        all
    }

    /// Says that everything before `reached` was seen, published or not. A position that is not later than
    /// the head changes nothing. Must not be called in the middle of a transaction.
    pub fn advance(&mut self, reached: Lsn) {
        let moved = {
            let mut ring = self.shared.ring();
            let later = Cursor::from(reached) > ring.head;
            if later {
                ring.head = reached.into();
            }
            later
        };
        if moved {
            self.publish_head();
        }
    }

    /// The position from which the source has to go on: the head.
    #[must_use]
    pub fn head(&self) -> Cursor {
        self.shared.ring().head
    }

    /// Every change before it is durable in history.
    #[must_use]
    pub fn stored(&self) -> Cursor {
        *self.shared.stored.borrow()
    }

    /// Waits until every change before `position`, which is not after the head, is durable in history. Cancel-safe.
    pub async fn until_stored(&self, position: Cursor) {
        let mut stored = self.shared.stored.subscribe();
        // Fails only when the feed is gone.
        let _ = stored.wait_for(|stored| *stored >= position).await;
    }

    /// Says how the source is doing.
    pub fn set_source(&self, state: SourceState) {
        self.shared.source.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    fn publish_head(&self) {
        let head = self.head();
        self.shared.head.send_if_modified(|current| {
            let moved = *current < head;
            *current = head.max(*current);
            moved
        });
    }
}

#[cfg(test)]
mod tests;
