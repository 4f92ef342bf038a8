//! What a connection does when it is woken.
//!
//! ```text
//!  frames ──► fill ──► write, once in a turn ─┐
//!  reading ──ring──► messages of the client   ├─► back to sleep, or to the end of the queue when there is more
//!  seldom ───ring──► heartbeat, shutdown, …   ┘
//! ```
//!
//! A connection that has written and has more goes behind the others: at rest every frame leaves at once, and under load
//! what comes until its next turn leaves in one write.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use walcast_protocol::{ClientList, CloseCode};

use super::connection::{Connection, End, ended};
use super::entrance::changed;
use super::greeting;
use super::stranger::Farewell;
use crate::metrics as names;
use crate::refusal::Refusal;
use crate::subscription::crashed;

/// What seldom happens.
enum Seldom {
    Shutdown,
    Heartbeat,
    Source,
    Policies,
    /// What [`Connection::due`] said is due.
    Alarm,
    Listed(Result<ClientList, Refusal>),
}

/// What a turn came to.
enum Turn {
    Seldom(Seldom),
    End(End),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) async fn serve(&mut self, shutdown: &CancellationToken) -> End {
        let heartbeat = self.broadcaster.limits().heartbeat;
        let mut ticks = interval_at(Instant::now() + heartbeat, heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut source = self.broadcaster.source();
        source.mark_unchanged();
        let mut policies = self.entrance.authority.changes();
        // They may have changed since the client was let in.
        self.review();
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut armed = None;
        loop {
            let turn = {
                // All are cancel-safe.
                let mut others = pin!(async {
                    tokio::select! {
                        () = shutdown.cancelled() => Seldom::Shutdown,
                        _ = ticks.tick() => Seldom::Heartbeat,
                        Ok(()) = source.changed() => Seldom::Source,
                        () = changed(policies.as_mut()) => Seldom::Policies,
                    }
                });
                self.seldom.ring();
                poll_fn(|cx| self.poll_turn(others.as_mut(), alarm.as_mut(), &mut armed, cx)).await
            };
            let end = match turn {
                Turn::End(end) => Some(end),
                Turn::Seldom(Seldom::Shutdown) => Some(CloseCode::Restart.into()),
                Turn::Seldom(Seldom::Heartbeat) => {
                    self.heartbeat();
                    self.ask_for_presence();
                    // The machine may have slept, which no timer counts.
                    self.over(Instant::now())
                }
                Turn::Seldom(Seldom::Alarm) => self.over(Instant::now()),
                Turn::Seldom(Seldom::Source) => {
                    self.status_due = true;
                    None
                }
                Turn::Seldom(Seldom::Policies) => {
                    self.review();
                    None
                }
                Turn::Seldom(Seldom::Listed(list)) => {
                    self.listed(list);
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn poll_turn(
        &mut self,
        others: Pin<&mut impl Future<Output = Seldom>>,
        mut alarm: Pin<&mut Sleep>,
        armed: &mut Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Turn> {
        if let Poll::Ready(end) = self.poll_traffic(cx) {
            return Poll::Ready(Turn::End(end));
        }
        let due = self.due();
        if due != *armed {
            if let Some(due) = due {
                alarm.as_mut().reset(due);
            }
            *armed = due;
            self.seldom.ring();
        }
        ready!(self.seldom.poll_rung(cx));
        let cx = &mut self.seldom.context();
        if let Poll::Ready(seldom) = others.poll(cx) {
            return Poll::Ready(Turn::Seldom(seldom));
        }
        if due.is_some() && alarm.poll(cx).is_ready() {
            // Once: it is over from now on.
            *armed = None;
            return Poll::Ready(Turn::Seldom(Seldom::Alarm));
        }
        if let Some(listing) = &mut self.listing
            && let Poll::Ready(list) = listing.poll_unpin(cx)
        {
            self.listing = None;
            let list = list.unwrap_or_else(|_| Err(crashed()));
            return Poll::Ready(Turn::Seldom(Seldom::Listed(list)));
        }
        Poll::Pending
    }

    /// Frames to the client and messages from it; ready when that is over.
    fn poll_traffic(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut has_written = false;
        loop {
            if let Poll::Ready(end) = self.poll_read(cx) {
                return Poll::Ready(end);
            }
            self.fill();
            if self.is_clear() {
                ready!(self.poll_ready(cx));
                continue;
            }
            if has_written {
                // Others first. What comes until its next turn goes with this.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = self.pending_bytes();
            match self.socket.get_mut().poll_send(cx) {
                Poll::Ready(Ok(())) => has_written = true,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                // There may be room now.
                Poll::Pending if self.pending_bytes() < before => {}
                // While the socket takes nothing, nothing is taken of the subscriptions.
                Poll::Pending => return Poll::Pending,
            }
            self.moved = true;
        }
    }

    /// Ready when there may be a frame of a subscription or a channel.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Both are asked, so that both wake.
        let subscriptions = self.subscriptions.poll_ready(cx);
        let memberships = self.memberships.poll_ready(cx);
        if subscriptions.is_ready() || memberships.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hears the client while there is room for answers; ready when that is over.
    fn poll_read(&mut self, cx: &Context<'_>) -> Poll<End> {
        loop {
            let was_paused = self.paused_until.take().is_some();
            if !self.has_room() {
                return Poll::Pending;
            }
            let (messages, subscribes) = (self.messages.free_at(), self.subscribes.free_at());
            let free_at = messages.max(subscribes);
            if free_at.is_some_and(|free_at| free_at > Instant::now()) {
                if !was_paused {
                    let by_messages = messages >= subscribes;
                    let limit =
                        if by_messages { "messages_per_second_max" } else { "subscribes_per_second_max" };
                    metrics::counter!(names::TOO_FAST, "limit" => limit, "effect" => "later").increment(1);
                }
                // Kept for [`Connection::due`]: were it asked again there, it could be over, and nobody would wake for it.
                self.paused_until = free_at;
                return Poll::Pending;
            }
            ready!(self.reading.poll_rung(cx));
            let message = ready!(self.socket.poll_next_unpin(&mut self.reading.context()));
            self.reading.ring();
            let end = match message {
                Some(Ok(message)) => self.hear(message),
                Some(Err(error)) => Some(ended(&error)),
                None => Some(End::Gone),
            };
            if let Some(end) = end {
                return Poll::Ready(end);
            }
        }
    }

    /// When something is due that nothing else wakes for.
    fn due(&mut self) -> Option<Instant> {
        if self.subscriptions.is_empty() && self.memberships.is_empty() {
            self.idle_since.get_or_insert_with(Instant::now);
        } else {
            self.idle_since = None;
        }
        let idle_until =
            self.idle_since.and_then(|since| since.checked_add(self.broadcaster.limits().idle_max));
        [self.ends_at, idle_until, self.paused_until].into_iter().flatten().min()
    }

    /// How the connection ends now, if it does.
    fn over(&mut self, now: Instant) -> Option<End> {
        if self.pass.left().is_some_and(|left| left.is_zero()) {
            let hint = "send another one with auth before heartbeat.token_expires_at";
            let farewell = Farewell::unauthorized("expired_connected", "the token has expired", Some(hint));
            return Some(farewell.say(self.socket.get_mut()));
        }
        // By its clock the token is good for longer than was thought.
        self.ends_at = self.pass.left().and_then(|left| now.checked_add(left));
        let idle_max = self.broadcaster.limits().idle_max;
        let is_idle = self.idle_since.is_some_and(|since| now.duration_since(since) >= idle_max);
        is_idle.then_some(End::Close(
            CloseCode::Restart.number(),
            "nothing was subscribed to or joined for idle_max",
        ))
    }

    /// Takes frames of the subscriptions in turn, until there is no room or they have none.
    fn fill(&mut self) {
        if self.status_due && self.has_room() {
            self.status_due = false;
            let is_open = self.entrance.authority.is_open();
            let status = greeting::status(&self.broadcaster.source().borrow(), is_open);
            self.push(status);
        }
        let before = self.pending_bytes();
        let mut frames = 0;
        while self.has_room()
            && let Some(frame) = self.subscriptions.next()
        {
            self.socket.get_mut().push(frame);
            frames += 1;
        }
        // Behind all that: what is said in channels keeps no transaction waiting.
        while self.has_channel_room()
            && let Some(frame) = self.memberships.next()
        {
            self.socket.get_mut().push(frame);
            frames += 1;
        }
        if frames > 0 {
            self.sent.frames.increment(frames);
            self.sent.bytes.increment((self.pending_bytes() - before) as u64);
        }
    }

    fn listed(&mut self, list: Result<ClientList, Refusal>) {
        match list {
            Ok(list) => self.push(list),
            Err(refusal) => self.push(refusal.into_message(None, false)),
        }
    }

    fn hear(&mut self, message: Message) -> Option<End> {
        self.heard_at = Instant::now();
        self.messages.take(self.heard_at);
        self.memberships.set_away(false);
        match message {
            Message::Text(text) => self.text(&text),
            Message::Binary(_) => self.binary(),
            // tungstenite has an answer, which `finish` takes from it.
            Message::Close(_) => Some(End::Gone),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }
}
