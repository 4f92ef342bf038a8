//! Limits of a user where nobody is one: each connection has them for itself, and gives back what it had when it goes.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, shared_cluster, within};

use crate::channels::Client;
use crate::http::begin;
use crate::observer::{Socket, open, receive, send};

/// A condition that no index finds, over a socket: what is answered.
async fn asks(socket: &mut Socket, word: &str) -> Value {
    let entry = json!({"table": "public.t", "where": format!("note LIKE '%{word}%'")});
    send(socket, json!({"type": "subscribe", "id": word, "tables": [entry], "cursor": "latest"})).await;
    loop {
        let message = receive(socket).await.expect("the connection goes on");
        if message["id"] == word && (message["type"] == "caught_up" || message["type"] == "error") {
            return message;
        }
    }
}

/// A stream of events of so many tables with such a condition: its socket, and what came first of the answer.
async fn stream(daemon: &Daemon, tables: usize) -> (TcpStream, String) {
    let tables = &["public.t", "public.u", "public.v"][..tables];
    let conditions: Vec<String> =
        tables.iter().map(|table| format!("&where.{table}=note+LIKE+'%25x%25'")).collect();
    let line = format!("GET /v1/changes?cursor=latest&tables={}{}", tables.join(","), conditions.concat());
    let mut socket = begin(daemon, &line, "Accept: text/event-stream\r\n", "").await;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = within("an answer", LIMIT, socket.read_buf(&mut answer)).await.expect("an answer");
        assert!(read > 0, "the connection ended");
    }
    (socket, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn each_connection_has_its_own_conditions_that_no_index_finds() {
    let database = TestDatabase::create(shared_cluster().await).await;
    for table in ["t", "u", "v"] {
        let columns = "id int PRIMARY KEY, note text COLLATE \"C\"";
        database
            .run(&format!("CREATE TABLE {table} ({columns}); ALTER TABLE {table} REPLICA IDENTITY FULL"))
            .await;
    }
    let daemon = Daemon::of(&database).flag("--scans-per-user-max", 2).start().await;
    let scans = async |count: f64| {
        let are = async || (daemon.metric("walcast_filter_scans").await == Some(count)).then_some(());
        eventually(&format!("{count} conditions"), LIMIT, are).await;
    };
    let (mut one, _) = open(&daemon.ws_url()).await;
    let (mut other, _) = open(&daemon.ws_url()).await;
    for socket in [&mut one, &mut other] {
        for word in ["a", "b"] {
            assert_eq!(asks(socket, word).await["type"], "caught_up", "{word}");
        }
        let refused = asks(socket, "c").await;
        assert_eq!(refused["code"], "limit_exceeded", "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("scans_per_user_max")));
    }
    scans(4.0).await;
    assert_eq!(daemon.metric("walcast_filter_scans_refused_total").await, Some(2.0));
    // A stream of events is a connection of its own, and no larger.
    let (events, answer) = stream(&daemon, 2).await;
    assert!(answer.contains(" 200 "), "{answer}");
    scans(6.0).await;
    let (_, refused) = stream(&daemon, 3).await;
    assert!(refused.contains(" 400 "), "{refused}");
    drop(events);
    scans(4.0).await;
    drop(one);
    scans(2.0).await;
    drop(other);
    scans(0.0).await;
}

#[tokio::test]
async fn each_connection_has_its_own_bytes_that_others_are_told() {
    let database = TestDatabase::create(shared_cluster().await).await;
    // The slowest that may be: some seconds for what is said at first.
    let daemon = Daemon::of(&database).flag("--fan-out-bytes-per-second-max", "1KiB").start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(&daemon.ws_url()).await;
        client.join(json!({"channel": "room"})).await;
        clients.push(client);
    }
    let long = json!({"type": "publish", "channel": "room", "payload": "z".repeat(30_000)});
    let short =
        |number: usize| json!({"type": "publish", "channel": "room", "payload": number, "ref": "short"});
    for speaker in [0, 1] {
        clients[speaker].say(long.clone()).await;
        clients[speaker].say(short(speaker)).await;
        let refused = clients[speaker].until("error").await;
        assert_eq!((&refused["code"], &refused["ref"]), (&json!("limit_exceeded"), &json!("short")));
        let said = refused["message"].as_str().expect("a message");
        assert!(said.contains("fan_out_bytes_per_second_max"), "{refused}");
        assert_eq!(clients[2].until("message").await["payload"], long["payload"], "of {speaker}");
    }
    // Who has told nobody anything may.
    clients[2].say(short(2)).await;
    assert_eq!(clients[0].until("message").await["payload"].as_str().map(str::len), Some(30_000));
    assert_eq!(clients[0].until("message").await["payload"], 2);
}
