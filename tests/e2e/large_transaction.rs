//! Transactions of any size, in bounded memory.

use walcast_testkit::{Daemon, LIMIT, TestDatabase, shared_cluster, within};

use crate::observer::Observer;
use crate::upkeep::readyz;

/// Rows of the large transaction: 5,000,000 in the issue's own run (`WALCAST_LARGE_ROWS`), fewer in CI.
fn rows() -> usize {
    std::env::var("WALCAST_LARGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(300_000)
}

/// Of a row's text. All of them are several times what the daemon may need.
const BODY_BYTES: usize = 300;
const FEED_BYTES: u64 = 4 << 20;
/// The default of `part_bytes`. A part in memory is larger than its text.
const PART_BYTES: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_flows_through_in_parts_with_bounded_memory() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, body text)").await;
    let daemon = Daemon::of(&database).flag("--feed-memory", FEED_BYTES).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    let (rows, idle) = (rows(), daemon.peak_memory_bytes());
    let writer = database.session().await;
    let sql = format!("INSERT INTO t SELECT g, repeat('x', {BODY_BYTES}) FROM generate_series(1, {rows}) g");
    let writing = tokio::spawn(async move { writer.batch_execute(&sql).await });
    let (mut next, mut parts, mut held) = (1, 0, 0);
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
        held = held.max(readyz(&daemon).await["feed"]["memory_bytes"].as_u64().expect("the feed's memory"));
        if message["more"] != true {
            break;
        }
    }
    within("the end of the writer", LIMIT, writing).await.unwrap().unwrap();
    assert_eq!(next, rows + 1);
    assert!(parts > 10, "{parts} parts");
    assert!(held < FEED_BYTES + 2 * PART_BYTES, "the feed held {held} bytes");
    database.until("SELECT count(*) FROM walcast.change_history", &rows.to_string()).await;
    if let (Some(idle), Some(peak)) = (idle, daemon.peak_memory_bytes()) {
        let (grown, whole) = (peak - idle, (rows * BODY_BYTES) as u64);
        eprintln!(
            "{rows} rows in one transaction, {} MiB of text: {parts} parts, {held} bytes in the feed, peak RSS {} MiB more than before",
            whole >> 20,
            grown >> 20
        );
        assert!(grown < whole / 2, "peak RSS {grown} bytes more than before, for {whole} bytes");
    }
}
