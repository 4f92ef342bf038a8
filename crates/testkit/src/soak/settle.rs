//! The end of a round: everything is whole, and everything is compared.

use std::error::Error;
use std::time::{Duration, Instant};

use walcast_model::Lsn;

use super::{CLIENTS, Run};
use crate::TestSession;
use crate::oracle::{Client, Copies, Fields, Violation, ViolationKind, server_rows, table_name};

/// How long nothing may come to any client that is not at the end, once everything is whole again.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long all of it may take, in rounds: a client that is sent the same again and again has progress without end.
const SETTLE_ROUNDS_MAX: u32 = 20;
/// How long a table that was made at the end may take to be published.
const PICKUP_MAX: Duration = Duration::from_secs(40);

impl Run<'_> {
    /// Everything is whole: every client comes to the end of what was committed.
    pub(super) async fn settle(&mut self) -> Result<(), Violation> {
        self.marks += 1;
        let mark = self.marks;
        let touch = self.mix.touch().unwrap_or_default();
        let mut limit = Instant::now() + SETTLE_MAX;
        let longest = SETTLE_MAX + self.soak.round * SETTLE_ROUNDS_MAX;
        let began = Instant::now();
        let sql = format!(
            "ALTER TABLE identities REPLICA IDENTITY DEFAULT; {touch}; INSERT INTO mark VALUES ({mark}) ON CONFLICT DO NOTHING"
        );
        let end = loop {
            match self.write(&sql).await {
                Ok(end) => break end,
                Err(_) if Instant::now() < limit => self.watch(Duration::from_millis(300)).await?,
                Err(error) => return Err(self.stuck(&format!("the source is not back: {error}")).await),
            }
        };
        let ledger = self.witness.ledger().clone();
        let (mut progress, mut stored) = (0, self.stored().await);
        loop {
            self.watch(Duration::from_millis(50)).await?;
            self.check_alive()?;
            let behind = ledger.horizon() < end;
            let last = ledger.len();
            if !behind && self.clients.iter().all(|client| client.position() >= last) {
                break;
            }
            let sum = self.clients.iter().map(Client::progress).sum();
            if std::mem::replace(&mut progress, sum) != sum {
                limit = Instant::now() + SETTLE_MAX;
            }
            let is_endless = began.elapsed() > longest;
            if is_endless || Instant::now() > limit {
                // After a restart with a large backlog, history gets it first.
                let position = self.stored().await;
                if std::mem::replace(&mut stored, position.clone()) != position && !is_endless {
                    limit = Instant::now() + SETTLE_MAX;
                    continue;
                }
                let places: Vec<String> = self
                    .clients
                    .iter()
                    .map(|client| format!("{} at {}", client.name(), client.position()))
                    .collect();
                let what = match is_endless {
                    true => format!("it does not come to an end within {longest:?}"),
                    false => format!("nothing comes for {SETTLE_MAX:?}"),
                };
                let text = format!(
                    "{what} although everything is whole: {}, the ledger has {last} (to {}, wanted {end})",
                    places.join(", "),
                    ledger.horizon()
                );
                return Err(self.stuck(&text).await);
            }
        }
        self.check_daemon()?;
        self.audit().await
    }

    /// Up to where history has the feed; empty when it cannot be asked.
    async fn stored(&self) -> String {
        let Ok(session) = TestSession::attempt(self.world.history().url()).await else {
            return String::new();
        };
        let sql = "SELECT position_lsn::text || ':' || position_seq FROM walcast.feed";
        session.query_one(sql, &[]).await.map_or_else(|_| String::new(), |row| row.get(0))
    }

    async fn write(&self, sql: &str) -> Result<Lsn, Box<dyn Error + Send + Sync>> {
        let session = TestSession::attempt(self.world.database().url()).await?;
        session.batch_execute("SET lock_timeout = '5s'").await?;
        session.batch_execute(sql).await?;
        let row = session.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
        Ok(row.get::<_, String>(0).parse()?)
    }

    /// The audit of what history has; it has to have everything in time.
    async fn audit(&mut self) -> Result<(), Violation> {
        let mut limit = Instant::now() + SETTLE_MAX;
        let mut problem = String::new();
        while self.audit.transactions() < self.witness.ledger().len() {
            if Instant::now() > limit {
                let (has, all) = (self.audit.transactions(), self.witness.ledger().len());
                let text = format!("history has {has} of {all} transactions {SETTLE_MAX:?} later {problem}");
                return Err(self.stuck(&text).await);
            }
            let before = self.audit.transactions();
            let outcome = match TestSession::attempt(self.world.history().url()).await {
                Ok(session) => self.audit.run(&session).await?,
                Err(error) => Err(error),
            };
            if self.audit.transactions() > before {
                limit = Instant::now() + SETTLE_MAX;
            }
            if let Err(error) = outcome {
                problem = error.to_string();
            }
            self.watch(Duration::from_millis(50)).await?;
        }
        Ok(())
    }

    /// Compares every copy with its table.
    pub(super) async fn compare(&mut self) -> Result<(), Violation> {
        let limit = Instant::now() + PICKUP_MAX;
        loop {
            let mut all = Vec::new();
            for client in &self.clients {
                let copies = client.copies().await;
                let copies =
                    copies.ok_or_else(|| Violation::new(ViolationKind::Stuck, "a client does not answer"))?;
                all.push((client.name().to_owned(), copies));
            }
            match self.compare_with(&all).await {
                Ok(rows) => {
                    self.compared += rows;
                    return Ok(());
                }
                Err(text) if Instant::now() > limit => {
                    return Err(Violation::wrong(format!("the copies are not the tables: {text}")));
                }
                Err(_) => self.watch(Duration::from_millis(500)).await?,
            }
        }
    }

    async fn compare_with(&self, all: &[(String, Copies)]) -> Result<u64, String> {
        const TABLES: &str = "SELECT n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname),
            ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attgenerated <> '' AND NOT attisdropped)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname = 'public' ORDER BY c.oid";
        let session =
            TestSession::attempt(self.world.database().url()).await.map_err(|error| error.to_string())?;
        let tables = session.query(TABLES, &[]).await.map_err(|error| error.to_string())?;
        let mut rows = 0;
        for table in tables {
            let sql_name: String = table.get(2);
            let generated = table.get::<_, Vec<String>>(3).into_iter().collect();
            let name = table_name(table.get(0), table.get(1));
            let there: Vec<Fields> =
                server_rows(&session, &sql_name).await.map_err(|error| format!("{sql_name}: {error}"))?;
            for ((who, copies), (_, shape, _)) in all.iter().zip(&CLIENTS) {
                let is_asked = shape.iter().any(|pattern| pattern.ends_with('*') || *pattern == name);
                if is_asked {
                    let compared = copies.compare(&name, &there, &generated);
                    let compared = compared.map_err(|difference| format!("{who}: {difference}"))?;
                    rows += compared.unwrap_or(0) as u64;
                }
            }
        }
        Ok(rows)
    }
}
