//! One session that writes, and comes back after every fault.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::time::{sleep, timeout};

use super::Step;
use crate::TestSession;

/// Beyond this a step is given up together with its connection: the server may be paused.
const STEP_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Writer {
    url: String,
    session: Option<TestSession>,
}

impl Writer {
    pub(super) fn new(url: &str, session: Option<TestSession>) -> Self {
        Self { url: url.to_owned(), session }
    }

    /// Runs the steps to their end or to the first that fails; whether all succeeded.
    pub(super) async fn run(&mut self, steps: &[Step], stop: &AtomicBool) -> bool {
        while self.session.is_none() && !stop.load(Ordering::Relaxed) {
            self.session = TestSession::attempt(&self.url).await.ok();
            if self.session.is_none() {
                sleep(RETRY).await;
            }
        }
        let Some(session) = &self.session else { return false };
        for step in steps {
            match timeout(STEP_MAX, perform(session, step)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    if session.batch_execute("ROLLBACK").await.is_err() {
                        self.session = None;
                    }
                    return false;
                }
                Err(_) => {
                    self.session = None;
                    return false;
                }
            }
        }
        true
    }
}

async fn perform(session: &TestSession, step: &Step) -> Result<(), tokio_postgres::Error> {
    match step {
        Step::Sql(sql) => session.batch_execute(sql).await,
        Step::Copy(sql, lines) => {
            let sink = session.copy_in::<_, Bytes>(sql).await?;
            futures_util::pin_mut!(sink);
            sink.send(Bytes::from(lines.clone())).await?;
            sink.finish().await.map(|_| ())
        }
    }
}

/// Ends what was prepared and is `seconds` old, one half by a commit.
pub(super) async fn end_prepared(url: &str, seconds: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let session = TestSession::attempt(url).await?;
    let sql = format!(
        "SELECT gid FROM pg_prepared_xacts
         WHERE database = current_database() AND prepared <= now() - interval '{seconds} s'"
    );
    for (index, row) in session.query(&sql, &[]).await?.iter().enumerate() {
        let gid: String = row.get(0);
        let end = if index % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
        // Its writer may have ended it meanwhile.
        let _ended = session.batch_execute(&format!("{end} PREPARED '{gid}'")).await;
    }
    Ok(())
}

/// Ends what writers that were interrupted have left prepared: it holds locks.
pub(super) async fn clean_up_prepared(url: String, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let _server_is_down = end_prepared(&url, "2").await;
        sleep(Duration::from_millis(500)).await;
    }
}
