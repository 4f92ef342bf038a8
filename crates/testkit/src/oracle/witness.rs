//! A reader of the WAL that is none of walcast's.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use walcast_model::Lsn;

use super::ledger::Ledger;
use super::wal::WalReader;
use crate::TestSession;

/// Messages that one look at the slot asks for; a transaction is never cut.
const MESSAGES_MAX: i32 = 50_000;
const INTERVAL: Duration = Duration::from_millis(150);
const RETRY: Duration = Duration::from_millis(300);

/// Reads a slot of its own, over SQL, into a [`Ledger`]; goes on through every fault of the server. Ends when dropped.
#[derive(Debug)]
pub struct Witness {
    ledger: Arc<Ledger>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Makes the slot `slot` in the database at `url` and reads the publications `publications`, which have to be there.
    /// From then on, everything that is committed is in the ledger.
    ///
    /// # Panics
    ///
    /// When the slot cannot be made.
    pub async fn start(url: &str, slot: &str, publications: &[&str]) -> Self {
        let session = TestSession::connect(url).await;
        let sql = format!("SELECT lsn FROM pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        let start = session.scalar(&sql).await.unwrap_or_default();
        let start: Lsn = start.parse().unwrap_or_else(|error| panic!("a slot at {start}: {error}"));
        let ledger = Arc::new(Ledger::default());
        ledger.append([], start);
        let (slot, names) = (slot.to_owned(), publications.join(","));
        let (url, shared) = (url.to_owned(), Arc::clone(&ledger));
        let task = tokio::spawn(async move {
            loop {
                let Err(_broken) = read(&url, &slot, &names, &shared).await;
                tokio::time::sleep(RETRY).await;
            }
        });
        Self { ledger, task }
    }

    /// Whether it has ended, which is a mistake of its own: nothing is known to be right any more.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// What it has read.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(
    url: &str,
    slot: &str,
    publications: &str,
    ledger: &Ledger,
) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
    let session = TestSession::attempt(url).await?;
    const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET work_mem = '64MB'";
    session.batch_execute(SETTINGS).await?;
    const PEEK: &str = "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, $2, 'proto_version', '1', 'publication_names', $3, 'messages', 'true')";
    let peek = session.prepare(PEEK).await?;
    loop {
        let flushed = session.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        let horizon: Lsn = flushed.get::<_, String>(0).parse()?;
        let (mut reader, mut transactions, mut messages) = (WalReader::default(), Vec::new(), 0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&slot, &MESSAGES_MAX, &publications];
        let rows = session.query_raw(&peek, parameters).await?;
        futures_util::pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            messages += 1;
            transactions.extend(reader.take(Bytes::copy_from_slice(row.get(0))));
        }
        let end = transactions.last().map(|transaction| transaction.end);
        let complete = messages < MESSAGES_MAX;
        ledger.append(transactions, if complete { horizon } else { end.unwrap_or(Lsn::ZERO) });
        if let Some(end) = end {
            let sql = format!("SELECT pg_replication_slot_advance('{slot}', '{end}')");
            session.simple_query(&sql).await?;
        }
        if complete {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
