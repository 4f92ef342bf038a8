//! A database with its publications, slot, feed and replicator.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walcast_feed::{BarrierRequests, Barriers, Feed, FeedLimits, FeedWriter, Read, SourceState};
use walcast_model::{Change, Cursor, Lsn, Part};
use walcast_postgres::{ConnectionConfig, Session};
use walcast_replication::publication::{Facts, Plan, PublicationSettings, Reconciler, apply};
use walcast_replication::slot::{self, Ensured, SlotSettings};
use walcast_replication::{BarrierEmitter, Keeper, Replicator, ReplicatorSettings};
use walcast_testkit::{Cluster, LIMIT, TestDatabase, within};

pub(crate) const SECRET: &str = "0123456789abcdef";

/// What is different from test to test.
pub(crate) struct Options {
    pub(crate) publication: PublicationSettings,
    pub(crate) part_bytes_max: usize,
    pub(crate) feed_bytes_max: usize,
    pub(crate) wal_sender_timeout: Duration,
    pub(crate) decoding_work_bytes: Option<u64>,
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            publication: PublicationSettings::new("feed"),
            part_bytes_max: 1 << 20,
            feed_bytes_max: 64 << 20,
            wal_sender_timeout: Duration::from_secs(60),
            decoding_work_bytes: None,
            keeper: None,
        }
    }
}

/// A running replicator and what it reads.
pub(crate) struct Source {
    pub(crate) database: TestDatabase,
    pub(crate) config: ConnectionConfig,
    pub(crate) settings: ReplicatorSettings,
    pub(crate) publication: PublicationSettings,
    pub(crate) feed: Feed,
    pub(crate) barriers: Barriers,
    /// What the history would say.
    pub(crate) acknowledge: watch::Sender<Lsn>,
    pub(crate) cancel: CancellationToken,
    pub(crate) replicator: JoinHandle<()>,
    emitter: JoinHandle<()>,
    /// Read up to here.
    cursor: Cursor,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.replicator.abort();
        self.emitter.abort();
    }
}

pub(crate) fn config(url: &str) -> ConnectionConfig {
    ConnectionConfig::parse(url, &|_| None).expect("a connection string")
}

/// Applies the whole plan, as `walcast setup` does.
pub(crate) async fn publish(session: &Session, settings: &PublicationSettings, secret: Option<&str>) -> Plan {
    let plan = Plan::new(&Facts::read(session).await.unwrap(), settings);
    for step in &plan.steps {
        assert!(step.allowed, "{step:?}");
        apply(session, step, settings, secret).await.unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }
    plan
}

/// Creates the slot, however long transactions of other tests keep it waiting.
pub(crate) async fn create_slot(session: &Session, database: &str, name: &str) -> Lsn {
    match slot::ensure_patiently(session, &SlotSettings::new(name), database, None, |_| {}).await {
        Ok(Ensured::Created(lsn)) => lsn,
        other => panic!("{other:?}"),
    }
}

impl Source {
    pub(crate) async fn start(cluster: &Cluster, setup: &str) -> Self {
        Self::with(cluster, setup, Options::default()).await
    }

    pub(crate) async fn with(cluster: &Cluster, setup: &str, options: Options) -> Self {
        let database = TestDatabase::create(cluster).await;
        database.run(setup).await;
        let config = config(database.url());
        let session = Session::connect(&config, "test").await.unwrap();
        publish(&session, &options.publication, None).await;
        let start = create_slot(&session, database.name(), &database.slot_name()).await;
        let system =
            session.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]).await.unwrap();
        let names = options.publication.names();
        let mut settings =
            ReplicatorSettings::new(database.slot_name(), names, SECRET, system.get::<_, &str>(0), 1);
        settings.part_bytes_max = options.part_bytes_max;
        settings.connection.wal_sender_timeout = options.wal_sender_timeout;
        settings.connection.decoding_work_bytes = options.decoding_work_bytes;
        settings.keeper = options.keeper;
        let (writer, feed) = Feed::new(start.into(), FeedLimits { memory_bytes_max: options.feed_bytes_max });
        let (barriers, requests) = Barriers::new();
        let (acknowledge, acknowledged) = watch::channel(start);
        let cancel = CancellationToken::new();
        let replicator = spawn(&config, &settings, writer, &barriers, acknowledged, &cancel);
        let emitter = emit(&config, requests, &cancel);
        let publication = options.publication;
        Self {
            database,
            config,
            settings,
            publication,
            feed,
            barriers,
            acknowledge,
            cancel,
            replicator,
            emitter,
            cursor: start.into(),
        }
    }

    pub(crate) fn reconciler(&self) -> Reconciler {
        Reconciler::new(self.config.clone(), self.publication.clone(), SECRET.to_owned())
    }

    pub(crate) async fn sql(&self) -> Session {
        Session::connect(&self.config, "test").await.unwrap()
    }

    /// Everything committed before now that was not read yet.
    pub(crate) async fn read(&mut self) -> Vec<Vec<String>> {
        let barrier = within("the barrier", LIMIT, self.barriers.pass()).await.expect("a running emitter");
        self.read_to(barrier).await
    }

    /// Everything before `position` that was not read yet: a list of changes for each transaction.
    pub(crate) async fn read_to(&mut self, position: Cursor) -> Vec<Vec<String>> {
        let mut head = self.feed.watch_head();
        let mut transactions: Vec<(Lsn, Vec<String>)> = Vec::new();
        while self.cursor < position {
            match self.feed.read(self.cursor, usize::MAX) {
                Read::Parts { parts, next } => {
                    for part in &parts {
                        assert!(part.cursor() >= self.cursor, "{} after {}", part.cursor(), self.cursor);
                        self.cursor = part.next_cursor();
                        let start = part.transaction().start.lsn();
                        if transactions.last().is_none_or(|(last, _)| *last != start) {
                            assert_eq!(part.first().get(), 0, "the beginning of a transaction is missing");
                            transactions.push((start, Vec::new()));
                        }
                        let (_, changes) = transactions.last_mut().expect("one was pushed");
                        assert_eq!(changes.len() as i64, part.first().get());
                        changes.extend(part.changes().iter().map(|change| describe(part, change)));
                    }
                    self.cursor = next;
                }
                // Nothing between here and the head.
                Read::AtHead { head } if head > self.cursor => self.cursor = head,
                Read::AtHead { .. } => {
                    let cursor = self.cursor;
                    within("the head", LIMIT, head.wait_for(|head| *head > cursor)).await.unwrap();
                }
                Read::Behind { oldest } => panic!("{} was evicted up to {oldest}", self.cursor),
            }
        }
        transactions.into_iter().map(|(_, changes)| changes).collect()
    }

    /// Runs `sql` as one transaction and compares what comes of it.
    pub(crate) async fn expect(&mut self, case: &str, sql: &str, expected: &[&[&str]]) {
        self.database.run(sql).await;
        assert_eq!(self.read().await, expected, "case {case}");
    }

    pub(crate) async fn until_source(
        &self,
        what: &str,
        wanted: impl FnMut(&SourceState) -> bool,
    ) -> SourceState {
        let mut source = self.feed.source();
        let state = within(what, LIMIT, source.wait_for(wanted)).await.unwrap();
        state.clone()
    }

    /// Stops the replicator as a shutdown does.
    pub(crate) async fn stop(&mut self) {
        self.cancel.cancel();
        within("the replicator's end", LIMIT, &mut self.replicator).await.unwrap();
    }
}

pub(crate) fn spawn(
    config: &ConnectionConfig,
    settings: &ReplicatorSettings,
    writer: FeedWriter,
    barriers: &Barriers,
    acknowledged: watch::Receiver<Lsn>,
    cancel: &CancellationToken,
) -> JoinHandle<()> {
    let replicator =
        Replicator::new(config.clone(), settings.clone(), writer, barriers.clone(), acknowledged);
    tokio::spawn(replicator.run(cancel.clone()))
}

fn emit(config: &ConnectionConfig, requests: BarrierRequests, cancel: &CancellationToken) -> JoinHandle<()> {
    tokio::spawn(BarrierEmitter::new(config.clone(), requests).run(cancel.clone()))
}

/// `update public.t key {…} row {…} old {…} unchanged […]`.
pub(crate) fn describe(part: &Part, change: &Change) -> String {
    let text = |json: Option<&[u8]>| json.map(|json| String::from_utf8(json.to_vec()).unwrap());
    let mut out = format!("{} {}", change.op, change.relation.name());
    for (name, json) in [
        ("key", part.key(change)),
        ("row", part.row(change)),
        ("old", part.old(change)),
        ("unchanged", part.unchanged(change)),
    ] {
        if let Some(json) = text(json) {
            out.push_str(&format!(" {name} {json}"));
        }
    }
    out
}
