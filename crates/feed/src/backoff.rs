//! How long to wait before what failed is tried again.

use std::time::Duration;

/// Waits that double from a first to a longest one, each of them half at random: those that lost the same server do not
/// come back to it as one.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// For something that has not failed yet. `longest` wins where it is shorter than `first`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after one more failure: between half of the present step and the whole of it.
    pub fn wait(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Failures since it last worked.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked: the next failure is the first again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn waits_grow_to_their_bound_and_start_over() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(10));
        let mut backoff = Backoff::new(first, longest);
        for failure in 0..40_u32 {
            assert_eq!(backoff.failures(), failure);
            let (step, wait) = ((first * 2_u32.pow(failure.min(10))).min(longest), backoff.wait());
            assert!(wait >= step / 2 && wait <= step, "{failure}: {wait:?}");
        }
        backoff.failures = u32::MAX;
        assert!(backoff.wait() >= longest / 2);
        backoff.reset();
        assert!(backoff.wait() <= first);
        assert!(Backoff::new(longest, first).wait() <= first);
    }
}
