//! What rows look like, and in which pieces they come.

use walcast_snapshot::{SnapshotLimits, SnapshotTable};
use walcast_testkit::{TestSession, for_each_version, shared_cluster};

use crate::harness::{Source, collect, named};

const EVERY_TYPE: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE TYPE pair AS (a int, "b c" text);
CREATE DOMAIN percent AS numeric CHECK (value BETWEEN 0 AND 100);
CREATE TABLE "Every.Type" (
    id int PRIMARY KEY, i8 int8, n numeric, n2 numeric(10,2), f4 float4, f8 float8, b bool, t text, v varchar(9),
    c char(5), by bytea, d date, ts timestamp, tz timestamptz, ti time, tt timetz, iv interval, u uuid, j json,
    jb jsonb, m mood, p pair, dp percent, a int[], ta text[], pa pair[], r int4range, inet inet, bits bit(3),
    x xml, money money, pt point, "odd ""name" text, lsn pg_lsn);
INSERT INTO "Every.Type" VALUES
 (1, 9223372036854775807, 123456789012345678901234567890.000, 12.30, 0.1, 0.30000000000000004, true,
  E'tab\t nl\n cr\r bs\\ quote" ü 🦀 \b \f \v \x01', 'x', 'ab', '\xdeadbeef', '2026-11-21',
  '2026-11-21 01:02:03.123456', '2026-11-21 01:02:03+09', '24:00:00', '01:02:03+02', '1 year 2 mons -3 days 4:05:06.789',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b":1, "a":[1,2], "b":2}', '{"b":1, "a":[1, 2.50]}', 'it''s "ok"',
  ROW(1, 'x "y", z'), 99.5, '{1,NULL,3}', ARRAY['a,b', 'q"q', NULL, 'NULL', '', E'\\'], ARRAY[ROW(1,'x')::pair, NULL],
  '[1,5]', '192.168.0.1/24', '101', '<a>1</a>', 1234.5, '(1,2)', '\N', '16/B374D848');
 INSERT INTO "Every.Type" VALUES (2, -1, 'NaN', 0, 'Infinity', '-Infinity', false, '\N', '', '', '', 'infinity', '-infinity', 'infinity', '00:00', '00:00+00',
  '0', NULL, 'null', 'null', 'sad', ROW(NULL, NULL), 0, '{}', '{}', '{}', 'empty', '::1', '000', '', -1, '(0,0)', '', '0/0');
 INSERT INTO "Every.Type" VALUES (3, 0, 'Infinity', NULL, '-0', '1e22', NULL, '', NULL, NULL, NULL, '0044-03-15 BC', '0044-03-15 01:02:03 BC',
  '294276-12-31 23:59:59', NULL, NULL, NULL, NULL, '"\u0041\/"', '"x"', NULL, NULL, NULL, '[0:1]={1,2}', '{{a,b},{c,d}}', NULL,
  '(,)', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
 INSERT INTO "Every.Type" VALUES (4);
"#;

const PINNED: &str = "SET DateStyle=ISO; SET IntervalStyle=postgres; SET TimeZone=UTC; SET bytea_output=hex; \
                      SET extra_float_digits=3";

/// Every row as the object of `to_jsonb` of its columns, in the order of `id`.
async fn expected_rows(source: &Source, table: &str) -> Vec<String> {
    let session = source.database.session().await;
    session.batch_execute(PINNED).await.unwrap();
    let columns = format!(
        "SELECT string_agg(format('%L || coalesce(to_jsonb(%I)::text, ''null'')', to_json(attname)::text || ':', attname),
                           ' || '','' || ' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
    );
    let columns = session.scalar(&columns).await.unwrap();
    let query = format!("SELECT '{{' || {columns} || '}}' FROM {table} ORDER BY id");
    let rows = session.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn rows_are_what_to_jsonb_prints_of_their_columns_under_hostile_settings() {
    for_each_version(async |cluster| {
        let setup = format!("{EVERY_TYPE} CREATE PUBLICATION p FOR TABLE \"Every.Type\";");
        let source = Source::new(cluster, &setup).await;
        let name = source.database.name();
        for setting in [
            "DateStyle = 'German'",
            "IntervalStyle = 'sql_standard'",
            "TimeZone = 'Asia/Tokyo'",
            "bytea_output = 'escape'",
            "extra_float_digits = 0",
            "statement_timeout = '1ms'",
        ] {
            // The last one would end the setup's own session too, so each in a session that does not have it yet.
            source.database.run(&format!("ALTER DATABASE {name} SET {setting}")).await;
        }
        let outcome = source.sync(&["public.\"Every.Type\""]).await;
        // From outside: in there a statement has a millisecond.
        let outside = TestSession::connect(&cluster.url("postgres")).await;
        outside.batch_execute(&format!("ALTER DATABASE {name} RESET ALL")).await.unwrap();
        let expected = expected_rows(&source, "\"Every.Type\"").await;
        assert_eq!(outcome.rows.len(), 4);
        for (row, expected) in outcome.rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn chunks_keep_to_their_bounds_and_lose_no_row() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('x', i % 50) FROM generate_series(1, 5000) i;
         INSERT INTO t VALUES (5001, repeat('y', 300000)), (5002, repeat('z', 300000)), (5003, '');
         CREATE TABLE none (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t, none;",
    )
    .await;
    let limits = SnapshotLimits { chunk_bytes_max: 8192, chunk_rows_max: 100, ..SnapshotLimits::default() };
    let outcome = collect(&source.snapshots(limits), named(&["public.none", "public.t"])).await.unwrap();
    assert_eq!(outcome.rows, expected_rows(&source, "t").await);
    let tables: Vec<String> = outcome.relations.iter().map(|relation| relation.name().to_string()).collect();
    assert_eq!(tables, ["public.none", "public.t"], "in the order asked for, the empty one too");
    for (count, bytes) in &outcome.chunks {
        let giant = *bytes > 300_000;
        assert!(*count <= 100 && (*bytes < 8192 + 100 || giant), "{count} rows, {bytes} bytes");
        assert!(!giant || *bytes < 300_000 + 8192, "a giant row ends its chunk: {bytes} bytes");
    }
    assert!(outcome.chunks.iter().any(|(_, bytes)| *bytes >= 8192), "some chunks are full by bytes");
    assert!(outcome.chunks.iter().any(|(count, _)| *count == 100), "some chunks are full by rows");
}

#[tokio::test]
async fn progress_counts_all_tables_and_never_passes_its_estimate() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
         INSERT INTO a SELECT generate_series(1, 3000); INSERT INTO b SELECT generate_series(1, 1000);
         ANALYZE a; ANALYZE b; CREATE PUBLICATION p FOR TABLE a, b;",
    )
    .await;
    let limits = SnapshotLimits { chunk_rows_max: 500, ..SnapshotLimits::default() };
    let outcome = collect(&source.snapshots(limits), named(&["public.a", "public.b"])).await.unwrap();
    let expected: Vec<(u64, u64)> = (1..=8).map(|chunk| (chunk * 500, 4000)).collect();
    assert_eq!(outcome.progress, expected);
    source.database.run("INSERT INTO b SELECT generate_series(1001, 1100)").await;
    let outcome = source.sync(&["public.b"]).await;
    assert!(outcome.progress.iter().all(|(done, estimate)| done <= estimate), "{:?}", outcome.progress);
}

#[tokio::test]
async fn only_the_columns_asked_for_come_in_the_order_of_the_table() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text); INSERT INTO t VALUES (1, 'x', NULL);
         CREATE PUBLICATION p FOR TABLE t;",
    )
    .await;
    let snapshots = source.snapshots(SnapshotLimits::default());
    let table = |columns: &[&str]| SnapshotTable {
        rows: None,
        name: "public.t".parse().unwrap(),
        columns: Some(columns.iter().map(ToString::to_string).collect()),
    };
    let outcome = collect(&snapshots, vec![table(&["b", "id"])]).await.unwrap();
    assert_eq!(outcome.rows, [r#"{"id":1,"b":null}"#]);
    assert_eq!(outcome.relations[0].columns().len(), 3, "the relation stays whole");
    let outcome = collect(&snapshots, vec![table(&[])]).await.unwrap();
    assert_eq!(outcome.rows, ["{}"]);
    let error = collect(&snapshots, vec![table(&["nope"])]).await.unwrap_err().to_string();
    assert!(error.contains("\"nope\"") && error.contains("public.t"), "{error}");
}
