//! When clients may come.

use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{Gate, Lineage};
use walcast_feed::{Barriers, Feed};
use walcast_history::FeedRecord;
use walcast_model::Cursor;
use walcast_postgres::ConnectionConfig;

use super::identity::{self, Unproven};

/// What is still to be found out about a source before anybody is served.
pub(super) async fn prove(
    history: ConnectionConfig,
    record: FeedRecord,
    lineage: Lineage,
    unproven: Option<Unproven>,
) {
    if let Some(unproven) = unproven {
        identity::prove(&history, record, &lineage, &unproven).await;
    }
}

/// The initial poll: everything that was committed before the daemon came must be in history before anybody is served.
/// `proof` runs when it is.
pub(super) async fn open_gate(
    gate: Gate,
    barriers: Barriers,
    feed: Feed,
    proof: impl Future<Output = ()>,
    stop: CancellationToken,
) {
    let poll = async {
        let started = tokio::time::Instant::now();
        // `None` only when the daemon goes down.
        let position = barriers.pass().await.unwrap_or(Cursor::MAX);
        let mut stored = feed.watch_stored();
        // Fails only when the feed is gone, with the daemon.
        if stored.wait_for(|stored| *stored >= position).await.is_ok() {
            proof.await;
            gate.open();
            tracing::info!(%position, seconds = started.elapsed().as_secs_f64(), "the initial poll is done; serving");
        }
        // A task that ends is a task that failed: this one is done, and waits for the end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = poll => {}
        () = stop.cancelled() => {}
    }
}
