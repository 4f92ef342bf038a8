//! The taking end of an initial sync: sends with a limit on how long the client may take nothing.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::error::Error;
use crate::event::SnapshotEvent;
use crate::snapshots::Stop;

/// Sends events, and knows whether the client has something to discard.
pub(crate) struct Consumer {
    events: mpsc::Sender<SnapshotEvent>,
    stall_max: Duration,
    /// Whether anything was sent since the last (re)start.
    dirty: bool,
    /// Whether `Restarted` is to be sent before anything else.
    restarted: bool,
    rows: u64,
}

impl Consumer {
    pub(crate) const fn new(events: mpsc::Sender<SnapshotEvent>, stall_max: Duration) -> Self {
        Self { events, stall_max, dirty: false, restarted: false, rows: 0 }
    }

    /// Sends one event, once the client has taken enough of those before.
    pub(crate) async fn send(&mut self, event: SnapshotEvent) -> Result<(), Stop> {
        if std::mem::take(&mut self.restarted) {
            self.push(SnapshotEvent::Restarted).await?;
        }
        if let SnapshotEvent::Rows { count, .. } = &event {
            self.rows += *count as u64;
        }
        self.dirty = true;
        self.push(event).await
    }

    async fn push(&self, event: SnapshotEvent) -> Result<(), Stop> {
        match tokio::time::timeout(self.stall_max, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::Gone),
            Err(_) => Err(Error::Stalled { after: self.stall_max }.into()),
        }
    }

    /// Takes back what was sent: the client is told before the next event, so not at all while the source is away
    /// and had given nothing. Returns whether there was anything.
    pub(crate) fn restart(&mut self) -> bool {
        let dirty = std::mem::take(&mut self.dirty);
        self.restarted |= dirty;
        self.rows = 0;
        dirty
    }

    /// Waits until nobody takes the events any more; cancel-safe.
    pub(crate) async fn gone(&self) {
        self.events.closed().await;
    }

    /// Rows sent since the last (re)start.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use walcast_model::{Cursor, Snapshot};

    use super::Consumer;
    use crate::error::Error;
    use crate::event::SnapshotEvent;
    use crate::snapshots::Stop;

    fn progress() -> SnapshotEvent {
        SnapshotEvent::Progress { done: 0, estimate: 0 }
    }

    #[tokio::test]
    async fn a_restart_is_told_only_to_a_client_that_has_something_to_discard() {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut consumer = Consumer::new(sender, Duration::from_secs(5));
        assert!(!consumer.restart());
        consumer.send(progress()).await.unwrap();
        assert!(consumer.restart());
        assert!(!consumer.restart());
        let snapshot: Snapshot = "1:1:".parse().unwrap();
        consumer.send(SnapshotEvent::Done { snapshot, barrier: Cursor::ZERO }).await.unwrap();
        drop(consumer);
        let mut kinds = Vec::new();
        while let Some(event) = receiver.recv().await {
            kinds.push(match event {
                SnapshotEvent::Restarted => "restarted",
                SnapshotEvent::Done { .. } => "done",
                _ => "progress",
            });
        }
        assert_eq!(kinds, ["progress", "restarted", "done"]);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_after_the_limit() {
        let (sender, receiver) = mpsc::channel(1);
        let mut consumer = Consumer::new(sender, Duration::from_millis(20));
        consumer.send(progress()).await.unwrap();
        let stalled = consumer.send(progress()).await;
        assert!(matches!(stalled, Err(Stop::Failed(Error::Stalled { .. }))), "{stalled:?}");
        drop(receiver);
        assert!(matches!(consumer.send(progress()).await, Err(Stop::Gone)));
    }
}
