//! Old changes go: whole partitions, oldest first, by age and by size.
//!
//! ```text
//!  every interval:  look ──► what is due (plan) ──► does the source's present snapshot see all of it? ──► drop
//!                     ▲                                   │ no: later                       │ locked: later
//!                     └───────────────────────────────────┴────────────────────────────────┘
//! ```
//!
//! One transaction drops the partitions and moves `walcast.feed.oldest_lsn`, so whoever reads a page and then the oldest
//! position either has a whole page or knows that it is not. It holds the lock on `change_history` for milliseconds and
//! waits for it no longer than [`LOCK_WAIT_MAX`], because readers and the appender wait behind it.
//!
//! It acts only while this process is the one that stores the feed ([`crate::Appender::writer`]).

mod plan;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;
use walcast_feed::{Backoff, Outage, Outages};
use walcast_model::{FeedId, Lsn, Snapshot};
use walcast_postgres::{ConnectionConfig, Session};

use crate::column::{get, lsn, optional_lsn, parameter};
use crate::error::{Doing, FENCED_SQLSTATE, LOCKED_SQLSTATE};
use crate::metrics as names;
use crate::{ClientKey, ClientName, Error, FeedRecord, clients, schema};
use plan::{Kept, Partition};

/// How long dropping may wait for those who read `change_history`; others wait behind it for as long.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(200);
/// How long it may wait for the appender's commit.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Partitions that are dropped in one transaction; the others follow in further ones.
const PARTITIONS_MAX: usize = 8;
/// The shortest pause after something was in the way; doubled up to [`RetentionLimits::interval`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Tries in a row with somebody in the way after which it is a warning.
const BLOCKED_NOTABLE: u32 = 10;

const RETAIN: &str = "drop old changes";

/// What is kept of the history.
#[derive(Clone, Copy, Debug)]
pub struct RetentionLimits {
    /// Partitions into which nothing was stored for this long are dropped; `None` keeps them.
    pub history_retention: Option<Duration>,
    /// The oldest partitions are dropped while all together, with their indexes, are larger than this, in bytes; `None`
    /// keeps them.
    pub history_bytes_max: Option<u64>,
    /// How often it is looked whether something is due.
    pub interval: Duration,
}

impl Default for RetentionLimits {
    fn default() -> Self {
        Self {
            history_retention: Some(Duration::from_secs(7 * 86_400)),
            history_bytes_max: None,
            interval: Duration::from_secs(30),
        }
    }
}

/// Takes a snapshot of the source's primary. An error is a text for people, and is tried again.
pub type SourceSnapshot = Arc<dyn Fn() -> BoxFuture<'static, Result<Snapshot, String>> + Send + Sync>;

/// Drops what is old. There is one for a feed, beside its appender.
pub struct Retention {
    config: ConnectionConfig,
    feed: FeedId,
    writer: i64,
    limits: RetentionLimits,
    source: SourceSnapshot,
    keep: Vec<ClientName>,
    blocked: u32,
    /// Whether it was said that a client holds history back.
    holding_told: bool,
    backoff: Backoff,
    outage: Outage,
}

/// What is told while it cannot look.
const EFFECT: &str = "old changes are not dropped";

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention")
            .field("feed", &self.feed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Whom history is kept for.
#[derive(Debug)]
struct Slowest {
    key: ClientKey,
    acknowledged: Lsn,
}

/// What became of one look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Nothing is due.
    Nothing,
    /// Something was dropped; there may be more.
    Dropped,
    /// Something is due and something is in the way.
    Blocked,
}

impl Retention {
    /// For the feed of `record`, which the appender stores that is known as `writer`.
    #[must_use]
    pub fn new(
        config: ConnectionConfig,
        record: &FeedRecord,
        writer: i64,
        limits: RetentionLimits,
        source: SourceSnapshot,
    ) -> Self {
        Self {
            config,
            feed: record.id.clone(),
            writer,
            limits,
            source,
            keep: Vec::new(),
            blocked: 0,
            holding_told: false,
            backoff: Backoff::new(RETRY_MIN, limits.interval),
            outage: Outages::default().part(EFFECT),
        }
    }

    /// Tells there when it cannot do its work.
    #[must_use]
    pub fn telling(self, outages: &Outages) -> Self {
        Self { outage: outages.part(EFFECT), ..self }
    }

    /// Keeps what these clients have not acknowledged.
    #[must_use]
    pub fn keeping(self, clients: Vec<ClientName>) -> Self {
        Self { keep: clients, ..self }
    }

    /// Looks and drops until cancelled; what fails is logged and tried again. Dropping the future is safe at any time.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            let pause = match cancel.run_until_cancelled(self.follow()).await {
                None => return,
                Some(Ok(())) => self.limits.interval,
                Some(Err(error)) => {
                    counter!(names::RETENTION_RETRIES, "reason" => "failed").increment(1);
                    let (pause, hint) = (self.backoff.wait(), error.hint());
                    self.outage.begin(error.cause(), hint.clone());
                    tracing::warn!(%error, hint, "{EFFECT}; trying again in {pause:.1?}");
                    pause
                }
            };
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Works with one connection until it fails.
    async fn follow(&mut self) -> Result<(), Error> {
        let session = Session::connect(&self.config, "walcast retention").await.doing(RETAIN)?;
        schema::check(&session).await?;
        session.batch_execute("SET synchronous_commit = local; SET jit = off").await.doing(RETAIN)?;
        loop {
            let outcome = self.look(&session).await?;
            self.works();
            let pause = match outcome {
                Outcome::Nothing => {
                    self.blocked = 0;
                    self.limits.interval
                }
                Outcome::Dropped => {
                    self.blocked = 0;
                    continue;
                }
                Outcome::Blocked => {
                    self.blocked = self.blocked.saturating_add(1);
                    (RETRY_MIN * (1 << self.blocked.min(8))).min(self.limits.interval)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        if let Some(away) = self.outage.end() {
            tracing::info!("old changes are dropped again, after {away:.1?}");
        }
    }

    async fn look(&mut self, session: &Session) -> Result<Outcome, Error> {
        let Some((oldest, position)) = self.positions(session).await? else { return Ok(Outcome::Nothing) };
        let slowest = self.slowest(session, oldest).await?;
        let kept = Kept { position, acknowledged: slowest.as_ref().map(|slowest| slowest.acknowledged) };
        let partitions = Self::partitions(session).await?;
        let due = plan::due(&partitions, &kept, &self.limits);
        self.tell_held(&partitions, &kept, slowest.as_ref(), due);
        let due = due.min(PARTITIONS_MAX);
        if due == 0 {
            return Ok(Outcome::Nothing);
        }
        let due = &partitions[..due];
        let snapshot = match (self.source)().await {
            Ok(snapshot) => snapshot,
            Err(reason) => {
                counter!(names::RETENTION_RETRIES, "reason" => "source").increment(1);
                tracing::info!(reason, "old changes are not dropped while the source cannot be asked");
                return Ok(Outcome::Blocked);
            }
        };
        let mut xid = 0;
        let mut seen = 0;
        for partition in due {
            let sql = "SELECT walcast.dropped_xid($1, $2::text::pg_snapshot)";
            let row = session
                .query_one(sql, &[&partition.name, &snapshot.to_string()])
                .await
                .doing("look at old changes")?;
            let Some(largest) = get::<Option<i64>>(&row, 0)? else { break };
            (xid, seen) = (largest.max(xid), seen + 1);
        }
        let Some(last) = due[..seen].last() else {
            counter!(names::RETENTION_RETRIES, "reason" => "open_transaction").increment(1);
            tracing::info!(
                partition = due[0].name,
                "old changes are kept until every snapshot of the source sees them"
            );
            return Ok(Outcome::Blocked);
        };
        self.drop_below(session, last.upper, &due[..seen], xid, &snapshot).await
    }

    /// The oldest position, and the one before which nothing will be stored; `None` when this process does not store the feed.
    async fn positions(&self, session: &Session) -> Result<Option<(Lsn, Lsn)>, Error> {
        let sql = "SELECT least(position_lsn, last_lsn), oldest_lsn, pg_total_relation_size(i.oid), \
                   greatest(i.reltuples, 0)::float8 \
                   FROM walcast.feed, pg_class AS i \
                   WHERE feed_id = $1 AND writer = $2 AND i.oid = 'walcast.last_image'::regclass";
        let row = session.query_opt(sql, &[&self.feed.as_str(), &self.writer]).await.doing(RETAIN)?;
        let Some(row) = row else { return Ok(None) };
        let oldest = lsn(&row, 1)?;
        gauge!(names::OLDEST_POSITION).set(oldest.get() as f64);
        gauge!(names::IMAGES_BYTES).set(get::<i64>(&row, 2)? as f64);
        gauge!(names::IMAGES_ROWS).set(get::<f64>(&row, 3)?);
        Ok(Some((oldest, lsn(&row, 0)?)))
    }

    /// The partitions, oldest first.
    async fn partitions(session: &Session) -> Result<Vec<Partition>, Error> {
        // A partition is as old as its successor: nothing was stored in it since that was made.
        let sql = "SELECT p.name, p.upper_lsn, coalesce(pg_total_relation_size(p.oid::oid), 0)::int8,
                          extract(epoch FROM clock_timestamp() - r.made_at)::float8,
                          extract(epoch FROM clock_timestamp() - lead(r.made_at) OVER (ORDER BY p.lower_lsn))::float8
                   FROM walcast.partition AS p LEFT JOIN walcast.partition_record AS r USING (name)
                   ORDER BY p.lower_lsn";
        let rows = session.query(sql, &[]).await.doing(RETAIN)?;
        let seconds = |seconds: Option<f64>| seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let mut partitions = Vec::with_capacity(rows.len());
        for row in &rows {
            partitions.push(Partition {
                name: get(row, 0)?,
                upper: lsn(row, 1)?,
                bytes: u64::try_from(get::<i64>(row, 2)?).unwrap_or_default(),
                complete: seconds(get(row, 4)?),
            });
        }
        gauge!(names::BYTES).set(partitions.iter().map(|partition| partition.bytes).sum::<u64>() as f64);
        gauge!(names::PARTITIONS).set(partitions.len() as f64);
        let age = rows.first().map(|row| get::<Option<f64>>(row, 3)).transpose()?.flatten();
        gauge!(names::OLDEST_AGE_SECONDS).set(age.unwrap_or_default().max(0.0));
        Ok(partitions)
    }

    /// The slowest of the clients that are kept, of those that can still be served.
    async fn slowest(&self, session: &Session, oldest: Lsn) -> Result<Option<Slowest>, Error> {
        if self.keep.is_empty() {
            return Ok(None);
        }
        let (users, ids) = clients::columns(&self.keep);
        let sql =
            "SELECT c.lsn, c.user_name, c.client_id, c.subscription FROM walcast.client AS c
                   JOIN unnest($1::text[], $2::text[]) AS kept (user_name, client_id) USING (user_name, client_id)
                   WHERE c.lsn > '0/0' AND c.lsn >= $3
                   AND (c.feed_id = $4 OR EXISTS (SELECT FROM walcast.lineage AS l
                                                  WHERE l.feed_id = c.feed_id AND c.lsn <= l.valid_to))
                   ORDER BY c.lsn LIMIT 1";
        let feed = self.feed.as_str();
        let row = session.query_opt(sql, &[&users, &ids, &parameter(oldest), &feed]).await.doing(RETAIN)?;
        let Some(row) = row else { return Ok(None) };
        let name = ClientName { user: get(&row, 1)?, client_id: get(&row, 2)? };
        let key = ClientKey { name, subscription: get(&row, 3)? };
        Ok(Some(Slowest { key, acknowledged: lsn(&row, 0)? }))
    }

    /// Says what is kept for clients alone: `due` of the partitions are dropped.
    fn tell_held(&mut self, partitions: &[Partition], kept: &Kept, slowest: Option<&Slowest>, due: usize) {
        let without = plan::due(partitions, &Kept { acknowledged: None, ..*kept }, &self.limits);
        let held: u64 = partitions.iter().take(without).skip(due).map(|partition| partition.bytes).sum();
        gauge!(names::HELD_BYTES).set(held as f64);
        let is_held = without > due;
        if let Some(slowest) = slowest.filter(|_| is_held && !self.holding_told) {
            tracing::warn!(
                bytes = held,
                client = %slowest.key.name,
                subscription = slowest.key.subscription,
                acknowledged = %slowest.acknowledged,
                "old changes are kept because this client in keep_clients has not acknowledged them; if it never will, \
                 delete the row of its subscription from walcast.client (walcast status --clients shows all)"
            );
        }
        self.holding_told = is_held;
    }

    async fn drop_below(
        &self,
        session: &Session,
        below: Lsn,
        dropped: &[Partition],
        xid: i64,
        snapshot: &Snapshot,
    ) -> Result<Outcome, Error> {
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}",
            COMMIT_WAIT_MAX.as_millis()
        );
        session.batch_execute(&sql).await.doing(RETAIN)?;
        let wait = i32::try_from(LOCK_WAIT_MAX.as_millis()).unwrap_or(i32::MAX);
        let sql = "SELECT walcast.drop_partitions($1, $2, $3, $4, $5, $6)";
        let done = session
            .query_one(
                sql,
                &[&self.feed.as_str(), &self.writer, &parameter(below), &xid, &snapshot.to_string(), &wait],
            )
            .await
            .doing(RETAIN);
        let row = match done {
            Ok(row) => row,
            Err(error) => {
                session.batch_execute("ROLLBACK").await.doing(RETAIN)?;
                return match error.sqlstate() {
                    Some(LOCKED_SQLSTATE) => {
                        self.say_blocked(session).await;
                        Ok(Outcome::Blocked)
                    }
                    // Another one stores the feed by now, and will drop what is due.
                    Some(FENCED_SQLSTATE) => Ok(Outcome::Nothing),
                    _ => Err(error),
                };
            }
        };
        session.batch_execute("COMMIT").await.doing(RETAIN)?;
        let bytes: u64 = dropped.iter().map(|partition| partition.bytes).sum();
        let oldest = optional_lsn(&row, 0)?.unwrap_or_default();
        counter!(names::DROPPED_PARTITIONS).increment(dropped.len() as u64);
        counter!(names::DROPPED_BYTES).increment(bytes);
        gauge!(names::OLDEST_POSITION).set(oldest.get() as f64);
        tracing::info!(partitions = dropped.len(), bytes, %oldest, "old changes are dropped");
        Ok(Outcome::Dropped)
    }

    /// Somebody reads `change_history` in a transaction that does not end.
    async fn say_blocked(&self, session: &Session) {
        counter!(names::RETENTION_RETRIES, "reason" => "locked").increment(1);
        if self.blocked < BLOCKED_NOTABLE {
            return;
        }
        let sql =
            "SELECT l.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::int8
                   FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
                   WHERE l.relation = 'walcast.change_history'::regclass AND l.granted
                   ORDER BY a.xact_start LIMIT 1";
        // Only for the message.
        let Ok(Some(row)) = session.query_opt(sql, &[]).await else { return };
        let (pid, application): (Option<i32>, Option<String>) = (row.get(0), row.get(1));
        let (application, seconds) = (application.unwrap_or_default(), row.get::<_, Option<i64>>(2));
        let fix = pid.map(|pid| format!("end that transaction, or: SELECT pg_terminate_backend({pid});"));
        tracing::warn!(
            pid,
            application,
            seconds,
            fix,
            "old changes cannot be dropped: change_history is read in a transaction that stays open"
        );
    }
}
