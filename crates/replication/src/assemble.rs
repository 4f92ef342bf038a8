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
//!   a change ──► Step::NeedsStorage ──► storage_read() ──► goes on
//!   a change ──► Step::NeedsImages ──► images_mut().found() ──► resume() ──► goes on
//! ```
//!
//! The second line is only for tables with columns of types that users can alter, which the WAL does not tell: such types
//! are read again from the catalog after each change's commit, once for all changes that were committed before it. The
//! others are only for tables whose last images are kept (`assemble::images`).
//!
//! Output collects until [`Assembler::take`]. What lies before the position where the feed stands is counted and
//! not rendered: a slot sends transactions again after every crash, and a transaction of which the feed already
//! has some parts from its start.

mod error;
mod images;
mod logical;
mod relation;
mod render;
mod row;
mod rows_message;
mod transaction;
mod types;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::mem;

use walcast_model::{Cursor, DatabaseMessage, Lsn, Oid, Op, Part, RelationName, Transaction, Xid};
use walcast_pgoutput::json::{Conversion, Conversions, Types, ValueError};
use walcast_pgoutput::{Begin, Commit, Message, RelationDefinition};

pub use error::AssembleError;
pub(crate) use images::Images;
pub use images::{ImageQuestion, IsChosen};
pub use relation::{CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts, StorageFacts};
pub use rows_message::{RowsHeader, row_prefix};
pub use types::TypesQuestion;

use logical::Complaints;
use relation::{Entry, Known};
use transaction::Open;

/// The schema that is walcast's own: never part of the feed.
pub const OWN_SCHEMA: &str = "walcast";
/// Prefix of the transactional logical messages in which transactions say something about themselves.
pub const META_PREFIX: &str = "walcast";
/// Prefix of the logical messages, transactional or not, by which the database says something to a channel.
pub const MESSAGE_PREFIX: &str = "walcast.message";
/// Prefix of the transactional logical messages by which barriers come back.
pub const BARRIER_PREFIX: &str = "walcast.barrier";
/// Prefix of the transactional logical messages that carry rows which were there before their table was picked up.
pub const ROWS_PREFIX: &str = "walcast.rows";

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
    /// A change is of a table whose storage was not seen before: look again, and call [`Assembler::storage_read`].
    NeedsStorage(Oid),
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
    /// What the database says to channels, in the order of the WAL: those of transactions the feed lacks the end of, and all
    /// that are in none.
    pub messages: Vec<DatabaseMessage>,
    /// Everything before this position was seen. `None` when nothing ended.
    pub reached: Option<Lsn>,
    /// Transactions that ended, whatever they held.
    pub transactions: u64,
    /// Those with changes that lie before the position as a whole, in order: they were sent again.
    pub sent_again: Vec<Transaction>,
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
    /// The last message outside of transactions that was read; the slot may send it again.
    said_to: Lsn,
    xid_reference: Xid,
    transaction: Option<Open>,
    output: Progress,
    complaints: Complaints,
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
            said_to: Lsn::ZERO,
            xid_reference,
            transaction: None,
            output: Progress::default(),
            complaints: Complaints::default(),
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

    /// Messages outside of transactions up to here were read from a stream before.
    pub const fn said_before(&mut self, said_to: Lsn) {
        self.said_to = said_to;
    }

    /// The last message outside of transactions that was read, from this stream or one before.
    #[must_use]
    pub const fn said_to(&self) -> Lsn {
        self.said_to
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
            Message::Truncate(truncate) => {
                for &relation in &truncate.relations {
                    self.render(relation, Op::Truncate, None, None)?;
                }
            }
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
        let mut open = self.transaction.take().ok_or(AssembleError::Misplaced { message: "a Commit" })?;
        self.output.sent_again.extend(open.sent_again());
        self.output.messages.append(&mut open.messages);
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
        let mut known = Known::new(&definition, answer, &self.types, before);
        let transaction = self.transaction.as_ref().map(|open| open.builder.transaction().xid);
        known.keep_storage(answer.storage, transaction);
        self.has_alterable |= known.is_alterable();
        if let Some(images) = &mut self.images {
            images.define(oid, known.definition());
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
            && let Some(step) = self.storage_question(&message).or_else(|| self.image_question(&message))
        {
            self.waiting = Some(Waiting::Change(message));
            return Ok(step);
        }
        match &message {
            Message::Insert(insert) => self.render(insert.relation, Op::Insert, None, Some(&insert.new))?,
            Message::Update(update) => {
                self.render(update.relation, Op::Update, update.old.as_ref(), Some(&update.new))?;
            }
            Message::Delete(delete) => self.render(delete.relation, Op::Delete, Some(&delete.old), None)?,
            _ => {}
        }
        Ok(Step::Next)
    }
}

fn infallible(result: Result<(), std::convert::Infallible>) {
    let Ok(()) = result;
}
