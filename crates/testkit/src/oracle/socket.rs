//! A plain WebSocket, and not the SDK.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{LIMIT, within};

/// A connection to a daemon.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects; nothing is read.
pub(crate) async fn connect(url: &str) -> Result<Socket, tungstenite::Error> {
    // A row may be as large as Postgres allows: no limit of the library's own.
    let config =
        tungstenite::protocol::WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
    Ok(Box::pin(connecting).await?.0)
}

/// Opens a connection and takes the `welcome`.
///
/// # Panics
///
/// When the daemon does not accept, or says something else first.
pub async fn open(url: &str) -> (Socket, Value) {
    let connecting = within("a connection to the daemon", LIMIT, connect(url)).await;
    let mut socket = connecting.unwrap_or_else(|error| panic!("the daemon at {url}: {error}"));
    let welcome =
        receive(&mut socket).await.unwrap_or_else(|| panic!("{url}: the connection ended before a welcome"));
    assert_eq!(welcome["type"], "welcome");
    (socket, welcome)
}

/// The next text message; `None` when the connection ended.
pub(crate) async fn next_text(socket: &mut Socket) -> Option<tungstenite::Utf8Bytes> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Some(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_) | Err(_)) | None => return None,
        }
    }
}

/// The next message; `None` when the connection ended.
///
/// # Panics
///
/// When there is none within [`LIMIT`], or it is no JSON.
pub async fn receive(socket: &mut Socket) -> Option<Value> {
    let text = within("the next message of the daemon", LIMIT, next_text(socket)).await?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Reads to the end of a connection, and returns the code it was closed with.
///
/// # Panics
///
/// When it does not end within [`LIMIT`].
pub async fn close_code(socket: &mut Socket) -> Option<u16> {
    let end = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    within("the end of the connection", LIMIT, end).await
}

/// Sends a message.
///
/// # Panics
///
/// When the daemon does not read it within [`LIMIT`].
pub async fn send(socket: &mut Socket, message: Value) {
    let sent = socket.send(Message::text(message.to_string()));
    let sent = within("that the daemon reads", LIMIT, sent).await;
    sent.unwrap_or_else(|error| panic!("sending {message}: {error}"));
}
