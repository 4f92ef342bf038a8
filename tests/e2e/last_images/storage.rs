//! A table that was not published as itself for a while, or of which that is not known yet: what history kept of its rows
//! is not used.

use walcast_testkit::{
    Daemon, DaemonBuilder, LIMIT, TestDatabase, for_each_version, installations, own_cluster, within,
};

use crate::observer::Observer;

/// How many changes history has, and what is missing in the last one: `unchanged`, and whether there is no `old`.
const LAST: &str = "SELECT (SELECT count(*) FROM walcast.changes) || ' ' || coalesce(unchanged::text, '') \
                    || CASE WHEN old IS NULL THEN 'no old' ELSE 'old' END \
                    FROM walcast.changes ORDER BY lsn DESC, seq DESC LIMIT 1";

fn kept(builder: DaemonBuilder) -> DaemonBuilder {
    builder.arg("--no-manage").flag("--last-images", "*")
}

async fn publish(database: &TestDatabase, what: &str) {
    database.run(&format!("CREATE PUBLICATION {} {what}", database.slot_name())).await;
}

/// Runs statements and waits for what the last change in history is like.
async fn expect(database: &TestDatabase, statements: &[&str], last: &str) {
    for statement in statements {
        database.run(statement).await;
    }
    database.until(LAST, last).await;
}

#[tokio::test]
async fn a_table_that_was_in_another_schema_for_a_while_has_no_images() {
    for_each_version(async |cluster| {
        if cluster.installation().version().major < 15 {
            return;
        }
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, v int, big text);
                 ALTER TABLE a.t ALTER big SET STORAGE EXTERNAL",
            )
            .await;
        publish(&database, "FOR TABLES IN SCHEMA a").await;
        let _daemon = kept(Daemon::of(&database)).start().await;
        expect(&database, &["INSERT INTO a.t VALUES (1, 0, repeat('a', 9000))"], "1 no old").await;
        // Upkeep of the table costs nothing.
        expect(&database, &["VACUUM (FREEZE, ANALYZE) a.t", "UPDATE a.t SET v = 1"], "2 old").await;
        let shift = [
            "ALTER TABLE a.t SET SCHEMA b",
            "UPDATE b.t SET big = repeat('x', 9000)",
            "ALTER TABLE b.t SET SCHEMA a",
            "UPDATE a.t SET v = 2",
        ];
        expect(&database, &shift, "3 [\"big\"]no old").await;
        expect(&database, &["UPDATE a.t SET big = repeat('y', 9000)"], "4 no old").await;
        expect(&database, &["UPDATE a.t SET v = 3"], "5 old").await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_was_a_partition_for_a_while_has_no_images() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE root (id int PRIMARY KEY, v int, big text) PARTITION BY RANGE (id);
                 CREATE TABLE leaf (id int PRIMARY KEY, v int, big text);
                 ALTER TABLE leaf ALTER big SET STORAGE EXTERNAL",
            )
            .await;
        publish(&database, "FOR TABLE leaf, root WITH (publish_via_partition_root = true)").await;
        let mut daemon = kept(Daemon::of(&database)).start().await;
        let known = ["INSERT INTO leaf VALUES (1, 0, repeat('a', 9000))", "UPDATE leaf SET v = 1"];
        expect(&database, &known, "2 old").await;
        let shift = [
            "ALTER TABLE root ATTACH PARTITION leaf FOR VALUES FROM (0) TO (10)",
            "UPDATE root SET big = repeat('x', 9000)",
            "ALTER TABLE root DETACH PARTITION leaf",
            "UPDATE leaf SET v = 2",
        ];
        expect(&database, &shift, "4 [\"big\"]no old").await;
        // 14 goes on to name the root, until it is connected to anew.
        daemon.terminate().await;
        daemon.restart().await;
        expect(&database, &["UPDATE leaf SET v = 3"], "5 [\"big\"]no old").await;
    })
    .await;
}

/// A commit that waits for a synchronous standby is in the stream long before the catalog can be asked about it.
#[tokio::test]
async fn a_definition_that_nobody_sees_yet_costs_the_rows_that_change_meanwhile_and_no_others() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let database = TestDatabase::create(&cluster).await;
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, v int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
            )
            .await;
        let daemon = Daemon::of(&database).flag("--last-images", "*").start().await;
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        let known = "INSERT INTO t SELECT g, 0, repeat('a', 9000) FROM generate_series(1, 3) g";
        expect(&database, &[known, "UPDATE t SET v = 1"], "6 old").await;
        observer.until_transactions(2).await;
        database.set_for_server("synchronous_standby_names", "nobody").await;
        let mut hanging = Vec::new();
        for (told, sql) in [
            (3, "ALTER TABLE t ALTER v SET STATISTICS 50; UPDATE t SET v = 2 WHERE id = 1"),
            (4, "UPDATE t SET v = 2 WHERE id = 2"),
        ] {
            let writer = database.session().await;
            hanging.push(tokio::spawn(async move { writer.batch_execute(sql).await }));
            observer.until_transactions(told).await;
        }
        let warned = daemon.until_log("last images").await;
        assert!(warned.contains("not visible yet"), "{warned}");
        database.set_for_server("synchronous_standby_names", "").await;
        for hanging in hanging {
            within("a writer", LIMIT, hanging).await.unwrap().unwrap();
        }
        // The third row was not touched meanwhile: it is known as before.
        let missing = "SELECT string_agg(concat(key ->> 'id', unchanged), ' ' ORDER BY lsn, key ->> 'id') \
                       FROM walcast.changes WHERE (\"row\" ->> 'v')::int >= 2";
        database.run("UPDATE t SET v = 3").await;
        database.until(missing, r#"1["big"] 2["big"] 1["big"] 2["big"] 3"#).await;
        // And the others are again, once they are written.
        database.run("UPDATE t SET big = repeat('b', 9000) WHERE id = 1").await;
        expect(&database, &["UPDATE t SET v = 4 WHERE id = 1"], "13 old").await;
        let warnings = daemon.log().iter().filter(|line| line.contains("last images")).count();
        assert_eq!(warnings, 1);
        observer.until_transactions(7).await;
        observer.assert_equals(&database, "public.t").await;
    }
}
