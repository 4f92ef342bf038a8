//! From decoded messages to parts of transactions: the state of one replication stream, without I/O.
//!
//! ```text
//!                       Begin                       insert, update, delete, truncate, message
//!   between ─────────────────────────────► inside ──────────────────────────┐
//!      ▲                                    │  ▲                            │ part_bytes_max reached:
//!      └──────────── Commit ────────────────┘  └────────────────────────────┘ a part without an end
//!
//!   Relation (in either state) ──► Step::NeedsCatalog ──► answer() ──► goes on
//!   a change ──► Step::NeedsTypes ──► types_read() ──► Step::NeedsConversions ──► resume() ──► goes on
//!   a change ──► Step::NeedsImages ──► images_mut().found() ──► resume() ──► goes on
//! ```
//!
//! The second line is only for tables with columns of types that users can alter, which the WAL does not tell: such types
//! are read again from the catalog after each change's commit, once for all changes that were committed before it. The
//! third is only for tables whose last images are kept (`assemble::images`).
//!
//! Output collects until [`Assembler::take`]. What lies before the position where the feed stands is counted and
//! not rendered: a slot sends transactions again after every crash, and a transaction of which the feed already
//! has some parts from its start.

mod images;
mod relation;
mod row;
mod rows_message;
mod transaction;
mod types;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;

use walcast_model::last_image::ImageEffect;
use walcast_model::{Cursor, Lsn, Meta, Oid, Op, Part, RelationName, Transaction, Xid};
use walcast_pgoutput::json::{Conversion, Conversions, Types, ValueError};
use walcast_pgoutput::{
    Begin, Commit, Delete, Insert, LogicalMessage, Message, OldTuple, RelationDefinition, Truncate, Update,
};

pub(crate) use images::Images;
pub use images::{ImageQuestion, IsChosen};
pub use relation::{CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts};
pub use rows_message::{RowsHeader, row_prefix};
pub use types::TypesQuestion;

use crate::metrics::{MESSAGES_IGNORED_TOTAL, VALUE_FALLBACKS_TOTAL};
use relation::{Entry, Known};
use row::{Image, Values};
use rows_message::RowsMessage;
use transaction::Open;

/// The schema that is walcast's own: never part of the feed.
pub const OWN_SCHEMA: &str = "walcast";
/// Prefix of the transactional logical messages in which transactions say something about themselves.
pub const META_PREFIX: &str = "walcast";
/// Prefix of the transactional logical messages by which barriers come back.
pub const BARRIER_PREFIX: &str = "walcast.barrier";
/// Prefix of the transactional logical messages that carry rows which were there before their table was picked up.
pub const ROWS_PREFIX: &str = "walcast.rows";

/// A barrier's id is 32 characters; what is longer than this many bytes is none.
const BARRIER_BYTES_MAX: usize = 64;
/// Barriers of one transaction that are remembered until its commit. walcast writes one per transaction; any role
/// may write as many as it likes, and those beyond the limit are counted and forgotten.
const BARRIERS_PER_TRANSACTION_MAX: usize = 1024;

/// How transactions are cut, and what is trusted.
#[derive(Clone)]
pub struct AssemblerSettings {
    /// JSON bytes after which a part is closed, when another change follows. Default 1 MiB. A part is larger by
    /// at most one change.
    pub part_bytes_max: usize,
    /// The feed's secret, with which `walcast.rows` messages must start.
    pub secret: String,
}

// The secret stays out.
impl fmt::Debug for AssemblerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssemblerSettings")
            .field("part_bytes_max", &self.part_bytes_max)
            .finish_non_exhaustive()
    }
}

/// What to do before the next message.
#[derive(Debug)]
pub enum Step {
    /// Nothing: feed the next message.
    Next,
    /// A table's definition came: look up what the WAL does not say about it, and call [`Assembler::answer`].
    NeedsCatalog(CatalogQuestion),
    /// A change has values of types that may have been altered before it: read them again into
    /// [`Assembler::types_mut`], and call [`Assembler::types_read`].
    NeedsTypes(TypesQuestion),
    /// A change has values that only the server can convert: add what it makes of each to
    /// [`Assembler::conversions_mut`], and call [`Assembler::resume`].
    NeedsConversions(Vec<Conversion>),
    /// A change is about rows whose last image may be in history: look them up, and call [`Assembler::resume`].
    NeedsImages(Vec<ImageQuestion>),
}

/// What stands still until an answer comes.
#[derive(Debug)]
enum Waiting {
    Definition(RelationDefinition),
    Change(Message),
}

/// What the messages since the last [`Assembler::take`] amount to. To be used in the order of the fields.
#[derive(Debug, Default)]
pub struct Progress {
    /// Parts for the feed, in order.
    pub parts: Vec<Part>,
    /// Ids of barriers, each with the cursor after its transaction: everything before it is in the parts, or was
    /// in the feed already.
    pub barriers: Vec<(String, Cursor)>,
    /// Everything before this position was seen. `None` when nothing ended.
    pub reached: Option<Lsn>,
    /// Transactions that ended, whatever they held.
    pub transactions: u64,
    /// Those with changes that lie before the position as a whole, in order: they were sent again.
    pub sent_again: Vec<Transaction>,
}

/// Why a stream cannot be assembled. The same messages would come again after a reconnect, so each is a defect of
/// walcast or of the server; none is passed over, because that would lose changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A change, a message or a commit without a `Begin`, or a `Begin` without the `Commit` before it.
    #[error("{message} out of place in the replication stream; report it with the server's version")]
    Misplaced {
        /// What came.
        message: &'static str,
    },
    /// A change of a table whose definition was not sent.
    #[error("a change of relation {oid} came before its definition; report it with the server's version")]
    UnknownRelation {
        /// The table.
        oid: Oid,
    },
    /// A row that does not fit its table's definition.
    #[error("a row of {relation} has {got} columns instead of {want}; report it with the server's version")]
    ColumnCount {
        /// The table.
        relation: String,
        /// As the definition says.
        want: usize,
        /// As the row says.
        got: usize,
    },
    /// A message of protocol features that walcast does not switch on.
    #[error("{message} came although streaming and two-phase are off; report it with the server's version")]
    NotAskedFor {
        /// What came.
        message: &'static str,
    },
    /// One change is over 4 GiB of JSON.
    #[error(
        "one change of {relation} is over 4 GiB of JSON; take the table out of the publication, or start the feed over"
    )]
    TooLarge {
        /// The table.
        relation: String,
    },
}

/// The state of one replication stream. See the module.
#[derive(Debug)]
pub struct Assembler {
    settings: AssemblerSettings,
    types: Types,
    relations: HashMap<Oid, Entry>,
    /// Base types that the WAL named for domains over built-in ones, by the domain.
    domain_bases: HashMap<Oid, String>,
    /// Whether any table has columns of types that users can alter.
    has_alterable: bool,
    conversions: Conversions,
    /// `None` when no table was chosen for it.
    images: Option<Images>,
    /// What waits for an answer.
    waiting: Option<Waiting>,
    /// Where the message at hand stands in the WAL.
    at: Lsn,
    /// Whether texts may hold bytes that are not UTF-8.
    any_bytes: bool,
    /// Everything before it is in the feed.
    position: Cursor,
    xid_reference: Xid,
    transaction: Option<Open>,
    output: Progress,
    /// Columns of the change at hand whose value is not what `to_jsonb` prints, and why; kept for its memory.
    failed: Vec<(usize, ValueError)>,
}

impl Assembler {
    /// For a feed whose head is `position`, on a connection that has just been made. `xid_reference` is any recent
    /// 64-bit id of the source (`pg_snapshot_xmax(pg_current_snapshot())`), next to which the WAL's 32-bit ids are
    /// widened. Definitions are per connection, so a new one needs a new assembler.
    #[must_use]
    pub fn new(settings: AssemblerSettings, position: Cursor, xid_reference: Xid) -> Self {
        Self {
            settings,
            types: Types::new(),
            relations: HashMap::new(),
            domain_bases: HashMap::new(),
            has_alterable: false,
            conversions: Conversions::default(),
            images: None,
            waiting: None,
            at: Lsn::MAX,
            any_bytes: false,
            position,
            xid_reference,
            transaction: None,
            output: Progress::default(),
            failed: Vec::new(),
        }
    }

    /// The types that values are written by; whoever answers a [`CatalogQuestion`] adds those it asks for.
    pub const fn types_mut(&mut self) -> &mut Types {
        &mut self.types
    }

    /// What the server made of values that were asked for. To be emptied from time to time.
    pub const fn conversions_mut(&mut self) -> &mut Conversions {
        &mut self.conversions
    }

    /// Says that the database is SQL_ASCII: texts with bytes that are not UTF-8 are counted, as they are not written as
    /// they are.
    pub const fn expect_any_bytes(&mut self) {
        self.any_bytes = true;
    }

    /// Says where in the WAL the next message stands (`dataStart` of its frame). Without it, values are taken for as new
    /// as the types.
    pub const fn at(&mut self, start: Lsn) {
        self.at = start;
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub const fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Takes what has come together.
    pub fn take(&mut self) -> Progress {
        mem::take(&mut self.output)
    }

    /// The sender has decoded everything before `wal_end`. It counts only between transactions (in the middle of
    /// one it names that transaction's commit), and never moves anything back: at the start of a stream the server
    /// reports positions that lie before what it has sent (reference 1.5).
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.transaction.is_none() {
            self.output.reached = self.output.reached.max(Some(wal_end));
        }
    }

    /// Takes the next message of the stream.
    ///
    /// # Errors
    /// When the stream is not what Postgres documents; the assembler must then not be used again.
    pub fn message(&mut self, message: Message) -> Result<Step, AssembleError> {
        if self.waiting.is_some() {
            return Err(AssembleError::Misplaced { message: "a message before the catalog's answer" });
        }
        match message {
            Message::Insert(_) | Message::Update(_) | Message::Delete(_) => return self.change(message),
            Message::Begin(begin) => self.begin(&begin)?,
            Message::Commit(commit) => self.commit(&commit)?,
            Message::Relation(definition) => return Ok(self.relation(definition)),
            Message::Truncate(truncate) => self.truncate(&truncate)?,
            Message::LogicalMessage(message) => self.logical(&message)?,
            Message::Type(definition) => self.type_definition(&definition),
            // An origin names where a transaction came from; a stray abort is sent by PG 18 for transactions that were
            // never sent (reference 2.1).
            Message::Origin(_) | Message::StreamAbort(_) => {}
            Message::StreamStart(_) | Message::StreamStop | Message::StreamCommit(_) => {
                return Err(AssembleError::NotAskedFor { message: "a streamed transaction" });
            }
            Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_)
            | Message::StreamPrepare(_) => {
                return Err(AssembleError::NotAskedFor { message: "a prepared transaction" });
            }
        }
        Ok(Step::Next)
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), AssembleError> {
        if self.transaction.is_some() {
            return Err(AssembleError::Misplaced { message: "a second Begin" });
        }
        let xid = Xid::widen(begin.xid, self.xid_reference);
        self.xid_reference = self.xid_reference.max(xid);
        self.transaction = Some(Open::new(begin, xid, self.position));
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), AssembleError> {
        let open = self.transaction.take().ok_or(AssembleError::Misplaced { message: "a Commit" })?;
        self.output.sent_again.extend(open.sent_again());
        let (part, barriers) = open.commit(commit.end);
        self.output.parts.extend(part);
        let after = Cursor::after(commit.end);
        self.output.barriers.extend(barriers.into_iter().map(|id| (id, after)));
        self.output.reached = self.output.reached.max(Some(commit.end.lsn()));
        self.output.transactions += 1;
        Ok(())
    }

    /// Every definition is looked up, also one that came before: the primary key and NOT NULL may have changed
    /// without a trace in it.
    fn relation(&mut self, definition: RelationDefinition) -> Step {
        if definition.schema.as_bytes() == OWN_SCHEMA.as_bytes() {
            self.relations.insert(definition.oid, Entry::Own);
            return Step::Next;
        }
        let transaction = self.transaction.as_ref().map(|open| open.builder.transaction().xid);
        let storage = self.images.as_ref().is_some_and(|images| {
            images.is_chosen(&RelationName::new(definition.schema.to_string(), definition.name.to_string()))
        });
        let question =
            CatalogQuestion::new(&definition, transaction, &self.types, &self.domain_bases, storage);
        self.waiting = Some(Waiting::Definition(definition));
        Step::NeedsCatalog(question)
    }

    /// Answers the question that the last [`Assembler::message`] returned. The types it names must have been added
    /// to [`Assembler::types_mut`] first, as far as the catalog still knows them.
    pub fn answer(&mut self, answer: &CatalogAnswer) {
        let Some(Waiting::Definition(definition)) = self.waiting.take() else { return };
        let oid = definition.oid;
        let before = match self.relations.get(&oid) {
            Some(Entry::Known(known)) => Some(&known.relation),
            _ => None,
        };
        let known = Known::new(&definition, answer, &self.types, before);
        self.has_alterable |= known.is_alterable();
        if let Some(images) = &mut self.images {
            let definition = known.storage.as_ref().map(|storage| (known.relation.digest(), storage.id));
            images.define(oid, definition);
        }
        self.relations.insert(oid, Entry::Known(known));
    }

    /// Renders a change, unless something has to be asked first.
    fn change(&mut self, message: Message) -> Result<Step, AssembleError> {
        if self.has_alterable
            && let Some(step) = self.question(&message)
        {
            self.waiting = Some(Waiting::Change(message));
            return Ok(step);
        }
        if self.images.is_some()
            && let Some(step) = self.image_question(&message)
        {
            self.waiting = Some(Waiting::Change(message));
            return Ok(step);
        }
        match &message {
            Message::Insert(insert) => self.insert(insert)?,
            Message::Update(update) => self.update(update)?,
            Message::Delete(delete) => self.delete(delete)?,
            _ => {}
        }
        Ok(Step::Next)
    }

    fn insert(&mut self, insert: &Insert) -> Result<(), AssembleError> {
        let Some(Kept { known, open, values, failed, images, at }) = self.keep(insert.relation)? else {
            return Ok(());
        };
        known.check(&insert.new)?;
        let mut change = open.builder.change(Op::Insert, &known.relation);
        let mut image = Image::new(known, values, failed);
        if known.has_key {
            infallible(change.key(|out| image.key(&insert.new, out)));
        }
        infallible(change.row(|out| image.all(&insert.new, out)));
        let mark = images.as_ref().and_then(|_| {
            images::mark(known, at.lsn(), images::effect_of(&known.relation, change.row_json(), true))
        });
        if let Some(mark) = &mark {
            change.image(mark.clone());
        }
        finish(change.finish(), known, failed)?;
        if let Some(images) = images {
            images::note(images, &known.relation, mark.as_ref(), None, open.builder.last_row(), at);
        }
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<(), AssembleError> {
        let Some(Kept { known, open, values, failed, images, at }) = self.keep(update.relation)? else {
            return Ok(());
        };
        known.check(&update.new)?;
        if let Some(old) = &update.old {
            known.check(old.tuple())?;
        }
        let before = update.old.as_ref().map_or(&update.new, OldTuple::tuple);
        let key = images.as_ref().and_then(|_| images::key_before(known, values, before));
        let last = images::image_before(images.as_deref(), update.relation, key.as_ref());
        let mut change = open.builder.change(Op::Update, &known.relation);
        let mut image = Image::new(known, values, failed);
        // Servers before 14.2 send no old key for a key that is stored out of line: the key is then not known.
        let key_is_known = image.key_is_known(before);
        if known.has_key && key_is_known {
            infallible(change.key(|out| image.key(before, out)));
        }
        infallible(change.row(|out| image.merged(&update.new, update.old.as_ref(), last.as_deref(), out)));
        if let Some(OldTuple::Full(old)) = &update.old {
            infallible(change.old(|out| image.all(old, out)));
        } else if let Some(last) = last.as_deref().filter(|_| !known.is_alterable()) {
            infallible(change.old(|out| {
                out.extend_from_slice(last);
                Ok(())
            }));
        }
        change.unchanged(image.unchanged().map(|index| known.relation.columns()[index].name.as_str()));
        let filled = image.filled() + last.as_ref().map_or(0, bytes::Bytes::len);
        let is_whole = image.unchanged().next().is_none();
        let mark = images.as_ref().and_then(|_| {
            let effect = if key_is_known {
                images::effect_of(&known.relation, change.row_json(), is_whole)
            } else {
                ImageEffect::Clear
            };
            images::mark(known, at.lsn(), effect)
        });
        if let Some(mark) = &mark {
            change.image(mark.clone());
        }
        finish(change.finish(), known, failed)?;
        if let Some(images) = images {
            images.filled(filled);
            images::note(images, &known.relation, mark.as_ref(), key, open.builder.last_row(), at);
        }
        Ok(())
    }

    fn delete(&mut self, delete: &Delete) -> Result<(), AssembleError> {
        let Some(Kept { known, open, values, failed, images, at }) = self.keep(delete.relation)? else {
            return Ok(());
        };
        let old = delete.old.tuple();
        known.check(old)?;
        let key = images.as_ref().and_then(|_| images::key_before(known, values, old));
        let last = images::image_before(images.as_deref(), delete.relation, key.as_ref());
        let mut change = open.builder.change(Op::Delete, &known.relation);
        let mut image = Image::new(known, values, failed);
        if known.has_key {
            infallible(change.key(|out| image.key(old, out)));
        }
        if matches!(delete.old, OldTuple::Full(_)) {
            infallible(change.old(|out| image.all(old, out)));
        } else if let Some(last) = last.as_deref().filter(|_| !known.is_alterable()) {
            infallible(change.old(|out| {
                out.extend_from_slice(last);
                Ok(())
            }));
        }
        let mark = images.as_ref().and_then(|_| images::mark(known, at.lsn(), ImageEffect::Forget));
        if let Some(mark) = &mark {
            change.image(mark.clone());
        }
        finish(change.finish(), known, failed)?;
        if let Some(images) = images {
            images.filled(last.as_ref().map_or(0, bytes::Bytes::len));
            images::note(images, &known.relation, mark.as_ref(), key, None, at);
        }
        Ok(())
    }

    fn truncate(&mut self, truncate: &Truncate) -> Result<(), AssembleError> {
        for &oid in &truncate.relations {
            let Some(Kept { known, open, failed, images, at, .. }) = self.keep(oid)? else { continue };
            let mut change = open.builder.change(Op::Truncate, &known.relation);
            let mark = images.as_ref().and_then(|_| images::mark(known, at.lsn(), ImageEffect::Clear));
            if let Some(mark) = &mark {
                change.image(mark.clone());
            }
            finish(change.finish(), known, failed)?;
            if let Some(images) = images {
                images::note(images, &known.relation, mark.as_ref(), None, None, at);
            }
        }
        Ok(())
    }

    /// Counts a change of this table; `None` for one that is not to be rendered.
    fn keep(&mut self, oid: Oid) -> Result<Option<Kept<'_>>, AssembleError> {
        let open = self.transaction.as_mut().ok_or(AssembleError::Misplaced { message: "a change" })?;
        let known = match self.relations.get(&oid).ok_or(AssembleError::UnknownRelation { oid })? {
            Entry::Own => return Ok(None),
            Entry::Known(known) => known,
        };
        let wanted = open.next_change(self.settings.part_bytes_max, &mut self.output.parts);
        let values = Values { at: self.at, conversions: &self.conversions, any_bytes: self.any_bytes };
        let at = Cursor::new(open.builder.transaction().start.lsn(), open.builder.next_seq());
        let (failed, images) = (&mut self.failed, self.images.as_mut());
        Ok(wanted.then_some(Kept { known, open, values, failed, images, at }))
    }

    fn logical(&mut self, message: &LogicalMessage) -> Result<(), AssembleError> {
        if !message.transactional {
            ignored("not_transactional");
            return Ok(());
        }
        let open = self.transaction.as_mut().ok_or(AssembleError::Misplaced { message: "a message" })?;
        match message.prefix.as_bytes() {
            prefix if prefix == BARRIER_PREFIX.as_bytes() => {
                let id = (message.content.len() <= BARRIER_BYTES_MAX)
                    .then(|| std::str::from_utf8(&message.content).ok())
                    .flatten();
                match id {
                    None => ignored("malformed"),
                    Some(_) if open.barriers.len() >= BARRIERS_PER_TRANSACTION_MAX => ignored("too_many"),
                    Some(id) => open.barriers.push(id.to_owned()),
                }
                Ok(())
            }
            prefix if prefix == META_PREFIX.as_bytes() => {
                match Meta::parse(&message.content) {
                    Ok(meta) => open.meta = Some(Arc::new(meta)),
                    Err(problem) => {
                        let xid = open.builder.transaction().xid;
                        tracing::warn!(%xid, %problem, "left out what a transaction says about itself");
                        ignored("bad_meta");
                    }
                }
                Ok(())
            }
            prefix if prefix == ROWS_PREFIX.as_bytes() => self.rows(&message.content),
            _ => {
                ignored("other_prefix");
                Ok(())
            }
        }
    }

    /// Rows that were there before their table was picked up: they stand in the WAL right before its first changes.
    fn rows(&mut self, content: &[u8]) -> Result<(), AssembleError> {
        let Some(open) = self.transaction.as_mut() else { return Ok(()) };
        let Some(message) = RowsMessage::parse(content, self.settings.secret.as_bytes()) else {
            tracing::warn!("ignored a {ROWS_PREFIX} message that this feed did not write");
            ignored("unknown_secret");
            return Ok(());
        };
        let (op, relation, row) = match message {
            RowsMessage::Header(header) => {
                let replace = header.replace;
                let relation = header.into_relation();
                let relation = match self.relations.get(&relation.oid()) {
                    Some(Entry::Known(known)) if *known.relation == relation => known.relation.clone(),
                    _ => relation.into(),
                };
                open.rows_of = Some(relation.clone());
                if !replace {
                    return Ok(());
                }
                (Op::Truncate, relation, None)
            }
            RowsMessage::Row(row) => match &open.rows_of {
                Some(relation) => (Op::Insert, relation.clone(), Some(row)),
                None => {
                    ignored("malformed");
                    return Ok(());
                }
            },
        };
        if !open.next_change(self.settings.part_bytes_max, &mut self.output.parts) {
            return Ok(());
        }
        // Such rows have no mark, and so the table has no images after them.
        if let Some(images) = &mut self.images {
            let at = Cursor::new(open.builder.transaction().start.lsn(), open.builder.next_seq());
            images.clear(relation.oid(), at);
        }
        let mut change = open.builder.change(op, &relation);
        if let Some(row) = row {
            if relation.columns().iter().any(|column| column.key) {
                infallible(change.key(|out| rows_message::key(&relation, row, out)));
            }
            infallible(change.row(|out| {
                out.extend_from_slice(row);
                Ok(())
            }));
        }
        change.finish().map_err(|_| AssembleError::TooLarge { relation: relation.name().to_string() })
    }
}

/// What there is to render a change with.
struct Kept<'a> {
    known: &'a Known,
    /// With room in its part for the change.
    open: &'a mut Open,
    values: Values<'a>,
    failed: &'a mut Vec<(usize, ValueError)>,
    images: Option<&'a mut Images>,
    /// The change's position.
    at: Cursor,
}

fn ignored(reason: &'static str) {
    metrics::counter!(MESSAGES_IGNORED_TOTAL, "reason" => reason).increment(1);
}

fn infallible(result: Result<(), std::convert::Infallible>) {
    let Ok(()) = result;
}

/// Ends a change, and says which of its values are not what `to_jsonb` prints.
fn finish<E>(
    finished: Result<(), E>,
    known: &Known,
    failed: &mut Vec<(usize, ValueError)>,
) -> Result<(), AssembleError> {
    for (index, error) in failed.drain(..) {
        metrics::counter!(VALUE_FALLBACKS_TOTAL).increment(1);
        known.warn_once(index, &error);
    }
    finished.map_err(|_| AssembleError::TooLarge { relation: known.relation.name().to_string() })
}
