//! Barriers: proof that everything committed before now is in the feed.
//!
//! A barrier is a transactional logical message with a fresh id. Commit records are ordered, so when it comes
//! back through the slot, everything that committed before it has come too: also what was committed
//! asynchronously, and also on an idle database.
//!
//! ```text
//! Barriers::pass ──request──► emitter (SQL: pg_logical_emit_message) ──WAL──► replicator ── resolve(id, at)
//!       ▲                                                                                        │
//!       └─────────────────────────────── position ───────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use walcast_model::Cursor;

/// Registers barriers and asks for them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Barriers {
    waiting: Arc<Waiting>,
    requests: mpsc::UnboundedSender<oneshot::Sender<Cursor>>,
}

/// The emitter's end: who asks for a barrier. The one task that owns it writes the messages.
#[derive(Debug)]
pub struct BarrierRequests {
    waiting: Arc<Waiting>,
    requests: mpsc::UnboundedReceiver<oneshot::Sender<Cursor>>,
}

#[derive(Debug, Default)]
struct Waiting {
    // Short synchronous sections: one map access each.
    by_id: Mutex<HashMap<String, Vec<oneshot::Sender<Cursor>>>>,
}

impl Waiting {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Vec<oneshot::Sender<Cursor>>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>, senders: Vec<oneshot::Sender<Cursor>>) -> String {
        // 128 random bits: any role can write a message with our prefix, none can guess an id.
        let id = format!("{:032x}", rand::random::<u128>());
        self.map().insert(id.clone(), senders);
        id
    }
}

/// A barrier that was registered, and is to be written by whoever registered it. Forgotten when dropped.
#[derive(Debug)]
pub struct Barrier {
    id: String,
    waiting: Arc<Waiting>,
    position: oneshot::Receiver<Cursor>,
}

impl Barrier {
    /// What the message must contain.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the message has come back: everything before the position it returns is in the feed, and
    /// that is everything that was committed before the message was written. Waits for as long as the source
    /// is away; cancel-safe.
    pub async fn passed(&mut self) -> Cursor {
        match (&mut self.position).await {
            Ok(position) => position,
            // The sender lives in the map until it is used or this barrier is dropped.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.waiting.map().remove(&self.id);
    }
}

impl Barriers {
    /// An empty register, and the end that the emitter takes.
    #[must_use]
    pub fn new() -> (Self, BarrierRequests) {
        let waiting = Arc::new(Waiting::default());
        let (sender, receiver) = mpsc::unbounded_channel();
        // Unbounded because each request is a task that does nothing else but wait for its answer.
        (
            Self { waiting: Arc::clone(&waiting), requests: sender },
            BarrierRequests { waiting, requests: receiver },
        )
    }

    /// Registers a barrier that the caller writes itself, in its own session.
    #[must_use]
    pub fn register(&self) -> Barrier {
        let (sender, position) = oneshot::channel();
        let id = self.waiting.register(vec![sender]);
        Barrier { id, waiting: Arc::clone(&self.waiting), position }
    }

    /// Has a barrier written (one for all who ask at about the same time) and waits until it has come back:
    /// everything committed before the call is then in the feed before the position that it returns. Waits for
    /// as long as the source is away; `None` only when the daemon is going down. Cancel-safe.
    pub async fn pass(&self) -> Option<Cursor> {
        let (sender, position) = oneshot::channel();
        self.requests.send(sender).ok()?;
        position.await.ok()
    }

    /// Says that the message with this id was read from the slot, in a transaction whose commit record ends at
    /// `position`. Ids that nobody waits for are none of ours, or of a daemon before us.
    pub fn resolve(&self, id: &str, position: Cursor) {
        for sender in self.waiting.map().remove(id).unwrap_or_default() {
            // A waiter that went away needs no answer.
            let _ = sender.send(position);
        }
    }
}

impl BarrierRequests {
    /// Waits until somebody asks, and registers one barrier for all who ask by now. Returns its id, to be written;
    /// `None` when nobody can ask any more. When writing fails, [`BarrierRequests::again`] takes it up anew.
    pub async fn next(&mut self) -> Option<String> {
        let mut senders = vec![self.requests.recv().await?];
        while let Ok(sender) = self.requests.try_recv() {
            senders.push(sender);
        }
        senders.retain(|sender| !sender.is_closed());
        Some(self.waiting.register(senders))
    }

    /// Whether the barrier with this id has not come back yet.
    #[must_use]
    pub fn is_waiting(&self, id: &str) -> bool {
        self.waiting.map().contains_key(id)
    }

    /// Gives the waiters of a barrier that could not be written (or whose writing has an unknown outcome) a new
    /// id. The old id resolves nobody from now on.
    #[must_use]
    pub fn again(&mut self, id: &str) -> Option<String> {
        let senders = self.waiting.map().remove(id)?;
        Some(self.waiting.register(senders))
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn};

    use super::Barriers;

    #[tokio::test]
    async fn those_who_ask_together_share_one_barrier() {
        let (barriers, mut requests) = Barriers::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let barriers = barriers.clone();
                    async move { barriers.pass().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let id = requests.next().await.unwrap();
        let id = requests.again(&id).unwrap();
        let position = Cursor::from(Lsn::new(9));
        barriers.resolve("somebody else's", Cursor::ZERO);
        barriers.resolve(&id, position);
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), Some(position));
        }
    }

    #[tokio::test]
    async fn a_dropped_barrier_is_forgotten() {
        let (barriers, _requests) = Barriers::new();
        let id = barriers.register().id().to_owned();
        assert!(barriers.waiting.map().is_empty());
        barriers.resolve(&id, Cursor::ZERO);
    }
}
