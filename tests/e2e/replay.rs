//! `walcast replay` as a process: where it ends, and how it follows.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, program, run_command, within};

use crate::observer::wal_position;
use crate::upkeep::{lines, walcast};

/// The ids of each transaction that was printed, and whether more of it was to come.
fn printed(lines: &[Value]) -> Vec<(Vec<i64>, bool)> {
    let ids = |line: &Value| {
        let changes = line["changes"].as_array().expect("changes");
        changes.iter().map(|change| change["row"]["id"].as_i64().expect("an id")).collect()
    };
    lines.iter().map(|line| (ids(line), line["more"] == json!(true))).collect()
}

fn replay(database: &TestDatabase, arguments: &[&str]) -> Vec<Value> {
    let output = walcast(database, &[&["replay", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    lines(&output)
}

/// Transactions of one, one, three and one rows; returns when they are in history.
async fn history_of(database: &TestDatabase) -> Daemon {
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(database).start().await;
    for rows in ["(1)", "(2)", "(3), (4), (5)", "(6)"] {
        database.run(&format!("INSERT INTO t VALUES {rows}")).await;
    }
    database.until("SELECT count(*) FROM walcast.change_history", "6").await;
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_ends_at_its_limit_and_before_its_cursor() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let _daemon = history_of(&database).await;
        let all = replay(&database, &[]);
        let whole = |ids: &[i64]| (ids.to_vec(), false);
        let expected = [whole(&[1]), whole(&[2]), whole(&[3, 4, 5]), whole(&[6])];
        assert_eq!(printed(&all), expected);
        for limit in 1..=5 {
            let some = replay(&database, &["--limit", &limit.to_string()]);
            assert_eq!(some, all[..limit.min(4)], "--limit {limit}");
        }
        for (index, line) in all.iter().enumerate() {
            let cursor = line["cursor"].as_str().expect("a cursor");
            assert_eq!(replay(&database, &["--to", cursor]), all[..=index], "--to {cursor}");
            assert_eq!(replay(&database, &["--from", cursor]), all[index + 1..], "--from {cursor}");
        }
        // Two of three changes: the rest is what begins there.
        let inside = format!("{}:2", all[2]["lsn"].as_str().expect("a position"));
        let first = printed(&replay(&database, &["--to", &inside]));
        assert_eq!(first[2..], [(vec![3, 4], true)], "--to {inside}");
        let rest = replay(&database, &["--from", &inside, "--limit", "1"]);
        assert_eq!(printed(&rest), [whole(&[5])], "--from {inside}");
    })
    .await;
}

/// A replay that follows.
struct Following {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(database: &TestDatabase, arguments: &[&str]) -> Self {
        let name = database.slot_name();
        let mut process = tokio::process::Command::new(program())
            .args(["replay", "--follow", "--json", "--database-url", database.url(), "--slot", &name])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("replay runs");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, lines }
    }

    /// The next line; `None` when it has ended.
    async fn next(&mut self) -> Option<Value> {
        let line = within("a line of replay --follow", LIMIT, self.lines.next_line()).await.expect("a pipe");
        line.map(|line| serde_json::from_str(&line).expect("JSON"))
    }

    async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.expect("it follows"));
        }
        taken
    }

    /// Its exit code, after the end of its output.
    async fn end(mut self) -> Option<i32> {
        assert_eq!(self.next().await, None);
        within("the end of replay", LIMIT, self.process.wait()).await.expect("a process").code()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_follows_until_its_limit_its_cursor_or_a_signal() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let _daemon = history_of(&database).await;
        let mut for_ever = Following::start(&database, &[]);
        let mut limited = Following::start(&database, &["--limit", "5"]);
        let behind = wal_position(&database).await.to_string();
        let mut bounded = Following::start(&database, &["--to", &behind]);
        let past = replay(&database, &[]);
        for following in [&mut for_ever, &mut limited, &mut bounded] {
            assert_eq!(following.take(4).await, past);
        }
        // What comes while they wait at the end.
        database.run("INSERT INTO t VALUES (7)").await;
        let seventh = for_ever.take(1).await;
        assert_eq!(printed(&seventh), [(vec![7], false)]);
        assert_eq!(limited.take(1).await, seventh);
        assert_eq!(limited.end().await, Some(0), "at the limit");
        assert_eq!(bounded.end().await, Some(0), "at the cursor");
        database.run("INSERT INTO t VALUES (8)").await;
        assert_eq!(printed(&for_ever.take(1).await), [(vec![8], false)]);
        let mut interrupt = Command::new("kill");
        interrupt.arg("-INT").arg(for_ever.process.id().expect("it follows").to_string());
        assert!(run_command(interrupt).status.success());
        assert_eq!(for_ever.end().await, Some(0), "after SIGINT");
    })
    .await;
}
