//! Cases 44 to 46: values under settings of the database that print everything differently. That every value of every
//! type is right is shown in [`crate::values`]; here they go the whole way.

use walcast_testkit::{TestSession, for_each_version};

use super::trial::Trial;
use super::witness::{Told, Witness};

const SETUP: &str = r#"
ALTER DATABASE {db} SET DateStyle = 'German';
ALTER DATABASE {db} SET IntervalStyle = 'sql_standard';
ALTER DATABASE {db} SET TimeZone = 'Asia/Tokyo';
ALTER DATABASE {db} SET bytea_output = 'escape';
ALTER DATABASE {db} SET extra_float_digits = -5;
ALTER DATABASE {db} SET search_path = 'nowhere', 'public';
CREATE TYPE mood AS ENUM ('sad', 'o"k', 'NULL');
CREATE DOMAIN grade AS int CHECK (value BETWEEN 0 AND 9);
CREATE TYPE pair AS (a int, "b c" text);
CREATE TABLE v (
    id int PRIMARY KEY, bo bool, by bytea, ts timestamp, tz timestamptz, da date, ti time, tt timetz, iv interval,
    f8 float8, f4 float4, nu numeric, i8 int8, x8 xid8, mo money, js json, jb jsonb, ch char(5), na name, ui uuid,
    ls pg_lsn, rc regclass, ia int[], ta text[], ra int4range, tr tstzrange, mr int4multirange, ip inet, bi bit(3),
    po point, xm xml, tv tsvector, m mood, ms mood[], g grade, p pair, ps pair[]);"#;

/// Unambiguous under any settings.
const ROWS: [&str; 4] = [
    r#"INSERT INTO v VALUES (1, true, '\xdeadbeef', '2026-11-21 01:02:03.123456', '2026-11-21 01:02:03.5+09', '2026-11-21',
       '24:00:00', '01:02:03+05:30', '1 year 2 months -3 days 04:05:06.789', 0.1::float8 + 0.2, 0.1, 1.500,
       9223372036854775807, '18446744073709551615', 1234.5, '{"b": 2, "a": 1, "a": 3}', '{"b": 3, "a": 2}', 'ab', 'Na me',
       'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '16/B374D848', 'public.v', '{1,NULL,3}', '{"a,b","q\"q",NULL,"NULL",""}',
       '[1,5]', '["2026-01-01 00:00+00",)', '{[1,3),[5,7)}', '10.0.0.1/8', '101', '(1.5,-2)', '<a>ü</a>', 'a:1 b:2',
       'o"k', '{sad,"o\"k","NULL",NULL}', 7, '(1,"x ""y"", z")', '{"(1,a)",NULL}')"#,
    r#"INSERT INTO v (id, ts, tz, da, f8, f4, nu, iv, i8, js, ia, ta, ps) VALUES (2, 'infinity', '-infinity', '-infinity',
       'NaN', '-Infinity', 'NaN', '-178000000 years', -9223372036854775808, '"😀\u00e4"', '[-1:0]={1,2}', '{}', '{}')"#,
    r#"INSERT INTO v (id, ts, tz, da, f8, f4, nu) VALUES (3, '0044-03-15 12:00:00 BC', '294276-12-31 23:59:59.999999+00',
       '4713-01-01 BC', '-0', '-0', 'Infinity'), (4, '294276-12-31 23:59:59.999999', '4713-01-01 00:00+00 BC',
       '5874897-12-31', 5e-324, 1e-45, 12345678901234567890123456789012345678.9012345678901234567890)"#,
    "UPDATE v SET m = 'NULL', g = NULL, p = (NULL, '')",
];

/// The rows as the server prints them under walcast's settings.
async fn expected(url: &str) -> Vec<String> {
    let session = TestSession::connect(url).await;
    session
        .batch_execute(
            "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET bytea_output = 'hex';
             SET extra_float_digits = 3; SET search_path = pg_catalog",
        )
        .await
        .expect("settings");
    let columns = "SELECT string_agg(format('%L || coalesce(to_jsonb(%I)::text, ''null'')', '\"' || attname || '\":', attname),
                                     $$ || ',' || $$ ORDER BY attnum)
                   FROM pg_attribute WHERE attrelid = 'public.v'::regclass AND attnum > 0";
    let columns = session.scalar(columns).await.expect("columns");
    let sql = format!("SELECT '{{' || {columns} || '}}' FROM public.v ORDER BY id");
    let rows = session.query(&sql, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn case_44_to_46_hostile_settings_change_no_value_live_in_history_in_catch_up_and_in_an_initial_sync() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, SETUP).await;
        let told = trial.told(&ROWS).await;
        let rows: Vec<String> =
            told.iter().filter_map(|told| Some(told.line().split_once(" row ")?.1.to_owned())).collect();
        let now = expected(trial.database.url()).await;
        assert_eq!(rows.len(), 8);
        assert_eq!(rows[4..], now, "cases 44 to 46");
        // What the update left as it was came right the first time too.
        for (before, after) in rows.iter().zip(&now) {
            let same = |row: &str| row.split_once(r#","m":"#).unwrap().0.to_owned();
            assert_eq!(same(before), same(after));
        }
        let exact = [
            (0, r#""ts":"2026-11-21T01:02:03.123456","tz":"2026-11-20T16:02:03.5+00:00""#),
            (0, r#""by":"\\xdeadbeef""#),
            (0, r#""iv":"1 year 2 mons -3 days +04:05:06.789","f8":0.30000000000000004"#),
            (0, r#""nu":1.500,"i8":9223372036854775807"#),
            (0, r#""ta":["a,b", "q\"q", null, "NULL", ""]"#),
            (1, r#""f8":"NaN","f4":"-Infinity","nu":"NaN""#),
            (2, r#""ts":"0044-03-15T12:00:00 BC""#),
            // What jsonb has of a negative zero; a double of its own keeps its digits.
            (2, r#""f8":0,"f4":0,"nu":"Infinity""#),
            (3, "12345678901234567890123456789012345678.9012345678901234567890"),
            (0, r#""ms":["sad", "o\"k", "NULL", null]"#),
            (0, r#""ps":[{"a": 1, "b c": "a"}, null]"#),
        ];
        for (row, text) in exact {
            assert!(now[row].contains(text), "{text} is not in {}", now[row]);
        }
        // Case 46: a domain is called by its own name, and so is every other type.
        let relation = told.iter().find(|told| matches!(told, Told::Relation(_))).expect("a relation").line();
        for column in
            ["ch character(5)", "m public.mood", "ms public.mood[]", "g public.grade", "p public.pair"]
        {
            assert!(relation.contains(column), "{column} is not in {relation}");
        }
        trial.finish().await;
        let mut sync = Witness::at(&trial.daemon.ws_url(), "0/0").await;
        sync.until("caught_up").await;
        let mut synced: Vec<String> =
            sync.log.iter().filter_map(|told| Some(told.line().strip_prefix("row ")?.to_owned())).collect();
        synced.retain(|row| row.starts_with(r#"{"id""#));
        synced.sort();
        assert_eq!(synced, now, "the initial sync");
        assert!(sync.log.iter().any(|told| told.line() == relation), "the same definition");
    })
    .await;
}
