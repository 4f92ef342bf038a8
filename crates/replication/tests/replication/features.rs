//! Section 10 of the reference: publications that users made, generated columns, two-phase commit, messages.

use walcast_testkit::{LIMIT, for_each_version, installations, own_cluster, within};

use crate::source::{Options, Source};

/// The publication `feed` is the test's own.
fn given() -> Options {
    let mut options = Options::default();
    options.publication.manage = false;
    options
}

#[tokio::test]
async fn case_19_41_42_row_filters_and_column_lists_of_a_given_publication() {
    for_each_version(async |cluster| {
        if cluster.installation().version().major < 15 {
            return;
        }
        let setup = "CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t REPLICA IDENTITY FULL;
                     CREATE TABLE c (id int PRIMARY KEY, shown int, hidden int);
                     CREATE PUBLICATION feed FOR TABLE t WHERE (v > 10), c (id, shown)";
        let mut source = Source::with(cluster, setup, given()).await;
        let sql = "INSERT INTO t VALUES (1, 5); UPDATE t SET v = 15; UPDATE t SET v = 20; UPDATE t SET v = 1;
                   TRUNCATE t";
        source
            .expect(
                "19, 41",
                sql,
                &[&[
                    r#"insert public.t key {"id":1} row {"id":1,"v":15}"#,
                    r#"update public.t key {"id":1} row {"id":1,"v":20} old {"id":1,"v":15}"#,
                    r#"delete public.t key {"id":1} old {"id":1,"v":20}"#,
                    "truncate public.t",
                ]],
            )
            .await;
        source
            .expect(
                "42",
                "INSERT INTO c VALUES (1, 2, 3); UPDATE c SET hidden = 4",
                &[&[
                    r#"insert public.c key {"id":1} row {"id":1,"shown":2}"#,
                    r#"update public.c key {"id":1} row {"id":1,"shown":2}"#,
                ]],
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_39_40_partitions_published_as_their_root() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE p (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
                     CREATE TABLE p1 (gone int, v text, id int PRIMARY KEY); ALTER TABLE p1 DROP gone;
                     ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);
                     CREATE PUBLICATION feed FOR TABLE p WITH (publish_via_partition_root = true)";
        let mut source = Source::with(cluster, setup, given()).await;
        // What Postgres does not say of a partition cannot be in the feed; the plan has a finding for it.
        source
            .expect(
                "39, 40",
                "INSERT INTO p VALUES (1, 'a'); TRUNCATE p1; TRUNCATE p",
                &[&[r#"insert public.p key {"id":1} row {"id":1,"v":"a"}"#, "truncate public.p"]],
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn case_43_generated_columns_are_left_out_unless_the_publication_has_them() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)";
        let mut source = Source::start(cluster, setup).await;
        source
            .expect("43", "INSERT INTO g VALUES (1)", &[&[r#"insert public.g key {"id":1} row {"id":1}"#]])
            .await;
        if cluster.installation().version().major >= 18 {
            let setup = format!(
                "{setup}; CREATE PUBLICATION feed FOR TABLE g WITH (publish_generated_columns = stored)"
            );
            let mut source = Source::with(cluster, &setup, given()).await;
            source
                .expect(
                    "43",
                    "INSERT INTO g VALUES (1)",
                    &[&[r#"insert public.g key {"id":1} row {"id":1,"twice":2}"#]],
                )
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_47_a_prepared_transaction_arrives_when_it_commits() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        let session = source.database.session().await;
        let (a, b) = (source.database.unique("a"), source.database.unique("b"));
        for (id, gid) in [(1, &a), (2, &b)] {
            let sql = format!("BEGIN; INSERT INTO t VALUES ({id}); PREPARE TRANSACTION '{gid}'");
            session.batch_execute(&sql).await.unwrap();
        }
        let nothing: [Vec<String>; 0] = [];
        assert_eq!(source.read().await, nothing, "case 47");
        session.batch_execute(&format!("ROLLBACK PREPARED '{b}'")).await.unwrap();
        session.batch_execute(&format!("COMMIT PREPARED '{a}'")).await.unwrap();
        assert_eq!(source.read().await, [[r#"insert public.t key {"id":1} row {"id":1}"#]], "case 47");
    })
    .await;
}

#[tokio::test]
async fn case_48_49_50_messages_disturb_nothing() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        let sql = r"SELECT pg_logical_emit_message(true, '', '\x00ff'::bytea);
                    INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'app', 'between');
                    SELECT pg_logical_emit_message(true, 'walcast.rows', 'forged');
                    SELECT pg_logical_emit_message(false, 'walcast.barrier', 'forged');
                    INSERT INTO t VALUES (2); SELECT pg_logical_emit_message(false, 'app', 'right before commit')";
        source
            .expect("48, 49, 50", sql, &[&[
                r#"insert public.t key {"id":1} row {"id":1}"#,
                r#"insert public.t key {"id":2} row {"id":2}"#,
            ]])
            .await;
        let only = "SELECT pg_logical_emit_message(true, 'app', 'alone')";
        source.expect("48", only, &[]).await;
        let sql = "BEGIN; SELECT pg_logical_emit_message(false, 'app', 'x'); INSERT INTO t VALUES (3); ROLLBACK";
        source.expect("49", sql, &[]).await;
    })
    .await;
}

#[tokio::test]
async fn case_51_a_big_transaction_that_rolled_back_leaves_nothing_behind() {
    for_each_version(async |cluster| {
        let options = Options { decoding_work_bytes: Some(64 << 10), ..Options::default() };
        let mut source = Source::with(cluster, "CREATE TABLE t (id int PRIMARY KEY)", options).await;
        let sql = "BEGIN; INSERT INTO t VALUES (0); SAVEPOINT s; INSERT INTO t SELECT generate_series(1, 10); RELEASE s;
                   INSERT INTO t SELECT generate_series(11, 3000); ROLLBACK;";
        source.expect("51", sql, &[]).await;
        source.expect("51", "INSERT INTO t VALUES (1)", &[&[r#"insert public.t key {"id":1} row {"id":1}"#]]).await;
    })
    .await;
}

/// The stream is ahead of what others see (reference 1.8): for as long as a commit takes to be seen, here stretched by a
/// synchronous standby that is not there.
#[tokio::test]
async fn case_34_what_a_transaction_makes_and_uses_is_known_although_nobody_else_sees_it_yet() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let mut source =
            Source::start(&cluster, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        source.database.set_for_server("synchronous_standby_names", "nobody").await;
        let writer = source.database.session().await;
        let sql = "CREATE TYPE pair AS (a int, b text); ALTER TABLE t ADD p pair[], REPLICA IDENTITY FULL;
                   UPDATE t SET p = ARRAY[(1, 'x')::pair]";
        let hanging = tokio::spawn(async move { writer.batch_execute(sql).await });
        source
            .database
            .until("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1")
            .await;
        source.database.set_for_server("synchronous_standby_names", "").await;
        within("the writer", LIMIT, hanging).await.unwrap().unwrap();
        let update =
            r#"update public.t key {"id":1} row {"id":1,"p":[{"a": 1, "b": "x"}]} old {"id":1,"p":null}"#;
        assert_eq!(source.read().await, [[update]]);
    }
}
