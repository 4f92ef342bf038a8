//! What a client could try to get into the SQL that is generated, sent to a real server.

use walcast_filter::{Filter, Schema};
use walcast_testkit::{TestDatabase, TestSession, shared_cluster};

use super::table;

const SETTINGS: [&str; 2] = ["SET standard_conforming_strings = on", "SET standard_conforming_strings = off"];

/// The ids that a generated condition selects.
async fn ids(session: &TestSession, sql: &str) -> Vec<i32> {
    let query = format!("SELECT id FROM odd WHERE {sql} ORDER BY id");
    let rows = session.query(&query, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

async fn attempt(session: &TestSession, schema: &Schema, column: &str, text: &str, id: i32) {
    let filter = format!("\"{}\" = '{}'", column.replace('"', "\"\""), text.replace('\'', "''"));
    let predicate = Filter::parse(&filter).and_then(|filter| filter.bind(schema)).expect(&filter);
    for settings in SETTINGS {
        session.batch_execute(settings).await.expect("settings");
        assert_eq!(ids(session, &predicate.to_sql()).await, [id], "{settings}: {}", predicate.to_sql());
    }
}

#[tokio::test]
async fn no_literal_and_no_name_gets_out_of_its_quotes() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let session = database.session().await;
    let texts = [
        "plain",
        "it's",
        "'",
        "''",
        "\\",
        "\\'",
        "\\''; DROP TABLE odd; --",
        "' OR TRUE --",
        "\\u0027 OR TRUE",
        "\u{2019} OR TRUE",
        "\u{FF07}",
        "U&'\\0027'",
        "$$ $x$",
        "/* */ -- ;",
        "\"quoted\"",
        "a\\\\b\\n",
        "line\nend\r\t",
        "%_\\%",
        "{a,b}",
        "$1",
        "?",
    ];
    let names = ["it's \\ \"q\"", "select", "Ünï; --", "a.b"];
    let columns: Vec<String> =
        names.iter().map(|name| format!("{} text COLLATE \"C\"", table::quoted_name(name))).collect();
    let create =
        format!("CREATE TABLE odd (id int PRIMARY KEY, {}, tags text[], j jsonb)", columns.join(", "));
    session.batch_execute(&create).await.unwrap();
    for (id, text) in (0_i32..).zip(texts) {
        let values = vec!["$2::text"; names.len()].join(", ");
        let insert = format!(
            "INSERT INTO odd VALUES ($1, {values}, ARRAY[$2::text, 'x'], jsonb_build_object('k', $2::text, $2::text, 1))"
        );
        session.execute(&insert, &[&id, &text]).await.unwrap();
    }
    let schema = table::schema(&session, "odd").await;
    let rows = table::rows(&session, "odd").await;
    for (id, text) in (0_i32..).zip(texts) {
        for name in names {
            attempt(&session, &schema, name, text, id).await;
        }
        let (quoted, json) = (text.replace('\'', "''"), serde_text(text).replace('\'', "''"));
        let element = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "''");
        let pattern = text.replace('!', "!!").replace('%', "!%").replace('_', "!_").replace('\'', "''");
        for filter in [
            format!("'{quoted}' = ANY (tags)"),
            format!("tags @> '{{\"{element}\"}}'"),
            format!("j ->> 'k' = '{quoted}'"),
            format!("j @> '{{\"k\": {json}}}'"),
            format!("j ? '{quoted}'"),
            format!("j ->> '{quoted}' = '1'"),
            format!("\"select\" LIKE '{pattern}' ESCAPE '!'"),
            format!("\"select\" IN ('{quoted}', 'nobody')"),
        ] {
            let predicate = Filter::parse(&filter).and_then(|filter| filter.bind(&schema)).expect(&filter);
            for settings in SETTINGS {
                session.batch_execute(settings).await.expect("settings");
                assert_eq!(
                    ids(&session, &predicate.to_sql()).await,
                    [id],
                    "{filter}: {}",
                    predicate.to_sql()
                );
            }
            let matching: Vec<usize> = (0..rows.len())
                .filter(|row| predicate.evaluate(rows[*row].as_bytes()).matches() == Ok(true))
                .collect();
            assert_eq!(matching, [usize::try_from(id).unwrap()], "{filter}");
        }
    }
}

fn serde_text(text: &str) -> String {
    let mut out = Vec::new();
    walcast_model::json::write_string(&mut out, text);
    String::from_utf8(out).expect("UTF-8")
}
