//! What answers where a walcast was expected, when it does not become a WebSocket.

use std::io::ErrorKind as Io;

use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::{Response, StatusCode, header};
use tokio_tungstenite::tungstenite::{self};
use url::Url;
use walcast_protocol::{ErrorMessage, SUBPROTOCOL};

use super::{Failure, Received, words};
use crate::error::{Error, ErrorKind};

/// Characters of an answer that are quoted.
const QUOTED_CHARACTERS_MAX: usize = 80;

/// What it means that a handshake with `url` failed, of which something was `received`.
pub(super) fn classify(error: tungstenite::Error, url: &Url, received: &Received) -> Failure {
    let first = received.first();
    let is_tls = first.first().is_some_and(|kind| (0x14..=0x18).contains(kind)) && first.get(1) == Some(&3);
    match error {
        tungstenite::Error::Http(response) => refused(&response, url),
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            over(format!("{} is a WebSocket that does not speak {SUBPROTOCOL}; it is no walcast", place(url)))
        }
        // A daemon that goes down does it too.
        error if first.is_empty() && is_end(&error) => Failure::Lost(
            "what listens there takes the connection and closes it without an answer".to_owned(),
        ),
        _ if url.scheme() == "ws" && is_tls => {
            over(format!("{} speaks TLS; write wss:// for it", place(url)))
        }
        _ if url.scheme() == "wss" && !is_tls && !first.is_empty() => {
            over(format!("{} does not speak TLS; write ws:// for it", place(url)))
        }
        // A header that cannot be read is another thing: a proxy's mistake, which passes.
        tungstenite::Error::Protocol(ProtocolError::HttparseError(_))
            if url.scheme() == "ws" && !first.starts_with(b"HTTP/") =>
        {
            let said = String::from_utf8_lossy(first);
            over(format!(
                "{} does not speak HTTP, so it is no walcast: it says {:?}",
                place(url),
                line(&said)
            ))
        }
        error => super::classify(error),
    }
}

fn over(message: String) -> Failure {
    Failure::Over(Error::new(ErrorKind::Protocol, message))
}

fn is_end(error: &tungstenite::Error) -> bool {
    match error {
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => true,
        tungstenite::Error::Io(error) => {
            matches!(error.kind(), Io::ConnectionReset | Io::UnexpectedEof | Io::BrokenPipe)
        }
        _ => false,
    }
}

/// Where a URL leads, without what may be secret in it.
fn place(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    format!("{}://{host}:{port}{}", url.scheme(), url.path())
}

/// What an HTTP answer other than 101 means.
fn refused(response: &Response<Option<Vec<u8>>>, url: &Url) -> Failure {
    let (status, place) = (response.status(), place(url));
    let body = response.body().as_deref().unwrap_or_default();
    let is_walcast = serde_json::from_slice::<ErrorMessage>(body).is_ok();
    let said = if is_walcast { words(body) } else { quoted(response, body) };
    let said = if said.is_empty() { said } else { format!(": {said}") };
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Failure::Answered(format!("{status}{said}"))
        }
        status if status.is_server_error() => Failure::Answered(format!("{status}{said}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let message = format!("{place} lets nobody in with this token, or without one ({status}){said}");
            Failure::Over(Error::new(ErrorKind::Unauthorized, message))
        }
        status if is_walcast => over(format!("{place} is no stream of walcast ({status}){said}")),
        status if status.is_redirection() => {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            // Without its query: who sends elsewhere often repeats the token that came in the first one.
            let to = to.and_then(|to| url.join(to).ok());
            let to = to.map(|to| format!(" to {}", line(&self::place(&to)))).unwrap_or_default();
            over(format!("{place} is no walcast: it sends elsewhere{to} ({status})"))
        }
        status => over(format!("{place} is no walcast, or another path of its server ({status}){said}")),
    }
}

/// What an answer of something else says: who it is, and the start of a text.
fn quoted(response: &Response<Option<Vec<u8>>>, body: &[u8]) -> String {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let server = header(header::SERVER).map(|server| format!("the server is {}", line(server)));
    // A page is made for browsers; its start says nothing.
    let is_page = header(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("html"));
    let text = String::from_utf8_lossy(body);
    let text =
        Some(line(&text)).filter(|text| !is_page && !text.is_empty()).map(|text| format!("it says {text:?}"));
    [server, text].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The start of the first line.
fn line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let printable = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    printable.take(QUOTED_CHARACTERS_MAX).collect::<String>().trim_end().to_owned()
}
