//! From the slot to the feed: how walcast reads a Postgres's WAL, and what it sets up there to be able to.
//!
//! ```text
//!   ReplicationConnection ──frames──► Decoder ──messages──► Assembler ──parts──► FeedWriter
//!     slot.rs, publication.rs           (walcast-pgoutput)     │   ▲               │
//!     make what it reads                         NeedsCatalog ─┘   │ answer        │ history stores
//!                                              Session ────────────┘               ▼
//!   ◄───────────────────────── Feedback: acknowledged only what is stored ─────────┘
//! ```
//!
//! - [`Replicator`] is the loop that does this, for ever; what goes wrong is a state of the feed and never an exit.
//! - [`assemble`] turns messages into parts of transactions, without I/O.
//! - [`publication`] decides which tables are published, without breaking the application, and keeps it so.
//! - [`identity`] tells a server that has everything which the feed has had of it from one that may not.
//! - [`slot`] creates the slot, and refuses to go on over a hole.
//! - [`WalWatch`] shows what the slot keeps of the source's WAL, and holds it to a budget.
//! - [`BarrierEmitter`] writes the messages by which one knows that everything committed before is in the feed.
//!
//! This crate does not store anything and knows no client.

pub mod assemble;
mod backoff;
mod barrier;
mod connection;
mod error;
pub mod identity;
pub mod metrics;
pub mod publication;
mod replicator;
pub mod slot;
mod wal_watch;

pub use barrier::{BarrierEmitter, EmitterState};
pub use connection::{
    CreatedSlot, Feedback, ReplicationConnection, ReplicationSettings, ReplicationStream, SlotOptions,
    SlotSnapshot, StreamFrame, SystemIdentity, TimelineSwitch,
};
pub use error::{Error, START_OVER};
pub use replicator::{
    FeedEnd, FoundImages, Keeper, LastImages, LastingHole, Replicator, ReplicatorSettings,
    StoredTransactions, Tenure,
};
pub use wal_watch::{WalBudget, WalBudgetPolicy, WalWatch, time_left};
