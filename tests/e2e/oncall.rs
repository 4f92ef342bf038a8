//! The command line and the log as the person on call meets them: one look says what is wrong, and what to do.

use serde_json::json;
use walcast_testkit::{
    Cluster, Daemon, DaemonBuilder, Installation, StopMode, TestDatabase, cluster_builder, installations,
    shared_cluster, shared_cluster_of,
};

use crate::observer::Observer;
use crate::upkeep::{lines, walcast};

/// The newest of the versions that are tested.
fn newest() -> Installation {
    installations().pop().expect("a Postgres")
}

/// What a `walcast serve` that does not start says at last, and how it ended.
async fn refused(daemon: DaemonBuilder) -> (Option<i32>, String) {
    let mut daemon = daemon.spawn();
    let code = daemon.until_exit().await.code();
    (code, daemon.log().join("\n"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_does_not_show_the_daemon_of_another_feed_as_ones_own() {
    let cluster = shared_cluster().await;
    let (one, other) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
    one.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = Daemon::of(&one).start().await;
    let address = format!("127.0.0.1:{}", daemon.port());
    let own = walcast(&one, &["status", "--human", "--daemon", &address]);
    let said = text(&own.stdout);
    assert!(own.status.success() && said.starts_with("state         serving\n"), "{said}");
    assert!(!said.contains('{') && said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let report = &lines(&walcast(&one, &["status", "--json", "--daemon", &address]))[0]["daemon"];
    assert_eq!((&report["same_feed"], &report["report"]["ready"]), (&json!(true), &json!(true)), "{report}");
    // While the other one has no feed, and when it has one of its own.
    for is_set_up in [false, true] {
        if is_set_up {
            assert!(walcast(&other, &["setup"]).status.success());
        }
        let foreign = walcast(&other, &["status", "--human", "--daemon", &address]);
        let said = text(&foreign.stdout);
        assert!(said.contains("serves another feed, ") && !said.contains("serving\n"), "{said}");
        assert_eq!(foreign.status.code(), Some(1));
        let report = &lines(&walcast(&other, &["status", "--json", "--daemon", &address]))[0]["daemon"];
        assert_eq!(report["same_feed"], json!(false), "{report}");
    }
    walcast(&other, &["teardown", "--yes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_that_a_slot_that_nobody_reads_is_past_what_history_has() {
    for installation in installations() {
        let cluster = shared_cluster_of(&installation).await;
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut daemon = Daemon::of(&database).start().await;
        let address = format!("127.0.0.1:{}", daemon.port());
        daemon.terminate().await;
        let status = || walcast(&database, &["status", "--json", "--daemon", &address]);
        let report = &lines(&status())[0];
        assert_eq!(report["problems"], json!([]), "{report}");
        let slot = database.slot_name();
        let advance = format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())");
        database.run(&format!("INSERT INTO t VALUES (1); {advance}")).await;
        let after = status();
        let report = &lines(&after)[0];
        let problems = report["problems"].to_string();
        assert!(problems.contains("past what history has"), "{report}");
        assert!(problems.contains("walcast setup --start-over --yes"), "{report}");
        assert_eq!(after.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_names_who_has_it_and_hides_nothing_else() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).start().await;
    let address = format!("127.0.0.1:{}", daemon.port());
    let feed =
        lines(&walcast(&database, &["status", "--json"]))[0]["feed"].as_str().expect("a feed").to_owned();
    let wrong = database.url_as("nobody_of_this_name");
    let second = Daemon::of(&database).flag("--listen", &address).flag("--database-url", wrong);
    let (code, said) = refused(second).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("another walcast listens there, with feed {feed}")), "{said}");
    assert!(said.contains("nobody_of_this_name") && said.contains("hint: create the role"), "{said}");
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = other.local_addr().expect("its address");
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = other.accept().await {
            drop(stream);
        }
    }));
    let (_, said) = refused(Daemon::of(&database).flag("--admin-listen", taken)).await;
    assert!(said.contains("does not answer as a walcast") && said.contains("with --admin-listen"), "{said}");
    assert!(!said.contains("besides:"), "{said}");
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn serve_names_everything_that_is_missing_at_once() {
    let cluster = cluster_builder(&newest()).setting("wal_level", "replica").start().await.expect("a server");
    let database = TestDatabase::create(&cluster).await;
    let role = database.unique("plain");
    database.run(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY)")).await;
    let print = ["setup", "--print", "--slot", "s", "--database-url", &database.url_as(&role)];
    let printed = text(&walcast_testkit::run(print).stdout);
    let server =
        "-- wal_level is replica:\nALTER SYSTEM SET wal_level = 'logical';\n-- do: restart Postgres\n";
    assert!(printed.contains(server), "{printed}");
    let (code, said) = refused(Daemon::of(&database).flag("--database-url", database.url_as(&role))).await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "5 things are missing",
        "SET wal_level = 'logical'",
        "REPLICATION;",
        "CREATE SCHEMA walcast",
        "CREATE PUBLICATION",
        "GRANT SELECT",
        "hint: then run walcast serve again",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn a_source_and_a_history_that_are_away_are_named_both() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database)
        .flag("--database-url", "postgresql://nobody@127.0.0.1:1/none")
        .flag("--history-url", "postgresql://nobody@127.0.0.1:2/none")
        .spawn();
    let said = daemon.until_log("not set up yet; trying again in").await;
    for part in [
        "the source: cannot reach",
        "the history: cannot reach",
        "hint=\"start the server, or correct host and port in database_url; start the server, or correct host and port in history_url",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let pause =
        said.split("trying again in ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a pause");
    assert!(pause.len() <= "1234.5ms".len(), "{pause}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_stop_while_history_is_away_is_no_error() {
    let builder = cluster_builder(&newest());
    let (source, history) = tokio::join!(builder.clone().start(), builder.start());
    let (source, history): (Cluster, Cluster) = (source.expect("a source"), history.expect("a history"));
    let database = TestDatabase::create(&source).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).flag("--history-url", history.url("postgres")).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    history.stop(StopMode::Fast).await.expect("it stops");
    database.run("INSERT INTO t VALUES (1)").await;
    observer.until_transactions(1).await;
    let said = daemon.until_log("history is not written; trying again in").await;
    assert!(said.contains("hint="), "{said}");
    daemon.until_log("hint=\"start the server, or correct host and port in history_url\"").await;
    let address = format!("127.0.0.1:{}", daemon.port());
    let (past, slot) = (history.url("postgres"), database.slot_name());
    let flags = ["--database-url", database.url(), "--history-url", &past, "--slot", &slot];
    for command in [&["status", "--human", "--daemon", &address][..], &["replay", "--json"]] {
        let output = walcast_testkit::run(command.iter().chain(&flags));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let words = format!("{out}{err}").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("in history_url") && !words.contains("database_url"), "{words}");
    }
    assert!(daemon.terminate().await.success());
    let errors: Vec<String> = daemon.log().into_iter().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors, [] as [&str; 0]);
    assert!(daemon.log().iter().any(|line| line.contains("the slot sends the rest at the next start")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_started_again_meanwhile_is_news_and_no_warning() {
    let cluster = cluster_builder(&newest()).start().await.expect("a server");
    let database = TestDatabase::create(&cluster).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).start().await;
    daemon.terminate().await;
    cluster.restart(StopMode::Fast).await.expect("it comes back");
    daemon.restart().await;
    let said = daemon.until_log("was started again while no walcast ran").await;
    assert!(said.contains(" INFO "), "{said}");
    daemon.assert_quiet(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_is_warned_of_once() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE keyless (id int)").await;
    let mut daemon = Daemon::of(&database).start().await;
    let warning = daemon.until_log("public.keyless: it has no primary key").await;
    assert!(warning.contains("fix=\"ALTER TABLE"), "{warning}");
    // Whatever is to be said has been said when it has ended.
    daemon.terminate().await;
    let warnings = daemon.log().iter().filter(|line| line.contains("it has no primary key")).count();
    assert_eq!(warnings, 1, "{:#?}", daemon.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_says_that_a_table_is_not_there() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE orders (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.orders"], None).await;
    observer.until("caught_up").await;
    database.run("INSERT INTO orders VALUES (1)").await;
    observer.until_transactions(1).await;
    daemon.terminate().await;
    let replayed = walcast(&database, &["replay", "--json", "--table", "order"]);
    assert!(replayed.status.success() && replayed.stdout.is_empty(), "{replayed:?}");
    assert!(text(&replayed.stderr).contains("did you mean public.orders?"), "{replayed:?}");
    let replayed = walcast(&database, &["replay", "--json", "--table", "orders"]);
    assert_eq!((lines(&replayed).len(), text(&replayed.stderr).as_str()), (1, ""), "{replayed:?}");
    let later = ["replay", "--json", "--table", "orders", "--from", "FFFF/0"];
    let said = text(&walcast(&database, &later).stderr);
    assert!(said.contains("in the range, from FFFF/0 to FFFF/0 (history ends at "), "{said}");
    let said = text(&walcast(&database, &["replay", "--json", "--from", "FFFF/0"]).stderr);
    assert!(
        said.contains("history has no change in the range, from FFFF/0 ")
            && said.contains("(history ends at "),
        "{said}"
    );
    let long_ago = ["replay", "--json", "--from", "2000-01-01T00:00:00Z", "--to", "2000-01-02T00:00:00Z"];
    let range = "in the range, from 2000-01-01T00:00:00.000000Z to 2000-01-02T00:00:00.000000Z";
    let said = text(&walcast(&database, &long_ago).stderr);
    assert!(said.contains("history has no change ") && said.contains(range), "{said}");
    let said = text(&walcast(&database, &[&long_ago[..], &["--table", "orders"]].concat()).stderr);
    assert!(said.contains("no change of public.orders ") && said.contains(range), "{said}");
}

/// What `walcast setup --start-over` says about the history of `database`.
fn start_over(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String) {
    let output = walcast(database, &[&["setup", "--human", "--start-over"], arguments].concat());
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_over_shows_what_is_lost_and_asks_and_never_beside_a_daemon() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).start().await;
    let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
    observer.until("caught_up").await;
    database.run("INSERT INTO t SELECT generate_series(1, 3)").await;
    observer.until_transactions(1).await;
    database.until("SELECT count(*)::text FROM walcast.change_history", "3").await;
    let feed = database.scalar("SELECT feed_id FROM walcast.feed").await.expect("a feed");

    // Nothing is dropped under a daemon, also when it is meant; nor by teardown.
    for (arguments, again) in [(&[][..], ""), (&["--yes"], " --yes")] {
        let (code, said) = start_over(&database, arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing was dropped: replication slot"), "{said}");
        assert!(said.contains("stop the daemon first") && !said.contains("pg_terminate_backend"), "{said}");
        assert!(said.contains(&format!("then run walcast setup --start-over{again} again")), "{said}");
    }
    let said = text(&walcast(&database, &["teardown", "--yes"]).stderr);
    assert!(said.contains("nothing was dropped: replication slot"), "{said}");
    assert!(said.contains("then run walcast teardown --yes again"), "{said}");
    assert!(said.contains("stop the daemon first") && !said.contains("pg_terminate_backend"), "{said}");
    assert_eq!(database.scalar("SELECT feed_id FROM walcast.feed").await.as_ref(), Some(&feed));
    daemon.terminate().await;

    let (code, said) = start_over(&database, &[]);
    assert_eq!(code, Some(1), "{said}");
    let (slot, changes) = (format!("replication slot \"{}\"", database.slot_name()), ": 3 changes from ");
    for words in [&slot, changes, &feed, "iB", "every client", "add --yes to drop this"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert_eq!(database.scalar("SELECT count(*) FROM walcast.change_history").await.as_deref(), Some("3"));
    let (code, said) = start_over(&database, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.scalar("SELECT count(*) FROM walcast.change_history").await.as_deref(), Some("0"));
    assert_ne!(database.scalar("SELECT feed_id FROM walcast.feed").await, Some(feed));
    walcast(&database, &["teardown", "--yes"]);
    // Where nothing is lost nobody is asked.
    let (code, said) = start_over(&database, &[]);
    assert_eq!(code, Some(0), "{said}");
    walcast(&database, &["teardown", "--yes"]);
}
