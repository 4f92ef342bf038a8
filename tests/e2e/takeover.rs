//! Promise 1 when one daemon takes over from another: a rolling update, a spare.

use std::time::Duration;

use walcast_testkit::{Daemon, Direction, Proxy, TestDatabase, shared_cluster};

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

#[tokio::test]
async fn a_commit_that_comes_after_its_daemon_was_killed_does_not_end_the_one_that_takes_over() {
    let cluster = shared_cluster().await;
    let database = TestDatabase::create(cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let link = Proxy::to(cluster.port()).await;
    let with_history = |url: String| Daemon::of(&database).flag("--history-url", url);
    let mut killed = with_history(database.url_via(&link)).start().await;
    let mut observer = Observer::subscribe(&killed.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let new = with_history(database.url().to_owned()).spawn();
    new.until_log("trying again").await;
    // Partition and definition are there, so that the next commit needs nothing else.
    let stored =
        "SELECT string_agg(key, ' ' ORDER BY lsn, seq) FROM walcast.change_history WHERE table_name = 't'";
    database.run("INSERT INTO t VALUES (0)").await;
    database.until(stored, r#"{"id":0}"#).await;
    // It has moved the position and begins to write when the way to the history becomes long.
    let lock = database.session().await;
    lock.batch_execute("BEGIN; LOCK TABLE walcast.change_history IN EXCLUSIVE MODE").await.unwrap();
    database.run("INSERT INTO t VALUES (1)").await;
    observer.until_transactions(2).await;
    let of_history = "SELECT count(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND application_name = 'walcast history'";
    let waits = format!("{of_history} AND wait_event_type = 'Lock'");
    database.until(&waits, "1").await;
    link.blackhole(Direction::ToServer);
    lock.batch_execute("ROLLBACK").await.unwrap();
    let copies = format!("{of_history} AND query LIKE 'COPY%' AND wait_event = 'ClientRead'");
    database.until(&copies, "1").await;
    // What is sent now cannot be seen from outside; were it not sent, nothing would be tested.
    tokio::time::sleep(Duration::from_millis(200)).await;
    killed.kill9().await;
    // The new one comes to the history before that commit does.
    database.until(&waits, "1").await;
    link.heal();
    new.until_ready().await;
    database.run("INSERT INTO t VALUES (2)").await;
    let mut observer = observer.reconnect(&new.ws_url(), &["public.t"]).await;
    observer.until_transactions(3).await;
    observer.until("caught_up").await;
    assert_eq!(observer.rows("public.t").len(), 3);
    database.until(stored, r#"{"id":0} {"id":1} {"id":2}"#).await;
    assert!(new.log().iter().any(|line| line.contains("set up anew")), "{:?}", new.log());
}

#[tokio::test]
async fn of_two_that_wait_one_takes_over_and_the_other_goes_on_waiting() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemons = vec![Daemon::of(&database).start().await];
    for _ in 0..2 {
        let waiting = Daemon::of(&database).arg("--on-hole").arg("start-over").spawn();
        waiting.until_log("trying again").await;
        daemons.push(waiting);
    }
    let mut ready = 0;
    let mut observer = Observer::subscribe(&daemons[0].ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    for id in 0..2 {
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        observer.until_transactions(id + 1).await;
        daemons.remove(ready).kill9().await;
        ready = walcast_testkit::eventually("another one is ready", 3 * walcast_testkit::LIMIT, async || {
            for (number, daemon) in daemons.iter().enumerate() {
                let answer = daemon.get("/readyz").await;
                if answer.is_some_and(|answer| answer.status == 200) {
                    return Some(number);
                }
            }
            None
        })
        .await;
        observer = observer.reconnect(&daemons[ready].ws_url(), &["public.t"]).await;
        observer.until("caught_up").await;
        assert_eq!(observer.rows("public.t").len(), id + 1);
        assert!(daemons.iter_mut().all(|daemon| !daemon.has_ended()));
    }
}
