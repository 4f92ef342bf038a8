//! The loop from the slot to the feed.
//!
//! ```text
//!                 ┌──────────────── open: session, slot, system, START ◄────────────┐
//!                 ▼                                                                  │
//!   Starting ─► Streaming ── anything fails ─► Interrupted ── backoff with jitter ──┘
//!                 │                             (>= 5 s when the server is going down)
//!                 └── cancelled ─► history acknowledges ─► CopyDone
//! ```
//!
//! Three things never wait for one another: the status updates (a task of the stream), the acknowledgements of the
//! history (forwarded by a task of their own), and the feed, which may keep [`FeedWriter::push`] waiting for as long as
//! history stalls.

mod convert;
mod ending;
mod images;
mod keeper;
mod lookup;
mod open;
mod sent_again;
mod settings;
mod storage;
mod thread;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Barriers, FeedWriter, LogPace, SourceState};
use walcast_model::{Lsn, Op, Part, Timestamp};
use walcast_postgres::{ConnectionConfig, ServerError};

use crate::assemble::{Progress, Step, StorageFacts};
use crate::backoff::Backoff;
use crate::connection::{Feedback, StreamFrame};
use crate::error::Error;
use crate::identity::Origin;
use crate::metrics::{
    CHANGES_TOTAL, HEAD_BYTES, HOLE, LAG_SECONDS, MESSAGES_IGNORED_TOTAL, RECEIVED_BYTES_TOTAL, STREAMING,
    TRANSACTIONS_TOTAL,
};
use ending::KnownHole;
pub use images::{FoundImages, LastImages};
pub use keeper::{FeedEnd, Keeper, LastingHole, StoredTransactions, Tenure};
use open::{Completer, Link};
pub use settings::ReplicatorSettings;
use storage::UNSEEN_WAIT_MAX;

/// Bytes from last images after which the feed is given what there is, so that it can say that it is full.
const FILLED_BYTES_MAX: usize = 4 << 20;

/// Reads the slot into the feed, for ever.
#[derive(Debug)]
pub struct Replicator {
    config: ConnectionConfig,
    settings: ReplicatorSettings,
    writer: FeedWriter,
    barriers: Barriers,
    acknowledged: watch::Receiver<Lsn>,
    /// What the feed was read from last.
    origin: Origin,
    /// How far the server's WAL went when it was first connected to: from there on the feed has all that any daemon can
    /// have delivered before this one.
    known_to: Option<Lsn>,
    /// Whether this process has had the slot.
    has_held: bool,
    /// Whether what the slot sends again is still to be compared with what is stored.
    must_compare: bool,
    /// Everything before it was seen: the position between transactions that the feed has reached.
    reached: Lsn,
    /// The last message outside of transactions that was read.
    said_to: Lsn,
    /// Why the feed cannot go on, until it does.
    hole: Option<KnownHole>,
    /// Since when the source is not read; `None` at first, and while it is.
    away_since: Option<Instant>,
    /// When it is logged again that messages of the source found no room.
    lost_pace: LogPace,
}

/// Why the stream of one connection ended without a failure.
struct Cancelled;

impl Replicator {
    /// For the feed of `writer`. `acknowledged` has what the history says is stored; the last value counts, and the
    /// sender is to be dropped when nothing more will come.
    #[must_use]
    pub fn new(
        config: ConnectionConfig,
        settings: ReplicatorSettings,
        writer: FeedWriter,
        barriers: Barriers,
        acknowledged: watch::Receiver<Lsn>,
    ) -> Self {
        let (origin, must_compare) = (settings.origin.clone(), settings.must_compare);
        let (known_to, reached) = (None, writer.head().lsn());
        Self {
            config,
            settings,
            writer,
            barriers,
            acknowledged,
            origin,
            known_to,
            has_held: false,
            must_compare,
            reached,
            said_to: Lsn::ZERO,
            hole: None,
            away_since: None,
            lost_pace: LogPace::default(),
        }
    }

    /// Runs until cancelled; what fails is a [`SourceState`] and tried again. Cancelled, it takes nothing more, waits
    /// for the history to acknowledge what it has (or for its sender to go away), and ends the stream in good order.
    ///
    /// It works on a thread of its own (see `thread`). Dropping the future ends the connection and the thread within
    /// moments; the feed's writer is then gone.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.settings.connection.has_own_thread = true;
        thread::run("walcast slot", move || self.follow(cancel)).await;
    }

    async fn follow(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let head = self.writer.head();
            let Err(error) = self.stream(&cancel).await else { return };
            metrics::gauge!(STREAMING).set(0.0);
            // Before history is asked about it, which may not answer.
            self.say_interrupted(&error);
            let error = tokio::select! {
                () = cancel.cancelled() => return,
                error = self.ended(error) => error,
            };
            if self.writer.head() > head {
                backoff.reset();
            }
            let wait = backoff.after(error.is_shutting_down());
            self.interrupted(&error, wait);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn stream(&mut self, cancel: &CancellationToken) -> Result<Cancelled, Error> {
        let mut link = tokio::select! {
            () = cancel.cancelled() => return Ok(Cancelled),
            link = self.open() => link?,
        };
        // Acknowledged is only what is known to be there: the slot is to be able to send the rest.
        let feedback = link.stream.feedback();
        let mut _forwarding =
            link.compared.is_none().then(|| forward(self.acknowledged.clone(), feedback.clone()));
        match &self.hole {
            None => self.streams(),
            // The slot is there again. On an idle source nothing may come for long.
            Some(hole) if hole.may_pass() => self.say_streaming(),
            // A server streams before it says that something is missing.
            Some(_) => {}
        }
        let closed = link.session.closed();
        tokio::pin!(closed);
        let mut frames = Vec::new();
        let mut types = tokio::time::interval(lookup::TYPES_INTERVAL);
        types.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.finish(link).await;
                    return Ok(Cancelled);
                }
                // The session is the canary: it hears first that the server is going down.
                fate = &mut closed => return Err(end_of(fate.as_deref())),
                // Cancel-safe: frames that were taken are in `frames`.
                next = link.stream.next(&mut frames) => {
                    next.map_err(|error| ended_by(error, &self.settings.publications))?;
                }
                // Last: who changes such tables reads their types anyway.
                _ = types.tick() => {
                    if let Some(images) = link.assembler.images_mut() {
                        images.mark_stored(self.writer.stored());
                    }
                    link.look_at_types().await?;
                    continue;
                }
            }
            // In several steps where last images make much of little.
            while !frames.is_empty() {
                if let Some(images) = link.assembler.images_mut() {
                    images.mark_stored(self.writer.stored());
                }
                let processed = {
                    let mut process = std::pin::pin!(link.process(&mut frames, &self.settings.publications));
                    tokio::select! {
                        biased;
                        progress = &mut process => Some(progress?),
                        // It may wait for the history, for as long as that is away. What was read comes again from the slot.
                        () = cancel.cancelled() => None,
                        fate = &mut closed => return Err(end_of(fate.as_deref())),
                    }
                };
                let Some(progress) = processed else {
                    self.finish(link).await;
                    return Ok(Cancelled);
                };
                count(&progress);
                self.said_to = link.assembler.said_to();
                if self.compare(&mut link, &progress).await? {
                    _forwarding = Some(forward(self.acknowledged.clone(), feedback.clone()));
                }
                let taken = {
                    let mut take = std::pin::pin!(self.take(progress));
                    tokio::select! {
                        biased;
                        () = &mut take => true,
                        // The writer is not used again: what it did not take comes again from the slot.
                        () = cancel.cancelled() => false,
                        fate = &mut closed => {
                            // A server that goes down waits for its consumer, which may never be able to acknowledge.
                            drop(link);
                            tokio::select! {
                                () = &mut take => return Err(end_of(fate.as_deref())),
                                () = cancel.cancelled() => return Ok(Cancelled),
                            }
                        }
                    }
                };
                if !taken {
                    self.finish(link).await;
                    return Ok(Cancelled);
                }
            }
        }
    }

    fn say_streaming(&self) {
        self.writer.set_source(SourceState::Streaming);
        metrics::gauge!(STREAMING).set(1.0);
    }

    /// The feed goes on.
    fn streams(&mut self) {
        self.say_streaming();
        self.hole = None;
        metrics::gauge!(HOLE).set(0.0);
        let again = self.away_since.take().map(|since| format!(" again, after {:.1?}", since.elapsed()));
        let (slot, from, again) = (&self.settings.slot, self.writer.head(), again.unwrap_or_default());
        tracing::info!(slot, %from, "the slot streams{again}");
    }

    /// Gives the feed what was read, waiting while it is full. To be carried through to its end: the next stream begins
    /// at the feed's head, and does not bring again the barriers that were read before it.
    async fn take(&mut self, progress: Progress) {
        let Progress { parts, barriers, messages, reached, .. } = progress;
        if let Some(writer) = &self.settings.messages {
            // Before anything that may wait.
            let lost =
                messages.into_iter().map(|message| writer.push(message)).filter(|taken| !taken).count();
            if lost > 0 {
                metrics::counter!(MESSAGES_IGNORED_TOTAL, "reason" => "no_room").increment(lost as u64);
                if let Some(unlogged) = self.lost_pace.due(Instant::now()) {
                    let what = "the source says more to channels than can be told; some of it is gone";
                    tracing::warn!(lost, unlogged, "{what}");
                }
            }
        }
        if !parts.is_empty() {
            self.writer.push(parts).await;
        }
        if let Some(reached) = reached {
            self.writer.advance(reached);
            if self.hole.as_ref().is_some_and(KnownHole::may_pass) && reached > self.reached {
                self.streams();
            }
            self.reached = self.reached.max(reached);
            metrics::gauge!(HEAD_BYTES).set(self.reached.get() as f64);
        }
        // Only now is the head where the barriers are.
        for (id, position) in barriers {
            self.barriers.resolve(&id, position);
        }
    }

    /// Waits for the history, and says goodbye.
    async fn finish(&mut self, link: Link) {
        let feedback = link.stream.feedback();
        if link.compared.is_some() {
            return;
        }
        let reached = self.reached;
        let stored = async {
            // The sender goes away when the history is done.
            let _ = self.acknowledged.wait_for(|stored| *stored >= reached).await;
        };
        let gone = link.session.closed();
        tokio::select! {
            () = stored => {}
            _ = gone => return,
            () = tokio::time::sleep(self.settings.finish_timeout) => {
                tracing::warn!(%reached, "history did not acknowledge in time; the slot will send the rest again");
            }
        }
        feedback.acknowledge(*self.acknowledged.borrow());
        match tokio::time::timeout(self.settings.finish_timeout, link.stream.finish()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the stream did not end in good order"),
            // In the middle of a huge transaction the server sends all of it first.
            Err(_) => tracing::debug!("the stream did not end in time; the connection is dropped"),
        }
    }
}

impl Link {
    /// Feeds frames to the assembler and takes them from the list: all of them, unless last images have made much of few.
    async fn process(
        &mut self,
        frames: &mut Vec<StreamFrame>,
        publications: &[String],
    ) -> Result<Progress, Error> {
        let (mut bytes, mut filled) = (0, 0);
        let mut rest = std::mem::take(frames).into_iter();
        while let Some(frame) = rest.next() {
            match frame {
                StreamFrame::XLogData { start, data, .. } => {
                    bytes += data.len() as u64;
                    let message = self.decoder.decode(data)?;
                    self.assembler.at(start);
                    let mut step = self.assembler.message(message)?;
                    while !matches!(step, Step::Next) {
                        step = Box::pin(self.answer(step, rest.as_slice())).await?;
                    }
                }
                StreamFrame::Keepalive { wal_end, .. } => self.assembler.keepalive(wal_end),
                StreamFrame::Notice(notice) => check_notice(&notice, publications)?,
            }
            filled += self.assembler.take_filled();
            if filled >= FILLED_BYTES_MAX {
                break;
            }
        }
        *frames = rest.collect();
        if let Some(images) = self.assembler.images_mut() {
            images.forget_found();
        }
        self.assembler.conversions_mut().clear();
        metrics::counter!(RECEIVED_BYTES_TOTAL).increment(bytes);
        Ok(self.assembler.take())
    }

    async fn look_at_types(&mut self) -> Result<(), Error> {
        if let Some(completer) = &mut self.completer {
            completer.storage.look(&self.session).await?;
        }
        let oids = self.assembler.alterable_types();
        lookup::look_at_types(&self.session, &mut self.types, &oids, self.assembler.types_mut()).await
    }

    /// Asks the server what the assembler needs to know; `ahead` are the frames that come next.
    async fn answer(&mut self, step: Step, ahead: &[StreamFrame]) -> Result<Step, Error> {
        let Self { session, types, converter, completer, decoder, assembler, .. } = self;
        match step {
            Step::Next => Ok(Step::Next),
            Step::NeedsCatalog(question) => {
                let mut answer = lookup::answer(session, types, &question, assembler.types_mut()).await?;
                if let Some(Completer { store, storage }) = completer.as_mut().filter(|_| question.storage) {
                    let (relation, at) = (question.relation, assembler.history_at());
                    answer.storage = storage
                        .read(session, store.as_ref(), relation, question.transaction, UNSEEN_WAIT_MAX, at)
                        .await?;
                }
                assembler.answer(&answer);
                Ok(Step::Next)
            }
            Step::NeedsStorage(relation) => {
                let facts = match completer {
                    // Waiting at each transaction would be waiting all the time.
                    Some(Completer { store, storage }) => {
                        let (at, wait_max) = (assembler.history_at(), Duration::ZERO);
                        storage.read(session, store.as_ref(), relation, None, wait_max, at).await?
                    }
                    None => StorageFacts::None,
                };
                Ok(assembler.storage_read(relation, facts)?)
            }
            Step::NeedsTypes(question) => {
                let position = lookup::refresh(session, types, &question, assembler.types_mut()).await?;
                Ok(assembler.types_read(position)?)
            }
            Step::NeedsConversions(mut wanted) => {
                convert::look_ahead(decoder, assembler, ahead, &mut wanted)?;
                converter.convert(session, wanted, assembler.conversions_mut()).await?;
                Ok(assembler.resume()?)
            }
            Step::NeedsImages(mut wanted) => {
                if let Some(Completer { store, .. }) = completer {
                    images::look_ahead(decoder, assembler, ahead, &mut wanted)?;
                    images::find(store.as_ref(), assembler, wanted).await;
                }
                Ok(assembler.resume()?)
            }
        }
    }
}

/// PG 18 goes on without a publication that it does not find, and says so in a warning that names it ("skipped loading
/// publication", SQLSTATE 55000, reference 1.7). What it left out is gone, so nothing after it may enter the feed. The
/// text may be translated; the other warning of that state is about standbys that are waited for (17+).
fn check_notice(notice: &ServerError, publications: &[String]) -> Result<(), Error> {
    let message = &notice.message;
    let may_be_it = notice.severity == "WARNING"
        && notice.sqlstate == "55000"
        && !message.contains("synchronized_standby_slots");
    if let Some(publication) = named(message, publications).filter(|_| may_be_it) {
        return Err(Error::Unpublished { publication, message: message.clone() });
    }
    tracing::info!(sqlstate = notice.sqlstate, "the walsender says: {}", notice.message);
    Ok(())
}

/// Before 18 a server cannot go past changes that were written while a publication was missing, also when it is there
/// again: it ends the stream with "publication does not exist" (SQLSTATE 42704, reference 1.7), each time at the same
/// place, as it looks the publication up in the catalog of then.
fn ended_by(error: walcast_postgres::Error, publications: &[String]) -> Error {
    let server = error.server_error().filter(|server| server.sqlstate == "42704");
    let found = server.and_then(|server| Some((named(&server.message, publications)?, &server.message)));
    match found {
        Some((publication, message)) => Error::Unpublished { publication, message: message.clone() },
        None => error.into(),
    }
}

/// The publication that a message names, of those that are read. One may have a name that begins with another's.
fn named(message: &str, publications: &[String]) -> Option<String> {
    let named = publications.iter().filter(|name| message.contains(name.as_str()));
    named.max_by_key(|name| name.len()).cloned()
}

/// Passes what history has acknowledged on to the server, whatever the loop is waiting for.
fn forward(
    mut acknowledged: watch::Receiver<Lsn>,
    feedback: Feedback,
) -> tokio_util::task::AbortOnDropHandle<()> {
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            feedback.acknowledge(*acknowledged.borrow_and_update());
            if acknowledged.changed().await.is_err() {
                return;
            }
        }
    }))
}

/// Why the session ended, as an error of its own.
fn end_of(fate: Option<&walcast_postgres::Error>) -> Error {
    let server = fate.and_then(walcast_postgres::Error::server_error);
    Error::Postgres(server.map_or(walcast_postgres::Error::Closed, |error| error.clone().into()))
}

fn count(progress: &Progress) {
    if progress.transactions > 0 {
        metrics::counter!(TRANSACTIONS_TOTAL).increment(progress.transactions);
    }
    let mut ops = [(Op::Insert, 0), (Op::Update, 0), (Op::Delete, 0), (Op::Truncate, 0)];
    for change in progress.parts.iter().flat_map(Part::changes) {
        for (op, count) in &mut ops {
            *count += u64::from(*op == change.op);
        }
    }
    for (op, count) in ops {
        if count > 0 {
            metrics::counter!(CHANGES_TOTAL, "kind" => op.as_str()).increment(count);
        }
    }
    if let Some(part) = progress.parts.last() {
        metrics::gauge!(LAG_SECONDS).set(Timestamp::now().seconds_since(part.transaction().committed_at));
    }
}
