//! The durable history of the feed: schema `walcast` in a Postgres, the one task that writes it, and those who
//! read it.
//!
//! ```text
//!  Feed ──parts──► Appender ──COPY + advance, one commit──► walcast.change_history ──pages──► Reader
//!   ▲                 │                                     walcast.feed (position)
//!   └── mark_stored ──┴──► acknowledge: what the slot may forget
//! ```
//!
//! - [`schema`] applies, prints and removes the SQL of `sql/`.
//! - [`FeedRecord`] says which feed the history belongs to and where it stands; it is made once, with the slot.
//! - [`Hole`] is kept with it when changes are missing for good, which nobody but the slot's reader can see.
//! - [`Appender`] follows the feed, and stores as many transactions in a commit as are there.
//! - [`Reader`] reads pages of the same [`walcast_model::Part`]s from any cursor, up to a position that was stored
//!   before; and finds what a snapshot did not see.
//! - [`Retention`] drops old partitions, by age and by size.
//! - [`ImageReader`] looks up the newest full row of a key, in tables that were chosen for it ([`ImagedTables`]).
//! - [`Clients`] keeps what clients have acknowledged.
//! - [`History`] is for `status` and `doctor`.
//!
//! The history may live in another Postgres than the source; nothing here assumes that they are the same.
//!
//! # Invariants
//!
//! 1. Every change before the stored position is in `change_history` once, none at or after it: rows and position
//!    are committed together.
//! 2. The position moves only from where the writer believes it to be (`walcast.advance`), and that is the first
//!    statement of the transaction: a second writer changes nothing and learns so ([`Error::Fenced`]).
//! 3. A position is acknowledged only when it is committed, also an idle one that no row leads to: a slot that is
//!    ahead of the history proves that somebody else moved it.
//! 4. No change is ever updated or deleted; [`Retention`] drops whole partitions, and never one of which a transaction is
//!    also elsewhere: all changes of a transaction have its lsn, and a partition is a range of lsn. The one exception: changes that the source
//!    itself has lost (a failover, a restore) are set aside in `walcast.lost_change` ([`FeedRecord::branch`]).
//!
//! # Durability
//!
//! The appender's session commits with `synchronous_commit = local`: durable on the history's own disk, without
//! waiting for synchronous standbys. A standby that is away must not stop the feed (nor the gate at its start), and
//! decoding runs ahead of synchronous replication anyway. When such a server is lost and its standby takes over
//! without the last commits of the history, the slot may be ahead of it, which invariant 3 makes visible.
//!
//! # Limits of the store
//!
//! A change is one row of `change_history`: its key, row and old row may have 1 GB of JSON together, which is
//! Postgres's limit for a row. The history's database must be able to hold the source's text: it has the source's
//! encoding, or is UTF8 and the source is not SQL_ASCII.

mod appender;
mod clients;
mod column;
mod copy;
mod error;
mod feed_record;
mod hole;
mod inspection;
mod kept;
mod last_image;
mod latest;
mod lineage;
pub mod metrics;
mod reader;
mod retention;
pub mod schema;
pub mod setup_lock;
mod stored_relation;

pub use appender::{AppendLimits, Appender, AppenderState, NOT_WRITTEN};
pub use clients::{
    Acknowledged, ClientKey, ClientLimits, ClientName, Clients, KnownClient, ParseClientNameError,
};
pub use error::Error;
pub use feed_record::{FeedRecord, Line, NewFeed, Secret};
pub use hole::Hole;
pub use inspection::{Beside, History, Inspection};
pub use last_image::{ImageReader, ImagedTables, WantedImage};
pub use lineage::{Ancestor, Branch, BranchReason};
pub use reader::{LatestPage, Page, PageLimits, Reader, Without};
pub use retention::{Retention, RetentionLimits, SourceSnapshot};
pub use walcast_postgres::ErrorClass;
