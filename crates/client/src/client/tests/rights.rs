//! Rights that changed while the client was away.

use walcast_protocol::{ClientMessage, Mode, StartAt};

use super::{Daemon, Peer, at, data, next, play, subscription, transaction};
use crate::{CursorStore, Event, MemoryStore, StoredCursor};

/// `subscribed` under `rights`, which are JSON.
fn subscribed(mode: &str, cursor: &str, rights: &str) -> String {
    format!(r#"{{"type":"subscribed","id":"s","mode":"{mode}","cursor":"{cursor}","rights":{rights}}}"#)
}

/// The client takes back what it has asked for, and asks for an initial sync.
async fn starts_over(peer: &mut Peer) {
    let gone = peer.message().await;
    assert!(matches!(&gone, Some(ClientMessage::Unsubscribe(gone)) if gone.id.as_str() == "s"), "{gone:?}");
    let again = peer.subscribe().await;
    assert_eq!((again.id.as_str(), again.cursor, again.feed), ("s", StartAt::Snapshot, None));
}

async fn stored(rights: Option<&str>) -> MemoryStore {
    let store = MemoryStore::default();
    let cursor = StoredCursor::new("f1".parse().unwrap(), "0/20".parse().unwrap());
    let cursor = StoredCursor { rights: rights.map(str::to_owned), ..cursor };
    store.store(&"s".parse().unwrap(), cursor).await.unwrap();
    store
}

#[tokio::test(start_paused = true)]
async fn other_rights_than_those_of_the_stored_cursor_start_over_and_nothing_of_before_is_given() {
    for (had, has) in [(Some("r1"), r#""r2""#), (None, r#""r2""#), (Some("r1"), "null")] {
        let (daemon, builder) = Daemon::start();
        let store = stored(had).await;
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            assert_eq!(peer.subscribe().await.cursor, at("0/20"));
            peer.send(&subscribed("catchup", "0/20", has)).await;
            // On their way before the daemon hears that it is over.
            peer.send(&transaction("0/30", &[1], false)).await;
            peer.send(r#"{"type":"caught_up","id":"s","cursor":"0/40"}"#).await;
            peer.send(r#"{"type":"error","code":"cursor_too_old","message":"m","id":"s","fatal":false}"#)
                .await;
            starts_over(&mut peer).await;
            peer.send(&subscribed("snapshot", "0/0", has)).await;
            peer.send(r#"{"type":"snapshot_complete","id":"s","cursor":"0/50"}"#).await;
            peer.send(&transaction("0/60", &[2], false)).await;
            assert!(peer.message().await.is_none());
        });
        // A caller that would otherwise begin now has to be given everything, too.
        let mut client = builder.cursor_store(store.clone()).build().unwrap();
        client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
        let Event::RightsChanged { id } = data(&mut client).await else { panic!() };
        assert!(client.store(&id, "0/40".parse().unwrap()).await.is_err(), "there is nothing to go on from");
        let Event::Subscribed(begun) = next(&mut client).await else { panic!() };
        assert_eq!(begun.mode, Mode::Snapshot);
        let Event::SnapshotComplete(done) = next(&mut client).await else { panic!() };
        client.store(&id, done.cursor).await.unwrap();
        let kept = store.load(&id).await.unwrap().unwrap();
        assert_eq!((kept.cursor, kept.rights), (done.cursor, begun.rights));
        assert!(matches!(next(&mut client).await, Event::Transaction(_)));
        client.close().await;
        script.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_rights_go_on_and_a_lost_connection_forgets_neither_them_nor_that_it_starts_over() {
    let (daemon, builder) = Daemon::start();
    let store = stored(Some("r1")).await;
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/20", r#""r1""#)).await;
        peer.send(&transaction("0/30", &[1], false)).await;
        peer.close(1001).await;
        // Changed while it was away for a moment.
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, at("0/30"));
        peer.send(&subscribed("live", "0/30", r#""r2""#)).await;
        starts_over(&mut peer).await;
        peer.close(1001).await;
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, StartAt::Snapshot);
        peer.send(&subscribed("snapshot", "0/0", r#""r2""#)).await;
        peer.close(1001).await;
        // The caller has discarded what it had: only an initial sync gives it everything.
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, StartAt::Snapshot);
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.cursor_store(store).build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let Event::Transaction(_) = data(&mut client).await else { panic!() };
    let Event::RightsChanged { .. } = data(&mut client).await else { panic!() };
    let mut connected = 0;
    while connected < 2 {
        connected += u32::from(matches!(next(&mut client).await, Event::Connected(_)));
    }
    // Polled once more, so that the last request leaves; nothing answers it.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), client.next()).await.is_err());
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_keeps_cursor_and_rights_itself_says_under_which_its_copy_was_made() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, StartAt::Acked);
        peer.send(&subscribed("catchup", "0/20", r#""r2""#)).await;
        starts_over(&mut peer).await;
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    let kept = subscription().client_id("c").start(StartAt::Acked).rights(Some("r1".to_owned()));
    client.subscribe(kept).await.unwrap();
    assert!(matches!(data(&mut client).await, Event::RightsChanged { .. }));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), client.next()).await.is_err());
    client.close().await;
    script.await.unwrap();
}
