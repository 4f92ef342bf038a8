//! Reading the log from a position: the feed where it reaches, history where it does not.
//!
//! While it keeps up, a session asks its shape for the next part that concerns it and finds the frames ready. When it
//! is behind what the shape remembers it looks through the feed itself, and when it is behind the feed it reads
//! history, page by page, until it is back.

use std::collections::VecDeque;
use std::sync::Arc;

use walcast_feed::Read;
use walcast_history::Page;
use walcast_model::{CommitStart, Cursor, Part, Relation, ReplicaIdentity, Seq, Transaction};
use walcast_protocol::{Catchup, ErrorCode};

use super::binding::{POLICY_UNFIT, missed, outlived};
use super::compacted::Compacted;
use super::{Phase, Question, Session, Turn, Wait};
use crate::catalog::Freshness;
use crate::encode::{self, Encoded, Gap, Piece, Run, Synced, View};
use crate::refusal::Refusal;
use crate::shape::Next;
use crate::wanted::DEFINITIONS_MAX;

/// A position in the log, and what was read from there.
#[derive(Debug)]
pub(super) struct Stream {
    /// Everything before it was given out, or is no concern of the shape.
    cursor: Cursor,
    /// Read and not yet encoded, in order.
    reading: VecDeque<Arc<Part>>,
    /// Where the position is after `reading`.
    pub(super) after_reading: Cursor,
    /// Whether `reading` is of the feed, where frames are shared.
    of_feed: bool,
    /// Whether a page of history was asked for.
    pub(super) asked: bool,
    /// Whether it waits for what a filter has to know of a table of the part that is next.
    pub(super) is_binding: bool,
    /// The part for which filters were bound anew, because they could not tell of its rows.
    rebound: Option<Cursor>,
    /// The part for which filters were bound last, and how often.
    bound_for: (Cursor, usize),
    /// Before it, what the shape knows is not asked: that was found out while the shape was given less than the client can
    /// have been.
    pub(super) alone_until: Cursor,
    /// The transaction of which the client was told that more follows.
    open: Option<CommitStart>,
    /// Until when the rows of an initial sync have to be kept apart from the stream.
    seam: Option<Seam>,
    caught_up: bool,
    /// Whether it was given the last that concerns the shape so far, so that it need not ask for more.
    has_last: bool,
    /// The net effect of many transactions, of which some was given out.
    pub(super) compacted: Option<Compacted>,
    /// A net effect that was let go in the middle, of which the client has yet to be told that it does not go on.
    pub(super) abandoned: Option<Arc<Transaction>>,
}

#[derive(Debug)]
struct Seam {
    synced: Synced,
    barrier: Cursor,
}

impl Stream {
    const fn at(cursor: Cursor, seam: Option<Seam>) -> Self {
        Self {
            cursor,
            reading: VecDeque::new(),
            after_reading: cursor,
            of_feed: false,
            asked: false,
            is_binding: false,
            rebound: None,
            bound_for: (cursor, 0),
            alone_until: Cursor::ZERO,
            open: None,
            seam,
            caught_up: false,
            has_last: false,
            compacted: None,
            abandoned: None,
        }
    }

    /// Goes on at a client's cursor.
    pub(super) fn resume(cursor: Cursor) -> Self {
        // Inside a transaction, its client was told that more follows.
        let open = (cursor.seq() > Seq::FIRST).then(|| CommitStart::new(cursor.lsn()));
        Self { open, ..Self::at(cursor, None) }
    }

    /// Begins after the rows of an initial sync.
    pub(super) const fn seam(from: Cursor, synced: Synced, barrier: Cursor) -> Self {
        Self::at(from, Some(Seam { synced, barrier }))
    }

    pub(super) const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Whether a client may store the position: not before its initial sync is complete, and not inside a transaction
    /// that it has begun to receive, of which it need not have applied anything yet.
    pub(super) fn is_safe_to_store(&self) -> bool {
        self.seam.is_none() && self.open.is_none() && !self.is_inside_compacted()
    }

    /// Whether what it sends comes with cursors: its initial sync, if it had one, is complete.
    pub(super) const fn is_synced(&self) -> bool {
        self.seam.is_none()
    }

    /// Forgets what was read, and what was asked for: whether there was a question.
    pub(super) fn let_go(&mut self) -> bool {
        self.reading = VecDeque::new();
        self.after_reading = self.cursor;
        if let Some(compacted) = self.compacted.take() {
            self.abandoned = compacted.let_go();
        }
        let was_binding = std::mem::take(&mut self.is_binding);
        std::mem::take(&mut self.asked) || was_binding
    }

    /// Where the part that is next ends.
    pub(super) fn end_of_next(&self) -> Cursor {
        self.reading.front().map_or(self.cursor, |part| part.next_cursor())
    }

    fn move_to(&mut self, cursor: Cursor) {
        self.cursor = self.cursor.max(cursor);
        // A cursor with a seq need not be inside a transaction, a client may have made it up: nothing follows then.
        let lsn = self.cursor.lsn();
        self.open = self.open.filter(|open| open.lsn() >= lsn);
    }

    /// Whether the shape may be asked what comes next: not inside a transaction that the client has begun to receive,
    /// because its end concerns the client and may not concern the shape.
    fn may_skip(&self) -> bool {
        self.cursor >= self.alone_until
            && self.open.is_none()
            && self.seam.is_none()
            && self.reading.is_empty()
            && !self.asked
            && self.compacted.is_none()
    }
}

impl Session {
    fn streaming(&mut self) -> Option<&mut Stream> {
        match &mut self.phase {
            Phase::Streaming(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream(&mut self) -> Turn {
        if let Some(turn) = self.deliver_compacted() {
            return turn;
        }
        let barrier = self.barrier;
        let Some(stream) = self.streaming() else { return Turn::Again };
        if stream.reading.is_empty() {
            stream.move_to(stream.after_reading);
        }
        let next = stream.reading.front().map_or(stream.cursor, |part| part.cursor());
        if let Some(seam) = stream.seam.take_if(|seam| next >= seam.barrier) {
            stream.move_to(seam.barrier);
            self.complete(seam.barrier);
            return Turn::Again;
        }
        if stream.is_binding {
            return Turn::Wait(Wait::Answer);
        }
        if let Some(part) = stream.reading.pop_front() {
            return self.deliver_read(part);
        }
        let cursor = stream.cursor;
        if !stream.caught_up && stream.is_safe_to_store() && barrier.is_some_and(|barrier| barrier <= cursor)
        {
            stream.caught_up = true;
            self.caught_up(cursor);
            return Turn::Again;
        }
        if stream.asked {
            return Turn::Wait(Wait::Answer);
        }
        if std::mem::take(&mut stream.has_last) {
            return Turn::Wait(Wait::Shape(cursor));
        }
        if stream.may_skip()
            && let Some(turn) = self.follow_shape()
        {
            return turn;
        }
        self.read_on(self.world.limits.read_bytes_max)
    }

    /// What the shape knows to come next; `None` when it does not know.
    fn follow_shape(&mut self) -> Option<Turn> {
        // Before the shape is asked: it knows everything up to here, and may know more.
        let seen = self.world.router.seen();
        let cursor = self.streaming()?.cursor;
        match self.shape.next(cursor) {
            Next::Unknown => None,
            Next::Part { cursor: at, encoded: Some(encoded), is_last } if cursor <= at => {
                self.shape.count_shared();
                self.deliver(&encoded);
                let stream = self.streaming()?;
                stream.has_last = is_last && stream.caught_up && stream.may_skip();
                Some(Turn::Again)
            }
            Next::Part { cursor: at, .. } => {
                self.streaming()?.move_to(at);
                // Of the parts after it, the shape knows which concern a filter: most of them do not.
                let is_filtered = self.shape.wanted().is_filtered();
                let bytes_max = if is_filtered { 1 } else { self.world.limits.read_bytes_max };
                Some(self.read_on(bytes_max))
            }
            Next::Nothing => {
                let barrier = self.barrier;
                let stream = self.streaming()?;
                stream.move_to(seen);
                let cursor = stream.cursor;
                Some(match barrier {
                    Some(barrier) if !stream.caught_up && barrier > cursor => Turn::Wait(Wait::Seen(cursor)),
                    Some(_) if !stream.caught_up => Turn::Again,
                    _ => Turn::Wait(Wait::Shape(cursor)),
                })
            }
        }
    }

    /// Reads from the feed, one part at least, or asks for a page of history.
    fn read_on(&mut self, bytes_max: usize) -> Turn {
        let (world, catchup) = (Arc::clone(&self.world), self.catchup);
        let is_filtered = self.shape.wanted().is_filtered();
        let Some(stream) = self.streaming() else { return Turn::Again };
        match world.feed.read(stream.cursor, bytes_max) {
            Read::Parts { parts, next } => {
                stream.reading = parts.into();
                stream.after_reading = next;
                stream.of_feed = true;
                Turn::Again
            }
            Read::AtHead { head } if head > stream.cursor => {
                stream.move_to(head);
                Turn::Again
            }
            Read::AtHead { .. } => Turn::Wait(Wait::Seen(stream.cursor)),
            Read::Behind { .. } => {
                metrics::counter!(crate::metrics::FELL_BACK).increment(1);
                stream.asked = true;
                let (from, to) = (stream.cursor, world.feed.stored());
                // At the seam of an initial sync transactions are told apart.
                match catchup {
                    // What is left of a row that left a filter would tell of rows that were never in it.
                    Catchup::Latest if stream.seam.is_none() && !is_filtered => {
                        Turn::Ask(Question::Latest { from, to })
                    }
                    Catchup::All | Catchup::Latest => Turn::Ask(Question::Page { from, to }),
                }
            }
        }
    }

    /// A page of history from its position on.
    pub(super) fn page(&mut self, page: Page) {
        let Some(stream) = self.streaming() else { return };
        stream.asked = false;
        stream.reading = page.parts.into_iter().map(Arc::new).collect();
        stream.after_reading = page.next;
        stream.of_feed = false;
    }

    /// Jumps over what does not concern the shape.
    pub(super) fn skip_quiet(&mut self) {
        let seen = self.world.router.seen();
        let Some(stream) = self.streaming().filter(|stream| stream.may_skip()) else { return };
        let cursor = stream.cursor;
        if matches!(self.shape.next(cursor), Next::Nothing)
            && let Some(stream) = self.streaming()
        {
            stream.move_to(seen);
        }
    }

    /// Makes frames of a part that was read, unless a filter has to be bound to a definition in it first.
    fn deliver_read(&mut self, part: Arc<Part>) -> Turn {
        let mut encoded = self.encode_read(&part, false);
        if let Some(Gap::Unfit(relation)) = &encoded.gap {
            if self.has_given(relation) {
                self.refuse(outlived(relation.name(), part.next_cursor(), POLICY_UNFIT));
                return Turn::Again;
            }
            encoded = self.encode_read(&part, true);
        }
        match &encoded.gap {
            None => {}
            Some(Gap::Unbound(relation)) => {
                let relation = Arc::clone(relation);
                return self.bind_for(part, relation, Freshness::Lately);
            }
            Some(Gap::Undecided { relation, column }) => {
                let Phase::Streaming(stream) = &self.phase else { return Turn::Again };
                // Perhaps since a type was altered: what is known of the table is read anew, once.
                if stream.rebound != Some(part.cursor()) {
                    let relation = Arc::clone(relation);
                    self.shape.wanted().unbind(&relation);
                    return self.bind_for(part, relation, Freshness::Now);
                }
                let refusal = self.cannot_tell(relation, *column);
                self.refuse(refusal);
                return Turn::Again;
            }
            Some(Gap::Unfit(_)) => return Turn::Again,
        }
        let Phase::Streaming(stream) = &self.phase else { return Turn::Again };
        let (open, in_seam) = (stream.open, stream.seam.is_some());
        if self.runs_of(&encoded).is_empty() && encoded.ends && open == Some(encoded.start) {
            let piece = Piece { cursor: (!in_seam).then(|| part.next_cursor()), more: false };
            let frame = self.heads.transaction(encode::ending(&part, !in_seam), piece);
            self.frames.push_back(frame);
            if !in_seam {
                self.last_cursor = self.last_cursor.max(encoded.next);
            }
        }
        self.deliver(&encoded);
        Turn::Again
    }

    /// What of a part the client is sent: nothing of its own transactions, but for those that its copy may lack because
    /// an initial sync has replaced it.
    fn runs_of<'a>(&self, encoded: &'a Encoded) -> &'a [Run] {
        let is_synced = matches!(&self.phase, Phase::Streaming(stream) if stream.is_synced());
        let is_own = self.origin.as_ref().is_some_and(|origin| encoded.is_from(origin));
        let is_echo = is_own && is_synced && Cursor::from(encoded.start.lsn()) >= self.echo_from;
        if is_echo { &[] } else { &encoded.runs }
    }

    fn encode_read(&self, part: &Part, skips_unfit: bool) -> Arc<Encoded> {
        let Phase::Streaming(stream) = &self.phase else {
            return Arc::new(encode::part(part, self.shape.wanted(), View::whole()));
        };
        let is_shared = stream.of_feed && stream.seam.is_none() && part.cursor() >= stream.alone_until;
        if is_shared && stream.cursor <= part.cursor() && !skips_unfit {
            return self.shape.frames(part);
        }
        let synced = stream.seam.as_ref().map(|seam| &seam.synced);
        let view = View { from: stream.cursor, synced, skips_unfit, ..View::whole() };
        Arc::new(encode::part(part, self.shape.wanted(), view))
    }

    /// A row of which nobody can say whether it is in the filter.
    fn cannot_tell(&self, relation: &Relation, column: usize) -> Refusal {
        let table = relation.name();
        let selection = self.shape.wanted().of(table);
        let known = relation.columns().get(column);
        let known =
            known.filter(|column| column.key || selection.is_some_and(|one| one.may_know(&column.name)));
        let column =
            known.map_or("a column that the policy compares".to_owned(), |known| format!("{:?}", known.name));
        let message = format!(
            "whether a row of {table} is in the filter cannot be told by {column}: the WAL does not have it, or it holds what was not known"
        );
        let hint = match relation.identity() {
            // It has all that there is.
            ReplicaIdentity::Full => "take an initial sync".to_owned(),
            _ => format!(
                "an administrator runs ALTER TABLE {table} REPLICA IDENTITY FULL; then take an initial sync"
            ),
        };
        Refusal::new(ErrorCode::IdentityRequired, message).hint(hint)
    }

    /// Puts the part back, and asks for what a filter has to know of a table in it.
    fn bind_for(&mut self, part: Arc<Part>, relation: Arc<Relation>, freshness: Freshness) -> Turn {
        let Some(stream) = self.streaming() else { return Turn::Again };
        if freshness == Freshness::Now {
            stream.rebound = Some(part.cursor());
        }
        if stream.bound_for.0 != part.cursor() {
            stream.bound_for = (part.cursor(), 0);
        }
        stream.bound_for.1 += 1;
        if stream.bound_for.1 > DEFINITIONS_MAX {
            let after = part.next_cursor();
            self.refuse(outlived(relation.name(), after, "is one of too many in one transaction"));
            return Turn::Again;
        }
        stream.reading.push_front(part);
        stream.is_binding = true;
        Turn::Ask(Question::Schema { relation, freshness })
    }

    /// Puts the frames of a part before everything else, and moves behind it; unless it gives rows of a table of which the
    /// client can have missed changes.
    fn deliver(&mut self, encoded: &Encoded) {
        let runs = self.runs_of(encoded);
        let mut told = runs.iter().flat_map(|run| &run.relations);
        if let Some(relation) = told.find(|relation| self.can_have_missed(relation)) {
            let refusal = missed(relation.name(), encoded.next);
            return self.refuse(refusal);
        }
        for run in runs {
            for relation in &run.relations {
                self.tell_relation(relation);
            }
            let frame = self.heads.transaction(run.tail.clone(), run.piece);
            self.frames.push_back(frame);
        }
        let in_seam = matches!(&self.phase, Phase::Streaming(stream) if stream.seam.is_some());
        if let Some(run) = runs.last().filter(|_| !in_seam) {
            self.last_cursor = self.last_cursor.max(run.next);
        }
        let Some(stream) = self.streaming() else { return };
        if encoded.ends {
            stream.open = None;
        } else if !runs.is_empty() {
            stream.open = Some(encoded.start);
        }
        stream.move_to(encoded.next);
    }
}
