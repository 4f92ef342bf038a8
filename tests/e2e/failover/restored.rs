//! The server's files are replaced by older ones: a volume that was restored, a machine that was set back.

use walcast_testkit::{
    Cluster, StopMode, TestDatabase, TestSession, cluster_builder, installations, shared_cluster_of,
};

use super::client::Client;
use super::{daemon_of, finding, ids, source, until, until_stored, walcast, write_past};

/// A copy of the server's files as they are now, as a server of its own. The original goes on.
pub(super) async fn copy(cluster: &Cluster) -> Cluster {
    cluster.stop(StopMode::Fast).await.expect("a stop");
    let copy = cluster_builder(cluster.installation()).copy_of(cluster).start().await.expect("a copy");
    cluster.start().await.expect("a start");
    copy
}

pub(super) async fn until_acknowledged(database: &TestDatabase, client: &Client) {
    let sql = format!(
        "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{}'",
        client.lsn(),
        database.slot_name()
    );
    until(&database.session().await, &sql).await;
}

/// The files have the history too, and the server has written past the client's cursor before walcast comes: no position
/// and nothing on the server shows it.
#[tokio::test]
async fn case_70_a_restored_volume_with_its_history_that_was_written_past_the_clients_cursor() {
    for (installation, is_checkpointed) in
        installations().into_iter().flat_map(|found| [(found.clone(), false), (found, true)])
    {
        let (cluster, database) = source(&installation).await;
        let mut daemon = daemon_of(&database).start().await;
        database.run("INSERT INTO t VALUES (2, 'b')").await;
        let mut early = Client::sync(&daemon.ws_url()).await;
        until_stored(database.url(), &early).await;
        let restored = copy(&cluster).await;
        // The daemon was there when the server was started again: it knows that nothing was lost.
        daemon.until_log("the server was started again, and has what it had").await;
        database.run("INSERT INTO t VALUES (3, 'of the other life')").await;
        let mut late = early.clone();
        late.catch_up(&daemon.ws_url()).await.unwrap();
        database.run("INSERT INTO t SELECT g, 'z' FROM generate_series(4, 60) g").await;
        let mut later = late.clone();
        later.catch_up(&daemon.ws_url()).await.unwrap();
        assert_eq!((later.ids.len(), &later.feed), (60, &early.feed));
        daemon.terminate().await;

        let there = TestSession::connect(&restored.url(database.name())).await;
        if is_checkpointed {
            // Then where the server was started is shown by its first transaction alone, and not to the byte.
            there.batch_execute("INSERT INTO t VALUES (99, 'x')").await.unwrap();
            there.batch_execute("CHECKPOINT").await.unwrap();
            late = later;
        }
        write_past(&there, 100).await;
        let url = restored.url(database.name());
        let daemon = daemon_of(&database).flag("--database-url", &url).start().await;
        assert_eq!(late.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()));
        early.catch_up(&daemon.ws_url()).await.expect("all that it has is there");
        assert_eq!(early.ids(), ids(&there).await);
        assert_ne!(early.feed, late.feed);
    }
}

/// History is elsewhere and has what the server lost: before the server has written as much again, and after.
#[tokio::test]
async fn a_restored_server_is_found_out_by_a_history_that_was_not_restored_with_it() {
    for installation in installations() {
        for written_past in [false, true] {
            let (cluster, database) = source(&installation).await;
            let history = TestDatabase::create(shared_cluster_of(&installation).await).await;
            let mut daemon = daemon_of(&database).flag("--history-url", history.url()).start().await;
            database.run("INSERT INTO t VALUES (2, 'b')").await;
            let mut early = Client::sync(&daemon.ws_url()).await;
            database.run("INSERT INTO t VALUES (3, 'c')").await;
            let mut last = early.clone();
            last.catch_up(&daemon.ws_url()).await.unwrap();
            until_acknowledged(&database, &early).await;
            let restored = copy(&cluster).await;
            daemon.until_log("the server was started again, and has what it had").await;
            write_past(&database.session().await, 50).await;
            let mut late = early.clone();
            late.catch_up(&daemon.ws_url()).await.unwrap();
            until_stored(history.url(), &late).await;
            daemon.terminate().await;
            cluster.stop(StopMode::Fast).await.unwrap();

            let url = restored.url(database.name());
            let there = TestSession::connect(&url).await;
            there.batch_execute("INSERT INTO t VALUES (4, 'd')").await.unwrap();
            if written_past {
                write_past(&there, 100).await;
                write_past(&there, 200).await;
            } else {
                let examined =
                    walcast(&database, &url, &["doctor", "--json", "--history-url", history.url()]);
                let found = finding(&examined, "identity").expect("a finding");
                assert_eq!(found["severity"], "warning", "{found}");
            }
            let daemon = daemon_of(&database).flag("--database-url", &url);
            let daemon = daemon.flag("--history-url", history.url()).start().await;
            daemon.until_log("set aside").await;
            daemon.until_ready().await;
            assert_eq!(late.catch_up(&daemon.ws_url()).await, Err("feed_changed".to_owned()));
            // Where nothing could be compared, what the slot's file says is trusted; before 17 a shutdown does not write it.
            if written_past || installation.version().major >= 17 {
                early.catch_up(&daemon.ws_url()).await.expect("all that it has is there");
            } else {
                early = Client::sync(&daemon.ws_url()).await;
            }
            assert_eq!(early.ids(), ids(&there).await, "written past: {written_past}");
            let lost = history.scalar("SELECT count(*) FROM walcast.lost_change").await;
            assert!(lost.is_some_and(|lost| lost.parse::<u32>().unwrap() >= 21));
        }
    }
}

/// A machine that loses its power takes daemon, server and history at once. Nothing is lost, and nobody syncs again.
#[tokio::test]
async fn a_server_that_crashed_together_with_the_daemon_is_gone_on_with() {
    for installation in installations() {
        let (cluster, database) = source(&installation).await;
        let mut daemon = daemon_of(&database).start().await;
        let mut client = Client::sync(&daemon.ws_url()).await;
        for id in 2..30 {
            database.run(&format!("INSERT INTO t VALUES ({id}, 'b')")).await;
        }
        client.catch_up(&daemon.ws_url()).await.unwrap();
        // What was delivered last need not even be in history.
        daemon.kill9().await;
        cluster.kill9().await.unwrap();
        cluster.start().await.unwrap();
        database.run("INSERT INTO t VALUES (100, 'c')").await;
        daemon.restart().await;
        client.catch_up(&daemon.ws_url()).await.expect("no new sync");
        assert_eq!(client.ids(), ids(&database.session().await).await);
        // And from now on the server is known.
        let feed = client.feed.clone();
        daemon.kill9().await;
        daemon.restart().await;
        client.catch_up(&daemon.ws_url()).await.unwrap();
        assert_eq!(client.feed, feed);
    }
}
