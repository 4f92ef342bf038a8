//! The writing side of a WebSocket: whole frames, of which large payloads are shared with other connections.
//!
//! A server does not mask its frames (RFC 6455 section 5.1), so a payload is the same bytes for every client: it is
//! encoded once and written from where it is. tungstenite reads, answers pings and keeps the rules; what it writes
//! (whole control frames) is queued behind the frame before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use walcast_protocol::CloseCode;

use crate::encode::Frame;

/// Payloads below it are copied into the batch: cheaper than a piece of their own in the system call.
const COPY_BYTES_MAX: usize = 2048;
/// Pieces in one system call.
const PIECES_MAX: usize = 64;
/// Final text frame (RFC 6455 section 5.2).
const TEXT: u8 = 0x81;
/// Ping frame.
const PING: u8 = 0x89;
/// Final close frame.
const CLOSE: u8 = 0x88;

/// A socket, and what is on its way to it.
#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: S,
    /// Whole frames, but for the front that was written in part.
    pieces: VecDeque<Bytes>,
    /// What follows them and is still being collected.
    small: BytesMut,
    pending_bytes: usize,
    /// The socket has bytes that it may not have passed on: TLS holds what its own socket did not take.
    unflushed: bool,
}

impl<S> Wire<S> {
    pub(super) const fn new(socket: S, small: BytesMut) -> Self {
        Self { socket, pieces: VecDeque::new(), small, pending_bytes: 0, unflushed: false }
    }

    /// Whether everything has left.
    pub(super) const fn is_clear(&self) -> bool {
        self.pending_bytes == 0 && !self.unflushed
    }

    /// Bytes that are on their way to the socket.
    pub(super) const fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub(super) const fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Queues a text frame.
    pub(super) fn push(&mut self, frame: Frame) {
        let (header, length) = header(TEXT, frame.len());
        let is_small = frame.tail.len() < COPY_BYTES_MAX;
        // Once for the whole frame, where it is the first.
        self.small.reserve(length + if is_small { frame.len() } else { frame.head.len() });
        self.append(header.get(..length).unwrap_or_default());
        self.append(&frame.head);
        if is_small {
            self.append(&frame.tail);
            return;
        }
        self.seal();
        self.pending_bytes += frame.tail.len();
        self.pieces.push_back(frame.tail);
    }

    /// Queues a ping without content, which every client answers by itself.
    pub(super) fn push_ping(&mut self) {
        self.append(&[PING, 0]);
    }

    /// Queues a close frame.
    pub(super) fn push_close(&mut self, code: u16, reason: &str) {
        // A control frame has at most 125 bytes; our reasons are shorter.
        let reason = reason.get(..reason.len().min(120)).unwrap_or_default();
        let (header, length) = header(CLOSE, 2 + reason.len());
        self.append(header.get(..length).unwrap_or_default());
        self.append(&code.to_be_bytes());
        self.append(reason.as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
        self.pending_bytes += bytes.len();
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    /// Writes what the socket takes. Ready when all is written.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending_bytes > 0 {
            let written = ready!(self.poll_some(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        // An idle connection keeps no buffer.
        self.small = BytesMut::new();
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if self.pieces.is_empty() {
            return socket.poll_write(cx, &self.small);
        }
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for (slice, piece) in
            slices.iter_mut().zip(self.pieces.iter().map(|piece| &**piece).chain([&*self.small]))
        {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        socket.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        self.pending_bytes -= written;
        while let Some(front) = self.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
        self.small.advance(written);
    }
}

/// The header of an unmasked frame: its bytes, and how many of them count.
fn header(kind: u8, length: usize) -> ([u8; 10], usize) {
    let mut out = [0_u8; 10];
    out[0] = kind;
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out[1] = short;
        return (out, 2);
    }
    if let Ok(medium) = u16::try_from(length) {
        out[1] = 126;
        out[2..4].copy_from_slice(&medium.to_be_bytes());
        return (out, 4);
    }
    out[1] = 127;
    out[2..10].copy_from_slice(&(length as u64).to_be_bytes());
    (out, 10)
}

/// The words that go with a close code.
pub(super) const fn reason(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Restart => "the daemon goes down",
        CloseCode::Policy => "see the error before",
        CloseCode::TooBig => "the message is over limits.message_bytes_max",
        CloseCode::Unauthorized => "unauthorized",
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

/// What tungstenite writes: whole control frames, which are queued. Bounded, because nothing is read from a client
/// that does not read.
impl<S: Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use futures_util::StreamExt;
    use std::future::poll_fn;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::Wire;
    use crate::encode::{Frame, Says};

    #[tokio::test]
    async fn frames_of_every_length_arrive_whole_through_a_narrow_socket() {
        let lengths = [0, 1, 80, 125, 126, 127, 2047, 2048, 65_500, 65_535, 65_536, 70_000, 300_000];
        let (near, far) = tokio::io::duplex(777);
        let mut wire = Wire::new(near, BytesMut::new());
        for length in lengths {
            let tail = vec![b'x'; length].into();
            wire.push(Frame { head: Bytes::from_static(b"<>"), tail, says: Says::Other("test") });
        }
        wire.push_close(1001, "bye");
        let queued = wire.pending_bytes();
        assert!(queued > lengths.iter().sum::<usize>());
        let writing = tokio::spawn(async move {
            poll_fn(|cx| wire.poll_send(cx)).await.unwrap();
            wire.pending_bytes()
        });
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        for length in lengths {
            let text = client.next().await.unwrap().unwrap().into_text().unwrap();
            assert_eq!((text.len(), &text[..2]), (length + 2, "<>"));
        }
        let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else { panic!("no close") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "bye"));
        assert_eq!(writing.await.unwrap(), 0);
    }
}
