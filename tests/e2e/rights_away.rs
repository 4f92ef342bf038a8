//! Policies that change while a client of the SDK is away.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use walcast_client::{Client, Event, MemoryStore, Mode, Subscription};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, for_each_version, within};

use crate::observer::{open, receive, send};
use crate::rights::{POLICIES, TABLES, daemon, token};

/// A program that keeps a copy of the notes that Ann may have, and the cursor with it.
#[derive(Default)]
struct Program {
    copy: BTreeMap<i64, Value>,
    store: MemoryStore,
}

impl Program {
    /// Runs until it has caught up, and ends. Whether it learnt that its rights had changed, and how it began after that.
    async fn run(&mut self, daemon: &Daemon) -> (bool, Mode) {
        let builder = Client::builder(&daemon.ws_url()).token(token("ann", "user"));
        let mut client = builder.cursor_store(self.store.clone()).build().expect("a client");
        client
            .subscribe(Subscription::new("notes", ["public.notes"]).expect("a table"))
            .await
            .expect("a store");
        let (mut changed, mut mode) = (false, None);
        loop {
            let event = within("an event", LIMIT, client.next()).await.expect("the client goes on");
            match event.expect("the client goes on") {
                Event::RightsChanged { .. } => changed = true,
                Event::Subscribed(subscribed) => {
                    mode = Some(subscribed.mode);
                    if subscribed.mode == Mode::Snapshot {
                        self.copy.clear();
                    }
                }
                Event::Snapshot(snapshot) => snapshot.rows.iter().for_each(|row| self.put(row.get())),
                Event::Transaction(transaction) => {
                    for change in &transaction.changes {
                        let key = change.key.as_ref().map(|key| id(key.get()));
                        key.map(|key| self.copy.remove(&key));
                        change.row.iter().for_each(|row| self.put(row.get()));
                    }
                }
                Event::CaughtUp(caught_up) => {
                    client.store(&caught_up.id, caught_up.cursor).await.expect("a store");
                    client.close().await;
                    return (changed, mode.expect("it has begun"));
                }
                Event::Failed { error, .. } | Event::Error(error) => panic!("{error:?}"),
                _ => {}
            }
        }
    }

    fn put(&mut self, row: &str) {
        self.copy.insert(id(row), serde_json::from_str(row).expect("JSON"));
    }

    /// How many of its rows are whose.
    fn owners(&self) -> BTreeMap<&str, usize> {
        let mut owners = BTreeMap::new();
        for row in self.copy.values() {
            *owners.entry(row["owner"].as_str().expect("an owner")).or_default() += 1;
        }
        owners
    }
}

fn id(row: &str) -> i64 {
    let row: Value = serde_json::from_str(row).expect("JSON");
    row["id"].as_i64().expect("an id")
}

#[tokio::test]
async fn a_copy_that_was_made_under_other_rights_is_made_again() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut daemon, path) = daemon(&database, &folder).await;
        let mut program = Program::default();
        assert_eq!(program.run(&daemon).await, (false, Mode::Snapshot));
        assert_eq!(program.owners(), BTreeMap::from([("ann", 20)]));
        // More rows than before, of which no change tells.
        let wider = POLICIES.replace("owner = claims.sub", "owner IN ('ann', 'bob')");
        std::fs::write(&path, &wider).expect("a file");
        daemon.hang_up();
        daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
        database.run("INSERT INTO notes VALUES (101, 'ann', 'new', 'x')").await;
        assert_eq!(program.run(&daemon).await, (true, Mode::Snapshot));
        assert_eq!(program.owners(), BTreeMap::from([("ann", 21), ("bob", 20)]));
        // The same: it goes on where it was.
        database.run("INSERT INTO notes VALUES (102, 'bob', 'new', 'x')").await;
        let (changed, mode) = program.run(&daemon).await;
        assert!(!changed && mode != Mode::Snapshot, "{mode:?}");
        assert_eq!(program.owners(), BTreeMap::from([("ann", 21), ("bob", 21)]));
        // Fewer, while neither the client nor the daemon was there.
        daemon.terminate().await;
        std::fs::write(&path, POLICIES).expect("a file");
        daemon.restart().await;
        assert_eq!(program.run(&daemon).await, (true, Mode::Snapshot));
        assert_eq!(program.owners(), BTreeMap::from([("ann", 21)]));
    })
    .await;
}

/// How a client that leaves it to the daemon to know where it was begins, and how many rows it is sent. It acknowledges what
/// it got, until that is durable.
async fn resume_where_acknowledged(daemon: &Daemon) -> (Value, u64) {
    let (mut socket, _) = open(&format!("{}?token={}", daemon.ws_url(), token("ann", "user"))).await;
    let subscribe = json!({"type": "subscribe", "id": "notes", "tables": [{"table": "public.notes"}],
                           "client_id": "laptop", "cursor": "acked"});
    send(&mut socket, subscribe).await;
    let (mut mode, mut rows, mut asked) = (Value::Null, 0, Value::Null);
    loop {
        let message = within("a message", LIMIT, receive(&mut socket)).await.expect("the connection goes on");
        match message["type"].as_str() {
            Some("subscribed") => mode = message["mode"].clone(),
            Some("snapshot") => rows += message["rows"].as_array().expect("rows").len() as u64,
            Some("caught_up") => {
                asked = message["cursor"].clone();
                send(&mut socket, json!({"type": "ack", "id": "notes", "cursor": asked})).await;
            }
            Some("acked") if message["cursor"] == asked => return (mode, rows),
            Some("error") => panic!("{message}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_under_other_rights_is_made_again() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(TABLES).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (mut daemon, path) = daemon(&database, &folder).await;
        assert_eq!(resume_where_acknowledged(&daemon).await, (json!("snapshot"), 20));
        let (mode, rows) = resume_where_acknowledged(&daemon).await;
        assert!(mode != "snapshot" && rows == 0, "the same rights: it goes on where it was");
        // Other ones while it is away, and then while the daemon is.
        let wider = POLICIES.replace("owner = claims.sub", "owner IN ('ann', 'bob')");
        std::fs::write(&path, &wider).expect("a file");
        daemon.hang_up();
        daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
        assert_eq!(resume_where_acknowledged(&daemon).await, (json!("snapshot"), 40));
        daemon.terminate().await;
        std::fs::write(&path, POLICIES).expect("a file");
        daemon.restart().await;
        assert_eq!(resume_where_acknowledged(&daemon).await, (json!("snapshot"), 20));
        assert_ne!(resume_where_acknowledged(&daemon).await.0, "snapshot");
    })
    .await;
}
