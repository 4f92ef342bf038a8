//! From a host of the connection string to a connected stream: addresses, sockets, socket options, TLS.

mod certificate;
mod tls;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

pub(crate) use certificate::server_end_point;

use crate::connection_string::{ConnectionConfig, Host, HostAddress, SslMode};
use crate::socket::Socket;
use crate::{Error, Stream};

/// Folders in which a local server may have its socket, in the order in which they are tried.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One place where a server may be found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Socket(PathBuf),
    Tcp { name: String, address: SocketAddr },
}

impl Place {
    /// Every place a host stands for, in the order in which to try them.
    pub(crate) async fn of(host: &Host) -> Result<Vec<Self>, Error> {
        let unreachable = |source| Error::Unreachable { server: host.to_string(), source };
        let name = match &host.address {
            HostAddress::Socket(folder) => return Ok(vec![Self::socket(folder, host.port)]),
            HostAddress::Default => {
                let sockets = SOCKET_FOLDERS.iter().map(|folder| Self::socket(Path::new(folder), host.port));
                let found: Vec<_> = sockets.filter(Self::is_there).take(1).collect();
                if !found.is_empty() {
                    return Ok(found);
                }
                "localhost"
            }
            HostAddress::Tcp { name, address: Some(address) } => {
                return Ok(vec![Self::Tcp {
                    name: name.clone(),
                    address: SocketAddr::new(*address, host.port),
                }]);
            }
            HostAddress::Tcp { name, address: None } => name,
        };
        let addresses = tokio::net::lookup_host((name, host.port)).await.map_err(unreachable)?;
        let mut places: Vec<_> =
            addresses.map(|address| Self::Tcp { name: name.to_owned(), address }).collect();
        places.dedup_by_key(|place| match place {
            Self::Tcp { address, .. } => Some(*address),
            Self::Socket(_) => None,
        });
        if places.is_empty() {
            return Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        Ok(places)
    }

    fn socket(folder: &Path, port: u16) -> Self {
        Self::Socket(folder.join(format!(".s.PGSQL.{port}")))
    }

    fn is_there(&self) -> bool {
        matches!(self, Self::Socket(path) if path.exists())
    }

    /// With TLS or without, in the order in which to try (libpq chapter "SSL Support", table of modes).
    pub(crate) fn encryption(&self, mode: SslMode) -> &'static [bool] {
        match (self, mode) {
            (Self::Socket(_), _) | (_, SslMode::Disable) => &[false],
            (_, SslMode::Allow) => &[false, true],
            (_, SslMode::Prefer) => &[true, false],
            _ => &[true],
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { name, address } if *name == address.ip().to_string() => write!(f, "{address}"),
            Self::Tcp { name, address } => write!(f, "{name} ({address})"),
        }
    }
}

impl ConnectionConfig {
    /// What is wrong with the files that TLS needs, where nothing can be connected to without it; texts for people. Looks at
    /// the files and at no server.
    #[must_use]
    pub fn unusable_files(&self) -> Vec<String> {
        let is_remote = |host: &Host| matches!(host.address, HostAddress::Tcp { .. });
        let needs_tls = self.tls.mode >= SslMode::Require && self.hosts.iter().any(is_remote);
        if needs_tls { tls::unusable_files(&self.tls) } else { Vec::new() }
    }
}

/// Connects to one place, with TLS when `encrypt`.
///
/// Without TLS on offer, [`SslMode::Prefer`] and `Allow` get the plain stream; stronger modes an error.
pub(crate) async fn dial(config: &ConnectionConfig, place: &Place, encrypt: bool) -> Result<Stream, Error> {
    let unreachable = |source| Error::Unreachable { server: place.to_string(), source };
    let (name, address) = match place {
        Place::Socket(path) => {
            return UnixStream::connect(path).await.map(Socket::new).map(Stream::Unix).map_err(unreachable);
        }
        Place::Tcp { name, address } => (name, address),
    };
    let mut stream = TcpStream::connect(address).await.map_err(unreachable)?;
    set_options(config, &stream).map_err(unreachable)?;
    if !encrypt {
        return Ok(Stream::Tcp(Socket::new(stream)));
    }
    let problem = |problem: String| Error::Tls { server: place.to_string(), problem };
    if !config.tls.direct {
        match ask_for_tls(&mut stream).await? {
            b'S' => {}
            b'N' if config.tls.mode < SslMode::Require => return Ok(Stream::Tcp(Socket::new(stream))),
            b'N' => return Err(problem("the server does not offer it (ssl = on in postgresql.conf)".into())),
            // A server that cannot start a process, or so old that it does not know the question.
            b'E' => return Err(problem("the server answered the request with an error".into())),
            _ => return Err(Error::Protocol("what answers there is not a Postgres server".into())),
        }
    }
    let stream = tls::handshake(&config.tls, name, Socket::new(stream)).await.map_err(problem)?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// `SSLRequest` (protocol section "SSL Session Encryption"). Exactly one byte is read: what somebody put
/// behind it in plain text becomes part of the TLS handshake and makes it fail, and is never taken for an answer
/// of the server.
async fn ask_for_tls(stream: &mut TcpStream) -> Result<u8, Error> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await {
        Ok(answer) => Ok(answer),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
        Err(error) => Err(error.into()),
    }
}

fn set_options(config: &ConnectionConfig, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = config.keepalive {
        let probes = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
        socket.set_tcp_keepalive(&probes.with_retries(keepalive.probes))?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(config.tcp_user_timeout)?;
    Ok(())
}
