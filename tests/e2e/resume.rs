//! Promise 1: through any number of disconnects, each change exactly once per cursor.

use futures_util::future::join_all;
use serde_json::{Value, json};
use walcast_model::Cursor;
use walcast_testkit::{
    Daemon, TestDatabase, cluster_builder, for_each_version, installations, shared_cluster,
};

use crate::observer::{Observer, Socket, open, receive, send, wal_position};
use crate::workload::{TABLES, Workload, create};

/// The next transaction, its parts joined; only definitions and the like may come before it.
async fn transaction(observer: &mut Observer) -> Value {
    let mut changes = Vec::new();
    loop {
        let mut message = observer.raw().await;
        assert_ne!(message["type"], "error", "{message}");
        if message["type"] != "transaction" {
            continue;
        }
        changes.append(message["changes"].as_array_mut().expect("changes"));
        if message["more"] != true {
            message["changes"] = changes.into();
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_at_every_cursor_of_a_run_gives_exactly_the_rest() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database, 50).await;
        let daemon = Daemon::of(&database).flag("--part-bytes", "2KiB").start().await;
        let mut whole = Observer::subscribe(&daemon.ws_url(), &TABLES, None).await;
        whole.until("caught_up").await;
        let mut live = Observer::subscribe(&daemon.ws_url(), &TABLES, whole.cursor).await;
        let workload = Workload::start(&database, 4, 2).await;
        workload.more(60).await;
        workload.stop().await;
        // Many parts, so that there are cursors inside a transaction.
        database
            .run("INSERT INTO notes SELECT g, repeat('x', 100) FROM generate_series(100000, 100100) g")
            .await;
        let end = wal_position(&database).await;
        database.run("DELETE FROM tags WHERE id = 3").await;
        whole.until_after(end).await;

        let all: Vec<_> = whole.transactions.iter().filter(|delivered| delivered.cursor.is_some()).collect();
        assert!(all.len() > 40, "only {} transactions", all.len());
        assert!(all.iter().any(|delivered| delivered.parts > 1), "no transaction came in parts");
        // What is awaited of each cursor is what came while it happened.
        let cursors: Vec<String> =
            all.iter().filter_map(|delivered| delivered.cursor).map(|cursor| cursor.to_string()).collect();
        let mut told = Vec::new();
        while told.last().is_none_or(|last: &Value| last["cursor"] != cursors[cursors.len() - 1].as_str()) {
            told.push(transaction(&mut live).await);
        }
        told.drain(..told.len() - all.len());
        let of_told: Vec<_> = told.iter().map(|transaction| transaction["cursor"].clone()).collect();
        assert_eq!(of_told, cursors);
        let mut resumed = Vec::new();
        for (index, cursor) in cursors.iter().enumerate() {
            let cursor = cursor.parse().expect("a cursor");
            let mut rest = Observer::subscribe(&daemon.ws_url(), &TABLES, Some(cursor)).await;
            for expected in &told[index + 1..] {
                assert_eq!(transaction(&mut rest).await, *expected, "after {cursor}");
            }
            resumed.push(rest);
        }
        // Whatever came again after the end would come before the next one.
        database.run("INSERT INTO notes VALUES (200000, 'the next one')").await;
        let next = transaction(&mut live).await;
        assert_eq!(next["changes"][0]["row"], json!({"id": 200_000, "body": "the next one"}), "{next}");
        for (mut rest, cursor) in resumed.into_iter().zip(cursors) {
            assert_eq!(transaction(&mut rest).await, next, "after {cursor}, and what there was");
        }
    })
    .await;
}

#[tokio::test]
async fn resuming_inside_a_transaction_gives_the_rest_of_it() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let daemon = Daemon::of(&database).flag("--part-bytes", "1KiB").start().await;
    let mut whole = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    whole.until("caught_up").await;
    database.run("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(0, 19) g").await;
    whole.until_transactions(1).await;
    let first = &whole.transactions[0];
    assert!(first.parts > 1);
    for seq in 0..20 {
        let cursor: Cursor = format!("{}:{seq}", first.lsn).parse().unwrap();
        let mut rest = Observer::subscribe(&daemon.ws_url(), &["public.t"], Some(cursor)).await;
        let mut ids = Vec::new();
        loop {
            let message = rest.raw().await;
            if message["type"] == "transaction" {
                ids.extend(
                    message["changes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|change| change["row"]["id"].as_i64().unwrap()),
                );
                if message["more"] != true {
                    break;
                }
            }
        }
        assert_eq!(ids, (seq..20).collect::<Vec<_>>(), "from {cursor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_behind_a_tiny_feed_is_served_from_history_and_misses_nothing() {
    let database = TestDatabase::create(shared_cluster().await).await;
    create(&database, 50).await;
    let daemon = Daemon::of(&database).flag("--feed-memory", "1MiB").start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &TABLES, None).await;
    observer.until("caught_up").await;
    // Ten times what the feed holds, while the observer reads nothing.
    for round in 0..20 {
        let from = 1_000_000 + round * 1000;
        database
            .run(&format!(
                "INSERT INTO notes SELECT g, repeat('y', 500) FROM generate_series({from}, {from} + 999) g"
            ))
            .await;
    }
    let workload = Workload::start(&database, 3, 3).await;
    workload.more(50).await;
    workload.stop().await;
    let end = wal_position(&database).await;
    database.run("UPDATE accounts SET note = 'end' WHERE id = 1").await;
    observer.until_after(end).await;
    for table in TABLES {
        observer.assert_equals(&database, table).await;
    }
    let health = daemon.get("/readyz").await.expect("an answer");
    let health: Value = serde_json::from_str(&health.body).expect("JSON");
    let kept = health["feed"]["memory_bytes"].as_u64().expect("the feed's memory");
    assert!(kept < 4 << 20, "the feed holds {kept} bytes");
}

/// The statements that the daemon's sessions of this name were seen to run.
fn statements<'a>(log: &'a str, application: &str) -> Vec<&'a str> {
    let prefix = format!("walcast {application}|");
    log.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

/// Who asks Postgres.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    /// The daemon for itself, however many clients there are: it stores, polls, cleans up.
    Daemon,
    /// The daemon for those who ask what is committed by now.
    Barrier,
    /// The daemon for one client.
    Client,
}

/// Who caused this line of the server's log; `None` where that is not known.
fn asker(line: &str) -> Option<Asker> {
    let (application, said) = line.split_once('|')?;
    match application.strip_prefix("walcast ")? {
        // Those who read pages for clients have the name of those who write.
        "history" if said.contains("walcast.page(") || said.contains("walcast.relation") => {
            Some(Asker::Client)
        }
        "history" | "retention" | "replication" | "publications" | "catalog" | "identity" | "wal budget"
        | "last images" => Some(Asker::Daemon),
        // A notice of how it was executed, or the statement itself.
        "barriers" if said.contains("walcast.barrier") || said.starts_with("DETAIL:") => Some(Asker::Barrier),
        "snapshot" | "rows" | "clients" => Some(Asker::Client),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_at_once_are_caught_up_from_memory_without_asking_postgres() {
    const CLIENTS: usize = 200;
    for installation in installations() {
        let cluster = cluster_builder(&installation)
            .setting("log_statement", "all")
            .setting("log_line_prefix", "%a|")
            .start()
            .await
            .unwrap();
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon =
            Daemon::of(&database).flag("--connections-per-address-max", 2 * CLIENTS + 10).start().await;
        // The first finds out what tables there are.
        let mut first = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        first.until("caught_up").await;
        database.run("INSERT INTO t VALUES (0)").await;
        first.until_transactions(1).await;
        let cursor = first.transactions[0].cursor;
        drop(first);
        for id in 1..=10 {
            database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        }

        // All are connected before the first one asks, so that they ask at about the same time.
        let url = daemon.ws_url();
        let sockets = join_all((0..CLIENTS).map(|_| open(&url))).await;
        let before = cluster.log().len();
        let cursor = cursor.expect("a cursor").to_string();
        let come_back = async |mut socket: Socket| {
            let tables = json!([{"table": "public.t"}]);
            send(&mut socket, json!({"type": "subscribe", "id": "t", "tables": tables, "cursor": cursor}))
                .await;
            let mut transactions = 0;
            loop {
                let message = receive(&mut socket).await.expect("a message");
                match message["type"].as_str() {
                    Some("transaction") => transactions += 1,
                    Some("caught_up") => return transactions,
                    Some("error") => panic!("{message}"),
                    _ => {}
                }
            }
        };
        let missed = join_all(sockets.into_iter().map(|(socket, _)| come_back(socket))).await;
        assert!(missed.iter().all(|count| *count == 10), "{missed:?}");
        let log = cluster.log();
        let log = &log[before..];
        // Whatever Postgres was asked, and not only what this test thinks of. Other lines go on with one, or are of the server.
        for line in log.lines().filter(|line| line.starts_with("walcast ")) {
            let asker = asker(line).unwrap_or_else(|| panic!("nobody knows who caused {line}"));
            assert_ne!(asker, Asker::Client, "{line}");
        }
        // What is committed by now is proven by a message in the WAL, one for all who ask at about the same time.
        let barriers =
            statements(log, "barriers").iter().filter(|line| line.contains("emit_message")).count();
        assert!((1..=CLIENTS / 2).contains(&barriers), "{barriers} barriers for {CLIENTS} clients");
    }
}
