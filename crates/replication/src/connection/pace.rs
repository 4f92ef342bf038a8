//! When to let bytes gather before reading them.
//!
//! A reader that waits at the socket while a walsender works off a backlog is woken for each message, and the waking
//! costs both of them more than the message does. In a burst it pays to look away for a moment and read a mouthful.
//! When changes come one by one, nothing is delayed. To look away always would be worse than never: the socket's
//! buffer is then full before the moment is over, and the walsender waits.
//!
//! Meanwhile the socket is not registered with the event loop, which the walsender would call for each message, whether or
//! not a task waits for it. A thread of its own can look away for less than the millisecond of the event loop's timers.
//!
//! On a busy machine the walsender is interrupted for milliseconds at a time, so one late or small read says nothing:
//! confidence grows with every read that speaks for a burst and falls with every one that does not.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// Reads that follow each other faster than this speak for a burst.
const GAP: Duration = Duration::from_micros(100);
/// From this confidence on it is one: that many quick reads in a row. (A transaction of one row takes up to three.)
const BURST: u32 = 16;
/// The most confidence there is, which a backlog has after some moments.
const CONFIDENCE_MAX: u32 = 64;
/// What a late read takes away at most, however late.
const LATE_MAX: u32 = 4;
/// What a read must bring after a pause to speak for the burst, in bytes.
const MOUTHFUL_BYTES: usize = 512;
/// And for each microsecond of the pause: what 10,000 transactions of one small row in a second make.
const MOUTHFUL_BYTES_PER_MICROSECOND: usize = 2;
/// What such a read adds, and a smaller one takes away.
const MOUTHFUL: u32 = 8;
/// What a pause is to bring, in bytes: in a lasting burst one that brings less is followed by a longer one, one that
/// brings more by a shorter one. A Unix socket holds about 270 messages of 100 bytes (each is accounted with 768), and
/// the walsender shall not wait.
const GULP_BYTES: Range<usize> = 4 * 1024..8 * 1024;
/// How long a thread pauses at first.
const PAUSE: Duration = Duration::from_micros(250);
/// The bounds of its pauses.
const PAUSE_MIN: Duration = Duration::from_nanos(62_500);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// How long a task pauses; the timer makes it up to 1 ms more.
const TASK_PAUSE: Duration = Duration::from_millis(1);

/// Decides, read by read.
#[derive(Debug)]
pub(super) struct Pace {
    has_own_thread: bool,
    confidence: u32,
    pause: Duration,
    last_read: Instant,
    resume_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(has_own_thread: bool) -> Self {
        let pause = Self::pause_at_first(has_own_thread);
        Self { has_own_thread, confidence: 0, pause, last_read: Instant::now(), resume_at: None }
    }

    /// Waits as long as it pays. Cancel-safe: a wait that was dropped goes on with the next call.
    pub(super) async fn pause(&self) {
        let Some(resume_at) = self.resume_at else { return };
        if self.has_own_thread {
            std::thread::sleep(resume_at.saturating_duration_since(Instant::now()));
        } else {
            tokio::time::sleep_until(resume_at).await;
        }
    }

    /// Whether bytes are to gather before the next read.
    pub(super) fn is_burst(&self) -> bool {
        self.resume_at.is_some()
    }

    /// Takes note of a read that has just brought `bytes`.
    pub(super) fn after_read(&mut self, bytes: usize, now: Instant) {
        let gap = now.saturating_duration_since(self.last_read);
        let (more, less) = match self.resume_at.take() {
            Some(_) if bytes >= mouthful_bytes(self.pause) => {
                self.adapt(bytes);
                (MOUTHFUL, 0)
            }
            Some(_) => (0, MOUTHFUL),
            None if gap < GAP => (1, 0),
            None => (0, u32::try_from(gap.as_micros() / GAP.as_micros()).unwrap_or(LATE_MAX).min(LATE_MAX)),
        };
        self.confidence = self.confidence.saturating_sub(less).saturating_add(more).min(CONFIDENCE_MAX);
        self.last_read = now;
        if self.confidence >= BURST {
            self.resume_at = Some(now + self.pause);
        } else {
            self.pause = Self::pause_at_first(self.has_own_thread);
        }
    }

    const fn pause_at_first(has_own_thread: bool) -> Duration {
        if has_own_thread { PAUSE } else { TASK_PAUSE }
    }

    /// Finds the length of the next pause from what the last one brought. It grows only if less would be enough for the
    /// longer one, so that it does not swing.
    fn adapt(&mut self, bytes: usize) {
        if !self.has_own_thread {
            return;
        }
        let longer = (self.pause * 2).min(PAUSE_MAX);
        if bytes > GULP_BYTES.end {
            self.pause = (self.pause / 2).max(PAUSE_MIN);
        } else if bytes < GULP_BYTES.start && bytes >= mouthful_bytes(longer) {
            self.pause = longer;
        }
    }
}

/// What a pause of this length must bring to speak for the burst.
fn mouthful_bytes(pause: Duration) -> usize {
    let micros = usize::try_from(pause.as_micros()).unwrap_or(usize::MAX);
    micros.saturating_mul(MOUTHFUL_BYTES_PER_MICROSECOND).max(MOUTHFUL_BYTES)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BURST, MOUTHFUL_BYTES, Pace};

    struct Reads {
        pace: Pace,
        now: tokio::time::Instant,
    }

    impl Reads {
        /// A read after so many microseconds: whether it is followed by a pause.
        fn read(&mut self, bytes: usize, micros: u64) -> bool {
            self.now += Duration::from_micros(micros);
            self.pace.after_read(bytes, self.now);
            self.pace.resume_at.is_some()
        }
    }

    fn reads() -> Reads {
        let pace = Pace::new(true);
        Reads { now: pace.last_read, pace }
    }

    #[test]
    fn a_steady_2000_transactions_a_second_are_never_delayed() {
        let mut reads = reads();
        for _ in 0..1000 {
            // Each in three pieces.
            assert!(!reads.read(100, 460) && !reads.read(100, 20) && !reads.read(100, 20));
        }
    }

    #[test]
    fn a_pause_is_as_long_as_the_pace_of_the_burst_allows() {
        let mut reads = reads();
        (0..BURST).for_each(|_| _ = reads.read(100, 20));
        // So many bytes in a microsecond, for a while: the pause that comes of it, in microseconds.
        let mut pause_at = |bytes_per_micro: f64| {
            for _ in 0..20 {
                let micros = reads.pace.pause.as_micros() as f64;
                reads.read((micros * bytes_per_micro) as usize, micros as u64);
            }
            reads.pace.pause.as_micros()
        };
        let there_and_back = [5.0, 9.0, 14.0, 40.0, 500.0, 14.0, 2.5, 1.0].map(&mut pause_at);
        assert_eq!(there_and_back, [1000, 500, 500, 125, 62, 500, 500, 250]);
        assert!(!reads.read(100, 1000));
    }

    #[test]
    fn a_burst_is_noticed_survives_interruptions_and_ends() {
        let mut reads = reads();
        let quick = (0..BURST).take_while(|_| !reads.read(100, 20)).count();
        assert!(quick < BURST as usize, "a burst was not noticed");
        for _ in 0..100 {
            let mouthfuls = (0..5).all(|_| reads.read(MOUTHFUL_BYTES, 1500));
            // The walsender was interrupted.
            assert!(mouthfuls && reads.read(100, 5000), "an interruption is not the end");
        }
        let pauses = (0..100).take_while(|_| reads.read(100, 5000)).count();
        assert!(pauses < 10, "{pauses} pauses after the end");
        assert!(!reads.read(100, 20));
    }
}
