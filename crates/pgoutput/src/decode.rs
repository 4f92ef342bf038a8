//! From the payload of an `XLogData` frame to a [`Message`], one file per family of messages.
//!
//! ```text
//!            S (StreamStart)
//!  between ───────────────────► inside a stream: R Y I U D T M carry a transaction id first
//!          ◄───────────────────
//!            E (StreamStop)
//! ```
//!
//! Whether that id is there follows from the stream's state alone, not from the protocol version.

mod change;
mod definition;
mod stream;
mod transaction;
mod two_phase;

use std::fmt;

use bytes::{Buf, Bytes};

use crate::message::Message;
use crate::reader::Reader;

/// Decodes the messages of one connection, in order. A new connection needs a new decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    in_stream: bool,
}

/// The type byte of a message, printed as the documentation spells it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(u8);

impl From<u8> for Tag {
    fn from(byte: u8) -> Self {
        Self(byte)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_ascii())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why bytes are not a message. Never transient: the same bytes come again after a reconnect, so either the server
/// is newer than this code or one of the two is wrong. Stop and report; skipping a message would lose changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A payload of no bytes.
    #[error("replication message without a type; report it with the server's version")]
    Empty,
    /// A type byte that no protocol version up to 4 has.
    #[error("unknown replication message {tag}; this server speaks a newer protocol than walcast")]
    Unknown {
        /// The type byte.
        tag: Tag,
    },
    /// A field, or what its length promises, does not fit into the bytes that are left.
    #[error(
        "replication message {message} ends inside {field}, {left} bytes left; report it with the server's version"
    )]
    Truncated {
        /// The message's type.
        message: Tag,
        /// What was being read.
        field: &'static str,
        /// The bytes that were left for it.
        left: usize,
    },
    /// Bytes after the last field.
    #[error("replication message {message} has {bytes} bytes too many; report it with the server's version")]
    Trailing {
        /// The message's type.
        message: Tag,
        /// How many bytes.
        bytes: usize,
    },
    /// A byte that has no meaning in its place.
    #[error(
        "replication message {message} has {value:#04x} for {field}; report it with the server's version"
    )]
    Invalid {
        /// The message's type.
        message: Tag,
        /// What was being read.
        field: &'static str,
        /// The byte.
        value: u8,
    },
    /// A message that cannot stand inside a stream, or not outside of one.
    #[error("replication message {message} out of place ({state}); report it with the server's version")]
    Misplaced {
        /// The message's type.
        message: Tag,
        /// Where it came.
        state: &'static str,
    },
}

impl Decoder {
    /// A decoder for a connection whose stream starts now.
    #[must_use]
    pub const fn new() -> Self {
        Self { in_stream: false }
    }

    /// Decodes one message; texts and tuples of the result are slices of `payload`.
    ///
    /// # Errors
    /// See [`DecodeError`]; the decoder's state is then as it was.
    pub fn decode(&mut self, mut payload: Bytes) -> Result<Message, DecodeError> {
        let tag = *payload.first().ok_or(DecodeError::Empty)?;
        payload.advance(1);
        self.check_place(tag)?;
        let mut reader = Reader::new(tag, payload);
        let message = self.read(&mut reader)?;
        reader.finish()?;
        match message {
            Message::StreamStart(_) => self.in_stream = true,
            Message::StreamStop => self.in_stream = false,
            _ => {}
        }
        Ok(message)
    }

    /// Inside a stream only changes and what belongs to them may come, outside no end of one.
    fn check_place(&self, tag: u8) -> Result<(), DecodeError> {
        let state = match (self.in_stream, tag) {
            (true, b'B' | b'C' | b'S' | b'c' | b'A' | b'b' | b'P' | b'K' | b'r' | b'p') => "inside a stream",
            (false, b'E') => "outside a stream",
            _ => return Ok(()),
        };
        Err(DecodeError::Misplaced { message: tag.into(), state })
    }

    fn read(&self, reader: &mut Reader) -> Result<Message, DecodeError> {
        Ok(match reader.tag() {
            b'I' => Message::Insert(change::insert(reader, self.in_stream)?),
            b'U' => Message::Update(change::update(reader, self.in_stream)?),
            b'D' => Message::Delete(change::delete(reader, self.in_stream)?),
            b'T' => Message::Truncate(change::truncate(reader, self.in_stream)?),
            b'M' => Message::LogicalMessage(change::logical_message(reader, self.in_stream)?),
            b'B' => Message::Begin(transaction::begin(reader)?),
            b'C' => Message::Commit(transaction::commit(reader)?),
            b'O' => Message::Origin(transaction::origin(reader)?),
            b'R' => Message::Relation(definition::relation(reader, self.in_stream)?),
            b'Y' => Message::Type(definition::type_definition(reader, self.in_stream)?),
            b'S' => Message::StreamStart(stream::start(reader)?),
            b'E' => Message::StreamStop,
            b'c' => Message::StreamCommit(stream::commit(reader)?),
            b'A' => Message::StreamAbort(stream::abort(reader)?),
            b'b' => Message::BeginPrepare(two_phase::begin_prepare(reader)?),
            b'P' => Message::Prepare(two_phase::prepare(reader)?),
            b'K' => Message::CommitPrepared(two_phase::commit_prepared(reader)?),
            b'r' => Message::RollbackPrepared(two_phase::rollback_prepared(reader)?),
            b'p' => Message::StreamPrepare(two_phase::prepare(reader)?),
            tag => return Err(DecodeError::Unknown { tag: tag.into() }),
        })
    }
}

/// The transaction id that messages carry inside a stream.
fn stream_xid(reader: &mut Reader, in_stream: bool) -> Result<Option<u32>, DecodeError> {
    in_stream.then(|| reader.u32("transaction id")).transpose()
}
