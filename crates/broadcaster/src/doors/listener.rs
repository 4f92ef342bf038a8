//! Where clients connect.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::peer::{Arrival, Peer};
use super::tls::ServerTls;
use super::transport::Transport;
use crate::limits::Limits;

/// A socket that connections come in by.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<ServerTls>>,
    is_admin: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), tls: None, is_admin: false }
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self { socket: Socket::Unix(listener), tls: None, is_admin: false }
    }
}

impl Listener {
    /// TLS for what comes by TCP.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ServerTls>) -> Self {
        if matches!(self.socket, Socket::Tcp(_)) {
            self.tls = Some(tls);
        }
        self
    }

    /// For operators alone: health with all details and metrics, and no clients.
    #[must_use]
    pub const fn for_admin(mut self) -> Self {
        self.is_admin = true;
        self
    }

    pub(super) const fn is_admin(&self) -> bool {
        self.is_admin
    }

    pub(super) fn acceptor(&self) -> io::Result<Option<TlsAcceptor>> {
        self.tls.as_ref().map(ServerTls::acceptor).transpose().map_err(io::Error::other)
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self, limits: &Limits) -> io::Result<(Raw, Arrival)> {
        let (raw, peer) = match &self.socket {
            Socket::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                if let Err(error) = set_options(&socket, limits) {
                    tracing::debug!(%error, "a socket option cannot be set");
                }
                (Raw::Tcp(socket), Peer::Address(address.ip()))
            }
            Socket::Unix(listener) => (Raw::Whole(Transport::Unix(listener.accept().await?.0)), Peer::Local),
        };
        Ok((raw, Arrival { peer, is_secure: self.tls.is_some(), is_admin: self.is_admin }))
    }
}

/// A connection of which nothing was read yet.
pub(super) enum Raw {
    Tcp(TcpStream),
    Whole(Transport),
}

impl Raw {
    /// The connection, after its TLS handshake where there is one.
    pub(super) async fn open(self, tls: Option<TlsAcceptor>, limit: Duration) -> io::Result<Transport> {
        match (self, tls) {
            (Self::Whole(transport), _) => Ok(transport),
            (Self::Tcp(socket), None) => Ok(Transport::Tcp(socket)),
            (Self::Tcp(socket), Some(tls)) => {
                let accepted = tokio::time::timeout(limit, tls.accept(socket)).await;
                Ok(Transport::Tls(Box::new(accepted.map_err(io::Error::other)??)))
            }
        }
    }
}

fn set_options(socket: &TcpStream, limits: &Limits) -> io::Result<()> {
    // walcast batches by itself.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(limits.tcp_keepalive)
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(limits.tcp_user_timeout)?;
        socket.set_tcp_notsent_lowat(limits.tcp_unsent_bytes_max)?;
    }
    Ok(())
}
