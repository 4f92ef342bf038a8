//! Settings of the server, the database and the role, and encodings: none changes what the feed says.

use std::ops::Not;

use walcast_testkit::{TestDatabase, TestSession, cluster_builder, for_each_version, installations};

use super::literals;
use super::told::{assert_rows, fallbacks, judge, printed, rows_of, synced};
use crate::conformance::trial::{Trial, daemon_of};

/// What a setting is in `postgresql.conf`, for the database and for the role.
const ODD: [(&str, [&str; 3]); 15] = [
    ("DateStyle", ["SQL, DMY", "German, YMD", "Postgres, MDY"]),
    ("IntervalStyle", ["sql_standard", "iso_8601", "postgres_verbose"]),
    ("TimeZone", ["Asia/Kathmandu", "America/St_Johns", "<-00:30>+00:30"]),
    ("bytea_output", ["escape", "escape", "escape"]),
    ("extra_float_digits", ["-15", "0", "-3"]),
    ("client_encoding", ["LATIN1", "WIN1252", "SQL_ASCII"]),
    ("lc_monetary", ["POSIX", "C", "POSIX"]),
    ("xmlbinary", ["hex", "base64", "hex"]),
    ("xmloption", ["document", "content", "document"]),
    ("array_nulls", ["off", "off", "off"]),
    ("search_path", ["nowhere", "s", "nowhere, public"]),
    ("quote_all_identifiers", ["on", "on", "on"]),
    ("standard_conforming_strings", ["off", "off", "off"]),
    ("default_text_search_config", ["simple", "german", "simple"]),
    ("default_transaction_isolation", ["repeatable read", "serializable", "serializable"]),
];

/// A table with a column of every built-in type of which there are values, and the rows that hold them.
async fn every_type(session: &TestSession) -> (String, Vec<String>) {
    let rows = session
        .query(
            "SELECT typname::text FROM pg_type
             WHERE oid < 10000 AND typtype IN ('b', 'r', 'm')
               AND NOT (typcategory = 'A' AND typsubscript = 'array_subscript_handler'::regproc
                        AND typname NOT IN ('int2vector', 'oidvector'))
             ORDER BY oid",
            &[],
        )
        .await
        .expect("types");
    let types = rows.iter().map(|row| row.get::<_, String>(0));
    let types: Vec<(String, Vec<String>)> = types
        .filter(|name| !literals::WITHOUT_VALUES.contains(&name.as_str()))
        .map(|name| {
            let mut literals = literals::of(&name);
            // The client of these tests cannot read numbers that no float holds; that they come right is shown elsewhere.
            literals.retain(|text| {
                text.contains("nf") || text.parse().is_ok_and(|number: f64| number.abs() > 1e300).not()
            });
            (name, literals)
        })
        .collect();
    assert!(types.len() > 75, "{} types", types.len());
    let columns = types.iter().map(|(name, _)| format!("\"c {name}\" pg_catalog.\"{name}\""));
    let table =
        format!("CREATE TABLE public.every (id int PRIMARY KEY, {})", columns.collect::<Vec<_>>().join(", "));
    let longest = types.iter().map(|(_, literals)| literals.len()).max().unwrap_or(0);
    let rows = (0..longest).map(|row| {
        let values = types.iter().map(|(name, literals)| match literals.get(row) {
            None => "NULL".to_owned(),
            Some(literal) => match literal.strip_prefix("sql:") {
                Some(expression) => format!("({expression})::pg_catalog.\"{name}\""),
                None => format!("'{}'", literal.replace('\'', "''")),
            },
        });
        format!("INSERT INTO public.every VALUES ({row}, {})", values.collect::<Vec<_>>().join(", "))
    });
    (table, rows.collect())
}

#[tokio::test]
async fn settings_of_server_database_and_role_change_no_value_of_any_type_live_in_history_or_in_an_initial_sync()
 {
    for installation in installations() {
        let mut builder = cluster_builder(&installation);
        for (name, [server, ..]) in ODD {
            builder = builder.setting(name, server);
        }
        let cluster = builder.start().await.unwrap();
        let database = TestDatabase::create(&cluster).await;
        // Under the ordinary settings, which are set by hand here: what is written is not what is tested.
        let writer = judge(database.url()).await;
        let ordinary = "SET array_nulls = on; SET standard_conforming_strings = on; SET xmloption = content;
                        CREATE SCHEMA s; SET search_path = s, public";
        writer.batch_execute(ordinary).await.unwrap();
        writer.batch_execute(literals::SETUP).await.unwrap();
        writer.batch_execute("CREATE TABLE public.mark (n int PRIMARY KEY)").await.unwrap();
        let (table, rows) = every_type(&writer).await;
        writer.batch_execute(&table).await.unwrap();
        for (name, [_, of_database, of_role]) in ODD {
            let quoted = |value: &str| match name {
                "search_path" => value.to_owned(),
                _ => format!("'{value}'"),
            };
            writer
                .batch_execute(&format!(
                    "ALTER DATABASE {} SET {name} = {}; ALTER ROLE CURRENT_USER SET {name} = {}",
                    database.name(),
                    quoted(of_database),
                    quoted(of_role)
                ))
                .await
                .unwrap();
        }
        let daemon = daemon_of(&database).start().await;
        let mut trial = Trial::of(database, daemon).await;
        for row in &rows {
            writer.batch_execute(row).await.unwrap_or_else(|error| panic!("{row}: {error:?}"));
        }
        trial.mark().await;
        let server = judge(trial.database.url()).await;
        let now = printed(&server, "public.every").await;
        assert!(now.len() > 15);
        assert_rows(&rows_of(&trial.live.log, "public.every"), &now, "live");
        assert_eq!(fallbacks(&trial).await, 0);
        trial.finish().await;
        let is_of = |row: &str| row.contains(r#""c bool""#);
        assert_rows(&synced(&trial.daemon.ws_url(), is_of).await, &now, "the initial sync");
    }
}

#[tokio::test]
async fn a_latin1_database_with_latin1_names_is_told_in_utf8() {
    for_each_version(async |cluster| {
        let options = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
        let database = TestDatabase::create_as(cluster, options).await;
        let writer = judge(database.url()).await;
        writer
            .batch_execute(
                "CREATE TYPE public.\"Stück\" AS ENUM ('groß', 'ÿ'); CREATE TYPE public.paar AS (\"ä\" text, b public.\"Stück\"[]);
                 CREATE TABLE public.\"tä\" (id int PRIMARY KEY, \"ü\" text, e public.\"Stück\", p public.paar, j json)",
            )
            .await
            .unwrap();
        let daemon = daemon_of(&database).start().await;
        let mut live = crate::conformance::witness::Witness::at(&daemon.ws_url(), "latest").await;
        live.until("caught_up").await;
        writer
            .batch_execute(
                "INSERT INTO public.\"tä\"
                 SELECT n, convert_from(set_byte('\\x00', 0, n), 'LATIN1'), CASE n % 2 WHEN 0 THEN 'groß' ELSE 'ÿ' END::public.\"Stück\",
                        ROW(convert_from(set_byte('\\x00', 0, n), 'LATIN1'), '{ÿ,groß}')::public.paar,
                        json_build_object(convert_from(set_byte('\\x00', 0, n), 'LATIN1'), 'é')
                 FROM generate_series(1, 255) AS n",
            )
            .await
            .unwrap();
        live.until("transaction").await;
        let now = printed(&judge(database.url()).await, "public.\"tä\"").await;
        assert!(now[227].contains(r#""ü":"ä""#), "{}", now[227]);
        assert_rows(&rows_of(&live.log, "public.tä"), &now, "live");
        let history = "SELECT row FROM walcast.change_history WHERE table_name = 'tä' ORDER BY lsn, seq";
        walcast_testkit::eventually("the history", walcast_testkit::LIMIT, async || {
            let rows = writer.query(history, &[]).await.unwrap();
            let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            (rows == now).then_some(())
        })
        .await;
        assert_rows(&synced(&daemon.ws_url(), |row| row.contains("ü")).await, &now, "the initial sync");
        assert_eq!(daemon.metric("walcast_replication_value_fallbacks_total").await.unwrap_or(0.0), 0.0);
        drop(daemon);
        database.close().await;
    })
    .await;
}

/// What to_jsonb prints of such values is no JSON; the feed has them with U+FFFD, and says how many there are.
#[tokio::test]
async fn values_without_an_encoding_are_counted_where_they_are_not_utf8() {
    for_each_version(async |cluster| {
        let options = "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0";
        let database = TestDatabase::create_as(cluster, options).await;
        let writer = database.session().await;
        writer.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text, a text[])").await.unwrap();
        let daemon = daemon_of(&database).start().await;
        let mut live = crate::conformance::witness::Witness::at(&daemon.ws_url(), "latest").await;
        live.until("caught_up").await;
        let insert = r"INSERT INTO t VALUES (1, 'plain', '{x}'), (2, convert_from('\xc3a4', 'SQL_ASCII'), NULL),
                       (3, convert_from('\x61e462', 'SQL_ASCII'), ARRAY[convert_from('\xff', 'SQL_ASCII')])";
        writer.batch_execute(insert).await.unwrap();
        live.until("transaction").await;
        let expected = [
            r#"{"id":1,"v":"plain","a":["x"]}"#,
            r#"{"id":2,"v":"ä","a":null}"#,
            "{\"id\":3,\"v\":\"a\u{FFFD}b\",\"a\":[\"\u{FFFD}\"]}",
        ];
        assert_rows(&rows_of(&live.log, "public.t"), &expected.map(str::to_owned), "live");
        assert_eq!(daemon.metric("walcast_replication_value_fallbacks_total").await, Some(2.0));
        assert!(daemon.log().iter().any(|line| line.contains("U+FFFD")), "{:#?}", daemon.log());
        drop(daemon);
        database.close().await;
    })
    .await;
}
