//! A plain WebSocket that counts the changes that it is sent, and parses no more than that takes.

use futures_util::{SinkExt, StreamExt};
use memchr::memmem;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Outcome;

/// A connection with one subscription.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
}

/// What the kernel keeps for a client that does not read.
const RECEIVE_BYTES: u32 = 4096;
/// Of the library, for each connection; large rows need more only while they come.
const READ_BYTES: usize = 4096;

impl Client {
    /// Subscribes to `tables` from `cursor` on, with as little of a buffer as may be when it `stalls`.
    pub(crate) async fn subscribe(port: u16, tables: &str, cursor: &str, stalls: bool) -> Outcome<Self> {
        let socket = TcpSocket::new_v4()?;
        if stalls {
            socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        }
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None)
            .read_buffer_size(if stalls { READ_BYTES } else { 1 << 20 });
        let url = format!("ws://127.0.0.1:{port}/v1/stream");
        let connecting = tokio_tungstenite::client_async_with_config(url, stream, Some(config));
        let (mut socket, _) = Box::pin(connecting).await?;
        let subscribe = format!(
            r#"{{"type":"subscribe","id":"b","tables":[{{"table":"{tables}"}}],"cursor":"{cursor}"}}"#
        );
        socket.send(Message::text(subscribe)).await?;
        Ok(Self { socket })
    }

    /// The next text frame.
    async fn next(&mut self) -> Outcome<Message> {
        loop {
            match self.socket.next().await.ok_or("the connection ended")?? {
                text @ Message::Text(_) => {
                    if text.to_text()?.starts_with(r#"{"type":"error""#) {
                        return Err(text.to_text()?.into());
                    }
                    return Ok(text);
                }
                _ => continue,
            }
        }
    }

    /// Reads up to and with a message of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Outcome<()> {
        let start = format!(r#"{{"type":"{kind}""#);
        while !self.next().await?.to_text()?.starts_with(&start) {}
        Ok(())
    }

    /// Reads so many changes.
    pub(crate) async fn changes(&mut self, count: u64) -> Outcome<()> {
        let change = memmem::Finder::new(br#"{"op":""#);
        let mut seen = 0;
        while seen < count {
            let message = self.next().await?;
            let text = message.to_text()?.as_bytes();
            if text.starts_with(br#"{"type":"transaction""#) {
                seen += change.find_iter(text).count() as u64;
            }
        }
        Ok(())
    }
}
