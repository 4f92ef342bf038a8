//! What clients acknowledge: checked, kept in memory until history has it, confirmed then.
//!
//! ```text
//!  ack ─► Claim ─► Desk: the newest cursor of each ──every ack_interval, one commit──► history ─► acked
//! ```
//!
//! Whoever subscribed last under a name holds it: what an earlier subscription says under that name counts no more. So
//! what is acknowledged under a name is said by one client at a time, and the last word is the right one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use walcast_history::{Acknowledged, ClientKey, Clients, KnownClient};
use walcast_model::{Cursor, FeedId};
use walcast_protocol::ErrorCode;

use crate::metrics as names;
use crate::past::{Unanswered, of_history};
use crate::refusal::Refusal;

/// Clients in one commit; further ones are in the next.
const BATCH_MAX: usize = 1000;
/// `acks_waiting_max`: clients whose cursors wait to be stored. What a further one acknowledges is refused.
const WAITING_MAX: usize = 20_000;
/// Clients that are listed for a user.
const LISTED_MAX: usize = 1000;
/// The longest pause between two tries to store.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often it is noted who is there, and who expired is forgotten; sooner where clients expire sooner.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// How long what is left may take to be stored when the daemon goes down.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(2);

/// Where what clients acknowledge is kept: [`Clients`]. What fails with [`Unanswered::Later`] is tried again.
pub trait ClientPositions: fmt::Debug + Send + Sync + 'static {
    /// Stores all of these in one commit: the places of those that are refused because of a limit. [`Unanswered::Never`]
    /// when one of them can never be stored.
    fn store<'a>(&'a self, batch: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>>;

    /// What a client has acknowledged, and of which feed that is a cursor: 0/0 when that was taken back, `None` when it is not
    /// known.
    fn position<'a>(
        &'a self,
        key: &'a ClientKey,
    ) -> BoxFuture<'a, Result<Option<(FeedId, Cursor)>, Unanswered>>;

    /// The clients of a user.
    fn of_user<'a>(
        &'a self,
        user: &'a str,
        count_max: usize,
    ) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>>;

    /// Notes that these are there, and forgets those that have expired.
    fn upkeep<'a>(&'a self, present: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>>;

    /// After how long without having been seen a client expires.
    fn expiry(&self) -> Duration;
}

impl ClientPositions for Clients {
    fn store<'a>(&'a self, batch: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>> {
        Box::pin(async move {
            Self::store(self, batch).await.map_err(|error| match error.sqlstate() {
                // data_exception and program_limit_exceeded: a character that its encoding lacks.
                Some(state) if state.starts_with("22") || state.starts_with("54") => {
                    let message = "the history cannot hold the name of this client or subscription";
                    Unanswered::Never(Refusal::bad(message).hint("use ASCII for client_id and id"))
                }
                _ => Unanswered::Later(error.to_string()),
            })
        })
    }

    fn position<'a>(
        &'a self,
        key: &'a ClientKey,
    ) -> BoxFuture<'a, Result<Option<(FeedId, Cursor)>, Unanswered>> {
        Box::pin(async move { Self::position(self, key).await.map_err(|error| of_history(&error)) })
    }

    fn of_user<'a>(
        &'a self,
        user: &'a str,
        count_max: usize,
    ) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>> {
        Box::pin(
            async move { Self::of_user(self, user, count_max).await.map_err(|error| of_history(&error)) },
        )
    }

    fn upkeep<'a>(&'a self, present: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>> {
        Box::pin(async move {
            let later = |error: walcast_history::Error| Unanswered::Later(error.to_string());
            for some in present.chunks(BATCH_MAX) {
                self.seen(some).await.map_err(later)?;
            }
            let forgotten = self.expire().await.map_err(later)?;
            if forgotten > 0 {
                metrics::counter!(names::CLIENTS_EXPIRED).increment(forgotten);
                tracing::info!(forgotten, "clients that were not seen for client_expiry are forgotten");
            }
            Ok(())
        })
    }

    fn expiry(&self) -> Duration {
        self.limits().client_expiry
    }
}

/// What became of what a client acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Nothing was stored yet.
    Nothing,
    /// This is durable; 0/0: that nothing is acknowledged.
    Durable(Cursor),
    /// The last was not stored, and will not be.
    Refused(Refusal),
}

/// All that is acknowledged. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ClientPositions>,
    /// `ack_interval`: a client's cursor is stored at most this often.
    interval: Duration,
    // Locked for look-ups and moves of a batch, never across an await.
    desk: Mutex<Desk>,
    due: Notify,
}

#[derive(Debug, Default)]
struct Desk {
    holders: HashMap<ClientKey, Holder>,
    holders_ever: u64,
    /// To be stored. At most [`WAITING_MAX`] beside those that are being stored.
    due: HashMap<ClientKey, Due>,
    /// Being stored. Left over where that was cancelled.
    storing: HashMap<ClientKey, Due>,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    outcome: Arc<watch::Sender<Outcome>>,
}

#[derive(Clone, Debug)]
struct Due {
    cursor: Cursor,
    tables: Arc<str>,
    /// Whether it was acknowledged, and is confirmed; otherwise it corrects what was acknowledged before, if anything was.
    is_acknowledged: bool,
    outcome: Arc<watch::Sender<Outcome>>,
}

impl Desk {
    /// Takes back what was not stored, unless something newer is there.
    fn put_back(&mut self) {
        for (key, due) in self.storing.drain() {
            self.due.entry(key).or_insert(due);
        }
    }

    fn take(&mut self, count_max: usize) -> Vec<Acknowledged> {
        self.put_back();
        let keys: Vec<ClientKey> = self.due.keys().take(count_max).cloned().collect();
        let mut batch = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(due) = self.due.remove(&key) else { continue };
            batch.push(Acknowledged {
                key: key.clone(),
                cursor: due.cursor,
                tables: due.tables.as_ref().to_owned(),
                adds: due.is_acknowledged,
            });
            self.storing.insert(key, due);
        }
        batch
    }

    fn settle(&mut self, acknowledged: &Acknowledged, outcome: Outcome) {
        let Some(stored) = self.storing.remove(&acknowledged.key) else { return };
        // What is due since is not refused with it.
        let is_last = !self.due.contains_key(&acknowledged.key);
        if (stored.is_acknowledged || stored.cursor == Cursor::ZERO)
            && (is_last || !matches!(outcome, Outcome::Refused(_)))
        {
            stored.outcome.send_replace(outcome);
        }
    }
}

impl Acks {
    pub(crate) fn new(store: Arc<dyn ClientPositions>, interval: Duration) -> Self {
        let shared = Shared { store, interval, desk: Mutex::default(), due: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.shared.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a subscription; whoever had it has it no more. `tables`: what it is over, for people.
    pub(crate) fn claim(&self, key: ClientKey, tables: String) -> Arc<Claim> {
        let outcome = Arc::new(watch::Sender::new(Outcome::Nothing));
        let seen = outcome.subscribe();
        let mut desk = self.desk();
        desk.holders_ever += 1;
        let number = desk.holders_ever;
        desk.holders.insert(key.clone(), Holder { number, outcome });
        drop(desk);
        Arc::new(Claim { acks: self.clone(), key, number, tables: tables.into(), seen })
    }

    /// The clients of a user.
    pub(crate) async fn of_user(&self, user: &str) -> Result<Vec<KnownClient>, Refusal> {
        self.shared.store.of_user(user, LISTED_MAX).await.map_err(|error| match error {
            Unanswered::Never(refusal) => refusal,
            Unanswered::Later(reason) => {
                tracing::debug!(reason, "clients cannot be listed now");
                Refusal::new(ErrorCode::NotReady, "history cannot be asked now")
                    .hint("ask again after a while")
            }
        })
    }

    /// Stores what is acknowledged until it is cancelled, then once more what is left.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let upkeep_interval = UPKEEP_INTERVAL.min(self.shared.store.expiry());
        // Not at once: who was there before the daemon went down needs time to come back.
        let mut upkeep = interval_at(Instant::now() + upkeep_interval, upkeep_interval);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                // All only wait.
                () = cancel.cancelled() => break,
                () = self.shared.due.notified() => {}
                _ = upkeep.tick() => {
                    if let Some(Err(error)) = cancel.run_until_cancelled(self.upkeep()).await {
                        tracing::warn!(?error, "who is there cannot be noted; trying again later");
                    }
                    continue;
                }
            }
            let mut pause = self.shared.interval;
            match cancel.run_until_cancelled(self.flush()).await {
                None => break,
                Some(Ok(())) => failures = 0,
                Some(Err(reason)) => {
                    metrics::counter!(names::ACK_FAILURES).increment(1);
                    if failures == 0 {
                        tracing::warn!(reason, "what clients acknowledge cannot be stored; trying again");
                    }
                    failures = failures.saturating_add(1);
                    let full = pause.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
                    pause = full.mul_f64(rand::random_range(0.5..=1.0));
                    self.shared.due.notify_one();
                }
            }
            // What comes meanwhile is stored together.
            let _ = cancel.run_until_cancelled(sleep(pause)).await;
        }
        let left = timeout(LAST_FLUSH_MAX, self.flush()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("some of what clients acknowledged was not stored; they were not told that it is");
        }
    }

    async fn upkeep(&self) -> Result<(), Unanswered> {
        let present: Vec<ClientKey> = self.desk().holders.keys().cloned().collect();
        self.shared.store.upkeep(&present).await
    }

    /// Stores all that is there. Cancel-safe: what was on its way is stored again.
    async fn flush(&self) -> Result<(), String> {
        // After a batch of which one can never be stored, each of it goes alone.
        let mut alone = 0_usize;
        loop {
            let batch = self.desk().take(if alone > 0 { 1 } else { BATCH_MAX });
            if batch.is_empty() {
                return Ok(());
            }
            alone = alone.saturating_sub(1);
            match self.shared.store.store(&batch).await {
                Ok(refused) => {
                    metrics::counter!(names::ACKS_STORED).increment((batch.len() - refused.len()) as u64);
                    let mut desk = self.desk();
                    for (index, one) in batch.iter().enumerate() {
                        let outcome = match refused.contains(&index) {
                            true => Outcome::Refused(too_many()),
                            false => Outcome::Durable(one.cursor),
                        };
                        desk.settle(one, outcome);
                    }
                }
                Err(Unanswered::Never(refusal)) => match batch.as_slice() {
                    [one] => self.desk().settle(one, Outcome::Refused(refusal)),
                    more => {
                        alone = more.len();
                        self.desk().put_back();
                    }
                },
                Err(Unanswered::Later(reason)) => {
                    self.desk().put_back();
                    return Err(reason);
                }
            }
        }
    }
}

/// The name under which a subscription acknowledges. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    acks: Acks,
    key: ClientKey,
    number: u64,
    tables: Arc<str>,
    seen: watch::Receiver<Outcome>,
}

impl Claim {
    /// Sees what becomes of what is acknowledged.
    pub(crate) fn watch(&self) -> watch::Receiver<Outcome> {
        self.seen.clone()
    }

    /// Everything before `cursor` is stored by the client.
    pub(crate) fn acknowledge(&self, cursor: Cursor) -> Result<(), Refusal> {
        self.put(cursor, true)
    }

    /// The client has begun at `cursor`, wherever it had acknowledged to be: who has acknowledged nothing still has not.
    pub(crate) fn correct(&self, cursor: Cursor) -> Result<(), Refusal> {
        self.put(cursor, false)
    }

    fn put(&self, cursor: Cursor, is_acknowledged: bool) -> Result<(), Refusal> {
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
        let due = Due { cursor, tables: Arc::clone(&self.tables), is_acknowledged, outcome };
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
    pub(crate) async fn position(&self) -> Result<Option<(Option<FeedId>, Cursor)>, Unanswered> {
        let waiting = {
            let desk = self.acks.desk();
            let due = desk.due.get(&self.key).or_else(|| desk.storing.get(&self.key));
            due.map(|due| (due.cursor, due.is_acknowledged))
        };
        let position = match waiting {
            Some((cursor, true)) => Some((None, cursor)),
            Some((Cursor::ZERO, false)) => None,
            // Where it began counts for a client that is known, as it will once it is stored.
            Some((cursor, false)) => {
                self.acks.shared.store.position(&self.key).await?.map(|_| (None, cursor))
            }
            None => {
                let found = self.acks.shared.store.position(&self.key).await?;
                found.map(|(feed, cursor)| (Some(feed), cursor))
            }
        };
        Ok(position.filter(|(_, cursor)| *cursor != Cursor::ZERO))
    }

    /// Takes back what was acknowledged under this name, durably: the client is about to discard what it has.
    pub(crate) async fn forget(&self) -> Result<(), Unanswered> {
        let mut outcome = self.watch();
        self.correct(Cursor::ZERO).map_err(|refusal| match refusal.code {
            ErrorCode::NotReady => Unanswered::Later(refusal.message),
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

fn too_many() -> Refusal {
    let message =
        "what was acknowledged is not kept: as many clients are known as may be (clients_per_user_max)";
    let hint = "use the same client_id and id again; clients that do not come back expire (client_expiry)";
    Refusal::new(ErrorCode::LimitExceeded, message).hint(hint)
}

fn not_now() -> Refusal {
    let message = "what was acknowledged is not kept: history is away, and too much waits for it";
    Refusal::new(ErrorCode::NotReady, message).hint("acknowledge again after a while")
}

#[cfg(test)]
mod tests;
