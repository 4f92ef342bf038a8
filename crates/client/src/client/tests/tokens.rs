//! Tokens that expire, and tokens that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use walcast_protocol::ClientMessage;

use super::{Daemon, item, next, play};
use crate::{ErrorKind, Event};

const EXPIRES: &str =
    r#"{"type":"heartbeat","time":"2026-11-21T00:00:00Z","token_expires_at":"2026-11-21T00:00:20Z"}"#;

type Answer = std::future::Ready<Result<String, Box<dyn std::error::Error + Send + Sync>>>;

/// Tokens that are numbered as they are asked for, and how many were.
fn numbered() -> (Arc<AtomicUsize>, impl Fn() -> Answer + Send + Sync) {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    (count, move || std::future::ready(Ok(format!("t{}", asked.fetch_add(1, Ordering::Relaxed)))))
}

#[tokio::test(start_paused = true)]
async fn another_token_is_sent_before_the_last_one_expires() {
    let (daemon, builder) = Daemon::start();
    let (asked, source) = numbered();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome_with("f", 600_000).await;
        let begun = tokio::time::Instant::now();
        // Said twice, asked for once.
        peer.send(EXPIRES).await;
        peer.send(EXPIRES).await;
        let Some(ClientMessage::Auth(auth)) = peer.message().await else { panic!("no token") };
        assert_eq!((auth.token.as_str(), begun.elapsed().as_secs()), ("t1", 16));
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.token_from(source).build().unwrap();
    while asked.load(Ordering::Relaxed) < 2 {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), client.next()).await;
    }
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), client.next()).await;
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_tried_once_more_with_another_and_then_ends_the_client() {
    let (daemon, builder) = Daemon::start();
    let (_, source) = numbered();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.close(4401).await;
        for _ in 0..2 {
            let mut peer = daemon.accept().await;
            peer.send(r#"{"type":"error","code":"unauthorized","message":"m","fatal":true}"#).await;
            peer.close(4401).await;
        }
    });
    let mut client = builder.token_from(source).build().unwrap();
    assert!(matches!(next(&mut client).await, Event::Connected(_)));
    assert!(matches!(next(&mut client).await, Event::Reconnecting { .. }));
    let error = loop {
        match item(&mut client).await.unwrap() {
            Ok(Event::Reconnecting { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    drop(client);
    script.abort();
}

#[tokio::test(start_paused = true)]
async fn a_fixed_token_that_is_refused_ends_the_client() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.close(4401).await;
    });
    let mut client = builder.token("t").build().unwrap();
    assert!(matches!(next(&mut client).await, Event::Connected(_)));
    let error = item(&mut client).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    drop(client);
    script.await.unwrap();
}

const ASKED: &str = r#"{"type":"auth_required","message":"m","within_ms":10000}"#;

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_learns_at_once_that_one_is_wanted() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.send(ASKED).await;
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    let begun = tokio::time::Instant::now();
    let error = item(&mut client).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::NoToken, 0));
    assert!(error.to_string().contains("serves nobody without a token"), "{error}");
    assert!(item(&mut client).await.is_none());
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_did_not_come_with_the_request_is_sent_when_it_is_asked_for() {
    for fixed in [true, false] {
        let (daemon, builder) = Daemon::start();
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.send(ASKED).await;
            let Some(ClientMessage::Auth(auth)) = peer.message().await else { panic!("no token") };
            peer.welcome().await;
            assert!(peer.message().await.is_none());
            auth.token
        });
        let (_, source) = numbered();
        let builder = if fixed { builder.token("t1") } else { builder.token_from(source) };
        let mut client = builder.build().unwrap();
        assert!(matches!(next(&mut client).await, Event::Connected(_)));
        client.close().await;
        assert_eq!(script.await.unwrap(), "t1");
    }
}
