//! Claims of every form beside arrays and jsonb: a token gives what it says, and no form of it gives everything.

use serde_json::{Value, json};
use walcast_testkit::{TestDatabase, for_each_version};

use super::{Client, daemon, signed};
use crate::observer::wal_position;

const POLICIES: &str = r#"
[[policy]]
role = "any"
table = "public.docs"
where = "team = ANY (claims.teams)"

[[policy]]
role = "overlaps"
table = "public.docs"
where = "teams && claims.teams"

[[policy]]
role = "contains"
table = "public.docs"
where = "teams @> claims.teams"

[[policy]]
role = "document"
table = "public.docs"
where = "labels @> claims.teams"
"#;

const TABLES: &str = r#"CREATE TABLE docs (id int PRIMARY KEY, team text COLLATE "C", teams text[] COLLATE "C", labels jsonb);
    ALTER TABLE docs REPLICA IDENTITY FULL;
    INSERT INTO docs VALUES (1, 'red', '{red}', '{"red": 1}'), (2, 'blue', '{blue,red}', '{}'), (3, NULL, '{}', '{"a": 1}'),
        (4, '{red,blue}', ARRAY['{red,blue}'], '5')"#;

/// The ids of an initial sync's rows and of what came after it; `None` for who is given nothing of the table.
async fn given(client: &mut Client, id: &str) -> Option<Vec<i64>> {
    client.subscribe(id, json!({"table": "public.docs"}), None).await;
    let last = client.until(id, "caught_up").await;
    if last["type"] == "error" {
        assert_eq!(last["code"], "forbidden", "{last}");
        return None;
    }
    let of_it = |message: &&Value| message["id"] == id;
    let rows = client.others.iter().filter(of_it).flat_map(|message| message["rows"].as_array()).flatten();
    let mut ids: Vec<i64> = rows.filter_map(|row| row["id"].as_i64()).collect();
    ids.sort_unstable();
    Some(ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_value_beside_an_array_is_one_of_one_and_what_is_neither_gives_nothing() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (daemon, path) = daemon(&database, &folder).await;
        std::fs::write(&path, POLICIES).expect("a file");
        daemon.hang_up();
        daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
        let all: [(Value, [Option<&[i64]>; 4]); 9] = [
            (json!(["red"]), [Some(&[1]), Some(&[1, 2]), Some(&[1, 2]), None]),
            (json!(["red", "blue"]), [Some(&[1, 2]), Some(&[1, 2]), Some(&[2]), None]),
            (json!("red"), [Some(&[1]), Some(&[1, 2]), Some(&[1, 2]), None]),
            // As text of an array it would be many, or none, which every array contains.
            (json!("{red,blue}"), [Some(&[4]), Some(&[4]), Some(&[4]), None]),
            (json!("{}"), [Some(&[]), Some(&[]), Some(&[]), None]),
            (json!(5), [Some(&[]), Some(&[]), Some(&[]), None]),
            (json!({}), [None, None, None, Some(&[1, 2, 3])]),
            (json!({"red": 1}), [None, None, None, Some(&[1])]),
            (Value::Null, [Some(&[]), Some(&[]), Some(&[]), Some(&[])]),
        ];
        for (teams, expected) in &all {
            for (role, expected) in ["any", "overlaps", "contains", "document"].into_iter().zip(expected) {
                let token = signed(json!({"sub": "ann", "role": role, "teams": teams}), 600);
                let mut client = Client::connect(&daemon, &token).await;
                let found = given(&mut client, "a").await;
                assert_eq!(found.as_deref(), *expected, "{role} with {teams}");
            }
        }
        // What changes is judged alike.
        let start = wal_position(&database).await;
        database.run("UPDATE docs SET labels = labels").await;
        let end = wal_position(&database).await;
        for (teams, ids) in
            [(json!("{}"), vec![]), (json!("red"), vec![1, 2]), (json!("{red,blue}"), vec![4])]
        {
            let token = signed(json!({"sub": "ann", "role": "contains", "teams": teams}), 600);
            let mut client = Client::connect(&daemon, &token).await;
            client.subscribe("a", json!({"table": "public.docs"}), Some(start)).await;
            client.until_past(end).await;
            let heard: Vec<i64> =
                (1..=4).filter(|id| client.heard.contains(&format!(r#""row":{{"id":{id},"#))).collect();
            assert_eq!(heard, ids, "{teams}: {}", client.heard);
        }
    })
    .await;
}
