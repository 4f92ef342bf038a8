//! Machines that stand still: they are moved to another host, or busy with something else.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// How often it is noted that this process runs.
const TICK: Duration = Duration::from_millis(10);
/// How often a test is begun.
const TRIES: u32 = 5;

/// Runs a test that is about moments: of a timeout of one second, say, which a machine that stands still for two sees pass
/// in mid-sentence. When it fails, and this process did not run for longer than `still_max` meanwhile, it is begun again, up to
/// five times. What fails while the process ran is a failure at once.
///
/// What can be awaited, or can have a limit of [`LIMIT`](crate::LIMIT), is better off without this.
///
/// # Panics
///
/// With the panic of the last try.
pub async fn undisturbed(still_max: Duration, test: impl AsyncFn()) {
    for number in 1.. {
        let pulse = Pulse::start();
        let outcome = AssertUnwindSafe(Box::pin(test())).catch_unwind().await;
        let Err(panic) = outcome else { return };
        let still = pulse.longest();
        if still <= still_max || number == TRIES {
            resume_unwind(panic);
        }
        eprintln!("this process did not run for {still:?}; the test is begun again");
    }
}

/// Notes for how long this runtime ran nothing.
struct Pulse {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    /// When it was known to run.
    at: Instant,
    longest: Duration,
}

impl State {
    fn beat(&mut self) {
        self.longest = self.longest.max(self.at.elapsed().saturating_sub(TICK));
        self.at = Instant::now();
    }
}

impl Pulse {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State { at: Instant::now(), longest: Duration::ZERO }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                shared.lock().unwrap_or_else(PoisonError::into_inner).beat();
            }
        });
        Self { state, task }
    }

    fn longest(&self) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.beat();
        state.longest
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Begins a test that stands still and fails, until it was begun so often.
    async fn tries(until: u32, still_max: Duration) -> (u32, bool) {
        let begun = AtomicU32::new(0);
        let test = undisturbed(still_max, async || {
            if begun.fetch_add(1, Ordering::Relaxed) + 1 < until {
                std::thread::sleep(TICK * 10);
                panic!("the machine stood still");
            }
        });
        let ended = AssertUnwindSafe(test).catch_unwind().await;
        (begun.into_inner(), ended.is_ok())
    }

    #[tokio::test]
    async fn a_test_is_begun_again_when_the_machine_stood_still_and_only_then() {
        assert_eq!(tries(3, TICK * 5).await, (3, true));
        assert_eq!(tries(3, Duration::from_secs(3600)).await, (1, false));
        assert_eq!(tries(100, TICK * 5).await, (TRIES, false));
    }
}
