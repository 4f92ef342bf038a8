//! Section 10 of the reference, by number: what arrives in the feed of what is written to the database.

use bytes::Bytes;
use futures_util::SinkExt;
use walcast_testkit::for_each_version;

use crate::source::{Options, Source};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, big text);
                 ALTER TABLE t ALTER big SET STORAGE EXTERNAL;";

#[tokio::test]
async fn case_1_to_5_default_identity() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, T).await;
        source
            .expect(
                "1",
                "INSERT INTO t VALUES (1, 'x', NULL)",
                &[&[r#"insert public.t key {"id":1} row {"id":1,"v":"x","big":null}"#]],
            )
            .await;
        source
            .expect(
                "2",
                "UPDATE t SET v = 'y'",
                &[&[r#"update public.t key {"id":1} row {"id":1,"v":"y","big":null}"#]],
            )
            .await;
        source
            .expect(
                "3",
                "UPDATE t SET id = 2",
                &[&[r#"update public.t key {"id":1} row {"id":2,"v":"y","big":null}"#]],
            )
            .await;
        source
            .expect(
                "4",
                "UPDATE t SET v = v",
                &[&[r#"update public.t key {"id":2} row {"id":2,"v":"y","big":null}"#]],
            )
            .await;
        source.expect("5", "DELETE FROM t", &[&[r#"delete public.t key {"id":2}"#]]).await;
    })
    .await;
}

#[tokio::test]
async fn case_6_to_8_full_and_index_identity() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE f (v text, id int PRIMARY KEY); ALTER TABLE f REPLICA IDENTITY FULL;
                     CREATE TABLE i (id int PRIMARY KEY, v text NOT NULL UNIQUE);
                     ALTER TABLE i REPLICA IDENTITY USING INDEX i_v_key;
                     CREATE TABLE inc (id int, v text, PRIMARY KEY (id) INCLUDE (v));
                     ALTER TABLE inc REPLICA IDENTITY FULL;";
        let mut source = Source::start(cluster, setup).await;
        source
            .expect(
                "6, 8",
                "INSERT INTO f VALUES ('x', 1); UPDATE f SET id = 2; DELETE FROM f",
                &[&[
                    r#"insert public.f key {"id":1} row {"v":"x","id":1}"#,
                    r#"update public.f key {"id":1} row {"v":"x","id":2} old {"v":"x","id":1}"#,
                    r#"delete public.f key {"id":2} old {"v":"x","id":2}"#,
                ]],
            )
            .await;
        source
            .expect(
                "7",
                "INSERT INTO i VALUES (1, 'a'); UPDATE i SET id = 2; UPDATE i SET v = 'b'; DELETE FROM i",
                &[&[
                    r#"insert public.i key {"v":"a"} row {"id":1,"v":"a"}"#,
                    r#"update public.i key {"v":"a"} row {"id":2,"v":"a"}"#,
                    r#"update public.i key {"v":"a"} row {"id":2,"v":"b"}"#,
                    r#"delete public.i key {"v":"b"}"#,
                ]],
            )
            .await;
        // Columns that the primary key's index merely includes are not part of the key.
        source
            .expect(
                "8",
                "INSERT INTO inc VALUES (1, 'x')",
                &[&[r#"insert public.inc key {"id":1} row {"id":1,"v":"x"}"#]],
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_9_a_table_without_identity_stays_writable_and_sends_inserts_and_truncates() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE bare (v text);
                     CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, v text);
                     CREATE TABLE nothing (id int PRIMARY KEY, v text); ALTER TABLE nothing REPLICA IDENTITY NOTHING;";
        let mut source = Source::start(cluster, setup).await;
        let sql = "INSERT INTO bare VALUES ('x'); UPDATE bare SET v = 'y'; DELETE FROM bare; TRUNCATE bare;
                   INSERT INTO late VALUES (1, 'x'); UPDATE late SET v = 'y'; DELETE FROM late;
                   INSERT INTO nothing VALUES (1, 'x'); UPDATE nothing SET v = 'y'; DELETE FROM nothing;";
        source
            .expect("9", sql, &[&[
                r#"insert public.bare row {"v":"x"}"#,
                "truncate public.bare",
                r#"insert public.late row {"id":1,"v":"x"}"#,
                r#"insert public.nothing row {"id":1,"v":"x"}"#,
            ]])
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_10_to_14_out_of_line_values() {
    for_each_version(async |cluster| {
        let setup = format!(
            "{T} CREATE TABLE f (id int PRIMARY KEY, v text, big text); ALTER TABLE f REPLICA IDENTITY FULL;
             ALTER TABLE f ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE k (k text PRIMARY KEY, v text); ALTER TABLE k ALTER k SET STORAGE EXTERNAL;"
        );
        let mut source = Source::start(cluster, &setup).await;
        let big = "b".repeat(10_000);
        let key = "k".repeat(2_500);
        source.database.run("INSERT INTO t VALUES (1, 'x', repeat('b', 10000))").await;
        source.database.run("INSERT INTO f VALUES (1, 'x', repeat('b', 10000))").await;
        source.database.run("INSERT INTO k VALUES (repeat('k', 2500), 'x')").await;
        source.read().await;
        source
            .expect("10", "UPDATE t SET v = 'y'", &[&[
                r#"update public.t key {"id":1} row {"id":1,"v":"y"} unchanged ["big"]"#,
            ]])
            .await;
        let filled = format!(
            r#"update public.f key {{"id":1}} row {{"id":1,"v":"y","big":"{big}"}} old {{"id":1,"v":"x","big":"{big}"}}"#
        );
        source.expect("11", "UPDATE f SET v = 'y'", &[&[&filled]]).await;
        source
            .expect("12", "UPDATE t SET id = 2", &[&[
                r#"update public.t key {"id":1} row {"id":2,"v":"y"} unchanged ["big"]"#,
            ]])
            .await;
        let keyed = format!(r#"update public.k key {{"k":"{key}"}} row {{"k":"{key}","v":"y"}}"#);
        source.expect("13", "UPDATE k SET v = 'y'", &[&[&keyed]]).await;
        source
            .expect("14", "UPDATE t SET v = NULL; UPDATE t SET v = ''; UPDATE t SET v = 'NULL'", &[&[
                r#"update public.t key {"id":2} row {"id":2,"v":null} unchanged ["big"]"#,
                r#"update public.t key {"id":2} row {"id":2,"v":""} unchanged ["big"]"#,
                r#"update public.t key {"id":2} row {"id":2,"v":"NULL"} unchanged ["big"]"#,
            ]])
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_15_to_18_copy_and_truncate() {
    for_each_version(async |cluster| {
        let setup =
            "CREATE TABLE p (id serial PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY REFERENCES p);
                     CREATE TABLE other (id int PRIMARY KEY);";
        let mut source = Source::start(cluster, setup).await;
        let session = source.database.session().await;
        let mut copy = Box::pin(session.copy_in::<_, Bytes>("COPY other FROM STDIN").await.unwrap());
        copy.send(Bytes::from_static(b"1\n2\n3\n4\n5\n")).await.unwrap();
        copy.as_mut().finish().await.unwrap();
        let rows: Vec<String> =
            (1..=5).map(|id| format!(r#"insert public.other key {{"id":{id}}} row {{"id":{id}}}"#)).collect();
        assert_eq!(source.read().await, [rows], "case 15");
        source
            .expect(
                "16",
                "INSERT INTO other VALUES (6); TRUNCATE other; INSERT INTO other VALUES (7)",
                &[&[
                    r#"insert public.other key {"id":6} row {"id":6}"#,
                    "truncate public.other",
                    r#"insert public.other key {"id":7} row {"id":7}"#,
                ]],
            )
            .await;
        source.expect("17", "TRUNCATE p CASCADE", &[&["truncate public.p", "truncate public.c"]]).await;
        source
            .expect(
                "18",
                "TRUNCATE p, other, c RESTART IDENTITY",
                &[&["truncate public.p", "truncate public.other", "truncate public.c"]],
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_20_to_24_what_commits_and_in_which_order() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY, v int)").await;
        let insert = |id: i32| format!(r#"insert public.t key {{"id":{id}}} row {{"id":{id},"v":0}}"#);
        let script = |sql: &str| format!("BEGIN; {sql}");
        let sql = "INSERT INTO t VALUES (1, 0); SAVEPOINT s; INSERT INTO t VALUES (2, 0); ROLLBACK TO s;
                   INSERT INTO t VALUES (3, 0); COMMIT";
        source.expect("20", &script(sql), &[&[&insert(1), &insert(3)]]).await;
        source.expect("21", &script("INSERT INTO t VALUES (4, 0); ROLLBACK"), &[]).await;
        let sql = "INSERT INTO t VALUES (5, 0); SAVEPOINT s; INSERT INTO t VALUES (6, 0); SAVEPOINT s2;
                   INSERT INTO t VALUES (7, 0); RELEASE s; INSERT INTO t VALUES (8, 0); COMMIT";
        source.expect("22", &script(sql), &[&[&insert(5), &insert(6), &insert(7), &insert(8)]]).await;
        let sql = "INSERT INTO t VALUES (1, 0) ON CONFLICT DO NOTHING;
                   INSERT INTO t VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET v = 9";
        source.expect("23", sql, &[&[r#"update public.t key {"id":1} row {"id":1,"v":9}"#]]).await;

        let (first, second) = (source.database.session().await, source.database.session().await);
        first.batch_execute("BEGIN; INSERT INTO t VALUES (20, 0)").await.unwrap();
        second.batch_execute("BEGIN; INSERT INTO t VALUES (21, 0)").await.unwrap();
        first.batch_execute("INSERT INTO t VALUES (22, 0)").await.unwrap();
        second.batch_execute("COMMIT").await.unwrap();
        first.batch_execute("COMMIT").await.unwrap();
        assert_eq!(source.read().await, [vec![insert(21)], vec![insert(20), insert(22)]], "case 24");
    })
    .await;
}

#[tokio::test]
async fn case_33_to_36_definitions_of_their_time() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SCHEMA other").await;
        let sql = "INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD w numeric DEFAULT 1.50; INSERT INTO t VALUES (2, 'b');
                   ALTER TABLE t DROP v; INSERT INTO t VALUES (3, 2.0); ALTER TABLE t RENAME w TO x;
                   INSERT INTO t VALUES (4, 3.0); ALTER TABLE t ALTER x TYPE text; INSERT INTO t VALUES (5, '4.0')";
        source
            .expect("33, 34", sql, &[&[
                r#"insert public.t key {"id":1} row {"id":1,"v":"a"}"#,
                r#"insert public.t key {"id":2} row {"id":2,"v":"b","w":1.50}"#,
                r#"insert public.t key {"id":3} row {"id":3,"w":2.0}"#,
                r#"insert public.t key {"id":4} row {"id":4,"x":3.0}"#,
                r#"insert public.t key {"id":5} row {"id":5,"x":"4.0"}"#,
            ]])
            .await;
        let sql = "INSERT INTO t VALUES (6, 'a'); ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (7, 'b');
                   ALTER TABLE t2 SET SCHEMA other; INSERT INTO other.t2 VALUES (8, 'c'); DROP TABLE other.t2";
        source
            .expect("35", sql, &[&[
                r#"insert public.t key {"id":6} row {"id":6,"x":"a"}"#,
                r#"insert public.t2 key {"id":7} row {"id":7,"x":"b"}"#,
                r#"insert other.t2 key {"id":8} row {"id":8,"x":"c"}"#,
            ]])
            .await;
        let session = source.sql().await;
        source.database.run("CREATE TABLE t (k text PRIMARY KEY)").await;
        source.reconciler().look(&session).await.unwrap();
        source.expect("36", "INSERT INTO t VALUES ('k')", &[&[r#"insert public.t key {"k":"k"} row {"k":"k"}"#]]).await;
        let sql = "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
        source.expect("36", sql, &[]).await;
        source.reconciler().look(&session).await.unwrap();
        source.expect("36", "DELETE FROM t", &[
            &[r#"insert public.t key {"id":1} row {"id":1}"#],
            &[r#"delete public.t key {"id":1}"#],
        ]).await;
    })
    .await;
}

#[tokio::test]
async fn case_37_what_is_not_published_makes_no_transaction_but_moves_the_head() {
    for_each_version(async |cluster| {
        let setup = "CREATE SCHEMA walcast; CREATE TABLE walcast.x (id int PRIMARY KEY); CREATE UNLOGGED TABLE u (id int)";
        let mut source = Source::start(cluster, setup).await;
        let before = source.feed.head();
        source.expect("37", "INSERT INTO walcast.x VALUES (1); INSERT INTO u VALUES (1)", &[]).await;
        assert!(source.feed.head() > before);
    })
    .await;
}

#[tokio::test]
async fn the_own_schema_is_left_out_under_for_all_tables_too() {
    for_each_version(async |cluster| {
        let setup = "CREATE SCHEMA walcast; CREATE TABLE walcast.x (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)";
        let mut options = Options::default();
        options.publication.selection = walcast_replication::publication::Selection::ForAllTables;
        let mut source = Source::with(cluster, setup, options).await;
        let sql = "INSERT INTO walcast.x VALUES (1); INSERT INTO t VALUES (1); TRUNCATE walcast.x, t";
        source
            .expect("6.1", sql, &[&[r#"insert public.t key {"id":1} row {"id":1}"#, "truncate public.t"]])
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_38_partitions_are_published_as_themselves() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE p (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
                     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
                     CREATE TABLE p2 (v text, id int PRIMARY KEY);
                     ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);";
        let mut source = Source::start(cluster, setup).await;
        source
            .expect(
                "38",
                "INSERT INTO p VALUES (1, 'a'); UPDATE p SET id = 11; TRUNCATE p",
                &[&[
                    r#"insert public.p1 key {"id":1} row {"id":1,"v":"a"}"#,
                    r#"delete public.p1 key {"id":1}"#,
                    r#"insert public.p2 key {"id":11} row {"v":"a","id":11}"#,
                    "truncate public.p1",
                    "truncate public.p2",
                ]],
            )
            .await;
        // Covered by the root from its first row.
        let sql =
            "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (21, 'c')";
        source.expect("38", sql, &[&[r#"insert public.p3 key {"id":21} row {"id":21,"v":"c"}"#]]).await;
        // Listed by itself once it was seen, so that its changes go on after it is detached.
        let session = source.sql().await;
        source.reconciler().look(&session).await.unwrap();
        source
            .expect(
                "38",
                "ALTER TABLE p DETACH PARTITION p3; DELETE FROM p3",
                &[&[r#"delete public.p3 key {"id":21}"#]],
            )
            .await;
    })
    .await;
}
