//! Asks the daemon for the rows that somebody waits for: a task that is there as long as somebody does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::handle::Shared;
use crate::rows::Unanswered;
use crate::waits::Batch;

/// Between the beginnings of two rounds of requests: who waits from shortly after another shares its next one.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Requests in a round, below the 50 that the daemon answers a user in a second (`requests_per_second_max`).
const REQUESTS_MAX: usize = 32;

/// The longest pause that the daemon can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Asks until nobody waits.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut asker = Asker { shared, queue: VecDeque::new() };
    loop {
        let due = {
            let mut register = asker.shared.register();
            match register.waits.next_due() {
                Some(_) if !asker.queue.is_empty() => register.not_before,
                Some(due) => due.max(register.not_before),
                // Under the lock: who waits from now on starts another task.
                None => {
                    register.is_asking = false;
                    return;
                }
            }
        };
        tokio::select! {
            () = sleep_until(due) => {}
            () = asker.shared.wake.notified() => continue,
        }
        let shared = Arc::clone(&asker.shared);
        tokio::select! {
            () = asker.round() => {}
            () = nobody_waits(&shared) => {}
        }
    }
}

async fn nobody_waits(shared: &Shared) {
    while !shared.register().waits.is_empty() {
        shared.wake.notified().await;
    }
}

struct Asker {
    shared: Arc<Shared>,
    /// What the last round has left.
    queue: VecDeque<Batch>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        // A predicate has panicked: those who wait still have the stream, and the next one starts another task.
        if std::thread::panicking() {
            self.shared.register().is_asking = false;
        }
    }
}

impl Asker {
    async fn round(&mut self) {
        let now = Instant::now();
        {
            let mut register = self.shared.register();
            register.not_before = now + ROUND_INTERVAL;
            let bytes_max = register.request_bytes_max;
            // One after the other: what is due while it stands in the queue would stand there twice.
            if self.queue.is_empty() {
                self.queue.extend(register.waits.take_due(now, bytes_max));
            }
        }
        let mut requests = 0;
        while requests < REQUESTS_MAX
            && let Some(mut batch) = self.queue.pop_front()
        {
            if !self.shared.register().waits.retain(&mut batch) {
                continue;
            }
            requests += 1;
            match self.shared.door.ask(batch.body()).await {
                Ok(rows) => {
                    let mut register = self.shared.register();
                    register.failures = 0;
                    register.waits.answered(&batch, rows);
                }
                Err(Unanswered::Refused(error)) => {
                    let mut register = self.shared.register();
                    register.failures = 0;
                    self.queue.extend(register.waits.refused(batch, &error));
                }
                Err(Unanswered::Later { error, after }) => {
                    // Those who wait are due again by then.
                    self.queue.clear();
                    let mut register = self.shared.register();
                    let delay = self.shared.backoff.delay(register.failures).max(after.unwrap_or_default());
                    register.failures = register.failures.saturating_add(1);
                    register.not_before = register.not_before.max(Instant::now() + delay.min(PAUSE_MAX));
                    tracing::debug!(%error, ?delay, "rows that are waited for cannot be had now");
                    return;
                }
            }
        }
    }
}
