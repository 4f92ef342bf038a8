//! WAL never fills the source's disk because of walcast: what is kept for it is measured, shown, and held to a budget.

use serde_json::{Value, json};
use walcast_testkit::{
    Cluster, Daemon, DaemonBuilder, LIMIT, TestDatabase, cluster_builder, eventually, installations,
};

use crate::observer::{Observer, open, receive, send};
use crate::upkeep::{lines, readyz, walcast};

/// Memory for recent transactions in these tests.
const FEED_MEMORY: u64 = 4 << 20;

/// A source, and a history in another server, which a test may stop at will.
async fn servers(installation: &walcast_testkit::Installation) -> (Cluster, Cluster, TestDatabase) {
    let builder = cluster_builder(installation);
    let (source, history) = tokio::join!(builder.clone().start(), builder.start());
    let (source, history) = (source.expect("a source"), history.expect("a history"));
    let database = TestDatabase::create(&source).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    (source, history, database)
}

fn daemon_of(database: &TestDatabase, history: &Cluster) -> DaemonBuilder {
    Daemon::of(database)
        .flag("--history-url", history.url("postgres"))
        .flag("--feed-memory", FEED_MEMORY)
        .flag("--wal-budget", "64MiB")
        .flag("--wal-budget-interval", "100ms")
        .flag("--history-stall-bytes", "1MiB")
        .flag("--drain-max", "100ms")
}

/// Writes five segments of WAL, of which the feed has little.
async fn write_wal(database: &TestDatabase, from: i32) {
    let session = database.session().await;
    for id in from..from + 5 {
        session
            .batch_execute(&format!("INSERT INTO t VALUES ({id}, 'x'); SELECT pg_switch_wal()"))
            .await
            .expect("a segment");
    }
}

fn has_reason(health: &Value, fragment: &str) -> bool {
    let mut reasons = health["reasons"].as_array().expect("reasons").iter();
    reasons.any(|reason| reason.as_str().is_some_and(|reason| reason.contains(fragment)))
}

async fn until_reason(daemon: &Daemon, fragment: &str, is_there: bool) -> Value {
    let what = format!("/readyz {} {fragment:?}", if is_there { "says" } else { "no longer says" });
    eventually(&what, LIMIT, async || {
        let health = readyz(daemon).await;
        (has_reason(&health, fragment) == is_there).then_some(health)
    })
    .await
}

fn finding(output: &std::process::Output, check: &str) -> Value {
    let found = lines(output).into_iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no finding {check}: {output:?}"))
}

/// Rows that are written while history stalls; more for a soak (`WALCAST_STALL_ROWS`).
fn rows() -> i32 {
    std::env::var("WALCAST_STALL_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(60_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_history_keeps_wal_that_is_shown_and_memory_that_is_bounded() {
    for installation in installations() {
        let (_source, history, database) = servers(&installation).await;
        let daemon = daemon_of(&database, &history).start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let health = eventually("what the slot keeps", LIMIT, async || {
            let health = readyz(&daemon).await;
            health["wal"].is_object().then_some(health)
        })
        .await;
        assert_eq!(
            (&health["wal"]["budget_bytes"], &health["reasons"]),
            (&json!(64 << 20), &json!([])),
            "{health}"
        );

        history.pause().unwrap();
        let writer = database.session().await;
        let rows = rows();
        for from in (0..rows).step_by(10_000) {
            let sql = format!(
                "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series({from}, least({from} + 9999, {rows} - 1)) g"
            );
            writer.batch_execute(&sql).await.unwrap();
        }
        write_wal(&database, rows).await;
        let health = until_reason(&daemon, "wal_budget", true).await;
        assert_eq!((&health["ready"], &health["wal"]["seconds_left"]), (&json!(true), &json!(0)), "{health}");
        assert!(health["wal"]["retained_bytes"].as_u64().unwrap() > 64 << 20, "{health}");
        daemon.until_log("keeps more WAL than wal_budget").await;
        daemon.until_metric("walcast_wal_budget_exceeded", 1.0).await;
        assert!(daemon.metric("walcast_slot_retained_bytes").await.unwrap() > f64::from(64 << 20));
        // The slot is read no further than memory goes.
        let held = health["feed"]["memory_bytes"].as_u64().unwrap();
        assert!(held < FEED_MEMORY + (2 << 20), "the feed holds {held} bytes");
        let peak = daemon.peak_memory_bytes().map(|bytes| bytes >> 20);
        eprintln!("{rows} rows while history stalls: peak RSS {peak:?} MiB with --feed-memory {FEED_MEMORY}");
        assert!(peak.is_none_or(|peak| peak < 200), "peak RSS {peak:?} MiB");

        history.resume().unwrap();
        observer.until_transactions((usize::try_from(rows).unwrap().div_ceil(10_000)) + 5).await;
        observer.assert_equals(&database, "public.t").await;
        // The server moves a slot on when it has written where its transactions stand, and that is acknowledged.
        let mut id = 1_000_000;
        eventually("the slot keeps less again", LIMIT, async || {
            id += 1;
            database.run("CHECKPOINT").await;
            database.run(&format!("INSERT INTO t VALUES ({id}, '')")).await;
            (!has_reason(&readyz(&daemon).await, "wal_budget")).then_some(())
        })
        .await;
        daemon.until_log("keeps less WAL than wal_budget again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_daemon_that_is_stopped_is_shown_and_how_long_it_lasts() {
    let installation = installations().pop().expect("a Postgres");
    let builder = cluster_builder(&installation).setting("max_slot_wal_keep_size", "256MB");
    let source = builder.start().await.expect("a source");
    let database = TestDatabase::create(&source).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let mut daemon = Daemon::of(&database).start().await;
    daemon.terminate().await;
    write_wal(&database, 0).await;
    let status = &lines(&walcast(&database, &["status", "--json"]))[0];
    let slot = &status["slot"];
    assert!(slot["retained_bytes"].as_u64().unwrap() > 64 << 20, "{status}");
    assert!((1..256 << 20).contains(&slot["safe_bytes"].as_u64().unwrap()), "{status}");
    assert_eq!(slot["budget_bytes"], json!(10_u64 << 30));
    let shown = walcast(&database, &["status", "--human"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown.contains("of wal_budget 10.0 GiB") && shown.contains("until the server's limit"),
        "{shown}"
    );
    // A budget that it is over, and a rate at which the server's limit is near.
    let found = finding(&walcast(&database, &["doctor", "--json", "--wal-budget", "32MiB"]), "wal_budget");
    assert_eq!(found["severity"], "error", "{found}");
    assert!(found["fix"].as_str().unwrap().contains("start walcast serve"), "{found}");
    let writer = database.session().await;
    let writing = tokio::spawn(async move {
        for id in 1000.. {
            let sql = format!("INSERT INTO t VALUES ({id}, repeat(md5('{id}'), 1000))");
            if writer.batch_execute(&sql).await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    database.until("SELECT count(*) > 20 FROM t WHERE id >= 1000", "t").await;
    let found = finding(&walcast(&database, &["doctor", "--json"]), "wal_budget");
    writing.abort();
    assert_eq!(found["severity"], "warning", "{found}");
    assert!(found["message"].as_str().unwrap().contains("which leaves"), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_budget_the_slot_is_given_up_where_that_was_asked_for_and_nothing_passes_over_the_hole() {
    for installation in installations() {
        let (_source, history, database) = servers(&installation).await;
        let mut daemon =
            daemon_of(&database, &history).flag("--wal-budget-policy", "drop_slot").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let (_, welcome) = open(&daemon.ws_url()).await;
        history.pause().unwrap();
        // More than the feed holds, so that the source is not read while it happens.
        database.run("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 40000) g").await;
        write_wal(&database, 100_000).await;
        database.until("SELECT count(*) FROM pg_replication_slots", "0").await;
        until_reason(&daemon, "the slot was given up", true).await;
        let status = loop {
            let message = observer.raw().await;
            // The connection may end with other words before it is known that the slot is gone.
            if message["hint"].as_str().is_some_and(|hint| hint.contains("--start-over")) {
                break message;
            }
        };
        assert_eq!(
            (&status["type"], &status["state"]),
            (&json!("status"), &json!("interrupted")),
            "{status}"
        );
        daemon.until_metric("walcast_wal_budget_slots_given_up_total", 1.0).await;

        history.resume().unwrap();
        database.run("INSERT INTO t VALUES (-1, 'after the end')").await;
        daemon.until_log("does not exist any more").await;
        // It says so for ever, and neither makes another slot nor goes on.
        let health = until_reason(&daemon, "the slot was given up", true).await;
        assert_eq!(health["source"]["state"], "interrupted", "{health}");
        daemon.terminate().await;
        let stopped = walcast(&database, &["setup", "--history-url", &history.url("postgres")]);
        let said = String::from_utf8_lossy(&stopped.stderr);
        assert!(!stopped.status.success() && said.contains("--start-over"), "{said}");
        let start_over = ["setup", "--start-over", "--yes", "--history-url", &history.url("postgres")];
        let over = walcast(&database, &start_over);
        assert!(over.status.success(), "{over:?}");
        daemon.restart().await;
        let (mut socket, _) = open(&daemon.ws_url()).await;
        let message = json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}],
                             "feed": welcome["feed"], "cursor": welcome["cursor"]});
        send(&mut socket, message).await;
        let answer = loop {
            let message = receive(&mut socket).await.expect("an answer");
            if !matches!(message["type"].as_str(), Some("heartbeat" | "status" | "waiting")) {
                break message;
            }
        };
        assert_eq!(answer["code"], "feed_changed", "{answer}");
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        observer.assert_equals(&database, "public.t").await;
    }
}
