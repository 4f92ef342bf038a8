//! How long a client may take for what it has asked for, while its connection is no WebSocket.
//!
//! An answer that is whole is in memory until it is taken, so it is not waited for as a stream is: whoever does not read is
//! cut off. Looked at where bytes are written, because nothing else is asked while a socket takes none.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A client that reads has taken so many bytes of an answer in `answer_stall_max`, or all that is left of it.
const TAKEN_BYTES_MIN: usize = 64 << 10;

/// How the client of a connection is waited for. Cheap to clone: who answers says it, the connection keeps to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<Rule>>);

#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    /// However long it takes nothing.
    is_endless: bool,
    /// When it is over in any case.
    until: Option<Instant>,
}

impl Patience {
    /// As for every request of which nothing else is known.
    pub(super) fn reset(&self) {
        self.set(Rule::default());
    }

    /// For an answer that is in memory; `until`: it is not waited for any longer.
    pub(super) fn for_answer(&self, until: Option<Instant>) {
        self.set(Rule { is_endless: false, until });
    }

    /// For a stream that is made as it is read.
    pub(super) fn for_stream(&self, until: Option<Instant>) {
        self.set(Rule { is_endless: true, until });
    }

    fn set(&self, rule: Rule) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rule;
    }

    /// When whoever has taken too little since `since` is cut off; `None`: never.
    fn deadline(&self, since: Instant, stall_max: Duration) -> Option<Instant> {
        let Rule { is_endless, until } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = (!is_endless).then(|| since + stall_max);
        [stalled, until].into_iter().flatten().min()
    }
}

/// A connection whose client is waited for no longer than that.
#[derive(Debug)]
pub(super) struct Attended<S> {
    transport: S,
    patience: Patience,
    /// `answer_stall_max`.
    stall_max: Duration,
    stall: Option<Stall>,
}

/// The client does not take what there is for it.
#[derive(Debug)]
struct Stall {
    since: Instant,
    /// Bytes that it took all the same.
    taken: usize,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Attended<S> {
    pub(super) const fn new(transport: S, patience: Patience, stall_max: Duration) -> Self {
        Self { transport, patience, stall_max, stall: None }
    }

    /// The connection, for somebody who waits as long as it takes.
    pub(super) fn into_inner(self) -> S {
        self.transport
    }

    /// Ready when its client was waited for long enough.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = self.stall.as_ref().map_or(now, |stall| stall.since);
        let deadline = self.patience.deadline(since, self.stall_max);
        let at = deadline.unwrap_or(now);
        let stall =
            self.stall.get_or_insert_with(|| Stall { since, taken: 0, alarm: Box::pin(sleep_until(at)) });
        if deadline.is_none() {
            return Poll::Pending;
        }
        if stall.alarm.deadline() != at {
            stall.alarm.as_mut().reset(at);
        }
        stall.alarm.as_mut().poll(cx)
    }

    fn poll_taken<T>(&mut self, cx: &mut Context<'_>, taken: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if taken.is_pending() && self.poll_alarm(cx).is_ready() {
            let error = "the client does not take its answer (answer_stall_max), or its token has expired";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
        }
        taken
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(written)), Some(stall)) = (&written, &mut self.stall) {
            stall.taken += written;
            if stall.taken >= TAKEN_BYTES_MIN {
                self.stall = None;
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attended<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attended<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write(cx, bytes);
        let written = this.count(written);
        this.poll_taken(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write_vectored(cx, buffers);
        let written = this.count(written);
        this.poll_taken(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    /// Asked for when everything was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.transport).poll_flush(cx);
        if flushed.is_ready() {
            this.stall = None;
        }
        this.poll_taken(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.transport).poll_shutdown(cx);
        this.poll_taken(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::{Attended, Patience, TAKEN_BYTES_MIN};

    const STALL_MAX: Duration = Duration::from_secs(30);

    fn connection() -> (Attended<DuplexStream>, Patience, DuplexStream) {
        let (ours, theirs) = duplex(TAKEN_BYTES_MIN / 2);
        let patience = Patience::default();
        (Attended::new(ours, patience.clone(), STALL_MAX), patience, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_little_is_cut_off_and_whoever_takes_more_is_waited_for() {
        let answer = vec![0; 16 * TAKEN_BYTES_MIN];
        for (taken, is_cut_off) in [(0, true), (TAKEN_BYTES_MIN / 8, true), (TAKEN_BYTES_MIN / 2, false)] {
            let (mut ours, _, mut theirs) = connection();
            let began = Instant::now();
            let client = tokio::spawn(async move {
                let mut piece = vec![0; taken];
                loop {
                    sleep(STALL_MAX / 4).await;
                    if theirs.read_exact(&mut piece).await.is_err() {
                        return;
                    }
                }
            });
            let written = ours.write_all(&answer).await;
            if is_cut_off {
                assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
                assert!(began.elapsed() >= STALL_MAX && began.elapsed() < STALL_MAX * 3 / 2);
            } else {
                written.unwrap();
                assert!(began.elapsed() > STALL_MAX * 3);
            }
            client.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_waited_for_until_it_may_not_be_and_an_answer_no_longer_than_that() {
        let began = Instant::now();
        let answer = vec![0; 2 * TAKEN_BYTES_MIN];
        let (mut ours, patience, _theirs) = connection();
        patience.for_stream(Some(began + STALL_MAX * 100));
        assert_eq!(ours.write_all(&answer).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), (STALL_MAX * 100).as_secs());
        let (mut ours, patience, _theirs) = connection();
        patience.for_answer(Some(Instant::now() + STALL_MAX / 10));
        let began = Instant::now();
        assert_eq!(ours.write_all(&answer).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), (STALL_MAX / 10).as_secs());
    }
}
