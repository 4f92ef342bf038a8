//! What the caller has acknowledged: where a subscription goes on, and what comes again for it.

use walcast_protocol::{ClientMessage, StartAt};

use super::{Daemon, Peer, at, data, next, play, subscribed, subscription, transaction};
use crate::{Client, ErrorKind, Event, Mode, Subscription};

fn acknowledging() -> Subscription {
    subscription().client_id("laptop").start(StartAt::Acked)
}

/// The row of a transaction that has one.
fn row(event: &Event) -> String {
    let Event::Transaction(transaction) = event else { panic!("{event:?}") };
    transaction.changes[0].row.as_ref().unwrap().get().to_owned()
}

/// Reads until a row with this id has come; the ids before it and itself.
async fn rows_until(client: &mut Client, last: u64) -> Vec<String> {
    let mut rows = Vec::new();
    while rows.last().is_none_or(|row| *row != format!(r#"{{"id":{last}}}"#)) {
        if let event @ Event::Transaction(_) = data(client).await {
            rows.push(row(&event));
        }
    }
    rows
}

async fn acked(peer: &mut Peer) -> String {
    match peer.message().await {
        Some(ClientMessage::Ack(ack)) => ack.cursor.to_string(),
        other => panic!("expected an ack, got {other:?}"),
    }
}

fn ack(client: &mut Client, cursor: &str) {
    client.ack(&"s".parse().unwrap(), cursor.parse().unwrap()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_begins_where_it_was_acknowledged_and_gives_nothing_twice() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        let first = peer.subscribe().await;
        assert_eq!((first.cursor, first.client_id.as_deref()), (StartAt::Acked, Some("laptop")));
        peer.send(&subscribed("catchup", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        assert_eq!(acked(&mut peer).await, "0/20");
        for id in 2..=4 {
            peer.send(&transaction(&format!("0/{}0", id + 1), &[id], false)).await;
        }
        // Given by now: one more, of which a part is on its way.
        peer.send(&transaction("0/60:1", &[5], true)).await;
        drop(peer);

        let mut peer = daemon.accept().await;
        peer.welcome().await;
        // Not at 0/50: what is after 0/20 would be lost if the program ended now.
        assert_eq!(peer.subscribe().await.cursor, at("0/20"));
        peer.send(&subscribed("catchup", "0/20")).await;
        peer.send(&transaction("0/30", &[2], false)).await;
        // The caller acknowledged 0/50 meanwhile, which is not taken before it was sent again.
        peer.send(&transaction("0/40:1", &[3], true)).await;
        peer.send(&transaction("0/40", &[], false)).await;
        peer.send(&transaction("0/50", &[4], false)).await;
        assert_eq!(acked(&mut peer).await, "0/50");
        peer.send(&transaction("0/60", &[5], false)).await;
        peer.send(r#"{"type":"acked","id":"s","cursor":"0/50"}"#).await;
        assert_eq!(acked(&mut peer).await, "0/60");
        peer.send(r#"{"type":"heartbeat","cursor":"0/90","time":"2026-11-21T00:00:00Z"}"#).await;
        peer.close(1001).await;

        // All is acknowledged but what has no change for it.
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.cursor, at("0/90"));
        peer.send(&subscribed("live", "0/90")).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(acknowledging()).await.unwrap();
    assert_eq!(rows_until(&mut client, 1).await, [r#"{"id":1}"#]);
    ack(&mut client, "0/20");
    assert_eq!(rows_until(&mut client, 4).await.len(), 3);
    // One that comes again is acknowledged on the other connection.
    while !matches!(next(&mut client).await, Event::Subscribed(_)) {}
    ack(&mut client, "0/50");
    assert_eq!(
        client.ack(&"s".parse().unwrap(), "0/60".parse().unwrap()).unwrap_err().kind(),
        ErrorKind::Argument
    );
    // The second of three: ignored.
    ack(&mut client, "0/30");
    assert_eq!(rows_until(&mut client, 5).await, [r#"{"id":5}"#]);
    let Event::Acked(confirmed) = data(&mut client).await else { panic!() };
    assert_eq!(confirmed.cursor, "0/50".parse().unwrap());
    ack(&mut client, "0/60");
    let Event::Heartbeat(_) = data(&mut client).await else { panic!() };
    while !matches!(next(&mut client).await, Event::Subscribed(_)) {}
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_not_acknowledged_come_again_from_nothing() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        for _ in 0..2 {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            assert!(matches!(peer.subscribe().await.cursor, StartAt::Acked | StartAt::Snapshot));
            peer.send(&subscribed("snapshot", "0/0")).await;
            peer.send(r#"{"type":"snapshot_complete","id":"s","cursor":"0/8"}"#).await;
        }
    });
    let mut client = builder.build().unwrap();
    client.subscribe(acknowledging()).await.unwrap();
    let mut syncs = 0;
    while syncs < 2 {
        match next(&mut client).await {
            Event::Subscribed(subscribed) => {
                assert_eq!(subscribed.mode, Mode::Snapshot);
                let early = client.ack(&"s".parse().unwrap(), "0/1".parse().unwrap()).unwrap_err();
                assert!(early.to_string().contains("initial sync"), "{early}");
            }
            Event::SnapshotComplete(_) => syncs += 1,
            _ => {}
        }
    }
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_acknowledgements_are_few_messages() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        for id in 16..1016 {
            peer.send(&transaction(&format!("0/{id:X}"), &[id], false)).await;
        }
        let mut count = 0;
        while acked(&mut peer).await != "0/3F7" {
            count += 1;
        }
        assert!(count < 50, "{count} messages for 1000 acknowledgements at once");
    });
    let mut client = builder.build().unwrap();
    client.subscribe(acknowledging()).await.unwrap();
    let mut last = 0;
    while last < 1015 {
        let Event::Transaction(transaction) = data(&mut client).await else { panic!() };
        client.ack(&transaction.id, transaction.cursor.unwrap()).unwrap();
        last = transaction.cursor.unwrap().lsn().get();
    }
    // Read on, for otherwise nothing is sent.
    while !matches!(next(&mut client).await, Event::Reconnecting { .. }) {}
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_does_not_go_on_in_another_feed() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome_with("f1", 30_000).await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        peer.close(1001).await;
        let mut peer = daemon.accept().await;
        peer.welcome_with("f2", 30_000).await;
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    client.subscribe(acknowledging()).await.unwrap();
    rows_until(&mut client, 1).await;
    let Event::Failed { error, .. } = data(&mut client).await else { panic!() };
    assert_eq!(error.code.as_str(), "feed_changed");
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_last_is_sent_before_leaving() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        assert_eq!(acked(&mut peer).await, "0/20");
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    client.subscribe(acknowledging()).await.unwrap();
    rows_until(&mut client, 1).await;
    ack(&mut client, "0/20");
    client.close().await;
    script.await.unwrap();
}
