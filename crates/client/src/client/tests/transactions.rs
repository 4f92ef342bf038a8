//! Transactions, whole and in pieces.

use tokio::time::timeout;

use super::{Daemon, PATIENCE, data, next, play, subscribed, subscription, transaction};
use crate::Event;

#[tokio::test(start_paused = true)]
async fn a_transaction_over_the_bound_comes_in_pieces_that_can_be_resumed() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        for (cursor, row, more) in
            [("0/10:1", 1, true), ("0/10:2", 2, true), ("0/10:3", 3, true), ("0/20", 4, false)]
        {
            peer.send(&transaction(cursor, &[row], more)).await;
            peer.send(r#"{"type":"heartbeat","cursor":"0/9","time":"2026-11-21T00:00:00Z"}"#).await;
        }
        peer.message().await;
    });
    // Two parts are over it, one is not.
    let mut client =
        builder.transaction_bytes_max(transaction("0/10:1", &[1], true).len() + 1).build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 6 {
        match data(&mut client).await {
            Event::Transaction(piece) => {
                seen.push(format!("{} {} {}", piece.cursor.unwrap(), piece.changes.len(), piece.more));
            }
            Event::Heartbeat(heartbeat) => seen.push(format!("{:?}", heartbeat.cursor)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["None", "0/10:2 2 true", "Some(0/9)", "None", "0/20 2 false", "Some(0/9)"]);
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_changes_inside_a_transaction_comes_between_its_pieces() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/10:1", &[1], true)).await;
        peer.send(
            r#"{"type":"relation","id":"s","table":"public.t","columns":[],"replica_identity":"full"}"#,
        )
        .await;
        peer.send(&transaction("0/20", &[2], false)).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let before = data(&mut client).await;
    let Event::Transaction(before) = before else { panic!("{before:?}") };
    let Event::Relation(relation) = next(&mut client).await else { panic!() };
    let Event::Transaction(after) = next(&mut client).await else { panic!() };
    assert_eq!((before.changes.len(), before.more, after.changes.len(), after.more), (1, true, 1, false));
    assert_eq!(relation.table.to_string(), "public.t");
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_definition_of_a_table_does_not_divide_a_transaction() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/10:1", &[1], true)).await;
        peer.send(
            r#"{"type":"relation","id":"s","table":"public.u","columns":[],"replica_identity":"full"}"#,
        )
        .await;
        peer.send(&transaction("0/20", &[2], false)).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let first = data(&mut client).await;
    assert!(matches!(first, Event::Relation(_)), "{first:?}");
    let Event::Transaction(whole) = next(&mut client).await else { panic!() };
    assert_eq!((whole.changes.len(), whole.more), (2, false));
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn next_can_be_dropped_at_any_moment_and_loses_nothing() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        for row in 0..200 {
            peer.send(&transaction("0/20", &[row], false)).await;
        }
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut rows = 0;
    let all = async {
        while rows < 200 {
            // Dropped after one poll whenever it is not ready at once.
            let event = tokio::select! {
                biased;
                event = client.next() => event,
                () = tokio::task::yield_now() => continue,
            };
            if let Event::Transaction(transaction) = event.unwrap().unwrap() {
                assert_eq!(transaction.changes[0].row.as_ref().unwrap().get(), format!(r#"{{"id":{rows}}}"#));
                rows += 1;
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all rows come");
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_says_of_some_changes_is_not_said_of_others() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        let says =
            |text: String, who: &str| text.replacen(']', &format!(r#"],"meta":{{"user":"{who}"}}"#), 1);
        peer.send(&transaction("0/10:1", &[1], true)).await;
        for (cursor, row, who) in [("0/10:2", 2, "ann"), ("0/10:3", 3, "ann"), ("0/10:4", 4, "bob")] {
            peer.send(&says(transaction(cursor, &[row], true), who)).await;
        }
        // Its end is about no change.
        peer.send(&transaction("0/20", &[], false)).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let piece = if seen.is_empty() { data(&mut client).await } else { next(&mut client).await };
        let Event::Transaction(piece) = piece else { panic!("{piece:?}") };
        let meta = piece.meta.as_ref().map_or("-", |meta| meta.get());
        seen.push(format!("{} {} {meta} {}", piece.cursor.unwrap(), piece.changes.len(), piece.more));
    }
    assert_eq!(
        seen,
        [r#"0/10:1 1 - true"#, r#"0/10:3 2 {"user":"ann"} true"#, r#"0/20 1 {"user":"bob"} false"#]
    );
    drop(client);
    script.await.unwrap();
}
