//! The bounds of initial syncs.

use std::time::Duration;

/// What an initial sync may use. Nothing is dropped when a limit is met; each says what happens instead.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotLimits {
    /// `snapshot_chunk_bytes_max`: JSON in one [`crate::SnapshotEvent::Rows`], in bytes. A chunk is closed by the
    /// row that reaches it, so it is larger by at most that row. One chunk is in memory per initial sync, beside
    /// those that wait in the consumer's channel.
    pub chunk_bytes_max: usize,
    /// `snapshot_chunk_rows_max`: rows in one [`crate::SnapshotEvent::Rows`]; the next row begins another.
    pub chunk_rows_max: usize,
    /// `snapshot_stall_max`: how long a client may take nothing. Its transaction keeps vacuum from removing rows
    /// in the source meanwhile, so the initial sync is then given up with [`crate::Error::Stalled`], and may be
    /// asked for again.
    pub stall_max: Duration,
    /// `snapshot_lock_wait_max`: how long a table that somebody else holds locked (a running `ALTER TABLE`) is
    /// waited for at a time; then the initial sync steps back and tries again after a pause, so that it is never
    /// the one that others queue behind.
    pub lock_wait_max: Duration,
    /// `rows_max`: look-ups of rows by key at the same time, each with a session on the source. Further ones wait.
    pub rows_max: usize,
    /// `rows_bytes_max`: JSON of the rows of one look-up, in bytes. More is [`crate::Error::TooLarge`].
    pub rows_bytes_max: usize,
    /// `rows_time_max`: how long a statement of a look-up may take.
    pub rows_time_max: Duration,
    /// The longest pause before the first new attempt after the source went away ([`walcast_feed::Backoff`]).
    pub retry_delay_min: Duration,
    /// The longest pause between attempts.
    pub retry_delay_max: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            chunk_bytes_max: 256 << 10,
            chunk_rows_max: 10_000,
            stall_max: Duration::from_secs(300),
            lock_wait_max: Duration::from_secs(5),
            rows_max: 4,
            rows_bytes_max: 8 << 20,
            rows_time_max: Duration::from_secs(5),
            retry_delay_min: Duration::from_millis(200),
            retry_delay_max: Duration::from_secs(10),
        }
    }
}
