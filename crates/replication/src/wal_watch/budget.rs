//! The arithmetic of the budget. No I/O.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use walcast_model::Lsn;

/// Over how long the rate is measured.
const WINDOW: Duration = Duration::from_secs(60);

/// How fast WAL is written.
#[derive(Debug, Default)]
pub(super) struct Rate {
    seen: VecDeque<(Instant, Lsn)>,
}

impl Rate {
    /// Takes note of where the WAL ends, and says how many bytes a second have been written of late; 0 for the first.
    pub(super) fn see(&mut self, now: Instant, end: Lsn) -> f64 {
        // A server that was restored begins anew.
        if self.seen.back().is_some_and(|(_, before)| *before > end) {
            self.seen.clear();
        }
        while self.seen.len() > 1 && self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.seen.pop_front();
        }
        self.seen.push_back((now, end));
        let Some((at, before)) = self.seen.front() else { return 0.0 };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds > 0.0 { end.bytes_since(*before) as f64 / seconds } else { 0.0 }
    }
}

/// Whether the budget is exceeded.
#[derive(Debug)]
pub(super) struct Verdict {
    budget: Option<u64>,
    /// Looks in a row that found it exceeded.
    looks: u32,
}

impl Verdict {
    pub(super) const fn new(budget: Option<u64>) -> Self {
        Self { budget, looks: 0 }
    }

    pub(super) fn see(&mut self, retained_bytes: u64) -> bool {
        let is_exceeded = self.budget.is_some_and(|budget| retained_bytes > budget);
        self.looks = if is_exceeded { self.looks.saturating_add(1) } else { 0 };
        is_exceeded
    }

    /// Whether two looks in a row found it exceeded.
    pub(super) const fn is_settled(&self) -> bool {
        self.looks >= 2
    }
}

/// How long until `budget` or the server's own limit (`safe_bytes`) is reached by a slot that keeps `retained_bytes` and
/// does not move, while the source writes as it does; nothing when it is not written, or nothing is limited.
#[must_use]
pub fn time_left(
    budget: Option<u64>,
    retained_bytes: u64,
    safe_bytes: Option<i64>,
    bytes_per_second: f64,
) -> Option<Duration> {
    let of_budget = budget.map(|budget| budget.saturating_sub(retained_bytes));
    let of_server = safe_bytes.map(|safe| u64::try_from(safe).unwrap_or_default());
    let left = of_budget.into_iter().chain(of_server).min()?;
    if left == 0 {
        return Some(Duration::ZERO);
    }
    if bytes_per_second <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(left as f64 / bytes_per_second).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use walcast_model::Lsn;

    use super::{Rate, Verdict, time_left};

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut see = |seconds: u64, end: u64| rate.see(start + Duration::from_secs(seconds), Lsn::new(end));
        assert_eq!(see(0, 1000).to_bits(), 0.0_f64.to_bits());
        assert_eq!(see(10, 2000).round() as u64, 100);
        for seconds in (20..=120).step_by(10) {
            see(seconds, 2000);
        }
        assert_eq!(see(130, 2000).round() as u64, 0);
        // A server that went back.
        assert_eq!(see(140, 10).round() as u64, 0);
        assert_eq!(see(150, 110).round() as u64, 10);
    }

    #[test]
    fn what_is_nearer_of_budget_and_server_s_limit_counts() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(Some(1000), 400, None, 10.0), Some(seconds(60)));
        assert_eq!(time_left(Some(1000), 400, Some(100), 10.0), Some(seconds(10)));
        assert_eq!(time_left(None, 400, Some(100), 10.0), Some(seconds(10)));
        assert_eq!(time_left(Some(1000), 1400, None, 10.0), Some(Duration::ZERO));
        assert_eq!(time_left(None, 400, Some(-5), 0.0), Some(Duration::ZERO));
        assert_eq!(time_left(Some(1000), 400, None, 0.0), None);
        assert_eq!(time_left(None, 400, None, 10.0), None);
    }

    #[test]
    fn one_look_is_not_enough_to_give_a_slot_up() {
        let mut verdict = Verdict::new(Some(100));
        assert!(!verdict.see(100));
        assert!(verdict.see(101) && !verdict.is_settled());
        assert!(verdict.see(102) && verdict.is_settled());
        assert!(!verdict.see(50) && !verdict.is_settled());
        assert!(!Verdict::new(None).see(u64::MAX));
    }
}
