//! The Rust client: waits for rows and commits, rows by key, and what it acknowledges.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use walcast_client::{
    Backoff, Client, ClientBuilder, ErrorKind, Event, FoundBy, Handle, Lookup, Lsn, Mode, Payload, StartAt,
    Subscription,
};
use walcast_testkit::{
    Daemon, Direction, LIMIT, Proxy, TestDatabase, TestSession, for_each_version, program, shared_cluster,
    within,
};

use crate::entrance::{SECRET, certify, token};

fn builder(url: &str) -> ClientBuilder {
    Client::builder(url).backoff(Backoff { cap: Duration::from_millis(100), ..Backoff::default() })
}

/// A copy of a table: `v` by `id`.
type Copy = Arc<Mutex<BTreeMap<i64, i64>>>;

/// A client that applies all that comes to a copy, in a task of its own.
struct Follower {
    handle: Handle,
    copy: Copy,
    task: JoinHandle<()>,
}

impl Follower {
    async fn start(mut client: Client, subscription: Subscription) -> Self {
        let handle = client.handle();
        let copy = Copy::default();
        client.subscribe(subscription).await.expect("a subscription");
        let (ready, caught_up) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let applied = Arc::clone(&copy);
        let task = tokio::spawn(async move {
            while let Some(event) = client.next().await {
                let event = event.expect("the client goes on");
                apply(&applied, &event);
                if let Some(ready) = ready.take_if(|_| matches!(event, Event::CaughtUp(_))) {
                    let _ = ready.send(());
                }
            }
        });
        within("caught_up", LIMIT, caught_up).await.expect("the follower runs");
        Self { handle, copy, task }
    }

    fn has(&self, id: i64) -> Option<i64> {
        self.copy.lock().expect("a copy").get(&id).copied()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn read(row: &RawValue) -> Value {
    serde_json::from_str(row.get()).expect("JSON")
}

fn apply(copy: &Copy, event: &Event) {
    let mut copy = copy.lock().expect("a copy");
    let mut put = |row: &RawValue| {
        let row = read(row);
        copy.insert(row["id"].as_i64().expect("an id"), row["v"].as_i64().unwrap_or_default());
    };
    match event {
        Event::Subscribed(subscribed) if subscribed.mode == Mode::Snapshot => copy.clear(),
        Event::Snapshot(snapshot) => snapshot.rows.iter().for_each(|row| put(row)),
        Event::Transaction(transaction) => {
            transaction.changes.iter().filter_map(|change| change.row.as_ref()).for_each(|row| put(row));
        }
        Event::Failed { error, .. } => panic!("{error:?}"),
        _ => {}
    }
}

fn table(name: &str) -> Subscription {
    Subscription::new("t", [name]).expect("a table")
}

fn at_least(v: i64) -> impl Fn(&RawValue) -> bool + Send + 'static {
    move |row| read(row)["v"].as_i64() >= Some(v)
}

fn by_rows(by: &FoundBy) -> bool {
    matches!(by, FoundBy::Rows { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_waited_for_by_the_stream_and_by_asking() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE t (id bigint, part numeric(6, 2), v int, PRIMARY KEY (id, part));
                 CREATE TABLE other (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0.50, 0)",
            )
            .await;
        let daemon = Daemon::of(&database).start().await;
        let url = format!("ws://127.0.0.1:{}", daemon.port());
        let follower = Follower::start(builder(&url).build().unwrap(), table("public.t")).await;
        let handle = follower.handle.clone();
        // By the stream: a row that comes, and one that is as it should be only later; deleted and written again meanwhile.
        let comes = handle.wait_for("public.t", &json!({"id": 2, "part": "1.00"}), |_| true);
        let comes = comes.ask_after(LIMIT).within(LIMIT);
        let grows = handle.wait_for("public.t", &json!({"id": 1, "part": 0}), at_least(3)).within(LIMIT);
        let session = database.session().await;
        session.batch_execute("INSERT INTO t VALUES (2, 1, 7)").await.unwrap();
        let comes = comes.await.unwrap();
        assert!(comes.by == FoundBy::Stream("t".parse().unwrap()) && read(&comes.row)["v"] == 7, "{comes:?}");
        // Handled as well: the copy has it.
        assert_eq!(follower.has(2), Some(7));
        for sql in [
            "UPDATE t SET part = 0 WHERE id = 1",
            "UPDATE t SET v = 2 WHERE id = 1",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 0, 1)",
        ] {
            session.batch_execute(sql).await.unwrap();
        }
        let mut grows = std::pin::pin!(grows);
        let seen = handle.wait_for("public.t", &json!({"id": 3, "part": 0}), |_| true).within(LIMIT);
        session.batch_execute("INSERT INTO t VALUES (3, 0, 0)").await.unwrap();
        // The feed writes numerics with their scale: `0` is found by asking, `0.00` by the stream.
        let exact = handle.wait_for("public.t", &json!({"id": 1, "part": "0.00"}), at_least(3));
        let exact = exact.ask_after(LIMIT).within(LIMIT);
        session.batch_execute("UPDATE t SET v = 3 WHERE id = 1").await.unwrap();
        assert_eq!(exact.await.unwrap().by, FoundBy::Stream("t".parse().unwrap()));
        assert!(by_rows(&grows.as_mut().await.unwrap().by));
        assert!(by_rows(&seen.await.unwrap().by));

        // No subscription has this table: not before 5 s, then by asking.
        let started = std::time::Instant::now();
        let uncovered = handle.wait_for("public.other", &json!({"id": 1}), at_least(1)).within(LIMIT);
        session.batch_execute("INSERT INTO other VALUES (1, 1)").await.unwrap();
        let found = uncovered.await.unwrap();
        assert!(by_rows(&found.by) && started.elapsed() >= Duration::from_secs(5), "{found:?}");
        // What came before is not in the stream; whoever has no copy asks at once, and not after 5 s: one of several does
        // on a machine that stands still.
        let mut tries = 0..5;
        let found = loop {
            tries.next().expect("an answer within 4 s");
            let before = handle.wait_for("public.t", &json!({"id": 2, "part": "1.00"}), |_| true);
            if let Ok(found) = before.ask_after(Duration::ZERO).within(Duration::from_secs(4)).await {
                break found;
            }
        };
        let FoundBy::Rows { reached, .. } = found.by else { panic!("not by the stream") };
        // Everything that the row shows comes to the copy before this.
        session.batch_execute("INSERT INTO t VALUES (4, 0, 0)").await.unwrap();
        handle.after_commit(&"t".parse().unwrap(), reached.lsn()).within(LIMIT).await.unwrap();
        daemon.assert_quiet(&[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stands_still_keeps_nobody_waiting() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let daemon = Daemon::of(&database).start().await;
    let proxy = Proxy::to(daemon.port()).await;
    let rows = format!("http://127.0.0.1:{}/v1/rows", daemon.port());
    let url = format!("ws://127.0.0.1:{}", proxy.port());
    let follower = Follower::start(builder(&url).rows_url(&rows).build().unwrap(), table("public.t")).await;
    proxy.blackhole(Direction::ToClient);
    let pause = Duration::from_millis(100);
    let wait = follower.handle.wait_for("public.t", &json!({"id": 1}), |_| true).ask_after(pause);
    database.run("INSERT INTO t VALUES (1, 0)").await;
    let found = wait.within(LIMIT).await.unwrap();
    assert!(by_rows(&found.by) && follower.has(1).is_none(), "{found:?}");
    // The stream brings it, too, when it goes on.
    let again = follower.handle.wait_for("public.t", &json!({"id": 1}), |_| true);
    proxy.heal();
    assert!(!by_rows(&again.ask_after(LIMIT).within(LIMIT).await.unwrap().by));
    // A client that nobody reads from: the asking does not need it.
    let mut unread = builder(&url).build().unwrap();
    unread.subscribe(table("public.t")).await.unwrap();
    let wait = unread.handle().wait_for("public.t", &json!({"id": 1}), |_| true).ask_after(pause);
    assert!(by_rows(&wait.within(LIMIT).await.unwrap().by));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_who_wait_are_few_requests() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let daemon = Daemon::of(&database).start().await;
    database.run("INSERT INTO t SELECT g, 0 FROM generate_series(0, 3999) g").await;
    let proxy = Proxy::to(daemon.port()).await;
    let rows = format!("http://127.0.0.1:{}/v1/rows", proxy.port());
    let client = builder(&daemon.ws_url()).rows_url(&rows).build().unwrap();
    let handle = client.handle();
    let began = std::time::Instant::now();
    let waits: Vec<_> = (0..4000)
        .map(|id| handle.wait_for("public.t", &json!({"id": id}), |_| true).ask_after(Duration::from_secs(1)))
        .collect();
    // Cancelled before anybody asks: only those for what is even are left.
    let waits: Vec<_> = waits.into_iter().step_by(2).collect();
    let found = within("all rows", LIMIT, join_all(waits)).await;
    for (index, found) in found.into_iter().enumerate() {
        assert_eq!(read(&found.unwrap().row)["id"], index * 2);
    }
    // Of 1000 keys, and a round for each second that it took to make and to find them.
    let seconds = began.elapsed().as_secs();
    assert!((2..=4 + seconds).contains(&proxy.accepted()), "{} requests in {seconds} s", proxy.accepted());
    proxy.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_policies_and_tls_are_those_of_the_stream() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database
        .run(
            "CREATE TABLE t (id int PRIMARY KEY, owner text COLLATE \"C\", v int); ALTER TABLE t REPLICA IDENTITY FULL;
             CREATE TABLE secret (id int PRIMARY KEY); INSERT INTO secret VALUES (1);
             INSERT INTO t VALUES (1, 'ada', 1), (2, 'bob', 2)",
        )
        .await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let secret = write("secret", SECRET);
    let policies = write(
        "policies.toml",
        "[[policy]]\nrole = 'authenticated'\ntable = 'public.t'\nwhere = 'owner = claims.sub'\n",
    );
    let trusts = certify(Path::new(folder.path()));
    let daemon = Daemon::of(&database)
        .flag("--tls-cert-file", folder.path().join("cert.pem").display())
        .flag("--tls-key-file", folder.path().join("key.pem").display())
        .flag("--jwt-secret-file", secret.display())
        .flag("--policies", policies.display())
        .admin()
        .start()
        .await;
    let url = format!("wss://127.0.0.1:{}", daemon.port());
    let client = builder(&url).token(token("ada", 300)).tls_config(Arc::clone(&trusts)).build().unwrap();
    let follower = Follower::start(client, table("public.t")).await;
    let handle = follower.handle.clone();
    let lookup = |table: &str, id: i64| Lookup::new(table).unwrap().key(&json!({"id": id})).unwrap();
    let rows =
        handle.rows(&lookup("public.t", 1).key(&json!({"id": 2})).unwrap().columns(["v"])).await.unwrap();
    assert_eq!(rows.rows[0].as_ref().unwrap().get(), r#"{"id":1,"v":1}"#);
    // Another one's row is as one that is not there: waited for on.
    assert!(rows.rows[1].is_none());
    let wait = handle.wait_for("public.t", &json!({"id": 2}), |_| true).ask_after(Duration::ZERO);
    let mut wait = std::pin::pin!(wait.within(LIMIT));
    // A table that is not given says so at once.
    let forbidden = handle.wait_for("public.secret", &json!({"id": 1}), |_| true).ask_after(Duration::ZERO);
    let error = forbidden.within(LIMIT).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.answer().unwrap().code.as_str()),
        (ErrorKind::Refused, "forbidden"),
        "{error}"
    );
    // Nor is a key that is none of the table's, which harms nobody else.
    let wrong = handle.wait_for("public.t", &json!({"id": "x"}), |_| true).ask_after(Duration::ZERO);
    let error = wrong.within(LIMIT).await.unwrap_err();
    assert_eq!(error.answer().unwrap().code.as_str(), "bad_message", "{error}");
    assert!(futures_util::poll!(wait.as_mut()).is_pending());
    database.run("UPDATE t SET owner = 'ada' WHERE id = 2").await;
    assert_eq!(read(&wait.await.unwrap().row)["v"], 2);
    // Without a token, or to a server that is not known.
    let nobody = builder(&url).tls_config(trusts).build().unwrap();
    let error = nobody.handle().rows(&lookup("public.t", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    if let Ok(stranger) = builder(&url).token(token("ada", 300)).build() {
        let error = stranger.handle().rows(&lookup("public.t", 1)).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Unavailable && error.to_string().contains("certificate"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_keys_asks_for_the_rows() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)").await;
    let daemon = Daemon::of(&database).start().await;
    let mut client = builder(&daemon.ws_url()).build().unwrap();
    let handle = client.handle();
    client.subscribe(table("public.t").start(StartAt::Latest).payload(Payload::Key)).await.unwrap();
    while !matches!(next(&mut client).await, Event::CaughtUp(_)) {}
    let wait = handle.wait_for("public.t", &json!({"id": 1}), at_least(1)).ask_after(LIMIT).within(LIMIT);
    let reading = tokio::spawn(async move { while client.next().await.is_some() {} });
    database.run("UPDATE t SET v = 1").await;
    let found = wait.await.unwrap();
    assert!(by_rows(&found.by) && read(&found.row)["v"] == 1, "{found:?}");
    reading.abort();
}

/// The next event of a client that nothing is wrong with.
async fn next(client: &mut Client) -> Event {
    match within("an event", LIMIT, client.next()).await.expect("an item").expect("the client goes on") {
        Event::Failed { error, .. } | Event::Error(error) => panic!("{error:?}"),
        event => event,
    }
}

/// Where the WAL is after a commit, as an application asks.
async fn position(session: &TestSession) -> Lsn {
    let position = session.scalar("SELECT pg_current_wal_lsn()::text").await;
    position.expect("a position").parse().expect("a position")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_reads_its_own_writes() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY)")
            .await;
        let mut daemon = Daemon::of(&database).flag("--heartbeat", "200ms").start().await;
        let proxy = Proxy::to(daemon.port()).await;
        let url = format!("ws://127.0.0.1:{}", proxy.port());
        let follower = Follower::start(builder(&url).build().unwrap(), table("public.t")).await;
        let id = "t".parse().unwrap();
        let session = database.session().await;
        let after = |lsn: Lsn| follower.handle.after_commit(&id, lsn).within(LIMIT);
        let write = async |number: i64| {
            session.batch_execute(&format!("INSERT INTO t VALUES ({number}, 1)")).await.unwrap();
            position(&session).await
        };
        // At rest.
        for number in 0..5 {
            let lsn = write(number).await;
            after(lsn).await.unwrap();
            assert_eq!(follower.has(number), Some(1));
        }
        // Of another table: a heartbeat tells. Commits that are not yet written, too.
        session.batch_execute("SET synchronous_commit = off; INSERT INTO other VALUES (1)").await.unwrap();
        let insert = "SELECT pg_current_wal_insert_lsn()::text";
        let lsn = session.scalar(insert).await.unwrap().parse().unwrap();
        after(lsn).await.unwrap();
        session.batch_execute("INSERT INTO t VALUES (100, 1)").await.unwrap();
        let lsn = session.scalar(insert).await.unwrap().parse().unwrap();
        after(lsn).await.unwrap();
        assert_eq!(follower.has(100), Some(1));
        session.batch_execute("RESET synchronous_commit").await.unwrap();
        // Busy, with several who write and read.
        let writers = (0..4).map(|writer| {
            let (database, handle, copy) = (&database, follower.handle.clone(), Arc::clone(&follower.copy));
            let id = &id;
            async move {
                let session = database.session().await;
                for number in 0..50 {
                    let number = 1000 * (writer + 1) + number;
                    session.batch_execute(&format!("INSERT INTO t VALUES ({number}, 1)")).await.unwrap();
                    let lsn = position(&session).await;
                    handle.after_commit(id, lsn).within(LIMIT).await.unwrap();
                    assert!(copy.lock().unwrap().contains_key(&number), "{number} is not there after {lsn}");
                }
            }
        });
        join_all(writers).await;
        // Across a lost connection, and a daemon that was killed.
        proxy.refuse(true);
        proxy.cut();
        let lsn = write(10).await;
        let mut wait = std::pin::pin!(after(lsn));
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
        proxy.refuse(false);
        wait.await.unwrap();
        assert_eq!(follower.has(10), Some(1));
        daemon.kill9().await;
        let lsn = write(11).await;
        let wait = after(lsn);
        daemon.restart().await;
        wait.await.unwrap();
        assert_eq!(follower.has(11), Some(1));
    })
    .await;
}

/// Reads rows until one has this id, and acknowledges those up to and with `acknowledged`; the cursor is durable then.
async fn apply_until(client: &mut Client, seen: &mut Vec<i64>, acknowledged: i64, last: i64) -> Option<Mode> {
    let (mut mode, mut cursor) = (None, None);
    let mut is_last = false;
    while !(is_last && cursor.is_none()) {
        match next(client).await {
            Event::Subscribed(subscribed) => mode = Some(subscribed.mode),
            Event::SnapshotComplete(done) => client.ack(&done.id, done.cursor).expect("it has begun"),
            Event::Transaction(transaction) => {
                let row = read(transaction.changes[0].row.as_ref().expect("a row"));
                let id = row["id"].as_i64().expect("an id");
                seen.push(id);
                is_last |= id == last;
                if id == acknowledged {
                    cursor = transaction.cursor;
                    client.ack(&transaction.id, cursor.expect("a cursor")).expect("it was given");
                }
            }
            Event::Acked(acked) => {
                cursor.take_if(|cursor| *cursor == acked.cursor);
            }
            _ => {}
        }
    }
    mode
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_where_the_next_process_goes_on() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
        let mut daemon = Daemon::of(&database).flag("--ack-interval", "20ms").start().await;
        let proxy = Proxy::to(daemon.port()).await;
        let url = format!("ws://127.0.0.1:{}", proxy.port());
        let start = async || {
            let mut client = builder(&url).build().unwrap();
            client.subscribe(table("public.t").client_id("laptop").start(StartAt::Acked)).await.unwrap();
            client
        };
        let mut client = start().await;
        // Nothing is acknowledged yet.
        loop {
            match next(&mut client).await {
                Event::SnapshotComplete(done) => client.ack(&done.id, done.cursor).unwrap(),
                Event::CaughtUp(_) => break,
                _ => {}
            }
        }
        let insert = async |ids: std::ops::Range<i64>| {
            for id in ids {
                database.run(&format!("INSERT INTO t VALUES ({id}, 0)")).await;
            }
        };
        insert(0..10).await;
        let mut seen = Vec::new();
        apply_until(&mut client, &mut seen, 4, 9).await;
        assert_eq!(seen, (0..=9).collect::<Vec<_>>());
        // A lost connection: nothing twice, though 5 to 9 are not acknowledged and come again.
        proxy.cut();
        insert(10..13).await;
        apply_until(&mut client, &mut seen, 4, 12).await;
        assert_eq!(seen, (0..=12).collect::<Vec<_>>());
        // So they come to the next process, whatever was given on the connections of this one.
        drop(client);
        let mut client = start().await;
        let mut seen = Vec::new();
        let mode = apply_until(&mut client, &mut seen, 7, 12).await;
        assert!(mode != Some(Mode::Snapshot) && seen == (5..=12).collect::<Vec<_>>(), "{mode:?} {seen:?}");
        // The daemon is killed, under the client and between two clients.
        daemon.kill9().await;
        daemon.restart().await;
        insert(13..16).await;
        apply_until(&mut client, &mut seen, 14, 15).await;
        assert_eq!(seen, (5..=15).collect::<Vec<_>>());
        drop(client);
        daemon.kill9().await;
        daemon.restart().await;
        let mut client = start().await;
        insert(16..20).await;
        let mut seen = Vec::new();
        let mode = apply_until(&mut client, &mut seen, 19, 19).await;
        assert!(mode != Some(Mode::Snapshot) && seen == (15..=19).collect::<Vec<_>>(), "{mode:?} {seen:?}");
        // Who is there, and what it has acknowledged.
        assert!(client.ask_for_clients());
        let list = loop {
            if let Event::Clients(list) = next(&mut client).await {
                break list.clients;
            }
        };
        assert!(list.len() == 1 && list[0].client_id == "laptop" && list[0].id == "t", "{list:?}");
        client.close().await;
    })
    .await;
}

/// `walcast tail --client-id` for one transaction: its cursor, and the id of its row.
async fn tail(daemon: &Daemon) -> (String, i64) {
    let run = tokio::process::Command::new(program())
        .args(["tail", "t", "--client-id", "reports", "--json", "--limit", "1", "--url", &daemon.ws_url()])
        .env_remove("WALCAST_TOKEN")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("tail", LIMIT, run).await.expect("tail runs");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let transaction = messages
        .filter(|message| message["type"] == "transaction")
        .find(|message| message["cursor"].is_string());
    let transaction = transaction.unwrap_or_else(|| panic!("{lines}{output:?}"));
    let id = transaction["changes"][0]["row"]["id"].as_i64().expect("an id");
    (transaction["cursor"].as_str().expect("a cursor").to_owned(), id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_goes_on_where_it_stopped_under_this_name() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let daemon = Daemon::of(&database).flag("--ack-interval", "20ms").start().await;
    // The initial sync, by a client that goes by the same names.
    let mut client = builder(&daemon.ws_url()).build().unwrap();
    let subscription = Subscription::new("tail", ["public.t"]).unwrap().client_id("reports");
    client.subscribe(subscription.start(StartAt::Acked)).await.unwrap();
    loop {
        match next(&mut client).await {
            Event::SnapshotComplete(done) => client.ack(&done.id, done.cursor).unwrap(),
            Event::Acked(_) => break,
            _ => {}
        }
    }
    client.close().await;
    for id in 0..2 {
        database.run(&format!("INSERT INTO t VALUES ({id}, 0)")).await;
    }
    let (cursor, id) = tail(&daemon).await;
    assert_eq!(id, 0);
    database.until("SELECT lsn::text FROM walcast.client WHERE client_id = 'reports'", &cursor).await;
    assert_eq!(tail(&daemon).await.1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_that_tail_gives_to_go_on_with_does_so_in_a_shell() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE \"it's\" (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&database).start().await;
    database.run("INSERT INTO \"it's\" VALUES (41)").await;
    database.run("INSERT INTO other VALUES (1); INSERT INTO \"it's\" VALUES (42)").await;
    let of = ["tail", "it's", "--human", "--from", "oldest", "--limit", "1", "--url"];
    let mut tail = tokio::process::Command::new(program());
    let run = tail.args(of).arg(daemon.ws_url()).env_remove("WALCAST_TOKEN").kill_on_drop(true).output();
    let output = within("tail", LIMIT, run).await.expect("tail runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, command) = said.split_once("to go on from here: ").unwrap_or_else(|| panic!("{said}"));
    let folder = program().parent().expect("a folder").to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = tokio::process::Command::new("sh");
    let run = shell.args(["-c", &format!("{} --limit 1", command.trim())]).env("PATH", path);
    let run = run.env_remove("WALCAST_TOKEN").kill_on_drop(true).output();
    let output = within("tail again", LIMIT, run).await.expect("a shell runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("42") && !shown.contains("41") && !shown.contains("other"), "{shown}{output:?}");
}
