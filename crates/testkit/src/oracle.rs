//! The oracle: what a client of walcast is told, against what Postgres committed.
//!
//! ```text
//! Postgres ──second slot, over SQL──► Witness ──► Ledger  what was committed, in order
//!    │                                              ▲ ▲
//!    └─► walcast ──WebSocket──► Client ─ Subscription ┘ └── audit of change_history
//!                                           └─ Copies ──── the tables (to_jsonb of every row), at the end
//! ```
//!
//! * [`Subscription`] is one subscription without I/O. Each message is checked against what docs/protocol.md promises of it
//!   (order, no gap in a transaction's parts, cursors that only grow, a definition before rows, whole rows, `unchanged`
//!   only where it may be) and folded into [`Copies`] of the tables. It can be cut at any moment and resumed at the
//!   cursor that it would have stored, with the copies as of that cursor.
//! * [`Witness`] reads a slot of its own with Postgres's own output plugin, over SQL, with a decoder of its own. So the
//!   truth shares no code with walcast: transaction id, commit position, and each change with its values.
//! * [`Ledger`] holds that truth, and compares. An [`Account`] is how far one client has come in it: its next transaction
//!   has to be the next that was committed, or there is a [`Violation`]: lost, repeated, reordered, torn, wrong.
//! * [`Client`] drives a subscription over a plain WebSocket, for ever, through anything; [`Observer`] does the same one
//!   message at a time, for tests that want to see each.
//!
//! What the feed cannot know, the oracle knows by rule, and checks as such:
//!
//! * An update that did not write a large value has it in `unchanged`, exactly where the WAL has no value for it.
//! * A changed definition does not send rows again: a copy's row that was last written under another definition is
//!   compared in the columns that both have, by name and type. [`Copies::compare`] says so.
//! * A table without a usable identity sends inserts and truncates alone: its copy is partial, until a truncate begins it
//!   anew.
//! * A renamed table arrives under its new name, and nothing says that it is the old one: no copies are kept of the
//!   tables in the schema `shifting`. Their sequence of changes is checked as that of any other.

mod audit;
mod change;
mod client;
mod copies;
mod definition;
mod ledger;
mod message;
mod observer;
mod socket;
mod subscription;
mod sums;
mod taken;
#[cfg(test)]
mod tests;
mod truth;
mod verdict;
mod wal;
mod witness;

pub use audit::{Audit, server_rows};
pub use change::{Fields, Op, Told};
pub use client::{Client, ClientBuilder, ClientTally, Command};
pub use copies::Copies;
pub use definition::{Definition, DefinitionColumn};
pub use ledger::{Account, Entry, Ledger};
pub use message::Refusal;
pub use observer::{Observer, wal_position};
pub use socket::{Socket, close_code, open, receive, send};
pub use subscription::{Checkpoint, Subscription};
pub use taken::{Delivered, Storing, Taken};
pub use verdict::{Violation, ViolationKind};
pub use wal::WalChange;
pub(crate) use wal::table_name;
pub use witness::Witness;
