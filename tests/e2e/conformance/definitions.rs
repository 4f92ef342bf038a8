//! Cases 33 to 36: rows with the columns of their time, live and later, where definitions change between and inside
//! transactions.

use std::collections::HashMap;

use walcast_model::{Cursor, Lsn, Seq};
use walcast_testkit::for_each_version;

use super::trial::{Case, Trial};
use super::witness::{Told, Witness};

const CASES: &[Case] = &[
    Case {
        number: "33",
        steps: &[
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD w numeric DEFAULT 1.50",
            "INSERT INTO t VALUES (2, 'b')",
            "ALTER TABLE t DROP v",
            "INSERT INTO t VALUES (3, 2.0)",
            "ALTER TABLE t RENAME w TO x",
            "INSERT INTO t VALUES (4, 3.0)",
            "ALTER TABLE t ALTER x TYPE text",
            "INSERT INTO t VALUES (5, '4.0')",
            // These make Postgres send the definition again, and it is the same.
            "ANALYZE t",
            "VACUUM t",
            "CREATE INDEX ON t (x)",
            "DELETE FROM t WHERE id < 5",
        ],
        told: &[
            "relation public.t: id integer key, v text",
            r#"insert public.t key {"id":1} row {"id":1,"v":"a"}"#,
            "commit",
            "relation public.t: id integer key, v text, w numeric",
            r#"insert public.t key {"id":2} row {"id":2,"v":"b","w":1.50}"#,
            "commit",
            "relation public.t: id integer key, w numeric",
            r#"insert public.t key {"id":3} row {"id":3,"w":2.0}"#,
            "commit",
            "relation public.t: id integer key, x numeric",
            r#"insert public.t key {"id":4} row {"id":4,"x":3.0}"#,
            "commit",
            "relation public.t: id integer key, x text",
            r#"insert public.t key {"id":5} row {"id":5,"x":"4.0"}"#,
            "commit",
            r#"delete public.t key {"id":1}"#,
            r#"delete public.t key {"id":2}"#,
            r#"delete public.t key {"id":3}"#,
            r#"delete public.t key {"id":4}"#,
            "commit",
        ],
    },
    Case {
        number: "34",
        steps: &["BEGIN; CREATE TABLE inside (id int PRIMARY KEY); INSERT INTO inside VALUES (1);
                  ALTER TABLE inside ADD v text; INSERT INTO inside VALUES (2, 'b'); COMMIT"],
        told: &[
            "relation public.inside: id integer key",
            r#"insert public.inside key {"id":1} row {"id":1}"#,
            "relation public.inside: id integer key, v text",
            r#"insert public.inside key {"id":2} row {"id":2,"v":"b"}"#,
            "commit",
        ],
    },
    Case {
        number: "35",
        steps: &[
            "INSERT INTO t VALUES (6, 'a'); ALTER TABLE t RENAME TO renamed; INSERT INTO renamed VALUES (7, 'b')",
            "ALTER TABLE renamed SET SCHEMA elsewhere; INSERT INTO elsewhere.renamed VALUES (8, 'c');
             DROP TABLE elsewhere.renamed",
        ],
        told: &[
            "relation public.renamed: id integer key, x text",
            r#"insert public.t key {"id":6} row {"id":6,"x":"a"}"#,
            r#"insert public.renamed key {"id":7} row {"id":7,"x":"b"}"#,
            "commit",
            "relation elsewhere.renamed: id integer key, x text",
            r#"insert elsewhere.renamed key {"id":8} row {"id":8,"x":"c"}"#,
            "commit",
        ],
    },
    Case {
        number: "36",
        steps: &[
            "CREATE TABLE t (k text PRIMARY KEY); INSERT INTO t VALUES ('k')",
            "DROP TABLE t; CREATE TABLE t (id int, v bool PRIMARY KEY); INSERT INTO t VALUES (1, true)",
            "DELETE FROM t",
        ],
        told: &[
            "relation public.t: k text key",
            r#"insert public.t key {"k":"k"} row {"k":"k"}"#,
            "commit",
            "relation public.t: id integer, v boolean key",
            r#"insert public.t key {"v":true} row {"id":1,"v":true}"#,
            "commit",
            r#"delete public.t key {"v":true}"#,
            "commit",
        ],
    },
];

#[tokio::test]
async fn case_33_to_36_definitions_of_their_time_live_in_history_and_in_catch_up() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SCHEMA elsewhere";
        let mut trial = Trial::with(cluster, setup, |builder| builder.arg("--all-tables")).await;
        trial.run(CASES).await;
        trial.finish().await;
    })
    .await;
}

/// Case 36 where walcast has to add the new table to its publication first.
#[tokio::test]
async fn case_36_a_table_made_again_under_its_name_is_picked_up_as_another() {
    for_each_version(async |cluster| {
        let flags = |builder: walcast_testkit::DaemonBuilder| builder.flag("--discover-interval", "100ms");
        let mut trial = Trial::with(cluster, "CREATE TABLE t (id int PRIMARY KEY, v text)", flags).await;
        trial
            .run(&[Case {
                number: "36",
                steps: &[
                    "INSERT INTO t VALUES (1, 'a')",
                    "DROP TABLE t; CREATE TABLE t (v int, k text PRIMARY KEY); INSERT INTO t VALUES (1, 'k')",
                    "until SELECT count(*) = 1 FROM pg_publication_tables WHERE tablename = 't'",
                    "UPDATE t SET v = 2",
                ],
                told: &[
                    "relation public.t: id integer key, v text",
                    r#"insert public.t key {"id":1} row {"id":1,"v":"a"}"#,
                    "commit",
                    "relation public.t: v integer, k text key",
                    r#"insert public.t key {"k":"k"} row {"v":1,"k":"k"}"#,
                    "commit",
                    r#"update public.t key {"k":"k"} row {"v":2,"k":"k"}"#,
                    "commit",
                ],
            }])
            .await;
        trial.finish().await;
    })
    .await;
}

/// Every way in which a definition changes, between rows and inside of transactions.
const CHANGING: &[&str] = &[
    "INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'a')",
    "ALTER TABLE t ADD w numeric DEFAULT 1.50; INSERT INTO t VALUES (2, 'b')",
    "BEGIN; INSERT INTO t VALUES (3, 'c'); ALTER TABLE t DROP v; INSERT INTO t VALUES (4); INSERT INTO u VALUES (2, 'b');
     ALTER TABLE t RENAME w TO x; INSERT INTO t VALUES (5, 2); COMMIT",
    "ALTER TABLE t ALTER x TYPE text; UPDATE t SET x = 'y' WHERE id = 5",
    "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET x = 'z' WHERE id = 5; DELETE FROM t WHERE id = 1",
    "BEGIN; UPDATE t SET x = 'full' WHERE id = 2; ALTER TABLE t REPLICA IDENTITY DEFAULT; DELETE FROM t WHERE id = 2; COMMIT",
    "ALTER TABLE t ADD code text NOT NULL DEFAULT 'k'; CREATE UNIQUE INDEX t_code ON t (id, code);
     ALTER TABLE t REPLICA IDENTITY USING INDEX t_code; UPDATE t SET code = 'l' WHERE id = 5",
    // Two tables change names, and change them back before the first is written to under the other.
    "BEGIN; ALTER TABLE t RENAME TO aside; ALTER TABLE u RENAME TO t; ALTER TABLE aside RENAME TO u; COMMIT",
    "INSERT INTO t VALUES (10, 'of u')",
    "BEGIN; ALTER TABLE t RENAME TO aside; ALTER TABLE u RENAME TO t; ALTER TABLE aside RENAME TO u; COMMIT",
    "INSERT INTO t VALUES (11, 'of t', 'm'); INSERT INTO u VALUES (11, 'of u')",
    "DROP TABLE u; CREATE TABLE u (id int, v text, k bigint PRIMARY KEY); INSERT INTO u VALUES (1, 'new', 1)",
    "ALTER TABLE t SET SCHEMA elsewhere; INSERT INTO elsewhere.t VALUES (12, 'moved', 'n')",
    "TRUNCATE elsewhere.t, u",
];

/// Each change with the definition that was told last of its table; `None` for the end of a transaction. A definition
/// that is told again, or of which no change follows, is one too many.
fn in_force(log: &[Told]) -> Vec<(Lsn, String, Option<String>)> {
    let mut told: HashMap<String, (String, bool)> = HashMap::new();
    let mut changes = Vec::new();
    for entry in log {
        match entry {
            Told::Relation(text) => {
                let table = text.split_once(": ").expect("a table").0.to_owned();
                if let Some((before, used)) = told.insert(table, (text.clone(), false)) {
                    assert!(used && before != *text, "{before:?}, then {text:?}");
                }
            }
            Told::Change { lsn, text, .. } => {
                let table = text.split(' ').nth(1).expect("a table");
                let (definition, used) =
                    told.get_mut(table).unwrap_or_else(|| panic!("{text}: of a table that was not told"));
                *used = true;
                changes.push((*lsn, text.clone(), Some(definition.clone())));
            }
            Told::Commit { lsn, cursor } => changes.push((*lsn, cursor.to_string(), None)),
            Told::Row(row) => panic!("{row}: a row of an initial sync"),
        }
    }
    assert!(told.values().all(|(_, used)| *used), "{told:?}");
    changes
}

/// Cursors before each change and after each transaction, with how much of the log is behind them.
fn cursors(start: Cursor, log: &[Told]) -> Vec<(Cursor, usize)> {
    let events = log.iter().filter(|told| !matches!(told, Told::Relation(_)));
    let place = |(index, told): (usize, &Told)| match told {
        Told::Change { lsn, seq, .. } => Some((Cursor::new(*lsn, Seq::new(*seq)), index)),
        Told::Commit { cursor, .. } => Some((*cursor, index + 1)),
        Told::Relation(_) | Told::Row(_) => None,
    };
    [(start, 0)].into_iter().chain(events.enumerate().filter_map(place)).collect()
}

#[tokio::test]
async fn definitions_come_alike_in_live_and_in_catch_up_at_every_cursor() {
    for_each_version(async |cluster| {
        let setup =
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text);
                     CREATE SCHEMA elsewhere";
        let flags = |builder: walcast_testkit::DaemonBuilder| builder.arg("--all-tables");
        let mut trial = Trial::with(cluster, setup, flags).await;
        trial.told(CHANGING).await;
        let log = trial.live.log.clone();
        let live = in_force(&log);
        let (places, end) = (cursors(trial.start, &log), trial.live.cursor);
        assert!(places.len() > 30, "{places:?}");
        // From memory, and from history alone.
        for from in ["memory", "history"] {
            for (cursor, behind) in places.iter().filter(|(cursor, _)| *cursor < end) {
                let mut later = Witness::at(&trial.daemon.ws_url(), &cursor.to_string()).await;
                later.until_at(end).await;
                assert_eq!(in_force(&later.log), live[*behind..], "at {cursor}, from {from}");
            }
            let stored = format!("SELECT position_lsn >= '{}' FROM walcast.feed", end.lsn());
            trial.database.until(&stored, "t").await;
            trial.daemon.terminate().await;
            trial.daemon.restart().await;
        }
        trial.reconnect().await;
        trial.finish().await;
    })
    .await;
}
