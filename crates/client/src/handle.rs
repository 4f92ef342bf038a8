//! What other tasks ask of a client: to wait for a row or a commit, and rows.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep};
use walcast_model::Lsn;
use walcast_protocol::SubscriptionId;

use crate::asker;
use crate::backoff::Backoff;
use crate::channel::Channels;
use crate::commits::Commits;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::rows::{Lookup, Rows, RowsDoor, name};
use crate::waits::{ASK_AFTER, Found, Waits};

/// As far away as a clock can be set on every system.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86400);

/// What is waited for, shared by a client, its handles and the task that asks.
pub(crate) struct Shared {
    // Held for a look or a change, and while predicates look at the rows of one event or answer.
    register: Mutex<Register>,
    /// The task that asks has something to look at.
    pub(crate) wake: Notify,
    pub(crate) door: RowsDoor,
    pub(crate) channels: Channels,
    pub(crate) backoff: Backoff,
}

pub(crate) struct Register {
    pub(crate) waits: Waits,
    pub(crate) commits: Commits,
    /// The largest request that the daemon takes, in bytes; its default until it has said so.
    pub(crate) request_bytes_max: usize,
    /// The task that asks is running.
    pub(crate) is_asking: bool,
    /// The next round of requests begins at the earliest; also of another task.
    pub(crate) not_before: Instant,
    /// Requests that were not answered since the last one that was.
    pub(crate) failures: u32,
    next: u64,
    /// Why nothing is waited for any more.
    over: Option<Error>,
}

impl Shared {
    pub(crate) fn new(door: RowsDoor, backoff: Backoff) -> Self {
        let register = Register {
            waits: Waits::default(),
            commits: Commits::default(),
            request_bytes_max: 64 << 10,
            is_asking: false,
            not_before: Instant::now(),
            failures: 0,
            next: 0,
            over: None,
        };
        let (register, wake, channels) = (Mutex::new(register), Notify::new(), Channels::default());
        Self { register, wake, door, channels, backoff }
    }

    pub(crate) fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client is over: so is everything that is waited for.
    pub(crate) fn end(&self, error: &Error) {
        let mut register = self.register();
        register.waits.end(error);
        register.commits.end(error);
        register.over.get_or_insert_with(|| error.repeat());
        drop(register);
        self.wake.notify_one();
    }
}

impl Register {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Asks things of a [`Client`](crate::Client) from any task, while one task calls [`Client::next`](crate::Client::next).
/// Clones are alike. It keeps nothing alive: when the client is dropped or over, so is what was waited for.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Waits for the row of `table` (`schema.table`) with this `key` to be as `predicate` wants it: `json!({"id": 7})` or
    /// anything else that becomes an object of exactly the key's columns.
    ///
    /// * **By the stream**: a subscription of the client brings the row, in a transaction or an initial sync. It counts when
    ///   the caller asks for the event after it, so whoever applies events one by one has it in its own copy by then. Values
    ///   of `key` are compared with the text that the feed has: numbers with all their digits (`1.50`), strings or not.
    /// * **By asking**: from 5 s on ([`Wait::ask_after`]) the daemon is asked for it with `POST /v1/rows`, and every 5 s from
    ///   then on: all that is waited for together, in few requests, whether or not a subscription covers the table,
    ///   the connection stands still or the caller does not call [`Client::next`](crate::Client::next). At once, when a change comes that
    ///   does not say the whole row (`"payload": "key"`, `unchanged`) and is not good enough.
    ///
    /// **A row that came before** comes by the stream no more. It is waited for from this call on, before the first poll.
    /// So: call `wait_for`, *then* look into your own copy, which costs nothing and knows; drop the wait when the row is
    /// there. Without a copy `.ask_after(Duration::ZERO)` asks at once; and what neither finds is found after 5 s.
    ///
    /// `predicate` gets states of the row in the order of their commits, each of which was true once and may have changed
    /// meanwhile: want what stays true, such as a version that is at least some number. It gets only the columns that the
    /// subscription has, and all when the daemon was asked. It runs inside `next` and must be quick and not use the client. A
    /// row that is deleted, not there, or not for this client is not good enough, and waited for on.
    ///
    /// Waiting twice for the same row is as good as once. There is no bound on how many wait; each takes less than 1 KiB with a
    /// small key.
    ///
    /// # Errors
    /// When awaited: `table` or `key` do not fit; the daemon refuses the table (`forbidden`, `unknown_table`) or the key,
    /// which is told as soon as it was asked; the time given by [`Wait::within`] is over; the client is over. An answer that
    /// may come later is asked for again, with backoff.
    ///
    /// # Cancellation
    /// Dropped, it is forgotten at once. What is being asked for nobody else is given up.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time and I/O: the asking is a task of its own, there as long as somebody waits.
    pub fn wait_for(
        &self,
        table: &str,
        key: &impl Serialize,
        predicate: impl Fn(&RawValue) -> bool + Send + 'static,
    ) -> Wait {
        let (answer, receiver) = oneshot::channel();
        let now = Instant::now();
        let mut register = self.shared.register();
        let id = register.number();
        match (name(table), Key::new(key), &register.over) {
            (Err(error), ..) | (_, Err(error), _) => drop(answer.send(Err(error))),
            (.., Some(over)) => drop(answer.send(Err(over.repeat()))),
            (Ok(table), Ok(key), None) => {
                register.waits.add(id, table, key, now + ASK_AFTER, Box::new(predicate), answer);
                if register.is_asking {
                    // It may have nothing to do for longer.
                    self.shared.wake.notify_one();
                } else {
                    register.is_asking = true;
                    tokio::spawn(asker::run(Arc::clone(&self.shared)));
                }
            }
        }
        drop(register);
        let ticket = Ticket { shared: Arc::clone(&self.shared), id, kind: Kind::Row };
        Wait { started: now, waiting: Waiting { receiver, deadline: None, ticket } }
    }

    /// Read your own writes: waits until the caller has been given, and has handled, everything of a subscription that was
    /// committed before `lsn`. Handled is what was given when the caller asks for the event after it.
    ///
    /// Ask Postgres for `lsn` **after `COMMIT` has returned**, on the primary: `SELECT pg_current_wal_lsn()`, or with
    /// `synchronous_commit = off` (where the commit may not be written yet) `SELECT pg_current_wal_insert_lsn()`. Asked before
    /// `COMMIT` it does not cover the commit. [`FoundBy::Rows`](crate::FoundBy::Rows)' `reached` is good as well.
    ///
    /// Where the subscription gets the commit itself, and nothing was written after it, it is over with that. Otherwise the next
    /// transaction for the subscription, `caught_up` or heartbeat that is later tells, so on a feed at rest it takes up to
    /// the daemon's `heartbeat` (15 s). Heartbeats have no cursor while another subscription of the client is in its initial sync.
    /// (Postgres writes what was committed asynchronously within some 600 ms, and before that it is not in the feed.)
    ///
    /// It goes on through lost connections. In an initial sync, it waits for `snapshot_complete`.
    ///
    /// # Errors
    /// When awaited: there is no such subscription, or it ends; the feed changes ([`ErrorKind::FeedChanged`]: a failover may
    /// have lost the commit); the time given by [`AfterCommit::within`] is over; the client is over.
    ///
    /// # Cancellation
    /// Dropped, it is forgotten at once.
    #[must_use = "it does nothing but wait"]
    pub fn after_commit(&self, subscription: &SubscriptionId, lsn: Lsn) -> AfterCommit {
        let (answer, receiver) = oneshot::channel();
        let mut register = self.shared.register();
        let id = register.number();
        let mut place = (lsn, id);
        match &register.over {
            Some(over) => drop(answer.send(Err(over.repeat()))),
            None => place = register.commits.add(id, subscription, lsn, answer),
        }
        drop(register);
        let kind = Kind::Commit(subscription.clone(), place);
        let ticket = Ticket { shared: Arc::clone(&self.shared), id, kind };
        AfterCommit { waiting: Waiting { receiver, deadline: None, ticket } }
    }

    /// Looks up rows by key, as the source has them now: one `POST /v1/rows`, with the client's token and TLS settings.
    ///
    /// # Errors
    /// When the daemon refuses ([`Error::answer`] says why), or cannot be reached or cannot answer now
    /// ([`ErrorKind::Unavailable`], after 30 s at the latest): ask again later.
    ///
    /// # Cancellation
    /// Dropped, the request is given up.
    pub async fn rows(&self, lookup: &Lookup) -> Result<Rows, Error> {
        Ok(self.shared.door.ask(lookup.body()).await?)
    }
}

enum Kind {
    Row,
    Commit(SubscriptionId, (Lsn, u64)),
}

/// Whose answer it is; dropped, nobody waits for it.
struct Ticket {
    shared: Arc<Shared>,
    id: u64,
    kind: Kind,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut register = self.shared.register();
        match &self.kind {
            Kind::Row => {
                let cancelled = register.waits.cancel(self.id);
                let is_last = register.waits.is_empty() && register.is_asking;
                drop(register);
                drop(cancelled);
                if is_last {
                    self.shared.wake.notify_one();
                }
            }
            Kind::Commit(id, place) => register.commits.cancel(id, *place),
        }
    }
}

/// Waits for an answer, at most until the deadline.
struct Waiting<T> {
    receiver: oneshot::Receiver<Result<T, Error>>,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    ticket: Ticket,
}

impl<T> Waiting<T> {
    fn within(mut self, limit: Duration) -> Self {
        self.deadline = Some((Box::pin(tokio::time::sleep(limit)), limit));
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>, what: &str) -> Poll<Result<T, Error>> {
        if let Poll::Ready(answer) = Pin::new(&mut self.receiver).poll(cx) {
            let ended = |_| Err(Error::new(ErrorKind::Ended, "the client is over"));
            return Poll::Ready(answer.unwrap_or_else(ended));
        }
        let Some((sleep, limit)) = &mut self.deadline else { return Poll::Pending };
        std::task::ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::Deadline, format!("{what} did not come within {limit:?}"))))
    }
}

/// A row that is waited for; see [`Handle::wait_for`].
#[must_use = "dropped, nobody waits for it"]
pub struct Wait {
    started: Instant,
    waiting: Waiting<Found>,
}

impl Wait {
    /// How long to wait for the stream alone, since [`Handle::wait_for`], before the daemon is asked. Default 5 s. The
    /// requests of a client are at least 1 s apart.
    pub fn ask_after(self, pause: Duration) -> Self {
        let ticket = &self.waiting.ticket;
        let due = self.started.checked_add(pause).unwrap_or(self.started + FOREVER);
        ticket.shared.register().waits.set_due(ticket.id, due);
        ticket.shared.wake.notify_one();
        self
    }

    /// The longest time to wait, from now on; then it fails with [`ErrorKind::Deadline`]. Default: for ever.
    pub fn within(mut self, limit: Duration) -> Self {
        self.waiting = self.waiting.within(limit);
        self
    }
}

impl Future for Wait {
    type Output = Result<Found, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.waiting.poll(cx, "the row")
    }
}

/// A commit that is waited for; see [`Handle::after_commit`].
#[must_use = "dropped, nobody waits for it"]
pub struct AfterCommit {
    waiting: Waiting<()>,
}

impl AfterCommit {
    /// The longest time to wait, from now on; then it fails with [`ErrorKind::Deadline`]. Default: for ever.
    pub fn within(mut self, limit: Duration) -> Self {
        self.waiting = self.waiting.within(limit);
        self
    }
}

impl Future for AfterCommit {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.waiting.poll(cx, "the commit")
    }
}
