//! Which partition is written: made when there is none for a position, cut when it was made long ago.

use std::time::Duration;

use tokio::time::Instant;
use walcast_model::{Cursor, Lsn, Seq};

use super::store::Store;
use crate::Error;
use crate::column::{get, lsn, parameter};
use crate::error::{Doing, LOCKED_SQLSTATE};

/// How long a step of a cut may wait for those who read the partition. They wait behind it for as long.
const CUT_LOCK_WAIT_MAX: Duration = Duration::from_millis(200);
/// After a step was given up, how long until the next try.
const CUT_AGAIN: Duration = Duration::from_secs(60);

/// When a partition ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionRule {
    /// WAL that it covers, in bytes.
    pub(super) wal_bytes: u64,
    /// Made this long ago, it ends at the next transaction.
    pub(super) age: Duration,
}

pub(super) struct Partition {
    pub(super) name: String,
    lower: Lsn,
    upper: Lsn,
    /// When it is to be cut.
    cut_at: Instant,
}

impl Partition {
    fn holds(&self, at: Lsn) -> bool {
        self.lower <= at && at < self.upper
    }
}

impl Store {
    /// Has the partition for a change at `at`, outside the transaction that stores it. `from`: where the history stands.
    /// Whether it is another partition than before.
    pub(super) async fn ensure_partition(&mut self, from: Cursor, at: Lsn) -> Result<bool, Error> {
        let is_known = |partition: &Partition| partition.holds(at) && Instant::now() < partition.cut_at;
        if self.partition.as_ref().is_some_and(is_known) {
            return Ok(false);
        }
        if !self.partition.as_ref().is_some_and(|partition| partition.holds(at)) {
            // The one before is complete.
            self.summarize().await;
            self.find_partition(at).await?;
        }
        // Nothing at or after the cut may be stored: not in the middle of a transaction, and not ahead of others of the
        // same batch.
        if let Some(partition) = &mut self.partition
            && Instant::now() >= partition.cut_at
            && from.seq() == Seq::FIRST
            && from.lsn() <= at
            && partition.lower < at
        {
            partition.cut_at = Instant::now() + CUT_AGAIN;
            let name = partition.name.clone();
            if self.cut(&name, from.lsn(), at).await? {
                self.summarize().await;
                self.find_partition(at).await?;
            }
        }
        Ok(true)
    }

    async fn find_partition(&mut self, at: Lsn) -> Result<(), Error> {
        let wal_bytes = i64::try_from(self.rule.wal_bytes).unwrap_or(i64::MAX);
        let sql = "SELECT name, lower_lsn, upper_lsn, extract(epoch FROM clock_timestamp() - made_at)::float8 \
                   FROM walcast.ensure_partition($1, $2)";
        let row =
            self.session.query_one(sql, &[&parameter(at), &wal_bytes]).await.doing("make a partition")?;
        // A clock that was set back makes it older than it is said to be, one that was set forward younger: it is then
        // cut later or sooner, which harms nothing.
        let age = Duration::try_from_secs_f64(get::<f64>(&row, 3)?).unwrap_or_default();
        let cut_at = Instant::now() + self.rule.age.saturating_sub(age);
        let (name, lower, upper) = (get(&row, 0)?, lsn(&row, 1)?, lsn(&row, 2)?);
        self.partition = Some(Partition { name, lower, upper, cut_at });
        self.relations.clear();
        Ok(())
    }

    /// Ends a partition before `at`, if it has anything. Whether it was done: it is given up when somebody who reads the
    /// partition does not end in time.
    async fn cut(&mut self, name: &str, from: Lsn, at: Lsn) -> Result<bool, Error> {
        const DOING: &str = "cut a partition";
        let wait = CUT_LOCK_WAIT_MAX.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {wait}; SELECT walcast.begin_cut('{}', {}, '{from}', '{name}', '{at}'); COMMIT",
            self.feed, self.writer
        );
        // Reads all rows, under a lock that only a vacuum of the partition is in the way of.
        let check = format!(
            "BEGIN; SET LOCAL lock_timeout = '2s'; ALTER TABLE walcast.{name} VALIDATE CONSTRAINT walcast_cut; COMMIT"
        );
        let finish = format!(
            "BEGIN; SET LOCAL lock_timeout = {wait}; SELECT walcast.finish_cut('{name}', '{at}'); COMMIT"
        );
        let started = Instant::now();
        for (step, sql) in [begin, check, finish].into_iter().enumerate() {
            let Err(error) = self.session.batch_execute(&sql).await.doing(DOING) else {
                if step == 0 && !self.has_begun_cut(name).await? {
                    // Empty, and made now.
                    if let Some(partition) = &mut self.partition {
                        partition.cut_at = Instant::now() + self.rule.age;
                    }
                    return Ok(false);
                }
                continue;
            };
            if error.sqlstate() != Some(LOCKED_SQLSTATE) {
                return Err(error);
            }
            self.session.batch_execute("ROLLBACK").await.doing(DOING)?;
            tracing::info!(partition = name, "a partition is read and could not be cut; trying again later");
            // Finding it again forgets what was begun, without a lock that the reader is in the way of.
            self.find_partition(at).await?;
            if let Some(partition) = &mut self.partition {
                partition.cut_at = Instant::now() + CUT_AGAIN;
            }
            return Ok(false);
        }
        tracing::info!(partition = name, at = %at, seconds = started.elapsed().as_secs_f64(), "a partition ends by its age");
        Ok(true)
    }

    async fn has_begun_cut(&self, name: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = 'walcast_cut')";
        let row =
            self.session.query_one(sql, &[&format!("walcast.{name}")]).await.doing("look at a partition")?;
        get(&row, 0)
    }
}
