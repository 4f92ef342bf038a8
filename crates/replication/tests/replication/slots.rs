//! The slot is made after the publications, and never passed over.

use walcast_feed::SourceState;
use walcast_model::{Cursor, Lsn};
use walcast_postgres::Session;
use walcast_replication::Error;
use walcast_replication::slot::{self, Ensured, SlotSettings};
use walcast_testkit::{
    LIMIT, TestDatabase, cluster_builder, eventually, for_each_version, installations, own_cluster,
};

use crate::source::{Source, config, create_slot};

#[tokio::test]
async fn a_slot_is_made_once_and_checked_ever_after() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let session = Session::connect(&config(database.url()), "test").await.unwrap();
        let settings = SlotSettings::new(database.slot_name());
        let name = settings.name.as_str();
        let missing = slot::ensure(&session, &settings, database.name(), Some(Lsn::new(1).into())).await;
        assert!(matches!(missing, Err(Error::SlotMissing { .. })), "{missing:?}");
        assert!(missing.unwrap_err().hint().unwrap().contains("walcast setup --start-over"));
        let start = create_slot(&session, database.name(), name).await;
        let facts = slot::inspect(&session, name).await.unwrap().unwrap();
        assert_eq!(facts.confirmed_flush, Some(start));
        assert_eq!(facts.failover, session.server_version() >= 170_000);
        let again = slot::ensure(&session, &settings, database.name(), Some(start.into())).await.unwrap();
        assert_eq!(again, Ensured::Existing);
        let behind =
            slot::ensure(&session, &settings, database.name(), Some(Lsn::new(start.get() - 1).into())).await;
        assert!(matches!(behind, Err(Error::SlotAhead { .. })), "{behind:?}");
        for position in [Some(Cursor::MAX), None] {
            let foreign = slot::ensure(&session, &settings, "elsewhere", position).await;
            assert!(matches!(foreign, Err(Error::SlotForeign { .. })), "{foreign:?}");
        }
        let unknown = slot::ensure(&session, &settings, database.name(), None).await;
        assert!(matches!(unknown, Err(Error::SlotWithoutFeed { .. })), "{unknown:?}");
        slot::drop(&session, name).await.unwrap();
        slot::drop(&session, name).await.unwrap();
        assert_eq!(slot::inspect(&session, name).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_waits_for_an_open_transaction_says_for_which() {
    for installation in installations() {
        // Of its own: the open transactions would hold up the slots of other tests.
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        let session = Session::connect(&config(database.url()), "test").await.unwrap();
        database.run("CREATE TABLE t (id int)").await;
        let writer = database.session().await;
        writer
            .batch_execute("SET application_name = 'forgotten'; BEGIN; INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let mut settings = SlotSettings::new(database.slot_name());
        settings.lock_timeout = std::time::Duration::from_millis(100);
        let error = slot::create(&session, &settings).await.unwrap_err();
        assert!(matches!(error, Error::SlotBlocked { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {pid} of postgres (\"forgotten\"")), "{error}");
        assert_eq!(slot::inspect(&session, &settings.name).await.unwrap(), None, "nothing is left behind");
        writer.batch_execute("PREPARE TRANSACTION 'gone'").await.unwrap();
        let error = slot::create(&session, &settings).await.unwrap_err();
        assert!(error.to_string().contains("prepared transaction \"gone\""), "{error}");
        assert!(error.hint().unwrap().contains("ROLLBACK PREPARED 'gone';"), "{error}");
        writer.batch_execute("COMMIT PREPARED 'gone'").await.unwrap();
        slot::create(&session, &SlotSettings::new(database.slot_name())).await.unwrap();
    }
}

#[tokio::test]
async fn a_slot_that_is_dropped_or_advanced_stops_the_feed_and_says_what_to_do() {
    for_each_version(async |cluster| {
        for damage in
            ["pg_drop_replication_slot('{}')", "pg_replication_slot_advance('{}', pg_current_wal_lsn())"]
        {
            let source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
            source.until_source("a stream", |state| *state == SourceState::Streaming).await;
            let name = source.database.slot_name();
            let session = source.database.session().await;
            // Between the end of a stream and the next try, and with a row that came in between.
            let end =
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1";
            let damage = format!("SELECT {}", damage.replace("{}", &name));
            let mut id = 0;
            eventually("the damage", LIMIT, async || {
                id += 1;
                session.query(end, &[&name]).await.unwrap();
                session.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
                session.batch_execute(&damage).await.ok()
            })
            .await;
            source.until_source("the state of a hole", start_over).await;
        }
    })
    .await;
}

fn start_over(state: &SourceState) -> bool {
    matches!(state, SourceState::Interrupted { hint: Some(hint), .. } if hint.contains("walcast setup --start-over"))
}

#[tokio::test]
async fn case_52_changes_that_a_missing_publication_swallowed_are_never_passed_over() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        source
            .expect("52", "INSERT INTO t VALUES (1)", &[&[r#"insert public.t key {"id":1} row {"id":1}"#]])
            .await;
        let head = source.feed.head();
        let session = source.database.session().await;
        for sql in [
            "DROP PUBLICATION feed",
            "INSERT INTO t VALUES (2)",
            "CREATE PUBLICATION feed FOR TABLE t",
            "INSERT INTO t VALUES (3)",
        ] {
            session.batch_execute(sql).await.unwrap();
        }
        source.until_source("the state of a hole", start_over).await;
        // Nothing after the hole, only what was sent before it.
        let nothing: [Vec<String>; 0] = [];
        assert_eq!(source.read_to(source.feed.head()).await, nothing);
        assert!(source.feed.head() >= head);
    })
    .await;
}

#[tokio::test]
async fn case_54_a_slot_that_is_lost_while_it_streams_stops_the_feed_and_says_what_to_do() {
    for installation in installations() {
        let builder = cluster_builder(&installation).setting("max_slot_wal_keep_size", "16MB");
        let cluster = builder.start().await.unwrap();
        let source = Source::start(&cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        source.until_source("a stream", |state| *state == SourceState::Streaming).await;
        let session = source.database.session().await;
        for id in 0..5 {
            let sql = format!("INSERT INTO t VALUES ({id}); SELECT pg_switch_wal();");
            session.batch_execute(&sql).await.unwrap();
        }
        session.batch_execute("CHECKPOINT").await.unwrap();
        let state = source.until_source("the state of a hole", start_over).await;
        assert!(format!("{state:?}").contains("is lost ("), "{state:?}");
    }
}

#[tokio::test]
async fn case_55_a_second_reader_waits_until_the_slot_is_free() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        source.until_source("a stream", |state| *state == SourceState::Streaming).await;
        let (writer, feed) = walcast_feed::Feed::new(source.feed.head(), walcast_feed::FeedLimits::default());
        let (_sender, acknowledged) = tokio::sync::watch::channel(Lsn::ZERO);
        let cancel = tokio_util::sync::CancellationToken::new();
        let second = crate::source::spawn(&source.config, &source.settings, writer, &source.barriers, acknowledged, &cancel);
        let mut state = feed.source();
        let in_use = |state: &SourceState| matches!(state, SourceState::Interrupted { reason, .. } if reason.contains("is in use by process"));
        walcast_testkit::within("slot in use", LIMIT, state.wait_for(in_use)).await.unwrap();
        source.stop().await;
        let streaming = state.wait_for(|state| *state == SourceState::Streaming);
        walcast_testkit::within("the take-over", LIMIT, streaming).await.unwrap();
        cancel.cancel();
        second.await.unwrap();
    })
    .await;
}
