//! Promise 1 when one daemon takes over from another: a rolling update, a spare.

use walcast_testkit::{Daemon, TestDatabase, shared_cluster};

use crate::observer::Observer;

#[tokio::test]
async fn a_daemon_that_starts_beside_another_waits_and_takes_over_without_a_gap() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut old = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&old.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let new = Daemon::of(&database).spawn();
    new.until_log("trying again").await;
    // The old one goes on, and what it acknowledges is after where the new one found the feed.
    for id in 0..5 {
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        observer.until_transactions(id + 1).await;
    }
    let cursor = observer.cursor.expect("a cursor");
    let acknowledged = format!(
        "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{}'",
        cursor.lsn(),
        database.slot_name()
    );
    database.until(&acknowledged, "t").await;
    old.terminate().await;
    database.run("INSERT INTO t VALUES (5)").await;
    new.until_ready().await;
    let mut observer = observer.reconnect(&new.ws_url(), &["public.t"]).await;
    observer.until("caught_up").await;
    assert_eq!(observer.rows("public.t").len(), 6);
}
