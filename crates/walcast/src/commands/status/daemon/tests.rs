use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Daemon, Listener};

async fn answered(answer: impl Into<Vec<u8>>) -> Daemon {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            // Whoever asks may have gone.
            let _ = stream.write_all(&answer).await;
        }
    });
    let daemon = Daemon::ask(&address).await;
    server.abort();
    daemon
}

#[tokio::test]
async fn a_daemon_is_ready_when_it_says_200() {
    let daemon = answered(
        "HTTP/1.1 200 OK\r\n\r\n{\"ready\": true, \"feed\": {\"id\": \"f1\"}, \"reasons\": [\"slow\"]}",
    )
    .await;
    assert_eq!((daemon.listener, daemon.ready), (Listener::Walcast, true));
    assert_eq!(daemon.feed().unwrap().as_str(), "f1");
    assert_eq!(daemon.reasons().collect::<Vec<_>>(), ["slow"]);
    assert!(daemon.who().contains("another walcast listens there, with feed f1"), "{}", daemon.who());
    let daemon = answered("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\": false}").await;
    assert_eq!((daemon.listener, daemon.ready, daemon.feed()), (Listener::Walcast, false, None));
}

#[tokio::test]
async fn one_that_is_not_set_up_yet_says_what_it_waits_for() {
    let said = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"code\": \"not_ready\", \"message\": \"it waits\", \"hint\": \"wait too\"}";
    let daemon = answered(said).await;
    assert_eq!((daemon.listener, daemon.ready), (Listener::Walcast, false));
    assert_eq!(daemon.problem.as_deref(), Some("it waits; wait too"));
}

#[tokio::test]
async fn what_somebody_else_says_is_one_short_line() {
    let long = "x".repeat(5000);
    let report = serde_json::json!({"ready": true, "feed": {"id": "f1\nstate  serving"},
        "reasons": [format!("\u{1b}[2Jgone\r\nstate  serving {long}"), "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]});
    let daemon = answered(format!("HTTP/1.1 200 OK\r\n\r\n{report}")).await;
    assert_eq!(daemon.feed(), None);
    let reasons: Vec<String> = daemon.reasons().collect();
    assert_eq!(reasons.len(), 10);
    assert!(reasons[0].starts_with("[2Jgone state serving xxx"), "{reasons:?}");
    assert!(reasons[0].chars().count() <= 600 && reasons[0].ends_with('…'), "{reasons:?}");
    let said = serde_json::json!({"code": "not_ready", "message": "one\ntwo", "hint": "\u{7}\u{202e}three"});
    let daemon = answered(format!("HTTP/1.1 503 Service Unavailable\r\n\r\n{said}")).await;
    assert_eq!(daemon.problem.as_deref(), Some("one two; three"));
}

#[tokio::test]
async fn another_program_is_no_daemon() {
    for answer in ["HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 404 Not Found\r\n\r\n", "SSH-2.0", ""] {
        let daemon = answered(answer).await;
        let expected = if answer.is_empty() { Listener::Silent } else { Listener::Stranger };
        assert_eq!((daemon.listener, daemon.ready), (expected, false), "{answer}");
        assert!(
            daemon.who().starts_with("what listens there does not answer as a walcast"),
            "{}",
            daemon.who()
        );
    }
    // It begins as TLS does.
    let daemon = answered(b"\x15\x03\x03\x00\x02\x02\x28".as_slice()).await;
    assert_eq!(daemon.listener, Listener::Silent);
    assert!(daemon.problem.as_deref().unwrap().starts_with("the TLS handshake failed: "), "{daemon:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_a_daemon_that_does_not_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let daemon = Daemon::ask(&address).await;
    assert!(daemon.listener == Listener::Nobody && daemon.problem.is_some());
    assert!(daemon.who().starts_with("it is taken, though nobody listens there ("), "{}", daemon.who());
    let json = serde_json::to_value(&daemon).unwrap();
    assert_eq!(json["reachable"], false, "{json}");
    // As the daemon's log names it.
    assert_eq!(Daemon::ask(&format!("ws://{address}/v1/stream")).await.address, address);
}
