//! Requests whose client does not read, is no longer let in, or may have something else meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use walcast_model::Op;
use walcast_policy::Policies;
use walcast_snapshot::{FoundRows, SnapshotEvent};
use walcast_testkit::undisturbed;

use super::entrance::{STILL_MAX, by_token_with, seconds, token};
use super::http::{Answer, Events, ask, send};
use super::{House, PATIENCE, inserts};
use crate::limits::Limits;
use crate::testing::{Write, at, full, table, written};

const ALL: &str = "[[policy]]\nrole = \"*\"\ntable = \"*\"\n";
const OWN: &str =
    "[[policy]]\nrole = \"*\"\ntable = \"public.a\"\ncolumns = [\"id\", \"x\"]\nwhere = \"x = 'mine'\"\n";
const ROWS: &str = r#"{"table":"public.a","keys":[{"id":1}]}"#;

fn bearer(user: &str, left: i64) -> String {
    let token = token(&json!({"sub": user, "aud": "app", "exp": seconds(left)}));
    format!("Authorization: Bearer {token}\r\n")
}

async fn page(house: &House, more: &str, who: &str) -> Answer {
    ask(house, &format!("GET /v1/changes?tables=public.a&cursor=0/1{more}"), who).await
}

/// A page that waits for a transaction, of which it is not known whether it has begun.
async fn waiting_page(house: &House, who: &str) -> TcpStream {
    send(house, "GET /v1/changes?tables=public.a&cursor=0/1&wait=50s", who).await
}

async fn begin_rows(house: &House, who: &str) -> TcpStream {
    let mut socket = send(house, "POST /v1/rows", &format!("Content-Length: {}\r\n{who}", ROWS.len())).await;
    socket.write_all(ROWS.as_bytes()).await.unwrap();
    socket
}

async fn answer(mut socket: TcpStream) -> String {
    let mut text = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut text)).await.expect("an answer in time").unwrap();
    text
}

/// Waits until the only place of a user is taken.
async fn until_there(house: &House, who: &str) {
    let there = async { while page(house, "", who).await.status != 429 {} };
    timeout(PATIENCE, there).await.expect("the first request is let in");
}

async fn until_gone(house: &House, who: &str) {
    let gone = async {
        while page(house, "&limit=1", who).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the place is free again");
}

/// A house whose users may have everything, with more in it than a kernel holds for a client.
async fn full_house(limits: Limits) -> House {
    let (entrance, _) = by_token_with(None, ALL).await;
    let mut house = House::behind(entrance, limits, 8 << 20).await;
    house.gate.open();
    let wide: Vec<String> = (0..400).map(|n| format!("column_number_{n}_with_a_long_name")).collect();
    house.append(inserts(1, 100, &wide.iter().map(String::as_str).collect::<Vec<_>>())).await;
    house
}

/// Asks for a page of a megabyte, and reads no more than its first byte: the answer is on its way then.
async fn stall(house: &House, who: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(house.address).await.unwrap();
    let line = "GET /v1/changes?tables=public.a&cursor=0/1 HTTP/1.1";
    socket.write_all(format!("{line}\r\nHost: localhost\r\n{who}\r\n").as_bytes()).await.unwrap();
    assert_eq!(timeout(PATIENCE, socket.read_u8()).await.unwrap().unwrap(), b'H');
    socket
}

/// Whether all of an answer comes whose first byte was read.
async fn is_whole(mut socket: TcpStream) -> bool {
    let mut rest = Vec::new();
    // Cut off, by whatever the kernel calls that.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("an end");
    let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&rest[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).expect("a length").lines().next().unwrap();
    rest.len() - head - 4 == length.trim().parse::<usize>().unwrap()
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_there_until_it_is_read() {
    let limits = Limits { connections_per_user_max: 1, ..Limits::default() };
    let house = full_house(limits).await;
    let held = stall(&house, &bearer("ada", 60)).await;
    let refused = page(&house, "", &bearer("ada", 60)).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (429, &json!("limit_exceeded")),
        "{}",
        refused.body
    );
    assert!(refused.head.contains("retry-after: 5"), "{}", refused.head);
    assert_eq!(page(&house, "", &bearer("bob", 60)).await.status, 200);
    drop(held);
    until_gone(&house, &bearer("ada", 60)).await;
    house.close().await;
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off_after_a_while() {
    let limits = Limits {
        connections_per_user_max: 1,
        answer_stall_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let house = full_house(limits).await;
    let held = stall(&house, &bearer("ada", 60)).await;
    until_gone(&house, &bearer("ada", 60)).await;
    assert!(!is_whole(held).await);
    house.close().await;
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off_when_the_token_expires() {
    undisturbed(STILL_MAX, an_answer_ends_with_its_token).await;
}

async fn an_answer_ends_with_its_token() {
    let limits = Limits {
        connections_per_user_max: 1,
        answer_stall_max: Duration::from_secs(600),
        ..Limits::default()
    };
    let house = full_house(limits).await;
    let held = stall(&house, &bearer("ada", 3)).await;
    until_gone(&house, &bearer("ada", 60)).await;
    assert!(!is_whole(held).await);
    house.close().await;
}

#[tokio::test]
async fn a_user_has_so_many_bytes_that_are_not_read_and_harms_nobody_else() {
    let house = full_house(Limits { untaken_bytes_max: 3 << 19, ..Limits::default() }).await;
    let held = stall(&house, &bearer("ada", 60)).await;
    let refused = page(&house, "", &bearer("ada", 60)).await;
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("untaken_bytes_max"), "{}", refused.body);
    assert_eq!(page(&house, "&limit=1", &bearer("ada", 60)).await.status, 200);
    assert_eq!(page(&house, "", &bearer("bob", 60)).await.status, 200);
    drop(held);
    until_gone(&house, &bearer("ada", 60)).await;
    house.close().await;
}

#[tokio::test]
async fn whoever_waits_goes_when_the_token_expires_and_hears_why() {
    undisturbed(STILL_MAX, waiting_ends_with_the_token).await;
}

async fn waiting_ends_with_the_token() {
    let (entrance, _policies) = by_token_with(None, ALL).await;
    let house = House::behind(entrance, Limits::default(), 1 << 20).await;
    house.gate.open();
    house.source.defined.lock().unwrap().push(table("a", &["x"]));
    let soon = bearer("ada", 3);
    let page = waiting_page(&house, &soon).await;
    let rows = begin_rows(&house, &soon).await;
    let mut events = Events::open(&house, "tables=public.a&cursor=0/1", &soon).await;
    assert_eq!(events.status, 200);
    for answer in [answer(page).await, answer(rows).await] {
        assert!(answer.starts_with("HTTP/1.0 401") && answer.contains("the token has expired"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), "{answer}");
    }
    let last = async {
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        last
    };
    let last = timeout(PATIENCE, last).await.expect("the end of the stream");
    let (event, _, data) = last.expect("an event");
    assert_eq!(
        (event.as_str(), &data["code"], &data["fatal"]),
        ("error", &json!("unauthorized"), &json!(true))
    );
    assert_eq!(data["message"], "the token has expired");
    house.close().await;
}

/// A house with rows of two owners, which everybody may have until that is changed.
async fn shared_house() -> (House, watch::Sender<Arc<Policies>>) {
    let (entrance, policies) = by_token_with(None, ALL).await;
    let limits = Limits { connections_per_user_max: 1, ..Limits::default() };
    let house = House::behind(entrance, limits, 1 << 20).await;
    house.gate.open();
    let a = full(&table("a", &["x", "y"]));
    house.source.defined.lock().unwrap().push(Arc::clone(&a));
    (house, policies)
}

impl House {
    /// Two rows come, and one of them goes.
    async fn write(&mut self, lsn: u64) {
        let a = full(&table("a", &["x", "y"]));
        let theirs = r#"{"id":2,"x":"theirs","y":"secret"}"#;
        let writes = [
            Write(Op::Insert, a.clone(), [r#"{"id":1}"#, r#"{"id":1,"x":"mine","y":"secret"}"#, ""]),
            Write(Op::Insert, a.clone(), [r#"{"id":2}"#, theirs, ""]),
            Write(Op::Delete, a, [r#"{"id":2}"#, "", theirs]),
        ];
        self.append(vec![written(lsn, lsn + 10, &writes)]).await;
    }
}

/// Heartbeats are not among them, however long they are all that comes.
async fn next(events: &mut Events) -> (String, String, Value) {
    timeout(PATIENCE, events.next()).await.expect("an event in time").expect("an event")
}

fn is_own(text: &str) -> bool {
    !text.contains("secret") && !text.contains("theirs") && !text.contains(r#"{"id":2}"#)
}

#[tokio::test]
async fn a_page_has_nothing_that_was_taken_from_its_client_before_it_came() {
    // By chance it is asked first whether there is more, or whether policies have changed.
    for _ in 0..12 {
        let (mut house, policies) = shared_house().await;
        let who = bearer("ada", 60);
        let waiting = waiting_page(&house, &who).await;
        until_there(&house, &who).await;
        house.write(10).await;
        policies.send_replace(Arc::new(Policies::parse(OWN).unwrap()));
        let came = answer(waiting).await;
        assert!(came.contains(r#""cursor":"0/1","more":true,"relations":[],"transactions":[]}"#), "{came}");
        let next = page(&house, "", &who).await;
        assert!(next.body.contains(r#""row":{"id":1,"x":"mine"}"#) && is_own(&next.body), "{}", next.body);
        house.close().await;
    }
}

#[tokio::test]
async fn events_start_over_with_what_their_client_may_have_now() {
    let (mut house, policies) = shared_house().await;
    let mut events = Events::open(&house, "tables=public.a&cursor=0/1", &bearer("ada", 60)).await;
    house.write(10).await;
    loop {
        let (event, _, data) = next(&mut events).await;
        if event == "transaction" {
            assert_eq!(data["changes"].as_array().unwrap().len(), 3, "{data}");
            break;
        }
    }
    let a = full(&table("a", &["x", "y"]));
    let json = r#"{"id":1,"x":"mine","y":"secret"}"#.into();
    let rows = SnapshotEvent::Rows { relation: Arc::clone(&a), json, count: 1 };
    let done = SnapshotEvent::Done { snapshot: "20:20:".parse().unwrap(), barrier: at(20) };
    *house.source.events.lock().unwrap() = vec![SnapshotEvent::Relation(a), rows, done];
    policies.send_replace(Arc::new(Policies::parse(OWN).unwrap()));
    let mut said = Vec::new();
    while !said.iter().any(|text: &String| text.contains("snapshot_complete")) {
        let (event, _, data) = next(&mut events).await;
        // It may have caught up before.
        if !(said.is_empty() && event == "caught_up") {
            said.push(data.to_string());
        }
    }
    assert!(said[0].contains(r#""mode":"snapshot""#), "{said:?}");
    house.write(30).await;
    while !said.iter().any(|text| text.contains("transaction\"")) {
        said.push(next(&mut events).await.2.to_string());
    }
    let said = said.concat();
    assert!(said.contains(r#""row":{"id":1,"x":"mine"}"#) && is_own(&said), "{said}");
    house.close().await;
}

#[tokio::test]
async fn rows_are_not_given_to_a_client_that_may_have_others_meanwhile() {
    let (house, policies) = shared_house().await;
    let who = bearer("ada", 60);
    let waiting = begin_rows(&house, &who).await;
    until_there(&house, &who).await;
    policies.send_replace(Arc::new(Policies::parse(OWN).unwrap()));
    let came = answer(waiting).await;
    assert!(came.starts_with("HTTP/1.0 503") && came.contains("the policies have changed"), "{came}");
    let relation = full(&table("a", &["x", "y"]));
    let row = br#"{"id":1,"x":"mine","y":"secret"}"#;
    let (rows, snapshot) = (vec![Some(row.as_slice().into())], "20:20:".parse().unwrap());
    *house.source.found.lock().unwrap() = Some(FoundRows { relation, rows, snapshot });
    let came = answer(begin_rows(&house, &who).await).await;
    assert!(came.ends_with(r#""rows":[{"id":1,"x":"mine"}]}"#), "{came}");
    house.close().await;
}
