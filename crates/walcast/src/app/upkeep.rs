//! What keeps disks from filling: retention in the history, the budget of WAL in the source.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use walcast_history::SourceSnapshot;
use walcast_postgres::{ConnectionConfig, Session};

/// How long a snapshot of the source may take before it counts as away.
const SNAPSHOT_MAX: Duration = Duration::from_secs(10);

/// Takes snapshots of the source, for retention: each with a session of its own, since it needs one a day, or a minute.
pub(crate) fn source_snapshot(source: ConnectionConfig) -> SourceSnapshot {
    Arc::new(move || {
        let source = source.clone();
        async move {
            let take = async {
                let session = Session::connect(&source, "walcast retention")
                    .await
                    .map_err(|error| error.to_string())?;
                let row = session
                    .query_one("SELECT pg_current_snapshot()::text", &[])
                    .await
                    .map_err(|error| error.to_string())?;
                let text: &str = row.try_get(0).map_err(|error| error.to_string())?;
                text.parse().map_err(|error| format!("{error}"))
            };
            let away = |_| Err(format!("the source did not answer within {SNAPSHOT_MAX:?}"));
            tokio::time::timeout(SNAPSHOT_MAX, take).await.unwrap_or_else(away)
        }
        .boxed()
    })
}
