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
}
