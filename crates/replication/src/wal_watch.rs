//! Watches what the slot keeps of the source's WAL, and sees to it that walcast does not fill the source's disk.
//!
//! The slot keeps WAL while walcast is away, while history does not take what was read, and while transactions stay
//! open. What that costs is measured in short intervals and shown: as metrics, in `/readyz`, in the log. When it is over
//! the budget, a policy decides: to say so, or to give the slot up. Giving it up ends the feed: the slot is dropped,
//! clients are told, and no later stream passes over the hole, because a feed goes on only from its own slot
//! ([`crate::slot::check`]).
//!
//! While no walcast runs nothing of this happens: the server's `max_slot_wal_keep_size` is what bounds the WAL then.

mod budget;

use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use walcast_feed::{BudgetState, Feed, SlotWal};
use walcast_model::Lsn;
use walcast_postgres::{ConnectionConfig, Session};

use crate::error::{Error, START_OVER};
use crate::metrics as names;
use crate::slot::{self, SlotFacts};
pub use budget::time_left;
use budget::{Rate, Verdict};

/// How often the slot's walsender is ended and the slot tried to be dropped before it is left for the next look.
const GIVE_UP_TRIES: u32 = 50;
/// The pause between them: shorter than the replicator takes to come back.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(20);

/// What is done when the slot keeps more than the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WalBudgetPolicy {
    /// It is said, loudly.
    #[default]
    Warn,
    /// The slot is dropped: the source is saved, the feed is over and has to be started over.
    DropSlot,
}

/// The budget, and how it is watched.
#[derive(Clone, Copy, Debug)]
pub struct WalBudget {
    /// WAL that the slot may keep, in bytes; `None` for no limit.
    pub wal_budget: Option<u64>,
    /// What is done when it keeps more.
    pub wal_budget_policy: WalBudgetPolicy,
    /// Time between two looks.
    pub interval: Duration,
}

impl Default for WalBudget {
    fn default() -> Self {
        Self {
            wal_budget: Some(10 << 30),
            wal_budget_policy: WalBudgetPolicy::Warn,
            interval: Duration::from_secs(5),
        }
    }
}

/// Watches the slot of a feed.
#[derive(Debug)]
pub struct WalWatch {
    config: ConnectionConfig,
    slot: String,
    budget: WalBudget,
    feed: Feed,
    rate: Rate,
    verdict: Verdict,
    given_up: bool,
}

impl WalWatch {
    /// For the feed that is read from `slot` of this source.
    #[must_use]
    pub fn new(config: ConnectionConfig, slot: impl Into<String>, budget: WalBudget, feed: Feed) -> Self {
        gauge!(names::WAL_BUDGET_BYTES).set(budget.wal_budget.map_or(f64::INFINITY, |bytes| bytes as f64));
        let verdict = Verdict::new(budget.wal_budget);
        Self { config, slot: slot.into(), budget, feed, rate: Rate::default(), verdict, given_up: false }
    }

    /// Looks until cancelled. A source that is away is not looked at: the WAL that it keeps is then as it was.
    ///
    /// Dropping the future is safe at any time.
    pub async fn run(mut self, cancel: CancellationToken) {
        let follow = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::debug!(%error, slot = self.slot, "the slot's WAL cannot be looked at");
                }
                sleep(self.budget.interval).await;
            }
        };
        cancel.run_until_cancelled(follow).await;
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let session = Session::connect(&self.config, "walcast wal budget").await?;
        loop {
            self.look(&session).await?;
            sleep(self.budget.interval).await;
        }
    }

    async fn look(&mut self, session: &Session) -> Result<(), Error> {
        let facts = slot::inspect(session, &self.slot).await?;
        let end = end_of_wal(session).await?;
        let bytes_per_second = self.rate.see(Instant::now(), end);
        let Some(facts) = facts else {
            // What that means for the feed is the replicator's to say.
            let gone = self.feed.slot_wal().filter(|_| self.given_up);
            self.feed.set_slot_wal(gone.map(|wal| SlotWal { retained_bytes: 0, left: None, ..wal }));
            gauge!(names::SLOT_RETAINED_BYTES).set(0.0);
            return Ok(());
        };
        let retained_bytes = u64::try_from(facts.retained_bytes.unwrap_or_default()).unwrap_or_default();
        let is_exceeded = self.verdict.see(retained_bytes);
        let wal = SlotWal {
            retained_bytes,
            safe_bytes: facts.safe_wal_bytes,
            status: facts.wal_status.clone(),
            budget_bytes: self.budget.wal_budget,
            bytes_per_second,
            left: time_left(self.budget.wal_budget, retained_bytes, facts.safe_wal_bytes, bytes_per_second),
            budget: if is_exceeded { BudgetState::Exceeded } else { BudgetState::Within },
        };
        self.show(&wal);
        if !is_exceeded {
            return Ok(());
        }
        match self.budget.wal_budget_policy {
            WalBudgetPolicy::Warn => Ok(()),
            // Twice in a row: a number that is read once may be of a slot that is about to move on.
            WalBudgetPolicy::DropSlot if self.verdict.is_settled() => {
                self.give_up(session, &facts, wal).await
            }
            WalBudgetPolicy::DropSlot => Ok(()),
        }
    }

    fn show(&self, wal: &SlotWal) {
        let before = self.feed.slot_wal();
        let was_exceeded = before.is_some_and(|before| before.budget == BudgetState::Exceeded);
        let is_exceeded = wal.budget == BudgetState::Exceeded;
        gauge!(names::SLOT_RETAINED_BYTES).set(wal.retained_bytes as f64);
        gauge!(names::SLOT_SAFE_BYTES).set(wal.safe_bytes.map_or(f64::INFINITY, |bytes| bytes as f64));
        gauge!(names::SOURCE_WAL_BYTES_PER_SECOND).set(wal.bytes_per_second);
        gauge!(names::WAL_BUDGET_LEFT_SECONDS).set(wal.left.map_or(f64::INFINITY, |left| left.as_secs_f64()));
        gauge!(names::WAL_BUDGET_EXCEEDED).set(if is_exceeded { 1.0 } else { 0.0 });
        for status in ["reserved", "extended", "unreserved", "lost"] {
            let is_it = wal.status.as_deref() == Some(status);
            gauge!(names::SLOT_WAL_STATUS, "status" => status).set(if is_it { 1.0 } else { 0.0 });
        }
        let (slot, retained_bytes, budget_bytes) = (&self.slot, wal.retained_bytes, wal.budget_bytes);
        match (was_exceeded, is_exceeded) {
            (false, true) => tracing::error!(
                slot,
                retained_bytes,
                budget_bytes,
                hint = "see what holds it up: walcast status, walcast doctor",
                "the slot keeps more WAL than wal_budget"
            ),
            (true, false) => {
                tracing::info!(
                    slot,
                    retained_bytes,
                    budget_bytes,
                    "the slot keeps less WAL than wal_budget again"
                );
            }
            _ => {}
        }
        self.feed.set_slot_wal(Some(wal.clone()));
    }

    /// Ends the slot's walsender and drops the slot, before the replicator has it again.
    async fn give_up(&mut self, session: &Session, facts: &SlotFacts, wal: SlotWal) -> Result<(), Error> {
        let (slot, retained_bytes) = (self.slot.clone(), wal.retained_bytes);
        tracing::error!(
            slot,
            retained_bytes,
            budget_bytes = wal.budget_bytes,
            "the slot is given up, as wal_budget_policy says"
        );
        let mut holder = facts.active_pid;
        for _ in 0..GIVE_UP_TRIES {
            if let Some(pid) = holder {
                session.execute("SELECT pg_terminate_backend($1)", &[&pid]).await?;
                sleep(GIVE_UP_PAUSE).await;
            }
            match slot::drop(session, &slot).await {
                Ok(()) => {
                    self.given_up = true;
                    counter!(names::SLOTS_GIVEN_UP_TOTAL).increment(1);
                    let position = self.feed.head();
                    let reason = format!(
                        "replication slot {slot:?} was given up: it kept {retained_bytes} bytes of WAL, more than \
                         wal_budget; the feed ends at {position}"
                    );
                    let hint = START_OVER.to_owned();
                    tracing::error!(slot, hint, "{reason}");
                    self.feed.set_slot_wal(Some(SlotWal { budget: BudgetState::GivenUp, left: None, ..wal }));
                    self.feed.interrupt(reason, Some(hint));
                    return Ok(());
                }
                Err(Error::SlotInUse { holder: found, .. }) => {
                    holder = found.map(|found| found.pid);
                    // Whoever has it is on its way in or out.
                    if holder.is_none() {
                        sleep(GIVE_UP_PAUSE).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        tracing::error!(
            slot,
            holder,
            "the slot is in use again and again, and could not be dropped; trying again"
        );
        Ok(())
    }
}

async fn end_of_wal(session: &Session) -> Result<Lsn, Error> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text";
    let row = session.query_one(sql, &[]).await?;
    let end: Option<&str> = row.try_get(0)?;
    Ok(end.and_then(|end| end.parse().ok()).unwrap_or_default())
}
