//! Waiting with a limit.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::watchdog;

/// A limit for what takes milliseconds when all is well, on a machine that is busy with other builds and tests.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How often [`eventually`] looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` until it returns `Some`, and returns what is in it. For states that cannot be awaited; what can be
/// awaited goes through [`within`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut tries = 0;
/// let found = walcast_testkit::eventually("three tries", walcast_testkit::LIMIT, async || {
///     tries += 1;
///     (tries == 3).then_some("found")
/// })
/// .await;
/// assert_eq!(found, "found");
/// # });
/// ```
///
/// # Panics
///
/// After `limit`, with `what`.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    // The system's clock: a test that has stopped Tokio's clock waits for real servers too.
    let started = Instant::now();
    watchdog::waits_for(what);
    loop {
        let tried =
            tokio::time::timeout(limit.saturating_sub(started.elapsed()).max(INTERVAL), probe()).await;
        match tried {
            Ok(Some(value)) => return value,
            Ok(None) if started.elapsed() < limit => tokio::time::sleep(INTERVAL).await,
            Ok(None) | Err(_) => panic!("did not come within {limit:?}: {what}"),
        }
    }
}

/// Awaits `future`.
///
/// # Panics
///
/// After `limit`, with `what`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    watchdog::waits_for(what);
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not come within {limit:?}: {what}"),
    }
}
