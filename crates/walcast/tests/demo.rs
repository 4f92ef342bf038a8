//! `walcast demo`, as somebody runs it who has just heard of walcast.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

struct Demo {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_walcast"))
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, lines, seen: Vec::new() }
    }

    /// The next line with `fragment`.
    fn until(&mut self, fragment: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
            if let Some(line) = self.seen.last().filter(|line| line.contains(fragment)) {
                return line.clone();
            }
        }
        panic!("no line with {fragment:?} within {LIMIT:?}; there were:\n{}", self.seen.join("\n"));
    }

    /// The URL in the line to copy.
    fn url(&mut self) -> String {
        let line = self.until("postgresql://");
        let start = line.find("postgresql://").unwrap();
        line[start..].split(['\'', ' ']).next().unwrap().to_owned()
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success()
        );
    }

    fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < LIMIT, "the demo did not end within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _status = self.process.wait();
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Where the demo's server keeps its data, as the server says.
async fn folder(client: &tokio_postgres::Client) -> PathBuf {
    let data: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
    PathBuf::from(data).parent().unwrap().to_owned()
}

#[tokio::test]
async fn a_change_made_in_another_terminal_appears_and_an_interrupt_leaves_nothing() {
    // Somebody has the usual port.
    let _taken = TcpListener::bind("127.0.0.1:4700");
    let mut demo = Demo::start(&["--rate", "20"]);
    let url = demo.url();
    demo.until("is caught up");
    let client = connect(&url).await;
    let folder = folder(&client).await;
    client
        .batch_execute("UPDATE products SET name = 'Hammock for two' WHERE name = 'Hammock'")
        .await
        .unwrap();
    let line = demo.until("Hammock for two");
    assert!(line.contains("~ products") && line.contains("Hammock → Hammock for two"), "{line}");
    demo.until("+ order_lines");
    demo.signal("-INT");
    assert!(demo.ended().success());
    assert!(!folder.exists(), "{}", folder.display());
    assert!(client.simple_query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing_either() {
    let mut demo = Demo::start(&[]);
    let url = demo.url();
    let client = connect(&url).await;
    let folder = folder(&client).await;
    demo.signal("-KILL");
    demo.ended();
    let started = Instant::now();
    while folder.exists() {
        assert!(started.elapsed() < LIMIT, "{} is still there", folder.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn others_on_the_machine_need_the_password() {
    let mut demo = Demo::start(&[]);
    let url = demo.url();
    let (user, address) = url.split_once('@').unwrap();
    let without = format!("{}@{address}", &user[..user.rfind(':').unwrap()]);
    assert!(tokio_postgres::connect(&without, tokio_postgres::NoTls).await.is_err());
}

#[test]
fn without_a_server_the_way_to_get_one_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_walcast"))
        .arg("demo")
        .env("WALCAST_PG_BIN", "/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("found no Postgres server of version 14 or newer"), "{complaint}");
    assert!(
        complaint.contains("WALCAST_PG_BIN") && complaint.contains("walcast demo --install"),
        "{complaint}"
    );
}

#[test]
fn a_rate_that_is_no_rate_is_refused() {
    for rate in ["0", "-3", "fast", "1e9", "NaN"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_walcast")).args(["demo", &format!("--rate={rate}")]).output();
        assert_eq!(output.unwrap().status.code(), Some(2), "{rate}");
    }
}
