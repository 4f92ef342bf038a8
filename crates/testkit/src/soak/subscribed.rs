//! A client that is told nothing but how far nothing is missing.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use walcast_model::Cursor;

use crate::oracle::{open, receive, send};

/// Subscribes to everything, and keeps the last cursor.
#[derive(Debug)]
pub(super) struct Subscribed {
    cursor: watch::Receiver<Result<Cursor, String>>,
    task: JoinHandle<()>,
}

impl Subscribed {
    /// With the daemon at this URL.
    pub(super) fn start(url: String) -> Self {
        let (told, cursor) = watch::channel(Ok(Cursor::ZERO));
        let task = tokio::spawn(async move {
            let (mut socket, _) = open(&url).await;
            let tables = serde_json::json!([{ "table": "*" }]);
            send(&mut socket, serde_json::json!({ "type": "subscribe", "id": "idle", "tables": tables }))
                .await;
            while let Some(message) = receive(&mut socket).await {
                if let Some(cursor) = message["cursor"].as_str().and_then(|text| text.parse().ok()) {
                    let _before = told.send_replace(Ok(cursor));
                }
                if message["type"] == "transaction" || message["type"] == "error" {
                    let _before = told.send_replace(Err(format!("an idle feed says: {message}")));
                    return;
                }
            }
            let _before = told.send_replace(Err("the connection ended".to_owned()));
        });
        Self { cursor, task }
    }

    /// Up to where nothing is missing, as a number.
    pub(super) fn cursor(&self) -> Result<u64, String> {
        let cursor = self.cursor.borrow().clone()?;
        // It says why it ends, but when it panicked.
        if self.task.is_finished() {
            return Err(format!("the client of an idle feed has ended at {cursor}: see above"));
        }
        Ok(cursor.lsn().get())
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.task.abort();
    }
}
