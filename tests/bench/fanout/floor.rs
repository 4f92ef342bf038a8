//! The floor: accepts WebSockets and writes ready-made frames to them, and knows nothing of where these come from.
//!
//! | line | what it does | answer |
//! | --- | --- | --- |
//! | | | its port |
//! | `paced RATE COUNT BYTES` | so many frames a second, each written to every socket in turn by itself | when each was begun |
//! | `flood COUNT BYTES EACH` | as many frames to each socket, so many with each write | `sent` |

use std::io::Write;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Outcome;
use crate::process::now_nanos;
use crate::wire;

pub(crate) const COMMAND: &str = "floor";

/// Runs until its input ends.
pub(crate) fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(run()))
}

async fn run() -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    say(&listener.local_addr()?.port().to_string())?;
    let (sender, mut accepted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                if let Ok(stream) = welcome(stream).await {
                    // Nobody is there any more when it fails.
                    drop(sender.send(stream));
                }
            });
        }
    });
    let mut streams = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        while let Ok(stream) = accepted.try_recv() {
            streams.push(stream);
        }
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.map(str::parse).collect::<Result<_, _>>()?;
        match (command, numbers.as_slice()) {
            ("paced", [rate, count, bytes]) => paced(&mut streams, *rate as f64, *count, *bytes).await?,
            ("flood", [count, bytes, each]) => {
                streams = flood(streams, *count, *bytes, *each).await?;
                say("sent")?;
            }
            _ => return Err(format!("unknown: {line}").into()),
        }
    }
    Ok(())
}

fn say(line: &str) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn welcome(mut stream: TcpStream) -> Outcome<TcpStream> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut request).await? == 0 {
            return Err("it went".into());
        }
    }
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket";
    stream.write_all(format!("{head}\r\nSec-WebSocket-Accept: {}\r\n\r\n", wire::ACCEPT).as_bytes()).await?;
    stream.write_all(&wire::frame(br#"{"type":"caught_up"}"#)).await?;
    Ok(stream)
}

/// A frame as the daemon's: as long, its number at the same place.
fn ready_made(number: usize, bytes: usize) -> Vec<u8> {
    let mut text =
        format!(r#"{{"type":"transaction","id":"b","changes":[{{"n":{number},"body":""#).into_bytes();
    text.resize(bytes.max(text.len() + 3) - 3, b'x');
    text.extend_from_slice(br#""}]}"#.get(..3).unwrap_or_default());
    wire::frame(&text)
}

async fn paced(streams: &mut [TcpStream], rate: f64, count: usize, bytes: usize) -> Outcome<()> {
    let frames: Vec<Vec<u8>> = (0..count).map(|number| ready_made(number, bytes)).collect();
    let (began, mut sent) = (Instant::now(), Vec::with_capacity(count));
    for (number, frame) in frames.iter().enumerate() {
        tokio::time::sleep_until(began + Duration::from_secs_f64(number as f64 / rate)).await;
        sent.push(now_nanos().to_string());
        for stream in streams.iter_mut() {
            match stream.try_write(frame) {
                Ok(written) if written == frame.len() => {}
                Ok(written) => stream.write_all(&frame[written..]).await?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    stream.write_all(frame).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    say(&sent.join(" "))
}

async fn flood(streams: Vec<TcpStream>, count: usize, bytes: usize, each: usize) -> Outcome<Vec<TcpStream>> {
    let batch: std::sync::Arc<[u8]> = (0..each).flat_map(|number| ready_made(number, bytes)).collect();
    let writing = streams.into_iter().map(|mut stream| {
        let batch = std::sync::Arc::clone(&batch);
        tokio::spawn(async move {
            for _ in 0..count / each {
                stream.write_all(&batch).await?;
            }
            std::io::Result::Ok(stream)
        })
    });
    let writing: Vec<_> = writing.collect();
    let mut streams = Vec::with_capacity(writing.len());
    for task in writing {
        streams.push(task.await??);
    }
    Ok(streams)
}
