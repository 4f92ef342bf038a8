//! What the tests of retention and of the WAL budget share.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use walcast_testkit::{Daemon, TestDatabase, shared_cluster};

/// The `walcast` beside the test, for `database`.
pub(crate) fn walcast(database: &TestDatabase, arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("this test has a path");
    let folders = test.ancestors().skip(1).take(2).map(|folder| folder.join("walcast"));
    let program: PathBuf =
        folders.into_iter().find(|path| path.is_file()).expect("the binary beside the test");
    let (url, name) = (database.url(), database.slot_name());
    let mut command = Command::new(program);
    command.args(arguments);
    if arguments[0] != "tail" {
        command.args(["--database-url", url, "--slot", &name, "--publication", &name]);
    }
    command.output().expect("walcast runs")
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
