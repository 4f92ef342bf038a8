//! Telling the server how far we are: its own task, so that a slow consumer never costs the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walcast_model::{Lsn, Timestamp};
use walcast_postgres::Stream;

/// What the status updates of one stream say. Clones speak for the same stream; after its end they say nothing.
///
/// Both positions only ever go up, and what is acknowledged is never above what was received, whatever is called: the
/// server itself checks nothing, and an acknowledgement too far makes changes vanish without a word.
#[derive(Clone, Debug, Default)]
pub struct Feedback(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    received: AtomicU64,
    acknowledged: AtomicU64,
    reply_requested: AtomicBool,
    /// Whether data came since a status update was last scheduled because of it.
    stirred: AtomicBool,
    changed: Notify,
}

impl Feedback {
    /// Everything before `lsn` has arrived. The stream calls this itself for every frame.
    pub fn received(&self, lsn: Lsn) {
        self.0.received.fetch_max(lsn.get(), Ordering::AcqRel);
    }

    /// Everything before `lsn` is durable and need never be sent again: the end of a transaction, or a keepalive's
    /// `wal_end` with nothing in flight. Sent within [`status_coalesce`](super::ReplicationSettings::status_coalesce);
    /// a position above what was received counts once that much was received.
    pub fn acknowledge(&self, lsn: Lsn) {
        if self.0.acknowledged.fetch_max(lsn.get(), Ordering::AcqRel) < lsn.get() {
            self.0.changed.notify_one();
        }
    }

    /// The position that the next status update says is durable.
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        let acknowledged = self.0.acknowledged.load(Ordering::Acquire);
        Lsn::new(acknowledged.min(self.0.received.load(Ordering::Acquire)))
    }

    /// The server wants to hear from us now.
    pub(super) fn request_reply(&self) {
        self.0.reply_requested.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }

    /// Data has arrived. The walsender may look away now and miss what is flushed next, so it is going to hear from us soon;
    /// see [`NUDGES`].
    pub(super) fn stir(&self) {
        if !self.0.stirred.swap(true, Ordering::AcqRel) {
            self.0.changed.notify_one();
        }
    }

    /// A standby status update as `CopyData` (34 bytes of payload).
    fn message(&self, flushed: Lsn) -> BytesMut {
        let mut message = BytesMut::with_capacity(39);
        message.put_u8(b'd');
        message.put_u32(4 + 34);
        message.put_u8(b'r');
        // Written, flushed, applied: what is not durable was merely received.
        message.put_u64(self.0.received.load(Ordering::Acquire).max(flushed.get()));
        message.put_u64(flushed.get());
        message.put_u64(flushed.get());
        message.put_i64(Timestamp::now().postgres_micros());
        message.put_u8(0);
        message
    }
}

/// How long after data came the server hears from us, even if there is nothing to say.
///
/// A walsender of Postgres 16 and later that has sent all looks whether more was flushed, and only then joins those who are
/// woken by a flush: a commit in between is sent when the next one comes, or when a client says something, which is what
/// Postgres's own subscribers do after each transaction and the only reason that it is rarely seen (`WalSndWait` in
/// walsender.c; neondatabase/neon#6179). Measured on 18.4 with two busy processors: one of 400 commits on an otherwise
/// quiet server, delayed until the next status update. The second and third are for the one that is missed again.
const NUDGES: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(300)];

/// When status updates are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Longest time between two.
    pub(super) interval: Duration,
    /// Shortest time between two that only an acknowledgement asks for.
    pub(super) coalesce: Duration,
}

/// Sends status updates until `finish`, then the last one and `CopyDone`, and gives the write half back.
pub(super) async fn send_status_updates(
    mut writer: WriteHalf<Stream>,
    feedback: Feedback,
    schedule: Schedule,
    finish: CancellationToken,
) -> std::io::Result<WriteHalf<Stream>> {
    let mut sent = Lsn::ZERO;
    // The first one at once: it tells the server that somebody listens.
    let mut due = Instant::now();
    let mut last = due;
    let mut nudges = NUDGES.iter();
    let mut nudge_at = None;
    while !finish.is_cancelled() {
        let now = Instant::now();
        let replying = feedback.0.reply_requested.swap(false, Ordering::AcqRel);
        if replying || now >= due {
            sent = feedback.acknowledged();
            writer.write_all(&feedback.message(sent)).await?;
            writer.flush().await?;
            last = now;
            if nudge_at.is_some_and(|at| at <= now) {
                nudge_at = nudges.next().map(|pause| now + *pause);
            }
        }
        if nudge_at.is_none_or(|at| at > now + NUDGES[0]) && feedback.0.stirred.swap(false, Ordering::AcqRel)
        {
            nudges = NUDGES.iter();
            nudge_at = nudges.next().map(|pause| now + *pause);
        }
        due = last + if feedback.acknowledged() > sent { schedule.coalesce } else { schedule.interval };
        due = nudge_at.map_or(due, |at| at.min(due));
        tokio::select! {
            () = finish.cancelled() => {}
            () = feedback.0.changed.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
    let mut farewell = feedback.message(feedback.acknowledged());
    farewell.extend_from_slice(b"c\0\0\0\x04");
    writer.write_all(&farewell).await?;
    writer.flush().await?;
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use walcast_model::Lsn;

    use super::Feedback;

    #[test]
    fn positions_only_go_up_and_nothing_unreceived_is_acknowledged() {
        let feedback = Feedback::default();
        feedback.acknowledge(Lsn::new(50));
        assert_eq!(feedback.acknowledged(), Lsn::ZERO);
        feedback.received(Lsn::new(30));
        assert_eq!(feedback.acknowledged(), Lsn::new(30));
        feedback.received(Lsn::new(60));
        feedback.received(Lsn::new(10));
        feedback.acknowledge(Lsn::new(40));
        assert_eq!(feedback.acknowledged(), Lsn::new(50));
        let message = feedback.message(feedback.acknowledged());
        assert_eq!(message.len(), 39);
        assert_eq!(&message[..6], b"d\0\0\0\x26r");
        let number = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
        assert_eq!([number(6), number(14), number(22)], [60, 50, 50]);
    }
}
