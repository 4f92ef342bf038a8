//! A client that was not let in yet: it may send a token, and nothing else.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use walcast_auth::Rejection;
use walcast_protocol::{AuthRequired, ClientMessage, CloseCode, ErrorCode, ErrorMessage, ServerMessage};

use super::connection::{Connection, End, ended};
use super::entrance::Entrance;
use super::tally::Counted;
use super::wire::Wire;
use crate::access::Pass;
use crate::broadcaster::Broadcaster;
use crate::limits::Limits;
use crate::metrics as names;

/// What tungstenite reads at once, resident in every connection, in bytes. Messages of clients are small; for a larger one it
/// makes room while it comes.
const READ_BUFFER_BYTES: usize = 1024;

/// A WebSocket over a socket whose handshake is done, and of which `early` was read already.
pub(super) async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    early: Vec<u8>,
    limits: &Limits,
) -> WebSocketStream<Wire<S>> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max));
    let wire = Wire::new(socket, BytesMut::new());
    WebSocketStream::from_partially_read(wire, early, Role::Server, Some(config)).await
}

/// A client that was not let in yet.
pub(super) struct Stranger<S> {
    socket: WebSocketStream<Wire<S>>,
    broadcaster: Broadcaster,
    entrance: Arc<Entrance>,
}

/// What the socket did.
enum Io {
    /// It took bytes.
    Sent,
    /// It gave a message.
    Message(Message),
    Ended(End),
}

/// Why a client is closed, beside the code.
pub(super) struct Farewell {
    code: CloseCode,
    error: Box<ErrorMessage>,
}

impl Farewell {
    /// There is no token that is good.
    pub(super) fn unauthorized(reason: &'static str, message: impl Into<String>, hint: Option<&str>) -> Self {
        metrics::counter!(names::UNAUTHORIZED, "reason" => reason).increment(1);
        Self::new(CloseCode::Unauthorized, ErrorCode::Unauthorized, message, hint)
    }

    pub(super) fn rejected(rejection: &Rejection) -> Self {
        Self::unauthorized(rejection.label(), rejection.to_string(), None)
    }

    pub(super) fn too_many_of_user() -> Self {
        metrics::counter!(names::CONNECTIONS_REFUSED, "limit" => "connections_per_user_max").increment(1);
        let message = "too many connections of this user (connections_per_user_max)";
        Self::new(CloseCode::Policy, ErrorCode::LimitExceeded, message, Some("close some of them"))
    }

    fn new(code: CloseCode, error: ErrorCode, message: impl Into<String>, hint: Option<&str>) -> Self {
        let error = ErrorMessage::new(error, message);
        Self { code, error: Box::new(ErrorMessage { fatal: true, hint: hint.map(str::to_owned), ..error }) }
    }

    /// What it says.
    pub(super) fn into_error(self) -> ErrorMessage {
        *self.error
    }

    /// Says it.
    pub(super) fn say<S>(self, wire: &mut Wire<S>) -> End {
        metrics::counter!(names::ERRORS, "code" => self.error.code.to_string()).increment(1);
        wire.push(ServerMessage::from(*self.error).into());
        self.code.into()
    }
}

/// Counts a client as its user's, where it says whose it is.
pub(super) fn count_user(
    entrance: &Entrance,
    pass: &Pass,
    limits: &Limits,
) -> Result<Option<Counted<Arc<str>>>, Farewell> {
    let Some(user) = pass.user() else { return Ok(None) };
    let counted = entrance.users.enter(Arc::from(user), limits.connections_per_user_max);
    counted.map(Some).ok_or_else(Farewell::too_many_of_user)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stranger<S> {
    pub(super) const fn new(
        socket: WebSocketStream<Wire<S>>,
        broadcaster: Broadcaster,
        entrance: Arc<Entrance>,
    ) -> Self {
        Self { socket, broadcaster, entrance }
    }

    /// Finds out who it is, by the token of its request or of its first message. `None` when it was not let in, and is
    /// gone.
    pub(super) async fn identify(
        mut self,
        token: Option<String>,
        shutdown: &CancellationToken,
    ) -> Option<Box<Connection<S>>> {
        let limits = *self.broadcaster.limits();
        let end = match self.pass(token, &limits, shutdown).await {
            Ok(pass) => match count_user(&self.entrance, &pass, &limits) {
                Ok(user) => {
                    let Self { socket, broadcaster, entrance } = self;
                    return Some(Box::new(Connection::new(socket, broadcaster, entrance, pass, user)));
                }
                Err(farewell) => farewell.say(self.socket.get_mut()),
            },
            Err(end) => end,
        };
        finish(self.socket, end, &limits).await;
        None
    }

    async fn pass(
        &mut self,
        token: Option<String>,
        limits: &Limits,
        shutdown: &CancellationToken,
    ) -> Result<Pass, End> {
        let mut late = std::pin::pin!(sleep_until(Instant::now() + limits.auth_max));
        let mut token = token;
        let mut was_asked = false;
        loop {
            let admitted = self.entrance.authority.admit(token.as_deref());
            let farewell = match admitted {
                Ok(Some(pass)) => return Ok(pass),
                Err(rejection) => Farewell::rejected(&rejection),
                Ok(None) => {
                    let socket = &mut self.socket;
                    if !std::mem::replace(&mut was_asked, true) {
                        socket.get_mut().push(ServerMessage::from(ask_for_token(limits)).into());
                    }
                    let heard = tokio::select! {
                        // All are cancel-safe.
                        () = shutdown.cancelled() => return Err(CloseCode::Restart.into()),
                        () = late.as_mut() => None,
                        io = poll_fn(|cx| poll_io(socket, true, cx)) => Some(io),
                    };
                    match heard {
                        Some(Io::Sent | Io::Message(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Io::Ended(end)) => return Err(end),
                        Some(Io::Message(Message::Close(_))) => return Err(End::Gone),
                        Some(Io::Message(Message::Text(text))) => match ClientMessage::decode(&text) {
                            Ok(ClientMessage::Auth(auth)) => {
                                token = Some(auth.token);
                                continue;
                            }
                            _ => not_auth(),
                        },
                        Some(Io::Message(_)) => not_auth(),
                        None => {
                            let message = "no token came in time (auth_max)";
                            Farewell::unauthorized("missing", message, Some(HOW))
                        }
                    }
                }
            };
            return Err(farewell.say(self.socket.get_mut()));
        }
    }
}

/// How a token is sent.
const HOW: &str = "send {\"type\":\"auth\",\"token\":\"…\"}, or come with the token in the request: as Authorization: Bearer, or as \
                   ?token= in the URL";

/// What a client is told that may still send a token. It would find out the same by waiting.
fn ask_for_token(limits: &Limits) -> AuthRequired {
    AuthRequired {
        message: "this daemon serves nobody without a token".to_owned(),
        hint: Some(HOW.to_owned()),
        within_ms: u64::try_from(limits.auth_max.as_millis()).unwrap_or(u64::MAX),
    }
}

fn not_auth() -> Farewell {
    Farewell::unauthorized("missing", "nothing but a token is taken before there was one", Some(HOW))
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
    if wire.is_clear() {
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

/// Writes what is queued and the close frame, and waits for the client to go, so that it reads them.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<Wire<S>>,
    end: End,
    limits: &Limits,
) {
    use futures_util::SinkExt;
    let deadline = Instant::now() + limits.drain_max;
    match end {
        End::Close(code, reason) => {
            tracing::debug!(code, reason, "a connection is closed");
            socket.get_mut().push_close(code, reason);
        }
        // The answer to a close frame goes behind what is queued. It does not wait, and what it says of a connection
        // that is over is known.
        End::Gone => drop(socket.flush().await),
    }
    let wire = socket.get_mut();
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
