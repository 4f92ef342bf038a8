//! Channels: what clients say to one another, and who is there. Nothing of it is stored, and nothing has a cursor.
//!
//! ```text
//!  client ──publish──► Room (its members) ──one frame──► Mailbox of each member ──when nothing of the feed waits──► socket
//!  database ─────────►   │                                 full: dropped, counted, and told
//!                        └─ who came and went, gathered for presence_interval
//! ```
//!
//! A room lives in one shard, and whoever says something does the work of handing it out there and then: no queue lies
//! between them, so a client that says much waits for its own words, and everybody in a channel hears them in the same
//! order. What is handed out is a frame that all share.
//!
//! A [`mailbox`] is bounded in bytes: what the others say waits for no client, and stands before no transaction.

mod mailbox;
mod memberships;
mod room;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use walcast_feed::LogPace;
use walcast_model::DatabaseMessage;

use crate::limits::Limits;
use crate::metrics as names;
pub use memberships::channel_grant;
pub(crate) use memberships::{Memberships, not_granted};
use room::{MemberId, Newcomer, Room, Saying};

/// Rooms of different shards do not wait for one another.
const SHARDS: usize = 16;

/// All channels of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Held while something is handed out to the members of one room.
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    rooms: AtomicUsize,
    next_member: AtomicUsize,
    limits: Limits,
    /// When it is logged again that a message of the database is too large. Held for one look.
    too_large_pace: Mutex<LogPace>,
    /// Something is due that was not.
    alarm: Notify,
}

/// Some of the rooms.
#[derive(Debug, Default)]
struct Shard {
    rooms: HashMap<Arc<str>, Room>,
    /// Rooms of which it is to be told who is there, and when.
    due: BTreeSet<(Instant, Arc<str>)>,
}

impl Shard {
    /// Does something in a room, and what follows from it: the answer, and whether the room is empty and was closed.
    fn within<T>(
        &mut self,
        channel: &str,
        now: Instant,
        shared: &Shared,
        what: impl FnOnce(&mut Room) -> T,
    ) -> Option<(T, bool)> {
        let room = self.rooms.get_mut(channel)?;
        let was_due = room.due();
        let answer = what(room);
        room.settle(now, shared.limits.presence_interval);
        let (is_due, is_empty, name) = (room.due(), room.is_empty(), Arc::clone(room.name()));
        if let Some(at) = was_due.filter(|at| is_due != Some(*at) || is_empty) {
            self.due.remove(&(at, Arc::clone(&name)));
        }
        if is_empty {
            self.rooms.remove(channel);
        } else if let Some(at) = is_due.filter(|at| was_due != Some(*at)) {
            self.due.insert((at, name));
            shared.alarm.notify_one();
        }
        Some((answer, is_empty))
    }
}

/// A limit that a join would cross.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Full {
    Channels,
    Members,
}

impl Channels {
    pub(crate) fn new(limits: Limits) -> Self {
        let shared = Shared {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            rooms: AtomicUsize::new(0),
            next_member: AtomicUsize::new(0),
            limits,
            too_large_pace: Mutex::default(),
            alarm: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    fn shard(&self, channel: &str) -> MutexGuard<'_, Shard> {
        let index = self.shared.hasher.hash_one(channel) as usize % SHARDS;
        self.shared.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something in a room that is there, and closes it when it is empty.
    fn within<T>(&self, channel: &str, now: Instant, what: impl FnOnce(&mut Room) -> T) -> Option<T> {
        let (answer, closed) = self.shard(channel).within(channel, now, &self.shared, what)?;
        if closed {
            self.shared.rooms.fetch_sub(1, Ordering::Relaxed);
            metrics::gauge!(names::CHANNELS).decrement(1.0);
        }
        Some(answer)
    }

    /// Takes a client in, and makes the room where there is none. With the bytes that it takes to tell everybody.
    ///
    /// # Errors
    /// When there are as many as there may be.
    fn join(
        &self,
        channel: &str,
        newcomer: Newcomer,
        now: Instant,
    ) -> Result<(Arc<str>, MemberId, usize), Full> {
        let (shared, limits) = (&self.shared, &self.shared.limits);
        let mut shard = self.shard(channel);
        let name = match shard.rooms.get(channel) {
            Some(room) if room.len() >= limits.channel_members_max => return Err(Full::Members),
            Some(room) => Arc::clone(room.name()),
            None => {
                if shared.rooms.fetch_add(1, Ordering::Relaxed) >= limits.channels_max {
                    shared.rooms.fetch_sub(1, Ordering::Relaxed);
                    return Err(Full::Channels);
                }
                metrics::gauge!(names::CHANNELS).increment(1.0);
                let name: Arc<str> = Arc::from(channel);
                shard.rooms.insert(Arc::clone(&name), Room::new(Arc::clone(&name)));
                name
            }
        };
        let id = MemberId(shared.next_member.fetch_add(1, Ordering::Relaxed));
        let told = shard.within(&name, now, shared, |room| {
            let bytes = room.cost_of(newcomer.state.as_deref());
            room.join(id, newcomer);
            bytes
        });
        metrics::gauge!(names::CHANNEL_MEMBERS).increment(1.0);
        Ok((name, id, told.map_or(0, |(bytes, _)| bytes)))
    }

    fn leave(&self, channel: &str, id: MemberId, now: Instant) {
        if self.within(channel, now, |room| room.leave(id)) == Some(true) {
            metrics::gauge!(names::CHANNEL_MEMBERS).decrement(1.0);
        }
    }

    /// The bytes that it takes to tell everybody.
    fn set_state(&self, channel: &str, id: MemberId, state: Option<Box<RawValue>>, now: Instant) -> usize {
        let told = self.within(channel, now, |room| {
            let bytes = room.cost_of(state.as_deref());
            room.set_state(id, state);
            bytes
        });
        told.unwrap_or_default()
    }

    /// Whether it may see who is there from now on.
    fn set_sees(&self, channel: &str, id: MemberId, sees: bool, now: Instant) {
        self.within(channel, now, |room| room.set_sees(id, sees));
    }

    /// It was not told who came and went, so it is to be told who is there.
    fn tell_anew(&self, channel: &str, id: MemberId, now: Instant) {
        self.within(channel, now, |room| room.tell_anew(id));
    }

    /// Hands something out to everybody in a channel: the bytes of all that are told.
    fn say(&self, channel: &str, saying: Saying) -> usize {
        let from = if matches!(saying, Saying::Client { .. }) { "client" } else { "database" };
        metrics::counter!(names::CHANNEL_MESSAGES, "from" => from).increment(1);
        self.shard(channel).rooms.get(channel).map_or(0, |room| room.say(saying))
    }

    /// Hands out what the database says.
    pub(crate) fn say_for_database(&self, message: DatabaseMessage) {
        let limits = &self.shared.limits;
        let DatabaseMessage { lsn, channel, payload } = message;
        let crossed = if payload.get().len() > limits.payload_bytes_max {
            Some(("payload_bytes_max", limits.payload_bytes_max))
        } else if channel.len() > limits.channel_name_bytes_max {
            Some(("channel_name_bytes_max", limits.channel_name_bytes_max))
        } else {
            None
        };
        if let Some((limit, max)) = crossed {
            metrics::counter!(names::CHANNELS_REFUSED, "limit" => limit).increment(1);
            let pace = &self.shared.too_large_pace;
            let due = pace.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
            if let Some(unlogged) = due {
                tracing::warn!(%lsn, unlogged, "a message of the database is over {limit} ({max}) and was not told");
            }
            return;
        }
        self.say(&channel, Saying::Database { payload, lsn });
    }

    /// Tells who came and went when it is due, until it is dropped.
    pub(crate) async fn follow(&self) {
        loop {
            let next = self.tell_due(Instant::now()).await;
            let pause = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.shared.alarm.notified() => {}
            }
        }
    }

    /// Tells what is due, and when the next is.
    async fn tell_due(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for shard in &self.shared.shards {
            let mut due = Vec::new();
            {
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some((at, name)) = shard.due.pop_first() {
                    if at > now {
                        next = Some(next.map_or(at, |next| next.min(at)));
                        shard.due.insert((at, name));
                        break;
                    }
                    due.push(name);
                }
            }
            // One by one, so that others have their turn.
            for name in due {
                self.within(&name, now, |_| ());
                consume_budget().await;
            }
        }
        next
    }
}
