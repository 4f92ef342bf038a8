mod entrance;
mod errors;
mod http;
mod listening;
mod visits;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;
use walcast_feed::{BarrierRequests, Barriers, Feed, FeedLimits, FeedWriter, SourceState};
use walcast_model::Part;
use walcast_protocol::{ErrorCode, ServerMessage, SourceStatus};
use walcast_snapshot::SnapshotEvent;

use super::{EntranceSettings, Listener, serve};
use crate::broadcaster::{Broadcaster, Sources};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::testing::{FakeClients, FakePast, FakeSource, Insert, at, part, published, table, words};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon's door over a feed that is driven by hand.
struct House {
    address: SocketAddr,
    writer: FeedWriter,
    feed: Feed,
    gate: Gate,
    past: Arc<FakePast>,
    source: Arc<FakeSource>,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
    /// Resolves barriers at the feed's head.
    barriers: JoinHandle<()>,
    /// How many it has resolved: each subscription and each page has one.
    resolved: watch::Receiver<usize>,
}

impl House {
    async fn open(limits: Limits, memory_bytes_max: usize) -> Self {
        Self::behind(EntranceSettings::open(), limits, memory_bytes_max).await
    }

    async fn behind(entrance: EntranceSettings, limits: Limits, memory_bytes_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::at(vec![listener.into()], address, entrance, limits, memory_bytes_max).await
    }

    async fn at(
        listeners: Vec<Listener>,
        address: SocketAddr,
        entrance: EntranceSettings,
        limits: Limits,
        memory_bytes_max: usize,
    ) -> Self {
        // Clients of tests do not answer when they are told to go, and hear heartbeats where they asked for some: one would come
        // between what is expected of a house that stands for 15 s.
        let is_usual = limits.heartbeat == Limits::default().heartbeat;
        let heartbeat = if is_usual { Duration::from_secs(3600) } else { limits.heartbeat };
        let limits = Limits { drain_max: Duration::from_millis(500), heartbeat, ..limits };
        let (writer, feed) = Feed::new(at(1), FeedLimits { memory_bytes_max });
        let (barriers, requests) = Barriers::new();
        let past = Arc::new(FakePast { oldest: at(1), page_changes: 100, ..FakePast::default() });
        let source = Arc::new(FakeSource::default());
        source.tables.lock().unwrap().push(published(&table("a", &["x"])));
        let gate = Gate::closed();
        let sources = Sources {
            feed_id: "f_1".parse().unwrap(),
            lineage: crate::Lineage::default(),
            feed: feed.clone(),
            barriers: barriers.clone(),
            past: past.clone(),
            source: source.clone(),
            clients: Arc::new(FakeClients::default()),
            gate: gate.clone(),
        };
        let shutdown = CancellationToken::new();
        let broadcaster = Broadcaster::new(sources, limits);
        let served = tokio::spawn(serve(listeners, broadcaster, entrance, None, shutdown.clone()));
        let (tell, resolved) = watch::channel(0);
        let barriers = tokio::spawn(answer_barriers(requests, barriers, feed.clone(), tell));
        Self { address, writer, feed, gate, past, source, shutdown, served, barriers, resolved }
    }

    async fn append(&mut self, parts: Vec<Part>) {
        for part in parts {
            let next = part.next_cursor();
            self.past.parts.lock().unwrap().push(part.clone());
            self.writer.push(vec![part]).await;
            self.feed.mark_stored(next);
        }
    }

    async fn client(&self) -> Client {
        let (socket, response) = connect_async(format!("ws://{}/v1/stream", self.address)).await.unwrap();
        assert_eq!(response.status(), 101);
        let mut client = Client { socket };
        assert!(matches!(client.next().await, ServerMessage::Welcome(_)));
        assert!(matches!(client.next().await, ServerMessage::Status(_)));
        client
    }

    async fn close(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.served).await.unwrap().unwrap().unwrap();
        self.barriers.abort();
    }
}

async fn answer_barriers(
    mut requests: BarrierRequests,
    barriers: Barriers,
    feed: Feed,
    resolved: watch::Sender<usize>,
) {
    while let Some(id) = requests.next().await {
        barriers.resolve(&id, feed.head());
        resolved.send_modify(|count| *count += 1);
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, fields: &str) {
        self.send(&format!(r#"{{"type":"subscribe","id":"{id}",{fields}}}"#)).await;
    }

    async fn raw(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("a message in time").expect("a message").unwrap()
    }

    async fn next(&mut self) -> ServerMessage {
        let message = self.raw().await;
        ServerMessage::decode(message.to_text().unwrap()).unwrap()
    }

    async fn error(&mut self) -> ErrorCode {
        match self.next().await {
            ServerMessage::Error(error) => {
                assert!(!error.fatal);
                error.code
            }
            other => panic!("{other:?}"),
        }
    }

    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(self.next().await);
        }
        words(&messages)
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.raw().await {
                return frame.expect("a close code").code.into();
            }
        }
    }
}

fn inserts(from: u64, count: u64, columns: &[&str]) -> Vec<Part> {
    let a = table("a", columns);
    (from..from + count).map(|n| part(n * 10, 0, &[Insert(n, a.clone())], Some(n * 10 + 10))).collect()
}

#[tokio::test]
async fn a_client_waits_for_the_gate_catches_up_and_hears_what_is_new() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    let mut client = house.client().await;
    house.append(inserts(1, 1, &[])).await;
    client.subscribe("s", r#""tables":[{"table":"public.a"}],"cursor":"0/1""#).await;
    assert_eq!(client.take(1).await, ["waiting"]);
    house.gate.open();
    let expected = ["subscribed Live 0/1", "relation a id", r#"transaction 0/14 {"id":1}"#, "caught_up 0/14"];
    assert_eq!(client.take(4).await, expected);
    house.append(inserts(2, 2, &[])).await;
    assert_eq!(client.take(2).await, [r#"transaction 0/1E {"id":2}"#, r#"transaction 0/28 {"id":3}"#]);
    client.send(r#"{"type":"unsubscribe","id":"s"}"#).await;
    client.subscribe("s", r#""tables":[{"table":"public.a"}],"cursor":"latest""#).await;
    assert_eq!(client.take(2).await, ["subscribed Live 0/28", "caught_up 0/28"]);
    house.writer.set_source(SourceState::Interrupted { reason: "gone".into(), hint: None });
    let ServerMessage::Status(status) = client.next().await else { panic!("no status") };
    assert_eq!(status.state, SourceStatus::Interrupted);
    house.close().await;
}

#[tokio::test]
async fn an_initial_sync_comes_through_the_door_and_goes_over_into_the_stream() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    house.append(inserts(1, 3, &["x"])).await;
    let a = table("a", &["x"]);
    let rows = SnapshotEvent::Rows { relation: a.clone(), json: r#"{"id":1,"x":"v1"}"#.into(), count: 1 };
    // It sees the first transaction and not the second.
    let done = SnapshotEvent::Done { snapshot: "20:20:".parse().unwrap(), barrier: at(30) };
    *house.source.events.lock().unwrap() = vec![SnapshotEvent::Relation(a), rows, done];
    let mut client = house.client().await;
    client.subscribe("s", r#""tables":[{"table":"public.a"}]"#).await;
    let got = client.take(6).await;
    let expected = [
        "subscribed Snapshot 0/0",
        "relation a id,x",
        r#"snapshot a {"id":1,"x":"v1"}"#,
        r#"transaction - {"id":2,"x":"v2"}"#,
        "complete 0/1E",
    ];
    assert_eq!(got[..5], expected);
    let rest = [got[5].clone(), client.take(1).await.remove(0)];
    assert!(rest.contains(&r#"transaction 0/28 {"id":3,"x":"v3"}"#.to_owned()), "{rest:?}");
    assert!(rest.iter().any(|word| word.starts_with("caught_up")), "{rest:?}");
    house.close().await;
}

#[tokio::test]
async fn bad_input_gets_an_error_that_names_it_and_the_connection_goes_on() {
    let house =
        House::open(Limits { tables_max: 2, subscriptions_max: 2, ..Limits::default() }, 1 << 20).await;
    house.gate.open();
    let mut client = house.client().await;
    let mut other = house.client().await;
    let refused = [
        ("not json", ErrorCode::BadMessage),
        ("{}", ErrorCode::BadMessage),
        (r#"{"type":"dance"}"#, ErrorCode::BadMessage),
        (r#"{"type":"ack","id":"s","cursor":"0/1"}"#, ErrorCode::BadMessage),
        (r#"{"type":"publish","channel":"c","payload":1}"#, ErrorCode::BadMessage),
        (r#"{"type":"presence","channel":"c","state":1}"#, ErrorCode::BadMessage),
        (r#"{"type":"unsubscribe","id":"none"}"#, ErrorCode::BadMessage),
        (
            r#"{"type":"subscribe","id":"x","tables":[{"table":"public.zz"}],"cursor":"0/1"}"#,
            ErrorCode::UnknownTable,
        ),
        (
            r#"{"type":"subscribe","id":"x","tables":[{"table":"*"}],"cursor":"yesterday"}"#,
            ErrorCode::BadMessage,
        ),
        (r#"{"type":"subscribe","id":"x","tables":[{"table":"*"}],"cursor":"F/0"}"#, ErrorCode::CursorAhead),
        (
            r#"{"type":"subscribe","id":"x","tables":[{"table":"*"}],"cursor":"0/1","feed":"f_2"}"#,
            ErrorCode::FeedChanged,
        ),
        (
            r#"{"type":"subscribe","id":"x","tables":[{"table":"a.a"},{"table":"a.b"},{"table":"a.c"}]}"#,
            ErrorCode::LimitExceeded,
        ),
    ];
    for (text, code) in refused {
        client.send(text).await;
        let mut got = client.next().await;
        if matches!(got, ServerMessage::Waiting(_)) {
            got = client.next().await;
        }
        let ServerMessage::Error(error) = got else { panic!("{text}: {got:?}") };
        assert_eq!(error.code, code, "{text}: {}", error.message);
        // With an id only where a subscription was asked for and is not had.
        assert_eq!(error.id.is_some(), text.contains(r#""id":"x""#), "{text}");
    }
    client.socket.send(Message::binary(Bytes::from_static(b"\x00"))).await.unwrap();
    assert_eq!(client.error().await, ErrorCode::BadMessage);
    let all = r#""tables":[{"table":"*"}],"cursor":"latest""#;
    client.subscribe("one", all).await;
    assert_eq!(client.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    client.subscribe("one", all).await;
    let ServerMessage::Error(error) = client.next().await else { panic!("an error") };
    assert_eq!((error.code, error.id), (ErrorCode::BadMessage, None));
    client.subscribe("two", all).await;
    assert_eq!(client.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    client.subscribe("three", all).await;
    assert_eq!(client.error().await, ErrorCode::LimitExceeded);
    other.subscribe("one", all).await;
    assert_eq!(other.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    house.close().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_closed_as_too_big_and_endless_nonsense_as_a_breach() {
    let house = House::open(Limits { bad_messages_max: 3, ..Limits::default() }, 1 << 20).await;
    let mut client = house.client().await;
    client.send(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(client.close_code().await, 1009);
    let mut client = house.client().await;
    for _ in 0..3 {
        client.send("nonsense").await;
    }
    assert_eq!((client.error().await, client.error().await), (ErrorCode::BadMessage, ErrorCode::BadMessage));
    assert_eq!(client.error().await, ErrorCode::BadMessage);
    let ServerMessage::Error(fatal) = client.next().await else { panic!("no error") };
    assert!(fatal.fatal);
    assert_eq!(client.close_code().await, 1008);
    house.close().await;
}

#[tokio::test]
async fn a_client_that_closes_gets_its_code_back() {
    let house = House::open(Limits::default(), 1 << 20).await;
    let mut client = house.client().await;
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    client.socket.send(Message::Close(Some(frame))).await.unwrap();
    assert_eq!(client.close_code().await, 1001);
    house.close().await;
}

#[tokio::test]
async fn a_second_connection_under_the_same_name_takes_the_name_and_nothing_else() {
    let limits = Limits { ack_interval: Duration::from_millis(1), ..Limits::default() };
    let mut house = House::open(limits, 1 << 20).await;
    house.gate.open();
    let fields = r#""tables":[{"table":"public.a"}],"client_id":"c","cursor":"latest""#;
    let ack = |cursor: &str| format!(r#"{{"type":"ack","id":"s","cursor":"{cursor}"}}"#);
    let (mut first, mut second) = (house.client().await, house.client().await);
    first.subscribe("s", fields).await;
    assert_eq!(first.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    house.append(inserts(1, 1, &[])).await;
    assert_eq!(first.take(2).await, ["relation a id", r#"transaction 0/14 {"id":1}"#]);
    first.send(&ack("0/14")).await;
    assert_eq!(first.take(1).await, ["acked"]);
    second.subscribe("s", fields).await;
    assert_eq!(second.take(2).await, ["subscribed Live 0/14", "caught_up 0/14"]);
    // The first one gets what there is, and is told nothing more of what was acknowledged.
    house.append(inserts(2, 1, &[])).await;
    assert_eq!(first.take(1).await, [r#"transaction 0/1E {"id":2}"#]);
    assert_eq!(second.take(2).await, ["relation a id", r#"transaction 0/1E {"id":2}"#]);
    first.send(&ack("0/1E")).await;
    assert_eq!(first.error().await, ErrorCode::BadMessage);
    second.send(&ack("0/1E")).await;
    assert_eq!(second.take(1).await, ["acked"]);
    house.append(inserts(3, 1, &[])).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.take(1).await, [r#"transaction 0/28 {"id":3}"#]);
    }
    house.close().await;
}

#[tokio::test]
async fn clients_are_told_when_the_daemon_goes_down() {
    let house = House::open(Limits::default(), 1 << 20).await;
    let mut client = house.client().await;
    let _rude = house.client().await;
    house.shutdown.cancel();
    assert_eq!(client.close_code().await, 1001);
    timeout(PATIENCE, house.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(house.address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_read_harms_nobody_and_gets_everything_from_history_later() {
    let mut house = House::open(Limits::default(), 256 << 10).await;
    house.gate.open();
    let (mut stalled, mut lively) = (house.client().await, house.client().await);
    let tables = r#""tables":[{"table":"public.a"}],"cursor":"0/1""#;
    stalled.subscribe("s", tables).await;
    lively.subscribe("s", tables).await;
    assert_eq!(lively.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    // Many times what the feed and the kernel's buffers hold.
    let wide: Vec<String> = (0..400).map(|n| format!("column_number_{n}_with_a_long_name")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let count = 1000;
    for n in 0..count / 10 {
        house.append(inserts(n * 10 + 1, 10, &wide)).await;
        let mut seen = 0;
        while seen < 10 {
            seen += usize::from(matches!(lively.next().await, ServerMessage::Transaction(_)));
        }
    }
    assert!(house.feed.oldest() > at(5000), "the feed has forgotten the beginning");
    let mut ids = Vec::new();
    while ids.len() < count as usize {
        if let ServerMessage::Transaction(transaction) = stalled.next().await {
            ids.push(transaction.lsn.get() / 10);
        }
    }
    assert_eq!(ids, (1..=count).collect::<Vec<_>>());
    house.append(inserts(count + 1, 1, &[])).await;
    loop {
        if let ServerMessage::Transaction(transaction) = stalled.next().await {
            assert_eq!(transaction.lsn.get() / 10, count + 1);
            break;
        }
    }
    house.close().await;
}

#[tokio::test]
async fn heartbeats_carry_a_cursor_that_is_safe_for_every_subscription() {
    let mut house =
        House::open(Limits { heartbeat: Duration::from_millis(50), ..Limits::default() }, 1 << 20).await;
    house.gate.open();
    let mut client = house.client().await;
    let ServerMessage::Heartbeat(first) = client.next().await else { panic!("no heartbeat") };
    assert_eq!(first.cursor, None);
    client.subscribe("one", r#""tables":[{"table":"public.a"}],"cursor":"0/1""#).await;
    client
        .subscribe("two", r#""tables":[{"table":"public.other"},{"table":"elsewhere.*"}],"cursor":"0/1""#)
        .await;
    client.subscribe("three", r#""tables":[{"table":"elsewhere.*"}],"cursor":"0/1""#).await;
    house.append(inserts(1, 3, &[])).await;
    loop {
        if let ServerMessage::Heartbeat(heartbeat) = client.next().await
            && heartbeat.cursor == Some(at(40))
        {
            break;
        }
    }
    // A subscription without a cursor takes it away from the others.
    client.subscribe("four", r#""tables":[{"table":"public.a"}]"#).await;
    loop {
        if let ServerMessage::Heartbeat(heartbeat) = client.next().await
            && heartbeat.cursor.is_none()
        {
            break;
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_all_told_of_one_change() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    let mut clients = Vec::new();
    for n in 0..1000 {
        let mut client = house.client().await;
        client.subscribe(&format!("s{n}"), r#""tables":[{"table":"public.a"}],"cursor":"latest""#).await;
        assert_eq!(client.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
        clients.push(client);
    }
    house.append(inserts(1, 1, &[])).await;
    for client in &mut clients {
        assert_eq!(client.take(2).await, ["relation a id", r#"transaction 0/14 {"id":1}"#]);
    }
    drop(clients);
    house.close().await;
}

/// What comes back for a request that is written by hand.
async fn http(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn health_is_told_with_its_reasons_and_plain_requests_are_helped() {
    let house = House::open(Limits::default(), 1 << 20).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(http(house.address, &get("/livez")).await.starts_with("HTTP/1.1 200"));
    let starting = http(house.address, &get("/readyz")).await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("initial poll"), "{starting}");
    house.gate.open();
    house
        .writer
        .set_source(SourceState::Interrupted { reason: "no route".into(), hint: Some("plug in".into()) });
    let ready = http(house.address, &get("/readyz")).await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains("the source is not read: no route; plug in"), "{ready}");
    // Each by its present cause, and all of them.
    house.writer.set_source(SourceState::Interrupted { reason: "no publication".into(), hint: None });
    let mut history = house.feed.outages().part("history is not written");
    history.begin("disk full".into(), None);
    let ready = http(house.address, &get("/readyz")).await;
    assert!(ready.starts_with("HTTP/1.1 200") && !ready.contains("no route"), "{ready}");
    assert!(
        ready.contains("not read: no publication") && ready.contains("not written: disk full"),
        "{ready}"
    );
    history.end();
    assert!(!http(house.address, &get("/readyz")).await.contains("disk full"));
    let plain = http(house.address, &get("/v1/stream")).await;
    assert!(plain.starts_with("HTTP/1.1 426") && plain.contains("walcast.v1"), "{plain}");
    assert!(http(house.address, &get("/metrics")).await.starts_with("HTTP/1.1 404"));
    assert!(http(house.address, &get("/nowhere")).await.contains("/v1/stream"));
    let upgrade = |more: &str| {
        format!(
            "GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n{more}\r\n"
        )
    };
    let version = http(house.address, &upgrade("Sec-WebSocket-Version: 8\r\n")).await;
    let wanted = version.to_ascii_lowercase().contains("sec-websocket-version: 13\r\n");
    assert!(version.starts_with("HTTP/1.1 426") && wanted, "{version}");
    let other = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: graphql-ws\r\n";
    assert!(http(house.address, &upgrade(other)).await.starts_with("HTTP/1.1 400"));
    let mut request = format!("ws://{}/v1/stream", house.address).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "walcast.v1, other".parse().unwrap());
    let (_socket, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "walcast.v1");
    house.close().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_so() {
    let house = House::open(Limits { connections_max: 1, ..Limits::default() }, 1 << 20).await;
    let client = house.client().await;
    let refused = connect_async(format!("ws://{}/v1/stream", house.address)).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    drop(client);
    house.close().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_gets_nothing_but_its_end() {
    let limits = Limits { handshake_max: Duration::from_millis(100), ..Limits::default() };
    let house = House::open(limits, 1 << 20).await;
    assert!(!http(house.address, "GET /v1/str").await.starts_with("HTTP/1.1 101"));
    house.close().await;
}
