//! Carries the bytes of one direction of one connection.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::lane::{Grant, Lane};

/// The kind of the error that a trap ends a connection with.
pub(super) const CUT: ErrorKind = ErrorKind::Interrupted;

const READ_BYTES_MAX: usize = 16 * 1024;
/// Chunks between reading and writing: with a delay they are the bytes under way, up to 4 MiB; a sender of more waits.
const CHUNKS_MAX: usize = 256;

/// What was read, and when; an error ends the stream.
type Arrival = (Instant, io::Result<Bytes>);

/// Reads to the end of `from`, passes on to `to` what the lane's faults let through, and the end at last.
pub(super) async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, lane: &Lane) -> io::Result<()> {
    let (arrivals, arriving) = mpsc::channel(CHUNKS_MAX);
    let writing = write(arriving, to, lane);
    tokio::pin!(writing);
    tokio::select! {
        // A cut does not wait for the reader, which waits for its peer.
        outcome = &mut writing => outcome,
        () = read(from, arrivals, lane) => writing.await,
    }
}

/// Also an error is only an arrival: what a blackhole swallows must not be known on the other side.
async fn read(mut from: ReadHalf<'_>, arrivals: mpsc::Sender<Arrival>, lane: &Lane) {
    let connection = lane.connection();
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES_MAX);
        let outcome = match from.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {
                lane.came(connection, &buffer);
                Ok(buffer.freeze())
            }
            Err(error) => Err(error),
        };
        let failed = outcome.is_err();
        if arrivals.send((Instant::now(), outcome)).await.is_err() || failed {
            return;
        }
    }
}

async fn write(mut arriving: mpsc::Receiver<Arrival>, mut to: WriteHalf<'_>, lane: &Lane) -> io::Result<()> {
    while let Some((arrived, arrival)) = arriving.recv().await {
        sleep_until(arrived + lane.faults().delay).await;
        let mut chunk = match arrival {
            Ok(chunk) => chunk,
            Err(error) => {
                lane.until_open().await;
                return Err(error);
            }
        };
        while chunk.has_remaining() {
            let Grant::Pass(bytes) = lane.grant(chunk.remaining()).await else {
                return Err(CUT.into());
            };
            to.write_all(&chunk.split_to(bytes)).await?;
            sleep_after(bytes, lane).await;
        }
    }
    lane.until_open().await;
    to.shutdown().await
}

async fn sleep_after(bytes: usize, lane: &Lane) {
    let faults = lane.faults();
    if let Some(rate) = faults.bytes_per_second {
        sleep(Duration::from_secs_f64(bytes as f64 / f64::from(rate))).await;
    }
    match faults.slice {
        Some((_, Duration::ZERO)) => tokio::task::yield_now().await,
        Some((_, pause)) => sleep(pause).await,
        None => {}
    }
}
