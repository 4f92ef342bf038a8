//! Lets `tokio_postgres` take over a connection that is already authenticated.
//!
//! It insists on starting the conversation itself, and knows neither our startup parameters nor our rules about
//! passwords. So its startup message is swallowed, and what the server answered to ours is played back to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Connection, Stream};

/// A stream that begins with what the server has said already.
pub(super) struct Replay {
    stream: Stream,
    /// What is read before the stream itself.
    said: BytesMut,
    swallowed_startup: bool,
}

impl Replay {
    pub(super) fn new(connection: Connection) -> Self {
        let mut said = BytesMut::new();
        message(&mut said, b'R', |body| body.put_i32(0)); // AuthenticationOk
        for (name, value) in connection.parameters() {
            message(&mut said, b'S', |body| {
                for text in [name, value] {
                    body.put_slice(text.as_bytes());
                    body.put_u8(0);
                }
            });
        }
        message(&mut said, b'K', |body| {
            body.put_i32(connection.process_id());
            body.put_i32(connection.secret_key());
        });
        message(&mut said, b'Z', |body| body.put_u8(b'I'));
        let wire = connection.into_wire();
        said.extend_from_slice(&wire.inbound);
        Self { stream: wire.stream, said, swallowed_startup: false }
    }
}

fn message(out: &mut BytesMut, tag: u8, write_body: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    write_body(&mut body);
    out.put_u8(tag);
    // The length counts itself; these bodies are a few bytes long.
    out.put_u32(u32::try_from(body.len()).unwrap_or_default() + 4);
    out.extend_from_slice(&body);
}

impl AsyncRead for Replay {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.said.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let length = buf.remaining().min(this.said.len());
        buf.put_slice(&this.said[..length]);
        this.said.advance(length);
        if this.said.is_empty() {
            this.said = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.swallowed_startup || buf.is_empty() {
            return Pin::new(&mut this.stream).poll_write(cx, buf);
        }
        this.swallowed_startup = true;
        let announced = buf.first_chunk::<4>().map(|length| u32::from_be_bytes(*length));
        if announced.and_then(|length| usize::try_from(length).ok()) != Some(buf.len()) {
            // The one assumption about tokio_postgres: it writes its startup message in one piece, alone.
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not a startup message")));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
