//! What came before a table was altered cannot be judged: whoever comes back to it is told from where on it can.

use serde_json::{Value, json};
use walcast_client::{Client, Event, Subscription};
use walcast_model::Cursor;
use walcast_protocol::{ErrorCode, Subscribe};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, shared_cluster, within};

use crate::http::ask;
use crate::observer::{open, receive, send, wal_position};

/// What is asked for: tables with their filters.
type Wanted<'a> = &'a [(&'a str, Option<&'a str>)];

const HINT: &str = "subscribe without a cursor for an initial sync";

/// Everything that a subscription from a cursor on is told until it is over or has caught up.
async fn told(daemon: &Daemon, wanted: Wanted<'_>, cursor: Cursor) -> Vec<Value> {
    let entry = |(table, filter): &(&str, Option<&str>)| match filter {
        Some(filter) => json!({"table": table, "where": filter}),
        None => json!({"table": table}),
    };
    let tables: Vec<Value> = wanted.iter().map(entry).collect();
    let (mut socket, _) = open(&daemon.ws_url()).await;
    send(
        &mut socket,
        json!({"type": "subscribe", "id": "a", "tables": tables, "cursor": cursor.to_string()}),
    )
    .await;
    let mut messages = Vec::new();
    loop {
        let message = within("a message", LIMIT, receive(&mut socket)).await.expect("the connection goes on");
        let is_last = matches!(message["type"].as_str(), Some("error" | "caught_up"));
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

fn last(messages: &[Value]) -> &Value {
    messages.last().expect("a message")
}

/// The position that a refusal names, once it is shown that a subscription at it is served to the end, by every door, and
/// that no other door names another one.
async fn named(daemon: &Daemon, wanted: Wanted<'_>, cursor: Cursor) -> Cursor {
    let refused = told(daemon, wanted, cursor).await;
    let refused = last(&refused);
    assert_eq!((&refused["code"], &refused["hint"]), (&json!("cursor_too_old"), &json!(HINT)), "{refused}");
    assert!(!refused.to_string().contains("ALTER"), "{refused}");
    let oldest: Cursor = refused["oldest"].as_str().expect("a position").parse().expect("a cursor");
    assert!(oldest > cursor, "{refused}");
    let served = told(daemon, wanted, oldest).await;
    assert_eq!(last(&served)["type"], "caught_up", "from {oldest}: {served:?}");

    let tables: Vec<&str> = wanted.iter().map(|(table, _)| *table).collect();
    let filters = wanted.iter().filter_map(|(table, filter)| Some((table, (*filter)?)));
    let filters: String = filters
        .map(|(table, filter)| format!("&where.{table}={}", filter.replace(' ', "+").replace('=', "%3D")))
        .collect();
    let line =
        |cursor: Cursor| format!("GET /v1/changes?tables={}{filters}&cursor={cursor}", tables.join(","));
    // A page that has begun is given, and the next one is refused.
    let mut at = cursor;
    let page = loop {
        let (status, page) = ask(daemon, &line(at), "", "").await;
        let next = page["cursor"].as_str().map(|next| next.parse::<Cursor>().expect("a cursor"));
        match next.filter(|_| status == 200) {
            Some(next) => assert!(std::mem::replace(&mut at, next) < next, "{page}"),
            None => break (status, page),
        }
    };
    assert_eq!((page.0, &page.1["oldest"]), (410, &json!(oldest.to_string())), "{page:?}");
    let (status, page) = ask(daemon, &line(oldest), "", "").await;
    assert_eq!(status, 200, "{page}");

    let mut client = Client::builder(&daemon.ws_url()).build().expect("a client");
    let patterns = tables.iter().map(|table| table.parse().expect("a table")).collect();
    let mut request = Subscribe::new("sdk".parse().expect("an id"), patterns);
    for (entry, (_, filter)) in request.tables.iter_mut().zip(wanted) {
        entry.filter = filter.map(str::to_owned);
    }
    let subscription = Subscription::from(request);
    let feed: String = page["feed"].as_str().expect("a feed").to_owned();
    let feed = || feed.parse().expect("a feed");
    let resume = |at: Cursor| subscription.clone().resume(feed(), at);
    client.subscribe(resume(cursor)).await.expect("it is asked for");
    let error = loop {
        let event = within("an event", LIMIT, client.next()).await.expect("an event").expect("it goes on");
        if let Event::Failed { error, .. } = event {
            break error;
        }
    };
    assert_eq!((error.code, error.oldest), (ErrorCode::CursorTooOld, Some(oldest)));
    // As a client does that can do with what is left.
    client.subscribe(resume(oldest)).await.expect("it is asked for");
    loop {
        let event = within("an event", LIMIT, client.next()).await.expect("an event").expect("it goes on");
        match event {
            Event::CaughtUp(_) => return oldest,
            Event::Failed { error, .. } => panic!("from {oldest}: {error:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_to_before_a_table_was_altered_is_told_where_it_can_go_on() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, owner int, n int);
                 CREATE TABLE u (id int PRIMARY KEY, owner int, n int); ALTER TABLE u REPLICA IDENTITY FULL;",
            )
            .await;
        let mut daemon = Daemon::of(&database).flag("--subscribes-per-second-max", 1000).start().await;
        let start = wal_position(&database).await;
        let full = "ALTER TABLE t REPLICA IDENTITY FULL";
        // As many transactions as there were errors before, each of which named a position that did not do.
        for sql in [
            "INSERT INTO t VALUES (1, 1, 0), (2, 2, 0); INSERT INTO u VALUES (1, 1, 0)",
            "UPDATE t SET n = 1",
            "UPDATE u SET n = 1",
            full,
            "UPDATE t SET n = 2",
        ] {
            database.run(sql).await;
        }
        let between = wal_position(&database).await;
        for sql in [
            "UPDATE t SET n = 3",
            "ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET n = 4",
            "UPDATE t SET n = 5",
            // In one transaction with what does not fit.
            "BEGIN; UPDATE t SET n = 6; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 7; COMMIT",
        ] {
            database.run(sql).await;
        }
        let after = wal_position(&database).await;
        for sql in [
            "UPDATE t SET n = 8",
            "UPDATE u SET n = 2",
            "ALTER TABLE t ADD COLUMN more int",
            "UPDATE t SET n = 9",
        ] {
            database.run(sql).await;
        }
        // What has not come yet can end nobody.
        let end = wal_position(&database).await.lsn();
        database.until(&format!("SELECT position_lsn >= '{end}' FROM walcast.feed"), "t").await;
        let one: Wanted<'_> = &[("public.t", Some("owner = 1"))];
        let two: Wanted<'_> = &[("public.u", Some("owner = 1")), ("public.t", Some("owner = 2"))];
        // From memory, and all of it from history.
        for what in ["memory", "history"] {
            let oldest = named(&daemon, one, start).await;
            assert!(oldest > between && oldest <= after, "from {what}: {oldest} of {between} to {after}");
            for (wanted, from) in [(one, between), (two, start), (two, between)] {
                assert_eq!(named(&daemon, wanted, from).await, oldest, "from {what}");
            }
            // It is the first: one transaction earlier it is not served.
            let committed = "SELECT max(lsn) FROM walcast.change_history WHERE lsn < '";
            let before =
                database.scalar(&format!("{committed}{}'", oldest.lsn())).await.expect("a transaction");
            assert_eq!(named(&daemon, one, before.parse().expect("a cursor")).await, oldest, "from {what}");
            let served = told(&daemon, one, oldest).await;
            let rows: Vec<&Value> =
                served.iter().flat_map(|message| message["changes"].as_array()).flatten().collect();
            let numbers: Vec<&Value> = rows.iter().map(|change| &change["row"]["n"]).collect();
            assert_eq!(numbers, [8, 9], "from {what}: {served:?}");
            // Without a filter, and with one over the key, everything can be told from the beginning on.
            for wanted in [&[("public.t", None)], &[("public.t", Some("id = 1"))]] {
                assert_eq!(last(&told(&daemon, wanted, start).await)["type"], "caught_up", "{wanted:?}");
            }
            daemon.terminate().await;
            daemon.restart().await;
        }
    })
    .await;
}

#[tokio::test]
async fn while_a_table_does_not_fit_no_position_is_named_and_the_initial_sync_says_what_mends_it() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, owner int); ALTER TABLE t REPLICA IDENTITY FULL").await;
    let daemon = Daemon::of(&database).flag("--subscribes-per-second-max", 1000).start().await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    let tables = json!([{"table": "public.t", "where": "owner = 1"}]);
    send(&mut socket, json!({"type": "subscribe", "id": "a", "tables": tables})).await;
    let mut until = async |kind: &str| loop {
        let message = within("a message", LIMIT, receive(&mut socket)).await.expect("the connection goes on");
        if message["type"] == kind {
            return message;
        }
    };
    until("caught_up").await;
    database.run("ALTER TABLE t REPLICA IDENTITY DEFAULT; INSERT INTO t VALUES (1, 1)").await;
    let ended = until("error").await;
    assert_eq!((&ended["code"], &ended["hint"]), (&json!("cursor_too_old"), &json!(HINT)), "{ended}");
    assert!(ended["oldest"].is_null(), "{ended}");
    assert!(ended["message"].as_str().expect("words").contains("there is no position yet"), "{ended}");
    // The definition that it had a moment ago is trusted for two seconds.
    let refused = async {
        loop {
            let told = told(&daemon, &[("public.t", Some("owner = 1"))], Cursor::ZERO).await;
            if last(&told)["type"] == "error" {
                return last(&told).clone();
            }
        }
    };
    let refused = within("a filter that does not fit is refused", LIMIT, refused).await;
    assert_eq!(refused["code"], "identity_required", "{refused}");
    assert!(refused["hint"].as_str().expect("a hint").contains("REPLICA IDENTITY FULL"), "{refused}");
    // Now it is done, and is not asked for again.
    let before = wal_position(&database).await;
    database.run("INSERT INTO t VALUES (2, 1)").await;
    database.run("ALTER TABLE t REPLICA IDENTITY FULL").await;
    let named = named(&daemon, &[("public.t", Some("owner = 1"))], before).await;
    assert!(named > before);
}
