//! A history in a database of its own, and a feed that is stored in it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Feed, FeedLimits, FeedWriter};
use walcast_history::{
    AppendLimits, Appender, AppenderState, Error, FeedRecord, NewFeed, Page, PageLimits, Reader, schema,
};
use walcast_model::{Cursor, Lsn, Part};
use walcast_postgres::{ConnectionConfig, Pool, Session};
use walcast_testkit::{Cluster, LIMIT, TestDatabase, within};

pub(crate) const START: u64 = 0x0100_0000;

pub(crate) fn config(url: &str) -> ConnectionConfig {
    ConnectionConfig::parse(url, &|_| None).unwrap()
}

pub(crate) async fn connect(database: &TestDatabase) -> Session {
    Session::connect(&config(database.url()), "test").await.unwrap()
}

pub(crate) fn new_feed() -> NewFeed {
    NewFeed {
        slot: "walcast".into(),
        database: "shop".into(),
        system_identifier: "7300000000000000001".into(),
        timeline: 1,
        position: Lsn::new(START),
    }
}

/// An empty history whose feed begins at [`START`].
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) config: ConnectionConfig,
    pub(crate) reader: Reader,
}

impl World {
    pub(crate) async fn create(cluster: &Cluster) -> Self {
        Self::of(TestDatabase::create(cluster).await).await
    }

    pub(crate) async fn of(database: TestDatabase) -> Self {
        let mut session = connect(&database).await;
        schema::apply(&mut session).await.unwrap();
        let feed = FeedRecord::create(&mut session, &new_feed()).await.unwrap();
        let config = config(database.url());
        // One place: a read that took a second one while it holds the first would wait for ever.
        let reader = Reader::new(Pool::new(config.clone(), "test reader", 1), feed.id);
        Self { database, config, reader }
    }

    pub(crate) async fn record(&self) -> FeedRecord {
        FeedRecord::load(&connect(&self.database).await, "walcast").await.unwrap().unwrap()
    }

    /// Starts storing from where the history stands.
    pub(crate) async fn store(&self, limits: AppendLimits) -> Storing {
        Storing::start(self.config.clone(), self.record().await, limits, FeedLimits::default())
    }

    /// Stores `parts` and stops.
    pub(crate) async fn store_all(&self, parts: &[Part]) {
        let mut storing = self.store(fast()).await;
        storing.writer.push(parts.to_vec()).await;
        storing.stop().await.unwrap();
    }

    /// All pages from `from`.
    pub(crate) async fn read_all(&self, from: Cursor, limits: PageLimits) -> Vec<Page> {
        let to = self.record().await.position;
        self.read_until(from, to, limits).await
    }

    pub(crate) async fn read_until(&self, mut from: Cursor, to: Cursor, limits: PageLimits) -> Vec<Page> {
        let mut pages = Vec::new();
        while from < to {
            let page = self.reader.read(from, to, limits).await.unwrap();
            assert!(page.next > from, "no progress at {from}");
            from = page.next;
            pages.push(page);
        }
        assert_eq!(from, to);
        pages
    }

    /// Everything that is stored.
    pub(crate) async fn stored_parts(&self) -> Vec<Part> {
        let pages = self.read_all(Lsn::new(START).into(), PageLimits::default()).await;
        pages.into_iter().flat_map(|page| page.parts).collect()
    }
}

/// Limits under which failures are over soon.
pub(crate) fn fast() -> AppendLimits {
    AppendLimits { retry_interval_max: Duration::from_millis(50), ..AppendLimits::default() }
}

/// An appender at work.
pub(crate) struct Storing {
    pub(crate) writer: FeedWriter,
    pub(crate) feed: Feed,
    pub(crate) acknowledged: watch::Receiver<Lsn>,
    pub(crate) state: watch::Receiver<AppenderState>,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

impl Storing {
    pub(crate) fn start(
        config: ConnectionConfig,
        record: FeedRecord,
        limits: AppendLimits,
        feed: FeedLimits,
    ) -> Self {
        let (writer, feed) = Feed::new(record.position, feed);
        let (sender, acknowledged) = watch::channel(Lsn::ZERO);
        let appender = Appender::new(config, record, feed.clone(), limits, sender);
        let (state, cancel) = (appender.state(), CancellationToken::new());
        let task = tokio::spawn(appender.run(std::future::ready(()), cancel.clone()));
        Self { writer, feed, acknowledged, state, cancel, task }
    }

    pub(crate) async fn until_stored(&self, position: Cursor) {
        let mut stored = self.feed.watch_stored();
        let what = format!("stored up to {position}");
        within(&what, 2 * LIMIT, stored.wait_for(|stored| *stored >= position)).await.unwrap();
    }

    pub(crate) async fn until_claimed(&self) {
        let mut state = self.state.clone();
        let claimed = state.wait_for(|state| *state == AppenderState::Storing);
        within("claimed", LIMIT, claimed).await.unwrap();
    }

    pub(crate) async fn until_acknowledged(&self, position: Lsn) {
        let mut acknowledged = self.acknowledged.clone();
        let what = format!("acknowledged up to {position}");
        within(&what, LIMIT, acknowledged.wait_for(|lsn| *lsn >= position)).await.unwrap();
    }

    /// Stops in good order.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.cancel.cancel();
        within("the appender stops", LIMIT, self.task).await.unwrap()
    }

    /// Stops as a crash does. What the feed had is gone.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
