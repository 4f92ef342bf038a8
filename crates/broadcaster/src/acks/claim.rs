//! The name under which a subscription acknowledges.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::watch;
use walcast_feed::Cause;
use walcast_history::ClientKey;
use walcast_model::{Cursor, FeedId};
use walcast_protocol::ErrorCode;

use super::desk::{Due, Outcome};
use super::{Acks, NOT_STORED};
use crate::past::{Away, Unanswered};
use crate::refusal::Refusal;

/// `acks_waiting_max`: clients whose cursors wait to be stored. What a further one acknowledges is refused.
const WAITING_MAX: usize = 20_000;

/// What was acknowledged under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// Of which feed the cursor is; `None`: of this one.
    pub(crate) feed: Option<FeedId>,
    /// Everything before it is stored by the client.
    pub(crate) cursor: Cursor,
    /// A name for what policies gave it then; `None` when none were in force.
    pub(crate) rights: Option<Arc<str>>,
}

/// The name under which a subscription acknowledges. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(super) acks: Acks,
    pub(super) key: ClientKey,
    pub(super) number: u64,
    pub(super) tables: Arc<str>,
    pub(super) seen: watch::Receiver<Outcome>,
}

impl Claim {
    /// Sees what becomes of what is acknowledged.
    pub(crate) fn watch(&self) -> watch::Receiver<Outcome> {
        self.seen.clone()
    }

    /// Everything before `cursor` is stored by the client. `rights`: a name for what policies give it, where any are in force.
    pub(crate) fn acknowledge(&self, cursor: Cursor, rights: Option<Arc<str>>) -> Result<(), Refusal> {
        self.put(cursor, true, rights)
    }

    /// The client has begun at `cursor`, wherever it had acknowledged to be: who has acknowledged nothing still has not.
    pub(crate) fn correct(&self, cursor: Cursor) -> Result<(), Refusal> {
        self.put(cursor, false, None)
    }

    fn put(&self, cursor: Cursor, is_acknowledged: bool, rights: Option<Arc<str>>) -> Result<(), Refusal> {
        let mut desk = self.acks.desk();
        let outcome = match desk.holders.get(&self.key) {
            Some(holder) if holder.number == self.number => Arc::clone(&holder.outcome),
            _ => return Err(superseded()),
        };
        if cursor == Cursor::ZERO {
            // What was said before is no answer to this, also when it was the same: something that was acknowledged since
            // may be on its way. Under the same lock, or that could be said in between.
            outcome.send_replace(Outcome::Nothing);
        }
        let waiting = desk.due.len();
        let due = Due { cursor, tables: Arc::clone(&self.tables), is_acknowledged, rights, outcome };
        let due = match desk.due.get(&self.key).or_else(|| desk.storing.get(&self.key)) {
            Some(former) => due.instead_of(former),
            None => due,
        };
        match desk.due.entry(self.key.clone()) {
            Entry::Occupied(mut entry) => drop(entry.insert(due)),
            Entry::Vacant(_) if waiting >= WAITING_MAX => return Err(not_now()),
            Entry::Vacant(entry) => drop(entry.insert(due)),
        }
        drop(desk);
        self.acks.shared.due.notify_one();
        Ok(())
    }

    /// What was acknowledged under this name, by whoever had it.
    pub(crate) async fn position(&self) -> Result<Option<Position>, Unanswered> {
        let waiting = {
            let desk = self.acks.desk();
            desk.due.get(&self.key).or_else(|| desk.storing.get(&self.key)).cloned()
        };
        let position = match waiting {
            Some(Due { cursor, is_acknowledged: true, rights, .. }) => {
                Some(Position { feed: None, cursor, rights })
            }
            Some(Due { cursor: Cursor::ZERO, .. }) => None,
            // Where it began counts for a client that is known, as it will once it is stored.
            Some(Due { cursor, rights, .. }) => {
                let found = self.acks.shared.store.position(&self.key).await?;
                found.map(|known| Position { feed: None, cursor, rights: rights.or(known.rights) })
            }
            None => {
                let found = self.acks.shared.store.position(&self.key).await?;
                found.map(|known| Position {
                    feed: Some(known.feed),
                    cursor: known.cursor,
                    rights: known.rights,
                })
            }
        };
        Ok(position.filter(|position| position.cursor != Cursor::ZERO))
    }

    /// Takes back what was acknowledged under this name, durably: the client is about to discard what it has.
    pub(crate) async fn forget(&self) -> Result<(), Unanswered> {
        let mut outcome = self.watch();
        self.correct(Cursor::ZERO).map_err(|refusal| match refusal.code {
            ErrorCode::NotReady => {
                let cause = Cause { message: refusal.message, hint: refusal.hint };
                Unanswered::Later(Away { effect: NOT_STORED, cause })
            }
            _ => Unanswered::Never(refusal),
        })?;
        let settled = outcome.wait_for(|outcome| *outcome != Outcome::Nothing && !is_ahead(outcome)).await;
        match settled.as_deref() {
            Ok(Outcome::Refused(refusal)) => Err(Unanswered::Never(refusal.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(Unanswered::Never(superseded())),
        }
    }
}

/// Whether something is durable that has been taken back.
const fn is_ahead(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Durable(cursor) if cursor.lsn().get() > 0)
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut desk = self.acks.desk();
        if desk.holders.get(&self.key).is_some_and(|holder| holder.number == self.number) {
            desk.holders.remove(&self.key);
        }
    }
}

fn superseded() -> Refusal {
    let message =
        "another subscription has the same client_id and id by now, and what it acknowledges counts";
    Refusal::bad(message).hint("give each store of a client a client_id of its own")
}

fn not_now() -> Refusal {
    let message = "what was acknowledged is not kept: history is away, and too much waits for it";
    Refusal::new(ErrorCode::NotReady, message).hint("acknowledge again after a while")
}
