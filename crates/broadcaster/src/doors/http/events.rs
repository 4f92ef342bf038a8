//! The messages of a subscription as server-sent events (the HTML standard, section 9.2).
//!
//! ```text
//!  id: f_7Jq2@16/B374D848        where a browser goes on when it comes again
//!  event: transaction
//!  data: {"type":"transaction",…}
//! ```
//!
//! A task of its own drives the subscription and hands over one batch at a time, when the socket took the last one: so a
//! client that does not read costs no more than that, and what was read for it is let go all the same. For a client that takes
//! it so, it is compressed as the socket takes it ([`Packing`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use walcast_model::{Cursor, Timestamp};
use walcast_protocol::{ErrorCode, Heartbeat, ServerMessage};

use super::answer::{self, Refused};
use super::body::takes_gzip;
use super::lone::{Lone, Output};
use super::packing::{PIECE_BYTES_MAX, Packing};
use super::query::Form;
use super::visit::{Visit, reached};
use crate::doors::Door;
use crate::doors::entrance::changed;
use crate::doors::greeting;
use crate::encode::{Frame, Says};
use crate::metrics::{self as names, InGauge, Sent};
use crate::refusal::Refusal;
use crate::subscription::Subscription;

/// How long the head of a stream that has begun is held back for its first row, or for why there will be none: so that who
/// has nothing to come yet learns soon that it is connected.
const HEAD_HELD_BACK_MAX: Duration = Duration::from_secs(1);

/// Texts below it are copied into one piece.
const COPY_BYTES_MAX: usize = 2048;

/// Pieces of text that are written one after the other.
#[derive(Debug, Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, text: &[u8]) {
        self.small.extend_from_slice(text);
        self.bytes += text.len();
    }

    fn share(&mut self, text: Bytes) {
        if text.len() < COPY_BYTES_MAX {
            return self.push(&text);
        }
        self.bytes += text.len();
        self.seal();
        self.pieces.push_back(text);
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    fn take(&mut self) -> VecDeque<Bytes> {
        self.seal();
        (self.bytes, self.small) = (0, BytesMut::new());
        std::mem::take(&mut self.pieces)
    }
}

/// What the socket is given, one piece after the other.
struct Pieces<H> {
    receiver: mpsc::Receiver<VecDeque<Bytes>>,
    waiting: VecDeque<Bytes>,
    packing: Option<Packing>,
    _held: H,
}

impl<H> Pieces<H> {
    /// The next piece; `None` after the last. Cancel-safe.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut piece = loop {
            match self.waiting.pop_front() {
                Some(piece) => break piece,
                None => match self.receiver.recv().await {
                    Some(batch) => self.waiting = batch,
                    None => return self.packing.take().map(|packing| Ok(packing.end())),
                },
            }
        };
        let Some(packing) = &mut self.packing else { return Some(Ok(piece)) };
        if piece.len() > PIECE_BYTES_MAX {
            self.waiting.push_front(piece.split_off(PIECE_BYTES_MAX));
        }
        Some(packing.pack(&piece))
    }
}

/// One client that takes events.
struct Events {
    door: Door,
    visit: Visit,
    subscription: Lone,
    /// The feed that its cursors are of, as text.
    feed: Arc<str>,
    batch: Batch,
    /// The subscription has ended, and what is in the batch is the last of it.
    is_over: bool,
    status_due: bool,
    /// Something was taken since the last heartbeat.
    moved: bool,
    sent: Sent,
    _counted: InGauge,
}

/// Answers with a stream of events, once it is known that there will be one: a browser does not come again after an answer
/// that says no, and shows it.
pub(super) async fn serve(
    door: &Door,
    visit: Visit,
    subscription: Subscription,
    asked: &HeaderMap,
) -> Result<Response, Refused> {
    let mut events = Events {
        door: door.clone(),
        visit,
        subscription: subscription.into(),
        feed: Arc::from(door.broadcaster.feed_id().to_string()),
        batch: Batch::default(),
        is_over: false,
        status_due: true,
        moved: true,
        sent: Sent::new(),
        _counted: InGauge::enter(names::EVENT_STREAMS),
    };
    // So that those whom a restart cut off do not come again together.
    events.batch.push(format!("retry: {}\n\n", rand::random_range(1000..4000)).as_bytes());
    events.message(greeting::welcome(&door.broadcaster));
    events.begin().await?;
    // Whatever of its last batch waits to be sent, it is there until that is sent, or cut off soon after it may not be.
    let presence = Arc::clone(&events.visit.presence);
    let drain_max = door.broadcaster.limits().drain_max;
    events.visit.patience.for_stream(events.visit.ends_at().map(|ends_at| ends_at + drain_max));
    let (sender, receiver) = mpsc::channel(1);
    let task = AbortOnDropHandle::new(door.tasks.spawn(events.run(sender)));
    let packing = takes_gzip(asked).then(Packing::default);
    let is_packed = packing.is_some();
    // The task ends with the body, which is dropped when the client has gone.
    let body = Pieces { receiver, waiting: VecDeque::new(), packing, _held: (task, presence) };
    let pieces = stream::unfold(body, async |mut body| Some((body.next().await?, body)));
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // nginx would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Events {
    /// Waits until the subscription is accepted and has begun, or is refused, or that takes long: of tables and cursors some
    /// is known only when rows are asked for.
    async fn begin(&mut self) -> Result<(), Refused> {
        let limits = *self.door.broadcaster.limits();
        let latest = Instant::now() + limits.poll_answer_max;
        let (mut late, mut is_accepted) = (latest, false);
        loop {
            match self.subscription.next() {
                Output::Frame(frame) => match &frame.says {
                    // It passes: a browser that has its stream comes again by itself.
                    Says::Error(error)
                        if is_accepted && matches!(error.code, ErrorCode::NotReady | ErrorCode::Internal) =>
                    {
                        self.message(answer::fitted(error, Form::Events));
                        return Ok(());
                    }
                    Says::Error(error) => return Err(answer::over(error, Form::Events)),
                    Says::Subscribed(_) => {
                        (late, is_accepted) = (latest.min(Instant::now() + HEAD_HELD_BACK_MAX), true);
                        self.push(frame);
                    }
                    // Its place in a queue, which may be told before and after.
                    Says::Other("waiting") => self.push(frame),
                    _ => {
                        self.push(frame);
                        if is_accepted {
                            return Ok(());
                        }
                    }
                },
                Output::Over => return Err(answer::refusal(Refusal::bad("the subscription is over"))),
                Output::Nothing => tokio::select! {
                    // All are cancel-safe.
                    () = self.subscription.ready() => {}
                    // Once it is refused, where it could go on is looked for.
                    () = sleep_until(late) => match late < latest && self.subscription.session().is_refused() {
                        true => late = latest,
                        false => return Ok(()),
                    },
                    () = self.door.shutdown.cancelled() => return Ok(()),
                },
            }
        }
    }

    /// Hands over batches until the client has gone, the subscription is over, or the client is no longer let in.
    async fn run(mut self, sender: mpsc::Sender<VecDeque<Bytes>>) {
        let limits = *self.door.broadcaster.limits();
        let mut ticks = interval_at(Instant::now() + limits.heartbeat, limits.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut source = self.door.broadcaster.source();
        source.mark_unchanged();
        let shutdown = self.door.shutdown.clone();
        let mut ends_at = self.visit.ends_at();
        loop {
            self.fill();
            if self.is_over {
                // Why it is over is the last thing that is said.
                if let Ok(Ok(permit)) = timeout(limits.drain_max, sender.reserve()).await {
                    permit.send(self.batch.take());
                }
                return;
            }
            let has_room = self.batch.bytes < limits.batch_bytes_max;
            tokio::select! {
                // All are cancel-safe.
                () = shutdown.cancelled() => return,
                permit = sender.reserve(), if self.batch.bytes > 0 => match permit {
                    Ok(permit) => {
                        self.moved = true;
                        permit.send(self.batch.take());
                    }
                    Err(_) => return,
                },
                () = self.subscription.ready(), if has_room => {}
                _ = ticks.tick() => {
                    let is_clear = self.batch.bytes == 0 && sender.capacity() > 0;
                    self.heartbeat(is_clear);
                }
                Ok(()) = source.changed() => self.status_due = true,
                () = changed(self.visit.policies.as_mut()) => {
                    if self.door.entrance.authority.review(&mut self.visit.pass) {
                        self.subscription.change_rights(self.visit.pass.rights());
                    }
                }
                () = reached(ends_at) => match self.visit.expired() {
                    Some(farewell) => {
                        self.message(farewell.into_error());
                        self.is_over = true;
                    }
                    // By its clock it is good for longer than was thought.
                    None => ends_at = self.visit.ends_at(),
                },
                () = sender.closed() => return,
            }
        }
    }

    /// Takes what the subscription has, until there is no room.
    fn fill(&mut self) {
        let batch_bytes_max = self.door.broadcaster.limits().batch_bytes_max;
        if self.status_due && self.batch.bytes < batch_bytes_max {
            self.status_due = false;
            let is_open = self.door.entrance.authority.is_open();
            let status = greeting::status(&self.door.broadcaster.source().borrow(), is_open);
            self.message(status);
        }
        while !self.is_over && self.batch.bytes < batch_bytes_max {
            match self.subscription.next() {
                Output::Frame(frame) => match &frame.says {
                    Says::Error(error) => self.message(answer::fitted(error, Form::Events)),
                    _ => self.push(frame),
                },
                Output::Nothing => return,
                Output::Over => self.is_over = true,
            }
        }
    }

    fn heartbeat(&mut self, is_clear: bool) {
        let took_something = std::mem::replace(&mut self.moved, is_clear);
        if !is_clear {
            if !took_something {
                self.subscription.let_go();
            }
            return;
        }
        if let Some(waiting) = self.subscription.waiting() {
            self.message(waiting);
        }
        let session = self.subscription.session();
        let told = session.last_cursor();
        let cursor = session.position().filter(|cursor| *cursor >= told);
        if let Some(cursor) = cursor {
            session.cursor_told(cursor);
        }
        let token_expires_at = self.visit.pass.expires_at().map(Timestamp::from);
        self.message(Heartbeat { cursor, time: Timestamp::now(), token_expires_at });
    }

    fn message(&mut self, message: impl Into<ServerMessage>) {
        self.push(message.into().into());
    }

    /// Queues a message, which has no line breaks.
    fn push(&mut self, frame: Frame) {
        let before = self.batch.bytes;
        self.batch.push(b"event: ");
        self.batch.push(frame.says.type_name().as_bytes());
        match frame.says.cursor() {
            None => {}
            // The same in every feed.
            Some(Cursor::ZERO) => self.batch.push(b"\nid: 0/0"),
            Some(cursor) => self.batch.push(format!("\nid: {}@{cursor}", self.feed).as_bytes()),
        }
        self.batch.push(b"\ndata: ");
        self.batch.share(frame.head);
        self.batch.share(frame.tail);
        self.batch.push(b"\n\n");
        self.sent.frames.increment(1);
        self.sent.bytes.increment((self.batch.bytes - before) as u64);
    }
}
