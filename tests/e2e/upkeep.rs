//! What the tests of retention and of the WAL budget share.

use std::process::Output;

use serde_json::Value;
use walcast_testkit::{Daemon, TestDatabase, run, shared_cluster};

/// `walcast`, for `database`.
pub(crate) fn walcast(database: &TestDatabase, arguments: &[&str]) -> Output {
    let (url, name) = (database.url(), database.slot_name());
    let of = ["--database-url", url, "--slot", &name, "--publication", &name];
    run(arguments.iter().chain(if arguments[0] == "tail" { &[][..] } else { &of }))
}

/// The lines of standard output, each of which is JSON.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{output:?}"))).collect()
}

pub(crate) async fn readyz(daemon: &Daemon) -> Value {
    let answer = daemon.get("/readyz").await.expect("an answer");
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test]
async fn replay_without_a_history_says_how_to_get_one() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let output = walcast(&database, &["replay"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("walcast setup"), "{words}");
}
