//! Promise 1 when one daemon takes over from another: a rolling update, a spare.

use walcast_testkit::{Daemon, Direction, Proxy, TestDatabase, own_cluster, shared_cluster};

use crate::observer::Observer;

fn has(bytes: &[u8], fragment: &[u8]) -> bool {
    bytes.windows(fragment.len()).any(|window| window == fragment)
}

#[tokio::test]
async fn a_daemon_that_starts_beside_another_waits_and_takes_over_without_a_gap() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut old = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&old.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let new = Daemon::of(&database).spawn();
    // Who has it is said, and that one that works is not to be ended.
    let line = new.until_log("is in use by process").await;
    for part in
        ["walcast replication", ", since 2", "there is nothing to do", "Only if its client is gone for good"]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
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
    link.until_held(Direction::ToServer, "the row and its commit", |bytes| {
        has(bytes, br#"{"id":1}"#) && has(bytes, b"COMMIT")
    })
    .await;
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

/// Drops the slot under whoever reads it.
async fn drop_slot(database: &TestDatabase) {
    let slot = database.slot_name();
    database
        .run(&format!(
            "DO $$ BEGIN FOR try IN 1..1000 LOOP BEGIN
                 PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}';
                 PERFORM pg_drop_replication_slot('{slot}');
                 EXIT;
             EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.01);
             END; END LOOP; END $$"
        ))
        .await;
}

const FEED: &str = "SELECT feed_id FROM walcast.feed";

/// Of two that find the hole one cannot start over, and waits for as long as the other one serves.
#[tokio::test]
async fn a_hole_that_another_daemon_has_started_over_from_is_none_for_the_one_that_takes_over() {
    let cluster = shared_cluster().await;
    let database = TestDatabase::create(cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let link = Proxy::to(cluster.port()).await;
    let daemon =
        |url: String| Daemon::of(&database).flag("--on-hole", "start-over").flag("--history-url", url);
    let waits = daemon(database.url_via(&link)).flag("--grace", "1s").start().await;
    let mut serves = daemon(database.url().to_owned()).spawn();
    serves.until_log("is in use").await;
    link.refuse(true);
    link.cut();
    drop_slot(&database).await;
    waits.until_log("end=Hole").await;
    waits.until_log("not set up yet").await;
    serves.until_ready().await;
    let mut observer = Observer::subscribe(&serves.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    database.run("INSERT INTO t VALUES (1)").await;
    let stored = "SELECT count(*) FROM walcast.change_history WHERE table_name = 't'";
    database.until(stored, "1").await;
    let feed = database.scalar(FEED).await;
    link.heal();
    waits.until_log("is in use").await;
    serves.kill9().await;
    waits.until_ready().await;
    assert_eq!(database.scalar(FEED).await, feed);
    assert_eq!(database.scalar(stored).await.as_deref(), Some("1"));
    let mut observer = observer.reconnect(&waits.ws_url(), &["public.t"]).await;
    observer.until("caught_up").await;
    assert_eq!(observer.rows("public.t").len(), 1);
}

/// The same, of a server that does not send again what it sent before: what is set aside is set aside once.
#[tokio::test]
async fn a_difference_that_another_daemon_has_gone_on_from_is_none_for_the_one_that_takes_over() {
    let shared = shared_cluster().await;
    let cluster = own_cluster(shared.installation()).await;
    let database = TestDatabase::create(&cluster).await;
    let history = TestDatabase::create(shared).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (to_source, to_history) = (Proxy::to(cluster.port()).await, Proxy::to(shared.port()).await);
    let waits = Daemon::of(&database)
        .flag("--database-url", database.url_via(&to_source))
        .flag("--history-url", history.url_via(&to_history))
        .flag("--grace", "1s")
        .start()
        .await;
    // After it nothing needs to be asked about the table.
    database.run("INSERT INTO t VALUES (0)").await;
    let stored = "SELECT count(*) FROM walcast.change_history WHERE table_name = 't'";
    history.until(stored, "1").await;
    // This is not acknowledged, so the server sends it again.
    to_source.blackhole(Direction::ToServer);
    database.run("INSERT INTO t VALUES (1)").await;
    history.until(stored, "2").await;
    to_source.refuse(true);
    cluster.kill9().await.expect("an end");
    cluster.start().await.expect("a start");
    // As if the server were another than the one that had sent it.
    history.run("UPDATE walcast.change_history SET xid = xid + 1 WHERE key = '{\"id\":1}'").await;
    let lock = database.session().await;
    lock.batch_execute("BEGIN; LOCK TABLE pg_publication_rel IN ACCESS EXCLUSIVE MODE").await.unwrap();
    to_source.heal();
    let decodes =
        "SELECT bool_or(backend_type = 'walsender' AND wait_event_type = 'Lock') FROM pg_stat_activity";
    database.until(decodes, "t").await;
    // It knows what it is to be sent. When it finds that it is not, the history is away.
    to_history.refuse(true);
    to_history.cut();
    lock.batch_execute("ROLLBACK").await.unwrap();
    waits.until_log("end=Differs").await;
    waits.until_log("not set up yet").await;
    let mut serves = Daemon::of(&database).flag("--history-url", history.url()).start().await;
    let lost = "SELECT count(*) FROM walcast.lost_change";
    assert_eq!(history.scalar(lost).await.as_deref(), Some("1"));
    database.run("INSERT INTO t VALUES (2)").await;
    history.until(stored, "3").await;
    let feed = history.scalar(FEED).await;
    to_history.heal();
    waits.until_log("is in use").await;
    serves.kill9().await;
    waits.until_ready().await;
    assert_eq!(history.scalar(FEED).await, feed);
    assert_eq!(history.scalar(lost).await.as_deref(), Some("1"));
    assert_eq!(history.scalar(stored).await.as_deref(), Some("3"));
}

/// What is logged of a hole, and of how to begin another feed.
fn orders(daemon: &Daemon) -> Vec<String> {
    let orders = |line: &String| line.contains("--start-over") || line.contains("end=Hole");
    daemon.log().into_iter().filter(orders).collect()
}

/// A person starts the feed over while a daemon is there that does not read the slot. What it finds then is no hole of the
/// feed that there is now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_somebody_has_started_over_is_taken_up_and_not_started_over_again() {
    let cluster = shared_cluster().await;
    for on_hole in ["stop", "start-over"] {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let link = Proxy::to(cluster.port()).await;
        let daemon = Daemon::of(&database)
            .flag("--database-url", database.url_via(&link))
            .flag("--history-url", database.url())
            .flag("--on-hole", on_hole)
            .flag("--drain-max", "100ms")
            .start()
            .await;
        let before = database.scalar(FEED).await;
        link.refuse(true);
        link.cut();
        daemon.until_log("the slot does not stream").await;
        let setup = ["setup", "--start-over", "--yes"];
        walcast_testkit::eventually("a setup", walcast_testkit::LIMIT, async || {
            crate::upkeep::walcast(&database, &setup).status.success().then_some(())
        })
        .await;
        let feed = database.scalar(FEED).await.expect("a feed");
        assert_ne!(Some(&feed), before.as_ref());
        link.heal();
        walcast_testkit::eventually("the new feed is served", walcast_testkit::LIMIT, async || {
            let health: serde_json::Value = serde_json::from_str(&daemon.get("/readyz").await?.body).ok()?;
            (health["ready"] == true && health["feed"]["id"] == feed.as_str()).then_some(())
        })
        .await;
        assert_eq!(orders(&daemon), [] as [&str; 0], "{on_hole}");
        assert_eq!(database.scalar(FEED).await, Some(feed));
    }
}

/// While a feed is started over its slot is gone for a moment.
#[tokio::test]
async fn a_slot_that_is_gone_while_somebody_sets_the_feed_up_is_waited_for() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database).flag("--on-hole", "start-over").start().await;
    let setup = database.session().await;
    setup
        .batch_execute("SELECT pg_advisory_lock(hashtext('walcast'), hashtext('setup'))")
        .await
        .expect("a setup's lock");
    drop_slot(&database).await;
    daemon.until_log("is being set up by another walcast").await;
    assert_eq!(orders(&daemon), [] as [&str; 0]);
    // It has ended without another feed.
    drop(setup);
    daemon.until_log("end=Hole").await;
    daemon.until_log("the feed is started over").await;
    daemon.until_ready().await;
}
