//! What is kept for all sessions that want the same.

mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walcast_model::{Cursor, Part};

use crate::encode::{self, Encoded, View};
use crate::wanted::{ShapeKey, Wanted};
use traffic::Traffic;
pub(crate) use traffic::{Next, Noted, Only};

/// Bytes of all frames that are kept encoded, over all shapes.
pub(crate) type KeptBytes = Arc<AtomicUsize>;

/// Frames that are kept for several sessions, counted for as long as they are.
#[derive(Debug)]
pub(crate) struct Kept {
    frames: Arc<Encoded>,
    bytes: usize,
    all: KeptBytes,
}

impl Kept {
    fn new(frames: &Arc<Encoded>, all: &KeptBytes) -> Self {
        let bytes = frames.bytes();
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { frames: Arc::clone(frames), bytes, all: Arc::clone(all) }
    }

    fn frames(&self) -> Arc<Encoded> {
        Arc::clone(&self.frames)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A shape in use: shared by all sessions with the same [`ShapeKey`], whatever they call it.
///
/// It knows which recent parts concern it (the router tells), keeps their frames encoded when several sessions
/// want them, and wakes its sessions and nobody else's.
#[derive(Debug)]
pub(crate) struct Shape {
    wanted: Wanted,
    // Short synchronous sections: a binary search, or the encoding of one part that others wait for anyway.
    traffic: Mutex<Traffic>,
    /// After the newest part that concerns it.
    concerned: watch::Sender<Cursor>,
    /// How many sessions have it; the router's business.
    pub(crate) sessions: AtomicUsize,
}

impl Shape {
    /// A shape that the router tells of everything from `since` on.
    pub(crate) fn new(key: Arc<ShapeKey>, since: Cursor, hits_max: usize) -> Self {
        let traffic = Mutex::new(Traffic::new(since, hits_max));
        Self {
            wanted: Wanted::new(key),
            traffic,
            concerned: watch::Sender::new(since),
            sessions: AtomicUsize::new(0),
        }
    }

    pub(crate) const fn key(&self) -> &Arc<ShapeKey> {
        self.wanted.key()
    }

    pub(crate) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part concerns it, without waking anybody; the same part again changes nothing.
    /// Only the changes in `only` can, if that is known.
    pub(crate) fn note(&self, part: &Part, only: Only) -> Noted {
        self.traffic().note(part.cursor(), part.next_cursor(), only)
    }

    /// Wakes its sessions: there may be something before `until`.
    pub(crate) fn wake(&self, until: Cursor) {
        self.traffic().woken();
        self.concerned.send_if_modified(|current| {
            let moved = *current < until;
            *current = until.max(*current);
            moved
        });
    }

    /// Says that the router did not see what is before `oldest`: whoever is before it has to look for himself.
    pub(crate) fn overtaken(&self, oldest: Cursor) {
        self.traffic().overtaken(oldest);
        self.wake(oldest);
    }

    /// Sees when there is something for its sessions.
    pub(crate) fn watch(&self) -> watch::Receiver<Cursor> {
        self.concerned.subscribe()
    }

    /// What comes after `cursor`, as far as the router has told. Ask the router how far that is *before*.
    pub(crate) fn next(&self, cursor: Cursor) -> Next {
        self.traffic().next(cursor)
    }

    /// The frames of a whole part. With `keep` they are kept for others, and counted there, if the part is among
    /// those that concern the shape; the answer says whether they are now.
    pub(crate) fn encoded(&self, part: &Part, keep: Option<&KeptBytes>) -> (Arc<Encoded>, bool) {
        let mut traffic = self.traffic();
        let only = traffic.only(part.cursor());
        let encode =
            || Arc::new(encode::part(part, &self.wanted, View { only: only.as_deref(), ..View::whole() }));
        let Some(kept_bytes) = keep else {
            drop(traffic);
            return (encode(), false);
        };
        if let Some(encoded) = traffic.encoded(part.cursor()) {
            return (encoded, false);
        }
        // Inside the lock, so that of the sessions that were woken together one encodes and the others take it.
        let encoded = encode();
        if encoded.undecided.is_some() {
            return (encoded, false);
        }
        let kept = traffic.keep(part.cursor(), Kept::new(&encoded, kept_bytes));
        (encoded, kept)
    }

    /// Forgets the frames of one part.
    pub(crate) fn forget(&self, cursor: Cursor) {
        self.traffic().forget(cursor);
    }
}
