//! Cases 62 and 64: initial syncs among writers of every kind, and one that saw what a crash took back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walcast_testkit::{Daemon, StopMode, TestDatabase, cluster_builder, for_each_version, installations};

use super::witness::Witness;
use crate::observer::{Observer, wal_position};
use crate::workload::{TABLES, Workload, create};

/// Prepares transactions, and commits or rolls them back a little later.
async fn two_phase(
    database: &TestDatabase,
    writer: usize,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<()> {
    let session = database.session().await;
    let gid = database.unique(&format!("w{writer}"));
    tokio::spawn(async move {
        for round in 0.. {
            let id = 700_000 + writer;
            let sql = format!(
                "BEGIN; INSERT INTO accounts VALUES ({id}, {round}, 'two phases')
                 ON CONFLICT (id) DO UPDATE SET balance = excluded.balance; INSERT INTO entries VALUES ({id}, {round}, 1)"
            );
            session.batch_execute(&sql).await.expect("the statement runs");
            session.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).await.expect("the statement runs");
            session.batch_execute("SELECT pg_sleep(0.01)").await.expect("the statement runs");
            let end = if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
            session.batch_execute(&format!("{end} PREPARED '{gid}'")).await.expect("the statement runs");
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_62_an_initial_sync_under_eight_writers_with_savepoints_and_two_phase_commits() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database, 200).await;
        let daemon = Daemon::of(&database).start().await;
        let workload = Workload::start(&database, 6, 62).await;
        let stop = Arc::new(AtomicBool::new(false));
        let prepared =
            [two_phase(&database, 1, stop.clone()).await, two_phase(&database, 2, stop.clone()).await];
        let mut observers = Vec::new();
        for _ in 0..8 {
            workload.more(15).await;
            observers.push(Observer::subscribe(&daemon.ws_url(), &TABLES, None).await);
        }
        for observer in &mut observers {
            observer.until("snapshot_complete").await;
        }
        workload.more(30).await;
        workload.stop().await;
        stop.store(true, Ordering::Relaxed);
        for writer in prepared {
            writer.await.expect("the statement runs");
        }
        let end = wal_position(&database).await;
        database.run("UPDATE accounts SET note = 'the last one' WHERE id = 1").await;
        for mut observer in observers {
            observer.until_after(end).await;
            for table in TABLES {
                observer.assert_equals(&database, table).await;
            }
        }
    })
    .await;
}

/// Tries until a crash has taken the row back: the server may happen to write its WAL before.
const ROUNDS: i32 = 10;

#[tokio::test]
async fn case_64_rows_of_a_snapshot_that_a_crash_took_back_are_discarded() {
    for installation in installations() {
        let builder = cluster_builder(&installation)
            .setting("wal_writer_delay", "10s")
            .setting("autovacuum", "off")
            .setting("bgwriter_delay", "10s");
        let cluster = builder.start().await.expect("the statement runs");
        let database = TestDatabase::create(&cluster).await;
        // More than sockets hold, so that a client that does not read keeps the initial sync in its middle.
        database
            .run(
                "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (0); CREATE TABLE b (id int PRIMARY KEY, filler text);
                 ALTER TABLE b ALTER filler SET STORAGE EXTERNAL;
                 INSERT INTO b SELECT g, repeat('x', 100000) FROM generate_series(1, 400) g",
            )
            .await;
        // Nobody else's commit may write the WAL of the row, so the daemon has none to make. The first client has the
        // only place, so that the second one's own barrier, which would write it too, is past before its snapshot.
        let daemon = Daemon::of(&database)
            .flag("--snapshots-max", 1)
            .flag("--idle-persist-interval", "1h")
            .flag("--idle-persist-interval-max", "1h")
            .flag("--discover-interval", "1h")
            .start()
            .await;
        let mut lost = 0;
        for round in 1..=ROUNDS {
            let last = "SELECT count(*) FROM walcast.change_history WHERE table_name = 'a' AND op = 'insert'";
            database.until(last, &(3 * (round - 1)).to_string()).await;
            let mut first = Observer::subscribe(&daemon.ws_url(), &["public.a", "public.b"], None).await;
            first.until("snapshot").await;
            let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.a", "public.b"], None).await;
            observer.until("subscribed").await;
            Witness::at(&daemon.ws_url(), "latest").await.until("caught_up").await;
            database.run(&format!("SET synchronous_commit = off; INSERT INTO a VALUES ({round})")).await;
            drop(first);
            observer.until("snapshot").await;
            cluster.stop(StopMode::Immediate).await.expect("the statement runs");
            cluster.start().await.expect("the statement runs");
            let there = format!("SELECT count(*) FROM a WHERE id = {round}");
            let gone = database.scalar(&there).await.as_deref() == Some("0");
            // The next transaction may get the transaction id of the one that is gone.
            database.run("INSERT INTO a VALUES (-1); DELETE FROM a WHERE id = -1").await;
            database.run(&format!("INSERT INTO a VALUES ({round} + 1000)")).await;
            observer.until("caught_up").await;
            observer.assert_equals(&database, "public.a").await;
            assert_eq!(observer.rows("public.b").len(), 400);
            if gone {
                let began = observer.kinds.iter().filter(|kind| *kind == "subscribed").count();
                assert!(began > 1, "the sync went on over the crash: {:?}", observer.kinds);
                lost += 1;
                println!("round {round}: the row is gone");
                break;
            }
        }
        let version = installation.version();
        assert!(lost > 0, "in {ROUNDS} rounds no crash of Postgres {version} took the row back");
    }
}
