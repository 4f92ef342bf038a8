//! Messages in and out of a [`Stream`], and the simple query protocol: all that a walsender understands.

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, ServerError, Stream};

/// The rows of a simple query: each value in its text form, `None` for NULL.
pub type TextRows = Vec<Vec<Option<String>>>;

/// The tag of `CopyBothResponse`, which `postgres_protocol` does not know.
const COPY_BOTH_TAG: u8 = b'W';

/// Longest message accepted from a server before it has let us in, in bytes: whatever answers there may be no
/// Postgres at all.
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// The step by which the buffer grows, in bytes: a header alone never makes us allocate what it announces.
const GROWTH_BYTES_MAX: usize = 1024 * 1024;

/// A connection at the level of messages: what has been read and not yet taken is kept in `inbound`.
#[derive(Debug)]
pub struct Wire {
    /// The stream.
    pub stream: Stream,
    /// Bytes received and not yet taken.
    pub inbound: BytesMut,
}

impl Wire {
    /// Wraps a stream on which nothing is under way.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, inbound: BytesMut::with_capacity(8 * 1024) }
    }

    /// Sends finished messages.
    ///
    /// # Errors
    /// When the connection broke. Not cancel-safe: a part may have been sent.
    pub async fn send(&mut self, messages: &[u8]) -> Result<(), Error> {
        self.stream.write_all(messages).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message, of whatever kind `postgres_protocol` knows (not `CopyBothResponse`: peek at
    /// [`Wire::next_header`] first). Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream, [`Error::Protocol`] for what is no message.
    pub async fn next_message(&mut self) -> Result<Message, Error> {
        loop {
            let parsed = Message::parse(&mut self.inbound);
            if let Some(message) = parsed.map_err(|error| Error::Protocol(error.to_string()))? {
                return Ok(message);
            }
            self.read_more().await?;
        }
    }

    /// Tag and length of the next message, without taking it. Cancel-safe.
    ///
    /// # Errors
    /// As [`Wire::next_message`].
    pub async fn next_header(&mut self) -> Result<Header, Error> {
        loop {
            let header = Header::parse(&self.inbound).map_err(|error| Error::Protocol(error.to_string()))?;
            if let Some(header) = header {
                return Ok(header);
            }
            self.read_more().await?;
        }
    }

    /// Runs statements by the simple query protocol and returns the rows of all of them. Text that is not UTF-8 has
    /// U+FFFD in its place.
    ///
    /// # Errors
    /// The server's error, after which the connection is good for the next statement; other errors end it. Not
    /// cancel-safe: dropping the future leaves an answer under way, and the connection has to be dropped too.
    pub async fn simple_query(&mut self, sql: &str) -> Result<TextRows, Error> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.next_message().await {
                Ok(Message::DataRow(row)) => rows.push(text_row(&row)?),
                Ok(Message::ErrorResponse(body)) => failure = Some(Error::from_response(&body)),
                Ok(Message::NoticeResponse(body)) => {
                    tracing::debug!(notice = %ServerError::from_fields(body.fields()), "Postgres said");
                }
                Ok(Message::ReadyForQuery(_)) => return failure.map_or(Ok(rows), Err),
                Ok(Message::CopyInResponse(_) | Message::CopyOutResponse(_)) => {
                    return Err(Error::Protocol("a COPY where rows were expected".into()));
                }
                Ok(_) => {}
                // A fatal error is followed by the end of the stream.
                Err(error) => return Err(failure.unwrap_or(error)),
            }
        }
    }

    /// Runs a statement that turns the connection into a stream in both directions (`START_REPLICATION`), and returns
    /// when it has.
    ///
    /// # Errors
    /// As [`Wire::simple_query`].
    pub async fn start_copy_both(&mut self, sql: &str) -> Result<(), Error> {
        self.send_query(sql).await?;
        let mut failure = None;
        loop {
            let header = match self.next_header().await {
                Ok(header) => header,
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            if header.tag() == COPY_BOTH_TAG {
                return self.skip(1 + usize::try_from(header.len()).unwrap_or_default()).await;
            }
            match self.next_message().await? {
                Message::ErrorResponse(body) => failure = Some(Error::from_response(&body)),
                Message::ReadyForQuery(_) => {
                    return Err(failure.unwrap_or_else(|| Error::Protocol("no stream was started".into())));
                }
                _ => {}
            }
        }
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|_| Error::Protocol("a statement holds a NUL".into()))?;
        self.send(&message).await
    }

    async fn skip(&mut self, length: usize) -> Result<(), Error> {
        while self.inbound.len() < length {
            self.read_more().await?;
        }
        self.inbound.advance(length);
        Ok(())
    }

    /// A message of a server that has not let us in yet: short, or it is no Postgres.
    pub(crate) async fn next_greeting(&mut self) -> Result<Message, Error> {
        let header = self.next_header().await?;
        let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
        // Before 14 a server that could not even start a process answered in the form of protocol 2.
        if header.tag() == b'E' && length > GREETING_BYTES_MAX {
            let text = String::from_utf8_lossy(&self.inbound[1..]);
            let text = text.split('\0').next().unwrap_or_default().trim().to_owned();
            return Err(Error::Protocol(text));
        }
        if !matches!(header.tag(), b'R' | b'E' | b'N' | b'S' | b'K' | b'Z') || length > GREETING_BYTES_MAX {
            return Err(Error::Protocol("what answers there is not a Postgres server".into()));
        }
        self.next_message().await
    }

    async fn read_more(&mut self) -> Result<(), Error> {
        let spare = self.inbound.len().clamp(8 * 1024, GROWTH_BYTES_MAX);
        self.inbound.reserve(spare);
        if self.stream.read_buf(&mut self.inbound).await? == 0 {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

fn text_row(row: &DataRowBody) -> Result<Vec<Option<String>>, Error> {
    let text = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&row.buffer()[range]).into_owned()))
    };
    row.ranges().map(text).collect().map_err(|error| Error::Protocol(error.to_string()))
}
