//! What an operator sees of initial syncs.

use std::sync::Once;

/// Initial syncs that read now (gauge).
pub(crate) const RUNNING: &str = "walcast_snapshots_running";
/// Initial syncs that reached their barrier.
pub(crate) const COMPLETED: &str = "walcast_snapshots_completed_total";
/// Times that an initial sync began again because its session to the source ended.
pub(crate) const RESTARTED: &str = "walcast_snapshots_restarted_total";
/// Initial syncs given up because their client took nothing for too long.
pub(crate) const STALLED: &str = "walcast_snapshots_stalled_total";
/// Rows read for initial syncs.
pub(crate) const ROWS: &str = "walcast_snapshot_rows_total";
/// Bytes of JSON made for initial syncs.
pub(crate) const BYTES: &str = "walcast_snapshot_bytes_total";

/// Describes the metrics to the recorder; once per process.
pub(crate) fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        metrics::describe_gauge!(RUNNING, "Initial syncs that read now");
        metrics::describe_counter!(COMPLETED, "Initial syncs that reached their barrier");
        metrics::describe_counter!(RESTARTED, "Times an initial sync began again after its session ended");
        metrics::describe_counter!(STALLED, "Initial syncs given up because their client took nothing");
        metrics::describe_counter!(ROWS, "Rows read for initial syncs");
        metrics::describe_counter!(BYTES, metrics::Unit::Bytes, "Bytes of JSON made for initial syncs");
    });
}

/// Counts one in a gauge for as long as it lives.
pub(crate) struct InGauge(&'static str);

impl InGauge {
    /// Counts one more.
    pub(crate) fn enter(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for InGauge {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
