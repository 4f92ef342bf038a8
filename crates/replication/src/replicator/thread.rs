//! A thread for one future.
//!
//! The slot is read on one: in a burst the reader sleeps while bytes gather, and whoever else has the socket in its
//! event loop would be woken for every message meanwhile. And decoding and assembling, the most work that walcast has
//! in one place, keeps no task of a client waiting.

use std::future::Future;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Runs the future that `start` makes on a thread with a runtime of its own, and waits for it. When dropped, the future
/// is dropped at its next await, with everything that it has spawned.
///
/// # Panics
/// When the future does, or when the system has no thread to give.
pub(super) async fn run<F: Future<Output = ()>>(name: &str, start: impl FnOnce() -> F + Send + 'static) {
    let abandoned = CancellationToken::new();
    let _abandon = abandoned.clone().drop_guard();
    let (done, ended) = oneshot::channel::<()>();
    let body = move || -> std::io::Result<()> {
        // Dropped last, also in a panic: whoever waits then finds the thread ended, or about to.
        let _done = done;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                () = abandoned.cancelled() => {}
                () = Box::pin(start()) => {}
            }
        });
        Ok(())
    };
    let thread = match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(thread) => thread,
        Err(error) => panic!("failed to start a thread: {error}"),
    };
    // Never sent: it is dropped.
    let _ = ended.await;
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("failed to start a runtime: {error}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::run;

    #[tokio::test]
    async fn dropping_it_drops_the_future() {
        let (started, dropped) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn({
            let (started, dropped) = (started.clone(), dropped.clone());
            async move {
                run("test", move || async move {
                    let _dropped = dropped.drop_guard();
                    started.cancel();
                    std::future::pending::<()>().await;
                })
                .await;
            }
        });
        started.cancelled().await;
        running.abort();
        tokio::time::timeout(std::time::Duration::from_secs(10), dropped.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_comes_through() {
        let running = tokio::spawn(run("test", || async { panic!("as expected") }));
        assert!(running.await.unwrap_err().is_panic());
    }
}
