//! History that is kept for a time, and up to a size: whoever is too old is told, by every door; whoever is far behind
//! can have what became of the rows instead of every change.

mod copy;

use serde_json::{Value, json};
use walcast_client::{Client, Event, Subscription};
use walcast_model::Cursor;
use walcast_protocol::ErrorCode;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, for_each_version, shared_cluster, within};

use crate::observer::{Observer, open, receive, send, wal_position};
use crate::upkeep::{lines, walcast};
use crate::workload::{TABLES, Workload, create};
use copy::{Copy, server_rows};

/// Rows of about 300 kB, in a WAL segment (and so in a partition) of their own.
async fn fill(database: &TestDatabase, from: i32) {
    let session = database.session().await;
    let rows = format!(
        "INSERT INTO t SELECT g, md5(g::text) || repeat(md5('x' || g), 90) FROM generate_series({from}, {from} + 99) g"
    );
    session.batch_execute(&rows).await.expect("rows");
    session.batch_execute("SELECT pg_switch_wal()").await.expect("a switch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_too_old_is_told_so_by_every_door_and_what_is_left_is_served() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        // Not compressed, so that history has the size that is meant.
        database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
        let daemon = Daemon::of(&database)
            .flag("--history-partition-wal", "16MiB")
            .flag("--history-retention", "off")
            .flag("--history-bytes-max", "1MiB")
            .flag("--retention-interval", "100ms")
            .flag("--feed-memory", "1MiB")
            .start()
            .await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        database.run("INSERT INTO t VALUES (0, '')").await;
        observer.until_transactions(1).await;
        let old = observer.cursor.expect("a cursor");
        for round in 1..=12 {
            fill(&database, round * 1000).await;
            // One that falls behind more than history keeps is too old too.
            observer.until_transactions(1 + round as usize).await;
        }
        database.until(&format!("SELECT oldest_lsn > '{}' FROM walcast.feed", old.lsn()), "t").await;
        // History is behind what is live: what it does not have yet makes it drop more.
        let end = observer.cursor.expect("a cursor");
        database.until(&format!("SELECT position_lsn >= '{}' FROM walcast.feed", end.lsn()), "t").await;
        let small = "SELECT sum(pg_total_relation_size(oid::oid)) <= 1048576 FROM walcast.partition";
        database.until(small, "t").await;
        assert!(daemon.metric("walcast_history_dropped_partitions_total").await.unwrap() >= 1.0);

        let oldest = database.scalar("SELECT oldest_lsn FROM walcast.feed").await.unwrap();
        let ask = async |cursor: &str| {
            let (mut socket, welcome) = open(&daemon.ws_url()).await;
            let message =
                json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}], "cursor": cursor});
            send(&mut socket, message).await;
            loop {
                let message = receive(&mut socket).await.expect("an answer");
                if matches!(message["type"].as_str(), Some("error" | "caught_up" | "transaction")) {
                    return (message, welcome["feed"].as_str().unwrap().to_owned());
                }
            }
        };
        let (answer, feed) = ask(&old.to_string()).await;
        assert_eq!(
            (answer["code"].as_str(), answer["oldest"].as_str()),
            (Some("cursor_too_old"), Some(&*oldest))
        );
        // What is told can be used, and gives all that is there.
        let (answer, _) = ask(&oldest).await;
        assert_eq!(answer["type"], "transaction", "{answer}");
        let kept: usize =
            database.scalar("SELECT count(*) FROM walcast.change_history").await.unwrap().parse().unwrap();
        let mut rest =
            Observer::subscribe(&daemon.ws_url(), &["public.t"], Some(oldest.parse().unwrap())).await;
        rest.until("caught_up").await;
        assert_eq!(
            rest.transactions.iter().map(|transaction| transaction.changes.len()).sum::<usize>(),
            kept
        );
        assert!((100..1200).contains(&kept), "{kept} changes are kept");

        let mut client = Client::builder(&daemon.ws_url()).build().unwrap();
        let subscription = Subscription::new("sdk", ["public.t"]).unwrap();
        client.subscribe(subscription.resume(feed.parse().unwrap(), old)).await.unwrap();
        let error = loop {
            let event = within("an event", LIMIT, client.next()).await.expect("an event").unwrap();
            if let Event::Failed { error, .. } = event {
                break error;
            }
        };
        assert_eq!((error.code, error.oldest), (ErrorCode::CursorTooOld, Some(oldest.parse().unwrap())));

        let url = daemon.ws_url();
        let tail = walcast(
            &database,
            &["tail", "t", "--url", &url, "--from", &old.to_string(), "--feed", &feed, "--json"],
        );
        let said = String::from_utf8_lossy(&tail.stderr);
        assert!(
            tail.status.code() == Some(1) && said.contains(&format!("the oldest cursor is {oldest}")),
            "{said}"
        );
        let replay = walcast(&database, &["replay", "--json", "--from", &old.to_string()]);
        let said = String::from_utf8_lossy(&replay.stderr);
        assert!(
            replay.status.code() == Some(1) && said.contains(&format!("history begins at {oldest}")),
            "{said}"
        );
        let replayed = lines(&walcast(&database, &["replay", "--json"]));
        let changes: usize = replayed.iter().map(|line| line["changes"].as_array().unwrap().len()).sum();
        assert_eq!(changes, kept);
        let status = &lines(&walcast(&database, &["status", "--json"]))[0];
        assert_eq!(status["oldest"], oldest.as_str());
        assert!(status["history"]["oldest_age_seconds"].is_u64(), "{status}");
        daemon.assert_quiet(&[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_system_that_writes_little_old_changes_go_by_their_age_all_the_same() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database)
        .flag("--history-partition-age", "100ms")
        .flag("--history-retention", "300ms")
        .flag("--retention-interval", "50ms")
        .start()
        .await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let start = database.scalar("SELECT oldest_lsn FROM walcast.feed").await.unwrap();
    let session = database.session().await;
    let mut id = 0;
    eventually("the first changes are dropped", LIMIT, async || {
        id += 1;
        session.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        let moved = format!("SELECT oldest_lsn > '{start}' FROM walcast.feed");
        (session.scalar(&moved).await.as_deref() == Some("t")).then_some(())
    })
    .await;
    // Now nothing is written: the newest partition stays, with the last change.
    database.until("SELECT count(*) FROM walcast.partition", "1").await;
    let last = format!("SELECT count(*) > 0 FROM walcast.changes WHERE row->>'id' = '{id}'");
    // It may be on its way to history; had it been dropped, it would never be there.
    database.until(&last, "t").await;
    database.until("SELECT count(*) FROM walcast.partition", "1").await;
    assert_eq!(database.scalar(&last).await.as_deref(), Some("t"));
    observer.until_transactions(id).await;
    // And a daemon that starts again finds nothing wrong with it.
    daemon.terminate().await;
    daemon.restart().await;
    let mut observer = observer.reconnect(&daemon.ws_url(), &["public.t"]).await;
    database.run("INSERT INTO t VALUES (0)").await;
    observer.until_transactions(id + 1).await;
    observer.assert_equals(&database, "public.t").await;
    daemon.assert_quiet(&[]);
}

/// Subscribes to everything, with the latest rows where it is behind.
async fn subscribe(daemon: &Daemon, cursor: Option<Cursor>) -> crate::observer::Socket {
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let mut message =
        json!({"type": "subscribe", "id": "c", "tables": [{"table": "*"}], "catchup": "latest"});
    if let Some(cursor) = cursor {
        message["cursor"] = json!(cursor.to_string());
    }
    send(&mut socket, message).await;
    socket
}

/// What happens to rows with large values, to keys, and to whole tables.
async fn upset(database: &TestDatabase) {
    let large = "repeat(md5(random()::text), 400)";
    let session = database.session().await;
    for statement in [
        // Large values that are written, left alone, and moved to another key, both with and without being written.
        format!("UPDATE documents SET body = {large} WHERE id <= 10"),
        "UPDATE documents SET title = title || '!' WHERE id <= 20".to_owned(),
        "UPDATE documents SET id = id + 1000 WHERE id IN (5, 6)".to_owned(),
        "UPDATE documents SET id = id + 1000 WHERE id IN (25, 26)".to_owned(),
        "UPDATE documents SET title = 'moved' WHERE id > 1000".to_owned(),
        "DELETE FROM documents WHERE id = 30".to_owned(),
        format!("INSERT INTO documents VALUES (30, 'again', {large})"),
        "BEGIN; TRUNCATE scratch; INSERT INTO scratch VALUES (7, 7); UPDATE scratch SET v = 8; COMMIT"
            .to_owned(),
        "UPDATE scratch SET id = 9 WHERE id = 7".to_owned(),
        "INSERT INTO scratch SELECT g, g FROM generate_series(100, 110) g".to_owned(),
        "DELETE FROM scratch WHERE id > 105".to_owned(),
        "ALTER TABLE scratch ADD COLUMN w int DEFAULT 3".to_owned(),
        "UPDATE scratch SET w = id".to_owned(),
        "INSERT INTO log SELECT 'line ' || g FROM generate_series(1, 5) g".to_owned(),
    ] {
        session.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    for _ in 0..400 {
        session
            .batch_execute("UPDATE accounts SET balance = balance + 1 WHERE id <= 5")
            .await
            .expect("an update");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_far_behind_has_the_latest_rows_and_ends_where_every_change_would_have_led_it() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        create(&database, 60).await;
        database
            .run(
                "CREATE TABLE documents (id int PRIMARY KEY, title text, body text);
                 ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
                 INSERT INTO documents SELECT g, 'title', repeat(md5('b' || g), 400) FROM generate_series(1, 40) g;
                 CREATE TABLE scratch (id int PRIMARY KEY, v int); INSERT INTO scratch SELECT g, g FROM generate_series(1, 9) g;
                 CREATE TABLE log (line text)",
            )
            .await;
        let daemon = Daemon::of(&database).flag("--feed-memory", "1MiB").flag("--part-bytes", "4KiB").start().await;
        let mut copy = Copy::default();
        let mut socket = subscribe(&daemon, None).await;
        while copy.take(&receive(&mut socket).await.expect("a message")) != "caught_up" {}
        drop(socket);
        let behind = copy.cursor.expect("a cursor");

        let workload = Workload::start(&database, 3, 91).await;
        upset(&database).await;
        workload.more(200).await;
        let evict = "INSERT INTO log SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
        database.run(evict).await;
        workload.more(20).await;
        // What the client is behind of is in history, and so is not kept in memory.
        let end = wal_position(&database).await;
        database.until(&format!("SELECT position_lsn >= '{}' FROM walcast.feed", end.lsn()), "t").await;
        // It is cut off after ever more messages, and goes on from what it has stored; writers go on as well.
        let mut messages_max = 3;
        let (mut cuts, mut taken) = (0, 0);
        'caught_up: loop {
            let mut socket = subscribe(&daemon, copy.cursor).await;
            for _ in 0..messages_max {
                let message = receive(&mut socket).await.expect("a message");
                taken += message["changes"].as_array().map_or(0, Vec::len);
                if copy.take(&message) == "caught_up" {
                    break 'caught_up;
                }
            }
            cuts += 1;
            copy.cut();
            messages_max += 40;
        }
        assert!(cuts > 0 && copy.compacted > 0, "{cuts} cuts, {} compacted messages", copy.compacted);
        workload.stop().await;
        let end = wal_position(&database).await;
        database.run("UPDATE accounts SET note = 'end' WHERE id = 1").await;
        let mut socket = subscribe(&daemon, copy.cursor).await;
        while copy.cursor.is_none_or(|cursor| cursor <= end) {
            copy.take(&receive(&mut socket).await.expect("a message"));
        }
        for table in TABLES.iter().chain(&["public.documents", "public.scratch", "public.log"]) {
            let there = server_rows(&database, table).await;
            assert_eq!(copy.rows(table), there, "{table}");
        }
        // In one go it is told each row once, or nearly.
        let (mut once, mut seen) = (Copy::without_rows(behind), 0);
        let mut socket = subscribe(&daemon, Some(behind)).await;
        loop {
            let message = receive(&mut socket).await.expect("a message");
            if message["compacted"] == true {
                seen += message["changes"].as_array().unwrap().iter().filter(|c| c["table"] == "public.accounts").count();
            }
            if once.take(&message) == "caught_up" {
                break;
            }
        }
        let all = format!(
            "SELECT count(*) FROM walcast.change_history WHERE lsn >= '{}' AND table_name = 'accounts'",
            behind.lsn()
        );
        let all: usize = database.scalar(&all).await.unwrap().parse().unwrap();
        assert!(all > 2000 && seen * 4 < all, "{seen} of {all} changes of accounts came; {taken} in all");
        // It has no key.
        daemon.assert_quiet(&["public.log"]);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_asks_for_everything_is_told_nothing_compacted() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let daemon = Daemon::of(&database).flag("--feed-memory", "1MiB").start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let cursor = observer.cursor;
    for round in 0..3 {
        database.run("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 1000) g").await;
        database.run("DELETE FROM t").await;
        observer.until_transactions(2 * (round + 1)).await;
    }
    let mut behind = Observer::subscribe(&daemon.ws_url(), &["public.t"], cursor).await;
    behind.until("caught_up").await;
    assert_eq!(behind.transactions.len(), 6);
    // The same with the latest rows: nothing is left of it.
    let mut socket = subscribe(&daemon, cursor).await;
    let changes = |message: &Value| message["changes"].as_array().map_or(0, Vec::len);
    let mut compacted = 0;
    loop {
        let message = receive(&mut socket).await.expect("a message");
        if message["compacted"] == true {
            compacted += changes(&message);
        }
        if message["type"] == "caught_up" {
            break;
        }
    }
    assert!(compacted <= 1000, "{compacted} changes");
}
