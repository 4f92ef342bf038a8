//! Servers that stop, history that stalls, connections that end.

use std::time::Duration;

use walcast_feed::SourceState;
use walcast_testkit::{
    Cluster, LIMIT, StopMode, for_each_version, installations, own_cluster, shared_cluster, undisturbed,
    within,
};

use crate::source::{Options, Source};

fn insert(id: i64) -> String {
    format!(r#"insert public.t key {{"id":{id}}} row {{"id":{id}}}"#)
}

const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";

#[tokio::test]
async fn only_what_history_has_is_acknowledged_and_a_shutdown_leaves_the_slot_there() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, T).await;
        let name = source.database.slot_name();
        let confirmed =
            format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'");
        let before = source.database.scalar(&confirmed).await;
        source.database.run("INSERT INTO t VALUES (1)").await;
        source.read().await;
        let stored = source.feed.head();
        source.database.run("INSERT INTO t VALUES (2)").await;
        source.read().await;
        assert_eq!(source.database.scalar(&confirmed).await, before);
        source.acknowledge.send_replace(stored.lsn());
        source.database.until(&confirmed, &stored.lsn().to_string()).await;
        // The shutdown waits for the history's last word.
        let last = source.feed.head().lsn();
        source.cancel.cancel();
        source.acknowledge.send_replace(last);
        source.stop().await;
        assert_eq!(source.database.scalar(&confirmed).await, Some(last.to_string()));
        source
            .database
            .until(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{name}'"), "f")
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_57_a_stalled_history_costs_neither_the_connection_nor_a_change() {
    // A server that stands still for as long as its patience takes the consumer for silent.
    const STILL_MAX: Duration = Duration::from_millis(300);
    for_each_version(async |cluster| undisturbed(STILL_MAX, async || stalled(cluster).await).await).await;
}

async fn stalled(cluster: &Cluster) {
    let timeout = Duration::from_secs(1);
    let options =
        Options { feed_bytes_max: 1, part_bytes_max: 1, wal_sender_timeout: timeout, ..Options::default() };
    let source = Source::with(cluster, T, options).await;
    source.until_source("a stream", |state| *state == SourceState::Streaming).await;
    source.database.run("INSERT INTO t SELECT generate_series(1, 20000)").await;
    let pid = format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        source.database.slot_name()
    );
    let walsender = source.database.scalar(&pid).await.expect("a walsender");
    // Three times as long as the server would wait for a consumer that says nothing.
    let old = format!(
        "SELECT now() - backend_start > interval '3 s' FROM pg_stat_activity WHERE pid = {walsender}"
    );
    source.database.until(&old, "t").await;
    assert_eq!(source.database.scalar(&pid).await, Some(walsender), "the connection survived");
    // History moves on one step at a time, and everything arrives.
    let feed = source.feed.clone();
    let history = tokio::spawn(async move {
        let mut head = feed.watch_head();
        loop {
            let now = *head.borrow_and_update();
            feed.mark_stored(now);
            head.changed().await.unwrap();
        }
    });
    let mut head = source.feed.watch_head();
    let barrier = source.barriers.pass().await.unwrap();
    within("the head", LIMIT, head.wait_for(|head| *head >= barrier)).await.unwrap();
    history.abort();
    assert!(source.feed.head() >= barrier);
}

#[tokio::test]
async fn case_30_31_a_connection_that_ends_anywhere_in_a_transaction_loses_and_repeats_nothing() {
    for_each_version(async |cluster| {
        let options = Options { part_bytes_max: 200, ..Options::default() };
        let mut source = Source::with(cluster, T, options).await;
        source.until_source("a stream", |state| *state == SourceState::Streaming).await;
        let session = source.database.session().await;
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let name = source.database.slot_name();
        let mut expected = Vec::new();
        // Each end costs the five seconds for which a server that may be going down is left alone.
        for round in 0..2_i64 {
            let (first, last) = (round * 10_000, round * 10_000 + 9_999);
            let head = source.feed.head();
            let mut heads = source.feed.watch_head();
            session.batch_execute(&format!("INSERT INTO t SELECT generate_series({first}, {last})")).await.unwrap();
            expected.push((first..=last).map(insert).collect::<Vec<_>>());
            // As soon as something of it has arrived.
            within("the first part", LIMIT, heads.wait_for(|now| *now > head)).await.unwrap();
            session.query(end, &[&name]).await.unwrap();
        }
        let read = source.read().await;
        assert!(read == expected, "{} transactions of {:?}", read.len(), read.iter().map(Vec::len).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn case_28_29_67_a_server_that_stops_is_let_go_at_once_and_taken_up_again_without_a_gap() {
    for installation in installations() {
        for mode in [StopMode::Fast, StopMode::Immediate] {
            let cluster = own_cluster(&installation).await;
            // History never stores anything here, as when it is in the same cluster and its session has just ended; the
            // feed is full, so the loop waits for history when the server stops.
            let options = Options { feed_bytes_max: 200_000, part_bytes_max: 1000, ..Options::default() };
            let mut source = Source::with(&cluster, T, options).await;
            source.until_source("a stream", |state| *state == SourceState::Streaming).await;
            let mut expected = Vec::new();
            for n in 0..3_i64 {
                source
                    .database
                    .run(&format!("INSERT INTO t SELECT generate_series({}, {})", n * 4000, n * 4000 + 3999))
                    .await;
                expected.push((n * 4000..n * 4000 + 4000).map(insert).collect::<Vec<_>>());
            }
            let mut heads = source.feed.watch_head();
            within("a full feed", LIMIT, async {
                while source.feed.memory_bytes() < 200_000 {
                    heads.changed().await.unwrap();
                }
            })
            .await;
            // Half of what the server would wait for a consumer that does not let go.
            cluster.stop_within(mode, LIMIT).await.unwrap();
            cluster.start().await.unwrap();
            let read = drained(&mut source, expected.len()).await;
            assert!(read == expected, "{mode:?}: {:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_barrier_that_was_read_while_history_stalls_comes_back_although_the_catalog_session_ends() {
    let options = Options { feed_bytes_max: 1, part_bytes_max: 1, ..Options::default() };
    let source = Source::with(shared_cluster().await, T, options).await;
    source.until_source("a stream", |state| *state == SourceState::Streaming).await;
    let mut heads = source.feed.watch_head();
    // The first part fills the feed, the loop waits with the second; what follows gathers behind it.
    source.database.run("INSERT INTO t VALUES (1), (2)").await;
    within("the first part", LIMIT, heads.wait_for(|head| head.seq().get() == 1)).await.unwrap();
    let barriers = source.barriers.clone();
    let barrier = tokio::spawn(async move { barriers.pass().await });
    let name = source.database.slot_name();
    let walsender = format!("(SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{name}')");
    let emitted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walcast barriers' \
                   AND datname = current_database() AND query LIKE '%emit%' AND state = 'idle'";
    source.database.until(emitted, "1").await;
    source.database.run("INSERT INTO t VALUES (3)").await;
    let written = source.database.scalar("SELECT pg_current_wal_lsn()").await.expect("a position");
    let sent = format!("SELECT sent_lsn >= '{written}' FROM pg_stat_replication WHERE pid = {walsender}");
    source.database.until(&sent, "t").await;
    // Room for the second part: the loop reads the barrier and the last row together, and waits with that row.
    source.feed.mark_stored(source.feed.head());
    within("the second part", LIMIT, heads.wait_for(|head| head.seq().get() == 0)).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walcast catalog' \
               AND datname = current_database()";
    source.database.run(end).await;
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'walcast catalog' \
                AND datname = current_database()";
    source.database.until(gone, "0").await;
    source.database.until(&format!("SELECT {walsender} IS NULL"), "t").await;
    let feed = source.feed.clone();
    let history = tokio::spawn(async move {
        let mut head = feed.watch_head();
        loop {
            let now = *head.borrow_and_update();
            feed.mark_stored(now);
            head.changed().await.unwrap();
        }
    });
    let position = within("the barrier", LIMIT, barrier).await.unwrap().expect("a running emitter");
    history.abort();
    assert!(source.feed.head() >= position);
}

/// Reads as history does: what was read is stored, so that there is room for more.
async fn drained(source: &mut Source, transactions: usize) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut head = source.feed.watch_head();
    let mut cursor = source.feed.oldest();
    while all.len() < transactions || cursor.seq().get() != 0 {
        match source.feed.read(cursor, usize::MAX) {
            walcast_feed::Read::Parts { parts, next } => {
                for part in parts {
                    if part.first().get() == 0 {
                        all.push(Vec::new());
                    }
                    let changes = all.last_mut().expect("a first part came first");
                    assert_eq!(changes.len() as i64, part.first().get());
                    changes
                        .extend(part.changes().iter().map(|change| crate::source::describe(&part, change)));
                }
                cursor = next;
                source.feed.mark_stored(cursor);
            }
            walcast_feed::Read::AtHead { head } if head > cursor => cursor = head,
            walcast_feed::Read::AtHead { .. } => {
                within("more", LIMIT, head.wait_for(|head| *head > cursor)).await.unwrap();
            }
            walcast_feed::Read::Behind { oldest } => panic!("{cursor} was evicted up to {oldest}"),
        }
    }
    all
}
