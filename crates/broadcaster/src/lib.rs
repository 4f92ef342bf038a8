//! Who gets what, from where: the sessions of clients over the feed and its history, and the doors they come in by.
//!
//! ```text
//!  Feed ──new parts──► router ──wakes──► shape (one per distinct set of tables and columns)
//!   │                                      │  which parts concern it, their frames encoded once
//!   │ parts                                ▼
//!   └──────────────────────────────────► session (one per subscription): a cursor, no queue
//!  history ──pages, when behind──────────► │  the next frame, when the socket took the last
//!  source ──rows of an initial sync──────► ▼
//!                                        doors: WebSocket, health, metrics
//! ```
//!
//! Beside the feed there are channels: what clients and the database say to whoever is there.
//!
//! A session is a state machine that does no I/O. What it cannot know it asks for; whoever drives it takes one frame at
//! a time, so a client that reads slowly holds the frames that are being written for it and one page, never a queue,
//! and harms nobody else.
//!
//! # Invariants
//!
//! 1. A session's position moves only over what it has given out, or what does not concern its shape.
//! 2. A cursor in a message is never before one that the same subscription was told before.
//! 3. Before the gate is open, nothing but `waiting` and errors is said to a subscription.
//! 4. Every transaction of which a part was sent with `more` is ended by a message without it.
//! 5. A shape's sessions are woken by parts that concern it, and by nothing else.
//!
//! What is deliberately absent: a queue per client, an acknowledgement of Postgres (history's business), and knowledge
//! of sockets outside [`doors`].

pub mod access;
mod acks;
mod broadcaster;
mod catalog;
mod channels;
pub mod doors;
mod encode;
#[cfg(test)]
mod fuzz_tests;
mod gate;
mod hindrance;
#[doc(hidden)]
pub mod inside;
mod limits;
mod lineage;
mod lookup;
mod metrics;
mod past;
mod preview;
mod reach;
mod reading;
mod refusal;
mod request;
mod router;
mod scans;
mod session;
mod shape;
#[cfg(test)]
mod simulation;
mod subscription;
mod subscriptions;
#[cfg(test)]
mod testing;
mod turns;
mod wanted;

pub use acks::ClientPositions;
pub use broadcaster::{Broadcaster, Sources};
pub use channels::channel_grant;
pub use gate::Gate;
pub use limits::Limits;
pub use lineage::Lineage;
pub use past::{Away, InitialSync, KnownTable, PastPages, Unanswered, WantsTable};
pub use preview::{Preview, key_of};
pub use refusal::Refusal;
