//! The gate: nothing is served before the initial poll is done.

use tokio::sync::watch;

/// A latch, released once when the daemon's first barrier has come back and is durable in history. Until then
/// every subscription waits. Cheap to clone; it cannot be closed again.
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    /// A gate that nobody has opened yet.
    #[must_use]
    pub fn closed() -> Self {
        Self { open: watch::Sender::new(false) }
    }

    /// Opens it for good. Only whoever saw the first barrier come back may do so.
    pub fn open(&self) {
        self.open.send_if_modified(|open| !std::mem::replace(open, true));
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Waits until it is open; cancel-safe.
    pub async fn opened(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;

    #[tokio::test]
    async fn opening_is_seen_by_those_who_wait_and_those_who_come_later() {
        let gate = Gate::closed();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!gate.is_open());
        gate.open();
        gate.open();
        waiting.await.unwrap();
        gate.opened().await;
        assert!(gate.is_open());
    }
}
