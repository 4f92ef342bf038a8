//! What a run says in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Soak;
use crate::oracle::{ClientTally, Violation};

/// What was done, when nothing was found.
#[derive(Clone, Debug)]
pub struct SoakReport {
    /// Of the run.
    pub seed: u64,
    /// How long it took.
    pub time: Duration,
    /// Rounds, each ended by a comparison of everything.
    pub rounds: u32,
    /// Transactions committed, as the witness saw them.
    pub transactions: u64,
    /// Changes in `change_history` that were compared.
    pub audited: u64,
    /// Rows of copies that were compared with the tables.
    pub compared: u64,
    pub(super) delivered: Vec<Seen>,
    /// How often each kind of fault was done.
    pub faults: BTreeMap<String, u64>,
    /// From the death of one daemon until the waiting one was ready.
    pub takeovers: Vec<Duration>,
    /// Sent to clients.
    pub bytes: u64,
    /// The most memory that a daemon had resident.
    pub peak_memory: u64,
    pub(super) not_exercised: Vec<String>,
}

/// What one client has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    transactions: u64,
    changes: u64,
    connections: u64,
    syncs: u64,
    refusals: u64,
}

impl Seen {
    pub(super) fn of(tally: &ClientTally) -> Self {
        Self {
            transactions: tally.transactions.load(Ordering::Relaxed),
            changes: tally.changes.load(Ordering::Relaxed),
            connections: tally.connections.load(Ordering::Relaxed),
            syncs: tally.syncs.load(Ordering::Relaxed),
            refusals: tally.refusals.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Seen) -> u64| self.delivered.iter().map(of).sum::<u64>();
        writeln!(
            f,
            "{} s, {} rounds, seed {}\n{} transactions committed; {} changes in change_history compared; {} rows of copies compared",
            self.time.as_secs(),
            self.rounds,
            self.seed,
            self.transactions,
            self.audited,
            self.compared
        )?;
        writeln!(
            f,
            "{} clients: {} transactions and {} changes delivered, {} connections, {} initial syncs, {} refusals that passed",
            self.delivered.len(),
            sum(|seen| seen.transactions),
            sum(|seen| seen.changes),
            sum(|seen| seen.connections),
            sum(|seen| seen.syncs),
            sum(|seen| seen.refusals)
        )?;
        writeln!(
            f,
            "{} MiB sent to clients; peak RSS of the daemon {} MiB",
            self.bytes >> 20,
            self.peak_memory >> 20
        )?;
        let count: u64 = self.faults.values().sum();
        let kinds: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "{count} faults: {}", kinds.join(", "))?;
        if let (Some(least), Some(most)) = (self.takeovers.iter().min(), self.takeovers.iter().max()) {
            writeln!(f, "a waiting daemon took over in {} to {} ms", least.as_millis(), most.as_millis())?;
        }
        if !self.not_exercised.is_empty() {
            writeln!(f, "not exercised on this machine: {}", self.not_exercised.join(", "))?;
        }
        write!(f, "0 lost, 0 repeated, 0 reordered, 0 torn")
    }
}

/// What a run says that found something.
pub(super) fn failure(soak: &Soak, violation: &Violation, schedule: &[String], log: &[String]) -> String {
    const LINES: usize = 60;
    let log = &log[log.len().saturating_sub(LINES)..];
    format!(
        "{violation}\n\nthe schedule so far:\n{}\n\nthe end of the daemon's log:\n{}\n\nagain: make soak SEED={} PG={}",
        schedule.join("\n"),
        log.join("\n"),
        soak.seed,
        soak.installation.version().major
    )
}
