//! The stream of a slot.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use walcast_postgres::{Error, Registration, Stream, Wire};

use super::feedback::{Feedback, Schedule, send_status_updates};
use super::frame::{End, StreamFrame, Taken, header, take_frames};
use super::pace::Pace;
use super::{ReplicationConnection, ReplicationSettings};

/// Bounds of one read, in bytes: it starts low and doubles while reads fill it.
const READ_BYTES_MIN: usize = 64 * 1024;
const READ_BYTES_MAX: usize = 1024 * 1024;

/// What a slot sends. Dropping it ends the connection; the slot is then free within moments.
#[derive(Debug)]
pub struct ReplicationStream {
    reader: ReadHalf<Stream>,
    inbound: BytesMut,
    read_bytes: usize,
    pace: Pace,
    registration: Registration,
    feedback: Feedback,
    status: AbortOnDropHandle<std::io::Result<WriteHalf<Stream>>>,
    finish: CancellationToken,
    /// Set once and for all: who asks again gets the same answer.
    end: Option<End>,
    server_version: u32,
    process_id: i32,
    settings: ReplicationSettings,
}

impl ReplicationStream {
    /// Takes over a connection whose stream has just been started. Must run inside a Tokio runtime.
    pub(super) fn new(connection: ReplicationConnection) -> Self {
        let ReplicationConnection { wire, server_version, process_id, settings, .. } = connection;
        let registration = wire.stream.registration();
        let (reader, writer) = tokio::io::split(wire.stream);
        let schedule =
            Schedule { interval: settings.effective_status_interval(), coalesce: settings.status_coalesce };
        let (feedback, finish) = (Feedback::default(), CancellationToken::new());
        let status = tokio::spawn(send_status_updates(writer, feedback.clone(), schedule, finish.clone()));
        Self {
            reader,
            inbound: wire.inbound,
            read_bytes: READ_BYTES_MIN,
            pace: Pace::new(settings.has_own_thread),
            registration,
            feedback,
            status: AbortOnDropHandle::new(status),
            finish,
            end: None,
            server_version,
            process_id,
            settings,
        }
    }

    /// Waits for at least one frame and appends all that have arrived to `frames`. Cancel-safe: nothing is lost when the
    /// future is dropped.
    ///
    /// In a burst of messages it lets bytes gather for up to 2 ms before it reads again, which spares the walsender
    /// work; single changes are not delayed. The frames are slices of what was read in one go (up to 1 MiB, or one frame
    /// when that is longer), which stays in memory until the last of them is dropped.
    ///
    /// # Errors
    /// Once the stream is over, always the same: the server's error with its SQLSTATE, [`Error::StreamEnded`] when it
    /// shuts down, [`Error::Closed`] or [`Error::Io`] when the connection is gone, [`Error::Protocol`]. Frames that
    /// came before it are delivered first.
    pub async fn next(&mut self, frames: &mut Vec<StreamFrame>) -> Result<(), Error> {
        let before = frames.len();
        loop {
            if let Some(end) = &self.end {
                return Err(error_of(end));
            }
            let missing = match take_frames(&mut self.inbound, frames) {
                Taken::Incomplete(missing) => missing,
                Taken::End(end) => {
                    self.end = Some(end);
                    0
                }
            };
            if frames.len() > before {
                self.account_for(&frames[before..]);
                return Ok(());
            }
            if self.end.is_none() {
                self.read(missing).await;
            }
        }
    }

    /// The handle by which the server learns how far we are.
    #[must_use]
    pub fn feedback(&self) -> Feedback {
        self.feedback.clone()
    }

    /// The walsender, as in `pg_stat_replication.pid`.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Ends the stream in good order: sends the last status update and `CopyDone`, and throws away what the server still
    /// sends until it is done too. In the middle of a transaction that is the rest of it, so limit the wait; dropping
    /// the future ends the connection. What is left is good for commands, not for another stream.
    ///
    /// # Errors
    /// As [`ReplicationStream::next`].
    pub async fn finish(mut self) -> Result<ReplicationConnection, Error> {
        if let Some(end) = &self.end {
            return Err(error_of(end));
        }
        self.finish.cancel();
        let writer = (&mut self.status).await.map_err(|error| Error::Protocol(error.to_string()))??;
        self.drain().await?;
        let wire = Wire { stream: self.reader.unsplit(writer), inbound: self.inbound };
        Ok(ReplicationConnection {
            wire,
            server_version: self.server_version,
            process_id: self.process_id,
            settings: self.settings,
            streamed: true,
        })
    }

    /// Takes everything up to `ReadyForQuery`: data, the server's `CopyDone`, and its two `CommandComplete`.
    async fn drain(&mut self) -> Result<(), Error> {
        loop {
            let missing = match header(&self.inbound) {
                Some((_, length)) if length < 5 => return Err(Error::Protocol("a message too short".into())),
                Some((tag, length)) if self.inbound.len() >= length => {
                    let message = self.inbound.split_to(length);
                    match tag {
                        b'E' => return Err(walcast_postgres::ServerError::from_body(&message[5..]).into()),
                        b'Z' => return Ok(()),
                        _ => continue,
                    }
                }
                Some((_, length)) => length - self.inbound.len(),
                None => 5 - self.inbound.len(),
            };
            self.read(missing).await;
            if let Some(end) = &self.end {
                return Err(error_of(end));
            }
        }
    }

    fn account_for(&self, frames: &[StreamFrame]) {
        if frames.iter().any(|frame| matches!(frame, StreamFrame::XLogData { .. })) {
            self.feedback.stir();
        }
        for frame in frames {
            match frame {
                StreamFrame::XLogData { start, .. } => self.feedback.received(*start),
                StreamFrame::Keepalive { wal_end, reply_requested, .. } => {
                    self.feedback.received(*wal_end);
                    if *reply_requested {
                        self.feedback.request_reply();
                    }
                }
                StreamFrame::Notice(_) => {}
            }
        }
    }

    /// Reads once, as much as there is. Cancel-safe: what was read is in the buffer, or was not read.
    async fn read(&mut self, missing: usize) {
        // A frame longer than the buffer: grow with what has really come, not with what a header announces.
        let wanted = missing.min(self.inbound.len().max(READ_BYTES_MAX)).max(self.read_bytes);
        if self.inbound.capacity() - self.inbound.len()
            < wanted.min(READ_BYTES_MIN / 4).max(missing.min(wanted))
        {
            self.inbound.reserve(wanted);
        }
        let spare = self.inbound.capacity() - self.inbound.len();
        if self.pace.is_burst() {
            self.registration.suspend()
        } else {
            self.registration.resume()
        }
        self.pace.pause().await;
        let read = self.reader.read_buf(&mut self.inbound).await;
        self.pace.after_read(*read.as_ref().unwrap_or(&0), Instant::now());
        match read {
            Ok(0) => self.end = Some(End::Closed),
            Ok(read) if read == spare => self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX),
            Ok(_) => {}
            Err(error) => self.end = Some(End::Broken(error.kind(), error.to_string())),
        }
    }
}

fn error_of(end: &End) -> Error {
    match end {
        End::Error(error) => Error::Server(error.clone()),
        End::Server => Error::StreamEnded,
        End::Closed => Error::Closed,
        End::Broken(kind, message) => Error::Io(std::io::Error::new(*kind, message.clone())),
        End::Protocol(problem) => Error::Protocol(problem.clone()),
    }
}
