//! How fast a client may talk: what is faster waits in its socket.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: `burst` at once, `rate` in a second from then on.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    burst: f64,
    /// What is left; below zero it has to be waited for.
    left: f64,
    /// When that was so.
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: usize, burst: usize, now: Instant) -> Self {
        let burst = burst.max(1) as f64;
        Self { rate: rate.max(1) as f64, burst, left: burst, at: now }
    }

    /// One more was taken.
    pub(super) fn take(&mut self, now: Instant) {
        let earned = now.duration_since(self.at).as_secs_f64() * self.rate;
        self.left = (self.left + earned).min(self.burst) - 1.0;
        self.at = now;
    }

    /// When the next may be taken, where that is later than when the last one was.
    pub(super) fn free_at(&self) -> Option<Instant> {
        // As much over as a whole one is.
        (self.left < 0.0).then(|| self.at + Duration::from_secs_f64(-self.left / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;

    #[test]
    fn a_burst_is_free_and_what_follows_is_paced() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 3, now);
        for _ in 0..3 {
            pace.take(now);
            assert_eq!(pace.free_at(), None);
        }
        pace.take(now);
        assert_eq!(pace.free_at(), Some(now + Duration::from_millis(100)));
        let later = now + Duration::from_secs(60);
        for _ in 0..3 {
            pace.take(later);
        }
        assert_eq!(pace.free_at(), None);
    }
}
