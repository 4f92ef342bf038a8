//! Which tables, rows and columns an initial sync has: those that the stream has.

use walcast_snapshot::{Error, SnapshotLimits, published_tables};
use walcast_testkit::{Cluster, LIMIT, for_each_version, shared_cluster, within};

use crate::harness::{Source, config, streamed_relation};

fn has_row_filters(cluster: &Cluster) -> bool {
    cluster.installation().version().major >= 15
}

#[tokio::test]
async fn the_relation_is_the_one_that_the_stream_defines() {
    for_each_version(async |cluster| {
        let cases = [
            ("CREATE TABLE t (gone int, id int PRIMARY KEY, v varchar(3), g int GENERATED ALWAYS AS (1) STORED)", ""),
            ("CREATE TABLE t (v text, b int, a int, PRIMARY KEY (a, b))", ""),
            ("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL UNIQUE)", "REPLICA IDENTITY USING INDEX t_v_key"),
            ("CREATE TABLE t (id int, v text)", ""),
            ("CREATE TABLE t (id int, v text)", "REPLICA IDENTITY NOTHING"),
            ("CREATE TABLE t (id int, v text, PRIMARY KEY (v))", "REPLICA IDENTITY FULL"),
            ("CREATE TABLE t (v text, id int PRIMARY KEY DEFERRABLE)", ""),
            (
                "CREATE DOMAIN filled AS text NOT NULL; CREATE TYPE mood AS ENUM ('ok');
                 CREATE TABLE t (id numeric(10,2) PRIMARY KEY, v filled, m mood[], j jsonb, s time(3))",
                "",
            ),
            ("CREATE TABLE t (id int, v text, PRIMARY KEY (id) INCLUDE (v))", ""),
        ];
        for (create, alter) in cases {
            let source = Source::new(cluster, &format!("{create}; CREATE PUBLICATION p FOR TABLE t;")).await;
            if create.contains("gone") {
                source.database.run("ALTER TABLE t DROP gone").await;
            }
            if !alter.is_empty() {
                source.database.run(&format!("ALTER TABLE t {alter}")).await;
            }
            let outcome = source.sync(&["public.t"]).await;
            let streamed = streamed_relation(&source, "t").await;
            assert_eq!(outcome.relations[0], streamed, "{create} {alter}");
            assert_eq!(outcome.relations[0].digest(), streamed.digest());
        }
    })
    .await;
}

#[tokio::test]
async fn under_full_identity_the_key_is_the_primary_key() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL;
         CREATE PUBLICATION p FOR TABLE t;",
    )
    .await;
    let outcome = source.sync(&["public.t"]).await;
    let keys: Vec<bool> = outcome.relations[0].columns().iter().map(|column| column.key).collect();
    assert_eq!(keys, [true, false]);
    let nullable: Vec<bool> = outcome.relations[0].columns().iter().map(|column| column.nullable).collect();
    assert_eq!(nullable, [false, true]);
}

#[tokio::test]
async fn row_filters_and_column_lists_of_all_publications_apply() {
    for_each_version(async |cluster| {
        if !has_row_filters(cluster) {
            return;
        }
        let source = Source::new(
            cluster,
            "CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
             INSERT INTO t SELECT i, 'v' || i, 's' FROM generate_series(1, 10) i;
             CREATE PUBLICATION p FOR TABLE t (id, v) WHERE (id > 8);
             CREATE PUBLICATION p_inserts FOR TABLE t (v, id) WHERE (id < 2);",
        )
        .await;
        let outcome = source.sync(&["public.t"]).await;
        let expected = [r#"{"id":1,"v":"v1"}"#, r#"{"id":9,"v":"v9"}"#, r#"{"id":10,"v":"v10"}"#];
        assert_eq!(outcome.rows, expected);
        source
            .database
            .run("DROP PUBLICATION p_inserts; CREATE PUBLICATION p_inserts FOR TABLE t (id, v)")
            .await;
        assert_eq!(
            source.sync(&["public.t"]).await.rows.len(),
            10,
            "one publication without a filter has them all"
        );
        source.database.run("DROP PUBLICATION p_inserts; CREATE PUBLICATION p_inserts FOR TABLE t").await;
        let error = source.try_sync(&["public.t"]).await.unwrap_err();
        assert!(matches!(error, Error::ColumnListsDiffer { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn partitions_come_under_the_names_that_the_stream_gives_them() {
    for_each_version(async |cluster| {
        let source = Source::new(
            cluster,
            "CREATE TABLE m (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
             CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
             CREATE TABLE m2 (v text, id int NOT NULL, PRIMARY KEY (id));
             ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20);
             INSERT INTO m VALUES (1, 'a'), (11, 'b');
             CREATE PUBLICATION p FOR TABLE m;",
        )
        .await;
        let outcome = source.sync(&["public.m2", "public.m1"]).await;
        assert_eq!(outcome.rows, [r#"{"v":"b","id":11}"#, r#"{"id":1,"v":"a"}"#]);
        let error = source.try_sync(&["public.m"]).await.unwrap_err();
        assert!(error.to_string().contains("public.m1"), "{error}");

        source.database.run("ALTER PUBLICATION p SET (publish_via_partition_root = true)").await;
        source.database.run("CREATE PUBLICATION p_inserts FOR TABLE m1 WITH (publish = 'insert')").await;
        let mut outcome = source.sync(&["public.m"]).await;
        outcome.rows.sort();
        assert_eq!(outcome.rows, [r#"{"id":1,"v":"a"}"#, r#"{"id":11,"v":"b"}"#]);
        let error = source.try_sync(&["public.m1"]).await.unwrap_err();
        assert!(matches!(&error, Error::Partition { root, .. } if root.table == "m"), "{error}");
        let published = source.snapshots(SnapshotLimits::default()).published_tables().await.unwrap();
        let names: Vec<&str> = published.iter().map(|table| table.name.table.as_str()).collect();
        assert_eq!(names, ["m"]);
    })
    .await;
}

#[tokio::test]
async fn a_parent_by_inheritance_gives_its_own_rows_alone() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (v text) INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'x');
         CREATE PUBLICATION p FOR TABLE ONLY parent; CREATE PUBLICATION p_inserts FOR TABLE child WITH (publish = 'insert');",
    )
    .await;
    let outcome = source.sync(&["public.parent", "public.child"]).await;
    assert_eq!(outcome.rows, [r#"{"id":1}"#, r#"{"id":2,"v":"x"}"#]);
}

#[tokio::test]
async fn published_tables_are_those_of_all_publications_without_walcasts_own() {
    for_each_version(async |cluster| {
        let source = Source::new(
            cluster,
            "CREATE SCHEMA walcast; CREATE TABLE walcast.feed (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
             CREATE TABLE a (id int, g int GENERATED ALWAYS AS (2) STORED); CREATE TABLE c (id int); CREATE UNLOGGED TABLE u (id int);
             CREATE PUBLICATION p FOR TABLE b, walcast.feed; CREATE PUBLICATION p_inserts FOR TABLE a WITH (publish = 'insert, truncate');",
        )
        .await;
        let published = source.snapshots(SnapshotLimits::default()).published_tables().await.unwrap();
        let found: Vec<(String, String)> =
            published.iter().map(|table| (table.name.to_string(), table.columns.join(","))).collect();
        assert_eq!(found, [("public.a".into(), "id".into()), ("public.b".into(), "id".into())]);
        source.database.run("DROP PUBLICATION p; CREATE PUBLICATION p FOR ALL TABLES").await;
        let published = source.snapshots(SnapshotLimits::default()).published_tables().await.unwrap();
        let names: Vec<&str> = published.iter().map(|table| table.name.table.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    })
    .await;
}

/// Publications of every kind; `{15}` starts what 14 does not have.
const EVERY_KIND: &str = "
CREATE TABLE plain (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (1) STORED);
CREATE TABLE m (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
CREATE TABLE m2a PARTITION OF m2 FOR VALUES FROM (10) TO (20);
CREATE TABLE empty_root (id int) PARTITION BY LIST (id);
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (v text) INHERITS (parent);
CREATE UNLOGGED TABLE unlogged (id int); CREATE SCHEMA s; CREATE TABLE s.t (id int); CREATE TABLE s.part (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE s.part0 PARTITION OF s.part FOR VALUES WITH (MODULUS 1, REMAINDER 0);
ALTER TABLE plain ADD gone int; ALTER TABLE plain DROP gone;
CREATE PUBLICATION listed FOR TABLE plain, m, parent;
CREATE PUBLICATION rooted FOR TABLE plain, m, empty_root WITH (publish_via_partition_root = true);
CREATE PUBLICATION middle FOR TABLE m2, m1 WITH (publish_via_partition_root = true);
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION everything_rooted FOR ALL TABLES WITH (publish_via_partition_root = true);
CREATE PUBLICATION nothing;
{15}
CREATE PUBLICATION schemas FOR TABLES IN SCHEMA s, TABLE plain;
CREATE PUBLICATION schemas_rooted FOR TABLES IN SCHEMA s WITH (publish_via_partition_root = true);
CREATE PUBLICATION lists FOR TABLE plain (id), m1 (id) WHERE (id > 3);
{18}
CREATE PUBLICATION stored FOR ALL TABLES WITH (publish_generated_columns = stored);
CREATE PUBLICATION stored_list FOR TABLE plain (id, g);
";

#[tokio::test]
async fn what_is_published_is_what_the_server_says() {
    for_each_version(async |cluster| {
        let major = cluster.installation().version().major;
        let (common, newer) = EVERY_KIND.split_once("{15}").unwrap();
        let (fifteen, eighteen) = newer.split_once("{18}").unwrap();
        let setup = [(14, common), (15, fifteen), (18, eighteen)];
        let setup: String =
            setup.into_iter().filter(|(since, _)| major >= *since).map(|(_, sql)| sql).collect();
        let source = Source::new(cluster, &setup).await;
        let columns = if major >= 15 { "attnames" } else { "NULL::name[]" };
        let oracle = format!(
            "SELECT schemaname || '.' || tablename, {columns}::text[] FROM pg_publication_tables
             WHERE pubname = $1 ORDER BY schemaname COLLATE \"C\", tablename COLLATE \"C\""
        );
        let server = source.database.session().await;
        let session =
            walcast_postgres::Session::connect(&config(source.database.url()), "test").await.unwrap();
        for row in server.query("SELECT pubname::text FROM pg_publication", &[]).await.unwrap() {
            let publication: String = row.get(0);
            let expected = server.query(&oracle, &[&publication]).await.unwrap();
            let mut expected: Vec<(String, Option<Vec<String>>)> =
                expected.iter().map(|row| (row.get(0), row.get(1))).collect();
            // The view of 15 names generated columns, which its pgoutput leaves out.
            if major == 15 {
                let columns = expected.iter_mut().filter_map(|(_, columns)| columns.as_mut());
                columns.for_each(|columns| columns.retain(|column| column != "g"));
            }
            let found = published_tables(&session, std::slice::from_ref(&publication)).await.unwrap();
            let found = found
                .into_iter()
                .map(|table| (table.name.to_string(), (major >= 15).then_some(table.columns)));
            assert_eq!(found.collect::<Vec<_>>(), expected, "publication {publication}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_locked_table_does_not_hold_up_the_initial_sync_of_another() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TABLE locked (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t, locked WHERE (id > 1);",
    )
    .await;
    let mut session = source.database.session().await;
    let transaction = session.transaction().await.unwrap();
    transaction.batch_execute("ALTER TABLE locked ALTER v TYPE varchar(9)").await.unwrap();
    assert_eq!(source.sync(&["public.t"]).await.rows, [r#"{"id":1}"#]);
    let snapshots = source.snapshots(SnapshotLimits::default());
    assert_eq!(within("the published tables", LIMIT, snapshots.published_tables()).await.unwrap().len(), 2);
    drop(transaction);
}
