//! What a client is told whose request cannot be read as HTTP.
//!
//! Such a request comes to no path: hyper answers it, with a status and nothing else. Most often it is a URL with characters
//! that have to be escaped, so it is worth words. Before the first request of a connection was handed to the paths, nothing
//! but that answer can be written, so whatever is written then is replaced by ours. A later request of the same connection
//! that cannot be read has hyper's answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use walcast_protocol::ErrorCode;

use crate::metrics as names;

/// Whether a request of the connection was handed to the paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Understood(Arc<AtomicBool>);

impl Understood {
    /// One was.
    pub(super) fn set(&self) {
        // Set and looked at by the one task of the connection.
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that answers for itself until a request was understood.
#[derive(Debug)]
pub(super) struct Answering<S> {
    transport: S,
    understood: Understood,
    /// What is left to be written of its own answer, once there is one.
    answer: Option<Bytes>,
}

impl<S> Answering<S> {
    pub(super) const fn new(transport: S, understood: Understood) -> Self {
        Self { transport, understood, answer: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.transport
    }
}

impl<S: AsyncWrite + Unpin> Answering<S> {
    /// Writes its own answer instead of `head`, of which all is taken then.
    fn poll_answer(&mut self, cx: &mut Context<'_>, head: &[u8], bytes: usize) -> Poll<io::Result<usize>> {
        let answer = self.answer.get_or_insert_with(|| answer(head));
        while answer.has_remaining() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, answer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            answer.advance(written);
        }
        Poll::Ready(Ok(bytes))
    }
}

/// The answer, with the status that `head` has.
fn answer(head: &[u8]) -> Bytes {
    metrics::counter!(names::ERRORS, "code" => ErrorCode::BadMessage.to_string()).increment(1);
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (message, hint) = if line.contains(" 400 ") {
        (
            "the request cannot be read as HTTP: its URL is not escaped, or something else than HTTP is spoken",
            "escape what the URL says: a space is %20, > is %3E, < is %3C; curl does it with \
             -G --data-urlencode 'where=total > 100'",
        )
    } else {
        ("the URL, or all headers together, are too long", "send less; a request's head may have 16 KiB")
    };
    let body = json!({"code": ErrorCode::BadMessage, "message": message, "hint": hint}).to_string();
    let length = body.len();
    let head = format!(
        "{line}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    Bytes::from(head + &body)
}

impl<S: AsyncRead + Unpin> AsyncRead for Answering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.understood.get() {
            return Pin::new(&mut this.transport).poll_write(cx, bytes);
        }
        this.poll_answer(cx, bytes, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.understood.get() {
            return Pin::new(&mut this.transport).poll_write_vectored(cx, buffers);
        }
        let head = buffers.first().map(|buffer| &**buffer).unwrap_or_default();
        this.poll_answer(cx, head, buffers.iter().map(|buffer| buffer.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
