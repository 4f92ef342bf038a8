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
//! # Waiting
//!
//! Other tasks use a [`Handle`]: to wait for a row, to read their own writes, and to look up rows.
//!
//! ```no_run
//! use std::time::Duration;
//! use serde_json::{Value, json};
//! use walcast_client::{Client, Lookup, Subscription};
//!
//! # async fn apply(_: walcast_client::Event) {}
//! # async fn example(database: tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::builder("ws://127.0.0.1:4700").build()?;
//! let orders = Subscription::new("orders", ["public.orders"])?;
//! let (id, handle) = (orders.id().clone(), client.handle());
//! client.subscribe(orders).await?;
//! tokio::spawn(async move {
//!     while let Some(Ok(event)) = client.next().await {
//!         apply(event).await;
//!     }
//! });
//!
//! // When order 7 is paid: by the stream, or, from 5 s on, by asking the daemon.
//! let paid = handle.wait_for("public.orders", &json!({"id": 7}), |row| {
//!     serde_json::from_str::<Value>(row.get()).is_ok_and(|row| row["state"] == "paid")
//! });
//! // (Now look into your own copy: what came before this call is there.)
//! println!("{}", paid.within(Duration::from_secs(30)).await?.row);
//!
//! // When this program's own copy has what it has just written.
//! database.batch_execute("UPDATE orders SET state = 'sent' WHERE id = 7").await?;
//! let lsn: String = database.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
//! handle.after_commit(&id, lsn.parse()?).within(Duration::from_secs(30)).await?;
//!
//! // As they are in the database.
//! let rows = handle.rows(&Lookup::new("public.orders")?.key(&json!({"id": 7}))?).await?;
//! println!("{:?}", rows.rows[0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Acknowledging
//!
//! Instead of a [`CursorStore`] the daemon itself can keep how far this client is: give the subscription a
//! [`client_id`](Subscription::client_id), begin at [`StartAt::Acked`], and [`ack`](Client::ack) what is stored.
//!
//! ```no_run
//! # use walcast_client::{Client, Event, StartAt, Subscription};
//! # async fn example(laptop: String) -> Result<(), walcast_client::Error> {
//! # let mut client = Client::builder("ws://127.0.0.1:4700").build()?;
//! let orders = Subscription::new("orders", ["public.orders"])?.client_id(laptop).start(StartAt::Acked);
//! client.subscribe(orders).await?;
//! while let Some(event) = client.next().await {
//!     match event? {
//!         Event::Transaction(transaction) => {
//!             // Apply the changes, so that it does no harm when they come again. Then:
//!             if let Some(cursor) = transaction.cursor {
//!                 client.ack(&transaction.id, cursor)?;
//!             }
//!         }
//!         Event::SnapshotComplete(done) => client.ack(&done.id, done.cursor)?,
//!         Event::Acked(acked) => println!("everything before {} is kept by the daemon", acked.cursor),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Channels
//!
//! Clients say things to one another, and see who is there. Nothing of it is kept.
//!
//! ```no_run
//! # use serde_json::json;
//! # use walcast_client::{Client, Event};
//! # async fn example() -> Result<(), walcast_client::Error> {
//! let mut client = Client::builder("ws://127.0.0.1:4700").build()?;
//! let room = client.channel("room:1").client_id("phone-1");
//! room.show(&json!({"name": "Ada"}))?;
//! while let Some(event) = client.next().await {
//!     match event? {
//!         Event::Joined(_) => room.publish(&json!({"text": "hello"}))?,
//!         Event::Message(message) => println!("{:?} says {}", message.from, message.payload),
//!         Event::Presence(_) => println!("{} are here", room.members().len()),
//!         Event::Dropped(gap) => println!("{} messages are gone", gap.count),
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
//!   [`CursorStore::load`] over it and writes the cursor in the transaction that applies the changes, with the feed of
//!   [`Event::Connected`] and the `rights` of [`Event::Subscribed`].
//! * **No copy of what is not granted.** When policies changed while this client was away, its subscription starts over
//!   ([`Event::RightsChanged`]): changes alone would neither take back nor bring what was granted otherwise.
//! * **Whole transactions**, up to [`ClientBuilder::transaction_bytes_max`]; a larger one comes in pieces that say so.
//! * **Nothing retried silently that cannot succeed.** A cursor that can no longer be served ends its subscription with
//!   [`Event::Failed`], a refusal ends the client with an [`Error`]. Everything else is retried for ever, with exponential
//!   backoff and full jitter: a lost connection is told as [`Event::Reconnecting`], and a subscription that cannot be had
//!   now as [`Event::Retrying`], while the others go on.
//!
//! # What it does not do
//!
//! It has no task of its own, but for one that asks for rows while somebody waits for them: everything else happens inside
//! [`Client::next`], so a caller that does not ask does not read, and the daemon keeps what waits. Nothing is buffered
//! but the parts of one unfinished transaction.

mod asker;
mod backoff;
mod builder;
mod channel;
mod client;
mod commits;
mod connection;
mod cursor_store;
mod error;
mod event;
mod handle;
mod key;
mod rows;
mod session;
mod subscription;
mod token;
mod waits;

pub use backoff::Backoff;
pub use builder::ClientBuilder;
pub use channel::Channel;
pub use client::Client;
pub use cursor_store::{CursorStore, FileStore, MemoryStore, Pending, StoredCursor};
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use handle::{AfterCommit, Handle, Wait};
pub use rows::{Lookup, Rows};
pub use subscription::Subscription;
pub use waits::{Found, FoundBy};
pub use walcast_model::{Cursor, FeedId, Lsn};
pub use walcast_protocol::{
    Acked, Catchup, CaughtUp, Change, ChannelMessage, ClientList, ClientState, Column, Dropped, ErrorCode,
    ErrorMessage, Heartbeat, Joined, Member, Mode, Payload, Presence, Progress, RelationMessage, Sender,
    SnapshotComplete, SnapshotRows, SourceStatus, StartAt, Status, Subscribed, SubscriptionId, TablePattern,
    TableSelection, TransactionMessage, Waiting, Welcome,
};
