//! The names of this crate's metrics.

/// Gauge: memory that the recent parts hold, in bytes. Under load it stays near the limit, because what history has
/// is kept for as long as there is room.
pub const MEMORY_BYTES: &str = "walcast_feed_memory_bytes";
/// Gauge: the limit of that memory ([`FeedLimits`](crate::FeedLimits)), in bytes.
pub const MEMORY_LIMIT_BYTES: &str = "walcast_feed_memory_limit_bytes";

/// Describes the metrics of this crate to the recorder that is installed.
pub fn describe() {
    metrics::describe_gauge!(MEMORY_BYTES, metrics::Unit::Bytes, "Memory that the feed's recent parts hold");
    metrics::describe_gauge!(MEMORY_LIMIT_BYTES, metrics::Unit::Bytes, "The limit of the feed's memory");
}
