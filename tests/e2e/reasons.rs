//! What is wrong, and what is well again, as `/readyz`, `walcast status` and the log say it.

use std::process::Output;

use serde_json::{Value, json};
use walcast_cluster::StopMode;
use walcast_testkit::{
    Daemon, LIMIT, TestDatabase, TestSession, eventually, for_each_version, installations, own_cluster,
    shared_cluster,
};

use crate::observer::{open, send};
use crate::rights::{POLICIES, SECRET, TABLES};
use crate::upkeep::{lines, readyz, walcast};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn reasons(health: &Value) -> Vec<String> {
    let all = health["reasons"].as_array().expect("reasons").iter();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Waits until there is a reason with each of the fragments, and as many reasons as those.
async fn until_reasons(daemon: &Daemon, fragments: &[&str]) -> Vec<String> {
    eventually(&format!("the reasons {fragments:?}"), LIMIT, async || {
        let found = reasons(&readyz(daemon).await);
        let has = |fragment: &&str| found.iter().any(|reason| reason.contains(*fragment));
        (found.len() == fragments.len() && fragments.iter().all(has)).then_some(found)
    })
    .await
}

/// The daemon's sessions of this name.
fn of_sessions(name: &str, database: &str) -> String {
    format!("FROM pg_stat_activity WHERE application_name = '{name}' AND datname = '{database}'")
}

/// Ends them.
async fn end_sessions(database: &TestDatabase, name: &str) {
    let end = format!("SELECT count(pg_terminate_backend(pid)) {}", of_sessions(name, database.name()));
    database.until(&end, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_does_not_work_is_said_with_its_cause_and_fix_and_that_it_works_again() {
    let cluster = shared_cluster().await;
    // Apart, so that nothing is written in the source while its publication is missing.
    let (database, history) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
    let (publication, past) = (database.slot_name(), history.url().to_owned());
    database
        .run(&format!("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION {publication} FOR TABLE t"))
        .await;
    let daemon = Daemon::of(&database).arg("--no-manage").flag("--history-url", &past).start().await;
    let address = format!("127.0.0.1:{}", daemon.port());
    let status = || walcast(&database, &["status", "--human", "--daemon", &address, "--history-url", &past]);
    let well = status();
    assert!(well.status.success() && said(&well).starts_with("state         serving\n"), "{}", said(&well));

    database.run(&format!("DROP PUBLICATION {publication}")).await;
    end_sessions(&database, "walcast replication").await;
    let missing =
        format!("the source is not read: publication \"{publication}\" does not exist; run `walcast setup`");
    until_reasons(&daemon, &[&missing]).await;
    let health = readyz(&daemon).await;
    assert_eq!(
        (&health["ready"], &health["source"]["state"]),
        (&json!(true), &json!("interrupted")),
        "{health}"
    );
    let ill = status();
    let words = said(&ill).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(ill.status.code(), Some(1), "{words}");
    assert!(words.starts_with("state serving what history has; the source is not read"), "{words}");
    assert!(words.ends_with(&format!("problem {missing}")), "{words}");
    let report =
        &lines(&walcast(&database, &["status", "--json", "--daemon", &address, "--history-url", &past]))[0];
    assert_eq!(report["problems"], json!([missing]), "{report}");

    // Another cause beside it, and gone before it.
    let name = history.name();
    database.run(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")).await;
    database
        .run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        .await;
    until_reasons(&daemon, &[&missing, "history is not written: "]).await;
    database.run(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")).await;
    let line = daemon.until_log("history is written again, after ").await;
    assert!(line.contains(" INFO "), "{line}");
    until_reasons(&daemon, &[&missing]).await;

    database.run(&format!("CREATE PUBLICATION {publication} FOR TABLE t")).await;
    let line = daemon.until_log("the slot streams again, after ").await;
    assert!(line.contains(" INFO "), "{line}");
    until_reasons(&daemon, &[]).await;
    assert!(status().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_one_problem() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).start().await;
        cluster.stop(StopMode::Immediate).await.expect("it stops");
        let effects = [
            "the source is not read",
            "history is not written",
            "no barrier can be written",
            "the publications are not looked after",
        ];
        let reason = eventually("one reason", LIMIT, async || {
            let found = reasons(&readyz(&daemon).await);
            (found.len() == 1 && effects.iter().all(|effect| found[0].contains(effect))).then_some(found)
        })
        .await;
        assert_eq!(reason[0].matches("start the server").count(), 1, "{reason:?}");
        let address = format!("127.0.0.1:{}", daemon.port());
        let report = &lines(&walcast(&database, &["status", "--json", "--daemon", &address]))[0];
        let problems: Vec<&str> =
            report["problems"].as_array().expect("problems").iter().filter_map(Value::as_str).collect();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with("the database cannot be asked, "), "{problems:#?}");
        assert!(effects.iter().all(|effect| problems[0].contains(effect)), "{problems:#?}");
        assert_eq!(problems[0].matches("start the server").count(), 1, "{problems:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_the_daemon_that_lose_their_session_say_that_they_work_again() {
    let cluster = shared_cluster().await;
    let database = TestDatabase::create(cluster).await;
    let daemon = Daemon::of(&database).flag("--discover-interval", "100ms").start().await;
    // From elsewhere: nobody can bar his own database.
    let administrator = TestSession::connect(&cluster.socket_url("postgres")).await;
    let name = database.name();
    let allow = |yes: bool| format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}");
    for (session, effect, again) in [
        ("walcast barriers", "no barrier can be written: ", "barriers can be written again, after "),
        (
            "walcast publications",
            "the publications are not looked after: ",
            "the publications are looked after again, after ",
        ),
    ] {
        // Held up until it was seen: left alone it is back within a moment.
        administrator.batch_execute(&allow(false)).await.expect("it is no longer let in");
        let end = format!("SELECT count(pg_terminate_backend(pid)) {}", of_sessions(session, name));
        eventually(&end, LIMIT, async || {
            (administrator.scalar(&end).await.as_deref() == Some("1")).then_some(())
        })
        .await;
        until_reasons(&daemon, &[effect]).await;
        administrator.batch_execute(&allow(true)).await.expect("it is let in again");
        let line = daemon.until_log(again).await;
        assert!(line.contains(" INFO "), "{line}");
        until_reasons(&daemon, &[]).await;
        assert_eq!(daemon.log().iter().filter(|line| line.contains(again)).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hole_needs_is_not_hidden_by_what_fails_after_it() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let publish = format!("CREATE PUBLICATION {} FOR TABLE t", database.slot_name());
        database.run(&format!("CREATE TABLE t (id int PRIMARY KEY); {publish}")).await;
        let daemon = Daemon::of(&database).arg("--no-manage").start().await;
        database.run(&format!("DROP PUBLICATION {}", database.slot_name())).await;
        database.run("INSERT INTO t VALUES (1)").await;
        daemon.until_metric("walcast_feed_hole", 1.0).await;
        // That it does not exist could be mended by itself, and would not help.
        daemon.until_log("; and now: publication").await;
        let found = until_reasons(&daemon, &["; and now: publication"]).await;
        assert!(found[0].contains("walcast setup --start-over"), "{found:?}");
        database.run(&publish).await;
        let is_hole = |line: &String| line.contains("does not stream") && !line.contains("; and now:");
        let seen = daemon.log().iter().filter(|line| is_hole(line)).count();
        eventually("the hole is found again", LIMIT, async || {
            (daemon.log().iter().filter(|line| is_hole(line)).count() > seen).then_some(())
        })
        .await;
        until_reasons(&daemon, &["walcast setup --start-over"]).await;
        assert!(!daemon.log().iter().any(|line| line.contains("streams again")), "{:#?}", daemon.log());
        assert_eq!(daemon.metric("walcast_feed_hole").await, Some(1.0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_published_later_is_told_once_and_what_was_wrong_with_it_is_over() {
    let (cluster, told) = (shared_cluster().await, "public.later is published: its changes are in the feed");
    for arguments in [&[][..], &["--all-tables"]] {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE first (id int PRIMARY KEY)").await;
        let builder = Daemon::of(&database).flag("--discover-interval", "50ms");
        let mut daemon =
            arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start().await;
        database.run("CREATE TABLE later (id int PRIMARY KEY)").await;
        let line = daemon.until_log(told).await;
        assert!(line.contains(" INFO "), "{line}");
        database.run("CREATE TABLE keyless (id int)").await;
        let problem = daemon.until_log("public.keyless: it has no primary key").await;
        assert!(problem.contains(" WARN "), "{problem}");
        database.run("ALTER TABLE keyless REPLICA IDENTITY FULL").await;
        let over = daemon.until_log("public.keyless: this is over, after ").await;
        assert!(over.contains(" INFO ") && over.contains("it has no primary key"), "{over}");
        daemon.until_log("public.keyless is published: its changes are in the feed").await;
        daemon.terminate().await;
        let log = daemon.log();
        assert_eq!(log.iter().filter(|line| line.contains(told)).count(), 1, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("public.first is published: ")), "{log:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_told_at_the_start_and_while_other_ones_are_in_force_than_the_file_has() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run(TABLES).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, path) = crate::rights::daemon(&database, &folder).await;
    let line = daemon.until_log("with authentication: policies say who may have what").await;
    for part in [" INFO ", "policies=3", "tables=3", "channels=0"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    std::fs::write(&path, "[[policy]]\nrole = ''\n\n[[policy]]\nrole = 'a'\ntable = '*'\nwear = 'x = 1'\n")
        .expect("a file");
    daemon.hang_up();
    let summary = daemon.until_log("the policies that were in force stay so").await;
    assert!(summary.contains(" ERROR ") && summary.contains("3 mistakes in "), "{summary}");
    for mistake in
        ["policy 1, line 2: role is empty", "policy 1, line 1: table is missing", "policy 2, line 7: "]
    {
        let line = daemon.until_log(mistake).await;
        assert!(line.contains(" ERROR ") && line.contains("hint=") && line.chars().count() < 400, "{line}");
    }
    until_reasons(
        &daemon,
        &["the file of policies cannot be used, and those before it stay in force: 3 mistakes in "],
    )
    .await;
    let health = readyz(&daemon).await;
    assert_eq!(health["ready"], true, "{health}");
    let address = format!("127.0.0.1:{}", daemon.port());
    let status = walcast(&database, &["status", "--human", "--daemon", &address]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    // As it was before: nothing changes but that.
    std::fs::write(&path, POLICIES).expect("a file");
    daemon.hang_up();
    let line = daemon.until_log("the file can be used again, after ").await;
    assert!(line.contains(" INFO ") && line.contains("the policies are as they were"), "{line}");
    until_reasons(&daemon, &[]).await;
    assert_eq!(daemon.metric("walcast_policies_stale").await, Some(0.0));
    // Its secret is in the settings.
    let is_of_others =
        |line: &String| line.contains("keys") && line.contains("again") || line.contains("SIGHUP");
    assert!(!daemon.log().iter().any(is_of_others), "{:#?}", daemon.log());

    let database = TestDatabase::create(shared_cluster().await).await;
    let open = Daemon::of(&database).start().await;
    let line =
        open.until_log("without authentication: whoever comes from this machine reads everything").await;
    assert!(line.contains(" INFO "), "{line}");
    open.hang_up();
    let line = open.until_log("SIGHUP: nothing is read again").await;
    assert!(line.contains(" INFO "), "{line}");
    assert!(!open.log().iter().any(|line| line.contains("reading ")), "{:#?}", open.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_with_a_listener_for_operators_is_to_be_asked_there() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).flag("--jwt-secret", SECRET).admin().start().await;
    let clients = format!("127.0.0.1:{}", daemon.port());
    let asked = said(&walcast(&database, &["status", "--human", "--daemon", &clients]));
    let words = asked.split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = "does not say here which feed it serves; it says more where its setting admin_listen says: name that address with --daemon";
    assert!(words.starts_with("state serving ") && words.contains(hint), "{asked}");
    let log = daemon.until_log("/metrics").await;
    let admin =
        log.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    let asked = said(&walcast(&database, &["status", "--human", "--daemon", &admin]));
    assert!(asked.contains("ready at ") && !asked.contains("admin_listen"), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_may_not_be_read_are_warned_of_with_the_statement_that_mends_it() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let (role, publication, name) = (database.unique("reader"), database.slot_name(), database.name());
    database
        .run(&format!(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION {publication} FOR TABLE t;
             CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {name} TO {role};
             GRANT SELECT ON t TO {role}"
        ))
        .await;
    let daemon =
        Daemon::of(&database).flag("--database-url", database.url_as(&role)).arg("--no-manage").start().await;
    database.run(&format!("REVOKE SELECT ON t FROM {role}")).await;
    let (mut socket, _) = open(&daemon.ws_url()).await;
    send(&mut socket, json!({"type": "subscribe", "id": "a", "tables": [{"table": "public.t"}]})).await;
    let line = daemon.until_log("rows of the source cannot be had").await;
    let error = line.split("fix=").next().unwrap_or_default();
    assert!(line.contains("fix=\"GRANT SELECT ON "), "{line}");
    assert!(error.contains("may not") && !error.contains("GRANT"), "{line}");
}
