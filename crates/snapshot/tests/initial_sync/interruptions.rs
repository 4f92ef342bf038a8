//! Sessions that end, clients that stop, tables that are locked, and places that are taken.

use std::time::Duration;

use tokio::sync::mpsc;
use walcast_postgres::ErrorClass;
use walcast_snapshot::{Error, SnapshotEvent, SnapshotLimits, Snapshots};
use walcast_testkit::{Cluster, LIMIT, StopMode, own_cluster, shared_cluster, within};

use crate::harness::{Outcome, Source, collect, named, take};

/// More than sockets and channels hold, so that a snapshot whose client takes nothing is still open.
const LARGE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE later (id int PRIMARY KEY);
    INSERT INTO t SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, 10000) i; INSERT INTO later VALUES (1);
    CREATE PUBLICATION p FOR TABLE t, later;";

const SESSIONS: &str = "FROM pg_stat_activity WHERE application_name = 'walcast snapshot' \
                        AND state <> 'idle' AND datname = current_database()";

fn quick() -> SnapshotLimits {
    SnapshotLimits {
        retry_delay_min: Duration::from_millis(10),
        retry_delay_max: Duration::from_millis(100),
        ..SnapshotLimits::default()
    }
}

/// An initial sync of which the first rows were taken.
struct Begun {
    receiver: mpsc::Receiver<SnapshotEvent>,
    events: Vec<SnapshotEvent>,
    run: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Begun {
    async fn new(snapshots: &Snapshots) -> Self {
        let (sender, mut receiver) = mpsc::channel(1);
        let snapshots = snapshots.clone();
        let run =
            tokio::spawn(async move { snapshots.run(named(&["public.t", "public.later"]), sender).await });
        let mut events = Vec::new();
        while !matches!(events.last(), Some(SnapshotEvent::Rows { .. })) {
            events.push(within("the first rows", LIMIT, receiver.recv()).await.expect("an event"));
        }
        Self { receiver, events, run }
    }

    async fn finish(self) -> Outcome {
        let outcome = within("the rest", LIMIT, take(self.receiver, self.events)).await.expect("done");
        self.run.await.unwrap().unwrap();
        outcome
    }
}

fn assert_whole(outcome: &Outcome) {
    assert_eq!(outcome.rows.len(), 10_001);
    assert_eq!(outcome.rows.last().map(String::as_str), Some(r#"{"id":1}"#));
    let distinct: std::collections::HashSet<_> = outcome.rows.iter().collect();
    assert_eq!(distinct.len(), 10_001);
}

#[tokio::test]
async fn a_session_that_ends_in_the_middle_begins_again_and_says_so() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let begun = Begun::new(&source.snapshots(quick())).await;
    assert_eq!(
        source.database.scalar(&format!("SELECT pg_terminate_backend(pid) {SESSIONS}")).await.as_deref(),
        Some("t")
    );
    let outcome = begun.finish().await;
    assert_eq!(outcome.restarts, 1);
    assert_whole(&outcome);
}

#[tokio::test]
async fn a_barrier_that_is_lost_with_its_server_is_not_waited_for() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    source.lose_barriers();
    let (sender, receiver) = mpsc::channel(8);
    let snapshots = source.snapshots(quick());
    let run = tokio::spawn(async move { snapshots.run(named(&["public.later"]), sender).await });
    // The rows are sent and the barrier is written; then, as in a failover, both session and barrier are gone.
    let slot = source.database.slot_name();
    let written = format!(
        "SELECT count(*) FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL, 'proto_version', '1', \
         'publication_names', 'p', 'messages', 'true') WHERE encode(data, 'escape') LIKE '%walcast.barrier%'"
    );
    source.database.until(&written, "1").await;
    source.database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walcast snapshot' AND datname = current_database()").await;
    let session = source.database.session().await;
    let resolver = tokio::spawn(crate::harness::resolve(session, slot, source.barriers.clone()));
    let outcome = within("the rest", LIMIT, take(receiver, Vec::new())).await.expect("done");
    run.await.unwrap().unwrap();
    resolver.abort();
    assert_eq!((outcome.restarts, outcome.rows.len()), (1, 1));
}

async fn restarted(cluster: &Cluster, stop: impl AsyncFnOnce(&Cluster)) -> Outcome {
    // A source of its own, whose barriers are resolved by hand: the resolver's session would end too.
    let source = Source::new(cluster, LARGE).await;
    let begun = Begun::new(&source.snapshots(quick())).await;
    stop(cluster).await;
    cluster.start().await.unwrap();
    let barriers = source.barriers.clone();
    let slot = source.database.slot_name();
    let session = source.database.session().await;
    let resolver = tokio::spawn(crate::harness::resolve(session, slot, barriers));
    let outcome = begun.finish().await;
    resolver.abort();
    outcome
}

#[tokio::test]
async fn a_server_that_crashes_or_restarts_in_the_middle_is_waited_for() {
    let cluster = own_cluster(shared_cluster().await.installation()).await;
    let outcome = restarted(&cluster, async |cluster| cluster.kill9().await.unwrap()).await;
    assert_eq!(outcome.restarts, 1);
    assert_whole(&outcome);
    let outcome = restarted(&cluster, async |cluster| cluster.stop(StopMode::Fast).await.unwrap()).await;
    assert_eq!(outcome.restarts, 1);
    assert_whole(&outcome);
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_snapshot_and_may_ask_again() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let limits = SnapshotLimits { stall_max: Duration::from_millis(200), ..quick() };
    let Begun { mut receiver, run, .. } = Begun::new(&source.snapshots(limits)).await;
    let error = within("the end of the patience", LIMIT, run).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    source.database.until(&format!("SELECT count(*) {SESSIONS}"), "0").await;
    receiver.close();
    assert_whole(&source.sync(&["public.t", "public.later"]).await);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session_without_an_error() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let Begun { receiver, run, .. } = Begun::new(&source.snapshots(quick())).await;
    drop(receiver);
    within("the end of the run", LIMIT, run).await.unwrap().unwrap();
    source.database.until(&format!("SELECT count(*) {SESSIONS}"), "0").await;
    let begun = Begun::new(&source.snapshots(quick())).await;
    begun.run.abort();
    source.database.until(&format!("SELECT count(*) {SESSIONS}"), "0").await;
}

#[tokio::test]
async fn a_table_that_is_not_read_yet_cannot_be_emptied_under_the_snapshot() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let begun = Begun::new(&source.snapshots(quick())).await;
    let session = source.database.session().await;
    session.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
    for statement in ["TRUNCATE later", "ALTER TABLE later ALTER id TYPE bigint"] {
        let error = session.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{statement}");
    }
    session.batch_execute("INSERT INTO later VALUES (2); INSERT INTO t VALUES (0, '')").await.unwrap();
    assert_whole(&begun.finish().await);
}

#[tokio::test]
async fn a_locked_table_is_waited_for_without_making_others_queue() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let mut session = source.database.session().await;
    let transaction = session.transaction().await.unwrap();
    transaction.batch_execute("ALTER TABLE t ADD added int").await.unwrap();
    let limits = SnapshotLimits { lock_wait_max: Duration::from_millis(50), ..quick() };
    let snapshots = source.snapshots(limits);
    let sync = tokio::spawn(async move { collect(&snapshots, named(&["public.t", "public.later"])).await });
    source.database.until(&format!("SELECT count(*) > 0 {SESSIONS} AND wait_event_type = 'Lock'"), "t").await;
    source.database.until(&format!("SELECT count(*) {SESSIONS}"), "0").await;
    transaction.commit().await.unwrap();
    let outcome = sync.await.unwrap().unwrap();
    assert_eq!(outcome.restarts, 0, "nothing had been sent");
    assert!(outcome.rows[0].ends_with(r#","added":null}"#), "{}", outcome.rows[0].len());
    assert_whole(&outcome);
}

#[tokio::test]
async fn a_transaction_that_is_open_is_neither_in_the_rows_nor_seen_by_the_snapshot() {
    let source = Source::new(shared_cluster().await, LARGE).await;
    let mut session = source.database.session().await;
    let transaction = session.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO later VALUES (7)").await.unwrap();
    let row = transaction
        .query_one("SELECT pg_current_xact_id()::text, pg_current_wal_insert_lsn()::text", &[])
        .await;
    let row = row.unwrap();
    let xid = walcast_model::Xid::new(row.get::<_, &str>(0).parse().unwrap());
    let before: walcast_model::Lsn = row.get::<_, &str>(1).parse().unwrap();
    let outcome = source.sync(&["public.later"]).await;
    transaction.commit().await.unwrap();
    assert_eq!(outcome.rows, [r#"{"id":1}"#]);
    assert!(!outcome.snapshot.sees(xid));
    assert!(outcome.barrier.lsn() > before);
    let outcome = source.sync(&["public.later"]).await;
    assert_eq!(outcome.rows, [r#"{"id":1}"#, r#"{"id":7}"#]);
    assert!(outcome.snapshot.sees(xid));
}
