//! What clients acknowledge: checked, kept in memory until history has it, confirmed then.
//!
//! ```text
//!  ack ─► Claim ─► Desk: the newest cursor of each ──every ack_interval, one commit──► history ─► acked
//! ```
//!
//! Whoever subscribed last under a name holds it: what an earlier subscription says under that name counts no more. So
//! what is acknowledged under a name is said by one client at a time, and the last word is the right one.

mod claim;
mod desk;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use walcast_feed::{Backoff, Cause, Outage, Outages};
use walcast_history::{ClientKey, KnownClient};
use walcast_protocol::ErrorCode;

use crate::hindrance;
use crate::metrics as names;
use crate::past::{Away, Unanswered};
use crate::refusal::Refusal;
pub(crate) use claim::{Claim, Position};
pub(crate) use desk::Outcome;
use desk::{Desk, Holder};
pub use store::ClientPositions;

/// Clients in one commit; further ones are in the next.
const BATCH_MAX: usize = 1000;
/// Clients that are listed for a user.
const LISTED_MAX: usize = 1000;
/// The longest pause between two tries to store.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often it is noted who is there, and who expired is forgotten; sooner where clients expire sooner.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// How soon that is tried again when it failed.
const UPKEEP_RETRY: Duration = Duration::from_secs(60);
/// What is told while nothing can be stored.
const NOT_STORED: &str = "what clients acknowledge is not stored";
/// What is told while it cannot be noted who is there.
const NOT_KEPT_UP: &str = "it is not noted which clients are there, and none expires";
/// How long what is left may take to be stored when the daemon goes down.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(2);

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
    outages: Outages,
    // Locked for look-ups and moves of a batch, never across an await.
    desk: Mutex<Desk>,
    due: Notify,
}

impl Acks {
    /// `outages` are told when nothing can be stored.
    pub(crate) fn new(store: Arc<dyn ClientPositions>, interval: Duration, outages: Outages) -> Self {
        let shared = Shared { store, interval, outages, desk: Mutex::default(), due: Notify::new() };
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
            Unanswered::Later(away) => {
                tracing::debug!(?away, "clients cannot be listed now");
                hindrance::away(away, &self.shared.outages)
            }
        })
    }

    /// Stores what is acknowledged until it is cancelled, then once more what is left.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let upkeep_interval = UPKEEP_INTERVAL.min(self.shared.store.expiry());
        // Not at once: who was there before the daemon went down needs time to come back.
        let mut upkeep = interval_at(Instant::now() + upkeep_interval, upkeep_interval);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outage = self.shared.outages.part(NOT_STORED);
        let mut upkeep_outage = self.shared.outages.part(NOT_KEPT_UP);
        let mut backoff = Backoff::new(self.shared.interval.saturating_mul(2), RETRY_MAX);
        loop {
            tokio::select! {
                // All only wait.
                () = cancel.cancelled() => break,
                () = self.shared.due.notified() => {}
                _ = upkeep.tick() => {
                    let Some(kept) = cancel.run_until_cancelled(self.upkeep()).await else { break };
                    if !kept_up(kept, &mut upkeep_outage) {
                        upkeep.reset_after(UPKEEP_RETRY);
                    }
                    continue;
                }
            }
            let mut pause = self.shared.interval;
            match cancel.run_until_cancelled(self.flush()).await {
                None => break,
                Some(Ok(())) => {
                    backoff.reset();
                    if let Some(away) = outage.end() {
                        tracing::info!("what clients acknowledge is stored again, after {away:.1?}");
                    }
                }
                Some(Err(Away { cause: Cause { message, hint }, .. })) => {
                    metrics::counter!(names::ACK_FAILURES).increment(1);
                    if outage.begin(message.clone(), hint.clone()) {
                        tracing::warn!(error = message, hint, "{NOT_STORED}; trying again");
                    }
                    pause = backoff.wait();
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
    async fn flush(&self) -> Result<(), Away> {
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
                Err(Unanswered::Later(away)) => {
                    self.desk().put_back();
                    return Err(away);
                }
            }
        }
    }
}

/// Whether it could be noted who is there; says so when that changes.
fn kept_up(kept: Result<(), Unanswered>, outage: &mut Outage) -> bool {
    let Cause { message, hint } = match kept {
        Ok(()) => {
            if let Some(away) = outage.end() {
                tracing::info!("it is noted again which clients are there, after {away:.1?}");
            }
            return true;
        }
        Err(Unanswered::Later(away)) => away.cause,
        Err(Unanswered::Never(refusal)) => Cause { message: refusal.message, hint: refusal.hint },
    };
    if outage.begin(message.clone(), hint.clone()) {
        tracing::warn!(error = message, hint, "{NOT_KEPT_UP}; trying again every {UPKEEP_RETRY:?}");
    }
    false
}

fn too_many() -> Refusal {
    let message =
        "what was acknowledged is not kept: as many clients are known as may be (clients_per_user_max)";
    let hint = "use the same client_id and id again; clients that do not come back expire (client_expiry)";
    Refusal::new(ErrorCode::LimitExceeded, message).hint(hint)
}

#[cfg(test)]
mod tests;
