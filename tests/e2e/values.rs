//! Promise: a value in the feed is what the server's `to_jsonb` prints, for everything that a table can hold.
//!
//! The server is the judge: each value is asked for twice in one statement, as text (what `pgoutput` would send) and as
//! `to_jsonb(value)`, and the writer has to make the second of the first, byte for byte.

#![expect(clippy::unwrap_used, reason = "helpers of tests: clippy's exception knows only test functions")]

mod altered;
mod casts;
mod generated;
mod large;
mod literals;
mod settings;
mod told;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::SimpleQueryMessage;
use walcast_model::Oid;
use walcast_pgoutput::json::Types;
use walcast_postgres::{ConnectionConfig, Session, catalog};
use walcast_testkit::{TestDatabase, for_each_version};

/// What a database or role may be set to without changing what the feed says.
const HOSTILE_SETTINGS: &str = "
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET DateStyle = ''German, DMY''', current_database());
        EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database());
        EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Kathmandu''', current_database());
        EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
        EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -15', current_database());
        EXECUTE format('ALTER DATABASE %I SET search_path = public', current_database());
        EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database());
    END $$";

/// Values generated at a time.
const RUN: usize = 200;

/// How many values of each type are generated: `WALCAST_VALUES`, by default [`RUN`].
fn runs() -> usize {
    std::env::var("WALCAST_VALUES").map_or(RUN, |runs| runs.parse().unwrap())
}

/// What random values start from: `WALCAST_SEED`, by default the same each time, so that a run is as the one before.
fn seed() -> u64 {
    let seed = std::env::var("WALCAST_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("WALCAST_SEED={seed}");
    seed
}

/// A source of values of one type: `FROM` items with one column `v`.
fn values_of(type_name: &str, literals: &[String]) -> String {
    let rows: Vec<String> = literals
        .iter()
        .map(|literal| match literal.strip_prefix("sql:") {
            Some(expression) => format!("(({expression})::{type_name})"),
            None => format!("('{}'::{type_name})", literal.replace('\'', "''")),
        })
        .collect();
    format!("(VALUES {}) AS source (v)", rows.join(", "))
}

/// A session with walcast's settings, and the types that its writers know so far.
struct Judge {
    session: Session,
    types: Types,
    compared: usize,
}

impl Judge {
    async fn new(database: &TestDatabase) -> Self {
        database.run(HOSTILE_SETTINGS).await;
        let config = ConnectionConfig::parse(database.url(), &|_| None).unwrap();
        let session = Session::connect(&config, "walcast values test").await.unwrap();
        session.batch_execute("CREATE SCHEMA s; SET search_path = s, public").await.unwrap();
        Self { session, types: Types::new(), compared: 0 }
    }

    async fn run(&self, sql: &str) {
        self.session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Compares each of `expressions` over each row of `from`.
    async fn compare(&mut self, expressions: &[String], from: &str) {
        let columns: Vec<String> = expressions
            .iter()
            .map(|expression| {
                format!("pg_typeof({expression})::oid, {expression}, to_jsonb({expression})::text")
            })
            .collect();
        let sql = format!("SELECT {} FROM {from}", columns.join(", "));
        let short: String = sql.chars().take(2000).collect();
        let messages =
            self.session.simple_query(&sql).await.unwrap_or_else(|error| panic!("{error:?}: {short}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let mut written = Vec::new();
        for row in rows {
            for (index, expression) in expressions.iter().enumerate() {
                let oid = Oid::new(row.get(index * 3).unwrap().parse().unwrap());
                let (Some(text), Some(expected)) = (row.get(index * 3 + 1), row.get(index * 3 + 2)) else {
                    continue;
                };
                catalog::types(&self.session, &[oid], &mut self.types).await.unwrap();
                written.clear();
                let outcome = self.types.writer(oid).write(text.as_bytes(), &mut written);
                let got = String::from_utf8_lossy(&written);
                assert!(
                    outcome.is_ok() && got == expected,
                    "{expression} (type {oid}) of {short}\n    text {text}\n  server {expected}\n walcast {got} {outcome:?}"
                );
                self.compared += 1;
            }
        }
    }

    /// Compares the values of `from` by themselves and in every container that a column can have.
    async fn compare_in_containers(&mut self, type_name: &str, has_array: bool, tag: &str, from: &str) {
        let (domain, composite, outer) = (format!("d_{tag}"), format!("c_{tag}"), format!("o_{tag}"));
        self.run(&format!("CREATE DOMAIN {domain} AS {type_name}")).await;
        if !has_array {
            self.run(&format!(
                "CREATE TYPE {composite} AS (\"second one\" {type_name}, \"a\"\"b\" {domain})"
            ))
            .await;
            let row = format!("ROW(v, v)::{composite}");
            let in_array = format!("ARRAY[{row}, NULL]");
            self.compare(&["v".to_owned(), format!("v::{domain}"), row, in_array], from).await;
            return;
        }
        let list = format!("ARRAY[v, NULL, v]::{type_name}[]");
        let grid = format!("array_fill(v, ARRAY[2, 1, 2], ARRAY[0, -7, 1])::{type_name}[]");
        let domains = format!("ARRAY[v::{domain}, NULL]::{domain}[]");
        self.run(&format!("CREATE DOMAIN {domain}_list AS {type_name}[]")).await;
        self.run(&format!(
            "CREATE TYPE {composite} AS (\"second one\" {type_name}, list {type_name}[], \"a\"\"b\" {domain}, ö {domain}_list);
             CREATE TYPE {outer} AS (c {composite}, cs {composite}[], plain {type_name})"
        ))
        .await;
        let row = format!("ROW(v, {list}, v, {grid})::{composite}");
        let nested =
            format!("ROW({row}, ARRAY[{row}, NULL, ROW(NULL, '{{}}', NULL, NULL)::{composite}], v)::{outer}");
        let expressions = [
            "v".to_owned(),
            list,
            grid,
            domains,
            format!("v::{domain}"),
            format!("ARRAY[ARRAY[v, v], ARRAY[NULL, v]]::{type_name}[]::{domain}_list"),
            format!("ARRAY[ARRAY[v]::{type_name}[]::{domain}_list, NULL]::{domain}_list[]"),
            row,
            format!("ARRAY[{nested}, NULL]"),
            nested,
        ];
        self.compare(&expressions, from).await;
    }
}

#[tokio::test]
async fn every_builtin_type_is_written_as_the_server_writes_it_alone_and_in_every_container() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut judge = Judge::new(&database).await;
        judge.run(literals::SETUP).await;
        // Every base, range and multirange type of the server that is not itself an array.
        let rows = judge
            .session
            .query(
                "SELECT oid, typname::text, typarray <> 0 FROM pg_type
                 WHERE oid < 10000 AND typtype IN ('b', 'r', 'm')
                   AND NOT (typcategory = 'A' AND typsubscript = 'array_subscript_handler'::regproc
                            AND typname NOT IN ('int2vector', 'oidvector'))
                 ORDER BY oid",
                &[],
            )
            .await
            .unwrap();
        assert!(rows.len() > 80, "the catalog has only {} types", rows.len());
        for row in rows {
            let (oid, name, has_array): (u32, String, bool) = (row.get(0), row.get(1), row.get(2));
            assert!(judge.types.contains(Oid::new(oid)), "{name} ({oid}) is not known as built in");
            if literals::WITHOUT_VALUES.contains(&name.as_str()) {
                continue;
            }
            let literals = literals::of(&name);
            assert!(
                !literals.is_empty(),
                "the server has a type {name} ({oid}) that this test has no values for"
            );
            let type_name = format!("pg_catalog.\"{name}\"");
            let from = values_of(&type_name, &literals);
            let before = judge.compared;
            judge.compare_in_containers(&type_name, has_array, &name.replace('"', ""), &from).await;
            assert!(judge.compared > before, "no value of {name} was compared");
        }
        println!("{} values compared", judge.compared);
        database.close().await;
    })
    .await;
}

#[tokio::test]
async fn generated_values_are_written_as_the_server_writes_them() {
    let seed = seed();
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut judge = Judge::new(&database).await;
        let mut random = StdRng::seed_from_u64(seed);
        for (name, generate) in generated::GENERATORS {
            let type_name = format!("pg_catalog.{name}");
            for run in 0..runs().div_ceil(RUN) {
                let literals: Vec<String> = (0..RUN).map(|_| generate(&mut random)).collect();
                let from = values_of(&type_name, &literals);
                judge.compare_in_containers(&type_name, true, &format!("{name}_{run}"), &from).await;
                // Arrays of random length, and with random bounds.
                let some = random.random_range(1..40);
                let lists = format!(
                    "(SELECT array_agg(v ORDER BY n) AS v FROM (SELECT v, row_number() OVER () AS n FROM {from}) AS numbered
                      GROUP BY n / {some}) AS lists"
                );
                judge.compare(&["v".to_owned(), "array_fill(v[1], ARRAY[3], ARRAY[-1])".to_owned()], &lists).await;
            }
        }
        println!("{} values compared", judge.compared);
        database.close().await;
    })
    .await;
}

#[tokio::test]
async fn types_that_users_make_are_written_as_the_server_writes_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut judge = Judge::new(&database).await;
        judge
            .run(
                "CREATE TYPE mood AS ENUM ('sad', 'o\"k', 'NULL', 'ha ppy', 'with,comma', '{brace}', 'back\\slash');
                 CREATE DOMAIN grade AS int CHECK (value BETWEEN 0 AND 9);
                 CREATE DOMAIN top_grade AS grade;
                 CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
                 CREATE TYPE moodrange AS RANGE (subtype = mood);
                 CREATE TYPE empty AS ();
                 CREATE TYPE pair AS (\"B\" top_grade, a mood);
                 CREATE TYPE shrunk AS (gone int, kept mood, gone_too text, last pair);
                 ALTER TYPE shrunk DROP ATTRIBUTE gone, DROP ATTRIBUTE gone_too;
                 CREATE DOMAIN pairs AS pair[];
                 CREATE DOMAIN row_domain AS shrunk;
                 CREATE TABLE t (id int PRIMARY KEY, gone text, doc json, p pairs);
                 ALTER TABLE t DROP COLUMN gone;
                 INSERT INTO t VALUES (1, '{\"b\": 1e2, \"a\": [1, {\"z\": 1, \"y\": 2}]}', '{\"(1,sad)\",NULL}'), (2, NULL, NULL)",
            )
            .await;
        let moods = "(SELECT unnest(enum_range(NULL::mood)) AS v) AS moods";
        judge.compare_in_containers("mood", true, "mood", moods).await;
        let floats = "(VALUES (1.5::float8), (1e300), ('NaN'), ('-Infinity')) AS floats (v)";
        let ranges = ["floatrange(NULL, v)", "floatrange(v, NULL, '()')", "floatmultirange(floatrange(v, 'NaN'))"];
        judge.compare(&ranges.map(str::to_owned), floats).await;
        judge.compare(&["moodrange(NULL, v)".into(), "ARRAY[moodrange(v, NULL)]".into()], moods).await;
        let made = [
            "7::top_grade",
            "ROW()::empty",
            "ARRAY[ROW()::empty, NULL]",
            "ROW(1, 'o\"k')::pair",
            "ARRAY[ROW(1, 'o\"k')::pair, ROW(NULL, 'back\\slash')::pair, NULL]::pairs",
            "ROW('sad', ROW(2, 'NULL'))::shrunk",
            "ROW('sad', ROW(2, 'with,comma'))::shrunk::row_domain",
            "ARRAY[ROW('sad', ROW(2, '{brace}'))::shrunk::row_domain]",
        ];
        judge.compare(&made.map(str::to_owned), "(SELECT) AS nothing").await;
        // Row types: of a table with a dropped column, and of catalog tables.
        judge.compare(&["t".into(), "ARRAY[t, NULL]".into()], "t").await;
        judge.compare(&["c".into()], "pg_class AS c").await;
        judge.compare(&["p".into()], "pg_proc AS p WHERE p.oid < 1000").await;
        judge.compare(&["i".into()], "pg_index AS i").await;
        judge.compare(&["r".into()], "pg_rewrite AS r").await;
        judge.compare(&["ty".into()], "pg_type AS ty").await;
        judge.compare(&["c".into()], "information_schema.columns AS c").await;
        println!("{} values compared", judge.compared);
        database.close().await;
    })
    .await;
}

#[tokio::test]
async fn types_of_extensions_are_written_as_the_server_writes_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut judge = Judge::new(&database).await;
        for (extension, type_name, literals) in literals::EXTENSIONS {
            let create = format!("CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA public CASCADE");
            let available = format!("SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'");
            if judge.session.query(&available, &[]).await.unwrap().is_empty() {
                println!("{extension} is not installed");
                continue;
            }
            judge.run(&create).await;
            let literals: Vec<String> = literals.iter().map(|literal| (*literal).to_owned()).collect();
            let from = values_of(&format!("public.{type_name}"), &literals);
            judge.compare_in_containers(&format!("public.{type_name}"), true, type_name, &from).await;
        }
        let mut random = StdRng::seed_from_u64(seed());
        for (extension, type_name, generate) in generated::OF_EXTENSIONS {
            let installed = format!("SELECT 1 FROM pg_extension WHERE extname = '{extension}'");
            if judge.session.query(&installed, &[]).await.unwrap().is_empty() {
                continue;
            }
            let literals: Vec<String> = (0..runs()).map(|_| generate(&mut random)).collect();
            let from = values_of(&format!("public.{type_name}"), &literals);
            let tag = format!("{type_name}_generated");
            judge.compare_in_containers(&format!("public.{type_name}"), true, &tag, &from).await;
        }
        println!("{} values compared", judge.compared);
        database.close().await;
    })
    .await;
}

#[tokio::test]
async fn every_character_of_every_plane_is_written_as_the_server_writes_it() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut judge = Judge::new(&database).await;
        judge.run("CREATE TYPE c AS (t text, j json)").await;
        let expressions =
            ["v", "ARRAY[v]", "to_json(v)", "jsonb_build_object(v, v)", "ROW(v, to_json(v))::c"];
        for texts in generated::all_characters().chunks(32) {
            judge.compare(&expressions.map(str::to_owned), &values_of("text", texts)).await;
        }
        assert_eq!(judge.compared, expressions.len() * 272);
        database.close().await;
    })
    .await;
}
