//! Complaints that anybody can cause, and that shall not fill the log.

use std::time::Duration;

use tokio::time::Instant;

/// A complaint of one kind is logged this often at most; how many there were between is logged with the next.
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// When a complaint of one kind is logged again.
#[derive(Debug, Default)]
pub struct LogPace {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogPace {
    /// Another one to complain of: `Some` when it is to be logged, with how many were not since the last that was.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now.duration_since(at) < LOG_INTERVAL) {
            self.unlogged += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{LOG_INTERVAL, LogPace};

    #[test]
    fn one_is_logged_in_each_interval_and_says_how_many_were_not() {
        let (mut pace, now) = (LogPace::default(), Instant::now());
        assert_eq!(pace.due(now), Some(0));
        for _ in 0..7 {
            assert_eq!(pace.due(now + LOG_INTERVAL - Duration::from_millis(1)), None);
        }
        assert_eq!(pace.due(now + LOG_INTERVAL), Some(7));
        assert_eq!(pace.due(now + LOG_INTERVAL * 2), Some(0));
    }
}
