//! How long to wait before the next try.

use std::time::Duration;

/// The first wait is up to this.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer than this, but for a server that is shutting down.
const LONGEST: Duration = Duration::from_secs(10);
/// A server that is going down or coming up is left alone for at least this long: a consumer that reconnects at once
/// and cannot acknowledge keeps it from stopping (reference 1.5).
pub(crate) const SHUTTING_DOWN: Duration = Duration::from_secs(5);

/// Waits that know a server that is shutting down.
#[derive(Debug)]
pub(crate) struct Backoff(walcast_feed::Backoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(walcast_feed::Backoff::new(FIRST, LONGEST))
    }
}

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn after(&mut self, shutting_down: bool) -> Duration {
        let wait = self.0.wait();
        if !shutting_down {
            return wait;
        }
        SHUTTING_DOWN.mul_f64(rand::random_range(1.0..=1.5))
    }

    /// It worked: the next failure is the first again.
    pub(crate) const fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn waits_grow_to_a_limit_and_a_server_that_goes_down_is_left_alone() {
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            let wait = backoff.after(false);
            assert!(wait >= Duration::from_millis(100) && wait <= Duration::from_secs(10), "{wait:?}");
        }
        assert!(backoff.after(false) >= Duration::from_secs(5));
        assert!(backoff.after(true) >= Duration::from_secs(5));
        backoff.reset();
        assert!(backoff.after(false) <= Duration::from_millis(200));
    }
}
