//! Writers that keep a database busy: the same seed gives each writer the same statements. Collisions, deadlocks and faults
//! abort transactions; that is part of it, and the feed must not show them.
//!
//! * [`Mix::Accounts`]: four tables, one of each identity that a table can be published whole with; for tests that want
//!   traffic.
//! * [`Mix::Everything`]: what SQL can do to tables, also while their definitions change.
//! * [`TpcB`]: pgbench's own, with sums that agree at every transaction boundary.

mod accounts;
mod everything;
mod tpcb;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;

use crate::{LIMIT, TestDatabase, eventually};
pub use accounts::{TABLES, create};
pub use tpcb::{TpcB, TpcBRunner};
use writer::{Writer, end_prepared};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Inserts, updates, key changes, deletes, upserts, savepoints and rollbacks on [`TABLES`].
    Accounts,
    /// All of SQL; the rows of its largest transaction.
    Everything {
        /// The number of rows is spread evenly over the orders of magnitude up to it.
        rows_max: u32,
    },
}

impl Mix {
    /// Creates the tables, with `rows` rows in those of [`TABLES`].
    ///
    /// # Panics
    ///
    /// When a statement fails.
    pub async fn create(self, database: &TestDatabase, rows: usize) {
        create(database, rows).await;
        if matches!(self, Self::Everything { .. }) {
            database.run(everything::SCHEMA).await;
        }
    }

    /// A statement that writes every row of the tables whose definitions change, so that copies can be compared in all
    /// columns.
    #[must_use]
    pub fn touch(self) -> Option<&'static str> {
        matches!(self, Self::Everything { .. }).then_some(everything::TOUCH)
    }

    fn transaction(self, random: &mut StdRng, writer: usize, round: u64) -> Vec<Step> {
        match self {
            Self::Accounts => vec![Step::Sql(accounts::transaction(random, writer))],
            Self::Everything { rows_max } => everything::transaction(random, writer, round, rows_max),
        }
    }
}

/// A piece of a transaction; each is sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Sql(String),
    /// `COPY … FROM STDIN`, and its lines.
    Copy(String, String),
}

/// Writers at work; stopped by [`Workload::stop`].
#[derive(Debug)]
pub struct Workload {
    url: String,
    mix: Mix,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts `writers` of [`Mix::Accounts`].
    ///
    /// # Panics
    ///
    /// When the server does not accept them.
    pub async fn start(database: &TestDatabase, writers: usize, seed: u64) -> Self {
        Self::of(Mix::Accounts, database, writers, seed).await
    }

    /// Starts `writers` of a mix whose tables are there.
    ///
    /// # Panics
    ///
    /// When the server does not accept them.
    pub async fn of(mix: Mix, database: &TestDatabase, writers: usize, seed: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let url = database.url().to_owned();
        let mut tasks = Vec::new();
        for number in 0..writers {
            let mut writer = Writer::new(&url, Some(database.session().await));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(number as u64));
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let steps = mix.transaction(&mut random, number, seed.wrapping_mul(100_000) + round);
                    if writer.run(&steps, &stop).await {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        if matches!(mix, Mix::Everything { .. }) {
            tasks.push(tokio::spawn(writer::clean_up_prepared(url.clone(), Arc::clone(&stop))));
        }
        Self { url, mix, stop, done, writers: tasks }
    }

    /// Transactions committed so far.
    pub fn committed(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `count` more transactions have committed.
    ///
    /// # Panics
    ///
    /// When they have not within [`LIMIT`].
    pub async fn more(&self, count: usize) {
        let goal = self.committed() + count;
        eventually("the workload goes on", LIMIT, async || (self.committed() >= goal).then_some(())).await;
    }

    /// Lets each writer finish its transaction, and ends what was prepared and forgotten. The number of transactions that
    /// were committed.
    ///
    /// # Panics
    ///
    /// When a writer panicked.
    pub async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap_or_else(|error| panic!("a writer: {error}"));
        }
        if self.mix != Mix::Accounts {
            let _server_is_down = end_prepared(&self.url, "0").await;
        }
        self.done.load(Ordering::Relaxed)
    }
}
