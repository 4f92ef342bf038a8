//! Policies over tables that were altered while their client was away: it is told from where on it can be served, and never
//! passes over what may have been in its copy.

use serde_json::{Value, json};
use walcast_model::Cursor;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, within};

use super::{Client, daemon, token};
use crate::http::ask;
use crate::observer::wal_position;

const POLICIES: &str = r#"
[[policy]]
role = "user"
table = "public.*"
where = "owner = claims.sub"
"#;

const TABLES: &str = "CREATE TABLE notes (id int PRIMARY KEY, owner text COLLATE \"C\", n int);
    CREATE TABLE tasks (id int PRIMARY KEY, owner text COLLATE \"C\", n int);
    ALTER TABLE tasks REPLICA IDENTITY FULL;
    CREATE TABLE loose (id int PRIMARY KEY, n int)";

/// What a user's subscription from a cursor on ends with, and what it was told before that.
async fn ends(daemon: &Daemon, entry: &Value, cursor: Cursor) -> (Value, String) {
    let mut client = Client::connect(daemon, &token("ann", "user")).await;
    client.subscribe("a", entry.clone(), Some(cursor)).await;
    (client.until("a", "caught_up").await, client.heard)
}

async fn served(daemon: &Daemon, entry: &Value, cursor: Cursor) -> String {
    let (last, heard) = ends(daemon, entry, cursor).await;
    assert_eq!(last["type"], "caught_up", "{entry} from {cursor}: {last}");
    heard
}

async fn named(daemon: &Daemon, entry: &Value, cursor: Cursor) -> Cursor {
    let (refused, heard) = ends(daemon, entry, cursor).await;
    assert_eq!(refused["code"], "cursor_too_old", "{entry} from {cursor}: {heard}");
    // What the policy compares is not for the client.
    assert!(!refused.to_string().contains("owner") && !refused.to_string().contains("ALTER"), "{refused}");
    let oldest = refused["oldest"].as_str().unwrap_or_else(|| panic!("a position: {refused}"));
    oldest.parse().expect("a cursor")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_served_from_the_first_position_on_at_which_it_fits_by_name_and_by_pattern() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut daemon, path) = daemon(&database, &folder).await;
        std::fs::write(&path, POLICIES).expect("a file");
        daemon.hang_up();
        daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
        let start = wal_position(&database).await;
        for sql in [
            "INSERT INTO notes VALUES (1, 'ann', 0), (2, 'bob', 0); INSERT INTO tasks VALUES (1, 'ann', 0)",
            "ALTER TABLE notes REPLICA IDENTITY FULL",
            "UPDATE notes SET n = 1",
        ] {
            database.run(sql).await;
        }
        // From here on a client has rows of both.
        let had = wal_position(&database).await;
        for sql in [
            "ALTER TABLE notes REPLICA IDENTITY DEFAULT",
            // She loses the row, and nobody can tell her.
            "UPDATE notes SET owner = 'bob' WHERE id = 1",
            "ALTER TABLE notes REPLICA IDENTITY FULL",
        ] {
            database.run(sql).await;
        }
        let after = wal_position(&database).await;
        database.run("INSERT INTO notes VALUES (3, 'ann', 3); INSERT INTO loose VALUES (1, 1); UPDATE tasks SET n = 2").await;
        // What has not come yet can end nobody.
        let end = wal_position(&database).await.lsn();
        database.until(&format!("SELECT position_lsn >= '{end}' FROM walcast.feed"), "t").await;
        let (name, pattern) = (json!({"table": "public.notes"}), json!({"table": "public.*"}));
        for what in ["memory", "history"] {
            for entry in [&name, &pattern] {
                for from in [start, had] {
                    let oldest = named(&daemon, entry, from).await;
                    assert!(oldest > had && oldest <= after, "from {what}: {oldest} of {had} to {after}");
                    let heard = served(&daemon, entry, oldest).await;
                    assert!(heard.contains(r#""n":3"#) && !heard.contains("bob"), "{heard}");
                }
            }
            // Of a table without what the policy compares nothing is given, and it is in nobody's way.
            let heard = served(&daemon, &json!({"table": "public.tasks"}), start).await;
            assert!(heard.contains(r#""n":2"#), "{heard}");
            daemon.terminate().await;
            daemon.restart().await;
        }
        let line = format!("GET /v1/changes?tables=public.*&cursor={had}");
        let bearer = format!("Authorization: Bearer {}\r\n", token("ann", "user"));
        let (status, refused) = ask(&daemon, &line, &bearer, "").await;
        let oldest = named(&daemon, &pattern, had).await;
        assert_eq!((status, &refused["oldest"]), (410, &json!(oldest.to_string())), "{refused}");
        // As it is now the policy does not fit: the rest of the pattern is served, and the table by its name is not.
        database.run("ALTER TABLE notes REPLICA IDENTITY DEFAULT; UPDATE notes SET n = 4").await;
        let now = wal_position(&database).await;
        let heard = served(&daemon, &pattern, now).await;
        assert!(!heard.contains("notes"), "{heard}");
        // The definition that it had a moment ago is trusted for two seconds.
        let refused = async {
            loop {
                let (last, _) = ends(&daemon, &name, now).await;
                if last["type"] == "error" {
                    return last;
                }
            }
        };
        let refused = within("a policy that does not fit is refused", LIMIT, refused).await;
        assert_eq!(refused["code"], "identity_required", "{refused}");
        assert!(!refused["message"].to_string().contains("owner"), "{refused}");
        // Who has rows of it and is served the rest is told of it when it is given again, before any change of it.
        let mut back = Client::connect(&daemon, &token("ann", "user")).await;
        back.subscribe("b", pattern.clone(), Some(now)).await;
        assert_eq!(back.until("b", "caught_up").await["type"], "caught_up", "{}", back.heard);
        database.run("UPDATE notes SET owner = 'bob' WHERE id = 3").await;
        database.run("ALTER TABLE notes REPLICA IDENTITY FULL; INSERT INTO notes VALUES (5, 'ann', 5)").await;
        let refused = back.until("b", "transaction").await;
        assert_eq!(refused["code"], "cursor_too_old", "{}", back.heard);
        assert!(!back.heard.contains(r#""n":5"#), "{}", back.heard);
    })
    .await;
}
