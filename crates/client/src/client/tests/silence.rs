//! What counts as silence.

use std::time::Duration;

use super::{Daemon, next, play};
use crate::Event;

#[tokio::test(start_paused = true)]
async fn a_daemon_that_falls_silent_is_left_for_a_new_connection() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut silent = daemon.accept().await;
        silent.welcome_with("f1", 20).await;
        // It stays open and says nothing more.
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert!(peer.message().await.is_none());
        drop(silent);
    });
    let mut client = builder.build().unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    let Event::Reconnecting { reason, attempt: 1, .. } = next(&mut client).await else { panic!() };
    assert_eq!(reason, "the daemon was silent for 50ms");
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_takes_longer_than_the_timeout_is_no_silence() {
    use tokio::io::AsyncWriteExt;
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome_with("f1", 400).await;
        // One frame of three times the timeout of 1 s, a byte at a time: slowness is what this is about.
        let text = format!(r#"{{"type":"status","state":"streaming","message":"{}"}}"#, "x".repeat(60));
        let stream = peer.0.get_mut();
        stream.write_all(&[0x81, u8::try_from(text.len()).unwrap()]).await.unwrap();
        for byte in text.bytes() {
            stream.write_all(&[byte]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert!(peer.message().await.is_none());
    });
    let mut client = builder.build().unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    let event = next(&mut client).await;
    assert!(matches!(event, Event::Status(_)), "{event:?}");
    let Event::Reconnecting { reason, .. } = next(&mut client).await else { panic!() };
    assert_eq!(reason, "the daemon was silent for 1s");
    drop(client);
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_was_away_for_long_finds_its_frames_and_no_timeout() {
    let (daemon, builder) = Daemon::start();
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome_with("f1", 2).await;
        for _ in 0..3 {
            peer.send(r#"{"type":"heartbeat","time":"2026-11-21T00:00:00Z"}"#).await;
        }
        sent.send(()).unwrap();
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    all_sent.await.unwrap();
    // Longer than 2.5 heartbeats, without asking: what this test is about, not a wait for something.
    tokio::time::sleep(Duration::from_millis(30)).await;
    for _ in 0..3 {
        assert!(matches!(next(&mut client).await, Event::Heartbeat(_)));
    }
    drop(client);
    script.await.unwrap();
}
