//! Cases 1 to 24: rows, identities, out-of-line values, and which transactions there are; 38, 43, 47 to 51 too, with
//! publications that walcast makes.

use super::trial::{Case, Trial};
use walcast_testkit::for_each_version;

const SETUP: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE f (v text, id int PRIMARY KEY, big text);
ALTER TABLE f REPLICA IDENTITY FULL, ALTER big SET STORAGE EXTERNAL;
CREATE TABLE i (id int PRIMARY KEY, v text NOT NULL UNIQUE);
ALTER TABLE i REPLICA IDENTITY USING INDEX i_v_key;
CREATE TABLE k (k text PRIMARY KEY, v int);
ALTER TABLE k ALTER k SET STORAGE EXTERNAL;
CREATE TABLE bare (v text);
CREATE TABLE parent (id serial PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY REFERENCES parent);
CREATE TABLE n (id int PRIMARY KEY, v int);
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 (v text, id int PRIMARY KEY);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
ALTER DATABASE {db} SET logical_decoding_work_mem = '64kB';";

const ROWS: &[Case] = &[
    Case {
        number: "1",
        steps: &["INSERT INTO t VALUES (1, 'x', NULL)"],
        told: &[
            "relation public.t: id integer key, v text, big text",
            r#"insert public.t key {"id":1} row {"id":1,"v":"x","big":null}"#,
            "commit",
        ],
    },
    Case {
        number: "2",
        steps: &["UPDATE t SET v = 'y'"],
        told: &[r#"update public.t key {"id":1} row {"id":1,"v":"y","big":null}"#, "commit"],
    },
    Case {
        number: "3",
        steps: &["UPDATE t SET id = 2"],
        told: &[r#"update public.t key {"id":1} row {"id":2,"v":"y","big":null}"#, "commit"],
    },
    Case {
        number: "4",
        steps: &["UPDATE t SET v = v"],
        told: &[r#"update public.t key {"id":2} row {"id":2,"v":"y","big":null}"#, "commit"],
    },
    Case { number: "5", steps: &["DELETE FROM t"], told: &[r#"delete public.t key {"id":2}"#, "commit"] },
    Case {
        number: "6, 8",
        steps: &["INSERT INTO f VALUES ('x', 1); UPDATE f SET id = 2; DELETE FROM f"],
        told: &[
            "relation public.f: v text, id integer key, big text (full)",
            r#"insert public.f key {"id":1} row {"v":"x","id":1,"big":null}"#,
            r#"update public.f key {"id":1} row {"v":"x","id":2,"big":null} old {"v":"x","id":1,"big":null}"#,
            r#"delete public.f key {"id":2} old {"v":"x","id":2,"big":null}"#,
            "commit",
        ],
    },
    Case {
        number: "7",
        steps: &["INSERT INTO i VALUES (1, 'a'); UPDATE i SET id = 2; UPDATE i SET v = 'b'; DELETE FROM i"],
        told: &[
            "relation public.i: id integer, v text key (index)",
            r#"insert public.i key {"v":"a"} row {"id":1,"v":"a"}"#,
            r#"update public.i key {"v":"a"} row {"id":2,"v":"a"}"#,
            r#"update public.i key {"v":"a"} row {"id":2,"v":"b"}"#,
            r#"delete public.i key {"v":"b"}"#,
            "commit",
        ],
    },
    Case {
        // By default such a table is published for inserts and truncates only, so the application's UPDATE works.
        number: "9",
        steps: &["INSERT INTO bare VALUES ('x'); UPDATE bare SET v = 'y'; DELETE FROM bare; TRUNCATE bare"],
        told: &[r#"insert public.bare row {"v":"x"}"#, "truncate public.bare", "commit"],
    },
    Case {
        number: "14",
        steps: &[
            "INSERT INTO t VALUES (1, NULL, repeat('b', 2500)); TRUNCATE t",
            "INSERT INTO t VALUES (1, NULL, NULL); UPDATE t SET v = ''; UPDATE t SET v = 'NULL'; DELETE FROM t",
        ],
        told: &[
            r#"insert public.t key {"id":1} row {"id":1,"v":null,"big":"{b}"}"#,
            "truncate public.t",
            "commit",
            r#"insert public.t key {"id":1} row {"id":1,"v":null,"big":null}"#,
            r#"update public.t key {"id":1} row {"id":1,"v":"","big":null}"#,
            r#"update public.t key {"id":1} row {"id":1,"v":"NULL","big":null}"#,
            r#"delete public.t key {"id":1}"#,
            "commit",
        ],
    },
    Case {
        number: "10, 12",
        steps: &[
            "INSERT INTO t VALUES (1, 'x', repeat('b', 2500))",
            "UPDATE t SET v = 'y'",
            "UPDATE t SET id = 2",
        ],
        told: &[
            r#"insert public.t key {"id":1} row {"id":1,"v":"x","big":"{b}"}"#,
            "commit",
            r#"update public.t key {"id":1} row {"id":1,"v":"y"} unchanged ["big"]"#,
            "commit",
            r#"update public.t key {"id":1} row {"id":2,"v":"y"} unchanged ["big"]"#,
            "commit",
        ],
    },
    Case {
        number: "11",
        steps: &["INSERT INTO f VALUES ('x', 1, repeat('b', 2500))", "UPDATE f SET v = 'y'"],
        told: &[
            r#"insert public.f key {"id":1} row {"v":"x","id":1,"big":"{b}"}"#,
            "commit",
            r#"update public.f key {"id":1} row {"v":"y","id":1,"big":"{b}"} old {"v":"x","id":1,"big":"{b}"}"#,
            "commit",
        ],
    },
    Case {
        number: "13",
        steps: &["INSERT INTO k VALUES (repeat('b', 2500), 1)", "UPDATE k SET v = 2"],
        told: &[
            r#"insert public.k key {"k":"{b}"} row {"k":"{b}","v":1}"#,
            "commit",
            r#"update public.k key {"k":"{b}"} row {"k":"{b}","v":2}"#,
            "commit",
        ],
    },
    Case {
        number: "15",
        steps: &["COPY n (id) FROM PROGRAM 'seq 1 5'"],
        told: &[
            r#"insert public.n key {"id":1} row {"id":1,"v":null}"#,
            r#"insert public.n key {"id":2} row {"id":2,"v":null}"#,
            r#"insert public.n key {"id":3} row {"id":3,"v":null}"#,
            r#"insert public.n key {"id":4} row {"id":4,"v":null}"#,
            r#"insert public.n key {"id":5} row {"id":5,"v":null}"#,
            "commit",
        ],
    },
    Case {
        number: "16",
        steps: &["INSERT INTO n VALUES (6); TRUNCATE n; INSERT INTO n VALUES (7)"],
        told: &[
            r#"insert public.n key {"id":6} row {"id":6,"v":null}"#,
            "truncate public.n",
            r#"insert public.n key {"id":7} row {"id":7,"v":null}"#,
            "commit",
        ],
    },
    Case {
        number: "17",
        steps: &["TRUNCATE parent CASCADE"],
        told: &["truncate public.parent", "truncate public.child", "commit"],
    },
    Case {
        number: "18",
        steps: &["TRUNCATE parent, n, child RESTART IDENTITY"],
        told: &["truncate public.parent", "truncate public.n", "truncate public.child", "commit"],
    },
];

const TRANSACTIONS: &[Case] = &[
    Case {
        number: "20",
        steps: &["BEGIN; INSERT INTO n VALUES (1); SAVEPOINT s; INSERT INTO n VALUES (2); ROLLBACK TO s;
                  INSERT INTO n VALUES (3); COMMIT"],
        told: &[
            r#"insert public.n key {"id":1} row {"id":1,"v":null}"#,
            r#"insert public.n key {"id":3} row {"id":3,"v":null}"#,
            "commit",
        ],
    },
    Case { number: "21", steps: &["BEGIN; INSERT INTO n VALUES (4); ROLLBACK"], told: &[] },
    Case {
        number: "22",
        steps: &["BEGIN; INSERT INTO n VALUES (5); SAVEPOINT a; INSERT INTO n VALUES (6); SAVEPOINT b;
                  INSERT INTO n VALUES (7); RELEASE a; INSERT INTO n VALUES (8); COMMIT"],
        told: &[
            r#"insert public.n key {"id":5} row {"id":5,"v":null}"#,
            r#"insert public.n key {"id":6} row {"id":6,"v":null}"#,
            r#"insert public.n key {"id":7} row {"id":7,"v":null}"#,
            r#"insert public.n key {"id":8} row {"id":8,"v":null}"#,
            "commit",
        ],
    },
    Case {
        number: "23",
        steps: &[
            "INSERT INTO n VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO n VALUES (1) ON CONFLICT (id) DO UPDATE SET v = 9",
        ],
        told: &[r#"update public.n key {"id":1} row {"id":1,"v":9}"#, "commit"],
    },
    Case {
        number: "24",
        steps: &[
            "BEGIN; INSERT INTO n VALUES (20)",
            "2> BEGIN; INSERT INTO n VALUES (21)",
            "INSERT INTO n VALUES (22)",
            "2> COMMIT",
            "COMMIT",
        ],
        told: &[
            r#"insert public.n key {"id":21} row {"id":21,"v":null}"#,
            "commit",
            r#"insert public.n key {"id":20} row {"id":20,"v":null}"#,
            r#"insert public.n key {"id":22} row {"id":22,"v":null}"#,
            "commit",
        ],
    },
    Case {
        number: "38",
        steps: &["INSERT INTO p VALUES (1, 'a'); UPDATE p SET id = 11; TRUNCATE p"],
        told: &[
            "relation public.p1: id integer key, v text",
            "relation public.p2: v text, id integer key",
            r#"insert public.p1 key {"id":1} row {"id":1,"v":"a"}"#,
            r#"delete public.p1 key {"id":1}"#,
            r#"insert public.p2 key {"id":11} row {"v":"a","id":11}"#,
            "truncate public.p1",
            "truncate public.p2",
            "commit",
        ],
    },
    Case {
        number: "43, not asked for",
        steps: &["INSERT INTO g VALUES (1)"],
        told: &[
            "relation public.g: id integer key",
            r#"insert public.g key {"id":1} row {"id":1}"#,
            "commit",
        ],
    },
    Case {
        number: "47, before the commit",
        steps: &[
            "BEGIN; INSERT INTO n VALUES (30); PREPARE TRANSACTION '{db}_a'",
            "BEGIN; INSERT INTO n VALUES (31); PREPARE TRANSACTION '{db}_b'",
        ],
        told: &[],
    },
    Case {
        number: "47",
        steps: &["ROLLBACK PREPARED '{db}_b'", "COMMIT PREPARED '{db}_a'"],
        told: &[r#"insert public.n key {"id":30} row {"id":30,"v":null}"#, "commit"],
    },
    Case {
        // A client is not told of messages yet; that they change neither rows nor seq nor commits is what shows.
        number: "48, 49, 50",
        steps: &[
            "SELECT pg_logical_emit_message(true, 'app', 'alone')",
            r"BEGIN; SELECT pg_logical_emit_message(true, '', '\x00ff'::bytea); INSERT INTO n VALUES (40);
              SELECT pg_logical_emit_message(true, 'app', 'between'); SAVEPOINT s;
              SELECT pg_logical_emit_message(true, 'app', 'rolled back'); ROLLBACK TO s;
              SELECT pg_logical_emit_message(true, 'walcast.rows', 'forged');
              SELECT pg_logical_emit_message(true, 'walcast.barrier', '\xff'::bytea);
              INSERT INTO n VALUES (41); SELECT pg_logical_emit_message(false, 'app', 'right before the commit'); COMMIT",
            "BEGIN; SELECT pg_logical_emit_message(false, 'app', 'x'); INSERT INTO n VALUES (42); ROLLBACK",
        ],
        told: &[
            r#"insert public.n key {"id":40} row {"id":40,"v":null}"#,
            r#"insert public.n key {"id":41} row {"id":41,"v":null}"#,
            "commit",
        ],
    },
    Case {
        number: "51",
        steps: &["BEGIN; INSERT INTO n VALUES (50); SAVEPOINT s; INSERT INTO n SELECT generate_series(51, 60); RELEASE s;
                  INSERT INTO n SELECT generate_series(61, 3060); ROLLBACK"],
        told: &[],
    },
    Case {
        number: "51, the next one",
        steps: &["INSERT INTO n VALUES (50)"],
        told: &[r#"insert public.n key {"id":50} row {"id":50,"v":null}"#, "commit"],
    },
];

#[tokio::test]
async fn case_1_to_24_38_43_47_to_51_live_in_history_and_in_catch_up() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, SETUP).await;
        trial.run(ROWS).await;
        trial.run(TRANSACTIONS).await;
        trial.finish().await;
        trial.daemon.assert_quiet(&["public.bare", "ignored a walcast.rows message"]);
    })
    .await;
}
