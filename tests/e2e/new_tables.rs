//! Tables that come, lose their key or have none: the application goes on, and the feed has their rows.

use walcast_testkit::{Daemon, TestDatabase, for_each_version, shared_cluster};

use crate::observer::Observer;

#[tokio::test]
async fn a_table_created_later_is_in_a_live_wildcard_with_all_its_rows_also_of_an_open_writer() {
    // Case 53.
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE first (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).flag("--discover-interval", "100ms").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
        observer.until("caught_up").await;
        database
            .run("CREATE TABLE later (id int PRIMARY KEY, v text); INSERT INTO later VALUES (1, 'before')")
            .await;
        let writer = database.session().await;
        writer.batch_execute("BEGIN; INSERT INTO later VALUES (2, 'open')").await.unwrap();
        // The pick-up has to try, and to give way.
        daemon.until_log("later").await;
        writer.batch_execute("INSERT INTO later VALUES (3, 'open'); COMMIT").await.unwrap();
        observer.until_rows("public.later", 3).await;
        database
            .run("INSERT INTO later VALUES (4, 'after'); UPDATE later SET v = 'changed' WHERE id = 1")
            .await;
        observer.until_rows("public.later", 4).await;
        observer.assert_equals(&database, "public.later").await;
    })
    .await;
}

#[tokio::test]
async fn tables_without_a_key_do_not_break_the_application_and_their_inserts_arrive() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run("CREATE TABLE keyless (v int); CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE); CREATE TABLE keyed (id int PRIMARY KEY)")
            .await;
        let daemon = Daemon::of(&database).flag("--discover-interval", "100ms").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
        observer.until("caught_up").await;
        database.run("INSERT INTO keyless VALUES (1), (2); UPDATE keyless SET v = 3 WHERE v = 2; DELETE FROM keyless").await;
        database.run("INSERT INTO deferred VALUES (1); UPDATE deferred SET id = 2; DELETE FROM deferred").await;
        database.run("INSERT INTO keyed VALUES (1); UPDATE keyed SET id = 2; DELETE FROM keyed").await;
        let mut ops = Vec::new();
        while ops.len() < 6 {
            let message = observer.raw().await;
            for change in message["changes"].as_array().into_iter().flatten() {
                ops.push(format!("{} {}", change["op"].as_str().unwrap(), change["table"].as_str().unwrap()));
            }
        }
        assert_eq!(
            ops,
            [
                "insert public.keyless",
                "insert public.keyless",
                "insert public.deferred",
                "insert public.keyed",
                "update public.keyed",
                "delete public.keyed"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_table_that_loses_its_key_works_again_within_the_interval() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)").await;
    let _daemon = Daemon::of(&database).flag("--discover-interval", "100ms").start().await;
    database.run("ALTER TABLE t DROP CONSTRAINT t_pkey").await;
    let session = database.session().await;
    walcast_testkit::eventually("UPDATE works again", walcast_testkit::LIMIT, async || {
        session.batch_execute("UPDATE t SET v = v + 1").await.ok()
    })
    .await;
}
