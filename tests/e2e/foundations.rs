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
