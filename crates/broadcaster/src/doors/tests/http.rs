//! Pages and events, over sockets that are written and read by hand.

use std::io::Read as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use walcast_protocol::ServerMessage;
use walcast_snapshot::SnapshotEvent;

use super::entrance::{by_token, seconds, token};
use super::{EntranceSettings, House, PATIENCE, inserts};
use crate::limits::Limits;
use crate::testing::{Insert, at, part, table};

/// An answer: its status, its head in lower case, its body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// HTTP/1.0, so that the answer comes as it is and ends with the connection.
pub(super) async fn send(house: &House, line: &str, headers: &str) -> TcpStream {
    let mut socket = TcpStream::connect(house.address).await.unwrap();
    socket
        .write_all(format!("{line} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").as_bytes())
        .await
        .unwrap();
    socket
}

pub(super) async fn ask(house: &House, line: &str, headers: &str) -> Answer {
    let mut socket = send(house, line, headers).await;
    let mut text = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut text)).await.expect("an answer in time").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[tokio::test]
async fn a_path_that_takes_another_method_says_so_and_which() {
    let house = House::open(Limits::default(), 1 << 20).await;
    for (line, allowed) in
        [("POST /v1/changes", "get,head"), ("GET /v1/rows", "post"), ("DELETE /livez", "get,head")]
    {
        let answer = ask(&house, line, "Origin: http://localhost\r\n").await;
        assert_eq!(answer.status, 405, "{line}");
        // A page that may ask may read that, too.
        let is_readable = answer.head.contains("access-control-allow-origin: http://localhost");
        assert_eq!(is_readable, line.contains("/v1/"), "{}", answer.head);
        assert!(answer.head.contains(&format!("\r\nallow: {allowed}\r\n")), "{line}: {}", answer.head);
        let error = answer.json();
        assert_eq!(error["code"], "bad_message", "{line}");
        let (method, path) = line.split_once(' ').unwrap();
        assert_eq!(error["message"], format!("{path} does not take {method}"));
        assert!(error["hint"].as_str().unwrap().contains("Allow"), "{error}");
    }
    let nothing = ask(&house, "GET /v2/stream", "").await;
    assert_eq!((nothing.status, nothing.json()["code"].as_str()), (404, Some("not_found")));
}

pub(super) async fn get(house: &House, query: &str) -> Answer {
    ask(house, &format!("GET /v1/changes?{query}"), "").await
}

async fn page(house: &House, query: &str) -> Value {
    let answer = get(house, query).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Cursor, `more` and the ids of a page; `+` behind a transaction that goes on.
fn brief(page: &Value) -> String {
    let ids = |transaction: &Value| {
        let changes = transaction["changes"].as_array().unwrap();
        let ids: Vec<String> = changes.iter().map(|change| change["key"]["id"].to_string()).collect();
        format!("[{}{}]", ids.join(","), if transaction["more"] == true { "+" } else { "" })
    };
    let transactions: Vec<String> = page["transactions"].as_array().unwrap().iter().map(ids).collect();
    format!("{} {} {}", page["cursor"].as_str().unwrap(), page["more"], transactions.join(""))
}

/// Server-sent events.
pub(super) struct Events {
    lines: BufReader<TcpStream>,
    pub(super) status: u16,
}

impl Events {
    pub(super) async fn open(house: &House, query: &str, headers: &str) -> Self {
        let headers = format!("Accept: text/event-stream\r\n{headers}");
        let socket = send(house, &format!("GET /v1/changes?{query}"), &headers).await;
        let mut events = Self { lines: BufReader::new(socket), status: 0 };
        let first = events.line().await.unwrap();
        events.status = first.split(' ').nth(1).unwrap().parse().unwrap();
        while !events.line().await.unwrap().is_empty() {}
        events
    }

    pub(super) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("a line in time").unwrap();
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Type, id and data of the next event that is about the feed; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<(String, String, Value)> {
        let (mut event, mut id, mut data) = (String::new(), String::new(), Value::Null);
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("event", name)) => event = name.to_owned(),
                Some(("id", text)) => id = text.to_owned(),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                Some(("retry", _)) => {}
                None if line.is_empty() => {
                    let about_us = !["", "welcome", "status", "heartbeat"].contains(&event.as_str());
                    assert!(event.is_empty() || data["type"] == event.as_str(), "{event}: {data}");
                    if about_us {
                        return Some((event, id, data));
                    }
                    (event, id, data) = (String::new(), String::new(), Value::Null);
                }
                _ => panic!("{line:?}"),
            }
        }
    }

    /// Type and id of so many events.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let (event, id, _) = self.next().await.expect("an event");
            taken.push(format!("{event} {id}").trim_end().to_owned());
        }
        taken
    }
}

#[tokio::test]
async fn pages_follow_one_another_and_split_no_transaction_in_silence() {
    let a = table("a", &[]);
    let limits = Limits { poll_bytes_max: 600, ..Limits::default() };
    let mut house = House::open(limits, 1 << 20).await;
    house.gate.open();
    house.append(inserts(1, 2, &[])).await;
    // A transaction of three parts, of which two do not fit into a page.
    let many = |from: u64| (from..from + 8).map(|id| Insert(id, a.clone())).collect::<Vec<_>>();
    house.append(vec![part(100, 0, &many(10), None), part(100, 8, &many(20), None)]).await;
    house.append(vec![part(100, 16, &many(30), Some(120))]).await;
    house.append(inserts(13, 1, &[])).await;
    let (mut cursor, mut pages) = ("0/1".to_owned(), Vec::new());
    loop {
        let page = page(&house, &format!("tables=public.a&cursor={cursor}")).await;
        assert_eq!(page["feed"], "f_1");
        assert_eq!(page["relations"].as_array().unwrap().len(), 1, "{page}");
        assert_eq!(page["relations"][0]["table"], "public.a");
        assert!(page["transactions"][0].get("type").is_none() && page["transactions"][0]["xid"].is_u64());
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        pages.push(brief(&page));
        if page["more"] == false {
            break;
        }
    }
    let expected = [
        "0/1E true [1][2]",
        "0/64:8 true [10,11,12,13,14,15,16,17+]",
        "0/64:16 true [20,21,22,23,24,25,26,27+]",
        "0/78 true [30,31,32,33,34,35,36,37]",
        "0/8C false [13]",
    ];
    assert_eq!(pages, expected);
    let packed = "Accept-Encoding: br, gzip\r\n";
    let small = ask(&house, "GET /v1/changes?tables=public.a&cursor=0/1&limit=1", packed).await;
    assert!(!small.head.contains("content-encoding") && small.head.contains("vary: accept-encoding"));
    let limited = page(&house, "tables=public.a&cursor=0/1&limit=1").await;
    assert_eq!(brief(&limited), "0/14 true [1]");
    // What does not concern the client moves it on all the same.
    let quiet = page(&house, "tables=elsewhere.*&cursor=0/1").await;
    assert_eq!(brief(&quiet), "0/8C false ");
    house.close().await;
}

/// A page that has nothing yet, and waits for longer than anybody does here.
async fn waiting_poll(house: &mut House, cursor: &str) -> TcpStream {
    let resolved = *house.resolved.borrow_and_update();
    let line = format!("GET /v1/changes?tables=public.a&cursor={cursor}&wait=50s");
    let polling = send(house, &line, "").await;
    let asked = house.resolved.wait_for(|count| *count > resolved);
    timeout(PATIENCE, asked).await.expect("the page is asked for").unwrap();
    polling
}

#[tokio::test]
async fn a_page_that_waits_comes_with_the_first_transaction_or_when_its_time_is_over() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    let began = Instant::now();
    let empty = page(&house, "tables=public.a&cursor=latest&wait=300ms").await;
    assert_eq!(brief(&empty), "0/1 false ");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let mut polling = waiting_poll(&mut house, "0/1").await;
    house.append(inserts(1, 1, &[])).await;
    let mut answer = String::new();
    timeout(PATIENCE, polling.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains(r#""cursor":"0/14","more":false"#), "{answer}");
    // One that goes down answers at once.
    let mut polling = waiting_poll(&mut house, "0/14").await;
    house.shutdown.cancel();
    let mut answer = String::new();
    timeout(PATIENCE, polling.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    house.close().await;
}

#[tokio::test]
async fn a_history_that_is_away_is_named_to_whoever_asks_and_to_whoever_waits() {
    let limits = Limits {
        poll_answer_max: Duration::from_millis(200),
        heartbeat: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut house = House::open(limits, 256).await;
    house.past.is_away.store(true, Ordering::Relaxed);
    // Nobody is served yet, whatever is away.
    let starting = get(&house, "tables=public.a&cursor=0/1").await;
    assert!(starting.body.contains("the daemon is starting, and answers once"), "{}", starting.body);
    house.gate.open();
    // More than the feed holds in memory.
    house.append(inserts(1, 20, &[])).await;
    let late = get(&house, "tables=public.a&cursor=0/1").await;
    assert_eq!((late.status, &late.json()["code"]), (503, &json!("not_ready")));
    assert!(late.head.contains("retry-after: 5"), "{}", late.head);
    let (message, hint) = (late.json()["message"].to_string(), late.json()["hint"].to_string());
    let what = "has not come, and is waited for 200ms (poll_answer_max, or wait): history is not read, for ";
    assert!(message.contains(what) && message.contains(" s now: the history's database has no"), "{message}");
    assert!(hint.contains("ask again after a few seconds, from the same cursor"), "{hint}");
    let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let ready = super::http(house.address, request).await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("history is not read: the history's"),
        "{ready}"
    );
    let mut client = house.client().await;
    client.subscribe("s", r#""tables":[{"table":"public.a"}],"cursor":"0/1""#).await;
    let waiting = loop {
        match client.next().await {
            ServerMessage::Waiting(waiting) => break waiting,
            ServerMessage::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let message = waiting.message.unwrap();
    assert!(
        message.starts_with("history is not read, for ") && message.contains("goes on by itself"),
        "{message}"
    );
    house.past.is_away.store(false, Ordering::Relaxed);
    loop {
        match client.next().await {
            ServerMessage::Subscribed(_) => break,
            // It is told once.
            ServerMessage::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(get(&house, "tables=public.a&cursor=0/1").await.status, 200);
    let ready = super::http(house.address, request).await;
    assert!(!ready.contains("history is not read"), "{ready}");
    house.close().await;
}

#[tokio::test]
async fn errors_come_as_a_status_with_what_to_do() {
    let limits = Limits { poll_answer_max: Duration::from_millis(200), ..Limits::default() };
    let mut house = House::open(limits, 1 << 20).await;
    let closed = get(&house, "tables=public.a&cursor=0/10").await;
    assert_eq!((closed.status, &closed.json()["code"]), (503, &json!("not_ready")));
    assert!(closed.head.contains("retry-after: 5"), "{}", closed.head);
    house.gate.open();
    house.append(inserts(1, 3, &[])).await;
    let cases = [
        ("tables=public.a", 400, "bad_message"),
        ("tables=public.a&cursor=nonsense", 400, "bad_message"),
        ("tables=public.a&cursor=0/1&were=x", 400, "bad_message"),
        ("tables=public.a&cursor=0/1&columns=nope", 400, "bad_message"),
        ("tables=public.a&cursor=0/1&where=id+=+", 400, "bad_filter"),
        ("tables=public.nope&cursor=0/1", 404, "unknown_table"),
        ("tables=public.a&cursor=0/0:1", 410, "cursor_too_old"),
        ("tables=public.a&cursor=0/FF", 409, "cursor_ahead"),
        ("tables=public.a&cursor=0/10&feed=f_2", 409, "feed_changed"),
        ("tables=public.a&cursor=f_2@0/10", 409, "feed_changed"),
    ];
    for (query, status, code) in cases {
        let answer = get(&house, query).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{query}: {}",
            answer.body
        );
        assert!(answer.json()["message"].is_string());
        let events = Events::open(&house, query, "").await.status;
        // An initial sync is one for events.
        assert_eq!(events, if query == "tables=public.a" { 200 } else { status }, "{query}");
    }
    let too_old = get(&house, "tables=public.a&cursor=0/0:1").await.json();
    assert_eq!(too_old["oldest"], "0/1");
    house.close().await;
}

#[tokio::test]
async fn events_are_the_messages_of_a_subscription_and_go_on_where_they_were_cut() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    house.append(inserts(1, 3, &["x"])).await;
    let a = table("a", &["x"]);
    let rows = SnapshotEvent::Rows { relation: a.clone(), json: r#"{"id":1,"x":"v1"}"#.into(), count: 1 };
    let done = SnapshotEvent::Done { snapshot: "20:20:".parse().unwrap(), barrier: at(40) };
    *house.source.events.lock().unwrap() = vec![SnapshotEvent::Relation(a), rows, done];
    let mut events = Events::open(&house, "tables=public.a", "").await;
    let expected = [
        "subscribed 0/0",
        "relation",
        "snapshot",
        "transaction",
        "transaction",
        "snapshot_complete f_1@0/28",
        "caught_up f_1@0/28",
    ];
    assert_eq!(events.take(7).await, expected);
    house.append(inserts(4, 1, &["x"])).await;
    assert_eq!(events.take(1).await, ["transaction f_1@0/32"]);
    drop(events);
    house.append(inserts(5, 1, &["x"])).await;
    let mut events = Events::open(&house, "tables=public.a", "Last-Event-ID: f_1@0/32\r\n").await;
    let expected = ["subscribed f_1@0/32", "relation", "transaction f_1@0/3C", "caught_up f_1@0/3C"];
    assert_eq!(events.take(4).await, expected);
    house.close().await;
}

#[tokio::test]
async fn who_comes_without_a_token_gets_nothing() {
    let house = House::behind(by_token(None).await, Limits::default(), 1 << 20).await;
    house.gate.open();
    let good = token(&json!({"sub": "ada", "aud": "app", "exp": seconds(60)}));
    let query = "tables=public.a&cursor=0/1";
    for (more, headers) in [("", ""), ("&token=nonsense", ""), ("", "Authorization: Bearer x\r\n")] {
        let answer = ask(&house, &format!("GET /v1/changes?{query}{more}"), headers).await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("unauthorized")));
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        assert_eq!(Events::open(&house, &format!("{query}{more}"), headers).await.status, 401);
    }
    // Nothing is granted to this one, which is said as on a WebSocket.
    let answer =
        ask(&house, &format!("GET /v1/changes?{query}"), &format!("Authorization: Bearer {good}\r\n")).await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("forbidden")), "{}", answer.body);
    house.close().await;
}

#[tokio::test]
async fn pages_of_sites_that_may_ask_read_the_answer_and_others_get_none() {
    let settings = EntranceSettings {
        allowed_origins: vec!["https://app.example".to_owned()],
        ..EntranceSettings::open()
    };
    let house = House::behind(settings, Limits::default(), 1 << 20).await;
    house.gate.open();
    let line = "OPTIONS /v1/changes";
    let wanted = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n";
    let preflight = ask(&house, line, &format!("Origin: https://app.example\r\n{wanted}")).await;
    assert_eq!(preflight.status, 204);
    for line in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-headers: authorization,",
        "access-control-allow-methods: get, post",
    ] {
        assert!(preflight.head.contains(line), "{}", preflight.head);
    }
    assert!(!preflight.head.contains("credentials"));
    let refused = ask(&house, line, &format!("Origin: https://evil.example\r\n{wanted}")).await;
    assert!(refused.status == 403 && !refused.head.contains("access-control"), "{}", refused.head);
    let line = "GET /v1/changes?tables=public.a&cursor=0/1";
    let answer = ask(&house, line, "Origin: https://app.example\r\n").await;
    assert!(answer.status == 200 && answer.head.contains("access-control-allow-origin: https://app.example"));
    assert!(answer.head.contains("vary: origin") && answer.head.contains("cache-control: no-store"));
    // Errors are read by the page too.
    let answer = ask(&house, "GET /v1/changes?tables=", "Origin: https://app.example\r\n").await;
    assert!(answer.status == 400 && answer.head.contains("access-control-allow-origin"), "{}", answer.head);
    assert_eq!(ask(&house, line, "Origin: https://evil.example\r\n").await.status, 403);
    // A page whose host was made to lead here sends no origin, and the name gives it away.
    for (host, status) in
        [("evil.example", 403), ("app.example", 200), ("walcast", 200), ("10.0.0.1:4700", 200)]
    {
        let mut socket = TcpStream::connect(house.address).await.unwrap();
        let request = format!("{line} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(text.split(' ').nth(1), Some(status.to_string().as_str()), "{host}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_request_takes_a_place_until_its_client_has_gone_and_too_many_are_told_so() {
    let limits = Limits { connections_max: 1, heartbeat: Duration::from_millis(50), ..Limits::default() };
    let mut house = House::open(limits, 1 << 20).await;
    house.gate.open();
    let query = "tables=public.a&cursor=0/1";
    for events in [true, false] {
        let mut held = match events {
            true => Events::open(&house, query, "").await.lines,
            false => BufReader::new(send(&house, &format!("GET /v1/changes?{query}&wait=50s"), "").await),
        };
        let refused = loop {
            let answer = get(&house, query).await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("limit_exceeded")));
        held.get_mut().shutdown().await.unwrap();
        drop(held);
        let free = async {
            while get(&house, query).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, free).await.expect("the place is free again");
    }
    house.append(inserts(1, 1, &[])).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_events_slowly_misses_nothing() {
    let limits = Limits { heartbeat: Duration::from_millis(50), ..Limits::default() };
    let mut house = House::open(limits, 256 << 10).await;
    house.gate.open();
    let mut stalled = Events::open(&house, "tables=public.a&cursor=0/1", "").await;
    assert_eq!(stalled.take(2).await, ["subscribed f_1@0/1", "caught_up f_1@0/1"]);
    let wide: Vec<String> = (0..400).map(|n| format!("column_number_{n}_with_a_long_name")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    house.append(inserts(1, 1500, &wide)).await;
    assert!(house.feed.oldest() > at(5000), "the feed has forgotten the beginning");
    let whole = get(&house, "tables=public.a&cursor=0/1&limit=3").await.body;
    let mut socket =
        send(&house, "GET /v1/changes?tables=public.a&cursor=0/1&limit=3", "Accept-Encoding: br, gzip\r\n")
            .await;
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let begin = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(String::from_utf8_lossy(&bytes[..begin]).contains("content-encoding: gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[begin..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, whole);
    let mut ids = Vec::new();
    while ids.len() < 1500 {
        let (event, _, data) = stalled.next().await.unwrap();
        if event == "transaction" {
            ids.push(data["changes"][0]["key"]["id"].as_u64().unwrap());
        }
    }
    assert_eq!(ids, (1..=1500).collect::<Vec<_>>());
    house.close().await;
}
