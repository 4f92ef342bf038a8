//! Everything around a broadcaster, made up: a table, a feed that is written by hand, barriers that come back at once.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{
    Broadcaster, ClientPositions, Gate, InitialSync, KnownTable, Limits, Lineage, PastPages, Sources,
    Unanswered,
};
use walcast_feed::{Barriers, Feed, FeedLimits, FeedWriter};
use walcast_filter::{Collation, Schema};
use walcast_history::{Acknowledged, ClientKey, KnownClient, Page, PageLimits, Without};
use walcast_model::{
    Column, CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationDigest,
    RelationName, ReplicaIdentity, Seq, Snapshot, Timestamp, Transaction, Xid,
};
use walcast_snapshot::{SnapshotEvent, SnapshotTable};

use crate::Outcome;

/// What the feed may keep: so much that nobody falls behind it, who would be served from history, which is another thing.
const FEED_BYTES: usize = 512 << 20;
/// How long the catalog takes to answer.
const ANSWER: Duration = Duration::from_millis(1);

/// `public.files`, whole in the WAL; with another column after its definition was changed.
fn files(altered: bool) -> Arc<Relation> {
    let mut columns =
        vec![("id", 20, true), ("owner_id", 20, false), ("title", 25, false), ("body", 25, false)];
    if altered {
        columns.push(("added", 25, false));
    }
    let column = |(name, oid, key): (&str, u32, bool)| Column {
        name: name.into(),
        type_name: String::new(),
        type_oid: Oid::new(oid),
        key,
        nullable: !key,
    };
    let columns = columns.into_iter().map(column).collect();
    let name = RelationName::new("public", "files");
    Arc::new(Relation::new(Oid::new(16385), name, ReplicaIdentity::Full, columns))
}

/// Writes the feed.
pub(crate) struct Writer {
    feed: FeedWriter,
    reader: Feed,
    relation: Arc<Relation>,
    lsn: u64,
}

impl Writer {
    /// The table has another column from now on.
    pub(crate) fn alter(&mut self) {
        self.relation = files(true);
    }

    /// A transaction of one row; history has it at once.
    pub(crate) async fn insert(&mut self, id: usize, owner: i64) {
        let start = self.lsn;
        self.lsn += 200;
        let transaction = Transaction {
            start: CommitStart::new(Lsn::new(start)),
            xid: Xid::new(start),
            committed_at: Timestamp::default(),
        };
        let mut builder = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
        let mut change = builder.change(Op::Insert, &self.relation);
        let mut row = format!(
            r#"{{"id":{id},"owner_id":{owner},"title":"a title of ordinary length","body":"{:080}""#,
            0
        );
        if self.relation.columns().len() > 4 {
            row.push_str(r#","added":null"#);
        }
        row.push('}');
        let write = |text: String| {
            move |out: &mut Vec<u8>| -> Result<(), Infallible> {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        let mut key = String::new();
        // Into a String, which cannot fail.
        let _ = write!(key, r#"{{"id":{id}}}"#);
        let Ok(()) = change.key(write(key));
        let Ok(()) = change.row(write(row));
        if change.finish().is_ok() {
            let part: Part = builder.finish(Some(CommitEnd::new(Lsn::new(start + 100))));
            let next = part.next_cursor();
            self.feed.push(vec![part]).await;
            self.reader.mark_stored(next);
        }
    }
}

/// A catalog with one table.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Questions about the definition of a change.
    pub(crate) asked: AtomicUsize,
}

fn schema(relation: Arc<Relation>) -> Schema {
    let builder = Schema::builder(relation).with_database(Collation::C, true);
    ["title", "body", "added"]
        .into_iter()
        .fold(builder, |builder, name| builder.with_collation(name, Collation::C))
        .build()
}

impl InitialSync for Source {
    fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>> {
        async {
            tokio::time::sleep(ANSWER).await;
            let relation = files(false);
            let columns = relation.columns().iter().map(|column| column.name.clone()).collect();
            Ok(vec![KnownTable { name: relation.name().clone(), oid: relation.oid(), columns }])
        }
        .boxed()
    }

    fn schema<'a>(&'a self, _: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>> {
        async {
            tokio::time::sleep(ANSWER).await;
            Ok(Some(schema(files(false))))
        }
        .boxed()
    }

    fn schema_of(&self, relation: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(ANSWER).await;
            Ok(schema(relation))
        }
        .boxed()
    }

    fn run(
        &self,
        _: Vec<SnapshotTable>,
        _: mpsc::Sender<SnapshotEvent>,
    ) -> BoxFuture<'_, Result<(), Unanswered>> {
        std::future::pending().boxed()
    }
}

/// A history that nobody should ask.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) asked: AtomicUsize,
}

impl PastPages for Past {
    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn first_without<'a>(
        &'a self,
        _: &'a [RelationDigest],
        from: Cursor,
        _: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>> {
        Box::pin(std::future::ready(Ok(Without::From(from))))
    }

    fn page(&self, _: Cursor, _: Cursor, _: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        std::future::pending().boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        std::future::ready(Ok(Cursor::ZERO)).boxed()
    }

    fn first_invisible<'a>(
        &'a self,
        _: &'a Snapshot,
        _: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>> {
        std::future::ready(Ok(None)).boxed()
    }
}

/// A broadcaster that runs.
pub(crate) struct World {
    pub(crate) broadcaster: Broadcaster,
    pub(crate) source: Arc<Source>,
    pub(crate) past: Arc<Past>,
}

/// Nobody acknowledges anything.
#[derive(Debug)]
struct NoClients;

impl ClientPositions for NoClients {
    fn store<'a>(&'a self, _: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn position<'a>(&'a self, _: &'a ClientKey) -> BoxFuture<'a, Result<Option<KnownClient>, Unanswered>> {
        Box::pin(async { Ok(None) })
    }

    fn of_user<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn upkeep<'a>(&'a self, _: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>> {
        Box::pin(async { Ok(()) })
    }

    fn expiry(&self) -> Duration {
        Duration::MAX
    }
}

/// Starts one.
pub(crate) fn start() -> Outcome<(World, Writer)> {
    let (writer, feed) = Feed::new(Lsn::new(100).into(), FeedLimits { memory_bytes_max: FEED_BYTES });
    let (barriers, mut requests) = Barriers::new();
    let (passing, reader) = (barriers.clone(), feed.clone());
    tokio::spawn(async move {
        while let Some(id) = requests.next().await {
            passing.resolve(&id, reader.head());
        }
    });
    let gate = Gate::closed();
    gate.open();
    let (source, past) = (Arc::new(Source::default()), Arc::new(Past::default()));
    let sources = Sources {
        feed_id: "f_1".parse()?,
        lineage: Lineage::default(),
        feed: feed.clone(),
        barriers,
        past: Arc::clone(&past) as Arc<dyn PastPages>,
        source: Arc::clone(&source) as Arc<dyn InitialSync>,
        clients: Arc::new(NoClients),
        gate,
    };
    let broadcaster = Broadcaster::new(sources, Limits::default());
    let running = broadcaster.clone();
    tokio::spawn(async move { running.run(CancellationToken::new()).await });
    let writer = Writer { feed: writer, reader: feed, relation: files(false), lsn: 100 };
    Ok((World { broadcaster, source, past }, writer))
}
