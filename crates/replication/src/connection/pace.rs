//! When to let bytes gather before reading them.
//!
//! A reader that waits at the socket while a walsender works off a backlog is woken for each message, and the waking
//! costs the walsender more than the message does. In a burst it pays to look away for a moment and read a mouthful.
//! When changes come one by one, nothing is delayed. To look away always would be worse than never: the socket's
//! buffer is then full before the moment is over, and the walsender waits.

use std::time::Duration;

use tokio::time::Instant;

/// Reads that follow each other faster than this are a sign of a burst.
const GAP: Duration = Duration::from_micros(100);
/// So many of them in a row are one. (A transaction of one row takes three reads.)
const BURST_READS: u32 = 16;
/// What a read must bring after a pause for the burst to go on, in bytes.
const BURST_BYTES: usize = 4 * 1024;
/// How long a pause is; the timer makes it up to 1 ms more.
const PAUSE: Duration = Duration::from_millis(1);

/// Decides, read by read.
#[derive(Debug)]
pub(super) struct Pace {
    quick_reads: u32,
    last_read: Instant,
    resume_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { quick_reads: 0, last_read: Instant::now(), resume_at: None }
    }

    /// Waits as long as it pays. Cancel-safe: a wait that was dropped goes on with the next call.
    pub(super) async fn pause(&self) {
        if let Some(resume_at) = self.resume_at {
            tokio::time::sleep_until(resume_at).await;
        }
    }

    /// Takes note of a read that has just brought `bytes`.
    pub(super) fn after_read(&mut self, bytes: usize, now: Instant) {
        let paused = self.resume_at.take().is_some();
        let quick =
            if paused { bytes >= BURST_BYTES } else { now.saturating_duration_since(self.last_read) < GAP };
        self.quick_reads = if quick { self.quick_reads.saturating_add(1) } else { 0 };
        self.last_read = now;
        self.resume_at = (self.quick_reads >= BURST_READS).then(|| now + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BURST_BYTES, BURST_READS, Pace};

    #[test]
    fn only_a_run_of_quick_reads_brings_a_pause_and_only_a_mouthful_another() {
        let mut pace = Pace::new();
        let mut now = pace.last_read;
        let mut read = |pace: &mut Pace, bytes, micros| {
            now += Duration::from_micros(micros);
            pace.after_read(bytes, now);
            pace.resume_at.is_some()
        };
        // 2,000 transactions a second, each in three pieces.
        for _ in 0..1000 {
            assert!(!read(&mut pace, 100, 460) && !read(&mut pace, 100, 20) && !read(&mut pace, 100, 20));
        }
        let quick = (0..BURST_READS).take_while(|_| !read(&mut pace, 100, 20)).count();
        assert!(quick < BURST_READS as usize, "a burst was not noticed");
        assert!(read(&mut pace, BURST_BYTES, 1500), "the burst went on");
        assert!(!read(&mut pace, BURST_BYTES - 1, 1500), "the burst was over");
        assert!(!read(&mut pace, 100, 20));
    }
}
