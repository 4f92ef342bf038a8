//! pgbench's TPC-B.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::Step;
use super::writer::Writer;
use crate::TestDatabase;

/// TPC-B as pgbench runs it. At every transaction boundary the sums over accounts, tellers, branches and history agree.
#[derive(Debug)]
pub struct TpcB {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// How the transactions are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpcBRunner {
    /// By this `pgbench`.
    Program(PathBuf),
    /// By sessions of our own, with the same statements, on this many accounts.
    Sessions(u32),
}

impl TpcBRunner {
    /// `pgbench` beside the server's own programs or in `PATH`; sessions of our own where there is none.
    #[must_use]
    pub fn find(programs: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
        let found = folders.map(|folder| folder.join("pgbench")).find(|program| program.is_file());
        found.map_or(Self::Sessions(1000), Self::Program)
    }
}

const ACCOUNTS_OF_PGBENCH: u32 = 100_000;

impl TpcB {
    /// Creates the tables as `pgbench --initialize` does, for scale 1.
    ///
    /// # Panics
    ///
    /// When a statement fails.
    pub async fn create(database: &TestDatabase, runner: &TpcBRunner) {
        let accounts = match runner {
            TpcBRunner::Program(_) => ACCOUNTS_OF_PGBENCH,
            TpcBRunner::Sessions(accounts) => *accounts,
        };
        database
            .run(&format!(
                "CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
                 CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
                 CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
                 CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
                 INSERT INTO pgbench_branches VALUES (1, 0);
                 INSERT INTO pgbench_tellers SELECT g, 1, 0 FROM generate_series(1, 10) g;
                 INSERT INTO pgbench_accounts SELECT g, 1, 0, '' FROM generate_series(1, {accounts}) g"
            ))
            .await;
    }

    /// Starts `sessions` of them, which come back after every fault.
    #[must_use]
    pub fn start(database: &TestDatabase, runner: &TpcBRunner, sessions: usize, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = database.url().to_owned();
        let tasks = match runner {
            TpcBRunner::Program(program) => {
                vec![tokio::spawn(run_program(program.clone(), url, sessions, seed, Arc::clone(&stop)))]
            }
            TpcBRunner::Sessions(accounts) => (0..sessions)
                .map(|number| {
                    let seed = seed.wrapping_mul(1000).wrapping_add(number as u64);
                    tokio::spawn(run_session(url.clone(), *accounts, seed, Arc::clone(&stop)))
                })
                .collect(),
        };
        Self { stop, tasks }
    }

    /// Stops them.
    ///
    /// # Panics
    ///
    /// When one of them panicked.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap_or_else(|error| panic!("TPC-B: {error}"));
        }
    }
}

async fn run_program(program: PathBuf, url: String, sessions: usize, seed: u64, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let mut command = Command::new(&program);
        // Without the vacuum that would empty the history. Paced, so that the rest of the load has its share.
        command
            .args(["--no-vacuum", "--time=3600", "--rate=60", "--jobs=1"])
            .arg(format!("--client={sessions}"))
            .arg(format!("--random-seed={}", seed % 1_000_000 + round))
            .arg(&url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let Ok(mut child) = command.spawn() else { return };
        while !stop.load(Ordering::Relaxed) {
            // It ends when the server does.
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ended = child.kill().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run_session(url: String, accounts: u32, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut writer = Writer::new(&url, None);
    while !stop.load(Ordering::Relaxed) {
        let (account, teller) = (random.random_range(1..=accounts), random.random_range(1..=10));
        let delta = random.random_range(-5000..5000);
        let sql = format!(
            "BEGIN;
             UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account};
             SELECT abalance FROM pgbench_accounts WHERE aid = {account};
             UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {teller};
             UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = 1;
             INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ({teller}, 1, {account}, {delta}, CURRENT_TIMESTAMP);
             END"
        );
        writer.run(&[Step::Sql(sql)], &stop).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(5..40))).await;
    }
}
