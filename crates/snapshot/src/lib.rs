//! Initial sync without a replication slot: the rows of any number of tables as of one snapshot, and what is needed
//! to join them to the feed without a gap or a duplicate.
//!
//! ```text
//!  rows as of snapshot s                    the feed
//!  ───────────────────────┐   ……─┬────┬────┬────┬────┬──────────►
//!                         │      │ s  │not │ s  │    b (barrier)
//!                         └────► │sees│seen│sees│ everything
//!                                 drop send drop  send
//! ```
//!
//! No position in the WAL describes a snapshot, because transactions become visible in another order than their
//! commit records have. So the rows come with the snapshot itself ([`SnapshotEvent::Done`]): of the transactions
//! before the barrier, those that it does not see are still to be sent; from the barrier on, all are. The barrier is
//! written in the session of the snapshot after it, so everything the rows contain is before it in the feed.
//!
//! This crate reads the source and nothing else: it knows neither history nor clients, and does not filter the feed.

mod access;
mod attempt;
mod consumer;
mod copy_text;
mod error;
mod event;
mod facts;
mod limits;
mod lookup;
mod metrics;
mod published;
mod relation;
mod rows;
mod snapshots;

pub use error::Error;
pub use event::{SnapshotEvent, SnapshotTable};
pub use facts::{Facts, facts};
pub use limits::SnapshotLimits;
pub use lookup::{FoundRows, Key};
pub use published::{PublishedTable, published_tables};
pub use snapshots::Snapshots;
