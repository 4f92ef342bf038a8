//! A table with a column of every type that filters know, full of extreme values.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::SimpleQueryMessage;
use walcast_filter::{Collation, Schema, SchemaBuilder, TypeFact, facts};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};
use walcast_testkit::TestSession;

/// What conditions a column can stand in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
    Plain,
    Array,
    Json,
}

/// A column: its name, its type, what a literal is cast to, and values.
pub(crate) struct TestColumn {
    pub(crate) name: &'static str,
    pub(crate) declared: &'static str,
    pub(crate) cast: &'static str,
    pub(crate) kind: Kind,
    pub(crate) pool: &'static [&'static str],
}

const INTS: &[&str] = &["0", "1", "-1", "5", "32767", "-32768", "42"];
const BIG_INTS: &[&str] = &[
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "9007199254740993",
    "16777217",
    "2147483648",
];
const FLOATS: &[&str] = &[
    "0",
    "-0",
    "1",
    "0.1",
    "-1.5",
    "1e10",
    "16777217",
    "NaN",
    "Infinity",
    "-Infinity",
    "3.4028235e38",
    "1e-40",
    "0.30000000000000004",
    "42",
];
const NUMERICS: &[&str] = &[
    "0",
    "0.00",
    "1.10",
    "1.1",
    "-1.1",
    "123456789012345678901234567890.123",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e20",
    "-0.000001",
    "99999999.99",
    "42",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "abc",
    "ABC",
    "a%c",
    "a_c",
    "a b ",
    "it's",
    "back\\slash",
    "tab\there",
    "\"q\"",
    "é",
    "Éa",
    "漢字",
    "😀",
    "Straße",
    "K",
    "\u{212A}",
    "İ",
    "ı",
    "NULL",
    "zz\n",
    "a\u{1}b",
    "$1",
    "{a,b}",
    "--x",
    "xyzzy",
];
const UUIDS: &[&str] = &[
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "6b1f3c1e-8a5b-4c8e-9a52-0f4f8f6f1b7d",
    "6B1F3C1E8A5B4C8E9A520F4F8F6F1B7E",
    "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
];
const DATES: &[&str] = &[
    "2026-11-21",
    "2000-02-29",
    "1999-12-31",
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "4714-11-24 BC",
    "5874897-12-31",
    "10000-01-01",
];
const TIMES: &[&str] = &["00:00:00", "24:00:00", "01:02:03.123456", "13:30", "23:59:59.999999", "12:00:00.5"];
const TIMETZS: &[&str] =
    &["00:00:00+00", "24:00:00-15:59:59", "12:00:00+05:30", "06:30:00+00", "13:30-03", "01:02:03.5+15:59"];
const TIMESTAMPS: &[&str] = &[
    "2026-11-21 01:02:03.123456",
    "2026-11-21T01:02:03",
    "2000-01-01",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "4714-11-24 00:00:00 BC",
    "1999-12-31 24:00",
];
const TIMESTAMPTZS: &[&str] = &[
    "2026-11-21 01:02:03.123456+00",
    "2026-11-21T03:02:03.123456+02:00",
    "2000-01-01 00:00:00Z",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00-08 BC",
    "294276-12-31 23:59:59.999999+00",
    "2026-11-20 20:02:03.123456-05:00:00",
];
const INTERVALS: &[&str] = &[
    "1 month",
    "30 days",
    "720:00:00",
    "-1 days",
    "1 year 2 mons -3 days +04:05:06.789",
    "00:00:00",
    "1 week",
    "90 mins",
    "-1.5 seconds",
    "2147483647 days",
    "-178000000 years",
    "2147483647:00:54.775807",
    "1 day -24:00:00",
    "36 hours",
];
const MOODS: &[&str] = &["sad", "ok", "happy", "it's", "Z"];
const INETS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.1/8",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "0.0.0.0/0",
    "255.255.255.255",
    "::1",
    "::/0",
    "fe80::1/64",
    "::ffff:1.2.3.4",
    "10.128.0.0/9",
    "2001:db8::/32",
];
const CIDRS: &[&str] =
    &["10.0.0.0/8", "10.0.0.0/16", "0.0.0.0/0", "192.168.1.1/32", "::/0", "2001:db8::/32", "10.1.2.3"];
const JSONS: &[&str] = &[
    "null",
    "true",
    "1",
    "1.0",
    "1.50",
    "\"a\"",
    "\"1\"",
    "[]",
    "{}",
    "[1, 2, [3, null]]",
    "[1, 1, \"a\", true, null]",
    "{\"a\": 1, \"b\": {\"c\": [1, {\"d\": \"x\"}]}}",
    "{\"a\": null}",
    "{\"a\": \"x\", \"bb\": \"it's\"}",
    "{\"a\": \"1\", \"c\": 12345678901234567890.5}",
    "{\"a\": [1, 2]}",
    "{\"a\": {}, \"A\": \"É\\n\\\"\"}",
    "{\"a\": 1.0}",
    "[[1, 2], [3]]",
    "[{\"a\": 1}, {\"b\": 2, \"c\": 3}]",
    "-0",
    "1e3",
    "{\"b\": {\"c\": [1]}}",
    "[null]",
    "[\"a\", [\"a\"]]",
];
const ARRAYS_INT: &[&str] =
    &["{}", "{1}", "{1,2,3}", "{NULL}", "{1,NULL,5}", "{{1,2},{3,42}}", "[5:6]={7,-1}", "{0,0}"];
const ARRAYS_TEXT: &[&str] = &[
    "{}",
    "{a}",
    "{a,b,\"it's\"}",
    "{NULL,a}",
    "{\"NULL\",\"\"}",
    "{\"a b \",\"back\\\\slash\",\"\\\"q\\\"\"}",
    "{{é,漢字},{abc,\"{a,b}\"}}",
];

const fn column(
    name: &'static str,
    declared: &'static str,
    cast: &'static str,
    kind: Kind,
    pool: &'static [&'static str],
) -> TestColumn {
    TestColumn { name, declared, cast, kind, pool }
}

pub(crate) const COLUMNS: &[TestColumn] = &[
    column("b", "bool", "bool", Kind::Bool, &["t", "f", "true", "NO", "1", "of", "yes"]),
    column("b2", "bool", "boolean", Kind::Bool, &["t", "f"]),
    column("i2", "int2", "int2", Kind::Number, INTS),
    column("i4", "int4", "int", Kind::Number, INTS),
    column("i8", "int8", "bigint", Kind::Number, BIG_INTS),
    column("o", "oid", "oid", Kind::Number, &["0", "1", "4294967295", "42"]),
    column("f4", "float4", "real", Kind::Number, FLOATS),
    column("f8", "float8", "float8", Kind::Number, FLOATS),
    column("n", "numeric", "numeric", Kind::Number, NUMERICS),
    column(
        "n2",
        "numeric(12,2)",
        "numeric",
        Kind::Number,
        &["0", "1.10", "-1.1", "42", "NaN", "99999999.99"],
    ),
    column("dom", "whole", "int", Kind::Number, &["0", "1", "42"]),
    column("tc", "text COLLATE \"C\"", "text", Kind::Text, TEXTS),
    column("vc", "varchar(10) COLLATE \"C\"", "varchar", Kind::Text, TEXTS),
    column("tp", "text COLLATE ucs_basic", "text", Kind::Text, TEXTS),
    column("td", "text", "text", Kind::Text, TEXTS),
    column("bp", "char(8) COLLATE \"C\"", "bpchar", Kind::Text, TEXTS),
    column("nm", "name", "name", Kind::Text, TEXTS),
    column("ch", "\"char\"", "\"char\"", Kind::Plain, &["", "a", "Z", " ", "\\", "é"]),
    column("word", "word", "text", Kind::Text, TEXTS),
    column("u", "uuid", "uuid", Kind::Plain, UUIDS),
    column(
        "by",
        "bytea",
        "bytea",
        Kind::Plain,
        &["\\x", "\\x00", "\\x00ff", "\\xDEADbeef", "\\x5c", "\\x0000"],
    ),
    column("d", "date", "date", Kind::Plain, DATES),
    column("ti", "time", "time", Kind::Plain, TIMES),
    column("tz", "timetz", "timetz", Kind::Plain, TIMETZS),
    column("ts", "timestamp", "timestamp", Kind::Plain, TIMESTAMPS),
    column("tstz", "timestamptz", "timestamptz", Kind::Plain, TIMESTAMPTZS),
    column("iv", "interval", "interval", Kind::Plain, INTERVALS),
    column("mood", "mood", "mood", Kind::Plain, MOODS),
    column("ip", "inet", "inet", Kind::Plain, INETS),
    column("ci", "cidr", "cidr", Kind::Plain, CIDRS),
    column("j", "jsonb", "jsonb", Kind::Json, JSONS),
    column("jn", "jsonb NOT NULL", "jsonb", Kind::Json, JSONS),
    column("a_i", "int4[]", "int4[]", Kind::Array, ARRAYS_INT),
    column("a_i8", "int8[]", "int8[]", Kind::Array, ARRAYS_INT),
    column("a_t", "text[]", "text[]", Kind::Array, ARRAYS_TEXT),
    column("a_bp", "char(3)[]", "bpchar[]", Kind::Array, &["{}", "{a,NULL,abc}", "{\"\"}", "{b}"]),
    column("a_f", "float4[]", "float4[]", Kind::Array, &["{0.1,NaN,-0}", "{1}", "{NULL,Infinity}", "{}"]),
    column("a_n", "numeric[]", "numeric[]", Kind::Array, &["{0.10,NaN,-0}", "{1.0}", "{NULL,1e20}", "{}"]),
    column("a_m", "mood[]", "mood[]", Kind::Array, &["{sad,ok}", "{}", "{happy,NULL}", "{\"it's\"}"]),
    column(
        "a_ts",
        "timestamptz[]",
        "timestamptz[]",
        Kind::Array,
        &["{2026-11-21 01:02:03.123456+00,infinity}", "{}"],
    ),
    column("Odd \"name\"", "int4", "int4", Kind::Number, INTS),
];

/// Creates the types and the table `t`, and fills it.
pub(crate) async fn create(session: &TestSession, rows: usize, seed: u64) {
    session
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('happy', 'sad', 'it''s', 'Z'); ALTER TYPE mood ADD VALUE 'ok' BEFORE 'sad';
             CREATE DOMAIN whole AS int CHECK (VALUE >= 0); CREATE DOMAIN word AS text COLLATE \"C\";",
        )
        .await
        .expect("the server takes it");
    let declared: Vec<String> =
        COLUMNS.iter().map(|column| format!("{} {}", quoted_name(column.name), column.declared)).collect();
    session
        .batch_execute(&format!("CREATE TABLE t (id int PRIMARY KEY, {})", declared.join(", ")))
        .await
        .expect("the server takes it");
    let mut random = StdRng::seed_from_u64(seed);
    for id in 0..rows {
        let values: Vec<String> = COLUMNS
            .iter()
            .map(|column| {
                let null = random.random_ratio(1, 7) && !column.declared.ends_with("NOT NULL");
                let value = column.pool.choose(&mut random).expect("a value");
                let value: String =
                    if column.name == "vc" { value.chars().take(10).collect() } else { (*value).into() };
                let value = if column.name == "bp" { value.chars().take(8).collect() } else { value };
                if null { "NULL".to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
            })
            .collect();
        let insert = format!("INSERT INTO t VALUES ({id}, {})", values.join(", "));
        session.batch_execute(&insert).await.unwrap_or_else(|error| panic!("{insert}: {error:?}"));
    }
}

pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// All rows as the feed carries them.
pub(crate) async fn rows(session: &TestSession, table: &str) -> Vec<String> {
    session
        .batch_execute("SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'")
        .await
        .expect("the server takes it");
    // As bytes: before Postgres 16 a "char" can be half a character. The feed has U+FFFD for it.
    let query = format!("SELECT textsend(to_jsonb(t)::text) FROM {table} t ORDER BY id");
    let rows = session.query(&query, &[]).await.expect("the server takes it");
    rows.iter().map(|row| String::from_utf8_lossy(row.get(0)).into_owned()).collect()
}

/// What conditions give, each for all rows in their order; an error's text when Postgres refuses one of them.
pub(crate) async fn answers(
    session: &TestSession,
    conditions: &[&str],
) -> Result<Vec<Vec<Option<bool>>>, String> {
    let columns: Vec<String> = conditions.iter().map(|condition| format!("({condition})")).collect();
    let query = format!("SELECT {} FROM t ORDER BY id", columns.join(", "));
    let messages = session.simple_query(&query).await.map_err(|error| format!("{error:?}"))?;
    let mut answers = vec![Vec::new(); conditions.len()];
    for message in &messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        for (index, answers) in answers.iter_mut().enumerate() {
            answers.push(row.get(index).map(|answer| answer == "t"));
        }
    }
    Ok(answers)
}

/// The table as walcast knows it.
pub(crate) async fn schema(session: &TestSession, table: &str) -> Schema {
    let attributes =
        "SELECT a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attnotnull, c.oid
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relname = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = session.query(attributes, &[&table]).await.expect("the server takes it");
    let table_oid: u32 = rows[0].get(4);
    let columns = rows.iter().map(|row| Column {
        name: row.get(0),
        type_name: row.get(2),
        type_oid: Oid::new(row.get(1)),
        key: row.get::<_, String>(0) == "id",
        nullable: !row.get::<_, bool>(3),
    });
    let name = RelationName::new("public", table);
    let relation = Relation::new(Oid::new(table_oid), name, ReplicaIdentity::Default, columns.collect());
    with_facts(session, Schema::builder(Arc::new(relation)), table_oid).await.build()
}

async fn with_facts(session: &TestSession, mut builder: SchemaBuilder, table: u32) -> SchemaBuilder {
    let first = |text: String| text.chars().next().unwrap_or('c');
    let row = session.query_one(facts::DATABASE, &[]).await.expect("the server takes it");
    let default = Collation::classify(first(row.get(0)), row.get(1), row.get(2), true);
    builder = builder.with_database(default, row.get(3));
    for row in session.query(facts::COLLATIONS, &[&table]).await.expect("the server takes it") {
        let provider = first(row.get(1));
        let collation = match provider {
            'd' => default,
            _ => Collation::classify(provider, row.get(2), row.get(3), row.get(4)),
        };
        builder = builder.with_collation(row.get::<_, String>(0), collation);
    }
    for row in session.query(facts::TYPES, &[&table]).await.expect("the server takes it") {
        let inner = Oid::new(row.get(2));
        let fact = match row.get::<_, &str>(1) {
            "e" => TypeFact::Enum { name: row.get(3), labels: row.get(4) },
            "d" => TypeFact::Domain { base: inner },
            "a" => TypeFact::Array { element: inner },
            _ => TypeFact::Composite,
        };
        builder = builder.with_type(Oid::new(row.get(0)), fact);
    }
    builder
}
