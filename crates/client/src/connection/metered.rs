//! A stream that counts what it receives.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Transport;

/// How much of what a connection receives first is kept, in bytes: enough to tell what answers.
const FIRST_BYTES: usize = 40;

/// What a connection has received: how much, since a message that takes long is no silence and the WebSocket only tells of
/// whole ones; and the first of it, to name what answers where that is no walcast.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicU64,
    first: OnceLock<Vec<u8>>,
}

impl Received {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// The start of what came first.
    pub(super) fn first(&self) -> &[u8] {
        self.0.first.get().map_or(&[], Vec::as_slice)
    }

    fn add(&self, received: &[u8]) {
        if !received.is_empty() && self.0.bytes.fetch_add(received.len() as u64, Ordering::Relaxed) == 0 {
            self.0.first.get_or_init(|| received.iter().copied().take(FIRST_BYTES).collect());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metered {
    stream: Transport,
    received: Received,
}

impl Metered {
    pub(super) const fn new(stream: Transport, received: Received) -> Self {
        Self { stream, received }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.received.add(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
