//! The byte-bounded ring of recent parts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walcast_model::{Cursor, Lsn, Part};

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
        let shared = Arc::new(Shared {
            ring: Mutex::new(ring),
            head: watch::Sender::new(position),
            stored: watch::Sender::new(position),
            source: watch::Sender::new(SourceState::Starting),
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
        let first = ring.parts.partition_point(|part| part.next_cursor() <= from);
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
        {
            let mut ring = self.shared.ring();
            debug_assert!(position <= ring.head, "stored {position} is past the head {}", ring.head);
            if position <= ring.stored {
                return;
            }
            ring.stored = position;
            self.shared.evict(&mut ring);
        }
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
}

impl FeedWriter {
    /// Appends parts in order and wakes the readers once per call, waiting for history while the feed is full.
    ///
    /// Cancel safety: when dropped while it waits, the parts before that are appended and the others are lost;
    /// the writer must then not be used again.
    pub async fn push(&mut self, parts: Vec<Part>) {
        let mut stored = self.shared.stored.subscribe();
        for part in parts {
            let part = Arc::new(part);
            while !self.try_push_one(&part) {
                // What is in the ring must be seen to be stored: wake the readers before waiting for one of them.
                self.publish_head();
                if stored.changed().await.is_err() {
                    return;
                }
            }
        }
        self.publish_head();
    }

    fn try_push_one(&self, part: &Arc<Part>) -> bool {
        let mut ring = self.shared.ring();
        self.shared.evict(&mut ring);
        if ring.memory_bytes >= self.shared.limits.memory_bytes_max {
            return false;
        }
        debug_assert!(part.cursor() >= ring.head, "part {} is before the head {}", part.cursor(), ring.head);
        ring.memory_bytes += part.memory_bytes();
        ring.head = part.next_cursor();
        ring.parts.push_back(Arc::clone(part));
        true
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
mod tests {
    use std::sync::Arc;

    use walcast_model::{
        CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName,
        ReplicaIdentity, Seq, Timestamp, Transaction, Xid,
    };

    use super::{Feed, FeedLimits, Read};

    /// A part of `count` changes at `start`; with an end unless more parts follow.
    fn part(start: u64, first: i64, count: usize, end: Option<u64>) -> Part {
        let name = RelationName::new("public", "t");
        let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, Vec::new()));
        let start = CommitStart::new(Lsn::new(start));
        let transaction = Transaction { start, xid: Xid::new(1), committed_at: Timestamp::default() };
        let mut builder = PartBuilder::new(Arc::new(transaction), Seq::new(first));
        for _ in 0..count {
            builder.change(Op::Truncate, &relation).finish().unwrap();
        }
        builder.finish(end.map(|end| CommitEnd::new(Lsn::new(end))))
    }

    fn at(lsn: u64) -> Cursor {
        Lsn::new(lsn).into()
    }

    fn starts(read: Read) -> (Vec<Cursor>, Cursor) {
        match read {
            Read::Parts { parts, next } => (parts.iter().map(|part| part.cursor()).collect(), next),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn reading_from_any_cursor_gives_exactly_the_rest() {
        let (mut writer, feed) = Feed::new(at(10), FeedLimits::default());
        writer.push(vec![part(10, 0, 2, Some(20)), part(20, 0, 3, None), part(20, 3, 1, Some(30))]).await;
        assert_eq!(
            starts(feed.read(at(10), usize::MAX)),
            (vec![at(10), at(20), "0/14:3".parse().unwrap()], at(30))
        );
        assert_eq!(
            starts(feed.read("0/14:1".parse().unwrap(), 1)),
            (vec![at(20)], "0/14:3".parse().unwrap())
        );
        assert_eq!(starts(feed.read("0/14:3".parse().unwrap(), 1)).0, ["0/14:3".parse().unwrap()]);
        assert!(matches!(feed.read(at(30), 1), Read::AtHead { head } if head == at(30)));
        assert!(matches!(feed.read(at(9), 1), Read::Behind { oldest } if oldest == at(10)));
        writer.advance(Lsn::new(40));
        assert_eq!(starts(feed.read(at(15), usize::MAX)).1, at(40));
    }

    #[tokio::test]
    async fn a_full_feed_waits_for_history_and_evicts_only_what_history_has() {
        let one = part(10, 0, 1, Some(20)).memory_bytes();
        let (mut writer, feed) = Feed::new(at(0), FeedLimits { memory_bytes_max: one });
        writer.push(vec![part(10, 0, 1, Some(20))]).await;
        let blocked = tokio::spawn(async move {
            writer.push(vec![part(20, 0, 1, Some(30)), part(30, 0, 1, Some(40))]).await;
        });
        tokio::task::yield_now().await;
        assert_eq!(feed.head(), at(20));
        let mut head = feed.watch_head();
        feed.mark_stored(at(20));
        head.wait_for(|head| *head >= at(30)).await.unwrap();
        assert_eq!(feed.head(), at(30));
        feed.mark_stored(at(30));
        blocked.await.unwrap();
        assert_eq!(feed.head(), at(40));
        assert!(matches!(feed.read(at(10), 1), Read::Behind { .. }));
        assert!(feed.oldest() <= feed.stored());
    }
}
