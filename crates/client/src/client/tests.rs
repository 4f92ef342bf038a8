//! The client against a daemon that the test plays. Without a network, and on a clock that moves when all wait; what is
//! about the network itself is in `network`.

mod acknowledging;
pub(crate) mod memory;
mod network;
mod resuming;
mod retrying;
mod rights;
mod silence;
mod tokens;
mod transactions;
mod waiting;

use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use walcast_protocol::{ClientMessage, StartAt, Subscribe};

use crate::{Backoff, Client, ClientBuilder, Event, Subscription};
use memory::Memory;

/// Reached only when something is wrong: on a clock that moves when all wait, at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection, seen from the daemon's side.
struct Peer<S = DuplexStream>(WebSocketStream<S>);

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn choose_protocol(request: &Request, mut response: Response) -> Result<Response, http::Refusal> {
    assert_eq!(request.uri().path(), "/v1/stream");
    assert_eq!(request.headers()["sec-websocket-protocol"], "walcast.v1");
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("walcast.v1"));
    Ok(response)
}

mod http {
    pub(super) type Refusal = tokio_tungstenite::tungstenite::handshake::server::ErrorResponse;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn over(stream: S) -> Self {
        Self(accept_hdr_async(stream, choose_protocol).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn welcome(&mut self) {
        self.welcome_with("f1", 30_000).await;
    }

    async fn welcome_with(&mut self, feed: &str, heartbeat_ms: u64) {
        self.send(&format!(
            r#"{{"type":"welcome","protocol":1,"feed":"{feed}","cursor":"0/0","oldest":"0/0","server":"t","heartbeat_ms":{heartbeat_ms},"limits":{{"message_bytes_max":1,"subscriptions_max":1,"tables_max":1}}}}"#
        ))
        .await;
    }

    /// The next message of the client; `None` when it has gone.
    async fn message(&mut self) -> Option<ClientMessage> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("the client says something") {
                Some(Ok(Message::Text(text))) => return Some(ClientMessage::decode(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn subscribe(&mut self) -> Subscribe {
        match self.message().await {
            Some(ClientMessage::Subscribe(subscribe)) => subscribe,
            other => panic!("expected subscribe, got {other:?}"),
        }
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "said so".into() };
        self.0.send(Message::Close(Some(frame))).await.unwrap();
        // Until the client has answered: a reset could overtake the frame.
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// The daemon: accepts what the test expects, one connection after the other.
struct Daemon {
    memory: Memory,
    connections: Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
}

impl Daemon {
    fn start() -> (Self, ClientBuilder) {
        let (memory, connections) = Memory::new();
        let daemon = Self { memory, connections: Mutex::new(connections) };
        let builder = daemon.builder();
        (daemon, builder)
    }

    /// A client of it.
    fn builder(&self) -> ClientBuilder {
        let backoff = Backoff { base: Duration::from_millis(1), ..Backoff::default() };
        Client::builder("ws://memory").over(self.memory.clone()).backoff(backoff)
    }

    async fn accept(&self) -> Peer {
        let mut connections = self.connections.lock().await;
        let stream = timeout(PATIENCE, connections.recv()).await.expect("the client connects");
        Peer::over(stream.expect("there is a client")).await
    }
}

fn play<T: Send + 'static>(script: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(script)
}

async fn item(client: &mut Client) -> Option<Result<Event, crate::Error>> {
    timeout(PATIENCE, client.next()).await.expect("an event comes")
}

async fn next(client: &mut Client) -> Event {
    item(client).await.expect("the client goes on").unwrap()
}

/// The next event, past those that say how the connection is doing.
async fn data(client: &mut Client) -> Event {
    loop {
        match next(client).await {
            Event::Connected(_) | Event::Reconnecting { .. } | Event::Subscribed(_) => {}
            event => return event,
        }
    }
}

fn transaction(cursor: &str, rows: &[u64], more: bool) -> String {
    let change =
        |id: &u64| format!(r#"{{"op":"insert","table":"public.t","key":{{"id":{id}}},"row":{{"id":{id}}}}}"#);
    let changes: Vec<String> = rows.iter().map(change).collect();
    format!(
        r#"{{"type":"transaction","id":"s","cursor":"{cursor}","lsn":"0/10","xid":7,"committed_at":"2026-11-21T00:00:00Z","changes":[{}],"more":{more}}}"#,
        changes.join(",")
    )
}

fn subscription() -> Subscription {
    Subscription::new("s", ["public.t"]).unwrap()
}

fn subscribed(mode: &str, cursor: &str) -> String {
    format!(r#"{{"type":"subscribed","id":"s","mode":"{mode}","cursor":"{cursor}"}}"#)
}

fn at(text: &str) -> StartAt {
    text.parse().unwrap()
}
