//! Nothing to do, for long: what an idle feed makes the source keep and write (cases 56 and 69).
//!
//! ```text
//! one cluster:      a published database that is idle, another one that is written all the time
//! another cluster:  a database with feed and history, and nothing else
//! ```
//!
//! In the first, WAL that nobody publishes must be released as it comes. In the second, walcast must not keep itself
//! busy: what it stores is WAL too, of which it then learns, and would store that it has.

use std::fmt;
use std::time::{Duration, Instant};

use walcast_cluster::{Cluster, Installation};

use super::subscribed::Subscribed;
use crate::{Daemon, TestDatabase, own_cluster};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Between two writes into the other database; each makes about 100 kB of WAL.
const WRITE: Duration = Duration::from_millis(200);
/// WAL may be kept for so long: an idle position is persisted every 10 s, and Postgres notes every 15 s what it still needs.
const KEPT_FOR_MAX: Duration = Duration::from_secs(60);
/// …and so much of it besides: two segments.
const KEPT_BYTES_MAX: u64 = 32 << 20;
/// The daemon persists that it is idle every five minutes when the position moved at all.
const PERSIST_EVERY: Duration = Duration::from_secs(300);
/// WAL of an idle system: that persisting, checkpoints with the whole pages after them, and what Postgres notes of itself.
const WRITTEN_BYTES_A_MINUTE_MAX: u64 = 64 << 10;
/// …and so much at the beginning.
const WRITTEN_BYTES_MAX: u64 = 256 << 10;

/// What is watched, and for how long.
#[derive(Clone, Debug)]
pub struct IdleWatch {
    /// How long.
    pub time: Duration,
    /// Postgres.
    pub installation: Installation,
}

/// What was seen, when nothing was wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdleReport {
    time: Duration,
    /// WAL of the other database.
    busy_bytes: u64,
    /// The most that was kept for the idle slot.
    kept_bytes_max: u64,
    /// WAL of the idle system.
    idle_bytes: u64,
    /// How often the idle system's history was written.
    idle_writes: u64,
    /// How far the feed's clients were told that nothing is missing, behind the WAL's end, at most.
    heartbeat_lag_max: u64,
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let Self { time, busy_bytes, kept_bytes_max, idle_bytes, idle_writes, heartbeat_lag_max } = self;
        writeln!(f, "idle for {:.0} s", time.as_secs_f64())?;
        writeln!(
            f,
            "  beside a busy database, which wrote {:.0} MiB of WAL: at most {:.1} MiB kept, heartbeats at most {:.1} MiB behind",
            mib(*busy_bytes),
            mib(*kept_bytes_max),
            mib(*heartbeat_lag_max)
        )?;
        write!(
            f,
            "  alone, with its history: {:.1} KiB of WAL, the feed's record written {idle_writes} times",
            *idle_bytes as f64 / 1024.0
        )
    }
}

/// A database that is published and idle, with its daemon and a client.
struct Idle {
    // Dropped in this order.
    client: Subscribed,
    _daemon: Daemon,
    database: TestDatabase,
    cluster: Cluster,
}

impl Idle {
    async fn start(installation: &Installation) -> Self {
        let cluster = own_cluster(installation).await;
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).start().await;
        let client = Subscribed::start(daemon.ws_url());
        Self { client, _daemon: daemon, database, cluster }
    }

    async fn number(&self, sql: &str) -> Result<u64, String> {
        let text = self.database.scalar(sql).await.ok_or_else(|| format!("{sql}: nothing"))?;
        text.parse().map_err(|error| format!("{sql}: {text}: {error}"))
    }

    /// Where the WAL is.
    async fn wal(&self) -> Result<u64, String> {
        self.number("SELECT pg_current_wal_lsn() - '0/0'").await
    }

    /// What the slot makes the server keep.
    async fn kept(&self) -> Result<u64, String> {
        self.number("SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots").await
    }

    async fn writes(&self) -> Result<u64, String> {
        self.number(
            "SELECT n_tup_upd FROM pg_stat_user_tables WHERE schemaname = 'walcast' AND relname = 'feed'",
        )
        .await
    }
}

impl IdleWatch {
    /// Watches.
    ///
    /// # Errors
    ///
    /// What is wrong, as soon as it is.
    ///
    /// # Panics
    ///
    /// When a server, which is not under test, does not do what it is told.
    pub async fn run(&self) -> Result<IdleReport, String> {
        let beside = Idle::start(&self.installation).await;
        let alone = Idle::start(&self.installation).await;
        let busy = TestDatabase::create(&beside.cluster).await;
        busy.run("CREATE TABLE b (id int8, filler text)").await;
        let writer = busy.session().await;
        let writing = async {
            loop {
                // A server that fails is found by the looks.
                let sql = "INSERT INTO b SELECT g, repeat('x', 200) FROM generate_series(1, 400) AS g";
                let _written = writer.batch_execute(sql).await;
                tokio::time::sleep(WRITE).await;
            }
        };
        tokio::select! {
            outcome = self.look(&beside, &alone) => outcome,
            () = writing => Err("the writer has ended".to_owned()),
        }
    }

    async fn look(&self, beside: &Idle, alone: &Idle) -> Result<IdleReport, String> {
        let began = Instant::now();
        let mut report = IdleReport::default();
        let busy_from = beside.wal().await?;
        let (idle_from, writes_from) = (alone.wal().await?, alone.writes().await?);
        // Where the other database's WAL was, at every look.
        let mut ends = vec![(began, busy_from)];
        while began.elapsed() < self.time {
            tokio::time::sleep(LOOK).await;
            let end = beside.wal().await?;
            ends.push((Instant::now(), end));
            let long_ago = ends.iter().rev().find(|(at, _)| at.elapsed() >= KEPT_FOR_MAX);
            let may_be_kept = end - long_ago.map_or(busy_from, |(_, end)| *end) + KEPT_BYTES_MAX;
            let kept = beside.kept().await?;
            let told = beside.client.cursor()?;
            report.heartbeat_lag_max = report.heartbeat_lag_max.max(end.saturating_sub(told));
            report.kept_bytes_max = report.kept_bytes_max.max(kept);
            report.busy_bytes = end - busy_from;
            report.idle_bytes = alone.wal().await? - idle_from;
            report.idle_writes = alone.writes().await? - writes_from;
            report.time = began.elapsed();
            if kept > may_be_kept {
                return Err(format!(
                    "{kept} bytes of WAL are kept for an idle feed, more than {may_be_kept}\n{report}"
                ));
            }
            if end.saturating_sub(told) > may_be_kept {
                return Err(format!("heartbeats stand still at {told}, the WAL is at {end}\n{report}"));
            }
            let minutes = began.elapsed().as_secs().div_ceil(60);
            let periods = began.elapsed().as_secs() / PERSIST_EVERY.as_secs();
            if report.idle_bytes > WRITTEN_BYTES_MAX + minutes * WRITTEN_BYTES_A_MINUTE_MAX
                || report.idle_writes > periods + 2
            {
                return Err(format!("an idle system keeps itself busy\n{report}"));
            }
            alone.client.cursor()?;
        }
        let stored = alone.number("SELECT count(*) FROM walcast.change_history").await?;
        if stored != 0 {
            return Err(format!("{stored} changes are stored, and none was made"));
        }
        Ok(report)
    }
}
