//! Transactions of any size, in bounded memory.

use walcast_testkit::{Daemon, LIMIT, TestDatabase, shared_cluster, within};

use crate::observer::Observer;

/// Rows of the large transaction: 5,000,000 in the issue's own run (`WALCAST_LARGE_ROWS`), fewer in CI.
fn rows() -> usize {
    std::env::var("WALCAST_LARGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(300_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_flows_through_in_parts_with_bounded_memory() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let daemon = Daemon::of(&database).flag("--feed-memory", "16MiB").start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let rows = rows();
    let writer = database.session().await;
    let sql = format!("INSERT INTO t SELECT g, repeat('x', 80) FROM generate_series(1, {rows}) g");
    let writing = tokio::spawn(async move { writer.batch_execute(&sql).await });
    let (mut next, mut parts) = (1, 0);
    loop {
        let message = observer.raw().await;
        if message["type"] != "transaction" {
            continue;
        }
        parts += 1;
        for change in message["changes"].as_array().unwrap() {
            assert_eq!(change["row"]["id"], next);
            next += 1;
        }
        if message["more"] != true {
            break;
        }
    }
    within("the end of the writer", LIMIT, writing).await.unwrap().unwrap();
    assert_eq!(next, rows + 1);
    assert!(parts > 10, "{parts} parts");
    database.until("SELECT count(*) FROM walcast.change_history", &rows.to_string()).await;
    if let Some(peak) = daemon.peak_memory_bytes().map(|bytes| bytes >> 20) {
        eprintln!(
            "{rows} rows in one transaction: {parts} parts, peak RSS {peak} MiB with --feed-memory 16MiB"
        );
        assert!(peak < 250, "peak RSS {peak} MiB");
    }
}
