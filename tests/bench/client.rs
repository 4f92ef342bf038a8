//! A WebSocket client in a process of its own: reads frames, counts changes, and parses no more than that takes.
//!
//! Prints `subscribed`, then the cursor from time to time (`cursor 0/2A`), and at its end what was asked for.

use std::io::Write;
use std::net::TcpStream;

use memchr::memmem::Finder;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::Outcome;
use crate::process::{Usage, now_nanos};
use crate::source::TABLE;

/// The hidden subcommand: `client <port> <table> <cursor> <changes> count|times`.
pub(crate) const COMMAND: &str = "client";
/// How often the cursor is printed, in bytes of frames.
const CURSOR_BYTES: usize = 4 << 20;
/// What stands before a row's number in the latency part.
pub(crate) const MARK: &[u8] = b"SEQ:";

/// Reads until `changes` have come.
pub(crate) fn main(arguments: &[String]) -> Outcome<()> {
    let [port, table, cursor, changes, what] = arguments else { return Err("client: five arguments".into()) };
    let (changes, times): (u64, bool) = (changes.parse()?, what == "times");
    let mut socket = subscribe(port, table, cursor)?;
    let mut out = std::io::stdout();
    let (change, cursor_field) = (Finder::new(b"{\"op\":\""), Finder::new(b",\"cursor\":\""));
    let (mut count, mut since_cursor) = (0, 0);
    let mut received: Vec<(u64, u64)> = Vec::new();
    while count < changes {
        let Message::Text(text) = socket.read()? else { continue };
        let now = now_nanos();
        let bytes = text.as_bytes();
        if !bytes.starts_with(b"{\"type\":\"transaction\"") {
            if bytes.starts_with(b"{\"type\":\"subscribed\"") {
                writeln!(out, "subscribed")?;
            }
            if bytes.starts_with(b"{\"type\":\"error\"") {
                return Err(text.as_str().into());
            }
            continue;
        }
        count += change.find_iter(bytes).count() as u64;
        if times {
            received.extend(marks(bytes).map(|number| (number, now)));
        }
        since_cursor += bytes.len();
        if since_cursor >= CURSOR_BYTES {
            since_cursor = 0;
            let cursor = cursor_field.find(bytes).and_then(|at| bytes.get(at + 11..));
            let cursor = cursor.and_then(|rest| rest.split(|byte| *byte == b'"').next()).unwrap_or_default();
            writeln!(out, "cursor {}", String::from_utf8_lossy(cursor))?;
        }
    }
    let usage = Usage::of(std::process::id()).unwrap_or_default();
    writeln!(out, "done {count} {} {}", usage.cpu_seconds, usage.peak_kib)?;
    for (number, at) in received {
        writeln!(out, "{number} {at}")?;
    }
    Ok(())
}

fn subscribe(port: &str, table: &str, cursor: &str) -> Outcome<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    let request = Request::builder()
        .uri(format!("ws://127.0.0.1:{port}/v1/stream"))
        .header("Host", format!("127.0.0.1:{port}"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Protocol", "walcast.v1")
        .body(())?;
    let (mut socket, _) = client(request, stream).map_err(|error| error.to_string())?;
    let subscribe =
        format!(r#"{{"type":"subscribe","id":"b","tables":[{{"table":"{table}"}}],"cursor":"{cursor}"}}"#);
    socket.send(Message::text(subscribe))?;
    Ok(socket)
}

/// The numbers after every mark.
pub(crate) fn marks(bytes: &[u8]) -> impl Iterator<Item = u64> + use<'_> {
    memchr::memmem::find_iter(bytes, MARK).filter_map(|at| {
        let digits = bytes.get(at + MARK.len()..at + MARK.len() + DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// Digits of a row's number.
pub(crate) const DIGITS: usize = 10;

/// The arguments of a client that counts.
pub(crate) fn counting(port: &str, cursor: &str, changes: u64) -> Vec<String> {
    vec![COMMAND.into(), port.into(), TABLE.into(), cursor.into(), changes.to_string(), "count".into()]
}
