//! A standby takes over.

use walcast_testkit::{
    Cluster, Installation, StopMode, TestDatabase, TestSession, cluster_builder, installations,
    shared_cluster_of,
};

use super::client::Client;
use super::{daemon_of, finding, ids, source, until, until_stored, walcast, write_past};

/// Both hosts, of which walcast takes the one that can be written to.
pub(super) fn both(database: &TestDatabase, one: &Cluster, other: &Cluster) -> String {
    let (one, other, name) = (one.port(), other.port(), database.name());
    format!("postgresql://postgres@127.0.0.1:{one},127.0.0.1:{other}/{name}?target_session_attrs=read-write")
}

/// Where history is kept in a test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum History {
    /// With the source: it goes where the source goes.
    Same,
    /// In another cluster: it stays as it is.
    Other,
}

pub(super) async fn elsewhere(installation: &Installation) -> TestDatabase {
    TestDatabase::create(shared_cluster_of(installation).await).await
}

/// A standby of the server, made while it is down; settings of its own.
pub(super) async fn standby_of(primary: &Cluster, settings: &[(&str, &str)]) -> Cluster {
    primary.stop(StopMode::Fast).await.expect("a stop");
    let mut builder = cluster_builder(primary.installation())
        .standby_of(primary)
        .setting("wal_retrieve_retry_interval", "100ms");
    for (name, value) in settings {
        builder = builder.setting(name, value);
    }
    let standby = builder.start().await.expect("a standby");
    primary.start().await.expect("a start");
    standby
}

/// Waits until the standby has replayed all that the primary has now.
pub(super) async fn until_replayed(primary: &TestSession, standby: &TestSession) {
    let end = primary.scalar("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    until(standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")).await;
}

pub(super) async fn promote(standby: &TestSession) {
    standby.batch_execute("SELECT pg_promote(true, 30)").await.expect("a promotion");
    until(standby, "SELECT NOT pg_is_in_recovery()").await;
}

/// The server sends its slot's copy to the standby, which is behind by nothing when the primary dies.
#[tokio::test]
async fn a_standby_with_a_failover_slot_goes_on_without_a_gap() {
    for installation in installations().into_iter().filter(|found| found.version().major >= 17) {
        for place in [History::Same, History::Other] {
            let (primary, database) = source(&installation).await;
            database.run("SELECT pg_create_physical_replication_slot('standby', true)").await;
            let conninfo = format!(
                "host={} port={} user=postgres dbname=postgres application_name=standby",
                primary.socket_directory().display(),
                primary.port()
            );
            let standby = standby_of(
                &primary,
                &[
                    ("primary_conninfo", &conninfo),
                    ("primary_slot_name", "standby"),
                    ("hot_standby_feedback", "on"),
                    ("wal_receiver_status_interval", "1s"),
                ],
            )
            .await;
            let history = elsewhere(&installation).await;
            let url = both(&database, &primary, &standby);
            let mut daemon = daemon_of(&database).flag("--database-url", &url);
            if place == History::Other {
                daemon = daemon.flag("--history-url", history.url());
            }
            let daemon = daemon.start().await;
            database.run("INSERT INTO t VALUES (2, 'b')").await;
            let mut client = Client::sync(&daemon.ws_url()).await;
            let feed = client.feed.clone();
            let there = TestSession::connect(&standby.url(database.name())).await;
            let name = database.slot_name();
            // A copy of the slot is of use once it is no longer temporary.
            let copied = format!(
                "SELECT coalesce(bool_or(synced AND NOT temporary AND confirmed_flush_lsn >= '{}'), false)
                 FROM pg_replication_slots WHERE slot_name = '{name}'",
                client.lsn()
            );
            // A worker that found no primary at its start would pause for 10 s. A running-xacts record lets the copy
            // catch up.
            standby.configure(&[("sync_replication_slots", "on")]).unwrap();
            there.batch_execute("SELECT pg_reload_conf()").await.unwrap();
            let here = database.session().await;
            let mut next = 2;
            walcast_testkit::eventually("the slot's copy", 3 * walcast_testkit::LIMIT, async || {
                next += 1;
                here.batch_execute(&format!("INSERT INTO t VALUES ({next}, 'c')")).await.unwrap();
                here.batch_execute("SELECT pg_log_standby_snapshot()").await.unwrap();
                (there.scalar(&copied).await.as_deref() == Some("t")).then_some(())
            })
            .await;
            client.catch_up(&daemon.ws_url()).await.unwrap();
            until_replayed(&here, &there).await;
            primary.kill9().await.unwrap();
            promote(&there).await;
            there.batch_execute("INSERT INTO t VALUES (1000, 'after')").await.unwrap();
            daemon.until_log("the feed goes on as another one").await;
            daemon.until_ready().await;
            client.catch_up(&daemon.ws_url()).await.expect("no new sync");
            assert_eq!(client.ids(), ids(&there).await, "{place:?}");
            assert_ne!(client.feed, feed, "a cursor of the new feed may be good there alone");
            assert!(daemon.metric("walcast_feed_ended_total").await.is_some_and(|ended| ended >= 1.0));
            assert_eq!(daemon.metric("walcast_feed_lost_changes_total").await.unwrap_or(0.0), 0.0);
        }
    }
}

/// What is lost in an asynchronous failover was delivered, and the new primary writes at the same positions. The slot is
/// there because the standby's files had it.
#[tokio::test]
async fn case_66_who_has_what_a_promoted_standby_lacks_is_told_and_who_has_not_goes_on() {
    for installation in installations() {
        for place in [History::Same, History::Other] {
            let (primary, database) = source(&installation).await;
            let history = elsewhere(&installation).await;
            let mut first = daemon_of(&database);
            if place == History::Other {
                first = first.flag("--history-url", history.url());
            }
            let mut first = first.start().await;
            first.terminate().await;
            let standby = standby_of(&primary, &[]).await;
            let url = both(&database, &primary, &standby);
            let mut daemon = daemon_of(&database).flag("--database-url", &url);
            if place == History::Other {
                daemon = daemon.flag("--history-url", history.url());
            }
            let daemon = daemon.start().await;
            let here = database.session().await;
            here.batch_execute("INSERT INTO t VALUES (2, 'b')").await.unwrap();
            let mut early = Client::sync(&daemon.ws_url()).await;
            until_stored(if place == History::Same { database.url() } else { history.url() }, &early).await;
            let there = TestSession::connect(&standby.url(database.name())).await;
            until_replayed(&here, &there).await;
            drop(there);
            standby.stop(StopMode::Fast).await.unwrap();
            here.batch_execute("INSERT INTO t VALUES (3, 'lost')").await.unwrap();
            let mut late = early.clone();
            late.catch_up(&daemon.ws_url()).await.unwrap();
            assert_eq!(late.ids(), [1, 2, 3]);
            until_stored(if place == History::Same { database.url() } else { history.url() }, &late).await;
            primary.kill9().await.unwrap();
            standby.start().await.unwrap();
            let there = TestSession::connect(&standby.url(database.name())).await;
            promote(&there).await;
            // Past every position of the other life, so that none shows it.
            write_past(&there, 100).await;
            daemon.until_log("reason=\"promoted\"").await;
            daemon.until_log(if place == History::Same { "goes on as another" } else { "set aside" }).await;
            daemon.until_ready().await;
            early.catch_up(&daemon.ws_url()).await.expect("it has nothing that was lost");
            assert_eq!(early.ids(), ids(&there).await, "{place:?}");
            assert_eq!(late.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()), "{place:?}");
            let late = Client::sync(&daemon.ws_url()).await;
            assert_eq!(late.ids(), ids(&there).await);
            // What was lost is kept for people, where it was not lost with the history.
            let (kept, count) = ("SELECT count(*) FROM walcast.lost_change", place == History::Other);
            let kept = if count { history.scalar(kept).await } else { there.scalar(kept).await };
            assert_eq!(kept, Some(u8::from(count).to_string()));
            if place == History::Other {
                // The old primary comes back: nothing of it enters the feed.
                drop(daemon);
                primary.start().await.unwrap();
                let old = database.url();
                let mut stray = daemon_of(&database).flag("--history-url", history.url()).spawn();
                stray.until_log("does not follow the timeline").await;
                assert_eq!(stray.until_exit().await.code(), Some(1));
                let examined = walcast(&database, old, &["doctor", "--json", "--history-url", history.url()]);
                assert_eq!(finding(&examined, "identity").expect("a finding")["severity"], "error");
            }
        }
    }
}

/// The standby was made before the slot: changes may be missing. Said, and mended by one command, or by itself.
#[tokio::test]
async fn a_standby_without_the_slot_stops_the_feed_until_it_is_started_over() {
    for installation in installations() {
        for by_itself in [false, true] {
            let (primary, database) = source(&installation).await;
            let standby = standby_of(&primary, &[]).await;
            let url = both(&database, &primary, &standby);
            let mut builder = daemon_of(&database).flag("--database-url", &url).arg("--no-slot-failover");
            if by_itself {
                builder = builder.flag("--on-hole", "start-over");
            }
            let mut daemon = builder.start().await;
            let mut client = Client::sync(&daemon.ws_url()).await;
            let feed = client.feed.clone();
            let here = database.session().await;
            let there = TestSession::connect(&standby.url(database.name())).await;
            until_replayed(&here, &there).await;
            primary.kill9().await.unwrap();
            promote(&there).await;
            there.batch_execute("INSERT INTO t VALUES (5, 'e')").await.unwrap();
            if by_itself {
                daemon.until_log("the feed is started over").await;
                daemon.until_ready().await;
            } else {
                daemon.until_metric("walcast_feed_hole", 1.0).await;
                let ready = daemon.get("/readyz").await.unwrap();
                assert!(ready.body.contains("walcast setup --start-over"), "{}", ready.body);
                let examined = walcast(&database, &url, &["doctor", "--json"]);
                let found = finding(&examined, "slot").expect("a finding");
                assert!(found["fix"].as_str().is_some_and(|fix| fix.contains("--start-over")), "{found}");
                daemon.terminate().await;
                let done = walcast(&database, &url, &["setup", "--start-over", "--yes"]);
                assert!(done.status.success(), "{done:?}");
                daemon.restart().await;
            }
            assert_eq!(client.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()));
            let mut client = Client::sync(&daemon.ws_url()).await;
            assert_ne!(client.feed, feed);
            there.batch_execute("INSERT INTO t VALUES (6, 'f')").await.unwrap();
            client.catch_up(&daemon.ws_url()).await.unwrap();
            assert_eq!(client.ids(), ids(&there).await);
            assert_eq!(daemon.metric("walcast_feed_hole").await.unwrap_or(0.0), 0.0);
        }
    }
}
