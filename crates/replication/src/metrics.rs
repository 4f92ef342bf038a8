//! The names of this crate's metrics.

/// Counter, `kind` = `insert`, `update`, `delete`, `truncate`: changes that entered the feed.
pub const CHANGES_TOTAL: &str = "walcast_replication_changes_total";
/// Counter: transactions whose end was read from the slot, whatever they held.
pub const TRANSACTIONS_TOTAL: &str = "walcast_replication_transactions_total";
/// Counter: bytes of `XLogData` payload that were read from the slot.
pub const RECEIVED_BYTES_TOTAL: &str = "walcast_replication_received_bytes_total";
/// Counter, `reason` = `not_transactional`, `other_prefix`, `unknown_secret`, `malformed`, `too_many`: logical
/// messages that were read and have no effect.
pub const MESSAGES_IGNORED_TOTAL: &str = "walcast_replication_messages_ignored_total";
/// Counter: values that could not be written as JSON by their type and went out as a JSON string of their text.
pub const VALUE_FALLBACKS_TOTAL: &str = "walcast_replication_value_fallbacks_total";
/// Gauge: the position that the feed has reached, in bytes of WAL.
pub const HEAD_BYTES: &str = "walcast_replication_head_bytes";
/// Gauge: seconds from the commit of the newest transaction to its arrival here, by both machines' clocks.
pub const LAG_SECONDS: &str = "walcast_replication_lag_seconds";
/// Gauge: 1 while the slot streams, otherwise 0.
pub const STREAMING: &str = "walcast_replication_streaming";
/// Counter: how often the stream ended for another reason than a shutdown of walcast.
pub const INTERRUPTIONS_TOTAL: &str = "walcast_replication_interruptions_total";
/// Counter: barriers written to the WAL.
pub const BARRIERS_TOTAL: &str = "walcast_barriers_total";
/// Counter: barriers that could not be written, each of which is tried again.
pub const BARRIER_FAILURES_TOTAL: &str = "walcast_barrier_failures_total";
/// Counter: tables added to, moved between or taken from the publications.
pub const PUBLICATION_CHANGES_TOTAL: &str = "walcast_publication_changes_total";
/// Counter: steps of the publication plan that could not be taken (a lock not had in time, a privilege missing)
/// and are tried again.
pub const PUBLICATION_RETRIES_TOTAL: &str = "walcast_publication_retries_total";
/// Gauge: findings of the last reconciliation: tables not wholly in the feed, statements an administrator must run.
pub const PUBLICATION_FINDINGS: &str = "walcast_publication_findings";
/// Counter: rows that were there before their table was picked up and were carried into the feed.
pub const PICKED_UP_ROWS_TOTAL: &str = "walcast_publication_picked_up_rows_total";
/// Counter: tables that were picked up without the rows that were there before.
pub const PICKUPS_WITHOUT_ROWS_TOTAL: &str = "walcast_publication_pickups_without_rows_total";

/// Describes the metrics of this crate to the recorder that is installed.
pub fn describe() {
    metrics::describe_counter!(CHANGES_TOTAL, "Changes that entered the feed");
    metrics::describe_counter!(
        TRANSACTIONS_TOTAL,
        "Transactions whose end was read from the slot, whatever they held"
    );
    metrics::describe_counter!(
        RECEIVED_BYTES_TOTAL,
        "Bytes of XLogData payload that were read from the slot"
    );
    metrics::describe_counter!(MESSAGES_IGNORED_TOTAL, "Logical messages that were read and have no effect");
    metrics::describe_counter!(
        VALUE_FALLBACKS_TOTAL,
        "Values that could not be written as JSON by their type and went out as a JSON string of their text"
    );
    metrics::describe_gauge!(HEAD_BYTES, "The position that the feed has reached, in bytes of WAL");
    metrics::describe_gauge!(
        LAG_SECONDS,
        "Seconds from the commit of the newest transaction to its arrival here, by both machines' clocks"
    );
    metrics::describe_gauge!(STREAMING, "1 while the slot streams, otherwise 0");
    metrics::describe_counter!(
        INTERRUPTIONS_TOTAL,
        "How often the stream ended for another reason than a shutdown of walcast"
    );
    metrics::describe_counter!(BARRIERS_TOTAL, "Barriers written to the WAL");
    metrics::describe_counter!(
        BARRIER_FAILURES_TOTAL,
        "Barriers that could not be written, each of which is tried again"
    );
    metrics::describe_counter!(
        PUBLICATION_CHANGES_TOTAL,
        "Tables added to, moved between or taken from the publications"
    );
    metrics::describe_counter!(
        PUBLICATION_RETRIES_TOTAL,
        "Steps of the publication plan that could not be taken (a lock not had in time, a privilege missing) and are tried again"
    );
    metrics::describe_gauge!(
        PUBLICATION_FINDINGS,
        "Findings of the last reconciliation: tables not wholly in the feed, statements an administrator must run"
    );
    metrics::describe_counter!(
        PICKED_UP_ROWS_TOTAL,
        "Rows that were there before their table was picked up and were carried into the feed"
    );
    metrics::describe_counter!(
        PICKUPS_WITHOUT_ROWS_TOTAL,
        "Tables that were picked up without the rows that were there before"
    );
}
