//! Promise 3: an initial sync plus the changes after it equals the table.

use walcast_testkit::{Daemon, TestDatabase, for_each_version};

use crate::observer::{Observer, wal_position};
use crate::workload::{TABLES, Workload, create};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_and_stream_equal_the_tables_under_concurrent_writers() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database, 200).await;
        // One reader of history for all of them.
        let daemon = Daemon::of(&database).flag("--history-readers-max", 1).start().await;
        let workload = Workload::start(&database, 6, 1).await;
        let mut observers = Vec::new();
        for _ in 0..6 {
            workload.more(20).await;
            observers.push(Observer::subscribe(&daemon.ws_url(), &TABLES, None).await);
        }
        for observer in &mut observers {
            observer.until("snapshot_complete").await;
        }
        workload.more(100).await;
        workload.stop().await;
        let end = wal_position(&database).await;
        database.run("UPDATE accounts SET note = 'the last one' WHERE id = 1").await;
        for mut observer in observers {
            observer.until_after(end).await;
            for table in TABLES {
                observer.assert_equals(&database, table).await;
            }
        }
        daemon.assert_quiet(&[]);
    })
    .await;
}

#[tokio::test]
async fn messages_of_an_initial_sync_come_in_their_order() {
    let database = TestDatabase::create(walcast_testkit::shared_cluster().await).await;
    create(&database, 3).await;
    let daemon = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.accounts"], None).await;
    observer.until("caught_up").await;
    assert_eq!(observer.kinds, ["subscribed", "relation", "snapshot", "snapshot_complete", "caught_up"]);
    observer.assert_equals(&database, "public.accounts").await;
    database.run("INSERT INTO accounts VALUES (10, 1, 'live'); DELETE FROM accounts WHERE id = 1").await;
    observer.until_transactions(1).await;
    observer.assert_equals(&database, "public.accounts").await;
    // The relation was said once, before the rows.
    assert_eq!(observer.kinds.iter().filter(|kind| *kind == "relation").count(), 1);
}

#[tokio::test]
async fn an_empty_table_and_a_wildcard_are_synced_too() {
    let database = TestDatabase::create(walcast_testkit::shared_cluster().await).await;
    database.run("CREATE TABLE empty (id int PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); INSERT INTO s.t VALUES (7)").await;
    let daemon = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
    observer.until("caught_up").await;
    assert_eq!(observer.rows("public.empty"), [] as [serde_json::Value; 0]);
    observer.assert_equals(&database, "s.t").await;
    database.run("BEGIN; INSERT INTO empty VALUES (1); INSERT INTO s.t VALUES (8); COMMIT").await;
    observer.until_transactions(1).await;
    assert_eq!(observer.transactions[0].changes.len(), 2);
    observer.assert_equals(&database, "public.empty").await;
    observer.assert_equals(&database, "s.t").await;
}
