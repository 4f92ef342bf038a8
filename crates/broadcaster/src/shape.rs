//! What is kept for all sessions that want the same.

mod ears;
mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use walcast_model::{Cursor, Part};

use crate::encode::{self, Encoded, View};
use crate::wanted::{ShapeKey, Wanted};
pub(crate) use ears::Ear;
use ears::Ears;
use traffic::Traffic;
pub(crate) use traffic::{Next, Noted, Only};

/// Bytes of all frames that are kept encoded, over all shapes.
pub(crate) type KeptBytes = Arc<AtomicUsize>;

/// For so many sessions at the most a shape remembers more than for one: what is further behind is seldom wanted by several.
const HITS_SESSIONS_MAX: usize = 64;

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
    // Short synchronous sections too.
    ears: Mutex<Ears>,
    /// `Limits::shape_hits_max`.
    hits_max: usize,
    /// How many sessions have it; the router's business.
    pub(crate) sessions: AtomicUsize,
}

impl Shape {
    /// A shape that the router tells of nothing before [`Shape::begin`].
    pub(crate) fn new(key: Arc<ShapeKey>, since: Cursor, hits_max: usize) -> Self {
        let traffic = Mutex::new(Traffic::new());
        Self {
            wanted: Wanted::new(key),
            traffic,
            ears: Mutex::new(Ears::new(since)),
            hits_max,
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

    /// The router tells it of everything from `since` on.
    pub(crate) fn begin(&self, since: Cursor) {
        self.traffic().begin(since);
    }

    /// Notes that a part concerns it, without waking anybody; the same part again changes nothing.
    /// Only the changes in `only` can, if that is known.
    /// Parts before `oldest` are forgotten: the feed does not have them any more.
    pub(crate) fn note(&self, part: &Part, only: Only, oldest: Cursor) -> Noted {
        let mut traffic = self.traffic();
        traffic.forget_before(oldest);
        // For each of its sessions as much: those that share it encode what it does not know each for itself.
        let sessions = self.sessions.load(Ordering::Relaxed).clamp(1, HITS_SESSIONS_MAX);
        traffic.note(part.cursor(), part.next_cursor(), only, self.hits_max.saturating_mul(sessions))
    }

    /// Wakes its sessions: there may be something before `until`.
    pub(crate) fn wake(&self, until: Cursor) {
        self.traffic().woken();
        let woken = self.ears().call(until);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Says that the router did not see what is before `oldest`: whoever is before it has to look for himself.
    pub(crate) fn overtaken(&self, oldest: Cursor) {
        self.traffic().overtaken(oldest);
        self.wake(oldest);
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to listen, for a session; to be given back with it.
    pub(crate) fn lend_ear(&self) -> Ear {
        self.ears().lend()
    }

    pub(crate) fn take_back(&self, ear: Ear) {
        self.ears().take_back(ear);
    }

    /// Ready when something after `cursor` may concern it; whoever asks is woken then.
    pub(super) fn poll_concerned(&self, ear: Ear, cursor: Cursor, cx: &Context<'_>) -> Poll<()> {
        self.ears().poll(ear, cursor, cx)
    }

    /// After the newest part that concerns it.
    #[cfg(test)]
    pub(crate) fn concerned(&self) -> Cursor {
        self.ears().until()
    }

    /// What comes after `cursor`, as far as the router has told. Ask the router how far that is *before*.
    pub(crate) fn next(&self, cursor: Cursor) -> Next {
        let mut traffic = self.traffic();
        // Whoever joins from further back looks for himself.
        if self.sessions.load(Ordering::Relaxed) == 1 {
            traffic.forget_before(cursor);
        }
        traffic.next(cursor)
    }

    /// The frames of a whole part. With `keep` they are kept for others, and counted there, if the part is among
    /// those that concern the shape; the answer says whether they are now.
    pub(crate) fn encoded(&self, part: &Part, keep: Option<&KeptBytes>) -> (Arc<Encoded>, bool) {
        let mut traffic = self.traffic();
        if keep.is_some()
            && let Some(encoded) = traffic.encoded(part.cursor())
        {
            return (encoded, false);
        }
        let only = traffic.only(part.cursor());
        let encode =
            || Arc::new(encode::part(part, &self.wanted, View { only: only.as_deref(), ..View::whole() }));
        let Some(kept_bytes) = keep else {
            drop(traffic);
            return (encode(), false);
        };
        // Inside the lock, so that of the sessions that were woken together one encodes and the others take it.
        let encoded = encode();
        if encoded.gap.is_some() {
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
