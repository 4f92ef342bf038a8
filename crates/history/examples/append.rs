//! How fast the appender stores: changes per second for transactions of 1, 10 and 1,000 changes.
//!
//! `cargo run --release -p walcast-history --example append -- URL [SECONDS] [ROW_BYTES]`, with the URL of a database
//! that may be filled. Its schema `walcast` is dropped first. Then it reads back what it has stored.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Feed, FeedLimits};
use walcast_history::{AppendLimits, Appender, FeedRecord, NewFeed, PageLimits, Reader, schema};
use walcast_model::{
    Column, CommitEnd, CommitStart, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName, ReplicaIdentity,
    Seq, Timestamp, Transaction, Xid,
};
use walcast_postgres::{ConnectionConfig, Pool, Session};

const USAGE: &str = "usage: append URL [SECONDS] [ROW_BYTES]";

struct Source {
    relation: Arc<Relation>,
    filler: String,
    lsn: u64,
    xid: u64,
}

impl Source {
    fn new(row_bytes: usize) -> Self {
        let column = |name: &str, key| Column {
            name: name.into(),
            type_name: "text".into(),
            type_oid: Oid::new(25),
            key,
            nullable: !key,
        };
        let columns = vec![column("id", true), column("text", false)];
        let name = RelationName::new("public", "orders");
        let relation = Arc::new(Relation::new(Oid::new(16_384), name, ReplicaIdentity::Default, columns));
        Self { relation, filler: "x".repeat(row_bytes), lsn: 0x0100_0000, xid: 1000 }
    }

    fn transaction(&mut self, changes: usize) -> Result<Part, Box<dyn StdError>> {
        let start = CommitStart::new(Lsn::new(self.lsn));
        // About what Postgres writes for as many rows.
        self.lsn += 64 + changes as u64 * (100 + self.filler.len() as u64);
        self.xid += 1;
        let transaction = Transaction { start, xid: Xid::new(self.xid), committed_at: Timestamp::now() };
        let mut part = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
        for id in 0..changes {
            let mut change = part.change(Op::Insert, &self.relation);
            let put = |text: String| {
                move |out: &mut Vec<u8>| -> Result<(), Infallible> {
                    out.extend_from_slice(text.as_bytes());
                    Ok(())
                }
            };
            change.key(put(format!("{{\"id\":{id}}}")))?;
            change.row(put(format!("{{\"id\":{id},\"text\":\"{}\"}}", self.filler)))?;
            change.finish()?;
        }
        Ok(part.finish(Some(CommitEnd::new(Lsn::new(self.lsn)))))
    }
}

async fn measure(
    config: &ConnectionConfig,
    changes: usize,
    time: Duration,
    row_bytes: usize,
) -> Result<(), Box<dyn StdError>> {
    let mut session = Session::connect(config, "append").await?;
    schema::remove(&mut session).await?;
    schema::apply(&mut session).await?;
    let new = NewFeed {
        slot: "append".into(),
        database: config.database().into(),
        system_identifier: "0".into(),
        timeline: 1,
        position: Lsn::new(0x0100_0000),
    };
    let record = FeedRecord::create(&mut session, &new).await?;
    let (mut writer, feed) = Feed::new(record.position, FeedLimits { memory_bytes_max: 32 << 20 });
    let (acknowledge, _) = watch::channel(Lsn::ZERO);
    let appender =
        Appender::new(config.clone(), record.clone(), feed.clone(), AppendLimits::default(), acknowledge);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(appender.run(std::future::ready(()), cancel.clone()));
    let mut source = Source::new(row_bytes);
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < time {
        let transactions = (1000 / changes).max(1);
        let parts = (0..transactions).map(|_| source.transaction(changes)).collect::<Result<_, _>>()?;
        writer.push(parts).await;
        count += transactions * changes;
    }
    cancel.cancel();
    task.await??;
    let per_second = |count: usize, since: Instant| count as f64 / since.elapsed().as_secs_f64();
    let stored = per_second(count, started);
    let sql = "SELECT count(DISTINCT xmin::text) FROM walcast.change_history";
    let commits: i64 = session.query_one(sql, &[]).await?.get(0);
    let reader = Reader::new(Pool::new(config.clone(), "append", 1), record.id.clone());
    let (started, mut from, mut read) = (Instant::now(), record.position, 0);
    while from < feed.stored() {
        let page = reader.read(from, feed.stored(), PageLimits::default()).await?;
        read += page.parts.iter().map(|part| part.changes().len()).sum::<usize>();
        from = page.next;
    }
    let mean = count as f64 / commits as f64;
    let rate = per_second(read, started);
    println!(
        "{changes:>5} changes a transaction: stored {stored:>9.0}/s ({mean:.0} a commit), read {rate:>9.0}/s"
    );
    assert_eq!(read, count);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or(USAGE)?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse()).map_err(|_| USAGE)?;
    let row_bytes = arguments.next().map_or(Ok(80), |text| text.parse()).map_err(|_| USAGE)?;
    let config = ConnectionConfig::parse(&url, &|name| std::env::var(name).ok())?;
    for changes in [1000, 10, 1] {
        measure(&config, changes, Duration::from_secs(seconds), row_bytes).await?;
    }
    Ok(())
}
