//! `walcast setup`, `teardown` and the start of `walcast serve` where something is in the way: what they say, and what they
//! leave as it is.

use std::process::Output;

use walcast_testkit::{Daemon, TestDatabase, shared_cluster};

use crate::upkeep::{lines, walcast};

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    words(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_url_that_was_forgotten_is_asked_for_first_and_leaves_nothing_behind() {
    const ADVICE: &str = "name the history that has its feed with --history-url";
    let cluster = shared_cluster().await;
    let (database, history) = (TestDatabase::create(cluster).await, TestDatabase::create(cluster).await);
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut daemon = Daemon::of(&database).flag("--history-url", history.url()).start().await;
    daemon.terminate().await;
    // What a setup would do besides.
    database.run("CREATE TABLE later (id int PRIMARY KEY)").await;
    let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'later'";

    let is_asked_for = |said: &str| {
        assert!(said.contains("exists, and this history has no feed for it"), "{said}");
        assert!(!said.contains("not walcast's"), "{said}");
        let (first, last) = said.split_once(ADVICE).expect(said);
        assert!(
            !first.contains("--start-over") && last.contains("walcast setup --start-over --yes"),
            "{said}"
        );
    };
    // Without a schema in the source, and with one that has no feed.
    for schema in [false, true] {
        if schema {
            let sql = walcast(&database, &["setup", "--print", "--history-url", database.url()]);
            database.run(&String::from_utf8_lossy(&sql.stdout)).await;
            database.run(&format!("ALTER PUBLICATION {} DROP TABLE later", database.slot_name())).await;
        }
        is_asked_for(&failed(&walcast(&database, &["setup", "--human"])));
        let mut refused = Daemon::of(&database).spawn();
        assert_eq!(refused.until_exit().await.code(), Some(1));
        is_asked_for(&refused.log().join(" "));
        let doctor = walcast(&database, &["doctor", "--json"]);
        let found = lines(&doctor).into_iter().find(|found| found["check"] == "slot").expect("a finding");
        is_asked_for(&format!("{}: {}", found["message"], found["fix"]));
        let there = database.scalar("SELECT (to_regnamespace('walcast') IS NOT NULL)::text").await;
        assert_eq!(there, Some(schema.to_string()));
        assert_eq!(database.scalar(published).await.as_deref(), Some("0"));
        let over = walcast(&database, &["setup", "--human", "--start-over"]);
        let shown = words(&over.stdout);
        assert!(
            shown.contains("if another one has it (--history-url names it), that one loses its feed"),
            "{shown}"
        );
        assert!(failed(&over).contains("nothing was dropped"), "{over:?}");
    }
    daemon.restart().await;
}

/// `walcast` as a role that may do little but read the slot and the history, with publications of somebody else.
async fn as_poor_role(database: &TestDatabase) -> (String, String) {
    let role = database.unique("poor");
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO {role};
             CREATE SCHEMA walcast AUTHORIZATION {role}"
        ))
        .await;
    for name in ["", "_inserts"] {
        let publication = format!("{}{name}", database.slot_name());
        database.run(&format!("CREATE PUBLICATION {publication} WITH (publish = 'insert, truncate')")).await;
    }
    let publication = database.slot_name();
    database
        .run(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"))
        .await;
    database.run(&format!("ALTER PUBLICATION {publication} ADD TABLE t")).await;
    (database.url_as(&role), role)
}

async fn forget(database: &TestDatabase, role: &str) {
    database.run(&format!("DROP SCHEMA IF EXISTS walcast CASCADE; DROP OWNED BY {role}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_over_that_something_is_missing_for_says_that_nothing_was_dropped() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let (url, role) = as_poor_role(&database).await;
    let run = |arguments: &[&str]| {
        let (name, url) = (database.slot_name(), url.as_str());
        walcast_testkit::run(arguments.iter().chain(&[
            "--database-url",
            url,
            "--slot",
            &name,
            "--publication",
            &name,
        ]))
    };
    let set_up = run(&["setup", "--human"]);
    assert!(set_up.status.success(), "{set_up:?}");
    let feed = database.scalar("SELECT feed_id FROM walcast.feed").await;
    database.run(&format!("DROP PUBLICATION {}", database.slot_name())).await;
    let said = failed(&run(&["setup", "--human", "--start-over", "--yes"]));
    assert!(said.contains("nothing was dropped: something is missing"), "{said}");
    assert!(said.contains("then run walcast setup --start-over --yes again"), "{said}");
    assert_eq!(database.scalar("SELECT feed_id FROM walcast.feed").await, feed);
    run(&["teardown", "--yes"]);
    forget(&database, &role).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_said_together_with_the_publication_that_is_missing() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let (url, role) = as_poor_role(&database).await;
    let name = database.slot_name();
    let mut daemon = Daemon::of(&database).flag("--database-url", &url).start().await;
    let publish = format!("CREATE PUBLICATION {name} FOR TABLE t");
    // Nothing here may make it again but this test.
    database.run(&format!("DROP PUBLICATION {name}")).await;
    database.run("INSERT INTO t VALUES (1)").await;
    database.run(&publish).await;
    daemon.until_metric("walcast_feed_hole", 1.0).await;
    database.until("SELECT hole_at IS NOT NULL FROM walcast.feed", "t").await;
    daemon.terminate().await;
    database.run(&format!("DROP PUBLICATION {name}")).await;

    let says_both = |said: &str| {
        assert!(said.contains("2 things are missing"), "{said}");
        assert!(said.contains("may not create publication") && said.contains("CREATE PUBLICATION"), "{said}");
        assert!(said.contains("a publication was missing when they were written"), "{said}");
        assert!(said.contains("stop walcast first, then run `walcast setup --start-over --yes`"), "{said}");
    };
    let of = ["setup", "--human", "--database-url", &url, "--slot", &name, "--publication", &name];
    says_both(&failed(&walcast_testkit::run(of)));
    daemon.restart_without_waiting();
    assert_eq!(daemon.until_exit().await.code(), Some(1));
    let log = daemon.log();
    let last = log.iter().rposition(|line| line.starts_with("walcast: ")).expect("a last word");
    says_both(&log[last..].join(" "));
    // What both say, done in its order, is enough.
    database.run(&publish).await;
    let done = walcast_testkit::run(of.iter().chain(&["--start-over", "--yes"]));
    assert!(done.status.success(), "{done:?}");
    daemon.restart().await;
    daemon.terminate().await;
    database.drop_slot(&name).await;
    forget(&database, &role).await;
}
