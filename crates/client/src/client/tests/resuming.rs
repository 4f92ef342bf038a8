//! Where a subscription goes on.

use std::time::Duration;

use tokio::time::timeout;
use walcast_protocol::{Mode, StartAt};

use super::{Daemon, at, data, next, play, subscribed, subscription, transaction};
use crate::{CursorStore, ErrorKind, Event, FileStore, MemoryStore};

#[tokio::test(start_paused = true)]
async fn a_lost_connection_goes_on_after_the_last_event_that_was_delivered() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        let first = peer.subscribe().await;
        assert_eq!((first.cursor, first.feed), (StartAt::Snapshot, None));
        peer.send(&subscribed("snapshot", "0/0")).await;
        peer.send(r#"{"type":"snapshot_complete","id":"s","cursor":"0/8"}"#).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        // A part of the next one, then the network goes.
        peer.send(&transaction("0/30:1", &[2], true)).await;
        drop(peer);

        let mut peer = daemon.accept().await;
        peer.welcome().await;
        let second = peer.subscribe().await;
        assert_eq!((second.cursor, second.feed.unwrap().as_str()), (at("0/20"), "f1"));
        peer.send(&subscribed("catchup", "0/20")).await;
        peer.send(&transaction("0/30:1", &[2], true)).await;
        peer.send(&transaction("0/40", &[3], false)).await;
        peer.send(r#"{"type":"caught_up","id":"s","cursor":"0/50"}"#).await;
        peer.close(1001).await;

        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, at("0/50"));
        peer.send(&subscribed("live", "0/50")).await;
        peer.send(r#"{"type":"heartbeat","cursor":"0/60","time":"2026-11-21T00:00:00Z"}"#).await;
        peer.close(4999).await;

        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, at("0/60"));
        peer.send(&subscribed("live", "0/60")).await;
        peer.send(&transaction("0/70", &[4], false)).await;
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut rows = Vec::new();
    while rows.last().is_none_or(|row| row != r#"{"id":4}"#) {
        if let Event::Transaction(transaction) = data(&mut client).await {
            assert!(!transaction.more);
            rows.extend(
                transaction.changes.iter().map(|change| change.row.as_ref().unwrap().get().to_owned()),
            );
        }
    }
    assert_eq!(rows, [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#, r#"{"id":4}"#]);
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_client_with_the_same_store_goes_on_from_the_stored_cursor() {
    let (daemon, builder) = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("cursor"));
    let again = daemon.builder();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, StartAt::Latest);
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        peer.send(&transaction("0/30", &[2], false)).await;
        assert!(peer.message().await.is_none());

        let mut peer = daemon.accept().await;
        peer.welcome().await;
        let again = peer.subscribe().await;
        assert_eq!((again.cursor, again.feed.unwrap().as_str()), (at("0/20"), "f1"));
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.cursor_store(store.clone()).build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let Event::Transaction(first) = data(&mut client).await else { panic!() };
    client.store(&first.id, first.cursor.unwrap()).await.unwrap();
    // Delivered, but the program ends before it has applied it.
    let Event::Transaction(_) = data(&mut client).await else { panic!() };
    drop(client);
    assert_eq!(store.load(&first.id).await.unwrap().unwrap().cursor, first.cursor.unwrap());

    let mut client = again.cursor_store(store).build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    // Polled once more so that the request leaves; nothing answers it.
    assert!(timeout(Duration::from_millis(1), client.next()).await.is_err());
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_initial_sync_that_is_cut_off_starts_from_nothing() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        for _ in 0..2 {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            assert_eq!(peer.subscribe().await.cursor, StartAt::Snapshot);
            peer.send(&subscribed("snapshot", "0/0")).await;
            // The daemon lost its own snapshot: the same on one connection.
            peer.send(&subscribed("snapshot", "0/0")).await;
            peer.send(r#"{"type":"snapshot","id":"s","table":"public.t","rows":[{"n":1.10}],"progress":{"done":1}}"#).await;
        }
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 6 {
        match next(&mut client).await {
            Event::Subscribed(subscribed) => {
                assert_eq!(subscribed.mode, Mode::Snapshot);
                seen.push("from nothing".to_owned());
            }
            Event::Snapshot(rows) => seen.push(rows.rows[0].get().to_owned()),
            _ => {}
        }
    }
    let once = ["from nothing", "from nothing", r#"{"n":1.10}"#];
    assert_eq!(seen, [once, once].concat());
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_stored_with_the_feed_that_it_is_of() {
    let (daemon, builder) = Daemon::start();
    let store = MemoryStore::default();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome_with("f1", 30_000).await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        peer.close(1001).await;
        let mut peer = daemon.accept().await;
        peer.welcome_with("f2", 30_000).await;
        peer.subscribe().await;
        peer.send(r#"{"type":"error","code":"feed_changed","message":"m","id":"s","fatal":false}"#).await;
        peer.message().await;
    });
    let mut client = builder.cursor_store(store.clone()).build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let Event::Transaction(last) = data(&mut client).await else { panic!() };
    // The program is slow to store, and meanwhile another feed is there.
    while !matches!(next(&mut client).await, Event::Connected(_)) {}
    client.store(&last.id, last.cursor.unwrap()).await.unwrap();
    assert_eq!(store.load(&last.id).await.unwrap().unwrap().feed.as_str(), "f1");
    assert!(matches!(next(&mut client).await, Event::Failed { .. }));
    let late = client.store(&last.id, last.cursor.unwrap()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Argument);
    client.close().await;
    script.await.unwrap();
}
