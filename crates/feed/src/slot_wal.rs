//! What the feed costs its source: the WAL that is kept for its slot, as told to operators.

use std::time::Duration;

/// The WAL that the slot keeps, when it was last looked at.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotWal {
    /// Bytes between where the slot begins and the end of the WAL.
    pub retained_bytes: u64,
    /// Bytes that may still be written before the server gives the slot up (`safe_wal_size`); `None` when it never does.
    pub safe_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub status: Option<String>,
    /// What walcast is allowed to keep, in bytes; `None` when it is not limited.
    pub budget_bytes: Option<u64>,
    /// Bytes of WAL that the source writes in a second, as of late.
    pub bytes_per_second: f64,
    /// How long until the budget or the server's own limit is reached when the slot stays where it is and the source
    /// goes on writing as it does; `None` when it writes nothing, or nothing is limited.
    pub left: Option<Duration>,
    /// How that compares with the budget.
    pub budget: BudgetState,
}

/// Whether the slot keeps more than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BudgetState {
    /// No.
    Within,
    /// Yes; a person has to act.
    Exceeded,
    /// It did, and was given up as its operator asked for: the feed is over.
    GivenUp,
}
