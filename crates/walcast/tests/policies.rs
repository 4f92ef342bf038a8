//! The policies of a daemon that runs.

use std::process::Command;

use walcast_testkit::{Daemon, TestDatabase, shared_cluster};

const GOOD: &str = "[[policy]]\nrole = 'clerk'\ntable = 'public.orders'\n";

fn hang_up(daemon: &Daemon) {
    let killed = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

#[tokio::test]
async fn a_file_that_becomes_wrong_is_said_and_counted_and_the_daemon_goes_on() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policies.toml");
    std::fs::write(&path, GOOD).expect("a file");
    let mut daemon = Daemon::of(&database)
        .program(env!("CARGO_BIN_EXE_walcast"))
        .flag("--policies", path.display())
        .flag("--jwt-secret", "a secret of tests that nobody else has, and long enough")
        .start()
        .await;
    std::fs::write(&path, "[[policy]]\nrole = 'clerk'\ntable = 'orders'\n").expect("a file");
    hang_up(&daemon);
    let said = daemon.until_log("policy 1, line 3").await;
    assert!(said.contains("ERROR") && said.contains("hint="), "{said}");
    let said = daemon.until_log("the policies that were in force stay so").await;
    assert!(said.contains("ERROR") && said.contains("1 mistake in "), "{said}");
    daemon.until_metric("walcast_policies_reload_failures_total", 1.0).await;
    daemon.until_metric("walcast_policies_stale", 1.0).await;
    // By itself, without being asked.
    std::fs::write(&path, format!("{GOOD}\n[[policy]]\nrole = 'admin'\ntable = '*'\n")).expect("a file");
    daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
    assert_eq!(daemon.metric("walcast_policies_stale").await, Some(0.0));
    assert_eq!(daemon.terminate().await.code(), Some(0));
}
