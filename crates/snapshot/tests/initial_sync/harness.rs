//! A source with a publication, and somebody who brings the barriers back through a slot.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use walcast_feed::Barriers;
use walcast_model::{Cursor, Relation, RelationName, Snapshot, Xid};
use walcast_pgoutput::{Decoder, Message};
use walcast_postgres::{ConnectionConfig, Session, catalog};
use walcast_replication::assemble::{
    Assembler, AssemblerSettings, CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts, Step,
    StorageFacts,
};
use walcast_snapshot::{Error, SnapshotEvent, SnapshotLimits, SnapshotTable, Snapshots};
use walcast_testkit::{Cluster, LIMIT, TestDatabase, TestSession, within};

/// A database whose barriers come back.
pub(crate) struct Source {
    pub(crate) database: TestDatabase,
    pub(crate) barriers: Barriers,
    resolver: JoinHandle<()>,
}

impl Source {
    /// An empty database, `setup` run in it; the publication is `p`.
    pub(crate) async fn new(cluster: &Cluster, setup: &str) -> Self {
        let database = TestDatabase::create(cluster).await;
        database.run(setup).await;
        let slot = database.slot_name();
        database.scalar(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        let (barriers, _) = Barriers::new();
        let resolver = resolve(database.session().await, slot, barriers.clone());
        let resolver = tokio::spawn(resolver);
        Self { database, barriers, resolver }
    }

    pub(crate) fn snapshots(&self, limits: SnapshotLimits) -> Snapshots {
        self.snapshots_as(self.database.url(), limits)
    }

    /// Initial syncs through another URL, of the publications `p` and `p_inserts`.
    pub(crate) fn snapshots_as(&self, url: &str, limits: SnapshotLimits) -> Snapshots {
        let publications = vec!["p".to_owned(), "p_inserts".to_owned()];
        Snapshots::new(config(url), self.barriers.clone(), publications, limits)
    }

    /// From now on no barrier comes back.
    pub(crate) fn lose_barriers(&self) {
        self.resolver.abort();
    }

    /// A whole initial sync of these tables.
    pub(crate) async fn sync(&self, tables: &[&str]) -> Outcome {
        self.try_sync(tables).await.unwrap()
    }

    pub(crate) async fn try_sync(&self, tables: &[&str]) -> Result<Outcome, Error> {
        collect(&self.snapshots(SnapshotLimits::default()), named(tables)).await
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.resolver.abort();
    }
}

pub(crate) fn config(url: &str) -> ConnectionConfig {
    ConnectionConfig::parse(url, &|_| None).unwrap()
}

pub(crate) fn named(tables: &[&str]) -> Vec<SnapshotTable> {
    tables.iter().map(|table| table.parse::<RelationName>().unwrap().into()).collect()
}

/// Reads the slot over and over, as the replicator does in a stream, and resolves what it finds.
pub(crate) async fn resolve(session: TestSession, slot: String, barriers: Barriers) {
    loop {
        // The session ends with its server, in tests that stop it.
        let Ok(found) = read_slot(&session, &slot).await else { return };
        if found.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut id = None;
        for message in found {
            match message {
                Message::LogicalMessage(message) => id = String::from_utf8(message.content.to_vec()).ok(),
                Message::Commit(commit) => {
                    if let Some(id) = id.take() {
                        barriers.resolve(&id, Cursor::after(commit.end));
                    }
                }
                _ => {}
            }
        }
    }
}

async fn read_slot(session: &TestSession, slot: &str) -> Result<Vec<Message>, tokio_postgres::Error> {
    let changes = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, \
                   'proto_version', '1', 'publication_names', 'p', 'messages', 'true')";
    let rows = session.query(changes, &[&slot]).await?;
    let mut decoder = Decoder::new();
    let payload = |row: &tokio_postgres::Row| Bytes::from(row.get::<_, Vec<u8>>(0));
    Ok(rows.iter().map(|row| decoder.decode(payload(row)).unwrap()).collect())
}

/// The table's definition as the replicator makes it of the WAL and the catalog, when the table is truncated.
pub(crate) async fn streamed_relation(source: &Source, table: &str) -> Arc<Relation> {
    let session = source.database.session().await;
    let slot = source.database.unique("definition");
    session.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await.unwrap();
    session.batch_execute(&format!("TRUNCATE {table}")).await.unwrap();
    let catalog = Session::connect(&config(source.database.url()), "test").await.unwrap();
    let settings = AssemblerSettings { part_bytes_max: 1 << 20, secret: "none".to_owned() };
    let mut assembler = Assembler::new(settings, Cursor::ZERO, Xid::new(0));
    for message in read_slot(&session, &slot).await.unwrap() {
        let Step::NeedsCatalog(question) = assembler.message(message).unwrap() else { continue };
        catalog::types(&catalog, &question.types, assembler.types_mut()).await.unwrap();
        let answer = answer(&catalog, &question).await;
        assembler.answer(&answer);
    }
    let parts = assembler.take().parts;
    Arc::clone(&parts[0].changes()[0].relation)
}

/// Answers as the replicator does.
async fn answer(session: &Session, question: &CatalogQuestion) -> CatalogAnswer {
    let mut type_names = Vec::new();
    for (oid, modifier) in &question.type_names {
        let row = session.query_one("SELECT format_type($1, $2)", &[&oid.get(), modifier]).await.unwrap();
        type_names.push(row.get(0));
    }
    let relation = catalog::relation(session, question.relation).await.unwrap().unwrap();
    let columns = relation.columns.into_iter().map(|column| ColumnFacts {
        name: column.name,
        type_oid: column.type_oid,
        not_null: column.not_null,
        primary_key: column.primary_key,
    });
    CatalogAnswer {
        relation: Some(RelationFacts { columns: columns.collect() }),
        type_names,
        storage: StorageFacts::None,
    }
}

/// What an initial sync delivered.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) relations: Vec<Arc<Relation>>,
    /// The rows of all tables in their order, as JSON text.
    pub(crate) rows: Vec<String>,
    /// Rows and JSON bytes of each chunk.
    pub(crate) chunks: Vec<(usize, usize)>,
    pub(crate) progress: Vec<(u64, u64)>,
    pub(crate) restarts: usize,
    pub(crate) snapshot: Snapshot,
    pub(crate) barrier: Cursor,
}

/// Runs an initial sync to its end.
pub(crate) async fn collect(snapshots: &Snapshots, tables: Vec<SnapshotTable>) -> Result<Outcome, Error> {
    let (sender, receiver) = mpsc::channel(2);
    let run = async { tokio::join!(snapshots.run(tables, sender), take(receiver, Vec::new())) };
    let (result, outcome) = within("an initial sync", LIMIT, Box::pin(run)).await;
    result.map(|()| outcome.expect("done"))
}

/// Takes the rest of an initial sync of which `events` were taken already; `None` when it ended without `Done`.
pub(crate) async fn take(
    mut receiver: mpsc::Receiver<SnapshotEvent>,
    mut events: Vec<SnapshotEvent>,
) -> Option<Outcome> {
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    let Some(SnapshotEvent::Done { snapshot, barrier }) = events.pop() else { return None };
    let mut outcome = Outcome {
        relations: Vec::new(),
        rows: Vec::new(),
        chunks: Vec::new(),
        progress: Vec::new(),
        restarts: 0,
        snapshot,
        barrier,
    };
    for event in events {
        match event {
            SnapshotEvent::Restarted => {
                outcome.relations.clear();
                outcome.rows.clear();
                outcome.chunks.clear();
                outcome.progress.clear();
                outcome.restarts += 1;
            }
            SnapshotEvent::Relation(relation) => outcome.relations.push(relation),
            SnapshotEvent::Progress { done, estimate } => outcome.progress.push((done, estimate)),
            SnapshotEvent::Rows { relation, json, count } => {
                assert_eq!(Some(&relation), outcome.relations.last(), "rows come after their relation");
                let text = format!("[{}]", std::str::from_utf8(&json).unwrap());
                let rows: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&text).unwrap();
                assert_eq!(rows.len(), count);
                outcome.chunks.push((count, json.len()));
                outcome.rows.extend(rows.iter().map(|row| row.get().to_owned()));
            }
            SnapshotEvent::Done { .. } => panic!("two ends"),
        }
    }
    Some(outcome)
}
