//! Slots that are given up, rows of history that are gone.

use walcast_testkit::{cluster_builder, installations};

use super::client::Client;
use super::{daemon_of, finding, ids, source, until, walcast};

/// The newest rows were deleted by hand. The position says more than there is.
#[tokio::test]
async fn rows_that_are_missing_from_history_are_found_at_the_start_and_never_served_over() {
    let installation = installations().pop().expect("a Postgres");
    let (_cluster, database) = source(&installation).await;
    let mut daemon = daemon_of(&database).start().await;
    let mut early = Client::sync(&daemon.ws_url()).await;
    for id in 2..6 {
        database.run(&format!("INSERT INTO t VALUES ({id}, 'b')")).await;
    }
    let mut late = early.clone();
    late.catch_up(&daemon.ws_url()).await.unwrap();
    daemon.terminate().await;
    database.run("DELETE FROM walcast.change_history WHERE key = '{\"id\":5}'").await;
    let examined = walcast(&database, database.url(), &["doctor", "--json"]);
    assert_eq!(finding(&examined, "history_rows").expect("a finding")["severity"], "error");
    daemon.restart().await;
    daemon.until_log("rows of change_history are missing").await;
    assert_eq!(early.catch_up(&daemon.ws_url()).await, Err("cursor_too_old".to_owned()));
    database.run("INSERT INTO t VALUES (9, 'c')").await;
    late.catch_up(&daemon.ws_url()).await.expect("it lacks nothing of what is gone");
    assert_eq!(late.ids(), ids(&database.session().await).await);
    let examined = walcast(&database, database.url(), &["doctor", "--json"]);
    assert_eq!(finding(&examined, "history_rows"), None);
}

/// Everything was deleted while the daemon runs. What it stores next must not hide that.
#[tokio::test]
async fn rows_that_go_missing_while_the_daemon_runs_are_never_served_over() {
    for installation in installations() {
        let (_cluster, database) = source(&installation).await;
        let mut daemon = daemon_of(&database).start().await;
        let mut early = Client::sync(&daemon.ws_url()).await;
        for id in 2..6 {
            database.run(&format!("INSERT INTO t VALUES ({id}, 'b')")).await;
        }
        let mut late = early.clone();
        late.catch_up(&daemon.ws_url()).await.unwrap();
        // It has nothing in memory any more.
        daemon.terminate().await;
        daemon.restart().await;
        database.run("TRUNCATE walcast.change_history").await;
        database.run("INSERT INTO t VALUES (9, 'c')").await;
        // Only once the feed is set up anew.
        database.until("SELECT count(*) FROM walcast.change_history", "1").await;
        daemon.until_log("rows of change_history are missing").await;
        daemon.until_ready().await;
        assert_eq!(early.catch_up(&daemon.ws_url()).await, Err("cursor_too_old".to_owned()));
        late.catch_up(&daemon.ws_url()).await.expect("it lacks nothing of what is gone");
        assert_eq!(late.ids(), ids(&database.session().await).await);
        let examined = walcast(&database, database.url(), &["doctor", "--json"]);
        assert_eq!(finding(&examined, "history_rows"), None);
    }
}

/// 18 gives a slot up that nobody reads for too long.
#[tokio::test]
async fn a_slot_that_timed_out_is_named_and_started_over_by_itself_where_that_is_asked_for() {
    for installation in installations().into_iter().filter(|found| found.version().major >= 18) {
        let builder = cluster_builder(&installation).setting("idle_replication_slot_timeout", "1s");
        let cluster = builder.start().await.unwrap();
        let database = walcast_testkit::TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        let mut daemon = daemon_of(&database).start().await;
        let mut client = Client::sync(&daemon.ws_url()).await;
        daemon.terminate().await;
        let session = database.session().await;
        walcast_testkit::eventually("the end of the slot", walcast_testkit::LIMIT, async || {
            session.batch_execute("CHECKPOINT").await.unwrap();
            let reason = session.scalar("SELECT invalidation_reason FROM pg_replication_slots").await;
            (reason.as_deref() == Some("idle_timeout")).then_some(())
        })
        .await;
        until(&session, "SELECT wal_status = 'lost' FROM pg_replication_slots").await;
        daemon.restart_without_waiting();
        assert_eq!(daemon.until_exit().await.code(), Some(1));
        daemon.until_log("is lost (idle_timeout)").await;
        daemon.until_log("walcast setup --start-over").await;
        let daemon = daemon_of(&database).flag("--on-hole", "start-over").start().await;
        assert_eq!(client.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()));
        assert!(daemon.metric("walcast_feed_ended_total").await.is_some_and(|ended| ended >= 1.0));
    }
}
