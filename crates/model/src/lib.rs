//! The nouns of walcast, shared by every other crate: where a change is ([`Lsn`], [`Cursor`]), what it
//! is about ([`Relation`]), what it says ([`Change`]) and what it belongs to ([`Transaction`], [`Part`]).
//!
//! This crate does no I/O, knows no SQL and no socket, and never looks into a value: a row is a piece of
//! JSON text that was written once (by `walcast-pgoutput`) and is passed on as it is.
//!
//! ```
//! use walcast_model::{Cursor, Lsn, Seq};
//! let cursor: Cursor = "16/B374D848:3".parse()?;
//! assert_eq!(cursor, Cursor::new("16/B374D848".parse()?, Seq::new(3)));
//! assert_eq!(Cursor::from(Lsn::new(0x10)).to_string(), "0/10");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod change;
mod database_message;
mod feed_id;
pub mod json;
pub mod last_image;
mod meta;
mod part;
mod position;
mod readable;
mod relation;
mod timestamp;
mod xid;

pub use change::{Change, Op, Transaction};
pub use database_message::{BadMessage, DatabaseMessage, one_line};
pub use feed_id::FeedId;
pub use meta::{BadMeta, Meta};
pub use part::{ChangeWriter, Part, PartBuilder, PartTooLarge};
pub use position::{CommitEnd, CommitStart, Cursor, Lsn, ParsePositionError, Seq};
pub use readable::check_readable;
pub use relation::{Column, Oid, Relation, RelationDigest, RelationName, ReplicaIdentity};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use xid::{Snapshot, Xid};
