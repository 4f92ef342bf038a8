//! The client: connections, one after the other, and what is read from them.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use url::Url;
use walcast_model::Cursor;
use walcast_protocol::{Auth, ClientMessage, ListClients, SubscriptionId};

use crate::backoff::Backoff;
use crate::builder::ClientBuilder;
use crate::channel::Channel;
use crate::connection::{self, Failure, Received, Socket, Target};
use crate::cursor_store::CursorStore;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::handle::{Handle, Shared};
use crate::rows::RowsDoor;
use crate::session::{Session, Step};
use crate::subscription::Subscription;
use crate::token::Renewal;

/// After this many of the daemon's heartbeat intervals without a frame the connection is dead.
const SILENT_HEARTBEATS: f64 = 2.5;

/// How long what is acknowledged waits for more of the same client, for each subscription that acknowledges: the daemon reads
/// 50 messages a second from a connection.
const ACK_INTERVAL: Duration = Duration::from_millis(50);

/// How long [`Client::close`] waits for the socket to take the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Connecting = Pin<Box<dyn Future<Output = Result<(Socket, Received), Failure>> + Send>>;

/// ```text
/// Waiting ──delay over──► Connecting ──► Open ──► Waiting …        any of them ──► Over
///    ▲                        │ failed
///    └────────────────────────┘
/// ```
enum Link {
    /// Until the next attempt.
    Waiting(Pin<Box<Sleep>>),
    /// An attempt is under way.
    Connecting(Connecting),
    /// A connection is there.
    Open(Box<Open>),
    /// The client is over; nothing follows.
    Over,
}

struct Open {
    socket: Socket,
    /// When the connection counts as dead: first for `welcome`, then for silence.
    deadline: Pin<Box<Sleep>>,
    /// How long it may be silent.
    silence: Duration,
    /// What the socket has received, and how much that was when the deadline was last looked at.
    received: Received,
    received_bytes: u64,
    /// Since `welcome`.
    since: Option<Instant>,
    outbox: VecDeque<String>,
    /// Something was written that may not have left the process.
    unflushed: bool,
    renewal: Renewal,
}

/// A connection to a daemon that is made again whenever it is lost, with any number of subscriptions.
///
/// See the [crate's page](crate) for an example.
pub struct Client {
    target: Target,
    store: Arc<dyn CursorStore>,
    backoff: Backoff,
    session: Session,
    link: Link,
    /// Attempts since the last connection that was stable.
    attempt: u32,
    /// Further events that one message led to.
    ready: VecDeque<Event>,
    /// Subscriptions that are asked for again, and when.
    resting: BTreeMap<SubscriptionId, Pin<Box<Sleep>>>,
    /// Until then what was acknowledged is not sent.
    ack_pause: Option<Pin<Box<Sleep>>>,
    /// The last token was refused, and no connection was made since.
    refused: bool,
    /// What is waited for.
    shared: Arc<Shared>,
    /// The caller was given something since it asked last.
    gave: bool,
}

impl Client {
    /// Settings for a client of the daemon at `url`: `ws://host:port` or `wss://host`, with or without `/v1/stream`.
    #[must_use]
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    pub(crate) fn new(
        target: Target,
        rows_url: Url,
        store: Arc<dyn CursorStore>,
        backoff: Backoff,
        transaction_bytes_max: usize,
    ) -> Self {
        let shared = Shared::new(RowsDoor::new(target.clone(), rows_url), backoff);
        let link = Link::Connecting(Box::pin(connection::connect(target.clone())));
        Self {
            target,
            store,
            backoff,
            session: Session::new(transaction_bytes_max),
            link,
            attempt: 0,
            ready: VecDeque::new(),
            ack_pause: None,
            resting: BTreeMap::new(),
            refused: false,
            shared: Arc::new(shared),
            gave: false,
        }
    }

    /// For other tasks: to wait for a row or a commit, and to look up rows, while this one calls [`Client::next`].
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.shared))
    }

    /// A channel, for this task and others: to join it, say something there and see who is there. Nothing is sent before one
    /// of these is asked for.
    #[must_use]
    pub fn channel(&self, name: impl Into<String>) -> Channel {
        Channel::new(name.into(), Arc::clone(&self.shared))
    }

    /// Adds a subscription. It goes on from the cursor that is stored for its id, else it starts where it says itself.
    ///
    /// # Errors
    /// When there is a subscription with this id, or the [`CursorStore`] fails. The client can be used on.
    ///
    /// # Cancellation
    /// Either it was added or it was not.
    pub async fn subscribe(&mut self, subscription: Subscription) -> Result<(), Error> {
        let id = subscription.id().clone();
        if self.session.contains(&id) {
            return Err(Error::new(ErrorKind::Argument, format!("there is a subscription {id} already")));
        }
        let stored = self.store.load(&id).await?;
        let message = self.session.add(subscription, stored);
        self.send(&message);
        self.shared.register().commits.begin(id);
        Ok(())
    }

    /// Ends a subscription: no event of it follows. Whether there was one. Use another id for another subscription, for
    /// messages of this one may still be on their way.
    pub fn unsubscribe(&mut self, id: &SubscriptionId) -> bool {
        self.resting.remove(id);
        let Some(message) = self.session.remove(id) else { return false };
        if let Some(message) = &message {
            self.send(message);
        }
        self.shared.register().commits.forget(id);
        true
    }

    /// Stores `cursor` for a subscription: everything before it is applied, and a later client with the same
    /// [`CursorStore`] goes on from there. It is a cursor of the subscription's events, so of the feed that they are of.
    ///
    /// # Errors
    /// When the [`CursorStore`] fails, when the subscription is over, or when it has nothing to store: it has not begun, or
    /// is in its initial sync.
    pub async fn store(&self, id: &SubscriptionId, cursor: Cursor) -> Result<(), Error> {
        let Some(stored) = self.session.stored(id, cursor) else {
            let message = format!("there is no cursor to store for {id}: it is over, or in its initial sync");
            return Err(Error::new(ErrorKind::Argument, message));
        };
        self.store.store(id, stored).await
    }

    /// Acknowledges a cursor of a subscription with a [`Subscription::client_id`]: everything before it is stored by the
    /// caller, and `.start(StartAt::Acked)` goes on there, in this process or another one. Any cursor of its events may
    /// be acknowledged once that event was handled, also those of `CaughtUp` and of [`Event::Heartbeat`]. Nothing is
    /// acknowledged by itself, because only the caller knows when a change is stored.
    ///
    /// It is sent by one of the next calls of [`Client::next`], many together as one message, and **durable when
    /// [`Event::Acked`] says so**: what was not acknowledged, or not confirmed, may come again to the next process, so
    /// apply changes in a way that bears it. To this one it does not, also after a lost connection, except for pieces of a
    /// transaction over [`ClientBuilder::transaction_bytes_max`] and compacted transactions. An older cursor than the last one is
    /// ignored. What the daemon refuses comes as [`Event::Error`]: another client under the same name has taken over, or a
    /// limit.
    ///
    /// When the feed changes (a failover) while changes wait to be acknowledged, the subscription fails with
    /// `feed_changed`.
    ///
    /// # Errors
    /// When the subscription is over, has no `client_id`, is in its initial sync, or was not given that much yet.
    pub fn ack(&mut self, id: &SubscriptionId, cursor: Cursor) -> Result<(), Error> {
        self.session.acknowledge(id, cursor)
    }

    /// Asks for what the clients of the same user have acknowledged; the answer is [`Event::Clients`]. Whether there was a
    /// connection to ask over.
    pub fn ask_for_clients(&mut self) -> bool {
        self.send(&ListClients {}.into())
    }

    /// The next event. `None` after an error, which is the last item: what ends a client does not mend itself.
    ///
    /// # Cancellation
    /// Safe: a dropped call has lost nothing, the next one goes on.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        StreamExt::next(self).await
    }

    /// Tells the daemon what is acknowledged and that this client leaves, and leaves. Dropping the client does the same without
    /// telling. Takes 2 s at the most.
    pub async fn close(mut self) {
        let acks = self.session.take_acks();
        if let Link::Open(open) = &mut self.link {
            open.outbox.extend(acks.iter().map(ClientMessage::to_json));
            if tokio::time::timeout(CLOSE_TIMEOUT, open.leave()).await.is_err() {
                tracing::debug!("the close frame was not taken in time");
            }
        }
    }

    /// Queues a message on a connection that was welcomed; a later one asks for all subscriptions anyway.
    /// Whether there was one.
    fn send(&mut self, message: &ClientMessage) -> bool {
        if let Link::Open(open) = &mut self.link
            && open.since.is_some()
        {
            open.outbox.push_back(message.to_json());
            return true;
        }
        false
    }

    /// Sends what was acknowledged, not more often than the daemon reads it.
    fn poll_acks(&mut self, cx: &mut Context<'_>) {
        if let Some(pause) = &mut self.ack_pause {
            if pause.as_mut().poll(cx).is_pending() {
                return;
            }
            self.ack_pause = None;
        }
        let acks = self.session.take_acks();
        for ack in &acks {
            self.send(ack);
        }
        // Some of it may have to wait until the daemon has sent it once more.
        if !acks.is_empty() || self.session.has_acks() {
            let count = u32::try_from(acks.len()).unwrap_or(u32::MAX).max(1);
            let mut pause = Box::pin(tokio::time::sleep(ACK_INTERVAL.saturating_mul(count)));
            if pause.as_mut().poll(cx).is_pending() {
                self.ack_pause = Some(pause);
            }
        }
    }

    /// The caller asks again: what it was given it has handled.
    fn handled(&mut self) {
        if std::mem::take(&mut self.gave) {
            let mut register = self.shared.register();
            register.waits.handled();
            register.commits.handled(self.session.places());
        }
    }

    /// The caller is given an item.
    fn give(&mut self, item: &Result<Event, Error>) {
        self.gave = true;
        match item {
            Err(error) => self.shared.end(error),
            Ok(event) => {
                match event {
                    Event::Joined(joined) => self.shared.channels.joined(joined),
                    Event::Presence(presence) => self.shared.channels.presence(presence),
                    Event::Error(error) => self.shared.channels.refused(error),
                    _ => {}
                }
                let mut register = self.shared.register();
                if let Event::Connected(welcome) = event {
                    let bytes = welcome.limits.message_bytes_max;
                    register.request_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
                if register.waits.look_at(event, Instant::now()) {
                    self.shared.wake.notify_one();
                }
            }
        }
    }

    /// Asks for the subscriptions that have rested, and wakes the task when another one has.
    fn poll_resting(&mut self, cx: &mut Context<'_>) {
        let mut rested = Vec::new();
        for (id, rest) in &mut self.resting {
            if rest.as_mut().poll(cx).is_ready() {
                rested.push(id.clone());
            }
        }
        for id in rested {
            self.resting.remove(&id);
            match self.session.ask_again(&id) {
                // Without a connection it is asked for with all the others.
                Ok(Some(message)) => drop(self.send(&message)),
                Ok(None) => {}
                Err(failed) => self.ready.push_back(*failed),
            }
        }
    }

    /// Sends the next token when it is time.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) {
        if let Link::Open(open) = &mut self.link
            && let Poll::Ready(token) = open.renewal.poll(&self.target.token, cx)
        {
            open.outbox.push_back(ClientMessage::from(Auth { token }).to_json());
        }
    }

    /// Sends what was asked of channels.
    fn poll_channels(&mut self, cx: &Context<'_>) {
        self.shared.channels.register(cx.waker());
        for message in self.shared.channels.take() {
            self.send(&message);
        }
    }

    fn fail(&mut self, failure: Failure) -> Result<Event, Error> {
        let reached = !matches!(failure, Failure::Unreached(_));
        let answered = matches!(failure, Failure::Answered(_));
        self.shared.channels.disconnected();
        match failure {
            // Another token may do; when that is refused as well, nobody knows a better one.
            Failure::Over(error)
                if error.kind() == ErrorKind::Unauthorized
                    && self.target.token.is_renewable()
                    && !self.refused =>
            {
                self.refused = true;
                self.fail(Failure::Answered(error.to_string()))
            }
            Failure::Over(error) => {
                self.link = Link::Over;
                Err(error)
            }
            Failure::Unreached(reason) | Failure::Lost(reason) | Failure::Answered(reason) => {
                let stable = |open: &Open| {
                    open.since.is_some_and(|since| since.elapsed() >= self.backoff.stable_after)
                };
                if matches!(&self.link, Link::Open(open) if stable(open)) {
                    self.attempt = 0;
                }
                let delay = self.backoff.delay(self.attempt);
                self.attempt = self.attempt.saturating_add(1);
                self.link = Link::Waiting(Box::pin(tokio::time::sleep(delay)));
                tracing::debug!(reason, ?delay, attempt = self.attempt, "connection lost");
                Ok(Event::Reconnecting { delay, attempt: self.attempt, reason, reached, answered })
            }
        }
    }

    fn step(&mut self, step: Step) -> Option<Result<Event, Error>> {
        match step {
            Step::Nothing => None,
            Step::Token if !self.target.token.is_there() => {
                let message = "the daemon serves nobody without a token, and this client has none; give it one \
                               (ClientBuilder::token)";
                Some(self.fail(Failure::Over(Error::new(ErrorKind::NoToken, message))))
            }
            Step::Token => {
                // Something on the way has taken it out of the request.
                if let Link::Open(open) = &mut self.link {
                    open.renewal.ask(&self.target.token);
                }
                None
            }
            Step::StartOver { id, messages } => {
                for message in &*messages {
                    self.send(message);
                }
                Some(Ok(Event::RightsChanged { id }))
            }
            Step::Lost(reason) => Some(self.fail(Failure::Lost(reason))),
            Step::Over(error) => Some(self.fail(Failure::Over(error))),
            Step::Retry { id, attempt, error } => {
                let delay = self.backoff.delay(attempt - 1);
                tracing::debug!(%id, code = %error.code, ?delay, attempt, "a subscription is retried");
                self.resting.insert(id.clone(), Box::pin(tokio::time::sleep(delay)));
                Some(Ok(Event::Retrying { id, delay, attempt, error }))
            }
            Step::Events(both) => {
                let (first, second) = *both;
                self.ready.push_back(second);
                Some(Ok(first))
            }
            Step::Event(event) => {
                if let (Event::Heartbeat(heartbeat), Link::Open(open)) = (&event, &mut self.link) {
                    open.renewal.heard(heartbeat);
                }
                if let (Event::Connected(welcome), Link::Open(open)) = (&event, &mut self.link) {
                    self.refused = false;
                    let heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(1));
                    open.silence = heartbeat.mul_f64(SILENT_HEARTBEATS);
                    open.since = Some(Instant::now());
                    open.heard();
                    let (messages, failed) = self.session.ask_for_all();
                    open.outbox.extend(messages.iter().map(ClientMessage::to_json));
                    open.outbox.extend(self.shared.channels.connected().iter().map(ClientMessage::to_json));
                    self.ready.extend(failed);
                }
                Some(Ok(event))
            }
        }
    }
}

impl Open {
    fn new((socket, received): (Socket, Received), timeout: Duration) -> Self {
        Self {
            socket,
            deadline: Box::pin(tokio::time::sleep(timeout)),
            silence: timeout,
            received_bytes: received.bytes(),
            received,
            since: None,
            outbox: VecDeque::new(),
            unflushed: false,
            renewal: Renewal::default(),
        }
    }

    fn heard(&mut self) {
        self.deadline.as_mut().reset(Instant::now() + self.silence);
    }

    /// Writes what there is to write, and the close frame.
    async fn leave(&mut self) {
        let written = std::future::poll_fn(|cx| match self.poll_write(cx) {
            Ok(()) if self.outbox.is_empty() && !self.unflushed => Poll::Ready(true),
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(false),
        });
        if written.await {
            // Whether it arrives does not matter.
            let _ = self.socket.close(None).await;
        }
    }

    /// Writes what there is to write, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.outbox.is_empty() {
            let Poll::Ready(ready) = socket.as_mut().poll_ready(cx) else { return Ok(()) };
            ready.map_err(connection::classify)?;
            if let Some(text) = self.outbox.pop_front() {
                socket.as_mut().start_send(Message::text(text)).map_err(connection::classify)?;
                self.unflushed = true;
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = socket.poll_flush(cx)
        {
            flushed.map_err(connection::classify)?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// The next text frame, or how the connection ended.
    fn poll_text(&mut self, cx: &mut Context<'_>) -> Poll<Result<Utf8Bytes, Failure>> {
        self.poll_write(cx)?;
        loop {
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Message::Text(text)))) => {
                    self.heard();
                    return Poll::Ready(Ok(text));
                }
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    // The answer to a close frame is waiting to be written; whether it leaves does not matter.
                    let _ = self.socket.poll_flush_unpin(cx);
                    return Poll::Ready(Err(connection::closed(frame.as_ref())));
                }
                Poll::Ready(Some(Ok(_))) => self.heard(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(connection::classify(error))),
                Poll::Ready(None) => return Poll::Ready(Err(Failure::Lost("the connection ended".into()))),
                // Only now: a caller that was away for long has frames waiting in the socket.
                Poll::Pending => {
                    std::task::ready!(self.deadline.as_mut().poll(cx));
                    let received_bytes = self.received.bytes();
                    if self.since.is_none() || received_bytes == self.received_bytes {
                        let silence = self.silence;
                        let reason = match self.since {
                            Some(_) => format!("the daemon was silent for {silence:?}"),
                            None => format!("no welcome came within {silence:?} of connecting"),
                        };
                        return Poll::Ready(Err(Failure::Lost(reason)));
                    }
                    // A part of a large message has come. Once more round, so that the new deadline is waited for.
                    self.received_bytes = received_bytes;
                    self.heard();
                }
            }
        }
    }
}

impl Stream for Client {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let client = &mut *self;
        client.handled();
        loop {
            client.poll_resting(cx);
            client.poll_renewal(cx);
            client.poll_acks(cx);
            client.poll_channels(cx);
            if let Some(event) = client.ready.pop_front() {
                let item = Ok(event);
                client.give(&item);
                return Poll::Ready(Some(item));
            }
            let item = match &mut client.link {
                Link::Over => return Poll::Ready(None),
                Link::Waiting(delay) => {
                    std::task::ready!(delay.as_mut().poll(cx));
                    client.link = Link::Connecting(Box::pin(connection::connect(client.target.clone())));
                    None
                }
                Link::Connecting(attempt) => match std::task::ready!(attempt.as_mut().poll(cx)) {
                    Ok(connection) => {
                        client.link =
                            Link::Open(Box::new(Open::new(connection, client.target.connect_timeout)));
                        None
                    }
                    Err(failure) => Some(client.fail(failure)),
                },
                Link::Open(open) => match std::task::ready!(open.poll_text(cx)) {
                    Ok(text) => {
                        let step = client.session.frame(&text);
                        client.step(step)
                    }
                    Err(failure) => Some(client.fail(failure)),
                },
            };
            if let Some(item) = item {
                client.give(&item);
                return Poll::Ready(Some(item));
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end(&Error::new(ErrorKind::Ended, "the client is over"));
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::memory::{Memory, Transport};
