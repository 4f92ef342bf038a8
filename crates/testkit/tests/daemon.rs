//! The runner of the daemon, with a stand-in for the daemon: the real one is what the end-to-end tests run.
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;

use walcast_testkit::{Daemon, DaemonBuilder, LIMIT, eventually};

fn stand_in() -> DaemonBuilder {
    Daemon::builder().program(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in.sh"))
}

#[tokio::test]
async fn a_daemon_is_called_with_serve_and_its_flags_and_its_lines_are_kept() {
    let mut daemon = stand_in().flag("--slot", "a").env("WALCAST_SLOT", "b").spawn();
    let called = daemon.until_log("called with").await;
    assert_eq!(called, format!("called with serve --listen 127.0.0.1:{} --slot a", daemon.port()));
    daemon.until_log("slot of the environment: b").await;
    daemon.until_log("started").await;
    assert!(daemon.terminate().await.success());
    assert_eq!(daemon.log().last().map(String::as_str), Some("draining"));
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn a_killed_daemon_did_not_drain() {
    let mut daemon = stand_in().spawn();
    daemon.until_log("started").await;
    daemon.pause();
    daemon.resume();
    if cfg!(target_os = "linux") {
        assert!(daemon.peak_memory_bytes().is_some_and(|bytes| bytes > 0));
    }
    daemon.kill9().await;
    assert_eq!(daemon.until_exit().await.signal(), Some(9));
    assert!(!daemon.log().contains(&"draining".to_owned()));
}

#[tokio::test]
#[should_panic(expected = "no such database")]
async fn a_daemon_that_ends_before_it_is_ready_shows_what_it_said() {
    stand_in().env("STAND_IN", "fail").start().await;
}

#[tokio::test]
#[should_panic(expected = "the daemon complained")]
async fn a_warning_that_nobody_announced_fails() {
    let mut daemon = stand_in().env("STAND_IN", "fail").spawn();
    assert_eq!(daemon.until_exit().await.code(), Some(3));
    daemon.assert_quiet(&["no such database"]);
    daemon.assert_quiet(&["another"]);
}

async fn until_started(daemon: &Daemon, count: usize) {
    eventually("it has started", LIMIT, async || {
        (daemon.log().iter().filter(|line| *line == "started").count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slot_in_use_is_excused_right_after_a_kill_and_at_no_other_time() {
    let mut daemon = stand_in().env("STAND_IN", "in-use").spawn();
    until_started(&daemon, 1).await;
    daemon.kill9().await;
    daemon.restart_without_waiting();
    until_started(&daemon, 2).await;
    daemon.terminate().await;
    daemon.restart_without_waiting();
    until_started(&daemon, 3).await;
    daemon.kill9().await;
    let complaint = std::panic::catch_unwind(AssertUnwindSafe(|| daemon.assert_quiet(&[])));
    let complaint = complaint.expect_err("a complaint");
    let complaint = complaint.downcast_ref::<String>().expect("a text");
    // Of the first one, and of the last, which came after one that had ended well.
    assert_eq!(complaint.matches("in use by process").count(), 2, "{complaint}");
}

/// Whoever has the port of a daemon that has ended.
#[tokio::test]
#[should_panic(expected = "the daemon ended before it was ready")]
async fn the_answer_of_another_one_does_not_make_a_daemon_ready_that_has_ended() {
    let mut daemon = stand_in().env("STAND_IN", "fail").spawn();
    daemon.until_exit().await;
    let other = tokio::net::TcpListener::bind(("127.0.0.1", daemon.port())).await.expect("its port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let _gone = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    daemon.until_ready().await;
}
