//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// Exponential backoff with full jitter: attempt `n` (from 0) waits a random time between zero and
/// `base * 2^n`, at most `cap`, so that the clients of a daemon that restarts do not come back together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The upper bound of the first wait. Default 250 ms.
    pub base: Duration,
    /// The upper bound of every wait. Default 30 s.
    pub cap: Duration,
    /// A connection that was open this long starts the count again. Default 10 s.
    pub stable_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(250),
            cap: Duration::from_secs(30),
            stable_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The longest wait before attempt `attempt`.
    fn bound(&self, attempt: u32) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// The wait before attempt `attempt`.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        self.bound(attempt).mul_f64(rand::rng().random())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_the_delay_stays_below_it() {
        let backoff = Backoff::default();
        let bounds: Vec<u64> = (0..9).map(|attempt| backoff.bound(attempt).as_millis() as u64).collect();
        assert_eq!(bounds, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(backoff.bound(u32::MAX), Duration::from_secs(30));
        let delays: Vec<Duration> = (0..200).map(|_| backoff.delay(3)).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(2)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_secs(1)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_secs(1)));
    }
}
