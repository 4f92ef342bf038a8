//! Channels: what clients and the database say to whoever is there, and who is.

mod client;
mod limits;
mod policies;

use serde_json::{Value, json};
use walcast_testkit::{
    Daemon, Direction, LIMIT, Proxy, TestDatabase, eventually, for_each_version, shared_cluster, within,
};

use crate::observer::{Socket, open, receive, send, wal_position};

/// A connection, of which heartbeats and the like are not looked at.
pub(crate) struct Client {
    socket: Socket,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        Self { socket: open(url).await.0 }
    }

    pub(crate) async fn say(&mut self, message: Value) {
        send(&mut self.socket, message).await;
    }

    pub(crate) async fn join(&mut self, message: Value) -> String {
        let mut join = json!({"type": "join"});
        for (name, value) in message.as_object().expect("an object") {
            join[name] = value.clone();
        }
        self.say(join).await;
        let joined = self.until_said().await;
        assert_eq!(
            (&joined["type"], &joined["channel"]),
            (&json!("joined"), &message["channel"]),
            "{joined}"
        );
        joined["member"].as_str().expect("a name").to_owned()
    }

    /// The next message about channels, subscriptions or mistakes.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = within("a message", LIMIT, receive(&mut self.socket)).await;
            let message = message.expect("the connection goes on");
            if !["welcome", "status", "heartbeat"].contains(&message["type"].as_str().unwrap_or_default()) {
                return message;
            }
        }
    }

    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next message but those about presence.
    async fn until_said(&mut self) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] != "presence" {
                return message;
            }
        }
    }

    /// Everything that was said to it before now: it says something that is refused, and hears that last.
    async fn all_so_far(&mut self) -> Vec<Value> {
        self.say(json!({"type": "leave", "channel": "nowhere", "ref": "now"})).await;
        let mut all = Vec::new();
        loop {
            match self.next().await {
                message if message["ref"] == "now" => return all,
                message => all.push(message),
            }
        }
    }
}

fn states(list: &Value) -> Vec<&Value> {
    list.as_array().expect("a list").iter().map(|member| &member["state"]).collect()
}

#[tokio::test]
async fn two_clients_talk_and_see_each_other_come_and_go() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).start().await;
    let proxy = Proxy::to(daemon.port()).await;
    let mut ann = Client::connect(&daemon.ws_url()).await;
    let mut bob = Client::connect(&proxy.url(&daemon.ws_url())).await;
    let ann_there =
        ann.join(json!({"channel": "room", "state": {"name": "Ann"}, "client_id": "phone"})).await;
    assert_eq!(states(&ann.until("presence").await["members"]), [&json!({"name": "Ann"})]);
    let bob_there = bob.join(json!({"channel": "room", "state": {"name": "Bob"}, "ref": "b"})).await;
    assert_eq!(states(&bob.until("presence").await["members"]).len(), 2);
    assert_eq!(ann.next().await["joined"], json!([{"member": bob_there, "state": {"name": "Bob"}}]));
    // As it was written, to the others; and to oneself when that is asked for.
    ann.say(json!({"type": "publish", "channel": "room", "payload": {"text": "é", "from": "somebody else"}, "from": {"member": "x"}}))
        .await;
    let from = json!({"member": ann_there, "client_id": "phone"});
    let said = json!({"type": "message", "channel": "room", "payload": {"text": "é", "from": "somebody else"}, "from": from});
    assert_eq!(bob.next().await, said);
    ann.say(json!({"type": "publish", "channel": "room", "payload": 2, "echo": true})).await;
    for client in [&mut ann, &mut bob] {
        let heard = client.next().await;
        assert_eq!((&heard["payload"], &heard["from"]), (&json!(2), &from));
    }
    // Another state, and none.
    bob.say(json!({"type": "presence", "channel": "room", "state": "away"})).await;
    assert_eq!(ann.next().await["joined"], json!([{"member": bob_there, "state": "away"}]));
    bob.say(json!({"type": "presence", "channel": "room", "state": null})).await;
    assert_eq!(ann.next().await["left"], json!([{"member": bob_there}]));
    bob.say(json!({"type": "presence", "channel": "room", "state": "here"})).await;
    assert_eq!(states(&ann.next().await["joined"]), [&json!("here")]);
    // The same client on two connections is there twice, and once when one of them has gone.
    let mut again = Client::connect(&daemon.ws_url()).await;
    let again_there = again.join(json!({"channel": "room", "state": 2, "client_id": "phone"})).await;
    assert_ne!(again_there, ann_there);
    assert_eq!(states(&ann.next().await["joined"]), [&json!(2)]);
    drop(again);
    assert_eq!(ann.next().await["left"], json!([{"member": again_there, "client_id": "phone"}]));
    // What is refused says which it was; the client stays.
    ann.say(json!({"type": "join", "channel": "room", "ref": "twice"})).await;
    let error = ann.next().await;
    assert_eq!(
        (&error["code"], &error["ref"], &error["channel"]),
        (&json!("bad_message"), &json!("twice"), &Value::Null)
    );
    for kind in ["publish", "presence", "leave"] {
        ann.say(json!({"type": kind, "channel": "elsewhere", "payload": 1, "ref": kind})).await;
        assert_eq!(ann.next().await["ref"], kind);
    }
    // Its connection is cut without a word.
    proxy.cut();
    assert_eq!(ann.next().await["left"], json!([{"member": bob_there}]));
    ann.say(json!({"type": "leave", "channel": "room"})).await;
    assert!(ann.all_so_far().await.is_empty());
    eventually("nobody is there", LIMIT, async || {
        (daemon.metric("walcast_channels").await == Some(0.0)
            && daemon.metric("walcast_channel_members").await == Some(0.0))
        .then_some(())
    })
    .await;
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn the_database_says_something_and_nothing_of_it_is_kept() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut daemon = Daemon::of(&database).start().await;
        let start = wal_position(&database).await;
        let mut client = Client::connect(&daemon.ws_url()).await;
        client.join(json!({"channel": "room"})).await;
        client.say(json!({"type": "subscribe", "id": "t", "tables": [{"table": "*"}], "cursor": "latest"})).await;
        client.until("caught_up").await;
        for sql in [
            "SELECT walcast.publish('room', '1.10')",
            "SELECT pg_logical_emit_message(false, 'walcast', '{\"channel\":\"room\",\"payload\":{\"n\": 2}}')",
            // Not with the transaction: at once, and also when that is rolled back.
            "BEGIN; SELECT walcast.publish('room', '3'); INSERT INTO t VALUES (1); ROLLBACK",
            // With the transaction: not when it is rolled back, and not before it commits.
            "BEGIN; SELECT walcast.publish('room', '\"never\"', transactional => true); ROLLBACK",
            "BEGIN; INSERT INTO t VALUES (2); SELECT walcast.publish('room', '4', true); SELECT walcast.publish('room', '5', true);
             SAVEPOINT s; SELECT walcast.publish('room', '\"never\"', true); ROLLBACK TO s; COMMIT",
            // Nobody is there, and nothing that anybody could be told.
            "SELECT walcast.publish('elsewhere', '0')",
            "SELECT pg_logical_emit_message(false, 'walcast.message', '{\"channel\":7}'), pg_logical_emit_message(true, 'walcast.message', 'x')",
            "SELECT pg_logical_emit_message(false, 'walcast.message', '\\x7bff00'::bytea), pg_logical_emit_message(false, 'walcast.message', repeat('x', 70000))",
            "SELECT walcast.publish('room', '6')",
            "INSERT INTO t VALUES (3)",
        ] {
            database.run(sql).await;
        }
        let mut said = Vec::new();
        let mut rows = Vec::new();
        while said.len() < 6 || rows.len() < 2 {
            let message = client.next().await;
            match message["type"].as_str() {
                Some("message") => {
                    assert!(message["from"].is_null() && message["lsn"].is_string(), "{message}");
                    said.push(message["payload"].clone());
                }
                Some("transaction") => rows.push(message["changes"][0]["row"]["id"].clone()),
                Some("relation" | "presence") => {}
                other => panic!("{other:?}: {message}"),
            }
        }
        assert_eq!(said, [json!(1.10), json!({"n": 2}), json!(3), json!(4), json!(5), json!(6)]);
        assert_eq!(rows, [2, 3]);
        daemon.until_log("left out a message to a channel").await;
        let page = daemon.get("/metrics").await.expect("an answer").body;
        assert!(page.contains(r#"reason="bad_message"} 4"#), "{page}");
        // The functions say what is wrong with it.
        let session = database.session().await;
        for sql in ["SELECT walcast.publish('', '1')", "SELECT walcast.publish('a', to_jsonb(repeat('x', 65536)))"] {
            assert!(session.batch_execute(sql).await.is_err(), "{sql}");
        }
        // The rows are the only changes there are.
        database.until("SELECT string_agg(row, ' ' ORDER BY lsn, seq) FROM walcast.change_history", r#"{"id":2} {"id":3}"#).await;
        let page = daemon.get(&format!("/v1/changes?tables=*&cursor={start}")).await.expect("an answer").body;
        assert!(page.contains(r#"{"id":3}"#) && !page.contains("never") && !page.contains("payload"), "{page}");
        // Nor is it told again, to nobody, by a daemon that starts: what was said before is over.
        daemon.kill9().await;
        database.run("SELECT walcast.publish('room', '\"while it was down\"')").await;
        database.run("SELECT walcast.publish('room', '\"so was this\"', true)").await;
        daemon.restart().await;
        let mut client = Client::connect(&daemon.ws_url()).await;
        client.join(json!({"channel": "room"})).await;
        database.run("SELECT walcast.publish('room', '7', true)").await;
        assert_eq!(client.until("message").await["payload"], 7);
        daemon.until_metric("walcast_channel_messages_before_start_total", 2.0).await;
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_is_read_again_tells_nothing_twice() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).start().await;
    let mut client = Client::connect(&daemon.ws_url()).await;
    client.join(json!({"channel": "room"})).await;
    for round in 0..5 {
        database.run(&format!("SELECT walcast.publish('room', '{round}')")).await;
        assert_eq!(client.until("message").await["payload"], round);
        // Before the slot has moved over it.
        let terminate = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
            database.slot_name()
        );
        database.run(&terminate).await;
        assert_eq!(client.all_so_far().await, [Value::Null; 0]);
    }
    database.run("SELECT walcast.publish('room', '\"last\"', true)").await;
    assert_eq!(client.until_said().await["payload"], "last");
}

#[tokio::test]
async fn who_is_lost_without_a_word_is_shown_no_more_and_again_when_he_is_back() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon =
        Daemon::of(&database).flag("--heartbeat", "100ms").flag("--presence-silence-max", "1s").start().await;
    let proxy = Proxy::to(daemon.port()).await;
    let mut ann = Client::connect(&daemon.ws_url()).await;
    let mut bob = Client::connect(&proxy.url(&daemon.ws_url())).await;
    ann.join(json!({"channel": "room"})).await;
    let bob_there = bob.join(json!({"channel": "room", "state": "bob"})).await;
    // He reads, and so answers.
    let reading = tokio::spawn(async move { while bob.next().await["type"] != "message" {} });
    while ann.until("presence").await["joined"] == json!([]) {}
    proxy.blackhole(Direction::ToServer);
    assert_eq!(ann.until("presence").await["left"], json!([{"member": bob_there}]));
    proxy.heal();
    assert_eq!(ann.until("presence").await["joined"], json!([{"member": bob_there, "state": "bob"}]));
    ann.say(json!({"type": "publish", "channel": "room", "payload": "he is back"})).await;
    within("the end", LIMIT, reading).await.expect("he heard it");
}
