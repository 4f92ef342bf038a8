//! What is measured, and what it is made to send.

use std::time::Duration;

use tokio::time::Instant;
use walcast_testkit::{Cluster, Daemon, TestDatabase, TestSession};

use crate::Outcome;
use crate::child::Child;
use crate::floor;
use crate::options::Options;
use crate::process::now_nanos;

/// Transactions that are sent to Postgres at once in a flood, so that its client does not set the pace.
const FLOOD_AT_ONCE: usize = 100;
/// So large is a row's text that a frame has about 300 bytes.
const BODY_BYTES: usize = 76;

/// The daemon on a database of its own.
pub(crate) struct Walcast {
    pub(crate) daemon: Daemon,
    pub(crate) database: TestDatabase,
    writer: TestSession,
    /// The number of the next row.
    next: usize,
}

impl Walcast {
    pub(crate) async fn start(options: &Options, cluster: &Cluster) -> Self {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE messages (n bigint PRIMARY KEY, body text)").await;
        let mut daemon = Daemon::of(&database).flag("--connections-per-address-max", 20_000);
        if let Some(program) = &options.daemon {
            daemon = daemon.program(program);
        }
        let daemon = daemon.start().await;
        let writer = database.session().await;
        Self { daemon, database, writer, next: 0 }
    }

    fn insert(&mut self) -> String {
        let number = self.next;
        self.next += 1;
        format!("INSERT INTO messages VALUES ({number}, '{:x>BODY_BYTES$}')", "")
    }

    /// As many transactions of one row a second: the number of the first, and when the commit of each had returned.
    pub(crate) async fn paced(&mut self, rate: f64, count: usize) -> Outcome<(usize, Vec<u64>)> {
        let (first, began, mut sent) = (self.next, Instant::now(), Vec::with_capacity(count));
        for number in 0..count {
            tokio::time::sleep_until(began + Duration::from_secs_f64(number as f64 / rate)).await;
            let insert = self.insert();
            self.writer.batch_execute(&insert).await?;
            sent.push(now_nanos());
        }
        Ok((first, sent))
    }

    /// As many transactions of one row as fast as one connection writes them.
    pub(crate) async fn flood(&mut self, count: usize) -> Outcome<()> {
        self.writer.batch_execute("SET synchronous_commit = off").await?;
        let mut left = count;
        while left > 0 {
            let now = left.min(FLOOD_AT_ONCE);
            let batch: String = (0..now).map(|_| format!("BEGIN; {}; COMMIT;", self.insert())).collect();
            self.writer.batch_execute(&batch).await?;
            left -= now;
        }
        Ok(self.writer.batch_execute("RESET synchronous_commit").await?)
    }
}

/// The floor's process.
pub(crate) struct Floor {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Floor {
    pub(crate) async fn start() -> Outcome<Self> {
        let mut child = Child::start(floor::COMMAND)?;
        let port = child.answer().await?.concat().parse()?;
        Ok(Self { child, port })
    }

    /// See [`floor`].
    pub(crate) async fn paced(&mut self, rate: f64, count: usize, bytes: usize) -> Outcome<Vec<u64>> {
        let sent = self.child.ask(&format!("paced {rate:.0} {count} {bytes}")).await?;
        Ok(sent.iter().map(|time| time.parse()).collect::<Result<_, _>>()?)
    }

    /// See [`floor`].
    pub(crate) async fn flood(&mut self, count: usize, bytes: usize, each: usize) -> Outcome<()> {
        self.child.ask(&format!("flood {count} {bytes} {each}")).await.map(drop)
    }
}
