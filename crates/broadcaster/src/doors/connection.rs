//! One client: its socket and its subscriptions.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use walcast_protocol::{ClientList, CloseCode, ServerMessage};

use super::bell::Bell;
use super::channels::Talk;
use super::entrance::Entrance;
use super::greeting;
use super::pace::Pace;
use super::stranger::{Farewell, count_user, finish};
use super::tally::Counted;
use super::wire::{Wire, reason};
use crate::access::{NotRenewed, Pass};
use crate::broadcaster::Broadcaster;
use crate::channels::Memberships;
use crate::metrics::{self as names, InGauge, Sent};
use crate::refusal::Refusal;
use crate::subscriptions::Subscriptions;
use crate::turns::Applicant;

/// Close codes of RFC 6455 section 7.4.1 that the contract gives no meaning of its own.
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_TEXT: u16 = 1007;

/// One WebSocket connection, of a client that was let in.
pub(super) struct Connection<S> {
    pub(super) broadcaster: Broadcaster,
    pub(super) entrance: Arc<Entrance>,
    pub(super) socket: WebSocketStream<Wire<S>>,
    pub(super) subscriptions: Subscriptions,
    /// The channels that it is in.
    pub(super) memberships: Memberships,
    /// Who the client is, and what it may have.
    pub(super) pass: Pass,
    /// Counts it as its user's.
    pub(super) user: Option<Counted<Arc<str>>>,
    number: u64,
    /// When it is no longer let in, unless another token comes.
    pub(super) ends_at: Option<Instant>,
    /// Since when it has no subscription.
    pub(super) idle_since: Option<Instant>,
    pub(super) messages: Pace,
    pub(super) subscribes: Pace,
    /// How it talks in channels, once it has: most clients do not.
    pub(super) talk: Option<Box<Talk>>,
    /// Until when nothing is read from it, because it talks too fast.
    pub(super) paused_until: Option<Instant>,
    /// What the clients of its user have acknowledged, when that was asked for.
    pub(super) listing: Option<AbortOnDropHandle<Result<ClientList, Refusal>>>,
    /// When it said something last, also by answering a ping.
    pub(super) heard_at: Instant,
    /// Refused messages in a row.
    pub(super) refused: u32,
    /// Whether the client is to be told how the source is doing.
    pub(super) status_due: bool,
    /// Whether the socket took anything since the last heartbeat.
    pub(super) moved: bool,
    /// Rings when the socket may have something of the client.
    pub(super) reading: Bell,
    /// Rings when something happened that seldom does.
    pub(super) seldom: Bell,
    pub(super) sent: Sent,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection of a client that was let in.
    pub(super) fn new(
        socket: WebSocketStream<Wire<S>>,
        broadcaster: Broadcaster,
        entrance: Arc<Entrance>,
        pass: Pass,
        user: Option<Counted<Arc<str>>>,
    ) -> Self {
        let (limits, now) = (*broadcaster.limits(), Instant::now());
        let memberships = broadcaster.memberships();
        Self {
            number: entrance.number(),
            broadcaster,
            entrance,
            socket,
            subscriptions: Subscriptions::default(),
            memberships,
            ends_at: pass.left().and_then(|left| now.checked_add(left)),
            pass,
            user,
            idle_since: Some(now),
            messages: Pace::new(limits.messages_per_second_max, limits.messages_per_second_max * 4, now),
            subscribes: Pace::new(limits.subscribes_per_second_max, limits.subscriptions_max, now),
            talk: None,
            paused_until: None,
            listing: None,
            heard_at: now,
            refused: 0,
            status_due: true,
            moved: true,
            reading: Bell::new(),
            seldom: Bell::new(),
            sent: Sent::new(),
            _counted: InGauge::enter(names::CONNECTIONS),
        }
    }

    /// Serves the client until it goes, breaks a rule, is no longer let in, or `shutdown` is cancelled.
    pub(super) async fn run(mut self: Box<Self>, shutdown: CancellationToken) {
        let welcome = greeting::welcome(&self.broadcaster);
        self.push(welcome);
        if self.pass.expires_at().is_some() {
            self.push_heartbeat();
        }
        let end = self.serve(&shutdown).await;
        // At once: whoever is gone is shown no more.
        self.memberships.leave_all();
        // Boxed: nobody needs room for it before.
        Box::pin(self.part(end)).await;
    }

    async fn part(self: Box<Self>, end: End) {
        let Self { socket, mut subscriptions, broadcaster, user, .. } = *self;
        // Whoever comes back is not kept out by what it still has here.
        drop(user);
        let limits = *broadcaster.limits();
        tokio::join!(finish(socket, end, &limits), subscriptions.leave(broadcaster.leaving()));
    }

    /// In whose line its initial syncs stand.
    pub(super) fn applicant(&self) -> Applicant {
        match self.pass.user() {
            Some(user) => Applicant::User(Arc::from(user)),
            None => Applicant::Connection(self.number),
        }
    }

    /// Queues a message. Bounded, because messages are made when there is room, or in answer to one of the client,
    /// from whom nothing is read otherwise.
    pub(super) fn push(&mut self, message: impl Into<ServerMessage>) {
        self.socket.get_mut().push(message.into().into());
        self.sent.frames.increment(1);
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending_bytes() < self.broadcaster.limits().batch_bytes_max
    }

    /// Whether what is said in channels may be sent, too.
    pub(super) fn has_channel_room(&self) -> bool {
        self.pending_bytes() < self.broadcaster.limits().channel_batch_bytes_max
    }

    /// Whether nothing is on its way to the client.
    pub(super) fn is_clear(&self) -> bool {
        self.socket.get_ref().is_clear()
    }

    /// Tells subscriptions that wait for their initial sync where they are in the queue, when that has changed.
    pub(super) fn tell_places(&mut self) {
        let told: Vec<_> = self.subscriptions.iter_mut().filter_map(|one| one.waiting()).collect();
        told.into_iter().for_each(|waiting| self.push(waiting));
    }

    /// Bytes that are on their way to the socket.
    pub(super) fn pending_bytes(&self) -> usize {
        self.socket.get_ref().pending_bytes()
    }

    /// Policies may have changed.
    pub(super) fn review(&mut self) {
        if self.entrance.authority.review(&mut self.pass) {
            self.rights_changed();
        }
    }

    fn rights_changed(&mut self) {
        let rights = self.pass.rights();
        self.subscriptions.iter_mut().for_each(|subscription| subscription.change_rights(rights));
        for channel in self.memberships.change_rights(self.pass.channels()) {
            self.expel(&channel);
        }
    }

    /// Another token of the client.
    pub(super) fn authenticate(&mut self, token: &str) -> Option<End> {
        if self.entrance.authority.is_open() {
            return None;
        }
        let was_known = self.pass.user().is_some();
        let farewell = match self.entrance.authority.renew(&mut self.pass, token) {
            Ok(changed) => {
                if changed {
                    self.rights_changed();
                }
                let counted = match was_known {
                    true => Ok(self.user.take()),
                    false => count_user(&self.entrance, &self.pass, self.broadcaster.limits()),
                };
                match counted {
                    Ok(user) => {
                        self.user = user;
                        self.ends_at = self.pass.left().and_then(|left| Instant::now().checked_add(left));
                        self.refused = 0;
                        self.push_heartbeat();
                        return None;
                    }
                    Err(farewell) => farewell,
                }
            }
            Err(NotRenewed::Rejected(rejection)) => Farewell::rejected(&rejection),
            Err(error @ NotRenewed::AnotherSubject) => {
                Farewell::unauthorized("another_subject", error.to_string(), None)
            }
        };
        Some(farewell.say(self.socket.get_mut()))
    }
}

pub(super) fn ended(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(_) => CloseCode::TooBig.into(),
        SocketError::Utf8(_) => End::Close(INVALID_TEXT, "a text message is not UTF-8"),
        SocketError::Protocol(_) => End::Close(PROTOCOL_ERROR, "a WebSocket frame breaks the rules"),
        _ => End::Gone,
    }
}
