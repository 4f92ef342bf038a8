//! Types with a cast to json, which `to_jsonb` follows and only the server can run.

use walcast_testkit::for_each_version;

use super::told::{assert_rows, fallbacks, judge, printed, rows_of, synced};
use crate::conformance::trial::Trial;

const SETUP: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'broken');
CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    IF $1 = 'broken' THEN RAISE 'no json for this one'; END IF;
    RETURN json_build_object('z', 1.50, 'mood', $1::text, 'a', NULL);
END $$;
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
CREATE DOMAIN feeling AS mood;
CREATE TYPE report AS (m feeling, "all of them" mood[]);
CREATE TABLE t (id int PRIMARY KEY, m mood, f feeling, ms mood[], r report, rs report[]);
ALTER TABLE t REPLICA IDENTITY FULL;
"#;

const ROWS: [&str; 5] = [
    "INSERT INTO t VALUES (1, 'sad', 'ok', '{sad,NULL,ok}', '(ok,\"{sad,ok}\")', '{\"(sad,{})\",NULL}')",
    "INSERT INTO t VALUES (2, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO t SELECT n, CASE n % 2 WHEN 0 THEN 'sad' ELSE 'ok' END::mood, 'ok', ARRAY['sad'::mood, 'ok'] FROM generate_series(3, 3000) AS n",
    "UPDATE t SET m = 'ok', f = 'sad' WHERE id = 1",
    "ALTER TYPE mood ADD VALUE 'new'",
];

#[tokio::test]
async fn a_cast_to_json_is_followed_live_in_history_in_catch_up_and_in_an_initial_sync() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, SETUP).await;
        let told = trial.told(&ROWS).await;
        let mut rows = rows_of(&told, "public.t");
        // The updated one came last, and is the first now.
        let updated = rows.pop().expect("rows");
        rows[0] = updated;
        let server = judge(trial.database.url()).await;
        let now = printed(&server, "public.t").await;
        assert!(now[0].contains(r#""m":{"a": null, "z": 1.50, "mood": "ok"}"#), "{}", now[0]);
        assert_rows(&rows, &now, "live");
        assert_eq!(fallbacks(&trial).await, 0);
        trial.finish().await;
        let is_of = |row: &str| row.starts_with(r#"{"id""#);
        assert_rows(&synced(&trial.daemon.ws_url(), is_of).await, &now, "the initial sync");
        trial.reconnect().await;
        // The label is new since the type was looked at; and what the server cannot convert stops nothing.
        let steps = [
            "INSERT INTO t (id, m) VALUES (4001, 'new')",
            "INSERT INTO t (id, m) VALUES (4002, 'broken'), (4003, 'sad')",
        ];
        let rows = rows_of(&trial.told(&steps).await, "public.t");
        let of = |id: u32, m: &str| format!(r#"{{"id":{id},"m":{m},"f":null,"ms":null,"r":null,"rs":null}}"#);
        let json = |mood: &str| format!(r#"{{"a": null, "z": 1.50, "mood": "{mood}"}}"#);
        let expected = [of(4001, &json("new")), of(4002, r#""broken""#), of(4003, &json("sad"))];
        assert_rows(&rows, &expected, "what cannot be converted");
        assert_eq!(fallbacks(&trial).await, 1);
        trial.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_cast_that_is_made_or_dropped_in_mid_stream_counts_from_then_on() {
    for_each_version(async |cluster| {
        let setup = SETUP.replace("CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);", "");
        let mut trial = Trial::start(cluster, &setup).await;
        let server = judge(trial.database.url()).await;
        for (id, step) in [
            (1, "SELECT 1"),
            (2, "CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)"),
            (3, "DROP CAST (mood AS json)"),
        ] {
            let insert = format!("INSERT INTO t VALUES ({id}, 'ok', 'sad', '{{ok}}', '(sad,)')");
            let told = trial.told(&[step, &insert]).await;
            let row = printed(&server, "public.t").await.pop().expect("a row");
            assert_rows(&rows_of(&told, "public.t"), &[row], step);
        }
        assert_eq!(fallbacks(&trial).await, 0);
    })
    .await;
}

/// Whoever owns a type may give it a cast with any function of his; walcast, which may be a superuser, must not run it.
#[tokio::test]
async fn a_cast_whose_function_belongs_to_an_ordinary_role_is_not_run_and_the_value_is_a_string() {
    for_each_version(async |cluster| {
        let setup = SETUP.replace(
            "CREATE CAST",
            "CREATE ROLE {db}_owner; ALTER FUNCTION mood_json OWNER TO {db}_owner; CREATE CAST",
        );
        let mut trial = Trial::start(cluster, &setup).await;
        let told = trial.told(&["INSERT INTO t VALUES (1, 'sad', 'ok', '{sad}', NULL, NULL)"]).await;
        let row = r#"{"id":1,"m":"sad","f":"ok","ms":"{sad}","r":null,"rs":null}"#;
        assert_rows(&rows_of(&told, "public.t"), &[row.to_owned()], "live");
        assert_eq!(fallbacks(&trial).await, 3);
        assert!(
            trial.daemon.log().iter().any(|line| line.contains("walcast does not run")),
            "{:#?}",
            trial.daemon.log()
        );
        let is_of = |row: &str| row.starts_with(r#"{"id""#);
        assert_rows(&synced(&trial.daemon.ws_url(), is_of).await, &[row.to_owned()], "the initial sync");
        let role = format!("{}_owner", trial.database.name());
        trial.database.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    })
    .await;
}

const POSTGIS: &str = r#"
CREATE EXTENSION postgis SCHEMA public;
CREATE DOMAIN place AS geometry(Point, 4326);
CREATE TYPE stop AS (name text, at place, shape geometry);
CREATE TABLE g (id int PRIMARY KEY, any_shape geometry, at geometry(Point, 4326), flown geography, route geometry(LineStringZ, 3857),
                stops stop[], shapes geometry[], extent box2d, cube box3d, inside place);
"#;

const SHAPES: &str = r#"
INSERT INTO g (id, any_shape) SELECT n, shape::geometry FROM unnest(ARRAY[
    'POINT EMPTY', 'POINT(1 2)', 'POINT Z (1 2 3)', 'POINT M (1 2 3)', 'POINT ZM (1 2 3 4)', 'POINT(1e300 -1e-300)', 'POINT(0.1 -0)',
    'LINESTRING(0 0, 1 1)', 'POLYGON((0 0, 4 0, 4 4, 0 0), (1 1, 2 1, 2 2, 1 1))', 'MULTIPOINT(1 1, 2 2)',
    'MULTIPOLYGON(((0 0, 4 0, 4 4, 0 0)))', 'GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 0, 1 1), GEOMETRYCOLLECTION EMPTY)',
    'CIRCULARSTRING(0 0, 1 1, 2 0)', 'SRID=4326;POINT(1 2)', 'SRID=3857;POINT(1 2)', 'TRIANGLE((0 0, 0 1, 1 1, 0 0))', NULL
]) WITH ORDINALITY AS s (shape, n) WHERE shape !~ 'CIRCULAR|TRIANGLE';
INSERT INTO g VALUES (50, 'POINT(1 2)', 'SRID=4326;POINT(8.54 47.37)', 'LINESTRING(8 47, -73 40)', 'SRID=3857;LINESTRING(0 0 1, 1 1 2)',
    ARRAY[ROW('a "b"', 'SRID=4326;POINT(1 2)', 'POINT EMPTY')::stop, NULL, ROW(NULL, NULL, NULL)::stop],
    ARRAY['POINT(1 2)'::geometry, NULL, 'LINESTRING(0 0, 1 1)'], 'BOX(0 0, 1 1)', 'BOX3D(0 0 0, 1 1 1)', 'SRID=4326;POINT(3 4)');
"#;

#[tokio::test]
async fn shapes_of_postgis_are_the_geojson_that_to_jsonb_prints() {
    for_each_version(async |cluster| {
        let shared = walcast_testkit::TestDatabase::create(cluster).await;
        let installed = shared.scalar("SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'").await;
        let version = shared.scalar("SHOW server_version").await.unwrap_or_default();
        shared.close().await;
        if installed.is_none() {
            println!("skipped on Postgres {version}: PostGIS is not installed there");
            return;
        }
        let mut trial = Trial::start(cluster, POSTGIS).await;
        let rows = rows_of(&trial.told(&[SHAPES]).await, "public.g");
        let server = judge(trial.database.url()).await;
        let now = printed(&server, "public.g").await;
        assert!(now.iter().any(|row| row.contains(r#""type": "Polygon""#)), "{now:#?}");
        assert_rows(&rows, &now, "live");
        assert_eq!(fallbacks(&trial).await, 0);
        trial.finish().await;
        let is_of = |row: &str| row.contains(r#""any_shape""#);
        assert_rows(&synced(&trial.daemon.ws_url(), is_of).await, &now, "the initial sync");
    })
    .await;
}
