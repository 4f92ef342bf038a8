//! One subscription as a state machine: from where it is in the feed to its next frame.
//!
//! ```text
//!  Gate ──open──► Acked? ─► Tables ──► Binding ──► Place ─────────► Streaming ◄──────┐ ring, else a page of history
//!                   filters │   a cursor    cursor valid     │  └──────────┘
//!                     fit   │ 0/0                            │ own barrier passed: caught_up, once
//!                           └► Syncing ──► Relisting ──► Seam ┘ snapshot_complete
//!                              ▲            │
//!                              └────────────┘ the tables are others meanwhile
//!
//!  anywhere ──the cursor cannot be served──► Reaching ──it is known which could──► Over
//! ```
//!
//! Nothing here waits, connects or writes: [`Session::next`] gives the next frame, or says what it waits for, or asks
//! a question whose [`Answer`] is handed in later. The one who drives it takes the next frame only when the socket
//! took the last one, so a session holds nothing but a page of what it is reading.

mod binding;
mod compacted;
mod definitions;
mod opening;
mod reaching;
mod steps;
mod streaming;
mod syncing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use walcast_feed::Feed;
use walcast_model::{Cursor, FeedId, Relation, RelationName};
use walcast_policy::Rights;
use walcast_protocol::{
    Catchup, CaughtUp, ErrorCode, Mode, ServerMessage, StartAt, Subscribed, SubscriptionId, Waiting,
};

use crate::encode::{self, Frame, Heads};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::lineage::Lineage;
use crate::refusal::Refusal;
use crate::request::{Asked, Request};
use crate::router::{Router, ShapeHandle};
use crate::scans::{Scanning, Scans};
use crate::turns::Applicant;
use crate::wanted::{Entries, ShapeKey};
use binding::{Binding, Given};
pub(crate) use compacted::Folded;
use definitions::Definitions;
use reaching::Reaching;
pub(crate) use steps::{Answer, Question, Step, Wait};
use streaming::Stream;
use syncing::Sync;

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) feed_id: FeedId,
    pub(crate) lineage: Lineage,
    pub(crate) feed: Feed,
    pub(crate) gate: Gate,
    pub(crate) router: Arc<Router>,
    pub(crate) scans: Scans,
    pub(crate) limits: Limits,
}

/// Where a session is.
#[derive(Debug)]
enum Phase {
    /// Entered when it is made; left when the gate is open.
    Gate,
    /// Entered from `Gate` by those who start where they have acknowledged; left when that is known.
    Acked { asked: bool },
    /// Entered from `Gate` or `Acked`; left when the published tables are known, or cannot be known.
    Tables { asked: bool },
    /// Entered when tables have filters; left when these fit the tables, or cannot be tried.
    Binding(Binding),
    /// Entered with a cursor to resume at; left when it is known to be one that can be served.
    Place { cursor: Cursor, asked: bool },
    /// Entered when an initial sync is wanted, and again when one has to start over; left when its rows are sent.
    Syncing(Sync),
    /// Entered when it may send what the feed and history have; left never.
    Streaming(Stream),
    /// Entered when it is refused for its cursor; left when it is known at which one it would not be.
    Reaching(Reaching),
    /// Entered when it was refused; left never.
    Over,
}

/// One subscription of one client.
#[derive(Debug)]
pub(crate) struct Session {
    id: SubscriptionId,
    world: Arc<World>,
    /// No policies are in force for the client.
    may_know_all: bool,
    /// What the client asks for, whatever it may have of it.
    asked: Entries<Asked>,
    shape: ShapeHandle,
    /// What its client's filters make of every change.
    scanning: Scanning,
    start: StartAt,
    catchup: Catchup,
    /// Transactions that come from here are not sent back.
    origin: Option<Arc<str>>,
    /// But for those before this.
    echo_from: Cursor,
    /// The feed that its cursor is of, as far as the client said so.
    feed: Option<FeedId>,
    phase: Phase,
    heads: Heads,
    /// Written before anything else happens; a handful at most.
    frames: VecDeque<Frame>,
    told: Definitions,
    /// Of which tables of its patterns its client can have rows from before its cursor.
    given: Given,
    waiting_told: bool,
    /// Where its own barrier came back: everything committed before it was asked for is before that.
    barrier: Option<Cursor>,
    /// The newest cursor that the client was told.
    last_cursor: Cursor,
    /// The first cursor that the client can have stored since it last started.
    first_cursor: Cursor,
}

impl Session {
    /// A session that has not said anything yet.
    ///
    /// # Errors
    /// When the cursor is from another feed, and when the client may not have what it asks for.
    pub(crate) fn new(
        request: Request,
        rights: &Rights,
        applicant: Applicant,
        world: Arc<World>,
    ) -> Result<Self, Refusal> {
        let Request { id, tables, start, feed, client_id: _, origin, catchup } = request;
        let shape = ShapeKey::resolve(&tables, rights)?;
        // `latest` and `0/0` mean the same in every feed.
        if let (Some(feed), StartAt::At(cursor)) = (&feed, start) {
            world.lineage.check(feed, cursor, &world.feed_id)?;
        }
        let shape = world.router.shape(shape);
        Ok(Self {
            heads: Heads::new(&id),
            id,
            scanning: world.scans.clone().by(applicant),
            world,
            asked: tables.into(),
            may_know_all: rights.is_everything(),
            shape,
            start,
            catchup,
            origin,
            echo_from: Cursor::ZERO,
            feed,
            phase: Phase::Gate,
            // A definition and a change: seldom are there more.
            frames: VecDeque::with_capacity(2),
            told: Definitions::default(),
            given: Given::default(),
            waiting_told: false,
            barrier: None,
            last_cursor: Cursor::ZERO,
            first_cursor: Cursor::ZERO,
        })
    }

    pub(crate) const fn id(&self) -> &SubscriptionId {
        &self.id
    }

    /// In whose line its initial syncs stand.
    pub(crate) const fn applicant(&self) -> &Applicant {
        self.scanning.applicant()
    }

    pub(crate) const fn shape(&self) -> &ShapeHandle {
        &self.shape
    }

    /// The client has these rights from now on. Whether that makes the session another one: it then starts over with an
    /// initial sync, or is over. What it had asked is not wanted any more.
    pub(crate) fn change_rights(&mut self, rights: &Rights) -> bool {
        if matches!(self.phase, Phase::Over) {
            return false;
        }
        self.may_know_all = rights.is_everything();
        let key = match ShapeKey::resolve(&BTreeMap::from(&self.asked), rights) {
            Ok(key) if key == **self.shape.key() => return false,
            Ok(key) => key,
            Err(refusal) => {
                self.frames.clear();
                self.refuse(refusal);
                return true;
            }
        };
        tracing::debug!(id = %self.id, "a subscription starts over: its client has other rights");
        // What was made under the old rights and not taken yet is not given out.
        self.frames.clear();
        self.told.clear();
        self.given = Given::default();
        self.shape = self.world.router.shape(key);
        self.scanning.clear();
        (self.start, self.feed) = (StartAt::Snapshot, None);
        self.phase = Phase::Gate;
        true
    }

    /// The next step. Cheap to ask again.
    pub(crate) fn next(&mut self) -> Step {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Step::Frame(frame);
            }
            let wait = match self.phase {
                Phase::Gate => self.pass_gate(),
                Phase::Acked { .. } => self.ask_acked(),
                Phase::Tables { .. } => self.ask_tables(),
                Phase::Binding(_) => self.bind_tables(),
                Phase::Place { .. } => self.place(),
                Phase::Syncing(_) => self.sync(),
                Phase::Streaming(_) => self.stream(),
                Phase::Reaching(_) => self.reach(),
                Phase::Over => return Step::Over,
            };
            match wait {
                Turn::Again => {}
                Turn::Ask(question) => return Step::Ask(question),
                Turn::Sync(tables) => return Step::Sync(tables),
                Turn::Wait(wait) => return Step::Wait(wait),
            }
        }
    }

    /// It is refused for its cursor, and what is said of that follows.
    pub(crate) const fn is_refused(&self) -> bool {
        matches!(self.phase, Phase::Reaching(_))
    }

    /// Hands in the answer to its question.
    pub(crate) fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Acked(Ok(acked)) => self.acked(acked),
            Answer::Tables(tables) => self.tables(tables),
            Answer::Oldest(Ok(oldest)) => self.placed(Some(oldest)),
            Answer::Page(Ok(page)) => self.page(page),
            Answer::Latest(Ok(folded)) => self.latest(folded),
            Answer::FirstInvisible(Ok(first)) => self.seam(first),
            Answer::Sync(Ok(event)) => self.event(event),
            Answer::Acked(Err(refusal))
            | Answer::Oldest(Err(refusal))
            | Answer::Page(Err(refusal))
            | Answer::Latest(Err(refusal))
            | Answer::FirstInvisible(Err(refusal)) => self.refuse(refusal),
            Answer::Sync(Err(refusal)) => self.sync_refused(refusal),
            Answer::Schemas(schemas) => self.tables_defined(schemas),
            Answer::Schema(schema) => self.relation_defined(schema),
            Answer::Reach(reached) => self.reached(reached),
        }
    }

    /// Says that its barrier came back: the feed's head has reached `position`.
    pub(crate) const fn barrier(&mut self, position: Cursor) {
        self.barrier = Some(position);
    }

    /// Everything before it was given out, and it is not before any cursor that the client was told. `None` while
    /// there is nothing that the client may store. Jumps over what does not concern the shape.
    pub(crate) fn position(&mut self) -> Option<Cursor> {
        match &self.phase {
            Phase::Streaming(stream) if stream.is_safe_to_store() => {
                self.skip_quiet();
                let Phase::Streaming(stream) = &self.phase else { return None };
                // Frames that are waiting to be taken are not given out yet.
                self.frames.is_empty().then_some(stream.cursor())
            }
            _ => None,
        }
    }

    /// A name for what policies give its client of what it asks for; `None` where none are in force.
    pub(crate) fn rights(&self) -> Option<String> {
        (!self.may_know_all).then(|| self.shape.key().rights())
    }

    /// Which cursors its client can have stored by now: from the first to the last. `None` while there is none.
    pub(crate) fn storable(&self) -> Option<(Cursor, Cursor)> {
        match &self.phase {
            Phase::Streaming(stream) if stream.is_synced() => Some((self.first_cursor, self.last_cursor)),
            _ => None,
        }
    }

    /// The newest cursor that the client was told.
    pub(crate) const fn last_cursor(&self) -> Cursor {
        self.last_cursor
    }

    /// Notes that the client was told a cursor in a message about the whole connection.
    pub(crate) fn cursor_told(&mut self, cursor: Cursor) {
        self.last_cursor = self.last_cursor.max(cursor);
    }

    /// Lets go of what was read and not yet encoded; it is read again when the client goes on. Whether it is a question
    /// of which the answer, a page, is not wanted any more.
    pub(crate) fn let_go(&mut self) -> bool {
        match &mut self.phase {
            Phase::Streaming(stream) => stream.let_go(),
            _ => false,
        }
    }

    fn send(&mut self, message: impl Into<ServerMessage>) {
        self.frames.push_back(message.into().into());
    }

    /// It ends; where that is because of its cursor, as soon as it is known at which one it would not.
    fn refuse(&mut self, refusal: Refusal) {
        match Reaching::of(&refusal) {
            Some(reaching) if self.shape.wanted().is_filtered() => self.phase = Phase::Reaching(reaching),
            _ => self.end(refusal),
        }
    }

    fn end(&mut self, refusal: Refusal) {
        metrics::counter!(crate::metrics::ERRORS, "code" => refusal.code.to_string()).increment(1);
        tracing::debug!(id = %self.id, %refusal, "a subscription ends");
        let message = refusal.told(self.may_know_all).into_message(Some(self.id.clone()), false);
        self.send(message);
        self.phase = Phase::Over;
    }

    fn waiting(&mut self, message: &str) {
        if !std::mem::replace(&mut self.waiting_told, true) {
            let id = self.id.clone();
            self.send(Waiting { id, message: Some(message.to_owned()), position: None });
        }
    }

    fn subscribed(&mut self, mode: Mode, cursor: Cursor) {
        let id = self.id.clone();
        let rights = self.rights();
        self.send(Subscribed { id, mode, cursor, rights });
        self.last_cursor = self.last_cursor.max(cursor);
    }

    fn caught_up(&mut self, cursor: Cursor) {
        let id = self.id.clone();
        self.send(CaughtUp { id, cursor });
        self.last_cursor = self.last_cursor.max(cursor);
    }

    /// Tells the definition of a table unless it was told last.
    fn tell_relation(&mut self, relation: &Arc<Relation>) {
        if !self.told.tell(relation) {
            return;
        }
        if let Some(selection) = self.shape.wanted().of(relation.name()) {
            let frame = encode::relation(&self.id, relation, selection);
            self.frames.push_back(frame);
        }
    }
}

/// What a phase made of its turn.
#[derive(Debug)]
enum Turn {
    /// There may be a frame, or another phase.
    Again,
    Ask(Question),
    Sync(Vec<RelationName>),
    Wait(Wait),
}

/// What to say about a table that cannot be subscribed to.
pub(crate) fn unknown_table(name: &RelationName) -> Refusal {
    let message = format!("there is no published table {name}");
    let hint = "check the spelling (schema.table, as in the catalog); walcast doctor says which tables are published";
    Refusal::new(ErrorCode::UnknownTable, message).hint(hint)
}

#[cfg(test)]
mod tests;
