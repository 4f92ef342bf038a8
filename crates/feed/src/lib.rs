//! The feed: the newest part of the ordered log of transactions, in memory.
//!
//! One writer (the replicator) appends [`walcast_model::Part`]s in commit order; any number of readers
//! (the history's appender and every client session) read from a [`walcast_model::Cursor`] and wait for more.
//! There is no queue per reader: a reader that falls behind what the feed still holds is told so
//! ([`Read::Behind`]) and reads `change_history` until it is back.
//!
//! ```text
//!        oldest                    stored                      head
//!   ───────┼─────────────────────────┼───────────────────────────┼──────►
//!  history │   may be evicted        │  must be kept: not yet    │  not yet
//!   only   │   (also in history)     │  in history               │  committed
//! ```
//!
//! Invariants: `oldest <= stored <= head`; nothing between `stored` and `head` is ever evicted, so when
//! history stalls and the feed is full, [`FeedWriter::push`] waits and the backlog stays in Postgres's WAL.
//!
//! [`Barriers`] are part of the feed because they answer its one question, "is everything committed before
//! now in it?".
//!
//! [`messages`] pass what the source says to channels, beside the log and never in it.
//!
//! [`Backoff`] says when what failed is tried again, here and everywhere in the daemon.
//!
//! [`LogPace`] keeps what anybody can cause from filling the log.
//!
//! This crate knows nothing of sockets, SQL or the bytes of the WAL.

mod backoff;
mod barrier;
mod log_pace;
mod messages;
pub mod metrics;
mod outages;
mod ring;
mod slot_wal;
mod source_state;

pub use backoff::Backoff;
pub use barrier::{Barrier, BarrierRequests, Barriers};
pub use log_pace::{LOG_INTERVAL, LogPace};
pub use messages::{MESSAGES_WAITING_BYTES_MAX, MessageReader, MessageWriter, messages};
pub use outages::{Cause, Outage, Outages};
pub use ring::{Feed, FeedLimits, FeedWriter, Read};
pub use slot_wal::{BudgetState, SlotWal};
pub use source_state::SourceState;
