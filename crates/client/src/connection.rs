//! One WebSocket connection: how it is made, and what its failures mean.

mod metered;
mod stranger;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, error::TlsError};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::{Host, Url};
use walcast_protocol::{CloseCode, ErrorMessage, SUBPROTOCOL};

use crate::error::{Error, ErrorKind};
use crate::token::Token;
use metered::Metered;
pub(crate) use metered::Received;

/// What carries a connection.
#[cfg(not(test))]
pub(crate) type Transport = TcpStream;
/// The tests of time have no network: a clock that stands still cannot wait for one.
#[cfg(test)]
pub(crate) type Transport = crate::client::Transport;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<Metered>>;

/// Everything that is needed to make a connection.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) token: Token,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) message_bytes_max: usize,
    pub(crate) connect_timeout: Duration,
    #[cfg(test)]
    pub(crate) memory: Option<crate::client::Memory>,
}

/// How a connection, or the attempt to make one, ended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was not even a connection. Another attempt may succeed.
    Unreached(String),
    /// Another attempt may succeed.
    Lost(String),
    /// What listens there said why not. Another attempt may succeed.
    Answered(String),
    /// No other attempt will.
    Over(Error),
}

/// Makes a connection: TCP, TLS for `wss`, the WebSocket handshake.
pub(crate) async fn connect(target: Target) -> Result<(Socket, Received), Failure> {
    let is_reached = AtomicBool::new(false);
    let late = |_| {
        let reason = format!("no answer within {:?}", target.connect_timeout);
        if is_reached.load(Ordering::Relaxed) { Failure::Lost(reason) } else { Failure::Unreached(reason) }
    };
    let outcome = tokio::time::timeout(target.connect_timeout, handshake(&target, &is_reached));
    let outcome = outcome.await.map_err(late);
    // Host and port alone: a URL may hold a token.
    let named = |reason: String| {
        let host = target.url.host_str().unwrap_or_default();
        let port = target.url.port_or_known_default().unwrap_or_default();
        format!("no connection to {host}:{port}: {reason}")
    };
    outcome.flatten().map_err(|failure| match failure {
        Failure::Unreached(reason) => Failure::Unreached(named(reason)),
        Failure::Lost(reason) => Failure::Lost(named(reason)),
        Failure::Answered(reason) => Failure::Answered(named(reason)),
        over @ Failure::Over(_) => over,
    })
}

/// `is_reached` is set once there is a connection, whatever comes of it.
async fn handshake(target: &Target, is_reached: &AtomicBool) -> Result<(Socket, Received), Failure> {
    let mut request = target.url.as_str().into_client_request().map_err(classify)?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    let authorization =
        target.token.header().await.map_err(|error| Failure::Lost(format!("there is no token: {error}")))?;
    if let Some(value) = authorization {
        headers.insert("authorization", value);
    }
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(target.message_bytes_max);
    config.max_frame_size = Some(target.message_bytes_max);
    let connector = target.tls.clone().map(Connector::Rustls);
    let received = Received::default();
    let dialled = dial(target, &target.url).await;
    let dialled = dialled.map_err(|error| Failure::Unreached(error.to_string()))?;
    is_reached.store(true, Ordering::Relaxed);
    let stream = Metered::new(dialled, received.clone());
    let (socket, _) = client_async_tls_with_config(request, stream, Some(config), connector)
        .await
        .map_err(|error| stranger::classify(error, &target.url, &received))?;
    Ok((socket, received))
}

/// What carries a connection to the host and port of `url`.
#[cfg(not(test))]
pub(crate) async fn dial(_target: &Target, url: &Url) -> std::io::Result<Transport> {
    dial_tcp(url).await
}

#[cfg(test)]
pub(crate) async fn dial(target: &Target, url: &Url) -> std::io::Result<Transport> {
    match &target.memory {
        Some(memory) => memory.dial().await.map(Transport::Memory),
        None => dial_tcp(url).await.map(Transport::Tcp),
    }
}

async fn dial_tcp(url: &Url) -> std::io::Result<TcpStream> {
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = match url.host() {
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await?,
        Some(Host::Ipv4(address)) => TcpStream::connect((address, port)).await?,
        Some(Host::Ipv6(address)) => TcpStream::connect((address, port)).await?,
        // Refused by the builder.
        None => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    // A subscription is a small frame that nothing follows: it must not wait for an acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a failure of the WebSocket means.
pub(crate) fn classify(error: tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Capacity(error) => {
            let message = "a message is over this client's message_bytes_max; raise it or name fewer columns";
            Failure::Over(Error::new(ErrorKind::TooBig, message).caused(error))
        }
        tungstenite::Error::Url(error) => {
            Failure::Over(Error::new(ErrorKind::Argument, "the URL cannot be used").caused(error))
        }
        tungstenite::Error::Tls(TlsError::InvalidDnsName) => Failure::Over(Error::new(
            ErrorKind::Argument,
            "the URL's host cannot be the name in a certificate",
        )),
        tungstenite::Error::Io(error) => Failure::Lost(error.to_string()),
        // What the network does, and servers that go away in the middle. A certificate may be renewed.
        error => Failure::Lost(error.to_string()),
    }
}

/// What the body of an HTTP answer says: the daemon's own error, or the start of whatever it is.
pub(crate) fn words(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorMessage>(body) {
        Ok(ErrorMessage { message, hint: Some(hint), .. }) => format!("{message}; {hint}"),
        Ok(ErrorMessage { message, .. }) => message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned(),
    }
}

/// What a close frame means.
pub(crate) fn closed(frame: Option<&CloseFrame>) -> Failure {
    let Some(frame) = frame else { return Failure::Lost("the daemon closed the connection".into()) };
    let number = u16::from(frame.code);
    let said = format!("the daemon closed the connection ({number}): {}", frame.reason);
    match CloseCode::from_number(number) {
        None | Some(CloseCode::Restart) => Failure::Lost(said),
        Some(CloseCode::Unauthorized) => Failure::Over(Error::new(ErrorKind::Unauthorized, said)),
        Some(CloseCode::Policy | CloseCode::TooBig) => Failure::Over(Error::new(ErrorKind::Refused, said)),
    }
}
