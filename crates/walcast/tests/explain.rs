//! `walcast explain` against a daemon's history: what it says of each row and change, and that a client would be sent
//! just that.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use walcast_testkit::{Daemon, TestDatabase, for_each_version};

const POLICIES: &str = r#"
[[policy]]
role = "customer"
table = "public.orders"
columns = ["id", "customer_id", "total"]
where = "customer_id = claims.customer"

[[policy]]
role = "thin"
table = "public.thin"
where = "owner = claims.sub"
"#;

struct Scene {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl Scene {
    fn run(&self, arguments: &[&str]) -> Output {
        let (url, name) = (self.database.url(), self.database.slot_name());
        let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .args(["explain"])
            .args(arguments);
        command.args(["--database-url", url, "--slot", &name, "--publication", &name]);
        command.output().unwrap_or_else(|error| panic!("walcast does not start: {error}"))
    }

    fn explain(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{output:?}"))).collect()
    }

    async fn lsn(&self, table: &str, which: &str) -> String {
        let sql =
            format!("SELECT lsn::text FROM walcast.change_history WHERE table_name = '{table}' AND {which}");
        self.database.scalar(&sql).await.expect("a change")
    }
}

fn as_customer<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--as", "claims.json", "--policies", "policies.toml"], more].concat()
}

/// `stage: outcome` of everything that drops, and the messages that hold `fragment`.
fn drops(line: &Value) -> Vec<&str> {
    let stages = line["stages"].as_array().expect("stages");
    stages
        .iter()
        .filter(|stage| stage["outcome"] == "drops")
        .filter_map(|stage| stage["stage"].as_str())
        .collect()
}

async fn scene(cluster: &walcast_testkit::Cluster) -> (Scene, Daemon) {
    let database = TestDatabase::create(cluster).await;
    database
        .run(
            "CREATE TABLE orders (id int PRIMARY KEY, customer_id bigint, total numeric, note text);
             ALTER TABLE orders REPLICA IDENTITY FULL;
             CREATE TABLE thin (id int PRIMARY KEY, owner text);
             CREATE TABLE loose (a int);",
        )
        .await;
    let daemon = Daemon::of(&database).program(env!("CARGO_BIN_EXE_walcast")).start().await;
    for sql in [
        "INSERT INTO orders VALUES (1, 7, 1.50, 'mine'), (2, 8, 2, 'theirs')",
        "UPDATE orders SET customer_id = 7 WHERE id = 2",
        "UPDATE orders SET customer_id = 9 WHERE id = 1",
        "UPDATE orders SET id = 3 WHERE id = 2",
        "INSERT INTO thin VALUES (1, '7'); INSERT INTO loose VALUES (1)",
    ] {
        database.run(sql).await;
    }
    database.until("SELECT count(*) FROM walcast.change_history WHERE table_name = 'loose'", "1").await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("policies.toml"), POLICIES).expect("a file");
    std::fs::write(folder.path().join("claims.json"), r#"{"sub": "7", "customer": "7", "role": "customer"}"#)
        .expect("a file");
    std::fs::write(folder.path().join("evil.json"), r#"{"customer": ["7", "8"], "role": "customer"}"#)
        .expect("a file");
    (Scene { database, folder }, daemon)
}

#[tokio::test]
async fn every_change_is_explained_with_what_the_client_is_sent() {
    for_each_version(async |cluster| {
        let (scene, mut daemon) = scene(cluster).await;
        let insert = scene.lsn("orders", "op = 'insert' AND seq = 0").await;
        let lines = scene.explain(&as_customer(&["--table", "orders", "--lsn", &insert]));
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert_eq!((&lines[0]["of"], &lines[0]["delivered"]), (&json!("table"), &json!(true)), "{lines:#?}");
        assert_eq!(lines[1]["lsn"], format!("{insert}:0"));
        assert_eq!(lines[1]["sent"]["row"], json!({"id": 1, "customer_id": 7, "total": 1.50}));
        assert_eq!((&lines[2]["sent"], drops(&lines[2])), (&Value::Null, vec!["policy"]));
        // One change of it, and a where of the subscription.
        let one = format!("{insert}:1");
        let lines =
            scene.explain(&["--table", "orders", "--lsn", &one, "--where", "total > 1", "--columns", "note"]);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_eq!(lines[1]["sent"]["row"], json!({"id": 2, "note": "theirs"}));

        let enters =
            scene.lsn("orders", "op = 'update' AND \"row\" LIKE '%\"id\":2,\"customer_id\":7%'").await;
        let lines = scene.explain(&as_customer(&["--table", "orders", "--lsn", &enters]));
        let sent = &lines[1]["sent"];
        assert_eq!(
            (&sent["op"], &sent["key"], &sent["old"]),
            (&json!("insert"), &json!({"id": 2}), &Value::Null)
        );
        let leaves = scene.lsn("orders", "op = 'update' AND \"row\" LIKE '%\"customer_id\":9%'").await;
        let lines = scene.explain(&as_customer(&["--table", "orders", "--lsn", &leaves]));
        let left = json!({"op": "delete", "table": "public.orders", "key": {"id": 1}});
        assert_eq!(lines[1]["sent"], left, "a row that leaves is known by its key alone");
        assert_eq!(daemon.terminate().await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn a_row_is_explained_as_it_is_and_by_its_newest_change() {
    for_each_version(async |cluster| {
        let (scene, mut daemon) = scene(cluster).await;
        // The row got this key by an update: the change names it by the one before.
        let lines = scene.explain(&as_customer(&["--table", "orders", "--key", r#"{"id": 3}"#]));
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert_eq!(
            (&lines[1]["of"], &lines[1]["sent"]),
            (&json!("row"), &json!({"id": 3, "customer_id": 7, "total": 2}))
        );
        assert_eq!(lines[2]["sent"]["key"], json!({"id": 2}));
        assert_eq!(lines[2]["sent"]["row"]["id"], json!(3));
        // It is another's now, and the last that this client heard of it is that it left.
        let lines = scene.explain(&as_customer(&["--table", "orders", "--key", r#"{"id": 1}"#]));
        assert_eq!(
            (drops(&lines[1]), &lines[2]["sent"]["op"]),
            (vec!["policy"], &json!("delete")),
            "{lines:#?}"
        );
        let lines = scene.explain(&as_customer(&["--table", "orders", "--key", r#"{"id": 99}"#]));
        assert_eq!((drops(&lines[1]), drops(&lines[2])), (vec!["source"], vec!["history"]), "{lines:#?}");
        // Whoever is no single value gets nothing, and the operator is told why.
        let evil = [
            "--as",
            "evil.json",
            "--policies",
            "policies.toml",
            "--table",
            "orders",
            "--key",
            r#"{"id": 3}"#,
        ];
        let lines = scene.explain(&evil);
        assert_eq!(drops(&lines[0]), ["policy"]);
        assert!(lines[0].to_string().contains("policy 1, line 2 of policies.toml"), "{lines:#?}");
        assert!(lines.iter().all(|line| line["delivered"] == json!(false)), "{lines:#?}");
        assert_eq!(daemon.terminate().await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn every_stage_can_be_the_one_that_drops() {
    for_each_version(async |cluster| {
        let (scene, mut daemon) = scene(cluster).await;
        let at = scene.lsn("orders", "op = 'insert' AND seq = 0").await;
        let first = |arguments: &[&str]| scene.explain(arguments).remove(0);
        let told = |arguments: &[&str], stage: &str, fragment: &str| {
            let line = first(arguments);
            assert_eq!(drops(&line), [stage], "{line:#}");
            assert!(line.to_string().contains(fragment), "{fragment} is not in {line:#}");
        };
        told(&["--table", "nowhere", "--lsn", &at], "publication", "there is no table public.nowhere");
        told(
            &as_customer(&["--table", "loose", "--lsn", &at]),
            "policy",
            "grants role \\\"customer\\\" anything of public.loose",
        );
        told(&["--table", "orders", "--lsn", &at, "--where", "totl > 1"], "where", "bad_filter");
        told(&["--table", "orders", "--lsn", &at, "--where", "total >"], "where", "bad_filter");
        told(&["--table", "orders", "--lsn", &at, "--columns", "totl"], "columns", "totl");
        told(
            &as_customer(&["--table", "orders", "--lsn", &at, "--where", "note = 'mine'"]),
            "where",
            "the policy hides a column of it",
        );
        told(
            &as_customer(&["--table", "orders", "--lsn", &at, "--columns", "id,note"]),
            "columns",
            "the policy hides note",
        );
        let thin = as_customer(&["--table", "thin", "--role", "thin", "--lsn", &at]);
        told(&thin, "policy", "ALTER TABLE \\\"public\\\".\\\"thin\\\" REPLICA IDENTITY FULL;");
        let loose = first(&["--table", "loose", "--lsn", &at]);
        assert!(
            loose.to_string().contains("it has no key, so updates and deletes carry nothing of the old row"),
            "{loose:#}"
        );
        assert!(loose.to_string().contains("only insert, truncate"), "{loose:#}");
        // Before history, after it, and between its transactions.
        let last = |place: &str| scene.explain(&["--table", "orders", "--lsn", place]).remove(1);
        assert!(last("0/1").to_string().contains("cursor_too_old"));
        assert!(last("FF/0").to_string().contains("is not before that"));
        let between = last(&format!("{at}:50"));
        assert_eq!(drops(&between), ["history"], "{between:#}");
        let other = scene.lsn("thin", "true").await;
        assert!(last(&other).to_string().contains("none of public.orders"), "{}", last(&other));
        assert_eq!(daemon.terminate().await.code(), Some(0));

        for (arguments, fragment) in [
            (vec!["--table", "orders", "--key", "1"], "--key is not a JSON object"),
            (vec!["--table", "orders", "--key", r#"{"total": 1}"#], "the key of public.orders is id"),
            (vec!["--table", "loose", "--key", r#"{"a": 1}"#], "has no key"),
            (vec!["--table", "orders", "--lsn", "x"], "is not a place in the feed"),
            (
                vec!["--table", "orders", "--lsn", "0/1", "--as", "claims.json"],
                "name the file with --policies",
            ),
            (vec!["--table", "orders", "--lsn", "0/1", "--policies", "policies.toml"], "say with --as"),
            (
                vec!["--table", "orders", "--lsn", "0/1", "--policies", "policies.toml", "--as", "clams.json"],
                "--as: clams.json cannot be read: No such file or directory (os error 2)\nhint: name a file; expected are",
            ),
            (
                vec!["--table", "orders", "--lsn", "0/1", "--policies", "policies.toml", "--as", "policies.toml"],
                "--as: policies.toml is not JSON: line 2, column 3: ",
            ),
            (
                as_customer(&["--table", "orders", "--lsn", "0/1", "--config", "nowhere.toml"]),
                "cannot be read",
            ),
        ] {
            let output = scene.run(&arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(said.contains(fragment), "{said}");
        }
        let human = scene.run(&as_customer(&["--table", "orders", "--lsn", &at, "--human"]));
        let human = String::from_utf8_lossy(&human.stdout).into_owned();
        assert!(human.starts_with("public.orders for role \"customer\"\n  keeps  publication  "), "{human}");
        let is_short = |line: &str| line.chars().count() <= 80 || line.starts_with("  sent ");
        assert!(human.lines().all(is_short), "{human}");
        assert!(
            human.contains("\n  drops  policy       the new row: does not hold\n  nothing is sent\n"),
            "{human}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_change_that_cannot_be_judged_is_told_with_where_judging_begins_and_not_with_what_was_done_already()
{
    for_each_version(async |cluster| {
        let (scene, daemon) = scene(cluster).await;
        for sql in [
            "UPDATE thin SET owner = '7'",
            "INSERT INTO thin VALUES (2, '7')",
            "ALTER TABLE thin REPLICA IDENTITY FULL",
            "UPDATE thin SET owner = '8' WHERE id = 2",
        ] {
            scene.database.run(sql).await;
        }
        let count = "SELECT count(*) FROM walcast.change_history WHERE table_name = 'thin'";
        scene.database.until(count, "4").await;
        let end = "SELECT max(commit_end)::text FROM walcast.change_history WHERE table_name = 'thin' AND op = 'insert'";
        let served = scene.database.scalar(end).await.expect("an end");
        let policy = as_customer(&["--table", "thin", "--role", "thin"]);
        let filter = vec!["--table", "thin", "--where", "owner = '7'"];
        for rules in [&policy, &filter] {
            let by_key = [&rules[..], &["--key", r#"{"id": 1}"#]].concat();
            let old = scene.lsn("thin", "op = 'update' AND old IS NULL").await;
            let by_lsn = [&rules[..], &["--lsn", &*old]].concat();
            for arguments in [by_key, by_lsn] {
                let lines = scene.explain(&arguments);
                assert!(lines[0]["delivered"] == true, "it fits the table as it is: {lines:#?}");
                let change = lines.last().expect("a change");
                assert_eq!(change["delivered"], false, "{change:#}");
                let text = change.to_string();
                assert!(text.contains(&format!("cursor_too_old; it can be served from {served} on")), "{text}");
                assert!(text.contains("--from start") && !text.contains("ALTER"), "{text}");
            }
            let new = scene.lsn("thin", "op = 'update' AND old IS NOT NULL").await;
            let change = scene.explain(&[&rules[..], &["--lsn", &*new]].concat()).remove(1);
            assert_eq!((&change["delivered"], &change["sent"]["op"]), (&json!(true), &json!("delete")), "{change:#}");
        }
        // While it does not fit, it is to be altered.
        scene.database.run("ALTER TABLE thin REPLICA IDENTITY DEFAULT").await;
        let now = scene.explain(&[&policy[..], &["--key", r#"{"id": 1}"#]].concat());
        let text = now[0].to_string();
        assert!(text.contains("REPLICA IDENTITY FULL;") && !text.contains("cursor_too_old"), "{text}");
        drop(daemon);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_feed_does_not_have_is_said_with_what_is_near_and_what_publishes_it() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let name = database.slot_name();
        database
            .run(&format!(
                "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
                 CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
                 CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY);
                 CREATE TABLE keyless (id int); CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
                 CREATE PUBLICATION {name} FOR TABLE orders, parted WITH (publish_via_partition_root = true)"
            ))
            .await;
        let scene = Scene { database, folder: tempfile::tempdir().expect("a folder") };
        for (file, text) in
            [("given.toml", "no_manage = true"), ("listed.toml", "tables = [\"public.orders\"]")]
        {
            std::fs::write(scene.folder.path().join(file), text).expect("a file");
        }
        let add =
            |table: &str| format!("ALTER PUBLICATION \"{name}\" ADD TABLE ONLY \"public\".\"{table}\";");
        let exists = |table: &str| format!("public.{table} exists, and is not in the publications");
        for (arguments, message, hint) in [
            (
                &["--config", "given.toml", "--table", "ordres"][..],
                "there is no table public.ordres".to_owned(),
                "did you mean public.orders? ".to_owned(),
            ),
            (
                &["--config", "given.toml", "--table", "nosuch"],
                "there is no table public.nosuch".to_owned(),
                "published are public.orders".to_owned(),
            ),
            (
                &["--config", "given.toml", "--table", "other"],
                exists("other"),
                format!("this publishes it: {}", add("other")),
            ),
            (
                &["--config", "given.toml", "--table", "parted_low"],
                "public.parted_low is a partition, and the feed has its rows under the name public.parted"
                    .to_owned(),
                "ask for public.parted".to_owned(),
            ),
            (
                &["--config", "given.toml", "--table", "keyless"],
                exists("keyless"),
                "a primary key or a replica identity".to_owned(),
            ),
            (
                &["--table", "other"],
                exists("other"),
                format!("walcast setup, or walcast serve while it runs, does it: {}", add("other")),
            ),
            (
                &["--config", "listed.toml", "--table", "other"],
                exists("other"),
                "add public.other to the setting tables".to_owned(),
            ),
            (
                &["--table", "fleeting"],
                exists("fleeting"),
                "ALTER TABLE \"public\".\"fleeting\" SET LOGGED;".to_owned(),
            ),
        ] {
            let output = scene.run(&[arguments, &["--key", "{\"id\": 1}", "--json"]].concat());
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line: Value = serde_json::from_str(text.lines().next().unwrap_or_default())
                .unwrap_or_else(|_| panic!("{output:?}"));
            let stage = &line["stages"][0];
            assert_eq!(stage["outcome"], "drops", "{line:#}");
            let said = |field: &str| stage[field].as_str().unwrap_or_default().to_owned();
            assert!(said("message").starts_with(&message), "{arguments:?}: {line:#}");
            assert!(said("hint").contains(&hint), "{arguments:?}: {line:#}");
        }
    })
    .await;
}

const CHANNELS: &str = r#"
[[policy]]
role = "member"
channel = ["room:{claims.org}:*", "user:{claims.sub}"]

[[policy]]
role = "member"
channel = "news"
allow = []

[[policy]]
role = "*"
channel = ["news", "lobby"]
allow = "publish"
"#;

#[test]
fn what_may_be_done_in_a_channel_is_explained_with_the_policy_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("policies.toml", CHANNELS),
        ("ann.json", r#"{"sub": "ann", "org": 7, "role": "member"}"#),
        ("none.json", "{}"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    // Neither source nor history is asked.
    let run = |arguments: &[&str]| {
        let nowhere = ["--database-url", "postgresql://nobody@127.0.0.1:1/none"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
        command.current_dir(folder.path()).env_clear().stdin(Stdio::null()).arg("explain").args(arguments);
        command.args(nowhere).output().unwrap_or_else(|error| panic!("walcast does not start: {error}"))
    };
    let explained = |arguments: &[&str]| -> Value {
        let output = run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let of = |claims: &str, channel: &str| {
        explained(&["--as", claims, "--policies", "policies.toml", "--channel", channel])
    };
    for (claims, channel, may, fragment) in [
        (
            "ann.json",
            "room:7:chat",
            [true, true, true],
            "policy 1, line 2 of policies.toml (for \"room:{claims.org}:*\") grants joining, publishing and presence",
        ),
        (
            "ann.json",
            "room:8:chat",
            [false; 3],
            "no policy of policies.toml grants role \"member\" the channel \"room:8:chat\" (forbidden)",
        ),
        ("ann.json", "news", [true, false, false], "grants joining alone"),
        (
            "ann.json",
            "news",
            [true, false, false],
            "policy 3, line 11 of policies.toml (for \"news\") does not count",
        ),
        ("ann.json", "lobby", [true, true, false], "grants joining and publishing"),
        ("none.json", "lobby", [true, true, false], "grants joining and publishing"),
        ("ann.json", "a\u{7}", [false; 3], "no policy"),
    ] {
        let role: &[&str] = if claims == "none.json" { &["--role", "guest"] } else { &[] };
        let line = explained(
            &[&["--as", claims, "--policies", "policies.toml", "--channel", channel], role].concat(),
        );
        let found = ["join", "publish", "presence"].map(|what| line[what].as_bool().expect("a word"));
        assert_eq!((&line["of"], found), (&json!("channel"), may), "{line:#}");
        let messages: Vec<&str> = line["stages"]
            .as_array()
            .expect("stages")
            .iter()
            .filter_map(|stage| stage["message"].as_str())
            .collect();
        assert!(messages.iter().any(|message| message.contains(fragment)), "{fragment} is not in {line:#}");
    }
    assert_eq!(drops(&of("ann.json", "room:8:chat")), ["policy"]);
    // A claim that is missing.
    let line = explained(&[
        "--as",
        "none.json",
        "--role",
        "member",
        "--policies",
        "policies.toml",
        "--channel",
        "user:ann",
    ]);
    assert!(line.to_string().contains("gives nothing: a claim of it is missing"), "{line:#}");
    // Without policies: everything, as far as it is a name.
    let line = explained(&["--channel", "anything"]);
    assert_eq!((&line["join"], &line["publish"]), (&json!(true), &json!(true)), "{line:#}");
    let long = "x".repeat(2000);
    let line = explained(&["--channel", &long]);
    assert_eq!((&line["join"], drops(&line)), (&json!(false), vec!["name"]), "{line:#}");
    let human = run(&["--as", "ann.json", "--policies", "policies.toml", "--channel", "news", "--human"]);
    let text = String::from_utf8_lossy(&human.stdout).into_owned();
    for part in [
        "channel \"news\" for role \"member\"",
        "  may      join it",
        "  may not  publish",
        "  keeps  policy",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
