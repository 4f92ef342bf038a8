//! A publication that was missing while changes were written, and is there again: only who reads the slot can find that
//! out, so it is kept for all others.

use serde_json::Value;
use walcast_testkit::{
    Cluster, Daemon, Proxy, StopMode, TestDatabase, TestSession, for_each_version, installations,
    shared_cluster_of,
};

use super::client::Client;
use super::promoted::{both, elsewhere, promote, standby_of, until_replayed};
use super::restored::{copy, until_acknowledged};
use super::{daemon_of, finding, ids, source, until_stored, walcast, write_past};
use crate::observer::{open, receive};

const FEED: &str = "SELECT feed_id FROM walcast.feed";
const IS_KEPT: &str = "SELECT hole_at IS NOT NULL FROM walcast.feed";
const REMEDY: &str = "stop walcast first, then run `walcast setup --start-over --yes`";

/// A database with a table, and with a publication that no walcast looks after.
async fn published(cluster: &Cluster) -> TestDatabase {
    let database = TestDatabase::create(cluster).await;
    let publish = publish(&database);
    database.run(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); {publish}")).await;
    database
}

fn publish(database: &TestDatabase) -> String {
    format!("CREATE PUBLICATION {} FOR TABLE t", database.slot_name())
}

/// Takes the publication away, writes, and puts it back.
async fn write_unpublished(database: &TestDatabase, id: i32) {
    database.run(&format!("DROP PUBLICATION {}", database.slot_name())).await;
    database.run(&format!("INSERT INTO t VALUES ({id}, 'swallowed')")).await;
    database.run(&publish(database)).await;
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A hole that was found by a daemon that is gone.
async fn left_with_a_hole(database: &TestDatabase) -> Daemon {
    let mut daemon = daemon_of(database).arg("--no-manage").start().await;
    write_unpublished(database, 2).await;
    daemon.until_metric("walcast_feed_hole", 1.0).await;
    database.until(IS_KEPT, "t").await;
    daemon.terminate().await;
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_only_the_slot_shows_is_said_by_all_who_do_not_read_it_until_it_is_started_over() {
    for_each_version(async |cluster| {
        let database = published(cluster).await;
        let mut daemon = left_with_a_hole(&database).await;
        let run = |arguments: &[&str]| {
            let manage: &[&str] = if arguments[0] == "status" { &[] } else { &["--no-manage"] };
            walcast(&database, database.url(), &[arguments, manage].concat())
        };
        let why = "are missing: a publication was missing when they were written (";

        let examined = run(&["doctor", "--json"]);
        assert_eq!(examined.status.code(), Some(3), "{examined:?}");
        let found = finding(&examined, "feed_hole").expect("a finding");
        let said = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(found["severity"], "error");
        assert!(said("message").starts_with("changes after ") && said("message").contains(why), "{found}");
        assert!(said("fix").starts_with(REMEDY), "{found}");

        let set_up = run(&["setup", "--human"]);
        let words = text(&set_up.stderr);
        assert!(!set_up.status.success() && words.contains(why) && words.contains(REMEDY), "{words}");

        let status = run(&["status", "--human"]);
        let words = text(&status.stdout);
        assert_eq!(status.status.code(), Some(1), "{words}");
        assert!(words.starts_with("state the feed cannot go on: changes are missing"), "{words}");
        assert!(words.contains(why) && words.contains(REMEDY), "{words}");

        // At once, and not only when it has read the slot again.
        daemon.restart_without_waiting();
        assert_eq!(daemon.until_exit().await.code(), Some(1));
        let log = daemon.log();
        assert!(log.iter().any(|line| line.contains(why)), "{log:#?}");
        assert!(log.iter().any(|line| line.contains(REMEDY)), "{log:#?}");
        assert!(
            !log.iter().skip_while(|line| !line.contains(why)).any(|line| line.contains("the slot streams"))
        );

        let before = database.scalar(FEED).await;
        let done = run(&["setup", "--start-over", "--yes"]);
        assert!(done.status.success(), "{done:?}");
        assert_ne!(database.scalar(FEED).await, before);
        assert_eq!(finding(&run(&["doctor", "--json"]), "feed_hole"), None);
        daemon.restart().await;
        let status: Value = serde_json::from_slice(&run(&["status", "--json"]).stdout).expect("a status");
        let problems = status["problems"].to_string();
        assert!(!problems.contains("missing"), "{status}");
        assert_eq!(database.scalar(IS_KEPT).await.as_deref(), Some("f"));
        let client = Client::sync(&daemon.ws_url()).await;
        assert_eq!(client.ids(), [2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_hole_is_in_sight_nobody_is_told_that_the_source_streams() {
    const INTERRUPTIONS: &str = "walcast_replication_interruptions_total";
    for_each_version(async |cluster| {
        let database = published(cluster).await;
        let daemon = daemon_of(&database).arg("--no-manage").start().await;
        let (mut socket, _) = open(&daemon.ws_url()).await;
        write_unpublished(&database, 2).await;
        daemon.until_metric("walcast_feed_hole", 1.0).await;
        let told = tokio::spawn(async move {
            let mut told = Vec::new();
            while let Some(message) = receive(&mut socket).await {
                if message["type"] == "status" {
                    told.push(message["state"].as_str().unwrap_or_default().to_owned());
                }
            }
            told
        });
        let before = daemon.metric(INTERRUPTIONS).await.unwrap_or_default();
        // It tries the slot again, which streams until the server says what is missing.
        daemon.until_metric(INTERRUPTIONS, before + 4.0).await;
        let mut daemon = daemon;
        daemon.terminate().await;
        let told = told.await.expect("what was told");
        let since = told.iter().skip_while(|state| *state != "interrupted");
        assert!(since.clone().next().is_some(), "{told:?}");
        assert!(since.clone().all(|state| state == "interrupted"), "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_is_kept_is_started_over_by_itself_where_that_is_asked_for() {
    for_each_version(async |cluster| {
        let database = published(cluster).await;
        left_with_a_hole(&database).await;
        let before = database.scalar(FEED).await;
        let daemon = daemon_of(&database).arg("--no-manage").flag("--on-hole", "start-over").start().await;
        daemon.until_log("the feed is started over").await;
        // Not only when it has read the slot again.
        let log = daemon.log();
        let mut before_that = log.iter().take_while(|line| !line.contains("the feed is started over"));
        assert!(!before_that.any(|line| line.contains("the slot streams")), "{log:#?}");
        assert_ne!(database.scalar(FEED).await, before);
        assert_eq!(database.scalar(IS_KEPT).await.as_deref(), Some("f"));
        assert_eq!(Client::sync(&daemon.ws_url()).await.ids(), [2]);
        assert_eq!(daemon.metric("walcast_feed_hole").await.unwrap_or(0.0), 0.0);
    })
    .await;
}

/// Nothing is lost as long as nothing was written: then nothing is kept. With history elsewhere, as walcast writes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_was_missing_while_nothing_was_written_leaves_no_hole() {
    for_each_version(async |cluster| {
        let (database, history) = (published(cluster).await, TestDatabase::create(cluster).await);
        let daemon =
            daemon_of(&database).arg("--no-manage").flag("--history-url", history.url()).start().await;
        let mut client = Client::sync(&daemon.ws_url()).await;
        database.run(&format!("DROP PUBLICATION {}", database.slot_name())).await;
        database.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active").await;
        daemon.until_log("does not exist").await;
        database.run(&publish(&database)).await;
        daemon.until_log("the slot streams again").await;
        database.run("INSERT INTO t VALUES (2, 'b')").await;
        client.catch_up(&daemon.ws_url()).await.expect("it goes on");
        assert_eq!(client.ids(), [2]);
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
        assert_eq!(daemon.metric("walcast_feed_hole").await.unwrap_or(0.0), 0.0);
    })
    .await;
}

/// Who names another publication by mistake finds a hole that is none for the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_of_other_publications_than_those_that_are_asked_for_is_not_held_against_the_feed() {
    for_each_version(async |cluster| {
        let database = published(cluster).await;
        let mut right = daemon_of(&database).arg("--no-manage").start().await;
        let mut client = Client::sync(&right.ws_url()).await;
        right.terminate().await;
        database.run("INSERT INTO t VALUES (2, 'b')").await;
        let other = database.unique("other");
        database.run(&format!("CREATE PUBLICATION {other} FOR TABLE t")).await;
        let wrong = ["--no-manage", "--publication", &other];
        let builder = daemon_of(&database).arg("--no-manage").flag("--publication", &other);
        let mut mistaken = builder.spawn();
        database.until(IS_KEPT, "t").await;
        mistaken.terminate().await;
        let name = database.slot_name();
        let of = ["--database-url", database.url(), "--slot", &name, "--json"];
        let examined = walcast_testkit::run(["doctor"].iter().chain(&wrong).chain(&of));
        assert!(finding(&examined, "feed_hole").is_some(), "{examined:?}");
        let examined = walcast(&database, database.url(), &["doctor", "--json", "--no-manage"]);
        assert_eq!(finding(&examined, "feed_hole"), None);
        right.restart().await;
        client.catch_up(&right.ws_url()).await.expect("nothing is missing");
        assert_eq!(client.ids(), [2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_is_found_while_history_is_away_is_kept_when_it_is_back() {
    for_each_version(async |cluster| {
        let database = published(cluster).await;
        let shared = shared_cluster_of(cluster.installation()).await;
        let (history, link) = (TestDatabase::create(shared).await, Proxy::to(shared.port()).await);
        let daemon = daemon_of(&database)
            .arg("--no-manage")
            .flag("--history-url", history.url_via(&link))
            .start()
            .await;
        link.refuse(true);
        link.cut();
        write_unpublished(&database, 2).await;
        daemon.until_log("that changes are missing is not recorded yet").await;
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
        link.heal();
        history.until(IS_KEPT, "t").await;
        let complete = "SELECT hole_lsn >= position_lsn FROM walcast.feed";
        assert_eq!(history.scalar(complete).await.as_deref(), Some("t"));
    })
    .await;
}

/// A standby that was not there yet when the publication went takes over: in its life nothing is missing.
#[tokio::test]
async fn a_hole_in_a_life_of_the_source_that_was_left_before_it_is_over() {
    for installation in installations() {
        let (primary, database) = source(&installation).await;
        let history = elsewhere(&installation).await;
        database.run(&publish(&database)).await;
        let daemon = |url: &str| {
            let daemon = daemon_of(&database).arg("--no-manage").flag("--history-url", history.url());
            daemon.flag("--database-url", url)
        };
        daemon(database.url()).start().await.terminate().await;
        // Its files have the slot.
        let standby = standby_of(&primary, &[]).await;
        let url = both(&database, &primary, &standby);
        let mut daemon = daemon(&url).start().await;
        let mut client = Client::sync(&daemon.ws_url()).await;
        let here = database.session().await;
        let there = TestSession::connect(&standby.url(database.name())).await;
        until_replayed(&here, &there).await;
        drop(there);
        standby.stop(StopMode::Fast).await.expect("a stop");
        here.batch_execute("INSERT INTO t VALUES (3, 'lost')").await.expect("a row");
        let mut late = client.clone();
        late.catch_up(&daemon.ws_url()).await.expect("a row");
        until_stored(history.url(), &late).await;
        write_unpublished(&database, 4).await;
        history.until(IS_KEPT, "t").await;
        let doctor = || {
            let rest = ["doctor", "--json", "--no-manage", "--history-url", history.url()];
            walcast(&database, &url, &rest)
        };
        assert!(finding(&doctor(), "feed_hole").is_some());
        daemon.terminate().await;
        primary.kill9().await.expect("an end");
        standby.start().await.expect("a start");
        let there = TestSession::connect(&standby.url(database.name())).await;
        promote(&there).await;
        write_past(&there, 100).await;
        assert_eq!(finding(&doctor(), "feed_hole"), None);
        daemon.restart().await;
        client.catch_up(&daemon.ws_url()).await.expect("it has nothing that was lost");
        assert_eq!(client.ids(), ids(&there).await);
        assert_eq!(late.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()));
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
    }
}

/// It is promoted after the last thing that the feed has had, and before the publication went.
#[tokio::test]
async fn a_hole_that_was_written_after_the_source_s_life_was_left_is_over_wherever_the_feed_stood() {
    for installation in installations() {
        let (primary, database) = source(&installation).await;
        let history = elsewhere(&installation).await;
        database.run(&publish(&database)).await;
        let daemon = |url: &str| {
            let daemon = daemon_of(&database).arg("--no-manage").flag("--history-url", history.url());
            daemon.flag("--database-url", url)
        };
        daemon(database.url()).start().await.terminate().await;
        let standby = standby_of(&primary, &[]).await;
        let url = both(&database, &primary, &standby);
        let mut daemon = daemon(&url).start().await;
        let mut client = Client::sync(&daemon.ws_url()).await;
        daemon.terminate().await;
        let here = database.session().await;
        // Nothing that the feed is told of.
        here.batch_execute("SELECT pg_switch_wal()").await.expect("a switch");
        let there = TestSession::connect(&standby.url(database.name())).await;
        until_replayed(&here, &there).await;
        drop(there);
        standby.stop(StopMode::Fast).await.expect("a stop");
        // As one transaction: before 18 the one that drops it would take the feed further.
        let drop = format!("DROP PUBLICATION {}", database.slot_name());
        database.run(&format!("{drop}; INSERT INTO t VALUES (4, 'swallowed'); {}", publish(&database))).await;
        daemon.restart_without_waiting();
        history.until(IS_KEPT, "t").await;
        daemon.terminate().await;
        let complete_to = history.scalar("SELECT hole_lsn FROM walcast.feed").await.expect("a position");
        primary.kill9().await.expect("an end");
        standby.start().await.expect("a start");
        let there = TestSession::connect(&standby.url(database.name())).await;
        let left = format!("SELECT pg_last_wal_replay_lsn() > '{complete_to}'");
        assert_eq!(there.scalar(&left).await.as_deref(), Some("t"), "not what this test is about");
        promote(&there).await;
        write_past(&there, 100).await;
        let rest = ["doctor", "--json", "--no-manage", "--history-url", history.url()];
        assert_eq!(finding(&walcast(&database, &url, &rest), "feed_hole"), None);
        daemon.restart().await;
        client.catch_up(&daemon.ws_url()).await.expect("nothing is missing");
        assert_eq!(client.ids(), ids(&there).await);
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
    }
}

/// The files of the source from before the publication went are back, and applications have written past the feed's
/// position: only what the slot sends again shows that they live another life.
#[tokio::test]
async fn a_hole_that_a_restore_has_undone_neither_ends_a_daemon_nor_starts_its_feed_over() {
    for (installation, on_hole) in
        installations().into_iter().flat_map(|found| [(found.clone(), "stop"), (found, "start-over")])
    {
        let (cluster, database) = source(&installation).await;
        let history = elsewhere(&installation).await;
        database.run(&publish(&database)).await;
        let daemon = |url: &str| {
            let daemon = daemon_of(&database).arg("--no-manage").flag("--history-url", history.url());
            daemon.flag("--database-url", url)
        };
        let mut before = daemon(database.url()).start().await;
        database.run("INSERT INTO t VALUES (2, 'b')").await;
        let mut early = Client::sync(&before.ws_url()).await;
        database.run("INSERT INTO t VALUES (3, 'c')").await;
        let mut last = early.clone();
        last.catch_up(&before.ws_url()).await.unwrap();
        until_acknowledged(&database, &last).await;
        let restored = copy(&cluster).await;
        before.until_log("the server was started again, and has what it had").await;
        database.run("INSERT INTO t VALUES (4, 'of the other life')").await;
        let mut late = last.clone();
        late.catch_up(&before.ws_url()).await.unwrap();
        until_stored(history.url(), &late).await;
        write_unpublished(&database, 5).await;
        history.until(IS_KEPT, "t").await;
        before.terminate().await;
        cluster.stop(StopMode::Fast).await.unwrap();

        let url = restored.url(database.name());
        let there = TestSession::connect(&url).await;
        write_past(&there, 100).await;
        let after = daemon(&url).flag("--on-hole", on_hole).start().await;
        early.catch_up(&after.ws_url()).await.expect("all that it has is there");
        assert_eq!(early.ids(), ids(&there).await, "{on_hole}");
        assert_eq!(late.catch_up(&after.ws_url()).await, Err("feed_changed".to_owned()));
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
        let log = after.log();
        assert!(!log.iter().any(|line| line.contains("the feed is started over")), "{log:#?}");
        let undone = history.scalar("SELECT count(*) FROM walcast.lost_change").await;
        assert_eq!(undone.as_deref(), Some("1"), "history has the rest: {log:#?}");
    }
}

/// A source that was started again while nobody watched is not proven: its slot says whether anything is missing.
#[tokio::test]
async fn after_a_start_of_the_source_the_slot_is_read_before_a_hole_counts() {
    for installation in installations() {
        let (cluster, database) = source(&installation).await;
        let history = elsewhere(&installation).await;
        database.run(&publish(&database)).await;
        let daemon = |on_hole: &str| {
            let daemon = daemon_of(&database).arg("--no-manage").flag("--history-url", history.url());
            daemon.flag("--on-hole", on_hole)
        };
        let mut is_told = daemon("stop").start().await;
        let mut client = Client::sync(&is_told.ws_url()).await;
        is_told.terminate().await;
        // As a restore leaves it that undid nothing else.
        history
            .run(&format!(
                "UPDATE walcast.feed SET hole_at = now(), hole_lsn = position_lsn, hole_publication = '{}', hole_reason = 'x'",
                database.slot_name()
            ))
            .await;
        cluster.restart(StopMode::Fast).await.unwrap();
        is_told.restart().await;
        history.until(IS_KEPT, "f").await;
        database.run("INSERT INTO t VALUES (2, 'b')").await;
        client.catch_up(&is_told.ws_url()).await.expect("nothing is missing");
        assert_eq!(client.ids(), [1, 2]);

        write_unpublished(&database, 3).await;
        history.until(IS_KEPT, "t").await;
        is_told.terminate().await;
        cluster.restart(StopMode::Fast).await.unwrap();
        is_told.restart_without_waiting();
        is_told.until_metric("walcast_feed_hole", 1.0).await;
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("t"));
        is_told.terminate().await;
        let over = daemon("start-over").start().await;
        over.until_log("the feed is started over").await;
        assert_eq!(Client::sync(&over.ws_url()).await.ids(), [1, 2, 3]);
        assert_eq!(history.scalar(IS_KEPT).await.as_deref(), Some("f"));
    }
}
