//! What Postgres's `pgoutput` plugin says, as values, and what its text cells mean, as JSON.
//!
//! Both halves are pure: no I/O, no clock, no allocation per row beyond the output, and no panic on any input.
//!
//! - [`Decoder`] turns the payload of an `XLogData` frame into a [`Message`]. Tuples stay slices of the payload.
//! - [`json::Types`] resolves a column's type once to a [`json::ValueWriter`], which writes a text cell exactly as
//!   the server's `to_jsonb(column)` prints it, straight into the output buffer.
//!
//! ```
//! use bytes::Bytes;
//! use walcast_model::Oid;
//! use walcast_pgoutput::{Decoder, Message, TupleColumn, json::Types};
//!
//! let payload = b"I\0\0\x40\0N\0\x02t\0\0\0\x0242n";
//! let Message::Insert(insert) = Decoder::new().decode(Bytes::from_static(payload))? else { panic!() };
//! let numeric = Types::new().writer(Oid::new(1700));
//! let mut json = Vec::new();
//! for column in &insert.new {
//!     match column {
//!         TupleColumn::Text(text) => numeric.write(text, &mut json)?,
//!         _ => json.extend_from_slice(b" null"),
//!     }
//! }
//! assert_eq!(json, b"42 null");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

mod decode;
pub mod json;
mod message;
mod reader;
mod tuple;

pub use decode::{DecodeError, Decoder, Tag};
pub use message::{
    Begin, BeginPrepare, Commit, CommitPrepared, Delete, Insert, LogicalMessage, Message, Name, Origin,
    Prepare, RelationColumn, RelationDefinition, RollbackPrepared, StreamAbort, StreamCommit, StreamStart,
    Truncate, TypeDefinition, Update,
};
pub use tuple::{OldTuple, Tuple, TupleColumn, TupleColumns};
