//! The byte stream to a server, whatever carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::socket::{Registration, Socket};

/// A connected stream: TCP, TLS over TCP, or a Unix socket.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(Socket<TcpStream>),
    /// TLS over TCP.
    Tls(Box<TlsStream<Socket<TcpStream>>>),
    /// A Unix socket.
    Unix(Socket<UnixStream>),
}

impl Stream {
    /// Nobody between the two ends can read along: TLS, or a socket of this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// The stream is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// By which whoever reads in a burst takes the socket off the event loop.
    #[must_use]
    pub fn registration(&self) -> Registration {
        match self {
            Self::Tcp(stream) => stream.registration(),
            Self::Tls(stream) => stream.get_ref().0.registration(),
            Self::Unix(stream) => stream.registration(),
        }
        .clone()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
