//! What clients acknowledge: kept by the server once it says so, of one user alone, and a place to resume at.

use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use walcast_model::Cursor;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, for_each_version, shared_cluster};

use crate::entrance::{SECRET, token};
use crate::observer::{Socket, open, receive, send};
use crate::upkeep::walcast;

async fn subscribe(socket: &mut Socket, client_id: &str, cursor: &str) {
    let message = json!({"type": "subscribe", "id": "t", "tables": [{"table": "public.t"}],
                         "client_id": client_id, "cursor": cursor});
    send(socket, message).await;
}

/// The next message of this type.
async fn until(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = receive(socket).await.expect("a message");
        if message["type"] == kind {
            return message;
        }
        assert_ne!(message["type"], "error", "{message}");
    }
}

async fn error(socket: &mut Socket) -> String {
    loop {
        let message = receive(socket).await.expect("a message");
        if message["type"] == "error" {
            return format!("{} {}", message["code"], message["message"]);
        }
    }
}

async fn ack(socket: &mut Socket, cursor: &str) {
    send(socket, json!({"type": "ack", "id": "t", "cursor": cursor})).await;
}

/// Acknowledges, and waits until it is durable.
async fn acked(socket: &mut Socket, cursor: &str) {
    ack(socket, cursor).await;
    while until(socket, "acked").await["cursor"] != cursor {}
}

fn ids(message: &Value) -> Vec<i64> {
    let changes = message["changes"].as_array().expect("changes");
    changes.iter().map(|change| change["row"]["id"].as_i64().expect("an id")).collect()
}

/// What follows the initial sync, or the cursor: `count` transactions, each with its cursor and its row.
async fn transactions(socket: &mut Socket, count: usize) -> Vec<(String, i64)> {
    let mut all = Vec::new();
    while all.len() < count {
        let message = until(socket, "transaction").await;
        all.push((message["cursor"].as_str().expect("a cursor").to_owned(), ids(&message)[0]));
    }
    all
}

async fn insert(database: &TestDatabase, ids: std::ops::Range<i64>) {
    for id in ids {
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_survives_kill_9_and_is_where_the_client_goes_on() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut daemon = Daemon::of(&database).flag("--ack-interval", "50ms").start().await;
        let (mut socket, _) = open(&daemon.ws_url()).await;
        subscribe(&mut socket, "laptop", "acked").await;
        // Nothing was acknowledged yet.
        assert_eq!(until(&mut socket, "subscribed").await["mode"], "snapshot");
        until(&mut socket, "caught_up").await;
        insert(&database, 0..10).await;
        let all = transactions(&mut socket, 10).await;
        for round in 0..3 {
            let confirmed = round * 3;
            acked(&mut socket, &all[confirmed].0).await;
            // This one may be stored or not.
            ack(&mut socket, &all[confirmed + 1].0).await;
            daemon.kill9().await;
            daemon.restart().await;
            let (resumed, _) = open(&daemon.ws_url()).await;
            socket = resumed;
            subscribe(&mut socket, "laptop", "acked").await;
            let subscribed = until(&mut socket, "subscribed").await;
            assert_ne!(subscribed["mode"], "snapshot", "{subscribed}");
            let at =
                all.iter().position(|(cursor, _)| subscribed["cursor"] == **cursor).expect("a cursor of it");
            assert!(at == confirmed || at == confirmed + 1, "{at} after {confirmed} was confirmed");
            // The same as resuming at that cursor.
            let (mut other, _) = open(&daemon.ws_url()).await;
            subscribe(&mut other, "other", &all[at].0).await;
            let rest = transactions(&mut socket, all.len() - at - 1).await;
            assert_eq!(rest, all[at + 1..]);
            assert_eq!(transactions(&mut other, rest.len()).await, rest);
        }
        daemon.assert_quiet(&[]);
    })
    .await;
}

#[tokio::test]
async fn only_what_was_sent_can_be_acknowledged_and_only_forwards() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database).flag("--ack-interval", "20ms").start().await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    ack(&mut socket, "0/1").await;
    assert!(error(&mut socket).await.contains("no subscription"));
    let tables = json!([{"table": "public.t"}]);
    send(&mut socket, json!({"type": "subscribe", "id": "t", "tables": tables, "cursor": "acked"})).await;
    assert!(error(&mut socket).await.contains("client_id"));
    subscribe(&mut socket, "a", "0/0").await;
    until(&mut socket, "caught_up").await;
    insert(&database, 0..3).await;
    let all = transactions(&mut socket, 3).await;
    acked(&mut socket, &all[1].0).await;
    ack(&mut socket, &all[0].0).await;
    assert!(error(&mut socket).await.contains("does not go back"));
    ack(&mut socket, "FFFFFFFF/0").await;
    assert!(error(&mut socket).await.contains("ahead of"));
    // Another one under the same name takes over.
    let (mut second, _) = open(&daemon.ws_url()).await;
    subscribe(&mut second, "a", "acked").await;
    assert_eq!(until(&mut second, "subscribed").await["cursor"], *all[1].0);
    ack(&mut socket, &all[2].0).await;
    assert!(error(&mut socket).await.contains("another subscription"));
    // A client that begins at a cursor of its own is there, whatever it had acknowledged.
    let (mut restored, _) = open(&daemon.ws_url()).await;
    subscribe(&mut restored, "a", &all[0].0).await;
    until(&mut restored, "subscribed").await;
    let (mut again, _) = open(&daemon.ws_url()).await;
    subscribe(&mut again, "a", "acked").await;
    assert_eq!(until(&mut again, "subscribed").await["cursor"], *all[0].0);
    // An initial sync begins with nothing, also for the server.
    let (mut third, _) = open(&daemon.ws_url()).await;
    subscribe(&mut third, "a", "0/0").await;
    assert_eq!(until(&mut third, "subscribed").await["mode"], "snapshot");
    let position = "SELECT lsn FROM walcast.client WHERE client_id = 'a'";
    assert_eq!(database.scalar(position).await.as_deref(), Some("0/0"));
    daemon.assert_quiet(&[]);
}

async fn as_user(daemon: &Daemon, subject: &str) -> Socket {
    let mut request = daemon.ws_url().into_client_request().expect("a URL");
    let bearer = format!("Bearer {}", token(subject, 300));
    request.headers_mut().insert("authorization", bearer.parse().expect("a header"));
    connect_async(request).await.expect("the upgrade").0
}

#[tokio::test]
async fn nobody_reads_uses_or_overwrites_what_is_of_another_user() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let folder = tempfile::tempdir().unwrap();
    let (secret, policies) = (folder.path().join("secret"), folder.path().join("policies.toml"));
    std::fs::write(&secret, SECRET).unwrap();
    let rules = "[[policy]]\nrole = [\"authenticated\", \"anon\"]\ntable = \"public.t\"\n";
    std::fs::write(&policies, rules).unwrap();
    let daemon = Daemon::of(&database)
        .flag("--jwt-secret-file", secret.display())
        .flag("--policies", policies.display())
        .flag("--anonymous-role", "anon")
        .flag("--ack-interval", "20ms")
        .flag("--clients-per-user-max", "1")
        .start()
        .await;
    let mut ada = as_user(&daemon, "ada").await;
    subscribe(&mut ada, "phone", "0/0").await;
    until(&mut ada, "caught_up").await;
    insert(&database, 0..2).await;
    let all = transactions(&mut ada, 2).await;
    acked(&mut ada, &all[0].0).await;

    // The same name is another client for another user: it has acknowledged nothing, and what it does changes nothing.
    let mut bob = as_user(&daemon, "bob").await;
    subscribe(&mut bob, "phone", "acked").await;
    assert_eq!(until(&mut bob, "subscribed").await["mode"], "snapshot");
    let complete = until(&mut bob, "snapshot_complete").await["cursor"].as_str().unwrap().to_owned();
    acked(&mut bob, &complete).await;
    acked(&mut ada, &all[1].0).await;
    send(&mut bob, json!({"type": "clients"})).await;
    let list = until(&mut bob, "clients").await;
    assert_eq!(list["clients"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list["clients"][0]["cursor"], &list["clients"][0]["client_id"]),
        (&json!(complete), &json!("phone"))
    );
    assert!(list["clients"][0]["seen_at"].is_string() && list["clients"][0]["lag_bytes"].is_u64(), "{list}");
    let mut ada = as_user(&daemon, "ada").await;
    subscribe(&mut ada, "phone", "acked").await;
    assert_eq!(until(&mut ada, "subscribed").await["cursor"], *all[1].0);

    // One client is what a user may have here.
    subscribe(&mut bob, "phone", "0/0").await;
    let mut more = as_user(&daemon, "bob").await;
    subscribe(&mut more, "laptop", "0/0").await;
    let complete = until(&mut more, "snapshot_complete").await["cursor"].as_str().unwrap().to_owned();
    ack(&mut more, &complete).await;
    assert!(error(&mut more).await.contains("clients_per_user_max"));

    // Who has no name has no client either, whatever it calls it.
    let (mut nobody, _) = open(&daemon.ws_url()).await;
    subscribe(&mut nobody, "phone", "acked").await;
    assert!(error(&mut nobody).await.contains("forbidden"));
    send(&mut nobody, json!({"type": "clients"})).await;
    assert!(error(&mut nobody).await.contains("forbidden"));
    subscribe(&mut nobody, "phone", "0/0").await;
    let complete = until(&mut nobody, "snapshot_complete").await["cursor"].as_str().unwrap().to_owned();
    ack(&mut nobody, &complete).await;
    assert!(error(&mut nobody).await.contains("no client_id"));
    assert_eq!(database.scalar("SELECT count(*) FROM walcast.client").await.as_deref(), Some("2"));
    daemon.assert_quiet(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_kept_for_a_client_that_is_named_and_others_expire() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database)
        .flag("--history-partition-age", "50ms")
        .flag("--history-retention", "100ms")
        .flag("--retention-interval", "50ms")
        .flag("--ack-interval", "20ms")
        .flag("--client-expiry", "500ms")
        .flag("--keep-clients", "indexer")
        .start()
        .await;
    let (mut indexer, _) = open(&daemon.ws_url()).await;
    subscribe(&mut indexer, "indexer", "0/0").await;
    let complete = until(&mut indexer, "snapshot_complete").await["cursor"].as_str().unwrap().to_owned();
    until(&mut indexer, "caught_up").await;
    // Before there is anything that could be dropped.
    acked(&mut indexer, &complete).await;
    insert(&database, 0..3).await;
    let all = transactions(&mut indexer, 3).await;
    acked(&mut indexer, &all[0].0).await;
    let (mut phone, _) = open(&daemon.ws_url()).await;
    subscribe(&mut phone, "phone", &all[0].0).await;
    acked_after_subscribed(&mut phone, &all[0].0).await;
    drop((indexer, phone));
    // It is held, for long enough that it would have been dropped many times.
    let mut id = 100;
    eventually("history is held back", LIMIT, async || {
        id += 1;
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        let held = daemon.metric("walcast_history_held_bytes").await.unwrap_or_default();
        let gone = database.scalar("SELECT count(*) FROM walcast.client").await;
        (held > 0.0 && gone.as_deref() == Some("1")).then_some(())
    })
    .await;
    assert_eq!(database.scalar("SELECT client_id FROM walcast.client").await.as_deref(), Some("indexer"));
    let warning = daemon.until_log("old changes are kept").await;
    assert!(warning.contains("client=indexer") && warning.contains("subscription=\"t\""), "{warning}");
    let status = walcast(&database, &["status", "--clients", "--keep-clients", "indexer"]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains("indexer") && status.contains("kept"), "{status}");
    let (mut indexer, _) = open(&daemon.ws_url()).await;
    subscribe(&mut indexer, "indexer", "acked").await;
    assert_eq!(until(&mut indexer, "subscribed").await["cursor"], *all[0].0);
    let rest = transactions(&mut indexer, 2).await;
    assert_eq!(rest, all[1..]);
    // What it has acknowledged is let go.
    let first: Cursor = all[0].0.parse().unwrap();
    let rest = transactions(&mut indexer, id - 100).await;
    acked(&mut indexer, &rest.last().expect("some were written").0).await;
    eventually("history goes on", LIMIT, async || {
        id += 1;
        database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        let moved = format!("SELECT oldest_lsn > '{}' FROM walcast.feed", first.lsn());
        (database.scalar(&moved).await.as_deref() == Some("t")).then_some(())
    })
    .await;
    daemon.assert_quiet(&["keep_clients"]);
}

async fn acked_after_subscribed(socket: &mut Socket, cursor: &str) {
    until(socket, "subscribed").await;
    acked(socket, cursor).await;
}

/// The only client that the server lists for this user.
async fn listed(socket: &mut Socket) -> Value {
    send(socket, json!({"type": "clients"})).await;
    let list = until(socket, "clients").await;
    assert_eq!(list["clients"].as_array().map(Vec::len), Some(1), "{list}");
    list["clients"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_client_tells_when_it_was_seen_and_how_far_behind_it_is() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, filler text); ALTER TABLE t ALTER filler SET STORAGE EXTERNAL").await;
        let daemon = Daemon::of(&database).flag("--ack-interval", "20ms").start().await;
        let (mut socket, _) = open(&daemon.ws_url()).await;
        subscribe(&mut socket, "phone", "0/0").await;
        until(&mut socket, "caught_up").await;
        insert(&database, 0..1).await;
        database.run("INSERT INTO t SELECT 1, repeat('x', 100000)").await;
        insert(&database, 2..3).await;
        let all = transactions(&mut socket, 3).await;
        let last: Cursor = all[2].0.parse().unwrap();
        // Behind by what was sent at least, and by no more than the server has written; seen when it acknowledged.
        for (cursor, _) in [&all[0], &all[2]] {
            let before = database.scalar("SELECT clock_timestamp()").await.expect("a time");
            acked(&mut socket, cursor).await;
            let client = listed(&mut socket).await;
            assert_eq!(client["cursor"], **cursor);
            let seen = client["seen_at"].as_str().expect("a time");
            let seen_since = format!("SELECT '{seen}'::timestamptz BETWEEN '{before}' AND clock_timestamp()");
            assert_eq!(database.scalar(&seen_since).await.as_deref(), Some("t"), "{client} since {before}");
            let at = cursor.parse::<Cursor>().unwrap().lsn();
            let most = format!("SELECT (pg_current_wal_insert_lsn() - '{at}')::bigint");
            let most: u64 = database.scalar(&most).await.expect("bytes").parse().unwrap();
            let least = last.lsn().bytes_since(at);
            let lag = client["lag_bytes"].as_u64().expect("bytes");
            assert!((least..=most).contains(&lag), "{client}: {least} to {most}");
        }
        daemon.assert_quiet(&[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_named_holds_nothing_back_though_it_has_not_expired() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database)
            .flag("--history-partition-age", "50ms")
            .flag("--history-retention", "100ms")
            .flag("--retention-interval", "50ms")
            .flag("--ack-interval", "20ms")
            .flag("--keep-clients", "indexer")
            .start()
            .await;
        let (mut phone, _) = open(&daemon.ws_url()).await;
        subscribe(&mut phone, "phone", "0/0").await;
        let complete = until(&mut phone, "snapshot_complete").await["cursor"].as_str().unwrap().to_owned();
        until(&mut phone, "caught_up").await;
        acked(&mut phone, &complete).await;
        drop(phone);
        let at = complete.parse::<Cursor>().unwrap().lsn();
        let gone = format!("SELECT oldest_lsn > '{at}' FROM walcast.feed");
        let mut id = 0;
        eventually("history goes on", LIMIT, async || {
            id += 1;
            database.run(&format!("INSERT INTO t VALUES ({id})")).await;
            (database.scalar(&gone).await.as_deref() == Some("t")).then_some(())
        })
        .await;
        let known = "SELECT string_agg(client_id, ' ') FROM walcast.client";
        assert_eq!(database.scalar(known).await.as_deref(), Some("phone"));
    })
    .await;
}
