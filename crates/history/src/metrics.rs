//! The metrics of the history.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Changes stored since the process started.
pub const APPENDED_CHANGES: &str = "walcast_history_appended_changes_total";
/// Commits that stored changes since the process started.
pub const APPEND_COMMITS: &str = "walcast_history_append_commits_total";
/// Changes in a commit.
pub const BATCH_CHANGES: &str = "walcast_history_batch_changes";
/// Seconds from the first statement of a commit to its end.
pub const COMMIT_SECONDS: &str = "walcast_history_commit_seconds";
/// Bytes of WAL between the feed's head and the stored position.
pub const LAG_BYTES: &str = "walcast_history_lag_bytes";
/// The stored position, in bytes of WAL.
pub const STORED_POSITION: &str = "walcast_history_stored_position_bytes";
/// Times that storing failed and was tried again.
pub const APPEND_FAILURES: &str = "walcast_history_append_failures_total";
/// Pages read.
pub const PAGES: &str = "walcast_history_pages_total";
/// Searches for where definitions came last, by how they ended.
pub const SEARCHES: &str = "walcast_history_searches_total";
/// Bytes of change_history on disk, with indexes, when retention last looked.
pub const BYTES: &str = "walcast_history_bytes";
/// Bytes of last_image on disk, with its index, when retention last looked.
pub const IMAGES_BYTES: &str = "walcast_images_bytes";
/// Rows of last_image as the planner estimates them, when retention last looked.
pub const IMAGES_ROWS: &str = "walcast_images_rows";
/// Times that all images of a table were dropped: another definition or storage, a truncate, a change without a mark.
pub const IMAGES_TABLES_DROPPED: &str = "walcast_images_tables_dropped_total";
/// Partitions of change_history, when retention last looked.
pub const PARTITIONS: &str = "walcast_history_partitions";
/// Seconds since the oldest partition was made, when retention last looked.
pub const OLDEST_AGE_SECONDS: &str = "walcast_history_oldest_age_seconds";
/// The oldest position that can be served, in bytes of WAL.
pub const OLDEST_POSITION: &str = "walcast_history_oldest_position_bytes";
/// Partitions dropped by retention.
pub const DROPPED_PARTITIONS: &str = "walcast_history_dropped_partitions_total";
/// Bytes on disk of the partitions dropped by retention.
pub const DROPPED_BYTES: &str = "walcast_history_dropped_bytes_total";
/// Times that retention had something to drop and could not, by reason.
pub const RETENTION_RETRIES: &str = "walcast_history_retention_retries_total";

/// Bytes on disk that are only kept because a client in `keep_clients` has not acknowledged them.
pub const HELD_BYTES: &str = "walcast_history_held_bytes";

/// Describes the metrics of this crate to the recorder that is installed.
pub fn describe() {
    describe_counter!(APPENDED_CHANGES, Unit::Count, "Changes stored in change_history");
    describe_counter!(APPEND_COMMITS, Unit::Count, "Commits that stored changes");
    describe_histogram!(BATCH_CHANGES, Unit::Count, "Changes in one commit of the history");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Duration of one commit of the history");
    describe_gauge!(LAG_BYTES, Unit::Bytes, "WAL between the feed's head and the stored position");
    describe_gauge!(STORED_POSITION, Unit::Bytes, "The stored position, in bytes of WAL");
    describe_counter!(APPEND_FAILURES, Unit::Count, "Times that storing failed and was tried again");
    describe_counter!(PAGES, Unit::Count, "Pages read from change_history");
    describe_counter!(SEARCHES, Unit::Count, "Searches for the last change that came with some definitions");
    describe_gauge!(BYTES, Unit::Bytes, "change_history on disk, with indexes");
    describe_gauge!(IMAGES_BYTES, Unit::Bytes, "walcast.last_image on disk, with its index");
    describe_gauge!(IMAGES_ROWS, Unit::Count, "Rows of walcast.last_image, as the planner estimates them");
    describe_counter!(
        IMAGES_TABLES_DROPPED,
        Unit::Count,
        "Times that all last images of a table were dropped"
    );
    describe_gauge!(PARTITIONS, Unit::Count, "Partitions of change_history");
    describe_gauge!(OLDEST_AGE_SECONDS, Unit::Seconds, "Age of the oldest partition of change_history");
    describe_gauge!(OLDEST_POSITION, Unit::Bytes, "The oldest position that can be served, in bytes of WAL");
    describe_counter!(DROPPED_PARTITIONS, Unit::Count, "Partitions dropped by retention");
    describe_counter!(DROPPED_BYTES, Unit::Bytes, "Bytes on disk dropped by retention");
    describe_gauge!(HELD_BYTES, Unit::Bytes, "change_history that is kept for clients alone");
    describe_counter!(RETENTION_RETRIES, Unit::Count, "Times that retention could not drop what was due");
}
