//! What is tried again, and what ends a subscription or the client.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use walcast_protocol::{ClientMessage, ErrorCode, StartAt};

use super::{Daemon, at, data, item, next, play, subscribed, subscription, transaction};
use crate::{Backoff, ErrorKind, Event, Subscription};

#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_served_ends_its_subscription_and_is_never_asked_for_again() {
    for code in ["feed_changed", "cursor_too_old", "cursor_ahead", "unknown_table"] {
        let (daemon, builder) = Daemon::start();
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.welcome_with("f2", 30_000).await;
            let one = peer.subscribe().await;
            let two = peer.subscribe().await;
            assert_eq!((one.id.as_str(), two.id.as_str()), ("other", "s"));
            let error = format!(r#"{{"type":"error","code":"{code}","message":"m","id":"s","fatal":false}}"#);
            peer.send(&error).await;
            peer.close(1001).await;
            let mut peer = daemon.accept().await;
            peer.welcome_with("f2", 30_000).await;
            assert_eq!(peer.subscribe().await.id.as_str(), "other");
            assert!(peer.message().await.is_none(), "only one subscription is left");
        });
        let mut client = builder.build().unwrap();
        let resume = subscription().resume("f1".parse().unwrap(), "0/20".parse().unwrap());
        client.subscribe(resume).await.unwrap();
        client.subscribe(Subscription::new("other", ["*"]).unwrap()).await.unwrap();
        let Event::Failed { id, error } = data(&mut client).await else { panic!() };
        assert_eq!((id.as_str(), error.code), ("s", ErrorCode::from(code)));
        while !matches!(next(&mut client).await, Event::Connected(_)) {}
        assert!(timeout(Duration::from_millis(1), client.next()).await.is_err());
        client.close().await;
        script.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_retried_and_what_may_not_ends_the_client() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(r#"{"type":"error","code":"not_ready","message":"m","fatal":true}"#).await;
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.id.as_str(), "s");
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    while !script.is_finished() {
        let _ = timeout(Duration::from_millis(20), client.next()).await;
    }
    script.await.unwrap();
    let ended = [("unauthorized", ErrorKind::Unauthorized), ("limit_exceeded", ErrorKind::Refused)];
    for (code, kind) in ended {
        let (daemon, builder) = Daemon::start();
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.send(&format!(
                r#"{{"type":"error","code":"{code}","message":"no","hint":"do so","fatal":true}}"#
            ))
            .await;
        });
        let mut client = builder.build().unwrap();
        let error = item(&mut client).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), format!("the daemon refused this client ({code}): no; do so"));
        assert!(item(&mut client).await.is_none());
        script.await.unwrap();
    }
    for (code, kind) in
        [(1008, ErrorKind::Refused), (1009, ErrorKind::Refused), (4401, ErrorKind::Unauthorized)]
    {
        let (daemon, builder) = Daemon::start();
        let script = play(async move { daemon.accept().await.close(code).await });
        let mut client = builder.build().unwrap();
        assert_eq!(item(&mut client).await.unwrap().unwrap_err().kind(), kind, "{code}");
        drop(client);
        script.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_types_are_passed_over_and_unreadable_ones_end_the_client() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.send(r#"{"type":"added_in_2031","id":"s"}"#).await;
        peer.send(r#"{"type":"caught_up","id":"unsubscribed","cursor":"0/1"}"#).await;
        peer.send(r#"{"type":"status","state":"napping"}"#).await;
        peer.send(r#"{"type":"caught_up","id":"s"}"#).await;
    });
    let mut client = builder.build().unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    assert!(matches!(next(&mut client).await, Event::Status(_)));
    let error = item(&mut client).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("the field \"cursor\" is missing"), "{error}");
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_bound_ends_the_client_instead_of_repeating_for_ever() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        let _ = futures_util::SinkExt::send(&mut peer.0, Message::text("x".repeat(2000))).await;
    });
    let mut client = builder.message_bytes_max(1000).build().unwrap();
    assert_eq!(item(&mut client).await.unwrap().unwrap_err().kind(), ErrorKind::TooBig);
    script.await.unwrap();
}

fn refused(code: &str) -> String {
    format!(r#"{{"type":"error","code":"{code}","message":"m","id":"s","fatal":false}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_had_now_is_asked_for_again_alone_and_from_where_it_was() {
    for code in ["not_ready", "internal"] {
        let (daemon, builder) = Daemon::start();
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            let ids = [peer.subscribe().await.id, peer.subscribe().await.id];
            assert_eq!(ids.map(|id| id.as_str().to_owned()), ["other", "s"]);
            peer.send(&subscribed("live", "0/8")).await;
            peer.send(&transaction("0/20", &[1], false)).await;
            peer.send(&transaction("0/30:1", &[2], true)).await;
            peer.send(&refused(code)).await;
            // The others go on, on the same connection.
            peer.send(r#"{"type":"caught_up","id":"other","cursor":"0/40"}"#).await;
            let again = peer.subscribe().await;
            assert_eq!((again.id.as_str(), again.cursor), ("s", at("0/20")));
            peer.send(&refused(code)).await;
            assert_eq!(peer.subscribe().await.cursor, at("0/20"));
            peer.send(&subscribed("live", "0/20")).await;
            peer.send(&transaction("0/30", &[2], false)).await;
            peer.send(&refused(code)).await;
            assert_eq!(peer.subscribe().await.cursor, at("0/30"));
            assert!(peer.message().await.is_none());
        });
        let mut client = builder.build().unwrap();
        client.subscribe(subscription()).await.unwrap();
        client.subscribe(Subscription::new("other", ["*"]).unwrap()).await.unwrap();
        let mut seen = Vec::new();
        while seen.iter().filter(|event: &&String| event.starts_with("retrying")).count() < 3 {
            seen.push(match data(&mut client).await {
                Event::Transaction(transaction) => format!("{} changes", transaction.changes.len()),
                Event::CaughtUp(caught_up) => format!("{} caught up", caught_up.id),
                Event::Retrying { id, attempt, error, .. } => {
                    format!("retrying {id} {attempt} {}", error.code)
                }
                other => panic!("{other:?}"),
            });
        }
        let retrying = |attempt: u32| format!("retrying s {attempt} {code}");
        let expected =
            ["1 changes", &retrying(1), "other caught up", &retrying(2), "1 changes", &retrying(1)];
        assert_eq!(seen, expected);
        assert!(timeout(Duration::from_secs(1), client.next()).await.is_err());
        client.close().await;
        script.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_subscription_grows_and_is_kept_over_a_lost_connection() {
    let (daemon, builder) = Daemon::start();
    let script = tokio::spawn(async move {
        for _ in 0..8 {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            peer.subscribe().await;
            peer.send(&refused("not_ready")).await;
            drop(peer);
        }
        daemon
    });
    let cap = Duration::from_secs(8);
    let backoff = Backoff { base: Duration::from_secs(1), cap, ..Backoff::default() };
    let mut client = builder.backoff(backoff).build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let mut due = None;
    for expected in 1..=8 {
        loop {
            match next(&mut client).await {
                Event::Retrying { delay, attempt, .. } => {
                    assert_eq!(attempt, expected);
                    assert!(delay <= Duration::from_secs(1 << (expected - 1)).min(cap));
                    // Nobody asked for it while it rested.
                    assert!(due.is_none_or(|due| due <= Instant::now()), "attempt {attempt}");
                    due = Some(Instant::now() + delay);
                    break;
                }
                Event::Connected(_) | Event::Reconnecting { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    drop((client, script.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_rests_can_be_ended_without_a_word_to_the_daemon() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&refused("not_ready")).await;
        let next = peer.message().await;
        assert!(matches!(&next, Some(ClientMessage::Subscribe(new)) if new.id.as_str() == "new"), "{next:?}");
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let Event::Retrying { id, .. } = data(&mut client).await else { panic!() };
    assert!(client.unsubscribe(&id) && !client.unsubscribe(&id));
    client.subscribe(Subscription::new("new", ["*"]).unwrap()).await.unwrap();
    assert!(timeout(Duration::from_secs(1), client.next()).await.is_err());
    client.close().await;
    script.await.unwrap();
}
