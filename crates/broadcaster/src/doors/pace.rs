//! How fast a client may talk: what is faster waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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
        self.take_many(1, now);
    }

    /// So many more were taken.
    pub(super) fn take_many(&mut self, count: usize, now: Instant) {
        let earned = now.duration_since(self.at).as_secs_f64() * self.rate;
        self.left = (self.left + earned).min(self.burst) - count as f64;
        self.at = now;
    }

    /// One more was asked for: when it may be answered, where that is later than now. What would have to wait past `until` is
    /// not taken, so that who is refused is no worse off for having asked.
    pub(super) fn try_take(&mut self, now: Instant, until: Instant) -> Result<Option<Instant>, TooFast> {
        let before = (self.left, self.at);
        self.take(now);
        match self.free_at() {
            Some(free_at) if free_at > until => {
                (self.left, self.at) = before;
                Err(TooFast)
            }
            free_at => Ok(free_at),
        }
    }

    /// Whether it is as it was at first.
    fn is_rested(&self, now: Instant) -> bool {
        self.left + now.duration_since(self.at).as_secs_f64() * self.rate >= self.burst
    }

    /// When the next may be taken, where that is later than when the last one was.
    pub(super) fn free_at(&self) -> Option<Instant> {
        // As much over as a whole one is.
        (self.left < 0.0).then(|| self.at + Duration::from_secs_f64(-self.left / self.rate))
    }
}

/// It would have to wait for too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooFast;

/// The pace of the requests that come by one connection.
#[derive(Clone, Debug)]
// Held for one look.
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    /// `rate` in a second, four times as many at once.
    pub(super) fn new(rate: usize, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Pace::new(rate, rate.saturating_mul(4), now))))
    }

    /// As [`Pace::try_take`].
    pub(super) fn try_take(&self, now: Instant, until: Instant) -> Result<Option<Instant>, TooFast> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).try_take(now, until)
    }
}

/// The paces of users, over all their connections.
#[derive(Debug, Default)]
pub(super) struct Paces {
    // Held for one look, and now and then for one at all.
    by_user: Mutex<HashMap<Arc<str>, Pace>>,
}

/// So many users are remembered before it is looked who has been quiet for long.
const USERS_FEW: usize = 1024;

impl Paces {
    /// As [`Pace::try_take`], for a user.
    pub(super) fn try_take(
        &self,
        user: &str,
        rate: usize,
        now: Instant,
        until: Instant,
    ) -> Result<Option<Instant>, TooFast> {
        self.of(user, rate, now, |pace| pace.try_take(now, until))
    }

    /// So many were taken by a user.
    pub(super) fn take_many(&self, user: &str, rate: usize, count: usize, now: Instant) {
        self.of(user, rate, now, |pace| pace.take_many(count, now));
    }

    /// When a user may take the next, where that is not known to be over.
    pub(super) fn free_at(&self, user: &str) -> Option<Instant> {
        let by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        by_user.get(user).and_then(Pace::free_at)
    }

    fn of<T>(&self, user: &str, rate: usize, now: Instant, what: impl FnOnce(&mut Pace) -> T) -> T {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = by_user.get_mut(user) {
            return what(pace);
        }
        if by_user.len() >= USERS_FEW && by_user.len().is_power_of_two() {
            by_user.retain(|_, pace| !pace.is_rested(now));
        }
        what(by_user.entry(Arc::from(user)).or_insert_with(|| Pace::new(rate, rate.saturating_mul(4), now)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Pace, TooFast};

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

    #[test]
    fn whoever_is_refused_is_served_as_soon_as_if_it_had_not_asked() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 1, now);
        let until = Duration::from_secs(1);
        let taken = (0..).take_while(|_| pace.try_take(now, now + until).is_ok()).count();
        assert_eq!(taken, 11, "one, and a second of them on credit");
        for tenths in 0..600 {
            let now = now + Duration::from_millis(tenths * 10);
            let is_due = tenths > 0 && tenths % 10 == 0;
            assert_eq!(pace.try_take(now, now + until).is_ok(), is_due, "{tenths}");
        }
        assert_eq!(pace.try_take(now, now), Err(TooFast));
    }
}
