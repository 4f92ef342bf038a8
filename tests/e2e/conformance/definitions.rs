//! Cases 33 to 36: rows with the columns of their time, live and later, where definitions change between and inside
//! transactions.

use super::trial::{Case, Trial};
use walcast_testkit::for_each_version;

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
