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

/// The counter of tables without their rows.
const WITHOUT_ROWS: &str = "walcast_publication_pickups_without_rows_total";

/// How often the log says something.
fn said(daemon: &Daemon, words: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_publishes_by_hand_is_told_to_come_without_the_rows_that_it_had() {
    for_each_version(async |cluster| {
        // As an operator's own publications, and as those of an administrator whose role walcast is not.
        for is_managed in [false, true] {
            let database = TestDatabase::create(cluster).await;
            let (name, role) = (database.slot_name(), database.unique("reader"));
            database
                .run(&format!(
                    "CREATE TABLE first (id int PRIMARY KEY); CREATE PUBLICATION {name} FOR TABLE first;
                     CREATE PUBLICATION {name}_inserts WITH (publish = 'insert, truncate');
                     CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO {role}; GRANT SELECT ON first TO {role}",
                    database.name()
                ))
                .await;
            let builder = Daemon::of(&database).flag("--discover-interval", "50ms");
            // This role may not even read what is published later.
            let builder = if is_managed { builder.flag("--database-url", database.url_as(&role)) } else { builder.arg("--no-manage") };
            let daemon = builder.start().await;
            let mut observer = Observer::subscribe(&daemon.ws_url(), &["*"], None).await;
            observer.until("caught_up").await;
            let publish = |table: &str| format!("ALTER PUBLICATION {name} ADD TABLE {table}");
            database.run("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)").await;
            database.run(&publish("late")).await;
            let by_hand = "public.late was published by somebody else: its changes are in the feed from now on, without the rows";
            let line = daemon.until_log(by_hand).await;
            assert!(line.contains(" WARN "), "{line}");
            daemon.until_metric(WITHOUT_ROWS, 1.0).await;

            // One that has nothing yet lacks nothing.
            database.run(&format!("CREATE TABLE empty (id int PRIMARY KEY); {}", publish("empty"))).await;
            let line = daemon.until_log("public.empty is published: its changes are in the feed").await;
            assert!(line.contains(" INFO "), "{line}");
            // Nor does one of which all rows were written since, which only who may read them can tell.
            database.run("CREATE TABLE full_later (id int PRIMARY KEY)").await;
            database.run(&publish("full_later")).await;
            if !is_managed {
                database.run("INSERT INTO full_later VALUES (1)").await;
            }
            daemon.until_log("public.full_later is published: its changes are in the feed").await;
            // Partitions of what was listed before are in the feed from their first row on.
            database.run("CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id)").await;
            database.run(&publish("m")).await;
            database.run("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (9)").await;
            daemon.until_log("public.m1 is published: its changes are in the feed").await;
            assert_eq!(daemon.metric(WITHOUT_ROWS).await, Some(1.0));
            assert_eq!((said(&daemon, by_hand), said(&daemon, "by somebody else")), (1, 1), "{:#?}", daemon.log());

            // It is as it says.
            database.run("INSERT INTO late VALUES (2)").await;
            observer.until_rows("public.late", 1).await;

            // What was published for inserts alone, and is published whole.
            if is_managed {
                database.run("CREATE TABLE bare (id int, v int)").await;
                database.run(&format!("ALTER PUBLICATION {name}_inserts ADD TABLE bare")).await;
                daemon.until_log("public.bare is published: its changes are in the feed").await;
                let whole = format!(
                    "INSERT INTO bare VALUES (1, 1); UPDATE bare SET v = 2; ALTER TABLE bare REPLICA IDENTITY FULL;
                     ALTER PUBLICATION {name} ADD TABLE bare; ALTER PUBLICATION {name}_inserts DROP TABLE bare"
                );
                database.run(&whole).await;
                daemon.until_log("public.bare was published whole by somebody else: its updates and deletes").await;
                daemon.until_metric(WITHOUT_ROWS, 2.0).await;
            }
            drop(daemon);
            database.run(&format!("DROP PUBLICATION {name}, {name}_inserts; DROP OWNED BY {role} CASCADE")).await;
        }
    })
    .await;
}
