//! The names of this crate's metrics.

/// Counter, `kind` = `insert`, `update`, `delete`, `truncate`: changes that entered the feed.
pub const CHANGES_TOTAL: &str = "walcast_replication_changes_total";
/// Counter: transactions whose end was read from the slot, whatever they held.
pub const TRANSACTIONS_TOTAL: &str = "walcast_replication_transactions_total";
/// Counter: bytes of `XLogData` payload that were read from the slot.
pub const RECEIVED_BYTES_TOTAL: &str = "walcast_replication_received_bytes_total";
/// Counter, `reason` = `not_transactional`, `other_prefix`, `unknown_secret`, `malformed`, `too_many`, `bad_meta`,
/// `bad_message`, `told_before`, `no_room`: logical messages that were read and have no effect.
pub const MESSAGES_IGNORED_TOTAL: &str = "walcast_replication_messages_ignored_total";
/// Counter: values that could not be written as JSON by their type and went out as a JSON string of their text.
pub const VALUE_FALLBACKS_TOTAL: &str = "walcast_replication_value_fallbacks_total";
/// Counter: how often the types of columns were read from the catalog again.
pub const TYPE_READINGS_TOTAL: &str = "walcast_replication_type_readings_total";
/// Counter: rows whose last image history was asked for.
pub const IMAGES_LOOKED_UP_TOTAL: &str = "walcast_images_looked_up_total";
/// Counter: those of them that had one.
pub const IMAGES_FOUND_TOTAL: &str = "walcast_images_found_total";
/// Counter: updates and deletes that were completed by a last image.
pub const IMAGES_COMPLETED_TOTAL: &str = "walcast_images_completed_total";
/// Gauge: rows whose newest image, or that there is none, is only in memory, as it is not stored yet.
pub const IMAGES_UNSTORED: &str = "walcast_images_unstored";
/// Gauge: the position that the feed has reached, in bytes of WAL.
pub const HEAD_BYTES: &str = "walcast_replication_head_bytes";
/// Gauge: seconds from the commit of the newest transaction to its arrival here, by both machines' clocks.
pub const LAG_SECONDS: &str = "walcast_replication_lag_seconds";
/// Gauge: 1 while the slot streams, otherwise 0.
pub const STREAMING: &str = "walcast_replication_streaming";
/// Counter: how often the stream ended for another reason than a shutdown of walcast.
pub const INTERRUPTIONS_TOTAL: &str = "walcast_replication_interruptions_total";
/// Gauge: 1 while the feed cannot go on because changes are missing, or may be; otherwise 0.
pub const HOLE: &str = "walcast_feed_hole";
/// Counter, `reason` = `promoted`, `went_back`, `differs`, `restarted`, `start_over`: how often the feed ended and
/// another one continued it or, with the last, took its place.
pub const ENDED_TOTAL: &str = "walcast_feed_ended_total";
/// Counter: stored changes that the source lost, and that were set aside in `walcast.lost_change`.
pub const LOST_CHANGES_TOTAL: &str = "walcast_feed_lost_changes_total";
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
/// Counter: tables that were published without the rows that were there before, by walcast or by somebody else.
pub const PICKUPS_WITHOUT_ROWS_TOTAL: &str = "walcast_publication_pickups_without_rows_total";
/// Gauge: bytes of WAL that the source keeps for the slot.
pub const SLOT_RETAINED_BYTES: &str = "walcast_slot_retained_bytes";
/// Gauge: bytes of WAL until the server gives the slot up; infinite when it never does.
pub const SLOT_SAFE_BYTES: &str = "walcast_slot_safe_wal_bytes";
/// Gauge, `status` = `reserved`, `extended`, `unreserved`, `lost`: 1 for the one that the slot is in, otherwise 0.
pub const SLOT_WAL_STATUS: &str = "walcast_slot_wal_status";
/// Gauge: bytes of WAL that the source writes in a second, over the last minute.
pub const SOURCE_WAL_BYTES_PER_SECOND: &str = "walcast_source_wal_bytes_per_second";
/// Gauge: the setting `wal_budget` in bytes; infinite without one.
pub const WAL_BUDGET_BYTES: &str = "walcast_wal_budget_bytes";
/// Gauge: seconds until the budget or the server's limit is reached if the slot does not move; infinite when never.
pub const WAL_BUDGET_LEFT_SECONDS: &str = "walcast_wal_budget_left_seconds";
/// Gauge: 1 while the slot keeps more than the budget, otherwise 0.
pub const WAL_BUDGET_EXCEEDED: &str = "walcast_wal_budget_exceeded";
/// Counter: slots that were dropped because of the budget.
pub const SLOTS_GIVEN_UP_TOTAL: &str = "walcast_wal_budget_slots_given_up_total";

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
    metrics::describe_counter!(IMAGES_LOOKED_UP_TOTAL, "Rows whose last image history was asked for");
    metrics::describe_counter!(IMAGES_FOUND_TOTAL, "Rows whose last image history was asked for and had");
    metrics::describe_counter!(IMAGES_COMPLETED_TOTAL, "Updates and deletes completed by a last image");
    metrics::describe_gauge!(IMAGES_UNSTORED, "Rows whose newest image is not stored yet");
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
    metrics::describe_gauge!(
        HOLE,
        "1 while the feed cannot go on because changes are missing, or may be; otherwise 0"
    );
    metrics::describe_counter!(ENDED_TOTAL, "Feeds that ended and were followed by another one");
    metrics::describe_counter!(
        LOST_CHANGES_TOTAL,
        "Stored changes that the source lost and that were set aside"
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
        "Tables that were published without the rows that were there before"
    );
    metrics::describe_gauge!(SLOT_RETAINED_BYTES, "Bytes of WAL that the source keeps for the slot");
    metrics::describe_gauge!(SLOT_SAFE_BYTES, "Bytes of WAL until the server gives the slot up");
    metrics::describe_gauge!(SLOT_WAL_STATUS, "1 for the wal_status that the slot is in, otherwise 0");
    metrics::describe_gauge!(SOURCE_WAL_BYTES_PER_SECOND, "Bytes of WAL that the source writes in a second");
    metrics::describe_gauge!(WAL_BUDGET_BYTES, "The setting wal_budget in bytes");
    metrics::describe_gauge!(
        WAL_BUDGET_LEFT_SECONDS,
        "Seconds until the budget or the server's limit is reached if the slot does not move"
    );
    metrics::describe_gauge!(WAL_BUDGET_EXCEEDED, "1 while the slot keeps more than the budget, otherwise 0");
    metrics::describe_counter!(SLOTS_GIVEN_UP_TOTAL, "Slots that were dropped because of the budget");
}
