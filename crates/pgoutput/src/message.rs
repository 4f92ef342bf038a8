//! The messages of logical replication, protocol versions 1 to 4.
//!
//! Layouts are those of the Postgres documentation, "Logical Replication Message Formats"; where a field's
//! meaning differs from what is written there, it says so. Transaction ids are the 32 bits that the WAL carries.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use walcast_model::{CommitEnd, CommitStart, Lsn, Oid, ReplicaIdentity, Timestamp};

use crate::tuple::{OldTuple, Tuple};

/// One message of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// `B`: a committed transaction begins.
    Begin(Begin),
    /// `C`: the transaction is complete.
    Commit(Commit),
    /// `O`: the transaction was replicated here from elsewhere.
    Origin(Origin),
    /// `R`: a table, as it is at this point of the WAL. Sent before its first change and again after many commands.
    Relation(RelationDefinition),
    /// `Y`: a type that is not built in.
    Type(TypeDefinition),
    /// `I`: a new row.
    Insert(Insert),
    /// `U`: a changed row.
    Update(Update),
    /// `D`: a row that is gone.
    Delete(Delete),
    /// `T`: tables that were emptied.
    Truncate(Truncate),
    /// `M`: what `pg_logical_emit_message` wrote.
    LogicalMessage(LogicalMessage),
    /// `S`: changes of a transaction that is still in progress follow.
    StreamStart(StreamStart),
    /// `E`: they end, for now.
    StreamStop,
    /// `c`: a streamed transaction has committed.
    StreamCommit(StreamCommit),
    /// `A`: a streamed transaction, or a subtransaction of it, has rolled back. PG 18 sends it without streaming
    /// as well, for big transactions that rolled back: such a one means nothing.
    StreamAbort(StreamAbort),
    /// `b`: a transaction that was prepared for two-phase commit begins.
    BeginPrepare(BeginPrepare),
    /// `P`: the prepared transaction is complete.
    Prepare(Prepare),
    /// `K`: a prepared transaction has committed.
    CommitPrepared(CommitPrepared),
    /// `r`: a prepared transaction has rolled back.
    RollbackPrepared(RollbackPrepared),
    /// `p`: a streamed transaction was prepared.
    StreamPrepare(Prepare),
}

/// A name as the server spells it, in the client encoding; any bytes but NUL in a SQL_ASCII database.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Name(Bytes);

impl Name {
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes as they came.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

/// See [`Message::Begin`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begin {
    /// Where the commit record starts (`final_lsn`): the transaction's place in the order of commits.
    pub start: CommitStart,
    /// When it committed.
    pub committed_at: Timestamp,
    /// The top-level transaction id.
    pub xid: u32,
}

/// See [`Message::Commit`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Where the commit record starts (`commit_lsn`), as in [`Begin::start`].
    pub start: CommitStart,
    /// The byte after the commit record (`end_lsn`).
    pub end: CommitEnd,
    /// When it committed.
    pub committed_at: Timestamp,
}

/// See [`Message::Origin`]: after `Begin` and before the changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The commit's position on the server it came from.
    pub lsn: Lsn,
    /// The origin's name.
    pub name: Name,
}

/// See [`Message::Relation`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationDefinition {
    /// The transaction that the definition was sent for; only inside a stream.
    pub stream_xid: Option<u32>,
    /// The table's object id.
    pub oid: Oid,
    /// The schema; empty for `pg_catalog`.
    pub schema: Name,
    /// The table.
    pub name: Name,
    /// Which old columns UPDATE and DELETE carry.
    pub identity: ReplicaIdentity,
    /// The published columns, in the order of the tuples.
    pub columns: Vec<RelationColumn>,
}

/// One column of a [`RelationDefinition`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationColumn {
    /// Part of the replica identity. With REPLICA IDENTITY FULL every column is, so it is not the primary key.
    pub identity: bool,
    /// The column.
    pub name: Name,
    /// The type's object id.
    pub type_oid: Oid,
    /// The type's modifier (`pg_attribute.atttypmod`); -1 for none.
    pub type_modifier: i32,
}

/// See [`Message::Type`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeDefinition {
    /// The transaction that the definition was sent for; only inside a stream.
    pub stream_xid: Option<u32>,
    /// The type's object id; a domain's own.
    pub oid: Oid,
    /// The schema; empty for `pg_catalog`. For a domain that of its base type.
    pub schema: Name,
    /// The type; for a domain its base type.
    pub name: Name,
}

/// See [`Message::Insert`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Insert {
    /// The (sub)transaction; only inside a stream.
    pub stream_xid: Option<u32>,
    /// The table.
    pub relation: Oid,
    /// The row.
    pub new: Tuple,
}

/// See [`Message::Update`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// The (sub)transaction; only inside a stream.
    pub stream_xid: Option<u32>,
    /// The table.
    pub relation: Oid,
    /// The row before: its key when that changed *or is stored out of line*, the whole row with REPLICA IDENTITY
    /// FULL, otherwise nothing.
    pub old: Option<OldTuple>,
    /// The row after.
    pub new: Tuple,
}

/// See [`Message::Delete`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// The (sub)transaction; only inside a stream.
    pub stream_xid: Option<u32>,
    /// The table.
    pub relation: Oid,
    /// The row that is gone.
    pub old: OldTuple,
}

/// See [`Message::Truncate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncate {
    /// The (sub)transaction; only inside a stream.
    pub stream_xid: Option<u32>,
    /// With CASCADE.
    pub cascade: bool,
    /// With RESTART IDENTITY.
    pub restart_identity: bool,
    /// All published tables of the statement.
    pub relations: Vec<Oid>,
}

/// See [`Message::LogicalMessage`].
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// The transaction; only inside a stream. The top-level one, also in a subtransaction.
    pub stream_xid: Option<u32>,
    /// Part of a transaction; otherwise it was sent at once, before the transaction that wrote it.
    pub transactional: bool,
    /// Where it stands in the WAL: what `pg_logical_emit_message` returned.
    pub lsn: Lsn,
    /// Who it is for.
    pub prefix: Name,
    /// What it says: raw bytes, not converted to the client encoding. Any role can write any prefix and content.
    pub content: Bytes,
}

impl fmt::Debug for LogicalMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("stream_xid", &self.stream_xid)
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}

/// See [`Message::StreamStart`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamStart {
    /// The top-level transaction.
    pub xid: u32,
    /// Whether this is its first block.
    pub first: bool,
}

/// See [`Message::StreamCommit`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamCommit {
    /// The top-level transaction.
    pub xid: u32,
    /// Where the commit record starts.
    pub start: CommitStart,
    /// The byte after the commit record.
    pub end: CommitEnd,
    /// When it committed.
    pub committed_at: Timestamp,
}

/// See [`Message::StreamAbort`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: u32,
    /// What has rolled back: a subtransaction, or the same as [`StreamAbort::xid`].
    pub subxid: u32,
    /// Where the abort record is, and when; only with `streaming 'parallel'`.
    pub aborted: Option<(Lsn, Timestamp)>,
}

/// See [`Message::BeginPrepare`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BeginPrepare {
    /// Where the prepare record starts.
    pub prepare: Lsn,
    /// The byte after the prepare record.
    pub end: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// The top-level transaction id.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: Name,
}

/// See [`Message::Prepare`] and [`Message::StreamPrepare`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare {
    /// Where the prepare record starts.
    pub prepare: Lsn,
    /// The byte after the prepare record.
    pub end: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// The top-level transaction id.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: Name,
}

/// See [`Message::CommitPrepared`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitPrepared {
    /// Where the commit record starts.
    pub start: CommitStart,
    /// The byte after the commit record.
    pub end: CommitEnd,
    /// When it committed.
    pub committed_at: Timestamp,
    /// The top-level transaction id.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: Name,
}

/// See [`Message::RollbackPrepared`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollbackPrepared {
    /// The byte after the prepare record.
    pub prepare_end: Lsn,
    /// The byte after the rollback record.
    pub rollback_end: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When it rolled back.
    pub rolled_back_at: Timestamp,
    /// The top-level transaction id.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: Name,
}
