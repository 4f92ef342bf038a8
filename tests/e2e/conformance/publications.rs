//! Cases 19, 37 and 39 to 43: what a publication of the user's own says counts, and what it leaves out is nothing.

use super::trial::{Case, Trial};
use walcast_testkit::for_each_version;

const SETUP: &str = "
CREATE TABLE t (id int PRIMARY KEY, v int);
ALTER TABLE t REPLICA IDENTITY FULL;
CREATE TABLE c (id int PRIMARY KEY, shown int, hidden int);
CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 (gone int, v text, id int PRIMARY KEY);
ALTER TABLE p1 DROP gone;
ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);
CREATE TABLE d (id int NOT NULL, state text NOT NULL, big text, more text);
CREATE UNIQUE INDEX d_identity ON d (id, state);
ALTER TABLE d REPLICA IDENTITY USING INDEX d_identity, ALTER big SET STORAGE EXTERNAL;
CREATE TABLE unpublished (id int PRIMARY KEY);";

const OF_ALL: &[Case] = &[
    Case { number: "37", steps: &["INSERT INTO unpublished SELECT generate_series(1, 1000)"], told: &[] },
    Case {
        // What Postgres does not say of a partition cannot be in the feed: the truncation of p1 alone is not.
        number: "39, 40",
        steps: &[
            "INSERT INTO p VALUES (1, 'a')",
            "TRUNCATE p1",
            "TRUNCATE p",
            "ALTER TABLE p DETACH PARTITION p1",
        ],
        told: &[
            "relation public.p: id integer key, v text",
            r#"insert public.p key {"id":1} row {"id":1,"v":"a"}"#,
            "commit",
            "truncate public.p",
            "commit",
        ],
    },
];

const OF_15: &[Case] = &[Case {
    number: "19, 41",
    steps: &[
        "INSERT INTO t VALUES (1, 5)",
        "UPDATE t SET v = 15",
        "UPDATE t SET v = 20",
        "UPDATE t SET v = 1",
        "TRUNCATE t",
    ],
    told: &[
        r#"insert public.t key {"id":1} row {"id":1,"v":15}"#,
        "commit",
        r#"update public.t key {"id":1} row {"id":1,"v":20} old {"id":1,"v":15}"#,
        "commit",
        r#"delete public.t key {"id":1} old {"id":1,"v":20}"#,
        "commit",
        "truncate public.t",
        "commit",
    ],
}];

const LIST_STEPS: &[&str] = &["INSERT INTO c VALUES (1, 2, 3)", "UPDATE c SET hidden = 4"];
const LIST: Case = Case {
    number: "42",
    steps: LIST_STEPS,
    told: &[
        "relation public.c: id integer key, shown integer",
        r#"insert public.c key {"id":1} row {"id":1,"shown":2}"#,
        "commit",
        r#"update public.c key {"id":1} row {"id":1,"shown":2}"#,
        "commit",
    ],
};
const LIST_WITH_IMAGES: Case = Case {
    number: "42, with last images",
    steps: LIST_STEPS,
    told: &[
        "relation public.c: id integer key, shown integer",
        r#"insert public.c key {"id":1} row {"id":1,"shown":2}"#,
        "commit",
        r#"update public.c key {"id":1} row {"id":1,"shown":2} old {"id":1,"shown":2}"#,
        "commit",
    ],
};

/// An update that enters the filter is sent as an insert, without the large value that it did not write.
const TOAST: Case = Case {
    number: "10, 41",
    steps: &[
        "INSERT INTO d VALUES (1, 'draft', repeat('b', 2500), 'm')",
        "UPDATE d SET state = 'open'",
        "UPDATE d SET more = 'n'",
        "UPDATE d SET state = 'closed', big = repeat('c', 2500)",
        "UPDATE d SET state = 'open'",
    ],
    told: &[
        r#"insert public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","more":"m"} unchanged ["big"]"#,
        "commit",
        r#"update public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","more":"n"} unchanged ["big"]"#,
        "commit",
        r#"delete public.d key {"id":1,"state":"open"}"#,
        "commit",
        r#"insert public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","more":"n"} unchanged ["big"]"#,
        "commit",
    ],
};

const WRITTEN: &[&str] = &["UPDATE d SET big = repeat('b', 2500)", "UPDATE d SET more = 'o'"];
const WRITTEN_TOLD: &str =
    r#"update public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","big":"{b}","more":"n"}"#;
const WRITTEN_LATER: Case = Case {
    number: "10, 41, the value is written",
    steps: WRITTEN,
    told: &[
        WRITTEN_TOLD,
        "commit",
        r#"update public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","more":"o"} unchanged ["big"]"#,
        "commit",
    ],
};
const WRITTEN_LATER_WITH_IMAGES: Case = Case {
    number: "10, 41, the value is written, with last images",
    steps: WRITTEN,
    told: &[
        WRITTEN_TOLD,
        "commit",
        r#"update public.d key {"id":1,"state":"open"} row {"id":1,"state":"open","big":"{b}","more":"o"} old {"id":1,"state":"open","big":"{b}","more":"n"}"#,
        "commit",
    ],
};

const OF_18: &[Case] = &[Case {
    number: "43, asked for",
    steps: &["INSERT INTO g VALUES (1)"],
    told: &[
        "relation public.g: id integer key, twice integer",
        r#"insert public.g key {"id":1} row {"id":1,"twice":2}"#,
        "commit",
    ],
}];

#[tokio::test]
async fn case_19_37_39_to_43_live_in_history_and_in_catch_up() {
    given_publication(&[]).await;
}

#[tokio::test]
async fn case_19_37_39_to_43_with_last_images() {
    given_publication(&["--last-images", "*"]).await;
}

async fn given_publication(flags: &[&str]) {
    for_each_version(async |cluster| {
        let major = cluster.installation().version().major;
        let tables = if major >= 15 { "mark, t WHERE (v > 10), c (id, shown), d WHERE (state = 'open'), g, p" } else { "mark, t, c, g, p" };
        let generated = if major >= 18 { ", publish_generated_columns = stored" } else { "" };
        let setup = format!(
            "{SETUP} CREATE PUBLICATION {{db}} FOR TABLE {tables} WITH (publish_via_partition_root = true{generated})"
        );
        let mut trial = Trial::with(cluster, &setup, |builder| {
            flags.iter().fold(builder.arg("--no-manage"), |builder, flag| builder.arg(flag))
        })
        .await;
        trial.run(OF_ALL).await;
        if major >= 15 {
            trial.run(OF_15).await;
            if flags.is_empty() {
                trial.run(&[LIST, TOAST, WRITTEN_LATER]).await;
            } else {
                trial.run(&[LIST_WITH_IMAGES, TOAST, WRITTEN_LATER_WITH_IMAGES]).await;
            }
        }
        if major >= 18 {
            trial.run(OF_18).await;
        }
        trial.finish().await;
    })
    .await;
}

/// Case 37: the history is not written for the sake of transactions that have nothing for it.
#[tokio::test]
async fn case_37_what_is_not_published_costs_no_write() {
    for_each_version(async |cluster| {
        let setup = "CREATE TABLE unpublished (id int PRIMARY KEY); CREATE PUBLICATION {db} FOR TABLE mark";
        // An idle position is none of what is asked here: other tests write WAL, and it would be persisted for that.
        let flags = |builder: walcast_testkit::DaemonBuilder| {
            builder
                .arg("--no-manage")
                .flag("--heartbeat", "50ms")
                .flag("--idle-persist-interval", "1h")
                .flag("--idle-persist-interval-max", "1h")
        };
        let mut trial = Trial::with(cluster, setup, flags).await;
        trial.mark().await;
        let stored = format!("SELECT position_lsn >= '{}' FROM walcast.feed", trial.live.cursor.lsn());
        trial.database.until(&stored, "t").await;
        let writes = "SELECT xmin::text || ' ' || ctid FROM walcast.feed";
        let before = trial.database.scalar(writes).await;
        for id in 0..20 {
            trial.database.run(&format!("INSERT INTO unpublished VALUES ({id})")).await;
        }
        let end = crate::observer::wal_position(&trial.database).await;
        // The feed has been told of all that, and has nothing of it.
        trial.database.run("SELECT pg_logical_emit_message(true, 'app', 'the end')").await;
        while trial.live.heartbeats.last().is_none_or(|head| *head < end) {
            trial.live.until("heartbeat").await;
        }
        assert_eq!(trial.database.scalar(writes).await, before);
        trial.finish().await;
    })
    .await;
}
