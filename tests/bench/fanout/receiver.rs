//! The receiving side: sockets that count the transactions that they are sent.
//!
//! | line | what it does | answer |
//! | --- | --- | --- |
//! | `open PORT COUNT CURSOR` | connects as many more, `OPENING` at a time, and subscribes | `open`, when all are caught up |
//! | `stalled PORT` | one more, which reads nothing once it is caught up | `stalled` |
//! | `expect FRAMES` | waits until as many transactions came since it was asked last | bytes, and when the last came |
//! | `samples FILE` | writes number and time of what came since it was asked last | `written` |
//! | `cursor` | | the newest that one of the sockets was told |
//! | `close` | closes all | `closed` |

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::Outcome;
use crate::process::now_nanos;
use crate::wire;

pub(crate) const COMMAND: &str = "receiver";

/// Handshakes at a time: no more than wait in a listener's queue.
const OPENING: usize = 1000;
/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// Runs until its input ends.
pub(crate) fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = LocalSet::new().block_on(&runtime, Box::pin(run()));
    if let Err(error) = &ended {
        println!("failed {error}");
    }
    ended
}

/// What all sockets have received.
struct Received {
    frames: Cell<u64>,
    bytes: Cell<u64>,
    last: Cell<u64>,
    caught_up: Cell<usize>,
    lost: Cell<usize>,
    /// Numbers of transactions, and when each came.
    samples: RefCell<Vec<(u32, u64)>>,
    cursor: RefCell<String>,
    /// Of all, because one is read at a time.
    buffer: RefCell<Vec<u8>>,
}

async fn run() -> Outcome<()> {
    let received = Rc::new(Received {
        frames: Cell::default(),
        bytes: Cell::default(),
        last: Cell::default(),
        caught_up: Cell::default(),
        lost: Cell::default(),
        samples: RefCell::default(),
        cursor: RefCell::default(),
        buffer: RefCell::new(vec![0; READ_BYTES]),
    });
    let opening = Rc::new(Semaphore::new(OPENING));
    let mut sockets: Vec<JoinHandle<()>> = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["open", port, count, cursor] => {
                let (port, count) = (port.parse()?, count.parse::<usize>()?);
                received.caught_up.set(0);
                for number in 0..count {
                    let (received, opening) = (Rc::clone(&received), Rc::clone(&opening));
                    let cursor = (*cursor).to_owned();
                    sockets.push(spawn_local(async move {
                        if let Err(error) = listen(port, number, &cursor, &opening, &received).await {
                            eprintln!("a client is lost: {error}");
                        }
                        received.lost.set(received.lost.get() + 1);
                    }));
                }
                until(&received, || received.caught_up.get() >= count).await?;
                "open".to_owned()
            }
            ["stalled", port] => {
                let port = port.parse()?;
                let stream = stalled(port).await?;
                sockets.push(spawn_local(async move {
                    std::future::pending::<()>().await;
                    drop(stream);
                }));
                "stalled".to_owned()
            }
            ["expect", frames] => {
                let frames = frames.parse::<u64>()?;
                until(&received, || received.frames.get() >= frames).await?;
                received.frames.set(received.frames.get() - frames);
                format!("{} {}", received.bytes.take(), received.last.get())
            }
            ["samples", file] => {
                write_samples(file, &received.samples.take())?;
                "written".to_owned()
            }
            ["cursor"] => received.cursor.borrow().clone(),
            ["close"] => {
                sockets.drain(..).for_each(|socket| socket.abort());
                // Dropped when they are polled next.
                tokio::time::sleep(Duration::from_millis(10)).await;
                received.lost.set(0);
                "closed".to_owned()
            }
            _ => return Err(format!("unknown: {line}").into()),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn until(received: &Received, is_so: impl Fn() -> bool) -> Outcome<()> {
    while !is_so() {
        if received.lost.get() > 0 {
            return Err("a client is lost".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn write_samples(file: &str, samples: &[(u32, u64)]) -> Outcome<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for (number, time) in samples {
        out.write_all(&number.to_le_bytes())?;
        out.write_all(&time.to_le_bytes())?;
    }
    Ok(out.flush()?)
}

/// A WebSocket that has subscribed.
async fn subscribed(mut stream: TcpStream, port: u16, cursor: &str) -> Outcome<(TcpStream, Vec<u8>)> {
    let request = format!(
        "GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        wire::KEY
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let end = loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended in its handshake".into());
        }
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            break end + 4;
        }
    };
    if !answer.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&answer).into());
    }
    let subscribe = format!(
        r#"{{"type":"subscribe","id":"b","tables":[{{"table":"public.messages"}}],"cursor":"{cursor}"}}"#
    );
    stream.write_all(&wire::masked(subscribe.as_bytes())).await?;
    answer.drain(..end);
    answer.shrink_to_fit();
    Ok((stream, answer))
}

async fn listen(
    port: u16,
    number: usize,
    cursor: &str,
    opening: &Semaphore,
    received: &Received,
) -> Outcome<()> {
    let place = opening.acquire().await?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (stream, mut rest) = subscribed(stream, port, cursor).await?;
    drop(place);
    loop {
        let whole = take(&rest, number == 0, received)?;
        rest.drain(..whole);
        stream.readable().await?;
        let mut buffer = received.buffer.borrow_mut();
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Err("the connection ended".into()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..count];
        received.bytes.set(received.bytes.get() + count as u64);
        if rest.is_empty() {
            let whole = take(bytes, number == 0, received)?;
            rest.extend_from_slice(&bytes[whole..]);
        } else {
            rest.extend_from_slice(bytes);
        }
    }
}

/// Takes the frames that are whole: how many bytes these are.
fn take(bytes: &[u8], is_first: bool, received: &Received) -> Outcome<usize> {
    let (mut at, mut frames, now) = (0, 0, now_nanos());
    while let Some((payload, length)) = wire::first(&bytes[at..]) {
        at += length;
        if payload.starts_with(br#"{"type":"transaction""#) {
            frames += 1;
            let number = wire::number_after(payload, br#""n":"#).unwrap_or_default();
            received.samples.borrow_mut().push((u32::try_from(number)?, now));
        } else if payload.starts_with(br#"{"type":"caught_up""#) {
            received.caught_up.set(received.caught_up.get() + 1);
        } else if payload.starts_with(br#"{"type":"error""#) {
            return Err(String::from_utf8_lossy(payload).into());
        }
        if is_first && let Some(from) = memchr::memmem::find(payload, br#""cursor":""#) {
            let text = payload[from + 10..].split(|byte| *byte == b'"').next().unwrap_or_default();
            *received.cursor.borrow_mut() = String::from_utf8_lossy(text).into();
        }
    }
    if frames > 0 {
        received.frames.set(received.frames.get() + frames);
        received.last.set(now);
    }
    Ok(at)
}

/// A client that is caught up and then reads no more.
async fn stalled(port: u16) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    let (mut stream, mut answer) = subscribed(stream, port, "latest").await?;
    while memchr::memmem::find(&answer, br#"{"type":"caught_up""#).is_none() {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended".into());
        }
    }
    Ok(stream)
}
