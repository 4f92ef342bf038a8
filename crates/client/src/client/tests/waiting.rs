//! Waiting for rows and commits, against a daemon that the test plays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::{Daemon, PATIENCE, data, next, play, subscribed, subscription, transaction};
use crate::{Client, ErrorKind, Event, Found, FoundBy, Lookup, StartAt};

/// A request for rows: its head, and its body.
struct Request {
    head: String,
    body: Value,
    stream: tokio::io::DuplexStream,
}

impl Request {
    async fn answer(mut self, status: &str, body: &str) {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.stream.write_all(text.as_bytes()).await.unwrap();
        // Until the client has read it.
        let _ = self.stream.read_to_end(&mut Vec::new()).await;
    }

    fn ids(&self) -> Vec<u64> {
        self.body["keys"].as_array().unwrap().iter().map(|key| key["id"].as_u64().unwrap()).collect()
    }

    /// Rows for these ids, and none for the others.
    async fn rows(self, there: impl Fn(u64) -> bool) {
        let row = |id| if there(id) { format!(r#"{{"id":{id}}}"#) } else { "null".to_owned() };
        let rows: Vec<String> = self.ids().into_iter().map(row).collect();
        let rows = rows.join(",");
        self.answer("200 OK", &format!(r#"{{"feed":"f1","cursor":"0/1","reached":"0/50","rows":[{rows}]}}"#))
            .await;
    }
}

impl Daemon {
    /// The next connection, on which rows are asked for.
    async fn request(&self) -> Request {
        let mut connections = self.connections.lock().await;
        let mut stream = timeout(PATIENCE, connections.recv()).await.expect("rows are asked for").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        assert!(head.starts_with("POST /v1/rows HTTP/1.1\r\n"), "{head}");
        Request { head, body: serde_json::from_slice(&body).unwrap(), stream }
    }

    /// Nobody connects for so long.
    async fn is_left_alone(&self, pause: Duration) {
        let mut connections = self.connections.lock().await;
        assert!(timeout(pause, connections.recv()).await.is_err(), "somebody connected");
    }
}

fn any(_: &RawValue) -> bool {
    true
}

fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn by_rows(found: &Found) -> bool {
    found.by == FoundBy::Rows { feed: "f1".parse().unwrap(), reached: "0/50".parse().unwrap() }
}

#[tokio::test(start_paused = true)]
async fn the_stream_counts_when_the_caller_has_handled_it() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("snapshot", "0/0")).await;
        peer.send(
            r#"{"type":"snapshot","id":"s","table":"public.t","rows":[{"id":1}],"progress":{"done":1}}"#,
        )
        .await;
        peer.send(r#"{"type":"snapshot_complete","id":"s","cursor":"0/8"}"#).await;
        for version in 1..=3 {
            peer.send(&format!(
                r#"{{"type":"transaction","id":"s","cursor":"0/{version}0","lsn":"0/10","xid":7,"committed_at":"2026-11-21T00:00:00Z","changes":[
                {{"op":"delete","table":"public.t","key":{{"id":7}}}},
                {{"op":"update","table":"public.t","key":{{"id":{version}0}},"row":{{"v":{version},"id":7}}}}]}}"#
            )).await;
        }
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    let handle = client.handle();
    // In the order of columns of nobody, and as a string.
    let mut wait = handle.wait_for("public.t", &json!({"id": "7"}), |row| {
        serde_json::from_str::<Value>(row.get()).unwrap()["v"].as_u64() >= Some(2)
    });
    let mut synced = handle.wait_for("public.t", &json!({"id": 1}), any);
    client.subscribe(subscription()).await.unwrap();
    while !matches!(next(&mut client).await, Event::Snapshot(_)) {}
    assert!((&mut synced).now_or_never().is_none());
    let Event::SnapshotComplete(_) = next(&mut client).await else { panic!() };
    assert_eq!((&mut synced).now_or_never().unwrap().unwrap().row.get(), r#"{"id":1}"#);
    for _ in 0..2 {
        assert!((&mut wait).now_or_never().is_none());
        let Event::Transaction(_) = data(&mut client).await else { panic!() };
    }
    assert!((&mut wait).now_or_never().is_none(), "the caller has not come back yet");
    let Event::Transaction(_) = data(&mut client).await else { panic!() };
    let found = (&mut wait).now_or_never().unwrap().unwrap();
    assert_eq!((found.row.get(), found.by), (r#"{"v":2,"id":7}"#, FoundBy::Stream("s".parse().unwrap())));
    client.close().await;
    script.await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn thousands_are_asked_for_in_few_requests_from_5_s_on() {
    let (daemon, builder) = Daemon::start();
    let client = builder.build().unwrap();
    let handle = client.handle();
    let begun = Instant::now();
    // Each twice.
    let waits: Vec<_> =
        (0..5000).map(|id| handle.wait_for("public.t", &json!({"id": id / 2}), any)).collect();
    let script = play(async move {
        let mut all = Vec::new();
        for _ in 0..3 {
            let request = daemon.request().await;
            all.extend(request.ids());
            request.rows(|id| id % 2 == 0).await;
        }
        assert_eq!(begun.elapsed().as_secs(), 5);
        all.sort_unstable();
        assert_eq!(all, (0..2500).collect::<Vec<_>>());
        let mut rest = Vec::new();
        for _ in 0..2 {
            let request = daemon.request().await;
            rest.extend(request.ids());
            request.rows(|_| true).await;
        }
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert!(rest.len() == 1250 && rest.iter().all(|id| id % 2 == 1), "{}", rest.len());
        daemon.is_left_alone(Duration::from_secs(60)).await;
    });
    let found = join_all(waits).await;
    assert!(found.iter().all(|found| by_rows(found.as_ref().unwrap())));
    script.await.unwrap();
    assert_eq!(alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_come_one_after_the_other_share_their_requests() {
    let (daemon, builder) = Daemon::start();
    let client = builder.build().unwrap();
    let handle = client.handle();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let script = play(async move {
        loop {
            let request = daemon.request().await;
            counted.fetch_add(1, Ordering::Relaxed);
            request.rows(|_| true).await;
        }
    });
    let mut waits = Vec::new();
    for id in 0..1000 {
        waits.push(handle.wait_for("public.t", &json!({"id": id}), any).ask_after(Duration::ZERO));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(join_all(waits).await.iter().all(Result::is_ok));
    let count = count.load(Ordering::Relaxed);
    assert!((9..=12).contains(&count), "{count} requests in 10 s");
    script.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_leaves_nothing_behind() {
    let (daemon, builder) = Daemon::start();
    let mut client = builder.build().unwrap();
    let handle = client.handle();
    let id = "s".parse().unwrap();
    client.subscribe(subscription()).await.unwrap();
    for _ in 0..1000 {
        drop(handle.wait_for("public.t", &json!({"id": 1}), any));
        drop(handle.after_commit(&id, "0/7".parse().unwrap()));
    }
    let kept = handle.wait_for("public.t", &json!({"id": 2}), any);
    let gone = handle.wait_for("public.t", &json!({"id": 3}), any).within(Duration::from_secs(1));
    assert_eq!(gone.await.unwrap_err().kind(), ErrorKind::Deadline);
    let late = handle.after_commit(&id, "0/7".parse().unwrap()).within(Duration::from_secs(1));
    assert_eq!(late.await.unwrap_err().kind(), ErrorKind::Deadline);
    let request = daemon.request().await;
    assert_eq!(request.ids(), [2]);
    // The last one goes while it is asked for.
    drop(kept);
    let mut stream = request.stream;
    assert_eq!(
        timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap(),
        0,
        "the request is given up"
    );
    assert_eq!(alive(), 0);
    daemon.is_left_alone(Duration::from_secs(60)).await;
    // What comes after is asked for again.
    let wait = handle.wait_for("public.t", &json!({"id": 4}), any);
    assert_eq!(daemon.request().await.ids(), [4]);
    drop(wait);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_harms_nobody_else() {
    let (daemon, builder) = Daemon::start();
    let client = builder.build().unwrap();
    let handle = client.handle();
    let script = tokio::spawn(async move {
        let mut requests = 0;
        let mut left = 100;
        while left > 0 {
            let request = daemon.request().await;
            requests += 1;
            let ids = request.ids();
            if ids.contains(&13) {
                left -= usize::from(ids.len() == 1);
                request.answer("400 Bad Request", r#"{"code":"bad_message","message":"no such id"}"#).await;
            } else {
                left -= ids.len();
                request.rows(|_| true).await;
            }
        }
        requests
    });
    let waits = (0..100).map(|id| handle.wait_for("public.t", &json!({"id": id}), any));
    let found = join_all(waits).await;
    for (id, found) in found.iter().enumerate() {
        assert_eq!(found.is_ok(), id != 13, "{id}: {found:?}");
    }
    let error = found[13].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.answer().unwrap().message.as_str()), (ErrorKind::Refused, "no such id"));
    assert!(script.await.unwrap() < 20);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_refused_is_told_at_once_and_what_may_pass_is_asked_again() {
    let (daemon, builder) = Daemon::start();
    let client = builder.build().unwrap();
    let handle = client.handle();
    let begun = Instant::now();
    let script = play(async move {
        for _ in 0..2 {
            let request = daemon.request().await;
            let busy = r#"{"code":"not_ready","message":"m"}"#;
            if request.body["table"] == "public.secret" {
                let hint = r#"{"code":"forbidden","message":"no","hint":"h"}"#;
                request.answer("403 Forbidden", hint).await;
            } else {
                request.answer("503 Service Unavailable\r\nretry-after: 15", busy).await;
            }
        }
        let request = daemon.request().await;
        assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
        request.rows(|_| true).await;
    });
    let secret = handle.wait_for("public.secret", &json!({"id": 1}), any).ask_after(Duration::ZERO);
    let error = secret.await.unwrap_err();
    assert_eq!((error.answer().unwrap().code.as_str(), begun.elapsed().as_secs()), ("forbidden", 0));
    assert!(error.to_string().contains("look up rows (forbidden): no; h"), "{error}");
    assert!(by_rows(&handle.wait_for("public.t", &json!({"id": 1}), any).await.unwrap()));
    script.await.unwrap();
    // What cannot be asked for.
    for (table, key) in [("t", json!({"id": 1})), ("public.t", json!(7))] {
        let error = handle.wait_for(table, &key, any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_say_its_row_is_asked_for_at_once() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        assert_eq!(peer.subscribe().await.payload, crate::Payload::Key);
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(r#"{"type":"transaction","id":"s","cursor":"0/20","lsn":"0/10","xid":7,"committed_at":"2026-11-21T00:00:00Z","changes":[
            {"op":"update","table":"public.t","key":{"id":1},"new_key":{"id":7}}]}"#).await;
        let begun = Instant::now();
        let request = daemon.request().await;
        assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
        request.rows(|_| true).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    client.subscribe(subscription().start(StartAt::Latest).payload(crate::Payload::Key)).await.unwrap();
    let handle = client.handle();
    let wait = handle.wait_for("public.t", &json!({"id": 7}), any);
    let reading = async { while client.next().await.is_some() {} };
    let found =
        tokio::select! { found = wait => found.unwrap(), () = reading => panic!("the client is over") };
    assert!(by_rows(&found));
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_there_when_everything_before_it_was_handled() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/8")).await;
        peer.send(&transaction("0/20", &[1], false)).await;
        peer.close(1001).await;
        let mut peer = daemon.accept().await;
        peer.welcome().await;
        peer.subscribe().await;
        peer.send(&subscribed("live", "0/20")).await;
        peer.send(r#"{"type":"heartbeat","cursor":"0/2000","time":"2026-11-21T00:00:00Z"}"#).await;
        peer.send(&transaction("0/2030", &[1], false)).await;
        peer.close(1001).await;
        let mut peer = daemon.accept().await;
        peer.welcome_with("f2", 30_000).await;
        peer.subscribe().await;
        peer.send(&subscribed("catchup", "0/2030")).await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    let handle = client.handle();
    let id = "s".parse().unwrap();
    let after = |lsn: &str| handle.after_commit(&id, lsn.parse().unwrap());
    assert_eq!(after("0/20").await.unwrap_err().kind(), ErrorKind::Ended, "there is no subscription yet");
    client.subscribe(subscription().start(StartAt::Latest)).await.unwrap();
    let mut first = after("0/20");
    let Event::Transaction(_) = data(&mut client).await else { panic!() };
    assert!((&mut first).now_or_never().is_none(), "not handled yet");
    let mut second = after("0/21");
    // The insert position at the end of a page that is full: 24 bytes into the next one.
    let mut page = after("0/2018");
    let mut behind = after("0/2020");
    let mut lost = after("0/3000");
    let Event::Heartbeat(_) = data(&mut client).await else { panic!() };
    first.await.unwrap();
    assert!((&mut second).now_or_never().is_none() && (&mut page).now_or_never().is_none());
    let Event::Transaction(_) = data(&mut client).await else { panic!() };
    second.await.unwrap();
    page.await.unwrap();
    assert!((&mut behind).now_or_never().is_none());
    while !matches!(next(&mut client).await, Event::Subscribed(_)) {}
    behind.await.unwrap();
    assert!((&mut lost).now_or_never().is_none());
    after("0/2030").await.unwrap();
    // In another feed the same position may be something else.
    assert!(client.next().now_or_never().is_none());
    assert_eq!(lost.await.unwrap_err().kind(), ErrorKind::FeedChanged);
    let over = after("0/3000");
    assert!(client.unsubscribe(&id));
    assert_eq!(over.await.unwrap_err().kind(), ErrorKind::Ended);
    client.close().await;
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_when_the_client_is_over() {
    let (_daemon, builder) = Daemon::start();
    let mut client = builder.build().unwrap();
    client.subscribe(subscription()).await.unwrap();
    let handle = client.handle();
    let (wait, commit) = (
        handle.wait_for("public.t", &json!({"id": 1}), any),
        handle.after_commit(&"s".parse().unwrap(), "0/1".parse().unwrap()),
    );
    drop(client);
    assert_eq!(wait.await.unwrap_err().kind(), ErrorKind::Ended);
    assert_eq!(commit.await.unwrap_err().kind(), ErrorKind::Ended);
    let late = handle.wait_for("public.t", &json!({"id": 1}), any).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Ended);
    tokio::task::yield_now().await;
    assert_eq!(alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn rows_are_asked_for_with_the_token_and_with_another_one_when_it_is_refused() {
    let (daemon, builder) = Daemon::start();
    let script = play(async move {
        for (expected, status) in [
            ("t0", "200 OK"),
            ("t0", "401 Unauthorized"),
            ("t1", "200 OK"),
            ("t1", "401 Unauthorized"),
            ("t2", "401 Unauthorized"),
        ] {
            let request = daemon.request().await;
            assert!(
                request.head.contains(&format!("authorization: Bearer {expected}\r\n")),
                "{}",
                request.head
            );
            assert_eq!(
                request.body,
                json!({"table": "public.\"o.d\"", "keys": [{"id": 1}], "columns": ["a\"b"]})
            );
            if status == "200 OK" {
                request.rows(|_| true).await;
            } else {
                request.answer(status, r#"{"code":"unauthorized","message":"m"}"#).await;
            }
        }
    });
    let asked = AtomicUsize::new(0);
    let builder = builder
        .token_from(move || std::future::ready(Ok(format!("t{}", asked.fetch_add(1, Ordering::Relaxed)))));
    let client: Client = builder.build().unwrap();
    let lookup = Lookup::new("public.\"o.d\"").unwrap().key(&json!({"id": 1})).unwrap().columns(["a\"b"]);
    for _ in 0..2 {
        let rows = client.handle().rows(&lookup).await.unwrap();
        assert_eq!((rows.rows[0].as_ref().unwrap().get(), rows.feed.as_str()), (r#"{"id":1}"#, "f1"));
        assert!(rows.cursor < rows.reached);
    }
    let error = client.handle().rows(&lookup).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    script.await.unwrap();
}
