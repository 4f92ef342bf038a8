//! Case 68: databases whose encoding is another, or none.

use walcast_testkit::{TestDatabase, for_each_version};

use super::trial::daemon_of;
use super::witness::{Told, Witness};

#[tokio::test]
async fn case_68_latin1_is_converted_utf8_is_exact_and_what_has_no_encoding_does_not_stop_the_feed() {
    for_each_version(async |cluster| {
        let cases: [(&str, &[(&str, &str)]); 3] = [
            ("LATIN1", &[(r"convert_from('\xe4df', 'LATIN1')", "äß")]),
            ("UTF8", &[(r"'ä😀'", "ä😀"), (r"U&'\0001'", "\\u0001")]),
            // Bytes that happen to be UTF-8 are what they are; JSON has no place for others.
            (
                "SQL_ASCII",
                &[
                    (r"convert_from('\xc3a4', 'SQL_ASCII')", "ä"),
                    (r"convert_from('\x61e462', 'SQL_ASCII')", "a\u{FFFD}b"),
                ],
            ),
        ];
        for (encoding, values) in cases {
            let options = format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
            let database = TestDatabase::create_as(cluster, &options).await;
            let session = database.session().await;
            session.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await.unwrap();
            let daemon = daemon_of(&database);
            let mut daemon = daemon.start().await;
            let mut live = Witness::at(&daemon.ws_url(), "latest").await;
            live.until("caught_up").await;
            let start = live.cursor;
            let mut expected = Vec::new();
            for (id, (value, text)) in values.iter().enumerate() {
                session.batch_execute(&format!("INSERT INTO t VALUES ({id}, {value})")).await.unwrap();
                expected.push(format!(r#"{{"id":{id},"v":"{text}"}}"#));
                live.until("transaction").await;
            }
            let of = |log: &[Told]| -> Vec<String> {
                log.iter().filter_map(|told| Some(told.line().split_once("row ")?.1.to_owned())).collect()
            };
            assert_eq!(of(&live.log), expected, "{encoding}, live");
            let stored = format!("SELECT position_lsn >= '{}' FROM walcast.feed", live.cursor.lsn());
            database.until(&stored, "t").await;
            daemon.terminate().await;
            daemon.restart().await;
            for (cursor, what) in [(start.to_string(), "catch-up"), ("0/0".to_owned(), "initial sync")] {
                let mut later = Witness::at(&daemon.ws_url(), &cursor).await;
                later.until("caught_up").await;
                assert_eq!(of(&later.log), expected, "{encoding}, {what}");
            }
            daemon.terminate().await;
            database.close().await;
        }
    })
    .await;
}
