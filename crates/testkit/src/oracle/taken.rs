//! What a message meant.

use walcast_model::{Cursor, Lsn};

use super::change::Told;
use super::message::Refusal;

/// What a client stores, and so where it resumes after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// The cursor of a whole transaction: what has come of an unfinished one is forgotten.
    Transactions,
    /// The cursor of every part, applied at once: after a cut the rest of the transaction has to come.
    Parts,
}

/// A transaction as it was delivered, its parts joined.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Where its commit record starts.
    pub lsn: Lsn,
    /// Its transaction id, 64 bits.
    pub xid: u64,
    /// The cursor after it; none before `snapshot_complete`, and none when a resume found nothing more of it.
    pub cursor: Option<Cursor>,
    /// Its changes.
    pub changes: Vec<Told>,
    /// Messages that it came in.
    pub parts: usize,
}

/// What a message meant.
#[derive(Debug)]
pub enum Taken {
    /// The subscription is accepted; the mode.
    Subscribed(String),
    /// A transaction is complete.
    Transaction(Delivered),
    /// Everything before this cursor that concerns the subscription has come.
    Passed(Cursor),
    /// The initial sync is complete: from this cursor on everything comes.
    Synced(Cursor),
    /// Everything that was committed before the subscription was asked for has come.
    CaughtUp(Cursor),
    /// The daemon refuses, or ends the subscription.
    Refused(Refusal),
    /// A definition, rows, a part, or something about the connection; its kind.
    Other(&'static str),
}
