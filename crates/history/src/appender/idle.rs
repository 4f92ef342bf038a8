//! When a position that no change leads to is persisted. No I/O.
//!
//! Persisting writes WAL, and where the history is in the source's own cluster that moves the position again: so it
//! is done seldom enough that an idle system stays idle (reference, section 3 "Idle acks").

use std::time::Duration;

use tokio::time::Instant;
use walcast_model::Cursor;

/// How often an idle position is persisted.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleRule {
    /// Not sooner than this after the last time.
    pub(super) interval_min: Duration,
    /// Before `interval_max`, only when the position moved by this many bytes of WAL.
    pub(super) wal_bytes_min: u64,
    /// At the latest this long after the last time, if the position moved at all.
    pub(super) interval_max: Duration,
}

impl IdleRule {
    /// When `position` is to be persisted; `None` when it is already.
    pub(super) fn due(&self, persisted: Cursor, persisted_at: Instant, position: Cursor) -> Option<Instant> {
        if position <= persisted {
            return None;
        }
        let much = position.lsn().bytes_since(persisted.lsn()) >= self.wal_bytes_min;
        let interval = if much { self.interval_min } else { self.interval_max };
        Some(persisted_at + interval)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use walcast_model::{Cursor, Lsn};

    use super::IdleRule;

    #[test]
    fn little_wal_waits_long_and_much_wal_waits_briefly() {
        let seconds = Duration::from_secs;
        let rule = IdleRule { interval_min: seconds(10), wal_bytes_min: 1 << 20, interval_max: seconds(300) };
        let (at, now) = (|lsn| Cursor::from(Lsn::new(lsn)), Instant::now());
        assert_eq!(rule.due(at(5), now, at(5)), None);
        assert_eq!(rule.due(at(5), now, at(6)), Some(now + seconds(300)));
        assert_eq!(rule.due(at(5), now, at(5 + (1 << 20))), Some(now + seconds(10)));
    }
}
