//! The Rust client of walcast: the ordered change feed of a Postgres, as a stream of typed events that goes on where it
//! stopped, through lost connections, restarts of the daemon and restarts of this program.
//!
//! ```no_run
//! use walcast_client::{Client, Event, FileStore, Mode, Subscription};
//!
//! # async fn example() -> Result<(), walcast_client::Error> {
//! let mut client = Client::builder("ws://127.0.0.1:4700").cursor_store(FileStore::new("orders.cursor")).build()?;
//! client.subscribe(Subscription::new("orders", ["public.orders", "public.customers"])?).await?;
//!
//! while let Some(event) = client.next().await {
//!     match event? {
//!         Event::Subscribed(subscribed) if subscribed.mode == Mode::Snapshot => { /* empty the own copy */ }
//!         Event::Snapshot(snapshot) => println!("{}: {} rows", snapshot.table, snapshot.rows.len()),
//!         Event::SnapshotComplete(done) => client.store(&done.id, done.cursor).await?,
//!         Event::Transaction(transaction) => {
//!             for change in &transaction.changes {
//!                 println!("{} {} {:?}", change.op, change.table, change.row);
//!             }
//!             // Applied: from here on a restart begins after it.
//!             if let Some(cursor) = transaction.cursor {
//!                 client.store(&transaction.id, cursor).await?;
//!             }
//!         }
//!         Event::Failed { id, error } => eprintln!("{id} is over: {}", error.message),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * **Exactly once to the caller.** After a lost connection a subscription goes on after the last event that
//!   [`Client::next`] returned. A transaction of which only a part had arrived is fetched again from where the last
//!   event ended.
//! * **Exactly once across restarts** for who stores the cursor together with what it says. [`Client::store`] and a
//!   [`CursorStore`] are the simple way, at least once; a program that keeps its data in a database implements
//!   [`CursorStore::load`] over it and writes the cursor in the transaction that applies the changes.
//! * **Whole transactions**, up to [`ClientBuilder::transaction_bytes_max`]; a larger one comes in pieces that say so.
//! * **Nothing retried silently that cannot succeed.** A cursor that can no longer be served ends its subscription with
//!   [`Event::Failed`], a refusal ends the client with an [`Error`]. Everything else is retried for ever, with exponential
//!   backoff and full jitter: a lost connection is told as [`Event::Reconnecting`], and a subscription that cannot be had
//!   now as [`Event::Retrying`], while the others go on.
//!
//! # What it does not do
//!
//! It has no task of its own: everything happens inside [`Client::next`], so a caller that does not ask does not read,
//! and the daemon keeps what waits. Nothing is buffered but the parts of one unfinished transaction.

mod backoff;
mod builder;
mod client;
mod connection;
mod cursor_store;
mod error;
mod event;
mod session;
mod subscription;
mod token;

pub use backoff::Backoff;
pub use builder::ClientBuilder;
pub use client::Client;
pub use cursor_store::{CursorStore, FileStore, MemoryStore, Pending, StoredCursor};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use subscription::Subscription;
pub use walcast_protocol::{
    Catchup, CaughtUp, Change, ChannelMessage, Column, ErrorCode, ErrorMessage, Heartbeat, Mode, Presence,
    Progress, RelationMessage, SnapshotComplete, SnapshotRows, SourceStatus, StartAt, Status, Subscribed,
    SubscriptionId, TablePattern, TableSelection, TransactionMessage, Waiting, Welcome,
};
