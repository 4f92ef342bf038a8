//! Tables come, lose their key, get one, are locked by forgotten writers.

use std::time::Duration;

use walcast_replication::publication::{
    Facts, FindingKind, Placement, Plan, PublicationSettings, Selection, apply,
};
use walcast_testkit::{LIMIT, TestDatabase, for_each_version, within};

use crate::source::{Options, Source, config, publish};

async fn findings(source: &Source) -> Vec<String> {
    let plan = Plan::new(&Facts::read(&source.sql().await).await.unwrap(), &source.publication);
    assert_eq!(plan.steps, []);
    plan.findings.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_new_table_is_picked_up_with_the_rows_it_has() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "CREATE TABLE old (id int PRIMARY KEY)").await;
        let setup = r#"CREATE TABLE "New ""t" ("the ""id" int PRIMARY KEY, at timestamptz, "data" jsonb, list text[], n numeric,
                            twice int GENERATED ALWAYS AS (1 + 1) STORED);
                       INSERT INTO "New ""t" VALUES (1, '2026-11-21 10:00+02', '{"b": 1, "a": [1.50, "x"]}', '{"a,b",NULL}', 1.50);
                       INSERT INTO "New ""t" VALUES (2)"#;
        source.database.run(setup).await;
        let session = source.sql().await;
        source.reconciler().look(&session).await.unwrap();
        source.database.run(r#"INSERT INTO "New ""t" SELECT 3, at, data, list, n FROM "New ""t" WHERE "the ""id" = 1"#).await;
        let values = r#""at":"2026-11-21T08:00:00+00:00","data":{"a": [1.50, "x"], "b": 1},"list":["a,b", null],"n":1.50"#;
        let table = r#"public."New ""t""#;
        let row = |id: i32, values: &str| {
            format!(r#"insert {table} key {{"the \"id":{id}}} row {{"the \"id":{id},{values}}}"#)
        };
        let nulls = r#""at":null,"data":null,"list":null,"n":null"#;
        assert_eq!(source.read().await, [vec![row(1, values), row(2, nulls)], vec![row(3, values)]]);
    })
    .await;
}

#[tokio::test]
async fn case_53_no_row_of_an_open_writer_is_lost_and_a_forgotten_one_delays_only_its_table() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "").await;
        source
            .database
            .run("CREATE TABLE slow (id int PRIMARY KEY); CREATE TABLE quick (id int PRIMARY KEY)")
            .await;
        let writer = source.database.session().await;
        writer.batch_execute("BEGIN; INSERT INTO slow VALUES (1)").await.unwrap();
        let session = source.sql().await;
        let mut reconciler = source.reconciler();
        within("a look that a writer cannot hold up", LIMIT, reconciler.look(&session)).await.unwrap();
        source.database.run("INSERT INTO quick VALUES (1)").await;
        assert_eq!(source.read().await, [[r#"insert public.quick key {"id":1} row {"id":1}"#]]);
        writer
            .batch_execute("INSERT INTO slow VALUES (2); COMMIT; INSERT INTO slow VALUES (3)")
            .await
            .unwrap();
        // Another one, because this one waits for a while before it tries the table again.
        source.reconciler().look(&session).await.unwrap();
        writer.batch_execute("DELETE FROM slow WHERE id = 1").await.unwrap();
        let insert = |id: i32| format!(r#"insert public.slow key {{"id":{id}}} row {{"id":{id}}}"#);
        let expected =
            [vec![insert(1), insert(2), insert(3)], vec![r#"delete public.slow key {"id":1}"#.to_owned()]];
        assert_eq!(source.read().await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_table_that_loses_its_key_moves_to_inserts_and_one_that_gets_one_is_told_anew() {
    for_each_version(async |cluster| {
        let mut source =
            Source::start(cluster, "CREATE TABLE t (id int CONSTRAINT pk PRIMARY KEY, v text)").await;
        let (session, sql) = (source.sql().await, source.database.session().await);
        sql.batch_execute("ALTER TABLE t DROP CONSTRAINT pk; INSERT INTO t VALUES (1, 'a'), (2, 'b')")
            .await
            .unwrap();
        assert!(
            sql.batch_execute("DELETE FROM t WHERE id = 2").await.is_err(),
            "Postgres refuses until it is moved"
        );
        source.reconciler().look(&session).await.unwrap();
        sql.batch_execute("DELETE FROM t WHERE id = 2; UPDATE t SET v = 'c'").await.unwrap();
        let found = findings(&source).await;
        assert_eq!(
            found,
            ["public.t: it has no primary key: only its inserts and truncates are in the feed; \
             ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;"]
        );
        sql.batch_execute("ALTER TABLE t ADD CONSTRAINT pk PRIMARY KEY (id)").await.unwrap();
        source.reconciler().look(&session).await.unwrap();
        sql.batch_execute("DELETE FROM t").await.unwrap();
        assert_eq!(
            source.read().await,
            [
                vec![r#"insert public.t row {"id":1,"v":"a"}"#, r#"insert public.t row {"id":2,"v":"b"}"#],
                vec!["truncate public.t", r#"insert public.t key {"id":1} row {"id":1,"v":"c"}"#],
                vec![r#"delete public.t key {"id":1}"#],
            ]
        );
        assert_eq!(findings(&source).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_table_over_the_limit_is_published_without_its_rows() {
    for_each_version(async |cluster| {
        let mut options = Options::default();
        options.publication.pickup_bytes_max = 64 << 10;
        let mut source = Source::with(cluster, "", options).await;
        let setup = "CREATE TABLE big (id int PRIMARY KEY, v text);
                     INSERT INTO big SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;
                     CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small VALUES (1)";
        source.database.run(setup).await;
        let session = source.sql().await;
        source.reconciler().look(&session).await.unwrap();
        source.database.run("DELETE FROM big WHERE id = 7").await;
        assert_eq!(
            source.read().await,
            [[r#"insert public.small key {"id":1} row {"id":1}"#], [r#"delete public.big key {"id":7}"#]]
        );
    })
    .await;
}

#[tokio::test]
async fn a_partitioned_table_is_picked_up_with_its_partitions() {
    for_each_version(async |cluster| {
        let mut source = Source::start(cluster, "").await;
        let setup = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
                     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
                     CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
                     INSERT INTO p VALUES (1), (11);
                     CREATE TABLE q (id int) PARTITION BY RANGE (id);
                     CREATE TABLE q1 PARTITION OF q (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (10);
                     CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (10) TO (20);
                     INSERT INTO q VALUES (1), (11)";
        source.database.run(setup).await;
        let session = source.sql().await;
        source.reconciler().look(&session).await.unwrap();
        // The second time lists the partitions themselves, and says nothing more of their rows.
        source.reconciler().look(&session).await.unwrap();
        source.database.run("UPDATE p SET id = 2 WHERE id = 1; UPDATE q SET id = id + 1").await;
        let mut read = source.read().await;
        let last = read.pop();
        let mut rows = read.concat();
        rows.sort();
        assert_eq!(
            rows,
            [
                r#"insert public.p1 key {"id":1} row {"id":1}"#,
                r#"insert public.p2 key {"id":11} row {"id":11}"#,
                r#"insert public.q1 key {"id":1} row {"id":1}"#,
                r#"insert public.q2 row {"id":11}"#,
            ]
        );
        assert_eq!(
            last.unwrap(),
            [
                r#"update public.p1 key {"id":1} row {"id":2}"#,
                r#"update public.q1 key {"id":1} row {"id":2}"#,
            ]
        );
        assert_eq!(findings(&source).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn tables_that_inherit_are_tables_of_their_own_and_what_cannot_be_published_is_left() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (v text) INHERITS (parent);
                     CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE VIEW w AS SELECT 1;
                     CREATE MATERIALIZED VIEW m AS SELECT 1;";
        let mut source = Source::start(cluster, setup).await;
        let sql =
            "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'x'); INSERT INTO u VALUES (1);
                   DELETE FROM parent";
        source
            .expect(
                "inheritance",
                sql,
                &[&[
                    r#"insert public.parent key {"id":1} row {"id":1}"#,
                    r#"insert public.child row {"id":2,"v":"x"}"#,
                    r#"delete public.parent key {"id":1}"#,
                ]],
            )
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_list_of_tables_is_a_list_of_tables() {
    for_each_version(async |cluster| {
        let mut options = Options::default();
        let names = ["public.a", "public.later"].map(|name| name.parse().unwrap());
        options.publication.selection = Selection::Listed(names.to_vec());
        let mut source = Source::with(
            cluster,
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)",
            options,
        )
        .await;
        source
            .expect(
                "list",
                "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)",
                &[&[r#"insert public.a key {"id":1} row {"id":1}"#]],
            )
            .await;
        assert_eq!(
            findings(&source).await,
            ["public.later: there is no such table; it is added once there is"]
        );
        source.database.run("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)").await;
        let session = source.sql().await;
        source.reconciler().look(&session).await.unwrap();
        assert_eq!(source.read().await, [[r#"insert public.later key {"id":1} row {"id":1}"#]]);
        source.publication.selection = Selection::Listed(vec!["public.later".parse().unwrap()]);
        source.reconciler().look(&session).await.unwrap();
        source.expect("list", "INSERT INTO a VALUES (2)", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn what_the_role_may_not_do_is_a_statement_for_an_administrator() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("role");
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role};
                 CREATE TABLE theirs (id int PRIMARY KEY); CREATE SCHEMA mine AUTHORIZATION {role};
                 SET ROLE {role}; CREATE TABLE mine.t (id int PRIMARY KEY)",
                database.name()
            ))
            .await;
        let session =
            walcast_postgres::Session::connect(&config(&database.url_as(&role)), "test").await.unwrap();
        let settings = PublicationSettings::new("feed");
        let plan = Plan::new(&Facts::read(&session).await.unwrap(), &settings);
        let statement = "ALTER PUBLICATION \"feed\" ADD TABLE ONLY \"public\".\"theirs\";";
        let whole = format!("{statement} GRANT SELECT ON \"public\".\"theirs\" TO \"{role}\";");
        assert_eq!(plan.administrator_statements(), [statement]);
        assert_eq!(plan.findings.len(), 1);
        assert_eq!(
            (plan.findings[0].kind, plan.findings[0].statement.as_deref()),
            // Who publishes it for walcast lets it be read too.
            (FindingKind::Privilege, Some(whole.as_str()))
        );
        for step in plan.steps.iter().filter(|step| step.allowed) {
            apply(&session, step, &settings, None).await.unwrap();
        }
        // The administrator does as told, and nothing is left to do.
        database.run(&format!("RESET ROLE; {}", plan.administrator_statements().join(" "))).await;
        let plan = Plan::new(&Facts::read(&session).await.unwrap(), &settings);
        assert_eq!((plan.steps, plan.findings), (vec![], vec![]));
    })
    .await;
}

#[tokio::test]
async fn all_statements_of_the_plan_can_be_run_by_hand_and_settings_by_hand_are_put_right() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int);
                 CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
                 CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
                 CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (10);
                 CREATE TABLE q (id int) PARTITION BY RANGE (id);
                 CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10)",
            )
            .await;
        let session = walcast_postgres::Session::connect(&config(database.url()), "test").await.unwrap();
        let settings = PublicationSettings::new("f\"eed");
        let plan = Plan::by_hand(&Facts::read(&session).await.unwrap(), &settings);
        database.run(&plan.statements().join("\n")).await;
        assert_eq!(Plan::new(&Facts::read(&session).await.unwrap(), &settings).steps, []);
        database
            .run("ALTER PUBLICATION \"f\"\"eed\" SET (publish = 'insert', publish_via_partition_root = true)")
            .await;
        publish(&session, &settings, None).await;
        let facts = Facts::read(&session).await.unwrap();
        let publication = facts.publication("f\"eed").unwrap();
        assert_eq!((publication.operations, publication.via_root), ([true; 4], false));
    })
    .await;
}

#[tokio::test]
async fn usable_identities_are_those_that_postgres_accepts() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let tables = [
            ("pk", "(id int PRIMARY KEY)", ""),
            ("none", "(id int)", ""),
            ("late", "(id int PRIMARY KEY DEFERRABLE)", ""),
            ("nothing", "(id int PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING"),
            ("full_", "(id int)", "ALTER TABLE full_ REPLICA IDENTITY FULL"),
            ("uniq", "(id int NOT NULL UNIQUE)", ""),
            ("idx", "(id int NOT NULL UNIQUE)", "ALTER TABLE idx REPLICA IDENTITY USING INDEX idx_id_key"),
            (
                "gone",
                "(id int NOT NULL UNIQUE, k int PRIMARY KEY)",
                "ALTER TABLE gone REPLICA IDENTITY USING INDEX gone_id_key; ALTER TABLE gone DROP CONSTRAINT gone_id_key",
            ),
        ];
        for (name, columns, more) in tables {
            database.run(&format!("CREATE TABLE {name} {columns}; {more}; INSERT INTO {name} (id{}) VALUES (1{})",
                if name == "gone" { ", k" } else { "" }, if name == "gone" { ", 1" } else { "" })).await;
        }
        let session = walcast_postgres::Session::connect(&config(database.url()), "test").await.unwrap();
        let plan = publish(&session, &PublicationSettings::new("feed"), None).await;
        let whole: Vec<&str> = plan.steps.iter().filter_map(|step| match &step.action {
            walcast_replication::publication::Action::Table(table) => match &table.enter {
                Some((Placement::Whole, _)) => Some(table.name.table.as_str()),
                _ => None,
            },
            _ => None,
        }).collect();
        assert_eq!(whole, ["pk", "full_", "idx"]);
        // Whatever was decided, the application's statements work, and Postgres refuses those that were left out.
        let sql = database.session().await;
        for (name, _, _) in tables {
            sql.batch_execute(&format!("UPDATE {name} SET id = 2")).await.unwrap();
            if !whole.contains(&name) {
                sql.batch_execute(&format!("ALTER PUBLICATION feed ADD TABLE {name}")).await.unwrap();
                assert!(sql.batch_execute(&format!("UPDATE {name} SET id = 3")).await.is_err(), "{name}");
                sql.batch_execute(&format!("ALTER PUBLICATION feed DROP TABLE {name}")).await.unwrap();
            }
        }
        // Each finding's statement mends it.
        for finding in &plan.findings {
            sql.batch_execute(finding.statement.as_deref().unwrap()).await.unwrap_or_else(|error| panic!("{finding}: {error:?}"));
        }
        publish(&session, &PublicationSettings::new("feed"), None).await;
        let plan = Plan::new(&Facts::read(&session).await.unwrap(), &PublicationSettings::new("feed"));
        assert_eq!((plan.steps, plan.findings), (vec![], vec![]));
        for (name, _, _) in tables {
            sql.batch_execute(&format!("DELETE FROM {name}")).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_reconciler_finds_tables_by_itself() {
    for_each_version(async |cluster| {
        let mut options = Options::default();
        options.publication.discover_interval = Duration::from_millis(50);
        let mut source = Source::with(cluster, "", options).await;
        let running = tokio::spawn(source.reconciler().run(source.cancel.clone()));
        source.database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        source.database.until("SELECT count(*) FROM pg_publication_tables", "1").await;
        source
            .expect(
                "found",
                "DELETE FROM t",
                &[&[r#"insert public.t key {"id":1} row {"id":1}"#], &[r#"delete public.t key {"id":1}"#]],
            )
            .await;
        source.stop().await;
        within("the reconciler's end", LIMIT, running).await.unwrap();
    })
    .await;
}
