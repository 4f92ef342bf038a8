//! One client: its socket and its subscriptions.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::future::select_all;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;
use walcast_feed::SourceState;
use walcast_policy::Rights;
use walcast_protocol::{
    CloseCode, Limits as ClientLimits, PROTOCOL_VERSION, ServerMessage, SourceStatus, Status, Welcome,
};

use super::wire::{Wire, reason};
use crate::broadcaster::Broadcaster;
use crate::metrics::{self as names, Hot, InGauge};
use crate::subscription::{Output, Subscription};

/// What tungstenite reads at once, resident in every connection, in bytes. Messages of clients are small.
const READ_BUFFER_BYTES: usize = 4096;
/// Close codes of RFC 6455 section 7.4.1 that the contract gives no meaning of its own.
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_TEXT: u16 = 1007;

/// One WebSocket connection.
pub(super) struct Connection<S> {
    pub(super) broadcaster: Broadcaster,
    socket: WebSocketStream<Wire<S>>,
    pub(super) subscriptions: Vec<Subscription>,
    /// What the client may have.
    pub(super) rights: Arc<Rights>,
    /// Whose turn it is to give a frame.
    turn: usize,
    /// Refused messages in a row.
    pub(super) refused: u32,
    /// Whether the client is to be told how the source is doing.
    status_due: bool,
    /// Whether the socket took anything since the last heartbeat.
    pub(super) moved: bool,
    hot: Hot,
    _counted: InGauge,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client has gone, or said that it goes.
    Gone,
    /// It is closed with this code.
    Close(u16, &'static str),
}

impl From<CloseCode> for End {
    fn from(code: CloseCode) -> Self {
        Self::Close(code.number(), reason(code))
    }
}

/// What the socket did.
enum Io {
    /// It took bytes.
    Sent,
    /// It gave a message.
    Message(Message),
    Ended(End),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over a socket whose handshake is done, and of which `early` was read already.
    pub(super) async fn new(socket: S, early: Vec<u8>, broadcaster: Broadcaster) -> Self {
        let limits = broadcaster.limits();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.message_bytes_max));
        let wire = Wire::new(socket, BytesMut::new());
        let socket = WebSocketStream::from_partially_read(wire, early, Role::Server, Some(config)).await;
        Self {
            broadcaster,
            socket,
            subscriptions: Vec::new(),
            rights: Arc::new(Rights::Everything),
            turn: 0,
            refused: 0,
            status_due: true,
            moved: true,
            hot: Hot::new(),
            _counted: InGauge::enter(names::CONNECTIONS),
        }
    }

    /// Serves the client until it goes, breaks a rule, or `shutdown` is cancelled.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        self.welcome();
        let end = self.serve(&shutdown).await;
        self.subscriptions.clear();
        self.finish(end).await;
    }

    fn welcome(&mut self) {
        let limits = *self.broadcaster.limits();
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            feed: self.broadcaster.feed_id().clone(),
            cursor: self.broadcaster.feed().head(),
            oldest: self.broadcaster.oldest(),
            server: concat!("walcast/", env!("CARGO_PKG_VERSION")).to_owned(),
            heartbeat_ms: u64::try_from(limits.heartbeat.as_millis()).unwrap_or(u64::MAX),
            limits: ClientLimits {
                message_bytes_max: limits.message_bytes_max as u64,
                subscriptions_max: narrow(limits.subscriptions_max),
                tables_max: narrow(limits.tables_max),
            },
        };
        self.push(welcome);
    }

    /// Queues a message. Bounded, because messages are made when there is room, or in answer to one of the client,
    /// from whom nothing is read otherwise.
    pub(super) fn push(&mut self, message: impl Into<ServerMessage>) {
        self.socket.get_mut().push(message.into().into());
        self.hot.frames.increment(1);
    }

    fn has_room(&self) -> bool {
        self.pending_bytes() < self.broadcaster.limits().batch_bytes_max
    }

    /// Bytes that are on their way to the socket.
    pub(super) fn pending_bytes(&self) -> usize {
        self.socket.get_ref().pending_bytes()
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> End {
        let heartbeat = self.broadcaster.limits().heartbeat;
        let mut ticks = interval_at(Instant::now() + heartbeat, heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut source = self.broadcaster.source();
        source.mark_unchanged();
        loop {
            self.fill();
            let room = self.has_room();
            let (socket, subscriptions) = (&mut self.socket, &mut self.subscriptions);
            tokio::select! {
                // All are cancel-safe: what the socket or a subscription has begun is kept in it.
                () = shutdown.cancelled() => return CloseCode::Restart.into(),
                io = poll_fn(|cx| poll_io(socket, room, cx)) => match io {
                    Io::Sent => self.moved = true,
                    Io::Message(message) => if let Some(end) = self.hear(message) {
                        return end;
                    },
                    Io::Ended(end) => return end,
                },
                // While there is no room nothing is taken of them, so nothing need be waited for.
                () = any_ready(subscriptions), if room => {}
                _ = ticks.tick() => self.heartbeat(),
                Ok(()) = source.changed() => self.status_due = true,
            }
        }
    }

    /// Takes frames of the subscriptions in turn, until there is no room or they have none.
    fn fill(&mut self) {
        if self.status_due && self.has_room() {
            self.status_due = false;
            let status = status(&self.broadcaster.source().borrow());
            self.push(status);
        }
        let before = self.pending_bytes();
        let mut frames = 0;
        let mut quiet = 0;
        while quiet < self.subscriptions.len() && self.has_room() {
            let index = self.turn % self.subscriptions.len();
            let Some(subscription) = self.subscriptions.get_mut(index) else { break };
            match subscription.next() {
                Output::Frame(frame) => {
                    self.socket.get_mut().push(frame);
                    frames += 1;
                    quiet = 0;
                    self.turn = index + 1;
                }
                Output::Nothing => {
                    quiet += 1;
                    self.turn = index + 1;
                }
                Output::Over => {
                    self.subscriptions.remove(index);
                }
            }
        }
        if frames > 0 {
            self.hot.frames.increment(frames);
            self.hot.bytes.increment((self.pending_bytes() - before) as u64);
        }
    }

    fn hear(&mut self, message: Message) -> Option<End> {
        match message {
            Message::Text(text) => self.text(&text),
            Message::Binary(_) => self.binary(),
            // tungstenite has an answer, which `finish` takes from it.
            Message::Close(_) => Some(End::Gone),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    /// Writes what is queued and the close frame, and waits for the client to go, so that it reads them.
    async fn finish(mut self, end: End) {
        let deadline = Instant::now() + self.broadcaster.limits().drain_max;
        match end {
            End::Close(code, reason) => {
                tracing::debug!(code, reason, "a connection is closed");
                self.socket.get_mut().push_close(code, reason);
            }
            // The answer to a close frame goes behind what is queued. It does not wait, and what it says of a connection
            // that is over is known.
            End::Gone => drop(self.socket.flush().await),
        }
        let wire = self.socket.get_mut();
        let closing = async {
            poll_fn(|cx| wire.poll_send(cx)).await?;
            let socket = wire.socket();
            socket.shutdown().await?;
            // A socket that is closed while it holds unread bytes is reset, and the client may lose the close frame.
            let mut rest = [0_u8; 1024];
            while socket.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Late or failed: nothing more can be done for it.
        let _ = timeout_at(deadline, closing).await;
    }
}

/// Reads a message if there is room for an answer, and writes what is queued.
fn poll_io<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<Wire<S>>,
    room: bool,
    cx: &mut Context<'_>,
) -> Poll<Io> {
    // Reading first: it may queue the answer to a ping.
    if room && let Poll::Ready(read) = socket.poll_next_unpin(cx) {
        return Poll::Ready(match read {
            Some(Ok(message)) => Io::Message(message),
            None => Io::Ended(End::Gone),
            Some(Err(error)) => Io::Ended(ended(&error)),
        });
    }
    let wire = socket.get_mut();
    let before = wire.pending_bytes();
    if before == 0 {
        return Poll::Pending;
    }
    match wire.poll_send(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(Io::Ended(End::Gone)),
        Poll::Ready(Ok(())) => Poll::Ready(Io::Sent),
        // Part of it: there may be room now.
        Poll::Pending if wire.pending_bytes() < before => Poll::Ready(Io::Sent),
        Poll::Pending => Poll::Pending,
    }
}

fn ended(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(_) => CloseCode::TooBig.into(),
        SocketError::Utf8(_) => End::Close(INVALID_TEXT, "a text message is not UTF-8"),
        SocketError::Protocol(_) => End::Close(PROTOCOL_ERROR, "a WebSocket frame breaks the rules"),
        _ => End::Gone,
    }
}

/// Waits until one of the subscriptions may have a frame; for ever when there is none.
async fn any_ready(subscriptions: &mut [Subscription]) {
    match subscriptions {
        [] => std::future::pending().await,
        [one] => one.ready().await,
        many => {
            select_all(many.iter_mut().map(|subscription| Box::pin(subscription.ready()))).await;
        }
    }
}

fn status(state: &SourceState) -> Status {
    let plain = |state| Status { state, message: None, hint: None };
    match state {
        SourceState::Starting => plain(SourceStatus::Starting),
        SourceState::Streaming => plain(SourceStatus::Streaming),
        SourceState::Interrupted { reason, hint } => {
            Status { state: SourceStatus::Interrupted, message: Some(reason.clone()), hint: hint.clone() }
        }
    }
}
