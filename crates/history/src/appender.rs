//! The one task that writes the history.
//!
//! ```text
//!          the slot is had, the feed claimed         lost, refused, full …
//! Starting ───────────────────────────────► Storing ◄──────────────────────► Interrupted
//!    │                                         │                                  │
//!    └─ moved since it was read ─► MovedOn     └───── claimed by another one ─────┴──► ends: Fenced
//! ```
//!
//! It claims the feed when this process has the slot, once, and only if the record is as it was read: so a process that
//! was replaced, or that woke up late, takes nothing from its successor, and what it had on its way is refused.
//!
//! It reads the feed from the stored position like any other reader. While one commit runs the next batch gathers in
//! the feed, so batches are as large as the load makes them and nobody waits for a batch to fill.
//!
//! When a commit fails its outcome is unknown: it may have happened, it may still happen (a server that lost its
//! client goes on with a COMMIT it has received). Nobody else moves the position, so the one that is found on a new
//! connection is the old one, or that of one of this process's own commits.

mod idle;
mod partition;
mod store;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use walcast_feed::{Backoff, Feed, Outage, Read};
use walcast_model::{Cursor, Lsn, Part, Seq};
use walcast_postgres::ConnectionConfig;

use crate::error::{FENCED_SQLSTATE, MISSING_SQLSTATE};
use crate::metrics as names;
use crate::{Error, FeedRecord, ImagedTables};
use idle::IdleRule;
use partition::PartitionRule;
use store::{Batch, Store};

/// The bounds and intervals of an [`Appender`].
#[derive(Clone, Copy, Debug)]
pub struct AppendLimits {
    /// JSON in one commit, in bytes; reached, the rest goes into the next one. At least one part is written.
    pub append_bytes_max: usize,
    /// Changes in one commit; reached, the rest goes into the next one. At least one part is written.
    pub append_changes_max: usize,
    /// WAL that one partition of `change_history` covers, in bytes. Partitions that are there keep their bounds.
    pub history_partition_wal_bytes: u64,
    /// A partition that was made this long ago ends at the next transaction, however little WAL it has covered, so that
    /// retention can drop it one day. For that its rows are read once, and storing waits meanwhile.
    pub history_partition_age: Duration,
    /// An idle position is persisted (and acknowledged) at most this often.
    pub idle_persist_interval_min: Duration,
    /// An idle position that moved by less than this, in bytes of WAL, waits for `idle_persist_interval_max`.
    pub idle_persist_wal_bytes_min: u64,
    /// An idle position that moved at all is persisted after this time.
    pub idle_persist_interval_max: Duration,
    /// While nothing comes, the position is looked at this often: whoever was replaced by another writer learns it then.
    pub fence_interval: Duration,
    /// Longest pause between two attempts to reach the history; the first is a fiftieth of it.
    pub retry_interval_max: Duration,
}

impl Default for AppendLimits {
    fn default() -> Self {
        Self {
            append_bytes_max: 8 << 20,
            append_changes_max: 20_000,
            history_partition_wal_bytes: 4 << 30,
            history_partition_age: Duration::from_secs(86_400),
            idle_persist_interval_min: Duration::from_secs(10),
            idle_persist_wal_bytes_min: 1 << 20,
            idle_persist_interval_max: Duration::from_secs(300),
            fence_interval: Duration::from_secs(10),
            retry_interval_max: Duration::from_secs(5),
        }
    }
}

/// How storing is doing, as told to operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppenderState {
    /// Entered at start; left when the history has stored something, or has nothing to store.
    Starting,
    /// What was last given to the history was stored.
    Storing,
    /// Entered when the history fails; left when it works again. Retried for ever. Meanwhile nothing is lost:
    /// live clients are served, the feed keeps what is not stored, and when it is full the WAL keeps the rest.
    Interrupted {
        /// What happened, and what an operator can do about it.
        reason: String,
    },
}

/// What is told while nothing can be stored ([`walcast_feed::Outages`]).
pub const NOT_WRITTEN: &str = "history is not written";

/// Follows the feed and makes it durable. There is one for a feed.
#[derive(Debug)]
pub struct Appender {
    config: ConnectionConfig,
    record: FeedRecord,
    feed: Feed,
    limits: AppendLimits,
    acknowledge: watch::Sender<Lsn>,
    state: watch::Sender<AppenderState>,
    /// `persisted <= position <= head`. The position of `walcast.feed`.
    persisted: Cursor,
    persisted_at: Instant,
    /// Every change before it is stored; past `persisted` there is none.
    position: Cursor,
    /// By which the record knows this process.
    writer: i64,
    imaged: ImagedTables,
    has_claimed: bool,
    backoff: Backoff,
    outage: Outage,
}

impl Appender {
    /// An appender for a feed that was made at `record.position`. `acknowledge` is told every whole-transaction
    /// position that is durable in the history: what the slot may forget.
    #[must_use]
    pub fn new(
        config: ConnectionConfig,
        record: FeedRecord,
        feed: Feed,
        limits: AppendLimits,
        acknowledge: watch::Sender<Lsn>,
    ) -> Self {
        let position = record.position;
        let outage = feed.outages().part(NOT_WRITTEN);
        Self {
            config,
            record,
            feed,
            limits,
            acknowledge,
            state: watch::Sender::new(AppenderState::Starting),
            persisted: position,
            persisted_at: Instant::now(),
            position,
            writer: rand::random(),
            imaged: ImagedTables::default(),
            has_claimed: false,
            backoff: Backoff::new(limits.retry_interval_max / 50, limits.retry_interval_max),
            outage,
        }
    }

    /// Keeps last images of these tables: marks on changes are only to be of them. Without this there are none, and those
    /// that are there are dropped.
    #[must_use]
    pub fn with_images(mut self, tables: ImagedTables) -> Self {
        self.imaged = tables;
        self
    }

    /// By which the record knows this process: what [`crate::Retention`] is to act for.
    #[must_use]
    pub const fn writer(&self) -> i64 {
        self.writer
    }

    /// Sees how storing is doing.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<AppenderState> {
        self.state.subscribe()
    }

    /// Claims the feed once `held` says that this process has the slot; then stores what the feed has, as it comes, until
    /// cancelled; retries for ever when the history fails.
    ///
    /// Once cancelled it stores what the feed has by then, persists and acknowledges the last position, and returns.
    /// Stop the replicator first. Dropping the future is safe at any time: nothing is lost or stored twice.
    ///
    /// # Errors
    /// [`Error::MovedOn`], [`Error::Fenced`], [`Error::WentBack`], [`Error::FeedGone`], [`Error::Missing`], [`Error::SchemaNewer`] or
    /// [`Error::FeedAhead`]: this process must not go on with this feed as it knows it. Any other error only after
    /// cancellation: the slot will send again what is not stored.
    pub async fn run(
        mut self,
        held: impl Future<Output = ()> + Send,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        tokio::select! {
            biased;
            () = held => {}
            // Without the slot there is nothing to store.
            () = cancel.cancelled() => return Ok(()),
        }
        loop {
            let Err(error) = Box::pin(self.follow(&cancel)).await else { return Ok(()) };
            let error = match error.sqlstate() {
                Some(MISSING_SQLSTATE) => Error::Missing { feed: self.record.id.clone() },
                _ => error,
            };
            let settled_later = error.sqlstate() == Some(FENCED_SQLSTATE);
            if !settled_later {
                counter!(names::APPEND_FAILURES).increment(1);
                self.state.send_replace(AppenderState::Interrupted { reason: error.to_string() });
            }
            if error.ends_the_feed() || cancel.is_cancelled() && self.backoff.failures() > 0 {
                return Err(error);
            }
            let pause = self.backoff.wait();
            let (failures, hint) = (self.backoff.failures(), error.hint());
            self.outage.begin(error.cause(), hint.clone());
            tracing::warn!(%error, hint, failures, "history is not written; trying again in {pause:.1?}");
            // Both are cancel-safe.
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// Works with one connection, until it fails or everything is done after cancellation.
    async fn follow(&mut self, cancel: &CancellationToken) -> Result<(), Error> {
        let rule = PartitionRule {
            wal_bytes: self.limits.history_partition_wal_bytes,
            age: self.limits.history_partition_age,
        };
        let mut store = Store::connect(&self.config, &self.record.id, self.writer, rule).await?;
        if !self.has_claimed {
            store.claim(&self.record).await?;
            store.images.retain(&store.session, &self.imaged).await?;
            self.has_claimed = true;
            tracing::info!(feed = %self.record.id, position = %self.record.position, "the feed is claimed");
        }
        let (found, is_own) = store.position().await?;
        self.settle(found, is_own)?;
        let mut head = self.feed.watch_head();
        let mut goal = None;
        loop {
            if goal.is_none() && cancel.is_cancelled() {
                goal = Some(self.feed.head());
            }
            // Seen before the feed is read: a move after that wakes the wait below.
            head.borrow_and_update();
            match self.feed.read(self.position, self.limits.append_bytes_max) {
                Read::Parts { parts, next } if goal.is_none_or(|goal| self.position < goal) => {
                    self.write(&mut store, parts, next).await?;
                }
                Read::Behind { oldest } => return Err(Error::FeedAhead { position: self.position, oldest }),
                Read::AtHead { head: at } => {
                    self.pass(at);
                    self.idle(&mut store, &mut head, goal.is_some(), cancel).await?;
                    if goal.is_some() {
                        return Ok(());
                    }
                }
                Read::Parts { .. } => {
                    self.persist(&store).await?;
                    return Ok(());
                }
            }
        }
    }

    /// Nothing is to be written: persists the position when it is time, otherwise waits for something to happen.
    async fn idle(
        &mut self,
        store: &mut Store,
        head: &mut watch::Receiver<Cursor>,
        last: bool,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let due = self.idle_rule().due(self.persisted, self.persisted_at, self.position);
        if last || due.is_some_and(|due| due <= Instant::now()) {
            return self.persist(store).await;
        }
        self.works();
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // All of them only wait.
        tokio::select! {
            _ = head.changed() => Ok(()),
            () = due => Ok(()),
            () = cancel.cancelled() => Ok(()),
            () = sleep(self.limits.fence_interval) => {
                let (found, is_own) = store.position().await?;
                self.settle(found, is_own)
            }
            error = store.closed() => Err(error),
        }
    }

    fn idle_rule(&self) -> IdleRule {
        IdleRule {
            interval_min: self.limits.idle_persist_interval_min,
            wal_bytes_min: self.limits.idle_persist_wal_bytes_min,
            interval_max: self.limits.idle_persist_interval_max,
        }
    }

    /// Judges the position that was found.
    fn settle(&mut self, found: Cursor, is_own: bool) -> Result<(), Error> {
        let (feed, expected) = (&self.record.id, self.persisted);
        if found < expected {
            return Err(Error::WentBack { feed: feed.clone(), expected, found });
        }
        if !is_own {
            return Err(Error::Fenced { feed: feed.clone(), expected, found });
        }
        if found > expected {
            tracing::info!(position = %found, "a commit whose outcome was unknown has happened");
            self.stored(found);
        }
        self.acknowledge_persisted();
        Ok(())
    }

    async fn write(
        &mut self,
        store: &mut Store,
        mut parts: Vec<Arc<Part>>,
        next: Cursor,
    ) -> Result<(), Error> {
        let to = match bounded(&parts, self.limits.append_changes_max) {
            count if count < parts.len() => {
                parts.truncate(count);
                parts.last().map_or(next, |part| part.next_cursor())
            }
            _ => next,
        };
        let started = Instant::now();
        let changes = store.write(&Batch { parts, from: self.persisted, to }).await?;
        self.stored(to);
        self.acknowledge_persisted();
        self.works();
        counter!(names::APPEND_COMMITS).increment(1);
        counter!(names::APPENDED_CHANGES).increment(changes);
        histogram!(names::BATCH_CHANGES).record(changes as f64);
        histogram!(names::COMMIT_SECONDS).record(started.elapsed().as_secs_f64());
        store.summarize_when_due().await;
        Ok(())
    }

    /// Persists a position that no change leads to.
    async fn persist(&mut self, store: &Store) -> Result<(), Error> {
        if self.position > self.persisted {
            let to = self.position;
            store.advance(self.persisted, to).await?;
            self.stored(to);
            self.works();
        }
        self.acknowledge_persisted();
        Ok(())
    }

    /// The history does what it is asked for.
    fn works(&mut self) {
        self.backoff.reset();
        if let Some(away) = self.outage.end() {
            tracing::info!(position = %self.position, "history is written again, after {away:.1?}");
        }
        self.state.send_if_modified(|state| {
            let changed = *state != AppenderState::Storing;
            *state = AppenderState::Storing;
            changed
        });
    }

    /// The history has committed `to`.
    fn stored(&mut self, to: Cursor) {
        self.persisted = to;
        self.persisted_at = Instant::now();
        self.pass(to);
    }

    /// Every change before `to` is stored.
    fn pass(&mut self, to: Cursor) {
        self.position = self.position.max(to);
        self.feed.mark_stored(self.position);
        let lag = self.feed.head().lsn().bytes_since(self.position.lsn());
        gauge!(names::LAG_BYTES).set(lag as f64);
        gauge!(names::STORED_POSITION).set(self.position.lsn().get() as f64);
    }

    /// Inside a transaction nothing is acknowledged: the slot sends a transaction whole or not at all.
    fn acknowledge_persisted(&self) {
        if self.persisted.seq() == Seq::FIRST {
            let persisted = self.persisted.lsn();
            self.acknowledge.send_if_modified(|acknowledged| {
                let later = *acknowledged < persisted;
                *acknowledged = persisted.max(*acknowledged);
                later
            });
        }
    }
}

/// How many of the parts have at most `changes_max` changes together; at least one.
fn bounded(parts: &[Arc<Part>], changes_max: usize) -> usize {
    let mut changes = 0;
    let fits = parts.iter().take_while(|part| {
        changes += part.changes().len();
        changes <= changes_max
    });
    fits.count().max(1)
}
