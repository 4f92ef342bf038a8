//! The client against a daemon that the test plays, over real sockets.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use walcast_protocol::{ClientMessage, ErrorCode, Mode, StartAt, Subscribe};

use crate::{
    Backoff, Client, ClientBuilder, CursorStore, ErrorKind, Event, FileStore, MemoryStore, Subscription,
};

/// Long enough for a machine that is busy with other things; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection, seen from the daemon's side.
struct Peer<S = TcpStream>(WebSocketStream<S>);

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn choose_protocol(request: &Request, mut response: Response) -> Result<Response, http::Refusal> {
    assert_eq!(request.uri().path(), "/v1/stream");
    assert_eq!(request.headers()["sec-websocket-protocol"], "walcast.v1");
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("walcast.v1"));
    Ok(response)
}

mod http {
    pub(super) type Refusal = tokio_tungstenite::tungstenite::handshake::server::ErrorResponse;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn over(stream: S) -> Self {
        Self(accept_hdr_async(stream, choose_protocol).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn welcome(&mut self) {
        self.welcome_with("f1", 30_000).await;
    }

    async fn welcome_with(&mut self, feed: &str, heartbeat_ms: u64) {
        self.send(&format!(
            r#"{{"type":"welcome","protocol":1,"feed":"{feed}","cursor":"0/0","oldest":"0/0","server":"t","heartbeat_ms":{heartbeat_ms},"limits":{{"message_bytes_max":1,"subscriptions_max":1,"tables_max":1}}}}"#
        ))
        .await;
    }

    /// The next message of the client; `None` when it has gone.
    async fn message(&mut self) -> Option<ClientMessage> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("the client says something") {
                Some(Ok(Message::Text(text))) => return Some(ClientMessage::decode(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn subscribe(&mut self) -> Subscribe {
        match self.message().await {
            Some(ClientMessage::Subscribe(subscribe)) => subscribe,
            other => panic!("expected subscribe, got {other:?}"),
        }
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "said so".into() };
        self.0.send(Message::Close(Some(frame))).await.unwrap();
        // Until the client has answered: a reset could overtake the frame.
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// The daemon: accepts what the test expects, one connection after the other.
struct Daemon(TcpListener);

impl Daemon {
    async fn start() -> (Self, ClientBuilder) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let backoff = Backoff { base: Duration::from_millis(1), ..Backoff::default() };
        (Self(listener), Client::builder(&url).backoff(backoff))
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.0.accept()).await.expect("the client connects").unwrap();
        Peer::over(stream).await
    }
}

fn play(script: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(script)
}

async fn item(client: &mut Client) -> Option<Result<Event, crate::Error>> {
    timeout(PATIENCE, client.next()).await.expect("an event comes")
}

async fn next(client: &mut Client) -> Event {
    item(client).await.expect("the client goes on").unwrap()
}

/// The next event, past those that say how the connection is doing.
async fn data(client: &mut Client) -> Event {
    loop {
        match next(client).await {
            Event::Connected(_) | Event::Reconnecting { .. } | Event::Subscribed(_) => {}
            event => return event,
        }
    }
}

fn transaction(cursor: &str, rows: &[u64], more: bool) -> String {
    let change =
        |id: &u64| format!(r#"{{"op":"insert","table":"public.t","key":{{"id":{id}}},"row":{{"id":{id}}}}}"#);
    let changes: Vec<String> = rows.iter().map(change).collect();
    format!(
        r#"{{"type":"transaction","id":"s","cursor":"{cursor}","lsn":"0/10","xid":7,"committed_at":"2026-11-21T00:00:00Z","changes":[{}],"more":{more}}}"#,
        changes.join(",")
    )
}

fn subscription() -> Subscription {
    Subscription::new("s", ["public.t"]).unwrap()
}

fn subscribed(mode: &str, cursor: &str) -> String {
    format!(r#"{{"type":"subscribed","id":"s","mode":"{mode}","cursor":"{cursor}"}}"#)
}

fn at(text: &str) -> StartAt {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_lost_connection_goes_on_after_the_last_event_that_was_delivered() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn another_client_with_the_same_store_goes_on_from_the_stored_cursor() {
    let (daemon, builder) = Daemon::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("cursor"));
    let url = format!("ws://{}", daemon.0.local_addr().unwrap());
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

    let mut client = Client::builder(&url).cursor_store(store).build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let Event::Connected(_) = next(&mut client).await else { panic!() };
    // Polled once more so that the request leaves; nothing answers it.
    assert!(timeout(Duration::from_millis(1), client.next()).await.is_err());
    client.close().await;
    script.await.unwrap();
}

#[tokio::test]
async fn an_initial_sync_that_is_cut_off_starts_from_nothing() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_cursor_that_cannot_be_served_ends_its_subscription_and_is_never_asked_for_again() {
    for code in ["feed_changed", "cursor_too_old", "cursor_ahead", "unknown_table"] {
        let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn what_may_pass_is_retried_and_what_may_not_ends_the_client() {
    let retried = [
        r#"{"type":"error","code":"not_ready","message":"m","fatal":true}"#,
        r#"{"type":"error","code":"internal","message":"m","id":"s","fatal":false}"#,
    ];
    for text in retried {
        let (daemon, builder) = Daemon::start().await;
        let script = play(async move {
            let mut peer = daemon.accept().await;
            peer.welcome().await;
            peer.subscribe().await;
            peer.send(text).await;
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
    }
    let ended = [("unauthorized", ErrorKind::Unauthorized), ("limit_exceeded", ErrorKind::Refused)];
    for (code, kind) in ended {
        let (daemon, builder) = Daemon::start().await;
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
        let (daemon, builder) = Daemon::start().await;
        let script = play(async move { daemon.accept().await.close(code).await });
        let mut client = builder.build().unwrap();
        assert_eq!(item(&mut client).await.unwrap().unwrap_err().kind(), kind, "{code}");
        drop(client);
        script.await.unwrap();
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_and_tried_again() {
    let (daemon, builder) = Daemon::start().await;
    let address = daemon.0.local_addr().unwrap();
    drop(daemon);
    let mut client = builder.token("secret").build().unwrap();
    for expected in 1..=3 {
        let Event::Reconnecting { reason, attempt, delay } = next(&mut client).await else { panic!() };
        assert!(reason.starts_with(&format!("no connection to {address}: ")), "{reason}");
        assert_eq!(attempt, expected);
        assert!(delay <= Duration::from_millis(1 << (expected - 1)), "{delay:?}");
    }
}

#[tokio::test]
async fn http_answers_that_may_pass_are_retried_and_others_end_the_client() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let answers = [
        ("503 Service Unavailable", None),
        ("401 Unauthorized", Some(ErrorKind::Unauthorized)),
        ("404 Not Found", Some(ErrorKind::Protocol)),
        ("200 OK", Some(ErrorKind::Protocol)),
    ];
    for (status, kind) in answers {
        let (daemon, builder) = Daemon::start().await;
        let script = play(async move {
            let (mut stream, _) = daemon.0.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwhy!");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut client = builder.build().unwrap();
        match (item(&mut client).await.unwrap(), kind) {
            (Ok(Event::Reconnecting { reason, attempt: 1, .. }), None) => {
                assert!(reason.contains("503"), "{reason}")
            }
            (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{error}"),
            other => panic!("{status}: {other:?}"),
        }
        script.await.unwrap();
    }
}

#[tokio::test]
async fn a_daemon_that_falls_silent_is_left_for_a_new_connection() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_message_that_takes_longer_than_the_timeout_is_no_silence() {
    use tokio::io::AsyncWriteExt;
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_caller_who_was_away_for_long_finds_its_frames_and_no_timeout() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_transaction_over_the_bound_comes_in_pieces_that_can_be_resumed() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_definition_that_changes_inside_a_transaction_comes_between_its_pieces() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn the_first_definition_of_a_table_does_not_divide_a_transaction() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn a_cursor_is_stored_with_the_feed_that_it_is_of() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn unknown_types_are_passed_over_and_unreadable_ones_end_the_client() {
    let (daemon, builder) = Daemon::start().await;
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
    assert!(error.to_string().contains("missing field `cursor`"), "{error}");
    script.await.unwrap();
}

#[tokio::test]
async fn a_message_over_the_bound_ends_the_client_instead_of_repeating_for_ever() {
    let (daemon, builder) = Daemon::start().await;
    let script = play(async move {
        let mut peer = daemon.accept().await;
        let _ = peer.0.send(Message::text("x".repeat(2000))).await;
    });
    let mut client = builder.message_bytes_max(1000).build().unwrap();
    assert_eq!(item(&mut client).await.unwrap().unwrap_err().kind(), ErrorKind::TooBig);
    script.await.unwrap();
}

#[tokio::test]
async fn next_can_be_dropped_at_any_moment_and_loses_nothing() {
    let (daemon, builder) = Daemon::start().await;
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

#[tokio::test]
async fn wss_checks_the_certificate() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let script = play(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err(), "the client does not know the certificate");
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::over(acceptor.accept(stream).await.unwrap()).await;
        peer.welcome().await;
        peer.message().await;
    });
    let config = |roots| {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let mut stranger =
        Client::builder(&url).tls_config(config(rustls::RootCertStore::empty())).build().unwrap();
    let Event::Reconnecting { reason, .. } = next(&mut stranger).await else { panic!() };
    assert!(reason.contains("certificate"), "{reason}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let mut client = Client::builder(&url).tls_config(config(roots)).build().unwrap();
    assert!(matches!(next(&mut client).await, Event::Connected(_)));
    client.close().await;
    script.await.unwrap();
}
